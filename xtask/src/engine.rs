//! `cargo xtask engine`: the container engine of demo and tests. Where the machine's own reports cgroup v2 and the cgroupfs
//! driver, that one; else one of ours, in a mount namespace that shows only cgroup2, with its own data, socket and bridge. It has no
//! firewall rules and no route out: containers reach the bridge's address and each other, nothing of the machine changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::{ebpf, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Clone, Copy, clap::Subcommand)]
enum Action {
    /// Start an engine where the machine's own will not do; it runs until `stop`
    Start,
    /// Stop the engine that `start` started, with its containers; images stay
    Stop,
    /// Say which engine demo and tests use
    Status,
    /// Print the engine's address for `eval`
    Env,
}

/// What `start` leaves for `stop`: nothing else is ever stopped or removed.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    host: String,
    bridge: String,
    address: String,
    /// dockerd, then its containerd.
    processes: Vec<Process>,
}

/// A process id with the moment it began, in clock ticks since boot: an id alone is handed out again.
#[derive(Debug, Serialize, Deserialize)]
struct Process {
    pid: u32,
    began: u64,
}

/// Runs in the private mount namespace. The engine sees cgroup2 where it looks for it; the machine's own mounts stay as they are.
const SCRIPT: &str = r#"
set -eu
run=$1 data=$2 bridge=$3 group=$4
if [ "$(stat -f -c %T /sys/fs/cgroup)" != cgroup2fs ]; then
  for at in $(awk '$2 ~ "^/sys/fs/cgroup/" {print $2}' /proc/self/mounts); do umount -l "$at"; done
  umount -l /sys/fs/cgroup
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
fi
mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf
containerd --config "$run/containerd.toml" >"$data/containerd.log" 2>&1 &
echo $! >"$run/containerd.pid"
exec dockerd --host "unix://$run/docker.sock" --group "$group" --containerd "$run/containerd.sock" --data-root "$data/docker" \
  --exec-root "$run/docker" --pidfile "$run/dockerd.pid" --exec-opt native.cgroupdriver=cgroupfs --config-file "$run/daemon.json" \
  --bridge "$bridge" --iptables=false --ip-forward=false --ip-masq=false --userland-proxy=false >"$data/dockerd.log" 2>&1
"#;

pub fn run(arguments: &Arguments) -> Result<()> {
    match arguments.action {
        Action::Start => println!("{}", ensure_running()?),
        Action::Stop => stop()?,
        Action::Status => match current()? {
            Some(host) => println!("{host}: {}", describe(&host)?),
            None => {
                bail!("no engine that demo and tests can use is running: cargo xtask engine start")
            }
        },
        Action::Env => {
            let host = current()?.context("no engine is running: cargo xtask engine start")?;
            println!("export DOCKER_HOST={host}");
        }
    }
    Ok(())
}

/// The same, and whether it was started by this call: who started it stops it.
pub fn ensure_running_here() -> Result<(String, bool)> {
    let before = current()?.is_some();
    Ok((ensure_running()?, !before))
}

/// The engine that demo and tests use, as a `DOCKER_HOST`; started where there is none.
pub fn ensure_running() -> Result<String> {
    if let Some(host) = current()? {
        return Ok(host);
    }
    if sh::is_root() {
        return start();
    }
    as_root("start")?;
    current()?.context("the engine was started and does not answer")
}

/// Stops the engine that was started here, if one was.
pub fn stop() -> Result<()> {
    if sh::is_root() {
        return end();
    }
    if State::read()?.is_some() {
        as_root("stop")?;
    }
    Ok(())
}

fn as_root(word: &str) -> Result<()> {
    let path = std::env::var("PATH")?;
    let keep = [
        format!("PATH={path}"),
        format!(
            "CARGO_MANIFEST_DIR={}",
            paths::root().join("xtask").display()
        ),
    ];
    sh::run(
        sh::root("env", keep)
            .arg(std::env::current_exe()?)
            .args(["engine", word]),
    )
}

/// Ours where it runs; else the one that DOCKER_HOST or the default socket names, if it is fit for the purpose.
fn current() -> Result<Option<String>> {
    if let Some(state) = State::read()?
        && state.processes.iter().all(Process::is_ours)
        && answers(&state.host)
    {
        return Ok(Some(state.host));
    }
    let host =
        std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".into());
    let fit = describe(&host).is_ok_and(|said| said == "cgroup 2 cgroupfs");
    Ok(fit.then_some(host))
}

