//! A program that is started in a mount namespace to see what becomes of it there: a few instructions of our own in memory, the first of which
//! write a byte. Ended in time, it has written nothing.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// write(1, "x", 1) and exit(0), as an executable of one segment.
#[cfg(target_arch = "x86_64")]
const PROGRAM: &[u8] = &{
    const HEAD: [u8; 120] = *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0\x78\0\x40\0\0\0\0\0\x40\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0\
\x01\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\x40\0\0\0\0\0\0\0\x40\0\0\0\0\0\x9a\0\0\0\0\0\0\0\x9a\0\0\0\0\0\0\0\0\x10\0\0\0\0\0\0";
    const CODE: [u8; 34] = *b"\xb8\x01\0\0\0\xbf\x01\0\0\0\x48\x8d\x35\x10\0\0\0\xba\x01\0\0\0\x0f\x05\xb8\x3c\0\0\0\x31\xff\x0f\x05x";
    let mut bytes = [0; HEAD.len() + CODE.len()];
    let (mut at, mut from) = (0, 0);
    while at < HEAD.len() {
        bytes[at] = HEAD[at];
        at += 1;
    }
    while from < CODE.len() {
        bytes[at] = CODE[from];
        at += 1;
        from += 1;
    }
    bytes
};
/// None is written for this processor: nothing can be tried, so nothing is carried.
#[cfg(not(target_arch = "x86_64"))]
const PROGRAM: &[u8] = &[];

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// By SIGKILL.
    pub killed: bool,
    /// Its first instructions ran.
    pub ran: bool,
}

/// A child that is in its namespace and waits.
#[derive(Debug)]
pub struct Trial {
    /// None once it was waited for.
    child: Option<Pid>,
    namespace: u32,
    go: File,
    /// What the program writes to.
    said: File,
}

/// What the child works with: everything is there before it is, because it may not allocate.
struct Prepared {
    namespace: Option<RawFd>,
    program: RawFd,
    ready: RawFd,
    go: RawFd,
    /// The other end, which would keep the child waiting for its own word.
    go_on: RawFd,
    says: RawFd,
}

impl Trial {
    /// In a namespace that is given, or in a new one.
    ///
    /// # Errors
    /// The namespace cannot be entered, or nothing can be started.
    pub fn begin(namespace: Option<&File>) -> io::Result<Self> {
        if PROGRAM.is_empty() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let program = memfd_create(c"trial", MFdFlags::MFD_CLOEXEC)?;
        File::from(program.try_clone()?).write_all(PROGRAM)?;
        // The kernel starts nothing that somebody has open for writing.
        let program = File::open(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(pipe2(OFlag::O_CLOEXEC)?) };
        let (ready, ready_end) = pipe()?;
        let (go_end, go) = pipe()?;
        let (said, says) = pipe()?;
        let prepared = Prepared {
            namespace: namespace.map(|file| file.as_raw_fd()),
            program: program.as_raw_fd(),
            ready: ready_end.as_raw_fd(),
            go: go_end.as_raw_fd(),
            go_on: go.as_raw_fd(),
            says: says.as_raw_fd(),
        };
        // SAFETY: the child makes system calls on what was prepared and nothing else.
        let child = match unsafe { fork() }? {
            ForkResult::Child => prepared.run(),
            ForkResult::Parent { child } => child,
        };
        let mut trial = Self {
            child: Some(child),
            namespace: 0,
            go: go.into(),
            said: said.into(),
        };
        drop((ready_end, go_end, says));
        let mut inode = [0; 8];
        File::from(ready)
            .read_exact(&mut inode)
            .map_err(|_| io::Error::other("the mount namespace cannot be entered"))?;
        trial.namespace = u32::try_from(u64::from_ne_bytes(inode)).map_err(io::Error::other)?;
        Ok(trial)
    }

    /// Inode of its mount namespace.
    pub fn namespace(&self) -> u32 {
        self.namespace
    }

    /// Has it start the program.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn outcome(mut self) -> io::Result<Outcome> {
        self.go.write_all(b".")?;
        let ended = match self.child.take() {
            Some(child) => waitpid(child, None)?,
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let mut said = Vec::new();
        self.said.read_to_end(&mut said)?;
        Ok(Outcome {
            killed: matches!(ended, WaitStatus::Signaled(_, Signal::SIGKILL, _)),
            ran: !said.is_empty(),
        })
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            let _ = kill(child, Signal::SIGKILL);
            let _ = waitpid(child, None);
        }
    }
}

// === impl Outcome ===

impl Outcome {
    pub fn is_ended_in_time(self) -> bool {
        self.killed && !self.ran
    }
}

// === impl Prepared ===

impl Prepared {
    fn run(&self) -> ! {
        // SAFETY: system calls with descriptors that are open and memory that is alive; the process ends here or becomes another.
        unsafe {
            // It outlives nobody.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::close(self.go_on);
            let entered = match self.namespace {
                Some(namespace) => libc::setns(namespace, libc::CLONE_NEWNS),
                None => libc::unshare(libc::CLONE_NEWNS),
            };
            let mut there: libc::stat = std::mem::zeroed();
            if entered != 0 || libc::fstat(self.own_namespace(), &raw mut there) != 0 {
                libc::_exit(1);
            }
            let inode = there.st_ino.to_ne_bytes();
            let mut word = 0u8;
            if libc::write(self.ready, inode.as_ptr().cast(), inode.len()) != 8
                || libc::read(self.go, (&raw mut word).cast(), 1) != 1
                || libc::dup2(self.says, 1) != 1
            {
                libc::_exit(1);
            }
            let arguments = [c"trial".as_ptr(), std::ptr::null()];
            let environment: [*const libc::c_char; 1] = [std::ptr::null()];
            libc::syscall(
                libc::SYS_execveat,
                self.program,
                c"".as_ptr(),
                arguments.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(1)
        }
    }

    /// The namespace that the child is in: the one given, or the new one by a name that is good in any namespace of ours.
    unsafe fn own_namespace(&self) -> RawFd {
        match self.namespace {
            Some(namespace) => namespace,
            // SAFETY: a path that ends in NUL.
            None => unsafe {
                libc::open(
                    c"/proc/self/ns/mnt".as_ptr(),
                    libc::O_RDONLY | libc::O_CLOEXEC,
                )
            },
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn where_nobody_ends_it_it_runs_and_one_that_is_given_up_goes() {
        let outcome = Trial::begin(None).unwrap().outcome().unwrap();
        let expected = Outcome {
            killed: false,
            ran: true,
        };
        assert_eq!(outcome, expected);
        assert!(!outcome.is_ended_in_time());
        let trial = Trial::begin(None).unwrap();
        let child = trial.child.unwrap();
        drop(trial);
        assert!(kill(child, None).is_err());
    }
}
