//! Paths and globs: what counts as canonical holds nothing that a server could read as another path, and matching ends.
#![no_main]

use libfuzzer_sys::fuzz_target;
use schema::request::{PathGlob, is_canonical};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let (glob, path) = text.split_once('\n').unwrap_or((text, text));
    if is_canonical(path) {
        assert!(path.starts_with('/') && !path.contains("//") && !path.contains('\\'));
        let lower = path.to_ascii_lowercase();
        for hidden in ["%2f", "%5c", "%2e", "%00", "%25", "%3b"] {
            assert!(!lower.contains(hidden), "{path}");
        }
        for segment in path.split('/') {
            let name = segment.split(';').next().unwrap_or_default();
            assert!(name != "." && name != "..", "{path}");
        }
    }
    if let Ok(glob) = glob.parse::<PathGlob>() {
        assert!(is_canonical(glob.as_str()));
        if !glob.as_str().contains('*') {
            assert_eq!(glob.matches(path), glob.as_str() == path);
        }
    }
});
