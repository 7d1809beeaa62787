//! JSON with comments and trailing commas, and nothing else that JSON is not: reads `agentcontainer.json` and
//! `devcontainer.json` into the tree with positions. Size and depth are checked before anything recurses; what
//! jsonc-parser found is checked a second time by serde_json over the text without comments and trailing commas, so
//! that no laxness of the one becomes a second meaning of a file.

use std::collections::HashSet;

use jsonc_parser::ast;
use jsonc_parser::common::{Range, Ranged};
use jsonc_parser::tokens::Token;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, ParseOptions, parse_to_ast};
use serde::de::IgnoredAny;

use crate::diag::{Diagnostic, Position};
use crate::node::{MAX_DEPTH, MAX_STRING_BYTES, Member, Node, Positions, Value};

/// Largest file in bytes.
pub const MAX_FILE_BYTES: usize = 1 << 20;

const STRICT: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

/// Reads one document.
///
/// # Errors
/// One diagnostic for a syntax error, one for each duplicate key or oversized string.
pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Node, Vec<Diagnostic>> {
    let text = text_of(bytes, file, MAX_FILE_BYTES).map_err(|error| vec![error])?;
    let positions = Positions::new(text);
    let syntax = |offset, message: String| {
        vec![Diagnostic::new("syntax", message).at(file, positions.at(offset))]
    };

    if let Some(offset) = too_deep(text) {
        let message = format!("nested deeper than {MAX_DEPTH} arrays and objects");
        return Err(vec![
            Diagnostic::new("too-deep", message).at(file, positions.at(offset)),
        ]);
    }
    let collect = CollectOptions {
        comments: CommentCollectionStrategy::AsTokens,
        tokens: true,
    };
    let parsed = parse_to_ast(text, &collect, &STRICT)
        .map_err(|error| syntax(error.range().start, lower_first(&error.kind().to_string())))?;
    let Some(root) = parsed.value else {
        return Err(syntax(0, "the file is empty".to_owned()));
    };
    let plain = without_comments(text, &parsed.tokens.unwrap_or_default());
    if let Err(error) = serde_json::from_str::<IgnoredAny>(&plain) {
        let at = Position {
            line: u32::try_from(error.line()).unwrap_or(u32::MAX),
            column: u32::try_from(error.column().max(1)).unwrap_or(u32::MAX),
        };
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or(&message);
        return Err(vec![
            Diagnostic::new("syntax", format!("not JSON: {message}")).at(file, at),
        ]);
    }

    let mut tree = Tree {
        file,
        positions: &positions,
        found: Vec::new(),
    };
    let root = tree.node(&root);
    if tree.found.is_empty() {
        Ok(root)
    } else {
        Err(tree.found)
    }
}

/// The bytes as text: within the limit, UTF-8, without a byte order mark.
pub(crate) fn text_of<'a>(
    bytes: &'a [u8],
    file: &str,
    limit: usize,
) -> Result<&'a str, Diagnostic> {
    if bytes.len() > limit {
        let message = format!("the file has {} bytes, the limit is {limit}", bytes.len());
        return Err(Diagnostic::new("too-large", message).in_file(file));
    }
    let whole = bytes.len();
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mark = whole - bytes.len();
    std::str::from_utf8(bytes).map_err(|error| {
        let valid = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or("");
        let at = Positions::new(valid).at(valid.len());
        let message = format!(
            "not UTF-8: invalid byte at offset {}",
            mark + error.valid_up_to()
        );
        let utf16 = matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let help = if utf16 {
            "this looks like UTF-16; save it as UTF-8"
        } else {
            "save the file as UTF-8"
        };
        Diagnostic::new("not-utf8", message).at(file, at).help(help)
    })
}

