#![allow(clippy::unwrap_used)]
use super::super::before::MAX_THINGS;
use super::*;
use crate::look;
use std::process::Command;

fn repository(path: &Path, config: &str) {
    for name in ["objects", "refs", "hooks"] {
        fs::create_dir_all(path.join(name)).unwrap();
    }
    fs::write(path.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(path.join("config"), config).unwrap();
}

fn before(path: &Path) -> Before {
    Before::of(path, &look::through(path, look::MAX_ENTRIES), MAX_THINGS)
}

fn since(path: &Path, before: &Before) -> Vec<String> {
    let found = sweep(path, &look::through(path, look::MAX_ENTRIES), before, true);
    assert!(!found.cut_off);
    found.said
}

/// Where nothing was there before.
fn swept(path: &Path) -> Vec<String> {
    since(path, &Before::default())
}

fn hook(path: &Path) {
    fs::write(path, "#!/bin/sh\n").unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A shell with git, which knows nobody.
fn shell(at: &Path, words: &str) -> std::process::Output {
    Command::new("sh")
        .args(["-ec", words])
        .current_dir(at)
        .env("HOME", at)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_NAME"), "t")))
        .envs(["AUTHOR", "COMMITTER"].map(|who| (format!("GIT_{who}_EMAIL"), "t@t")))
        .env("GIT_EDITOR", "true")
        .output()
        .unwrap()
}

fn git(at: &Path, words: &str) {
    let out = shell(at, words);
    assert!(
        out.status.success(),
        "{words}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
}

const CLONE: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n[remote \"origin\"]\n\turl = https://git.test/a.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n[branch \"main\"]\n\tremote = origin\n\tmerge = refs/heads/main\n[user]\n\tname = A B\n";

#[test]
fn a_plain_clone_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join("sub/.git");
    repository(&git, CLONE);
    hook(&git.join("hooks/pre-commit.sample"));
    assert_eq!(swept(dir.path()), Vec::<String>::new());
    assert_eq!(fs::read_to_string(git.join("config")).unwrap(), CLONE);
}

#[test]
fn what_git_would_run_is_put_aside_wherever_the_repository_lies() {
    for at in [".git", "a/b/.git", "bare.git", ".git/modules/x"] {
        let dir = tempfile::tempdir().unwrap();
        let git = dir.path().join(at);
        repository(&git, &format!("{CLONE}[core]\n\tfsmonitor = ./evil\n"));
        hook(&git.join("hooks/post-checkout"));
        assert_eq!(swept(dir.path()).len(), 2, "{at}");
        assert_eq!(
            config::parse(&fs::read_to_string(git.join("config")).unwrap()).entries,
            config::parse(CLONE).entries
        );
        assert!(!git.join("hooks/post-checkout").exists());
        assert!(git.join("hooks/post-checkout.agentcontainer").exists());
        assert!(git.join("config.agentcontainer").exists());
        assert_eq!(swept(dir.path()), Vec::<String>::new(), "once is enough");
    }
}

#[test]
fn a_link_that_git_would_write_through_is_put_aside_and_one_that_was_there_stays() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join(".git");
    repository(&git, CLONE);
    fs::create_dir(git.join("logs")).unwrap();
    symlink("elsewhere", git.join("annex")).unwrap();
    let before = before(dir.path());
    let planted = [
        "COMMIT_EDITMSG",
        "logs/HEAD",
        "logs/refs/heads/main",
        "modules",
        "objects/ab",
        "objects/info/packs",
        "objects/pack",
        "rebase-merge/done",
        "refs/tags/v/1",
        "worktrees",
    ];
    for name in planted {
        fs::create_dir_all(git.join(name).parent().unwrap()).unwrap();
        symlink("/home/ada", git.join(name)).unwrap();
    }
    let said = since(dir.path(), &before);
    assert_eq!(said.len(), planted.len(), "{said:?}");
    for name in planted {
        assert!(!git.join(name).is_symlink(), "{name}");
        assert!(
            git.join(format!("{name}.agentcontainer")).is_symlink(),
            "{name}"
        );
    }
    assert!(git.join("annex").is_symlink());
    assert_eq!(
        since(dir.path(), &before),
        Vec::<String>::new(),
        "once is enough"
    );
}

#[test]
fn what_did_not_change_and_what_another_session_may_change_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join("sub/.git");
    let text = "[alias]\n\ts = !x\n[core]\n\thooksPath = ../h\n[include]\n\tpath = more\n";
    repository(&git, text);
    fs::create_dir(dir.path().join("h")).unwrap();
    hook(&dir.path().join("h/pre-commit"));
    hook(&git.join("hooks/pre-push"));
    fs::write(git.join("more"), "[alias]\n\tt = !x\n").unwrap();
    assert_eq!(since(dir.path(), &before(dir.path())), Vec::<String>::new());
    let seen = look::through(dir.path(), look::MAX_ENTRIES);
    let found = sweep(dir.path(), &seen, &Before::default(), false);
    assert!(found.said.len() >= 3, "{found:?}");
    assert_eq!(fs::read_to_string(git.join("config")).unwrap(), text);
    assert!(git.join("hooks/pre-push").exists());
}

#[test]
fn a_directory_that_was_moved_into_a_hooks_place_is_a_strangers_however_old() {
    for (plant, aside) in [
        (
            "rm -rf sub/.git/hooks; mv a sub/.git/hooks",
            "sub/.git/hooks/pre-commit",
        ),
        (
            "mv a/pre-commit sub/.git/hooks",
            "sub/.git/hooks/pre-commit",
        ),
        ("mv b/.git sub2/.git", "sub2/.git/config"),
        ("mv b sub/b", "sub/b/.git/config"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        git(
            dir.path(),
            "git init -q sub; mkdir -p a b/.git/objects sub2; echo '#!/bin/sh' >a/pre-commit; chmod +x a/pre-commit",
        );
        repository(
            &dir.path().join("b/.git"),
            "[core]\n\tfsmonitor = touch pwned\n",
        );
        // Older than what is remembered, by the clock that changes are told by.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        let before = before(dir.path());
        assert_eq!(since(dir.path(), &before), Vec::<String>::new());
        git(dir.path(), &format!("mkdir -p sub/.git/hooks; {plant}"));
        assert_eq!(since(dir.path(), &before).len(), 1, "{plant}");
        assert!(
            dir.path().join(format!("{aside}.agentcontainer")).exists(),
            "{plant}"
        );
    }
}

#[test]
fn what_the_persons_own_configuration_names_is_looked_at_too() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join("sub/.git");
    repository(
        &git,
        "[core]\n\thooksPath = h\n[include]\n\tpath = ../more\n",
    );
    fs::create_dir(dir.path().join("sub/h")).unwrap();
    fs::write(dir.path().join("sub/more"), "[user]\n\tname = x\n").unwrap();
    let before = before(dir.path());
    hook(&dir.path().join("sub/h/pre-commit"));
    fs::write(
        dir.path().join("sub/more"),
        "[user]\n\tname = x\n[core]\n\tfsmonitor = y\n",
    )
    .unwrap();
    let said = since(dir.path(), &before);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(!dir.path().join("sub/h/pre-commit").exists());
    assert_eq!(
        fs::read_to_string(dir.path().join("sub/more")).unwrap(),
        "[user]\n\tname = \"x\"\n"
    );
}

#[test]
fn how_many_included_files_are_read_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join("sub/.git");
    let read = |n: usize| {
        let lines: String = (0..n)
            .map(|n| format!("[include]\n\tpath = i{n}\n"))
            .collect();
        repository(&git, &lines);
        for n in 0..n {
            fs::write(git.join(format!("i{n}")), "").unwrap();
        }
        obeyed::configs(dir.path(), &git).len()
    };
    let most = super::super::named::MAX_INCLUDES;
    assert_eq!(read(most), 1 + most);
    assert_eq!(read(most + 1), 1 + most);
}

