//! Says of most texts, at a fraction of what it takes to look for a key, that none is in them and none is open at their end. A
//! key needs many of its characters in a row; most words are too short for one, and within a long one it begins where a word
//! could. Whatever may be one is left to the whole look (`secrets::every`): nothing is decided here but that there is nothing.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, Input, MatchKind};

use super::Destination;
use super::formats::{Before, FORMATS, Format};
use super::runs::{self, Runs, Set};
use super::secrets::{belongs, stands_alone};
use super::shape::Verdict;

type Prefix = (&'static [u8], &'static Format);

/// Every byte of a prefix, and of what follows one.
pub static KEY: Set = Set::new(b"-_.~+/=:");

pub struct Rare {
    /// The shortest key with its prefix.
    least: usize,
    /// The first two bytes of prefixes.
    heads: Vec<u64>,
    /// Prefixes by their first byte.
    prefixes: Vec<Vec<Prefix>>,
    /// Of prefixes that may stand within a word: a byte that no word has, and its place.
    within: Vec<(u8, usize)>,
    /// Formats of a shape of their own, whose secret part may be further behind.
    apart: AhoCorasick,
    formats: Vec<&'static Format>,
}

/// `None`: it could not be built, and every text is looked at whole.
pub static RARE: LazyLock<Option<Rare>> = LazyLock::new(|| Rare::new(FORMATS));

// === impl Rare ===

impl Rare {
    fn new(all: &'static [Format]) -> Option<Self> {
        let mut least = usize::MAX;
        let mut heads = vec![0; 1 << 10];
        let mut prefixes = vec![Vec::new(); 256];
        let mut within = Vec::new();
        let (mut apart, mut formats) = (Vec::new(), Vec::new());
        for format in all {
            let follows = format.shape.least();
            for prefix in format.prefixes {
                let prefix = prefix.as_bytes();
                let Some((alphabet, length)) = follows else {
                    apart.push(prefix);
                    formats.push(format);
                    continue;
                };
                let within_key = prefix.iter().all(|&b| KEY.has(b));
                if !within_key || (0..=u8::MAX).any(|b| alphabet.has(b) && !KEY.has(b)) {
                    return None;
                }
                least = least.min(prefix.len() + length);
                let &[first, second, ..] = prefix else {
                    return None;
                };
                let head = head(first, second);
                heads[head / 64] |= 1 << (head % 64);
                prefixes[usize::from(first)].push((prefix, format));
                if !matches!(format.before, Before::Boundary | Before::Unsigned) {
                    let place = prefix.iter().position(|b| !b.is_ascii_alphanumeric())?;
                    within.push((prefix[place], place));
                }
            }
        }
        Some(Self {
            least,
            heads,
            prefixes,
            within,
            apart: AhoCorasick::builder()
                .match_kind(MatchKind::LeftmostLongest)
                .build(apart)
                .ok()?,
            formats,
        })
    }

    /// Whether a key may be in `bytes`, or may have begun at their end where there is `more`.
    pub fn may_be_in(&self, bytes: &[u8], more: bool, to: &Destination) -> bool {
        let mut at = 0;
        while let Some(hit) = self.apart.find(Input::new(bytes).range(at..)) {
            let format = self.formats[hit.pattern().as_usize()];
            if is_open(format, bytes, hit.start(), hit.end(), more, to) {
                return true;
            }
            at = hit.start() + 1;
        }
        let mut words = Runs::new(bytes, self.least, &KEY);
        if words.any(|word| self.may_be_in_word(bytes, word, more, to)) {
            return true;
        }
        let last = KEY.last(bytes, self.least - 1).filter(|_| more);
        last.is_some_and(|last| self.may_be_in_word(bytes, last..bytes.len(), more, to))
    }

    /// Whether there are as many characters of keys in a row as the shortest needs, in groups of three bytes: `is` says
    /// whether all of one are.
    #[inline(always)]
    pub fn may_be_among(&self, groups: usize, is: impl Fn(usize) -> bool) -> bool {
        // Two at either end may be parts of groups.
        runs::find(groups, (self.least - 4) / 3, 0, is).is_some()
    }

    fn may_be_in_word(
        &self,
        bytes: &[u8],
        word: Range<usize>,
        more: bool,
        to: &Destination,
    ) -> bool {
        // One that begins later has no room, unless there is more to come.
        let ends = more && word.end == bytes.len();
        let behind = if ends {
            word.end
        } else {
            word.end - self.least + 1
        };
        let begins = |at: usize| at < behind && self.begins(bytes, at, more, to);
        // At its beginning, and behind the rest of an escape: `\n`, `%22`, `\x22`, `\u0022`.
        if [0, 1, 2, 3, 5].iter().any(|skip| begins(word.start + skip)) {
            return true;
        }
        let mut at = word.start;
        // Within it, behind what ends a word or has it in itself.
        while let Some(found) = runs::first_other(&bytes[at..word.end]) {
            at += found;
            let mut within = self.within.iter();
            if begins(at + 1)
                || within
                    .any(|&(byte, place)| bytes[at] == byte && at >= place && begins(at - place))
            {
                return true;
            }
            at += 1;
        }
        false
    }

    fn begins(&self, bytes: &[u8], at: usize, more: bool, to: &Destination) -> bool {
        let Some(&[first, second]) = bytes.get(at..at + 2) else {
            return false;
        };
        let head = head(first, second);
        if self.heads[head / 64] >> (head % 64) & 1 == 0 {
            return false;
        }
        let mut prefixes = self.prefixes[usize::from(first)].iter();
        prefixes.any(|(prefix, format)| {
            bytes[at..].starts_with(prefix)
                && is_open(format, bytes, at, at + prefix.len(), more, to)
        })
    }
}

fn head(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Whether a prefix at that place begins a key, as far as the text goes.
fn is_open(
    format: &Format,
    bytes: &[u8],
    start: usize,
    end: usize,
    more: bool,
    to: &Destination,
) -> bool {
    stands_alone(&bytes[..start], format.before)
        && format.shape.judge(&bytes[end..], more) != Verdict::No
        && !belongs(format, to)
}
