//! A workspace that is another user's than the container's: its files are that user's inside, what is made there is the owner's on the host, and
//! what is protected stays so.

use std::fs;
use std::os::unix::fs::MetadataExt;

use agentcontainer_tests::outcome::on_host;
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, docker};
use serde_json::json;

/// A repository of 1234:1234 with rules about files, in a container of 1000:1000.
fn workspace() -> Workspace {
    let filesystem = json!({ "readOnlyPaths": ["fixed"], "deniedPaths": [".env"] });
    let workspace = Workspace::new()
        .key("containerUser", json!("1000:1000"))
        .key(
            "agent",
            json!({ "capabilities": { "filesystem": filesystem } }),
        );
    workspace.put("fixed/a", "fixed\n");
    workspace.put(".env", "SECRET=1\n");
    workspace.put("src/private", "private\n");
    workspace.write();
    workspace.cli(&["lock", "--yes"]).status(0);
    on_host(
        &workspace.path(),
        "git init -q -b main . && echo 1 >file && chmod 600 file src/private && echo .env >.gitignore && git add . && git -c user.name=t -c user.email=t@t commit -qm first",
    );
    workspace
}

fn owned_by(workspace: &Workspace, owner: &str) {
    on_host(&workspace.path(), &format!("chown -R {owner} ."));
}

fn owner(workspace: &Workspace, name: &str) -> (u32, u32) {
    let meta = fs::symlink_metadata(workspace.path().join(name)).unwrap();
    (meta.uid(), meta.gid())
}

fn reasons(workspace: &Workspace, session: &str) -> Vec<String> {
    let events = workspace.events(session);
    let reason = |event: &serde_json::Value| event["reason"].as_str().unwrap().to_owned();
    events.iter().map(reason).collect()
}

/// What an owner does; the name of what is new is to be given.
fn work(new: &str) -> String {
    format!(
        "set -e; stat -c %u:%g . file src/private .git | sort -u; echo more >>file; cat src/private; echo 1 >{new}; mkdir {new}.d
         git config user.email a@b.c; git config user.name a; git add {new} file; git commit -qm {new}; git log -1 --format=%s; git status --porcelain"
    )
}

/// What nobody inside does, as often as it may be tried; prints what came about.
const FORBIDDEN: &str = "
    for at in fixed/a fixed/new .env .git/hooks/pre-commit .git/commondir .git/config agentcontainer.json .mcp.json .vscode/x; do
        if echo evil >>$at; then echo OPEN $at; fi
    done 2>/dev/null
    mv .git gone 2>/dev/null && echo MOVED; mv fixed gone 2>/dev/null && echo MOVED; grep -s SECRET .env && echo READ; echo over";

#[test]
fn the_owners_files_are_the_users_inside_and_what_is_made_there_is_the_owners() {
    let (workspace, name) = (workspace(), token("o"));
    owned_by(&workspace, "1234:1234");
    let session = workspace.session(&name);
    let expected = |new: &str| format!("1000:1000\nprivate\n{new}");
    assert_eq!(session.inside(&work("one")).ok(), expected("one"));
    let script = work("two");
    let engine = session.by_engine(&["sh", "-c", &script]);
    assert!(
        engine.stdout.starts_with("1000:1000\nprivate\n"),
        "{engine:?}"
    );
    for new in [
        "one",
        "one.d",
        "two",
        "file",
        ".git/index",
        ".git/logs/HEAD",
    ] {
        assert_eq!(owner(&workspace, new), (1234, 1234), "{new}");
    }
    let objects = "find .git/objects .git/refs .git/logs ! -user 1234 | head -n 3";
    assert_eq!(on_host(&workspace.path(), objects), "");
    assert_eq!(session.inside(FORBIDDEN).stdout.trim(), "over");
    let engine = session.by_engine(&["sh", "-c", FORBIDDEN]);
    assert_eq!(engine.stdout.trim(), "over");
    // The host makes a file anew that a rule is about: it is held again, on the mount that is mapped.
    on_host(
        &workspace.path(),
        "echo SECRET=2 >new && chown 1234:1234 new && mv new .env",
    );
    let began = std::time::Instant::now();
    while session.inside("grep -s SECRET .env").status == 0 {
        assert!(began.elapsed() < agentcontainer_tests::outcome::DEADLINE);
    }
    assert_eq!(session.inside(FORBIDDEN).stdout.trim(), "over");
    let said = reasons(&workspace, &name);
    assert!(said.contains(&"workspace-mapped".to_owned()), "{said:?}");
    drop(session);
    assert_eq!(owner(&workspace, ".git/config"), (1234, 1234));
}

#[test]
fn after_an_enforcers_restart_the_workspace_is_the_users_still() {
    let (workspace, name) = (workspace().with_own_state(), token("o"));
    owned_by(&workspace, "1234:1234");
    let words = [
        "run", "--yes", "-d", "--name", &name, "--", "sleep", "infinity",
    ];
    workspace.cli(&words).status(0);
    let session = workspace.running(&name);
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    docker::run(&["kill", sidecar.split_whitespace().next().unwrap()]);
    workspace.cli(&["enforcer", "start"]).status(0);
    session.inside(&work("one")).ok();
    assert_eq!(owner(&workspace, "one"), (1234, 1234));
    assert_eq!(session.inside(FORBIDDEN).stdout.trim(), "over");
    workspace.cli(&["stop", &name]).status(0);
}

#[test]
fn a_linked_worktrees_repository_is_the_users_too() {
    let workspace = Workspace::new().key("containerUser", json!("1000:1000"));
    let above = workspace.path().parent().unwrap().to_owned();
    on_host(
        &above,
        "git init -q -b main main; cd main; echo 1 >file; git add .; git -c user.name=t -c user.email=t@t commit -qm first
         git worktree add -q -b topic ../ws",
    );
    workspace.write();
    workspace.cli(&["lock", "--yes"]).status(0);
    on_host(&above, "chown -R 1234:1234 ws main");
    let out = workspace.inside(&work("one").replace("src/private", "file"));
    out.prints("one");
    let strangers = "find . ! -user 1234 | head -n 3";
    assert_eq!(on_host(&above.join("main"), strangers), "");
    assert_eq!(owner(&workspace, "one"), (1234, 1234));
}

#[test]
fn root_and_whoever_says_no_are_not_mapped() {
    let tried = "stat -c %u:%g .; touch new 2>/dev/null && echo MADE; echo over";
    let said_no = workspace().key("updateRemoteUserUID", json!(false));
    owned_by(&said_no, "1234:1234");
    let out = said_no.inside(tried);
    assert_eq!(out.ok(), "1234:1234\nover");
    out.says("as `updateRemoteUserUID` says");
    let roots = workspace();
    owned_by(&roots, "0:0");
    let out = roots.inside(tried);
    assert_eq!(out.ok(), "0:0\nover");
    out.says("the workspace is root's");
    // Nor is root inside: it is root's own word.
    let root = workspace().key("containerUser", json!("root"));
    owned_by(&root, "1234:1234");
    assert!(root.inside(tried).ok().starts_with("1234:1234\n"));
    // The plan says it before there is anything.
    let plan = workspace();
    owned_by(&plan, "1234:1234");
    let out = plan.cli(&["run", "--plan"]);
    let both = format!("{}{}", out.stdout, out.stderr);
    assert!(
        both.contains("1234:1234's on this machine and 1000:1000's inside"),
        "{both}"
    );
}
