//! What git on the host does with what sessions left, each beside its control: the same without an end of ours.
#![allow(clippy::unwrap_used)]
use std::process::Command;

use super::outside::Unusable;
use super::*;

/// A repository `main` with a linked worktree `tree`, and `above` with a submodule `sub`, in the home of whoever tests.
struct Host {
    dir: tempfile::TempDir,
}

const AS: &str = "export GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t GIT_EDITOR=true GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null;";

impl Host {
    fn new() -> Self {
        let home = std::env::var_os("HOME").unwrap();
        let host = Self {
            dir: tempfile::tempdir_in(home).unwrap(),
        };
        host.run(
            "",
            "git init -q -b main main; cd main; mkdir d; echo 1 >d/f; echo 1 >f; git add .; git commit -qm 1; echo 2 >f; git commit -qam 2
             git worktree add -q -b topic ../tree; cd ..; git init -q -b main above; cd above
             git -c protocol.file.allow=always submodule --quiet add ../main sub; git commit -qm 1",
        );
        host
    }

    fn at(&self, path: &str) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join(path)
    }

    fn run(&self, at: &str, words: &str) -> String {
        let out = Command::new("sh")
            .args(["-c", &format!("set -e; {AS} {words}")])
            .current_dir(self.at(at))
            .env("ROOT", self.at(""))
            .env("PWNED", self.at("pwned"))
            .output()
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success(), "{words}: {said}");
        said
    }

    /// Whether any of it ran since it was last asked.
    fn is_pwned(&self) -> bool {
        fs::remove_file(self.at("pwned")).is_ok()
    }

    fn session(&self, workspace: &str) -> PathBuf {
        self.at("sessions").join(workspace.replace('/', "-"))
    }

    fn begin(&self, workspace: &str) -> Git {
        let at = self.at(workspace);
        fs::create_dir_all(self.session(workspace)).unwrap();
        prepare(
            &at,
            &Repository::of(&at),
            "/w",
            &self.session(workspace),
            (0, 0),
            &[],
            &look::through(&at, look::MAX_ENTRIES),
            Doing::Write,
        )
        .unwrap()
    }

    fn end(&self, workspace: &str, repository: bool) -> Merged {
        let others = Others {
            workspace: false,
            repository,
        };
        let session = self.session(workspace);
        let merged = finish(&self.at(workspace), &session, others).unwrap();
        fs::remove_dir_all(session).unwrap();
        merged
    }

    fn left(&self) -> usize {
        let left = fs::read_dir(self.at("sessions")).unwrap().flatten();
        left.count()
    }
}

fn covers(git: &Git, target: &str) -> bool {
    git.mounts.iter().any(|mount| {
        mount.target() == target
            && matches!(
                mount,
                Mount::Session {
                    read_only: true,
                    ..
                } | Mount::Control {
                    read_only: true,
                    ..
                }
            )
    })
}

const STOPPED: &str = "git -c sequence.editor='sed -i 1ibreak' rebase -qi HEAD~1 >/dev/null";
const EXEC: &str = "printf 'exec touch \"$PWNED\"\\n' >.git/rebase-merge/git-rebase-todo";

#[test]
fn what_one_of_two_overlapping_sessions_planted_is_not_the_others_to_leave() {
    for ended in [false, true] {
        for (first, second) in [("main", "tree"), ("tree", "main")] {
            let host = Host::new();
            host.run("main", STOPPED);
            if ended {
                host.begin(first);
            }
            host.run("main", EXEC);
            if ended {
                host.begin(second);
                let said = host.end(first, true).elsewhere.said;
                assert!(
                    said.iter().any(|line| line.contains("would run")),
                    "{said:?}"
                );
                // The other may be at it still: it is touched by nobody.
                assert!(
                    host.run("main", "cat .git/rebase-merge/git-rebase-todo")
                        .contains("exec")
                );
                host.run("main", EXEC);
                host.end(second, false);
                assert_eq!(host.left(), 0);
            }
            host.run("main", "git rebase --continue");
            assert_eq!(host.is_pwned(), !ended, "{first} {second}");
        }
    }
}

