//! The rules of one container as the programs about files are told them, made while its init waits: what the policy says, and what mounts alone
//! hold besides, which a descriptor from outside would get round. Kept as they are for the next enforcer: what they were made from changes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use enforcer_common::files::{Inode, MAX_NAME};
use policy::{EffectivePolicy, FileRight};
use serde::{Deserialize, Serialize};

use super::allowed::{Allowed, text};
use super::enter::Inside;
use super::find::{self, Missing};
use super::openers::Openers;
use super::programs::Place;
use super::table::{self, Rule, Say, Table};
use super::{FilesError, io_error, mounted, shown};
use crate::kernel::Look;

/// The rules as they were when a container's init was released.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begun {
    rules: Vec<Rule>,
    /// The inode of the mount namespace that they hold in.
    pub namespace: u32,
    /// Nothing is started but what they say so of.
    pub listed: bool,
    /// Something is denied or read-only by a rule of the policy's.
    pub ruled: bool,
    #[serde(default)]
    pub aside: Aside,
}

/// What of the rules mounts alone hold, because the table does not take it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Aside {
    #[default]
    Nothing,
    /// Paths with a name that is too long.
    Long(Vec<String>),
    /// All of it, for this reason.
    All(String),
}

/// What is found for the programs about files.
pub struct Found {
    pub begun: Begun,
    pub table: Table,
    pub allowed: Option<Allowed>,
    /// Which files the allowed ones are: another one in the place of one of them is none.
    pub programs: BTreeSet<Inode>,
}

// === impl Begun ===

impl Begun {
    /// In the mount namespace of `pid`, where mounts hold already what they can: with what is masked there, and what may open secrets.
    ///
    /// # Errors
    /// The table does not take what mounts do not carry, or what mounts carry is not there.
    pub fn find(
        pid: u32,
        network: (u64, u64),
        policy: &EffectivePolicy,
        masked: &[Place],
        openers: Option<&Openers>,
        look: &Look,
    ) -> Result<Found, FilesError> {
        let inside = Inside::of(pid, network)?;
        match Self::whole(&inside, policy, masked, openers, look) {
            Err(error) if error.is_the_tables() && !policy.is_beyond_mounts() => {
                // What comes later only the table would hold.
                find::all(&inside, &policy.files, Missing::MayNot)?;
                let begun = Self {
                    rules: Vec::new(),
                    namespace: inside.namespace()?,
                    listed: false,
                    ruled: false,
                    aside: Aside::All(error.to_string()),
                };
                Ok(Found {
                    table: begun.table([])?,
                    begun,
                    allowed: None,
                    programs: BTreeSet::new(),
                })
            }
            found => found,
        }
    }

    fn whole(
        inside: &Inside,
        policy: &EffectivePolicy,
        masked: &[Place],
        openers: Option<&Openers>,
        look: &Look,
    ) -> Result<Found, FilesError> {
        let listed = policy.programs.allowed.as_ref();
        let allowed = listed.map(|rules| Allowed::find(inside, rules));
        let allowed = allowed.transpose()?;
        let (mut rules, long) = named(policy, &text(inside.folder())?);
        let mut push = |path: &PathBuf, say| -> Result<(), FilesError> {
            let path = text(path)?;
            rules.push(Rule { path, say });
            Ok(())
        };
        for place in masked {
            push(&place.path, Say::Right(FileRight::Denied))?;
        }
        let mut programs = BTreeSet::new();
        for file in allowed.iter().flat_map(|allowed| &allowed.files) {
            push(file, Say::Execute)?;
            programs.insert(inode(inside, file, look)?);
        }
        for file in openers.iter().flat_map(|openers| &openers.files) {
            push(file, Say::Right(FileRight::ReadOnly))?;
        }
        for (path, say) in mounted::places(inside)? {
            // Of a mask nothing else is said.
            if !masked.iter().any(|place| place.path == path) {
                push(&path, say)?;
            }
        }
        let begun = Self {
            rules,
            namespace: inside.namespace()?,
            listed: allowed.is_some(),
            ruled: allowed.is_some()
                || !masked.is_empty()
                || !policy.files.is_empty()
                || openers.is_some(),
            aside: match long.is_empty() {
                true => Aside::Nothing,
                false => Aside::Long(long),
            },
        };
        Ok(Found {
            table: begun.table([])?,
            begun,
            allowed,
            programs,
        })
    }

