//! Cosign's payloads, envelopes and annotations: reading them never panics, and a signature holds for its own payload alone.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use registry::signature::{Accept, Annotations, Evidence, Identity, Key, Log, Subject, verify};
use registry::trust_root::TrustRoots;
use schema::digest::Digest;

const PAYLOAD: &[u8] = include_bytes!(
    "../../registry/testdata/cosign/a28fbc1a734b2fde5e777aed21194971cde65a75e71bcd544fb0871459d28205"
);
const SIGNATURE: &str = "MEUCIAgk/NtUkGVi3KkdMnCp5ybsee15olmbuWktb5VEyG8QAiEAouAgg08azLccvv+sztLTe5AoAvIoFBHDu2ckOXKf7xU=";

static ROOTS: LazyLock<TrustRoots> = LazyLock::new(|| TrustRoots::public_good().expect("a root"));
static ACCEPT: LazyLock<Accept> = LazyLock::new(|| {
    let pem = include_str!("../../registry/testdata/cosign/cosign.pub");
    let key = Key::from_pem(pem, Log::NotDemanded).expect("a key");
    let identity = Identity::new("https://issuer.test", "me@example.test").expect("an identity");
    Accept::new(vec![key], vec![identity]).expect("signers")
});

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let mut parts = text.split('\u{0}').map(str::to_owned);
    let first = parts.next().unwrap_or_default();
    let annotations = Annotations {
        signature: Some(parts.next().unwrap_or_else(|| SIGNATURE.to_owned())),
        certificate: parts.next(),
        chain: parts.next(),
        bundle: parts.next(),
        timestamp: parts.next(),
    };
    let mut changed = PAYLOAD.to_vec();
    for edit in data.chunks_exact(2) {
        let at = usize::from(edit[0]) % changed.len();
        changed[at] = edit[1];
    }
    let from = Digest::of(data);
    let subject = Digest::of(include_bytes!("../../registry/testdata/cosign/image.json"));
    let evidence = [
        Evidence::Legacy {
            payload: first.clone().into_bytes(),
            annotations: annotations.clone(),
            from,
        },
        Evidence::LegacyAttestation {
            envelope: first.into_bytes(),
            annotations: annotations.clone(),
            from,
        },
        Evidence::Legacy {
            payload: changed.clone(),
            annotations,
            from,
        },
    ];
    let now = jiff::Timestamp::now();
    let report = verify(&Subject::from(&subject), &evidence, &ACCEPT, &ROOTS, now);
    assert!(report.verdicts[2].proof().is_none() || changed == PAYLOAD);
});
