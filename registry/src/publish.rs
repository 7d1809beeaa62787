//! What is put into a registry: signatures and attestations beside their subject, in both forms that cosign reads, and artifacts
//! of our own.

use std::collections::BTreeMap;

use oci_spec::image::ImageManifest;
use schema::digest::Digest;
use serde_json::{Value, json};

use crate::client::{Client, OCI_MANIFEST, Parsed, Repository};
use crate::error::RegistryError;
use crate::resolve::digest_of;
use crate::sign::{BUNDLE_TYPE, Signed};

/// The configuration of what has none (OCI image specification, 'Guidance for an Empty Descriptor').
pub(crate) const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
pub(crate) const EMPTY: &[u8] = b"{}";
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// The most layers that a tag of cosign's is grown to.
const MAX_LAYERS: usize = 256;

/// What is signed: as a descriptor names it.
#[derive(Clone, Debug)]
pub struct Target {
    pub repository: Repository,
    pub digest: Digest,
    pub media_type: String,
    pub size: u64,
}

/// Which of cosign's tags a layer goes under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Signature,
    Attestation,
}

// === impl Kind ===

impl Kind {
    fn suffix(self) -> &'static str {
        match self {
            Self::Signature => "sig",
            Self::Attestation => "att",
        }
    }
}

impl Client {
    /// What a digest is, as a descriptor.
    pub async fn target(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Target, RegistryError> {
        let content = self.manifest(repository, digest).await?;
        content.parse()?;
        Ok(Target {
            repository: repository.clone(),
            digest: content.digest,
            media_type: content.media_type,
            size: content.bytes.len() as u64,
        })
    }

    /// Puts a signature or an attestation beside its subject: as a bundle that refers to it, and under cosign's tag. Returns the
    /// digest of the referring manifest.
    pub async fn publish(
        &self,
        target: &Target,
        kind: Kind,
        signed: &Signed,
    ) -> Result<Digest, RegistryError> {
        let referring = self
            .publish_bundle(target, &signed.bundle, &signed.bundle_annotations)
            .await?;
        self.add_layer(target, kind, signed).await?;
        Ok(referring)
    }

    /// Puts a bundle beside its subject, as what refers to it. Returns the digest of the referring manifest.
    pub async fn publish_bundle(
        &self,
        target: &Target,
        bundle: &[u8],
        annotations: &BTreeMap<String, String>,
    ) -> Result<Digest, RegistryError> {
        let blob = self.push_blob(&target.repository, bundle).await?;
        let config = self.push_blob(&target.repository, EMPTY).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": BUNDLE_TYPE,
            "config": descriptor(EMPTY_TYPE, &config, EMPTY.len()),
            "layers": [descriptor(BUNDLE_TYPE, &blob, bundle.len())],
            "subject": descriptor(&target.media_type, &target.digest, target.size as usize),
            "annotations": annotations,
        });
        self.push_manifest(&target.repository, None, OCI_MANIFEST, &bytes(&manifest)?)
            .await
    }

    /// Adds a layer to what lies under cosign's tag. Two that do this at once can lose one of the two, as with cosign.
    async fn add_layer(
        &self,
        target: &Target,
        kind: Kind,
        signed: &Signed,
    ) -> Result<(), RegistryError> {
        let repository = &target.repository;
        let tag = format!("sha256-{}.{}", target.digest.hex(), kind.suffix());
        let malformed = |why: &str| RegistryError::Malformed {
            what: format!("{repository}:{tag}"),
            why: why.to_owned(),
        };
        let blob = self.push_blob(repository, &signed.layer).await?;
        let mut layers = match self.tag(repository, &tag).await? {
            Some(content) => match content.parse()? {
                Parsed::Manifest(manifest) => layers(&manifest)?,
                Parsed::Index(_) => {
                    return Err(malformed("it is an index where a manifest belongs"));
                }
            },
            None => Vec::new(),
        };
        if layers.len() >= MAX_LAYERS {
            return Err(malformed("it has as many layers as it may have"));
        }
        let mut layer = descriptor(signed.layer_type, &blob, signed.layer.len());
        layer["annotations"] = json!(signed.layer_annotations);
        layers.push(layer);
        let ids: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
        let config = json!({
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": ids },
        });
        let config = bytes(&config)?;
        let digest = self.push_blob(repository, &config).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": descriptor(IMAGE_CONFIG, &digest, config.len()),
            "layers": layers,
        });
        self.push_manifest(repository, Some(&tag), OCI_MANIFEST, &bytes(&manifest)?)
            .await?;
        Ok(())
    }

    /// Puts an artifact of one file under a tag. Returns its manifest's digest.
    pub async fn push_artifact(
        &self,
        repository: &Repository,
        tag: &str,
        artifact_type: &str,
        annotations: &Value,
        content: &[u8],
    ) -> Result<Digest, RegistryError> {
        let blob = self.push_blob(repository, content).await?;
        let config = self.push_blob(repository, EMPTY).await?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor(EMPTY_TYPE, &config, EMPTY.len()),
            "layers": [descriptor(artifact_type, &blob, content.len())],
            "annotations": annotations,
        });
        self.push_manifest(repository, Some(tag), OCI_MANIFEST, &bytes(&manifest)?)
            .await
    }

    /// The one file of an artifact of that type.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] where it is of another type or has another shape.
    pub async fn artifact(
        &self,
        repository: &Repository,
        digest: &Digest,
        artifact_type: &str,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: repository.at(digest),
            why,
        };
        let Parsed::Manifest(manifest) = self.manifest(repository, digest).await?.parse()? else {
            return Err(malformed("it is an index".to_owned()));
        };
        let found = manifest
            .artifact_type()
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        if found != artifact_type {
            return Err(malformed(format!(
                "it is no {artifact_type} but {}",
                if found.is_empty() {
                    "an image".to_owned()
                } else {
                    found.escape_debug().to_string()
                }
            )));
        }
        let [layer] = manifest.layers().as_slice() else {
            return Err(malformed("it has more or less than one layer".to_owned()));
        };
        if layer.media_type().to_string() != artifact_type {
            return Err(malformed(
                "its layer is of another type than itself".to_owned(),
            ));
        }
        let blob = digest_of(layer).map_err(malformed)?;
        self.blob(repository, &blob, limit).await
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": media_type, "digest": digest, "size": size })
}

fn layers(manifest: &ImageManifest) -> Result<Vec<Value>, RegistryError> {
    manifest
        .layers()
        .iter()
        .map(|layer| serde_json::to_value(layer).map_err(|e| unwritable(&e)))
        .collect()
}

fn bytes(value: &Value) -> Result<Vec<u8>, RegistryError> {
    serde_json::to_vec(value).map_err(|e| unwritable(&e))
}

fn unwritable(error: &serde_json::Error) -> RegistryError {
    RegistryError::Malformed {
        what: "a manifest".to_owned(),
        why: error.to_string(),
    }
}
