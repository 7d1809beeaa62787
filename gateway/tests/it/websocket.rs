//! WebSocket over `http` (D18): the switch is checked on both sides, and nothing is carried as opaque bytes before it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Kind, Verdict};
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::http::{OK, ask, refused, rule, site};

/// The key and its answer in RFC 6455, 1.3.
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
const FIELDS: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
const SWITCHING: &str =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n";

type Heads = Arc<Mutex<Vec<String>>>;

/// Reads a head, byte by byte, so that what follows it is left in the socket.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(Duration::from_secs(5), stream.read_u8()).await;
        head.push(byte.unwrap().unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// An upstream that takes the head, answers with these bytes, and then does as told.
async fn switching<F, R>(answer: String, then: F) -> (Session, SocketAddr, u16, Heads)
where
    F: Fn(TcpStream) -> R + Clone + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let heads = Heads::default();
    let port = {
        let heads = Arc::clone(&heads);
        upstream(move |mut stream| {
            let (heads, answer, then) = (Arc::clone(&heads), answer.clone(), then.clone());
            async move {
                let head = head(&mut stream).await;
                heads.lock().unwrap().push(head);
                stream.write_all(answer.as_bytes()).await.unwrap();
                then(stream).await;
            }
        })
        .await
    };
    let mut session = Session::start(unread(port)).await;
    let door = session.door("api.example.com", port).await;
    (session, door, port, heads)
}

