//! What lies beside a subject in its registry: bundles that refer to it, cosign's tags, inventories. Gathered for the verdict in
//! [`crate::signature`]; what cannot be had is kept apart, because nobody can tell what it would have said.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{StreamExt, join, stream};
use oci_spec::image::{Descriptor, ImageManifest};
use schema::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::client::{Client, Parsed, Referrers, Repository};
use crate::error::RegistryError;
use crate::resolve::digest_of;
use crate::signature::{Annotations, BUNDLE_BYTES, EVIDENCE, Evidence, PAYLOAD_BYTES};

/// What a bundle's layer, or the artifact type of what refers with it, begins with: versions come in two spellings.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// Referrers that are inventories themselves, without a signature around them.
const INVENTORIES: [&str; 4] = [
    "application/spdx+json",
    "text/spdx+json",
    "application/vnd.cyclonedx+json",
    "application/vnd.cyclonedx",
];
/// The largest inventory, in bytes.
pub const MAX_INVENTORY_BYTES: u64 = crate::sbom::BYTES as u64;

/// The most that lies beside one subject and is fetched, in bytes, and how much of it at once.
pub const MAX_BESIDE_BYTES: u64 = 64 * 1024 * 1024;
const AT_ONCE: usize = 8;
/// The largest note of what lay beside a subject, in bytes.
const MAX_NOTE_BYTES: u64 = 8 * 1024 * 1024;

/// Everything beside one subject.
#[derive(Debug)]
pub struct Gathered {
    pub evidence: Vec<Evidence>,
    /// Inventories that nobody signed: the referring manifest's digest, the media type, the blob's digest.
    pub inventories: Vec<(Digest, String, Digest)>,
    /// Whether the registry says who refers to a digest. Where it does not, and nobody kept the index, there may be more.
    pub referrers: Told,
    /// What could not be had. What was had may do; what is not there may be in this.
    pub missed: Vec<RegistryError>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    ByApi,
    ByTag,
    /// No API and no index: what is missing proves nothing.
    NoIndex,
}

