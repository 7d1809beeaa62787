//! connect4/6, sendmsg4/6 and bind4/6 at the session's cgroup: the gate. Minimum kernel 5.8 (cgroup links); the hooks are
//! called from `__inet_stream_connect`, `inet_dgram_connect`, `udp_sendmsg`, `udpv6_sendmsg` and `inet_bind` (kernel
//! net/ipv4/af_inet.c, net/ipv4/udp.c, net/ipv6/udp.c), with the kernel's copy of the address. The attach type decides
//! the family, never a field that the caller fills.

use aya_ebpf::{
    EbpfContext as _,
    helpers::{bpf_get_netns_cookie, bpf_get_socket_cookie},
    macros::cgroup_sock_addr,
    maps::lpm_trie::Key,
    programs::SockAddrContext,
};
use enforcer_common::{
    DNS_ADDR, DNS_PORT, GateKey, Hook, NETWORK_KEY_FIXED_BITS, NetworkKey, Reason, TCP, UDP,
};

use crate::{
    maps::{CONNECTS, GATE, NETWORKS, settings},
    record::{Attempt, addr4, addr6, current, deny},
    verdict::{Address, Verdict, is_loopback, is_synthetic},
};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    outgoing4(&ctx, Hook::Connect4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    outgoing6(&ctx, Hook::Connect6)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    outgoing4(&ctx, Hook::Sendmsg4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    outgoing6(&ctx, Hook::Sendmsg6)
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the verifier admits reads of these context fields.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    let attempt = attempt(&ctx, Hook::Bind4, AF_INET, addr4(ip));
    // The namespace has 127.0.0.0/8 and what the gateway answers for; the latter is not the agent's to take.
    if is_loopback(u32::from_be(ip)) { 1 } else { deny(&attempt, Reason::BindReserved) }
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    let words = words6(&ctx);
    let attempt = attempt(&ctx, Hook::Bind6, AF_INET6, addr6(words));
    match Address::of6(words) {
        Address::Loopback6 => 1,
        Address::V4(addr) if is_loopback(addr) => 1,
        Address::V4(_) => deny(&attempt, Reason::BindReserved),
        Address::Other6 => deny(&attempt, Reason::Ipv6),
    }
}

#[inline(always)]
fn outgoing4(ctx: &SockAddrContext, hook: Hook) -> i32 {
    // SAFETY: the verifier admits reads of these context fields.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    let mut attempt = attempt(ctx, hook, AF_INET, addr4(ip));
    conclude(ctx, &mut attempt, Address::V4(u32::from_be(ip)))
}

#[inline(always)]
fn outgoing6(ctx: &SockAddrContext, hook: Hook) -> i32 {
    let words = words6(ctx);
    let mut attempt = attempt(ctx, hook, AF_INET6, addr6(words));
    conclude(ctx, &mut attempt, Address::of6(words))
}

#[inline(always)]
fn conclude(ctx: &SockAddrContext, attempt: &mut Attempt, address: Address) -> i32 {
    let own = match address {
        Address::Loopback6 => true,
        Address::V4(addr) => is_loopback(addr),
        Address::Other6 => false,
    };
    match decide(attempt, address) {
        Verdict::Allow => {
            // Loopback never comes to the gateway: nobody asks whose it was.
            if attempt.proto == TCP && !own {
                remember(ctx);
            }
            1
        }
        Verdict::Deny(reason) => deny(attempt, reason),
    }
}

#[inline(always)]
fn decide(attempt: &mut Attempt, address: Address) -> Verdict {
    let settings = settings();
    attempt.generation = settings.generation;
    if settings.netns_cookie == 0 || settings.generation == 0 {
        return Verdict::Deny(Reason::Internal);
    }
    if settings.netns_cookie != attempt.netns_cookie {
        return Verdict::Deny(Reason::ForeignNamespace);
    }
    if attempt.port == 0 {
        return Verdict::Deny(Reason::PortZero);
    }
    if attempt.proto != TCP && attempt.proto != UDP {
        return Verdict::Deny(Reason::SocketType);
    }
    let addr = match address {
        Address::Loopback6 => return Verdict::Allow,
        Address::Other6 => return Verdict::Deny(Reason::Ipv6),
        Address::V4(addr) => addr,
    };
    if is_loopback(addr) {
        return Verdict::Allow;
    }
    if is_synthetic(addr) {
        if addr == DNS_ADDR && attempt.port == DNS_PORT {
            return Verdict::Allow;
        }
        let key = GateKey {
            generation: settings.generation,
            addr,
            port: attempt.port,
            proto: attempt.proto,
            _pad: 0,
        };
        return if GATE.get_ptr(key).is_some() {
            Verdict::Allow
        } else {
            Verdict::Deny(Reason::NotAllowed)
        };
    }
    let key = NetworkKey {
        generation: settings.generation.to_be_bytes(),
        port: attempt.port.to_be_bytes(),
        proto: attempt.proto,
        _pad: 0,
        addr: addr.to_be_bytes(),
    };
    if NETWORKS.get(Key::new(NETWORK_KEY_FIXED_BITS + 32, key)).is_some() {
        Verdict::Allow
    } else {
        Verdict::Deny(Reason::NotAllowed)
    }
}

/// Keeps who is connecting, for the first packet, which knows the ports but not the process.
#[inline(always)]
fn remember(ctx: &SockAddrContext) {
    // SAFETY: the helper takes this program type's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // A failure loses attribution, never a verdict.
    let _ = CONNECTS.insert(cookie, current(), 0);
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
    let proto = if proto > 255 { 255 } else { proto as u8 };
    Attempt { hook, netns_cookie, generation: 0, family, addr, port, proto }
}

#[inline(always)]
fn words6(ctx: &SockAddrContext) -> [u32; 4] {
    // SAFETY: the verifier admits word reads of this context field.
    unsafe {
        let a = &raw const (*ctx.sock_addr).user_ip6;
        let w = a.cast::<u32>();
        [
            core::ptr::read_volatile(w),
            core::ptr::read_volatile(w.add(1)),
            core::ptr::read_volatile(w.add(2)),
            core::ptr::read_volatile(w.add(3)),
        ]
    }
}
