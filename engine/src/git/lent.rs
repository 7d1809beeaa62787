//! git inside a workspace whose repository lies outside it. The directory that all of its working trees have in common is there at one
//! place, the working tree's own at another; what git on the host would obey in either is covered by a copy of the session's or by
//! nothing, and the hooks by themselves, read-only. Of what a session could replace in them nothing is named as the source of a mount.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::before::Own;
use super::beneath::Dir;
use super::named::{self, Configs, From};
use super::outside::Outside;
use super::pointer::MAX_POINTER;
use super::{
    COMMONDIR, Doing, Facts, Git, MAX_CONFIG, Merged, Others, alternates, born, common, config,
    is_ours, kind, planted, remove_empty, worktrees_born, worktrees_of,
};
use crate::EngineError;
use crate::control;
use crate::look;
use crate::request::{LENT_COMMON, LENT_OWN, Mount};

/// In the session's directory: where the repository is.
const NOTE: &str = "git.outside";
/// The workspace's `.git`, as it is inside.
const POINTER: &str = "git.pointer";
/// An empty directory and an empty file.
const NOTHING: &str = "git.nothing";
const EMPTY: &str = "git.empty";
/// So many other working trees are told of, for git not to take their branches.
pub const MAX_TREES: usize = 256;
/// What git writes in place at nearly every commit and fetch in the main working tree, through whatever lies there: it is made.
const HELD: [&str; 2] = ["COMMIT_EDITMSG", "FETCH_HEAD"];
/// What the main working tree has of its own, where it is there: nobody's inside.
const MAINS: [&str; 14] = [
    "AUTO_MERGE",
    "BISECT_LOG",
    "CHERRY_PICK_HEAD",
    "COMMIT_EDITMSG",
    "FETCH_HEAD",
    "MERGE_HEAD",
    "MERGE_MODE",
    "MERGE_MSG",
    "MERGE_RR",
    "ORIG_HEAD",
    "REVERT_HEAD",
    "SQUASH_MSG",
    "gc.log",
    "index",
];
/// What the main working tree is told of by.
const MAIN: &str = "main-working-tree";

/// Between what and where.
pub struct Place<'a> {
    pub workspace: &'a Path,
    /// The workspace inside.
    pub target: &'a str,
    pub session_dir: &'a Path,
    pub owner: (u32, u32),
}

/// What a session has of a repository outside.
#[derive(Debug, Serialize, Deserialize)]
pub struct Lent {
    pub outside: Outside,
    /// What was not there and is this working tree's alone.
    absent: Vec<PathBuf>,
    /// What all working trees have in common: what it is, and when it was made.
    #[serde(default)]
    known: Option<((u64, u64), u64)>,
    /// As the first of the sessions found the repository.
    #[serde(default)]
    facts: Facts,
}

// === impl Lent ===

impl Lent {
    /// Whether a repository is what this working tree alone has.
    pub fn is_own(&self, path: &Path) -> bool {
        !self.outside.is_submodule() && path.starts_with(&self.outside.own)
    }

    /// Whether what lies at its path is the directory that the session had.
    pub fn is_there(&self) -> bool {
        let there = Dir::open(&self.outside.common);
        there.is_ok_and(|dir| {
            self.known
                .is_none_or(|known| known == (identity(&dir, "."), made(&dir, ".")))
        })
    }

    /// Puts aside what a session made and git on the host would obey in its working tree, and takes away what held a place.
    pub fn finish(
        &self,
        workspace: &Path,
        others: Others,
        merged: &mut Merged,
    ) -> Result<(), EngineError> {
        if !others.workspace {
            let roots = [workspace, &self.outside.common, &self.outside.own];
            planted::put_absent_aside(&roots, &self.absent, merged)?;
            remove_empty(&self.outside.own.join("config.worktree"));
        }
        if others.workspace || others.repository {
            return Ok(());
        }
        for name in HELD {
            remove_empty(&self.outside.common.join(name));
        }
        let worktrees = self.outside.common.join("worktrees");
        if !self.outside.is_submodule() || worktrees.symlink_metadata().is_err() {
            return Ok(());
        }
        // Where it is another than the one that was covered, git on the host took that away, and this one came of a session.
        if !self.facts.holds_worktrees(&self.outside.common) {
            let aside = planted::put_aside(&worktrees);
            let aside = aside.map_err(EngineError::io("put aside", &worktrees))?;
            merged.left_out.push(format!(
                "{}, which leads git here to working trees; it is now {}",
                worktrees.display(),
                aside.display()
            ));
        }
        // Only where nothing is in it.
        let _ = fs::remove_dir(&worktrees);
        Ok(())
    }
}

