//! `agentcontainer-lock.json`: what every name in a config stood for when somebody looked, by digest. Written by `lock` beside the
//! config and committed; the same for every teammate, sorted and stable, so that a difference is a change. `run` uses
//! nothing that is not in it. It is read from a repository, hence from a stranger.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diag::{Diagnostic, Position};
use crate::digest::Digest;
use crate::image::ImageRef;

/// The file's name, beside the config.
pub const FILE: &str = "agentcontainer-lock.json";
/// The version that is written and the only one that is read.
pub const VERSION: u32 = 1;
/// The largest file, in bytes.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most pins of each kind.
pub const MAX_PINS: usize = 1024;
/// The most platforms of one pin.
pub const MAX_PLATFORMS: usize = 64;

/// Names of pins that are no features.
const OWN: [&str; 2] = ["image", "policy"];

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
    /// By the name that the config has for them.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    #[schemars(extend("maxProperties" = MAX_PINS))]
    pub features: BTreeMap<String, Pin>,
    /// The workspace's own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Pin>,
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
        if lockfile.features.len() > MAX_PINS {
            return Err(refused(format!("it has more than {MAX_PINS} features")));
        }
        if let Some(name) = OWN.iter().find(|own| lockfile.features.contains_key(**own)) {
            return Err(refused(format!(
                "a feature is called {name}, which is not its name to have"
            )));
        }
        for (name, pin) in lockfile.pins() {
            pin.check()
                .map_err(|why| refused(format!("{name}: {why}")))?;
        }
        Ok(lockfile)
    }

    /// As it is written: sorted, two spaces, a newline at the end.
    pub fn to_text(&self) -> String {
        // Own types with string keys, which have no way to fail.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Every pin with its name: `image`, `policy`, and features by theirs.
    pub fn pins(&self) -> impl Iterator<Item = (&str, &Pin)> {
        std::iter::once(("image", &self.image))
            .chain(self.features.iter().map(|(name, pin)| (name.as_str(), pin)))
            .chain(self.policy.iter().map(|pin| ("policy", pin)))
    }

    /// The same, to be added to.
    pub fn pins_mut(&mut self) -> impl Iterator<Item = (&str, &mut Pin)> {
        let features = self.features.iter_mut();
        std::iter::once(("image", &mut self.image))
            .chain(features.map(|(name, pin)| (name.as_str(), pin)))
            .chain(self.policy.iter_mut().map(|pin| ("policy", pin)))
    }

    /// What differs between what a config names now and the pins.
    pub fn drift(&self, wanted: &[(String, ImageRef)]) -> Vec<Drift> {
        let mut out = Vec::new();
        for (name, reference) in wanted {
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
            if !wanted.iter().any(|(wanted, _)| wanted == name) {
                out.push(Drift::Unused {
                    name: name.to_owned(),
                    locked: pin.reference.as_str().to_owned(),
                });
            }
        }
        out
    }
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
