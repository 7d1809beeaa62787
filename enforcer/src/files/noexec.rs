//! Under a list of what may be started, what can be written holds no program but where one is listed: such a mount is noexec, so that nothing on it
//! is started, nor mapped to be executed, by whomever and on every kernel. The mounts themselves are changed, and none is made.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::enter::{self, Inside, Mount};
use super::{FilesError, io_error, shown, sys};

/// Places that an account of it writes out.
const FEW: usize = 12;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NoExec {
    /// Nothing is started from these.
    pub closed: BTreeSet<PathBuf>,
    /// Something that is listed lies in these.
    pub left: BTreeSet<PathBuf>,
}

/// What is asked of the mounts.
pub struct Rule<'a> {
    /// What may be started, without a link and below the root.
    pub listed: &'a BTreeSet<PathBuf>,
    /// What rules leave writable in what is read-only.
    pub writable: &'a [PathBuf],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It cannot be written, or is the image's own.
    Free,
    Left,
    Closed,
    /// To be closed.
    Open,
}

/// Whether nothing that is listed is at a place or below it. What is listed is files, as they were found: there are no patterns among them.
pub fn is_empty_of(listed: &BTreeSet<PathBuf>, place: &Path) -> bool {
    !listed.iter().any(|file| file.starts_with(place))
}

/// # Errors
/// By the kernel's word something could be started all the same.
pub fn close(inside: &Inside, rule: &Rule<'_>) -> Result<NoExec, FilesError> {
    let before = judged(inside, rule)?;
    inside.within(|| {
        for (mount, at, _) in before.iter().filter(|one| one.2 == Verdict::Open) {
            if let Some(there) = reached(inside, mount, at)? {
                sys::set_flags(&there, sys::NOEXEC, false)
                    .map_err(io_error("let nothing be started from", shown(at)))?;
            }
        }
        Ok(())
    })?;
    let mut done = NoExec::default();
    // The kernel's word, of what can be reached.
    for (mount, at, verdict) in judged(inside, rule)? {
        match verdict {
            Verdict::Free => {}
            Verdict::Left => drop(done.left.insert(at)),
            Verdict::Closed => drop(done.closed.insert(at)),
            Verdict::Open if reached(inside, &mount, &at)?.is_none() => {}
            Verdict::Open => {
                return Err(FilesError::NotHeld {
                    path: shown(&at),
                    what: "programs can be started from it",
                });
            }
        }
    }
    Ok(done)
}

/// The mounts as the namespace lists them, with where each is.
fn judged(inside: &Inside, rule: &Rule<'_>) -> Result<Vec<(Mount, PathBuf, Verdict)>, FilesError> {
    let mounts = inside.mounts()?;
    let root = inside.open(Path::new(""));
    let root = root.and_then(|root| sys::mount_of(&root));
    let root = root.map_err(io_error("look at the mount of", "/"))?.id;
    let root = mounts.iter().find(|mount| mount.id == root).cloned();
    let root = root.ok_or_else(|| FilesError::NotHeld {
        path: "/".to_owned(),
        what: "its mount is not listed",
    })?;
    let of = |mount: Mount| {
        let at = enter::place(&mount.at);
        let verdict = verdict(&mount, &at, &root, rule);
        (mount, at, verdict)
    };
    Ok(mounts.into_iter().map(of).collect())
}

fn verdict(mount: &Mount, at: &Path, root: &Mount, rule: &Rule<'_>) -> Verdict {
    let is_images = mount.is_of(root) && !rule.writable.iter().any(|above| at.starts_with(above));
    if mount.read_only || at.as_os_str().is_empty() || is_images {
        return Verdict::Free;
    }
    match is_empty_of(rule.listed, at) {
        false => Verdict::Left,
        true if mount.noexec => Verdict::Closed,
        true => Verdict::Open,
    }
}

/// A mount by its place; nothing where it lies hidden under another: what is above is listed too.
fn reached(
    inside: &Inside,
    mount: &Mount,
    at: &Path,
) -> Result<Option<std::os::fd::OwnedFd>, FilesError> {
    let failed = |call| io_error(call, shown(at));
    let there = match inside.open(at) {
        Ok(there) => there,
        Err(error) if is_hidden(&error) => return Ok(None),
        Err(error) => return Err(failed("open")(error)),
    };
    let on = sys::mount_of(&there).map_err(failed("look at the mount of"))?;
    Ok((on.id == mount.id && on.is_root).then_some(there))
}

fn is_hidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR))
}

// === impl NoExec ===

