//! Production's deadlines at their edge: everything goes on in real time, over real sockets, but for the moments in which the test
//! moves the clock on, to shortly before a deadline or past it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use gateway::{Patience, limits};
use nix::sys::socket::{Backlog, listen};
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time;

use crate::harness::*;
use crate::tls::hello;

/// Before the edge by this much: far less than a deadline, far more than a step takes on a loaded machine.
const EDGE: Duration = Duration::from_secs(4);

/// Until what was begun has come as far as it can.
async fn settle() {
    time::sleep(Duration::from_millis(200)).await;
}

/// Lets so much time pass at once.
async fn pass(span: Duration) {
    time::pause();
    time::advance(span).await;
    time::resume();
}

/// Lets that many of somebody's looks at the clock pass, each with the time to look.
async fn pass_ticks(patience: Patience, ticks: u32) {
    for _ in 0..ticks {
        pass(patience.tick).await;
        time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether an answer ends with these words; anything else is an end without a byte.
async fn answers(stream: &mut TcpStream, words: &[u8]) -> bool {
    let mut heard = vec![0; words.len()];
    let read = time::timeout(Duration::from_secs(10), stream.read_exact(&mut heard));
    match read.await.expect("an answer or an end within 10 s") {
        Ok(_) => {
            assert_eq!(heard, words);
            true
        }
        Err(_) => false,
    }
}

/// It is on record now, and not some time later.
async fn given_up(session: &Session, reason: &str) {
    let recorded = time::timeout(EDGE, session.event(reason)).await;
    recorded.expect("what is past its deadline is given up");
}

fn tcp(name: &str, port: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule(name, port, Protocol::Tcp)
        .host(name)
}

async fn connected(door: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(first).await.unwrap();
    settle().await;
    stream
}

#[tokio::test]
async fn a_client_hello_is_waited_for_until_its_deadline() {
    let port = echo().await;
    let policy = PolicyBuilder::default()
        .rule("a.example.com", port, Protocol::Tls)
        .host("a.example.com");
    let mut session = Session::start(policy).await;
    let door = session.door("a.example.com", port).await;
    let hello = hello(Some("a.example.com")).await;
    let (all_but, last) = hello.split_at(hello.len() - 1);

    let mut stream = connected(door, all_but).await;
    pass(limits::CLIENT_HELLO_DEADLINE - EDGE).await;
    stream.write_all(last).await.unwrap();
    assert!(answers(&mut stream, &hello).await);

    let mut stream = connected(door, all_but).await;
    pass(limits::CLIENT_HELLO_DEADLINE).await;
    given_up(&session, "tls-no-hello").await;
    let _ = stream.write_all(last).await;
    assert!(!answers(&mut stream, &hello).await);
}

#[tokio::test]
async fn a_handshake_is_waited_for_until_its_deadline() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    let door = session.door("a.example.com", 443).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(session.ca.clone().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    for (passed, in_time) in [
        (limits::TLS_HANDSHAKE - EDGE, true),
        (limits::TLS_HANDSHAKE, false),
    ] {
        let name = "a.example.com".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::clone(&config), name).unwrap();
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        let mut stream = connected(door, &flight).await;
        let mut heard = vec![0; 16 * 1024];
        let count = stream.try_read(&mut heard).unwrap();
        client.read_tls(&mut &heard[..count]).unwrap();
        client.process_new_packets().unwrap();
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).unwrap();
        }
        pass(passed).await;
        settle().await;
        let _ = stream.write_all(&flight).await;
        // What is denied is answered with a page, once there is TLS to answer it in.
        let get = b"GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
        std::io::Write::write_all(&mut client.writer(), get).unwrap();
        let mut flight = Vec::new();
        client.write_tls(&mut flight).unwrap();
        let _ = stream.write_all(&flight).await;
        settle().await;
        let answered = matches!(stream.try_read(&mut heard), Ok(1..));
        assert_eq!(answered, in_time, "{passed:?}");
    }
}

#[tokio::test]
async fn dns_over_tcp_waits_for_a_query_until_its_deadline() {
    let session = Session::start(PolicyBuilder::default()).await;
    let query = query(7, "a.example.com", 1);
    let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
    // Before its length, and before the rest.
    for first in [0, 2] {
        let (first, rest) = framed.split_at(first);
        let mut stream = connected(session.dns_tcp, first).await;
        pass(limits::DNS_TCP_IDLE - EDGE).await;
        stream.write_all(rest).await.unwrap();
        let length = time::timeout(EDGE, stream.read_u16()).await.unwrap();
        assert!(length.unwrap() > 0);

        let mut stream = connected(session.dns_tcp, first).await;
        pass(limits::DNS_TCP_IDLE).await;
        let ended = time::timeout(EDGE, stream.read_u16()).await.unwrap();
        assert!(ended.is_err());
    }
}

#[tokio::test]
async fn a_dial_takes_no_longer_than_all_of_it_may() {
    // A proxy that says nothing until it is told to.
    let (go, told) = watch::channel(false);
    let port = upstream(move |mut stream| {
        let mut told = told.clone();
        async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            told.wait_for(|go| *go).await.unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\ncarried").await;
            settle().await;
        }
    })
    .await;
    let mut policy = PolicyBuilder::default().rule("a.example.com", 5432, Protocol::Tcp);
    policy.gateway.upstream_proxy = Some(format!("http://127.0.0.1:{port}").parse().unwrap());
    let mut session = Session::start(policy).await;
    let door = session.door("a.example.com", 5432).await;

    let mut stream = connected(door, b"x").await;
    pass(limits::DIAL - EDGE).await;
    go.send_replace(true);
    assert!(answers(&mut stream, b"carried").await);

    go.send_replace(false);
    let mut stream = connected(door, b"x").await;
    pass(limits::DIAL).await;
    given_up(&session, "connect-timeout").await;
    go.send_replace(true);
    assert!(!answers(&mut stream, b"carried").await);
}

