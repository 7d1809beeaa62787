//! The events that the gateway makes: what is in them is decided here, so that every path says the same thing the same
//! way. Texts that an agent or an upstream chose are bounded and stripped of control characters.

use std::net::SocketAddrV4;
use std::time::Instant;

use api::v1::Flow;
use audit::{Event, Kind, Verdict};
use schema::host::HostName;

use crate::approval::Held;
use crate::http::head::Scheme;
use crate::limits;
use crate::relay::Carried;
use crate::state::{Denied, Granted, Intent, Place};
use std::sync::atomic::{AtomicU64, Ordering};

/// An accepted connection as the enforcer finds its process by. Made once for each: it numbers them.
pub fn flow(peer: SocketAddrV4, local: SocketAddrV4) -> Flow {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Flow {
        connection: NEXT.fetch_add(1, Ordering::Relaxed),
        peer_address: peer.ip().to_bits(),
        peer_port: peer.port().into(),
        local_address: local.ip().to_bits(),
        local_port: local.port().into(),
    }
}

fn event(kind: Kind, verdict: Verdict, reason: &str) -> Event {
    let mut event = Event::new(kind, verdict, reason);
    event.layer = Some("gateway".to_owned());
    event
}

fn about(mut event: Event, intent: &Intent) -> Event {
    match &intent.place {
        Place::Name(name) => event.host = Some(name.as_str().to_owned()),
        Place::Address(address) => event.address = Some(address.to_string()),
    }
    event.port = Some(intent.port);
    event
}

/// A connection that may be carried, before the first byte of it is.
pub fn allowed(intent: &Intent, granted: &Granted) -> Event {
    let mut event = about(event(Kind::Connect, Verdict::Allow, "allowed"), intent);
    event.rule = Some(granted.rule.clone());
    event.protocol = Some(granted.protocol.as_str().to_owned());
    event
}

/// A connection that policy does not allow.
pub fn denied(intent: &Intent, denied: &Denied) -> Event {
    let mut event = about(event(Kind::Connect, Verdict::Deny, denied.code), intent);
    event.rule = denied.rule.clone();
    event
}

/// A connection that policy allows and that is refused for what its wire says or where its name led.
pub fn refused(intent: &Intent, granted: &Granted, code: &str, detail: &str) -> Event {
    let mut event = about(event(Kind::Connect, Verdict::Deny, code), intent);
    event.rule = Some(granted.rule.clone());
    event.protocol = Some(granted.protocol.as_str().to_owned());
    event.detail = Some(bounded(detail, limits::DETAIL));
    event
}

/// A connection that was allowed and came to nothing in the world.
pub fn failed(intent: &Intent, granted: &Granted, code: &str, detail: &str) -> Event {
    let mut event = refused(intent, granted, code, detail);
    event.verdict = Verdict::Allow;
    event
}

/// A connection to an address that nobody was given, or that could not be carried for a reason of ours.
pub fn unknown(address: SocketAddrV4, code: &str) -> Event {
    let mut event = event(Kind::Connect, Verdict::Deny, code);
    event.address = Some(address.ip().to_string());
    event.port = Some(address.port());
    event
}

/// The end of a connection that was carried.
pub fn closed(
    intent: &Intent,
    granted: &Granted,
    reason: &str,
    carried: &Carried,
    since: Instant,
) -> Event {
    let mut event = about(event(Kind::Connect, Verdict::Allow, reason), intent);
    event.rule = Some(granted.rule.clone());
    event.protocol = Some(granted.protocol.as_str().to_owned());
    event.bytes_in = Some(carried.bytes_in.load(Ordering::Relaxed));
    event.bytes_out = Some(carried.bytes_out.load(Ordering::Relaxed));
    event.duration_ms = Some(milliseconds(since));
    event
}

/// A name that was asked for.
pub fn dns(name: &HostName, verdict: Verdict, reason: &str) -> Event {
    let mut event = Event::new(Kind::Dns, verdict, reason);
    event.layer = Some("dns".to_owned());
    event.host = Some(name.as_str().to_owned());
    event
}

/// One HTTP request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Query values redacted.
    pub url: String,
    /// The credential that was put in.
    pub credential: Option<String>,
    /// How it waited for a person.
    pub held: Option<Held>,
}

pub fn request(
    intent: &Intent,
    rule: Option<&audit::Rule>,
    verdict: Verdict,
    reason: &str,
    scheme: Scheme,
    request: Option<&Request>,
) -> Event {
    let mut event = about(event(Kind::Request, verdict, reason), intent);
    event.rule = rule.cloned();
    event.protocol = Some(scheme.as_str().to_owned());
    if let Some(request) = request {
        event.method = Some(request.method.clone());
        event.url = Some(request.url.clone());
        event.credential = request.credential.clone();
        waited(&mut event, request.held.as_ref());
    }
    event
}

/// Says how long something waited for a person, and by which question.
pub fn waited(event: &mut Event, held: Option<&Held>) {
    if let Some(held) = held {
        event.held_ms = Some(held.held_ms);
        if !held.question.is_empty() {
            event.approval = Some(bounded(&held.question, 64));
        }
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug)]
pub struct Exchange {
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub since: Instant,
}

pub fn response(
    intent: &Intent,
    granted: &Granted,
    reason: &str,
    request: &Request,
    exchange: Exchange,
) -> Event {
    let mut event = about(event(Kind::Response, Verdict::Allow, reason), intent);
    event.rule = Some(granted.rule.clone());
    event.protocol = Some(granted.protocol.as_str().to_owned());
    event.method = Some(request.method.clone());
    event.url = Some(request.url.clone());
    event.credential = request.credential.clone();
    waited(&mut event, request.held.as_ref());
    event.status = Some(exchange.status);
    event.bytes_in = Some(exchange.bytes_in);
    event.bytes_out = Some(exchange.bytes_out);
    event.duration_ms = Some(milliseconds(exchange.since));
    event
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// At most `limit` bytes, without control characters and the characters that turn the direction of text.
pub fn bounded(text: &str, limit: usize) -> String {
    // What nearly every text is.
    if text.len() <= limit && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let c = if c.is_control() || is_format(c) {
            '\u{fffd}'
        } else {
            c
        };
        if out.len() + c.len_utf8() > limit {
            break;
        }
        out.push(c);
    }
    out
}

fn is_format(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A request target for the record: the path as it is, each query parameter with its name only.
pub fn redact(target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        None => return bounded(target, limits::RECORDED_URL),
        Some(parts) => parts,
    };
    let mut out = path.to_owned();
    let mut separator = '?';
    for parameter in query.split('&') {
        out.push(separator);
        separator = '&';
        match parameter.split_once('=') {
            Some((name, _)) => {
                out.push_str(name);
                out.push_str("=***");
            }
            // A parameter without a name may be all value.
            None if parameter.is_empty() => {}
            None => out.push_str("***"),
        }
    }
    bounded(&out, limits::RECORDED_URL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_not_recorded() {
        assert_eq!(redact("/a/b"), "/a/b");
        assert_eq!(
            redact("/a?token=s3cret&x=1&&bare"),
            "/a?token=***&x=***&&***"
        );
        assert_eq!(redact("/a?k=v=w"), "/a?k=***");
    }

    #[test]
    fn texts_are_bounded_on_a_character_and_hold_no_control_characters() {
        assert_eq!(bounded("abc", 3), "abc");
        assert_eq!(bounded("abcd", 3), "abc");
        assert_eq!(bounded("aé", 2), "a");
        assert_eq!(bounded("a\x1b[2Jb\u{202e}", 64), "a\u{fffd}[2Jb\u{fffd}");
    }
}
