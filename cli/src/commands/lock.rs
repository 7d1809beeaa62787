//! `agentcontainer lock`: looks up what the config names and writes it down by digest.

use std::path::PathBuf;

use schema::lockfile::{Platform, agent_pin};
use serde_json::json;

use super::json;
use crate::loaded::Loaded;
use crate::lock::{self, Change, How, features};
use crate::organisation;
use crate::registries;
use crate::report::{self, Failure, escape};
use crate::trust;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Look this one up again: `image`, `policy`, a feature as it is named, `mcp:NAME`, `component:NAME`, `skill:NAME`; of
    /// `agent:NAME` the next run
    #[arg(long, value_name = "NAME")]
    update: Vec<String>,
    /// Say whether the lockfile is current, and write nothing: 0 it is, 1 it is not, 2 it could not be read
    #[arg(long, conflicts_with_all = ["update", "platform", "yes"])]
    check: bool,
    /// A platform that every image has to have, such as linux/arm64
    #[arg(long, value_name = "PLATFORM")]
    platform: Vec<Platform>,
    /// Ask no registry: what is not locked yet is an error
    #[arg(long)]
    offline: bool,
    /// The config to lock
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Approve what the config asks for, and what has moved, without being asked
    #[arg(long)]
    yes: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    if args.check {
        return check(&args, as_json);
    }
    if !args.offline {
        organisation::up_to_date().await?;
    }
    let loaded = Loaded::read_to_lock(args.config.as_deref())?;
    // Registries are asked on the workspace's behalf.
    trust::require(&loaded, args.yes)?;
    let path = lock::path(&loaded, false);
    let client = registries::client(&loaded.places, &loaded.host, args.offline)?;
    let is_agent = |name: &&String| name.starts_with("agent:");
    let anew: Vec<String> = args.update.iter().filter(is_agent).cloned().collect();
    let how = How {
        update: args.update,
        update_all: false,
        platforms: args.platform,
        yes: args.yes,
    };
    let old = lock::read(&path)?;
    let (lockfile, changes) = lock::make(&loaded, &client, old, &how).await?;
    let _one = lock::agents::alone(&loaded, &path)?;
    // Registries may take their time, and an agent have been pinned meanwhile.
    let now = lock::read(&path)?;
    let lockfile = lock::agents::with_agents_of(lockfile, &now, &how);
    lock::agents::take_away(&loaded, &path, now.as_ref(), &lockfile)?;
    let written = lock::write(&path, &lockfile)?;
    let written = features::write_devcontainer(&loaded, &lockfile)? || written;
    if as_json {
        report::out_json(&json!({
            "file": path,
            "written": written,
            "changes": changes,
            "lockfile": lockfile,
        }));
        return Ok(0);
    }
    lock::say(&changes);
    for (name, pin) in lockfile.pins() {
        let platforms = match (pin.local, pin.platforms.len()) {
            (true, _) => ", of this machine's engine alone".to_owned(),
            (false, 0 | 1) => String::new(),
            (false, n) => format!(", {n} platforms"),
        };
        report::out(format!(
            "{}  {}  {}{platforms}",
            escape(&name),
            escape(pin.reference.as_str()),
            pin.digest
        ));
    }
    for (name, pin) in &lockfile.local_features {
        report::out(format!("{}  {}", escape(name), pin.digest));
    }
    for (name, pin) in &lockfile.agents {
        report::out(format!(
            "{}  {} {}  {}",
            agent_pin(name),
            escape(&pin.package),
            escape(&pin.version),
            pin.integrity()
        ));
    }
    for name in anew {
        report::note(format!(
            "{name} has no pin now: the next `agentcontainer run {}` installs and pins it",
            name.trim_start_matches("agent:")
        ));
    }
    features::say(&lockfile);
    let kept = changes
        .iter()
        .filter(|change| matches!(change, Change::Kept { .. }))
        .count();
    report::note(match (written, kept) {
        (false, _) => format!("{} is current", path.display()),
        (true, _) => format!("wrote {}", path.display()),
    });
    Ok(0)
}

/// Whether the lockfile is about the config as it is. Nobody is asked anything.
fn check(args: &Args, as_json: bool) -> Result<u8, Failure> {
    let loaded = Loaded::read_to_lock(args.config.as_deref()).map_err(|f| f.status(2))?;
    let path = lock::path(&loaded, false);
    let mut wrong = Vec::new();
    match lock::read(&path).map_err(|f| f.status(2))? {
        None => wrong.push(format!("{} is not there", path.display())),
        Some(lockfile) => {
            let drift = lockfile.drift(&lock::wanted(&loaded));
            wrong.extend(drift.iter().map(ToString::to_string));
            let changed = features::changed(&loaded, &lockfile).into_iter();
            wrong.extend(changed.filter_map(|(_, checked)| {
                Some(checked.err()?.diagnostics.first()?.message.clone())
            }));
            let theirs = features::devcontainer_drift(&loaded, &lockfile);
            wrong.extend(theirs.map_err(|f| f.status(2))?);
            if lockfile.config != loaded.config.digest() {
                wrong.push(format!(
                    "{} has changed since it was locked",
                    loaded.config.file
                ));
            }
        }
    }
    let current = wrong.is_empty();
    if as_json {
        report::out_json(&json!({ "file": path, "current": current, "problems": wrong }));
    } else if current {
        report::out(format!("{}: current", path.display()));
    } else {
        for line in &wrong {
            report::out(escape(line));
        }
        report::note("`agentcontainer lock` brings it up to date");
    }
    Ok(u8::from(!current))
}
