//! The merge against documents read straight, entry by entry: whatever it allows, the workspace and every document allow; order
//! does not matter; twice is once; more documents never open anything.
#![allow(clippy::unwrap_used)]

mod files;

use schema::config::agent::{Escalation, Unlisted};
use schema::host::HostName;
use schema::inspection::Inspector;
use schema::net::{Protocol, Transport};
use schema::organisation::Organisation;
use serde_json::{Value, json};

use super::*;
use crate::address_class::Class;
use crate::decision::{Decision, DenyReason};
use crate::effective::{Gateway, Network};
use crate::merge::tests::{ADDRESSES, HOSTS, PATTERNS, PORTS, Random, random_layer};
use crate::{Compiled, text};

const NETWORKS: [&str; 6] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.1",
    "10.1.0.0/16:22",
    "192.168.0.0/16:443",
    "0.0.0.0/0",
];
const PROTOCOLS: [&str; 4] = ["https", "http", "tls", "tcp"];
const IMAGES: [&str; 4] = [
    "docker.io/library/*",
    "ghcr.io/acme/**",
    "ghcr.io/acme/agent",
    "docker.io/**",
];
const REGISTRIES: [&str; 2] = ["docker.io", "ghcr.io"];
const MOUNTS: [&str; 3] = ["volume", "tmpfs", "workspace"];
const NAMES: [&str; 3] = ["one", "two", "three"];
const SOURCES: [&str; 4] = ["env", "op", "op://A", "keyring"];
const VARIABLES: [&str; 2] = ["LANG", "TERM"];
const TREES: [&str; 5] = ["/srv", "/srv/a", "/srv/a/b", "/etc/x", "**/build"];
const PROGRAMS: [&str; 4] = ["git", "/usr/bin/git", "npm", "/opt/x"];
const LEVELS: [&str; 3] = ["off", "flag", "block"];

/// Some of these, in any order, each once; none at all now and then.
fn some(random: &mut Random, from: &[&str]) -> Value {
    let mut list: Vec<&str> = from
        .iter()
        .copied()
        .filter(|_| random.below(3) > 0)
        .collect();
    if random.below(2) == 0 {
        list.reverse();
    }
    json!(list)
}

fn domains(random: &mut Random, likely: usize) -> Value {
    let mut out = std::collections::BTreeSet::new();
    for pattern in PATTERNS {
        if random.below(10) < likely {
            out.insert(match random.below(3) {
                0 => format!("{pattern}:{}", random.pick(&PORTS)),
                _ => pattern.to_owned(),
            });
        }
    }
    json!(out)
}

