//! Answers of a timestamp authority, as they come and as a real one with bytes changed: reading them never panics, and the hash
//! and the number that are read stand in the answer.
#![no_main]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libfuzzer_sys::fuzz_target;

// The module alone: what asks around it is a client.
#[path = "../../registry/src/sign/keyless/timestamp/answer.rs"]
mod answer;

static REAL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let bundle = include_bytes!("../../registry/testdata/sigstore-js/good-stamped.json");
    let bundle: serde_json::Value = serde_json::from_slice(bundle).expect("a bundle");
    let at = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp";
    let text = bundle.pointer(at).and_then(|text| text.as_str());
    STANDARD.decode(text.expect("a timestamp")).expect("bytes")
});

fuzz_target!(|data: &[u8]| {
    let Some((&which, edits)) = data.split_first() else {
        return;
    };
    if which < 64 {
        let _ = answer::told(edits);
        return;
    }
    let mut bytes = REAL.clone();
    for edit in edits.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
        bytes[at] = edit[2];
    }
    let Ok(Some(told)) = answer::told(&bytes) else {
        return;
    };
    // What it says stands in the answer, both of them.
    let stands = |part: &[u8]| part.is_empty() || bytes.windows(part.len()).any(|at| at == part);
    assert!(stands(told.imprint.hash.as_bytes()));
    assert!(told.nonce.is_none_or(|nonce| stands(nonce.value())));
});
