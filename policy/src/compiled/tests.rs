#![allow(clippy::unwrap_used)]
use super::*;
use crate::effective::Network;

fn origin(line: u32) -> Origin {
    Origin {
        file: "f".into(),
        line,
        column: 1,
    }
}

fn domain(text: &str, line: u32) -> DomainRule {
    let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| {
        (host, Some(port.parse().unwrap()))
    });
    DomainRule {
        host: host.parse().unwrap(),
        port,
        origin: origin(line),
    }
}

fn rule(host: &str, ports: &[u16], protocol: Option<Protocol>, action: Action, line: u32) -> Rule {
    Rule {
        host: host.parse().unwrap(),
        ports: ports.to_vec(),
        protocol,
        action,
        requests: Default::default(),
        origin: origin(line),
    }
}

fn network(text: &str, line: u32) -> NetworkRule {
    let (cidr, port) = text.split_once(':').unwrap();
    NetworkRule {
        cidr: cidr.parse().unwrap(),
        port: port.parse().unwrap(),
        protocol: Protocol::Tcp,
        origin: origin(line),
    }
}

fn compile(layers: impl IntoIterator<Item = Layer>) -> Compiled {
    EffectivePolicy::new(Network::new(layers).unwrap(), Gateway::default())
        .unwrap()
        .compile()
}

/// `https rule:line` or the code of the denial, with the denying rule's line.
fn verdict(policy: &Compiled, host: &str, port: u16) -> String {
    match policy.decide(&host.parse().unwrap(), port, Transport::Tcp) {
        Decision::Allow(grant) => format!("{} {}", grant.protocol, grant.rule.origin.line),
        Decision::Ask(grant) => format!("ask {} {}", grant.protocol, grant.rule.origin.line),
        Decision::Deny(denial) => match denial.rule {
            Some(rule) => format!("{} {}", denial.reason.code(), rule.origin.line),
            None => denial.reason.code().to_owned(),
        },
    }
}

#[test]
fn domains_open_443_and_80_or_the_port_they_name() {
    let policy = compile([Layer {
        allowed: vec![
            domain("api.example", 1),
            domain("db.example:5432", 2),
            domain("*.w.example", 3),
            domain("x.example:443", 4),
        ],
        ..Layer::default()
    }]);
    for (host, port, expected) in [
        ("api.example", 443, "https 1"),
        ("api.example", 80, "http 1"),
        ("API.example.", 443, "https 1"),
        ("api.example", 8443, "port-not-listed"),
        ("api.example", 0, "port-not-listed"),
        ("db.example", 5432, "tcp 2"),
        ("db.example", 443, "port-not-listed"),
        ("a.w.example", 443, "https 3"),
        ("a.b.w.example", 80, "http 3"),
        ("w.example", 443, "not-listed"),
        ("evilw.example", 443, "not-listed"),
        ("a.w.example.evil.tld", 443, "not-listed"),
        ("x.example", 443, "https 4"),
        ("x.example", 80, "port-not-listed"),
        ("other.example", 443, "not-listed"),
        ("localhost", 443, "not-listed"),
    ] {
        assert_eq!(verdict(&policy, host, port), expected, "{host}:{port}");
    }
    assert!(
        !policy
            .decide(&"api.example".parse().unwrap(), 443, Transport::Udp)
            .is_allow()
    );
}

#[test]
fn a_denial_wins_over_everything_that_allows() {
    let policy = compile([Layer {
        allowed: vec![
            domain("*.example.com", 1),
            domain("a.example.com", 2),
            domain("p.example.com", 3),
        ],
        denied: vec![
            domain("a.example.com", 4),
            domain("*.deep.example.com", 5),
            domain("p.example.com:80", 6),
        ],
        rules: vec![
            rule("a.example.com", &[443], None, Action::Allow, 7),
            rule("x.deep.example.com", &[443], None, Action::Allow, 8),
        ],
        ..Layer::default()
    }]);
    for (host, port, expected) in [
        ("a.example.com", 443, "denied-by-rule 4"),
        ("a.example.com", 22, "denied-by-rule 4"),
        ("x.deep.example.com", 443, "denied-by-rule 5"),
        ("deep.example.com", 443, "https 1"),
        ("p.example.com", 443, "https 3"),
        ("p.example.com", 80, "denied-by-rule 6"),
        ("b.example.com", 443, "https 1"),
    ] {
        assert_eq!(verdict(&policy, host, port), expected, "{host}:{port}");
    }
}

