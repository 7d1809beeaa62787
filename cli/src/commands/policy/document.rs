//! `agentcontainer policy init|check|diff`: an organisation's policy as a file, before it is published.

use std::path::{Path, PathBuf};

use policy::organisation::difference::difference;
use registry::sbom::Ban;
use schema::organisation::values::OrganisationName;
use schema::organisation::{MAX_FILE_BYTES, MAX_SERIAL, NotCurrent, Organisation};
use serde_json::json;

use super::super::json;
use crate::files;
use crate::report::{self, Failure, escape};

/// Where a new one is written.
pub const FILE: &str = "organisation-policy.json";
/// How long a new one holds.
const DAYS: i64 = 180;

#[derive(Debug, clap::Args)]
pub struct Init {
    /// Where to write it
    #[arg(value_name = "FILE", default_value = FILE)]
    file: PathBuf,
    /// The organisation's name
    #[arg(long, value_name = "NAME", default_value = "example")]
    organisation: String,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Print it in place of writing it
    #[arg(long)]
    print: bool,
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// The document
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct Diff {
    /// What holds now
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// What would
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Reads a document; what cannot be read at all was not checked, and ends with `unread`.
pub fn read(path: &Path, unread: u8) -> Result<Organisation, Failure> {
    let bytes = schema::config::discover::read_file(path, MAX_FILE_BYTES)
        .map_err(|e| Failure::from(schema::diag::Diagnostic::from(e)).status(unread))?
        .ok_or_else(|| {
            Failure::new("io", format!("{} is not there", path.display())).status(unread)
        })?;
    Ok(schema::organisation::parse(
        &bytes,
        &path.to_string_lossy(),
    )?)
}

pub fn init(args: &Init) -> Result<u8, Failure> {
    let name: OrganisationName = args
        .organisation
        .parse()
        .map_err(|e| Failure::new("organisation", format!("{}: {e}", args.organisation)))?;
    let text = starting(&name, jiff::Timestamp::now());
    if args.print {
        report::out(text.trim_end());
        return Ok(0);
    }
    files::write(&args.file, &text, args.force)?;
    report::note(format!(
        "{} is written: look at every line of it, then `agentcontainer policy check {}`",
        args.file.display(),
        args.file.display()
    ));
    Ok(0)
}

/// A document that restricts a little, with every other ceiling there to be taken in.
fn starting(name: &OrganisationName, now: jiff::Timestamp) -> String {
    let until = now + jiff::SignedDuration::from_hours(24 * DAYS);
    let until = until.strftime("%Y-%m-%dT00:00:00Z");
    format!(
        r#"// What everybody who works under {name} may have at most. docs/organisation-policy.md has every key.
{{
  "version": 1,
  "organisation": "{name}",
  // Goes up with every change: a host refuses a lower one than the last it saw.
  "serial": 1,
  // From then on a host that has nothing later starts nothing.
  "notAfter": "{until}",

  // The most that may be had. A ceiling that is absent does not restrict, and an EMPTY LIST ALLOWS NOTHING.
  "ceilings": {{
    "network": {{
      // "allowedDomains": ["api.anthropic.com", "github.com", "api.github.com", "*.{name}.example"],
      // "ports": [443],
      // "networks": [],
      "protocols": ["https", "http", "tls", "tcp"],
      // Nobody is asked about names that nothing lists.
      "unlisted": "deny"
    }},
    // "credentials": {{ "github": {{ "hosts": ["api.github.com"], "sources": ["op"] }} }},
    // Where values of credentials may come from: env, file, exec, stdin, keyring, op, vault, github-device.
    // "secretSources": ["op", "keyring"],
    // What a workspace may read of the host's environment with ${{localEnv:NAME}}.
    "hostVariables": [],
    "mounts": ["volume", "tmpfs", "workspace"],
    // "images": ["ghcr.io/{name}/**", "docker.io/library/*"],
    // "resources": {{ "memory": "16g", "cpus": 8, "pids": 4096 }},
    // The least that is done about what inspectors find.
    "inspection": {{ "secrets": "block", "base64": "block" }},
    // What only a person can allow: "prompt" asks one, "deny" does not.
    "escalation": "prompt"
  }},

  // What has to hold of everything that is run.
  "requirements": {{
    // "registries": ["ghcr.io", "docker.io"],
    // "signatures": [{{ "references": ["ghcr.io/{name}/**"], "identities": [{{
    //   "issuer": "https://token.actions.githubusercontent.com", "subject": "https://github.com/{name}/images/*" }}] }}],
    // "slsaLevel": 2,
    // "sbom": true,
    // "bannedPackages": [{{ "type": "npm", "name": "event-stream", "versions": "=3.3.6" }}],
    // "lockAge": "90d",
    // "drift": {{ "ask": "low", "refuse": "high" }}
  }},

  // What nobody may have, whatever else says.
  "denials": {{
    // "domains": ["gist.github.com"],
    // "credentials": ["production"],
    // "images": []
  }}
}}
"#
    )
}

/// 0: it can be published as it is; 1: it cannot; 2: it could not be read.
pub fn check(args: &Check) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let document = match read(&args.file, 2) {
        Ok(document) => document,
        Err(failure) if failure.status == 2 => return Err(failure),
        Err(failure) if as_json => {
            report::out_json(&json!({
                "file": args.file.to_string_lossy(), "ok": false, "diagnostics": failure.diagnostics,
            }));
            return Ok(1);
        }
        Err(failure) => return Err(failure.status(1)),
    };
    let mut found = Vec::new();
    let now = jiff::Timestamp::now();
    let mut remarks = Vec::new();
    match document.check(now, None) {
        // What is to be published may begin later.
        Err(error @ NotCurrent::NotYet { .. }) => remarks.push(error.to_string()),
        Err(error) => {
            found.push(document.diagnostic(document.not_after.at, error.code(), error.to_string()));
        }
        Ok(()) => {}
    }
    if document.ceilings == Default::default() && document.denials == Default::default() {
        remarks.push("it has no ceiling and no denial: it restricts nothing".to_owned());
    }
    remarks.extend(undecidable(&document));
    if as_json {
        report::out_json(&json!({
            "file": document.file,
            "ok": found.is_empty(),
            "organisation": document.organisation,
            "serial": document.serial,
            "notBefore": document.not_before,
            "notAfter": document.not_after,
            "digest": document.digest(),
            "diagnostics": found,
            "remarks": remarks,
        }));
        return Ok(u8::from(!found.is_empty()));
    }
    remarks.iter().for_each(report::warning);
    if !found.is_empty() {
        return Err(Failure::from(found).status(1));
    }
    report::out(format!(
        "{}: ok: the policy of {}, serial {}, until {}",
        escape(&document.file),
        document.organisation.value,
        document.serial.value,
        document.not_after.value
    ));
    Ok(0)
}

/// Ranges of versions that stop more than they say.
fn undecidable(document: &Organisation) -> Vec<String> {
    let banned = document.requirements.banned_packages.iter();
    let all = banned.filter(|package| {
        let versions = package.versions.to_string();
        let ban = Ban::new(package.kind.as_str(), package.name.as_str(), &versions);
        ban.is_ok_and(|ban| !ban.is_decidable())
    });
    let words = all.map(|package| {
        format!(
            "versions of {} have no order here: an inventory that lists {} in one that `versions` does not spell is refused too",
            package.kind.as_str(),
            package.name.as_str()
        )
    });
    words.collect()
}

/// 0: nothing is looser; 1: something is; 2: one of them could not be read.
pub fn diff(args: &Diff) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let read = |path| read(path, 2).map_err(|failure| failure.status(2));
    let (old, new) = (read(&args.old)?, read(&args.new)?);
    let changes = difference(&old, &new);
    let looser = changes.iter().any(|change| change.looser);
    let mut remarks = Vec::new();
    if old.organisation != new.organisation {
        remarks.push(format!(
            "the organisation was {} and is {}",
            old.organisation.value, new.organisation.value
        ));
    }
    let serial = new.serial.value;
    if serial <= old.serial.value && (serial < old.serial.value || old.digest() != new.digest()) {
        remarks.push(format!(
            "the serial is {serial}, and was {}: a host that saw the old one refuses the new; it has to go up, to {MAX_SERIAL} at most",
            old.serial.value
        ));
    }
    if as_json {
        report::out_json(&json!({ "looser": looser, "changes": changes, "remarks": remarks }));
        return Ok(u8::from(looser));
    }
    remarks.iter().for_each(report::warning);
    let row = |change: &policy::organisation::difference::Change| {
        let what = if change.looser { "looser" } else { "stricter" };
        vec![
            what.to_owned(),
            change.grade.to_string(),
            change.what.clone(),
            change.origin.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = changes.iter().map(row).collect();
    match rows.is_empty() {
        true => report::out("nothing is allowed or required that was not before"),
        false => report::out(super::lines(&report::table(&rows))),
    }
    Ok(u8::from(looser))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_init_writes_is_a_policy_that_holds_now_and_so_is_all_that_it_leaves_out() {
        let now: jiff::Timestamp = "2026-11-21T12:00:00Z".parse().unwrap();
        let text = starting(&"acme".parse().unwrap(), now);
        let read = |text: &str| schema::organisation::parse(text.as_bytes(), FILE);
        let document = read(&text).unwrap_or_else(|found| panic!("{found:#?}"));
        assert!(document.check(now, None).is_ok());
        assert_eq!(document.not_after.value.to_string(), "2027-05-20T00:00:00Z");
        // Every line that is there to be taken in is one that can be.
        let prose = |line: &str| {
            let inside = line.trim_start().trim_start_matches("//").trim_start();
            !inside.starts_with(['"', '/'])
        };
        let taken: String = text
            .lines()
            .map(|line| match line.trim_start().strip_prefix("// ") {
                Some(_) if prose(line) => String::new(),
                Some(rest) => format!("{},\n", rest.trim_end_matches(',')),
                None => format!("{line}\n"),
            })
            .collect();
        let taken = taken
            .replace("[{,\n", "[{\n")
            .replace("\"prompt\"\n", "\"prompt\",\n")
            .replace("\"deny\"\n", "\"deny\",\n");
        let document = read(&taken).unwrap_or_else(|found| panic!("{taken}\n{found:#?}"));
        assert_eq!(document.requirements.signatures.len(), 1, "{taken}");
        assert!(document.ceilings.credentials.is_some() && !document.denials.domains.is_empty());
    }
}
