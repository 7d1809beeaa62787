//! Content by digest, kept between commands. A file is there whole under its digest or not at all, whoever else writes at
//! the same time or is killed meanwhile; every read hashes what it returns, and what no longer matches is dropped and asked
//! for again. A cache that cannot be written costs time and nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use schema::digest::{Digest, Hasher};

/// What a killed writer left is removed when it is this old.
const ABANDONED: Duration = Duration::from_secs(3600);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A directory of content; it may be shared by any number of processes of one user.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

// === impl Cache ===

impl Cache {
    /// Nothing is made before something is kept.
    pub fn at(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn sha256(&self) -> PathBuf {
        self.dir.join("sha256")
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.sha256().join(digest.hex())
    }

    /// What is kept under a digest, if it still has that digest and no more than `limit` bytes.
    pub fn get(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        let path = self.path(digest);
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
            .open(&path)
            .ok()?;
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .ok()?;
        if bytes.len() as u64 > limit {
            return None;
        }
        if Digest::of(&bytes) != *digest {
            // Whoever changed it, it is not what it is called.
            let _ = fs::remove_file(&path);
            return None;
        }
        Some(bytes)
    }

    /// Keeps bytes under their own digest, which is returned.
    ///
    /// # Errors
    /// The directory cannot be written. Nothing half-written is left under a digest.
    pub fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        let path = self.path(&digest);
        if fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.size() == bytes.len() as u64)
        {
            return Ok(digest);
        }
        self.make()?;
        self.whole(&self.sha256(), &digest.hex(), bytes)?;
        Ok(digest)
    }

    /// Keeps what is read under a digest that is known already, without having all of it in memory; `false` where it has another.
    ///
    /// # Errors
    /// It cannot be read, or the directory cannot be written. Nothing is left under the digest then, nor where it has another.
    pub fn put_from(&self, digest: &Digest, from: &mut dyn Read) -> io::Result<bool> {
        self.make()?;
        let dir = self.sha256();
        let temporary = temporary(&dir, &digest.hex());
        let mut hasher = Hasher::default();
        let written = (|| {
            let mut file = create(&temporary)?;
            let mut piece = vec![0; 64 * 1024];
            loop {
                match from.read(&mut piece)? {
                    0 => break,
                    n => {
                        hasher.update(&piece[..n]);
                        file.write_all(&piece[..n])?;
                    }
                }
            }
            file.sync_data()
        })();
        let kept = match written {
            Ok(()) if hasher.finish() == *digest => {
                fs::rename(&temporary, self.path(digest)).map(|()| true)
            }
            other => other.map(|()| false),
        };
        if !matches!(kept, Ok(true)) {
            let _ = fs::remove_file(&temporary);
        }
        kept
    }

    /// What was noted under a name, such as what lay beside a digest. A note is nobody's proof: whoever can write here could have
    /// written another.
    pub fn note(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.dir.join("notes").join(name))
            .ok()?
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .ok()?;
        (bytes.len() as u64 <= limit).then_some(bytes)
    }

    /// Notes something, in place of what was noted before.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn put_note(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let dir = self.dir.join("notes");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        self.whole(&dir, name, bytes)
    }

    /// Forgets a note.
    pub fn drop_note(&self, name: &str) {
        let _ = fs::remove_file(self.dir.join("notes").join(name));
    }

    /// Writes a file whole or not at all.
    fn whole(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = temporary(dir, name);
        let written =
            write(&temporary, bytes).and_then(|()| fs::rename(&temporary, dir.join(name)));
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }

    fn make(&self) -> io::Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(self.sha256())
    }

    /// Removes what killed writers left, and content that nobody has read or written for `age`. Returns how many bytes.
    pub fn sweep(&self, age: Duration) -> u64 {
        let dirs = [self.sha256(), self.dir.join("notes")];
        let entries = dirs.iter().filter_map(|dir| fs::read_dir(dir).ok());
        let now = SystemTime::now();
        let mut freed = 0;
        for entry in entries.flatten().flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            let used = meta.accessed().ok().max(meta.modified().ok());
            let idle = used
                .and_then(|used| now.duration_since(used).ok())
                .unwrap_or_default();
            let temporary = entry.file_name().as_encoded_bytes().starts_with(b".");
            if idle > if temporary { ABANDONED } else { age }
                && fs::remove_file(entry.path()).is_ok()
            {
                freed += meta.len();
            }
        }
        freed
    }
}

