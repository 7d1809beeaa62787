//! Layers of features and skills: whatever an archive says, what is read of it stays within its bounds, lies in one tree and leads
//! out of it nowhere, gzipped or not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::archive::{Archive, MAX_DEPTH, MAX_ENTRIES, MAX_FILE, MAX_PATH};

fuzz_target!(|data: &[u8]| {
    let Ok(archive) = Archive::read(data) else {
        return;
    };
    assert!(archive.files.len() + archive.links.len() <= MAX_ENTRIES);
    for path in archive.files.keys().chain(archive.links.keys()) {
        assert!(path.len() <= MAX_PATH && path.split('/').count() <= MAX_DEPTH);
        assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")));
        for (at, _) in path.match_indices('/') {
            assert!(!archive.files.contains_key(&path[..at]));
            assert!(!archive.links.contains_key(&path[..at]));
        }
    }
    for file in archive.files.values() {
        assert!(file.bytes.len() as u64 <= MAX_FILE && file.mode <= 0o777);
    }
    for (path, target) in &archive.links {
        let mut depth = path.matches('/').count();
        assert!(!target.starts_with('/'));
        for name in target.split('/').take_while(|name| *name == "..") {
            depth = depth.checked_sub(name.len() / 2).expect("a link leads out");
        }
    }
});
