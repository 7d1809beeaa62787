//! Credentials on the wire, with curl inside and a server that says what it was told: the value is there and nowhere else.

use api::v1;
use audit::{Kind, Verdict};
use policy::Credential;
use policy::credential::Place;
use schema::net::Protocol;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;
use crate::https::{NAME, Scene, Seen, World, origin};

pub const VALUE: &str = "ghp_R3alR3alR3alR3alR3alR3alR3alR3alR3al";
pub const STAND_IN: &str = "ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3";

/// Adds the credential for the server's name at that port.
pub fn grant(policy: &mut PolicyBuilder, port: u16, env: Option<&str>) {
    policy.credentials.push(Credential {
        name: "github".into(),
        places: vec![
            Place {
                host: NAME.parse().unwrap(),
                port,
                paths: Vec::new(),
                methods: Vec::new(),
            },
            Place {
                host: "plain.example.com".parse().unwrap(),
                port: port ^ 1,
                paths: Vec::new(),
                methods: Vec::new(),
            },
        ],
        header: "authorization".into(),
        prefix: "Bearer ".into(),
        suffix: String::new(),
        query: None,
        env: env.map(str::to_owned),
        origin: policy::Origin {
            file: "agentcontainer.json".into(),
            line: 7,
            column: 3,
        },
    });
    policy.secrets.push(v1::Secret {
        credential: "github".into(),
        value: VALUE.into(),
        placeholder: if env.is_some() { STAND_IN } else { "" }.into(),
        ..Default::default()
    });
}

