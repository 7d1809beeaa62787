//! The synthetic address plan, as the gateway needs it: the same numbers as `enforcer_common`, which this room does not
//! depend on. A test of the enforcer's compares them.

use std::net::Ipv4Addr;

/// 198.18.0.0/15.
pub const POOL: u32 = 0xc612_0000;
pub const POOL_MASK: u32 = 0xfffe_0000;
/// `agentcontainer.internal`.
pub const INTERNAL: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 3);
/// The first address that a name may get; those before it are ours.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);
pub const INTERNAL_NAME: &str = "agentcontainer.internal";

/// Whether an address stands for a name.
pub fn is_synthetic(address: Ipv4Addr) -> bool {
    address.to_bits() & POOL_MASK == POOL
}
