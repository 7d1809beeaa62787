//! What an organisation's policy leaves of the network, whatever the layers below it allow. Ceilings travel with the effective
//! policy, and every decision asks them: intersection is by construction here as it is for layers, and nothing that comes
//! later (an answer to a question, another config) gets past them.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;

use schema::diag::{Position, Spanned};
use schema::host::{HostName, HostPattern};
use schema::net::{Cidr, Protocol};
use schema::organisation::values::NetworkBound;
use schema::organisation::{List, Organisation};
use serde::{Deserialize, Serialize};

use crate::decision::{Denial, DenyReason, RuleRef};
use crate::effective::{DomainRule, MAX_NETWORKS, MAX_RULES, NetworkRule, Origin, PolicyError};
use crate::text;

/// Most ceilings over one policy.
pub const MAX_CEILINGS: usize = 8;

/// One organisation's word about the network. What is absent does not restrict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Ceiling {
    pub organisation: String,
    /// `ceilings.network.allowedDomains`: without a port every port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Listed<DomainRule>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Listed<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocols: Option<Listed<Protocol>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Listed<Bound>>,
    /// `denials.domains`: without a port every port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DomainRule>,
    /// `denials.networks`: of literal rules, and of what names lead to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied_networks: Vec<Bound>,
}

/// A list and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed<T> {
    pub entries: Vec<T>,
    pub origin: Origin,
}

/// A network, with a port or at every one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    pub cidr: Cidr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub origin: Origin,
}

/// A ceiling, indexed for lookups.
#[derive(Clone, Debug)]
pub(crate) struct Index {
    organisation: String,
    entries: Vec<(String, Origin)>,
    allowed: Option<(Places, usize)>,
    ports: Option<(BTreeSet<u16>, usize)>,
    protocols: Option<(BTreeSet<Protocol>, usize)>,
    networks: Option<(Vec<Bound>, usize)>,
    denied: Places,
    denied_networks: Vec<(Bound, usize)>,
}

/// Names and what is below names, each with its ports and entry.
#[derive(Clone, Debug, Default)]
struct Places {
    exact: HashMap<HostName, Vec<(Option<u16>, usize)>>,
    below: HashMap<HostName, Vec<(Option<u16>, usize)>>,
}

// === impl Ceiling ===

impl Ceiling {
    /// What a document says of the network.
    pub fn of(document: &Organisation) -> Self {
        let origin = |at: Position| Origin {
            file: document.file.clone(),
            line: at.line,
            column: at.column,
        };
        let domain = |domain: &Spanned<schema::config::agent::Domain>| DomainRule {
            host: domain.host.clone(),
            port: domain.port,
            origin: origin(domain.at),
        };
        let bound = |bound: &Spanned<NetworkBound>| Bound {
            cidr: bound.cidr,
            port: bound.port,
            origin: origin(bound.at),
        };
        fn listed<A, B>(
            list: &List<A>,
            origin: Origin,
            map: impl Fn(&Spanned<A>) -> B,
        ) -> Listed<B> {
            Listed {
                entries: list.value.iter().map(map).collect(),
                origin,
            }
        }
        let network = &document.ceilings.network;
        Self {
            organisation: document.organisation.to_string(),
            allowed: network
                .allowed_domains
                .as_ref()
                .map(|list| listed(list, origin(list.at), domain)),
            ports: network
                .ports
                .as_ref()
                .map(|list| listed(list, origin(list.at), |port| port.value)),
            protocols: network
                .protocols
                .as_ref()
                .map(|list| listed(list, origin(list.at), |protocol| protocol.value)),
            networks: network
                .networks
                .as_ref()
                .map(|list| listed(list, origin(list.at), bound)),
            denied: document.denials.domains.iter().map(domain).collect(),
            denied_networks: document.denials.networks.iter().map(bound).collect(),
        }
    }

    /// Lists are sets: sorted, without duplicates.
    pub(crate) fn canonical(mut self) -> Self {
        fn sorted<T: Ord>(list: &mut Vec<T>) {
            list.sort_unstable();
            list.dedup();
        }
        self.allowed.iter_mut().for_each(|l| sorted(&mut l.entries));
        self.ports.iter_mut().for_each(|l| sorted(&mut l.entries));
        self.protocols
            .iter_mut()
            .for_each(|l| sorted(&mut l.entries));
        self.networks
            .iter_mut()
            .for_each(|l| sorted(&mut l.entries));
        sorted(&mut self.denied);
        sorted(&mut self.denied_networks);
        self
    }

