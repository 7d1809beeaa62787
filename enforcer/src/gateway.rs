//! A session's gateway process: spawned without any right, in a cgroup of its own whose programs say what it may dial,
//! with nothing open but its channel. It is started from one thread that lives as long as the enforcer, because the
//! parent-death signal is tied to the thread that forked (prctl(2)).

use std::ffi::CStr;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use crate::cgroup::Cgroup;

/// First of the user ids that gateways run as: far above what hosts and containers use, one for each session.
pub const FIRST_UID: u32 = 0x0ac0_0000;

/// Where gateways stand before the OOM killer.
const OOM_SCORE: &CStr = c"500";

/// Where the channel is in the gateway's process; its lanes follow.
const CHANNEL_FD: i32 = 3;
/// Descriptors of the gateway's are first moved to above this, so that none is overwritten.
const ASIDE: i32 = 64;

struct Order {
    program: PathBuf,
    uid: u32,
    cgroup: File,
    channels: Vec<OwnedFd>,
    answer: Sender<io::Result<Child>>,
}

/// A gateway that runs. Dropped, it is killed and its end waited for, on a thread of its own: whoever drops it may not
/// be able to wait.
#[derive(Debug)]
pub struct Gateway {
    child: Option<Child>,
}

impl Gateway {
    /// Its host pid.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            std::thread::spawn(move || child.wait());
        }
    }
}

/// Starts a gateway in `cgroup`. The first of `channels` is its control channel, the others are its lanes.
pub fn spawn(
    program: &Path,
    uid: u32,
    cgroup: &Cgroup,
    channels: Vec<OwnedFd>,
) -> io::Result<Gateway> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        std::thread::spawn(move || {
            for order in orders {
                let answer = order.answer.clone();
                let _ = answer.send(start(order));
            }
        });
        sender
    });
    let (answer, answered) = channel();
    let procs = OpenOptions::new()
        .write(true)
        .open(cgroup.path().join("cgroup.procs"))?;
    let gone = || io::Error::other("the thread that starts gateways is gone");
    spawner
        .send(Order {
            program: program.to_path_buf(),
            uid,
            cgroup: procs,
            channels,
            answer,
        })
        .map_err(|_| gone())?;
    let child = answered.recv().map_err(|_| gone())??;
    Ok(Gateway { child: Some(child) })
}

/// The words that say where a gateway with so many channels finds its lanes.
fn lanes(channels: usize) -> Vec<String> {
    (CHANNEL_FD..)
        .take(channels)
        .skip(1)
        .flat_map(|fd| ["--lane".to_owned(), fd.to_string()])
        .collect()
}

fn start(order: Order) -> io::Result<Child> {
    let Order {
        program,
        uid,
        cgroup,
        channels,
        ..
    } = order;
    let mut command = Command::new(program);
    command
        .arg("--channel")
        .arg(CHANNEL_FD.to_string())
        .args(lanes(channels.len()))
        .arg("--require-unprivileged")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let mut aside = vec![0; channels.len()];
    // SAFETY: between fork and exec only async-signal-safe system calls are made, on descriptors that are open and on
    // constants.
    unsafe {
        command.pre_exec(move || {
            let check = |status: libc::c_int| {
                if status < 0 {
                    Err(io::Error::last_os_error())
                } else {
                    Ok(())
                }
            };
            // "0" moves the writer (kernel cgroup-v2.rst, cgroup.procs).
            let check_fd = |fd: libc::c_int| check(fd).map(|()| fd);
            check(libc::write(cgroup.as_raw_fd(), c"0".as_ptr().cast(), 1) as libc::c_int)?;
            // Its parent may stand last before the OOM killer; it holds what an agent makes it hold, and stands before the
            // agent (proc(5), oom_score_adj). While still root: the file is root's once the user changes.
            let score = check_fd(libc::open(
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
            ))?;
            check(
                libc::write(score, OOM_SCORE.as_ptr().cast(), OOM_SCORE.count_bytes())
                    as libc::c_int,
            )?;
            check(libc::close(score))?;
            for (aside, channel) in aside.iter_mut().zip(&channels) {
                let fd = channel.as_raw_fd();
                *aside = check_fd(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, ASIDE))?;
            }
            for (fd, aside) in (CHANNEL_FD..).zip(&aside) {
                check(libc::dup2(*aside, fd))?;
            }
            check(libc::setgroups(0, std::ptr::null()))?;
            check(libc::setresgid(uid, uid, uid))?;
            check(libc::setresuid(uid, uid, uid))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            Ok(())
        });
    }
    command.spawn()
}
