//! What git obeys in a repository, thing by thing: its configuration and what that includes, hooks, files that lead it
//! elsewhere, a rebase that waits to go on. The same list is made when a session begins and when it ends; a thing is the
//! same when at the same path the same bytes lie.

use std::collections::BTreeSet;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use schema::digest::Digest;

use super::lent::MAX_TREES;
use super::named::{self, Configs, From, MAX_INCLUDES};
use super::planted::{ASIDE, first_link};
use super::{MAX_CONFIG, NONBLOCK, config, pointer, read_bytes, read_config};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `.git` that is no directory.
    Pointer,
    Config,
    Hook,
    /// In place of a directory of hooks.
    Hooks,
    Commondir,
    /// The steps of a rebase that waits, some of which may be commands.
    Todo,
    /// What makes an older git run a script of the rebase's own.
    Script,
    /// A link in place of what git writes, or clears away what is behind it.
    Link,
    /// What a merge or an apply that waits goes on with.
    Options,
    /// A lock, or a pipe at which git would wait.
    Stops,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    pub kind: Kind,
    pub path: PathBuf,
}

fn thing(kind: Kind, path: PathBuf) -> Thing {
    Thing { kind, path }
}

/// A repository's own files of configuration.
const OWN: [&str; 2] = ["config", "config.worktree"];

/// A repository's configuration, as far as it can be read.
fn configuration(repository: &Path) -> Configs {
    let texts = OWN.map(|name| read_config(&repository.join(name)));
    let own = texts.into_iter().flatten();
    Configs::of(own.map(|text| From::of(&text, repository)).collect())
}

/// A repository's own files of configuration, as far as they are there.
pub fn own_configs(repository: &Path) -> Vec<PathBuf> {
    let own = OWN.map(|name| repository.join(name)).into_iter();
    own.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The files of a repository's configuration: its own, and what they include of the workspace.
pub fn configs(workspace: &Path, repository: &Path) -> Vec<Thing> {
    let all = own_configs(repository).into_iter();
    all.chain(included(workspace, repository))
        .map(|path| thing(Kind::Config, path))
        .collect()
}

/// Those of the workspace that a repository's own include, there, by each of their spellings that goes through no link.
pub fn included(workspace: &Path, repository: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = Vec::new();
    let configs = configuration(repository);
    for path in configs.included().flat_map(|path| named::spellings(&path)) {
        let is_new = is_within(workspace, &path) && !paths.contains(&path);
        let is_own = path.parent() == Some(repository) && OWN.iter().any(|own| path.ends_with(own));
        if is_new && !is_own && path.symlink_metadata().is_ok() && paths.len() < MAX_INCLUDES {
            paths.push(path);
        }
    }
    paths
}

/// Whether it lies there, and not only by a link, which leads anywhere: what is behind one that stays within is there by another spelling.
fn is_within(workspace: &Path, path: &Path) -> bool {
    path.starts_with(workspace) && first_link(&[workspace], path).is_none()
}

/// Directories of hooks in the workspace that a repository's configuration names beside its own, as the files above.
pub fn named_hooks(workspace: &Path, repository: &Path) -> BTreeSet<PathBuf> {
    let configs = configuration(repository);
    let places = places(repository, &configs);
    let places: Vec<&Path> = places.iter().map(PathBuf::as_path).collect();
    let own = repository.join("hooks");
    configs
        .hooks(&places)
        .flat_map(|path| named::spellings(&path))
        .filter(|path| is_within(workspace, path) && *path != own)
        .collect()
}

/// Where git runs a repository's hooks: in its working trees, and in itself where it answers a push.
fn places(repository: &Path, configs: &Configs) -> Vec<PathBuf> {
    let mut places = vec![repository.to_owned()];
    places.extend(repository.parent().map(Path::to_owned));
    places.extend(configs.values("worktree").map(|to| repository.join(to)));
    let trees = fs::read_dir(repository.join("worktrees"));
    let trees = trees.into_iter().flatten().flatten().take(MAX_TREES);
    for own in trees.map(|tree| tree.path()).chain([repository.to_owned()]) {
        let bytes = read_bytes(&own.join("gitdir")).unwrap_or_default();
        let dot_git = pointer::path(&bytes).map(|to| own.join(to));
        places.extend(dot_git.and_then(|dot_git| Some(dot_git.parent()?.to_owned())));
    }
    places
}

/// Everything else, as the configuration is now.
pub fn others(workspace: &Path, repository: &Path) -> Vec<Thing> {
    let mut things = hooks(&repository.join("hooks"));
    for to in named_hooks(workspace, repository) {
        things.extend(hooks(&to));
    }
    things.extend(state(repository));
    things
}

/// What is in a repository whose configuration and hooks are held otherwise.
pub fn state(repository: &Path) -> Vec<Thing> {
    let mut things = Vec::new();
    let mut add = |kind, path: PathBuf| {
        if path.symlink_metadata().is_ok() {
            things.push(thing(kind, path));
        }
    };
    add(Kind::Commondir, repository.join("commondir"));
    let rebase = repository.join("rebase-merge");
    if rebase.is_symlink() {
        add(Kind::Script, rebase);
    } else {
        add(Kind::Todo, rebase.join("git-rebase-todo"));
        // git before 2.34 reads a shell script of such a rebase.
        add(Kind::Script, rebase.join("rewritten"));
    }
    for name in [
        "rebase-merge/strategy",
        "sequencer/opts",
        "rebase-apply/apply-opt",
    ] {
        add(Kind::Options, repository.join(name));
    }
    things.extend(stops(repository));
    things.extend(links(repository));
    for name in FLAT {
        things.extend(links(&repository.join(name)));
    }
    for name in DEEP {
        links_below(&repository.join(name), &mut things);
    }
    things
}

/// Directories in which a link to another would lead git to write or to clear away there.
const FLAT: [&str; 3] = ["objects", "objects/info", "objects/pack"];
/// The same with whatever is below them.
const DEEP: [&str; 8] = [
    "info",
    "lfs",
    "logs",
    "rebase-apply",
    "rebase-merge",
    "refs",
    "rr-cache",
    "sequencer",
];

/// Links in a directory and in all below it.
fn links_below(dir: &Path, things: &mut Vec<Thing>) {
    let mut directories = vec![dir.to_owned()];
    while let Some(dir) = directories.pop() {
        if !dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
            continue;
        }
        things.extend(links(&dir));
        let entries = fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        directories.extend(below.map(|entry| entry.path()));
    }
}

