//! Where a repository's files are kept. They hold only together, so a refresh changes a copy, and a link names the one that holds:
//! whoever is killed, or not answered, in the middle of a refresh leaves what was here before.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// The link's name, and how the names of what it names begin.
const NAME: &str = "repository";
/// What a killed refresh left is removed when it is this old.
const ABANDONED: Duration = Duration::from_secs(3600);

/// The files of one repository.
pub struct Kept(PathBuf);

/// A copy to refresh; gone with this value, unless it was put into its place.
pub struct Fresh<'k> {
    of: &'k Kept,
    dir: PathBuf,
}

// === impl Kept ===

impl Kept {
    pub fn at(dir: &Path) -> Self {
        Self(dir.to_owned())
    }

    /// What is here, by the name that stays while another takes its place.
    pub fn current(&self) -> PathBuf {
        let link = self.0.join(NAME);
        fs::canonicalize(&link).unwrap_or(link)
    }

    pub fn copy(&self) -> io::Result<Fresh<'_>> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let number = since.unwrap_or_default().as_nanos();
        let dir = self
            .0
            .join(format!("{NAME}.{}.{number}", std::process::id()));
        let fresh = Fresh { of: self, dir };
        copy(&self.current(), &fresh.dir)?;
        Ok(fresh)
    }

    /// Removes what nothing names, but for what the link named until now, which somebody may be reading.
    fn sweep(&self, spared: &[&Path]) {
        let Ok(entries) = fs::read_dir(&self.0) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let is_ours = name.as_encoded_bytes().starts_with(b"repository.");
            let modified = entry.metadata().and_then(|meta| meta.modified());
            let is_old = modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
            if is_ours && is_old && !spared.contains(&path.as_path()) {
                let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
            }
        }
    }
}

// === impl Fresh ===

impl Fresh<'_> {
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// From now on this is what is here.
    pub fn keep(self) -> io::Result<()> {
        let link = self.of.0.join(NAME);
        let before = self.of.current();
        let mut next = self.dir.clone().into_os_string();
        next.push(".link");
        symlink(self.dir.file_name().unwrap_or_default(), &next)?;
        // A directory of its own is what an earlier version kept.
        if fs::symlink_metadata(&link).is_ok_and(|meta| meta.is_dir()) {
            fs::remove_dir_all(&link)?;
        }
        fs::rename(&next, &link)?;
        self.of.sweep(&[&before, &self.dir]);
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Fresh<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Files and directories; of what is not there, an empty one.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)?;
    let entries = match fs::read_dir(from) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let to = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&entry.path(), &to)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn put(fresh: &Fresh<'_>, text: &str) {
        fs::create_dir_all(fresh.dir().join("targets")).unwrap();
        fs::write(fresh.dir().join("targets/x"), text).unwrap();
    }

    fn read(kept: &Kept) -> Option<String> {
        fs::read_to_string(kept.current().join("targets/x")).ok()
    }

    #[test]
    fn a_refresh_takes_its_place_whole_or_leaves_what_was_here() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::at(dir.path());
        let fresh = kept.copy().unwrap();
        put(&fresh, "one");
        assert_eq!(read(&kept), None);
        fresh.keep().unwrap();
        assert_eq!(read(&kept).unwrap(), "one");
        // It begins as what is here, and what is not kept is gone.
        let fresh = kept.copy().unwrap();
        let text = fs::read_to_string(fresh.dir().join("targets/x")).unwrap();
        assert_eq!(text, "one");
        put(&fresh, "two");
        let left = fresh.dir().to_owned();
        drop(fresh);
        assert!(!left.exists());
        assert_eq!(read(&kept).unwrap(), "one");
        // Somebody who reads goes on reading the same.
        let reading = kept.current();
        let fresh = kept.copy().unwrap();
        put(&fresh, "three");
        fresh.keep().unwrap();
        let text = fs::read_to_string(reading.join("targets/x")).unwrap();
        assert_eq!(
            (text.as_str(), read(&kept).unwrap().as_str()),
            ("one", "three")
        );
    }

    #[test]
    fn what_killed_refreshes_left_and_an_earlier_version_kept_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = Kept::at(dir.path());
        fs::create_dir_all(dir.path().join("repository/targets")).unwrap();
        fs::write(dir.path().join("repository/targets/x"), "before").unwrap();
        fs::write(dir.path().join("fetched"), "x").unwrap();
        let [old, young] = ["repository.1.1", "repository.2.2"].map(|name| {
            let left = dir.path().join(name);
            fs::create_dir(&left).unwrap();
            left
        });
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        let times = fs::FileTimes::new().set_modified(long_ago);
        fs::File::open(&old).unwrap().set_times(times).unwrap();
        assert_eq!(read(&kept).unwrap(), "before");
        kept.copy().unwrap().keep().unwrap();
        assert_eq!(read(&kept).unwrap(), "before");
        assert!(!old.exists() && young.exists());
        assert!(dir.path().join("fetched").exists());
        let link = fs::symlink_metadata(dir.path().join("repository")).unwrap();
        assert!(link.is_symlink());
    }
}
