//! The OCI distribution API as this project uses it: manifests, blobs, referrers, uploads. Whatever is asked for by digest is
//! hashed before anybody sees it, from the cache too; what is asked for by tag comes back with the digest of what came.

mod download;
pub mod lane;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::StreamExt;
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, LINK, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use schema::digest::Digest;
use schema::image::ImageRef;
use serde::Deserialize;

use crate::cache::Cache;
use crate::error::RegistryError;
use crate::http::{Http, Settings};
use crate::token::{Action, Scope};

pub use watch::Watch;

/// The largest manifest or index, in bytes (OCI distribution specification: registries take at least 4 MiB).
pub const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;
/// The most manifests that an index may list.
pub const MAX_INDEX_ENTRIES: usize = 1024;
/// The most pages of referrers, and the most referrers of all pages.
pub const MAX_REFERRER_PAGES: usize = 16;
pub const MAX_REFERRERS: usize = 1024;
/// How often a blob that broke off is gone on with.
const MAX_RESUMES: u32 = 4;

pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// One repository of one registry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    registry: String,
    repository: String,
}

/// A manifest or an index as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
}

#[derive(Clone, Debug)]
pub enum Parsed {
    Index(Box<ImageIndex>),
    Manifest(Box<ImageManifest>),
}

/// What a registry says of who refers to a digest. Only [`Referrers::Listed`] is proof of anything, and an empty list is proof
/// that nothing was pushed only where it comes from the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Referrers {
    Listed {
        descriptors: Vec<Descriptor>,
        by: Listing,
    },
    /// The registry has no referrers API, and nobody kept the index that stands in for it.
    NoIndex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Listing {
    Api,
    /// The tag `sha256-<hex>` (OCI distribution specification, 'Referrers Tag Schema').
    Tag,
}

/// Registries, and what is kept of them.
#[derive(Clone)]
pub struct Client {
    http: Arc<Http>,
    cache: Cache,
    offline: bool,
    lanes: Arc<lane::Lanes>,
    lane: Option<Arc<lane::Lane>>,
    watch: Option<Arc<dyn Watch>>,
}

/// What every manifest says of itself.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Versioned {
    schema_version: u32,
    media_type: Option<String>,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    config: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    layers: Option<serde::de::IgnoredAny>,
}

// === impl Repository ===

impl Repository {
    pub fn of(reference: &ImageRef) -> Self {
        Self {
            registry: reference.registry().to_owned(),
            repository: reference.repository().to_owned(),
        }
    }

    pub fn registry(&self) -> &str {
        &self.registry
    }

    pub fn name(&self) -> &str {
        &self.repository
    }

    fn scope(&self, action: Action) -> Scope {
        Scope {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            action,
        }
    }

    /// `registry/repository@digest`
    pub fn at(&self, digest: &Digest) -> String {
        format!("{self}@{digest}")
    }
}

impl std::fmt::Display for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)
    }
}

// === impl Content ===

impl Content {
    /// # Errors
    /// It is no manifest or index of schema 2, or lists more than the bounds.
    pub fn parse(&self) -> Result<Parsed, RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: format!("the manifest {}", self.digest),
            why,
        };
        crate::strict::check(&self.bytes, crate::strict::MANIFEST).map_err(malformed)?;
        let versioned: Versioned =
            serde_json::from_slice(&self.bytes).map_err(|e| malformed(e.to_string()))?;
        if versioned.schema_version != 2 {
            return Err(malformed(format!(
                "schema version {} is not supported",
                versioned.schema_version
            )));
        }
        if versioned
            .media_type
            .as_ref()
            .is_some_and(|own| *own != self.media_type)
        {
            return Err(malformed(format!(
                "it calls itself {}, and the registry calls it {}",
                versioned.media_type.unwrap_or_default().escape_debug(),
                self.media_type.escape_debug()
            )));
        }
        match self.media_type.as_str() {
            OCI_INDEX | DOCKER_LIST => {
                if versioned.config.is_some() || versioned.layers.is_some() {
                    return Err(malformed(
                        "it is an index and a manifest at once".to_owned(),
                    ));
                }
                let index: ImageIndex =
                    serde_json::from_slice(&self.bytes).map_err(|e| malformed(e.to_string()))?;
                if index.manifests().len() > MAX_INDEX_ENTRIES {
                    return Err(malformed(format!(
                        "it lists more than {MAX_INDEX_ENTRIES} manifests"
                    )));
                }
                Ok(Parsed::Index(Box::new(index)))
            }
            OCI_MANIFEST | DOCKER_MANIFEST => {
                if versioned.manifests.is_some() {
                    return Err(malformed(
                        "it is a manifest and an index at once".to_owned(),
                    ));
                }
                let manifest: ImageManifest =
                    serde_json::from_slice(&self.bytes).map_err(|e| malformed(e.to_string()))?;
                if manifest.layers().len() > MAX_INDEX_ENTRIES {
                    return Err(malformed(format!(
                        "it lists more than {MAX_INDEX_ENTRIES} layers"
                    )));
                }
                Ok(Parsed::Manifest(Box::new(manifest)))
            }
            other => Err(malformed(format!(
                "media type {} is not one of manifests",
                other.escape_debug()
            ))),
        }
    }
}

