//! Each part killed at six points of a start: whatever came of the start, nothing got through that policy did not allow, and
//! nothing is left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::own_engine::listed;
use agentcontainer_tests::place::token;
use agentcontainer_tests::{docker, rig};

use super::{Scene, processes, sidecar};

/// Whether the start of the session of that name has come so far.
type Reached = fn(&Scene, &str) -> bool;

/// How far a start has come, as it shows from outside.
pub const POINTS: [(&str, Reached); 6] = [
    ("the cgroup is there", |scene, name| {
        cgroup(scene, name).is_some_and(|cgroup| cgroup.exists())
    }),
    ("the container is made", |scene, name| {
        listed(scene.workspace.engine(), name, &["--all"])
    }),
    ("the container runs", runs),
    ("the container has run for a moment", |scene, name| {
        runs(scene, name) && pause(50)
    }),
    ("the program runs", |scene, name| {
        runs(scene, name) && pause(400)
    }),
    ("the container is gone again", |scene, name| {
        pause(900) && !runs(scene, name)
    }),
];

fn runs(scene: &Scene, name: &str) -> bool {
    listed(
        scene.workspace.engine(),
        name,
        &["--filter", "status=running"],
    )
}

fn pause(milliseconds: u64) -> bool {
    std::thread::sleep(Duration::from_millis(milliseconds));
    true
}

/// Where the cgroup of the session of that name is, once the session is on record.
pub fn cgroup(scene: &Scene, name: &str) -> Option<PathBuf> {
    let sessions = scene.workspace.state().join("agentcontainer/sessions");
    let said = format!("{name:?}");
    let session = std::fs::read_dir(sessions)
        .ok()?
        .flatten()
        .find(|session| {
            std::fs::read_to_string(session.path().join("session.json"))
                .is_ok_and(|record| record.contains(&said))
        })?;
    let mount = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .into_iter()
        .find(|mount| Path::new(mount).join("cgroup.procs").exists())?;
    Some(
        Path::new(mount)
            .join("agentcontainer")
            .join(session.file_name()),
    )
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

/// Waits until the start is so far; a start that never comes so far asks nothing.
pub fn until(reached: Reached, scene: &Scene, name: &str) {
    let began = Instant::now();
    while !reached(scene, name) {
        assert!(began.elapsed() < DEADLINE, "the start does not come so far");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Nothing of that session is left once it was ended by name and swept up.
pub fn nothing_left(scene: &Scene, point: &str, name: &str) {
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
    assert!(
        cgroup(scene, name).is_none_or(|cgroup| !cgroup.exists()),
        "{point}: the cgroup is left behind"
    );
}

/// Has `kill` done, with the process id of the CLI, at each point of a start of its own.
fn killed_at_every_point(kill: impl Fn(u32)) {
    for (point, reached) in POINTS {
        let (scene, name) = (Scene::new(), token("p"));
        scene.workspace.write();
        scene.enforcer_is_back();
        let child = begin(&scene, &name);
        until(reached, &scene, &name);
        kill(child.id());
        let out = outcome::wait(child, "run", DEADLINE);
        assert!(
            !out.stdout.contains("answer raw"),
            "{point}: {}",
            out.stdout
        );
        scene.denied.silent();
        scene.enforcer_is_back();
        nothing_left(&scene, point, &name);
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
