//! WebSocket on a stream of HTTP/2 (RFC 8441), with hyper as the client and a server that switches as RFC 6455 says.

use std::sync::Arc;

use base64::Engine as _;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol as Extended;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use schema::net::Protocol;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::credentials::grant;
use crate::harness::*;
use crate::https::{NAME, Scene, Seen, World, speak};

const STAND_IN: &str = "Bearer ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3";

/// A server of HTTP/1.1 alone: what asks for /chat is switched and echoed, everything else gets an ordinary answer.
async fn server(world: &World) -> (u16, Seen) {
    let seen = Seen::default();
    let acceptor = TlsAcceptor::from(Arc::new(world.certified(NAME, |_| {})));
    let heard = Arc::clone(&seen);
    let port = upstream(move |stream| {
        let (acceptor, heard) = (acceptor.clone(), Arc::clone(&heard));
        async move {
            let mut stream = acceptor.accept(stream).await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else {
                    return;
                };
                head.push(byte);
            }
            let head = String::from_utf8(head).unwrap();
            heard.lock().unwrap().push(head.clone());
            let said = |name: &str| {
                let mut lines = head.lines();
                lines
                    .find_map(|line| line.strip_prefix(name))
                    .unwrap_or_default()
            };
            if !head.starts_with("GET /chat HTTP/1.1\r\n") {
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno";
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
                return;
            }
            let digest = Sha1::new()
                .chain_update(said("sec-websocket-key: "))
                .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
                .finalize();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Echo: {}\r\n\
                 Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Accept: {}\r\n\r\n",
                said("authorization: "),
                base64::engine::general_purpose::STANDARD.encode(digest)
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut read, &mut write).await;
            let _ = write.shutdown().await;
        }
    })
    .await;
    (port, seen)
}

async fn scene() -> (Scene, SendRequest<Empty<Bytes>>) {
    let world = World::new();
    let (port, seen) = server(&world).await;
    let mut policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let scene = Scene::of(&world, policy, port, seen).await;
    let stream = speak(&scene, b"h2").await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    // The server's settings come with its first answer at the latest.
    let plain = Request::builder().uri(format!("https://{NAME}:{port}/"));
    let answer = sender.send_request(plain.body(Empty::new()).unwrap());
    assert_eq!(answer.await.unwrap().status(), 200);
    (scene, sender)
}

/// Asks for a protocol at a path, with fields.
async fn connect(
    scene: &Scene,
    sender: &SendRequest<Empty<Bytes>>,
    (protocol, path): (&'static str, &str),
    fields: &[(&str, &str)],
) -> Response<Incoming> {
    let mut request = Request::builder()
        .method("CONNECT")
        .uri(format!("https://{NAME}:{}{path}", scene.port))
        .extension(Extended::from_static(protocol));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(Empty::new()).unwrap();
    sender.clone().send_request(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_http_2_becomes_a_websocket_beside_others() {
    let (scene, sender) = scene().await;
    let mut open = Vec::new();
    for n in 0..3u8 {
        let fields = [("sec-websocket-version", "13"), ("authorization", STAND_IN)];
        let mut response = connect(&scene, &sender, ("websocket", "/chat"), &fields).await;
        assert_eq!(response.status(), 200);
        let said = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap());
        assert_eq!(said("x-echo"), Some(STAND_IN), "an answer as any other");
        assert_eq!(said("sec-websocket-protocol"), Some("chat"));
        assert_eq!(
            (said("sec-websocket-accept"), said("upgrade")),
            (None, None)
        );
        let stream = hyper::upgrade::on(&mut response).await.unwrap();
        open.push((n, TokioIo::new(stream)));
    }
    for (n, stream) in open {
        let (mut read, mut write) = tokio::io::split(stream);
        // One message, masked with nothing.
        let mut message = vec![0x82, 0xff];
        message.extend(300_000u64.to_be_bytes());
        message.extend([0; 4]);
        message.extend(vec![n; 300_000]);
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
    }
    let seen = scene.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 4);
    for head in &seen[1..] {
        assert!(head.contains("authorization: Bearer ghp_R3al"), "{head}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_request_for_a_websocket_is_refused_and_not_heard_of() {
    let (scene, sender) = scene().await;
    let version = ("sec-websocket-version", "13");
    for (protocol, fields, status, code) in [
        ("connect-udp", &[version][..], 501, "http-upgrade"),
        ("websocket", &[], 400, "http-websocket"),
        (
            "websocket",
            &[("sec-websocket-version", "8")],
            400,
            "http-websocket",
        ),
        ("websocket", &[version, version], 400, "http-websocket"),
        (
            "websocket",
            &[version, ("x-other", STAND_IN)],
            403,
            "credential-misplaced",
        ),
    ] {
        let response = connect(&scene, &sender, (protocol, "/chat"), fields).await;
        let blocked = response.headers()["x-agentcontainer-blocked"].clone();
        assert_eq!(blocked, code, "{protocol} {fields:?}");
        assert_eq!(response.status(), status, "{protocol} {fields:?}");
    }
    assert_eq!(
        scene.seen.lock().unwrap().len(),
        1,
        "the first, ordinary one"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_answer_does_not_look_like_a_switch() {
    let (scene, sender) = scene().await;
    let version = [("sec-websocket-version", "13")];
    let response = connect(&scene, &sender, ("websocket", "/other"), &version).await;
    assert_eq!(response.status(), 502);
    let blocked = response.headers()["x-agentcontainer-blocked"].clone();
    assert_eq!(blocked, "http-upgrade");
    response.into_body().collect().await.unwrap();
    assert_eq!(scene.seen.lock().unwrap().len(), 2);
}