    pub(crate) fn check(&self) -> Result<(), PolicyError> {
        let allowed = self.allowed.iter().flat_map(|list| &list.entries);
        let domains: Vec<&DomainRule> = allowed.chain(&self.denied).collect();
        let networks = self.networks.iter().flat_map(|list| &list.entries);
        let networks: Vec<&Bound> = networks.chain(&self.denied_networks).collect();
        let ports = self.ports.as_ref().map_or(&[][..], |list| &list.entries);
        let bound = |what, count, limit| match count > limit {
            true => Err(PolicyError::TooMany { what, count, limit }),
            false => Ok(()),
        };
        bound("domains in one ceiling", domains.len(), 2 * MAX_RULES)?;
        bound("networks in one ceiling", networks.len(), 2 * MAX_NETWORKS)?;
        bound("ports in one ceiling", ports.len(), MAX_NETWORKS)?;
        let zero = domains
            .iter()
            .map(|rule| (rule.port, &rule.origin))
            .chain(networks.iter().map(|bound| (bound.port, &bound.origin)))
            .find(|(port, _)| *port == Some(0));
        match zero {
            Some((_, origin)) => Err(PolicyError::PortZero(origin.clone())),
            None => Ok(()),
        }
    }

    pub(crate) fn index(&self) -> Index {
        let mut index = Index {
            organisation: self.organisation.clone(),
            entries: Vec::new(),
            allowed: None,
            ports: None,
            protocols: None,
            networks: None,
            denied: Places::default(),
            denied_networks: Vec::new(),
        };
        if let Some(list) = &self.allowed {
            let id = index.entry("ceilings.network.allowedDomains".to_owned(), &list.origin);
            let mut places = Places::default();
            list.entries.iter().for_each(|rule| places.add(rule, id));
            index.allowed = Some((places, id));
        }
        if let Some(list) = &self.ports {
            let id = index.entry("ceilings.network.ports".to_owned(), &list.origin);
            index.ports = Some((list.entries.iter().copied().collect(), id));
        }
        if let Some(list) = &self.protocols {
            let id = index.entry("ceilings.network.protocols".to_owned(), &list.origin);
            index.protocols = Some((list.entries.iter().copied().collect(), id));
        }
        if let Some(list) = &self.networks {
            let id = index.entry("ceilings.network.networks".to_owned(), &list.origin);
            index.networks = Some((list.entries.clone(), id));
        }
        for rule in &self.denied {
            let id = index.entry(text::organisation_denies(rule), &rule.origin);
            index.denied.add(rule, id);
        }
        for bound in &self.denied_networks {
            let words = format!("denials.networks {:?}", text::bound(bound));
            let id = index.entry(words, &bound.origin);
            index.denied_networks.push((bound.clone(), id));
        }
        index
    }
}

// === impl Bound ===

impl Bound {
    /// Whether it holds the whole network at that port.
    pub(crate) fn covers(&self, cidr: Cidr, port: u16) -> bool {
        self.port.is_none_or(|own| own == port)
            && self.cidr.prefix() <= cidr.prefix()
            && self.cidr.contains(cidr.addr())
    }

    pub(crate) fn overlaps(&self, cidr: Cidr, port: u16) -> bool {
        self.port.is_none_or(|own| own == port) && self.cidr.overlaps(&cidr)
    }
}

// === impl Places ===

impl Places {
    fn add(&mut self, rule: &DomainRule, id: usize) {
        let list = match &rule.host {
            HostPattern::Exact(name) => self.exact.entry(name.clone()),
            HostPattern::Wildcard(base) => self.below.entry(base.clone()),
        };
        list.or_default().push((rule.port, id));
    }

