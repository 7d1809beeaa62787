//! Machines that lack something: a full disk, a kernel without BPF, an engine on cgroup v1, no rights on its socket. One clear
//! error each, the right status, and nothing left running.

use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, signal};
use agentcontainer_tests::own_engine::{Cgroups, OwnEngine, has_cgroup_v1, listed};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Outcome, Workspace, docker, rig, skip};

/// Refused with 125 and these words, in few of them, with nothing begun.
#[track_caller]
fn refused(out: &Outcome, words: &str, workspace: &Workspace) {
    out.status(125).says(words);
    assert!(out.stderr.lines().count() <= 6, "{}", out.stderr);
    let path = workspace.path().display().to_string();
    assert!(!listed(workspace.engine(), &path, &["--all"]));
}

#[test]
fn what_a_full_disk_cannot_record_is_not_carried_and_the_session_still_ends() {
    let (allowed, denied) = (Receiver::start(), Receiver::start());
    let (host, name) = (format!("{}.test", token("full")), token("full"));
    let workspace = Workspace::new()
        .allow(&[&format!("{host}:{}", allowed.port())])
        .with_own_state();
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    workspace.put(
        "fill.py",
        "import socket, sys, time
it = socket.socket()
for _ in range(900): it.connect_ex((sys.argv[1], int(sys.argv[2])))",
    );
    let volume = small_state(&workspace);
    {
        let session = workspace.session(&name);
        let port = allowed.port().to_string();
        let dial = |word: &str| session.exec(&["python3", "dial.py", "tcp", &host, &port, word]);
        assert_eq!(dial("before").ok(), "answer before");
        let (bridge, other) = (rig().bridge.to_string(), denied.port().to_string());
        let began = Instant::now();
        let mut said = String::from("answer");
        while said.starts_with("answer") {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "it is never full"
            );
            session.exec(&["python3", "fill.py", &bridge, &other]).ok();
            std::thread::sleep(Duration::from_millis(1100));
            said = dial("filling").stdout;
        }
        for _ in 0..3 {
            let said = dial("unrecorded").stdout;
            assert!(said.starts_with("error"), "{said}");
        }
        assert!(!allowed.heard_bytes(b"unrecorded"));
        denied.silent();
        // What is on record up to then can be read.
        let events = workspace.events(&name);
        assert!(events.len() > 100, "{} events", events.len());
        let out = workspace.cli(&["stop", &name]);
        assert!(out.stderr.lines().count() <= 6, "{}", out.stderr);
    }
    assert!(!listed(workspace.engine(), &name, &["--all"]));
    assert!(!workspace.cli(&["ps", "--json"]).ok().contains(&name));
    // Nor does another begin, once the last byte is taken.
    let fill = format!("{volume}:/full");
    let words = ["sh", "-c", "cat /dev/zero >/full/zeroes"];
    docker::attempt(
        &[
            &["run", "--rm", "--user", "0", "-v", &fill, &rig().image],
            &words[..],
        ]
        .concat(),
    );
    refused(
        &workspace.run(&["true"]),
        "No space left on device",
        &workspace,
    );
    assert_eq!(held(&workspace, 2), [""; 0]);
    workspace.cli(&["gc"]).status(0);
    workspace.cli(&["enforcer", "stop"]).status(0);
    docker::run(&["volume", "rm", &volume]);
}

/// What the kernel holds of the sessions that a workspace with its own state has had, of which there are so many at least: their cgroups,
/// and pinned programs as the enforcer sees them.
pub fn held(workspace: &Workspace, least: usize) -> Vec<String> {
    let sessions = workspace.state().join("agentcontainer/sessions");
    let ids: Vec<String> = std::fs::read_dir(sessions)
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    assert!(ids.len() >= least, "{ids:?}");
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let pid = docker::run(&["inspect", "--format", "{{.State.Pid}}", &sidecar]);
    let find = [
        "sh",
        "-c",
        "cd /proc/$1/root && ls -d sys/fs/cgroup/agentcontainer*/* sys/fs/bpf/agentcontainer/*/*",
        "sh",
        &pid,
    ];
    let found = Command::new(find[0]).args(&find[1..]).output().unwrap();
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(found.contains("cgroup.procs"), "{found}");
    let of_ours = |line: &&str| ids.iter().any(|id| line.ends_with(id.as_str()));
    found.lines().filter(of_ours).map(str::to_owned).collect()
}

/// Gives the workspace's own enforcer a state volume of 256 KiB; its name.
fn small_state(workspace: &Workspace) -> String {
    workspace.write();
    let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
    let volume = docker::run(&[
        "inspect",
        "--format",
        "{{range .Mounts}}{{if eq .Destination \"/var/lib/agentcontainer\"}}{{.Name}}{{end}}{{end}}",
        &sidecar,
    ]);
    workspace.cli(&["enforcer", "stop"]).status(0);
    docker::run(&["volume", "rm", &volume]);
    docker::run(&[
        "volume",
        "create",
        "--opt",
        "type=tmpfs",
        "--opt",
        "device=tmpfs",
        "--opt",
        "o=size=256k",
        &volume,
    ]);
    volume
}

/// An enforcer that runs by hand, where the CLI looks for it; gone with this value.
struct ByHand(Child);

