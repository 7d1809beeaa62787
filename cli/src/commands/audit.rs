//! `agentcontainer audit events`: a session's events from the enforcer's log, while it runs and after it has ended.

use super::json;
use crate::channel::{self, Enforcer};
use crate::events;
use crate::loaded;
use crate::places::Places;
use crate::record;
use crate::report::{self, Failure, escape};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a session's events, oldest first
    Events {
        /// The session: id, name or a unique beginning of either; the last one of this directory when left out
        name: Option<String>,
        /// Go on until the session is closed
        #[arg(short, long)]
        follow: bool,
        /// As they are kept: one JSON object a line
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let Command::Events {
        name,
        follow,
        json: as_json,
    } = &args.command;
    let as_json = json(*as_json);
    let places = Places::from_env()?;
    let session = session(&places, name.as_deref())?;
    let mut enforcer = enforcer(&places).await?;
    let mut stream = events::open(&mut enforcer, &session, 0, *follow).await?;
    loop {
        let line = stream
            .message()
            .await
            .map_err(|status| channel::refused("go on with the events", &status))?;
        let Some(line) = line else { return Ok(0) };
        if as_json {
            report::out(String::from_utf8_lossy(&line.json));
        } else if let Some(event) = events::parse(&line) {
            report::out(escape(&events::line(&event)));
        }
    }
}

/// The enforcer, which keeps the events of sessions that have ended too.
pub(super) async fn enforcer(places: &Places) -> Result<Enforcer, Failure> {
    let sidecar = channel::sidecar(places)?;
    match channel::running(&sidecar).await? {
        Some((enforcer, _)) => Ok(enforcer),
        None => Err(Failure::new(
            "enforcer-gone",
            "the enforcer, which keeps the events, does not run",
        )
        .help("agentcontainer enforcer start")),
    }
}

/// The session meant. One that nobody remembers is asked for by its whole id.
pub(super) fn session(places: &Places, name: Option<&str>) -> Result<String, Failure> {
    let sessions = record::join(record::all(places), &[]);
    let workspace = loaded::workspace()?;
    if name.is_none() {
        // Newest first.
        let last = sessions.iter().find(|s| s.record.workspace == workspace);
        if let Some(last) = last {
            return Ok(last.record.session.to_string());
        }
    }
    match record::pick(&sessions, name, &workspace, |_| true) {
        Ok(found) => Ok(found.record.session.to_string()),
        Err(failure) => match name.map(schema::session::SessionId::parse) {
            Some(Ok(id)) if failure.diagnostics.iter().any(|d| d.code == "no-session") => {
                Ok(id.to_string())
            }
            _ => Err(failure),
        },
    }
}
