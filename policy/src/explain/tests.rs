#![allow(clippy::unwrap_used)]
use super::*;
use crate::merge::effective;

fn policy() -> Compiled {
    let config = schema::config::parse(
        br#"{ "image": "debian", "agent": { "capabilities": { "network": { "egress": {
  "allowedDomains": ["api.example", "*.w.example", "db.example:5432"],
  "deniedDomains": ["bad.w.example"],
  "rules": [{ "host": "pin.example", "ports": [443], "protocol": "tls" }],
  "networks": ["10.20.0.0/16:5432"] } } } } }"#,
        "agentcontainer.json",
    )
    .unwrap();
    effective(&config, &schema::hostconfig::HostConfig::default())
        .unwrap()
        .compile()
}

fn shown(target: &str) -> String {
    explain(&policy(), &target.parse().unwrap(), "agentcontainer.json").to_string()
}

#[test]
fn an_allowed_port_names_rule_place_and_wire() {
    assert_eq!(
        shown("api.example"),
        "api.example:80/tcp is allowed as http\n  by allowedDomains \"api.example\" at agentcontainer.json:2:22\n  \
         the wire: HTTP with Host api.example; never carries a credential\n\
         api.example:443/tcp is allowed as https\n  by allowedDomains \"api.example\" at agentcontainer.json:2:22\n  \
         the wire: TLS with SNI api.example and no ECH, which ends at the gateway; in it HTTP with Host or :authority api.example"
    );
    assert_eq!(
        shown("pin.example:443"),
        "pin.example:443/tcp is allowed as tls\n  by rules \"pin.example\" ports 443 tls at agentcontainer.json:4:13\n  \
         the wire: TLS with SNI pin.example and no ECH, relayed unread"
    );
    assert!(shown("DB.example.:5432").contains("allowed as tcp"));
    assert!(shown("x.w.example:80").contains("by allowedDomains \"*.w.example\""));
    assert!(
        shown("10.20.1.1")
            .contains("10.20.1.1:5432/tcp is allowed as tcp\n  by networks \"10.20.0.0/16:5432\"")
    );
}

#[test]
fn a_denied_port_names_its_reason_and_what_to_add() {
    assert_eq!(
        shown("evil.example"),
        "evil.example:443/tcp is denied [not-listed]\n  to allow it, add \"evil.example\" to \
         `agent.capabilities.network.egress.allowedDomains` in agentcontainer.json"
    );
    assert!(
        shown("api.example:22")
            .contains("[port-not-listed]\n  to allow it, add \"api.example:22\"")
    );
    assert_eq!(
        shown("bad.w.example"),
        "bad.w.example:443/tcp is denied [denied-by-rule]\n  by deniedDomains \"bad.w.example\" at agentcontainer.json:3:21\n  \
         to allow it, take back that rule: a denial wins over everything that allows"
    );
    assert!(shown("localhost:3000").contains("single label"));
    assert!(
        shown("8.8.8.8:53")
            .contains("add \"8.8.8.8:53\" to `agent.capabilities.network.egress.networks`")
    );
    assert!(
        shown("169.254.169.254:80")
            .contains("169.254.169.254 is a cloud metadata address and can never be allowed")
    );
    assert!(shown("127.0.0.1:80").contains("can never be allowed"));
}

#[test]
fn machines_get_the_same() {
    let json = serde_json::to_string(&explain(
        &policy(),
        &"evil.example:80".parse().unwrap(),
        "f",
    ))
    .unwrap();
    assert_eq!(
        json,
        r#"{"target":"evil.example","answers":[{"port":80,"transport":"tcp","verdict":"deny","reason":"not-listed","words":"to allow it, add \"evil.example\" to `agent.capabilities.network.egress.allowedDomains` in f"}]}"#
    );
}

#[test]
fn a_target_is_a_host_with_or_without_a_port() {
    for text in [
        "a.example",
        "a.example:1",
        "10.0.0.1",
        "10.0.0.1:65535",
        "localhost",
    ] {
        assert!(text.parse::<Target>().is_ok(), "{text}");
    }
    for text in [
        "",
        ":1",
        "a.example:",
        "a.example:0",
        "a.example:65536",
        "a.example:+1",
        "a.example:x",
        "https://a.example",
        "::1",
        "[::1]:443",
        "fe80::1%eth0",
        "2130706433",
        "0x7f.1",
    ] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}
