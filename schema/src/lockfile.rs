//! `agentcontainer-lock.json`: what every name in a config stood for when somebody looked, by digest. Written by `lock` beside the
//! config and committed; the same for every teammate, sorted and stable, so that a difference is a change. `run` uses
//! nothing that is not in it. It is read from a repository, hence from a stranger.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use agent::{AgentPin, PackagePin};

use crate::config::Config;
use crate::config::feature::{FeatureId, FeaturePlace, Options};
use crate::config::tools::{ToolKind, ToolName};
use crate::diag::{Diagnostic, Position};
use crate::digest::Digest;
use crate::image::ImageRef;

pub mod agent;

/// The file's name, beside the config.
pub const FILE: &str = "agentcontainer-lock.json";
/// The version that is written and the only one that is read.
pub const VERSION: u32 = 1;
/// The largest file, in bytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most pins of each kind.
pub const MAX_PINS: usize = 1024;
/// The most agents.
pub const MAX_AGENTS: usize = 16;
/// The most platforms of one pin.
pub const MAX_PLATFORMS: usize = 64;

/// Everything that a config names, pinned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lockfile {
    #[schemars(extend("const" = VERSION))]
    pub lockfile_version: u32,
    /// Of the config's meaning: its canonical form, comments and order aside.
    #[schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
    pub config: Digest,
    pub image: Pin,
    /// By their reference: those of the config and what they depend on.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub features: BTreeMap<String, Pin>,
    /// Features beside the config, by their path.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub local_features: BTreeMap<String, LocalPin>,
    /// Every feature in the order in which they are installed, with its options; one with two sets of options comes twice.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PINS))]
    pub install_order: Vec<Install>,
    /// Servers of the Model Context Protocol, by the name that the config has for them.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub mcp: BTreeMap<String, Pin>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub components: BTreeMap<String, Pin>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub skills: BTreeMap<String, Pin>,
    /// The workspace's own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Pin>,
    /// Agents that `run AGENT` installed, by the name of their profile.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_AGENTS))]
    pub agents: BTreeMap<String, AgentPin>,
}

/// A feature that lies beside the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalPin {
    /// Of its files: their paths, modes and contents.
    #[schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Digest,
    /// What it depends on, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PINS))]
    pub depends_on: Vec<String>,
}

/// One step of an installation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Install {
    pub feature: FeatureId,
    pub options: Options,
}

/// What a config names, by the names of the lockfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// What is in registries.
    pub pins: Vec<(String, ImageRef)>,
    /// Features beside the config.
    pub local: Vec<String>,
}

/// What one reference stood for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// As the config has it.
    #[schemars(with = "String")]
    pub reference: ImageRef,
    /// Only one engine has it: the digest is the image's id there, and nobody else can run it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub local: bool,
    /// Of the index, or of the manifest where there is none.
    #[schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Digest,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub media_type: String,
    /// The manifest of each platform.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(schema_with = "platforms")]
    pub platforms: BTreeMap<Platform, Digest>,
    /// Of a feature, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub version: Option<String>,
    /// What a feature depends on, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PINS))]
    pub depends_on: Vec<String>,
    /// When somebody looked, to the second.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub resolved: Timestamp,
    /// Who vouched for it then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

