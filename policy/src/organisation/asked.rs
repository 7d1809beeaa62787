//! What a workspace asks for, against what one document allows, field by field. docs/organisation-policy.md has the table.

use std::collections::{BTreeMap, BTreeSet};

use schema::config::Config;
use schema::config::agent::Domain;
use schema::config::lifecycle::Lifecycle;
use schema::credential::{CredentialName, Source};
use schema::diag::{Diagnostic, Place, Position, Spanned};
use schema::host::HostPattern;
use schema::hostconfig::{Engine, HostConfig};
use schema::image::ImageRef;
use schema::net::Protocol;
use schema::organisation::{EngineKind, Organisation};

use super::demands;
use super::{Fetched, Found, few, origin, place, shown};
use crate::ceiling::{Ceiling, Index};
use crate::decision::{Denial, DenyReason};
use crate::effective::{Action, DomainRule, EffectivePolicy, Origin};
use crate::{merge, text};

/// Everything of a config that is no network.
pub fn of_config(config: &Config, host: &HostConfig, document: &Organisation, found: &mut Found) {
    let at = |at: Position| place(&origin(&config.file, at));
    reference(
        document,
        Fetched::Image,
        &config.image.value,
        &at(config.image.at),
        found,
    );
    for (id, options) in &config.features {
        if let Some(named) = id.reference() {
            reference(document, Fetched::Feature, named, &at(options.at), found);
        }
    }
    for (_, _, tool) in config.agent.tools.all() {
        let named = tool.source.reference();
        reference(document, Fetched::Other, named, &at(tool.at), found);
    }
    host_variables(config, document, found);
    if let Some(allowed) = &document.ceilings.mounts {
        for mount in &config.mounts {
            let kind = demands::kind(&mount.source);
            if !allowed.iter().any(|own| own.value == kind) {
                let words = few(allowed.iter().map(|own| own.value.to_string()));
                let what = format!("mount {}, which is of kind {kind},", mount.value);
                found.beyond(
                    &at(mount.at),
                    &what,
                    document,
                    "ceilings.mounts",
                    allowed.at,
                    &words,
                );
            }
        }
    }
    limits(config, document, found);
    let kind = match host.engine() {
        // What is found by itself is Docker: another engine is refused where it is connected to.
        Engine::Auto | Engine::Docker | Engine::Unix(_) => EngineKind::Docker,
        Engine::Podman => EngineKind::Podman,
        Engine::Ssh(_) => EngineKind::Ssh,
        Engine::Tcp(_) => EngineKind::Tcp,
    };
    let engine_place = host
        .engine
        .as_ref()
        .map_or(Place::Object("engine".to_owned()), |setting| {
            place(&origin(&setting.file, setting.at))
        });
    engine(document, kind, &engine_place, found);
    for (name, at) in names(config) {
        let what = format!("credential {name}");
        named(document, &what, &name, &place(&at), found);
    }
    for (name, secret) in &config.agent.secrets {
        let what = format!("secret {name}");
        named(document, &what, name, &at(secret.at), found);
    }
}

/// An engine of that kind.
pub fn engine(document: &Organisation, kind: EngineKind, place: &Place, found: &mut Found) {
    if let Some(allowed) = &document.ceilings.engines
        && !allowed.iter().any(|own| own.value == kind)
    {
        let words = few(allowed.iter().map(|own| own.value.to_string()));
        let what = format!("an engine of kind {kind}");
        found.beyond(
            place,
            &what,
            document,
            "ceilings.engines",
            allowed.at,
            &words,
        );
    }
}

