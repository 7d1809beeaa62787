//! `agentcontainer config check|show`: what the workspace's config says, as it was understood.

use std::path::PathBuf;

use schema::config::{Wanted, discover};
use serde_json::json;

use super::json;
use crate::loaded::{self, Loaded};
use crate::report::{self, Failure, escape};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check it: 0 good, 1 not, 2 could not be read
    Check {
        /// The config to check
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show it
    Show {
        /// The config to show
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// With what is left out filled in, and what it comes to with the host's word
        #[arg(long)]
        effective: bool,
    },
}

pub fn run(args: &Args) -> Result<u8, Failure> {
    match &args.command {
        Command::Check {
            config,
            json: as_json,
        } => check(config.as_ref(), json(*as_json)),
        Command::Show { config, effective } => show(config.as_ref(), *effective),
    }
}

fn check(config: Option<&PathBuf>, as_json: bool) -> Result<u8, Failure> {
    let workspace = loaded::workspace().map_err(|f| f.status(2))?;
    let wanted = config.map_or(Wanted::First, |path| Wanted::said(path, &workspace));
    // A file that is not there or cannot be read was not checked.
    let found = discover::discover(&workspace, wanted)
        .map_err(|e| Failure::from(schema::diag::Diagnostic::from(e)).status(2))?;
    let result = schema::config::parse(&found.bytes, &found.name)
        .map_err(Failure::from)
        .and_then(|parsed| {
            let places = crate::places::Places::from_env()?;
            let host = loaded::host_for(&places, &workspace)?;
            let documents = crate::organisation::of_host(&places, &host)?;
            let held = policy::organisation::hold(&parsed, &host, &documents)?;
            let mounts_and_starts = policy::Layers {
                lsm: Err(""),
                starts: Ok(()),
            };
            match held.policy.not_carried(&policy::Layers::ALL) {
                errors if errors.is_empty() => {
                    Ok(held.policy.not_carried(&mounts_and_starts).len())
                }
                errors => Err(Failure::from(errors)),
            }
        });
    match result {
        Ok(later) if as_json => {
            let needs: &[&str] = if later > 0 { &["lsm"] } else { &[] };
            report::out_json(
                &json!({ "file": found.name, "ok": true, "needs": needs, "diagnostics": [] }),
            )
        }
        Ok(later) => {
            report::out(format!("{}: ok", escape(&found.name)));
            if later > 0 {
                report::note(
                    "rules about files that come later need BPF LSM on the host that runs it, which `agentcontainer doctor` looks for, or files = \"mounts\" in its config.toml",
                );
            }
        }
        Err(failure) if as_json => {
            report::out_json(
                &json!({ "file": found.name, "ok": false, "diagnostics": failure.diagnostics }),
            );
            return Ok(1);
        }
        Err(failure) => return Err(failure.status(1)),
    }
    Ok(0)
}

fn show(config: Option<&PathBuf>, effective: bool) -> Result<u8, Failure> {
    let loaded = Loaded::read(config.map(PathBuf::as_path))?;
    let meaning: serde_json::Value =
        serde_json::from_slice(&loaded.config.meaning()).unwrap_or_default();
    let shown = if effective {
        let policy: serde_json::Value =
            serde_json::from_slice(&loaded.policy.to_json()).unwrap_or_default();
        json!({
            "file": loaded.config.file,
            "digest": loaded.config.digest(),
            "config": meaning,
            "policy": policy,
        })
    } else {
        meaning
    };
    report::out(serde_json::to_string_pretty(&shown).unwrap_or_default());
    Ok(0)
}
