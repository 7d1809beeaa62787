//! A lockfile is a stranger's: reading it never panics, what is read is written the same again, and drifts from itself in nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::image::ImageRef;
use schema::lockfile::Lockfile;

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
    let wanted: Vec<(String, ImageRef)> = lockfile
        .pins()
        .map(|(name, pin)| (name.to_owned(), pin.reference.clone()))
        .collect();
    assert!(lockfile.drift(&wanted).is_empty());
});
