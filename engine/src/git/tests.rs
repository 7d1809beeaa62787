#![allow(clippy::unwrap_used)]
use super::*;

struct Place {
    _dir: tempfile::TempDir,
    workspace: PathBuf,
    session: PathBuf,
}

fn place(config: Option<&str>) -> Place {
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("ws");
    let session = dir.path().join("session");
    fs::create_dir_all(workspace.join(".git")).unwrap();
    fs::create_dir_all(&session).unwrap();
    if let Some(config) = config {
        fs::write(workspace.join(".git/config"), config).unwrap();
    }
    Place {
        _dir: dir,
        workspace,
        session,
    }
}

fn seen(at: &Place) -> Seen {
    look::through(&at.workspace, look::MAX_ENTRIES)
}

fn targets(git: &Git) -> Vec<(String, bool)> {
    git.mounts
        .iter()
        .map(|m| match m {
            Mount::Control {
                target, read_only, ..
            }
            | Mount::Session {
                target, read_only, ..
            } => (target.clone(), *read_only),
            _ => unreachable!(),
        })
        .collect()
}

#[test]
fn git_is_a_mount_of_its_own_with_hooks_read_only_and_config_a_copy() {
    let at = place(Some("[core]\n\tbare = false\n"));
    let git = prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    assert_eq!(
        targets(&git),
        [
            ("/w/.git", false),
            ("/w/.git/hooks", true),
            ("/w/.git/config", true),
            ("/w/.git/config.worktree", true),
            ("/.agentcontainer-git", false),
            ("/w/.git/commondir", true),
        ]
        .map(|(t, r)| (t.to_owned(), r))
    );
    assert!(at.workspace.join(".git/hooks").is_dir());
    assert_eq!(
        finish(&at.workspace, &at.session, Others::NOBODY).unwrap(),
        Merged::default()
    );
    assert!(!at.workspace.join(".git/commondir").exists());
    assert_eq!(
        fs::read_to_string(at.workspace.join(".git/config")).unwrap(),
        "[core]\n\tbare = false\n"
    );
}

#[test]
fn what_the_configuration_makes_git_run_is_read_only_too() {
    let at = place(Some(
        "[core]\n\thooksPath = .husky\n[include]\n\tpath = ../.gitconfig\n\tpath = ~/x\n[extensions]\n\tworktreeConfig = true\n",
    ));
    fs::create_dir(at.workspace.join(".husky")).unwrap();
    fs::write(at.workspace.join(".gitconfig"), "").unwrap();
    fs::create_dir(at.workspace.join(".git/modules")).unwrap();
    let git = prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    for target in [
        "/w/.husky",
        "/w/.gitconfig",
        "/w/.git/modules",
        "/w/.git/config.worktree",
    ] {
        assert!(
            targets(&git).contains(&(target.to_owned(), true)),
            "{target}"
        );
    }
}

#[test]
fn links_are_refused_and_worktrees_are_bound_as_they_are() {
    for name in [".git", ".git/hooks", ".git/config", ".git/commondir"] {
        let at = place(None);
        if name == ".git" {
            fs::remove_dir(at.workspace.join(".git")).unwrap();
        }
        std::os::unix::fs::symlink("/tmp", at.workspace.join(name)).unwrap();
        assert!(
            matches!(
                prepare(
                    &at.workspace,
                    &Repository::of(&at.workspace),
                    "/w",
                    &at.session,
                    (0, 0),
                    &[".envrc"],
                    &seen(&at),
                    Doing::Write
                ),
                Err(EngineError::GitSymlink(_))
            ),
            "{name}"
        );
    }
    let at = place(None);
    fs::remove_dir(at.workspace.join(".git")).unwrap();
    fs::write(at.workspace.join(".git"), "gitdir: /elsewhere").unwrap();
    let git = prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    assert_eq!(targets(&git), [("/w/.git".to_owned(), true)]);
    assert_eq!(git.notes.len(), 1);
    assert_eq!(
        finish(&at.workspace, &at.session, Others::NOBODY).unwrap(),
        Merged::default()
    );
}

#[test]
fn harmless_keys_come_back_and_the_others_are_named() {
    let at = place(Some(
        "[core]\n\tbare = false\n[remote \"origin\"]\n\turl = https://git.test/a.git\n",
    ));
    prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    fs::write(
        common::config(&at.session),
        "[core]\n\tbare = false\n\tfsmonitor = ./evil\n[remote \"origin\"]\n\turl = https://git.test/a.git\n[branch \"topic\"]\n\tremote = origin\n\tmerge = refs/heads/topic\n",
    )
    .unwrap();
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!(
        merged.applied,
        [
            "branch.topic.remote = origin",
            "branch.topic.merge = refs/heads/topic"
        ]
    );
    assert_eq!(merged.left_out, ["core.fsmonitor = ./evil"]);
    let text = fs::read_to_string(at.workspace.join(".git/config")).unwrap();
    assert!(!text.contains("evil") && text.contains("[branch \"topic\"]"));
    assert!(!at.workspace.join(".git/config.lock").exists());
}