#[test]
fn the_workspaces_own_repository_is_not_a_strangers_but_its_modules_may_be() {
    use super::super::before::Own;
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join(".git");
    repository(&git, "[alias]\n\ts = !x\n");
    repository(&git.join("modules/x"), "[alias]\n\ts = !x\n");
    let hooks = git.join("hooks");
    let meta = hooks.metadata().unwrap();
    let mut before = Before::default();
    before.own = Some(Own {
        at: None,
        config: String::new(),
        facts: super::super::Facts::default(),
        hooks: Some(super::super::identity(&meta)),
    });
    // Into the directory that was bound only the host can have put it.
    hook(&hooks.join("pre-commit"));
    let said = since(dir.path(), &before);
    assert_eq!(said.len(), 1);
    assert!(said[0].starts_with(".git/modules/x/config"));
    fs::rename(&hooks, git.join("old")).unwrap();
    fs::create_dir(&hooks).unwrap();
    hook(&hooks.join("pre-commit"));
    assert_eq!(since(dir.path(), &before).len(), 1);
    assert!(!hooks.join("pre-commit").exists());
}

/// A rebase that stopped at its first step, and then has the steps that are given.
fn stopped(dir: &Path, steps: &str) {
    git(
        dir,
        "git init -q -b main .; echo 1 >f; git add f; git commit -qm 1; echo 2 >f; git commit -qam 2; git -c sequence.editor='sed -i 1ibreak' rebase -qi HEAD~1 >/dev/null",
    );
    fs::write(dir.join(".git/rebase-merge/git-rebase-todo"), steps).unwrap();
}