impl std::fmt::Display for NoExec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "nothing is started from {} mounts that can be written (noexec)",
            self.closed.len()
        )?;
        if self.left.is_empty() {
            return Ok(());
        }
        let few: Vec<String> = self.left.iter().take(FEW).map(|at| shown(at)).collect();
        write!(f, "; something listed lies in: {}", few.join(" "))?;
        match self.left.len().saturating_sub(FEW) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str, read_only: bool) -> Mount {
        Mount {
            id: 0,
            parent: 0,
            device: device.into(),
            root: root.into(),
            at: Vec::new(),
            read_only,
            noexec: false,
            shared: false,
            idmapped: false,
        }
    }

    #[test]
    fn what_is_listed_lies_at_a_place_or_below_it_by_whole_names() {
        for (listed, place, expected) in [
            (&["w/bin/tool"][..], "w", false),
            (&["w/bin/tool"], "w/bin", false),
            // A mount of one file.
            (&["w/bin/tool"], "w/bin/tool", false),
            (&["w/bin/tool"], "w/bin/tool/x", true),
            (&["w/bin/tool"], "w/bin/too", true),
            (&["w/bin/tool"], "w/b", true),
            (&["w2/tool"], "w", true),
            (&["w/tool"], "w2", true),
            (&["usr/bin/sh", "w/tool"], "w", false),
            (&["usr/bin/sh"], "w", true),
            // No patterns: a star is a star.
            (&["w/*/tool"], "w", false),
            (&["w/*/tool"], "w/x", true),
            (&["*/tool"], "w", true),
            (&[], "w", true),
        ] {
            let files = listed.iter().map(PathBuf::from).collect();
            let is = is_empty_of(&files, Path::new(place));
            assert_eq!(is, expected, "{listed:?} {place}");
        }
    }

    #[test]
    fn what_can_be_written_is_closed_but_what_is_the_images_or_has_something_listed() {
        use Verdict::{Closed, Free, Left, Open};
        let root = mount("0:50", "/", false);
        let listed = BTreeSet::from(["usr/bin/sh".into(), "tools/own".into()]);
        let rule = Rule {
            listed: &listed,
            writable: &["home/a".into(), "tools/own".into()],
        };
        for (at, device, of, read_only, expected) in [
            ("", "0:50", "/", false, Free),
            // The image's, kept in its place.
            ("etc", "0:50", "/etc", false, Free),
            ("w", "8:1", "/home/a/ws", false, Open),
            ("w/src", "8:1", "/home/a/ws/src", true, Free),
            ("w/.git", "8:1", "/home/a/ws/.git", false, Open),
            ("dev", "0:60", "/", false, Open),
            ("dev/shm", "0:61", "/", false, Open),
            ("tools", "0:62", "/", false, Left),
            ("toolset", "0:62", "/", false, Open),
            ("tools/cache", "0:63", "/", false, Open),
            // Writable in a root that is read-only, and a directory that is kept in it.
            ("home/a", "0:50", "/home/a", false, Open),
            ("home/a/x", "0:50", "/home/a/x", false, Open),
            ("home/ab", "0:50", "/home/ab", false, Free),
            ("tools/own", "0:50", "/tools/own", false, Left),
        ] {
            let found = verdict(&mount(device, of, read_only), Path::new(at), &root, &rule);
            assert_eq!(found, expected, "{at}");
        }
        for (at, expected) in [("dev/shm", Closed), ("tools", Left), ("", Free)] {
            let mut mount = mount("0:60", "/", false);
            mount.noexec = true;
            assert_eq!(
                verdict(&mount, Path::new(at), &root, &rule),
                expected,
                "{at}"
            );
        }
        // A root that is a directory on the disk of the workspace.
        let root = mount("8:1", "/var/lib/engine/1", false);
        for (of, expected) in [("/home/a/ws", Open), ("/var/lib/engine/1/etc", Free)] {
            let found = verdict(&mount("8:1", of, false), Path::new("w"), &root, &rule);
            assert_eq!(found, expected, "{of}");
        }
    }

    #[test]
    fn an_account_of_it_names_what_is_left() {
        let mut done = NoExec::default();
        done.closed.extend(["w".into(), "dev".into()]);
        let text = "nothing is started from 2 mounts that can be written (noexec)";
        assert_eq!(done.to_string(), text);
        done.left
            .extend((0..14).map(|n| PathBuf::from(format!("t{n:02}"))));
        let said = done.to_string();
        assert!(said.starts_with(&format!("{text}; something listed lies in: /t00 /t01")));
        assert!(said.ends_with("/t11 and 2 more"), "{said}");
    }
}
