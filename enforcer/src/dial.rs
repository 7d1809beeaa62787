//! What the gateway's process may dial, from policy: the public internet, less the ranges that are somebody's own
//! network, plus what policy names. Most specific wins, so a metadata address inside a named network stays refused.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use policy::{EffectivePolicy, address_class};
use schema::gateway::{HttpProxy, ProxyHost, Resolver};
use schema::net::{Cidr, Transport};

use crate::kernel::{KernelError, SessionMaps};

/// The IPv6 addresses that are unicast to somewhere (IANA).
const GLOBAL6: &str = "2000::/3";

/// Of those, what embeds IPv4 addresses, is reserved or nobody's: Teredo and other protocol assignments, documentation,
/// 6to4. Whatever else is not in [`GLOBAL6`] is refused by being nowhere in the map.
const REFUSED6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// IPv6 metadata services: refused whatever policy names.
const NEVER6: [&str; 3] = ["fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128"];

/// Writes the gateway's gate. `system` are the servers of the system's resolver.
pub fn admit(
    maps: &mut SessionMaps,
    policy: &EffectivePolicy,
    system: &[SocketAddr],
) -> Result<(), KernelError> {
    let parse = |text: &str| text.parse::<IpNet>().ok();
    maps.dial_nothing()?;
    // Most specific wins, and an equal prefix that is written later: first what is somebody's own network, then what
    // policy names, then what no policy can name.
    for (cidr, _) in address_class::ranges_v4() {
        maps.dial_network(v4(cidr), false)?;
    }
    for network in REFUSED6.iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, false)?;
    }
    for network in named(policy) {
        maps.dial_network(network, true)?;
    }
    for (cidr, _) in address_class::ranges_v4().filter(|(_, class)| class.never_allowed()) {
        maps.dial_network(v4(cidr), false)?;
    }
    for network in NEVER6.iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, false)?;
    }
    let resolvers = match policy.gateway.resolver {
        Resolver::System => system.to_vec(),
        Resolver::Address(address) => vec![address],
    };
    for resolver in resolvers {
        maps.dial_address(resolver, Transport::Udp)?;
        maps.dial_address(resolver, Transport::Tcp)?;
    }
    if let Some(HttpProxy { host: ProxyHost::Address(address), port }) =
        &policy.gateway.upstream_proxy
    {
        maps.dial_address(SocketAddr::new(*address, *port), Transport::Tcp)?;
    }
    for network in ["0.0.0.0/0", GLOBAL6].iter().filter_map(|text| parse(text)) {
        maps.dial_network(network, true)?;
    }
    Ok(())
}

fn v4(cidr: Cidr) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(cidr.addr(), cidr.prefix()))
}

/// Every network and address that policy names as one the gateway may reach.
fn named(policy: &EffectivePolicy) -> Vec<IpNet> {
    let mut networks: Vec<IpNet> = policy.gateway.private_networks.clone();
    let compiled = policy.compile();
    for rule in compiled.networks() {
        networks.push(v4(rule.cidr));
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
        for text in REFUSED6.iter().chain(&NEVER6).chain(&[GLOBAL6]) {
            text.parse::<IpNet>().unwrap();
        }
    }
}
