//! Lists of what may be started, where the kernel takes no LSM programs: each start is seen when the new program is in place and has not run
//! yet (fs/exec.c, `exec_binprm`), and one that is not listed is ended there. A file is listed by the mount that it is on: one of its own, made
//! by the enforcer and read-only, which nothing inside can make or be rid of. Of a `#!` chain the last stage is seen, whatever its script.
//! Minimum kernel 5.17 (`bpf_loop`, by which a denial's path is read).

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    EbpfContext as _,
    helpers::bpf_send_signal,
    macros::{map, raw_tracepoint},
    maps::HashMap,
    programs::RawTracePointContext,
};
use enforcer_common::{
    counter,
    files::{Act, FileReason, MOUNT_ENTRIES, listed},
};

use crate::{
    maps::count,
    members::Pointer,
    place::{At, rules},
    record::deny_file,
};

const SIGKILL: u32 = 9;

/// The mounts, by number.
#[map]
static LISTED: HashMap<u32, u32> = HashMap::with_max_entries(MOUNT_ENTRIES, BPF_F_NO_PREALLOC);

#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn sched_process_exec(ctx: RawTracePointContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    count(counter::STARTS);
    if rules.listed == listed::NOTHING {
        return 0;
    }
    let at = program(&ctx);
    let mount = at.and_then(At::mount_number);
    // SAFETY: nothing of the map is kept.
    if mount.is_ok_and(|mount| unsafe { LISTED.get(&mount) }.is_some()) {
        return 0;
    }
    // SAFETY: a signal to the task that runs here. Where it is deferred it is by an interrupt of this very processor, which comes before the
    // task is in its program (kernel/irq_work.c); the enforcer tries that.
    if unsafe { bpf_send_signal(SIGKILL) } != 0 {
        count(counter::NOT_ENDED);
    }
    if rules.listed == listed::HELD
        && let Ok(at) = at
    {
        deny_file(Act::Start, at, FileReason::NotListed);
    }
    0
}

/// Arguments: the task, its process id before, and its `struct linux_binprm` (include/trace/events/sched.h).
#[inline(always)]
fn program(ctx: &RawTracePointContext) -> Result<At, ()> {
    // SAFETY: the kernel hands three arguments of eight bytes each.
    let bprm = unsafe { *ctx.as_ptr().cast::<Pointer>().add(2) };
    At::program(bprm)
}