/// Locks, pipes and sockets at a repository's top level.
fn stops(repository: &Path) -> Vec<Thing> {
    let is_dir = repository
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_dir());
    let entries = is_dir.then(|| fs::read_dir(repository).ok()).flatten();
    let stops = entries.into_iter().flatten().flatten().filter(|entry| {
        let is = |is: fn(&fs::FileType) -> bool| entry.file_type().as_ref().is_ok_and(is);
        let is_lock = entry.file_name().as_bytes().ends_with(b".lock");
        is(FileTypeExt::is_fifo)
            || is(FileTypeExt::is_socket)
            || is_lock && is(fs::FileType::is_file)
    });
    stops
        .map(|entry| thing(Kind::Stops, entry.path()))
        .collect()
}

/// Links in a directory that is none itself, but for names that are another thing, or that were put aside.
fn links(dir: &Path) -> Vec<Thing> {
    const OTHERS: [&[u8]; 5] = [
        b"commondir",
        b"config",
        b"config.worktree",
        b"hooks",
        b"rebase-merge",
    ];
    let is_dir = dir.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let entries = is_dir.then(|| fs::read_dir(dir).ok()).flatten();
    let links = entries.into_iter().flatten().flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.as_bytes();
        let aside = name
            .windows(ASIDE.len())
            .any(|part| part == ASIDE.as_bytes());
        let is_link = entry.file_type().is_ok_and(|kind| kind.is_symlink());
        is_link && !aside && !OTHERS.contains(&name)
    });
    links.map(|entry| thing(Kind::Link, entry.path())).collect()
}

/// The files of a directory of hooks.
pub fn hooks(hooks: &Path) -> Vec<Thing> {
    match hooks.symlink_metadata() {
        Ok(meta) if meta.is_dir() => {}
        Ok(_) => return vec![thing(Kind::Hooks, hooks.to_owned())],
        Err(_) => return Vec::new(),
    }
    let Ok(entries) = fs::read_dir(hooks) else {
        return Vec::new();
    };
    entries
        .flatten()
        // A name with a dot is no hook's.
        .filter(|entry| !entry.file_name().as_bytes().contains(&b'.'))
        .filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()))
        .map(|entry| thing(Kind::Hook, entry.path()))
        .collect()
}

/// What tells a thing from another at the same path: the bytes, and whether it may be run; of a link also where it leads.
pub fn mark(path: &Path) -> Option<String> {
    let meta = path.symlink_metadata().ok()?;
    if meta.is_symlink() {
        let to = fs::read_link(path).ok()?;
        let behind = open(path).and_then(|(file, meta)| content(file, &meta));
        return Some(format!(
            "link {} {}",
            Digest::of(to.as_os_str().as_bytes()).hex(),
            behind.unwrap_or_default()
        ));
    }
    let bytes = (meta.is_file())
        .then(|| open(path).and_then(|(file, meta)| content(file, &meta)))
        .flatten();
    Some(bytes.unwrap_or_else(|| identity(&meta)))
}

