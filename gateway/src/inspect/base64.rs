//! Base64 that stands for a key of a known format: every long run of its characters is decoded, at each of the four ways it
//! could begin, and what comes of it is looked through as text is. Line ends within it do not end it. Of most runs a look at a
//! few characters says that no key can come of them, and they are not decoded.

use super::formats::WEAK;
use super::rare::{self, KEY, Rare};
use super::runs::{Runs, Set};
use super::shape::LONGEST;
use super::{Destination, Found, Inspector, Look, Text, secrets};

/// Shorter runs hold no key.
const LEAST: usize = 24;

pub struct Base64;

impl Inspector for Base64 {
    fn code(&self) -> &'static str {
        "inspection-base64"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        search(text, rare::RARE.as_ref())
    }
}

/// `rare`: what says of a run that nothing is in it; without it each is decoded.
fn search(text: &Text<'_>, rare: Option<&Rare>) -> Look {
    let mut look = Look::default();
    let mut runs = LongRuns {
        bytes: text.bytes,
        lines: Runs::new(text.bytes, LEAST, &DIGITS),
        values: Vec::new(),
    };
    let mut decoded = Vec::new();
    while let Some((start, end)) = runs.next_run() {
        let more = text.more && end == text.bytes.len();
        let run = runs.run(start, end);
        if rare.is_some_and(|rare| !may_hold(rare, &run, more, text.to, &mut decoded)) {
            continue;
        }
        for skip in 0..4 {
            run.decode(skip, &mut decoded);
            let inner = secrets::every(&decoded, true, more, text.to, text.known);
            if let Some(found) = inner.found {
                let whole = Found {
                    kind: found.kind,
                    at: start,
                    length: end - start,
                };
                if !WEAK.contains(&found.kind) {
                    look.found = Some(whole);
                    return look;
                }
                look.found.get_or_insert(whole);
            }
            if inner.pending > 0 {
                // Line ends among them take room too; a few more than needed do no harm.
                let pending = inner.pending * 4 / 3 + 8;
                look.pending = look.pending.max(pending + pending / 16).min(end - start);
            }
        }
    }
    look
}

/// Whether a key may come of a run, in any of the four ways.
fn may_hold(
    rare: &Rare,
    run: &Run<'_>,
    more: bool,
    to: &Destination,
    decoded: &mut Vec<u8>,
) -> bool {
    let length = run.length();
    (0..4).any(|skip| {
        if run.may_have(rare, skip) {
            run.decode(skip, decoded);
            return rare.may_be_in(decoded, more, to);
        }
        // One that is open is at the end.
        let from = length.saturating_sub(OPEN) / 4 * 4 + skip;
        more && {
            run.decode(from, decoded);
            rare.may_be_in(decoded, true, to)
        }
    })
}

/// In so many characters lies what can be open at their end, and what stands ahead of it.
const OPEN: usize = (LONGEST + AHEAD) / 3 * 4;
/// More than the longest prefix and what has to stand ahead of one.
const AHEAD: usize = 64;

/// What each byte stands for; 64: nothing.
static VALUES: [u8; 256] = {
    let mut values = [64; 256];
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut i = 0;
    while i < 64 {
        values[digits[i as usize] as usize] = i;
        i += 1;
    }
    values[b'-' as usize] = 62;
    values[b'_' as usize] = 63;
    values
};

static DIGITS: Set = Set::new(b"+/-_");

struct LongRuns<'a> {
    bytes: &'a [u8],
    /// First lines that are long enough.
    lines: Runs<'a>,
    /// Of the run that was found last, where it has line ends in it.
    values: Vec<u8>,
}

impl LongRuns<'_> {
    /// Where the next long run begins and ends.
    fn next_run(&mut self) -> Option<(usize, usize)> {
        let line = self.lines.next()?;
        let (start, mut end) = (line.start, line.end);
        self.values.clear();
        if line_end(&self.bytes[end..]) > 0 {
            let mut line = line;
            loop {
                let line_of = self.bytes[line.clone()].iter();
                self.values.extend(line_of.map(|&b| VALUES[usize::from(b)]));
                end = line.end;
                match line_end(&self.bytes[end..]) {
                    0 => break,
                    n => end += n,
                }
                line = end..end + DIGITS.run(&self.bytes[end..]);
            }
            self.lines.seek(end);
        }
        Some((start, end))
    }

    fn run(&self, start: usize, end: usize) -> Run<'_> {
        if self.values.is_empty() {
            Run::Line(&self.bytes[start..end])
        } else {
            Run::Lines(&self.values)
        }
    }
}

/// The characters of a run.
enum Run<'a> {
    Line(&'a [u8]),
    /// What they stand for, without line ends.
    Lines(&'a [u8]),
}

impl Run<'_> {
    fn length(&self) -> usize {
        match self {
            Self::Line(text) | Self::Lines(text) => text.len(),
        }
    }

    /// Whether a key may be in what comes of all but the first `skip` characters.
    fn may_have(&self, rare: &Rare, skip: usize) -> bool {
        match self {
            Self::Line(text) => may_have(rare, text, skip, |b| VALUES[usize::from(b)]),
            Self::Lines(values) => may_have(rare, values, skip, |v| v),
        }
    }

    /// What comes of all but the first `skip` characters.
    fn decode(&self, skip: usize, out: &mut Vec<u8>) {
        out.clear();
        match self {
            Self::Line(text) => {
                let text = text.get(skip..).unwrap_or_default();
                decode(text, |b| VALUES[usize::from(b)], out);
            }
            Self::Lines(values) => decode(values.get(skip..).unwrap_or_default(), |v| v, out),
        }
    }
}

/// How long the line end is that a text begins with, also one in a string of JSON.
pub(super) fn line_end(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\n' | b'\r', ..] => 1,
        [b'\\', b'r', b'\\', b'n', ..] => 4,
        [b'\\', b'n', ..] => 2,
        _ => 0,
    }
}

#[inline(always)]
fn may_have(rare: &Rare, text: &[u8], skip: usize, value: impl Fn(u8) -> u8) -> bool {
    let (groups, _) = text.get(skip..).unwrap_or_default().as_chunks::<4>();
    rare.may_be_among(groups.len(), |at| {
        let [a, b, c, d] = groups[at];
        KEY.has(value(a) << 2 | value(b) >> 4)
            && KEY.has(value(b) << 4 | value(c) >> 2)
            && KEY.has(value(c) << 6 | value(d))
    })
}

fn decode(text: &[u8], value: impl Fn(u8) -> u8, out: &mut Vec<u8>) {
    out.reserve(text.len() / 4 * 3 + 3);
    let mut quads = text.chunks_exact(4);
    for quad in &mut quads {
        let word = u32::from(value(quad[0])) << 18
            | u32::from(value(quad[1])) << 12
            | u32::from(value(quad[2])) << 6
            | u32::from(value(quad[3]));
        out.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    match *quads.remainder() {
        [a, b] => out.push(value(a) << 2 | value(b) >> 4),
        [a, b, c] => {
            let (a, b, c) = (value(a), value(b), value(c));
            out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]);
        }
        _ => {}
    }
}
