//! The synthetic address plan, as the gateway needs it: the same numbers as `enforcer_common`, which this room does not
//! depend on; the test below compares them.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_the_one_that_the_kernel_side_has() {
        assert_eq!(POOL, enforcer_common::POOL_BASE);
        assert_eq!(POOL_MASK, enforcer_common::POOL_MASK);
        assert_eq!(INTERNAL.to_bits(), enforcer_common::INTERNAL_ADDR);
        assert_eq!(FIRST.to_bits(), enforcer_common::POOL_FIRST);
    }
}
