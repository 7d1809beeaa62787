//! `agentcontainer enforcer start|stop|status`: the sidecar by hand. `run` starts it by itself.

use api::v1;
use engine::sidecar::State;
use serde_json::json;

use crate::channel;
use crate::places::Places;
use crate::report::{self, Failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start it, if it does not run
    Start,
    /// Stop and remove it; refused while it holds sessions
    Stop {
        /// Also while it holds sessions: they lose the network until it is back
        #[arg(long)]
        force: bool,
    },
    /// Say whether it runs, and what the kernel carries
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let places = Places::from_env()?;
    let sidecar = channel::sidecar(&places)?;
    match &args.command {
        Command::Start => {
            let engine = connect().await?;
            engine.info().await?.check()?;
            if channel::running(&sidecar).await?.is_none() {
                channel::start(&engine, &sidecar).await?;
            }
            report::out(sidecar.container_name());
            Ok(0)
        }
        Command::Stop { force } => {
            let engine = connect().await?;
            // One that does not match is stopped too: that is how a mismatch ends.
            if !force
                && let Ok(Some((_, status))) = channel::running(&sidecar).await
                && status.sessions > 0
            {
                return Err(Failure::new(
                    "enforcer-in-use",
                    format!("the enforcer holds {} sessions", status.sessions),
                )
                .help("`agentcontainer stop --all` first"));
            }
            engine.sidecar_stop(&sidecar).await?;
            let _ = std::fs::remove_dir_all(&sidecar.control);
            Ok(0)
        }
        Command::Status { json } => status(&sidecar, super::json(*json)).await,
    }
}

async fn connect() -> Result<engine::Engine, Failure> {
    let host = crate::loaded::host()?;
    Ok(engine::Engine::connect(host.engine().clone()).await?)
}

async fn status(sidecar: &engine::sidecar::Sidecar, as_json: bool) -> Result<u8, Failure> {
    let running = channel::running(sidecar).await.map_err(|f| f.status(1))?;
    let state = match connect().await {
        Ok(engine) => engine
            .sidecar_state(sidecar)
            .await
            .map_err(|e| Failure::from(e).status(2))?,
        Err(failure) => return Err(failure.status(2)),
    };
    let Some((mut enforcer, status)) = running else {
        if as_json {
            report::out_json(&json!({ "running": false, "container": sidecar.container_name() }));
        } else {
            let word = match state {
                State::Running => "its container runs, and it does not answer",
                State::Stopped => "stopped",
                State::Absent => "not there",
            };
            report::out(format!("{}: {word}", sidecar.container_name()));
        }
        return Ok(1);
    };
    let sessions = enforcer
        .list_sessions(v1::ListSessionsRequest {})
        .await
        .map_err(|status| channel::refused("list its sessions", &status).status(2))?
        .into_inner()
        .sessions;
    if as_json {
        let capabilities: Vec<_> = status
            .capabilities
            .iter()
            .map(|c| json!({ "name": c.name, "there": c.there, "detail": c.detail }))
            .collect();
        let sessions: Vec<_> = sessions
            .iter()
            .map(|s| {
                json!({
                    "session": s.session, "workspace": s.workspace, "generation": s.generation, "wired": s.wired,
                    "gatewayPid": s.gateway_pid, "gatewayRestarts": s.gateway_restarts, "denied": s.denied, "lost": s.lost,
                    "names": s.names, "state": s.state,
                    "hooks": s.hooks.iter().map(|h| json!({ "name": h.name, "program": h.program_id, "attached": h.attached })).collect::<Vec<_>>(),
                })
            })
            .collect();
        report::out_json(&json!({
            "running": true, "container": sidecar.container_name(), "version": status.version,
            "binarySha256": status.binary_sha256, "kernel": status.kernel, "capabilities": capabilities, "sessions": sessions,
        }));
        return Ok(0);
    }
    report::out(format!(
        "{}: version {} on {}",
        sidecar.container_name(),
        status.version,
        report::escape(&status.kernel)
    ));
    for capability in &status.capabilities {
        report::out(format!(
            "  {} {} {}",
            report::mark(Some(capability.there)),
            capability.name,
            report::escape(&capability.detail)
        ));
    }
    for session in &sessions {
        report::out(format!(
            "  session {} {} generation {} denied {} lost {}",
            session.session,
            if session.wired { "wired" } else { "not wired" },
            session.generation,
            session.denied,
            session.lost
        ));
    }
    Ok(0)
}
