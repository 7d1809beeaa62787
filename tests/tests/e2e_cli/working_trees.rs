//! git inside a workspace whose repository lies outside it: a linked worktree and a submodule. What git on the host would obey cannot be
//! planted there, and a repository that does not know the workspace is not shown.

use std::fs;
use std::path::PathBuf;

use agentcontainer_tests::outcome::on_host;
use agentcontainer_tests::peer::{Authority, Web};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, rig};
use serde_json::json;

const AS: &str = "git -c user.name=t -c user.email=t@t";

/// A workspace that is a worktree of `main` beside it, on its branch `topic`.
fn linked() -> Workspace {
    linked_in(Workspace::new())
}

fn linked_in(workspace: Workspace) -> Workspace {
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

fn main_of(workspace: &Workspace) -> PathBuf {
    workspace.path().with_file_name("main")
}

const WORK: &str = "set -e
    git config user.name me; git config user.email me@test; git config alias.st status; git remote add origin https://git.test/a.git
    git status --porcelain; echo 2 >>file; git commit -qam second; git branch made; git tag v1
    git switch -q -c next; echo 3 >new; git add new; git commit -qm third; git gc -q; git branch -q -d made; echo 4 >more; git add more
    git log --format=%s; git fsck --no-dangling >/dev/null 2>&1; git branch --show-current; git rev-parse --show-toplevel";

#[test]
fn git_works_in_a_linked_worktree_and_the_host_sees_what_it_did() {
    let workspace = linked();
    let main = main_of(&workspace);
    let before = on_host(&main, "git rev-parse main other; git status --porcelain");
    let out = workspace.inside(WORK);
    assert_eq!(
        out.ok(),
        format!(
            "third\nsecond\nconfig\nfirst\nnext\n/workspaces/{}",
            workspace.path().file_name().unwrap().display()
        )
    );
    out.says("the repository lies outside the workspace")
        .says("kept from the session: remote.origin.url = https://git.test/a.git")
        .says("not kept from the session: alias.st = status");
    assert_eq!(
        on_host(
            &workspace.path(),
            "git branch --show-current; git log --format=%s; git status --porcelain; git remote; git fsck --no-dangling 2>&1"
        ),
        "next\nthird\nsecond\nconfig\nfirst\nA  more\norigin"
    );
    let after = on_host(&main, "git rev-parse main other; git status --porcelain");
    assert_eq!(after, before);
    assert!(!main.join(".git/commondir").exists());
    // The next session goes on with it, and git does not take the branch of another working tree.
    let out = workspace.inside(&format!(
        "git status --porcelain; {AS} commit -qm fourth; git log -1 --format=%s; git switch main 2>&1 || git branch --show-current"
    ));
    assert!(
        out.ok()
            .starts_with("A  more\nfourth\nfatal: 'main' is already ")
            && out.stdout.trim().ends_with("\nnext"),
        "{}",
        out.stdout
    );
}

/// Tries to plant what git on the host would obey, and says what came about. `common` and `own` are shell words.
fn plant(common: &str, own: &str) -> String {
    let mut script = "set +e; try() { \"$@\" 2>/dev/null && echo DONE \"$*\"; }\n".to_owned();
    let mut tried = vec![".git".to_owned()];
    tried.extend(["gitdir", "commondir"].map(|name| format!("{own}/{name}")));
    for name in [
        "hooks/pre-commit",
        "config",
        "commondir",
        "worktrees/evil",
        "modules/evil",
    ] {
        tried.push(format!("{common}/{name}"));
    }
    for path in &tried {
        script += &format!(
            "try sh -c 'echo evil >{path}'; try mv {path} {path}.gone; try rm -r {path}; "
        );
    }
    for name in ["hooks", "worktrees", "config"] {
        let path = format!("{common}/{name}");
        script += &format!("try mv {path} {path}.moved; try ln -sfT /tmp {path}; ");
    }
    script
        + &format!(
            "touch {common}/objects/mine {common}/refs/heads/mine.lock && rm {common}/objects/mine {common}/refs/heads/mine.lock && echo WRITABLE"
        )
}

#[test]
fn nothing_that_git_on_the_host_obeys_can_be_planted_in_a_linked_worktrees_repository() {
    let workspace = linked();
    let main = main_of(&workspace);
    let state = "cd ..; find main/.git ws/.git -not -path '*/objects*' -not -path '*/logs*' -type f | sort | xargs sha256sum";
    let before = on_host(&workspace.path(), state);
    let planted = plant("/.agentcontainer-repository", "/.agentcontainer-worktree");
    let out = workspace.inside(&planted);
    out.prints("WRITABLE");
    assert!(!out.stdout.contains("DONE"), "{}", out.stdout);
    assert_eq!(on_host(&workspace.path(), state), before);
    // The control: without the mounts the same words plant it all.
    let own = main.join(".git/worktrees/ws").display().to_string();
    let out = on_host(
        &workspace.path(),
        &plant(&main.join(".git").display().to_string(), &own),
    );
    assert!(out.matches("DONE").count() > 12, "{out}");
}

#[test]
fn what_a_session_leaves_in_the_repository_that_git_would_obey_is_put_aside() {
    let workspace = linked();
    let main = main_of(&workspace);
    let out = workspace.inside(
        "cd /.agentcontainer-repository; echo '[core] fsmonitor = evil' >config.worktree || echo HELD; echo /tmp >objects/info/alternates
         mkdir rebase-merge; printf 'exec evil\\npick 1\\n' >rebase-merge/git-rebase-todo
         echo '[core] fsmonitor = evil' >/.agentcontainer-worktree/config.worktree || echo HELD; echo evil >COMMIT_EDITMSG || ln -sf /tmp COMMIT_EDITMSG || echo HELD",
    );
    out.prints("HELD\nHELD\nHELD")
        .says("objects/info/alternates, which git here would obey")
        .says("rebase-merge/git-rebase-todo would run: exec evil");
    for gone in [
        "config.worktree",
        "objects/info/alternates",
        "worktrees/ws/config.worktree",
    ] {
        assert!(!main.join(".git").join(gone).exists(), "{gone}");
    }
    let todo = fs::read_to_string(main.join(".git/rebase-merge/git-rebase-todo"));
    assert_eq!(todo.unwrap(), "pick 1\n");
}

#[test]
fn hooks_run_inside_and_those_that_the_configuration_names_in_the_worktree_are_not_the_sessions_to_write()
 {
    let workspace = linked();
    let main = main_of(&workspace);
    on_host(
        &main,
        "printf '#!/bin/sh\\ntouch ran\\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; chown -R 1000:1000 .git",
    );
    workspace
        .inside(&format!("{AS} commit -q --allow-empty -m x; ls ran"))
        .prints("ran");
    on_host(
        &main,
        "git config core.hooksPath .husky; chown -R 1000:1000 .git",
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
fn hooks_that_an_included_configuration_names_are_read_only_inside() {
    let workspace = linked();
    let included = format!(
        "git config include.path {}/.gitconfig",
        workspace.path().display()
    );
    on_host(
        &main_of(&workspace),
        &format!("{included}; chown -R 1000:1000 .git"),
    );
    on_host(
        &workspace.path(),
        "printf '[core]\n\thooksPath = .githooks\n' >.gitconfig; mkdir .githooks; chown -R 1000:1000 .gitconfig .githooks",
    );
    workspace
        .inside("! touch .githooks/pre-commit && ! touch .gitconfig && touch made")
        .status(0)
        .says("Read-only file system");
    assert!(workspace.path().join("made").exists());
    assert!(!workspace.path().join(".githooks/pre-commit").exists());
}

#[test]
fn sessions_of_two_working_trees_share_the_repository_and_the_last_gives_its_places_up() {
    let (workspace, name) = (linked(), token("w"));
    let main = main_of(&workspace);
    let session = workspace.session(&name);
    // What is committed on the host meanwhile is there at once, and the other way round.
    on_host(
        &main,
        &format!("{AS} commit -q --allow-empty -m host; git gc -q; chown -R 1000:1000 ."),
    );
    assert_eq!(session.inside("git log -1 --format=%s main").ok(), "host");
    session
        .inside(&format!("{AS} commit -q --allow-empty -m inside"))
        .ok();
    assert_eq!(on_host(&main, "git log -1 --format=%s topic"), "inside");
    let other = Workspace::new();
    on_host(
        &main,
        &format!(
            "git worktree add -q --force -B second {}; chown -R 1000:1000 .",
            other.path().display()
        ),
    );
    other.write();
    on_host(&other.path(), "chown -R 1000:1000 .");
    other
        .inside(&format!("{AS} commit -q --allow-empty -m there"))
        .ok();
    assert_eq!(
        session.inside("git log -1 --format=%s second").ok(),
        "there"
    );
    assert!(main.join(".git/commondir").exists());
    let still = "echo evil >/.agentcontainer-repository/commondir || rm -f /.agentcontainer-repository/commondir || echo HELD";
    session.inside(still).prints("HELD");
    workspace.cli(&["stop", &name]).status(0);
    drop(session);
    assert!(!main.join(".git/commondir").exists());
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
    out.says("the repository lies outside the workspace");
    assert_eq!(
        on_host(
            &workspace.path(),
            "git log --format=%s; git branch --show-current; git status --porcelain; git config core.worktree"
        ),
        "second\nconfig\nfirst\ntopic\n../../../ws"
    );
    let planted = plant("/.agentcontainer-repository", "/nowhere");
    let out = workspace.inside(&planted);
    out.prints("WRITABLE");
    let done: Vec<_> = out
        .stdout
        .lines()
        .filter(|line| line.starts_with("DONE"))
        .collect();
    // No submodules of its own: nothing holds their place, and they are nobody's.
    assert!(
        done.iter().all(|line| line.contains("/modules")),
        "{done:?}"
    );
    assert!(!above.join(".git/modules/ws/worktrees").exists());
    assert_eq!(
        on_host(&workspace.path(), "git log -1 --format=%s"),
        "second"
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
        .says("a clone of its own");
    assert!(!out.stdout.contains("first"), "{}", out.stdout);
    assert!(!out.stdout.contains("-repository"), "{}", out.stdout);
}

#[test]
fn a_repository_outside_is_asked_about_once_and_again_when_it_is_another() {
    let workspace = linked();
    let run = ["run", "--", "true"];
    let line = "write to the repository that this is a linked worktree of";
    let asked = workspace.cli(&run);
    asked.status(125).says("nobody approved this").says(line);
    workspace.cli(&["run", "--yes", "--", "true"]).status(0);
    workspace.cli(&run).status(0);
    // Another repository, as good as the first.
    on_host(
        &workspace.path(),
        "cd ..; mv main moved; git -C moved worktree repair ../ws 2>&1; chown -R 1000:1000 moved ws",
    );
    let asked = workspace.cli(&run);
    asked
        .status(125)
        .says("nobody approved this")
        .says("/moved/.git");
}

#[test]
fn a_session_that_could_exchange_the_repository_keeps_one_of_its_working_trees_from_starting() {
    let (workspace, outer) = (Workspace::new(), Workspace::new());
    // A repository in another workspace's directory, of which that workspace is not the working tree.
    let add = format!(
        "git init -q -b main main; cd main; {AS} commit -q --allow-empty -m first; git worktree add -q -b topic"
    );
    on_host(
        &outer.path(),
        &format!(
            "{add} {0}; chown -R 1000:1000 . {0}",
            workspace.path().display()
        ),
    );
    workspace.write();
    let name = token("o");
    let session = outer.session(&name);
    let refused = workspace.cli(&["run", "--yes", "--", "true"]);
    refused
        .status(125)
        .says("could put something else in the place of")
        .says("end that session first");
    drop(session);
    workspace.cli(&["run", "--yes", "--", "true"]).status(0);
}

#[test]
fn what_one_of_two_overlapping_sessions_planted_is_put_aside_when_the_other_ends() {
    let (plain, linked) = (Workspace::new(), Workspace::new());
    let names = [token("m"), token("w")];
    const REBASE: &str = "git -c sequence.editor='sed -i 1ibreak' -c user.name=t -c user.email=t@t rebase -qi HEAD~1";
    let commit = format!("{AS} commit -q --allow-empty -m");
    on_host(
        &plain.path(),
        &format!(
            "git init -q -b main .; {commit} 1; git worktree add -q --force -b topic {0}; {commit} 2; {REBASE}; chown -R 1000:1000 . {0}",
            linked.path().display()
        ),
    );
    let first = plain.session(&names[0]);
    let plant = |at: &str| format!("echo 'exec touch pwned' >{at}/rebase-merge/git-rebase-todo");
    first.inside(&plant(".git")).ok();
    let second = linked.session(&names[1]);
    plain.cli(&["stop", &names[0]]).status(0);
    drop(first);
    second.inside(&plant("/.agentcontainer-repository")).ok();
    linked.cli(&["stop", &names[1]]).status(0);
    drop(second);
    let go_on = "git -c user.name=t -c user.email=t@t -c core.editor=true rebase --continue";
    on_host(&plain.path(), go_on);
    assert!(!plain.path().join("pwned").exists());
    // The control: what nobody puts aside runs.
    on_host(
        &plain.path(),
        &format!("{commit} 3; {REBASE}; {}; {go_on}", plant(".git")),
    );
    assert!(plain.path().join("pwned").exists());
}

#[test]
fn a_linked_worktree_is_fetched_into_and_pushed_from_over_https() {
    let ca = Authority::for_names(&["*.push.test"]);
    let host = format!("{}.push.test", token("h"));
    let hub = tempfile::tempdir().unwrap();
    let server = Web::start(rig().bridge, 0, Some(&ca), Some(hub.path()));
    let port = server.port;
    let workspace = linked_in(
        Workspace::new()
            .gateway_line(&format!("ca_bundles = [\"{}\"]", ca.root().display()))
            .host(&host, rig().bridge)
            .rules(&json!([
                { "host": host, "ports": [port], "protocol": "https", "methods": ["GET", "POST"], "paths": ["/git/**"] },
            ])),
    );
    on_host(
        hub.path(),
        "git init -q --bare -b main git/hub.git; git -C git/hub.git config http.receivepack true",
    );
    let url = format!("https://{host}:{port}/git/hub.git");
    let out = workspace.inside(&format!(
        "set -e; git config user.name me; git config user.email me@test; git remote add hub {url}
         head -c 3000000 /dev/urandom >large; git add large; git commit -qm large; git push -q -u hub topic main
         git clone -q {url} /tmp/clone 2>&1; cd /tmp/clone; git switch -q topic; git -c user.name=t -c user.email=t@t commit -q --allow-empty -m theirs; git push -q; cd - >/dev/null
         git pull -q; git log -1 --format=%s; git rev-parse HEAD hub/topic | uniq | wc -l"
    ));
    assert_eq!(out.ok(), "theirs\n1");
    out.says("kept from the session: branch.topic.remote = hub");
    let there = on_host(
        &hub.path().join("git/hub.git"),
        "git rev-parse topic; git fsck --no-dangling 2>&1",
    );
    assert_eq!(on_host(&workspace.path(), "git rev-parse topic"), there);
    let posted = server
        .requests()
        .iter()
        .filter(|one| one["method"] == "POST" && one["path"] == "/git/hub.git/git-receive-pack")
        .count();
    assert!(posted >= 2, "{posted}");
    // What the rule does not allow is not pushed to.
    workspace
        .inside("git push -q https://$(git remote get-url hub | cut -d/ -f3)/other.git topic 2>&1 || echo REFUSED")
        .prints("REFUSED");
}
