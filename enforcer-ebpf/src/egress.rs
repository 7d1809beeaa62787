//! Packets leaving the session's sockets (kernel `ip_finish_output`, `ip6_finish_output`; minimum kernel 5.8): loopback
//! only. The namespace has no other device; this holds if one ever appears. A SYN joins its process to its ports.

use aya_ebpf::{macros::cgroup_skb, programs::SkBuffContext};
use enforcer_common::counter;

use crate::{flows, maps::count};

/// The loopback device's index in every network namespace (kernel `LOOPBACK_IFINDEX`).
const LOOPBACK_IFINDEX: u32 = 1;

#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    // SAFETY: the verifier admits reads of this context field.
    let ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if ifindex == LOOPBACK_IFINDEX {
        flows::join(&ctx);
        return 1;
    }
    count(counter::PACKETS);
    0
}
