//! From a reference to what it names now: the digest of the index or manifest behind it, and the manifest of each platform.

use std::collections::BTreeMap;
use std::fmt;

use oci_spec::image::Descriptor;
use schema::digest::Digest;
use schema::image::ImageRef;
use schema::lockfile::Platform;
use serde::Deserialize;

use crate::client::{Client, Content, Parsed, Repository};
use crate::error::RegistryError;

/// The largest configuration of an image, in bytes.
pub const MAX_CONFIG_BYTES: u64 = 4 * 1024 * 1024;

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub repository: Repository,
    /// Of the index, or of the manifest where there is none.
    pub digest: Digest,
    pub media_type: String,
    /// The manifest of each platform. Empty for what is no image.
    pub platforms: BTreeMap<Platform, Digest>,
}

/// What an image's configuration says of the machine it is for.
#[derive(Deserialize)]
struct Machine {
    os: Option<String>,
    architecture: Option<String>,
    variant: Option<String>,
}

impl Client {
    /// What a reference names: by its digest where it has one, by its tag otherwise.
    ///
    /// # Errors
    /// Any [`RegistryError`]; a name that the registry does not have is [`RegistryError::NotFound`].
    pub async fn resolve(&self, reference: &ImageRef) -> Result<Resolved, RegistryError> {
        let repository = Repository::of(reference);
        let content = match reference.digest() {
            Some(digest) => self.manifest(&repository, digest).await?,
            None => {
                let tag = reference.tag().unwrap_or("latest");
                self.tag(&repository, tag)
                    .await?
                    .ok_or_else(|| RegistryError::NotFound {
                        registry: repository.registry().to_owned(),
                        what: format!("{}:{tag}", repository.name()),
                    })?
            }
        };
        let platforms = self.platforms(&repository, &content).await?;
        Ok(Resolved {
            repository,
            digest: content.digest,
            media_type: content.media_type,
            platforms,
        })
    }

    /// What a digest is, as [`Self::resolve`] would say of a reference with it.
    pub async fn resolve_pin(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Resolved, RegistryError> {
        let content = self.manifest(repository, digest).await?;
        let platforms = self.platforms(repository, &content).await?;
        Ok(Resolved {
            repository: repository.clone(),
            digest: content.digest,
            media_type: content.media_type,
            platforms,
        })
    }

    /// The manifest of each platform of an index, or the one platform of a manifest.
    async fn platforms(
        &self,
        repository: &Repository,
        content: &Content,
    ) -> Result<BTreeMap<Platform, Digest>, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: repository.at(&content.digest),
            why,
        };
        match content.parse()? {
            Parsed::Index(index) => {
                let mut platforms = BTreeMap::new();
                for entry in index.manifests() {
                    let Some(platform) = platform_of(entry) else {
                        continue;
                    };
                    let digest = digest_of(entry).map_err(&malformed)?;
                    // Engines take the first.
                    platforms.entry(platform).or_insert(digest);
                }
                if platforms.is_empty() {
                    return Err(malformed(
                        "its index has no manifest for any platform".to_owned(),
                    ));
                }
                Ok(platforms)
            }
            Parsed::Manifest(manifest) => {
                if !is_image_config(manifest.config().media_type().as_ref()) {
                    return Ok(BTreeMap::new());
                }
                let digest = digest_of(manifest.config()).map_err(&malformed)?;
                let config = self.blob(repository, &digest, MAX_CONFIG_BYTES).await?;
                let machine: Machine =
                    serde_json::from_slice(&config).map_err(|e| malformed(e.to_string()))?;
                let platform = Platform::new(
                    machine.os.as_deref().unwrap_or("linux"),
                    machine.architecture.as_deref().unwrap_or("amd64"),
                    machine.variant.as_deref(),
                )
                .ok_or_else(|| malformed("its platform is not spelt as one".to_owned()))?;
                Ok(BTreeMap::from([(platform, content.digest)]))
            }
        }
    }

    /// The digest of the configuration that the manifest of a platform names: the id under which engines have the image.
    pub async fn image_id(
        &self,
        repository: &Repository,
        manifest: &Digest,
    ) -> Result<Digest, RegistryError> {
        let content = self.manifest(repository, manifest).await?;
        match content.parse()? {
            Parsed::Manifest(manifest) => {
                digest_of(manifest.config()).map_err(|why| RegistryError::Malformed {
                    what: repository.at(&content.digest),
                    why,
                })
            }
            Parsed::Index(_) => Err(RegistryError::Malformed {
                what: repository.at(manifest),
                why: "it is an index where a manifest was named".to_owned(),
            }),
        }
    }
}

pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    )
}

/// The platform of an entry; none for attestations, which builders list as `unknown/unknown`.
fn platform_of(entry: &Descriptor) -> Option<Platform> {
    let platform = entry.platform().as_ref()?;
    let (os, architecture) = (
        platform.os().to_string(),
        platform.architecture().to_string(),
    );
    if os == "unknown" || architecture == "unknown" {
        return None;
    }
    Platform::new(&os, &architecture, platform.variant().as_deref())
}

pub(crate) fn digest_of(descriptor: &Descriptor) -> Result<Digest, String> {
    let written = descriptor.digest().to_string();
    Digest::parse(&written).map_err(|e| format!("{}: {e}", written.escape_debug()))
}

// === impl Resolved ===

impl Resolved {
    /// `registry/repository@digest`
    pub fn pinned(&self) -> String {
        self.repository.at(&self.digest)
    }
}

impl fmt::Display for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.pinned())
    }
}
