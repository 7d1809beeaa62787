//! Rules about requests: methods, paths, bodies and rates, with curl by both versions of HTTP.

use policy::Action;
use schema::request::{RateLimit, Requests};

use crate::harness::*;
use crate::https::{NAME, Scene, World, origin};

fn requests(methods: &[&str], paths: &[&str]) -> Requests {
    Requests {
        methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
        paths: paths.iter().map(|p| p.parse().unwrap()).collect(),
        ..Requests::default()
    }
}

async fn scene(rules: &[(Action, Requests)]) -> Scene {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["h2", "http/1.1"]).await;
    let mut policy = PolicyBuilder::default();
    for (action, requests) in rules {
        policy = policy.requests(NAME, port, *action, requests.clone());
    }
    Scene::of(&world, policy, port, seen).await
}

fn blocked(headers: &str) -> &str {
    let field = headers
        .lines()
        .find_map(|line| line.strip_prefix("x-agentcontainer-blocked: "));
    field.unwrap_or_default().trim()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_and_paths_are_held_to_what_rules_say() {
    let scene = scene(&[
        (
            Action::Allow,
            requests(&["GET", "HEAD"], &["/repos/acme/**"]),
        ),
        (
            Action::Allow,
            requests(&["POST"], &["/repos/acme/*/issues"]),
        ),
        (Action::Deny, requests(&[], &["/repos/acme/secret/**"])),
    ])
    .await;
    for version in ["--http1.1", "--http2"] {
        scene.seen.lock().unwrap().clear();
        let as_is = "--path-as-is";
        for (path, arguments, status, code) in [
            ("/repos/acme/a", &[][..], 200, ""),
            ("/repos/acme/a?x=../..", &[], 200, ""),
            ("/repos/acme/a", &["-I"], 200, ""),
            ("/repos/acme/a/issues", &["-d", "x"], 200, ""),
            ("/repos/acme/a", &["-d", "x"], 403, "request-not-listed"),
            ("/repos/other/a", &[], 403, "request-not-listed"),
            (
                "/repos/acme/a",
                &["-X", "DELETE"],
                403,
                "request-not-listed",
            ),
            ("/repos/acme/secret/a", &[], 403, "request-denied"),
            (
                "/repos/acme/../other/a",
                &[as_is],
                400,
                "path-not-canonical",
            ),
            (
                "/repos/acme/%2e%2e/other/a",
                &[as_is],
                400,
                "path-not-canonical",
            ),
            (
                "/repos/acme/a%2F..%2Fb",
                &[as_is],
                400,
                "path-not-canonical",
            ),
            ("/repos//acme/a", &[as_is], 400, "path-not-canonical"),
            (
                "/repos/acme/a",
                &["-H", "X-HTTP-Method-Override: DELETE"],
                400,
                "method-override",
            ),
            (
                "/repos/acme/a",
                &["-H", "X_HTTP_Method_Override: DELETE"],
                400,
                "method-override",
            ),
            (
                "/repos/acme/a",
                &["-H", "X-Original-URL: /secret"],
                400,
                "method-override",
            ),
            ("/repos/acme/a?_method=DELETE", &[], 400, "method-override"),
            (
                "/repos/acme/a?%24httpMethod=DELETE",
                &[],
                400,
                "method-override",
            ),
            (
                "/repos/acme/a?x&_HttpMethod=PATCH",
                &[],
                400,
                "method-override",
            ),
            (
                "/repos/acme/a?x=1&%5fMethod=DELETE",
                &[],
                400,
                "method-override",
            ),
            (
                "/repos/acme/a?x=1;+.method=DELETE",
                &[],
                400,
                "method-override",
            ),
            ("/repos/acme/a?filter%5Bx%5D=1&a%2Bb", &[], 200, ""),
            ("/repos/acme/a", &["-X", "get"], 400, "method-override"),
            (
                "/repos/acme/secret;x/a",
                &[as_is],
                400,
                "path-not-canonical",
            ),
            ("/repos/acme/%40a", &[as_is], 400, "path-not-canonical"),
        ] {
            let got = scene.curl(path, &[&[version], arguments].concat()).await;
            assert_eq!(
                (got.status, blocked(&got.headers)),
                (status, code),
                "{version} {path} {arguments:?}"
            );
        }
        assert_eq!(
            scene.seen.lock().unwrap().len(),
            5,
            "the server heard what was allowed alone"
        );
    }
    let event = scene.session.event("request-not-listed").await;
    assert_eq!(event.verdict, audit::Verdict::Deny);
}

/// As frameworks take it for the method of a POST: from a form, from its parts, from JSON, packed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_says_another_method_does_not_arrive() {
    let scene = scene(&[(Action::Allow, requests(&["POST"], &[]))]).await;
    let file = scene.ca().with_file_name("body");
    let form = "Content-Type: application/x-www-form-urlencoded";
    let json = "Content-Type: application/json";
    let gzip = "Content-Encoding: gzip";
    let long = format!("a={}&_method=DELETE&c=d", "b".repeat(300_000));
    for version in ["--http1.1", "--http2"] {
        for (body, fields, fine) in [
            ("a=b&_method=DELETE", &[form][..], false),
            ("a=b&%5Fmethod=DELETE", &[form], false),
            ("a=b&method=_method", &[form], true),
            (&long, &[form], false),
            (&long, &["Content-Type: text/plain"], true),
            (r#"{"a":1,"_method":"DELETE"}"#, &[json], false),
            (r#"{"a":{"_method":"DELETE"}}"#, &[json], true),
            ("a=b&_method=DELETE", &[form, gzip], false),
            ("a=b&c=d", &[form, gzip], true),
            ("a=b&c=d", &[form, "Content-Encoding: br"], false),
            ("a=b&c=d", &[form, "Content-Encoding: aws-chunked"], true),
            (
                "a=b&c=d",
                &["Content-Type: application/json; charset=utf-16"],
                false,
            ),
            (
                "--b\r\nContent-Disposition: form-data; name=\"_method\"\r\n\r\nDELETE\r\n--b--",
                &["Content-Type: multipart/form-data; boundary=b"],
                false,
            ),
        ] {
            scene.seen.lock().unwrap().clear();
            let bytes = match fields.contains(&gzip) {
                true => packed(body.as_bytes()),
                false => body.as_bytes().to_vec(),
            };
            std::fs::write(&file, bytes).unwrap();
            let data = format!("@{}", file.display());
            let mut words = vec![version, "--data-binary", &data, "-H", "Expect:"];
            words.extend(fields.iter().flat_map(|field| ["-H", *field]));
            let got = scene.curl("/take", &words).await;
            let what = format!("{version} {fields:?} {}", &body[..body.len().min(40)]);
            if fine {
                assert_eq!(got.status, 200, "{what}");
                continue;
            }
            // Where the refusal overtakes the body, some clients see no more than the end.
            let refused = got.status == 400 && blocked(&got.headers) == "method-override";
            assert!(refused || got.code != 0, "{what}: {}", got.status);
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            let seen = scene.seen.lock().unwrap().join(" ");
            assert!(
                !seen.contains("method=DELETE") && !seen.contains("b--"),
                "{what}"
            );
        }
    }
    // As it is to a server that does not look into what is compressed: within gzip's own comment (RFC 1952, 2.3.1).
    let mut builder = flate2::GzBuilder::new().comment("&_method=DELETE&");
    builder = builder.filename("x");
    let mut encoder = builder.write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"a=b").unwrap();
    std::fs::write(&file, encoder.finish().unwrap()).unwrap();
    let data = format!("@{}", file.display());
    let words = ["--data-binary", &data, "-H", gzip];
    assert_eq!(scene.curl("/take", &words).await.status, 400);
    // No server takes it for the method of anything but a POST.
    let put = self::scene(&[(Action::Allow, requests(&["PUT"], &[]))]).await;
    let got = put
        .curl("/take", &["-X", "PUT", "-d", "_method=DELETE"])
        .await;
    assert_eq!(got.status, 200);
    // A form that is posted where no rule is about methods is nobody's business.
    let free = self::scene(&[(Action::Allow, requests(&[], &["/**"]))]).await;
    let got = free.curl("/take", &["-d", "_method=DELETE"]).await;
    assert_eq!(got.status, 200);
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write as _;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_ends_where_its_rule_does() {
    let bounded = Requests {
        max_body_bytes: Some(1000),
        ..Requests::default()
    };
    let scene = scene(&[(Action::Allow, bounded)]).await;
    let file = scene.ca().with_file_name("body");
    for version in ["--http1.1", "--http2"] {
        for (bytes, announced, fine) in [
            (1000, true, true),
            (1001, true, false),
            (1000, false, true),
            (1001, false, false),
        ] {
            scene.seen.lock().unwrap().clear();
            std::fs::write(&file, vec![b'x'; bytes]).unwrap();
            let data = format!("@{}", file.display());
            let chunked = ["-H", "Transfer-Encoding: chunked"];
            let unannounced = if announced { &[][..] } else { &chunked };
            let arguments = [
                &[version, "--data-binary", &data, "-H", "Expect:"],
                unannounced,
            ];
            let got = scene.curl("/take", &arguments.concat()).await;
            // curl of HTTP/2 announces the length whatever it is told.
            assert_eq!(
                got.status,
                if fine { 200 } else { 413 },
                "{version} {bytes} {announced}"
            );
            let whole = scene
                .seen
                .lock()
                .unwrap()
                .iter()
                .any(|seen| seen.len() == bytes);
            assert_eq!(whole, fine, "{version} {bytes} {announced}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_is_kept_across_connections() {
    let slow = Requests {
        rate_limit: Some(RateLimit {
            per_second: 1,
            burst: 3,
        }),
        ..Requests::default()
    };
    let scene = scene(&[(Action::Allow, slow)]).await;
    let mut statuses = Vec::new();
    for _ in 0..5 {
        let got = scene.curl("/", &[]).await;
        if got.status == 429 {
            assert!(
                got.headers.to_lowercase().contains("retry-after: 1"),
                "{}",
                got.headers
            );
        }
        statuses.push(got.status);
    }
    assert_eq!(statuses[..3], [200, 200, 200]);
    assert!(statuses[3..].contains(&429), "{statuses:?}");
    tokio::time::sleep(std::time::Duration::from_millis(2100)).await;
    assert_eq!(scene.curl("/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_is_held_to_what_rules_say_by_the_kernels_word() {
    let by = |program: &str| Requests {
        programs: vec![program.parse().unwrap()],
        ..Requests::default()
    };
    let scene = scene(&[(Action::Allow, by("/usr/bin/curl"))]).await;
    let say = |program: Option<&str>| {
        scene.session.manners.lock().unwrap().program = program.map(str::to_owned);
    };
    for version in ["--http1.1", "--http2"] {
        for (program, status, words) in [
            (Some("/usr/bin/curl"), 200, ""),
            (Some("/tmp/usr/bin/curl"), 403, "by /tmp/usr/bin/curl;"),
            (Some("/usr/bin/curl (deleted)"), 403, "curl (deleted)"),
            (None, 403, "by a program that is not known"),
        ] {
            say(program);
            let got = scene.curl("/", &[version]).await;
            assert_eq!(got.status, status, "{version} {program:?}");
            let code = if status == 200 {
                ""
            } else {
                "request-not-listed"
            };
            assert_eq!(blocked(&got.headers), code);
            let page = String::from_utf8_lossy(&got.body).into_owned();
            assert!(page.contains(words), "{page}");
        }
    }
    assert_eq!(scene.seen.lock().unwrap().len(), 2, "one for each version");
    // Once a connection, whatever it asks.
    let before = scene.session.manners.lock().unwrap().openers;
    say(Some("/usr/bin/curl"));
    let again = format!("https://{NAME}:{}/again", scene.port);
    let got = scene.curl("/", &["--http1.1", &again]).await;
    assert_eq!(got.status, 200);
    assert_eq!(scene.seen.lock().unwrap().len(), 4);
    let after = scene.session.manners.lock().unwrap().openers;
    assert_eq!(after, before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_asked_who_opened_a_connection_where_no_rule_wants_to_know() {
    let scene = scene(&[(Action::Allow, requests(&["GET"], &[]))]).await;
    assert_eq!(scene.curl("/", &["--http2"]).await.status, 200);
    assert_eq!(scene.session.manners.lock().unwrap().openers, 0);
}
