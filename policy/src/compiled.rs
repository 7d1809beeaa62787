//! A policy indexed for lookups. A decision costs a few hash lookups for each label of the name (each prefix length of
//! an address), however many rules there are; the enforcer fills the gate from it, the gateway decides by it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use schema::gateway::{ProxyHost, Resolver};
use schema::host::{HostName, HostPattern};
use schema::net::{Cidr, Protocol, Transport};
use schema::request::Requests;

use crate::address_class::Class;
use crate::ceiling::{self, Ceiling};
use crate::decision::{Decision, Denial, DenyReason, Grant, RuleRef};
use crate::effective::{
    Action, DomainRule, EffectivePolicy, Gateway, Layer, NetworkRule, Origin, Rule,
};
use crate::requests::{RequestRule, RequestRules};
use crate::text;

#[derive(Clone, Debug)]
pub struct Compiled {
    layers: Vec<Index>,
    exact: Vec<HostName>,
    networks: Networks,
    gateway: Gateway,
    ceilings: Vec<ceiling::Index>,
    /// Nobody is asked.
    unasked: Option<Origin>,
}

/// One layer by name.
#[derive(Clone, Debug, Default)]
struct Index {
    entries: Vec<Entry>,
    exact: HashMap<HostName, Ports>,
    below: HashMap<HostName, Ports>,
    /// A person is asked about what nothing lists.
    unlisted: Option<EntryId>,
}

/// One rule, for reference.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    origin: Origin,
}

type EntryId = usize;

/// What a layer says about one name, or everything below one.
#[derive(Clone, Debug, Default)]
struct Ports {
    denied: Option<EntryId>,
    by_port: HashMap<u16, Port>,
}

#[derive(Clone, Debug, Default)]
struct Port {
    denied: Option<EntryId>,
    rule: [Option<Allowed>; 2],
    /// A rule that asks about everything here, whatever it carries.
    ask: [Option<EntryId>; 2],
    domain: Option<Allowed>,
    /// Every rule, for what it says about requests.
    requests: Vec<(EntryId, Action, Arc<Requests>)>,
}

/// `protocol` is `None` when entries ask for wires that exclude one another; `asks`: not one of them allows unasked.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    entry: EntryId,
    protocol: Option<Protocol>,
    asks: bool,
}

/// Where a name that nothing lists may be asked about: the gateway hears of no other.
const UNLISTED_PORTS: [u16; 2] = [80, 443];

/// The literal networks that every layer allows.
#[derive(Clone, Debug, Default)]
struct Networks {
    rules: Vec<NetworkRule>,
    names: Vec<String>,
    by_key: HashMap<(u8, Ipv4Addr, u16, Transport), usize>,
}

impl EffectivePolicy {
    pub fn compile(&self) -> Compiled {
        Compiled::new(self)
    }
}

// === impl Compiled ===

impl Compiled {
    fn new(policy: &EffectivePolicy) -> Self {
        let layers = policy.network.layers();
        let mut compiled = Self {
            layers: layers.iter().map(Index::new).collect(),
            exact: Vec::new(),
            networks: Networks::new(layers),
            gateway: policy.gateway.clone(),
            ceilings: policy.ceilings().iter().map(Ceiling::index).collect(),
            unasked: policy.unasked.clone(),
        };
        for ceiling in &compiled.ceilings {
            compiled.networks = compiled.networks.under(ceiling);
        }
        let listed: BTreeSet<&HostName> = compiled
            .layers
            .iter()
            .flat_map(|layer| layer.exact.keys())
            .collect();
        compiled.exact = listed
            .into_iter()
            .filter(|name| !compiled.ports(name).is_empty())
            .cloned()
            .collect();
        compiled
    }

