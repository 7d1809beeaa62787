//! Credentials on the wire: what stands for one inside is exchanged for its value in the field that policy names, on the way to
//! a place it may go, and nowhere else; a value that comes back is exchanged again. Values come with the first snapshot and
//! stay in this process's memory. Used by `http::forward` for each request.

pub mod window;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use policy::Credential;
use zeroize::Zeroizing;

use crate::http::head::Scheme;
use crate::percent;
use crate::state::{Intent, Place};
use window::Patterns;

/// A value, and what stands for it.
#[derive(Clone)]
pub struct Secret {
    pub name: String,
    /// Empty: it was lost, or taken away.
    pub value: Zeroizing<Vec<u8>>,
    pub placeholder: String,
    /// Seconds since 1970 from when on it is not sent; 0: never.
    pub expires: u64,
    pub revoked: bool,
    /// Values before this one, which may still come back.
    previous: Vec<Zeroizing<Vec<u8>>>,
}

impl From<api::v1::Secret> for Secret {
    fn from(secret: api::v1::Secret) -> Self {
        Self {
            name: secret.credential,
            value: Zeroizing::new(secret.value),
            placeholder: secret.placeholder,
            expires: secret.expires,
            revoked: secret.revoked,
            previous: Vec::new(),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

struct Held {
    rule: Credential,
    header: HeaderName,
    /// `None`: the enforcer has lost it, and only the person can give it again.
    secret: Option<Secret>,
    /// What stands for it; its value, with what stands for it.
    placeholder: Patterns,
    /// What is taken out of the answers of its own places: with its values, whatever they are, those of others that are long.
    /// `None`: it has no value that could come back.
    answers: Option<Arc<Patterns>>,
}

/// The credentials of one generation of the policy.
#[derive(Default)]
pub struct Credentials {
    held: Vec<Held>,
    /// What stands for any of them, to be told where it does not belong.
    placeholders: Arc<Patterns>,
    /// Values that are long enough to be looked for in what comes from anywhere.
    elsewhere: Arc<Patterns>,
}

/// Why a request is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("what stands for credential \"{0}\" is not to be sent to this place: it may go to {1}")]
    Elsewhere(String, String),
    #[error("what stands for credential \"{0}\" belongs in {1} alone")]
    Misplaced(String, String),
    #[error("what stands for a credential is in the request's body, where it does not belong")]
    Body,
    #[error(
        "the value of credential \"{0}\" is not there since the enforcer was started again: `agentcontainer credential rotate {0}` hands it anew"
    )]
    Gone(String),
    #[error("credential \"{0}\" was taken away from this session")]
    Revoked(String),
    #[error(
        "the value of credential \"{0}\" has expired and nobody renewed it: `agentcontainer credential rotate {0}` does"
    )]
    Expired(String),
    #[error("the value of credential \"{0}\" cannot stand in a field")]
    Unfit(String),
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Elsewhere(..) => "credential-elsewhere",
            Self::Misplaced(..) | Self::Body => "credential-misplaced",
            Self::Gone(_) | Self::Unfit(_) => "credential-unavailable",
            Self::Revoked(_) => "credential-revoked",
            Self::Expired(_) => "credential-expired",
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Gone(_) | Self::Unfit(_) | Self::Expired(_) => 503,
            _ => 403,
        }
    }
}

/// What was done with a request's head.
#[derive(Default)]
pub struct Applied {
    /// The credentials that were put in.
    pub names: Vec<String>,
    /// Values that may come back from there, with what stands for them.
    pub answers: Option<Arc<Patterns>>,
    /// It is a place that a credential goes to: what cannot be looked through does not come back from there.
    pub is_own: bool,
    /// What the body may not hold.
    pub body: Option<Arc<Patterns>>,
}

