#![allow(clippy::unwrap_used)]
use serde_json::{Value, json};

use super::*;
use crate::signature::tests::{bundle, file, keys, now};
use crate::signature::{Subject, verify};
use crate::trust_root::TrustRoots;

fn cyclone(components: Value) -> Value {
    json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "components": components})
}

fn parse(document: &Value) -> Result<Inventory, SbomError> {
    let bytes = document.to_string().into_bytes();
    Inventory::parse(&bytes, Digest::of(&bytes))
}

fn ban(ecosystem: &str, name: &str, range: &str) -> Ban {
    Ban::new(ecosystem, name, range).unwrap()
}

fn url(purl: &str) -> Inventory {
    parse(&cyclone(json!([{"name": "x", "purl": purl}]))).unwrap()
}

/// Banned, clear, or undecided.
fn found(inventory: &Inventory, ban: &Ban) -> Option<bool> {
    let searched = inventory.search(std::slice::from_ref(ban));
    assert_eq!(
        searched.holds(),
        searched.banned.is_empty() && searched.undecided.is_empty()
    );
    if !searched.undecided.is_empty() {
        None
    } else {
        Some(!searched.banned.is_empty())
    }
}

#[test]
fn what_cosign_attested_is_listed_and_searched() {
    let image = Digest::of(&file("cosign/image.json"));
    let evidence: Vec<_> = (0..3)
        .map(|at| bundle(file(&format!("cosign/bundle-{at}.json"))))
        .collect();
    let report = |accept: &str| {
        verify(
            &Subject::from(&image),
            &evidence,
            &keys(&[accept]),
            &TrustRoots::none(),
            now(),
        )
    };
    let found = inventories(&report("cosign/cosign.pub"));
    assert!(found.refused.is_empty());
    let of = |format: Format| {
        let mut all = found.inventories.iter().filter(|one| one.format == format);
        let one = all.next().unwrap();
        assert!(all.next().is_none() && one.signed);
        one
    };
    let cyclone = of(Format::CycloneDx);
    // Two at the top, one and what it holds; the image itself is not among them.
    assert_eq!(cyclone.packages.len(), 4);
    let searched = cyclone.search(&[
        ban("npm", "lodash", "<4.17.21"),
        ban("deb", "openssl", "<3.0.11-1~deb12u2"),
        ban("pypi", "Requests", ">=2.31.0"),
        ban("npm", "left-pad", "*"),
    ]);
    let mut banned: Vec<_> = searched.banned.iter().map(|f| f.package.as_str()).collect();
    banned.sort_unstable();
    assert_eq!(banned, ["npm/lodash@4.17.20", "pypi/requests@2.31.0"]);
    assert!(searched.undecided.is_empty());
    let spdx = of(Format::Spdx);
    assert_eq!(spdx.packages.len(), 2);
    assert!(!spdx.search(&[ban("deb", "bash", "<=5.2.15-2+b2")]).holds());
    assert!(spdx.search(&[ban("deb", "bash", "<5.2.15-2+b2")]).holds());

    // Nobody whose word counts attested them.
    assert!(
        inventories(&report("cosign/other.pub"))
            .inventories
            .is_empty()
    );
}

#[test]
fn names_are_compared_as_their_ecosystem_spells_them() {
    for (purl, banned, expected) in [
        ("pkg:pypi/Foo_Bar@1.0", ban("pypi", "foo.bar", "*"), true),
        (
            "pkg:cargo/foo_bar@1.0.0",
            ban("cargo", "foo-bar", "*"),
            true,
        ),
        ("pkg:npm/foo_bar@1.0.0", ban("npm", "foo-bar", "*"), false),
        (
            "pkg:npm/%40scope/name@1.0.0",
            ban("npm", "@scope/name", "*"),
            true,
        ),
        (
            "pkg:npm/%40scope/name@1.0.0",
            ban("npm", "name", "*"),
            false,
        ),
        ("pkg:npm/name@1.0.0", ban("npm", "@scope/name", "*"), false),
        (
            "pkg:deb/debian/curl@7.88.1-10",
            ban("deb", "curl", "<8"),
            true,
        ),
        (
            "pkg:deb/debian/curl@7.88.1-10",
            ban("deb", "ubuntu/curl", "*"),
            false,
        ),
        (
            "pkg:deb/debian/curl@1%3A7.88.1-10",
            ban("deb", "curl", "<8"),
            false,
        ),
        (
            "pkg:rpm/fedora/curl@7.50.3-1.fc25?epoch=1",
            ban("rpm", "curl", "<8"),
            false,
        ),
        (
            "pkg:rpm/fedora/curl@7.50.3-1.fc25",
            ban("rpm", "curl", "<8"),
            true,
        ),
        (
            "pkg:golang/github.com/Foo/bar@v1.2.3",
            ban("golang", "github.com/foo/bar", "<v1.3.0"),
            true,
        ),
        ("pkg:npm/curl@7.0.0", ban("deb", "curl", "*"), false),
    ] {
        assert_eq!(
            found(&url(purl), &banned),
            Some(expected),
            "{purl} {banned}"
        );
    }
}

