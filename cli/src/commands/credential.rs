//! `agentcontainer credential list|test`: what this host grants, and whether its values can be had. Values are fetched and
//! thrown away; nothing of them is shown.

use serde_json::json;

use super::json;
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{credentials, loaded};

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
    /// Say whether a credential's value can be had: 0 it can, 1 not, 2 there is no such grant
    Test {
        /// Its name
        name: String,
    },
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    match &args.command {
        Command::List { json: as_json } => {
            let as_json = json(*as_json);
            list(as_json).await
        }
        Command::Test { name } => test(name).await,
    }
}

async fn list(as_json: bool) -> Result<u8, Failure> {
    let host = loaded::host_for(&Places::from_env()?, &loaded::workspace()?)?;
    let (mut found, mut rows) = (Vec::new(), Vec::new());
    for (name, grant) in &host.credentials {
        let problem = credentials::fetch(name.as_str(), grant)
            .await
            .err()
            .map(|failure| {
                let messages = failure.diagnostics.iter().map(|d| d.message.as_str());
                messages.collect::<Vec<_>>().join("; ")
            });
        let hosts: Vec<String> = grant
            .value
            .hosts
            .iter()
            .map(|host| format!("{}:{}", host.host, host.https_port()))
            .collect();
        rows.push(vec![
            name.to_string(),
            credentials::source(&grant.value.source),
            hosts.join(" "),
            problem.clone().unwrap_or_else(|| "resolves".to_owned()),
        ]);
        found.push(json!({
            "name": name,
            "source": grant.value.source.kind(),
            "hosts": hosts,
            "header": grant.value.header,
            "file": grant.file,
            "line": grant.at.line,
            "resolves": problem.is_none(),
            "problem": problem,
        }));
    }
    if as_json {
        report::out_json(&found);
    } else if rows.is_empty() {
        report::out("this host grants no credential");
    } else {
        for line in report::table(&rows).lines() {
            report::out(escape(line));
        }
    }
    Ok(0)
}

async fn test(name: &str) -> Result<u8, Failure> {
    let host = Places::from_env()
        .and_then(|places| loaded::host_for(&places, &loaded::workspace()?))
        .map_err(|failure| failure.status(2))?;
    let Some(grant) = host.credentials.get(name) else {
        return Err(Failure::new(
            "credential-not-granted",
            format!("this host grants no credential {name}"),
        )
        .help("`agentcontainer credential list` shows what it does")
        .status(2));
    };
    credentials::fetch(name, grant)
        .await
        .map_err(|failure| failure.status(1))?;
    report::out(format!(
        "{name}: resolves ({})",
        escape(&credentials::source(&grant.value.source))
    ));
    Ok(0)
}