/// A document that says something about about one key in `rare`.
pub(crate) fn document(random: &mut Random, file: &str, rare: usize) -> Organisation {
    let mut text = json!({
        "version": 1, "organisation": file, "serial": 1 + random.next() % 100, "notAfter": "2030-01-01T00:00:00Z",
        "ceilings": { "network": {} }, "requirements": {}, "denials": {},
    });
    let says = |random: &mut Random| random.below(rare) == 0;
    let mut put = |random: &mut Random, pointer: &str, value: Value| {
        if says(random) {
            let mut at = &mut text;
            for key in pointer.split('/') {
                at = &mut at[key];
            }
            *at = value;
        }
    };
    let value = domains(random, 6);
    put(random, "ceilings/network/allowedDomains", value);
    let ports: Vec<u16> = PORTS.into_iter().filter(|_| random.below(4) > 0).collect();
    put(random, "ceilings/network/ports", json!(ports));
    let value = some(random, &PROTOCOLS);
    put(random, "ceilings/network/protocols", value);
    let value = some(random, &NETWORKS);
    put(random, "ceilings/network/networks", value);
    let value = json!(random.pick(&["deny", "ask"]));
    put(random, "ceilings/network/unlisted", value);
    let value = json!(random.pick(&["deny", "prompt"]));
    put(random, "ceilings/escalation", value);
    let value = some(random, &IMAGES);
    put(random, "ceilings/images", value);
    let value = some(random, &MOUNTS);
    put(random, "ceilings/mounts", value);
    let value = some(random, &VARIABLES);
    put(random, "ceilings/hostVariables", value);
    let value = some(random, &["docker", "podman"]);
    put(random, "ceilings/engines", value);
    let value = some(random, &SOURCES);
    put(random, "ceilings/secretSources", value);
    let mut credentials = json!({});
    for name in NAMES {
        if random.below(4) > 0 {
            credentials[name] = json!({});
            if random.below(2) == 0 {
                credentials[name]["sources"] = some(random, &SOURCES);
            }
            if random.below(2) == 0 {
                credentials[name]["hosts"] =
                    some(random, &["a.example", "*.a.example", "b.example"]);
            }
        }
    }
    put(random, "ceilings/credentials", credentials);
    let value = json!({ "memory": random.pick(&["1g", "4g"]), "cpus": 1 + random.below(3), "pids": random.pick(&[100, 500]) });
    put(random, "ceilings/resources", value);
    let value = json!({ "secrets": random.pick(&LEVELS), "entropy": random.pick(&LEVELS) });
    put(random, "ceilings/inspection", value);
    let value = some(random, &REGISTRIES);
    put(random, "requirements/registries", value);
    let value = json!(1 + random.below(4));
    put(random, "requirements/slsaLevel", value);
    let value = json!(random.pick(&["1d", "10d", "4w"]));
    put(random, "requirements/lockAge", value);
    let value =
        json!({ "ask": random.pick(&["low", "high"]), "refuse": random.pick(&["medium", "high"]) });
    put(random, "requirements/drift", value);
    let value = json!(random.below(2) == 0);
    put(random, "requirements/sbom", value);
    let value = domains(random, 1);
    put(random, "denials/domains", value);
    let value = some(random, &["10.1.1.0/24", "192.168.0.0/16:22"]);
    put(random, "denials/networks", value);
    let value = some(random, &["two"]);
    put(random, "denials/credentials", value);
    let value = some(random, &["op://A"]);
    put(random, "denials/secretSources", value);
    let value = some(random, &["docker.io/library/bad"]);
    put(random, "denials/images", value);
    let value = some(random, &TREES);
    put(random, "denials/paths", value);
    let value = some(random, &PROGRAMS);
    put(random, "denials/binaries", value);
    let mut filesystem = json!({});
    for key in ["readOnlyPaths", "writablePaths"] {
        if random.below(2) == 0 {
            filesystem[key] = some(random, &TREES);
        }
    }
    put(random, "ceilings/filesystem", filesystem);
    let value = json!({ "allowedBinaries": some(random, &PROGRAMS) });
    put(random, "ceilings/tools", value);
    schema::organisation::parse(text.to_string().as_bytes(), file)
        .unwrap_or_else(|found| panic!("{text} {found:#?}"))
}

/// What one document says, read straight.
pub(crate) struct Read<'a>(pub &'a Organisation);

impl Read<'_> {
    pub fn name(&self, host: &HostName, port: u16, protocol: Protocol) -> bool {
        let (network, denials) = (&self.0.ceilings.network, &self.0.denials);
        let is =
            |domain: &Domain| domain.host.matches(host) && domain.port.is_none_or(|p| p == port);
        !denials.domains.iter().any(|domain| is(domain))
            && network
                .allowed_domains
                .as_ref()
                .is_none_or(|list| list.iter().any(|domain| is(domain)))
            && network
                .ports
                .as_ref()
                .is_none_or(|list| list.iter().any(|own| own.value == port))
            && network
                .protocols
                .as_ref()
                .is_none_or(|list| list.iter().any(|own| own.value == protocol))
    }

    pub fn address(&self, address: [u8; 4], port: u16) -> bool {
        let (network, denials) = (&self.0.ceilings.network, &self.0.denials);
        let is = |bound: &schema::organisation::values::NetworkBound| {
            bound.cidr.contains(address.into()) && bound.port.is_none_or(|p| p == port)
        };
        !denials.networks.iter().any(|bound| is(bound))
            && network
                .networks
                .as_ref()
                .is_none_or(|list| list.iter().any(|bound| is(bound)))
            && network
                .ports
                .as_ref()
                .is_none_or(|list| list.iter().any(|own| own.value == port))
            && network
                .protocols
                .as_ref()
                .is_none_or(|list| list.iter().any(|own| own.value == Protocol::Tcp))
    }
}

