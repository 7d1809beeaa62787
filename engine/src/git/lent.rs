//! git inside a workspace whose repository lies outside it. Nothing of that repository can be written inside: its objects and hooks are
//! there to be read, and what git writes goes into a directory of the session's, which begins with the same references, HEAD and index.
//! When the session ends, objects that are new are copied, and references move that nobody moved here meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use schema::digest::Digest;
use serde::{Deserialize, Serialize};

use super::outside::Outside;
use super::refs::{self, Refs};
use super::{
    Doing, Git, Merged, NOFOLLOW, NONBLOCK, common, config, config_paths, kind, read_config,
};
use crate::EngineError;
use crate::control;
use crate::request::{LENT_HOOKS, LENT_OBJECTS, Mount};

/// In the session's directory.
const POINTER: &str = "git.pointer";
const FACTS: &str = "git.lent";
/// The largest index that is copied, in bytes.
pub const MAX_INDEX: u64 = 256 * 1024 * 1024;
/// What waits in a working tree to be gone on with, and is not copied.
const WAITING: [&str; 5] = [
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "rebase-merge",
    "rebase-apply",
];

/// What git wants to be there.
const DIRECTORIES: [&str; 8] = [
    "",
    "info",
    "objects",
    "objects/info",
    "objects/pack",
    "refs",
    "refs/heads",
    "logs",
];

/// How it was when the session began.
#[derive(Debug, Serialize, Deserialize)]
struct Given {
    outside: Outside,
    refs: Refs,
    head: String,
    index: Option<Digest>,
    /// Of the workspace, named by the configuration and not there.
    absent: Vec<PathBuf>,
}

/// Between what and where.
pub struct Place<'a> {
    pub workspace: &'a Path,
    /// The workspace inside.
    pub target: &'a str,
    pub session_dir: &'a Path,
    pub owner: (u32, u32),
}

/// Makes the session's directory, and says how all of it is mounted.
pub fn make(
    place: &Place<'_>,
    outside: Outside,
    masks: &[&str],
    doing: Doing,
) -> Result<Git, EngineError> {
    let base = read_config(&outside.common.join("config"))?;
    let parsed = config::parse(&base);
    let mut git = Git::default();
    let mut absent = Vec::new();
    for path in config_paths(&parsed, place.workspace, &outside.common) {
        if path.strip_prefix(place.workspace).is_err() {
            continue;
        }
        if kind(&path)?.is_none() {
            absent.push(path);
        } else {
            control::pin(&mut git.mounts, place.workspace, place.target, &path);
        }
    }
    let shown = outside.common.display().to_string();
    git.notes.push(format!(
        "the repository lies outside ({shown}): git works inside on a copy of what this working tree has, and commits, branches and tags come back when the session ends"
    ));
    let waiting = WAITING.iter().find(|name| outside.own.join(name).exists());
    if let Some(name) = waiting {
        git.notes.push(format!(
            "{name} of this working tree is not there inside: finish that here, or begin it again"
        ));
    }
    let directory = common::directory(place.session_dir);
    let pointer = place.session_dir.join(POINTER);
    if doing == Doing::Write {
        const MAKE: &str = "make git's directory for the session";
        let refs = refs::read(&outside.common)?;
        fill(place, &outside, &directory, &base, &refs, masks)
            .map_err(EngineError::io(MAKE, &directory))?;
        fs::write(&pointer, format!("gitdir: {}\n", common::TARGET))
            .and_then(|()| common::hand_over(&pointer, place.owner))
            .map_err(EngineError::io(MAKE, &pointer))?;
        let given = Given {
            head: head(&outside.own).unwrap_or_default(),
            index: digest(&outside.own.join("index")),
            refs,
            absent,
            outside: outside.clone(),
        };
        let text = serde_json::to_vec(&given).unwrap_or_default();
        doing.write(&place.session_dir.join(FACTS), &text, 0o600)?;
    }
    git.mounts.extend([
        Mount::Session {
            source: directory.display().to_string(),
            target: common::TARGET.to_owned(),
            read_only: false,
        },
        Mount::Session {
            source: pointer.display().to_string(),
            target: format!("{}/.git", place.target),
            read_only: true,
        },
        Mount::Lent {
            source: outside.common.join("objects").display().to_string(),
            target: LENT_OBJECTS.to_owned(),
        },
    ]);
    let hooks = outside.common.join("hooks");
    if hooks.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
        git.mounts.push(Mount::Lent {
            source: hooks.display().to_string(),
            target: LENT_HOOKS.to_owned(),
        });
    }
    Ok(git)
}

