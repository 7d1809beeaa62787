//! Values of the session's credentials and secrets, from the host's sources to the control channel: fetched after review and before
//! anything is created, kept out of the create request, the records and every line that is printed. Inside there are placeholders of
//! credentials, and files that are the enforcer's to make of secrets.

#[cfg(test)]
pub mod fake;
pub mod hand;
pub mod keep;
mod seed;
pub mod supply;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use api::v1;
use engine::request::CreateRequest;
use policy::{Credential, EffectivePolicy, Granted, Secret};
use schema::config::agent::Domain;
use schema::config::secret::DIRECTORY;
use schema::credential::Source;
use schema::diag::Diagnostic;
use schema::hostconfig::{Grant, HostConfig};
use schema::remote::Remote;
use secrets::{EXEC_DEADLINE, Fetched, Input, PlaceholderError, Seed};
use serde_json::Value;

use crate::loaded::Loaded;
use crate::record::now;
use crate::report::{self, Failure};
use crate::roots;
use supply::{Kind, Supply};

/// One credential or secret with its value, which is wiped when this goes.
#[derive(Clone, Debug)]
pub struct Resolved {
    name: String,
    kind: Kind,
    env: Option<String>,
    fetched: Fetched,
    /// Empty where nothing stands for it inside.
    placeholder: String,
    /// Seconds since 1970, when a secret's file goes whatever its source says.
    until: Option<u64>,
}

/// What stands for a value inside, or why nothing can.
type Stands = Result<String, PlaceholderError>;

/// Fetches every credential and secret of the effective policy.
///
/// # Errors
/// Whatever keeps one of them from being fetched, at its grant's place in config.toml.
pub async fn resolve(loaded: &Loaded, detached: bool) -> Result<Vec<Resolved>, Failure> {
    let asker = if detached { Asker::Command } else { Asker::Run };
    let stands = |credential: &str, value: &secrets::Secret| {
        let seed = Seed {
            key: &seed::key(&loaded.places)?,
            workspace: loaded.workspace.as_os_str().as_bytes(),
            credential,
        };
        Ok(secrets::placeholder(value, seed))
    };
    let mut out = Vec::new();
    for credential in &loaded.policy.credentials {
        out.push(resolve_one(&loaded.host, credential, asker, &stands).await?);
    }
    for secret in &loaded.policy.secrets.all {
        out.push(resolve_file(&loaded.host, secret, asker).await?);
    }
    Ok(out)
}

async fn resolve_one(
    host: &HostConfig,
    credential: &Credential,
    asker: Asker<'_>,
    stands: &dyn Fn(&str, &secrets::Secret) -> Result<Stands, Failure>,
) -> Result<Resolved, Failure> {
    let name = &credential.name;
    let grant = granted(host, Kind::Credential, name)?;
    let fetched = fetch(host, name, &grant, asker).await?;
    let placeholder = match &credential.env {
        Some(_) => {
            stands(name, &fetched.value)?.map_err(|e| unfit(name, &grant, &e.to_string()))?
        }
        None => String::new(),
    };
    Ok(Resolved {
        name: name.clone(),
        kind: Kind::Credential,
        env: credential.env.clone(),
        fetched,
        placeholder,
        until: None,
    })
}

async fn resolve_file(
    host: &HostConfig,
    secret: &Secret,
    asker: Asker<'_>,
) -> Result<Resolved, Failure> {
    let name = &secret.name;
    let grant = granted(host, Kind::Secret, name)?;
    let fetched = fetch(host, name, &grant, asker).await?;
    Ok(Resolved {
        name: name.clone(),
        kind: Kind::Secret,
        env: None,
        fetched,
        placeholder: String::new(),
        until: secret.ttl.map(|ttl| now() + ttl),
    })
}

fn granted(host: &HostConfig, kind: Kind, name: &str) -> Result<Supply, Failure> {
    Supply::of(host, kind, name).ok_or_else(|| {
        Failure::new(
            kind.code("credential-not-granted"),
            format!("this host grants no {} {name}", kind.word()),
        )
    })
}

/// When a file goes: as its source says, or as the workspace does; 0: with the session.
fn expires(fetched: &Fetched, until: Option<u64>) -> u64 {
    let both = fetched.expires.into_iter().chain(until);
    both.min().unwrap_or_default()
}

