//! `devcontainer-feature.json`: what a feature says of itself (devcontainers specification, 'Features'): what it depends on, and
//! what it demands of the container. A stranger's file, read from a layer or beside the config; keys that say nothing of either
//! are left aside.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::feature::{FeatureId, MAX_FEATURES, Options};
use crate::config::lifecycle::Lifecycle;
use crate::config::mount::{Fields, Mount};
use crate::config::read::{self, features};
use crate::config::template::{Scope, Template};
use crate::config::{MAX_MOUNTS, MAX_VARIABLES};
use crate::diag::Diagnostic;
use crate::node::{Node, Value};
use crate::read::{Object, Reader};

/// The file's name in a feature.
pub const FILE: &str = "devcontainer-feature.json";
/// The largest file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Longest id or version, in bytes.
pub const MAX_ID_BYTES: usize = 128;
/// Most entries in each of `capAdd` and `securityOpt`.
pub const MAX_LIST: usize = 64;

#[derive(Clone, Debug, PartialEq)]
pub struct Metadata {
    pub id: String,
    pub version: Option<String>,
    /// In the order of the file.
    pub depends_on: Vec<(FeatureId, Options)>,
    pub installs_after: Vec<FeatureId>,
    /// Other names that it had, or has now: ids within its namespace.
    pub aliases: BTreeSet<String>,
    pub demands: Demands,
}

/// What a feature wants the container to be made with.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demands {
    pub privileged: bool,
    pub init: bool,
    pub cap_add: Vec<String>,
    pub security_opt: Vec<String>,
    pub mounts: Vec<Mount>,
    pub entrypoint: Option<String>,
    pub container_env: BTreeMap<String, Template>,
    pub lifecycle: Vec<(&'static str, Lifecycle)>,
}

/// Reads one; `file` is what diagnostics call it.
///
/// # Errors
/// What is wrong with it, with its places.
pub fn parse(bytes: &[u8], file: &str) -> Result<Metadata, Vec<Diagnostic>> {
    if bytes.len() > MAX_BYTES {
        let message = format!("it is larger than {MAX_BYTES} bytes");
        return Err(vec![Diagnostic::new("too-large", message).in_file(file)]);
    }
    let root = crate::jsonc::parse(bytes, file)?;
    let mut reader = Reader::new(file);
    let metadata = metadata(&mut reader, &root);
    reader.finish(metadata)
}

fn metadata(reader: &mut Reader<'_>, root: &Node) -> Option<Metadata> {
    let mut object = reader.object(root, "")?;
    let id = reader
        .required(&mut object, "id")
        .and_then(|node| word(reader, node, "id"));
    let version = object
        .take("version")
        .and_then(|node| word(reader, node, "version"));
    let depends_on = object
        .take("dependsOn")
        .map(|node| features::features(reader, node, "dependsOn"))
        .unwrap_or_default();
    let installs_after = object
        .take("installsAfter")
        .map(|node| features::ids(reader, node, "installsAfter"))
        .unwrap_or_default();
    let mut aliases: BTreeSet<String> = object
        .take("legacyIds")
        .map(|node| words(reader, node, "legacyIds", MAX_FEATURES))
        .unwrap_or_default()
        .into_iter()
        .collect();
    aliases.extend(
        object
            .take("currentId")
            .and_then(|node| word(reader, node, "currentId")),
    );
    let demands = demands(reader, &mut object);
    let id = id?;
    aliases.insert(id.clone());
    Some(Metadata {
        id,
        version,
        depends_on: depends_on
            .into_iter()
            .map(|(id, options)| (id, options.value))
            .collect(),
        installs_after: installs_after.into_iter().map(|id| id.value).collect(),
        aliases,
        demands,
    })
}

fn demands(reader: &mut Reader<'_>, object: &mut Object<'_>) -> Demands {
    let mut flag = |key: &'static str| {
        object
            .take(key)
            .and_then(|node| reader.bool(node, key))
            .unwrap_or_default()
    };
    let (privileged, init) = (flag("privileged"), flag("init"));
    let mut list = |key: &'static str| {
        object
            .take(key)
            .map(|node| words(reader, node, key, MAX_LIST))
            .unwrap_or_default()
    };
    let (cap_add, security_opt) = (list("capAdd"), list("securityOpt"));
    let mounts = object
        .take("mounts")
        .map(|node| mounts(reader, node))
        .unwrap_or_default();
    let entrypoint = object
        .take("entrypoint")
        .and_then(|node| reader.string(node, "entrypoint"))
        .filter(|text| !text.is_empty())
        .map(str::to_owned);
    let container_env = object
        .take("containerEnv")
        .map(|node| container_env(reader, node))
        .unwrap_or_default();
    let lifecycle = [
        "onCreateCommand",
        "updateContentCommand",
        "postCreateCommand",
        "postStartCommand",
        "postAttachCommand",
    ]
    .into_iter()
    .filter_map(|key| {
        let node = object.take(key)?;
        Some((key, read::lifecycle(reader, node, key)?.value))
    })
    .collect();
    Demands {
        privileged,
        init,
        cap_add,
        security_opt,
        mounts,
        entrypoint,
        container_env,
        lifecycle,
    }
}

