//! A secret is a file that the container's user reads, and its value is nowhere else: neither in what programs inside are given, nor in
//! what the engine knows, nor in anything that is kept or shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{DEADLINE, finish};
use agentcontainer_tests::place::token;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Outcome, Workspace, docker};
use serde_json::{Value, json};

use crate::credentials::{files_with, nothing_shows, places_inside};

const FILE: &str = "/run/secrets/NPM_TOKEN";

/// Of the shape of a key, and found nowhere else.
fn value() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!("npm_{:Z<36}", format!("{random}AbCdEfGhIjKlMnOpQrStUvWx"))
}

/// One that asks for a secret in those words.
fn asking(secret: &Value) -> Workspace {
    let agent = json!({
        "capabilities": { "network": { "egress": {} } },
        "secrets": { "NPM_TOKEN": secret },
    });
    Workspace::new().key("agent", agent)
}

/// And is granted it from a file that holds `value`.
fn granted(secret: &Value, value: &str) -> Workspace {
    let workspace = asking(secret);
    let path = workspace.put_outside("token", format!("{value}\n"));
    workspace.host_table(&format!(
        "[secrets.NPM_TOKEN]\nsource = \"file://{}\"",
        path.display()
    ))
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn read(session: &Session<'_>) -> Outcome {
    session.exec(&["cat", FILE])
}

fn container(session: &Session<'_>) -> String {
    let label = format!("label=dev.agentcontainer.session={}", session.id());
    docker::run(&["ps", "--quiet", "--filter", &label])
}

fn reasons(workspace: &Workspace, name: &str) -> Vec<String> {
    let events = workspace.events(name).into_iter();
    let secrets = events.filter(|event| event["kind"] == "secret");
    secrets
        .map(|event| {
            assert_eq!(event["file"], FILE, "{event}");
            event["reason"].as_str().unwrap().to_owned()
        })
        .collect()
}

#[test]
fn a_file_of_the_containers_user_is_all_that_there_is_of_a_secret_inside() {
    for user in ["agent", "root"] {
        let (value, name) = (value(), token("s"));
        let workspace = granted(&json!({}), &value)
            .key("containerUser", json!(user))
            .key(
                "postCreateCommand",
                json!(format!("cut -c 1-4 {FILE} >/tmp/at-creation")),
            );
        let session = workspace.session(&name);
        read(&session).status(0).prints(&value);
        // Lifecycle commands had it as well.
        assert_eq!(session.exec(&["cat", "/tmp/at-creation"]).ok(), "npm_");
        let tried = session.inside(&format!(
            r#"stat -c '%a %U' /run/secrets {FILE}
            try() {{ if "$@" 2>/dev/null; then echo "OPEN: $*"; fi; }}
            try sh -c 'echo x >{FILE}'; try sh -c 'echo x >/run/secrets/new'; try rm -f {FILE}; try mv {FILE} /run/secrets/other
            try chmod 644 {FILE}; try chown 65534 {FILE}; try umount /run/secrets; try mount -o remount,rw /run/secrets"#
        ));
        assert_eq!(tried.ok(), format!("500 {user}\n400 {user}"), "{user}");

        // The directory above is kept in its place by a mount: EBUSY, where overlayfs would say EXDEV.
        let renamed = session.exec(&[
            "python3",
            "-c",
            "import os\ntry: os.rename('/run', '/r')\nexcept OSError as e: print(e.errno)",
        ]);
        assert_eq!(renamed.ok(), if user == "root" { "16" } else { "13" });

        assert_eq!(places_inside(&session, &value), [FILE], "{user}");
        // The same search finds what is somewhere else.
        session.inside(&format!(
            "cp {FILE} /tmp/copied; (read -r V <{FILE}; export V; exec sleep 60) >/dev/null 2>&1 &"
        ));
        let there = places_inside(&session, &value);
        assert!(
            there.iter().any(|place| place == "/tmp/copied"),
            "{there:?}"
        );
        assert!(
            there.iter().any(|place| place.ends_with("/environ")),
            "{there:?}"
        );
        assert_eq!(reasons(&workspace, &name), ["secret-put"]);
    }
}

#[test]
fn another_user_of_the_container_does_not_read_it() {
    let (value, name) = (value(), token("s"));
    let workspace = granted(&json!({}), &value);
    let session = workspace.session(&name);
    let container = container(&session);
    let tried = docker::attempt(&["exec", "--user", "65534:65534", &container, "cat", FILE]);
    assert_ne!(tried.status, 0);
    tried.says("ermission denied");
    assert!(!tried.stdout.contains(&value));
    drop(session);
}

#[test]
fn the_value_is_in_nothing_that_is_kept_or_shown_and_goes_with_the_session() {
    let (value, name) = (value(), token("s"));
    let workspace = granted(&json!({ "ttl": "1h" }), &value);
    let session = workspace.session(&name);
    read(&session).prints(&value);
    let container = container(&session);
    let changed = docker::run(&["diff", &container]);
    let plan = workspace.cli(&["run", "--plan"]);
    plan.status(0)
        .prints("/run/secrets/NPM_TOKEN, which the agent can read, for 3600 s");
    assert!(!changed.contains("NPM_TOKEN"), "{changed}");
    // The layer, and what is beneath it.
    let exported = |words: &str| {
        let script = "docker export \"$0\" | grep -aqF -e \"$1\"";
        let mut command = Command::new("sh");
        command.env("DOCKER_HOST", workspace.engine());
        command.args(["-c", script, &container, words]);
        finish(command, DEADLINE).status == 0
    };
    let planted = token("planted");
    session
        .inside(&format!("echo {planted} >/tmp/planted"))
        .status(0);
    assert!(exported(&planted), "what is there was not found");
    assert!(!exported(&value), "a layer has it");
    nothing_shows(&workspace, &name, &value);
    for place in [workspace.state(), &workspace.path()] {
        let none: [std::path::PathBuf; 0] = [];
        assert_eq!(files_with(place, &value), none);
    }
    // The same search finds what is there.
    let planted = workspace.put("planted", &value);
    assert_eq!(
        files_with(&workspace.path(), &value),
        std::slice::from_ref(&planted)
    );
    fs::remove_file(planted).unwrap();
    // The enforcer holds the files by a mount that is mounted nowhere, as long as there is a container.
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let sidecar = sidecar.split_whitespace().next().unwrap();
    let pid = docker::run(&["inspect", "--format", "{{.State.Pid}}", sidecar]);
    let held = || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
        let files = open.filter_map(|open| fs::read(open.path().join("NPM_TOKEN")).ok());
        files.filter(|read| read == value.as_bytes()).count()
    };
    assert_eq!(held(), 1);
    drop(session);
    assert_eq!(held(), 0);

    let said = workspace.inside("cut -c 1-4 /run/secrets/NPM_TOKEN; stat -fc %T /run/secrets");
    said.status(0)
        .prints("npm_\ntmpfs")
        .says("/run/secrets/NPM_TOKEN, which the agent can read, for 3600 s");
    assert!(!format!("{said:?}").contains(&value));
}

