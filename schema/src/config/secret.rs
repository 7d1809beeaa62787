//! `agent.secrets`: values that a workspace wants inside, each as a file below [`DIRECTORY`]. It names them, and may say which service
//! holds one; where a value comes from in the end is the host's word.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::units::{Ttl, inline_schema};
use crate::credential::{CredentialError, MAX_SOURCE_BYTES, Source};
use crate::diag::Spanned;
use crate::request::{MAX_IN_RULE, ProgramPath};

/// Where the files are inside.
pub const DIRECTORY: &str = "/run/secrets";
/// Most secrets in either file.
pub const MAX_SECRETS: usize = 64;

/// What a workspace may say of a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Asks for a grant of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Spanned<ServiceSource>>,
    /// The programs that may open its file; whoever runs as the container's user when it is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramPath>,
    /// How long the file is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Spanned<Ttl>>,
}

/// A source that a workspace may ask for: a service's, which says by itself who may read there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSource(Source);

/// Why a text is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ServiceSourceError {
    #[error("where on this host a value comes from is the host's word, never the workspace's")]
    HostOnly,
    #[error(transparent)]
    Source(#[from] CredentialError),
}

// === impl ServiceSource ===

impl ServiceSource {
    pub fn source(&self) -> &Source {
        &self.0
    }
}

impl FromStr for ServiceSource {
    type Err = ServiceSourceError;

    fn from_str(text: &str) -> Result<Self, ServiceSourceError> {
        match text.parse()? {
            source @ (Source::Vault { .. } | Source::OnePassword(_)) => Ok(Self(source)),
            _ => Err(ServiceSourceError::HostOnly),
        }
    }
}

impl ServiceSourceError {
    pub fn code(self) -> &'static str {
        match self {
            Self::HostOnly => "host-only",
            Self::Source(error) => error.code(),
        }
    }
}

impl fmt::Display for ServiceSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ServiceSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

inline_schema!(ServiceSource, "ServiceSource", {
    "type": "string",
    "maxLength": MAX_SOURCE_BYTES,
    "pattern": "^(op|vault)://."
});

/// By name: a source alone, or an object.
pub(super) fn schema(generator: &mut SchemaGenerator) -> Schema {
    let source = generator.subschema_for::<ServiceSource>();
    let program = generator.subschema_for::<ProgramPath>();
    let ttl = generator.subschema_for::<Ttl>();
    json_schema!({
        "description": "By name. Each is a file below /run/secrets that the container's user alone can read.",
        "type": "object",
        "maxProperties": MAX_SECRETS,
        "additionalProperties": false,
        "patternProperties": {
            "^[A-Za-z0-9_-]{1,64}$": {
                "anyOf": [
                    source,
                    {
                        "type": "object",
                        "additionalProperties": false,
                        "properties": {
                            "source": source,
                            "programs": { "type": "array", "items": program, "minItems": 1, "maxItems": MAX_IN_RULE },
                            "ttl": ttl
                        }
                    }
                ]
            }
        }
    })
}

#[cfg(test)]
mod tests;
