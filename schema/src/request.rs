//! Which requests a rule is about: methods, path globs, and how much of them. Paths are matched in their one canonical
//! spelling; a request that spells its path in another way is refused where paths are ruled, because the server behind may
//! read it as another one (escape-attempts D13). Pure; used by `config`, by policy, and by the gateway for each request.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Most methods, and most paths, in one rule.
pub const MAX_IN_RULE: usize = 64;
/// Longest method in bytes.
pub const MAX_METHOD_BYTES: usize = 32;
/// Longest path glob in bytes.
pub const MAX_GLOB_BYTES: usize = 1024;
/// Longest path of a program in bytes.
pub const MAX_PROGRAM_BYTES: usize = 1024;
/// Most requests a second, and at once.
pub const MAX_RATE: u32 = 1_000_000;

/// A method as it stands on the wire: upper case.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Method(String);

/// `/repos/acme/**`: `*` is any run of characters within a segment, `**` any number of whole segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathGlob(String);

/// `/usr/bin/git`: the path of a program inside, as the kernel says it, links followed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProgramPath(String);

/// Requests a second, and how many at once.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimit {
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub per_second: u32,
    #[schemars(range(min = 1, max = MAX_RATE))]
    pub burst: u32,
}

/// What a rule says about requests; empty lists are about all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requests {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathGlob>,
    /// Of those who ask; empty: whoever does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramPath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    #[error("a method is a word in upper case: \"GET\"")]
    Method,
    #[error("CONNECT and TRACE are never carried")]
    NeverCarried,
    #[error("a path begins with `/` and is written without a query")]
    Path,
    #[error(
        "a path is written in its canonical spelling: no empty, `.` or `..` segment, nothing percent-encoded that need not be"
    )]
    NotCanonical,
    #[error("`**` stands for whole segments: `/a/**/b`")]
    DoubleStar,
    #[error(
        "a program is written as its whole path, of at most {MAX_PROGRAM_BYTES} bytes, without `.`, `..` or empty segments: \"/usr/bin/git\""
    )]
    Program,
}

// === impl Method ===

impl FromStr for Method {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let word = (1..=MAX_METHOD_BYTES).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b == b'-' || b == b'_');
        match text {
            _ if !word => Err(RequestError::Method),
            "CONNECT" | "TRACE" | "TRACK" => Err(RequestError::NeverCarried),
            _ => Ok(Self(text.to_owned())),
        }
    }
}

impl Method {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl ProgramPath ===

impl FromStr for ProgramPath {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        let rest = text.strip_prefix('/').ok_or(RequestError::Program)?;
        let plain = |segment: &str| !matches!(segment, "" | "." | "..");
        // What the kernel calls one that was removed, and what stands for bytes that are no text, name no program.
        let strange = |c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER;
        let is = text.len() <= MAX_PROGRAM_BYTES
            && rest.split('/').all(plain)
            && !text.ends_with(" (deleted)")
            && !text.chars().any(strange);
        is.then(|| Self(text.to_owned()))
            .ok_or(RequestError::Program)
    }
}

impl ProgramPath {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

// === impl PathGlob ===

impl FromStr for PathGlob {
    type Err = RequestError;

    fn from_str(text: &str) -> Result<Self, RequestError> {
        if !text.starts_with('/') || text.len() > MAX_GLOB_BYTES || text.contains(['?', '#']) {
            return Err(RequestError::Path);
        }
        if text
            .split('/')
            .any(|segment| segment.contains("**") && segment != "**")
        {
            return Err(RequestError::DoubleStar);
        }
        if !is_canonical(text) {
            return Err(RequestError::NotCanonical);
        }
        Ok(Self(text.to_owned()))
    }
}

impl PathGlob {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is about that path, which is canonical.
    pub fn matches(&self, path: &str) -> bool {
        let pattern: Vec<&str> = self.0.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        segments_match(&pattern, &path)
    }

    /// Whether both may be about one path.
    pub fn meets(&self, other: &Self) -> bool {
        let (one, other): (Vec<&str>, Vec<&str>) =
            (self.0.split('/').collect(), other.0.split('/').collect());
        meet(
            &one,
            &other,
            |segment| *segment == "**",
            |one, other| {
                let bytes = (one.as_bytes(), other.as_bytes());
                meet(bytes.0, bytes.1, |&byte| byte == b'*', |a, b| a == b)
            },
        )
    }
}

/// Whether a path of these segments is meant by a pattern of those: `*` is a run within one, `**` any number of whole ones.
pub fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    wild(
        pattern,
        path,
        |pattern| *pattern == "**",
        |pattern, segment| {
            wild(
                pattern.as_bytes(),
                segment.as_bytes(),
                |&byte| byte == b'*',
                |a, b| a == b,
            )
        },
    )
}