/// Who asks for a value, and what they can do for a source that needs something.
#[derive(Clone, Copy, Debug)]
pub enum Asker<'a> {
    /// A command of a person's, before anything else runs.
    Command,
    /// A command of a person's whose standard input is a program's.
    Run,
    /// One about every credential: it reads nothing that is there once, and asks nobody.
    List,
    /// A session that runs, with what it had: nobody is to be asked.
    Session(&'a Fetched),
}

/// A grant's value; from here on this process is neither traced nor dumped.
pub async fn fetch(
    host: &HostConfig,
    name: &str,
    grant: &Supply,
    asker: Asker<'_>,
) -> Result<Fetched, Failure> {
    nix::sys::prctl::set_dumpable(false).map_err(|e| {
        Failure::new(
            "core-dumps",
            format!("cannot keep values out of core dumps: {e}"),
        )
    })?;
    let source = &grant.source;
    let roots = match source {
        Source::Vault { .. } | Source::Device { .. } => roots::of_host(host)?,
        _ => Vec::new(),
    };
    let person = |line: &str| report::note(format!("{} {name}: {line}", grant.kind.word()));
    let (before, input, asked) = match asker {
        Asker::Command => (None, Input::Free, true),
        Asker::Run => {
            let why = "it is the program's; with --detach it is free";
            (None, Input::Taken(why), true)
        }
        Asker::List => (None, Input::Taken("a list leaves it alone"), false),
        Asker::Session(before) => (Some(before), Input::Taken("the session runs"), false),
    };
    let host = secrets::Host {
        env: &|name| std::env::var_os(name),
        roots: &roots,
        person: (asked && report::stderr_is_terminal()).then_some(&person),
        input,
        deadline: EXEC_DEADLINE,
        second: Duration::from_secs(1),
    };
    secrets::fetch(source, before, &host)
        .await
        .map_err(|e| unfit(name, grant, &e.to_string()))
}

fn unfit(name: &str, grant: &Supply, why: &str) -> Failure {
    Diagnostic::new(
        grant.kind.code("credential-source"),
        format!("{} {name} cannot be had: {why}", grant.kind.word()),
    )
    .at(grant.file.clone(), grant.at)
    .help(format!(
        "`agentcontainer credential test {name}` tries it again"
    ))
    .into()
}

/// Credentials, for the control channel.
pub fn for_gateway(resolved: &[Resolved]) -> Vec<v1::Secret> {
    let secret = |resolved: &Resolved| v1::Secret {
        credential: resolved.name.clone(),
        value: resolved.fetched.value.expose().to_vec(),
        placeholder: resolved.placeholder.clone(),
        expires: resolved.fetched.expires.unwrap_or_default(),
        ..Default::default()
    };
    of(resolved, Kind::Credential).map(secret).collect()
}

/// Secrets, for the control channel.
pub fn for_files(resolved: &[Resolved]) -> Vec<v1::SecretFile> {
    let file = |resolved: &Resolved| v1::SecretFile {
        name: resolved.name.clone(),
        value: resolved.fetched.value.expose().to_vec(),
        expires: expires(&resolved.fetched, resolved.until),
        revoked: false,
    };
    of(resolved, Kind::Secret).map(file).collect()
}

fn of(resolved: &[Resolved], kind: Kind) -> impl Iterator<Item = &Resolved> {
    resolved
        .iter()
        .filter(move |resolved| resolved.kind == kind)
}

/// The variables inside, and what they are set to.
pub fn placeholders(resolved: &[Resolved]) -> BTreeMap<String, String> {
    let variable =
        |resolved: &Resolved| Some((resolved.env.clone()?, resolved.placeholder.clone()));
    resolved.iter().filter_map(variable).collect()
}

/// The same before there is a placeholder.
pub fn unresolved(policy: &EffectivePolicy) -> BTreeMap<String, String> {
    let variable = |credential: &Credential| {
        let words = format!("(a placeholder of {}, made at the start)", credential.name);
        Some((credential.env.clone()?, words))
    };
    policy.credentials.iter().filter_map(variable).collect()
}

