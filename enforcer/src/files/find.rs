//! From rules to the files that they are about, as they are when a session starts. No link is followed: whoever may write beside a link
//! could point it elsewhere afterwards.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::dir::{Dir, Type};
use policy::{FileRight, FileRule, Files};
use schema::config::filesystem::matches;

use super::enter::Inside;
use super::{FilesError, MAX_LOOKED_AT, MAX_MOUNTS, io_error, shown, sys};

/// The kernel's own trees, below the root, which nothing here is about.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];

/// A file that a rule is about. Paths are below the container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub path: PathBuf,
    pub right: FileRight,
    pub origin: String,
    pub identity: sys::Identity,
    pub is_directory: bool,
}

pub fn all(inside: &Inside, rules: &Files) -> Result<Vec<Found>, FilesError> {
    let mut found = Vec::new();
    let mut looked_at = 0;
    for (right, rule) in rules.all() {
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
            missing_is_fine: rules.mounts_suffice.is_some(),
        };
        if pattern.is_empty() {
            found.extend(one.at(&path)?);
        } else {
            one.matching(path, &pattern, &mut looked_at, &mut found)?;
        }
        if found.len() > MAX_MOUNTS {
            return Err(FilesError::TooMany { found: found.len() });
        }
    }
    Ok(found)
}

/// One rule.
struct One<'a> {
    inside: &'a Inside,
    right: FileRight,
    rule: &'a FileRule,
    missing_is_fine: bool,
}

// === impl One ===

impl One<'_> {
    fn at(&self, path: &Path) -> Result<Option<Found>, FilesError> {
        match self.inside.open(path) {
            Ok(file) => self.looked_at(path, &file).map(Some),
            Err(error) => match error.raw_os_error() {
                Some(libc::ENOENT | libc::ENOTDIR) if self.missing_is_fine => Ok(None),
                Some(libc::ENOENT | libc::ENOTDIR) => Err(FilesError::Missing {
                    key: self.right.key(),
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
            key: self.right.key(),
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
        })
    }

    /// Everything below a directory that a pattern stands for; what is below such a thing is covered with it.
    fn matching(
        &self,
        from: PathBuf,
        pattern: &[&str],
        looked_at: &mut usize,
        found: &mut Vec<Found>,
    ) -> Result<(), FilesError> {
        let deepest = (!pattern.contains(&"**")).then_some(pattern.len());
        let mut waiting: Vec<(PathBuf, Vec<String>)> = vec![(from, Vec::new())];
        while let Some((directory, below)) = waiting.pop() {
            // Where the workspace's folder is the root itself.
            if KERNEL.iter().any(|kernel| directory == Path::new(kernel)) {
                continue;
            }
            let listed = match self.list(&directory) {
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
            for (name, kind) in listed {
                *looked_at += 1;
                if *looked_at > MAX_LOOKED_AT {
                    return Err(FilesError::TooMuch {
                        key: self.right.key(),
                    });
                }
                let path = directory.join(std::ffi::OsStr::from_bytes(&name));
                let mut segments = below.clone();
                segments.push(String::from_utf8_lossy(&name).into_owned());
                let words: Vec<&str> = segments.iter().map(String::as_str).collect();
                if matches(pattern, &words) {
                    found.extend(self.at(&path)?);
                    if found.len() > MAX_MOUNTS {
                        return Err(FilesError::TooMany { found: found.len() });
                    }
                } else if kind != Some(Type::Symlink)
                    && kind.is_none_or(|kind| kind == Type::Directory)
                    && deepest.is_none_or(|deepest| segments.len() < deepest)
                {
                    waiting.push((path, segments));
                }
            }
        }
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<(Vec<u8>, Option<Type>)>> {
        let mut listed = Vec::new();
        for entry in Dir::from_fd(self.inside.list(directory)?)?.iter() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                listed.push((name.to_vec(), entry.file_type()));
            }
            if listed.len() > MAX_LOOKED_AT {
                break;
            }
        }
        Ok(listed)
    }
}
