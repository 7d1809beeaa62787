//! Rules about files, held by mounts: for the program, for `exec` and for an engine's own exec, and nothing starts where they
//! cannot be held.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::Outcome;
use agentcontainer_tests::place::token;
use serde_json::{Value, json};

fn workspace(filesystem: &Value) -> Workspace {
    let agent = json!({ "capabilities": { "filesystem": filesystem } });
    let workspace = Workspace::new().key("agent", agent);
    for (name, text) in [
        ("src/main.rs", "fn main() {}\n"),
        ("conf/app/.env", "SECRET=1\n"),
        (".env", "SECRET=2\n"),
        ("build/cache/old", "x\n"),
    ] {
        workspace.put(name, text);
    }
    // All of it is the program's own: nothing but the rules is in its way.
    let owned = std::process::Command::new("chown")
        .args(["-R", "1000:1000"])
        .arg(workspace.path())
        .status();
    assert!(owned.unwrap().success());
    workspace
}

/// Everything that is tried, each from the same beginning; what got through is on a line that begins with OPEN.
const TRIED: &str = r#"
again() {
  rm -rf src src2 conf conf2 .env moved copied linked; mkdir -p src conf/app
  printf 'fn main() {}\n' >src/main.rs; echo SECRET=1 >conf/app/.env; echo SECRET=2 >.env
}
try() { again 2>/dev/null; if sh -c "$1" >/dev/null 2>&1; then echo "OPEN $1"; fi; }
try 'grep SECRET .env'
try 'grep SECRET conf/app/.env'
try 'grep SECRET /proc/self/cwd/.env'
try 'grep SECRET /proc/$$/cwd/.env'
try 'grep SECRET /proc/self/root$PWD/.env'
try 'cp .env copied'
try 'ln .env linked'
try 'mv .env moved'
try 'rm .env'
try 'echo x >.env'
try 'mv conf conf2'
try 'mv conf/app conf/app2'
try 'echo x >src/main.rs'
try 'echo x >>src/main.rs'
try 'echo x >/proc/self/cwd/src/main.rs'
try 'echo x >/proc/$$/cwd/src/main.rs'
try 'echo x >/proc/self/root$PWD/src/main.rs'
try 'rm src/main.rs'
try 'chmod 777 src/main.rs'
try 'touch src/new'
try 'mv src src2'
again 2>/dev/null
cat src/main.rs; echo new >build/cache/new && rm build/cache/old; touch other && echo worked
"#;

/// The host's word that what mounts carry is enough.
fn mounts_suffice(workspace: &Workspace) {
    let above = workspace.path();
    let config = above
        .parent()
        .unwrap()
        .join("config/agentcontainer/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("files = \"mounts\"\n{text}")).unwrap();
}

/// What is said of its hooks: those of access control lists came with Linux 6.2.
pub fn lsm_hooks() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    match release.starts_with("6.1.") {
        true => "BPF LSM (27 hooks)",
        false => "BPF LSM (29 hooks)",
    }
}

/// By the enforcer's word, which has tried to load such programs.
pub fn has_lsm(workspace: &Workspace) -> bool {
    let out = workspace.cli(&["enforcer", "status", "--json"]);
    let status: Value = serde_json::from_str(&out.stdout).unwrap();
    let capabilities = status["capabilities"].as_array().unwrap();
    let lsm = capabilities.iter().find(|c| c["name"] == "lsm").unwrap();
    let there = lsm["there"].as_bool().unwrap();
    // Said by whoever starts it on a kernel that is known to have it.
    assert!(
        there || std::env::var_os("AGENTCONTAINER_NEEDS_LSM").is_none(),
        "{lsm}"
    );
    there
}

fn held(out: &Outcome) {
    let text = format!("{}{}", out.stdout, out.stderr);
    assert!(out.stdout.contains("fn main() {}\nworked"), "{text}");
    assert!(!text.contains("OPEN") && !text.contains("SECRET"), "{text}");
}

#[test]
fn rules_about_files_hold_for_the_program_for_exec_and_for_the_engines_own_exec() {
    // The control: without rules every attempt works.
    let out = workspace(&json!({})).inside(TRIED);
    let open = out.stdout.lines().filter(|line| line.starts_with("OPEN "));
    let tries = TRIED.lines().filter(|line| line.starts_with("try "));
    assert_eq!(open.count(), tries.count(), "{}", out.stdout);

    let workspace = workspace(&json!({
        "readOnlyPaths": ["src", "build"],
        "writablePaths": ["build/cache"],
        "deniedPaths": ["${containerWorkspaceFolder}/.env", "conf/app/.env"]
    }));
    let name = token("fs");
    let out = workspace.inside(TRIED);
    held(out.status(0));
    out.says("read-only: build src")
        .says("writable: build/cache")
        .says("denied: .env conf/app/.env")
        .says("mounts");
    workspace.put("build/cache/old", "x\n");
    let session = workspace.session(&name);
    held(session.inside(TRIED).status(0));
    workspace.put("build/cache/old", "x\n");
    held(&session.by_engine(&["sh", "-c", TRIED]));
    let recorded = workspace.events(&session.id());
    assert!(recorded.iter().any(|event| event["reason"] == "files-held"));
    drop(session);
    for (name, text) in [("src/main.rs", "fn main() {}\n"), (".env", "SECRET=2\n")] {
        assert_eq!(
            std::fs::read_to_string(workspace.path().join(name)).unwrap(),
            text
        );
    }
}