#[test]
fn another_session_keeps_its_place_holder_and_a_large_config_is_refused() {
    let at = place(Some(""));
    prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    finish(
        &at.workspace,
        &at.session,
        Others {
            workspace: true,
            repository: true,
        },
    )
    .unwrap();
    assert!(at.workspace.join(".git/commondir").exists());
    let config = |n: u64| {
        let at = place(None);
        fs::write(at.workspace.join(".git/config"), vec![b'\n'; n as usize]).unwrap();
        prepare(
            &at.workspace,
            &Repository::of(&at.workspace),
            "/w",
            &at.session,
            (0, 0),
            &[".envrc"],
            &seen(&at),
            Doing::Write,
        )
        .map(|_| ())
    };
    assert!(config(MAX_CONFIG).is_ok());
    assert!(config(MAX_CONFIG + 1).is_err());
}

fn prepared(config: &str) -> Place {
    let at = place(Some(config));
    prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    at
}

#[test]
fn what_the_container_puts_in_the_way_does_not_keep_the_session_from_ending() {
    let at = prepared("[core]\n\tbare = false\n");
    fs::write(
        common::config(&at.session),
        "[branch \"b\"]\n\tmerge = refs/heads/b\n",
    )
    .unwrap();
    fs::create_dir(at.workspace.join(".git/config.lock")).unwrap();
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!((merged.applied.len(), merged.left_out.len()), (0, 1));

    let at = prepared("[core]\n\tbare = false\n");
    let copy = common::config(&at.session);
    fs::remove_file(&copy).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &copy).unwrap();
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!(merged.left_out.len(), 1);
    assert_eq!(
        fs::read_to_string(at.workspace.join(".git/config")).unwrap(),
        "[core]\n\tbare = false\n"
    );
}

#[test]
fn a_config_that_was_replaced_meanwhile_keeps_only_what_can_do_no_harm() {
    let base = "[remote \"origin\"]\n\turl = https://git.test/a.git\n";
    let at = prepared(base);
    let config = at.workspace.join(".git/config");
    // As git does, and then as the container could.
    let text = format!("{base}[branch \"b\"]\n\tremote = origin\n[core]\n\tfsmonitor = ./evil\n");
    fs::write(at.workspace.join(".git/config.lock"), &text).unwrap();
    fs::rename(at.workspace.join(".git/config.lock"), &config).unwrap();
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!(merged.applied, ["branch.b.remote = origin"]);
    assert!(
        merged
            .left_out
            .contains(&"core.fsmonitor = ./evil".to_owned())
    );
    let now = fs::read_to_string(&config).unwrap();
    assert!(now.starts_with(base) && !now.contains("evil") && now.contains("[branch \"b\"]"));
    assert_eq!(
        fs::read_to_string(at.workspace.join(".git/config.agentcontainer")).unwrap(),
        text
    );
}

#[test]
fn what_the_configuration_names_and_was_not_there_is_put_aside() {
    let at = prepared("[core]\n\thooksPath = .husky\n[include]\n\tpath = more\n");
    fs::create_dir(at.workspace.join(".husky")).unwrap();
    fs::write(at.workspace.join(".git/more"), "").unwrap();
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!(merged.left_out.len(), 2);
    assert!(!at.workspace.join(".git/config.worktree").exists());
    for name in [".husky", ".git/more"] {
        assert!(!at.workspace.join(name).exists(), "{name}");
        assert!(at.workspace.join(format!("{name}.agentcontainer")).exists());
    }
}

#[test]
fn a_workspace_without_repository_tells_git_what_is_only_a_mask() {
    let at = place(None);
    fs::remove_dir(at.workspace.join(".git")).unwrap();
    let git = prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        "/w",
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    let Some(Mount::Session {
        source,
        target,
        read_only: true,
    }) = git.mounts.first()
    else {
        panic!("{git:?}");
    };
    assert_eq!(git.excludes, Some(target.as_str()));
    assert!(fs::read_to_string(source).unwrap().contains("/.envrc\n"));
}

