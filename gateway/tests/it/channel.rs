//! The channel itself: whatever is wrong with it ends the gateway.

use std::os::fd::AsRawFd;
use std::time::Duration;

use api::v1::{self, to_gateway};
use nix::sys::socket::{Shutdown, shutdown};
use prost::Message;

use crate::harness::*;

async fn end(mut session: Session) -> String {
    let ended = session.ended.take().unwrap();
    tokio::time::timeout(Duration::from_secs(3), ended)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_when_the_enforcer_does() {
    let session = Session::start(PolicyBuilder::default()).await;
    shutdown(session.enforcer.as_raw_fd(), Shutdown::Both).unwrap();
    assert!(end(session).await.contains("closed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_on_a_message_that_it_does_not_understand() {
    for bytes in [&b"\xff\xff\xff"[..], b"\x7a\x00", &[8; 70_000]] {
        let session = Session::start(PolicyBuilder::default()).await;
        send_to_gateway(&session.enforcer, bytes, &[]);
        assert!(end(session).await.contains("malformed"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_on_descriptors_that_are_missing_or_too_many() {
    for fds in [0, 1, 2, 4] {
        let session = Session::start(PolicyBuilder::default()).await;
        let null = std::fs::File::open("/dev/null").unwrap();
        let wired = to_gateway::Message::Wired(v1::Wired { netns_cookie: 1 });
        session.send(wired, &vec![null.as_raw_fd(); fds]);
        let said = end(session).await;
        assert!(said.contains("malformed"), "{fds}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_on_a_snapshot_that_somebody_could_still_change() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    session.generation = 2;
    let document = session
        .document(PolicyBuilder::default().build())
        .encode_to_vec();
    let file = memory_file(&document);
    session.send(
        to_gateway::Message::Snapshot(v1::Snapshot { generation: 2 }),
        &[file.as_raw_fd()],
    );
    assert!(end(session).await.contains("sealed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_on_a_policy_that_does_not_read() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    session.generation = 2;
    let mut document = session.document(PolicyBuilder::default().build());
    document.policy = b"{\"version\":1,\"more\":true}".to_vec();
    let file = sealed(&document.encode_to_vec());
    session.send(
        to_gateway::Message::Snapshot(v1::Snapshot { generation: 2 }),
        &[file.as_raw_fd()],
    );
    assert!(end(session).await.contains("policy"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_to_nobody_are_ignored() {
    let session = Session::start(PolicyBuilder::default()).await;
    session.send(
        to_gateway::Message::Recorded(v1::Recorded {
            written: vec![99],
            refused: vec![98],
        }),
        &[],
    );
    session.send(
        to_gateway::Message::Allocated(v1::Allocated {
            id: 99,
            address: 0xc612_0100,
            refusal: String::new(),
        }),
        &[],
    );
    session.ask("a.example").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_sockets_replace_the_first() {
    let mut session = Session::start(PolicyBuilder::default()).await;
    let first = (session.dns_udp, session.listener_port);
    session.wire("127.0.0.1:0".parse().unwrap());
    session.ask("a.example").await;
    assert_ne!(session.dns_udp, first.0);
    // Nobody holds the first listener any more but this test, which has closed its own.
    let refused = tokio::net::TcpStream::connect(("127.0.0.1", first.1)).await;
    assert!(refused.is_err());
}
