//! The effective policy: what travels, as JSON, from the CLI to the enforcer and its gateways. It is a stack of layers
//! (workspace, host, organisation), and a connection is allowed when **every** layer allows it: intersection is by
//! construction, order does not matter, and a policy without layers cannot be expressed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use schema::diag::Diagnostic;
use schema::gateway::{HttpProxy, Resolver};
use schema::host::{HostName, HostPattern};
use schema::hostconfig::MAX_APPROVAL_SECONDS;
use schema::net::{Cidr, Protocol};
use schema::request::Requests;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;

use crate::address_class::{self, Class};
use crate::ceiling::{Ceiling, MAX_CEILINGS};
use crate::credential::{Credential, MAX_CREDENTIALS};
use crate::files::{Files, MAX_FILE_RULES};
use crate::inspection::Inspection;
use crate::layers::Layers;
use crate::programs::{MAX_PROGRAM_RULES, Programs};
use crate::secrets::Secrets;

/// Version of the JSON form; another one is refused.
pub const VERSION: u32 = 1;
/// Largest policy document in bytes.
pub const MAX_POLICY_BYTES: usize = 16 << 20;
/// Most entries in one layer: domains, rules and networks together.
pub const MAX_RULES: usize = 10_000;
/// Most ports in one rule.
pub const MAX_PORTS_PER_RULE: usize = 64;
/// Most literal networks in one layer.
pub const MAX_NETWORKS: usize = 1024;
/// Most layers in one policy.
pub const MAX_LAYERS: usize = 8;
/// Most entries in each list of the gateway's settings.
pub const MAX_GATEWAY_ENTRIES: usize = 1024;
/// How long a person has to answer unless the host says otherwise.
pub const APPROVAL_SECONDS: u32 = 120;

/// Where an entry was written; line 0: in no file, and `file` says what it is from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    pub file: String,
    pub line: u32,
    pub column: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EffectivePolicy {
    version: u32,
    pub network: Network,
    pub gateway: Gateway,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,
    #[serde(default, skip_serializing_if = "Inspection::is_empty")]
    pub inspection: Inspection,
    #[serde(default, skip_serializing_if = "Files::is_empty")]
    pub files: Files,
    #[serde(default, skip_serializing_if = "Programs::is_empty")]
    pub programs: Programs,
    #[serde(default, skip_serializing_if = "Secrets::is_empty")]
    pub secrets: Secrets,
    /// What organisations' policies leave of it, in canonical order and without duplicates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ceilings: Vec<Ceiling>,
    /// Nobody is asked, and who says so: what only a person could allow is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<Origin>,
}

/// At least one layer; in canonical order and without duplicates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Network {
    layers: Vec<Layer>,
}

/// What one party allows. Empty lists allow nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Layer {
    /// `allowedDomains`: without a port, 443 as https and 80 as http.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<DomainRule>,
    /// `deniedDomains`: without a port, every port. Wins over everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub denied: Vec<DomainRule>,
    /// `rules`: a host and port that any of these names is governed by these alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// `networks`: literal addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkRule>,
    /// `"unlisted": "ask"`, where it says so: a name that nothing lists is asked about at 443 and 80. Without it, denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask_unlisted: Option<Origin>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainRule {
    pub host: HostPattern,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    pub origin: Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Allow,
    /// A person is asked, each time. Wins over what allows, and loses to what denies.
    Ask,
    Deny,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub host: HostPattern,
    pub ports: Vec<u16>,
    /// Without one, each port has its own default. A rule that denies denies its ports whatever they carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    pub action: Action,
    /// Which requests it is about; empty: all of them.
    #[serde(default, skip_serializing_if = "Requests::is_empty")]
    pub requests: Requests,
    pub origin: Origin,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkRule {
    pub cidr: Cidr,
    pub port: u16,
    pub protocol: Protocol,
    pub origin: Origin,
}

/// How the gateway resolves and dials: the host's word alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Gateway {
    #[serde(default)]
    pub resolver: Resolver,
    /// Answers that win over the resolver, and may be private.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hosts: BTreeMap<HostName, Vec<IpAddr>>,
    /// Networks that would otherwise be refused after resolution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub private_networks: Vec<IpNet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_proxy: Option<HttpProxy>,
    /// How long a person has to answer, in seconds; [`APPROVAL_SECONDS`] when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_seconds: Option<u32>,
    /// Where each setting was written: `resolver`, `hosts.NAME`, `private_networks.NETWORK`, `upstream_proxy`,
    /// `approval_seconds`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
}

