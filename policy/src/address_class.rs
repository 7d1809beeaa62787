//! The one classifier of IP addresses. The gateway asks it about every address that a name resolved to before it dials,
//! the enforcer fills the gateway's own kernel gate from the same table, and policy checks literal networks by it.
//! Sources: the IANA special-purpose registries (RFC 6890 and successors), the providers' metadata documentation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schema::net::Cidr;
use thiserror::Error;

/// Shortest prefix that a `networks` rule may have.
pub const MIN_NETWORK_PREFIX: u8 = 8;

/// What kind of place an address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Globally reachable unicast.
    Public,
    /// RFC 1918, shared address space (RFC 6598), unique local, site-local.
    Private,
    LinkLocal,
    Loopback,
    /// TEST-NET and 2001:db8::/32: nobody's, but usable in a laboratory that says so.
    Documentation,
    /// A cloud's instance metadata or credential service. Never allowed.
    Metadata,
    Multicast,
    /// 198.18.0.0/15, which stands for names inside the agent's namespace and is nowhere outside of it.
    Synthetic,
    /// `0.0.0.0/8` and `::`: the host itself, to most kernels.
    Unspecified,
    /// Everything else that is not unicast to somewhere: 240/4, discard-only, transition mechanisms, unassigned.
    Reserved,
    /// Of whatever kind, in a network that an organisation's policy denies. No address is of it by itself.
    Denied,
}

/// Why a literal network cannot be a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NetworkRefusal {
    #[error("the network is wider than /{MIN_NETWORK_PREFIX}")]
    TooWide,
    #[error("the network contains {range}, which is {class} and can never be allowed")]
    Overlaps { range: Cidr, class: Class },
}

/// First address, prefix length, class. More specific entries come first; what no entry covers is public.
type V4Range = ([u8; 4], u8, Class);

const V4: &[V4Range] = &[
    // AWS, GCP, Azure, DigitalOcean, OpenStack (.254), AWS DNS and time (.253, .123), ECS and EKS (170.2, 170.23).
    ([169, 254, 169, 0], 24, Class::Metadata),
    ([169, 254, 170, 0], 24, Class::Metadata),
    // Tencent, Scaleway.
    ([169, 254, 0, 23], 32, Class::Metadata),
    ([169, 254, 42, 42], 32, Class::Metadata),
    // Azure's host agent (WireServer): a public address by number, the hypervisor by place.
    ([168, 63, 129, 16], 32, Class::Metadata),
    // Alibaba.
    ([100, 100, 100, 200], 32, Class::Metadata),
    // Oracle Cloud Classic.
    ([192, 0, 0, 192], 32, Class::Metadata),
    ([0, 0, 0, 0], 8, Class::Unspecified),
    ([10, 0, 0, 0], 8, Class::Private),
    ([100, 64, 0, 0], 10, Class::Private),
    ([127, 0, 0, 0], 8, Class::Loopback),
    ([169, 254, 0, 0], 16, Class::LinkLocal),
    ([172, 16, 0, 0], 12, Class::Private),
    ([192, 0, 0, 0], 24, Class::Reserved),
    ([192, 0, 2, 0], 24, Class::Documentation),
    ([192, 88, 99, 0], 24, Class::Reserved),
    ([192, 168, 0, 0], 16, Class::Private),
    ([198, 18, 0, 0], 15, Class::Synthetic),
    ([198, 51, 100, 0], 24, Class::Documentation),
    ([203, 0, 113, 0], 24, Class::Documentation),
    ([224, 0, 0, 0], 4, Class::Multicast),
    ([240, 0, 0, 0], 4, Class::Reserved),
];

/// The IPv6 ranges that have one class throughout. Ranges that embed an IPv4 address are taken apart in
/// [`classify_v6`]. Only 2000::/3 is ever public.
type V6Range = ([u16; 8], u8, Class);

