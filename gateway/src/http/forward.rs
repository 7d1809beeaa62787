//! One allowed HTTP destination: takes a parsed request, writes it anew to the upstream connection that this client
//! connection owns, and streams the response back. A request is recorded before it is sent. Called by `http::serve`.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use audit::Verdict;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use hyper::http::uri::PathAndQuery;
use hyper::{Request, Response, StatusCode, Uri, Version};
use tokio::sync::OnceCell;

use super::body::{self, Break, Broken, Counted, Ends};
use super::head::Authority;
use super::inspected;
use super::meaning::{Meaning, Misplaced};
use super::page::{self, Blocked, Form};
use super::pool::Pool;
use super::response::{self, Ambiguous};
use super::ruled;
use super::serve::{self, Body, Client, page_response, refuse};
use super::upstream::{Held, Lease, Upstreams};
use super::websocket::inspected::Watch;
use super::websocket::{Handover, Key, Mismatch, Switched};
use crate::approval;
use crate::credentials::{self, window::Patterns};
use crate::dial::DialError;
use crate::events;
use crate::inspect::Finding;
use crate::limits;
use crate::state::{Entry, Granted};
use crate::tls::upstream::UpstreamError;

/// Fields that are between two neighbours only (RFC 9110, 7.6.1), those that Connection lists beside.
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

pub struct Forward {
    pub granted: Granted,
    // Ahead of the entry, whose end says that nothing of this connection is open any more.
    upstreams: Upstreams,
    entry: Arc<Entry>,
    /// Set once the connection was recorded; a client connection is recorded once.
    connected: OnceCell<bool>,
    /// Whose program opened it; asked for once, where rules want to know.
    opener: OnceCell<ruled::By>,
}

/// Why there is no response.
pub enum Failure {
    NotRecorded,
    Dial(DialError),
    Tls(UpstreamError),
    Upstream(hyper::Error),
    Response(Ambiguous),
    Switch(Mismatch),
    Credential(credentials::Refusal),
    /// What comes back cannot be looked through.
    Encoded,
    Ruled(ruled::Refusal),
    Approval(approval::Refusal),
    /// The body turned out longer than a rule allows.
    TooLong,
    Inspected(Finding),
}

impl Failure {
    /// Status, stable code, words.
    fn facts(&self) -> (u16, &'static str, String) {
        match self {
            Self::Credential(refusal) => (refusal.status(), refusal.code(), refusal.to_string()),
            Self::Ruled(refusal) => (refusal.status(), refusal.code(), refusal.to_string()),
            Self::Approval(refusal) => (refusal.status(), refusal.code(), refusal.to_string()),
            Self::TooLong => (
                413,
                "body-too-long",
                "the body is longer than a rule allows".to_owned(),
            ),
            Self::Inspected(finding) => (403, finding.code, finding.to_string()),
            Self::Encoded => (
                502,
                "response-encoded",
                "the server compressed its answer although it was asked not to, and an answer to a request with a credential is looked through".to_owned(),
            ),
            Self::NotRecorded => (
                503,
                "not-recorded",
                "the event log takes no more events, and nothing is carried that is not recorded".to_owned(),
            ),
            Self::Dial(error) => {
                let status = match error {
                    error if error.is_refusal() => 403,
                    error if error.is_timeout() => 504,
                    _ => 502,
                };
                (status, error.code(), error.to_string())
            }
            Self::Tls(error) => {
                let status = if error.is_timeout() { 504 } else { 502 };
                (status, error.code(), error.to_string())
            }
            Self::Upstream(error) => (502, "upstream-failed", spelt_out(error)),
            Self::Response(why) => (502, "http-framing", why.to_string()),
            Self::Switch(why) => (502, "http-upgrade", why.to_string()),
        }
    }
}

impl Forward {
    pub fn new(granted: Granted, entry: Arc<Entry>, pool: Arc<Pool>) -> Self {
        Self {
            granted,
            upstreams: Upstreams::new(pool),
            entry,
            connected: OnceCell::new(),
            opener: OnceCell::new(),
        }
    }

    /// The client's socket; looked at, never read.
    pub fn socket(&self) -> RawFd {
        self.entry.socket
    }

