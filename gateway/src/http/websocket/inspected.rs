//! A WebSocket whose frames are read: what the agent sends is looked at message by message, and passes as it was; credentials' values
//! are taken out of what the server sends (`answers`). What is blocked closes both sides with 1008 where a frame can be put between
//! others, and resets them where not. Called by `websocket`.

mod answers;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use audit::Verdict;
use schema::inspection::Level;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use answers::Answers;
use hyper::body::Bytes;

use crate::connection::linger;
use crate::credentials::window::{Patterns, Window};
use crate::http::inspected::Report;
use crate::inspect::frames::{Frames, Kind, Malformed, Part, Side, close, unmask};
use crate::inspect::{Chain, Destination, Field, Finding, Scanner};
use crate::limits;
use crate::relay::{Carried, Patience, rested};
use crate::tls::upstream::Leg;
use crate::wire::Wire;

/// Why a connection is ended.
#[derive(Debug)]
enum Stop {
    Blocked(Finding),
    Malformed(Malformed),
    Io,
}

/// What looks at the frames of one connection.
pub struct Watch {
    frames: Frames,
    message: Scanner,
    control: Scanner,
    /// What stands for credentials: it belongs in no frame.
    patterns: Option<Arc<Patterns>>,
    windows: [Option<Window>; 2],
    report: Report,
    /// Values that may come back, with what stands for them.
    answers: Option<Arc<Patterns>>,
    /// Not passed on yet: whole or open frames.
    held: Vec<u8>,
    /// Payload of messages among them: where, how long.
    payload: Vec<(usize, usize)>,
    /// Where a control frame begins that is not whole.
    open_control: Option<usize>,
}

impl Watch {
    pub fn new(
        chain: &Arc<Chain>,
        to: &Destination,
        patterns: Option<Arc<Patterns>>,
        report: Report,
    ) -> Self {
        let scanner = || Scanner::new(Arc::clone(chain), Field::Message, to.clone());
        Self {
            frames: Frames::new(Side::Client),
            message: scanner(),
            control: scanner(),
            patterns,
            windows: [None, None],
            report,
            answers: None,
            held: Vec::new(),
            payload: Vec::new(),
            open_control: None,
        }
    }

    /// Has these taken out of what the server sends.
    pub fn answered(mut self, answers: Option<Arc<Patterns>>) -> Self {
        self.answers = answers;
        self
    }

    /// Takes what the agent sent and gives what may pass.
    fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Stop> {
        let start = self.held.len();
        self.held.extend_from_slice(bytes);
        let mut parts = Vec::new();
        let read = self.frames.push(bytes, &mut |part| parts.push(part));
        let mut flags = Vec::new();
        let looked = parts
            .into_iter()
            .try_for_each(|part| self.part(part, start, bytes, &mut flags));
        self.report.flags(&mut flags);
        looked?;
        read.map_err(Stop::Malformed)?;
        let passed = self.release();
        // Frames that carry nothing do not end what waits ahead of them.
        if self.held.len() > limits::INSPECTED_FRAMES {
            return Err(Stop::Blocked(endless()));
        }
        Ok(passed)
    }

    fn part(
        &mut self,
        part: Part,
        start: usize,
        bytes: &[u8],
        flags: &mut Vec<Finding>,
    ) -> Result<(), Stop> {
        let (scanner, window) = match part {
            Part::Payload { kind, .. } | Part::End { kind } if kind == Kind::Control => {
                (&mut self.control, &mut self.windows[0])
            }
            _ => (&mut self.message, &mut self.windows[1]),
        };
        match part {
            Part::Header => {}
            Part::Payload {
                kind,
                at,
                length,
                mask,
            } => {
                let mut text = Vec::with_capacity(length);
                unmask(&bytes[at..at + length], mask, &mut text);
                scanner.set_media(match kind {
                    Kind::Text => Some("text/plain"),
                    Kind::Binary | Kind::Control => Some("application/octet-stream"),
                });
                scanner.push(&text, flags).map_err(Stop::Blocked)?;
                if let Some(patterns) = &self.patterns {
                    let window = window.get_or_insert_with(|| Window::new(Arc::clone(patterns)));
                    if window.push(&text).1 {
                        return Err(Stop::Blocked(misplaced()));
                    }
                }
                if kind == Kind::Control {
                    // It is short: it waits until it is whole.
                    self.open_control.get_or_insert(start);
                } else {
                    self.payload.push((start + at, length));
                }
            }
            Part::End { kind } => {
                scanner.finish(flags).map_err(Stop::Blocked)?;
                *window = None;
                if kind == Kind::Control {
                    self.open_control = None;
                } else {
                    self.payload.clear();
                }
            }
        }
        Ok(())
    }

    /// Everything but the payload that waits and what follows it.
    fn release(&mut self) -> Vec<u8> {
        let mut end = self.open_control.unwrap_or(self.held.len());
        let mut left = self.message.pending();
        for &(at, length) in self.payload.iter().rev() {
            if left == 0 {
                break;
            }
            let waits = left.min(length);
            left -= waits;
            end = end.min(at + length - waits);
        }
        let rest = self.held.split_off(end);
        let out = std::mem::replace(&mut self.held, rest);
        self.payload.retain(|&(at, length)| at + length > end);
        for (at, length) in &mut self.payload {
            let cut = end.saturating_sub(*at);
            *at = (*at + cut).saturating_sub(end);
            *length -= cut;
        }
        self.open_control = self.open_control.map(|at| at - end);
        out
    }
}

