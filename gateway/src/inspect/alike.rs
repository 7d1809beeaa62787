//! The quick looks against plain ones, which read every byte: whatever the text, and however it is cut, both say the same.
#![allow(clippy::unwrap_used)]

use ::base64::Engine as _;
use ::base64::engine::general_purpose::STANDARD;

use super::formats::samples::all;
use super::*;

/// The quick one, and the plain one.
type Pair = (Arc<dyn Inspector>, Arc<dyn Inspector>);

struct PlainSecrets;

impl Inspector for PlainSecrets {
    fn code(&self) -> &'static str {
        "inspection-secret"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        secrets::every(text.bytes, text.at == 0, text.more, text.to, text.known)
    }
}

/// Every run is decoded, and all that comes of it is looked at.
struct PlainBase64;

impl Inspector for PlainBase64 {
    fn code(&self) -> &'static str {
        "inspection-base64"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        let mut look = Look::default();
        let mut at = 0;
        while at < text.bytes.len() {
            let start = at;
            let (mut end, mut run) = (at, Vec::new());
            loop {
                let is = |b: &&u8| b.is_ascii_alphanumeric() || b"+/-_".contains(b);
                let line = text.bytes[end..].iter().take_while(is).count();
                run.extend_from_slice(&text.bytes[end..end + line]);
                end += line;
                if run.len() < 24 {
                    break;
                }
                match base64::line_end(&text.bytes[end..]) {
                    0 => break,
                    n => end += n,
                }
            }
            at = end.max(start + 1);
            if run.len() < 24 {
                continue;
            }
            let more = text.more && end == text.bytes.len();
            for skip in 0..4 {
                let inner = secrets::every(&decoded(&run[skip..]), true, more, text.to, text.known);
                if let Some(found) = inner.found {
                    let whole = Found {
                        kind: found.kind,
                        at: start,
                        length: end - start,
                    };
                    if !formats::WEAK.contains(&found.kind) {
                        look.found = Some(whole);
                        return look;
                    }
                    look.found.get_or_insert(whole);
                }
                if inner.pending > 0 {
                    let pending = inner.pending * 4 / 3 + 8;
                    look.pending = look.pending.max(pending + pending / 16).min(end - start);
                }
            }
        }
        look
    }
}

/// What a run stands for, its last characters too where they are no whole group.
fn decoded(run: &[u8]) -> Vec<u8> {
    use ::base64::alphabet::URL_SAFE;
    use ::base64::engine::{GeneralPurpose, GeneralPurposeConfig};
    let config = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(::base64::engine::DecodePaddingMode::Indifferent);
    let url = |b: &u8| match b {
        b'+' => b'-',
        b'/' => b'_',
        b => *b,
    };
    let mut run: Vec<u8> = run.iter().map(url).collect();
    if run.len() % 4 == 1 {
        run.pop();
    }
    GeneralPurpose::new(&URL_SAFE, config).decode(run).unwrap()
}

/// Run by run.
struct PlainEntropy;

impl Inspector for PlainEntropy {
    fn code(&self) -> &'static str {
        "inspection-entropy"
    }

    fn look(&self, text: &Text<'_>) -> Look {
        let bytes = text.bytes;
        let is = |b: &u8| b.is_ascii_alphanumeric() || b"+_-/=".contains(b);
        let cut = bytes.iter().position(|b| !is(b)).unwrap_or(0);
        let mut at = if text.at == 0 { 0 } else { cut };
        while at < bytes.len() {
            let run = bytes[at..].iter().position(|b| !is(b));
            let end = run.map_or(bytes.len(), |run| at + run);
            if end - at <= 256 {
                if text.more && end == bytes.len() {
                    return Look {
                        found: None,
                        pending: end - at,
                    };
                }
                if let Some(found) = entropy::in_run(text, at, end) {
                    return Look {
                        found: Some(found),
                        pending: 0,
                    };
                }
            }
            at = end + 1;
        }
        Look::default()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn of(&mut self, alphabet: &[u8], length: usize) -> Vec<u8> {
        (0..length)
            .map(|_| alphabet[self.below(alphabet.len())])
            .collect()
    }

    /// Words, keys, nearly keys, beginnings of them, in plain, in Base64 with and without line ends, and noise between.
    fn text(&mut self) -> Vec<u8> {
        const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const BETWEEN: [&str; 16] = [
            " ", "\n", "\"", "\\n", "\\u0022", "\\x22", "%22", ": ", "=", "/", "-", "_", "", "x",
            ".", "\r\n",
        ];
        let samples = all();
        let mut out = Vec::new();
        for _ in 0..1 + self.below(6) {
            let sample = &samples[self.below(samples.len())];
            let mut piece = match self.below(8) {
                0 => self.of(BASE64, 90),
                1 => (0..self.below(60)).map(|_| self.below(256) as u8).collect(),
                2 => self.of(b"abc def-ghi_j.k:l~/=+", 80),
                3 => sample.prefix.as_bytes().to_vec(),
                _ => sample.text().into_bytes(),
            };
            match self.below(6) {
                // Nearly one.
                0 if !piece.is_empty() => {
                    let at = self.below(piece.len());
                    piece[at] = b"!x~ \0A"[self.below(6)];
                }
                1 => piece.truncate(self.below(400)),
                2 => {
                    let (ahead, behind) = (self.below(90), self.below(900));
                    let mut noise = |length| self.of(b"ab c.\n\xff", length);
                    let parts = [noise(ahead), piece, noise(behind)];
                    piece = STANDARD.encode(parts.concat()).into_bytes();
                    if self.below(2) == 0 {
                        let lines: Vec<&[u8]> = piece.chunks(24 + self.below(60)).collect();
                        piece = lines.join(&b"\n"[..]);
                    }
                    piece.drain(..self.below(4).min(piece.len()));
                }
                _ => {}
            }
            out.extend(piece);
            out.extend(BETWEEN[self.below(BETWEEN.len())].as_bytes());
        }
        out
    }
}

