//! Requests to registries: HTTPS unless the host's config names the registry as plain, redirects that never leave HTTPS,
//! retries with backoff, answers to challenges, and bodies that end where their limit is. Everything above it deals in
//! statuses and bytes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::client::lane::Lane;
use crate::error::RegistryError;
use crate::login::{self, Helpers, Login};
use crate::names::Names;
use crate::token::{self, Challenge, Header, Scope, TokenAnswer, Tokens};

/// The most of a registry's own words that is shown, in bytes.
const MAX_SAID: usize = 300;
/// The most that a token service's answer may have, in bytes.
pub const MAX_TOKEN_BYTES: u64 = 64 * 1024;
/// The most redirects that are followed for one request.
pub const MAX_REDIRECTS: usize = 5;
/// The most challenges of one 401 that are read.
const MAX_CHALLENGES: usize = 8;
/// The longest that one answer may take from its first byte asked to its last byte had; a blob is gone on with.
const MAX_ANSWER: Duration = Duration::from_secs(120);
/// The longest pause that a registry may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// How registries are reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Registries as written in references, `127.0.0.1:5000`, that are asked without TLS.
    pub plain_http: BTreeSet<String>,
    /// Certificates that registries are verified with, DER.
    pub roots: Vec<Vec<u8>>,
    /// Files that logins are looked up in (see [`login::files`]).
    pub logins: Vec<PathBuf>,
    /// Tries of a request before it is given up.
    pub attempts: u32,
    /// How long a connection may take, and how long a body may stand still.
    pub timeout: Duration,
}

/// The client of all registries, for the life of a command.
pub struct Http {
    client: Client,
    /// Follows nothing: what it sends holds a login.
    token_client: Client,
    settings: Settings,
    tokens: Tokens,
    helpers: Arc<Helpers>,
}

/// A refusal from within the redirect policy.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotFollowed(&'static str);

// === impl Settings ===

impl Settings {
    pub fn new(roots: Vec<Vec<u8>>) -> Self {
        Self {
            plain_http: BTreeSet::new(),
            roots,
            logins: login::files(|name| std::env::var(name).ok()),
            attempts: 4,
            timeout: Duration::from_secs(15),
        }
    }
}

// === impl Http ===

impl Http {
    /// # Errors
    /// A root is no certificate.
    pub fn new(settings: Settings) -> Result<Self, RegistryError> {
        let setup = |e: reqwest::Error| RegistryError::Setup(e.to_string());
        let roots = settings
            .roots
            .iter()
            .map(|der| reqwest::Certificate::from_der(der))
            .collect::<Result<Vec<_>, _>>()
            .map_err(setup)?;
        let plain = Arc::new(settings.plain_http.clone());
        let names = Arc::new(Names::system());
        let builder = |redirects| {
            Client::builder()
                .dns_resolver(names.clone())
                .user_agent(concat!("agentcontainer/", env!("CARGO_PKG_VERSION")))
                .tls_certs_only(roots.clone())
                .connect_timeout(settings.timeout)
                .read_timeout(settings.timeout)
                .timeout(MAX_ANSWER)
                .redirect(redirects)
                .build()
                .map_err(setup)
        };
        let token_client = builder(reqwest::redirect::Policy::none())?;
        let client = builder(reqwest::redirect::Policy::custom(move |attempt| {
            if attempt.previous().len() > MAX_REDIRECTS {
                return attempt.error(NotFollowed("it redirects too often"));
            }
            match may_go(attempt.url(), &plain) {
                Ok(()) => attempt.follow(),
                Err(why) => attempt.error(NotFollowed(why)),
            }
        }))?;
        Ok(Self {
            client,
            token_client,
            settings,
            tokens: Tokens::default(),
            helpers: Arc::default(),
        })
    }

