//! `agentcontainer gc`: removes what no session uses: sessions whose program has ended or whose CLI died, what the enforcer
//! holds for nobody, sidecars and volumes of other versions, records of sessions long gone.

use std::fs;

use api::v1;
use engine::EngineError;

use super::{Desk, json};
use crate::record::{self, now};
use crate::report::{self, Failure};
use crate::{channel, session};

/// Records of ended sessions are kept this long, so that their events can be asked for by name.
const KEPT: u64 = 30 * 86_400;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also records of sessions that have just ended
    #[arg(long)]
    all: bool,
    /// As JSON, one array
    #[arg(long)]
    json: bool,
}

/// Content of registries that nobody has used for so long is asked for again when it is needed.
const UNUSED: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let desk = Desk::open().await?;
    let mut enforcer = desk.enforcer().await?;
    let mut removed = Vec::new();

    for found in &desk.sessions {
        if found.is_in_use() {
            continue;
        }
        let open = found.record.ended.is_none();
        let mut record = found.record.clone();
        if open || found.container.is_some() {
            session::end(
                Some(&desk.engine),
                enforcer.as_mut(),
                &desk.places,
                &mut record,
                "collected",
            )
            .await?;
            removed.push(format!("session {}", record.shown()));
        }
        let old = record
            .ended
            .is_some_and(|ended| now().saturating_sub(ended) > KEPT);
        if old || args.all {
            let _ = fs::remove_dir_all(record.dir(&desk.places));
        }
    }

    if let Some(enforcer) = &mut enforcer {
        let records = record::all(&desk.places);
        let held = enforcer
            .list_sessions(v1::ListSessionsRequest {})
            .await
            .map_err(|status| channel::refused("list its sessions", &status))?
            .into_inner()
            .sessions;
        // One that is open has a record that says so.
        let open = |session: &str| {
            records
                .iter()
                .any(|r| r.session.as_str() == session && r.ended.is_none())
        };
        for orphan in held.iter().filter(|s| !open(&s.session)) {
            session::close(enforcer, &orphan.session, "collected").await?;
            removed.push(format!("session {} of the enforcer", orphan.session));
        }
    }
    sidecars(&desk, &mut removed).await?;
    let freed = crate::registries::cache(&desk.places).sweep(UNUSED);
    if freed > 0 {
        removed.push(format!("{freed} bytes of what registries sent"));
    }

    if as_json {
        report::out_json(&removed);
    } else {
        for what in &removed {
            report::out(report::escape(what));
        }
    }
    Ok(0)
}

/// Sidecars of this user that are not of this version and hold no session's record, and what is named after them.
async fn sidecars(desk: &Desk, removed: &mut Vec<String>) -> Result<(), Failure> {
    let Ok(current) = channel::sidecar(&desk.places) else {
        return Ok(());
    };
    // What follows the version in the names of this user's sidecars.
    let name = current.container_name();
    let Some((_, owner)) = name.split_once(&current.embedded.short()) else {
        return Ok(());
    };
    let in_use: Vec<String> = record::all(&desk.places)
        .into_iter()
        .filter(|r| r.ended.is_none())
        .map(|r| r.enforcer)
        .chain([current.embedded.short()])
        .collect();
    let version = |name: &str| {
        name.strip_prefix("agentcontainer-enforcer-")
            .and_then(|rest| rest.strip_suffix(owner))
            .map(str::to_owned)
    };
    for sidecar in desk.engine.sidecars().await? {
        let Some(version) = version(&sidecar.name) else {
            continue;
        };
        if !in_use.contains(&version) {
            desk.engine.remove(&sidecar.id).await?;
            let _ = fs::remove_dir_all(desk.places.control(&version));
            removed.push(format!("enforcer {}", sidecar.name));
        }
    }
    for volume in desk.engine.sidecar_volumes().await? {
        let Some(version) = volume.strip_prefix("agentcontainer-init-") else {
            continue;
        };
        if in_use.iter().any(|used| used == version) {
            continue;
        }
        match desk.engine.remove_volume(&volume).await {
            Ok(()) => removed.push(format!("volume {volume}")),
            // Another user's enforcer has it.
            Err(EngineError::VolumeInUse(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
