//! A layer that holds files (a feature, a skill) read into memory, as the sorted map that its tar, gzipped or not, stands for. What two
//! programs could unpack in two ways, or would write outside the directory it is unpacked in, is refused; nothing is ever unpacked
//! to a disk. `lock` reads features with it. Its caller has checked the bytes against their digest and bounded them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use flate2::read::MultiGzDecoder;
use schema::diag::escape;
use tar::EntryType;
use thiserror::Error;

/// Members of an archive, directories and links among them.
pub const MAX_ENTRIES: usize = 4096;
/// Bytes of one file.
pub const MAX_FILE: u64 = 16 * 1024 * 1024;
/// Bytes of a whole archive once it is not compressed: headers, padding and all.
pub const MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Bytes of a path, and of where a link leads.
pub const MAX_PATH: usize = 1024;
/// Names in one path.
pub const MAX_DEPTH: usize = 64;

/// What an archive holds, by path: no `./` in front, no `..` anywhere, names divided by one `/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Archive {
    pub files: BTreeMap<String, File>,
    /// Symbolic links and where they lead, as written: relative, and never out of the archive.
    pub links: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Permission bits alone; those that change whose rights a program has are dropped.
    pub mode: u32,
    pub bytes: Vec<u8>,
}

/// What is wrong with an archive. Paths in it are escaped, since a stranger chose them.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ArchiveError {
    #[error("the archive has more than {MAX_ENTRIES} members")]
    Entries,
    #[error("{path} in the archive is larger than {MAX_FILE} bytes")]
    File { path: String },
    #[error("the archive is larger than {MAX_BYTES} bytes, not compressed")]
    Bytes,
    #[error("a path in the archive, {path}, {why}")]
    Path { path: String, why: &'static str },
    #[error("{path} in the archive is a link to {target}, which {why}")]
    Link {
        path: String,
        target: String,
        why: &'static str,
    },
    #[error("{path} in the archive is {kind}, where only files, directories and links may be")]
    Kind { path: String, kind: &'static str },
    #[error("{path} is in the archive twice, or is both a file and what others lie in")]
    Twice { path: String },
    #[error("{path} in the archive is shorter than its header says")]
    Short { path: String },
    #[error("the archive cannot be read: {0}")]
    Malformed(String),
}

// === impl Archive ===

impl Archive {
    /// Reads a tar, or a gzipped one, which its first bytes tell.
    ///
    /// # Errors
    /// [`ArchiveError`], where anything in it is beyond a bound, leads out, or is read in two ways.
    pub fn read(layer: &[u8]) -> Result<Self, ArchiveError> {
        if !layer.starts_with(&[0x1f, 0x8b]) {
            if layer.len() as u64 > MAX_BYTES {
                return Err(ArchiveError::Bytes);
            }
            return Self::read_tar(layer);
        }
        let mut plain = Vec::new();
        MultiGzDecoder::new(layer)
            .take(MAX_BYTES + 1)
            .read_to_end(&mut plain)
            .map_err(|error| malformed(&error))?;
        if plain.len() as u64 > MAX_BYTES {
            return Err(ArchiveError::Bytes);
        }
        Self::read_tar(&plain)
    }

    /// Looks for a file by its path, without following links.
    pub fn file(&self, path: &str) -> Option<&[u8]> {
        self.files.get(path).map(|file| file.bytes.as_slice())
    }

    fn read_tar(tar: &[u8]) -> Result<Self, ArchiveError> {
        let mut out = Self::default();
        let mut directories = BTreeSet::new();
        let mut reader = tar::Archive::new(tar);
        let entries = reader.entries().map_err(|error| malformed(&error))?;
        for (n, entry) in entries.enumerate() {
            if n >= MAX_ENTRIES {
                return Err(ArchiveError::Entries);
            }
            let mut entry = entry.map_err(|error| malformed(&error))?;
            let raw = entry.path_bytes().into_owned();
            let kind = entry.header().entry_type();
            let Some(path) = path_of(&raw, kind)? else {
                continue;
            };
            match kind {
                EntryType::Directory => {
                    directories.insert(path);
                }
                EntryType::Regular => {
                    let size = entry.size();
                    if size > MAX_FILE {
                        return Err(ArchiveError::File {
                            path: escape(&path),
                        });
                    }
                    let mode = entry.header().mode().map_err(|error| malformed(&error))? & 0o777;
                    let mut bytes = Vec::new();
                    entry
                        .read_to_end(&mut bytes)
                        .map_err(|error| malformed(&error))?;
                    if bytes.len() as u64 != size {
                        return Err(ArchiveError::Short {
                            path: escape(&path),
                        });
                    }
                    out.free(&path)?;
                    out.files.insert(path, File { mode, bytes });
                }
                EntryType::Symlink => {
                    let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                    let target = target_of(&path, &target)?;
                    out.free(&path)?;
                    out.links.insert(path, target);
                }
                other => {
                    return Err(ArchiveError::Kind {
                        path: escape(&path),
                        kind: name_of(other),
                    });
                }
            }
        }
        let rest = reader.into_inner();
        let read = tar.len() - rest.len();
        let ended = read
            .checked_sub(512)
            .and_then(|from| tar.get(from..read))
            .is_some_and(|block| block.iter().all(|byte| *byte == 0));
        if !ended {
            return Err(ArchiveError::Malformed("it has no end".to_owned()));
        }
        if rest.iter().any(|byte| *byte != 0) {
            return Err(ArchiveError::Malformed(
                "something lies behind its end".to_owned(),
            ));
        }
        out.is_a_tree(&directories)?;
        Ok(out)
    }

    fn free(&self, path: &str) -> Result<(), ArchiveError> {
        if self.files.contains_key(path) || self.links.contains_key(path) {
            return Err(ArchiveError::Twice { path: escape(path) });
        }
        Ok(())
    }

    /// That nothing lies in what is no directory: through a link it would be somewhere else.
    fn is_a_tree(&self, directories: &BTreeSet<String>) -> Result<(), ArchiveError> {
        let taken = |path: &str| self.files.contains_key(path) || self.links.contains_key(path);
        let all = self.files.keys().chain(self.links.keys());
        for path in all.chain(directories) {
            let own = directories.contains(path).then_some(path.as_str());
            let above = path.match_indices('/').map(|(at, _)| &path[..at]);
            if let Some(path) = own.into_iter().chain(above).find(|path| taken(path)) {
                return Err(ArchiveError::Twice { path: escape(path) });
            }
        }
        Ok(())
    }
}

fn malformed(error: &std::io::Error) -> ArchiveError {
    ArchiveError::Malformed(escape(&error.to_string()))
}

/// The one spelling of a path; `None` is the directory that everything is in.
fn path_of(raw: &[u8], kind: EntryType) -> Result<Option<String>, ArchiveError> {
    let refused = |why: &'static str| ArchiveError::Path {
        path: escape(&String::from_utf8_lossy(&raw[..raw.len().min(MAX_PATH)])),
        why,
    };
    if raw.len() > MAX_PATH {
        return Err(refused("is longer than 1024 bytes"));
    }
    let text = std::str::from_utf8(raw).map_err(|_| refused("is not UTF-8"))?;
    if text.chars().any(char::is_control) {
        return Err(refused("has a control character in it"));
    }
    if text.starts_with('/') {
        return Err(refused("is absolute"));
    }
    let text = match text.strip_suffix('/') {
        Some(_) if kind != EntryType::Directory => {
            return Err(refused("ends like a directory's and is none's"));
        }
        Some(text) => text,
        None => text,
    };
    let text = if text == "." {
        ""
    } else {
        text.strip_prefix("./").unwrap_or(text)
    };
    if text.is_empty() {
        return if kind == EntryType::Directory && !raw.is_empty() {
            Ok(None)
        } else {
            Err(refused("names nothing"))
        };
    }
    if text.split('/').count() > MAX_DEPTH {
        return Err(refused("is deeper than 64 names"));
    }
    match text
        .split('/')
        .find(|name| matches!(*name, "" | "." | ".."))
    {
        None => Ok(Some(text.to_owned())),
        Some("..") => Err(refused("leads out with `..`")),
        Some(_) => Err(refused("has an empty name or a `.` in it")),
    }
}

