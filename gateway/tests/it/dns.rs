//! DNS over UDP and TCP (D01, D03, D04).

use std::net::Ipv4Addr;
use std::time::Duration;

use audit::{Kind, Verdict};
use gateway::limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

fn code(answer: &[u8]) -> u8 {
    answer[3] & 0xf
}

fn answers(answer: &[u8]) -> u16 {
    u16::from_be_bytes([answer[6], answer[7]])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_has_one_address_and_the_record_says_which_are_allowed() {
    let session = Session::start(PolicyBuilder::default().allow("example.com")).await;
    let first = session.ask("example.com").await;
    assert_eq!(first, Ipv4Addr::new(198, 18, 1, 0));
    assert_eq!(session.ask("ExAmPlE.CoM").await, first);
    let other = session.ask("evil.example").await;
    assert_ne!(other, first);
    let listed = session.event("allowed").await;
    assert_eq!((listed.kind, listed.verdict), (Kind::Dns, Verdict::Allow));
    let unlisted = session.event("not-listed").await;
    assert_eq!(unlisted.host.as_deref(), Some("evil.example"));
    assert_eq!(
        (unlisted.kind, unlisted.verdict),
        (Kind::Dns, Verdict::Deny)
    );
    assert_eq!(unlisted.layer.as_deref(), Some("dns"));
    // Asked again, a name is no news.
    session.ask("evil.example").await;
    assert_eq!(session.events().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_types_have_no_data_and_nothing_is_allocated_for_them() {
    let session = Session::start(PolicyBuilder::default().allow("example.com")).await;
    // NS CNAME SOA NULL PTR MX TXT AAAA SRV SVCB HTTPS AXFR ANY
    for kind in [2, 5, 6, 10, 12, 15, 16, 28, 33, 64, 65, 252, 255, 65535] {
        let answer = session
            .query(&query(1, "data.example.com", kind))
            .await
            .unwrap();
        assert_eq!((code(&answer), answers(&answer)), (0, 0), "type {kind}");
    }
    assert!(session.events().is_empty());
    assert_eq!(
        session.ask("first.example.com").await,
        Ipv4Addr::new(198, 18, 1, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_host_does_not_exist() {
    let session = Session::start(PolicyBuilder::default()).await;
    for name in [
        "",
        "localhost",
        "example",
        "1.0.0.127.in-addr.arpa",
        "1.0.ip6.arpa",
        "under_score.example.com",
        "-a.example.com",
        "10.0.0.1",
        "0x7f.1",
    ] {
        let answer = session.query(&query(1, name, 1)).await.unwrap();
        assert_eq!((code(&answer), answers(&answer)), (3, 0), "{name}");
    }
    assert!(session.events().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_internal_name_is_ours() {
    let session = Session::start(PolicyBuilder::default()).await;
    let address = session.ask("agentcontainer.internal").await;
    assert_eq!(address, Ipv4Addr::new(198, 18, 0, 3));
    let answer = session
        .query(&query(1, "agentcontainer.internal", 28))
        .await
        .unwrap();
    assert_eq!((code(&answer), answers(&answer)), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_malformed_or_no_query_is_answered_so_or_dropped() {
    let session = Session::start(PolicyBuilder::default()).await;
    let mut chaos = query(1, "version.bind", 16);
    let n = chaos.len();
    chaos[n - 1] = 3;
    assert_eq!(code(&session.query(&chaos).await.unwrap()), 5);
    let mut update = query(1, "example.com", 1);
    update[2] = 5 << 3;
    assert_eq!(code(&session.query(&update).await.unwrap()), 4);
    let mut two = query(1, "example.com", 1);
    two[5] = 2;
    assert_eq!(code(&session.query(&two).await.unwrap()), 1);
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut response = query(1, "example.com", 1);
    response[2] |= 0x80;
    for silent in [
        b"short".to_vec(),
        response,
        vec![0; limits::DNS_MESSAGE + 1],
    ] {
        socket.send_to(&silent, session.dns_udp).await.unwrap();
    }
    let mut buffer = [0; 512];
    let nothing = tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut buffer)).await;
    assert!(nothing.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tcp_it_is_the_same() {
    let session = Session::start(PolicyBuilder::default()).await;
    let mut stream = TcpStream::connect(session.dns_tcp).await.unwrap();
    let mut seen = Vec::new();
    for name in ["a.example", "b.example", "a.example"] {
        let message = query(9, name, 1);
        let mut framed = (message.len() as u16).to_be_bytes().to_vec();
        framed.extend(message);
        // Cut in the middle of the length and of the message.
        for piece in framed.chunks(1) {
            stream.write_all(piece).await.unwrap();
        }
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!((code(&answer), answers(&answer)), (0, 1));
        seen.push(answer[answer.len() - 4..].to_vec());
    }
    assert_eq!(seen[0], seen[2]);
    assert_ne!(seen[0], seen[1]);
    // A longer message than may be ends the connection.
    stream
        .write_u16(limits::DNS_MESSAGE as u16 + 1)
        .await
        .unwrap();
    assert!(read_all(&mut stream).await.unwrap_or_default().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dns_connections_beyond_the_bound_wait() {
    let session = Session::start(PolicyBuilder::default()).await;
    let mut open = Vec::new();
    for _ in 0..limits::DNS_TCP_CONNECTIONS {
        open.push(TcpStream::connect(session.dns_tcp).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut next = TcpStream::connect(session.dns_tcp).await.unwrap();
    let message = query(9, "a.example", 1);
    next.write_u16(message.len() as u16).await.unwrap();
    next.write_all(&message).await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(200), next.read_u16()).await;
    assert!(waits.is_err());
    open.pop();
    assert!(next.read_u16().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_enforcer_refuses_has_no_address() {
    let session = Session::start(PolicyBuilder::default()).await;
    for (refusal, expected) in [("pool_exhausted", 2), ("log_full", 2), ("rate_limited", 5)] {
        session.manners.lock().unwrap().refusal = Some(refusal.to_owned());
        let answer = session.query(&query(1, "a.example", 1)).await.unwrap();
        assert_eq!(
            (code(&answer), answers(&answer)),
            (expected, 0),
            "{refusal}"
        );
        session.event(refusal).await;
    }
    session.manners.lock().unwrap().refusal = None;
    session.ask("a.example").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_that_wait_for_the_enforcer_are_bounded_and_do_not_wait_for_ever() {
    let session = Session::start(PolicyBuilder::default()).await;
    session.manners.lock().unwrap().silent = true;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut buffer = [0; 512];
    for i in 0..limits::PENDING_ALLOCATES {
        let message = query(i as u16, &format!("n{i}.example"), 1);
        socket.send_to(&message, session.dns_udp).await.unwrap();
        // The socket's buffer is no part of this.
        if i % 64 == 63 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let early = tokio::time::timeout(Duration::from_millis(200), socket.recv(&mut buffer)).await;
    assert!(early.is_err(), "the bound itself fits");
    socket
        .send_to(&query(9999, "one-more.example", 1), session.dns_udp)
        .await
        .unwrap();
    let n = socket.recv(&mut buffer).await.unwrap();
    assert_eq!(
        (
            u16::from_be_bytes([buffer[0], buffer[1]]),
            code(&buffer[..n])
        ),
        (9999, 2)
    );
    // The first ones end as well.
    let wait = limits::CHANNEL_ANSWER + Duration::from_secs(2);
    let late = tokio::time::timeout(wait, socket.recv(&mut buffer)).await;
    assert_eq!(code(&buffer[..late.unwrap().unwrap()]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denials_in_the_log_are_bounded_and_the_rest_is_counted() {
    let session = Session::start(PolicyBuilder::default()).await;
    let many = limits::DENIAL_BURST as usize + 600;
    for i in 0..many {
        session.ask(&format!("n{i}.example")).await;
    }
    let lost = session.event("gateway-events-lost").await;
    assert!(lost.lost.unwrap() > 0);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let events = session.events();
    let denied = events.iter().filter(|e| e.reason == "not-listed").count() as u64;
    let lost: u64 = events.iter().filter_map(|e| e.lost).sum();
    assert_eq!(denied + lost, many as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dns_connection_carries_so_many_queries() {
    let session = Session::start(PolicyBuilder::default()).await;
    let mut stream = TcpStream::connect(session.dns_tcp).await.unwrap();
    let message = query(9, "a.example", 1);
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    for _ in 0..limits::DNS_TCP_QUERIES {
        stream.write_all(&framed).await.unwrap();
        let length = stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        stream.read_exact(&mut answer).await.unwrap();
    }
    let _ = stream.write_all(&framed).await;
    assert!(read_all(&mut stream).await.unwrap_or_default().is_empty());
}
