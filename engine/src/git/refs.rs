//! References as files (gitrepository-layout(5), `refs`, `packed-refs`): read without following a link, because what a session made is
//! read on the host.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::{read_at_most, read_bytes};
use crate::EngineError;

/// The most references that are looked at.
pub const MAX_REFS: usize = 100_000;
/// How deep their names go.
const MAX_DEPTH: usize = 32;
/// The largest file of packed references, in bytes.
pub const MAX_PACKED: u64 = 32 * 1024 * 1024;
/// Whose change comes back: everything else is one working tree's own, or means something to git.
const SHARED: [&str; 4] = ["refs/heads/", "refs/tags/", "refs/remotes/", "refs/notes/"];

/// Names, and the ids that they have.
pub type Refs = BTreeMap<String, String>;

/// All that are in a directory; a loose one wins over a packed one, and symbolic ones are none.
pub fn read(dir: &Path) -> Result<Refs, EngineError> {
    let mut refs = Refs::new();
    let packed = dir.join("packed-refs");
    if packed.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
        let bytes = read_at_most(&packed, MAX_PACKED)?;
        for line in String::from_utf8_lossy(&bytes).lines() {
            if let Some((id, name)) = line.split_once(' ')
                && is_id(id)
            {
                refs.insert(name.to_owned(), id.to_owned());
            }
        }
    }
    let too_many = || EngineError::io("read", dir)(std::io::Error::other("too many references"));
    loose(dir, "refs", 0, &mut refs);
    if refs.len() > MAX_REFS {
        return Err(too_many());
    }
    Ok(refs)
}

fn loose(dir: &Path, name: &str, depth: usize, refs: &mut Refs) {
    let path = dir.join(name);
    let is_dir = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
    let Ok(entries) = fs::read_dir(&path) else {
        return;
    };
    if !is_dir || depth > MAX_DEPTH {
        return;
    }
    for entry in entries.flatten() {
        let Ok(part) = entry.file_name().into_string() else {
            continue;
        };
        let name = format!("{name}/{part}");
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        if kind.is_dir() {
            loose(dir, &name, depth + 1, refs);
        } else if kind.is_file()
            && refs.len() <= MAX_REFS
            && let Ok(bytes) = read_bytes(&entry.path())
            && let Ok(text) = std::str::from_utf8(&bytes)
            && is_id(text.trim())
        {
            refs.insert(name, text.trim().to_owned());
        }
    }
}

pub fn is_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64)
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Whether a name is one that others share, in the form that git accepts (git-check-ref-format(1)).
pub fn is_shared(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with('.')
            && !part.ends_with(".lock")
            && !part.contains("..")
            && !part.contains("@{")
            && !part.contains(|c: char| c.is_control() || " ~^:?*[\\".contains(c))
    };
    let rest = SHARED.iter().find_map(|kind| name.strip_prefix(kind));
    name.len() <= 512
        && rest.is_some_and(|rest| rest.split('/').all(part) && !rest.ends_with("/HEAD"))
}