    /// As the programs in the kernel take it, with these besides.
    pub fn table(&self, more: impl IntoIterator<Item = Rule>) -> Result<Table, FilesError> {
        let mut rules = self.rules.clone();
        rules.extend(more);
        Ok(Table::new(&rules, self.listed)?)
    }
}

/// Which file is at a place, as the programs in the kernel see it.
fn inode(inside: &Inside, file: &Path, look: &Look) -> Result<Inode, FilesError> {
    let there = inside.open(file);
    let there = there.map_err(io_error("open", shown(file)))?;
    let found = look.at(&there);
    let found = found.map_err(|error| FilesError::Kernel(error.to_string()))?;
    Ok(found.identity.file())
}

// === impl Aside ===

impl std::fmt::Display for Aside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nothing => f.write_str("all of it, for what comes later too"),
            Self::Long(paths) => write!(
                f,
                "all of it, for what comes later too, but what has a name of more than {MAX_NAME} bytes, which mounts alone hold: {}",
                paths.join(" ")
            ),
            Self::All(why) => write!(f, "nothing of it, which mounts alone hold: {why}"),
        }
    }
}

/// The rules about files with their paths from the root, where the workspace's folder is `folder`; and those that are left to mounts.
pub fn named(policy: &EffectivePolicy, folder: &[String]) -> (Vec<Rule>, Vec<String>) {
    let (mut named, mut long) = (Vec::new(), Vec::new());
    for (right, rule) in policy.files.all() {
        // The whole root is carried by its mounts, for what comes later too.
        if rule.path.is_root() {
            continue;
        }
        let mut path = match rule.path.is_from_root() {
            true => Vec::new(),
            false => folder.to_vec(),
        };
        let (fixed, pattern) = rule.path.split();
        let is_plain = pattern.is_empty() && right != FileRight::Writable;
        path.extend(fixed.into_iter().chain(pattern).map(str::to_owned));
        // What is writable has to be said: else a longer rule above it would not be.
        if is_plain && !table::spells(&path.iter().collect::<PathBuf>()) {
            long.push(rule.path.to_string());
            continue;
        }
        let say = Say::Right(right);
        named.push(Rule { path, say });
    }
    (named, long)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(files: &serde_json::Value) -> EffectivePolicy {
        let text =
            serde_json::json!({ "version": 1, "network": [{}], "gateway": {}, "files": files });
        EffectivePolicy::from_json(text.to_string().as_bytes()).unwrap()
    }

    fn rule(path: &str) -> serde_json::Value {
        let origin = serde_json::json!({ "file": "agentcontainer.json", "line": 1, "column": 1 });
        serde_json::json!({ "path": path, "origin": origin })
    }

    #[test]
    fn a_name_that_the_table_does_not_take_is_left_to_mounts_where_they_carry_it() {
        let (fits, long) = ("n".repeat(MAX_NAME), "n".repeat(MAX_NAME + 1));
        let of = |files| named(&policy(&files), &["w".to_owned()]);
        for (at, plain) in [
            ("denied", format!("a/{long}/b")),
            ("readOnly", long.clone()),
            ("denied", format!("/{long}")),
        ] {
            let (rules, aside) = of(serde_json::json!({ at: [rule(&plain), rule(&fits)] }));
            assert_eq!(aside, [plain]);
            assert_eq!(rules.len(), 1);
        }
        // Nobody else says these.
        for (at, path) in [("denied", format!("**/{long}")), ("writable", long)] {
            let (rules, aside) =
                of(serde_json::json!({ "readOnly": [rule("a/**")], at: [rule(&path)] }));
            assert!(aside.is_empty());
            assert!(Table::new(&rules, false).is_err(), "{path}");
        }
    }

    #[test]
    fn what_is_left_to_mounts_is_said() {
        assert_eq!(
            Aside::Nothing.to_string(),
            "all of it, for what comes later too"
        );
        let long = Aside::Long(vec!["a/b".into(), "c".into()]).to_string();
        assert!(long.ends_with("which mounts alone hold: a/b c"), "{long}");
        let all = Aside::All("too many".into()).to_string();
        assert_eq!(all, "nothing of it, which mounts alone hold: too many");
    }
}
