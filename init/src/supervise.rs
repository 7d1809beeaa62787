//! Children: the lifecycle commands, then the program. Signals that reach us go on to them; every orphan is reaped; the
//! program's end is ours.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::arguments::{Arguments, Stage};

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{stage} failed with status {status}: {command}")]
    Stage {
        stage: String,
        command: String,
        status: u8,
    },
    #[error("cannot run {command}: {source}")]
    Start {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot {call}: {source}")]
    Call { call: &'static str, source: Errno },
}

impl RunError {
    /// 126 for what cannot be executed, 127 for what is not there, as shells and engines say it.
    pub fn status(&self) -> u8 {
        match self {
            Self::Stage { status, .. } => *status,
            Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            Self::Call { .. } => crate::OURS,
        }
    }
}

/// Takes the right to trace us, and to read and write our memory, from our own user (PR_SET_DUMPABLE(2const), ptrace(2)): we start
/// as whoever the agent runs as. What we start has its own again, for execve(2) gives it back.
pub fn close_to_tracing() -> Result<(), RunError> {
    nix::sys::prctl::set_dumpable(false).map_err(|source| RunError::Call {
        call: "close this process to tracing",
        source,
    })
}

/// Gives our terminal the size of the person's before anything asks for it (ioctl_tty(2)).
fn size_terminal(rows: u16, columns: u16) {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one winsize through the pointer, which lives across the call. Where 0 is no terminal it fails, and
    // there is nothing to give a size to.
    unsafe { libc::ioctl(0, libc::TIOCSWINSZ, &raw const size) };
}

/// Keeps every signal until it is waited for, and gives what was kept before, which is what we start has. Process 1 of a pid namespace does
/// not get what it neither handles nor keeps (pid_namespaces(7)): a signal that came while we wait for the enforcer would be lost.
pub fn keep_signals() -> Result<SigSet, RunError> {
    let mut old = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_SETMASK,
        Some(&SigSet::all()),
        Some(&mut old),
    )
    .map_err(|source| RunError::Call {
        call: "block signals",
        source,
    })?;
    Ok(old)
}

/// Runs everything, with that mask; returns the program's status, 128 + n when signal n ended it.
pub fn run(arguments: &Arguments, old: SigSet) -> Result<u8, RunError> {
    if let Some((rows, columns)) = arguments.terminal {
        size_terminal(rows, columns);
    }
    for stage in &arguments.stages {
        run_stage(stage, old)?;
    }
    let Some(program) = &arguments.program else {
        return Ok(idle());
    };
    let child = start(program, old, true)?;
    Ok(supervise(&[child])[0])
}

fn run_stage(stage: &Stage, mask: SigSet) -> Result<(), RunError> {
    let mut children = Vec::new();
    for command in &stage.commands {
        match start(command, mask, false) {
            Ok(child) => children.push(child),
            Err(error) => {
                for child in &children {
                    let _ = kill(*child, Signal::SIGTERM);
                }
                supervise(&children);
                return Err(error);
            }
        }
    }
    let statuses = supervise(&children);
    for (command, status) in stage.commands.iter().zip(statuses) {
        if status != 0 {
            let (stage, command) = (stage.name.clone(), words(command));
            return Err(RunError::Stage {
                stage,
                command,
                status,
            });
        }
    }
    Ok(())
}

fn words(command: &[OsString]) -> String {
    let shown: Vec<String> = command
        .iter()
        .map(|word| word.to_string_lossy().escape_debug().to_string())
        .collect();
    shown.join(" ")
}

fn start(command: &[OsString], mask: SigSet, foreground: bool) -> Result<Pid, RunError> {
    let failed = |source| RunError::Start {
        command: words(command),
        source,
    };
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let mut command = Command::new(program);
    command.args(arguments);
    // SAFETY: between fork and exec only system calls are made, on constants and on a copied signal set.
    unsafe {
        command.pre_exec(move || {
            // A process group of its own, in the terminal's foreground where there is one, so that job control works.
            if foreground && libc::setpgid(0, 0) == 0 && libc::isatty(0) == 1 {
                libc::signal(libc::SIGTTOU, libc::SIG_IGN);
                libc::tcsetpgrp(0, libc::getpgrp());
                libc::signal(libc::SIGTTOU, libc::SIG_DFL);
            }
            // Nothing the engine left open goes on (Linux 5.11).
            libc::syscall(
                libc::SYS_close_range,
                3,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            sigprocmask(SigmaskHow::SIG_SETMASK, Some(&mask), None).map_err(io::Error::from)
        });
    }
    let child = command.spawn().map_err(failed)?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Waits for all of `children`; their statuses, in order.
fn supervise(children: &[Pid]) -> Vec<u8> {
    let mut statuses: Vec<Option<u8>> = vec![None; children.len()];
    while statuses.iter().any(Option::is_none) {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => reap(children, &mut statuses),
            Ok(signal) => {
                for (child, _) in children.iter().zip(&statuses).filter(|(_, s)| s.is_none()) {
                    let _ = kill(*child, signal);
                }
            }
            Err(_) => {}
        }
    }
    statuses.into_iter().flatten().collect()
}

fn reap(children: &[Pid], statuses: &mut [Option<u8>]) {
    loop {
        let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, code as u8),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as u8),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        if let Some(at) = children.iter().position(|child| *child == pid) {
            statuses[at] = Some(status);
        }
    }
}

/// Nothing to run: reap until told to end.
fn idle() -> u8 {
    loop {
        match SigSet::all().wait() {
            Ok(Signal::SIGCHLD) => reap(&[], &mut []),
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGQUIT) => return 0,
            _ => {}
        }
    }
}
