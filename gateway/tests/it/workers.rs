//! Connections on more than one thread: each thread's events go by a lane of its own, and whichever of them ends, or says what
//! a lane is not for, ends the gateway.

use std::os::fd::AsRawFd;
use std::time::Duration;

use api::v1::{ToGateway, Wired, to_gateway};
use audit::{Event, Kind};
use gateway::Worker;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, shutdown};
use prost::Message;
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

fn tcp(port: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .host("db.example.com")
}

/// A session with a second thread, and the enforcer's end of its lane.
async fn start(policy: PolicyBuilder) -> (Session, Lane) {
    let (lane, theirs) = Lane::new();
    let worker = Worker::start(theirs).unwrap();
    let session = Session::start_with(policy, |options| options.workers.push(worker)).await;
    (session, lane)
}

fn connections(events: &[Event], reason: &str) -> usize {
    let is = |event: &&Event| event.kind == Kind::Connect && event.reason == reason;
    events.iter().filter(is).count()
}

/// Asks something and stays; an answer is its own.
async fn talk(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"who").await?;
    stream.read_exact(&mut [0; 3]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_over_threads_and_each_is_on_record_by_its_threads_lane() {
    let port = echo().await;
    let (mut session, lane) = start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        talk(&mut stream).await.unwrap();
        open.push(stream);
    }
    assert_eq!(connections(&session.events(), "allowed"), 2);
    assert_eq!(connections(&lane.events(), "allowed"), 2);
    drop(open);
    for _ in 0..100 {
        let ends = [session.events(), lane.events()].map(|events| connections(&events, "closed"));
        if ends == [2, 2] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("their ends are not on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lane_cannot_record_is_not_carried() {
    let port = echo().await;
    let (mut session, lane) = start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut first = TcpStream::connect(door).await.unwrap();
    talk(&mut first).await.unwrap();
    lane.manners.lock().unwrap().refuse_asked = true;
    let mut second = TcpStream::connect(door).await.unwrap();
    assert!(talk(&mut second).await.is_err());
    talk(&mut first).await.unwrap();
    lane.manners.lock().unwrap().refuse_asked = false;
    // One of two goes by the lane again, whether the refused one still counts or not.
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        talk(&mut stream).await.unwrap();
        open.push(stream);
    }
    assert_eq!(connections(&lane.events(), "allowed"), 1);
    for _ in 0..100 {
        if connections(&lane.events(), "not-recorded") == 1 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("why is not on record");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_lane_and_what_it_is_not_for_end_the_gateway() {
    let wired = ToGateway {
        message: Some(to_gateway::Message::Wired(Wired { netns_cookie: 1 })),
    };
    for (bytes, why) in [(None, "closed"), (Some(wired.encode_to_vec()), "malformed")] {
        let (mut session, lane) = start(PolicyBuilder::default()).await;
        match bytes {
            None => shutdown(lane.fd.as_raw_fd(), Shutdown::Both).unwrap(),
            Some(bytes) => send_to_gateway(&lane.fd, &bytes, &[]),
        }
        let ended = session.ended.take().unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(3), ended).await;
        let said = ended.unwrap().unwrap();
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_takes_the_right_away_closes_the_connections_of_every_thread_before_it_counts_as_applied()
 {
    let port = echo().await;
    let (mut session, lane) = start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut open = Vec::new();
    for _ in 0..256 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        talk(&mut stream).await.unwrap();
        open.push(stream);
    }
    assert!(connections(&lane.events(), "allowed") > 64);
    let at_its_end = |stream: &TcpStream| {
        let read = recv(stream.as_raw_fd(), &mut [0; 1], MsgFlags::MSG_DONTWAIT);
        read != Err(Errno::EAGAIN)
    };
    assert!(!open.iter().any(at_its_end));
    session.apply(PolicyBuilder::default()).await;
    // Without waiting for anything more.
    let ended = open.iter().filter(|stream| at_its_end(stream)).count();
    assert_eq!(ended, open.len());
}
