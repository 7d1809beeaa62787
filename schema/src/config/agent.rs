//! The `agent` object: what an agent may do. These types hold what this version enforces; what it knows and does not is
//! refused by the table in `keys`. Policy is made from here, and every entry knows where it stands.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::filesystem::Filesystem;
use super::programs::Programs;
use super::secret::{self, Secret};
use super::tools::Tools;
use super::units::{Cpus, MemorySize, VariableName, inline_schema};
use crate::credential::{CredentialName, MAX_CREDENTIALS, MAX_HOSTS};
use crate::diag::Spanned;
use crate::host::{HostError, HostPattern, MAX_SPELLING_BYTES};
use crate::image::OciSource;
use crate::inspection::{Inspector, Level};
use crate::net::{Cidr, CidrError, Protocol};
use crate::request::{MAX_IN_RULE, Method, PathGlob, ProgramPath, RateLimit, Requests};

/// Most entries in `allowedDomains`, `deniedDomains` and `rules`, each; policy bounds them together.
pub const MAX_DOMAINS: usize = 10_000;
/// Most entries in `networks`.
pub const MAX_NETWORKS: usize = 1024;
/// Most ports in one rule.
pub const MAX_PORTS_PER_RULE: usize = 64;
/// Highest level of SLSA.
pub const MAX_SLSA_LEVEL: u64 = 4;
/// Most processes that can be asked for: the kernel's own limit of pids.
pub const MAX_PIDS: u64 = 1 << 22;

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Agent {
    #[serde(skip_serializing_if = "Capabilities::is_empty")]
    #[schemars(default)]
    pub capabilities: Capabilities,
    /// By name. Their values never enter the container: the gateway puts them on the wire, `https` only.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, extend("maxProperties" = MAX_CREDENTIALS))]
    pub credentials: BTreeMap<CredentialName, Spanned<Credential>>,
    /// By name. Each is a file below `/run/secrets` that the container's user alone can read.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(default, schema_with = "secret::schema")]
    pub secrets: BTreeMap<CredentialName, Spanned<Secret>>,
    /// What is done about what inspectors find in requests and in frames of WebSockets; the host may ask for more.
    #[serde(skip_serializing_if = "Inspection::is_empty")]
    #[schemars(default)]
    pub inspection: Inspection,
    /// A policy of the workspace's own: it adds ceilings to the host's and takes none away.
    #[serde(skip_serializing_if = "Policy::is_empty")]
    #[schemars(default)]
    pub policy: Policy,
    /// What has to hold of everything that is fetched.
    #[serde(skip_serializing_if = "Provenance::is_empty")]
    #[schemars(default)]
    pub provenance: Provenance,
    /// What the agent is given to work with, pinned and verified.
    #[serde(skip_serializing_if = "Tools::is_empty")]
    #[schemars(default)]
    pub tools: Tools,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Policy {
    /// `oci://REGISTRY/REPOSITORY:TAG`, or `@sha256:…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Spanned<OciSource>>,
    /// What becomes of what only a person can allow; `prompt` when absent.
    #[serde(skip_serializing_if = "Escalation::is_default")]
    #[schemars(default)]
    pub escalation: Option<Spanned<Escalation>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Provenance {
    #[serde(skip_serializing_if = "Required::is_empty")]
    #[schemars(default)]
    pub require: Required,
}

/// What a workspace requires. `false` requires nothing, as leaving it out does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Required {
    /// A signature by somebody whom the host, or its organisation, names.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub signatures: Option<Spanned<bool>>,
    /// The least level of SLSA's build track.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, range(min = 1, max = MAX_SLSA_LEVEL))]
    pub slsa_level: Option<Spanned<u8>>,
    /// A list of what is inside.
    #[serde(skip_serializing_if = "is_false")]
    #[schemars(default)]
    pub sbom: Option<Spanned<bool>>,
}

/// A level for each inspector, where one is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Inspection {
    /// Keys of known formats, on their way to a host where they do not belong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secrets: Option<Spanned<Level>>,
    /// Words that look random, in queries, fields and bodies of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Spanned<Level>>,
    /// A body that is something else than its head says, or that is encoded in a way that is not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<Spanned<Level>>,
    /// Base64 that stands for a key of a known format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base64: Option<Spanned<Level>>,
}