/// A session with a credential for the server's name, and one more name that has none.
async fn scene(env: Option<&str>) -> Scene {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let mut policy = PolicyBuilder::default()
        .rule(NAME, port, Protocol::Https)
        .rule("other.example.com", port, Protocol::Https)
        .host("other.example.com")
        .rule("plain.example.com", port ^ 1, Protocol::Http)
        .host("plain.example.com");
    grant(&mut policy, port, env);
    Scene::of(&world, policy, port, seen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_put_in_on_the_way_there_and_taken_out_on_the_way_back() {
    let scene = scene(Some("GITHUB_TOKEN")).await;
    for version in ["--http1.1", "--http2"] {
        scene.seen.lock().unwrap().clear();
        let field = format!("Authorization: Bearer {STAND_IN}");
        let got = scene
            .curl(
                "/auth",
                &[
                    version,
                    "-H",
                    &field,
                    "-H",
                    "Accept-Encoding: gzip",
                    "-r",
                    "0-9",
                ],
            )
            .await;
        assert_eq!(got.status, 200, "{}", got.headers);
        let seen = scene.seen.lock().unwrap().clone();
        assert_eq!(
            seen[1],
            format!("Bearer {VALUE}"),
            "the server has the value"
        );
        assert_eq!(seen[2], "identity");
        assert_eq!(
            seen[3], "",
            "a piece of an answer could not be looked through"
        );
        let body = String::from_utf8_lossy(&got.body).into_owned();
        assert!(
            !body.contains("R3al") && !got.headers.contains("R3al"),
            "{body} {}",
            got.headers
        );
        assert!(
            body.starts_with(&format!("token {STAND_IN} and again {STAND_IN}, or ")),
            "{body}"
        );
        assert!(
            got.headers.contains(&format!("x-echo: Bearer {STAND_IN}")),
            "{}",
            got.headers
        );
        use base64::Engine as _;
        let encoded = body.rsplit(' ').next().unwrap();
        let decoded = base64::engine::general_purpose::STANDARD
            .decode(encoded)
            .unwrap();
        assert!(!String::from_utf8_lossy(&decoded).contains("R3alR3alR3alR3al"));
    }
    let event = scene
        .session
        .event_where("with a credential", |e| e.credential.is_some())
        .await;
    assert_eq!(
        (event.kind, event.credential.as_deref()),
        (Kind::Request, Some("github"))
    );
    let log = serde_json::to_string(&scene.session.events()).unwrap();
    assert!(!log.contains(VALUE) && !log.contains(STAND_IN), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_it_is_blocked_anywhere_else() {
    let mut scene = scene(Some("GITHUB_TOKEN")).await;
    let bearer = format!("Authorization: Bearer {STAND_IN}");
    let elsewhere = format!("X-Token: {STAND_IN}");
    let query = format!("/?token={STAND_IN}");
    for version in ["--http1.1", "--http2"] {
        for (path, fields) in [("/", &["-H", &elsewhere][..]), (&query, &[])] {
            let got = scene.curl(path, &[&[version], fields].concat()).await;
            assert_eq!(got.status, 403, "{version} {path}");
            assert!(
                got.headers
                    .contains("x-agentcontainer-blocked: credential-misplaced"),
                "{}",
                got.headers
            );
        }
    }
    let door = scene.session.door("other.example.com", scene.port).await;
    let (name, port) = ("other.example.com", scene.port);
    let got = scene.curl_at(name, port, door, "/", &["-H", &bearer]).await;
    assert_eq!(got.status, 403);
    assert!(
        got.headers
            .contains("x-agentcontainer-blocked: credential-elsewhere")
    );
    assert!(
        String::from_utf8_lossy(&got.body).contains(NAME),
        "it says where it may go"
    );
    // Without TLS it goes nowhere, wherever that is.
    let port = scene.port ^ 1;
    let door = scene.session.door("plain.example.com", port).await;
    let request = format!(
        "GET / HTTP/1.1\r\nHost: plain.example.com:{port}\r\n{bearer}\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(door, request.as_bytes()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(
        answer.starts_with("HTTP/1.1 403 ") && answer.contains("credential-elsewhere"),
        "{answer}"
    );
    assert!(
        scene.seen.lock().unwrap().is_empty(),
        "nothing was heard of any of them"
    );
    let event = scene.session.event("credential-elsewhere").await;
    assert_eq!(event.verdict, Verdict::Deny);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_holds_it_breaks_off_before_it() {
    let scene = scene(Some("GITHUB_TOKEN")).await;
    let file = scene.ca().with_file_name("body");
    for version in ["--http1.1", "--http2"] {
        for before in [0, 10_000, 16_370, 65_530, 300_000] {
            scene.seen.lock().unwrap().clear();
            let body = format!("{}{STAND_IN} and more", "x".repeat(before));
            std::fs::write(&file, body).unwrap();
            let data = format!("@{}", file.display());
            let got = scene
                .curl("/take", &[version, "--data-binary", &data, "-H", "Expect:"])
                .await;
            // Where the refusal overtakes the body, some clients see no more than the end.
            assert!(
                got.status == 403 || got.code != 0,
                "{version} {before}: {}",
                got.status
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let seen = scene.seen.lock().unwrap().join(" ");
            assert!(!seen.contains("Fak3"), "{version} {before}");
        }
        // What is no such thing passes whole, whatever it begins like.
        let body = format!("{}ghp_Fak3Fak3 and nothing", "x".repeat(16_380));
        std::fs::write(&file, &body).unwrap();
        let data = format!("@{}", file.display());
        let got = scene
            .curl("/take", &[version, "--data-binary", &data])
            .await;
        assert_eq!(got.status, 200);
        assert_eq!(scene.seen.lock().unwrap().last(), Some(&body));
    }
    scene.session.event("credential-misplaced").await;
}

/// The value has gone with the head by then: the server has never the whole of the request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_bound_to_methods_goes_with_no_whole_body_that_says_another() {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let mut policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    policy.credentials[0].places[0].methods = vec!["POST".parse().unwrap()];
    let scene = Scene::of(&world, policy, port, seen).await;
    let field = format!("Authorization: Bearer {STAND_IN}");
    let says = ["-d", "_method=DELETE"];
    for version in ["--http1.1", "--http2"] {
        let got = scene
            .curl("/take", &[version, "-H", &field, says[0], says[1]])
            .await;
        assert_eq!(got.status, 400, "{version}");
        assert!(got.headers.contains("method-override"), "{}", got.headers);
        // The controls: with another body, and without the credential.
        let got = scene
            .curl("/take", &[version, "-H", &field, "-d", "a=b"])
            .await;
        assert_eq!(got.status, 200, "{version}");
        let got = scene.curl("/take", &[version, says[0], says[1]]).await;
        assert_eq!(got.status, 200, "{version}");
    }
}

/// Percent-encoded in a form, in gzip, in deflate: it is known by what it stands for, and the server has never the whole of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stands_for_it_breaks_off() {
    use std::io::Write as _;
    let scene = scene(Some("GITHUB_TOKEN")).await;
    let file = scene.ca().with_file_name("body");
    let form = "Content-Type: application/x-www-form-urlencoded";
    let text = format!("a={}&b={STAND_IN}&c=d", "x".repeat(200_000));
    let encoded: String = STAND_IN.bytes().map(|b| format!("%{b:02x}")).collect();
    let encoded = text.replace(STAND_IN, &encoded).into_bytes();
    let fast = flate2::Compression::fast();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), fast);
    gzip.write_all(text.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let mut deflate = flate2::write::ZlibEncoder::new(Vec::new(), fast);
    deflate.write_all(&encoded).unwrap();
    let deflate = deflate.finish().unwrap();
    let plain = "Content-Type: application/octet-stream";
    for version in ["--http1.1", "--http2"] {
        for (body, fields, fine) in [
            (&encoded, [form, "X-A: a"], false),
            (&encoded, [plain, "X-A: a"], true),
            (&gzip, [plain, "Content-Encoding: gzip"], false),
            (&gzip, [plain, "X-A: a"], true),
            (&deflate, [form, "Content-Encoding: deflate"], false),
            (&deflate, [plain, "Content-Encoding: deflate"], true),
        ] {
            scene.seen.lock().unwrap().clear();
            std::fs::write(&file, body).unwrap();
            let data = format!("@{}", file.display());
            let words = [
                version,
                "--data-binary",
                &data,
                "-H",
                "Expect:",
                "-H",
                fields[0],
                "-H",
                fields[1],
            ];
            let got = scene.curl("/take", &words).await;
            if fine {
                assert_eq!(got.status, 200, "{version} {fields:?}");
                continue;
            }
            let refused = got.status == 403 && got.headers.contains("credential-misplaced");
            assert!(
                refused || got.code != 0,
                "{version} {fields:?}: {}",
                got.status
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let seen = scene.seen.lock().unwrap().clone();
            let cut = |body: &String| body.contains(" broke off: ");
            assert!(seen.iter().skip(1).all(cut), "{version} {fields:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_nothing_stands_for_is_written_by_the_gateway() {
    let mut scene = scene(None).await;
    let got = scene
        .curl("/auth", &["-H", "Authorization: Bearer own"])
        .await;
    assert_eq!(got.status, 200);
    assert_eq!(scene.seen.lock().unwrap()[1], format!("Bearer {VALUE}"));
    assert!(!String::from_utf8_lossy(&got.body).contains("R3al"));
    // An answer that is compressed all the same is read, and one that cannot be does not pass.
    for version in ["--http1.1", "--http2"] {
        let got = scene.curl("/gzip", &[version]).await;
        let body = String::from_utf8_lossy(&got.body).into_owned();
        assert_eq!(
            (got.status, body.len()),
            (200, 2_100_000 + "Bearer ".len() + VALUE.len())
        );
        assert!(
            !body.contains("R3al") && body.contains("Bearer ****"),
            "{version}"
        );
        assert!(!got.headers.contains("content-encoding"), "{}", got.headers);
        let got = scene.curl("/gzip", &[version, "-I"]).await;
        assert_eq!(
            (got.status, got.code),
            (200, 0),
            "{version}: {}",
            got.headers
        );
        let got = scene.curl("/broken", &[version]).await;
        assert_ne!(got.code, 0, "{version}: what is cut does not look whole");
    }
    let got = scene.curl("/br", &[]).await;
    assert_eq!(got.status, 502);
    assert!(
        got.headers
            .contains("x-agentcontainer-blocked: response-encoded")
    );
    // Where it may not go the agent's own field stays what it is.
    scene.seen.lock().unwrap().clear();
    let door = scene.session.door("other.example.com", scene.port).await;
    let got = scene
        .curl_at(
            "other.example.com",
            scene.port,
            door,
            "/auth",
            &["-k", "-H", "Authorization: Bearer own"],
        )
        .await;
    // Its server has another name's certificate.
    assert_eq!(got.status, 502);
    assert!(scene.seen.lock().unwrap().is_empty());
}

/// A place that no credential goes to, whose server has come by the value all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_is_taken_out_of_what_any_other_place_answers() {
    const MIRROR: &str = "mirror.example.com";
    let world = World::new();
    let (port, _) = origin(world.certified(NAME, |_| {}), &["http/1.1"]).await;
    let (other, seen) = origin(world.certified(MIRROR, |_| {}), &["h2", "http/1.1"]).await;
    let mut policy = PolicyBuilder::default()
        .rule(NAME, port, Protocol::Https)
        .rule(MIRROR, other, Protocol::Https)
        .host(MIRROR);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let mut scene = Scene::of(&world, policy, port, Seen::default()).await;
    let door = scene.session.door(MIRROR, other).await;
    let field = format!("Authorization: Bearer {VALUE}");
    for version in ["--http1.1", "--http2"] {
        for (takes, asked) in [
            ("Accept-Encoding: br, gzip;q=0.5", "gzip"),
            ("Accept-Encoding: br, gzip;q=0.0", "identity"),
            ("Accept-Encoding:", "identity"),
        ] {
            seen.lock().unwrap().clear();
            let words = [version, "-H", &field, "-H", takes];
            let got = scene.curl_at(MIRROR, other, door, "/auth", &words).await;
            assert_eq!(got.status, 200, "{}", got.headers);
            let told = seen.lock().unwrap().clone();
            assert_eq!(told[1..3], [format!("Bearer {VALUE}"), asked.to_owned()]);
            let body = String::from_utf8_lossy(&got.body).into_owned();
            assert!(
                !body.contains("R3al") && !got.headers.contains("R3al"),
                "{body} {}",
                got.headers
            );
            assert!(body.starts_with(&format!("token {STAND_IN} and again {STAND_IN}, or ")));
        }
        let words = [version, "-H", &field, "-H", "Accept-Encoding: gzip"];
        let got = scene.curl_at(MIRROR, other, door, "/gzip", &words).await;
        let body = String::from_utf8_lossy(&got.body).into_owned();
        assert!(got.status == 200 && body.contains(STAND_IN) && !body.contains("R3al"));
        // A file that is called packed, for whoever asked for no such thing, is what it was.
        let words = [version, "-H", &field];
        let got = scene.curl_at(MIRROR, other, door, "/gzip", &words).await;
        assert!(got.status == 200 && got.body.starts_with(&[0x1f, 0x8b]));
        // It is no place of the credential's: what cannot be read passes.
        let got = scene.curl_at(MIRROR, other, door, "/br", &words).await;
        assert_eq!(got.status, 200);
        // Nor is it asked for the whole of what a program wants a piece of.
        let words = [version, "-H", &field, "-r", "0-9"];
        seen.lock().unwrap().clear();
        scene.curl_at(MIRROR, other, door, "/auth", &words).await;
        assert_eq!(seen.lock().unwrap()[2..4], ["identity", "bytes=0-9"]);
        // A piece of what is compressed is passed as it is, its head is not.
        let got = scene.curl_at(MIRROR, other, door, "/piece", &words).await;
        assert_eq!((got.status, &got.body[..]), (206, &b"from within"[..]));
        assert!(got.headers.contains(&format!("x-echo: Bearer {STAND_IN}")));
        // Where the credential goes it does not pass.
        let words = [version, "-H", &format!("Authorization: Bearer {STAND_IN}")];
        let got = scene.curl("/piece", &words).await;
        assert!(got.status == 502 && got.headers.contains("response-encoded"));
    }
    // Without TLS, too.
    let plain = upstream(|mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nX-Echo: {VALUE}\r\nConnection: close\r\n\r\ntoken {VALUE}."
        );
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    let mut policy = PolicyBuilder::default()
        .rule(NAME, plain, Protocol::Http)
        .host(NAME);
    grant(&mut policy, 9, Some("GITHUB_TOKEN"));
    let mut session = Session::start(policy).await;
    let door = session.door(NAME, plain).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}:{plain}\r\nConnection: close\r\n\r\n");
    let answer = exchange(door, request.as_bytes()).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    let stand_in = STAND_IN.to_ascii_lowercase();
    assert!(
        answer.contains(&format!("x-echo: {stand_in}\r\n"))
            && answer.contains(&format!("token {stand_in}.")),
        "{answer}"
    );
}
