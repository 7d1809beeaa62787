//! Frames of a WebSocket under inspectors: what is blocked closes both sides and does not arrive, everything else does as it was.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::Verdict;
use gateway::inspect::frames::unmask;
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::http::rule;
use crate::inspection::key_id;

type Heard = Arc<Mutex<Vec<u8>>>;

const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A server that writes down its request's head and what follows, and says `hello` in a frame.
async fn server(extension: bool) -> (u16, Heard) {
    let heard = Heard::default();
    let port = {
        let heard = Arc::clone(&heard);
        upstream(move |mut stream| {
            let heard = Arc::clone(&heard);
            async move {
                let head = head(&mut stream).await;
                heard.lock().unwrap().extend_from_slice(head.as_bytes());
                let extension = if extension {
                    "Sec-WebSocket-Extensions: permessage-deflate\r\n"
                } else {
                    ""
                };
                let answer = format!(
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{ACCEPT}{extension}\r\n"
                );
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.write_all(b"\x81\x05hello").await.unwrap();
                let mut bytes = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut bytes).await {
                    heard.lock().unwrap().extend_from_slice(&bytes[..n]);
                }
            }
        })
        .await
    };
    (port, heard)
}

async fn switched(policy: PolicyBuilder, port: u16) -> (Session, TcpStream, String) {
    let mut session = Session::start(policy).await;
    let door: SocketAddr = session.door("api.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: api.example.com:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = head(&mut stream).await;
    (session, stream, answer)
}

async fn open(policy: impl FnOnce(u16) -> PolicyBuilder) -> (Session, TcpStream, Heard) {
    let (port, heard) = server(false).await;
    let (session, mut stream, answer) = switched(policy(port), port).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let mut hello = [0; 7];
    stream.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"\x81\x05hello");
    let said = String::from_utf8(std::mem::take(&mut *heard.lock().unwrap())).unwrap();
    let said = said.to_ascii_lowercase();
    assert!(
        said.contains("upgrade: websocket") && !said.contains("extensions"),
        "{said}"
    );
    (session, stream, heard)
}

