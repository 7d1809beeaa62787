//! What waits for a person: held, allowed, denied, withdrawn. The server's own record is the verdict.

use std::time::Duration;

use api::v1;
use policy::Action;
use schema::net::Protocol;
use schema::request::Requests;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;
use crate::https::{Answered, NAME, Scene, World, origin};

/// Long enough for what is not held to have arrived.
const A_WHILE: Duration = Duration::from_millis(300);

async fn scene(rules: &[(Action, &[&str])]) -> Scene {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    Scene::of(&world, policy(port, rules), port, seen).await
}

fn policy(port: u16, rules: &[(Action, &[&str])]) -> PolicyBuilder {
    let mut policy = PolicyBuilder::default();
    for (action, paths) in rules {
        let requests = Requests {
            paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
            ..Requests::default()
        };
        policy = policy.requests(NAME, port, *action, requests);
    }
    policy
}

fn heard(scene: &Scene) -> usize {
    scene.seen.lock().unwrap().len()
}

/// Sends one request and answers the question that it becomes.
async fn asked_and(
    scene: &Scene,
    count: usize,
    version: &str,
    path: &str,
    outcome: &str,
) -> Answered {
    let before = heard(scene);
    let deciding = async {
        let ask = scene.session.asked(count).await;
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(heard(scene), before, "it waits");
        scene.session.answer(&ask, outcome);
        ask
    };
    let arguments = [version];
    let (answered, ask) = tokio::join!(scene.curl(path, &arguments), deciding);
    assert_eq!(
        (
            ask.host.as_str(),
            ask.port,
            ask.protocol.as_str(),
            ask.kind.as_str()
        ),
        (NAME, u32::from(scene.port), "https", "request")
    );
    assert_eq!((ask.method.as_str(), ask.target.as_str()), ("GET", path));
    assert_eq!(ask.generation, 1);
    assert!(ask.rule.contains(" ask") && ask.origin.contains("agentcontainer.json:1"));
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_until_it_is_allowed_and_a_denied_one_is_never_sent() {
    let scene = scene(&[(Action::Allow, &["/free/*"]), (Action::Ask, &["/asked/**"])]).await;
    let mut count = 0;
    for version in ["--http1.1", "--http2"] {
        scene.seen.lock().unwrap().clear();
        assert_eq!(scene.curl("/free/a", &[version]).await.status, 200);
        assert_eq!(heard(&scene), 1);
        for (outcome, status) in [
            ("allowed", 200),
            ("approval-denied", 403),
            ("approval-timeout", 403),
            ("approval-limit", 403),
            ("approval-withdrawn", 403),
            ("not-recorded", 503),
            ("what nobody ever said", 403),
        ] {
            count += 1;
            let before = heard(&scene);
            let path = "/asked/a?x=1";
            let answered = asked_and(&scene, count, version, path, outcome).await;
            assert_eq!(answered.status, status, "{version} {outcome}");
            let carried = usize::from(outcome == "allowed");
            assert_eq!(heard(&scene), before + carried, "{version} {outcome}");
        }
        // Another one asks anew.
        count += 1;
        let answered = asked_and(&scene, count, version, "/asked/a", "allowed").await;
        assert_eq!(answered.status, 200);
    }
    let event = scene
        .session
        .event_where("a held response", |event| {
            event.kind == audit::Kind::Response && event.held_ms.is_some_and(|ms| ms >= 300)
        })
        .await;
    assert!(event.approval.is_some());
    let refused = scene.session.event("approval-denied").await;
    assert_eq!(refused.verdict, audit::Verdict::Deny);
    assert!(refused.held_ms.is_some() && refused.approval.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_could_take_for_another_request_is_not_asked_about() {
    let scene = scene(&[(Action::Ask, &[])]).await;
    for version in ["--http1.1", "--http2"] {
        for (path, arguments) in [
            ("/status", &["-H", "X-HTTP-Method-Override: DELETE"][..]),
            ("/status", &["-H", "X-Original-URL: /admin/keys"]),
            ("/status", &["-H", "X-Rewrite-URL: /admin/keys"]),
            ("/status?_method=DELETE", &[]),
            ("/a/..%2fadmin", &["--path-as-is"]),
        ] {
            let arguments = [&[version, "-m", "5"], arguments].concat();
            let answered = scene.curl(path, &arguments).await;
            assert_eq!(answered.status, 400, "{version} {path} {arguments:?}");
        }
    }
    assert_eq!(heard(&scene), 0);
    // Nobody was asked: the first question is the control's.
    let answered = asked_and(&scene, 1, "--http2", "/status?x=1", "allowed").await;
    assert_eq!((answered.status, heard(&scene)), (200, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_asked_about_as_one() {
    let scene = scene(&[(Action::Ask, &[])]).await;
    let arguments = [
        "--http1.1",
        "-H",
        "Connection: Upgrade",
        "-H",
        "Upgrade: websocket",
        "-H",
        "Sec-WebSocket-Version: 13",
        "-H",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let deciding = async {
        let ask = scene.session.asked(1).await;
        scene.session.answer(&ask, "approval-denied");
        ask
    };
    let (answered, ask) = tokio::join!(scene.curl("/events", &arguments), deciding);
    assert_eq!(
        (ask.method.as_str(), ask.target.as_str()),
        ("GET (WebSocket)", "/events")
    );
    assert_eq!((answered.status, heard(&scene)), (403, 0));
    let answered = asked_and(&scene, 2, "--http1.1", "/events", "allowed").await;
    assert_eq!(answered.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_gone_is_not_asked_about_any_more() {
    let scene = scene(&[(Action::Ask, &[])]).await;
    for (count, version) in [(1, "--http1.1"), (2, "--http2")] {
        let arguments = [version, "-m", "1"];
        let leaving = scene.curl("/", &arguments);
        let (answered, ask) = tokio::join!(leaving, scene.session.asked(count));
        assert_eq!(answered.code, 28, "curl gave up");
        scene.session.withdrawn(&ask).await;
        // Too late.
        scene.session.answer(&ask, "allowed");
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(heard(&scene), 0, "{version}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_policy_asked_is_not_carried_by_a_later_one() {
    let mut scene = scene(&[(Action::Ask, &["/a"])]).await;
    let (port, ca, door) = (scene.port, scene.ca(), scene.door);
    let request = |path: &'static str| {
        let mut command = tokio::process::Command::new("curl");
        command
            .args(["-sS", "-m", "20", "-w", "%{http_code}", "--connect-to"])
            .arg(format!("{NAME}:{port}:{}:{}", door.ip(), door.port()))
            .arg("--cacert")
            .arg(&ca)
            .arg(format!("https://{NAME}:{port}{path}"));
        tokio::spawn(async move { command.output().await.unwrap() })
    };
    let waiting = request("/a");
    let ask = scene.session.asked(1).await;
    // The same rule again, in another generation.
    let mut same = policy(port, &[(Action::Ask, &["/a"])]).host(NAME);
    same.roots = scene.session.policy.roots.clone();
    scene.session.apply(same).await;
    scene.session.answer(&ask, "allowed");
    let output = waiting.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.ends_with("403") && text.contains("approval-withdrawn"),
        "{text}"
    );
    assert_eq!(heard(&scene), 0);
    // Control: by the policy that is in force it is asked and carried.
    let waiting = request("/a");
    let ask = scene.session.asked(2).await;
    assert_eq!(ask.generation, 2);
    scene.session.answer(&ask, "allowed");
    waiting.await.unwrap();
    assert_eq!(heard(&scene), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_wait_at_once_and_are_answered_in_any_order() {
    let scene = scene(&[(Action::Ask, &[])]).await;
    let answering = async {
        scene.session.asked(3).await;
        let asks = scene.session.asks.lock().unwrap().0.clone();
        let of = |path: &str| -> v1::Ask {
            let mut asks = asks.iter();
            asks.find(|ask| ask.target == path).unwrap().clone()
        };
        scene.session.answer(&of("/c"), "allowed");
        scene.session.answer(&of("/a"), "approval-denied");
        scene.session.answer(&of("/b"), "allowed");
    };
    let (a, b, c, ()) = tokio::join!(
        scene.curl("/a", &["--http1.1"]),
        scene.curl("/b", &["--http2"]),
        scene.curl("/c", &["--http2"]),
        answering
    );
    assert_eq!((a.status, b.status, c.status), (403, 200, 200));
    assert_eq!(heard(&scene), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unread_connection_is_not_dialled_before_it_is_allowed() {
    let port = echo().await;
    let mut policy = PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .host("db.example.com");
    policy.layer.rules[0].action = Action::Ask;
    let mut session = Session::start(policy).await;
    let door = session.door("db.example.com", port).await;
    for (count, outcome) in [
        (1, "allowed"),
        (2, "approval-denied"),
        (3, "approval-timeout"),
    ] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        let ask = session.asked(count).await;
        assert_eq!(
            (ask.kind.as_str(), ask.protocol.as_str()),
            ("connect", "tcp")
        );
        let mut answer = [0; 5];
        let early = tokio::time::timeout(A_WHILE, stream.read_exact(&mut answer)).await;
        assert!(early.is_err(), "nothing comes back while it waits");
        session.answer(&ask, outcome);
        let read = stream.read_exact(&mut answer).await;
        assert_eq!(read.is_ok(), outcome == "allowed", "{outcome}");
    }
    let denied = session.event("approval-denied").await;
    assert_eq!(denied.kind, audit::Kind::Connect);
    // One that closes while it waits.
    let stream = TcpStream::connect(door).await.unwrap();
    let ask = session.asked(4).await;
    drop(stream);
    session.withdrawn(&ask).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nothing_lists_is_asked_about_and_not_resolved_meanwhile() {
    let mut policy = PolicyBuilder::default();
    policy.layer.ask_unlisted = Some(policy::Origin {
        file: "agentcontainer.json".into(),
        line: 9,
        column: 1,
    });
    // A resolver that writes down what it is asked.
    let resolver = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = resolver.local_addr().unwrap();
    policy.gateway.resolver = schema::gateway::Resolver::Address(address);
    policy.gateway.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut session = Session::start(policy).await;
    let door = session.door("new.example.com", 80).await;
    let request = "GET /a HTTP/1.1\r\nHost: new.example.com\r\n\r\n";
    for (count, outcome) in [(1, "approval-denied"), (2, "allowed")] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let ask = session.asked(count).await;
        assert_eq!(
            (ask.host.as_str(), ask.rule.as_str()),
            ("new.example.com", "unlisted \"ask\"")
        );
        let mut query = [0; 512];
        let early = tokio::time::timeout(A_WHILE, resolver.recv_from(&mut query)).await;
        assert!(early.is_err(), "nothing is resolved while it waits");
        session.answer(&ask, outcome);
        let asked = tokio::time::timeout(A_WHILE * 5, resolver.recv_from(&mut query)).await;
        assert_eq!(asked.is_ok(), outcome == "allowed", "{outcome}");
        if outcome != "allowed" {
            let mut page = vec![0; 4096];
            let count = stream.read(&mut page).await.unwrap();
            let page = String::from_utf8_lossy(&page[..count]).into_owned();
            assert!(page.starts_with("HTTP/1.1 403"), "{page}");
            assert!(
                page.contains("approval-denied") && page.contains(&format!("question q{}", ask.id)),
                "{page}"
            );
        }
    }
    assert!(
        session.events().iter().any(|event| {
            event.kind == audit::Kind::Dns && event.verdict == audit::Verdict::Ask
        })
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_sees_what_waits_and_an_enforcer_that_ends_denies_it() {
    let (port, heard) = {
        let heard = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let count = std::sync::Arc::clone(&heard);
        let port = upstream(move |mut stream| {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move {
                let _ = stream.write_all(crate::http::OK.as_bytes()).await;
            }
        })
        .await;
        (port, heard)
    };
    let mut policy = PolicyBuilder::default()
        .rule("a.example.com", port, Protocol::Http)
        .host("a.example.com");
    policy.layer.rules[0].action = Action::Ask;
    let mut session = Session::start(policy).await;
    let door = session.door("a.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let request = format!(
        "POST /pay?to=me HTTP/1.1\r\nHost: a.example.com:{port}\r\nContent-Length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    session.asked(1).await;
    let inside = session.door_to("198.18.0.3:80".parse().unwrap());
    let look = |accept: &'static str| async move {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: agentcontainer.internal\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
        );
        crate::http::ask(inside, &request).await
    };
    let page = look("*/*").await;
    assert!(page.contains("waits for a person"), "{page}");
    let line = format!(" POST a.example.com:{port}/pay (");
    assert!(page.contains(&line) && !page.contains("to=me"), "{page}");
    let page = look("application/json").await;
    assert!(page.contains("\"waiting\":[{\"question\":\"q"), "{page}");
    // The enforcer's end of the channel goes.
    nix::sys::socket::shutdown(
        std::os::fd::AsRawFd::as_raw_fd(&*session.enforcer),
        nix::sys::socket::Shutdown::Both,
    )
    .unwrap();
    session.ended.take().unwrap().await.unwrap();
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_about_what_would_be_refused_all_the_same() {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let mut asks = policy(port, &[(Action::Ask, &["/asked/**"])]);
    crate::credentials::grant(&mut asks, port, Some("TOKEN"));
    let scene = Scene::of(&world, asks, port, seen).await;
    let key = crate::inspection::key_id();
    let stands_for = crate::credentials::STAND_IN;
    for version in ["--http1.1", "--http2"] {
        for (path, code) in [
            (format!("/asked/a?k={key}"), "inspection-secret"),
            (format!("/asked/{key}"), "inspection-secret"),
            (format!("/asked/a?k={stands_for}"), "credential-misplaced"),
        ] {
            let got = scene.curl(&path, &[version]).await;
            assert_eq!(got.status, 403, "{version} {code}");
            assert!(got.headers.contains(code), "{}", got.headers);
        }
    }
    assert!(scene.session.asks.lock().unwrap().0.is_empty());
    assert_eq!(heard(&scene), 0);
    assert!(!format!("{:?}", scene.session.events()).contains(&key));
    let answered = asked_and(&scene, 1, "--http2", "/asked/a", "allowed").await;
    assert_eq!(answered.status, 200);
}
