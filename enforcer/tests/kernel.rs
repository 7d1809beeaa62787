//! The programs on the running kernel: loaded, attached, pinned, adopted, refused where something is amiss. Root.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use enforcer::cgroup::Cgroup;
use enforcer::kernel::{self, Carrier, Kernel, KernelError, Maps, Room};
use nix::sys::memfd::{MFdFlags, memfd_create};

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
        Kernel::attach(&self.pins(), session, gateway, Carrier::Nobody, Room::One)
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
    // BPF LSM is not everywhere: the tests of rules about files say what is expected where.
    let layers = kernel::layers();
    let layers = [("lsm", layers.lsm), ("starts", layers.starts)];
    let layers = layers.map(|(name, there)| (name, there.map_err(str::to_owned)));
    for (name, result) in kernel::capabilities().into_iter().chain(layers) {
        let everywhere = name != "lsm" || std::env::var_os("AGENTCONTAINER_NEEDS_LSM").is_some();
        assert!(result.is_ok() || !everywhere, "{name}: {result:?}");
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
fn the_port_of_a_proxy_is_open_anywhere_but_at_metadata_services() {
    let [proxy, other] =
        [0; 2].map(|_| std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let [proxy, other] =
        [proxy, other].map(|listener| (listener.local_addr().unwrap().port(), listener));
    let rig = Rig::new("proxy");
    let (kernel, mut maps) = rig.attach().unwrap();
    let procs = rig.gateway.as_ref().unwrap().path().join("cgroup.procs");
    let dial = |address: &str, port: u16| {
        let mut command = Command::new("bash");
        command.args(["-c", &format!("exec 3<>/dev/tcp/{address}/{port}")]);
        let procs = procs.clone();
        // SAFETY: a write of our own pid to a file, before exec, in a single-threaded child.
        unsafe {
            command.pre_exec(move || std::fs::write(&procs, "0"));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (
            output.status.success(),
            said.contains("Operation not permitted"),
        )
    };
    let policy = |gateway: &str| {
        let text = format!(r#"{{"version": 1, "network": [{{}}], "gateway": {gateway}}}"#);
        let policy = policy::EffectivePolicy::from_json(text.as_bytes()).unwrap();
        enforcer::dial::Dial::new(&policy, &[])
    };
    let (through, refused) = ((true, false), (false, true));
    maps.session.dial_only(&policy("{}")).unwrap();
    assert_eq!(dial("127.0.0.1", proxy.0), refused);
    let behind = format!(r#"{{"upstreamProxy": "http://proxy.corp:{}"}}"#, proxy.0);
    maps.session.dial_only(&policy(&behind)).unwrap();
    assert_eq!(dial("127.0.0.1", proxy.0), through);
    assert_eq!(dial("127.0.0.1", other.0), refused);
    for metadata in ["169.254.169.254", "100.100.100.200"] {
        assert_eq!(dial(metadata, proxy.0), refused, "{metadata}");
    }
    maps.session.dial_only(&policy("{}")).unwrap();
    assert_eq!(dial("127.0.0.1", proxy.0), refused);
    kernel.remove().unwrap();
}

/// A network namespace of a process of its own, which goes with this value.
struct Elsewhere(std::process::Child);

impl Elsewhere {
    fn start() -> (Self, File) {
        let child = Command::new("unshare")
            .args(["--net", "sleep", "60"])
            .spawn()
            .unwrap();
        let elsewhere = Self(child);
        let path = format!("/proc/{}/ns/net", elsewhere.0.id());
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        for _ in 0..500 {
            if std::fs::read_link(&path).is_ok_and(|theirs| theirs != own) {
                return (elsewhere, File::open(path).unwrap());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("unshare --net needs root");
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until nobody steers it: the kernel takes a link down after its last descriptor has gone.
fn unsteered(netns: &File) {
    for _ in 0..500 {
        if kernel::steering_programs(netns).unwrap().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it is still steered");
}

#[test]
fn a_namespace_that_is_steered_again_is_never_without() {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
    let rig = Rig::new("steered");
    let (_first, first) = Elsewhere::start();
    let (_second, second) = Elsewhere::start();
    let (mut kernel, _maps) = rig.attach().unwrap();
    assert!(kernel::steering_programs(&first).unwrap().is_empty());
    kernel.steer(&first).unwrap();
    let (over, looks, without) = (AtomicBool::new(false), AtomicU32::new(0), AtomicU32::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let there = kernel::steering_programs(&first).unwrap().len();
                looks.fetch_add(1, Ordering::Relaxed);
                without.fetch_add(u32::from(there != 1), Ordering::Relaxed);
            }
        });
        let (session, gateway) = rig.directories();
        for _ in 0..50 {
            // As an enforcer does that starts again.
            drop(std::mem::replace(
                &mut kernel,
                Kernel::adopt(&rig.pins(), session, gateway).unwrap().0,
            ));
            kernel.steer(&first).unwrap();
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(looks.load(Ordering::Relaxed) > 50);
    assert_eq!(without.load(Ordering::Relaxed), 0);
    // Another namespace takes the place of the first.
    kernel.steer(&second).unwrap();
    kernel.verify_steering(&second).unwrap();
    unsteered(&first);
    kernel.remove().unwrap();
    unsteered(&second);
}

#[test]
fn steering_that_went_or_is_not_ours_alone_is_noticed() {
    let rig = Rig::new("steering");
    let (_elsewhere, netns) = Elsewhere::start();
    let (mut kernel, mut maps) = rig.attach().unwrap();
    kernel.steer(&netns).unwrap();
    kernel.verify_steering(&netns).unwrap();
    // Another session's program there stands for somebody else's.
    let other = Rig::new("steering-other");
    let (mut foreign, _maps) = other.attach().unwrap();
    let refused = foreign.steer(&netns);
    assert!(
        matches!(refused, Err(KernelError::Foreign { hook: "steer", .. })),
        "{refused:?}"
    );
    assert!(matches!(
        kernel.verify_steering(&netns),
        Err(KernelError::Foreign { hook: "steer", .. })
    ));
    foreign.remove().unwrap();
    let ours_alone = || kernel.verify_steering(&netns).is_ok();
    assert!((0..500).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ours_alone()
    }));

    // Gone while nobody held it: with a gate that was open, the session is not taken up again.
    let mut settings = maps.session.settings().unwrap();
    settings.netns_cookie = 1;
    maps.session.set_settings(settings).unwrap();
    drop(kernel);
    std::fs::remove_file(rig.pins().join("links/steer")).unwrap();
    unsteered(&netns);
    let (session, gateway) = rig.directories();
    let adopted = Kernel::adopt(&rig.pins(), session, gateway);
    assert!(
        matches!(adopted, Err(KernelError::Detached { hook: "steer" })),
        "{adopted:?}"
    );
    drop(adopted);
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
    let refused = Kernel::attach(
        &pins,
        session.directory(),
        gateway,
        Carrier::Nobody,
        Room::One,
    );
    assert!(
        matches!(refused, Err(KernelError::Foreign { .. })),
        "{refused:?}"
    );
    assert!(!Path::new(&pins).exists(), "nothing half made stays");
    session.destroy().unwrap();
    above.remove().unwrap();
}

/// A mount namespace with a process in it that waits, and what is mounted below a directory of it.
struct Mounts {
    waits: std::process::Child,
    directory: tempfile::TempDir,
}

impl Mounts {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("from"), "").unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sleep", "1000"]);
        let waits = command.spawn().unwrap();
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        let link = format!("/proc/{}/ns/mnt", waits.id());
        while std::fs::read_link(&link).is_ok_and(|there| there == own) {
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { waits, directory }
    }

    fn namespace(&self) -> File {
        File::open(format!("/proc/{}/ns/mnt", self.waits.id())).unwrap()
    }

    /// Runs shell commands there, in the directory, and returns what they print.
    fn run(&self, script: &str) -> String {
        let target = self.waits.id().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--target", &target, "--mount", "sh", "-ec"]);
        let at = self.directory.path().display();
        let output = command.arg(format!("cd {at}; {script}")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Mounts that many files, and returns the mounts' numbers.
    fn mount(&self, name: &str, count: usize) -> Vec<u64> {
        let at = self.directory.path().join(name).display().to_string();
        self.run(&format!(
            "for n in $(seq {count}); do : >{name}$n; mount --bind from {name}$n; done"
        ));
        let listed = self.run("cat /proc/self/mountinfo");
        let ours = listed.lines().filter(|line| line.contains(&at));
        let numbers: Vec<u64> = ours
            .map(|line| line.split(' ').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(numbers.len(), count, "{listed}");
        numbers
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        let _ = self.waits.kill();
        let _ = self.waits.wait();
    }
}

#[test]
fn the_number_of_a_listed_mount_is_no_other_mounts() {
    let rig = Rig::new("numbers");
    let (session, gateway) = rig.directories();
    let attached = Kernel::attach(&rig.pins(), session, gateway, Carrier::Starts, Room::One);
    let (mut kernel, _maps) = attached.unwrap();
    // Numbers are the whole kernel's; nothing can be started where the list holds.
    let (elsewhere, held_in) = (Mounts::new(), Mounts::new());
    let starts = kernel.starts().unwrap();

    let number = elsewhere.mount("listed", 1)[0];
    let mounted = format!(
        "/proc/{}/root{}/listed1",
        elsewhere.waits.id(),
        elsewhere.directory.path().display()
    );
    let held = BTreeMap::from([(number, OwnedFd::from(File::open(mounted).unwrap()))]);
    starts.hold(held, &held_in.namespace()).unwrap();
    assert_eq!(starts.listed().unwrap(), BTreeSet::from([number]));
    // Whoever takes the mount away does not get its number for another.
    elsewhere.run("umount --lazy listed1");
    assert!(!elsewhere.mount("first", 64).contains(&number));
    // Let go of, it is given to the next.
    starts.list(BTreeMap::new()).unwrap();
    let next = elsewhere.mount("second", 64);
    assert!(next.contains(&number), "{number}: {next:?}");
}

#[test]
fn a_list_that_ends_nothing_is_not_held() {
    let rig = Rig::new("nothing");
    let (session, gateway) = rig.directories();
    let attached = Kernel::attach(&rig.pins(), session, gateway, Carrier::Starts, Room::One);
    let (mut kernel, _maps) = attached.unwrap();
    let elsewhere = Mounts::new();
    let starts = kernel.starts().unwrap();
    // What is tried is in memory: with the mount of that listed, the kernel ends it no more.
    let memory = memfd_create(c"listed", MFdFlags::MFD_CLOEXEC).unwrap();
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", memory.as_raw_fd()));
    let told = told.unwrap();
    let number = told.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    let number = number.unwrap().trim().parse().unwrap();
    let held = BTreeMap::from([(number, memory)]);
    let refused = starts.hold(held, &elsewhere.namespace());
    assert!(matches!(refused, Err(KernelError::NotEnded)), "{refused:?}");
    starts
        .hold(BTreeMap::new(), &elsewhere.namespace())
        .unwrap();
}

/// A kernel function's number in the kernel's own types (Documentation/bpf/btf.rst).
fn type_of(function: &str) -> u32 {
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let header = word(4);
    let (mut at, end, names) = (
        header + word(8),
        header + word(8) + word(12),
        header + word(16),
    );
    let named =
        |at: usize| bytes[names + word(at)..].starts_with(&[function.as_bytes(), b"\0"].concat());
    let mut number = 1;
    while at < end {
        let (kind, count) = (word(at + 4) >> 24 & 0x1f, word(at + 4) & 0xffff);
        if kind == 12 && named(at) {
            return number;
        }
        at += 12
            + match kind {
                // Integers, variables, tags of declarations.
                1 | 14 | 17 => 4,
                3 => 12,
                4 | 5 | 15 | 19 => 12 * count,
                6 | 13 => 8 * count,
                _ => 0,
            };
        number += 1;
    }
    panic!("no {function}");
}

/// As many programs at a hook as it takes, which decide nothing; without BPF LSM none.
fn filled(hook: &str) -> Vec<OwnedFd> {
    use std::os::fd::FromRawFd as _;
    const LOAD: libc::c_long = 5;
    const OPEN: libc::c_long = 17;
    let call = |command: libc::c_long, attribute: &[u64]| -> std::io::Result<OwnedFd> {
        // SAFETY: what the attribute points to is alive across the call; the descriptor is new and ours.
        unsafe {
            let size = size_of_val(attribute);
            match libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size) {
                fd if fd >= 0 => Ok(OwnedFd::from_raw_fd(fd as i32)),
                _ => Err(std::io::Error::last_os_error()),
            }
        }
    };
    let number = u64::from(type_of(&format!("bpf_lsm_{hook}")));
    // r0 = 0; exit
    let program = [0xb7_u64, 0x95];
    let mut load = [0_u64; 15];
    // BPF_PROG_TYPE_LSM and how many instructions; where they are; the licence; BPF_LSM_MAC; the hook.
    load[0] = 29 | 2 << 32;
    load[1] = program.as_ptr() as u64;
    load[2] = c"GPL".as_ptr() as u64;
    load[8] = 27 << 32;
    load[13] = number << 32;
    let mut all = Vec::new();
    loop {
        let program = call(LOAD, &load).unwrap();
        match call(OPEN, &[0, program.as_raw_fd() as u64]) {
            Ok(link) => all.push(link),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::E2BIG), "{error}");
                return all;
            }
        }
    }
}

#[test]
fn a_hook_that_takes_no_more_programs_is_said_to_be_full_and_what_to_do() {
    if let Err(reason) = kernel::lsm() {
        println!("BPF LSM is not there ({reason}): nothing attaches to it");
        return;
    }
    let rig = Rig::new("full");
    let (session, gateway) = rig.directories();
    let attach = || Kernel::attach(&rig.pins(), session, gateway, Carrier::Lsm, Room::One);
    let mut there = filled("file_open");
    assert!(there.len() <= kernel::MAX_AT_A_HOOK);
    let refused = attach().map(drop).unwrap_err().to_string();
    assert!(
        refused.starts_with("file_open: the kernel takes 38 programs")
            && refused.contains("end one"),
        "{refused}"
    );
    assert!(!rig.pins().exists());
    // With one less there is room.
    there.pop();
    let (kernel, _maps) = attach().unwrap();
    kernel.verify(session, gateway).unwrap();
}
