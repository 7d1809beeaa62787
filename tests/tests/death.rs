//! Parts killed at bad moments: the receiver never hears what policy did not allow, and what can resume does.
#![allow(clippy::unwrap_used)]

#[path = "death/asked.rs"]
mod asked;
#[path = "death/engine.rs"]
mod engine;
#[path = "death/points.rs"]
mod points;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use agentcontainer_tests::attempt::Line;
use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Workspace, docker, rig};

/// A workspace that may reach one receiver by name, and another that it may not.
struct Scene {
    workspace: Workspace,
    host: String,
    allowed: Receiver,
    denied: Receiver,
}

impl Scene {
    fn new() -> Self {
        Self::in_workspace(Workspace::new())
    }

    fn in_workspace(workspace: Workspace) -> Self {
        let (host, allowed, denied) = (
            format!("{}.test", token("k")),
            Receiver::start(),
            Receiver::start(),
        );
        let workspace = workspace.allow(&[&format!("{host}:{}", allowed.port())]);
        workspace.put("dial.py", include_str!("../probe/dial.py"));
        workspace.put("hammer.py", HAMMER);
        Self {
            workspace,
            host,
            allowed,
            denied,
        }
    }

    /// Dials both, over and over, until the file `stop` appears, and says how often each answered.
    fn hammer(&self) -> Vec<String> {
        let numbers = [self.allowed.port(), self.denied.port()].map(|port| port.to_string());
        [
            "python3",
            "hammer.py",
            &self.host,
            &numbers[0],
            &rig().bridge.to_string(),
            &numbers[1],
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn dial(&self, session: &Session<'_>, word: &str) -> String {
        let out = session.exec(&[
            "python3",
            "dial.py",
            "tcp",
            &self.host,
            &self.allowed.port().to_string(),
            word,
        ]);
        out.stdout.trim().to_owned()
    }

    /// Waits until the session reaches what it may again.
    #[track_caller]
    fn resumes(&self, session: &Session<'_>) {
        let began = Instant::now();
        loop {
            let said = self.dial(session, "resumed");
            if said == "answer resumed" {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the session does not resume: {said}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn enforcer_is_back(&self) {
        self.workspace.cli(&["enforcer", "start"]).status(0);
    }
}

const HAMMER: &str = "import os, socket, sys, threading
host, port, address, other = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
counts = {'allowed': 0, 'denied': 0, 'tries': 0}
def dial(name, target, to):
    while not os.path.exists('stop'):
        counts['tries'] += 1
        try:
            with socket.create_connection((target, to), 3) as it:
                it.sendall(name.encode())
                if it.recv(100): counts[name] += 1
        except OSError:
            pass
threads = [threading.Thread(target=dial, args=one) for one in (('allowed', host, port), ('denied', address, other), ('denied', host, other))]
open('up', 'w').close()
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print('allowed', counts['allowed'], 'denied', counts['denied'])
";

/// The sidecar of the enforcer that the tests share.
fn sidecar() -> String {
    let said = Workspace::new().cli(&["enforcer", "status", "--json"]);
    let said: serde_json::Value = serde_json::from_str(said.stdout.trim()).unwrap();
    said["container"].as_str().unwrap().to_owned()
}

/// Host pids of the processes of that name that the sidecar is or has started. (The engine's own list is of one cgroup; gateways have theirs.)
fn processes(name: &str) -> Vec<u32> {
    processes_of(&sidecar(), name)
}

fn processes_of(sidecar: &str, name: &str) -> Vec<u32> {
    let sidecar: u32 = docker::run(&["inspect", "--format", "{{.State.Pid}}", sidecar])
        .parse()
        .unwrap();
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let of_sidecar = |pid: u32| {
        std::iter::successors(Some(pid), |pid| parent(*pid))
            .take(8)
            .any(|pid| pid == sidecar)
    };
    let named = |pid: u32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split('\0')
                .next()
                .is_some_and(|first| first.contains(name))
        })
    };
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| of_sidecar(*pid) && named(*pid)).collect()
}

/// Kills every gateway of the sidecar, once there is one: the one before may have been killed a moment ago.
fn kill_gateways() {
    kill_gateways_of(&sidecar());
}

fn kill_gateways_of(sidecar: &str) {
    let began = Instant::now();
    loop {
        let gateways = processes_of(sidecar, "agentcontainer-gateway");
        if !gateways.is_empty() {
            gateways
                .into_iter()
                .for_each(|pid| signal(pid, "-KILL", false));
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no gateway comes back"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn record(id: &str, title: &str, control: &str, layer: &str) {
    let line = Line {
        id: id.into(),
        title: title.into(),
        control: control.into(),
        outcome: "stopped".into(),
        layer: layer.into(),
    };
    line.record();
}

/// Hammers from inside while something is killed `times` times.
fn under_load(scene: &Scene, session: &Session<'_>, times: usize, kill: impl Fn()) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let hammer = scope.spawn(|| {
            let words = scene.hammer();
            let out = session.exec(&words.iter().map(String::as_str).collect::<Vec<_>>());
            over.store(true, Ordering::Relaxed);
            out
        });
        let began = Instant::now();
        while !scene.workspace.path().join("up").exists() && !over.load(Ordering::Relaxed) {
            assert!(began.elapsed() < DEADLINE, "the hammer does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(700));
            kill();
        }
        scene.resumes(session);
        scene.workspace.put("stop", "");
        let out = hammer.join().unwrap();
        assert!(out.ok().ends_with("denied 0"), "{}", out.stdout);
    });
    scene.denied.silent();
    let _ = std::fs::remove_file(scene.workspace.path().join("up"));
    let _ = std::fs::remove_file(scene.workspace.path().join("stop"));
}

