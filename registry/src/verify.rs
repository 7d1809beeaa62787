//! One pin, verified: what it names still is what was locked, and who stands by it. `verify` prints the checks; `run` demands that
//! they hold where host, organisation or workspace requires it. The same code for both.

use jiff::{SignedDuration, Timestamp};
use schema::digest::Digest;
use schema::lockfile::{self, Pin, Slsa, Verified};
use serde::Serialize;
use serde_json::{Value, json};

use crate::attestation::provenance;
use crate::client::{Client, Repository};
use crate::error::RegistryError;
use crate::evidence::{Gathered, MAX_INVENTORY_BYTES, Told};
use crate::sbom::{Ban, Inventory, inventories};
use crate::signature::{self, Accept, Evidence, Report, Subject};
use crate::trust_root::TrustRoots;

/// What has to hold of one pin.
#[derive(Clone, Debug, Default)]
pub struct Requirement {
    /// Each has to hold; without any, no signature is judged.
    pub rules: Vec<Rule>,
    /// Who says that it has to be signed by somebody whom a rule names.
    pub signed: Option<String>,
    /// The least level of SLSA's build track, and who says so.
    pub slsa_level: Option<(u8, String)>,
    /// Who says that an inventory has to be there.
    pub sbom: Option<String>,
    /// Packages that may not be in it.
    pub bans: Vec<Ban>,
    /// How old the pin may be, and who says so.
    pub age: Option<(SignedDuration, String)>,
}

/// Who may have signed, and who says so.
#[derive(Clone, Debug)]
pub struct Rule {
    pub accept: Accept,
    pub said: String,
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
    /// Who vouched for it, where somebody who was required to did: what a lockfile keeps.
    #[serde(skip)]
    pub verified: Option<Verified>,
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
    /// The worst of the checks that were made.
    pub fn verdict(&self) -> Verdict {
        let checks = self.checks.iter().map(|check| check.verdict);
        checks
            .filter(|verdict| *verdict != Verdict::NotRequired)
            .max()
            .unwrap_or(Verdict::Unasked)
    }