/// Matches with one kind of element that stands for any number of them. Goes back to the last one alone, which is enough, so
/// that it takes at most `pattern` × `text` steps.
fn wild<T, U>(
    pattern: &[T],
    text: &[U],
    is_star: impl Fn(&T) -> bool,
    matches: impl Fn(&T, &U) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && is_star(&pattern[p]) {
            back = Some((p, t));
            p += 1;
        } else if p < pattern.len() && matches(&pattern[p], &text[t]) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(is_star)
}

/// Whether there may be a text that both match, in at most as many steps as the product of their lengths.
fn meet<T>(
    one: &[T],
    other: &[T],
    is_star: impl Fn(&T) -> bool,
    meets: impl Fn(&T, &T) -> bool,
) -> bool {
    // What is left of `other` that what is left of `one` can go with, from the end on.
    let mut below = vec![false; other.len() + 1];
    for at in (0..=one.len()).rev() {
        let mut row = vec![false; other.len() + 1];
        for to in (0..=other.len()).rev() {
            row[to] = match (one.get(at), other.get(to)) {
                (None, None) => true,
                (Some(star), _) if is_star(star) => below[to] || to < other.len() && row[to + 1],
                (_, Some(star)) if is_star(star) => row[to + 1] || at < one.len() && below[to],
                (Some(a), Some(b)) => below[to + 1] && meets(a, b),
                _ => false,
            };
        }
        below = row;
    }
    below[0]
}

/// Whether a path is spelt in the one way that is accepted (RFC 3986, 3.3 and 6.2.2): what may stand as it is is not
/// percent-encoded and what may not is, no encoded separator or control character, no empty segment but the last, no `.` or `..`,
/// no parameters behind a `;`, which some servers take away.
pub fn is_canonical(path: &str) -> bool {
    let Some(rest) = path.strip_prefix('/') else {
        return false;
    };
    let segments: Vec<&str> = rest.split('/').collect();
    let last = segments.len() - 1;
    segments.iter().enumerate().all(|(i, segment)| {
        let empty_inside = segment.is_empty() && i < last;
        !empty_inside && *segment != "." && *segment != ".." && is_plain(segment)
    })
}

/// pchar of RFC 3986, 3.3, but `;`.
fn stands(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte)
}

fn is_plain(segment: &str) -> bool {
    let bytes = segment.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = bytes.get(at + 1..at + 3);
                let Some(byte) = digits
                    .filter(|d| {
                        d.iter()
                            .all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(b))
                    })
                    .and_then(|d| std::str::from_utf8(d).ok())
                    .and_then(|d| u8::from_str_radix(d, 16).ok())
                else {
                    return false;
                };
                if stands(byte) || byte < b' ' || byte == 0x7f || b"/\\;%".contains(&byte) {
                    return false;
                }
                at += 3;
            }
            byte if stands(byte) => at += 1,
            _ => return false,
        }
    }
    true
}

// === impl Requests ===

impl Requests {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the rule is about that request; `path` is canonical where the rule has paths.
    pub fn matches(&self, method: &str, path: &str) -> bool {
        (self.methods.is_empty() || self.methods.iter().any(|m| m.0 == method))
            && (self.paths.is_empty() || self.paths.iter().any(|glob| glob.matches(path)))
    }

    /// Whether it is about what that program asks; of one that is not known, where it names none.
    pub fn fits(&self, program: Option<&str>) -> bool {
        let mut programs = self.programs.iter();
        self.programs.is_empty() || program.is_some_and(|path| programs.any(|p| p.0 == path))
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ProgramPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    };
}

as_text!(Method);
as_text!(PathGlob);
as_text!(ProgramPath);

impl JsonSchema for Method {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Method".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[A-Z_-]{1,32}$" })
    }
}

impl JsonSchema for ProgramPath {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ProgramPath".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^/", "maxLength": MAX_PROGRAM_BYTES })
    }
}

impl JsonSchema for PathGlob {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathGlob".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^/", "maxLength": MAX_GLOB_BYTES })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_glob_matches_segments_and_runs_within_them() {
        for (glob, path, yes) in [
            ("/repos/acme/**", "/repos/acme", true),
            ("/repos/acme/**", "/repos/acme/", true),
            ("/repos/acme/**", "/repos/acme/a/b", true),
            ("/repos/acme/**", "/repos/acmeevil", false),
            ("/repos/acme/**", "/repos/Acme/a", false),
            ("/repos/*/issues", "/repos/a/issues", true),
            ("/repos/*/issues", "/repos/a/b/issues", false),
            ("/repos/*/issues", "/repos//issues", true),
            ("/**/info/refs", "/a/b.git/info/refs", true),
            ("/**/info/refs", "/info/refs", true),
            ("/**/info/refs", "/a/info/refs/x", false),
            ("/a*b*c", "/axxbyybc", true),
            ("/a*b*c", "/axxbyyb", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/**", "/", true),
        ] {
            let parsed: PathGlob = glob.parse().unwrap();
            assert_eq!(parsed.matches(path), yes, "{glob} {path}");
        }
    }

    #[test]
    fn globs_meet_where_one_path_is_meant_by_both() {
        for (one, other, yes) in [
            ("/repos/acme/**", "/repos/other/**", false),
            ("/repos/acme/**", "/repos/*/issues", true),
            ("/repos/acme/**", "/repos/acme", true),
            ("/repos/acme/*", "/repos/acme", false),
            ("/**", "/a/b/c", true),
            ("/**/x", "/**/y", false),
            ("/**/x", "/y/**", true),
            ("/a*c", "/ab*", true),
            ("/a*c", "/b*c", false),
            ("/a*", "/*b", true),
            ("/a*b", "/a*c", false),
            ("/*/b", "/a/*", true),
            ("/*/b", "/a/*/c", false),
            ("/", "/**", true),
            ("/", "/a", false),
        ] {
            let (a, b): (PathGlob, PathGlob) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!((a.meets(&b), b.meets(&a)), (yes, yes), "{one} {other}");
        }
        let long = |end: &str| -> PathGlob {
            let most = "a*".repeat((MAX_GLOB_BYTES - 2) / 2);
            format!("/{most}{end}").parse().unwrap()
        };
        assert!(!long("b").meets(&long("c")) && long("b").meets(&long("b")));
    }

