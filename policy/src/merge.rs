//! Workspace and host, as one effective policy. The workspace asks, the host's word on resolving and dialling stands
//! beside it, and every entry keeps the file and line it came from. Further layers (a host's or organisation's ceiling)
//! are stacked by [`crate::Network::intersect`].

mod credentials;

pub use credentials::Granted;

use std::collections::{BTreeMap, HashMap};

use schema::config::Config;
use schema::config::agent::{self, Domain, Egress};
use schema::diag::{Diagnostic, Position, Spanned};
use schema::host::{HostName, HostPattern};
use schema::hostconfig::{GatewayConfig, HostConfig, Setting};
use schema::net::Protocol;
use schema::profile::Added;

use crate::address_class::{check_network, classify};
use crate::ceiling::Ceiling;
use crate::compiled::stricter;
use crate::effective::{
    Action, DomainRule, EffectivePolicy, Gateway, Layer, MAX_RULES, Network, NetworkRule, Origin,
    PolicyError, Rule, private_network_fits,
};
use crate::files::Files;
use crate::inspection::Inspection;
use crate::organisation::Modes;
use crate::programs::Programs;
use crate::secrets::Secrets;

/// Names that the gateway answers itself, with everything below them.
pub const RESERVED_HOSTS: [&str; 1] = ["agentcontainer.internal"];

/// The policy of a workspace on this host.
///
/// # Errors
/// Everything that cannot be a rule or a setting, with its place.
pub fn effective(config: &Config, host: &HostConfig) -> Result<EffectivePolicy, Vec<Diagnostic>> {
    effective_under(config, host, Vec::new(), &Modes::default())
}

/// The same under ceilings: credentials are about the traffic that they leave.
pub(crate) fn effective_under(
    config: &Config,
    host: &HostConfig,
    ceilings: Vec<Ceiling>,
    modes: &Modes,
) -> Result<EffectivePolicy, Vec<Diagnostic>> {
    let mut found = Vec::new();
    let mut layer = workspace_layer(config, &mut found);
    if modes.listed_only.is_some() {
        layer.ask_unlisted = None;
    }
    let gateway = gateway(&host.gateway, &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    let outside = |error: PolicyError| {
        vec![Diagnostic::new("policy", error.to_string()).in_file(config.file.clone())]
    };
    let policy = Network::new([layer])
        .and_then(|network| EffectivePolicy::new(network, gateway))
        .and_then(|policy| policy.under(ceilings))
        .map_err(outside)?;
    let policy = policy.with_nobody_asked(modes.unasked.clone().or_else(|| unasked(config)));
    let credentials = credentials::credentials(config, host, &policy, &mut found);
    let secrets = Secrets::of(config, host, &mut found);
    if !found.is_empty() {
        return Err(found);
    }
    let policy = policy.with_credentials(credentials).map_err(outside)?;
    policy
        .with_inspection(Inspection::of(config, host))
        .with_files(Files::of(config, host))
        .and_then(|policy| policy.with_programs(Programs::of(config)))
        .and_then(|policy| policy.with_secrets(secrets))
        .map_err(outside)
}

/// Where the workspace itself says that nobody is asked.
fn unasked(config: &Config) -> Option<Origin> {
    let mode = config.agent.policy.escalation.as_ref();
    let mode = mode.filter(|mode| mode.value == agent::Escalation::Deny)?;
    Some(Origin {
        file: config.file.clone(),
        line: mode.at.line,
        column: mode.at.column,
    })
}

/// What the workspace and its profile ask of the network, whether it can be had or not.
pub(crate) fn layer(config: &Config) -> Layer {
    workspace_layer(config, &mut Vec::new())
}

fn workspace_layer(config: &Config, found: &mut Vec<Diagnostic>) -> Layer {
    let egress = config.agent.egress();
    let mut check = Check {
        file: &config.file,
        found,
    };
    check.egress(egress);
    let origin = |at: Position| Origin {
        file: config.file.clone(),
        line: at.line,
        column: at.column,
    };
    let domain = |domain: &Spanned<Domain>| DomainRule {
        host: domain.host.clone(),
        port: domain.port,
        origin: origin(domain.at),
    };
    let profile = config.profile.iter().flat_map(|added| {
        let origin = profile_origin(added);
        added.domains.iter().map(move |domain| DomainRule {
            host: domain.host.clone(),
            port: domain.port,
            origin: origin.clone(),
        })
    });
    Layer {
        allowed: egress
            .allowed_domains
            .iter()
            .map(domain)
            .chain(profile)
            .collect(),
        denied: egress.denied_domains.iter().map(domain).collect(),
        rules: egress
            .rules
            .iter()
            .map(|rule| Rule {
                host: rule.host.clone(),
                ports: rule.ports.clone(),
                protocol: rule.protocol,
                action: match rule.action {
                    agent::Action::Allow => Action::Allow,
                    agent::Action::Ask => Action::Ask,
                    agent::Action::Deny => Action::Deny,
                },
                requests: rule.requests(),
                origin: origin(rule.at),
            })
            .collect(),
        networks: egress
            .networks
            .iter()
            .map(|network| NetworkRule {
                cidr: network.cidr,
                port: network.port,
                protocol: Protocol::Tcp,
                origin: origin(network.at),
            })
            .collect(),
        ask_unlisted: egress
            .unlisted
            .as_ref()
            .filter(|unlisted| unlisted.value == agent::Unlisted::Ask)
            .map(|unlisted| origin(unlisted.at)),
    }
}

pub(crate) fn profile_origin(added: &Added) -> Origin {
    Origin {
        file: added.origin(),
        line: 0,
        column: 0,
    }
}

struct Check<'a> {
    file: &'a str,
    found: &'a mut Vec<Diagnostic>,
}

