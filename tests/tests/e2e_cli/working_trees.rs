//! git inside a workspace whose repository lies outside it: a linked worktree and a submodule. Nothing of that repository can be written
//! inside; what was committed comes back, and a repository that does not know the workspace is not shown.

use std::fs;

use agentcontainer_tests::Workspace;
use agentcontainer_tests::place::token;

use crate::control_files::on_host;

const AS: &str = "git -c user.name=t -c user.email=t@t";

/// The workspace as a worktree of `../main`, on its branch `topic`.
fn linked() -> Workspace {
    let workspace = Workspace::new();
    let above = workspace.path().parent().unwrap().to_owned();
    on_host(
        &above,
        &format!(
            "git init -q -b main main; cd main; echo 1 >file; git add .; {AS} commit -qm first; git branch other; git pack-refs --all
             git worktree add -q -b topic ../ws"
        ),
    );
    committed(&workspace, "../main");
    workspace
}

/// With its config, as it is meant to be; all of it the person's.
fn committed(workspace: &Workspace, repository: &str) {
    workspace.write();
    workspace.cli(&["lock", "--yes"]).status(0);
    on_host(
        &workspace.path(),
        &format!("git add .; {AS} commit -qm config; chown -R 1000:1000 . {repository}"),
    );
}

const WORK: &str = "set -e
    git config user.name me; git config user.email me@test; git config alias.st status; git remote add origin https://git.test/a.git
    git status --porcelain; echo 2 >>file; git commit -qam second; git branch made; git tag v1
    git switch -q -c next; echo 3 >new; git add new; git commit -qm third; git gc -q; echo 4 >more; git add more
    git branch -f main HEAD 2>/dev/null || true; git log --format=%s; git fsck --no-dangling 2>&1";

#[test]
fn git_works_in_a_linked_worktree_and_writes_nothing_of_its_repository() {
    let workspace = linked();
    let main = workspace.path().with_file_name("main");
    let ids = |names: &str| on_host(&main, &format!("git rev-parse {names}"));
    let before = ids("main other");
    let plant = "for at in \"$(git rev-parse --git-path hooks)\" /.agentcontainer-objects; do
            if touch \"$at/pre-commit\" 2>/dev/null; then echo WROTE \"$at\"; fi; done
        if echo x >.git 2>/dev/null || rm -f .git 2>/dev/null || mv .git x 2>/dev/null; then echo WROTE .git; fi";
    let out = workspace.inside(&format!("{plant}\n{WORK}"));
    assert_eq!(out.ok(), "third\nsecond\nconfig\nfirst");
    out.says("the repository lies outside")
        .says("kept from the session: refs/heads/next at ")
        .says("kept from the session: HEAD at ref: refs/heads/next")
        .says("not kept from the session: refs/heads/main, which is what another working tree has checked out")
        .says("kept from the session: remote.origin.url = https://git.test/a.git")
        .says("not kept from the session: alias.st = status");
    assert_eq!(
        on_host(
            &workspace.path(),
            "git branch --show-current; git log --format=%s; git status --porcelain; git remote; git fsck --no-dangling 2>&1"
        ),
        "next\nthird\nsecond\nconfig\nfirst\nA  more\norigin"
    );
    assert_eq!(ids("main other"), before);
    let names = "git branch --format='%(refname:short)'; git tag; git status --porcelain";
    assert_eq!(on_host(&main, names), "made\nmain\nnext\nother\ntopic\nv1");
    let hooks = fs::read_dir(main.join(".git/hooks")).unwrap();
    assert!(hooks.flatten().all(|hook| hook.file_name() != "pre-commit"));
    assert!(!main.join(".git/commondir").exists());
    // What came back is the person's, and the next session goes on with it.
    let out = workspace.inside(&format!(
        "git status --porcelain; {AS} commit -qm fourth; git log -1 --format=%s"
    ));
    assert_eq!(out.ok(), "A  more\nfourth");
}

#[test]
fn a_branch_that_moved_on_the_host_meanwhile_stays_there() {
    let (workspace, name) = (linked(), token("w"));
    let session = workspace.session(&name);
    on_host(
        &workspace.path(),
        &format!("echo h >host; git add host; {AS} commit -qm host; chown -R 1000:1000 . ../main"),
    );
    let id = session.inside(&format!(
        "echo s >mine; git add mine; {AS} commit -qm mine; git rev-parse HEAD"
    ));
    let id = id.ok().to_owned();
    workspace
        .cli(&["stop", &name])
        .status(0)
        .says(&format!(
            "refs/heads/topic, which was moved here meanwhile; the session's is {id}"
        ))
        .says("the index");
    drop(session);
    let path = workspace.path();
    assert_eq!(on_host(&path, "git log -1 --format=%s topic"), "host");
    // It is there to be had.
    assert_eq!(
        on_host(&path, &format!("git log -1 --format=%s {id}")),
        "mine"
    );
}

#[test]
fn hooks_that_the_configuration_names_in_the_worktree_are_not_the_sessions_to_write() {
    let workspace = linked();
    on_host(
        &workspace.path(),
        "git config core.hooksPath .husky; chown -R 1000:1000 ../main",
    );
    let plant = "mkdir -p .husky && printf '#!/bin/sh\\ntouch pwned\\n' >.husky/pre-commit && chmod +x .husky/pre-commit";
    workspace
        .inside(plant)
        .status(0)
        .says("which git here would obey");
    let commit = format!("{AS} commit -q --allow-empty -m x");
    on_host(&workspace.path(), &commit);
    assert!(!workspace.path().join("pwned").exists());
    // The control: in its place it runs.
    on_host(&workspace.path(), &format!("{plant}; {commit}"));
    assert!(workspace.path().join("pwned").exists());
}

#[test]
fn git_works_in_a_submodule() {
    let workspace = Workspace::new();
    let above = workspace.path().parent().unwrap().to_owned();
    on_host(
        &above,
        &format!(
            "rmdir ws; git init -q -b main one; cd one; echo 1 >file; git add .; {AS} commit -qm first; cd ..
             git init -q -b main .; git -c protocol.file.allow=always submodule --quiet add ./one ws"
        ),
    );
    committed(&workspace, "../.git");
    let out = workspace.inside(
        "set -e; git config user.name me; git config user.email me@test; git status --porcelain
         echo 2 >>file; git commit -qam second; git switch -q -c topic; git log --format=%s",
    );
    assert_eq!(out.ok(), "second\nconfig\nfirst");
    assert_eq!(
        on_host(
            &workspace.path(),
            "git log --format=%s; git branch --show-current; git status --porcelain; git config core.worktree"
        ),
        "second\nconfig\nfirst\ntopic\n../../../ws"
    );
}

#[test]
fn a_repository_that_does_not_know_the_workspace_is_not_there_inside() {
    let linked = linked();
    let workspace = Workspace::new();
    workspace.write();
    // As whoever wrote the workspace would have it.
    fs::copy(linked.path().join(".git"), workspace.path().join(".git")).unwrap();
    on_host(&workspace.path(), "chown -R 1000:1000 .");
    let out = workspace.inside("git log 2>&1 || true; ls -d /.agentcontainer-* 2>&1");
    out.says("does not name this workspace as its working tree")
        .says("git clone");
    assert!(!out.stdout.contains("first"), "{}", out.stdout);
    assert!(!out.stdout.contains("-objects"), "{}", out.stdout);
}
