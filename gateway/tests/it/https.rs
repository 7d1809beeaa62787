//! `https`: TLS ends at the gateway with the session's authority and begins anew with the host's roots, in any combination of
//! HTTP/1.1 and HTTP/2, with curl as the client and hyper on rustls as the server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use audit::{Kind, Verdict};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use schema::net::Protocol;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;

use gateway::Options;

use crate::harness::*;

pub const NAME: &str = "api.example.com";

/// The world's authority.
pub struct World {
    issuer: Issuer<'static, KeyPair>,
    pub root: Vec<u8>,
}

impl World {
    pub fn new() -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().der().to_vec();
        Self {
            issuer: Issuer::new(params, key),
            root,
        }
    }

    pub fn certified(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> rustls::ServerConfig {
        let (certificate, key) = self.leaf(name, change);
        let key = PrivatePkcs8KeyDer::from(key);
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.into()], key.into())
            .unwrap()
    }

    /// A certificate and its key (DER, PKCS#8).
    pub fn leaf(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.der().to_vec(), key.serialize_der())
    }
}

pub type Seen = Arc<Mutex<Vec<String>>>;
type Answer = Response<BoxBody<Bytes, Infallible>>;

/// A server that says what it saw, on which of its connections (from 0), and sends back what it was sent. Returns its port and the requests it saw.
pub async fn origin(mut config: ServerConfig, alpn: &[&str]) -> (u16, Seen) {
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let seen = Seen::default();
    let port = {
        let seen = Arc::clone(&seen);
        let connections = Arc::new(AtomicU64::new(0));
        upstream(move |stream| {
            let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
            let connection = connections.fetch_add(1, Ordering::Relaxed);
            async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = service_fn(move |request| {
                    let seen = Arc::clone(&seen);
                    async move { Ok::<_, Infallible>(answer(request, &seen, connection).await) }
                });
                let two = stream.get_ref().1.alpn_protocol() == Some(b"h2");
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
    };
    (port, seen)
}

async fn answer(request: Request<Incoming>, seen: &Seen, connection: u64) -> Answer {
    let host = request
        .headers()
        .get("host")
        .map(|host| host.to_str().unwrap().to_owned())
        .or_else(|| request.uri().authority().map(ToString::to_string))
        .unwrap_or_default();
    let line = format!(
        "{} {:?} {host} {}",
        request.method(),
        request.version(),
        request.uri().path_and_query().unwrap()
    );
    seen.lock().unwrap().push(line.clone());
    let path = request.uri().path().to_owned();
    let cookies: Vec<String> = request
        .headers()
        .get_all("cookie")
        .iter()
        .map(|c| c.to_str().unwrap().to_owned())
        .collect();
    match path.as_str() {
        "/connection" => text(&connection.to_string()),
        "/echo" => Response::new(request.into_body().map_err(|_| unreachable!()).boxed()),
        "/auth" => {
            let fields = request.headers().clone();
            let said = |name: &str| {
                fields
                    .get(name)
                    .map(|value| value.to_str().unwrap().to_owned())
                    .unwrap_or_default()
            };
            seen.lock().unwrap().push(said("authorization"));
            seen.lock().unwrap().push(said("accept-encoding"));
            seen.lock().unwrap().push(said("range"));
            let token = said("authorization").replace("Bearer ", "");
            use base64::Engine as _;
            let encoded = base64::engine::general_purpose::STANDARD.encode(format!("x:{token}"));
            let mut response = text(&format!("token {token} and again {token}, or {encoded}"));
            let echoed = said("authorization").parse().unwrap();
            response.headers_mut().insert("x-echo", echoed);
            response
        }
        "/gzip" | "/br" | "/broken" => {
            use std::io::Write;
            let token = request
                .headers()
                .get("authorization")
                .unwrap()
                .to_str()
                .unwrap();
            let plain = format!("{}{token}{}", "x".repeat(100_000), "y".repeat(2_000_000));
            let level = flate2::Compression::best();
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(plain.as_bytes()).unwrap();
            let mut gzip = encoder.finish().unwrap();
            if path == "/broken" {
                gzip.truncate(gzip.len() - 20);
            }
            if *request.method() == hyper::Method::HEAD {
                gzip.clear();
            }
            let name = if path == "/br" { "br" } else { "gzip" };
            Response::builder()
                .header("content-encoding", name)
                .body(Full::new(Bytes::from(gzip)).boxed())
                .unwrap()
        }
        "/piece" => Response::builder()
            .status(206)
            .header("content-encoding", "gzip")
            .header("content-range", "bytes 4-13/100")
            .header("x-echo", request.headers()["authorization"].clone())
            .body(Full::new(Bytes::from("from within")).boxed())
            .unwrap(),
        "/take" => {
            let mut body = request.into_body();
            let mut taken = Vec::new();
            loop {
                match body.frame().await {
                    None => break,
                    Some(Ok(frame)) => {
                        taken.extend_from_slice(frame.data_ref().unwrap_or(&Bytes::new()));
                    }
                    Some(Err(error)) => {
                        taken.extend_from_slice(format!(" broke off: {error}").as_bytes());
                        break;
                    }
                }
            }
            let taken = String::from_utf8_lossy(&taken).into_owned();
            seen.lock().unwrap().push(taken);
            text("taken")
        }
        "/cookies" => text(&cookies.join("|")),
        "/trailers" => {
            let te = request.headers().get("te").cloned();
            let mut trailers = hyper::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            trailers.insert("content-length", "7".parse().unwrap());
            if let Some(te) = te {
                trailers.insert("x-te", te);
            }
            let frames = [
                Frame::data(Bytes::from_static(b"y")),
                Frame::trailers(trailers),
            ];
            let stream = futures_util::stream::iter(frames.map(Ok::<_, Infallible>));
            Response::new(StreamBody::new(stream).boxed())
        }
        "/slow" => {
            let (sender, receiver) =
                tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
            tokio::spawn(async move {
                let bit = || Ok(Frame::data(Bytes::from_static(b"data: x\n\n")));
                while sender.send(bit()).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
            let stream = tokio_stream(receiver);
            Response::builder()
                .header("content-type", "text/event-stream")
                .header("alt-svc", "h3=\":443\"")
                .body(StreamBody::new(stream).boxed())
                .unwrap()
        }
        // hyper's server of HTTP/2 would send the body all the same.
        _ if *request.method() == hyper::Method::HEAD => Response::builder()
            .header("content-length", line.len())
            .body(Full::new(Bytes::new()).boxed())
            .unwrap(),
        _ => {
            // An answer that overtakes the question's body is a framing error to curl before 8.0.
            let _ = request.into_body().collect().await;
            text(&line)
        }
    }
}

/// A receiver as a stream.
fn tokio_stream<T>(
    mut receiver: tokio::sync::mpsc::Receiver<T>,
) -> impl futures_util::Stream<Item = T> {
    futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx))
}

fn text(text: &str) -> Answer {
    Response::new(
        Full::new(Bytes::from(text.to_owned()))
            .map_err(|never| match never {})
            .boxed(),
    )
}

/// A session with one `https` rule, and what curl needs to reach it.
pub struct Scene {
    pub session: Session,
    pub port: u16,
    pub door: SocketAddr,
    pub seen: Seen,
    directory: tempfile::TempDir,
}

pub struct Answered {
    pub status: u16,
    pub version: String,
    pub body: Vec<u8>,
    pub headers: String,
    pub code: i32,
}

impl Scene {
    pub async fn new(alpn: &[&str]) -> Self {
        let world = World::new();
        let config = world.certified(NAME, |_| {});
        Self::with(&world, config, alpn).await
    }

    pub async fn with(world: &World, config: ServerConfig, alpn: &[&str]) -> Self {
        let (port, seen) = origin(config, alpn).await;
        let policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
        Self::of(world, policy, port, seen).await
    }

    /// With a policy of its own, which has a rule for the name at that port.
    pub async fn of(world: &World, policy: PolicyBuilder, port: u16, seen: Seen) -> Self {
        Self::of_with(world, policy, port, seen, |_| {}).await
    }

    pub async fn of_with(
        world: &World,
        policy: PolicyBuilder,
        port: u16,
        seen: Seen,
        change: impl FnOnce(&mut Options),
    ) -> Self {
        let policy = policy.host(NAME).root(&world.root);
        let mut session = Session::start_with(policy, change).await;
        let door = session.door(NAME, port).await;
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ca.der"), &session.ca).unwrap();
        let status = std::process::Command::new("openssl")
            .args(["x509", "-inform", "DER", "-in"])
            .arg(directory.path().join("ca.der"))
            .arg("-out")
            .arg(directory.path().join("ca.pem"))
            .status()
            .unwrap();
        assert!(status.success());
        Self {
            session,
            port,
            door,
            seen,
            directory,
        }
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    pub async fn curl(&self, path: &str, arguments: &[&str]) -> Answered {
        self.curl_at(NAME, self.port, self.door, path, arguments)
            .await
    }

    pub async fn curl_at(
        &self,
        name: &str,
        port: u16,
        door: SocketAddr,
        path: &str,
        arguments: &[&str],
    ) -> Answered {
        let head = self.directory.path().join(format!("head{}", rand()));
        let output = Command::new("curl")
            .args(["-sS", "-m", "20", "--connect-to"])
            .arg(format!("{name}:{port}:{}:{}", door.ip(), door.port()))
            .arg("--cacert")
            .arg(self.ca())
            .arg("-D")
            .arg(&head)
            .args(["-w", "\n%{http_code} %{http_version}"])
            .args(arguments)
            .arg(format!("https://{name}:{port}{path}"))
            .output()
            .await
            .unwrap();
        let stdout = output.stdout;
        let end = stdout.iter().rposition(|&b| b == b'\n').unwrap_or(0);
        let last = String::from_utf8_lossy(&stdout[end..]).trim().to_owned();
        let (status, version) = last.split_once(' ').unwrap_or(("0", ""));
        Answered {
            status: status.parse().unwrap_or(0),
            version: version.to_owned(),
            body: stdout[..end].to_vec(),
            headers: std::fs::read_to_string(&head).unwrap_or_default(),
            code: output.status.code().unwrap_or(-1),
        }
    }
}

fn rand() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_combination_of_versions_carries_requests_both_ways() {
    for (alpn, upstream) in [
        (&["http/1.1"][..], "HTTP/1.1"),
        (&["h2", "http/1.1"], "HTTP/2.0"),
    ] {
        let scene = Scene::new(alpn).await;
        let big = vec![b'x'; 3 << 20];
        let file = scene.directory.path().join("big");
        std::fs::write(&file, &big).unwrap();
        let data = format!("@{}", file.display());
        for (option, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
            // A client of HTTP/1.1 is carried by HTTP/1.1.
            let upstream = if version == "1.1" {
                "HTTP/1.1"
            } else {
                upstream
            };
            let got = scene.curl("/a?b=c", &[option]).await;
            assert_eq!(
                (got.status, got.version.as_str()),
                (200, version),
                "{}",
                got.headers
            );
            let line = format!("GET {upstream} {NAME}:{} /a?b=c", scene.port);
            assert_eq!(String::from_utf8_lossy(&got.body), line);
            let got = scene.curl("/echo", &[option, "--data-binary", &data]).await;
            assert_eq!(
                (got.status, got.body.len()),
                (200, big.len()),
                "{option} {alpn:?}"
            );
            assert!(got.body == big);
            let got = scene.curl("/a", &[option, "-I"]).await;
            assert_eq!(
                (got.status, got.code),
                (200, 0),
                "{option} {alpn:?} {}",
                got.headers
            );
            let got = scene
                .curl(
                    "/cookies",
                    &[option, "-H", "Cookie: a=1", "-H", "Cookie: b=2"],
                )
                .await;
            let crumbs = String::from_utf8_lossy(&got.body).into_owned();
            assert!(
                ["a=1; b=2", "a=1|b=2"].contains(&crumbs.as_str()),
                "{crumbs}"
            );
        }
        let event = scene
            .session
            .event_where("request", |e| e.kind == Kind::Request)
            .await;
        assert_eq!(event.protocol.as_deref(), Some("https"));
        assert_eq!(
            event.url.unwrap(),
            format!("https://{NAME}:{}/a?b=***", scene.port)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_hold_is_refused_before_a_byte_is_said() {
    let (world, other) = (World::new(), World::new());
    let past = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    for (what, config) in [
        ("another authority", other.certified(NAME, |_| {})),
        ("another name", world.certified("www.example.com", |_| {})),
        ("expired", world.certified(NAME, past)),
    ] {
        let scene = Scene::with(&world, config, &["h2", "http/1.1"]).await;
        for option in ["--http1.1", "--http2"] {
            let got = scene.curl("/", &[option]).await;
            assert_eq!(got.status, 502, "{what}");
            assert!(
                got.headers
                    .contains("x-agentcontainer-blocked: upstream-certificate"),
                "{what}: {}",
                got.headers
            );
        }
        assert!(scene.seen.lock().unwrap().is_empty(), "{what}");
        scene.session.event("upstream-certificate").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_another_host_than_the_one_dialled_is_misdirected() {
    let scene = Scene::new(&["h2", "http/1.1"]).await;
    for option in ["--http1.1", "--http2"] {
        for host in [
            "evil.example.com",
            "api.example.com:1",
            "api.example.com@evil.example.com",
        ] {
            let header = format!("Host: {host}");
            let got = scene.curl("/", &[option, "-H", &header]).await;
            // Some clients refuse to send some of these themselves.
            assert!(
                got.status == 421 || got.code != 0,
                "{option} {host}: {}",
                got.status
            );
        }
        let got = scene.curl("/", &[option, "-X", "TRACE"]).await;
        assert_eq!(got.status, 405, "{option}");
    }
    assert!(scene.seen.lock().unwrap().is_empty());
    assert_eq!(
        scene.session.event("host-mismatch").await.verdict,
        Verdict::Deny
    );
    assert_eq!(scene.curl("/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_nobody_allowed_gets_the_page_on_443() {
    let mut scene = Scene::new(&["h2"]).await;
    let door = scene.session.door("other.example.com", 443).await;
    for option in ["--http1.1", "--http2"] {
        let got = scene
            .curl_at("other.example.com", 443, door, "/", &[option])
            .await;
        assert_eq!(got.status, 403, "{option}");
        assert!(
            got.headers.contains("x-agentcontainer-blocked: not-listed"),
            "{}",
            got.headers
        );
        assert!(String::from_utf8_lossy(&got.body).contains("other.example.com"));
    }
    // One that shows another name than it dialled gets an alert, and no leaf for that name.
    let got = scene
        .curl_at("third.example.com", 443, door, "/", &[])
        .await;
    assert_eq!((got.status, got.code), (0, 35));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_without_the_sessions_certificate_is_told_apart() {
    let scene = Scene::new(&["h2"]).await;
    let got = scene
        .curl("/", &["--cacert", "/etc/ssl/certs/ca-certificates.crt"])
        .await;
    assert_eq!((got.status, got.code), (0, 60));
    scene.session.event("tls-not-trusted").await;
    assert!(scene.seen.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_events_comes_as_it_is_sent_and_ends_with_the_right_to_it() {
    for option in ["--http1.1", "--http2"] {
        let mut scene = Scene::new(&["h2", "http/1.1"]).await;
        let out = scene.directory.path().join("events");
        let mut child = Command::new("curl")
            .args(["-sSN", "-m", "20", option, "--connect-to"])
            .arg(format!(
                "{NAME}:{}:{}:{}",
                scene.port,
                scene.door.ip(),
                scene.door.port()
            ))
            .arg("--cacert")
            .arg(scene.ca())
            .arg("-D")
            .arg(scene.directory.path().join("head"))
            .arg("-o")
            .arg(&out)
            .arg(format!("https://{NAME}:{}/slow", scene.port))
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut first = 0;
        for _ in 0..200 {
            first = std::fs::metadata(&out).map_or(0, |meta| meta.len());
            if first > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(first > 0 && first < 1000, "{option}: {first}");
        let head = std::fs::read_to_string(scene.directory.path().join("head")).unwrap();
        assert!(!head.to_lowercase().contains("alt-svc"), "{head}");
        scene.session.apply(PolicyBuilder::default()).await;
        let status = tokio::time::timeout(Duration::from_secs(5), child.wait())
            .await
            .expect("the stream is cut")
            .unwrap();
        assert!(
            !status.success(),
            "{option}: what is cut does not look whole"
        );
    }
}

/// TLS with the gateway as a client that has the session's certificate.
pub async fn speak(
    scene: &Scene,
    alpn: &[u8],
) -> tokio_rustls::client::TlsStream<tokio::net::TcpStream> {
    let stream = tokio::net::TcpStream::connect(scene.door).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from(NAME).unwrap();
    trusting(&scene.session.ca, alpn)
        .connect(name, stream)
        .await
        .unwrap()
}

/// A client of TLS that has a session's certificate.
pub fn trusting(ca: &[u8], alpn: &[u8]) -> tokio_rustls::TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.to_vec().into()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    tokio_rustls::TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_as_grpc_needs_them() {
    let scene = Scene::new(&["h2"]).await;
    let stream = speak(&scene, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let body = || Full::new(Bytes::from_static(b"x")).boxed();
    let request = Request::builder()
        .method("POST")
        .uri(format!("https://{NAME}:{}/trailers", scene.port))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let collected = response.into_body().collect().await.unwrap();
    let trailers = collected.trailers().unwrap();
    assert_eq!(trailers.get("grpc-status").unwrap(), "0");
    // What the upstream was asked: that trailers are welcome came through.
    assert_eq!(trailers.get("x-te").unwrap(), "trailers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_requests_at_once_share_a_bounded_number_of_connections() {
    for alpn in [&["http/1.1"][..], &["h2"]] {
        let scene = Scene::new(alpn).await;
        let stream = speak(&scene, b"h2").await;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..100 {
            let mut sender = sender.clone();
            let request = Request::builder()
                .uri(format!("https://{NAME}:{}/{n}", scene.port))
                .body(http_body_util::Empty::<Bytes>::new())
                .unwrap();
            tasks.spawn(async move {
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200);
                let body = response.into_body().collect().await.unwrap().to_bytes();
                let text = String::from_utf8_lossy(&body).into_owned();
                assert!(text.ends_with(&format!("/{n}")), "{text}");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_tls_is_carried() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world = World::new();
    let acceptor = TlsAcceptor::from(Arc::new(world.certified(NAME, |_| {})));
    let port = upstream(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            let told = head
                .lines()
                .find_map(|line| line.strip_prefix("authorization: "));
            assert_eq!(
                told,
                Some("Bearer ghp_R3alR3alR3alR3alR3alR3alR3alR3alR3al"),
                "{head}"
            );
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 X-Echo: {}\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
                told.unwrap_or_default()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }
    })
    .await;
    let mut policy = PolicyBuilder::default()
        .rule(NAME, port, Protocol::Https)
        .host(NAME)
        .root(&world.root);
    crate::credentials::grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let mut session = Session::start(policy).await;
    let door = session.door(NAME, port).await;
    let scene = Scene {
        session,
        port,
        door,
        seen: Seen::default(),
        directory: tempfile::tempdir().unwrap(),
    };
    let mut stream = speak(&scene, b"http/1.1").await;
    let request = format!(
        "GET /chat HTTP/1.1\r\nHost: {NAME}:{port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Authorization: Bearer ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    // What its head says is looked through as any answer's.
    assert!(head.contains("x-echo: Bearer ghp_Fak3Fak3"), "{head}");
    let message = frame(0x82, &vec![7; 300_000]);
    let (mut read, mut write) = tokio::io::split(stream);
    let sending = {
        let message = message.clone();
        tokio::spawn(async move {
            write.write_all(&message).await.unwrap();
            write.shutdown().await.unwrap();
        })
    };
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    sending.await.unwrap();
    assert!(back == message);
    let event = scene
        .session
        .event_where("closed", |e| e.reason == "closed" && e.bytes_in.is_some())
        .await;
    assert!(event.bytes_in.unwrap() >= 300_000, "{event:?}");
}
