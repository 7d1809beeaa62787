//! The checked-in JSON Schemas are those of the types, every example of the tree is read and validates, and parser and
//! schema agree on a corpus.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use schema::config;
use schema::json_schema;
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// How documents of organisations are named.
const ORGANISATION: &str = "organisation-policy.json";

fn compare(file: &str, schema: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("json")
        .join(file);
    let text = json_schema::text(schema);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == text,
        "{file} is not what the types say: UPDATE=1 cargo test -p schema"
    );
}

#[test]
fn the_checked_in_schemas_are_those_of_the_types() {
    compare("agentcontainer.schema.json", &json_schema::agentcontainer());
    compare("config.schema.json", &json_schema::config());
    compare("lockfile.schema.json", &json_schema::lockfile());
    compare(
        "organisation-policy.schema.json",
        &json_schema::organisation(),
    );
}

/// Comments and trailing commas taken out by the parser: what a schema validates.
fn value(text: &str) -> Value {
    jsonc_parser::parse_to_serde_value(text, &Default::default()).unwrap()
}

fn examples(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            examples(&path, out);
        } else {
            out.push(path);
        }
    }
}

#[test]
fn every_example_is_read_and_validates() {
    let validator = jsonschema::validator_for(&json_schema::agentcontainer()).unwrap();
    let mut paths = Vec::new();
    examples(&root().join("examples"), &mut paths);
    let mut configs = 0;
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.to_string_lossy();
        match path.extension().and_then(|e| e.to_str()) {
            Some("json") if name.ends_with(ORGANISATION) => {
                let parsed = schema::organisation::parse(text.as_bytes(), &name)
                    .unwrap_or_else(|found| panic!("{found:#?}"));
                let validator = jsonschema::validator_for(&json_schema::organisation()).unwrap();
                assert!(validator.is_valid(&value(&text)), "{name}");
                let canonical: Value = serde_json::from_slice(&parsed.meaning()).unwrap();
                assert!(validator.is_valid(&canonical), "{name}");
            }
            Some("json") => {
                let parsed = config::parse(text.as_bytes(), &name)
                    .unwrap_or_else(|found| panic!("{found:#?}"));
                // A devcontainer.json validates in its canonical form, in which the object is the key `agent`.
                let canonical: Value = serde_json::from_slice(&parsed.meaning()).unwrap();
                assert!(validator.is_valid(&canonical), "{name}");
                if !name.ends_with("devcontainer.json") {
                    assert!(validator.is_valid(&value(&text)), "{name}");
                }
                configs += 1;
            }
            Some("toml") => {
                schema::hostconfig::parse(text.as_bytes(), &name)
                    .unwrap_or_else(|found| panic!("{found:#?}"));
                let value: Value = toml::from_str(&text).unwrap();
                let validator = jsonschema::validator_for(&json_schema::config()).unwrap();
                assert!(validator.is_valid(&value), "{name}");
            }
            _ => {}
        }
    }
    assert!(configs >= 5, "{configs}");
}

