//! An in-toto statement (v0.1 and v1): what a signature is about, and what it says of it. Parsed strictly: two readers must not find
//! two subjects in one text. <https://github.com/in-toto/attestation/tree/main/spec>

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeOwned, Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use thiserror::Error;

use crate::signature::{Subject, json};

/// The longest statement; an inventory of a large image is a few MiB.
pub const BYTES: usize = 12 << 20;
/// The most subjects of one statement.
pub const SUBJECTS: usize = 2_048;
/// The one payload type of an envelope that holds a statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";

const TYPES: [&str; 2] = [
    "https://in-toto.io/Statement/v0.1",
    "https://in-toto.io/Statement/v1",
];

#[derive(Debug, Error)]
pub enum StatementError {
    #[error("the statement is {0}")]
    Unbounded(#[from] json::Unbounded),
    #[error("no in-toto statement: {0}")]
    Malformed(String),
    #[error("{0:?} is no version of a statement that is known")]
    Version(String),
    #[error("the statement names no subject")]
    NoSubject,
    #[error("the statement names more than {SUBJECTS} subjects")]
    Subjects,
    #[error("the predicate is not what its type says: {0}")]
    Predicate(String),
}

/// A statement whose envelope's signature is the caller's to have verified.
#[derive(Clone)]
pub struct Statement {
    payload: Vec<u8>,
    predicate_type: String,
    subjects: Vec<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "_type")]
    version: String,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    subject: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    digest: Digests,
}

/// A map whose keys are there once.
struct Digests(BTreeMap<String, String>);

// === impl Statement ===

impl Statement {
    /// # Errors
    /// [`StatementError`]: beyond a bound, malformed, of an unknown version, without a subject.
    pub fn parse(payload: &[u8]) -> Result<Self, StatementError> {
        json::bounded(payload, BYTES)?;
        let outline: Outline = serde_json::from_slice(payload)
            .map_err(|error| StatementError::Malformed(error.to_string()))?;
        if !TYPES.contains(&outline.version.as_str()) {
            return Err(StatementError::Version(outline.version));
        }
        match outline.subject.len() {
            0 => return Err(StatementError::NoSubject),
            n if n > SUBJECTS => return Err(StatementError::Subjects),
            _ => {}
        }
        Ok(Self {
            payload: payload.to_vec(),
            predicate_type: outline.predicate_type,
            subjects: outline.subject.into_iter().map(|s| s.digest.0).collect(),
        })
    }

    pub fn predicate_type(&self) -> &str {
        &self.predicate_type
    }

    /// Whether one of its subjects is this: by a digest that both have, and by no digest another.
    pub fn names(&self, subject: &Subject<'_>) -> bool {
        self.subjects.iter().any(|digests| {
            let same = |name: &str, ours: Option<String>| match (digests.get(name), ours) {
                (Some(theirs), Some(ours)) => Some(*theirs == ours),
                _ => None,
            };
            let both = [
                same("sha256", subject.sha256_hex()),
                same("sha512", subject.sha512_hex()),
            ];
            both.contains(&Some(true)) && !both.contains(&Some(false))
        })
    }

    /// The predicate, read as what its type promises.
    ///
    /// # Errors
    /// [`StatementError::Predicate`] where it is something else.
    pub fn predicate<P: DeserializeOwned>(&self) -> Result<P, StatementError> {
        #[derive(Deserialize)]
        struct Whole<P> {
            predicate: P,
        }
        serde_json::from_slice::<Whole<P>>(&self.payload)
            .map(|whole| whole.predicate)
            .map_err(|error| StatementError::Predicate(error.to_string()))
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Statement")
            .field("predicate_type", &self.predicate_type)
            .field("subjects", &self.subjects)
            .finish_non_exhaustive()
    }
}

// === impl Digests ===

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Once;
        impl<'de> Visitor<'de> for Once {
            type Value = Digests;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("digests by algorithm")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Digests, M::Error> {
                let mut digests = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, String>()? {
                    if digests.insert(name, value).is_some() {
                        return Err(M::Error::custom("two digests of one algorithm"));
                    }
                }
                Ok(Digests(digests))
            }
        }
        deserializer.deserialize_map(Once)
    }
}

#[cfg(test)]
#[path = "statement/tests.rs"]
mod tests;
