#![allow(clippy::unwrap_used)]
use super::*;
use crate::compiled::Compiled;
use crate::decision::Decision;
use crate::text;
use schema::net::Transport;

fn config(egress: &str) -> Config {
    let text = format!(
        r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "network": {{ "egress": {egress} }} }} }} }}"#
    );
    schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap()
}

fn host(text: &str) -> HostConfig {
    schema::hostconfig::parse(text.as_bytes(), "config.toml").unwrap()
}

fn errors(egress: &str, toml: &str) -> Vec<String> {
    effective(&config(egress), &host(toml))
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn every_entry_remembers_the_file_and_line_it_came_from() {
    let config = schema::config::parse(
        br#"{ "image": "debian", "agent": { "capabilities": { "network": { "egress": {
  "allowedDomains": ["api.github.com",
                     "*.example.com"],
  "rules": [{ "host": "db.example.com", "ports": [5432] }],
  "networks": ["10.20.0.0/16:5432"] } } } } }"#,
        ".devcontainer/agentcontainer.json",
    )
    .unwrap();
    let policy = effective(&config, &host("[gateway]\nhosts = { \"api.corp\" = \"10.1.2.3\" }\nprivate_networks = [\"10.1.0.0/16\"]\n")).unwrap();
    let layer = &policy.network.layers()[0];
    let places: Vec<String> = layer
        .allowed
        .iter()
        .map(|rule| rule.origin.to_string())
        .chain([
            layer.rules[0].origin.to_string(),
            layer.networks[0].origin.to_string(),
        ])
        .collect();
    assert_eq!(
        places,
        ["2:22", "3:22", "4:13", "5:16"]
            .map(|at| format!(".devcontainer/agentcontainer.json:{at}"))
    );
    let origins: Vec<String> = policy
        .gateway
        .origins
        .iter()
        .map(|(key, origin)| format!("{key} {origin}"))
        .collect();
    assert_eq!(
        origins,
        [
            "hosts.api.corp config.toml:2:24",
            "private_networks.10.1.0.0/16 config.toml:3:21"
        ]
    );
    assert_eq!(
        EffectivePolicy::from_json(&policy.to_json()).unwrap(),
        policy
    );
}

#[test]
fn a_workspace_without_an_agent_object_reaches_nothing() {
    let config = schema::config::parse(br#"{ "image": "debian" }"#, "agentcontainer.json").unwrap();
    assert_eq!(
        effective(&config, &HostConfig::default()).unwrap(),
        EffectivePolicy::deny_all()
    );
}

#[test]
fn what_can_never_be_allowed_is_refused_with_its_place() {
    let found = errors(
        r#"{ "networks": ["127.0.0.1:80", "169.254.169.254:80", "10.0.0.0/7:1", "198.18.0.0/15:80", "10.0.0.0/8:1"],
             "allowedDomains": ["agentcontainer.internal", "a.agentcontainer.internal:80", "*.agentcontainer.internal"],
             "rules": [{ "host": "a.example", "ports": [443, 8080] },
                       { "host": "a.example", "ports": [8080], "protocol": "http" },
                       { "host": "b.example", "ports": [8080], "protocol": "http" },
                       { "host": "b.example", "ports": [8080], "protocol": "tls" }] }"#,
        "[gateway]\nprivate_networks = [\"198.18.0.0/15\", \"10.0.0.0/8\"]\nhosts = { \"m.corp\" = [\"10.0.0.1\", \"169.254.169.254\"] }",
    );
    assert_eq!(found.len(), 10, "{found:#?}");
    assert!(
        found[0].contains("\"agentcontainer.internal\" is answered by agentcontainer itself"),
        "{found:#?}"
    );
    let codes: Vec<_> = found
        .iter()
        .map(|line| line.rsplit('[').next().unwrap().trim_end_matches(']'))
        .collect();
    assert_eq!(
        codes,
        [
            "reserved-host",
            "reserved-host",
            "reserved-host",
            "conflicting-rules",
            "network-never-allowed",
            "network-never-allowed",
            "network-never-allowed",
            "network-never-allowed",
            "address-never-allowed",
            "address-never-allowed"
        ]
    );
    assert!(
        found[3].contains("two rules for \"b.example\" port 8080 ask for http and for tls"),
        "{}",
        found[3]
    );
    assert!(
        found[4].contains("the network contains 127.0.0.0/8, which is loopback"),
        "{}",
        found[4]
    );
    assert!(
        found[8].starts_with("config.toml:2:21: private network 198.18.0.0/15"),
        "{}",
        found[8]
    );
}

