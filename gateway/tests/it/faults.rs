//! Servers and clients that misbehave: nothing that breaks off looks whole, what is without end is given up with the one who
//! asked for it, floods end their own connection and leave the others alone, and memory stays within its bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::harness::{PolicyBuilder, upstream};
use crate::https::{NAME, Scene, Seen, World, speak};
use crate::two::{PREFACE, frame};

/// How a server answers the first request of a connection.
#[derive(Clone, Copy, Debug)]
enum Fault {
    ResetBeforeHead,
    CloseBeforeHead,
    ResetInBody,
    CloseInBody,
    CloseInChunk,
    LongHead,
    ManyFields,
    LongStatusLine,
    NoHttp,
    TwoLengths,
    Endless,
    Silent,
}

async fn misbehave(mut stream: TlsStream<TcpStream>, fault: Fault) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let reset = |stream: TlsStream<TcpStream>| {
        let _ = stream.get_ref().0.set_zero_linger();
    };
    let mut say = Vec::new();
    match fault {
        Fault::ResetBeforeHead => return reset(stream),
        Fault::CloseBeforeHead => return,
        Fault::ResetInBody | Fault::CloseInBody => {
            say.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        }
        Fault::CloseInChunk => {
            say.extend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf");
        }
        Fault::LongHead => {
            say.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ");
            say.extend(vec![b'a'; 70 * 1024]);
            say.extend(b"\r\n\r\n");
        }
        Fault::ManyFields => {
            say.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n");
            (0..300).for_each(|n| say.extend(format!("X-{n}: a\r\n").into_bytes()));
            say.extend(b"\r\n");
        }
        Fault::LongStatusLine => {
            say.extend(b"HTTP/1.1 200 ");
            say.extend(vec![b'a'; 70 * 1024]);
            say.extend(b"\r\nContent-Length: 0\r\n\r\n");
        }
        Fault::NoHttp => say.extend(b"220 mail.example.com ESMTP\r\n\r\n"),
        Fault::TwoLengths => {
            say.extend(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc");
        }
        Fault::Endless => {
            say.extend(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            if stream.write_all(&say).await.is_err() {
                return;
            }
            let chunk = [&b"4000\r\n"[..], &[b'x'; 0x4000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            return;
        }
        Fault::Silent => {
            let _ = stream.read_u8().await;
            return;
        }
    }
    let _ = stream.write_all(&say).await;
    let _ = stream.flush().await;
    // In the body: the head has been carried on.
    match fault {
        Fault::ResetInBody => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            reset(stream);
        }
        Fault::CloseInBody | Fault::CloseInChunk => {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        _ => {}
    }
}

/// A server of HTTP/1.1 that misbehaves, and how many of its connections are open.
async fn scene(fault: Fault) -> (Scene, Arc<AtomicUsize>) {
    let world = World::new();
    let acceptor = TlsAcceptor::from(Arc::new(world.certified(NAME, |_| {})));
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let port = upstream(move |stream| {
        let (acceptor, open) = (acceptor.clone(), Arc::clone(&counted));
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                open.fetch_add(1, Ordering::SeqCst);
                misbehave(stream, fault).await;
                open.fetch_sub(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    let scene = Scene::of_with(&world, policy, port, Seen::default(), |options| {
        options.patience.half_closed = Duration::from_secs(1);
    });
    (scene.await, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_misbehaves_before_its_answer_begins_is_a_502() {
    for fault in [
        Fault::ResetBeforeHead,
        Fault::CloseBeforeHead,
        Fault::LongHead,
        Fault::ManyFields,
        Fault::LongStatusLine,
        Fault::NoHttp,
        Fault::TwoLengths,
    ] {
        let (scene, _) = scene(fault).await;
        for version in ["--http1.1", "--http2"] {
            let got = scene.curl("/", &[version]).await;
            assert_eq!(got.status, 502, "{fault:?} {version} {}", got.headers);
            assert_eq!(got.code, 0, "{fault:?} {version}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_does_not_look_whole() {
    for fault in [Fault::ResetInBody, Fault::CloseInBody, Fault::CloseInChunk] {
        let (scene, _) = scene(fault).await;
        for version in ["--http1.1", "--http2"] {
            let got = scene.curl("/", &[version]).await;
            assert_eq!(got.status, 200);
            // Partial file, reset, or an error of the stream (curl's EXIT CODES).
            assert!(
                [18, 56, 92].contains(&got.code),
                "{fault:?} {version}: curl ended with {}",
                got.code
            );
        }
        scene
            .session
            .event_where("broken-off", |e| e.reason == "broken-off")
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_without_end_is_given_up_with_the_one_who_asked() {
    for fault in [Fault::Endless, Fault::Silent] {
        let (scene, open) = scene(fault).await;
        for version in ["--http1.1", "--http2"] {
            let got = scene
                .curl("/", &[version, "-m", "1", "-o", "/dev/null"])
                .await;
            assert_eq!(
                got.code, 28,
                "{fault:?} {version}: it went on until curl left"
            );
            for _ in 0..500 {
                if open.load(Ordering::SeqCst) == 0 {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(
                open.load(Ordering::SeqCst),
                0,
                "{fault:?} {version}: it goes on"
            );
        }
    }
}

/// The head of a GET for / (RFC 7541, A): four fields, the authority spelt out.
fn head(port: u16) -> Vec<u8> {
    let authority = format!("{NAME}:{port}");
    let mut out = vec![0x82, 0x87, 0x84, 0x41, authority.len() as u8];
    out.extend(authority.as_bytes());
    out
}

/// Bytes of a flood, a piece at a time.
fn flood(kind: &str, n: u32, port: u16) -> Vec<u8> {
    let stream = 2 * n + 1;
    match kind {
        // CVE-2023-44487.
        "rapid-reset" => [
            frame(1, 5, stream, &head(port)),
            frame(3, 0, stream, &[0, 0, 0, 8]),
        ]
        .concat(),
        "ping" => frame(6, 0, 0, &[0; 8]),
        "settings" => frame(4, 0, 0, &[]),
        "window" => frame(8, 0, 0, &[0, 0, 0, 1]),
        "priority" => frame(2, 0, stream, &[0, 0, 0, 0, 1]),
        // A head without its end (CVE-2024-27316).
        "continuation" if n == 0 => frame(1, 1, 1, &head(port)),
        "continuation" => {
            let mut field = vec![0, 1, b'x', 100];
            field.extend([b'a'; 100]);
            frame(9, 0, 1, &field)
        }
        "empty-data" if n == 0 => frame(1, 4, 1, &head(port)),
        "empty-data" => frame(0, 0, 1, &[]),
        _ => unreachable!(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_frames_ends_its_own_connection_or_nothing() {
    let scene = Scene::new(&["h2", "http/1.1"]).await;
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.unwrap().split_whitespace().next().unwrap();
        number.parse::<u64>().unwrap()
    };
    let before = resident();
    for kind in [
        "rapid-reset",
        "ping",
        "settings",
        "window",
        "priority",
        "continuation",
        "empty-data",
    ] {
        let mut stream = speak(&scene, b"h2").await;
        let mut preface = PREFACE.to_vec();
        preface.extend(frame(4, 0, 0, &[]));
        stream.write_all(&preface).await.unwrap();
        let (mut read, mut write) = tokio::io::split(stream);
        // Its answers are read, so that nothing waits for room.
        let reading = tokio::spawn(async move {
            let mut sink = vec![0; 65536];
            while matches!(read.read(&mut sink).await, Ok(1..)) {}
        });
        let sending = async {
            for n in 0..30_000 {
                if write.write_all(&flood(kind, n, scene.port)).await.is_err() {
                    return;
                }
            }
            let _ = write.flush().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(20), sending).await;
        let got = scene.curl("/beside", &["--http2"]).await;
        assert_eq!(got.status, 200, "{kind}: {}", got.headers);
        reading.abort();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB more than before");
}