// === impl Check ===

impl Check<'_> {
    fn error(&mut self, at: Position, code: &'static str, message: impl Into<String>) {
        self.found
            .push(Diagnostic::new(code, message).at(self.file, at));
    }

    fn egress(&mut self, egress: &Egress) {
        let count = egress.allowed_domains.len()
            + egress.denied_domains.len()
            + egress.rules.len()
            + egress.networks.len();
        if count > MAX_RULES {
            let message = format!(
                "{count} entries under `egress`, the limit for all its lists together is {MAX_RULES}"
            );
            self.found
                .push(Diagnostic::new("too-many", message).in_file(self.file));
        }
        for domain in &egress.allowed_domains {
            self.reserved(&domain.host, domain.at);
        }
        let mut protocols: HashMap<(&HostPattern, u16), Protocol> = HashMap::new();
        for rule in &egress.rules {
            self.reserved(&rule.host, rule.at);
            for &port in rule
                .ports
                .iter()
                .filter(|_| rule.action != agent::Action::Deny)
            {
                let protocol = rule.protocol.unwrap_or(Protocol::default_for_port(port));
                let before = *protocols.entry((&rule.host, port)).or_insert(protocol);
                if !rule.requests().is_empty()
                    && !matches!(protocol, Protocol::Http | Protocol::Https)
                {
                    let message = format!(
                        "the rule for \"{}\" is about requests, and {protocol} on port {port} is not read: ask for https or http",
                        rule.host
                    );
                    self.error(rule.at, "requests-unread", message);
                }
                if stricter(before, protocol).is_none() {
                    let message = format!(
                        "two rules for \"{}\" port {port} ask for {before} and for {protocol}",
                        rule.host
                    );
                    self.error(rule.at, "conflicting-rules", message);
                }
            }
        }
        for network in &egress.networks {
            if let Err(error) = check_network(network.cidr) {
                self.error(
                    network.at,
                    "network-never-allowed",
                    format!("`networks` entry \"{}\": {error}", network.value),
                );
            }
        }
    }

    fn reserved(&mut self, host: &HostPattern, at: Position) {
        let reserved = RESERVED_HOSTS
            .iter()
            .filter_map(|name| HostName::parse(name).ok());
        if reserved
            .into_iter()
            .any(|name| *host.name() == name || host.name().is_below(&name))
        {
            let message =
                format!("\"{host}\" is answered by agentcontainer itself and needs no rule");
            self.error(at, "reserved-host", message);
        }
    }
}

fn gateway(config: &GatewayConfig, found: &mut Vec<Diagnostic>) -> Gateway {
    let mut origins = BTreeMap::new();
    fn origin<T>(setting: &Setting<T>) -> Origin {
        Origin {
            file: setting.file.clone(),
            line: setting.at.line,
            column: setting.at.column,
        }
    }
    fn error<T>(setting: &Setting<T>, message: String) -> Diagnostic {
        Diagnostic::new("address-never-allowed", message).at(setting.file.clone(), setting.at)
    }
    let mut gateway = Gateway::default();
    if let Some(resolver) = &config.resolver {
        gateway.resolver = resolver.value;
        origins.insert("resolver".to_owned(), origin(resolver));
    }
    if let Some(proxy) = &config.upstream_proxy {
        gateway.upstream_proxy = Some(proxy.value.clone());
        origins.insert("upstream_proxy".to_owned(), origin(proxy));
    }
    if let Some(seconds) = &config.approval_seconds {
        gateway.approval_seconds = Some(seconds.value);
        origins.insert("approval_seconds".to_owned(), origin(seconds));
    }
    for network in &config.private_networks {
        if !private_network_fits(network.value) {
            let message = format!(
                "private network {} contains addresses that can never be allowed",
                network.value
            );
            found.push(error(network, message));
        }
        gateway.private_networks.push(network.value);
        origins.insert(
            format!("private_networks.{}", network.value),
            origin(network),
        );
    }
    for (name, addresses) in &config.hosts {
        for address in &addresses.value {
            let class = classify(*address);
            if class.never_allowed() {
                found.push(error(
                    addresses,
                    format!("{name} cannot be {address}: it is {class} and can never be allowed"),
                ));
            }
        }
        gateway.hosts.insert(name.clone(), addresses.value.clone());
        origins.insert(format!("hosts.{name}"), origin(addresses));
    }
    gateway.origins = origins;
    gateway
}

#[cfg(test)]
pub(crate) mod tests;
