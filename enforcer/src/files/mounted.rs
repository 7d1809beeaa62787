//! What is read-only by its mount alone: all of a root that is, the covers of control files, what was bound so. Whoever comes by such a mount is
//! held by it. A descriptor from outside comes by another one, so the programs about files are told where these are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::enter::{self, Inside};
use super::{FilesError, sys};

/// Where it changes, from the root down, whether what is mounted there is read-only.
pub fn places(inside: &Inside) -> Result<Vec<(PathBuf, bool)>, FilesError> {
    let mut shown = BTreeMap::new();
    for mount in inside.mounts()? {
        let path = enter::place(&mount.at);
        let there = inside.open(&path).and_then(|there| sys::mount_of(&there));
        // One that lies hidden under another, or where nobody comes, shows nothing.
        if there.is_ok_and(|there| there.id == mount.id) {
            shown.insert(path, mount.read_only);
        }
    }
    Ok(changes(&shown))
}

fn changes(shown: &BTreeMap<PathBuf, bool>) -> Vec<(PathBuf, bool)> {
    let above = |path: &Path| {
        let nearest = path.ancestors().skip(1).find_map(|above| shown.get(above));
        nearest.copied().unwrap_or(false)
    };
    let changes = shown
        .iter()
        .filter(|(path, read_only)| above(path) != **read_only);
    changes
        .map(|(path, read_only)| (path.clone(), *read_only))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_where_it_changes_whether_something_is_read_only() {
        let of = |mounts: &[(&str, bool)]| -> Vec<(String, bool)> {
            let shown = mounts
                .iter()
                .map(|(path, read_only)| (PathBuf::from(path), *read_only));
            let changes = changes(&shown.collect()).into_iter();
            changes
                .map(|(path, read_only)| (path.display().to_string(), read_only))
                .collect()
        };
        let is = |found: Vec<(String, bool)>, expected: &[(&str, bool)]| {
            let found: Vec<(&str, bool)> = found.iter().map(|(p, r)| (p.as_str(), *r)).collect();
            assert_eq!(found, expected);
        };
        is(of(&[("", false), ("proc", false), ("w", false)]), &[]);
        is(
            of(&[
                ("", false),
                ("sys", true),
                ("w", false),
                ("w/.git/hooks", true),
            ]),
            &[("sys", true), ("w/.git/hooks", true)],
        );
        // A root that is read-only, with what is writable in it and read-only in that.
        is(
            of(&[
                ("", true),
                ("dev", false),
                ("dev/shm", false),
                ("w", true),
                ("w/cache", false),
                ("w/cache/kept", true),
            ]),
            &[
                ("", true),
                ("dev", false),
                ("w/cache", false),
                ("w/cache/kept", true),
            ],
        );
    }
}