/// What a workspace may say of a credential that the host grants.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Credential {
    /// `name`: port 443. `name:port`. They narrow the grant's hosts, all of which are meant without them, and open no traffic.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(min = 1, max = MAX_HOSTS))]
    pub hosts: Vec<Spanned<Domain>>,
    /// The variable that is set to a placeholder inside; without one the gateway writes the header into every request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Spanned<VariableName>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Capabilities {
    #[serde(skip_serializing_if = "Network::is_empty")]
    #[schemars(default)]
    pub network: Network,
    #[serde(skip_serializing_if = "Filesystem::is_empty")]
    #[schemars(default)]
    pub filesystem: Filesystem,
    /// Which programs are started.
    #[serde(skip_serializing_if = "Programs::is_empty")]
    #[schemars(default)]
    pub tools: Programs,
    #[serde(skip_serializing_if = "Resources::is_empty")]
    #[schemars(default)]
    pub resources: Resources,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Network {
    #[serde(skip_serializing_if = "Egress::is_empty")]
    #[schemars(default)]
    pub egress: Egress,
}

/// What may be reached. Everything else is denied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Egress {
    /// `name`: ports 443 (https) and 80 (http). `name:port`: that port, tcp unless 443 or 80. `*.name`: any depth below
    /// it, not it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_DOMAINS))]
    pub allowed_domains: Vec<Spanned<Domain>>,
    /// The same forms; without a port every port. Wins over everything that allows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_DOMAINS))]
    pub denied_domains: Vec<Spanned<Domain>>,
    /// A host and port that any rule names is governed by rules alone.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_DOMAINS))]
    pub rules: Vec<Spanned<Rule>>,
    /// Literal IPv4 addresses and networks with a port: `10.20.0.0/16:5432`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(max = MAX_NETWORKS))]
    pub networks: Vec<Spanned<NetworkPort>>,
    /// What becomes of a name that nothing above lists, at ports 443 and 80. At any other port it is denied.
    #[serde(skip_serializing_if = "Unlisted::is_default")]
    #[schemars(default)]
    pub unlisted: Option<Spanned<Unlisted>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Unlisted {
    #[default]
    Deny,
    /// A person is asked, each time.
    Ask,
}

/// What becomes of what only a person can allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Escalation {
    /// A person is asked.
    #[default]
    Prompt,
    /// Nobody is asked: it is denied.
    Deny,
}

/// `name`, `*.name`, either with `:port`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain {
    pub host: HostPattern,
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Rule {
    /// A name, or `*.name`.
    pub host: HostPattern,
    #[schemars(length(min = 1, max = MAX_PORTS_PER_RULE), inner(range(min = 1, max = 65535)))]
    pub ports: Vec<u16>,
    /// What the wire has to be; by default 443 is https, 80 is http, any other port tcp.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default, schema_with = "protocols")]
    pub protocol: Option<Protocol>,
    #[serde(skip_serializing_if = "Action::is_default")]
    #[schemars(default)]
    pub action: Action,
    /// The methods that it is about; all of them when left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(min = 1, max = MAX_IN_RULE))]
    pub methods: Vec<Method>,
    /// The paths that it is about: `/repos/acme/**`, where `*` is a run within a segment and `**` any number of segments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(min = 1, max = MAX_IN_RULE))]
    pub paths: Vec<PathGlob>,
    /// The programs that it is about, by the kernel's word for their paths inside: for convenience, and no isolation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default, length(min = 1, max = MAX_IN_RULE))]
    pub programs: Vec<ProgramPath>,
    /// The longest body of a request, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub max_body_bytes: Option<u64>,
    /// How many requests, a second and at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    pub rate_limit: Option<RateLimit>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Action {
    #[default]
    Allow,
    /// A person is asked, each time.
    Ask,
    Deny,
}

/// `10.1.2.3:5432`, `10.20.0.0/16:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPort {
    pub cidr: Cidr,
    pub port: u16,
}

