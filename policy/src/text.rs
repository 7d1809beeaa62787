//! Rules as people write them: the words that banners, denials, events and `policy explain` use. Pure functions, so
//! that the words are tested as text.

use std::net::Ipv4Addr;

use schema::config::agent;
use schema::credential::CredentialName;
use schema::host::{HostName, HostPattern};
use schema::inspection::Inspector;
use schema::net::Protocol;
use schema::request::{Method, ProgramPath, Requests};

use crate::ceiling::{Bound, Ceiling};
use crate::credential::{Credential, Place};
use crate::decision::DenyReason;
use crate::effective::{Action, DomainRule, NetworkRule, Origin, Rule};
use crate::files::{FileRight, FileRule};
use crate::inspection::Inspection;
use crate::programs::{ProgramRight, ProgramRule};
use crate::secrets::Secret;

const EGRESS: &str = "agent.capabilities.network.egress";

/// What is asked about because nothing lists it.
pub const UNLISTED: &str = "unlisted \"ask\"";

/// Nobody is asked.
pub const UNASKED: &str = "escalation \"deny\"";

/// What an opaque wire has to say.
pub const WIRE_OPAQUE: &str = "the wire: anything, relayed unread";

pub fn allowed_domain(rule: &DomainRule) -> String {
    domain("allowedDomains", rule)
}

pub fn denied_domain(rule: &DomainRule) -> String {
    domain("deniedDomains", rule)
}

pub fn organisation_denies(rule: &DomainRule) -> String {
    domain("denials.domains", rule)
}

/// An entry of an organisation's policy.
pub fn of_organisation(entry: &str, organisation: &str) -> String {
    format!("{entry} of the policy of {organisation}")
}

pub fn bound(bound: &Bound) -> String {
    match bound.port {
        Some(port) => format!("{}:{port}", bound.cidr),
        None => bound.cidr.to_string(),
    }
}

/// What a ceiling says, entry by entry, with where each stands.
pub fn ceiling(ceiling: &Ceiling) -> Vec<(String, &Origin)> {
    let mut out = Vec::new();
    let mut list = |key: &str, entries: Vec<String>, origin| {
        let entries = match entries.is_empty() {
            true => "nothing".to_owned(),
            false => entries.join(" "),
        };
        let words = format!("ceilings.network.{key}: {entries}");
        out.push((of_organisation(&words, &ceiling.organisation), origin));
    };
    if let Some(allowed) = &ceiling.allowed {
        let shown = |rule: &DomainRule| match rule.port {
            Some(port) => format!("{}:{port}", rule.host),
            None => rule.host.to_string(),
        };
        let entries = allowed.entries.iter().map(shown).collect();
        list("allowedDomains", entries, &allowed.origin);
    }
    if let Some(ports) = &ceiling.ports {
        let entries = ports.entries.iter().map(u16::to_string).collect();
        list("ports", entries, &ports.origin);
    }
    if let Some(protocols) = &ceiling.protocols {
        let entries = protocols.entries.iter().map(ToString::to_string).collect();
        list("protocols", entries, &protocols.origin);
    }
    if let Some(networks) = &ceiling.networks {
        let entries = networks.entries.iter().map(bound).collect();
        list("networks", entries, &networks.origin);
    }
    for rule in &ceiling.denied {
        let words = organisation_denies(rule);
        out.push((of_organisation(&words, &ceiling.organisation), &rule.origin));
    }
    for denied in &ceiling.denied_networks {
        let words = format!("denials.networks {:?}", bound(denied));
        out.push((
            of_organisation(&words, &ceiling.organisation),
            &denied.origin,
        ));
    }
    out
}

fn domain(list: &str, rule: &DomainRule) -> String {
    match rule.port {
        Some(port) => format!("{list} \"{}:{port}\"", rule.host),
        None => format!("{list} \"{}\"", rule.host),
    }
}

