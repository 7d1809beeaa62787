#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::{Config, parse};

fn secrets(text: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        "{{ \"image\": \"x\",\n\"agent\": {{ \"credentials\": {{ \"taken\": {{}} }}, \"secrets\": {text} }} }}"
    );
    parse(text.as_bytes(), "a.json")
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_secret_is_asked_for_by_name_by_source_or_with_programs_and_a_life() {
    let config = secrets(
        r#"{ "A": {}, "b-1": "vault://vault.corp/secret/github#token",
"NPM_TOKEN": { "source": "op://Engineering/npm/token", "programs": ["/usr/bin/npm"], "ttl": "1h" } }"#,
    )
    .unwrap();
    let all = &config.agent.secrets;
    assert_eq!(all["A"].value, Secret::default());
    let source = |name: &str| all[name].source.as_ref().unwrap().to_string();
    assert_eq!(source("b-1"), "vault://vault.corp/secret/github#token");
    assert_eq!(source("NPM_TOKEN"), "op://Engineering/npm/token");
    let npm = &all["NPM_TOKEN"];
    assert_eq!(npm.programs[0].as_str(), "/usr/bin/npm");
    assert_eq!(npm.ttl.as_ref().unwrap().seconds(), 3600);
    assert_eq!((npm.at.line, npm.ttl.as_ref().unwrap().at.line), (3, 3));
    // A source alone and one in an object mean the same.
    let short = secrets(r#"{ "a": "op://E/npm/token" }"#).unwrap();
    let long = secrets(r#"{ "a": { "source": "op://E/npm/token" } }"#).unwrap();
    assert_eq!(short.meaning(), long.meaning());
    assert!(secrets("{}").unwrap().agent.secrets.is_empty());
}

#[test]
fn a_source_of_this_host_is_the_hosts_word_and_is_not_repeated() {
    for text in [
        "env://GITHUB_TOKEN",
        "file:///home/me/token",
        "exec:///bin/token",
        "keyring://a/b",
        "stdin",
        "github-device://github.com/Iv1",
    ] {
        for secret in [
            format!(r#"{{ "x": "{text}" }}"#),
            format!(r#"{{ "x": {{ "source": "{text}" }} }}"#),
        ] {
            let found = secrets(&secret).unwrap_err();
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains("[host-only]"), "{found:?}");
            assert!(
                found[0].contains("agentcontainer grant x --secret"),
                "{found:?}"
            );
            assert!(!found[0].contains(text), "{found:?}");
        }
    }
}

#[test]
fn a_secret_that_says_too_much_or_nothing_is_an_error_at_its_place() {
    for (text, code) in [
        ("[]", "wrong-type"),
        (r#"{ "a/b": {} }"#, "invalid-value"),
        (r#"{ "..": {} }"#, "invalid-value"),
        (r#"{ "": {} }"#, "invalid-value"),
        (r#"{ "taken": {} }"#, "conflicting-names"),
        (r#"{ "x": 1 }"#, "wrong-type"),
        (r#"{ "x": "ghp_abcdefghijklmnop" }"#, "invalid-value"),
        (r#"{ "x": "oidc://a/b" }"#, "not-enforced"),
        (r#"{ "x": { "program": [] } }"#, "unknown-key"),
        (r#"{ "x": { "programs": [] } }"#, "invalid-value"),
        (r#"{ "x": { "programs": ["npm"] } }"#, "invalid-value"),
        (r#"{ "x": { "ttl": 60 } }"#, "wrong-type"),
        (r#"{ "x": { "ttl": "31d" } }"#, "invalid-value"),
    ] {
        let found = secrets(text).unwrap_err();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(&format!("[{code}]")), "{text}: {found:?}");
        assert!(found[0].starts_with("a.json:2:"), "{text}: {found:?}");
        assert!(!found[0].contains("ghp_"), "{found:?}");
    }
    let names = |n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!("\"s{i}\": {{}}")).collect();
        format!("{{ {} }}", all.join(","))
    };
    assert!(secrets(&names(MAX_SECRETS)).is_ok());
    assert!(secrets(&names(MAX_SECRETS + 1)).is_err());
    let programs = |n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!("\"/bin/p{i}\"")).collect();
        format!("{{ \"x\": {{ \"programs\": [{}] }} }}", all.join(","))
    };
    assert!(secrets(&programs(MAX_IN_RULE)).is_ok());
    assert!(secrets(&programs(MAX_IN_RULE + 1)).is_err());
}