fn fill(
    place: &Place<'_>,
    outside: &Outside,
    directory: &Path,
    base: &str,
    refs: &Refs,
    masks: &[&str],
) -> io::Result<()> {
    let mut given = base.to_owned();
    if let Ok(text) = read_config(&outside.own.join("config.worktree")) {
        given.push_str(&format!("\n{text}"));
    }
    // The last word counts: where the working tree is inside.
    given.push_str(&format!(
        "\n[core]\n\tbare = false\n\tworktree = {}\n",
        place.target
    ));
    fs::write(place.session_dir.join(common::GIVEN), &given)?;
    for name in DIRECTORIES {
        fs::create_dir(directory.join(name))?;
    }
    fs::write(directory.join("config"), &given)?;
    fs::write(
        directory.join("objects/info/alternates"),
        format!("{LENT_OBJECTS}\n"),
    )?;
    let mut packed = "# pack-refs with: sorted \n".to_owned();
    for (name, id) in refs {
        packed.push_str(&format!("{id} {name}\n"));
    }
    fs::write(directory.join("packed-refs"), packed)?;
    let exclude = fs::read(outside.common.join("info/exclude")).unwrap_or_default();
    let excluded = [exclude.as_slice(), common::excludes_of(masks).as_bytes()].concat();
    fs::write(directory.join("info/exclude"), excluded)?;
    let mut made = vec![
        "config",
        "objects/info/alternates",
        "packed-refs",
        "info/exclude",
    ];
    let copied = [
        (&outside.own, "HEAD"),
        (&outside.own, "index"),
        (&outside.own, "info/sparse-checkout"),
        (&outside.common, "info/attributes"),
        (&outside.common, "shallow"),
    ];
    for (from, name) in copied {
        let from = from.join(name);
        let Ok(meta) = from.symlink_metadata() else {
            continue;
        };
        if !meta.is_file() || meta.len() > MAX_INDEX {
            return Err(io::Error::other(format!(
                "{} is no file, or too large",
                from.display()
            )));
        }
        fs::write(directory.join(name), fs::read(&from)?)?;
        made.push(name);
    }
    for name in DIRECTORIES.into_iter().chain(made) {
        common::hand_over(&directory.join(name), place.owner)?;
    }
    Ok(())
}

/// Brings back what a session made. The container is gone: nobody changes its directory any more.
pub fn finish(session_dir: &Path, merged: &mut Merged) -> Result<(), EngineError> {
    let Some(given) = fs::read(session_dir.join(FACTS))
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Given>(&bytes).ok())
    else {
        return Ok(());
    };
    super::put_absent_aside(&given.absent, merged)?;
    let back = Back {
        from: common::directory(session_dir),
        given: &given,
    };
    // Where that cannot be done, the session's directory stays as it is, to be asked for it again.
    back.bring(merged)?;
    // In place: a session of the repository's own may have the file mounted.
    if let Err(e) = super::merge(&given.outside.common, session_dir, true, merged) {
        merged.left_out.push(format!("its configuration: {e}"));
    }
    Ok(())
}

/// What comes back.
struct Back<'g> {
    from: PathBuf,
    given: &'g Given,
}

// === impl Back ===

