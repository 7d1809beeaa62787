//! Servers of HTTP/2 that misbehave, in raw frames: whoever asked gets a clean failure in time, the streams beside it on the same
//! connection what is theirs or a failure of their own, the next request a server that behaves; and memory stays within its bound.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::harness::{PolicyBuilder, upstream};
use crate::https::{NAME, Scene, Seen, World, speak};
use crate::two::*;

type Out = WriteHalf<TlsStream<TcpStream>>;

/// How a POST is answered. GET is answered as it should be; of PUT half is, and the other half once a POST has had its answer.
#[derive(Clone)]
struct Fault {
    what: &'static str,
    /// The frames for a stream. An empty one stands for the end of the connection.
    answer: fn(u32) -> Vec<Vec<u8>>,
    /// Then this, again and again, for as long as it is taken.
    again: fn(u32) -> Vec<u8>,
    comes: Comes,
    /// What stands beside it on the connection is not touched.
    alone: bool,
    /// The other half of what stands beside it takes its time.
    later: bool,
}

/// What whoever asked gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comes {
    /// A refusal in words.
    Status(u16),
    /// An answer that breaks off.
    Broken,
    /// Either: it depends on what overtakes what.
    Failure,
    Whole,
    /// Nothing, until it is given up.
    Nothing,
}

fn never(_: u32) -> Vec<u8> {
    Vec::new()
}

fn said(stream: u32, end: bool, fields: &Fields) -> Vec<u8> {
    head(stream, end, &block(fields), 16_000)
}

const OK: (&[u8], &[u8]) = (b":status", b"200");

fn ok(stream: u32, fields: &Fields) -> Vec<u8> {
    said(stream, false, &[&[OK], fields].concat())
}

fn half(stream: u32) -> Vec<u8> {
    frame(DATA, 0, stream, b"half")
}

fn reset(stream: u32, code: u8) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, code])
}

fn farewell(last: u32, code: u8) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0, 0, 0, code]);
    frame(GOAWAY, 0, 0, &payload)
}

fn end() -> Vec<u8> {
    Vec::new()
}

macro_rules! fault {
    ($what:literal, $comes:expr, alone: $alone:literal, |$stream:ident| [$($frame:expr),* $(,)?]) => {
        Fault {
            what: $what,
            answer: |$stream| vec![$($frame),*],
            again: never,
            comes: $comes,
            alone: $alone,
            later: false,
        }
    };
}

