//! Statuses, output, input, terminals, signals; detached sessions and what lists, ends and removes them.

use std::process::Stdio;
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, docker};
use serde_json::{Value, json};

#[test]
fn run_ends_with_the_status_of_its_program() {
    let workspace = Workspace::new();
    for status in [0, 3, 42] {
        workspace
            .run(&["sh", "-c", &format!("exit {status}")])
            .status(status);
    }
    workspace.run(&["/no/such/program"]).status(127);
    workspace.run(&["/etc/passwd"]).status(126);
    workspace.run(&["sh", "-c", "kill -TERM $$"]).status(143);
}

#[test]
fn output_and_error_stay_apart_and_input_passes() {
    let workspace = Workspace::new();
    workspace.write();
    let mut command = workspace.command([
        "run",
        "--yes",
        "--",
        "sh",
        "-c",
        "tr a-z A-Z; echo to-stderr >&2",
    ]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through stdin\n").unwrap();
    let out = outcome::wait(child, "run", DEADLINE);
    assert_eq!(out.ok(), "THROUGH STDIN");
    out.says("to-stderr");
    assert!(!out.stdout.contains("to-stderr"));
}

#[test]
fn the_environment_holds_what_was_asked_for_and_nothing_of_the_host() {
    let workspace = Workspace::new().key("containerEnv", json!({ "FROM_CONFIG": "config" }));
    workspace.write();
    let mut command = workspace.command(["run", "--yes", "-e", "FROM_CLI=cli", "--", "env"]);
    command
        .env("HOST_SECRET", "leaked")
        .env("SSH_AUTH_SOCK", "/tmp/agent")
        .env("HTTP_PROXY", "http://proxy");
    let out = outcome::finish(command, DEADLINE);
    out.status(0)
        .prints("FROM_CONFIG=config")
        .prints("FROM_CLI=cli")
        .prints("AGENTCONTAINER_SESSION=");
    for leaked in ["HOST_SECRET", "SSH_AUTH_SOCK", "HTTP_PROXY", "http_proxy"] {
        assert!(!out.stdout.contains(leaked), "{leaked}: {}", out.stdout);
    }
    let ours = [
        "AGENTCONTAINER_SESSION",
        "AWS_CA_BUNDLE",
        "CARGO_HTTP_CAINFO",
        "CURL_CA_BUNDLE",
        "DENO_CERT",
        "FROM_CLI",
        "FROM_CONFIG",
        "GIT_CONFIG_COUNT",
        "GIT_CONFIG_KEY_0",
        "GIT_CONFIG_VALUE_0",
        "GIT_SSL_CAINFO",
        "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
        "HOME",
        "HOSTNAME",
        "JAVA_TOOL_OPTIONS",
        "NIX_SSL_CERT_FILE",
        "NODE_EXTRA_CA_CERTS",
        "PATH",
        "PIP_CERT",
        "REQUESTS_CA_BUNDLE",
        "SSL_CERT_FILE",
    ];
    let mut names: Vec<&str> = out
        .stdout
        .lines()
        .filter_map(|line| Some(line.split_once('=')?.0))
        .collect();
    names.sort_unstable();
    assert_eq!(names, ours);
}

#[test]
fn doctor_says_what_to_change_for_bpf_lsm_and_changes_nothing() {
    let workspace = Workspace::new();
    let lsm = crate::files::has_lsm(&workspace);
    let out = workspace.cli(&["doctor", "--fix", "--json"]);
    out.status(i32::from(!lsm));
    let fix: serde_json::Value = serde_json::from_str(&out.stdout).unwrap();
    let finding = fix["finding"].as_str().unwrap();
    assert_eq!(finding.contains("nothing to change"), lsm, "{finding}");
    // The reason is the enforcer's own.
    let status = workspace.cli(&["enforcer", "status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(status.ok()).unwrap();
    let all = status["capabilities"].as_array().unwrap();
    let detail = all.iter().find(|c| c["name"] == "lsm").unwrap()["detail"].as_str();
    let steps = fix["steps"].as_array().unwrap();
    assert!(
        lsm || !steps.is_empty() || finding.contains(detail.unwrap()),
        "{fix}"
    );
    workspace
        .cli(&["doctor", "--fix"])
        .status(i32::from(!lsm))
        .prints(finding.split('(').next().unwrap().trim());
}

#[test]
fn doctor_sees_one_attempt_refused_and_one_answered() {
    let out = Workspace::new().cli(&["doctor"]);
    out.status(0)
        .prints("refused 1 ")
        .prints("answered HTTP/1.1 200");
}

#[test]
fn a_variable_without_a_value_is_what_it_is_here() {
    let (workspace, name) = (Workspace::new(), token("e"));
    let session = workspace.session(&name);
    let mut command = workspace.command([
        "exec",
        "-e",
        "FROM_HERE",
        "-e",
        "NOT_SET",
        "-e",
        "PLAIN=x",
        &name,
        "--",
        "env",
    ]);
    command.env("FROM_HERE", "here").env("OTHER", "leaked");
    let out = outcome::finish(command, DEADLINE);
    out.status(0).prints("FROM_HERE=here").prints("PLAIN=x");
    assert!(!out.stdout.contains("leaked") && !out.stdout.contains("NOT_SET"));
    drop(session);
}

#[test]
fn the_workspace_is_mounted_and_the_control_file_is_read_only() {
    let workspace = Workspace::new();
    workspace.put("given", "from the host\n");
    let out = workspace.inside(
        "cat given; echo made >made && cat made; echo x >>agentcontainer.json && echo WROTE",
    );
    assert_eq!(out.stdout.trim(), "from the host\nmade");
    assert_eq!(
        std::fs::read_to_string(workspace.path().join("made")).unwrap(),
        "made\n"
    );
    assert!(
        !std::fs::read_to_string(workspace.path().join("agentcontainer.json"))
            .unwrap()
            .ends_with("x\n")
    );
}

#[test]
fn one_of_several_devcontainers_is_asked_for_by_its_name() {
    let workspace = Workspace::new();
    workspace.write_host_config();
    let image = &workspace.config()["image"];
    let named = json!({ "image": image, "containerEnv": { "WHICH": "py" } }).to_string();
    workspace.put(".devcontainer/py/devcontainer.json", named);
    for words in [&["config", "check"][..], &["run", "--yes", "--", "true"]] {
        workspace.cli(words).says("`--config NAME`");
    }
    workspace
        .cli(&["config", "check", "--config", "py"])
        .status(0);
    let words = ["run", "--yes", "--config", "py", "--"];
    let words = [&words[..], &["printenv", "WHICH"]].concat();
    workspace.cli(&words).status(0).prints("py");
    workspace
        .cli(&["config", "check", "--config", "go"])
        .status(2);
}

#[test]
fn a_terminal_is_a_terminal_inside_with_its_size() {
    let workspace = Workspace::new();
    workspace.write();
    let binary = workspace.command(["run"]).get_program().to_owned();
    let mut script = std::process::Command::new("script");
    workspace.environment(&mut script);
    let line = format!(
        "stty rows 41 cols 97; {} run --lock --yes -- sh -c 'test -t 0 && test -t 1 && echo $TERM $COLORTERM $(stty size)'",
        binary.display()
    );
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm-kitty")
        .env("COLORTERM", "truecolor");
    let shown = "xterm-256color truecolor 41 97";
    outcome::finish(script, DEADLINE).status(0).prints(shown);
}

#[test]
fn ctrl_c_reaches_the_program_and_leaves_nothing_behind() {
    let (workspace, name) = (Workspace::new(), token("c"));
    workspace.write();
    let child = workspace.spawn(&[
        "run",
        "--yes",
        "--name",
        &name,
        "--",
        "sh",
        "-c",
        "trap 'echo caught; exit 7' INT; touch up; while :; do sleep 0.1; done",
    ]);
    let began = Instant::now();
    while !workspace.path().join("up").exists() {
        assert!(began.elapsed() < DEADLINE, "the program does not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    signal(child.id(), "-INT", false);
    outcome::wait(child, "run", DEADLINE)
        .status(7)
        .prints("caught");
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(&name));
    assert!(!workspace.cli(&["ps", "--json"]).ok().contains(&name));
}

/// How far the start has come by then is not ours to say: each ends, whatever was under way.
#[test]
fn ctrl_c_during_a_start_ends_it_and_leaves_nothing_behind() {
    let workspace = Workspace::new().with_own_state();
    workspace.write();
    // Control: what is looked for is found while a session runs.
    let control = token("i");
    let session = workspace.session(&control);
    assert!(!crate::machines::held(&workspace, 1).is_empty());
    drop(session);
    for after in [50, 150, 300, 500, 800] {
        let name = token("i");
        let child = workspace.spawn(&["run", "--yes", "--name", &name, "--", "sleep", "90"]);
        std::thread::sleep(Duration::from_millis(after));
        signal(child.id(), "-INT", false);
        let out = outcome::wait(child, "run", DEADLINE);
        assert_eq!(out.status, 130, "after {after} ms: {}", out.stderr);
        let listed = docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]);
        assert!(!listed.contains(&name), "after {after} ms: {listed}");
        let shown = workspace.cli(&["ps", "--json"]);
        assert!(!shown.ok().contains(&name), "after {after} ms: {shown:?}");
        let held = crate::machines::held(&workspace, 1);
        assert_eq!(held, [""; 0], "after {after} ms");
    }
}

#[test]
fn a_detached_session_is_listed_logged_stopped_and_removed() {
    let (workspace, name) = (Workspace::new(), token("d"));
    workspace.write();
    let script = "echo second >&2; sleep 0.2; echo first; echo third; sleep 300";
    workspace
        .cli(&[
            "run", "--yes", "--detach", "--name", &name, "--", "sh", "-c", script,
        ])
        .status(0);
    let listed: Value = serde_json::from_str(workspace.cli(&["ps", "--json"]).ok()).unwrap();
    assert!(listed.to_string().contains(&name), "{listed}");
    workspace
        .cli(&["exec", &name, "--", "sh", "-c", "exit 9"])
        .status(9);
    let began = Instant::now();
    let logs = loop {
        let logs = workspace.cli(&["logs", &name]);
        if logs.stdout.contains("third") || began.elapsed() > Duration::from_secs(10) {
            break logs;
        }
    };
    assert_eq!(logs.ok(), "first\nthird");
    logs.says("second");
    // The engine writes the two streams down side by side: which line is its last is not ours to say. That there is one is: many
    // times over, for an answer must not depend on who is faster.
    for _ in 0..40 {
        let last = workspace.cli(&["logs", "-n", "1", &name]);
        let last = format!("{}{}", last.ok(), last.stderr);
        assert!(["second", "third"].contains(&last.trim()), "{last:?}");
    }
    for word in ["stop", "rm"] {
        let ended: Value =
            serde_json::from_str(workspace.cli(&[word, "--json", &name]).ok()).unwrap();
        assert_eq!(ended[0]["name"], json!(name), "{ended}");
        workspace.cli(&["exec", &name, "--", "true"]).status(125);
    }
    let again = workspace.cli(&["rm", "--json", &name]);
    let error: Value = serde_json::from_str(again.status(125).stderr.trim()).unwrap();
    assert_eq!(error["code"], "no-session");
    assert!(!workspace.cli(&["ps", "--json"]).ok().contains(&name));
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(&name));
}

#[test]
fn two_sessions_of_one_name_cannot_be() {
    let (workspace, name) = (Workspace::new(), token("t"));
    let session = workspace.session(&name);
    let out = workspace.cli(&["run", "--yes", "--name", &name, "--", "true"]);
    out.status(125).says(&name);
    session.exec(&["true"]).status(0);
}

#[test]
fn a_plan_says_what_would_be_asked_for_and_starts_nothing() {
    let (workspace, name) = (Workspace::new().allow(&["planned.test"]), token("p"));
    workspace.write();
    let out = workspace.cli(&["run", "--plan", "--name", &name, "--", "true"]);
    out.status(0).prints("planned.test");
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(&name));
}

#[test]
fn the_container_is_hardened() {
    let out = Workspace::new().inside("grep -E '^(CapEff|CapBnd|CapPrm|NoNewPrivs|Seccomp):' /proc/self/status; ls /sys/fs/cgroup | grep -c . ; touch /sys/fs/cgroup/x 2>/dev/null && echo WRITABLE");
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        out.prints(line);
    }
    assert!(!out.stdout.contains("WRITABLE"));
}
