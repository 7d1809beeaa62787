//! A session's maps: pinned when made, opened from their pins when adopted. All writes go through here.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, MapError, PerCpuArray, RingBuf, SockMap};
use enforcer_common::{
    DIAL_ALLOW, DIAL_ANYWHERE, DIAL_DENY, DIAL_NEVER, DialKey, FlowKey, GateKey,
    NETWORK_KEY_FIXED_BITS, NetworkKey, Process, Settings, TCP, UDP, counter,
};
use ipnet::IpNet;
use schema::net::{Cidr, Transport};

use super::{KernelError, from_pin, take};
use crate::dial::{Class, Dial};

const SETTINGS: &str = "SETTINGS";
const GATE: &str = "GATE";
const NETWORKS: &str = "NETWORKS";
const FLOWS: &str = "FLOWS";
const LISTENER: &str = "LISTENER";
const EVENTS: &str = "EVENTS";
const COUNTERS: &str = "COUNTERS";
const DIAL_NETWORKS4: &str = "DIAL_NETWORKS4";
const DIAL_NETWORKS6: &str = "DIAL_NETWORKS6";
const DIAL_ADDRESSES: &str = "DIAL_ADDRESSES";
/// Every map that outlives the enforcer. (CONNECTS lives as long as the programs that share it.)
const PINNED: [&str; 10] = [
    SETTINGS,
    GATE,
    NETWORKS,
    FLOWS,
    LISTENER,
    EVENTS,
    COUNTERS,
    DIAL_NETWORKS4,
    DIAL_NETWORKS6,
    DIAL_ADDRESSES,
];

/// The maps as they come: the session's, and the ring buffer for whoever reads it.
pub struct Maps {
    pub session: SessionMaps,
    pub events: RingBuf<MapData>,
}

/// What the session writes and asks.
pub struct SessionMaps {
    settings: Array<MapData, Settings>,
    gate: HashMap<MapData, GateKey, u32>,
    networks: LpmTrie<MapData, NetworkKey, u32>,
    flows: HashMap<MapData, FlowKey, Process>,
    listener: SockMap<MapData>,
    counters: PerCpuArray<MapData, u64>,
    dial_networks4: LpmTrie<MapData, [u8; 4], u32>,
    dial_networks6: LpmTrie<MapData, [u8; 16], u32>,
    dial_addresses: HashMap<MapData, DialKey, u32>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Maps")
    }
}

impl std::fmt::Debug for SessionMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionMaps")
    }
}

