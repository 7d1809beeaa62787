//! What goes on around a container: cgroups below its own, a container paused and restarted, a machine without a moment to spare.

use std::path::{Path, PathBuf};

use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, docker};

use crate::host::{cgroup2, wait_for};
use crate::singly::{container, dial, record};

/// The cgroup of a container's first process.
fn cgroup(container: &str) -> PathBuf {
    let pid = docker::run(&["inspect", "--format", "{{.State.Pid}}", container]);
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::"));
    cgroup2().join(path.unwrap().trim_start_matches('/'))
}

/// A cgroup below another; removed with this value.
struct Below(PathBuf);

impl Below {
    fn make(cgroup: &Path) -> Self {
        let path = cgroup.join("below");
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Below {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn c06_a_cgroup_below_the_sessions_is_held_by_it() {
    let receiver = Receiver::start();
    // A process inside that waits until it has been moved, by whoever may, and then dials.
    let moved = |id: &str, word: &str| {
        let below = Below::make(&cgroup(id));
        let script = format!(
            "until [ -e /tmp/go ]; do sleep 0.05; done; {}; echo tried",
            dial(&receiver, word)
        );
        let marked = format!(": {word}-marker; {script}");
        let out = std::thread::scope(|scope| {
            let run = scope
                .spawn(|| docker::attempt(&["exec", "--user", "0", id, "bash", "-c", &marked]));
            let pid = wait_for(|| {
                let procs =
                    std::fs::read_to_string(below.0.parent().unwrap().join("cgroup.procs")).ok()?;
                procs.lines().map(str::to_owned).find(|pid| {
                    std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
                        .is_ok_and(|line| line.contains(&format!("{word}-marker")))
                })
            });
            std::fs::write(below.0.join("cgroup.procs"), pid).unwrap();
            docker::run(&["exec", "--user", "0", id, "touch", "/tmp/go"]);
            run.join().unwrap()
        });
        assert!(out.ok().ends_with("tried"), "{}", out.stderr);
    };
    let plain = docker::Plain::start(&[], &["sleep", "300"]);
    moved(&plain.id, "control");
    assert!(receiver.hears(b"control"), "the control does not work");
    let (workspace, name) = (Workspace::new(), token("c6"));
    let _session = workspace.session(&name);
    moved(&container(&name), "governed");
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert!(!receiver.heard_bytes(b"governed"));
    record(
        "C06",
        "a process moved into a cgroup below the container's",
        "works",
        "gate: inherited",
    );
}

#[test]
fn k04_a_container_that_is_paused_or_restarted_is_held_as_before() {
    let (allowed, denied) = (Receiver::start(), Receiver::start());
    let (host, name) = (format!("{}.test", token("k4")), token("k4"));
    let script = |raw: &str| format!("{raw}; echo ran >>runs; while :; do {raw}; sleep 0.2; done");
    let plain = docker::Plain::start(&[], &["sleep", "300"]);
    docker::attempt(&["exec", &plain.id, "sh", "-c", &dial(&denied, "control")]);
    assert!(denied.hears(b"control"), "the control does not work");
    let workspace = Workspace::new().allow(&[&format!("{host}:{}", allowed.port())]);
    workspace.write();
    let both = format!(
        "{}; timeout 5 bash -c 'exec 3<>/dev/tcp/{host}/{} && echo by-name >&3 && read -t 2 -u 3 x'",
        dial(&denied, "governed"),
        allowed.port()
    );
    let command = script(&both);
    let words = [
        "run", "--yes", "--detach", "--name", &name, "--", "sh", "-c", &command,
    ];
    workspace.cli(&words).status(0);
    let id = container(&name);
    let runs = || {
        std::fs::read_to_string(workspace.path().join("runs"))
            .unwrap_or_default()
            .lines()
            .count()
    };
    let reaches = || {
        let before = allowed.heard().len();
        wait_for(|| (allowed.heard().len() > before).then_some(()));
    };
    reaches();
    docker::run(&["pause", &id]);
    docker::run(&["unpause", &id]);
    reaches();
    docker::run(&["update", "--cpu-shares", "512", &id]);
    reaches();
    let before = runs();
    docker::run(&["restart", "--time", "0", &id]);
    wait_for(|| (runs() > before).then_some(()));
    reaches();
    workspace.cli(&["stop", &name]).status(0);
    assert!(!denied.heard_bytes(b"governed"));
    record(
        "K04",
        "pause, unpause, update and restart by the engine",
        "works; what is allowed is reached after each",
        "gate; init: a challenge at each start",
    );
}

#[test]
fn k02_an_agent_that_takes_the_machine_cannot_take_the_enforcer_with_it() {
    let (allowed, denied) = (Receiver::start(), Receiver::start());
    let (host, name) = (format!("{}.test", token("k2")), token("k2"));
    let plain = docker::Plain::start(&[], &["sleep", "300"]);
    docker::attempt(&["exec", &plain.id, "sh", "-c", &dial(&denied, "control")]);
    assert!(denied.hears(b"control"), "the control does not work");
    let workspace = Workspace::new().allow(&[&format!("{host}:{}", allowed.port())]);
    let session = workspace.session(&name);
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let (ours, theirs) = (cgroup(&sidecar), cgroup(&container(&name)));
    let parent = theirs.parent().unwrap();
    assert!(
        !ours.starts_with(parent),
        "limits of the session would be the enforcer's"
    );
    // Processes without number is what the engine's limits are for; a moment of more than there are cores is tried here.
    let out = session.inside(&format!(
        "for i in 1 2 3 4 5 6 7 8; do timeout 3 sh -c 'while :; do :; done' & done
         timeout 20 bash -c 'exec 3<>/dev/tcp/{host}/{} && echo busy >&3 && read -t 15 -u 3 x && echo answer $x'
         {}; wait",
        allowed.port(),
        dial(&denied, "governed"),
    ));
    assert!(
        out.stdout.contains("answer busy"),
        "{}\n{}",
        out.stdout,
        out.stderr
    );
    assert!(!denied.heard_bytes(b"governed"));
    record(
        "K02",
        "no processor left for the enforcer",
        "works; what is allowed is answered",
        "gate; a cgroup of its own",
    );
}
