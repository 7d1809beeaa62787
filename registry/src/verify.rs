//! One pin, verified: what it names still is what was locked, and who stands by it. `verify` prints the checks; `run` demands that
//! they hold where host, organisation or workspace requires it. The same code for both.

use jiff::Timestamp;
use schema::digest::Digest;
use schema::lockfile::Pin;
use serde::Serialize;
use serde_json::{Value, json};

use crate::client::{Client, Repository};
use crate::error::RegistryError;
use crate::evidence::Told;
use crate::signature::{self, Accept, Evidence, Subject};
use crate::trust_root::TrustRoots;

/// What has to hold.
#[derive(Clone, Debug, Default)]
pub struct Requirement {
    /// Who may have signed; `None` where nobody was named, and then no signature is judged.
    pub signers: Option<Accept>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Holds,
    /// Nobody requires it.
    NotRequired,
    /// Nobody could be asked.
    Unasked,
    Fails,
}

/// One check of one pin, with its evidence.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub check: &'static str,
    pub verdict: Verdict,
    /// For people.
    pub detail: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    pub evidence: Value,
}

/// A pin with its checks.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    pub name: String,
    pub reference: String,
    pub digest: Digest,
    pub checks: Vec<Check>,
}

/// What signatures and attestations are measured with, and what was brought along for them.
#[derive(Debug)]
pub struct Means<'a> {
    pub roots: &'a TrustRoots,
    /// Bundles from files, tried for every pin beside what its registry has.
    pub bundles: &'a [Vec<u8>],
    pub now: Timestamp,
}

// === impl Checked ===

impl Checked {
    /// The worst of the checks.
    pub fn verdict(&self) -> Verdict {
        let checks = self.checks.iter().map(|check| check.verdict);
        checks
            .filter(|verdict| *verdict != Verdict::NotRequired)
            .max()
            .unwrap_or(Verdict::Holds)
    }
}

impl Check {
    fn new(check: &'static str, verdict: Verdict, detail: impl Into<String>) -> Self {
        Self {
            check,
            verdict,
            detail: detail.into(),
            evidence: Value::Null,
        }
    }

    fn of_error(check: &'static str, error: &RegistryError) -> Self {
        let verdict = if error.is_unasked() {
            Verdict::Unasked
        } else {
            Verdict::Fails
        };
        Self::new(check, verdict, error.to_string()).with(json!({ "code": error.code() }))
    }

    fn with(self, evidence: Value) -> Self {
        Self { evidence, ..self }
    }
}

impl Client {
    /// Every check of one pin.
    pub async fn verify(
        &self,
        name: &str,
        pin: &Pin,
        requirement: &Requirement,
        means: &Means<'_>,
    ) -> Checked {
        let checks = if pin.local {
            local(requirement)
        } else {
            let (digest, signature) = futures_util::join!(
                self.check_digest(pin),
                self.check_signatures(pin, requirement, means)
            );
            vec![digest, signature]
        };
        Checked {
            name: name.to_owned(),
            reference: pin.reference.as_str().to_owned(),
            digest: pin.digest,
            checks,
        }
    }

    /// What the digest names is there, hashes to it, and has the manifests that were locked.
    async fn check_digest(&self, pin: &Pin) -> Check {
        const CHECK: &str = "digest";
        let repository = Repository::of(&pin.reference);
        let found = match self.resolve_pin(&repository, &pin.digest).await {
            Ok(found) => found,
            Err(error) => return Check::of_error(CHECK, &error),
        };
        if found.platforms != pin.platforms || found.media_type != pin.media_type {
            return Check::new(
                CHECK,
                Verdict::Fails,
                format!(
                    "the lockfile says of {} what it does not say itself",
                    pin.digest
                ),
            )
            .with(json!({ "locked": pin.platforms, "found": found.platforms }));
        }
        Check::new(
            CHECK,
            Verdict::Holds,
            match found.platforms.len() {
                0 | 1 => "content has the digest that was locked".to_owned(),
                n => format!("index has the digest that was locked, and its {n} platforms"),
            },
        )
    }

    async fn check_signatures(
        &self,
        pin: &Pin,
        requirement: &Requirement,
        means: &Means<'_>,
    ) -> Check {
        const CHECK: &str = "signature";
        let Some(signers) = &requirement.signers else {
            return Check::new(
                CHECK,
                Verdict::NotRequired,
                "nobody was named who has to have signed",
            );
        };
        let mut evidence: Vec<Evidence> = means
            .bundles
            .iter()
            .map(|bytes| Evidence::Bundle {
                bytes: bytes.clone(),
                from: Digest::of(bytes),
            })
            .collect();
        let repository = Repository::of(&pin.reference);
        let gathered = self.evidence(&repository, &pin.digest).await;
        let (told, unasked) = match gathered {
            Ok(gathered) => {
                evidence.extend(gathered.evidence);
                (Some(gathered.referrers), None)
            }
            Err(error) => (None, Some(error)),
        };
        let subject = Subject::from(&pin.digest);
        let report = signature::verify(&subject, &evidence, signers, means.roots, means.now);
        let shown = json!({ "report": report, "referrers": told });
        if let Some((_, proof)) = report.signatures().next() {
            let refused = report.refused().count();
            let beside = match refused {
                0 => String::new(),
                1 => "; 1 other was refused".to_owned(),
                n => format!("; {n} others were refused"),
            };
            return Check::new(
                CHECK,
                Verdict::Holds,
                format!("signed by {}{beside}", signer(&proof.signer)),
            )
            .with(shown);
        }
        if let Some(error) = unasked {
            return Check::of_error(CHECK, &error);
        }
        let why = match report.refused().next() {
            Some((_, refusal)) => format!(
                "none of {} signatures is of a signer that is accepted: {}",
                report.verdicts.len(),
                refusal.detail
            ),
            None if told == Some(Told::NoIndex) => {
                "no signature was found, and the registry keeps no index of what refers to it"
                    .to_owned()
            }
            None => "it is not signed".to_owned(),
        };
        Check::new(CHECK, Verdict::Fails, why).with(shown)
    }
}

fn local(requirement: &Requirement) -> Vec<Check> {
    let digest = Check::new(
        "digest",
        Verdict::NotRequired,
        "only one engine has it; `run` compares its id there",
    );
    let signature = match requirement.signers {
        Some(_) => Check::new(
            "signature",
            Verdict::Fails,
            "only one engine has it, and nobody can have signed it",
        ),
        None => Check::new(
            "signature",
            Verdict::NotRequired,
            "nobody was named who has to have signed",
        ),
    };
    vec![digest, signature]
}

/// A signer in words.
pub fn signer(signer: &signature::Signer) -> String {
    match signer {
        signature::Signer::Key { id } => format!("the key {id}"),
        signature::Signer::Identity {
            subject, issuer, ..
        } => format!("{subject} (by {issuer})"),
    }
}
