//! What /proc says of a process: for records, and for the wiring rule. A process may be gone at any time; what cannot be
//! read is absent.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer_common as abi;

/// A process that was opened before it was looked at: its pid is not reused while this is held... the pidfd says
/// whether it is still the same.
#[derive(Debug)]
pub struct Pinned {
    pub pid: u32,
    pidfd: OwnedFd,
}

impl Pinned {
    /// pidfd_open(2), Linux 5.3.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes a pid and flags, and returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just gave us this descriptor; nothing else owns it.
        let pidfd = unsafe { std::os::fd::FromRawFd::from_raw_fd(fd as i32) };
        Ok(Self { pid, pidfd })
    }

    /// Whether the process that was opened still runs: what was read from /proc before this is then of that process.
    pub fn alive(&self) -> bool {
        let mut poll = [nix::poll::PollFd::new(
            std::os::fd::AsFd::as_fd(&self.pidfd),
            nix::poll::PollFlags::POLLIN,
        )];
        // A pidfd is readable once the process has ended.
        matches!(
            nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO),
            Ok(0)
        )
    }
}

pub fn directory(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

/// Device and inode of the program a process runs, through the kernel's own link, not its name.
pub fn executable(pid: u32) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(directory(pid).join("exe"))?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The process's pids from the outermost namespace to its own (proc_pid_status(5), NSpid).
pub fn namespace_pids(pid: u32) -> Option<Vec<u32>> {
    let status = std::fs::read_to_string(directory(pid).join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().map(|n| n.parse().ok()).collect()
}

/// Network namespace of a process, as device and inode.
pub fn network_namespace(proc_dir: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(proc_dir.join("ns/net")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// All process ids there are.
pub fn all() -> io::Result<Vec<u32>> {
    Ok(std::fs::read_dir("/proc")?
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// The process as records name it.
pub fn describe(process: &abi::Process) -> audit::Process {
    let end = process
        .comm
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(process.comm.len());
    audit::Process {
        pid: namespace_pids(process.tgid).and_then(|pids| pids.last().copied()),
        host_pid: process.tgid,
        uid: process.uid,
        program: std::fs::read_link(directory(process.tgid).join("exe"))
            .ok()
            .map(|path| path.to_string_lossy().into_owned()),
        comm: String::from_utf8_lossy(&process.comm[..end]).into_owned(),
    }
}
