//! A text that is looked for in a stream of bytes, however it is cut into pieces: as it is, and in Base64 at any alignment.
//! What may be the beginning of one is held back until the next piece, and nothing else is, so that a stream is not
//! slowed. The one who reads the stream may see what is held back, and may have written what is in it: so less than a guess could
//! hit is never held, and what was passed on of one that then comes whole is its public beginning and little more. Used on bodies in
//! both directions; fuzzed as `placeholder`.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

/// One of a pair; it may be a credential's value.
type Text = Zeroizing<Vec<u8>>;

/// Characters of a value that nobody guesses at once.
const UNGUESSED: usize = 10;
/// As many in Base64.
const UNGUESSED_ENCODED: usize = UNGUESSED * 4 / 3 + 1;

/// Where a text is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// In answers of its own places, and in requests.
    Own,
    /// In answers of any place that an agent may name: one of its own can hold a guess against what is held back, so that twice as much, and half of
    /// the text, has to be guessed at once. Whatever has a beginning that is public without our knowing it, as a token with a head in plain words, has it in that half.
    Others,
}

impl At {
    /// A beginning shorter than this is not held back.
    fn least(self, from: &[u8], to: &[u8], unguessed: usize) -> usize {
        match self {
            Self::Own => public(from, to) + unguessed,
            Self::Others => (public(from, to) + 2 * unguessed).max(from.len() / 2),
        }
    }

    /// Whether that leaves as much of it that nobody has then.
    fn is_long(self, from: &[u8], to: &[u8], unguessed: usize) -> bool {
        self.least(from, to, unguessed) + UNGUESSED <= from.len()
    }
}

#[derive(Clone)]
struct Pair {
    from: Text,
    to: Text,
    /// A beginning shorter than this is not held back. Where so much of it would be most of it, everything is held back that could
    /// be one, whatever it is: 0.
    least: usize,
}

/// What is looked for, and what would stand in its place: pairs of equal length.
#[derive(Clone)]
pub struct Patterns {
    pairs: Vec<Pair>,
    /// First bytes of them all.
    starts: [bool; 256],
    /// First two bytes of them all, a bit each: most of a stream is passed over by these.
    doubles: Box<[u64; DOUBLES]>,
    longest: usize,
}

/// Words of a bit for every two bytes.
const DOUBLES: usize = (1 << 16) / 64;

impl Default for Patterns {
    fn default() -> Self {
        Self {
            pairs: Vec::new(),
            starts: [false; 256],
            doubles: Box::new([0; DOUBLES]),
            longest: 0,
        }
    }
}

/// Where the bit of two bytes is.
fn double(first: u8, second: u8) -> (usize, u64) {
    let at = usize::from(first) << 8 | usize::from(second);
    (at / 64, 1 << (at % 64))
}

impl Patterns {
    /// All of both.
    pub fn with(mut self, other: &Self) -> Self {
        for pair in &other.pairs {
            if !self.pairs.iter().any(|known| known.from == pair.from) {
                self.pairs.push(pair.clone());
            }
        }
        self.longest = self.longest.max(other.longest);
        for (start, other) in self.starts.iter_mut().zip(other.starts) {
            *start |= other;
        }
        for (word, other) in self.doubles.iter_mut().zip(other.doubles.iter()) {
            *word |= other;
        }
        self
    }

