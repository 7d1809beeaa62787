//! The workspace's `.git`: a mount of its own (it cannot be renamed away), and in it everything that git on the host would
//! obey read-only. git inside is led by `commondir` to a directory of the session's, whose `config` is a private copy that
//! it can replace as it likes, and whose other names are links back (`common`). When the session ends, keys of the copy
//! that can do no harm are merged back. git on the host runs what config and hooks name at the next `git status`; hence all
//! of this.

pub mod before;
mod common;
pub mod config;
mod obeyed;
pub mod planted;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::control;
use crate::look::{self, Seen};
use crate::request::Mount;
use before::{Before, Own};

/// The largest `.git/config` that is copied, in bytes.
pub const MAX_CONFIG: u64 = 1024 * 1024;
/// What `commondir` says on the host where we put one: the directory itself, which is what git takes without the file.
const COMMONDIR: &str = ".\n";

/// In the session's directory: what the copy was at first, and what the repository was like.
const BASE: &str = "gitconfig.base";
const FACTS: &str = "gitconfig.facts";

/// How the workspace's repository is bound.
#[derive(Debug, Default)]
pub struct Git {
    pub mounts: Vec<Mount>,
    /// For people: what is different inside.
    pub notes: Vec<String>,
    /// In the container: a file with names that git is to ignore, where the repository itself could not say so.
    pub excludes: Option<&'static str>,
}

/// What the end of a session brought back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub applied: Vec<String>,
    pub left_out: Vec<String>,
    pub elsewhere: planted::Found,
}

/// What has to be known at the end of how it was at the start.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Device and inode of `.git/config`: git replaces the file, and a mount over it is gone with the old one.
    config: (u64, u64),
    config_worktree: bool,
    shallow: bool,
    /// What the configuration names and was not there: paths of the workspace that git would run from or read.
    absent: Vec<PathBuf>,
}

fn kind(path: &Path) -> Result<Option<fs::FileType>, EngineError> {
    match path.symlink_metadata() {
        Ok(meta) if meta.file_type().is_symlink() => Err(EngineError::GitSymlink(path.to_owned())),
        Ok(meta) => Ok(Some(meta.file_type())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EngineError::io("inspect", path)(e)),
    }
}

/// Whether anything is written: a plan only looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Look,
    Write,
}

impl Doing {
    fn write(self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), EngineError> {
        match self {
            Self::Look => Ok(()),
            Self::Write => write_new(path, bytes, mode),
        }
    }

    /// An empty directory of ours that another user may list.
    pub(crate) fn make_readable(self, path: &Path) -> Result<(), EngineError> {
        use std::os::unix::fs::PermissionsExt;
        match self {
            Self::Look => Ok(()),
            Self::Write => fs::create_dir(path)
                .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
                .map_err(EngineError::io("create", path)),
        }
    }

    /// A file of ours that another user may read inside, whatever the umask is.
    pub(crate) fn write_readable(self, path: &Path, content: &str) -> Result<(), EngineError> {
        use std::os::unix::fs::PermissionsExt;
        self.write(path, content.as_bytes(), 0o644)?;
        match self {
            Self::Look => Ok(()),
            Self::Write => fs::set_permissions(path, fs::Permissions::from_mode(0o644))
                .map_err(EngineError::io("open up", path)),
        }
    }
}

/// Makes ready what the container's mounts need. `session_dir` is ours; `owner` is who works with the copy inside; `masks`
/// are files of the workspace that are not there, though the container sees some; `seen` is what lay there before anything
/// was made.
pub fn prepare(
    workspace: &Path,
    target: &str,
    session_dir: &Path,
    owner: (u32, u32),
    masks: &[&str],
    seen: &Seen,
    doing: Doing,
) -> Result<Git, EngineError> {
    let (git, own) = bind(workspace, target, session_dir, owner, masks, doing)?;
    if doing == Doing::Write {
        // Where a session is under way, the repository is what it was before that one: it may have been changed since.
        let before = Before::begin(workspace, session_dir, seen, own)?;
        if let Some(own) = &before.own {
            doing.write(&session_dir.join(BASE), own.config.as_bytes(), 0o600)?;
            let facts = serde_json::to_vec(&own.facts).unwrap_or_default();
            doing.write(&session_dir.join(FACTS), &facts, 0o600)?;
        }
    }
    Ok(git)
}

