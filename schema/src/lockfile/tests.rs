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
            .map(|n| (n.to_string(), pin.clone()))
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
        let mut out = vec![named("image", image)];
        out.extend(features.iter().map(|f| named(f, f)));
        lockfile
            .drift(&out)
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