impl Credentials {
    pub fn new(rules: &[Credential], secrets: &[Secret]) -> Self {
        let mut placeholders = Patterns::default();
        let mut elsewhere = Patterns::default();
        let mut held: Vec<Held> = rules
            .iter()
            .filter_map(|rule| {
                // Checked by policy: a name of a field.
                let header = HeaderName::try_from(rule.header.as_str()).ok()?;
                let secret = secrets.iter().find(|secret| secret.name == rule.name);
                let (mut placeholder, mut answers) = (Patterns::default(), Patterns::default());
                if let Some(secret) = secret {
                    let text = secret.placeholder.as_bytes();
                    placeholder.add(text, text);
                    for value in secret.previous.iter().chain([&secret.value]) {
                        let mut add = |text: &[u8], stand_in: &str| {
                            answers.add(text, stand_in.as_bytes());
                            // Of a short one the end of every stream would be held back, and anybody could guess at it.
                            if window::is_long(text, stand_in.as_bytes()) {
                                elsewhere.add(text, stand_in.as_bytes());
                            }
                        };
                        add(value, &secret.stand_in(value));
                        // As it stands in a query that a server repeats.
                        let encoded = Zeroizing::new(percent::encoded(value));
                        if rule.query.is_some() && *encoded != **value {
                            add(&encoded, &"*".repeat(encoded.len()));
                        }
                    }
                }
                placeholders = std::mem::take(&mut placeholders).with(&placeholder);
                Some(Held {
                    rule: rule.clone(),
                    header,
                    secret: secret.cloned(),
                    placeholder,
                    answers: (!answers.is_empty()).then(|| Arc::new(answers)),
                })
            })
            .collect();
        for own in held.iter_mut().filter_map(|held| held.answers.as_mut()) {
            *own = Arc::new((**own).clone().with(&elsewhere));
        }
        Self {
            held,
            placeholders: Arc::new(placeholders),
            elsewhere: Arc::new(elsewhere),
        }
    }

    /// Whether a connection to that place may go on that has sent this credential.
    pub fn carries(&self, name: &str, intent: &Intent) -> bool {
        self.held.iter().any(|held| {
            held.rule.name == name
                && matches!(&intent.place, Place::Name(host) if held.rule.fits(host, intent.port))
                && held
                    .secret
                    .as_ref()
                    .is_some_and(|secret| !secret.revoked && !secret.value.is_empty())
        })
    }

    /// Exchanges what is in its place, and refuses a request that has it anywhere else.
    pub fn apply(
        &self,
        parts: &mut Parts,
        intent: &Intent,
        scheme: Scheme,
    ) -> Result<Applied, Refusal> {
        let mut applied = Applied::default();
        if self.held.is_empty() {
            return Ok(applied);
        }
        let path = parts.uri.path().to_owned();
        for held in &self.held {
            let host = match &intent.place {
                Place::Name(name) if scheme == Scheme::Https => Some(name),
                _ => None,
            };
            let is_there = host.is_some_and(|name| held.rule.fits(name, intent.port));
            let fits = host.is_some_and(|name| held.rule.fits_path(name, intent.port, &path));
            let in_target = held.in_target(parts, fits)?;
            if held.in_fields(&mut parts.headers, fits)? || in_target {
                applied.names.push(held.rule.name.clone());
            }
            if is_there && let Some(own) = &held.answers {
                applied.is_own = true;
                applied.answers = Some(match applied.answers.take() {
                    None => Arc::clone(own),
                    Some(before) => Arc::new((*before).clone().with(own)),
                });
            }
        }
        if !applied.is_own && !self.elsewhere.is_empty() {
            applied.answers = Some(Arc::clone(&self.elsewhere));
        }
        if !self.placeholders.is_empty() {
            applied.body = Some(Arc::clone(&self.placeholders));
        }
        Ok(applied)
    }
}

/// So many values before the current one are still taken out of answers.
const PREVIOUS: usize = 4;

impl Secret {
    /// As long as the value, whatever it is.
    fn stand_in(&self, value: &[u8]) -> String {
        if self.placeholder.len() == value.len() {
            self.placeholder.clone()
        } else {
            "*".repeat(value.len())
        }
    }

