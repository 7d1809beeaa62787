//! Under a list of programs, what is shown read-only at one place is not written by another, nor is a program of the list: it would be another one,
//! or other code that it maps, and no rule about its place would know. Two mounts of one directory are how that comes about.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::enter::{self, Inside, Mount};
use super::{FilesError, io_error, shown, sys};

/// A mount, and as paths where it is and what of its file system it shows.
struct Shown {
    mount: Mount,
    at: PathBuf,
    root: PathBuf,
}

/// # Errors
/// [`FilesError::Twice`] where something is.
pub fn none(inside: &Inside, listed: &BTreeSet<PathBuf>) -> Result<(), FilesError> {
    let all: Vec<Shown> = inside.mounts()?.into_iter().map(Shown::from).collect();
    let (fixed, open): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.mount.read_only);
    for (fixed, open) in fixed
        .iter()
        .flat_map(|one| open.iter().map(move |other| (one, other)))
    {
        if let Some((path, other)) = both(fixed, open)
            && is_by(inside, &path, fixed)?
            && is_by(inside, &other, open)?
        {
            return Err(twice(&path, &other));
        }
    }
    for file in listed {
        for one in all.iter().filter(|one| file.starts_with(&one.at)) {
            let Some(of) = file
                .strip_prefix(&one.at)
                .ok()
                .map(|rest| join(&one.root, rest))
            else {
                continue;
            };
            if !is_by(inside, file, one)? {
                continue;
            }
            for open in open
                .iter()
                .filter(|open| open.mount.device == one.mount.device)
            {
                let Ok(rest) = of.strip_prefix(&open.root) else {
                    continue;
                };
                let other = join(&open.at, rest);
                if other != *file && is_by(inside, &other, open)? {
                    return Err(twice(file, &other));
                }
            }
        }
    }
    Ok(())
}

fn twice(path: &Path, other: &Path) -> FilesError {
    FilesError::Twice {
        path: shown(path),
        other: shown(other),
    }
}

/// The places of what both show, where they are two.
fn both(fixed: &Shown, open: &Shown) -> Option<(PathBuf, PathBuf)> {
    if fixed.mount.device != open.mount.device {
        return None;
    }
    let (path, other) = match fixed.root.strip_prefix(&open.root) {
        Ok(rest) => (fixed.at.clone(), join(&open.at, rest)),
        Err(_) => {
            let rest = open.root.strip_prefix(&fixed.root).ok()?;
            (join(&fixed.at, rest), open.at.clone())
        }
    };
    (path != other).then_some((path, other))
}

/// Whether what is at a place is there by that mount: another may lie above it.
fn is_by(inside: &Inside, path: &Path, by: &Shown) -> Result<bool, FilesError> {
    let there = match inside.open(path) {
        Ok(there) => there,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
            return Ok(false);
        }
        Err(error) => return Err(io_error("open", shown(path))(error)),
    };
    let on = sys::mount_of(&there).map_err(io_error("look at the mount of", shown(path)))?;
    Ok(on.id == by.mount.id)
}

/// Without the slash at the end that makes a file no file.
fn join(above: &Path, rest: &Path) -> PathBuf {
    match rest.as_os_str().is_empty() {
        true => above.to_owned(),
        false => above.join(rest),
    }
}

// === impl Shown ===

impl From<Mount> for Shown {
    fn from(mount: Mount) -> Self {
        Self {
            at: enter::place(&mount.at),
            root: enter::place(&mount.root),
            mount,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn one(device: &str, root: &str, at: &str) -> Shown {
        Shown::from(Mount {
            id: 0,
            parent: 0,
            device: device.into(),
            root: root.into(),
            at: at.into(),
            read_only: false,
            noexec: false,
            shared: false,
            idmapped: false,
        })
    }

    #[test]
    fn two_mounts_show_the_same_where_one_is_of_what_the_other_is_of() {
        let workspace = one("8:1", "/home/a/ws", "/workspaces/ws");
        for (root, at, expected) in [
            (
                "/home/a/ws/tools",
                "/opt/tools",
                Some(("opt/tools", "workspaces/ws/tools")),
            ),
            ("/home/a/ws", "/opt", Some(("opt", "workspaces/ws"))),
            ("/home/a", "/home", Some(("home/ws", "workspaces/ws"))),
            // In its place.
            ("/home/a/ws/src", "/workspaces/ws/src", None),
            ("/home/a/ws", "/workspaces/ws", None),
            ("/home/a/ws2", "/opt", None),
            ("/home/b", "/opt", None),
        ] {
            let found = both(&one("8:1", root, at), &workspace);
            let expected = expected.map(|(path, other)| (path.into(), other.into()));
            assert_eq!(found, expected, "{root}");
        }
        assert_eq!(both(&one("8:2", "/home/a/ws", "/opt"), &workspace), None);
    }
}
