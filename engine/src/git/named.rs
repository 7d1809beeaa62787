//! What a repository's configuration names that git runs from or reads: a directory of hooks, further configuration. Each is found as git finds
//! it (git-config(1), "pathname", `core.hooksPath`, `include.path`), wherever it is spelled from.

use std::collections::BTreeSet;
use std::env;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{User, geteuid};

use super::planted::first_link;
use super::{NONBLOCK, config, plain, read_all};
use crate::EngineError;

/// The most files that a repository's configuration includes.
pub const MAX_INCLUDES: usize = 64;

/// The configuration of one file, and the directory that it lies in.
pub struct From {
    parsed: config::Config,
    at: PathBuf,
}

/// A repository's configuration: its own files and whatever they include, wherever that lies.
pub struct Configs {
    all: Vec<From>,
    /// What git may read and was not followed.
    unread: Option<EngineError>,
}

// === impl From ===

impl From {
    pub fn of(text: &str, at: &Path) -> Self {
        Self {
            parsed: config::parse(text),
            at: at.to_owned(),
        }
    }

    /// Included files.
    fn included(&self) -> impl Iterator<Item = PathBuf> {
        let named = self.parsed.included();
        named.flat_map(|value| found(value, &[self.at.as_path()]))
    }
}

// === impl Configs ===

impl Configs {
    pub fn of(own: Vec<From>) -> Self {
        let mut configs = Self {
            all: own,
            unread: None,
        };
        let (mut next, mut followed) = (0, BTreeSet::new());
        while let Some(config) = configs.all.get(next) {
            let paths: Vec<PathBuf> = config.included().collect();
            if config.parsed.cut_off {
                let why = io::Error::other("it has more values than are read");
                configs.unread = Some(EngineError::io("read the configuration in", &config.at)(
                    why,
                ));
                return configs;
            }
            next += 1;
            for path in paths {
                let from = path.parent().unwrap_or(&path);
                // What it includes in turn is found from where it was named.
                let same = (path.canonicalize().ok(), from.canonicalize().ok());
                if followed.contains(&same) {
                    continue;
                }
                match read(&path) {
                    Ok(None) => {}
                    Ok(Some(text)) if followed.len() < MAX_INCLUDES => {
                        configs.all.push(From::of(&text, from));
                        followed.insert(same);
                    }
                    Ok(Some(_)) => {
                        let why = format!(
                            "the repository's configuration includes more than {MAX_INCLUDES} files"
                        );
                        configs.unread =
                            Some(EngineError::io("follow", &path)(io::Error::other(why)));
                        return configs;
                    }
                    Err(e) => configs.unread = configs.unread.or(Some(e)),
                }
            }
        }
        configs
    }

    /// # Errors
    /// Where something that is included was not followed.
    pub fn whole(self) -> Result<Self, EngineError> {
        match self.unread {
            None => Ok(self),
            Some(e) => Err(e),
        }
    }

    /// Files that are included, there or not.
    pub fn included(&self) -> impl Iterator<Item = PathBuf> {
        self.all.iter().flat_map(From::included)
    }

    /// Directories of hooks, for git that runs them in any of `places`.
    pub fn hooks(&self, places: &[&Path]) -> impl Iterator<Item = PathBuf> {
        self.values("hookspath")
            .flat_map(|value| found(value, places))
    }

    /// What it says of a key of `core`.
    pub fn values<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let all = self.all.iter();
        all.flat_map(move |config| config.parsed.values("core", None, key))
    }
}

/// An included file, if there is one: git goes through links to it.
fn read(path: &Path) -> Result<Option<String>, EngineError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(NONBLOCK)
        .open(path);
    let file = match opened {
        Ok(file) => file,
        // What the caller may not read, or leads in a circle, git here does not read either.
        Err(e)
            if matches!(
                Errno::from_raw(e.raw_os_error().unwrap_or_default()),
                Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP
            ) =>
        {
            return Ok(None);
        }
        Err(e) => return Err(EngineError::io("open", path)(e)),
    };
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    // git takes any bytes; what counts here of names and paths is in ASCII or is found nowhere.
    let bytes = read_all(file, path)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Files and directories of a workspace that a configuration makes git there run or read, each where it lies. A link by which one is named
/// is named itself.
pub fn in_workspace(configs: &Configs, workspace: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in configs.hooks(&[workspace]).chain(configs.included()) {
        let [plain, there] = spellings(&path);
        let is_within = |path: &Path| path.starts_with(workspace);
        let path = match first_link(&[workspace], &plain) {
            Some(link) => link.to_owned(),
            None if is_within(&plain) && (plain.is_symlink() || !is_within(&there)) => plain,
            None => there,
        };
        if is_within(&path) && !paths.contains(&path) {
            paths.push(path);
        }
    }
    paths
}

/// Where git that answers a push would look for hooks, whose path is relative: it runs in its own directory. None is there.
pub fn in_git_dir(configs: &Configs, dot_git: &Path) -> Vec<PathBuf> {
    let places = [dot_git];
    let named = configs.hooks(&places);
    let mut paths: Vec<PathBuf> = named.flat_map(|path| spellings(&path)).collect();
    paths.dedup();
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
    fn a_link_on_the_way_to_what_is_named_is_named_itself() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("real/hooks")).unwrap();
        std::os::unix::fs::symlink("real", root.join("tools")).unwrap();
        let named = |value: &str| {
            let own = From::of(&format!("[core]\n\thooksPath = {value}\n"), &root);
            in_workspace(&Configs::of(vec![own]), &root)
        };
        assert_eq!(named("tools/hooks"), [root.join("tools")]);
        assert_eq!(named("real/hooks"), [root.join("real/hooks")]);
    }

    #[test]
    fn what_git_takes_is_read_and_what_it_could_not_read_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::write(
            root.join("latin"),
            b"[user]\n\tname = J\xf6rg\n[core] [core]\n[a] [core] hooksPath = there\n",
        )
        .unwrap();
        std::os::unix::fs::symlink("round", root.join("round")).unwrap();
        let own = "[include]\n\tpath = latin\n\tpath = round\n\tpath = none\n";
        let configs = Configs::of(vec![From::of(own, &root)]).whole().unwrap();
        let hooks: Vec<PathBuf> = configs.hooks(&[&root]).collect();
        assert_eq!(hooks, [root.join("there")]);
        // More than is read is not whole.
        let many = "[a]\n".to_owned() + &"\tb = c\n".repeat(config::MAX_ENTRIES + 1);
        assert!(Configs::of(vec![From::of(&many, &root)]).whole().is_err());
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