    /// Takes the place of an earlier value, which a server may still send back: of one that was taken away, too, which
    /// is then there for nothing else.
    pub fn succeed(&mut self, earlier: &Self) {
        self.previous = earlier.previous.clone();
        if !earlier.value.is_empty() && earlier.value != self.value {
            self.previous.push(earlier.value.clone());
        }
        let beyond = self.previous.len().saturating_sub(PREVIOUS);
        self.previous.drain(..beyond);
    }
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(u64::MAX, |now| now.as_secs())
}

impl Held {
    fn refusal(&self, fits: bool) -> Refusal {
        let name = self.rule.name.clone();
        if fits {
            let field = format!("the field {}", self.rule.header);
            Refusal::Misplaced(
                name,
                match &self.rule.query {
                    Some(query) => format!("{field} or the query parameter {query}"),
                    None => field,
                },
            )
        } else {
            let places = self.rule.places.iter();
            let places: Vec<String> = places.map(policy::credential::Place::shown).collect();
            Refusal::Elsewhere(name, places.join(", "))
        }
    }

    /// Its value, if it may be sent now.
    fn usable(&self) -> Result<&Secret, Refusal> {
        let name = || self.rule.name.clone();
        match &self.secret {
            Some(secret) if secret.revoked => Err(Refusal::Revoked(name())),
            Some(secret) if secret.value.is_empty() => Err(Refusal::Gone(name())),
            Some(secret) if secret.expires != 0 && secret.expires <= now() => {
                Err(Refusal::Expired(name()))
            }
            Some(secret) => Ok(secret),
            None => Err(Refusal::Gone(name())),
        }
    }

    /// True when the value was put into the query, as the whole value of its parameter; it stands nowhere else in a target.
    fn in_target(&self, parts: &mut Parts, fits: bool) -> Result<bool, Refusal> {
        let target = parts.uri.path_and_query().map_or("", |t| t.as_str());
        if !is_in(&self.placeholder, target.as_bytes()) {
            return Ok(false);
        }
        let (true, Some(name), Some((path, query))) =
            (fits, &self.rule.query, target.split_once('?'))
        else {
            return Err(self.refusal(fits));
        };
        if is_in(&self.placeholder, path.as_bytes()) {
            return Err(self.refusal(fits));
        }
        let secret = self.usable()?;
        let mut text = Zeroizing::new(path.as_bytes().to_vec());
        for (i, parameter) in query.split('&').enumerate() {
            text.push(if i == 0 { b'?' } else { b'&' });
            if !is_in(&self.placeholder, parameter.as_bytes()) {
                text.extend_from_slice(parameter.as_bytes());
                continue;
            }
            let value = parameter
                .strip_prefix(name.as_str())
                .and_then(|rest| rest.strip_prefix('='));
            let whole =
                |value: &str| percent::decoded(value.as_bytes()) == secret.placeholder.as_bytes();
            if !value.is_some_and(whole) {
                return Err(self.refusal(fits));
            }
            text.extend_from_slice(name.as_bytes());
            text.push(b'=');
            text.extend_from_slice(&Zeroizing::new(percent::encoded(&secret.value)));
        }
        // What stands over the end of a parameter stands in none.
        if is_in(&self.placeholder, &text) {
            return Err(self.refusal(fits));
        }
        let unfit = || Refusal::Unfit(self.rule.name.clone());
        let target = PathAndQuery::try_from(text.as_slice()).map_err(|_| unfit())?;
        let mut uri = std::mem::take(&mut parts.uri).into_parts();
        uri.path_and_query = Some(target);
        parts.uri = Uri::from_parts(uri).map_err(|_| unfit())?;
        Ok(true)
    }

