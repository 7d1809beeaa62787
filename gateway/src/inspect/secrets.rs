//! Keys of known formats, wherever they stand in a text that may hold one (`rare`). One pass looks for all prefixes at once; what
//! follows one is held to the format's shape. A key on its way to a host where it belongs, over TLS, is none of ours.

use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, MatchKind};

use super::formats::{Before, FORMATS, Format, WEAK};
use super::rare::RARE;
use super::shape::Verdict;
use super::{Destination, Found, Inspector, Look, Text};

pub struct Secrets;

impl Inspector for Secrets {
    fn code(&self) -> &'static str {
        "inspection-secret"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        search(text.bytes, text.at == 0, text.more, text.to, text.known)
    }
}

struct Prefixes {
    /// `None`: it could not be built, and everything is a finding.
    automaton: Option<AhoCorasick>,
    /// Of each pattern.
    formats: Vec<&'static Format>,
}

static PREFIXES: LazyLock<Prefixes> = LazyLock::new(|| {
    let all = || {
        FORMATS
            .iter()
            .flat_map(|format| format.prefixes.iter().map(move |prefix| (prefix, format)))
    };
    Prefixes {
        automaton: AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(all().map(|(prefix, _)| prefix))
            .ok(),
        formats: all().map(|(_, format)| format).collect(),
    }
});

/// The first key in `bytes` that does not belong where it goes. `begins`: nothing stands ahead of them.
pub fn search(bytes: &[u8], begins: bool, more: bool, to: &Destination, known: &[Vec<u8>]) -> Look {
    match &*RARE {
        Some(rare) if !rare.may_be_in(bytes, more, to) => Look::default(),
        _ => every(bytes, begins, more, to, known),
    }
}

/// The same, whatever may be in them.
pub fn every(bytes: &[u8], begins: bool, more: bool, to: &Destination, known: &[Vec<u8>]) -> Look {
    let Some(automaton) = &PREFIXES.automaton else {
        return Look {
            found: Some(Found {
                kind: "no format could be looked for",
                at: 0,
                length: 0,
            }),
            pending: 0,
        };
    };
    let mut look = Look::default();
    for hit in automaton.find_iter(bytes) {
        let format = PREFIXES.formats[hit.pattern().as_usize()];
        // What begins where the overlap does was decided about before.
        let cut = hit.start() == 0 && !begins;
        if cut || !stands_alone(&bytes[..hit.start()], format.before) || belongs(format, to) {
            continue;
        }
        match format.shape.judge(&bytes[hit.end()..], more) {
            Verdict::No => {}
            // The first one that is open holds everything behind it back.
            Verdict::More => look.pending = look.pending.max(bytes.len() - hit.start()),
            Verdict::Yes(length) => {
                let end = hit.end() + length;
                if !is_known(&bytes[hit.start()..end], known) {
                    let found = Found {
                        kind: format.name,
                        at: hit.start(),
                        length: end - hit.start(),
                    };
                    if !WEAK.contains(&format.name) {
                        look.found = Some(found);
                        return look;
                    }
                    // A strong one behind it counts more.
                    look.found.get_or_insert(found);
                }
            }
        }
    }
    look
}

pub fn belongs(format: &Format, to: &Destination) -> bool {
    to.tls && to.name.as_ref().is_some_and(|name| format.belongs(name))
}

/// Whether it is what stands for a credential.
fn is_known(found: &[u8], known: &[Vec<u8>]) -> bool {
    let within = |all: &[u8], part: &[u8]| {
        !part.is_empty() && all.windows(part.len()).any(|window| window == part)
    };
    known
        .iter()
        .any(|known| within(known, found) || within(found, known))
}

pub fn stands_alone(ahead: &[u8], before: Before) -> bool {
    match before {
        Before::Anything => true,
        Before::Key(alphabet, least) => {
            ahead.len() >= least
                && ahead[ahead.len() - least..]
                    .iter()
                    .all(|&b| alphabet.has(b))
        }
        Before::Digits(least) => {
            ahead.len() >= least && ahead[ahead.len() - least..].iter().all(u8::is_ascii_digit)
        }
        Before::Unsigned => {
            let signed = [&b"Credential="[..], b"Credential%3D", b"AWSAccessKeyId="];
            !signed.iter().any(|name| ahead.ends_with(name))
                && stands_alone(ahead, Before::Boundary)
        }
        Before::Boundary => match ahead {
            [.., last] if !last.is_ascii_alphanumeric() => true,
            // The end of an escape, as in `\n` and `\u0022`.
            [.., b'\\', last] => b"nrtbfav0e".contains(last),
            [.., b'\\', b'u', a, b, c, d] => [a, b, c, d].iter().all(|b| b.is_ascii_hexdigit()),
            [.., b'\\', b'x', a, b] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
            [.., b'%', a, b] => a.is_ascii_hexdigit() && b.is_ascii_hexdigit(),
            [] => true,
            _ => false,
        },
    }
}