    pub async fn request(
        &self,
        client: &Client,
        request: Request<Incoming>,
        mut recorded: events::Request,
        form: Form,
    ) -> Response<Body> {
        let since = Instant::now();
        let sent = Arc::new(AtomicU64::new(0));
        let key = Key::of(request.headers());
        let broken = Arc::new(Broken::default());
        let result = async {
            let (mut head, body) = request.into_parts();
            let checked = match &self.granted.requests {
                Some(rules) => {
                    let announced = body.size_hint().lower();
                    let by = self.by(client, rules).await;
                    ruled::check(rules, &client.shared.state, &head, announced, &by)
                        .map_err(Failure::Ruled)?
                }
                None => ruled::Checked::default(),
            };
            if let Some(rule) = &checked.ask {
                self.before_asking(client, &head, &mut recorded, checked.methods)?;
                let (held, answer) = self.ask(client, rule, &head, key.is_some()).await;
                recorded.held = Some(held);
                answer.map_err(Failure::Approval)?;
            }
            // Of the policy that is in force now, however old the connection is.
            let active = client.shared.state.active();
            // Before a credential is put in: no value of ours is ever looked at.
            let (chain, blocked) = (&active.inspectors, &broken.inspected);
            let granted = &self.granted;
            let inspected =
                inspected::request(chain, client, granted, &head, &mut recorded, blocked)
                    .map_err(Failure::Inspected)?;
            let credentials = client.shared.state.credentials();
            let applied = credentials
                .apply(&mut head, &client.intent, client.authority.scheme)
                .map_err(Failure::Credential)?;
            let carried = self.entry.carry(&applied.names);
            carried.map_err(|name| Failure::Credential(credentials::Refusal::Revoked(name)))?;
            recorded.credential = applied.recorded();
            // A file that somebody labels as packed, whatever is asked for, comes as it is.
            let mut takes_gzip = applied.is_own;
            if applied.is_own {
                // What comes back is looked through: it has to come as it is.
                let identity = HeaderValue::from_static("identity");
                head.headers.insert(header::ACCEPT_ENCODING, identity);
                // In pieces of the agent's choice nothing would be found of it (RFC 9110, 14.2: a server may send the whole).
                head.headers.remove(header::RANGE);
                head.headers.remove(header::IF_RANGE);
            } else if applied.answers.is_some() {
                // What comes back is read as far as it can be.
                let readable = readable(&head.headers);
                takes_gzip = readable == "gzip";
                head.headers.insert(header::ACCEPT_ENCODING, readable);
            }
            let watch = key.as_ref().and_then(|_| {
                let patterns = (applied.body.clone(), applied.answers.clone());
                inspected::websocket(chain, client, granted, &recorded, patterns)
            });
            if watch.is_some() {
                // Compressed messages are not read: none is offered.
                head.headers.remove(header::SEC_WEBSOCKET_EXTENSIONS);
            }
            let methods = checked.methods || applied.methods;
            let meaning =
                Meaning::of(&head.headers, applied.body.as_ref(), methods).map_err(unclear)?;
            let may_break =
                applied.body.is_some() || meaning.is_some() || checked.longest.is_some();
            let may_break = may_break && !body.is_end_stream();
            let report = may_break.then(|| inspected::Report::new(client, granted, &recorded));
            let told = Arc::clone(&broken);
            let ends = match client.h2 {
                true => Ends::Stream(Arc::new(AtomicBool::new(true))),
                false => Ends::Body,
            };
            let asked = Arc::new(AtomicBool::new(false));
            let all = Arc::clone(&asked);
            let body = Counted::new(body, ends, Arc::clone(&sent))
                .meaning(meaning)
                .refuse(applied.body, checked.longest, Arc::clone(&broken))
                .inspected(inspected)
                .on_end(move |whole| {
                    all.store(whole, Ordering::Relaxed);
                    if let (Some(report), Some(why)) = (report, told.after_the_answer()) {
                        let (_, code, why) = Failure::from(why).facts();
                        report.say(code, &why, Verdict::Deny);
                    }
                });
            let request = Request::from_parts(head, body);
            let (mut upstream, mut lease) = self
                .exchange(client, request, key.as_ref(), &recorded, &applied.names)
                .await?;
            if let Some(finding) = broken.inspected.answered() {
                return Err(Failure::Inspected(finding));
            }
            if let Some(broken) = broken.answered() {
                return Err(broken.into());
            }
            if upstream.status() == StatusCode::SWITCHING_PROTOCOLS {
                return self
                    .switch(
                        client,
                        (upstream, lease),
                        (key, watch),
                        (&recorded, since),
                        applied.answers,
                    )
                    .await;
            }
            if client.h2 && key.is_some() && upstream.status().is_success() {
                // Would be the stream's own switch.
                return Err(Failure::Switch(Mismatch::Ordinary));
            }
            let (status, version) = (upstream.status(), upstream.version());
            // Where it cannot be told, what comes next on this connection is anybody's guess: it is not used again.
            response::frame(status, version, upstream.headers_mut()).map_err(Failure::Response)?;
            let gzip = match applied.answers.as_ref().and(encoding(upstream.headers())) {
                None => false,
                // A piece of it stands for nothing.
                Some(Encoding::Gzip) if takes_gzip && status != StatusCode::PARTIAL_CONTENT => true,
                Some(_) if applied.is_own => return Err(Failure::Encoded),
                Some(_) => false,
            };
            if gzip {
                // It goes on as what it stands for.
                upstream.headers_mut().remove(header::CONTENT_ENCODING);
                upstream.headers_mut().remove(header::CONTENT_LENGTH);
            }
            let held = lease.take_held();
            self.upstreams.give_back(lease);
            let answers = (applied.answers, gzip);
            Ok(self.respond(
                client,
                (upstream, held),
                recorded.clone(),
                (sent, since),
                asked,
                answers,
            ))
        };
        match result.await {
            Ok(response) => response,
            Err(failure) => {
                // The body was refused while it was being sent.
                if let Some(refused) = client.refusals.take() {
                    let site = super::serve::Site::Denied(crate::state::Denied {
                        code: refused.refusal.code(),
                        rule: Some(self.granted.rule.clone()),
                    });
                    let mut response = page_response(refuse(client, &site, &refused));
                    close_after(&mut response);
                    return response;
                }
                let failure = if let Some(finding) = broken.inspected.finding() {
                    Failure::Inspected(finding)
                } else {
                    broken.why().map_or(failure, Failure::from)
                };
                let (status, code, why) = failure.facts();
                self.failed(client, &recorded, (status, code, &why), form)
            }
        }
    }

