//! The TCP connect callback (kernel `tcp_connect`, before the SYN; minimum kernel 4.13): joins the process that
//! `connect` remembered by socket cookie to the ports that the gateway will see.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_socket_cookie, macros::sock_ops, programs::SockOpsContext,
};
use enforcer_common::FlowKey;

use crate::maps::{CONNECTS, FLOWS};

/// BPF_SOCK_OPS_TCP_CONNECT_CB (kernel include/uapi/linux/bpf.h).
const TCP_CONNECT_CB: u32 = 3;

#[sock_ops]
pub fn flows(ctx: SockOpsContext) -> u32 {
    if ctx.op() != TCP_CONNECT_CB {
        return 1;
    }
    // SAFETY: the helper takes this program type's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: the value is copied at once; a concurrent update could at worst mix two records of one socket.
    let Some(process) = (unsafe { CONNECTS.get(&cookie) }) else {
        return 1;
    };
    let key = FlowKey {
        local_addr: u32::from_be(ctx.local_ip4()),
        remote_addr: u32::from_be(ctx.remote_ip4()),
        local_port: ctx.local_port() as u16,
        remote_port: u32::from_be(ctx.remote_port()) as u16,
    };
    let _ = FLOWS.insert(key, process, 0);
    let _ = CONNECTS.remove(&cookie);
    1
}
