//! What [`verify`](super::verify) says: for each piece of evidence who signed it, proven how, or why it was refused, in words and as
//! a stable code. `verify --json` prints it as it is.

use schema::digest::Digest;
use serde::Serialize;
use sigstore_crypto::FulcioCiClaims;

use crate::attestation::{Statement, is_provenance};

/// Every piece of evidence, in the order in which it was given.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub subject: String,
    /// At least one signature that counts was accepted.
    pub holds: bool,
    pub verdicts: Vec<Verdict>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// The digest of what the evidence came as.
    pub from: Digest,
    pub form: Form,
    /// What its signer says; nothing where it could not be read so far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meaning: Option<Meaning>,
    #[serde(flatten)]
    pub outcome: Outcome,
    #[serde(skip)]
    statement: Option<Statement>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    Bundle,
    Legacy,
    LegacyAttestation,
}

/// A signature says that its signer stands by the subject; an attestation says what its predicate says, which may be the opposite.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Meaning {
    Signature,
    Attestation(String),
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    Accepted(Proof),
    Refused(Refusal),
}

/// Who signed, and what proves it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    pub signer: Signer,
    /// The transparency log's entry, where one was verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogEntry>,
    /// Every time that was proven: by the log's promise, by signed timestamps.
    pub times: Vec<jiff::Timestamp>,
    /// Which trusted root it was measured against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Signer {
    /// The digest of the key's SubjectPublicKeyInfo.
    #[serde(rename_all = "camelCase")]
    Key { id: Digest },
    #[serde(rename_all = "camelCase")]
    Identity {
        subject: String,
        issuer: String,
        certificate: Digest,
        /// What the certificate says of the build that it was made for.
        #[serde(skip)]
        claims: Box<FulcioCiClaims>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    pub log: String,
    pub index: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub integrated_time: Option<jiff::Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub reason: Reason,
    pub detail: String,
}

/// Why; stable, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Beyond a bound: bytes, depth, values, entries.
    TooLarge,
    /// More evidence than is looked at.
    TooMany,
    Malformed,
    /// Well formed, of a kind that is not verified here.
    Unsupported,
    /// It is about something else.
    WrongSubject,
    /// No key that is accepted made this signature, or it was changed.
    WrongKey,
    /// Signed with a key where identities alone are accepted, or the other way round.
    NotAccepted,
    /// The certificate's own key did not make this signature.
    BadSignature,
    WrongIdentity,
    WrongIssuer,
    /// No trusted authority issued the certificate, or not for signing.
    UntrustedCertificate,
    /// The certificate was not valid at a time that was proven.
    CertificateTime,
    /// No proof of the certificate's own publication, or a wrong one.
    CertificateLog,
    /// A log's entry is demanded, and there is none.
    NoLog,
    /// The log's proof, promise or checkpoint does not hold, or is about something else.
    BadLog,
    /// Nothing proves when it was signed.
    NoTime,
    BadTimestamp,
    /// It was signed later than now.
    Future,
    /// There is no trusted root to measure it against.
    NoRoot,
}

/// A statement that was accepted, and by whom it was made.
#[derive(Clone, Copy, Debug)]
pub struct Attested<'a> {
    pub statement: &'a Statement,
    pub proof: &'a Proof,
    pub from: Digest,
}

// === impl Report ===

impl Report {
    pub(crate) fn new(subject: String, verdicts: Vec<Verdict>) -> Self {
        Self {
            subject,
            holds: verdicts.iter().any(Verdict::counts),
            verdicts,
        }
    }

    /// Those that were accepted and count as signatures of the subject.
    pub fn signatures(&self) -> impl Iterator<Item = (&Verdict, &Proof)> {
        self.verdicts
            .iter()
            .filter(|verdict| verdict.counts())
            .filter_map(|verdict| verdict.proof().map(|proof| (verdict, proof)))
    }

    pub fn refused(&self) -> impl Iterator<Item = (&Verdict, &Refusal)> {
        self.verdicts
            .iter()
            .filter_map(|verdict| match &verdict.outcome {
                Outcome::Refused(refusal) => Some((verdict, refusal)),
                Outcome::Accepted(_) => None,
            })
    }

    /// Every statement that was accepted.
    pub fn attestations(&self) -> impl Iterator<Item = Attested<'_>> {
        self.verdicts.iter().filter_map(|verdict| {
            Some(Attested {
                statement: verdict.statement.as_ref()?,
                proof: verdict.proof()?,
                from: verdict.from,
            })
        })
    }
}

// === impl Verdict ===

impl Verdict {
    pub(crate) fn new(
        from: Digest,
        form: Form,
        meaning: Option<Meaning>,
        outcome: Outcome,
        statement: Option<Statement>,
    ) -> Self {
        Self {
            from,
            form,
            meaning,
            outcome,
            statement,
        }
    }

    pub fn proof(&self) -> Option<&Proof> {
        match &self.outcome {
            Outcome::Accepted(proof) => Some(proof),
            Outcome::Refused(_) => None,
        }
    }

    /// Accepted, and its signer stands by the subject: a signature, or a builder's own word that it built this.
    pub fn counts(&self) -> bool {
        self.proof().is_some()
            && match &self.meaning {
                Some(Meaning::Signature) => true,
                Some(Meaning::Attestation(predicate)) => is_provenance(predicate),
                None => false,
            }
    }
}

// === impl Refusal ===

impl Refusal {
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: schema::diag::escape(&detail.into()),
        }
    }
}
