//! Control files and `.git`: what is not there cannot be made, nothing that holds its place stays, and git works inside.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use agentcontainer_tests::docker::{self, Plain};
use agentcontainer_tests::outcome::{self, DEADLINE, on_host};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, rig};
use serde_json::json;

const FILES: &[&str] = &[
    "agentcontainer-lock.json",
    ".devcontainer.json",
    ".envrc",
    ".mcp.json",
    ".aider.conf.yml",
    "opencode.json",
    "opencode.jsonc",
    "crush.json",
    ".crush.json",
    ".exrc",
    ".nvim.lua",
    ".dir-locals.el",
    ".mise.toml",
    "mise.toml",
];
const DIRECTORIES: &[&str] = &[
    ".devcontainer",
    ".vscode",
    ".idea",
    ".fleet",
    ".zed",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".opencode",
    ".windsurf",
    ".continue",
    ".amazonq",
    ".junie",
    ".kiro",
    ".qwen",
    ".roo",
    ".trae",
    ".helix",
];

/// Tries to make each of them, in every way that a shell has, and says which came about.
fn make_all() -> String {
    let mut script = "echo x >other; mkdir folder; echo x >folder/x; ".to_owned();
    for name in FILES {
        script += &format!(
            "rm -rf {name}; mv {name} gone; cp other new; mv -fT new {name} || echo x >{name} || ln -sfT other {name} || mkdir {name}; rm -f new; test -d {name} -o -L {name} || grep -qs x {name} && echo MADE {name}; "
        );
    }
    for name in DIRECTORIES {
        script += &format!(
            "rm -rf {name}; mv {name} gone; cp -r folder new; mv -T new {name} || ln -sfT folder {name} || echo x >{name}/x; rm -rf new; test -e {name}/x -o -L {name} && echo MADE {name}; "
        );
    }
    script + "test -e other && echo WRITABLE"
}

