//! Bad input, and engines, images and terminals that are not there: one clear error, the right status, nothing running.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Outcome, Workspace, docker};

/// Writes this as agentcontainer.json, runs, and expects a refusal with these words.
#[track_caller]
fn refused(config: impl AsRef<[u8]>, words: &[&str]) {
    let workspace = Workspace::new();
    workspace.put("agentcontainer.json", config);
    workspace.write_host_config();
    let out = workspace.cli(&["run", "--yes", "--", "true"]);
    out.status(125);
    words.iter().for_each(|words| {
        out.says(words);
    });
    assert!(
        out.stderr.len() < 16 * 1024,
        "{} bytes of error",
        out.stderr.len()
    );
    let workspace = workspace.path().display().to_string();
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Labels}}"]).contains(&workspace));
}

#[test]
fn an_unknown_key_under_agent_is_an_error_with_its_place_and_the_nearest_key() {
    let config =
        "{\n  \"image\": \"agentcontainer-test\",\n  \"agent\": { \"capabilites\": {} }\n}\n";
    refused(
        config,
        &["agentcontainer.json:3:", "capabilites", "capabilities"],
    );
}

#[test]
fn a_duplicate_key_is_an_error_with_its_place() {
    refused(
        "{ \"image\": \"agentcontainer-test\",\n\"image\": \"other\" }",
        &["agentcontainer.json:2:", "image"],
    );
}

#[test]
fn config_that_is_cut_off_is_an_error_with_its_place() {
    refused(
        "{ \"image\": \"agentcontainer-test\", ",
        &["agentcontainer.json:1:"],
    );
}

#[test]
fn config_that_is_not_utf_8_is_an_error() {
    refused(b"{ \"image\": \"\xff\xfe\" }", &["UTF-8"]);
}

#[test]
fn config_that_is_huge_or_nested_without_end_is_an_error() {
    refused("[".repeat(200_000), &["agentcontainer.json"]);
    refused(
        format!("{{ \"image\": \"{}\" }}", "a".repeat(32 << 20)),
        &["agentcontainer.json"],
    );
}

#[test]
fn config_that_is_empty_or_a_directory_is_an_error() {
    refused("", &["agentcontainer.json"]);
    let workspace = Workspace::new();
    std::fs::create_dir(workspace.path().join("agentcontainer.json")).unwrap();
    workspace
        .cli(&["run", "--yes", "--", "true"])
        .status(125)
        .says("agentcontainer.json");
}

#[test]
fn what_would_unmake_the_sandbox_cannot_be_spelt() {
    for extra in [
        r#""runArgs": ["--privileged"]"#,
        r#""privileged": true"#,
        r#""capAdd": ["SYS_ADMIN"]"#,
        r#""runArgs": ["--network=host"]"#,
        r#""runArgs": ["--pid", "host"]"#,
        r#""mounts": ["source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind"]"#,
        r#""mounts": [{ "type": "bind", "source": "/", "target": "/host" }]"#,
        r#""securityOpt": ["seccomp=unconfined"]"#,
        r#""initializeCommand": "touch /tmp/on-the-host""#,
    ] {
        refused(
            format!("{{ \"image\": \"agentcontainer-test\", {extra} }}"),
            &["agentcontainer.json:1:"],
        );
    }
}

#[test]
fn what_is_not_enforced_yet_is_refused_in_words() {
    for (key, word) in [
        (
            r#""secrets": { "NPM_TOKEN": "op://Engineering/npm/token" }"#,
            "secrets",
        ),
        (
            r#""capabilities": { "network": { "egress": { "rules": [{ "host": "a.test", "ports": [443], "credential": "github" }] } } }"#,
            "credential",
        ),
    ] {
        refused(
            format!("{{ \"image\": \"agentcontainer-test\", \"agent\": {{ {key} }} }}"),
            &[word],
        );
    }
}

#[test]
fn a_workspace_without_config_is_an_error_that_names_init() {
    Workspace::new()
        .cli(&["run", "--yes", "--", "true"])
        .status(125)
        .says("agentcontainer init");
}

#[test]
fn an_approval_needs_a_terminal_or_yes() {
    let workspace = Workspace::new().allow(&["asked-for.test"]);
    workspace.write();
    let out = workspace.cli(&["run", "--", "true"]);
    out.status(125).says("--yes");
    workspace.cli(&["run", "--yes", "--", "true"]).status(0);
    // Approved now, until it asks for more.
    workspace.cli(&["run", "--", "true"]).status(0);
    let workspace = workspace.allow(&["more.test"]);
    workspace.write();
    workspace
        .cli(&["run", "--", "true"])
        .status(125)
        .says("more.test");
}

