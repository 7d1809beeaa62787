//! Which credential may go where: what the workspace asks for, within what the host grants, within what traffic is allowed as
//! `https` at all. The workspace's hosts narrow the grant's; whatever is asked for and would not happen is an error.

use std::collections::BTreeMap;

use schema::config::Config;
use schema::config::agent;
use schema::credential::CredentialName;
use schema::diag::{Diagnostic, Position, Spanned};
use schema::host::{HostName, HostPattern};
use schema::hostconfig::{Grant, HostConfig};
use schema::net::{Protocol, Transport};
use schema::provider;
use schema::remote::Remote;

use crate::compiled::Compiled;
use crate::credential::{Credential, MAX_CREDENTIAL_PLACES, Place};
use crate::decision::Decision;
use crate::effective::{Action, EffectivePolicy, Origin};
use crate::merge::profile_origin;
use crate::text;

/// The credentials of a workspace on this host; `policy` is about its traffic.
pub fn credentials(
    config: &Config,
    host: &HostConfig,
    policy: &EffectivePolicy,
    found: &mut Vec<Diagnostic>,
) -> Vec<Credential> {
    let traffic = Traffic {
        policy,
        compiled: policy.compile(),
    };
    let mut out: Vec<Credential> = Vec::new();
    for (name, asked) in asked(config) {
        let (name, origin, asked) = (&name, asked.origin, &asked.value);
        let Some(grant) = host.credentials.get(name) else {
            let message = format!("this host grants no credential {name}");
            let help = format!(
                "`{}` grants it to this workspace; [credentials.{name}] in config.toml grants it to every one",
                text::grant(name, asked)
            );
            found.push(
                config
                    .diagnostic(asked.at, "credential-not-granted", message)
                    .help(help),
            );
            continue;
        };
        let before = found.len();
        let granted = Granted::of(name.as_str(), &grant.value, host.remote.as_ref());
        if let Some(place) = granted.missing(asked, &traffic) {
            let remote = host.remote.as_ref();
            found.push(unscoped(config, name, asked.at, place, remote));
            continue;
        }
        let places = places(config, name, asked, granted.places, &traffic, found);
        if found.len() > before {
            continue;
        }
        let credential = Credential {
            name: name.to_string(),
            places,
            header: grant.value.header.to_string(),
            prefix: grant.value.format.prefix().to_owned(),
            suffix: grant.value.format.suffix().to_owned(),
            query: grant.value.query.as_ref().map(ToString::to_string),
            env: variable(config, name, asked, &grant.value, &out, found),
            origin,
        };
        if let Some(other) = out.iter().find(|other| one_field(other, &credential)) {
            let message = format!(
                "credentials {} and {name} go with the same requests in the same header, and one of them is written into each",
                other.name
            );
            let help = "give both an `env`, or divide their hosts, or what their grants say of paths or methods";
            found.push(
                config
                    .diagnostic(asked.at, "conflicting-credentials", message)
                    .help(help),
            );
        }
        out.push(credential);
    }
    out
}

/// What is asked for, and by whom.
struct Asked {
    value: Spanned<agent::Credential>,
    origin: Origin,
}

/// What the config asks for, and what a profile adds: where both name one, the config's words stand, and the profile says which
/// variable its program looks at where the config does not.
fn asked(config: &Config) -> BTreeMap<CredentialName, Asked> {
    let in_file = |(name, value): (&CredentialName, &Spanned<agent::Credential>)| {
        let origin = Origin {
            file: config.file.clone(),
            line: value.at.line,
            column: value.at.column,
        };
        let value = value.clone();
        (name.clone(), Asked { value, origin })
    };
    let mut out: BTreeMap<_, _> = config.agent.credentials.iter().map(in_file).collect();
    let Some((added, of_profile)) = config
        .profile
        .as_ref()
        .and_then(|added| Some((added, added.credential.as_ref()?)))
    else {
        return out;
    };
    let nowhere = Position { line: 1, column: 1 };
    let asked = out.entry(of_profile.name.clone()).or_insert_with(|| Asked {
        value: Spanned::new(agent::Credential::default(), nowhere),
        origin: profile_origin(added),
    });
    let env = &mut asked.value.value.env;
    if env.is_none() {
        *env = Some(Spanned::new(of_profile.env.clone(), nowhere));
    }
    out
}