fn failed(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

impl Maps {
    pub(super) fn pin(ebpf: &mut Ebpf, directory: &Path) -> Result<Self, KernelError> {
        for name in PINNED {
            let path = directory.join(name);
            ebpf.map_mut(name)
                .ok_or(KernelError::Missing(name))?
                .pin(&path)
                .map_err(super::pin_error(&path))?;
        }
        Self::from(|name| take(ebpf, name))
    }

    pub(super) fn adopt(directory: &Path) -> Result<Self, KernelError> {
        Self::from(|name| {
            let data = from_pin(directory, name)?;
            Map::from_map_data(data).map_err(failed(name))
        })
    }

    fn from(
        mut map: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        let session = SessionMaps {
            settings: map(SETTINGS)?.try_into().map_err(failed(SETTINGS))?,
            gate: map(GATE)?.try_into().map_err(failed(GATE))?,
            networks: map(NETWORKS)?.try_into().map_err(failed(NETWORKS))?,
            flows: map(FLOWS)?.try_into().map_err(failed(FLOWS))?,
            listener: map(LISTENER)?.try_into().map_err(failed(LISTENER))?,
            counters: map(COUNTERS)?.try_into().map_err(failed(COUNTERS))?,
            dial_networks4: map(DIAL_NETWORKS4)?
                .try_into()
                .map_err(failed(DIAL_NETWORKS4))?,
            dial_networks6: map(DIAL_NETWORKS6)?
                .try_into()
                .map_err(failed(DIAL_NETWORKS6))?,
            dial_addresses: map(DIAL_ADDRESSES)?
                .try_into()
                .map_err(failed(DIAL_ADDRESSES))?,
        };
        Ok(Self {
            session,
            events: map(EVENTS)?.try_into().map_err(failed(EVENTS))?,
        })
    }
}

fn proto(transport: Transport) -> u8 {
    match transport {
        Transport::Tcp => TCP,
        Transport::Udp => UDP,
    }
}

fn network_key(generation: u32, network: Cidr, port: u16, transport: Transport) -> Key<NetworkKey> {
    let data = NetworkKey {
        generation: generation.to_be_bytes(),
        port: port.to_be_bytes(),
        proto: proto(transport),
        _pad: 0,
        addr: network.addr().octets(),
    };
    Key::new(NETWORK_KEY_FIXED_BITS + u32::from(network.prefix()), data)
}

impl SessionMaps {
    pub fn settings(&self) -> Result<Settings, KernelError> {
        self.settings.get(&0, 0).map_err(failed(SETTINGS))
    }

    /// The one write that makes a generation or a namespace the current one.
    pub fn set_settings(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(0, settings, 0).map_err(failed(SETTINGS))
    }

    pub fn admit(
        &mut self,
        generation: u32,
        addr: Ipv4Addr,
        port: u16,
        transport: Transport,
    ) -> Result<(), KernelError> {
        let key = GateKey {
            generation,
            addr: addr.into(),
            port,
            proto: proto(transport),
            _pad: 0,
        };
        self.gate.insert(key, 1, 0).map_err(failed(GATE))
    }

    pub fn admit_network(
        &mut self,
        generation: u32,
        network: Cidr,
        port: u16,
        transport: Transport,
    ) -> Result<(), KernelError> {
        let key = network_key(generation, network, port, transport);
        self.networks.insert(&key, 1, 0).map_err(failed(NETWORKS))
    }

    /// Removes every entry of other generations than `keep`.
    pub fn sweep(&mut self, keep: u32) -> Result<(), KernelError> {
        let old: Vec<GateKey> = self
            .gate
            .keys()
            .filter(|key| key.as_ref().is_ok_and(|key| key.generation != keep))
            .collect::<Result<_, _>>()
            .map_err(failed(GATE))?;
        for key in old {
            self.gate.remove(&key).map_err(failed(GATE))?;
        }
        let old: Vec<Key<NetworkKey>> = self
            .networks
            .keys()
            .filter(|key| {
                key.as_ref().is_ok_and(|key| {
                    let data = key.data();
                    data.generation != keep.to_be_bytes()
                })
            })
            .collect::<Result<_, _>>()
            .map_err(failed(NETWORKS))?;
        for key in old {
            self.networks.remove(&key).map_err(failed(NETWORKS))?;
        }
        Ok(())
    }

    /// The process that opened this connection, as its first packet recorded it.
    pub fn process(&self, flow: &FlowKey) -> Option<Process> {
        self.flows.get(flow, 0).ok()
    }

    pub fn listen(&mut self, listener: &impl AsRawFd) -> Result<(), KernelError> {
        self.listener.set(0, listener, 0).map_err(failed(LISTENER))
    }

    /// A counter summed over CPUs.
    pub fn counter(&self, slot: u32) -> Result<u64, KernelError> {
        let values = self.counters.get(&slot, 0).map_err(failed(COUNTERS))?;
        Ok(values.iter().sum())
    }

    /// Denials and lost events so far.
    pub fn counts(&self) -> Result<(u64, u64), KernelError> {
        Ok((self.counter(counter::DENIED)?, self.counter(counter::LOST)?))
    }

    /// Packets that were dropped on their way to another device than loopback.
    pub fn dropped(&self) -> Result<u64, KernelError> {
        self.counter(counter::PACKETS)
    }

    /// Lets the gateway dial what `dial` says, besides what it may already: an address that both admit is admitted
    /// throughout.
    pub fn dial_also(&mut self, dial: &Dial) -> Result<(), KernelError> {
        for (network, class) in &dial.networks {
            let value = match class {
                Class::Allowed => DIAL_ALLOW,
                Class::Refused => DIAL_DENY,
                Class::Never => DIAL_NEVER,
            };
            let bits = u32::from(network.prefix_len());
            match network.network() {
                IpAddr::V4(addr) => self
                    .dial_networks4
                    .insert(&Key::new(bits, addr.octets()), value, 0)
                    .map_err(failed(DIAL_NETWORKS4))?,
                IpAddr::V6(addr) => self
                    .dial_networks6
                    .insert(&Key::new(bits, addr.octets()), value, 0)
                    .map_err(failed(DIAL_NETWORKS6))?,
            }
        }
        for key in dial_keys(dial) {
            self.dial_addresses
                .insert(key, 1, 0)
                .map_err(failed(DIAL_ADDRESSES))?;
        }
        Ok(())
    }

    /// Lets the gateway dial nothing but what `dial` says.
    pub fn dial_only(&mut self, dial: &Dial) -> Result<(), KernelError> {
        self.dial_also(dial)?;
        let keys: Result<Vec<_>, _> = self.dial_networks4.keys().collect();
        for key in keys.map_err(failed(DIAL_NETWORKS4))? {
            if !dial
                .networks
                .contains_key(&network(key.data().into(), key.prefix_len()))
            {
                self.dial_networks4
                    .remove(&key)
                    .map_err(failed(DIAL_NETWORKS4))?;
            }
        }
        let keys: Result<Vec<_>, _> = self.dial_networks6.keys().collect();
        for key in keys.map_err(failed(DIAL_NETWORKS6))? {
            if !dial
                .networks
                .contains_key(&network(key.data().into(), key.prefix_len()))
            {
                self.dial_networks6
                    .remove(&key)
                    .map_err(failed(DIAL_NETWORKS6))?;
            }
        }
        let wanted: HashSet<DialKey> = dial_keys(dial).collect();
        let keys: Result<Vec<_>, _> = self.dial_addresses.keys().collect();
        for key in keys.map_err(failed(DIAL_ADDRESSES))? {
            if !wanted.contains(&key) {
                self.dial_addresses
                    .remove(&key)
                    .map_err(failed(DIAL_ADDRESSES))?;
            }
        }
        Ok(())
    }
}

fn network(address: IpAddr, bits: u32) -> IpNet {
    IpNet::new_assert(address, bits as u8)
}

fn dial_keys(dial: &Dial) -> impl Iterator<Item = DialKey> + '_ {
    let anywhere = |port| {
        [libc::AF_INET, libc::AF_INET6].map(|family| DialKey {
            addr: [0; 16],
            port,
            proto: TCP | DIAL_ANYWHERE,
            family: family as u8,
        })
    };
    let addresses = dial.addresses.iter().map(dial_key);
    addresses.chain(dial.proxy.into_iter().flat_map(anywhere))
}

fn dial_key((address, transport): &(SocketAddr, Transport)) -> DialKey {
    let mut bytes = [0; 16];
    let family = match address.ip() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            libc::AF_INET
        }
        IpAddr::V6(ip) => {
            bytes = ip.octets();
            libc::AF_INET6
        }
    };
    DialKey {
        addr: bytes,
        port: address.port(),
        proto: proto(*transport),
        family: family as u8,
    }
}