/// Why a document is no policy.
#[derive(Debug, Error)]
pub enum PolicyError {
    #[error("policy is not the JSON of an effective policy: {0}")]
    Json(#[from] serde_json::Error),
    #[error("policy has version {0}, this program reads {VERSION}")]
    Version(u32),
    #[error("policy has {count} {what}, the limit is {limit}")]
    TooMany {
        what: &'static str,
        count: usize,
        limit: usize,
    },
    #[error("policy has no layer")]
    NoLayer,
    #[error("{0}: port 0 is no port")]
    PortZero(Origin),
    #[error("{0}: a literal address carries tcp or udp: it has no name to hold the wire to")]
    NetworkProtocol(Origin),
    #[error("{0}: a rule without ports")]
    NoPorts(Origin),
    #[error("{0}: a rule about requests on a wire that is not read as HTTP")]
    NotHttp(Origin),
    #[error("{origin}: {source}")]
    Network {
        origin: Origin,
        source: address_class::NetworkRefusal,
    },
    #[error("{0}: a credential without a place, or with a text that no field can hold")]
    Credential(Origin),
    #[error("{0}: a secret with a name that no file has, twice, or with a bound that it is beyond")]
    Secret(Origin),
    #[error("private network {0} contains addresses that can never be allowed")]
    PrivateNetwork(IpNet),
    #[error("{0} seconds for an answer; it is 1 to {MAX_APPROVAL_SECONDS}")]
    ApprovalSeconds(u32),
    #[error("address {address} of {host} can never be allowed: it is {class}")]
    HostAddress {
        host: HostName,
        address: IpAddr,
        class: Class,
    },
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            return f.write_str(&schema::diag::escape(&self.file));
        }
        write!(
            f,
            "{}:{}:{}",
            schema::diag::escape(&self.file),
            self.line,
            self.column
        )
    }
}

// === impl EffectivePolicy ===

impl EffectivePolicy {
    /// # Errors
    /// [`PolicyError`] when an entry or a count is outside its bounds.
    pub fn new(network: Network, gateway: Gateway) -> Result<Self, PolicyError> {
        let policy = Self {
            version: VERSION,
            network,
            gateway,
            credentials: Vec::new(),
            inspection: Inspection::default(),
            files: Files::default(),
            programs: Programs::default(),
            secrets: Secrets::default(),
            ceilings: Vec::new(),
            unasked: None,
        };
        policy.check()?;
        Ok(policy)
    }

    /// The same under these ceilings besides its own: whatever is not within each of them is denied. Order does not matter, and
    /// twice is once.
    ///
    /// # Errors
    /// [`PolicyError`] when one is outside its bounds, or when there are too many.
    pub fn under(
        mut self,
        ceilings: impl IntoIterator<Item = Ceiling>,
    ) -> Result<Self, PolicyError> {
        let own = std::mem::take(&mut self.ceilings);
        let all: BTreeSet<Ceiling> = own
            .into_iter()
            .chain(ceilings)
            .map(Ceiling::canonical)
            .collect();
        self.ceilings = all.into_iter().collect();
        self.check()?;
        Ok(self)
    }

    pub fn ceilings(&self) -> &[Ceiling] {
        &self.ceilings
    }

    /// The same with these credentials.
    ///
    /// # Errors
    /// [`PolicyError`] when one is outside its bounds.
    pub fn with_credentials(mut self, credentials: Vec<Credential>) -> Result<Self, PolicyError> {
        self.credentials = credentials;
        self.check()?;
        Ok(self)
    }

    /// The same with these levels of inspection.
    #[must_use]
    pub fn with_inspection(mut self, inspection: Inspection) -> Self {
        self.inspection = inspection;
        self
    }

    /// The same with these rules about files.
    ///
    /// # Errors
    /// [`PolicyError`] when there are too many.
    pub fn with_files(mut self, files: Files) -> Result<Self, PolicyError> {
        self.files = files;
        self.check()?;
        Ok(self)
    }

    /// The same with these rules about programs.
    ///
    /// # Errors
    /// [`PolicyError`] when there are too many.
    pub fn with_programs(mut self, programs: Programs) -> Result<Self, PolicyError> {
        self.programs = programs;
        self.check()?;
        Ok(self)
    }

    /// The same with these secrets.
    ///
    /// # Errors
    /// [`PolicyError`] when one is outside its bounds.
    pub fn with_secrets(mut self, secrets: Secrets) -> Result<Self, PolicyError> {
        self.secrets = secrets;
        self.check()?;
        Ok(self)
    }

    /// What it says of files, programs and secrets that no layer of this host carries, as errors that say what to do.
    pub fn not_carried(&self, layers: &Layers<'_>) -> Vec<Diagnostic> {
        let files = layers.lsm.err();
        let files = files.map(|reason| self.files.not_carried(reason));
        let mut found = files.unwrap_or_default();
        found.extend(self.programs.not_carried(layers));
        if let Err(reason) = layers.lsm {
            found.extend(self.secrets.not_carried(reason));
        }
        found
    }