    /// Entries that name everything the pattern names, and that port.
    fn covering(&self, pattern: &HostPattern, port: u16) -> Option<usize> {
        let exact = match pattern {
            HostPattern::Exact(name) => self.exact.get(name),
            HostPattern::Wildcard(base) => self.below.get(base),
        };
        let below = pattern
            .name()
            .parents()
            .filter_map(|base| self.below.get(base));
        let mut found = exact.into_iter().chain(below).flatten();
        found
            .find(|(own, _)| own.is_none_or(|own| own == port))
            .map(|(_, id)| *id)
    }
}

// === impl Index ===

impl Index {
    fn entry(&mut self, words: String, origin: &Origin) -> usize {
        let words = text::of_organisation(&words, &self.organisation);
        self.entries.push((words, origin.clone()));
        self.entries.len() - 1
    }

    fn deny(&self, reason: DenyReason, id: usize) -> Denial<'_> {
        let rule = self.entries.get(id);
        Denial {
            reason,
            rule: rule.map(|(name, origin)| RuleRef { name, origin }),
        }
    }

    /// Why nobody may go to any of these names at that port.
    pub fn place(&self, pattern: &HostPattern, port: u16) -> Option<Denial<'_>> {
        if let Some(id) = self.denied.covering(pattern, port) {
            return Some(self.deny(DenyReason::DeniedByRule, id));
        }
        if let Some((ports, id)) = &self.ports
            && !ports.contains(&port)
        {
            return Some(self.deny(DenyReason::BeyondCeiling, *id));
        }
        match &self.allowed {
            Some((places, id)) if places.covering(pattern, port).is_none() => {
                Some(self.deny(DenyReason::BeyondCeiling, *id))
            }
            _ => None,
        }
    }

    /// The same of one name.
    pub fn name(&self, name: &HostName, port: u16) -> Option<Denial<'_>> {
        self.place(&HostPattern::Exact(name.clone()), port)
    }

    /// Why a wire may not be of this protocol.
    pub fn protocol(&self, protocol: Protocol) -> Option<Denial<'_>> {
        match &self.protocols {
            Some((protocols, id)) if !protocols.contains(&protocol) => {
                Some(self.deny(DenyReason::BeyondCeiling, *id))
            }
            _ => None,
        }
    }

    /// Why a literal network may not be had whole.
    pub fn network(&self, cidr: Cidr, port: u16, protocol: Protocol) -> Option<Denial<'_>> {
        let denied = self.denied_networks.iter();
        if let Some((_, id)) = denied.clone().find(|(bound, _)| bound.overlaps(cidr, port)) {
            return Some(self.deny(DenyReason::DeniedByRule, *id));
        }
        if let Some((ports, id)) = &self.ports
            && !ports.contains(&port)
        {
            return Some(self.deny(DenyReason::BeyondCeiling, *id));
        }
        if let Some(denial) = self.protocol(protocol) {
            return Some(denial);
        }
        match &self.networks {
            Some((bounds, id)) if !bounds.iter().any(|bound| bound.covers(cidr, port)) => {
                Some(self.deny(DenyReason::BeyondCeiling, *id))
            }
            _ => None,
        }
    }

    /// What is left of a literal network: the smaller of each two that overlap, none of it where a part is denied.
    pub fn narrow(&self, rule: &NetworkRule) -> Vec<NetworkRule> {
        let (cidr, port) = (rule.cidr, rule.port);
        let denied = self.denied_networks.iter();
        if denied.clone().any(|(bound, _)| bound.overlaps(cidr, port))
            || self
                .ports
                .as_ref()
                .is_some_and(|(ports, _)| !ports.contains(&port))
            || self.protocol(rule.protocol).is_some()
        {
            return Vec::new();
        }
        let Some((bounds, _)) = &self.networks else {
            return vec![rule.clone()];
        };
        let smaller = |bound: &Bound| NetworkRule {
            cidr: if bound.covers(cidr, port) {
                cidr
            } else {
                bound.cidr
            },
            ..rule.clone()
        };
        let overlapping = bounds.iter().filter(|bound| bound.overlaps(cidr, port));
        overlapping.map(smaller).collect()
    }

    /// Whether a name may not lead to this address.
    pub fn denies_address(&self, address: Ipv4Addr, port: u16) -> bool {
        let mut denied = self.denied_networks.iter().map(|(bound, _)| bound);
        denied.any(|bound| bound.port.is_none_or(|own| own == port) && bound.cidr.contains(address))
    }
}
