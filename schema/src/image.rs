//! OCI image references as people write them, taken apart: registry, repository, tag, digest. Short names expand the
//! way every engine expands them (`debian` is `docker.io/library/debian:latest`), once, here.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::digest::Digest;

/// Longest repository path in bytes (distribution/reference: 255 for the name).
pub const MAX_REPOSITORY_BYTES: usize = 255;
/// Longest tag in bytes (OCI distribution specification).
pub const MAX_TAG_BYTES: usize = 128;

/// A reference to an image; equality and order are those of the expanded form.
#[derive(Clone, Debug)]
pub struct ImageRef {
    written: Box<str>,
    registry: Box<str>,
    repository: Box<str>,
    tag: Option<Box<str>>,
    digest: Option<Digest>,
}

/// Why a text is no image reference.
/// An artifact in a registry: `oci://REGISTRY/REPOSITORY`, and a tag or a digest, which are never left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OciSource(ImageRef);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    #[error("image reference is empty")]
    Empty,
    #[error("registry is no host with an optional port")]
    Registry,
    #[error(
        "repository is lower-case words of a-z and 0-9, joined by `.`, `_`, `__` or `-`, in segments joined by `/`"
    )]
    Repository,
    #[error("repository is longer than {MAX_REPOSITORY_BYTES} bytes")]
    TooLong,
    #[error(
        "tag is 1 to {MAX_TAG_BYTES} of letters, digits, `_`, `.` and `-`, not starting with `.` or `-`"
    )]
    Tag,
    #[error("digest is not `sha256:` and 64 lower-case hexadecimal digits")]
    Digest,
    #[error("expected oci://REGISTRY/REPOSITORY:TAG, or with @sha256:… in place of a tag")]
    Source,
}

// === impl ImageRef ===

impl ImageRef {
    /// # Errors
    /// [`ImageError`] names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        if text.is_empty() {
            return Err(ImageError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(Digest::parse(digest).map_err(|_| ImageError::Digest)?),
            ),
            None => (text, None),
        };
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(ImageError::Tag);
        }
        let (registry, path) = match rest.split_once('/') {
            Some((first, path)) if first == "localhost" || first.contains(['.', ':']) => {
                (first, path)
            }
            _ => ("docker.io", rest),
        };
        if !is_registry(registry) {
            return Err(ImageError::Registry);
        }
        let registry = canonical_registry(registry);
        let repository = if *registry == *"docker.io" && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if repository.len() > MAX_REPOSITORY_BYTES {
            return Err(ImageError::TooLong);
        }
        if !repository.split('/').all(is_segment) {
            return Err(ImageError::Repository);
        }
        Ok(Self {
            written: text.into(),
            registry,
            repository: repository.into(),
            tag: tag.map(Into::into),
            digest,
        })
    }

    /// As it was written: what engines are asked for and people are shown.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    /// Host, with a port where one was written: `docker.io`, `127.0.0.1:5000`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Path below the registry: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The expanded reference: `docker.io/library/debian:latest`.
    pub fn canonical(&self) -> String {
        let mut out = format!("{}/{}", self.registry, self.repository);
        match (&self.tag, &self.digest) {
            (Some(tag), _) => out.extend([":", tag]),
            (None, None) => out.push_str(":latest"),
            (None, Some(_)) => {}
        }
        if let Some(digest) = &self.digest {
            out.push('@');
            out.push_str(&digest.to_string());
        }
        out
    }

    fn key(&self) -> (&str, &str, Option<&str>, Option<&Digest>) {
        let tag = self.tag.as_deref().or(if self.digest.is_none() {
            Some("latest")
        } else {
            None
        });
        (&self.registry, &self.repository, tag, self.digest.as_ref())
    }
}

/// The one spelling of a registry: lower case, without the port that HTTPS has anyway, and Docker Hub under the one name that
/// references have for it. What is allowed, denied and required is compared in it.
pub(crate) fn canonical_registry(registry: &str) -> Box<str> {
    let lower = registry.to_ascii_lowercase();
    let (host, port) = match lower.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.trim_start_matches('0')),
        _ => (lower.as_str(), "443"),
    };
    match (host, port) {
        ("index.docker.io" | "registry-1.docker.io" | "docker.io", "443") => "docker.io".into(),
        (host, "443") => host.into(),
        (host, port) => format!("{host}:{port}").into(),
    }
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG_BYTES).contains(&tag.len())
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
        && tag.bytes().next().is_some_and(word)
}