pub fn rule(rule: &Rule) -> String {
    let ports: Vec<String> = rule.ports.iter().map(u16::to_string).collect();
    let mut words = format!("rules \"{}\" ports {}", rule.host, ports.join(","));
    if let Some(protocol) = rule.protocol {
        words.push(' ');
        words.push_str(protocol.as_str());
    }
    match rule.action {
        Action::Allow => {}
        Action::Ask => words.push_str(" ask"),
        Action::Deny => words.push_str(" deny"),
    }
    words + &requests(&rule.requests)
}

/// What a rule says about requests, with a blank before it; nothing where it says nothing.
pub fn requests(requests: &Requests) -> String {
    let mut words = String::new();
    if !requests.methods.is_empty() {
        let methods: Vec<&str> = requests.methods.iter().map(Method::as_str).collect();
        words += &format!(" {}", methods.join(","));
    }
    for path in &requests.paths {
        words += &format!(" {path}");
    }
    if !requests.programs.is_empty() {
        let programs: Vec<&str> = requests.programs.iter().map(ProgramPath::as_str).collect();
        words += &format!(" by {}", programs.join(","));
    }
    if let Some(limit) = requests.max_body_bytes {
        words += &format!(" of at most {limit} bytes");
    }
    if let Some(rate) = requests.rate_limit {
        words += &format!(" {} a second, {} at once", rate.per_second, rate.burst);
    }
    words
}

/// What carries what mounts can carry.
const MOUNTS: &str = "mounts, and BPF LSM where it is there";

/// A rule about files, with what carries it.
pub fn file(right: FileRight, rule: &FileRule) -> String {
    let entry = format!("{} \"{}\"", rule.key(right), rule.path);
    let layer = match rule.path.is_glob() {
        true => "BPF LSM, and mounts for what is there",
        false => MOUNTS,
    };
    format!("{} ({layer})", said(entry, rule.organisation.as_deref()))
}

/// A rule about programs, with what carries it.
pub fn program(right: ProgramRight, rule: &ProgramRule) -> String {
    let entry = format!("{} \"{}\"", rule.key(right), rule.name);
    let entry = said(entry, rule.organisation.as_deref());
    match right {
        ProgramRight::Allowed => format!("{entry} (BPF LSM or tracepoint)"),
        ProgramRight::Denied => format!("{entry} ({MOUNTS})"),
    }
}

/// A person is asked about a program that is not listed.
pub const PROGRAMS_ASKED: &str = "requireApproval";

fn said(entry: String, organisation: Option<&str>) -> String {
    match organisation {
        Some(organisation) => of_organisation(&entry, organisation),
        None => entry,
    }
}

pub fn network(rule: &NetworkRule) -> String {
    format!("networks \"{}:{}\"", rule.cidr, rule.port)
}

pub fn credential(credential: &Credential) -> String {
    let places: Vec<String> = credential.places.iter().map(Place::shown).collect();
    format!(
        "credentials \"{}\" to {} in {}: {}{{}}{}{}",
        credential.name,
        places.join(" "),
        credential.header,
        credential.prefix,
        credential.suffix,
        match &credential.env {
            Some(env) if let Some(query) = &credential.query => {
                format!(", or as the query parameter {query}, by the placeholder in {env}")
            }
            Some(env) => format!(", by the placeholder in {env}"),
            None => ", in every request".to_owned(),
        }
    )
}

pub fn secret(secret: &Secret) -> String {
    let limits = secret_limits(&secret.programs, secret.ttl);
    format!("secrets \"{}\" as a file{limits}", secret.name)
}

/// Whom a secret's file is for, and for how long; empty where nothing limits it.
pub fn secret_limits(programs: &[ProgramPath], ttl: Option<u64>) -> String {
    let mut limits = String::new();
    if !programs.is_empty() {
        let programs: Vec<&str> = programs.iter().map(ProgramPath::as_str).collect();
        limits.push_str(&format!(", for {} alone", programs.join(" ")));
    }
    if let Some(seconds) = ttl {
        limits.push_str(&format!(", for {seconds} s"));
    }
    limits
}

