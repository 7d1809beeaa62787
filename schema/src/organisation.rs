//! An organisation's policy: the ceiling that its hosts put over every workspace, as a document that is signed and travels as an
//! OCI artifact. A ceiling that is absent does not restrict, an empty list allows nothing. Policy merges documents and holds
//! workspaces to them; the registry room fetches and verifies them before they are read here.

mod read;
pub mod values;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Serialize;
use thiserror::Error;

use crate::config::agent::{Domain, Escalation, Inspection, MAX_DOMAINS, Resources, Unlisted};
use crate::config::units::VariableName;
use crate::credential::CredentialName;
use crate::diag::{Diagnostic, Spanned};
use crate::digest::Digest;
use crate::net::Protocol;
use crate::program::ProgramName;
use crate::signer::{Identity, PublicKey};
use values::{
    Age, ImagePattern, LinuxCapability, NetworkBound, OrganisationName, PackageName, PackageType,
    PathPattern, RegistryName, SourcePattern, Time, VersionRange,
};

pub(crate) use read::identity;
pub use values::ValueError;

/// Version of the document; another one is refused.
pub const VERSION: u64 = 1;
/// `artifactType` of the manifest, and media type of its one layer, which is the document.
pub const ARTIFACT_TYPE: &str = "application/vnd.agentcontainer.policy.v1+json";
/// Media type of the manifest's config: OCI's empty descriptor (image-spec 1.1, manifest.md).
pub const CONFIG_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// What the empty descriptor describes.
pub const CONFIG_BYTES: &[u8] = b"{}";
/// Largest document in bytes.
pub const MAX_FILE_BYTES: usize = crate::jsonc::MAX_FILE_BYTES;
/// Largest serial: what every reader of JSON keeps exactly.
pub const MAX_SERIAL: u64 = (1 << 53) - 1;
/// Most entries in each list that has no other limit.
pub const MAX_ENTRIES: usize = 1024;
/// Most rules about signatures; identities or keys in one.
pub const MAX_SIGNERS: usize = 64;
/// Most banned packages.
pub const MAX_BANNED: usize = 10_000;
/// Longest reason of a ban in bytes.
pub const MAX_REASON_BYTES: usize = 512;

/// A list and where it stands.
pub type List<T> = Spanned<Vec<Spanned<T>>>;

/// What an organisation says.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Organisation {
    /// The file as diagnostics and origins name it.
    #[serde(skip)]
    pub file: String,
    /// 1.
    #[schemars(schema_with = "version")]
    pub version: u64,
    pub organisation: Spanned<OrganisationName>,
    /// Goes up with every change: a host refuses one that is lower than the last it saw.
    #[schemars(range(min = 1, max = MAX_SERIAL))]
    pub serial: Spanned<u64>,
    /// From when on it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Spanned<Time>>,
    /// Until when it holds: a host that sees no later one starts nothing from then on.
    pub not_after: Spanned<Time>,
    /// The most that may be had. One that is absent does not restrict; an empty list allows nothing.
    #[schemars(default)]
    pub ceilings: Ceilings,
    /// What has to hold of everything that is run.
    #[schemars(default)]
    pub requirements: Requirements,
    /// What nobody may have, whatever else says. They win over everything that allows.
    #[schemars(default)]
    pub denials: Denials,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Ceilings {
    #[schemars(default)]
    pub network: NetworkCeilings,
    #[schemars(default)]
    pub filesystem: FilesystemCeilings,
    #[schemars(default)]
    pub tools: ToolCeilings,
    /// Capabilities of Linux. No container has any, and none can be asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub capabilities: Option<List<LinuxCapability>>,
    /// By name: which credentials may be used, for which hosts, from which sources.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, extend("maxProperties" = MAX_ENTRIES))]
    pub credentials: Option<Spanned<BTreeMap<CredentialName, Spanned<CredentialCeiling>>>>,
    /// Where the values of credentials may come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub secret_sources: Option<List<SourcePattern>>,
    /// Variables of the host that a workspace may read with `${localEnv:NAME}`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub host_variables: Option<List<VariableName>>,
    /// Kinds of entries in `mounts`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub mounts: Option<List<MountKind>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub engines: Option<List<EngineKind>>,
    /// Repositories that images may be of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub images: Option<List<ImagePattern>>,
    /// Repositories that features may be of.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub features: Option<List<ImagePattern>>,
    /// The most of each; where a workspace names no limit, this is the limit.
    #[schemars(default)]
    pub resources: Resources,
    /// The least that is done about what each inspector finds.
    #[schemars(default)]
    pub inspection: Inspection,
    /// What may become of what only a person can allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Spanned<Escalation>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct NetworkCeilings {
    /// `name`, `*.name`: at every port; either with `:port`: at that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_DOMAINS))]
    pub allowed_domains: Option<List<Domain>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES), inner(range(min = 1, max = 65535)))]
    pub ports: Option<List<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub protocols: Option<List<Protocol>>,
    /// Literal networks, with a port or at every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub networks: Option<List<NetworkBound>>,
    /// `deny`: nobody is asked about a name that nothing lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unlisted: Option<Spanned<Unlisted>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct FilesystemCeilings {
    /// Read-only for every workspace. Without `writablePaths` nothing in them is writable.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub read_only_paths: Option<List<PathPattern>>,
    /// What a workspace may have in its own `writablePaths`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub writable_paths: Option<List<PathPattern>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ToolCeilings {
    /// Programs that may be started: what a workspace may have in its own `allowedBinaries`, and all that is allowed where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub allowed_binaries: Option<List<ProgramName>>,
}