fn word(reader: &mut Reader<'_>, node: &Node, path: &str) -> Option<String> {
    let text = reader.string(node, path)?;
    if text.is_empty() || text.len() > MAX_ID_BYTES || text.chars().any(char::is_control) {
        let message = format!(
            "`{path}` is empty, longer than {MAX_ID_BYTES} bytes or has control characters"
        );
        reader.error(node.at, "invalid-value", message);
        return None;
    }
    Some(text.to_owned())
}

fn words(reader: &mut Reader<'_>, node: &Node, path: &str, limit: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (i, node) in reader.array(node, path, limit).iter().enumerate() {
        out.extend(word(reader, node, &format!("{path}[{i}]")));
    }
    out
}

fn mounts(reader: &mut Reader<'_>, node: &Node) -> Vec<Mount> {
    let mut out = Vec::new();
    for (i, node) in reader.array(node, "mounts", MAX_MOUNTS).iter().enumerate() {
        let path = format!("mounts[{i}]");
        let fields = match &node.value {
            Value::Object(_) => read::mount_object(reader, node, &path),
            _ => reader.string(node, &path).map(Fields::parse),
        };
        match fields.map(|fields| fields.and_then(Mount::from_fields)) {
            Some(Ok(mount)) => out.push(mount),
            Some(Err(error)) => {
                reader.error(node.at, "invalid-mount", format!("`{path}`: {error}"));
            }
            None => {}
        }
    }
    out
}

/// What is no variable of ours is left as it stands: it becomes an instruction of a build.
fn container_env(reader: &mut Reader<'_>, node: &Node) -> BTreeMap<String, Template> {
    let mut out = BTreeMap::new();
    for member in reader.map(node, "containerEnv", MAX_VARIABLES) {
        let path = format!("containerEnv.{}", member.key);
        let value = reader.parsed(&member.node, &path, "invalid-variable", |text| {
            Template::parse(text, Scope::Command)
        });
        out.extend(value.map(|value| (member.key.clone(), value.value)));
    }
    out
}

// === impl Demands ===

impl Demands {
    /// What can never be had, in words: the container is confined whatever a feature wants.
    pub fn refused(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.privileged {
            out.push("`privileged`: a privileged container is not confined".to_owned());
        }
        if !self.cap_add.is_empty() {
            out.push(format!(
                "`capAdd` {}: the container has no capabilities, and none can be added",
                self.cap_add.join(", ")
            ));
        }
        if !self.security_opt.is_empty() {
            out.push(format!(
                "`securityOpt` {}: seccomp, AppArmor and no-new-privileges are set by agentcontainer",
                self.security_opt.join(", ")
            ));
        }
        out
    }

    /// Variables of the host that it reads.
    pub fn local_env(&self) -> BTreeSet<&str> {
        let env = self.container_env.values().flat_map(Template::local_env);
        let commands = self
            .lifecycle
            .iter()
            .flat_map(|(_, stage)| stage.local_env());
        env.chain(commands).collect()
    }

    /// For people: what the container would be made with, one line each.
    pub fn shown(&self) -> Vec<String> {
        let mounts = self.mounts.iter().map(|mount| format!("mount {mount}"));
        let entrypoint = self.entrypoint.iter().map(|e| format!("entrypoint {e}"));
        let env = self
            .container_env
            .iter()
            .map(|(name, value)| format!("containerEnv {name}={}", value.as_str()));
        let lifecycle = self
            .lifecycle
            .iter()
            .map(|(key, stage)| format!("{key} {}", stage_words(stage)));
        mounts
            .chain(entrypoint)
            .chain(env)
            .chain(lifecycle)
            .collect()
    }
}

fn stage_words(stage: &Lifecycle) -> String {
    let all: Vec<String> = stage
        .commands()
        .iter()
        .map(|(_, command)| command.shown())
        .collect();
    all.join("; ")
}

#[cfg(test)]
mod tests;