fn bind(
    workspace: &Path,
    target: &str,
    session_dir: &Path,
    owner: (u32, u32),
    masks: &[&str],
    doing: Doing,
) -> Result<(Git, Option<Own>), EngineError> {
    let dot_git = workspace.join(".git");
    let mut git = Git::default();
    let Some(found) = kind(&dot_git)? else {
        git.mounts
            .push(common::excludes(session_dir, masks, doing)?);
        git.excludes = Some(common::EXCLUDES);
        return Ok((git, None));
    };
    if !found.is_dir() {
        control::pin(&mut git.mounts, workspace, target, &dot_git);
        git.notes.push(
            ".git is a file (a worktree or submodule): its repository lies outside the workspace and is not there inside"
                .to_owned(),
        );
        return Ok((git, None));
    }
    let made = doing == Doing::Write;
    for name in ["hooks", "logs"] {
        let path = dot_git.join(name);
        if kind(&path)?.is_none() && made {
            fs::create_dir(&path).map_err(EngineError::io("create", &path))?;
            // Another session may have put a link there meanwhile.
            let _ = std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1));
        }
    }
    let ours = [dot_git.join("hooks"), dot_git.join("config")];
    let mut read_only = ours.to_vec();
    read_only.extend(["modules", "worktrees"].map(|name| dot_git.join(name)));

    let config = dot_git.join("config");
    if kind(&config)?.is_none() {
        doing.write(&config, b"", 0o644)?;
    }
    let (base, identity) = match config.symlink_metadata() {
        Ok(meta) => (read_config(&config)?, (meta.dev(), meta.ino())),
        // Only where nothing is made.
        Err(_) => (String::new(), (0, 0)),
    };
    let parsed = config::parse(&base);
    let mut facts = Facts {
        config: identity,
        config_worktree: true,
        shallow: kind(&dot_git.join("shallow"))?.is_some(),
        absent: Vec::new(),
    };
    let per_worktree = dot_git.join("config.worktree");
    if kind(&per_worktree)?.is_none() {
        if parsed.get("extensions", None, "worktreeconfig").is_some() {
            doing.write(&per_worktree, b"", 0o644)?;
        } else {
            facts.config_worktree = false;
        }
    }
    if facts.config_worktree {
        read_only.push(per_worktree);
    }
    for path in config_paths(&parsed, workspace, &dot_git) {
        if path.strip_prefix(workspace).is_ok() && kind(&path)?.is_none() {
            facts.absent.push(path);
        } else {
            read_only.push(path);
        }
    }
    for path in read_only {
        if path.strip_prefix(workspace).is_ok()
            && (kind(&path)?.is_some() || (!made && ours.contains(&path)))
        {
            control::pin(&mut git.mounts, workspace, target, &path);
        }
    }

    // A `commondir` file sends git elsewhere for config and hooks; one of ours holds the place.
    let commondir = dot_git.join("commondir");
    match kind(&commondir)? {
        None => doing.write(&commondir, COMMONDIR.as_bytes(), 0o644)?,
        Some(_) if is_ours(&commondir) => {}
        Some(_) => {
            control::pin(&mut git.mounts, workspace, target, &commondir);
            git.notes.push(
                ".git/commondir leads elsewhere, and git works inside only as far as that is there"
                    .to_owned(),
            );
            return Ok((git, None));
        }
    }
    git.mounts.extend(common::make(
        &common::Place {
            dot_git: &dot_git,
            target,
            session_dir,
            owner,
        },
        &base,
        masks,
        doing,
    )?);
    let hooks = dot_git.join("hooks").symlink_metadata().ok();
    let own = Own {
        config: base,
        facts,
        hooks: hooks.map(|meta| (meta.dev(), meta.ino())),
    };
    Ok((git, Some(own)))
}

/// Files and directories in the workspace that the repository's own configuration makes git run or read.
fn config_paths(parsed: &config::Config, workspace: &Path, dot_git: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut add = |base: &Path, value: &str| {
        if !value.starts_with('~') && !value.is_empty() {
            paths.push(plain(&base.join(value)));
        }
    };
    for value in parsed.values("core", None, "hookspath") {
        add(workspace, value);
    }
    for value in parsed.included() {
        add(dot_git, value);
    }
    paths
}

/// The path without `.` and `..`, by its spelling alone.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

fn read_config(path: &Path) -> Result<String, EngineError> {
    String::from_utf8(read_bytes(path)?)
        .map_err(|_| EngineError::io("read", path)(std::io::Error::other("it is not UTF-8")))
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, EngineError> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW | NONBLOCK)
        .open(path)
        .map_err(EngineError::io("open", path))?;
    let mut bytes = Vec::new();
    (&mut file)
        .take(MAX_CONFIG + 1)
        .read_to_end(&mut bytes)
        .map_err(EngineError::io("read", path))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(EngineError::io("read", path)(std::io::Error::other(
            "it is larger than a repository's configuration may be",
        )));
    }
    Ok(bytes)
}

// This crate has no libc; the two numbers are the same on every architecture that is built for.
#[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
pub(crate) const NOFOLLOW: i32 = 0o400_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const NOFOLLOW: i32 = 0o100_000;
const NONBLOCK: i32 = 0o4000;

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), EngineError> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .map_err(EngineError::io("write", path))
}

/// Undoes what `prepare` did, merges harmless keys back, and looks for what was left in any repository. Called when the
/// container is gone. `others` says that another session has the same workspace: then what holds a place for both stays, and
/// nothing that it may still change is touched; the last one looks for what any of them left.
pub fn finish(workspace: &Path, session_dir: &Path, others: bool) -> Result<Merged, EngineError> {
    let mut merged = Merged::default();
    let dot_git = workspace.join(".git");
    if session_dir.join(BASE).symlink_metadata().is_ok() {
        finish_own(&dot_git, session_dir, others, &mut merged)?;
    }
    if !others && is_ours(&dot_git.join("commondir")) {
        let _ = fs::remove_file(dot_git.join("commondir"));
    }
    if let Some(before) = Before::load(workspace, session_dir)? {
        let seen = look::through(workspace, look::MAX_ENTRIES);
        merged.elsewhere = planted::sweep(workspace, &seen, &before, !others);
        if !others {
            Before::forget(workspace, session_dir);
        }
    }
    Ok(merged)
}