    /// `https://registry-1.docker.io/v2/library/debian/` and what comes behind it.
    pub fn url(&self, scope: &Scope, rest: &str) -> String {
        let scheme = if self.settings.plain_http.contains(&scope.registry) {
            "http"
        } else {
            "https"
        };
        let host = match scope.registry.as_str() {
            "docker.io" => "registry-1.docker.io",
            host => host,
        };
        format!("{scheme}://{host}/v2/{}/{rest}", scope.repository)
    }

    /// An address that a registry named (`Location`, `Link`), made whole. It is asked with the registry's login only where it is
    /// the registry's own.
    pub fn follow(&self, base: &Url, location: &str) -> Result<Url, &'static str> {
        let url = base.join(location).map_err(|_| "it is no address")?;
        may_go(&url, &self.settings.plain_http)?;
        Ok(url)
    }

    /// Sends what `build` makes, as often as it takes, with what the registry asks for. Any status comes back but 401 and 403.
    pub async fn send(
        &self,
        scope: &Scope,
        what: &str,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut logged_in = None;
        for challenged in [false, true] {
            let known = self.tokens.challenge(&scope.registry);
            let header = self.authorization(scope, &mut logged_in).await?;
            let response = self
                .tried(&scope.registry, &self.client, |client| {
                    let request = build(client);
                    match &header {
                        Some(header) => request.header(AUTHORIZATION, header.as_str()),
                        None => request,
                    }
                })
                .await?;
            // Whoever a redirect led to is not the registry, and its challenge is not answered with the registry's login.
            let status = response.status();
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && !self.is_own(scope, response.url())
            {
                return Err(RegistryError::Redirect {
                    registry: scope.registry.clone(),
                    to: response.url().origin().ascii_serialization(),
                    why: "it asks for a login there",
                });
            }
            match status {
                StatusCode::UNAUTHORIZED if !challenged => {
                    if let Some(header) = &header {
                        self.tokens.forget(scope, header);
                    }
                    let Some(challenge) = Challenge::read(&challenges(response.headers())) else {
                        break;
                    };
                    // Known before and not good enough: asking again is no use but for a token that ended.
                    if known.as_ref() == Some(&challenge) && header.is_none() {
                        break;
                    }
                    self.tokens.challenged(&scope.registry, challenge);
                }
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => break,
                _ => return Ok(response),
            }
        }
        let logged_in = match logged_in {
            Some(known) => known,
            None => self.login(scope).await?.is_some(),
        };
        Err(RegistryError::Refused {
            registry: scope.registry.clone(),
            what: what.to_owned(),
            logged_in,
        })
    }

    fn is_own(&self, scope: &Scope, url: &Url) -> bool {
        Url::parse(&self.url(scope, "")).is_ok_and(|own| own.origin() == url.origin())
    }

    /// What is put into `Authorization`; nothing before the registry has asked for it.
    async fn authorization(
        &self,
        scope: &Scope,
        logged_in: &mut Option<bool>,
    ) -> Result<Option<Header>, RegistryError> {
        if let Some(header) = self.tokens.header(scope) {
            return Ok(Some(header));
        }
        let Some(challenge) = self.tokens.challenge(&scope.registry) else {
            return Ok(None);
        };
        // Of many that need the same one, the first asks for it.
        let turn = self.tokens.turn(scope);
        let _turn = turn.lock().await;
        if let Some(header) = self.tokens.header(scope) {
            return Ok(Some(header));
        }
        let login = self.login(scope).await?;
        *logged_in = Some(login.is_some());
        let (header, life) = match challenge {
            Challenge::Basic => match login.as_ref().and_then(token::basic) {
                Some(header) => (header, None),
                None => return Ok(None),
            },
            Challenge::Bearer { realm, service } => {
                let (header, life) = self
                    .token(scope, &realm, service.as_deref(), login.as_ref())
                    .await?;
                (header, Some(life))
            }
        };
        self.tokens.keep(scope, header.clone(), life);
        Ok(Some(header))
    }

    async fn login(&self, scope: &Scope) -> Result<Option<Login>, RegistryError> {
        let (files, scope) = (self.settings.logins.clone(), scope.clone());
        let helpers = self.helpers.clone();
        let found = tokio::task::spawn_blocking(move || {
            login::find(&files, &helpers, &scope.registry, &scope.repository)
        });
        match found.await {
            Ok(found) => Ok(found?),
            Err(error) => Err(RegistryError::Setup(error.to_string())),
        }
    }

    /// Asks the token service that the registry names.
    async fn token(
        &self,
        scope: &Scope,
        realm: &str,
        service: Option<&str>,
        login: Option<&Login>,
    ) -> Result<(Header, Duration), RegistryError> {
        let malformed = |why: &str| RegistryError::Malformed {
            what: format!("the token service of {}", scope.registry),
            why: why.to_owned(),
        };
        let mut url = Url::parse(realm).map_err(|_| malformed("its address is none"))?;
        may_go(&url, &self.settings.plain_http).map_err(malformed)?;
        let mut fields = vec![("scope", scope.written())];
        fields.extend(service.map(|service| ("service", service.to_owned())));
        let identity = match login {
            Some(Login::IdentityToken(token)) => Some(token),
            _ => None,
        };
        if let Some(token) = identity {
            fields.extend([
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", "agentcontainer".to_owned()),
                ("refresh_token", token.to_string()),
            ]);
        } else {
            url.query_pairs_mut().extend_pairs(&fields);
        }
        let form = Url::parse_with_params("http://form/", &fields)
            .ok()
            .and_then(|url| url.query().map(str::to_owned))
            .unwrap_or_default();
        let basic = login.and_then(token::basic);
        let response = self
            .tried(&scope.registry, &self.token_client, |client| {
                match (identity, &basic) {
                    (Some(_), _) => client
                        .post(url.clone())
                        .header("content-type", "application/x-www-form-urlencoded")
                        .body(form.clone()),
                    (None, Some(basic)) => client
                        .get(url.clone())
                        .header(AUTHORIZATION, basic.as_str()),
                    (None, None) => client.get(url.clone()),
                }
            })
            .await?;
        match response.status() {
            StatusCode::OK => {}
            status if status.is_client_error() => {
                return Err(RegistryError::Refused {
                    registry: scope.registry.clone(),
                    what: format!("a token for {}", scope.repository),
                    logged_in: login.is_some(),
                });
            }
            _ => return Err(self.status(scope, "a token", response).await),
        }
        let body = self
            .body(&scope.registry, "a token", response, MAX_TOKEN_BYTES, None)
            .await?;
        serde_json::from_slice::<TokenAnswer>(&body)
            .ok()
            .and_then(TokenAnswer::into_header)
            .ok_or_else(|| malformed("its answer holds no token"))
    }

    /// One request, repeated while that may help.
    async fn tried(
        &self,
        registry: &str,
        client: &Client,
        build: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Response, RegistryError> {
        let mut attempt = 1;
        loop {
            let sent = build(client).send().await;
            let last = attempt >= self.settings.attempts;
            let pause = match &sent {
                Ok(response) if !last && is_passing(response.status()) => {
                    asked_pause(response.headers())
                }
                Ok(_) => return sent.map_err(|e| self.unreachable(registry, &e)),
                Err(error) if last || !may_help(error) => {
                    return Err(self.unreachable(registry, error));
                }
                Err(_) => None,
            };
            tokio::time::sleep(pause.unwrap_or_else(|| backoff(attempt))).await;
            attempt += 1;
        }
    }

    fn unreachable(&self, registry: &str, error: &reqwest::Error) -> RegistryError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            if let Some(refused) = deeper.downcast_ref::<NotFollowed>() {
                return RegistryError::Redirect {
                    registry: registry.to_owned(),
                    to: error.url().map_or_else(String::new, shown),
                    why: refused.0,
                };
            }
            cause = deeper;
        }
        let why = if error.is_timeout() {
            format!("no answer within {} s", self.settings.timeout.as_secs())
        } else {
            cause.to_string()
        };
        RegistryError::Unreachable {
            registry: registry.to_owned(),
            why,
        }
    }

    /// A whole body of at most `limit` bytes, which `lane` is to hold.
    pub(crate) async fn body(
        &self,
        registry: &str,
        what: &str,
        mut response: Response,
        limit: u64,
        lane: Option<&Lane>,
    ) -> Result<Vec<u8>, RegistryError> {
        let too_large = || RegistryError::TooLarge {
            what: what.to_owned(),
            limit,
        };
        if response
            .content_length()
            .is_some_and(|length| length > limit)
        {
            return Err(too_large());
        }
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|e| self.unreachable(registry, &e))?
        {
            if (body.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            if let Some(lane) = lane {
                lane.take(chunk.len() as u64).await;
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// The error that a status is.
    pub async fn status(&self, scope: &Scope, what: &str, response: Response) -> RegistryError {
        let status = response.status().as_u16();
        if status == 404 {
            return RegistryError::NotFound {
                registry: scope.registry.clone(),
                what: what.to_owned(),
            };
        }
        let said = self
            .body(&scope.registry, what, response, MAX_TOKEN_BYTES, None)
            .await
            .unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        let said = said.trim();
        let said = &said[..said.floor_char_boundary(MAX_SAID)];
        RegistryError::Status {
            registry: scope.registry.clone(),
            what: what.to_owned(),
            status,
            said: said.escape_debug().to_string(),
        }
    }
}

/// Where requests may go: HTTPS anywhere, plain HTTP to the registries that the host's config names.
fn may_go(url: &Url, plain: &BTreeSet<String>) -> Result<(), &'static str> {
    match url.scheme() {
        "https" => Ok(()),
        "http" => {
            let host = url.host_str().unwrap_or_default();
            let named = match url.port() {
                Some(port) => plain.contains(&format!("{host}:{port}")),
                None => plain.contains(host) || plain.contains(&format!("{host}:80")),
            };
            named.then_some(()).ok_or("it is not HTTPS")
        }
        _ => Err("it is not HTTPS"),
    }
}

fn challenges(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(WWW_AUTHENTICATE)
        .iter()
        .take(MAX_CHALLENGES)
        .filter_map(|value| value.to_str().ok())
        .map(str::to_owned)
        .collect()
}

/// An address without its query, where object stores keep signatures.
fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

fn may_help(error: &reqwest::Error) -> bool {
    !error.is_builder() && !error.is_redirect()
}

fn asked_pause(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_PAUSE))
}

