//! The policies that a workspace is held to on this host: the host's, asked for where something is about to be started and otherwise
//! as it was last believed, and the workspace's own, which its lockfile pins. A byte of either is believed only once it has the
//! digest and the signatures that it has to have, each time anew.

mod believed;

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use policy::organisation::{Fetched, Requirements, check_host_variables, check_reference};
use registry::client::{Client, Repository};
use registry::error::RegistryError;
use registry::evidence::Note;
use registry::sbom::Ban;
use registry::signature::{self, Accept, Identity, Key, Log, Subject};
use registry::trust_root::TrustRoots;
use registry::verify::{Check, Checked, Means, Requirement, Rule, Verdict};
use schema::config::Config;
use schema::diag::{Diagnostic, Place};
use schema::digest::Digest;
use schema::hostconfig::{HostConfig, PolicySource, Setting, Signers};
use schema::image::{ImageRef, OciSource};
use schema::lockfile::{Lockfile, Pin};
use schema::organisation::values::OrganisationName;
use schema::organisation::{ARTIFACT_TYPE, MAX_FILE_BYTES, Organisation};
use schema::signer::MAX_KEY_BYTES;

use self::believed::{Believed, Root};
use crate::files;
use crate::loaded::Loaded;
use crate::places::Places;
use crate::registries;
use crate::report::{self, Failure};
use crate::sigstore;

/// How long a registry is waited for where a policy of it holds already.
const PATIENCE: Duration = Duration::from_secs(10);
/// The code of what `sigstore` says where it has no roots that may be used.
const ROOTS: &str = "trusted-root";

/// What a refresh of one policy came to.
#[derive(Clone, Debug)]
pub enum Refreshed {
    Now(Box<Organisation>, Digest),
    /// Its registry could not be asked: the last one holds until its end.
    Kept(String),
}

/// The host's policies as they were last believed, verified again. Nobody is asked anything.
///
/// # Errors
/// One was never fetched, is not what it was, or does not hold any more.
pub fn of_host(places: &Places, host: &HostConfig) -> Result<Vec<Organisation>, Failure> {
    let all = host.policy.iter();
    all.map(|policy| last(places, host, policy)).collect()
}

fn last(
    places: &Places,
    host: &HostConfig,
    policy: &Setting<PolicySource>,
) -> Result<Organisation, Failure> {
    let source = &policy.value.source;
    let never = || {
        Failure::from(
            Diagnostic::new(
                "policy-not-fetched",
                format!(
                    "{source} was not fetched yet, and without it nobody knows what is allowed here"
                ),
            )
            .at(policy.file.clone(), policy.at)
            .help("`agentcontainer policy pull` fetches it"),
        )
    };
    let believed = Believed::load(places, source)?.ok_or_else(never)?;
    if source
        .reference()
        .digest()
        .is_some_and(|digest| *digest != believed.manifest)
    {
        return Err(never());
    }
    let client = registries::client(places, host, true)?;
    // The root under which this very digest was believed says of it what it said then, whether TUF has it in force still or not.
    let kept = believed.kept_root(places, host, source);
    let basis = Basis { kept, note: None };
    let read = read((places, host), &client, policy, &believed.manifest, basis);
    let (document, _) = wait(read).map_err(Unread::into_failure)?;
    let named = policy.value.organisation.as_ref();
    check(&document, source, named, Some(&believed))?;
    Ok(document)
}