fn names(path: &Path) -> BTreeSet<String> {
    fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// A repository with one commit, all of it the person's.
fn repository(workspace: &Workspace) {
    workspace.write();
    // Committed with the config, as it is meant to be.
    workspace.cli(&["lock", "--yes"]).status(0);
    on_host(
        &workspace.path(),
        "git init -q -b main . && echo 1 >file && git add . && git -c user.name=t -c user.email=t@t commit -qm first && git pack-refs --all && chown -R 1000:1000 .",
    );
}

#[test]
fn control_files_that_are_not_there_cannot_be_made_and_leave_nothing() {
    let plain = Workspace::new();
    let bind = format!("type=bind,source={},target=/w", plain.path().display());
    let control = Plain::start(
        &["--user", "1000:1000", "--mount", &bind, "--workdir", "/w"],
        &["sleep", "300"],
    );
    let made = docker::attempt(&["exec", &control.id, "sh", "-c", &make_all()]);
    for name in FILES.iter().chain(DIRECTORIES) {
        made.prints(&format!("MADE {name}"));
    }
    let workspace = Workspace::new();
    repository(&workspace);
    let before = names(&workspace.path());
    let out = workspace.inside(&make_all());
    out.prints("WRITABLE");
    assert!(!out.stdout.contains("MADE"), "{}", out.stdout);
    let mut after = names(&workspace.path());
    assert!(after.remove("other") && after.remove("folder"));
    assert_eq!(after, before);
}

#[test]
fn what_holds_a_place_is_seen_neither_by_git_nor_as_a_config() {
    let (workspace, name) = (Workspace::new(), token("g"));
    repository(&workspace);
    let session = workspace.session(&name);
    assert_eq!(session.inside("git status --porcelain").ok(), "");
    assert_eq!(
        session.inside("git add -A && git status --porcelain").ok(),
        ""
    );
    assert_eq!(
        session.inside("cat .mcp.json; ls .vscode").ok(),
        "{ \"mcpServers\": {} }"
    );
    assert_eq!(
        on_host(&workspace.path(), "git add -A && git status --porcelain"),
        ""
    );
    let held = workspace.path().join(".mcp.json");
    assert!(fs::read(&held).is_err() && held.symlink_metadata().is_ok());
    // The same where the program makes the repository.
    let empty = Workspace::new();
    let out = empty.inside("git init -q . && git add -A && git ls-files");
    assert_eq!(out.ok(), "agentcontainer-lock.json\nagentcontainer.json");
}

#[test]
fn what_a_killed_run_left_is_no_config_and_is_collected() {
    let (workspace, name) = (Workspace::new(), token("k"));
    workspace.write();
    fs::remove_file(workspace.path().join("agentcontainer.json")).unwrap();
    let config = json!({ "image": rig().image });
    workspace.put(".devcontainer/devcontainer.json", config.to_string());
    let before = names(&workspace.path());
    let child = workspace.spawn(&["run", "--yes", "--name", &name, "--", "sleep", "300"]);
    let began = Instant::now();
    while workspace.cli(&["exec", &name, "--", "true"]).status != 0 {
        assert!(began.elapsed() < DEADLINE, "the session does not come up");
        std::thread::sleep(Duration::from_millis(50));
    }
    outcome::signal(child.id(), "-KILL", true);
    outcome::wait(child, "run", DEADLINE);
    assert_ne!(names(&workspace.path()), before);
    let out = workspace.cli(&[
        "run",
        "--yes",
        "--",
        "sh",
        "-c",
        "ls agentcontainer.json && echo x >agentcontainer.json",
    ]);
    assert!(out.status != 0 && out.status != 125, "{}", out.stderr);
    assert_ne!(
        names(&workspace.path()),
        before,
        "the first session still runs"
    );
    workspace.cli(&["stop", &name]).status(0);
    assert_eq!(names(&workspace.path()), before);
}

#[test]
fn a_session_that_ends_leaves_another_its_masks() {
    let (workspace, first, second) = (Workspace::new(), token("m"), token("n"));
    repository(&workspace);
    let before = names(&workspace.path());
    let one = workspace.session(&first);
    let two = workspace.session(&second);
    workspace.cli(&["stop", &first]).status(0);
    drop(one);
    let out = two.inside(&make_all());
    assert!(!out.stdout.contains("MADE"), "{}", out.stdout);
    two.inside("rm -r other folder; git config user.name x")
        .status(0);
    workspace.cli(&["stop", &second]).status(0);
    drop(two);
    assert_eq!(names(&workspace.path()), before);
    assert!(!workspace.path().join(".git/commondir").exists());
}

#[test]
fn what_the_person_makes_meanwhile_stays() {
    let (workspace, name) = (Workspace::new(), token("p"));
    let session = workspace.session(&name);
    workspace.put(".vscode/settings.json", "{}");
    session.inside("cat .vscode/settings.json").prints("{}");
    session.inside("echo x >.vscode/tasks.json").status(2);
    workspace.cli(&["stop", &name]).status(0);
    drop(session);
    assert_eq!(
        names(&workspace.path()),
        BTreeSet::from(
            [".vscode", "agentcontainer-lock.json", "agentcontainer.json"].map(str::to_owned)
        )
    );
}

#[test]
fn ordinary_git_work_is_possible_inside_and_harmless_keys_come_back() {
    let workspace = Workspace::new();
    repository(&workspace);
    let out = workspace.inside(
        "set -e; git init -q --bare /tmp/up.git
         git config user.name me; git config user.email me@test; git config alias.st status
         git remote add origin https://git.test/a.git; git remote add up /tmp/up.git
         git checkout -q -b topic; echo 2 >>file; git commit -qam second
         git push -q -u up topic; git branch -q --set-upstream-to=up/topic main; git branch -q -D main
         git tag v1; git pack-refs --all; git gc -q; git fsck >/dev/null 2>&1
         git clone -q /tmp/up.git /tmp/clone; git -C /tmp/clone config user.name x
         echo 3 >>file; git stash -q; git stash pop -q; git config user.name; git st --porcelain",
    );
    assert_eq!(out.ok(), "me\n M file");
    out.says("kept from the session: remote.origin.url = https://git.test/a.git")
        .says("not kept from the session: alias.st = status");
    let path = workspace.path();
    assert_eq!(
        on_host(
            &path,
            "git log --format=%s; git branch --format='%(refname:short)'; git remote; git status --porcelain; git fsck --no-dangling 2>&1"
        ),
        "second\nfirst\ntopic\norigin\n M file"
    );
    let config = fs::read_to_string(path.join(".git/config")).unwrap();
    assert!(
        !config.contains("alias") && !config.contains("up.git"),
        "{config}"
    );
    assert!(!path.join(".git/commondir").exists());
}

#[test]
fn a_config_that_was_written_on_the_host_meanwhile_is_not_the_containers_to_write() {
    let (workspace, name) = (Workspace::new(), token("r"));
    repository(&workspace);
    let path = workspace.path();
    let session = workspace.session(&name);
    let plant = "printf '[core]\\n\\tfsmonitor = \"touch pwned; false\"\\n' >>.git/config";
    assert_ne!(session.inside(plant).status, 0);
    // git replaces the file, and the mount over it goes with the old one.
    on_host(
        &path,
        "git config branch.main.rebase true; chown 1000:1000 .git/config",
    );
    session.inside(plant).status(0);
    workspace
        .cli(&["stop", &name])
        .status(0)
        .says("core.fsmonitor");
    drop(session);
    on_host(&path, "git status");
    assert!(!path.join("pwned").exists());
    assert_eq!(on_host(&path, "git config branch.main.rebase"), "true");
}

/// A hook in a directory that no git looks into, and then in its place in a nested repository.
const HOOK: &str =
    "mkdir -p a && printf '#!/bin/sh\\ntouch ../pwned\\n' >a/pre-commit && chmod +x a/pre-commit";
const MOVE: &str = "git init -q sub && rm -rf sub/.git/hooks && mv a sub/.git/hooks";
const COMMIT: &str = "cd sub && git -c user.name=t -c user.email=t@t commit -q --allow-empty -m x";

/// A plain container of the same user that does all of it.
fn control(words: &[&str]) -> Workspace {
    let workspace = Workspace::new();
    repository(&workspace);
    let bind = format!("type=bind,source={},target=/w", workspace.path().display());
    let plain = Plain::start(
        &["--user", "1000:1000", "--mount", &bind, "--workdir", "/w"],
        &["sleep", "300"],
    );
    docker::attempt(&["exec", &plain.id, "sh", "-ec", &words.join(";")]);
    workspace
}

#[test]
fn hooks_of_overlapping_and_of_successive_sessions_do_not_stay() {
    let free = control(&[HOOK, MOVE]);
    on_host(&free.path(), COMMIT);
    assert!(free.path().join("pwned").exists());

    let (workspace, first, second) = (Workspace::new(), token("o"), token("p"));
    repository(&workspace);
    let one = workspace.session(&first);
    one.inside(&format!("{HOOK} && {MOVE}")).status(0);
    let two = workspace.session(&second);
    workspace.cli(&["stop", &first]).status(0);
    drop(one);
    assert!(workspace.path().join("sub/.git/hooks/pre-commit").exists());
    workspace.cli(&["stop", &second]).status(0);
    drop(two);
    on_host(&workspace.path(), COMMIT);
    assert!(!workspace.path().join("pwned").exists());

    let workspace = Workspace::new();
    repository(&workspace);
    workspace.inside(HOOK).status(0);
    std::thread::sleep(Duration::from_millis(1100));
    workspace.inside(MOVE).status(0).says("is a hook");
    on_host(&workspace.path(), COMMIT);
    assert!(!workspace.path().join("pwned").exists());
}

#[test]
fn a_rebase_that_a_session_left_goes_on_without_its_commands() {
    const REBASE: &str = "echo 2 >file; git -c user.name=t -c user.email=t@t commit -qam second; git -c sequence.editor='sed -i 1ibreak' -c user.name=t -c user.email=t@t rebase -qi HEAD~1; sed -i '1i exec touch pwned' .git/rebase-merge/git-rebase-todo";
    const GO_ON: &str = "git -c user.name=t -c user.email=t@t rebase --continue";
    let free = control(&[REBASE]);
    on_host(&free.path(), GO_ON);
    assert!(free.path().join("pwned").exists());

    let workspace = Workspace::new();
    repository(&workspace);
    workspace
        .inside(REBASE)
        .status(0)
        .says("would run: exec touch pwned");
    on_host(&workspace.path(), GO_ON);
    assert!(!workspace.path().join("pwned").exists());
    assert_eq!(
        on_host(
            &workspace.path(),
            "git status --porcelain; git log --format=%s"
        ),
        "second\nfirst"
    );
}

#[test]
fn control_files_below_the_root_are_named_when_a_session_changed_them() {
    let workspace = Workspace::new();
    workspace.write();
    workspace.put("kept/.vscode/tasks.json", "{}");
    let out = workspace.inside("mkdir -p pkg/.vscode && echo '{}' >pkg/.vscode/tasks.json");
    out.status(0)
        .says("pkg/.vscode/tasks.json is not as it was before the session");
    assert!(!out.stderr.contains("kept/"), "{}", out.stderr);
}

#[test]
fn requirements_on_the_host_are_met_or_refused_in_words() {
    let workspace =
        Workspace::new().key("hostRequirements", json!({ "cpus": 1, "memory": "64mb" }));
    workspace.run(&["true"]).status(0);
    for (key, value, word) in [
        ("cpus", json!(4096), "4096"),
        ("memory", json!("512tb"), "memory"),
    ] {
        let workspace = Workspace::new().key("hostRequirements", json!({ key: value }));
        workspace
            .run(&["true"])
            .status(125)
            .says(word)
            .says("agentcontainer.json:");
    }
}
