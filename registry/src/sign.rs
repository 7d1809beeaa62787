//! Signing with a key: what cosign would put beside an image, as bytes that are ready to be pushed. A Sigstore bundle as a referrer,
//! and cosign's older payload under a tag, for who verifies with older tools. Nothing here talks to a registry; to a log and to who
//! certifies identities only [`keyless`] does, and to who issues them [`oidc`].

mod key;
pub mod keyless;
pub mod oidc;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schema::digest::Digest;
use serde_json::json;
use sigstore_types::bundle::{MessageDigest, MessageSignature};
use sigstore_types::{
    Bundle, DsseEnvelope, DsseSignature, HashAlgorithm, KeyId, MediaType, PayloadBytes,
    PublicKeyIdentifier, SignatureBytes, SignatureContent, VerificationMaterial,
    VerificationMaterialContent,
};
use thiserror::Error;

pub use key::{KeyError, PASSWORD_BYTES, PRIVATE_KEY_BYTES, SigningKey};

use crate::attestation::{self, PAYLOAD_TYPE, Statement, StatementError};
use crate::signature::COSIGN_SIGN;

/// The type of a bundle, as artifact and as layer.
pub const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// The type of the layer that holds cosign's older payload.
pub const SIMPLE_SIGNING_TYPE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The type of the layer that holds cosign's older attestation.
pub const ENVELOPE_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

#[derive(Debug, Error)]
pub enum SignError {
    #[error("the key did not sign")]
    Refused,
    #[error("the predicate is not JSON: {0}")]
    Predicate(String),
    #[error(transparent)]
    Statement(#[from] StatementError),
    #[error("the bundle cannot be written: {0}")]
    Bundle(String),
}

/// What is signed, ready to be pushed in both forms.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The bundle: the one layer, of [`BUNDLE_TYPE`], of a manifest of that artifact type whose subject is what was signed.
    pub bundle: Vec<u8>,
    /// That manifest's annotations.
    pub bundle_annotations: BTreeMap<String, String>,
    /// The layer to add under cosign's tag, `sha256-<hex>.sig` for a signature, `.att` for an attestation.
    pub layer: Vec<u8>,
    /// [`SIMPLE_SIGNING_TYPE`] or [`ENVELOPE_TYPE`].
    pub layer_type: &'static str,
    pub layer_annotations: BTreeMap<String, String>,
}

/// A signature of an image, or of anything else that a registry knows by digest. `reference` is the repository's name: cosign writes
/// it into its older payload, and believes it no more than we do.
///
/// # Errors
/// [`SignError`] where the key does not sign.
pub fn image(key: &SigningKey, subject: &Digest, reference: &str) -> Result<Signed, SignError> {
    let statement = statement(subject, None, COSIGN_SIGN, &json!({}));
    let payload = json!({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": subject.to_string()},
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let payload = payload.to_string().into_bytes();
    let signature = STANDARD.encode(key.sign(&payload)?);
    let envelope = envelope(key, statement)?;
    Ok(Signed {
        bundle: bundle(key, SignatureContent::DsseEnvelope(envelope))?,
        bundle_annotations: annotations(COSIGN_SIGN),
        layer: payload,
        layer_type: SIMPLE_SIGNING_TYPE,
        layer_annotations: BTreeMap::from([(
            "dev.cosignproject.cosign/signature".to_owned(),
            signature,
        )]),
    })
}

/// An attestation: provenance, an inventory, anything with a type of its own. `name` is what the statement calls its subject.
///
/// # Errors
/// [`SignError`] where the predicate is no JSON or too long, or the key does not sign.
pub fn attest(
    key: &SigningKey,
    subject: &Digest,
    name: &str,
    predicate_type: &str,
    predicate: &[u8],
) -> Result<Signed, SignError> {
    let statement = statement(
        subject,
        Some(name),
        predicate_type,
        &self::predicate(predicate)?,
    );
    let envelope = envelope(key, statement)?;
    let layer = serde_json::to_vec(&envelope).map_err(|e| SignError::Bundle(e.to_string()))?;
    Ok(Signed {
        bundle: bundle(key, SignatureContent::DsseEnvelope(envelope))?,
        bundle_annotations: annotations(predicate_type),
        layer,
        layer_type: ENVELOPE_TYPE,
        layer_annotations: BTreeMap::from([
            (
                "dev.cosignproject.cosign/signature".to_owned(),
                String::new(),
            ),
            ("predicateType".to_owned(), predicate_type.to_owned()),
        ]),
    })
}

/// A bundle over content itself, as `cosign sign-blob` makes it: for files that lie beside what they are about.
///
/// # Errors
/// [`SignError`] where the key does not sign.
pub fn content(key: &SigningKey, content: &[u8]) -> Result<Vec<u8>, SignError> {
    let signature = SignatureBytes::new(key.sign(content)?);
    let digest = Digest::of(content);
    let named = MessageDigest::new(
        HashAlgorithm::Sha2256,
        sigstore_types::DigestBytes::new(digest.as_bytes().to_vec()),
    );
    let message = MessageSignature::new(signature).with_message_digest(named);
    bundle(key, SignatureContent::MessageSignature(message))
}

fn predicate(bytes: &[u8]) -> Result<serde_json::Value, SignError> {
    crate::signature::json::bounded(bytes, attestation::BYTES)
        .map_err(StatementError::Unbounded)?;
    serde_json::from_slice(bytes).map_err(|error| SignError::Predicate(error.to_string()))
}

fn statement(
    subject: &Digest,
    name: Option<&str>,
    predicate_type: &str,
    predicate: &serde_json::Value,
) -> Vec<u8> {
    let mut named = json!({"digest": {"sha256": subject.hex()}});
    if let Some(name) = name {
        named["name"] = name.into();
    }
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [named],
        "predicateType": predicate_type,
        "predicate": predicate,
    })
    .to_string()
    .into_bytes()
}

fn envelope(key: &SigningKey, statement: Vec<u8>) -> Result<DsseEnvelope, SignError> {
    // What we would not read we do not sign.
    Statement::parse(&statement)?;
    let signature = key.sign(&sigstore_types::pae(PAYLOAD_TYPE, &statement))?;
    Ok(DsseEnvelope::new(
        PAYLOAD_TYPE,
        PayloadBytes::new(statement),
        DsseSignature::new(SignatureBytes::new(signature), KeyId::default()),
    ))
}

fn bundle(key: &SigningKey, content: SignatureContent) -> Result<Vec<u8>, SignError> {
    // What cosign looks a key up by: the digest of its SubjectPublicKeyInfo.
    let hint = PublicKeyIdentifier::new(STANDARD.encode(key.id().as_bytes()));
    let material = VerificationMaterial::new(VerificationMaterialContent::PublicKey(hint));
    Bundle::new(MediaType::Bundle0_3, material, content)
        .to_json()
        .map(String::into_bytes)
        .map_err(|error| SignError::Bundle(error.to_string()))
}

fn annotations(predicate_type: &str) -> BTreeMap<String, String> {
    [
        ("dev.sigstore.bundle.content", "dsse-envelope"),
        ("dev.sigstore.bundle.predicateType", predicate_type),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

#[cfg(test)]
mod tests;