/// Changes to a whole config, each at a pointer.
fn variants() -> Vec<(&'static str, Value)> {
    let mut out: Vec<(&'static str, Value)> = Vec::new();
    let values = [
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(-1),
        json!(2.5),
        json!(70000),
        json!(""),
        json!("x"),
        json!("none"),
        json!("allow"),
        json!("deny"),
        json!("https"),
        json!("udp"),
        json!("4g"),
        json!("stopContainer"),
        json!([]),
        json!([1]),
        json!(["x"]),
        json!([443]),
        json!([0]),
        json!({}),
        json!({ "x": 1 }),
        json!({ "x": "y" }),
        json!({ "x": ["y"] }),
        json!({ "X": null }),
        json!({ "type": "volume", "source": "v", "target": "/v" }),
    ];
    let pointers = [
        "/name",
        "/image",
        "/containerEnv",
        "/remoteEnv",
        "/containerUser",
        "/remoteUser",
        "/workspaceFolder",
        "/mounts",
        "/mounts/0",
        "/overrideCommand",
        "/onCreateCommand",
        "/postAttachCommand",
        "/hostRequirements",
        "/hostRequirements/cpus",
        "/hostRequirements/memory",
        "/hostRequirements/gpu",
        "/hostRequirements/storage",
        "/init",
        "/privileged",
        "/capAdd",
        "/runArgs",
        "/features",
        "/build",
        "/dockerComposeFile",
        "/forwardPorts",
        "/portsAttributes",
        "/waitFor",
        "/shutdownAction",
        "/userEnvProbe",
        "/updateRemoteUserUID",
        "/initializeCommand",
        "/customizations",
        "/customizations/agentcontainer",
        "/$schema",
        "/unknown",
        "/agent",
        "/agent/unknown",
        "/agent/credentials",
        "/agent/credentials/x",
        "/agent/credentials/x/hosts",
        "/agent/credentials/x/env",
        "/agent/credentials/x/source",
        "/agent/credentials/a b",
        "/agent/policy",
        "/agent/policy/source",
        "/agent/policy/escalation",
        "/agent/provenance",
        "/agent/provenance/require",
        "/agent/provenance/require/signatures",
        "/agent/provenance/require/slsaLevel",
        "/agent/provenance/require/sbom",
        "/agent/capabilities",
        "/agent/capabilities/filesystem",
        "/agent/capabilities/resources",
        "/agent/capabilities/resources/memory",
        "/agent/capabilities/resources/cpus",
        "/agent/capabilities/resources/pids",
        "/agent/capabilities/network",
        "/agent/capabilities/network/ingress",
        "/agent/capabilities/network/egress",
        "/agent/capabilities/network/egress/unlisted",
        "/agent/capabilities/network/egress/allowedDomains",
        "/agent/capabilities/network/egress/networks",
        "/agent/capabilities/network/egress/rules",
        "/agent/capabilities/network/egress/rules/0",
        "/agent/capabilities/network/egress/rules/0/host",
        "/agent/capabilities/network/egress/rules/0/ports",
        "/agent/capabilities/network/egress/rules/0/protocol",
        "/agent/capabilities/network/egress/rules/0/action",
        "/agent/capabilities/network/egress/rules/0/methods",
        "/agent/capabilities/network/egress/rules/0/unknown",
    ];
    for pointer in pointers {
        out.extend(values.iter().map(|value| (pointer, value.clone())));
    }
    out
}

const BASE: &str = r#"{
  "image": "debian",
  "mounts": ["type=tmpfs,target=/x"],
  "customizations": {},
  "hostRequirements": { "cpus": 1 },
  "agent": { "credentials": { "x": { "hosts": ["a.example"], "env": "TOKEN" } },
    "policy": { "escalation": "deny" }, "provenance": { "require": { "sbom": true } }, "capabilities": {
    "resources": { "pids": 5 },
    "network": { "egress": { "allowedDomains": ["a.example"], "rules": [{ "host": "a.example", "ports": [443] }] } } } }
}"#;

#[test]
fn what_the_parser_accepts_the_schema_accepts_and_they_differ_only_about_what_strings_say() {
    let validator = jsonschema::validator_for(&json_schema::agentcontainer()).unwrap();
    assert!(validator.is_valid(&value(BASE)));
    // Codes of errors that are about a value's meaning and not about the shape of the file.
    let of_meaning = [
        "invalid-host",
        "single-label-host",
        "address-as-host",
        "invalid-network",
        "invalid-port",
        "invalid-image",
        "invalid-mount",
        "invalid-value",
        "invalid-variable",
    ];
    let (mut accepted, mut refused, mut stricter) = (0, 0, 0);
    for (pointer, new) in variants() {
        let mut document = value(BASE);
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match document.pointer_mut(parent).unwrap() {
            Value::Array(list) => list[key.parse::<usize>().unwrap()] = new.clone(),
            object => object[key] = new.clone(),
        }
        let parsed = config::parse(document.to_string().as_bytes(), "agentcontainer.json");
        match (parsed, validator.is_valid(&document)) {
            (Ok(_), true) => accepted += 1,
            (Err(_), false) => refused += 1,
            (Ok(_), false) => {
                panic!("{pointer} = {new}: the parser accepts what the schema refuses")
            }
            (Err(found), true) => {
                stricter += 1;
                assert!(
                    found.iter().all(|d| of_meaning.contains(&d.code)),
                    "{pointer} = {new}: {found:#?}"
                );
            }
        }
    }
    assert!(
        accepted > 100 && refused > 500 && stricter > 20,
        "{accepted} {refused} {stricter}"
    );
}

