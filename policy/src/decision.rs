//! The one decision type, for every way in: gate maps, DNS, the gateway's own check and `policy explain`.

use schema::net::Protocol;

use crate::effective::Origin;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    Allow(Grant<'a>),
    /// May be dialled, or each request be carried, once a person allows it; the rule is the one that asks.
    Ask(Grant<'a>),
    Deny(Denial<'a>),
}

/// May be dialled, and what the wire has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'a> {
    pub protocol: Protocol,
    pub rule: RuleRef<'a>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial<'a> {
    pub reason: DenyReason,
    /// The rule that denies, where one does.
    pub rule: Option<RuleRef<'a>>,
}

/// A rule as people write it, `allowedDomains "*.example.com"`, and where they did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleRef<'a> {
    pub name: &'a str,
    pub origin: &'a Origin,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyReason {
    /// No entry names this host.
    NotListed,
    /// An entry names this host, but not at this port.
    PortNotListed,
    /// No literal network contains this address at this port.
    AddressNotListed,
    DeniedByRule,
    /// No organisation's policy denies it, and one does not allow it either.
    BeyondCeiling,
    /// A person would be asked, and policy says that nobody is.
    NotAsked,
    /// Rules that all allow it, but ask for wires that exclude one another.
    ProtocolConflict,
}

// === impl Decision ===

impl Decision<'_> {
    /// Without anybody being asked.
    pub fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    pub fn is_deny(&self) -> bool {
        matches!(self, Self::Deny(_))
    }
}

// === impl DenyReason ===

impl DenyReason {
    /// Stable code, as in events and `x-agentcontainer-blocked`.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotListed => "not-listed",
            Self::PortNotListed => "port-not-listed",
            Self::AddressNotListed => "address-not-listed",
            Self::DeniedByRule => "denied-by-rule",
            Self::BeyondCeiling => "beyond-ceiling",
            Self::NotAsked => "not-asked",
            Self::ProtocolConflict => "protocol-conflict",
        }
    }
}
