//! What the host trusts a session's gateway with, beside the policy: the roots that it verifies upstreams with, and the values
//! of credentials. Values are kept in memory alone, are not shown, and are wiped when the session goes: a restarted enforcer
//! has none, and what needs one is refused.

use std::collections::BTreeMap;
use std::fmt;

use api::v1;
use zeroize::Zeroize as _;

use crate::secrets::Secrets;
use crate::store::Credential;

/// Longest value of a credential that is taken, in bytes; the CLI's sources have the same bound.
pub const MAX_VALUE: usize = 16 << 10;

#[derive(Default)]
pub struct Trusted {
    /// Certificates, DER.
    pub roots: Vec<Vec<u8>>,
    pub secrets: Vec<v1::Secret>,
    /// Values of files inside, which are the enforcer's alone.
    pub files: Secrets,
    /// Whose the workspace is on the host, where its files are to be the container's user's inside.
    pub owner: Option<(u32, u32)>,
}

/// What came of handing a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handed {
    Renewed,
    Revoked,
    Refused,
}

impl Trusted {
    /// What an enforcer that was started again knows: what stands for values, and none of them.
    pub fn restored(roots: Vec<Vec<u8>>, kept: &BTreeMap<String, Credential>) -> Self {
        let secret = |(name, kept): (&String, &Credential)| v1::Secret {
            credential: name.clone(),
            placeholder: kept.placeholder.clone(),
            revoked: kept.revoked,
            ..Default::default()
        };
        Self {
            roots,
            secrets: kept.iter().map(secret).collect(),
            files: Secrets::default(),
            owner: None,
        }
    }

    /// What a gateway is told of it.
    pub fn for_gateway(&self) -> Self {
        Self {
            roots: self.roots.clone(),
            secrets: self.secrets.clone(),
            files: Secrets::default(),
            owner: None,
        }
    }

    /// What is kept on a disk of the credentials.
    pub fn kept(&self) -> BTreeMap<String, Credential> {
        let kept = |secret: &v1::Secret| {
            let kept = Credential {
                placeholder: secret.placeholder.clone(),
                revoked: secret.revoked,
            };
            (secret.credential.clone(), kept)
        };
        self.secrets.iter().map(kept).collect()
    }

    /// Takes a value, or takes one away. What was taken away stays so for the session's life.
    pub fn hand(&mut self, mut handed: v1::Secret) -> Handed {
        let held = self
            .secrets
            .iter_mut()
            .find(|held| held.credential == handed.credential);
        let fits = (1..=MAX_VALUE).contains(&handed.value.len());
        let result = match held {
            Some(held) if handed.revoked => {
                held.value.zeroize();
                held.expires = 0;
                held.revoked = true;
                Handed::Revoked
            }
            Some(held) if fits && !held.revoked => {
                std::mem::swap(&mut held.value, &mut handed.value);
                held.expires = handed.expires;
                Handed::Renewed
            }
            _ => Handed::Refused,
        };
        handed.value.zeroize();
        result
    }

    /// For people and the CLI.
    pub fn held(&self) -> Vec<v1::Held> {
        let held = |secret: &v1::Secret| v1::Held {
            credential: secret.credential.clone(),
            state: match secret {
                v1::Secret { revoked: true, .. } => "revoked",
                secret if secret.value.is_empty() => "missing",
                _ => "held",
            }
            .to_owned(),
            expires: secret.expires,
            ttl: 0,
        };
        self.secrets.iter().map(held).collect()
    }
}

impl fmt::Debug for Trusted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.secrets.iter().map(|s| s.credential.as_str()).collect();
        f.debug_struct("Trusted")
            .field("roots", &self.roots.len())
            .field("secrets", &names)
            .field("files", &self.files)
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
                ..Default::default()
            }],
            files: Secrets::default(),
            owner: None,
        };
        let shown = format!("{trusted:?}");
        assert!(shown.contains("github"), "{shown}");
        assert!(!shown.contains("s3cret") && !shown.contains("115") && !shown.contains("stand-in"));
    }

    #[test]
    fn what_was_taken_away_stays_away_and_what_stands_for_it_outlives_a_restart() {
        let secret = |name: &str, value: &[u8]| v1::Secret {
            credential: name.into(),
            value: value.to_vec(),
            placeholder: format!("stand-in-{name}"),
            ..Default::default()
        };
        let mut trusted = Trusted {
            roots: Vec::new(),
            secrets: vec![secret("a", b"value-of-a"), secret("b", b"value-of-b")],
            files: Secrets::default(),
            owner: None,
        };
        assert_eq!(trusted.hand(secret("a", b"another")), Handed::Renewed);
        assert_eq!(trusted.secrets[0].value, b"another");
        assert_eq!(trusted.secrets[0].placeholder, "stand-in-a");
        assert_eq!(trusted.hand(secret("c", b"unknown")), Handed::Refused);
        assert_eq!(trusted.hand(secret("a", b"")), Handed::Refused);
        assert_eq!(
            trusted.hand(secret("a", &vec![b'x'; MAX_VALUE])),
            Handed::Renewed
        );
        let longer = vec![b'x'; MAX_VALUE + 1];
        assert_eq!(trusted.hand(secret("a", &longer)), Handed::Refused);
        let away = v1::Secret {
            credential: "b".into(),
            revoked: true,
            ..Default::default()
        };
        assert_eq!(trusted.hand(away), Handed::Revoked);
        assert_eq!(trusted.hand(secret("b", b"back-again")), Handed::Refused);
        let states = |trusted: &Trusted| -> Vec<String> {
            trusted.held().into_iter().map(|held| held.state).collect()
        };
        assert_eq!(states(&trusted), ["held", "revoked"]);

        let mut again = Trusted::restored(Vec::new(), &trusted.kept());
        assert_eq!(states(&again), ["missing", "revoked"]);
        assert_eq!(again.secrets[0].placeholder, "stand-in-a");
        assert_eq!(again.hand(secret("b", b"back-again")), Handed::Refused);
        assert_eq!(again.hand(secret("a", b"handed-anew")), Handed::Renewed);
    }
}