use schema::config::agent::Domain;

fn decided(policy: &Compiled, host: &HostName, port: u16) -> Option<(Protocol, bool)> {
    match policy.decide(host, port, Transport::Tcp) {
        Decision::Allow(grant) => Some((grant.protocol, false)),
        Decision::Ask(grant) => Some((grant.protocol, true)),
        Decision::Deny(_) => None,
    }
}

fn reached(policy: &Compiled, address: [u8; 4], port: u16) -> bool {
    policy
        .decide_address(address.into(), port, Transport::Tcp)
        .is_allow()
}

#[test]
fn the_result_never_allows_what_either_side_denies_and_denies_nothing_else() {
    let (mut allowed, mut taken, mut led) = (0, 0, 0);
    for seed in 1..500 {
        let random = &mut Random(seed);
        let network = Network::new([random_layer(random)]).unwrap();
        // Names may lead to private addresses here, so that only denials stand in their way.
        let gateway = Gateway {
            private_networks: ["10.0.0.0/8", "192.168.0.0/16"]
                .map(|network| network.parse().unwrap())
                .to_vec(),
            ..Gateway::default()
        };
        let base = EffectivePolicy::new(network, gateway).unwrap();
        let documents = [document(random, "f", 2), document(random, "g", 3)];
        let held = base
            .clone()
            .under(documents.iter().map(Ceiling::of))
            .unwrap();
        let (base, held) = (base.compile(), held.compile());
        for host in HOSTS {
            let host: HostName = host.parse().unwrap();
            for port in PORTS {
                let before = decided(&base, &host, port);
                let after = decided(&held, &host, port);
                let all = |protocol| {
                    documents
                        .iter()
                        .all(|d| Read(d).name(&host, port, protocol))
                };
                let expected = before.filter(|(protocol, _)| all(*protocol));
                assert_eq!(after, expected, "seed {seed}, {host}:{port}");
                let listed = held.ports(&host).contains(&(port, Transport::Tcp));
                assert!(!listed || after.is_some(), "seed {seed}, {host}:{port}");
                allowed += u32::from(after.is_some());
                taken += u32::from(before.is_some() && after.is_none());
            }
        }
        let denials = documents.iter().any(|d| !d.denials.networks.is_empty());
        for address in ADDRESSES {
            for port in PORTS {
                let (before, after) =
                    (reached(&base, address, port), reached(&held, address, port));
                let all = documents.iter().all(|d| Read(d).address(address, port));
                assert!(!after || (before && all), "seed {seed}, {address:?}:{port}");
                // Of a network of which a part is denied nothing is left.
                assert!(
                    after || denials || !(before && all),
                    "seed {seed}, {address:?}:{port}"
                );
                let name = "a.example".parse().unwrap();
                let leads = |policy: &Compiled| {
                    policy.address_allowed(&name, std::net::IpAddr::from(address), port)
                };
                let denied = |document: &Organisation| {
                    let mut networks = document.denials.networks.iter();
                    networks.any(|n| {
                        n.cidr.contains(address.into()) && n.port.is_none_or(|p| p == port)
                    })
                };
                let expected = match documents.iter().any(denied) {
                    true => Err(Class::Denied),
                    false => leads(&base),
                };
                assert_eq!(leads(&held), expected, "seed {seed}, {address:?}:{port}");
                led += u32::from(leads(&base).is_ok() && expected.is_err());
            }
        }
    }
    assert!(led > 100, "no name leads into a denied network: {led}");
    assert!(
        allowed > 1000 && taken > 1000,
        "the generator is one-sided: {allowed} {taken}"
    );
}