/// Asks the registry for a policy of the host's, and believes what it has if that holds. A registry that cannot be asked leaves the last
/// one in force until its end; one that answers with something else than a policy that holds stops everything.
pub async fn refresh(
    places: &Places,
    host: &HostConfig,
    policy: &Setting<PolicySource>,
) -> Result<Refreshed, Failure> {
    let source = &policy.value.source;
    let believed = Believed::load(places, source)?;
    let client = registries::client(places, host, false)?;
    let repository = Repository::of(source.reference());
    let kept = |error: &RegistryError| {
        (error.is_unasked() && believed.is_some()).then(|| Refreshed::Kept(error.to_string()))
    };
    let digest = match (source.reference().digest(), source.reference().tag()) {
        (Some(digest), _) => *digest,
        (None, tag) => match client.tag(&repository, tag.unwrap_or("latest")).await {
            Ok(Some(content)) => content.digest,
            Ok(None) => {
                return Err(Failure::new(
                    "policy-not-found",
                    format!(
                        "{source} is not there, and without it nobody knows what is allowed here"
                    ),
                ));
            }
            Err(error) => match kept(&error) {
                Some(kept) => return Ok(kept),
                None => return Err(Failure::from(error).about(source.to_string())),
            },
        },
    };
    let (document, root) =
        match read((places, host), &client, policy, &digest, Basis::default()).await {
            Ok(document) => document,
            Err(Unread::Registry(error)) if kept(&error).is_some() => {
                return Ok(Refreshed::Kept(error.to_string()));
            }
            // Nobody could say whether it holds: no roots are in force, and theirs could not be asked.
            Err(Unread::Failure(failure))
                if believed.is_some() && failure.diagnostics.iter().all(|d| d.code == ROOTS) =>
            {
                let said = failure.diagnostics.first().map(|d| d.message.clone());
                return Ok(Refreshed::Kept(said.unwrap_or_default()));
            }
            Err(unread) => return Err(unread.into_failure()),
        };
    let named = policy.value.organisation.as_ref();
    check(&document, source, named, believed.as_ref())?;
    let root = root.as_ref();
    Believed::of(source, &document, digest, root).save(places, source, &document, root)?;
    // What cannot be read again without asking was not kept: a full disk, say.
    last(places, host, policy)?;
    Ok(Refreshed::Now(Box::new(document), digest))
}

/// Believes a policy that came in a file, if it holds by all that a registry's would have to: its bytes are in the cache, and what the
/// file says lay beside it is kept once it holds.
pub async fn take(
    places: &Places,
    host: &HostConfig,
    policy: &Setting<PolicySource>,
    manifest: &Digest,
    note: Option<&Note>,
) -> Result<Organisation, Failure> {
    let source = &policy.value.source;
    let believed = Believed::load(places, source)?;
    let client = registries::client(places, host, true)?;
    let basis = Basis {
        kept: None,
        note: note.cloned(),
    };
    let (document, root) = read((places, host), &client, policy, manifest, basis)
        .await
        .map_err(Unread::into_failure)?;
    let named = policy.value.organisation.as_ref();
    check(&document, source, named, believed.as_ref())?;
    if let Some(note) = note {
        let kept = client.add_note(&Repository::of(source.reference()), manifest, note);
        kept.map_err(|e| Failure::new("io", format!("cannot write the cache: {e}")))?;
    }
    let root = root.as_ref();
    Believed::of(source, &document, *manifest, root).save(places, source, &document, root)?;
    last(places, host, policy)
}

/// The manifest of the policy that was last believed of a source.
pub fn believed(places: &Places, source: &OciSource) -> Result<Option<Digest>, Failure> {
    Ok(Believed::load(places, source)?.map(|believed| believed.manifest))
}

/// [`refresh`] of all of them at once, for commands that start or pin something.
pub async fn up_to_date() -> Result<(), Failure> {
    let host = crate::loaded::host()?;
    let places = Places::from_env()?;
    let all = host
        .policy
        .iter()
        .map(|policy| patiently(&places, &host, policy));
    for (policy, refreshed) in host.policy.iter().zip(join_all(all).await) {
        if let Refreshed::Kept(why) = refreshed? {
            report::warning(format!(
                "{} is the last one that was fetched: {why}",
                policy.value.source
            ));
        }
    }
    Ok(())
}

/// Nobody waits for long where one is there that holds.
async fn patiently(
    places: &Places,
    host: &HostConfig,
    policy: &Setting<PolicySource>,
) -> Result<Refreshed, Failure> {
    let source = &policy.value.source;
    let asked = refresh(places, host, policy);
    if Believed::load(places, source)?.is_none() {
        return asked.await;
    }
    match tokio::time::timeout(PATIENCE, asked).await {
        Ok(refreshed) => refreshed,
        Err(_) => Ok(Refreshed::Kept(format!(
            "{} does not answer within {} s",
            source.reference().registry(),
            PATIENCE.as_secs()
        ))),
    }
}

