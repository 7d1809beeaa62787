#![allow(clippy::unwrap_used)]
use super::*;

pub(crate) fn origin(line: u32) -> Origin {
    Origin {
        file: "agentcontainer.json".into(),
        line,
        column: 1,
    }
}

fn allowed(host: &str, line: u32) -> DomainRule {
    DomainRule {
        host: host.parse().unwrap(),
        port: None,
        origin: origin(line),
    }
}

fn layer() -> Layer {
    Layer {
        allowed: vec![
            allowed("b.example", 2),
            allowed("a.example", 1),
            allowed("a.example", 1),
        ],
        denied: vec![allowed("*.bad.example", 3)],
        rules: vec![Rule {
            host: "c.example".parse().unwrap(),
            ports: vec![8443, 443, 443],
            protocol: Some(Protocol::Tls),
            action: Action::Allow,
            requests: Default::default(),
            origin: origin(4),
        }],
        networks: vec![NetworkRule {
            cidr: "10.0.0.0/8".parse().unwrap(),
            port: 5432,
            protocol: Protocol::Tcp,
            origin: origin(5),
        }],
        ask_unlisted: None,
    }
}

fn policy() -> EffectivePolicy {
    let gateway = Gateway {
        resolver: Resolver::Address("1.2.3.4:53".parse().unwrap()),
        hosts: [(
            "api.corp".parse().unwrap(),
            vec!["10.1.2.3".parse().unwrap()],
        )]
        .into(),
        private_networks: vec!["10.1.0.0/16".parse().unwrap()],
        upstream_proxy: Some("http://proxy.corp:3128".parse().unwrap()),
        origins: [("resolver".to_owned(), origin(9))].into(),
        approval_seconds: None,
    };
    EffectivePolicy::new(Network::new([layer()]).unwrap(), gateway).unwrap()
}

