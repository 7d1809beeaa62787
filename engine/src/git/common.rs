//! The directory that git inside takes for the repository's common one (gitrepository-layout(5), commondir). `config` lies
//! in it as a plain file, so that git can replace it by renaming a lock over it, which it cannot where the file itself is a
//! mount. Everything else that git keeps in common is a link to the workspace's own `.git`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use super::beneath::Dir;
use super::{Doing, MAX_CONFIG, config};
use crate::EngineError;
use crate::request::{LENT_COMMON, Mount};

/// Where it is inside.
pub const TARGET: &str = "/.agentcontainer-git";
/// Where the names are that git is to ignore, in a container that has no repository yet.
pub const EXCLUDES: &str = "/.agentcontainer-git-exclude";
/// In the session's directory.
const DIRECTORY: &str = "git";
const COMMONDIR: &str = "commondir";
const EXCLUDE: &str = "git.exclude";
/// The copy of the configuration as it was at first.
pub const GIVEN: &str = "gitconfig.given";

/// What git finds by a link even where it is not there yet: each is made by a rename beside what the link leads to.
const ALWAYS: &[&str] = &["objects", "refs", "logs", "hooks", "packed-refs", "shallow"];
/// What is a link only where it is there.
const WHERE_THERE: &[&str] = &[
    "annex",
    "branches",
    "lfs",
    "lost-found",
    "reftable",
    "remotes",
    "rr-cache",
    "svn",
    "worktrees",
];
/// No commit, and no branch that anybody would make: git takes the directory for a second working tree's.
const HEAD: &str = "ref: refs/heads/agentcontainer/none\n";

/// Between what and where.
pub struct Place<'a> {
    /// The repository's own directory.
    pub dot_git: &'a Path,
    /// The same inside.
    pub inside: &'a str,
    /// Inside: the directory that git is led from, by its `commondir`.
    pub from: &'a str,
    pub session_dir: &'a Path,
    pub owner: (u32, u32),
    /// Other working trees, where the repository's own word for them is not there inside.
    pub trees: &'a [Tree],
}

/// A working tree, as far as it keeps its branch from being taken by another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    pub name: String,
    /// What its HEAD says.
    pub head: String,
    /// Its `.git`, on the host.
    pub at: String,
}

/// The private copy.
pub fn config(session_dir: &Path) -> PathBuf {
    session_dir.join(DIRECTORY).join("config")
}

