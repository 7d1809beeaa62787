#![allow(clippy::unwrap_used)]
use super::*;

fn integrity(byte: u8) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode([byte; 64]);
    format!("sha512-{text}")
}

fn npm() -> Value {
    json!({ "name": "npm", "lockfileVersion": 3, "requires": true, "packages": {
        "": { "dependencies": { "@x/agent": "^1.0.0" } },
        "node_modules/@x/agent": { "version": "1.0.0", "resolved": "https://r.test/a.tgz", "integrity": integrity(1), "license": "MIT",
            "bin": { "agent": "a.js" }, "dependencies": { "greets": "^1.0.0" }, "engines": { "node": ">=18" },
            "optionalDependencies": { "@x/agent-linux": "npm:@x/agent@1.0.0-linux", "gone": "1.0.0" } },
        "node_modules/@x/agent-linux": { "name": "@x/agent", "version": "1.0.0-linux", "integrity": integrity(2), "optional": true,
            "os": ["linux"], "cpu": ["x64"] },
        "node_modules/greets": { "version": "1.1.0", "integrity": integrity(3), "bin": { "agent": "g.js" }, "peerDependencies": { "@x/agent": "*" } },
        "node_modules/greets/node_modules/in": { "version": "2.0.0", "inBundle": true },
    } })
}

fn pinned(lock: &Value) -> Result<AgentPin, String> {
    AgentPin::of_npm(lock.to_string().as_bytes(), "@x/agent", "1.0.0")
}

#[test]
fn what_npm_wrote_down_is_pinned_and_given_back_to_it_without_what_was_not_there() {
    let pin = pinned(&npm()).unwrap();
    assert_eq!(pin.integrity(), integrity(1));
    let places: Vec<_> = pin.packages.keys().map(String::as_str).collect();
    assert_eq!(
        places,
        [
            "node_modules/@x/agent",
            "node_modules/@x/agent-linux",
            "node_modules/greets"
        ]
    );
    // A program of another package's would stand in for the agent.
    assert!(pin.packages["node_modules/greets"].bin.is_empty());
    let [(_, manifest), (_, lock)] = pin.files();
    assert_eq!(manifest, r#"{"dependencies":{"@x/agent":"1.0.0"}}"#);
    let lock: Value = serde_json::from_str(&lock).unwrap();
    assert_eq!(
        lock["packages"]["node_modules/@x/agent"],
        json!({ "version": "1.0.0", "integrity": integrity(1), "bin": { "agent": "a.js" }, "dependencies": { "greets": "^1.0.0" },
            "optionalDependencies": { "@x/agent-linux": "npm:@x/agent@1.0.0-linux" } })
    );
    // What is given to npm is pinned as what it wrote was.
    assert_eq!(pinned(&lock).unwrap(), pin);
    let text = serde_json::to_string(&pin).unwrap();
    assert_eq!(serde_json::from_str::<AgentPin>(&text).unwrap(), pin);
}

#[test]
fn what_no_digest_holds_or_stands_for_something_else_is_not_pinned() {
    let agent = "node_modules/@x/agent";
    let changed = |place: &str, key: &str, value: Value| {
        let mut lock = npm();
        lock["packages"][place][key] = value;
        pinned(&lock)
    };
    assert!(changed(agent, "license", json!("ISC")).is_ok());
    for (place, key, value) in [
        (agent, "version", json!("1.0.1")),
        (agent, "name", json!("evil")),
        (agent, "integrity", Value::Null),
        (
            agent,
            "integrity",
            json!("sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="),
        ),
        (
            agent,
            "integrity",
            json!(format!("{} {}", integrity(1), integrity(2))),
        ),
        ("node_modules/@x/agent-linux", "name", json!("evil")),
        ("node_modules/greets", "version", Value::Null),
        ("node_modules/greets", "version", json!("npm:evil@1.0.0")),
        ("node_modules/greets", "version", json!("*")),
        ("node_modules/greets", "version", json!("1.0.0 || 2.0.0")),
        (agent, "dependencies", json!({ "greets": "npm:evil@1.0.0" })),
        (
            agent,
            "dependencies",
            json!({ "greets": "npm:@x/agents@1.0.0" }),
        ),
        (agent, "dependencies", json!({ "greets": "file:/etc" })),
        (
            agent,
            "optionalDependencies",
            json!({ "greets": "https://r.test/x.tgz" }),
        ),
        (
            agent,
            "optionalDependencies",
            json!({ "greets": "owner/repository" }),
        ),
        ("node_modules/greets", "os", json!(["a\nb"])),
        ("node_modules/new", "link", json!(true)),
        ("../out", "version", json!("1.0.0")),
    ] {
        assert!(
            changed(place, key, value.clone()).is_err(),
            "{place} {key} {value}"
        );
    }
    for place in [
        "../out",
        "node_modules/../out",
        "node_modules/.bin/x",
        "node_modules/@x",
        "x",
    ] {
        let mut lock = npm();
        lock["packages"][place] = lock["packages"]["node_modules/greets"].clone();
        assert!(pinned(&lock).is_err(), "{place}");
    }
    let older = json!({ "lockfileVersion": 1, "dependencies": {} });
    assert!(pinned(&older).unwrap_err().contains("older than 7"));
    assert!(AgentPin::of_npm(b"", "@x/agent", "1.0.0").is_err());
    let mut pin = pinned(&npm()).unwrap();
    let bin = BTreeMap::from([("agent".to_owned(), "x.js".to_owned())]);
    pin.packages.get_mut("node_modules/greets").unwrap().bin = bin;
    assert!(pin.check().is_err());
}

#[test]
fn no_more_is_pinned_than_there_may_be() {
    let with = |count: usize| {
        let mut lock = npm();
        for n in 3..count {
            lock["packages"][format!("node_modules/p{n}")] =
                lock["packages"]["node_modules/greets"].clone();
        }
        pinned(&lock)
    };
    assert!(with(MAX_PACKAGES).is_ok());
    assert!(with(MAX_PACKAGES + 1).is_err());
    let version = |length: usize| {
        let mut lock = npm();
        lock["packages"]["node_modules/greets"]["version"] =
            json!(format!("1.0.{}", "1".repeat(length - 4)));
        pinned(&lock)
    };
    assert!(version(MAX_WORD).is_ok());
    assert!(version(MAX_WORD + 1).is_err());
    let sized = |bytes: usize| {
        let text = npm().to_string();
        let text = format!("{text}{}", " ".repeat(bytes - text.len()));
        AgentPin::of_npm(text.as_bytes(), "@x/agent", "1.0.0")
    };
    assert!(sized(MAX_NPM_LOCK).is_ok());
    assert!(sized(MAX_NPM_LOCK + 1).is_err());
}
