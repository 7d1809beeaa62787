//! `agentcontainer verify`: whether everything that is locked still is what was locked, and who stands by it. 0 holds, 1 does not,
//! 2 could not be asked.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use registry::client::Client;
use registry::error::RegistryError;
use registry::signature::{Accept, BUNDLE_BYTES, Identity, KEY_BYTES, Key, Log};
use registry::trust_root::TrustRoots;
use registry::verify::{Check, Checked, Means, Rule, Verdict};
use schema::lockfile::Lockfile;
use serde_json::json;

use super::json;
use crate::files;
use crate::loaded::Loaded;
use crate::lock::{self, features};
use crate::organisation;
use crate::registries;
use crate::report::{self, Failure, escape};
use crate::trust;

/// The largest trusted root that is read, in bytes.
const MAX_ROOT: usize = 1 << 20;
/// The most bundles that may be brought along.
const MAX_BUNDLES: usize = 64;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A public key (PEM) that may have signed
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// With --key: its signatures have to be in a transparency log
    #[arg(long, requires = "key")]
    require_log: bool,
    /// Who may have signed, as their certificate names them: an address, or a URI which may end in `*` behind host and owner
    #[arg(long, value_name = "SUBJECT", requires = "issuer")]
    identity: Option<String>,
    /// Who vouched for the identity
    #[arg(long, value_name = "URL", requires = "identity")]
    issuer: Option<String>,
    /// Certificates and logs to measure with, in place of Sigstore's public ones (trusted_root.json)
    #[arg(long, value_name = "FILE")]
    trusted_root: Option<PathBuf>,
    /// A bundle that was brought along, beside what registries have
    #[arg(long, value_name = "FILE")]
    bundle: Vec<PathBuf>,
    /// Use no network at all
    #[arg(long)]
    offline: bool,
    /// The config whose lockfile is verified
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Approve what the config asks for without being asked
    #[arg(long)]
    yes: bool,
    /// As JSON, every check with its evidence
    #[arg(long)]
    json: bool,
}

/// What could not be begun was not verified.
const UNASKED: u8 = 2;

pub async fn run(args: Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    if !args.offline {
        organisation::up_to_date().await.map_err(judged)?;
    }
    let (mut loaded, lockfile, named) = read(&args).map_err(judged)?;
    // A lockfile is a stranger's, and names hosts: nobody is asked anything before it was reviewed, and only about what it may be about.
    if !args.offline {
        trust::require(&loaded, args.yes).map_err(|f| f.status(UNASKED))?;
    }
    lock::about(&loaded, &lockfile, "the lockfile").map_err(|f| f.status(1))?;
    let bundles = bundles(&args.bundle).map_err(|f| f.status(UNASKED))?;
    let client = registries::client(&loaded.places, &loaded.host, args.offline)
        .map_err(|f| f.status(UNASKED))?;
    if let Some(document) = organisation::of_workspace(&client, &loaded.config, &lockfile)
        .await
        .map_err(|f| f.status(UNASKED))?
    {
        loaded.hold_under(document).map_err(|f| f.status(1))?;
    }
    let named: Vec<Rule> = named.into_iter().collect();
    let roots = match args.trusted_root.as_deref() {
        Some(path) => root(path),
        None => organisation::roots(&loaded, &named, !args.offline).await,
    }
    .map_err(|f| f.status(UNASKED))?;
    let held = held(&loaded, &client, &lockfile).await;
    let means = Means {
        roots: &roots,
        bundles: &bundles,
        now: Timestamp::now(),
    };
    let mut checked = match held {
        Some(failed) => vec![failed],
        None => organisation::checked(&loaded, &client, &lockfile, &named, &means)
            .await
            .map_err(|f| f.status(UNASKED))?,
    };
    checked.extend(features::checked(&loaded, &lockfile));
    let is_judged = checked.iter().any(Checked::is_judged);
    let verdict = checked
        .iter()
        .map(Checked::verdict)
        .max()
        .unwrap_or(Verdict::Unasked);
    if as_json {
        report::out_json(
            &json!({ "verdict": verdict, "signaturesJudged": is_judged, "pins": checked }),
        );
    } else {
        checked.iter().for_each(show);
        if !is_judged {
            report::note(
                "no signature was judged: name who may have signed with --key, or --identity and --issuer",
            );
        }
    }
    Ok(match verdict {
        Verdict::Holds | Verdict::NotRequired => 0,
        Verdict::Fails => 1,
        Verdict::Unasked => UNASKED,
    })
}

