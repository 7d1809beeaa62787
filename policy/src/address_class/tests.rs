#![allow(clippy::unwrap_used)]
use super::*;

fn class(text: &str) -> Class {
    classify(text.parse().unwrap())
}

/// N04, C20, C21, D05 of the escape attempts, and the edges of every range.
#[test]
fn every_special_address_has_its_class() {
    use Class::*;
    for (text, expected) in [
        ("1.1.1.1", Public),
        ("0.0.0.0", Unspecified),
        ("0.255.255.255", Unspecified),
        ("1.0.0.0", Public),
        ("9.255.255.255", Public),
        ("10.0.0.0", Private),
        ("10.255.255.255", Private),
        ("11.0.0.0", Public),
        ("100.63.255.255", Public),
        ("100.64.0.0", Private),
        ("100.100.100.199", Private),
        ("100.100.100.200", Metadata),
        ("100.127.255.255", Private),
        ("100.128.0.0", Public),
        ("126.255.255.255", Public),
        ("127.0.0.1", Loopback),
        ("127.255.255.255", Loopback),
        ("128.0.0.0", Public),
        ("168.63.129.15", Public),
        ("168.63.129.16", Metadata),
        ("169.253.255.255", Public),
        ("169.254.0.1", LinkLocal),
        ("169.254.0.23", Metadata),
        ("169.254.42.42", Metadata),
        ("169.254.168.255", LinkLocal),
        ("169.254.169.123", Metadata),
        ("169.254.169.253", Metadata),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("169.254.170.23", Metadata),
        ("169.254.171.0", LinkLocal),
        ("169.255.0.0", Public),
        ("172.15.255.255", Public),
        ("172.16.0.0", Private),
        ("172.17.0.1", Private),
        ("172.31.255.255", Private),
        ("172.32.0.0", Public),
        ("192.0.0.1", Reserved),
        ("192.0.0.192", Metadata),
        ("192.0.1.0", Public),
        ("192.0.2.1", Documentation),
        ("192.88.99.1", Reserved),
        ("192.167.255.255", Public),
        ("192.168.65.254", Private),
        ("192.169.0.0", Public),
        ("198.17.255.255", Public),
        ("198.18.0.0", Synthetic),
        ("198.19.255.255", Synthetic),
        ("198.20.0.0", Public),
        ("198.51.100.7", Documentation),
        ("203.0.113.7", Documentation),
        ("223.255.255.255", Public),
        ("224.0.0.251", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("::", Unspecified),
        ("::1", Loopback),
        ("::2", Unspecified),
        ("2606:4700:4700::1111", Public),
        ("fd00::1", Private),
        ("fcff::1", Private),
        ("fd00:ec2::254", Metadata),
        ("fd00:ec2::23", Metadata),
        ("fd20:ce::254", Metadata),
        ("fd00:42::42", Metadata),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", Private),
        ("ff02::fb", Multicast),
        ("2001:db8::1", Documentation),
        ("3fff::1", Documentation),
        ("100::1", Reserved),
        ("5f00::1", Reserved),
        ("4000::1", Reserved),
        ("2001:2::1", Reserved),
        ("2001:20::1", Reserved),
        ("2001:200::1", Public),
    ] {
        assert_eq!(class(text), expected, "{text}");
    }
}

#[test]
fn an_embedded_ipv4_address_is_seen_through_every_embedding() {
    use Class::*;
    for (text, expected) in [
        // v4-mapped
        ("::ffff:1.1.1.1", Public),
        ("::ffff:127.0.0.1", Loopback),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:0.0.0.0", Unspecified),
        // v4-compatible, v4-translated: not a way to anywhere public
        ("::1.1.1.1", Reserved),
        ("::127.0.0.1", Reserved),
        ("::169.254.169.254", Metadata),
        ("::ffff:0:169.254.169.254", Metadata),
        ("::ffff:0:1.1.1.1", Reserved),
        // NAT64
        ("64:ff9b::1.1.1.1", Public),
        ("64:ff9b::10.0.0.1", Private),
        ("64:ff9b::169.254.169.254", Metadata),
        ("64:ff9b::198.18.0.5", Synthetic),
        ("64:ff9b:1::1.1.1.1", Private),
        // 6to4: refused even when what it wraps is public
        ("2002:101:101::1", Reserved),
        ("2002:a9fe:a9fe::1", Metadata),
        ("2002:7f00:1::1", Reserved),
        ("2002:a00:1::1", Reserved),
        // Teredo of 169.254.169.254 and of 1.1.1.1
        ("2001:0:1:2:3:4:5601:5601", Metadata),
        ("2001:0:1:2:3:4:fefe:fefe", Reserved),
        // ISATAP
        ("2606:4700::5efe:169.254.169.254", Metadata),
        ("2606:4700::200:5efe:10.0.0.1", Private),
        ("2606:4700::5efe:1.1.1.1", Public),
        ("fe80::5efe:1.1.1.1", LinkLocal),
    ] {
        assert_eq!(class(text), expected, "{text}");
    }
}

#[test]
fn only_public_private_link_local_loopback_and_documentation_can_ever_be_opened() {
    use Class::*;
    for class in [Public, Private, LinkLocal, Loopback, Documentation] {
        assert!(!class.never_allowed(), "{class:?}");
    }
    for class in [Metadata, Multicast, Synthetic, Unspecified, Reserved] {
        assert!(class.never_allowed(), "{class:?}");
    }
}

#[test]
fn a_literal_network_is_refused_when_any_part_of_it_can_never_be_allowed() {
    let check = |text: &str| check_network(Cidr::parse(text).unwrap());
    for text in [
        "10.0.0.0/8",
        "10.20.0.0/16",
        "192.168.1.1",
        "172.16.0.0/12",
        "1.1.1.1",
        "169.254.10.0/24",
        "203.0.113.0/24",
        "100.64.0.0/16",
    ] {
        assert_eq!(check(text), Ok(()), "{text}");
    }
    for text in [
        "127.0.0.1",
        "127.0.0.0/8",
        "0.0.0.0",
        "198.18.0.1",
        "198.18.0.0/15",
        "198.16.0.0/12",
        "224.0.0.1",
        "255.255.255.255",
        "169.254.169.254",
        "169.254.0.0/16",
        "169.254.170.2",
        "168.63.129.16",
        "168.0.0.0/8",
        "100.64.0.0/10",
        "100.100.100.200",
        "240.0.0.0/8",
    ] {
        assert!(
            matches!(check(text), Err(NetworkRefusal::Overlaps { .. })),
            "{text}"
        );
    }
    for text in ["0.0.0.0/0", "0.0.0.0/1", "10.0.0.0/7"] {
        assert_eq!(check(text), Err(NetworkRefusal::TooWide), "{text}");
    }
    assert_eq!(
        check("168.63.0.0/16").unwrap_err().to_string(),
        "the network contains 168.63.129.16, which is a cloud metadata address and can never be allowed"
    );
}

#[test]
fn the_table_for_the_kernel_is_the_table_that_classifies() {
    assert_eq!(
        ranges_v4().count(),
        V4.len(),
        "every entry is a canonical network"
    );
    for (range, class) in ranges_v4() {
        assert_eq!(classify(range.addr().into()), class, "{range}");
        assert_ne!(class, Class::Public);
    }
    for (i, (outer, _)) in ranges_v4().enumerate() {
        for (inner, _) in ranges_v4().skip(i + 1) {
            assert!(
                !outer.overlaps(&inner) || outer.prefix() > inner.prefix(),
                "{inner} is hidden by {outer}"
            );
        }
    }
}