#[test]
fn git_itself_works_with_the_directory_that_it_is_led_to() {
    let at = place(None);
    let target = at.workspace.display().to_string();
    let git = |words: &str| {
        let out = std::process::Command::new("sh")
            .args(["-ec", words])
            .current_dir(&at.workspace)
            .env("HOME", &at.session)
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{words}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap()
    };
    git(
        "rmdir .git; git init -q -b main . && echo 1 >f && git add f && git -c user.name=t -c user.email=t@t commit -qm first && git pack-refs --all",
    );
    prepare(
        &at.workspace,
        &Repository::of(&at.workspace),
        &target,
        &at.session,
        (0, 0),
        &[".envrc"],
        &seen(&at),
        Doing::Write,
    )
    .unwrap();
    // In place of the mount.
    let directory = at.session.join("git");
    fs::write(
        at.workspace.join(".git/commondir"),
        directory.display().to_string(),
    )
    .unwrap();
    fs::write(at.workspace.join(".envrc"), "").unwrap();
    git(
        "git config user.name me && git config user.email me@me && git remote add fork https://git.test/b.git",
    );
    git(
        "git checkout -q -b topic && echo 2 >>f && git commit -qam second && git branch -D main && git pack-refs --all && git fsck && git gc -q",
    );
    assert_eq!(git("git status --porcelain"), "");
    fs::write(at.workspace.join(".git/commondir"), COMMONDIR).unwrap();
    assert_eq!(git("git log --format=%s"), "second\nfirst\n");
    let merged = finish(&at.workspace, &at.session, Others::NOBODY).unwrap();
    assert_eq!(
        merged.applied[0],
        "remote.fork.url = https://git.test/b.git"
    );
    assert_eq!(
        git("git remote; git branch --format='%(refname:short)'; git status --porcelain"),
        "fork\ntopic\n?? .envrc\n"
    );
}

/// Two sessions of one workspace: what happens between their starts, and what lies there when both have ended.
fn overlapping(at: &Place, meanwhile: impl FnOnce(&Path)) -> Merged {
    let second = at.session.with_file_name("second");
    fs::create_dir(&second).unwrap();
    for (session, then) in [(&at.session, Some(meanwhile)), (&second, None)] {
        prepare(
            &at.workspace,
            &Repository::of(&at.workspace),
            "/w",
            session,
            (0, 0),
            &[],
            &seen(at),
            Doing::Write,
        )
        .unwrap();
        if let Some(then) = then {
            then(&at.workspace);
        }
    }
    finish(
        &at.workspace,
        &at.session,
        Others {
            workspace: true,
            repository: true,
        },
    )
    .unwrap();
    finish(&at.workspace, &second, Others::NOBODY).unwrap()
}

#[test]
fn the_last_of_overlapping_sessions_looks_for_what_the_first_one_left() {
    let at = place(Some(""));
    let sub = at.workspace.join("sub/.git");
    fs::create_dir_all(sub.join("objects")).unwrap();
    fs::create_dir(sub.join("hooks")).unwrap();
    fs::write(sub.join("HEAD"), "").unwrap();
    let merged = overlapping(&at, |_| {
        use std::os::unix::fs::PermissionsExt;
        let hook = sub.join("hooks/pre-commit");
        fs::write(&hook, "").unwrap();
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    });
    assert_eq!(merged.elsewhere.said.len(), 1);
    assert!(!sub.join("hooks/pre-commit").exists());
    // And nothing is remembered of a workspace that has no session.
    assert!(Before::load(&at.workspace, &at.session).unwrap().is_none());
}

#[test]
fn what_the_first_of_overlapping_sessions_wrote_is_not_the_seconds_configuration() {
    let base = "[remote \"origin\"]\n\turl = https://git.test/a.git\n";
    let at = place(Some(base));
    let config = at.workspace.join(".git/config");
    overlapping(&at, |_| {
        // The host replaced the file, and then the session could write it.
        fs::write(
            at.workspace.join(".git/new"),
            format!("{base}[core]\n\tfsmonitor = ./evil\n"),
        )
        .unwrap();
        fs::rename(at.workspace.join(".git/new"), &config).unwrap();
    });
    assert_eq!(fs::read_to_string(&config).unwrap(), base);

    let at = place(None);
    fs::remove_dir(at.workspace.join(".git")).unwrap();
    overlapping(&at, |workspace| {
        for name in ["objects", "refs"] {
            fs::create_dir_all(workspace.join(".git").join(name)).unwrap();
        }
        fs::write(workspace.join(".git/HEAD"), "").unwrap();
        fs::write(
            workspace.join(".git/config"),
            "[core]\n\tfsmonitor = ./evil\n",
        )
        .unwrap();
    });
    let text = fs::read_to_string(at.workspace.join(".git/config")).unwrap();
    assert!(!text.contains("evil"));
    assert!(!at.workspace.join(".git/commondir").exists());
}
