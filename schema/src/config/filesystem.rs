//! `agent.capabilities.filesystem`: trees that are read-only, writable within those, or not there for anybody inside.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::diag::Spanned;

/// Most entries in each of the three lists.
pub const MAX_PATHS: usize = 256;
/// Longest path in bytes.
pub const MAX_PATH_BYTES: usize = 1024;
/// Most segments of a path.
pub const MAX_SEGMENTS: usize = 64;

const FOLDER: &str = "${containerWorkspaceFolder}";
/// The kernel's own trees, which the engine sets up and we mask.
const KERNEL: [&str; 3] = ["proc", "sys", "dev"];

/// What may be done to files. A longer path wins over a shorter one, and `deniedPaths` over both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Filesystem {
    /// Nothing in them is written, created, removed or renamed. `/` is everything but what `writablePaths` names and the kernel's own trees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_PATHS))]
    pub read_only_paths: Vec<Spanned<PathPattern>>,
    /// What stays writable within `readOnlyPaths`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_PATHS))]
    pub writable_paths: Vec<Spanned<PathPattern>>,
    /// Neither read nor written by anybody inside.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_PATHS))]
    pub denied_paths: Vec<Spanned<PathPattern>>,
}

/// `/etc/ssl`: in the container. `docs`, `**/.env`: below the workspace's folder there, as `${containerWorkspaceFolder}/docs` is; `.`
/// is that folder. `/` is everything but the kernel's own trees. `*` is a run of characters within a segment, `**` any number of whole segments.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPattern {
    /// From the container's root, or from the workspace's folder.
    from_root: bool,
    /// Without a slash at either end; empty: the root, or the workspace's folder itself.
    rest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PathPatternError {
    #[error("a path has 1 to {MAX_PATH_BYTES} bytes and no control characters")]
    Text,
    #[error("a path has at most {MAX_SEGMENTS} segments")]
    TooDeep,
    #[error("no segment is empty, `.` or `..`")]
    Segment,
    #[error("`**` stands for whole segments: `a/**/b`")]
    DoubleStar,
    #[error("{FOLDER} is the only variable here, at the beginning")]
    Variable,
    #[error("the whole root can be read-only and nothing else: name the directories below it")]
    Root,
    #[error("/proc, /sys and /dev are the kernel's, and are set up by the engine and by us")]
    Kernel,
}

// === impl Filesystem ===

impl Filesystem {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

// === impl PathPattern ===

impl FromStr for PathPattern {
    type Err = PathPatternError;

    fn from_str(text: &str) -> Result<Self, PathPatternError> {
        if text.is_empty() || text.len() > MAX_PATH_BYTES || text.chars().any(char::is_control) {
            return Err(PathPatternError::Text);
        }
        let (from_root, rest) = match (text.strip_prefix(FOLDER), text.strip_prefix('/')) {
            (Some(""), _) => (false, ""),
            (Some(rest), _) => (
                false,
                rest.strip_prefix('/').ok_or(PathPatternError::Variable)?,
            ),
            (None, Some(rest)) => (true, rest),
            (None, None) if text == "." => (false, ""),
            (None, None) => (false, text),
        };
        if rest.contains("${") {
            return Err(PathPatternError::Variable);
        }
        if rest.starts_with('/') {
            return Err(PathPatternError::Segment);
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.is_empty() {
            return Ok(Self {
                from_root,
                rest: String::new(),
            });
        }
        for segment in rest.split('/') {
            if matches!(segment, "" | "." | "..") {
                return Err(PathPatternError::Segment);
            }
            if segment.contains("**") && segment != "**" {
                return Err(PathPatternError::DoubleStar);
            }
        }
        if rest.split('/').count() > MAX_SEGMENTS {
            return Err(PathPatternError::TooDeep);
        }
        if from_root {
            match rest.split('/').next() {
                Some(first) if KERNEL.contains(&first) => return Err(PathPatternError::Kernel),
                Some(first) if first.contains('*') => return Err(PathPatternError::Root),
                _ => {}
            }
        }
        Ok(Self {
            from_root,
            rest: rest.to_owned(),
        })
    }
}

impl PathPattern {
    /// Whether it begins at the container's root; otherwise at the workspace's folder.
    pub fn is_from_root(&self) -> bool {
        self.from_root
    }

    /// Whether it is the whole root, which `readOnlyPaths` alone may name.
    pub fn is_root(&self) -> bool {
        self.from_root && self.rest.is_empty()
    }

