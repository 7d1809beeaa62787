//! Where requests meet the inspectors: what they find is recorded, and what they block is refused. A block in a body that has an
//! answer already is recorded here, for nobody else would. Called by `http::forward` and, for bodies, by `http::body`.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use api::v1::Flow;
use audit::Verdict;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::http::request::Parts;

use super::head::Scheme;
use super::serve::Client;
use super::websocket::inspected::Watch;
use crate::connection::Shared;
use crate::credentials::window::Patterns;
use crate::events;
use crate::inspect::{Chain, Destination, Field, Finding, Stream};
use crate::limits;
use crate::state::{Granted, Intent, Place};

/// Whom findings are told.
#[derive(Clone)]
pub struct Report {
    shared: Arc<Shared>,
    intent: Intent,
    flow: Flow,
    rule: audit::Rule,
    scheme: Scheme,
    recorded: events::Request,
}

/// What a body shares with whoever answers its request.
#[derive(Debug, Default)]
pub struct Blocked {
    finding: OnceLock<Finding>,
    answered: AtomicBool,
}

/// The inspectors of one request's body.
pub struct Inspected {
    chain: Arc<Chain>,
    to: Destination,
    stream: Stream,
    report: Report,
    blocked: Arc<Blocked>,
}

// === impl Blocked ===

impl Blocked {
    /// What a body was broken off for.
    pub fn finding(&self) -> Option<Finding> {
        self.finding.get().cloned()
    }

    /// There is an answer. Whatever is found later is not said in it.
    pub fn answered(&self) -> Option<Finding> {
        self.answered.store(true, Ordering::SeqCst);
        self.finding()
    }
}

// === impl Report ===

impl Report {
    pub fn new(client: &Client, granted: &Granted, recorded: &events::Request) -> Self {
        Self {
            shared: Arc::clone(&client.shared),
            intent: client.intent.clone(),
            flow: client.flow,
            rule: granted.rule.clone(),
            scheme: client.authority.scheme,
            recorded: recorded.clone(),
        }
    }

    pub fn flags(&self, flags: &mut Vec<Finding>) {
        for finding in flags.drain(..) {
            self.tell(&finding, Verdict::Flag);
        }
    }

    pub fn tell(&self, finding: &Finding, verdict: Verdict) {
        self.say(finding.code, &finding.to_string(), verdict);
    }

    pub fn say(&self, code: &'static str, detail: &str, verdict: Verdict) {
        let mut event = events::request(
            &self.intent,
            Some(&self.rule),
            verdict,
            code,
            self.scheme,
            Some(&self.recorded),
        );
        event.detail = Some(events::bounded(detail, limits::DETAIL));
        if verdict == Verdict::Deny {
            self.shared.lane.post_denial(&event, Some(self.flow));
            let (place, port) = (self.intent.place.to_string(), self.intent.port);
            self.shared.state.denied(place, Some(port), code);
        } else {
            self.shared.lane.post(&event, Some(self.flow));
        }
    }
}

/// Looks at a request's head, and gives what looks at its body.
///
/// # Errors
/// What is blocked.
pub fn request(
    chain: &Arc<Chain>,
    client: &Client,
    granted: &Granted,
    parts: &Parts,
    recorded: &mut events::Request,
    blocked: &Arc<Blocked>,
) -> Result<Option<Inspected>, Finding> {
    if chain.is_empty() {
        return Ok(None);
    }
    let to = destination(client);
    let mut flags = Vec::new();
    let stream = chain
        .head(parts, &to, &mut flags)
        .and_then(|()| chain.body(&parts.headers, &to, &mut flags));
    veil(client, recorded, flags.iter().chain(stream.as_ref().err()));
    let report = Report::new(client, granted, recorded);
    report.flags(&mut flags);
    Ok(Some(Inspected {
        chain: Arc::clone(chain),
        to,
        stream: stream?,
        report,
        blocked: Arc::clone(blocked),
    }))
}

/// Looks at a request's head alone, ahead of a person. What is flagged is told when it is looked at again.
///
/// # Errors
/// What is blocked.
pub fn head(
    chain: &Arc<Chain>,
    client: &Client,
    parts: &Parts,
    recorded: &mut events::Request,
) -> Result<(), Finding> {
    let mut flags = Vec::new();
    let looked = chain.head(parts, &destination(client), &mut flags);
    veil(client, recorded, flags.iter().chain(looked.as_ref().err()));
    looked
}

/// A path in which something was found is not for the record either.
fn veil<'a>(
    client: &Client,
    recorded: &mut events::Request,
    mut found: impl Iterator<Item = &'a Finding>,
) {
    if found.any(|finding| finding.field == Field::Path) {
        recorded.url = format!(
            "{}://{}/***",
            client.authority.scheme.as_str(),
            client.authority
        );
    }
}

/// What looks at the frames of a WebSocket, those that may not hold what stands for a credential and those that may not hold a
/// value; `None` where nobody does.
pub fn websocket(
    chain: &Arc<Chain>,
    client: &Client,
    granted: &Granted,
    recorded: &events::Request,
    (placeholders, answers): (Option<Arc<Patterns>>, Option<Arc<Patterns>>),
) -> Option<Box<Watch>> {
    if chain.is_empty() && placeholders.is_none() && answers.is_none() {
        return None;
    }
    let report = Report::new(client, granted, recorded);
    let watch = Watch::new(chain, &destination(client), placeholders, report).answered(answers);
    Some(Box::new(watch))
}

pub fn destination(client: &Client) -> Destination {
    Destination {
        name: match &client.intent.place {
            Place::Name(name) => Some(name.clone()),
            Place::Address(_) => None,
        },
        tls: client.authority.scheme == Scheme::Https,
    }
}

// === impl Inspected ===

impl Inspected {
    /// What may pass of the body; `None`: it is blocked.
    pub fn push(&mut self, piece: Bytes) -> Option<Bytes> {
        let mut flags = Vec::new();
        let passed = self.stream.push(piece, &mut flags);
        self.done(passed, flags)
    }

    pub fn finish(&mut self) -> Option<Bytes> {
        let mut flags = Vec::new();
        let passed = self.stream.finish(&mut flags);
        self.done(passed, flags)
    }

    pub fn trailers(&self, trailers: &HeaderMap) -> Option<()> {
        let mut flags = Vec::new();
        let passed = self.chain.trailers(trailers, &self.to, &mut flags);
        self.done(passed, flags)
    }

    fn done<T>(&self, passed: Result<T, Finding>, mut flags: Vec<Finding>) -> Option<T> {
        self.report.flags(&mut flags);
        match passed {
            Ok(passed) => Some(passed),
            Err(finding) => {
                let _ = self.blocked.finding.set(finding.clone());
                if self.blocked.answered.load(Ordering::SeqCst) {
                    self.report.tell(&finding, Verdict::Deny);
                }
                None
            }
        }
    }

    pub fn is_open(&self) -> bool {
        self.stream.is_open()
    }

    pub fn held(&self) -> usize {
        self.stream.held()
    }
}
