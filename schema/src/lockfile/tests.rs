#![allow(clippy::unwrap_used)]
use super::*;

fn digest(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

fn text() -> String {
    format!(
        r#"{{
  "lockfileVersion": 1,
  "config": "{}",
  "image": {{
    "reference": "debian:12",
    "digest": "{}",
    "mediaType": "application/vnd.oci.image.index.v1+json",
    "platforms": {{
      "linux/amd64": "{}",
      "linux/arm64": "{}"
    }},
    "resolved": "2026-11-21T10:00:00Z",
    "verified": {{
      "signer": {{
        "identity": {{
          "issuer": "https://issuer.test",
          "subject": "https://example.com/build"
        }}
      }},
      "bundle": "{}",
      "slsa": {{
        "level": 2,
        "builder": "https://example.com/builder"
      }}
    }}
  }},
  "features": {{
    "ghcr.io/a/b:1": {{
      "reference": "ghcr.io/a/b:1",
      "digest": "{}",
      "resolved": "2026-11-21T10:00:00Z"
    }}
  }}
}}
"#,
        digest('a'),
        digest('b'),
        digest('c'),
        digest('d'),
        digest('e'),
        digest('f'),
    )
}

fn parse(text: &str) -> Result<Lockfile, Diagnostic> {
    Lockfile::parse(text.as_bytes(), FILE)
}

#[test]
fn what_is_written_reads_back_and_is_written_the_same() {
    let lockfile = parse(&text()).unwrap();
    assert_eq!(lockfile.to_text(), text());
    assert_eq!(lockfile.pins().count(), 2);
}

#[test]
fn what_does_not_belong_is_an_error_with_its_place() {
    let swapped = |from: &str, to: &str| {
        let changed = text().replacen(from, to, 1);
        assert_ne!(changed, text(), "{from}");
        parse(&changed).unwrap_err().to_string()
    };
    assert!(swapped("\"lockfileVersion\": 1", "\"lockfileVersion\": 2").contains("version is 2"));
    assert!(swapped("\"resolved\"", "\"surprise\": 1, \"resolved\"").contains("unknown field"));
    assert!(swapped("linux/arm64", "linux/amd64").contains("twice"));
    assert!(swapped("linux/arm64", "linux").contains("platform"));
    assert!(swapped("debian:12", "debian@sha256:12").contains("digest"));
    let line = text()
        .lines()
        .position(|line| line.contains("features"))
        .unwrap()
        + 1;
    let place = format!("{FILE}:{line}:");
    assert!(swapped("\"features\": {", "\"features\": [").contains(&place));
    let twice = format!(
        "\"ghcr.io/a/b:1\": {{ \"reference\": \"a\", \"digest\": \"{}\", \"resolved\": \"2026-11-21T10:00:00Z\" }}, \"ghcr.io/a/b:1\"",
        digest('0')
    );
    assert!(swapped("\"ghcr.io/a/b:1\"", &twice).contains("twice"));
    assert!(
        parse("<<<<<<< HEAD\n{}")
            .unwrap_err()
            .to_string()
            .contains("conflict")
    );
    assert!(parse("").is_err());
    assert!(parse(&"[".repeat(100_000)).is_err());
}

#[test]
fn a_reference_with_a_digest_is_pinned_to_that_digest() {
    let other = text().replacen("debian:12", &format!("debian@{}", digest('9')), 1);
    assert!(
        parse(&other)
            .unwrap_err()
            .to_string()
            .contains("another digest")
    );
    let mut local = parse(&text()).unwrap();
    local.image.local = true;
    local.image.platforms.clear();
    local.image.verified = None;
    assert!(parse(&local.to_text()).is_ok());
    local.image.reference = ImageRef::parse(&format!("debian@{}", digest('b'))).unwrap();
    assert!(parse(&local.to_text()).is_err());
    let same = text().replacen("debian:12", &format!("debian@{}", digest('b')), 1);
    assert!(parse(&same).is_ok());
}

#[test]
fn what_only_an_engine_has_has_no_platforms_and_no_signer() {
    let local = text().replacen("\"digest\"", "\"local\": true, \"digest\"", 1);
    assert!(parse(&local).is_err());
}

