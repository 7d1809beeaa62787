#![allow(clippy::unwrap_used)]
use super::*;

fn uri(text: &str) -> SubjectAltName {
    SubjectAltName::Uri(text.to_owned())
}

fn email(text: &str) -> SubjectAltName {
    SubjectAltName::Email(text.to_owned())
}

#[test]
fn anybody_cannot_be_written() {
    assert_eq!(
        Accept::new(vec![], vec![]).unwrap_err(),
        AcceptError::Nobody
    );
    for issuer in [
        "",
        "*",
        "https://",
        "https://*",
        "https://*.example.test",
        "http://issuer.test",
        "https:///x",
        "https://issuer.test/ x",
    ] {
        assert_eq!(
            Identity::new(issuer, "ann@example.test").unwrap_err(),
            AcceptError::Issuer(SignerError::Issuer),
            "{issuer:?}"
        );
    }
    for subject in [
        "",
        "*",
        "**",
        "*@*",
        "*@",
        "@example.test",
        "ann@*.test",
        "**://**",
        "https://*",
        "https://**",
        "https://host.test/*",
        "https://host.test/**",
        "https://host.test/o*/x",
        "https://*.test/org/x",
        "https://host.test//**",
        "*://host.test/org/x",
        "https://host.test/org/***",
        "ann",
        "an n@example.test",
        "ann@example.test/x@y*",
    ] {
        let refused = Identity::new("https://issuer.test", subject).unwrap_err();
        assert!(
            matches!(refused, AcceptError::Subject(_)),
            "{subject:?}: {refused}"
        );
    }
}

#[test]
fn a_pattern_is_anchored_and_an_address_is_no_uri() {
    let of = |subject: &str| Identity::new("https://issuer.test", subject).unwrap();
    let pattern = of("https://host.test/org/repo/w.yml@*");
    for (subject, expected) in [
        ("https://host.test/org/repo/w.yml@refs/tags/v1", true),
        ("https://host.test/org/repo/w.yml@refs/heads/a/b", true),
        ("https://host.test/org/repo/w.yml@", false),
        ("https://host.test/org/repo/w.yml", false),
        ("xhttps://host.test/org/repo/w.yml@refs/tags/v1", false),
        ("https://host.test/org/repo2/w.yml@refs/tags/v1", false),
    ] {
        assert_eq!(pattern.is(&uri(subject)), expected, "{subject}");
        assert!(!pattern.is(&email(subject)));
    }
    let address = of("ann@example.test");
    assert!(address.is(&email("ann@example.test")));
    assert!(!address.is(&email("ann@example.test.evil")));
    assert!(!address.is(&email("joann@example.test")));
    assert!(!address.is(&uri("ann@example.test")));
    let exact = of("https://host.test/x");
    assert!(exact.is(&uri("https://host.test/x")));
    assert!(!exact.is(&uri("https://host.test/x/")));
}

#[test]
fn signers_are_bounded() {
    let many = |n| vec![Identity::new("https://i.test", "a@b.test").unwrap(); n];
    assert!(Accept::new(vec![], many(SIGNERS)).is_ok());
    assert_eq!(
        Accept::new(vec![], many(SIGNERS + 1)).unwrap_err(),
        AcceptError::TooMany
    );
}

#[test]
fn a_key_is_one_public_key_of_a_known_kind() {
    let pem = include_str!("../../../testdata/cosign/cosign.pub");
    let key = Key::from_pem(pem, Log::NotDemanded).unwrap();
    assert_eq!(key.algorithm, KeyAlgorithm::EcdsaP256);
    for bad in [
        String::new(),
        "PUBLIC KEY".to_owned(),
        pem.replace("PUBLIC KEY", "CERTIFICATE"),
        format!("{pem}{pem}"),
        pem.replace("MFkw", "MFkx"),
        format!("{}{pem}", " ".repeat(KEY_BYTES)),
    ] {
        assert!(
            matches!(
                Key::from_pem(&bad, Log::NotDemanded),
                Err(AcceptError::Key(_))
            ),
            "{bad}"
        );
    }
    let room = KEY_BYTES - pem.len();
    assert!(Key::from_pem(&format!("{}{pem}", "\n".repeat(room)), Log::Demanded).is_ok());
}
