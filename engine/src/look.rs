//! One bounded look through a workspace, taken when a session begins and when it ends: the sockets and pipes in it, the git
//! repositories, the control files below its root. It follows no link and opens no file; what is found is judged elsewhere
//! (`veil`, `git`).

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use crate::control;

/// The most directory entries that are looked at.
pub const MAX_ENTRIES: usize = 1_000_000;
/// How deep.
pub const MAX_DEPTH: usize = 64;
/// The most control files below the root that are kept in mind.
pub const MAX_CONTROLS: usize = 10_000;

/// What lies in a workspace, each by its path on the host.
#[derive(Debug, Default)]
pub struct Seen {
    /// Sockets and named pipes, but for those that only hold a control file's place.
    pub doors: Vec<PathBuf>,
    /// Directories that may not be listed.
    pub closed: Vec<PathBuf>,
    /// What has the form of a git directory.
    pub repositories: Vec<PathBuf>,
    /// Each `.git` that is no directory.
    pub pointers: Vec<PathBuf>,
    /// Control files below the root, and those of any name.
    pub controls: Vec<PathBuf>,
    /// There was more than is looked at.
    pub cut_off: bool,
}

// === impl Seen ===

impl Seen {
    /// As far as git is concerned, what of it lies in one directory.
    pub fn below(&self, directory: &Path) -> Self {
        let within = |paths: &[PathBuf]| -> Vec<PathBuf> {
            let paths = paths.iter().filter(|path| path.starts_with(directory));
            paths.cloned().collect()
        };
        Self {
            repositories: within(&self.repositories),
            pointers: within(&self.pointers),
            cut_off: self.cut_off,
            ..Self::default()
        }
    }
}

/// Looks at no more than `most` entries.
pub fn through(workspace: &Path, most: usize) -> Seen {
    let mut look = Look {
        left: most,
        seen: Seen::default(),
    };
    look.directory(workspace, 0, Below::Root);
    look.seen
}

/// Where a directory lies, as far as control files are concerned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    Root,
    Tree,
    /// In a control directory: all of it counts.
    Control,
    /// In other people's packages, which nobody opens by themselves.
    Packages,
}

struct Look {
    left: usize,
    seen: Seen,
}

impl Look {
    fn directory(&mut self, path: &Path, depth: usize, place: Below) {
        if depth > MAX_DEPTH {
            self.seen.cut_off = true;
            return;
        }
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            // It has just gone.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return,
            Err(_) => {
                self.seen.closed.push(path.to_owned());
                return;
            }
        };
        let (mut below, mut marks) = (Vec::new(), 0);
        for entry in entries.flatten() {
            if self.left == 0 {
                self.seen.cut_off = true;
                return;
            }
            self.left -= 1;
            let (name, kind) = (entry.file_name(), entry.file_type());
            let is = |is: fn(&fs::FileType) -> bool| kind.as_ref().is_ok_and(is);
            let is_directory = is(fs::FileType::is_dir);
            match name.to_str() {
                Some(".git") if !is_directory => self.seen.pointers.push(entry.path()),
                Some("HEAD" | "objects" | "refs" | "commondir") => marks += 1,
                _ => {}
            }
            let at_root = place == Below::Root;
            if is(FileTypeExt::is_socket) || is(FileTypeExt::is_fifo) {
                if !(at_root && is(FileTypeExt::is_socket) && control::has_file_place(&name)) {
                    self.seen.doors.push(entry.path());
                }
                continue;
            }
            let here = inside(place, &name);
            if is_directory {
                below.push((entry.path(), here));
            } else if here == Below::Control {
                if self.seen.controls.len() < MAX_CONTROLS {
                    self.seen.controls.push(entry.path());
                } else {
                    self.seen.cut_off = true;
                }
            }
        }
        // Of `.git` and bare repositories, and of working trees' own directories.
        if marks >= 2 {
            self.seen.repositories.push(path.to_owned());
        }
        for (path, here) in below {
            self.directory(&path, depth + 1, here);
        }
    }
}

/// Where something of this name lies.
fn inside(place: Below, name: &OsStr) -> Below {
    match place {
        Below::Control | Below::Packages => place,
        _ if name == "node_modules" => Below::Packages,
        _ if control::is_workspace_file(name) => Below::Control,
        // Those at the root are mounts, and looked at by name.
        Below::Root if control::is_control(name) => Below::Packages,
        Below::Tree if control::is_control(name) => Below::Control,
        _ => Below::Tree,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn how_much_is_looked_at_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..5 {
            fs::write(dir.path().join(n.to_string()), "").unwrap();
        }
        assert!(!through(dir.path(), 5).cut_off);
        assert!(through(dir.path(), 4).cut_off);
        let deep = |n| {
            let dir = tempfile::tempdir().unwrap();
            fs::create_dir_all(dir.path().join("d/".repeat(n))).unwrap();
            through(dir.path(), MAX_ENTRIES).cut_off
        };
        assert!(!deep(MAX_DEPTH));
        assert!(deep(MAX_DEPTH + 1));
        let controls = |n: usize| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a/.vscode");
            fs::create_dir_all(&path).unwrap();
            for n in 0..n {
                fs::write(path.join(n.to_string()), "").unwrap();
            }
            through(dir.path(), MAX_ENTRIES).cut_off
        };
        assert!(!controls(MAX_CONTROLS));
        assert!(controls(MAX_CONTROLS + 1));
    }

    #[test]
    fn control_files_below_the_root_are_seen_but_not_those_of_packages() {
        let dir = tempfile::tempdir().unwrap();
        for path in [
            ".vscode/a",
            "p/.vscode/x/b",
            "p/.mcp.json",
            "all.code-workspace",
            "p/node_modules/q/.vscode/c",
            "p/src/d",
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let mut seen = through(dir.path(), MAX_ENTRIES).controls;
        seen.sort();
        assert_eq!(
            seen,
            ["all.code-workspace", "p/.mcp.json", "p/.vscode/x/b"]
                .map(|path| dir.path().join(path))
        );
    }
}