/// Whether a repository that was shallow has been given the rest of its history: git takes the link away then.
pub fn is_deep(session_dir: &Path) -> bool {
    session_dir
        .join(DIRECTORY)
        .join("shallow")
        .symlink_metadata()
        .is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// Makes the directory, and says how it is mounted.
pub fn make(
    place: &Place<'_>,
    base: &str,
    masks: &[&str],
    doing: Doing,
) -> Result<[Mount; 2], EngineError> {
    let directory = place.session_dir.join(DIRECTORY);
    let commondir = place.session_dir.join(COMMONDIR);
    if doing == Doing::Write {
        fill(place, &directory, base, masks).map_err(EngineError::io(
            "make git's directory for the session",
            &directory,
        ))?;
    }
    doing.write_readable(&commondir, &format!("{TARGET}\n"))?;
    Ok([
        Mount::Session {
            source: directory.display().to_string(),
            target: TARGET.to_owned(),
            read_only: false,
        },
        Mount::Session {
            source: commondir.display().to_string(),
            target: format!("{}/commondir", place.from),
            read_only: true,
        },
    ])
}

fn fill(place: &Place<'_>, directory: &Path, base: &str, masks: &[&str]) -> std::io::Result<()> {
    let given = absolute_includes(base, place.inside);
    fs::write(place.session_dir.join(GIVEN), &given)?;
    fs::create_dir(directory)?;
    fs::create_dir(directory.join("info"))?;
    fs::write(directory.join("config"), &given)?;
    fs::write(directory.join("HEAD"), HEAD)?;
    // What cannot be read is none: a session of before may have put anything there.
    let exclude = Dir::open(place.dot_git).and_then(|dir| dir.read("info/exclude", MAX_CONFIG));
    let mut excluded = exclude.ok().flatten().unwrap_or_default();
    excluded.extend(excludes_of(masks).as_bytes());
    fs::write(directory.join("info/exclude"), excluded)?;
    let own = place.inside;
    symlink(
        format!("{own}/info/attributes"),
        directory.join("info/attributes"),
    )?;
    trees(place, directory)?;
    // Where the repository's own lies outside, it is covered, and git makes another here.
    let is_lent = place.inside == LENT_COMMON;
    let there = WHERE_THERE
        .iter()
        .filter(|name| !(is_lent && **name == "worktrees"))
        .filter(|name| directory.join(name).symlink_metadata().is_err())
        .filter(|name| place.dot_git.join(name).symlink_metadata().is_ok());
    for name in ALWAYS.iter().chain(there) {
        symlink(format!("{own}/{name}"), directory.join(name))?;
    }
    for name in ["", "info", "info/exclude", "config", "HEAD"] {
        hand_over(&directory.join(name), place.owner)?;
    }
    Ok(())
}

/// Working trees as git keeps them (gitrepository-layout(5), `worktrees`), locked: their places are not there inside.
fn trees(place: &Place<'_>, directory: &Path) -> std::io::Result<()> {
    if place.trees.is_empty() {
        return Ok(());
    }
    let all = directory.join("worktrees");
    fs::create_dir(&all)?;
    hand_over(&all, place.owner)?;
    for tree in place.trees {
        let one = all.join(&tree.name);
        fs::create_dir(&one)?;
        hand_over(&one, place.owner)?;
        let said = [
            ("HEAD", tree.head.as_str()),
            ("gitdir", &tree.at),
            ("commondir", "../.."),
            ("locked", "not there inside"),
        ];
        for (name, text) in said {
            let path = one.join(name);
            fs::write(&path, format!("{text}\n"))?;
            hand_over(&path, place.owner)?;
        }
    }
    Ok(())
}

/// Gives something of ours to the user inside: by owner where we may, else by mode (the directory above is closed to others).
pub(super) fn hand_over(path: &Path, owner: (u32, u32)) -> std::io::Result<()> {
    let meta = path.metadata()?;
    let (own, all) = if meta.is_dir() {
        (0o755, 0o777)
    } else {
        (0o644, 0o666)
    };
    let given = std::os::unix::fs::MetadataExt::uid(&meta) == owner.0
        || std::os::unix::fs::chown(path, Some(owner.0), Some(owner.1)).is_ok();
    let mode = if given { own } else { all };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A file of names to ignore, for a container whose workspace has no repository: it may make one, and add everything.
pub fn excludes(session_dir: &Path, masks: &[&str], doing: Doing) -> Result<Mount, EngineError> {
    let path = session_dir.join(EXCLUDE);
    doing.write_readable(&path, &excludes_of(masks))?;
    Ok(Mount::Session {
        source: path.display().to_string(),
        target: EXCLUDES.to_owned(),
        read_only: true,
    })
}

fn excludes_of(masks: &[&str]) -> String {
    let mut text = "\n# Masks of agentcontainer: not there on the host.\n".to_owned();
    for name in masks {
        text.push_str(&format!("/{name}\n"));
    }
    text
}

/// The configuration with relative paths of `include` as git would have taken them from `.git/config`.
fn absolute_includes(base: &str, inside: &str) -> String {
    if config::parse(base).included().next().is_none() {
        return base.to_owned();
    }
    let mut including = false;
    let mut text = String::with_capacity(base.len());
    for line in base.split_inclusive('\n') {
        let bare = line.trim();
        if bare.starts_with('[') {
            including = bare.to_ascii_lowercase().starts_with("[include");
        }
        let path = bare
            .split_once('=')
            .filter(|(key, _)| key.trim().eq_ignore_ascii_case("path"))
            .map(|(_, value)| value.trim().trim_matches('"'))
            .filter(|path| including && !path.starts_with(['/', '~']) && !path.contains('\\'));
        match path {
            Some(path) => text.push_str(&format!("\tpath = \"{inside}/{path}\"\n")),
            None => text.push_str(line),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn relative_includes_are_taken_from_where_the_file_was() {
        let base = "[user]\n\tpath = x\n[include]\n\tpath = ../.gitconfig\n\tpath = ~/y\n[includeIf \"gitdir:/w\"]\n\tPath = \"z\"\n";
        let text = absolute_includes(base, "/w/.git");
        assert_eq!(
            config::parse(&text).included().collect::<Vec<_>>(),
            ["/w/.git/../.gitconfig", "~/y", "/w/.git/z"]
        );
        assert!(text.contains("[user]\n\tpath = x\n"));
        assert_eq!(
            absolute_includes("[core]\n\tpath=x", "/w/.git"),
            "[core]\n\tpath=x"
        );
    }
}