#[test]
fn order_of_policies_does_not_matter_and_twice_is_once() {
    for seed in 1..200 {
        let random = &mut Random(seed);
        let network = Network::new([random_layer(random)]).unwrap();
        let base = EffectivePolicy::new(network, Gateway::default()).unwrap();
        let [a, b, c] = ["f", "g", "h"].map(|file| Ceiling::of(&document(random, file, 2)));
        let under = |ceilings: &[&Ceiling]| {
            base.clone()
                .under(ceilings.iter().copied().cloned())
                .unwrap()
        };
        let all = under(&[&a, &b, &c]);
        assert_eq!(under(&[&c, &a, &b]), all, "seed {seed}");
        assert_eq!(
            under(&[&b, &a]).under([c.clone()]).unwrap(),
            all,
            "seed {seed}"
        );
        assert_eq!(under(&[&a, &b, &c, &b, &a]), all, "seed {seed}");
        assert_eq!(all.clone().under([a]).unwrap(), all, "seed {seed}");
        assert_eq!(
            EffectivePolicy::from_json(&all.to_json()).unwrap(),
            all,
            "seed {seed}"
        );
    }
}

#[test]
fn where_nobody_is_asked_what_would_be_asked_about_is_denied_and_nothing_else_changes() {
    let mut asked = 0;
    for seed in 1..300 {
        let network = Network::new([random_layer(&mut Random(seed))]).unwrap();
        let base = EffectivePolicy::new(network, Gateway::default()).unwrap();
        let nobody = super::origin("f", Position { line: 1, column: 1 });
        let unasked = base.clone().with_nobody_asked(Some(nobody)).compile();
        let base = base.compile();
        for host in HOSTS {
            let host: HostName = host.parse().unwrap();
            for port in PORTS {
                let before = decided(&base, &host, port);
                assert_eq!(
                    decided(&unasked, &host, port),
                    before.filter(|(_, asks)| !asks),
                    "seed {seed}"
                );
                if let Decision::Deny(denial) = unasked.decide(&host, port, Transport::Tcp)
                    && before.is_some()
                {
                    assert_eq!(
                        (denial.reason, denial.rule.unwrap().name),
                        (DenyReason::NotAsked, text::UNASKED)
                    );
                    asked += 1;
                }
                let rules = unasked.requests(&host, port).unwrap_or_default();
                assert!(
                    rules
                        .decide("GET", "/", None)
                        .is_ok_and(|permit| permit.ask.is_none())
                        || rules.decide("GET", "/", None).is_err()
                );
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

fn host_config() -> HostConfig {
    let text = r#"
engine = "docker"
[inspection]
entropy = "flag"
[credentials.one]
source = "env://X"
hosts = ["a.example", "*.a.example"]
[credentials.two]
source = "op://A/x/y"
hosts = ["b.example"]
[credentials.three]
source = "keyring://x/y"
hosts = ["a.example"]
"#;
    schema::hostconfig::parse(text.as_bytes(), "config.toml").unwrap()
}

fn config(random: &mut Random) -> Config {
    let rules: Vec<Value> = (0..random.below(3))
        .map(|_| {
            json!({ "host": random.pick(&PATTERNS), "ports": [random.pick(&PORTS)],
                "protocol": random.pick(&["https", "tls"]), "action": random.pick(&["allow", "ask", "deny"]) })
        })
        .collect();
    let mut allowed: Vec<Value> = domains(random, 2).as_array().unwrap().clone();
    allowed.push(json!("a.example"));
    let networks = some(random, &["10.1.1.1:22", "10.1.0.0/16:443"]);
    let networks = match random.below(3) {
        0 => networks,
        _ => json!([]),
    };
    let mut text = json!({
        "image": random.pick(&["debian", "ghcr.io/acme/agent", "docker.io/library/bad"]),
        "agent": { "capabilities": { "network": { "egress": {
            "allowedDomains": allowed, "deniedDomains": domains(random, 1), "rules": rules, "networks": networks,
            "unlisted": random.pick(&["deny", "ask"]) } } },
            "policy": { "escalation": random.pick(&["prompt", "prompt", "deny"]) },
            "inspection": { "secrets": random.pick(&LEVELS) } },
    });
    if random.below(3) == 0 {
        text["mounts"] = json!([random.pick(&[
            "type=volume,source=v,target=/v",
            "type=tmpfs,target=/v",
            "type=bind,source=${localWorkspaceFolder}/x,target=/v,readonly"
        ])]);
    }
    if random.below(3) == 0 {
        text["containerEnv"] =
            json!({ "X": random.pick(&["${localEnv:LANG}", "${localEnv:TERM}", "y"]) });
    }
    if random.below(2) == 0 {
        text["agent"]["capabilities"]["resources"] =
            json!({ "memory": random.pick(&["512m", "2g"]), "pids": random.pick(&[50, 300]) });
    }
    if random.below(2) == 0 {
        text["agent"]["credentials"] = json!({ random.pick(&NAMES): {} });
    }
    if random.below(3) == 0 {
        text["agent"]["capabilities"]["filesystem"] =
            json!({ "deniedPaths": ["/srv/own"], "writablePaths": some(random, &TREES) });
    }
    if random.below(3) == 0 {
        let allowed = match some(random, &PROGRAMS) {
            list if list == json!([]) => json!(["git"]),
            list => list,
        };
        text["agent"]["capabilities"]["tools"] =
            json!({ "deniedBinaries": ["su"], "allowedBinaries": allowed });
    }
    if random.below(3) == 0 {
        text["agent"]["provenance"] = json!({ "require": { "sbom": true, "slsaLevel": 1 + random.below(4), "signatures": true } });
    }
    schema::config::parse(text.to_string().as_bytes(), "agentcontainer.json").unwrap()
}

/// What holds of a result under one document, read straight.
#[track_caller]
fn within(config: &Config, held: &Held, document: &Organisation, seed: u64) {
    let (ceilings, denials, requirements) = (
        &document.ceilings,
        &document.denials,
        &document.requirements,
    );
    let compiled = held.policy.compile();
    for host in HOSTS {
        let host: HostName = host.parse().unwrap();
        for port in PORTS {
            let Some((protocol, asks)) = decided(&compiled, &host, port) else {
                continue;
            };
            assert!(
                Read(document).name(&host, port, protocol),
                "seed {seed}, {host}:{port}"
            );
            let said = |mode: &Option<Spanned<Escalation>>| {
                mode.as_ref().is_some_and(|m| m.value == Escalation::Deny)
            };
            assert!(
                !asks || !said(&ceilings.escalation),
                "seed {seed}, {host}:{port}"
            );
            let decision = compiled.decide(&host, port, Transport::Tcp);
            let unlisted =
                matches!(&decision, Decision::Ask(grant) if grant.rule.name == text::UNLISTED);
            let listed_only = ceilings
                .network
                .unlisted
                .as_ref()
                .is_some_and(|m| m.value == Unlisted::Deny);
            assert!(!unlisted || !listed_only, "seed {seed}, {host}:{port}");
        }
    }
    for address in ADDRESSES {
        for port in PORTS {
            assert!(
                !reached(&compiled, address, port) || Read(document).address(address, port),
                "seed {seed}"
            );
        }
    }
    let image = &config.image.value;
    assert!(
        ceilings
            .images
            .as_ref()
            .is_none_or(|list| list.iter().any(|p| p.matches(image))),
        "seed {seed}"
    );
    assert!(
        requirements
            .registries
            .as_ref()
            .is_none_or(|list| list.iter().any(|r| r.as_str() == image.registry())),
        "seed {seed}"
    );
    assert!(
        !denials.images.iter().any(|p| p.matches(image)),
        "seed {seed}"
    );
    for mount in &config.mounts {
        let kind = mount.to_string();
        let kind = if kind.contains("type=bind") {
            "workspace"
        } else if kind.contains("tmpfs") {
            "tmpfs"
        } else {
            "volume"
        };
        assert!(
            ceilings
                .mounts
                .as_ref()
                .is_none_or(|list| list.iter().any(|m| m.value.to_string() == kind)),
            "seed {seed}"
        );
    }
    for variable in config.container_env.values().flat_map(|v| v.local_env()) {
        assert!(
            ceilings
                .host_variables
                .as_ref()
                .is_none_or(|list| list.iter().any(|v| v.as_str() == variable)),
            "seed {seed}"
        );
    }
    assert!(
        ceilings
            .engines
            .as_ref()
            .is_none_or(|list| list.iter().any(|e| e.value == EngineKind::Docker)),
        "seed {seed}"
    );
    let host = host_config();
    for credential in &held.policy.credentials {
        let source = &host.credentials[credential.name.as_str()].value.source;
        let from = |list: &Option<
            schema::organisation::List<schema::organisation::values::SourcePattern>,
        >| {
            list.as_ref()
                .is_none_or(|list| list.iter().any(|s| s.matches(source)))
        };
        assert!(
            !denials
                .credentials
                .iter()
                .any(|n| n.as_str() == credential.name),
            "seed {seed}"
        );
        assert!(
            !denials.secret_sources.iter().any(|s| s.matches(source)),
            "seed {seed}"
        );
        assert!(from(&ceilings.secret_sources), "seed {seed}");
        if let Some(all) = &ceilings.credentials {
            let own = all
                .get(credential.name.as_str())
                .unwrap_or_else(|| panic!("seed {seed}"));
            assert!(from(&own.sources), "seed {seed}");
            for name in HOSTS.map(|host| host.parse::<HostName>().unwrap()) {
                let fits = credential.fits(&name, 443);
                let allowed = own
                    .hosts
                    .as_ref()
                    .is_none_or(|list| list.iter().any(|h| h.host.matches(&name)));
                assert!(!fits || allowed, "seed {seed}, {name}");
            }
        }
    }
    files::files_and_programs_within(config, held, document, seed);
    let most = &ceilings.resources;
    fn at_most<T: PartialOrd>(own: &Option<Said<T>>, most: &Option<Spanned<T>>) -> bool {
        most.as_ref()
            .is_none_or(|most| own.as_ref().is_some_and(|own| own.value <= most.value))
    }
    let own = &held.limits;
    assert!(
        at_most(&own.memory, &most.memory)
            && at_most(&own.cpus, &most.cpus)
            && at_most(&own.pids, &most.pids),
        "seed {seed}"
    );
    for inspector in Inspector::ALL {
        let level = held.policy.inspection.level(inspector);
        assert!(
            ceilings
                .inspection
                .of(inspector)
                .is_none_or(|least| level >= least.value),
            "seed {seed}"
        );
    }
    let own = &held.requirements;
    fn least<T: PartialOrd + Copy>(own: &Option<Said<T>>, asked: Option<T>) -> bool {
        asked.is_none_or(|asked| own.as_ref().is_some_and(|own| own.value <= asked))
    }
    assert!(
        requirements.slsa_level.as_ref().is_none_or(|level| own
            .slsa_level
            .as_ref()
            .is_some_and(|own| own.value >= level.value)),
        "seed {seed}"
    );
    assert!(
        least(
            &own.lock_age,
            requirements.lock_age.as_ref().map(|v| v.value)
        ),
        "seed {seed}"
    );
    assert!(
        least(
            &own.drift_ask,
            requirements.drift.ask.as_ref().map(|v| v.value)
        ),
        "seed {seed}"
    );
    assert!(
        least(
            &own.drift_refuse,
            requirements.drift.refuse.as_ref().map(|v| v.value)
        ),
        "seed {seed}"
    );
    assert!(
        !requirements.sbom.as_ref().is_some_and(|v| v.value) || own.sbom.is_some(),
        "seed {seed}"
    );
    if let Some(list) = &requirements.registries {
        let names: Vec<_> = list.iter().map(|name| name.value.clone()).collect();
        assert!(
            own.registries.iter().any(|said| said.value == names),
            "seed {seed}"
        );
    }
}

/// What was asked for by a whole name and port is there, or the start says that it is not.
fn not_narrowed(config: &Config, host: &HostConfig, held: &Held, seed: u64) {
    let base = merge::effective(config, host).map(|policy| policy.compile());
    let (Ok(base), held_policy) = (base, held.policy.compile()) else {
        return;
    };
    let egress = config.agent.egress();
    let listed = egress
        .allowed_domains
        .iter()
        .filter_map(|d| Some((&d.host, d.port?)));
    let rules = egress
        .rules
        .iter()
        .flat_map(|r| r.ports.iter().map(|port| (&r.host, *port)));
    for (host, port) in listed.chain(rules) {
        let schema::host::HostPattern::Exact(name) = host else {
            continue;
        };
        let before = decided(&base, name, port);
        if let Decision::Deny(denial) = held_policy.decide(name, port, Transport::Tcp)
            && before.is_some()
        {
            assert_eq!(
                denial.reason,
                DenyReason::NotAsked,
                "seed {seed}, {name}:{port}"
            );
            assert!(
                !held.remarks.is_empty() || config.agent.policy.escalation.is_some(),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn what_is_held_is_within_every_document_field_by_field() {
    let host = host_config();
    let (mut held_well, mut refused) = (0, 0);
    for seed in 1..500 {
        let random = &mut Random(seed);
        let config = config(random);
        let documents = [document(random, "f", 6), document(random, "g", 12)];
        match hold(&config, &host, &documents) {
            Ok(held) => {
                held_well += 1;
                documents
                    .iter()
                    .for_each(|document| within(&config, &held, document, seed));
                not_narrowed(&config, &host, &held, seed);
                let own = merge::effective(&config, &host).unwrap().compile();
                let compiled = held.policy.compile();
                for name in HOSTS.map(|host| host.parse::<HostName>().unwrap()) {
                    for port in PORTS {
                        assert!(
                            decided(&compiled, &name, port).is_none()
                                || decided(&own, &name, port).is_some(),
                            "seed {seed}"
                        );
                    }
                }
            }
            Err(found) => {
                refused += 1;
                assert!(
                    !found.is_empty() && found.iter().all(|d| d.place.is_some()),
                    "seed {seed}: {found:#?}"
                );
            }
        }
    }
    assert!(
        held_well > 50 && refused > 50,
        "the generator is one-sided: {held_well} {refused}"
    );
}

#[test]
fn what_is_held_does_not_depend_on_order_nor_on_saying_it_twice() {
    let host = host_config();
    let shown = |held: Result<Held, Vec<Diagnostic>>| {
        held.map(|h| (h.policy, h.requirements, h.limits, h.remarks))
    };
    for seed in 1..250 {
        let random = &mut Random(seed);
        let config = config(random);
        let [a, b] = [document(random, "f", 6), document(random, "g", 6)];
        let one = shown(hold(&config, &host, &[a.clone(), b.clone()]));
        assert_eq!(
            shown(hold(&config, &host, &[b.clone(), a.clone()])),
            one,
            "seed {seed}"
        );
        assert_eq!(
            shown(hold(&config, &host, &[a.clone(), b.clone(), a.clone()])),
            one,
            "seed {seed}"
        );
        // More documents never let anything through that fewer do not.
        if one.is_ok() {
            assert!(
                hold(&config, &host, &[a]).is_ok() && hold(&config, &host, &[b]).is_ok(),
                "seed {seed}"
            );
        }
    }
}

#[test]
fn without_a_document_nothing_changes() {
    let host = host_config();
    for seed in 1..200 {
        let config = config(&mut Random(seed));
        let (own, held) = (merge::effective(&config, &host), hold(&config, &host, &[]));
        assert_eq!(held.map(|held| held.policy), own, "seed {seed}");
    }
}