impl Back<'_> {
    fn bring(&self, merged: &mut Merged) -> Result<(), EngineError> {
        let Outside { own, common } = &self.given.outside;
        for place in [own, common] {
            if fs::canonicalize(place).ok().as_ref() != Some(place) {
                merged.left_out.push(format!(
                    "all of it: {} is not there any more",
                    place.display()
                ));
                return Ok(());
            }
        }
        // What is wrong with what the session made is said, and ends it; what is wrong here is an error, and it can be asked for again.
        let theirs = match refs::read(&self.from) {
            Ok(theirs) => theirs,
            Err(e) => {
                merged.left_out.push(format!("all of it: {e}"));
                return Ok(());
            }
        };
        let now = refs::read(common)?;
        let session_head = head(&self.from);
        let moved = theirs != self.given.refs;
        if moved || session_head.as_ref() != Some(&self.given.head) {
            let whole = objects(&self.from.join("objects"), &common.join("objects"))
                .map_err(EngineError::io("copy objects to", common))?;
            if !whole {
                let why = "all of it: what it committed cannot be read";
                merged.left_out.push(why.to_owned());
                return Ok(());
            }
        }
        let elsewhere = checked_out_elsewhere(&self.given.outside);
        let mut settled = now.clone();
        for (name, id) in &theirs {
            let before = self.given.refs.get(name);
            if before == Some(id) || now.get(name) == Some(id) {
                continue;
            }
            let why = if !refs::is_shared(name) {
                "is no branch, tag or remote's".to_owned()
            } else if now.get(name) != before {
                "was moved here meanwhile".to_owned()
            } else if elsewhere.contains(name) {
                "is what another working tree has checked out".to_owned()
            } else if let Err(e) = put(common, name, id) {
                format!("cannot be written ({e})")
            } else {
                settled.insert(name.clone(), id.clone());
                merged.applied.push(format!("{name} at {id}"));
                continue;
            };
            merged
                .left_out
                .push(format!("{name}, which {why}; the session's is {id}"));
        }
        for name in self
            .given
            .refs
            .keys()
            .filter(|name| !theirs.contains_key(*name))
        {
            merged.left_out.push(format!(
                "that {name} was deleted; `git branch -D` or `git tag -d` does it here"
            ));
        }
        let Some(session_head) = session_head else {
            merged
                .left_out
                .push("HEAD, which is none any more".to_owned());
            return Ok(());
        };
        let branch = session_head.strip_prefix("ref: ");
        let agrees = branch.is_none_or(|branch| settled.get(branch) == theirs.get(branch));
        if session_head != self.given.head && head(own).as_ref() != Some(&session_head) {
            let is_good = match branch {
                Some(branch) => {
                    refs::is_shared(branch)
                        && branch.starts_with("refs/heads/")
                        && !elsewhere.contains(branch)
                }
                None => refs::is_id(&session_head),
            };
            if !is_good || !agrees || head(own).as_ref() != Some(&self.given.head) {
                merged.left_out.push(format!("HEAD at {session_head}"));
                return Ok(());
            }
            put(own, "HEAD", &session_head).map_err(EngineError::io("write", own.join("HEAD")))?;
            merged.applied.push(format!("HEAD at {session_head}"));
        }
        self.index(agrees, merged)
    }

    /// The index is about HEAD: it comes back with it or not at all.
    fn index(&self, agrees: bool, merged: &mut Merged) -> Result<(), EngineError> {
        let own = self.given.outside.own.join("index");
        let theirs = self.from.join("index");
        let (made, here) = (digest(&theirs), digest(&own));
        if made == self.given.index || made == here {
            return Ok(());
        }
        if !agrees || made.is_none() || here != self.given.index {
            merged
                .left_out
                .push("the index; `git reset` makes it anew".to_owned());
            return Ok(());
        }
        copy(&theirs, &own, 0o644, true)
            .map(|_| ())
            .map_err(EngineError::io("write", &own))
    }
}

/// Branches that working trees other than this one have checked out.
fn checked_out_elsewhere(outside: &Outside) -> BTreeSet<String> {
    let mut places = vec![outside.common.clone()];
    if let Ok(entries) = fs::read_dir(outside.common.join("worktrees")) {
        places.extend(entries.flatten().map(|entry| entry.path()));
    }
    places
        .iter()
        .filter(|place| **place != outside.own)
        .filter_map(|place| head(place)?.strip_prefix("ref: ").map(str::to_owned))
        .collect()
}

fn head(dir: &Path) -> Option<String> {
    let text = read_config(&dir.join("HEAD")).ok()?;
    let text = text.trim().to_owned();
    (text.len() <= 1024 && !text.is_empty()).then_some(text)
}

