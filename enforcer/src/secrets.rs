//! Values of a session's secrets, which are files inside. They are kept in memory alone, for a container that starts again, are not shown,
//! and are wiped when the session goes: a restarted enforcer knows what each file's life is, and no value.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use api::v1;
use zeroize::Zeroize as _;

use crate::store::Secret;
use crate::trusted::{Handed, MAX_VALUE};

#[derive(Default)]
pub struct Secrets(Vec<v1::SecretFile>);

/// What a file is to be now.
#[derive(PartialEq, Eq)]
pub enum Standing<'a> {
    There(&'a [u8]),
    /// It had its time, or was taken away.
    Gone,
    /// Its value is not known since a restart.
    Missing,
}

impl fmt::Debug for Standing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::There(_) => "There",
            Self::Gone => "Gone",
            Self::Missing => "Missing",
        })
    }
}

// === impl Secrets ===

impl Secrets {
    /// As they were handed; of two of one name the first.
    pub fn new(files: Vec<v1::SecretFile>) -> Self {
        let mut secrets = Self::default();
        for mut file in files {
            let fits = (1..=MAX_VALUE).contains(&file.value.len());
            if fits && secrets.find(&file.name).is_none() {
                secrets.0.push(file);
            } else {
                file.value.zeroize();
            }
        }
        secrets
    }

    /// What an enforcer that was started again knows.
    pub fn restored(kept: &BTreeMap<String, Secret>) -> Self {
        let file = |(name, kept): (&String, &Secret)| v1::SecretFile {
            name: name.clone(),
            value: Vec::new(),
            expires: kept.expires,
            revoked: kept.revoked,
        };
        Self(kept.iter().map(file).collect())
    }

    /// What is kept on a disk of them.
    pub fn kept(&self) -> BTreeMap<String, Secret> {
        let kept = |file: &v1::SecretFile| {
            let kept = Secret {
                expires: file.expires,
                revoked: file.revoked,
            };
            (file.name.clone(), kept)
        };
        self.0.iter().map(kept).collect()
    }

    fn find(&self, name: &str) -> Option<&v1::SecretFile> {
        self.0.iter().find(|file| file.name == name)
    }

    pub fn standing(&self, name: &str) -> Standing<'_> {
        match self.find(name) {
            Some(file) if file.revoked || is_over(file) => Standing::Gone,
            Some(file) if !file.value.is_empty() => Standing::There(&file.value),
            _ => Standing::Missing,
        }
    }

    /// The event's reason for a file that went.
    pub fn why_gone(&self, name: &str) -> &'static str {
        match self.find(name) {
            Some(file) if !file.revoked => "secret-expired",
            _ => "secret-revoked",
        }
    }

    /// Takes a value, or takes one away. What was taken away stays so for the session's life.
    pub fn hand(&mut self, mut handed: v1::SecretFile) -> Handed {
        let fits = (1..=MAX_VALUE).contains(&handed.value.len()) && !is_over(&handed);
        let held = self.0.iter_mut().find(|held| held.name == handed.name);
        let result = match held {
            Some(held) if handed.revoked => {
                held.value.zeroize();
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

    /// Those that had their time; their values are wiped.
    pub fn expired(&mut self) -> Vec<String> {
        let over = self.0.iter_mut().filter(|file| is_over(file));
        over.map(|file| {
            file.value.zeroize();
            file.name.clone()
        })
        .collect()
    }

    /// For people and the CLI.
    pub fn held(&self, policy: &policy::Secrets) -> Vec<v1::Held> {
        let ttl = |name: &str| policy.all.iter().find(|s| s.name == name)?.ttl;
        let held = |file: &v1::SecretFile| v1::Held {
            credential: file.name.clone(),
            state: match file {
                v1::SecretFile { revoked: true, .. } => "revoked",
                file if is_over(file) => "expired",
                file if file.value.is_empty() => "missing",
                _ => "held",
            }
            .to_owned(),
            expires: file.expires,
            ttl: ttl(&file.name).unwrap_or_default(),
        };
        self.0.iter().map(held).collect()
    }
}

fn is_over(file: &v1::SecretFile) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock that is before 1970 knows no time.
    file.expires != 0 && now.map_or(true, |now| now.as_secs() >= file.expires)
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|file| &file.name))
            .finish()
    }
}

impl Drop for Secrets {
    fn drop(&mut self) {
        for file in &mut self.0 {
            file.value.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, value: &[u8], expires: u64) -> v1::SecretFile {
        v1::SecretFile {
            name: name.into(),
            value: value.to_vec(),
            expires,
            revoked: false,
        }
    }

    fn states(secrets: &Secrets) -> Vec<String> {
        let none = policy::Secrets::default();
        secrets
            .held(&none)
            .into_iter()
            .map(|held| held.state)
            .collect()
    }

    #[test]
    fn values_are_not_shown_and_a_file_has_its_time() {
        let far = u64::from(u32::MAX);
        let mut secrets = Secrets::new(vec![
            file("a", b"s3cret-a", 0),
            file("b", b"s3cret-b", far),
            file("c", b"s3cret-c", 1),
            file("a", b"another", 0),
            file("e", b"", 0),
            file("f", &vec![b'x'; MAX_VALUE + 1], 0),
            file("g", &vec![b'x'; MAX_VALUE], 0),
        ]);
        assert_eq!(format!("{secrets:?}"), r#"["a", "b", "c", "g"]"#);
        assert_eq!(secrets.standing("a"), Standing::There(b"s3cret-a"));
        assert_eq!(secrets.standing("b"), Standing::There(b"s3cret-b"));
        assert_eq!(secrets.standing("c"), Standing::Gone);
        assert_eq!(secrets.standing("e"), Standing::Missing);
        assert_eq!(states(&secrets), ["held", "held", "expired", "held"]);
        assert_eq!(secrets.expired(), ["c"]);
        assert!(secrets.find("c").is_some_and(|file| file.value.is_empty()));
    }

    #[test]
    fn what_was_taken_away_stays_away_and_a_restart_knows_lives_and_no_value() {
        let far = u64::from(u32::MAX);
        let mut secrets = Secrets::new(vec![file("a", b"s3cret-a", 0), file("b", b"s3cret-b", 0)]);
        assert_eq!(secrets.hand(file("a", b"another", far)), Handed::Renewed);
        assert_eq!(secrets.standing("a"), Standing::There(b"another"));
        for refused in [
            file("c", b"unknown", 0),
            file("a", b"", 0),
            file("a", b"over", 1),
            file("a", &vec![b'x'; MAX_VALUE + 1], 0),
        ] {
            assert_eq!(secrets.hand(refused), Handed::Refused);
        }
        assert_eq!(
            secrets.hand(file("a", &vec![b'x'; MAX_VALUE], far)),
            Handed::Renewed
        );
        let away = v1::SecretFile {
            revoked: true,
            ..file("b", b"", 0)
        };
        assert_eq!(secrets.hand(away), Handed::Revoked);
        assert_eq!(secrets.hand(file("b", b"back-again", 0)), Handed::Refused);
        assert_eq!(states(&secrets), ["held", "revoked"]);

        let mut again = Secrets::restored(&secrets.kept());
        assert_eq!(states(&again), ["missing", "revoked"]);
        assert_eq!(again.kept()["a"].expires, far);
        assert_eq!(again.standing("a"), Standing::Missing);
        assert_eq!(again.standing("b"), Standing::Gone);
        assert_eq!(again.hand(file("b", b"back-again", 0)), Handed::Refused);
        assert_eq!(again.hand(file("a", b"handed-anew", far)), Handed::Renewed);
    }
}
