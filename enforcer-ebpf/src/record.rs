//! Records of what the hooks decided, with who asked, into the ring buffer. What finds no room is counted.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid,
    generated::{bpf_loop, bpf_probe_read_kernel_str},
};
use core::ffi::c_void;
use enforcer_common::files::{Act, EVENT_NAME, EVENT_PATH, FileEvent, FileReason};
use enforcer_common::{Event, Hook, Process, Reason, counter};

use crate::{
    maps::{EVENTS, count},
    place::{At, Step, nothing, parent},
};

/// Most names and mounts that a record's path is read over.
const EVENT_NAMES: u32 = 48;

/// The process in whose context the hook runs.
#[inline(always)]
pub fn current() -> Process {
    let ids = bpf_get_current_pid_tgid();
    Process {
        tgid: (ids >> 32) as u32,
        pid: ids as u32,
        uid: bpf_get_current_uid_gid() as u32,
        _pad: 0,
        // SAFETY: the helper takes no argument and reads the current task only.
        cgroup: unsafe { bpf_get_current_cgroup_id() },
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
    }
}

/// What was asked for.
pub struct Attempt {
    pub hook: Hook,
    pub netns_cookie: u64,
    pub generation: u32,
    pub family: u16,
    pub addr: [u8; 16],
    pub port: u16,
    pub proto: u8,
}

#[inline(always)]
pub fn emit(attempt: &Attempt, reason: Reason) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        count(counter::LOST);
        return;
    };
    entry.write(Event {
        netns_cookie: attempt.netns_cookie,
        process: current(),
        addr: attempt.addr,
        port: attempt.port,
        family: attempt.family,
        hook: attempt.hook as u8,
        reason: reason as u8,
        proto: attempt.proto,
        _pad: 0,
        generation: attempt.generation,
        _pad2: 0,
    });
    entry.submit(0);
}

/// The one way to deny: counted, recorded, 0 (EPERM for socket calls, drop for packets).
#[inline(always)]
pub fn deny(attempt: &Attempt, reason: Reason) -> i32 {
    count(counter::DENIED);
    emit(attempt, reason);
    0
}

/// An IPv4 address as records carry it.
#[inline(always)]
pub fn addr4(network_order: u32) -> [u8; 16] {
    let mut addr = [0; 16];
    let bytes = network_order.to_ne_bytes();
    addr[0] = bytes[0];
    addr[1] = bytes[1];
    addr[2] = bytes[2];
    addr[3] = bytes[3];
    addr
}

/// An IPv6 address as records carry it, from words in network byte order.
#[inline(always)]
pub fn addr6(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: both are sixteen bytes of plain integers.
    unsafe { core::mem::transmute::<[u32; 4], [u8; 16]>(words) }
}

/// Counts and records a denial about a file.
#[inline(always)]
pub fn deny_file(act: Act, at: At, reason: FileReason) {
    count(counter::DENIED);
    record_file(act, at, reason);
}

/// Records what was decided about a file, its names from the last one up.
#[inline(never)]
pub fn record_file(act: Act, at: At, reason: FileReason) {
    let Some(mut entry) = EVENTS.reserve::<FileEvent>(0) else {
        count(counter::LOST);
        return;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: the record is ours until it is submitted, and every field but the path is written here.
    unsafe {
        (&raw mut (*record).process).write(current());
        (&raw mut (*record).act).write(act as u8);
        (&raw mut (*record).reason).write(reason as u8);
        (&raw mut (*record)._pad).write(0);
        (&raw mut (*record)._pad2).write(0);
        (&raw mut (*record).parent).write(parent());
    }
    let mut naming = Naming { at, record, length: nothing() as u64, cut: 1 };
    // SAFETY: the callback has the signature that the helper asks for, and the context outlives the call.
    unsafe {
        bpf_loop(
            EVENT_NAMES,
            append as *const () as *mut c_void,
            (&raw mut naming).cast(),
            0,
        )
    };
    // SAFETY: as above.
    unsafe {
        (&raw mut (*record).length).write(naming.length as u32);
        (&raw mut (*record).cut).write(naming.cut as u8);
    }
    entry.submit(0);
}

/// A record whose path is being read.
struct Naming {
    at: At,
    record: *mut FileEvent,
    length: u64,
    cut: u64,
}

/// One name more. 0 goes on, 1 ends.
unsafe extern "C" fn append(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `deny_file` hands its own.
    let naming = unsafe { &mut *context.cast::<Naming>() };
    match naming.at.up() {
        Ok(Step::Root) => {
            naming.cut = 0;
            1
        }
        Ok(Step::Mount(below)) => {
            naming.at = below;
            0
        }
        Ok(Step::Name(above)) => {
            let Ok((name, bytes)) = naming.at.name() else { return 1 };
            if naming.length >= EVENT_PATH as u64 {
                return 1;
            }
            // The same numbers: a verifier before Linux 6.3 forgets their bounds where the compiler keeps them on the stack.
            let offset = core::hint::black_box(naming.length) as usize & (EVENT_PATH - 1);
            let room = if bytes as usize > EVENT_NAME - 1 { EVENT_NAME - 1 } else { bytes as usize };
            let room = core::hint::black_box(room) & (EVENT_NAME - 1);
            // SAFETY: `offset` is less than EVENT_PATH, and there are EVENT_NAME more bytes; the helper ends the string with 0.
            let written = unsafe {
                bpf_probe_read_kernel_str(
                    (&raw mut (*naming.record).path).cast::<u8>().add(offset).cast(),
                    room as u32 + 1,
                    name.cast(),
                )
            };
            if written <= 0 || written > EVENT_NAME as i64 {
                return 1;
            }
            naming.length += written as u64;
            naming.at = above;
            0
        }
        Ok(Step::Apart) | Err(()) => 1,
    }
}
