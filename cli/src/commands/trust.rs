//! `agentcontainer trust list|revoke`: what was approved, and taking it back.

use std::path::PathBuf;

use super::json;
use crate::places::Places;
use crate::record::ago;
use crate::report::{self, Failure, escape};
use crate::{loaded, trust};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List approvals
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
        /// With everything that was approved
        #[arg(short, long)]
        verbose: bool,
    },
    /// Take every approval of a workspace back
    Revoke {
        /// The workspace; this directory when left out
        workspace: Option<PathBuf>,
    },
}

pub fn run(args: &Args) -> Result<u8, Failure> {
    let places = Places::from_env()?;
    match &args.command {
        Command::List {
            json: as_json,
            verbose,
        } => {
            let all = trust::all(&places);
            if json(*as_json) {
                report::out_json(&all);
                return Ok(0);
            }
            for workspace in &all {
                for approval in &workspace.approvals {
                    report::out(format!(
                        "{}  {}  {}  {}",
                        escape(&workspace.workspace.display().to_string()),
                        escape(&approval.review.path),
                        &approval.hash.hex()[..12],
                        ago(approval.at)
                    ));
                    if *verbose {
                        for line in &approval.review.lines {
                            report::out(format!("  {}", escape(&line.text)));
                        }
                    }
                }
            }
            Ok(0)
        }
        Command::Revoke { workspace } => {
            let workspace = match workspace {
                // One that is gone is named by the path it had.
                Some(path) => path.canonicalize().unwrap_or_else(|_| path.clone()),
                None => loaded::workspace()?,
            };
            if trust::revoke(&places, &workspace)? {
                report::out(format!(
                    "revoked: {}",
                    escape(&workspace.display().to_string())
                ));
                Ok(0)
            } else {
                Err(Failure::new(
                    "no-approval",
                    format!("nothing was approved for {}", workspace.display()),
                )
                .help("`agentcontainer trust list` shows what was"))
            }
        }
    }
}