// === impl Client ===

impl Client {
    /// # Errors
    /// [`RegistryError::Setup`]
    pub fn new(settings: Settings, cache: Cache, offline: bool) -> Result<Self, RegistryError> {
        Ok(Self {
            http: Arc::new(Http::new(settings)?),
            cache,
            offline,
            lanes: lane::Lanes::new(),
            lane: None,
            watch: None,
        })
    }

    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    pub fn is_offline(&self) -> bool {
        self.offline
    }

    fn online(&self, what: &str) -> Result<(), RegistryError> {
        if self.offline {
            return Err(RegistryError::Offline {
                what: what.to_owned(),
            });
        }
        Ok(())
    }

    /// What the cache has, in this client's lane.
    async fn kept(&self, digest: &Digest, limit: u64) -> Option<Vec<u8>> {
        if let Some(lane) = &self.lane {
            let size = std::fs::metadata(self.cache.path(digest)).ok()?.len();
            lane.take(size.min(limit)).await;
        }
        self.cache.get(digest, limit)
    }

    /// A whole answer of at most `limit` bytes, in this client's lane.
    async fn body(
        &self,
        scope: &Scope,
        what: &str,
        response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let lane = self.lane.as_deref();
        self.http
            .body(&scope.registry, what, response, limit, lane)
            .await
    }

    /// A manifest or index by digest: from the cache, else from the registry.
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Content, RegistryError> {
        if let Some(bytes) = self.kept(digest, MAX_MANIFEST_BYTES).await {
            let media_type = own_media_type(&bytes).unwrap_or_default();
            return Ok(Content {
                bytes,
                digest: *digest,
                media_type,
            });
        }
        let content = self.fetch_manifest(repository, &digest.to_string()).await?;
        if content.digest != *digest {
            return Err(RegistryError::Digest {
                what: repository.at(digest),
                expected: *digest,
                found: content.digest,
            });
        }
        // Kept only where its own words are enough to read it again.
        if own_media_type(&content.bytes).as_ref() == Some(&content.media_type) {
            let _ = self.cache.put(&content.bytes);
        }
        Ok(content)
    }

