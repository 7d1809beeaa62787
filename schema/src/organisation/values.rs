//! Small values of an organisation's policy with a textual form of their own: times, ages, patterns of images and of sources,
//! bounds of networks, packages and their versions. Each is made by parsing alone.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::config::filesystem::{self, PathPatternError};
use crate::config::units::inline_schema;
use crate::credential::Source;
use crate::image::{ImageRef, canonical_registry, is_registry, is_segment};
use crate::net::{Cidr, CidrError};

/// Longest pattern, name or range of versions in bytes.
pub const MAX_TEXT_BYTES: usize = 512;
/// Most constraints in one range of versions.
pub const MAX_CONSTRAINTS: usize = 16;

/// A moment, with its offset from UTC: RFC 3339.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(jiff::Timestamp);

/// In seconds; as text a whole number of hours, days or weeks: `12h`, `90d`, `4w`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(u64);

/// An organisation by its name: `acme`, `acme.example`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrganisationName(Box<str>);

/// A registry: a host with an optional port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegistryName(Box<str>);

/// `REGISTRY/REPOSITORY`, in which `*` is one segment and `**`, at the end, one or more: `ghcr.io/acme/**`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePattern {
    registry: Box<str>,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Segment {
    Exact(Box<str>),
    One,
    Rest,
}

/// A kind of source, or a kind and the place it reads: `op`, `op://Engineering`, `vault://vault.acme.example:8200`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourcePattern {
    kind: Box<str>,
    place: Option<Box<str>>,
}

/// A network, with a port or at every one: `10.20.0.0/16`, `10.20.0.0/16:5432`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkBound {
    pub cidr: Cidr,
    pub port: Option<u16>,
}

/// A capability of Linux: `CAP_NET_BIND_SERVICE`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinuxCapability(Box<str>);

/// A path of the container, or a pattern of names below the workspace's folder, whichever that is: `/etc/ssl`, `/srv/**`, `**/.env`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern(filesystem::PathPattern);

/// The `type` of a package URL: `npm`, `pypi`, `deb`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageType(Box<str>);

/// A package's name, with its namespace before a `/` where it has one: `@scope/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackageName(Box<str>);

/// `*`, or constraints between spaces that hold together, alternatives between `||`: `>=1.2.0 <1.4.3 || =2.0.0-rc1`. How versions
/// are ordered is the ecosystem's own rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionRange(Vec<Vec<Constraint>>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Constraint {
    pub comparison: Comparison,
    pub version: Box<str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Comparison {
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ValueError {
    #[error("expected a time such as 2026-11-01T00:00:00Z")]
    Time,
    #[error("expected a whole number of hours, days or weeks from 1 to 99999: 12h, 90d, 4w")]
    Age,
    #[error("expected 1 to 64 letters, digits, `.`, `_` and `-`")]
    Organisation,
    #[error(
        "expected a registry alone: a host with an optional port, such as ghcr.io or registry.acme.example:5000"
    )]
    Registry,
    #[error(
        "expected REGISTRY/REPOSITORY, with `*` for one segment and `**` at the end for one or more, without a tag: ghcr.io/acme/**, docker.io/library/debian"
    )]
    Image,
    #[error(
        "expected env, file, exec, stdin, keyring, op, vault or github-device, or with what it reads: op://VAULT, vault://HOST, github-device://HOST"
    )]
    Source,
    #[error("what follows `:` is no port from 1 to 65535")]
    Port,
    #[error("expected CAP_ and a name in capitals")]
    Capability,
    #[error("expected an absolute path, or `**/` and a name")]
    Path,
    #[error(transparent)]
    Pattern(#[from] PathPatternError),
    #[error("expected the type of a package URL in lower case: npm, pypi, deb, golang")]
    PackageType,
    #[error("expected a package's name in visible ASCII, as its package URL has it")]
    PackageName,
    #[error(
        "expected `*`, or versions with <, <=, =, >= or > before each: `>=1.2.0 <1.4.3 || =2.0.0`"
    )]
    Versions,
    #[error(transparent)]
    Cidr(#[from] CidrError),
}