/// Refuses variables of the command line that hold placeholders.
pub fn check_variables(
    policy: &EffectivePolicy,
    env: &BTreeMap<String, String>,
) -> Result<(), Failure> {
    for credential in &policy.credentials {
        if let Some(name) = credential
            .env
            .as_ref()
            .filter(|name| env.contains_key(*name))
        {
            return Err(Failure::new(
                "conflicting-variables",
                format!(
                    "{name} holds the placeholder of credential {} inside, and cannot be set to anything else",
                    credential.name
                ),
            )
            .help("leave out `-e`; the gateway puts the value on the wire"));
        }
    }
    Ok(())
}

/// Refuses a request that would carry a value into the container, whichever way it came in.
pub fn check_request(resolved: &[Resolved], request: &CreateRequest) -> Result<(), Failure> {
    let request = serde_json::to_value(request).unwrap_or_default();
    for resolved in resolved {
        if let Some(place) = find(&request, resolved.fetched.value.expose(), "") {
            return Err(Failure::new(
                resolved.kind.code("credential-exposed"),
                format!(
                    "the value of {} {} would be inside the container, in `{place}` of what would be created",
                    resolved.kind.word(),
                    resolved.name
                ),
            )
            .help(match resolved.kind {
                Kind::Credential => "nothing inside needs it: take out what puts it there, such as `${localEnv:…}`",
                Kind::Secret => "inside it is a file and nothing else: take out what puts it there, such as `${localEnv:…}`",
            }));
        }
    }
    Ok(())
}

/// Where in the request the value is. Keys that hold it are not repeated.
fn find(request: &Value, value: &[u8], path: &str) -> Option<String> {
    let holds = |text: &str| {
        text.as_bytes()
            .windows(value.len())
            .any(|part| part == value)
    };
    match request {
        Value::String(text) if holds(text) => Some(path.to_owned()),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .find_map(|(i, element)| find(element, value, &format!("{path}[{i}]"))),
        Value::Object(members) => members.iter().find_map(|(key, member)| {
            if holds(key) {
                return Some(format!("{path}, a key of it"));
            }
            let path = match path {
                "" => key.clone(),
                path => format!("{path}.{key}"),
            };
            find(member, value, &path)
        }),
        _ => None,
    }
}

/// What the banner says of one credential.
pub fn shown(credential: &Credential) -> String {
    let places: Vec<String> = credential
        .places
        .iter()
        .map(|place| match place.port {
            443 => place.host.to_string(),
            _ => place.to_string(),
        })
        .collect();
    let how = match &credential.env {
        Some(env) => format!("{env} holds a placeholder"),
        None => format!("written into {} of every request", credential.header),
    };
    format!("{} for {} ({how})", credential.name, places.join(" "))
}

/// The same of one secret.
pub fn shown_file(secret: &Secret) -> String {
    let limits = policy::text::secret_limits(&secret.programs, secret.ttl);
    let anybody = match secret.programs.is_empty() {
        true => "",
        false => {
            "; nothing here holds it to those programs, and the host's files = \"mounts\" lets that be"
        }
    };
    format!(
        "{DIRECTORY}/{}, which the agent can read{limits}{anybody}",
        secret.name
    )
}

/// A source as it is shown: a program without its arguments.
pub fn source(source: &Source) -> String {
    match source {
        Source::Exec { program, .. } => format!("exec://{}", program.display()),
        other => other.to_string(),
    }
}

/// Where a grant lets its credential go, host by host, each with its methods and paths where they are not all.
pub fn places(name: &str, grant: &Grant, remote: Option<&Remote>) -> Vec<String> {
    let one = |host: &Domain| {
        let alone = Grant {
            hosts: vec![host.clone()],
            ..grant.clone()
        };
        let granted = Granted::of(name, &alone, remote);
        match granted.places.first() {
            None => format!(
                "{host} (nowhere: no remote origin of the workspace names a repository there)"
            ),
            Some(place) if place.limits().is_empty() => host.to_string(),
            Some(place) => format!("{host} ({})", place.limits()),
        }
    };
    grant.hosts.iter().map(one).collect()
}