/// `"Max core file size"` → what the process may at most have of it.
fn bound(pid: u32, name: &str) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..]
        .split_whitespace()
        .nth(1)
        .unwrap()
        .to_owned()
}

#[test]
fn what_holds_values_leaves_no_core_and_a_gateway_takes_no_more_than_its_memory() {
    let scene = Scene::new();
    let session = scene.workspace.session(&token("m"));
    scene.resumes(&session);
    let (enforcers, gateways) = (
        processes("agentcontainer-enforcer"),
        processes("agentcontainer-gateway"),
    );
    assert!(!enforcers.is_empty() && !gateways.is_empty());
    for pid in enforcers.iter().chain(&gateways) {
        assert_eq!(bound(*pid, "Max core file size"), "0");
        // What is not dumpable is root's, whoever it runs as (proc_pid_mem(5)).
        let owner = std::fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    }
    for pid in gateways {
        assert_eq!(bound(pid, "Max data size"), (1u64 << 30).to_string());
        let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        assert_eq!(score.trim(), "500");
    }
}

#[test]
fn a_killed_gateway_is_replaced_and_lets_nothing_through() {
    let scene = Scene::new();
    let session = scene.workspace.session(&token("g"));
    scene.resumes(&session);
    under_load(&scene, &session, 5, kill_gateways);
}

