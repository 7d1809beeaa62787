//! What somebody else on the host may do, knowingly or not: programs of their own at our cgroups, tags of our images moved.

use std::io::{BufRead, BufReader};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, docker, rig};

use crate::singly::{container, record};

/// The cgroup v2 mount, wherever this machine has it.
pub fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" cgroup2 "))
        .expect("no cgroup v2 is mounted");
    line.split(' ').nth(1).unwrap().into()
}

/// A program that sends every connect of a cgroup elsewhere; detached when this value goes.
struct Foreign(Child);

impl Foreign {
    fn attach(cgroup: &Path, to: SocketAddrV4) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("probe/foreign.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(cgroup)
            .args([to.ip().to_string(), to.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert_eq!(line, "attached\n", "run the tests as root");
        Self(child)
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn k08_a_foreign_program_that_rewrites_addresses_ends_the_session() {
    let (allowed, denied) = (Receiver::start(), Receiver::start());
    let bridge = rig().bridge;
    // Control: in a cgroup that nobody guards, what is sent to the one arrives at the other.
    let plain = cgroup2().join(token("k8"));
    std::fs::create_dir(&plain).unwrap();
    let foreign = Foreign::attach(&plain, SocketAddrV4::new(bridge, denied.port()));
    let dial = format!(
        "echo $$ >{}/cgroup.procs && exec 3<>/dev/tcp/{bridge}/{} && echo control >&3",
        plain.display(),
        allowed.port()
    );
    Command::new("bash").args(["-c", &dial]).status().unwrap();
    assert!(denied.hears(b"control") && !allowed.heard_bytes(b"control"));
    drop(foreign);
    std::fs::remove_dir(&plain).unwrap();

    let (host, other, name) = (
        format!("{}.test", token("k8good")),
        format!("{}.test", token("k8bad")),
        token("k8"),
    );
    let workspace = Workspace::new()
        .allow(&[&format!("{host}:{}", allowed.port())])
        .host(&other, bridge);
    let session = workspace.session(&name);
    let script = "import socket, sys, time
print(socket.gethostbyname(sys.argv[3]), flush=True)
open('up', 'w').write(socket.gethostbyname(sys.argv[3]))
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 2) as it: it.sendall(b'governed'); it.recv(10)
    except OSError: pass
    time.sleep(0.02)";
    workspace.put("dials.py", script);
    let port = allowed.port().to_string();
    let words = ["python3", "dials.py", &host, &port, &other];
    std::thread::scope(|scope| {
        scope.spawn(|| session.exec(&words));
        let up = workspace.path().join("up");
        let synthetic = wait_for(|| {
            std::fs::read_to_string(&up)
                .ok()
                .and_then(|said| said.parse().ok())
        });
        assert!(allowed.hears(b"governed"), "what is allowed works before");
        let id = docker::run(&["inspect", "--format", "{{.Name}}", &container(&name)]);
        let id = id.trim_start_matches("/agentcontainer-");
        let cgroup = cgroup2().join("agentcontainer").join(id);
        // After ours at the session's own cgroup, where it has the last word on the address.
        let _foreign = Foreign::attach(&cgroup, SocketAddrV4::new(synthetic, denied.port()));
        wait_for(|| (!cgroup.exists()).then_some(()));
    });
    assert_eq!(session.wait().status, 137, "the program was ended");
    assert!(!denied.heard_bytes(b"governed"));
    let events = workspace.events(&name);
    let said = events
        .iter()
        .find(|event| event["reason"] == "gate-changed");
    assert!(
        said.is_some_and(|event| event["detail"].to_string().contains("connect4")),
        "{events:?}"
    );
    assert!(!docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]).contains(&name));
    record(
        "K08",
        "a program of somebody else's that rewrites addresses after the gate",
        "works",
        "gateway decides again; the session is ended",
    );
}

#[test]
fn x10_a_moved_tag_of_the_sidecars_image_is_not_what_runs() {
    let workspace = Workspace::new();
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let image = docker::run(&["inspect", "--format", "{{.Image}}", &sidecar]);
    let tag = docker::run(&[
        "image",
        "inspect",
        "--format",
        "{{index .RepoTags 0}}",
        &image,
    ]);
    let moved = MovedTag::to_the_test_image(&tag, &image);
    // Control: who goes by the tag gets the other image.
    assert_eq!(
        docker::run(&["run", "--rm", &tag, "sh", "-c", "echo other"]),
        "other"
    );
    let own = Workspace::new().with_own_state();
    let second = own.cli(&["enforcer", "start"]).ok().to_owned();
    assert_ne!(second, sidecar);
    let runs = docker::run(&["inspect", "--format", "{{.Image}}", &second]);
    own.cli(&["enforcer", "stop"]).status(0);
    assert_eq!(runs, image);
    drop(moved);
    record(
        "X10",
        "the tag of the sidecar's image moved to another",
        "works",
        "run by image id",
    );
}

/// A tag that points elsewhere until this value goes.
struct MovedTag<'a> {
    tag: &'a str,
    image: &'a str,
}

impl<'a> MovedTag<'a> {
    fn to_the_test_image(tag: &'a str, image: &'a str) -> Self {
        docker::run(&["tag", &rig().image, tag]);
        Self { tag, image }
    }
}

impl Drop for MovedTag<'_> {
    fn drop(&mut self) {
        docker::attempt(&["tag", self.image, self.tag]);
    }
}

pub fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it does not come"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
