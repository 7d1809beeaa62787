//! Secrets as files: read by the container's user alone, changed by nobody inside, and gone when their time is over.

use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::v1;
use enforcer::secrets::Secrets;
use enforcer::session::Session;
use enforcer::trusted::Trusted;
use policy::EffectivePolicy;
use schema::session::SessionId;
use serde_json::{Value, json};

use crate::files::{Case, rule, said};
use crate::policy as parsed;

pub fn file(name: &str, value: &str, expires: u64) -> v1::SecretFile {
    v1::SecretFile {
        name: name.into(),
        value: value.into(),
        expires,
        revoked: false,
    }
}

fn soon(seconds: u64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() + seconds
}

pub async fn open(case: &Case, files: Vec<v1::SecretFile>, rules: Value) -> Arc<Session> {
    let origin = json!({ "file": "agentcontainer.json", "line": 2, "column": 3 });
    let names = ["A", "B"].map(|name| json!({ "name": name, "origin": origin }));
    let policy = parsed(json!({
        "version": 1, "network": [{}], "gateway": {}, "files": rules, "secrets": { "all": names }
    }));
    open_with(case, policy, files).await
}

/// A session of this policy with these secrets.
pub async fn open_with(
    case: &Case,
    policy: EffectivePolicy,
    files: Vec<v1::SecretFile>,
) -> Arc<Session> {
    let trusted = Trusted {
        roots: Vec::new(),
        secrets: Vec::new(),
        files: Secrets::new(files),
        owner: None,
    };
    Session::open(
        Arc::clone(&case.rig.places),
        SessionId::parse(&case.id).unwrap(),
        "/test".into(),
        policy,
        trusted,
        0,
        Arc::default(),
    )
    .await
    .unwrap()
}

pub fn both() -> Vec<v1::SecretFile> {
    vec![file("A", "first-value-of-a", 0), file("B", "value-of-b", 0)]
}

/// A container whose `/run` is its own, as that user.
pub fn inside(case: &Case, session: &Session, user: &str, script: &str) -> Output {
    let before = format!("mount -t tmpfs -o mode=0755 tmpfs /run && {}", case.prepare);
    case.inside_after(session, &before, user, script)
}

