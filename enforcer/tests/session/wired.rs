//! Which network namespace of a session's is wired, what the gate says of any other, what holds the session's cgroup in its place, and that init
//! starts nothing where one of the hooks is gone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use enforcer::cgroup::Cgroup;
use enforcer::kernel::{Carrier, Kernel, Room};
use enforcer::netns::Netns;
use enforcer::process;
use enforcer::wire::{self, WireError, Wired};

use crate::{Rig, Tree, allowing, open, upstream};

/// Tries every way to an address of the loopback device, and says of each whether the gate let it.
const WAYS: &str = r#"
import socket, sys
port = int(sys.argv[1])
def way(name, family, kind, act):
    try: act(socket.socket(family, kind))
    except PermissionError: print(name, "refused")
    except OSError: print(name, "let")
    else: print(name, "let")
four, six, stream, datagram = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
way("connect4", four, stream, lambda s: s.connect(("127.0.0.1", port)))
way("connect6", six, stream, lambda s: s.connect(("::1", port)))
way("mapped", six, stream, lambda s: s.connect(("::ffff:127.0.0.1", port)))
way("udp4", four, datagram, lambda s: s.connect(("127.0.0.1", port)))
way("udp6", six, datagram, lambda s: s.connect(("::1", port)))
way("sendmsg4", four, datagram, lambda s: s.sendto(b"x", ("127.0.0.1", port)))
way("sendmsg6", six, datagram, lambda s: s.sendto(b"x", ("::1", port)))
way("name server", four, datagram, lambda s: s.connect(("198.18.0.2", 53)))
"#;

/// What it says where all are the same.
fn each(word: &str) -> String {
    let ways = [
        "connect4",
        "connect6",
        "mapped",
        "udp4",
        "udp6",
        "sendmsg4",
        "sendmsg6",
        "name server",
    ];
    ways.map(|way| format!("{way} {word}\n")).concat()
}