/// Offset of the bracket that opens one level too many, found without recursion.
fn too_deep(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0_usize, 0);
    while let Some(&byte) = bytes.get(i) {
        match (byte, bytes.get(i + 1)) {
            (b'"', _) => {
                i += 1;
                while let Some(&byte) = bytes.get(i) {
                    match byte {
                        b'\\' => i += 1,
                        b'"' => break,
                        _ => {}
                    }
                    i += 1;
                }
            }
            (b'/', Some(b'/')) => {
                while bytes.get(i).is_some_and(|&byte| byte != b'\n') {
                    i += 1;
                }
            }
            (b'/', Some(b'*')) => {
                i += 3 + text
                    .get(i + 2..)
                    .and_then(|rest| rest.find("*/"))
                    .unwrap_or(bytes.len())
            }
            (b'{' | b'[', _) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(i);
                }
            }
            (b'}' | b']', _) => depth = depth.saturating_sub(1),
            _ => {}
        }
        i += 1;
    }
    None
}

/// The same text with everything that is not a token of JSON blanked, lines and columns kept.
fn without_comments(text: &str, tokens: &[jsonc_parser::tokens::TokenAndRange<'_>]) -> String {
    let code: Vec<_> = tokens
        .iter()
        .filter(|token| !matches!(token.token, Token::CommentLine(_) | Token::CommentBlock(_)))
        .collect();
    let mut out = String::with_capacity(text.len());
    let mut end = 0;
    for (i, token) in code.iter().enumerate() {
        let range = token.range();
        blank(&mut out, text.get(end..range.start).unwrap_or(""));
        let closes = |next: &&jsonc_parser::tokens::TokenAndRange<'_>| {
            matches!(next.token, Token::CloseBrace | Token::CloseBracket)
        };
        let opened = || {
            code.get(i.wrapping_sub(1)).is_none_or(|before| {
                matches!(
                    before.token,
                    Token::OpenBrace | Token::OpenBracket | Token::Comma | Token::Colon
                )
            })
        };
        let trailing =
            matches!(token.token, Token::Comma) && code.get(i + 1).is_some_and(closes) && !opened();
        let written = text.get(range.start..range.end).unwrap_or("");
        if trailing {
            blank(&mut out, written)
        } else {
            out.push_str(written)
        }
        end = range.end;
    }
    out
}

fn blank(out: &mut String, text: &str) {
    out.extend(text.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
}

pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(chars).collect()
    })
}

struct Tree<'a> {
    file: &'a str,
    positions: &'a Positions<'a>,
    found: Vec<Diagnostic>,
}

// === impl Tree ===

impl Tree<'_> {
    fn node(&mut self, value: &ast::Value<'_>) -> Node {
        let Range { start, .. } = value.range();
        let at = self.positions.at(start);
        let value = match value {
            ast::Value::NullKeyword(_) => Value::Null,
            ast::Value::BooleanLit(lit) => Value::Bool(lit.value),
            ast::Value::NumberLit(lit) => Value::Number(lit.value.to_owned()),
            ast::Value::StringLit(lit) => Value::String(self.string(&lit.value, at)),
            ast::Value::Array(array) => Value::Array(
                array
                    .elements
                    .iter()
                    .map(|element| self.node(element))
                    .collect(),
            ),
            ast::Value::Object(object) => Value::Object(self.members(object)),
        };
        Node { value, at }
    }

    fn members(&mut self, object: &ast::Object<'_>) -> Vec<Member> {
        let mut seen: HashSet<&str> = HashSet::with_capacity(object.properties.len());
        let mut members = Vec::with_capacity(object.properties.len());
        for property in &object.properties {
            let key_at = self.positions.at(property.name.start());
            let key = property.name.as_str();
            if !seen.insert(key) {
                let message = format!("key `{key}` appears twice in one object");
                self.found.push(
                    Diagnostic::new("duplicate-key", message)
                        .at(self.file, key_at)
                        .help("remove one of them"),
                );
            }
            members.push(Member {
                key: self.string(key, key_at),
                key_at,
                node: self.node(&property.value),
            });
        }
        members
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
mod tests;
