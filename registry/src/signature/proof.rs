//! Whether a signature holds: by one of the accepted keys, or by a certificate whose authority, logs and times hold and whose
//! identity is accepted. All cryptography is the sigstore crates'; what they cannot be asked (a key's signature that is in no log)
//! is verified here with their primitives.

use schema::digest::Digest;
use sigstore_crypto::{KeyAlgorithm, SigningScheme, VerificationKey};
use sigstore_types::bundle::VerificationMaterialContent as Material;
use sigstore_types::{Artifact, HashAlgorithm, SignatureContent};
use sigstore_verify::{
    CertificateError, Error, PublicKeyVerificationPolicy, TimestampError, TransparencyLogError,
    VerificationPolicy, VerificationResult,
};

use super::accept::{Accept, Key, Log};
use super::bundle::Signed;
use super::report::{LogEntry, Proof, Reason, Refusal, Signer};
use crate::trust_root::{Root, TrustRoots};

/// # Errors
/// Why the signature is not one of an accepted signer.
pub(super) fn prove(
    signed: &Signed<'_>,
    accept: &Accept,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    match &signed.bundle.verification_material.content {
        Material::PublicKey(_) => keyed(signed, accept, roots, now),
        Material::Certificate(_) | Material::X509CertificateChain { .. } => {
            keyless(signed, accept, roots, now)
        }
        _ => Err(Refusal::new(
            Reason::Unsupported,
            "neither key nor certificate",
        )),
    }
}

// === keys ===

fn keyed(
    signed: &Signed<'_>,
    accept: &Accept,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    if accept.keys().is_empty() {
        return Err(Refusal::new(
            Reason::NotAccepted,
            "signed with a key, and no key is accepted",
        ));
    }
    let Some(key) = accept.keys().iter().find(|key| made_by(key, signed)) else {
        return Err(Refusal::new(
            Reason::WrongKey,
            "no accepted key made this signature over this content",
        ));
    };
    let logged = in_a_log(key, signed, roots, now);
    match (key.log(), logged) {
        (Log::NotDemanded, Err(_)) => Ok(Proof {
            signer: Signer::Key { id: key.id() },
            log: None,
            times: Vec::new(),
            root: None,
        }),
        (_, logged) => logged,
    }
}

/// Whether this key made the signature, by any scheme that is in use with keys of its kind.
fn made_by(key: &Key, signed: &Signed<'_>) -> bool {
    let schemes: &[SigningScheme] = match key.algorithm {
        KeyAlgorithm::EcdsaP256 => &[SigningScheme::EcdsaP256Sha256],
        KeyAlgorithm::EcdsaP384 => &[
            SigningScheme::EcdsaP384Sha384,
            SigningScheme::EcdsaP384Sha256,
        ],
        KeyAlgorithm::Ed25519 => &[SigningScheme::Ed25519],
        KeyAlgorithm::Rsa => &[SigningScheme::RsaPkcs1Sha256, SigningScheme::RsaPssSha256],
        _ => &[],
    };
    schemes.iter().any(|&scheme| {
        let Ok(verifier) = VerificationKey::from_spki_with_scheme(&key.der, scheme) else {
            return false;
        };
        match (&signed.bundle.content, &signed.over) {
            (SignatureContent::DsseEnvelope(envelope), _) => verifier
                .verify(envelope.pae(), &envelope.signature.sig)
                .is_ok(),
            (SignatureContent::MessageSignature(message), Artifact::Blob(content)) => {
                verifier.verify(content, &message.signature).is_ok()
            }
            (SignatureContent::MessageSignature(message), Artifact::Digest(digest)) => {
                scheme.hash_algorithm() == Some(digest.algorithm())
                    && digest.algorithm() == HashAlgorithm::Sha2256
                    && verifier
                        .verify_prehashed(digest.as_bytes(), &message.signature)
                        .is_ok()
            }
            _ => false,
        }
    })
}

fn in_a_log(
    key: &Key,
    signed: &Signed<'_>,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    if signed.bundle.verification_material.tlog_entries.is_empty() {
        return Err(Refusal::new(
            Reason::NoLog,
            "the key's signatures have to be in a transparency log, and this one is in none",
        ));
    }
    let policy = PublicKeyVerificationPolicy::new(key.der.clone());
    let mut refused = no_root();
    for root in roots.iter().filter(|root| root.logs) {
        match root
            .verifier
            .verify(signed.over.clone(), &signed.bundle, &policy)
        {
            Ok(result) => {
                let signer = Signer::Key { id: key.id() };
                return proof(signer, signed, &result, root, now);
            }
            Err(error) => refused = refused.or(Refusal::from(error), root),
        }
    }
    Err(refused)
}

// === certificates ===

fn keyless(
    signed: &Signed<'_>,
    accept: &Accept,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    if accept.identities().is_empty() {
        return Err(Refusal::new(
            Reason::NotAccepted,
            "signed by an identity, and no identity is accepted",
        ));
    }
    let mut refused = no_root();
    for root in roots.iter() {
        let mut policy = VerificationPolicy::any_identity();
        if !root.certificate_logs {
            policy = policy.skip_sct();
        }
        if !root.logs {
            policy = policy.skip_tlog_unsafe();
        }
        match root
            .verifier
            .verify(signed.over.clone(), &signed.bundle, &policy)
        {
            Ok(result) => return accepted(signed, accept, &result, root, now),
            Err(error) => refused = refused.or(Refusal::from(error), root),
        }
    }
    Err(refused)
}

