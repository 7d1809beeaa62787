//! Features as a config names them (devcontainers specification, 'Features'): which one, and with which options. Features come
//! from a registry or lie beside the config; what a feature says of itself is read by `crate::feature`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use super::units::inline_schema;
use crate::image::{ImageError, ImageRef};

/// Most features of a config, and most that one feature depends on.
pub const MAX_FEATURES: usize = 64;
/// Most options of one feature.
pub const MAX_OPTIONS: usize = 64;
/// Longest name of an option, and longest value, in bytes.
pub const MAX_OPTION_NAME_BYTES: usize = 128;
pub const MAX_OPTION_BYTES: usize = 4096;
/// Longest path of a feature beside the config, in bytes.
pub const MAX_LOCAL_BYTES: usize = 255;

/// `ghcr.io/devcontainers/features/node:1`, `./name`.
#[derive(Clone, Debug)]
pub struct FeatureId {
    written: Box<str>,
    place: FeaturePlace,
}

#[derive(Clone, Debug)]
pub enum FeaturePlace {
    Registry(ImageRef),
    /// A path below the config's own folder: no `./` in front, no `..`.
    Local(Box<str>),
}

/// What a feature is installed with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Options {
    /// Short for the option `version`.
    Version(#[schemars(length(max = MAX_OPTION_BYTES))] String),
    /// Nothing is said: the feature's own defaults.
    Defaults(bool),
    Named(#[schemars(extend("maxProperties" = MAX_OPTIONS))] BTreeMap<String, OptionValue>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum OptionValue {
    Flag(bool),
    Text(#[schemars(length(max = MAX_OPTION_BYTES))] String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FeatureError {
    #[error(
        "a tarball at a URI is not taken by this version, because nothing vouches for what it holds; name the feature in a registry, or put it beside the config"
    )]
    Tarball,
    #[error(
        "a feature is named by its registry, such as ghcr.io/devcontainers/features/node:1, or by its path beside the config, such as ./node"
    )]
    NoRegistry,
    #[error(
        "a feature beside the config is a path below the config's folder, at most {MAX_LOCAL_BYTES} bytes: ./name, of letters, digits, `.`, `_` and `-`"
    )]
    Local,
    #[error(transparent)]
    Reference(#[from] ImageError),
}

// === impl FeatureId ===

impl FeatureId {
    pub fn as_str(&self) -> &str {
        &self.written
    }

    pub fn place(&self) -> &FeaturePlace {
        &self.place
    }

    pub fn reference(&self) -> Option<&ImageRef> {
        match &self.place {
            FeaturePlace::Registry(reference) => Some(reference),
            FeaturePlace::Local(_) => None,
        }
    }
}

impl FromStr for FeatureId {
    type Err = FeatureError;

    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let with = |place| Self {
            written: text.into(),
            place,
        };
        if text.contains("://") {
            return Err(FeatureError::Tarball);
        }
        if text.starts_with(['.', '/']) {
            let below = text.strip_prefix("./").ok_or(FeatureError::Local)?;
            let name = |name: &str| {
                !matches!(name, "" | "." | "..")
                    && name
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
            };
            if text.len() > MAX_LOCAL_BYTES || !below.split('/').all(name) {
                return Err(FeatureError::Local);
            }
            return Ok(with(FeaturePlace::Local(below.into())));
        }
        let registry = text.split('/').next().unwrap_or_default();
        let named = registry == "localhost" || registry.contains(['.', ':']);
        if !text.contains('/') || !named {
            return Err(FeatureError::NoRegistry);
        }
        Ok(with(FeaturePlace::Registry(ImageRef::parse(text)?)))
    }
}

impl fmt::Display for FeatureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// As they are written: two spellings of one feature are two keys.
impl PartialEq for FeatureId {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for FeatureId {}

impl PartialOrd for FeatureId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FeatureId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.written.cmp(&other.written)
    }
}

impl Serialize for FeatureId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for FeatureId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

inline_schema!(FeatureId, "FeatureId", { "type": "string", "pattern": "^(\\./[A-Za-z0-9._/-]+|[^/]*[.:][^/]*/.+|localhost/.+)$" });

// === impl Options ===

impl Default for Options {
    fn default() -> Self {
        Self::Named(BTreeMap::new())
    }
}

impl Options {
    /// For people: ` with a=b`, or nothing.
    pub fn shown(&self) -> String {
        match self {
            Self::Defaults(_) => String::new(),
            Self::Version(version) => format!(" with version={version}"),
            Self::Named(all) if all.is_empty() => String::new(),
            Self::Named(all) => {
                let all: Vec<String> = all
                    .iter()
                    .map(|(name, value)| match value {
                        OptionValue::Flag(flag) => format!("{name}={flag}"),
                        OptionValue::Text(text) => format!("{name}={text}"),
                    })
                    .collect();
                format!(" with {}", all.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests;