impl Drop for ByHand {
    fn drop(&mut self) {
        signal(self.0.id(), "-TERM", true);
        let began = Instant::now();
        while matches!(self.0.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
        signal(self.0.id(), "-KILL", true);
        let _ = self.0.wait();
    }
}

impl ByHand {
    /// The enforcer of the workspace's own sidecar, which it replaces, run by these words.
    fn start(workspace: &Workspace, dir: &Path, words: &[&str]) -> Self {
        let sidecar = workspace.cli(&["enforcer", "start"]).ok().to_owned();
        let binary = dir.join("agentcontainer-enforcer");
        docker::run(&[
            "cp",
            &format!("{sidecar}:/agentcontainer/agentcontainer-enforcer"),
            &binary.display().to_string(),
        ]);
        workspace.cli(&["enforcer", "stop"]).status(0);
        // agentcontainer-enforcer-VERSION-USER-STATE
        let version = sidecar.split('-').nth(2).unwrap();
        let control = workspace
            .state()
            .join("agentcontainer/control")
            .join(version);
        std::fs::create_dir_all(&control).unwrap();
        std::fs::set_permissions(&control, std::fs::Permissions::from_mode(0o700)).unwrap();
        let socket = control.join("enforcer.sock");
        let (state, bpffs) = (dir.join("state"), dir.join("bpf"));
        std::fs::create_dir_all(&bpffs).unwrap();
        // The engine's cgroups and a bpffs, in a mount namespace of its own.
        let script = "mount -t bpf bpf \"$AGENTCONTAINER_BPFFS\" && exec \"$@\"";
        let child = Command::new("unshare")
            .args(["--mount", "bash", "-c", script, "by-hand"])
            .args(words)
            .arg(&binary)
            .arg("serve")
            .env("AGENTCONTAINER_STATE", &state)
            .env("AGENTCONTAINER_BPFFS", &bpffs)
            .env("AGENTCONTAINER_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(dir.join("log")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        let started = Self(child);
        let began = Instant::now();
        while !socket.exists() {
            assert!(
                began.elapsed() < DEADLINE,
                "{}",
                std::fs::read_to_string(dir.join("log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        started
    }
}

#[test]
fn a_kernel_without_bpf_is_one_clear_error() {
    let workspace = Workspace::new().with_own_state();
    workspace.write();
    let wrapper = Path::new(env!("CARGO_MANIFEST_DIR")).join("probe/no_bpf.py");
    let wrapper = wrapper.display().to_string();
    let there = |workspace: &Workspace| {
        let out = workspace.cli(&["enforcer", "status", "--json"]);
        let said: serde_json::Value = serde_json::from_str(out.ok()).unwrap();
        let all = said["capabilities"].as_array().unwrap().clone();
        all.iter()
            .filter(|one| one["name"] != "lsm" && one["name"] != "btf")
            .map(|one| one["there"] == true)
            .collect::<Vec<_>>()
    };
    let dir = tempfile::tempdir().unwrap();
    {
        // Control: by hand, with BPF.
        let _enforcer = ByHand::start(&workspace, dir.path(), &["env"]);
        let there = there(&workspace);
        assert!(!there.is_empty() && there.iter().all(|there| *there));
    }
    let dir = tempfile::tempdir().unwrap();
    let _enforcer = ByHand::start(&workspace, dir.path(), &["python3", &wrapper]);
    assert!(there(&workspace).iter().all(|there| !there));
    let out = workspace.run(&["true"]);
    refused(&out, "does not carry what a session needs", &workspace);
    out.says("doctor");
    workspace.cli(&["doctor"]).status(1);
}

#[test]
fn an_engine_on_cgroup_v1_is_one_clear_error() {
    let name = "an_engine_on_cgroup_v1_is_one_clear_error";
    if !has_cgroup_v1() {
        skip(name, "this machine has cgroup v2 alone");
        return;
    }
    let engine = OwnEngine::start(Cgroups::OfTheMachine);
    let workspace = Workspace::new().on_engine(&engine.host());
    refused(&workspace.run(&["true"]), "cgroup", &workspace);
    workspace.cli(&["doctor"]).status(1);
    workspace.cli(&["enforcer", "start"]).status(125);
    assert_eq!(
        docker::run_on(&engine.host(), &["ps", "--all", "--quiet"]),
        ""
    );
}

/// A socket of another user's that leads to the engine.
fn relay(at: &Path) {
    let listener = UnixListener::bind(at).unwrap();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600)).unwrap();
    chown(at, Some(1000), Some(1000)).unwrap();
    let engine = rig().docker_host.trim_start_matches("unix://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = UnixStream::connect(&engine) else {
                return;
            };
            let copies = [
                (client.try_clone().unwrap(), server.try_clone().unwrap()),
                (server, client),
            ];
            for (mut from, mut to) in copies {
                std::thread::spawn(move || {
                    let mut buffer = [0; 65536];
                    while let Ok(count @ 1..) = from.read(&mut buffer) {
                        if to.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
}

#[test]
fn no_rights_on_the_engines_socket_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("docker.sock");
    relay(&socket);
    let workspace = Workspace::new();
    workspace.write();
    let run = |capabilities: &str| {
        let mut command = Command::new("setpriv");
        workspace.environment(&mut command);
        command
            .arg(format!("--bounding-set={capabilities}"))
            .arg(&rig().binary)
            .args(["run", "--lock", "--yes", "--", "true"])
            .env("DOCKER_HOST", format!("unix://{}", socket.display()));
        outcome::finish(command, DEADLINE)
    };
    // Control: with the right to pass by the socket's mode.
    run("+all").status(0);
    let out = run("+all,-dac_override,-dac_read_search");
    refused(&out, "engine-forbidden", &workspace);
    out.says("docker.sock");
}