#[test]
fn all_lists_together_are_bounded() {
    let lists = |allowed: usize, denied: usize| {
        let list = |n: usize, tld: &str| {
            (0..n)
                .map(|i| format!("\"h{i}.{tld}\""))
                .collect::<Vec<_>>()
                .join(",")
        };
        format!(
            r#"{{ "allowedDomains": [{}], "deniedDomains": [{}] }}"#,
            list(allowed, "example"),
            list(denied, "invalid")
        )
    };
    assert_eq!(errors(&lists(MAX_RULES - 5, 5), ""), [""; 0]);
    assert!(errors(&lists(MAX_RULES - 5, 6), "")[0].ends_with("[too-many]"));
}

// === properties ===

/// xorshift64*: deterministic, so that a failure names its seed.
pub(crate) struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % n as u64).unwrap()
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

pub(crate) const HOSTS: [&str; 8] = [
    "a.example",
    "b.example",
    "x.a.example",
    "y.x.a.example",
    "evila.example",
    "a.example.evil.tld",
    "q.b.example",
    "z.other",
];
pub(crate) const PATTERNS: [&str; 9] = [
    "a.example",
    "b.example",
    "x.a.example",
    "*.a.example",
    "*.x.a.example",
    "*.b.example",
    "a.example.evil.tld",
    "*.evil.tld",
    "z.other",
];
pub(crate) const PORTS: [u16; 4] = [443, 80, 22, 8443];
pub(crate) const ADDRESSES: [[u8; 4]; 5] = [
    [10, 0, 0, 1],
    [10, 1, 0, 1],
    [10, 1, 1, 1],
    [192, 168, 0, 1],
    [1, 1, 1, 1],
];

pub(crate) fn random_layer(random: &mut Random) -> Layer {
    let mut line = 0;
    let mut origin = |random: &mut Random| {
        line += 1;
        Origin {
            file: random.pick(&["f", "g"]).into(),
            line,
            column: 1,
        }
    };
    let mut domains = |random: &mut Random, most: usize| -> Vec<DomainRule> {
        (0..random.below(most))
            .map(|_| DomainRule {
                host: random.pick(&PATTERNS).parse().unwrap(),
                port: if random.below(2) == 0 {
                    None
                } else {
                    Some(random.pick(&PORTS))
                },
                origin: origin(random),
            })
            .collect()
    };
    let (allowed, denied) = (domains(random, 6), domains(random, 2));
    let rules = (0..random.below(5))
        .map(|_| Rule {
            host: random.pick(&PATTERNS).parse().unwrap(),
            ports: (0..=random.below(2)).map(|_| random.pick(&PORTS)).collect(),
            protocol: random.pick(&[
                None,
                Some(Protocol::Tls),
                Some(Protocol::Http),
                Some(Protocol::Tcp),
                Some(Protocol::Https),
            ]),
            action: random.pick(&[Action::Allow, Action::Allow, Action::Ask, Action::Deny]),
            requests: Default::default(),
            origin: origin(random),
        })
        .collect();
    let networks = (0..random.below(4))
        .map(|_| NetworkRule {
            cidr: random
                .pick(&[
                    "10.0.0.0/8",
                    "10.1.0.0/16",
                    "10.1.1.1",
                    "192.168.0.0/16",
                    "1.1.1.1",
                ])
                .parse()
                .unwrap(),
            port: random.pick(&PORTS),
            protocol: Protocol::Tcp,
            origin: origin(random),
        })
        .collect();
    Layer {
        allowed,
        denied,
        rules,
        networks,
        ask_unlisted: (random.below(4) == 0).then(|| origin(random)),
    }
}

