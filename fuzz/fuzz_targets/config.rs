//! A stranger's config: reading it never panics, what is read says the same when it is read back from its canonical
//! form, and what policy makes of it travels and compiles.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::config::parse;
use schema::hostconfig::{self, HostConfig};

fuzz_target!(|data: &[u8]| {
    for file in ["agentcontainer.json", "devcontainer.json"] {
        let config = match parse(data, file) {
            Ok(config) => config,
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
                continue;
            }
        };
        let meaning = config.meaning();
        let again = parse(&meaning, "agentcontainer.json").expect("the canonical form is a config");
        assert_eq!(again.meaning(), meaning);
        let review = policy::Review::of(&config);
        assert_eq!(review.lines, policy::Review::of(&again).lines);
        if let Ok(effective) = policy::effective(&config, &HostConfig::default()) {
            let json = effective.to_json();
            let travelled = policy::EffectivePolicy::from_json(&json).expect("a policy travels");
            assert_eq!(travelled, effective);
            let compiled = effective.compile();
            for name in compiled.exact_names() {
                for (port, transport) in compiled.ports(name) {
                    assert!(compiled.decide(name, port, transport).is_allow());
                }
            }
        }
    }
    if let Ok(host) = hostconfig::parse(data, "config.toml") {
        let config = parse(br#"{ "image": "debian" }"#, "agentcontainer.json").expect("a config");
        if let Ok(effective) = policy::effective(&config, &host) {
            policy::EffectivePolicy::from_json(&effective.to_json()).expect("a policy travels");
        }
    }
    let _ = policy::EffectivePolicy::from_json(data);
});
