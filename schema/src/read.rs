//! Walks a tree and collects everything that is wrong with it, not just the first thing: types, unknown keys with the
//! nearest known one, counts. The readers of `config` and `hostconfig` are written in its terms.

use std::collections::BTreeMap;

use crate::diag::{Diagnostic, Place, Position, Spanned};
use crate::node::{Member, Node, Value};

/// Most diagnostics that one file gets; a last one says how many more there were.
pub const MAX_DIAGNOSTICS: usize = 50;

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    file: &'a str,
    found: Vec<Diagnostic>,
    more: usize,
}

/// The members of one object, taken out one by one by the names that are known; the rest is unknown.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    path: String,
    at: Position,
    members: BTreeMap<&'a str, &'a Member>,
    known: Vec<&'static str>,
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub fn new(file: &'a str) -> Self {
        Self {
            file,
            found: Vec::new(),
            more: 0,
        }
    }

    pub fn file(&self) -> &'a str {
        self.file
    }

    /// Everything that was found, in the order of the file, or the value.
    pub fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        self.found
            .sort_by_key(|diagnostic| match &diagnostic.place {
                Some(Place::File { position, .. }) => *position,
                _ => None,
            });
        if self.more > 0 {
            let message = format!("{} more problems are not shown", self.more);
            self.found
                .push(Diagnostic::new("more", message).in_file(self.file));
        }
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(self.found),
        }
    }

    /// How much was found so far.
    pub fn count(&self) -> usize {
        self.found.len() + self.more
    }

    pub fn push(&mut self, at: Position, diagnostic: Diagnostic) {
        if self.found.len() < MAX_DIAGNOSTICS {
            self.found.push(diagnostic.at(self.file, at));
        } else {
            self.more += 1;
        }
    }

    pub fn error(&mut self, at: Position, code: &'static str, message: impl Into<String>) {
        self.push(at, Diagnostic::new(code, message));
    }

    fn wrong_type<T>(&mut self, node: &Node, path: &str, wanted: &str) -> Option<T> {
        self.error(
            node.at,
            "wrong-type",
            format!("`{path}` is {}, expected {wanted}", node.value.kind()),
        );
        None
    }

    pub fn string<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        match &node.value {
            Value::String(text) if text.contains('\0') => {
                self.error(
                    node.at,
                    "invalid-value",
                    format!("`{path}` contains a NUL character"),
                );
                None
            }
            Value::String(text) => Some(text),
            _ => self.wrong_type(node, path, "a string"),
        }
    }

    pub fn bool(&mut self, node: &Node, path: &str) -> Option<bool> {
        match node.value {
            Value::Bool(value) => Some(value),
            _ => self.wrong_type(node, path, "true or false"),
        }
    }

    /// A whole number within `range`.
    pub fn integer(
        &mut self,
        node: &Node,
        path: &str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Option<u64> {
        let Value::Number(text) = &node.value else {
            return self.wrong_type(node, path, "a whole number");
        };
        match text.parse::<u64>() {
            Ok(number) if range.contains(&number) && text.bytes().all(|b| b.is_ascii_digit()) => {
                Some(number)
            }
            _ => {
                let message = format!(
                    "`{path}` is {text}, expected a whole number from {} to {}",
                    range.start(),
                    range.end()
                );
                self.error(node.at, "out-of-range", message);
                None
            }
        }
    }

    pub fn port(&mut self, node: &Node, path: &str) -> Option<u16> {
        self.integer(node, path, 1..=65535)
            .and_then(|port| u16::try_from(port).ok())
    }

    /// A string that has to parse.
    pub fn parsed<T, E: std::fmt::Display>(
        &mut self,
        node: &Node,
        path: &str,
        code: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Spanned<T>> {
        let text = self.string(node, path)?;
        match parse(text) {
            Ok(value) => Some(Spanned::new(value, node.at)),
            Err(error) => {
                self.error(node.at, code, format!("`{path}` is {text:?}: {error}"));
                None
            }
        }
    }

    /// An array of at most `limit` elements.
    pub fn array<'n>(&mut self, node: &'n Node, path: &str, limit: usize) -> &'n [Node] {
        match &node.value {
            Value::Array(elements) if elements.len() > limit => {
                let message = format!(
                    "`{path}` has {} entries, the limit is {limit}",
                    elements.len()
                );
                self.error(node.at, "too-many", message);
                &[]
            }
            Value::Array(elements) => elements,
            _ => {
                self.wrong_type::<()>(node, path, "an array");
                &[]
            }
        }
    }

    /// The members of an object whose keys are names that the file's author chose.
    pub fn map<'n>(&mut self, node: &'n Node, path: &str, limit: usize) -> &'n [Member] {
        match &node.value {
            Value::Object(members) if members.len() > limit => {
                let message = format!(
                    "`{path}` has {} entries, the limit is {limit}",
                    members.len()
                );
                self.error(node.at, "too-many", message);
                &[]
            }
            Value::Object(members) => members,
            _ => {
                self.wrong_type::<()>(node, path, "an object");
                &[]
            }
        }
    }

    /// An object with a closed set of keys.
    pub fn object<'n>(&mut self, node: &'n Node, path: &str) -> Option<Object<'n>> {
        match &node.value {
            Value::Object(members) => Some(Object {
                path: path.to_owned(),
                at: node.at,
                members: members
                    .iter()
                    .map(|member| (member.key.as_str(), member))
                    .collect(),
                known: Vec::new(),
            }),
            _ => self.wrong_type(node, path, "an object"),
        }
    }

    /// Reports what is left in the object.
    pub fn close(&mut self, object: Object<'_>) {
        let mut left: Vec<_> = object.members.values().collect();
        left.sort_by_key(|member| member.key_at);
        for member in left {
            let message = match object.path.as_str() {
                "" => format!("unknown key `{}`", member.key),
                path => format!("unknown key `{}` in `{path}`", member.key),
            };
            let mut diagnostic = Diagnostic::new("unknown-key", message);
            if let Some(near) = nearest(&member.key, &object.known) {
                diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
            }
            self.push(member.key_at, diagnostic);
        }
    }

    pub fn required<'n>(&mut self, object: &mut Object<'n>, key: &'static str) -> Option<&'n Node> {
        let node = object.take(key);
        if node.is_none() {
            let message = format!("`{}` is missing", object.path_of(key));
            self.error(object.at, "missing-key", message);
        }
        node
    }

    /// One of a closed list of words.
    pub fn word<T: Copy>(
        &mut self,
        node: &Node,
        path: &str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.string(node, path)?;
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{path}` is {text:?}, expected one of {}", known.join(", "));
        let mut diagnostic = Diagnostic::new("invalid-value", message);
        if let Some(near) = nearest(text, &known) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        self.push(node.at, diagnostic);
        None
    }
}

// === impl Object ===

impl<'a> Object<'a> {
    pub fn has(&self, key: &str) -> bool {
        self.members.contains_key(key)
    }

    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        self.take_member(key).map(|member| &member.node)
    }

    pub fn take_member(&mut self, key: &'static str) -> Option<&'a Member> {
        self.known.push(key);
        self.members.remove(key)
    }

    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

/// The known word that a person who wrote `text` most likely meant.
pub(crate) fn nearest<'k>(text: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 64;
    if text.len() > LONGEST {
        return None;
    }
    let lower = text.to_lowercase();
    known
        .iter()
        .map(|word| {
            (
                strsim::damerau_levenshtein(&lower, &word.to_lowercase()),
                *word,
            )
        })
        .filter(|(distance, word)| *distance <= (word.len() / 3).max(1) && *distance < word.len())
        .min()
        .map(|(_, word)| word)
}