#[test]
fn how_large_it_is_is_bounded() {
    let padded = |size: usize| {
        let text = text();
        let pad = " ".repeat(size - text.len());
        parse(&format!("{text}{pad}")).map(|_| ())
    };
    assert!(padded(MAX_BYTES).is_ok());
    assert!(padded(MAX_BYTES + 1).is_err());
    let with = |platforms: usize, features: usize| {
        let mut lockfile = parse(&text()).unwrap();
        let digest = lockfile.config;
        lockfile.image.platforms = (0..platforms)
            .map(|n| (format!("linux/a{n}").parse().unwrap(), digest))
            .collect();
        let pin = lockfile.features.values().next().unwrap().clone();
        lockfile.features = (0..features)
            .map(|n| {
                let name = format!("ghcr.io/a/b{n}:1");
                let reference = ImageRef::parse(&name).unwrap();
                (
                    name,
                    Pin {
                        reference,
                        ..pin.clone()
                    },
                )
            })
            .collect();
        parse(&lockfile.to_text()).map(|_| ())
    };
    assert!(with(MAX_PLATFORMS, 1).is_ok());
    assert!(with(MAX_PLATFORMS + 1, 1).is_err());
    assert!(with(1, MAX_PINS).is_ok());
    assert!(with(1, MAX_PINS + 1).is_err());
}

#[test]
fn drift_names_exactly_what_moved() {
    let lockfile = parse(&text()).unwrap();
    let wanted = |image: &str, features: &[&str]| {
        let named = |name: &str, text: &str| (name.to_owned(), ImageRef::parse(text).unwrap());
        let mut pins = vec![named("image", image)];
        pins.extend(features.iter().map(|f| named(f, f)));
        lockfile
            .drift(&Wanted {
                pins,
                local: Vec::new(),
            })
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    assert!(wanted("debian:12", &["ghcr.io/a/b:1"]).is_empty());
    // The same reference written in another way is the same.
    assert!(wanted("docker.io/library/debian:12", &["ghcr.io/a/b:1"]).is_empty());
    assert_eq!(
        wanted("debian:13", &["ghcr.io/a/c:1"]),
        [
            "image is debian:13 now, and debian:12 is locked",
            "ghcr.io/a/c:1 is ghcr.io/a/c:1, which is not locked",
            "ghcr.io/a/b:1 (ghcr.io/a/b:1) is locked and no longer named",
        ]
    );
}

/// With a feature beside the config that depends on another, and one tool of each kind.
fn with_everything() -> Lockfile {
    let mut lockfile = parse(&text()).unwrap();
    let pin = |text: &str| Pin {
        reference: ImageRef::parse(text).unwrap(),
        ..lockfile.features["ghcr.io/a/b:1"].clone()
    };
    let (dependency, mcp, component, skill) = (
        pin("ghcr.io/a/c"),
        pin("ghcr.io/t/m:1"),
        pin("ghcr.io/t/c:1"),
        pin("ghcr.io/t/s:1"),
    );
    lockfile
        .features
        .insert("ghcr.io/a/c".to_owned(), dependency);
    let local = LocalPin {
        digest: lockfile.config,
        depends_on: vec!["ghcr.io/a/c".to_owned()],
    };
    lockfile.local_features.insert("./own".to_owned(), local);
    lockfile.install_order = ["ghcr.io/a/c", "./own", "ghcr.io/a/b:1"]
        .map(|id| Install {
            feature: id.parse().unwrap(),
            options: Options::default(),
        })
        .to_vec();
    lockfile.mcp.insert("db".to_owned(), mcp);
    lockfile.components.insert("db".to_owned(), component);
    lockfile.skills.insert("db".to_owned(), skill);
    lockfile
}

#[test]
fn everything_that_a_config_names_has_a_pin_by_a_name_of_its_own() {
    let lockfile = with_everything();
    let again = parse(&lockfile.to_text()).unwrap();
    assert_eq!(again, lockfile);
    let names: Vec<_> = again.pins().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(
        names,
        [
            "image",
            "ghcr.io/a/b:1",
            "ghcr.io/a/c",
            "mcp:db",
            "component:db",
            "skill:db"
        ]
    );
    let mut again = again;
    let mut_names: Vec<_> = again
        .pins_mut()
        .map(|(name, _)| name.into_owned())
        .collect();
    assert_eq!(mut_names, names);

    let config = crate::config::parse(
        br#"{ "image": "debian:12", "features": { "ghcr.io/a/b:1": {}, "./own": {} },
            "agent": { "tools": { "mcp": { "db": "oci://ghcr.io/t/m:1" }, "components": { "db": { "source": "oci://ghcr.io/t/c:1" } },
            "skills": { "db": "oci://ghcr.io/t/s:1" } } } }"#,
        "agentcontainer.json",
    )
    .unwrap();
    assert_eq!(lockfile.drift(&Wanted::of(&config)), []);
    // What only a feature needs goes with it, and is missed where it is not there.
    let mut without = lockfile.clone();
    without.features.remove("ghcr.io/a/c");
    let said = without.drift(&Wanted::of(&config));
    assert!(matches!(said.as_slice(), [Drift::Missing { name, .. }] if name == "ghcr.io/a/c"));
    let mut unneeded = lockfile.clone();
    unneeded.local_features.clear();
    let said: Vec<String> = unneeded
        .drift(&Wanted::of(&config))
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("./own") && said[1].starts_with("ghcr.io/a/c"),
        "{said:?}"
    );
}