/// Limits of the container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Resources {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Spanned<MemorySize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Spanned<Cpus>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_PIDS))]
    pub pids: Option<Spanned<u32>>,
}

/// Why a text is no entry of `allowedDomains`, `deniedDomains` or `networks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    #[error("what follows `:` is no port from 1 to 65535")]
    Port,
    #[error("an address needs a port: `10.20.0.0/16:5432`")]
    NoPort,
    #[error("URLs are not read here: write the name alone, or `name:port`")]
    Url,
    #[error(transparent)]
    Host(#[from] HostError),
    #[error(transparent)]
    Cidr(#[from] CidrError),
}

// === impl Rule ===

impl Rule {
    /// Which requests it is about.
    pub fn requests(&self) -> Requests {
        Requests {
            methods: self.methods.clone(),
            paths: self.paths.clone(),
            programs: self.programs.clone(),
            max_body_bytes: self.max_body_bytes,
            rate_limit: self.rate_limit,
        }
    }
}

// === impl Agent ===

impl Agent {
    pub fn is_empty(&self) -> bool {
        self.capabilities.is_empty()
            && self.credentials.is_empty()
            && self.secrets.is_empty()
            && self.inspection.is_empty()
            && self.policy.is_empty()
            && self.provenance.is_empty()
            && self.tools.is_empty()
    }

    pub fn egress(&self) -> &Egress {
        &self.capabilities.network.egress
    }

    pub fn filesystem(&self) -> &Filesystem {
        &self.capabilities.filesystem
    }

    pub fn programs(&self) -> &Programs {
        &self.capabilities.tools
    }

    pub fn resources(&self) -> &Resources {
        &self.capabilities.resources
    }
}

impl Policy {
    fn is_empty(&self) -> bool {
        self.source.is_none() && Escalation::is_default(&self.escalation)
    }
}

impl Provenance {
    pub fn is_empty(&self) -> bool {
        self.require.is_empty()
    }
}

impl Required {
    fn is_empty(&self) -> bool {
        is_false(&self.signatures) && self.slsa_level.is_none() && is_false(&self.sbom)
    }
}

fn is_false(flag: &Option<Spanned<bool>>) -> bool {
    flag.as_ref().is_none_or(|flag| !flag.value)
}

impl Inspection {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub fn of(&self, inspector: Inspector) -> Option<&Spanned<Level>> {
        match inspector {
            Inspector::Secrets => self.secrets.as_ref(),
            Inspector::Entropy => self.entropy.as_ref(),
            Inspector::ContentType => self.content_type.as_ref(),
            Inspector::Base64 => self.base64.as_ref(),
        }
    }
}

impl Capabilities {
    fn is_empty(&self) -> bool {
        self.network.is_empty()
            && self.filesystem.is_empty()
            && self.tools.is_empty()
            && self.resources.is_empty()
    }
}

impl Network {
    fn is_empty(&self) -> bool {
        self.egress.is_empty()
    }
}

impl Resources {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Egress {
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Action {
    fn is_default(&self) -> bool {
        *self == Self::Allow
    }
}

impl Escalation {
    pub const WORDS: [(&'static str, Self); 2] = [("prompt", Self::Prompt), ("deny", Self::Deny)];

    fn is_default(escalation: &Option<Spanned<Self>>) -> bool {
        escalation
            .as_ref()
            .is_none_or(|escalation| escalation.value == Self::Prompt)
    }
}

impl Unlisted {
    pub const WORDS: [(&'static str, Self); 2] = [("deny", Self::Deny), ("ask", Self::Ask)];

    fn is_default(unlisted: &Option<Spanned<Self>>) -> bool {
        unlisted.as_ref().is_none_or(|u| u.value == Self::Deny)
    }
}

fn protocols(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "enum": ["https", "http", "tls", "tcp"] })
}

fn port(text: &str) -> Option<u16> {
    let plain = (1..=5).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_digit())
        && !text.starts_with('0');
    if plain { text.parse().ok() } else { None }
}

// === impl EntryError ===

impl EntryError {
    /// Code of the diagnostic.
    pub fn code(self) -> &'static str {
        match self {
            Self::Port | Self::NoPort => "invalid-port",
            Self::Url => "invalid-host",
            Self::Host(error) => error.code(),
            Self::Cidr(CidrError::Ipv6) => "not-enforced",
            Self::Cidr(_) => "invalid-network",
        }
    }
}

// === impl Domain ===

impl Domain {
    /// The port of a credential's host: 443 unless said.
    pub fn https_port(&self) -> u16 {
        self.port.unwrap_or(443)
    }
}

impl FromStr for Domain {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        if text.contains("://") {
            return Err(EntryError::Url);
        }
        match text.split_once(':') {
            // More than one colon is no port but an IPv6 address, which HostPattern has the words for.
            Some((host, number)) if !number.contains(':') => Ok(Self {
                host: HostPattern::parse(host)?,
                port: Some(port(number).ok_or(EntryError::Port)?),
            }),
            _ => Ok(Self {
                host: HostPattern::parse(text)?,
                port: None,
            }),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => self.host.fmt(f),
        }
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl NetworkPort ===

impl FromStr for NetworkPort {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        match text.rsplit_once(':') {
            Some((cidr, number)) if !cidr.contains(':') => Ok(Self {
                cidr: Cidr::parse(cidr)?,
                port: port(number).ok_or(EntryError::Port)?,
            }),
            Some(_) => Err(CidrError::Ipv6.into()),
            None => Err(Cidr::parse(text).map_or_else(EntryError::Cidr, |_| EntryError::NoPort)),
        }
    }
}

impl fmt::Display for NetworkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.cidr, self.port)
    }
}

