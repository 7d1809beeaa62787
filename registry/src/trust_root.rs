//! What keyless signatures are measured against: authorities, logs and timestamp authorities. The public-good root is embedded;
//! private ones come from files that the host names; a newer public one, or a private repository's, by TUF.

mod tuf;

use std::fmt;

use sigstore_trust_root::{SigstoreInstance, TrustedRoot};
use sigstore_verify::Verifier;
use thiserror::Error;

use crate::signature::json;

pub use tuf::Repository;

/// The longest trusted root.
pub const BYTES: usize = 1 << 20;
/// The most roots at once.
pub const ROOTS: usize = 16;
/// The most authorities and logs of one root.
pub const MEMBERS: usize = 256;

#[derive(Debug, Error)]
pub enum TrustRootError {
    #[error("{0}: {1}")]
    Unbounded(String, json::Unbounded),
    #[error("{0} is no trusted root: {1}")]
    Malformed(String, String),
    #[error("{0} has more than {MEMBERS} authorities and logs")]
    Members(String),
    #[error("{0} names no certificate authority, or nothing that proves a time")]
    Nothing(String),
    #[error("{0} cannot be had by TUF: {1}")]
    Tuf(String, String),
    #[error("more than {ROOTS} trusted roots")]
    TooMany,
}

/// Roots in the order in which they are tried.
#[derive(Default)]
pub struct TrustRoots(Vec<Root>);

/// One root. What it has, it demands: where it lists certificate logs, an SCT; where it lists transparency logs, an entry.
pub(crate) struct Root {
    pub name: String,
    pub verifier: Verifier,
    pub certificate_logs: bool,
    pub logs: bool,
    /// As it was read.
    json: Vec<u8>,
}

// === impl TrustRoots ===

impl TrustRoots {
    /// No root: keys without a log are all that can be verified.
    pub fn none() -> Self {
        Self::default()
    }

    /// Sigstore's public-good instance, as embedded at build time.
    ///
    /// # Errors
    /// [`TrustRootError`] where the embedded root cannot be read, which a test excludes.
    pub fn public_good() -> Result<Self, TrustRootError> {
        Self::none().with_json(
            "public-good",
            SigstoreInstance::PublicGood
                .embedded_trusted_root_json()
                .as_bytes(),
        )
    }

    /// One more root: a `trusted_root.json` that the host named, or a refreshed public one. `name` is for reports.
    ///
    /// # Errors
    /// [`TrustRootError`] where it is beyond a bound, malformed, or nothing could be verified with it.
    pub fn with_json(mut self, name: &str, json: &[u8]) -> Result<Self, TrustRootError> {
        if self.0.len() == ROOTS {
            return Err(TrustRootError::TooMany);
        }
        json::bounded(json, BYTES)
            .map_err(|unbounded| TrustRootError::Unbounded(name.to_owned(), unbounded))?;
        let malformed =
            |error: &dyn fmt::Display| TrustRootError::Malformed(name.into(), error.to_string());
        let text = std::str::from_utf8(json).map_err(|error| malformed(&error))?;
        let root = TrustedRoot::from_json(text).map_err(|error| malformed(&error))?;
        let members = root.tlogs.len()
            + root.ctlogs.len()
            + root.certificate_authorities.len()
            + root.timestamp_authorities.len();
        if members > MEMBERS {
            return Err(TrustRootError::Members(name.to_owned()));
        }
        if root.certificate_authorities.is_empty()
            || (root.tlogs.is_empty() && root.timestamp_authorities.is_empty())
        {
            return Err(TrustRootError::Nothing(name.to_owned()));
        }
        self.0.push(Root {
            name: name.to_owned(),
            verifier: Verifier::new(&root).map_err(|error| malformed(&error))?,
            certificate_logs: !root.ctlogs.is_empty(),
            logs: !root.tlogs.is_empty(),
            json: json.to_vec(),
        });
        Ok(self)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Root> {
        self.0.iter()
    }

    /// Each with its name, as it was read: what `with_json` takes again.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let all = self.0.iter();
        all.map(|root| (root.name.as_str(), root.json.as_slice()))
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|root| root.name.as_str())
    }
}

impl fmt::Debug for TrustRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const EMBEDDED: &str = sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

    #[test]
    fn the_embedded_root_is_whole() {
        let roots = TrustRoots::public_good().unwrap();
        let root = roots.iter().next().unwrap();
        assert!(root.certificate_logs && root.logs);
        assert_eq!(roots.names().collect::<Vec<_>>(), ["public-good"]);
    }

    #[test]
    fn a_root_that_verifies_nothing_is_refused() {
        let with = |change: fn(&mut serde_json::Value)| {
            let mut root: serde_json::Value = serde_json::from_str(EMBEDDED).unwrap();
            change(&mut root);
            TrustRoots::none().with_json("file", root.to_string().as_bytes())
        };
        assert!(with(|_| {}).is_ok());
        let empty = |root: &mut serde_json::Value, key: &str| root[key] = serde_json::json!([]);
        for refused in [
            with(|root| root["certificateAuthorities"] = serde_json::json!([])),
            with(|root| {
                root["tlogs"] = serde_json::json!([]);
                root["timestampAuthorities"] = serde_json::json!([]);
            }),
        ] {
            assert!(matches!(refused, Err(TrustRootError::Nothing(_))));
        }
        let mut root: serde_json::Value = serde_json::from_str(EMBEDDED).unwrap();
        empty(&mut root, "ctlogs");
        let roots = TrustRoots::none()
            .with_json("private", root.to_string().as_bytes())
            .unwrap();
        assert!(!roots.iter().next().unwrap().certificate_logs);
        assert!(matches!(
            TrustRoots::none().with_json("file", b"{}"),
            Err(TrustRootError::Malformed(..))
        ));
    }

    #[test]
    fn roots_are_bounded() {
        let padded = |length: usize| format!("{EMBEDDED}{}", " ".repeat(length - EMBEDDED.len()));
        let load = |text: &str| TrustRoots::none().with_json("file", text.as_bytes());
        assert!(load(&padded(BYTES)).is_ok());
        assert!(matches!(
            load(&padded(BYTES + 1)),
            Err(TrustRootError::Unbounded(..))
        ));
        let mut many: serde_json::Value = serde_json::from_str(EMBEDDED).unwrap();
        let others = ["tlogs", "ctlogs", "timestampAuthorities"]
            .iter()
            .map(|key| many[key].as_array().unwrap().len())
            .sum::<usize>();
        let authority = many["certificateAuthorities"][0].clone();
        let mut with = |authorities: usize| {
            many["certificateAuthorities"] = vec![authority.clone(); authorities].into();
            load(&many.to_string())
        };
        assert!(with(MEMBERS - others).is_ok());
        assert!(matches!(
            with(MEMBERS - others + 1),
            Err(TrustRootError::Members(_))
        ));
        let mut roots = TrustRoots::none();
        for _ in 0..ROOTS {
            roots = roots.with_json("file", EMBEDDED.as_bytes()).unwrap();
        }
        assert!(matches!(
            roots.with_json("file", EMBEDDED.as_bytes()),
            Err(TrustRootError::TooMany)
        ));
    }
}