/// A name or IPv4 address in LDH labels, or an IPv6 address in brackets, with an optional port.
pub(crate) fn is_registry(registry: &str) -> bool {
    let (host, port) = match registry.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (registry, None),
    };
    let port_fits = port.is_none_or(|port| {
        (1..=5).contains(&port.len())
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|p| p != 0)
    });
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let host_fits = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.len() <= 253 && host.split('.').all(label),
    };
    port_fits && host_fits
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
pub(crate) fn is_segment(segment: &str) -> bool {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = segment.as_bytes();
    if !bytes.first().copied().is_some_and(word) || !bytes.last().copied().is_some_and(word) {
        return false;
    }
    let allowed = bytes
        .iter()
        .all(|&b| word(b) || matches!(b, b'.' | b'_' | b'-'));
    let joints = segment
        .split(|c: char| c.is_ascii_alphanumeric())
        .filter(|joint| !joint.is_empty());
    allowed
        && joints
            .into_iter()
            .all(|joint| matches!(joint, "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

// === impl OciSource ===

impl OciSource {
    pub fn reference(&self) -> &ImageRef {
        &self.0
    }
}

impl FromStr for OciSource {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let rest = text.strip_prefix("oci://").ok_or(ImageError::Source)?;
        let registry = rest.split('/').next().unwrap_or_default();
        let image = ImageRef::parse(rest)?;
        // A short name, which engines look up at Docker Hub, is no place.
        let named =
            rest.contains('/') && (registry == "localhost" || registry.contains(['.', ':']));
        let one = image.tag().is_some() != image.digest().is_some();
        if named && one {
            Ok(Self(image))
        } else {
            Err(ImageError::Source)
        }
    }
}

impl fmt::Display for OciSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}", self.0)
    }
}

impl Serialize for OciSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl schemars::JsonSchema for OciSource {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OciSource".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": "^oci://[^/@]+/[^@]+(:[^/@]+|@sha256:[0-9a-f]{64})$" })
    }
}

impl PartialEq for ImageRef {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for ImageRef {}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for ImageRef {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        Self::parse(text)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.written)
    }
}

impl<'de> Deserialize<'de> for ImageRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for ImageRef {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ImageRef".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1 })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn short_names_expand_as_engines_expand_them() {
        let pinned = format!("ghcr.io/o/i@sha256:{HEX}");
        for (written, canonical) in [
            ("debian", "docker.io/library/debian:latest"),
            ("debian:12", "docker.io/library/debian:12"),
            ("acme/agent", "docker.io/acme/agent:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            (
                "ghcr.io/my-org/my__agent:V1.0_x",
                "ghcr.io/my-org/my__agent:V1.0_x",
            ),
            (&pinned, &pinned),
        ] {
            let image = ImageRef::parse(written).unwrap();
            assert_eq!(image.canonical(), canonical);
            assert_eq!(image.as_str(), written);
            assert_eq!(ImageRef::parse(canonical).unwrap(), image);
        }
        let image = ImageRef::parse(&format!("r.example:1/a/b:t@sha256:{HEX}")).unwrap();
        assert_eq!(
            (image.registry(), image.repository(), image.tag()),
            ("r.example:1", "a/b", Some("t"))
        );
        assert_eq!(image.digest().unwrap().hex(), HEX);
    }

    #[test]
    fn what_an_engine_would_refuse_is_refused() {
        for (text, error) in [
            ("", ImageError::Empty),
            ("Debian", ImageError::Repository),
            ("a//b", ImageError::Repository),
            ("/a", ImageError::Repository),
            ("a/", ImageError::Repository),
            ("a:", ImageError::Tag),
            ("a:-x", ImageError::Tag),
            ("a b", ImageError::Repository),
            ("--privileged", ImageError::Repository),
            ("a___b", ImageError::Repository),
            ("a..b", ImageError::Repository),
            ("a@sha256:00", ImageError::Digest),
            ("a@md5:00", ImageError::Digest),
            ("host:0/a", ImageError::Registry),
            ("host:99999/a", ImageError::Registry),
            ("-a.b/c", ImageError::Registry),
            ("https://x/y", ImageError::Registry),
            ("../etc", ImageError::Registry),
            ("a\n", ImageError::Repository),
            ("${localEnv:X}", ImageError::Tag),
        ] {
            assert_eq!(ImageRef::parse(text).unwrap_err(), error, "{text:?}");
        }
    }

    #[test]
    fn a_registry_has_one_spelling() {
        let one = |text: &str| ImageRef::parse(text).unwrap();
        for same in [
            "ghcr.io/a/b:1",
            "GHCR.io/a/b:1",
            "ghcr.io:443/a/b:1",
            "ghcr.io:00443/a/b:1",
        ] {
            assert_eq!(one(same), one("ghcr.io/a/b:1"), "{same}");
            assert_eq!(one(same).registry(), "ghcr.io");
        }
        for same in [
            "debian",
            "docker.io/debian",
            "Docker.io/debian",
            "docker.io:443/debian",
            "Index.docker.io/library/debian",
            "registry-1.docker.io/debian",
        ] {
            assert_eq!(
                one(same).canonical(),
                "docker.io/library/debian:latest",
                "{same}"
            );
        }
        assert_eq!(one("r.test:05000/a").registry(), "r.test:5000");
        assert_ne!(one("r.test:5000/a"), one("r.test/a"));
        assert_eq!(one("[::1]:443/a").registry(), "[::1]");
    }

    #[test]
    fn repositories_and_tags_are_bounded() {
        let repo = |n: usize| format!("r.io/{}", "a".repeat(n));
        assert!(ImageRef::parse(&repo(MAX_REPOSITORY_BYTES)).is_ok());
        assert_eq!(
            ImageRef::parse(&repo(MAX_REPOSITORY_BYTES + 1)),
            Err(ImageError::TooLong)
        );
        let tag = |n: usize| format!("a:{}", "t".repeat(n));
        assert!(ImageRef::parse(&tag(MAX_TAG_BYTES)).is_ok());
        assert_eq!(
            ImageRef::parse(&tag(MAX_TAG_BYTES + 1)),
            Err(ImageError::Tag)
        );
    }
}
