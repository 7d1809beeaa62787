#![allow(clippy::unwrap_used)]
mod files;

use super::*;

/// Of a kernel that carries nothing.
const NEITHER: crate::Layers<'_> = crate::Layers {
    lsm: Err("no BPF LSM"),
    starts: Err("no BTF"),
};

fn config(agent: &str) -> Config {
    config_with(agent, "")
}

fn config_with(agent: &str, rest: &str) -> Config {
    let text =
        format!("{{ \"image\": \"ghcr.io/acme/agent:1\"{rest},\n\"agent\": {{\n{agent}\n}} }}");
    schema::config::parse(text.as_bytes(), "agentcontainer.json")
        .unwrap_or_else(|found| panic!("{text} {found:#?}"))
}

fn egress(egress: &str) -> Config {
    config(&format!(
        r#""capabilities": {{ "network": {{ "egress": {{ {egress} }} }} }}"#
    ))
}

fn document(rest: &str) -> Organisation {
    let text = format!(
        "{{ \"version\": 1, \"organisation\": \"acme\", \"serial\": 1, \"notAfter\": \"2030-01-01T00:00:00Z\",\n{rest} }}"
    );
    schema::organisation::parse(text.as_bytes(), "policy.json")
        .unwrap_or_else(|found| panic!("{text} {found:#?}"))
}

fn ceilings(ceilings: &str) -> Organisation {
    document(&format!("\"ceilings\": {{ {ceilings} }}"))
}

fn host() -> HostConfig {
    let text = "[credentials.github]\nsource = \"env://GITHUB_TOKEN\"\nhosts = [\"api.github.com\"]\n[secrets.NPM_TOKEN]\nsource = \"env://NPM_TOKEN\"\n";
    let mut host = schema::hostconfig::parse(text.as_bytes(), "config.toml").unwrap();
    host.remote = schema::remote::Remote::parse("github.com:acme/widget");
    host
}

