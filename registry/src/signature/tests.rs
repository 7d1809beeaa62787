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
