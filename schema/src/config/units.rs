//! Small values of the config with a textual form of their own: sizes, processor shares, user and variable names.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Most processors that can be asked for.
pub const MAX_CPUS: u64 = 4096;
/// Most memory that can be asked for, in bytes: 2^50.
pub const MAX_MEMORY_BYTES: u64 = 1 << 50;
/// Least memory that a limit can leave, in bytes: what engines accept.
pub const MIN_MEMORY_BYTES: u64 = 6 << 20;
/// Longest life of a secret's file, in seconds: 30 days.
pub const MAX_TTL_SECONDS: u64 = 30 * 86_400;
/// Longest name of a user, `user:group` form included, or of an environment variable.
pub const MAX_NAME_BYTES: usize = 128;

/// Bytes; as text a number with an optional unit, `4g`, `512mb`, units of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

/// Processors in thousandths; as JSON a number with at most three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpus(u32);

/// A span of seconds; as text a whole number of seconds, minutes, hours or days: `90s`, `15m`, `1h`, `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u64);

/// A user of the image by name or number, with an optional group: `node`, `1000:1000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserName(Box<str>);

/// `[A-Za-z_][A-Za-z0-9_]*`, and not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VariableName(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum UnitError {
    #[error("expected a whole number with an optional unit b, k, m, g or t")]
    Memory,
    #[error("expected at most {MAX_MEMORY_BYTES} bytes")]
    MemoryRange,
    #[error("expected a number of processors from 0.01 to {MAX_CPUS} with at most three decimals")]
    Cpus,
    #[error(
        "expected a whole number of seconds, minutes, hours or days, from 1s to 30d: 90s, 15m, 1h"
    )]
    Ttl,
    #[error("expected a user name or number, with an optional `:` and group")]
    User,
    #[error("expected letters, digits and _, not starting with a digit")]
    Variable,
    #[error("variables that begin with AGENTCONTAINER_ are set by agentcontainer itself")]
    Reserved,
}

// === impl MemorySize ===

impl MemorySize {
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for MemorySize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" => 10,
            "m" | "mb" => 20,
            "g" | "gb" => 30,
            "t" | "tb" => 40,
            _ => return Err(UnitError::Memory),
        };
        if number.is_empty() {
            return Err(UnitError::Memory);
        }
        let number: u64 = number.parse().map_err(|_| UnitError::MemoryRange)?;
        let bytes = number
            .checked_mul(1 << shift)
            .filter(|bytes| *bytes <= MAX_MEMORY_BYTES);
        bytes.map(Self).ok_or(UnitError::MemoryRange)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for MemorySize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Cpus ===

impl Cpus {
    pub fn milli(self) -> u32 {
        self.0
    }

    /// For the engine's NanoCpus.
    pub fn nano(self) -> i64 {
        i64::from(self.0) * 1_000_000
    }
}

impl FromStr for Cpus {
    type Err = UnitError;

    /// Reads the text of a JSON number, without an exponent.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        let decimals = decimals.trim_end_matches('0');
        if whole.is_empty()
            || whole.len() > 4
            || decimals.len() > 3
            || !digits(whole)
            || !digits(decimals)
        {
            return Err(UnitError::Cpus);
        }
        let thousandths: u32 = format!("{whole}{decimals:0<3}")
            .parse()
            .map_err(|_| UnitError::Cpus)?;
        if thousandths < 10 || u64::from(thousandths) > MAX_CPUS * 1000 {
            return Err(UnitError::Cpus);
        }
        Ok(Self(thousandths))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 1000, self.0 % 1000) {
            (whole, 0) => write!(f, "{whole}"),
            (whole, part) => f.write_str(format!("{whole}.{part:03}").trim_end_matches('0')),
        }
    }
}

impl Serialize for Cpus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 % 1000 {
            0 => serializer.serialize_u32(self.0 / 1000),
            _ => serializer.serialize_f64(f64::from(self.0) / 1000.0),
        }
    }
}

// === impl Ttl ===

impl Ttl {
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Ttl {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(UnitError::Ttl),
        };
        let number: u64 = number.parse().map_err(|_| UnitError::Ttl)?;
        number
            .checked_mul(unit)
            .filter(|seconds| (1..=MAX_TTL_SECONDS).contains(seconds))
            .map(Self)
            .ok_or(UnitError::Ttl)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
        let whole = units
            .into_iter()
            .find(|(unit, _)| self.0.is_multiple_of(*unit));
        let (unit, letter) = whole.unwrap_or((1, 's'));
        write!(f, "{}{letter}", self.0 / unit)
    }
}

impl Serialize for Ttl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl UserName ===

impl UserName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Root by name or by number. An image may have other names for it: the engine's answer is checked as well.
    pub fn is_root(&self) -> bool {
        let user = self.0.split(':').next().unwrap_or("");
        user == "root" || user.bytes().all(|b| b == b'0')
    }
}

impl FromStr for UserName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let part = |part: &str| {
            let first = part.bytes().next();
            first.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_')
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        };
        if text.len() <= MAX_NAME_BYTES && text.split(':').count() <= 2 && text.split(':').all(part)
        {
            Ok(Self(text.into()))
        } else {
            Err(UnitError::User)
        }
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UserName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

// === impl VariableName ===

