//! Under a list of programs nothing is started or mapped from what can be written and has nothing listed in it: the workspace of another user's
//! with its repository, a tmpfs, a volume; by `exec` and the engine's own exec too.

use agentcontainer_tests::outcome::on_host;
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Outcome, Workspace};
use serde_json::{Value, json};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// A copy of a program in each place: started, by the loader, mapped. What got through is on a line that begins with OPEN.
const TRIED: &str = r#"
import mmap, os, shutil, subprocess
for place in (".", ".git", "/tmp", "/data"):
    copy = os.path.abspath(place) + "/copy"
    shutil.copy("/usr/bin/printf", copy)
    for name, argv in (("start", [copy, "ran"]), ("loader", ["/lib64/ld-linux-x86-64.so.2", copy, "ran"])):
        try: ran = subprocess.run(argv, capture_output=True, text=True)
        except PermissionError: continue
        if ran.stdout == "ran": print("OPEN", name, place)
        elif name == "start": print("ENDED", place, ran)
    try:
        mmap.mmap(os.open(copy, os.O_RDONLY), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        print("OPEN map", place)
    except PermissionError: pass
    os.unlink(copy)
print(subprocess.run(["/lib64/ld-linux-x86-64.so.2", "/usr/bin/printf", "worked"], capture_output=True, text=True).stdout)
"#;

fn workspace(tools: &Value) -> Workspace {
    let agent = json!({ "capabilities": { "tools": tools } });
    let workspace = Workspace::new()
        .key("containerUser", json!("1000:1000"))
        .key("agent", agent)
        .key(
            "mounts",
            json!(["type=tmpfs,target=/tmp", "type=tmpfs,target=/data"]),
        );
    workspace.put("tried.py", TRIED);
    workspace.put("own", "#!/bin/sh\necho own\n");
    workspace.write();
    workspace.cli(&["lock", "--yes"]).status(0);
    let owned = "git init -q . && chmod 755 own && chown -R 1234:1234 .";
    on_host(&workspace.path(), owned);
    workspace
}

fn held(out: &Outcome) {
    assert_eq!(out.stdout, "worked\n", "{}", out.stderr);
}

#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the loader is x86-64's")]
fn under_a_list_nothing_is_started_from_what_can_be_written_and_has_nothing_listed() {
    let try_it = "python3 tried.py";
    // The control: without a list each of them works; an engine's own /dev/shm is noexec anyway.
    let out = workspace(&json!({})).inside(try_it);
    let open = out.stdout.lines().filter(|line| line.starts_with("OPEN "));
    assert_eq!(open.count(), 12, "{}\n{}", out.stdout, out.stderr);

    let listed = ["sh", "python3", "sleep", "true", LOADER];
    let workspace = self::workspace(&json!({ "allowedBinaries": listed }));
    workspace
        .cli(&["run", "--plan", "--", "true"])
        .prints("none from mounts that can be written and have nothing listed (noexec)");
    let out = workspace.inside(try_it);
    held(out.status(0));
    out.says("(noexec)");
    let session = workspace.session(&token("noex"));
    held(session.inside(try_it).status(0));
    held(&session.by_engine(&["sh", "-c", try_it]));
    let id = session.id();
    let events = workspace.events(&id);
    let mounts = |event: &&Value| event["reason"] == "programs-held" && event["layer"] == "mounts";
    let event = events.iter().find(mounts).unwrap();
    let detail = event["detail"].as_str().unwrap();
    assert!(!detail.contains("something listed"), "{detail}");
}

#[test]
fn what_is_listed_in_the_workspace_runs_there() {
    let workspace = workspace(&json!({ "allowedBinaries": ["sh", "cp", "/workspaces/tool/own"] }))
        .key("workspaceFolder", json!("/workspaces/tool"))
        .key(
            "workspaceMount",
            json!("source=${localWorkspaceFolder},target=/workspaces/tool,type=bind"),
        );
    let out = workspace.inside("./own; cp own /tmp/own && /tmp/own");
    assert_eq!(out.stdout, "own\n", "{}", out.stderr);
    out.says("Permission denied");
}

#[test]
fn what_a_second_mount_shows_of_the_workspace_stops_the_start_until_a_rule_holds_the_first() {
    let bound = |files: &Value| {
        let capabilities =
            json!({ "tools": { "allowedBinaries": ["sh", "echo"] }, "filesystem": files });
        let mount = "type=bind,source=${localWorkspaceFolder}/tools,target=/opt/tools,readonly";
        let workspace = Workspace::new()
            .key("mounts", json!([mount]))
            .key("agent", json!({ "capabilities": capabilities }));
        workspace.put("tools/own", "");
        workspace.write();
        workspace.cli(&["run", "--yes", "--", "sh", "-c", "echo started"])
    };
    let refused = bound(&json!({}));
    refused
        .status(125)
        .says("/opt/tools could be changed by its other place")
        .says("`readOnlyPaths`");
    assert!(!refused.stdout.contains("started"), "{refused:?}");
    bound(&json!({ "readOnlyPaths": ["tools"] }))
        .status(0)
        .prints("started");
}