fn visible(text: &str) -> bool {
    (1..=MAX_TEXT_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

fn port(text: &str) -> Option<u16> {
    let plain = (1..=5).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

// === impl Time ===

impl Time {
    pub fn timestamp(self) -> jiff::Timestamp {
        self.0
    }
}

impl FromStr for Time {
    type Err = ValueError;

    /// RFC 3339 alone: a date, `T`, a time with seconds, and `Z` or an offset.
    fn from_str(text: &str) -> Result<Self, ValueError> {
        let bytes = text.as_bytes();
        let shape = |i: usize, b: u8| bytes.get(i) == Some(&b);
        let dated = (20..=35).contains(&text.len())
            && text.is_ascii()
            && [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')]
                .into_iter()
                .all(|(i, b)| shape(i, b))
            && !text.contains(['[', ',']);
        let parsed = text.parse().ok().filter(|_| dated);
        parsed.map(Self).ok_or(ValueError::Time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl Age ===

const UNITS: [(char, u64); 3] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3600)];

impl Age {
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Age {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        let (number, unit) = UNITS
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(*unit)?, seconds)))
            .ok_or(ValueError::Age)?;
        let number: u64 = port_like(number).ok_or(ValueError::Age)?;
        Ok(Self(number * unit))
    }
}

/// One to five digits that do not begin with a zero.
fn port_like(text: &str) -> Option<u64> {
    let plain = (1..=5).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0');
    text.parse().ok().filter(|_| plain)
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, seconds) = UNITS
            .into_iter()
            .find(|(_, seconds)| self.0.is_multiple_of(*seconds) && self.0 / seconds > 0)
            .unwrap_or(('h', 3600));
        write!(f, "{}{unit}", self.0 / seconds)
    }
}

// === impl ImagePattern ===

impl ImagePattern {
    /// Whether it names this repository, whatever the tag or digest.
    pub fn matches(&self, image: &ImageRef) -> bool {
        let repository: Vec<&str> = image.repository().split('/').collect();
        let mut rest = repository.as_slice();
        if *self.registry != *image.registry() {
            return false;
        }
        for segment in &self.segments {
            let Some((first, behind)) = rest.split_first() else {
                return false;
            };
            match segment {
                Segment::Rest => return true,
                Segment::Exact(text) if **text != **first => return false,
                Segment::Exact(_) | Segment::One => rest = behind,
            }
        }
        rest.is_empty()
    }

    /// Whether everything that this pattern names is named by `wide` as well.
    pub fn is_within(&self, wide: &Self) -> bool {
        let (mut own, mut other) = (self.segments.as_slice(), wide.segments.as_slice());
        if self.registry != wide.registry {
            return false;
        }
        loop {
            match (own.split_first(), other.split_first()) {
                (Some(_), Some((Segment::Rest, _))) => return true,
                (Some((Segment::Rest, _)), _) => return false,
                (Some((Segment::One, o)), Some((Segment::One, w))) => (own, other) = (o, w),
                (Some((Segment::Exact(_), o)), Some((Segment::One, w))) => (own, other) = (o, w),
                (Some((Segment::Exact(a), o)), Some((Segment::Exact(b), w))) if a == b => {
                    (own, other) = (o, w);
                }
                (None, None) => return true,
                _ => return false,
            }
        }
    }
}

impl FromStr for ImagePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !visible(text) || text.contains('@') {
            return Err(ValueError::Image);
        }
        let (registry, path) = text.split_once('/').ok_or(ValueError::Image)?;
        // Without a dot or port it would be read as a namespace of Docker Hub elsewhere.
        let named = registry == "localhost" || registry.contains(['.', ':']);
        if !named || !is_registry(registry) {
            return Err(ValueError::Image);
        }
        let parts: Vec<&str> = path.split('/').collect();
        let last = parts.len() - 1;
        let segments: Option<Vec<Segment>> = parts
            .into_iter()
            .enumerate()
            .map(|(i, part)| match part {
                "*" => Some(Segment::One),
                "**" if i == last => Some(Segment::Rest),
                part => is_segment(part).then(|| Segment::Exact(part.into())),
            })
            .collect();
        Ok(Self {
            registry: canonical_registry(registry),
            segments: segments.ok_or(ValueError::Image)?,
        })
    }
}

