//! Host names: the one canonical form (UTS-46 strict, LDH, lower case, no trailing dot, never an address) that rules,
//! DNS, TLS and HTTP compare by, and the patterns that rules are written in. A [`HostName`] exists only by parsing,
//! so two spellings of one name are one value everywhere behind the edge.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longest canonical name in bytes, without the root's dot (RFC 1035 §2.3.4).
pub const MAX_NAME_BYTES: usize = 253;
/// Longest label in bytes (RFC 1035 §2.3.4).
pub const MAX_LABEL_BYTES: usize = 63;
/// Longest text that is looked at: any name in any spelling that can come out within [`MAX_NAME_BYTES`] fits, and
/// what does not fit is refused before Unicode work is spent on it.
pub const MAX_SPELLING_BYTES: usize = 1024;

/// Why a text is no host name, or no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum HostError {
    #[error("host name is empty")]
    Empty,
    #[error(
        "host name is longer than {MAX_NAME_BYTES} bytes, or one of its labels is empty or longer than {MAX_LABEL_BYTES}"
    )]
    Length,
    #[error(
        "host name is not valid under UTS-46 with STD3 rules: letters, digits and inner hyphens only"
    )]
    Invalid,
    #[error(
        "this is an address, or one spelling of one, and no host name; literal addresses go under `networks`"
    )]
    Address,
    #[error("host name has a single label; rules need at least two")]
    SingleLabel,
    #[error("a wildcard is `*.` and a name: `*` stands for whole labels at the front only")]
    Wildcard,
    #[error(
        "anyone can register a name under this public suffix, so a wildcard over it allows everyone"
    )]
    PublicSuffix,
}

/// A canonical host name of one label or more: lower-case ASCII (A-labels), no trailing dot, at most
/// [`MAX_NAME_BYTES`], and not a spelling of an IP address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

/// What a rule says about names: one name, or every name below one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HostPattern {
    Exact(HostName),
    /// `*.name`: any depth below `name`, not `name` itself.
    Wildcard(HostName),
}

// === impl HostError ===

impl HostError {
    /// Stable code for diagnostics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Empty | Self::Length | Self::Invalid => "invalid-host",
            Self::Address => "address-as-host",
            Self::SingleLabel => "single-label-host",
            Self::Wildcard => "invalid-wildcard",
            Self::PublicSuffix => "public-suffix-wildcard",
        }
    }
}

// === impl HostName ===

impl HostName {
    /// Canonicalises any spelling: case, Unicode and its full-width and ideographic dots, one trailing dot.
    ///
    /// # Errors
    /// [`HostError`] when the text is no host name; see there.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.len() > MAX_SPELLING_BYTES {
            return Err(HostError::Length);
        }
        if text.contains([':', '[', ']', '%', '/']) && looks_like_ipv6(text) {
            return Err(HostError::Address);
        }
        // Hyphens in the third and fourth place are common in real names (`r3---sn-x.googlevideo.com`) and harmless:
        // a fake `xn--` label is refused whichever mode is chosen.
        let ascii = Uts46::new()
            .to_ascii(
                text.as_bytes(),
                AsciiDenyList::STD3,
                Hyphens::CheckFirstLast,
                DnsLength::Ignore,
            )
            .map_err(|_| HostError::Invalid)?;
        let name = ascii.strip_suffix('.').unwrap_or(&ascii);
        if name.is_empty() {
            return Err(HostError::Empty);
        }
        if name.len() > MAX_NAME_BYTES
            || name
                .split('.')
                .any(|l| l.is_empty() || l.len() > MAX_LABEL_BYTES)
        {
            return Err(HostError::Length);
        }
        if ends_in_number(name) {
            return Err(HostError::Address);
        }
        Ok(Self(name.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Labels from left to right.
    pub fn labels(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('.')
    }

    pub fn label_count(&self) -> usize {
        self.labels().count()
    }

    /// Whether this is a name below `base`, label by label: `a.example.com` is below `example.com`,
    /// `evilexample.com` and `example.com` are not.
    pub fn is_below(&self, base: &HostName) -> bool {
        self.0
            .strip_suffix(&*base.0)
            .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    /// Every name above this one, nearest first: of `a.b.c` these are `b.c` and `c`.
    pub fn parents(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('.').map(|(dot, _)| &self.0[dot + 1..])
    }
}

/// An address in brackets, with a zone or bare: what has a colon was never going to be a name, but deserves its words.
fn looks_like_ipv6(text: &str) -> bool {
    let inner = text.trim_start_matches('[');
    let end = inner.find([']', '%', '/']).unwrap_or(inner.len());
    inner[..end].parse::<std::net::Ipv6Addr>().is_ok()
}

/// The WHATWG URL Standard's 'ends in a number' check: a last label of digits, or of `0x` and hexadecimal digits, is
/// read as (part of) an IPv4 address by some resolver, in decimal, octal, hexadecimal or short form. No top-level
/// domain has that form.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    last.bytes().all(|b| b.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for HostName {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

/// Hash and order of a name are those of its text, so that maps can be asked with a slice of another name.
impl Borrow<str> for HostName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for HostName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for HostName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostName".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_SPELLING_BYTES })
    }
}

// === impl HostPattern ===

impl HostPattern {
    /// Reads `name` or `*.name`. Names have two labels or more; the base of a wildcard is not a public suffix,
    /// the private section of the list (`github.io`, `amazonaws.com`'s) included.
    ///
    /// # Errors
    /// [`HostError`] when the text is no pattern.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let (wildcard, rest) = match text.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        if rest.contains('*') {
            return Err(HostError::Wildcard);
        }
        let name = HostName::parse(rest)?;
        if wildcard {
            if is_public_suffix(&name) {
                return Err(HostError::PublicSuffix);
            }
            return Ok(Self::Wildcard(name));
        }
        if name.label_count() < 2 {
            return Err(HostError::SingleLabel);
        }
        Ok(Self::Exact(name))
    }

    pub fn matches(&self, name: &HostName) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Wildcard(base) => name.is_below(base),
        }
    }

    /// What both patterns name: one of the two, or nothing.
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (narrow, wide) if narrow.is_within(wide) => Some(narrow.clone()),
            (wide, narrow) if narrow.is_within(wide) => Some(narrow.clone()),
            _ => None,
        }
    }

    /// Whether every name that this pattern names is one of `wide`'s.
    fn is_within(&self, wide: &Self) -> bool {
        match (self, wide) {
            (Self::Exact(name), wide) => wide.matches(name),
            (Self::Wildcard(base), Self::Wildcard(wide)) => base == wide || base.is_below(wide),
            (Self::Wildcard(_), Self::Exact(_)) => false,
        }
    }

    /// The name itself, or the base of the wildcard.
    pub fn name(&self) -> &HostName {
        match self {
            Self::Exact(name) | Self::Wildcard(name) => name,
        }
    }
}

/// A single label is always one (the list's own default rule); below that the list decides.
fn is_public_suffix(name: &HostName) -> bool {
    name.label_count() < 2 || public_suffix_list::holds(name.as_str())
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => write!(f, "{name}"),
            Self::Wildcard(base) => write!(f, "*.{base}"),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        Self::parse(text)
    }
}

impl Serialize for HostPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl schemars::JsonSchema for HostPattern {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPattern".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        HostName::json_schema(generator)
    }
}

#[cfg(test)]
mod tests;
