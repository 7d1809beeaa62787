//! How a registry wants to be asked: the challenges of a 401 (RFC 7235), Basic (RFC 7617) or a token from the service that it
//! names (distribution's token authentication). A token belongs to one registry, repository and set of actions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::login::Login;

/// Used where the service does not say how long a token holds (distribution's token authentication says 60 s).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is used for longer, whatever its service says.
const MAX_LIFE: Duration = Duration::from_secs(3600);
/// A token is not used for its last seconds.
const MARGIN: Duration = Duration::from_secs(5);

/// What may be done with a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Pull,
    Push,
}

/// What a 401 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    Basic,
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// The value of `Authorization`.
pub type Header = Zeroizing<String>;

/// What is known of registries, for the life of a command.
#[derive(Default)]
pub struct Tokens {
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    challenges: HashMap<String, Challenge>,
    headers: HashMap<Scope, (Header, Option<Instant>)>,
    turns: HashMap<Scope, Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    pub registry: String,
    pub repository: String,
    pub action: Action,
}

#[derive(Deserialize)]
pub struct TokenAnswer {
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
    expires_in: Option<u64>,
}

// === impl Action ===

impl Action {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

// === impl Scope ===

impl Scope {
    /// As token services are asked: `repository:library/debian:pull`.
    pub fn written(&self) -> String {
        format!("repository:{}:{}", self.repository, self.action.as_str())
    }
}

// === impl Challenge ===

impl Challenge {
    /// The challenge that is answered: a token's before a password's.
    pub fn read(headers: &[String]) -> Option<Self> {
        let mut basic = false;
        for header in headers {
            let Ok(challenges) = http_auth::parse_challenges(header) else {
                continue;
            };
            for challenge in challenges {
                let param = |name: &str| {
                    challenge
                        .params
                        .iter()
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = param("realm")
                {
                    return Some(Self::Bearer {
                        realm,
                        service: param("service"),
                    });
                }
                basic |= challenge.scheme.eq_ignore_ascii_case("basic");
            }
        }
        basic.then_some(Self::Basic)
    }
}

// === impl Tokens ===

impl Tokens {
    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn challenge(&self, registry: &str) -> Option<Challenge> {
        self.known().challenges.get(registry).cloned()
    }

    pub fn challenged(&self, registry: &str, challenge: Challenge) {
        self.known()
            .challenges
            .insert(registry.to_owned(), challenge);
    }

    pub fn header(&self, scope: &Scope) -> Option<Header> {
        let known = self.known();
        let (header, until) = known.headers.get(scope)?;
        until
            .is_none_or(|until| Instant::now() < until)
            .then(|| header.clone())
    }

    pub fn keep(&self, scope: &Scope, header: Header, life: Option<Duration>) {
        let until = life.map(|life| Instant::now() + life.saturating_sub(MARGIN));
        self.known().headers.insert(scope.clone(), (header, until));
    }

    /// Forgets a header that was refused, unless another has taken its place meanwhile.
    pub fn forget(&self, scope: &Scope, refused: &Header) {
        let mut known = self.known();
        if known
            .headers
            .get(scope)
            .is_some_and(|(kept, _)| kept == refused)
        {
            known.headers.remove(scope);
        }
    }

    /// Whoever asks for a header of this scope holds it meanwhile.
    pub fn turn(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<()>> {
        self.known().turns.entry(scope.clone()).or_default().clone()
    }
}

// === impl TokenAnswer ===

impl TokenAnswer {
    /// The header and how long it holds.
    pub fn into_header(self) -> Option<(Header, Duration)> {
        let token = self
            .token
            .or(self.access_token)
            .filter(|token| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()))?;
        let life = self
            .expires_in
            .map_or(DEFAULT_LIFE, Duration::from_secs)
            .min(MAX_LIFE);
        Some((Zeroizing::new(format!("Bearer {}", *token)), life))
    }
}

/// Basic credentials for a login with a password.
pub fn basic(login: &Login) -> Option<Header> {
    match login {
        Login::Password { user, password } => {
            let pair = Zeroizing::new(format!("{user}:{}", **password));
            Some(Zeroizing::new(format!(
                "Basic {}",
                STANDARD.encode(pair.as_bytes())
            )))
        }
        Login::IdentityToken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_challenge_is_read_as_registries_write_it() {
        let read = |header: &str| Challenge::read(&[header.to_owned()]);
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.to_owned(),
                service: service.map(str::to_owned),
            })
        };
        assert_eq!(
            read(
                r#"Bearer realm="https://auth.test/token",service="r.test",scope="repository:a:pull""#
            ),
            bearer("https://auth.test/token", Some("r.test"))
        );
        assert_eq!(
            read(r#"bearer realm="https://a.test/""#),
            bearer("https://a.test/", None)
        );
        assert_eq!(
            read(r#"Basic realm="r", Bearer realm="https://a.test/""#),
            bearer("https://a.test/", None)
        );
        assert_eq!(read(r#"Basic realm="registry""#), Some(Challenge::Basic));
        for none in [
            "",
            "Digest realm=\"x\"",
            "Bearer",
            "Bearer service=\"x\"",
            "\"",
            "Basic realm=\"unclosed",
        ] {
            assert_eq!(read(none), None, "{none}");
        }
    }

    #[test]
    fn a_token_is_used_for_its_scope_until_it_ends() {
        let tokens = Tokens::default();
        let scope = |repository: &str, action| Scope {
            registry: "r.test".into(),
            repository: repository.into(),
            action,
        };
        let header = || Zeroizing::new("Bearer t".to_owned());
        tokens.keep(
            &scope("a", Action::Pull),
            header(),
            Some(Duration::from_secs(60)),
        );
        assert!(tokens.header(&scope("a", Action::Pull)).is_some());
        assert!(tokens.header(&scope("a", Action::Push)).is_none());
        assert!(tokens.header(&scope("b", Action::Pull)).is_none());
        tokens.keep(
            &scope("a", Action::Pull),
            header(),
            Some(Duration::from_secs(1)),
        );
        assert!(tokens.header(&scope("a", Action::Pull)).is_none());
    }

    #[test]
    fn a_token_that_is_no_header_is_none() {
        let answer = |text: &str| {
            serde_json::from_str::<TokenAnswer>(text)
                .unwrap()
                .into_header()
        };
        assert_eq!(
            answer(r#"{"token":"t","expires_in":300}"#).unwrap().1,
            Duration::from_secs(300)
        );
        let endless = answer(r#"{"token":"t","expires_in":18446744073709551615}"#).unwrap();
        assert_eq!(endless.1, MAX_LIFE);
        Tokens::default().keep(
            &Scope {
                registry: "r.test".into(),
                repository: "a".into(),
                action: Action::Pull,
            },
            endless.0,
            Some(endless.1),
        );
        assert_eq!(*answer(r#"{"access_token":"t"}"#).unwrap().0, "Bearer t");
        for bad in [
            r#"{}"#,
            r#"{"token":""}"#,
            r#"{"token":"a\r\nb"}"#,
            r#"{"token":"a b"}"#,
        ] {
            assert!(answer(bad).is_none(), "{bad}");
        }
    }
}
