//! Files that a person names on the command line: read whole, within a bound, or refused in words.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schema::config::discover;
use schema::diag::Diagnostic;

use crate::report::Failure;

/// How long after it was made a file may be without its writer's lock.
const FIRST_MOMENT: Duration = Duration::from_secs(1);

/// A regular file of at most `limit` bytes.
pub fn named(path: &Path, limit: usize) -> Result<Vec<u8>, Failure> {
    match discover::read_file(path, limit) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(Failure::new(
            "no-file",
            format!("{} is not there", path.display()),
        )),
        Err(error) => Err(Diagnostic::from(error).into()),
    }
}

/// Writes a file that a person owns whole or not at all; without `force` never over one that is there.
pub fn write(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    let (temporary, mut file) = Temporary::beside(path)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| {
            if force {
                fs::rename(temporary.path(), path)
            } else {
                fs::hard_link(temporary.path(), path)
            }
        });
    written.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            "file-exists",
            format!("{} is already there", path.display()),
        )
        .help("--force replaces it; --print shows what would be written"),
        _ => Failure::io("write", path, &e),
    })
}

/// What is written is removed, unless it has its name.
pub struct Temporary(PathBuf);

impl Temporary {
    /// A new file beside `path`. What a killed command left there goes: an export may be as large as all that is locked.
    pub fn beside(path: &Path) -> Result<(Self, File), Failure> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let own = format!(".{name}.");
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let entries = fs::read_dir(dir.unwrap_or(Path::new(".")));
        for entry in entries.into_iter().flatten().flatten() {
            let left = entry.file_name();
            let number = left.to_str().and_then(|left| left.strip_prefix(&own));
            if number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit())) {
                forget_left(&entry.path());
            }
        }
        let made = path.with_file_name(format!("{own}{}", std::process::id()));
        let file = File::options()
            .write(true)
            .create_new(true)
            .open(&made)
            .map_err(|e| Failure::io("create", &made, &e))?;
        file.lock().map_err(|e| Failure::io("lock", &made, &e))?;
        Ok((Self(made), file))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// Removes a file that nobody is writing: whoever writes one holds its lock from its first moment on.
fn forget_left(path: &Path) {
    let is_new = fs::symlink_metadata(path)
        .and_then(|meta| meta.modified())
        .is_ok_and(|at| at.elapsed().is_ok_and(|age| age < FIRST_MOMENT));
    let open = File::options()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    if !is_new && open.is_ok_and(|file| file.try_lock().is_ok()) {
        let _ = fs::remove_file(path);
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