pub fn inspection(inspector: Inspector, levels: &Inspection) -> String {
    let (name, level) = (inspector.as_str(), levels.level(inspector).as_str());
    match levels.origin(inspector) {
        Some(_) => format!("inspection {name} {level}"),
        None => format!("inspection {name} {level}, by default"),
    }
}

/// What the wire has to say to `name`.
pub fn wire(protocol: Protocol, name: &HostName) -> String {
    match protocol {
        Protocol::Https => {
            format!(
                "the wire: TLS with SNI {name} and no ECH, which ends at the gateway; in it HTTP with Host or :authority {name}"
            )
        }
        Protocol::Http => format!("the wire: HTTP with Host {name}; never carries a credential"),
        Protocol::Tls => format!("the wire: TLS with SNI {name} and no ECH, relayed unread"),
        Protocol::Tcp | Protocol::Udp => WIRE_OPAQUE.to_owned(),
    }
}

/// What happens where a person is asked.
pub fn asked(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http | Protocol::Https => {
            "each request waits until a person allows it: `agentcontainer approvals`"
        }
        _ => "each connection waits until a person allows it: `agentcontainer approvals`",
    }
}

/// What to do about a denied name: the entry that would allow it, as it is written.
pub fn remedy(reason: DenyReason, name: &HostName, port: u16, file: &str) -> String {
    let entry = match port {
        80 | 443 => name.to_string(),
        _ => format!("{name}:{port}"),
    };
    match reason {
        DenyReason::NotListed | DenyReason::PortNotListed | DenyReason::AddressNotListed
            if name.label_count() < 2 =>
        {
            "names of a single label are never resolved".to_owned()
        }
        DenyReason::NotListed | DenyReason::PortNotListed | DenyReason::AddressNotListed => {
            format!("to allow it, add \"{entry}\" to `{EGRESS}.allowedDomains` in {file}")
        }
        DenyReason::DeniedByRule => {
            "to allow it, take back that rule: a denial wins over everything that allows".to_owned()
        }
        DenyReason::BeyondCeiling => {
            "nothing in this workspace opens it: an organisation's policy is above it; ask whoever keeps that policy".to_owned()
        }
        DenyReason::NotAsked => {
            "nobody is asked here: an entry that allows it is needed".to_owned()
        }
        DenyReason::ProtocolConflict => {
            "rules ask for protocols that exclude one another: make them agree".to_owned()
        }
    }
}

/// What to do about a place that nothing may go to as https.
pub fn remedy_https(host: &HostPattern, port: u16) -> String {
    match port {
        443 => format!("add \"{host}\" to `{EGRESS}.allowedDomains`, or take that host out"),
        _ => format!(
            "add {{ \"host\": \"{host}\", \"ports\": [{port}], \"protocol\": \"https\" }} to `{EGRESS}.rules`, or take that host out"
        ),
    }
}

/// The command that grants what a workspace asks for, with what only the person can say left in capitals: above all where the value
/// comes from, or a command that is copied would send a variable of the workspace's choice to hosts of its choice.
pub fn grant(name: &CredentialName, asked: &agent::Credential) -> String {
    let asked_for: Vec<String> = asked.hosts.iter().map(|h| h.value.to_string()).collect();
    let hosts = match asked_for.as_slice() {
        [] => "HOST".to_owned(),
        some => hosts(some),
    };
    format!("agentcontainer grant {name} --source URI --hosts {hosts}")
}

/// Hosts as one word of a command line.
pub fn hosts(hosts: &[String]) -> String {
    let joined = hosts.join(",");
    if joined.contains('*') {
        format!("'{joined}'")
    } else {
        joined
    }
}