    /// What a tag (or `latest`) names now; `None` where the registry has no such tag.
    pub async fn tag(
        &self,
        repository: &Repository,
        tag: &str,
    ) -> Result<Option<Content>, RegistryError> {
        match self.fetch_manifest(repository, tag).await {
            Ok(content) => {
                if own_media_type(&content.bytes).as_ref() == Some(&content.media_type) {
                    let _ = self.cache.put(&content.bytes);
                }
                Ok(Some(content))
            }
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn fetch_manifest(
        &self,
        repository: &Repository,
        reference: &str,
    ) -> Result<Content, RegistryError> {
        let what = match reference.contains(':') {
            true => format!("{repository}@{reference}"),
            false => format!("{repository}:{reference}"),
        };
        self.online(&what)?;
        let scope = repository.scope(Action::Pull);
        let url = self.http.url(&scope, &format!("manifests/{reference}"));
        let accept = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(", ");
        let response = self
            .http
            .send(&scope, &what, |client| {
                client.get(&url).header(ACCEPT, &accept)
            })
            .await?;
        if response.status() != StatusCode::OK {
            return Err(self.http.status(&scope, &what, response).await);
        }
        let media_type = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(|value| value.split(';').next().unwrap_or(value).trim().to_owned())
            .unwrap_or_default();
        let bytes = self
            .body(&scope, &what, response, MAX_MANIFEST_BYTES)
            .await?;
        Ok(Content {
            digest: Digest::of(&bytes),
            bytes,
            media_type,
        })
    }

    /// A blob of at most `limit` bytes, whole: from the cache, else from the registry, gone on with where it broke off.
    pub async fn blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        if let Some(bytes) = self.kept(digest, limit).await {
            return Ok(bytes);
        }
        let what = format!("the blob {}", repository.at(digest));
        self.online(&what)?;
        let scope = repository.scope(Action::Pull);
        let url = self.http.url(&scope, &format!("blobs/{digest}"));
        let watched = self.watching(digest, repository);
        let mut bytes = Vec::new();
        let mut resumes = 0;
        loop {
            let from = bytes.len();
            let response = self
                .http
                .send(&scope, &what, |client| {
                    let request = client.get(&url);
                    match from {
                        0 => request,
                        from => request.header(RANGE, format!("bytes={from}-")),
                    }
                })
                .await?;
            match response.status() {
                StatusCode::OK => bytes.clear(),
                StatusCode::PARTIAL_CONTENT if from > 0 && continues(&response, from) => {}
                _ => return Err(self.http.status(&scope, &what, response).await),
            }
            let appended = self.append(&what, response, &mut bytes, limit, &watched);
            match appended.await {
                Ok(()) => break,
                Err(None) if resumes < MAX_RESUMES => resumes += 1,
                Err(None) => {
                    return Err(RegistryError::Unreachable {
                        registry: scope.registry,
                        why: format!("{what} broke off {resumes} times"),
                    });
                }
                Err(Some(error)) => return Err(error),
            }
        }
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(RegistryError::Digest {
                what,
                expected: *digest,
                found,
            });
        }
        let _ = self.cache.put(&bytes);
        Ok(bytes)
    }

