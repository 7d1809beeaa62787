//! `agentcontainer logs`: what a session's program wrote, its two streams apart; with `--network`, what it reached and what it
//! was refused, from the events that the enforcer keeps.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use engine::containers;
use engine::stream::Channel;

use super::{Desk, audit, json};
use crate::network::{Colours, Line};
use crate::places::Places;
use crate::report::{self, Failure, escape};
use crate::{channel, events};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The session: id, name or a unique beginning of either; the only one of this directory when left out (with
    /// --network the last one)
    name: Option<String>,
    /// Requests, connections and what was refused instead, also of a session that has ended
    #[arg(long)]
    network: bool,
    /// With --network: the events themselves, one JSON object a line
    #[arg(long, requires = "network")]
    json: bool,
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// The last so many lines
    #[arg(short = 'n', long = "tail", value_name = "LINES")]
    tail: Option<u32>,
}

pub async fn run(args: &Args) -> Result<u8, Failure> {
    if args.network {
        return network(args).await;
    }
    let desk = Desk::open().await?;
    let session = desk.pick(args.name.as_deref(), |s| s.container.is_some())?;
    let Some(container) = &session.container else {
        return Err(Failure::new("no-session", "the session has no container"));
    };
    let tty = desk.engine.inspect(&container.id).await?.tty;
    let logs = containers::Logs {
        follow: args.follow,
        tail: args.tail,
        timestamps: false,
    };
    let mut output = desk.engine.logs(&container.id, tty, logs).await?;
    let mut shown = [
        Shown::to(std::io::stdout().is_terminal()),
        Shown::to(std::io::stderr().is_terminal()),
    ];
    loop {
        let piece = output
            .next()
            .await
            .map_err(|e| Failure::new("stream", format!("the log broke off: {e}")))?;
        let Some((channel, bytes)) = piece else { break };
        let written = match channel {
            Channel::Stdout => write(&mut std::io::stdout().lock(), &shown[0].fit(&bytes)),
            Channel::Stderr => write(&mut std::io::stderr().lock(), &shown[1].fit(&bytes)),
        };
        if written.is_err() {
            // Whoever read it has enough.
            return Ok(0);
        }
    }
    for (index, rest) in shown.iter_mut().map(Shown::rest).enumerate() {
        let _ = if index == 0 {
            write(&mut std::io::stdout().lock(), &rest)
        } else {
            write(&mut std::io::stderr().lock(), &rest)
        };
    }
    Ok(0)
}

async fn network(args: &Args) -> Result<u8, Failure> {
    let as_json = json(args.json);
    let places = Places::from_env()?;
    let session = audit::session(&places, args.name.as_deref())?;
    let mut enforcer = audit::enforcer(&places).await?;
    let colours = Colours::default();
    let mut last = VecDeque::new();
    let mut next = 0;
    // What is on record, of which the last lines are shown; then what comes.
    for follow in [false, true] {
        if follow && !args.follow {
            break;
        }
        let mut stream = events::open(&mut enforcer, &session, next, follow).await?;
        while let Some(line) = stream
            .message()
            .await
            .map_err(|status| channel::refused("go on with the events", &status))?
        {
            let Some(event) = events::parse(&line) else {
                continue;
            };
            next = event.seq + 1;
            let Some(shown) = Line::of(&event) else {
                continue;
            };
            let shown = if as_json {
                String::from_utf8_lossy(&line.json).into_owned()
            } else {
                shown.paint(&colours)
            };
            match args.tail {
                Some(tail) if !follow => {
                    last.push_back(shown);
                    if last.len() > tail as usize {
                        last.pop_front();
                    }
                }
                _ => report::out(shown),
            }
        }
        last.drain(..).for_each(report::out);
    }
    Ok(0)
}

fn write(to: &mut dyn Write, bytes: &[u8]) -> std::io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

/// What an agent wrote earlier is shown on a terminal with control characters escaped; a file or pipe gets it as it is.
struct Shown {
    terminal: bool,
    line: Vec<u8>,
}

/// Bytes of a line that are held back for its end.
const MAX_LINE: usize = 64 * 1024;

impl Shown {
    fn to(terminal: bool) -> Self {
        Self {
            terminal,
            line: Vec::new(),
        }
    }

    fn fit(&mut self, bytes: &[u8]) -> Vec<u8> {
        if !self.terminal {
            return bytes.to_vec();
        }
        let mut out = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                out.extend(self.rest());
                out.push(b'\n');
            } else {
                self.line.push(byte);
                if self.line.len() >= MAX_LINE {
                    out.extend(self.rest());
                }
            }
        }
        out
    }

    fn rest(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let text = String::from_utf8_lossy(line);
        // Tabs are no harm.
        let parts: Vec<String> = text.split('\t').map(escape).collect();
        parts.join("\t").into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_output_cannot_steer_the_terminal() {
        let mut shown = Shown::to(true);
        let mut out = shown.fit(b"a\x1b[2J\tb\r\nc");
        out.extend(shown.rest());
        assert_eq!(String::from_utf8_lossy(&out), "a\\u{1b}[2J\tb\nc");
        assert_eq!(Shown::to(false).fit(b"\x1b[2J"), b"\x1b[2J");
    }

    #[test]
    fn a_line_without_end_is_not_held_back_for_ever() {
        let mut shown = Shown::to(true);
        assert!(shown.fit(&vec![b'x'; MAX_LINE - 1]).is_empty());
        assert_eq!(shown.fit(b"x").len(), MAX_LINE);
    }
}
