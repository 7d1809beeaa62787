//! Which programs are started: the workspace's lists and those of organisations, each entry with where it was written. Mounts carry
//! what is denied, by its place; what is allowed alone, and what a person is asked about, takes a layer that sees every start.

use schema::config::Config;
use schema::diag::{Diagnostic, Position, Spanned};
use schema::program::ProgramName;
use serde::{Deserialize, Serialize};

use crate::effective::Origin;
use crate::layers::Layers;

/// Most rules about programs in one policy.
pub const MAX_PROGRAM_RULES: usize = 4096;

/// Rules about programs. A denial wins over what is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Programs {
    /// No other program is started; every program where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<ProgramRule>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<ProgramRule>,
    /// A person is asked about a program that is not allowed, and who says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_approval: Option<Origin>,
    /// What organisations' ceilings allow, one list each, where a person is asked: nobody is asked about anything beyond one of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ceilings: Vec<Vec<ProgramRule>>,
}

/// Why nobody is asked about a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAsked {
    #[error("no rule asks")]
    NoRule,
    #[error("a rule denies it")]
    Denied,
    #[error("it is beyond an organisation's ceiling")]
    Ceiling,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramRule {
    pub name: ProgramName,
    pub origin: Origin,
    /// Whose policy says it, where it is not the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
}

/// Which list a rule is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProgramRight {
    Allowed,
    Denied,
}

// === impl ProgramRule ===

impl ProgramRule {
    /// The key it is written under.
    pub fn key(&self, right: ProgramRight) -> &'static str {
        match (right, &self.organisation) {
            (ProgramRight::Allowed, None) => "allowedBinaries",
            (ProgramRight::Denied, None) => "deniedBinaries",
            (ProgramRight::Allowed, Some(_)) => "ceilings.tools.allowedBinaries",
            (ProgramRight::Denied, Some(_)) => "denials.binaries",
        }
    }
}

// === impl Programs ===

impl Programs {
    pub fn of(config: &Config) -> Self {
        let origin = |at: Position| Origin {
            file: config.file.clone(),
            line: at.line,
            column: at.column,
        };
        let rules = |list: &[Spanned<ProgramName>]| -> Vec<ProgramRule> {
            list.iter()
                .map(|name| ProgramRule {
                    name: name.value.clone(),
                    origin: origin(name.at),
                    organisation: None,
                })
                .collect()
        };
        let asked = config.agent.programs();
        Self {
            allowed: asked.allowed_binaries.as_ref().map(|list| rules(list)),
            denied: rules(&asked.denied_binaries),
            require_approval: asked
                .require_approval
                .as_ref()
                .filter(|asked| asked.value)
                .map(|asked| origin(asked.at)),
            ceilings: Vec::new(),
        }
    }

    /// Where it is said that a person is asked about the program at this path, which is not listed.
    ///
    /// # Errors
    /// Nobody is: a denial by this path or this name wins, and no answer goes beyond a ceiling.
    pub fn asks(&self, program: &ProgramName) -> Result<&Origin, NotAsked> {
        let origin = self.require_approval.as_ref().ok_or(NotAsked::NoRule)?;
        let name = program.as_str().rsplit('/').next();
        let denies = |rule: &ProgramRule| {
            rule.name == *program || name.is_some_and(|name| rule.name.as_str() == name)
        };
        if self.denied.iter().any(denies) {
            return Err(NotAsked::Denied);
        }
        let within = |list: &Vec<ProgramRule>| list.iter().any(|rule| rule.name.covers(program));
        if !self.ceilings.iter().all(within) {
            return Err(NotAsked::Ceiling);
        }
        Ok(origin)
    }

    /// Whether the list is all that is ever started: nobody is asked for more.
    pub fn is_whole(&self) -> bool {
        self.allowed.is_some() && self.require_approval.is_none()
    }

    /// Whether it lists or denies any program, ceilings aside.
    pub fn has_rules(&self) -> bool {
        self.allowed.is_some() || !self.denied.is_empty()
    }

    /// Whether it says nothing about any program.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn len(&self) -> usize {
        let ceilings: usize = self.ceilings.iter().map(Vec::len).sum();
        self.denied.len() + self.allowed.as_ref().map_or(0, Vec::len) + ceilings
    }

    /// All rules, list by list.
    pub fn all(&self) -> impl Iterator<Item = (ProgramRight, &ProgramRule)> {
        let allowed = self.allowed.iter().flatten();
        allowed
            .map(|rule| (ProgramRight::Allowed, rule))
            .chain(self.denied.iter().map(|rule| (ProgramRight::Denied, rule)))
    }

    /// What mounts do not carry, as errors that say what to do: whatever a host says of mounts, they do nothing of this at all.
    pub fn not_carried(&self, layers: &Layers<'_>) -> Vec<Diagnostic> {
        let neither = layers.lsm.err().zip(layers.starts.err());
        let allowed = self.allowed.as_ref().zip(neither);
        let allowed = allowed.map(|(rules, (no_lsm, no_starts))| {
            let key = match rules.first() {
                Some(rule) => rule.key(ProgramRight::Allowed),
                None => "allowedBinaries",
            };
            let words = format!(
                "`{key}` is about every program that is started: BPF LSM, which sees each start, is not there ({no_lsm}), nor a tracepoint that ends one ({no_starts})"
            );
            let help = "see `agentcontainer doctor` for BPF LSM; or take it out: `deniedBinaries` holds on every kernel, for the programs that it names";
            (words, help, rules.first().map(|rule| &rule.origin))
        });
        let asked = self.require_approval.as_ref().and_then(|origin| {
            let (words, help) = match (layers.lsm.err(), &self.allowed) {
                (Some(reason), _) => (
                    format!("`requireApproval` asks a person about each program that is started and not listed: BPF LSM, which sees each start, is not there ({reason})"),
                    "see `agentcontainer doctor` for BPF LSM; or take it out",
                ),
                (None, None) => (
                    "`requireApproval` asks a person about a program that `allowedBinaries` does not have: there is no such list".to_owned(),
                    "list in `allowedBinaries` what is started without asking; or take it out",
                ),
                (None, Some(_)) => return None,
            };
            Some((words, help, Some(origin)))
        });
        let of = |(message, help, origin): (String, &'static str, Option<&Origin>)| {
            let diagnostic = Diagnostic::new("not-carried", message).help(help);
            match origin {
                Some(origin) => diagnostic.at(
                    origin.file.clone(),
                    Position {
                        line: origin.line,
                        column: origin.column,
                    },
                ),
                None => diagnostic,
            }
        };
        allowed.into_iter().chain(asked).map(of).collect()
    }
}

#[cfg(test)]
mod tests;
