//! Statements: reading one never panics, what it names it names in its own text, and what a pattern matches is not what it cannot.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::attestation::Statement;
use registry::signature::{Identity, Subject};
use schema::digest::Digest;

fuzz_target!(|data: &[u8]| {
    if let Ok(statement) = Statement::parse(data) {
        let digest = Digest::of(b"subject");
        if statement.names(&Subject::from(&digest)) {
            assert!(String::from_utf8_lossy(data).contains(&digest.hex()[..8]));
        }
        let _ = statement.predicate::<std::collections::BTreeMap<String, String>>();
    }
    let text = String::from_utf8_lossy(data);
    if let Some((issuer, subject)) = text.split_once('\n')
        && let Ok(identity) = Identity::new(issuer, subject)
    {
        assert!(identity.issuer().starts_with("https://") && !issuer.contains('*'));
        assert!(subject.contains('@') || subject.contains("://"));
        assert!(!subject.trim_end_matches('*').contains('*') && !subject.ends_with("**"));
    }
});
