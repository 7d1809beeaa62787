//! The inspectors that look at what an agent sends, and what is done about what each finds: the words that
//! `agent.inspection` and the host's `[inspection]` share. Policy merges them, the gateway carries them out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One inspector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Inspector {
    /// Keys of known formats, on their way to a host where they do not belong.
    Secrets,
    /// Words that look random.
    Entropy,
    /// A body that is something else than its head says.
    ContentType,
    /// Base64 that stands for such a key.
    Base64,
}

/// What is done about a finding; in order of strength.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Level {
    /// Nobody looks.
    Off,
    /// It is carried and recorded.
    Flag,
    /// It is refused.
    Block,
}

// === impl Inspector ===

impl Inspector {
    pub const ALL: [Self; 4] = [
        Self::Secrets,
        Self::Entropy,
        Self::ContentType,
        Self::Base64,
    ];

    /// The key in `agent.inspection`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::Entropy => "entropy",
            Self::ContentType => "contentType",
            Self::Base64 => "base64",
        }
    }

    /// The key in `[inspection]` of config.toml.
    pub fn as_toml(self) -> &'static str {
        match self {
            Self::ContentType => "content_type",
            other => other.as_str(),
        }
    }
}

// === impl Level ===

impl Level {
    pub const WORDS: [(&'static str, Self); 3] = [
        ("off", Self::Off),
        ("flag", Self::Flag),
        ("block", Self::Block),
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Flag => "flag",
            Self::Block => "block",
        }
    }
}
