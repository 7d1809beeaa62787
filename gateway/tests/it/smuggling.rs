//! Requests and responses that two parsers could read in two ways (D13 to D15, D19, D21, D22): what is decided is what is
//! forwarded, byte for byte, or nothing is. What `http` has already is not repeated here.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::http::{OK, ask, refused, rule, site};

// D14, D19, D21
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_requests_that_are_read_in_two_ways_are_refused() {
    let long = format!("{}.example.com", "a".repeat(250));
    let host = |value: &str| format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
    let with = |line: &str| format!("POST / HTTP/1.1\r\nHost: HOST\r\n{line}\r\n\r\nhi");
    for (request, status) in [
        (host("evilHOST"), 421),
        (host("xHOST"), 421),
        (host("HOST.evil.example"), 421),
        (host("example.com"), 421),
        (host("api_example.com"), 421),
        (host("api。example。com"), 421),
        (host("аpi.example.com"), 421),
        (host("api.example.com\0.evil.example"), 400),
        (host("api.example.com%00.evil.example"), 421),
        (host("api.example.com:80, HOST"), 421),
        (host("HOST#x"), 421),
        (host(&long), 421),
        (with("Content-Length: -2"), 400),
        (with("Content-Length: 0x2"), 400),
        (with("Content-Length: 2;"), 400),
        (with("Content-Length: 18446744073709551618"), 400),
        (with("Content-Length: 2\r\ncontent-length: 3"), 400),
        (with("Content-Length : 2"), 400),
        (with("Content-Length\t: 2"), 400),
        (with("Content-Length: 2\r\n folded: 3"), 400),
        (with("Transfer-Encoding: chunked, chunked"), 400),
        (
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            400,
        ),
        (with("Transfer-Encoding:\u{b}chunked"), 400),
        (with("Transfer-Encoding\r\n : chunked"), 400),
        (with("X: a\0b"), 400),
        (with("X: a\r\rContent-Length: 2"), 400),
        (with("X: a\nContent-Length: 2"), 400),
        (with("X\0: a"), 400),
        ("\r\nGET / HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(), 400),
        ("GET /\0 HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1 \r\nHost: HOST\r\n\r\n".to_owned(), 400),
        ("GET\t/ HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(), 400),
        (
            "GET http://evilHOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
            421,
        ),
        (
            "GET http:/HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
            400,
        ),
        (
            "GET ftp://HOST/ HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(),
            400,
        ),
        ("GET HOST HTTP/1.1\r\nHost: HOST\r\n\r\n".to_owned(), 400),
        (
            "GET / HTTP/1.1\r\nHost: HOST\r\nExpect: 100-continue, x\r\n\r\n".to_owned(),
            417,
        ),
    ] {
        refused(&request, status).await;
    }
}

// D14: the head of such a request has gone out already; its end never does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chunked_body_with_two_readings_never_ends_upstream() {
    for body in [
        "2;x=y\r\nhi\r\n0\r\n\r\n",
        "-2\r\nhi\r\n0\r\n\r\n",
        "+2\r\nhi\r\n0\r\n\r\n",
        "0x2\r\nhi\r\n0\r\n\r\n",
        "2 \r\nhi\r\n0\r\n\r\n",
        "2\nhi\r\n0\r\n\r\n",
        "2\r\nhi\n0\r\n\r\n",
        "2\r\nhi!\r\n0\r\n\r\n",
        "10000000000000002\r\nhi\r\n0\r\n\r\n",
        "2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n",
        "2\r\nhi\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "2\r\nhi\r\n0\r\nX : y\r\n\r\n",
        "2\r\nhi\r\n0\r\n\nGET /smuggled HTTP/1.1\r\n\r\n",
    ] {
        let (_session, door, port, heard) = site(OK).await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: api.example.com:{port}\r\nTransfer-Encoding: chunked\r\n\r\n{body}\
             GET /smuggled HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n"
        );
        let answer = ask(door, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{body:?}: {answer}");
        assert!(
            heard.requests().is_empty(),
            "{body:?}: {:?}",
            heard.requests()
        );
    }
}

/// What the upstream hears of a request, lower case.
async fn forwarded(start: &str, rest: &str) -> String {
    let (_session, door, port, heard) = site(OK).await;
    let host = format!("api.example.com:{port}");
    let start = start.replace("HOST", &host);
    let request = format!("{start}\r\nHost: {host}\r\nConnection: close\r\n{rest}");
    let answer = ask(door, &request).await;
    assert!(answer.contains(" 200 OK\r\n"), "{request}: {answer}");
    let mut requests = heard.requests();
    assert_eq!(requests.len(), 1);
    let request = requests.remove(0).to_ascii_lowercase();
    assert_eq!(request.matches(&format!("\r\nhost: {host}\r\n")).count(), 1);
    request.replace(&host, "HOST")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_what_is_forwarded() {
    for (start, line) in [
        ("OPTIONS * HTTP/1.1", "options * http/1.1"),
        ("GET http://HOST HTTP/1.1", "get / http/1.1"),
        ("GET http://HOST?q=1 HTTP/1.1", "get /?q=1 http/1.1"),
        ("GET HTTP://HOST/a/../b HTTP/1.1", "get /a/../b http/1.1"),
        (
            "GET //evil.example/x HTTP/1.1",
            "get //evil.example/x http/1.1",
        ),
        (
            "GET /%2e%2e/%00;x?y HTTP/1.1",
            "get /%2e%2e/%00;x?y http/1.1",
        ),
        ("GET / HTTP/1.0", "get / http/1.1"),
        ("M-SEARCH /x HTTP/1.1", "m-search /x http/1.1"),
    ] {
        let heard = forwarded(start, "\r\n").await;
        assert!(
            heard.starts_with(&format!("{line}\r\n")),
            "{start}: {heard}"
        );
        assert!(!heard.contains("content-length") && !heard.contains("transfer-encoding"));
    }
    // One spelling of a length, and one of a chunk.
    let heard = forwarded("POST / HTTP/1.1", "Content-Length: 002\r\n\r\nhi").await;
    assert!(
        heard.contains("content-length: 2\r\n") && heard.ends_with("\r\n\r\nhi"),
        "{heard}"
    );
    for method in ["POST", "GET", "DELETE"] {
        let chunked = "Transfer-Encoding:  Chunked\r\n\r\n0002\r\nhi\r\n000\r\nX-Sum: 1\r\n\r\n";
        let heard = forwarded(&format!("{method} / HTTP/1.1"), chunked).await;
        assert!(
            heard.contains("transfer-encoding: chunked\r\n"),
            "{method}: {heard}"
        );
        assert!(
            heard.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"),
            "{method}: {heard}"
        );
    }
    // A neighbour's list takes away neither the length nor the host.
    let heard = forwarded(
        "POST / HTTP/1.1",
        "Connection: content-length, host, x-mine\r\nX-Mine: 1\r\nContent-Length: 2\r\n\r\nhi",
    )
    .await;
    assert!(
        heard.contains("content-length: 2\r\n") && !heard.contains("x-mine"),
        "{heard}"
    );
    let heard = forwarded(
        "POST / HTTP/1.1",
        "Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    )
    .await;
    assert!(heard.ends_with("\r\n\r\n2\r\nhi\r\n0\r\n\r\n"), "{heard}");
}

/// What a client gets whose upstream answers its one request with these bytes and closes.
async fn answered(request: &str, answer: &str) -> std::io::Result<String> {
    let answer = answer.to_owned();
    let port = upstream(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("api.example.com", port).await;
    let request =
        format!("{request} HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let bytes = read_all(&mut stream).await?;
    Ok(String::from_utf8(bytes).unwrap())
}

// D14, from the other side.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_with_two_readings_is_a_502() {
    let head = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
    for answer in [
        head("Content-Length: 2\r\nTransfer-Encoding: chunked") + "2\r\nhi\r\n0\r\n\r\n",
        head("Content-Length: 2\r\nContent-Length: 2") + "hi",
        head("Content-Length: 2\r\nContent-Length: 3") + "hi!",
        head("Content-Length: 2, 2") + "hi",
        head("Content-Length: +2") + "hi",
        head("Content-Length: -2") + "hi",
        head("Content-Length: 18446744073709551618") + "hi",
        head("Transfer-Encoding: gzip, chunked") + "2\r\nhi\r\n0\r\n\r\n",
        head("Transfer-Encoding: xchunked") + "hi",
        head("Content-Length : 2") + "hi",
        head("X: a\r\n folded\r\nContent-Length: 2") + "hi",
        head("X: a\0b\r\nContent-Length: 2") + "hi",
        head("X: a\rb\r\nContent-Length: 2") + "hi",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned(),
        "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            .to_owned(),
        "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(),
        "hi\r\n\r\n".to_owned(),
        String::new(),
    ] {
        let text = answered("GET /", &answer).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 502 "), "{answer:?}: {text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_is_written_anew() {
    // Informational answers are not passed on; the final one is.
    let text = answered(
        "GET /",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 199 x\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 002\r\n\r\nhiHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
    )
    .await
    .unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.to_ascii_lowercase().contains("content-length: 2\r\n"),
        "{text}"
    );
    assert!(text.ends_with("\r\n\r\nhi"), "{text}");

    // Where there can be no body there is none, whatever follows.
    for (request, answer) in [
        ("HEAD /", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
        (
            "HEAD /",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
        ),
        (
            "GET /",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil",
        ),
        (
            "GET /",
            "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\nevil",
        ),
    ] {
        let text = answered(request, answer).await.unwrap();
        assert_eq!(text.split(' ').nth(1), answer.split(' ').nth(1), "{text}");
        assert!(
            text.ends_with("\r\n\r\n") && !text.contains("evil"),
            "{text}"
        );
    }

    // D22: a redirect is the client's to follow, by a decision of its own; other ways to lead it on are taken out.
    let text = answered(
        "GET /",
        "HTTP/1.1 302 Found\r\nLocation: http://evil.example/\r\nAlt-Svc: h3=\":443\"\r\nUpgrade: h2c\r\n\
         Connection: upgrade, x-hop\r\nX-Hop: 1\r\nContent-Length: 0\r\n\r\n",
    )
    .await
    .unwrap();
    let lower = text.to_ascii_lowercase();
    assert!(
        lower.contains("location: http://evil.example/\r\n"),
        "{text}"
    );
    for gone in ["alt-svc", "upgrade", "x-hop"] {
        assert!(!lower.contains(gone), "{gone}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_is_cut_or_malformed_does_not_look_whole() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n-1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nfffffffffffffffff\r\n",
    ] {
        match answered("GET /", answer).await {
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
            Ok(text) => panic!("{answer:?} looks whole: {text}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_head_has_a_bound() {
    let bound = gateway::limits::HTTP_RESPONSE_HEAD;
    for (bytes, status) in [(bound, "200"), (bound + 1, "502")] {
        let start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ";
        let more = bytes - start.len() - 4;
        let answer = format!("{start}{}\r\n\r\n", "y".repeat(more));
        let text = answered("GET /", &answer).await.unwrap();
        assert_eq!(text.split(' ').nth(1), Some(status), "{bytes}");
    }
}

async fn expecting(door: SocketAddr, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut bytes));
        assert_ne!(read.await.unwrap().unwrap(), 0);
    }
    (stream, String::from_utf8(bytes).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_comes_before_a_body_is_asked_for_and_the_body_is_no_request() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    let door = session.door("evil.example", 80).await;
    let next = "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    let (mut stream, answer) = expecting(
        door,
        &format!(
            "POST / HTTP/1.1\r\nHost: evil.example\r\nContent-Length: {}\r\nExpect: 100-continue\r\n\r\n",
            next.len()
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    let _ = stream.write_all(next.as_bytes()).await;
    let _ = stream.shutdown().await;
    let rest = read_all(&mut stream).await.unwrap_or_default();
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_may_answer_before_the_body_is_whole() {
    let answer =
        "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
    let port = upstream(move |mut stream| async move {
        let mut bytes = [0; 1024];
        let _ = stream.read(&mut bytes).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        // What still comes is read, so that the answer is not overtaken by a reset.
        while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
    })
    .await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("api.example.com", port).await;
    let (_stream, answer) = expecting(
        door,
        &format!(
            "POST / HTTP/1.1\r\nHost: api.example.com:{port}\r\nContent-Length: 1000000\r\n\r\nbegun"
        ),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}