#[test]
fn a_rebase_that_waits_goes_on_without_the_commands_a_session_gave_it() {
    let steps = "exec touch own\nexec touch pwned\n\t x touch pwned\n# exec touch pwned\n";
    for swept in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        stopped(dir.path(), "x y\nexec touch own\n");
        let mut before = before(dir.path());
        before.own = Some(super::super::before::Own {
            at: None,
            config: String::new(),
            facts: super::super::Facts::default(),
            hooks: None,
        });
        assert_eq!(since(dir.path(), &before), Vec::<String>::new());
        let todo = dir.path().join(".git/rebase-merge/git-rebase-todo");
        fs::write(&todo, steps).unwrap();
        if swept {
            let said = since(dir.path(), &before);
            assert_eq!(said.len(), 1);
            assert!(
                said[0].contains("exec touch pwned; x touch pwned"),
                "{said:?}"
            );
            assert_eq!(since(dir.path(), &before), Vec::<String>::new());
        }
        git(dir.path(), "git rebase --continue");
        assert!(dir.path().join("own").exists());
        assert_eq!(dir.path().join("pwned").exists(), !swept);
    }
}

#[test]
fn a_waiting_cherry_pick_runs_no_commands_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    git(
        dir.path(),
        "git init -q -b main .; echo 1 >f; git add f; git commit -qm 1; git checkout -q -b o; echo 2 >f; git commit -qam 2; echo 3 >f; git commit -qam 3; git checkout -q main; echo 4 >f; git commit -qam 4; git cherry-pick o~1 o || echo pick >>.git/sequencer/todo; sed -i '2i exec touch pwned' .git/sequencer/todo; git add f",
    );
    shell(dir.path(), "git commit -qm 5; git cherry-pick --continue");
    assert!(!dir.path().join("pwned").exists());
    assert!(dir.path().join(".git/sequencer").exists());
}