/// What lay beside a subject when its registry was asked, for when it cannot be: the bytes are in the cache under their digests.
/// Signatures speak for themselves wherever they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    referrers: Told,
    evidence: Vec<Noted>,
    inventories: Vec<(Digest, String, Digest)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Noted {
    Bundle(Digest),
    Legacy(Digest, NotedAnnotations),
    LegacyAttestation(Digest, NotedAnnotations),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct NotedAnnotations {
    signature: Option<String>,
    certificate: Option<String>,
    chain: Option<String>,
    bundle: Option<String>,
    timestamp: Option<String>,
}

impl Gathered {
    /// What lies there, without the bytes of it.
    pub fn note(&self) -> Note {
        let evidence = self.evidence.iter().map(|evidence| match evidence {
            Evidence::Bundle { from, .. } => Noted::Bundle(*from),
            Evidence::Legacy {
                annotations, from, ..
            } => Noted::Legacy(*from, annotations.into()),
            Evidence::LegacyAttestation {
                annotations, from, ..
            } => Noted::LegacyAttestation(*from, annotations.into()),
        });
        Note {
            referrers: self.referrers,
            evidence: evidence.collect(),
            inventories: self.inventories.clone(),
        }
    }
}

impl Note {
    /// Both, what is known first, within the bound on how many pieces are judged.
    #[must_use]
    pub fn with(mut self, other: &Self) -> Self {
        for one in &other.evidence {
            if self.evidence.len() < EVIDENCE && !self.evidence.contains(one) {
                self.evidence.push(one.clone());
            }
        }
        for one in &other.inventories {
            if self.inventories.len() < EVIDENCE && !self.inventories.contains(one) {
                self.inventories.push(one.clone());
            }
        }
        if self.referrers == Told::NoIndex {
            self.referrers = other.referrers;
        }
        self
    }
}

impl Client {
    /// From the registry, or offline from what it said the last time.
    ///
    /// # Errors
    /// [`RegistryError::Offline`] where it was never asked.
    pub async fn evidence(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Gathered, RegistryError> {
        if self.is_offline() {
            return self
                .noted(repository, subject)
                .ok_or_else(|| RegistryError::Offline {
                    what: format!("what lies beside {}", repository.at(subject)),
                });
        }
        let gathered = self.gather(repository, subject).await;
        if gathered.missed.is_empty() {
            self.write_note(repository, subject, &gathered);
        }
        Ok(gathered)
    }

    fn noted(&self, repository: &Repository, subject: &Digest) -> Option<Gathered> {
        Some(self.gathered_of(repository, subject, self.note_of(repository, subject)?))
    }

    /// What was noted of a subject.
    pub fn note_of(&self, repository: &Repository, subject: &Digest) -> Option<Note> {
        let bytes = self
            .cache()
            .note(&note_name(repository, subject), MAX_NOTE_BYTES)?;
        serde_json::from_slice(&bytes).ok()
    }

    /// What a note says lies beside a subject, as far as the cache has it.
    pub fn gathered_of(&self, repository: &Repository, subject: &Digest, note: Note) -> Gathered {
        let get = |digest: &Digest, limit: usize| self.cache().get(digest, limit as u64);
        // What is no longer in the cache vouches for nothing, and may have been what speaks against it.
        let mut missed = Vec::new();
        let evidence = note.evidence.into_iter().filter_map(|noted| {
            let found = (|| {
                Some(match noted {
                    Noted::Bundle(from) => Evidence::Bundle {
                        bytes: get(&from, BUNDLE_BYTES)?,
                        from,
                    },
                    Noted::Legacy(from, annotations) => Evidence::Legacy {
                        payload: get(&from, PAYLOAD_BYTES)?,
                        annotations: annotations.into(),
                        from,
                    },
                    Noted::LegacyAttestation(from, annotations) => Evidence::LegacyAttestation {
                        envelope: get(&from, BUNDLE_BYTES)?,
                        annotations: annotations.into(),
                        from,
                    },
                })
            })();
            if found.is_none() {
                missed.push(RegistryError::Offline {
                    what: format!("a part of what lies beside {}", repository.at(subject)),
                });
            }
            found
        });
        Gathered {
            evidence: evidence.collect(),
            inventories: note.inventories,
            referrers: note.referrers,
            missed,
        }
    }

    fn write_note(&self, repository: &Repository, subject: &Digest, gathered: &Gathered) {
        // Without it, the next command offline says that it cannot know.
        let _ = self.keep_note(repository, subject, &gathered.note());
    }

    /// Adds what somebody else was told lies beside a subject to what was noted here. It takes nothing away: whoever made it could have
    /// left something out.
    ///
    /// # Errors
    /// The cache cannot be written.
    pub fn add_note(
        &self,
        repository: &Repository,
        subject: &Digest,
        note: &Note,
    ) -> std::io::Result<()> {
        let united = match self.note_of(repository, subject) {
            Some(known) => known.with(note),
            None => note.clone(),
        };
        self.keep_note(repository, subject, &united)
    }

    /// Puts back what was noted before.
    pub fn restore_note(&self, repository: &Repository, subject: &Digest, before: Option<&Note>) {
        match before {
            Some(note) => {
                let _ = self.keep_note(repository, subject, note);
            }
            None => self.cache().drop_note(&note_name(repository, subject)),
        }
    }

    /// Notes what lies beside a subject in place of what was noted.
    ///
    /// # Errors
    /// The cache cannot be written.
    fn keep_note(
        &self,
        repository: &Repository,
        subject: &Digest,
        note: &Note,
    ) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(note)?;
        self.cache()
            .put_note(&note_name(repository, subject), &bytes)
    }

    /// The manifests that what is read beside a subject lies in.
    ///
    /// # Errors
    /// Any [`RegistryError`]: all of them, or none.
    pub async fn manifests_beside(
        &self,
        repository: &Repository,
        subject: &Digest,
    ) -> Result<Vec<Digest>, RegistryError> {
        let mut found = Vec::new();
        if let Referrers::Listed { descriptors, .. } = self.referrers(repository, subject).await? {
            for descriptor in descriptors.iter().take(EVIDENCE) {
                let digest = digest_of(descriptor).map_err(|why| RegistryError::Malformed {
                    what: format!("a referrer of {}", repository.at(subject)),
                    why,
                })?;
                let content = match self.manifest(repository, &digest).await {
                    Ok(content) => content,
                    Err(RegistryError::NotFound { .. }) => continue,
                    Err(error) => return Err(error),
                };
                if let Parsed::Manifest(manifest) = content.parse()?
                    && is_read(&manifest)
                {
                    found.push(digest);
                }
            }
        }
        for suffix in ["sig", "att"] {
            let tag = format!("sha256-{}.{suffix}", subject.hex());
            if let Some(content) = self.tag(repository, &tag).await? {
                found.push(content.digest);
            }
        }
        Ok(found)
    }

    async fn gather(&self, repository: &Repository, subject: &Digest) -> Gathered {
        let tag = |suffix: &str| format!("sha256-{}.{suffix}", subject.hex());
        let (sig, att) = (tag("sig"), tag("att"));
        // What all of it together may take: what is asked for says its size before it is had.
        let budget = Budget::new(repository.at(subject));
        let (referring, signatures, attestations) = join!(
            self.referring(repository, subject, &budget),
            self.layers(repository, &sig, PAYLOAD_BYTES as u64, &budget),
            self.layers(repository, &att, BUNDLE_BYTES as u64, &budget),
        );
        let mut gathered = referring;
        for (bytes, annotations, from) in signatures.had(&mut gathered.missed) {
            gathered.evidence.push(Evidence::Legacy {
                payload: bytes,
                annotations,
                from,
            });
        }
        for (bytes, annotations, from) in attestations.had(&mut gathered.missed) {
            gathered.evidence.push(Evidence::LegacyAttestation {
                envelope: bytes,
                annotations,
                from,
            });
        }
        gathered
    }

    async fn referring(
        &self,
        repository: &Repository,
        subject: &Digest,
        budget: &Budget,
    ) -> Gathered {
        let mut gathered = Gathered {
            evidence: Vec::new(),
            inventories: Vec::new(),
            referrers: Told::NoIndex,
            missed: Vec::new(),
        };
        let descriptors = match self.referrers(repository, subject).await {
            Ok(Referrers::Listed { descriptors, by }) => {
                gathered.referrers = match by {
                    crate::client::Listing::Api => Told::ByApi,
                    crate::client::Listing::Tag => Told::ByTag,
                };
                descriptors
            }
            Ok(Referrers::NoIndex) => return gathered,
            Err(error) => {
                gathered.missed.push(error);
                return gathered;
            }
        };
        gathered.missed.extend(budget.cut(descriptors.len()));
        let found = descriptors
            .iter()
            .take(EVIDENCE)
            .map(|descriptor| self.referrer(repository, subject, descriptor, budget));
        let mut found = stream::iter(found).buffered(AT_ONCE);
        while let Some(one) = found.next().await {
            match one {
                Ok(Some(Found::Bundle(bytes, from))) => {
                    gathered.evidence.push(Evidence::Bundle { bytes, from });
                }
                Ok(Some(Found::Inventory(manifest, kind, blob))) => {
                    gathered.inventories.push((manifest, kind, blob));
                }
                Ok(None) => {}
                // One that cannot be read takes nothing from the others.
                Err(error) => gathered.missed.push(error),
            }
        }
        drop(found);
        gathered
    }

    /// What one referrer is, where it is of a kind that is read here. An index's word on the kind is not needed: the manifest has
    /// its own.
    async fn referrer(
        &self,
        repository: &Repository,
        subject: &Digest,
        descriptor: &Descriptor,
        budget: &Budget,
    ) -> Result<Option<Found>, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: format!("a referrer of {}", repository.at(subject)),
            why,
        };
        let digest = digest_of(descriptor).map_err(malformed)?;
        // What an index lists and the registry no longer has vouches for nothing.
        let content = match self.manifest(repository, &digest).await {
            Ok(content) => content,
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let Parsed::Manifest(manifest) = content.parse()? else {
            return Ok(None);
        };
        let refers = manifest
            .subject()
            .as_ref()
            .is_some_and(|s| s.digest().to_string() == subject.to_string());
        let kind = kind_of(&manifest);
        let Some(layer) = manifest.layers().first().filter(|_| refers) else {
            return Ok(None);
        };
        let blob = digest_of(layer).map_err(malformed)?;
        if is_bundle(&kind, layer) {
            let limit = budget.take(layer.size(), BUNDLE_BYTES as u64)?;
            self.expect(limit).await;
            let bytes = self.blob(repository, &blob, limit).await?;
            return Ok(Some(Found::Bundle(bytes, blob)));
        }
        Ok(is_inventory(&kind, layer)
            .then(|| Found::Inventory(digest, layer.media_type().to_string(), blob)))
    }

    /// The layers of what a tag names, with their annotations; none where there is no such tag.
    async fn layers(
        &self,
        repository: &Repository,
        tag: &str,
        limit: u64,
        budget: &Budget,
    ) -> Layers {
        let malformed = |why: String| RegistryError::Malformed {
            what: format!("{repository}:{tag}"),
            why,
        };
        let manifest = match self.tag(repository, tag).await {
            Ok(None) => return Layers::default(),
            Ok(Some(content)) => match content.parse() {
                Ok(Parsed::Manifest(manifest)) => manifest,
                Ok(Parsed::Index(_)) => {
                    return Layers::missed(malformed(
                        "it is an index where a manifest belongs".to_owned(),
                    ));
                }
                Err(error) => return Layers::missed(error),
            },
            Err(error) => return Layers::missed(error),
        };
        let mut layers = Layers::default();
        layers.missed.extend(budget.cut(manifest.layers().len()));
        let found = manifest.layers().iter().take(EVIDENCE).map(|layer| async {
            let digest = digest_of(layer).map_err(&malformed)?;
            let limit = budget.take(layer.size(), limit)?;
            self.expect(limit).await;
            let bytes = self.blob(repository, &digest, limit).await?;
            let of = |name: &str| layer.annotations().as_ref()?.get(name);
            Ok::<_, RegistryError>((bytes, Annotations::of(of), digest))
        });
        let mut found = stream::iter(found).buffered(AT_ONCE);
        while let Some(one) = found.next().await {
            match one {
                Ok(layer) => layers.had.push(layer),
                Err(error) => layers.missed.push(error),
            }
        }
        drop(found);
        layers
    }
}

