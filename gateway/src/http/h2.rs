//! A client connection that speaks HTTP/2: hyper ends it, and each request's pseudo-header fields and fields are held to the
//! same strictness as a head on the wire (RFC 9113, 8; escape-attempts D12 to D14) before anybody answers. A refusal is
//! that stream's alone. Called by `http::serve`.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framer::Refused;
use super::head::{self, Authority, Refusal, content_length};
use super::serve::{self, Body, Client, Site, page_response, refuse, respond};
use super::websocket::{self, Handover, Key};
use crate::limits;
use crate::relay::{Carried, rested};
use crate::wire::Wire;

/// Fields that HTTP/2 has no use for (RFC 9113, 8.2.2).
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Serves streams until the client has no more or nothing moves for too long.
pub async fn serve<W: Wire>(
    stream: W,
    client: Arc<Client>,
    site: Arc<Site>,
    carried: Arc<Carried>,
) -> &'static str {
    let patience = client.shared.patience;
    let metered = Metered {
        stream,
        carried: Arc::clone(&carried),
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let (client, site) = (Arc::clone(&client), Arc::clone(&site));
        async move { Ok::<_, Infallible>(answer(&client, site, request).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits::H2_STREAMS)
        .enable_connect_protocol()
        .max_header_list_size(limits::HTTP_HEAD as u32)
        .max_send_buf_size(limits::H2_SEND_BUFFER)
        .initial_stream_window_size(limits::H2_STREAM_WINDOW)
        .initial_connection_window_size(limits::H2_CONNECTION_WINDOW)
        .serve_connection(TokioIo::new(metered), service);
    tokio::select! {
        biased;
        result = connection => if result.is_ok() { "closed" } else { "reset" },
        () = rested(&carried, patience) => "idle-timeout",
    }
}

async fn answer(client: &Client, site: Arc<Site>, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    if let Err(refusal) = check(&parts, &client.authority) {
        let line = format!("{} {}", parts.method, parts.uri);
        let refused = Refused {
            refusal,
            request_line: Some(crate::events::bounded(&line, limits::RECORDED_URL)),
        };
        return page_response(refuse(client, &site, &refused));
    }
    let request = Request::from_parts(parts, body);
    if *request.method() == Method::CONNECT {
        connect(client, site, request).await
    } else {
        respond(client, &site, request).await
    }
}

/// A WebSocket on one stream (RFC 8441, 5): asked for and decided about as the request of HTTP/1 that it stands for.
async fn connect(
    client: &Client,
    site: Arc<Site>,
    mut request: Request<Incoming>,
) -> Response<Body> {
    let stream = hyper::upgrade::on(&mut request);
    *request.method_mut() = Method::GET;
    let Some(key) = Key::random() else {
        let mut response = Response::new(serve::nothing());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return response;
    };
    key.ask(request.headers_mut());
    let mut response = respond(client, &site, request).await;
    if let Some(switched) = Handover::take(&mut response) {
        let shared = Arc::clone(&client.shared);
        tokio::spawn(async move {
            // Held, so that whoever takes the right away knows when this has ended.
            let _site = site;
            if let Ok(stream) = stream.await {
                let stream = websocket::Stream::new(stream);
                let carried = Carried::default();
                let (pipes, patience) = (&shared.pipes, shared.patience);
                switched
                    .carry(stream, Vec::new(), &carried, pipes, patience)
                    .await;
            }
        });
        *response.status_mut() = StatusCode::OK;
        for name in [
            header::CONNECTION,
            header::UPGRADE,
            header::SEC_WEBSOCKET_ACCEPT,
        ] {
            response.headers_mut().remove(name);
        }
    }
    response
}

/// Holds a request of HTTP/2 to what `head` holds one of HTTP/1 to.
pub fn check(parts: &Parts, authority: &Authority) -> Result<(), Refusal> {
    match parts.extensions.get::<Protocol>() {
        Some(protocol) if parts.method == Method::CONNECT => {
            if protocol.as_str() != "websocket" {
                return Err(Refusal::Upgrade);
            }
            let mut versions = parts.headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
            match (versions.next(), versions.next()) {
                (Some(version), None) if version.as_bytes() == websocket::VERSION => {}
                _ => return Err(Refusal::WebSocket),
            }
        }
        _ => head::check_method(parts.method.as_str())?,
    }
    let uri = &parts.uri;
    if uri.scheme_str() != Some(authority.scheme.as_str()) {
        return Err(Refusal::TargetForm);
    }
    // Userinfo does not parse as a host, so it is a mismatch.
    let named = uri.authority().ok_or(Refusal::Host)?;
    if !authority.is_named_by(named.as_str()) {
        return Err(Refusal::Misdirected);
    }
    let target = uri.path_and_query().ok_or(Refusal::TargetForm)?.as_str();
    if target.len() > limits::HTTP_TARGET {
        return Err(Refusal::TargetTooLong);
    }
    head::check_characters(target)?;
    let asterisk = target == "*" && parts.method == hyper::Method::OPTIONS;
    if !target.starts_with('/') && !asterisk {
        return Err(Refusal::TargetForm);
    }
    check_fields(&parts.headers, authority)
}

fn check_fields(headers: &HeaderMap, authority: &Authority) -> Result<(), Refusal> {
    if headers.len() > limits::HTTP_HEADERS {
        return Err(Refusal::TooManyHeaders);
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (None, _) => {}
        (Some(host), None) => {
            let host = host.to_str().map_err(|_| Refusal::Host)?;
            if !authority.is_named_by(host) {
                return Err(Refusal::Misdirected);
            }
        }
        (Some(_), Some(_)) => return Err(Refusal::Host),
    }
    if CONNECTION_SPECIFIC
        .iter()
        .any(|name| headers.contains_key(name))
    {
        return Err(Refusal::HeaderLine);
    }
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lengths.next(), lengths.next()) {
        (None, _) => {}
        (Some(length), None) if content_length(length.as_bytes()).is_some() => {}
        _ => return Err(Refusal::Framing),
    }
    let trailers_alone =
        |value: &hyper::header::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"trailers");
    if !headers.get_all(header::TE).iter().all(trailers_alone) {
        return Err(Refusal::HeaderLine);
    }
    for (name, value) in headers {
        if head::is_framing_in_disguise(name.as_str().as_bytes()) {
            return Err(Refusal::Framing);
        }
        if *name == header::EXPECT && !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(Refusal::Expect);
        }
        // What a head of HTTP/1 could not carry as it is: blanks around a value are none of it there, and malformed here
        // (RFC 9113, 8.2.1).
        let value = value.as_bytes();
        let carried = value
            .iter()
            .all(|&b| b == b'\t' || (b >= b' ' && b != 0x7f));
        if !carried || value != value.trim_ascii() {
            return Err(Refusal::HeaderLine);
        }
    }
    Ok(())
}

