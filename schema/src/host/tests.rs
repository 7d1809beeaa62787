#![allow(clippy::unwrap_used)]
use super::*;

fn name(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn every_spelling_of_a_name_is_one_value() {
    for spelling in [
        "example.com",
        "EXAMPLE.com.",
        "example\u{ff0e}com",
        "example\u{3002}com",
        "example\u{ff61}com\u{3002}",
        "\u{ff45}xample.com",
        "exam\u{ad}ple.com",
        "ⓔxample.com",
    ] {
        assert_eq!(
            HostName::parse(spelling).as_ref().map(HostName::as_str),
            Ok("example.com"),
            "{spelling:?}"
        );
    }
    assert_eq!(name("Bücher.example").as_str(), "xn--bcher-kva.example");
    assert_eq!(
        name("bu\u{308}cher.example").as_str(),
        "xn--bcher-kva.example"
    );
    assert_eq!(
        name("XN--BCHER-KVA.example").as_str(),
        "xn--bcher-kva.example"
    );
    assert_eq!(name("faß.example").as_str(), "xn--fa-hia.example");
    assert_ne!(
        name("\u{0430}pple.com"),
        name("apple.com"),
        "a Cyrillic look-alike is another name"
    );
    assert_eq!(
        name("r3---sn-x.googlevideo.com").as_str(),
        "r3---sn-x.googlevideo.com"
    );
}

#[test]
fn what_is_not_a_host_name_is_refused() {
    for text in [
        "",
        ".",
        "..",
        "a..b",
        ".a.b",
        "a.b..",
        "a_b.com",
        "_dmarc.example.com",
        "-a.com",
        "a-.com",
        "a b.com",
        "a\0.com",
        "a\tb.com",
        "a.com:443",
        "user@a.com",
        "a.com/",
        "a%2ecom",
        "a*.com",
        "*.a.com",
        "xn--a.com",
        "xn--.com",
        "xn--bcher-.com",
        "a\u{202e}b.com",
        "a\u{fffd}.com",
        "\u{301}a.com",
        "a\\b.com",
        "a,b.com",
        "a\u{ff3f}b.com",
        "a\u{ff0f}b.com",
    ] {
        assert!(
            HostName::parse(text).is_err(),
            "{text:?} parsed as {:?}",
            HostName::parse(text)
        );
    }
}

#[test]
fn no_spelling_of_an_address_is_a_name() {
    for text in [
        "127.0.0.1",
        "127.0.0.1.",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "0",
        "0x",
        "1.2.3",
        "1.2.3.4.5",
        "a.1",
        "foo.0x1",
        "foo.09",
        "\u{ff11}\u{ff12}\u{ff17}.0.0.1",
        "127\u{3002}0\u{3002}0\u{3002}1",
        "①.②.③.④",
        "::1",
        "[::1]",
        "fe80::1%eth0",
        "::ffff:1.2.3.4",
        "[2606:4700::1111]",
        "999.999.999.999",
        "10.0.0.0/8",
        "\u{ff10}\u{ff58}7f",
    ] {
        let error = HostName::parse(text).unwrap_err();
        assert!(
            matches!(error, HostError::Address | HostError::Invalid),
            "{text:?}: {error}"
        );
    }
    assert_eq!(HostName::parse("127.0.0.1"), Err(HostError::Address));
    assert_eq!(HostName::parse("::1"), Err(HostError::Address));
    assert_eq!(HostPattern::parse("10.1.2.3"), Err(HostError::Address));
    assert!(HostError::Address.to_string().contains("`networks`"));
    assert!(HostName::parse("10.0.0.1.nip.io").is_ok());
    assert!(HostName::parse("1e100.net").is_ok());
    assert!(HostName::parse("0xcafe.example").is_ok());
}

#[test]
fn names_are_held_to_253_bytes_and_labels_to_63() {
    let label63 = "a".repeat(63);
    assert!(HostName::parse(&format!("{label63}.com")).is_ok());
    assert!(HostName::parse(&format!("{label63}a.com")).is_err());
    let at_limit = format!("{label63}.{label63}.{label63}.{}", "a".repeat(61));
    assert_eq!(at_limit.len(), MAX_NAME_BYTES);
    assert!(HostName::parse(&at_limit).is_ok());
    assert!(
        HostName::parse(&format!("{at_limit}.")).is_ok(),
        "the root's dot does not count"
    );
    assert_eq!(
        HostName::parse(&format!("{at_limit}a")),
        Err(HostError::Length)
    );
    assert_eq!(
        HostName::parse(&"a".repeat(MAX_SPELLING_BYTES + 1)),
        Err(HostError::Length)
    );
    let soft = |n: usize| format!("{}a.com", "\u{ad}".repeat(n));
    assert_eq!(soft(509).len(), MAX_SPELLING_BYTES - 1);
    assert!(HostName::parse(&format!("{}.", soft(509))).is_ok());
    assert_eq!(
        HostName::parse(&format!("{}..", soft(509))),
        Err(HostError::Length)
    );
}

#[test]
fn the_canonical_form_is_a_fixed_point() {
    for text in [
        "example.com",
        "xn--bcher-kva.example",
        "a.b.c.d",
        "localhost",
        "x-1.y--2.z",
    ] {
        assert_eq!(name(text).as_str(), text);
        assert_eq!(name(name(text).as_str()), name(text));
    }
}

#[test]
fn a_wildcard_compares_label_by_label() {
    let wildcard = HostPattern::parse("*.Example.com").unwrap();
    assert_eq!(wildcard.to_string(), "*.example.com");
    for below in ["a.example.com", "a.b.c.example.com", "A.EXAMPLE.COM."] {
        assert!(wildcard.matches(&name(below)), "{below}");
    }
    for other in [
        "example.com",
        "evilexample.com",
        "example.com.evil.tld",
        "a.example.org",
        "com",
        "example.co",
    ] {
        assert!(!wildcard.matches(&name(other)), "{other}");
    }
    let exact = HostPattern::parse("example.com.").unwrap();
    assert!(exact.matches(&name("EXAMPLE.com")));
    assert!(!exact.matches(&name("a.example.com")));
}

#[test]
fn a_wildcard_over_a_public_suffix_is_refused_in_words() {
    for text in [
        "*.com",
        "*.co.uk",
        "*.github.io",
        "*.internal",
        "*.workers.dev",
        "*.s3.amazonaws.com",
        "*.公司.cn",
        "*.xn--55qx5d.cn",
        "*.CO.UK.",
    ] {
        assert_eq!(
            HostPattern::parse(text),
            Err(HostError::PublicSuffix),
            "{text}"
        );
    }
    for text in [
        "*.example.com",
        "*.example.co.uk",
        "*.me.github.io",
        "*.corp.internal",
        "*.github.com",
    ] {
        assert!(HostPattern::parse(text).is_ok(), "{text}");
    }
    assert!(
        HostPattern::parse("github.io").is_ok(),
        "the suffix's own page is one name"
    );
}

#[test]
fn a_star_stands_only_for_whole_labels_at_the_front() {
    for text in [
        "*",
        "**",
        "*.*.com",
        "a.*.com",
        "*a.example.com",
        "a*.example.com",
        "**.example.com",
        "*.example.*",
    ] {
        assert_eq!(HostPattern::parse(text), Err(HostError::Wildcard), "{text}");
    }
    assert_eq!(HostPattern::parse("*."), Err(HostError::Empty));
    assert_eq!(HostPattern::parse("localhost"), Err(HostError::SingleLabel));
    assert_eq!(
        HostPattern::parse("*\u{ff0e}example.com"),
        Err(HostError::Wildcard)
    );
}

#[test]
fn parents_go_from_nearest_to_root() {
    assert_eq!(name("a.b.c").parents().collect::<Vec<_>>(), ["b.c", "c"]);
    assert_eq!(name("a.b.c").labels().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(name("localhost").parents().count(), 0);
    assert_eq!(name("a.b.c").label_count(), 3);
}

#[test]
fn deserialising_parses() {
    assert_eq!(
        serde_json::from_str::<HostName>(r#""EXAMPLE.com.""#).unwrap(),
        name("example.com")
    );
    assert!(serde_json::from_str::<HostName>(r#""127.0.0.1""#).is_err());
    assert!(serde_json::from_str::<HostPattern>(r#""*.com""#).is_err());
    assert_eq!(
        serde_json::to_string(&HostPattern::parse("*.A.example").unwrap()).unwrap(),
        r#""*.a.example""#
    );
}

#[test]
fn two_patterns_meet_in_the_narrower_one_or_not_at_all() {
    let parse = |text: &str| HostPattern::parse(text).unwrap();
    for (a, b, both) in [
        ("a.example.com", "a.example.com", Some("a.example.com")),
        ("a.example.com", "b.example.com", None),
        ("*.example.com", "a.example.com", Some("a.example.com")),
        ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
        ("*.example.com", "example.com", None),
        ("*.example.com", "evilexample.com", None),
        ("*.example.com", "*.example.com", Some("*.example.com")),
        ("*.example.com", "*.b.example.com", Some("*.b.example.com")),
        ("*.b.example.com", "b.example.com", None),
        ("*.a.example", "*.b.example", None),
    ] {
        let shown = |both: Option<HostPattern>| both.map(|both| both.to_string());
        let both = both.map(str::to_owned);
        assert_eq!(shown(parse(a).intersect(&parse(b))), both, "{a} {b}");
        assert_eq!(shown(parse(b).intersect(&parse(a))), both, "{b} {a}");
    }
}
