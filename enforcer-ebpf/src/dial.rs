//! connect4/6 and sendmsg4/6 at the gateway's own cgroup: what the gateway may dial. Private, link-local, metadata and
//! engine ranges are refused unless policy names them, so that a hole in the gateway is not a hole in the host's network.

use aya_ebpf::{
    EbpfContext as _, helpers::bpf_get_netns_cookie, macros::cgroup_sock_addr,
    programs::SockAddrContext,
};
use enforcer_common::{DIAL_ALLOW, DIAL_ANYWHERE, DIAL_NEVER, DialKey, Hook, Reason};

use crate::{
    maps::{DIAL_ADDRESSES, DIAL_NETWORKS4, DIAL_NETWORKS6, single},
    record::{Attempt, addr4, addr6, deny},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

#[cgroup_sock_addr(connect4)]
pub fn dial_connect4(ctx: SockAddrContext) -> i32 {
    dial4(&ctx, Hook::GatewayConnect4)
}

#[cgroup_sock_addr(connect6)]
pub fn dial_connect6(ctx: SockAddrContext) -> i32 {
    dial6(&ctx, Hook::GatewayConnect6)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn dial_sendmsg4(ctx: SockAddrContext) -> i32 {
    dial4(&ctx, Hook::GatewaySendmsg4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn dial_sendmsg6(ctx: SockAddrContext) -> i32 {
    dial6(&ctx, Hook::GatewaySendmsg6)
}

#[inline(always)]
fn dial4(ctx: &SockAddrContext, hook: Hook) -> i32 {
    // SAFETY: the verifier admits reads of this context field.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    let attempt = attempt(ctx, hook, AF_INET, addr4(ip));
    conclude4(&attempt, ip)
}

#[inline(always)]
fn dial6(ctx: &SockAddrContext, hook: Hook) -> i32 {
    // SAFETY: the verifier admits word reads of this context field.
    let words = unsafe {
        let w = (&raw const (*ctx.sock_addr).user_ip6).cast::<u32>();
        [
            core::ptr::read_volatile(w),
            core::ptr::read_volatile(w.add(1)),
            core::ptr::read_volatile(w.add(2)),
            core::ptr::read_volatile(w.add(3)),
        ]
    };
    let attempt = attempt(ctx, hook, AF_INET6, addr6(words));
    if words[0] == 0 && words[1] == 0 && words[2] == 0xffff_u32.to_be() {
        return conclude4(&attempt, words[3]);
    }
    if named(&attempt) {
        return 1;
    }
    let class = DIAL_NETWORKS6.get(single(attempt.addr)).copied();
    by_class(&attempt, class, AF_INET6)
}

#[inline(always)]
fn conclude4(attempt: &Attempt, network_order: u32) -> i32 {
    let key = DialKey {
        addr: addr4(network_order),
        port: attempt.port,
        proto: attempt.proto,
        family: AF_INET as u8,
    };
    if DIAL_ADDRESSES.get_ptr(key).is_some() {
        return 1;
    }
    let class = DIAL_NETWORKS4.get(single(network_order.to_ne_bytes())).copied();
    by_class(attempt, class, AF_INET)
}

/// What no network admits may be at a port that is open anywhere: that of a proxy which the host names and does not place.
#[inline(always)]
fn by_class(attempt: &Attempt, class: Option<u32>, family: u16) -> i32 {
    if class == Some(DIAL_ALLOW) {
        return 1;
    }
    let anywhere = DialKey {
        addr: [0; 16],
        port: attempt.port,
        proto: attempt.proto | DIAL_ANYWHERE,
        family: family as u8,
    };
    if class != Some(DIAL_NEVER) && DIAL_ADDRESSES.get_ptr(anywhere).is_some() {
        return 1;
    }
    deny(attempt, Reason::GatewayRange)
}

#[inline(always)]
fn named(attempt: &Attempt) -> bool {
    let key = DialKey {
        addr: attempt.addr,
        port: attempt.port,
        proto: attempt.proto,
        family: AF_INET6 as u8,
    };
    DIAL_ADDRESSES.get_ptr(key).is_some()
}

#[inline(always)]
fn attempt(ctx: &SockAddrContext, hook: Hook, family: u16, addr: [u8; 16]) -> Attempt {
    // SAFETY: the verifier admits reads of these context fields; the helper takes this program type's context.
    let (port, proto, netns_cookie) = unsafe {
        (
            u16::from_be((*ctx.sock_addr).user_port as u16),
            (*ctx.sock_addr).protocol,
            bpf_get_netns_cookie(ctx.as_ptr()),
        )
    };
    Attempt { hook, netns_cookie, generation: 0, family, addr, port, proto: proto as u8 }
}
