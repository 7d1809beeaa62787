//! What rules say about one request, asked before anything of it is sent: method and path, how long its body may be, how
//! often. Used by `http::forward`.

use hyper::header::HeaderName;
use hyper::http::request::Parts;
use policy::{RequestDenial, RequestRules};

use crate::state::State;

/// Fields by which some servers take another method than the one that was decided about.
const OVERRIDES: [HeaderName; 3] = [
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Why a request is not carried.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("{0} denies this request")]
    Denied(String),
    #[error("no rule allows this method and path; {0} allows others")]
    NotListed(String),
    #[error("the path is not in its canonical spelling, and rules are about paths here")]
    NotCanonical,
    #[error("a field that overrides the method, where rules are about methods")]
    Override,
    #[error("a body of more than the {0} bytes that a rule allows")]
    TooLong(u64),
    #[error("{rule} allows {per_second} requests a second")]
    TooMany { rule: String, per_second: u32 },
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Denied(_) => "request-denied",
            Self::NotListed(_) => "request-not-listed",
            Self::NotCanonical => "path-not-canonical",
            Self::Override => "method-override",
            Self::TooLong(_) => "body-too-long",
            Self::TooMany { .. } => "rate-limited",
        }
    }

    pub fn status(&self) -> u16 {
        match self {
            Self::Denied(_) | Self::NotListed(_) => 403,
            Self::NotCanonical | Self::Override => 400,
            Self::TooLong(_) => 413,
            Self::TooMany { .. } => 429,
        }
    }
}

/// Whether the request may be carried, and how long its body may be. `announced`: what its length says, if it does.
pub fn check(
    rules: &RequestRules,
    state: &State,
    parts: &Parts,
    announced: u64,
) -> Result<Option<u64>, Refusal> {
    if rules.rules_methods()
        && OVERRIDES
            .iter()
            .any(|name| parts.headers.contains_key(name))
    {
        return Err(Refusal::Override);
    }
    let permit = rules
        .decide(parts.method.as_str(), parts.uri.path())
        .map_err(|denial| match denial {
            RequestDenial::NotCanonical => Refusal::NotCanonical,
            RequestDenial::Denied(rule) => Refusal::Denied(rule.name.clone()),
            RequestDenial::NotListed(rule) => Refusal::NotListed(rule.name.clone()),
        })?;
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
    Ok(permit.max_body_bytes)
}