/// The variable that holds the placeholder: the workspace's word, or the grant's where it says none.
fn variable(
    config: &Config,
    name: &CredentialName,
    asked: &Spanned<agent::Credential>,
    grant: &Grant,
    before: &[Credential],
    found: &mut Vec<Diagnostic>,
) -> Option<String> {
    // The workspace's own is looked at where its config is read.
    if let Some(env) = &asked.env {
        return Some(env.as_str().to_owned());
    }
    let env = grant.env.as_ref()?;
    let asked_for = &config.agent.credentials;
    let holds = before
        .iter()
        .any(|other| other.env.as_deref() == Some(env.as_str()))
        || asked_for
            .values()
            .any(|other| other.env.as_ref().is_some_and(|e| e.value == *env))
        || config.container_env.contains_key(env)
        || config.remote_env.contains_key(env);
    if holds {
        let message = format!(
            "the grant of credential {name} puts its placeholder into {env}, which this config sets already"
        );
        found.push(config.diagnostic(asked.at, "conflicting-variables", message));
    }
    Some(env.as_str().to_owned())
}

/// Where a grant lets its credential go.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Granted {
    pub places: Vec<Place>,
    /// Where it is for the workspace's own repository, and the workspace has none there.
    pub unscoped: Vec<Place>,
}

impl Granted {
    /// To the paths that the grant says, else to those of the workspace's own repository where the provider knows them.
    pub fn of(name: &str, grant: &Grant, remote: Option<&Remote>) -> Self {
        let provider = provider::named(name).filter(|_| grant.paths.is_empty());
        let mut granted = Self::default();
        for host in &grant.hosts {
            let mut place = Place {
                host: host.host.clone(),
                port: host.https_port(),
                paths: grant.paths.clone(),
                methods: grant.methods.clone(),
            };
            if let Some(provider) = provider.filter(|provider| provider.is_scoped(&host.host)) {
                let own = remote.map(|remote| provider.paths_of(&host.host, remote));
                place.paths = own.unwrap_or_default();
                if place.paths.is_empty() {
                    granted.unscoped.push(place);
                    continue;
                }
            }
            granted.places.push(place);
        }
        granted
    }

    /// A place that is asked for and has no paths.
    fn missing(&self, asked: &agent::Credential, traffic: &Traffic<'_>) -> Option<&Place> {
        let is_asked = |place: &&Place| match asked.hosts.as_slice() {
            [] => self.places.is_empty() || traffic.carries(place),
            some => some.iter().any(|host| {
                host.https_port() == place.port && host.host.intersect(&place.host).is_some()
            }),
        };
        self.unscoped.iter().find(is_asked)
    }
}

fn unscoped(
    config: &Config,
    name: &CredentialName,
    at: Position,
    place: &Place,
    remote: Option<&Remote>,
) -> Diagnostic {
    let has = match remote {
        None => "has no remote `origin` that names one".to_owned(),
        Some(remote) => format!("is {remote} on {} by its remote `origin`", remote.host()),
    };
    let message = format!(
        "credential {name} is at {place} for the workspace's own repository alone, and the workspace {has}"
    );
    let help = format!(
        "`agentcontainer grant {name} --paths '/repos/OWNER/NAME/**'` says what else it is for, `--paths '/**'` that it is for everything (`paths` under [credentials.{name}] in config.toml: for every workspace)"
    );
    config
        .diagnostic(at, "credential-scope", message)
        .help(help)
}

