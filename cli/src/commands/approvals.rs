//! `agentcontainer approvals`: what rules that ask want of a person, of every session of this user.

use api::v1::approval::Change;
use serde_json::json;

use super::{audit, json as set_json};
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{channel, question};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Of this session alone: id, name or a unique beginning of either
    name: Option<String>,
    /// Go on with what comes, and say what became of it
    #[arg(short, long)]
    follow: bool,
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    let as_json = set_json(args.json);
    let places = Places::from_env()?;
    let session = match &args.name {
        Some(name) => audit::session(&places, Some(name))?,
        None => String::new(),
    };
    let mut enforcer = audit::enforcer(&places).await?;
    let mut stream = question::open(&mut enforcer, &session, args.follow).await?;
    let mut count = 0;
    loop {
        let change = stream
            .message()
            .await
            .map_err(|status| channel::refused("go on with what waits", &status))?;
        let Some(change) = change else {
            if !args.follow {
                return Ok(0);
            }
            return Err(Failure::new(
                "enforcer-gone",
                "the enforcer ended, or more came than was read; what it held is denied when it ends",
            ));
        };
        match change.change {
            Some(Change::Open(open)) => {
                count += 1;
                if as_json {
                    report::out_json(&json!({ "open": question::json(&open) }));
                } else {
                    report::out(question::shown(&open));
                }
            }
            Some(Change::Gone(gone)) if as_json => {
                report::out_json(&json!({ "gone": { "id": gone.id, "how": gone.how } }));
            }
            Some(Change::Gone(gone)) => {
                report::out(escape(&format!("{} is over: {}", gone.id, gone.how)));
            }
            Some(Change::Listed(_)) if !as_json && count == 0 && !args.follow => {
                report::out("nothing waits");
            }
            Some(Change::Listed(_)) if !as_json && count > 0 => {
                report::out(
                    "answer with `agentcontainer approve ID [--session]` or `agentcontainer deny ID`",
                );
            }
            Some(Change::Listed(_)) | None => {}
        }
    }
}