impl fmt::Display for ImagePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.registry)?;
        self.segments.iter().try_for_each(|segment| match segment {
            Segment::Exact(text) => write!(f, "/{text}"),
            Segment::One => f.write_str("/*"),
            Segment::Rest => f.write_str("/**"),
        })
    }
}

// === impl RegistryName ===

impl RegistryName {
    pub fn holds(&self, image: &ImageRef) -> bool {
        *self.0 == *image.registry()
    }
}

// === impl SourcePattern ===

impl SourcePattern {
    /// Whether it is about this source.
    pub fn matches(&self, source: &Source) -> bool {
        let place = self.place.as_deref();
        *self.kind == *source.kind()
            && place.is_none_or(|place| match source {
                Source::OnePassword(reference) => reference.split('/').next() == Some(place),
                Source::Vault { host, port, .. } => is_at(place, host, *port, 8200),
                Source::Device { host, port, .. } => is_at(place, host, *port, 443),
                _ => false,
            })
    }

    /// Whether every source that this pattern is about is one of `wide`'s.
    pub fn is_within(&self, wide: &Self) -> bool {
        self.kind == wide.kind && (wide.place.is_none() || self.place == wide.place)
    }
}

fn is_at(place: &str, host: &str, port: u16, default: u16) -> bool {
    match place.rsplit_once(':') {
        Some((name, number)) => name == host && number.parse() == Ok(port),
        None => place == host && port == default,
    }
}

impl FromStr for SourcePattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        const KINDS: [&str; 8] = [
            "env",
            "file",
            "exec",
            "stdin",
            "keyring",
            "op",
            "vault",
            "github-device",
        ];
        let (kind, place) = match text.split_once("://") {
            Some((kind, place)) => (kind, Some(place)),
            None => (text, None),
        };
        let fits = KINDS.contains(&kind)
            && place.is_none_or(|place| {
                let plain = visible(place) && !place.contains(['/', '*', '#', '?']);
                plain
                    && match kind {
                        "op" => true,
                        "vault" | "github-device" => is_registry(place),
                        _ => false,
                    }
            });
        if !fits {
            return Err(ValueError::Source);
        }
        let lower = |place: &str| match kind {
            "op" => Box::from(place),
            _ => place.to_ascii_lowercase().into_boxed_str(),
        };
        Ok(Self {
            kind: kind.into(),
            place: place.map(lower),
        })
    }
}

impl fmt::Display for SourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{}://{place}", self.kind),
            None => f.write_str(&self.kind),
        }
    }
}

// === impl PathPattern ===

impl PathPattern {
    pub fn pattern(&self) -> &filesystem::PathPattern {
        &self.0
    }
}

impl FromStr for PathPattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if text.len() > MAX_TEXT_BYTES || !(text.starts_with('/') || text.starts_with("**/")) {
            return Err(ValueError::Path);
        }
        match text.parse::<filesystem::PathPattern>()? {
            path if path.is_root() => Err(PathPatternError::Root.into()),
            path => Ok(Self(path)),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

// === impl NetworkBound ===

impl FromStr for NetworkBound {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        match text.rsplit_once(':') {
            Some((cidr, number)) if !cidr.contains(':') => Ok(Self {
                cidr: Cidr::parse(cidr)?,
                port: Some(port(number).ok_or(ValueError::Port)?),
            }),
            _ => Ok(Self {
                cidr: Cidr::parse(text)?,
                port: None,
            }),
        }
    }
}

impl fmt::Display for NetworkBound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.cidr),
            None => self.cidr.fmt(f),
        }
    }
}

// === impl VersionRange ===

const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
    ("=", Comparison::Equal),
];

impl VersionRange {
    /// Alternatives, each of constraints that hold together; one without constraints is every version.
    pub fn alternatives(&self) -> &[Vec<Constraint>] {
        &self.0
    }
}