    /// Whether it stands for whatever matches it, also for what comes later.
    pub fn is_glob(&self) -> bool {
        self.rest.contains('*')
    }

    /// Its segments before the first that stands for others, and these.
    pub fn split(&self) -> (Vec<&str>, Vec<&str>) {
        let segments: Vec<&str> = self.rest.split('/').filter(|s| !s.is_empty()).collect();
        let fixed = segments.iter().take_while(|s| !s.contains('*')).count();
        let (fixed, rest) = segments.split_at(fixed);
        (fixed.to_vec(), rest.to_vec())
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.from_root, self.rest.as_str()) {
            (true, rest) => write!(f, "/{rest}"),
            (false, "") => f.write_str("."),
            (false, rest) => f.write_str(rest),
        }
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": MAX_PATH_BYTES })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::request::segments_match;

    #[test]
    fn paths_have_one_spelling() {
        for (text, shown) in [
            ("/", "/"),
            ("/workspace", "/workspace"),
            ("/workspace/", "/workspace"),
            (".", "."),
            ("${containerWorkspaceFolder}", "."),
            ("${containerWorkspaceFolder}/", "."),
            ("${containerWorkspaceFolder}/a", "a"),
            ("a/b/", "a/b"),
            ("**/.env", "**/.env"),
            ("/srv/*/key", "/srv/*/key"),
            ("app/[id].tsx", "app/[id].tsx"),
        ] {
            let pattern: PathPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), shown);
            assert_eq!(shown.parse::<PathPattern>().unwrap(), pattern, "{shown}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        use PathPatternError as E;
        for (text, error) in [
            ("", E::Text),
            ("a\u{1b}b", E::Text),
            ("//", E::Segment),
            ("/*", E::Root),
            ("/**/x", E::Root),
            ("a//b", E::Segment),
            ("a/../b", E::Segment),
            ("./a", E::Segment),
            ("/a/./b", E::Segment),
            ("a/**b", E::DoubleStar),
            ("***", E::DoubleStar),
            ("${localEnv:HOME}/x", E::Variable),
            ("x/${containerWorkspaceFolder}", E::Variable),
            ("${containerWorkspaceFolder}x", E::Variable),
            ("/proc/self/mem", E::Kernel),
            ("/dev", E::Kernel),
        ] {
            assert_eq!(text.parse::<PathPattern>(), Err(error), "{text:?}");
        }
    }

    #[test]
    fn the_longest_and_deepest_path_is_read_and_one_more_is_not() {
        let long = |n: usize| "a".repeat(n).parse::<PathPattern>();
        assert!(long(MAX_PATH_BYTES).is_ok());
        assert_eq!(long(MAX_PATH_BYTES + 1), Err(PathPatternError::Text));
        let deep = |n: usize| vec!["a"; n].join("/").parse::<PathPattern>();
        assert!(deep(MAX_SEGMENTS).is_ok());
        assert_eq!(deep(MAX_SEGMENTS + 1), Err(PathPatternError::TooDeep));
    }

    #[test]
    fn a_pattern_is_split_where_it_begins_to_stand_for_others() {
        let pattern: PathPattern = "a/b/*.pem/c".parse().unwrap();
        assert_eq!(pattern.split(), (vec!["a", "b"], vec!["*.pem", "c"]));
        assert!(pattern.is_glob() && !pattern.is_from_root());
        let pattern: PathPattern = "/etc/ssl".parse().unwrap();
        assert_eq!(pattern.split(), (vec!["etc", "ssl"], vec![]));
        assert_eq!(
            ".".parse::<PathPattern>().unwrap().split(),
            (vec![], vec![])
        );
    }

    #[test]
    fn stars_stand_for_runs_and_for_segments() {
        for (pattern, path, matched) in [
            ("**/.env", ".env", true),
            ("**/.env", "a/b/.env", true),
            ("**/.env", "a/.env.local", false),
            ("**/.env*", "a/.env.local", true),
            ("secrets/**", "secrets", true),
            ("secrets/**", "secrets/a/b", true),
            ("*.pem", "a/b.pem", false),
            ("a/*/c", "a/b/c", true),
            ("a/*/c", "a/b/b/c", false),
        ] {
            let pattern: Vec<&str> = pattern.split('/').collect();
            let path: Vec<&str> = path.split('/').collect();
            assert_eq!(
                segments_match(&pattern, &path),
                matched,
                "{pattern:?} {path:?}"
            );
        }
    }
}