/// A policy that was had and does not hold is an answer; one that could not be had is none.
fn judged(failure: Failure) -> Failure {
    // Of one that was never fetched, or whose note cannot be read, nothing is known.
    let none = ["policy-not-fetched", "policy-state"];
    let is_answer =
        |d: &schema::diag::Diagnostic| d.code.starts_with("policy-") && !none.contains(&d.code);
    let status = if failure.diagnostics.iter().any(is_answer) {
        1
    } else {
        UNASKED
    };
    failure.status(status)
}

/// What the lockfile says of features, held to what they are; where it does not hold, nobody is asked about what it names.
async fn held(loaded: &Loaded, client: &Client, lockfile: &Lockfile) -> Option<Checked> {
    let Err(failure) = features::hold(loaded, client, lockfile).await else {
        return None;
    };
    let diagnostics = failure.diagnostics.iter();
    let unasked = diagnostics
        .clone()
        .all(|d| RegistryError::code_is_unasked(d.code));
    let said: Vec<&str> = diagnostics.clone().map(|d| d.message.as_str()).collect();
    let codes: Vec<&str> = diagnostics.map(|d| d.code).collect();
    Some(Checked {
        name: "features".to_owned(),
        reference: loaded.config.file.clone(),
        digest: lockfile.config,
        checks: vec![Check {
            check: "features",
            verdict: if unasked {
                Verdict::Unasked
            } else {
                Verdict::Fails
            },
            detail: said.join("; "),
            evidence: json!({ "codes": codes }),
        }],
        verified: None,
    })
}

fn read(args: &Args) -> Result<(Loaded, schema::lockfile::Lockfile, Option<Rule>), Failure> {
    let loaded = Loaded::read_to_lock(args.config.as_deref())?;
    let path = lock::path(&loaded, false);
    let lockfile = lock::read(&path)?.ok_or_else(|| {
        Failure::new(
            "not-locked",
            format!("{} is not there: nothing is locked", path.display()),
        )
        .help("`agentcontainer lock` makes it")
    })?;
    let rules = signers(args)?.map(|accept| Rule {
        accept,
        said: "the command line".to_owned(),
    });
    Ok((loaded, lockfile, rules))
}

fn signers(args: &Args) -> Result<Option<Accept>, Failure> {
    let refused = |e: registry::signature::AcceptError| Failure::new("signer", e.to_string());
    let log = if args.require_log {
        Log::Demanded
    } else {
        Log::NotDemanded
    };
    let mut keys = Vec::new();
    for path in &args.key {
        let pem = String::from_utf8_lossy(&files::named(path, KEY_BYTES)?).into_owned();
        keys.push(
            Key::from_pem(&pem, log).map_err(|e| refused(e).about(path.display().to_string()))?,
        );
    }
    let mut identities = Vec::new();
    if let (Some(subject), Some(issuer)) = (&args.identity, &args.issuer) {
        identities.push(Identity::new(issuer, subject).map_err(refused)?);
    }
    if keys.is_empty() && identities.is_empty() {
        return Ok(None);
    }
    Accept::new(keys, identities).map(Some).map_err(refused)
}

fn root(path: &Path) -> Result<TrustRoots, Failure> {
    let refused =
        |e: registry::trust_root::TrustRootError| Failure::new("trusted-root", e.to_string());
    TrustRoots::none()
        .with_json(&path.display().to_string(), &files::named(path, MAX_ROOT)?)
        .map_err(refused)
}

fn bundles(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, Failure> {
    if paths.len() > MAX_BUNDLES {
        return Err(Failure::new(
            "too-many-bundles",
            format!("more than {MAX_BUNDLES} bundles"),
        ));
    }
    paths
        .iter()
        .map(|path| files::named(path, BUNDLE_BYTES))
        .collect()
}

fn show(checked: &Checked) {
    report::out(format!(
        "{}  {}  {}",
        escape(&checked.name),
        escape(&checked.reference),
        checked.digest
    ));
    for check in &checked.checks {
        let (word, good) = match check.verdict {
            Verdict::Holds => ("holds       ", Some(true)),
            Verdict::Fails => ("fails       ", Some(false)),
            Verdict::Unasked => ("unasked     ", None),
            Verdict::NotRequired => ("not required", None),
        };
        report::out(format!(
            "  {}  {:<10} {}",
            report::coloured(word, good),
            check.check,
            escape(&check.detail)
        ));
    }
}
