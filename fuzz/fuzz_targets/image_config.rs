//! An image's configuration is a stranger's: reading it never panics, it differs from itself in nothing, and what it says that nothing
//! said differs from nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::drift::{Change, Facts};

fuzz_target!(|data: &[u8]| {
    let mut facts = Facts::default();
    match facts.add_configuration(data) {
        Ok(()) => {}
        Err(why) => {
            assert!(!why.is_empty());
            return;
        }
    }
    assert!(facts.compare(&facts).is_empty());
    let all = Facts::default().compare(&facts);
    assert!(!all.is_empty(), "a user, at the least");
    assert!(all.iter().all(|one| one.change == Change::Added));
    let gone = facts.compare(&Facts::default());
    assert_eq!(gone.len(), all.len());
});
