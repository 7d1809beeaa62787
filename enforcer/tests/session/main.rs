//! One whole session without an engine: the real gateway, the real init as first process of fresh pid and network
//! namespaces, real clients inside. Root. `cargo build -p gateway -p init` comes first.
#![allow(clippy::unwrap_used)]

mod approved;
mod files;
mod guarded;
mod last_words;
mod later;
mod mapped;
mod noexec;
mod opener;
mod openers;
mod owner;
mod peers;
mod programs;
mod received;
mod secrets;
mod started;
mod storms;
mod taken;
mod wired;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use enforcer::places::Places;
use enforcer::session::Session;
use enforcer::trusted::Trusted;
use policy::EffectivePolicy;
use schema::session::SessionId;

fn binary(name: &str) -> PathBuf {
    let path = std::env::current_exe().unwrap();
    let directory = path.parent().unwrap().parent().unwrap();
    let path = directory.join(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build -p gateway -p init",
        path.display()
    );
    path
}

struct Rig {
    directory: tempfile::TempDir,
    places: Arc<Places>,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let bpffs = base.join("bpf");
        for d in ["bpf", "sessions", "logs", "bin"] {
            std::fs::create_dir(base.join(d)).unwrap();
        }
        let mounted = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(&bpffs)
            .status()
            .unwrap();
        assert!(mounted.success(), "mounting a bpffs needs root");
        // World-readable, whatever directory the build is in: the gateway has no rights of its own.
        open_up(base);
        for name in ["agentcontainer-gateway", "agentcontainer-init"] {
            std::fs::copy(binary(name), base.join("bin").join(name)).unwrap();
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let cgroup2 = mounts
            .lines()
            .find(|line| line.contains(" cgroup2 "))
            .unwrap();
        let places = Places {
            cgroup2: cgroup2.split(' ').nth(1).unwrap().into(),
            slices: false,
            pins: bpffs.join("agentcontainer"),
            sessions: base.join("sessions"),
            logs: base.join("logs"),
            socket: base.join("enforcer.sock"),
            uid: 0,
            gateway: base.join("bin/agentcontainer-gateway"),
            init: base.join("bin/agentcontainer-init"),
            binary_sha256: String::new(),
        };
        Self {
            directory,
            places: Arc::new(places),
        }
    }

    /// Runs a shell script as a container would: init first in its own pid and network namespaces, in the session.
    fn inside(&self, session: &Session, script: &str) -> Output {
        self.command(session, script).output().unwrap()
    }

    fn command(&self, session: &Session, script: &str) -> Command {
        let cgroup = self
            .places
            .session_cgroup(session.id.as_str())
            .join("container");
        std::fs::create_dir_all(&cgroup).unwrap();
        let resolv = self.directory.path().join("resolv.conf");
        std::fs::write(&resolv, "nameserver 198.18.0.2\n").unwrap();
        let outer = format!(
            "mount --bind {} /etc/resolv.conf && exec unshare --pid --fork --net -- {} -- bash -c \"$1\"",
            resolv.display(),
            self.places.init.display()
        );
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            &outer,
            "bash",
            script,
        ]);
        let procs = cgroup.join("cgroup.procs");
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            command.pre_exec(move || std::fs::write(&procs, "0"));
        }
        command
    }

    /// A program of the session's that is in no namespace of its own: whatever it dials is refused for as long as there is a gate.
    fn beside(&self, session: &str, script: &str) -> Output {
        let procs = self.places.session_cgroup(session).join("cgroup.procs");
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            command.pre_exec(move || std::fs::write(&procs, "0"));
        }
        command.output().unwrap()
    }

    /// What there is of a session, by where it is.
    fn left(&self, session: &str) -> Vec<PathBuf> {
        let places = &self.places;
        [
            places.session_cgroup(session),
            places.gateway_cgroup(session),
            places.pins.join(session),
            places.sessions.join(session),
        ]
        .into_iter()
        .filter(|path| path.exists())
        .collect()
    }

    fn events(&self, session: &str) -> Vec<audit::Event> {
        std::fs::read_to_string(self.places.log(session))
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg(self.directory.path().join("bpf"))
            .status();
    }
}

