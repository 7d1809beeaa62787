//! A `.git` that is a file: the path is what follows the word, one line without an end that git would see elsewhere.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../engine/src/git/pointer.rs"]
mod pointer;

fuzz_target!(|data: &[u8]| {
    let said = pointer::gitdir(data);
    for path in [said, pointer::path(data)].into_iter().flatten() {
        assert!(data.len() as u64 <= pointer::MAX_POINTER);
        assert!(!path.is_empty() && !path.contains(char::is_control));
        assert_eq!(pointer::path(path.as_bytes()), Some(path));
        assert_eq!(
            pointer::path(format!("{path}\r\n").as_bytes()).is_some(),
            path.len() as u64 + 2 <= pointer::MAX_POINTER
        );
    }
    if let Some(path) = said {
        let rest = data.strip_prefix(b"gitdir: ").unwrap();
        let end = rest.strip_prefix(path.as_bytes()).unwrap();
        assert!(end.iter().all(|byte| b"\r\n".contains(byte)));
    }
});
