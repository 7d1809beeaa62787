//! What the repositories of a workspace were like before the first of its sessions that has not been looked through yet: one
//! file a workspace, beside the sessions' directories. It is written when a session begins and none is there, and goes when
//! the last one has ended. What it does not know is a session's. One workspace may hold another, or the repository of another: what a session
//! that is still under way could have left there is nobody's by the time the next begins.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use schema::digest::Digest;
use serde::{Deserialize, Serialize};

use super::obeyed::{self, Kind, Thing};
use super::{Facts, born, identity, write_new};
use crate::EngineError;
use crate::look::Seen;

const EXTENSION: &str = "before";

/// The most things that are remembered; what is beyond is told by its time.
pub const MAX_THINGS: usize = 100_000;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Before {
    /// Seconds since 1970.
    since: i64,
    /// More was there than is remembered: then what is unknown and older than `since` is not a session's.
    partial: bool,
    /// By the digest of the path.
    marks: BTreeMap<String, String>,
    /// Of rebases that waited: the digests of their commands.
    commands: BTreeMap<String, Vec<String>>,
    /// The workspace's own repository, where it had one that is bound.
    pub(super) own: Option<Own>,
    /// What that one's configuration names of the workspace and is covered, by the digest of the path: what it is, and when it was made.
    #[serde(default)]
    held: BTreeMap<String, ((u64, u64), u64)>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Own {
    /// Where it is not the workspace's `.git`.
    #[serde(default)]
    pub at: Option<PathBuf>,
    pub config: String,
    pub facts: Facts,
    /// Device and inode of the directory of hooks.
    pub hooks: Option<(u64, u64)>,
}

impl Own {
    pub fn is_at(&self, workspace: &Path, repository: &Path) -> bool {
        repository == self.repository(workspace)
    }

    fn repository(&self, workspace: &Path) -> PathBuf {
        match &self.at {
            Some(at) => at.clone(),
            None => workspace.join(".git"),
        }
    }
}

/// What is remembered for sessions of other directories that are still under way, by the name of what each is of.
#[derive(Default)]
struct Earlier(BTreeMap<String, Before>);

impl Earlier {
    fn of(workspace: &Path, session_dir: &Path) -> Result<Self, EngineError> {
        let own = place(workspace, session_dir);
        let mut all = BTreeMap::new();
        let entries = own.parent().map(fs::read_dir).and_then(Result::ok);
        for entry in entries.into_iter().flatten().flatten() {
            let path = entry.path();
            let is_one = path.extension().is_some_and(|is| is == EXTENSION) && path != own;
            let name = path.file_stem().and_then(|name| name.to_str());
            if let Some(name) = name.filter(|_| is_one)
                && let Some(before) = Before::read(&path)?
            {
                all.insert(name.to_owned(), before);
            }
        }
        Ok(Self(all))
    }

    /// Those that looked through a directory in which a path lies.
    fn in_sight(&self, path: &Path) -> impl Iterator<Item = &Before> {
        let above = path.ancestors().filter(|_| !self.0.is_empty());
        above.filter_map(|at| self.0.get(&name(at)))
    }

    fn all(&self, path: &Path, is: impl Fn(&Before) -> bool) -> bool {
        self.in_sight(path).all(is)
    }

    /// When the first of them began.
    fn since(&self, path: &Path) -> Option<i64> {
        self.in_sight(path).map(|before| before.since).min()
    }
}

/// What a directory is remembered by.
fn name(root: &Path) -> String {
    key(root)[..32].to_owned()
}

/// Where it lies. `session_dir` is any session's.
fn place(workspace: &Path, session_dir: &Path) -> PathBuf {
    session_dir.with_file_name(format!("{}.{EXTENSION}", name(workspace)))
}

fn held(path: &Path) -> Option<((u64, u64), u64)> {
    let meta = path.symlink_metadata().ok()?;
    Some((identity(&meta), born(&meta)))
}

fn key(path: &Path) -> String {
    Digest::of(path.as_os_str().as_bytes()).hex()
}

impl Before {
    /// Looks at what is there now.
    #[cfg(test)]
    pub fn of(workspace: &Path, seen: &Seen, most: usize) -> Self {
        Self::beside(workspace, seen, most, &Earlier::default())
    }

    /// Of what is there now, what everybody knows who began earlier and has it in its sight.
    fn beside(workspace: &Path, seen: &Seen, most: usize, earlier: &Earlier) -> Self {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX));
        let mut before = Self {
            since: earlier.since(workspace).unwrap_or(since).min(since),
            partial: seen.cut_off,
            ..Self::default()
        };
        let repositories = seen.repositories.iter().flat_map(|repository| {
            let mut things = obeyed::configs(workspace, repository);
            things.extend(obeyed::others(workspace, repository));
            things
        });
        let pointers = seen.pointers.iter().map(|path| Thing {
            kind: Kind::Pointer,
            path: path.clone(),
        });
        for thing in repositories.chain(pointers) {
            before.add(&thing.path, most, earlier);
            if thing.kind == Kind::Todo
                && let Ok(bytes) = super::read_bytes(&thing.path)
            {
                let commands = bytes.split(|&b| b == b'\n');
                before.commands.insert(
                    key(&thing.path),
                    commands
                        .filter(|line| obeyed::is_command(line))
                        .filter(|line| {
                            earlier.all(&thing.path, |before| {
                                before.knows_command(&thing.path, line)
                            })
                        })
                        .map(|line| Digest::of(line.trim_ascii()).hex())
                        .collect(),
                );
            }
        }
        // These are only ever named, and which are looked at depends on the root.
        for path in &seen.controls {
            before.add(path, most, &Earlier::default());
        }
        before
    }

    fn add(&mut self, path: &Path, most: usize, earlier: &Earlier) {
        let Some(mark) = obeyed::mark(path) else {
            return;
        };
        if let Some(since) = earlier.since(path) {
            self.since = self.since.min(since);
        }
        if !earlier.all(path, |before| before.knows(path)) {
            return;
        }
        if self.marks.len() < most {
            self.marks.insert(key(path), mark);
        } else {
            self.partial = true;
        }
    }

    /// What is remembered of a workspace whose sessions have not all been looked through, else what is there now.
    pub(super) fn begin(
        workspace: &Path,
        session_dir: &Path,
        seen: &Seen,
        own: Option<Own>,
    ) -> Result<Self, EngineError> {
        if let Some(before) = Self::load(workspace, session_dir)? {
            return Ok(before);
        }
        let earlier = Earlier::of(workspace, session_dir)?;
        let mut before = Self::beside(workspace, seen, MAX_THINGS, &earlier);
        // A configuration that one of them made or wrote is judged like any other's.
        before.own = own.filter(|own| {
            let config = own.repository(workspace).join("config");
            earlier.all(&config, |before| before.knows(&config))
        });
        if let Some(own) = &before.own {
            let repository = own.repository(workspace);
            let named = obeyed::included(workspace, &repository).into_iter();
            let named = named.chain(obeyed::named_hooks(workspace, &repository));
            let known = named.filter_map(|path| Some((key(&path), held(&path)?)));
            before.held = known.collect();
        }
        let path = place(workspace, session_dir);
        let bytes = serde_json::to_vec(&before)
            .map_err(|e| EngineError::io("write", &path)(std::io::Error::other(e)))?;
        let new = path.with_extension("before.new");
        let _ = fs::remove_file(&new);
        write_new(&new, &bytes, 0o600)?;
        fs::rename(&new, &path).map_err(EngineError::io("write", &path))?;
        Ok(before)
    }

    /// `None` where no session of the workspace is left that could have changed anything. One that cannot be read knows
    /// nothing.
    pub fn load(workspace: &Path, session_dir: &Path) -> Result<Option<Self>, EngineError> {
        Self::read(&place(workspace, session_dir))
    }

    fn read(path: &Path) -> Result<Option<Self>, EngineError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).unwrap_or_default())),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(EngineError::io("read", path)(e)),
        }
    }

    pub fn forget(workspace: &Path, session_dir: &Path) {
        let _ = fs::remove_file(place(workspace, session_dir));
    }

    /// Whether what lies at a path now is what lay there then.
    pub fn knows(&self, path: &Path) -> bool {
        let Some(mark) = obeyed::mark(path) else {
            return true;
        };
        let older = || {
            path.symlink_metadata()
                .is_ok_and(|meta| meta.ctime() < self.since)
        };
        match self.marks.get(&key(path)) {
            Some(known) => *known == mark,
            None => self.partial && older(),
        }
    }

    /// Whether what lies at a path is what was covered there.
    pub fn holds(&self, path: &Path) -> bool {
        let known = self.held.get(&key(path));
        known.is_some_and(|known| known.1 != 0 && held(path) == Some(*known))
    }

    /// Whether a rebase that waits had this command then.
    pub fn knows_command(&self, path: &Path, line: &[u8]) -> bool {
        let line = Digest::of(line.trim_ascii()).hex();
        self.commands
            .get(&key(path))
            .is_some_and(|known| known.contains(&line))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::look;

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_beyond_is_told_by_its_time() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            let git = dir.path().join(name).join(".git");
            fs::create_dir_all(git.join("objects")).unwrap();
            fs::write(git.join("HEAD"), "").unwrap();
            fs::write(git.join("config"), "").unwrap();
        }
        let seen = look::through(dir.path(), look::MAX_ENTRIES);
        assert!(!Before::of(dir.path(), &seen, 2).partial);
        let mut before = Before::of(dir.path(), &seen, 1);
        assert!(before.partial && before.marks.len() == 1);
        before.since = i64::MAX;
        assert!(before.knows(&dir.path().join("b/.git/config")));
        before.since = 0;
        let known = ["a", "b"].map(|at| before.knows(&dir.path().join(at).join(".git/config")));
        assert_eq!(known.iter().filter(|known| **known).count(), 1);
    }

    #[test]
    fn the_first_session_of_a_workspace_writes_it_and_the_last_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let (workspace, session) = (dir.path().join("w"), dir.path().join("sessions/a"));
        fs::create_dir_all(&session).unwrap();
        fs::create_dir_all(workspace.join("sub/.git/objects")).unwrap();
        fs::write(workspace.join("sub/.git/HEAD"), "").unwrap();
        let begin = || {
            let seen = look::through(&workspace, look::MAX_ENTRIES);
            Before::begin(&workspace, &session, &seen, None).unwrap()
        };
        let config = workspace.join("sub/.git/config");
        begin();
        fs::write(&config, "").unwrap();
        assert!(!begin().knows(&config));
        Before::forget(&workspace, &session);
        assert!(begin().knows(&config));
        // One that cannot be read knows nothing.
        fs::write(place(&workspace, &session), "{").unwrap();
        assert!(!begin().knows(&config));
    }

    #[test]
    fn what_a_session_above_or_below_left_is_not_known_to_the_next_that_begins() {
        let dir = tempfile::tempdir().unwrap();
        let (outer, session) = (dir.path().join("w"), dir.path().join("sessions/a"));
        let inner = outer.join("sub");
        fs::create_dir_all(&session).unwrap();
        let begin = |root: &Path| {
            let seen = look::through(root, look::MAX_ENTRIES);
            Before::begin(root, &session, &seen, None).unwrap()
        };
        let git = inner.join("x/.git");
        fs::create_dir_all(git.join("objects")).unwrap();
        fs::create_dir_all(git.join("rebase-merge")).unwrap();
        fs::write(git.join("HEAD"), "").unwrap();
        let (config, todo) = (git.join("config"), git.join("rebase-merge/git-rebase-todo"));
        for [first, second] in [[&outer, &inner], [&inner, &outer]] {
            let _ = fs::remove_file(&config);
            fs::write(&todo, "exec mine\n").unwrap();
            let began = begin(first).since;
            fs::write(&config, "").unwrap();
            fs::write(&todo, "exec mine\nexec evil\n").unwrap();
            let before = begin(second);
            assert!(!before.knows(&config), "{}", second.display());
            assert!(before.knows_command(&todo, b"exec mine"));
            assert!(!before.knows_command(&todo, b"exec evil"));
            assert!(before.since <= began);
            // One beside it has nothing to say.
            assert!(begin(&dir.path().join("other")).knows(&outer.join("none")));
            // The control: when the first has ended, it is what is there.
            for root in [first, second] {
                Before::forget(root, &session);
            }
            assert!(begin(second).knows(&config));
            Before::forget(second, &session);
        }
    }
}
