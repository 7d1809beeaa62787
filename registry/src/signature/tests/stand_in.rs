//! What Sigstore's npm packages signed against a stand-in for its services: each proof missing, late or somebody else's, and a private
//! root in place of the public one.

use serde_json::{Value, json};

use super::*;
use crate::attestation::provenance;

const ISSUER: &str = "https://token.actions.githubusercontent.com";
const WORKFLOW: &str = "https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main";

fn load(name: &str) -> Value {
    serde_json::from_slice(&file(&format!("sigstore-js/{name}.json"))).unwrap()
}

fn roots(change: impl FnOnce(&mut Value)) -> TrustRoots {
    let mut root = load("trusted_root");
    change(&mut root);
    TrustRoots::none()
        .with_json("stand-in", root.to_string().as_bytes())
        .unwrap()
}

fn accept() -> Accept {
    identity(ISSUER, WORKFLOW)
}

fn outcome(value: &Value, roots: &TrustRoots) -> Result<Proof, Reason> {
    let image = Digest::of(b"image");
    let evidence = bundle(value.to_string().into_bytes());
    one(&Subject::from(&image), evidence, &accept(), roots)
}

fn of(name: &str, roots: &TrustRoots) -> Result<usize, Reason> {
    outcome(&load(name), roots).map(|proof| proof.times.len())
}

#[test]
fn a_private_root_proves_what_it_vouched_for() {
    let whole = roots(|_| {});
    for (name, times) in [
        ("good", 1),
        ("good-stamped", 2),
        ("provenance", 1),
        ("chain", 1),
    ] {
        assert_eq!(of(name, &whole), Ok(times), "{name}");
    }
    let public = TrustRoots::public_good().unwrap();
    assert!(of("good", &public).is_err());
    let root = file("sigstore-js/trusted_root.json");
    let both = public.with_json("stand-in", &root).unwrap();
    assert_eq!(of("good", &both), Ok(1));
    let proof = outcome(&load("good"), &both).unwrap();
    assert_eq!(proof.root.as_deref(), Some("stand-in"));
}

#[test]
fn a_proof_that_is_missing_late_or_somebody_elses_is_refused_for_that() {
    let whole = roots(|_| {});
    for (name, expected) in [
        ("stamped-alone", Reason::NoLog),
        ("expired", Reason::CertificateTime),
        ("no-time", Reason::NoLog),
        ("other-authority", Reason::UntrustedCertificate),
        ("unpublished", Reason::CertificateLog),
        ("other-publication", Reason::CertificateLog),
        ("other-log", Reason::BadLog),
        ("other-stamp", Reason::BadTimestamp),
    ] {
        assert_eq!(of(name, &whole), Err(expected), "{name}");
    }
    // Another authority's certificate beside the proofs of this one's.
    let mut borrowed = load("good");
    let other = load("other-authority");
    borrowed["verificationMaterial"]["x509CertificateChain"] =
        other["verificationMaterial"]["x509CertificateChain"].clone();
    assert!(outcome(&borrowed, &whole).is_err());
    // Proofs of one signature beside another.
    let mut borrowed = load("good");
    borrowed["verificationMaterial"]["tlogEntries"] =
        load("good-stamped")["verificationMaterial"]["tlogEntries"].clone();
    assert_eq!(outcome(&borrowed, &whole).unwrap_err(), Reason::BadLog);
    let mut borrowed = load("stamped-alone");
    borrowed["verificationMaterial"]["timestampVerificationData"] =
        load("good-stamped")["verificationMaterial"]["timestampVerificationData"].clone();
    let stamps_alone = roots(|root| root["tlogs"] = json!([]));
    assert_eq!(
        outcome(&borrowed, &stamps_alone).unwrap_err(),
        Reason::BadTimestamp
    );
}

#[test]
fn a_root_without_logs_demands_a_signed_timestamp() {
    let stamps_alone = roots(|root| {
        root["tlogs"] = json!([]);
        root["ctlogs"] = json!([]);
    });
    assert_eq!(of("stamped-alone", &stamps_alone), Ok(1));
    assert_eq!(of("provenance-stamped-alone", &stamps_alone), Ok(1));
    assert_eq!(
        of("expired-stamped-alone", &stamps_alone),
        Err(Reason::CertificateTime)
    );
    assert_eq!(of("no-time", &stamps_alone), Err(Reason::NoTime));
    assert_eq!(of("good", &stamps_alone), Err(Reason::BadLog));
    let unpublished = roots(|root| root["ctlogs"] = json!([]));
    assert_eq!(of("unpublished", &unpublished), Ok(1));
    let early = roots(|root| {
        root["certificateAuthorities"][0]["validFor"]["end"] = "2024-06-01T00:00:00Z".into();
    });
    assert_eq!(of("good", &early), Err(Reason::UntrustedCertificate));
}

#[test]
fn provenance_of_a_runner_is_proven_by_its_certificate() {
    let image = Digest::of(b"image");
    let report = verify(
        &Subject::from(&image),
        &[bundle(file("sigstore-js/provenance.json"))],
        &accept(),
        &roots(|_| {}),
        now(),
    );
    let found = provenance(&report);
    let best = found.best.unwrap();
    assert_eq!((best.level, best.builder.as_str()), (2, WORKFLOW));
    assert!(best.source.unwrap().proven);
}

