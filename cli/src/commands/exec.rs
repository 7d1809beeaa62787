//! `agentcontainer exec`: a command in a running session, under the same cgroup and therefore the same policy.

use std::collections::BTreeMap;
use std::time::Duration;

use engine::Engine;
use engine::containers::Exec;

use super::Desk;
use crate::authority;
use crate::record::Session;
use crate::relay::{self, End, Remote, Signals};
use crate::report::{Failure, OURS};
use crate::terminal::{self, Raw};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: id, name or a unique beginning of either; the only one of this directory when left out
    name: Option<String>,
    /// Set a variable; without a value, to what it is here
    #[arg(short = 'e', long = "env", value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// As another user of the container
    #[arg(short, long)]
    user: Option<String>,
    /// In another directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// The command
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub async fn run(args: Args) -> Result<u8, Failure> {
    let env = super::environment(&args.env)?;
    let desk = Desk::open().await?;
    let session = desk.pick(args.name.as_deref(), Session::is_running)?;
    let Some(container) = &session.container else {
        return Err(Failure::new("no-session", "the session has no container"));
    };
    if let Some(name) = session.record.beyond(&env.taken) {
        return Err(Failure::new(
            "beyond-ceiling",
            format!("reading {name} from this host's environment is beyond the policies that the session began under"),
        )
        .help(format!("`-e {name}=VALUE` sets it to what you write")));
    }
    authority::refresh(&desk.places, &session.record).await;
    let tty = terminal::is_interactive();
    let mut set = match tty {
        true => engine::terminal::environment(&|name| std::env::var(name).ok()),
        false => BTreeMap::new(),
    };
    set.extend(env.set);
    let exec = Exec {
        command: args.command,
        env: set,
        user: args.user,
        working_dir: args.workdir,
        tty,
        stdin: true,
    };
    let mut signals = Signals::register()?;
    let id = desk.engine.exec_create(&container.id, &exec).await?;
    let (input, output) = desk.engine.exec_start(&id, tty).await?;
    let raw = tty.then(Raw::enter).flatten();
    let remote = Command {
        engine: &desk.engine,
        id: &id,
    };
    let end = relay::relay(Some(input), output, &mut signals, tty, &remote).await;
    drop(raw);
    match end? {
        End::Output => status(&desk.engine, &id).await,
        End::Interrupted => Ok(128 + 2),
        End::Told(number) => Ok(u8::try_from(128 + number).unwrap_or(OURS)),
    }
}

/// The output has ended; the engine may take a moment to know how the command did.
async fn status(engine: &Engine, id: &str) -> Result<u8, Failure> {
    for _ in 0..200 {
        if let (Some(code), _) = engine.exec_status(id).await? {
            return Ok(u8::try_from(code).unwrap_or(OURS));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(Failure::new(
        "exec-status",
        "the command closed its output and still runs; its status is not known",
    ))
}

struct Command<'a> {
    engine: &'a Engine,
    id: &'a str,
}

impl Remote for Command<'_> {
    async fn resize(&self, rows: u16, columns: u16) {
        // The engine refuses a size before the command has begun.
        for _ in 0..20 {
            if self
                .engine
                .exec_resize(self.id, rows, columns)
                .await
                .is_ok()
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Engines have no way to signal a command; a terminal's own Ctrl-C travels as a byte, and a second one leaves it.
    async fn signal(&self, _name: &'static str) {}
}
