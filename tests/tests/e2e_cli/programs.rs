//! Programs that are denied: not started by any of their names, by the program, by `exec` and by an engine's own exec; and what no layer
//! carries of the other lists starts nothing.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::Outcome;
use agentcontainer_tests::place::token;
use agentcontainer_tests::workspace::Session;
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
    held(&session.by_engine(&["sh", "-c", &script]));
    let recorded = workspace.events(&session.id());
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
    page.prints("deniedBinaries \"curl\" (mounts, and BPF LSM where it is there)");
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
fn asking_a_person_about_a_program_starts_nothing_and_says_where_it_stands() {
    let workspace = workspace(&json!({ "deniedBinaries": ["curl"], "requireApproval": true }));
    let out = workspace.inside("echo started");
    out.status(125)
        .says("not-carried")
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
        .prints("requireApproval");
}

/// What is tried where `sh`, `wget`, `env`, `sleep` and `true` may be started and nothing else.
const UNLISTED: &str = r#"
try() { if "$@" >/dev/null 2>&1; then echo "OPEN $*"; fi; }
try id; try /usr/bin/id; try /proc/self/root/usr/bin/id; try python3 -V; try git --version; try cp /usr/bin/id /tmp/x
try env id; try sh -c id; try /lib64/ld-linux-x86-64.so.2 /usr/bin/id; try ls
wget --version >/dev/null && env sh -c 'echo worked'
"#;

#[test]
fn what_is_not_on_a_list_is_started_by_nobody_where_the_kernel_sees_each_start() {
    let workspace =
        workspace(&json!({ "allowedBinaries": ["sh", "wget", "env", "sleep", "true"] }));
    workspace.write();
    workspace.cli(&["config", "check"]).status(0);
    workspace
        .cli(&["policy", "show"])
        .status(0)
        .prints("allowedBinaries \"wget\" (BPF LSM or tracepoint)");
    let out = workspace.inside(UNLISTED);
    held(out.status(0));
    let layer = match crate::files::has_lsm(&workspace) {
        true => {
            out.says(crate::files::lsm_hooks());
            "lsm"
        }
        false => {
            out.says("a tracepoint at each start");
            "tracepoint"
        }
    };
    let session = workspace.session(&token("list"));
    held(session.inside(UNLISTED).status(0));
    held(&session.by_engine(&["sh", "-c", UNLISTED]));
    let by_engine = session.by_engine(&["id"]);
    assert!(
        by_engine.status != 0 && !by_engine.stdout.contains("uid="),
        "{by_engine:?}"
    );
    let events = workspace.events(&session.id());
    let denied = |event: &&Value| {
        event["kind"] == "exec"
            && event["reason"] == "not-listed"
            && event["binary"] == "/usr/bin/id"
            && event["layer"] == layer
    };
    assert!(events.iter().filter(denied).count() >= 3, "{events:?}");
    let empty = self::workspace(&json!({ "allowedBinaries": [] }));
    empty
        .inside("echo started")
        .status(125)
        .says("no program at all could be started");
}

/// The questions of a session that wait, once there is one.
fn asked(session: &Session<'_>) -> Value {
    for _ in 0..300 {
        let said = session
            .workspace
            .cli(&["approvals", "--json", &session.name]);
        if let Some(line) = said.ok().lines().next() {
            return serde_json::from_str::<Value>(line).unwrap()["open"].clone();
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("nobody is asked");
}

#[test]
fn a_program_that_nothing_lists_is_asked_about_and_started_as_far_as_a_person_has_said() {
    let workspace = workspace(&json!({
        "allowedBinaries": ["sh", "wget", "env", "sleep", "true"],
        "deniedBinaries": ["uname"], "requireApproval": true,
    }));
    let out = workspace.inside("id; uname; echo begun");
    if !crate::files::has_lsm(&workspace) {
        out.status(125)
            .says("not-carried")
            .says("`requireApproval` asks a person about each program");
        return;
    }
    out.status(0).prints("begun");
    assert!(!out.stdout.contains("uid="), "{}", out.stdout);
    let session = workspace.session(&token("appr"));
    let id = |session: &Session<'_>, starts: bool| {
        let out = session.inside("id");
        assert_eq!(out.stdout.contains("uid="), starts, "{}", out.stderr);
    };
    // Nobody is asked about what a rule denies.
    session.inside("uname; true").status(0);
    id(&session, false);
    let question = asked(&session);
    assert_eq!(question["kind"], "exec");
    assert_eq!(question["program"], "/usr/bin/id");
    assert_eq!(question["rule"]["name"], "requireApproval");
    let parents = question["parents"].as_array().unwrap();
    assert!(
        parents.iter().any(|parent| parent["pid"] == 1)
            || question["process"]["comm"] == json!("sh"),
        "{question}"
    );
    let number = question["id"].as_str().unwrap();
    let page = session.inside("wget -qO- http://agentcontainer.internal/");
    page.prints(&format!("{number} start /usr/bin/id"))
        .prints(&format!("a person is asked as {number}"));
    workspace
        .cli(&["approvals", &session.name])
        .prints("what  start /usr/bin/id");
    workspace
        .cli(&["approve", "--always", number])
        .status(0)
        .prints("\"/usr/bin/id\"")
        .prints("nothing was changed");
    id(&session, false);
    // Once is once, and it is asked about again then.
    workspace
        .cli(&["approve", number])
        .status(0)
        .prints("allowed once: start /usr/bin/id");
    id(&session, true);
    id(&session, false);
    let again = asked(&session);
    let again = again["id"].as_str().unwrap();
    assert_ne!(again, number);
    workspace
        .cli(&["approve", "--session", again])
        .status(0)
        .prints("every start of /usr/bin/id");
    id(&session, true);
    id(&session, true);
    // Of another program nothing was said; and no is no.
    let other = session.inside("env -i /usr/bin/id; ls / && echo OPEN");
    assert!(
        other.stdout.contains("uid=") && !other.stdout.contains("OPEN"),
        "{other:?}"
    );
    let question = asked(&session);
    assert_eq!(question["program"], "/usr/bin/ls");
    workspace
        .cli(&["deny", question["id"].as_str().unwrap()])
        .status(0)
        .prints("denied: start /usr/bin/ls");
    assert!(!session.inside("ls / && echo OPEN").stdout.contains("OPEN"));
}

#[test]
fn a_program_that_could_be_written_by_another_name_is_not_listed() {
    let workspace = workspace(&json!({ "allowedBinaries": ["sh", "/workspaces/tool/own"] }))
        .key("workspaceFolder", json!("/workspaces/tool"))
        .key(
            "workspaceMount",
            json!("source=${localWorkspaceFolder},target=/workspaces/tool,type=bind"),
        );
    let own = workspace.put("own", "#!/bin/sh\necho own\n");
    let runs = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&own, runs).unwrap();
    // The control: with one name it is.
    assert_eq!(workspace.inside("./own").stdout, "own\n");
    std::fs::hard_link(&own, workspace.path().join("other")).unwrap();
    workspace
        .inside("./own")
        .status(125)
        .says("a file with 2 names")
        .says("list a copy");
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
        .prints("deniedBinaries \"sudo\" (mounts, and BPF LSM where it is there)");
    workspace
        .cli(&["config", "show"])
        .status(0)
        .prints("\"deniedBinaries\"");
    workspace.cli(&["config", "check"]).status(0);
}