#[test]
fn the_json_form_is_stable_and_reads_back() {
    let policy = policy();
    let json = policy.to_json();
    assert_eq!(EffectivePolicy::from_json(&json).unwrap(), policy);
    assert_eq!(EffectivePolicy::from_json(&json).unwrap().to_json(), json);
    let text = String::from_utf8(json).unwrap();
    assert!(text.starts_with(r#"{"version":1,"network":[{"allowed":[{"host":"a.example","origin":{"file":"agentcontainer.json","line":1,"column":1}},{"host":"b.example""#), "{text}");
    assert!(text.contains(r#""ports":[443,8443]"#), "{text}");
    assert!(text.contains(r#""gateway":{"resolver":"1.2.3.4:53","hosts":{"api.corp":["10.1.2.3"]},"privateNetworks":["10.1.0.0/16"],"upstreamProxy":"http://proxy.corp:3128""#), "{text}");
    let deny = EffectivePolicy::deny_all();
    assert_eq!(EffectivePolicy::from_json(&deny.to_json()).unwrap(), deny);
}

#[test]
fn a_document_that_is_not_wholly_understood_is_refused() {
    let whole = String::from_utf8(policy().to_json()).unwrap();
    let change = |from: &str, to: &str| {
        assert!(whole.contains(from), "{from}");
        EffectivePolicy::from_json(whole.replacen(from, to, 1).as_bytes()).unwrap_err()
    };
    assert!(matches!(
        change("\"version\":1", "\"version\":2"),
        PolicyError::Version(2)
    ));
    assert!(matches!(change("\"version\":1,", ""), PolicyError::Json(_)));
    assert!(matches!(
        change("\"allowed\"", "\"alowed\""),
        PolicyError::Json(_)
    ));
    assert!(matches!(
        change("\"version\":1", "\"version\":1,\"more\":1"),
        PolicyError::Json(_)
    ));
    assert!(matches!(
        change("\"version\":1", "\"version\":1,\"version\":1"),
        PolicyError::Json(_)
    ));
    assert!(matches!(change("a.example", "*.com"), PolicyError::Json(_)));
    assert!(matches!(
        change("a.example", "10.0.0.1"),
        PolicyError::Json(_)
    ));
    assert!(matches!(
        change("\"tls\"", "\"quic\""),
        PolicyError::Json(_)
    ));
    assert!(matches!(
        change("443,8443", "443,0"),
        PolicyError::PortZero(_)
    ));
    assert!(matches!(change("443,8443", ""), PolicyError::NoPorts(_)));
    assert!(matches!(
        change("443,8443", "443,65536"),
        PolicyError::Json(_)
    ));
    assert!(matches!(
        change("\"port\":5432", "\"port\":0"),
        PolicyError::PortZero(_)
    ));
    assert!(matches!(
        change("\"tcp\"", "\"https\""),
        PolicyError::NetworkProtocol(_)
    ));
    assert!(matches!(
        change("10.0.0.0/8", "127.0.0.0/8"),
        PolicyError::Network { .. }
    ));
    assert!(matches!(
        change("10.0.0.0/8", "10.0.0.0/7"),
        PolicyError::Json(_) | PolicyError::Network { .. }
    ));
    assert!(matches!(
        change("\"10.1.0.0/16\"", "\"198.18.0.0/16\""),
        PolicyError::PrivateNetwork(_)
    ));
    assert!(matches!(
        change("\"10.1.0.0/16\"", "\"0.0.0.0/0\""),
        PolicyError::PrivateNetwork(_)
    ));
    assert!(matches!(
        change("\"10.1.0.0/16\"", "\"::/0\""),
        PolicyError::PrivateNetwork(_)
    ));
    assert!(matches!(
        change("\"10.1.2.3\"", "\"169.254.169.254\""),
        PolicyError::HostAddress { .. }
    ));
    assert!(matches!(
        EffectivePolicy::from_json(br#"{"version":1,"network":[],"gateway":{}}"#),
        Err(PolicyError::Json(_))
    ));
    assert!(matches!(
        EffectivePolicy::from_json(b""),
        Err(PolicyError::Json(_))
    ));
    assert!(matches!(
        EffectivePolicy::from_json(format!("{whole}x").as_bytes()),
        Err(PolicyError::Json(_))
    ));
    for cut in 0..whole.len() {
        assert!(
            EffectivePolicy::from_json(&whole.as_bytes()[..cut]).is_err(),
            "{cut}"
        );
    }
}

#[test]
fn a_network_without_layers_cannot_be_made() {
    assert!(matches!(Network::new([]), Err(PolicyError::NoLayer)));
    assert_eq!(Network::deny_all().layers().len(), 1);
}

#[test]
fn rules_networks_ports_layers_and_bytes_are_bounded() {
    let check = |layer: Layer| {
        Network::new([layer]).and_then(|network| EffectivePolicy::new(network, Gateway::default()))
    };
    let domains = |n: usize| Layer {
        allowed: (0..n)
            .map(|i| allowed(&format!("h{i}.example"), 1))
            .collect(),
        ..Layer::default()
    };
    assert!(check(domains(MAX_RULES)).is_ok());
    assert!(matches!(
        check(domains(MAX_RULES + 1)),
        Err(PolicyError::TooMany { .. })
    ));
    let networks = |n: usize| Layer {
        networks: (0..n)
            .map(|i| NetworkRule {
                cidr: format!("10.{}.{}.1", i / 256, i % 256).parse().unwrap(),
                port: 1,
                protocol: Protocol::Tcp,
                origin: origin(1),
            })
            .collect(),
        ..Layer::default()
    };
    assert!(check(networks(MAX_NETWORKS)).is_ok());
    assert!(matches!(
        check(networks(MAX_NETWORKS + 1)),
        Err(PolicyError::TooMany { .. })
    ));
    let ports = |n: usize| Layer {
        rules: vec![Rule {
            host: "a.example".parse().unwrap(),
            ports: (1..=u16::try_from(n).unwrap()).collect(),
            protocol: None,
            action: Action::Allow,
            requests: Default::default(),
            origin: origin(1),
        }],
        ..Layer::default()
    };
    assert!(check(ports(MAX_PORTS_PER_RULE)).is_ok());
    assert!(matches!(
        check(ports(MAX_PORTS_PER_RULE + 1)),
        Err(PolicyError::TooMany { .. })
    ));
    let layers = |n: u32| {
        Network::new((0..n).map(|i| Layer {
            allowed: vec![allowed("a.example", i)],
            ..Layer::default()
        }))
    };
    assert!(layers(u32::try_from(MAX_LAYERS).unwrap()).is_ok());
    assert!(matches!(
        layers(u32::try_from(MAX_LAYERS).unwrap() + 1),
        Err(PolicyError::TooMany { .. })
    ));
    let padded = |n: usize| {
        let mut json = EffectivePolicy::deny_all().to_json();
        json.resize(n, b' ');
        EffectivePolicy::from_json(&json)
    };
    assert!(padded(MAX_POLICY_BYTES).is_ok());
    assert!(matches!(
        padded(MAX_POLICY_BYTES + 1),
        Err(PolicyError::TooMany { .. })
    ));
    let hosts = |n: usize| {
        let hosts = (0..n).map(|i| {
            (
                format!("h{i}.example").parse().unwrap(),
                vec!["10.0.0.1".parse().unwrap()],
            )
        });
        EffectivePolicy::new(
            Network::deny_all(),
            Gateway {
                hosts: hosts.collect(),
                ..Gateway::default()
            },
        )
    };
    assert!(hosts(MAX_GATEWAY_ENTRIES).is_ok());
    assert!(matches!(
        hosts(MAX_GATEWAY_ENTRIES + 1),
        Err(PolicyError::TooMany { .. })
    ));
}

#[test]
fn a_policy_of_the_full_size_travels() {
    let long = "x".repeat(200);
    let full = Layer {
        allowed: (0..MAX_RULES)
            .map(|i| DomainRule {
                host: format!("h{i}.{}.example", "l".repeat(60)).parse().unwrap(),
                port: Some(1),
                origin: Origin {
                    file: long.clone(),
                    line: 1,
                    column: 1,
                },
            })
            .collect(),
        ..Layer::default()
    };
    let policy = EffectivePolicy::new(Network::new([full]).unwrap(), Gateway::default()).unwrap();
    let json = policy.to_json();
    assert!(json.len() < MAX_POLICY_BYTES, "{}", json.len());
    assert_eq!(EffectivePolicy::from_json(&json).unwrap(), policy);
}

/// C20, C21, D05: what a name may resolve to.
#[test]
fn addresses_are_vetted_after_resolution() {
    let policy = policy();
    let (api, other): (HostName, HostName) =
        ("api.corp".parse().unwrap(), "a.example".parse().unwrap());
    let allowed = |name: &HostName, address: &str, port| {
        policy.address_allowed(name, address.parse().unwrap(), port)
    };
    assert_eq!(allowed(&other, "1.1.1.1", 443), Ok(()));
    assert_eq!(allowed(&other, "2606:4700::1111", 443), Ok(()));
    assert_eq!(
        allowed(&other, "10.1.2.3", 443),
        Ok(()),
        "private_networks names it"
    );
    assert_eq!(allowed(&other, "::ffff:10.1.2.3", 443), Ok(()));
    assert_eq!(allowed(&other, "10.2.0.1", 443), Err(Class::Private));
    assert_eq!(
        allowed(&other, "10.2.0.1", 5432),
        Ok(()),
        "a networks rule names it at this port"
    );
    assert_eq!(allowed(&other, "192.168.0.1", 5432), Err(Class::Private));
    assert_eq!(allowed(&api, "10.1.2.3", 443), Ok(()));
    for address in [
        "127.0.0.1",
        "::1",
        "169.254.1.1",
        "fe80::1",
        "fd00::1",
        "172.17.0.1",
    ] {
        assert!(allowed(&api, address, 443).is_err(), "{address}");
        assert!(allowed(&other, address, 5432).is_err(), "{address}");
    }
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "0.0.0.0",
        "::",
        "198.18.0.5",
        "224.0.0.1",
        "255.255.255.255",
        "fd00:ec2::254",
    ] {
        assert!(allowed(&api, address, 443).is_err(), "{address}");
    }
    let compiled = policy.compile();
    for address in [
        "1.1.1.1",
        "10.1.2.3",
        "10.2.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "::1",
    ] {
        for port in [443, 5432] {
            assert_eq!(
                compiled.address_allowed(&other, address.parse().unwrap(), port),
                allowed(&other, address, port)
            );
        }
    }
}

#[test]
fn the_host_may_open_loopback_but_never_metadata() {
    let gateway = Gateway {
        hosts: [(
            "dev.corp".parse().unwrap(),
            vec!["127.0.0.1".parse().unwrap()],
        )]
        .into(),
        private_networks: vec![
            "169.254.0.0/16".parse().unwrap(),
            "100.64.0.0/10".parse().unwrap(),
        ],
        ..Gateway::default()
    };
    let policy = EffectivePolicy::new(Network::deny_all(), gateway).unwrap();
    let (dev, other): (HostName, HostName) =
        ("dev.corp".parse().unwrap(), "a.example".parse().unwrap());
    assert_eq!(
        policy.address_allowed(&dev, "127.0.0.1".parse().unwrap(), 1),
        Ok(())
    );
    assert_eq!(
        policy.address_allowed(&other, "127.0.0.1".parse().unwrap(), 1),
        Err(Class::Loopback)
    );
    assert_eq!(
        policy.address_allowed(&other, "169.254.1.1".parse().unwrap(), 1),
        Ok(())
    );
    for metadata in ["169.254.169.254", "169.254.170.2", "100.100.100.200"] {
        assert_eq!(
            policy.address_allowed(&dev, metadata.parse().unwrap(), 80),
            Err(Class::Metadata)
        );
    }
}
