//! Inspectors on the wire, with curl inside and a server that says what it was told: what is blocked does not arrive, what is
//! flagged does and is on record, and neither page nor record holds what was found.

use std::path::PathBuf;

use audit::{Kind, Verdict};
use schema::net::Protocol;

use crate::harness::*;
use crate::https::{NAME, Scene, World, origin};

/// A key that is none: of the shape, made up here.
pub fn key_id() -> String {
    format!("{}{}", "AKIA", "Q3EGRNLPXVTW5ZB7")
}

fn pem() -> String {
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj";
    let label = "PRIVATE KEY-----";
    format!("-----BEGIN {label}\n{line}\n{line}\n-----END {label}\n")
}

async fn scene(levels: &[(&str, &str)]) -> Scene {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let policy = PolicyBuilder::default()
        .rule(NAME, port, Protocol::Https)
        .inspect(levels);
    Scene::of(&world, policy, port, seen).await
}

fn file(scene: &Scene, content: impl AsRef<[u8]>) -> (PathBuf, String) {
    let file = scene.ca().with_file_name("body");
    std::fs::write(&file, content).unwrap();
    let data = format!("@{}", file.display());
    (file, data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_in_a_head_is_refused_in_words_that_do_not_hold_it() {
    let scene = scene(&[]).await;
    let id = key_id();
    for version in ["--http1.1", "--http2"] {
        let field = format!("X-Note: {id}");
        let cookie = format!("Cookie: a=b; c={id}");
        let basic = format!("user:{id}");
        let (path, query) = (format!("/{id}/x"), format!("/x?k={id}"));
        for (path, fields, code) in [
            ("/", &["-H", &field][..], "inspection-secret"),
            ("/", &["-H", &cookie], "inspection-secret"),
            (&path, &[], "inspection-secret"),
            (&query, &[], "inspection-secret"),
            ("/", &["-u", &basic], "inspection-base64"),
        ] {
            let got = scene.curl(path, &[&[version], fields].concat()).await;
            assert_eq!(got.status, 403, "{version} {path} {fields:?}");
            let blocked = format!("x-agentcontainer-blocked: {code}");
            assert!(got.headers.contains(&blocked), "{}", got.headers);
            let page = String::from_utf8_lossy(&got.body).into_owned();
            assert!(page.contains("aws-access-key-id in the "), "{page}");
            assert!(page.contains("agent.inspection"), "{page}");
            assert!(!page.contains(&id), "{page}");
        }
        // The same without it.
        let got = scene.curl("/x?k=AKIA", &[version, "-u", "user:word"]).await;
        assert_eq!(got.status, 200);
    }
    let event = scene.session.event("inspection-base64").await;
    assert_eq!((event.kind, event.verdict), (Kind::Request, Verdict::Deny));
    let detail = event.detail.unwrap();
    assert!(detail.contains("in the field authorization"), "{detail}");
    let heard = scene.seen.lock().unwrap().clone();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(!format!("{:?}", scene.session.events()).contains(&id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_with_a_key_breaks_off_before_it() {
    let scene = scene(&[]).await;
    for version in ["--http1.1", "--http2"] {
        for (secret, kind) in [(key_id(), "aws-access-key-id"), (pem(), "private-key")] {
            for before in [0, 1000, 16_370, 65_530, 300_000] {
                scene.seen.lock().unwrap().clear();
                let body = format!("{} {secret} and more", "x".repeat(before));
                let (_, data) = file(&scene, body);
                let fields = ["-H", "Expect:", "-H", "Content-Type: text/plain"];
                let send = [version, "--data-binary", &data];
                let got = scene.curl("/take", &[&send[..], &fields].concat()).await;
                if before == 0 {
                    let page = String::from_utf8_lossy(&got.body).into_owned();
                    assert!(got.status == 403 && page.contains(kind), "{page}");
                }
                // Where the refusal overtakes the body, some clients see no more than the end.
                assert!(got.status == 403 || got.code != 0, "{}", got.status);
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                let heard = scene.seen.lock().unwrap().join(" ");
                let secret = secret
                    .trim_start_matches("-----BEGIN")
                    .trim_start_matches("AKIA");
                assert!(!heard.contains(&secret[..12]), "{version} {before} {kind}");
                if before >= 300_000 {
                    assert!(
                        heard.contains("xxx") && heard.contains(" broke off: "),
                        "{heard}"
                    );
                }
            }
        }
        let body = format!("{}AKIA and no more", "x ".repeat(8190));
        let (_, data) = file(&scene, &body);
        let got = scene
            .curl("/take", &[version, "--data-binary", &data])
            .await;
        assert_eq!(got.status, 200);
        assert_eq!(scene.seen.lock().unwrap().last(), Some(&body));
    }
    let event = scene.session.event("inspection-secret").await;
    assert_eq!(event.verdict, Verdict::Deny);
    assert!(event.detail.unwrap().contains("in the body"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_flagged_arrives_and_is_on_record() {
    let scene = scene(&[("secrets", "flag"), ("base64", "flag"), ("entropy", "flag")]).await;
    let id = key_id();
    for version in ["--http1.1", "--http2"] {
        scene.seen.lock().unwrap().clear();
        let body = format!("{{\"key\": \"{id}\"}}");
        let field = format!("X-Note: {id}");
        let json = "Content-Type: application/json";
        let send = [version, "-d", &body, "-H", &field, "-H", json];
        let got = scene.curl("/take", &send).await;
        assert_eq!(got.status, 200, "{}", got.headers);
        assert_eq!(scene.seen.lock().unwrap().last(), Some(&body));
        // A body that ends with it, of unknown length, and one in gzip.
        let (path, _) = file(&scene, &id);
        let upload = path.display().to_string();
        let send = [version, "-T", &upload, "-H", "Transfer-Encoding: chunked"];
        let got = scene.curl("/take", &send).await;
        assert_eq!(got.status, 200, "{}", got.headers);
        assert_eq!(scene.seen.lock().unwrap().last(), Some(&id));
    }
    // One that ends a body of known length.
    for version in ["--http1.1", "--http2"] {
        let body = format!("note={id}");
        let got = scene.curl("/take", &[version, "-d", &body]).await;
        assert_eq!(got.status, 200, "{}", got.headers);
        assert_eq!(scene.seen.lock().unwrap().last(), Some(&body));
    }
    let flagged = |field: &'static str| {
        scene.session.event_where(field, move |event| {
            event.verdict == Verdict::Flag
                && event.reason == "inspection-secret"
                && event.detail.as_deref().is_some_and(|d| d.contains(field))
        })
    };
    let event = flagged("in the field x-note").await;
    assert_eq!(event.kind, Kind::Request);
    assert!(event.url.unwrap().contains("/take"));
    let event = flagged("in the body").await;
    assert!(!event.rule.unwrap().name.is_empty());
    // One for each head and body.
    let is = |event: &audit::Event| event.reason == "inspection-secret";
    for _ in 0..200 {
        if scene.session.events().into_iter().filter(is).count() == 8 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let events = scene.session.events();
    assert_eq!(events.iter().filter(|event| is(event)).count(), 8);
    assert!(!format!("{events:?}").contains(&id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compressed_body_is_read_through_and_streams_are_looked_at_each_by_itself() {
    use std::io::Write as _;
    let scene = scene(&[]).await;
    let gzip = |text: &str| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(text.as_bytes()).unwrap();
        gzip.finish().unwrap()
    };
    for version in ["--http1.1", "--http2"] {
        for (body, status) in [
            (gzip(&format!("a {} b", key_id())), 403),
            (gzip("a b"), 200),
        ] {
            let (_, data) = file(&scene, body);
            let encoded = ["-H", "Content-Encoding: gzip"];
            let send = [version, "--data-binary", &data];
            let got = scene.curl("/take", &[&send[..], &encoded].concat()).await;
            assert_eq!(got.status, status, "{version} {}", got.headers);
        }
        let (_, data) = file(&scene, "what nobody reads");
        let encoded = ["-H", "Content-Encoding: br"];
        let send = [version, "--data-binary", &data];
        let got = scene.curl("/take", &[&send[..], &encoded].concat()).await;
        assert_eq!(got.status, 200);
    }
    let event = scene.session.event("inspection-encoding").await;
    assert_eq!(event.verdict, Verdict::Flag);

    // Many streams of one connection: those with a key are refused, the others are carried.
    let id = key_id();
    let directory = scene.ca();
    let mut config = String::from("parallel\nparallel-immediate\nhttp2\nsilent\n");
    for n in 0..20 {
        let body = if n % 2 == 0 {
            "harmless".to_owned()
        } else {
            format!("key {id} {n}")
        };
        let out = directory.with_file_name(format!("out{n}"));
        if n > 0 {
            config.push_str("next\n");
        }
        config.push_str(&format!(
            "url = \"https://{NAME}:{}/take\"\ndata = \"{body}\"\noutput = \"{}\"\ncacert = \"{}\"\nconnect-to = \"{NAME}:{}:{}:{}\"\nhttp2\nsilent\n",
            scene.port, out.display(), directory.display(), scene.port, scene.door.ip(), scene.door.port()
        ));
    }
    scene.seen.lock().unwrap().clear();
    let path = directory.with_file_name("config");
    std::fs::write(&path, config).unwrap();
    let status = tokio::process::Command::new("curl")
        .arg("-Z")
        .arg("-K")
        .arg(&path)
        .status()
        .await
        .unwrap();
    assert!(status.success());
    for n in 0..20 {
        let out = std::fs::read_to_string(directory.with_file_name(format!("out{n}"))).unwrap();
        if n % 2 == 0 {
            assert_eq!(out, "taken", "{n}");
        } else {
            assert!(out.contains("inspection-secret"), "{n}: {out}");
        }
    }
    let heard = scene.seen.lock().unwrap().join(" ");
    assert_eq!(heard.matches("harmless").count(), 10);
    assert!(!heard.contains(&id[4..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_stands_for_a_credential_and_its_value_are_no_findings() {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let mut policy = PolicyBuilder::default()
        .rule(NAME, port, Protocol::Https)
        .rule("plain.example.com", port ^ 1, Protocol::Http)
        .inspect(&[
            ("secrets", "block"),
            ("entropy", "block"),
            ("base64", "block"),
        ]);
    crate::credentials::grant(&mut policy, port, Some("GITHUB_TOKEN"));
    // Both of the shape of a key that belongs elsewhere.
    let (value, stand_in) = (key_id(), format!("AKIA{}", "W5ZB7Q3EGRNLPXVT"));
    policy.secrets[0].value = value.clone().into();
    policy.secrets[0].placeholder = stand_in.clone();
    let scene = Scene::of(&world, policy, port, seen).await;
    for version in ["--http1.1", "--http2"] {
        scene.seen.lock().unwrap().clear();
        let field = format!("Authorization: Bearer {stand_in}");
        let got = scene.curl("/auth", &[version, "-H", &field]).await;
        assert_eq!(got.status, 200, "{}", got.headers);
        assert_eq!(scene.seen.lock().unwrap()[1], format!("Bearer {value}"));
        // Any other of its shape is one.
        let field = format!("Authorization: Bearer {value}");
        let got = scene.curl("/auth", &[version, "-H", &field]).await;
        assert_eq!(got.status, 403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_asks_for_more_closes_what_is_open() {
    let mut scene = scene(&[("secrets", "flag")]).await;
    let slow = tokio::process::Command::new("curl")
        .args(["-sS", "-m", "20", "--connect-to"])
        .arg(format!(
            "{NAME}:{}:{}:{}",
            scene.port,
            scene.door.ip(),
            scene.door.port()
        ))
        .arg("--cacert")
        .arg(scene.ca())
        .arg(format!("https://{NAME}:{}/slow", scene.port))
        .output();
    let slow = tokio::spawn(slow);
    let carried = |event: &audit::Event| event.kind == Kind::Request;
    scene.session.event_where("request", carried).await;
    let stricter = scene
        .session
        .policy
        .clone()
        .inspect(&[("secrets", "block")]);
    scene.session.apply(stricter).await;
    let ended = tokio::time::timeout(std::time::Duration::from_secs(5), slow).await;
    assert!(!ended.unwrap().unwrap().unwrap().status.success());
}