#[test]
fn what_cannot_be_decided_does_not_hold() {
    let unlabelled = parse(&cyclone(
        json!([{"name": "log4j-core", "version": "2.14.1"}]),
    ))
    .unwrap();
    let log4j = ban("maven", "org.apache.logging.log4j/log4j-core", "<2.17.0");
    assert_eq!(found(&unlabelled, &log4j), None);
    let maven = url("pkg:maven/org.apache.logging.log4j/log4j-core@2.14.1");
    assert_eq!(found(&maven, &log4j), None);
    assert_eq!(
        found(
            &maven,
            &ban("maven", "org.apache.logging.log4j/log4j-core", "*")
        ),
        Some(true)
    );
    assert_eq!(
        found(&maven, &ban("maven", "org.other/log4j-core", "<1")),
        Some(false)
    );
    let grouped = parse(&cyclone(
        json!([{"group": "org.other", "name": "log4j-core", "version": "1"}]),
    ))
    .unwrap();
    assert_eq!(found(&grouped, &log4j), Some(false));
    assert_eq!(
        found(&url("pkg:npm/lodash"), &ban("npm", "lodash", "<1.0.0")),
        None
    );
    assert_eq!(
        found(
            &url("pkg:npm/lodash@latest"),
            &ban("npm", "lodash", "<1.0.0")
        ),
        None
    );
    let underscored = parse(&cyclone(json!([{"name": "foo_bar"}]))).unwrap();
    assert_eq!(found(&underscored, &ban("cargo", "foo-bar", "*")), None);
    let broken = parse(&cyclone(json!([{"name": "lodash", "purl": "no purl"}]))).unwrap();
    assert_eq!(found(&broken, &ban("npm", "lodash", "<1.0.0")), None);
    let empty = parse(&cyclone(json!([]))).unwrap();
    assert_eq!(found(&empty, &log4j), None);
    assert!(empty.search(&[]).holds());
    assert_eq!(found(&url("pkg:oci/app@sha256%3Aaa"), &log4j), None);
    let mut itself = cyclone(json!([]));
    itself["metadata"]["component"] = json!({"name": "app", "components": []});
    assert_eq!(found(&parse(&itself).unwrap(), &log4j), None);
    itself["metadata"]["component"]["components"] =
        json!([{"name": "x", "purl": "pkg:npm/x@1.0.0"}]);
    assert_eq!(found(&parse(&itself).unwrap(), &log4j), Some(false));
}

#[test]
fn what_is_no_inventory_says_so() {
    for document in [
        json!({}),
        json!([]),
        json!({"spdxVersion": "SPDX-3.0", "packages": []}),
        json!({"bomFormat": "CycloneDX", "specVersion": "2.0"}),
        json!({"bomFormat": "Other", "specVersion": "1.5"}),
        json!({"bomFormat": "CycloneDX", "specVersion": "1.5", "spdxVersion": "SPDX-2.3"}),
        json!({"spdxVersion": "SPDX-2.3", "packages": [{"versionInfo": "1"}]}),
    ] {
        assert!(
            matches!(parse(&document), Err(SbomError::Malformed(_))),
            "{document}"
        );
    }
    let twice = r#"{"bomFormat":"CycloneDX","specVersion":"1.5","components":[],"components":[]}"#;
    assert!(Inventory::parse(twice.as_bytes(), Digest::of(b"")).is_err());
    let plain = parse(&cyclone(json!([]))).unwrap();
    assert!(!plain.signed);
}

#[test]
fn an_inventory_is_bounded() {
    let of = |count: usize| {
        let packages = vec![json!({"name": "x"}); count];
        parse(&json!({"spdxVersion": "SPDX-2.3", "packages": packages}))
    };
    assert_eq!(of(PACKAGES).unwrap().packages.len(), PACKAGES);
    assert!(matches!(of(PACKAGES + 1), Err(SbomError::Packages)));
    let named = |length: usize| parse(&cyclone(json!([{"name": "x".repeat(length)}])));
    assert!(named(TEXT_BYTES).is_ok());
    assert!(matches!(named(TEXT_BYTES + 1), Err(SbomError::Text)));
    let mut long = cyclone(json!([])).to_string().into_bytes();
    long.resize(BYTES, b' ');
    assert!(Inventory::parse(&long, Digest::of(b"")).is_ok());
    long.push(b' ');
    assert!(matches!(
        Inventory::parse(&long, Digest::of(b"")),
        Err(SbomError::Unbounded(_))
    ));
    let many = |count: usize| {
        parse(&cyclone(
            vec![json!({"name": "x", "purl": "pkg:npm/x@1.0.0"}); count].into(),
        ))
        .unwrap()
        .search(&[ban("npm", "x", "*")])
    };
    assert_eq!(
        (many(FINDINGS).banned.len(), many(FINDINGS).more),
        (FINDINGS, 0)
    );
    let beyond = many(FINDINGS + 1);
    assert_eq!((beyond.banned.len(), beyond.more), (FINDINGS, 1));
}

#[test]
fn a_ban_names_ecosystem_package_and_range() {
    for (ecosystem, name, range) in [
        ("", "x", "*"),
        ("npm/x", "x", "*"),
        ("npm", "", "*"),
        ("npm", "x/", "*"),
        ("npm", "x y", "*"),
        ("pypi", "-", "*"),
        ("npm", "x", ""),
        ("npm", "x", "<one"),
    ] {
        assert!(
            Ban::new(ecosystem, name, range).is_err(),
            "{ecosystem} {name} {range}"
        );
    }
    let long = |length: usize| Ban::new("npm", &"x".repeat(length), "*");
    assert!(long(256).is_ok());
    assert_eq!(long(257).unwrap_err(), BanError::Name);
}
