//! What nobody inside does, whatever the rules about files are: look into a process that is not of the session, or into its init, make mounts,
//! load programs into the kernel, become somebody in a user namespace of his own. Capabilities and seccomp refuse most of it before; this is
//! where it ends for who got around them. The enforcer's own threads, which enter the mount namespace alone, are free. Attached and asked as
//! those about files are. Minimum kernel 6.1 (`userns_create`).

use aya_ebpf::{macros::lsm, helpers::bpf_get_current_task, programs::LsmContext};
use enforcer_common::files::{Act, FileReason};

use crate::{
    files::{EACCES, refuse},
    members::{Pointer, offset, read},
    place::{At, Rules, first, rules},
};

const EPERM: i32 = -1;

/// Tracing, and whatever `/proc/PID` shows only to who could trace: mem, environ, maps, links (kernel/ptrace.c, `__ptrace_may_access`). A
/// process and its threads are not asked about.
#[lsm(hook = "ptrace_access_check")]
pub fn ptrace_access_check(ctx: LsmContext) -> i32 {
    /// include/linux/ptrace.h: it is only to be left out of what is shown.
    const PTRACE_MODE_NOAUDIT: u32 = 4;
    let Some(rules) = rules() else { return 0 };
    let (target, mode): (Pointer, u32) = (ctx.arg(0), ctx.arg(1));
    if is_free(&rules) {
        return 0;
    }
    let leader: Result<Pointer, ()> = read(target, offset!(task_group_leader));
    // Init is the first of its own.
    let other = match (leader, first(target)) {
        (Ok(leader), Ok(first)) => leader != first,
        _ => false,
    };
    if other && rules.have(target) {
        return 0;
    }
    match At::running(target) {
        Ok(program) if mode & PTRACE_MODE_NOAUDIT == 0 => {
            refuse(Act::Trace, program, FileReason::Never, EACCES)
        }
        _ => EACCES,
    }
}

#[lsm(hook = "sb_mount")]
pub fn sb_mount(ctx: LsmContext) -> i32 {
    never(Act::Mount, |_| At::path(ctx.arg(1)))
}

#[lsm(hook = "sb_umount")]
pub fn sb_umount(ctx: LsmContext) -> i32 {
    never(Act::Mount, |_| At::root(ctx.arg(0)))
}

#[lsm(hook = "move_mount")]
pub fn move_mount(ctx: LsmContext) -> i32 {
    never(Act::Mount, |_| At::path(ctx.arg(1)))
}

#[lsm(hook = "sb_pivotroot")]
pub fn sb_pivotroot(ctx: LsmContext) -> i32 {
    never(Act::Mount, |_| At::path(ctx.arg(1)))
}

#[lsm(hook = "bpf")]
pub fn bpf(_ctx: LsmContext) -> i32 {
    never(Act::Bpf, At::running)
}

#[lsm(hook = "userns_create")]
pub fn userns_create(_ctx: LsmContext) -> i32 {
    never(Act::UserNamespace, At::running)
}

/// Refused, with what it is about, of the calling task, on record.
#[inline(always)]
fn never(act: Act, about: impl FnOnce(Pointer) -> Result<At, ()>) -> i32 {
    let Some(rules) = rules() else { return 0 };
    if is_free(&rules) {
        return 0;
    }
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    match about(task) {
        Ok(at) => refuse(act, at, FileReason::Never, EPERM),
        Err(()) => EPERM,
    }
}

#[inline(always)]
fn is_free(rules: &Rules) -> bool {
    matches!(rules.are_entered(), Ok(true))
}
