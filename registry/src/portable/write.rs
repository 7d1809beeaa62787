//! What an export holds, gathered from registries, and how it is written: small things at once, layers as they come.

use std::collections::BTreeMap;
use std::io::{self, Write};

use oci_spec::image::Descriptor;
use schema::digest::Digest;
use schema::image::ImageRef;
use schema::lockfile::{Pin, Platform};
use serde_json::json;

use super::{
    BLOCK, Beside, Document, INDEX_NAME, LAYOUT, LAYOUT_NAME, LOCKFILE_TYPE, MAX_BLOB_BYTES,
    MAX_BLOBS, MAX_SMALL_BYTES, Policy, PortableError, REF_NAME, TYPE, VERSION, blob_name,
    described, header, padding,
};
use crate::client::{Client, Content, OCI_MANIFEST, Parsed, Repository, own_media_type};
use crate::error::RegistryError;
use crate::publish::{EMPTY, EMPTY_TYPE};
use crate::resolve::digest_of;

/// Everything that goes into one file.
pub struct Export<'c> {
    client: &'c Client,
    blobs: BTreeMap<Digest, Blob>,
    document: Document,
    /// Our own, once everything is gathered.
    manifest: Vec<u8>,
}

enum Blob {
    Here(Vec<u8>),
    There(Repository, u64),
}

/// Which manifests of an index are taken.
#[derive(Clone, Copy)]
pub(super) enum Which<'p> {
    All,
    These(&'p [Digest]),
}

// === impl Export ===

impl<'c> Export<'c> {
    pub fn new(client: &'c Client) -> Self {
        Self {
            client,
            blobs: BTreeMap::new(),
            document: Document {
                version: VERSION,
                listed: Vec::new(),
                beside: Vec::new(),
                policies: Vec::new(),
            },
            manifest: Vec::new(),
        }
    }

    /// One pin for these platforms, and what lies beside it.
    ///
    /// # Errors
    /// It cannot be had whole, or is not there for a platform.
    pub async fn pin(
        &mut self,
        name: &str,
        pin: &Pin,
        platforms: &[Platform],
    ) -> Result<(), PortableError> {
        let written = pin.reference.as_str();
        if pin.local {
            return Err(PortableError::Local(format!("{name} ({written})")));
        }
        let mut wanted = Vec::new();
        for platform in platforms {
            if pin.platforms.is_empty() {
                break;
            }
            let manifest = pin.manifest_for(platform).ok_or_else(|| {
                let there: Vec<String> = pin.platforms.keys().map(ToString::to_string).collect();
                PortableError::Platform {
                    name: format!("{name} ({written})"),
                    platform: platform.to_string(),
                    there: there.join(", "),
                }
            })?;
            wanted.push(*manifest);
        }
        let which = if pin.platforms.is_empty() {
            Which::All
        } else {
            Which::These(&wanted)
        };
        let repository = Repository::of(&pin.reference);
        self.tree(&repository, &pin.digest, which, Some(written))
            .await?;
        self.beside(&repository, &pin.digest).await
    }

    /// A policy that the host believes, and what lies beside it.
    ///
    /// # Errors
    /// It cannot be had whole.
    pub async fn policy(
        &mut self,
        source: &str,
        reference: &ImageRef,
        manifest: &Digest,
    ) -> Result<(), PortableError> {
        let repository = Repository::of(reference);
        self.tree(&repository, manifest, Which::All, Some(reference.as_str()))
            .await?;
        self.beside(&repository, manifest).await?;
        self.document.policies.push(Policy {
            source: source.to_owned(),
            manifest: *manifest,
        });
        Ok(())
    }

    async fn beside(
        &mut self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<(), PortableError> {
        let gathered = self.client.evidence(repository, subject).await?;
        let note = gathered.note();
        if let Some(error) = gathered.missed.into_iter().next() {
            return Err(error.into());
        }
        for manifest in self.client.manifests_beside(repository, subject).await? {
            self.tree(repository, &manifest, Which::All, None).await?;
        }
        let beside = Beside {
            repository: repository.to_string(),
            subject: *subject,
            note,
        };
        if !self.document.beside.contains(&beside) {
            self.document.beside.push(beside);
        }
        Ok(())
    }

    /// A manifest or an index, and everything that it names.
    pub(super) async fn tree(
        &mut self,
        repository: &Repository,
        digest: &Digest,
        which: Which<'_>,
        called: Option<&str>,
    ) -> Result<(), PortableError> {
        let content = self.client.manifest(repository, digest).await?;
        let mut listed = json!({
            "mediaType": content.media_type,
            "digest": content.digest,
            "size": content.bytes.len(),
        });
        if let Some(called) = called {
            listed["annotations"] = json!({ REF_NAME: called });
        }
        if !self.document.listed.contains(&listed) {
            self.document.listed.push(listed);
        }
        own_type(&content)?;
        match content.parse()? {
            Parsed::Manifest(_) => self.manifest(repository, content)?,
            Parsed::Index(index) => {
                for entry in index.manifests() {
                    let digest = named(repository, entry)?;
                    if let Which::These(these) = which
                        && !these.contains(&digest)
                    {
                        continue;
                    }
                    let inner = self.client.manifest(repository, &digest).await?;
                    self.manifest(repository, inner)?;
                }
                self.put(content.bytes)?;
            }
        }
        Ok(())
    }

    fn manifest(&mut self, repository: &Repository, content: Content) -> Result<(), PortableError> {
        own_type(&content)?;
        let Parsed::Manifest(manifest) = content.parse()? else {
            return Err(PortableError::Form("an index within an index".to_owned()));
        };
        for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
            let digest = named(repository, descriptor)?;
            if descriptor.size() > MAX_BLOB_BYTES {
                return Err(PortableError::TooLarge {
                    what: digest.to_string(),
                    limit: MAX_BLOB_BYTES,
                });
            }
            self.blobs
                .entry(digest)
                .or_insert_with(|| Blob::There(repository.clone(), descriptor.size()));
        }
        self.put(content.bytes)
    }

