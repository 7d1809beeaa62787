//! `agentcontainer`: reads the command line, hands it to the command's own file, and turns what comes back into an exit
//! status. 125 is ours; 126, 127 and everything else of `run` and `exec` is the program's; checks answer 0, 1 or 2.

mod agent;
mod always;
mod authority;
mod banner;
mod channel;
mod commands;
mod credentials;
mod drift;
mod embedded;
mod events;
mod files;
mod grants;
mod install;
mod keyless;
mod loaded;
mod lock;
mod network;
mod organisation;
mod patch;
mod places;
mod progress;
mod prompt;
mod question;
mod record;
mod registries;
mod relay;
mod report;
mod roots;
mod session;
mod signing;
mod sigstore;
mod start;
mod terminal;
mod trust;

use clap::Parser;

fn main() -> ! {
    let command = match commands::Cli::try_parse() {
        Ok(command) => command,
        Err(error) => misused(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let status = match &runtime {
        Ok(runtime) => runtime.block_on(commands::dispatch(command)),
        Err(e) => {
            report::Failure::new("runtime", format!("cannot start: {e}")).print();
            report::OURS
        }
    };
    // Before the runtime is dropped: it would wait for the thread that reads standard input, and so for a key.
    std::process::exit(i32::from(status))
}

/// What clap has to say, with the status that the command's other failures have: 2 could be the program's own.
fn misused(error: &clap::Error) -> ! {
    let _ = error.print();
    let runs = std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == "run" || command == "exec");
    std::process::exit(match error.exit_code() {
        0 => 0,
        _ if runs => i32::from(report::OURS),
        other => other,
    })
}
