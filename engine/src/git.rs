//! The workspace's `.git`: a mount of its own (it cannot be renamed away), `hooks` and everything else that git on the host
//! would obey read-only, `config` a private copy. When the session ends, keys of the copy that can do no harm are merged
//! back. git on the host runs what config and hooks name at the next `git status`; hence all of this.

pub mod config;

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::EngineError;
use crate::request::Mount;

/// The largest `.git/config` that is copied, in bytes.
pub const MAX_CONFIG: u64 = 1024 * 1024;
/// What `commondir` says where we put one: the directory itself, which is what git takes without the file.
const COMMONDIR: &str = ".\n";

/// In the session's directory: the copy that the container has, and what it was at first.
const COPY: &str = "gitconfig";
const BASE: &str = "gitconfig.base";

/// How the workspace's repository is bound.
#[derive(Debug, Default)]
pub struct Git {
    pub mounts: Vec<Mount>,
    /// For people: what is different inside.
    pub notes: Vec<String>,
}

/// What the end of a session brought back.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Merged {
    pub applied: Vec<String>,
    pub left_out: Vec<String>,
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
}

/// Makes ready what the container's mounts need. `session_dir` is ours; `owner` is who reads the copy inside.
pub fn prepare(
    workspace: &Path,
    target: &str,
    session_dir: &Path,
    owner: (u32, u32),
    doing: Doing,
) -> Result<Git, EngineError> {
    let dot_git = workspace.join(".git");
    let mut git = Git::default();
    let Some(found) = kind(&dot_git)? else {
        return Ok(git);
    };
    let mut control = |path: &Path, read_only: bool| {
        // Everything bound here lies in the workspace.
        if let Ok(rest) = path.strip_prefix(workspace) {
            git.mounts.push(Mount::Control {
                source: path.display().to_string(),
                target: format!("{target}/{}", rest.display()),
                read_only,
            });
        }
    };
    control(&dot_git, !found.is_dir());
    if !found.is_dir() {
        git.notes.push(
            ".git is a file (a worktree or submodule): its repository lies outside the workspace and is not there inside"
                .to_owned(),
        );
        return Ok(git);
    }

    let hooks = dot_git.join("hooks");
    if kind(&hooks)?.is_none() && doing == Doing::Write {
        fs::create_dir(&hooks).map_err(EngineError::io("create", &hooks))?;
    }
    control(&hooks, true);

    // A `commondir` file sends git elsewhere for config and hooks; one of ours holds the place.
    let commondir = dot_git.join("commondir");
    if kind(&commondir)?.is_none() {
        doing.write(&commondir, COMMONDIR.as_bytes(), 0o644)?;
    }
    control(&commondir, true);

    for name in ["modules", "worktrees"] {
        let path = dot_git.join(name);
        if kind(&path)?.is_some() {
            control(&path, true);
        }
    }

    let config = dot_git.join("config");
    if kind(&config)?.is_none() {
        doing.write(&config, b"", 0o644)?;
    }
    let base = match kind(&config)? {
        Some(_) => read_config(&config)?,
        None => String::new(),
    };
    let parsed = config::parse(&base);
    let per_worktree = dot_git.join("config.worktree");
    match kind(&per_worktree)? {
        Some(_) => control(&per_worktree, true),
        None if parsed.get("extensions", None, "worktreeconfig").is_some() => {
            doing.write(&per_worktree, b"", 0o644)?;
            control(&per_worktree, true);
        }
        None => {}
    }
    for path in config_paths(&parsed, workspace, &dot_git) {
        if path.strip_prefix(workspace).is_ok() && kind(&path)?.is_some() {
            control(&path, true);
        }
    }

    let copy = session_dir.join(COPY);
    doing.write(&copy, base.as_bytes(), 0o600)?;
    if doing == Doing::Write {
        hand_over(&copy, owner)?;
    }
    git.mounts.push(Mount::Session {
        source: copy.display().to_string(),
        target: format!("{target}/.git/config"),
        read_only: false,
    });
    // A path may have been named twice (hooksPath = .git/hooks).
    let mut seen = std::collections::BTreeSet::new();
    git.mounts.retain(|m| seen.insert(m.target().to_owned()));
    doing.write(&session_dir.join(BASE), base.as_bytes(), 0o600)?;
    Ok(git)
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
    String::from_utf8(bytes)
        .map_err(|_| EngineError::io("read", path)(std::io::Error::other("it is not UTF-8")))
}

