//! Credentials in streams: found however a stream is cut, never passed on whole, nothing lost or added.
#![no_main]

use std::sync::Arc;

use gateway::credentials::window::{At, Patterns, Window};
use libfuzzer_sys::fuzz_target;

const VALUE: &[u8] = b"ghp_R3alR3alR3alR3alR3al";
const OTHER: &[u8] = b"ghp_Fak3Fak3Fak3Fak3Fak3";

fuzz_target!(|data: &[u8]| {
    let Some((&size, text)) = data.split_first() else {
        return;
    };
    let mut patterns = Patterns::default();
    patterns.add(VALUE, OTHER, At::Own);
    let patterns = Arc::new(patterns);

    let mut whole = text.to_vec();
    let found = patterns.replace(&mut whole);
    assert_eq!(found, patterns.is_in(text));
    assert!(!whole.windows(VALUE.len()).any(|part| part == VALUE));

    let mut window = Window::new(Arc::clone(&patterns));
    let (mut out, mut seen) = (Vec::new(), false);
    for piece in text.chunks(usize::from(size).max(1)) {
        let (bytes, one) = window.push(piece);
        out.extend(bytes);
        seen |= one;
    }
    out.extend(window.finish());
    // Cut in pieces, a short beginning of one may have been passed on before it was whole; the rest of it never is.
    assert_eq!(out.len(), text.len());
    assert_eq!(seen, found);
    assert!(!out.windows(VALUE.len()).any(|part| part == VALUE));
    if usize::from(size) >= text.len() {
        assert_eq!(out, whole);
    }
});
