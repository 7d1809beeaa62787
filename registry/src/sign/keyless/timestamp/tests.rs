#![allow(clippy::unwrap_used)]
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::{Decode, Tag, Tagged};
use serde_json::Value;

use super::*;

/// A signature, and a timestamp authority's whole answer about it to another program.
fn real() -> (SignatureBytes, Vec<u8>) {
    let bundle = include_bytes!("../../../../testdata/sigstore-js/good-stamped.json");
    let bundle: Value = serde_json::from_slice(bundle).unwrap();
    let decoded = |at: &str| {
        let text = bundle.pointer(at).unwrap().as_str().unwrap();
        STANDARD.decode(text).unwrap()
    };
    let stamps = "/verificationMaterial/timestampVerificationData/rfc3161Timestamps";
    (
        SignatureBytes::new(decoded("/messageSignature/signature")),
        decoded(&format!("{stamps}/0/signedTimestamp")),
    )
}

#[test]
fn an_answer_is_to_this_question_and_granted() {
    let (signature, answer) = real();
    let number: Uint = told(&answer)
        .unwrap()
        .unwrap()
        .nonce
        .unwrap()
        .decode_as()
        .unwrap();
    let asked = |signature: &SignatureBytes, nonce: Uint| Question {
        nonce,
        ..Question::about(signature).unwrap()
    };
    let same = asked(&signature, number.clone());
    assert!(same.is_answered_by(&answer).unwrap());
    // Another number, which is what each question has of its own; another signature.
    let fresh = Question::about(&signature).unwrap();
    assert!(!fresh.is_answered_by(&answer).unwrap());
    let other = asked(&SignatureBytes::new(b"other".to_vec()), number);
    assert!(!other.is_answered_by(&answer).unwrap());

    // Refused, with the token in place: the status is the first integer of the answer.
    let status = answer.windows(5).position(|b| b[..4] == [0x30, 3, 2, 1]);
    let mut refused = answer.clone();
    refused[status.unwrap() + 4] = 2;
    assert!(!same.is_answered_by(&refused).unwrap());
    for cut in [0, 1, 5, answer.len() / 2, answer.len() - 1] {
        assert!(!matches!(same.is_answered_by(&answer[..cut]), Ok(true)));
    }
}

#[test]
fn a_question_is_written_as_the_standard_has_it() {
    let question = Question::about(&SignatureBytes::new(b"x".to_vec())).unwrap();
    let der = question.to_der().unwrap();
    let parts = Vec::<Any>::from_der(&der).unwrap();
    let tags: Vec<_> = parts.iter().map(Tagged::tag).collect();
    assert_eq!(
        tags,
        [Tag::Integer, Tag::Sequence, Tag::Integer, Tag::Boolean]
    );
    assert_eq!(parts[0].value(), [1]);
    assert_eq!(parts[3].value(), [0xff]);
    let nonces: std::collections::BTreeSet<_> = (0..16)
        .map(|_| Question::about(&SignatureBytes::new(vec![])).unwrap())
        .map(|question| question.nonce.as_bytes().to_vec())
        .collect();
    assert_eq!(nonces.len(), 16);
}