    /// True when the value was put in.
    fn in_fields(&self, headers: &mut HeaderMap, fits: bool) -> Result<bool, Refusal> {
        if self.rule.env.is_none() {
            return self.write(headers, fits);
        }
        let mut put = false;
        for (name, value) in headers.iter_mut() {
            if !is_in(&self.placeholder, value.as_bytes()) {
                continue;
            }
            if !fits || *name != self.header {
                return Err(self.refusal(fits));
            }
            let secret = self.usable()?;
            let exchanged = exchange(value.as_bytes(), secret).ok_or_else(|| self.refusal(fits))?;
            let mut field = HeaderValue::from_bytes(&exchanged)
                .map_err(|_| Refusal::Unfit(self.rule.name.clone()))?;
            field.set_sensitive(true);
            *value = field;
            put = true;
        }
        Ok(put)
    }

    /// The whole field, for a credential that nothing stands for inside.
    fn write(&self, headers: &mut HeaderMap, fits: bool) -> Result<bool, Refusal> {
        if !fits {
            return Ok(false);
        }
        let secret = self.usable()?;
        // `Basic user:{}` is what RFC 7617 encodes: what is in Base64 already has no colon.
        let basic = match self.rule.prefix.split_at_checked(BASIC.len()) {
            Some((scheme, user)) if scheme.eq_ignore_ascii_case(BASIC) => Some(user),
            _ => None,
        };
        let basic = basic.filter(|user| user.contains(':') || self.rule.suffix.contains(':'));
        let mut text = Zeroizing::new(basic.unwrap_or(&self.rule.prefix).as_bytes().to_vec());
        text.extend_from_slice(&secret.value);
        text.extend_from_slice(self.rule.suffix.as_bytes());
        if basic.is_some() {
            let encoded = Zeroizing::new(STANDARD.encode(text.as_slice()));
            text = Zeroizing::new([BASIC.as_bytes(), encoded.as_bytes()].concat());
        }
        let mut field =
            HeaderValue::from_bytes(&text).map_err(|_| Refusal::Unfit(self.rule.name.clone()))?;
        field.set_sensitive(true);
        headers.insert(self.header.clone(), field);
        Ok(true)
    }
}

const BASIC: &str = "Basic ";

/// As it is, in Base64, or percent-encoded.
fn is_in(patterns: &Patterns, text: &[u8]) -> bool {
    patterns.is_in(text) || text.contains(&b'%') && patterns.is_in(&percent::decoded(text))
}

/// The field with the value: raw, or within `Basic` (RFC 7617). `None` where it stands in another way.
fn exchange(field: &[u8], secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let raw = replaced(field, secret);
    if raw.is_some() {
        return raw;
    }
    let space = field.iter().position(|&b| b == b' ')?;
    let (scheme, rest) = field.split_at(space);
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let decoded = Zeroizing::new(STANDARD.decode(rest.trim_ascii()).ok()?);
    let inner = replaced(&decoded, secret)?;
    let encoded = Zeroizing::new(STANDARD.encode(inner.as_slice()));
    Some(Zeroizing::new([b"Basic ", encoded.as_bytes()].concat()))
}

