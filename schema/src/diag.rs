//! The one diagnostic form: what failed, where, why, and what to do next. Parsers here make them, policy adds its own,
//! and the CLI prints them (`Display`) or hands them to machines (`Serialize`, the `--json` form).
//! Whatever a file says is printed with control characters escaped.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a text: both count from 1, columns in Unicode scalar values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

/// What a diagnostic is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// A file, with the position where one is known.
    File {
        file: String,
        #[serde(flatten)]
        position: Option<Position>,
    },
    /// Something that is not in a file: an image, a container, an engine.
    Object(String),
}

/// One thing that is wrong. `code` is stable and kebab-case; the words are not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    pub code: &'static str,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// What to do next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

/// A value and where it was written.
#[derive(Clone, Debug)]
pub struct Spanned<T> {
    pub value: T,
    pub at: Position,
}

/// `text` with control characters, bidirectional overrides and other invisible format characters escaped, so that
/// nothing a file says can move the cursor or reorder the line it is printed on.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out
}

fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{61c}'
            | '\u{115f}'
            | '\u{1160}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}

// === impl Position ===

impl Position {
    pub const START: Self = Self { line: 1, column: 1 };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

// === impl Place ===

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File {
                file,
                position: None,
            } => f.write_str(&escape(file)),
            Self::File {
                file,
                position: Some(at),
            } => write!(f, "{}:{at}", escape(file)),
            Self::Object(name) => f.write_str(&escape(name)),
        }
    }
}

// === impl Diagnostic ===

impl Diagnostic {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            place: None,
            help: None,
        }
    }

    pub fn at(self, file: impl Into<String>, position: Position) -> Self {
        Self {
            place: Some(Place::File {
                file: file.into(),
                position: Some(position),
            }),
            ..self
        }
    }

    pub fn in_file(self, file: impl Into<String>) -> Self {
        Self {
            place: Some(Place::File {
                file: file.into(),
                position: None,
            }),
            ..self
        }
    }

    pub fn about(self, object: impl Into<String>) -> Self {
        Self {
            place: Some(Place::Object(object.into())),
            ..self
        }
    }

    pub fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// `file:line:column: message [code]`, then the help on a line of its own.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{} [{}]", escape(&self.message), self.code)?;
        if let Some(help) = &self.help {
            write!(f, "\n  help: {}", escape(help))?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostic {}

// === impl Spanned ===

impl<T> Spanned<T> {
    pub fn new(value: T, at: Position) -> Self {
        Self { value, at }
    }
}

impl<T> std::ops::Deref for Spanned<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// The value alone: where it stands is no part of what it means.
impl<T: Serialize> Serialize for Spanned<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: PartialEq> PartialEq for Spanned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: schemars::JsonSchema> schemars::JsonSchema for Spanned<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        T::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sample() -> Diagnostic {
        Diagnostic::new("unknown-key", "unknown key `imgae`")
            .at("agentcontainer.json", Position { line: 3, column: 5 })
            .help("did you mean `image`?")
    }

    #[test]
    fn a_diagnostic_says_where_what_and_what_next() {
        assert_eq!(
            sample().to_string(),
            "agentcontainer.json:3:5: unknown key `imgae` [unknown-key]\n  help: did you mean `image`?"
        );
    }

    #[test]
    fn the_json_form_carries_the_same_with_a_stable_code() {
        assert_eq!(
            serde_json::to_string(&sample()).unwrap(),
            r#"{"code":"unknown-key","message":"unknown key `imgae`","place":{"file":{"file":"agentcontainer.json","line":3,"column":5}},"help":"did you mean `image`?"}"#
        );
        assert_eq!(
            serde_json::to_string(&Diagnostic::new("no-engine", "no engine").about("docker"))
                .unwrap(),
            r#"{"code":"no-engine","message":"no engine","place":{"object":"docker"}}"#
        );
    }

    #[test]
    fn nothing_a_file_says_reaches_the_terminal_as_a_control_character() {
        let hostile = "a\u{1b}[2Jb\r\n\u{202e}c\u{200b}\u{9b}";
        let shown = Diagnostic::new("x", hostile)
            .in_file(hostile)
            .help(hostile)
            .to_string();
        assert!(
            !shown
                .replace("\n  help: ", "")
                .chars()
                .any(|c| c.is_control() || is_invisible(c)),
            "{shown:?}"
        );
        assert_eq!(escape("a\u{1b}b"), "a\\u{1b}b");
        assert_eq!(escape("Grüße, 世界"), "Grüße, 世界");
    }
}
