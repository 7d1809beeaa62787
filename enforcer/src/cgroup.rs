//! cgroups of sessions and gateways (kernel Documentation/admin-guide/cgroup-v2.rst). A session's cgroup has an anchor
//! child: an engine that removes its containers' parents finds it not empty and leaves it, with the programs attached to
//! it.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the child that keeps a session's cgroup from being removed.
const ANCHOR: &str = "anchor";

#[derive(Debug, thiserror::Error)]
#[error("cannot {call} cgroup {}: {source}", path.display())]
pub struct CgroupError {
    pub call: &'static str,
    pub path: PathBuf,
    #[source]
    pub source: io::Error,
}

fn error(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_path_buf();
    move |source| CgroupError { call, path, source }
}

/// One cgroup that we made.
#[derive(Debug)]
pub struct Cgroup {
    path: PathBuf,
    directory: File,
    id: u64,
}

impl Cgroup {
    /// Makes it, with its anchor. It must not exist: an inherited one could hold processes.
    pub fn create(path: &Path, anchored: bool) -> Result<Self, CgroupError> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(error("create", parent))?;
        }
        std::fs::create_dir(path).map_err(error("create", path))?;
        if anchored {
            anchor(path)?;
        }
        Self::open(path)
    }

    /// One that systemd was asked for and has made, or is about to, with its anchor.
    pub fn made(path: &Path) -> Result<Self, CgroupError> {
        let mut anchored = anchor(path);
        for _ in 0..500 {
            match &anchored {
                Err(e) if e.source.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
            std::thread::sleep(Duration::from_millis(10));
            anchored = anchor(path);
        }
        anchored?;
        let made = Self::open(path)?;
        if made.populated()? {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(error("take", path)(source));
        }
        Ok(made)
    }

    /// Says that a living enforcer has it: the lock goes with this value, or with the process (flock(2)). Others may hold it too.
    pub fn hold(&self) -> Result<(), CgroupError> {
        self.directory
            .lock_shared()
            .map_err(error("lock", &self.path))
    }

    pub fn open(path: &Path) -> Result<Self, CgroupError> {
        let directory = File::open(path).map_err(error("open", path))?;
        // The inode number of a cgroup's directory is its id (kernel `cgroup_id`).
        let id = directory.metadata().map_err(error("stat", path))?.ino();
        Ok(Self {
            path: path.to_path_buf(),
            directory,
            id,
        })
    }

    pub fn directory(&self) -> &File {
        &self.directory
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> u64 {
        self.id
    }

    /// Processes in it and below it.
    pub fn processes(&self) -> Result<Vec<u32>, CgroupError> {
        let mut pids = Vec::new();
        collect(&self.path, &mut pids)?;
        Ok(pids)
    }

    pub fn populated(&self) -> Result<bool, CgroupError> {
        let path = self.path.join("cgroup.events");
        let text = std::fs::read_to_string(&path).map_err(error("read", &path))?;
        Ok(text.lines().any(|line| line == "populated 1"))
    }

    /// Kills what is in it (cgroup.kill, Linux 5.14) and removes it with what is below. Waits, bounded, for the
    /// processes to be gone.
    pub fn destroy(self) -> Result<(), CgroupError> {
        let kill = self.path.join("cgroup.kill");
        std::fs::write(&kill, "1").map_err(error("kill", &kill))?;
        let mut result = Ok(());
        for _ in 0..200 {
            result = remove(&self.path);
            if result.is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        result
    }
}

fn anchor(path: &Path) -> Result<(), CgroupError> {
    let anchor = path.join(ANCHOR);
    std::fs::create_dir(&anchor).map_err(error("create", &anchor))
}

fn collect(path: &Path, pids: &mut Vec<u32>) -> Result<(), CgroupError> {
    let procs = path.join("cgroup.procs");
    let text = match std::fs::read_to_string(&procs) {
        Ok(text) => text,
        // Removed while we walked: nothing is in it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(()),
        // A threaded child: its processes are its parent's.
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => return Ok(()),
        Err(e) => return Err(error("read", &procs)(e)),
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in children(path)? {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(path: &Path) -> Result<Vec<PathBuf>, CgroupError> {
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(error("list", path)(e)),
    };
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

/// Removes it with what is below, where nothing lives in it.
pub fn remove(path: &Path) -> Result<(), CgroupError> {
    for child in children(path)? {
        remove(&child)?;
    }
    match std::fs::remove_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(error("remove", path)),
    }
}

/// The cgroup v2 path of a process, as this process's cgroup namespace shows it (proc(5), `/proc/PID/cgroup`).
pub fn of_process(proc_dir: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc_dir.join("cgroup")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}