/// Whether a process blocks SIGINT (proc_pid_status(5), SigBlk).
fn blocks(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
    let mask = u64::from_str_radix(mask.unwrap().trim(), 16).unwrap();
    mask & (1 << (libc::SIGINT - 1)) != 0
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_another_namespace_than_the_wired_one_the_gate_refuses_loopback_too() {
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("x{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 11).await;
    let at = |name: &str| rig.directory.path().join(name);
    std::fs::write(at("ways.py"), WAYS).unwrap();
    std::fs::write(at("go"), "").unwrap();
    let ways = format!("python3 {} {port}", at("ways.py").display());
    let script = format!(
        "{ways}; curl -sS -m 5 http://api.example.test:{port}/; touch {}; while [ -e {} ]; do sleep 0.05; done; {ways}",
        at("up").display(),
        at("go").display()
    );
    let mut command = rig.command(&session, &script);
    let child = std::thread::spawn(move || command.output().unwrap());
    until("nothing runs inside", || at("up").exists());
    // In the session's cgroup, and in the host's namespace.
    let beside = rig.beside(&id, &ways);
    std::fs::remove_file(at("go")).unwrap();
    let inside = child.join().unwrap();
    assert_eq!(String::from_utf8_lossy(&beside.stdout), each("refused"));
    // Control: inside each of them is let, before and after, and so it is on the host without a gate.
    let said = String::from_utf8_lossy(&inside.stdout).into_owned();
    assert_eq!(said, format!("{0}hello\n{0}", each("let")), "{inside:?}");
    // One by the gateway.
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 1);
    let host = Command::new("bash").args(["-c", &ways]).output().unwrap();
    let said = String::from_utf8_lossy(&host.stdout).into_owned();
    assert!(said.starts_with("connect4 let\n"), "{host:?}");
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 3);
    let events = rig.events(&id);
    let foreign = |event: &&audit::Event| event.reason == "foreign-namespace";
    let recorded = events.iter().find(foreign).unwrap();
    assert_eq!(recorded.verdict, audit::Verdict::Deny);
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_whose_first_process_is_not_init_stays_shut_and_that_is_on_record() {
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("y{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 12).await;
    std::fs::write(rig.directory.path().join("ways.py"), WAYS).unwrap();
    let ways = rig.directory.path().join("ways.py");
    // The first socket is of a process that stays: one that has ended when it is looked at is not worth a record.
    let script = format!(
        "exec unshare --pid --fork --net -- bash -c 'ip link set lo up; exec 3<>/dev/udp/127.0.0.1/9; for n in 1 2 3; do python3 {} {port}; sleep 0.3; done; ip route show table local'",
        ways.display()
    );
    let output = rig.beside(&id, &script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let rest = said.strip_prefix(&each("refused").repeat(3));
    assert!(
        rest.is_some_and(|routes| !routes.contains("198.18.")),
        "{output:?}"
    );
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 0);
    let events = rig.events(&id);
    let not = events.iter().find(|event| event.reason == "not-wired");
    let detail = not.unwrap().detail.as_deref().unwrap();
    assert!(detail.contains("does not run our init"), "{detail}");
    assert!(!events.iter().any(|event| event.reason == "released"));
    // Control: the session wires its init all the same.
    let output = rig.inside(
        &session,
        &format!("curl -sS -m 5 http://api.example.test:{port}/"),
    );
    assert_eq!(output.stdout, b"hello\n", "{output:?}");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_removes_the_parents_of_its_containers_leaves_the_sessions_cgroup() {
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("z{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 13).await;
    let dial = format!(
        "curl -sS -m 5 http://api.example.test:{port}/; exec 3<>/dev/udp/198.51.100.7/9 || echo refused"
    );
    let ran = |output: std::process::Output| String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(ran(rig.inside(&session, &dial)), "hello\nrefused\n");
    let cgroup = rig.places.session_cgroup(&id);
    let before = Cgroup::open(&cgroup).unwrap().id();
    std::fs::remove_dir(cgroup.join("container")).unwrap();
    assert!(std::fs::remove_dir(&cgroup).is_err());
    // What comes next in it is held as before.
    assert_eq!(Cgroup::open(&cgroup).unwrap().id(), before);
    assert_eq!(ran(rig.inside(&session, &dial)), "hello\nrefused\n");
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 2);
    session.close("test").await.unwrap();
    assert_eq!(rig.left(&id), [""; 0].map(PathBuf::from));
}

#[test]
fn a_cgroup_that_holds_somebody_is_nobodys_to_take() {
    let rig = Rig::new();
    let path = rig
        .places
        .cgroup2
        .join(format!("agentcontainer-made-{}", std::process::id()));
    let _tree = Tree(path.clone());
    std::fs::create_dir(&path).unwrap();
    let mut lives = Command::new("sleep").arg("60").spawn().unwrap();
    std::fs::write(path.join("cgroup.procs"), lives.id().to_string()).unwrap();
    let refused = Cgroup::made(&path).unwrap_err();
    assert_eq!(refused.call, "take");
    lives.kill().unwrap();
    lives.wait().unwrap();
    enforcer::cgroup::remove(&path).unwrap();
    // Control: empty it is taken, once, and has its anchor.
    std::fs::create_dir(&path).unwrap();
    Cgroup::made(&path).unwrap();
    assert!(std::fs::remove_dir(&path).is_err());
    assert!(Cgroup::made(&path).is_err() && Cgroup::create(&path, true).is_err());
}

/// A cgroup as a session's is, and nobody who wires what is in it.
struct Cell<'a> {
    rig: &'a Rig,
    id: String,
    cgroup: Option<Cgroup>,
}

impl<'a> Cell<'a> {
    fn new(rig: &'a Rig, name: &str) -> Self {
        let id = format!("{name}{}", std::process::id());
        let cgroup = Cgroup::create(&rig.places.session_cgroup(&id), true).unwrap();
        std::fs::create_dir(cgroup.path().join("container")).unwrap();
        let cgroup = Some(cgroup);
        Self { rig, id, cgroup }
    }

    /// Starts that init as `how` says, and waits until it runs.
    fn start(&self, how: &str, init: &Path, program: &str) -> Started {
        let procs = self.cgroup.as_ref().unwrap().path();
        self.start_in(&procs.join("container/cgroup.procs"), how, init, program)
    }

    fn start_in(&self, procs: &Path, how: &str, init: &Path, program: &str) -> Started {
        let line = format!(
            "echo 0 > {}; {how} {} --wait-ms 30000 -- {program}",
            procs.display(),
            init.display()
        );
        let mut command = Command::new("bash");
        command
            .args(["-c", &line])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().unwrap();
        let find = || {
            let all = process::all().unwrap();
            let program = init.to_str();
            all.into_iter()
                .find(|pid| process::program(*pid).as_deref() == program)
        };
        until("init does not run", || find().is_some());
        let init = find().unwrap();
        Started { child, init }
    }

    /// The programs, with empty maps, which refuse everything; the gateway's cgroup, and what holds them: the pins.
    fn attach(&self) -> (Cgroup, PathBuf) {
        let gateway = self.rig.places.gateway_cgroup(&self.id);
        let gateway = Cgroup::create(&gateway, false).unwrap();
        let pins = self.rig.places.pins.join(&self.id);
        let session = self.cgroup.as_ref().unwrap().directory();
        let attached = Kernel::attach(
            &pins,
            session,
            gateway.directory(),
            Carrier::Nobody,
            Room::One,
        );
        drop(attached.unwrap());
        (gateway, pins)
    }

    fn wire(&self, init: u32, cookie: Option<u64>) -> Result<Wired, WireError> {
        let session = self.rig.places.proc_cgroup(&self.id);
        wire::wire(init, cookie, &session, &self.rig.places.init, &[])
    }
}

impl Drop for Cell<'_> {
    fn drop(&mut self) {
        let _ = self.cgroup.take().map(Cgroup::destroy);
    }
}

/// An init that waits to be released, or its end.
struct Started {
    child: Child,
    init: u32,
}

impl Started {
    fn status(mut self) -> ExitStatus {
        until("init does not end", || {
            self.child.try_wait().unwrap().is_some()
        });
        self.child.wait().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-KILL", &self.init.to_string()])
            .stderr(Stdio::null())
            .status();
        let _ = self.child.wait();
    }
}

/// As containers have it.
const OWN: &str = "exec unshare --pid --fork --net --";

#[test]
fn a_namespace_is_wired_where_every_condition_holds_and_nowhere_else() {
    let rig = Rig::new();
    let cell = Cell::new(&rig, "rule");
    let (init, ran) = (&rig.places.init, rig.directory.path().join("ran"));
    let touch = format!("touch {}", ran.display());
    let refused = |how: &str| {
        let started = cell.start(how, init, &touch);
        (cell.wire(started.init, None).unwrap_err(), started.init)
    };

    let whole = cell.start(OWN, init, &touch);
    let cookie = cell.wire(whole.init, None).unwrap().cookie;
    assert_eq!(
        cell.wire(whole.init, Some(cookie)).unwrap().init,
        whole.init
    );
    let other = cell.wire(whole.init, Some(cookie + 1)).unwrap_err();
    assert!(matches!(other, WireError::OtherNamespace), "{other}");
    drop(whole);

    // The same bytes, and another file.
    let copy = rig.directory.path().join("bin/copy");
    std::fs::copy(init, &copy).unwrap();
    let started = cell.start(OWN, &copy, &touch);
    let error = cell.wire(started.init, None).unwrap_err();
    assert!(
        matches!(error, WireError::NotInit { pid } if pid == started.init),
        "{error}"
    );
    drop(started);

    let (error, pid) = refused("exec unshare --net --");
    assert!(
        matches!(error, WireError::NotFirst { pid: of } if of == pid),
        "{error}"
    );
    let (error, pid) = refused("exec unshare --net --pid --fork -- sh -c '\"$@\"; true' sh");
    assert!(
        matches!(error, WireError::NotFirst { pid: of } if of == pid),
        "{error}"
    );

    // In the cgroup that the programs are attached to, and in no cgroup of the session's.
    for procs in [
        rig.places.session_cgroup(&cell.id),
        rig.places.cgroup2.clone(),
    ] {
        let started = cell.start_in(&procs.join("cgroup.procs"), OWN, init, &touch);
        let error = cell.wire(started.init, None).unwrap_err();
        assert!(matches!(error, WireError::OtherCgroup { .. }), "{error}");
    }

    let (error, pid) = refused("exec unshare --pid --fork --");
    assert!(
        matches!(error, WireError::HostNamespace { pid: of } if of == pid),
        "{error}"
    );

    let mut outside = Command::new("unshare");
    let mut outside = outside.args(["--net", "sleep", "60"]).spawn().unwrap();
    let host = Netns::of(std::process::id()).unwrap().identity().unwrap();
    let theirs = || process::network_namespace(&process::directory(outside.id()));
    until("there is no other namespace", || {
        theirs().is_some_and(|net| net != host)
    });
    let into = format!(
        "exec nsenter --net=/proc/{}/ns/net unshare --pid --fork --",
        outside.id()
    );
    let (error, _) = refused(&into);
    assert!(
        matches!(error, WireError::Shared { pid } if pid == outside.id()),
        "{error}"
    );
    outside.kill().unwrap();
    outside.wait().unwrap();

    let veth = "ip link add d0 type veth peer name d1; ip link set d0 up";
    let (error, _) = refused(&format!(
        "exec unshare --net -- sh -c '{veth}; exec unshare --pid --fork -- \"$@\"' sh"
    ));
    assert!(
        matches!(&error, WireError::Interface(name) if name.starts_with('d')),
        "{error}"
    );
    assert!(!ran.exists(), "nobody released one");
}

#[test]
fn init_starts_nothing_where_one_of_the_hooks_is_gone() {
    let rig = Rig::new();
    for (gone, missed) in [
        (None, None),
        (
            Some("connect4"),
            Some("a TCP connection to an unlisted address"),
        ),
        (Some("sendmsg4"), Some("a datagram to an unlisted address")),
        (Some("bind4"), Some("binding the name server")),
    ] {
        let cell = Cell::new(&rig, gone.unwrap_or("none"));
        let (gateway, pins) = cell.attach();
        if let Some(hook) = gone {
            std::fs::remove_file(pins.join("links").join(hook)).unwrap();
        }
        let ran = rig.directory.path().join(&cell.id);
        let started = cell.start(OWN, &rig.places.init, &format!("touch {}", ran.display()));
        let wired = cell.wire(started.init, None).unwrap();
        let released = wire::release(&wired);
        let status = started.status().code();
        match missed {
            None => {
                released.unwrap();
                assert_eq!((status, ran.exists()), (Some(0), true));
            }
            Some(missed) => {
                let said = released.unwrap_err().to_string();
                assert!(
                    said.contains(missed) && said.contains("was not refused"),
                    "{said}"
                );
                assert_eq!((status, ran.exists()), (Some(125), false), "{missed}");
            }
        }
        std::fs::remove_dir_all(&pins).unwrap();
        gateway.destroy().unwrap();
    }
}

#[test]
fn a_signal_that_comes_before_init_is_released_reaches_what_it_starts() {
    let rig = Rig::new();
    for (signal, status) in [("-INT", 130), ("-TERM", 143)] {
        let cell = Cell::new(&rig, "signal");
        let (gateway, pins) = cell.attach();
        // Whoever runs this in the background has SIGINT ignored by all that it starts.
        let program = "env --default-signal sleep 8";
        let started = cell.start(OWN, &rig.places.init, program);
        until("init blocks what it is sent", || blocks(started.init));
        let mut kill = Command::new("kill");
        let sent = kill.args([signal, &started.init.to_string()]).status();
        assert!(sent.unwrap().success());
        let wired = cell.wire(started.init, None).unwrap();
        wire::release(&wired).unwrap();
        assert_eq!(started.status().code(), Some(status));
        std::fs::remove_dir_all(&pins).unwrap();
        gateway.destroy().unwrap();
    }
}
