//! Who may sign: identities of Sigstore certificates and public keys, as the host's config and an organisation's policy name
//! them. Each names somebody: a text that any signer would fit cannot be spelt.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::config::units::inline_schema;

/// Longest issuer or subject in bytes.
pub const MAX_IDENTITY_BYTES: usize = 1024;
/// Largest public key in its PEM form, in bytes.
pub const MAX_KEY_BYTES: usize = 8192;

/// Whom a certificate of Fulcio names: `issuer` vouched for `subject`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Identity {
    /// The OIDC issuer, exactly: `https://token.actions.githubusercontent.com`.
    pub issuer: Issuer,
    /// The certificate's subject: a URL or an address of mail. A `*` at the end of a URL stands for whatever follows, and needs
    /// host and owner before it: `https://github.com/acme/policy/.github/workflows/release.yml@*`.
    pub subject: Subject,
}

/// `https://HOST…`
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Issuer(Box<str>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    text: Box<str>,
    open: bool,
}

/// One `PUBLIC KEY` block of PEM, as it was written. That it is a key of a kind that is verified with is for who verifies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(Box<str>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignerError {
    #[error("expected https:// and a host, exactly as the certificate names it: no `*`")]
    Issuer,
    #[error("expected a URL or an address of mail, exactly as the certificate names it")]
    Subject,
    #[error(
        "`*` stands at the end of a URL alone, behind host and owner, as in https://github.com/acme/*: a wider one would fit any signer"
    )]
    TooOpen,
    #[error(
        "expected one block of PEM, -----BEGIN PUBLIC KEY-----, of at most {MAX_KEY_BYTES} bytes"
    )]
    Key,
}

fn plain(text: &str) -> bool {
    (1..=MAX_IDENTITY_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
}

/// What follows `https://HOST/`, where there is a host.
fn behind_host(text: &str) -> Option<&str> {
    let rest = text.strip_prefix("https://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    (!host.is_empty() && !host.contains('@')).then_some(path)
}

// === impl Issuer ===

impl Issuer {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Issuer {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        if plain(text) && !text.contains('*') && behind_host(text).is_some() {
            Ok(Self(text.into()))
        } else {
            Err(SignerError::Issuer)
        }
    }
}

// === impl Subject ===

impl Subject {
    /// Whether a certificate's subject is meant.
    pub fn matches(&self, subject: &str) -> bool {
        match self.open {
            true => subject.len() > self.text.len() && subject.starts_with(&*self.text),
            false => subject == &*self.text,
        }
    }
}

impl FromStr for Subject {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        if !plain(text) {
            return Err(SignerError::Subject);
        }
        let Some(open) = text.strip_suffix('*') else {
            let address = |(local, domain): (&str, &str)| !local.is_empty() && !domain.is_empty();
            let named = text.contains("://") || text.rsplit_once('@').is_some_and(address);
            return match (named, text.contains('*')) {
                (_, true) => Err(SignerError::TooOpen),
                (true, false) => Ok(Self {
                    text: text.into(),
                    open: false,
                }),
                (false, false) => Err(SignerError::Subject),
            };
        };
        let owned = behind_host(open)
            .and_then(|path| path.split_once('/'))
            .is_some_and(|(owner, _)| !owner.is_empty() && !matches!(owner, "." | ".."));
        if open.contains('*') || !owned {
            return Err(SignerError::TooOpen);
        }
        Ok(Self {
            text: open.into(),
            open: true,
        })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.open { "*" } else { "" })
    }
}

// === impl PublicKey ===

