#![allow(clippy::unwrap_used)]
//! Signatures that other tools made, and what becomes of them when somebody changes them.

mod cosign;
mod keyless;
mod stand_in;

use super::*;

/// The files of `testdata/`.
pub(crate) fn file(name: &str) -> Vec<u8> {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn text(name: &str) -> String {
    String::from_utf8(file(name)).unwrap()
}

pub(crate) fn key(name: &str, log: Log) -> Key {
    Key::from_pem(&text(name), log).unwrap()
}

pub(crate) fn keys(names: &[&str]) -> Accept {
    let keys = names.iter().map(|name| key(name, Log::NotDemanded));
    Accept::new(keys.collect(), vec![]).unwrap()
}

pub(crate) fn identity(issuer: &str, subject: &str) -> Accept {
    Accept::new(vec![], vec![Identity::new(issuer, subject).unwrap()]).unwrap()
}

/// Whom a bundle's certificate names, as who may sign: the files hold people's addresses, and nothing else here has to.
pub(crate) fn own(issuer: &str, bundle: &serde_json::Value) -> Accept {
    use base64::Engine as _;
    let material = &bundle["verificationMaterial"];
    let raw = [
        &material["certificate"]["rawBytes"],
        &material["x509CertificateChain"]["certificates"][0]["rawBytes"],
    ];
    let raw = raw.iter().find_map(|raw| raw.as_str()).unwrap();
    let der = base64::engine::general_purpose::STANDARD
        .decode(raw)
        .unwrap();
    let der = sigstore_types::DerCertificate::from_bytes(&der);
    match sigstore_crypto::parse_certificate_info(&der)
        .unwrap()
        .identity
        .unwrap()
    {
        sigstore_crypto::SubjectAltName::Email(subject)
        | sigstore_crypto::SubjectAltName::Uri(subject) => identity(issuer, &subject),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn bundle(bytes: Vec<u8>) -> Evidence {
    Evidence::Bundle {
        from: Digest::of(&bytes),
        bytes,
    }
}

pub(crate) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// The one verdict on one piece of evidence.
pub(crate) fn one(
    subject: &Subject<'_>,
    evidence: Evidence,
    accept: &Accept,
    roots: &TrustRoots,
) -> Result<Proof, Reason> {
    let report = verify(subject, &[evidence], accept, roots, now());
    let [verdict] = report.verdicts.as_slice() else {
        panic!("{report:?}")
    };
    match &verdict.outcome {
        Outcome::Accepted(proof) => Ok(proof.clone()),
        Outcome::Refused(refusal) => {
            assert!(!report.holds);
            eprintln!("{}", refusal.detail);
            Err(refusal.reason)
        }
    }
}
