//! The workspace's `.git`: a mount of its own (it cannot be renamed away), and in it everything that git on the host would
//! obey read-only. git inside is led by `commondir` to a directory of the session's, whose `config` is a private copy that
//! it can replace as it likes, and whose other names are links back (`common`). When the session ends, keys of the copy
//! that can do no harm are merged back. git on the host runs what config and hooks name at the next `git status`; hence all
//! of this. Where `.git` is a file, the repository lies outside (`outside`), and is bound in the same way at a place of its own (`lent`).

pub mod before;
mod beneath;
mod common;
pub mod config;
mod lent;
mod named;
mod obeyed;
mod outside;
pub mod planted;
mod pointer;

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::EngineError;
use crate::control;
use crate::look::{self, Seen};
use crate::request::Mount;
use before::{Before, Own};
use beneath::Dir;
use named::{Configs, From};
pub use outside::{Outside, Repository, Unusable};

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
    /// What lies in a repository outside, and leads out of it.
    pub doors: Vec<PathBuf>,
    pub closed: Vec<PathBuf>,
}

/// What the end of a session brought back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub applied: Vec<String>,
    pub left_out: Vec<String>,
    pub elsewhere: planted::Found,
}

/// What has to be known at the end of how it was at the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Device and inode of `.git/config`: git replaces the file, and a mount over it is gone with the old one.
    config: (u64, u64),
    /// When that was made: what is removed leaves its number to the next.
    #[serde(default)]
    born: u64,
    config_worktree: bool,
    shallow: bool,
    /// Device and inode of the directory of other working trees' own, where it was there and therefore is a mount.
    #[serde(default)]
    worktrees: Option<(u64, u64)>,
    #[serde(default)]
    worktrees_born: u64,
    /// Whether what submodules have of their own was there, and therefore is covered.
    #[serde(default)]
    modules: bool,
    /// What the configuration names and was not there: paths of the workspace that git would run from or read.
    absent: Vec<PathBuf>,
}

// === impl Facts ===

impl Facts {
    /// Whether the directory of other working trees' own is the one that was there, and was covered therefore.
    fn holds_worktrees(&self, common: &Path) -> bool {
        self.worktrees.is_some()
            && self.worktrees == worktrees_of(common)
            && self.worktrees_born == worktrees_born(common)
    }
}