#[test]
fn a_host_and_port_that_a_rule_names_is_governed_by_rules_alone() {
    use Protocol::{Tcp, Tls};
    let policy = compile([Layer {
        allowed: vec![domain("a.example", 1), domain("*.w.example", 2)],
        rules: vec![
            rule("a.example", &[443], Some(Tls), Action::Allow, 3),
            rule("*.w.example", &[443], None, Action::Deny, 4),
            rule("x.w.example", &[443, 9000], None, Action::Allow, 5),
            rule("*.t.example", &[22], None, Action::Allow, 6),
            rule("s.t.example", &[22], Some(Tls), Action::Allow, 7),
            rule("a.example", &[25], Some(Tcp), Action::Deny, 8),
        ],
        ..Layer::default()
    }]);
    for (host, port, expected) in [
        ("a.example", 443, "tls 3"),
        ("a.example", 80, "http 1"),
        ("a.example", 25, "denied-by-rule 8"),
        ("x.w.example", 443, "denied-by-rule 4"),
        ("x.w.example", 80, "http 2"),
        ("x.w.example", 9000, "tcp 5"),
        ("r.t.example", 22, "tcp 6"),
        ("s.t.example", 22, "tls 7"),
    ] {
        assert_eq!(verdict(&policy, host, port), expected, "{host}:{port}");
    }
}

#[test]
fn rules_that_exclude_one_another_deny() {
    use Protocol::{Http, Https, Tcp, Tls, Udp};
    let policy = compile([Layer {
        rules: vec![
            rule("a.example", &[8080], Some(Http), Action::Allow, 1),
            rule("a.example", &[8080], Some(Tls), Action::Allow, 2),
            rule("b.example", &[8080], Some(Tcp), Action::Allow, 3),
            rule("b.example", &[8080], Some(Tls), Action::Allow, 4),
        ],
        ..Layer::default()
    }]);
    assert_eq!(verdict(&policy, "a.example", 8080), "protocol-conflict 1");
    assert_eq!(verdict(&policy, "b.example", 8080), "tls 3");
    for a in Protocol::ALL {
        assert_eq!(stricter(a, a), Some(a));
        for b in Protocol::ALL {
            assert_eq!(stricter(a, b), stricter(b, a), "{a} {b}");
            for c in Protocol::ALL {
                let left = stricter(a, b).and_then(|ab| stricter(ab, c));
                let right = stricter(b, c).and_then(|bc| stricter(a, bc));
                assert_eq!(left, right, "{a} {b} {c}");
            }
        }
    }
    assert_eq!(stricter(Tls, Https), Some(Https));
    assert_eq!(stricter(Tcp, Http), Some(Http));
    assert_eq!(stricter(Http, Https), None);
    assert_eq!(stricter(Udp, Tcp), None);
}

#[test]
fn every_layer_has_to_allow() {
    let policy = compile([
        Layer {
            allowed: vec![
                domain("a.example", 1),
                domain("b.example:443", 2),
                domain("c.example", 3),
            ],
            ..Layer::default()
        },
        Layer {
            allowed: vec![
                domain("*.example.net", 10),
                domain("a.example", 11),
                domain("b.example", 12),
            ],
            denied: vec![domain("c.example", 13)],
            rules: vec![rule(
                "a.example",
                &[80],
                Some(Protocol::Tcp),
                Action::Allow,
                14,
            )],
            ..Layer::default()
        },
    ]);
    for (host, port, expected) in [
        ("a.example", 443, "https 1"),
        ("a.example", 80, "http 1"),
        ("b.example", 443, "https 2"),
        ("b.example", 80, "port-not-listed"),
        ("c.example", 443, "denied-by-rule 13"),
        ("x.example.net", 443, "not-listed"),
    ] {
        assert_eq!(verdict(&policy, host, port), expected, "{host}:{port}");
    }
    let names: Vec<_> = policy.exact_names().map(HostName::as_str).collect();
    assert_eq!(names, ["a.example", "b.example"]);
    assert_eq!(
        policy.ports(&"a.example".parse().unwrap()),
        [(80, Transport::Tcp), (443, Transport::Tcp)]
    );
    assert_eq!(
        policy.ports(&"b.example".parse().unwrap()),
        [(443, Transport::Tcp)]
    );
}

