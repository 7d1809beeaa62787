//! What /proc says of a process: for records, and for the wiring rule. A process may be gone at any time; what cannot be
//! read is absent.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use enforcer_common as abi;

/// Bytes of `/proc/PID/status` that are read: NSpid stands behind the groups, of which a process may have many.
const STATUS: usize = 16 * 1024;

/// Bytes of a command line that are read.
const MAX_LINE: usize = 1024;
/// Most parents, and theirs, that are looked at.
const MAX_ANCESTORS: usize = 8;

/// A process that another one is a child of, at any remove, as it is when it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ancestor {
    /// Inside.
    pub pid: u32,
    pub program: String,
    pub line: Vec<String>,
}

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

/// Whom a process acts as: its effective user and group id (proc_pid_status(5)).
pub fn owner(pid: u32) -> Option<(u32, u32)> {
    let text = std::fs::read(directory(pid).join("status")).ok()?;
    let effective = |name| {
        let line = std::str::from_utf8(line_of(&text, name)?).ok()?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    Some((effective(b"Uid:")?, effective(b"Gid:")?))
}

/// The process's pids from the outermost namespace to its own (proc_pid_status(5), NSpid).
pub fn namespace_pids(pid: u32) -> Option<Vec<u32>> {
    numbers(pid, b"NSpid:")
}

/// The numbers of a line of `/proc/PID/status`.
fn numbers(pid: u32, name: &[u8]) -> Option<Vec<u32>> {
    let mut file = std::fs::File::open(directory(pid).join("status")).ok()?;
    let mut text = [0; STATUS];
    let mut length = 0;
    // Nearly always one read: /proc says no size, and a buffer that grows would take eight.
    loop {
        let line = line_of(text.get(..length)?, name);
        if let Some(line) = line {
            let line = std::str::from_utf8(line).ok()?;
            return line.split_whitespace().map(|n| n.parse().ok()).collect();
        }
        match file.read(text.get_mut(length..)?).ok()? {
            0 => return None,
            n => length += n,
        }
    }
}

/// The rest of the first whole line that starts with `name`.
fn line_of<'a>(text: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let whole = text.iter().rposition(|byte| *byte == b'\n')?;
    text.get(..whole)?
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(name))
}

/// The path of the program a process runs, as the kernel says it.
pub fn program(pid: u32) -> Option<String> {
    let path = std::fs::read_link(directory(pid).join("exe")).ok()?;
    Some(path.to_string_lossy().into_owned())
}

/// The command line of a process, as it says itself: the beginning of a long one, which an ellipsis ends.
pub fn line(pid: u32) -> Vec<String> {
    let file = std::fs::File::open(directory(pid).join("cmdline"));
    let mut text = Vec::new();
    let read = file.and_then(|file| file.take(MAX_LINE as u64 + 1).read_to_end(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    words(text)
}

fn words(mut text: Vec<u8>) -> Vec<String> {
    let more = text.len() > MAX_LINE;
    text.truncate(MAX_LINE);
    if text.last() == Some(&0) {
        text.pop();
    }
    if text.is_empty() {
        return Vec::new();
    }
    let words = text.split(|byte| *byte == 0);
    let mut words: Vec<String> = words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect();
    if more {
        words.push("…".to_owned());
    }
    words
}

/// The process with this pid and whose child it is, and so on, for as long as they are in that mount namespace (device and inode).
pub fn ancestors(first: u32, inside: (u64, u64)) -> Vec<Ancestor> {
    let mut found = Vec::new();
    let mut next = Some(first).filter(|pid| *pid != 0);
    while let Some(pid) = next.filter(|pid| mount_namespace(*pid) == Some(inside)) {
        if found.len() == MAX_ANCESTORS {
            break;
        }
        found.push(Ancestor {
            pid: namespace_pids(pid)
                .and_then(|pids| pids.last().copied())
                .unwrap_or_default(),
            program: program(pid).unwrap_or_default(),
            line: line(pid),
        });
        next = numbers(pid, b"PPid:").and_then(|pids| pids.first().copied());
    }
    found
}

/// The name that the calling thread gave itself.
pub fn comm(process: &abi::Process) -> String {
    let end = process.comm.iter().position(|b| *b == 0);
    let comm = process.comm.get(..end.unwrap_or(process.comm.len()));
    String::from_utf8_lossy(comm.unwrap_or_default()).into_owned()
}

/// Network namespace of a process, as device and inode.
pub fn network_namespace(proc_dir: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(proc_dir.join("ns/net")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Mount namespace of a process, as device and inode.
pub fn mount_namespace(pid: u32) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(directory(pid).join("ns/mnt")).ok()?;
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
    audit::Process {
        pid: namespace_pids(process.tgid).and_then(|pids| pids.last().copied()),
        host_pid: process.tgid,
        uid: process.uid,
        program: program(process.tgid),
        comm: comm(process),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_once_it_is_whole() {
        assert_eq!(
            line_of(b"Tgid:\t7\nNSpid:\t7\t1\nX", b"NSpid:"),
            Some(b"\t7\t1".as_slice())
        );
        assert_eq!(line_of(b"Tgid:\t7\nNSpid:\t7", b"NSpid:"), None);
        assert_eq!(line_of(b"xNSpid:\t7\n", b"NSpid:"), None);
    }

    #[test]
    fn whom_we_act_as_is_read() {
        let ours = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        assert_eq!(owner(std::process::id()), Some(ours));
    }

    #[test]
    fn a_command_line_is_read_up_to_its_bound() {
        assert_eq!(words(b"sh\0-c\0\0x y\0".to_vec()), ["sh", "-c", "", "x y"]);
        assert_eq!(words(b"renamed itself".to_vec()), ["renamed itself"]);
        assert!(words(Vec::new()).is_empty() && words(vec![0]).is_empty());
        assert_eq!(words(vec![b'x'; MAX_LINE]), ["x".repeat(MAX_LINE)]);
        assert_eq!(
            words(vec![b'x'; MAX_LINE + 1]),
            ["x".repeat(MAX_LINE), "…".into()]
        );
        let own = line(std::process::id());
        assert!(own[0].contains("enforcer"), "{own:?}");
    }

    #[test]
    fn ancestors_are_looked_at_as_far_as_they_are_in_the_namespace() {
        let own = std::process::id();
        let here = mount_namespace(own).unwrap_or_default();
        let found = ancestors(own, here);
        assert!((1..=MAX_ANCESTORS).contains(&found.len()), "{found:?}");
        assert_eq!(found[0].pid, own);
        assert!(ancestors(own, (0, 0)).is_empty() && ancestors(0, here).is_empty());
    }

    #[test]
    fn the_kernel_says_our_own_pid() {
        let pids = namespace_pids(std::process::id());
        assert_eq!(
            pids.and_then(|pids| pids.last().copied()),
            Some(std::process::id())
        );
    }
}
