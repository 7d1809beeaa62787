//! What a policy makes of names and addresses, each change of it under a number of its own, by which the kernel looks up.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use policy::{Compiled, EffectivePolicy};
use schema::host::HostName;
use schema::net::{Cidr, Transport};

use crate::dial::{self, Dial};
use crate::kernel::{KernelError, SessionMaps};
use crate::names::{Known, Names};

/// The ports an unlisted name may reach, where the gateway answers with words.
const PAGE_PORTS: [u16; 2] = [80, 443];

/// One policy generation, ready to be looked up.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) document: Arc<EffectivePolicy>,
    pub(super) compiled: Arc<Compiled>,
    pub(super) exact: Arc<HashSet<HostName>>,
    pub(super) dial: Arc<Dial>,
}

impl Generation {
    pub(super) fn new(number: u32, document: EffectivePolicy) -> Self {
        let compiled = document.compile();
        let exact = compiled.exact_names().cloned().collect();
        let dial = Dial::new(&document, &dial::system_resolvers());
        Self {
            number,
            document: Arc::new(document),
            compiled: Arc::new(compiled),
            exact: Arc::new(exact),
            dial: Arc::new(dial),
        }
    }

    pub(super) fn known(&self, name: &HostName) -> Known {
        if self.exact.contains(name) {
            Known::Exactly
        } else if self.compiled.ports(name).is_empty() {
            Known::Not
        } else {
            Known::ByWildcard
        }
    }

    /// Opens the gate for a name in this generation, and no further than policy does.
    pub(super) fn admit(
        &self,
        maps: &mut SessionMaps,
        name: &HostName,
        address: Ipv4Addr,
    ) -> Result<(), KernelError> {
        for port in PAGE_PORTS {
            maps.admit(self.number, address, port, Transport::Tcp)?;
        }
        for (port, transport) in self.compiled.ports(name) {
            maps.admit(self.number, address, port, transport)?;
        }
        Ok(())
    }

    pub(super) fn fill(&self, maps: &mut SessionMaps, names: &Names) -> Result<(), KernelError> {
        let internal = Ipv4Addr::from(enforcer_common::INTERNAL_ADDR);
        maps.admit(self.number, internal, 80, Transport::Tcp)?;
        for (name, address) in names.iter() {
            self.admit(maps, name, address)?;
        }
        for rule in self.compiled.networks() {
            let transport = rule.protocol.transport();
            maps.admit_network(self.number, rule.cidr, rule.port, transport)?;
        }
        Ok(())
    }

    pub(super) fn networks(&self) -> Vec<Cidr> {
        let mut networks: Vec<Cidr> = self
            .compiled
            .networks()
            .iter()
            .map(|rule| rule.cidr)
            .collect();
        networks.sort_by_key(|cidr| (cidr.addr(), cidr.prefix()));
        networks.dedup();
        networks
    }
}
