//! `agentcontainer-gateway --channel FD [--lane FD]... [--require-unprivileged]`: started by the enforcer, by nobody else.

use std::process::ExitCode;

fn main() -> ExitCode {
    match arguments(std::env::args().skip(1)) {
        Ok(Arguments {
            channel,
            lanes,
            require_unprivileged,
        }) => {
            let take =
                |fd| gateway::take_fd(fd).map_err(|error| format!("descriptor {fd}: {error}"));
            let taken = take(channel).and_then(|channel| {
                let lanes = lanes.into_iter().map(take).collect::<Result<_, _>>()?;
                Ok((channel, lanes))
            });
            // There is no end that is not an error: the enforcer is gone, or something is wrong.
            let error = match taken {
                Ok((channel, lanes)) => match gateway::run(channel, lanes, require_unprivileged) {
                    Err(error) => error.to_string(),
                },
                Err(error) => error,
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

struct Arguments {
    channel: i32,
    lanes: Vec<i32>,
    require_unprivileged: bool,
}

fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let usage =
        "usage: agentcontainer-gateway --channel FD [--lane FD]... [--require-unprivileged]";
    let (mut channel, mut lanes) = (None, Vec::new());
    let mut require_unprivileged = false;
    while let Some(argument) = arguments.next() {
        let mut descriptor = || {
            let number = arguments.next().and_then(|fd| fd.parse().ok());
            // Each is one socket, and taken over once.
            let number = number.filter(|fd| channel != Some(*fd) && !lanes.contains(fd));
            number.ok_or_else(|| usage.to_owned())
        };
        match argument.as_str() {
            "--channel" if channel.is_none() => {
                let fd = descriptor()?;
                channel = Some(fd);
            }
            "--lane" => {
                let fd = descriptor()?;
                lanes.push(fd);
            }
            "--require-unprivileged" => require_unprivileged = true,
            _ => return Err(usage.to_owned()),
        }
    }
    Ok(Arguments {
        channel: channel.ok_or_else(|| usage.to_owned())?,
        lanes,
        require_unprivileged,
    })
}
