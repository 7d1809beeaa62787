//! Which file of a workspace is its config: the order that config.md gives, and nothing that is not a regular file of
//! bounded size. The path it was found at is part of what a person approves, so a file that appears ahead of an
//! approved one is noticed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::Config;
use crate::diag::Diagnostic;
use crate::jsonc::MAX_FILE_BYTES;

/// Where a config is looked for, in this order, relative to the workspace.
pub const ORDER: [&str; 4] = [
    ".devcontainer/agentcontainer.json",
    "agentcontainer.json",
    ".devcontainer/devcontainer.json",
    ".devcontainer.json",
];

/// What the person asked for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// The first of [`ORDER`].
    First,
    /// `--config FILE`, relative to the current directory or absolute.
    File(&'a Path),
    /// `.devcontainer/NAME/devcontainer.json`.
    Named(&'a str),
}

impl<'a> Wanted<'a> {
    /// What `--config` says: a file, or where none is called so, a folder in the workspace's `.devcontainer` by its name.
    pub fn said(path: &'a Path, workspace: &Path) -> Self {
        let folder = workspace.join(".devcontainer").join(path);
        match path.to_str() {
            Some(name)
                if !name.contains('/')
                    && !path.is_file()
                    && folder.join("devcontainer.json").exists() =>
            {
                Self::Named(name)
            }
            _ => Self::File(path),
        }
    }
}

/// Which keys a file may use for the `agent` object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// agentcontainer.json: the key `agent`.
    Agentcontainer,
    /// devcontainer.json: `customizations.agentcontainer`.
    Devcontainer,
}

#[derive(Clone, Debug)]
pub struct Found {
    pub path: PathBuf,
    /// How diagnostics, origins and approvals name it: relative to the workspace where it is inside of it.
    pub name: String,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Error)]
pub enum DiscoverError {
    #[error("no agentcontainer.json or devcontainer.json in {}", .0.display())]
    None(PathBuf),
    #[error("no config of that order in {}, but some by name: {}", .workspace.display(), .names.join(", "))]
    OnlyNamed {
        workspace: PathBuf,
        names: Vec<String>,
    },
    #[error("`{0}` is no name of a folder in .devcontainer")]
    Name(String),
    #[error("{} does not exist", .0.display())]
    Missing(PathBuf),
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    #[error("{} has more than {MAX_FILE_BYTES} bytes", .0.display())]
    TooLarge(PathBuf),
    #[error("{} cannot be read: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// Finds and reads the config of a workspace.
///
/// # Errors
/// [`DiscoverError`] when there is none, or it cannot be read. A file that is there and cannot be read is an error and
/// never a reason to take the next one.
pub fn discover(workspace: &Path, wanted: Wanted<'_>) -> Result<Found, DiscoverError> {
    match wanted {
        Wanted::File(path) => {
            let relative = path.strip_prefix(workspace).unwrap_or(path);
            let name = relative.to_string_lossy().into_owned();
            found(path.to_owned(), name)?.ok_or_else(|| DiscoverError::Missing(path.to_owned()))
        }
        Wanted::Named(folder) => {
            if folder.is_empty() || folder.starts_with('.') || folder.contains(['/', '\\', '\0']) {
                return Err(DiscoverError::Name(folder.to_owned()));
            }
            let name = format!(".devcontainer/{folder}/devcontainer.json");
            let path = workspace.join(&name);
            found(path.clone(), name)?.ok_or(DiscoverError::Missing(path))
        }
        Wanted::First => {
            for name in ORDER {
                if let Some(found) = found(workspace.join(name), name.to_owned())? {
                    return Ok(found);
                }
            }
            let names = named(workspace);
            let workspace = workspace.to_owned();
            if names.is_empty() {
                Err(DiscoverError::None(workspace))
            } else {
                Err(DiscoverError::OnlyNamed { workspace, names })
            }
        }
    }
}

/// Finds, reads and parses the config of a workspace.
///
/// # Errors
/// One diagnostic when there is none, or everything that is wrong with it.
pub fn load(workspace: &Path, wanted: Wanted<'_>) -> Result<Config, Vec<Diagnostic>> {
    let found = discover(workspace, wanted).map_err(|error| vec![error.into()])?;
    super::parse(&found.bytes, &found.name)
}

fn found(path: PathBuf, name: String) -> Result<Option<Found>, DiscoverError> {
    Ok(read_file(&path, MAX_FILE_BYTES)?.map(|bytes| Found { path, name, bytes }))
}

/// A regular file's bytes; `None` when there is no such path. Devices, pipes and sockets are refused without being read,
/// and opening one does not wait.
pub fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, DiscoverError> {
    let io = |source| DiscoverError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match open(path) {
        Ok(file) => file,
        // What agentcontainer itself puts where a control file could be and is none.
        Err(error) if is_socket(path) && error.raw_os_error() == Some(libc::ENXIO) => {
            return Ok(None);
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            // A dangling link is a file that somebody put there.
            return if path.is_symlink() {
                Err(io(error))
            } else {
                Ok(None)
            };
        }
        Err(error) => return Err(io(error)),
    };
    if !file.metadata().map_err(io)?.is_file() {
        return Err(DiscoverError::NotAFile(path.to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() > limit {
        Err(DiscoverError::TooLarge(path.to_owned()))
    } else {
        Ok(Some(bytes))
    }
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    path.symlink_metadata()
        .is_ok_and(|meta| meta.file_type().is_socket())
}

#[cfg(not(unix))]
fn is_socket(_: &Path) -> bool {
    false
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn named(workspace: &Path) -> Vec<String> {
    const MOST: usize = 64;
    let Ok(entries) = fs::read_dir(workspace.join(".devcontainer")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .flatten()
        .take(MOST)
        .filter(|entry| entry.path().join("devcontainer.json").is_file())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

// === impl Flavour ===

impl Flavour {
    /// By the file's own name: `devcontainer.json` and `.devcontainer.json` are devcontainer files, all else is ours.
    pub fn of(file: &str) -> Self {
        match file.rsplit('/').next() {
            Some("devcontainer.json" | ".devcontainer.json") => Self::Devcontainer,
            _ => Self::Agentcontainer,
        }
    }
}

// === impl DiscoverError ===

impl From<DiscoverError> for Diagnostic {
    fn from(error: DiscoverError) -> Self {
        let message = error.to_string();
        match error {
            DiscoverError::None(_) => Self::new("no-config", message)
                .help("make one with `agentcontainer init`, or name one with `--config`"),
            DiscoverError::OnlyNamed { .. } => {
                Self::new("no-config", message).help("name one of them: `--config NAME`")
            }
            DiscoverError::Name(_) | DiscoverError::Missing(_) => Self::new("no-config", message),
            DiscoverError::NotAFile(_) => Self::new("not-a-file", message),
            DiscoverError::TooLarge(_) => Self::new("too-large", message),
            DiscoverError::Io { .. } => Self::new("unreadable", message),
        }
    }
}

#[cfg(test)]
mod tests;