pub fn of(session_dir: &Path) -> Option<Lent> {
    let bytes = fs::read(session_dir.join(NOTE)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Makes ready what the mounts need, and keeps in mind what the repository was like.
pub fn prepare(
    place: &Place<'_>,
    outside: &Outside,
    masks: &[&str],
    doing: Doing,
) -> Result<Git, EngineError> {
    let seen = look::through(&outside.common, look::MAX_ENTRIES);
    let mut lending = Lending {
        place,
        outside,
        common: open(&outside.common)?,
        own: open(&outside.own)?,
        doing,
        absent: Vec::new(),
        git: Git {
            doors: seen.doors.clone(),
            closed: seen.closed.clone(),
            ..Git::default()
        },
    };
    let own = lending.lend(masks)?;
    let git = lending.git;
    if doing == Doing::Write {
        let facts = own.facts.clone();
        let before = super::begin(&outside.common, place.session_dir, &seen, Some(own))?;
        let lent = Lent {
            outside: outside.clone(),
            absent: lending.absent,
            known: Some((identity(&lending.common, "."), made(&lending.common, "."))),
            facts: before.own.map_or(facts, |own| own.facts),
        };
        let note = serde_json::to_vec(&lent).unwrap_or_default();
        doing.write(&place.session_dir.join(NOTE), &note, 0o600)?;
    }
    Ok(git)
}

fn open(path: &Path) -> Result<Dir, EngineError> {
    Dir::open(path).map_err(EngineError::io("open", path))
}

struct Lending<'a> {
    place: &'a Place<'a>,
    outside: &'a Outside,
    common: Dir,
    own: Dir,
    doing: Doing,
    absent: Vec<PathBuf>,
    git: Git,
}

// === impl Lending ===

impl Lending<'_> {
    fn lend(&mut self, masks: &[&str]) -> Result<Own, EngineError> {
        let (place, outside) = (self.place, self.outside);
        let config = outside.common.join("config");
        let base = self.text(&self.common, &config, "config")?;
        let base = base.unwrap_or_default();
        let parsed = config::parse(&base);
        let per_tree = parsed.get("extensions", None, "worktreeconfig").is_some();
        self.directory("worktrees")?;
        let mut facts = Facts {
            config: identity(&self.common, "config"),
            born: made(&self.common, "config"),
            config_worktree: true,
            shallow: self.common.metadata("shallow").is_ok(),
            worktrees: worktrees_of(&outside.common),
            worktrees_born: worktrees_born(&outside.common),
            modules: self.common.is_dir("modules"),
            absent: alternates(&outside.common).into_iter().collect(),
        };
        facts.absent.extend(self.configured(&base)?);

        self.repository(&outside.common, LENT_COMMON, false);
        self.hooks()?;
        // Nobody's but the host's: the copy that git works with inside lies elsewhere.
        self.copy("config", LENT_COMMON, "config", &base)?;
        self.tree_config(true, per_tree)?;
        self.hide(true, LENT_COMMON, &["modules", "worktrees"])?;
        let holder = outside.common.join("commondir");
        if kind(&holder)?.is_none() {
            self.doing.write(&holder, COMMONDIR.as_bytes(), 0o644)?;
        } else if !is_ours(&holder) {
            return Err(EngineError::io("lend", &holder)(io::Error::other(
                "it leads elsewhere",
            )));
        }
        let at = if outside.is_submodule() {
            LENT_COMMON
        } else {
            self.copy("commondir.common", LENT_COMMON, "commondir", COMMONDIR)?;
            self.main_tree()?;
            self.repository(&outside.own, LENT_OWN, false);
            self.hide(false, LENT_OWN, &["modules"])?;
            let back = format!("{}/.git\n", place.target);
            self.copy("gitdir", LENT_OWN, "gitdir", &back)?;
            self.tree_config(false, per_tree)?;
            LENT_OWN
        };
        let pointer = place.session_dir.join(POINTER);
        let text = format!("gitdir: {at}\n");
        self.doing.write_readable(&pointer, &text)?;
        if self.doing == Doing::Write {
            common::hand_over(&pointer, place.owner)
                .map_err(EngineError::io("hand over", &pointer))?;
        }
        self.session(&pointer, format!("{}/.git", place.target), true);
        let is_bare = parsed.get("core", None, "bare") == Some("true");
        let trees = self.trees(!is_bare);
        let led = common::make(
            &common::Place {
                dot_git: &outside.common,
                inside: LENT_COMMON,
                from: at,
                session_dir: place.session_dir,
                owner: place.owner,
                trees: &trees,
            },
            &base,
            masks,
            self.doing,
        )?;
        self.git.mounts.extend(led);
        let shown = outside.common.display();
        self.git.notes.push(format!(
            "the repository lies outside the workspace, in {shown}: what git commits inside is there at once; leave git that writes alone in its other working trees until the session ends"
        ));
        let hooks = identity(&self.common, "hooks");
        Ok(Own {
            at: Some(outside.common.clone()),
            config: base,
            facts,
            hooks: (hooks != (0, 0)).then_some(hooks),
        })
    }

    /// What the configuration names of the workspace: as in a repository that lies there. And what it names in the repository, by accident,
    /// where nothing is.
    fn configured(&mut self, base: &str) -> Result<Vec<PathBuf>, EngineError> {
        const NAME: &str = "config.worktree";
        let (workspace, outside) = (self.place.workspace, self.outside);
        let mut texts = vec![(outside.common.as_path(), base.to_owned())];
        for (dir, at) in [(&self.common, &outside.common), (&self.own, &outside.own)] {
            if let Some(text) = self.text(dir, &at.join(NAME), NAME)? {
                texts.push((at, text));
            }
        }
        let own = texts.iter().map(|(at, text)| From::of(text, at));
        let configs = Configs::of(own.collect()).whole()?;
        for path in named::in_workspace(&configs, workspace) {
            if kind(&path)?.is_none() {
                self.absent.push(path);
            } else {
                control::pin(&mut self.git.mounts, workspace, self.place.target, &path);
            }
        }
        if !outside.is_submodule() {
            self.absent
                .extend(named::in_git_dir(&configs, &outside.own));
        }
        Ok(named::in_git_dir(&configs, &outside.common))
    }

    fn hooks(&mut self) -> Result<(), EngineError> {
        self.directory("hooks")?;
        let hooks = self.outside.common.join("hooks");
        self.repository(&hooks, &format!("{LENT_COMMON}/hooks"), true);
        Ok(())
    }

    /// One that holds a place of its own: made where it is not there.
    fn directory(&self, name: &str) -> Result<(), EngineError> {
        let path = self.outside.common.join(name);
        if kind(&path)?.is_none() && self.doing == Doing::Write {
            fs::create_dir(&path).map_err(EngineError::io("create", &path))?;
            self.give(&path)?;
        }
        Ok(())
    }

    /// An empty file that holds a place.
    fn hold(&self, path: &Path) -> Result<(), EngineError> {
        self.doing.write(path, b"", 0o644)?;
        match self.doing {
            Doing::Look => Ok(()),
            Doing::Write => self.give(path),
        }
    }

    /// What is made in the repository is whose that is.
    fn give(&self, path: &Path) -> Result<(), EngineError> {
        let meta = self.common.own_metadata();
        let meta = meta.map_err(EngineError::io("inspect", &self.outside.common))?;
        let _ = std::os::unix::fs::lchown(path, Some(meta.uid()), Some(meta.gid()));
        Ok(())
    }

    /// A working tree's configuration, for git to read. One that is not there is made: git would obey it as soon as somebody switches such
    /// files on.
    fn tree_config(&mut self, of_common: bool, per_tree: bool) -> Result<(), EngineError> {
        const NAME: &str = "config.worktree";
        let (dir, path, at) = match of_common {
            true => (&self.common, self.outside.common.join(NAME), LENT_COMMON),
            false => (&self.own, self.outside.own.join(NAME), LENT_OWN),
        };
        let found = self.text(dir, &path, NAME)?;
        if found.is_none() {
            self.hold(&path)?;
        }
        let mut text = found.unwrap_or_default();
        if self.outside.is_submodule() && per_tree {
            // The last word counts: where the working tree is inside.
            text.push_str(&format!("\n[core]\n\tworktree = {}\n", self.place.target));
        }
        let name = if of_common { "tree.common" } else { "tree" };
        self.copy(name, at, NAME, &text)?;
        Ok(())
    }

    /// The main working tree's own, which is no other's.
    fn main_tree(&mut self) -> Result<(), EngineError> {
        if let Some(head) = self.head(&self.common, "HEAD") {
            self.copy("HEAD", LENT_COMMON, "HEAD", &format!("{head}\n"))?;
        }
        let empty = self.place.session_dir.join(EMPTY);
        self.doing.write_readable(&empty, "")?;
        for name in HELD {
            let path = self.outside.common.join(name);
            if kind(&path)?.is_none() {
                self.hold(&path)?;
            }
        }
        let there = MAINS.iter().filter(|name| {
            let is_made = self.doing == Doing::Look && HELD.contains(name);
            is_made || self.common.metadata(name).is_ok_and(|meta| meta.is_file())
        });
        for name in there.copied().collect::<Vec<_>>() {
            self.session(&empty, format!("{LENT_COMMON}/{name}"), true);
        }
        Ok(())
    }

    /// Directories with repositories of others, or configuration of other working trees.
    fn hide(&mut self, of_common: bool, at: &str, names: &[&str]) -> Result<(), EngineError> {
        for name in names {
            let dir = if of_common { &self.common } else { &self.own };
            if !dir.is_dir(name) {
                continue;
            }
            let nothing = self.place.session_dir.join(NOTHING);
            if self.doing == Doing::Write && nothing.symlink_metadata().is_err() {
                self.doing.make_readable(&nothing)?;
            }
            self.session(&nothing, format!("{at}/{name}"), true);
        }
        Ok(())
    }

    /// The branches that other working trees have, as far as they can be read.
    fn trees(&self, has_main: bool) -> Vec<common::Tree> {
        if self.outside.is_submodule() {
            return Vec::new();
        }
        let mut trees = Vec::new();
        let main = self.outside.common.display().to_string();
        if let (true, Some(head)) = (has_main, self.head(&self.common, "HEAD")) {
            trees.push(common::Tree {
                name: MAIN.to_owned(),
                head,
                at: main,
            });
        }
        let entries = fs::read_dir(self.outside.common.join("worktrees"));
        for entry in entries.into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if trees.len() >= MAX_TREES || self.outside.own.ends_with(&name) || name == MAIN {
                continue;
            }
            let head = self.head(&self.common, &format!("worktrees/{name}/HEAD"));
            let at = self.head(&self.common, &format!("worktrees/{name}/gitdir"));
            if let (Some(head), Some(at)) = (head, at) {
                trees.push(common::Tree { name, head, at });
            }
        }
        trees
    }

    /// One line of a file.
    fn head(&self, dir: &Dir, name: &str) -> Option<String> {
        let text = dir.text(name, MAX_POINTER).ok()??;
        let line = text.trim();
        (!line.is_empty() && !line.contains(char::is_control)).then(|| line.to_owned())
    }

    fn text(&self, dir: &Dir, path: &Path, name: &str) -> Result<Option<String>, EngineError> {
        dir.text(name, MAX_CONFIG)
            .map_err(EngineError::io("read", path))
    }

    /// A file of the session's in place of one that git on the host reads.
    fn copy(&mut self, own: &str, at: &str, name: &str, text: &str) -> Result<(), EngineError> {
        let path = self.place.session_dir.join(format!("git.lent.{own}"));
        self.doing.write_readable(&path, text)?;
        self.session(&path, format!("{at}/{name}"), true);
        Ok(())
    }

    fn session(&mut self, source: &Path, target: String, read_only: bool) {
        self.git.mounts.push(Mount::Session {
            source: source.display().to_string(),
            target,
            read_only,
        });
    }

    fn repository(&mut self, source: &Path, target: &str, read_only: bool) {
        self.git.mounts.push(Mount::Repository {
            source: source.display().to_string(),
            target: target.to_owned(),
            read_only,
        });
    }
}

fn identity(dir: &Dir, name: &str) -> (u64, u64) {
    let meta = dir.metadata(name);
    meta.map_or((0, 0), |meta| super::identity(&meta))
}

fn made(dir: &Dir, name: &str) -> u64 {
    dir.metadata(name).map_or(0, |meta| born(&meta))
}

#[cfg(test)]
#[path = "lent/tests.rs"]
mod tests;