/// 0.2, 0.4, 0.8 … s, and up to a half more, so that many clients do not come back together.
fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200) * (1 << attempt.min(6).saturating_sub(1));
    let spread = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos() % 512);
    base + base * spread / 1024
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn plain_http_is_for_registries_that_the_host_names() {
        let plain = BTreeSet::from(["127.0.0.1:5000".to_owned(), "r.test".to_owned()]);
        let may = |url: &str| may_go(&Url::parse(url).unwrap(), &plain).is_ok();
        for good in [
            "https://any.test/x",
            "http://127.0.0.1:5000/v2/",
            "http://r.test/",
            "http://r.test:80/",
        ] {
            assert!(may(good), "{good}");
        }
        for bad in [
            "http://127.0.0.1/",
            "http://127.0.0.1:5001/",
            "http://r.test:81/",
            "http://s.test/",
            "ftp://r.test/",
            "file:///etc/passwd",
        ] {
            assert!(!may(bad), "{bad}");
        }
    }

    #[test]
    fn pauses_grow_and_end() {
        assert!(
            backoff(1) >= Duration::from_millis(200) && backoff(1) <= Duration::from_millis(300)
        );
        assert!(backoff(3) >= Duration::from_millis(800));
        assert!(backoff(60) < Duration::from_secs(30));
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, "99999".parse().unwrap());
        assert_eq!(asked_pause(&headers), Some(MAX_PAUSE));
    }
}
