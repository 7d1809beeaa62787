//! `agent.secrets`: a source alone, or an object. A source of this host is refused in words that never repeat it.

use std::collections::BTreeMap;

use super::super::agent::Credential;
use super::super::secret::{MAX_SECRETS, Secret, ServiceSource, ServiceSourceError};
use super::credentials::name;
use super::texts;
use crate::credential::CredentialName;
use crate::diag::{Diagnostic, Spanned};
use crate::node::{Node, Value};
use crate::read::Reader;

const PATH: &str = "agent.secrets";

pub fn secrets(
    reader: &mut Reader<'_>,
    node: &Node,
    credentials: Option<&BTreeMap<CredentialName, Spanned<Credential>>>,
) -> BTreeMap<CredentialName, Spanned<Secret>> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, PATH, MAX_SECRETS) {
        let Some(name) = name(reader, member, PATH) else {
            continue;
        };
        if credentials.is_some_and(|all| all.contains_key(&name)) {
            let message = format!(
                "`{PATH}.{name}` is also a credential: one never enters the container, and the other is a file in it"
            );
            reader.error(member.key_at, "conflicting-names", message);
        }
        if let Some(secret) = secret(reader, &member.node, &name) {
            out.insert(name, Spanned::new(secret, member.key_at));
        }
    }
    out
}

fn secret(reader: &mut Reader<'_>, node: &Node, name: &CredentialName) -> Option<Secret> {
    let path = format!("{PATH}.{name}");
    if let Value::String(_) = node.value {
        let source = source(reader, node, &path, name)?;
        return Some(Secret {
            source: Some(source),
            ..Secret::default()
        });
    }
    let mut object = reader.object(node, &path)?;
    let source = object
        .take("source")
        .map(|node| source(reader, node, &format!("{path}.source"), name));
    let programs = object.take("programs").map_or_else(Vec::new, |node| {
        texts(reader, node, &format!("{path}.programs"))
    });
    let ttl = object
        .take("ttl")
        .and_then(|node| reader.parsed(node, &format!("{path}.ttl"), "invalid-value", str::parse));
    reader.close(object);
    Some(Secret {
        source: match source {
            Some(source) => Some(source?),
            None => None,
        },
        programs,
        ttl,
    })
}

fn source(
    reader: &mut Reader<'_>,
    node: &Node,
    path: &str,
    name: &CredentialName,
) -> Option<Spanned<ServiceSource>> {
    match reader.string(node, path)?.parse::<ServiceSource>() {
        Ok(source) => Some(Spanned::new(source, node.at)),
        Err(error) => {
            let mut diagnostic = Diagnostic::new(error.code(), format!("`{path}`: {error}"));
            if error == ServiceSourceError::HostOnly {
                diagnostic = diagnostic.help(format!(
                    "leave it out here, and `agentcontainer grant {name} --secret --source URI` on the host; op:// and vault:// may be asked for"
                ));
            }
            reader.push(node.at, diagnostic);
            None
        }
    }
}
