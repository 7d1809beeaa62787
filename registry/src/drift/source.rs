//! Where the facts of a pin come from: the image's configuration, the inventories of its packages, the files of an artifact's
//! layers. Everything is asked for by digest, so that what was locked can be told as long as anybody has it.

use oci_spec::image::{Descriptor, ImageManifest};
use schema::digest::Digest;
use schema::lockfile::{Pin, Platform};
use serde::Deserialize;

use super::{Aspect, Facts, TooMany, files};
use crate::archive::{self, Archive};
use crate::client::{Client, Parsed, Repository};
use crate::error::RegistryError;
use crate::evidence::MAX_INVENTORY_BYTES;
use crate::resolve::{MAX_CONFIG_BYTES, digest_of};
use crate::sbom::{Inventory, inventories};
use crate::signature::{self, Subject};
use crate::verify::{Means, Rule, signer};

/// How an index marks the manifest that a builder attests a platform's with (BuildKit's documentation, 'Attestation storage').
const KIND: &str = "vnd.docker.reference.type";
const OF: &str = "vnd.docker.reference.digest";
/// The annotation of a statement's layer that says what it states.
const PREDICATE: &str = "in-toto.io/predicate-type";
const SPDX: &str = "https://spdx.dev/Document";
const CYCLONE: &str = "https://cyclonedx.org/bom";
/// What a feature's manifest has for its configuration.
const FEATURE: &str = "application/vnd.devcontainers";
/// The annotation that names a layer which is one file (OCI image specification, annotations.md).
const TITLE: &str = "org.opencontainers.image.title";
/// The most layers of an artifact that are looked into.
const MAX_LAYERS: usize = 32;
/// The most inventories of one pin.
const MAX_INVENTORIES: usize = 16;

/// An in-toto statement as far as it matters here: nobody signed it, and the index that names it is what was locked.
#[derive(Deserialize)]
struct Statement {
    predicate: serde_json::Value,
}

impl Client {
    /// What a pin says and does: of an image, for one platform where it has that, else for the first. Of signers, those whom a rule
    /// accepts.
    ///
    /// # Errors
    /// Any [`RegistryError`]; what is beyond a bound is [`RegistryError::Malformed`].
    pub async fn facts(
        &self,
        pin: &Pin,
        platform: &Platform,
        rules: &[Rule],
        means: &Means<'_>,
    ) -> Result<Facts, RegistryError> {
        let repository = Repository::of(&pin.reference);
        let mut facts = Facts::default();
        let mut beside = self.evidence(&repository, &pin.digest).await?;
        // What is not there is only known where everything was looked at.
        if let Some(error) = beside.missed.pop() {
            return Err(error);
        }
        let subject = Subject::from(&pin.digest);
        let manifest = pin
            .platforms
            .get_key_value(platform)
            .or_else(|| pin.platforms.first_key_value());
        // One inventory at a time: each may be as large as all the rest. Who makes the index, or signs, stands by what it lists; what
        // anybody may lay beside it tells packages, and does not make other content any better known.
        let mut stood_by = false;
        for rule in rules {
            let report = signature::verify(
                &subject,
                &beside.evidence,
                &rule.accept,
                means.roots,
                means.now,
            );
            for (_, proof) in report.signatures() {
                let many = facts.add(Aspect::Signer, &rule.said, signer(&proof.signer));
                many.map_err(|e| too_many(pin, e))?;
            }
            for inventory in inventories(&report).inventories {
                stood_by = true;
                packages(pin, &inventory, &mut facts)?;
            }
        }
        if rules.is_empty() {
            for (_, _, blob) in beside.inventories.iter().take(MAX_INVENTORIES) {
                let bytes = self.blob(&repository, blob, MAX_INVENTORY_BYTES).await?;
                if let Ok(inventory) = Inventory::parse(&bytes, *blob) {
                    packages(pin, &inventory, &mut facts)?;
                }
            }
        }
        let Some((here, manifest)) = manifest else {
            self.artifact_facts(&repository, pin, &mut facts).await?;
            return Ok(facts);
        };
        stood_by |= self
            .attested(&repository, pin, manifest, &mut facts)
            .await?;
        if !stood_by {
            facts.nothing_listed();
        }
        for (platform, manifest) in pin.platforms.iter().filter(|(of, _)| *of != here) {
            let name = format!("{}{platform}", super::OTHER_PLATFORM);
            let many = facts.add(Aspect::Content, name, manifest.to_string());
            many.map_err(|e| too_many(pin, e))?;
        }
        self.image_facts(&repository, manifest, &mut facts).await?;
        Ok(facts)
    }