fn finish_own(
    dot_git: &Path,
    session_dir: &Path,
    others: bool,
    merged: &mut Merged,
) -> Result<(), EngineError> {
    let base = read_config(&session_dir.join(BASE))?;
    let facts: Facts = fs::read(session_dir.join(FACTS))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    // Whatever the container did to be in the way, the session ends, and what was not done is said.
    if let Err(e) = restore(dot_git, &base, &facts, merged) {
        merged.left_out.push(format!(
            "{e}; look at .git/config before git runs here again"
        ));
    } else if let Err(e) = merge(dot_git, session_dir, others, merged) {
        merged.left_out.push(format!("all of it: {e}"));
    }
    if facts.shallow && common::is_deep(session_dir) {
        let _ = fs::remove_file(dot_git.join("shallow"));
    }
    Ok(())
}

/// Where git on the host wrote its configuration meanwhile, it replaced the file, and the container's mount went with the old
/// one: from then on the container could write it too. What cannot do harm of what is new stays, the rest is put aside.
fn restore(
    dot_git: &Path,
    base: &str,
    facts: &Facts,
    merged: &mut Merged,
) -> Result<(), EngineError> {
    let mut absent = facts.absent.clone();
    if !facts.config_worktree {
        absent.push(dot_git.join("config.worktree"));
    }
    for path in absent {
        if path.symlink_metadata().is_ok() {
            let aside = planted::put_aside(&path).map_err(EngineError::io("put aside", &path))?;
            merged.left_out.push(format!(
                "{}, which git here would obey; it is now {}",
                path.display(),
                aside.display()
            ));
        }
    }
    let path = dot_git.join("config");
    let same = |meta: &fs::Metadata| meta.is_file() && (meta.dev(), meta.ino()) == facts.config;
    if path.symlink_metadata().is_ok_and(|meta| same(&meta)) {
        return Ok(());
    }
    let there = path.symlink_metadata().ok();
    let merge = match read_config(&path) {
        Ok(current) if current == base => return Ok(()),
        Ok(current) => config::merge(base, &current, base),
        Err(e) => config::Merge {
            left_out: vec![format!("all of it: {e}")],
            ..config::Merge::default()
        },
    };
    let text = merge.text.as_deref().unwrap_or(base);
    if there.is_some() {
        let aside = planted::put_aside(&path).map_err(EngineError::io("put aside", &path))?;
        if merge.left_out.is_empty() {
            let _ = fs::remove_file(&aside);
        } else {
            merged.left_out.push(format!(
                "{} was written on this machine while the session ran, and could be written inside from then on; as it was: {}",
                path.display(),
                aside.display()
            ));
        }
    }
    write_new(&path, text.as_bytes(), 0o644)?;
    if let Some(meta) = there {
        let _ = std::os::unix::fs::lchown(&path, Some(meta.uid()), Some(meta.gid()));
    }
    merged.applied.extend(merge.applied);
    merged.left_out.extend(merge.left_out);
    Ok(())
}

fn merge(
    dot_git: &Path,
    session_dir: &Path,
    others: bool,
    merged: &mut Merged,
) -> Result<(), EngineError> {
    let path = dot_git.join("config");
    let session = read_config(&common::config(session_dir))?;
    let given = read_config(&session_dir.join(common::GIVEN))?;
    if session == given {
        return Ok(());
    }
    let merge = config::merge(&given, &session, &read_config(&path)?);
    if let Some(text) = merge.text {
        replace(&path, &text, others)?;
    }
    merged.applied.extend(merge.applied);
    merged.left_out.extend(merge.left_out);
    Ok(())
}

/// The place holder in `.git`, as we left it.
fn is_ours(commondir: &Path) -> bool {
    fs::symlink_metadata(commondir).is_ok_and(|m| m.is_file() && m.len() == COMMONDIR.len() as u64)
        && fs::read(commondir).is_ok_and(|b| b == COMMONDIR.as_bytes())
}

/// Under git's own lock: whole or not at all, but in place where another session has the file mounted.
fn replace(path: &Path, text: &str, in_place: bool) -> Result<(), EngineError> {
    let lock = path.with_extension("lock");
    let meta = path.metadata().map_err(EngineError::io("inspect", path))?;
    write_new(&lock, text.as_bytes(), meta.mode() & 0o777)?;
    let _ = std::os::unix::fs::lchown(&lock, Some(meta.uid()), Some(meta.gid()));
    let done = if in_place {
        fs::write(path, text).and_then(|()| fs::remove_file(&lock))
    } else {
        fs::rename(&lock, path)
    };
    done.map_err(|e| {
        let _ = fs::remove_file(&lock);
        EngineError::io("replace", path)(e)
    })
}

#[cfg(test)]
mod tests;