/// The certificate and all that proves it hold: is it somebody who is accepted?
fn accepted(
    signed: &Signed<'_>,
    accept: &Accept,
    result: &VerificationResult,
    root: &Root,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    let whole = result.certificate_verified()
        && (result.sct_verified() || !root.certificate_logs)
        && (result.tlog_verified() || !root.logs)
        && !result.verified_timestamps().is_empty();
    let (true, Some(certificate)) = (whole, result.certificate()) else {
        return Err(Refusal::new(
            Reason::UntrustedCertificate,
            "not proven whole",
        ));
    };
    let (Some(subject), Some(issuer)) = (result.identity(), result.issuer()) else {
        return Err(Refusal::new(
            Reason::WrongIdentity,
            "the certificate names no address or URI, or no issuer",
        ));
    };
    let identities = accept.identities();
    if !identities
        .iter()
        .any(|identity| identity.issuer() == issuer && identity.subject().matches(subject))
    {
        let by_name = identities
            .iter()
            .any(|identity| identity.subject().matches(subject));
        let reason = if by_name {
            Reason::WrongIssuer
        } else {
            Reason::WrongIdentity
        };
        return Err(Refusal::new(
            reason,
            format!("{subject} by {issuer} is not accepted"),
        ));
    }
    let der = signed
        .bundle
        .signing_certificate()
        .map(|der| Digest::of(der.as_bytes()));
    let Some(der) = der else {
        return Err(Refusal::new(Reason::Malformed, "no certificate"));
    };
    let signer = Signer::Identity {
        subject: subject.to_string(),
        issuer: issuer.to_owned(),
        certificate: der,
        claims: Box::new(certificate.ci_claims.clone()),
    };
    proof(signer, signed, result, root, now)
}

// === both ===

fn proof(
    signer: Signer,
    signed: &Signed<'_>,
    result: &VerificationResult,
    root: &Root,
    now: jiff::Timestamp,
) -> Result<Proof, Refusal> {
    let times = result.verified_timestamps().to_vec();
    if let Some(late) = times.iter().find(|time| **time > now) {
        return Err(Refusal::new(
            Reason::Future,
            format!("signed at {late}, and now it is {now}"),
        ));
    }
    let entries = &signed.bundle.verification_material.tlog_entries;
    let log = entries
        .first()
        .filter(|_| result.tlog_verified())
        .map(|entry| LogEntry {
            log: entry.log_id.key_id.to_string(),
            index: entry.log_index.get(),
            integrated_time: result.integrated_time(),
        });
    Ok(Proof {
        signer,
        log,
        times,
        root: Some(root.name.clone()),
    })
}

fn no_root() -> Refusal {
    Refusal::new(Reason::NoRoot, "no trusted root to measure it against")
}

impl Refusal {
    /// What two roots refuse, as one: in the words of each, for the reason of the one that knew more of it.
    fn or(self, other: Self, root: &Root) -> Self {
        let known = |reason: Reason| match reason {
            Reason::NoRoot => 0,
            Reason::BadLog => 1,
            Reason::UntrustedCertificate => 2,
            _ => 3,
        };
        let detail = format!("{}: {}", root.name, other.detail);
        if self.reason == Reason::NoRoot {
            return Self::new(other.reason, detail);
        }
        let reason = if known(other.reason) > known(self.reason) {
            other.reason
        } else {
            self.reason
        };
        Self::new(reason, format!("{}; {detail}", self.detail))
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let reason = match &error {
            Error::IdentityMismatch { .. } => Reason::WrongIdentity,
            Error::IssuerMismatch { .. } => Reason::WrongIssuer,
            Error::SignatureInvalid(_) => Reason::BadSignature,
            Error::ArtifactMismatch(_) => Reason::WrongSubject,
            Error::UnsupportedArtifact(_) | Error::UnsupportedBundle(_) => Reason::Unsupported,
            Error::Certificate(error) => match error {
                CertificateError::NotYetValid { .. } | CertificateError::Expired { .. } => {
                    Reason::CertificateTime
                }
                CertificateError::Sct(_) => Reason::CertificateLog,
                CertificateError::Malformed(_) => Reason::Malformed,
                // The library knows it as this only in words.
                CertificateError::ChainInvalid(words)
                    if words.contains("CertExpired") || words.contains("CertNotValidYet") =>
                {
                    Reason::CertificateTime
                }
                _ => Reason::UntrustedCertificate,
            },
            Error::TransparencyLog(error) => match error {
                TransparencyLogError::MalformedEntry(_) => Reason::Malformed,
                _ => Reason::BadLog,
            },
            Error::Timestamp(error) => match error {
                TimestampError::NoVerifiedTimestamp(_) => Reason::NoTime,
                _ => Reason::BadTimestamp,
            },
            Error::Bundle(error) => match error {
                sigstore_bundle::Error::MissingInclusionPromise(_)
                | sigstore_bundle::Error::MissingInclusionProof(_) => Reason::NoLog,
                sigstore_bundle::Error::MissingSigningTimeEvidence => Reason::NoTime,
                sigstore_bundle::Error::MissingCheckpoint
                | sigstore_bundle::Error::LogIndexOutOfRange { .. }
                | sigstore_bundle::Error::CheckpointRootMismatch => Reason::BadLog,
                _ => Reason::Malformed,
            },
            _ => Reason::Malformed,
        };
        Self::new(reason, error.to_string())
    }
}
