//! `http` rules, the page of what is denied, and the internal page (D12 to D14, D18, D22).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Kind, Verdict};
use schema::net::Protocol;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// What an upstream heard, request by request, and on how many connections.
#[derive(Clone, Default)]
pub struct Heard {
    pub requests: Arc<Mutex<Vec<String>>>,
    pub connections: Arc<Mutex<usize>>,
}

impl Heard {
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// An upstream that answers every request with these bytes; without a length in them it closes.
pub async fn answering(answer: &'static str) -> (u16, Heard) {
    let heard = Heard::default();
    let port = {
        let heard = heard.clone();
        upstream(move |mut stream| {
            let heard = heard.clone();
            async move {
                *heard.connections.lock().unwrap() += 1;
                let mut buffer = Vec::new();
                while let Some(request) = read_request(&mut stream, &mut buffer).await {
                    heard.requests.lock().unwrap().push(request);
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                    if !answer.to_ascii_lowercase().contains("content-length") {
                        return;
                    }
                }
            }
        })
        .await
    };
    (port, heard)
}

/// One request as it came, head and body.
pub async fn read_request(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> Option<String> {
    loop {
        let text = String::from_utf8_lossy(buffer).into_owned();
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let lower = head.to_ascii_lowercase();
            let body = if lower.contains("transfer-encoding: chunked") {
                rest.find("0\r\n\r\n").map(|end| end + 5)
            } else {
                let length = lower
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "))
                    .map_or(0, |n| n.parse().unwrap());
                (rest.len() >= length).then_some(length)
            };
            if let Some(body) = body {
                let whole = head.len() + 4 + body;
                let request = text[..whole].to_owned();
                buffer.drain(..whole);
                return Some(request);
            }
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nAlt-Svc: h3=\":443\"\r\nKeep-Alive: timeout=5\r\nX-Kept: yes\r\n\r\nok";

pub fn rule(port: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule("api.example.com", port, Protocol::Http)
        .host("api.example.com")
}

pub async fn site(answer: &'static str) -> (Session, SocketAddr, u16, Heard) {
    let (port, heard) = answering(answer).await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("api.example.com", port).await;
    (session, door, port, heard)
}

pub async fn ask(door: SocketAddr, request: &str) -> String {
    String::from_utf8(exchange(door, request.as_bytes()).await.unwrap()).unwrap()
}

/// Reads one response with a content-length.
pub async fn read_response(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length: usize = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                })
                .map_or(0, |n| n.parse().unwrap());
            if body.len() >= length {
                return text;
            }
        }
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut bytes));
        assert_ne!(read.await.unwrap().unwrap(), 0, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_written_anew_and_recorded_with_its_answer() {
    let (session, door, port, heard) = site(OK).await;
    let answer = ask(
        door,
        &format!(
            "GET http://API.example.com:{port}/a?token=s3cret&x HTTP/1.1\r\nhost: API.Example.Com.:{port}\r\n\
             Connection: X-Hop, close\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Authorization: x\r\nTE: trailers\r\n\
             Authorization: Basic eA==\r\nX-Other:  spaced \r\n\r\n"
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nok"));
    let lower = answer.to_ascii_lowercase();
    assert!(
        !lower.contains("alt-svc") && !lower.contains("timeout=5"),
        "{answer}"
    );
    assert!(lower.contains("x-kept: yes"));

    let request = heard.requests().remove(0);
    assert!(
        request.starts_with("GET /a?token=s3cret&x HTTP/1.1\r\n"),
        "{request}"
    );
    let lower = request.to_ascii_lowercase();
    assert!(lower.contains(&format!("host: api.example.com:{port}\r\n")));
    assert_eq!(lower.matches("host:").count(), 1);
    for gone in [
        "x-hop",
        "keep-alive",
        "proxy-authorization",
        "te:",
        "connection",
    ] {
        assert!(!lower.contains(gone), "{gone}: {request}");
    }
    assert!(lower.contains("authorization: basic ea==") && lower.contains("x-other: spaced\r\n"));

    let response = session.event("complete").await;
    assert_eq!(response.kind, Kind::Response);
    assert_eq!((response.status, response.bytes_in), (Some(200), Some(2)));
    let request = session
        .events()
        .into_iter()
        .find(|e| e.kind == Kind::Request)
        .unwrap();
    assert_eq!(request.verdict, Verdict::Allow);
    assert_eq!(request.method.as_deref(), Some("GET"));
    let url = request.url.unwrap();
    assert!(url.ends_with("/a?token=***&***"), "{url}");
    let closed = session.event("closed").await;
    assert!(closed.bytes_in.unwrap() > 2 && closed.bytes_out.unwrap() > 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_carries_request_after_request_on_one_upstream_connection() {
    let (_session, door, port, heard) = site(OK).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    for i in 0..3 {
        let request = format!("GET /{i} HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = read_response(&mut stream).await;
        assert!(answer.ends_with("ok"), "{answer}");
    }
    // Three at once are answered one after another.
    let many: String = (3..6)
        .map(|i| format!("GET /{i} HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n"))
        .collect();
    stream.write_all(many.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let rest = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200 OK").count(), 3);
    assert_eq!(heard.requests().len(), 6);
    assert_eq!(*heard.connections.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_closed_its_kept_connection_is_dialled_again() {
    let (_session, door, port, heard) = site("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    for i in 0..2 {
        let request = format!("GET /{i} HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut bytes = Vec::new();
        while !bytes.ends_with(b"0\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut bytes).await.unwrap(), 0);
        }
        assert!(String::from_utf8_lossy(&bytes).contains("until the end"));
    }
    assert_eq!(*heard.connections.lock().unwrap(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_in_both_framings() {
    let (_session, door, port, heard) = site(OK).await;
    let host = format!("Host: api.example.com:{port}\r\nConnection: close\r\n");
    let sized =
        format!("POST /l HTTP/1.1\r\n{host}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello");
    let answer = ask(door, &sized).await;
    assert!(
        answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK"),
        "{answer}"
    );
    let chunked = format!(
        "POST /c HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nX-Sum: 1\r\n\r\n"
    );
    assert!(ask(door, &chunked).await.contains("200 OK"));
    let requests = heard.requests();
    assert!(requests[0].ends_with("\r\n\r\nhello"), "{}", requests[0]);
    assert!(!requests[0].to_ascii_lowercase().contains("expect"));
    assert!(
        requests[1].contains("hello") || requests[1].contains("he\r\n"),
        "{}",
        requests[1]
    );
    assert!(!requests[1].to_ascii_lowercase().contains("x-sum"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_streams_while_it_is_sent() {
    let port = upstream(|mut stream| async move {
        // Answers at once and echoes what comes.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await
            .unwrap();
        let mut bytes = [0; 64];
        while let Ok(n) = stream.read(&mut bytes).await {
            if n == 0 {
                return;
            }
            let chunk = format!("{n:x}\r\n{}\r\n", String::from_utf8_lossy(&bytes[..n]));
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("api.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: api.example.com:{port}\r\nContent-Length: 1000000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    for word in ["first", "second", "third"] {
        stream.write_all(word.as_bytes()).await.unwrap();
        while !String::from_utf8_lossy(&seen).contains(word) {
            let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut seen));
            assert_ne!(read.await.unwrap().unwrap(), 0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_breaks_off_does_not_look_whole() {
    let (_session, door, port, _heard) =
        site("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    match read_all(&mut stream).await {
        Ok(bytes) => assert!(!bytes.ends_with(b"0\r\n\r\n")),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

/// Sends what must be refused and checks that the upstream heard nothing of it.
pub async fn refused(request: &str, status: u16) -> String {
    let (session, door, port, heard) = site(OK).await;
    let request = request.replace("HOST", &format!("api.example.com:{port}"));
    let answer = ask(door, &request).await;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status} ")),
        "{request:.300?}: {answer}"
    );
    assert!(
        heard.requests().is_empty(),
        "{request:.300?}: {:.300?}",
        heard.requests()
    );
    assert!(answer.contains("x-agentcontainer-blocked: "), "{answer}");
    let code = answer
        .split("x-agentcontainer-blocked: ")
        .nth(1)
        .and_then(|rest| rest.split("\r\n").next())
        .unwrap();
    assert_eq!(session.event(code).await.verdict, Verdict::Deny);
    answer
}

// D13, D14, D18: each of these is read differently by somebody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_requests_are_refused_and_the_upstream_hears_nothing() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 421),
        (
            "GET http://evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
            421,
        ),
        (
            "GET http://HOST@evil.example/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
            421,
        ),
        ("GET https://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: HOST\r\nHost: evil.example\r\n\r\n",
            400,
        ),
        ("GET / HTTP/1.1\r\nHost : HOST\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n Host: HOST\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@HOST\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\nHost: HOST evil.example\r\n\r\n", 421),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: HOST\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\r\n b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nX: a\rb\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +2\r\n\r\nhi",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 2, 2\r\n\r\nhi",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (
            "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("CONNECT HOST HTTP/1.1\r\nHost: HOST\r\n\r\n", 405),
        (
            "CONNECT evil.example:443 HTTP/1.1\r\nHost: HOST\r\n\r\n",
            405,
        ),
        ("TRACE / HTTP/1.1\r\nHost: HOST\r\n\r\n", 405),
        (
            "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
            501,
        ),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: HOST\r\nExpect: 200\r\n\r\n", 417),
        ("GET /a b HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
        ("hello\r\n\r\n", 400),
    ] {
        refused(request, status).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bounds_of_a_head_are_told_as_such() {
    let many = format!(
        "GET / HTTP/1.1\r\nHost: HOST\r\n{}\r\n",
        "X: y\r\n".repeat(gateway::limits::HTTP_HEADERS)
    );
    refused(&many, 431).await;
    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: HOST\r\n\r\n",
        "a".repeat(gateway::limits::HTTP_TARGET)
    );
    refused(&long, 414).await;
    let huge = format!(
        "GET / HTTP/1.1\r\nHost: HOST\r\nX: {}\r\n\r\n",
        "a".repeat(gateway::limits::HTTP_HEAD)
    );
    refused(&huge, 431).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_headers_as_the_bound_allows_pass() {
    let (_session, door, port, _heard) = site(OK).await;
    let more = "X: y\r\n".repeat(gateway::limits::HTTP_HEADERS - 2);
    let request = format!(
        "GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n{more}\r\n"
    );
    assert!(ask(door, &request).await.contains("200 OK"));
    let target = "a".repeat(gateway::limits::HTTP_TARGET - 1);
    let request = format!(
        "GET /{target} HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n"
    );
    assert!(ask(door, &request).await.contains("200 OK"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pipelined_request_for_another_host_is_refused_after_the_first_was_answered() {
    let (session, door, port, heard) = site(OK).await;
    let answer = ask(
        door,
        &format!(
            "GET /1 HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\nGET /2?k=v HTTP/1.1\r\nHost: evil.example\r\n\r\n\
             GET /3 HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n"
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("HTTP/1.1 421 "), "{answer}");
    assert_eq!(heard.requests().len(), 1);
    let denied = session.event("host-mismatch").await;
    assert_eq!(denied.url.as_deref(), Some("/2?k=***"));
    assert_eq!(denied.method.as_deref(), Some("GET"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunk_that_is_wrong_ends_the_request_upstream_without_its_end() {
    let (session, door, port, heard) = site(OK).await;
    let answer = ask(
        door,
        &format!(
            "POST / HTTP/1.1\r\nHost: api.example.com:{port}\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0;x=\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n"
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(heard.requests().is_empty(), "{:?}", heard.requests());
    session.event("http-framing").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_allowed_gets_a_page_in_the_form_it_asks_for() {
    let mut session = Session::start(
        PolicyBuilder::default()
            .allow("good.example")
            .deny("bad.example"),
    )
    .await;
    for (host, accept, code, kind) in [
        ("evil.example", "*/*", "not-listed", "text/plain"),
        (
            "evil.example",
            "application/json",
            "not-listed",
            "application/json",
        ),
        ("evil.example", "text/html", "not-listed", "text/html"),
        ("bad.example", "*/*", "denied-by-rule", "text/plain"),
    ] {
        let door = session.door(host, 80).await;
        let request = format!(
            "GET /x?k=secret HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        let page = ask(door, &request).await;
        assert!(page.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{page}");
        assert!(
            page.contains(&format!("x-agentcontainer-blocked: {code}\r\n")),
            "{page}"
        );
        assert!(page.contains(&format!("content-type: {kind}")), "{page}");
        for word in [host, "agentcontainer.json", "agentcontainer policy explain"] {
            assert!(page.contains(word), "{word}: {page}");
        }
    }
    let request = session
        .event_where("a request", |e| e.kind == Kind::Request)
        .await;
    assert!(request.url.unwrap().ends_with("/x?k=***"));
    session
        .event_where("a connect", |e| e.kind == Kind::Connect)
        .await;
    let events = session.events();
    assert!(events.iter().all(|e| e.verdict == Verdict::Deny));
    // HEAD has no body; a POST's body is not waited for.
    let door = session.door("evil.example", 80).await;
    let head = ask(
        door,
        "HEAD / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(
        head.starts_with("HTTP/1.1 403") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_page_says_what_is_allowed_and_what_was_denied() {
    let policy = PolicyBuilder::default()
        .allow("*.good.example")
        .deny_file("conf/.env")
        .deny_program("sudo");
    let mut session = Session::start(policy).await;
    let denied = session.door("evil.example", 22).await;
    assert!(exchange(denied, b"x").await.is_err());
    let door = session.door_to(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 3), 80));
    let get = |accept: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: agentcontainer.internal\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        )
    };
    let text = ask(door, &get("*/*")).await;
    for word in [
        "200 OK",
        "allowedDomains \"*.good.example\"",
        "evil.example:22",
        "deniedPaths \"conf/.env\" (mounts, and BPF LSM where it is there)  (agentcontainer.json:3:5)",
        "deniedBinaries \"sudo\" (mounts, and BPF LSM where it is there)  (agentcontainer.json:3:5)",
        "how to ask",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let json = ask(door, &get("application/json")).await;
    let body: serde_json::Value =
        serde_json::from_str(json.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(body["session"], "test");
    assert_eq!(body["lastDenials"][0]["host"], "evil.example");
    assert_eq!(
        body["files"][0]["rule"],
        "deniedPaths \"conf/.env\" (mounts, and BPF LSM where it is there)"
    );
    assert_eq!(
        body["programs"][0]["rule"],
        "deniedBinaries \"sudo\" (mounts, and BPF LSM where it is there)"
    );
    assert!(
        ask(door, &get("text/html"))
            .await
            .contains("&quot;*.good.example&quot;")
    );
    // Another port of it, and another host at it, are nothing.
    let other = session.door_to(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 3), 443));
    assert!(exchange(other, b"x").await.is_err());
    let misdirected = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert!(ask(door, misdirected).await.starts_with("HTTP/1.1 421 "));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_not_there_is_told_as_502() {
    let port = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port()
    };
    let mut session = Session::start(rule(port)).await;
    let door = session.door("api.example.com", port).await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
    let page = ask(door, &request).await;
    assert!(page.starts_with("HTTP/1.1 502 "), "{page}");
    assert!(page.contains("connect-failed"));
    let event = session.event("connect-failed").await;
    assert_eq!(event.verdict, Verdict::Allow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_policy_does_not_open_is_told_as_403() {
    let (port, heard) = answering(OK).await;
    let mut policy = PolicyBuilder::default().rule("api.example.com", port, Protocol::Http);
    policy.gateway.resolver = schema::gateway::Resolver::Address(
        crate::relay::resolver_that_says(Ipv4Addr::LOCALHOST).await,
    );
    let mut session = Session::start(policy).await;
    let door = session.door("api.example.com", port).await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
    let page = ask(door, &request).await;
    assert!(
        page.starts_with("HTTP/1.1 403 ") && page.contains("address-refused"),
        "{page}"
    );
    assert!(heard.requests().is_empty());
    assert_eq!(
        session.event("address-refused").await.verdict,
        Verdict::Deny
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_sent_that_cannot_be_recorded() {
    let (session, door, port, heard) = site(OK).await;
    session.manners.lock().unwrap().refuse_record = true;
    let request =
        format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
    let page = ask(door, &request).await;
    assert!(
        page.starts_with("HTTP/1.1 503 ") && page.contains("not-recorded"),
        "{page}"
    );
    assert!(heard.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_client_is_served_in_its_own_version() {
    let (_session, door, port, _heard) = site(OK).await;
    let request = format!("GET / HTTP/1.0\r\nHost: api.example.com:{port}\r\n\r\n");
    let answer = ask(door, &request).await;
    assert!(
        answer.starts_with("HTTP/1.0 200 OK") && answer.ends_with("ok"),
        "{answer}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_of_protocols_by_the_upstream_is_not_followed() {
    let (_session, door, port, _heard) =
        site("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\nContent-Length: 0\r\n\r\n").await;
    let request =
        format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
    let answer = ask(door, &request).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_reads_the_page_and_the_site() {
    let (_session, door, port, _heard) = site(OK).await;
    let output = tokio::process::Command::new("curl")
        .args(["-sS", "--max-time", "10", "--connect-to"])
        .arg(format!(
            "api.example.com:{port}:{}:{}",
            door.ip(),
            door.port()
        ))
        .arg(format!("http://api.example.com:{port}/"))
        .output()
        .await
        .unwrap();
    assert_eq!(
        output.stdout,
        b"ok",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_may_send_so_many_headers() {
    for (more, status) in [(0, "200"), (1, "502")] {
        let lines = gateway::limits::HTTP_RESPONSE_HEADERS - 1 + more;
        let answer: &'static str = Box::leak(
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{}\r\nok",
                "X: y\r\n".repeat(lines)
            )
            .into_boxed_str(),
        );
        let (_session, door, port, _heard) = site(answer).await;
        let request =
            format!("GET / HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
        let answer = ask(door, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer:.200}"
        );
    }
}
