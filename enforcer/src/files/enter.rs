//! A container's mount namespace, seen from outside through its init, and entered by a thread of its own that ends there: setns(2) moves
//! the calling thread alone, once it shares its root and directory with no other.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns, unshare};

use super::{FilesError, io_error, sys};
use crate::process;

/// Longest list of mounts that is read, in bytes.
const MAX_MOUNTINFO: u64 = 16 << 20;
/// Longest environment that is read, in bytes: what execve(2) takes by default, with its arguments.
const MAX_ENVIRON: u64 = 8 << 20;

/// Holding it keeps the namespace and its root.
#[derive(Debug)]
pub struct Inside {
    pid: u32,
    namespace: File,
    root: OwnedFd,
    /// Init's directory: the workspace's folder.
    folder: PathBuf,
}

/// One line of `/proc/PID/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    pub id: u64,
    /// The mount that it is on.
    pub parent: u64,
    /// The filesystem, as `major:minor`, and what of it is mounted, as the kernel writes it.
    pub device: Vec<u8>,
    pub root: Vec<u8>,
    /// Where it is, as the kernel writes it.
    pub at: Vec<u8>,
    pub read_only: bool,
    /// Nothing on it is started, nor mapped to be executed.
    pub noexec: bool,
    pub shared: bool,
    /// It shows other owners than its filesystem has (Linux 5.12).
    pub idmapped: bool,
}

// === impl Mount ===

impl Mount {
    /// Whether this one shows what is in the other, by the kernel's names: the filesystem and the directory in it.
    pub fn is_of(&self, other: &Self) -> bool {
        self.device == other.device && place(&self.root).starts_with(place(&other.root))
    }
}

// === impl Inside ===

impl Inside {
    /// Of the process that is in this network namespace (device and inode), which a namespace's holder keeps from being another.
    pub fn of(pid: u32, network: (u64, u64)) -> Result<Self, FilesError> {
        let directory = process::directory(pid);
        let failed = |call| io_error(call, format!("the mounts of process {pid}"));
        let gone = |_| failed("enter")(io::ErrorKind::NotFound.into());
        let pinned = process::Pinned::open(pid).map_err(gone)?;
        let namespace = File::open(directory.join("ns/mnt")).map_err(failed("open"))?;
        let there = namespace.metadata().map_err(failed("look at"))?;
        let theirs = Some((there.dev(), there.ino()));
        let ours = process::mount_namespace(std::process::id());
        // The host's first process shows its namespaces to nobody on some hosts.
        for other in [ours, process::mount_namespace(1)] {
            if other == theirs {
                return Err(failed("enter")(io::Error::other(
                    "it is in the enforcer's or the host's namespace",
                )));
            }
        }
        let root = sys::open_path(&directory.join("root")).map_err(failed("open the root of"))?;
        let folder =
            std::fs::read_link(directory.join("cwd")).map_err(failed("read the directory of"))?;
        let folder = folder.strip_prefix("/").unwrap_or(&folder).to_owned();
        // Asked last: what was opened before is then this very process's.
        let same = process::network_namespace(&directory) == Some(network);
        if !same || !pinned.alive() {
            return Err(failed("enter")(io::Error::other(
                "it is another process by now",
            )));
        }
        Ok(Self {
            pid,
            namespace,
            root,
            folder,
        })
    }

    /// The namespace's inode.
    pub fn namespace(&self) -> Result<u32, FilesError> {
        let there = self.namespace.metadata();
        let there = there.map_err(io_error("look at", "the mount namespace"))?;
        u32::try_from(there.ino())
            .map_err(|e| io_error("number", "the mount namespace")(io::Error::other(e)))
    }

    pub fn into_namespace(self) -> File {
        self.namespace
    }

    /// The workspace's folder, below the root.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What a path is now, no link followed anywhere.
    pub fn open(&self, below: &Path) -> io::Result<OwnedFd> {
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        sys::open_below(
            &self.root,
            below,
            libc::O_PATH | libc::O_NOFOLLOW,
            libc::RESOLVE_NO_SYMLINKS,
        )
    }

    /// A directory, to be listed; no link followed.
    pub fn list(&self, below: &Path) -> io::Result<OwnedFd> {
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        sys::open_below(
            &self.root,
            below,
            libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK,
            libc::RESOLVE_NO_SYMLINKS,
        )
    }

    /// What a path leads to, links followed within the root.
    pub fn reach(&self, below: &Path) -> io::Result<OwnedFd> {
        let below = if below.as_os_str().is_empty() {
            Path::new(".")
        } else {
            below
        };
        sys::open_below(&self.root, below, libc::O_PATH, 0)
    }

    /// Where a path leads, links followed within the root: below it, without a link.
    pub fn follow(&self, below: &Path) -> io::Result<PathBuf> {
        use std::os::fd::AsRawFd as _;
        let found = self.reach(below)?;
        let link = format!("/proc/self/fd/{}", found.as_raw_fd());
        let path = std::fs::read_link(link)?;
        Ok(path.strip_prefix("/").unwrap_or(&path).to_owned())
    }

