//! What strangers write about features: a feature's own file, and the devcontainer CLI's lockfile. Reading them never panics, what is
//! read of a feature can be ordered, and a lockfile that is written reads back.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use registry::feature::Feature;
use registry::feature::order::{MAX_STEPS, order};
use schema::config::feature::{FeatureId, Options};
use schema::devcontainer_lock::DevcontainerLock;
use schema::digest::Digest;

fuzz_target!(|data: &[u8]| {
    if let Ok(lock) = DevcontainerLock::parse(data, "devcontainer-lock.json") {
        let again = DevcontainerLock::parse(lock.to_text().as_bytes(), "again");
        // Written with more spaces, it may have become too large.
        assert!(again.is_err() || again.is_ok_and(|again| again == lock));
    }
    let Ok(metadata) = schema::feature::parse(data, "devcontainer-feature.json") else {
        return;
    };
    let feature = |metadata| Feature {
        digest: Digest::of(data),
        media_type: String::new(),
        metadata,
    };
    let mut known: BTreeMap<FeatureId, Feature> = BTreeMap::new();
    // Everything that it names is what it is: circles among them.
    for (id, _) in &metadata.depends_on {
        known.insert(id.clone(), feature(metadata.clone()));
    }
    for id in &metadata.installs_after {
        known.insert(id.clone(), feature(metadata.clone()));
    }
    let named: Vec<_> = known
        .keys()
        .map(|id| (id.clone(), Options::default()))
        .collect();
    if let Ok(steps) = order(&named, &known, &metadata.installs_after) {
        assert!(steps.len() <= MAX_STEPS);
    }
    let _ = metadata.demands.refused();
    let _ = metadata.demands.shown();
});
