//! A feature that lies beside a config: its files, read within the bounds of an archive, and the digest that they are locked by:
//! of their paths, of whether they can be executed, and of their contents. Links and anything else that is no file are refused,
//! the directories that lead there included.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use schema::digest::Digest;

use super::{Feature, FeatureError, metadata};
use crate::archive::{Archive, ArchiveError, File, MAX_BYTES, MAX_DEPTH, MAX_ENTRIES, MAX_FILE};
use crate::error::RegistryError;

/// Reads `below`, a path without `..`, in the config's folder; `what` is what messages call it.
///
/// # Errors
/// It cannot be read, leads elsewhere, or is no feature.
pub fn read(folder: &Path, below: &str, what: &str) -> Result<Feature, FeatureError> {
    let mut path = folder.to_owned();
    for name in below.split('/') {
        path.push(name);
        let meta = fs::symlink_metadata(&path).map_err(|e| io(&path, e))?;
        if !meta.is_dir() {
            return Err(refused(
                what,
                format!("is not there: {} is no directory", path.display()),
            ));
        }
    }
    let mut walk = Walk {
        what,
        entries: 0,
        bytes: 0,
        files: BTreeMap::new(),
    };
    walk.directory(&path, "", 1)?;
    let archive = Archive {
        files: walk.files,
        links: BTreeMap::new(),
    };
    Ok(Feature {
        digest: digest(&archive),
        media_type: String::new(),
        metadata: metadata(what, &archive)?,
    })
}

/// One line for each file, sorted: its digest, `x` where it can be executed, its path.
fn digest(archive: &Archive) -> Digest {
    let mut lines = String::new();
    for (path, file) in &archive.files {
        let mode = if file.mode & 0o111 == 0 { '-' } else { 'x' };
        lines.push_str(&format!("{} {mode} {path}\n", Digest::of(&file.bytes)));
    }
    Digest::of(lines.as_bytes())
}

struct Walk<'a> {
    what: &'a str,
    entries: usize,
    bytes: u64,
    files: BTreeMap<String, File>,
}

// === impl Walk ===

impl Walk<'_> {
    fn directory(&mut self, path: &Path, below: &str, depth: usize) -> Result<(), FeatureError> {
        if depth > MAX_DEPTH {
            return Err(self.beyond(ArchiveError::Path {
                path: below.to_owned(),
                why: "is deeper than 64 names",
            }));
        }
        for entry in fs::read_dir(path).map_err(|e| io(path, e))? {
            let entry = entry.map_err(|e| io(path, e))?;
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(self.beyond(ArchiveError::Entries));
            }
            let name = entry.file_name();
            let name = name
                .to_str()
                .filter(|name| !name.chars().any(char::is_control))
                .ok_or_else(|| {
                    refused(
                        self.what,
                        "has a file whose name is not UTF-8 or has control characters".to_owned(),
                    )
                })?;
            let below = match below {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            };
            let kind = entry.file_type().map_err(|e| io(path, e))?;
            if kind.is_dir() {
                self.directory(&entry.path(), &below, depth + 1)?;
            } else if kind.is_file() {
                let file = self.file(&entry.path(), &below)?;
                self.files.insert(below, file);
            } else {
                return Err(self.beyond(ArchiveError::Kind {
                    path: below,
                    kind: "a link, a socket, a pipe or a device",
                }));
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, below: &str) -> Result<File, FeatureError> {
        let file = OpenOptions::new()
            .read(true)
            .custom_flags((nix::fcntl::OFlag::O_NOFOLLOW | nix::fcntl::OFlag::O_NONBLOCK).bits())
            .open(path)
            .map_err(|e| io(path, e))?;
        let meta = file.metadata().map_err(|e| io(path, e))?;
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| io(path, e))?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(self.beyond(ArchiveError::File {
                path: below.to_owned(),
            }));
        }
        self.bytes += bytes.len() as u64;
        if self.bytes > MAX_BYTES {
            return Err(self.beyond(ArchiveError::Bytes));
        }
        Ok(File {
            mode: meta.permissions().mode() & 0o777,
            bytes,
        })
    }

    fn beyond(&self, error: ArchiveError) -> FeatureError {
        FeatureError::Archive {
            what: self.what.to_owned(),
            error,
        }
    }
}

fn refused(what: &str, why: String) -> FeatureError {
    FeatureError::Refused {
        what: what.to_owned(),
        why,
    }
}

fn io(path: &Path, error: std::io::Error) -> FeatureError {
    RegistryError::Io {
        what: path.display().to_string(),
        error,
    }
    .into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn feature() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own/sub");
        fs::create_dir_all(&own).unwrap();
        fs::write(
            dir.path().join("own/devcontainer-feature.json"),
            r#"{ "id": "own" }"#,
        )
        .unwrap();
        fs::write(dir.path().join("own/install.sh"), "true").unwrap();
        fs::write(own.join("x"), "x").unwrap();
        dir
    }

    fn digest_of(dir: &Path) -> Digest {
        read(dir, "own", "./own").unwrap().digest
    }

    #[test]
    fn its_digest_is_that_of_paths_contents_and_what_can_be_executed() {
        let dir = feature();
        let before = digest_of(dir.path());
        assert_eq!(digest_of(feature().path()), before);
        let install = dir.path().join("own/install.sh");
        let mode = |mode| fs::set_permissions(&install, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o600);
        assert_eq!(digest_of(dir.path()), before);
        mode(0o755);
        assert_ne!(digest_of(dir.path()), before);
        mode(0o644);
        fs::write(dir.path().join("own/sub/x"), "y").unwrap();
        assert_ne!(digest_of(dir.path()), before);
        fs::write(dir.path().join("own/sub/x"), "x").unwrap();
        assert_eq!(digest_of(dir.path()), before);
        fs::rename(dir.path().join("own/sub/x"), dir.path().join("own/sub/z")).unwrap();
        assert_ne!(digest_of(dir.path()), before);
    }

    #[test]
    fn links_lead_nowhere_and_what_is_no_feature_is_none() {
        let dir = feature();
        std::os::unix::fs::symlink("own", dir.path().join("linked")).unwrap();
        assert!(read(dir.path(), "linked", "./linked").is_err());
        assert!(read(dir.path(), "nothing", "./nothing").is_err());
        assert!(read(dir.path(), "own/sub", "./own/sub").is_err());
        let link = dir.path().join("own/link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        assert!(matches!(
            read(dir.path(), "own", "./own"),
            Err(FeatureError::Archive {
                error: ArchiveError::Kind { .. },
                ..
            })
        ));
        fs::remove_file(link).unwrap();
        assert!(read(dir.path(), "own", "./own").is_ok());
    }

    #[test]
    fn files_and_their_number_have_the_bounds_of_an_archive() {
        let dir = feature();
        let large = dir.path().join("own/large");
        fs::write(&large, vec![0; usize::try_from(MAX_FILE).unwrap()]).unwrap();
        assert!(read(dir.path(), "own", "./own").is_ok());
        fs::write(&large, vec![0; usize::try_from(MAX_FILE).unwrap() + 1]).unwrap();
        assert!(read(dir.path(), "own", "./own").is_err());
        fs::remove_file(large).unwrap();
        // Four are there: two files, a directory, and what is in it.
        for n in 4..MAX_ENTRIES {
            fs::write(dir.path().join(format!("own/{n}")), "").unwrap();
        }
        assert!(read(dir.path(), "own", "./own").is_ok());
        fs::write(dir.path().join("own/more"), "").unwrap();
        assert!(read(dir.path(), "own", "./own").is_err());
    }
}
