//! `agent.tools`: MCP servers, components and skills, each by a name of the config's and a place in a registry. This version pins
//! and verifies them.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::units::inline_schema;
use crate::diag::Spanned;
use crate::image::OciSource;

/// Most tools of each kind.
pub const MAX_TOOLS: usize = 64;
/// Longest name of one, in bytes.
pub const MAX_NAME_BYTES: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Tools {
    /// Servers of the Model Context Protocol.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, extend("maxProperties" = MAX_TOOLS))]
    pub mcp: BTreeMap<ToolName, Spanned<Tool>>,
    /// WebAssembly components.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, extend("maxProperties" = MAX_TOOLS))]
    pub components: BTreeMap<ToolName, Spanned<Tool>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, extend("maxProperties" = MAX_TOOLS))]
    pub skills: BTreeMap<ToolName, Spanned<Tool>>,
}

/// `"oci://…"`, or an object with `source`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub source: OciSource,
}

/// A letter or digit, then letters, digits, `.`, `_` and `-`: 1 to 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ToolName(Box<str>);

/// What a tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ToolKind {
    Mcp,
    Component,
    Skill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "expected 1 to {MAX_NAME_BYTES} letters, digits, `.`, `_` and `-`, beginning with a letter or digit"
)]
pub struct ToolNameError;

// === impl Tools ===

impl Tools {
    pub fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    pub fn all(&self) -> impl Iterator<Item = (ToolKind, &ToolName, &Spanned<Tool>)> {
        ToolKind::ALL.into_iter().flat_map(move |kind| {
            let of = match kind {
                ToolKind::Mcp => &self.mcp,
                ToolKind::Component => &self.components,
                ToolKind::Skill => &self.skills,
            };
            of.iter().map(move |(name, tool)| (kind, name, tool))
        })
    }
}

// === impl Tool ===

impl Serialize for Tool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.source.serialize(serializer)
    }
}

impl JsonSchema for Tool {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Tool".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let source = OciSource::json_schema(generator);
        json_schema!({
            "anyOf": [
                source,
                {
                    "type": "object",
                    "properties": { "source": source },
                    "required": ["source"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

// === impl ToolKind ===

impl ToolKind {
    pub const ALL: [Self; 3] = [Self::Mcp, Self::Component, Self::Skill];

    /// In names of pins: `mcp:NAME`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Component => "component",
            Self::Skill => "skill",
        }
    }

    /// The key that it stands under, in config and lockfile.
    pub fn key(self) -> &'static str {
        match self {
            Self::Mcp => "mcp",
            Self::Component => "components",
            Self::Skill => "skills",
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Mcp => "MCP server",
            Self::Component => "component",
            Self::Skill => "skill",
        }
    }
}

// === impl ToolName ===

impl ToolName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ToolName {
    type Err = ToolNameError;

    fn from_str(text: &str) -> Result<Self, ToolNameError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
        fits.then(|| Self(text.into())).ok_or(ToolNameError)
    }
}

impl fmt::Display for ToolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

inline_schema!(ToolName, "ToolName", { "type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$" });
