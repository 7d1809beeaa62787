//! A program as configs and organisations' policies name it: by a name, which is looked for where programs are, or by its path.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::config::units::inline_schema;

/// Longest name or path of a program in bytes.
pub const MAX_BYTES: usize = 512;
/// Where programs are, whatever a `PATH` says.
pub const DIRECTORIES: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// `git`: in every directory that programs are looked for in. `/usr/bin/git`: that one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProgramName(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected a program's name, or its absolute path, in at most {MAX_BYTES} bytes")]
pub struct ProgramNameError;

// === impl ProgramName ===

impl ProgramName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments below the root, where it is a path.
    pub fn path(&self) -> Option<&str> {
        self.0.strip_prefix('/')
    }

    /// Whether whatever `narrow` names is named by this as well: the same, or the path of such a name in one of [`DIRECTORIES`].
    pub fn covers(&self, narrow: &Self) -> bool {
        let by_name = || {
            let (directory, name) = narrow.0.rsplit_once('/')?;
            Some(*name == *self.0 && DIRECTORIES.contains(&directory))
        };
        self == narrow || by_name().unwrap_or(false)
    }
}

impl FromStr for ProgramName {
    type Err = ProgramNameError;

    fn from_str(text: &str) -> Result<Self, ProgramNameError> {
        let plain = |segment: &str| {
            !matches!(segment, "" | "." | "..") && !segment.chars().any(char::is_control)
        };
        let fits = match text.strip_prefix('/') {
            Some(path) => path.split('/').all(plain),
            None => {
                plain(text) && !text.contains('/') && text.bytes().all(|b| b.is_ascii_graphic())
            }
        };
        (fits && text.len() <= MAX_BYTES)
            .then(|| Self(text.into()))
            .ok_or(ProgramNameError)
    }
}

impl fmt::Display for ProgramName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ProgramName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ProgramName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

inline_schema!(ProgramName, "ProgramName", { "type": "string", "minLength": 1, "maxLength": MAX_BYTES });

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn program(text: &str) -> ProgramName {
        text.parse().unwrap()
    }

    #[test]
    fn a_program_is_a_name_or_an_absolute_path() {
        for fits in [
            "git",
            "x86_64-linux-gnu-gcc-12",
            "[",
            "/usr/bin/git",
            "/opt/my tool/run",
        ] {
            assert_eq!(program(fits).to_string(), fits);
        }
        for wrong in [
            "",
            ".",
            "..",
            "a/b",
            "./a",
            "/",
            "/usr/../git",
            "/a//b",
            "/a/",
            "a b",
            "é",
            "/a\n",
        ] {
            assert_eq!(
                wrong.parse::<ProgramName>(),
                Err(ProgramNameError),
                "{wrong:?}"
            );
        }
    }

    #[test]
    fn the_longest_name_is_read_and_one_byte_more_is_not() {
        assert!("a".repeat(MAX_BYTES).parse::<ProgramName>().is_ok());
        assert!("a".repeat(MAX_BYTES + 1).parse::<ProgramName>().is_err());
    }

    #[test]
    fn a_name_covers_its_paths_where_programs_are_and_no_other() {
        for (wide, narrow, covers) in [
            ("git", "git", true),
            ("git", "/usr/bin/git", true),
            ("git", "/bin/git", true),
            ("git", "/tmp/git", false),
            ("git", "/usr/bin/gitk", false),
            ("/usr/bin/git", "git", false),
            ("/usr/bin/git", "/usr/bin/git", true),
        ] {
            assert_eq!(
                program(wide).covers(&program(narrow)),
                covers,
                "{wide} {narrow}"
            );
        }
    }
}
