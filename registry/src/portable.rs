//! One file with everything that a lockfile pins, for machines without a network: a tar of an OCI image layout whose first manifest
//! is ours and says what lay beside what. There is one way to write it, and what is written in another is refused, so that the
//! reader is a comparison and the same content is the same file.

mod archive;
mod read;
mod write;

use std::io;

use schema::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;

use crate::client::{OCI_INDEX, OCI_MANIFEST};
use crate::error::RegistryError;
use crate::evidence::Note;

pub use read::Portable;
pub use write::Export;

/// The artifact type of the manifest that says what the rest is, and the type of its first layer.
pub const TYPE: &str = "application/vnd.agentcontainer.bundle.v1+json";
/// Of its second: the lockfile.
pub const LOCKFILE_TYPE: &str = "application/vnd.agentcontainer.lockfile.v1+json";
/// The version that is written and the only one that is read.
pub const VERSION: u32 = 1;
/// The largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: u64 = 16 * 1024 * 1024;
/// The most blobs in one file.
pub const MAX_BLOBS: usize = 16 * 1024;
/// The largest blob, in bytes.
pub const MAX_BLOB_BYTES: u64 = 64 * 1024 * 1024 * 1024;
/// The most of a blob that is read into memory, where nothing smaller is said: configurations, manifests.
pub const MAX_SMALL_BYTES: u64 = 4 * 1024 * 1024;

/// What an image layout says of itself.
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const LAYOUT_NAME: &str = "oci-layout";
const INDEX_NAME: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
/// How tools name what an index lists (OCI image specification, 'Pre-Defined Annotation Keys').
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Of a tar.
const BLOCK: usize = 512;

/// What the file holds beside content: for whom each note is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Document {
    pub version: u32,
    /// What the index lists behind our own manifest, so that the index too is what it was.
    pub listed: Vec<Value>,
    /// What the registries had beside what is pinned, and beside policies.
    pub beside: Vec<Beside>,
    /// The policies that the exporting host believed.
    pub policies: Vec<Policy>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Beside {
    /// `registry/repository`
    pub repository: String,
    pub subject: Digest,
    pub note: Note,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// As the host's config names it.
    pub source: String,
    /// Of the artifact's manifest.
    pub manifest: Digest,
}

#[derive(Debug, Error)]
pub enum PortableError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("it cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("it ends before it is whole")]
    Cut,
    #[error("it is not as an export is written: {0}")]
    Form(String),
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("it holds more than {MAX_BLOBS} blobs")]
    TooMany,
    #[error("what it holds as {expected} has the digest {found}")]
    Digest { expected: Digest, found: Digest },
    #[error("{0} is not in it, and is named by what is")]
    Missing(Digest),
    #[error("{0} is in it, and nothing in it names that")]
    Unnamed(Digest),
    #[error("{name} has nothing for {platform}: it has {there}")]
    Platform {
        name: String,
        platform: String,
        there: String,
    },
    #[error("{0} is an image of one engine's own, and no registry has it")]
    Local(String),
}

/// The header of a file in the archive: of nobody, from no time.
fn header(name: &str, size: u64) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    Ok(header)
}

/// The index of what is listed behind our own manifest.
fn index(manifest: &[u8], listed: &[Value]) -> io::Result<Vec<u8>> {
    let mut first = described(OCI_MANIFEST, manifest);
    first["artifactType"] = json!(TYPE);
    let all: Vec<&Value> = std::iter::once(&first).chain(listed).collect();
    let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": all });
    Ok(serde_json::to_vec(&index)?)
}

fn described(kind: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len() })
}

/// What follows a file of this size up to the next block.
fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).unwrap_or_default();
    (BLOCK - rest) % BLOCK
}

fn blob_name(digest: &Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

#[cfg(test)]
#[path = "portable/tests.rs"]
mod tests;