#[test]
fn the_two_agree_about_the_hosts_config() {
    let validator = jsonschema::validator_for(&json_schema::config()).unwrap();
    for (text, fits) in [
        ("", true),
        ("engine = \"docker\"", true),
        ("engine = \"rkt\"", false),
        ("engine = 1", false),
        ("unknown = 1", false),
        ("[policy]", false),
        ("[policy]\nsource = \"oci://r.corp/p:t\"", false),
        (
            "[policy]\nsource = \"oci://r.corp/p:t\"\nkeys = [\"/k\"]",
            true,
        ),
        ("[policy]\nsource = \"oci://r.corp/p:t\"\nkeys = []", false),
        ("[policy]\nsource = \"r.corp/p:t\"\nkeys = [\"/k\"]", false),
        (
            "[policy]\nsource = \"oci://r.corp/p:t\"\nidentities = [{ issuer = \"https://a.b\", subject = \"a@b.c\" }]",
            true,
        ),
        (
            "[policy]\nsource = \"oci://r.corp/p:t\"\nkeys = [\"/k\"]\nidentities = [{ issuer = \"https://a.b\", subject = \"a@b.c\" }]",
            false,
        ),
        (
            "[policy]\nsource = \"oci://r.corp/p:t\"\nkeys = [\"/k\"]\nunknown = 1",
            false,
        ),
        ("[credentials.x]\nsource = \"y\"\nhosts = [\"a.b\"]", false),
        (
            "[credentials.x]\nsource = \"env://Y\"\nhosts = [\"a.b\"]",
            true,
        ),
        (
            "[credentials.x]\nsource = \"file:///y\"\nhosts = [\"a.b:8443\"]\nheader = \"X-Key\"\nformat = \"{}\"",
            true,
        ),
        (
            "[credentials.x]\nsource = \"exec:///y z\"\nhosts = [\"*.a.b\"]",
            true,
        ),
        (
            "[credentials.x]\nsource = \"exec:///y '\"\nhosts = [\"a.b\"]",
            false,
        ),
        (
            "[credentials.x]\nsource = \"op://y\"\nhosts = [\"a.b\"]",
            false,
        ),
        ("[credentials.x]\nsource = \"env://Y\"", false),
        ("[credentials.anthropic]\nsource = \"env://Y\"", true),
        ("[credentials.anthropics]\nsource = \"env://Y\"", false),
        ("[credentials.anthropic]\nhosts = [\"a.b\"]", false),
        ("[credentials.x]\nsource = \"env://Y\"\nhosts = []", false),
        ("[credentials.x]\nhosts = [\"a.b\"]", false),
        (
            "[credentials.x]\nsource = \"env://Y\"\nhosts = [\"a.b\"]\nformat = \"x\"",
            false,
        ),
        (
            "[credentials.x]\nsource = \"env://Y\"\nhosts = [\"a.b\"]\nunknown = 1",
            false,
        ),
        (
            "[credentials.\"a b\"]\nsource = \"env://Y\"\nhosts = [\"a.b\"]",
            false,
        ),
        ("[gateway]\nca_bundles = []", true),
        ("[gateway]\nca_bundles = [\"/etc/corp.pem\"]", true),
        ("[gateway]\nca_bundles = [\"corp.pem\"]", false),
        ("[gateway]\nca_bundles = \"/etc/corp.pem\"", false),
        ("[gateway]\nhosts = { \"a.b\" = \"10.0.0.1\" }", true),
        ("[gateway]\nhosts = { \"a.b\" = [\"10.0.0.1\"] }", true),
        ("[gateway]\nhosts = { \"a.b\" = [] }", false),
        ("[gateway]\nhosts = { \"a.b\" = 1 }", false),
        ("[gateway]\nprivate_networks = [\"10.0.0.0/8\"]", true),
        ("[gateway]\nprivate_networks = \"10.0.0.0/8\"", false),
        ("[gateway]\nunknown = 1", false),
        ("[registries.\"a.b:5000\"]\nplain_http = true", true),
        ("[registries.\"a.b:5000\"]\nplain = true", false),
        ("[registries.\"a.b:5000\"]\nplain_http = 1", false),
        ("files = \"strict\"", true),
        ("files = \"mounts\"", true),
        ("files = \"lax\"", false),
    ] {
        let value: Value = toml::from_str(text).unwrap();
        assert_eq!(
            schema::hostconfig::parse(text.as_bytes(), "f").is_ok(),
            fits,
            "{text}"
        );
        assert_eq!(validator.is_valid(&value), fits, "{text}");
    }
}