#[test]
fn what_was_written_into_a_replaced_configuration_is_not_the_next_sessions_to_restore() {
    for (first, second) in [("main", "tree"), ("tree", "main")] {
        let host = Host::new();
        host.begin(first);
        // git replaces the file, and the first can write it.
        host.run(
            "main",
            "git config alias.x y; git config core.fsmonitor 'touch \"$PWNED\"; false'; git status",
        );
        assert!(host.is_pwned());
        host.begin(second);
        host.end(first, true);
        host.run("main", "git status");
        host.end(second, false);
        host.is_pwned();
        host.run("main", "git status");
        host.run("tree", "git status");
        let said = host.run("main", "cat .git/config");
        assert!(!host.is_pwned(), "{first} {second}: {said}");
    }
}

#[test]
fn what_a_session_around_it_wrote_is_not_a_repositorys_own_to_restore() {
    for outer_first in [true, false] {
        let host = Host::new();
        host.run("main", "git init -q nested");
        host.begin("main");
        // There it writes as it likes.
        host.run(
            "main/nested",
            "git config core.fsmonitor 'touch \"$PWNED\"; false'; git status",
        );
        assert!(host.is_pwned());
        host.begin("main/nested");
        let (first, last) = match outer_first {
            true => ("main", "main/nested"),
            false => ("main/nested", "main"),
        };
        host.end(first, false);
        host.end(last, false);
        host.run("main/nested", "git status");
        assert!(!host.is_pwned(), "{first}");
    }
}

#[test]
fn hooks_and_includes_in_the_repository_are_refused_however_they_are_spelled() {
    let hook = "mkdir -p .git/hk; printf '#!/bin/sh\\ntouch \"$PWNED\"\\n' >.git/hk/pre-commit; chmod +x .git/hk/pre-commit; printf '[core]\\n\\thooksPath = %s/.git/hk\\n' \"$PWD\" >.git/more";
    let host = Host::new();
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let below = host
        .at("")
        .strip_prefix(home.canonicalize().unwrap())
        .unwrap()
        .to_owned();
    let below = below.display();
    host.run("main", &format!("{hook}; ln -s main ../link"));
    for (key, value) in [
        ("core.hooksPath", format!("~/{below}/main/.git/hk")),
        ("core.hooksPath", "../main/.git/hk".to_owned()),
        ("core.hooksPath", ".git/hk".to_owned()),
        (
            "core.hooksPath",
            host.at("link/.git/hk").display().to_string(),
        ),
        ("include.path", format!("~/{below}/main/.git/more")),
        ("include.path", "../../main/.git/more".to_owned()),
    ] {
        for file in [
            "config",
            "config.worktree",
            "worktrees/tree/config.worktree",
        ] {
            host.run(
                "main",
                &format!("cp .git/config ../kept; git config extensions.worktreeConfig true; git config -f .git/{file} {key} '{value}'"),
            );
            let is_main = !file.starts_with("worktrees");
            // Where it is relative, not every working tree comes to it.
            let at = if is_main { "main" } else { "tree" };
            let is_mains_alone = !is_main && value == "../../main/.git/more";
            host.run(at, "git commit -q --allow-empty -m x");
            if !is_mains_alone && (is_main || value != ".git/hk") {
                assert!(host.is_pwned(), "{key} {value} in {file}");
            }
            let found = Repository::of(&host.at("tree"));
            assert!(
                is_mains_alone || matches!(found, Repository::Unusable(Unusable::Kind(_))),
                "{key} {value} in {file}: {found:?}"
            );
            host.run("main", "cp ../kept .git/config; rm -f .git/config.worktree .git/worktrees/tree/config.worktree");
        }
    }
    for value in [".git/hooks", "hooks", "~/elsewhere", ".husky"] {
        host.run("main", &format!("git config core.hooksPath '{value}'"));
        let found = Repository::of(&host.at("tree"));
        assert!(found.outside().is_some(), "{value}: {found:?}");
    }
}

