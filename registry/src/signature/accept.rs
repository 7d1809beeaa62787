//! Who may have signed: keys, and identities that an issuer vouched for. Made only by parsing, so that 'anybody' cannot be written:
//! no empty list, no bare wildcard, no wildcard where it would hand the choice to a stranger.

use std::fmt;

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use schema::digest::Digest;
use serde::{Serialize, Serializer};
use sigstore_crypto::{KeyAlgorithm, SubjectAltName};
use sigstore_types::DerPublicKey;
use thiserror::Error;

/// The longest PEM of a public key.
pub const KEY_BYTES: usize = 16 << 10;
/// The longest issuer or subject.
pub const NAME_BYTES: usize = 2 << 10;
/// The most keys and identities together.
pub const SIGNERS: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AcceptError {
    #[error("nobody is named: at least one key or identity has to be")]
    Nobody,
    #[error("more than {SIGNERS} signers")]
    TooMany,
    #[error(
        "not one PEM public key of a kind that is known (ECDSA P-256 or P-384, Ed25519, RSA): {0}"
    )]
    Key(String),
    #[error("an issuer is one https URL, without a wildcard")]
    Issuer,
    #[error(
        "a subject is an e-mail address or a URI; `*` may stand for a part of an address before the @, or in a URI for parts of \
         its path after the first"
    )]
    Subject,
}

/// Who may have signed. Never empty.
#[derive(Clone, Debug, Serialize)]
pub struct Accept {
    keys: Vec<Key>,
    identities: Vec<Identity>,
}

/// A public key, and whether a signature made with it has to be in a transparency log.
#[derive(Clone, Debug)]
pub struct Key {
    pub(crate) der: DerPublicKey,
    pub(crate) algorithm: KeyAlgorithm,
    id: Digest,
    log: Log,
}

/// Whether a key's signature must be proven to be in a log of a trusted root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Log {
    Demanded,
    NotDemanded,
}

/// One who an issuer says they are: the OIDC issuer, exactly, and the subject of the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity {
    issuer: String,
    subject: Pattern,
}

/// A subject, or several: `*` is any run of characters but `/`, `**` any run at all. Anchored at both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

// === impl Accept ===

impl Accept {
    /// # Errors
    /// [`AcceptError::Nobody`] where both lists are empty, [`AcceptError::TooMany`] beyond [`SIGNERS`].
    pub fn new(keys: Vec<Key>, identities: Vec<Identity>) -> Result<Self, AcceptError> {
        match keys.len() + identities.len() {
            0 => Err(AcceptError::Nobody),
            n if n > SIGNERS => Err(AcceptError::TooMany),
            _ => Ok(Self { keys, identities }),
        }
    }

    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub fn identities(&self) -> &[Identity] {
        &self.identities
    }
}

// === impl Key ===

impl Key {
    /// One public key in PEM (`PUBLIC KEY`: SubjectPublicKeyInfo), as `cosign generate-key-pair` and openssl write it.
    ///
    /// # Errors
    /// [`AcceptError::Key`] for anything else, more than one of them, and kinds of keys that nothing is verified with.
    pub fn from_pem(pem: &str, log: Log) -> Result<Self, AcceptError> {
        let refused = |why: &str| AcceptError::Key(why.to_owned());
        if pem.len() > KEY_BYTES {
            return Err(refused("too long"));
        }
        let mut all = SubjectPublicKeyInfoDer::pem_slice_iter(pem.as_bytes());
        let der = match (all.next(), all.next()) {
            (Some(Ok(der)), None) => DerPublicKey::from_bytes(&der),
            (None, _) => return Err(refused("no PEM block `PUBLIC KEY`")),
            (Some(Err(_)), _) => return Err(refused("damaged PEM")),
            (Some(Ok(_)), Some(_)) => return Err(refused("more than one PEM block")),
        };
        Self::from_der(der, log)
    }

    pub(crate) fn from_der(der: DerPublicKey, log: Log) -> Result<Self, AcceptError> {
        let algorithm =
            KeyAlgorithm::from_spki(&der).map_err(|error| AcceptError::Key(error.to_string()))?;
        Ok(Self {
            id: Digest::of(der.as_bytes()),
            der,
            algorithm,
            log,
        })
    }

    /// The digest of the key's SubjectPublicKeyInfo: how reports and lockfiles name it.
    pub fn id(&self) -> Digest {
        self.id
    }

    pub fn log(&self) -> Log {
        self.log
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct as _;
        let mut out = serializer.serialize_struct("Key", 2)?;
        out.serialize_field("key", &self.id)?;
        out.serialize_field("log", &self.log)?;
        out.end()
    }
}

// === impl Identity ===

impl Identity {
    /// # Errors
    /// [`AcceptError::Issuer`] where the issuer is no URL or has a wildcard; [`AcceptError::Subject`] where the subject could be
    /// anybody's choice.
    pub fn new(issuer: &str, subject: &str) -> Result<Self, AcceptError> {
        let url = issuer
            .strip_prefix("https://")
            .filter(|rest| !rest.is_empty() && !rest.starts_with('/'));
        if url.is_none() || issuer.contains('*') || !plain(issuer) {
            return Err(AcceptError::Issuer);
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            subject: Pattern::parse(subject)?,
        })
    }

    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    pub fn subject(&self) -> &Pattern {
        &self.subject
    }
}

fn plain(text: &str) -> bool {
    text.len() <= NAME_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic())
}

// === impl Pattern ===

impl Pattern {
    /// # Errors
    /// [`AcceptError::Subject`]: see there. `https://host/*` is refused, for everybody has an account on such a host.
    pub fn parse(text: &str) -> Result<Self, AcceptError> {
        let literal = match text.split_once("://") {
            Some((scheme, rest)) => {
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                let first = path.split('/').next().unwrap_or("");
                !scheme.is_empty()
                    && !authority.is_empty()
                    && (!text.contains('*') || !first.is_empty())
                    && ![scheme, authority, first].iter().any(|p| p.contains('*'))
            }
            None => text.rsplit_once('@').is_some_and(|(local, domain)| {
                !local.is_empty() && !domain.is_empty() && !domain.contains(['*', '/'])
            }),
        };
        if !literal || !plain(text) || text.contains("***") {
            return Err(AcceptError::Subject);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a certificate's subject is one of these. An address matches addresses alone, a URI URIs.
    pub fn matches(&self, subject: &SubjectAltName) -> bool {
        match (subject, self.0.contains("://")) {
            (SubjectAltName::Uri(text), true) | (SubjectAltName::Email(text), false) => {
                text.len() <= NAME_BYTES && matches(self.0.as_bytes(), text.as_bytes())
            }
            _ => false,
        }
    }
}

/// Which ends of the text each part of the pattern can reach, part by part: linear in the product of both lengths.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        if first == b'*' {
            let across = after.first() == Some(&b'*');
            rest = if across { &after[1..] } else { after };
            for at in 0..text.len() {
                ends[at + 1] |= ends[at] && (across || text[at] != b'/');
            }
        } else {
            rest = after;
            for at in (0..text.len()).rev() {
                ends[at + 1] = ends[at] && text[at] == first;
            }
            ends[0] = false;
        }
    }
    ends[text.len()]
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

#[cfg(test)]
#[path = "accept/tests.rs"]
mod tests;
