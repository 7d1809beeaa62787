//! An organisation's policy: reading it never panics, what is read says the same when it is read back from its canonical form, it
//! differs from itself in nothing, and a workspace under it gets nothing that it does not get without.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::organisation::{check_reference, difference::difference, hold};
use schema::config::{Config, parse as config};
use schema::hostconfig::{self, HostConfig};
use schema::organisation::parse;

const WORKSPACE: &[u8] = br#"{
  "image": "debian", "mounts": ["type=tmpfs,target=/x"], "containerEnv": { "X": "${localEnv:LANG}" },
  "agent": {
    "credentials": { "github": {} },
    "capabilities": { "resources": { "pids": 10 }, "network": { "egress": {
      "allowedDomains": ["api.github.com", "*.a.example", "b.example:5432"], "networks": ["10.1.0.0/16:22"], "unlisted": "ask",
      "rules": [{ "host": "c.example", "ports": [443], "action": "ask" }] } } } }
}"#;
const HOST: &[u8] = b"[credentials.github]\nsource = \"env://X\"\nhosts = [\"api.github.com\"]\n";

fn workspace() -> (Config, HostConfig) {
    let config = config(WORKSPACE, "agentcontainer.json").expect("a config");
    let host = hostconfig::parse(HOST, "config.toml").expect("a host's config");
    (config, host)
}

fuzz_target!(|data: &[u8]| {
    let document = match parse(data, "organisation-policy.json") {
        Ok(document) => document,
        Err(found) => {
            assert!(!found.is_empty());
            for diagnostic in found {
                let shown = diagnostic.to_string();
                assert!(
                    !shown
                        .replacen("\n  help: ", "", 1)
                        .chars()
                        .any(char::is_control),
                    "{shown:?}"
                );
            }
            return;
        }
    };
    let meaning = document.meaning();
    let again = parse(&meaning, "again").expect("the canonical form is a document");
    assert_eq!(again.meaning(), meaning);
    assert!(difference(&document, &document).is_empty());
    assert!(difference(&document, &again).is_empty());
    let (config, host) = workspace();
    let place = schema::diag::Place::Object("fuzz".to_owned());
    let what = policy::organisation::Fetched::Image;
    let _ = check_reference(std::slice::from_ref(&document), what, &config.image, &place);
    let Ok(held) = hold(&config, &host, &[document.clone(), again]) else {
        return;
    };
    let own = policy::effective(&config, &host)
        .expect("a policy")
        .compile();
    let travelled =
        policy::EffectivePolicy::from_json(&held.policy.to_json()).expect("a policy travels");
    assert_eq!(travelled, held.policy);
    let compiled = travelled.compile();
    for name in [
        "api.github.com",
        "x.a.example",
        "b.example",
        "c.example",
        "other.example",
    ] {
        let name = name.parse().expect("a name");
        for port in [22, 80, 443, 5432] {
            let transport = schema::net::Transport::Tcp;
            let (before, after) = (
                own.decide(&name, port, transport),
                compiled.decide(&name, port, transport),
            );
            assert!(after.is_deny() || !before.is_deny(), "{name}:{port}");
        }
    }
});