#[test]
fn what_mounts_cannot_hold_stops_the_start_and_the_host_may_say_that_they_are_enough() {
    let workspace = workspace(&json!({ "deniedPaths": ["**/.env"] }));
    let out = workspace.inside("cat .env conf/app/.env; echo later >build/.env; cat build/.env");
    let lsm = has_lsm(&workspace);
    if lsm {
        out.says(lsm_hooks());
        assert_eq!(out.stdout, "", "{}", out.stderr);
    } else {
        out.status(125)
            .says("not-carried")
            .says("BPF LSM, which carries the rest, is not there")
            .says("files = \"mounts\"");
        assert!(!out.stdout.contains("later"));
    }
    workspace
        .cli(&["config", "check"])
        .status(0)
        .says("need BPF LSM");
    workspace
        .cli(&["policy", "show"])
        .status(0)
        .prints("deniedPaths \"**/.env\" (BPF LSM, and mounts for what is there)");

    mounts_suffice(&workspace);
    workspace.cli(&["config", "check"]).status(0);
    let out = workspace.cli(&[
        "run",
        "--yes",
        "--",
        "sh",
        "-c",
        "cat .env conf/app/.env; echo later >build/.env; cat build/.env",
    ]);
    if lsm {
        assert_eq!(out.stdout, "", "{}", out.stderr);
    } else {
        out.says("patterns hold for what is there now");
        assert_eq!(out.stdout, "later\n", "{}", out.stderr);
    }
}

#[test]
fn a_path_that_is_not_there_or_is_a_link_starts_nothing_and_says_where_it_stands() {
    // With a name that is too long for the kernel's table: mounts alone would hold it, with BPF LSM too.
    let path = format!("no/{}", "n".repeat(121));
    let missing = workspace(&json!({ "deniedPaths": [path] }));
    let out = missing.inside("echo started");
    out.status(125)
        .says(&format!(
            "`deniedPaths` has \"{path}\" (agentcontainer.json:"
        ))
        .says("which is not there");
    assert!(!out.stdout.contains("started"));
    let link = workspace(&json!({ "readOnlyPaths": ["linked"] }));
    std::os::unix::fs::symlink("src", link.path().join("linked")).unwrap();
    let out = link.inside("echo started");
    out.status(125).says("goes through a link to /workspaces/");
    assert!(!out.stdout.contains("started"));
    let wrong = workspace(&json!({ "readOnlyPaths": ["/proc/self"] }));
    wrong
        .inside("true")
        .status(125)
        .says("agentcontainer.json:")
        .says("the kernel's");
}

#[test]
fn ordinary_work_goes_on_under_rules_about_files_that_come_later() {
    let workspace =
        workspace(&json!({ "deniedPaths": ["**/.env"] })).key("containerUser", json!("root"));
    workspace.write();
    mounts_suffice(&workspace);
    // Files of the image that are changed, pipes by name, files without one, repositories, programs that are made and run.
    let script = r#"
        set -e
        echo x >>/etc/debian_version; chmod 600 /etc/issue; ln /etc/issue /etc/issue2; mv /etc/issue2 /etc/issue3; rm /etc/issue3
        echo piped | cat /dev/stdin >/dev/stderr; echo out | cat >/proc/self/fd/1
        python3 -c 'import os, tempfile; tempfile.TemporaryFile().write(b"x"); r, w = os.pipe(); os.open("/proc/self/fd/%d" % w, os.O_WRONLY)'
        cd "$(mktemp -d)"; git init -q repo; cd repo; git config user.email a@b.c; git config user.name a; echo 1 >a; git add a; git commit -qm one; git checkout -qb two; git mv a b; git commit -qm two; cd ..
        mkdir -p one/two; mv one three; cp /usr/bin/id three/id; three/id -u; rm -r three repo
        echo worked
    "#;
    let out = workspace.cli(&["run", "--yes", "--", "sh", "-c", script]);
    assert_eq!(out.stdout, "out\n0\nworked\n", "{}", out.stderr);
}

#[test]
fn a_root_that_is_read_only_leaves_what_is_named() {
    // A user whose home the image has, and root, whose every file it is.
    for user in ["agent", "root"] {
        let rules =
            json!({ "readOnlyPaths": ["/"], "writablePaths": ["build", "/tmp", "/home/agent"] });
        let workspace = workspace(&rules).key("containerUser", json!(user));
        // Root has no capability by which the owner of a directory would not matter.
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(workspace.path().join("build"), open).unwrap();
        let script = r#"
            for at in / /etc /usr/local /var/tmp /root . src; do if touch "$at/new" 2>/dev/null; then echo "OPEN $at"; fi; done
            touch build/x /tmp/x && rm build/x /tmp/x && echo >/dev/null && echo worked
            git -C /tmp init -q r && git -C /tmp/r status --short && python3 -c 'import tempfile; tempfile.TemporaryFile()' && echo works
        "#;
        let out = workspace.inside(script);
        assert_eq!(out.stdout, "worked\nworks\n", "{user}: {}", out.stderr);
        out.says("read-only: /").says("writable: ");
        let session = workspace.session(&token("root"));
        assert_eq!(session.inside(script).stdout, "worked\nworks\n");
        assert_eq!(
            session.by_engine(&["sh", "-c", script]).stdout,
            "worked\nworks\n"
        );
    }
}
