//! Any spelling of a host: the canonical form is a fixed point, within its bounds, and never an address for anybody.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use schema::host::{HostName, HostPattern, MAX_LABEL_BYTES, MAX_NAME_BYTES};

/// What inet_aton(3) reads as an address: one to four numbers in decimal, octal or hexadecimal.
fn inet_aton(text: &str) -> bool {
    let number = |part: &str| {
        part.strip_prefix("0x").map_or_else(
            || !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()),
            |hex| hex.bytes().all(|b| b.is_ascii_hexdigit()),
        )
    };
    text.split('.').count() <= 4 && text.split('.').all(number)
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(name) = HostName::parse(text) {
        let canonical = name.as_str();
        assert_eq!(HostName::parse(canonical).as_ref(), Ok(&name), "{text:?}");
        assert_eq!(
            HostName::parse(&format!("{canonical}.")).as_ref(),
            Ok(&name),
            "{text:?}"
        );
        assert_eq!(
            HostName::parse(&canonical.to_ascii_uppercase()).as_ref(),
            Ok(&name),
            "{text:?}"
        );
        assert!(canonical.len() <= MAX_NAME_BYTES);
        for label in name.labels() {
            assert!((1..=MAX_LABEL_BYTES).contains(&label.len()), "{canonical}");
            assert!(
                label
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
                "{canonical}"
            );
            assert!(
                !label.starts_with('-') && !label.ends_with('-'),
                "{canonical}"
            );
        }
        assert!(canonical.parse::<IpAddr>().is_err(), "{canonical}");
        assert!(!inet_aton(canonical), "{canonical}");
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        let shown = pattern.to_string();
        assert_eq!(HostPattern::parse(&shown).as_ref(), Ok(&pattern));
        assert!(pattern.name().label_count() >= 2, "{shown}");
        let is_exact = matches!(pattern, HostPattern::Exact(_));
        assert_eq!(pattern.matches(pattern.name()), is_exact, "{shown}");
        if let Ok(below) = HostName::parse(&format!("x.{}", pattern.name())) {
            assert_eq!(pattern.matches(&below), !is_exact, "{shown}");
        }
        if let Ok(beside) = HostName::parse(&format!("x{}", pattern.name())) {
            assert!(!pattern.matches(&beside), "{shown}");
        }
    }
    let _ = text.parse::<schema::config::agent::Domain>();
    let _ = text.parse::<schema::config::agent::NetworkPort>();
    let _ = text.parse::<policy::explain::Target>();
    if let Ok(image) = text.parse::<schema::image::ImageRef>() {
        assert_eq!(
            image
                .canonical()
                .parse::<schema::image::ImageRef>()
                .as_ref(),
            Ok(&image)
        );
    }
});
