//! `agentcontainer stop`: ends sessions. The program gets its stop signal, then everything of the session goes.

use super::{Desk, json};
use crate::record::Session;
use crate::report::{self, Failure};
use crate::session;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: id, name or a unique beginning of either; the only one of this directory when left out
    #[arg(conflicts_with = "all")]
    name: Option<String>,
    /// Every session of this user
    #[arg(long)]
    all: bool,
    /// Seconds to wait before the program is killed
    #[arg(short, long, value_name = "SECONDS")]
    time: Option<u32>,
    /// As JSON, one array of what ended
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let desk = Desk::open().await?;
    let sessions: Vec<Session> = if args.all {
        desk.sessions
            .iter()
            .filter(|s| s.record.ended.is_none() || s.container.is_some())
            .cloned()
            .collect()
    } else {
        vec![
            desk.pick(args.name.as_deref(), |s| {
                s.record.ended.is_none() || s.container.is_some()
            })?
            .clone(),
        ]
    };
    let mut enforcer = desk.enforcer().await?;
    let (mut result, mut ended_ones) = (Ok(0), Vec::new());
    for session in sessions {
        let mut record = session.record;
        let ended = async {
            if let Some(container) = &session.container
                && container.state == "running"
            {
                desk.engine.stop(&container.id, args.time).await?;
            }
            session::end(
                Some(&desk.engine),
                enforcer.as_mut(),
                &desk.places,
                &mut record,
                "stopped",
            )
            .await
        };
        match ended.await {
            Ok(()) if as_json => ended_ones.push(record),
            Ok(()) => report::out(record.shown()),
            Err(failure) => {
                failure.print();
                result = Err(Failure {
                    diagnostics: Vec::new(),
                    status: failure.status,
                });
            }
        }
    }
    if as_json {
        report::out_json(&ended_ones);
    }
    result
}