#[test]
fn what_a_working_trees_own_configuration_names_and_was_not_there_is_put_aside() {
    let plant = "mkdir -p .githooks; printf '#!/bin/sh\\ntouch \"$PWNED\"\\n' >.githooks/pre-commit; chmod +x .githooks/pre-commit; printf '[core]\\n\\tfsmonitor = touch \\\\\"$PWNED\\\\\"; false\\n' >more";
    for (workspace, include) in [("main", "../more"), ("tree", "../../../../tree/more")] {
        for ended in [false, true] {
            let host = Host::new();
            host.run(workspace, &format!("git config extensions.worktreeConfig true; git config --worktree core.hooksPath .githooks; git config --worktree include.path {include}"));
            if ended {
                host.begin(workspace);
            }
            host.run(workspace, plant);
            if ended {
                let merged = host.end(workspace, false);
                assert_eq!(merged.left_out.len(), 2, "{workspace} {merged:?}");
            }
            host.run(workspace, "git status");
            assert_eq!(host.is_pwned(), !ended, "{workspace}");
            host.run(
                workspace,
                "git -c core.fsmonitor= commit -q --allow-empty -m x",
            );
            assert_eq!(host.is_pwned(), !ended, "{workspace}");
        }
    }
    // What is there is not the session's to write.
    let host = Host::new();
    host.run("main", "git config extensions.worktreeConfig true; git config --worktree core.hooksPath .githooks; mkdir .githooks");
    assert!(covers(&host.begin("main"), "/w/.githooks"));
}

/// Ways by which git in a working tree comes to its directory of hooks, `.githooks`, with a file `.gitconfig` that is tracked or another.
const INCLUDED: [&str; 5] = [
    "git config include.path \"$PWD/.gitconfig\"; git config -f .gitconfig core.hooksPath .githooks",
    "git config \"includeIf.gitdir:${ROOT}.path\" \"$PWD/.gitconfig\"; git config -f .gitconfig core.hooksPath .githooks",
    "mkdir d/conf; git config include.path \"$PWD/.gitconfig\"; git config -f .gitconfig include.path d/conf/../conf/more; git config -f d/conf/more core.hooksPath .githooks",
    "git config include.path \"$ROOT/elsewhere\"; git config -f ../elsewhere core.hooksPath .githooks",
    "ln -s \"$PWD\" ../link; git config core.hooksPath \"$ROOT/link/.githooks\"",
];
const HOOK: &str = "mkdir -p .githooks; printf '#!/bin/sh\\ntouch \"$PWNED\"\\n' >.githooks/pre-commit; chmod +x .githooks/pre-commit";
const COMMIT: &str = "git -c core.fsmonitor= commit -q --allow-empty -m x";

#[test]
fn hooks_that_an_included_configuration_names_are_not_a_sessions_to_write() {
    for workspace in ["main", "tree"] {
        for words in INCLUDED {
            // What is there is covered.
            let host = Host::new();
            host.run(workspace, &format!("{words}; {HOOK}"));
            host.run(workspace, COMMIT);
            assert!(host.is_pwned(), "{words}");
            let git = host.begin(workspace);
            assert!(covers(&git, "/w/.githooks"), "{workspace} {words}");
            if words.contains("d/conf") {
                assert!(covers(&git, "/w/d/conf/more"), "{workspace} {words}");
            }
            // What is not there is put aside.
            for ended in [false, true] {
                let host = Host::new();
                host.run(workspace, words);
                if ended {
                    host.begin(workspace);
                }
                host.run(workspace, HOOK);
                if ended {
                    let merged = host.end(workspace, false);
                    assert_eq!(merged.left_out.len(), 1, "{workspace} {words} {merged:?}");
                }
                host.run(workspace, COMMIT);
                assert_eq!(host.is_pwned(), !ended, "{workspace} {words}");
            }
        }
    }
}

#[test]
fn what_the_host_put_in_the_place_of_what_was_covered_is_looked_at_again() {
    let replaced = "rm -rf .githooks; mkdir .githooks";
    let evil = "git config -f .gitconfig core.fsmonitor 'touch \"$PWNED\"; false'";
    for words in INCLUDED {
        for (meanwhile, remains) in [
            (format!("{replaced}; {HOOK}"), false),
            (evil.to_owned(), false),
            // The very directory that was covered is the host's to change.
            (HOOK.to_owned(), true),
            (
                format!(
                    "{HOOK}; mv .githooks/pre-commit d/hook; ln -s ../d/hook .githooks/pre-commit"
                ),
                false,
            ),
        ] {
            if !words.contains(".gitconfig") && meanwhile == evil {
                continue;
            }
            let host = Host::new();
            host.run("main", &format!("{words}; mkdir .githooks"));
            host.begin("main");
            host.run("main", &meanwhile);
            host.run("main", "git status; git commit -q --allow-empty -m x");
            assert!(host.is_pwned(), "{words} {meanwhile}");
            let merged = host.end("main", false);
            host.run("main", "git status; git commit -q --allow-empty -m x");
            assert_eq!(host.is_pwned(), remains, "{words} {meanwhile} {merged:?}");
        }
    }
}

