#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::{Value, json};

const EXAMPLE: &str = include_str!("../../../examples/organisation/organisation-policy.json");

fn base() -> Value {
    json!({ "version": 1, "organisation": "acme", "serial": 7, "notAfter": "2027-01-01T00:00:00Z" })
}

fn with(pointer: &str, value: Value) -> Value {
    let mut document = base();
    let mut at = &mut document;
    for key in pointer.split('/') {
        at = &mut at[key];
    }
    *at = value;
    document
}

fn read(document: &Value) -> Result<Organisation, Vec<Diagnostic>> {
    parse(document.to_string().as_bytes(), "organisation-policy.json")
}

/// The only error there is.
#[track_caller]
fn refused(document: &Value) -> String {
    let found = read(document).unwrap_err();
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].to_string()
}

#[test]
fn the_example_is_read_with_its_places_and_its_canonical_form_means_the_same() {
    let read = parse(EXAMPLE.as_bytes(), "organisation-policy.json").unwrap();
    assert_eq!(read.organisation.as_str(), "acme");
    assert_eq!(read.serial.value, 12);
    let network = &read.ceilings.network;
    let allowed = network.allowed_domains.as_ref().unwrap();
    assert_eq!((allowed.at.line, allowed[3].at.line), (10, 10));
    assert_eq!(allowed[3].value.to_string(), "*.acme.example");
    assert_eq!(
        read.requirements.signatures[0].references[0]
            .value
            .to_string(),
        "ghcr.io/acme/**"
    );
    assert!(read.requirements.signatures[0].needs_log());
    let meaning = read.meaning();
    let again = parse(&meaning, "again").unwrap();
    assert_eq!(again.meaning(), meaning);
    assert_eq!(again.digest(), read.digest());
}

#[test]
fn an_absent_ceiling_and_an_empty_one_are_not_the_same() {
    let none = read(&base()).unwrap();
    assert!(none.ceilings.network.ports.is_none() && none.ceilings.images.is_none());
    let empty = read(&with("ceilings/network/ports", json!([]))).unwrap();
    assert!(empty.ceilings.network.ports.as_ref().unwrap().is_empty());
    assert_ne!(none.meaning(), empty.meaning());
}

#[test]
fn an_unknown_field_is_an_error_wherever_it_stands() {
    let objects = [
        "",
        "ceilings",
        "ceilings/network",
        "ceilings/filesystem",
        "ceilings/tools",
        "ceilings/credentials/github",
        "ceilings/resources",
        "ceilings/inspection",
        "requirements",
        "requirements/drift",
        "denials",
    ];
    for object in objects {
        let pointer = format!("{object}/unheardOf");
        let said = refused(&with(pointer.trim_start_matches('/'), json!(1)));
        assert!(
            said.contains("unknown-key") && said.contains("unheardOf"),
            "{said}"
        );
    }
    let rule = json!([{ "references": ["a.io/b"], "keys": [KEY], "unheardOf": 1 }]);
    assert!(refused(&with("requirements/signatures", rule)).contains("unknown-key"));
    let banned = json!([{ "type": "npm", "name": "a", "versions": "*", "unheardOf": 1 }]);
    assert!(refused(&with("requirements/bannedPackages", banned)).contains("unknown-key"));
    assert!(refused(&with("ceilings/networks", json!([]))).contains("did you mean `network`?"));
}

const KEY: &str =
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE\n-----END PUBLIC KEY-----\n";

#[test]
fn what_has_to_be_there_is_named_where_it_is_not() {
    for key in ["version", "organisation", "serial", "notAfter"] {
        let mut document = base();
        document.as_object_mut().unwrap().remove(key);
        assert!(
            refused(&document).contains(&format!("`{key}` is missing")),
            "{key}"
        );
    }
    assert!(refused(&with("version", json!(2))).contains("policy-version"));
    assert!(refused(&with("notBefore", json!("2027-01-01T00:00:00Z"))).contains("hold at no time"));
    let any = json!([{ "references": ["ghcr.io/**"] }]);
    assert!(refused(&with("requirements/signatures", any)).contains("names no signer"));
    let any = json!([{ "references": ["ghcr.io/**"], "identities": [], "keys": [] }]);
    assert!(refused(&with("requirements/signatures", any)).contains("names no signer"));
    let nothing = json!([{ "references": [], "keys": [KEY] }]);
    assert!(refused(&with("requirements/signatures", nothing)).contains("names nothing"));
    let any = json!([{ "references": ["ghcr.io/**"], "identities": [{ "issuer": "https://a.example", "subject": "*" }] }]);
    assert!(refused(&with("requirements/signatures", any)).contains("fit any signer"));
}