fn open(path: &Path) -> Option<(File, Metadata)> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(NONBLOCK)
        .open(path)
        .ok()?;
    let meta = file.metadata().ok()?;
    meta.is_file().then_some((file, meta))
}

fn content(file: File, meta: &Metadata) -> Option<String> {
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Some(identity(meta));
    }
    let runs = if meta.mode() & 0o111 != 0 { "x" } else { "-" };
    Some(format!("{runs} {}", Digest::of(&bytes).hex()))
}

/// The change time is the kernel's to set.
fn identity(meta: &Metadata) -> String {
    format!(
        "{:o} {}:{} {}.{:09}",
        meta.mode(),
        meta.dev(),
        meta.ino(),
        meta.ctime(),
        meta.ctime_nsec()
    )
}

/// Whether git would run a line of a rebase's steps as a command (git-rebase(1), "exec").
pub fn is_command(line: &[u8]) -> bool {
    let line = line.trim_ascii_start();
    [&b"exec"[..], b"x"].iter().any(|word| {
        line.strip_prefix(*word)
            .is_some_and(|rest| rest.first().is_none_or(|b| b" \t\r\n".contains(b)))
    })
}

/// Whether what a command that waits goes on with has it run nothing but git's own: git starts `git-merge-STRATEGY` for a strategy that it does not
/// have (sequencer.c, `do_pick_commit`), and an apply writes where it is told to (apply.c, `--build-fake-ancestor`).
pub fn is_gits_own(path: &Path) -> bool {
    const STRATEGIES: [&str; 6] = ["octopus", "ort", "ours", "recursive", "resolve", "subtree"];
    let Ok(text) = read_config(path) else {
        return false;
    };
    match path.file_name().and_then(|name| name.to_str()) {
        Some("strategy") => STRATEGIES.contains(&text.trim()),
        Some("opts") => {
            // What is not read of it, git may read.
            let (_, others) = config::keep(&text, |entry| {
                entry.key != "strategy" || STRATEGIES.contains(&entry.value.as_str())
            });
            others.is_empty()
        }
        Some("apply-opt") => text.split_whitespace().all(is_harmless_to_apply),
        _ => false,
    }
}

/// A word of `git am`'s options for `git apply`, quoted as for a shell.
fn is_harmless_to_apply(word: &str) -> bool {
    let word = word.trim_matches('\'');
    let number = |rest: &str| rest.bytes().all(|b| b.is_ascii_digit());
    let name = |rest: &str| rest.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    match word {
        "" | "--reject" | "--ignore-space-change" | "--ignore-whitespace" => true,
        _ => {
            word.strip_prefix("-C").is_some_and(number)
                || word.strip_prefix("-p").is_some_and(number)
                || word.strip_prefix("--whitespace=").is_some_and(name)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_mark_tells_bytes_and_mode_and_what_is_behind_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("f"), dir.path().join("l"));
        symlink("f", &link).unwrap();
        let mut seen = BTreeSet::new();
        let mut new = |path: &Path| seen.insert(mark(path).unwrap());
        assert!(new(&link));
        fs::write(&file, "a").unwrap();
        assert!(new(&file) && new(&link));
        fs::write(&file, "b").unwrap();
        assert!(new(&file) && new(&link));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(new(&file) && new(&link));
        fs::remove_file(&file).unwrap();
        fs::write(&file, "b").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(!new(&file) && !new(&link));
        // What is too large to be read is itself, and nothing that is like it.
        for size in [MAX_CONFIG, MAX_CONFIG + 1] {
            fs::write(&file, vec![b'x'; size as usize]).unwrap();
            assert!(new(&file));
            fs::copy(&file, dir.path().join("copy")).unwrap();
            fs::rename(dir.path().join("copy"), &file).unwrap();
            assert_eq!(new(&file), size > MAX_CONFIG);
        }
    }

    #[test]
    fn what_a_rebase_would_run_is_known_by_its_first_word() {
        for line in ["exec x", "x y", "  x y", "\texec\tz", "x", "exec\r"] {
            assert!(is_command(line.as_bytes()), "{line}");
        }
        for line in ["pick 1 exec", "# exec x", "xpick", "execute x", "", "X y"] {
            assert!(!is_command(line.as_bytes()), "{line}");
        }
    }
}
