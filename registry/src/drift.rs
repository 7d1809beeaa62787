//! What a pin says and does, as far as it can be told without running it, and what of that another digest says and does
//! differently. Facts are pairs of a name and a text under an aspect; how much a difference matters depends on the aspect and
//! on whether something came, went or changed. `drift`, `lock --update` and a policy's threshold are about this alone.

mod files;
mod image;
mod source;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use schema::digest::Digest;
use schema::organisation::Grade;
use serde::Serialize;

/// The most facts of one pin: packages are the most of them, and an inventory has its own bound.
pub const MAX_FACTS: usize = 150_000;
/// The longest text of a fact, in bytes; of a longer one its digest is kept.
pub const MAX_TEXT_BYTES: usize = 256 * 1024;
/// The most of all texts of a pin, in bytes; of the rest their digests are kept.
pub const MAX_TEXTS_BYTES: usize = 16 * 1024 * 1024;

/// The fact that has the digests of an image's layers.
const LAYERS: &str = "layers";

/// What the facts begin with that have the digests of other platforms' manifests.
const OTHER_PLATFORM: &str = "platform ";

/// So much of one fact is kept sorted and without repetitions.
const MAX_UNITED_BYTES: usize = 4096;

/// What a fact is about, in the order in which people are shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aspect {
    /// Words that a model follows: a skill's text, a tool's description.
    Instruction,
    /// What is executed: install scripts, an image's entry point, lifecycle commands.
    Script,
    /// What it asks for beyond being there: users, devices, mounts, ports.
    Capability,
    Package,
    /// Who vouched for it, where somebody is required to.
    Signer,
    Environment,
    /// Everything else that has a digest.
    Content,
}

impl Aspect {
    const ALL: [Self; 7] = [
        Self::Instruction,
        Self::Script,
        Self::Capability,
        Self::Package,
        Self::Signer,
        Self::Environment,
        Self::Content,
    ];
}

/// What came of a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

/// Everything that is known of one pin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    known: BTreeMap<(Aspect, String), String>,
    /// Nothing that its publisher stands by lists what its content holds.
    unlisted: bool,
    /// Bytes of texts that are kept.
    kept: usize,
}

/// One thing that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub aspect: Aspect,
    pub name: String,
    pub change: Change,
    pub grade: Grade,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// There is more to know of a pin than is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it has more than {MAX_FACTS} files, packages and settings")]
pub struct TooMany;

// === impl Facts ===

impl Facts {
    /// Adds what an image's configuration says.
    ///
    /// # Errors
    /// In words: it is none, or says more than is kept.
    pub fn add_configuration(&mut self, bytes: &[u8]) -> Result<(), String> {
        image::facts(bytes, self)
    }