#[test]
fn an_entry_that_stands_twice_is_an_error_however_it_is_spelt() {
    for (pointer, list) in [
        (
            "ceilings/network/allowedDomains",
            json!(["a.example", "A.example"]),
        ),
        ("ceilings/network/ports", json!([443, 443])),
        ("ceilings/network/protocols", json!(["tcp", "tcp"])),
        (
            "ceilings/network/networks",
            json!(["10.0.0.1", "10.0.0.1/32"]),
        ),
        ("ceilings/mounts", json!(["volume", "volume"])),
        (
            "ceilings/images",
            json!(["docker.io/library/a", "index.docker.io/library/a"]),
        ),
        ("denials/domains", json!(["a.example", "a.example"])),
        (
            "requirements/bannedPackages",
            json!([{ "type": "npm", "name": "a", "versions": "*" }, { "type": "npm", "name": "a", "versions": "*", "reason": "x" }]),
        ),
    ] {
        assert!(
            refused(&with(pointer, list)).contains("duplicate-entry"),
            "{pointer}"
        );
    }
    let twice = br#"{ "version": 1, "version": 1 }"#;
    assert_eq!(parse(twice, "f").unwrap_err()[0].code, "duplicate-key");
}

#[test]
fn lists_are_bounded() {
    let many = |n: usize| Value::Array((1..=n).map(|i| json!(i)).collect());
    let names = |n: usize| Value::Array((0..n).map(|i| json!(format!("a{i}.example"))).collect());
    let images = |n: usize| Value::Array((0..n).map(|i| json!(format!("a.io/b{i}"))).collect());
    let rules = |n: usize| {
        Value::Array(
            (0..n)
                .map(|i| json!({ "references": [format!("a.io/b{i}")], "keys": [KEY] }))
                .collect(),
        )
    };
    let identities = |n: usize| {
        let all = (0..n)
            .map(|i| json!({ "issuer": "https://a.example", "subject": format!("{i}@a.example") }));
        json!([{ "references": ["a.io/b"], "identities": all.collect::<Vec<_>>() }])
    };
    let banned = |n: usize| {
        Value::Array(
            (0..n)
                .map(|i| json!({ "type": "npm", "name": format!("a{i}"), "versions": "*" }))
                .collect(),
        )
    };
    type Made<'a> = &'a dyn Fn(usize) -> Value;
    let lists: [(&str, usize, Made<'_>); 8] = [
        ("ceilings/network/ports", MAX_ENTRIES, &many),
        ("ceilings/network/allowedDomains", MAX_DOMAINS, &names),
        ("denials/domains", MAX_DOMAINS, &names),
        ("ceilings/images", MAX_ENTRIES, &images),
        ("denials/images", MAX_ENTRIES, &images),
        ("requirements/signatures", MAX_SIGNERS, &rules),
        ("requirements/signatures", MAX_SIGNERS, &identities),
        ("requirements/bannedPackages", MAX_BANNED, &banned),
    ];
    for (pointer, limit, list) in lists {
        assert!(read(&with(pointer, list(limit))).is_ok(), "{pointer}");
        let found = read(&with(pointer, list(limit + 1))).unwrap_err();
        assert!(
            found.iter().any(|d| d.code == "too-many"),
            "{pointer}: {found:?}"
        );
    }
    let banned = |n: usize| {
        let one = json!([{ "type": "npm", "name": "a", "versions": "*", "reason": "x".repeat(n) }]);
        read(&with("requirements/bannedPackages", one))
    };
    assert!(banned(MAX_REASON_BYTES).is_ok() && banned(MAX_REASON_BYTES + 1).is_err());
    assert!(read(&with("serial", json!(MAX_SERIAL))).is_ok());
    assert!(read(&with("serial", json!(MAX_SERIAL + 1))).is_err());
    assert!(read(&with("serial", json!(0))).is_err());
}

#[test]
fn a_serial_does_not_go_back_and_a_document_holds_between_its_times() {
    let document = read(&with("notBefore", json!("2026-01-01T00:00:00Z"))).unwrap();
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
    let now = at("2026-06-01T00:00:00Z");
    let code = |now, seen| document.check(now, seen).err().map(NotCurrent::code);
    assert_eq!(code(now, None), None);
    assert_eq!(
        code(at("2025-12-31T23:59:59Z"), None),
        Some("policy-not-yet")
    );
    assert_eq!(code(at("2026-01-01T00:00:00Z"), None), None);
    assert_eq!(code(at("2026-12-31T23:59:59Z"), None), None);
    assert_eq!(
        code(at("2027-01-01T00:00:00Z"), None),
        Some("policy-expired")
    );
    let seen = |serial| {
        Some(Seen {
            serial,
            digest: Digest::of(b"another"),
        })
    };
    assert_eq!(code(now, seen(6)), None);
    assert_eq!(code(now, seen(7)), Some("policy-serial-reused"));
    assert_eq!(code(now, Some(document.seen())), None);
    assert_eq!(code(now, seen(8)), Some("policy-older"));
}
