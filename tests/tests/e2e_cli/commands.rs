//! Commands around a session that no other test is about: what they print, follow, end, and take for meant where no session is named.

use std::io::Write;
use std::process::{Command, Stdio};

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::token;
use serde_json::{Value, json};

/// Gives a program these words, and expects that it is content.
fn takes(program: &str, arguments: &[&str], words: &str) {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(words.as_bytes()).unwrap();
    drop(input);
    outcome::wait(child, program, DEADLINE).status(0);
}

#[test]
fn completions_and_manual_pages_are_what_shells_and_man_take() {
    let workspace = Workspace::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = workspace.cli(&["completions", shell]);
        let script = script.ok();
        for word in ["agentcontainer", "approvals", "--detach"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
        if shell == "bash" {
            takes("bash", &["-n"], script);
        }
    }
    for words in [&["man"][..], &["man", "run"]] {
        let page = workspace.cli(words);
        let page = page.ok();
        assert!(page.contains(".TH") && page.contains(".SH NAME"), "{page}");
    }
    workspace.cli(&["man", "no-such"]).status(125);
}

#[test]
fn init_writes_a_config_that_is_one_and_leaves_what_is_there() {
    let workspace = Workspace::new();
    let file = workspace.path().join("agentcontainer.json");
    workspace.put(
        ".devcontainer/devcontainer.json",
        "{\n  // what the team agreed on\n  \"image\": \"debian:12\",\n}\n",
    );
    let printed = workspace.cli(&["init", "--print"]);
    assert!(!file.exists());
    workspace.cli(&["init"]).status(0);
    let written = std::fs::read_to_string(&file).unwrap();
    assert_eq!(written.trim(), printed.ok().trim());
    assert!(written.contains("debian:12"), "{written}");
    workspace.cli(&["config", "check"]).status(0);
    workspace.put("agentcontainer.json", "// mine\n{ \"image\": \"x\" }\n");
    workspace.cli(&["init"]).status(125).says("--force");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.starts_with("// mine"), "{kept}");
}

#[test]
fn the_one_session_of_a_directory_is_meant_and_of_two_none() {
    let workspace = Workspace::new().with_own_state();
    let names = [token("m"), token("n")];
    let start = |name: &str| {
        let script = "echo up; trap 'exit 0' TERM; while :; do sleep 0.1; done";
        let words = [
            "run", "--yes", "-d", "--name", name, "--", "sh", "-c", script,
        ];
        workspace.cli(&words).status(0);
    };
    workspace.write();
    start(&names[0]);
    let out = workspace.cli(&["exec", "--", "printenv", "AGENTCONTAINER_SESSION"]);
    let id = out.ok().to_owned();
    assert_eq!(workspace.cli(&["logs"]).ok(), "up");
    let table = workspace.cli(&["ps"]);
    let row = table.ok().lines().find(|line| line.contains(&names[0]));
    assert!(row.is_some_and(|row| row.contains(&id)), "{table:?}");

    start(&names[1]);
    for words in [&["exec", "--", "true"][..], &["logs"], &["stop"]] {
        let out = workspace.cli(words);
        out.status(125).says(&names[0]).says(&names[1]);
    }
    let ended = workspace.cli(&["stop", "--all", "--json"]);
    let ended: Vec<Value> = serde_json::from_str(ended.ok()).unwrap();
    let mut stopped: Vec<&str> = ended
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    stopped.sort_unstable();
    let mut expected: Vec<&str> = names.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(stopped, expected);
    for name in &names {
        workspace.cli(&["exec", name, "--", "true"]).status(125);
        workspace.cli(&["rm", name]).status(0);
    }
}

#[test]
fn what_follows_goes_on_until_the_session_ends() {
    let workspace = Workspace::new();
    let name = token("f");
    workspace.write();
    // The name is nobody's: refused by the answer's own record, once a moment.
    let script = "for n in 1 2 3 4 5 6; do echo line $n; curl -s -o /dev/null http://never.test/$n; sleep 0.3; done";
    let words = [
        "run", "--yes", "-d", "--name", &name, "--", "sh", "-c", script,
    ];
    workspace.cli(&words).status(0);
    let logs = workspace.spawn(&["logs", "-f", &name]);
    let events = workspace.spawn(&["audit", "events", "--follow", "--json", &name]);
    let logs = outcome::wait(logs, "logs -f", DEADLINE);
    let lines: Vec<String> = (1..=6).map(|n| format!("line {n}")).collect();
    assert_eq!(logs.ok().lines().collect::<Vec<_>>(), lines);
    let stopped = workspace.cli(&["stop", &name]);
    assert!([0, 125].contains(&stopped.status), "{stopped:?}");
    let events = outcome::wait(events, "audit events --follow", DEADLINE);
    let all: Vec<Value> = events
        .ok()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let refused = all
        .iter()
        .filter(|event| event["verdict"] == "deny" && event["host"] == json!("never.test"));
    assert!(refused.count() >= 6, "{all:#?}");
    assert_eq!(all.last().unwrap()["reason"], "session-closed");
    workspace.cli(&["rm", &name]);
}