/// What of the policy's credentials is for the workspace's own repository, in the lines of a review: another remote is another question.
pub fn scoped(host: &HostConfig, policy: &EffectivePolicy) -> Vec<String> {
    let mut lines = Vec::new();
    for credential in &policy.credentials {
        let said = host.credentials.get(credential.name.as_str());
        if said.is_none_or(|grant| !grant.value.paths.is_empty()) {
            continue;
        }
        for place in credential
            .places
            .iter()
            .filter(|place| !place.paths.is_empty())
        {
            lines.push(format!(
                "credential {} for the repository that the remote origin names: {}",
                credential.name,
                place.shown()
            ));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy() -> EffectivePolicy {
        let config = schema::config::parse(
            br#"{ "image": "x", "agent": {
                "capabilities": { "network": { "egress": { "allowedDomains": ["a.test", "b.test"] } } },
                "credentials": { "one": { "hosts": ["a.test"], "env": "ONE" }, "two": {} } } }"#,
            "agentcontainer.json",
        );
        policy::effective(&config.unwrap(), &host()).unwrap()
    }

    fn host() -> HostConfig {
        let text = "[credentials.one]\nsource = \"exec:///bin/echo sesame-0123456789-abcdef\"\nhosts = [\"a.test\"]\n\
                    [credentials.two]\nsource = \"exec:///bin/echo short-one\"\nhosts = [\"b.test\"]\n";
        schema::hostconfig::parse(text.as_bytes(), "config.toml").unwrap()
    }

    async fn resolved() -> Vec<Resolved> {
        let mut out = Vec::new();
        for credential in &policy().credentials {
            out.push(
                resolve_one(&host(), credential, Asker::Command, &|credential, value| {
                    let seed = Seed {
                        key: &[0; secrets::KEY_BYTES],
                        workspace: b"/work",
                        credential,
                    };
                    Ok(secrets::placeholder(value, seed))
                })
                .await
                .unwrap(),
            );
        }
        out
    }

    #[tokio::test]
    async fn a_value_goes_to_the_channel_and_a_placeholder_inside() {
        let resolved = resolved().await;
        let sent = for_gateway(&resolved);
        assert_eq!(sent[0].credential, "one");
        assert_eq!(sent[0].value, b"sesame-0123456789-abcdef");
        assert_eq!(sent[0].placeholder.len(), sent[0].value.len());
        assert_eq!(
            (sent[1].value.as_slice(), sent[1].placeholder.as_str()),
            (b"short-one".as_slice(), "")
        );
        let inside = placeholders(&resolved);
        assert_eq!(
            inside,
            BTreeMap::from([("ONE".to_owned(), sent[0].placeholder.clone())])
        );
        assert!(!format!("{resolved:?}").contains("sesame"));
        let planned = unresolved(&policy());
        assert_eq!(planned.keys().collect::<Vec<_>>(), ["ONE"]);
    }

    #[tokio::test]
    async fn a_value_anywhere_in_the_request_stops_the_start_and_is_not_repeated() {
        let value = b"sesame-0123456789-abcdef";
        for (request, place) in [
            (
                serde_json::json!({ "env": { "A": "x sesame-0123456789-abcdef" } }),
                "env.A",
            ),
            (
                serde_json::json!({ "init": { "program": ["a", "sesame-0123456789-abcdef"] } }),
                "init.program[1]",
            ),
            (
                serde_json::json!({ "env": { "sesame-0123456789-abcdef": null } }),
                "env, a key of it",
            ),
        ] {
            assert_eq!(find(&request, value, "").as_deref(), Some(place));
        }
        assert_eq!(
            find(&serde_json::json!({ "a": ["sesame", 1, null] }), value, ""),
            None
        );
    }

    #[test]
    fn what_is_shown_names_places_and_variables() {
        let policy = policy();
        let lines: Vec<String> = policy.credentials.iter().map(shown).collect();
        assert_eq!(
            lines,
            [
                "one for a.test (ONE holds a placeholder)",
                "two for b.test (written into authorization of every request)"
            ]
        );
        let env = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert!(check_variables(&policy, &env("TWO")).is_ok());
        assert!(check_variables(&policy, &env("ONE")).is_err());
        let exec = "exec:///bin/echo sesame".parse().unwrap();
        assert_eq!(source(&exec), "exec:///bin/echo");
    }
}