/// A rebase, a cherry-pick and an apply that wait, each with what would have the host run or write something when it goes on.
#[test]
fn what_waits_goes_on_with_what_git_has_itself_alone() {
    let stops = "git init -q -b main .; echo 1 >f; git add f; git commit -qm 1; git checkout -q -b o; echo 2 >f; git commit -qam 2; echo 3 >f; git commit -qam 3; git checkout -q main; echo 4 >f; git commit -qam 4; \
        printf '#!/bin/sh\ntouch \"$PWNED\"\n' >git-merge-x; mkdir git-merge-; mv git-merge-x git-merge-/e; chmod +x git-merge-/e;";
    for (waits, planted, goes_on) in [
        (
            "git checkout -q o; git rebase -q main || :",
            "echo /e >.git/rebase-merge/strategy",
            "echo 5 >f; git add f; GIT_EDITOR=true git rebase --continue",
        ),
        (
            "git cherry-pick o~1 o || :",
            "printf '[options]\n\tstrategy = /e\n' >.git/sequencer/opts",
            "echo 5 >f; git add f; git commit -qm 5; git cherry-pick --continue",
        ),
    ] {
        for swept_first in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let pwned = dir.path().join("pwned");
            let run = |script: &str| {
                let script = format!("export PWNED={}; {script}", pwned.display());
                shell(dir.path(), &script);
            };
            git(dir.path(), &format!("{stops} {waits}"));
            let before = before(dir.path());
            run(planted);
            if swept_first {
                assert_eq!(since(dir.path(), &before).len(), 1, "{planted}");
            }
            run(goes_on);
            // The control: it does run.
            assert_eq!(pwned.exists(), !swept_first, "{planted}");
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join(".git");
    repository(&git, CLONE);
    fs::create_dir(git.join("rebase-apply")).unwrap();
    let options = git.join("rebase-apply/apply-opt");
    for (text, stays) in [
        ("", true),
        (" '-C3' '--whitespace=fix'", true),
        (" '--build-fake-ancestor=/home/ada/file'", false),
        (" '-C3' '--unsafe-paths'", false),
        (" '--whitespace=fix --directory=/'", false),
    ] {
        fs::write(&options, text).unwrap();
        assert_eq!(swept(dir.path()).is_empty(), stays, "{text}");
        assert_eq!(options.exists(), stays, "{text}");
    }
    for strategy in ["ort\n", "recursive\n"] {
        fs::create_dir_all(git.join("rebase-merge")).unwrap();
        fs::write(git.join("rebase-merge/strategy"), strategy).unwrap();
        assert_eq!(swept(dir.path()), [""; 0]);
    }
}

/// What git reads of a waiting cherry-pick's options though a lenient reader would not.
#[test]
fn options_that_are_not_read_whole_are_put_aside() {
    use super::super::config::MAX_ENTRIES;
    let many = |n: usize| {
        let fill = "\tsignoff = true\n".repeat(n);
        format!("[options]\n{fill}\tstrategy = /e\n")
    };
    for (opts, swept_first) in [
        ("\u{feff}[options]\n\tstrategy = /e\n".to_owned(), false),
        ("\u{feff}[options]\n\tstrategy = /e\n".to_owned(), true),
        ("[Options]Strategy=\\\n/e\n".to_owned(), false),
        ("[Options]Strategy=\\\n/e\n".to_owned(), true),
        (many(MAX_ENTRIES), false),
        (many(MAX_ENTRIES), true),
        (many(MAX_ENTRIES - 1), true),
    ] {
        let dir = tempfile::tempdir().unwrap();
        git(
            dir.path(),
            "git init -q -b main .; echo 1 >f; git add f; git commit -qm 1; git checkout -q -b o; echo 2 >f; git commit -qam 2; echo 3 >f; git commit -qam 3; git checkout -q main; echo 4 >f; git commit -qam 4
             mkdir git-merge-; printf '#!/bin/sh\\ntouch pwned\\n' >git-merge-/e; chmod +x git-merge-/e; git cherry-pick o~1 o || :",
        );
        let before = before(dir.path());
        fs::write(dir.path().join(".git/sequencer/opts"), &opts).unwrap();
        if swept_first {
            assert_eq!(since(dir.path(), &before).len(), 1);
        }
        shell(
            dir.path(),
            "echo 5 >f; git add f; git commit -qm 5; git cherry-pick --continue",
        );
        assert_eq!(
            dir.path().join("pwned").exists(),
            !swept_first,
            "{:.40}",
            opts
        );
    }
    // As git writes them.
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join(".git");
    repository(&git, CLONE);
    fs::create_dir(git.join("sequencer")).unwrap();
    let opts = "[options]\n\tsignoff = true\n\tstrategy = ort\n\tstrategy-option = ours\n";
    fs::write(git.join("sequencer/opts"), opts).unwrap();
    assert_eq!(swept(dir.path()), [""; 0]);
}

#[test]
fn a_rebases_script_and_a_link_in_its_place_are_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join("sub/.git");
    repository(&git, CLONE);
    fs::create_dir_all(git.join("rebase-merge/rewritten")).unwrap();
    assert_eq!(swept(dir.path()).len(), 1);
    assert!(git.join("rebase-merge/rewritten.agentcontainer").exists());
    fs::rename(git.join("rebase-merge"), dir.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../../elsewhere", git.join("rebase-merge")).unwrap();
    assert_eq!(swept(dir.path()).len(), 1);
    assert!(!git.join("rebase-merge").exists());
}

#[test]
fn a_git_that_leads_out_of_the_workspace_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    for (name, to) in [
        ("out", "gitdir: /elsewhere\n"),
        ("in", "gitdir: ../real\n"),
        ("up", "gitdir: ../../x\n"),
        ("by-link", "gitdir: ../link/x\n"),
    ] {
        fs::create_dir(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join(".git"), to).unwrap();
    }
    fs::create_dir(dir.path().join("linked")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", dir.path().join("linked/.git")).unwrap();
    std::os::unix::fs::symlink("/elsewhere", dir.path().join("link")).unwrap();
    assert_eq!(swept(dir.path()).len(), 4);
    assert!(dir.path().join("in/.git").exists());
}

#[test]
fn control_files_below_the_root_are_named_when_they_are_not_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p/.vscode/tasks.json");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, "{}").unwrap();
    let before = before(dir.path());
    let now = || {
        let seen = look::through(dir.path(), look::MAX_ENTRIES);
        sweep(dir.path(), &seen, &before, true).controls
    };
    assert_eq!(now(), Vec::<String>::new());
    fs::write(&path, "{ }").unwrap();
    fs::write(dir.path().join("p/.mcp.json"), "").unwrap();
    assert_eq!(now().len(), 2);
    assert!(path.exists());
}