fn before_its_head() -> Vec<Fault> {
    let refused = Comes::Status(502);
    vec![
        fault!("a reset", refused, alone: true, |id| [reset(id, 2)]),
        fault!("a stream refused", refused, alone: true, |id| [reset(id, 7)]),
        fault!("a farewell", refused, alone: false, |_id| [farewell(0, 0), end()]),
        fault!("a farewell with an error", refused, alone: false, |_id| [farewell(0, 11), end()]),
        fault!("an end", refused, alone: false, |_id| [end()]),
        fault!("no status", refused, alone: true, |id| [said(id, true, &[(b"x-a", b"b")])]),
        fault!("two statuses", refused, alone: true, |id| [said(id, true, &[OK, OK])]),
        fault!("a status behind a field", refused, alone: true, |id| [said(id, true, &[(b"x-a", b"b"), OK])]),
        fault!("a status of letters", refused, alone: false, |id| [said(id, true, &[(b":status", b"abc")])]),
        fault!("a status of two digits", refused, alone: false, |id| [said(id, true, &[(b":status", b"20")])]),
        fault!("a status of four digits", refused, alone: false, |id| [said(id, true, &[(b":status", b"2000")])]),
        fault!("a switch", refused, alone: true, |id| [said(id, false, &[(b":status", b"101")]), reset(id, 2)]),
        fault!("a pseudo-field that nobody knows", refused, alone: false, |id| [ok(id, &[(b":foo", b"bar")])]),
        fault!("a name in upper case", refused, alone: false, |id| [ok(id, &[(b"X-A", b"b")])]),
        fault!("a line in a value", refused, alone: false, |id| [ok(id, &[(b"x-a", b"b\r\nx-evil: c")])]),
        fault!("a NUL in a value", refused, alone: false, |id| [ok(id, &[(b"x-a", b"b\0c")])]),
        fault!("connection", refused, alone: true, |id| [ok(id, &[(b"connection", b"close")])]),
        fault!("transfer-encoding", refused, alone: true, |id| [ok(id, &[(b"transfer-encoding", b"chunked")])]),
        fault!("a length with a sign", refused, alone: true, |id| [ok(id, &[(b"content-length", b"+4")])]),
        fault!("two lengths", refused, alone: true, |id| [ok(id, &[(b"content-length", b"4"), (b"content-length", b"5")])]),
        fault!("two lengths that agree", refused, alone: true, |id| [
            ok(id, &[(b"content-length", b"4"), (b"content-length", b"4")]),
            frame(DATA, END_STREAM, id, b"half"),
        ]),
        fault!("a length of nothing", refused, alone: true, |id| [
            said(id, true, &[OK, (b"content-length", b"4")]),
        ]),
        fault!("a body where there is none", refused, alone: true, |id| [
            said(id, false, &[(b":status", b"204"), (b"content-length", b"4")]),
            frame(DATA, END_STREAM, id, b"half"),
        ]),
        fault!("data ahead of the head", refused, alone: false, |id| [half(id), ok(id, &[])]),
        fault!("a head of a stream that nobody opened", refused, alone: false, |id| [ok(id + 100, &[])]),
        fault!("a head of a stream of its own", refused, alone: false, |_id| [ok(2, &[])]),
        fault!("a promise", refused, alone: false, |id| [
            frame(PUSH_PROMISE, END_HEADERS, id, &[&[0, 0, 0, 2][..], &block(&[(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/evil")])].concat()),
            ok(2, &[]),
        ]),
        fault!("a head that is too long", refused, alone: true, |id| [
            head(id, true, &block(&[OK, (b"x-a", &[b'a'; 70_000])]), 16_000),
        ]),
        fault!("a head that is much too long", refused, alone: false, |id| [
            head(id, true, &block(&[OK, (b"x-a", &[b'a'; 1_000_000])]), 16_000),
        ]),
        // One field in the table, then four thousand times a byte that stands for it.
        fault!("a little that stands for much", refused, alone: false, |id| [{
            let mut block = vec![0x88];
            literal(0x40, b"x-a", &[b'a'; 4000], &mut block);
            block.extend([0xbe; 4000]);
            head(id, true, &block, 16_000)
        }]),
        fault!("a table that is too large", refused, alone: false, |id| [
            head(id, true, &[0x3f, 0xff, 0xff, 0xff, 0x07, 0x88], 16_000),
        ]),
        fault!("an index of nothing", refused, alone: false, |id| [head(id, true, &[0xff, 0x7f], 16_000)]),
        fault!("a frame that is too long", refused, alone: false, |id| [frame(HEADERS, END_HEADERS, id, &vec![0x88; 20_000])]),
        fault!("a window beyond its bound", refused, alone: true, |id| [
            frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]),
            frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]),
        ]),
        fault!("a window of nothing", refused, alone: false, |_id| [frame(WINDOW_UPDATE, 0, 0, &[0; 4])]),
        fault!("another protocol", refused, alone: false, |_id| [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(), end()]),
    ]
}

fn behind_its_head() -> Vec<Fault> {
    let broken = Comes::Broken;
    vec![
        fault!("a reset in the body", broken, alone: true, |id| [ok(id, &[]), half(id), reset(id, 2)]),
        fault!("a cancelled body", broken, alone: true, |id| [ok(id, &[]), half(id), reset(id, 8)]),
        fault!("a reset that says all is well", broken, alone: true, |id| [ok(id, &[]), half(id), reset(id, 0)]),
        fault!("an end in the body", broken, alone: false, |id| [ok(id, &[]), half(id), end()]),
        fault!("a farewell in the body", broken, alone: false, |id| [ok(id, &[]), half(id), farewell(id, 0), end()]),
        fault!("a farewell that leaves it out", broken, alone: false, |id| [ok(id, &[]), half(id), farewell(0, 0), end()]),
        fault!("less than its length", broken, alone: true, |id| [
            ok(id, &[(b"content-length", b"5")]),
            frame(DATA, END_STREAM, id, b"half"),
        ]),
        fault!("more than its length", Comes::Failure, alone: true, |id| [
            ok(id, &[(b"content-length", b"3")]),
            frame(DATA, END_STREAM, id, b"half"),
        ]),
        fault!("another head in the body", broken, alone: true, |id| [ok(id, &[]), half(id), ok(id, &[])]),
        fault!("data of a stream that nobody opened", Comes::Failure, alone: false, |id| [ok(id, &[]), half(id + 100)]),
        fault!("trailers with a line", broken, alone: false, |id| [ok(id, &[]), half(id), said(id, true, &[(b"x-a", b"b\r\nc: d")])]),
        fault!("padding that is longer than its frame", broken, alone: false, |id| [
            ok(id, &[]),
            half(id),
            frame(DATA, PADDED | END_STREAM, id, &[200, b'x']),
        ]),
        in_good_order(),
    ]
}

/// The control: a farewell that is kept.
fn in_good_order() -> Fault {
    fault!("a farewell in good order", Comes::Whole, alone: true, |id| [
        farewell(0x7fff_ffff, 0),
        ok(id, &[(b"content-length", b"4")]),
        farewell(id, 0),
        frame(DATA, END_STREAM, id, b"half"),
    ])
}

fn without_end() -> Vec<Fault> {
    let lasting = |what, again, comes| Fault {
        what,
        answer: |_| Vec::new(),
        again,
        comes,
        alone: false,
        later: false,
    };
    vec![
        Fault {
            answer: |id| vec![frame(HEADERS, 0, id, &[0x88])],
            ..lasting(
                "a head",
                |id| {
                    let mut field = Vec::new();
                    literal(0, b"x-a", &[b'a'; 1000], &mut field);
                    frame(CONTINUATION, 0, id, &field)
                },
                Comes::Status(502),
            )
        },
        Fault {
            answer: |id| vec![frame(HEADERS, 0, id, &[0x88])],
            ..lasting(
                "a head of nothing",
                |id| frame(CONTINUATION, 0, id, &[]),
                Comes::Status(502),
            )
        },
        lasting(
            "answers that are none yet",
            |id| said(id, false, &[(b":status", b"103"), (b"link", b"</x>")]),
            Comes::Nothing,
        ),
        lasting("pings", |_| frame(PING, 0, 0, &[0; 8]), Comes::Nothing),
        lasting("settings", |_| frame(SETTINGS, 0, 0, &[]), Comes::Nothing),
        lasting(
            "windows",
            |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
            Comes::Nothing,
        ),
        lasting(
            "frames that nobody knows",
            |id| frame(0xee, 0, id, &[0; 64]),
            Comes::Nothing,
        ),
        Fault {
            answer: |id| vec![ok(id, &[])],
            ..lasting(
                "data of nothing",
                |id| frame(DATA, 0, id, &[]),
                Comes::Failure,
            )
        },
        // More than any window allows.
        Fault {
            answer: |id| vec![ok(id, &[])],
            ..lasting(
                "data that nobody asked for",
                |id| frame(DATA, 0, id, &[b'x'; 16_384]),
                Comes::Failure,
            )
        },
        lasting("nothing", never, Comes::Nothing),
    ]
}

/// The streams that a connection has asked for, by what its head begins with (RFC 7541, A: 0x82 GET, 0x83 POST).
struct Server {
    fault: Arc<Mutex<Fault>>,
    /// Answers to PUT that wait for their other half.
    waiting: Vec<u32>,
}

/// `false`: the connection has ended.
async fn say(out: &mut Out, frames: &[Vec<u8>]) -> bool {
    for frame in frames {
        if frame.is_empty() {
            let _ = out.flush().await;
            // What was said is not overtaken by its end.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return false;
        }
        if out.write_all(frame).await.is_err() {
            return false;
        }
    }
    out.flush().await.is_ok()
}

impl Server {
    async fn serve(mut self, mut from: ReadHalf<TlsStream<TcpStream>>, mut out: Out) {
        let mut preface = [0; 24];
        if from.read_exact(&mut preface).await.is_err() {
            return;
        }
        say(&mut out, &[frame(SETTINGS, 0, 0, &[])]).await;
        while let Some(got) = read_frame(&mut from).await {
            let goes_on = match (got.kind, got.flags) {
                (SETTINGS, 0) => say(&mut out, &[frame(SETTINGS, ACK, 0, &[])]).await,
                (HEADERS, _) => self.answer(&got, &mut out).await,
                _ => true,
            };
            if !goes_on {
                let _ = out.shutdown().await;
                return;
            }
        }
    }

    async fn answer(&mut self, asked: &Frame, out: &mut Out) -> bool {
        let id = asked.stream;
        let mut block = asked.payload.as_slice();
        while let [0x20..=0x3e, rest @ ..] = block {
            block = rest;
        }
        match block.first() {
            Some(0x82) => {
                let whole = frame(DATA, END_STREAM, id, b"good");
                say(out, &[ok(id, &[]), whole]).await
            }
            Some(0x83) => {
                let fault = self.fault.lock().unwrap().clone();
                let mut goes_on = say(out, &(fault.answer)(id)).await;
                let again = (fault.again)(id).repeat(200);
                if !again.is_empty() {
                    while out.write_all(&again).await.is_ok() {}
                    return false;
                }
                if fault.later {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                for id in std::mem::take(&mut self.waiting) {
                    goes_on = goes_on && say(out, &[frame(DATA, END_STREAM, id, b"od")]).await;
                }
                goes_on
            }
            _ => {
                self.waiting.push(id);
                say(out, &[ok(id, &[]), frame(DATA, 0, id, b"go")]).await
            }
        }
    }
}

struct Set {
    scene: Scene,
    fault: Arc<Mutex<Fault>>,
    /// Connections of the server that are open.
    open: Arc<AtomicUsize>,
}

async fn set() -> Set {
    let world = World::new();
    let mut config = world.certified(NAME, |_| {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let fault = Arc::new(Mutex::new(before_its_head().remove(0)));
    let open = Arc::new(AtomicUsize::new(0));
    let (faults, counted) = (Arc::clone(&fault), Arc::clone(&open));
    let port = upstream(move |stream| {
        let (acceptor, fault, open) = (acceptor.clone(), Arc::clone(&faults), Arc::clone(&counted));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            open.fetch_add(1, Ordering::SeqCst);
            let (from, out) = split(stream);
            let waiting = Vec::new();
            Server { fault, waiting }.serve(from, out).await;
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    let scene = Scene::of(&world, policy, port, Seen::default()).await;
    Set { scene, fault, open }
}

type Sender = SendRequest<BoxBody<Bytes, hyper::Error>>;

impl Set {
    /// A client of its own.
    async fn client(&self) -> Sender {
        let stream = TokioIo::new(speak(&self.scene, b"h2").await);
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        sender
    }

    async fn ask(&self, client: &Sender, method: &str) -> hyper::Result<hyper::Response<Incoming>> {
        let body = match method {
            "POST" => Full::new(Bytes::from("x"))
                .map_err(|never| match never {})
                .boxed(),
            _ => Empty::new().map_err(|never| match never {}).boxed(),
        };
        let request = Request::builder()
            .method(method)
            .uri(format!("https://{NAME}:{}/", self.scene.port))
            .body(body)
            .unwrap();
        client.clone().send_request(request).await
    }

    /// A request that behaves is answered as such.
    async fn is_served(&self, client: &Sender, what: &str) {
        let answer = async {
            let answer = self.ask(client, "GET").await.unwrap();
            assert_eq!(answer.status(), 200, "{what}");
            answer.into_body().collect().await.unwrap().to_bytes()
        };
        let body = tokio::time::timeout(Duration::from_secs(10), answer).await;
        assert_eq!(body.expect(what), "good", "{what}");
    }

    /// What comes of a POST, within this long.
    async fn comes(&self, client: &Sender, wait: Duration) -> Comes {
        let asking = async {
            let Ok(answer) = self.ask(client, "POST").await else {
                return Comes::Broken;
            };
            let status = answer.status().as_u16();
            match answer.into_body().collect().await {
                Err(_) => Comes::Broken,
                Ok(_) if status != 200 => Comes::Status(status),
                Ok(body) => {
                    assert_eq!(body.to_bytes(), "half");
                    Comes::Whole
                }
            }
        };
        let outcome = tokio::time::timeout(wait, asking).await;
        outcome.unwrap_or(Comes::Nothing)
    }

    async fn settles(&self, what: &str, open: usize) {
        let since = Instant::now();
        while self.open.load(Ordering::SeqCst) > open {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "{what}: it goes on"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// What comes first of an answer whose other half waits.
async fn first(answer: &mut Incoming) -> Bytes {
    let frame = answer.frame().await.unwrap().unwrap();
    frame.into_data().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_http_2_that_misbehaves_fails_those_who_asked_it_and_nobody_else() {
    let set = set().await;
    let other = set.client().await;
    for fault in before_its_head().into_iter().chain(behind_its_head()) {
        let Fault {
            what, comes, alone, ..
        } = fault;
        *set.fault.lock().unwrap() = fault;
        let client = set.client().await;
        set.is_served(&client, what).await;
        let mut beside = set.ask(&client, "PUT").await.unwrap().into_body();
        assert_eq!(first(&mut beside).await, "go", "{what}");
        let came = set.comes(&client, Duration::from_secs(10)).await;
        let fits = match comes {
            Comes::Failure => came == Comes::Broken || came == Comes::Status(502),
            comes => came == comes,
        };
        assert!(fits, "{what}: {came:?}, not {comes:?}");
        // The other half of its own answer, or a failure: nothing that looks whole and is not.
        let rest = tokio::time::timeout(Duration::from_secs(10), beside.collect());
        match rest.await.expect(what) {
            Ok(rest) => assert_eq!(rest.to_bytes(), "od", "{what}"),
            Err(error) => assert!(!alone, "{what}: {error}"),
        }
        set.is_served(&client, what).await;
        set.is_served(&other, what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_of_http_2_says_without_end_stays_within_bounds_and_ends_with_who_asked() {
    let set = set().await;
    let other = set.client().await;
    set.is_served(&other, "a server that behaves").await;
    let before = resident();
    for fault in without_end() {
        let Fault { what, comes, .. } = fault;
        *set.fault.lock().unwrap() = fault;
        let client = set.client().await;
        let wait = match comes {
            Comes::Nothing => Duration::from_secs(2),
            _ => Duration::from_secs(20),
        };
        let came = set.comes(&client, wait).await;
        let fits = match comes {
            Comes::Failure => came != Comes::Whole,
            comes => came == comes,
        };
        assert!(fits, "{what}: {came:?}, not {comes:?}");
        set.is_served(&other, what).await;
        drop(client);
        set.settles(what, 1).await;
        let grown = resident().saturating_sub(before);
        assert!(grown < 128 * 1024, "{what}: {grown} KiB more than before");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_takes_no_more_requests_lasts_as_long_as_those_it_has() {
    let set = set().await;
    let what = "a farewell in good order";
    *set.fault.lock().unwrap() = Fault {
        later: true,
        ..in_good_order()
    };
    let client = set.client().await;
    let mut beside = set.ask(&client, "PUT").await.unwrap().into_body();
    assert_eq!(first(&mut beside).await, "go");
    assert_eq!(
        set.comes(&client, Duration::from_secs(10)).await,
        Comes::Whole
    );
    // By another connection, while the first is still needed.
    set.is_served(&client, what).await;
    assert_eq!(set.open.load(Ordering::SeqCst), 2);
    assert_eq!(beside.collect().await.unwrap().to_bytes(), "od");
    set.settles(what, 1).await;
    set.is_served(&client, what).await;
}

/// As much as anybody may: the window of each stream, the frame, the window of all together.
fn boundless() -> Vec<u8> {
    let settings = [0, 4, 0x7f, 0xff, 0xff, 0xff, 0, 5, 0, 0xff, 0xff, 0xff];
    let window = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0, 0]);
    [frame(SETTINGS, 0, 0, &settings), window].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_lets_everything_come_and_reads_nothing_is_sent_a_little() {
    let world = World::new();
    let mut config = world.certified(NAME, |_| {});
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let port = upstream(move |stream| {
        let (acceptor, open) = (acceptor.clone(), Arc::clone(&counted));
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            stream.read_exact(&mut [0; 24]).await.unwrap();
            stream.write_all(&boundless()).await.unwrap();
            stream.flush().await.unwrap();
            while read_frame(&mut stream).await.unwrap().kind != HEADERS {}
            open.fetch_add(1, Ordering::SeqCst);
            // Its end is not in what it reads: it is in that it can say nothing more.
            let ping = frame(PING, ACK, 0, &[0; 8]);
            while stream.write_all(&ping).await.is_ok() && stream.flush().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            open.fetch_sub(1, Ordering::SeqCst);
        }
    })
    .await;
    let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    let scene = Scene::of(&world, policy, port, Seen::default()).await;
    let fault = Arc::new(Mutex::new(in_good_order()));
    let set = Set { scene, fault, open };
    let before = resident();
    let client = set.client().await;
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let pieces = futures_util::stream::repeat_with(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        Ok(hyper::body::Frame::data(Bytes::from(vec![b'x'; 16_384])))
    });
    let body = http_body_util::StreamBody::new(pieces);
    let request = Request::builder()
        .method("POST")
        .uri(format!("https://{NAME}:{port}/"))
        .body(BodyExt::boxed(body))
        .unwrap();
    let mut sender = client.clone();
    let asking = tokio::spawn(async move { sender.send_request(request).await.map(drop) });
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = taken.load(Ordering::SeqCst);
        if now == last && now > 0 {
            break;
        }
        last = now;
        assert!(now < 2048, "it takes all of it: {now} pieces");
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 128 * 1024, "{grown} KiB more than before");
    assert!(!asking.is_finished(), "nobody has answered");
    asking.abort();
    drop(client);
    set.settles("what is sent to nobody", 0).await;
}