    /// Whether `name` may be dialled at `port`. Every layer has to allow it.
    pub fn decide(&self, name: &HostName, port: u16, transport: Transport) -> Decision<'_> {
        // Who has no say here is told so before what could be said.
        if let Some(denial) = self.ceilings.iter().find_map(|c| c.name(name, port)) {
            return Decision::Deny(denial);
        }
        let mut granted: Option<(Grant<'_>, bool)> = None;
        for layer in &self.layers {
            let (grant, asks) = match layer.decide(name, port, transport) {
                Decision::Allow(grant) => (grant, false),
                Decision::Ask(grant) => (grant, true),
                denied @ Decision::Deny(_) => return denied,
            };
            granted = Some(match granted {
                None => (grant, asks),
                Some((before, asked)) => {
                    let Some(protocol) = stricter(before.protocol, grant.protocol) else {
                        return deny(DenyReason::ProtocolConflict, Some(grant.rule));
                    };
                    // Who asks is named; else who says what the wire has to be.
                    let rule = match (asked, asks) {
                        (true, _) => before.rule,
                        (false, true) => grant.rule,
                        (false, false) if protocol == before.protocol => before.rule,
                        (false, false) => grant.rule,
                    };
                    (Grant { protocol, rule }, asked || asks)
                }
            });
        }
        match granted {
            // What is not read cannot be held to what rules say about requests.
            Some((grant, _))
                if !matches!(grant.protocol, Protocol::Http | Protocol::Https)
                    && self.layers.iter().any(|l| l.rules_requests(name, port)) =>
            {
                deny(DenyReason::ProtocolConflict, Some(grant.rule))
            }
            Some((grant, asks)) => {
                let mut ceilings = self.ceilings.iter();
                match (
                    ceilings.find_map(|c| c.protocol(grant.protocol)),
                    &self.unasked,
                ) {
                    (Some(denial), _) => Decision::Deny(denial),
                    (None, Some(origin)) if asks => {
                        let name = text::UNASKED;
                        deny(DenyReason::NotAsked, Some(RuleRef { name, origin }))
                    }
                    (None, _) if asks => Decision::Ask(grant),
                    (None, _) => Decision::Allow(grant),
                }
            }
            None => deny(DenyReason::NotListed, None),
        }
    }

    /// Whether a literal address may be dialled at `port`: by `networks` alone, names never decide by address.
    pub fn decide_address(
        &self,
        address: Ipv4Addr,
        port: u16,
        transport: Transport,
    ) -> Decision<'_> {
        if crate::address_class::classify(IpAddr::V4(address)).never_allowed() {
            return deny(DenyReason::AddressNotListed, None);
        }
        match self.networks.find(address, port, transport) {
            Some((rule, name)) => Decision::Allow(Grant {
                protocol: rule.protocol,
                rule: RuleRef {
                    name,
                    origin: &rule.origin,
                },
            }),
            None => deny(DenyReason::AddressNotListed, None),
        }
    }

    /// What rules say about requests to `name` at `port`, beyond that it may be dialled: which, and whether a person is
    /// asked; `None`: nothing.
    pub fn requests(&self, name: &HostName, port: u16) -> Option<RequestRules> {
        let layers = self.layers.iter().map(|layer| layer.requests(name, port));
        let says = |layer: &Vec<RequestRule>| {
            let says = |r: &RequestRule| !r.requests.is_empty() || r.action == Action::Ask;
            layer.iter().any(says)
        };
        let rules = RequestRules {
            layers: layers.filter(says).collect(),
            unasked: self.unasked.is_some(),
        };
        (!rules.is_empty()).then_some(rules)
    }

    /// Every port that `name` may be dialled at, asked or not, in order; those of names that nothing lists are not among them.
    pub fn ports(&self, name: &HostName) -> Vec<(u16, Transport)> {
        let Some(first) = self.layers.first() else {
            return Vec::new();
        };
        let candidates: BTreeSet<u16> = first
            .said_about(name)
            .flat_map(|ports| ports.by_port.keys().copied())
            .collect();
        let both = |port| [(port, Transport::Tcp), (port, Transport::Udp)];
        let allowed =
            |&(port, transport): &(u16, Transport)| !self.decide(name, port, transport).is_deny();
        candidates
            .into_iter()
            .flat_map(both)
            .filter(allowed)
            .collect()
    }

    /// Names that are known in advance and may be dialled at some port, in order.
    pub fn exact_names(&self) -> impl Iterator<Item = &HostName> {
        self.exact.iter()
    }

    /// The literal networks that every layer allows.
    pub fn networks(&self) -> &[NetworkRule] {
        &self.networks.rules
    }

    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Ranges other than public ones that this policy lets the gateway dial: what the enforcer adds to the gateway's own
    /// kernel gate. A port of `None` is any port; the exact answer for a name stays [`Self::address_allowed`].
    pub fn dialable_ranges(&self) -> Vec<(IpNet, Option<u16>)> {
        let networks = self
            .gateway
            .private_networks
            .iter()
            .map(|network| (*network, None));
        let hosts = self
            .gateway
            .hosts
            .values()
            .flatten()
            .map(|address| (IpNet::from(*address), None));
        let proxy = self
            .gateway
            .upstream_proxy
            .iter()
            .filter_map(|proxy| match proxy.host {
                ProxyHost::Address(address) => Some((IpNet::from(address), Some(proxy.port))),
                ProxyHost::Name(_) => None,
            });
        let resolver = match self.gateway.resolver {
            Resolver::Address(address) => Some((IpNet::from(address.ip()), Some(address.port()))),
            Resolver::System => None,
        };
        let literal = self.networks.rules.iter().filter_map(|rule| {
            let network = Ipv4Net::new(rule.cidr.addr(), rule.cidr.prefix()).ok()?;
            Some((IpNet::V4(network), Some(rule.port)))
        });
        let all: BTreeSet<_> = networks
            .chain(hosts)
            .chain(proxy)
            .chain(resolver)
            .chain(literal)
            .collect();
        all.into_iter().collect()
    }

    /// Whether the gateway may dial `address`, which `name` resolved to, at `port`.
    ///
    /// # Errors
    /// The class for which it may not.
    pub fn address_allowed(
        &self,
        name: &HostName,
        address: IpAddr,
        port: u16,
    ) -> Result<(), Class> {
        if let IpAddr::V4(v4) = address.to_canonical()
            && self.ceilings.iter().any(|c| c.denies_address(v4, port))
        {
            return Err(Class::Denied);
        }
        self.gateway.address_allowed(name, address, |v4| {
            self.networks.find(v4, port, Transport::Tcp).is_some()
        })
    }
}