impl Serialize for NetworkPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

inline_schema!(Domain, "Domain", { "type": "string", "minLength": 1, "maxLength": MAX_SPELLING_BYTES + 8 });
inline_schema!(NetworkPort, "NetworkPort", {
    "type": "string",
    "pattern": "^[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?:[1-9][0-9]{0,4}$"
});

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_domain_is_a_pattern_with_or_without_a_port() {
        for (text, shown) in [
            ("API.github.com", "api.github.com"),
            ("*.example.com", "*.example.com"),
            ("db.internal:5432", "db.internal:5432"),
            ("*.example.com:8443", "*.example.com:8443"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap().to_string(), shown);
        }
        for (text, code) in [
            ("https://example.com", "invalid-host"),
            ("example.com/path", "invalid-host"),
            ("example.com:", "invalid-port"),
            ("example.com:0", "invalid-port"),
            ("example.com:65536", "invalid-port"),
            ("example.com:+1", "invalid-port"),
            ("example.com:080", "invalid-port"),
            ("example.com:https", "invalid-port"),
            ("10.0.0.1:443", "address-as-host"),
            ("2130706433", "address-as-host"),
            ("fd00::1", "address-as-host"),
            ("[fd00::1]:443", "address-as-host"),
            ("localhost:3000", "single-label-host"),
            ("*.com", "public-suffix-wildcard"),
            ("*", "invalid-wildcard"),
            ("", "invalid-host"),
        ] {
            assert_eq!(text.parse::<Domain>().unwrap_err().code(), code, "{text}");
        }
    }

    #[test]
    fn a_network_has_a_port() {
        for text in ["10.20.0.0/16:5432", "10.1.2.3:22"] {
            assert_eq!(text.parse::<NetworkPort>().unwrap().to_string(), text);
        }
        for (text, code) in [
            ("10.0.0.0/8", "invalid-port"),
            ("10.0.0.0/8:0", "invalid-port"),
            ("10.0.0.1/8:1", "invalid-network"),
            ("example.com:1", "invalid-network"),
            ("[fd00::1]:443", "not-enforced"),
            ("fd00::/8", "not-enforced"),
            ("10.0.0.0/8:1:2", "not-enforced"),
            ("", "invalid-network"),
        ] {
            assert_eq!(
                text.parse::<NetworkPort>().unwrap_err().code(),
                code,
                "{text}"
            );
        }
    }
}