/// The rules of SPEC read straight, entry by entry: what the index has to agree with.
fn specification(layer: &Layer, host: &HostName, port: u16) -> &'static str {
    let denied = |rule: &DomainRule| rule.host.matches(host) && rule.port.is_none_or(|p| p == port);
    if layer.denied.iter().any(denied) {
        return "deny";
    }
    let named: Vec<&Rule> = layer
        .rules
        .iter()
        .filter(|rule| rule.host.matches(host) && rule.ports.contains(&port))
        .collect();
    if !named.is_empty() {
        if named.iter().any(|rule| rule.action == Action::Deny) {
            return "deny";
        }
        // The most specific pattern decides what the wire is; rules of one pattern have to agree.
        let depth = |rule: &Rule| {
            (
                matches!(rule.host, HostPattern::Exact(_)),
                rule.host.name().label_count(),
            )
        };
        let deepest = named.iter().map(|rule| depth(rule)).max();
        let protocols = named.iter().filter(|rule| Some(depth(rule)) == deepest);
        let protocols: Vec<Protocol> = protocols
            .map(|rule| rule.protocol.unwrap_or(Protocol::default_for_port(port)))
            .collect();
        let agreed = protocols[1..]
            .iter()
            .try_fold(protocols[0], |a, b| stricter(a, *b));
        let asks = named.iter().any(|rule| rule.action == Action::Ask);
        return match (agreed, asks) {
            (None, _) => "deny",
            (Some(_), true) => "ask",
            (Some(_), false) => "allow",
        };
    }
    let allowed = layer.allowed.iter().any(|rule| {
        rule.host.matches(host) && rule.port.map_or(port == 443 || port == 80, |p| p == port)
    });
    match (allowed, layer.ask_unlisted.is_some()) {
        (true, _) => "allow",
        (false, true) if port == 443 || port == 80 => "ask unlisted",
        (false, _) => "deny",
    }
}

fn compile(network: &Network) -> Compiled {
    EffectivePolicy::new(network.clone(), Gateway::default())
        .unwrap()
        .compile()
}

/// Every question there is over the small world of the generator, with its answer.
fn answers(policy: &Compiled) -> Vec<String> {
    let mut out = Vec::new();
    for host in HOSTS {
        for port in PORTS {
            out.push(
                match policy.decide(&host.parse().unwrap(), port, Transport::Tcp) {
                    Decision::Allow(grant) => format!("{host}:{port} {}", grant.protocol),
                    Decision::Ask(grant) => format!("{host}:{port} asks {}", grant.protocol),
                    Decision::Deny(_) => format!("{host}:{port} no"),
                },
            );
        }
    }
    for address in ADDRESSES {
        for port in PORTS {
            let allow = policy
                .decide_address(address.into(), port, Transport::Tcp)
                .is_allow();
            out.push(format!("{address:?}:{port} {allow}"));
        }
    }
    out
}

#[test]
fn the_index_decides_as_the_rules_read() {
    for seed in 1..1000 {
        let layer = random_layer(&mut Random(seed));
        let network = Network::new([layer]).unwrap();
        let (layer, policy) = (&network.layers()[0], compile(&network));
        for host in HOSTS {
            let host: HostName = host.parse().unwrap();
            for port in PORTS {
                let decided = match policy.decide(&host, port, Transport::Tcp) {
                    Decision::Allow(_) => "allow",
                    Decision::Ask(grant) if grant.rule.name == text::UNLISTED => "ask unlisted",
                    Decision::Ask(_) => "ask",
                    Decision::Deny(_) => "deny",
                };
                assert_eq!(
                    decided,
                    specification(layer, &host, port),
                    "seed {seed}, {host}:{port}, {layer:#?}"
                );
                assert_eq!(
                    policy.ports(&host).contains(&(port, Transport::Tcp)),
                    matches!(decided, "allow" | "ask"),
                    "seed {seed}, {host}:{port}"
                );
            }
        }
        for address in ADDRESSES {
            for port in PORTS {
                let expected = layer
                    .networks
                    .iter()
                    .any(|rule| rule.cidr.contains(address.into()) && rule.port == port);
                assert_eq!(
                    policy
                        .decide_address(address.into(), port, Transport::Tcp)
                        .is_allow(),
                    expected,
                    "seed {seed}"
                );
            }
        }
    }
}

