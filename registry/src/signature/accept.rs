//! Who may have signed: keys, and identities that an issuer vouched for. Made only by parsing, so that 'anybody' cannot be written:
//! no empty list, no bare wildcard, no wildcard where it would hand the choice to a stranger.

use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject as _;
use schema::digest::Digest;
use schema::signer::{self, SignerError};
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
    #[error("the issuer: {0}")]
    Issuer(#[source] SignerError),
    #[error("the subject: {0}")]
    Subject(#[source] SignerError),
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

/// One who an issuer says they are, as host and organisations name them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Identity(signer::Identity);

// === impl Accept ===

impl Accept {
    /// Whether certificates or logs are part of what is accepted.
    pub fn needs_roots(&self) -> bool {
        !self.identities.is_empty() || self.keys.iter().any(|key| matches!(key.log, Log::Demanded))
    }

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
        Ok(Self(signer::Identity {
            issuer: issuer.parse().map_err(AcceptError::Issuer)?,
            subject: subject.parse().map_err(AcceptError::Subject)?,
        }))
    }

    pub fn issuer(&self) -> &str {
        self.0.issuer.as_str()
    }

    /// Whether a certificate's subject is meant. An address matches addresses alone, a URI URIs.
    pub fn is(&self, subject: &SubjectAltName) -> bool {
        let is_uri = self.0.subject.to_string().contains("://");
        match (subject, is_uri) {
            (SubjectAltName::Uri(text), true) | (SubjectAltName::Email(text), false) => {
                text.len() <= NAME_BYTES && self.0.subject.matches(text)
            }
            _ => false,
        }
    }
}

impl From<signer::Identity> for Identity {
    fn from(identity: signer::Identity) -> Self {
        Self(identity)
    }
}

#[cfg(test)]
#[path = "accept/tests.rs"]
mod tests;