    /// Looks for `from` too, and would put `to` in its place, which is as long.
    pub fn add(&mut self, from: &[u8], to: &[u8], at: At) {
        if from.is_empty() || from.len() != to.len() {
            return;
        }
        let mut add = |from: &[u8], to: &[u8], unguessed: usize| {
            if let Some(&first) = from.first()
                && !self.pairs.iter().any(|known| known.from.as_slice() == from)
            {
                let public = public(from, to);
                let least = if public == from.len() {
                    1
                } else if at.is_long(from, to, unguessed) {
                    at.least(from, to, unguessed)
                } else if at == At::Others {
                    return;
                } else {
                    0
                };
                self.starts[usize::from(first)] = true;
                // One of a single byte begins whatever follows it.
                let second = from.get(1).map_or(0..=u8::MAX, |&second| second..=second);
                for second in second {
                    let (word, bit) = double(first, second);
                    self.doubles[word] |= bit;
                }
                self.longest = self.longest.max(from.len());
                self.pairs.push(Pair {
                    from: from.to_vec().into(),
                    to: to.to_vec().into(),
                    least,
                });
            }
        };
        add(from, to, UNGUESSED);
        for engine in [STANDARD_NO_PAD, URL_SAFE_NO_PAD] {
            for before in 0..3 {
                let core = |text: &[u8]| aligned(text, before, &engine);
                add(&core(from), &core(to), UNGUESSED_ENCODED);
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
            let to = &self.pairs[pair].to;
            text[start..start + to.len()].copy_from_slice(to);
            at = start + to.len();
            any = true;
        }
        any
    }

    /// Where the first one at or behind `from` begins, and which it is.
    fn first(&self, text: &[u8], from: usize) -> Option<(usize, usize)> {
        let begins = |at: &usize| match text.get(at + 1) {
            Some(&second) => {
                let (word, bit) = double(text[*at], second);
                self.doubles[word] & bit != 0
            }
            None => self.starts[usize::from(text[*at])],
        };
        (from..text.len()).filter(begins).find_map(|at| {
            let rest = &text[at..];
            let pair = self.pairs.iter().position(|p| rest.starts_with(&p.from))?;
            Some((at, pair))
        })
    }

    /// Bytes that are held back whatever they are.
    fn always(&self) -> usize {
        let short = self.pairs.iter().filter(|p| p.least == 0);
        short.map(|p| p.from.len() - 1).max().unwrap_or(0)
    }

    /// How many bytes at the end of a text may be the beginning of one, as far as they are held back.
    fn begun(&self, text: &[u8]) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        (from..text.len())
            .filter(|&at| self.starts[usize::from(text[at])])
            .find(|&at| {
                let rest = &text[at..];
                let mut long = self.pairs.iter().filter(|p| rest.len() >= p.least.max(1));
                long.any(|p| p.from.starts_with(rest))
            })
            .map_or(0, |at| text.len() - at)
            .max(self.always().min(text.len()))
    }
}

/// What both begin with is known to everybody.
fn public(from: &[u8], to: &[u8]) -> usize {
    from.iter().zip(to).take_while(|(a, b)| a == b).count()
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
    /// The last of what was handed on: one may have begun in it.
    passed: Vec<u8>,
}

impl Window {
    pub fn new(patterns: std::sync::Arc<Patterns>) -> Self {
        Self {
            patterns,
            held: Vec::new(),
            passed: Vec::new(),
        }
    }

    /// Takes the next piece and gives what can be handed on. True: one was found in it, and replaced.
    pub fn push(&mut self, piece: &[u8]) -> (Vec<u8>, bool) {
        let before = self.passed.len();
        let mut text = std::mem::take(&mut self.passed);
        text.reserve_exact(self.held.len() + piece.len());
        text.append(&mut self.held);
        text.extend_from_slice(piece);
        let found = self.patterns.replace(&mut text);
        let begun = self.patterns.begun(&text).min(text.len() - before);
        self.held = text.split_off(text.len() - begun);
        let kept = self.patterns.longest.saturating_sub(1).min(text.len());
        self.passed = text[text.len() - kept..].to_vec();
        text.drain(..before);
        (text, found)
    }