/// What cosign would have written beside the layer.
fn annotations(bundle: &Value, signature: bool) -> Annotations {
    use base64::Engine as _;
    let material = &bundle["verificationMaterial"];
    let certificate = material["certificate"]["rawBytes"]
        .as_str()
        .or_else(|| material["x509CertificateChain"]["certificates"][0]["rawBytes"].as_str())
        .unwrap();
    let der = base64::engine::general_purpose::STANDARD
        .decode(certificate)
        .unwrap();
    let entry = &material["tlogEntries"][0];
    let number = |name: &str| entry[name].as_str().unwrap().parse::<u64>().unwrap();
    let log = base64::engine::general_purpose::STANDARD
        .decode(entry["logId"]["keyId"].as_str().unwrap())
        .unwrap();
    let log: String = log.iter().map(|byte| format!("{byte:02x}")).collect();
    let rekor = json!({
        "SignedEntryTimestamp": entry["inclusionPromise"]["signedEntryTimestamp"],
        "Payload": {
            "body": entry["canonicalizedBody"],
            "integratedTime": number("integratedTime"),
            "logIndex": number("logIndex"),
            "logID": log,
        },
    });
    let stamps = &material["timestampVerificationData"]["rfc3161Timestamps"];
    Annotations {
        signature: signature.then(|| {
            let signature = bundle["messageSignature"]["signature"].as_str();
            signature.unwrap().to_owned()
        }),
        certificate: Some(pem::encode(&pem::Pem::new("CERTIFICATE", der))),
        chain: None,
        bundle: Some(rekor.to_string()),
        timestamp: stamps[0]["signedTimestamp"]
            .as_str()
            .map(|token| json!({"SignedRFC3161Timestamp": token}).to_string()),
    }
}

#[test]
fn cosigns_tags_hold_with_certificate_promise_and_timestamp() {
    let whole = roots(|_| {});
    let image = Digest::of(b"image");
    let subject = Subject::from(&image);
    let bundle = load("payload");
    let good = annotations(&bundle, true);
    let with = |annotations: Annotations| {
        let payload = file("sigstore-js/payload.txt");
        let from = Digest::of(&payload);
        let evidence = Evidence::Legacy {
            payload,
            annotations,
            from,
        };
        one(&subject, evidence, &accept(), &whole).map(|proof| proof.times.len())
    };
    assert_eq!(with(good.clone()), Ok(2));
    let unstamped = Annotations {
        timestamp: None,
        ..good.clone()
    };
    assert_eq!(with(unstamped.clone()), Ok(1));
    let unlogged = Annotations {
        bundle: None,
        ..good.clone()
    };
    assert_eq!(with(unlogged), Err(Reason::NoLog));
    let chained = |certificates: usize| Annotations {
        chain: good
            .certificate
            .as_ref()
            .map(|pem| pem.repeat(certificates)),
        ..unstamped.clone()
    };
    assert_eq!(with(chained(AUTHORITIES - 1)), Ok(1));
    assert_eq!(with(chained(AUTHORITIES)), Err(Reason::TooLarge));
    let foreign = Annotations {
        certificate: annotations(&load("good"), false).certificate,
        ..good.clone()
    };
    assert!(with(foreign).is_err());
    let borrowed = Annotations {
        bundle: annotations(&load("good"), false).bundle,
        ..unstamped
    };
    assert_eq!(
        with(borrowed),
        Err(Reason::WrongSubject),
        "the entry is about another payload"
    );

    let attested = load("provenance");
    let envelope = attested["dsseEnvelope"].to_string().into_bytes();
    let evidence = Evidence::LegacyAttestation {
        from: Digest::of(&envelope),
        envelope,
        annotations: annotations(&attested, false),
    };
    assert!(one(&subject, evidence, &accept(), &whole).is_ok());
}

#[test]
fn the_parts_of_a_bundle_are_bounded() {
    let whole = roots(|_| {});
    let reason = |change: &dyn Fn(&mut Value)| {
        let mut value = load("good-stamped");
        change(&mut value["verificationMaterial"]);
        outcome(&value, &whole).map(|_| ())
    };
    let stamps = |count: usize| {
        reason(&|material| {
            let all = &mut material["timestampVerificationData"]["rfc3161Timestamps"];
            *all = vec![all[0].clone(); count].into();
        })
    };
    assert_eq!(stamps(TIMESTAMPS), Ok(()));
    assert_eq!(stamps(TIMESTAMPS + 1), Err(Reason::TooLarge));
    let hashes = |count: usize| {
        reason(&|material| {
            let proof = &mut material["tlogEntries"][0]["inclusionProof"];
            proof["hashes"] = vec![proof["rootHash"].clone(); count].into();
        })
    };
    assert_eq!(hashes(PROOF_HASHES), Err(Reason::BadLog));
    assert_eq!(hashes(PROOF_HASHES + 1), Err(Reason::TooLarge));
}