    /// Whether anybody's signature was judged.
    pub fn is_judged(&self) -> bool {
        let mut checks = self.checks.iter();
        checks.any(|check| check.check == "signature" && check.verdict != Verdict::NotRequired)
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

/// What lies beside a pin, as far as it could be had.
struct Beside {
    evidence: Vec<Evidence>,
    gathered: Result<Gathered, RegistryError>,
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
        let mut verified = None;
        let mut checks = if pin.local {
            local(requirement)
        } else if requirement.needs_evidence() {
            let repository = Repository::of(&pin.reference);
            let (digest, gathered) = futures_util::join!(
                self.check_digest(pin),
                self.evidence(&repository, &pin.digest)
            );
            let mut checks = vec![digest];
            let judged;
            (judged, verified) = self
                .check_evidence(&repository, pin, requirement, means, gathered)
                .await;
            checks.extend(judged);
            checks
        } else {
            vec![self.check_digest(pin).await, unnamed()]
        };
        checks.extend(requirement.age.as_ref().map(|age| old(pin, age, means.now)));
        Checked {
            name: name.to_owned(),
            reference: pin.reference.as_str().to_owned(),
            digest: pin.digest,
            checks,
            verified,
        }
    }

    async fn check_evidence(
        &self,
        repository: &Repository,
        pin: &Pin,
        requirement: &Requirement,
        means: &Means<'_>,
        gathered: Result<Gathered, RegistryError>,
    ) -> (Vec<Check>, Option<Verified>) {
        let brought = means.bundles.iter().map(|bytes| Evidence::Bundle {
            bytes: bytes.clone(),
            from: Digest::of(bytes),
        });
        let mut evidence: Vec<Evidence> = brought.collect();
        if let Ok(gathered) = &gathered {
            evidence.extend(gathered.evidence.iter().cloned());
        }
        let beside = Beside { evidence, gathered };
        let subject = Subject::from(&pin.digest);
        let judge = |accept: &Accept| {
            signature::verify(&subject, &beside.evidence, accept, means.roots, means.now)
        };
        let reports: Vec<(&Rule, Report)> = requirement
            .rules
            .iter()
            .map(|rule| (rule, judge(&rule.accept)))
            .collect();
        let mut checks: Vec<Check> = reports
            .iter()
            .map(|(rule, report)| beside.signature(rule, report))
            .collect();
        if let (Some(said), []) = (&requirement.signed, requirement.rules.as_slice()) {
            checks.push(
                Check::new(
                    "signature",
                    Verdict::Fails,
                    format!("{said} requires a signature, and no policy names who may sign this"),
                )
                .with(json!({ "required": said })),
            );
        }
        if let Some((level, said)) = &requirement.slsa_level {
            checks.push(beside.provenance(&reports, *level, said));
        }
        if requirement.sbom.is_some() || !requirement.bans.is_empty() {
            checks.push(
                self.check_inventory(repository, &beside, &reports, requirement)
                    .await,
            );
        }
        (checks, vouched(&reports))
    }

    async fn check_inventory(
        &self,
        repository: &Repository,
        beside: &Beside,
        reports: &[(&Rule, Report)],
        requirement: &Requirement,
    ) -> Check {
        const CHECK: &str = "inventory";
        let gathered = match &beside.gathered {
            Ok(gathered) => gathered,
            Err(error) => return Check::of_error(CHECK, error),
        };
        let missed = beside.missed();
        let mut found: Vec<Inventory> = Vec::new();
        let mut damaged = Vec::new();
        for (_, report) in reports {
            let of_report = inventories(report);
            damaged.extend(
                of_report
                    .refused
                    .iter()
                    .map(|(from, e)| format!("{from}: {e}")),
            );
            for inventory in of_report.inventories {
                if !found.iter().any(|known| known.from == inventory.from) {
                    found.push(inventory);
                }
            }
        }
        // Where signers are named, what nobody signed says nothing.
        if reports.is_empty() {
            for (_, _, blob) in &gathered.inventories {
                match self.blob(repository, blob, MAX_INVENTORY_BYTES).await {
                    Ok(bytes) => match Inventory::parse(&bytes, *blob) {
                        Ok(inventory) => found.push(inventory),
                        Err(error) => damaged.push(format!("{blob}: {error}")),
                    },
                    Err(error) => return Check::of_error(CHECK, &error),
                }
            }
        }
        // That something is not there is only known where everything was looked at.
        if (!requirement.bans.is_empty() || found.is_empty())
            && let Some(error) = missed
        {
            return Check::of_error(CHECK, error);
        }
        if let (false, Some(why)) = (requirement.bans.is_empty(), damaged.first()) {
            let detail = format!("an inventory cannot be read, and may list what is banned: {why}");
            return Check::new(CHECK, Verdict::Fails, detail).with(json!({ "damaged": damaged }));
        }
        if found.is_empty() {
            let why = match damaged.first() {
                Some(why) => format!("no inventory can be read: {why}"),
                None if reports.is_empty() => "it has no inventory of its packages".to_owned(),
                None => "it has no inventory of its packages that an accepted signer attested"
                    .to_owned(),
            };
            let shown = json!({ "damaged": damaged, "referrers": gathered.referrers });
            return Check::new(CHECK, Verdict::Fails, why).with(shown);
        }
        let packages: usize = found.iter().map(|inventory| inventory.packages.len()).sum();
        let searched: Vec<_> = found.iter().map(|i| i.search(&requirement.bans)).collect();
        let shown = json!({
            "inventories": found.iter().map(|i| json!({
                "from": i.from, "format": i.format, "version": i.version, "signed": i.signed, "packages": i.packages.len(),
            })).collect::<Vec<_>>(),
            "searched": searched,
        });
        if let Some(bad) = searched.iter().find(|searched| !searched.holds()) {
            let first = bad.banned.first().or(bad.undecided.first());
            let why = first.map_or_else(
                || "more is banned than can be listed".to_owned(),
                |finding| format!("{} ({}): {}", finding.package, finding.ban, finding.why),
            );
            return Check::new(CHECK, Verdict::Fails, why).with(shown);
        }
        let detail = match requirement.bans.len() {
            0 => format!("{packages} packages are listed"),
            bans => format!("{packages} packages are listed, none of {bans} banned among them"),
        };
        Check::new(CHECK, Verdict::Holds, detail).with(shown)
    }

    /// What the digest names is there, hashes to it, and has the manifests that were locked.
    /// Layers are not read: who pulls them hashes them.
    async fn check_digest(&self, pin: &Pin) -> Check {
        const CHECK: &str = "digest";
        match self.hold(pin).await {
            Ok(platforms) => Check::new(
                CHECK,
                Verdict::Holds,
                match platforms {
                    0 | 1 => "manifest has the digest that was locked".to_owned(),
                    n => format!("index has the digest that was locked, and its {n} platforms"),
                },
            )
            .with(json!({ "mediaType": pin.media_type, "platforms": pin.platforms })),
            Err(error) => Check::of_error(CHECK, &error),
        }
    }

    /// Holds what a lockfile says of a digest to what that says itself: how many platforms there are. A lockfile is a stranger's, and
    /// what an engine is compared with is the manifest of a platform.
    ///
    /// # Errors
    /// [`RegistryError::Malformed`] where it is something else; any other where it cannot be had.
    pub async fn hold(&self, pin: &Pin) -> Result<usize, RegistryError> {
        let repository = Repository::of(&pin.reference);
        let found = self.resolve_pin(&repository, &pin.digest).await?;
        if found.platforms != pin.platforms || found.media_type != pin.media_type {
            return Err(RegistryError::Malformed {
                what: pin.reference.as_str().to_owned(),
                why: format!(
                    "the lockfile says of {} what it does not say itself",
                    pin.digest
                ),
            });
        }
        Ok(found.platforms.len())
    }
}

impl Beside {
    /// Why what was found may not be all there is.
    fn missed(&self) -> Option<&RegistryError> {
        match &self.gathered {
            Ok(gathered) => gathered.missed.first(),
            Err(error) => Some(error),
        }
    }

