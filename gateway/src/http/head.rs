//! A request head, read strictly from its raw bytes before any HTTP library sees them: one spelling of everything, and
//! framing that two parsers cannot read two ways (RFC 9112, 3, 5, 6; escape-attempts D12 to D14). What is left ambiguous
//! is refused, not repaired. Called by `http::framer`, and fuzzed as `http_head`.

use std::net::Ipv4Addr;

use schema::host::HostName;

use super::websocket::{self, Key};
use crate::limits;

/// Where the connection was dialled: what a request on it must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pub host: Host,
    pub port: u16,
    pub scheme: Scheme,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    Name(HostName),
    Address(Ipv4Addr),
}

/// Whether TLS ends at the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that may be left out.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Authority {
    /// Whether a Host value, an `:authority` or a target's authority names this place: canonical host, port equal or, where it
    /// is left out, the scheme's own.
    pub fn is_named_by(&self, text: &str) -> bool {
        // The canonicaliser knows other spellings of a dot; on the wire there is one.
        if !text.is_ascii() {
            return false;
        }
        let (host, port) = match text.split_once(':') {
            None => (text, self.scheme.default_port()),
            Some((host, port)) => match parse_port(port) {
                Some(port) => (host, port),
                None => return false,
            },
        };
        port == self.port
            && match &self.host {
                Host::Name(name) => HostName::parse(host).is_ok_and(|host| host == *name),
                Host::Address(address) => {
                    host.parse::<Ipv4Addr>().is_ok_and(|host| host == *address)
                }
            }
    }
}

impl std::fmt::Display for Authority {
    /// As a Host header spells it: the scheme's own port is left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}")?,
            Host::Address(address) => write!(f, "{address}")?,
        }
        if self.port != self.scheme.default_port() {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

/// How the body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 where no body was announced.
    Length(u64),
    Chunked,
}

/// A head that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub framing: Framing,
    /// The client asks to speak WebSocket from here on: no request follows this one.
    pub websocket: bool,
}

/// Why a request is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("a request head of more than {} bytes", limits::HTTP_HEAD)]
    HeadTooLong,
    #[error("more than {} header lines", limits::HTTP_HEADERS)]
    TooManyHeaders,
    #[error("a request target of more than {} bytes", limits::HTTP_TARGET)]
    TargetTooLong,
    #[error("a malformed request line")]
    RequestLine,
    #[error("an HTTP version other than 1.0 and 1.1")]
    Version,
    #[error("a malformed header line")]
    HeaderLine,
    #[error("a line that does not end in CR LF")]
    LineEnd,
    #[error("no Host header, or more than one")]
    Host,
    #[error("a Host header or request target that names another host than the one dialled")]
    Misdirected,
    #[error("a request target in a form that this method or connection does not take")]
    TargetForm,
    #[error("a body whose length can be read two ways")]
    Framing,
    #[error("the method {0} is not carried")]
    Method(&'static str),
    #[error("an Expect header other than 100-continue")]
    Expect,
    #[error("a switch to a protocol (Upgrade) other than WebSocket alone is not carried")]
    Upgrade,
    #[error("a malformed request to switch to WebSocket")]
    WebSocket,
    #[error(
        "more than {} bytes behind a request to switch to WebSocket that was not answered yet",
        limits::HTTP_EARLY
    )]
    Early,
    #[error("a malformed chunk")]
    Chunk,
    #[error(
        "malformed trailers, or more than {} bytes of them",
        limits::HTTP_TRAILERS
    )]
    Trailers,
}

impl Refusal {
    /// The stable code of the event and of the `x-agentcontainer-blocked` header.
    pub fn code(self) -> &'static str {
        match self {
            Self::HeadTooLong | Self::TooManyHeaders | Self::TargetTooLong => "http-too-long",
            Self::RequestLine | Self::HeaderLine | Self::LineEnd => "http-malformed",
            Self::Version => "http-version",
            Self::Host => "http-host",
            Self::Misdirected => "host-mismatch",
            Self::TargetForm => "http-target",
            Self::Framing | Self::Chunk | Self::Trailers => "http-framing",
            Self::Method(_) => "http-method",
            Self::Expect => "http-expect",
            Self::Upgrade => "http-upgrade",
            Self::WebSocket | Self::Early => "http-websocket",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            Self::HeadTooLong | Self::TooManyHeaders => 431,
            Self::TargetTooLong => 414,
            Self::Version => 505,
            Self::Misdirected => 421,
            Self::Method(_) => 405,
            Self::Expect => 417,
            Self::Upgrade => 501,
            _ => 400,
        }
    }
}

