//! A credential while its session is open: taken away, handed anew, and after an enforcer that was started again. What the server
//! heard, and when, is the verdict.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use agentcontainer_tests::place::token;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Workspace, docker};
use serde_json::{Value, json};

use crate::standard::{name, standard, workspace};

fn value() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!("ghp_{:Z<36}", format!("{random}AbCdEfGhIjKlMnOpQrStUvWx"))
}

/// A workspace that was granted a credential for the host, from a file that holds the value.
fn granted(workspace: Workspace, host: &str, value: &str) -> Workspace {
    let workspace = workspace
        .allow(&[host])
        .credential("github", json!({ "hosts": [host], "env": "GITHUB_TOKEN" }));
    workspace.write();
    hold(&workspace, value);
    let source = format!("file://{}", workspace.put_outside("token", value).display());
    workspace
        .cli(&["grant", "github", "--source", &source, "--hosts", host])
        .status(0);
    workspace
}

/// Has the source give this value from now on.
fn hold(workspace: &Workspace, value: &str) {
    workspace.put_outside("token", format!("{value}\n"));
}

const CODE: &str =
    "-s -o /dev/null -w '%{http_code} %header{x-agentcontainer-blocked}' --max-time 30";
const BEARER: &str = "-H \"Authorization: Bearer $GITHUB_TOKEN\"";

/// What one request with the placeholder gets; `000` where there is no answer, as between a gateway and the trust in its certificate.
fn ask(session: &Session<'_>, host: &str) -> String {
    let out = session.inside(&format!("curl {CODE} {BEARER} https://{host}/hello"));
    out.stdout.trim().to_owned()
}

fn field(request: &Value) -> &str {
    let headers = &request["headers"];
    headers["Authorization"]
        .as_str()
        .or_else(|| headers["authorization"].as_str())
        .unwrap_or_default()
}

