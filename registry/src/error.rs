//! What can go wrong with a registry, told apart the way the exit codes of checks are: it answered and the answer does not hold,
//! or it could not be asked.

use schema::digest::Digest;
use thiserror::Error;

use crate::login::LoginError;

#[derive(Debug, Error)]
pub enum RegistryError {
    /// No connection, or it broke until retries were used up.
    #[error("{registry} does not answer: {why}")]
    Unreachable { registry: String, why: String },
    /// 401 or 403 with what the person is logged in with.
    #[error("{registry} refuses {what}{}", if *.logged_in { "" } else { " to somebody who is not logged in" })]
    Refused {
        registry: String,
        what: String,
        logged_in: bool,
    },
    #[error("{registry} has no {what}")]
    NotFound { registry: String, what: String },
    /// Any other status.
    #[error("{registry} answers {status} to {what}{}", if .said.is_empty() { String::new() } else { format!(": {}", .said) })]
    Status {
        registry: String,
        what: String,
        status: u16,
        /// The beginning of its own words, control characters escaped.
        said: String,
    },
    #[error("{what} has the digest {found}, where {expected} was asked for")]
    Digest {
        what: String,
        expected: Digest,
        found: Digest,
    },
    #[error("{what} is larger than {limit} bytes")]
    TooLarge { what: String, limit: u64 },
    #[error("{what} is shorter or longer than the {expected} bytes that its descriptor names")]
    Length { what: String, expected: u64 },
    #[error("{what}: {why}")]
    Malformed { what: String, why: String },
    #[error("{registry} sends elsewhere, to {to}, which is not followed: {why}")]
    Redirect {
        registry: String,
        to: String,
        why: &'static str,
    },
    #[error(transparent)]
    Login(#[from] LoginError),
    #[error("HTTPS cannot be set up: {0}")]
    Setup(String),
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    /// Nothing may be asked, and it is not kept here.
    #[error("{what} is not in the cache, and the network is not to be used")]
    Offline { what: String },
}

// === impl RegistryError ===

impl RegistryError {
    /// Whether nobody gave an answer that could be judged (exit code 2 of checks), as opposed to one that does not hold (1).
    pub fn is_unasked(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Login(_)
            | Self::Setup(_)
            | Self::Io { .. }
            | Self::Redirect { .. }
            | Self::Offline { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status >= 500,
            Self::NotFound { .. }
            | Self::Digest { .. }
            | Self::TooLarge { .. }
            | Self::Length { .. }
            | Self::Malformed { .. } => false,
        }
    }

    /// The stable code of the diagnostic.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "registry-unreachable",
            Self::Refused { .. } => "registry-refused",
            Self::NotFound { .. } => "registry-not-found",
            Self::Status { .. } => "registry-status",
            Self::Digest { .. } => "digest-mismatch",
            Self::TooLarge { .. } => "too-large",
            Self::Length { .. } => "length-mismatch",
            Self::Malformed { .. } => "malformed",
            Self::Redirect { .. } => "registry-redirect",
            Self::Login(_) => "registry-login",
            Self::Setup(_) => "https-setup",
            Self::Io { .. } => "io",
            Self::Offline { .. } => "offline",
        }
    }

    /// The same of a diagnostic, by the code that is left of an error once it was written; a status is not told apart then.
    pub fn code_is_unasked(code: &str) -> bool {
        const CODES: [&str; 8] = [
            "registry-unreachable",
            "registry-refused",
            "registry-login",
            "registry-redirect",
            "registry-status",
            "https-setup",
            "io",
            "offline",
        ];
        CODES.contains(&code)
    }

    /// What to do next, where that is known.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Refused {
                registry,
                logged_in,
                ..
            } => Some(if *logged_in {
                format!(
                    "check what the login for {registry} may do, or log in again (`docker login {registry}`)"
                )
            } else {
                format!(
                    "log in with `docker login {registry}`, or check the name: registries also refuse what does not exist"
                )
            }),
            Self::Unreachable { registry, why }
                if why.contains("InvalidContentType")
                    || why.contains("received corrupt message") =>
            {
                Some(format!(
                    "if it speaks plain HTTP, say so in config.toml: [registries.\"{registry}\"] plain_http = true"
                ))
            }
            Self::Offline { .. } => Some("run it once without --offline".to_owned()),
            Self::Digest { .. } => Some(
                "the registry, or something on the way, changed it: nothing of it is used"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_says_the_same_as_the_error_that_it_is_of() {
        let text = || "x".to_owned();
        let digest = Digest::of(b"");
        let status = |status| RegistryError::Status {
            registry: text(),
            what: text(),
            status,
            said: text(),
        };
        let all = [
            RegistryError::Unreachable {
                registry: text(),
                why: text(),
            },
            RegistryError::Refused {
                registry: text(),
                what: text(),
                logged_in: true,
            },
            RegistryError::NotFound {
                registry: text(),
                what: text(),
            },
            status(500),
            RegistryError::Digest {
                what: text(),
                expected: digest,
                found: digest,
            },
            RegistryError::TooLarge {
                what: text(),
                limit: 1,
            },
            RegistryError::Length {
                what: text(),
                expected: 1,
            },
            RegistryError::Malformed {
                what: text(),
                why: text(),
            },
            RegistryError::Redirect {
                registry: text(),
                to: text(),
                why: "x",
            },
            RegistryError::Login(LoginError::Helper {
                name: text(),
                why: text(),
            }),
            RegistryError::Setup(text()),
            RegistryError::Io {
                what: text(),
                error: std::io::Error::other("x"),
            },
            RegistryError::Offline { what: text() },
        ];
        for error in all {
            let by_code = RegistryError::code_is_unasked(error.code());
            assert_eq!(by_code, error.is_unasked(), "{error}");
        }
    }
}
