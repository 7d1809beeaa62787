//! Features (devcontainers specification, 'Features' and 'Features distribution'): what one in a registry, or beside a config,
//! says of itself, and in which order several are installed. `lock` reads them; nothing of them is ever run here.

pub mod gather;
pub mod local;
pub mod order;

use oci_spec::image::Descriptor;
use schema::diag::Diagnostic;
use schema::digest::Digest;
use schema::feature::{self, Metadata};
use thiserror::Error;

use crate::archive::{Archive, ArchiveError};
use crate::client::{Client, Parsed, Repository};
use crate::error::RegistryError;
use crate::resolve::digest_of;

/// Media types of a feature's manifest and of its layer.
pub const CONFIG_TYPE: &str = "application/vnd.devcontainers";
pub const LAYER_TYPE: &str = "application/vnd.devcontainers.layer.v1+tar";
/// Where a manifest repeats what its layer says: the devcontainer CLI believes this.
const ANNOTATION: &str = "dev.containers.metadata";
/// What installs it.
const INSTALL: &str = "install.sh";
/// The largest layer, as it is sent, in bytes.
pub const MAX_LAYER_BYTES: u64 = 32 * 1024 * 1024;

/// A feature, its content checked against its digest.
#[derive(Clone, Debug, PartialEq)]
pub struct Feature {
    pub digest: Digest,
    /// Of its manifest; empty for one that lies beside the config.
    pub media_type: String,
    pub metadata: Metadata,
}

#[derive(Debug, Error)]
pub enum FeatureError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("{what} {why}")]
    Refused { what: String, why: String },
    #[error("{what}: {error}")]
    Archive { what: String, error: ArchiveError },
    #[error("{what}: {}", .found.first().map(ToString::to_string).unwrap_or_default())]
    Metadata {
        what: String,
        found: Vec<Diagnostic>,
    },
}

// === impl FeatureError ===

impl FeatureError {
    /// The stable code of the diagnostic.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Registry(error) => error.code(),
            Self::Refused { .. } | Self::Metadata { .. } => "invalid-feature",
            Self::Archive { .. } => "feature-archive",
        }
    }
}

impl Client {
    /// The feature of a digest.
    ///
    /// # Errors
    /// It cannot be had, or what is there is no feature.
    pub async fn feature(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Feature, FeatureError> {
        let what = repository.at(digest);
        let refused = |why: String| FeatureError::Refused {
            what: what.clone(),
            why,
        };
        let content = self.manifest(repository, digest).await?;
        let Parsed::Manifest(manifest) = content.parse()? else {
            return Err(refused("is an index, and no feature".to_owned()));
        };
        let kind = manifest.config().media_type().to_string();
        if kind != CONFIG_TYPE {
            return Err(refused(format!(
                "is no feature: its configuration is of type {kind:?}"
            )));
        }
        let [layer] = manifest.layers().as_slice() else {
            return Err(refused(
                "is no feature: it has other than one layer".to_owned(),
            ));
        };
        let bytes = self.layer(repository, layer, &what).await?;
        let metadata = read(&what, &bytes)?;
        let annotations = manifest.annotations().as_ref();
        if let Some(said) = annotations.and_then(|all| all.get(ANNOTATION)) {
            let said = feature::parse(said.as_bytes(), ANNOTATION).map_err(|found| {
                FeatureError::Metadata {
                    what: what.clone(),
                    found,
                }
            })?;
            let installs =
                |m: &Metadata| (m.id.clone(), m.depends_on.clone(), m.installs_after.clone());
            if installs(&said) != installs(&metadata) {
                return Err(refused(format!(
                    "says one thing in its manifest ({ANNOTATION}) and another in its {}: who installs it could believe either",
                    feature::FILE
                )));
            }
        }
        Ok(Feature {
            digest: content.digest,
            media_type: content.media_type,
            metadata,
        })
    }

    async fn layer(
        &self,
        repository: &Repository,
        layer: &Descriptor,
        what: &str,
    ) -> Result<Vec<u8>, FeatureError> {
        let kind = layer.media_type().to_string();
        if kind != LAYER_TYPE {
            return Err(FeatureError::Refused {
                what: what.to_owned(),
                why: format!("is no feature: its layer is of type {kind:?}"),
            });
        }
        let digest = digest_of(layer).map_err(|why| RegistryError::Malformed {
            what: what.to_owned(),
            why,
        })?;
        if layer.size() > MAX_LAYER_BYTES {
            return Err(RegistryError::TooLarge {
                what: what.to_owned(),
                limit: MAX_LAYER_BYTES,
            }
            .into());
        }
        self.expect(layer.size()).await;
        let bytes = self.blob(repository, &digest, MAX_LAYER_BYTES).await?;
        if bytes.len() as u64 != layer.size() {
            return Err(RegistryError::Length {
                what: format!("the layer of {what}"),
                expected: layer.size(),
            }
            .into());
        }
        Ok(bytes)
    }
}

/// What the archive of a feature says of it.
fn read(what: &str, layer: &[u8]) -> Result<Metadata, FeatureError> {
    let archive = Archive::read(layer).map_err(|error| FeatureError::Archive {
        what: what.to_owned(),
        error,
    })?;
    metadata(what, &archive)
}

fn metadata(what: &str, archive: &Archive) -> Result<Metadata, FeatureError> {
    for name in [feature::FILE, INSTALL] {
        if archive.file(name).is_none() {
            return Err(FeatureError::Refused {
                what: what.to_owned(),
                why: format!("has no {name}"),
            });
        }
    }
    let bytes = archive.file(feature::FILE).unwrap_or_default();
    feature::parse(bytes, feature::FILE).map_err(|found| FeatureError::Metadata {
        what: what.to_owned(),
        found,
    })
}
