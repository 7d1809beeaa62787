//! Runs of bytes of one kind that are long enough to matter, found without looking at every byte: a run of n cannot miss the
//! last of n bytes in a row, and where that one is of another kind they are all passed by. Used by the inspectors.

use std::ops::Range;

/// Letters, digits, and some others: 0 in its place for each of them, 1 for what is not among them.
pub struct Set([u8; 256]);

static WORDS: Set = Set::new(b"");

/// Bytes that are looked at together.
const BLOCK: usize = 8;

/// The runs of a text, each as long as it gets, that are at least so long.
pub struct Runs<'a> {
    text: &'a [u8],
    set: &'a Set,
    least: usize,
    at: usize,
}

// === impl Set ===

impl Set {
    pub const fn new(others: &[u8]) -> Self {
        let mut table = [1; 256];
        let mut b = 0;
        while b < 256 {
            if (b as u8).is_ascii_alphanumeric() {
                table[b] = 0;
            }
            b += 1;
        }
        let mut i = 0;
        while i < others.len() {
            table[others[i] as usize] = 0;
            i += 1;
        }
        Self(table)
    }

    pub fn has(&self, b: u8) -> bool {
        self.0[usize::from(b)] == 0
    }

    /// How many of its characters a text begins with.
    pub fn run(&self, text: &[u8]) -> usize {
        let (blocks, _) = text.as_chunks::<BLOCK>();
        // No way out of a block before its end: two loads and an `or` for each byte.
        let other =
            |block: &[u8; BLOCK]| block.iter().fold(0, |any, &b| any | self.0[usize::from(b)]);
        let whole = blocks.iter().position(|block| other(block) != 0);
        let from = whole.unwrap_or(blocks.len()) * BLOCK;
        let other = text[from..].iter().position(|&b| !self.has(b));
        other.map_or(text.len(), |other| from + other)
    }

    /// Where the run begins that a text ends with, if it is no longer than `most`; the text's length where it ends with none.
    pub fn last(&self, text: &[u8], most: usize) -> Option<usize> {
        let from = text.len().saturating_sub(most + 1);
        let other = text[from..].iter().rposition(|&b| !self.has(b));
        match other {
            Some(other) => Some(from + other + 1),
            None => (text.len() <= most).then_some(0),
        }
    }
}

/// Where the first byte is that is neither letter nor digit.
pub fn first_other(text: &[u8]) -> Option<usize> {
    Some(WORDS.run(text)).filter(|&run| run < text.len())
}

/// From where the first run goes that is at least so long, and how far it is known to; of `length` bytes, of which `is` says
/// whether one is of the kind.
#[inline(always)]
pub fn find(
    length: usize,
    least: usize,
    from: usize,
    is: impl Fn(usize) -> bool,
) -> Option<Range<usize>> {
    // Up to here they are known to be of the kind.
    let (mut start, mut known) = (from, from);
    let mut enough = start.checked_add(least)?;
    while enough <= length {
        let Some(other) = (known..enough).rev().find(|&i| !is(i)) else {
            return Some(start..enough);
        };
        known = enough;
        start = other + 1;
        enough = start + least;
    }
    None
}

// === impl Runs ===

impl<'a> Runs<'a> {
    pub fn new(text: &'a [u8], least: usize, set: &'a Set) -> Self {
        Self {
            text,
            set,
            least: least.max(1),
            at: 0,
        }
    }

    /// What lies before is passed by.
    pub fn seek(&mut self, at: usize) {
        self.at = at;
    }
}

impl Iterator for Runs<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Range<usize>> {
        let is = |i: usize| self.set.has(self.text[i]);
        let found = find(self.text.len(), self.least, self.at, is)?;
        let end = found.end + self.set.run(&self.text[found.end..]);
        self.at = end + 1;
        Some(found.start..end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_what_looking_at_every_byte_finds() {
        static SET: Set = Set::new(b"+/");
        let mut state = 1u32;
        for round in 0..2000 {
            let length = round % 97;
            let text: Vec<u8> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    let random = (state >> 16) as usize;
                    if random.is_multiple_of(1 + round % 13) {
                        b"@[`{/: \x00\xe1"[random / 16 % 9]
                    } else {
                        b"azAZ09+/m"[random / 16 % 9]
                    }
                })
                .collect();
            for least in 1..40 {
                let mut wanted = Vec::new();
                let mut start = 0;
                // With one behind them all that ends what is open.
                for (i, &b) in text.iter().chain(b" ").enumerate() {
                    if !(b.is_ascii_alphanumeric() || b == b'+' || b == b'/') {
                        if i - start >= least {
                            wanted.push(start..i);
                        }
                        start = i + 1;
                    }
                }
                let found: Vec<_> = Runs::new(&text, least, &SET).collect();
                assert_eq!(found, wanted, "{text:?} {least}");
            }
            let other = text.iter().position(|b| !b.is_ascii_alphanumeric());
            assert_eq!(first_other(&text), other);
            let is = |b: &&u8| b.is_ascii_alphanumeric() || **b == b'+' || **b == b'/';
            let open = text.iter().rev().take_while(is).count();
            for most in [0, 1, 5, 200] {
                let wanted = (open <= most).then_some(length - open);
                assert_eq!(SET.last(&text, most), wanted, "{text:?} {most}");
            }
        }
    }
}