#[test]
fn the_two_agree_about_an_organisations_policy() {
    let validator = jsonschema::validator_for(&json_schema::organisation()).unwrap();
    let text = include_str!("../../examples/organisation/organisation-policy.json");
    let whole = value(text);
    // Codes of errors that are about a value's meaning and not about the shape of the file.
    let of_meaning = [
        "invalid-value",
        "duplicate-entry",
        "missing-key",
        "policy-version",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(1),
        json!(70000),
        json!("x"),
        json!("deny"),
        json!([]),
        json!(["x"]),
        json!([1, 1]),
        json!(["deny"]),
        json!({}),
        json!({ "unheardOf": 1 }),
    ];
    let mut pointers = Vec::new();
    fn walk(value: &Value, at: String, out: &mut Vec<String>) {
        if let Value::Object(members) = value {
            for (key, value) in members {
                let at = format!("{at}/{key}");
                out.push(at.clone());
                walk(value, at, out);
            }
        }
        if let Value::Array(elements) = value {
            out.extend((0..elements.len().min(1)).map(|i| format!("{at}/{i}")));
        }
    }
    walk(&whole, String::new(), &mut pointers);
    let (mut accepted, mut refused) = (0, 0);
    for pointer in &pointers {
        for new in &values {
            let mut document = whole.clone();
            *document.pointer_mut(pointer).unwrap() = new.clone();
            let parsed = schema::organisation::parse(document.to_string().as_bytes(), "f");
            match (parsed, validator.is_valid(&document)) {
                (Ok(_), true) => accepted += 1,
                (Err(_), false) => refused += 1,
                (Ok(_), false) => {
                    panic!("{pointer} = {new}: the parser accepts what the schema refuses")
                }
                (Err(found), true) => assert!(
                    found.iter().all(|d| of_meaning.contains(&d.code)),
                    "{pointer} = {new}: {found:#?}"
                ),
            }
        }
    }
    assert!(accepted > 30 && refused > 400, "{accepted} {refused}");
}

/// The text between fences of one language, with the first line after the fence.
fn fenced<'t>(text: &'t str, language: &str) -> Vec<&'t str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(&format!("```{language}\n")) {
        let Some((block, tail)) = after.split_once("\n```") else {
            break;
        };
        out.push(block);
        rest = tail;
    }
    out
}

#[test]
fn every_config_in_the_documents_is_read() {
    let mut paths = vec![root().join("README.md"), root().join("SPEC.md")];
    if root().join("docs").is_dir() {
        examples(&root().join("docs"), &mut paths);
    }
    for path in paths
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
    {
        let text = fs::read_to_string(path).unwrap_or_default();
        for block in fenced(&text, "jsonc") {
            // A block may begin with a comment that begins with its file's name.
            let first = block
                .trim_start_matches(['/', ' '])
                .split([':', ',', ' ', '\n'])
                .next();
            let name = first
                .filter(|word| word.ends_with(".json"))
                .unwrap_or("agentcontainer.json");
            if name == ORGANISATION {
                schema::organisation::parse(block.as_bytes(), name)
                    .unwrap_or_else(|found| panic!("{}: {block}\n{found:#?}", path.display()));
                continue;
            }
            config::parse(block.as_bytes(), name)
                .unwrap_or_else(|found| panic!("{}: {block}\n{found:#?}", path.display()));
        }
        for block in fenced(&text, "toml")
            .iter()
            .filter(|block| block.starts_with("# config.toml"))
        {
            let parsed = schema::hostconfig::parse(block.as_bytes(), "config.toml");
            parsed.unwrap_or_else(|found| panic!("{}: {block}\n{found:#?}", path.display()));
        }
    }
}