/// What was had of a tag's layers, and what was not.
#[derive(Default)]
struct Layers {
    had: Vec<(Vec<u8>, Annotations, Digest)>,
    missed: Vec<RegistryError>,
}

impl Layers {
    fn missed(error: RegistryError) -> Self {
        Self {
            had: Vec::new(),
            missed: vec![error],
        }
    }

    fn had(self, missed: &mut Vec<RegistryError>) -> Vec<(Vec<u8>, Annotations, Digest)> {
        missed.extend(self.missed);
        self.had
    }
}

/// How much of what lies beside one subject is fetched: a registry could have any amount there.
struct Budget {
    what: String,
    left: AtomicU64,
}

impl Budget {
    fn new(what: String) -> Self {
        Self {
            what,
            left: AtomicU64::new(MAX_BESIDE_BYTES),
        }
    }

    /// Room for something of this size, as its descriptor says, and no more.
    fn take(&self, size: u64, limit: u64) -> Result<u64, RegistryError> {
        let too_large = |limit| RegistryError::TooLarge {
            what: format!("what lies beside {}", self.what),
            limit,
        };
        if size > limit {
            return Err(too_large(limit));
        }
        let spent = |left: u64| left.checked_sub(size);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spent)
            .map(|_| size)
            .map_err(|_| too_large(MAX_BESIDE_BYTES))
    }

    /// What is beyond the number that is looked at was not had.
    fn cut(&self, number: usize) -> Option<RegistryError> {
        (number > EVIDENCE).then(|| RegistryError::Malformed {
            what: format!("what lies beside {}", self.what),
            why: format!("{number} pieces, of which {EVIDENCE} are looked at"),
        })
    }
}