fn kind(path: &Path) -> Result<Option<fs::FileType>, EngineError> {
    match path.symlink_metadata() {
        Ok(meta) if meta.file_type().is_symlink() => Err(EngineError::GitSymlink(path.to_owned())),
        Ok(meta) => Ok(Some(meta.file_type())),
        // Below a `.git` that is a file there is nothing.
        Err(e)
            if matches!(
                e.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
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
/// was made; `repository` is what was looked at and approved.
#[allow(clippy::too_many_arguments)]
pub fn prepare(
    workspace: &Path,
    repository: &Repository,
    target: &str,
    session_dir: &Path,
    owner: (u32, u32),
    masks: &[&str],
    seen: &Seen,
    doing: Doing,
) -> Result<Git, EngineError> {
    if let Some(outside) = repository.outside() {
        let place = lent::Place {
            workspace,
            target,
            session_dir,
            owner,
        };
        if doing == Doing::Write {
            Before::begin(workspace, session_dir, seen, None)?;
        }
        return lent::prepare(&place, outside, masks, doing);
    }
    let (git, own) = bind(
        workspace,
        repository,
        target,
        session_dir,
        owner,
        masks,
        doing,
    )?;
    if doing == Doing::Write {
        begin_within(workspace, session_dir, seen, own)?;
    }
    Ok(git)
}

/// What is remembered of the workspace, and the same of its repository by itself: that may be lent to another working tree's session.
fn begin_within(
    workspace: &Path,
    session_dir: &Path,
    seen: &Seen,
    own: Option<Own>,
) -> Result<(), EngineError> {
    let own = match own {
        None => None,
        Some(own) => {
            let common = workspace.join(".git");
            let of_common = Own {
                at: Some(common.clone()),
                ..own
            };
            let before = begin(&common, session_dir, &seen.below(&common), Some(of_common))?;
            before.own.map(|own| Own { at: None, ..own })
        }
    };
    Before::begin(workspace, session_dir, seen, own)?;
    Ok(())
}

/// Keeps in mind what a repository was like. `root` is what is looked through at the end.
fn begin(
    root: &Path,
    session_dir: &Path,
    seen: &Seen,
    own: Option<Own>,
) -> Result<Before, EngineError> {
    let held = own
        .as_ref()
        .map(|own| own.facts.clone())
        .unwrap_or_default();
    // Where a session is under way, the repository is what it was before that one: it may have been changed since.
    let before = Before::begin(root, session_dir, seen, own)?;
    if let Some(own) = &before.own {
        write_new(&session_dir.join(BASE), own.config.as_bytes(), 0o600)?;
        // What this session holds is its own.
        let facts = Facts {
            worktrees: held.worktrees,
            worktrees_born: held.worktrees_born,
            ..own.facts.clone()
        };
        let facts = serde_json::to_vec(&facts).unwrap_or_default();
        write_new(&session_dir.join(FACTS), &facts, 0o600)?;
    }
    Ok(before)
}

fn bind(
    workspace: &Path,
    repository: &Repository,
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
        git.notes.push(match repository {
            Repository::Unusable(Unusable::InWorkspace) => format!(
                ".git is a file that {}: what a session leaves there that git would obey is put aside when it ends",
                Unusable::InWorkspace
            ),
            Repository::Unusable(why) => format!(
                ".git is a file that {why}: git does not work inside; a clone of its own makes a workspace where it does"
            ),
            Repository::Within | Repository::Outside(_) => {
                ".git is a file that was none a moment ago: git does not work inside".to_owned()
            }
        });
        return Ok((git, None));
    }
    let made = doing == Doing::Write;
    // On the host they are whose the repository is, unless that is root, whom no user inside stands for.
    let theirs = dot_git
        .symlink_metadata()
        .map(|meta| (meta.uid(), meta.gid()))
        .ok()
        .filter(|(uid, _)| *uid != 0)
        .unwrap_or(owner);
    for name in ["hooks", "logs"] {
        let path = dot_git.join(name);
        if kind(&path)?.is_none() && made {
            fs::create_dir(&path).map_err(EngineError::io("create", &path))?;
            // Another session may have put a link there meanwhile.
            let _ = std::os::unix::fs::lchown(&path, Some(theirs.0), Some(theirs.1));
        }
    }
    let ours = ["hooks", "config", "config.worktree"].map(|name| dot_git.join(name));
    let mut read_only = ours.to_vec();
    read_only.extend(["modules", "worktrees"].map(|name| dot_git.join(name)));

    let config = dot_git.join("config");
    if kind(&config)?.is_none() {
        doing.write(&config, b"", 0o644)?;
    }
    let (base, config_is, born) = match config.symlink_metadata() {
        Ok(meta) => (read_config(&config)?, identity(&meta), born(&meta)),
        // Only where nothing is made.
        Err(_) => (String::new(), (0, 0), 0),
    };
    let mut facts = Facts {
        config: config_is,
        born,
        config_worktree: true,
        shallow: kind(&dot_git.join("shallow"))?.is_some(),
        worktrees: worktrees_of(&dot_git),
        worktrees_born: worktrees_born(&dot_git),
        modules: kind(&dot_git.join("modules"))?.is_some_and(|kind| kind.is_dir()),
        absent: alternates(&dot_git).into_iter().collect(),
    };
    // Where it is not there, git begins to obey it as soon as somebody switches such files on.
    let per_worktree = dot_git.join("config.worktree");
    let mut texts = vec![base.clone()];
    match kind(&per_worktree)? {
        None => {
            doing.write(&per_worktree, b"", 0o644)?;
            let _ = std::os::unix::fs::lchown(&per_worktree, Some(owner.0), Some(owner.1));
        }
        Some(_) => texts.push(read_config(&per_worktree)?),
    }
    let own = texts.iter().map(|text| From::of(text, &dot_git));
    let configs = Configs::of(own.collect()).whole()?;
    facts.absent.extend(named::in_git_dir(&configs, &dot_git));
    for path in named::in_workspace(&configs, workspace) {
        if kind(&path)?.is_none() {
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
            inside: &format!("{target}/.git"),
            from: &format!("{target}/.git"),
            session_dir,
            owner,
            trees: &[],
        },
        &base,
        masks,
        doing,
    )?);
    let hooks = dot_git.join("hooks").symlink_metadata().ok();
    let own = Own {
        at: None,
        config: base,
        facts,
        hooks: hooks.map(|meta| identity(&meta)),
    };
    Ok((git, Some(own)))
}

/// Where a repository would name another one's objects, which it does not.
fn alternates(dot_git: &Path) -> Option<PathBuf> {
    let path = dot_git.join("objects/info/alternates");
    path.symlink_metadata().is_err().then_some(path)
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
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NOFOLLOW | NONBLOCK)
        .open(path)
        .map_err(EngineError::io("open", path))?;
    read_all(file, path)
}