// This crate has no libc; the two numbers are the same on every architecture that is built for.
#[cfg(any(target_arch = "x86_64", target_arch = "riscv64"))]
const NOFOLLOW: i32 = 0o400_000;
#[cfg(target_arch = "aarch64")]
const NOFOLLOW: i32 = 0o100_000;
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

/// Gives a file of ours to the user inside: by owner where we may, else by mode (the directory above is closed to others).
pub fn hand_over(path: &Path, owner: (u32, u32)) -> Result<(), EngineError> {
    let meta = path.metadata().map_err(EngineError::io("inspect", path))?;
    if meta.uid() == owner.0 || std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).is_ok()
    {
        return Ok(());
    }
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .map_err(EngineError::io("open up", path))
}

/// Undoes what `prepare` did and merges harmless keys back. Called when the container is gone. `others` says that another
/// session has the same workspace: then what holds a place for both stays.
pub fn finish(workspace: &Path, session_dir: &Path, others: bool) -> Result<Merged, EngineError> {
    let base = session_dir.join(BASE);
    if base.symlink_metadata().is_err() {
        return Ok(Merged::default());
    }
    let dot_git = workspace.join(".git");
    let merged = merge(&dot_git, &base, &session_dir.join(COPY));
    if !others {
        release(&dot_git);
    }
    merged
}

fn merge(dot_git: &Path, base: &Path, copy: &Path) -> Result<Merged, EngineError> {
    let (base, session) = (read_config(base)?, read_config(copy)?);
    if session == base {
        return Ok(Merged::default());
    }
    let path = dot_git.join("config");
    let current = read_config(&path)?;
    let merge = config::merge(&base, &session, &current);
    if let Some(text) = merge.text {
        replace(&path, &text)?;
    }
    Ok(Merged {
        applied: merge.applied,
        left_out: merge.left_out,
    })
}

/// Takes away the place holder in `.git`, if it is ours as we left it.
fn release(dot_git: &Path) {
    let commondir = dot_git.join("commondir");
    if fs::symlink_metadata(&commondir)
        .is_ok_and(|m| m.is_file() && m.len() == COMMONDIR.len() as u64)
        && fs::read(&commondir).is_ok_and(|b| b == COMMONDIR.as_bytes())
    {
        let _ = fs::remove_file(&commondir);
    }
}

