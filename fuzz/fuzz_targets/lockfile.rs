//! A lockfile is a stranger's: reading it never panics, what is read is written the same again, and drifts from itself in nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::lockfile::{Drift, Lockfile, Wanted};

fuzz_target!(|data: &[u8]| {
    let lockfile = match Lockfile::parse(data, "agentcontainer-lock.json") {
        Ok(lockfile) => lockfile,
        Err(diagnostic) => {
            let shown = diagnostic.to_string().replacen("\n  help: ", "", 1);
            assert!(!shown.chars().any(char::is_control), "{shown:?}");
            return;
        }
    };
    let text = lockfile.to_text();
    let again = Lockfile::parse(text.as_bytes(), "again").expect("what is written is read");
    assert_eq!(again, lockfile);
    assert_eq!(again.to_text(), text);
    let wanted = Wanted {
        pins: lockfile
            .pins()
            .map(|(name, pin)| (name.into_owned(), pin.reference.clone()))
            .collect(),
        local: lockfile.local_features.keys().cloned().collect(),
    };
    // What a feature depends on may have no pin; nothing else differs from what is wanted.
    let drift = lockfile.drift(&wanted);
    assert!(drift.iter().all(|d| matches!(d, Drift::Missing { .. })));
});