fn read_all(file: File, path: &Path) -> Result<Vec<u8>, EngineError> {
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1)
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

/// The address of a workspace's remote `origin`, where it has one: as its own configuration says, of which nothing is followed.
pub fn origin(workspace: &Path) -> Option<String> {
    let common = match Repository::of(workspace) {
        Repository::Within => workspace.join(".git"),
        Repository::Outside(outside) => outside.common,
        Repository::Unusable(_) => return None,
    };
    let there = Dir::open(&common).ok()?;
    // Led elsewhere, git reads another one.
    let holder = there.read("commondir", pointer::MAX_POINTER).ok()?;
    if holder.is_some_and(|bytes| bytes != COMMONDIR.as_bytes()) {
        return None;
    }
    let text = there.text("config", MAX_CONFIG).ok()??;
    let parsed = config::parse(&text);
    let mut urls = parsed.values("remote", Some("origin"), "url");
    let only = urls.next().map(str::to_owned);
    only.filter(|_| urls.next().is_none())
}

/// Whether any session in a workspace was begun that has not been looked through.
///
/// # Errors
/// Where that cannot be read.
pub fn is_begun(workspace: &Path, session_dir: &Path) -> Result<bool, EngineError> {
    Ok(Before::load(workspace, session_dir)?.is_some())
}

/// Who else is there when a session ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others {
    /// Another session has the same workspace.
    pub workspace: bool,
    /// Another has the same repository, in this workspace or in another working tree of it.
    pub repository: bool,
}

impl Others {
    pub const NOBODY: Self = Self {
        workspace: false,
        repository: false,
    };
}

/// The repository that a workspace's session has, wherever it lies: the directory that all of its working trees have in common.
pub fn repository(workspace: &Path, session_dir: &Path) -> PathBuf {
    match lent::of(session_dir) {
        Some(lent) => lent.outside.common,
        // A session of another state directory's, or none of a repository outside.
        None => match Repository::of(workspace) {
            Repository::Outside(outside) => outside.common,
            Repository::Within | Repository::Unusable(_) => workspace.join(".git"),
        },
    }
}

/// What tells something from what else lies at its path, with when it was made: its inode, and its device where the file system does not say
/// when that was. The number of a device may be another once the machine was restarted.
fn identity(meta: &fs::Metadata) -> (u64, u64) {
    let device = if born(meta) == 0 { meta.dev() } else { 0 };
    (device, meta.ino())
}

/// In nanoseconds since 1970; zero where the file system does not say.
fn born(meta: &fs::Metadata) -> u64 {
    let since = meta
        .created()
        .ok()
        .and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |since| {
        u64::try_from(since.as_nanos()).unwrap_or_default()
    })
}

fn worktrees_born(common: &Path) -> u64 {
    let meta = common.join("worktrees").symlink_metadata();
    meta.map_or(0, |meta| born(&meta))
}

fn worktrees_of(common: &Path) -> Option<(u64, u64)> {
    let meta = common.join("worktrees").symlink_metadata().ok()?;
    meta.is_dir().then(|| identity(&meta))
}

/// Whether a session in a workspace cannot put anything else in the place of what of a repository would be mounted in another: it lies
/// elsewhere, or is the workspace's own, and what is asked for in it is a mount there already.
pub fn leaves_alone(workspace: &Path, session_dir: &Path, outside: &Outside) -> bool {
    if !outside.common.starts_with(workspace) {
        return true;
    }
    let facts = fs::read(session_dir.join(FACTS)).ok();
    let facts: Option<Facts> = facts.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let held = facts.and_then(|facts| facts.worktrees);
    workspace.join(".git") == outside.common
        && held.is_some()
        && held == worktrees_of(&outside.common)
}