fn reasons(case: &Case) -> Vec<(String, String)> {
    let events = case.rig.events(&case.id).into_iter();
    events
        .filter(|event| event.kind == audit::Kind::Secret)
        .map(|event| (event.reason, event.file.unwrap_or_default()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_its_users_to_read_and_nobodys_to_change() {
    let case = Case::new("sec");
    let session = open(&case, both(), json!({})).await;
    let script = r#"
        cat /run/secrets/A; echo; cat /run/secrets/B; echo
        stat -c '%a %u %g' /run/secrets /run/secrets/A; ls -A /run/secrets | tr '\n' ' '; echo
        try() { if "$@" 2>/dev/null; then echo "OPEN: $*"; fi; }
        try sh -c 'echo x > /run/secrets/A'; try sh -c 'echo x > /run/secrets/new'; try rm -f /run/secrets/A; try truncate -s 0 /run/secrets/A
        try mv /run/secrets/A /run/secrets/C; try chmod 644 /run/secrets/A; try chmod 755 /run/secrets; try ln -s x /run/secrets/l
        try umount /run/secrets; try mount -o remount,rw /run/secrets; try mv /run/secrets /run/moved
        try setpriv --reuid 65534 --clear-groups cat /run/secrets/A
        grep ' /run/secrets ' /proc/self/mountinfo
    "#;
    let text = said(&inside(&case, &session, "1234", script));
    let lines: Vec<&str> = text.lines().collect();
    let expected = [
        "first-value-of-a",
        "value-of-b",
        "500 1234 1234",
        "400 1234 1234",
        "A B ",
    ];
    assert_eq!(lines.get(..5), Some(&expected[..]), "{text}");
    assert_eq!(lines.len(), 6, "{text}");
    for option in ["ro,", "nosuid", "nodev", "noexec", " tmpfs ", "size=8192k"] {
        assert!(lines[5].contains(option), "{option}: {text}");
    }
    session.close("test").await.unwrap();

    // Another user, even one that began as root.
    let case = Case::new("oth");
    let session = open(&case, both(), json!({})).await;
    let script = "cat /run/secrets/B; echo; setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all cat /run/secrets/B || echo refused";
    let text = said(&inside(&case, &session, "0", script));
    assert!(text.starts_with("value-of-b\nrefused\n"), "{text}");
    assert_eq!(text.matches("value-of-b").count(), 1, "{text}");
    session.close("test").await.unwrap();
    let kept = std::fs::read_dir(case.rig.directory.path()).unwrap();
    let mut looked_at = 0;
    for entry in kept.flatten().filter(|entry| entry.file_name() != "bin") {
        looked_at += holds(&entry.path(), b"value-of-b");
    }
    assert!(looked_at > 0, "the log was looked at");
}

/// How many files there are; none of them with those bytes.
fn holds(path: &std::path::Path, value: &[u8]) -> usize {
    if path.is_dir() {
        let entries = std::fs::read_dir(path).unwrap().flatten();
        return entries.map(|entry| holds(&entry.path(), value)).sum();
    }
    let bytes = std::fs::read(path).unwrap_or_default();
    let there = bytes.windows(value.len()).any(|part| part == value);
    assert!(!there, "{} holds it", path.display());
    1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_replaced_as_a_whole_taken_away_and_gone_when_its_time_is_over() {
    let case = Case::new("rot");
    let files = vec![
        file("A", "first-value-of-a", 0),
        file("B", "value-of-b", soon(4)),
    ];
    // A tree that is read-only holds for them, and does not keep them from changing.
    let session = open(&case, files, json!({ "readOnly": [rule("/run")] })).await;
    let script = r#"
        exec 5</run/secrets/A 6</run/secrets/B 7</run/secrets/A
        cat /run/secrets/A; echo; echo > wait/rotate
        for n in $(seq 200); do sleep 0.05; [ "$(cat /run/secrets/A)" = second-value-of-a ] && break; done
        cat /run/secrets/A <&5; echo; cat <&5; echo
        for n in $(seq 200); do sleep 0.05; [ -e /run/secrets/B ] || break; done
        ls /run/secrets; echo "B holds <$(cat <&6)>"; echo > wait/revoke
        for n in $(seq 200); do sleep 0.05; [ -e /run/secrets/A ] || break; done
        ls /run/secrets; echo "what A was holds <$(cat <&7)>"; echo done
    "#;
    case.put("wait/x", "");
    let (told, workspace) = (Arc::clone(&session), case.workspace.clone());
    let changes = tokio::spawn(async move {
        let until = async |name: &str| {
            for _ in 0..1000 {
                if workspace.join("wait").join(name).exists() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            panic!("it has not come to {name}");
        };
        until("rotate").await;
        let again = vec![
            file("A", "second-value-of-a", 0),
            file("C", "of-no-secret", 0),
        ];
        assert_eq!(told.set_secret_files(again).await.unwrap(), ["C"]);
        until("revoke").await;
        let states = |held: Vec<v1::Held>| held.into_iter().map(|h| h.state).collect::<Vec<_>>();
        assert_eq!(states(told.status().await.secrets), ["held", "expired"]);
        let away = v1::SecretFile {
            revoked: true,
            ..file("A", "", 0)
        };
        assert!(told.set_secret_files(vec![away]).await.unwrap().is_empty());
        let back = vec![file("A", "third-value-of-a", 0)];
        assert_eq!(told.set_secret_files(back).await.unwrap(), ["A"]);
    });
    let output = tokio::task::block_in_place(|| inside(&case, &session, "0", script));
    let text = said(&output);
    assert!(text.starts_with("first-value-of-a\n"), "{text}");
    changes.await.unwrap();
    assert_eq!(
        text,
        "first-value-of-a\nsecond-value-of-a\nfirst-value-of-a\nA\nB holds <>\nwhat A was holds <>\ndone\n"
    );
    let at = |reason: &str, name: &str| (reason.to_owned(), format!("/run/secrets/{name}"));
    assert_eq!(
        reasons(&case),
        [
            at("secret-put", "A"),
            at("secret-put", "B"),
            at("secret-renewed", "A"),
            at("secret-expired", "B"),
            at("secret-revoked", "A"),
        ]
    );
    // A container that starts again in the session has none of them.
    let text = said(&inside(
        &case,
        &session,
        "1234",
        "ls -A /run/secrets; echo none",
    ));
    assert_eq!(text, "none\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_way_and_a_value_that_is_not_there_stop_the_start_in_words() {
    for (prepare, words) in [
        (
            "mkdir -p /run/secrets && echo x > /run/secrets/x",
            "in that directory",
        ),
        ("ln -s /tmp /run/secrets", "a link or a file"),
        ("echo x > /run/secrets", "a link or a file"),
        (
            "mkdir /run/secrets && mount -t tmpfs tmpfs /run/secrets",
            "a mount",
        ),
    ] {
        let mut case = Case::new("way");
        case.prepare = prepare.to_owned();
        let session = open(&case, both(), json!({})).await;
        let text = said(&inside(&case, &session, "1234", "echo started"));
        assert!(
            text.contains("/run/secrets") && text.contains(words) && !text.contains("started"),
            "{prepare}: {text}"
        );
        session.close("test").await.unwrap();
    }
    let mut case = Case::new("emp");
    case.prepare = "mkdir /run/secrets".to_owned();
    let session = open(&case, both(), json!({})).await;
    let text = said(&inside(&case, &session, "1234", "cat /run/secrets/A"));
    assert_eq!(text, "first-value-of-a");
    session.close("test").await.unwrap();

    let case = Case::new("mis");
    let session = open(&case, vec![file("A", "first-value-of-a", 0)], json!({})).await;
    let text = said(&inside(&case, &session, "1234", "echo started"));
    assert!(
        text.contains("agentcontainer credential rotate B") && !text.contains("started"),
        "{text}"
    );
    session.close("test").await.unwrap();
}
