//! `agentcontainer rm`: removes what is left of a session whose program has ended, its record included.

use super::{Desk, json};
use crate::report::{self, Failure};
use crate::session;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The sessions: id, name or a unique beginning of either
    #[arg(required = true)]
    names: Vec<String>,
    /// Also sessions that still run
    #[arg(short, long)]
    force: bool,
    /// As JSON, one array of what was removed
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let mut removed = Vec::new();
    let desk = Desk::open().await?;
    let mut enforcer = desk.enforcer().await?;
    for name in &args.names {
        let session = desk.pick(Some(name), |_| true)?;
        if session.is_running() && !args.force {
            return Err(Failure::new(
                "session-running",
                format!("{} still runs", session.record.shown()),
            )
            .help("`agentcontainer stop` ends it; --force does both"));
        }
        let mut record = session.record.clone();
        session::end(
            Some(&desk.engine),
            enforcer.as_mut(),
            &desk.places,
            &mut record,
            "removed",
        )
        .await?;
        let dir = record.dir(&desk.places);
        std::fs::remove_dir_all(&dir).map_err(|e| Failure::io("remove", &dir, &e))?;
        if as_json {
            removed.push(record);
        } else {
            report::out(record.shown());
        }
    }
    if as_json {
        report::out_json(&removed);
    }
    Ok(0)
}
