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
            AcceptError::Issuer,
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
        assert_eq!(
            Identity::new("https://issuer.test", subject).unwrap_err(),
            AcceptError::Subject,
            "{subject:?}"
        );
    }
}

#[test]
fn a_pattern_is_anchored_and_its_wildcard_stops_at_a_slash() {
    let pattern = Pattern::parse("https://host.test/org/repo/w.yml@refs/tags/*").unwrap();
    for (subject, expected) in [
        ("https://host.test/org/repo/w.yml@refs/tags/v1", true),
        ("https://host.test/org/repo/w.yml@refs/tags/", true),
        ("https://host.test/org/repo/w.yml@refs/tags/a/b", false),
        ("https://host.test/org/repo/w.yml@refs/heads/v1", false),
        ("xhttps://host.test/org/repo/w.yml@refs/tags/v1", false),
        ("https://host.test/org/repo/w.yml@refs/tags", false),
    ] {
        assert_eq!(pattern.matches(&uri(subject)), expected, "{subject}");
        assert!(!pattern.matches(&email(subject)));
    }
    let deep = Pattern::parse("https://host.test/org/**@refs/heads/*-x").unwrap();
    assert!(deep.matches(&uri("https://host.test/org/a/b@c/d@refs/heads/1-x-x")));
    assert!(!deep.matches(&uri("https://host.test/org/a/b@refs/heads/1/2-x")));
    assert!(!deep.matches(&uri("https://host.test/orga@refs/heads/1-x")));
    let address = Pattern::parse("*@example.test").unwrap();
    assert!(address.matches(&email("ann@example.test")));
    assert!(!address.matches(&email("ann@example.test.evil")));
    assert!(!address.matches(&email("ann@sub.example.test")));
    assert!(!address.matches(&uri("ann@example.test")));
    let exact = Pattern::parse("https://host.test/x").unwrap();
    assert!(exact.matches(&uri("https://host.test/x")));
    assert!(!exact.matches(&uri("https://host.test/x/")));
}

#[test]
fn many_wildcards_do_not_take_for_ever() {
    let pattern = Pattern::parse(&format!("https://h.test/o/{}b", "*a".repeat(500))).unwrap();
    let text = format!("https://h.test/o/{}", "a".repeat(1_900));
    let began = std::time::Instant::now();
    assert!(!pattern.matches(&uri(&text)));
    assert!(began.elapsed().as_secs() < 2);
}

#[test]
fn a_name_is_bounded_and_so_are_signers() {
    let at = |length: usize| format!("https://h.test/{}", "a".repeat(length - 15));
    assert!(Pattern::parse(&at(NAME_BYTES)).is_ok());
    assert!(Pattern::parse(&at(NAME_BYTES + 1)).is_err());
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