    fn put(&mut self, bytes: Vec<u8>) -> Result<(), PortableError> {
        self.blobs.insert(Digest::of(&bytes), Blob::Here(bytes));
        if self.blobs.len() > MAX_BLOBS {
            return Err(PortableError::TooMany);
        }
        Ok(())
    }

    /// Closes it with the lockfile; how many bytes of blobs there are.
    ///
    /// # Errors
    /// There are too many.
    pub fn finish(&mut self, lockfile: &str) -> Result<u64, PortableError> {
        let document = serde_json::to_vec(&self.document).map_err(io::Error::from)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": TYPE,
            "config": described(EMPTY_TYPE, EMPTY),
            "layers": [described(TYPE, &document), described(LOCKFILE_TYPE, lockfile.as_bytes())],
        });
        let manifest = serde_json::to_vec(&manifest).map_err(io::Error::from)?;
        self.manifest.clone_from(&manifest);
        for bytes in [
            EMPTY.to_vec(),
            document,
            lockfile.as_bytes().to_vec(),
            manifest,
        ] {
            self.put(bytes)?;
        }
        Ok(self.blobs.values().map(Blob::size).sum())
    }

    /// Writes it; `progress` hears how many bytes of blobs were written.
    ///
    /// # Errors
    /// A layer cannot be had, or the file not written. What was written is worth nothing then.
    pub async fn write(
        &self,
        out: &mut (dyn Write + Send),
        progress: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PortableError> {
        let index = super::index(&self.manifest, &self.document.listed)?;
        for (name, bytes) in [(LAYOUT_NAME, LAYOUT), (INDEX_NAME, index.as_slice())] {
            begin(out, name, bytes.len() as u64)?;
            out.write_all(bytes)?;
            end(out, bytes.len() as u64)?;
        }
        let mut written = 0;
        for (digest, blob) in &self.blobs {
            let size = blob.size();
            begin(out, &blob_name(digest), size)?;
            let mut take = |piece: &[u8]| {
                written += piece.len() as u64;
                progress(written);
                out.write_all(piece)
            };
            match blob {
                Blob::Here(bytes) => take(bytes)?,
                Blob::There(repository, size) if *size <= MAX_SMALL_BYTES => {
                    let bytes = self.client.blob(repository, digest, *size).await?;
                    if bytes.len() as u64 != *size {
                        return Err(RegistryError::Length {
                            what: repository.at(digest),
                            expected: *size,
                        }
                        .into());
                    }
                    take(&bytes)?;
                }
                Blob::There(repository, size) => {
                    self.client
                        .download(repository, digest, *size, &mut take)
                        .await?;
                }
            }
            end(out, size)?;
        }
        out.write_all(&[0; 2 * BLOCK])?;
        Ok(())
    }
}

impl Blob {
    fn size(&self) -> u64 {
        match self {
            Self::Here(bytes) => bytes.len() as u64,
            Self::There(_, size) => *size,
        }
    }
}

fn begin(out: &mut (dyn Write + Send), name: &str, size: u64) -> io::Result<()> {
    out.write_all(header(name, size)?.as_bytes())
}

fn end(out: &mut (dyn Write + Send), size: u64) -> io::Result<()> {
    out.write_all(&[0; BLOCK][..padding(size)])
}

/// Without a registry nobody says what a manifest is but itself.
fn own_type(content: &Content) -> Result<(), PortableError> {
    if own_media_type(&content.bytes).as_ref() == Some(&content.media_type) {
        return Ok(());
    }
    Err(PortableError::Form(format!(
        "the manifest {} does not say of which type it is",
        content.digest
    )))
}

fn named(repository: &Repository, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
    digest_of(descriptor).map_err(|why| RegistryError::Malformed {
        what: format!("a descriptor in {repository}"),
        why,
    })
}
