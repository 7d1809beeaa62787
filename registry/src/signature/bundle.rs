//! A Sigstore bundle, read within bounds: what was signed, what it says, and that it is about this subject. Whether the signature
//! holds is [`super::proof`]'s to say.

use sigstore_types::{Artifact, Bundle, SignatureContent};

use super::json;
use super::report::{Meaning, Reason, Refusal};
use super::{COSIGN_SIGN, Subject};
use crate::attestation::{PAYLOAD_TYPE, Statement, StatementError};

/// The longest bundle: a statement of the longest kind in Base64, and its proofs.
pub const BUNDLE_BYTES: usize = 17 << 20;
pub const LOG_ENTRIES: usize = 8;
pub const TIMESTAMPS: usize = 8;
/// The most certificates of a chain.
pub const AUTHORITIES: usize = 8;
/// The most hashes of an inclusion proof: a log has at most 2⁶³ entries.
pub const PROOF_HASHES: usize = 64;

/// A signature that was read and is about the subject; nobody has verified it yet.
pub(super) struct Signed<'a> {
    pub bundle: Bundle,
    /// What a message's signature is over, and what the library is asked about.
    pub over: Artifact<'a>,
    pub meaning: Meaning,
    pub statement: Option<Statement>,
}

/// # Errors
/// [`Refusal`]: beyond a bound, malformed, of an unknown kind, about something else.
pub(super) fn read<'a>(bytes: &[u8], subject: &Subject<'a>) -> Result<Signed<'a>, Refusal> {
    json::bounded(bytes, BUNDLE_BYTES).map_err(Refusal::from)?;
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Refusal::new(Reason::Malformed, "the bundle is not UTF-8"))?;
    let bundle = Bundle::from_json(text)
        .map_err(|error| Refusal::new(Reason::Malformed, format!("no bundle: {error}")))?;
    signed(bundle, subject)
}

/// The rest of [`read`], for what cosign spells in another way too.
pub(super) fn signed<'a>(bundle: Bundle, subject: &Subject<'a>) -> Result<Signed<'a>, Refusal> {
    counted(&bundle)?;
    let over = subject
        .artifact()
        .ok_or_else(|| Refusal::new(Reason::WrongSubject, "the subject has no digest"))?;
    let (meaning, statement) = match &bundle.content {
        SignatureContent::MessageSignature(message) => {
            if let Some(named) = &message.message_digest {
                names(named, subject)?;
            }
            (Meaning::Signature, None)
        }
        SignatureContent::DsseEnvelope(envelope) => {
            if envelope.payload_type != PAYLOAD_TYPE {
                return Err(Refusal::new(
                    Reason::Unsupported,
                    format!("an envelope of {:?}", envelope.payload_type),
                ));
            }
            let statement = Statement::parse(envelope.payload.as_bytes())?;
            if !statement.names(subject) {
                return Err(Refusal::new(
                    Reason::WrongSubject,
                    format!("the statement names other subjects than {subject}"),
                ));
            }
            let meaning = match statement.predicate_type() {
                COSIGN_SIGN => Meaning::Signature,
                other => Meaning::Attestation(other.to_owned()),
            };
            (meaning, Some(statement))
        }
        _ => {
            return Err(Refusal::new(
                Reason::Unsupported,
                "neither a message's signature nor an envelope",
            ));
        }
    };
    Ok(Signed {
        bundle,
        over,
        meaning,
        statement,
    })
}

/// A message digest, where the bundle repeats it, is the subject's.
fn names(
    named: &sigstore_types::bundle::MessageDigest,
    subject: &Subject<'_>,
) -> Result<(), Refusal> {
    use sigstore_types::HashAlgorithm;
    let (same, known) = match named.algorithm {
        HashAlgorithm::Sha2256 => (
            subject.sha256.as_ref().map(<[u8; 32]>::as_slice) == Some(named.digest.as_bytes()),
            subject.sha256.is_some(),
        ),
        HashAlgorithm::Sha2512 => (
            subject.sha512.as_ref().map(<[u8; 64]>::as_slice) == Some(named.digest.as_bytes()),
            subject.sha512.is_some(),
        ),
        // The library computes others from the content, where there is any.
        _ => return Ok(()),
    };
    match (same, known) {
        (true, _) => Ok(()),
        (false, true) => Err(Refusal::new(
            Reason::WrongSubject,
            format!("it signs another digest than {subject}"),
        )),
        (false, false) => Err(Refusal::new(
            Reason::Unsupported,
            format!("it signs a digest of another kind than {subject}"),
        )),
    }
}

pub(super) fn counted(bundle: &Bundle) -> Result<(), Refusal> {
    use sigstore_types::bundle::VerificationMaterialContent as Material;
    let material = &bundle.verification_material;
    let certificates = match &material.content {
        Material::X509CertificateChain { certificates } => certificates.len(),
        _ => 1,
    };
    let hashes = material
        .tlog_entries
        .iter()
        .filter_map(|entry| entry.inclusion_proof.as_ref())
        .map(|proof| proof.hashes.len())
        .max()
        .unwrap_or(0);
    let timestamps = material
        .timestamp_verification_data
        .rfc3161_timestamps
        .len();
    for (what, count, most) in [
        ("log entries", material.tlog_entries.len(), LOG_ENTRIES),
        ("timestamps", timestamps, TIMESTAMPS),
        ("certificates", certificates, AUTHORITIES),
        ("hashes in an inclusion proof", hashes, PROOF_HASHES),
    ] {
        if count > most {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!("more than {most} {what}"),
            ));
        }
    }
    Ok(())
}

impl From<json::Unbounded> for Refusal {
    fn from(unbounded: json::Unbounded) -> Self {
        Self::new(Reason::TooLarge, unbounded.to_string())
    }
}

impl From<StatementError> for Refusal {
    fn from(error: StatementError) -> Self {
        let reason = match &error {
            StatementError::Unbounded(_) | StatementError::Subjects => Reason::TooLarge,
            StatementError::Version(_) => Reason::Unsupported,
            _ => Reason::Malformed,
        };
        Self::new(reason, error.to_string())
    }
}