/// Why a document was not had.
enum Unread {
    Registry(RegistryError),
    Failure(Failure),
}

impl Unread {
    fn into_failure(self) -> Failure {
        match self {
            Self::Registry(error) => error.into(),
            Self::Failure(failure) => failure,
        }
    }
}

impl From<Failure> for Unread {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<RegistryError> for Unread {
    fn from(error: RegistryError) -> Self {
        Self::Registry(error)
    }
}

/// What a document is judged with, where that is not what is in force and what its registry has.
#[derive(Default)]
struct Basis {
    /// The roots under which this digest was believed before.
    kept: Option<TrustRoots>,
    /// What lies beside it, as a file says.
    note: Option<Note>,
}

/// The document behind a digest, if one who has to have signed it did; and the trusted root that said so, if that is what counts.
async fn read(
    (places, host): (&Places, &HostConfig),
    client: &Client,
    policy: &Setting<PolicySource>,
    manifest: &Digest,
    basis: Basis,
) -> Result<(Organisation, Option<Root>), Unread> {
    let source = &policy.value.source;
    let repository = Repository::of(source.reference());
    let gathered = match basis.note {
        Some(note) => client.gathered_of(&repository, manifest, note),
        None => client.evidence(&repository, manifest).await?,
    };
    let accept = accept(&policy.value.signers)?;
    let by_identity = matches!(policy.value.signers, Signers::Identities(_));
    let roots = match basis.kept {
        _ if !by_identity => built_in()?,
        Some(kept) => kept,
        None => sigstore::trusted(places, host, !client.is_offline()).await?,
    };
    let subject = Subject::from(manifest);
    let report = signature::verify(
        &subject,
        &gathered.evidence,
        &accept,
        &roots,
        Timestamp::now(),
    );
    if !report.holds {
        if let Some(error) = gathered.missed.into_iter().next() {
            return Err(error.into());
        }
        let why = report.refused().next().map_or_else(
            || "it is not signed".to_owned(),
            |(_, refusal)| refusal.detail.clone(),
        );
        return Err(Failure::from(
            Diagnostic::new(
                "policy-signature",
                format!(
                    "{} is not signed by who has to have signed it: {why}",
                    repository.at(manifest)
                ),
            )
            .at(policy.file.clone(), policy.at)
            .help("nothing is started under a policy that nobody vouches for"),
        )
        .into());
    }
    let root = match roots.texts().next().filter(|_| by_identity) {
        Some((_, json)) => Some(Root {
            json: json.to_vec(),
            of: sigstore::source(places, host)?,
        }),
        None => None,
    };
    let document = artifact(client, source, manifest).await?;
    Ok((document, root))
}

async fn artifact(
    client: &Client,
    source: &OciSource,
    manifest: &Digest,
) -> Result<Organisation, Unread> {
    let bytes = client
        .artifact(
            &Repository::of(source.reference()),
            manifest,
            ARTIFACT_TYPE,
            MAX_FILE_BYTES as u64,
        )
        .await?;
    let parsed = schema::organisation::parse(&bytes, &source.to_string());
    Ok(parsed.map_err(Failure::from)?)
}

fn check(
    document: &Organisation,
    source: &OciSource,
    named: Option<&OrganisationName>,
    believed: Option<&Believed>,
) -> Result<(), Failure> {
    let own = document.organisation.value.to_string();
    if let Some(named) = named
        && *named != document.organisation.value
    {
        return Err(Failure::new(
            "policy-organisation",
            format!("{source} is the policy of {own}, and config.toml wants that of {named}"),
        ));
    }
    if let Some(believed) = believed
        && believed.organisation != own
    {
        return Err(Failure::new(
            "policy-organisation",
            format!(
                "{source} is the policy of {own} now, and this host has believed that of {}",
                believed.organisation
            ),
        )
        .help("somebody put another policy in its place; where that is meant, give it another source in config.toml"));
    }
    document
        .check(Timestamp::now(), believed.map(Believed::seen))
        .map_err(|why| Failure::new(why.code(), format!("the policy {source}: {why}")))
}

/// The workspace's own policy, as its lockfile pins it. It narrows what the host allows and can do nothing else, so that its digest is
/// all that it has to have.
pub async fn of_workspace(
    client: &Client,
    config: &Config,
    lock: &Lockfile,
) -> Result<Option<Organisation>, Failure> {
    let Some(source) = &config.agent.policy.source else {
        return Ok(None);
    };
    let Some(pin) = &lock.policy else {
        return Err(Failure::new(
            "not-locked",
            format!(
                "{} is not locked, and nothing is run without it",
                source.value
            ),
        )
        .help("`agentcontainer lock` locks it"));
    };
    let document = artifact(client, &source.value, &pin.digest)
        .await
        .map_err(Unread::into_failure)?;
    check(&document, &source.value, None, None)?;
    Ok(Some(document))
}

/// One that takes the place of another in a lockfile does not go back, as far as the one before can still be had.
pub async fn not_older(
    client: &Client,
    old: &Lockfile,
    source: &OciSource,
    document: &Organisation,
) -> Result<(), Failure> {
    let Some(pin) = &old.policy else {
        return Ok(());
    };
    if pin.reference != *source.reference() {
        return Ok(());
    }
    let Ok(before) = artifact(client, source, &pin.digest).await else {
        return Ok(());
    };
    if before.organisation.value != document.organisation.value {
        return Ok(());
    }
    let held = document.check(Timestamp::now(), Some(before.seen()));
    held.map_err(|why| {
        Failure::new(why.code(), format!("the policy {source}: {why}"))
            .help("take `policy` out of the lockfile where that is meant")
    })
}

/// The same where it is in the cache; nobody is asked.
pub fn of_workspace_here(loaded: &Loaded, lock: &Lockfile) -> Option<Organisation> {
    let client = registries::client(&loaded.places, &loaded.host, true).ok()?;
    wait(of_workspace(&client, &loaded.config, lock)).ok()?
}

/// Runs a future that asks nobody from where nothing can wait.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

fn accept(signers: &Signers) -> Result<Accept, Failure> {
    let refused = |e: signature::AcceptError| Failure::new("signer", e.to_string());
    let (mut keys, mut identities) = (Vec::new(), Vec::new());
    match signers {
        Signers::Keys(files) => {
            for file in files {
                let pem = files::named(&file.value, MAX_KEY_BYTES)?;
                let pem = String::from_utf8_lossy(&pem);
                keys.push(Key::from_pem(&pem, Log::NotDemanded).map_err(refused)?);
            }
        }
        Signers::Identities(all) => {
            identities.extend(all.iter().cloned().map(Identity::from));
        }
    }
    Accept::new(keys, identities).map_err(refused)
}

fn built_in() -> Result<TrustRoots, Failure> {
    TrustRoots::public_good().map_err(|e| Failure::new("trusted-root", e.to_string()))
}

/// What certificates and logs are measured with, where anything that is required has one.
pub async fn roots(loaded: &Loaded, named: &[Rule], may_ask: bool) -> Result<TrustRoots, Failure> {
    let mut rules = loaded.requirements.signatures.iter();
    let needed = rules.any(|said| !said.value.identities.is_empty() || said.value.needs_log());
    if !needed && !named.iter().any(|rule| rule.accept.needs_roots()) {
        // A key's signature is measured with the key.
        return built_in();
    }
    sigstore::trusted(&loaded.places, &loaded.host, may_ask).await
}

/// What the requirements come to for one reference.
pub fn requirement(of: &Requirements, reference: &ImageRef) -> Result<Requirement, Failure> {
    let refused = |e: signature::AcceptError| Failure::new("signer", e.to_string());
    let mut out = Requirement {
        signed: of.signed.as_ref().map(|said| said.origin.to_string()),
        slsa_level: of
            .slsa_level
            .as_ref()
            .map(|said| (said.value, said.origin.to_string())),
        sbom: of.sbom.as_ref().map(|said| said.origin.to_string()),
        ..Requirement::default()
    };
    for said in &of.signatures {
        let rule = &said.value;
        if !rule
            .references
            .value
            .iter()
            .any(|pattern| pattern.value.matches(reference))
        {
            continue;
        }
        let log = if rule.needs_log() {
            Log::Demanded
        } else {
            Log::NotDemanded
        };
        let keys = rule
            .keys
            .iter()
            .map(|key| Key::from_pem(key.value.as_pem(), log));
        let identities = rule
            .identities
            .iter()
            .map(|identity| Identity::from(identity.value.clone()));
        let accept = Accept::new(
            keys.collect::<Result<_, _>>().map_err(refused)?,
            identities.collect(),
        )
        .map_err(refused)?;
        out.rules.push(Rule {
            accept,
            said: said.origin.to_string(),
        });
    }
    for said in &of.banned_packages {
        let ban = &said.value;
        let made = Ban::new(
            ban.kind.as_str(),
            ban.name.as_str(),
            &ban.versions.to_string(),
        );
        out.bans.push(
            made.map_err(|e| Failure::new("banned-package", format!("{}: {e}", said.origin)))?,
        );
    }
    if let Some(said) = &of.lock_age {
        let seconds = i64::try_from(said.value.seconds()).unwrap_or(i64::MAX);
        out.age = Some((
            jiff::SignedDuration::from_secs(seconds),
            said.origin.to_string(),
        ));
    }
    Ok(out)
}

/// Whether a pin may be used at all: its registry is one of those that every policy names, and what only an engine has is in no
/// registry that a policy could name images of.
fn check_place(loaded: &Loaded, lock: &Lockfile, name: &str, pin: &Pin) -> Option<Diagnostic> {
    let written = pin.reference.as_str();
    let what = match name {
        "image" | "policy" => None,
        name if lock.features.contains_key(name) => Some(Fetched::Feature),
        _ => Some(Fetched::Other),
    };
    if let Some(what) = what {
        let place = Place::Object(name.to_owned());
        let found = check_reference(&loaded.organisations, what, &pin.reference, &place);
        if let Some(refused) = found.into_iter().next() {
            return Some(refused);
        }
    }
    for said in &loaded.requirements.registries {
        if pin.local || !said.value.iter().any(|name| name.holds(&pin.reference)) {
            let from = if pin.local {
                "only this machine's engine"
            } else {
                pin.reference.registry()
            };
            return Some(Diagnostic::new(
                "registry-not-trusted",
                format!(
                    "{name} ({written}) comes from {from}, which {} does not name",
                    said.origin
                ),
            ));
        }
    }
    let named = |document: &&Organisation| document.ceilings.images.is_some();
    if pin.local
        && let Some(document) = loaded.organisations.iter().find(named)
    {
        return Some(Diagnostic::new(
            "image-not-named",
            format!(
                "{name} ({written}) is an image of only this machine's engine, and the policy of {} names images of registries",
                document.organisation.value
            ),
        ));
    }
    None
}

/// Holds variables of this host that a person has come inside (`-e NAME`) to what policies let be read of it.
pub fn hold_variables(loaded: &Loaded, names: &BTreeSet<String>) -> Result<(), Failure> {
    let place = Place::Object("-e".to_owned());
    let names = names.iter().map(String::as_str);
    let found = check_host_variables(&loaded.organisations, names, &place);
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.into())
    }
}

