//! Limits on memory, processes and processor time, for the program and for `exec`: held by the kernel where its controllers are in
//! cgroup v2 (`cargo xtask vm`), said where the engine cannot hold them.

use std::fs;

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::Outcome;
use agentcontainer_tests::place::token;
use serde_json::{Value, json};

fn workspace(resources: Value) -> Workspace {
    Workspace::new().key(
        "agent",
        json!({ "capabilities": { "resources": resources } }),
    )
}

/// Whether this machine's kernel limits anything of a container's here.
fn limits() -> bool {
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name| controllers.split_whitespace().any(|one| one == name);
    has("memory") && has("pids") && has("cpu")
}

/// Where nothing is held, that is said of each limit; the engine itself refuses the last.
fn said() {
    let out = workspace(json!({ "memory": "96m", "pids": 60 })).run(&["true"]);
    out.status(0);
    for limit in ["memory", "pids"] {
        assert!(out.stderr.to_lowercase().contains(limit), "{}", out.stderr);
    }
    let out = workspace(json!({ "cpus": 0.5 })).run(&["true"]);
    assert!(out.stderr.to_lowercase().contains("cpu"), "{}", out.stderr);
}

/// How many processes there can be beside the one that makes them, up to two hundred.
const PROCESSES: &str = r#"
import os, signal
made = []
try:
    while len(made) < 200:
        child = os.fork()
        if child == 0:
            signal.pause()
        made.append(child)
except BlockingIOError:
    pass
for child in made:
    os.kill(child, signal.SIGKILL)
print(len(made))
"#;

/// Writes to 200 MiB.
const MEMORY: &str = "held = bytearray(b'x') * (200 << 20); print(len(held) >> 20)";

/// The processors' time that two busy processes get of two seconds, in hundredths of one processor's.
const TIME: &str = r#"
import os, time
began = time.monotonic()
for _ in range(2):
    if os.fork() == 0:
        while time.monotonic() < began + 2: pass
        os._exit(0)
for _ in range(2):
    os.wait()
spent = os.times()
print(int(100 * (spent.children_user + spent.children_system) / (time.monotonic() - began)))
"#;

fn number(out: &Outcome) -> u32 {
    out.status(0);
    out.stdout.trim().parse().unwrap()
}

#[test]
fn what_a_session_may_use_is_bounded_for_its_program_and_for_exec() {
    let small = workspace(json!({ "memory": "96m", "cpus": 0.5, "pids": 60 }));
    let large = workspace(json!({ "memory": "400m", "pids": 300 }));
    let python = |script| ["python3", "-c", script];
    if !limits() {
        said();
        return;
    }
    let (name, other) = (token("small"), token("large"));
    let (session, roomy) = (small.session(&name), large.session(&other));

    for of in [
        roomy.exec(&python(PROCESSES)),
        large.run(&python(PROCESSES)),
    ] {
        assert_eq!(number(&of), 200);
    }
    for of in [
        session.exec(&python(PROCESSES)),
        small.run(&python(PROCESSES)),
    ] {
        assert!((20..60).contains(&number(&of)), "{}", of.stdout);
    }

    for of in [roomy.exec(&python(MEMORY)), large.run(&python(MEMORY))] {
        assert_eq!(number(&of), 200);
    }
    for of in [session.exec(&python(MEMORY)), small.run(&python(MEMORY))] {
        // Killed by the kernel, with the signal that cannot be caught.
        of.status(137);
    }
    // The session is there as before.
    session.exec(&["true"]).status(0);

    let time = number(&roomy.exec(&python(TIME)));
    let bounded = number(&session.exec(&python(TIME)));
    assert!(bounded <= 65, "{bounded} hundredths of a processor");
    assert!(time > bounded + 20, "{time} and {bounded} hundredths");
}