/// Checks a head: everything up to and with the empty line, and nothing behind it.
pub fn check(head: &[u8], authority: &Authority) -> Result<Head, Refusal> {
    if head.len() > limits::HTTP_HEAD {
        return Err(Refusal::HeadTooLong);
    }
    let mut lines = Lines(head);
    let line = lines.next_line()?.ok_or(Refusal::RequestLine)?;
    let request = request_line(line)?;

    let mut fields = Fields::default();
    let mut count = 0;
    loop {
        let line = lines.next_line()?.ok_or(Refusal::HeaderLine)?;
        if line.is_empty() {
            break;
        }
        count += 1;
        if count > limits::HTTP_HEADERS {
            return Err(Refusal::TooManyHeaders);
        }
        let (name, value) = header_line(line)?;
        fields.take(name, value, request.minor)?;
    }
    if !lines.0.is_empty() {
        return Err(Refusal::HeaderLine);
    }

    let host = fields.host.ok_or(Refusal::Host)?;
    check_target(&request, host, authority)?;
    let framing = match (fields.length, fields.chunked) {
        (Some(_), true) => return Err(Refusal::Framing),
        (_, true) => Framing::Chunked,
        (length, false) => Framing::Length(length.unwrap_or(0)),
    };
    let websocket = match fields.upgrade {
        // An offer of HTTP/2 is an offer: it is dropped with the other hop-by-hop fields and HTTP/1.1 goes on.
        Upgrade::None | Upgrade::H2c => false,
        Upgrade::WebSocket => {
            let whole = request.method == "GET"
                && request.minor == 1
                && framing == Framing::Length(0)
                && fields.connection_upgrade
                && fields.keys == (1, true)
                && fields.versions == (1, true);
            if !whole {
                return Err(Refusal::WebSocket);
            }
            true
        }
        Upgrade::Other => return Err(Refusal::Upgrade),
    };
    Ok(Head { framing, websocket })
}

/// One field line without its line end, as (name, value without surrounding blanks). Also used for trailers.
pub fn header_line(line: &[u8]) -> Result<(&[u8], &[u8]), Refusal> {
    let colon = line
        .iter()
        .position(|&b| b == b':')
        .ok_or(Refusal::HeaderLine)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    // A blank before the colon, or at the start of the line (obsolete folding), is no token character.
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Refusal::HeaderLine);
    }
    if !value
        .iter()
        .all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f))
    {
        return Err(Refusal::HeaderLine);
    }
    Ok((name, trim(value)))
}

/// tchar of RFC 9110, 5.6.2.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Decimal digits only, no sign, at most five.
fn parse_port(text: &str) -> Option<u16> {
    (!text.is_empty() && text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()))
        .then(|| text.parse().ok())
        .flatten()
}

struct Lines<'a>(&'a [u8]);

impl<'a> Lines<'a> {
    /// The next line without its CR LF. A bare CR or LF anywhere is an error.
    fn next_line(&mut self) -> Result<Option<&'a [u8]>, Refusal> {
        let Some(end) = self.0.iter().position(|&b| b == b'\n' || b == b'\r') else {
            return Ok(None);
        };
        let (line, rest) = self.0.split_at(end);
        match rest {
            [b'\r', b'\n', rest @ ..] => {
                self.0 = rest;
                Ok(Some(line))
            }
            _ => Err(Refusal::LineEnd),
        }
    }
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a str,
    minor: u8,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let line = std::str::from_utf8(line).map_err(|_| Refusal::RequestLine)?;
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    if method.is_empty() || method.len() > 32 || !method.bytes().all(is_token) {
        return Err(Refusal::RequestLine);
    }
    if target.len() > limits::HTTP_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    check_characters(target)?;
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ if version.starts_with("HTTP/") => return Err(Refusal::Version),
        _ => return Err(Refusal::RequestLine),
    };
    check_method(method)?;
    Ok(RequestLine {
        method,
        target,
        minor,
    })
}