#[test]
fn a_secret_is_replaced_in_place_taken_away_and_gone_when_its_time_is_over() {
    let (first, name) = (value(), token("s"));
    let workspace = granted(&json!({}), &first);
    let session = workspace.session(&name);
    read(&session).prints(&first);
    let second = value();
    workspace.put_outside("token", &second);
    workspace
        .cli(&["credential", "rotate", "NPM_TOKEN", "--session", &name])
        .status(0)
        .prints("rotated: NPM_TOKEN in");
    let now = read(&session);
    now.prints(&second);
    assert!(!now.stdout.contains(&first));
    workspace
        .cli(&["credential", "revoke", "NPM_TOKEN", "--session", &name])
        .status(0)
        .prints("revoked: NPM_TOKEN from");
    session
        .inside(&format!("ls /run/secrets; test -e {FILE} || echo gone"))
        .prints("gone");
    workspace
        .cli(&["credential", "rotate", "NPM_TOKEN", "--session", &name])
        .says("does not come back in that session");
    assert_eq!(
        reasons(&workspace, &name),
        ["secret-put", "secret-renewed", "secret-revoked"]
    );
    drop(session);

    let name = token("s");
    let workspace = granted(&json!({ "ttl": "6s" }), &first);
    let session = workspace.session(&name);
    until("the file is still there", || {
        session.inside(&format!("test -e {FILE}")).status != 0
    });
    let events = reasons(&workspace, &name);
    assert_eq!(events, ["secret-put", "secret-expired"]);
}

#[test]
fn after_an_enforcers_restart_files_are_held_again_and_have_the_time_that_they_had() {
    let (first, name) = (value(), token("s"));
    let workspace = granted(&json!({ "ttl": "15s" }), &first).with_own_state();
    workspace.write();
    let words = [
        "run", "--yes", "-d", "--name", &name, "--", "sleep", "infinity",
    ];
    workspace.cli(&words).status(0);
    let session = workspace.running(&name);
    read(&session).prints(&first);
    let restart = || {
        let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
        docker::run(&["kill", sidecar.split_whitespace().next().unwrap()]);
        workspace.cli(&["enforcer", "start"]).status(0);
    };
    restart();
    let second = value();
    workspace.put_outside("token", &second);
    // What the enforcer does not know any more is handed anew, into the files that are there.
    until("it is not handed anew", || {
        let rotated = workspace.cli(&["credential", "rotate", "NPM_TOKEN"]);
        rotated.status == 0 && read(&session).stdout.contains(&second)
    });
    restart();
    until("the file is still there", || {
        session.inside(&format!("test -e {FILE}")).status != 0
    });
    let events = reasons(&workspace, &name);
    assert_eq!(events.last().unwrap(), "secret-expired", "{events:?}");
    assert_eq!(events[0], "secret-put");
    workspace.cli(&["stop", &name]).status(0);
}