    /// Who asks, where a rule is about programs.
    async fn by(&self, client: &Client, rules: &policy::RequestRules) -> ruled::By {
        if !rules.rules_programs() {
            return ruled::By::Anybody;
        }
        let asked = || async {
            match client.shared.channel.opener(client.flow).await {
                Some(program) => ruled::By::Program(program),
                None => ruled::By::Unknown,
            }
        };
        self.opener.get_or_init(asked).await.clone()
    }

    /// Nobody is asked about what would be refused all the same. It is all looked at again behind the answer: by then another
    /// policy may be in force, and another value.
    fn before_asking(
        &self,
        client: &Client,
        head: &Parts,
        recorded: &mut events::Request,
        methods: bool,
    ) -> Result<(), Failure> {
        let chain = &client.shared.state.active().inspectors;
        inspected::head(chain, client, head, recorded).map_err(Failure::Inspected)?;
        let credentials = client.shared.state.credentials();
        let applied = credentials.apply(&mut head.clone(), &client.intent, client.authority.scheme);
        let applied = applied.map_err(Failure::Credential)?;
        let meaning = Meaning::of(&head.headers, None, methods || applied.methods);
        meaning.map(drop).map_err(unclear)
    }

    /// Has a person asked, before anything of the request has gone anywhere.
    async fn ask(
        &self,
        client: &Client,
        rule: &policy::RequestRule,
        head: &Parts,
        websocket: bool,
    ) -> (approval::Held, Result<(), approval::Refusal>) {
        let rule = audit::Rule {
            name: rule.name.clone(),
            origin: rule.origin.to_string(),
        };
        let target = head.uri.path_and_query().map_or("*", PathAndQuery::as_str);
        // A channel without end is not what a person takes an ordinary request for, nor what an answer about one covers.
        let method = match websocket {
            true => "GET (WebSocket)",
            false => head.method.as_str(),
        };
        let subject = approval::Subject {
            rule: &rule,
            generation: client.shared.state.active().generation,
            protocol: client.authority.scheme.as_str(),
            request: Some((method, target)),
        };
        let from = approval::Origin {
            flow: client.flow,
            socket: self.entry.socket,
        };
        approval::ask(&client.shared, &client.intent, subject, from).await
    }