pub(super) fn check_method(method: &str) -> Result<(), Refusal> {
    match method.to_ascii_uppercase().as_str() {
        "CONNECT" => Err(Refusal::Method("CONNECT")),
        "TRACE" => Err(Refusal::Method("TRACE")),
        "TRACK" => Err(Refusal::Method("TRACK")),
        _ => Ok(()),
    }
}

/// A fragment does not belong on the wire, and nothing but visible ASCII does.
pub(super) fn check_characters(target: &str) -> Result<(), Refusal> {
    let fine = |b: u8| b.is_ascii_graphic() && b != b'#' && b != b'\\';
    if target.is_empty() || !target.bytes().all(fine) {
        return Err(Refusal::RequestLine);
    }
    Ok(())
}

/// Peers that take '_' for '-' would read these as the fields that decide where a request ends.
pub(super) fn is_framing_in_disguise(name: &[u8]) -> bool {
    name.contains(&b'_') && {
        let dashed: Vec<u8> = name
            .iter()
            .map(|&b| if b == b'_' { b'-' } else { b })
            .collect();
        ["content-length", "transfer-encoding"]
            .iter()
            .any(|field| dashed.eq_ignore_ascii_case(field.as_bytes()))
    }
}

fn check_target(
    request: &RequestLine<'_>,
    host: &str,
    authority: &Authority,
) -> Result<(), Refusal> {
    if !authority.is_named_by(host) {
        return Err(Refusal::Misdirected);
    }
    let target = request.target;
    if target.starts_with('/') {
        return Ok(());
    }
    if target == "*" {
        return if request.method == "OPTIONS" {
            Ok(())
        } else {
            Err(Refusal::TargetForm)
        };
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(Refusal::TargetForm);
    };
    if !scheme.eq_ignore_ascii_case(authority.scheme.as_str()) {
        return Err(Refusal::TargetForm);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    // Userinfo does not parse as a host, so it is a mismatch.
    if authority.is_named_by(&rest[..end]) {
        Ok(())
    } else {
        Err(Refusal::Misdirected)
    }
}

/// The fields that decide who is meant and where the request ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a str>,
    length: Option<u64>,
    chunked: bool,
    upgrade: Upgrade,
    connection_upgrade: bool,
    /// Sec-WebSocket-Key, Sec-WebSocket-Version: how many, and whether all are in order.
    keys: (usize, bool),
    versions: (usize, bool),
}

/// What the Upgrade fields ask for, all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Upgrade {
    #[default]
    None,
    H2c,
    WebSocket,
    Other,
}

impl<'a> Fields<'a> {
    fn take(&mut self, name: &[u8], value: &'a [u8], minor: u8) -> Result<(), Refusal> {
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("host") {
            let value = std::str::from_utf8(value).map_err(|_| Refusal::Host)?;
            if self.host.replace(value).is_some() {
                return Err(Refusal::Host);
            }
        } else if is("content-length") {
            let length = content_length(value).ok_or(Refusal::Framing)?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::Framing);
            }
        } else if is("transfer-encoding") {
            if self.chunked || minor == 0 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::Framing);
            }
            self.chunked = true;
        } else if is("expect") {
            if !value.eq_ignore_ascii_case(b"100-continue") {
                return Err(Refusal::Expect);
            }
        } else if is("upgrade") {
            self.upgrade = match self.upgrade {
                Upgrade::None if value.eq_ignore_ascii_case(b"h2c") => Upgrade::H2c,
                Upgrade::None if value.eq_ignore_ascii_case(b"websocket") => Upgrade::WebSocket,
                _ => Upgrade::Other,
            };
        } else if is("connection") {
            self.connection_upgrade |= websocket::lists_upgrade(value);
        } else if is("sec-websocket-key") {
            self.keys = (self.keys.0 + 1, Key::parse(value).is_some());
        } else if is("sec-websocket-version") {
            self.versions = (self.versions.0 + 1, value == websocket::VERSION);
        } else if is_framing_in_disguise(name) {
            return Err(Refusal::Framing);
        }
        Ok(())
    }
}

/// Digits only; anything from 10^18 on is refused before it could wrap anywhere.
pub(super) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests;
