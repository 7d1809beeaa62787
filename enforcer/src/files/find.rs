//! From rules to the files that they are about, as they are when a session starts. No link is followed: whoever may write beside a link
//! could point it elsewhere afterwards.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::dir::{Dir, Type};
use policy::{FileRight, FileRule, Files};
use schema::request::segments_match;

use super::enter::Inside;
use super::{FilesError, MAX_LOOKED_AT, MAX_MOUNTS, io_error, shown, sys, table};

/// Longest that patterns are looked for: init waits no longer for its release.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of paths of directories that are still to be listed.
const MAX_WAITING_BYTES: usize = 16 << 20;

/// A file that a rule is about. Paths are below the container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub right: FileRight,
    pub origin: String,
    pub identity: sys::Identity,
    pub is_directory: bool,
    /// The directories above it stay where they are.
    pub keep: bool,
    /// A program that may be started, which has a mount of its own for that.
    pub listed: bool,
}

/// What there is of each rule.
#[derive(Debug, Default)]
pub struct All {
    pub found: Vec<Found>,
    /// Plain paths of the workspace's that are not there: an error unless they may be missing, because they can come back or another layer holds
    /// them.
    pub missing: usize,
    /// Paths of organisations' that are not there, where the host says that mounts are enough: their rules are about any workspace.
    pub absent: BTreeSet<PathBuf>,
    /// Everything else is read-only.
    pub root: bool,
}

/// What of plain paths need not be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    MayNot,
    /// What the programs in the kernel are told of, which hold it when it comes.
    WhereTold,
    May,
}

pub fn all(inside: &Inside, rules: &Files, missing: Missing) -> Result<All, FilesError> {
    let mut all = All::default();
    let mut walk = Walk::default();
    for (right, rule) in rules.all() {
        if rule.path.is_root() {
            all.root = true;
            continue;
        }
        let (fixed, pattern) = rule.path.split();
        let mut path = match rule.path.is_from_root() {
            true => PathBuf::new(),
            false => inside.folder().to_owned(),
        };
        path.extend(fixed);
        let one = One {
            inside,
            right,
            rule,
        };
        // `a/**` is all of `a`.
        if pattern.iter().all(|segment| *segment == "**") {
            let anywhere = rule.organisation.is_some() && rules.mounts_suffice.is_some();
            let may_be_missing = match missing {
                Missing::MayNot => anywhere || !pattern.is_empty(),
                Missing::WhereTold => anywhere || !pattern.is_empty() || table::spells(&path),
                Missing::May => true,
            };
            match one.at(&path, may_be_missing)? {
                Some(found) => all.found.push(found),
                None if !pattern.is_empty() => {}
                None if anywhere => {
                    all.absent.insert(path);
                }
                None => all.missing += 1,
            }
        } else {
            one.matching(&path, &pattern, &mut walk, &mut all.found)?;
        }
        if all.found.len() > MAX_MOUNTS {
            return Err(FilesError::TooMany {
                found: all.found.len(),
            });
        }
    }
    Ok(all)
}

/// What all patterns of a policy have taken so far.
struct Walk {
    looked_at: usize,
    until: Instant,
}

impl Default for Walk {
    fn default() -> Self {
        Self {
            looked_at: 0,
            until: Instant::now() + PATIENCE,
        }
    }
}

/// One rule.
struct One<'a> {
    inside: &'a Inside,
    right: FileRight,
    rule: &'a FileRule,
}

// === impl One ===

impl One<'_> {
    fn at(&self, path: &Path, may_be_missing: bool) -> Result<Option<Found>, FilesError> {
        match self.inside.open(path) {
            Ok(file) => self.looked_at(path, &file).map(Some),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if may_be_missing => Ok(None),
                Some(libc::ENOENT | libc::ENOTDIR) => Err(FilesError::Missing {
                    key: self.rule.key(self.right),
                    path: self.rule.path.to_string(),
                    origin: self.rule.origin.to_string(),
                }),
                Some(libc::ELOOP) => Err(self.link(path)),
                _ => Err(io_error("look at", shown(path))(error)),
            },
        }
    }

    fn link(&self, path: &Path) -> FilesError {
        let found = self.inside.follow(path);
        FilesError::Link {
            key: self.rule.key(self.right),
            path: shown(path),
            origin: self.rule.origin.to_string(),
            found: match found {
                Ok(found) => shown(&found),
                Err(_) => "nothing that is there".to_owned(),
            },
        }
    }

    fn looked_at(&self, path: &Path, file: &OwnedFd) -> Result<Found, FilesError> {
        let failed = || io_error("look at", shown(path));
        let kind = sys::kind(file).map_err(failed())?;
        if kind == libc::S_IFLNK {
            return Err(self.link(path));
        }
        Ok(Found {
            path: path.to_owned(),
            right: self.right,
            origin: self.rule.origin.to_string(),
            identity: sys::identity(file).map_err(failed())?,
            is_directory: kind == libc::S_IFDIR,
            keep: true,
            listed: false,
        })
    }

    /// Everything below a directory that a pattern stands for; what is below such a thing is covered with it.
    fn matching(
        &self,
        from: &Path,
        pattern: &[&str],
        walk: &mut Walk,
        found: &mut Vec<Found>,
    ) -> Result<(), FilesError> {
        let too_much = || FilesError::TooMuch {
            key: self.rule.key(self.right),
            path: self.rule.path.to_string(),
        };
        let deepest = (!pattern.contains(&"**")).then_some(pattern.len());
        let mut waiting: Vec<PathBuf> = vec![from.to_owned()];
        let mut held = 0;
        while let Some(directory) = waiting.pop() {
            held -= directory.as_os_str().len().min(held);
            let mut listed = match self.list(&directory) {
                Ok(listed) => listed,
                // The pattern's own beginning, or gone since.
                Err(error)
                    if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) =>
                {
                    continue;
                }
                Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                    return Err(self.link(&directory));
                }
                Err(error) => return Err(io_error("list", shown(&directory))(error)),
            };
            for entry in listed.iter() {
                let entry = entry.map_err(|e| io_error("list", shown(&directory))(e.into()))?;
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                walk.looked_at += 1;
                if walk.looked_at > MAX_LOOKED_AT || Instant::now() > walk.until {
                    return Err(too_much());
                }
                let path = directory.join(OsStr::from_bytes(name));
                let below = path.strip_prefix(from).unwrap_or(&path);
                let segments: Vec<_> = below
                    .components()
                    .map(|segment| segment.as_os_str().to_string_lossy())
                    .collect();
                let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
                if segments_match(pattern, &segments) {
                    found.extend(self.at(&path, true)?);
                    if found.len() > MAX_MOUNTS {
                        return Err(FilesError::TooMany { found: found.len() });
                    }
                } else if entry.file_type().is_none_or(|kind| kind == Type::Directory)
                    && deepest.is_none_or(|deepest| segments.len() < deepest)
                {
                    held += path.as_os_str().len();
                    if held > MAX_WAITING_BYTES {
                        return Err(too_much());
                    }
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Dir> {
        Ok(Dir::from_fd(self.inside.list(directory)?)?)
    }
}
