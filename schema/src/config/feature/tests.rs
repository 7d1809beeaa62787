#![allow(clippy::unwrap_used)]
use super::*;
use crate::config::tools::MAX_TOOLS;
use crate::config::{Config, parse};

fn read(inner: &str) -> Result<Config, String> {
    let text = format!(r#"{{ "image": "debian", {inner} }}"#);
    parse(text.as_bytes(), "agentcontainer.json")
        .map_err(|found| found.iter().map(|d| format!("{d}\n")).collect())
}

#[test]
fn features_are_named_by_registry_or_by_path_and_keep_their_options() {
    let config = read(
        r#""features": { "ghcr.io/devcontainers/features/node:1": { "version": "20", "yarn": false },
            "localhost:5000/x/go": "1.22", "./tools/own": true, "ghcr.io/a/b": {} },
           "overrideFeatureInstallOrder": ["ghcr.io/a/b", "./tools/own"]"#,
    )
    .unwrap();
    let names: Vec<&str> = config.features.keys().map(FeatureId::as_str).collect();
    assert_eq!(
        names,
        [
            "./tools/own",
            "ghcr.io/a/b",
            "ghcr.io/devcontainers/features/node:1",
            "localhost:5000/x/go"
        ]
    );
    let own: FeatureId = "./tools/own".parse().unwrap();
    assert_eq!(config.features[&own].value, Options::Defaults(true));
    assert!(matches!(own.place(), FeaturePlace::Local(below) if &**below == "tools/own"));
    assert_eq!(config.override_feature_install_order.len(), 2);
    let again = parse(&config.meaning(), "agentcontainer.json").unwrap();
    assert_eq!(again, config);
}

#[test]
fn what_names_no_feature_is_refused_in_words_at_its_place() {
    for (id, words) in [
        ("https://x.example/devcontainer-feature-a.tgz", "tarball"),
        ("http://x.example/a.tgz", "tarball"),
        ("node", "by its registry"),
        ("devcontainers/features/node", "by its registry"),
        ("../x", "below the config's folder"),
        ("./a/../../x", "below the config's folder"),
        ("./", "below the config's folder"),
        ("/abs", "below the config's folder"),
        ("ghcr.io/A/b", "repository"),
    ] {
        let said = read(&format!(r#""features": {{ "{id}": {{}} }}"#)).unwrap_err();
        assert!(
            said.contains(words) && said.contains("agentcontainer.json:1:"),
            "{said}"
        );
        let said = read(&format!(r#""overrideFeatureInstallOrder": ["{id}"]"#)).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    for bad in [
        "null",
        "1",
        "[]",
        r#"{ "a": 1 }"#,
        r#"{ "a": null }"#,
        r#"{ "a": {} }"#,
    ] {
        assert!(
            read(&format!(r#""features": {{ "ghcr.io/a/b": {bad} }}"#)).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn features_and_their_options_have_bounds() {
    let features = |n: usize| {
        let all: Vec<String> = (0..n)
            .map(|n| format!("\"ghcr.io/a/b{n}\": {{}}"))
            .collect();
        read(&format!(r#""features": {{ {} }}"#, all.join(",")))
    };
    assert!(features(MAX_FEATURES).is_ok());
    assert!(features(MAX_FEATURES + 1).is_err());
    let options = |n: usize| {
        let all: Vec<String> = (0..n).map(|n| format!("\"o{n}\": true")).collect();
        read(&format!(
            r#""features": {{ "ghcr.io/a/b": {{ {} }} }}"#,
            all.join(",")
        ))
    };
    assert!(options(MAX_OPTIONS).is_ok());
    assert!(options(MAX_OPTIONS + 1).is_err());
    let named = |name: usize, value: usize| {
        let (name, value) = ("n".repeat(name), "v".repeat(value));
        read(&format!(
            r#""features": {{ "ghcr.io/a/b": {{ "{name}": "{value}" }} }}"#
        ))
    };
    assert!(named(MAX_OPTION_NAME_BYTES, MAX_OPTION_BYTES).is_ok());
    assert!(named(MAX_OPTION_NAME_BYTES + 1, 1).is_err());
    assert!(named(1, MAX_OPTION_BYTES + 1).is_err());
    let local = |n: usize| {
        read(&format!(
            r#""features": {{ "./{}": {{}} }}"#,
            "l".repeat(n - 2)
        ))
    };
    assert!(local(MAX_LOCAL_BYTES).is_ok());
    assert!(local(MAX_LOCAL_BYTES + 1).is_err());
}

#[test]
fn tools_are_named_and_have_a_source_and_nothing_else() {
    let config = read(
        r#""agent": { "tools": { "mcp": { "db": "oci://ghcr.io/a/mcp:1" }, "components": { "wasm.tool": { "source": "oci://ghcr.io/a/c:1" } },
            "skills": { "review": "oci://ghcr.io/a/s:1" } } }"#,
    )
    .unwrap();
    assert_eq!(config.agent.tools.all().count(), 3);
    let again = parse(&config.meaning(), "agentcontainer.json").unwrap();
    assert_eq!(again, config);
    let object =
        read(r#""agent": { "tools": { "mcp": { "db": { "source": "oci://ghcr.io/a/mcp:1" } } } }"#);
    let short = read(r#""agent": { "tools": { "mcp": { "db": "oci://ghcr.io/a/mcp:1" } } }"#);
    assert_eq!(object.unwrap().digest(), short.unwrap().digest());
    for (bad, words) in [
        (r#""mcp": { "db": "ghcr.io/a/mcp:1" }"#, "oci://"),
        (
            r#""mcp": { "db": { "source": "oci://ghcr.io/a/mcp:1", "args": [] } }"#,
            "unknown key `args`",
        ),
        (
            r#""mcp": { "db": {} }"#,
            "`agent.tools.mcp.db.source` is missing",
        ),
        (
            r#""mcp": { "a b": "oci://ghcr.io/a/mcp:1" }"#,
            "has the name",
        ),
        (r#""skill": {}"#, "did you mean `skills`"),
        (r#""mcp": []"#, "expected an object"),
    ] {
        let said = read(&format!(r#""agent": {{ "tools": {{ {bad} }} }}"#)).unwrap_err();
        assert!(said.contains(words), "{bad}: {said}");
    }
    let many = |n: usize| {
        let all: Vec<String> = (0..n)
            .map(|n| format!("\"t{n}\": \"oci://ghcr.io/a/b:1\""))
            .collect();
        read(&format!(
            r#""agent": {{ "tools": {{ "mcp": {{ {} }} }} }}"#,
            all.join(",")
        ))
    };
    assert!(many(MAX_TOOLS).is_ok());
    assert!(many(MAX_TOOLS + 1).is_err());
    let name = |n: usize| {
        read(&format!(
            r#""agent": {{ "tools": {{ "mcp": {{ "{}": "oci://ghcr.io/a/b:1" }} }} }}"#,
            "n".repeat(n)
        ))
    };
    assert!(name(crate::config::tools::MAX_NAME_BYTES).is_ok());
    assert!(name(crate::config::tools::MAX_NAME_BYTES + 1).is_err());
}
