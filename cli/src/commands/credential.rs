//! `agentcontainer credential list|test|revoke|rotate`: what this host grants, credentials and secrets, whether its values can be had,
//! and values of open sessions taken away or handed anew. Nothing of a value is shown.

use std::collections::BTreeSet;
use std::path::Path;

use schema::config::secret::DIRECTORY;
use schema::hostconfig::HostConfig;
use serde_json::json;

use super::json;
use crate::credentials::supply::{Kind, Supply};
use crate::credentials::{Asker, hand};
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{credentials, grants, loaded};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is granted to this workspace, and try every source
    List {
        /// As JSON, one array
        #[arg(long)]
        json: bool,
    },
    /// Say whether the value of a credential or secret can be had: 0 it can, 1 not, 2 there is no such grant
    Test {
        /// Its name
        name: String,
    },
    /// Take a credential or secret away from sessions that are open, for as long as they live
    Revoke {
        /// Its name
        name: String,
        /// From this session alone: its id or name
        #[arg(long)]
        session: Option<String>,
    },
    /// Fetch the value of a credential or secret anew and hand it to every open session that has it
    Rotate {
        /// Its name
        name: String,
        /// To this session alone: its id or name
        #[arg(long)]
        session: Option<String>,
    },
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    match &args.command {
        Command::List { json: as_json } => {
            let as_json = json(*as_json);
            list(as_json).await
        }
        Command::Test { name } => test(name).await,
        Command::Revoke { name, session } => revoke(name, session.as_deref()).await,
        Command::Rotate { name, session } => rotate(name, session.as_deref()).await,
    }
}

async fn list(as_json: bool) -> Result<u8, Failure> {
    let host = loaded::host_for(&Places::from_env()?, &loaded::workspace()?)?;
    let (mut found, mut rows) = (Vec::new(), Vec::new());
    for (name, grant) in &host.credentials {
        let problem = problem(&host, Kind::Credential, name.as_str()).await;
        let mut with_ports = grant.value.clone();
        for host in &mut with_ports.hosts {
            host.port = Some(host.https_port());
        }
        let hosts = credentials::places(name.as_str(), &with_ports, host.remote.as_ref());
        rows.push(vec![
            name.to_string(),
            credentials::source(&grant.value.source),
            hosts.join(" "),
            problem.clone().unwrap_or_else(|| "resolves".to_owned()),
        ]);
        found.push(json!({
            "name": name,
            "kind": Kind::Credential.word(),
            "source": grant.value.source.kind(),
            "hosts": hosts,
            "header": grant.value.header,
            "file": grant.file,
            "line": grant.at.line,
            "resolves": problem.is_none(),
            "problem": problem,
        }));
    }
    for (name, grant) in &host.secrets {
        let problem = problem(&host, Kind::Secret, name.as_str()).await;
        rows.push(vec![
            name.to_string(),
            credentials::source(&grant.value.source),
            format!("{DIRECTORY}/{name}"),
            problem.clone().unwrap_or_else(|| "resolves".to_owned()),
        ]);
        found.push(json!({
            "name": name,
            "kind": Kind::Secret.word(),
            "source": grant.value.source.kind(),
            "file": grant.file,
            "line": grant.at.line,
            "resolves": problem.is_none(),
            "problem": problem,
        }));
    }
    if as_json {
        report::out_json(&found);
    } else if rows.is_empty() {
        report::out("this host grants no credential and no secret");
    } else {
        for line in report::table(&rows).lines() {
            report::out(escape(line));
        }
    }
    Ok(0)
}

/// Why a value cannot be had now.
async fn problem(host: &HostConfig, kind: Kind, name: &str) -> Option<String> {
    let grant = Supply::of(host, kind, name)?;
    let fetched = credentials::fetch(host, name, &grant, Asker::List).await;
    let failure = fetched.err()?;
    let messages = failure.diagnostics.iter().map(|d| d.message.as_str());
    Some(messages.collect::<Vec<_>>().join("; "))
}

async fn test(name: &str) -> Result<u8, Failure> {
    let host = Places::from_env()
        .and_then(|places| loaded::host_for(&places, &loaded::workspace()?))
        .map_err(|failure| failure.status(2))?;
    let Some(grant) = Supply::named(&host, name) else {
        return Err(Failure::new(
            "credential-not-granted",
            format!("this host grants no credential {name}, and no secret of that name"),
        )
        .help("`agentcontainer credential list` shows what it does")
        .status(2));
    };
    credentials::fetch(&host, name, &grant, Asker::Command)
        .await
        .map_err(|failure| failure.status(1))?;
    report::out(format!(
        "{name}: resolves ({})",
        escape(&credentials::source(&grant.source))
    ));
    Ok(0)
}

async fn revoke(name: &str, session: Option<&str>) -> Result<u8, Failure> {
    let places = Places::from_env()?;
    let hand::Revoked { taken: had, failed } = hand::revoke(&places, name, session, None).await;
    if had.is_empty() && failed.is_empty() {
        return Err(nobody(name));
    }
    for holder in &had {
        report::out(format!("revoked: {name} from {}", escape(holder.shown())));
    }
    let of: BTreeSet<(&Path, Kind)> = had
        .iter()
        .map(|holder| (holder.workspace.as_path(), holder.kind))
        .collect();
    for (workspace, kind) in of {
        let host = loaded::host_for(&places, workspace)?;
        let Some(grant) = Supply::of(&host, kind, name) else {
            continue;
        };
        let how = if grants::is_ours(&places, &grant.file) {
            format!(
                "`agentcontainer grant --revoke {name} --workspace {}`",
                workspace.display()
            )
        } else {
            format!("{}:{}", grant.file, grant.at.line)
        };
        report::note(format!(
            "the next session of {} gets it again: the grant is taken back by {how}",
            workspace.display()
        ));
    }
    for failure in &failed {
        failure.print();
    }
    Ok(u8::from(!failed.is_empty()))
}

async fn rotate(name: &str, session: Option<&str>) -> Result<u8, Failure> {
    let places = Places::from_env()?;
    let rotated = hand::rotate(&places, name, session).await?;
    if rotated.is_empty() {
        return Err(nobody(name));
    }
    let mut status = 1;
    for (holder, result) in &rotated {
        match result {
            Ok(()) => {
                status = 0;
                report::out(format!("rotated: {name} in {}", escape(holder.shown())));
            }
            Err(failure) => failure.print(),
        }
    }
    // What a person took away is no failure of the others.
    let failed = |result: &Result<(), Failure>| {
        let code = result.as_ref().err().and_then(|f| f.diagnostics.first());
        code.is_some_and(|d| d.code != "credential-revoked")
    };
    if rotated.iter().any(|(_, result)| failed(result)) {
        status = 1;
    }
    Ok(status)
}

fn nobody(name: &str) -> Failure {
    Failure::new(
        "no-session",
        format!("no open session that is meant has a credential {name}, nor a secret"),
    )
    .help("`agentcontainer ps` lists what is open")
    .status(1)
}
