//! `agentcontainer drift`: what the names in the lockfile stand for now, and what that says and does differently. Nothing is written.
//! 0 nothing has moved, 1 something has, 2 it could not be asked.

use std::path::PathBuf;

use serde_json::json;

use super::json;
use crate::drift;
use crate::loaded::Loaded;
use crate::lock;
use crate::organisation;
use crate::registries;
use crate::report::{self, Failure};
use crate::trust;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only these pins: `image`, or by the name the lockfile has for them
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The config whose lockfile is looked at
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Approve what the config asks for without being asked
    #[arg(long)]
    yes: bool,
    /// As JSON, every difference whole
    #[arg(long)]
    json: bool,
}

/// What could not be asked has not been compared.
const UNASKED: u8 = 2;

pub async fn run(args: Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let drifted = compared(&args).await.map_err(|f| f.status(UNASKED))?;
    if as_json {
        report::out_json(&json!({ "moved": !drifted.is_empty(), "pins": drifted }));
    } else if drifted.is_empty() {
        report::out("nothing has moved");
    } else {
        drifted.iter().flat_map(drift::lines).for_each(report::out);
        report::note("`agentcontainer lock --update NAME` locks what it is now");
    }
    Ok(u8::from(!drifted.is_empty()))
}

async fn compared(args: &Args) -> Result<Vec<drift::Drifted>, Failure> {
    organisation::up_to_date().await?;
    let mut loaded = Loaded::read_to_lock(args.config.as_deref())?;
    trust::require(&loaded, args.yes)?;
    let path = lock::path(&loaded, false);
    let Some(locked) = lock::read(&path)? else {
        return Err(
            Failure::new("not-locked", format!("{} is not there", path.display()))
                .help("`agentcontainer lock` makes it"),
        );
    };
    lock::about(&loaded, &locked, "the lockfile")?;
    let client = registries::client(&loaded.places, &loaded.host, false)?;
    if let Some(document) = organisation::of_workspace(&client, &loaded.config, &locked).await? {
        loaded.hold_under(document)?;
    }
    lock::features::hold(&loaded, &client, &locked).await?;
    let now = lock::as_of_now(&loaded, &client, &locked, &args.names).await?;
    drift::between(&loaded, &client, &locked, &now).await
}
