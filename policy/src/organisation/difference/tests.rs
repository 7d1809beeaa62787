#![allow(clippy::unwrap_used)]
use super::*;
use crate::merge::tests::{ADDRESSES, HOSTS, PORTS, Random};
use crate::organisation::properties::{Read, document as random_document};
use schema::net::Protocol;

fn document(rest: &str) -> Organisation {
    let text = format!(
        "{{ \"version\": 1, \"organisation\": \"acme\", \"serial\": 1, \"notAfter\": \"2030-01-01T00:00:00Z\",\n{rest} }}"
    );
    schema::organisation::parse(text.as_bytes(), "policy.json")
        .unwrap_or_else(|found| panic!("{text} {found:#?}"))
}

fn shown(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (document(old), document(new));
    let show = |change: Change| {
        let sign = if change.looser { '+' } else { '-' };
        format!("{sign} {} {}", change.grade, change.what)
    };
    difference(&old, &new).into_iter().map(show).collect()
}

#[test]
fn a_difference_says_what_got_looser_and_what_stricter_by_weight() {
    let old = r#""ceilings": { "network": { "allowedDomains": ["*.acme.example", "a.example"], "ports": [443] }, "mounts": ["volume"], "escalation": "deny", "resources": { "pids": 10 } },
        "denials": { "domains": ["bad.example"] }, "requirements": { "slsaLevel": 3, "lockAge": "4w" }"#;
    let new = r#""ceilings": { "network": { "allowedDomains": ["api.acme.example", "*.a.example", "b.example"] }, "mounts": [], "resources": { "pids": 20 } },
        "denials": { "domains": ["worse.example"] }, "requirements": { "slsaLevel": 2, "lockAge": "1w", "sbom": true }"#;
    assert_eq!(
        shown(old, new),
        [
            "+ high `ceilings.network.allowedDomains` allows *.a.example",
            "+ high `ceilings.network.ports` is not restricted any more",
            "+ high `ceilings.escalation` is not bounded any more, it was \"deny\"",
            "+ high `denials.domains` does not deny bad.example any more",
            "+ high `requirements.slsaLevel` is 2, it was 3",
            "+ medium `ceilings.network.allowedDomains` allows b.example",
            "+ low `ceilings.resources.pids` is 20, it was 10",
            "- high `ceilings.network.allowedDomains` does not allow *.acme.example any more",
            "- high `denials.domains` denies worse.example",
            "- high `requirements.sbom` is true",
            "- medium `ceilings.network.allowedDomains` does not allow a.example any more",
            "- medium `ceilings.mounts` does not allow volume any more",
            "- low `requirements.lockAge` is 1w, it was 4w",
        ]
    );
    assert!(shown(old, old).is_empty());
}

