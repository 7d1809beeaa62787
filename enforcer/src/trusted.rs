//! What the host trusts a session's gateway with, beside the policy: the roots that it verifies upstreams with, and the values
//! of credentials. Values are kept in memory alone, are not shown, and are wiped when the session goes: a restarted enforcer
//! has none, and what needs one is refused.

use std::fmt;

use api::v1;
use zeroize::Zeroize as _;

#[derive(Default)]
pub struct Trusted {
    /// Certificates, DER.
    pub roots: Vec<Vec<u8>>,
    pub secrets: Vec<v1::Secret>,
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.secrets.iter().map(|s| s.credential.as_str()).collect();
        f.debug_struct("Trusted")
            .field("roots", &self.roots.len())
            .field("secrets", &names)
            .finish()
    }
}

impl Drop for Trusted {
    fn drop(&mut self) {
        for secret in &mut self.secrets {
            secret.value.zeroize();
            secret.placeholder.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_not_shown() {
        let trusted = Trusted {
            roots: Vec::new(),
            secrets: vec![v1::Secret {
                credential: "github".into(),
                value: b"s3cret".to_vec(),
                placeholder: "stand-in".into(),
            }],
        };
        let shown = format!("{trusted:?}");
        assert!(shown.contains("github"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("115") && !shown.contains("stand-in"));
    }
}