fn start() -> Result<String> {
    end()?;
    for program in ["dockerd", "containerd", "docker", "unshare", "ip"] {
        ensure!(
            sh::there(program),
            "{program} is not installed: cargo xtask setup"
        );
    }
    let (run, data) = (run_dir(), data_dir());
    fs::create_dir_all(&run)?;
    fs::create_dir_all(&data)?;
    fs::write(run.join("daemon.json"), "{}\n")?;
    let containerd = format!(
        "version = 2\nroot = \"{data}/containerd\"\nstate = \"{run}/containerd\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n\
         [grpc]\naddress = \"{run}/containerd.sock\"\n",
        data = data.display(),
        run = run.display()
    );
    fs::write(run.join("containerd.toml"), containerd)?;
    let (bridge, address) = make_bridge()?;
    let group = std::env::var("SUDO_GID").unwrap_or_else(|_| "0".into());
    let mut child = sh::command(
        "setsid",
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "bash",
            "-c",
            SCRIPT,
            "engine",
        ],
    )
    .arg(&run)
    .arg(&data)
    .args([&bridge, &group])
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(fs::File::create(data.join("start.log"))?)
    .spawn()?;
    let mut state = State {
        host: format!("unix://{}/docker.sock", run.display()),
        bridge,
        address,
        processes: Vec::new(),
    };
    state.write()?;
    let began = Instant::now();
    while !answers(&state.host) {
        let ended = child.try_wait()?;
        if ended.is_some() || began.elapsed() > Duration::from_secs(60) {
            let log = fs::read_to_string(data.join("dockerd.log")).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(5).collect();
            end()?;
            bail!(
                "the engine does not start (see {}):\n{}",
                data.display(),
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    state.processes = ["dockerd.pid", "containerd.pid"]
        .iter()
        .map(|file| Process::from_file(&run.join(file)))
        .collect::<Result<_>>()?;
    state.write()?;
    Ok(state.host)
}

fn end() -> Result<()> {
    let Some(mut state) = State::read()? else {
        return Ok(());
    };
    if state.processes.is_empty() {
        // Interrupted while it started.
        let files = ["dockerd.pid", "containerd.pid"];
        state.processes = files
            .iter()
            .filter_map(|file| Process::from_file(&run_dir().join(file)).ok())
            .collect();
    }
    for process in &state.processes {
        process.end()?;
    }
    if Path::new("/sys/class/net")
        .join(&state.bridge)
        .join("bridge")
        .is_dir()
    {
        sh::run(&mut sh::command("ip", ["link", "delete", &state.bridge]))?;
    }
    fs::remove_dir_all(run_dir()).or_else(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            Ok(())
        } else {
            Err(error)
        }
    })?;
    fs::remove_file(State::file())?;
    Ok(())
}

/// A bridge device that nobody has yet, on a subnet that nobody has yet.
fn make_bridge() -> Result<(String, String)> {
    let taken = sh::output(&mut sh::command("ip", ["-4", "route", "show"]))?;
    for number in (200..=250).rev() {
        let (name, subnet) = (
            format!("ac-test{}", 250 - number),
            format!("172.31.{number}."),
        );
        if taken.contains(&subnet) || Path::new("/sys/class/net").join(&name).exists() {
            continue;
        }
        let address = format!("{subnet}1");
        sh::run(&mut sh::command(
            "ip",
            // An address of its own: else it is the lowest of its ports', and changes as containers come and go.
            [
                "link",
                "add",
                &name,
                "address",
                &hardware(&address),
                "type",
                "bridge",
            ],
        ))?;
        sh::run(&mut sh::command(
            "ip",
            ["address", "add", &format!("{address}/24"), "dev", &name],
        ))?;
        sh::run(&mut sh::command("ip", ["link", "set", &name, "up"]))?;
        return Ok((name, address));
    }
    bail!("no free bridge name and subnet");
}

/// A locally administered hardware address made of the bridge's own IPv4 address.
fn hardware(address: &str) -> String {
    let bytes: Vec<String> = address
        .split('.')
        .filter_map(|part| part.parse::<u8>().ok())
        .map(|part| format!("{part:02x}"))
        .collect();
    format!("02:ac:{}", bytes.join(":"))
}

fn answers(host: &str) -> bool {
    describe(host).is_ok()
}

fn describe(host: &str) -> Result<String> {
    sh::output(&mut sh::command(
        "docker",
        [
            "--host",
            host,
            "info",
            "--format",
            "cgroup {{.CgroupVersion}} {{.CgroupDriver}}",
        ],
    ))
}

/// Sockets are here: a path in the clone may be longer than a socket's address can be. Another clone has another one.
fn run_dir() -> PathBuf {
    let clone = ebpf::sha256(paths::root().as_os_str().as_encoded_bytes());
    PathBuf::from(format!("/run/agentcontainer-engine-{}", &clone[..8]))
}

/// The same for every CARGO_TARGET_DIR: one engine a clone.
fn data_dir() -> PathBuf {
    paths::root().join("target/engine")
}

// === impl State ===

impl State {
    fn file() -> PathBuf {
        data_dir().join("state.json")
    }

    fn read() -> Result<Option<Self>> {
        match fs::read(Self::file()) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes)
                    .context("target/engine/state.json cannot be read")?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self) -> Result<()> {
        Ok(fs::write(Self::file(), serde_json::to_vec_pretty(self)?)?)
    }
}

// === impl Process ===

impl Process {
    fn from_file(file: &Path) -> Result<Self> {
        let pid: u32 = fs::read_to_string(file)?.trim().parse()?;
        Ok(Self {
            pid,
            began: began(pid).with_context(|| format!("process {pid} is gone"))?,
        })
    }

    /// Whether the process is still the one that was started, and runs from our directory.
    fn is_ours(&self) -> bool {
        let command = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let ours = run_dir();
        let ours = ours.as_os_str().as_encoded_bytes();
        began(self.pid) == Some(self.began) && command.windows(ours.len()).any(|part| part == ours)
    }

    fn end(&self) -> Result<()> {
        for (signal, patience) in [("-TERM", 30), ("-KILL", 10)] {
            if !self.is_ours() {
                return Ok(());
            }
            sh::run(Command::new("kill").arg(signal).arg(self.pid.to_string()))?;
            let since = Instant::now();
            while self.is_ours() && since.elapsed() < Duration::from_secs(patience) {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        ensure!(
            !self.is_ours(),
            "process {} of the engine does not end",
            self.pid
        );
        Ok(())
    }
}

fn began(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command's name, in brackets, may hold anything; the start time is the 22nd field.
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(19)?.parse().ok()
}