fn note_name(repository: &Repository, subject: &Digest) -> String {
    Digest::of(repository.at(subject).as_bytes()).hex()
}

enum Found {
    Bundle(Vec<u8>, Digest),
    Inventory(Digest, String, Digest),
}

fn is_bundle(kind: &str, layer: &Descriptor) -> bool {
    kind.starts_with(BUNDLE) || layer.media_type().to_string().starts_with(BUNDLE)
}

fn is_inventory(kind: &str, layer: &Descriptor) -> bool {
    INVENTORIES.contains(&kind) || INVENTORIES.contains(&layer.media_type().to_string().as_str())
}

/// Whether a referrer is of a kind that is read here.
fn is_read(manifest: &ImageManifest) -> bool {
    let kind = kind_of(manifest);
    let first = manifest.layers().first();
    first.is_some_and(|layer| is_bundle(&kind, layer) || is_inventory(&kind, layer))
}

fn kind_of(manifest: &ImageManifest) -> String {
    manifest.artifact_type().as_ref().map_or_else(
        || manifest.config().media_type().to_string(),
        ToString::to_string,
    )
}

impl From<&Annotations> for NotedAnnotations {
    fn from(of: &Annotations) -> Self {
        Self {
            signature: of.signature.clone(),
            certificate: of.certificate.clone(),
            chain: of.chain.clone(),
            bundle: of.bundle.clone(),
            timestamp: of.timestamp.clone(),
        }
    }
}

