//! Files that a person names on the command line: read whole, within a bound, or refused in words.

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
