//! The engine killed, one of the test's own: what runs goes on under the same gate, and what is left is cleaned up once there is
//! an engine again.

use std::time::{Duration, Instant};

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::own_engine::{Cgroups, OwnEngine, SMALL, listed};
use agentcontainer_tests::place::token;
use agentcontainer_tests::rig;
use serde_json::json;

use super::Scene;
use super::points::{POINTS, begin, cgroup, nothing_left, until};

fn scene(engine: &OwnEngine) -> Scene {
    let workspace = Workspace::new()
        .on_engine(&engine.host())
        .key("image", json!(SMALL));
    Scene::in_workspace(workspace)
}

#[test]
fn an_engine_killed_at_any_point_of_a_start_lets_nothing_through() {
    let mut engine = OwnEngine::start(Cgroups::V2);
    engine.import_small();
    for (point, reached) in POINTS {
        let (scene, name) = (scene(&engine), token("en"));
        scene.workspace.write();
        scene.enforcer_is_back();
        let child = begin(&scene, &name);
        until(reached, &scene, &name);
        engine.kill();
        let out = outcome::wait(child, "run", DEADLINE);
        assert!(
            !out.stdout.contains("answer raw"),
            "{point}: {}",
            out.stdout
        );
        scene.denied.silent();
        engine.start_again();
        scene.enforcer_is_back();
        nothing_left(&scene, point, &name);
        scene.denied.silent();
        scene.workspace.cli(&["enforcer", "stop"]).status(0);
    }
}

#[test]
fn an_engine_killed_under_load_leaves_the_gate_as_it_was() {
    let mut engine = OwnEngine::start(Cgroups::V2);
    engine.import_small();
    let (scene, name) = (scene(&engine), token("en"));
    scene.workspace.write();
    scene.enforcer_is_back();
    let dial = |to: &str, port: u16, word: &str| {
        format!(
            "timeout 5 bash -c 'exec 3<>/dev/tcp/{to}/{port} && echo {word} >&3 && read -t 3 -u 3 x'"
        )
    };
    let script = format!(
        "while :; do {}; {}; {}; sleep 0.05; done",
        dial(&rig().bridge.to_string(), scene.denied.port(), "raw"),
        dial(&scene.host, scene.denied.port(), "port"),
        dial(&scene.host, scene.allowed.port(), "name")
    );
    let run = ["run", "--yes", "--detach", "--name", &name, "--"];
    scene
        .workspace
        .cli(&[&run[..], &["sh", "-c", &script]].concat())
        .status(0);
    assert!(heard_more(&scene, 0), "the session reaches what it may");
    engine.kill();
    // Nobody watches it now, and it is still held: what is allowed is reached, and nothing else.
    let heard = scene.allowed.heard().len();
    assert!(heard_more(&scene, heard), "the session goes on");
    scene.denied.silent();
    engine.start_again();
    scene.denied.silent();
    scene.enforcer_is_back();
    nothing_left(&scene, "under load", &name);
    assert!(!listed(
        &engine.host(),
        "dev.agentcontainer.session",
        &["--all"]
    ));
    scene.denied.silent();

    // One in the foreground ends with its CLI, which ends with the engine: the enforcer is asked without it.
    let name = token("en");
    let child = scene
        .workspace
        .spawn(&["run", "--yes", "--name", &name, "--", "sh", "-c", &script]);
    let heard = scene.allowed.heard().len();
    assert!(heard_more(&scene, heard), "the session reaches what it may");
    engine.kill();
    outcome::wait(child, "run", DEADLINE).status(125);
    assert!(cgroup(&scene, &name).is_some_and(|cgroup| !cgroup.exists()));
    engine.start_again();
    scene.enforcer_is_back();
    nothing_left(&scene, "in the foreground", &name);
    scene.denied.silent();
}

/// Whether the allowed receiver hears something beyond what it had heard.
fn heard_more(scene: &Scene, than: usize) -> bool {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(30) {
        if scene.allowed.heard().len() > than + 1 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}
