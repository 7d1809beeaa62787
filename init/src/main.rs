//! pid 1 of the agent's container: static, tiny, without rights. It waits until the enforcer has answered its challenge
//! and a canary connection was refused, runs the lifecycle stages, then the program; forwards signals, reaps, and exits
//! with the program's status. Without an answer it exits 125 and nothing else ever ran.

mod arguments;
mod challenge;
mod probe;
mod supervise;

use std::process::ExitCode;

use arguments::Arguments;

/// Our own failures (the container convention).
const OURS: u8 = 125;

fn main() -> ExitCode {
    if let Err(error) = supervise::close_to_tracing() {
        return fail(&error);
    }
    let arguments = match Arguments::parse(std::env::args_os().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => return fail(&error),
    };
    if let Some(target) = &arguments.probe
        && arguments.wait.is_zero()
    {
        return probe::run(target);
    }
    let mask = match supervise::keep_signals() {
        Ok(mask) => mask,
        Err(error) => return fail(&error),
    };
    if let Err(error) = challenge::wait(arguments.wait) {
        return fail(&error);
    }
    if let Some(target) = &arguments.probe {
        return probe::run(target);
    }
    match supervise::run(&arguments, mask) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("agentcontainer-init: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("agentcontainer-init: {error}");
    ExitCode::from(OURS)
}
