#![allow(clippy::unwrap_used)]
use std::process::Command;

use super::*;

const DEBIAN: [&str; 18] = [
    "1.0",
    "1.0-1",
    "1.0~rc1-1",
    "1.0~~",
    "1.0~~a",
    "1.0+b1",
    "1.0a",
    "1.00-1",
    "1:0.1",
    "0:1.0-1",
    "2.0-1+deb12u1",
    "2.0-1~bpo12+1",
    "3.0.11-1~deb12u2",
    "3.0.9-1",
    "1.2.3-4-5",
    "9999999999999999999999.1",
    "1.0.0-0ubuntu0.22.04.1",
    "1.0-10",
];

#[test]
fn debians_order_is_what_dpkg_says() {
    for left in DEBIAN {
        for right in DEBIAN {
            let ours = compare("deb", left, right).unwrap();
            let says = |operator: &str| {
                Command::new("dpkg")
                    .args(["--compare-versions", left, operator, right])
                    .status()
                    .unwrap()
                    .success()
            };
            let dpkg = if says("lt") {
                Ordering::Less
            } else if says("eq") {
                Ordering::Equal
            } else {
                Ordering::Greater
            };
            assert_eq!(ours, dpkg, "{left} {right}");
        }
    }
}

#[test]
fn each_ecosystem_has_its_own_order() {
    for (ecosystem, left, right) in [
        ("npm", "1.0.0-alpha.2", "1.0.0-alpha.10"),
        ("npm", "1.0.0-rc.1", "1.0.0"),
        ("npm", "v1.9.0", "1.10.0"),
        ("cargo", "0.9.9", "0.10.0"),
        ("golang", "v0.0.0-20200101000000-abcdef012345", "v0.0.1"),
        ("golang", "v2.0.0+incompatible", "v2.0.1"),
        ("pypi", "1.0.dev1", "1.0a1"),
        ("pypi", "1.0rc1", "1.0"),
        ("pypi", "1.0", "1.0.post1"),
        ("pypi", "2.0", "1!0.1"),
        ("deb", "1.0~rc1", "1.0"),
        ("deb", "1.0-1~deb12u1", "1.0-1"),
        ("rpm", "1.0~rc1-1", "1.0-1"),
        ("rpm", "1.0-1", "1.0^git1-1"),
        ("rpm", "9.9-1", "1:0.1-1"),
        ("rpm", "1.0-9.el9", "1.0-10.el9"),
    ] {
        assert_eq!(
            compare(ecosystem, left, right),
            Some(Ordering::Less),
            "{left} {right}"
        );
        assert_eq!(
            compare(ecosystem, right, left),
            Some(Ordering::Greater),
            "{left} {right}"
        );
    }
    assert_eq!(compare("pypi", "1.0", "1.0.0"), Some(Ordering::Equal));
    assert_eq!(
        compare("golang", "v2.0.0+incompatible", "v2.0.0"),
        Some(Ordering::Equal)
    );
    assert_eq!(
        compare("rpm", "3.0.7-18.el9", "3.0.7"),
        Some(Ordering::Equal)
    );
    for (ecosystem, version) in [
        ("npm", "1.0"),
        ("npm", "latest"),
        ("golang", "(devel)"),
        ("pypi", "one"),
        ("deb", "one"),
        ("deb", "x:1"),
        ("rpm", ""),
        ("maven", "1.0"),
    ] {
        assert_eq!(
            compare(ecosystem, version, version),
            None,
            "{ecosystem} {version}"
        );
    }
}

#[test]
fn a_range_is_alternatives_of_comparisons() {
    let contains =
        |range: &str, version| Range::parse("npm", range).unwrap().contains("npm", version);
    for (range, version, expected) in [
        ("<4.17.21", Some("4.17.20"), Some(true)),
        ("<4.17.21", Some("4.17.21"), Some(false)),
        ("<4.17.21", Some("4.17.21-rc.1"), Some(true)),
        (">=1.0.0, <2.0.0", Some("1.5.0"), Some(true)),
        (">=1.0.0, <2.0.0", Some("2.0.0"), Some(false)),
        ("<1.0.0 || =3.0.0", Some("3.0.0"), Some(true)),
        ("<1.0.0 || 3.0.0", Some("3.0.1"), Some(false)),
        (">1.0.0,<=2.0.0", Some("2.0.0"), Some(true)),
        ("*", None, Some(true)),
        ("*", Some("whatever"), Some(true)),
        ("<1.0.0", None, None),
        ("<1.0.0", Some("whatever"), None),
        ("<1.0.0 || *", None, Some(true)),
    ] {
        assert_eq!(contains(range, version), expected, "{range} {version:?}");
    }
    for bad in [
        "", ",", "||", "<", "^1.0.0", "~1.0.0", "<1.0.0,", "1.0", "<1 .0.0", "!=1.0.0",
    ] {
        assert!(Range::parse("npm", bad).is_err(), "{bad:?}");
    }
}

#[test]
fn without_rules_only_equality_and_every_version_are_decided() {
    let contains = |range: &str, version: &str| {
        Range::parse("maven", range)
            .unwrap()
            .contains("maven", Some(version))
    };
    assert_eq!(contains("*", "2.14.1"), Some(true));
    assert_eq!(contains("=2.14.1", "2.14.1"), Some(true));
    assert_eq!(contains("<=2.14.1", "2.14.1"), Some(true));
    assert_eq!(contains("<2.14.1", "2.14.1"), Some(false));
    assert_eq!(contains("<2.17.0", "2.14.1"), None);
    assert_eq!(contains("=2.14.1", "2.14.1.0"), None);
    assert_eq!(contains(">=2.0, <2.0", "2.0"), Some(false));
    let is_decidable = |ecosystem: &str, range: &str| {
        Range::parse(ecosystem, range)
            .unwrap()
            .is_decidable(ecosystem)
    };
    assert!(is_decidable("maven", "*") && is_decidable("maven", "<2 || *"));
    assert!(is_decidable("npm", "<2.0.0"));
    for open in ["<2", "=2", ">=1 <2 || =3"] {
        assert!(!is_decidable("maven", open), "{open}");
    }
}

#[test]
fn a_range_is_bounded() {
    let of = |count: usize| Range::parse("npm", &vec!["<1.0.0"; count].join(","));
    assert!(of(CONSTRAINTS).is_ok());
    assert_eq!(of(CONSTRAINTS + 1), Err(BanError::TooLong));
    let long = |length: usize| Range::parse("npm", &format!("<1.0.0{}", " ".repeat(length - 6)));
    assert!(long(RANGE_BYTES).is_ok());
    assert_eq!(long(RANGE_BYTES + 1), Err(BanError::TooLong));
}
