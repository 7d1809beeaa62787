//! `agent.capabilities.tools`: which programs are started, and which are not.

use schemars::JsonSchema;
use serde::Serialize;

use crate::diag::Spanned;
use crate::program::ProgramName;

/// Most entries in each of the two lists.
pub const MAX_PROGRAMS: usize = 256;

/// A denial wins over what is allowed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Programs {
    /// No other program is started; every program where it is left out. A name is looked for where the image's `PATH` and the usual
    /// directories are, a path is that file.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, length(min = 1, max = MAX_PROGRAMS))]
    pub allowed_binaries: Option<Spanned<Vec<Spanned<ProgramName>>>>,
    /// None of these is started, nor read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_PROGRAMS))]
    pub denied_binaries: Vec<Spanned<ProgramName>>,
    /// A person is asked about a program that the list does not have.
    #[serde(skip_serializing_if = "is_not_asked")]
    #[schemars(default)]
    pub require_approval: Option<Spanned<bool>>,
}

// === impl Programs ===

impl Programs {
    pub fn is_empty(&self) -> bool {
        self.allowed_binaries.is_none()
            && self.denied_binaries.is_empty()
            && is_not_asked(&self.require_approval)
    }
}

fn is_not_asked(asked: &Option<Spanned<bool>>) -> bool {
    asked.as_ref().is_none_or(|asked| !asked.value)
}
