//! `agentcontainer-gateway --channel FD [--require-unprivileged]`: started by the enforcer, by nobody else.

use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok((fd, require_unprivileged)) => {
            // There is no end that is not an error: the enforcer is gone, or something is wrong.
            let error = match gateway::take_fd(fd) {
                Ok(channel) => match gateway::run(channel, require_unprivileged) {
                    Err(error) => error.to_string(),
                },
                Err(error) => format!("descriptor {fd}: {error}"),
            };
            eprintln!("agentcontainer-gateway: {error}");
            // At once: no destructor may keep a connection open a moment longer.
            std::process::exit(1)
        }
        Err(usage) => {
            eprintln!("agentcontainer-gateway: {usage}");
            ExitCode::from(2)
        }
    }
}

fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<(i32, bool), String> {
    let usage = "usage: agentcontainer-gateway --channel FD [--require-unprivileged]";
    let mut channel = None;
    let mut require_unprivileged = false;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--channel" if channel.is_none() => {
                channel = arguments.next().and_then(|fd| fd.parse().ok());
                if channel.is_none() {
                    return Err(usage.to_owned());
                }
            }
            "--require-unprivileged" => require_unprivileged = true,
            _ => return Err(usage.to_owned()),
        }
    }
    channel
        .map(|fd| (fd, require_unprivileged))
        .ok_or_else(|| usage.to_owned())
}