    /// Records, connects where there is no connection yet, sends, and waits for the response's head.
    async fn exchange(
        &self,
        client: &Client,
        request: Request<Counted>,
        key: Option<&Key>,
        recorded: &events::Request,
        credentials: &[String],
    ) -> Result<(Response<Incoming>, Lease), Failure> {
        let event = events::request(
            &client.intent,
            Some(&self.granted.rule),
            Verdict::Allow,
            "allowed",
            client.authority.scheme,
            Some(recorded),
        );
        let lease = || {
            let uses = (credentials, key.is_some());
            self.upstreams
                .lease(client, &self.granted, &self.entry, uses)
        };
        let written = async {
            let connected = self.connected.get_or_init(|| async {
                let event = events::allowed(&client.intent, &self.granted);
                let record = client.shared.lane.record(&event, Some(client.flow));
                record.await.is_ok()
            });
            // Queued one behind the other, and both waited for.
            let record = client.shared.lane.record(&event, Some(client.flow));
            match tokio::join!(connected, record) {
                (true, Ok(())) => Ok(()),
                _ => Err(Failure::NotRecorded),
            }
        };
        let mut leased = if self.entry.active.is_chosen(&client.intent.place) {
            // The agent's own words go out with the resolution: not before they are on record.
            written.await?;
            lease().await?
        } else {
            let (written, leased) = tokio::join!(written, lease());
            written?;
            leased?
        };
        let h2 = leased.is_h2();
        let mut request = self.rewrite(client, request, key, h2);
        // A kept connection may end at the moment it is used; what was not sent at all is sent again, once.
        for again in [true, false] {
            match leased.send(request).await {
                Ok(response) => return Ok((response, leased)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) if again => {
                        request = unsent;
                        leased = lease().await?;
                        if leased.is_h2() != h2 {
                            return Err(Failure::Upstream(error.into_error()));
                        }
                    }
                    _ => return Err(Failure::Upstream(error.into_error())),
                },
            }
        }
        Err(Failure::Dial(DialError::NoAddress))
    }

    /// Checks the upstream's 101, records it, and hands the socket over to be connected with the client's.
    async fn switch(
        &self,
        client: &Client,
        (mut upstream, lease): (Response<Incoming>, Lease),
        (key, watch): (Option<Key>, Option<Box<Watch>>),
        (recorded, since): (&events::Request, Instant),
        answers: Option<Arc<Patterns>>,
    ) -> Result<Response<Body>, Failure> {
        let key = key.ok_or(Failure::Switch(Mismatch::Unasked))?;
        key.check(upstream.version(), upstream.headers())
            .map_err(Failure::Switch)?;
        if watch.is_some()
            && upstream
                .headers()
                .contains_key(header::SEC_WEBSOCKET_EXTENSIONS)
        {
            return Err(Failure::Switch(Mismatch::Extension));
        }
        let upgraded = hyper::upgrade::on(&mut upstream)
            .await
            .map_err(Failure::Upstream)?;
        let switched =
            Switched::new(upgraded, watch, lease).ok_or(Failure::Switch(Mismatch::Unasked))?;
        let status = upstream.status().as_u16();
        let exchange = events::Exchange {
            status,
            bytes_in: 0,
            bytes_out: 0,
            since,
        };
        let event = events::response(
            &client.intent,
            &self.granted,
            "websocket",
            recorded,
            exchange,
        );
        let written = client.shared.lane.record(&event, Some(client.flow));
        written.await.map_err(|_| Failure::NotRecorded)?;
        let (mut parts, _) = upstream.into_parts();
        neighbourly(&mut parts, client.h2);
        if let Some(answers) = &answers {
            body::exchange(&mut parts.headers, answers);
        }
        key.answer(&mut parts.headers);
        parts.extensions.insert(Handover::new(switched));
        Ok(Response::from_parts(parts, serve::nothing()))
    }

    /// The request as it goes out: the canonical authority, nothing that is between neighbours but what makes a WebSocket.
    fn rewrite(
        &self,
        client: &Client,
        request: Request<Counted>,
        key: Option<&Key>,
        h2: bool,
    ) -> Request<Counted> {
        let (mut parts, body) = request.into_parts();
        let target = match parts.uri.path_and_query() {
            Some(target) if target.as_str() != "/" => target.clone(),
            // What was a fragment alone counts as this, and would be written as nothing.
            _ => PathAndQuery::from_static("/"),
        };
        let trailers = lists_trailers(&parts.headers);
        strip(&mut parts.headers);
        parts.headers.remove(header::EXPECT);
        if h2 {
            as_two(&mut parts, target, &client.authority, trailers);
        } else {
            as_one(&mut parts, target, &client.authority);
        }
        // Said outright: hyper would leave the body of a GET away, and would hand a length on as it was spelt.
        match body.size_hint().exact() {
            None if !h2 => {
                let chunked = HeaderValue::from_static("chunked");
                parts.headers.insert(header::TRANSFER_ENCODING, chunked);
            }
            None => {}
            Some(length) => {
                if let Some(value) = parts.headers.get_mut(header::CONTENT_LENGTH) {
                    *value = HeaderValue::from(length);
                }
            }
        }
        if let Some(key) = key {
            key.ask(&mut parts.headers);
        }
        Request::from_parts(parts, body)
    }

    fn respond(
        &self,
        client: &Client,
        (upstream, held): (Response<Incoming>, Held),
        recorded: events::Request,
        (sent, since): (Arc<AtomicU64>, Instant),
        asked: Arc<AtomicBool>,
        (answers, gzip): (Option<Arc<Patterns>>, bool),
    ) -> Response<Body> {
        let (mut parts, body) = upstream.into_parts();
        let answer = match parts.version {
            // Whoever has not been sent everything may answer in the middle and say that it takes no more.
            Version::HTTP_2 => Ends::Stream(asked),
            _ => Ends::Body,
        };
        neighbourly(&mut parts, client.h2);
        if let Some(answers) = &answers {
            body::exchange(&mut parts.headers, answers);
        }
        let received = Arc::new(AtomicU64::new(0));
        let status = parts.status.as_u16();
        let end = {
            let (shared, intent) = (Arc::clone(&client.shared), client.intent.clone());
            let (granted, flow) = (self.granted.clone(), client.flow);
            let received = Arc::clone(&received);
            move |whole: bool| {
                // The connection may take another request.
                drop(held);
                let event = events::response(
                    &intent,
                    &granted,
                    if whole { "complete" } else { "broken-off" },
                    &recorded,
                    events::Exchange {
                        status,
                        bytes_in: received.load(Ordering::Relaxed),
                        bytes_out: sent.load(Ordering::Relaxed),
                        since,
                    },
                );
                shared.lane.post(&event, Some(flow));
            }
        };
        Response::from_parts(
            parts,
            Counted::new(body, answer, received)
                .inflated(gzip)
                .exchange(answers)
                .on_end(end)
                .boxed(),
        )
    }

    fn failed(
        &self,
        client: &Client,
        recorded: &events::Request,
        (status, code, why): (u16, &'static str, &str),
        form: Form,
    ) -> Response<Body> {
        let verdict = if (400..=499).contains(&status) || code == "not-recorded" {
            Verdict::Deny
        } else {
            Verdict::Allow
        };
        let mut event = events::request(
            &client.intent,
            Some(&self.granted.rule),
            verdict,
            code,
            client.authority.scheme,
            Some(recorded),
        );
        event.status = Some(status);
        event.detail = Some(events::bounded(why, limits::DETAIL));
        client.shared.lane.post_denial(&event, Some(client.flow));
        if verdict == Verdict::Deny {
            client.shared.state.denied(
                client.intent.place.to_string(),
                Some(client.intent.port),
                code,
            );
        }
        let mut response = page_response(page::blocked(
            Blocked {
                status,
                code,
                host: &client.intent.place.to_string(),
                port: client.intent.port,
                rule: Some(&self.granted.rule),
                why,
            },
            form,
        ));
        if status == 429 {
            let second = HeaderValue::from_static("1");
            response.headers_mut().insert(header::RETRY_AFTER, second);
        }
        response
    }
}

