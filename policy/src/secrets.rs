//! Secrets as policy knows them: which files are inside, for how long and for which programs. Their values are not here: they travel
//! beside the policy, and the enforcer alone has them.

use std::collections::BTreeSet;

use schema::config::Config;
use schema::config::secret::{DIRECTORY, MAX_SECRETS};
use schema::config::units::MAX_TTL_SECONDS;
use schema::credential::CredentialName;
use schema::diag::{Diagnostic, Position};
use schema::hostconfig::{self, HostConfig};
use schema::request::{MAX_IN_RULE, ProgramPath};
use serde::{Deserialize, Serialize};

use crate::effective::{Origin, PolicyError};

/// Files at [`DIRECTORY`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Secrets {
    pub all: Vec<Secret>,
    /// Where the host says that what mounts carry is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts_suffice: Option<Origin>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Secret {
    pub name: String,
    /// The programs that may open it; empty: whatever runs as the container's user.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramPath>,
    /// How long it is there, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    pub origin: Origin,
}

// === impl Secrets ===

impl Secrets {
    /// What the workspace asks for, within what the host grants.
    pub(crate) fn of(config: &Config, host: &HostConfig, found: &mut Vec<Diagnostic>) -> Self {
        let mut secrets = Self::default();
        for (name, asked) in &config.agent.secrets {
            if !host.secrets.contains_key(name) {
                let from = asked.source.as_ref().map_or_else(String::new, |source| {
                    format!(", which this workspace would have from {}", source.value)
                });
                let message = format!("this host grants no secret {name}{from}");
                let help = format!(
                    "`agentcontainer grant {name} --secret --source URI` grants it to this workspace, inside of which it is a file that the agent can read; [secrets.{name}] in config.toml grants it to every one"
                );
                found.push(
                    config
                        .diagnostic(asked.at, "secret-not-granted", message)
                        .help(help),
                );
                continue;
            }
            secrets.all.push(Secret {
                name: name.to_string(),
                programs: asked.programs.clone(),
                ttl: asked.ttl.as_ref().map(|ttl| ttl.seconds()),
                origin: Origin {
                    file: config.file.clone(),
                    line: asked.at.line,
                    column: asked.at.column,
                },
            });
        }
        let suffice = host.files.as_ref();
        let suffice = suffice.filter(|files| files.value == hostconfig::Files::Mounts);
        if !secrets.is_empty() {
            secrets.mounts_suffice = suffice.map(|files| Origin {
                file: files.file.clone(),
                line: files.at.line,
                column: files.at.column,
            });
        }
        secrets
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether only some programs may open one of them.
    pub fn are_gated(&self) -> bool {
        self.all.iter().any(|secret| !secret.programs.is_empty())
    }

    /// What no layer carries where there is no BPF LSM, which is not there for this reason, as errors that say what to do.
    pub fn not_carried(&self, no_lsm: &str) -> Vec<Diagnostic> {
        let strict = self.mounts_suffice.is_none();
        self.all
            .iter()
            .filter(|secret| strict && !secret.programs.is_empty())
            .map(|secret| {
                let message = format!(
                    "`agent.secrets.{}.programs` lets these programs alone open {DIRECTORY}/{}, and what tells programs of one user apart, BPF LSM, is not there: {no_lsm}",
                    secret.name, secret.name
                );
                let help = "leave `programs` out: whatever runs as the container's user can then read it; or accept that for every workspace, with files = \"mounts\" in the host's config.toml";
                let at = Position {
                    line: secret.origin.line,
                    column: secret.origin.column,
                };
                Diagnostic::new("not-carried", message)
                    .help(help)
                    .at(secret.origin.file.clone(), at)
            })
            .collect()
    }

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let mut names = BTreeSet::new();
        if self.all.len() > MAX_SECRETS {
            return Err(PolicyError::TooMany {
                what: "secrets",
                count: self.all.len(),
                limit: MAX_SECRETS,
            });
        }
        for secret in &self.all {
            let fine = secret.name.parse::<CredentialName>().is_ok()
                && names.insert(secret.name.as_str())
                && secret.programs.len() <= MAX_IN_RULE
                && secret
                    .ttl
                    .is_none_or(|ttl| (1..=MAX_TTL_SECONDS).contains(&ttl));
            if !fine {
                return Err(PolicyError::Secret(secret.origin.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
