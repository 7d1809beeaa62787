//! The seccomp profile of a session, as data: an allow-list, EPERM for everything else. It starts from what engines allow
//! by default and leaves out what reaches past the gate (socket families, io_uring, bpf), what makes namespaces or mounts,
//! and what speaks to the kernel about itself. Called by `request::model`; its JSON is what the engine is sent.

use serde::Serialize;

/// `ENOSYS`: what makes a C library fall back from clone3 to clone, whose flags a filter can read.
const ENOSYS: u32 = 38;
/// `TIOCSTI`: writes into a terminal's input as if typed.
pub const TIOCSTI: u64 = 0x5412;
/// What makes, or takes away, a name without going by a path: a snapshot of a btrfs subvolume shows files under names that no rule and
/// no mount is about, and needs no capability (kernel `fs/btrfs/ioctl.c`: `SUBVOL_CREATE`, `SNAP_DESTROY`, `SNAP_CREATE` and their second
/// versions; `fs/bcachefs/chardev.c`: `SUBVOLUME_CREATE`, `SUBVOLUME_DESTROY`).
pub const SNAPSHOTS: [u64; 8] = [
    0x5000_9401,
    0x5000_940e,
    0x5000_940f,
    0x5000_9417,
    0x5000_9418,
    0x5000_943f,
    0x4020_bc10,
    0x4020_bc11,
];
/// setrlimit(2): what is written of memory when a program crashes.
pub const RLIMIT_CORE: u64 = 4;
/// Every `CLONE_NEW*` flag that clone(2) takes: NS, CGROUP, UTS, IPC, USER, PID, NET.
pub const CLONE_NEW: u64 = 0x7e02_0000;
/// unshare(2) also takes `CLONE_NEWTIME`, whose bit is part of the exit signal in clone(2).
pub const UNSHARE_NEW: u64 = CLONE_NEW | 0x80;

pub const AF_UNIX: u64 = 1;
pub const AF_INET: u64 = 2;
pub const AF_INET6: u64 = 10;
pub const AF_NETLINK: u64 = 16;
pub const NETLINK_ROUTE: u64 = 0;