/// What was gathered before is enough where it holds: a signature does not end with its registry. What speaks against something may have
/// come since, so that with a banned package registries are asked each time.
async fn settled(
    loaded: &Loaded,
    lock: &Lockfile,
    means: &Means<'_>,
) -> Result<Vec<Checked>, Failure> {
    if loaded.requirements.banned_packages.is_empty() {
        let here = registries::client(&loaded.places, &loaded.host, true)?;
        let checked = checked(loaded, &here, lock, &[], means).await?;
        let holds = |one: &Checked| one.verdict() == Verdict::Holds;
        if checked.iter().all(holds) {
            return Ok(checked);
        }
    }
    let client = registries::client(&loaded.places, &loaded.host, loaded.offline)?;
    checked(loaded, &client, lock, &[], means).await
}

/// Everything that is required of what is locked, checked: the one code of `lock`, `run` and `verify`.
pub async fn checked(
    loaded: &Loaded,
    client: &Client,
    lock: &Lockfile,
    named: &[Rule],
    means: &Means<'_>,
) -> Result<Vec<Checked>, Failure> {
    let of = &loaded.requirements;
    let mut jobs = Vec::new();
    for (name, pin) in lock.pins() {
        let mut requirement = requirement(of, &pin.reference)?;
        requirement.rules.extend(named.iter().cloned());
        if name == "policy" {
            // A document is built from nothing and has no packages; who signed it is asked where a rule names it.
            requirement.signed = None;
            requirement.slsa_level = None;
            requirement.sbom = None;
            requirement.bans.clear();
        }
        jobs.push((name.into_owned(), pin, requirement));
    }
    let jobs = jobs.iter().map(|(name, pin, requirement)| async move {
        let client = client.lane().await;
        let mut checked = client.verify(name, pin, requirement, means).await;
        if let Some(refused) = check_place(loaded, lock, name, pin) {
            checked.checks.push(Check {
                check: "place",
                verdict: Verdict::Fails,
                detail: refused.message,
                evidence: serde_json::json!({ "code": refused.code }),
            });
        }
        checked
    });
    let mut all: Vec<Checked> = join_all(jobs).await;
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

/// Holds everything that is locked to what is required of it, before it is written down or run; pins keep who vouched for them.
pub async fn require(loaded: &Loaded, lock: &mut Lockfile) -> Result<(), Failure> {
    let restricted = loaded.organisations.iter().any(|d| {
        let ceilings = &d.ceilings;
        let named = ceilings.images.is_some() || ceilings.features.is_some();
        named || !d.denials.images.is_empty()
    });
    if loaded.requirements.is_empty() && !restricted {
        return Ok(());
    }
    let roots = roots(loaded, &[], !loaded.offline).await?;
    let means = Means {
        roots: &roots,
        bundles: &[],
        now: Timestamp::now(),
    };
    let mut failed = Vec::new();
    for checked in settled(loaded, lock, &means).await? {
        let pin = lock.pins_mut().find(|(name, _)| *name == checked.name);
        let is_local = pin.as_ref().is_some_and(|(_, pin)| pin.local);
        if let Some((_, pin)) = pin {
            pin.verified = checked.verified.clone();
        }
        for check in checked.checks {
            let code = match check.verdict {
                Verdict::Holds | Verdict::NotRequired => continue,
                // The engine is asked for it when it is run.
                Verdict::Unasked if is_local && check.check == "digest" => continue,
                Verdict::Fails => "not-verified",
                Verdict::Unasked => "verify-unasked",
            };
            let text = format!(
                "{} ({}): {}: {}",
                checked.name, checked.reference, check.check, check.detail
            );
            failed.push(
                Diagnostic::new(code, text).help("`agentcontainer verify` shows every check"),
            );
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.into())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_refresh_that_was_overtaken_does_not_put_an_older_policy_back() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            home: None,
            state: dir.path().join("s"),
            config: dir.path().join("c"),
            cache: dir.path().join("k"),
        };
        let source: OciSource = "oci://registry.test/acme/policy:prod".parse().unwrap();
        let document = |serial: u64| {
            let text = format!(
                r#"{{ "version": 1, "organisation": "acme", "serial": {serial}, "notAfter": "2099-01-01T00:00:00Z" }}"#
            );
            schema::organisation::parse(text.as_bytes(), "p").unwrap()
        };
        let save = |serial: u64| {
            let document = document(serial);
            let seen = document.seen();
            let believed = Believed {
                root: None,
                source: source.to_string(),
                organisation: "acme".to_owned(),
                manifest: Digest::of(&serial.to_be_bytes()),
                serial: seen.serial,
                document: seen.digest,
            };
            believed.save(&places, &source, &document, None)
        };
        let kept = || Believed::load(&places, &source).unwrap().unwrap().serial;
        // Many at once, in any order: the highest stays.
        std::thread::scope(|scope| {
            for serial in [3, 9, 1, 7, 8, 2, 6, 4, 5] {
                let save = &save;
                scope.spawn(move || save(serial));
            }
        });
        assert_eq!(kept(), 9);
        assert_eq!(save(8).unwrap_err().diagnostics[0].code, "policy-older");
        save(9).unwrap();
        save(10).unwrap();
        assert_eq!(kept(), 10);
    }
}
