//! The session's side of the bench: the real enforcer in namespaces of ours, and sessions in it whose first process is
//! the real init, made as enforcer/tests/session/main.rs makes them. Whatever is opened is closed when it is dropped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::driver::Driver;
use super::{load, parts, report, rpc};
use crate::sh;

/// The name that policies here allow.
pub const NAME: &str = "api.bench.test";
/// On the far side: carried as `tls` and as `tcp`, first for many bytes and held connections, then for short ones.
pub const TLS_BULK: u16 = 7001;
pub const TCP_BULK: u16 = 7002;
pub const TLS_SHORT: u16 = 7003;
pub const TCP_SHORT: u16 = 7004;

pub struct Rig {
    pub dir: PathBuf,
    enforcer: Child,
    cgroup2: PathBuf,
    /// How long OpenSession took, by number of rules.
    opened: std::cell::RefCell<Vec<(usize, Duration)>>,
    /// The far side, on this namespace's loopback and on the veth's address.
    _far: Driver,
}

/// A session with a load in it.
pub struct Session<'a> {
    rig: &'a Rig,
    pub id: String,
    cgroup: PathBuf,
    pub driver: Option<Driver>,
}

impl Rig {
    pub fn start() -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("agentcontainer-bench-{}", std::process::id()));
        for name in ["", "bpf", "state"] {
            let dir = dir.join(name);
            fs::create_dir_all(&dir)?;
            // The gateway, which has no rights, runs a binary in here.
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
        }
        for name in ["enforcer", "gateway", "init"].map(|name| format!("agentcontainer-{name}")) {
            fs::copy(parts().join(&name), dir.join(&name))
                .with_context(|| format!("{name} is not built: leave --no-build out"))?;
        }
        fs::copy(load(), dir.join("bench-load"))?;
        sh::run(sh::command("mount", ["-t", "bpf", "bpf"]).arg(dir.join("bpf")))?;
        fs::create_dir_all("/run/netns")?;
        sh::run(&mut sh::command(
            "mount",
            ["-t", "tmpfs", "tmpfs", "/run/netns"],
        ))?;
        sh::run(&mut sh::command("ip", ["link", "set", "lo", "up"]))?;
        let mut far = Command::new(dir.join("bench-load"));
        far.args(["serve", "0.0.0.0"])
            .arg(format!("{TLS_BULK},{TCP_BULK}"))
            .arg(format!("{TLS_SHORT},{TCP_SHORT}"));
        let far = Driver::start(&mut far)?;
        let socket = dir.join("enforcer.sock");
        let log = fs::File::create(dir.join("enforcer.log"))?;
        let mut enforcer = sh::command("setpriv", ["--pdeathsig", "KILL"]);
        enforcer
            .arg(dir.join("agentcontainer-enforcer"))
            .arg("serve")
            .env("AGENTCONTAINER_STATE", dir.join("state"))
            .env("AGENTCONTAINER_BPFFS", dir.join("bpf"))
            .env("AGENTCONTAINER_SOCKET", &socket)
            .env("AGENTCONTAINER_INIT", dir.join("agentcontainer-init"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let rig = Self {
            enforcer: enforcer.spawn().context("cannot start the enforcer")?,
            cgroup2: cgroup2()?,
            opened: Default::default(),
            dir,
            _far: far,
        };
        within("the enforcer answers", || rpc::answers(&socket))?;
        Ok(rig)
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("enforcer.sock")
    }

    pub fn load(&self) -> PathBuf {
        self.dir.join("bench-load")
    }

    pub fn enforcer_pid(&self) -> u32 {
        self.enforcer.id()
    }

    /// Opens a session; `cpus` is where its load may run.
    pub fn session(&self, id: &str, policy: &serde_json::Value, cpus: &str) -> Result<Session<'_>> {
        self.session_that_trusts(id, policy, cpus, &[])
    }

    /// The same, whose upstreams are verified with that certificate (DER).
    pub fn session_that_trusts(
        &self,
        id: &str,
        policy: &serde_json::Value,
        cpus: &str,
        root: &[u8],
    ) -> Result<Session<'_>> {
        let id = format!("{id}_{}", std::process::id());
        let began = Instant::now();
        let parent = rpc::open(&self.socket(), &id, policy.to_string().as_bytes(), root)
            .with_context(|| self.said())?;
        let rules = policy["network"][0]["rules"].as_array().map_or(0, Vec::len);
        self.opened.borrow_mut().push((rules, began.elapsed()));
        let cgroup = self.cgroup2.join(parent.trim_start_matches('/'));
        let mut session = Session {
            rig: self,
            id,
            cgroup,
            driver: None,
        };
        let container = session.container();
        fs::create_dir_all(&container)?;
        let mut command = sh::command("sh", ["-c"]);
        command
            .arg("echo 0 >\"$0\" && exec unshare --pid --fork --net -- \"$@\"")
            .arg(container.join("cgroup.procs"))
            .arg(self.dir.join("agentcontainer-init"))
            .args(["--", "taskset", "-c", cpus])
            .arg(self.load())
            .arg("drive");
        session.driver = Some(Driver::start(&mut command).with_context(|| self.said())?);
        Ok(session)
    }

    /// How long OpenSession took, curl's own start included.
    pub fn show_opened(&self) {
        report::head("OpenSession", &["rules", "took"]);
        for (rules, took) in self.opened.borrow().iter() {
            report::row(&[rules.to_string(), report::time(took.as_nanos() as f64)]);
        }
    }

    fn said(&self) -> String {
        fs::read_to_string(self.dir.join("enforcer.log")).unwrap_or_default()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.enforcer.kill();
        let _ = self.enforcer.wait();
        let _ = sh::run(sh::command("umount", ["-l"]).arg(self.dir.join("bpf")));
        let _ = fs::remove_dir_all(&self.dir);
        // Empty now: every session was closed. Another enforcer's stay.
        for name in ["agentcontainer", "agentcontainer.gateway"] {
            let _ = fs::remove_dir(self.cgroup2.join(name));
        }
    }
}

