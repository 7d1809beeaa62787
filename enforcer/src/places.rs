//! Where things are: the state directory, the control socket, the pins, the cgroup tree, our own binaries. Read once at
//! start from the environment that the sidecar's image sets, so that nothing else guesses a path.

use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::slice;

/// Name of the cgroup that all session cgroups live under.
pub const CGROUP: &str = "agentcontainer";
/// Name of the slice of the same, where systemd makes cgroups.
const SLICE: &str = "agentcontainer.slice";
/// Name of the cgroup that all gateways live under.
pub const GATEWAY_CGROUP: &str = "agentcontainer.gateway";

#[derive(Debug, thiserror::Error)]
pub enum PlacesError {
    #[error("no cgroup v2 hierarchy is mounted here")]
    NoCgroup2,
    #[error("cannot {call} {path}: {source}")]
    Io {
        call: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "no BPF file system is mounted at {0}: `mount -t bpf bpf {0}` on the host, then start the enforcer again"
    )]
    NoBpffs(PathBuf),
    #[error("{0} is not a user id")]
    Uid(String),
}

/// The places of one enforcer.
#[derive(Clone, Debug)]
pub struct Places {
    /// Mount point of the cgroup v2 hierarchy.
    pub cgroup2: PathBuf,
    /// Whether systemd makes the engine's cgroups.
    pub slices: bool,
    /// Directory of this enforcer version's pins, on a bpffs.
    pub pins: PathBuf,
    /// Session records of this enforcer version.
    pub sessions: PathBuf,
    /// Event logs, shared by all versions.
    pub logs: PathBuf,
    /// The control socket.
    pub socket: PathBuf,
    /// The user whose requests are answered, besides root.
    pub uid: u32,
    pub gateway: PathBuf,
    /// The init that containers run, by whose inode wiring knows it.
    pub init: PathBuf,
    /// Hex SHA-256 of this binary.
    pub binary_sha256: String,
}

impl Places {
    pub fn from_env() -> Result<Self, PlacesError> {
        let var = |name: &str, default: &str| {
            std::env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
        };
        let exe = PathBuf::from("/proc/self/exe");
        let mut digest = Sha256::new();
        std::fs::File::open(&exe)
            .and_then(|mut binary| std::io::copy(&mut binary, &mut digest))
            .map_err(io("read", &exe))?;
        let binary_sha256 = hex(&digest.finalize());
        let version = &binary_sha256[..12];
        let state = var("AGENTCONTAINER_STATE", "/var/lib/agentcontainer");
        let bpffs = var("AGENTCONTAINER_BPFFS", "/sys/fs/bpf");
        let kind = nix::sys::statfs::statfs(&bpffs).map(|fs| fs.filesystem_type());
        if kind != Ok(nix::sys::statfs::BPF_FS_MAGIC) {
            return Err(PlacesError::NoBpffs(bpffs));
        }
        let own = std::fs::canonicalize(&exe).map_err(io("resolve", &exe))?;
        let beside = own.parent().map(Path::to_path_buf).unwrap_or_default();
        let uid = match std::env::var("AGENTCONTAINER_UID") {
            Ok(text) => text.parse().map_err(|_| PlacesError::Uid(text))?,
            Err(_) => 0,
        };
        let places = Self {
            cgroup2: cgroup2()?,
            slices: std::env::var_os("AGENTCONTAINER_CGROUPS")
                .is_some_and(|word| word == "systemd"),
            pins: bpffs.join(CGROUP).join(version),
            sessions: state.join(version).join("sessions"),
            logs: state.join("logs"),
            socket: var("AGENTCONTAINER_SOCKET", "/run/agentcontainer/enforcer.sock"),
            uid,
            gateway: std::env::var_os("AGENTCONTAINER_GATEWAY")
                .map_or_else(|| beside.join("agentcontainer-gateway"), PathBuf::from),
            init: var(
                "AGENTCONTAINER_INIT",
                "/agentcontainer/bin/agentcontainer-init",
            ),
            binary_sha256,
        };
        for dir in [&places.sessions, &places.logs] {
            std::fs::create_dir_all(dir).map_err(io("create", dir))?;
        }
        Ok(places)
    }

    /// The cgroup that all sessions' cgroups are in.
    pub fn session_cgroups(&self) -> PathBuf {
        let name = if self.slices { SLICE } else { CGROUP };
        self.cgroup2.join(name)
    }

    pub fn session_cgroup(&self, session: &str) -> PathBuf {
        let all = self.session_cgroups();
        match self.slices {
            true => all.join(slice::unit(session)),
            false => all.join(session),
        }
    }

    /// A session's cgroup as the engine is told of it.
    pub fn cgroup_parent(&self, session: &str) -> String {
        match self.slices {
            true => slice::unit(session),
            false => self.proc_cgroup(session),
        }
    }

    /// The same as `/proc/PID/cgroup` spells it.
    pub fn proc_cgroup(&self, session: &str) -> String {
        let path = self.session_cgroup(session);
        let below = path.strip_prefix(&self.cgroup2).unwrap_or(&path);
        format!("/{}", below.display())
    }

    pub fn gateway_cgroup(&self, session: &str) -> PathBuf {
        self.cgroup2.join(GATEWAY_CGROUP).join(session)
    }

    pub fn log(&self, session: &str) -> PathBuf {
        self.logs.join(format!("{session}.jsonl"))
    }
}

fn io(call: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> PlacesError {
    let path = path.to_path_buf();
    move |source| PlacesError::Io { call, path, source }
}

/// The first cgroup2 mount whose root is the hierarchy's own (proc_pid_mountinfo(5)).
fn cgroup2() -> Result<PathBuf, PlacesError> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read_to_string(path).map_err(io("read", path))?;
    text.lines()
        .filter_map(|line| {
            let (mount, filesystem) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, point) = (fields.next()?, fields.next()?);
            (filesystem.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(point))
        })
        .next()
        .ok_or(PlacesError::NoCgroup2)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