/// What a chain of one says of a body in pieces: how much waits after each, what it flags, and what stops it.
fn said(
    inspector: Arc<dyn Inspector>,
    level: Level,
    to: &Destination,
    pieces: &[&[u8]],
) -> (Vec<usize>, Vec<Finding>, Option<Finding>) {
    let chain = Chain::default().with(Some(Name::Secrets), level, inspector);
    let mut scanner = Scanner::new(Arc::new(chain), Field::Body, to.clone());
    let (mut waits, mut flags) = (Vec::new(), Vec::new());
    for piece in pieces {
        match scanner.push(piece, &mut flags) {
            Ok(pending) => waits.push(pending),
            Err(finding) => return (waits, flags, Some(finding)),
        }
    }
    let stopped = scanner.finish(&mut flags).err();
    (waits, flags, stopped)
}

#[test]
fn every_format_is_among_what_is_looked_for_quickly() {
    assert!(rare::RARE.is_some());
}

#[test]
fn a_quick_look_and_a_plain_one_say_the_same_however_a_text_is_cut() {
    let pairs: [Pair; 3] = [
        (Arc::new(Secrets), Arc::new(PlainSecrets)),
        (Arc::new(Base64), Arc::new(PlainBase64)),
        (Arc::new(Entropy), Arc::new(PlainEntropy)),
    ];
    let hosts = ["evil.example", "api.github.com", "sts.amazonaws.com"];
    let mut random = Random(7);
    let mut found = [0; 3];
    for round in 0..250 {
        let text = random.text();
        let to = Destination {
            name: Some(hosts[round % 3].parse().unwrap()),
            tls: round % 5 != 0,
        };
        let level = [Level::Block, Level::Flag][round % 2];
        let mut cuts = vec![vec![&text[..]], text.chunks(1 + random.below(9)).collect()];
        for _ in 0..6 {
            let (head, tail) = text.split_at(random.below(text.len() + 1));
            cuts.push(vec![head, tail]);
        }
        for (i, (quick, plain)) in pairs.iter().enumerate() {
            for pieces in &cuts {
                let one = said(Arc::clone(quick), level, &to, pieces);
                let other = said(Arc::clone(plain), level, &to, pieces);
                assert_eq!(one, other, "{i} {:?}", String::from_utf8_lossy(&text));
                found[i] += usize::from(one.2.is_some() || !one.1.is_empty());
            }
        }
    }
    // Some of each, or nothing was compared.
    assert!(found.iter().all(|&found| found > 50), "{found:?}");
}

#[test]
fn every_key_is_cut_at_every_place_alike() {
    let to = Destination {
        name: None,
        tls: true,
    };
    for sample in all() {
        let text = format!("{{\"a\": \"{}\"}}", sample.text());
        let encoded = STANDARD.encode(&text);
        let pairs: [(Pair, &str); 2] = [
            ((Arc::new(Secrets), Arc::new(PlainSecrets)), &text),
            ((Arc::new(Base64), Arc::new(PlainBase64)), &encoded),
        ];
        for ((quick, plain), text) in pairs {
            for cut in 0..=text.len() {
                let (head, tail) = text.as_bytes().split_at(cut);
                let one = said(Arc::clone(&quick), Level::Block, &to, &[head, tail]);
                let other = said(Arc::clone(&plain), Level::Block, &to, &[head, tail]);
                assert_eq!(one, other, "{} cut at {cut}", sample.format.name);
            }
        }
    }
}
