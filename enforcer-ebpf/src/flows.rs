//! A connection's first packet joins the process that `connect` remembered by socket cookie to the ports that the gateway
//! will see: `connect` itself runs before the socket has a port. The packet leaves before the far side can accept.
//! Here and not in a `sock_ops` program: the kernel calls those nine times for one connection on loopback.

use aya_ebpf::{EbpfContext as _, helpers::bpf_get_socket_cookie, programs::SkBuffContext};
use enforcer_common::{FlowKey, TCP};

use crate::{
    maps::{CONNECTS, FLOWS},
    verdict::is_loopback,
};

/// Offsets of version and header length, and of the protocol, in an IPv4 header (RFC 791 section 3.1).
const VERSION_IHL: usize = 0;
const PROTOCOL: usize = 9;
/// Bytes of an IPv4 header without options.
const IPV4_HEADER: usize = 20;
/// Offset of the flags in a TCP header (RFC 9293 section 3.1), SYN and ACK in them.
const FLAGS: usize = 13;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

#[inline(always)]
pub fn join(ctx: &SkBuffContext) {
    if !is_syn(ctx) {
        return;
    }
    // SAFETY: the verifier admits reads of these context fields; they are the socket's own, an IPv6 socket's mapped ones
    // included.
    let key = unsafe {
        let skb = ctx.skb.skb;
        FlowKey {
            local_addr: u32::from_be((*skb).local_ip4),
            remote_addr: u32::from_be((*skb).remote_ip4),
            local_port: (*skb).local_port as u16,
            remote_port: u32::from_be((*skb).remote_port) as u16,
        }
    };
    // Loopback never comes to the gateway: nobody asks whose it was.
    if is_loopback(key.remote_addr) {
        return;
    }
    // SAFETY: the helper takes this program type's context.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // It stays there for a SYN that is sent again, until others push it out.
    // SAFETY: the value is copied at once; a concurrent update could at worst mix two records of one socket.
    let _ = match unsafe { CONNECTS.get(&cookie) } {
        // A failure loses attribution, never a verdict.
        Some(process) => FLOWS.insert(key, process, 0),
        // Whoever opened the last connection with these addresses and ports did not open this one.
        None => FLOWS.remove(&key),
    };
}

/// Whether an IPv4 packet opens a TCP connection. The gateway is reached by IPv4 alone.
#[inline(always)]
fn is_syn(ctx: &SkBuffContext) -> bool {
    // SAFETY: the verifier admits reads of these context fields and makes pointers into the packet of them.
    let (data, end) = unsafe { ((*ctx.skb.skb).data as usize, (*ctx.skb.skb).data_end as usize) };
    if data + IPV4_HEADER + FLAGS + 1 > end {
        return false;
    }
    // SAFETY: within the packet, as compared above.
    let byte = |offset: usize| unsafe { *((data + offset) as *const u8) };
    if byte(VERSION_IHL) >> 4 != 4 || byte(PROTOCOL) != TCP {
        return false;
    }
    let header = usize::from(byte(VERSION_IHL) & 0xf) * 4;
    let flags = if header == IPV4_HEADER {
        byte(IPV4_HEADER + FLAGS)
    } else {
        // With options, which any process may ask for.
        ctx.load::<u8>(header + FLAGS).unwrap_or(0)
    };
    flags & (SYN | ACK) == SYN
}
