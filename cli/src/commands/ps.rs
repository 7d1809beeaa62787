//! `agentcontainer ps`: this user's sessions that have not ended.

use std::collections::HashMap;

use api::v1;
use serde::Serialize;

use super::{Desk, json};
use crate::record::ago;
use crate::report::{self, Failure, escape};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// As JSON, one array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    name: Option<String>,
    workspace: String,
    state: String,
    image: String,
    /// Seconds since 1970.
    started: u64,
    /// `None`: the enforcer does not run.
    denied: Option<u64>,
    wired: Option<bool>,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let desk = Desk::open().await?;
    let held: Option<HashMap<String, v1::Session>> = match desk.enforcer().await? {
        Some(mut enforcer) => Some(
            enforcer
                .list_sessions(v1::ListSessionsRequest {})
                .await
                .map_err(|status| crate::channel::refused("list its sessions", &status))?
                .into_inner()
                .sessions
                .into_iter()
                .map(|s| (s.session.clone(), s))
                .collect(),
        ),
        None => None,
    };
    let mut rows = Vec::new();
    for session in &desk.sessions {
        let id = session.record.session.to_string();
        let enforced = held.as_ref().and_then(|held| held.get(&id));
        let state = match (&session.container, enforced) {
            (Some(container), _) => container.state.clone(),
            (None, Some(_)) => "no container".to_owned(),
            // Ended, and nothing of it is left.
            (None, None) => continue,
        };
        rows.push(Row {
            id,
            name: session.record.name.clone(),
            workspace: session.record.workspace.display().to_string(),
            state,
            image: session.record.image.clone(),
            started: session.record.created,
            denied: enforced.map(|s| s.denied),
            wired: enforced.map(|s| s.wired),
        });
    }
    if as_json {
        report::out_json(&rows);
        return Ok(0);
    }
    let mut table = vec![
        [
            "ID",
            "NAME",
            "STATE",
            "STARTED",
            "DENIED",
            "IMAGE",
            "WORKSPACE",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for row in &rows {
        table.push(vec![
            row.id.clone(),
            row.name.clone().unwrap_or_else(|| "-".to_owned()),
            escape(&row.state),
            ago(row.started),
            row.denied.map_or_else(|| "-".to_owned(), |n| n.to_string()),
            escape(&row.image),
            escape(&row.workspace),
        ]);
    }
    report::out(report::table(&table));
    Ok(0)
}
