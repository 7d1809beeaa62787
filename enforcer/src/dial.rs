//! What the gateway's process may dial, from policy: the public internet, less the ranges that are somebody's own
//! network, plus what policy names. Most specific wins, so a metadata address inside a named network stays refused.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};
use policy::{EffectivePolicy, address_class};
use schema::gateway::{ProxyHost, Resolver};
use schema::net::{Cidr, Transport};

/// The IPv6 addresses that are unicast to somewhere (IANA).
const GLOBAL6: &str = "2000::/3";

/// Of those, what embeds IPv4 addresses, is reserved or nobody's: Teredo and other protocol assignments, documentation,
/// 6to4. Whatever else is not in [`GLOBAL6`] is refused by being nowhere in the map.
const REFUSED6: [&str; 4] = ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"];

/// IPv6 metadata services: refused whatever policy names.
const NEVER6: [&str; 3] = ["fd00:ec2::/32", "fd20:ce::254/128", "fd00:42::42/128"];

/// Whether a network may be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Allowed,
    Refused,
    /// Refused at every port, whatever policy says.
    Never,
}

/// The whole of the gateway's gate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dial {
    /// The most specific network that contains an address decides; none refuses.
    pub networks: BTreeMap<IpNet, Class>,
    /// Servers that may be dialled whatever network they are in.
    pub addresses: BTreeSet<(SocketAddr, Transport)>,
    /// The port of a proxy that the host names without saying where it is: what its name leads to is its resolver's word. TCP, to
    /// any network that is not [`Class::Never`].
    pub proxy: Option<u16>,
}

impl Dial {
    /// What a policy comes to. `system` are the servers of the system's resolver.
    pub fn new(policy: &EffectivePolicy, system: &[SocketAddr]) -> Self {
        let parse = |text: &&str| text.parse::<IpNet>().ok();
        let ranges = || address_class::ranges_v4();
        let refused = ranges()
            .map(|(cidr, _)| v4(cidr))
            .chain(REFUSED6.iter().filter_map(parse))
            .map(|network| (network, Class::Refused));
        let never = ranges()
            .filter(|(_, class)| class.never_allowed())
            .map(|(cidr, _)| v4(cidr))
            .chain(NEVER6.iter().filter_map(parse))
            .map(|network| (network, Class::Never));
        let public = ["0.0.0.0/0", GLOBAL6];
        // Of equal networks the later one counts: what no policy can name comes after what policy names.
        let networks = public
            .iter()
            .filter_map(parse)
            .map(|network| (network, Class::Allowed))
            .chain(refused)
            .chain(
                named(policy)
                    .into_iter()
                    .map(|network| (network, Class::Allowed)),
            )
            .chain(never)
            .collect();
        let resolvers = match policy.gateway.resolver {
            Resolver::System => system.to_vec(),
            Resolver::Address(address) => vec![address],
        };
        let mut addresses: BTreeSet<_> = resolvers
            .into_iter()
            .flat_map(|server| [(server, Transport::Udp), (server, Transport::Tcp)])
            .collect();
        let mut port = None;
        if let Some(proxy) = &policy.gateway.upstream_proxy {
            match &proxy.host {
                ProxyHost::Address(address) => {
                    addresses.insert((SocketAddr::new(*address, proxy.port), Transport::Tcp));
                }
                // Where `hosts` places it, its addresses are among the networks already.
                ProxyHost::Name(name) if policy.gateway.hosts.contains_key(name) => {}
                ProxyHost::Name(_) => port = Some(proxy.port),
            }
        }
        Self {
            networks,
            addresses,
            proxy: port,
        }
    }
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

    fn with(gateway: serde_json::Value) -> Dial {
        let document = serde_json::json!({
            "version": 1, "network": [{}], "gateway": gateway
        });
        let policy = EffectivePolicy::from_json(document.to_string().as_bytes()).unwrap();
        Dial::new(&policy, &[])
    }

    /// As the kernel's longest-prefix match answers.
    fn admits(dial: &Dial, address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        dial.networks
            .iter()
            .filter(|(network, _)| network.contains(&address))
            .max_by_key(|(network, _)| network.prefix_len())
            .is_some_and(|(_, class)| *class == Class::Allowed)
    }

    #[test]
    fn a_proxy_by_name_opens_its_port_unless_the_host_says_where_it_is() {
        let proxy = "http://proxy.corp:3128";
        let dial = with(serde_json::json!({ "upstreamProxy": proxy }));
        assert_eq!(dial.proxy, Some(3128));
        assert!(!admits(&dial, "10.1.2.3"));
        let hosts = serde_json::json!({ "proxy.corp": ["10.1.2.3"] });
        let dial = with(serde_json::json!({ "upstreamProxy": proxy, "hosts": hosts }));
        assert_eq!(dial.proxy, None);
        assert!(admits(&dial, "10.1.2.3") && !admits(&dial, "10.1.2.4"));
        let dial = with(serde_json::json!({ "upstreamProxy": "http://10.1.2.3:3128" }));
        assert_eq!((dial.proxy, dial.addresses.len()), (None, 1));
    }

    #[test]
    fn private_and_metadata_addresses_are_refused_and_public_ones_are_not() {
        let dial = with(serde_json::json!({}));
        for refused in [
            "10.1.2.3",
            "172.17.0.1",
            "192.168.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "100.100.100.200",
            "168.63.129.16",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "fd00:ec2::254",
            "2002:a00:1::",
            "64:ff9b::a00:1",
        ] {
            assert!(!admits(&dial, refused), "{refused}");
        }
        assert!(admits(&dial, "93.184.216.34"));
        assert!(admits(&dial, "2606:4700:4700::1111"));
    }

    #[test]
    fn a_named_network_opens_but_not_the_metadata_service_in_it() {
        let networks = ["10.0.0.0/8", "169.254.0.0/16"];
        let dial = with(serde_json::json!({ "privateNetworks": networks }));
        assert!(admits(&dial, "10.1.2.3"));
        assert!(!admits(&dial, "192.168.0.1"));
        assert!(!admits(&dial, "169.254.169.254"));
    }

    #[test]
    fn every_range_in_the_tables_parses() {
        for text in REFUSED6.iter().chain(&NEVER6).chain(&[GLOBAL6]) {
            text.parse::<IpNet>().unwrap();
        }
    }
}
