//! The tree that both file formats are read into before anybody looks at what it says: values with positions, bounded
//! in size and depth. `jsonc` and `toml_tree` make it, the readers of `config` and `hostconfig` walk it.

use crate::diag::Position;

/// Deepest nesting of arrays, objects and tables.
pub const MAX_DEPTH: usize = 64;
/// Longest string in bytes, keys included.
pub const MAX_STRING_BYTES: usize = 64 << 10;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub at: Position,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    Array(Vec<Node>),
    Object(Vec<Member>),
    /// A date or time, which only TOML has and nothing here wants.
    Date,
}

#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub key: String,
    pub key_at: Position,
    pub node: Node,
}

/// Turns byte offsets into lines and columns, in constant time for each, so that a file of one long line costs no more
/// than one of many.
#[derive(Debug)]
pub(crate) struct Positions<'a> {
    text: &'a str,
    line_starts: Vec<usize>,
    /// Characters before every `STEP`th byte.
    chars: Vec<u32>,
}

const STEP: usize = 256;

// === impl Value ===

impl Value {
    /// With its article, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
            Self::Date => "a date",
        }
    }
}

// === impl Positions ===

impl<'a> Positions<'a> {
    pub fn new(text: &'a str) -> Self {
        let mut line_starts = vec![0];
        let mut chars = Vec::with_capacity(text.len() / STEP + 1);
        let mut count = 0;
        for (offset, byte) in text.bytes().enumerate() {
            if offset % STEP == 0 {
                chars.push(count);
            }
            count += u32::from(is_char_start(byte));
            if byte == b'\n' {
                line_starts.push(offset + 1);
            }
        }
        Self {
            text,
            line_starts,
            chars,
        }
    }

    pub fn at(&self, offset: usize) -> Position {
        let offset = offset.min(self.text.len());
        let line = self.line_starts.partition_point(|&start| start <= offset);
        let start = self
            .line_starts
            .get(line.wrapping_sub(1))
            .copied()
            .unwrap_or(0);
        let column = self
            .chars_before(offset)
            .saturating_sub(self.chars_before(start))
            + 1;
        Position {
            line: u32::try_from(line).unwrap_or(u32::MAX),
            column,
        }
    }

    fn chars_before(&self, offset: usize) -> u32 {
        let block = (offset / STEP).min(self.chars.len().saturating_sub(1));
        let counted = self.chars.get(block).copied().unwrap_or(0);
        let rest = self
            .text
            .as_bytes()
            .get(block * STEP..offset)
            .unwrap_or(&[]);
        counted
            + rest
                .iter()
                .map(|&byte| u32::from(is_char_start(byte)))
                .sum::<u32>()
    }
}

fn is_char_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one_on_every_line() {
        let text = format!("ab\nüx\r\n{}y", "é".repeat(1000));
        let positions = Positions::new(&text);
        let at = |offset| (positions.at(offset).line, positions.at(offset).column);
        assert_eq!(at(0), (1, 1));
        assert_eq!(at(2), (1, 3));
        assert_eq!(at(3), (2, 1));
        assert_eq!(at(5), (2, 2));
        assert_eq!(at(text.find('y').unwrap_or(0)), (3, 1001));
        assert_eq!(at(text.len()), (3, 1002));
        assert_eq!(at(usize::MAX), (3, 1002));
        assert_eq!(Positions::new("").at(0), Position::START);
    }
}