/// How far one credential may go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct CredentialCeiling {
    /// `name`, `*.name`: port 443; either with `:port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub hosts: Option<List<Domain>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub sources: Option<List<SourcePattern>>,
}

/// What an entry of `mounts` is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum MountKind {
    Volume,
    Tmpfs,
    /// A read-only bind from below the workspace.
    Workspace,
}

/// Which engine sessions may run on; one that is found by itself, or named by its socket, counts as what it says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum EngineKind {
    Docker,
    Podman,
    /// One that is reached over SSH, whatever it is.
    Ssh,
    /// One that is reached over TCP, whatever it is.
    Tcp,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Requirements {
    /// Who has to have signed what: a reference has to satisfy every rule that names it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_SIGNERS))]
    pub signatures: Vec<Spanned<SignatureRule>>,
    /// The least level of SLSA's build track.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4))]
    pub slsa_level: Option<Spanned<u8>>,
    /// Whether a list of what is inside has to be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbom: Option<Spanned<bool>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_BANNED))]
    pub banned_packages: Vec<Spanned<BannedPackage>>,
    /// Registries that anything may be fetched from.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub registries: Option<List<RegistryName>>,
    /// How long ago a pin may have been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lock_age: Option<Spanned<Age>>,
    #[schemars(default)]
    pub drift: Drift,
}

/// What these references are signed by: one of the identities or keys, of which there is at least one.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct SignatureRule {
    #[schemars(length(min = 1, max = MAX_ENTRIES))]
    pub references: List<ImagePattern>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_SIGNERS))]
    pub identities: Vec<Spanned<Identity>>,
    /// In their PEM form.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_SIGNERS))]
    pub keys: Vec<Spanned<PublicKey>>,
    /// Whether a signature by a key has to be in a transparency log; true when absent. One by an identity always has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Spanned<bool>>,
}

/// A package that nothing may contain.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct BannedPackage {
    /// The type of its package URL.
    #[serde(rename = "type")]
    pub kind: PackageType,
    pub name: PackageName,
    pub versions: VersionRange,
    /// For whoever is stopped by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_REASON_BYTES))]
    pub reason: Option<String>,
}

/// From which grade of a change on a person is asked, and from which it is refused.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Drift {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<Spanned<Grade>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<Spanned<Grade>>,
}

/// How much a change matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Grade {
    Low,
    Medium,
    High,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Denials {
    /// As `deniedDomains`: without a port every port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_DOMAINS))]
    pub domains: Vec<Spanned<Domain>>,
    /// Literal networks, and addresses that an allowed name leads to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub networks: Vec<Spanned<NetworkBound>>,
    /// As `deniedPaths`: `**/NAME` is below the workspace's folder.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub paths: Vec<Spanned<PathPattern>>,
    /// As `deniedBinaries`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub binaries: Vec<Spanned<ProgramName>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub credentials: Vec<Spanned<CredentialName>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub secret_sources: Vec<Spanned<SourcePattern>>,
    /// Repositories of images and features.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_ENTRIES))]
    pub images: Vec<Spanned<ImagePattern>>,
}