fn deny<'a>(reason: DenyReason, rule: Option<RuleRef<'a>>) -> Decision<'a> {
    Decision::Deny(Denial { reason, rule })
}

/// The protocol that satisfies both: a lattice with tcp above tls above https and tcp above http.
pub(crate) fn stricter(a: Protocol, b: Protocol) -> Option<Protocol> {
    use Protocol::{Http, Https, Tcp, Tls, Udp};
    match (a, b) {
        (same, other) if same == other => Some(same),
        (Udp, _) | (_, Udp) => None,
        (Tcp, other) | (other, Tcp) => Some(other),
        (Tls, Https) | (Https, Tls) => Some(Https),
        (Http, _) | (_, Http) => None,
        (Https | Tls, _) => None,
    }
}

fn slot(transport: Transport) -> usize {
    match transport {
        Transport::Tcp => 0,
        Transport::Udp => 1,
    }
}

// === impl Index ===

impl Index {
    fn new(layer: &Layer) -> Self {
        let mut index = Self::default();
        for rule in by_origin(&layer.denied, |rule| &rule.origin) {
            index.add_denied(rule);
        }
        for rule in by_origin(&layer.rules, |rule| &rule.origin) {
            index.add_rule(rule);
        }
        for rule in by_origin(&layer.allowed, |rule| &rule.origin) {
            index.add_allowed(rule);
        }
        index.unlisted = layer
            .ask_unlisted
            .as_ref()
            .map(|origin| index.entry(text::UNLISTED.to_owned(), origin));
        index
    }

    fn entry(&mut self, name: String, origin: &Origin) -> EntryId {
        self.entries.push(Entry {
            name,
            origin: origin.clone(),
        });
        self.entries.len() - 1
    }

    fn ports_of(&mut self, pattern: &HostPattern) -> &mut Ports {
        match pattern {
            HostPattern::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostPattern::Wildcard(base) => self.below.entry(base.clone()).or_default(),
        }
    }

    fn add_denied(&mut self, rule: &DomainRule) {
        let id = self.entry(text::denied_domain(rule), &rule.origin);
        let ports = self.ports_of(&rule.host);
        let denied = match rule.port {
            None => &mut ports.denied,
            Some(port) => &mut ports.by_port.entry(port).or_default().denied,
        };
        denied.get_or_insert(id);
    }

