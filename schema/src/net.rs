//! What rules say about the wire besides names: protocols, transports and IPv4 networks. Policy, gateway and the
//! enforcer's maps use these types, so that one text has one meaning.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// What the gateway requires of a connection; see the table in `SPEC.md`.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Protocol {
    Https,
    Http,
    Tls,
    Tcp,
    Udp,
}

/// How bytes travel below the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    Tcp,
    Udp,
}

/// An IPv4 network whose host bits are zero; a lone address is a /32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    addr: Ipv4Addr,
    prefix: u8,
}

/// Why a text is no IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CidrError {
    #[error("not an IPv4 address in dotted decimal, or one with `/` and a prefix of 0 to 32")]
    Syntax,
    #[error("IPv6 networks are not enforced by this version")]
    Ipv6,
    #[error("the address has bits set beyond its prefix; the network is {network}")]
    HostBits { network: Cidr },
}

// === impl Protocol ===

impl Protocol {
    pub const ALL: [Self; 5] = [Self::Https, Self::Http, Self::Tls, Self::Tcp, Self::Udp];

    pub fn transport(self) -> Transport {
        match self {
            Self::Udp => Transport::Udp,
            Self::Https | Self::Http | Self::Tls | Self::Tcp => Transport::Tcp,
        }
    }

    /// What a port carries when nobody says: 443 is https, 80 is http, any other tcp.
    pub fn default_for_port(port: u16) -> Self {
        match port {
            443 => Self::Https,
            80 => Self::Http,
            _ => Self::Tcp,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// Whether the gateway relays the bytes without reading any of them.
    pub fn is_opaque(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl Transport ===

impl Transport {
    /// The IP protocol number: 6 or 17.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

// === impl Cidr ===

impl Cidr {
    /// `None` when the prefix is above 32 or host bits are set.
    pub fn new(addr: Ipv4Addr, prefix: u8) -> Option<Self> {
        let cidr = Self { addr, prefix };
        (prefix <= 32 && addr.to_bits() & !cidr.mask() == 0).then_some(cidr)
    }

    /// Reads `10.0.0.0/8` or `10.1.2.3`, strictly: four decimal octets without leading zeros, no host bits.
    ///
    /// # Errors
    /// [`CidrError`] says which of it does not hold.
    pub fn parse(text: &str) -> Result<Self, CidrError> {
        let (addr, prefix) = match text.split_once('/') {
            Some((addr, prefix)) => (addr, parse_prefix(prefix).ok_or(CidrError::Syntax)?),
            None => (text, 32),
        };
        if addr.parse::<std::net::Ipv6Addr>().is_ok() {
            return Err(CidrError::Ipv6);
        }
        let addr: Ipv4Addr = addr.parse().map_err(|_| CidrError::Syntax)?;
        if prefix > 32 {
            return Err(CidrError::Syntax);
        }
        let network = Self {
            addr: Ipv4Addr::from_bits(addr.to_bits() & Self { addr, prefix }.mask()),
            prefix,
        };
        if network.addr != addr {
            return Err(CidrError::HostBits { network });
        }
        Ok(network)
    }

    pub fn addr(&self) -> Ipv4Addr {
        self.addr
    }

    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        addr.to_bits() & self.mask() == self.addr.to_bits()
    }

    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.addr) || other.contains(self.addr)
    }

    fn mask(&self) -> u32 {
        u32::MAX
            .checked_shl(32 - u32::from(self.prefix.min(32)))
            .unwrap_or(0)
    }
}

fn parse_prefix(text: &str) -> Option<u8> {
    let digits = (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    let canonical = digits && (text.len() == 1 || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix {
            32 => write!(f, "{}", self.addr),
            prefix => write!(f, "{}/{prefix}", self.addr),
        }
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        Self::parse(text)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_network_is_strict_about_its_spelling() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(Cidr::parse(text).unwrap().to_string(), shown);
        }
        for text in [
            "",
            "10",
            "10.0.0",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "010.0.0.0/8",
            "0x0a.0.0.0/8",
            "10.0.0.0/8/8",
            " 10.0.0.0/8",
            "10.0.0.0/8 ",
            "10.0.0.0/255.0.0.0",
            "example.com",
            "10.0.0.0/256",
        ] {
            assert_eq!(Cidr::parse(text), Err(CidrError::Syntax), "{text:?}");
        }
        assert_eq!(Cidr::parse("::1"), Err(CidrError::Ipv6));
        assert_eq!(Cidr::parse("fd00::/8"), Err(CidrError::Ipv6));
        let error = Cidr::parse("10.1.2.3/8").unwrap_err();
        assert!(
            error.to_string().ends_with("the network is 10.0.0.0/8"),
            "{error}"
        );
    }

    #[test]
    fn a_network_contains_its_first_and_last_address_and_neither_neighbour() {
        let net = Cidr::parse("10.20.0.0/16").unwrap();
        for (addr, inside) in [
            ([10, 19, 255, 255], false),
            ([10, 20, 0, 0], true),
            ([10, 20, 255, 255], true),
            ([10, 21, 0, 0], false),
        ] {
            assert_eq!(net.contains(addr.into()), inside, "{addr:?}");
        }
        assert!(Cidr::parse("0.0.0.0/0").unwrap().contains([255; 4].into()));
        assert!(net.overlaps(&Cidr::parse("10.0.0.0/8").unwrap()));
        assert!(net.overlaps(&Cidr::parse("10.20.1.1").unwrap()));
        assert!(!net.overlaps(&Cidr::parse("10.21.0.0/16").unwrap()));
        assert_eq!(Cidr::new([10, 0, 0, 1].into(), 8), None);
        assert_eq!(Cidr::new([10, 0, 0, 0].into(), 33), None);
    }

    #[test]
    fn a_port_has_a_protocol_unless_one_is_said() {
        assert_eq!(Protocol::default_for_port(443), Protocol::Https);
        assert_eq!(Protocol::default_for_port(80), Protocol::Http);
        assert_eq!(Protocol::default_for_port(5432), Protocol::Tcp);
        assert_eq!(Protocol::Udp.transport().number(), 17);
        assert_eq!(Protocol::Tls.transport().number(), 6);
        for protocol in Protocol::ALL {
            assert_eq!(
                serde_json::to_string(&protocol).unwrap(),
                format!("\"{protocol}\"")
            );
        }
    }
}
