//! Bodies through `https`, in every combination of HTTP/1.1 and HTTP/2: whoever is slow slows the other side down, and what the
//! gateway keeps meanwhile has a bound; an event is there before the next one is sent; a range is the range that was asked for.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::stream::{poll_fn, unfold};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use schema::net::Protocol;
use tokio::net::TcpStream;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::client::TlsStream;

use crate::harness::{Lane, PolicyBuilder, Session, upstream};
use crate::https::{NAME, Scene, Seen, World, speak, trusting};
use crate::sandboxed::{gateway_on, resident};

const OFFERED: u64 = 256 << 20;
const PIECE: usize = 16 << 10;
/// What is read of it at first, and in the end.
const LITTLE: u64 = 4 << 10;
const MORE: u64 = 8 << 20;
/// What may be on its way to somebody who does not read: the windows, and what four sockets hold.
const TAKEN: u64 = 32 << 20;
/// KiB that the gateway may take for it.
const GROWN: u64 = 8 << 10;
/// Streams at once, of HTTP/2.
const AT_ONCE: usize = 8;

type Body = BoxBody<Bytes, Infallible>;

/// The other side of everything.
#[derive(Default)]
struct Far {
    /// Bytes of answers that were taken, and answers that somebody still holds.
    given: Arc<AtomicU64>,
    open: Arc<()>,
    /// Whoever has read a little waits for it, and says when it has read more.
    go_on: Notify,
    taken: Notify,
    events: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

/// One piece after the other, each of its own number, counted as they are taken.
fn offered(count: Arc<AtomicU64>, open: Arc<()>) -> Body {
    let pieces = unfold((0, count, open), |(at, count, open)| async move {
        if at == OFFERED {
            return None;
        }
        count.fetch_add(PIECE as u64, Ordering::SeqCst);
        let piece = Bytes::from(vec![byte_at(at); PIECE]);
        let next = (at + PIECE as u64, count, open);
        Some((Ok(Frame::data(piece)), next))
    });
    // What keeps its state while it waits: one piece.
    BodyExt::boxed(StreamBody::new(Box::pin(pieces)))
}

fn byte_at(at: u64) -> u8 {
    (at / PIECE as u64 % 251) as u8
}

/// Reads until so many bytes were read in all, and that they are what was offered.
async fn read(body: &mut Incoming, read: &mut u64, until: u64) {
    while *read < until {
        let frame = body.frame().await.expect("there is more").unwrap();
        let data = frame.into_data().unwrap();
        for byte in &data {
            assert_eq!(*byte, byte_at(*read));
            *read += 1;
        }
    }
}

fn text(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed()
}

async fn answer(far: Arc<Far>, request: Request<Incoming>) -> Response<Body> {
    match request.uri().path() {
        "/down" => Response::new(offered(Arc::clone(&far.given), Arc::clone(&far.open))),
        "/up" => {
            let mut body = request.into_body();
            let mut length = 0;
            read(&mut body, &mut length, LITTLE).await;
            far.go_on.notified().await;
            read(&mut body, &mut length, MORE).await;
            far.taken.notify_one();
            // Until whoever sends has gone.
            while let Some(Ok(_)) = body.frame().await {}
            Response::new(text("all of it"))
        }
        "/events" => {
            let mut events = far.events.lock().await.take().unwrap();
            let events = poll_fn(move |cx| {
                let event = events.poll_recv(cx);
                event.map(|event| event.map(|data| Ok(Frame::data(data))))
            });
            Response::builder()
                .header("content-type", "text/event-stream")
                .body(BodyExt::boxed(StreamBody::new(events)))
                .unwrap()
        }
        _ => ranged(&request),
    }
}

const TEXT: &str = "the quick brown fox jumps over the lazy dog";

/// `bytes=A-B` of a text, as RFC 9110, 14 has it.
fn ranged(request: &Request<Incoming>) -> Response<Body> {
    let range = request.headers().get("range").map(|r| r.to_str().unwrap());
    let Some(range) = range.and_then(|range| range.strip_prefix("bytes=")) else {
        return Response::new(text(TEXT));
    };
    let (first, last) = range.split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    let whole = TEXT.len();
    let (status, said, part) = match TEXT.get(first..=last) {
        Some(part) => (206, format!("bytes {first}-{last}/{whole}"), part),
        None => (416, format!("bytes */{whole}"), ""),
    };
    Response::builder()
        .status(status)
        .header("content-range", said)
        .header("accept-ranges", "bytes")
        .body(text(part))
        .unwrap()
}

/// Serves in HTTP/1.1, or in HTTP/2.
async fn serve(mut config: ServerConfig, far: &Arc<Far>, two: bool) -> u16 {
    let name: &[u8] = if two { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![name.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let far = Arc::clone(far);
    upstream(move |stream| {
        let (acceptor, far) = (acceptor.clone(), Arc::clone(&far));
        async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let service = service_fn(move |request| {
                let far = Arc::clone(&far);
                async move { Ok::<_, Infallible>(answer(far, request).await) }
            });
            let stream = TokioIo::new(stream);
            if two {
                let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(stream, service)
                    .await;
            } else {
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(stream, service)
                    .await;
            }
        }
    })
    .await
}

/// A client on one connection.
enum Near {
    One(hyper::client::conn::http1::SendRequest<Body>),
    Two(hyper::client::conn::http2::SendRequest<Body>),
}

fn alpn(two: bool) -> &'static [u8] {
    if two { b"h2" } else { b"http/1.1" }
}

impl Near {
    async fn new(stream: TlsStream<TcpStream>, two: bool) -> Self {
        let stream = TokioIo::new(stream);
        if two {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
            let (sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            Self::Two(sender)
        } else {
            let handshake = hyper::client::conn::http1::handshake(stream);
            let (sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            Self::One(sender)
        }
    }

    async fn ask(&mut self, port: u16, path: &str, body: Option<Body>) -> Response<Incoming> {
        let method = if body.is_some() { "POST" } else { "GET" };
        let body = body.unwrap_or_else(|| Empty::new().boxed());
        let request = Request::builder().method(method);
        match self {
            Self::One(sender) => {
                let request = request.uri(path).header("host", format!("{NAME}:{port}"));
                sender.send_request(request.body(body).unwrap()).await
            }
            Self::Two(sender) => {
                let request = request.uri(format!("https://{NAME}:{port}{path}"));
                sender.send_request(request.body(body).unwrap()).await
            }
        }
        .unwrap()
    }
}

/// Runs the test below in a network namespace of its own, where the built binary is its own process.
#[test]
fn what_nobody_reads_is_not_kept() {
    let script = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo src 127.0.0.1 && exec \"$0\" --ignored --exact --nocapture bodies::inside";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("unshare and sh are there");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{said}");
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

/// Once nothing moves any more: how far it came.
async fn still(count: &AtomicU64) -> u64 {
    let since = Instant::now();
    let (mut last, mut rested) = (0, Instant::now());
    while rested.elapsed() < Duration::from_secs(1) || last == 0 {
        assert!(
            since.elapsed() < Duration::from_secs(60),
            "it goes on: {last}"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = count.load(Ordering::SeqCst);
        if now != last {
            (last, rested) = (now, Instant::now());
        }
    }
    last
}

/// A session served by the built binary.
struct Built {
    far: Arc<Far>,
    pid: u32,
    address: Ipv4Addr,
    ca: Vec<u8>,
}

impl Built {
    async fn near(&self, port: u16, two: bool) -> Near {
        let stream = TcpStream::connect((self.address, port)).await.unwrap();
        let name = NAME.to_owned().try_into().unwrap();
        let tls = trusting(&self.ca, alpn(two)).connect(name, stream);
        Near::new(tls.await.unwrap(), two).await
    }

    /// What is on its way is bounded, and so is what the gateway has for it.
    fn within(&self, what: &str, taken: u64, streams: u64, before: u64) {
        let grown = resident(self.pid).saturating_sub(before);
        println!("{what}: {taken} bytes on their way, {grown} KiB more");
        assert!(
            taken < TAKEN * streams,
            "{what}: {taken} bytes are on their way"
        );
        assert!(grown < GROWN, "{what}: {grown} KiB more than before");
    }

    async fn a_client_that_does_not_read(&self, port: u16, two: bool, what: &str) {
        let mut near = self.near(port, two).await;
        let before = resident(self.pid);
        let streams = if two { AT_ONCE } else { 1 };
        self.far.given.store(0, Ordering::SeqCst);
        let mut answers = Vec::new();
        for _ in 0..streams {
            let mut body = near.ask(port, "/down", None).await.into_body();
            let mut length = 0;
            // The first stream is read from: of the others not even that.
            if answers.is_empty() {
                read(&mut body, &mut length, LITTLE).await;
            }
            answers.push((body, length));
        }
        let taken = still(&self.far.given).await;
        self.within(&format!("{what}, down"), taken, streams as u64, before);
        drop(answers.split_off(1));
        let (mut body, mut length) = answers.pop().unwrap();
        read(&mut body, &mut length, MORE).await;
        drop((body, near));
        let since = Instant::now();
        while Arc::strong_count(&self.far.open) > 1 {
            assert!(
                since.elapsed() < Duration::from_secs(10),
                "{what}: it goes on"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn a_server_that_does_not_read(&self, port: u16, two: bool, what: &str) {
        let mut near = self.near(port, two).await;
        let before = resident(self.pid);
        let given = Arc::new(AtomicU64::new(0));
        let body = offered(Arc::clone(&given), Arc::default());
        let asking = tokio::spawn(async move {
            near.ask(port, "/up", Some(body)).await;
        });
        let taken = still(&given).await;
        self.within(&format!("{what}, up"), taken, 1, before);
        self.far.go_on.notify_one();
        let read = self.far.taken.notified();
        let read = tokio::time::timeout(Duration::from_secs(30), read).await;
        assert!(read.is_ok(), "{what}: it does not go on");
        asking.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above, in a network namespace"]
async fn inside() {
    let world = World::new();
    let far = Arc::new(Far::default());
    let mut policy = PolicyBuilder::default().host(NAME).root(&world.root);
    let mut ports = Vec::new();
    for two in [false, true] {
        let port = serve(world.certified(NAME, |_| {}), &far, two).await;
        policy = policy.rule(NAME, port, Protocol::Https);
        ports.push(port);
    }
    let mut child = None;
    let (lane, theirs) = Lane::new();
    let mut session = Session::start_by(policy, |channel| {
        let mut gateway = gateway_on(&[channel.as_raw_fd(), theirs.as_raw_fd()]);
        child = Some(gateway.spawn().unwrap());
    })
    .await;
    session.lanes.push(lane);
    let mut child = child.unwrap();
    let built = Built {
        far,
        pid: child.id(),
        address: session.ask(NAME).await,
        ca: session.ca.clone(),
    };
    let mut wired = 0;
    for (client, server) in [(false, false), (true, false), (true, true)] {
        let port = ports[usize::from(server)];
        if wired != port {
            session.wire(SocketAddrV4::new(built.address, port));
            wired = port;
        }
        // What it takes to begin with is not the body's.
        let warm = built.near(port, client).await.ask(port, "/", None).await;
        assert_eq!(warm.into_body().collect().await.unwrap().to_bytes(), TEXT);
        let version = |two| if two { "HTTP/2" } else { "HTTP/1.1" };
        let what = format!("{} to {}", version(client), version(server));
        built.a_client_that_does_not_read(port, client, &what).await;
        built.a_server_that_does_not_read(port, client, &what).await;
    }
    drop(session);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// In every combination.
async fn scenes() -> Vec<(Scene, Arc<Far>, bool)> {
    let mut scenes = Vec::new();
    for (client, server) in [(false, false), (true, false), (true, true)] {
        let world = World::new();
        let far = Arc::new(Far::default());
        let port = serve(world.certified(NAME, |_| {}), &far, server).await;
        let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
        let scene = Scene::of_with(&world, policy, port, Seen::default(), |options| {
            options.patience.half_closed = Duration::from_secs(1);
        });
        scenes.push((scene.await, far, client));
    }
    scenes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_there_before_the_next_is_sent() {
    for (scene, far, two) in scenes().await {
        let (events, receiver) = mpsc::channel(1);
        *far.events.lock().await = Some(receiver);
        let mut near = Near::new(speak(&scene, alpn(two)).await, two).await;
        let answer = near.ask(scene.port, "/events", None).await;
        let said = answer.headers().get("content-type").cloned();
        assert_eq!(said.unwrap(), "text/event-stream");
        let mut body = answer.into_body();
        for n in 0..50 {
            let event = format!("id: {n}\ndata: {}\n\n", "x".repeat(n * 7));
            events.send(Bytes::from(event.clone())).await.unwrap();
            let mut got = Vec::new();
            while got.len() < event.len() {
                let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await;
                let frame = frame.expect("an event").unwrap().unwrap();
                got.extend(frame.into_data().unwrap());
            }
            assert_eq!(String::from_utf8(got).unwrap(), event);
        }
        // Whoever leaves is missed.
        drop((body, near));
        let gone = tokio::time::timeout(Duration::from_secs(10), events.closed());
        gone.await.expect("the stream ends with its client");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_range_is_the_one_that_was_asked_for() {
    for (scene, _, two) in scenes().await {
        let version = if two { "--http2" } else { "--http1.1" };
        for (range, status, part, said) in [
            ("4-14", 206, &TEXT[4..=14], "bytes 4-14/43"),
            ("0-0", 206, &TEXT[..1], "bytes 0-0/43"),
            ("40-90", 416, "", "bytes */43"),
        ] {
            let got = scene.curl("/", &[version, "-r", range]).await;
            assert_eq!((got.status, got.code), (status, 0), "{range}");
            assert_eq!(String::from_utf8_lossy(&got.body), part, "{range}");
            let head = got.headers.to_ascii_lowercase();
            assert!(
                head.contains(&format!("content-range: {said}\r\n")),
                "{head}"
            );
            assert!(head.contains("accept-ranges: bytes\r\n"), "{head}");
        }
        let got = scene.curl("/", &[version]).await;
        assert_eq!((got.status, got.body.as_slice()), (200, TEXT.as_bytes()));
    }
}
