//! The one verdict of every hook, and the classes of addresses that the hooks tell apart.

use enforcer_common::{POOL_BASE, POOL_MASK, Reason};

/// What a hook decides. There is no default but `Deny`.
pub enum Verdict {
    Allow,
    Deny(Reason),
}

/// An IPv6 destination as the gate sees it.
#[derive(Clone, Copy)]
pub enum Address {
    /// IPv4, in host byte order, whether asked for as IPv4 or as v4-mapped IPv6.
    V4(u32),
    /// ::1, or ::, which the kernel takes for it.
    Loopback6,
    Other6,
}

impl Address {
    /// Words in network byte order, as `bpf_sock_addr` has them.
    #[inline(always)]
    pub fn of6(words: [u32; 4]) -> Self {
        if words[0] != 0 || words[1] != 0 {
            return Self::Other6;
        }
        if words[2] == 0xffff_u32.to_be() {
            return Self::V4(u32::from_be(words[3]));
        }
        if words[2] == 0 && (words[3] == 0 || words[3] == 1_u32.to_be()) {
            return Self::Loopback6;
        }
        Self::Other6
    }
}

/// 127.0.0.0/8, and 0.0.0.0, which the kernel takes for it.
#[inline(always)]
pub fn is_loopback(addr: u32) -> bool {
    addr >> 24 == 127 || addr == 0
}

/// 198.18.0.0/15.
#[inline(always)]
pub fn is_synthetic(addr: u32) -> bool {
    addr & POOL_MASK == POOL_BASE
}