/// A connection whose bytes are counted, and whose close is orderly once HTTP/2 has said its last word.
struct Metered<W> {
    stream: W,
    carried: Arc<Carried>,
}

impl<W: Wire> AsyncRead for Metered<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        let read = (buf.filled().len() - before) as u64;
        self.carried.bytes_out.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<W: Wire> AsyncWrite for Metered<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.carried.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.carried.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.stream.disarm();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::head::{Host, Scheme};
    use super::*;
    use schema::host::HostName;

    fn checked(method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let authority = Authority {
            host: Host::Name(HostName::parse("example.com").unwrap()),
            port: 443,
            scheme: Scheme::Https,
        };
        check(&parts, &authority)
    }

    #[test]
    fn what_is_in_order_passes() {
        for (method, uri, fields) in [
            ("GET", "https://example.com/", &[][..]),
            (
                "GET",
                "https://EXAMPLE.com:443/a?b",
                &[("host", "example.com")],
            ),
            ("OPTIONS", "https://example.com/*", &[]),
            (
                "POST",
                "https://example.com/",
                &[("te", "trailers"), ("content-length", "5")],
            ),
            (
                "PUT",
                "https://example.com/",
                &[("expect", "100-continue"), ("cookie", "a"), ("cookie", "b")],
            ),
            (
                "GET",
                "https://example.com/",
                &[("x-a", ""), ("x-b", "b\tc d")],
            ),
        ] {
            assert_eq!(
                checked(method, uri, fields),
                Ok(()),
                "{method} {uri} {fields:?}"
            );
        }
    }

    #[test]
    fn what_two_could_read_two_ways_is_refused() {
        let root = "https://example.com/";
        for (method, uri, fields, refusal) in [
            ("CONNECT", root, &[][..], Refusal::Method("CONNECT")),
            ("TRACE", root, &[], Refusal::Method("TRACE")),
            ("GET", "http://example.com/", &[], Refusal::TargetForm),
            ("GET", "/", &[], Refusal::TargetForm),
            (
                "GET",
                "https://example.com:8443/",
                &[],
                Refusal::Misdirected,
            ),
            ("GET", "https://evil.example/", &[], Refusal::Misdirected),
            (
                "GET",
                "https://evil@example.com/",
                &[],
                Refusal::Misdirected,
            ),
            (
                "GET",
                "https://example.com./",
                &[("host", "evil.example")],
                Refusal::Misdirected,
            ),
            (
                "GET",
                root,
                &[("host", "example.com"), ("host", "example.com")],
                Refusal::Host,
            ),
            ("GET", root, &[("connection", "x")], Refusal::HeaderLine),
            (
                "GET",
                root,
                &[("transfer-encoding", "chunked")],
                Refusal::HeaderLine,
            ),
            (
                "GET",
                root,
                &[("upgrade", "websocket")],
                Refusal::HeaderLine,
            ),
            ("GET", root, &[("te", "gzip")], Refusal::HeaderLine),
            (
                "GET",
                root,
                &[("te", "trailers, gzip")],
                Refusal::HeaderLine,
            ),
            (
                "POST",
                root,
                &[("content-length", "5"), ("content-length", "5")],
                Refusal::Framing,
            ),
            ("POST", root, &[("content-length", "+5")], Refusal::Framing),
            ("POST", root, &[("content_length", "5")], Refusal::Framing),
            (
                "POST",
                root,
                &[("transfer_encoding", "chunked")],
                Refusal::Framing,
            ),
            ("POST", root, &[("expect", "200-ok")], Refusal::Expect),
            ("GET", root, &[("x-a", " b")], Refusal::HeaderLine),
            ("GET", root, &[("x-a", "b\t")], Refusal::HeaderLine),
            ("GET", root, &[("x-a", " ")], Refusal::HeaderLine),
        ] {
            assert_eq!(
                checked(method, uri, fields),
                Err(refusal),
                "{method} {uri} {fields:?}"
            );
        }
    }

    #[test]
    fn fields_and_targets_have_the_bounds_of_a_head() {
        let fields: Vec<(String, &str)> = (0..=limits::HTTP_HEADERS)
            .map(|n| (format!("x-{n}"), "1"))
            .collect();
        let borrowed: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), *v)).collect();
        let uri = "https://example.com/";
        assert_eq!(
            checked("GET", uri, &borrowed[..limits::HTTP_HEADERS]),
            Ok(())
        );
        assert_eq!(checked("GET", uri, &borrowed), Err(Refusal::TooManyHeaders));
        let long = |n: usize| format!("https://example.com/{}", "a".repeat(n - 1));
        assert_eq!(checked("GET", &long(limits::HTTP_TARGET), &[]), Ok(()));
        assert_eq!(
            checked("GET", &long(limits::HTTP_TARGET + 1), &[]),
            Err(Refusal::TargetTooLong)
        );
    }
}
