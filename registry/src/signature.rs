//! The verdict on signatures: bytes in, verdict out, no network and no clock. `cli` gathers the evidence that lies beside a subject
//! and calls [`verify`] for `verify`, for `run` where a signature is required, and for policies before a byte is believed.

mod accept;
mod bundle;
pub mod json;
mod legacy;
mod proof;
mod report;

use schema::digest::Digest;
use sha2::Digest as _;
use sigstore_types::{ArtifactDigest, HashAlgorithm};

pub use accept::{
    Accept, AcceptError, Identity, KEY_BYTES, Key, Log, NAME_BYTES, Pattern, SIGNERS,
};
pub use bundle::{AUTHORITIES, BUNDLE_BYTES, LOG_ENTRIES, PROOF_HASHES, TIMESTAMPS};
pub use legacy::{ANNOTATION_BYTES, Annotations, PAYLOAD_BYTES};
pub use report::{
    Attested, Form, LogEntry, Meaning, Outcome, Proof, Reason, Refusal, Report, Signer, Verdict,
};

use crate::attestation::Statement;
use crate::trust_root::TrustRoots;

/// The most pieces of evidence that are looked at beside one subject; those beyond are refused, unread.
pub const EVIDENCE: usize = 256;

/// The predicate of a statement that says no more than that its signer signs the subject: cosign's signature as a bundle.
pub const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// What signatures have to be about.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    sha256: Option<[u8; 32]>,
    sha512: Option<[u8; 64]>,
    content: Option<&'a [u8]>,
}

/// One thing found beside a subject; `from` is the digest of the blob or manifest that it came as.
#[derive(Clone, Debug)]
pub enum Evidence {
    /// A Sigstore bundle, v0.1 to v0.3: a referrer's blob, or a file.
    Bundle { bytes: Vec<u8>, from: Digest },
    /// A layer of cosign's tag `sha256-<hex>.sig`, with its annotations.
    Legacy {
        payload: Vec<u8>,
        annotations: Annotations,
        from: Digest,
    },
    /// A layer of cosign's tag `sha256-<hex>.att`, with its annotations.
    LegacyAttestation {
        envelope: Vec<u8>,
        annotations: Annotations,
        from: Digest,
    },
}

/// A verdict for each piece of evidence, and whether one that counts was accepted. Times are held against `now`.
pub fn verify(
    subject: &Subject<'_>,
    evidence: &[Evidence],
    accept: &Accept,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> Report {
    let verdicts = evidence
        .iter()
        .enumerate()
        .map(|(at, one)| {
            let (form, meaning, outcome) = if at < EVIDENCE {
                judge(subject, one, accept, roots, now)
            } else {
                let refusal = Refusal::new(
                    Reason::TooMany,
                    format!("beside {EVIDENCE} others, which is the most"),
                );
                (one.form(), None, Err(refusal))
            };
            let (outcome, statement) = match outcome {
                Ok((proof, statement)) => (Outcome::Accepted(proof), statement),
                Err(refusal) => (Outcome::Refused(refusal), None),
            };
            Verdict::new(one.from(), form, meaning, outcome, statement)
        })
        .collect();
    Report::new(subject.to_string(), verdicts)
}

type Judged = Result<(Proof, Option<Statement>), Refusal>;

fn judge(
    subject: &Subject<'_>,
    evidence: &Evidence,
    accept: &Accept,
    roots: &TrustRoots,
    now: jiff::Timestamp,
) -> (Form, Option<Meaning>, Judged) {
    let form = evidence.form();
    let read = match evidence {
        Evidence::Bundle { bytes, .. } => bundle::read(bytes, subject),
        Evidence::Legacy {
            payload,
            annotations,
            ..
        } => legacy::signature(payload, annotations, subject),
        Evidence::LegacyAttestation {
            envelope,
            annotations,
            ..
        } => legacy::attestation(envelope, annotations, subject),
    };
    let signed = match read {
        Ok(signed) => signed,
        Err(refusal) => return (form, None, Err(refusal)),
    };
    let meaning = signed.meaning.clone();
    let outcome = proof::prove(&signed, accept, roots, now).map(|proof| (proof, signed.statement));
    (form, Some(meaning), outcome)
}

// === impl Subject ===

impl<'a> Subject<'a> {
    /// Content that is at hand: all its digests, and signatures that are over the content itself (Ed25519).
    pub fn of_content(content: &'a [u8]) -> Self {
        Self {
            sha256: Some(sha2::Sha256::digest(content).into()),
            sha512: Some(sha2::Sha512::digest(content).into()),
            content: Some(content),
        }
    }

    /// What npm's registry knows its packages by.
    pub fn of_sha512(digest: [u8; 64]) -> Self {
        Self {
            sha256: None,
            sha512: Some(digest),
            content: None,
        }
    }

    pub fn sha256_hex(&self) -> Option<String> {
        self.sha256.map(|bytes| Digest::from_bytes(bytes).hex())
    }

    pub fn sha512_hex(&self) -> Option<String> {
        use std::fmt::Write as _;
        self.sha512.map(|bytes| {
            bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        })
    }

    /// The strongest thing the library can be given.
    fn artifact(&self) -> Option<sigstore_types::Artifact<'a>> {
        if let Some(content) = self.content {
            return Some(sigstore_types::Artifact::from_blob(content));
        }
        let digest = match (self.sha256, self.sha512) {
            (Some(sha256), _) => ArtifactDigest::new(HashAlgorithm::Sha2256, sha256.to_vec()),
            (None, Some(sha512)) => ArtifactDigest::new(HashAlgorithm::Sha2512, sha512.to_vec()),
            (None, None) => return None,
        };
        digest.ok().map(sigstore_types::Artifact::from_digest)
    }
}

impl From<&Digest> for Subject<'_> {
    fn from(digest: &Digest) -> Self {
        Self {
            sha256: Some(*digest.as_bytes()),
            sha512: None,
            content: None,
        }
    }
}

impl std::fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.sha256_hex(), self.sha512_hex()) {
            (Some(hex), _) => write!(f, "sha256:{hex}"),
            (None, Some(hex)) => write!(f, "sha512:{hex}"),
            (None, None) => f.write_str("nothing"),
        }
    }
}

// === impl Evidence ===

impl Evidence {
    pub fn from(&self) -> Digest {
        match self {
            Self::Bundle { from, .. }
            | Self::Legacy { from, .. }
            | Self::LegacyAttestation { from, .. } => *from,
        }
    }

    fn form(&self) -> Form {
        match self {
            Self::Bundle { .. } => Form::Bundle,
            Self::Legacy { .. } => Form::Legacy,
            Self::LegacyAttestation { .. } => Form::LegacyAttestation,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
