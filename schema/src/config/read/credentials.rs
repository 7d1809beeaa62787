//! `agent.credentials`: what a workspace may say of one is its name, where it wants it, and the variable that stands for it.
//! Where a value comes from and which field it goes into is the host's word; asking for more here is an error in words that
//! never repeat what was written, because it may be the value itself.

use std::collections::{BTreeMap, HashMap};

use super::super::agent::{Credential, Domain, EntryError};
use super::super::units::VariableName;
use super::entry;
use crate::credential::{CredentialName, MAX_CREDENTIALS, MAX_HOSTS};
use crate::diag::{Diagnostic, Spanned};
use crate::node::{Member, Node, Value};
use crate::read::Reader;

const PATH: &str = "agent.credentials";
/// Keys of the host's grant.
const HOSTS_WORD: [&str; 3] = ["source", "header", "format"];

pub fn credentials(
    reader: &mut Reader<'_>,
    node: &Node,
) -> BTreeMap<CredentialName, Spanned<Credential>> {
    let mut out = BTreeMap::new();
    let mut variables: HashMap<VariableName, CredentialName> = HashMap::new();
    for member in reader.map(node, PATH, MAX_CREDENTIALS) {
        let Some(name) = name(reader, member, PATH) else {
            continue;
        };
        let Some(credential) = credential(reader, &member.node, &name) else {
            continue;
        };
        if let Some(env) = &credential.env
            && let Some(other) = variables.insert(env.value.clone(), name.clone())
        {
            let message = format!(
                "`{PATH}.{name}.env` is {}, which already holds the placeholder of {other}",
                env.value
            );
            reader.error(env.at, "conflicting-variables", message);
        }
        out.insert(name, Spanned::new(credential, member.key_at));
    }
    out
}

/// The name that a credential has in either file.
pub fn name(reader: &mut Reader<'_>, member: &Member, path: &str) -> Option<CredentialName> {
    match member.key.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            let message = format!("`{path}` has the name {:?}: {error}", member.key);
            reader.error(member.key_at, "invalid-value", message);
            None
        }
    }
}

/// Hosts of a credential in either file, each with an optional port; an empty list is an error.
pub fn hosts(reader: &mut Reader<'_>, node: &Node, path: &str) -> Vec<Spanned<Domain>> {
    let before = reader.count();
    let mut out: Vec<Spanned<Domain>> = Vec::new();
    for (i, node) in reader.array(node, path, MAX_HOSTS).iter().enumerate() {
        let host = entry(
            reader,
            node,
            &format!("{path}[{i}]"),
            |error: EntryError| error.code(),
        );
        out.extend(host);
    }
    if out.is_empty() && reader.count() == before {
        let message = format!("`{path}` is empty; a credential goes to at least one host");
        reader.error(node.at, "invalid-value", message);
    }
    out
}

fn credential(reader: &mut Reader<'_>, node: &Node, name: &CredentialName) -> Option<Credential> {
    let path = format!("{PATH}.{name}");
    if let Value::String(_) = node.value {
        refuse_source(reader, node, &path, name);
        return None;
    }
    let mut object = reader.object(node, &path)?;
    for key in HOSTS_WORD {
        if let Some(node) = object.take(key) {
            refuse_source(reader, node, &format!("{path}.{key}"), name);
        }
    }
    let hosts = object
        .take("hosts")
        .map(|node| hosts(reader, node, &format!("{path}.hosts")));
    let env = object
        .take("env")
        .and_then(|node| reader.parsed(node, &format!("{path}.env"), "invalid-value", str::parse));
    reader.close(object);
    Some(Credential {
        hosts: hosts.unwrap_or_default(),
        env,
    })
}

fn refuse_source(reader: &mut Reader<'_>, node: &Node, path: &str, name: &CredentialName) {
    let message = format!(
        "`{path}` is refused: where a value comes from and how it is sent is the host's word, never the workspace's"
    );
    let help = format!(
        "put it under [credentials.{name}] in the host's config.toml; here a credential has `hosts` and `env`"
    );
    reader.push(node.at, Diagnostic::new("host-only", message).help(help));
}