    /// Whether some of it is for LSM programs, where the kernel takes such: any rule about files or programs, also one that mounts carry.
    pub fn wants_lsm(&self) -> bool {
        !self.files.is_empty() || self.programs.has_rules() || self.secrets.are_gated()
    }

    /// Whether some of it is more than mounts carry.
    pub fn is_beyond_mounts(&self) -> bool {
        let files = self.files.beyond_mounts().next().is_some();
        files || self.programs.allowed.is_some() || self.secrets.are_gated()
    }

    /// The same with nobody asked, where somebody says so.
    #[must_use]
    pub fn with_nobody_asked(mut self, unasked: Option<Origin>) -> Self {
        self.unasked = unasked;
        self
    }

    /// One layer that allows nothing.
    pub fn deny_all() -> Self {
        Self {
            version: VERSION,
            network: Network::deny_all(),
            gateway: Gateway::default(),
            credentials: Vec::new(),
            inspection: Inspection::default(),
            files: Files::default(),
            programs: Programs::default(),
            secrets: Secrets::default(),
            ceilings: Vec::new(),
            unasked: None,
        }
    }

    /// # Errors
    /// [`PolicyError`] when the bytes are anything but a whole, checked policy of this version.
    pub fn from_json(bytes: &[u8]) -> Result<Self, PolicyError> {
        if bytes.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooMany {
                what: "bytes",
                count: bytes.len(),
                limit: MAX_POLICY_BYTES,
            });
        }
        let policy: Self = serde_json::from_slice(bytes)?;
        policy.check()?;
        Ok(policy)
    }

    /// Stable: the same policy gives the same bytes.
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, numbers and string-keyed maps only: serialising them to memory has no way to fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.version != VERSION {
            return Err(PolicyError::Version(self.version));
        }
        self.network.layers.iter().try_for_each(Layer::check)?;
        bound("rules about files", self.files.len(), MAX_FILE_RULES)?;
        bound(
            "rules about programs",
            self.programs.len(),
            MAX_PROGRAM_RULES,
        )?;
        bound("ceilings", self.ceilings.len(), MAX_CEILINGS)?;
        self.ceilings.iter().try_for_each(Ceiling::check)?;
        bound("credentials", self.credentials.len(), MAX_CREDENTIALS)?;
        self.credentials.iter().try_for_each(Credential::check)?;
        self.secrets.check()?;
        self.gateway.check()
    }

    /// What a person is asked by: each entry's words and where it stands.
    pub fn asks(&self) -> BTreeSet<(String, &Origin)> {
        let layers = self.network.layers.iter();
        layers
            .flat_map(|layer| {
                let rules = layer.rules.iter().filter(|rule| rule.action == Action::Ask);
                let rules = rules.map(|rule| (crate::text::rule(rule), &rule.origin));
                let unlisted = layer.ask_unlisted.iter();
                rules.chain(unlisted.map(|origin| (crate::text::UNLISTED.to_owned(), origin)))
            })
            .collect()
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
        self.compile().address_allowed(name, address, port)
    }
}

// === impl Network ===

impl Network {
    /// # Errors
    /// [`PolicyError`] without a layer, or with too many.
    pub fn new(layers: impl IntoIterator<Item = Layer>) -> Result<Self, PolicyError> {
        let layers: BTreeSet<Layer> = layers.into_iter().map(Layer::canonical).collect();
        let count = layers.len();
        match count {
            0 => Err(PolicyError::NoLayer),
            1..=MAX_LAYERS => Ok(Self {
                layers: layers.into_iter().collect(),
            }),
            _ => Err(PolicyError::TooMany {
                what: "layers",
                count,
                limit: MAX_LAYERS,
            }),
        }
    }

