//! Fetches a value from where the host's config says it is. Every source is bounded in bytes and time; an error names the
//! source and what went wrong there, never what came out of it. A new source is a variant of schema's `Source` and an arm of
//! [`fetch`].

mod device;
mod exec;
mod keyring;
mod vault;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schema::credential::Source;
use schema::diag::escape;
use thiserror::Error;
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
    #[error("{0} is not on PATH; install {1}, or name its full path with exec://")]
    NoProgram(&'static str, &'static str),
    #[error("standard input cannot be read for it: {0}")]
    InputTaken(&'static str),
    #[error("the keyring: {0}")]
    Keyring(#[from] keyring::KeyringError),
    #[error("{service}: {error}")]
    Vault {
        service: String,
        error: vault::VaultError,
    },
    #[error("{service}: {error}")]
    Device {
        service: String,
        error: device::DeviceError,
    },
    #[error("{} printed an ExecCredential that cannot be used: {why}", escape(&program.to_string_lossy()))]
    ExecCredential { program: PathBuf, why: &'static str },
    #[error("what {from} holds is no value: {error}")]
    Value { from: String, error: ValueError },
}

fn said(stderr: &str) -> String {
    match stderr.trim() {
        "" => String::new(),
        text => format!(": {}", escape(text)),
    }
}

/// What a source may ask of this host.
pub struct Host<'a> {
    /// A variable.
    pub env: &'a (dyn Fn(&str) -> Option<OsString> + Sync),
    /// What services are verified with, DER.
    pub roots: &'a [Vec<u8>],
    /// Shows a line to the person who waits; `None`: nobody does.
    pub person: Option<&'a (dyn Fn(&str) + Sync)>,
    pub input: Input,
    /// A program's, [`EXEC_DEADLINE`] outside tests.
    pub deadline: Duration,
    /// How long a second is when a service says how long to wait; shorter in tests.
    pub second: Duration,
}

/// Whether standard input may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    Free,
    /// Somebody else's, in words.
    Taken(&'static str),
}

/// Fetches the value; `before` is what the same source gave last, if this process knows it.
///
/// # Errors
/// [`SourceError`], without anything of the value.
pub async fn fetch(
    source: &Source,
    before: Option<&Fetched>,
    host: &Host<'_>,
) -> Result<Fetched, SourceError> {
    let bytes = match source {
        Source::Env(name) => (host.env)(name)
            .map(OsString::into_vec)
            .ok_or_else(|| SourceError::NotSet(name.clone()))?,
        Source::File(path) => read_file(path, READ_BYTES)?,
        Source::Exec { program, arguments } => {
            let printed = exec::run(program, arguments, host.deadline).await?;
            if let Some(fetched) = exec::credential(program, &printed) {
                return fetched;
            }
            printed
        }
        Source::Stdin => standard_input(host.input)?,
        Source::Keyring { service, account } => {
            std::mem::take(&mut *keyring::fetch(service, account).await?)
        }
        Source::OnePassword(reference) => {
            let program = exec::find("op", host)?;
            let reference = format!("op://{reference}");
            let words = ["read", "--no-newline", reference.as_str()].map(str::to_owned);
            exec::run(&program, &words, host.deadline).await?
        }
        Source::Vault {
            host: name,
            port,
            path,
            field,
        } => {
            let wanted = vault::Wanted {
                host: name,
                port: *port,
                path,
                field,
            };
            return vault::fetch(wanted, host).await;
        }
        Source::Device {
            host: name,
            port,
            client,
            scopes,
        } => {
            let wanted = device::Wanted {
                host: name,
                port: *port,
                client,
                scope: &scopes.join(" "),
            };
            return device::fetch(wanted, before, host).await;
        }
    };
    let value = Secret::new(bytes).map_err(|error| SourceError::Value {
        // Arguments are left out: people put more into them than they should.
        from: match source {
            Source::Exec { program, .. } => escape(&program.to_string_lossy()),
            other => escape(&other.to_string()),
        },
        error,
    })?;
    Ok(Fetched::until(value, None))
}

/// All of it, once: what is read is not there for whoever comes after.
fn standard_input(input: Input) -> Result<Vec<u8>, SourceError> {
    static READ: AtomicBool = AtomicBool::new(false);
    if let Input::Taken(why) = input {
        return Err(SourceError::InputTaken(why));
    }
    if READ.swap(true, Ordering::Relaxed) {
        return Err(SourceError::InputTaken(
            "it was read for another credential already",
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(READ_BYTES));
    std::io::stdin()
        .lock()
        .take(READ_BYTES as u64)
        .read_to_end(&mut bytes)
        .map_err(|error| SourceError::Read {
            path: "/dev/stdin".into(),
            error,
        })?;
    Ok(std::mem::take(&mut bytes))
}

/// Seconds since 1970.
fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.as_secs())
}

/// A file that nobody else could have written, up to a number of bytes.
fn read_file(path: &Path, limit: usize) -> Result<Vec<u8>, SourceError> {
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
    read_bounded(&file, limit).map_err(read)
}

fn read_bounded(file: &File, limit: usize) -> std::io::Result<Vec<u8>> {
    // In place and once: a vector that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(std::mem::take(&mut bytes))
}

#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod tests;
