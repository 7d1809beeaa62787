//! Reads the host's `config.toml` into the same tree as JSON, with positions, so that one reader and one set of words
//! serve both formats.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::diag::{Diagnostic, Position};
use crate::jsonc::{lower_first, text_of};
use crate::node::{MAX_DEPTH, MAX_STRING_BYTES, Member, Node, Positions, Value};

/// Largest file in bytes.
pub const MAX_FILE_BYTES: usize = 256 << 10;

/// # Errors
/// One diagnostic for a syntax error (duplicate keys included), one for each oversized string.
pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Node, Vec<Diagnostic>> {
    let text = text_of(bytes, file, MAX_FILE_BYTES).map_err(|error| vec![error])?;
    let positions = Positions::new(text);
    let root = DeTable::parse(text).map_err(|error| {
        let at = error
            .span()
            .map_or(Position::START, |span| positions.at(span.start));
        vec![
            Diagnostic::new(
                "syntax",
                format!("not TOML: {}", lower_first(error.message())),
            )
            .at(file, at),
        ]
    })?;
    let mut tree = Tree {
        file,
        positions: &positions,
        found: Vec::new(),
    };
    let value = tree.table(root.get_ref(), 1);
    if tree.found.is_empty() {
        Ok(Node {
            value,
            at: Position::START,
        })
    } else {
        Err(tree.found)
    }
}

struct Tree<'a> {
    file: &'a str,
    positions: &'a Positions<'a>,
    found: Vec<Diagnostic>,
}

// === impl Tree ===

impl Tree<'_> {
    /// `depth` is the number of arrays and tables around the value.
    fn node(&mut self, spanned: &Spanned<DeValue<'_>>, depth: usize) -> Node {
        let at = self.positions.at(spanned.span().start);
        let nests = matches!(spanned.get_ref(), DeValue::Array(_) | DeValue::Table(_));
        if nests && depth >= MAX_DEPTH {
            let message = format!("nested deeper than {MAX_DEPTH} arrays and tables");
            self.found
                .push(Diagnostic::new("too-deep", message).at(self.file, at));
            return Node {
                value: Value::Null,
                at,
            };
        }
        let value = match spanned.get_ref() {
            DeValue::String(text) => Value::String(self.string(text, at)),
            DeValue::Integer(number) if number.radix() == 10 => {
                Value::Number(number.as_str().to_owned())
            }
            DeValue::Integer(number) => {
                Value::Number(format!("{} (base {})", number.as_str(), number.radix()))
            }
            DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Datetime(_) => Value::Date,
            DeValue::Array(array) => Value::Array(
                array
                    .iter()
                    .map(|element| self.node(element, depth + 1))
                    .collect(),
            ),
            DeValue::Table(table) => self.table(table, depth + 1),
        };
        Node { value, at }
    }

    fn table(&mut self, table: &DeTable<'_>, depth: usize) -> Value {
        let mut members = Vec::with_capacity(table.len());
        for (key, node) in table.iter() {
            let key_at = self.positions.at(key.span().start);
            members.push(Member {
                key: self.string(key.get_ref(), key_at),
                key_at,
                node: self.node(node, depth),
            });
        }
        members.sort_by_key(|member| member.key_at);
        Value::Object(members)
    }

    fn string(&mut self, text: &str, at: Position) -> String {
        if text.len() > MAX_STRING_BYTES {
            let message = format!(
                "a string of {} bytes, the limit is {MAX_STRING_BYTES}",
                text.len()
            );
            self.found
                .push(Diagnostic::new("too-large", message).at(self.file, at));
            return String::new();
        }
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn syntax_errors_and_duplicate_keys_have_a_position() {
        for (text, position) in [
            ("a = ", "f:1:"),
            ("a = 1\na = 2", "f:2:1"),
            ("[a]\n[a]", "f:2:"),
            ("a = 01", "f:1:"),
        ] {
            let found = parse(text.as_bytes(), "f").unwrap_err();
            assert!(
                found[0].to_string().starts_with(position),
                "{text:?}: {}",
                found[0]
            );
            assert_eq!(found[0].code, "syntax");
        }
    }

    #[test]
    fn depth_and_size_are_bounded() {
        let nested = |n: usize| format!("a = {}{}", "[".repeat(n), "]".repeat(n));
        assert!(parse(nested(MAX_DEPTH - 1).as_bytes(), "f").is_ok());
        assert!(parse(nested(MAX_DEPTH).as_bytes(), "f").is_err());
        assert!(parse(nested(100_000).as_bytes(), "f").is_err());
        let keys = |n: usize| format!("{}a = 1", "a.".repeat(n - 1));
        assert!(parse(keys(MAX_DEPTH).as_bytes(), "f").is_ok());
        assert!(parse(keys(MAX_DEPTH + 1).as_bytes(), "f").is_err());
        assert!(parse(keys(100_000).as_bytes(), "f").is_err());
        let file = |n: usize| format!("a = 1{}", " ".repeat(n - 5));
        assert!(parse(file(MAX_FILE_BYTES).as_bytes(), "f").is_ok());
        assert_eq!(
            parse(file(MAX_FILE_BYTES + 1).as_bytes(), "f").unwrap_err()[0].code,
            "too-large"
        );
    }
}