    pub fn deny_all() -> Self {
        Self {
            layers: vec![Layer::default()],
        }
    }

    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// What both allow: associative, commutative, idempotent.
    ///
    /// # Errors
    /// [`PolicyError::TooMany`] when the layers do not fit.
    pub fn intersect(&self, other: &Self) -> Result<Self, PolicyError> {
        Self::new(self.layers.iter().chain(&other.layers).cloned())
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(Vec::<Layer>::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

// === impl Layer ===

impl Layer {
    pub fn len(&self) -> usize {
        self.allowed.len() + self.denied.len() + self.rules.len() + self.networks.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.ask_unlisted.is_none()
    }

    /// Lists are sets: sorted, without duplicates.
    fn canonical(mut self) -> Self {
        for rule in &mut self.rules {
            rule.ports.sort_unstable();
            rule.ports.dedup();
        }
        canonical_list(&mut self.allowed);
        canonical_list(&mut self.denied);
        canonical_list(&mut self.rules);
        canonical_list(&mut self.networks);
        self
    }

    fn check(&self) -> Result<(), PolicyError> {
        bound("rules in one layer", self.len(), MAX_RULES)?;
        bound("networks in one layer", self.networks.len(), MAX_NETWORKS)?;
        for rule in self.allowed.iter().chain(&self.denied) {
            if rule.port == Some(0) {
                return Err(PolicyError::PortZero(rule.origin.clone()));
            }
        }
        for rule in &self.rules {
            bound("ports in one rule", rule.ports.len(), MAX_PORTS_PER_RULE)?;
            let read = |port: &u16| {
                let protocol = rule.protocol.unwrap_or(Protocol::default_for_port(*port));
                matches!(protocol, Protocol::Http | Protocol::Https)
            };
            if !rule.requests.is_empty() && !rule.ports.iter().all(read) {
                return Err(PolicyError::NotHttp(rule.origin.clone()));
            }
            if rule.ports.is_empty() {
                return Err(PolicyError::NoPorts(rule.origin.clone()));
            }
            if rule.ports.contains(&0) {
                return Err(PolicyError::PortZero(rule.origin.clone()));
            }
        }
        for rule in &self.networks {
            if rule.port == 0 {
                return Err(PolicyError::PortZero(rule.origin.clone()));
            }
            if !rule.protocol.is_opaque() {
                return Err(PolicyError::NetworkProtocol(rule.origin.clone()));
            }
            address_class::check_network(rule.cidr).map_err(|source| PolicyError::Network {
                origin: rule.origin.clone(),
                source,
            })?;
        }
        Ok(())
    }
}

fn canonical_list<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), PolicyError> {
    if count > limit {
        Err(PolicyError::TooMany { what, count, limit })
    } else {
        Ok(())
    }
}

// === impl Gateway ===

impl Gateway {
    fn check(&self) -> Result<(), PolicyError> {
        bound(
            "private networks",
            self.private_networks.len(),
            MAX_GATEWAY_ENTRIES,
        )?;
        bound("hosts", self.hosts.len(), MAX_GATEWAY_ENTRIES)?;
        bound(
            "origins of gateway settings",
            self.origins.len(),
            2 * MAX_GATEWAY_ENTRIES + 3,
        )?;
        if let Some(seconds) = self.approval_seconds
            && !(1..=MAX_APPROVAL_SECONDS).contains(&seconds)
        {
            return Err(PolicyError::ApprovalSeconds(seconds));
        }
        for network in &self.private_networks {
            if !private_network_fits(*network) {
                return Err(PolicyError::PrivateNetwork(*network));
            }
        }
        for (host, addresses) in &self.hosts {
            bound(
                "addresses of one host",
                addresses.len(),
                MAX_GATEWAY_ENTRIES,
            )?;
            for &address in addresses {
                let class = address_class::classify(address);
                if class.never_allowed() {
                    return Err(PolicyError::HostAddress {
                        host: host.clone(),
                        address,
                        class,
                    });
                }
            }
        }
        Ok(())
    }

    /// The one rule about addresses after resolution: public ones pass; metadata, multicast and what is no unicast
    /// never do; the others when the host's configuration or a literal network of policy names them.
    pub(crate) fn address_allowed(
        &self,
        name: &HostName,
        address: IpAddr,
        named_by_rule: impl FnOnce(std::net::Ipv4Addr) -> bool,
    ) -> Result<(), Class> {
        let class = address_class::classify(address);
        let address = address.to_canonical();
        if class.is_public() {
            return Ok(());
        }
        if class.never_allowed() {
            return Err(class);
        }
        let by_hosts = self
            .hosts
            .get(name)
            .is_some_and(|list| list.iter().any(|a| a.to_canonical() == address));
        let by_network = self
            .private_networks
            .iter()
            .any(|network| network.contains(&address));
        let by_rule =
            || matches!(address, IpAddr::V4(v4) if class != Class::Loopback && named_by_rule(v4));
        if by_hosts || by_network || by_rule() {
            Ok(())
        } else {
            Err(class)
        }
    }
}

/// The host may open loopback and metadata's neighbours, but no range that is no place to dial at all: those
/// addresses would be refused anyway, and a configuration that names them expects otherwise.
pub(crate) fn private_network_fits(network: IpNet) -> bool {
    let never = |class: Class| class.never_allowed() && class != Class::Metadata;
    match network {
        IpNet::V4(v4) => match Cidr::new(v4.network(), v4.prefix_len()) {
            Some(cidr) => !address_class::ranges_v4()
                .any(|(range, class)| never(class) && range.overlaps(&cidr)),
            None => false,
        },
        IpNet::V6(v6) => {
            v6.prefix_len() >= 7 && !never(address_class::classify(v6.network().into()))
        }
    }
}

#[cfg(test)]
mod tests;
