//! What waits for a person when the enforcer that holds the question dies.

use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Workspace, rig};
use serde_json::{Value, json};

/// Waits until one question waits, however long the enforcer takes to be back.
fn asked(session: &Session<'_>) -> String {
    let began = Instant::now();
    loop {
        let said = session
            .workspace
            .cli(&["approvals", "--json", &session.name]);
        if let Some(line) = said.stdout.lines().next() {
            let question: Value = serde_json::from_str(line).unwrap();
            return question["open"]["id"].as_str().unwrap().to_owned();
        }
        assert!(began.elapsed() < DEADLINE, "nothing waits: {said:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_waits_for_a_person_is_denied_when_the_enforcer_dies() {
    let (host, receiver) = (format!("{}.test", token("q")), Receiver::start());
    let port = receiver.port();
    let rule = json!([{ "host": host, "ports": [port], "protocol": "tcp", "action": "ask" }]);
    let workspace = Workspace::new().rules(&rule).host(&host, rig().bridge);
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    let session = workspace.session(&token("w"));
    let dial = |word: &str| {
        let script = format!("python3 dial.py tcp {host} {port} {word}");
        workspace.spawn(&["exec", &session.name, "--", "sh", "-c", &script])
    };
    let child = dial("before");
    let id = asked(&session);
    let enforcers = super::processes("agentcontainer-enforcer");
    assert!(!enforcers.is_empty(), "no enforcer is running");
    for pid in enforcers {
        signal(pid, "-KILL", false);
    }
    let ended = outcome::wait(child, "dial.py", DEADLINE);
    assert!(!ended.stdout.contains("answer"), "{ended:?}");
    receiver.silent();
    // Once it is back, with the session's network, it knows nothing of it, and asks anew.
    let again = format!(
        "for n in $(seq 60); do said=$(python3 dial.py tcp {host} {port} after); echo \"$said\"; case $said in answer*) exit;; esac; sleep 1; done"
    );
    let child = workspace.spawn(&["exec", &session.name, "--", "sh", "-c", &again]);
    let again = asked(&session);
    assert_ne!(again, id);
    workspace
        .cli(&["approve", &id])
        .status(125)
        .says("there is no question");
    receiver.silent();
    workspace.cli(&["approve", &again]).status(0);
    let ended = outcome::wait(child, "dial.py", DEADLINE);
    assert!(ended.stdout.contains("answer after"), "{ended:?}");
    assert!(receiver.hears(b"after") && !receiver.heard_bytes(b"before"));
}
