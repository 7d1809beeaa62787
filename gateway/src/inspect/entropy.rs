//! Words that look random: long enough, of capitals, small letters and digits, with nearly as much information as their
//! length can hold. What programs send all the time and is none (digests, ids, signatures of fields) is left out. It finds
//! keys of formats that nobody knows, and more that are no keys at all (docs/inspection.md).

use super::runs::{Runs, Set};
use super::{Field, Found, Inspector, Look, Text};

const LEAST: usize = 20;
/// Longer ones are data.
const MOST: usize = 128;
/// Runs of words and slashes that are longer are data too.
const DATA: usize = 256;

/// Fields that hold tokens, tags and signatures by their meaning.
const LEFT_OUT: &[&str] = &[
    "authorization",
    "proxy-authorization",
    "cookie",
    "content-type",
    "content-digest",
    "content-md5",
    "digest",
    "repr-digest",
    "etag",
    "if-match",
    "if-none-match",
    "sec-websocket-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "x-api-key",
    "x-goog-api-key",
    "x-request-id",
    "idempotency-key",
];

pub struct Entropy;

impl Inspector for Entropy {
    fn code(&self) -> &'static str {
        "inspection-entropy"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        let looked_at = match text.field {
            Field::Method | Field::Path => false,
            Field::Header(name) | Field::Trailer(name) => {
                !LEFT_OUT.contains(&name.as_str()) && !name.starts_with("x-amz-")
            }
            Field::Body | Field::Message => is_text(text.media),
            Field::Query => true,
        };
        if looked_at {
            search(text)
        } else {
            Look::default()
        }
    }
}

/// Bodies whose words are words; of one that says nothing too.
fn is_text(media: Option<&str>) -> bool {
    media.is_none_or(|media| {
        media.starts_with("text/")
            || media.ends_with("json")
            || media.ends_with("xml")
            || media == "application/x-www-form-urlencoded"
            || media == "application/x-ndjson"
    })
}

fn search(text: &Text<'_>) -> Look {
    let bytes = text.bytes;
    let mut runs = Runs::new(bytes, LEAST, &RUN);
    if text.at > 0 {
        // The overlap may begin within a run, which was decided about before.
        let cut = bytes.iter().position(|&b| !RUN.has(b));
        runs.seek(cut.unwrap_or(0));
    }
    for run in runs {
        // A longer run is Base64 of something, and looks random piece by piece. One that is open is decided about later.
        if run.len() <= DATA
            && !(text.more && run.end == bytes.len())
            && let Some(found) = in_run(text, run.start, run.end)
        {
            return Look {
                found: Some(found),
                pending: 0,
            };
        }
    }
    let open = RUN.last(bytes, DATA).filter(|_| text.more);
    Look {
        found: None,
        pending: open.map_or(0, |open| bytes.len() - open),
    }
}

/// The first word of a run that looks random.
pub(super) fn in_run(text: &Text<'_>, start: usize, end: usize) -> Option<Found> {
    let run = &text.bytes[start..end];
    let mut at = start;
    for word in run.split(|&b| b == b'/' || b == b'=') {
        let ahead = &text.bytes[..at];
        if (LEAST..=MOST).contains(&word.len())
            && is_random(word)
            && !is_digest(ahead, word)
            && !text.known.iter().any(|known| known == word)
        {
            return Some(Found {
                kind: "a word that looks random",
                at,
                length: word.len(),
            });
        }
        at += word.len() + 1;
    }
    None
}

/// Of words, and what Base64 and paths have between them.
static RUN: Set = Set::new(b"+_-/=");

/// A digest by its name (`sha512-…`, `h1:…`), or by its alphabet: git's ids, UUIDs.
fn is_digest(ahead: &[u8], word: &[u8]) -> bool {
    const NAMES: [&[u8]; 6] = [
        b"sha1-", b"sha256-", b"sha384-", b"sha512-", b"SHA256", b"h1",
    ];
    NAMES.iter().any(|name| word.starts_with(name))
        || ahead.ends_with(b"SHA256:")
        || ahead.ends_with(b"h1:")
        || word.iter().all(|&b| b.is_ascii_hexdigit() || b == b'-')
}

/// Three kinds of characters, often enough changing, and information close to what so many characters can hold.
fn is_random(word: &[u8]) -> bool {
    let mut kinds = [0; 4];
    for &b in word {
        kinds[usize::from(KINDS[usize::from(b)])] += 1;
    }
    let [digits, upper, lower, _] = kinds;
    if digits < 2 || upper < 3 || lower < 3 {
        return false;
    }
    let changes = word
        .windows(2)
        .filter(|pair| KINDS[usize::from(pair[0])] != KINDS[usize::from(pair[1])])
        .count();
    if changes * 5 <= word.len() * 2 {
        return false;
    }
    let mut counts = [0u16; 256];
    for &b in word {
        counts[usize::from(b)] += 1;
    }
    let length = word.len() as f64;
    let information: f64 = counts
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = f64::from(count) / length;
            -share * share.log2()
        })
        .sum();
    // Of characters drawn from 62, words of this length have about 0.95 of it.
    let most = length.log2().min(62f64.log2());
    information > 0.85 * most
}

/// Digits, capitals, small letters, others.
static KINDS: [u8; 256] = {
    let mut kinds = [3; 256];
    let mut b = 0;
    while b < 256 {
        kinds[b] = match b as u8 {
            b'0'..=b'9' => 0,
            b'A'..=b'Z' => 1,
            b'a'..=b'z' => 2,
            _ => 3,
        };
        b += 1;
    }
    kinds
};