/// Something that is fetched from a registry.
pub fn reference(
    document: &Organisation,
    what: Fetched,
    reference: &ImageRef,
    place: &Place,
    found: &mut Found,
) {
    let words = format!("{reference}");
    let denied = document.denials.images.iter();
    if let Some(denial) = denied.clone().find(|pattern| pattern.matches(reference)) {
        found.denied(place, &words, document, "denials.images", denial.at);
    }
    let (list, key) = match what {
        Fetched::Image => (&document.ceilings.images, "ceilings.images"),
        Fetched::Feature => (&document.ceilings.features, "ceilings.features"),
        Fetched::Other => (&None, ""),
    };
    if let Some(list) = list
        && !list.iter().any(|pattern| pattern.matches(reference))
    {
        found.beyond(place, &words, document, key, list.at, &shown(list));
    }
    if let Some(list) = &document.requirements.registries
        && !list.iter().any(|registry| registry.holds(reference))
    {
        let trusted = few(list.iter().map(|registry| registry.value.to_string()));
        found.beyond(
            place,
            &words,
            document,
            "requirements.registries",
            list.at,
            &trusted,
        );
    }
}

fn host_variables(config: &Config, document: &Organisation, found: &mut Found) {
    let mut read: BTreeSet<(String, Position)> = BTreeSet::new();
    for value in config.container_env.values() {
        let names = value.local_env().into_iter();
        read.extend(names.map(|name| (name.to_owned(), value.at)));
    }
    for value in config.remote_env.values() {
        let names = value.value.iter().flat_map(|template| template.local_env());
        read.extend(names.map(|name| (name.to_owned(), value.at)));
    }
    for (_, stage) in config.lifecycle() {
        let names = Lifecycle::local_env(stage).into_iter();
        read.extend(names.map(|name| (name.to_string(), stage.at)));
    }
    for (name, at) in read {
        let place = place(&origin(&config.file, at));
        host_variable(document, &name, "", &place, found);
    }
}

/// One variable of the host's; `whose` says who reads it, behind its name.
pub fn host_variable(
    document: &Organisation,
    name: &str,
    whose: &str,
    place: &Place,
    found: &mut Found,
) {
    if let Some(allowed) = &document.ceilings.host_variables
        && !allowed.iter().any(|own| own.as_str() == name)
    {
        let words = few(allowed.iter().map(|own| own.value.to_string()));
        let what = format!("reading {name} from this host's environment{whose}");
        let key = "ceilings.hostVariables";
        found.beyond(place, &what, document, key, allowed.at, &words);
    }
}

fn limits(config: &Config, document: &Organisation, found: &mut Found) {
    let (asked, most) = (config.agent.resources(), &document.ceilings.resources);
    fn one<T: PartialOrd + std::fmt::Display>(
        asked: &Option<Spanned<T>>,
        most: &Option<Spanned<T>>,
    ) -> Option<(Position, String, Position, String)> {
        let (asked, most) = (asked.as_ref()?, most.as_ref()?);
        (asked.value > most.value).then(|| {
            (
                asked.at,
                asked.value.to_string(),
                most.at,
                most.value.to_string(),
            )
        })
    }
    let all = [
        ("memory", one(&asked.memory, &most.memory)),
        ("cpus", one(&asked.cpus, &most.cpus)),
        ("pids", one(&asked.pids, &most.pids)),
    ];
    for (name, beyond) in all {
        let Some((at, asked, most_at, most)) = beyond else {
            continue;
        };
        let what = format!("the limit {name} {asked}");
        let place = place(&origin(&config.file, at));
        let (key, most) = (
            format!("ceilings.resources.{name}"),
            format!("at most {most}"),
        );
        found.beyond(&place, &what, document, &key, most_at, &most);
    }
}

// === credentials ===

/// Names of credentials that config and profile ask for, and where.
fn names(config: &Config) -> BTreeMap<CredentialName, Origin> {
    let own = config.agent.credentials.iter();
    let mut out: BTreeMap<CredentialName, Origin> = own
        .map(|(name, asked)| (name.clone(), origin(&config.file, asked.at)))
        .collect();
    if let Some(added) = &config.profile
        && let Some(credential) = &added.credential
    {
        out.entry(credential.name.clone())
            .or_insert_with(|| merge::profile_origin(added));
    }
    out
}