#[test]
fn what_starts_once_a_gateway_was_replaced_trusts_the_next_one() {
    let (workspace, watched, left) = (Workspace::new(), token("w"), token("l"));
    workspace.write();
    // A name that nobody allowed: the gateway itself answers, and curl verifies it as it does any server.
    let script = "curl -s -o /dev/null -w '%{http_code}' --max-time 5 https://nobody.test/; cat /run/agentcontainer/trust/ca.pem";
    let ask = |name: &str| {
        workspace
            .cli(&["exec", name, "--", "sh", "-c", script])
            .stdout
    };
    let session = workspace.session(&watched);
    workspace
        .cli(&[
            "run", "--yes", "--detach", "--name", &left, "--", "sleep", "infinity",
        ])
        .status(0);
    for name in [&watched, &left] {
        let before = ask(name);
        assert!(before.starts_with("403---"), "{name}: {before}");
        kill_gateways();
        let began = Instant::now();
        loop {
            let after = ask(name);
            if after.starts_with("403---") && after != before {
                break;
            }
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{name}: the next gateway is not trusted: {after}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    workspace.cli(&["stop", &left]).status(0);
    drop(session);
}

/// Listens on every address at a port, then dials somebody else's address there, and counts how often it answered itself.
const THIEF: &str = "import socket, sys, threading, time
host, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
counts = {'stolen': 0, 'answered': 0, 'refused': 0}
a = socket.socket(); a.setsockopt(1, 2, 1); a.bind(('0.0.0.0', port)); a.listen(100)
def serve():
    while True:
        c, _ = a.accept(); c.send(b'STOLEN'); c.close()
threading.Thread(target=serve, daemon=True).start()
def look_up():
    for _ in range(50):
        try: return socket.gethostbyname(host)
        except OSError: time.sleep(0.2)
address = look_up()
end = time.time() + seconds
while time.time() < end:
    try:
        with socket.create_connection((address, port), 2) as it:
            it.sendall(b'x')
            said = it.recv(100)
            counts['stolen' if said == b'STOLEN' else 'answered' if said else 'refused'] += 1
    except OSError: counts['refused'] += 1
    time.sleep(0.002)
print(*(f'{k} {v}' for k, v in counts.items()))";

#[test]
fn x02_nobody_inside_stands_in_for_a_gateway_that_is_gone() {
    // Control: where such an address is local and nobody steers, the listener on every address gets what was for it.
    let plain = docker::Plain::start(&["--user", "0", "--cap-add", "NET_ADMIN"], &["sleep", "60"]);
    let script = "ip route add local 198.18.0.0/15 dev lo && python3 -c \"$1\" 198.18.1.1 7000 1";
    let out = docker::attempt(&["exec", &plain.id, "sh", "-c", script, "sh", THIEF]);
    assert!(!out.ok().starts_with("stolen 0 "), "{}", out.stdout);

    // A port for each thief: where somebody was answered before, it could not listen.
    let ports = [Receiver::start(), Receiver::start()];
    let scene = Scene::in_workspace(Workspace::new().with_own_state());
    let [first, second] = [0, 1].map(|n| format!("{}:{}", scene.host, ports[n].port()));
    let scene = Scene {
        workspace: scene.workspace.allow(&[&first, &second]),
        ..scene
    };
    let session = scene.workspace.session(&token("x2"));
    scene.resumes(&session);
    scene.workspace.put("steal.py", THIEF);
    let sidecar = scene.workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let steal = |receiver: &Receiver, seconds: &str, kill: &dyn Fn()| {
        let port = receiver.port().to_string();
        let words = ["python3", "steal.py", &scene.host, &port, seconds];
        std::thread::scope(|scope| {
            let thief = scope.spawn(|| session.exec(&words));
            kill();
            let said = thief.join().unwrap().ok().to_owned();
            assert!(said.starts_with("stolen 0 "), "{said}");
            said
        })
    };
    let said = steal(&ports[0], "5", &|| {
        for _ in 0..6 {
            std::thread::sleep(Duration::from_millis(600));
            kill_gateways_of(&sidecar);
        }
    });
    assert!(
        !said.contains("answered 0 "),
        "the gateway was never there: {said}"
    );
    // The whole sidecar: nobody holds the gateway's socket then, so that the map is empty, and what is pinned is taken up again.
    let said = steal(&ports[1], "14", &|| {
        for _ in 0..4 {
            std::thread::sleep(Duration::from_millis(1200));
            docker::run(&["kill", &sidecar]);
            std::thread::sleep(Duration::from_millis(400));
            scene.enforcer_is_back();
        }
    });
    assert!(
        !said.ends_with("refused 0"),
        "the sidecar was never away: {said}"
    );
    scene.resumes(&session);
    record(
        "X02",
        "own listener while gateway and enforcer are gone",
        "works",
        "sk_lookup drops",
    );
}

#[test]
fn k01_a_killed_enforcer_leaves_everything_shut_and_resumes() {
    let scene = Scene::new();
    let session = scene.workspace.session(&token("e"));
    scene.resumes(&session);
    under_load(&scene, &session, 3, || {
        let enforcers = processes("agentcontainer-enforcer");
        assert!(!enforcers.is_empty(), "no enforcer is running");
        enforcers
            .into_iter()
            .for_each(|pid| signal(pid, "-KILL", false));
        std::thread::sleep(Duration::from_millis(1500));
    });
    record(
        "K01",
        "enforcer killed, then everything is dialled",
        "the session reaches what is allowed",
        "pinned programs",
    );
}

#[test]
fn a_killed_sidecar_leaves_everything_shut_until_it_is_started_again() {
    let scene = Scene::new();
    let session = scene.workspace.session(&token("s"));
    scene.resumes(&session);
    let before = scene.allowed.heard().len();
    docker::run(&["kill", &sidecar()]);
    let id = docker::run(&[
        "ps",
        "--filter",
        "label=dev.agentcontainer.session",
        "--format",
        "{{.ID}} {{.Names}} {{.Labels}}",
    ]);
    let id = id
        .lines()
        .find(|line| line.contains(&session.name))
        .and_then(|line| line.split(' ').next())
        .unwrap()
        .to_owned();
    let inside = |script: &str| docker::attempt(&["exec", &id, "sh", "-c", script]).stdout;
    let bridge = rig().bridge;
    let workspace = docker::run(&["inspect", "--format", "{{.Config.WorkingDir}}", &id]);
    let said = inside(&format!(
        "cd {workspace} && python3 dial.py tcp {bridge} {} raw; python3 dial.py tcp {} {} name",
        scene.denied.port(),
        scene.host,
        scene.allowed.port()
    ));
    assert!(
        said.starts_with("error connect EPERM") && !said.contains("answer"),
        "{said}"
    );
    assert_eq!(scene.allowed.heard().len(), before);
    scene.denied.silent();
    scene.enforcer_is_back();
    scene.resumes(&session);
}

#[test]
fn a_session_whose_network_cannot_be_wired_again_at_once_is_tried_again() {
    let scene = Scene::in_workspace(Workspace::new().with_own_state());
    let session = scene.workspace.session(&token("w"));
    scene.resumes(&session);
    let sidecar = scene.workspace.cli(&["enforcer", "start"]).ok().to_owned();
    docker::run(&["kill", &sidecar]);
    // Something inside takes the name server's port on every address while nobody is there who holds it.
    scene.workspace.put(
        "takes.py",
        "import os, socket, time
it = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); it.bind(('0.0.0.0', 53))
open('taken', 'w').close()
end = time.time() + 60
while not os.path.exists('let-go') and time.time() < end: time.sleep(0.05)",
    );
    std::thread::scope(|scope| {
        let takes = scope.spawn(|| session.exec(&["python3", "takes.py"]));
        let began = Instant::now();
        while !scene.workspace.path().join("taken").exists() {
            assert!(
                began.elapsed() < DEADLINE && !takes.is_finished(),
                "it is not taken"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        scene.enforcer_is_back();
        let tried = || {
            let events = scene.workspace.events(&session.name);
            let tried = events
                .iter()
                .filter(|event| event["reason"] == "not-rewired");
            let tried: Vec<String> = tried.map(|event| event["detail"].to_string()).collect();
            assert!(
                tried.iter().all(|detail| detail.contains("tried again in")),
                "{tried:?}"
            );
            tried.len()
        };
        while tried() < 2 {
            assert!(began.elapsed() < DEADLINE, "it is not said");
            std::thread::sleep(Duration::from_millis(200));
        }
        assert!(!scene.dial(&session, "shut").contains("answer"));
        scene.workspace.put("let-go", "");
        takes.join().unwrap().ok();
    });
    scene.resumes(&session);
    assert!(!scene.allowed.heard_bytes(b"shut"));
}

#[test]
fn a_killed_cli_lets_nothing_through_and_can_be_swept_up() {
    let scene = Scene::new();
    let name = token("c");
    scene.workspace.write();
    let words = scene.hammer();
    let mut run = vec!["run", "--yes", "--name", &name, "--"];
    run.extend(words.iter().map(String::as_str));
    let child = scene.workspace.spawn(&run);
    let began = Instant::now();
    while !scene.workspace.path().join("up").exists() {
        assert!(began.elapsed() < DEADLINE, "the program does not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    signal(child.id(), "-KILL", false);
    outcome::wait(child, "run", DEADLINE).status(137);
    std::thread::sleep(Duration::from_secs(1));
    scene.denied.silent();
    scene.workspace.cli(&["stop", &name]).status(0);
    scene.workspace.cli(&["gc"]).status(0);
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(&name));
}