    pub fn patterns(&self) -> &Patterns {
        &self.patterns
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
        patterns.add(VALUE, OTHER, At::Own);
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
    fn a_guess_of_less_than_half_of_it_is_handed_on_as_any_other_elsewhere() {
        for value in [
            b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhIn0.Xw3kq9Zr2LmT0vB7nQ".as_slice(),
            b"sk-ant-oat01-Qm9w8Xv2Lr7Tz0Kd4Ys6Hn1Pj3",
        ] {
            let stars = vec![b'*'; value.len()];
            let mut patterns = Patterns::default();
            patterns.add(value, &stars, At::Others);
            let encoded = aligned(value, 1, &STANDARD_NO_PAD);
            let patterns = std::sync::Arc::new(patterns);
            for text in [value, &encoded] {
                let half = text.len() / 2;
                let held = |known: usize, next: u8| {
                    let mut window = Window::new(std::sync::Arc::clone(&patterns));
                    let guess = [b"x", &text[..known], &[next]].concat();
                    let out = window.push(&guess).0.len();
                    guess.len() - out
                };
                for (known, &next) in text.iter().enumerate().take(half - 1).skip(13) {
                    assert_eq!(held(known, next), 0, "{known}");
                }
                // The control: what is half of it is held, so that of one that is cut there the rest does not come.
                assert!(held(half + 6, text[half + 6]) > half && held(half + 6, b'~') == 0);
            }
            // Of a short one nothing is looked for there.
            let mut short = Patterns::default();
            short.add(&value[..24], &stars[..24], At::Others);
            assert!(short.is_empty());
        }
    }

    #[test]
    fn it_is_found_however_it_is_cut() {
        let text = [b"{\"token\":\"", VALUE, b"\",\"again\":\"", VALUE, b"\"}"].concat();
        let want = [b"{\"token\":\"", OTHER, b"\",\"again\":\"", OTHER, b"\"}"].concat();
        for size in 1..=text.len() {
            let (out, found) = through(&text, size);
            assert!(found, "{size}");
            assert_eq!(out.len(), want.len());
            // Cut in small pieces, its public beginning and ten characters of it were passed on before it was whole.
            let most = &VALUE[..4 + UNGUESSED];
            assert!(!out.windows(most.len()).any(|part| part == most), "{size}");
        }
        assert_eq!(through(&text, text.len()), (want, true));
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
        let (out, found) = window.push(b"data: ghp_RealReal");
        assert_eq!((out, found), (b"data: ghp_RealReal".to_vec(), false));
        let mut window = Window::new(patterns());
        assert_eq!(window.push(b"ghp_RealRealRe").0, b"");
        assert_eq!(window.push(b"x").0, b"ghp_RealRealRex");
        assert_eq!(window.push(b"ghp_RealRealReal").0, b"");
        assert_eq!(window.finish(), b"ghp_RealRealReal");
    }

    #[test]
    fn a_guess_of_a_few_characters_is_not_seen_in_what_is_held_back() {
        for guess in [
            &b"ghp_"[..],
            b"ghp_R",
            b"ghp_X",
            b"ghp_RealRealR",
            b"ghp_RealRealX",
        ] {
            let mut window = Window::new(patterns());
            assert_eq!(window.push(guess).0, guess);
        }
        // One that began in what was passed on is exchanged from there on.
        let mut window = Window::new(patterns());
        let mut out = window.push(b"ghp_RealRealR").0;
        let (rest, found) = window.push(b"ealRealReal.");
        out.extend(rest);
        out.extend(window.finish());
        assert!(found);
        assert_eq!(out, b"ghp_RealRealRakeFakeFake.");
    }

    #[test]
    fn of_a_short_one_everything_is_held_back_that_could_be_it() {
        let mut patterns = Patterns::default();
        patterns.add(b"hunter2hunter2", b"**************", At::Own);
        let patterns = Arc::new(patterns);
        for text in [
            &b"nothing at all of it, nor in Base64 of any kind"[..],
            b"hunter2hunter2hunter2hunter2 and so on and on",
        ] {
            let mut window = Window::new(Arc::clone(&patterns));
            let held = text.len() - window.push(text).0.len();
            assert!(held >= 13, "{held}");
        }
        let mut one = Window::new(Arc::clone(&patterns));
        let mut other = Window::new(patterns);
        let padding = [b'.'; 64];
        let guess = [&padding[..], b"hunt"].concat();
        let wrong = [&padding[..], b"huns"].concat();
        assert_eq!(one.push(&guess).0.len(), other.push(&wrong).0.len());
    }

    #[test]
    fn one_of_a_single_byte_is_found_before_anything_and_at_the_end() {
        let mut patterns = Patterns::default();
        patterns.add(b"a", b"*", At::Own);
        let mut text = *b"abca";
        assert!(patterns.replace(&mut text));
        assert_eq!(&text, b"*bc*");
        assert!(!patterns.is_in(b"bcd"));
    }

    #[test]
    fn only_what_is_as_long_can_take_its_place() {
        let mut patterns = Patterns::default();
        patterns.add(b"", b"", At::Own);
        patterns.add(b"long", b"longer", At::Own);
        assert!(patterns.is_empty());
    }
}