/// What was verified when the pin was made. A record for people: it is verified again wherever it is required.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Verified {
    pub signer: Signer,
    /// Of the bundle or signature.
    #[schemars(with = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
    pub bundle: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slsa: Option<Slsa>,
    /// Of the inventory of packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub sbom: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Signer {
    /// The digest of the public key (SubjectPublicKeyInfo, DER).
    Key(#[schemars(with = "String")] Digest),
    /// Who the certificate was issued to, and on whose word.
    Identity { issuer: String, subject: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Slsa {
    pub level: u8,
    pub builder: String,
}

/// `linux/amd64`, `linux/arm64/v8`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Platform {
    os: Box<str>,
    architecture: Box<str>,
    variant: Option<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a platform is os/architecture or os/architecture/variant, such as linux/arm64/v8")]
pub struct PlatformError;

/// What is different between a config's references and the pins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// The config names something that has no pin.
    Missing { name: String, reference: String },
    /// The config names something else under that name now.
    Changed {
        name: String,
        reference: String,
        locked: String,
    },
    /// A pin that nothing names.
    Unused { name: String, locked: String },
}

// === impl Lockfile ===

impl Lockfile {
    /// # Errors
    /// What is wrong with it, with its position.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Diagnostic> {
        let refused = |message: String| {
            Diagnostic::new("lockfile", message)
                .at(file.to_owned(), Position { line: 1, column: 1 })
                .help("`agentcontainer lock` writes it anew")
        };
        if bytes.len() > MAX_BYTES {
            return Err(refused(format!("it is larger than {MAX_BYTES} bytes")));
        }
        let found: Result<Self, _> = serde_json::from_slice(bytes);
        let lockfile = found.map_err(|e| {
            let at = |n: usize| u32::try_from(n.max(1)).unwrap_or(u32::MAX);
            let position = Position {
                line: at(e.line()),
                column: at(e.column()),
            };
            let text = e.to_string();
            let words = text.split(" at line ").next().unwrap_or(&text);
            let help = if bytes.starts_with(b"<<<<<<<") || contains(bytes, b"\n<<<<<<<") {
                "git left a conflict in it: take either side, then run `agentcontainer lock`"
            } else {
                "`agentcontainer lock` writes it anew"
            };
            Diagnostic::new("lockfile", words.to_owned())
                .at(file.to_owned(), position)
                .help(help)
        })?;
        if lockfile.lockfile_version != VERSION {
            return Err(refused(format!(
                "its version is {}, and this program reads {VERSION}",
                lockfile.lockfile_version
            )));
        }
        lockfile.check_names().map_err(&refused)?;
        for (name, pin) in &lockfile.agents {
            pin.check()
                .map_err(|why| refused(format!("{}: {why}", agent_pin(name))))?;
        }
        for (name, pin) in lockfile.pins() {
            pin.check()
                .map_err(|why| refused(format!("{name}: {why}")))?;
        }
        Ok(lockfile)
    }

    /// That there are not too many of anything, and that everything has a name of its kind.
    fn check_names(&self) -> Result<(), String> {
        let counts = [
            ("features", self.features.len()),
            ("features beside the config", self.local_features.len()),
            ("steps of an installation", self.install_order.len()),
            ("MCP servers", self.mcp.len()),
            ("components", self.components.len()),
            ("skills", self.skills.len()),
        ];
        for (what, count) in counts {
            if count > MAX_PINS {
                return Err(format!("it has more than {MAX_PINS} {what}"));
            }
        }
        if self.agents.len() > MAX_AGENTS {
            return Err(format!("it has more than {MAX_AGENTS} agents"));
        }
        let is_word = |name: &&String| {
            (1..=32).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')
        };
        if let Some(name) = self.agents.keys().find(|name| !is_word(name)) {
            return Err(format!("{name:?} is no name of an agent"));
        }
        if let Some((name, _)) = self.pins().skip(1).find(|(_, pin)| pin.local) {
            return Err(format!(
                "{name} is said to be an engine's own, which only an image can be"
            ));
        }
        let place = |name: &str| name.parse::<FeatureId>().map(|id| id.place().clone());
        for (name, pin) in &self.features {
            match place(name) {
                Ok(FeaturePlace::Registry(reference)) if reference == pin.reference => {}
                _ => return Err(format!("{name} is no name of the feature that it pins")),
            }
        }
        let is_local = |name: &&String| matches!(place(name), Ok(FeaturePlace::Local(_)));
        if let Some(name) = self.local_features.keys().find(|name| !is_local(name)) {
            return Err(format!("{name} is no path of a feature beside the config"));
        }
        for kind in ToolKind::ALL {
            for name in self.tools(kind).keys() {
                name.parse::<ToolName>()
                    .map_err(|e| format!("{}: {name}: {e}", kind.key()))?;
            }
        }
        Ok(())
    }

    /// As it is written: sorted, two spaces, a newline at the end.
    pub fn to_text(&self) -> String {
        // Own types with string keys, which have no way to fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Every pin with its name: `image`, `policy`, features by their reference, and tools as `mcp:NAME`, `component:NAME`, `skill:NAME`.
    pub fn pins(&self) -> impl Iterator<Item = (Cow<'_, str>, &Pin)> {
        let tools = ToolKind::ALL.into_iter().flat_map(|kind| {
            let of = self.tools(kind).iter();
            of.map(move |(name, pin)| (tool_pin(kind, name).into(), pin))
        });
        std::iter::once((Cow::Borrowed("image"), &self.image))
            .chain(self.features.iter().map(|(name, pin)| (name.into(), pin)))
            .chain(tools)
            .chain(self.policy.iter().map(|pin| ("policy".into(), pin)))
    }

    /// The same, to be added to.
    pub fn pins_mut(&mut self) -> impl Iterator<Item = (Cow<'_, str>, &mut Pin)> {
        let tools = [
            (ToolKind::Mcp, &mut self.mcp),
            (ToolKind::Component, &mut self.components),
            (ToolKind::Skill, &mut self.skills),
        ];
        let tools = tools.into_iter().flat_map(|(kind, of)| {
            of.iter_mut()
                .map(move |(name, pin)| (tool_pin(kind, name).into(), pin))
        });
        let features = self.features.iter_mut();
        std::iter::once((Cow::Borrowed("image"), &mut self.image))
            .chain(features.map(|(name, pin)| (name.into(), pin)))
            .chain(tools)
            .chain(self.policy.iter_mut().map(|pin| ("policy".into(), pin)))
    }

    fn tools(&self, kind: ToolKind) -> &BTreeMap<String, Pin> {
        match kind {
            ToolKind::Mcp => &self.mcp,
            ToolKind::Component => &self.components,
            ToolKind::Skill => &self.skills,
        }
    }

    /// Features that those of the config need, at any remove, by name: those that are pinned, and those that are not.
    fn needed<'l>(&'l self, wanted: &'l Wanted) -> (BTreeSet<&'l str>, BTreeSet<&'l str>) {
        let named = wanted.pins.iter().map(|(name, _)| name);
        let mut waiting: Vec<&str> = named.chain(&wanted.local).map(String::as_str).collect();
        let (mut needed, mut missing) = (BTreeSet::new(), BTreeSet::new());
        let mut seen = BTreeSet::new();
        while let Some(name) = waiting.pop() {
            if !seen.insert(name) {
                continue;
            }
            let of = self.features.get(name).map(|pin| &pin.depends_on);
            let of = of.or_else(|| self.local_features.get(name).map(|pin| &pin.depends_on));
            for dependency in of.into_iter().flatten() {
                let is_there = self.features.contains_key(dependency)
                    || self.local_features.contains_key(dependency);
                let into = if is_there { &mut needed } else { &mut missing };
                into.insert(dependency.as_str());
                waiting.push(dependency);
            }
        }
        (needed, missing)
    }

    /// What differs between what a config names now and the pins. What only features need is asked of the pins of those.
    pub fn drift(&self, wanted: &Wanted) -> Vec<Drift> {
        let mut out = Vec::new();
        let (needed, missing) = self.needed(wanted);
        for name in missing {
            out.push(Drift::Missing {
                name: name.to_owned(),
                reference: "what a feature depends on".to_owned(),
            });
        }
        for name in &wanted.local {
            if !self.local_features.contains_key(name) {
                out.push(Drift::Missing {
                    name: name.clone(),
                    reference: "a feature beside the config".to_owned(),
                });
            }
        }
        let is_wanted =
            |name: &String| wanted.local.contains(name) || needed.contains(name.as_str());
        for (name, pin) in &self.local_features {
            if !is_wanted(name) {
                out.push(Drift::Unused {
                    name: name.clone(),
                    locked: pin.digest.to_string(),
                });
            }
        }
        for (name, reference) in &wanted.pins {
            match self.pins().find(|(pinned, _)| pinned == name) {
                None => out.push(Drift::Missing {
                    name: name.clone(),
                    reference: reference.as_str().to_owned(),
                }),
                Some((_, pin)) if pin.reference != *reference => out.push(Drift::Changed {
                    name: name.clone(),
                    reference: reference.as_str().to_owned(),
                    locked: pin.reference.as_str().to_owned(),
                }),
                Some(_) => {}
            }
        }
        for (name, pin) in self.pins() {
            let is_named = wanted.pins.iter().any(|(wanted, _)| *wanted == name);
            if !is_named && !needed.contains(&*name) {
                out.push(Drift::Unused {
                    name: name.into_owned(),
                    locked: pin.reference.as_str().to_owned(),
                });
            }
        }
        out
    }
}

