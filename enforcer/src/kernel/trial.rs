//! A program that is started in a mount namespace to see what becomes of it there. It is our own, asked for its version.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};

/// A child that is in its namespace and waits.
#[derive(Debug)]
pub struct Trial {
    /// None once it was waited for.
    child: Option<Pid>,
    namespace: u32,
    go: Option<File>,
}

/// What the child works with: everything is there before it is, because it may not allocate.
struct Prepared {
    namespace: Option<RawFd>,
    program: RawFd,
    nothing: RawFd,
    ready: RawFd,
    go: RawFd,
}

impl Trial {
    /// In a namespace that is given, or in a new one.
    ///
    /// # Errors
    /// The namespace cannot be entered, or nothing can be started.
    pub fn begin(namespace: Option<&File>) -> io::Result<Self> {
        let program = File::open("/proc/self/exe")?;
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        let pipe = || -> io::Result<(OwnedFd, OwnedFd)> { Ok(pipe2(OFlag::O_CLOEXEC)?) };
        let (ready, ready_end) = pipe()?;
        let (go_end, go) = pipe()?;
        let prepared = Prepared {
            namespace: namespace.map(|file| file.as_raw_fd()),
            program: program.as_raw_fd(),
            nothing: nothing.as_raw_fd(),
            ready: ready_end.as_raw_fd(),
            go: go_end.as_raw_fd(),
        };
        // SAFETY: the child makes system calls on what was prepared and nothing else.
        let child = match unsafe { fork() }? {
            ForkResult::Child => prepared.run(),
            ForkResult::Parent { child } => child,
        };
        let mut trial = Self {
            child: Some(child),
            namespace: 0,
            go: Some(go.into()),
        };
        drop((ready_end, go_end));
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

    /// Has it start the program; whether that was ended by SIGKILL.
    ///
    /// # Errors
    /// It cannot be waited for.
    pub fn killed(mut self) -> io::Result<bool> {
        if let Some(mut go) = self.go.take() {
            go.write_all(b".")?;
        }
        match self.child.take().map(|child| waitpid(child, None)) {
            Some(Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _))) => Ok(true),
            Some(Ok(_)) | None => Ok(false),
            Some(Err(error)) => Err(error.into()),
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Without a word it ends by itself.
        self.go = None;
        if let Some(child) = self.child {
            let _ = waitpid(child, None);
        }
    }
}

// === impl Prepared ===

impl Prepared {
    fn run(&self) -> ! {
        // SAFETY: system calls with descriptors that are open and memory that is alive; the process ends here or becomes another.
        unsafe {
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
            {
                libc::_exit(1);
            }
            for standard in 0..3 {
                libc::dup2(self.nothing, standard);
            }
            let arguments = [
                c"agentcontainer".as_ptr(),
                c"--version".as_ptr(),
                std::ptr::null(),
            ];
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
