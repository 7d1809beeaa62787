//! An engine of one test's own: one that may be killed, or that sees other cgroups than the shared one does. Its data lie in a
//! directory of the test's; its containers are on the shared engine's bridge, in the upper half of its addresses.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::{docker, outcome, rig};

/// The image that `import_small` leaves: a shell and what it takes to dial.
pub const SMALL: &str = "agentcontainer-small:latest";

/// What the engine sees at /sys/fs/cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cgroups {
    /// Version 2 and nothing else.
    V2,
    /// What this machine has there.
    OfTheMachine,
}

/// dockerd and its containerd; they and all they ran go with this value.
#[derive(Debug)]
pub struct OwnEngine {
    dir: TempDir,
    containerd: Child,
    dockerd: Option<Child>,
}

/// In a mount namespace of its own; containerd holds it, and dockerd joins it.
const MOUNTS: &str = r#"
set -eu
if [ "$2" = V2 ] && [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
  for at in $(awk '$2 ~ "^/sys/fs/cgroup/" {print $2}' /proc/self/mounts); do umount -l "$at"; done
  umount -l /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
exec containerd --config "$1/containerd.toml"
"#;

impl OwnEngine {
    /// Starts one and waits until it answers.
    pub fn start(cgroups: Cgroups) -> Self {
        let dir = tempfile::Builder::new().prefix("ac-en-").tempdir().unwrap();
        let at = dir.path().display();
        fs::write(dir.path().join("daemon.json"), "{}\n").unwrap();
        let config = format!(
            "version = 2\nroot = \"{at}/containerd\"\nstate = \"{at}/run\"\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{at}/containerd.sock\"\n"
        );
        fs::write(dir.path().join("containerd.toml"), config).unwrap();
        let containerd = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "bash", "-c", MOUNTS])
            .arg("engine")
            .arg(dir.path())
            .arg(format!("{cgroups:?}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("containerd.log")).unwrap())
            .spawn()
            .expect("unshare is not installed: cargo xtask setup");
        let mut engine = Self {
            dir,
            containerd,
            dockerd: None,
        };
        let socket = engine.dir.path().join("containerd.sock");
        engine.wait("containerd", || socket.exists());
        engine.start_again();
        engine
    }

    /// Its address, as `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}/docker.sock", self.dir.path().display())
    }

    /// Ends dockerd on the spot; containerd and the containers are left to themselves.
    pub fn kill(&mut self) {
        if let Some(mut dockerd) = self.dockerd.take() {
            dockerd.kill().unwrap();
            dockerd.wait().unwrap();
        }
    }

    /// Starts dockerd over the data that are there.
    pub fn start_again(&mut self) {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let _ = fs::remove_file(self.dir.path().join("dockerd.pid"));
        let (bridge, range) = bridge();
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(at("dockerd.log"))
            .unwrap();
        let dockerd = Command::new("nsenter")
            .args(["--mount", "--target", &self.containerd.id().to_string()])
            .args(["dockerd", "--host", &self.host()])
            .args(["--containerd", &at("containerd.sock")])
            .args(["--data-root", &at("docker"), "--exec-root", &at("exec")])
            .args(["--pidfile", &at("dockerd.pid")])
            .args(["--config-file", &at("daemon.json")])
            .args(["--exec-opt", "native.cgroupdriver=cgroupfs"])
            .args(["--bridge", &bridge, "--fixed-cidr", &range])
            .args(["--iptables=false", "--ip-forward=false"])
            .args(["--ip-masq=false", "--userland-proxy=false"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nsenter is not installed: cargo xtask setup");
        self.dockerd = Some(dockerd);
        let host = self.host();
        self.wait("dockerd", || {
            let mut ask = Command::new("docker");
            ask.args(["--host", &host, "version"]);
            outcome::finish(ask, outcome::DEADLINE).status == 0
        });
    }

    /// Puts a small image, made of the shared engine's test image, into it.
    pub fn import_small(&self) {
        let pack = "tar -chf - /etc/passwd /etc/group /etc/nsswitch.conf $(for one in bash sh sleep cat timeout date touch; do
            path=$(command -v $one); echo $path; ldd $path | grep -o '/[^ ]*'; done | sort -u) 2>/dev/null";
        let line = format!(
            "docker --host {} run --rm --network none {} sh -c \"$0\" | docker --host {} import --change 'USER 1000' - {SMALL}",
            rig().docker_host,
            rig().image,
            self.host()
        );
        let mut import = Command::new("bash");
        import.args(["-o", "pipefail", "-c", &line, pack]);
        outcome::finish(import, outcome::DEADLINE).ok();
    }

    fn wait(&self, what: &str, up: impl Fn() -> bool) {
        let began = Instant::now();
        while !up() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{what} does not start: {}",
                fs::read_to_string(self.dir.path().join(format!("{what}.log"))).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Processes that name our directory: shims, above all.
    fn left(&self) -> Vec<u32> {
        let ours = self.dir.path().as_os_str().as_encoded_bytes();
        let pids = fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.windows(ours.len()).any(|part| part == ours)
        })
        .collect()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.dockerd.is_some() {
            let host = self.host();
            let ask = |words: &[&str]| {
                let mut docker = Command::new("docker");
                docker.args(["--host", &host]).args(words);
                outcome::finish(docker, outcome::DEADLINE)
            };
            for id in ask(&["ps", "--all", "--quiet"]).stdout.lines() {
                ask(&["rm", "--force", "--volumes", id]);
            }
        }
        let children = [self.dockerd.as_mut(), Some(&mut self.containerd)];
        for child in children.into_iter().flatten() {
            outcome::signal(child.id(), "-TERM", false);
            let began = Instant::now();
            while matches!(child.try_wait(), Ok(None)) && began.elapsed() < Duration::from_secs(10)
            {
                std::thread::sleep(Duration::from_millis(50));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.left() {
            outcome::signal(pid, "-KILL", false);
        }
    }
}

/// The device that has the bridge's address, and the upper half of its network.
fn bridge() -> (String, String) {
    let output = Command::new("ip")
        .args(["-oneline", "-4", "address"])
        .output()
        .unwrap();
    let all = String::from_utf8_lossy(&output.stdout).into_owned();
    let address = format!(" inet {}/", rig().bridge);
    let device = all
        .lines()
        .find(|line| line.contains(&address))
        .and_then(|line| line.split_whitespace().nth(1))
        .expect("no device has the bridge's address");
    let [a, b, c, _] = rig().bridge.octets();
    (device.to_owned(), format!("{a}.{b}.{c}.128/25"))
}

/// Whether this machine shows an engine anything but cgroup v2.
pub fn has_cgroup_v1() -> bool {
    !Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A container's name on that engine, running or not, by a word in its name or labels.
pub fn listed(host: &str, word: &str, options: &[&str]) -> bool {
    let words = [&["ps", "--format", "{{.Names}} {{.Labels}}"], options].concat();
    docker::run_on(host, &words).contains(word)
}
