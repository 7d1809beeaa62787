//! What the gateway gives up before it reads a stranger's first byte. In order: `prepare` (dies with its parent, not
//! dumpable, no core, no new privileges, no capabilities), `landlock` (no file at all), both in the main thread before
//! any other is started; then `seccomp`, in every thread, once the runtime's threads are there: no new thread, process
//! or program can come after it. Called by `main` and `run` only.

use std::collections::BTreeMap;
use std::io;

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::limits;
use crate::sys;

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    #[error("cannot {call}: {source}")]
    Call {
        call: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the process has capabilities ({0:#x}) or runs as root, and was told to have none")]
    Privileged(u64),
    #[error("the seccomp filter was refused: {0}")]
    Seccomp(String),
    #[error("landlock: {0}")]
    Landlock(#[from] landlock::RulesetError),
}

fn call<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> SandboxError {
    move |source| SandboxError::Call {
        call,
        source: source.into(),
    }
}

/// The parts that need no kernel facility beyond Linux 6.1.
///
/// # Errors
/// A call that failed, or with `require_unprivileged` any capability or user id 0.
pub fn prepare(require_unprivileged: bool) -> Result<(), SandboxError> {
    // Dies with the thread that started it; should that already be gone, the channel is closed and `run` ends.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(call("set the parent-death signal"))?;
    prctl::set_dumpable(false).map_err(call("become undumpable"))?;
    prctl::set_no_new_privs().map_err(call("set no_new_privs"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(call("limit core files"))?;
    setrlimit(Resource::RLIMIT_DATA, limits::MEMORY, limits::MEMORY)
        .map_err(call("limit the memory"))?;
    let (_, hard) =
        getrlimit(Resource::RLIMIT_NOFILE).map_err(call("read the descriptor limit"))?;
    let wanted = limits::CONNECTIONS as u64 * limits::FDS_PER_CONNECTION + limits::RESERVED_FDS;
    setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), hard)
        .map_err(call("raise the descriptor limit"))?;
    if require_unprivileged {
        let capabilities = sys::capabilities().map_err(call("read the capabilities"))?;
        if capabilities != 0 || nix::unistd::geteuid().is_root() || nix::unistd::getuid().is_root()
        {
            return Err(SandboxError::Privileged(capabilities));
        }
    }
    Ok(())
}

/// Connections that the descriptor limit has room for, at most [`limits::CONNECTIONS`].
pub fn connections() -> io::Result<usize> {
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let room = soft.saturating_sub(limits::RESERVED_FDS) / limits::FDS_PER_CONNECTION;
    Ok(usize::try_from(room).map_or(limits::CONNECTIONS, |room| {
        room.clamp(1, limits::CONNECTIONS)
    }))
}

/// Takes away every file, and signals and abstract sockets outside this process where the kernel's Landlock has scopes
/// (6.12). Returns whether the kernel enforces it; where it does not, seccomp still admits no call that opens a file.
///
/// # Errors
/// Landlock is there and refused the rules.
pub fn landlock() -> Result<bool, SandboxError> {
    use landlock::{
        ABI, Access, AccessFs, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
    };
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI::V5))?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// Filters the system calls of all threads: a list of what ends the process, for no honest gateway asks for it, and a
/// list of what is allowed; the rest is EPERM.
///
/// # Errors
/// The kernel has no seccomp, or a thread could not be brought in: the process must not go on.
pub fn seccomp() -> Result<(), SandboxError> {
    for program in [lethal()?, allowed()?] {
        seccompiler::apply_filter_all_threads(&program)
            .map_err(|error| SandboxError::Seccomp(error.to_string()))?;
    }
    Ok(())
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn compile(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<BpfProgram, SandboxError> {
    let arch: TargetArch = std::env::consts::ARCH
        .try_into()
        .map_err(|error: seccompiler::BackendError| SandboxError::Seccomp(error.to_string()))?;
    SeccompFilter::new(rules, otherwise, matched, arch)
        .and_then(BpfProgram::try_from)
        .map_err(|error| SandboxError::Seccomp(error.to_string()))
}

fn lethal() -> Result<BpfProgram, SandboxError> {
    let calls = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_chroot,
        libc::SYS_open_tree,
        libc::SYS_move_mount,
        libc::SYS_fsopen,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_open_by_handle_at,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_kexec_load,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_memfd_create,
    ];
    compile(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::KillProcess,
    )
}

/// One argument equal to one value, or under a mask.
fn when(argument: u8, op: Op, value: u64) -> Result<SeccompCondition, SandboxError> {
    SeccompCondition::new(argument, Len::Dword, op, value)
        .map_err(|error| SandboxError::Seccomp(error.to_string()))
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, SandboxError> {
    SeccompRule::new(conditions).map_err(|error| SandboxError::Seccomp(error.to_string()))
}

fn allowed() -> Result<BpfProgram, SandboxError> {
    let mut rules: Rules = [
        // moving bytes
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_pread64,
        libc::SYS_recvfrom,
        libc::SYS_recvmsg,
        libc::SYS_sendto,
        libc::SYS_sendmsg,
        libc::SYS_sendmmsg,
        libc::SYS_recvmmsg,
        libc::SYS_splice,
        libc::SYS_pipe2,
        libc::SYS_close,
        libc::SYS_fstat,
        // sockets; `socket` below, `listen` never: listeners come by the channel
        libc::SYS_accept4,
        libc::SYS_connect,
        libc::SYS_bind,
        libc::SYS_shutdown,
        libc::SYS_getsockname,
        libc::SYS_getpeername,
        libc::SYS_getsockopt,
        libc::SYS_setsockopt,
        // waiting
        libc::SYS_epoll_ctl,
        libc::SYS_epoll_pwait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        libc::SYS_ppoll,
        libc::SYS_futex,
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_clock_gettime,
        libc::SYS_gettimeofday,
        libc::SYS_sched_yield,
        libc::SYS_sched_getaffinity,
        libc::SYS_restart_syscall,
        // memory; `mmap` and `mprotect` below
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_membarrier,
        // the process itself
        libc::SYS_getrandom,
        libc::SYS_getpid,
        libc::SYS_gettid,
        libc::SYS_rt_sigaction,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
        libc::SYS_rseq,
        libc::SYS_set_robust_list,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();

    let kind = 0xf; // SOCK_TYPE_MASK; SOCK_NONBLOCK and SOCK_CLOEXEC are above it
    let mut socket = Vec::new();
    for domain in [libc::AF_INET, libc::AF_INET6] {
        for (socket_type, protocol) in [
            (libc::SOCK_STREAM, libc::IPPROTO_TCP),
            (libc::SOCK_DGRAM, libc::IPPROTO_UDP),
        ] {
            for protocol in [0, protocol] {
                socket.push(rule(vec![
                    when(0, Op::Eq, domain as u64)?,
                    when(1, Op::MaskedEq(kind), socket_type as u64)?,
                    when(2, Op::Eq, protocol as u64)?,
                ])?);
            }
        }
    }
    rules.insert(libc::SYS_socket, socket);

    // No memory that can be both written and run, nor any that can be run at all.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        let no_exec = when(2, Op::MaskedEq(libc::PROT_EXEC as u64), 0)?;
        rules.insert(call, vec![rule(vec![no_exec])?]);
    }

    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_DUPFD_CLOEXEC,
        libc::F_SETPIPE_SZ,
        libc::F_GET_SEALS,
    ];
    let fcntl = commands
        .into_iter()
        .map(|command| rule(vec![when(1, Op::Eq, command as u64)?]))
        .collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_fcntl, fcntl);
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(vec![when(1, Op::Eq, libc::FIONBIO)?])?],
    );
    // abort() only: no signal to anybody else of the same user.
    rules.insert(
        libc::SYS_tgkill,
        vec![rule(vec![when(0, Op::Eq, u64::from(std::process::id()))?])?],
    );
    compile(
        rules,
        SeccompAction::Errno(libc::EPERM as u32),
        SeccompAction::Allow,
    )
}
