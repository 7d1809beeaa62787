//! What is done to files: the workspace's three lists, each entry with where it was written. Which of them hold is said by the layers
//! that a host has (the enforcer's); here is what mounts can carry at all.

use schema::config::Config;
use schema::config::filesystem::PathPattern;
use schema::diag::{Diagnostic, Position, Spanned};
use schema::hostconfig::{self, HostConfig};
use serde::{Deserialize, Serialize};

use crate::effective::Origin;

/// Most rules about files in one policy.
pub const MAX_FILE_RULES: usize = 1024;

/// Rules about files. A longer path wins over a shorter one, and a denial over both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Files {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only: Vec<FileRule>,
    /// Within what is read-only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writable: Vec<FileRule>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<FileRule>,
    /// Where the host says that what mounts carry is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts_suffice: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRule {
    pub path: PathPattern,
    pub origin: Origin,
    /// Whose policy says it, where it is not the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<String>,
}

/// Which list a rule is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FileRight {
    ReadOnly,
    Writable,
    Denied,
}

// === impl FileRight ===

impl FileRight {
    /// The key it is written under.
    pub fn key(self) -> &'static str {
        match self {
            Self::ReadOnly => "readOnlyPaths",
            Self::Writable => "writablePaths",
            Self::Denied => "deniedPaths",
        }
    }

    /// What it makes of a file, in a word.
    pub fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Writable => "writable",
            Self::Denied => "denied",
        }
    }
}

// === impl FileRule ===

impl FileRule {
    /// The key it is written under.
    pub fn key(&self, right: FileRight) -> &'static str {
        match (right, &self.organisation) {
            (FileRight::ReadOnly, Some(_)) => "ceilings.filesystem.readOnlyPaths",
            (FileRight::Writable, Some(_)) => "ceilings.filesystem.writablePaths",
            (FileRight::Denied, Some(_)) => "denials.paths",
            (_, None) => right.key(),
        }
    }
}

// === impl Files ===

impl Files {
    pub fn of(config: &Config, host: &HostConfig) -> Self {
        let origin = |at: Position| Origin {
            file: config.file.clone(),
            line: at.line,
            column: at.column,
        };
        let rules = |list: &[Spanned<PathPattern>]| {
            list.iter()
                .map(|path| FileRule {
                    path: path.value.clone(),
                    origin: origin(path.at),
                    organisation: None,
                })
                .collect()
        };
        let asked = config.agent.filesystem();
        let files = Self {
            read_only: rules(&asked.read_only_paths),
            writable: rules(&asked.writable_paths),
            denied: rules(&asked.denied_paths),
            mounts_suffice: None,
        };
        files.on(host)
    }

    /// The same with what the host says of mounts, where there is something to say it of.
    #[must_use]
    pub(crate) fn on(mut self, host: &HostConfig) -> Self {
        let suffice = host.files.as_ref();
        let suffice = suffice.filter(|files| files.value == hostconfig::Files::Mounts);
        if !self.is_empty() {
            self.mounts_suffice = suffice.map(|files| Origin {
                file: files.file.clone(),
                line: files.at.line,
                column: files.at.column,
            });
        }
        self
    }

    /// Whether it says nothing about any file.
    pub fn is_empty(&self) -> bool {
        self.read_only.is_empty() && self.writable.is_empty() && self.denied.is_empty()
    }

    pub fn len(&self) -> usize {
        self.read_only.len() + self.writable.len() + self.denied.len()
    }

    /// All rules, list by list.
    pub fn all(&self) -> impl Iterator<Item = (FileRight, &FileRule)> {
        [
            (FileRight::ReadOnly, &self.read_only),
            (FileRight::Writable, &self.writable),
            (FileRight::Denied, &self.denied),
        ]
        .into_iter()
        .flat_map(|(right, rules)| rules.iter().map(move |rule| (right, rule)))
    }

    /// What mounts alone do not carry: they hold what is there when a session starts, and a pattern is about what comes later too.
    /// None of it where the host says that mounts are enough.
    pub fn beyond_mounts(&self) -> impl Iterator<Item = (FileRight, &FileRule)> {
        let strict = self.mounts_suffice.is_none();
        self.all()
            .filter(move |(_, rule)| strict && rule.path.is_glob())
    }

    /// Whether some of it is also about files that come later, which programs of the kernel's carry where there are such.
    pub fn is_about_later(&self) -> bool {
        self.all().any(|(_, rule)| rule.path.is_glob())
    }

    /// What no layer of a host carries whose kernel does not take programs about files, for the reason given: errors that say what to do.
    pub fn not_carried(&self, no_lsm: &str) -> Vec<Diagnostic> {
        self.beyond_mounts()
            .map(|(right, rule)| {
                let message = format!(
                    "`{}` has \"{}\", which is also about files that come later: mounts hold only what is there when a session starts, and BPF LSM, which carries the rest, is not there ({no_lsm})",
                    rule.key(right),
                    rule.path
                );
                let help = "name the files and directories themselves; or see `agentcontainer doctor` for BPF LSM; or accept what mounts can do, with files = \"mounts\" in the host's config.toml";
                let at = Position {
                    line: rule.origin.line,
                    column: rule.origin.column,
                };
                Diagnostic::new("not-carried", message)
                    .help(help)
                    .at(rule.origin.file.clone(), at)
            })
            .collect()
    }
}
