//! What a repository's configuration names that git runs from or reads: a directory of hooks, further configuration. Each is found as git finds
//! it (git-config(1), "pathname", `core.hooksPath`, `include.path`), wherever it is spelled from.

use std::env;
use std::path::{Path, PathBuf};

use nix::unistd::{User, geteuid};

use super::{config, plain};

/// The configuration of one file, and the directory that it lies in.
pub struct From<'a> {
    parsed: config::Config,
    at: &'a Path,
}

// === impl From ===

impl<'a> From<'a> {
    pub fn of(text: &str, at: &'a Path) -> Self {
        Self {
            parsed: config::parse(text),
            at,
        }
    }

    /// Included files.
    pub fn included(&self) -> Vec<PathBuf> {
        let named = self.parsed.included();
        named.flat_map(|value| found(value, &[self.at])).collect()
    }

    /// Directories of hooks, for git that runs them in any of `places`.
    pub fn hooks(&self, places: &[&Path]) -> Vec<PathBuf> {
        let named = self.parsed.values("core", None, "hookspath");
        named.flat_map(|value| found(value, places)).collect()
    }
}

/// Files and directories that a repository's own configuration makes git in the workspace run or read.
pub fn in_workspace(configs: &[From<'_>], workspace: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for config in configs {
        let found = config.hooks(&[workspace]).into_iter();
        for path in found.chain(config.included()).map(|path| plain(&path)) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
    }
    paths
}

/// Where git that answers a push would look for hooks, whose path is relative: it runs in its own directory. None is there.
pub fn in_git_dir(configs: &[From<'_>], dot_git: &Path) -> Vec<PathBuf> {
    let named = configs.iter().flat_map(|config| config.hooks(&[dot_git]));
    let mut paths: Vec<PathBuf> = named.map(|path| plain(&path)).collect();
    paths.retain(|path| path.starts_with(dot_git) && path.symlink_metadata().is_err());
    paths
}

/// Where a value leads: from each place, and from each home that git may have been told.
fn found(value: &str, places: &[&Path]) -> Vec<PathBuf> {
    let value = value.strip_prefix(":(optional)").unwrap_or(value);
    // The latter is where git is installed.
    if value.is_empty() || value.starts_with("%(prefix)/") {
        return Vec::new();
    }
    let Some(rest) = value.strip_prefix('~') else {
        return places.iter().map(|at| at.join(value)).collect();
    };
    let (user, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let homes = match user {
        "" => homes(),
        user => home(User::from_name(user)).into_iter().collect(),
    };
    homes.iter().map(|home| home.join(rest)).collect()
}

/// The caller's.
fn homes() -> Vec<PathBuf> {
    let said = env::var_os("HOME").map(PathBuf::from);
    let said = said.filter(|home| home.is_absolute());
    said.into_iter()
        .chain(home(User::from_uid(geteuid())))
        .collect()
}

fn home(user: nix::Result<Option<User>>) -> Option<PathBuf> {
    Some(user.ok()??.dir)
}

/// The two spellings that count: the path's own, and the one without links, as far as it is there.
pub fn spellings(path: &Path) -> [PathBuf; 2] {
    let there = path.ancestors().find_map(|above| {
        let rest = path.strip_prefix(above).ok()?;
        Some(plain(&above.canonicalize().ok()?.join(rest)))
    });
    let plain = plain(path);
    [plain.clone(), there.unwrap_or(plain)]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_value_is_found_from_where_git_takes_it() {
        let at = [Path::new("/a"), Path::new("/b")];
        let from = |value| found(value, &at);
        assert_eq!(from("x"), [Path::new("/a/x"), Path::new("/b/x")]);
        assert_eq!(from("/x"), [Path::new("/x"); 2]);
        assert_eq!(from(":(optional)/x"), [Path::new("/x"); 2]);
        assert!(from("").is_empty() && from("%(prefix)/x").is_empty());
        let home = PathBuf::from(env::var_os("HOME").unwrap());
        assert!(from("~/x").contains(&home.join("x")));
        assert!(from("~").contains(&home));
        let root = User::from_name("root").unwrap().unwrap().dir;
        assert_eq!(from("~root/x"), [root.join("x")]);
        assert!(from("~nobody-of-that-name/x").is_empty());
    }

    #[test]
    fn a_path_through_a_link_is_also_where_that_leads() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::os::unix::fs::symlink("real", root.join("link")).unwrap();
        assert_eq!(
            spellings(&root.join("link/none/../x")),
            [root.join("link/x"), root.join("real/x")]
        );
        assert_eq!(spellings(&root.join("a/../b"))[0], root.join("b"));
    }
}