    /// Adds one; of several under one name the texts are kept as lines, in their order.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn add(
        &mut self,
        aspect: Aspect,
        name: impl Into<String>,
        text: impl Into<String>,
    ) -> Result<(), TooMany> {
        let text = self.within(text.into());
        let count = self.known.len();
        match self.known.entry((aspect, name.into())) {
            Entry::Vacant(_) if count == MAX_FACTS => return Err(TooMany),
            Entry::Vacant(entry) => {
                entry.insert(text);
            }
            Entry::Occupied(mut entry) => {
                let whole = entry.get_mut();
                whole.push('\n');
                whole.push_str(&text);
                if whole.len() > MAX_TEXT_BYTES {
                    *whole = Digest::of(whole.as_bytes()).to_string();
                }
            }
        }
        Ok(())
    }

    /// Adds one of several that have no order and may be told twice: versions of a package.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn unite(&mut self, aspect: Aspect, name: String, text: &str) -> Result<(), TooMany> {
        let key = (aspect, name);
        match self.known.get_mut(&key) {
            // Beyond a page of versions of one package nobody compares them by eye.
            Some(whole) if whole.len() <= MAX_UNITED_BYTES => {
                let all: BTreeSet<&str> = whole.lines().chain([text]).collect();
                *whole = all.into_iter().collect::<Vec<_>>().join("\n");
                Ok(())
            }
            _ => self.add(aspect, key.1, text),
        }
    }

    /// In place of what an earlier one said under that name, whatever aspect it had: of two layers' files the later one counts.
    ///
    /// # Errors
    /// [`TooMany`]
    pub fn replace(&mut self, aspect: Aspect, name: &str, text: String) -> Result<(), TooMany> {
        for other in Aspect::ALL {
            self.known.remove(&(other, name.to_owned()));
        }
        self.add(aspect, name, text)
    }

    /// A text as it is, or its digest: too long, or beyond what is kept of all of them.
    fn within(&mut self, text: String) -> String {
        if text.len() > MAX_TEXT_BYTES || self.kept + text.len() > MAX_TEXTS_BYTES {
            return Digest::of(text.as_bytes()).to_string();
        }
        self.kept += text.len();
        text
    }

    /// That nothing lists the packages in it: then what its content holds may be anything.
    pub fn nothing_listed(&mut self) {
        self.unlisted = true;
    }

    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What `now` says or does that this did not, and the other way round: what matters most first, then by aspect and name.
    pub fn compare(&self, now: &Self) -> Vec<Difference> {
        let unlisted = self.unlisted || now.unlisted;
        let mut out = Vec::new();
        let mut differs =
            |key: &(Aspect, String), before: Option<&String>, after: Option<&String>| {
                let change = match (before, after) {
                    (None, _) => Change::Added,
                    (_, None) => Change::Removed,
                    (Some(before), Some(after)) if before != after => Change::Changed,
                    _ => return,
                };
                out.push(Difference {
                    aspect: key.0,
                    name: key.1.clone(),
                    change,
                    grade: grade(key.0, &key.1, change, unlisted),
                    before: before.cloned(),
                    after: after.cloned(),
                });
            };
        for (key, before) in &self.known {
            differs(key, Some(before), now.known.get(key));
        }
        for (key, after) in &now.known {
            if !self.known.contains_key(key) {
                differs(key, None, Some(after));
            }
        }
        out.sort_by(|a, b| (b.grade, a.aspect, &a.name).cmp(&(a.grade, b.aspect, &b.name)));
        out
    }
}

/// The most that any of them matters; nothing where there is none.
pub fn worst(differences: &[Difference]) -> Option<Grade> {
    differences.iter().map(|one| one.grade).max()
}

/// SPEC's table of grades.
fn grade(aspect: Aspect, name: &str, change: Change, unlisted: bool) -> Grade {
    match (aspect, change) {
        (Aspect::Instruction | Aspect::Script, Change::Added | Change::Changed) => Grade::High,
        (Aspect::Instruction | Aspect::Script, Change::Removed) => Grade::Medium,
        (Aspect::Capability, Change::Added | Change::Changed) => Grade::High,
        (Aspect::Capability, Change::Removed) => Grade::Low,
        (Aspect::Signer, Change::Added) => Grade::Low,
        (Aspect::Signer, Change::Changed | Change::Removed) => Grade::High,
        (Aspect::Package, Change::Added) => Grade::Medium,
        (Aspect::Package, Change::Changed | Change::Removed) => Grade::Low,
        (Aspect::Environment, Change::Added | Change::Changed) if is_obeyed(name) => Grade::High,
        (Aspect::Environment, Change::Added | Change::Changed) => Grade::Medium,
        (Aspect::Environment, Change::Removed) => Grade::Low,
        (Aspect::Content, _) if unlisted && name == LAYERS => Grade::Medium,
        // Nobody has looked into those here.
        (Aspect::Content, _) if name.starts_with(OTHER_PLATFORM) => Grade::Medium,
        (Aspect::Content, _) => Grade::Low,
    }
}

/// Variables that say which program runs, or what runs in it before its own first instruction.
fn is_obeyed(name: &str) -> bool {
    const NAMES: [&str; 16] = [
        "PATH",
        "ENV",
        "BASH_ENV",
        "PROMPT_COMMAND",
        "SHELL",
        "EDITOR",
        "PAGER",
        "NODE_OPTIONS",
        "NODE_PATH",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "RUSTC_WRAPPER",
        "SSLKEYLOGFILE",
    ];
    NAMES.contains(&name)
        || [
            "LD_",
            "PYTHON",
            "GIT_",
            "DOTNET_",
            "NPM_CONFIG_",
            "npm_config_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests;
