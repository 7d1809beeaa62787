//! Requests of HTTP/2 that no library would send, in raw frames: each is refused, or heard as what was decided on, by a server of
//! HTTP/1.1 and by one of HTTP/2; a body that is not what its head says never looks whole; and a client beside goes on.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::harness::{PolicyBuilder, upstream};
use crate::http::{OK, read_request};
use crate::https::{NAME, Scene, Seen, World, speak};
use crate::two::*;

/// What a server heard: of each request that came to its end its head's lines and its body, as HTTP/1.1 spells them.
type Whole = Arc<Mutex<Vec<String>>>;

/// A client that behaves, on a connection of its own.
struct Beside {
    sender: SendRequest<Empty<Bytes>>,
    port: u16,
}

impl Beside {
    async fn new(scene: &Scene) -> Self {
        let stream = TokioIo::new(speak(scene, b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        let port = scene.port;
        Self { sender, port }
    }

    /// It is served, and its request heard as it is, behind `before`.
    async fn goes_on(&mut self, what: &str, whole: &Whole, before: &[String]) {
        let uri = format!("https://{NAME}:{}/beside", self.port);
        let request = Request::builder().uri(uri).body(Empty::new()).unwrap();
        let answer =
            tokio::time::timeout(Duration::from_secs(10), self.sender.send_request(request));
        let answer = answer.await.expect(what).expect(what);
        assert_eq!(answer.status(), 200, "{what}");
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "ok");
        let mut heard = std::mem::take(&mut *whole.lock().unwrap());
        let last = heard.pop().unwrap();
        let host = format!("host: {NAME}:{}", self.port);
        assert_eq!(last, format!("GET /beside\n{host}\n\n"), "{what}");
        assert_eq!(heard, before, "{what}");
    }
}

/// A server of HTTP/1.1 that keeps every request.
async fn server_of_one(world: &World) -> (u16, Whole) {
    let whole = Whole::default();
    let acceptor = TlsAcceptor::from(Arc::new(world.certified(NAME, |_| {})));
    let kept = Arc::clone(&whole);
    let port = upstream(move |stream| {
        let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut buffer = Vec::new();
            while let Some(request) = read_request(&mut stream, &mut buffer).await {
                kept.lock().unwrap().push(of_one(&request));
                if stream.write_all(OK.as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (port, whole)
}

/// The lines of a head with the fields in order, then the body.
fn spelt(line: &str, mut fields: Vec<String>, body: &str) -> String {
    fields.sort();
    format!("{line}\n{}\n\n{body}", fields.join("\n"))
}

fn of_one(request: &str) -> String {
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let line = lines.next().unwrap();
    let line = line.strip_suffix(" HTTP/1.1").unwrap();
    spelt(line, lines.collect(), body)
}

/// The same of HTTP/2: what was no request to its library is not kept.
async fn server_of_two(world: &World) -> (u16, Whole) {
    let whole = Whole::default();
    let mut config = world.certified(NAME, |_| {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let kept = Arc::clone(&whole);
    let port = upstream(move |stream| {
        let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| {
                let kept = Arc::clone(&kept);
                async move {
                    let (head, body) = request.into_parts();
                    let uri = &head.uri;
                    let mut fields = vec![format!("host: {}", uri.authority().unwrap())];
                    for (name, value) in &head.headers {
                        let value: String = value.as_bytes().iter().map(|&b| b as char).collect();
                        fields.push(format!("{name}: {value}"));
                    }
                    let line = format!("{} {}", head.method, uri.path_and_query().unwrap());
                    let body = body.collect().await?.to_bytes();
                    let body = String::from_utf8_lossy(&body);
                    kept.lock().unwrap().push(spelt(&line, fields, &body));
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::from("ok"))))
                }
            });
            let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        }
    })
    .await;
    (port, whole)
}

/// A session with a server of that version, and a client beside.
async fn scene(two: bool) -> (Scene, Whole, Beside) {
    let world = World::new();
    let (port, whole) = match two {
        false => server_of_one(&world).await,
        true => server_of_two(&world).await,
    };
    let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    let scene = Scene::of(&world, policy, port, Seen::default()).await;
    let mut beside = Beside::new(&scene).await;
    beside.goes_on("a server that behaves", &whole, &[]).await;
    (scene, whole, beside)
}

/// What comes back on stream 1 of a new connection.
async fn asked(scene: &Scene, frames: &[u8]) -> Answers {
    let mut stream = speak(scene, b"h2").await;
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frames);
    // It may be refused in the middle.
    let _ = stream.write_all(&bytes).await;
    let _ = stream.flush().await;
    Answers::read(&mut stream, [1]).await
}

/// Refused in words, with the status; or by an end of the stream or the connection (0).
fn refusal(what: &str, answers: &Answers) -> u16 {
    let answer = &answers.streams[&1];
    match (answer.status, answer.end) {
        (Some(status), Some(End::Whole)) => status,
        (_, Some(End::Reset(_))) => 0,
        _ if answers.closed || answers.farewell.is_some() => 0,
        _ => panic!("{what}: nobody says anything: {answers:?}"),
    }
}

type Owned = Vec<(Vec<u8>, Vec<u8>)>;

/// A request that is in order, for this authority.
fn request(method: &str, authority: &str) -> Owned {
    [
        (":method", method),
        (":scheme", "https"),
        (":authority", authority),
        (":path", "/x"),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .to_vec()
}

fn encoded(fields: &Owned) -> Vec<u8> {
    let fields: Vec<(&[u8], &[u8])> = fields
        .iter()
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect();
    block(&fields)
}

/// What is done to a request's fields; it knows the authority.
type Change = Box<dyn Fn(&mut Owned, &str)>;

fn set(name: &'static str, value: &'static str) -> Change {
    Box::new(move |fields, authority| {
        let field = fields.iter_mut().find(|field| field.0 == name.as_bytes());
        field.unwrap().1 = value.replace("HERE", authority).into_bytes();
    })
}

fn add(name: &'static str, value: &'static str) -> Change {
    Box::new(move |fields, authority| {
        let value = value.replace("HERE", authority).into_bytes();
        fields.push((name.into(), value));
    })
}

fn without(name: &'static str) -> Change {
    Box::new(move |fields, _| fields.retain(|field| field.0 != name.as_bytes()))
}

fn late(name: &'static str) -> Change {
    Box::new(move |fields, _| {
        let at = fields.iter().position(|field| field.0 == name.as_bytes());
        let field = fields.remove(at.unwrap());
        fields.extend([("x-a".into(), "b".into()), field]);
    })
}

fn many(count: usize, bytes: usize) -> Change {
    Box::new(move |fields, _| {
        let field = |n| (format!("x-{n}").into(), vec![b'a'; bytes]);
        fields.extend((0..count).map(field));
    })
}

/// Each with the status of its refusal.
fn refused() -> Vec<(&'static str, Change, u16)> {
    vec![
        ("a line in a value", add("x-a", "b\r\nx-evil: c"), 0),
        (
            "a request in a value",
            add("x-a", "b\r\n\r\nGET /evil HTTP/1.1\r\nhost: HERE\r\n\r\n"),
            0,
        ),
        ("a bare LF in a value", add("x-a", "b\nx-evil: c"), 0),
        ("a bare CR in a value", add("x-a", "b\rc"), 0),
        ("a NUL in a value", add("x-a", "b\0c"), 0),
        ("a DEL in a value", add("x-a", "b\u{7f}c"), 0),
        ("a blank before a value", add("x-a", " b"), 400),
        ("a blank behind a value", add("x-a", "b\t"), 400),
        ("a name in upper case", add("X-A", "b"), 0),
        ("a name with a blank", add("x a", "b"), 0),
        ("a name with a colon", add("x-a:", "b"), 0),
        ("a line in a name", add("x-a: b\r\nx-evil", "c"), 0),
        ("a name of no characters", add("", "b"), 0),
        ("a name beyond ASCII", add("é", "b"), 0),
        ("two methods", add(":method", "GET"), 0),
        ("two paths", add(":path", "/evil"), 0),
        ("two schemes", add(":scheme", "https"), 0),
        ("two authorities", add(":authority", "evil.example"), 0),
        ("a method behind a field", late(":method"), 0),
        ("a path behind a field", late(":path"), 0),
        ("an authority behind a field", late(":authority"), 0),
        ("a pseudo-field that nobody knows", add(":foo", "bar"), 0),
        ("a pseudo-field without a name", add(":", "bar"), 0),
        ("a status in a request", add(":status", "200"), 0),
        (
            "a protocol without CONNECT",
            add(":protocol", "websocket"),
            0,
        ),
        ("no method", without(":method"), 0),
        ("no scheme", without(":scheme"), 0),
        ("no path", without(":path"), 0),
        ("no authority", without(":authority"), 400),
        ("connection", add("connection", "close"), 0),
        (
            "connection that names another",
            add("connection", "content-length"),
            0,
        ),
        ("keep-alive", add("keep-alive", "timeout=5"), 0),
        ("proxy-connection", add("proxy-connection", "close"), 0),
        ("transfer-encoding", add("transfer-encoding", "chunked"), 0),
        (
            "transfer-encoding in disguise",
            add("transfer_encoding", "chunked"),
            400,
        ),
        (
            "content-length in disguise",
            add("content_length", "5"),
            400,
        ),
        ("upgrade", add("upgrade", "h2c"), 0),
        ("te other than trailers", add("te", "trailers, gzip"), 0),
        ("expect", add("expect", "200-ok"), 417),
        (
            "two hosts",
            Box::new(|fields, here| {
                fields.extend([("host".into(), here.into()), ("host".into(), here.into())]);
            }),
            400,
        ),
        ("another host", add("host", "evil.example"), 421),
        ("a host with a line", add("host", "HERE\r\nx-evil: c"), 0),
        (
            "a host with another",
            add("host", "HERE, evil.example"),
            421,
        ),
        ("another authority", set(":authority", "evil.example"), 421),
        (
            "an authority with userinfo",
            set(":authority", "evil@HERE"),
            421,
        ),
        (
            "an authority of two",
            set(":authority", "HERE, evil.example"),
            0,
        ),
        (
            "an authority with a path",
            set(":authority", "HERE/evil"),
            0,
        ),
        (
            "an authority with a line",
            set(":authority", "HERE\r\nx-evil: c"),
            0,
        ),
        ("an authority of no characters", set(":authority", ""), 0),
        ("an absolute path", set(":path", "https://HERE/x"), 0),
        (
            "an absolute path elsewhere",
            set(":path", "https://evil.example/x"),
            0,
        ),
        ("a path of no characters", set(":path", ""), 0),
        ("a path without its slash", set(":path", "x"), 0),
        ("a query without a path", set(":path", "?x"), 400),
        ("an asterisk that is no OPTIONS", set(":path", "*"), 400),
        (
            "a version in the path",
            set(":path", "/x HTTP/1.1\r\nx-evil: c\r\n"),
            0,
        ),
        ("a blank in the path", set(":path", "/x y"), 0),
        ("a backslash in the path", set(":path", "/x\\y"), 400),
        ("a NUL in the path", set(":path", "/x\0"), 0),
        ("a letter beyond ASCII in the path", set(":path", "/é"), 400),
        ("another scheme", set(":scheme", "http"), 400),
        (
            "a scheme with an authority",
            set(":scheme", "https://evil.example/?"),
            0,
        ),
        ("a method with a blank", set(":method", "GET /evil"), 0),
        (
            "a method with a line",
            set(":method", "GET / HTTP/1.1\r\nx-evil: c\r\n"),
            0,
        ),
        ("a method of no characters", set(":method", ""), 0),
        ("TRACE", set(":method", "TRACE"), 405),
        ("trace", set(":method", "trace"), 405),
        (
            "CONNECT",
            Box::new(|fields, here| {
                *fields = vec![
                    (":method".into(), "CONNECT".into()),
                    (":authority".into(), here.into()),
                ];
            }),
            405,
        ),
        (
            "CONNECT elsewhere",
            Box::new(|fields, _| {
                *fields = vec![
                    (":method".into(), "CONNECT".into()),
                    (":authority".into(), "evil.example:443".into()),
                ];
            }),
            405,
        ),
        ("CONNECT with a path", set(":method", "CONNECT"), 0),
        (
            "more fields than there may be",
            many(gateway::limits::HTTP_HEADERS + 1, 1),
            431,
        ),
        ("more bytes than there may be", many(40, 2000), 431),
        ("many more bytes", many(200, 4000), 0),
        (
            "two lengths that agree",
            Box::new(|fields, _| {
                let field = || ("content-length".into(), "0".into());
                fields.extend([field(), field()]);
            }),
            400,
        ),
        ("a length with a sign", add("content-length", "+0"), 0),
        ("a length of two", add("content-length", "0, 0"), 0),
        ("a length of no digits", add("content-length", ""), 400),
        ("a length with a blank", add("content-length", " 0"), 0),
        (
            "a length with a line",
            add("content-length", "0\r\nx-evil: c"),
            0,
        ),
        ("a length of no body", add("content-length", "5"), 0),
        (
            "a length beyond all bounds",
            add("content-length", "18446744073709551616"),
            0,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_library_would_send_is_refused_and_not_heard_of() {
    for two in [false, true] {
        let (scene, whole, mut beside) = scene(two).await;
        let here = format!("{NAME}:{}", scene.port);
        let mut wrong = Vec::new();
        for (what, change, status) in refused() {
            let mut fields = request("GET", &here);
            change(&mut fields, &here);
            let answers = asked(&scene, &head(1, true, &encoded(&fields), 16_000)).await;
            let got = refusal(what, &answers);
            if got != status {
                wrong.push(format!("{what}: {got}, not {status}"));
            }
            assert!(got == 0 || got >= 400, "{what}: {got}");
            beside.goes_on(what, &whole, &[]).await;
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_carried_is_heard_as_it_was_decided_on() {
    let n = gateway::limits::HTTP_HEADERS;
    for two in [false, true] {
        let (scene, whole, mut beside) = scene(two).await;
        let here = format!("{NAME}:{}", scene.port);
        let host = format!("host: {here}");
        let cookies = if two {
            "cookie: a=1\ncookie: b=2"
        } else {
            "cookie: a=1; b=2"
        };
        let carried: Vec<(&str, Change, String)> = vec![
            (
                "as it is",
                Box::new(|_, _| {}),
                format!("GET /x\n{host}\n\n"),
            ),
            (
                "its own host",
                add("host", "HERE"),
                format!("GET /x\n{host}\n\n"),
            ),
            (
                "an authority in upper case",
                Box::new(|fields, here| fields[2].1 = here.to_ascii_uppercase().into_bytes()),
                format!("GET /x\n{host}\n\n"),
            ),
            // What stands behind it is nobody's (RFC 9113, 8.3.1): gone before anything is decided.
            (
                "a fragment",
                set(":path", "/y?z#/../x"),
                format!("GET /y?z\n{host}\n\n"),
            ),
            (
                "nothing but a fragment",
                set(":path", "#/y"),
                format!("GET /\n{host}\n\n"),
            ),
            (
                "two slashes",
                set(":path", "//evil.example/x"),
                format!("GET //evil.example/x\n{host}\n\n"),
            ),
            (
                "crumbs",
                Box::new(|fields, _| {
                    let crumb = |crumb: &str| ("cookie".into(), crumb.into());
                    fields.extend([crumb("a=1"), ("x-a".into(), "b".into()), crumb("b=2")]);
                }),
                format!("GET /x\n{cookies}\n{host}\nx-a: b\n\n"),
            ),
            (
                "expect",
                add("expect", "100-continue"),
                format!("GET /x\n{host}\n\n"),
            ),
            (
                "trailer",
                add("trailer", "content-length"),
                format!("GET /x\n{host}\n\n"),
            ),
            (
                "a settings field",
                add("http2-settings", "AAMAAABk"),
                format!("GET /x\n{host}\n\n"),
            ),
            ("as many fields as there may be", many(n, 1), {
                let mut fields: Vec<_> = (0..n).map(|n| format!("x-{n}: a")).collect();
                fields.push(host.clone());
                spelt("GET /x", fields, "")
            }),
        ];
        for (what, change, heard) in carried {
            let mut fields = request("GET", &here);
            change(&mut fields, &here);
            // The head in pieces: one frame for each few bytes of it.
            for most in [16_000, 7.max(encoded(&fields).len() / 4)] {
                let answers = asked(&scene, &head(1, true, &encoded(&fields), most)).await;
                assert_eq!(refusal(what, &answers), 200, "{what} {most}");
                beside
                    .goes_on(what, &whole, std::slice::from_ref(&heard))
                    .await;
            }
        }
    }
}

/// A request with a body whose length its head says, in as many frames as there are pieces; trailers end it.
fn posted(here: &str, length: Option<&str>, pieces: &[&str], trailers: Option<&Fields>) -> Vec<u8> {
    let mut fields = request("POST", here);
    if let Some(length) = length {
        fields.push(("content-length".into(), length.into()));
    }
    let mut out = head(1, false, &encoded(&fields), 16_000);
    for (n, piece) in pieces.iter().enumerate() {
        let last = n + 1 == pieces.len() && trailers.is_none();
        let end = if last { END_STREAM } else { 0 };
        out.extend(frame(DATA, end, 1, piece.as_bytes()));
    }
    if let Some(trailers) = trailers {
        out.extend(head(1, true, &block(trailers), 16_000));
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_is_not_what_its_head_says_never_looks_whole() {
    for two in [false, true] {
        let (scene, whole, mut beside) = scene(two).await;
        let here = format!("{NAME}:{}", scene.port);
        let evil = format!("GET /evil HTTP/1.1\r\nhost: {here}\r\n\r\n");
        for (what, bytes) in [
            (
                "more than it says",
                posted(&here, Some("5"), &["hello", &evil], None),
            ),
            ("more at once", posted(&here, Some("2"), &["hello"], None)),
            (
                "more than nothing",
                posted(&here, Some("0"), &[&evil], None),
            ),
            ("less", posted(&here, Some("100"), &[&evil], None)),
            (
                "less, in pieces",
                posted(&here, Some("6"), &["he", "llo"], None),
            ),
            (
                "less, and trailers",
                posted(&here, Some("6"), &["hello"], Some(&[(b"x-a", b"b")])),
            ),
            (
                "trailers with a line",
                posted(&here, None, &["hello"], Some(&[(b"x-a", b"b\r\nc: d")])),
            ),
            (
                "trailers in upper case",
                posted(&here, None, &["hello"], Some(&[(b"X-A", b"b")])),
            ),
            (
                "trailers of a neighbour",
                posted(
                    &here,
                    None,
                    &["hello"],
                    Some(&[(b"transfer-encoding", b"chunked")]),
                ),
            ),
            ("a reset", {
                let mut bytes = posted(&here, None, &["hello", "more"], Some(&[]));
                bytes.truncate(bytes.len() - 9);
                bytes.extend(frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]));
                bytes
            }),
            ("padding that is longer than its frame", {
                let mut bytes = posted(&here, None, &["hello"], Some(&[]));
                bytes.truncate(bytes.len() - 9);
                bytes.extend(frame(DATA, PADDED | END_STREAM, 1, &[200, b'x']));
                bytes
            }),
            ("another head", {
                let mut bytes = posted(&here, None, &["hello"], Some(&[]));
                bytes.truncate(bytes.len() - 9);
                bytes.extend(head(1, false, &encoded(&request("GET", &here)), 16_000));
                bytes
            }),
        ] {
            let answers = asked(&scene, &bytes).await;
            let got = refusal(what, &answers);
            assert!(got == 0 || got >= 400, "{what}: {got}");
            beside.goes_on(what, &whole, &[]).await;
        }
        // The control: what is what its head says.
        let host = format!("host: {here}");
        let said = format!("POST /x\ncontent-length: 5\n{host}\n\nhello");
        let chunked = match two {
            true => format!("POST /x\n{host}\n\nhello"),
            false => {
                format!("POST /x\n{host}\ntransfer-encoding: chunked\n\n5\r\nhello\r\n0\r\n\r\n")
            }
        };
        let forbidden: &Fields = &[(b"content-length", b"7"), (b"host", b"evil.example")];
        let path: &Fields = &[(b":path", b"/evil")];
        for (what, bytes, heard) in [
            (
                "as it says",
                posted(&here, Some("5"), &["hello"], None),
                &said,
            ),
            (
                "as it says, oddly",
                posted(&here, Some("005"), &["hello"], None),
                &said,
            ),
            (
                "of a length unsaid",
                posted(&here, None, &["hello"], None),
                &chunked,
            ),
            (
                "trailers that say nothing",
                posted(&here, None, &["hello"], Some(forbidden)),
                &chunked,
            ),
            (
                "trailers with a path",
                posted(&here, None, &["hello"], Some(path)),
                &chunked,
            ),
        ] {
            let answers = asked(&scene, &bytes).await;
            assert_eq!(refusal(what, &answers), 200, "{what}");
            beside
                .goes_on(what, &whole, std::slice::from_ref(heard))
                .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_whose_stream_is_reset_never_looks_whole() {
    for two in [false, true] {
        let (scene, whole, mut beside) = scene(two).await;
        let here = format!("{NAME}:{}", scene.port);
        // NO_ERROR, INTERNAL_ERROR, CANCEL.
        for code in [0, 2, 8] {
            let mut stream = speak(&scene, b"h2").await;
            let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
            bytes.extend(head(1, false, &encoded(&request("POST", &here)), 16_000));
            bytes.extend(frame(DATA, 0, 1, b"half"));
            stream.write_all(&bytes).await.unwrap();
            stream.flush().await.unwrap();
            // What came of it is on its way already.
            tokio::time::sleep(Duration::from_millis(300)).await;
            let reset = frame(RST_STREAM, 0, 1, &[0, 0, 0, code]);
            stream.write_all(&reset).await.unwrap();
            stream.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
            let what = format!("a reset that says {code}");
            beside.goes_on(&what, &whole, &[]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_without_end_ends_its_own_connection() {
    let (scene, whole, mut beside) = scene(true).await;
    let here = format!("{NAME}:{}", scene.port);
    let begun = frame(HEADERS, END_STREAM, 1, &encoded(&request("GET", &here)));
    let mut field = Vec::new();
    literal(0, b"x-a", &[b'a'; 1000], &mut field);
    for (what, piece) in [
        ("fields", frame(CONTINUATION, 0, 1, &field)),
        ("nothing", frame(CONTINUATION, 0, 1, &[])),
        // Between the pieces of a head nothing else may come (RFC 9113, 4.3).
        ("pings", frame(PING, 0, 0, &[0; 8])),
    ] {
        let mut stream = speak(&scene, b"h2").await;
        let bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &begun].concat();
        stream.write_all(&bytes).await.unwrap();
        let pieces = piece.repeat(100);
        let sending = async {
            let mut sent = 0;
            while sent < 256 << 20 && stream.write_all(&pieces).await.is_ok() {
                sent += pieces.len();
            }
            sent
        };
        let sent = tokio::time::timeout(Duration::from_secs(20), sending).await;
        let sent = sent.unwrap_or_else(|_| panic!("{what}: nobody ends it"));
        assert!(sent < 256 << 20, "{what}: it takes all of them");
        beside.goes_on(what, &whole, &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_of_which_nothing_goes_on_are_none() {
    let world = World::new();
    let mut config = world.certified(NAME, |_| {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let heard: Arc<Mutex<Vec<(u8, u8)>>> = Arc::default();
    let kept = Arc::clone(&heard);
    let port = upstream(move |stream| {
        let (acceptor, kept) = (acceptor.clone(), Arc::clone(&kept));
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let _ = stream.read_exact(&mut [0; 24]).await;
            let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
            while let Some(got) = read_frame(&mut stream).await {
                if got.stream != 0 {
                    kept.lock()
                        .unwrap()
                        .push((got.kind, got.flags & END_STREAM));
                    if got.flags & END_STREAM != 0 {
                        let _ = stream.write_all(&head(got.stream, true, &[0x88], 9)).await;
                    }
                }
                let _ = stream.flush().await;
            }
        }
    })
    .await;
    let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    let scene = Scene::of(&world, policy, port, Seen::default()).await;
    let here = format!("{NAME}:{port}");
    for (name, ends) in [(&b"x-sum"[..], HEADERS), (b"content-length", DATA)] {
        let frames = posted(&here, None, &["hello"], Some(&[(name, b"7")]));
        let answers = asked(&scene, &frames).await;
        assert_eq!(refusal("trailers", &answers), 200);
        let heard = std::mem::take(&mut *heard.lock().unwrap());
        // What it ends with, and one head besides.
        assert_eq!(heard.last(), Some(&(ends, END_STREAM)), "{heard:?}");
        let heads = heard.iter().filter(|frame| frame.0 == HEADERS).count();
        assert_eq!(heads, if ends == HEADERS { 2 } else { 1 }, "{heard:?}");
    }
}
