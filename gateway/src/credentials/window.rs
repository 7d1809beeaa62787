//! A text that is looked for in a stream of bytes, however it is cut into pieces: as it is, and in Base64 at any alignment.
//! What may be the beginning of one is held back until the next piece, and nothing else is, so that a stream is not
//! slowed. Used on bodies in both directions; fuzzed as `placeholder`.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// One of a pair; it may be a credential's value.
type Text = Zeroizing<Vec<u8>>;

/// What is looked for, and what would stand in its place: pairs of equal length.
#[derive(Clone)]
pub struct Patterns {
    pairs: Vec<(Text, Text)>,
    /// First bytes of them all.
    starts: [bool; 256],
    longest: usize,
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            starts: [false; 256],
            longest: 0,
        }
    }
}

impl Patterns {
    /// All of both.
    pub fn with(mut self, other: &Self) -> Self {
        self.pairs.extend(other.pairs.iter().cloned());
        self.longest = self.longest.max(other.longest);
        for (start, other) in self.starts.iter_mut().zip(other.starts) {
            *start |= other;
        }
        self
    }

    /// Looks for `from` too, and would put `to` in its place, which is as long.
    pub fn add(&mut self, from: &[u8], to: &[u8]) {
        if from.is_empty() || from.len() != to.len() {
            return;
        }
        let mut add = |from: &[u8], to: &[u8]| {
            if let Some(&first) = from.first()
                && !self.pairs.iter().any(|(known, _)| known.as_slice() == from)
            {
                self.starts[usize::from(first)] = true;
                self.longest = self.longest.max(from.len());
                self.pairs.push((from.to_vec().into(), to.to_vec().into()));
            }
        };
        add(from, to);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for before in 0..3 {
                let core = |text: &[u8]| aligned(text, before, &engine);
                add(&core(from), &core(to));
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// Whether any of them is in a text that is whole.
    pub fn is_in(&self, text: &[u8]) -> bool {
        self.first(text, 0).is_some()
    }

    /// Puts what would stand there in the place of each one in a text that is whole. Whether there was any.
    pub fn replace(&self, text: &mut [u8]) -> bool {
        let mut at = 0;
        let mut any = false;
        while let Some((start, pair)) = self.first(text, at) {
            let to = &self.pairs[pair].1;
            text[start..start + to.len()].copy_from_slice(to);
            at = start + to.len();
            any = true;
        }
        any
    }

    /// Where the first one at or behind `from` begins, and which it is.
    fn first(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        (from..text.len())
            .filter(|&at| self.starts[usize::from(text[at])])
            .find_map(|at| {
                let rest = &text[at..];
                let pair = self.pairs.iter().position(|(p, _)| rest.starts_with(p))?;
                Some((at, pair))
            })
    }

    /// How many bytes at the end of a text may be the beginning of one.
    fn begun(&self, text: &[u8]) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        (from..text.len())
            .filter(|&at| self.starts[usize::from(text[at])])
            .find(|&at| {
                let rest = &text[at..];
                self.pairs.iter().any(|(p, _)| p.starts_with(rest))
            })
            .map_or(0, |at| text.len() - at)
    }
}

/// The characters of Base64 that a text alone decides when `before` bytes stand before it in its group of three.
fn aligned(text: &[u8], before: usize, engine: &impl base64::Engine) -> Vec<u8> {
    let mut padded = vec![0; before];
    padded.extend_from_slice(text);
    let encoded = engine.encode(&padded).into_bytes();
    let skip = [0, 2, 3][before];
    let end = (padded.len() * 8 / 6).max(skip);
    encoded[skip..end].to_vec()
}

/// One stream.
pub struct Window {
    patterns: std::sync::Arc<Patterns>,
    held: Vec<u8>,
}

impl Window {
    pub fn new(patterns: std::sync::Arc<Patterns>) -> Self {
        Self {
            patterns,
            held: Vec::new(),
        }
    }

    /// Takes the next piece and gives what can be handed on. True: one was found in it, and replaced.
    pub fn push(&mut self, piece: &[u8]) -> (Vec<u8>, bool) {
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(piece);
        let found = self.patterns.replace(&mut text);
        let begun = self.patterns.begun(&text);
        self.held = text.split_off(text.len() - begun);
        (text, found)
    }

    /// Bytes that are held back.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use std::sync::Arc;

    const VALUE: &[u8] = b"ghp_RealRealRealRealReal";
    const OTHER: &[u8] = b"ghp_FakeFakeFakeFakeFake";

    fn patterns() -> Arc<Patterns> {
        let mut patterns = Patterns::default();
        patterns.add(VALUE, OTHER);
        Arc::new(patterns)
    }

    fn through(text: &[u8], size: usize) -> (Vec<u8>, bool) {
        let mut window = Window::new(patterns());
        let (mut out, mut found) = (Vec::new(), false);
        for piece in text.chunks(size.max(1)) {
            let (bytes, one) = window.push(piece);
            out.extend(bytes);
            found |= one;
        }
        out.extend(window.finish());
        (out, found)
    }

    #[test]
    fn it_is_found_however_it_is_cut() {
        let text = [b"{\"token\":\"", VALUE, b"\",\"again\":\"", VALUE, b"\"}"].concat();
        let want = [b"{\"token\":\"", OTHER, b"\",\"again\":\"", OTHER, b"\"}"].concat();
        for size in 1..=text.len() {
            assert_eq!(through(&text, size), (want.clone(), true), "{size}");
        }
    }

    #[test]
    fn it_is_found_in_base64_at_every_alignment() {
        for before in ["", "a", "ab", "user:", "x-access-token:"] {
            for after in ["", "z", "zz", ":end"] {
                let wrap = |text: &[u8]| [before.as_bytes(), text, after.as_bytes()].concat();
                let encoded = STANDARD.encode(wrap(VALUE));
                let (out, found) = through(encoded.as_bytes(), 7);
                assert!(found, "{before} {after}");
                assert_eq!(out.len(), encoded.len());
                let decoded = STANDARD.decode(&out).unwrap();
                assert!(
                    !decoded.windows(20).any(|w| w == &VALUE[..20]),
                    "{before} {after}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_part_of_it_is_not_held_back() {
        let mut window = Window::new(patterns());
        assert_eq!(
            window.push(b"data: hello\n\n"),
            (b"data: hello\n\n".to_vec(), false)
        );
        let (out, found) = window.push(b"data: ghp_");
        assert_eq!((out, found), (b"data: ".to_vec(), false));
        assert_eq!(window.push(b"x").0, b"ghp_x");
        assert_eq!(window.push(b"ghp_Real").0, b"");
        assert_eq!(window.finish(), b"ghp_Real");
    }

    #[test]
    fn only_what_is_as_long_can_take_its_place() {
        let mut patterns = Patterns::default();
        patterns.add(b"", b"");
        patterns.add(b"long", b"longer");
        assert!(patterns.is_empty());
    }
}