#[test]
fn an_included_configuration_may_not_name_hooks_in_the_repository_either() {
    let host = Host::new();
    host.run("main", "git config include.path \"$ROOT/elsewhere\"; git config -f ../elsewhere include.path more; git config -f ../more core.hooksPath \"$PWD/.git/hk\"; mkdir .git/hk; cd .git/hk; printf '#!/bin/sh\\ntouch \"$PWNED\"\\n' >pre-commit; chmod +x pre-commit");
    host.run("tree", COMMIT);
    assert!(host.is_pwned());
    let found = Repository::of(&host.at("tree"));
    assert!(
        matches!(found, Repository::Unusable(Unusable::Kind(_))),
        "{found:?}"
    );
    host.run("main", "git config -f ../more core.hooksPath .git/hooks");
    let found = Repository::of(&host.at("tree"));
    assert!(found.outside().is_some(), "{found:?}");
}

#[test]
fn what_a_nested_repository_names_is_looked_at_however_it_is_spelled() {
    let home = PathBuf::from(std::env::var_os("HOME").unwrap());
    let home = home.canonicalize().unwrap();
    for (at, value) in [
        ("main/sub", "~/BELOW/main/.githooks"),
        ("main/sub", ":(optional)~/BELOW/main/.githooks"),
        ("main/sub", "ROOT/link/.githooks"),
        ("main/sub", "../.githooks"),
        ("main/a/b/other", "../../../.githooks"),
        ("above/sub", "../.githooks"),
    ] {
        for included in [false, true] {
            for ended in [false, true] {
                let host = Host::new();
                let below = host.at("");
                let below = below.strip_prefix(&home).unwrap().display().to_string();
                let value = value.replace("BELOW", below.trim_end_matches('/'));
                let value = value.replace("ROOT", host.at("").to_str().unwrap());
                let workspace = at.split('/').next().unwrap();
                host.run("", "ln -s main link; git init -q main/sub; git -C main/sub commit -q --allow-empty -m x; git -C main/sub worktree add -q ../a/b/other");
                let file = if included {
                    "git config include.path \"$ROOT/elsewhere\"; git config -f \"$ROOT/elsewhere\""
                } else {
                    "git config"
                };
                host.run(at, &format!("{file} core.hooksPath '{value}'"));
                if ended {
                    host.begin(workspace);
                }
                host.run(workspace, HOOK);
                if ended {
                    host.end(workspace, false);
                }
                // git before 2.47 takes the marked spelling as it stands.
                let is_marked = value.starts_with(':');
                host.run(at, COMMIT);
                let ran = host.is_pwned();
                assert!(ran != ended || is_marked && !ran, "{at} {value} {included}");
                let hook = host.at(workspace).join(".githooks/pre-commit");
                assert_eq!(hook.exists(), !ended, "{at} {value} {included}");
            }
        }
    }
}

#[test]
fn how_many_files_a_configuration_includes_is_bounded_and_more_is_no_session() {
    let host = Host::new();
    let include = |n: usize| {
        for n in 0..n {
            fs::write(
                host.at(&format!("i{n}")),
                format!("[include]\n\tpath = i{}\n", n + 1),
            )
            .unwrap();
        }
        fs::write(host.at(&format!("i{n}")), "").unwrap();
        let _ = fs::remove_file(host.at(&format!("i{}", n + 1)));
        let at = host.at("main");
        let session = host.session("main");
        fs::create_dir_all(&session).unwrap();
        let seen = look::through(&at, look::MAX_ENTRIES);
        let repository = Repository::of(&at);
        let made = prepare(
            &at,
            &repository,
            "/w",
            &session,
            (0, 0),
            &[],
            &seen,
            Doing::Look,
        );
        made.map(|_| ()).map_err(|e| e.to_string())
    };
    host.run("main", "git config include.path ../../i0");
    assert_eq!(include(named::MAX_INCLUDES - 1), Ok(()));
    let refused = include(named::MAX_INCLUDES).unwrap_err();
    assert!(refused.contains("includes more than"), "{refused}");
    let of_tree = Repository::of(&host.at("tree"));
    assert!(
        matches!(of_tree, Repository::Unusable(Unusable::Path(_))),
        "{of_tree:?}"
    );
}