#[test]
fn a_pin_has_a_name_of_its_kind() {
    let refused = |change: fn(&mut Lockfile)| {
        let mut lockfile = with_everything();
        change(&mut lockfile);
        assert!(parse(&lockfile.to_text()).is_err());
    };
    refused(|l| {
        let pin = l.image.clone();
        l.features.insert("image".to_owned(), pin);
    });
    refused(|l| {
        let pin = l.features["ghcr.io/a/b:1"].clone();
        l.features.insert("ghcr.io/a/other:1".to_owned(), pin);
    });
    refused(|l| {
        let pin = l.local_features["./own"].clone();
        l.local_features.insert("../out".to_owned(), pin);
    });
    refused(|l| {
        let pin = l.mcp["db"].clone();
        l.skills.insert("a b".to_owned(), pin);
    });
    refused(|l| {
        if let Some(pin) = l.mcp.get_mut("db") {
            pin.local = true;
        }
    });
}

#[test]
fn a_platform_has_one_spelling() {
    let platform = |text: &str| text.parse::<Platform>().map(|p| p.to_string());
    assert_eq!(platform("linux/arm64/v8").unwrap(), "linux/arm64");
    assert_eq!(platform("linux/arm/v7").unwrap(), "linux/arm/v7");
    assert_eq!(platform("linux/amd64").unwrap(), "linux/amd64");
    for bad in [
        "linux",
        "",
        "linux/",
        "/amd64",
        "linux/amd64/v2/x",
        "Linux/amd64",
        "linux/a b",
    ] {
        assert!(platform(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_agents_pin_is_one_of_a_name_and_of_that_package() {
    let integrity = format!("sha512-{}==", "A".repeat(86));
    let with = |name: &str, version: &str, count: usize| {
        let mut lockfile = parse(&text()).unwrap();
        let npm = serde_json::json!({ "packages": { "node_modules/a": { "version": "1.0.0", "integrity": integrity } } });
        let mut pin = AgentPin::of_npm(npm.to_string().as_bytes(), "a", "1.0.0").unwrap();
        pin.version = version.to_owned();
        for n in 0..count {
            let name = format!("{name}{}", "x".repeat(n));
            lockfile.agents.insert(name, pin.clone());
        }
        parse(&lockfile.to_text())
    };
    assert_eq!(
        with("claude", "1.0.0", 1).unwrap().agents["claude"].integrity(),
        integrity
    );
    assert!(with("claude", "1.0.1", 1).is_err());
    assert!(with("a b", "1.0.0", 1).is_err());
    assert!(with("a", "1.0.0", MAX_AGENTS).is_ok());
    assert!(with("a", "1.0.0", MAX_AGENTS + 1).is_err());
}
