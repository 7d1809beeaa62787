//! Rules as people write them: the words that banners, denials, events and `policy explain` use. Pure functions, so
//! that the words are tested as text.

use crate::effective::{Action, DomainRule, NetworkRule, Rule};

pub fn allowed_domain(rule: &DomainRule) -> String {
    domain("allowedDomains", rule)
}

pub fn denied_domain(rule: &DomainRule) -> String {
    domain("deniedDomains", rule)
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
    if rule.action == Action::Deny {
        words.push_str(" deny");
    }
    words
}

pub fn network(rule: &NetworkRule) -> String {
    format!("networks \"{}:{}\"", rule.cidr, rule.port)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::effective::Origin;
    use schema::net::Protocol;

    fn origin() -> Origin {
        Origin {
            file: "agentcontainer.json".into(),
            line: 7,
            column: 9,
        }
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
            origin: origin(),
        };
        assert_eq!(rule(&written), r#"rules "a.b" ports 443,8443 tls"#);
        (written.protocol, written.action) = (None, Action::Deny);
        assert_eq!(rule(&written), r#"rules "a.b" ports 443,8443 deny"#);
        let written = NetworkRule {
            cidr: "10.0.0.0/8".parse().unwrap(),
            port: 5432,
            protocol: Protocol::Tcp,
            origin: origin(),
        };
        assert_eq!(network(&written), r#"networks "10.0.0.0/8:5432""#);
        assert_eq!(origin().to_string(), "agentcontainer.json:7:9");
    }
}