fn heard(host: &str) -> Vec<String> {
    let requests = standard().requests(host);
    requests.iter().map(|one| field(one).to_owned()).collect()
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

/// When the server saw this stream of the host end.
fn ended(host: &str, path: &str) -> Option<f64> {
    let all = standard().https.heard();
    let one = all
        .iter()
        .find(|one| one["kind"] == "ended" && one["host"] == host && one["path"] == path)?;
    one["at"].as_f64()
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: not yet");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_taken_away_is_heard_no_more_within_a_second_and_open_connections_end() {
    let (host, value, session_name) = (name(), value(), token("s"));
    let workspace = granted(workspace(), &host, &value);
    let session = workspace.session(&session_name);
    assert_eq!(ask(&session, &host), "200");
    for (path, how) in [("/forever?with", BEARER), ("/forever?without", "")] {
        let stream = format!("curl -sN {how} 'https://{host}{path}'");
        session
            .inside(&format!(
                "setsid sh -c \"{}\" >/dev/null 2>&1 </dev/null & sleep 0.1",
                stream.replace('"', "\\\"")
            ))
            .ok();
        until(path, || {
            standard()
                .requests(&host)
                .iter()
                .any(|one| one["path"] == path)
        });
    }
    assert!(ended(&host, "/forever?with").is_none());
    let before = heard(&host);
    assert_eq!(
        before,
        [
            format!("Bearer {value}"),
            format!("Bearer {value}"),
            String::new()
        ]
    );

    let start = now();
    workspace
        .cli(&["credential", "revoke", "github", "--session", &session_name])
        .status(0)
        .prints(&format!("revoked: github from {session_name}"))
        .says("grant --revoke github");
    until("the stream that carried it ends", || {
        ended(&host, "/forever?with").is_some()
    });
    let after = ended(&host, "/forever?with").unwrap() - start;
    assert!(after < 1.0, "it ended after {after} s");
    assert_eq!(ask(&session, &host), "403 credential-revoked");
    assert_eq!(heard(&host), before, "the server heard of it again");
    // What never carried it goes on, and so does the session.
    assert!(ended(&host, "/forever?without").is_none());
    let plain = session.inside(&format!("curl {CODE} https://{host}/hello"));
    assert_eq!(plain.ok().trim(), "200");
    // For good.
    workspace
        .cli(&["credential", "rotate", "github", "--session", &session_name])
        .status(1)
        .says("does not come back");
    assert_eq!(ask(&session, &host), "403 credential-revoked");
    let events = workspace.events(&session_name);
    assert!(events.iter().any(|e| e["kind"] == "credential"
        && e["reason"] == "credential-revoked"
        && e["credential"] == "github"));
    // A grant that is taken back takes it from what is open, too.
    workspace.cli(&["grant", "--revoke", "github"]).status(0);
}

#[test]
fn a_grant_that_is_taken_back_is_taken_from_what_is_open_in_that_workspace_alone() {
    let (host, value) = (name(), value());
    let (one, other) = (
        granted(workspace(), &host, &value),
        granted(workspace(), &host, &value),
    );
    let (first, second) = (one.session(&token("s")), other.session(&token("s")));
    assert_eq!(
        (ask(&first, &host), ask(&second, &host)),
        ("200".into(), "200".into())
    );
    one.cli(&["grant", "--revoke", "github"])
        .status(0)
        .prints("revoked: github from");
    assert_eq!(ask(&first, &host), "403 credential-revoked");
    assert_eq!(ask(&second, &host), "200");
}

#[test]
fn a_rotated_value_reaches_the_server_and_no_request_in_between_is_refused() {
    let (host, old, new) = (name(), value(), value());
    let workspace = granted(workspace(), &host, &old);
    let session_name = token("s");
    let session = workspace.session(&session_name);
    let script = "import os, time, requests
session, out = requests.Session(), []
end = time.time() + 60
while time.time() < end and not os.path.exists('/tmp/enough'):
    got = session.get('https://HOST/hello', headers={'Authorization': 'Bearer ' + os.environ['GITHUB_TOKEN']})
    out.append(got.status_code)
    time.sleep(0.005)
print(len(out), sorted(set(out)))"
        .replace("HOST", &host);
    let script = workspace.put("ask.py", script);
    assert!(script.exists());
    let said = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            session.inside("cd \"$(dirname \"$(find / -name ask.py -not -path '/proc/*' 2>/dev/null | head -1)\")\" && python3 ask.py")
        });
        until("some with the old value", || heard(&host).len() > 5);
        hold(&workspace, &new);
        workspace
            .cli(&["credential", "rotate", "github", "--session", &session_name])
            .status(0)
            .prints(&format!("rotated: github in {session_name}"));
        let before = heard(&host).len();
        until("some with the new value", || {
            heard(&host).len() > before + 5
        });
        session.inside("touch /tmp/enough").ok();
        asking.join().unwrap()
    });
    assert!(said.ok().ends_with("[200]"), "{said:?}");
    let heard = heard(&host);
    let first_new = heard
        .iter()
        .position(|field| *field == format!("Bearer {new}"))
        .expect("the new value never came");
    assert!(first_new > 5);
    let (before, after) = heard.split_at(first_new);
    assert!(before.iter().all(|field| *field == format!("Bearer {old}")));
    assert!(after.iter().all(|field| *field == format!("Bearer {new}")));
    // Both are taken out of what comes back.
    let echoed = session.inside(&format!(
        "curl -s {BEARER} -H 'X-Old: {old}' https://{host}/echo-headers"
    ));
    assert!(echoed.ok().contains("Bearer ghp_"));
    assert!(!echoed.stdout.contains(&new) && !echoed.stdout.contains(&old));
}

/// Ends the enforcer's container and starts it again.
fn restart(workspace: &Workspace) {
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    docker::run(&["kill", sidecar.split_whitespace().next().unwrap()]);
    workspace.cli(&["enforcer", "start"]).status(0);
}

#[test]
fn after_an_enforcers_restart_a_run_in_the_foreground_hands_values_again() {
    let (host, old, new) = (name(), value(), value());
    let workspace = granted(workspace().with_own_state(), &host, &old);
    let session = workspace.session(&token("s"));
    assert_eq!(ask(&session, &host), "200");
    hold(&workspace, &new);
    restart(&workspace);
    until("it is handed again", || ask(&session, &host) == "200");
    let heard = heard(&host);
    assert_eq!(heard, [format!("Bearer {old}"), format!("Bearer {new}")]);
}