#[test]
fn a_push_into_the_repository_does_not_find_hooks_that_a_session_made() {
    for (workspace, ended) in [("tree", false), ("tree", true), ("main", true)] {
        let host = Host::new();
        host.run("main", "git config core.hooksPath .husky");
        if ended {
            host.begin(workspace);
        }
        host.run("main", "mkdir .git/.husky; printf '#!/bin/sh\\ntouch \"$PWNED\"\\n' >.git/.husky/pre-receive; chmod +x .git/.husky/pre-receive");
        if ended {
            assert_eq!(host.end(workspace, false).left_out.len(), 1);
        }
        host.run(
            "above/sub",
            "git commit -q --allow-empty -m x; git push -q ../../main HEAD:refs/heads/pushed",
        );
        assert_eq!(host.is_pwned(), !ended);
    }
}

#[test]
fn a_configuration_for_one_working_tree_cannot_wait_for_being_switched_on() {
    for (workspace, file, covered) in [
        (
            "main",
            "main/.git/config.worktree",
            "/w/.git/config.worktree",
        ),
        (
            "tree",
            "main/.git/config.worktree",
            "/.agentcontainer-repository/config.worktree",
        ),
        (
            "tree",
            "main/.git/worktrees/tree/config.worktree",
            "/.agentcontainer-worktree/config.worktree",
        ),
        (
            "above/sub",
            "above/.git/modules/sub/config.worktree",
            "/.agentcontainer-repository/config.worktree",
        ),
    ] {
        let host = Host::new();
        let git = host.begin(workspace);
        assert!(covers(&git, covered), "{covered}");
        assert_eq!(fs::read(host.at(file)).unwrap(), b"");
        host.end(workspace, false);
        assert!(!host.at(file).exists() && host.left() == 0, "{file}");
    }
    // The control: what lies there waits for the next word that switches it on.
    let evil = "[core]\n\tfsmonitor = touch \"$PWNED\"; false\n";
    let host = Host::new();
    fs::write(host.at("main/.git/config.worktree"), evil).unwrap();
    host.run("main", "git status");
    assert!(!host.is_pwned());
    host.run("main", "git sparse-checkout set d; git status");
    assert!(host.is_pwned());
    // Where git on the host wrote it anew, what held the place is gone with the old one: the end looks at it again.
    for (workspace, at) in [("main", "main"), ("tree", "main"), ("tree", "tree")] {
        let host = Host::new();
        host.run("main", "git config extensions.worktreeConfig true");
        host.begin(workspace);
        host.run(at, "git sparse-checkout set d");
        let own = match at {
            "main" => "main/.git",
            _ => "main/.git/worktrees/tree",
        };
        let file = host.at(own).join("config.worktree");
        let text = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("{text}{evil}")).unwrap();
        host.run(at, "git status");
        assert!(host.is_pwned());
        let merged = host.end(workspace, false);
        host.run(at, "git status");
        assert!(!host.is_pwned(), "{merged:?}");
        let sparse = host.run(at, "git config core.sparseCheckout");
        assert_eq!(sparse.trim(), "true");
    }
}

#[test]
fn working_trees_of_a_submodules_repository_are_not_a_sessions_to_make() {
    let common = "above/.git/modules/sub";
    let host = Host::new();
    let git = host.begin("above/sub");
    assert!(covers(&git, "/.agentcontainer-repository/worktrees"));
    assert!(host.at(common).join("worktrees").is_dir());
    host.end("above/sub", false);
    assert!(!host.at(common).join("worktrees").exists());
    for ended in [false, true] {
        let host = Host::new();
        if ended {
            host.begin("above/sub");
            // git on the host takes an empty one away, and what held the place goes with it.
            host.run("above/sub", "git worktree prune");
            assert!(!host.at(common).join("worktrees").exists());
        }
        host.run(
            "above/sub",
            &format!("cd $ROOT; mkdir -p victim {common}/worktrees/evil; cd {common}/worktrees/evil; echo $ROOT/victim/.git >gitdir; echo ../.. >commondir; cp ../../HEAD ."),
        );
        if ended {
            let merged = host.end("above/sub", false);
            assert!(
                merged.left_out[0].contains("worktrees.agentcontainer"),
                "{merged:?}"
            );
        }
        host.run("above/sub", "git worktree repair || :");
        assert_eq!(host.at("victim/.git").exists(), !ended);
    }
}