/// A credential or a secret by its name, which is that of a value either way.
fn named(
    document: &Organisation,
    what: &str,
    name: &CredentialName,
    place: &Place,
    found: &mut Found,
) {
    let denied = document.denials.credentials.iter();
    if let Some(denial) = denied.clone().find(|denied| denied.value == *name) {
        found.denied(place, what, document, "denials.credentials", denial.at);
    }
    if let Some(allowed) = &document.ceilings.credentials
        && !allowed.contains_key(name)
    {
        let words = few(allowed.keys().map(ToString::to_string));
        found.beyond(
            place,
            what,
            document,
            "ceilings.credentials",
            allowed.at,
            &words,
        );
    }
}

/// Where credentials go and come from, as the host grants them.
pub fn credentials(
    policy: &EffectivePolicy,
    host: &HostConfig,
    document: &Organisation,
    found: &mut Found,
) {
    let covers = |allowed: &Domain, place: &crate::credential::Place| {
        allowed.https_port() == place.port
            && allowed.host.intersect(&place.host).as_ref() == Some(&place.host)
    };
    for credential in &policy.credentials {
        let name = credential.name.as_str();
        let at = place(&credential.origin);
        let ceiling = document
            .ceilings
            .credentials
            .as_ref()
            .and_then(|all| all.get(name));
        if let Some(hosts) = ceiling.and_then(|ceiling| ceiling.hosts.as_ref()) {
            for to in &credential.places {
                if !hosts.iter().any(|allowed| covers(allowed, to)) {
                    let words = few(hosts.iter().map(|host| host.value.to_string()));
                    let what = format!("credential {name} for {to}");
                    let key = format!("ceilings.credentials.{name}.hosts");
                    found.beyond(&at, &what, document, &key, hosts.at, &words);
                }
            }
        }
        let Some(grant) = host.credentials.get(name) else {
            continue;
        };
        let what = format!("credential {name}");
        let ours = origin(&grant.file, grant.at);
        source(
            document,
            &what,
            name,
            &grant.value.source,
            &ours,
            &at,
            found,
        );
    }
}

/// Where the values of secrets come from, as the host grants them; and none of a name whose hosts are limited, for nothing holds a file
/// to hosts.
pub fn secrets(
    policy: &EffectivePolicy,
    host: &HostConfig,
    document: &Organisation,
    found: &mut Found,
) {
    for secret in &policy.secrets.all {
        let (name, at) = (secret.name.as_str(), place(&secret.origin));
        let what = format!("secret {name}");
        let all = document.ceilings.credentials.as_ref();
        let hosts = all.and_then(|all| all.get(name)?.hosts.as_ref());
        if let Some(hosts) = hosts {
            let words = few(hosts.iter().map(|host| host.value.to_string()));
            let key = format!("ceilings.credentials.{name}.hosts");
            found.beyond(&at, &what, document, &key, hosts.at, &words);
        }
        if let Some(grant) = host.secrets.get(name) {
            let ours = origin(&grant.file, grant.at);
            source(
                document,
                &what,
                name,
                &grant.value.source,
                &ours,
                &at,
                found,
            );
        }
    }
}

/// Where one value comes from.
fn source(
    document: &Organisation,
    what: &str,
    name: &str,
    source: &Source,
    granted: &Origin,
    at: &Place,
    found: &mut Found,
) {
    // A source may hold an account's name: the kind says enough.
    let what = format!("{what} from {}, as {granted} grants it,", source.kind());
    let ceiling = document.ceilings.credentials.as_ref();
    let ceiling = ceiling.and_then(|all| all.get(name)?.sources.as_ref());
    let key = format!("ceilings.credentials.{name}.sources");
    let lists = [
        (ceiling, key.as_str()),
        (
            document.ceilings.secret_sources.as_ref(),
            "ceilings.secretSources",
        ),
    ];
    for (list, key) in lists {
        if let Some(list) = list
            && !list.iter().any(|pattern| pattern.matches(source))
        {
            let words = few(list.iter().map(|pattern| pattern.value.to_string()));
            found.beyond(at, &what, document, key, list.at, &words);
        }
    }
    let denied = document.denials.secret_sources.iter();
    if let Some(denial) = denied.clone().find(|pattern| pattern.matches(source)) {
        found.denied(at, &what, document, "denials.secretSources", denial.at);
    }
}

// === network ===