fn temporary(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(
        ".{name}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    ))
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Not synced, which would be half of what looking up fifty references takes: a name that outlives its bytes in a crash is found
    // out, dropped and asked for again.
    create(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("content"));
        (dir, cache)
    }

    #[test]
    fn what_was_kept_is_found_and_nothing_else() {
        let (_dir, cache) = cache();
        let digest = cache.put(b"manifest").unwrap();
        assert_eq!(cache.get(&digest, 100).as_deref(), Some(&b"manifest"[..]));
        assert_eq!(cache.get(&digest, 8).as_deref(), Some(&b"manifest"[..]));
        assert_eq!(cache.get(&digest, 7), None);
        assert!(
            cache.get(&digest, 100).is_some(),
            "one that is too long for a reader is not dropped"
        );
        assert_eq!(cache.get(&Digest::of(b"other"), 100), None);
    }

    #[test]
    fn what_is_kept_in_pieces_has_its_digest_or_is_not_kept() {
        let (_dir, cache) = cache();
        let long = vec![7; 200_000];
        let digest = Digest::of(&long);
        assert!(cache.put_from(&digest, &mut &long[..]).unwrap());
        assert_eq!(cache.get(&digest, 200_000).as_deref(), Some(&long[..]));
        let other = Digest::of(b"other");
        assert!(!cache.put_from(&other, &mut &long[..]).unwrap());
        assert_eq!(cache.get(&other, 200_000), None);
        assert_eq!(fs::read_dir(cache.sha256()).unwrap().count(), 1);
    }

    #[test]
    fn what_was_changed_is_dropped() {
        let (_dir, cache) = cache();
        let digest = cache.put(b"manifest").unwrap();
        for changed in [&b"manifesT"[..], b"manife", b"", b"manifest and more"] {
            fs::write(cache.path(&digest), changed).unwrap();
            assert_eq!(cache.get(&digest, 100), None);
            assert!(!cache.path(&digest).exists());
            cache.put(b"manifest").unwrap();
            assert!(cache.get(&digest, 100).is_some());
        }
    }

    #[test]
    fn a_changed_file_of_the_same_length_is_mended_once_it_was_read() {
        let (_dir, cache) = cache();
        let digest = cache.put(b"manifest").unwrap();
        fs::write(cache.path(&digest), b"Manifest").unwrap();
        cache.put(b"manifest").unwrap();
        assert_eq!(cache.get(&digest, 100), None);
        cache.put(b"manifest").unwrap();
        assert!(cache.get(&digest, 100).is_some());
    }

    #[test]
    fn a_link_in_the_place_of_content_is_not_followed() {
        let (dir, cache) = cache();
        let digest = cache.put(b"manifest").unwrap();
        let elsewhere = dir.path().join("elsewhere");
        fs::rename(cache.path(&digest), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, cache.path(&digest)).unwrap();
        assert_eq!(cache.get(&digest, 100), None);
        assert!(elsewhere.exists());
    }

    #[test]
    fn many_writers_of_the_same_content_leave_one_whole_file() {
        let (_dir, cache) = cache();
        let bytes = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let digest = cache.put(&bytes).unwrap();
                        assert!(cache.get(&digest, 1 << 20).is_some());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(cache.sha256()).unwrap().count(), 1);
    }

    #[test]
    fn a_cache_that_cannot_be_written_says_so_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), b"").unwrap();
        let cache = Cache::at(dir.path().join("file/content"));
        assert!(cache.put(b"manifest").is_err());
        assert_eq!(cache.get(&Digest::of(b"manifest"), 100), None);
    }

    #[test]
    fn what_nobody_used_is_swept() {
        let (_dir, cache) = cache();
        let old = cache.put(b"old").unwrap();
        let young = cache.put(b"young").unwrap();
        let left = cache.sha256().join(".half-written");
        fs::write(&left, b"x").unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(10_000);
        for path in [cache.path(&old), left.clone()] {
            let times = fs::FileTimes::new()
                .set_accessed(long_ago)
                .set_modified(long_ago);
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_times(times)
                .unwrap();
        }
        assert_eq!(cache.sweep(Duration::from_secs(9_000)), 4);
        assert!(!left.exists());
        assert_eq!(cache.get(&old, 10), None);
        assert!(cache.get(&young, 10).is_some());
    }
}
