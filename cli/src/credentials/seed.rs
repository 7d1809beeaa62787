//! The host's key that placeholders are derived with: random, made once, beside the user's other state.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use schema::config::discover;
use schema::diag::Diagnostic;
use secrets::KEY_BYTES;

use crate::files::Temporary;
use crate::places::{self, Places};
use crate::report::Failure;

/// The key of this user; made where there is none.
///
/// # Errors
/// A file that cannot be read or made, or is no key.
pub fn key(places: &Places) -> Result<[u8; KEY_BYTES], Failure> {
    let path = places.placeholder_key();
    if let Some(key) = read(&path)? {
        return Ok(key);
    }
    places::make_private(&places.state)?;
    make(&path)?;
    read(&path)?.ok_or_else(|| {
        Failure::new(
            "placeholder-key",
            format!("{} went while it was read", path.display()),
        )
        .help("try again")
    })
}

fn read(path: &Path) -> Result<Option<[u8; KEY_BYTES]>, Failure> {
    let Some(bytes) = discover::read_file(path, KEY_BYTES).map_err(Diagnostic::from)? else {
        return Ok(None);
    };
    let key = bytes.try_into().map_err(|bytes: Vec<u8>| {
        Failure::new(
            "placeholder-key",
            format!(
                "{} has {} bytes, not {KEY_BYTES}",
                path.display(),
                bytes.len()
            ),
        )
        .help("remove it: the next session makes another, and what stands for credentials inside is another from then on")
    })?;
    Ok(Some(key))
}

/// Whole or not at all; where two make it at once, it is the first one's.
fn make(path: &Path) -> Result<(), Failure> {
    let failed = |e: std::io::Error| Failure::io("write", path, &e);
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key)
        .map_err(|e| Failure::new("placeholder-key", format!("no random bytes: {e}")))?;
    let (temporary, mut file) = Temporary::beside(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .and_then(|()| file.write_all(&key))
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    match fs::hard_link(temporary.path(), path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(failed(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::fake;

    #[test]
    fn a_host_has_one_key_whoever_asks_first_and_it_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let places = fake::places(dir.path());
        let first = key(&places).unwrap();
        assert_ne!(first, [0; KEY_BYTES]);
        // Somebody who found none a moment ago makes no other.
        make(&places.placeholder_key()).unwrap();
        assert_eq!(key(&places).unwrap(), first);
        let mode = fs::metadata(places.placeholder_key())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(key(&fake::places(other.path())).unwrap(), first);
    }

    #[test]
    fn what_is_no_key_is_refused_in_words_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = fake::places(dir.path());
        fs::create_dir_all(&places.state).unwrap();
        for content in [&b""[..], &[1; KEY_BYTES - 1], &[1; KEY_BYTES + 1]] {
            fs::write(places.placeholder_key(), content).unwrap();
            assert!(key(&places).is_err(), "{content:?}");
            assert_eq!(fs::read(places.placeholder_key()).unwrap(), content);
        }
        fs::write(places.placeholder_key(), [1; KEY_BYTES]).unwrap();
        assert_eq!(key(&places).unwrap(), [1; KEY_BYTES]);
    }
}