impl From<NotedAnnotations> for Annotations {
    fn from(of: NotedAnnotations) -> Self {
        Self {
            signature: of.signature,
            certificate: of.certificate,
            chain: of.chain,
            bundle: of.bundle,
            timestamp: of.timestamp,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_lies_beside_a_subject_is_bounded_in_sum_in_size_and_in_number() {
        let budget = Budget::new("a".to_owned());
        let piece = BUNDLE_BYTES as u64;
        assert_eq!(budget.take(piece, piece).unwrap(), piece);
        let left = MAX_BESIDE_BYTES - piece;
        // One that does not fit takes nothing from what does.
        assert!(matches!(
            budget.take(left + 1, MAX_BESIDE_BYTES),
            Err(RegistryError::TooLarge {
                limit: MAX_BESIDE_BYTES,
                ..
            })
        ));
        assert_eq!(budget.take(left, MAX_BESIDE_BYTES).unwrap(), left);
        assert!(budget.take(1, piece).is_err());
        assert!(Budget::new("a".to_owned()).take(piece + 1, piece).is_err());
        assert!(budget.cut(EVIDENCE).is_none());
        assert!(budget.cut(EVIDENCE + 1).is_some());
    }

    #[test]
    fn what_is_added_to_a_note_takes_nothing_from_it() {
        let bundle = |n: usize| Noted::Bundle(Digest::of(&n.to_be_bytes()));
        let note = |evidence: Vec<Noted>, referrers| Note {
            referrers,
            evidence,
            inventories: Vec::new(),
        };
        let known = note(vec![bundle(0)], Told::ByApi);
        // Neither one that is empty nor one with more than is looked at hides what is known.
        let empty = note(Vec::new(), Told::NoIndex);
        assert_eq!(known.clone().with(&empty), known);
        assert_eq!(empty.with(&known), known);
        let many = note((1..=EVIDENCE).map(bundle).collect(), Told::ByTag);
        let united = known.clone().with(&many);
        assert_eq!(united.evidence.len(), EVIDENCE);
        assert_eq!(united.evidence[0], bundle(0));
        assert_eq!(united.referrers, Told::ByApi);
        assert_eq!(known.clone().with(&known), known);
    }
}
