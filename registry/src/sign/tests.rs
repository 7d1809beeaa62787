#![allow(clippy::unwrap_used)]
use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;

use super::*;
use crate::signature::{Accept, Annotations, Evidence, Key, Log, Reason, Report, Subject, verify};
use crate::trust_root::TrustRoots;

fn file(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/testdata/cosign/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn armoured(pkcs8: &[u8]) -> Vec<u8> {
    pem::encode(&pem::Pem::new("PRIVATE KEY", pkcs8)).into_bytes()
}

/// A key of each kind.
fn keys() -> Vec<SigningKey> {
    use aws_lc_rs::signature::*;
    let random = SystemRandom::new();
    let ecdsa = |algorithm| {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        armoured(pkcs8.as_ref())
    };
    let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().unwrap();
    [
        ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
        ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
        armoured(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()),
        armoured(rsa.as_ref()),
    ]
    .iter()
    .map(|pem| SigningKey::from_pem(pem, None).unwrap())
    .collect()
}

fn accept(key: &SigningKey) -> Accept {
    let key = Key::from_pem(&key.public_pem(), Log::NotDemanded).unwrap();
    Accept::new(vec![key], vec![]).unwrap()
}

/// Both forms of what was signed, as they would be found.
fn found(signed: &Signed) -> Vec<Evidence> {
    let annotations = Annotations::from(&signed.layer_annotations);
    let from = Digest::of(&signed.layer);
    let older = if signed.layer_type == SIMPLE_SIGNING_TYPE {
        Evidence::Legacy {
            payload: signed.layer.clone(),
            annotations,
            from,
        }
    } else {
        Evidence::LegacyAttestation {
            envelope: signed.layer.clone(),
            annotations,
            from,
        }
    };
    let bundle = Evidence::Bundle {
        bytes: signed.bundle.clone(),
        from: Digest::of(&signed.bundle),
    };
    vec![bundle, older]
}

fn check(subject: &Subject<'_>, evidence: &[Evidence], accept: &Accept) -> Report {
    let now = jiff::Timestamp::now();
    verify(subject, evidence, accept, &TrustRoots::none(), now)
}

#[test]
fn what_a_key_of_any_kind_signs_holds_for_it_and_for_no_other() {
    let keys = keys();
    let digest = Digest::of(b"image");
    let subject = Subject::from(&digest);
    for (at, key) in keys.iter().enumerate() {
        let other = accept(&keys[(at + 1) % keys.len()]);
        let signed = image(key, &digest, "registry.test/app").unwrap();
        let predicate = br#"{"builder":{"id":"https://example.test"}}"#;
        let attested = attest(key, &digest, "app", "https://example.test/type", predicate).unwrap();
        let signatures = check(&subject, &found(&signed), &accept(key));
        assert_eq!(signatures.signatures().count(), 2, "{signatures:?}");
        assert!(!check(&subject, &found(&signed), &other).holds);
        let attestations = check(&subject, &found(&attested), &accept(key));
        assert_eq!(attestations.attestations().count(), 2, "{attestations:?}");
        assert!(!attestations.holds, "an attestation of no builder");
        let another = Digest::of(b"another");
        for (_, refusal) in check(&Subject::from(&another), &found(&signed), &accept(key)).refused()
        {
            assert_eq!(refusal.reason, Reason::WrongSubject);
        }
        let blob = Evidence::Bundle {
            bytes: content(key, b"image").unwrap(),
            from: digest,
        };
        assert!(check(&Subject::of_content(b"image"), &[blob], &accept(key)).holds);
    }
}

#[test]
fn a_key_that_cosign_encrypted_opens_with_its_password_alone() {
    let pem = file("cosign.key");
    let key = SigningKey::from_pem(&pem, Some(b"correct-horse")).unwrap();
    assert_eq!(
        key.public_pem().trim(),
        String::from_utf8(file("cosign.pub")).unwrap().trim()
    );
    assert!(!format!("{key:?}").contains("Ecdsa"));
    assert_eq!(
        SigningKey::from_pem(&pem, Some(b"wrong")).unwrap_err(),
        KeyError::WrongPassword
    );
    assert_eq!(
        SigningKey::from_pem(&pem, None).unwrap_err(),
        KeyError::NoPassword
    );
}

#[test]
fn what_is_no_private_key_says_so_and_costs_nothing() {
    let error =
        |pem: &[u8], password: &[u8]| SigningKey::from_pem(pem, Some(password)).unwrap_err();
    assert!(matches!(error(b"", b""), KeyError::Pem(_)));
    assert!(matches!(
        error(&file("cosign.pub"), b""),
        KeyError::Label(_)
    ));
    assert_eq!(error(&armoured(b"not DER"), b""), KeyError::Kind);
    let mut padded = file("cosign.key");
    padded.resize(PRIVATE_KEY_BYTES, b'\n');
    assert_eq!(
        error(&padded, &[b'x'; PASSWORD_BYTES + 1]),
        KeyError::PasswordTooLong
    );
    padded.push(b'\n');
    assert_eq!(error(&padded, b""), KeyError::TooLong);
    let encrypted = |n: u64, r: u64, p: u64, nonce: &str| {
        let text = json!({
            "kdf": {"name": "scrypt", "params": {"N": n, "r": r, "p": p}, "salt": "AAAA"},
            "cipher": {"name": "nacl/secretbox", "nonce": nonce},
            "ciphertext": "AAAA",
        });
        let block = pem::Pem::new("ENCRYPTED SIGSTORE PRIVATE KEY", text.to_string());
        error(pem::encode(&block).as_bytes(), b"x")
    };
    let nonce = "A".repeat(32);
    // At the bounds of r and p, with little to do; beyond them, nothing is done.
    assert_eq!(encrypted(2, 16, 4, &nonce), KeyError::WrongPassword);
    for (n, r, p) in [
        (2, 17, 4),
        (2, 16, 5),
        (1 << 19, 1, 1),
        (3, 1, 1),
        (0, 1, 1),
        (1, 1, 1),
        (2, 0, 1),
    ] {
        assert!(
            matches!(encrypted(n, r, p, &nonce), KeyError::Encryption(_)),
            "{n} {r} {p}"
        );
    }
    assert!(matches!(
        encrypted(2, 1, 1, "AAAA"),
        KeyError::Encryption(_)
    ));
}

#[test]
fn what_would_not_be_read_is_not_signed() {
    let key = &keys()[0];
    let digest = Digest::of(b"image");
    let attest = |predicate: &[u8]| attest(key, &digest, "app", "https://example.test", predicate);
    assert!(matches!(attest(b"{"), Err(SignError::Predicate(_))));
    let long = vec![b' '; attestation::BYTES + 1];
    assert!(matches!(attest(&long), Err(SignError::Statement(_))));
}
