//! What an image's configuration says (OCI image specification, config.md; Docker's additions): what runs, as whom, with which
//! variables, and what a devcontainer's metadata label asks for.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Aspect, Facts, TooMany};
use crate::strict;

/// The label in which devcontainer images carry what they ask for (devcontainer specification, 'Image metadata').
const METADATA: &str = "devcontainer.metadata";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Image {
    config: Option<Config>,
    rootfs: Option<RootFs>,
    history: Option<Vec<Step>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Config {
    user: Option<String>,
    env: Option<Vec<String>>,
    entrypoint: Option<Words>,
    cmd: Option<Words>,
    shell: Option<Words>,
    on_build: Option<Vec<String>>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    volumes: Option<BTreeMap<String, Value>>,
    labels: Option<BTreeMap<String, String>>,
    healthcheck: Option<Healthcheck>,
}

/// A list, as the specification says, or one text, as some builders wrote it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    Many(Vec<String>),
    One(String),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Healthcheck {
    test: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Step {
    created_by: Option<String>,
}

/// Adds what a configuration says.
///
/// # Errors
/// In words: it is no image's configuration, or says more than is kept.
pub fn facts(bytes: &[u8], facts: &mut Facts) -> Result<(), String> {
    strict::check(bytes, strict::CONFIGURATION)?;
    let image: Image = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    add(image, facts).map_err(|e| e.to_string())
}

fn add(image: Image, facts: &mut Facts) -> Result<(), TooMany> {
    let config = image.config.unwrap_or_default();
    let scripts = [
        ("entrypoint", config.entrypoint),
        ("command", config.cmd),
        ("shell", config.shell),
    ];
    for (name, words) in scripts {
        if let Some(words) = words.map(Words::shown).filter(|words| !words.is_empty()) {
            facts.add(Aspect::Script, name, words)?;
        }
    }
    if let Some(test) = config.healthcheck.and_then(|check| check.test) {
        facts.add(Aspect::Script, "health check", Words::Many(test).shown())?;
    }
    for line in config.on_build.unwrap_or_default() {
        facts.add(Aspect::Script, "on build", line)?;
    }
    // No user at all is root.
    let user = config.user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| "root".to_owned());
    facts.add(Aspect::Capability, "user", user)?;
    for port in config.exposed_ports.unwrap_or_default().into_keys() {
        facts.add(Aspect::Capability, format!("port {port}"), "")?;
    }
    for volume in config.volumes.unwrap_or_default().into_keys() {
        facts.add(Aspect::Capability, format!("volume {volume}"), "")?;
    }
    for variable in config.env.unwrap_or_default() {
        let (name, value) = variable.split_once('=').unwrap_or((&variable, ""));
        facts.add(Aspect::Environment, name, value)?;
    }
    if let Some(dir) = config.working_dir.filter(|dir| !dir.is_empty()) {
        facts.add(Aspect::Content, "working directory", dir)?;
    }
    for (label, value) in config.labels.unwrap_or_default() {
        if label == METADATA {
            metadata(&value, facts)?;
        } else {
            facts.add(Aspect::Content, format!("label {label}"), value)?;
        }
    }
    let layers = image.rootfs.and_then(|fs| fs.diff_ids).unwrap_or_default();
    if !layers.is_empty() {
        facts.add(Aspect::Content, super::LAYERS, layers.join("\n"))?;
    }
    for step in image.history.unwrap_or_default() {
        facts.add(
            Aspect::Content,
            "build steps",
            step.created_by.unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// The label's entries, one object or a list of them; what is no JSON is kept as it is.
fn metadata(label: &str, facts: &mut Facts) -> Result<(), TooMany> {
    let entries = match serde_json::from_str(label) {
        Ok(Value::Array(entries)) => entries,
        Ok(entry @ Value::Object(_)) => vec![entry],
        _ => return facts.add(Aspect::Capability, METADATA, label),
    };
    for entry in entries {
        let Value::Object(entry) = entry else {
            continue;
        };
        asked(entry.into_iter(), facts)?;
    }
    Ok(())
}

/// What the keys of a devcontainer.json, of an image's metadata or of a feature ask for.
pub fn asked(
    entries: impl Iterator<Item = (String, Value)>,
    facts: &mut Facts,
) -> Result<(), TooMany> {
    for (key, value) in entries {
        match key.as_str() {
            "entrypoint"
            | "onCreateCommand"
            | "updateContentCommand"
            | "postCreateCommand"
            | "postStartCommand"
            | "postAttachCommand"
            | "initializeCommand" => {
                facts.add(Aspect::Script, key, plain(&value))?;
            }
            "containerEnv" | "remoteEnv" => {
                let Value::Object(variables) = value else {
                    continue;
                };
                for (name, value) in variables {
                    facts.add(Aspect::Environment, name, plain(&value))?;
                }
            }
            "capAdd" | "securityOpt" | "mounts" | "forwardPorts" | "runArgs" => {
                let Value::Array(entries) = value else {
                    continue;
                };
                for one in entries {
                    facts.add(Aspect::Capability, format!("{key} {}", plain(&one)), "")?;
                }
            }
            "privileged" | "init" | "remoteUser" | "containerUser" | "customizations"
            | "dependsOn" | "hostRequirements" | "portsAttributes" => {
                facts.add(Aspect::Capability, key, plain(&value))?;
            }
            _ => facts.add(Aspect::Content, key, plain(&value))?,
        }
    }
    Ok(())
}

/// A text as it is, anything else as JSON.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Words {
    /// Words of a list apart, whatever is in them.
    fn shown(self) -> String {
        match self {
            Self::One(text) => text,
            Self::Many(words) if words.is_empty() => String::new(),
            Self::Many(words) => serde_json::to_string(&words).unwrap_or_default(),
        }
    }
}