/// Entries of `egress`, and what a profile adds to them. Ceilings hold without this: here a person is told at the start.
pub fn network(config: &Config, ceilings: &[Ceiling], found: &mut Found) {
    let layer = merge::layer(config);
    for ceiling in ceilings {
        let index = ceiling.index();
        let check = Check {
            ceiling,
            index: &index,
        };
        layer
            .allowed
            .iter()
            .for_each(|rule| check.domain(rule, found));
        for rule in layer
            .rules
            .iter()
            .filter(|rule| rule.action != Action::Deny)
        {
            for &port in &rule.ports {
                let protocol = rule.protocol.unwrap_or(Protocol::default_for_port(port));
                if let Some(denial) = check.verdict(&rule.host, port, protocol) {
                    let what = format!("{}, at port {port}, {protocol},", text::rule(rule));
                    check.tell(&rule.origin, &what, Some(&rule.host), &denial, found);
                }
            }
        }
        for rule in &layer.networks {
            if let Some(denial) = index.network(rule.cidr, rule.port, rule.protocol) {
                check.tell(&rule.origin, &text::network(rule), None, &denial, found);
            }
        }
    }
}

struct Check<'a> {
    ceiling: &'a Ceiling,
    index: &'a Index,
}

// === impl Check ===

impl Check<'_> {
    fn verdict(&self, host: &HostPattern, port: u16, protocol: Protocol) -> Option<Denial<'_>> {
        self.index
            .place(host, port)
            .or_else(|| self.index.protocol(protocol))
    }

    /// A name without a port is short for two: what is left of it is enough, and said.
    fn domain(&self, rule: &DomainRule, found: &mut Found) {
        let ports = rule.port.map_or(vec![443, 80], |port| vec![port]);
        let verdict =
            |port: &u16| self.verdict(&rule.host, *port, Protocol::default_for_port(*port));
        let verdicts: Vec<_> = ports.iter().map(verdict).collect();
        let words = text::allowed_domain(rule);
        match verdicts.as_slice() {
            [Some(denial), Some(_)] | [Some(denial)] => {
                self.tell(&rule.origin, &words, Some(&rule.host), denial, found);
            }
            [None, Some(gone)] | [Some(gone), None] => {
                let kept = if verdicts[0].is_none() { 443 } else { 80 };
                let by = gone.rule.map_or_else(String::new, |rule| {
                    format!("{} at {}", rule.name, rule.origin)
                });
                found.remark(format!(
                    "of {words} at {} port {kept} alone is left: {by}",
                    rule.origin
                ));
            }
            _ => {}
        }
    }

    fn tell(
        &self,
        asked: &Origin,
        what: &str,
        host: Option<&HostPattern>,
        denial: &Denial<'_>,
        found: &mut Found,
    ) {
        let by = denial.rule.map_or_else(String::new, |rule| {
            format!("{} at {}", rule.name, rule.origin)
        });
        let diagnostic = match denial.reason {
            DenyReason::DeniedByRule => {
                Diagnostic::new("organisation-denies", format!("{what} is denied by {by}"))
            }
            _ => {
                let message = format!("{what} is beyond {by}");
                Diagnostic::new("beyond-ceiling", message).help(self.remedy(host))
            }
        };
        found.push(&place(asked), diagnostic);
    }

    /// What of a pattern is within the ceiling, so that a person can ask for that.
    fn remedy(&self, host: Option<&HostPattern>) -> String {
        let allowed = self.ceiling.allowed.iter().flat_map(|list| &list.entries);
        let within = host.map_or_else(Vec::new, |host| {
            let within = allowed.filter_map(|rule| {
                let both = rule.host.intersect(host)?;
                (both != *host).then(|| match rule.port {
                    Some(port) => format!("{both}:{port}"),
                    None => both.to_string(),
                })
            });
            within.collect()
        });
        match within.is_empty() {
            true => format!(
                "take it out, or ask whoever keeps the policy of {}",
                self.ceiling.organisation
            ),
            false => format!(
                "within it are {}: ask for what you need of these",
                few(within)
            ),
        }
    }
}