/// The files below that directory whose path ends so.
fn found(below: &Path, end: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(self::found(&path, end));
        } else if path.ends_with(end) {
            found.push(path);
        }
    }
    found
}

#[test]
fn what_was_taken_away_while_no_enforcer_ran_goes_and_what_cannot_be_held_again_ends_its_session() {
    let (value, names) = (value(), [token("s"), token("s"), token("s")]);
    let workspace = granted(&json!({}), &value).with_own_state();
    workspace.write();
    for name in &names {
        let words = [
            "run", "--yes", "-d", "--name", name, "--", "sleep", "infinity",
        ];
        workspace.cli(&words).status(0);
    }
    let [revoked, unmounted, as_it_was] = &names.each_ref().map(|name| workspace.running(name));
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let sidecar = sidecar.split_whitespace().next().unwrap();
    let kept_at = "{{range .Mounts}}{{if eq .Destination \"/var/lib/agentcontainer\"}}{{.Source}}{{end}}{{end}}";
    let state = PathBuf::from(docker::run(&["inspect", "--format", kept_at, sidecar]).trim());
    docker::run(&["kill", sidecar]);

    let records = found(&state, &Path::new(&revoked.id()).join("session.json"));
    let [record] = records.as_slice() else {
        panic!("{records:?}");
    };
    let mut kept: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    assert_eq!(kept["secrets"]["NPM_TOKEN"]["revoked"], false, "{kept}");
    kept["secrets"]["NPM_TOKEN"]["revoked"] = json!(true);
    fs::write(record, kept.to_string()).unwrap();
    let pid = docker::run(&[
        "inspect",
        "--format",
        "{{.State.Pid}}",
        &container(unmounted),
    ]);
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--mount", "umount", "/run/secrets"]);
    finish(command, DEADLINE).status(0);
    read(revoked).prints(&value);

    workspace.cli(&["enforcer", "start"]).status(0);
    until("it is still there", || {
        revoked.inside(&format!("test -e {FILE}")).status != 0
    });
    assert_eq!(
        reasons(&workspace, &names[0]),
        ["secret-put", "secret-revoked"]
    );
    until("the session goes on", || {
        let events = workspace.events(&names[1]).into_iter();
        let mut secrets = events.filter(|event| event["kind"] == "secret");
        secrets.any(|event| event["reason"] == "secrets-lost")
            && workspace.cli(&["exec", &names[1], "--", "true"]).status != 0
    });
    read(as_it_was).prints(&value);
    for name in [&names[0], &names[2]] {
        workspace.cli(&["stop", name]).status(0);
    }
}

#[test]
fn what_nobody_granted_and_what_nothing_carries_stop_the_start_in_words() {
    let started = ["run", "--yes", "--", "sh", "-c", "echo started"];
    let workspace = asking(&json!("op://Engineering/npm/token"));
    workspace.write();
    let refused = workspace.cli(&started);
    refused
        .status(125)
        .says("this host grants no secret NPM_TOKEN, which this workspace would have from op://Engineering/npm/token");
    assert!(!refused.stdout.contains("started"));
    let named = refused.names_command();
    assert_eq!(named, "grant NPM_TOKEN --secret --source URI");
    let named = named.replace("URI", "env://NPM_VALUE");
    let words: Vec<&str> = named.split(' ').collect();
    workspace
        .cli(&words)
        .status(0)
        .prints("NPM_TOKEN, env://NPM_VALUE as the file /run/secrets/NPM_TOKEN");
    let value = value();
    let mut command = workspace.command([
        "run",
        "--yes",
        "--",
        "sh",
        "-c",
        "cut -c 1-4 /run/secrets/*",
    ]);
    command.env("NPM_VALUE", &value);
    let started_now = finish(command, DEADLINE);
    started_now.status(0).prints("npm_");
    assert!(!format!("{started_now:?}").contains(&value));
    workspace.cli(&["grant", "--revoke", "NPM_TOKEN"]).status(0);
    workspace.cli(&started).status(125);

    // Programs of one user are not told apart yet, unless the host lets that be.
    let for_one = json!({ "programs": ["/usr/bin/npm"] });
    let refused = granted(&for_one, &value).inside("echo started");
    refused
        .status(125)
        .says("agent.secrets.NPM_TOKEN.programs")
        .says("files = \"mounts\"");
    assert!(!refused.stdout.contains("started"));

    // On its way inside by another way.
    let through_env = granted(&json!({}), &value);
    through_env.write();
    let mut command = through_env.command([
        "run",
        "--yes",
        "-e",
        "COPY",
        "--",
        "sh",
        "-c",
        "echo started",
    ]);
    command.env("COPY", format!("x {value}"));
    let refused = finish(command, DEADLINE);
    refused.status(125).says("the value of secret NPM_TOKEN");
    assert!(!format!("{refused:?}").contains(&value));
}