/// Undoes what `prepare` did, merges harmless keys back, and looks for what was left in any repository. Called when the
/// container is gone. Where others are there, what holds a place for them too stays, and nothing that they may still change is
/// touched; the last one looks for what any of them left.
pub fn finish(workspace: &Path, session_dir: &Path, others: Others) -> Result<Merged, EngineError> {
    let mut merged = Merged::default();
    let dot_git = repository(workspace, session_dir);
    let lent = lent::of(session_dir);
    let shared = others.workspace || others.repository;
    let is_there = lent.as_ref().is_none_or(lent::Lent::is_there);
    if is_there {
        if session_dir.join(BASE).symlink_metadata().is_ok() {
            finish_own(workspace, &dot_git, session_dir, shared, &mut merged)?;
        }
        if let Some(lent) = &lent {
            lent.finish(workspace, others, &mut merged)?;
        }
        if !shared {
            give_up(&dot_git);
        }
    } else {
        merged.left_out.push(format!(
            "{} is not the directory that the session had, and was left alone; look at the one that was there before git runs in it again",
            dot_git.display()
        ));
    }
    let mut through = Through {
        root: workspace,
        session_dir,
        merged: &mut merged,
    };
    // What sessions of other working trees may still write, the last of them looks through.
    through.look(!others.workspace, |path, _| {
        others.workspace || !others.repository || !path.starts_with(&dot_git)
    })?;
    through.forget(!others.workspace);
    // What the sessions of all working trees left in a repository outside of theirs, or are still at.
    through.root = &dot_git;
    if is_there && let Some(lent) = &lent {
        through.look(!others.workspace, |path, _| lent.is_own(path))?;
    }
    // In the workspace it was looked at just now.
    let is_seen = lent.is_none() && (others.workspace || !others.repository);
    if is_there && !is_seen {
        through.look(!shared, |path, own| {
            // Where nobody inside could write, it is the host's.
            let covered = own.is_some_and(|own| own.facts.modules);
            let held = own.is_some_and(|own| own.facts.holds_worktrees(&dot_git));
            let is_hosts = held && path.starts_with(dot_git.join("worktrees"))
                || covered && path.starts_with(dot_git.join("modules"));
            !is_hosts
        })?;
    }
    through.forget(!shared);
    Ok(merged)
}

/// Takes away what holds a place in a repository that no session has any more.
fn give_up(dot_git: &Path) {
    if is_ours(&dot_git.join("commondir")) {
        let _ = fs::remove_file(dot_git.join("commondir"));
    }
    remove_empty(&dot_git.join("config.worktree"));
}

/// A file that says nothing is as good as none.
fn remove_empty(path: &Path) {
    if path
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() == 0)
    {
        let _ = fs::remove_file(path);
    }
}

/// A look through what lies in a directory, at the end of a session.
struct Through<'a> {
    root: &'a Path,
    session_dir: &'a Path,
    merged: &'a mut Merged,
}

// === impl Through ===

impl Through<'_> {
    fn forget(&self, is_last: bool) {
        if is_last {
            Before::forget(self.root, self.session_dir);
        }
    }

    /// Judges those repositories that are meant, where it is known what they were like before.
    fn look(
        &mut self,
        put_aside: bool,
        is_meant: impl Fn(&Path, Option<&Own>) -> bool,
    ) -> Result<(), EngineError> {
        let Self { root, merged, .. } = self;
        let Some(before) = Before::load(root, self.session_dir)? else {
            return Ok(());
        };
        let mut seen = look::through(root, look::MAX_ENTRIES);
        seen.repositories
            .retain(|path| is_meant(path, before.own.as_ref()));
        let found = planted::sweep(root, &seen, &before, put_aside);
        let is_outside = before.own.as_ref().is_some_and(|own| own.at.is_some());
        let said = found.said.into_iter().map(|line| match is_outside {
            true => format!("in {}: {line}", root.display()),
            false => line,
        });
        merged.elsewhere.said.extend(said);
        merged.elsewhere.controls.extend(found.controls);
        merged.elsewhere.cut_off |= found.cut_off;
        Ok(())
    }
}

fn finish_own(
    workspace: &Path,
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
    if let Err(e) = restore(workspace, dot_git, &base, &facts, merged) {
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
    workspace: &Path,
    dot_git: &Path,
    base: &str,
    facts: &Facts,
    merged: &mut Merged,
) -> Result<(), EngineError> {
    let mut absent = facts.absent.clone();
    if !facts.config_worktree {
        absent.push(dot_git.join("config.worktree"));
    }
    planted::put_absent_aside(&[workspace], &absent, merged)?;
    let path = dot_git.join("config");
    let same = |meta: &fs::Metadata| {
        let is_it = (identity(meta), born(meta)) == (facts.config, facts.born);
        meta.is_file() && facts.born != 0 && is_it
    };
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
mod host_tests;
#[cfg(test)]
mod tests;