fn endless() -> Finding {
    Finding {
        code: "inspection-encoding",
        kind: "frames without end behind an open message",
        ..misplaced()
    }
}

fn misplaced() -> Finding {
    Finding {
        code: "credential-misplaced",
        inspector: None,
        level: Level::Block,
        kind: "what stands for a credential",
        field: Field::Message,
        at: 0,
        length: 0,
    }
}

/// Carries frames until both sides have finished, or one is blocked. What came early: of the agent before its 101, of the
/// server with it.
pub async fn carry(
    mut agent: impl Wire,
    mut upstream: Leg,
    (early, first): (Vec<u8>, Bytes),
    mut watch: Watch,
    carried: &Carried,
    patience: Patience,
) -> &'static str {
    // Where frames end on the way that they were passed on.
    let (mut sent, mut received) = (Frames::new(Side::Client), Frames::new(Side::Server));
    let mut received_well = true;
    let mut answers = watch.answers.take().map(Answers::new);
    let result = {
        let (mut agent_read, mut agent_write) = tokio::io::split(&mut agent);
        let (mut upstream_read, mut upstream_write) = tokio::io::split(&mut upstream);
        let out = async {
            let mut bytes = early;
            loop {
                let passed = watch.push(&bytes)?;
                let mut wrote = |bytes: &[u8]| {
                    // It was read as frames before.
                    let _ = sent.push(bytes, &mut |_| {});
                    let moved = &carried.bytes_out;
                    moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                };
                write(&mut upstream_write, &passed, &mut wrote).await?;
                bytes.resize(limits::EXCHANGE_BUFFER, 0);
                match agent_read.read(&mut bytes).await.map_err(|_| Stop::Io)? {
                    0 => break,
                    n => bytes.truncate(n),
                }
            }
            carried.half_close();
            upstream_write.shutdown().await.map_err(|_| Stop::Io)
        };
        let back = async {
            let mut bytes = first.to_vec();
            let mut wrote = |bytes: &[u8]| {
                received_well &= received.push(bytes, &mut |_| {}).is_ok();
                let moved = &carried.bytes_in;
                moved.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            };
            loop {
                let read = match &mut answers {
                    Some(answers) => Some(answers.push(&bytes)?),
                    None => None,
                };
                let passed = read.as_deref().unwrap_or(&bytes);
                write(&mut agent_write, passed, &mut wrote).await?;
                bytes.resize(limits::EXCHANGE_BUFFER, 0);
                match upstream_read.read(&mut bytes).await.map_err(|_| Stop::Io)? {
                    0 => break,
                    n => bytes.truncate(n),
                }
            }
            // What a broken stream leaves open is no value as far as it came.
            if let Some(answers) = &mut answers {
                let left = answers.finish();
                write(&mut agent_write, &left, &mut wrote).await?;
            }
            carried.half_close();
            agent_write.shutdown().await.map_err(|_| Stop::Io)
        };
        tokio::select! {
            biased;
            result = async { tokio::try_join!(out, back) } => Some(result),
            () = rested(carried, patience) => None,
        }
    };
    let (code, closes) = match result {
        Some(Ok(_)) => {
            agent.disarm();
            return "closed";
        }
        Some(Err(Stop::Io)) => ("reset", None),
        None => ("idle-timeout", None),
        Some(Err(Stop::Blocked(finding))) => {
            watch.report.tell(&finding, Verdict::Deny);
            (finding.code, Some((1008, finding.to_string())))
        }
        Some(Err(Stop::Malformed(why))) => {
            let code = "websocket-frame";
            watch.report.say(code, &why.to_string(), Verdict::Deny);
            (code, Some((1002, why.to_string())))
        }
    };
    let Some((number, why)) = closes else {
        crate::relay::reset(upstream.socket());
        return code;
    };
    let mut mask = [0; 4];
    // A mask protects old proxies between the two from a hostile page; there is none.
    let _ = getrandom::fill(&mut mask);
    let told = sent.is_between() && !sent.is_closed() && {
        let farewell = close(Side::Client, number, "", mask);
        let said = async {
            upstream.write_all(&farewell).await?;
            upstream.shutdown().await
        };
        matches!(tokio::time::timeout(limits::LINGER, said).await, Ok(Ok(())))
    };
    if !told {
        crate::relay::reset(upstream.socket());
    }
    if received_well && received.is_between() && !received.is_closed() {
        linger(agent, &close(Side::Server, number, &why, mask)).await;
    }
    code
}

/// Writes all of it and tells of each piece that was written, so that a write which is given up has said how far it came.
async fn write(
    to: &mut (impl AsyncWrite + Unpin),
    mut bytes: &[u8],
    wrote: &mut impl FnMut(&[u8]),
) -> Result<(), Stop> {
    while !bytes.is_empty() {
        match to.write(bytes).await {
            Ok(0) | Err(_) => return Err(Stop::Io),
            Ok(n) => {
                wrote(&bytes[..n]);
                bytes = &bytes[n..];
            }
        }
    }
    to.flush().await.map_err(|_| Stop::Io)
}