    #[test]
    fn a_program_has_one_spelling_and_is_known_by_all_of_it() {
        let long = format!("/{}", "a".repeat(MAX_PROGRAM_BYTES - 1));
        for (text, yes) in [
            ("/usr/bin/git", true),
            ("/opt/a program/é", true),
            ("/opt/x (deleted)/y", true),
            (&long, true),
            (&format!("{long}a"), false),
            ("git", false),
            ("", false),
            ("/", false),
            ("/usr/bin/", false),
            ("/usr//bin/git", false),
            ("/usr/./git", false),
            ("/usr/../git", false),
            ("/usr/bin/git (deleted)", false),
            ("/usr/bin/\u{fffd}", false),
            ("/usr/bin/a\nb", false),
        ] {
            assert_eq!(text.parse::<ProgramPath>().is_ok(), yes, "{text:?}");
        }
        let some = Requests {
            programs: vec!["/usr/bin/git".parse().unwrap()],
            ..Requests::default()
        };
        assert!(some.fits(Some("/usr/bin/git")) && !some.is_empty());
        for other in [
            None,
            Some("/usr/bin/git2"),
            Some("/tmp/usr/bin/git"),
            Some("git"),
            Some(""),
        ] {
            assert!(
                !some.fits(other) && Requests::default().fits(other),
                "{other:?}"
            );
        }
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_longer_than_its_text() {
        let glob: PathGlob = format!("/{}b", "*a".repeat(400)).parse().unwrap();
        let path = format!("/{}", "a".repeat(16_000));
        assert!(!glob.matches(&path));
        let glob: PathGlob = format!("{}/b", "/**/a".repeat(200)).parse().unwrap();
        assert!(!glob.matches(&"/a".repeat(8_000)));
    }

    #[test]
    fn a_path_has_one_spelling() {
        for path in [
            "/",
            "/a",
            "/a/",
            "/a/b.c",
            "/a%20b",
            "/%E2%82%AC",
            "/a:b@c",
            "/..a",
            "/a..",
            "/*",
        ] {
            assert!(is_canonical(path), "{path}");
        }
        for path in [
            "", "a", "//", "/a//b", "/.", "/..", "/a/../b", "/a/./b", "/%2e%2e/", "/%2E", "/a%2Fb",
            "/a%2fb", "/a%5Cb", "/a\\b", "/%41", "/%7E", "/%e2", "/%", "/%4", "/%zz", "/%00",
            "/%0A", "/..;/a", "/.;x/a", "/a%3Bb", "/a%25b", "/%7F", "/a;v=1", "/a%40b", "/a%3Ab",
            "/a|b", "/a{b}",
        ] {
            assert!(!is_canonical(path), "{path}");
        }
    }

    #[test]
    fn what_is_no_method_or_glob_is_an_error() {
        for (text, error) in [
            ("get", RequestError::Method),
            ("", RequestError::Method),
            ("CONNECT", RequestError::NeverCarried),
            ("TRACE", RequestError::NeverCarried),
        ] {
            assert_eq!(text.parse::<Method>(), Err(error), "{text}");
        }
        assert!("A".repeat(MAX_METHOD_BYTES).parse::<Method>().is_ok());
        assert!("A".repeat(MAX_METHOD_BYTES + 1).parse::<Method>().is_err());
        for (text, error) in [
            ("a", RequestError::Path),
            ("/a?b", RequestError::Path),
            ("/a/../b", RequestError::NotCanonical),
            ("/a**", RequestError::DoubleStar),
            ("/***", RequestError::DoubleStar),
        ] {
            assert_eq!(text.parse::<PathGlob>(), Err(error), "{text}");
        }
        let long = |n: usize| format!("/{}", "a".repeat(n - 1));
        assert!(long(MAX_GLOB_BYTES).parse::<PathGlob>().is_ok());
        assert!(long(MAX_GLOB_BYTES + 1).parse::<PathGlob>().is_err());
    }
}