/// The last document of one source that a host believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    pub serial: u64,
    pub digest: Digest,
}

/// Why a document that is well signed is not the one that holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotCurrent {
    #[error("it holds from {from} on, and now is {now}")]
    NotYet { from: Time, now: jiff::Timestamp },
    #[error("it held until {until}, and now is {now}")]
    Expired { until: Time, now: jiff::Timestamp },
    #[error("its serial is {serial}, and this host has seen {seen}: a policy does not go back")]
    Older { serial: u64, seen: u64 },
    #[error(
        "its serial is {0}, as that of another document that this host has seen: every change has a serial of its own"
    )]
    SerialReused(u64),
}

/// Reads a document's bytes; `file` is the name that diagnostics and origins use.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(bytes: &[u8], file: &str) -> Result<Organisation, Vec<Diagnostic>> {
    read::organisation(&crate::jsonc::parse(bytes, file)?, file)
}

fn version(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "const": VERSION })
}

// === impl Organisation ===

impl Organisation {
    /// The canonical form: comments aside.
    pub fn meaning(&self) -> Vec<u8> {
        // Strings, numbers and string-keyed maps only: serialising them to memory has no way to fail.
        let value = serde_json::to_value(self).unwrap_or_default();
        serde_json::to_vec(&value).unwrap_or_default()
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.meaning())
    }

    /// What a host remembers of it.
    pub fn seen(&self) -> Seen {
        Seen {
            serial: self.serial.value,
            digest: self.digest(),
        }
    }

    /// Whether it holds now, on a host that last believed `seen`. At the moment of `notBefore` it holds, at that of `notAfter` not
    /// any more.
    ///
    /// # Errors
    /// [`NotCurrent`] says why it does not.
    pub fn check(&self, now: jiff::Timestamp, seen: Option<Seen>) -> Result<(), NotCurrent> {
        let serial = self.serial.value;
        match seen {
            Some(seen) if serial < seen.serial => {
                return Err(NotCurrent::Older {
                    serial,
                    seen: seen.serial,
                });
            }
            Some(seen) if serial == seen.serial && self.digest() != seen.digest => {
                return Err(NotCurrent::SerialReused(serial));
            }
            _ => {}
        }
        if let Some(from) = self.not_before.as_ref().map(|time| time.value)
            && now < from.timestamp()
        {
            return Err(NotCurrent::NotYet { from, now });
        }
        let until = self.not_after.value;
        if now >= until.timestamp() {
            return Err(NotCurrent::Expired { until, now });
        }
        Ok(())
    }

    /// A diagnostic about a value of this document.
    pub fn diagnostic(
        &self,
        at: crate::diag::Position,
        code: &'static str,
        message: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::new(code, message).at(self.file.clone(), at)
    }
}

// === impl NotCurrent ===

impl NotCurrent {
    /// Stable code for diagnostics.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotYet { .. } => "policy-not-yet",
            Self::Expired { .. } => "policy-expired",
            Self::Older { .. } => "policy-older",
            Self::SerialReused(_) => "policy-serial-reused",
        }
    }
}

impl SignatureRule {
    /// Whether a signature by a key has to be in a transparency log.
    pub fn needs_log(&self) -> bool {
        self.log.as_ref().is_none_or(|log| log.value)
    }
}

// === words ===

impl MountKind {
    pub const WORDS: [(&'static str, Self); 3] = [
        ("volume", Self::Volume),
        ("tmpfs", Self::Tmpfs),
        ("workspace", Self::Workspace),
    ];
}

impl EngineKind {
    pub const WORDS: [(&'static str, Self); 4] = [
        ("docker", Self::Docker),
        ("podman", Self::Podman),
        ("ssh", Self::Ssh),
        ("tcp", Self::Tcp),
    ];
}

impl Grade {
    pub const WORDS: [(&'static str, Self); 3] = [
        ("low", Self::Low),
        ("medium", Self::Medium),
        ("high", Self::High),
    ];
}

macro_rules! shown_by_word {
    ($($type:ty),*) => { $(
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let word = Self::WORDS.iter().find(|(_, value)| value == self);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    )* };
}

shown_by_word!(MountKind, EngineKind, Grade);

#[cfg(test)]
mod tests;