/// A profile in the engine's own form (moby `profiles/seccomp`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub default_action: Action,
    pub arch_map: Vec<Architecture>,
    pub syscalls: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Action {
    #[serde(rename = "SCMP_ACT_ALLOW")]
    Allow,
    /// EPERM, unless the rule says another number.
    #[serde(rename = "SCMP_ACT_ERRNO")]
    Errno,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Architecture {
    pub architecture: &'static str,
    pub sub_architectures: &'static [&'static str],
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub names: Vec<&'static str>,
    pub action: Action,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// All must hold (they name different arguments); rules on the same call are alternatives.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<Arg>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub includes: Option<Includes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Includes {
    pub arches: &'static [&'static str],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arg {
    pub index: u32,
    /// The value, or the mask for [`Op::MaskedEq`].
    pub value: u64,
    /// The value under the mask.
    pub value_two: u64,
    pub op: Op,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Op {
    #[serde(rename = "SCMP_CMP_EQ")]
    Eq,
    #[serde(rename = "SCMP_CMP_NE")]
    Ne,
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEq,
}

fn eq(index: u32, value: u64) -> Arg {
    Arg {
        index,
        value,
        value_two: 0,
        op: Op::Eq,
    }
}

fn masked(index: u32, mask: u64, value: u64) -> Arg {
    Arg {
        index,
        value: mask,
        value_two: value,
        op: Op::MaskedEq,
    }
}

/// Every value of 32 bits but these, as masks and what is under them: an allow-list has no 'not equal under a mask', and 'not equal'
/// alone is passed by setting bits above the 32 that the kernel reads.
fn others(index: u32, refused: &[u64]) -> Vec<Arg> {
    fn below(bit: u32, mask: u64, value: u64, index: u32, refused: &[u64], out: &mut Vec<Arg>) {
        if refused.is_empty() {
            out.push(masked(index, mask, value));
        } else if let Some(bit) = bit.checked_sub(1) {
            for set in [0, 1u64 << bit] {
                let of = |one: &u64| one & (1 << bit) == set;
                let refused: Vec<u64> = refused.iter().copied().filter(of).collect();
                below(bit, mask | 1 << bit, value | set, index, &refused, out);
            }
        }
    }
    let mut out = Vec::new();
    below(32, 0, 0, index, refused, &mut out);
    out
}

fn allow(names: &[&'static str], args: Vec<Arg>) -> Rule {
    Rule {
        names: names.to_vec(),
        action: Action::Allow,
        errno_ret: None,
        args,
        includes: None,
    }
}

/// Allowed whatever their arguments.
const PLAIN: &str = "
    accept accept4 access alarm bind brk cachestat capget capset chdir chmod chown chown32 clock_getres
    clock_getres_time64 clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range
    connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait
    epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
    fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64
    fsync ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_mempolicy get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid
    getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname
    getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init
    inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioprio_get ioprio_set ipc kcmp kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listmount listxattr listxattrat
    llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack mbind membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap nanosleep newfstatat
    _newselect open openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc
    pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2 process_madvise
    process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace pwrite64 pwritev
    pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg recvmmsg_time64 recvmsg
    remap_file_pages removexattr removexattrat rename renameat renameat2 restart_syscall rmdir rseq rt_sigaction
    rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
    rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64
    sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget
    semop semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_mempolicy
    set_mempolicy_home_node set_robust_list set_thread_area set_tid_address setfsgid setfsgid32 setfsuid
    setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid
    setresgid32 setresuid setresuid32 setreuid setreuid32 setsid setsockopt setuid setuid32 setxattr
    setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn splice
    stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs sysinfo tee tgkill
    time timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate
    truncate64 ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork
    vmsplice wait4 waitid waitpid write writev
";

/// The profile of every session.
pub fn profile() -> Profile {
    let plain: Vec<_> = PLAIN.split_whitespace().collect();
    let mut syscalls = vec![allow(&plain, vec![])];

    // Four families of sockets, and of netlink only the one that lists addresses and routes.
    for family in [AF_UNIX, AF_INET, AF_INET6] {
        syscalls.push(allow(&["socket"], vec![eq(0, family)]));
    }
    syscalls.push(allow(
        &["socket"],
        vec![eq(0, AF_NETLINK), eq(2, NETLINK_ROUTE)],
    ));
    syscalls.push(allow(&["socketpair"], vec![eq(0, AF_UNIX)]));

    // New processes and threads, never new namespaces. clone3 takes its flags from memory that a filter cannot read.
    syscalls.push(allow(&["clone"], vec![masked(0, CLONE_NEW, 0)]));
    syscalls.push(allow(&["unshare"], vec![masked(0, UNSHARE_NEW, 0)]));
    syscalls.push(Rule {
        errno_ret: Some(ENOSYS),
        action: Action::Errno,
        ..allow(&["clone3"], vec![])
    });

    // personality: the default, ADDR_NO_RANDOMIZE's neighbours that engines admit, and the query.
    for persona in [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff] {
        syscalls.push(allow(&["personality"], vec![eq(0, persona)]));
    }

    // ioctl, except what types into a terminal and what makes names past every rule about paths.
    let refused = [&[TIOCSTI][..], &SNAPSHOTS].concat();
    for other in others(1, &refused) {
        syscalls.push(allow(&["ioctl"], vec![other]));
    }

    // Limits, except that of core dumps: it is 1, by which alone the kernel hands a program's memory to nobody, no helper of the host's
    // either (core(5)). Who sets it, as programs with keys do, is told that it was set.
    for other in others(0, &[RLIMIT_CORE]) {
        syscalls.push(allow(&["setrlimit"], vec![other]));
    }
    for other in others(1, &[RLIMIT_CORE]) {
        syscalls.push(allow(&["prlimit64"], vec![other]));
    }
    let all = 0xffff_ffff;
    // Asking is free. Of the same two arguments as the rule below: libseccomp would let one about the last alone stand in its way.
    syscalls.push(allow(
        &["prlimit64"],
        vec![masked(1, all, RLIMIT_CORE), eq(2, 0)],
    ));
    for (name, args) in [
        ("setrlimit", vec![masked(0, all, RLIMIT_CORE)]),
        (
            "prlimit64",
            vec![
                masked(1, all, RLIMIT_CORE),
                Arg {
                    op: Op::Ne,
                    ..eq(2, 0)
                },
            ],
        ),
    ] {
        syscalls.push(Rule {
            errno_ret: Some(0),
            action: Action::Errno,
            ..allow(&[name], args)
        });
    }

    syscalls.push(Rule {
        includes: Some(Includes {
            arches: &["amd64", "x32", "x86"],
        }),
        ..allow(&["arch_prctl", "modify_ldt"], vec![])
    });
    syscalls.push(Rule {
        includes: Some(Includes {
            arches: &["arm", "arm64"],
        }),
        ..allow(
            &[
                "arm_fadvise64_64",
                "arm_sync_file_range",
                "sync_file_range2",
                "breakpoint",
                "cacheflush",
                "set_tls",
            ],
            vec![],
        )
    });

    Profile {
        default_action: Action::Errno,
        // x32 is left out: no distribution ships programs for it, and its numbers alias x86_64's.
        arch_map: vec![
            Architecture {
                architecture: "SCMP_ARCH_X86_64",
                sub_architectures: &["SCMP_ARCH_X86"],
            },
            Architecture {
                architecture: "SCMP_ARCH_AARCH64",
                sub_architectures: &["SCMP_ARCH_ARM"],
            },
        ],
        syscalls,
    }
}

impl Profile {
    /// The profile as the engine takes it in `seccomp=…`.
    pub fn to_json(&self) -> String {
        // Plain data: strings, numbers, lists. Serialising it cannot fail; an empty profile would be refused.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What the profile answers to one call on the main architecture: what the kernel's filter does, in the small.
    pub fn decide(&self, name: &str, args: [u64; 6]) -> Action {
        let holds = |arg: &Arg| {
            let Some(value) = args.get(arg.index as usize) else {
                return false;
            };
            match arg.op {
                Op::Eq => *value == arg.value,
                Op::Ne => *value != arg.value,
                Op::MaskedEq => value & arg.value == arg.value_two,
            }
        };
        self.syscalls
            .iter()
            .find(|rule| rule.names.contains(&name) && rule.args.iter().all(holds))
            .map_or(self.default_action, |rule| rule.action)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ABSENT: &str = "
    io_uring_setup io_uring_enter io_uring_register bpf perf_event_open userfaultfd keyctl add_key request_key
    mount umount umount2 pivot_root move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick
    mount_setattr chroot open_by_handle_at name_to_handle_at kexec_load kexec_file_load init_module finit_module
    delete_module quotactl quotactl_fd acct swapon swapoff reboot syslog settimeofday clock_settime stime
    adjtimex clock_adjtime iopl ioperm sethostname setdomainname vhangup nfsservctl lookup_dcookie fanotify_init
    fanotify_mark sysfs _sysctl uselib ustat socketcall setns move_pages migrate_pages vm86 vm86old
    lsm_set_self_attr query_module create_module
";

    fn call(name: &str, args: &[u64]) -> Action {
        let mut six = [0; 6];
        six[..args.len()].copy_from_slice(args);
        profile().decide(name, six)
    }

    #[test]
    fn four_socket_families_and_no_other_can_be_opened() {
        for family in 0..=64 {
            let expected = match family {
                AF_UNIX | AF_INET | AF_INET6 | AF_NETLINK => Action::Allow,
                _ => Action::Errno,
            };
            assert_eq!(call("socket", &[family, 1, 0]), expected, "{family}");
        }
        for protocol in 1..32 {
            assert_eq!(
                call("socket", &[AF_NETLINK, 3, protocol]),
                Action::Errno,
                "{protocol}"
            );
        }
        assert_eq!(call("socket", &[AF_INET | 1 << 32, 1, 0]), Action::Errno);
        assert_eq!(call("socketpair", &[30, 1, 0]), Action::Errno);
        assert_eq!(call("socketcall", &[1]), Action::Errno);
    }

    #[test]
    fn no_call_that_makes_or_joins_a_namespace_is_allowed() {
        for flag in [
            0x80u64,
            0x2_0000,
            0x200_0000,
            0x400_0000,
            0x800_0000,
            0x1000_0000,
            0x2000_0000,
            0x4000_0000,
        ] {
            assert_eq!(call("unshare", &[flag]), Action::Errno, "{flag:x}");
            assert_eq!(call("unshare", &[flag | 0x200]), Action::Errno, "{flag:x}");
            if flag != 0x80 {
                assert_eq!(call("clone", &[flag | 17]), Action::Errno, "{flag:x}");
            }
        }
        assert_eq!(call("clone", &[0x0100_0000 | 17]), Action::Allow);
        assert_eq!(call("unshare", &[0x200 | 0x400]), Action::Allow);
        assert_eq!(call("setns", &[]), Action::Errno);
        let clone3 = profile()
            .syscalls
            .into_iter()
            .find(|r| r.names.contains(&"clone3"))
            .unwrap();
        assert_eq!((clone3.action, clone3.errno_ret), (Action::Errno, Some(38)));
    }

    #[test]
    fn tiocsti_is_refused_whatever_stands_in_the_bits_above() {
        for high in [0u64, 1 << 32, 0xffff_ffff << 32] {
            assert_eq!(call("ioctl", &[0, TIOCSTI | high]), Action::Errno);
            for request in [
                0x5401u64,
                0x5413,
                0x541b,
                0x5421,
                0x8004_5430,
                0x5410,
                0x5411,
            ] {
                assert_eq!(
                    call("ioctl", &[0, request | high]),
                    Action::Allow,
                    "{request:x}"
                );
            }
        }
    }

    #[test]
    fn what_makes_names_past_paths_is_refused_and_its_neighbours_are_not() {
        for refused in SNAPSHOTS {
            for high in [0u64, 1 << 32] {
                assert_eq!(call("ioctl", &[0, refused | high]), Action::Errno);
            }
            for bit in 0..32 {
                let near = refused ^ 1 << bit;
                if !SNAPSHOTS.contains(&near) {
                    assert_eq!(call("ioctl", &[0, near]), Action::Allow, "{near:x}");
                }
            }
        }
    }

    #[test]
    fn the_limit_of_core_dumps_stays_and_any_other_is_the_programs() {
        for high in [0u64, 1 << 32] {
            for limit in 0..16 {
                let expected = match limit {
                    RLIMIT_CORE => Action::Errno,
                    _ => Action::Allow,
                };
                let limit = limit | high;
                assert_eq!(call("setrlimit", &[limit, 1]), expected, "{limit}");
                assert_eq!(call("prlimit64", &[0, limit, 1]), expected, "{limit}");
                // Asking is free.
                assert_eq!(call("prlimit64", &[0, limit, 0, 1]), Action::Allow);
            }
        }
        let rules = profile().syscalls;
        let told = rules.iter().filter(|rule| rule.errno_ret == Some(0));
        assert_eq!(told.count(), 2);
    }

    #[test]
    fn what_reaches_past_the_gate_is_absent() {
        for name in ABSENT.split_whitespace() {
            assert_eq!(call(name, &[]), Action::Errno, "{name}");
        }
    }

    #[test]
    fn names_stand_once_and_the_json_is_what_engines_read() {
        let mut seen = std::collections::BTreeSet::new();
        for name in PLAIN.split_whitespace() {
            assert!(seen.insert(name), "{name} stands twice");
        }
        for rule in profile().syscalls.iter().skip(1) {
            for name in &rule.names {
                assert!(
                    !seen.contains(name),
                    "{name} is also allowed without condition"
                );
            }
        }
        let json: serde_json::Value = serde_json::from_str(&profile().to_json()).unwrap();
        assert_eq!(json["defaultAction"], "SCMP_ACT_ERRNO");
        assert_eq!(json["archMap"][0]["architecture"], "SCMP_ARCH_X86_64");
        assert_eq!(json["syscalls"][1]["args"][0]["op"], "SCMP_CMP_EQ");
        assert_eq!(json["syscalls"][1]["args"][0]["value"], 1);
    }
}