    /// `Err(None)`: it broke off.
    async fn append(
        &self,
        what: &str,
        response: Response,
        bytes: &mut Vec<u8>,
        limit: u64,
        watched: &watch::Watched<'_>,
    ) -> Result<(), Option<RegistryError>> {
        let too_large = || {
            Some(RegistryError::TooLarge {
                what: what.to_owned(),
                limit,
            })
        };
        let expected = response.content_length();
        let room = limit.saturating_sub(bytes.len() as u64);
        if expected.is_some_and(|length| length > room) {
            return Err(too_large());
        }
        let began = bytes.len();
        let size = expected.map(|length| began as u64 + length);
        let mut stream = response.bytes_stream();
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|_| None)?;
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            if let Some(lane) = &self.lane {
                lane.take(chunk.len() as u64).await;
            }
            bytes.extend_from_slice(&chunk);
            watched.had(bytes.len() as u64, size);
        }
        match expected {
            Some(length) if (bytes.len() - began) as u64 != length => Err(None),
            _ => Ok(()),
        }
    }

    /// Who refers to a digest, by the API and, where the registry has none, by the tag that stands in for it.
    pub async fn referrers(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Referrers, RegistryError> {
        let what = format!("referrers of {}", repository.at(digest));
        self.online(&what)?;
        let scope = repository.scope(Action::Pull);
        let mut url = self.http.url(&scope, &format!("referrers/{digest}"));
        let mut descriptors: Vec<Descriptor> = Vec::new();
        for page in 0..MAX_REFERRER_PAGES {
            let response = self
                .http
                .send(&scope, &what, |client| {
                    client.get(&url).header(ACCEPT, OCI_INDEX)
                })
                .await?;
            match response.status() {
                StatusCode::OK => {}
                // Registries that do not know the API answer either.
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED if page == 0 => {
                    return self.referrers_by_tag(repository, digest).await;
                }
                _ => return Err(self.http.status(&scope, &what, response).await),
            }
            let next = next_page(response.headers().get(LINK));
            let base = response.url().clone();
            let bytes = self
                .body(&scope, &what, response, MAX_MANIFEST_BYTES)
                .await?;
            descriptors.extend(listed(&what, &bytes)?);
            if descriptors.len() > MAX_REFERRERS {
                break;
            }
            let Some(next) = next else {
                return Ok(Referrers::Listed {
                    descriptors,
                    by: Listing::Api,
                });
            };
            let next = self
                .http
                .follow(&base, &next)
                .map_err(|why| RegistryError::Redirect {
                    registry: scope.registry.clone(),
                    to: next.escape_debug().to_string(),
                    why,
                })?;
            if next.origin() != base.origin() {
                return Err(RegistryError::Redirect {
                    registry: scope.registry.clone(),
                    to: next.origin().ascii_serialization(),
                    why: "its next page is on another host",
                });
            }
            url = next.into();
        }
        Err(RegistryError::Malformed {
            what,
            why: format!("more than {MAX_REFERRERS} referrers or {MAX_REFERRER_PAGES} pages"),
        })
    }

    async fn referrers_by_tag(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<Referrers, RegistryError> {
        let tag = fallback_tag(digest);
        let what = format!("{repository}:{tag}");
        Ok(match self.tag(repository, &tag).await? {
            Some(content) => {
                let descriptors = listed(&what, &content.bytes)?;
                if descriptors.len() > MAX_REFERRERS {
                    return Err(RegistryError::Malformed {
                        what,
                        why: format!("more than {MAX_REFERRERS} referrers"),
                    });
                }
                Referrers::Listed {
                    descriptors,
                    by: Listing::Tag,
                }
            }
            None => Referrers::NoIndex,
        })
    }

    /// Uploads a blob, unless the repository has it.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let what = format!("the blob {}", repository.at(&digest));
        self.online(&what)?;
        let scope = repository.scope(Action::Push);
        let url = self.http.url(&scope, &format!("blobs/{digest}"));
        let there = self
            .http
            .send(&scope, &what, |client| client.request(Method::HEAD, &url))
            .await?;
        if there.status() == StatusCode::OK {
            return Ok(digest);
        }
        let uploads = self.http.url(&scope, "blobs/uploads/");
        let begun = self
            .http
            .send(&scope, &what, |client| client.post(&uploads).body(""))
            .await?;
        if begun.status() != StatusCode::ACCEPTED {
            return Err(self.http.status(&scope, &what, begun).await);
        }
        let mut place = self.location(&scope, &what, &begun)?;
        place
            .query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let body = bytes.to_vec();
        let done = self
            .http
            .send(&scope, &what, |client| {
                client
                    .put(place.clone())
                    .header(CONTENT_TYPE, "application/octet-stream")
                    .body(body.clone())
            })
            .await?;
        if done.status() != StatusCode::CREATED {
            return Err(self.http.status(&scope, &what, done).await);
        }
        Ok(digest)
    }

    fn location(
        &self,
        scope: &Scope,
        what: &str,
        response: &Response,
    ) -> Result<Url, RegistryError> {
        let malformed = |why: &str| RegistryError::Malformed {
            what: what.to_owned(),
            why: why.to_owned(),
        };
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .ok_or_else(|| malformed("the registry names no place for it"))?;
        let url = self
            .http
            .follow(response.url(), location)
            .map_err(malformed)?;
        if url.origin() != response.url().origin() {
            // The login would go along.
            return Err(RegistryError::Redirect {
                registry: scope.registry.clone(),
                to: url.origin().ascii_serialization(),
                why: "uploads stay at the registry",
            });
        }
        Ok(url)
    }

    /// Uploads a manifest under its digest or a tag. Where it has a `subject` and the registry does not index those, the tag
    /// that stands in for the index is written.
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        tag: Option<&str>,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(bytes);
        let reference = tag.map_or_else(|| digest.to_string(), str::to_owned);
        let what = format!("the manifest {}", repository.at(&digest));
        self.online(&what)?;
        let scope = repository.scope(Action::Push);
        let url = self.http.url(&scope, &format!("manifests/{reference}"));
        let content_type =
            HeaderValue::from_str(media_type).map_err(|_| RegistryError::Malformed {
                what: what.clone(),
                why: "its media type is no header".to_owned(),
            })?;
        let body = bytes.to_vec();
        let response = self
            .http
            .send(&scope, &what, |client| {
                client
                    .put(&url)
                    .header(CONTENT_TYPE, content_type.clone())
                    .body(body.clone())
            })
            .await?;
        if response.status() != StatusCode::CREATED {
            return Err(self.http.status(&scope, &what, response).await);
        }
        let indexed = response.headers().contains_key("oci-subject");
        if !indexed {
            let manifest: Result<ImageManifest, _> = serde_json::from_slice(bytes);
            if let Some((subject, manifest)) =
                manifest.ok().and_then(|m| Some((m.subject().clone()?, m)))
            {
                self.index(repository, &subject, &manifest, media_type, bytes, digest)
                    .await?;
            }
        }
        Ok(digest)
    }

    /// Adds a manifest to the index under `sha256-<hex>`. Two that do this at once can lose one of the two; the specification
    /// has no way around it.
    async fn index(
        &self,
        repository: &Repository,
        subject: &Descriptor,
        manifest: &ImageManifest,
        media_type: &str,
        bytes: &[u8],
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let malformed = |why: String| RegistryError::Malformed {
            what: format!("referrers of {}", subject.digest()),
            why,
        };
        let of = Digest::parse(subject.digest().as_ref()).map_err(|e| malformed(e.to_string()))?;
        let tag = fallback_tag(&of);
        let mut entries = match self.tag(repository, &tag).await? {
            Some(content) => listed(&tag, &content.bytes)?
                .iter()
                .filter(|d| d.digest().to_string() != digest.to_string())
                .map(serde_json::to_value)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| malformed(e.to_string()))?,
            None => Vec::new(),
        };
        let artifact_type = manifest.artifact_type().as_ref().map_or_else(
            || manifest.config().media_type().to_string(),
            ToString::to_string,
        );
        let annotations: BTreeMap<String, String> = manifest
            .annotations()
            .clone()
            .unwrap_or_default()
            .into_iter()
            .collect();
        entries.push(serde_json::json!({
            "mediaType": media_type,
            "digest": digest,
            "size": bytes.len(),
            "artifactType": artifact_type,
            "annotations": annotations,
        }));
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": OCI_INDEX,
            "manifests": entries,
        });
        let index = serde_json::to_vec(&index).map_err(|e| malformed(e.to_string()))?;
        Box::pin(self.push_manifest(repository, Some(&tag), OCI_INDEX, &index)).await?;
        Ok(())
    }
}