#[test]
fn an_intersection_never_allows_what_either_side_denies() {
    for seed in 1..800 {
        let random = &mut Random(seed);
        let (a, b) = (
            Network::new([random_layer(random)]).unwrap(),
            Network::new([random_layer(random)]).unwrap(),
        );
        let both = a.intersect(&b).unwrap();
        let (a, b, both) = (
            answers(&compile(&a)),
            answers(&compile(&b)),
            answers(&compile(&both)),
        );
        for ((a, b), both) in a.iter().zip(&b).zip(&both) {
            let denies = |answer: &str| answer.ends_with(" no") || answer.ends_with(" false");
            if denies(a) || denies(b) {
                assert!(denies(both), "seed {seed}: {a}, {b}, {both}");
            }
            if !denies(both) {
                assert!(!denies(a) && !denies(b), "seed {seed}");
            }
            if a == b {
                assert_eq!(both, a, "seed {seed}");
            }
            let asks = |answer: &str| answer.contains(" asks ");
            if !denies(both) {
                assert_eq!(
                    asks(both),
                    asks(a) || asks(b),
                    "seed {seed}: {a}, {b}, {both}"
                );
            }
        }
    }
}

/// What is denied stays denied whether a rule asks or allows, and what one asks about is asked about however others allow it.
#[test]
fn an_ask_opens_nothing_that_allow_would_not_and_is_never_lowered() {
    let decide = |network: &Network, host: &HostName, port: u16| match compile(network).decide(
        host,
        port,
        Transport::Tcp,
    ) {
        Decision::Allow(_) => 0,
        Decision::Ask(_) => 1,
        Decision::Deny(_) => 2,
    };
    let mut asked = 0;
    for seed in 1..300 {
        let layer = Layer {
            ask_unlisted: None,
            ..random_layer(&mut Random(seed))
        };
        let with = |change: fn(&mut Rule)| {
            let mut layer = layer.clone();
            layer.rules.iter_mut().for_each(change);
            Network::new([layer]).unwrap()
        };
        let given = with(|_| {});
        let allowing = with(|rule| {
            if rule.action == Action::Ask {
                rule.action = Action::Allow;
            }
        });
        let asking = with(|rule| {
            if rule.action == Action::Allow {
                rule.action = Action::Ask;
            }
        });
        for host in HOSTS {
            let host: HostName = host.parse().unwrap();
            for port in PORTS {
                let [given, allowing, asking] =
                    [&given, &allowing, &asking].map(|network| decide(network, &host, port));
                assert_eq!(given == 2, allowing == 2, "seed {seed}, {host}:{port}");
                assert_eq!(given == 2, asking == 2, "seed {seed}, {host}:{port}");
                assert!(allowing <= given && given <= asking, "seed {seed}");
                asked += u32::from(given == 1);
            }
        }
    }
    assert!(asked > 100, "the generator asks too seldom: {asked}");
}

#[test]
fn order_does_not_matter_and_twice_is_once() {
    for seed in 1..400 {
        let random = &mut Random(seed);
        let (first, second, third) = (
            random_layer(random),
            random_layer(random),
            random_layer(random),
        );
        let of = |layer: &Layer| Network::new([layer.clone()]).unwrap();
        let (a, b, c) = (of(&first), of(&second), of(&third));
        let ab = a.intersect(&b).unwrap();
        assert_eq!(ab, b.intersect(&a).unwrap(), "seed {seed}");
        assert_eq!(
            ab.intersect(&c).unwrap(),
            a.intersect(&b.intersect(&c).unwrap()).unwrap(),
            "seed {seed}"
        );
        assert_eq!(ab.intersect(&ab).unwrap(), ab, "seed {seed}");
        assert_eq!(ab.intersect(&a).unwrap(), ab, "seed {seed}");

        let mut shuffled = first.clone();
        shuffled.allowed.reverse();
        shuffled.denied.reverse();
        shuffled.rules.reverse();
        shuffled.networks.reverse();
        assert_eq!(of(&shuffled), a, "seed {seed}");
        let denied = a.intersect(&Network::deny_all()).unwrap();
        assert!(
            answers(&compile(&denied))
                .iter()
                .all(|answer| answer.ends_with("no") || answer.ends_with("false"))
        );
    }
}

#[test]
fn adding_a_denial_never_opens_anything() {
    for seed in 1..400 {
        let random = &mut Random(seed);
        let layer = random_layer(random);
        let mut more = layer.clone();
        more.denied.push(DomainRule {
            host: random.pick(&PATTERNS).parse().unwrap(),
            port: None,
            origin: Origin {
                file: "h".into(),
                line: 1,
                column: 1,
            },
        });
        let answers_of = |layer| answers(&compile(&Network::new([layer]).unwrap()));
        for (before, after) in answers_of(layer).iter().zip(answers_of(more)) {
            assert!(
                *before == after || after.ends_with(" no"),
                "seed {seed}: {before}, {after}"
            );
        }
    }
}