impl FromStr for VersionRange {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, ValueError> {
        if !(1..=MAX_TEXT_BYTES).contains(&text.len()) {
            return Err(ValueError::Versions);
        }
        if text == "*" {
            return Ok(Self(vec![Vec::new()]));
        }
        let constraint = |word: &str| {
            let (comparison, version) = COMPARISONS
                .iter()
                .find_map(|(sign, comparison)| Some((*comparison, word.strip_prefix(sign)?)))?;
            let fits = !version.is_empty()
                && version
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b".-+~_:^!".contains(&b))
                && version.bytes().any(|b| b.is_ascii_digit());
            fits.then(|| Constraint {
                comparison,
                version: version.into(),
            })
        };
        let mut count = 0;
        let mut alternatives = Vec::new();
        for alternative in text.split("||") {
            let all: Option<Vec<Constraint>> = alternative
                .split_ascii_whitespace()
                .map(constraint)
                .collect();
            let all = all
                .filter(|all| !all.is_empty())
                .ok_or(ValueError::Versions)?;
            count += all.len();
            alternatives.push(all);
        }
        if count > MAX_CONSTRAINTS {
            return Err(ValueError::Versions);
        }
        Ok(Self(alternatives))
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |all: &Vec<Constraint>| {
            let all: Vec<String> = all.iter().map(ToString::to_string).collect();
            match all.is_empty() {
                true => "*".to_owned(),
                false => all.join(" "),
            }
        };
        let all: Vec<String> = self.0.iter().map(shown).collect();
        f.write_str(&all.join(" || "))
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = COMPARISONS
            .iter()
            .find(|(_, comparison)| *comparison == self.comparison)
            .map_or("=", |(sign, _)| sign);
        write!(f, "{sign}{}", self.version)
    }
}

/// Texts that are kept as they were written, or in one case.
macro_rules! texts {
    ($($type:ident, $error:ident, $fits:expr, $made:expr;)*) => { $(
        impl $type {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, ValueError> {
                let fits: fn(&str) -> bool = $fits;
                let made: fn(&str) -> Box<str> = $made;
                if text.len() <= MAX_TEXT_BYTES && fits(text) {
                    Ok(Self(made(text)))
                } else {
                    Err(ValueError::$error)
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )* };
}

texts! {
    OrganisationName, Organisation,
        |t| (1..=64).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)),
        |t| t.into();
    RegistryName, Registry, is_registry, canonical_registry;
    LinuxCapability, Capability,
        |t| t.strip_prefix("CAP_").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_uppercase() || b == b'_')),
        |t| t.into();
    PackageType, PackageType,
        |t| t.starts_with(|c: char| c.is_ascii_lowercase()) && t.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".+-".contains(&b)),
        |t| t.into();
    PackageName, PackageName, visible, |t| t.into();
}

macro_rules! as_text {
    ($($type:ty),*) => { $(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )* };
}

as_text!(
    Time,
    Age,
    OrganisationName,
    RegistryName,
    ImagePattern,
    SourcePattern,
    NetworkBound,
    LinuxCapability,
    PathPattern,
    PackageType,
    PackageName,
    VersionRange
);

inline_schema!(Time, "Time", { "type": "string", "format": "date-time" });
inline_schema!(Age, "Age", { "type": "string", "pattern": "^[1-9][0-9]{0,4}[hdw]$" });
inline_schema!(OrganisationName, "OrganisationName", { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" });
inline_schema!(RegistryName, "RegistryName", { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES });
inline_schema!(ImagePattern, "ImagePattern", { "type": "string", "maxLength": MAX_TEXT_BYTES, "pattern": "^[^/@]+/[^@]+$" });
inline_schema!(SourcePattern, "SourcePattern", {
    "type": "string",
    "maxLength": MAX_TEXT_BYTES + 16,
    "pattern": "^(env|file|exec|stdin|keyring|op|vault|github-device|op://[^/]+|(vault|github-device)://[^/]+)$"
});
inline_schema!(NetworkBound, "NetworkBound", {
    "type": "string",
    "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?(:[1-9][0-9]{0,4})?$"
});
inline_schema!(LinuxCapability, "LinuxCapability", { "type": "string", "pattern": "^CAP_[A-Z_]+$" });
inline_schema!(PathPattern, "PathPattern", { "type": "string", "maxLength": MAX_TEXT_BYTES, "pattern": "^(/|\\*\\*/)." });
inline_schema!(PackageType, "PackageType", { "type": "string", "pattern": "^[a-z][a-z0-9.+-]*$" });
inline_schema!(PackageName, "PackageName", { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES });
inline_schema!(VersionRange, "VersionRange", { "type": "string", "minLength": 1, "maxLength": MAX_TEXT_BYTES });

#[cfg(test)]
mod tests;