#[test]
fn what_lies_behind_a_link_is_left_alone_and_what_a_session_includes_is_not_followed() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("dir")).unwrap();
    fs::write(outside.path().join("file"), "[core]\n\tpager = x\n").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    fs::write(root.join("agentcontainer.json"), "{}").unwrap();
    fs::write(root.join("own"), "[core]\n\tpager = x\n").unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join("l")).unwrap();
    let includes = "[include]\n\tpath = ../../l/dir\n\tpath = ../../l/file\n\tpath = ../../agentcontainer.json\n\tpath = ../../own\n";
    repository(&root.join("x/.git"), includes);
    // A configuration of the person's names them; the control: what is no link's is put aside.
    let known = before(&root);
    fs::write(root.join("own"), "[core]\n\tpager = evil\n").unwrap();
    fs::write(outside.path().join("file"), "[core]\n\tpager = y\n").unwrap();
    assert_eq!(since(&root, &known).len(), 1);
    assert!(root.join("own.agentcontainer").exists());
    // A session's own does.
    fs::write(root.join("own"), "[core]\n\tpager = x\n").unwrap();
    let said = swept(&root);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(root.join("x/.git/config.agentcontainer").exists());
    for there in ["agentcontainer.json", "own", "l/dir", "l/file"] {
        assert!(root.join(there).exists(), "{there}");
    }
    let mut names: Vec<_> = fs::read_dir(outside.path()).unwrap().collect();
    assert_eq!(names.drain(..).count(), 2);
}

#[test]
fn a_link_on_the_way_to_what_was_not_there_is_put_aside_in_its_stead() {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("_")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap();
    std::os::unix::fs::symlink(outside.path(), root.join(".husky")).unwrap();
    fs::create_dir(root.join("made")).unwrap();
    let absent = [".husky/_", "made", "none"].map(|name| root.join(name));
    let mut merged = Merged::default();
    put_absent_aside(&[&root], &absent, &mut merged).unwrap();
    assert_eq!(merged.left_out.len(), 2);
    assert!(outside.path().join("_").exists());
    assert!(root.join(".husky.agentcontainer").is_symlink());
    assert!(root.join("made.agentcontainer").is_dir());
}
