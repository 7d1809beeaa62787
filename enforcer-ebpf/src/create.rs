//! sock_create at the session's cgroup (kernel `inet_create`, `inet6_create`; minimum kernel 5.8): TCP and UDP sockets
//! and nothing else. Other families never come here; seccomp refuses them. A socket in a namespace that is not wired is
//! how the enforcer learns that there is one to wire.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_netns_cookie, macros::cgroup_sock, programs::SockContext,
};
use enforcer_common::{Hook, Reason, TCP, UDP};

use crate::{
    maps::settings,
    record::{Attempt, deny, emit},
};

const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    // SAFETY: the verifier admits reads of these context fields; the helper takes this program type's context.
    let (family, kind, proto, netns_cookie) = unsafe {
        (
            (*ctx.sock).family,
            (*ctx.sock).type_,
            (*ctx.sock).protocol,
            bpf_get_netns_cookie(ctx.as_ptr()),
        )
    };
    let settings = settings();
    let attempt = Attempt {
        hook: Hook::SockCreate,
        netns_cookie,
        generation: settings.generation,
        family: family as u16,
        addr: [0; 16],
        port: proto as u16,
        proto: kind as u8,
    };
    let admitted = (kind == SOCK_STREAM && proto == TCP as u32)
        || (kind == SOCK_DGRAM && proto == UDP as u32);
    if !admitted {
        return deny(&attempt, Reason::SocketType);
    }
    if settings.netns_cookie != netns_cookie {
        emit(&attempt, Reason::WireRequest);
    }
    1
}