// === impl Wanted ===

impl Wanted {
    pub fn of(config: &Config) -> Self {
        let mut out = Self::default();
        let mut pin = |name: &str, reference: &ImageRef| {
            out.pins.push((name.to_owned(), reference.clone()));
        };
        pin("image", &config.image.value);
        for id in config.features.keys() {
            match id.place() {
                FeaturePlace::Registry(reference) => pin(id.as_str(), reference),
                FeaturePlace::Local(_) => {}
            }
        }
        for (kind, name, tool) in config.agent.tools.all() {
            pin(&tool_pin(kind, name.as_str()), tool.source.reference());
        }
        if let Some(source) = &config.agent.policy.source {
            pin("policy", source.reference());
        }
        let local = config.features.keys().filter(|id| id.reference().is_none());
        out.local = local.map(ToString::to_string).collect();
        out
    }
}

/// The name of a tool's pin.
pub fn tool_pin(kind: ToolKind, name: &str) -> String {
    format!("{}:{name}", kind.as_str())
}

/// The name of an agent's pin.
pub fn agent_pin(name: &str) -> String {
    format!("agent:{name}")
}

/// Where the lockfile of a config is.
pub fn beside(config: &Path) -> PathBuf {
    config.with_file_name(FILE)
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

// === impl Pin ===

impl Pin {
    /// The manifest for a machine: that of its platform, or the only one that is for its architecture. Engines leave variants out.
    pub fn manifest_for(&self, platform: &Platform) -> Option<&Digest> {
        self.platforms.get(platform).or_else(|| {
            let same = |p: &&Platform| {
                p.os() == platform.os() && p.architecture() == platform.architecture()
            };
            let fitting = self.platforms.keys().filter(same).collect::<Vec<_>>();
            match fitting.as_slice() {
                [only] => self.platforms.get(only),
                _ => None,
            }
        })
    }

    fn check(&self) -> Result<(), String> {
        if self.platforms.len() > MAX_PLATFORMS {
            return Err(format!("it has more than {MAX_PLATFORMS} platforms"));
        }
        if self.local && self.reference.digest().is_some() {
            return Err("what is named by digest is no engine's own".to_owned());
        }
        if let Some(asked) = self.reference.digest()
            && *asked != self.digest
        {
            return Err(format!(
                "{} names another digest than the pin's {}",
                self.reference.as_str(),
                self.digest
            ));
        }
        if self.local && (!self.platforms.is_empty() || self.verified.is_some()) {
            return Err(
                "what only an engine has is of no registry's platforms, and nobody vouched for it"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

// === impl Verified ===

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(digest) => write!(f, "key {digest}"),
            Self::Identity { issuer, subject } => write!(f, "{subject} ({issuer})"),
        }
    }
}

// === impl Platform ===

impl Platform {
    /// `None` where a part is not spelt as one. A variant that says what is meant without it (`arm64/v8`, `amd64/v1`) is left out.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Option<Self> {
        let word = |part: &str| {
            (1..=32).contains(&part.len())
                && part.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-')
                })
        };
        let variant = variant.filter(|variant| {
            !matches!(
                (architecture, *variant),
                (_, "") | ("arm64", "v8") | ("amd64", "v1")
            )
        });
        (word(os) && word(architecture) && variant.is_none_or(word)).then(|| Self {
            os: os.into(),
            architecture: architecture.into(),
            variant: variant.map(Into::into),
        })
    }

    /// What this program runs on, as images name it.
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: None,
        }
    }

    pub fn os(&self) -> &str {
        &self.os
    }

    pub fn architecture(&self) -> &str {
        &self.architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let mut parts = text.split('/');
        let (os, architecture, variant) = (parts.next(), parts.next(), parts.next());
        match (os, architecture, parts.next()) {
            (Some(os), Some(architecture), None) => {
                Self::new(os, architecture, variant).ok_or(PlatformError)
            }
            _ => Err(PlatformError),
        }
    }
}