impl VariableName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for VariableName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fits = (1..=MAX_NAME_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !text.starts_with(|c: char| c.is_ascii_digit());
        match fits {
            true if text.starts_with("AGENTCONTAINER_") => Err(UnitError::Reserved),
            true => Ok(Self(text.into())),
            false => Err(UnitError::Variable),
        }
    }
}

impl fmt::Display for VariableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for VariableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

macro_rules! inline_schema {
    ($type:ty, $name:literal, $schema:tt) => {
        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}
pub(crate) use inline_schema;

inline_schema!(MemorySize, "MemorySize", { "type": "string", "pattern": "^[0-9]+([bBkKmMgGtT]|[kKmMgGtT][bB])?$" });
inline_schema!(Cpus, "Cpus", { "type": "number", "minimum": 0.01, "maximum": MAX_CPUS });
inline_schema!(Ttl, "Ttl", { "type": "string", "pattern": "^[0-9]{1,7}[smhd]$" });
inline_schema!(UserName, "UserName", {
    "type": "string",
    "maxLength": MAX_NAME_BYTES,
    "pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$"
});
inline_schema!(VariableName, "VariableName", {
    "type": "string",
    "maxLength": MAX_NAME_BYTES,
    "pattern": "^[A-Za-z_][A-Za-z0-9_]*$"
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn memory_has_units_of_1024_and_a_ceiling() {
        for (text, bytes) in [
            ("4g", 4 << 30),
            ("512MB", 512 << 20),
            ("1k", 1024),
            ("7", 7),
            ("7b", 7),
            ("1024t", MAX_MEMORY_BYTES),
        ] {
            assert_eq!(text.parse::<MemorySize>().unwrap().bytes(), bytes, "{text}");
        }
        for text in ["", "g", "4 g", "4gib", "-1", "4.5g", "0x10", "+4g", "1bb"] {
            assert_eq!(text.parse::<MemorySize>(), Err(UnitError::Memory), "{text}");
        }
        for text in ["1025t", "1125899906842625", "99999999999999999999999"] {
            assert_eq!(
                text.parse::<MemorySize>(),
                Err(UnitError::MemoryRange),
                "{text}"
            );
        }
    }

    #[test]
    fn a_life_has_a_unit_and_a_longest() {
        for (text, seconds, shown) in [
            ("1s", 1, "1s"),
            ("90s", 90, "90s"),
            ("60m", 3600, "1h"),
            ("36h", 129_600, "36h"),
            ("30d", MAX_TTL_SECONDS, "30d"),
            ("2592000s", MAX_TTL_SECONDS, "30d"),
        ] {
            let ttl: Ttl = text.parse().unwrap();
            assert_eq!((ttl.seconds(), ttl.to_string().as_str()), (seconds, shown));
        }
        for text in [
            "",
            "h",
            "0s",
            "60",
            "1w",
            "1 h",
            "-1h",
            "+1h",
            "1.5h",
            "1H",
            "31d",
            "2592001s",
            "18446744073709551615d",
        ] {
            assert_eq!(text.parse::<Ttl>(), Err(UnitError::Ttl), "{text}");
        }
    }

    #[test]
    fn processors_are_exact_thousandths() {
        for (text, milli, shown) in [
            ("2", 2000, "2"),
            ("0.5", 500, "0.5"),
            ("1.250", 1250, "1.25"),
            ("0.01", 10, "0.01"),
            ("4096", 4_096_000, "4096"),
        ] {
            let cpus: Cpus = text.parse().unwrap();
            assert_eq!((cpus.milli(), cpus.to_string().as_str()), (milli, shown));
            assert_eq!(serde_json::to_string(&cpus).unwrap(), shown);
        }
        for text in [
            "", "0", "0.009", "-1", "1e3", "4096.001", "4097", "1.2345", ".5", "+1", "99999",
        ] {
            assert_eq!(text.parse::<Cpus>(), Err(UnitError::Cpus), "{text}");
        }
    }

    #[test]
    fn users_and_variables_have_closed_alphabets() {
        for text in ["node", "1000", "1000:1000", "_apt", "vs.code-1"] {
            assert_eq!(text.parse::<UserName>().unwrap().as_str(), text);
        }
        for text in ["", ":", "a:", "a:b:c", "-a", "a b", "a/b", "ä", "$USER"] {
            assert_eq!(text.parse::<UserName>(), Err(UnitError::User), "{text}");
        }
        assert!("0:0".parse::<UserName>().unwrap().is_root());
        assert!("root".parse::<UserName>().unwrap().is_root());
        assert!("00".parse::<UserName>().unwrap().is_root());
        assert!(!"node:0".parse::<UserName>().unwrap().is_root());
        assert!("a".repeat(MAX_NAME_BYTES).parse::<UserName>().is_ok());
        assert!("a".repeat(MAX_NAME_BYTES + 1).parse::<UserName>().is_err());
        assert!("a".repeat(MAX_NAME_BYTES).parse::<VariableName>().is_ok());
        assert!(
            "a".repeat(MAX_NAME_BYTES + 1)
                .parse::<VariableName>()
                .is_err()
        );
        for text in ["", "1a", "a-b", "a=b", "a b", "ä"] {
            assert_eq!(
                text.parse::<VariableName>(),
                Err(UnitError::Variable),
                "{text}"
            );
        }
        assert_eq!(
            "AGENTCONTAINER_SESSION".parse::<VariableName>(),
            Err(UnitError::Reserved)
        );
    }
}
