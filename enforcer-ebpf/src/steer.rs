//! sk_lookup in the agent's network namespace (minimum kernel 5.9): TCP to anything but loopback goes to the gateway's
//! listening socket, whichever address and port it was for. No socket, or a failed assignment: dropped, never left to a
//! listener of the agent's.

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    macros::sk_lookup,
    programs::SkLookupContext,
};
use enforcer_common::TCP;

use crate::{
    maps::LISTENER,
    verdict::{Address, is_loopback},
};

const AF_INET: u32 = 2;

#[sk_lookup]
pub fn steer(ctx: SkLookupContext) -> u32 {
    // SAFETY: the verifier admits reads of these context fields.
    let (family, proto) = unsafe { ((*ctx.lookup).family, (*ctx.lookup).protocol) };
    if proto != TCP as u32 {
        // UDP reaches only sockets bound to its own address: bind4/6 leaves the synthetic ones to the enforcer.
        return SK_PASS;
    }
    let own = if family == AF_INET {
        // SAFETY: as above.
        is_loopback(u32::from_be(unsafe { (*ctx.lookup).local_ip4 }))
    } else {
        // SAFETY: as above, word by word.
        let words = unsafe {
            let w = (&raw const (*ctx.lookup).local_ip6).cast::<u32>();
            [
                core::ptr::read_volatile(w),
                core::ptr::read_volatile(w.add(1)),
                core::ptr::read_volatile(w.add(2)),
                core::ptr::read_volatile(w.add(3)),
            ]
        };
        match Address::of6(words) {
            Address::Loopback6 => true,
            Address::V4(addr) => is_loopback(addr),
            Address::Other6 => return SK_DROP,
        }
    };
    if own {
        return SK_PASS;
    }
    match LISTENER.redirect_sk_lookup(&ctx, 0, 0) {
        Ok(()) => SK_PASS,
        Err(_) => SK_DROP,
    }
}