/// Under git's own lock, whole or not at all.
fn replace(path: &Path, text: &str) -> Result<(), EngineError> {
    let lock = path.with_extension("lock");
    let meta = path.metadata().map_err(EngineError::io("inspect", path))?;
    write_new(&lock, text.as_bytes(), meta.mode() & 0o777)?;
    let _ = std::os::unix::fs::chown(&lock, Some(meta.uid()), Some(meta.gid()));
    fs::rename(&lock, path).map_err(|e| {
        let _ = fs::remove_file(&lock);
        EngineError::io("replace", path)(e)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    struct Place {
        _dir: tempfile::TempDir,
        workspace: PathBuf,
        session: PathBuf,
    }

    fn place(config: Option<&str>) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let workspace = dir.path().join("ws");
        let session = dir.path().join("session");
        fs::create_dir_all(workspace.join(".git")).unwrap();
        fs::create_dir_all(&session).unwrap();
        if let Some(config) = config {
            fs::write(workspace.join(".git/config"), config).unwrap();
        }
        Place {
            _dir: dir,
            workspace,
            session,
        }
    }

    fn targets(git: &Git) -> Vec<(String, bool)> {
        git.mounts
            .iter()
            .map(|m| match m {
                Mount::Control {
                    target, read_only, ..
                }
                | Mount::Session {
                    target, read_only, ..
                } => (target.clone(), *read_only),
                _ => unreachable!(),
            })
            .collect()
    }

    #[test]
    fn git_is_a_mount_of_its_own_with_hooks_read_only_and_config_a_copy() {
        let at = place(Some("[core]\n\tbare = false\n"));
        let git = prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).unwrap();
        assert_eq!(
            targets(&git),
            [
                ("/w/.git", false),
                ("/w/.git/hooks", true),
                ("/w/.git/commondir", true),
                ("/w/.git/config", false)
            ]
            .map(|(t, r)| (t.to_owned(), r))
        );
        assert!(at.workspace.join(".git/hooks").is_dir());
        assert_eq!(
            finish(&at.workspace, &at.session, false).unwrap(),
            Merged::default()
        );
        assert!(!at.workspace.join(".git/commondir").exists());
        assert_eq!(
            fs::read_to_string(at.workspace.join(".git/config")).unwrap(),
            "[core]\n\tbare = false\n"
        );
    }

    #[test]
    fn what_the_configuration_makes_git_run_is_read_only_too() {
        let at = place(Some(
            "[core]\n\thooksPath = .husky\n[include]\n\tpath = ../.gitconfig\n\tpath = ~/x\n[extensions]\n\tworktreeConfig = true\n",
        ));
        fs::create_dir(at.workspace.join(".husky")).unwrap();
        fs::write(at.workspace.join(".gitconfig"), "").unwrap();
        fs::create_dir(at.workspace.join(".git/modules")).unwrap();
        let git = prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).unwrap();
        for target in [
            "/w/.husky",
            "/w/.gitconfig",
            "/w/.git/modules",
            "/w/.git/config.worktree",
        ] {
            assert!(
                targets(&git).contains(&(target.to_owned(), true)),
                "{target}"
            );
        }
    }

    #[test]
    fn links_are_refused_and_worktrees_are_bound_as_they_are() {
        for name in [".git", ".git/hooks", ".git/config", ".git/commondir"] {
            let at = place(None);
            if name == ".git" {
                fs::remove_dir(at.workspace.join(".git")).unwrap();
            }
            std::os::unix::fs::symlink("/tmp", at.workspace.join(name)).unwrap();
            assert!(
                matches!(
                    prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write),
                    Err(EngineError::GitSymlink(_))
                ),
                "{name}"
            );
        }
        let at = place(None);
        fs::remove_dir(at.workspace.join(".git")).unwrap();
        fs::write(at.workspace.join(".git"), "gitdir: /elsewhere").unwrap();
        let git = prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).unwrap();
        assert_eq!(targets(&git), [("/w/.git".to_owned(), true)]);
        assert_eq!(git.notes.len(), 1);
        assert_eq!(
            finish(&at.workspace, &at.session, false).unwrap(),
            Merged::default()
        );
    }

    #[test]
    fn harmless_keys_come_back_and_the_others_are_named() {
        let at = place(Some(
            "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://git.test/a.git\n",
        ));
        prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).unwrap();
        fs::write(
            at.session.join("gitconfig"),
            "[core]\n\tbare = false\n\tfsmonitor = ./evil\n[remote \"origin\"]\n\turl = https://git.test/a.git\n[branch \"topic\"]\n\tremote = origin\n\tmerge = refs/heads/topic\n",
        )
        .unwrap();
        let merged = finish(&at.workspace, &at.session, false).unwrap();
        assert_eq!(
            merged.applied,
            [
                "branch.topic.remote = origin",
                "branch.topic.merge = refs/heads/topic"
            ]
        );
        assert_eq!(merged.left_out, ["core.fsmonitor = ./evil"]);
        let text = fs::read_to_string(at.workspace.join(".git/config")).unwrap();
        assert!(!text.contains("evil") && text.contains("[branch \"topic\"]"));
        assert!(!at.workspace.join(".git/config.lock").exists());
    }

    #[test]
    fn another_session_keeps_its_place_holder_and_a_large_config_is_refused() {
        let at = place(Some(""));
        prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).unwrap();
        finish(&at.workspace, &at.session, true).unwrap();
        assert!(at.workspace.join(".git/commondir").exists());
        let config = |n: u64| {
            let at = place(None);
            fs::write(at.workspace.join(".git/config"), vec![b'\n'; n as usize]).unwrap();
            prepare(&at.workspace, "/w", &at.session, (0, 0), Doing::Write).map(|_| ())
        };
        assert!(config(MAX_CONFIG).is_ok());
        assert!(config(MAX_CONFIG + 1).is_err());
    }
}
