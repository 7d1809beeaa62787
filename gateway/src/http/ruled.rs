//! What rules say about one request, asked before anything of it is sent: method and path, how long its body may be, how
//! often. Used by `http::forward`.

use std::fmt;

use hyper::Method;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use policy::{RequestDenial, RequestRule, RequestRules};

use super::form;
use crate::percent;
use crate::state::State;

/// Fields by which some servers take another method, or another path, than the one that was decided about.
const OTHER_METHOD: [&str; 3] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
];
const OTHER_PATH: [&str; 2] = ["x-original-url", "x-rewrite-url"];

/// Whether a field of these names is there, with any other sign for `-` too, as some servers read it.
fn has(headers: &HeaderMap, names: &[&str]) -> bool {
    let mut fields = headers.keys().map(|name| {
        name.as_str()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
    });
    fields.any(|field| names.contains(&field.as_str()))
}

/// Whether the path could be read as another one.
pub fn other_path(parts: &Parts) -> bool {
    has(&parts.headers, &OTHER_PATH)
}

/// Whether the method could be read as another one.
pub fn other_method(parts: &Parts) -> bool {
    let method = parts.method.as_str();
    let plain = |b: u8| b.is_ascii_uppercase() || b == b'-' || b == b'_';
    let query = parts.uri.query().unwrap_or_default();
    let named = |parameter: &str| {
        let name = parameter.split('=').next().unwrap_or_default();
        form::is_other_method(&percent::decoded(name.replace('+', " ").as_bytes()))
    };
    !method.bytes().all(plain)
        || has(&parts.headers, &OTHER_METHOD)
        || query.split(['&', ';']).any(named)
}

/// Why a request is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} denies this request{1}")]
    Denied(String, By),
    #[error("no rule allows this method and path{1}; {0} allows others")]
    NotListed(String, By),
    #[error(
        "the path is not in its canonical spelling, and rules are about paths here, or a person is asked"
    )]
    NotCanonical,
    #[error(
        "a method in lower case, or a field or parameter, of the query or the body, that overrides method or path, where rules are about them or a person is asked; or a body in an encoding that hides whether there is one"
    )]
    Override,
    #[error("a WebSocket has no end, and a rule bounds a request's body here")]
    Endless,
    #[error("a body of more than the {0} bytes that a rule allows")]
    TooLong(u64),
    #[error("{rule} allows {per_second} requests a second")]
    TooMany { rule: String, per_second: u32 },
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(..) => "request-denied",
            Self::NotListed(..) => "request-not-listed",
            Self::NotCanonical => "path-not-canonical",
            Self::Override => "method-override",
            Self::Endless => "upgrade-unbounded",
            Self::TooLong(_) => "body-too-long",
            Self::TooMany { .. } => "rate-limited",
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Denied(..) | Self::NotListed(..) | Self::Endless => 403,
            Self::NotCanonical | Self::Override => 400,
            Self::TooLong(_) => 413,
            Self::TooMany { .. } => 429,
        }
    }
}

/// Who asks, where rules are about programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum By {
    #[default]
    Anybody,
    Program(String),
    /// It has gone, or the kernel does not say.
    Unknown,
}

impl By {
    fn program(&self) -> Option<&str> {
        match self {
            Self::Program(path) => Some(path),
            Self::Anybody | Self::Unknown => None,
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anybody => Ok(()),
            Self::Program(path) => write!(f, " by {}", path.escape_default()),
            Self::Unknown => f.write_str(" by a program that is not known"),
        }
    }
}

/// What a request may do.
#[derive(Debug, Default)]
pub struct Checked {
    /// The longest body.
    pub longest: Option<u64>,
    /// The method was asked about, and may be another one by what the body says.
    pub methods: bool,
    /// The rule that wants a person asked first.
    pub ask: Option<RequestRule>,
}

/// Whether the request may be carried, and how. `announced`: what its length says, if it does.
pub fn check(
    rules: &RequestRules,
    state: &State,
    parts: &Parts,
    announced: u64,
    by: &By,
) -> Result<Checked, Refusal> {
    if rules.rules_methods() && other_method(parts) || rules.rules_paths() && other_path(parts) {
        return Err(Refusal::Override);
    }
    let permit = rules
        .decide(parts.method.as_str(), parts.uri.path(), by.program())
        .map_err(|denial| match denial {
            RequestDenial::NotCanonical => Refusal::NotCanonical,
            RequestDenial::Denied(rule) => Refusal::Denied(rule.name.clone(), by.clone()),
            RequestDenial::NotListed(rule) => Refusal::NotListed(rule.name.clone(), by.clone()),
        })?;
    if permit.max_body_bytes.is_some() && parts.headers.contains_key(header::UPGRADE) {
        return Err(Refusal::Endless);
    }
    if let Some(longest) = permit.max_body_bytes
        && announced > longest
    {
        return Err(Refusal::TooLong(longest));
    }
    for (origin, rate) in &permit.rates {
        if !state.within(origin, *rate) {
            return Err(Refusal::TooMany {
                rule: format!("the rule at {origin}"),
                per_second: rate.per_second,
            });
        }
    }
    Ok(Checked {
        longest: permit.max_body_bytes,
        // Nobody takes another method for any other than this one.
        methods: rules.rules_methods() && parts.method == Method::POST,
        ask: permit.ask,
    })
}