fn replaced(text: &[u8], secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let wanted = secret.placeholder.as_bytes();
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() + secret.value.len()));
    let (mut at, mut any) = (0, false);
    while at < text.len() {
        if text[at..].starts_with(wanted) {
            out.extend_from_slice(&secret.value);
            at += wanted.len();
            any = true;
        } else {
            out.push(text[at]);
            at += 1;
        }
    }
    any.then_some(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use hyper::Request;
    use schema::host::HostName;

    const VALUE: &str = "ghp_RealRealRealRealReal";
    const STAND_IN: &str = "ghp_FakeFakeFakeFakeFake";

    fn credentials(env: Option<&str>) -> Credentials {
        credentials_for(env, &[])
    }

    fn credentials_for(env: Option<&str>, paths: &[&str]) -> Credentials {
        let origin = policy::Origin {
            file: "agentcontainer.json".into(),
            line: 1,
            column: 1,
        };
        let rule = Credential {
            name: "github".into(),
            places: vec![policy::credential::Place {
                host: "api.github.com".parse().unwrap(),
                port: 443,
                paths: paths.iter().map(|path| path.parse().unwrap()).collect(),
            }],
            header: "authorization".into(),
            prefix: "Bearer ".into(),
            suffix: String::new(),
            query: None,
            env: env.map(str::to_owned),
            origin,
        };
        let secret = api::v1::Secret {
            credential: "github".into(),
            value: VALUE.into(),
            placeholder: if env.is_some() { STAND_IN } else { "" }.into(),
            ..Default::default()
        };
        Credentials::new(&[rule], &[secret.into()])
    }

    fn intent(name: &str) -> Intent {
        Intent {
            place: Place::Name(HostName::parse(name).unwrap()),
            port: 443,
        }
    }

    fn apply(
        credentials: &Credentials,
        name: &str,
        scheme: Scheme,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Result<(Option<String>, HeaderMap), Refusal> {
        let mut request = Request::builder().uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let applied = credentials.apply(&mut parts, &intent(name), scheme)?;
        Ok((applied.names.first().cloned(), parts.headers))
    }

    #[test]
    fn it_goes_to_its_paths_alone_and_to_none_that_is_spelt_in_another_way() {
        let fields = [("authorization", format!("Bearer {STAND_IN}"))];
        let fields = fields
            .each_ref()
            .map(|(name, value)| (*name, value.as_str()));
        for (target, goes) in [
            ("/repos/acme/widget", true),
            ("/repos/acme/widget/pulls?state=open", true),
            ("/repos/acme/other", false),
            ("/repos/acme/widget/../other", false),
            ("/repos/acme/widget/%2e%2e/other", false),
            ("/repos/acme/widget/..;/other", false),
            ("//repos/acme/widget", false),
            ("/graphql", false),
            ("/", false),
        ] {
            let paths = ["/repos/acme/widget/**"];
            let named = credentials_for(Some("GITHUB_TOKEN"), &paths);
            let sent = apply(&named, "api.github.com", Scheme::Https, target, &fields);
            match sent {
                Ok((_, headers)) => {
                    assert!(goes, "{target}");
                    assert_eq!(headers["authorization"], format!("Bearer {VALUE}"));
                }
                Err(refusal) => {
                    assert!(
                        !goes && refusal.code() == "credential-elsewhere",
                        "{target}"
                    );
                    assert!(refusal.to_string().contains("(/repos/acme/widget/**)"));
                }
            }
            // One that is written into every request is not written into another.
            let (_, headers) = apply(
                &credentials_for(None, &paths),
                "api.github.com",
                Scheme::Https,
                target,
                &[],
            )
            .unwrap();
            assert_eq!(headers.contains_key("authorization"), goes, "{target}");
        }
    }

    #[test]
    fn it_is_exchanged_in_its_field_in_every_spelling() {
        let credentials = credentials(Some("GITHUB_TOKEN"));
        let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("x:{token}")));
        for (sent, wanted) in [
            (format!("Bearer {STAND_IN}"), format!("Bearer {VALUE}")),
            (format!("token {STAND_IN}"), format!("token {VALUE}")),
            (STAND_IN.to_owned(), VALUE.to_owned()),
            (basic(STAND_IN), basic(VALUE)),
        ] {
            let fields = [("authorization", sent.as_str())];
            let (name, headers) =
                apply(&credentials, "api.github.com", Scheme::Https, "/", &fields).unwrap();
            assert_eq!(name.as_deref(), Some("github"));
            assert_eq!(headers["authorization"], wanted);
            assert!(headers["authorization"].is_sensitive());
        }
        let (name, _) = apply(&credentials, "api.github.com", Scheme::Https, "/", &[]).unwrap();
        assert_eq!(name, None);
    }

    #[test]
    fn it_is_refused_anywhere_else() {
        let credentials = credentials(Some("GITHUB_TOKEN"));
        let bearer = format!("Bearer {STAND_IN}");
        let basic = format!("Basic {}", STANDARD.encode(format!("ab:{STAND_IN}")));
        let escaped: String = STAND_IN.bytes().map(|b| format!("%{b:02X}")).collect();
        let (https, http) = (Scheme::Https, Scheme::Http);
        let fine = "api.github.com";
        for (host, scheme, target, field, code) in [
            (
                "evil.example",
                https,
                "/",
                ("authorization", bearer.as_str()),
                "credential-elsewhere",
            ),
            (
                "evil.example",
                https,
                "/",
                ("authorization", basic.as_str()),
                "credential-elsewhere",
            ),
            (
                fine,
                http,
                "/",
                ("authorization", bearer.as_str()),
                "credential-elsewhere",
            ),
            (
                fine,
                https,
                "/",
                ("x-token", STAND_IN),
                "credential-misplaced",
            ),
            (
                fine,
                https,
                "/",
                ("cookie", escaped.as_str()),
                "credential-misplaced",
            ),
            (
                fine,
                https,
                &format!("/?t={STAND_IN}"),
                ("x", "y"),
                "credential-misplaced",
            ),
            (
                fine,
                https,
                &format!("/{escaped}"),
                ("x", "y"),
                "credential-misplaced",
            ),
            (
                "evil.example",
                https,
                &format!("/{}", STANDARD.encode(STAND_IN)),
                ("x", "y"),
                "credential-elsewhere",
            ),
            (
                fine,
                https,
                "/",
                (
                    "authorization",
                    &format!("Digest {}", STANDARD.encode(STAND_IN)),
                ),
                "credential-misplaced",
            ),
        ] {
            let refusal = apply(&credentials, host, scheme, target, &[field]).unwrap_err();
            assert_eq!(refusal.code(), code, "{host} {target} {field:?}");
            assert!(
                !refusal.to_string().contains(VALUE) && !refusal.to_string().contains(STAND_IN)
            );
        }
    }

    #[test]
    fn one_that_nothing_stands_for_is_written_where_it_belongs_and_nowhere_else() {
        let credentials = credentials(None);
        let own = [("authorization", "Bearer mine")];
        let (name, headers) =
            apply(&credentials, "api.github.com", Scheme::Https, "/", &own).unwrap();
        assert_eq!(name.as_deref(), Some("github"));
        assert_eq!(headers["authorization"], format!("Bearer {VALUE}"));
        for (host, scheme) in [
            ("evil.example", Scheme::Https),
            ("api.github.com", Scheme::Http),
        ] {
            let (name, headers) = apply(&credentials, host, scheme, "/", &own).unwrap();
            assert_eq!(
                (name, headers["authorization"].as_bytes()),
                (None, &b"Bearer mine"[..])
            );
        }
    }

    #[test]
    fn a_value_that_was_lost_is_not_done_without() {
        let rules: Vec<Credential> = credentials(None)
            .held
            .iter()
            .map(|held| held.rule.clone())
            .collect();
        let lost = Credentials::new(&rules, &[]);
        let refusal = apply(&lost, "api.github.com", Scheme::Https, "/", &[]).unwrap_err();
        assert_eq!(refusal.code(), "credential-unavailable");
    }

    /// What the target becomes that a request is sent with.
    fn target(query: Option<&str>, host: &str, target: &str) -> Result<String, Refusal> {
        let mut rule = credentials(Some("TOKEN")).held.remove(0).rule;
        rule.query = query.map(str::to_owned);
        let secret = api::v1::Secret {
            credential: "github".into(),
            value: "a/b+c d&RealReal".into(),
            placeholder: STAND_IN.into(),
            ..Default::default()
        };
        let credentials = Credentials::new(&[rule], &[secret.into()]);
        let request = Request::builder().uri(target);
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        credentials.apply(&mut parts, &intent(host), Scheme::Https)?;
        Ok(parts.uri.to_string())
    }

    #[test]
    fn in_a_query_it_is_the_whole_value_of_its_parameter_and_nothing_else() {
        let escaped: String = STAND_IN.bytes().map(|b| format!("%{b:02x}")).collect();
        let (fine, real) = ("api.github.com", "a%2Fb%2Bc%20d%26RealReal");
        for sent in [STAND_IN, &escaped] {
            let sent = target(Some("key"), fine, &format!("/a?x=1&key={sent}&y=&z"));
            assert_eq!(sent.unwrap(), format!("/a?x=1&key={real}&y=&z"));
        }
        assert_eq!(target(Some("key"), fine, "/a?key=x").unwrap(), "/a?key=x");
        let encoded = STANDARD.encode(STAND_IN);
        for (query, host, text, code) in [
            (
                None,
                fine,
                format!("/?key={STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?Key={STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?xkey={STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?key=x{STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?key={STAND_IN};a"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?key={encoded}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?{STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/{STAND_IN}?key={STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                fine,
                format!("/?key={STAND_IN}&x={STAND_IN}"),
                "credential-misplaced",
            ),
            (
                Some("key"),
                "evil.example",
                format!("/?key={STAND_IN}"),
                "credential-elsewhere",
            ),
        ] {
            let refusal = target(query, host, &text).unwrap_err();
            assert_eq!(refusal.code(), code, "{text}");
        }
    }

    #[test]
    fn a_short_value_is_looked_for_in_what_its_own_places_answer_alone() {
        const SHORT: &str = "hunter2hunter2";
        let github = credentials(Some("GITHUB_TOKEN")).held.remove(0).rule;
        let mut door = github.clone();
        (door.name, door.env) = ("door".into(), None);
        door.places[0].host = "door.example".parse().unwrap();
        let secret = |name: &str, value: &str, placeholder: &str| {
            Secret::from(api::v1::Secret {
                credential: name.into(),
                value: value.into(),
                placeholder: placeholder.into(),
                ..Default::default()
            })
        };
        let secrets = [secret("github", VALUE, STAND_IN), secret("door", SHORT, "")];
        let credentials = Credentials::new(&[github, door], &secrets);
        for (host, is_own, has_short) in [
            ("api.github.com", true, false),
            ("door.example", true, true),
            ("evil.example", false, false),
        ] {
            let (mut parts, ()) = Request::new(()).into_parts();
            let applied = credentials.apply(&mut parts, &intent(host), Scheme::Https);
            let applied = applied.unwrap();
            let answers = applied.answers.unwrap();
            assert_eq!(applied.is_own, is_own, "{host}");
            assert!(answers.is_in(VALUE.as_bytes()), "{host}");
            assert_eq!(answers.is_in(SHORT.as_bytes()), has_short, "{host}");
        }
    }

    #[test]
    fn basic_is_encoded_where_the_gateway_writes_it() {
        for (prefix, suffix, wanted) in [
            (
                "Basic me:",
                "",
                format!("Basic {}", STANDARD.encode(format!("me:{VALUE}"))),
            ),
            (
                "basic ",
                ":x",
                format!("Basic {}", STANDARD.encode(format!("{VALUE}:x"))),
            ),
            // In Base64 already.
            ("Basic ", "", format!("Basic {VALUE}")),
            ("Digest a:", "", format!("Digest a:{VALUE}")),
        ] {
            let mut rule = credentials(None).held.remove(0).rule;
            (rule.prefix, rule.suffix) = (prefix.into(), suffix.into());
            let secret = api::v1::Secret {
                credential: "github".into(),
                value: VALUE.into(),
                ..Default::default()
            };
            let credentials = Credentials::new(&[rule], &[secret.into()]);
            let written = apply(&credentials, "api.github.com", Scheme::Https, "/", &[]);
            assert_eq!(written.unwrap().1["authorization"], wanted);
        }
    }
}