/// Of a file that is no link and not too long.
fn digest(path: &Path) -> Option<Digest> {
    super::read_at_most(path, MAX_INDEX)
        .ok()
        .map(|bytes| Digest::of(&bytes))
}

/// That a directory is one, and no link to another: what was planted in a repository leads nothing out of it.
fn real(dir: &Path) -> io::Result<()> {
    match dir.symlink_metadata()?.is_dir() {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{} is no directory",
            dir.display()
        ))),
    }
}

/// A reference, under git's own lock.
fn put(dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let path = dir.join(name);
    let owner = dir.symlink_metadata()?;
    let mut above = dir.to_owned();
    for part in Path::new(name)
        .parent()
        .into_iter()
        .flat_map(Path::components)
    {
        above.push(part);
        if above.symlink_metadata().is_err() {
            fs::create_dir(&above)?;
            let _ = std::os::unix::fs::lchown(&above, Some(owner.uid()), Some(owner.gid()));
        }
        real(&above)?;
    }
    let lock = PathBuf::from(format!("{}.lock", path.display()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&lock)?;
    let done = io::Write::write_all(&mut file, format!("{text}\n").as_bytes())
        .map(|()| std::os::unix::fs::lchown(&lock, Some(owner.uid()), Some(owner.gid())))
        .and_then(|_| fs::rename(&lock, &path));
    if done.is_err() {
        let _ = fs::remove_file(&lock);
    }
    done
}

/// Copies objects that are not there: loose ones and packs, by names that are nothing else. Whether all could be read.
fn objects(from: &Path, to: &Path) -> io::Result<bool> {
    let is_hex = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    real(to)?;
    for (name, dir) in directories(from) {
        let is_fan = name.len() == 2 && is_hex(&name);
        if !is_fan && name != "pack" {
            continue;
        }
        let Ok(entries) = fs::read_dir(&dir) else {
            return Ok(false);
        };
        let mut files: Vec<String> = entries
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|file| match is_fan {
                true => matches!(file.len(), 38 | 62) && is_hex(file),
                false => file
                    .strip_prefix("pack-")
                    .and_then(|rest| rest.split_once('.'))
                    .is_some_and(|(id, kind)| {
                        refs::is_id(id) && ["pack", "rev", "idx"].contains(&kind)
                    }),
            })
            .collect();
        // git takes a pack for there when its index is.
        files.sort_by_key(|file| file.ends_with(".idx"));
        for file in files {
            let target = to.join(&name);
            if target.symlink_metadata().is_err() {
                fs::create_dir(&target)?;
                let meta = to.metadata()?;
                let _ = std::os::unix::fs::lchown(&target, Some(meta.uid()), Some(meta.gid()));
            }
            real(&target)?;
            if !copy(&dir.join(&file), &target.join(&file), 0o444, false)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The directories in one, which are no links.
fn directories(dir: &Path) -> Vec<(String, PathBuf)> {
    let is_dir = dir.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let entries = is_dir.then(|| fs::read_dir(dir).ok()).flatten();
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// A file of the session's to a place of the repository's, whole or not at all. Whether it could be read.
fn copy(from: &Path, to: &Path, mode: u32, replace: bool) -> io::Result<bool> {
    if !replace && to.symlink_metadata().is_ok() {
        return Ok(true);
    }
    let source = fs::OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW | NONBLOCK)
        .open(from);
    let Ok(mut source) = source else {
        return Ok(false);
    };
    if !source.metadata()?.is_file() {
        return Ok(false);
    }
    let dir = to.parent().unwrap_or(to);
    let owner = dir.metadata()?;
    let temporary = dir.join(format!("tmp_agentcontainer_{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)?;
    let done = io::copy(&mut source, &mut file)
        .and_then(|_| file.set_permissions(fs::Permissions::from_mode(mode)))
        .map(|()| std::os::unix::fs::lchown(&temporary, Some(owner.uid()), Some(owner.gid())))
        .and_then(|_| fs::rename(&temporary, to));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done.map(|()| true)
}

#[cfg(test)]
#[path = "lent/tests.rs"]
mod tests;