impl Session<'_> {
    fn container(&self) -> PathBuf {
        self.cgroup.join("container")
    }

    pub fn ask(&mut self, order: &str) -> Result<super::driver::Figures> {
        self.driver.as_mut().context("no load")?.ask(order)
    }

    /// The address that the session's DNS gives for the name.
    pub fn address(&mut self) -> Result<String> {
        self.ask(&format!("resolve {NAME}"))?
            .remove("address")
            .context("no address")
    }

    /// The first process in the session's namespaces.
    pub fn init(&self) -> Result<u32> {
        pids(&self.container())?
            .into_iter()
            .find(|pid| {
                fs::read_to_string(format!("/proc/{pid}/comm"))
                    .is_ok_and(|comm| comm.starts_with("agentcontainer-"))
            })
            .context("no init in the session")
    }

    pub fn gateway(&self) -> Result<u32> {
        let cgroup = self
            .rig
            .cgroup2
            .join("agentcontainer.gateway")
            .join(&self.id);
        match pids(&cgroup)?[..] {
            [pid] => Ok(pid),
            ref pids => bail!("the session has {} gateways", pids.len()),
        }
    }

    /// The beginning of a command line that runs what follows as one of the session's programs.
    pub fn inside(&self) -> Result<Command> {
        let enter = format!("--net=/proc/{}/ns/net", self.init()?);
        let mut command = sh::command("sh", ["-c"]);
        command
            .arg("echo 0 >\"$0\" && exec nsenter \"$@\"")
            .arg(self.container().join("cgroup.procs"))
            .arg(enter);
        Ok(command)
    }

    /// Another load, in the session's network namespace but outside its cgroup: no gate.
    pub fn beside(&self, words: &[&str]) -> Result<Driver> {
        let mut command = sh::command("nsenter", [format!("--net=/proc/{}/ns/net", self.init()?)]);
        Driver::start(command.arg(self.rig.load()).args(words))
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        drop(self.driver.take());
        let _ = fs::remove_dir(self.container());
        if let Err(error) = rpc::close(&self.rig.socket(), &self.id) {
            eprintln!("session {}: {error:#}", self.id);
        }
    }
}

/// A policy of `count` rules: the first two allow the name here, as `tls` and as `tcp`, the others names nobody asks for.
/// With one rule there is `tcp` only.
pub fn policy(count: usize) -> serde_json::Value {
    let rule = |at: usize, host: &str, ports: &[u16], protocol: &str| {
        serde_json::json!({
            "host": host, "ports": ports, "protocol": protocol, "action": "allow",
            "origin": {"file": "agentcontainer.json", "line": at + 1, "column": 1},
        })
    };
    let rules: Vec<_> = (0..count)
        .map(|at| match at {
            0 => rule(at, NAME, &[TCP_BULK, TCP_SHORT], "tcp"),
            1 => rule(at, NAME, &[TLS_BULK, TLS_SHORT], "tls"),
            at => rule(at, &format!("n{}.other.test", at - 2), &[443], "tls"),
        })
        .collect();
    serde_json::json!({
        "version": 1,
        "network": [{"rules": rules}],
        "gateway": {"hosts": {NAME: ["127.0.0.1"]}},
    })
}

/// CPU seconds that processes have used, their ended children left out.
pub fn cpu(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0.0;
    for pid in processes {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (_, rest) = text.rsplit_once(") ").context("no stat")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        // utime and stime, fields 14 and 15 of proc_pid_stat(5), the third of which is the first here.
        for field in [11, 12] {
            ticks += fields.get(field).context("no times")?.parse::<f64>()?;
        }
    }
    // USER_HZ is 100 on every architecture that we build for.
    Ok(ticks / 100.0)
}

pub fn within(what: &str, mut done: impl FnMut() -> bool) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        ensure!(Instant::now() < until, "ten seconds passed before {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

fn pids(cgroup: &Path) -> Result<Vec<u32>> {
    let text = fs::read_to_string(cgroup.join("cgroup.procs"))
        .with_context(|| format!("no {}", cgroup.display()))?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
}

fn cgroup2() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let line = mounts.lines().find(|line| line.contains(" cgroup2 "));
    let point = line.and_then(|line| line.split(' ').nth(1));
    Ok(point.context("no cgroup v2 hierarchy is mounted")?.into())
}
