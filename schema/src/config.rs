//! `agentcontainer.json` and `devcontainer.json`: the types, found by `discover` and read by [`parse`]. Every key of
//! devcontainer.json and of the `agent` object is honoured, or refused in words by the one closed table in [`keys`].
//! A [`Config`] exists only by parsing; policy, engine and CLI work from it, and approvals from its [`Config::meaning`].

pub mod agent;
mod canonical;
pub mod discover;
pub mod feature;
pub mod filesystem;
pub mod keys;
pub mod lifecycle;
pub mod mount;
pub mod programs;
pub(crate) mod read;
pub mod secret;
pub mod template;
pub mod tools;
pub mod units;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::diag::{Diagnostic, Position, Spanned};
use crate::image::ImageRef;
use crate::profile::Added;
use agent::Agent;
use feature::{FeatureId, MAX_FEATURES, Options};
use lifecycle::Lifecycle;
use mount::Mount;
use template::Template;
use units::{MemorySize, UserName, VariableName};

pub use discover::{DiscoverError, Flavour, Found, Wanted, discover};

/// Most environment variables in each of `containerEnv` and `remoteEnv`.
pub const MAX_VARIABLES: usize = 256;
/// Most entries in `mounts`.
pub const MAX_MOUNTS: usize = 64;

/// What a workspace asks for.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Config {
    /// The file as diagnostics and origins name it.
    #[serde(skip)]
    pub file: String,
    /// A name for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub name: Option<String>,
    /// The image that the container is made from.
    pub image: Spanned<ImageRef>,
    /// Environment of the container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub container_env: BTreeMap<VariableName, Spanned<Template>>,
    /// Environment of what is run in the container; null removes a variable.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default)]
    pub remote_env: BTreeMap<VariableName, Spanned<Option<Template>>>,
    /// The user that the container runs as; `root` has to be asked for here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_user: Option<Spanned<UserName>>,
    /// The same user: two different ones are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_user: Option<Spanned<UserName>>,
    /// Whether the workspace's files are that user's inside where they are another's on the host; true when absent.
    #[serde(
        rename = "updateRemoteUserUID",
        skip_serializing_if = "Option::is_none"
    )]
    pub update_remote_user_uid: Option<bool>,
    /// Where the workspace is inside the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_folder: Option<Spanned<Template>>,
    /// How the workspace is mounted: a bind of `${localWorkspaceFolder}`, nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "mount_text")]
    pub workspace_mount: Option<Spanned<Mount>>,
    /// Volumes, tmpfs, and read-only binds from below the workspace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_MOUNTS))]
    pub mounts: Vec<Spanned<Mount>>,
    /// Whether the image's own command is replaced; true when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub override_command: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_create_command: Option<Spanned<Lifecycle>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub update_content_command: Option<Spanned<Lifecycle>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_create_command: Option<Spanned<Lifecycle>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_start_command: Option<Spanned<Lifecycle>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub post_attach_command: Option<Spanned<Lifecycle>>,
    /// What has to be there before anything is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_requirements: Option<Spanned<HostRequirements>>,
    /// What is installed on top of the image, by registry or by path beside this file, with its options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, extend("maxProperties" = MAX_FEATURES))]
    pub features: BTreeMap<FeatureId, Spanned<Options>>,
    /// Features that are installed before others, as far as what they depend on allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_FEATURES))]
    pub override_feature_install_order: Vec<Spanned<FeatureId>>,
    /// What an agent may do.
    #[serde(skip_serializing_if = "Agent::is_empty")]
    #[schemars(default)]
    pub agent: Agent,
    /// What `run AGENT` adds; never read from a file.
    #[serde(skip)]
    #[schemars(skip)]
    pub profile: Option<Added>,
}

/// Checked before anything is created.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct HostRequirements {
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4096))]
    pub cpus: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemorySize>,
}

/// Reads a file's bytes; `file` is the name that diagnostics, origins and approvals use, and tells by its last part
/// whether this is a devcontainer.json.
///
/// # Errors
/// Everything that is wrong with it, at most [`crate::read::MAX_DIAGNOSTICS`] and a count of the rest.
pub fn parse(bytes: &[u8], file: &str) -> Result<Config, Vec<Diagnostic>> {
    let root = crate::jsonc::parse(bytes, file)?;
    read::config(&root, file, Flavour::of(file))
}

fn mount_text(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string" })
}

// === impl Config ===

impl Config {
    /// Who the container runs as: `containerUser`, else `remoteUser`, else the image's own.
    pub fn user(&self) -> Option<&Spanned<UserName>> {
        self.container_user.as_ref().or(self.remote_user.as_ref())
    }

    /// Whether the workspace's files are the container's user's inside, whoever has them on the host.
    pub fn maps_owner(&self) -> bool {
        self.update_remote_user_uid != Some(false)
    }

    /// Lifecycle commands in the order they run, by key.
    pub fn lifecycle(&self) -> impl Iterator<Item = (&'static str, &Spanned<Lifecycle>)> {
        [
            ("onCreateCommand", &self.on_create_command),
            ("updateContentCommand", &self.update_content_command),
            ("postCreateCommand", &self.post_create_command),
            ("postStartCommand", &self.post_start_command),
            ("postAttachCommand", &self.post_attach_command),
        ]
        .into_iter()
        .filter_map(|(key, command)| command.as_ref().map(|command| (key, command)))
    }

    /// A diagnostic about a value of this config.
    pub fn diagnostic(
        &self,
        at: Position,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::new(code, message).at(self.file.clone(), at)
    }
}

// === impl HostRequirements ===

impl HostRequirements {
    /// What is missing on a host of so many processors and so much memory.
    pub fn unmet(&self, cpus: u32, memory_bytes: u64) -> Option<String> {
        match (self.cpus, self.memory) {
            (Some(wanted), _) if wanted > cpus => Some(format!(
                "{wanted} processors are required, the engine has {cpus}"
            )),
            (_, Some(wanted)) if wanted.bytes() > memory_bytes => Some(format!(
                "{} bytes of memory are required, the engine has {memory_bytes}",
                wanted.bytes()
            )),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