    fn add_rule(&mut self, rule: &Rule) {
        let id = self.entry(text::rule(rule), &rule.origin);
        let ports = self.ports_of(&rule.host);
        let requests = Arc::new(rule.requests.clone());
        for &number in &rule.ports {
            let port = ports.by_port.entry(number).or_default();
            port.requests.push((id, rule.action, Arc::clone(&requests)));
            match rule.action {
                // One about some requests alone says nothing about the connection.
                Action::Deny if !requests.is_empty() => {}
                Action::Deny => {
                    port.denied.get_or_insert(id);
                }
                action => {
                    let protocol = rule.protocol.unwrap_or(Protocol::default_for_port(number));
                    let slot = slot(protocol.transport());
                    let asks = action == Action::Ask;
                    if asks && requests.is_empty() {
                        port.ask[slot].get_or_insert(id);
                    }
                    Allowed::add(&mut port.rule[slot], id, protocol, asks);
                }
            }
        }
    }

    fn add_allowed(&mut self, rule: &DomainRule) {
        let id = self.entry(text::allowed_domain(rule), &rule.origin);
        let ports = self.ports_of(&rule.host);
        for number in rule.port.map_or(vec![443, 80], |port| vec![port]) {
            let port = ports.by_port.entry(number).or_default();
            let protocol = Protocol::default_for_port(number);
            Allowed::add(&mut port.domain, id, protocol, false);
        }
    }

    /// What is said about a name, most specific first.
    fn said_about(&self, name: &HostName) -> impl Iterator<Item = &Ports> {
        self.exact
            .get(name)
            .into_iter()
            .chain(name.parents().filter_map(|parent| self.below.get(parent)))
    }

    fn decide(&self, name: &HostName, port: u16, transport: Transport) -> Decision<'_> {
        let (mut rule, mut domain, mut known) = (None, None, false);
        let (mut ask, mut unasked) = (None, false);
        for ports in self.said_about(name) {
            known = true;
            let at_port = ports.by_port.get(&port);
            if let Some(id) = ports.denied.or(at_port.and_then(|p| p.denied)) {
                return deny(DenyReason::DeniedByRule, Some(self.rule_ref(id)));
            }
            if let Some(at_port) = at_port {
                let by_rule = at_port.rule[slot(transport)];
                rule = rule.or(by_rule);
                ask = ask.or(at_port.ask[slot(transport)]);
                unasked |= by_rule.is_some_and(|rule| !rule.asks);
                domain = domain.or(at_port.domain.filter(|_| transport == Transport::Tcp));
            }
        }
        match rule.or(domain) {
            Some(Allowed {
                entry,
                protocol: Some(protocol),
                ..
            }) => {
                let asks = ask.or((rule.is_some() && !unasked).then_some(entry));
                let grant = Grant {
                    protocol,
                    rule: self.rule_ref(asks.unwrap_or(entry)),
                };
                match asks {
                    Some(_) => Decision::Ask(grant),
                    None => Decision::Allow(grant),
                }
            }
            Some(Allowed {
                entry,
                protocol: None,
                ..
            }) => deny(DenyReason::ProtocolConflict, Some(self.rule_ref(entry))),
            None if let Some(id) = self.asks_unlisted(port, transport) => Decision::Ask(Grant {
                protocol: Protocol::default_for_port(port),
                rule: self.rule_ref(id),
            }),
            None if known => deny(DenyReason::PortNotListed, None),
            None => deny(DenyReason::NotListed, None),
        }
    }

    fn asks_unlisted(&self, port: u16, transport: Transport) -> Option<EntryId> {
        let there = UNLISTED_PORTS.contains(&port) && transport == Transport::Tcp;
        self.unlisted.filter(|_| there)
    }

    fn at_port(&self, name: &HostName, port: u16) -> impl Iterator<Item = &Port> {
        let said = self.said_about(name);
        said.filter_map(move |ports| ports.by_port.get(&port))
    }

    /// Whether a rule is about some requests alone.
    fn rules_requests(&self, name: &HostName, port: u16) -> bool {
        let mut rules = self.at_port(name, port).flat_map(|p| &p.requests);
        rules.any(|(_, _, requests)| !requests.is_empty())
    }

    /// The rules about one name and port, the most specific first.
    fn requests(&self, name: &HostName, port: u16) -> Vec<RequestRule> {
        let rule = |id: EntryId, action, requests| RequestRule {
            name: self.entries[id].name.clone(),
            origin: self.entries[id].origin.clone(),
            action,
            requests,
        };
        let mut rules: Vec<_> = self
            .at_port(name, port)
            .flat_map(|at_port| &at_port.requests)
            .map(|(id, action, requests)| rule(*id, *action, Arc::clone(requests)))
            .collect();
        let lists = |p: &Port| p.domain.is_some() || p.rule[slot(Transport::Tcp)].is_some();
        if let Some(id) = self.asks_unlisted(port, Transport::Tcp)
            && !self.at_port(name, port).any(lists)
        {
            rules.push(rule(id, Action::Ask, Arc::default()));
        }
        rules
    }

    fn rule_ref(&self, id: EntryId) -> RuleRef<'_> {
        let Entry { name, origin } = &self.entries[id];
        RuleRef { name, origin }
    }
}