const V6: &[V6Range] = &[
    // AWS (IMDS, EKS), GCP, Scaleway.
    ([0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0], 32, Class::Metadata),
    ([0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x254], 128, Class::Metadata),
    ([0xfd00, 0x0042, 0, 0, 0, 0, 0, 0x42], 128, Class::Metadata),
    ([0, 0, 0, 0, 0, 0, 0, 0], 128, Class::Unspecified),
    ([0, 0, 0, 0, 0, 0, 0, 1], 128, Class::Loopback),
    // RFC 8215: NAT64 prefixes of the local network's own choosing.
    ([0x64, 0xff9b, 1, 0, 0, 0, 0, 0], 48, Class::Private),
    ([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7, Class::Private),
    ([0xfe80, 0, 0, 0, 0, 0, 0, 0], 10, Class::LinkLocal),
    ([0xfec0, 0, 0, 0, 0, 0, 0, 0], 10, Class::Private),
    ([0xff00, 0, 0, 0, 0, 0, 0, 0], 8, Class::Multicast),
    ([0x2001, 0x0db8, 0, 0, 0, 0, 0, 0], 32, Class::Documentation),
    ([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20, Class::Documentation),
    // RFC 2928: protocol assignments, Teredo, benchmarking, ORCHID.
    ([0x2001, 0, 0, 0, 0, 0, 0, 0], 23, Class::Reserved),
    // RFC 7526: 6to4 is deprecated.
    ([0x2002, 0, 0, 0, 0, 0, 0, 0], 16, Class::Reserved),
    ([0x2000, 0, 0, 0, 0, 0, 0, 0], 3, Class::Public),
    ([0, 0, 0, 0, 0, 0, 0, 0], 0, Class::Reserved),
];

/// The class of an address; one that embeds an IPv4 address is at best as good as that one.
pub fn classify(address: IpAddr) -> Class {
    match address {
        IpAddr::V4(v4) => classify_v4(v4),
        IpAddr::V6(v6) => classify_v6(v6),
    }
}

fn classify_v4(address: Ipv4Addr) -> Class {
    V4.iter()
        .find(|range| v4_cidr(range).is_some_and(|cidr| cidr.contains(address)))
        .map_or(Class::Public, |r| r.2)
}

fn classify_v6(address: Ipv6Addr) -> Class {
    let s = address.segments();
    let last32 = || v4_of(s[6], s[7]);
    if let Some(v4) = address.to_ipv4_mapped() {
        return classify_v4(v4);
    }
    // RFC 6052 well-known prefix: what a NAT64 in front of us dials in our stead.
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return classify_v4(last32());
    }
    let own = V6
        .iter()
        .find(|range| v6_contains(range, address))
        .map_or(Class::Reserved, |range| range.2);
    let embedded = match s {
        // IPv4-compatible (RFC 4291 §2.5.5.1) and IPv4-translated (RFC 7915, ::ffff:0:a.b.c.d).
        [0, 0, 0, 0, 0, 0, _, _] | [0, 0, 0, 0, 0xffff, 0, _, _] if own == Class::Reserved => {
            Some(last32())
        }
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => Some(v4_of(high, low)),
        // Teredo (RFC 4380): the client, obfuscated.
        [0x2001, 0, ..] => Some(v4_of(!s[6], !s[7])),
        // ISATAP (RFC 5214): in the interface identifier of any prefix.
        [.., 0 | 0x200, 0x5efe, _, _] => Some(last32()),
        _ => None,
    };
    match embedded.map(classify_v4) {
        Some(Class::Public) | None => own,
        // Named by its destination, unless the prefix is refused more firmly than what it wraps.
        Some(inner) if own.never_allowed() && !inner.never_allowed() => own,
        Some(inner) => inner,
    }
}

fn v4_of(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))
}

fn v4_cidr(&(first, prefix, _): &V4Range) -> Option<Cidr> {
    Cidr::new(first.into(), prefix)
}

fn v6_contains(&(first, prefix, _): &V6Range, address: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
    address.to_bits() & mask == Ipv6Addr::from(first).to_bits() & mask
}

/// Every IPv4 range that is not public, more specific ranges first: what the gateway's kernel gate is filled from.
pub fn ranges_v4() -> impl Iterator<Item = (Cidr, Class)> {
    V4.iter()
        .filter_map(|range| v4_cidr(range).map(|cidr| (cidr, range.2)))
}

/// Whether a workspace may name this literal network in a rule.
///
/// # Errors
/// [`NetworkRefusal`] when it is too wide, or contains an address that can never be allowed.
pub fn check_network(network: Cidr) -> Result<(), NetworkRefusal> {
    if network.prefix() < MIN_NETWORK_PREFIX {
        return Err(NetworkRefusal::TooWide);
    }
    let refused = |class: Class| class.never_allowed() || class == Class::Loopback;
    match ranges_v4().find(|(range, class)| refused(*class) && range.overlaps(&network)) {
        Some((range, class)) => Err(NetworkRefusal::Overlaps { range, class }),
        None => Ok(()),
    }
}

// === impl Class ===

impl Class {
    pub fn is_public(self) -> bool {
        self == Self::Public
    }

    /// Whether no rule and no host configuration can open it.
    pub fn never_allowed(self) -> bool {
        matches!(
            self,
            Self::Metadata
                | Self::Multicast
                | Self::Synthetic
                | Self::Unspecified
                | Self::Reserved
                | Self::Denied
        )
    }

    /// Stable code, as in events: `private`, `metadata`.
    pub fn code(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::LinkLocal => "link-local",
            Self::Loopback => "loopback",
            Self::Documentation => "documentation",
            Self::Metadata => "metadata",
            Self::Multicast => "multicast",
            Self::Synthetic => "synthetic",
            Self::Unspecified => "unspecified",
            Self::Reserved => "reserved",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metadata => "a cloud metadata address",
            Self::Denied => "in a network that an organisation's policy denies",
            Self::Loopback => "loopback",
            Self::Synthetic => "the range that stands for names inside the container",
            Self::Unspecified => "`this host`",
            other => other.code(),
        })
    }
}

#[cfg(test)]
mod tests;