    fn signature(&self, rule: &Rule, report: &Report) -> Check {
        const CHECK: &str = "signature";
        let told = self
            .gathered
            .as_ref()
            .ok()
            .map(|gathered| gathered.referrers);
        let shown = json!({ "required": rule.said, "report": report, "referrers": told });
        if let Some((_, proof)) = report.signatures().next() {
            let beside = match report.refused().count() {
                0 => String::new(),
                1 => "; 1 other was refused".to_owned(),
                n => format!("; {n} others were refused"),
            };
            let detail = format!("signed by {}{beside}", signer(&proof.signer));
            return Check::new(CHECK, Verdict::Holds, detail).with(shown);
        }
        if let Some(error) = self.missed() {
            return Check::of_error(CHECK, error);
        }
        let why = match report.refused().next() {
            Some((_, refusal)) => format!(
                "of what lies beside it ({}) nothing is signed by who has to have: {}",
                report.verdicts.len(),
                refusal.detail
            ),
            None if told == Some(Told::NoIndex) => {
                "no signature was found, and the registry keeps no index of what refers to it"
                    .to_owned()
            }
            None => "it is not signed".to_owned(),
        };
        Check::new(CHECK, Verdict::Fails, format!("{why} ({})", rule.said)).with(shown)
    }

    fn provenance(&self, reports: &[(&Rule, Report)], level: u8, said: &str) -> Check {
        const CHECK: &str = "provenance";
        let all = reports.iter().map(|(_, report)| provenance(report));
        let best = all.max_by_key(|found| found.best.as_ref().map(|best| best.level));
        match (best, self.missed()) {
            (Some(found), _) if found.reaches(level) => {
                let detail = found.best.as_ref().map_or_else(String::new, |best| {
                    format!("SLSA level {} by {}", best.level, best.builder)
                });
                Check::new(CHECK, Verdict::Holds, detail).with(json!(found))
            }
            (_, Some(error)) => Check::of_error(CHECK, error),
            (None, _) => Check::new(
                CHECK,
                Verdict::Fails,
                format!(
                    "{said} requires SLSA level {level}, and no policy names whose word would count"
                ),
            )
            .with(json!({ "required": said })),
            (Some(found), _) => {
                let why = match &found.best {
                    Some(best) => format!("its provenance is of level {}", best.level),
                    None => "it has no provenance that holds".to_owned(),
                };
                Check::new(
                    CHECK,
                    Verdict::Fails,
                    format!("{why}, and {said} requires {level}"),
                )
                .with(json!(found))
            }
        }
    }
}

impl Requirement {
    fn needs_evidence(&self) -> bool {
        !self.rules.is_empty()
            || self.signed.is_some()
            || self.slsa_level.is_some()
            || self.sbom.is_some()
            || !self.bans.is_empty()
    }
}

/// What a lockfile keeps of the first rule that holds.
fn vouched(reports: &[(&Rule, Report)]) -> Option<Verified> {
    let (report, (verdict, proof)) = reports
        .iter()
        .find_map(|(_, report)| Some((report, report.signatures().next()?)))?;
    let best = provenance(report).best;
    Some(Verified {
        signer: match &proof.signer {
            signature::Signer::Key { id } => lockfile::Signer::Key(*id),
            signature::Signer::Identity {
                subject, issuer, ..
            } => lockfile::Signer::Identity {
                issuer: issuer.clone(),
                subject: subject.clone(),
            },
        },
        bundle: verdict.from,
        slsa: best.map(|best| Slsa {
            level: best.level,
            builder: best.builder,
        }),
        sbom: inventories(report).inventories.first().map(|one| one.from),
    })
}

fn old(pin: &Pin, (limit, said): &(SignedDuration, String), now: Timestamp) -> Check {
    let age = now.duration_since(pin.resolved);
    let days = |duration: &SignedDuration| {
        format!(
            "{} d {} h",
            duration.as_hours() / 24,
            duration.as_hours() % 24
        )
    };
    // A clock that was set back, or a lockfile from the future, proves no age.
    let (verdict, detail) = if age > *limit || age < -SignedDuration::from_hours(1) {
        let again = "`agentcontainer lock --update` looks again";
        let detail = format!(
            "it was looked up {} ago, and {said} allows {}: {again}",
            days(&age),
            days(limit)
        );
        (Verdict::Fails, detail)
    } else {
        (Verdict::Holds, format!("looked up {} ago", days(&age)))
    };
    let limit = limit.as_secs();
    Check::new("age", verdict, detail)
        .with(json!({ "resolved": pin.resolved, "limitSeconds": limit, "required": said }))
}

fn unnamed() -> Check {
    Check::new(
        "signature",
        Verdict::NotRequired,
        "nobody was named who has to have signed",
    )
}

/// Nobody but one engine has it: whatever a signer would have to have seen is required in vain.
fn local(requirement: &Requirement) -> Vec<Check> {
    let digest = Check::new(
        "digest",
        Verdict::Unasked,
        "only one engine has it, and nobody else can be asked; `run` compares its id there",
    )
    .with(json!({ "local": true }));
    let rest = if requirement.needs_evidence() {
        Check::new(
            "signature",
            Verdict::Fails,
            "only one engine has it, and nobody can have signed it",
        )
        .with(json!({ "local": true }))
    } else {
        unnamed()
    };
    vec![digest, rest]
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
