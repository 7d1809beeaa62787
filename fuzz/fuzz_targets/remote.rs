//! The address of a git remote: what comes out is one repository of one host, and stands in a path and in a glob for itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::remote::{MAX_ADDRESS_BYTES, MAX_PART_BYTES, Remote};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Some(remote) = Remote::parse(text) else {
        return;
    };
    assert!(text.len() <= MAX_ADDRESS_BYTES);
    let shown = remote.to_string();
    let (owner, name) = shown.split_once('/').unwrap();
    for part in [owner, name] {
        assert!((1..=MAX_PART_BYTES).contains(&part.len()) && !part.starts_with('.'));
        assert!(
            part.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        );
        assert!(text.contains(part));
    }
    let lower = name.to_ascii_lowercase();
    assert!(!lower.ends_with(".git") && !lower.ends_with(".wiki"));
    let host = remote.host();
    assert!(
        !host.is_empty()
            && host
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-".contains(&b))
    );
    assert!(text.to_ascii_lowercase().contains(host));
    for again in [
        format!("https://{host}/{shown}.git"),
        format!("ssh://git@{host}:22/{shown}"),
        format!("git@{host}:{shown}.git"),
    ] {
        assert!(
            again.len() > MAX_ADDRESS_BYTES || Remote::parse(&again).as_ref() == Some(&remote),
            "{again}"
        );
    }
});