/// Nobody can say that the body is no other method.
fn unclear(_: Misplaced) -> Failure {
    Failure::Ruled(ruled::Refusal::Override)
}

impl From<Break> for Failure {
    fn from(why: Break) -> Self {
        match why {
            Break::Placeholder => Self::Credential(credentials::Refusal::Body),
            Break::OtherMethod => Self::Ruled(ruled::Refusal::Override),
            Break::TooLong => Self::TooLong,
        }
    }
}

/// An error with what it comes from: hyper's own words alone do not say what a server did.
fn spelt_out(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", spelt_out(source)),
        None => error.to_string(),
    }
}

fn close_after(response: &mut Response<Body>) {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
}

/// A response's head as the client gets it.
fn neighbourly(parts: &mut hyper::http::response::Parts, h2: bool) {
    strip(&mut parts.headers);
    // Would lead a client to another place, by a protocol that nobody granted.
    parts.headers.remove(header::ALT_SVC);
    // Words that nobody looks through.
    parts.extensions.remove::<hyper::ext::ReasonPhrase>();
    parts.version = if h2 {
        Version::HTTP_2
    } else {
        Version::HTTP_11
    };
}

/// Whether a client of HTTP/2 can do with trailers, as gRPC's have to say.
fn lists_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TE).iter();
    values.any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// A request in HTTP/1: origin form, the canonical Host, one Cookie (RFC 9113, 8.2.3).