pub fn remedy_address(address: Ipv4Addr, port: u16, file: &str) -> String {
    format!(
        "to allow it, add \"{address}:{port}\" to `{EGRESS}.networks` in {file}; better, use its name"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::effective::Origin;

    fn origin() -> Origin {
        Origin {
            file: "agentcontainer.json".into(),
            line: 7,
            column: 9,
        }
    }

    #[test]
    fn a_command_to_copy_leaves_it_to_the_person_where_the_value_comes_from() {
        let text = br#"{ "image": "x", "agent": { "credentials": {
            "x": { "env": "AWS_SECRET_ACCESS_KEY", "hosts": ["collect.example"] } } } }"#;
        let config = schema::config::parse(text, "agentcontainer.json").unwrap();
        let asked = &config.agent.credentials["x"].value;
        assert_eq!(
            grant(&"x".parse().unwrap(), asked),
            "agentcontainer grant x --source URI --hosts collect.example"
        );
    }

    #[test]
    fn a_rule_reads_as_it_is_written() {
        let domain = |host: &str, port| DomainRule {
            host: host.parse().unwrap(),
            port,
            origin: origin(),
        };
        assert_eq!(
            allowed_domain(&domain("*.Example.com", None)),
            r#"allowedDomains "*.example.com""#
        );
        assert_eq!(
            allowed_domain(&domain("db.internal", Some(5432))),
            r#"allowedDomains "db.internal:5432""#
        );
        assert_eq!(
            denied_domain(&domain("a.b", None)),
            r#"deniedDomains "a.b""#
        );
        let mut written = Rule {
            host: "a.b".parse().unwrap(),
            ports: vec![443, 8443],
            protocol: Some(Protocol::Tls),
            action: Action::Allow,
            requests: Requests::default(),
            origin: origin(),
        };
        assert_eq!(rule(&written), r#"rules "a.b" ports 443,8443 tls"#);
        (written.protocol, written.action) = (None, Action::Deny);
        assert_eq!(rule(&written), r#"rules "a.b" ports 443,8443 deny"#);
        written.requests = Requests {
            methods: vec!["GET".parse().unwrap(), "POST".parse().unwrap()],
            paths: vec!["/a/**".parse().unwrap()],
            programs: vec!["/usr/bin/git".parse().unwrap()],
            max_body_bytes: Some(1000),
            rate_limit: None,
        };
        assert_eq!(
            rule(&written),
            r#"rules "a.b" ports 443,8443 deny GET,POST /a/** by /usr/bin/git of at most 1000 bytes"#
        );
        let written = NetworkRule {
            cidr: "10.0.0.0/8".parse().unwrap(),
            port: 5432,
            protocol: Protocol::Tcp,
            origin: origin(),
        };
        assert_eq!(network(&written), r#"networks "10.0.0.0/8:5432""#);
        assert_eq!(origin().to_string(), "agentcontainer.json:7:9");
        let mut written = Credential {
            name: "github".into(),
            places: vec![crate::credential::Place {
                host: "api.github.com".parse().unwrap(),
                port: 443,
                paths: Vec::new(),
                methods: Vec::new(),
            }],
            header: "authorization".into(),
            prefix: "Bearer ".into(),
            suffix: String::new(),
            query: None,
            env: Some("GITHUB_TOKEN".into()),
            origin: origin(),
        };
        assert_eq!(
            credential(&written),
            r#"credentials "github" to api.github.com:443 in authorization: Bearer {}, by the placeholder in GITHUB_TOKEN"#
        );
        written.places[0].paths = vec!["/repos/acme/**".parse().unwrap()];
        assert!(credential(&written).contains("to api.github.com:443 (/repos/acme/**) in "));
        written.places[0].methods = vec!["GET".parse().unwrap(), "HEAD".parse().unwrap()];
        let shown = "to api.github.com:443 (GET HEAD /repos/acme/**) in ";
        assert!(credential(&written).contains(shown));
        written.query = Some("key".into());
        assert!(credential(&written).ends_with(
            "Bearer {}, or as the query parameter key, by the placeholder in GITHUB_TOKEN"
        ));
        written.env = None;
        assert!(credential(&written).ends_with("Bearer {}, in every request"));
    }
}