async fn hears(heard: &Heard, wanted: &[u8]) {
    for _ in 0..500 {
        if *heard.lock().unwrap() == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let heard = heard.lock().unwrap();
    panic!(
        "{} bytes of {}: {:?}",
        heard.len(),
        wanted.len(),
        &heard[..heard.len().min(80)]
    );
}

/// The server hears that it is over, and why, and nothing else.
async fn said(heard: &Heard, code: &[u8]) {
    for _ in 0..500 {
        let heard = heard.lock().unwrap().clone();
        if heard.first() == Some(&0x88) && payload(&heard) == code {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", heard.lock().unwrap());
}

/// The messages in what the server heard.
fn payload(mut heard: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while heard.len() >= 6 {
        let (length, at) = match heard[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes([heard[2], heard[3]])), 4),
            short => (usize::from(short), 2),
        };
        let mask = [heard[at], heard[at + 1], heard[at + 2], heard[at + 3]];
        let end = (at + 4 + length).min(heard.len());
        unmask(&heard[at + 4..end], mask, &mut out);
        heard = &heard[end..];
    }
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_as_they_were_however_they_are_cut() {
    let (session, mut stream, heard) = open(rule).await;
    let id = key_id();
    let stream_of = [
        frame(0x81, b"a message"),
        frame(0x01, format!("AKIA {}", &id[..10]).as_bytes()),
        frame(0x89, b"ping"),
        frame(0x80, b" and its end"),
        frame(0x82, &(0..200_000u32).map(|n| n as u8).collect::<Vec<_>>()),
        // One that ends like the beginning of a key does not wait for the next.
        frame(0x81, &id.as_bytes()[..12]),
    ]
    .concat();
    for piece in [&stream_of[..1], &stream_of[1..40], &stream_of[40..]] {
        stream.write_all(piece).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    hears(&heard, &stream_of).await;
    let close = frame(0x88, &[3, 232]);
    stream.write_all(&close).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty());
    hears(&heard, &[stream_of, close].concat()).await;
    session.event("closed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_with_a_key_closes_both_sides_and_does_not_arrive() {
    let id = key_id();
    let text = format!("the key is {id}, keep it");
    let (head, tail) = text.split_at(18);
    let fragments = [frame(0x01, head.as_bytes()), frame(0x80, tail.as_bytes())].concat();
    for stream_of in [
        frame(0x81, text.as_bytes()),
        frame(0x82, text.as_bytes()),
        frame(0x89, text.as_bytes()),
        [
            frame(0x01, head.as_bytes()),
            frame(0x89, b"x"),
            frame(0x80, tail.as_bytes()),
        ]
        .concat(),
        fragments,
    ] {
        for size in [1, 5, 1000] {
            let (session, mut stream, heard) = open(rule).await;
            let good = frame(0x81, b"good");
            stream.write_all(&good).await.unwrap();
            hears(&heard, &good).await;
            for piece in stream_of.chunks(size) {
                if stream.write_all(piece).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let mut last = Vec::new();
            let ended = stream.read_to_end(&mut last).await;
            if ended.is_ok() {
                assert!(
                    last.starts_with(&[0x88]) && last[2..4] == [3, 240],
                    "{last:?}"
                );
                let reason = String::from_utf8_lossy(&last[4..]).into_owned();
                assert!(reason.contains("aws-access-key-id"), "{reason}");
                assert!(!reason.contains(&id));
            }
            let event = session.event("inspection-secret").await;
            assert_eq!(event.verdict, Verdict::Deny);
            assert!(event.detail.unwrap().contains("WebSocket's message"));
            tokio::time::sleep(Duration::from_millis(50)).await;
            let heard = heard.lock().unwrap().clone();
            let heard = String::from_utf8_lossy(&payload(&heard)).into_owned();
            assert!(heard.starts_with("good"), "{heard}");
            assert!(!heard.contains(&id[4..6]), "{size}: {heard}");
        }
    }
    // Whole at once, the agent is told why, and the server that it is over.
    let (_session, mut stream, heard) = open(rule).await;
    stream
        .write_all(&frame(0x81, text.as_bytes()))
        .await
        .unwrap();
    let mut last = Vec::new();
    stream.read_to_end(&mut last).await.unwrap();
    assert_eq!((last[0], &last[2..4]), (0x88, &[3, 240][..]));
    said(&heard, &[3, 240]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flagged_message_arrives_and_what_is_no_frame_does_not() {
    let id = key_id();
    let flags = |port| rule(port).inspect(&[("secrets", "flag")]);
    let (session, mut stream, heard) = open(flags).await;
    let message = frame(0x81, id.as_bytes());
    stream.write_all(&message).await.unwrap();
    hears(&heard, &message).await;
    let event = session.event("inspection-secret").await;
    assert_eq!(event.verdict, Verdict::Flag);
    for bad in [
        &b"\x81\x05plain"[..],
        &frame(0xc1, b"x"),
        &frame(0x83, b"x"),
    ] {
        let (session, mut stream, heard) = open(rule).await;
        stream.write_all(bad).await.unwrap();
        let mut last = Vec::new();
        stream.read_to_end(&mut last).await.unwrap();
        assert_eq!((last[0], &last[2..4]), (0x88, &[3, 234][..]), "{bad:?}");
        session.event("websocket-frame").await;
        said(&heard, &[3, 234]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_a_credential_is_blocked_in_frames_whatever_the_levels() {
    let off = ["secrets", "base64", "contentType", "entropy"].map(|name| (name, "off"));
    let placeholder = "ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3";
    let policy = |port| {
        let mut policy = rule(port).inspect(&off);
        crate::credentials::grant(&mut policy, port ^ 1, Some("GITHUB_TOKEN"));
        policy.rule(crate::https::NAME, port ^ 1, Protocol::Https)
    };
    for stream_of in [
        frame(0x81, placeholder.as_bytes()),
        [
            frame(0x01, &placeholder.as_bytes()[..9]),
            frame(0x80, &placeholder.as_bytes()[9..]),
        ]
        .concat(),
    ] {
        let (session, mut stream, _) = open(policy).await;
        stream.write_all(&stream_of).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let event = session.event("credential-misplaced").await;
        assert_eq!(event.verdict, Verdict::Deny);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_without_end_behind_an_open_message_end_it() {
    let (session, mut stream, _heard) = open(rule).await;
    // The beginning of a key, and then nothing, again and again: no payload that would decide about it.
    stream.write_all(b"\x01\x84\0\0\0\0AKIA").await.unwrap();
    let nothing = b"\x00\x80\0\0\0\0".repeat(1000);
    let mut sent = 0;
    while sent < 64 << 20 && stream.write_all(&nothing).await.is_ok() {
        sent += nothing.len();
    }
    assert!(sent < 64 << 20, "it holds all of them");
    session
        .event_where("encoding", |e| e.reason == "inspection-encoding")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_compresses_unasked_is_a_502() {
    let (port, _) = server(true).await;
    let (session, _stream, answer) = switched(rule(port), port).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    session.event("http-upgrade").await;
}

/// A server's frame of up to 125 bytes.
fn said_by_server(first: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[first, length], payload.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credentials_value_is_taken_out_of_what_a_server_sends() {
    use crate::credentials::{STAND_IN, VALUE, grant};
    let messages = |value: &str| {
        let (one, two) = value.split_at(28);
        [
            said_by_server(0x81, &format!("your token is {value}.")),
            said_by_server(0x01, one),
            said_by_server(0x89, "are you there"),
            said_by_server(0x80, two),
            said_by_server(0x82, value),
        ]
        .concat()
    };
    // What comes with the 101, at once, and in pieces.
    for size in [usize::MAX, 1, 10] {
        let port = upstream(move |mut stream| async move {
            head(&mut stream).await;
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{ACCEPT}\r\n"
            );
            let mut bytes = messages(VALUE);
            let mut first = answer.into_bytes();
            if size == usize::MAX {
                first.append(&mut bytes);
            }
            stream.write_all(&first).await.unwrap();
            for piece in bytes.chunks(size.min(bytes.len().max(1))) {
                stream.write_all(piece).await.unwrap();
                stream.flush().await.unwrap();
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            let _ = stream.read(&mut [0; 64]).await;
        })
        .await;
        let mut policy = rule(port);
        grant(&mut policy, 9, Some("GITHUB_TOKEN"));
        let (_session, mut stream, answer) = switched(policy, port).await;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        let wanted = messages(STAND_IN);
        let mut got = vec![0; wanted.len()];
        let read = tokio::time::timeout(Duration::from_secs(20), stream.read_exact(&mut got));
        read.await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&got).into_owned();
        // In small pieces, twenty-three characters of it had passed before the rest of it came.
        assert!(!text.contains(&VALUE[..24]), "{text}");
        if size == usize::MAX {
            assert_eq!(text, String::from_utf8_lossy(&wanted));
        }
    }
}