impl Serialize for Platform {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<str>::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

// === impl Drift ===

impl fmt::Display for Drift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { name, reference } => {
                write!(f, "{name} is {reference}, which is not locked")
            }
            Self::Changed {
                name,
                reference,
                locked,
            } => write!(f, "{name} is {reference} now, and {locked} is locked"),
            Self::Unused { name, locked } => {
                write!(f, "{name} ({locked}) is locked and no longer named")
            }
        }
    }
}

/// A map in which no key comes twice.
fn each_once<'de, D, K, V>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + fmt::Display,
    V: Deserialize<'de>,
{
    struct Each<K, V>(std::marker::PhantomData<(K, V)>);
    impl<'de, K: Deserialize<'de> + Ord + fmt::Display, V: Deserialize<'de>> Visitor<'de>
        for Each<K, V>
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut out = BTreeMap::new();
            while let Some((key, value)) = map.next_entry::<K, V>()? {
                if out.contains_key(&key) {
                    return Err(A::Error::custom(format!("`{key}` is there twice")));
                }
                out.insert(key, value);
            }
            Ok(out)
        }
    }
    deserializer.deserialize_map(Each(std::marker::PhantomData))
}

fn platforms(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": MAX_PLATFORMS,
        "additionalProperties": { "type": "string", "pattern": "^sha256:[0-9a-f]{64}$" }
    })
}

#[cfg(test)]
mod tests;
