//! Each part killed at six points of a start: whatever came of the start, nothing got through that policy did not allow, and
//! nothing is left.

use std::path::Path;
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::own_engine::listed;
use agentcontainer_tests::place::token;
use agentcontainer_tests::{docker, rig};

use super::{Scene, processes, sidecar};

/// Whether the start of the session of that name has come so far, on that engine.
type Reached = fn(&str, &str) -> bool;

/// How far a start has come, as it shows from outside.
pub const POINTS: [(&str, Reached); 6] = [
    ("the cgroup is there", |_, _| cgroups() > 0),
    ("the container is made", |host, name| {
        listed(host, name, &["--all"])
    }),
    ("the container runs", runs),
    ("the container has run for a moment", |host, name| {
        runs(host, name) && pause(50)
    }),
    ("the program runs", |host, name| {
        runs(host, name) && pause(400)
    }),
    ("the container is gone again", |host, name| {
        pause(900) && !runs(host, name)
    }),
];

fn runs(host: &str, name: &str) -> bool {
    listed(host, name, &["--filter", "status=running"])
}

fn pause(milliseconds: u64) -> bool {
    std::thread::sleep(Duration::from_millis(milliseconds));
    true
}

/// How many sessions have a cgroup.
pub fn cgroups() -> usize {
    let mounted = [
        "/sys/fs/cgroup/agentcontainer",
        "/sys/fs/cgroup/unified/agentcontainer",
    ];
    mounted
        .iter()
        .filter_map(|path| std::fs::read_dir(Path::new(path)).ok())
        .flatten()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .count()
}

/// A start in which the program dials what it may and what it may not.
pub fn begin(scene: &Scene, name: &str) -> std::process::Child {
    let dial = |to: &str, port: u16, word: &str| {
        format!(
            "timeout 5 bash -c 'exec 3<>/dev/tcp/{to}/{port} && echo {word} >&3 && read -t 3 -u 3 x && echo answer $x';"
        )
    };
    let script = format!(
        "{} {} sleep 1",
        dial(&rig().bridge.to_string(), scene.denied.port(), "raw"),
        dial(&scene.host, scene.allowed.port(), "name")
    );
    scene
        .workspace
        .spawn(&["run", "--yes", "--name", name, "--", "sh", "-c", &script])
}

/// Waits until the start is so far, or it is too late for it.
pub fn until(reached: Reached, host: &str, name: &str) {
    let began = Instant::now();
    while !reached(host, name) && began.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing of that session is left once it was ended by name and swept up.
pub fn nothing_left(scene: &Scene, point: &str, name: &str, before: usize) {
    scene.workspace.cli(&["stop", name]);
    scene.workspace.cli(&["gc"]).status(0);
    assert!(
        !listed(scene.workspace.engine(), name, &["--all"]),
        "{point}: the container is left behind"
    );
    assert!(
        !scene.workspace.cli(&["ps", "--json"]).ok().contains(name),
        "{point}: the session is left behind"
    );
    assert_eq!(cgroups(), before, "{point}: the cgroup is left behind");
}

/// Has `kill` done, with the process id of the CLI, at each point of a start of its own.
fn killed_at_every_point(kill: impl Fn(u32)) {
    for (point, reached) in POINTS {
        let (scene, name) = (Scene::new(), token("p"));
        scene.workspace.write();
        scene.enforcer_is_back();
        let before = cgroups();
        let child = begin(&scene, &name);
        until(reached, scene.workspace.engine(), &name);
        kill(child.id());
        let out = outcome::wait(child, "run", DEADLINE);
        assert!(
            !out.stdout.contains("answer raw"),
            "{point}: {}",
            out.stdout
        );
        scene.denied.silent();
        scene.enforcer_is_back();
        nothing_left(&scene, point, &name, before);
        scene.denied.silent();
    }
}

fn kill_all(processes: Vec<u32>) {
    processes
        .into_iter()
        .for_each(|pid| signal(pid, "-KILL", false));
}

#[test]
fn a_sidecar_killed_at_any_point_of_a_start_lets_nothing_through() {
    killed_at_every_point(|_| {
        docker::attempt(&["kill", &sidecar()]);
    });
}

#[test]
fn an_enforcer_killed_at_any_point_of_a_start_lets_nothing_through() {
    killed_at_every_point(|_| kill_all(processes("agentcontainer-enforcer")));
}

#[test]
fn a_gateway_killed_at_any_point_of_a_start_lets_nothing_through() {
    // At some of them there is none yet, or none any more.
    killed_at_every_point(|_| kill_all(processes("agentcontainer-gateway")));
}

#[test]
fn a_cli_killed_at_any_point_of_a_start_lets_nothing_through() {
    killed_at_every_point(|cli| {
        signal(cli, "-KILL", false);
        // What it had asked the engine for may still be done.
        std::thread::sleep(Duration::from_millis(500));
    });
}