fn as_one(parts: &mut Parts, target: PathAndQuery, authority: &Authority) {
    parts.version = Version::HTTP_11;
    parts.uri = Uri::from(target);
    // A canonical name and a number are always a valid field value.
    if let Ok(host) = HeaderValue::try_from(authority.to_string()) {
        parts.headers.insert(header::HOST, host);
    }
    let crumbs: Vec<&[u8]> = parts
        .headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() > 1
        && let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        parts.headers.insert(header::COOKIE, cookie);
    }
}

/// A request in HTTP/2: the authority is a pseudo-header field.
fn as_two(parts: &mut Parts, target: PathAndQuery, authority: &Authority, trailers: bool) {
    parts.version = Version::HTTP_2;
    let mut uri = hyper::http::uri::Parts::default();
    uri.scheme = Some(hyper::http::uri::Scheme::HTTPS);
    uri.authority = authority.to_string().parse().ok();
    uri.path_and_query = Some(target);
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    parts.headers.remove(header::HOST);
    if trailers {
        let value = HeaderValue::from_static("trailers");
        parts.headers.insert(header::TE, value);
    }
}

/// How a body is encoded that is not itself.
enum Encoding {
    Gzip,
    Other,
}

fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let is = |value: &HeaderValue, name: &[u8]| value.as_bytes().eq_ignore_ascii_case(name);
    let values = headers.get_all(header::CONTENT_ENCODING).iter();
    let mut values = values.filter(|value| !is(value, b"identity"));
    match (values.next(), values.next()) {
        (None, _) => None,
        (Some(one), None) if is(one, b"gzip") || is(one, b"x-gzip") => Some(Encoding::Gzip),
        _ => Some(Encoding::Other),
    }
}

/// What of a client's Accept-Encoding can be read on the way back; of a piece nothing can.
fn readable(headers: &HeaderMap) -> HeaderValue {
    if headers.contains_key(header::RANGE) {
        return HeaderValue::from_static("identity");
    }
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    let takes = codings.any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let none = weight.trim().strip_prefix("q=0");
        let is_none = none.is_some_and(|rest| rest.trim_matches(['.', '0']).is_empty());
        name.trim().eq_ignore_ascii_case("gzip") && !is_none
    });
    HeaderValue::from_static(if takes { "gzip" } else { "identity" })
}

/// Removes what is between neighbours, and what Connection says is.
fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        // Framing and authority are not a neighbour's to take away.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}
