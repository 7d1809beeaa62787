//! Bundles, as they come and as real ones with bytes changed: reading and verifying them never panics, and what is accepted is about
//! the subject.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use registry::signature::{Accept, Evidence, Identity, Key, Log, Subject, verify};
use registry::trust_root::TrustRoots;
use schema::digest::Digest;

const REAL: [&[u8]; 5] = [
    include_bytes!("../../registry/testdata/cosign/bundle-2.json"),
    include_bytes!("../../registry/testdata/cosign/blob.bundle.json"),
    include_bytes!("../../registry/testdata/sigstore/bundle_v3_github.whl.sigstore.json"),
    include_bytes!("../../registry/testdata/sigstore/cosign-v3-blob.sigstore.json"),
    include_bytes!("../../registry/testdata/sigstore/provenance-v1.sigstore.json"),
];

static ROOTS: LazyLock<TrustRoots> = LazyLock::new(|| TrustRoots::public_good().expect("a root"));
static ACCEPT: LazyLock<Accept> = LazyLock::new(|| {
    let pem = include_str!("../../registry/testdata/cosign/cosign.pub");
    let key = Key::from_pem(pem, Log::NotDemanded).expect("a key");
    let issuer = "https://token.actions.githubusercontent.com";
    let identity = Identity::new(issuer, "https://github.com/trailofbits/rfc8785.py/*").expect("an identity");
    Accept::new(vec![key], vec![identity]).expect("signers")
});

fuzz_target!(|data: &[u8]| {
    let Some((&which, edits)) = data.split_first() else {
        return;
    };
    let bytes = match REAL.get(usize::from(which)) {
        None => edits.to_vec(),
        Some(real) => {
            let mut bytes = real.to_vec();
            for edit in edits.chunks_exact(3) {
                let at = usize::from(u16::from_le_bytes([edit[0], edit[1]])) % bytes.len();
                bytes[at] = edit[2];
            }
            bytes
        }
    };
    let from = Digest::of(&bytes);
    let subject = Digest::of(include_bytes!("../../registry/testdata/cosign/image.json"));
    let subject = Subject::from(&subject);
    let evidence = [Evidence::Bundle { bytes, from }];
    let now = jiff::Timestamp::now();
    let report = verify(&subject, &evidence, &ACCEPT, &ROOTS, now);
    assert_eq!(report.verdicts.len(), 1);
    for attested in report.attestations() {
        assert!(attested.statement.names(&subject));
    }
    let _ = registry::attestation::provenance(&report);
    let _ = registry::sbom::inventories(&report);
});