/// `sha256-<hex>`
pub fn fallback_tag(digest: &Digest) -> String {
    format!("sha256-{}", digest.hex())
}

pub(crate) fn own_media_type(bytes: &[u8]) -> Option<String> {
    serde_json::from_slice::<Versioned>(bytes).ok()?.media_type
}

/// Whether a partial answer begins where the last one broke off (RFC 9110, 14.4).
fn continues(response: &Response, from: usize) -> bool {
    response
        .headers()
        .get("content-range")
        .and_then(|value| value.to_str().ok())
        .is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

fn listed(what: &str, bytes: &[u8]) -> Result<Vec<Descriptor>, RegistryError> {
    serde_json::from_slice::<ImageIndex>(bytes)
        .map(|index| index.manifests().clone())
        .map_err(|e| RegistryError::Malformed {
            what: what.to_owned(),
            why: e.to_string(),
        })
}

/// `<ADDRESS>; rel="next"` (RFC 8288).
fn next_page(link: Option<&HeaderValue>) -> Option<String> {
    let link = link?.to_str().ok()?;
    link.split(',').find_map(|entry| {
        let (address, params) = entry.trim().strip_prefix('<')?.split_once('>')?;
        params
            .split(';')
            .map(str::trim)
            .any(|p| p == "rel=\"next\"" || p == "rel=next")
            .then(|| address.to_owned())
    })
}