#[test]
fn what_another_entry_covers_is_no_change() {
    let of = |domains: &str| {
        format!(r#""ceilings": {{ "network": {{ "allowedDomains": [{domains}] }} }}"#)
    };
    assert!(
        shown(
            &of(r#""*.a.example""#),
            &of(r#""*.a.example", "x.a.example", "y.a.example:443""#)
        )
        .is_empty()
    );
    assert_eq!(
        shown(&of(r#""a.example:443""#), &of(r#""a.example""#)).len(),
        1
    );
    let deny = |domains: &str| format!(r#""denials": {{ "domains": [{domains}] }}"#);
    assert!(
        shown(
            &deny(r#""*.a.example""#),
            &deny(r#""*.a.example", "x.a.example""#)
        )
        .is_empty()
    );
    let images = |images: &str| format!(r#""ceilings": {{ "images": [{images}] }}"#);
    assert!(
        shown(
            &images(r#""ghcr.io/**""#),
            &images(r#""ghcr.io/**", "ghcr.io/acme/*""#)
        )
        .is_empty()
    );
    let sources = |list: &str| format!(r#""ceilings": {{ "secretSources": [{list}] }}"#);
    assert!(shown(&sources(r#""op""#), &sources(r#""op", "op://A""#)).is_empty());
    assert_eq!(shown(&sources(r#""op://A""#), &sources(r#""op""#)).len(), 1);
}

#[test]
fn another_signer_or_reference_or_log_is_looser() {
    let rule = |references: &str, signers: &str, log: &str| {
        let signers: Vec<String> = signers
            .split(' ')
            .map(|s| format!(r#"{{ "issuer": "https://a.example", "subject": "{s}" }}"#))
            .collect();
        format!(
            r#""requirements": {{ "signatures": [{{ "references": [{references}], "identities": [{}], "log": {log} }}] }}"#,
            signers.join(",")
        )
    };
    let base = rule(r#""ghcr.io/acme/**""#, "a@a.example b@a.example", "true");
    let looser = |new: &str| {
        shown(&base, new)
            .iter()
            .any(|change| change.starts_with('+'))
    };
    assert!(!looser(&base));
    assert!(!looser(&rule(
        r#""ghcr.io/**""#,
        "a@a.example b@a.example",
        "true"
    )));
    assert!(!looser(&rule(
        r#""ghcr.io/acme/**""#,
        "b@a.example",
        "true"
    )));
    assert!(looser(&rule(r#""ghcr.io/acme/*""#, "a@a.example", "true")));
    assert!(looser(&rule(
        r#""ghcr.io/acme/**""#,
        "a@a.example c@a.example",
        "true"
    )));
    assert!(looser(&rule(
        r#""ghcr.io/acme/**""#,
        "a@a.example b@a.example",
        "false"
    )));
    assert!(looser(""));
}

/// Where nothing is said to be looser, nothing is.
#[test]
fn what_is_not_said_to_be_looser_allows_no_more() {
    let mut quiet = 0;
    for seed in 1..1200 {
        let random = &mut Random(seed);
        // One is the other with a few keys of its own, so that often enough nothing is looser.
        let (old, new) = (
            random_document(random, "f", 9),
            random_document(random, "g", 9),
        );
        if difference(&old, &new).iter().any(|change| change.looser) {
            continue;
        }
        quiet += 1;
        for port in PORTS {
            for protocol in [
                Protocol::Https,
                Protocol::Http,
                Protocol::Tls,
                Protocol::Tcp,
            ] {
                for host in HOSTS.map(|host| host.parse().unwrap()) {
                    assert!(
                        !Read(&new).name(&host, port, protocol)
                            || Read(&old).name(&host, port, protocol),
                        "seed {seed}, {host}:{port}"
                    );
                }
            }
            for address in ADDRESSES {
                assert!(
                    !Read(&new).address(address, port) || Read(&old).address(address, port),
                    "seed {seed}"
                );
            }
        }
        for source in ["env://X", "op://A/b/c", "op://B/b/c", "keyring://a/b"] {
            let source = source.parse().unwrap();
            let fits = |document: &Organisation| {
                document
                    .ceilings
                    .secret_sources
                    .as_ref()
                    .is_none_or(|list| list.iter().any(|p| p.matches(&source)))
                    && !document
                        .denials
                        .secret_sources
                        .iter()
                        .any(|p| p.matches(&source))
            };
            assert!(!fits(&new) || fits(&old), "seed {seed}");
        }
        for image in ["debian", "ghcr.io/acme/agent", "ghcr.io/acme/a/b", "acme/x"] {
            let image = image.parse().unwrap();
            let fits = |document: &Organisation| {
                document
                    .ceilings
                    .images
                    .as_ref()
                    .is_none_or(|list| list.iter().any(|p| p.matches(&image)))
                    && !document.denials.images.iter().any(|p| p.matches(&image))
                    && document
                        .requirements
                        .registries
                        .as_ref()
                        .is_none_or(|list| list.iter().any(|r| r.holds(&image)))
            };
            assert!(!fits(&new) || fits(&old), "seed {seed}");
        }
        let level = |document: &Organisation| {
            document
                .requirements
                .slsa_level
                .as_ref()
                .map_or(0, |l| l.value)
        };
        assert!(level(&new) >= level(&old), "seed {seed}");
    }
    assert!(quiet > 40, "{quiet}");
}
