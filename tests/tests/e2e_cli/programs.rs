//! Programs that are denied: not started by any of their names, by the program, by `exec` and by an engine's own exec; and what no layer
//! carries of the other lists starts nothing.

use agentcontainer_tests::outcome::Outcome;
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, docker};
use serde_json::{Value, json};

fn workspace(tools: &Value) -> Workspace {
    let agent = json!({ "capabilities": { "tools": tools } });
    Workspace::new().key("agent", agent)
}

/// Everything that is tried; what got through is on a line that begins with OPEN.
const TRIED: &str = r#"
cd /tmp
try() { rm -rf copied linked; if sh -c "$1" >/dev/null 2>&1; then echo "OPEN $1"; fi; }
try 'curl --version'
try '/usr/bin/curl --version'
try '/bin/curl --version'
try 'env -i /usr/bin/curl --version'
try '/proc/self/root/usr/bin/curl --version'
try '/proc/$$/root/usr/bin/curl --version'
try 'cd /usr/bin && ./curl --version'
try 'cp /usr/bin/curl copied && ./copied --version'
try 'cat /usr/bin/curl >copied && chmod +x copied && ./copied --version'
try 'ln -s /usr/bin/curl linked && ./linked --version'
try 'python3 -c "import os; os.execv(\"/usr/bin/curl\", [\"x\", \"--version\"])"'
try 'python3 -c "import os; f = os.open(\"/usr/bin/curl\", os.O_PATH); os.execve(f, [\"x\", \"--version\"], {})"'
try '$(ls /lib64/ld-linux-*.so* /lib/ld-linux-*.so* | head -1) /usr/bin/curl --version'
try 'java -version'
try '$(readlink -f /usr/bin/java) -version'
try 'awk "BEGIN {}"'
"#;

/// What is not denied, among them another name of the file that `awk` is.
const OTHERS: &str = "mawk 'BEGIN {}' && wget --version >/dev/null && git --version >/dev/null && python3 -V >/dev/null && echo worked";

fn held(out: &Outcome) {
    assert_eq!(out.stdout, "worked\n", "{}", out.stderr);
}

#[test]
fn what_is_denied_is_started_by_no_name_for_the_program_for_exec_and_for_the_engines_own_exec() {
    let script = format!("{TRIED}\n{OTHERS}");
    // The control: without rules every attempt works.
    let out = workspace(&json!({})).inside(&script);
    let open = out.stdout.lines().filter(|line| line.starts_with("OPEN "));
    let tries = TRIED.lines().filter(|line| line.starts_with("try '"));
    assert_eq!(open.count(), tries.count(), "{}", out.stdout);

    let workspace = workspace(&json!({ "deniedBinaries": ["curl", "java", "awk", "no-such"] }));
    let name = token("prog");
    let out = workspace.inside(&script);
    held(out.status(0));
    out.says("denied: awk curl java no-such").says("mounts");
    let session = workspace.session(&name);
    held(session.inside(&script).status(0));
    let id = session
        .inside("echo $AGENTCONTAINER_SESSION")
        .ok()
        .to_owned();
    let label = format!("label=dev.agentcontainer.session={id}");
    let container = docker::run(&["ps", "-q", "--filter", &label]);
    held(&docker::attempt(&[
        "exec",
        container.trim(),
        "sh",
        "-c",
        &script,
    ]));
    let recorded = workspace.events(&id);
    let event = recorded
        .iter()
        .find(|event| event["reason"] == "programs-held")
        .unwrap();
    let detail = event["detail"].as_str().unwrap();
    for words in [
        "/usr/bin/curl",
        "nowhere: no-such",
        "not denied: /usr/bin/mawk",
    ] {
        assert!(detail.contains(words), "{words}: {detail}");
    }
    let page = session.inside("wget -qO- http://agentcontainer.internal/");
    page.prints("deniedBinaries \"curl\" (mounts)");
}

#[test]
fn a_path_that_the_image_has_is_looked_for_programs_in_too() {
    let tools = json!({ "deniedBinaries": ["mine"] });
    let workspace = workspace(&tools).key(
        "containerEnv",
        json!({ "PATH": "/opt/own:/usr/bin:/bin:${containerWorkspaceFolder}/tools" }),
    );
    workspace.put("tools/mine", "#!/bin/sh\necho OPEN\n");
    workspace.put("tools/other", "#!/bin/sh\necho other\n");
    let runs = std::process::Command::new("chmod")
        .args(["-R", "755"])
        .arg(workspace.path().join("tools"))
        .status();
    assert!(runs.unwrap().success());
    let out = workspace.inside("mine; tools/mine; sh tools/mine; other");
    assert_eq!(out.stdout, "other\n", "{}", out.stderr);
}

#[test]
fn a_list_of_what_may_be_started_and_asking_start_nothing_here_and_say_where_they_stand() {
    let workspace =
        workspace(&json!({ "allowedBinaries": ["git", "sh"], "requireApproval": true }));
    let out = workspace.inside("echo started");
    out.status(125)
        .says("not-carried")
        .says("`allowedBinaries` is about every program")
        .says("`requireApproval`")
        .says("agentcontainer.json:");
    assert!(!out.stdout.contains("started"));
    workspace
        .cli(&["config", "check"])
        .status(1)
        .says("not-carried");
    workspace
        .cli(&["policy", "show"])
        .status(0)
        .prints("allowedBinaries \"git\"")
        .prints("requireApproval");
    let empty = self::workspace(&json!({ "allowedBinaries": [] }));
    empty
        .inside("echo started")
        .status(125)
        .says("no program at all could be started");
}

#[test]
fn a_plan_and_a_show_name_what_is_denied() {
    let workspace = workspace(&json!({ "deniedBinaries": ["sudo", "/usr/bin/su"] }));
    workspace.write();
    workspace
        .cli(&["run", "--plan", "--", "true"])
        .prints("programs     denied: /usr/bin/su sudo");
    workspace
        .cli(&["policy", "show"])
        .status(0)
        .prints("deniedBinaries \"sudo\" (mounts)");
    workspace
        .cli(&["config", "show"])
        .status(0)
        .prints("\"deniedBinaries\"");
    workspace.cli(&["config", "check"]).status(0);
}