async fn echoing() -> (Session, SocketAddr, u16, Heads) {
    let answer = format!(
        "{SWITCHING}{ACCEPT}Sec-WebSocket-Protocol: chat\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 0\r\n\r\n"
    );
    switching(answer, |mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Where no inspector is on: whatever bytes follow are carried (`inspection` has the frames that are read).
fn unread(port: u16) -> PolicyBuilder {
    let off = ["secrets", "base64", "contentType", "entropy"].map(|name| (name, "off"));
    rule(port).inspect(&off)
}

fn request(port: u16, more: &str) -> String {
    format!("GET /ws?t=1 HTTP/1.1\r\nHost: api.example.com:{port}\r\n{FIELDS}{more}\r\n")
}

/// Connects, asks, and reads the 101.
async fn switch(door: SocketAddr, port: u16, more: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = request(port, more);
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    (stream, answer)
}

fn pattern(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_switched_by_both_sides_and_carries_bytes_both_ways() {
    let (session, door, port, heads) = echoing().await;
    let more = "Sec-WebSocket-Protocol: chat\r\nOrigin: http://x\r\nProxy-Authorization: x\r\n";
    let (mut stream, answer) = switch(door, port, more).await;
    let answer = answer.to_ascii_lowercase();
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-protocol: chat\r\n",
    ] {
        assert_eq!(answer.matches(line).count(), 1, "{line}: {answer}");
    }
    assert!(answer.contains(&ACCEPT.to_ascii_lowercase()), "{answer}");
    for gone in ["alt-svc", "content-length", "transfer-encoding"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
    let heard = heads.lock().unwrap().remove(0);
    assert!(heard.starts_with("GET /ws?t=1 HTTP/1.1\r\n"), "{heard}");
    let heard = heard.to_ascii_lowercase();
    for line in [
        "connection: upgrade\r\n",
        "upgrade: websocket\r\n",
        "sec-websocket-key: dghlihnhbxbszsbub25jzq==\r\n",
        "sec-websocket-version: 13\r\n",
        "sec-websocket-protocol: chat\r\n",
        "origin: http://x\r\n",
    ] {
        assert_eq!(heard.matches(line).count(), 1, "{line}: {heard}");
    }
    assert!(!heard.contains("proxy-authorization"), "{heard}");

    let bytes = pattern(1 << 20);
    let (mut read, mut write) = stream.split();
    let (back, ()) = tokio::join!(
        async {
            let mut back = vec![0; bytes.len()];
            read.read_exact(&mut back).await.unwrap();
            back
        },
        async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        }
    );
    assert!(back == bytes);
    assert!(read_all(&mut stream).await.unwrap().is_empty());
    let switched = session.event("websocket").await;
    assert_eq!(
        (switched.kind, switched.status),
        (Kind::Response, Some(101))
    );
    assert!(switched.url.unwrap().ends_with("/ws?t=***"));
    let closed = session.event("closed").await;
    let asked = request(port, more).len() as u64;
    assert_eq!(closed.bytes_out, Some(asked + (1 << 20)));
    let told = closed.bytes_in.unwrap() - (1 << 20);
    assert!((100..400).contains(&told), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_come_with_the_101_are_not_lost() {
    let first = "x".repeat(5000);
    let answer = format!("{SWITCHING}{ACCEPT}\r\n{first}");
    let (session, door, port, _) = switching(answer, |mut stream| async move {
        stream.write_all(b" and more").await.unwrap();
    })
    .await;
    let (mut stream, answer) = switch(door, port, "").await;
    let rest = read_all(&mut stream);
    assert_eq!(rest.await.unwrap(), format!("{first} and more").as_bytes());
    drop(stream);
    let closed = session.event("closed").await;
    assert_eq!(
        closed.bytes_in.unwrap(),
        answer.len() as u64 + 5000 + " and more".len() as u64
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_client_sends_before_its_101_waits_for_it() {
    let early_heard = Arc::new(Mutex::new(None));
    let port = {
        let early_heard = Arc::clone(&early_heard);
        upstream(move |mut stream| {
            let early_heard = Arc::clone(&early_heard);
            async move {
                head(&mut stream).await;
                let mut byte = [0];
                let early =
                    tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte));
                *early_heard.lock().unwrap() = Some(early.await.is_ok());
                stream
                    .write_all(format!("{SWITCHING}{ACCEPT}\r\n").as_bytes())
                    .await
                    .unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            }
        })
        .await
    };
    let mut session = Session::start(unread(port)).await;
    let door = session.door("api.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = request(port, "") + "GET /second HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stream.write_all(b"later").await.unwrap();
    stream.shutdown().await.unwrap();
    let answer = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
    let (head, echoed) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{answer}");
    assert_eq!(
        echoed,
        "GET /second HTTP/1.1\r\nHost: api.example.com\r\n\r\nlater"
    );
    assert_eq!(*early_heard.lock().unwrap(), Some(false));
    // Counted once.
    let closed = session.event("closed").await;
    assert_eq!(closed.bytes_out, Some(request.len() as u64 + 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_answer_to_a_websocket_ends_the_connection_and_nothing_behind_it_is_a_request()
{
    for answer in [
        OK,
        "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (_session, door, port, heard) = site(answer).await;
        let second = format!("GET /second HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n");
        let mut stream = TcpStream::connect(door).await.unwrap();
        let first = request(port, "") + &second;
        stream.write_all(first.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let _ = stream.write_all(second.as_bytes()).await;
        let text = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
        let status = answer.split(' ').nth(1).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text}");
        let lower = text.to_ascii_lowercase();
        assert!(lower.contains("connection: close\r\n"), "{text}");
        assert!(!lower.contains("upgrade: "), "{text}");
        assert_eq!(heard.requests().len(), 1, "{:?}", heard.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_101_that_is_not_what_was_asked_for_is_a_502() {
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    for answer in [
        format!("{SWITCHING}\r\n"),
        format!("{SWITCHING}Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n"),
        format!("{SWITCHING}{ACCEPT}{ACCEPT}\r\n"),
        format!("{upgrade}{ACCEPT}\r\n"),
        format!("{upgrade}Upgrade: h2c\r\n{ACCEPT}\r\n"),
        format!("{upgrade}Upgrade: websocket, h2c\r\n{ACCEPT}\r\n"),
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n{ACCEPT}\r\n"),
    ] {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (session, door, port, _) = {
            let heard = Arc::clone(&heard);
            switching(answer.clone() + "leaked", move |mut stream| {
                let heard = Arc::clone(&heard);
                async move {
                    let mut bytes = Vec::new();
                    let _ = stream.read_to_end(&mut bytes).await;
                    heard.lock().unwrap().extend(bytes);
                }
            })
            .await
        };
        let text = ask(door, &(request(port, "") + "early")).await;
        assert!(text.starts_with("HTTP/1.1 502 "), "{answer}: {text}");
        assert!(!text.contains("leaked"), "{text}");
        assert_eq!(session.event("http-upgrade").await.verdict, Verdict::Allow);
        session.event("closed").await;
        assert!(heard.lock().unwrap().is_empty());
        assert!(session.events().iter().all(|e| e.reason != "websocket"));
    }
}

// What a request for a switch may look like is a table in `head`; here that it is wired.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_switches_and_malformed_ones_are_refused_and_the_upstream_hears_nothing() {
    let with = |from: &str, to: &str| {
        format!(
            "GET / HTTP/1.1\r\nHost: HOST\r\n{}\r\n",
            FIELDS.replace(from, to)
        )
    };
    for (text, status) in [
        (with("websocket", "foo"), 501),
        (with("websocket", "websocket, h2c"), 501),
        (with("websocket", "h2c, websocket"), 501),
        (with("websocket\r\n", "websocket\r\nUpgrade: h2c\r\n"), 501),
        (with("keep-alive, Upgrade", "keep-alive"), 400),
        (with("dGhlIHNhbXBsZSBub25jZQ==", "short"), 400),
        (with("13", "8"), 400),
        (with("13", "13\r\nContent-Length: 5") + "hello", 400),
        (with("13", "13").replace("GET /", "POST /"), 400),
        (with("13", "13").replace("HTTP/1.1", "HTTP/1.0"), 400),
    ] {
        refused(&text, status).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_close_and_a_reset_is_passed_on() {
    // The upstream first: the client reads its end, and may still send.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (session, door, port, _) = {
        let heard = Arc::clone(&heard);
        switching(format!("{SWITCHING}{ACCEPT}\r\n"), move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                stream.write_all(b"bye").await.unwrap();
                stream.shutdown().await.unwrap();
                let mut bytes = Vec::new();
                stream.read_to_end(&mut bytes).await.unwrap();
                heard.lock().unwrap().extend(bytes);
            }
        })
        .await
    };
    let (mut stream, _) = switch(door, port, "").await;
    assert_eq!(read_all(&mut stream).await.unwrap(), b"bye");
    stream.write_all(b"goodbye").await.unwrap();
    drop(stream);
    session.event("closed").await;
    assert_eq!(*heard.lock().unwrap(), b"goodbye");

    let (session, door, port, _) = switching(
        format!("{SWITCHING}{ACCEPT}\r\n"),
        |mut stream| async move {
            let _ = stream.read_u8().await;
            stream.set_zero_linger().unwrap();
        },
    )
    .await;
    let (mut stream, _) = switch(door, port, "").await;
    stream.write_all(b"x").await.unwrap();
    let error = read_all(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    session.event("reset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_may_follow_other_requests_on_their_connection() {
    let port = upstream(|mut stream| async move {
        head(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        head(&mut stream).await;
        let answer = format!("{SWITCHING}{ACCEPT}\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    })
    .await;
    let mut session = Session::start(unread(port)).await;
    let door = session.door("api.example.com", port).await;
    let both = format!("GET /1 HTTP/1.1\r\nHost: api.example.com:{port}\r\n\r\n")
        + &request(port, "")
        + "frames";
    let text = ask(door, &both).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    assert!(
        text.contains("HTTP/1.1 101 ") && text.ends_with("\r\n\r\nframes"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denied_name_gets_its_page_and_a_right_that_is_taken_away_ends_the_websocket() {
    let (mut session, door, port, _) = echoing().await;
    let denied = session.door("evil.example", 80).await;
    let text = ask(
        denied,
        &format!("GET / HTTP/1.1\r\nHost: evil.example\r\n{FIELDS}\r\nearly"),
    )
    .await;
    assert!(text.starts_with("HTTP/1.1 403 "), "{text}");
    assert!(text.to_ascii_lowercase().contains("connection: close\r\n"));

    let (mut stream, _) = switch(door, port, "").await;
    stream.write_all(b"x").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
    session
        .apply(PolicyBuilder::default().rule("other.example.com", port, Protocol::Http))
        .await;
    let error = read_all(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(session.event("revoked").await.kind, Kind::Connect);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_cannot_be_recorded_is_not_made() {
    let (door, port, session) = {
        let manners: Arc<Mutex<Option<Arc<Mutex<Manners>>>>> = Arc::default();
        let port = {
            let manners = Arc::clone(&manners);
            upstream(move |mut stream| {
                let manners = Arc::clone(&manners);
                async move {
                    head(&mut stream).await;
                    let manners = manners.lock().unwrap().clone().unwrap();
                    manners.lock().unwrap().refuse_record = true;
                    let answer = format!("{SWITCHING}{ACCEPT}\r\nleaked");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    let _ = stream.read_u8().await;
                }
            })
            .await
        };
        let mut session = Session::start(unread(port)).await;
        *manners.lock().unwrap() = Some(Arc::clone(&session.manners));
        (session.door("api.example.com", port).await, port, session)
    };
    let text = ask(door, &request(port, "")).await;
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(!text.contains("leaked"));
    drop(session);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_on_which_nothing_moves_is_given_up() {
    let port = upstream(|mut stream| async move {
        head(&mut stream).await;
        let answer = format!("{SWITCHING}{ACCEPT}\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.read_u8().await;
    })
    .await;
    let mut session = Session::start_with(rule(port), |options| {
        options.patience.idle = Duration::from_millis(500);
    })
    .await;
    let door = session.door("api.example.com", port).await;
    let (mut stream, _) = switch(door, port, "").await;
    assert!(read_all(&mut stream).await.is_err());
    session.event("idle-timeout").await;
}
