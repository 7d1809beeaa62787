//! `agentcontainer approve ID` and `agentcontainer deny ID`: a person's answer to what waits.

use std::path::PathBuf;

use api::v1;
use serde_json::json;

use super::{audit, json as set_json};
use crate::always::Always;
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{channel::Enforcer, question};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The question, as `agentcontainer approvals` shows it
    id: String,
    /// The same too until the session ends: by this rule, to this host and port, with this method and path; or this program
    #[arg(long, conflicts_with = "always")]
    session: bool,
    /// Show the change of the config by which nobody is asked any more; with --write make it, and allow for the session
    #[arg(long)]
    always: bool,
    /// With --always: change the config; the next `run` asks for approval of that
    #[arg(long, requires = "always")]
    write: bool,
    /// With --always: the config to change, instead of the one the session was started with
    #[arg(long, value_name = "FILE", requires = "always")]
    config: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct DenyArgs {
    /// The question, as `agentcontainer approvals` shows it
    id: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = set_json(args.json);
    let places = Places::from_env()?;
    let mut enforcer = audit::enforcer(&places).await?;
    if args.always {
        return always(args, &places, &mut enforcer, as_json).await;
    }
    let question = question::answer(&mut enforcer, &args.id, true, args.session).await?;
    if as_json {
        let allowed = if args.session { "session" } else { "once" };
        report::out_json(&json!({ "allowed": allowed, "question": question::json(&question) }));
    } else if args.session {
        let scope = question::scope(&question);
        report::out(format!("allowed until the session ends: {scope}"));
    } else {
        report::out(format!("allowed once: {}", question::what(&question)));
    }
    Ok(0)
}

pub async fn deny(args: &DenyArgs) -> Result<u8, Failure> {
    let as_json = set_json(args.json);
    let mut enforcer = audit::enforcer(&Places::from_env()?).await?;
    let question = question::answer(&mut enforcer, &args.id, false, false).await?;
    if as_json {
        report::out_json(&json!({ "allowed": null, "question": question::json(&question) }));
    } else {
        report::out(format!("denied: {}", question::what(&question)));
    }
    Ok(0)
}

async fn always(
    args: &Args,
    places: &Places,
    enforcer: &mut Enforcer,
    as_json: bool,
) -> Result<u8, Failure> {
    let open = question::all(enforcer, "").await?;
    let question: v1::Question = open
        .into_iter()
        .find(|question| question.id == args.id)
        .ok_or_else(|| question::gone(&format!("there is no question {:?}", args.id)))?;
    let change = Always::of(&question, places, args.config.as_deref())?;
    let (lines, file) = (change.lines(), change.file().to_owned());
    let allows = change.allows().to_owned();
    if args.write {
        // First: what cannot be written is not allowed either. The question was open a moment ago.
        let written = change.write()?;
        if let Err(failure) = question::answer(enforcer, &args.id, true, true).await {
            // What is refused now is not what the next run begins with either.
            let now = match written.take_back() {
                Ok(()) => "is as it was",
                Err(_) => "was changed",
            };
            return Err(failure.help(format!("{file} {now}, and nothing allowed in the session")));
        }
    }
    if as_json {
        report::out_json(&json!({
            "question": question::json(&question),
            "file": file,
            "difference": lines,
            "written": args.write,
        }));
        return Ok(0);
    }
    report::out(escape(&match args.write {
        true => format!("changed {file}:"),
        false => format!("the change of {file}:"),
    }));
    lines.iter().for_each(|line| report::out(escape(line)));
    report::out(escape(&format!("it allows {allows}")));
    if args.write {
        let scope = question::scope(&question);
        report::out(format!("allowed until the session ends: {scope}"));
        report::out("the next `agentcontainer run` asks for approval of the change");
    } else {
        report::out("nothing was changed or allowed: --write does both");
    }
    Ok(0)
}
