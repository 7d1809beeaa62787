//! The programs on the running kernel: loaded, attached, pinned, adopted, refused where something is amiss. Root.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use enforcer::cgroup::Cgroup;
use enforcer::kernel::{self, Kernel, KernelError, Maps};

/// The cgroup v2 mount, wherever this machine has it.
fn cgroup2() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let line = mounts
        .lines()
        .find(|line| line.contains(" cgroup2 "))
        .expect("cgroup v2 is mounted");
    line.split(' ').nth(1).unwrap().into()
}

/// A bpffs of the test's own, taken down with it.
struct Bpffs(PathBuf);

impl Bpffs {
    fn mount(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let status = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(&path)
            .status()
            .unwrap();
        assert!(status.success(), "mounting a bpffs needs root");
        Self(path)
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
        let _ = std::fs::remove_dir(&self.0);
    }
}

struct Rig {
    bpffs: Bpffs,
    session: Option<Cgroup>,
    gateway: Option<Cgroup>,
}

impl Rig {
    fn new(name: &str) -> Self {
        let base = cgroup2().join("agentcontainer-test");
        let session = base.join(format!("{name}-{}", std::process::id()));
        let gateway = base.join(format!("{name}-gw-{}", std::process::id()));
        Self {
            bpffs: Bpffs::mount(name),
            session: Some(Cgroup::create(&session, true).unwrap()),
            gateway: Some(Cgroup::create(&gateway, false).unwrap()),
        }
    }

    fn pins(&self) -> PathBuf {
        self.bpffs.0.join("session")
    }

    fn directories(&self) -> (&File, &File) {
        (
            self.session.as_ref().unwrap().directory(),
            self.gateway.as_ref().unwrap().directory(),
        )
    }

    fn attach(&self) -> Result<(Kernel, Maps), KernelError> {
        let (session, gateway) = self.directories();
        Kernel::attach(&self.pins(), session, gateway)
    }

    /// Runs a shell command in the session's cgroup.
    fn inside(&self, script: &str) -> std::process::Output {
        let procs = self.session.as_ref().unwrap().path().join("cgroup.procs");
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            command.pre_exec(move || std::fs::write(&procs, "0"));
        }
        command.output().unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for cgroup in [self.session.take(), self.gateway.take()]
            .into_iter()
            .flatten()
        {
            cgroup.destroy().unwrap();
        }
    }
}

#[test]
fn this_kernel_takes_every_program() {
    for (name, result) in kernel::capabilities() {
        assert_eq!(result, Ok(()), "{name}");
    }
}

#[test]
fn empty_maps_deny_what_was_possible_before() {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let rig = Rig::new("deny");
    let attempt = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
    assert!(
        rig.inside(&attempt).status.success(),
        "the positive control"
    );
    let (kernel, maps) = rig.attach().unwrap();
    let refused = rig.inside(&attempt);
    assert!(!refused.status.success());
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("Operation not permitted"),
        "{refused:?}"
    );
    let (denied, lost) = maps.session.counts().unwrap();
    assert!(denied >= 1);
    assert_eq!(lost, 0);
    kernel.remove().unwrap();
    assert!(rig.inside(&attempt).status.success(), "detached again");
    // Outside the cgroup nothing was ever refused.
    TcpStream::connect_timeout(
        &SocketAddr::from(([127, 0, 0, 1], port)),
        Duration::from_secs(1),
    )
    .unwrap();
}

#[test]
fn the_gate_stays_when_its_loader_goes_and_is_adopted_by_the_next() {
    let rig = Rig::new("adopt");
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let attempt = format!("echo x >/dev/udp/127.0.0.1/{port}");
    drop(rig.attach().unwrap());
    assert!(
        !rig.inside(&attempt).status.success(),
        "links and maps are pinned"
    );
    let (session, gateway) = rig.directories();
    let (kernel, _maps) = Kernel::adopt(&rig.pins(), session, gateway).unwrap();
    for hook in kernel.hooks(session, gateway).unwrap() {
        assert!(hook.attached, "{}", hook.name);
    }
    kernel.remove().unwrap();
}

#[test]
fn a_hook_that_was_detached_behind_our_back_is_noticed() {
    let rig = Rig::new("detached");
    let (kernel, _maps) = rig.attach().unwrap();
    let (session, gateway) = rig.directories();
    kernel.verify(session, gateway).unwrap();
    drop(kernel);
    std::fs::remove_file(rig.pins().join("links/connect6")).unwrap();
    let adopted = Kernel::adopt(&rig.pins(), session, gateway);
    assert!(adopted.is_err());
    std::fs::remove_dir_all(rig.pins()).unwrap();
}

#[test]
fn a_program_above_the_session_that_could_rewrite_addresses_is_refused() {
    // Another session's programs at the parent stand for somebody else's.
    let parent = Rig::new("foreign");
    let (above, _maps) = parent.attach().unwrap();
    let child = parent.session.as_ref().unwrap().path().join("child");
    let session = Cgroup::create(&child, true).unwrap();
    let pins = parent.bpffs.0.join("child");
    let (_, gateway) = parent.directories();
    let refused = Kernel::attach(&pins, session.directory(), gateway);
    assert!(
        matches!(refused, Err(KernelError::Foreign { .. })),
        "{refused:?}"
    );
    assert!(!Path::new(&pins).exists(), "nothing half made stays");
    session.destroy().unwrap();
    above.remove().unwrap();
}
