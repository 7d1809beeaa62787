//! Base64 that stands for a key of a known format: every long run of its characters is decoded, at each of the four ways it
//! could begin, and what comes of it is looked through as text is. Line ends within it do not end it.

use super::formats::WEAK;
use super::{Found, Inspector, Look, Text, secrets};

/// Shorter runs hold no key.
const LEAST: usize = 24;

pub struct Base64;

impl Inspector for Base64 {
    fn code(&self) -> &'static str {
        "inspection-base64"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        let mut look = Look::default();
        let mut runs = Runs {
            bytes: text.bytes,
            at: 0,
            values: Vec::new(),
        };
        let mut decoded = Vec::new();
        while let Some((start, end)) = runs.next_run() {
            let more = text.more && end == text.bytes.len();
            for skip in 0..4 {
                decode(runs.values.get(skip..).unwrap_or_default(), &mut decoded);
                let inner = secrets::search(&decoded, true, more, text.to, text.known);
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
}

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

struct Runs<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Of the run that was found last.
    values: Vec<u8>,
}

impl Runs<'_> {
    /// Where the next long run begins and ends.
    fn next_run(&mut self) -> Option<(usize, usize)> {
        while self.at < self.bytes.len() {
            let start = self.at;
            let mut end = start;
            self.values.clear();
            loop {
                let line = &self.bytes[end..];
                let length = line
                    .iter()
                    .position(|&b| VALUES[usize::from(b)] == 64)
                    .unwrap_or(line.len());
                // Not copied before it is known to be long.
                if self.values.is_empty() && length < LEAST {
                    end += length;
                    break;
                }
                self.values
                    .extend(line[..length].iter().map(|&b| VALUES[usize::from(b)]));
                end += length;
                match line_end(&self.bytes[end..]) {
                    0 => break,
                    n => end += n,
                }
            }
            self.at = end.max(start + 1);
            if self.values.len() >= LEAST {
                return Some((start, end));
            }
        }
        None
    }
}

/// How long the line end is that a text begins with, also one in a string of JSON.
fn line_end(text: &[u8]) -> usize {
    match text {
        [b'\r', b'\n', ..] => 2,
        [b'\n' | b'\r', ..] => 1,
        [b'\\', b'r', b'\\', b'n', ..] => 4,
        [b'\\', b'n', ..] => 2,
        _ => 0,
    }
}

fn decode(values: &[u8], out: &mut Vec<u8>) {
    out.clear();
    out.reserve(values.len() / 4 * 3 + 3);
    let mut quads = values.chunks_exact(4);
    for quad in &mut quads {
        let word = u32::from(quad[0]) << 18
            | u32::from(quad[1]) << 12
            | u32::from(quad[2]) << 6
            | u32::from(quad[3]);
        out.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    match *quads.remainder() {
        [a, b] => out.push(a << 2 | b >> 4),
        [a, b, c] => out.extend_from_slice(&[a << 2 | b >> 4, b << 4 | c >> 2]),
        _ => {}
    }
}