fn places(
    config: &Config,
    name: &CredentialName,
    asked: &Spanned<agent::Credential>,
    granted: Vec<Place>,
    traffic: &Traffic<'_>,
    found: &mut Vec<Diagnostic>,
) -> Vec<Place> {
    let mut out = Vec::new();
    for host in &asked.hosts {
        let wanted = Place {
            host: host.host.clone(),
            port: host.https_port(),
            paths: Vec::new(),
            methods: Vec::new(),
        };
        let within: Vec<Place> = granted
            .iter()
            .filter_map(|place| both(place, &wanted))
            .collect();
        if within.is_empty() {
            let mut all: Vec<String> = granted.iter().map(ToString::to_string).collect();
            let message = format!(
                "credential {name} is asked for {wanted}, and this host grants it to {}",
                all.join(", ")
            );
            all.push(wanted.to_string());
            let help = format!(
                "`agentcontainer grant {name} --hosts {}` grants it there too (`hosts` under [credentials.{name}] in config.toml, to every workspace); or take it out here",
                text::hosts(&all)
            );
            found.push(
                config
                    .diagnostic(host.at, "credential-host", message)
                    .help(help),
            );
        } else if !within.iter().any(|place| traffic.carries(place)) {
            found.push(unreachable(config, name, host.at, &wanted));
        }
        out.extend(within);
    }
    if asked.hosts.is_empty() {
        // All that the grant names and traffic may go to.
        out = granted
            .iter()
            .filter(|place| traffic.carries(place))
            .cloned()
            .collect();
        if let (true, Some(first)) = (out.is_empty(), granted.first()) {
            found.push(unreachable(config, name, asked.at, first));
        }
    }
    out.sort();
    out.dedup();
    if out.len() > MAX_CREDENTIAL_PLACES {
        let message = format!(
            "credential {name} goes to {} hosts, the limit is {MAX_CREDENTIAL_PLACES}",
            out.len()
        );
        found.push(config.diagnostic(asked.at, "too-many", message));
    }
    out
}

fn unreachable(
    config: &Config,
    name: &CredentialName,
    at: schema::diag::Position,
    place: &Place,
) -> Diagnostic {
    let message = format!("credential {name} would go to {place}, where nothing may go as https");
    config
        .diagnostic(at, "credential-unreachable", message)
        .help(text::remedy_https(&place.host, place.port))
}

/// What both places name, as far as the first one's paths and methods go.
fn both(a: &Place, b: &Place) -> Option<Place> {
    let host = a.host.intersect(&b.host).filter(|_| a.port == b.port)?;
    Some(Place {
        host,
        port: a.port,
        paths: a.paths.clone(),
        methods: a.methods.clone(),
    })
}

/// Whether the gateway would have to write two values into one field.
fn one_field(a: &Credential, b: &Credential) -> bool {
    (a.env.is_none() || b.env.is_none())
        && a.header == b.header
        && a.places
            .iter()
            .any(|place| b.places.iter().any(|other| place.meets(other)))
}

/// Where traffic may go.
struct Traffic<'a> {
    policy: &'a EffectivePolicy,
    compiled: Compiled,
}

impl Traffic<'_> {
    /// Whether some name of the place is reached as `https`.
    fn carries(&self, place: &Place) -> bool {
        let https = |name: &HostName| {
            matches!(self.compiled.decide(name, place.port, Transport::Tcp),
                Decision::Allow(grant) | Decision::Ask(grant) if grant.protocol == Protocol::Https)
        };
        let HostPattern::Wildcard(_) = &place.host else {
            return https(place.host.name());
        };
        let layers = self.policy.network.layers().iter();
        let mut named = layers.flat_map(|layer| {
            let rules = layer
                .rules
                .iter()
                .filter(|rule| rule.action != Action::Deny);
            let domains = layer.allowed.iter().map(|domain| &domain.host);
            domains.chain(rules.map(|rule| &rule.host))
        });
        named.any(|pattern| match pattern.intersect(&place.host) {
            Some(HostPattern::Exact(name)) => https(&name),
            // Any name below it that no other entry is about.
            Some(HostPattern::Wildcard(base)) => {
                HostName::parse(&format!("any.{base}")).is_ok_and(|name| https(&name))
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests;
