//! Behind an `upstream_proxy`: names go through it by CONNECT, literal addresses do not, hosts of the host's own still win.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// A proxy that answers CONNECT with this head, then relays to a port of loopback.
async fn proxy(answer: &'static str, to: u16) -> (u16, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let port = {
        let heard = Arc::clone(&heard);
        upstream(move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                heard.lock().unwrap().push(String::from_utf8(head).unwrap());
                // The head and the target's first words in one segment.
                let first = [answer.as_bytes(), b"220 ready\r\n"].concat();
                stream.write_all(&first).await.unwrap();
                if answer.contains(" 200 ") {
                    let mut target = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
                }
            }
        })
        .await
    };
    (port, heard)
}

fn behind(proxy: u16, policy: PolicyBuilder) -> PolicyBuilder {
    let mut policy = policy;
    policy.gateway.upstream_proxy = Some(format!("http://127.0.0.1:{proxy}").parse().unwrap());
    policy
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_goes_through_the_proxy_unresolved() {
    let port = echo().await;
    let (through, heard) = proxy(
        "HTTP/1.1 200 Connection established\r\nX-Proxy: 1\r\n\r\n",
        port,
    )
    .await;
    let policy = PolicyBuilder::default().rule("db.example.com", 5432, Protocol::Tcp);
    let mut session = Session::start(behind(through, policy)).await;
    let door = session.door("db.example.com", 5432).await;
    let answer = exchange(door, b"hello").await.unwrap();
    assert_eq!(answer, b"220 ready\r\nhello");
    assert_eq!(
        heard.lock().unwrap()[0],
        "CONNECT db.example.com:5432 HTTP/1.1\r\nHost: db.example.com:5432\r\n\r\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_refuses_or_talks_nonsense_is_told() {
    for answer in [
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "SSH-2.0\r\n\r\n",
    ] {
        let (through, _) = proxy(answer, 0).await;
        let policy = PolicyBuilder::default().rule("db.example.com", 5432, Protocol::Tcp);
        let mut session = Session::start(behind(through, policy)).await;
        let door = session.door("db.example.com", 5432).await;
        assert!(exchange(door, b"hello").await.is_err(), "{answer}");
        session.event("proxy-refused").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_literal_address_is_not_dialled_behind_a_proxy() {
    let (through, heard) = proxy("HTTP/1.1 200 OK\r\n\r\n", 0).await;
    let policy = PolicyBuilder::default().network("192.0.2.0/24", 5432, Protocol::Tcp);
    let mut session = Session::start(behind(through, policy)).await;
    let door = session.door_to(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 5432));
    assert!(exchange(door, b"hello").await.is_err());
    session.event("address-refused").await;
    assert!(heard.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_the_hosts_own_is_dialled_directly() {
    let port = echo().await;
    let (through, heard) = proxy("HTTP/1.1 200 OK\r\n\r\n", 0).await;
    let policy = PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .host("db.example.com");
    let mut session = Session::start(behind(through, policy)).await;
    let door = session.door("db.example.com", port).await;
    assert_eq!(exchange(door, b"hello").await.unwrap(), b"hello");
    assert!(heard.lock().unwrap().is_empty());
}