    /// What a variable was when the engine started init, each time that it is given: what is given twice is read by nobody alike.
    pub fn variable(&self, name: &[u8]) -> Result<Vec<Vec<u8>>, FilesError> {
        let failed = || io_error("read", format!("the environment of process {}", self.pid));
        let file = File::open(process::directory(self.pid).join("environ")).map_err(failed())?;
        let mut text = Vec::new();
        file.take(MAX_ENVIRON + 1)
            .read_to_end(&mut text)
            .map_err(failed())?;
        if text.len() as u64 > MAX_ENVIRON {
            return Err(failed()(io::Error::other("it is too long")));
        }
        let of = |entry: &[u8]| Some(entry.strip_prefix(name)?.strip_prefix(b"=")?.to_owned());
        Ok(text.split(|byte| *byte == 0).filter_map(of).collect())
    }

    /// Runs `work` in the namespace, on a thread of its own.
    pub fn within<T, W>(&self, work: W) -> Result<T, FilesError>
    where
        T: Send,
        W: FnOnce() -> Result<T, FilesError> + Send,
    {
        let failed = |error: io::Error| {
            io_error("enter", format!("the mounts of process {}", self.pid))(error)
        };
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("mounts".into())
                .spawn_scoped(scope, || {
                    unshare(CloneFlags::CLONE_FS).map_err(|e| failed(e.into()))?;
                    setns(&self.namespace, CloneFlags::CLONE_NEWNS)
                        .map_err(|e| failed(e.into()))?;
                    work()
                })
                .map_err(failed)?
                .join()
                .unwrap_or_else(|_| Err(failed(io::Error::other("a thread in it panicked"))))
        })
    }

    /// Every mount of the namespace below init's root.
    pub fn mounts(&self) -> Result<Vec<Mount>, FilesError> {
        let failed = io_error("list", format!("the mounts of process {}", self.pid));
        listed(self.pid).map_err(failed)
    }
}

/// Every mount of a process's namespace.
pub fn listed(pid: u32) -> io::Result<Vec<Mount>> {
    let file = File::open(process::directory(pid).join("mountinfo"))?;
    let mut text = Vec::new();
    file.take(MAX_MOUNTINFO + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_MOUNTINFO {
        return Err(io::Error::other("too many mounts"));
    }
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| mount(line).ok_or_else(|| io::Error::other("a line that is not read")))
        .collect()
}

/// Where a mount is, below the root: the kernel writes some bytes as `\\NNN` (fs/proc_namespace.c, `mangle`).
pub fn place(at: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt as _;
    let mut bytes = Vec::with_capacity(at.len());
    let mut rest = at;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.first_chunk::<3>().filter(|_| *first == b'\\');
        let octal = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// A mount and what is mounted on it, at any remove, without the mounts that are `exempt` and what is on them. What lies hidden under
/// another mount at the same place is on the mount above it, not on that one.
pub fn below<'a>(
    mounts: &'a [Mount],
    of: u64,
    exempt: &std::collections::BTreeSet<u64>,
) -> impl Iterator<Item = &'a Mount> + use<'a> {
    let mut within = std::collections::BTreeSet::from([of]);
    // Ids are given anew, so a mount may be listed before the one that it is on.
    loop {
        let more: Vec<u64> = mounts
            .iter()
            .filter(|m| within.contains(&m.parent) && !exempt.contains(&m.id))
            .map(|m| m.id)
            .filter(|id| !within.contains(id))
            .collect();
        if more.is_empty() {
            break;
        }
        within.extend(more);
    }
    mounts.iter().filter(move |m| within.contains(&m.id))
}

fn mount(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let (device, root) = (fields.next()?.to_vec(), fields.next()?.to_vec());
    let at = fields.next()?.to_vec();
    let options = fields.next()?;
    let has = |option: &[u8]| options.split(|byte| *byte == b',').any(|o| o == option);
    let optional = fields.take_while(|field| *field != b"-");
    Some(Mount {
        id,
        parent,
        device,
        root,
        at,
        read_only: has(b"ro"),
        noexec: has(b"noexec"),
        shared: { optional }.any(|field| field.starts_with(b"shared:")),
        idmapped: has(b"idmapped"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read() {
        let line = br"36 35 98:0 /mnt1 /mnt\0402/x ro,noexec,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        assert_eq!(
            mount(line).unwrap(),
            Mount {
                id: 36,
                parent: 35,
                device: b"98:0".to_vec(),
                root: b"/mnt1".to_vec(),
                at: br"/mnt\0402/x".to_vec(),
                read_only: true,
                noexec: true,
                shared: true,
                idmapped: false
            }
        );
        let line = br"36 35 98:0 / / rw,romeo,noexecutive,idmapped - overlay shared:1 ro,noexec";
        assert_eq!(
            mount(line).unwrap(),
            Mount {
                id: 36,
                parent: 35,
                device: b"98:0".to_vec(),
                root: b"/".to_vec(),
                at: b"/".to_vec(),
                read_only: false,
                noexec: false,
                shared: false,
                idmapped: true
            }
        );
        assert_eq!(mount(b"36 35"), None);
    }

    #[test]
    fn where_a_mount_is_is_read_as_the_kernel_writes_it() {
        for (written, path) in [
            (&b"/mnt2/x"[..], "mnt2/x"),
            (br"/a\040b\134c\012", "a b\\c\n"),
            (br"/a\04", r"a\04"),
            (b"/", ""),
        ] {
            assert_eq!(place(written), Path::new(path), "{path}");
        }
    }

    #[test]
    fn our_own_namespace_is_not_entered() {
        let error = Inside::of(std::process::id(), (0, 0)).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("the enforcer's or the host's"), "{error}");
    }
}
