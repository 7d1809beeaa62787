//! The log (Rekor), whose entry proves that and when something was signed, in both versions of its API.
//! <https://github.com/sigstore/rekor>, <https://github.com/sigstore/rekor-tiles>

use std::collections::HashMap;

use reqwest::Client;
use sigstore_crypto::sha256;
use sigstore_sign::rekor::{
    DsseEntry, HashedRekordV2, LogEntry, RekorApiVersion, RekorEntryBody, RekorV2KeyDetails,
};
use sigstore_types::{
    DerCertificate, DsseEnvelope, HashAlgorithm, KindVersion, TransparencyLogEntry,
};

use super::{KeylessError, asked};

/// The entry that the log makes of an envelope.
pub(super) async fn note(
    client: &Client,
    at: &str,
    version: RekorApiVersion,
    envelope: &DsseEnvelope,
    certificate: &DerCertificate,
) -> Result<TransparencyLogEntry, KeylessError> {
    let malformed =
        |e: &dyn std::fmt::Display| asked::failed(at, &format!("answers what is no entry: {e}"));
    let base = at.trim_end_matches('/');
    match version {
        RekorApiVersion::V1 => {
            let question = DsseEntry::new(envelope, certificate).map_err(|e| malformed(&e))?;
            let to = format!("{base}/api/v1/log/entries");
            let answer: HashMap<String, LogEntry> = asked::json(client, at, &to, &question).await?;
            let entry = answer
                .into_values()
                .next()
                .ok_or_else(|| malformed(&"there is none"))?;
            let entry = entry
                .to_bundle_entry(KindVersion::DsseV001)
                .map_err(|e| malformed(&e))?;
            if !is_of_first(&entry, envelope, certificate).map_err(|e| malformed(&e))? {
                return Err(malformed(&"it is not what was sent"));
            }
            Ok(entry)
        }
        RekorApiVersion::V2 => {
            let key = RekorV2KeyDetails::PkixEcdsaP256Sha256;
            let hash = sha256(&envelope.pae());
            let signature = &envelope.signature.sig;
            let question = HashedRekordV2::new_with_certificate(&hash, signature, certificate, key);
            let to = format!("{base}/api/v2/log/entries");
            let entry: TransparencyLogEntry = asked::json(client, at, &to, &question).await?;
            if !is_of(&entry, envelope, certificate).map_err(|e| malformed(&e))? {
                return Err(malformed(&"it is not what was sent"));
            }
            Ok(entry)
        }
        other => Err(KeylessError::Config(format!(
            "the log's API is of version {}",
            other.major()
        ))),
    }
}

/// Whether the log's first version wrote down what was sent: this payload, signature and certificate, promised or proven. (The hash of the
/// whole envelope is one of the log's own spelling of it.)
fn is_of_first(
    entry: &TransparencyLogEntry,
    envelope: &DsseEnvelope,
    certificate: &DerCertificate,
) -> Result<bool, sigstore_sign::rekor::Error> {
    let body = RekorEntryBody::parse(&entry.canonicalized_body, entry.kind_version)?;
    let RekorEntryBody::DsseV001(body) = body else {
        return Ok(false);
    };
    let [logged] = body.spec.signatures.as_slice() else {
        return Ok(false);
    };
    let payload = &body.spec.payload_hash;
    let digest = sha256(envelope.payload.as_bytes()).to_hex();
    Ok(payload.algorithm == HashAlgorithm::Sha2256
        && payload.value.eq_ignore_ascii_case(&digest)
        && logged.signature == envelope.signature.sig
        && logged.parse_certificate()? == *certificate
        && entry.integrated_time.is_some()
        && (entry.inclusion_promise.is_some() || entry.inclusion_proof.is_some()))
}

/// Whether the log's second version wrote down what was sent: this digest, signature and certificate, proven by a signed head.
fn is_of(
    entry: &TransparencyLogEntry,
    envelope: &DsseEnvelope,
    certificate: &DerCertificate,
) -> Result<bool, sigstore_sign::rekor::Error> {
    if entry.kind_version != KindVersion::HashedRekordV002 {
        return Ok(false);
    }
    let RekorEntryBody::HashedRekordV002(body) =
        RekorEntryBody::parse(&entry.canonicalized_body, entry.kind_version)?
    else {
        return Ok(false);
    };
    let logged = body.spec.hashed_rekord_v002;
    let verifier = logged.signature.verifier;
    Ok(logged.data.algorithm == HashAlgorithm::Sha2256
        && logged.data.digest.as_bytes() == sha256(&envelope.pae()).as_bytes()
        && logged.signature.content == envelope.signature.sig
        && verifier.key_details == RekorV2KeyDetails::PkixEcdsaP256Sha256
        && verifier.public_key.is_none()
        && verifier
            .x509_certificate
            .is_some_and(|logged| logged.raw_bytes == *certificate)
        && entry.integrated_time.is_none()
        && entry.inclusion_promise.is_none()
        && entry
            .inclusion_proof
            .as_ref()
            .is_some_and(|proof| !proof.checkpoint.is_empty()))
}