impl PublicKey {
    pub fn as_pem(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublicKey {
    type Err = SignerError;

    fn from_str(text: &str) -> Result<Self, SignerError> {
        if text.len() > MAX_KEY_BYTES {
            return Err(SignerError::Key);
        }
        let body = text
            .trim()
            .strip_prefix("-----BEGIN PUBLIC KEY-----")
            .and_then(|rest| rest.strip_suffix("-----END PUBLIC KEY-----"))
            .ok_or(SignerError::Key)?;
        let body: String = body.split_ascii_whitespace().collect();
        match base64::engine::general_purpose::STANDARD.decode(&body) {
            Ok(der) if der.len() > 16 => Ok(Self(text.into())),
            _ => Err(SignerError::Key),
        }
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {}", self.subject, self.issuer)
    }
}

impl Serialize for Issuer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

inline_schema!(Issuer, "Issuer", { "type": "string", "maxLength": MAX_IDENTITY_BYTES, "pattern": "^https://[^*/]+[^*]*$" });
inline_schema!(Subject, "Subject", { "type": "string", "minLength": 1, "maxLength": MAX_IDENTITY_BYTES });
inline_schema!(PublicKey, "PublicKey", { "type": "string", "maxLength": MAX_KEY_BYTES, "pattern": "-----BEGIN PUBLIC KEY-----" });

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_identity_names_somebody_and_any_signer_cannot_be_spelt() {
        for text in [
            "https://github.com/acme/policy/.github/workflows/release.yml@refs/heads/main",
            "https://github.com/acme/*",
            "https://github.com/acme/policy/.github/workflows/release.yml@*",
            "release@acme.example",
        ] {
            assert_eq!(text.parse::<Subject>().unwrap().to_string(), text);
        }
        for text in [
            "*",
            "**",
            "https://*",
            "https://github.com/*",
            "https://github.com*",
            "https://github.com/acme*",
            "https://github.com//*",
            "https://github.com/../*",
            "https://github.com/*/policy",
            "https://github.com/acme/*/x*",
            "*@acme.example",
            "release@acme.example*",
        ] {
            assert_eq!(text.parse::<Subject>(), Err(SignerError::TooOpen), "{text}");
        }
        for text in ["", "somebody", "a b@c", "a\n@b"] {
            assert_eq!(text.parse::<Subject>(), Err(SignerError::Subject), "{text}");
        }
        for text in [
            "",
            "*",
            "http://a.example",
            "https://",
            "https://*",
            "https:///x",
            "a.example",
        ] {
            assert_eq!(text.parse::<Issuer>(), Err(SignerError::Issuer), "{text}");
        }
        assert!(
            "https://token.actions.githubusercontent.com"
                .parse::<Issuer>()
                .is_ok()
        );
    }

    #[test]
    fn a_subject_is_matched_whole_or_by_what_stands_before_the_star() {
        let open: Subject = "https://github.com/acme/*".parse().unwrap();
        assert!(open.matches("https://github.com/acme/policy"));
        for other in [
            "https://github.com/acme/",
            "https://github.com/acme-evil/x",
            "https://evil.example/https://github.com/acme/x",
        ] {
            assert!(!open.matches(other), "{other}");
        }
        let exact: Subject = "a@b.example".parse().unwrap();
        assert!(exact.matches("a@b.example") && !exact.matches("aa@b.example"));
    }

    #[test]
    fn texts_and_keys_are_bounded() {
        let subject = |n: usize| format!("https://a/b/{}", "x".repeat(n - 12)).parse::<Subject>();
        assert!(subject(MAX_IDENTITY_BYTES).is_ok() && subject(MAX_IDENTITY_BYTES + 1).is_err());
        let key = |n: usize| {
            let head = "-----BEGIN PUBLIC KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PUBLIC KEY-----\n";
            format!("{head}{}", " ".repeat(n - head.len())).parse::<PublicKey>()
        };
        assert!(key(MAX_KEY_BYTES).is_ok() && key(MAX_KEY_BYTES + 1).is_err());
        for text in [
            "",
            "-----BEGIN PUBLIC KEY-----",
            "-----BEGIN PUBLIC KEY-----\n!\n-----END PUBLIC KEY-----",
            "-----BEGIN PRIVATE KEY-----\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n-----END PRIVATE KEY-----",
        ] {
            assert_eq!(text.parse::<PublicKey>(), Err(SignerError::Key), "{text}");
        }
    }
}