/// `run` at a terminal, where somebody types that line.
fn at_a_terminal(workspace: &Workspace, name: &str, typed: &str) -> Outcome {
    let binary = workspace.command(["run"]).get_program().to_owned();
    let line = format!(
        "{} run --lock --name {name} -- sh -c 'echo it$((1))ran'",
        binary.display()
    );
    let mut script = Command::new("script");
    workspace.environment(&mut script);
    script
        .args(["-qec", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = script.spawn().unwrap();
    // Held open: the end of it would be typed too.
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(format!("{typed}\n").as_bytes()).unwrap();
    outcome::wait(child, "run at a terminal", DEADLINE)
}

#[test]
fn at_a_terminal_a_person_is_asked_and_anything_but_yes_is_no() {
    let workspace = Workspace::new().allow(&["asked-for.test"]);
    workspace.write();
    let made = |name: &str| {
        docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(name)
    };
    for typed in ["n", "", "yes, all of it"] {
        let name = token("r");
        let out = at_a_terminal(&workspace, &name, typed);
        out.status(125)
            .prints("asked-for.test")
            .prints("Allow this? [y/N]")
            .prints("not approved; nothing was started");
        assert!(!out.stdout.contains("it1ran"), "{}", out.stdout);
        assert!(!made(&name) && !workspace.cli(&["ps", "--json"]).ok().contains(&name));
    }
    // Nothing was pinned on its behalf either, nor approved.
    assert!(!workspace.path().join("agentcontainer-lock.json").exists());
    workspace
        .cli(&["run", "--lock", "--", "true"])
        .status(125)
        .says("nobody approved this");
    let out = at_a_terminal(&workspace, &token("r"), "y");
    out.status(0).prints("Allow this? [y/N]").prints("it1ran");
    // What was approved is not asked again; more is.
    workspace.cli(&["run", "--", "true"]).status(0);
    let workspace = workspace.allow(&["more.test"]);
    workspace.write();
    let out = at_a_terminal(&workspace, &token("r"), "n");
    out.status(125)
        .prints("asks for more than was approved")
        .prints("more.test");
}

#[test]
fn a_config_that_appears_ahead_of_the_approved_one_is_an_error() {
    let workspace = Workspace::new();
    workspace.run(&["true"]).status(0);
    let config = std::fs::read(workspace.path().join("agentcontainer.json")).unwrap();
    workspace.put(".devcontainer/agentcontainer.json", config);
    workspace.cli(&["run", "--", "true"]).status(125);
}

#[test]
fn an_engine_that_is_not_there_is_one_clear_error() {
    let workspace = Workspace::new();
    workspace.write();
    let mut command = workspace.command(["run", "--yes", "--", "true"]);
    command.env("DOCKER_HOST", "unix:///nowhere/docker.sock");
    outcome::finish(command, DEADLINE)
        .status(125)
        .says("/nowhere/docker.sock");
}

#[test]
fn an_image_that_does_not_exist_is_one_clear_error() {
    let workspace = Workspace::new();
    workspace.put(
        "agentcontainer.json",
        r#"{ "image": "127.0.0.1:9/no-such-image:latest" }"#,
    );
    workspace.write_host_config();
    workspace
        .cli(&["run", "--yes", "--", "true"])
        .status(125)
        .says("no-such-image");
}

#[test]
fn unknown_words_are_refused_and_help_is_help() {
    let workspace = Workspace::new();
    assert_ne!(workspace.cli(&["frobnicate"]).status, 0);
    for wrong in [
        &["run", "--frobnicate"][..],
        &["exec"],
        &["exec", "x", "--", ""],
        &["run", "-e", "AGENTCONTAINER_X=y", "--", "true"],
        &["exec", "-e", "1=2", "x", "--", "true"],
    ] {
        workspace.cli(wrong).status(125);
    }
    for right in [&["run", "--help"], &["exec", "--help"]] {
        workspace.cli(right).status(0);
    }
    workspace.cli(&["ps", "--frobnicate"]).status(2);
    workspace.cli(&["--help"]).status(0).prints("run");
    workspace.cli(&["--version"]).status(0);
    workspace
        .cli(&["exec", "no_such_session", "--", "true"])
        .status(125)
        .says("no_such_session");
}

#[test]
fn a_check_says_whether_it_holds_by_its_status() {
    let workspace = Workspace::new().allow(&["checked.test"]);
    workspace.write();
    workspace.cli(&["config", "check"]).status(0);
    workspace
        .cli(&["policy", "explain", "checked.test"])
        .status(0)
        .prints("agentcontainer.json:");
    let out = workspace.cli(&["policy", "explain", "unlisted.test"]);
    assert!(
        out.stdout.contains("not-listed") || out.stdout.contains("denied"),
        "{}",
        out.stdout
    );
    workspace.put("agentcontainer.json", "{ \"image\": 3 }");
    workspace
        .cli(&["config", "check"])
        .status(1)
        .says("agentcontainer.json:1:");
}