#[test]
fn ports_are_exactly_those_that_decide_allows() {
    let policy = compile([Layer {
        allowed: vec![
            domain("*.w.example", 1),
            domain("a.w.example:22", 2),
            domain("d.example", 3),
        ],
        denied: vec![domain("d.example", 4), domain("a.w.example:80", 5)],
        rules: vec![rule(
            "a.w.example",
            &[53],
            Some(Protocol::Udp),
            Action::Allow,
            6,
        )],
        ..Layer::default()
    }]);
    let ports = |host: &str| policy.ports(&host.parse().unwrap());
    assert_eq!(
        ports("a.w.example"),
        [
            (22, Transport::Tcp),
            (53, Transport::Udp),
            (443, Transport::Tcp)
        ]
    );
    assert_eq!(
        ports("b.w.example"),
        [(80, Transport::Tcp), (443, Transport::Tcp)]
    );
    assert_eq!(ports("d.example"), []);
    assert_eq!(ports("w.example"), []);
    assert_eq!(
        policy
            .exact_names()
            .map(HostName::as_str)
            .collect::<Vec<_>>(),
        ["a.w.example"]
    );
}

#[test]
fn nothing_is_allowed_by_a_policy_that_says_nothing() {
    let policy = EffectivePolicy::deny_all().compile();
    assert_eq!(verdict(&policy, "a.example", 443), "not-listed");
    assert!(
        !policy
            .decide_address([10, 0, 0, 1].into(), 443, Transport::Tcp)
            .is_allow()
    );
    assert_eq!(
        policy.exact_names().count() + policy.networks().len() + policy.dialable_ranges().len(),
        0
    );
}

#[test]
fn literal_addresses_are_decided_by_networks_alone() {
    let policy = compile([Layer {
        allowed: vec![domain("a.example", 1)],
        networks: vec![
            network("10.0.0.0/8:5432", 2),
            network("10.1.0.0/16:5432", 3),
            network("1.1.1.1:443", 4),
        ],
        ..Layer::default()
    }]);
    let decide = |address: [u8; 4], port| match policy.decide_address(
        address.into(),
        port,
        Transport::Tcp,
    ) {
        Decision::Allow(grant) => format!("{} {}", grant.protocol, grant.rule.name),
        Decision::Ask(_) => "ask".to_owned(),
        Decision::Deny(denial) => denial.reason.code().to_owned(),
    };
    assert_eq!(
        decide([10, 2, 3, 4], 5432),
        r#"tcp networks "10.0.0.0/8:5432""#
    );
    assert_eq!(
        decide([10, 1, 3, 4], 5432),
        r#"tcp networks "10.1.0.0/16:5432""#
    );
    assert_eq!(decide([10, 2, 3, 4], 443), "address-not-listed");
    assert_eq!(decide([11, 0, 0, 1], 5432), "address-not-listed");
    assert_eq!(decide([1, 1, 1, 1], 443), r#"tcp networks "1.1.1.1:443""#);
    assert_eq!(decide([1, 1, 1, 2], 443), "address-not-listed");
    assert!(
        !policy
            .decide_address([10, 2, 3, 4].into(), 5432, Transport::Udp)
            .is_allow()
    );
    assert_eq!(
        policy.dialable_ranges(),
        [
            ("1.1.1.1/32".parse().unwrap(), Some(443)),
            ("10.0.0.0/8".parse().unwrap(), Some(5432)),
            ("10.1.0.0/16".parse().unwrap(), Some(5432))
        ]
    );
}

#[test]
fn networks_of_several_layers_intersect() {
    let of = |list: &[&str]| Layer {
        networks: list.iter().map(|text| network(text, 1)).collect(),
        ..Layer::default()
    };
    let policy = compile([
        of(&["10.0.0.0/8:22", "192.168.0.0/16:22", "10.5.0.1:80"]),
        of(&["10.5.0.0/16:22", "192.168.0.0/16:23", "10.0.0.0/8:80"]),
    ]);
    let shown: Vec<String> = policy
        .networks()
        .iter()
        .map(|rule| format!("{}:{}", rule.cidr, rule.port))
        .collect();
    assert_eq!(shown, ["10.5.0.0/16:22", "10.5.0.1:80"]);
}

#[test]
fn ten_thousand_rules_decide_as_fast_as_ten() {
    let many = |n: u32| {
        compile([Layer {
            allowed: (0..n)
                .map(|i| domain(&format!("*.h{i}.example"), i))
                .collect(),
            ..Layer::default()
        }])
    };
    let time = |policy: &Compiled| {
        let name: HostName = "a.b.c.d.h7.example".parse().unwrap();
        let started = std::time::Instant::now();
        for _ in 0..20_000 {
            assert!(policy.decide(&name, 443, Transport::Tcp).is_allow());
        }
        started.elapsed()
    };
    let (few, many) = (many(10), many(10_000));
    time(&few);
    let fastest = |policy| (0..5).map(|_| time(policy)).min().unwrap();
    assert!(fastest(&many) < fastest(&few) * 5 + std::time::Duration::from_millis(20));
}