/// A listener whose queue is full, so that nobody is answered who connects, and who filled it.
async fn unanswering() -> (std::net::TcpListener, TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    // One is queued where none may be (kernel, sk_acceptq_is_full).
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let address = listener.local_addr().unwrap();
    let queued = TcpStream::connect(address).await.unwrap();
    let next = time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await;
    assert!(next.is_err(), "the control: nobody is answered");
    (listener, queued)
}

#[tokio::test]
async fn one_connect_is_given_up_at_its_deadline() {
    let (listener, _queued) = unanswering().await;
    let port = listener.local_addr().unwrap().port();
    let mut session = Session::start(tcp("a.example.com", port)).await;
    let door = session.door("a.example.com", port).await;
    let mut stream = connected(door, b"x").await;
    pass(limits::CONNECT - EDGE).await;
    // There is room again: the kernel asks once more, within seconds.
    listener.accept().unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    std::io::Write::write_all(&mut accepted, b"carried").unwrap();
    assert!(answers(&mut stream, b"carried").await);

    let (listener, _queued) = unanswering().await;
    let port = listener.local_addr().unwrap().port();
    let mut session = Session::start(tcp("a.example.com", port)).await;
    let door = session.door("a.example.com", port).await;
    let mut stream = connected(door, b"x").await;
    pass(limits::CONNECT).await;
    given_up(&session, "connect-timeout").await;
    assert!(!answers(&mut stream, b"carried").await);
}

#[tokio::test]
async fn a_connection_at_rest_and_one_that_is_half_closed_have_their_own_time() {
    // It says one word, when it is told to, however its client ended.
    let (go, told) = watch::channel(false);
    let port = upstream(move |mut stream| {
        let mut told = told.clone();
        async move {
            told.wait_for(|go| *go).await.unwrap();
            let _ = stream.write_all(b"carried").await;
            settle().await;
        }
    })
    .await;
    let patience = Patience::default();
    assert_eq!(patience.idle, limits::IDLE);
    assert_eq!(patience.half_closed, limits::IDLE_HALF_CLOSED);
    let policy = tcp("a.example.com", port);
    let mut session = Session::start_with(policy, |options| options.patience = patience).await;
    let door = session.door("a.example.com", port).await;
    let ticks = |span: Duration| u32::try_from(span.as_secs() / patience.tick.as_secs()).unwrap();
    for (half_closed, bound) in [(true, patience.half_closed), (false, patience.idle)] {
        for (passed, is_carried) in [(ticks(bound) - 1, true), (ticks(bound), false)] {
            go.send_replace(false);
            let mut stream = connected(door, b"x").await;
            if half_closed {
                stream.shutdown().await.unwrap();
            }
            settle().await;
            let before = ended(&session);
            pass_ticks(patience, passed).await;
            settle().await;
            assert_eq!(
                ended(&session) - before,
                usize::from(!is_carried),
                "{passed}"
            );
            go.send_replace(true);
            let heard = answers(&mut stream, b"carried").await;
            assert_eq!(heard, is_carried, "half closed: {half_closed}, {passed}");
            drop(stream);
            settle().await;
        }
    }
}

/// Connections that were given up because nothing moved.
fn ended(session: &Session) -> usize {
    let events = session.events().into_iter();
    events
        .filter(|event| event.reason == "idle-timeout")
        .count()
}

#[tokio::test]
async fn a_request_head_is_waited_for_until_its_deadline_and_the_next_one_as_long() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    let door = session.door_to(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 3), 80));
    let head = b"GET / HTTP/1.1\r\nHost: agentcontainer.internal\r\n\r\n";
    let all_but = &head[..head.len() - 1];
    // At its beginning or in its middle, for the first one and for the next.
    for first in [&b""[..], all_but] {
        let rest = &head[first.len()..];
        let mut stream = connected(door, first).await;
        pass(limits::HTTP_HEAD_DEADLINE - EDGE).await;
        stream.write_all(rest).await.unwrap();
        assert!(answers(&mut stream, b"HTTP/1.1 200 OK\r\n").await);
        settle().await;
        let mut page = vec![0; 64 * 1024];
        stream.try_read(&mut page).unwrap();
        pass(limits::HTTP_HEAD_DEADLINE - EDGE).await;
        stream.write_all(head).await.unwrap();
        assert!(answers(&mut stream, b"HTTP/1.1 200 OK\r\n").await);

        let mut stream = connected(door, first).await;
        pass(limits::HTTP_HEAD_DEADLINE).await;
        settle().await;
        let _ = stream.write_all(rest).await;
        assert!(!answers(&mut stream, b"HTTP/1.1 200 OK\r\n").await);
    }
    let mut stream = connected(door, head).await;
    assert!(answers(&mut stream, b"HTTP/1.1 200 OK\r\n").await);
    settle().await;
    let mut page = vec![0; 64 * 1024];
    stream.try_read(&mut page).unwrap();
    pass(limits::HTTP_HEAD_DEADLINE).await;
    settle().await;
    let _ = stream.write_all(head).await;
    assert!(!answers(&mut stream, b"HTTP/1.1 200 OK\r\n").await);
}
