//! Connections to upstreams that outlive a client connection: whose they become, and whose they do not.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use schema::net::Protocol;

use crate::credentials::grant;
use crate::harness::*;
use crate::https::{NAME, Scene, World, origin, speak};

const STAND_IN: &str = "Authorization: Bearer ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3";

/// Which of the server's connections answers a client connection of its own.
async fn answers(scene: &Scene, fields: &[&str]) -> String {
    let mut arguments = vec!["--http1.1"];
    fields
        .iter()
        .for_each(|field| arguments.extend(["-H", *field]));
    let got = scene.curl("/connection", &arguments).await;
    assert_eq!(got.status, 200, "{}", got.headers);
    String::from_utf8(got.body).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_rests_is_taken_by_the_next_client_until_a_policy_comes() {
    let mut scene = Scene::new(&["http/1.1"]).await;
    for _ in 0..3 {
        assert_eq!(answers(&scene, &[]).await, "0");
        assert_eq!(answers(&scene, &["Connection: close"]).await, "0");
    }
    let policy = scene.session.policy.clone();
    scene.session.apply(policy).await;
    assert_eq!(answers(&scene, &[]).await, "1");
    assert_eq!(answers(&scene, &[]).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_an_earlier_policy_is_not_left_to_the_next_client() {
    let mut scene = Scene::new(&["http/1.1"]).await;
    let stream = speak(&scene, b"http/1.1").await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let host = format!("{NAME}:{}", scene.port);
    let mut ask = async || {
        let request = hyper::Request::builder()
            .uri("/connection")
            .header("host", &host)
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body();
        let body = answer.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body).into_owned();
        sender.ready().await.unwrap();
        text
    };
    assert_eq!(ask().await, "0");
    let policy = scene.session.policy.clone();
    scene.session.apply(policy).await;
    assert_eq!(ask().await, "0", "its right goes on, and so does it");
    drop(sender);
    scene
        .session
        .event_where("closed", |e| {
            e.kind == audit::Kind::Connect && e.reason == "closed"
        })
        .await;
    assert_eq!(answers(&scene, &[]).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_http_2_one_that_carried_a_credential_carries_no_other_requests_either() {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2"]).await;
    let mut policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let scene = Scene::of(&world, policy, port, seen).await;
    let stream = speak(&scene, b"h2").await;
    let (sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .unwrap();
    tokio::spawn(connection);
    let (name, value) = STAND_IN.split_once(": ").unwrap();
    let mut said = Vec::new();
    for with in [true, false, true, false] {
        let mut request =
            hyper::Request::builder().uri(format!("https://{NAME}:{port}/connection"));
        if with {
            request = request.header(name, value);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let answer = sender.clone().send_request(request).await.unwrap();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        said.push(String::from_utf8_lossy(&body).into_owned());
    }
    assert_eq!(said, ["0", "1", "0", "1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_rested_longer_than_servers_keep_theirs_is_not_used() {
    let scene = Scene::new(&["http/1.1"]).await;
    assert_eq!(answers(&scene, &[]).await, "0");
    tokio::time::sleep(Duration::from_millis(5200)).await;
    assert_eq!(answers(&scene, &[]).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_whose_answer_was_not_read_to_its_end_is_nobodys() {
    let scene = Scene::new(&["http/1.1"]).await;
    let cut = scene.curl("/slow", &["--http1.1", "-m", "1"]).await;
    assert_eq!(cut.code, 28, "it was cut off in the middle");
    assert!(!cut.body.is_empty());
    assert_eq!(answers(&scene, &[]).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_carried_a_credential_carries_no_other_requests() {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["http/1.1"]).await;
    let mut policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let scene = Scene::of(&world, policy, port, seen).await;
    assert_eq!(answers(&scene, &[STAND_IN]).await, "0");
    assert_eq!(answers(&scene, &[]).await, "1");
    assert_eq!(answers(&scene, &[STAND_IN]).await, "0");
    assert_eq!(answers(&scene, &[]).await, "1");
    // Nor within one client connection.
    let to = format!("{NAME}:{port}:{}:{}", scene.door.ip(), scene.door.port());
    let url = format!("https://{NAME}:{port}/connection");
    let ca = scene.ca();
    let ca = ca.to_str().unwrap();
    let ask = [
        "-sS",
        "--http1.1",
        "--connect-to",
        &to,
        "--cacert",
        ca,
        "-w",
        " %{num_connects} ",
        &url,
    ];
    let said = tokio::process::Command::new("curl")
        .args(ask)
        .args(["-H", STAND_IN, "--next"])
        .args(ask)
        .output()
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "0 1 1 0 ");
}