#[test]
fn after_an_enforcers_restart_nothing_is_sent_until_it_is_handed_and_what_was_taken_stays_away() {
    let (host, value) = (name(), value());
    let workspace = granted(workspace().with_own_state(), &host, &value);
    let session_name = token("s");
    workspace
        .cli(&[
            "run",
            "--yes",
            "--detach",
            "--name",
            &session_name,
            "--",
            "sleep",
            "infinity",
        ])
        .status(0);
    let ask = || {
        let script = format!("curl {CODE} {BEARER} https://{host}/hello");
        let out = workspace.cli(&["exec", &session_name, "--", "sh", "-c", &script]);
        out.stdout.trim().to_owned()
    };
    until("it is up", || ask() == "200");
    restart(&workspace);
    until("it is back", || ask() == "503 credential-unavailable");
    let before = heard(&host);
    assert!(
        before
            .iter()
            .all(|field| *field == format!("Bearer {value}")),
        "what stands for it was sent: {before:?}"
    );
    workspace.cli(&["credential", "rotate", "github"]).status(0);
    assert_eq!(ask(), "200");
    workspace.cli(&["credential", "revoke", "github"]).status(0);
    assert_eq!(ask(), "403 credential-revoked");
    restart(&workspace);
    until("it is back", || ask() == "403 credential-revoked");
    workspace.cli(&["credential", "rotate", "github"]).status(1);
    assert_eq!(ask(), "403 credential-revoked");
    assert_eq!(heard(&host).len(), before.len() + 1);
    workspace.cli(&["stop", &session_name]).status(0);
}

/// A program that gives another value each time, and says that it ends in twelve seconds.
fn short_lived(workspace: &Workspace) -> String {
    let count = workspace.put_outside("count", "0");
    let script = format!(
        "n=$(($(cat {count}) + 1)); echo $n >{count}
         printf '{{\"kind\":\"ExecCredential\",\"status\":{{\"token\":\"ghp_Value%sOfAShortLivedKind\",\"expirationTimestamp\":\"%s\"}}}}' $n \"$(date -u -d '+12 seconds' +%FT%TZ)\"",
        count = count.display()
    );
    let path = workspace.put_outside("program", script);
    format!("exec:///bin/sh {}", path.display())
}

#[test]
fn a_value_that_ends_is_renewed_in_the_foreground_and_refused_where_nobody_renews_it() {
    let (host, other) = (name(), name());
    let scene = |host: &str| {
        let workspace = workspace()
            .allow(&[host])
            .credential("github", json!({ "hosts": [host], "env": "GITHUB_TOKEN" }));
        workspace.write();
        let source = short_lived(&workspace);
        workspace
            .cli(&["grant", "github", "--source", &source, "--hosts", host])
            .status(0);
        workspace
    };
    let (kept, left) = (scene(&host), scene(&other));
    let left_name = token("s");
    left.cli(&[
        "run", "--yes", "--detach", "--name", &left_name, "--", "sleep", "infinity",
    ])
    .status(0);
    let session = kept.session(&token("s"));
    let began = Instant::now();
    let mut got = Vec::new();
    let mut values = Vec::new();
    while values.len() < 2 || began.elapsed() < Duration::from_secs(13) {
        assert!(
            began.elapsed() < Duration::from_secs(90),
            "never renewed: {values:?}"
        );
        got.push(ask(&session, &host));
        values = heard(&host);
        values.dedup();
        std::thread::sleep(Duration::from_millis(300));
    }
    assert!(got.iter().all(|one| one == "200"), "{got:?}");

    let script = format!("curl {CODE} {BEARER} https://{other}/hello");
    let ask = || {
        let out = left.cli(&["exec", &left_name, "--", "sh", "-c", &script]);
        out.stdout.trim().to_owned()
    };
    assert_eq!(ask(), "503 credential-expired");
    assert_eq!(heard(&other), Vec::<String>::new());
    left.cli(&["credential", "rotate", "github", "--session", &left_name])
        .status(0);
    assert_eq!(ask(), "200");
    assert_eq!(heard(&other), ["Bearer ghp_Value2OfAShortLivedKind"]);
    left.cli(&["stop", &left_name]).status(0);
}
