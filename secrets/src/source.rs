//! Fetches a value from where the host's config says it is. Every source is bounded in bytes and time; an error names the
//! source and what went wrong there, never what came out of it.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use schema::credential::Source;
use schema::diag::escape;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use crate::value::{Fetched, READ_BYTES, Secret, ValueError};

/// How long a program may take.
pub const EXEC_DEADLINE: Duration = Duration::from_secs(30);
/// How much of what a program says on stderr is shown when it fails, in bytes.
pub const MAX_STDERR_BYTES: usize = 2048;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("the variable {0} is not set here")]
    NotSet(String),
    #[error("cannot read {}: {error}", escape(&path.to_string_lossy()))]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} is not a regular file", escape(&.0.to_string_lossy()))]
    NotAFile(PathBuf),
    #[error(
        "{} can be written by others than its owner, who could choose what is sent in your name; chmod go-w",
        escape(&.0.to_string_lossy())
    )]
    Writable(PathBuf),
    #[error(
        "{} belongs to user {owner}, who could choose what is sent in your name; it has to be yours or root's",
        escape(&path.to_string_lossy())
    )]
    Owner { path: PathBuf, owner: u32 },
    #[error("cannot run {}: {error}", escape(&program.to_string_lossy()))]
    Spawn {
        program: PathBuf,
        error: std::io::Error,
    },
    #[error("{} did not end within {} s", escape(&program.to_string_lossy()), after.as_secs_f32())]
    Deadline { program: PathBuf, after: Duration },
    #[error("{} failed ({status}){}", escape(&program.to_string_lossy()), said(.stderr))]
    Failed {
        program: PathBuf,
        status: ExitStatus,
        stderr: String,
    },
    #[error("what {from} holds is no value: {error}")]
    Value { from: String, error: ValueError },
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!(": {}", escape(text)),
    }
}

/// Fetches the value. `env` looks a variable up; `deadline` is a program's, [`EXEC_DEADLINE`] outside tests.
///
/// # Errors
/// [`SourceError`], without anything of the value.
pub async fn fetch(
    source: &Source,
    env: impl Fn(&str) -> Option<OsString>,
    deadline: Duration,
) -> Result<Fetched, SourceError> {
    let bytes = match source {
        Source::Env(name) => env(name)
            .map(OsString::into_vec)
            .ok_or_else(|| SourceError::NotSet(name.clone()))?,
        Source::File(path) => file(path)?,
        Source::Exec { program, arguments } => exec(program, arguments, deadline).await?,
    };
    let value = Secret::new(bytes).map_err(|error| SourceError::Value {
        // Arguments are left out: people put more into them than they should.
        from: match source {
            Source::Exec { program, .. } => escape(&program.to_string_lossy()),
            other => escape(&other.to_string()),
        },
        error,
    })?;
    Ok(Fetched {
        value,
        expires: None,
    })
}

fn file(path: &Path) -> Result<Vec<u8>, SourceError> {
    let read = |error| SourceError::Read {
        path: path.to_owned(),
        error,
    };
    // A pipe would keep us waiting.
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK)
        .open(path)
        .map_err(read)?;
    let meta = file.metadata().map_err(read)?;
    if !meta.is_file() {
        return Err(SourceError::NotAFile(path.to_owned()));
    }
    let own = nix::unistd::geteuid().as_raw();
    if meta.uid() != own && meta.uid() != 0 {
        return Err(SourceError::Owner {
            path: path.to_owned(),
            owner: meta.uid(),
        });
    }
    if meta.mode() & 0o022 != 0 {
        return Err(SourceError::Writable(path.to_owned()));
    }
    read_bounded(&file).map_err(read)
}

fn read_bounded(file: &File) -> std::io::Result<Vec<u8>> {
    // In place and once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BYTES));
    file.take(READ_BYTES as u64).read_to_end(&mut bytes)?;
    Ok(std::mem::take(&mut bytes))
}

async fn exec(
    program: &Path,
    arguments: &[String],
    deadline: Duration,
) -> Result<Vec<u8>, SourceError> {
    let spawn = |error| SourceError::Spawn {
        program: program.to_owned(),
        error,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (value, words) = tokio::join!(
            first_bytes(stdout, READ_BYTES),
            first_bytes(stderr, MAX_STDERR_BYTES)
        );
        Ok::<_, std::io::Error>((value?, words?, child.wait().await?))
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok((mut value, _, status))) if status.success() => Ok(std::mem::take(&mut value)),
        Ok(Ok((value, words, status))) => Err(SourceError::Failed {
            program: program.to_owned(),
            status,
            stderr: without(&words, &value),
        }),
        Ok(Err(error)) => Err(spawn(error)),
        // Dropping the child kills it.
        Err(_) => Err(SourceError::Deadline {
            program: program.to_owned(),
            after: deadline,
        }),
    }
}

/// The first bytes of a stream, which is read to its end so that its writer is not held up.
async fn first_bytes(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(limit));
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        let n = stream.read(&mut *chunk).await?;
        if n == 0 {
            return Ok(kept);
        }
        let room = (limit - kept.len()).min(n);
        kept.extend_from_slice(&chunk[..room]);
    }
}

/// A program's words, unless they repeat what it printed as the value.
fn without(words: &[u8], value: &[u8]) -> String {
    let value = value.trim_ascii();
    let repeated = !value.is_empty()
        && words
            .windows(value.len().min(words.len()).max(1))
            .any(|part| part == value);
    if repeated {
        return "its words are not shown because they hold what it printed".to_owned();
    }
    String::from_utf8_lossy(words).into_owned()
}

#[cfg(test)]
mod tests;
