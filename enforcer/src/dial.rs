//! What the gateway's process may dial, from policy: the public internet, less the ranges that are somebody's own
//! network, plus what policy names. Most specific wins, so a metadata address inside a named network stays refused.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use policy::EffectivePolicy;
use schema::net::Transport;

use crate::kernel::{KernelError, SessionMaps};

/// Ranges that are refused unless policy names them (IANA special-purpose registries, RFC 6890 and successors).
const REFUSED: [&str; 22] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "168.63.129.16/32",
    // Of 2000::/3: Teredo and the other protocol assignments, documentation, 6to4, which embed IPv4 addresses.
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "3fff::/20",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
];

/// Refused whatever policy names.
const NEVER: [&str; 5] = [
    "169.254.169.254/32",
    "169.254.170.2/32",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "fd00:ec2::254/128",
];

/// Writes the gateway's gate. `resolvers` are the servers it asks for names.
pub fn admit(
    maps: &mut SessionMaps,
    policy: &EffectivePolicy,
    resolvers: &[SocketAddr],
) -> Result<(), KernelError> {
    maps.dial_nothing()?;
    let parse = |text: &str| text.parse::<IpNet>().ok();
    for network in REFUSED.iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, false)?;
    }
    for network in named(policy) {
        maps.dial_network(network, true)?;
    }
    for network in NEVER.iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, false)?;
    }
    for resolver in resolvers {
        maps.dial_address(*resolver, Transport::Udp)?;
        maps.dial_address(*resolver, Transport::Tcp)?;
    }
    for network in ["0.0.0.0/0", "2000::/3"].iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, true)?;
    }
    Ok(())
}

/// Every network and address that policy names as one the gateway may reach.
fn named(policy: &EffectivePolicy) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = policy.gateway.private_networks.clone();
    let compiled = policy.compile();
    for rule in compiled.networks() {
        if let Ok(network) = IpNet::new(IpAddr::V4(rule.cidr.addr()), rule.cidr.prefix()) {
            networks.push(network);
        }
    }
    for addresses in policy.gateway.hosts.values() {
        networks.extend(addresses.iter().map(|ip| IpNet::from(*ip)));
    }
    networks
}

/// The servers that the system's resolver configuration names (resolv.conf(5)).
pub fn system_resolvers() -> Vec<SocketAddr> {
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|rest| rest.trim().parse::<IpAddr>().ok())
        .map(|ip| SocketAddr::new(ip, enforcer_common::DNS_PORT))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_range_in_the_tables_parses() {
        for text in REFUSED.iter().chain(&NEVER) {
            text.parse::<IpNet>().unwrap();
        }
    }
}
