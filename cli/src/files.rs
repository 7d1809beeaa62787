//! Files that a person names on the command line: read whole, within a bound, or refused in words.

use std::fs;
use std::io::Write;
use std::path::Path;

use schema::config::discover;
use schema::diag::Diagnostic;

use crate::report::Failure;

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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
        })
        .and_then(|()| {
            if force {
                fs::rename(&temporary, path)
            } else {
                fs::hard_link(&temporary, path)
            }
        });
    let _ = fs::remove_file(&temporary);
    made.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            "file-exists",
            format!("{} is already there", path.display()),
        )
        .help("--force replaces it; --print shows what would be written"),
        _ => Failure::io("write", path, &e),
    })
}