fn problems(config: &Config, document: &Organisation) -> Vec<String> {
    let held = hold(config, &host(), std::slice::from_ref(document));
    held.err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

/// The only problem there is.
#[track_caller]
fn problem(config: &Config, document: &Organisation) -> String {
    let found = problems(config, document);
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[track_caller]
fn held(config: &Config, document: &Organisation) -> Held {
    hold(config, &host(), std::slice::from_ref(document)).unwrap()
}

#[test]
fn a_rule_beyond_a_ceiling_names_both_places_and_what_remains() {
    let network = ceilings(
        r#""network": { "allowedDomains": ["api.example.com", "*.cdn.example.com:443", "example.org"] }"#,
    );
    assert_eq!(
        problem(&egress(r#""allowedDomains": ["*.example.com"]"#), &network),
        "agentcontainer.json:3:63: allowedDomains \"*.example.com\" is beyond ceilings.network.allowedDomains of the policy of acme at policy.json:2:46 [beyond-ceiling]\n  help: within it are api.example.com, *.cdn.example.com:443: ask for what you need of these"
    );
    let said = problem(
        &egress(r#""rules": [{ "host": "evil.example", "ports": [443] }]"#),
        &network,
    );
    assert!(said.starts_with("agentcontainer.json:3:54: rules \"evil.example\" ports 443, at port 443, https, is beyond"), "{said}");
    assert!(
        said.ends_with("help: take it out, or ask whoever keeps the policy of acme"),
        "{said}"
    );
    // A denial of the workspace's own is never beyond anything.
    let denies = r#""deniedDomains": ["evil.example"], "rules": [{ "host": "evil.example", "ports": [443], "action": "deny" }]"#;
    assert!(problems(&egress(denies), &network).is_empty());
    assert!(problems(&egress(r#""allowedDomains": ["api.example.com", "x.cdn.example.com:443", "example.org:5432"]"#), &network).is_empty());
    assert!(
        !problems(
            &egress(r#""allowedDomains": ["x.cdn.example.com:8443"]"#),
            &network
        )
        .is_empty()
    );
    let nothing = ceilings(r#""network": { "allowedDomains": [] }"#);
    assert!(
        problem(
            &egress(r#""allowedDomains": ["api.example.com"]"#),
            &nothing
        )
        .contains("beyond-ceiling")
    );
    assert!(problems(&egress(""), &nothing).is_empty());
}

#[test]
fn ports_protocols_and_networks_have_ceilings() {
    let ports = ceilings(r#""network": { "ports": [443] }"#);
    let said = problem(
        &egress(r#""rules": [{ "host": "a.example", "ports": [443, 8443] }]"#),
        &ports,
    );
    assert!(
        said.contains("at port 8443, tcp, is beyond ceilings.network.ports"),
        "{said}"
    );
    assert!(
        problem(&egress(r#""networks": ["10.0.0.1:22"]"#), &ports)
            .contains("ceilings.network.ports")
    );
    let protocols = ceilings(r#""network": { "protocols": ["https"] }"#);
    let said = problem(
        &egress(r#""rules": [{ "host": "a.example", "ports": [443], "protocol": "tls" }]"#),
        &protocols,
    );
    assert!(
        said.contains("tls, is beyond ceilings.network.protocols"),
        "{said}"
    );
    assert!(
        problem(&egress(r#""networks": ["10.0.0.1:443"]"#), &protocols)
            .contains("ceilings.network.protocols")
    );
    let networks = ceilings(r#""network": { "networks": ["10.1.0.0/16", "10.2.0.0/16:22"] }"#);
    for beyond in ["10.0.0.0/8:22", "10.2.0.1:23", "192.168.0.1:22"] {
        let said = problem(&egress(&format!(r#""networks": ["{beyond}"]"#)), &networks);
        assert!(said.contains("ceilings.network.networks"), "{said}");
    }
    assert!(
        problems(
            &egress(r#""networks": ["10.1.2.0/24:5432", "10.2.0.1:22"]"#),
            &networks
        )
        .is_empty()
    );
}

#[test]
fn of_a_name_without_a_port_what_is_left_is_said() {
    let ports = ceilings(r#""network": { "ports": [443] }"#);
    let held = held(&egress(r#""allowedDomains": ["a.example"]"#), &ports);
    assert_eq!(
        held.remarks,
        [
            "of allowedDomains \"a.example\" at agentcontainer.json:3:63 port 443 alone is left: ceilings.network.ports of the policy of acme at policy.json:2:37"
        ]
    );
    let name = "a.example".parse().unwrap();
    assert_eq!(
        held.policy.compile().ports(&name),
        [(443, schema::net::Transport::Tcp)]
    );
}

#[test]
fn a_denial_of_an_organisation_wins_over_everything() {
    let denies = document(
        r#""denials": { "domains": ["gist.github.com", "*.bad.example:443"], "networks": ["10.1.0.0/16"] }"#,
    );
    let said = problem(&egress(r#""allowedDomains": ["gist.github.com"]"#), &denies);
    assert!(said.contains("is denied by denials.domains \"gist.github.com\" of the policy of acme at policy.json:2:26 [organisation-denies]"), "{said}");
    assert!(
        problem(&egress(r#""networks": ["10.1.2.3:22"]"#), &denies).contains("organisation-denies")
    );
    assert!(
        problem(&egress(r#""networks": ["10.0.0.0/8:22"]"#), &denies)
            .contains("organisation-denies")
    );
    // Of a pattern the rest is left.
    let held = held(
        &egress(
            r#""allowedDomains": ["*.github.com"], "rules": [{ "host": "gist.github.com", "ports": [8443] }]"#,
        ),
        &document(r#""denials": { "domains": ["gist.github.com:443"] }"#),
    );
    let compiled = held.policy.compile();
    let decide = |name: &str, port| {
        compiled
            .decide(&name.parse().unwrap(), port, schema::net::Transport::Tcp)
            .is_deny()
    };
    assert!(decide("gist.github.com", 443));
    assert!(!decide("gist.github.com", 8443) && !decide("api.github.com", 443));
    let explained = crate::explain(
        &compiled,
        &"gist.github.com:443".parse().unwrap(),
        "agentcontainer.json",
    )
    .to_string();
    assert!(explained.contains("policy.json:2:26"), "{explained}");
}

#[test]
fn of_modes_the_stricter_holds_and_is_said() {
    let asks = r#""capabilities": { "network": { "egress": { "unlisted": "ask", "rules": [{ "host": "a.example", "ports": [443], "action": "ask" }] } } },
        "inspection": { "secrets": "off" }"#;
    let strict = ceilings(
        r#""network": { "unlisted": "deny" }, "escalation": "deny", "inspection": { "secrets": "block" }"#,
    );
    let result = held(&config(asks), &strict);
    assert_eq!(result.remarks.len(), 3, "{:#?}", result.remarks);
    assert!(
        result
            .remarks
            .iter()
            .all(|remark| remark.contains("agentcontainer.json:")
                && remark.contains("policy.json:2:"))
    );
    assert!(result.policy.network.layers()[0].ask_unlisted.is_none());
    assert_eq!(result.policy.unasked.unwrap().file, "policy.json");
    let secrets = schema::inspection::Inspector::Secrets;
    assert_eq!(
        result.policy.inspection.level(secrets),
        schema::inspection::Level::Block
    );
    let open = ceilings(
        r#""network": { "unlisted": "ask" }, "escalation": "prompt", "inspection": { "secrets": "off" }"#,
    );
    let result = held(&config(asks), &open);
    assert!(result.remarks.is_empty() && result.policy.unasked.is_none());
    assert!(result.policy.network.layers()[0].ask_unlisted.is_some());
    // A workspace may be stricter than anybody asks for.
    let own = held(&config(r#""policy": { "escalation": "deny" }"#), &open);
    assert_eq!(own.policy.unasked.unwrap().file, "agentcontainer.json");
}

#[test]
fn an_answer_to_a_question_does_not_reach_beyond_a_ceiling() {
    let asks = egress(r#""unlisted": "ask""#);
    let held = held(
        &asks,
        &ceilings(r#""network": { "allowedDomains": ["*.acme.example"] }"#),
    );
    let compiled = held.policy.compile();
    let decide =
        |name: &str| compiled.decide(&name.parse().unwrap(), 443, schema::net::Transport::Tcp);
    assert!(matches!(decide("x.acme.example"), crate::Decision::Ask(_)));
    assert!(
        matches!(decide("evil.example"), crate::Decision::Deny(denial) if denial.reason == crate::DenyReason::BeyondCeiling)
    );
}

#[test]
fn credentials_are_held_by_name_host_source_and_denial() {
    let asks = config(
        r#""credentials": { "github": { "env": "GITHUB_TOKEN" } }, "capabilities": { "network": { "egress": { "allowedDomains": ["api.github.com"] } } }"#,
    );
    let fits = r#""credentials": { "github": { "hosts": ["*.github.com"], "sources": ["env"] } }, "secretSources": ["env"]"#;
    assert!(problems(&asks, &ceilings(fits)).is_empty());
    for (ceiling, words) in [
        (
            r#""credentials": {}"#,
            "`ceilings.credentials` at policy.json:2:30 allows nothing",
        ),
        (r#""credentials": { "npm": {} }"#, "allows npm"),
        (
            r#""credentials": { "github": { "hosts": ["github.com"] } }"#,
            "credential github for api.github.com:443 is beyond",
        ),
        (
            r#""credentials": { "github": { "hosts": ["api.github.com:8443"] } }"#,
            "credential github for api.github.com:443 is beyond",
        ),
        (
            r#""credentials": { "github": { "sources": ["op"] } }"#,
            "credential github from env, as config.toml:1:1 grants it, is beyond",
        ),
        (
            r#""secretSources": ["op", "vault"]"#,
            "`ceilings.secretSources` at policy.json:2:32 allows op, vault",
        ),
    ] {
        let said = problem(&asks, &ceilings(ceiling));
        assert!(said.contains(words), "{said}");
        assert!(!said.contains("GITHUB_TOKEN"), "{said}");
    }
    for denial in [
        r#""credentials": ["github"]"#,
        r#""secretSources": ["env"]"#,
    ] {
        let said = problem(&asks, &document(&format!("\"denials\": {{ {denial} }}")));
        assert!(said.contains("organisation-denies"), "{said}");
    }
    // Where its traffic is denied, a credential goes nowhere, and that is an error too.
    let denied = document(r#""denials": { "domains": ["api.github.com"] }"#);
    assert!(!problems(&asks, &denied).is_empty());
}

#[test]
fn secrets_are_held_by_name_source_and_denial_and_none_has_hosts() {
    let asks = config(r#""secrets": { "NPM_TOKEN": {} }"#);
    for fits in [
        r#""secretSources": ["env"]"#,
        r#""credentials": { "NPM_TOKEN": { "sources": ["env"] } }"#,
    ] {
        assert!(problems(&asks, &ceilings(fits)).is_empty());
    }
    for (ceiling, words) in [
        (r#""credentials": {}"#, "secret NPM_TOKEN is beyond"),
        (
            r#""credentials": { "NPM_TOKEN": { "hosts": ["a.example"] } }"#,
            "secret NPM_TOKEN is beyond the policy of acme: `ceilings.credentials.NPM_TOKEN.hosts`",
        ),
        (
            r#""credentials": { "NPM_TOKEN": { "sources": ["op"] } }"#,
            "secret NPM_TOKEN from env, as config.toml:4:1 grants it, is beyond",
        ),
        (
            r#""secretSources": ["op", "vault"]"#,
            "`ceilings.secretSources` at policy.json:2:32 allows op, vault",
        ),
    ] {
        let said = problem(&asks, &ceilings(ceiling));
        assert!(said.contains(words), "{said}");
    }
    for denial in [
        r#""credentials": ["NPM_TOKEN"]"#,
        r#""secretSources": ["env"]"#,
    ] {
        let said = problem(&asks, &document(&format!("\"denials\": {{ {denial} }}")));
        assert!(said.contains("organisation-denies"), "{said}");
    }
}

#[test]
fn images_mounts_variables_engines_and_limits_are_held() {
    let plain = config("");
    for (ceiling, words) in [
        (
            r#""images": ["ghcr.io/other/**"]"#,
            "ghcr.io/acme/agent:1 is beyond the policy of acme: `ceilings.images`",
        ),
        (r#""images": []"#, "allows nothing"),
        (
            r#""engines": ["podman"]"#,
            "an engine of kind docker is beyond",
        ),
    ] {
        let said = problem(&plain, &ceilings(ceiling));
        assert!(said.contains(words), "{said}");
    }
    assert!(
        problem(
            &plain,
            &document(r#""requirements": { "registries": ["docker.io"] }"#)
        )
        .contains("requirements.registries")
    );
    assert!(
        problem(
            &plain,
            &document(r#""denials": { "images": ["ghcr.io/**"] }"#)
        )
        .contains("denials.images")
    );
    assert!(problems(&plain, &ceilings(r#""images": ["ghcr.io/acme/*"], "engines": ["docker"], "mounts": [], "features": [], "capabilities": [], "hostVariables": []"#)).is_empty());
    for (mount, kind) in [
        ("type=volume,source=v,target=/v", "volume"),
        ("type=tmpfs,target=/v", "tmpfs"),
        (
            "type=bind,source=${localWorkspaceFolder}/x,target=/v,readonly",
            "workspace",
        ),
    ] {
        let mounted = config_with("", &format!(", \"mounts\": [\"{mount}\"]"));
        let said = problem(&mounted, &ceilings(r#""mounts": []"#));
        assert!(
            said.contains(&format!("is of kind {kind}, is beyond")),
            "{said}"
        );
        assert!(problems(&mounted, &ceilings(&format!(r#""mounts": ["{kind}"]"#))).is_empty());
    }
    for reads in [
        r#", "containerEnv": { "X": "${localEnv:AWS_PROFILE}" }"#,
        r#", "remoteEnv": { "X": "${localEnv:AWS_PROFILE}" }"#,
        r#", "postCreateCommand": "echo ${localEnv:AWS_PROFILE}""#,
    ] {
        let reads = config_with("", reads);
        let said = problem(&reads, &ceilings(r#""hostVariables": ["LANG"]"#));
        assert!(
            said.contains("reading AWS_PROFILE from this host's environment is beyond"),
            "{said}"
        );
        assert!(problems(&reads, &ceilings(r#""hostVariables": ["AWS_PROFILE"]"#)).is_empty());
    }
}

#[test]
fn what_a_person_reads_of_the_host_at_a_command_is_held_to_every_documents_list() {
    let place = Place::Object("-e".to_owned());
    let none = document("");
    let two = ceilings(r#""hostVariables": ["LANG", "TERM"]"#);
    let other = ceilings(r#""hostVariables": ["LANG", "HOME"]"#);
    let said = |documents: &[Organisation], name: &str| {
        let found = super::check_host_variables(documents, [name], &place);
        let mut all = found.iter().map(ToString::to_string);
        all.next().unwrap_or_default()
    };
    let documents = [none.clone(), two, other];
    assert_eq!(said(&documents, "LANG"), "");
    for beyond in ["TERM", "HOME", "SECRET"] {
        let said = said(&documents, beyond);
        let words = format!("reading {beyond} from this host's environment is beyond");
        assert!(said.contains(&words), "{said}");
    }
    assert_eq!(said(std::slice::from_ref(&none), "SECRET"), "");
    assert_eq!(super::host_variables(&[none]), None);
    let all = super::host_variables(&documents);
    assert_eq!(all, Some(["LANG".to_owned()].into()));
    let nothing = [ceilings(r#""hostVariables": []"#)];
    assert_eq!(super::host_variables(&nothing), Some([].into()));
}

#[test]
fn a_limit_is_the_workspaces_within_the_ceiling_and_the_ceiling_where_it_names_none() {
    let asks = config(r#""capabilities": { "resources": { "memory": "2g", "cpus": 2 } }"#);
    let result = held(
        &asks,
        &ceilings(r#""resources": { "memory": "4g", "cpus": 2, "pids": 100 }"#),
    );
    let limits = &result.limits;
    assert_eq!(
        limits.memory.as_ref().unwrap().origin.file,
        "agentcontainer.json"
    );
    assert_eq!(limits.pids.as_ref().unwrap().value, 100);
    assert_eq!(
        limits.pids.as_ref().unwrap().origin.to_string(),
        "policy.json:2:65"
    );
    let mut made = asks.clone();
    limits.apply(&mut made);
    let resources = made.agent.resources();
    assert_eq!(
        (
            resources.memory.as_ref().unwrap().bytes(),
            resources.pids.as_ref().unwrap().value
        ),
        (2 << 30, 100)
    );
    for beyond in [r#""memory": "1g""#, r#""cpus": 1.5"#] {
        let said = problem(&asks, &ceilings(&format!(r#""resources": {{ {beyond} }}"#)));
        assert!(
            said.contains("the limit ") && said.contains("allows at most"),
            "{said}"
        );
    }
}

#[test]
fn of_requirements_the_stricter_holds_and_every_signature_rule() {
    let rule = |subject: &str| {
        format!(
            r#"{{ "references": ["ghcr.io/acme/**"], "identities": [{{ "issuer": "https://a.example", "subject": "{subject}" }}] }}"#
        )
    };
    let of = |level: u8, age: &str, drift: &str, subject: &str| {
        document(&format!(
            r#""requirements": {{ "slsaLevel": {level}, "lockAge": "{age}", "drift": {drift}, "sbom": false, "signatures": [{}] }}"#,
            rule(subject)
        ))
    };
    let (a, b) = (
        of(2, "90d", r#"{ "ask": "medium" }"#, "a@acme.example"),
        of(
            3,
            "4w",
            r#"{ "ask": "low", "refuse": "high" }"#,
            "b@acme.example",
        ),
    );
    let b = Organisation {
        file: "other.json".to_owned(),
        ..b
    };
    let own = config(
        r#""provenance": { "require": { "signatures": true, "slsaLevel": 1, "sbom": true } }"#,
    );
    let required = hold(&own, &host(), &[a.clone(), b.clone()])
        .unwrap()
        .requirements;
    assert_eq!(required.slsa_level.as_ref().unwrap().value, 3);
    assert_eq!(
        required.slsa_level.as_ref().unwrap().origin.file,
        "other.json"
    );
    assert_eq!(required.lock_age.as_ref().unwrap().value.to_string(), "4w");
    assert_eq!(
        required.drift_ask.as_ref().unwrap().value.to_string(),
        "low"
    );
    assert_eq!(
        required.drift_refuse.as_ref().unwrap().value.to_string(),
        "high"
    );
    assert_eq!(required.signatures.len(), 2);
    // The workspace's own word, where nobody else says it.
    assert_eq!(required.sbom.as_ref().unwrap().organisation, None);
    assert!(required.signed.is_some());
    let none = hold(&config(""), &host(), &[]).unwrap().requirements;
    assert!(none.is_empty() && !required.is_empty());
}

#[test]
fn what_becomes_known_later_is_held_as_well() {
    let documents = [document(
        r#""ceilings": { "features": ["ghcr.io/devcontainers/features/*"], "engines": ["docker"] }, "requirements": { "registries": ["ghcr.io"] }, "denials": { "images": ["ghcr.io/devcontainers/features/sshd"] }"#,
    )];
    let nowhere = Place::Object("features".to_owned());
    let check = |what, reference: &str| {
        let found = check_reference(&documents, what, &reference.parse().unwrap(), &nowhere);
        found.iter().map(|d| d.code).collect::<Vec<_>>()
    };
    assert!(check(Fetched::Feature, "ghcr.io/devcontainers/features/node:1").is_empty());
    assert_eq!(
        check(Fetched::Feature, "ghcr.io/evil/features/node:1"),
        ["beyond-ceiling"]
    );
    assert_eq!(
        check(Fetched::Feature, "ghcr.io/devcontainers/features/sshd:1"),
        ["organisation-denies"]
    );
    assert!(check(Fetched::Other, "ghcr.io/anybody/tool:1").is_empty());
    assert_eq!(
        check(Fetched::Other, "quay.io/anybody/tool:1"),
        ["beyond-ceiling"]
    );
    assert!(check_engine(&documents, EngineKind::Docker).is_empty());
    assert_eq!(check_engine(&documents, EngineKind::Ssh).len(), 1);
}

#[test]
fn problems_are_bounded_and_ceilings_are_too() {
    let many = |n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("\"a{i}.example\"")).collect();
        problems(
            &egress(&format!(r#""allowedDomains": [{}]"#, names.join(","))),
            &ceilings(r#""network": { "allowedDomains": [] }"#),
        )
    };
    assert_eq!(many(MAX_DIAGNOSTICS).len(), MAX_DIAGNOSTICS);
    let found = many(MAX_DIAGNOSTICS + 1);
    assert_eq!(found.len(), MAX_DIAGNOSTICS + 1);
    assert_eq!(
        found[MAX_DIAGNOSTICS],
        "1 more problems are not shown [more]"
    );
    let under = |n: usize| {
        let documents: Vec<Organisation> = (0..n)
            .map(|i| Organisation {
                file: format!("{i}.json"),
                ..ceilings(r#""network": { "ports": [443] }"#)
            })
            .collect();
        hold(&config(""), &host(), &documents)
    };
    assert!(under(crate::MAX_CEILINGS).is_ok());
    assert!(under(crate::MAX_CEILINGS + 1).is_err());
}

/// A policy and a workspace at their bounds are compared entry by entry with no more than a lookup each.
#[test]
fn ten_thousand_entries_under_ten_thousand_are_held_at_once() {
    let names: Vec<String> = (0..10_000).map(|i| format!("\"a{i}.example\"")).collect();
    let (config, document) = (
        egress(&format!(
            r#""allowedDomains": [{}]"#,
            names[..9_000].join(",")
        )),
        ceilings(&format!(
            r#""network": {{ "allowedDomains": [{}] }}"#,
            names.join(",")
        )),
    );
    let began = std::time::Instant::now();
    assert!(hold(&config, &host(), &[document]).is_ok());
    assert!(
        began.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
}

#[test]
fn features_and_tools_are_held_where_they_are_named() {
    let with = |feature: &str, tool: &str| {
        let tools = format!(r#""tools": {{ "mcp": {{ "db": "oci://{tool}:1" }} }}"#);
        config_with(
            &tools,
            &format!(r#", "features": {{ "{feature}": {{}}, "./own": {{}} }}"#),
        )
    };
    let policy = document(
        r#""ceilings": { "features": ["ghcr.io/acme/*"] }, "requirements": { "registries": ["ghcr.io", "docker.io"] }, "denials": { "images": ["ghcr.io/acme/evil"] }"#,
    );
    assert!(problems(&with("ghcr.io/acme/a:1", "ghcr.io/any/mcp"), &policy).is_empty());
    for (feature, tool, words) in [
        ("ghcr.io/other/a:1", "ghcr.io/any/mcp", "ceilings.features"),
        ("ghcr.io/acme/evil:1", "ghcr.io/any/mcp", "denials.images"),
        ("ghcr.io/acme/a:1", "ghcr.io/acme/evil", "denials.images"),
        (
            "ghcr.io/acme/a:1",
            "quay.io/any/mcp",
            "requirements.registries",
        ),
    ] {
        let said = problem(&with(feature, tool), &policy);
        assert!(
            said.contains(words) && said.contains("agentcontainer.json:"),
            "{said}"
        );
    }
}

#[test]
fn what_a_feature_demands_is_held_to_the_same_ceilings() {
    let feature = schema::feature::parse(
        br#"{ "id": "x", "mounts": ["source=v,target=/v,type=volume"], "postCreateCommand": "echo ${localEnv:USER}" }"#,
        "x",
    )
    .unwrap();
    let place = Place::Object("the feature x".to_owned());
    let check = |ceilings: &str| {
        let documents = [document(&format!(r#""ceilings": {{ {ceilings} }}"#))];
        check_demands(&documents, &feature.demands, &place)
    };
    assert_eq!(check(""), []);
    assert_eq!(
        check(r#""mounts": ["volume"], "hostVariables": ["USER"]"#),
        []
    );
    for (ceilings, key) in [
        (r#""mounts": ["tmpfs"]"#, "ceilings.mounts"),
        (r#""hostVariables": ["HOME"]"#, "ceilings.hostVariables"),
    ] {
        let found = check(ceilings);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].message.contains(key) && found[0].code == "beyond-ceiling");
        assert_eq!(found[0].place, Some(place.clone()));
    }
}