/// Where a link leads: `..` at its beginning alone, where it is the parent of a directory that is no link.
fn target_of(path: &str, raw: &[u8]) -> Result<String, ArchiveError> {
    let refused = |why: &'static str| ArchiveError::Link {
        path: escape(path),
        target: escape(&String::from_utf8_lossy(&raw[..raw.len().min(MAX_PATH)])),
        why,
    };
    if raw.len() > MAX_PATH {
        return Err(refused("is longer than 1024 bytes"));
    }
    let target = std::str::from_utf8(raw).map_err(|_| refused("is not UTF-8"))?;
    if target.is_empty() || target.chars().any(char::is_control) {
        return Err(refused("is no path"));
    }
    if target.starts_with('/') {
        return Err(refused("is absolute"));
    }
    let up = target.split('/').take_while(|name| *name == "..").count();
    if target.split('/').skip(up).any(|name| name == "..") {
        return Err(refused("goes up again after it went down"));
    }
    if up > path.matches('/').count() {
        return Err(refused("leads out of the archive"));
    }
    Ok(target.to_owned())
}

fn name_of(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Link => "a hard link",
        EntryType::Char => "a character device",
        EntryType::Block => "a block device",
        EntryType::Fifo => "a fifo",
        EntryType::GNUSparse => "a sparse file",
        EntryType::XGlobalHeader => "a header for everything behind it",
        _ => "of an unknown kind",
    }
}

#[cfg(test)]
mod tests;