fn open_up(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Answers every request with one line, and counts them.
fn upstream() -> (u16, Arc<std::sync::atomic::AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let heard = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&heard);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
                );
            });
        }
    });
    (port, heard)
}

fn policy(text: serde_json::Value) -> EffectivePolicy {
    EffectivePolicy::from_json(text.to_string().as_bytes()).unwrap()
}

fn allowing(names: &[&str], port: u16) -> EffectivePolicy {
    let origin = serde_json::json!({"file": "agentcontainer.json", "line": 1, "column": 1});
    let allowed: Vec<_> = names
        .iter()
        .map(|name| serde_json::json!({"host": name, "port": port, "origin": origin}))
        .collect();
    let hosts = [
        "api.example.test",
        "other.example.test",
        "third.example.test",
    ]
    .map(|name| (name.to_owned(), serde_json::json!(["127.0.0.1"])));
    policy(serde_json::json!({
        "version": 1,
        "network": [{"allowed": allowed}],
        "gateway": {"hosts": serde_json::Map::from_iter(hosts)}
    }))
}

async fn open(rig: &Rig, id: &str, policy: EffectivePolicy, index: u32) -> Arc<Session> {
    let id = SessionId::parse(id).unwrap();
    Session::open(
        Arc::clone(&rig.places),
        id,
        "/test".into(),
        policy,
        Trusted::default(),
        index,
        Arc::default(),
    )
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_reaches_what_policy_names_and_nothing_else() {
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("t{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 0).await;
    let script = format!(
        "curl -sS -m 5 http://api.example.test:{port}/; \
         curl -sS -m 5 -o /dev/null -w '%{{http_code}}\\n' http://other.example.test/; \
         curl -sS -m 5 http://other.example.test:{port}/ 2>&1; \
         curl -sS -m 5 http://127.0.0.1:{port}/ 2>&1; \
         echo x 2>/dev/null >/dev/udp/198.51.100.7/9 || echo udp refused; \
         curl -sS -m 5 http://agentcontainer.internal/ | head -c 300; exit 7"
    );
    let output = rig.inside(&session, &script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(7));
    assert!(text.starts_with("hello\n403\n"), "{text}");
    assert!(text.contains("udp refused"));
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 1);
    let events = rig.events(&id);
    assert!(events.iter().any(|e| e.reason == "released"));
    let connected = events
        .iter()
        .find(|e| e.reason == "allowed" && e.kind == audit::Kind::Connect)
        .unwrap();
    assert_eq!(connected.process.as_ref().unwrap().comm, "curl");
    tokio::time::timeout(Duration::from_secs(10), session.close("test"))
        .await
        .unwrap()
        .unwrap();
    assert!(!rig.places.session_cgroup(&id).exists());
    for _ in 0..200 {
        if zombies() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the gateway was not waited for");
}

/// A mount that goes with this value.
struct Mount(PathBuf);

impl Mount {
    fn make(words: &[&str], at: &Path) -> Self {
        let status = Command::new("mount").args(words).arg(at).status().unwrap();
        assert!(status.success(), "mounting needs root");
        Self(at.to_path_buf())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_ended_is_held_until_it_can() {
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("h{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 5).await;
    let dial = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo x >&3 && head -c 1 <&3");
    // A cgroup that cannot be removed stands for a process that cannot be killed: the kernel says the same of both.
    let busy = rig.places.session_cgroup(&id).join("busy");
    std::fs::create_dir(&busy).unwrap();
    let empty = tempfile::tempdir().unwrap();
    let from = empty.path().display().to_string();
    let mount = Mount::make(&["--bind", &from], &busy);
    let refused = session.close("test").await;
    assert!(
        matches!(&refused, Err(enforcer::session::SessionError::Cgroup(_))),
        "{refused:?}"
    );
    assert!(!session.is_over());
    assert_eq!(session.status().await.state, "closing");
    // What is still in it is held by the gate as before.
    // Its end is tried again and again, which kills what is in it: one that lived long enough to dial is what counts.
    let lived = || {
        let output = rig.beside(&id, &dial);
        output.status.code().is_some().then_some(output)
    };
    let output = (0..50).find_map(|_| lived()).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Operation not permitted"), "{output:?}");
    assert_eq!(heard.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert!(rig.events(&id).iter().any(|e| e.reason == "not-closed"));
    assert_eq!(rig.left(&id).len(), 3, "all but the gateway's cgroup");
    // Control: without a gate the same program gets through.
    let control = Command::new("bash").args(["-c", &dial]).status().unwrap();
    assert!(control.success());
    // Tried again without being asked.
    drop(mount);
    for _ in 0..300 {
        if session.is_over() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(session.is_over());
    assert_eq!(rig.left(&id), [""; 0].map(PathBuf::from));
    let closed = rig.events(&id);
    let closed = closed.iter().find(|e| e.reason == "session-closed");
    assert_eq!(closed.unwrap().detail.as_deref(), Some("test"));
    assert!(session.close("test").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_begin_leaves_nothing() {
    let rig = Rig::new();
    let (port, _) = upstream();
    let begin = async |id: &str| {
        let session = SessionId::parse(id).unwrap();
        let policy = allowing(&["api.example.test"], port);
        Session::open(
            Arc::clone(&rig.places),
            session,
            String::new(),
            policy,
            Trusted::default(),
            6,
            Arc::default(),
        )
        .await
    };
    let id = format!("f{}", std::process::id());
    // What is written first, and what is written last.
    for full in [&rig.places.logs, &rig.places.sessions] {
        let disk = Mount::make(&["-t", "tmpfs", "-o", "size=16k", "tmpfs"], full);
        let mut zeroes = std::fs::File::create(full.join("zeroes")).unwrap();
        while zeroes.write_all(&[0; 4096]).is_ok() {}
        let refused = begin(&id).await;
        assert!(
            refused
                .as_ref()
                .is_err_and(|e| e.to_string().contains("No space left")),
            "{:?}",
            refused.err()
        );
        assert_eq!(
            rig.left(&id),
            [""; 0].map(PathBuf::from),
            "{}",
            full.display()
        );
        drop((zeroes, disk));
    }
    // Control: with room it begins, under the same id.
    begin(&id).await.unwrap().close("test").await.unwrap();
    assert_eq!(rig.left(&id), [""; 0].map(PathBuf::from));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_does_not_keep_a_session_from_being_taken_up() {
    let rig = Rig::new();
    let (port, _) = upstream();
    let id = format!("u{}", std::process::id());
    let disk = Mount::make(
        &["-t", "tmpfs", "-o", "size=64k", "tmpfs"],
        &rig.places.logs,
    );
    let first = open(&rig, &id, allowing(&["api.example.test"], port), 8).await;
    let mut zeroes = std::fs::File::create(rig.places.logs.join("zeroes")).unwrap();
    while zeroes.write_all(&[0; 512]).is_ok() {}
    // The rest of the page that the log has begun.
    while first
        .write(audit::Event::new(
            audit::Kind::Lifecycle,
            audit::Verdict::Flag,
            "fill",
        ))
        .is_ok()
    {}
    let session = SessionId::parse(&id).unwrap();
    let second = Session::adopt(Arc::clone(&rig.places), session, Arc::default())
        .await
        .unwrap();
    assert_eq!(second.status().await.generation, 1);
    // What cannot be recorded is not carried: the end is not on record either, and is an end all the same.
    assert!(second.close("test").await.is_err());
    assert!(second.is_over());
    let _ = first.close("test").await;
    assert_eq!(rig.left(&id), [""; 0].map(PathBuf::from));
    drop((zeroes, disk));
}

/// A cgroup tree of the test's own, with whatever is below it.
struct Tree(PathBuf);

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = enforcer::cgroup::remove(&self.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_enforcers_that_are_gone_left_is_swept_up_and_nothing_else() {
    use enforcer::{cgroup::Cgroup, kernel::Kernel, leftover::sweep};
    let rig = Rig::new();
    let own = rig
        .places
        .cgroup2
        .join(format!("agentcontainer-sweep-{}", std::process::id()));
    std::fs::create_dir(&own).unwrap();
    let _tree = Tree(own.clone());
    let places = |sessions: &str| {
        let sessions = rig.directory.path().join(sessions);
        std::fs::create_dir_all(&sessions).unwrap();
        let cgroup2 = own.clone();
        Arc::new(Places {
            cgroup2,
            sessions,
            ..(*rig.places).clone()
        })
    };
    let (ours, theirs) = (places("ours"), places("theirs"));
    let left = |id: &str| {
        let paths = [
            ours.session_cgroup(id),
            ours.gateway_cgroup(id),
            ours.pins.join(id),
        ];
        paths.into_iter().filter(|path| path.exists()).count()
    };
    let leave = |id: &str| {
        let session = Cgroup::create(&ours.session_cgroup(id), true).unwrap();
        let gateway = Cgroup::create(&ours.gateway_cgroup(id), false).unwrap();
        Kernel::attach(
            &ours.pins.join(id),
            session.directory(),
            gateway.directory(),
            enforcer::kernel::Carrier::Nobody,
            enforcer::kernel::Room::One,
        )
        .unwrap();
    };
    for id in ["whole", "lived", "known", "young", "locked"] {
        leave(id);
    }
    // As it is of an enforcer whose gateway is just being started again.
    let locked = Cgroup::open(&ours.session_cgroup("locked")).unwrap();
    locked.hold().unwrap();
    // A cgroup alone, and pins alone.
    Cgroup::create(&ours.session_cgroup("cgroup"), true).unwrap();
    leave("pins");
    enforcer::cgroup::remove(&ours.session_cgroup("pins")).unwrap();
    enforcer::cgroup::remove(&ours.gateway_cgroup("pins")).unwrap();
    // Somebody runs in it; it is on our own record; another enforcer has it open.
    let mut lives = Command::new("sleep").arg("60").spawn().unwrap();
    let procs = ours.session_cgroup("lived").join("cgroup.procs");
    std::fs::write(procs, lives.id().to_string()).unwrap();
    std::fs::create_dir(ours.sessions.join("known")).unwrap();
    let policy = allowing(&["api.example.test"], 1);
    let id = SessionId::parse("held").unwrap();
    let held = Session::open(
        theirs,
        id,
        String::new(),
        policy,
        Trusted::default(),
        7,
        Arc::default(),
    )
    .await
    .unwrap();

    assert_eq!(
        sweep(&ours, Duration::from_secs(60)),
        0,
        "all of it is young"
    );
    assert_eq!(left("young"), 3);
    assert_eq!(sweep(&ours, Duration::ZERO), 4);
    assert_eq!(
        [left("whole"), left("young"), left("cgroup"), left("pins")],
        [0; 4]
    );
    assert_eq!(
        [left("lived"), left("known"), left("held"), left("locked")],
        [3; 4]
    );
    held.close("test").await.unwrap();
    lives.kill().unwrap();
    lives.wait().unwrap();
    std::fs::remove_dir(ours.sessions.join("known")).unwrap();
    drop(locked);
    assert_eq!(sweep(&ours, Duration::ZERO), 3);
}

/// Children of this process that have ended and were not waited for.
fn zombies() -> usize {
    let ours = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| {
            let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
            fields.next() == Some("Z") && fields.next() == Some(&ours)
        })
        .count()
}

/// Two processes hammer a name that every generation allows and one that none does, while the policy changes under them.
/// How many changes: AGENTCONTAINER_SWAPS, 100 unless said.
#[tokio::test(flavor = "multi_thread")]
async fn policy_changes_give_no_wrong_answer_either_way() {
    let swaps: u32 =
        std::env::var("AGENTCONTAINER_SWAPS").map_or(100, |text| text.parse().unwrap());
    let rig = Rig::new();
    let (port, heard) = upstream();
    let id = format!("w{}", std::process::id());
    let policies = [
        allowing(&["api.example.test"], port),
        allowing(&["api.example.test", "third.example.test"], port),
    ];
    let session = open(&rig, &id, policies[0].clone(), 1).await;
    let go = rig.directory.path().join("go");
    std::fs::write(&go, "").unwrap();
    let hammer = format!("python3 {}/tests/hammer.py", env!("CARGO_MANIFEST_DIR"));
    let go_path = go.display();
    let script = format!(
        "{hammer} api.example.test {port} {go_path} answered & \
         {hammer} other.example.test {port} {go_path} refused & wait"
    );
    let mut command = rig.command(&session, &script);
    let child = std::thread::spawn(move || command.output().unwrap());
    // Until both of them are at it, however slow the machine. The log is being written: no line of it is parsed here.
    let hammering = || {
        let log = std::fs::read_to_string(rig.places.log(&id)).unwrap();
        heard.load(std::sync::atomic::Ordering::SeqCst) > 0 && log.contains(r#""verdict":"deny""#)
    };
    for _ in 0..1000 {
        if hammering() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = heard.load(std::sync::atomic::Ordering::SeqCst);
    for swap in 0..swaps {
        session
            .set_policy(policies[(swap as usize + 1) % 2].clone())
            .await
            .unwrap();
    }
    let during = heard.load(std::sync::atomic::Ordering::SeqCst) - before;
    std::fs::remove_file(&go).unwrap();
    let output = child.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let count = |name: &str| -> (u32, u32) {
        let line = text
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{output:?}"));
        let mut numbers = line.split(' ').skip(1).map(|n| n.parse().unwrap());
        (numbers.next().unwrap(), numbers.next().unwrap())
    };
    let (allowed, refused_wrongly) = count("api.example.test");
    let (denied, let_through) = count("other.example.test");
    println!(
        "{swaps} changes, {allowed} allowed and {denied} denied attempts, {during} heard meanwhile"
    );
    assert_eq!((refused_wrongly, let_through), (0, 0), "{output:?}");
    assert!(
        during > swaps / 4 && denied > swaps,
        "the hammers ran meanwhile"
    );
    assert_eq!(session.status().await.generation, swaps + 1);
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_change_that_fails_leaves_the_gateway_at_the_policy_before() {
    let rig = Rig::new();
    let (port, _) = upstream();
    // At port 80 the gate lets every name through to the gateway: there it alone decides.
    let Ok(web) = TcpListener::bind("127.0.0.77:80") else {
        panic!("somebody listens on every address at port 80");
    };
    let reached = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counter = Arc::clone(&reached);
    std::thread::spawn(move || {
        for stream in web.incoming() {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut stream = stream.unwrap();
            // A close with unread bytes is a reset, which would overtake the answer.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb");
        }
    });
    let origin = serde_json::json!({"file": "agentcontainer.json", "line": 1, "column": 1});
    let wider = || {
        policy(serde_json::json!({
            "version": 1,
            "network": [{"allowed": [{"host": "second.example.test", "origin": origin}]}],
            "gateway": {"hosts": {"second.example.test": ["127.0.0.77"]}}
        }))
    };
    let id = format!("p{}", std::process::id());
    let before = allowing(&["api.example.test"], port);
    let session = open(&rig, &id, before.clone(), 9).await;
    let ask = || {
        let script = "curl -sS -m 5 -o /dev/null -w '%{http_code}' http://second.example.test/";
        String::from_utf8_lossy(&rig.inside(&session, script).stdout).into_owned()
    };
    let signal = |name: &str| {
        let cgroup = rig.places.gateway_cgroup(&id).join("cgroup.procs");
        for pid in std::fs::read_to_string(cgroup).unwrap().lines() {
            Command::new("kill").args([name, pid]).status().unwrap();
        }
    };
    assert_eq!(ask(), "403");
    signal("-STOP");
    // Every thread of it.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let refused = session.set_policy(wider()).await;
    assert!(
        refused.is_err(),
        "a gateway that stands still takes nothing"
    );
    signal("-CONT");
    assert_eq!(session.status().await.generation, 1);
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(ask(), "403");
    }
    assert_eq!(reached.load(std::sync::atomic::Ordering::SeqCst), 0);
    // Control: once it is the policy it is reached, under a number of its own; and taken away again at once.
    assert_eq!(session.set_policy(wider()).await.unwrap(), 3);
    assert_eq!(ask(), "200");
    assert_eq!(session.set_policy(before).await.unwrap(), 4);
    assert_eq!(ask(), "403");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_for_a_device_that_appears_are_dropped_and_on_record() {
    let rig = Rig::new();
    let id = format!("d{}", std::process::id());
    let origin = serde_json::json!({"file": "agentcontainer.json", "line": 1, "column": 1});
    let network =
        serde_json::json!({"cidr": "10.99.0.0/24", "port": 7, "protocol": "tcp", "origin": origin});
    let policy = policy(
        serde_json::json!({"version": 1, "network": [{"networks": [network]}], "gateway": {}}),
    );
    let session = open(&rig, &id, policy, 10).await;
    // Root inside, as nobody is in a container of ours, makes a device and leads an allowed network over it.
    let script =
        "ip link add d0 type veth peer name d1 && ip link set d1 up && ip link set d0 up && ip address add 10.99.0.1/24 dev d0 &&
        ip route del local 10.99.0.0/24 dev lo table local && ip -s link show d0 && echo made
        timeout 2 bash -c 'exec 3<>/dev/tcp/10.99.0.2/7'; sleep 1.5; ip -s -o link show d0";
    let output = rig.inside(&session, script);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("made"), "{output:?}");
    let events = rig.events(&id);
    let dropped = events.iter().find(|event| event.reason == "not-loopback");
    let dropped = dropped.unwrap_or_else(|| panic!("{said}\n{events:?}"));
    assert_eq!(dropped.verdict, audit::Verdict::Deny);
    assert!(
        dropped
            .detail
            .as_ref()
            .unwrap()
            .contains("since the session began")
    );
    session.close("test").await.unwrap();
}

/// Says back what it gets.
fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..n]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// A sidecar serves many sessions: while others are opened and closed, nothing that one of them may do goes unanswered.
/// How many connections: AGENTCONTAINER_STRESS for each kind and way, 100 unless said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_allowed_is_answered_while_other_sessions_come_and_go() {
    let rounds: u32 =
        std::env::var("AGENTCONTAINER_STRESS").map_or(100, |text| text.parse().unwrap());
    let rig = Rig::new();
    let ((web, _), echo) = (upstream(), [echo(), echo()]);
    let origin = serde_json::json!({"file": "agentcontainer.json", "line": 1, "column": 1});
    let rules = [("http", web), ("tcp", echo[0]), ("tls", echo[1])];
    let rules = rules.map(|(protocol, port)| {
        serde_json::json!({
            "host": "api.example.test", "ports": [port], "protocol": protocol, "action": "allow", "origin": origin
        })
    });
    let rules = policy(serde_json::json!({
        "version": 1,
        "network": [{"rules": rules}],
        "gateway": {"hosts": {"api.example.test": ["127.0.0.1"]}}
    }));
    let id = format!("s{}", std::process::id());
    let session = open(&rig, &id, rules, 2).await;
    let stress = format!("python3 {}/tests/stress.py", env!("CARGO_MANIFEST_DIR"));
    let kinds = format!(
        "http=api.example.test:{web} tcp=api.example.test:{} tls=api.example.test:{}",
        echo[0], echo[1]
    );
    let script = format!(
        "{stress} 1 {rounds} {kinds}; {stress} 50 {} {kinds}",
        rounds / 50
    );
    let mut command = rig.command(&session, &script);
    let child = std::thread::spawn(move || command.output().unwrap());
    let mut others = 0;
    while !child.is_finished() {
        let id = format!("o{}x{others}", std::process::id());
        let other = open(&rig, &id, allowing(&["api.example.test"], web), 3).await;
        other.close("test").await.unwrap();
        others += 1;
    }
    let output = child.join().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{others} other sessions\n{text}");
    assert_eq!(text.matches(" wrong 0\n").count(), 2, "{output:?}");
    session.close("test").await.unwrap();
}

/// Hundreds of first look-ups at once, of names that policy lists.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn as_many_names_as_come_at_once_get_their_addresses() {
    let rig = Rig::new();
    let names: Vec<String> = (0..600).map(|n| format!("n{n}.example.test")).collect();
    let listed: Vec<&str> = names.iter().map(String::as_str).collect();
    let id = format!("n{}", std::process::id());
    let session = open(&rig, &id, allowing(&listed, 5432), 4).await;
    let script = format!("python3 {}/tests/names.py 600", env!("CARGO_MANIFEST_DIR"));
    let output = rig.inside(&session, &script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(text.starts_with("answered 600 of 600\n"), "{output:?}");
    session.close("test").await.unwrap();
}