/// In order of origin, so that the rule that is named does not depend on the order that rules arrived in.
fn by_origin<T>(rules: &[T], origin: impl Fn(&T) -> &Origin) -> Vec<&T> {
    let mut rules: Vec<&T> = rules.iter().collect();
    rules.sort_by(|a, b| origin(a).cmp(origin(b)));
    rules
}

// === impl Allowed ===

impl Allowed {
    fn add(slot: &mut Option<Self>, entry: EntryId, protocol: Protocol, asks: bool) {
        *slot = Some(match *slot {
            None => Self {
                entry,
                protocol: Some(protocol),
                asks,
            },
            Some(before) => Self {
                entry: before.entry,
                protocol: before.protocol.and_then(|p| stricter(p, protocol)),
                asks: before.asks && asks,
            },
        });
    }
}

// === impl Networks ===

impl Networks {
    fn new(layers: &[Layer]) -> Self {
        let mut layers = layers.iter().map(|layer| Self::of(&layer.networks));
        let Some(first) = layers.next() else {
            return Self::default();
        };
        layers.fold(first, |both, next| both.intersect(&next))
    }

    fn of(rules: &[NetworkRule]) -> Self {
        let mut by_cidr: BTreeMap<(Cidr, u16, Transport), NetworkRule> = BTreeMap::new();
        for rule in by_origin(rules, |rule| &rule.origin) {
            by_cidr
                .entry((rule.cidr, rule.port, rule.protocol.transport()))
                .or_insert_with(|| rule.clone());
        }
        let mut networks = Self::default();
        for (index, ((cidr, port, transport), rule)) in by_cidr.into_iter().enumerate() {
            networks
                .by_key
                .insert((cidr.prefix(), cidr.addr(), port, transport), index);
            networks.names.push(text::network(&rule));
            networks.rules.push(rule);
        }
        networks
    }

    /// Two networks overlap only when one contains the other: the smaller ones of both sides are the intersection.
    fn intersect(&self, other: &Self) -> Self {
        let inside = |inner: &Self, outer: &Self| -> Vec<NetworkRule> {
            let contained = |rule: &&NetworkRule| {
                let transport = rule.protocol.transport();
                (0..=rule.cidr.prefix()).rev().any(|prefix| {
                    outer
                        .at(prefix, rule.cidr.addr(), rule.port, transport)
                        .is_some()
                })
            };
            inner.rules.iter().filter(contained).cloned().collect()
        };
        Self::of(&[inside(self, other), inside(other, self)].concat())
    }

    /// What is left of them under a ceiling.
    fn under(&self, ceiling: &ceiling::Index) -> Self {
        let left: Vec<NetworkRule> = self.rules.iter().flat_map(|r| ceiling.narrow(r)).collect();
        Self::of(&left)
    }

    fn at(&self, prefix: u8, address: Ipv4Addr, port: u16, transport: Transport) -> Option<usize> {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        self.by_key
            .get(&(
                prefix,
                Ipv4Addr::from_bits(address.to_bits() & mask),
                port,
                transport,
            ))
            .copied()
    }

    /// The longest network that contains the address.
    fn find(
        &self,
        address: Ipv4Addr,
        port: u16,
        transport: Transport,
    ) -> Option<(&NetworkRule, &str)> {
        let index = (0..=32)
            .rev()
            .find_map(|prefix| self.at(prefix, address, port, transport))?;
        Some((self.rules.get(index)?, self.names.get(index)?))
    }
}

#[cfg(test)]
mod tests;