    async fn image_facts(
        &self,
        repository: &Repository,
        digest: &Digest,
        facts: &mut Facts,
    ) -> Result<(), RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: repository.at(digest),
            why,
        };
        let manifest = self.only_manifest(repository, digest).await?;
        let config = digest_of(manifest.config()).map_err(malformed)?;
        let bytes = self.blob(repository, &config, MAX_CONFIG_BYTES).await?;
        facts.add_configuration(&bytes).map_err(malformed)?;
        let layers: Vec<String> = manifest
            .layers()
            .iter()
            .map(|layer| layer.digest().to_string())
            .collect();
        let known = [
            ("configuration", config.to_string()),
            ("compressed layers", layers.join("\n")),
        ];
        for (name, text) in known {
            let many = facts.add(Aspect::Content, name, text);
            many.map_err(|e| malformed(e.to_string()))?;
        }
        Ok(())
    }

    async fn artifact_facts(
        &self,
        repository: &Repository,
        pin: &Pin,
        facts: &mut Facts,
    ) -> Result<(), RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: repository.at(&pin.digest),
            why,
        };
        let manifest = self.only_manifest(repository, &pin.digest).await?;
        let feature = manifest.config().media_type().to_string() == FEATURE;
        if manifest.layers().len() > MAX_LAYERS {
            return Err(malformed(format!("it has more than {MAX_LAYERS} layers")));
        }
        let mut left = archive::MAX_BYTES;
        let mut room = |size: usize| {
            left = left.checked_sub(size as u64).ok_or_else(|| {
                malformed(format!("it holds more than {} bytes", archive::MAX_BYTES))
            })?;
            Ok::<_, RegistryError>(())
        };
        let config = digest_of(manifest.config()).map_err(malformed)?;
        let bytes = self.blob(repository, &config, MAX_CONFIG_BYTES).await?;
        if bytes != b"{}" {
            let one = files::File {
                path: "configuration",
                bytes: &bytes,
            };
            files::facts(std::iter::once(one), feature, facts).map_err(|e| too_many(pin, e))?;
        }
        let annotations = manifest.annotations().clone().unwrap_or_default();
        let kind = manifest.artifact_type().as_ref().map(ToString::to_string);
        let said = annotations
            .into_iter()
            .map(|(name, text)| (format!("annotation {name}"), text))
            .chain(kind.map(|kind| ("artifact type".to_owned(), kind)));
        for (name, text) in said {
            let many = facts.add(Aspect::Content, name, text);
            many.map_err(|e| too_many(pin, e))?;
        }
        for (n, layer) in manifest.layers().iter().enumerate() {
            let digest = digest_of(layer).map_err(malformed)?;
            let bytes = self.blob(repository, &digest, archive::MAX_BYTES).await?;
            if !layer.media_type().to_string().contains("tar") {
                room(bytes.len())?;
                let named = annotation(layer, TITLE).map(str::to_owned);
                let path = named.unwrap_or_else(|| format!("layer {n}"));
                let one = files::File {
                    path: &path,
                    bytes: &bytes,
                };
                files::facts(std::iter::once(one), feature, facts).map_err(|e| too_many(pin, e))?;
                continue;
            }
            let archive = Archive::read(&bytes).map_err(|e| malformed(e.to_string()))?;
            room(archive.files.values().map(|file| file.bytes.len()).sum())?;
            let found = archive.files.iter().map(|(path, file)| files::File {
                path,
                bytes: &file.bytes,
            });
            files::facts(found, feature, facts).map_err(|e| too_many(pin, e))?;
            // Where one leads decides what is read in its place.
            for (path, to) in &archive.links {
                facts
                    .replace(Aspect::Instruction, path, format!("-> {to}"))
                    .map_err(|e| too_many(pin, e))?;
            }
        }
        Ok(())
    }

    /// The inventories that a builder put into the index beside a platform's manifest; whether there is one.
    async fn attested(
        &self,
        repository: &Repository,
        pin: &Pin,
        of: &Digest,
        facts: &mut Facts,
    ) -> Result<bool, RegistryError> {
        let mut found = 0;
        let Parsed::Index(index) = self.manifest(repository, &pin.digest).await?.parse()? else {
            return Ok(false);
        };
        let malformed = |why: String| RegistryError::Malformed {
            what: repository.at(&pin.digest),
            why,
        };
        let of = of.to_string();
        let about = index.manifests().iter().filter(|entry| {
            annotation(entry, KIND) == Some("attestation-manifest")
                && annotation(entry, OF) == Some(&of)
        });
        for entry in about.take(MAX_INVENTORIES) {
            let digest = digest_of(entry).map_err(malformed)?;
            let manifest = self.only_manifest(repository, &digest).await?;
            let lists = |layer: &&Descriptor| {
                annotation(layer, PREDICATE)
                    .is_some_and(|kind| kind.starts_with(SPDX) || kind.starts_with(CYCLONE))
            };
            for layer in manifest.layers().iter().filter(lists) {
                if found == MAX_INVENTORIES {
                    return Err(malformed(format!(
                        "it has more than {MAX_INVENTORIES} inventories"
                    )));
                }
                let blob = digest_of(layer).map_err(malformed)?;
                let bytes = self.blob(repository, &blob, MAX_INVENTORY_BYTES).await?;
                let Ok(statement) = serde_json::from_slice::<Statement>(&bytes) else {
                    continue;
                };
                let predicate = serde_json::to_vec(&statement.predicate).unwrap_or_default();
                if let Ok(inventory) = Inventory::parse(&predicate, blob) {
                    found += 1;
                    packages(pin, &inventory, facts)?;
                }
            }
        }
        Ok(found > 0)
    }

    async fn only_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<ImageManifest, RegistryError> {
        match self.manifest(repository, digest).await?.parse()? {
            Parsed::Manifest(manifest) => Ok(*manifest),
            Parsed::Index(_) => Err(RegistryError::Malformed {
                what: repository.at(digest),
                why: "it is an index where a manifest was named".to_owned(),
            }),
        }
    }
}

fn packages(pin: &Pin, inventory: &Inventory, facts: &mut Facts) -> Result<(), RegistryError> {
    for package in &inventory.packages {
        let version = package.version().unwrap_or_default();
        facts
            .unite(Aspect::Package, package.called(), version)
            .map_err(|e| too_many(pin, e))?;
    }
    Ok(())
}

fn too_many(pin: &Pin, error: TooMany) -> RegistryError {
    RegistryError::Malformed {
        what: pin.reference.as_str().to_owned(),
        why: error.to_string(),
    }
}

fn annotation<'a>(descriptor: &'a Descriptor, name: &str) -> Option<&'a str> {
    let annotations = descriptor.annotations().as_ref()?;
    annotations.get(name).map(String::as_str)
}