#[test]
fn what_git_writes_at_every_commit_in_the_main_working_tree_is_not_a_sessions_to_lay_out() {
    let host = Host::new();
    let git = host.begin("tree");
    for name in ["COMMIT_EDITMSG", "FETCH_HEAD", "ORIG_HEAD", "index"] {
        let there = host.at("main/.git").join(name).exists();
        let covered = covers(&git, &format!("/.agentcontainer-repository/{name}"));
        assert_eq!(covered, there, "{name}");
        assert!(there || name == "ORIG_HEAD", "{name}");
    }
    // In place: what covers them inside stays.
    let inode = |name: &str| host.at("main/.git").join(name).metadata().unwrap().ino();
    let before = ["COMMIT_EDITMSG", "FETCH_HEAD"].map(inode);
    host.run(
        "main",
        "git commit -q --allow-empty -m x; git fetch -q ../above/sub main",
    );
    assert_eq!(["COMMIT_EDITMSG", "FETCH_HEAD"].map(inode), before);
    host.end("tree", false);
    assert!(host.at("main/.git/FETCH_HEAD").exists());
    host.run("main", "rm .git/FETCH_HEAD");
    host.begin("tree");
    host.end("tree", false);
    assert!(!host.at("main/.git/FETCH_HEAD").exists());
    // The control: a link that lies there is written through.
    host.run(
        "main",
        "touch rc; ln -sf ../rc .git/COMMIT_EDITMSG; git commit -q --allow-empty -m evil",
    );
    assert!(
        fs::read_to_string(host.at("main/rc"))
            .unwrap()
            .contains("evil")
    );
}

#[test]
fn another_directory_in_the_repositorys_place_is_left_alone() {
    let host = Host::new();
    host.begin("tree");
    host.run("main", "git config core.fsmonitor mine");
    host.run(
        "",
        "mv main moved; cp -r moved main; git -C main config alias.x y",
    );
    let read = |path: &str| fs::read(host.at(path)).unwrap();
    let before = read("main/.git/config");
    let merged = host.end("tree", false);
    assert!(merged.left_out[0].contains("was left alone"), "{merged:?}");
    assert_eq!(read("main/.git/config"), before);
    // The control: the one that it had is put right.
    let host = Host::new();
    host.begin("tree");
    host.run("main", "git config core.fsmonitor mine");
    host.end("tree", false);
    assert!(
        !String::from_utf8(fs::read(host.at("main/.git/config")).unwrap())
            .unwrap()
            .contains("mine")
    );
}

#[test]
fn a_repository_is_the_same_whatever_number_its_device_has() {
    let host = Host::new();
    let meta = host.at("main/.git").metadata().unwrap();
    let device = format!("[{},", meta.dev());
    // Where the file system says when something was made, as those do whose devices' numbers change.
    assert_ne!(born(&meta), 0);
    for workspace in ["main", "tree"] {
        host.begin(workspace);
        let session = host.session(workspace);
        let beside = fs::read_dir(&session)
            .unwrap()
            .chain(fs::read_dir(host.at("sessions")).unwrap());
        let files = beside
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_file());
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            assert!(!text.contains(&device), "{}", file.display());
        }
        assert!(host.end(workspace, false).left_out.is_empty());
    }
}

#[test]
fn what_keeps_git_from_working_is_named() {
    let host = Host::new();
    host.run("main", "touch .git/mine.lock");
    host.begin("main");
    host.run("main", "touch .git/index.lock; mkfifo .git/FETCH_HEAD");
    // The control: neither lets git work.
    host.run(
        "main",
        "! git add . 2>/dev/null; ! timeout 1 git fetch -q ../above/sub",
    );
    let said = host.end("main", false).elsewhere.said;
    assert_eq!(said.len(), 2, "{said:?}");
    for name in [".git/index.lock", ".git/FETCH_HEAD"] {
        assert!(said.iter().any(|line| line.starts_with(name)), "{said:?}");
    }
}

#[test]
fn the_address_of_a_remote_is_none_where_git_is_led_elsewhere() {
    let host = Host::new();
    let url = "https://git.test/a/b";
    host.run("main", &format!("git remote add origin {url}"));
    for workspace in ["main", "tree"] {
        assert_eq!(origin(&host.at(workspace)).as_deref(), Some(url));
    }
    fs::write(host.at("main/.git/commondir"), COMMONDIR).unwrap();
    assert_eq!(origin(&host.at("main")).as_deref(), Some(url));
    fs::write(host.at("main/.git/commondir"), "../../above/.git\n").unwrap();
    assert_eq!(origin(&host.at("main")), None);
}
