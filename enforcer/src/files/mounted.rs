//! What mounts alone hold: a root that is read-only, covers of control files, what was bound so. Whoever comes by such a mount is held by it. A
//! descriptor from outside comes by another one, so the programs about files are told where these are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::enter::{self, Inside};
use super::table::Say;
use super::{FilesError, sys};

/// Where a file is mounted, and where it changes, from the root down, whether what is mounted is read-only.
pub fn places(inside: &Inside) -> Result<Vec<(PathBuf, Say)>, FilesError> {
    let mut shown = BTreeMap::new();
    for mount in inside.mounts()? {
        let path = enter::place(&mount.at);
        let there = inside.open(&path);
        let there = there.and_then(|there| Ok((sys::mount_of(&there)?.id, sys::kind(&there)?)));
        // One that lies hidden under another, or where nobody comes, shows nothing.
        if let Ok((id, kind)) = there
            && id == mount.id
        {
            let (read_only, file) = (mount.read_only, kind == libc::S_IFREG);
            shown.insert(path, Say::Mounted { read_only, file });
        }
    }
    Ok(changes(&shown))
}

fn changes(shown: &BTreeMap<PathBuf, Say>) -> Vec<(PathBuf, Say)> {
    let is_closed = |say: &Say| {
        matches!(
            say,
            Say::Mounted {
                read_only: true,
                ..
            }
        )
    };
    let above = |path: &Path| {
        let nearest = path.ancestors().skip(1).find_map(|above| shown.get(above));
        nearest.is_some_and(is_closed)
    };
    let changes = shown.iter().filter(|(path, say)| {
        let is_file = matches!(say, Say::Mounted { file: true, .. });
        is_file || above(path) != is_closed(say)
    });
    changes.map(|(path, say)| (path.clone(), *say)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RO: Say = said(true, false);
    const RW: Say = said(false, false);
    const RW_FILE: Say = said(false, true);

    const fn said(read_only: bool, file: bool) -> Say {
        Say::Mounted { read_only, file }
    }

    #[test]
    fn places_are_files_and_where_it_changes_whether_something_is_read_only() {
        let is = |mounts: &[(&str, Say)], expected: &[(&str, Say)]| {
            let of = |mounts: &[(&str, Say)]| -> BTreeMap<PathBuf, Say> {
                let mounts = mounts.iter();
                mounts.map(|(path, say)| (path.into(), *say)).collect()
            };
            let found: BTreeMap<PathBuf, Say> = changes(&of(mounts)).into_iter().collect();
            assert_eq!(found, of(expected));
        };
        is(&[("", RW), ("proc", RW), ("w", RW)], &[]);
        is(
            &[
                ("", RW),
                ("sys", RO),
                ("w", RW),
                ("w/.git/hooks", RO),
                ("w/.git/config", RW_FILE),
            ],
            &[
                ("sys", RO),
                ("w/.git/hooks", RO),
                ("w/.git/config", RW_FILE),
            ],
        );
        // A root that is read-only, with what is writable in it and read-only in that.
        is(
            &[
                ("", RO),
                ("dev", RW),
                ("dev/shm", RW),
                ("w", RO),
                ("w/cache", RW),
                ("w/cache/kept", RO),
            ],
            &[("", RO), ("dev", RW), ("w/cache", RW), ("w/cache/kept", RO)],
        );
    }
}
