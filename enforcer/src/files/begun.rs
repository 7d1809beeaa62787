//! The rules of one container as the programs about files are told them, made while its init waits: what the policy says, and what mounts alone
//! hold besides, which a descriptor from outside would get round. Kept as they are for the next enforcer: what they were made from changes.

use std::path::PathBuf;

use policy::{EffectivePolicy, FileRight};
use serde::{Deserialize, Serialize};

use super::allowed::{Allowed, text};
use super::enter::Inside;
use super::openers::Openers;
use super::programs::Place;
use super::table::{Rule, Say, Table};
use super::{FilesError, mounted};

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
}

// === impl Begun ===

impl Begun {
    /// In the mount namespace of `pid`, where mounts hold already what they can: with what is masked there, and what may open secrets.
    pub fn find(
        pid: u32,
        network: (u64, u64),
        policy: &EffectivePolicy,
        masked: &[Place],
        openers: Option<&Openers>,
    ) -> Result<(Self, Option<Allowed>), FilesError> {
        let inside = Inside::of(pid, network)?;
        let listed = policy.programs.allowed.as_ref();
        let allowed = listed.map(|rules| Allowed::find(&inside, rules));
        let allowed = allowed.transpose()?;
        let mut rules = named(policy, &text(inside.folder())?);
        let mut push = |path: &PathBuf, say| -> Result<(), FilesError> {
            let path = text(path)?;
            rules.push(Rule { path, say });
            Ok(())
        };
        for place in masked {
            push(&place.path, Say::Right(FileRight::Denied))?;
        }
        for file in allowed.iter().flat_map(|allowed| &allowed.files) {
            push(file, Say::Execute)?;
        }
        for file in openers.iter().flat_map(|openers| &openers.files) {
            push(file, Say::Right(FileRight::ReadOnly))?;
        }
        for (path, say) in mounted::places(&inside)? {
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
        };
        Ok((begun, allowed))
    }

    /// As the programs in the kernel take it, with these besides.
    pub fn table(&self, more: impl IntoIterator<Item = Rule>) -> Result<Table, FilesError> {
        let mut rules = self.rules.clone();
        rules.extend(more);
        Ok(Table::new(&rules, self.listed)?)
    }
}

/// The rules about files with their paths from the root, where the workspace's folder is `folder`.
pub fn named(policy: &EffectivePolicy, folder: &[String]) -> Vec<Rule> {
    // The whole root is carried by its mounts, for what comes later too.
    let rules = policy.files.all().filter(|(_, rule)| !rule.path.is_root());
    let rules = rules.map(|(right, rule)| {
        let mut path = match rule.path.is_from_root() {
            true => Vec::new(),
            false => folder.to_vec(),
        };
        let (fixed, pattern) = rule.path.split();
        path.extend(fixed.into_iter().chain(pattern).map(str::to_owned));
        Rule {
            path,
            say: Say::Right(right),
        }
    });
    rules.collect()
}
