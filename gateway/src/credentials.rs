//! Credentials on the wire: what stands for one inside is exchanged for its value in the field that policy names, on the way to
//! a place it may go, and nowhere else; a value that comes back is exchanged again. Values come with the first snapshot and
//! stay in this process's memory. Used by `http::forward` for each request.

pub mod window;

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};
use policy::Credential;
use policy::credential::Asked;
use zeroize::Zeroizing;

use crate::http::head::Scheme;
use crate::http::ruled;
use crate::percent;
use crate::state::{Intent, Place};
use window::{At, Patterns};

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
    /// One of them is bound to methods, and the method may be another one by what the body says.
    pub methods: bool,
    /// Values that may come back from there, with what stands for them.
    pub answers: Option<Arc<Patterns>>,
    /// It is a place that a credential goes to: what cannot be looked through does not come back from there.
    pub is_own: bool,
    /// What the body may not hold.
    pub body: Option<Arc<Patterns>>,
}

impl Applied {
    /// All of them, for the record.
    pub fn recorded(&self) -> Option<String> {
        (!self.names.is_empty()).then(|| self.names.join(", "))
    }
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
                    placeholder.add(text, text, At::Own);
                    for value in secret.previous.iter().chain([&secret.value]) {
                        let mut add = |text: &[u8], stand_in: &str| {
                            answers.add(text, stand_in.as_bytes(), At::Own);
                            elsewhere.add(text, stand_in.as_bytes(), At::Others);
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
        // What stands for one is looked at in every field before another is written over it.
        held.sort_by_key(|held| held.rule.env.is_none());
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
        let (method, path) = (parts.method.clone(), parts.uri.path().to_owned());
        let asked = Asked {
            method: method.as_str(),
            path: &path,
            other_method: ruled::other_method(parts),
            other_path: ruled::other_path(parts),
        };
        for held in &self.held {
            let host = match &intent.place {
                Place::Name(name) if scheme == Scheme::Https => Some(name),
                _ => None,
            };
            let is_there = host.is_some_and(|name| held.rule.fits(name, intent.port));
            let fits = host.is_some_and(|name| held.rule.fits_request(name, intent.port, asked));
            let in_target = held.in_target(parts, fits)?;
            if held.in_fields(&mut parts.headers, fits)? || in_target {
                applied.names.push(held.rule.name.clone());
                applied.methods |= held.is_for_methods() && method == Method::POST;
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
    fn is_for_methods(&self) -> bool {
        let mut places = self.rule.places.iter();
        places.any(|place| !place.methods.is_empty())
    }

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
mod tests;
