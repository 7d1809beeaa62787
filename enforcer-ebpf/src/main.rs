//! The eBPF programs of one session, in one object: the gate at the agent's cgroup (`gate`), socket creation
//! (`create`), packets (`egress`), attribution by their first (`flows`), steering in the agent's network namespace (`steer`), and the
//! gate at the gateway's own cgroup (`dial`); rules about files (`files`), decided by where a file is (`place`) and, where a person said so, by which it is (`identity`); what may be started,
//! where there are no LSM programs (`started`). Loaded afresh for each session, so every map is the session's own.
//! An empty map denies.
#![no_std]
#![no_main]

mod create;
mod dial;
mod egress;
mod files;
mod flows;
mod gate;
mod guard;
mod identity;
mod maps;
mod members;
mod place;
mod record;
mod secrets;
mod started;
mod steer;
mod verdict;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Unreachable: nothing here can panic, the verifier would refuse an endless loop.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
