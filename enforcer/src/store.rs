//! What an enforcer needs to take up a session again: one JSON file a session, replaced whole, and an append-only file of
//! the names it gave addresses to, written before the address is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use api::v1;
use prost::Message as _;
use schema::host::HostName;
use schema::program::ProgramName;
use serde::{Deserialize, Serialize};

use crate::files::{Begun, Place};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {call} {}: {source}", path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a session record: {source}", path.display())]
    Record {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

fn io_error(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_path_buf();
    move |source| StoreError::Io { call, path, source }
}

/// A session as it is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    pub session: String,
    pub workspace: String,
    /// policy::EffectivePolicy.
    pub policy: serde_json::Value,
    pub generation: u32,
    /// The gateway's user and group id.
    pub gateway_uid: u32,
    /// Whether init was released: it is not challenged again.
    pub released: bool,
    /// What stands for its credentials, by name; their values are never written.
    #[serde(default)]
    pub credentials: BTreeMap<String, Credential>,
    /// What is known of the files of its secrets, by name; their values are never written.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Whose the workspace is on the host, where its files are the container's user's inside.
    #[serde(default)]
    pub owner: Option<(u32, u32)>,
    /// Where programs are masked, as it was found when the container started.
    #[serde(default)]
    pub masked: Vec<Place>,
    /// Programs that may be started, where mounts say that, as they were found then.
    #[serde(default)]
    pub listed: Vec<Place>,
    /// What may be started, by whatever carries a list: no mount that has something of it is noexec.
    #[serde(default)]
    pub startable: BTreeSet<PathBuf>,
    /// What LSM programs hold for a container, before they do.
    #[serde(default)]
    pub begun: Option<Begun>,
    /// Programs that a person allowed for as long as the container runs.
    #[serde(default)]
    pub approved: Vec<Approved>,
}

/// A program that a person allowed. Which file that is the kernel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    pub program: ProgramName,
    /// What the kernel has it by.
    pub number: u16,
    pub question: String,
    pub rule: audit::Rule,
}

/// What is kept of a credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    pub placeholder: String,
    pub revoked: bool,
}

/// What is kept of a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// Seconds since 1970, when its file goes; 0: with the session.
    pub expires: u64,
    pub revoked: bool,
}

/// One session's files.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    names: File,
}

impl Store {
    pub fn create(sessions: &Path, session: &str) -> Result<Self, StoreError> {
        let directory = sessions.join(session);
        std::fs::create_dir(&directory).map_err(io_error("create", &directory))?;
        Self::open(sessions, session).inspect_err(|_| {
            let _ = std::fs::remove_dir_all(&directory);
        })
    }

    pub fn open(sessions: &Path, session: &str) -> Result<Self, StoreError> {
        let directory = sessions.join(session);
        let path = directory.join("names");
        let names = OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        Ok(Self { directory, names })
    }

    /// Writes the record beside the old one and renames it into place.
    pub fn save(&self, record: &Record) -> Result<(), StoreError> {
        let path = self.directory.join("session.json");
        let new = self.directory.join("session.json.new");
        let bytes = serde_json::to_vec(record).map_err(|source| StoreError::Record {
            path: path.clone(),
            source,
        })?;
        let mut file = File::create(&new).map_err(io_error("create", &new))?;
        file.write_all(&bytes).map_err(io_error("write", &new))?;
        file.sync_data().map_err(io_error("sync", &new))?;
        std::fs::rename(&new, &path).map_err(io_error("replace", &path))
    }

    /// Keeps the certificates that upstreams are verified with, for a restart.
    pub fn save_roots(&self, roots: &[Vec<u8>]) -> Result<(), StoreError> {
        let path = self.directory.join("roots");
        let message = v1::OpenSessionRequest {
            roots: roots.to_vec(),
            ..Default::default()
        };
        std::fs::write(&path, message.encode_to_vec()).map_err(io_error("write", &path))
    }

    pub fn roots(&self) -> Result<Vec<Vec<u8>>, StoreError> {
        let path = self.directory.join("roots");
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        v1::OpenSessionRequest::decode(bytes.as_slice())
            .map(|message| message.roots)
            .map_err(|e| io_error("read", &path)(io::Error::other(e)))
    }

    pub fn load(&self) -> Result<Record, StoreError> {
        let path = self.directory.join("session.json");
        let bytes = std::fs::read(&path).map_err(io_error("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| StoreError::Record { path, source })
    }

    pub fn add_name(&mut self, name: &HostName, address: Ipv4Addr) -> Result<(), StoreError> {
        let path = self.directory.join("names");
        self.names
            .write_all(format!("{address} {name}\n").as_bytes())
            .map_err(io_error("write", &path))
    }

    /// The names in the order they were given addresses. A torn last line was never told to anybody.
    pub fn names(&self) -> Result<Vec<(HostName, Ipv4Addr)>, StoreError> {
        let path = self.directory.join("names");
        let text = std::fs::read_to_string(&path).map_err(io_error("read", &path))?;
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        if whole.len() + 1 < text.len() || (whole.is_empty() && !text.is_empty()) {
            let length = if whole.is_empty() {
                0
            } else {
                whole.len() as u64 + 1
            };
            self.names
                .set_len(length)
                .map_err(io_error("truncate", &path))?;
        }
        Ok(whole
            .lines()
            .filter_map(|line| {
                let (address, name) = line.split_once(' ')?;
                Some((HostName::parse(name).ok()?, address.parse().ok()?))
            })
            .collect())
    }

    pub fn remove(self) -> Result<(), StoreError> {
        std::fs::remove_dir_all(&self.directory).map_err(io_error("remove", &self.directory))
    }
}

/// Takes the files of a session away, if there are any.
pub fn remove(sessions: &Path, session: &str) -> Result<(), StoreError> {
    let directory = sessions.join(session);
    match std::fs::remove_dir_all(&directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", &directory)(e)),
        _ => Ok(()),
    }
}

/// Ids of the sessions that are kept.
pub fn sessions(directory: &Path) -> Result<Vec<String>, StoreError> {
    Ok(std::fs::read_dir(directory)
        .map_err(io_error("list", directory))?
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect())
}
