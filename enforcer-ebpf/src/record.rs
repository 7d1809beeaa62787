//! Records of what the hooks decided, with who asked, into the ring buffer. What finds no room is counted.

use aya_ebpf::helpers::{
    bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_pid_tgid,
    bpf_get_current_uid_gid,
};
use enforcer_common::{Event, Hook, Process, Reason, counter};

use crate::maps::{EVENTS, count};

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
