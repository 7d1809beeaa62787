//! Session ids: the name of a cgroup, a pin directory and an engine label, hence short, without `-` (which nests
//! systemd slice names) and without anything a path or a shell would read.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Longest id in bytes.
pub const MAX_SESSION_ID_BYTES: usize = 32;

/// What the certificate authority of every session calls itself (its common name): OpenSSL finds an authority by a hash of that, which
/// has to be known before there is a certificate. Small letters and single blanks, as the hash has them.
pub const AUTHORITY: &str = "agentcontainer session";

/// `[a-z0-9_]{1,32}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a session id is 1 to {MAX_SESSION_ID_BYTES} of a-z, 0-9 and _")]
pub struct SessionIdError;

// === impl SessionId ===

impl SessionId {
    /// # Errors
    /// [`SessionIdError`] when the text is anything but `[a-z0-9_]{1,32}`.
    pub fn parse(text: &str) -> Result<Self, SessionIdError> {
        let fits = (1..=MAX_SESSION_ID_BYTES).contains(&text.len());
        let spelt = text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if fits && spelt {
            Ok(Self(text.into()))
        } else {
            Err(SessionIdError)
        }
    }

    /// Thirteen characters of base 32 (65 bits' worth of room for the 64 random bits given).
    pub fn generate(random: [u8; 8]) -> Self {
        const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bits = u64::from_be_bytes(random);
        let mut id = String::with_capacity(13);
        for _ in 0..13 {
            id.push(char::from(ALPHABET[(bits & 31) as usize]));
            bits >>= 5;
        }
        Self(id.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<Self, SessionIdError> {
        Self::parse(text)
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_id_is_one_to_32_of_a_closed_alphabet() {
        assert!(SessionId::parse(&"a".repeat(32)).is_ok());
        assert!(SessionId::parse(&"a".repeat(33)).is_err());
        for text in ["", "a-b", "A", "a.b", "../x", "a/b", "a b", "ä", "a\0"] {
            assert_eq!(SessionId::parse(text), Err(SessionIdError), "{text:?}");
        }
    }

    #[test]
    fn generated_ids_parse_and_keep_all_bits() {
        let a = SessionId::generate([0xff; 8]);
        let b = SessionId::generate([0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(SessionId::parse(a.as_str()).unwrap(), a);
        assert_ne!(a, b);
        assert_eq!(a.as_str().len(), 13);
    }
}
