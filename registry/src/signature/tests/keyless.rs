//! What Sigstore's public-good instance vouched for.

use serde_json::Value;

use super::*;

const GITHUB: &str = "https://token.actions.githubusercontent.com";
const WHEEL: &str =
    "https://github.com/trailofbits/rfc8785.py/.github/workflows/release.yml@refs/tags/v0.1.2";

fn load(name: &str) -> Value {
    serde_json::from_slice(&file(&format!("sigstore/{name}.sigstore.json"))).unwrap()
}

/// The digest that a message's signature names: these blobs are known by nothing else.
fn named(bundle: &Value) -> Digest {
    use base64::Engine as _;
    let digest = bundle["messageSignature"]["messageDigest"]["digest"]
        .as_str()
        .unwrap();
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(digest)
        .unwrap();
    Digest::from_bytes(bytes.try_into().unwrap())
}

fn public() -> TrustRoots {
    TrustRoots::public_good().unwrap()
}

fn judge_value(value: &Value, subject: &Subject<'_>, accept: &Accept) -> Result<Proof, Reason> {
    one(
        subject,
        bundle(value.to_string().into_bytes()),
        accept,
        &public(),
    )
}

fn sha512(hex: &str) -> [u8; 64] {
    let bytes: Vec<u8> = (0..64)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    bytes.try_into().unwrap()
}

#[test]
fn real_bundles_of_every_version_hold_for_their_signer() {
    let wheel = load("bundle_v3_github.whl");
    let proof = judge_value(
        &wheel,
        &Subject::from(&named(&wheel)),
        &identity(GITHUB, WHEEL),
    )
    .unwrap();
    let Signer::Identity {
        subject, issuer, ..
    } = &proof.signer
    else {
        panic!("{proof:?}")
    };
    assert_eq!((subject.as_str(), issuer.as_str()), (WHEEL, GITHUB));
    let log = proof.log.unwrap();
    assert!(log.index > 0 && log.integrated_time.is_some());
    assert_eq!(proof.times.len(), 1);
    assert_eq!(proof.root.as_deref(), Some("public-good"));

    // v0.3 with a signed timestamp and a log's time.
    let blob = load("cosign-v3-blob");
    let content = file("sigstore/cosign-v3-blob.txt");
    let accept = identity("https://github.com/login/oauth", "*@gmail.com");
    let proof = judge_value(&blob, &Subject::of_content(&content), &accept).unwrap();
    assert_eq!(proof.times.len(), 2);

    // v0.3, an envelope.
    let conda = load("conda-attestation");
    let digest =
        Digest::parse("sha256:54303491a8418fbed24344b513546182c29b43bf282ceb433af65e2299f9271f")
            .unwrap();
    let accept = identity(
        GITHUB,
        "https://github.com/prefix-dev/sigstore-example/.github/workflows/*@refs/heads/main",
    );
    assert!(judge_value(&conda, &Subject::from(&digest), &accept).is_ok());

    // v0.1, an envelope about a SHA-512.
    let npm = load("provenance-v1");
    let subject = Subject::of_sha512(sha512(
        "46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c",
    ));
    let accept = identity(GITHUB, "https://github.com/sigstore/sigstore-js/**");
    assert!(judge_value(&npm, &subject, &accept).is_ok());
}

#[test]
fn another_identity_issuer_or_kind_of_signer_is_refused() {
    let wheel = load("bundle_v3_github.whl");
    let digest = named(&wheel);
    let subject = Subject::from(&digest);
    for (accept, expected) in [
        (
            identity(GITHUB, &WHEEL.replace("v0.1.2", "v0.1.3")),
            Reason::WrongIdentity,
        ),
        (identity("https://gitlab.com", WHEEL), Reason::WrongIssuer),
        (identity(&format!("{GITHUB}/"), WHEEL), Reason::WrongIssuer),
        (keys(&["cosign/cosign.pub"]), Reason::NotAccepted),
    ] {
        assert_eq!(
            judge_value(&wheel, &subject, &accept).unwrap_err(),
            expected
        );
    }
    // From an instance whose logs and authorities are in no root.
    assert_eq!(
        judge_value(
            &load("othername"),
            &Subject::from(&named(&load("othername"))),
            &identity("https://issuer.test", "*@oidc.local")
        )
        .unwrap_err(),
        Reason::BadLog
    );
    let other = Digest::of(b"other");
    assert_eq!(
        judge_value(&wheel, &Subject::from(&other), &identity(GITHUB, WHEEL)).unwrap_err(),
        Reason::WrongSubject
    );
}

#[test]
fn proofs_that_were_changed_or_taken_out_do_not_hold() {
    let wheel = load("bundle_v3_github.whl");
    let digest = named(&wheel);
    let accept = identity(GITHUB, WHEEL);
    let entry = "/verificationMaterial/tlogEntries/0";
    let set = |at: &str, to: Value| {
        let mut changed = wheel.clone();
        *changed.pointer_mut(&format!("{entry}{at}")).unwrap() = to;
        judge_value(&changed, &Subject::from(&digest), &accept).unwrap_err()
    };
    let flip = |at: &str| {
        let old = wheel
            .pointer(&format!("{entry}{at}"))
            .and_then(Value::as_str)
            .unwrap();
        let first = if old.starts_with('A') { "B" } else { "A" };
        set(at, format!("{first}{}", &old[1..]).into())
    };
    assert_eq!(flip("/inclusionProof/rootHash"), Reason::BadLog);
    assert_eq!(flip("/inclusionProof/hashes/0"), Reason::BadLog);
    assert_eq!(flip("/logId/keyId"), Reason::BadLog);
    assert_eq!(set("/integratedTime", "1000000000".into()), Reason::BadLog);
    assert_eq!(set("/inclusionProof", Value::Null), Reason::NoLog);
    assert_eq!(set("/inclusionPromise", Value::Null), Reason::NoTime);

    let mut none = wheel.clone();
    none["verificationMaterial"]["tlogEntries"] = Value::Array(vec![]);
    let refused = judge_value(&none, &Subject::from(&digest), &accept).unwrap_err();
    assert!(matches!(refused, Reason::NoLog | Reason::NoTime));

    let mut many = wheel.clone();
    let one = many.pointer(entry).unwrap().clone();
    let mut with = |count: usize| {
        many["verificationMaterial"]["tlogEntries"] = vec![one.clone(); count].into();
        judge_value(&many, &Subject::from(&digest), &accept).map(|_| ())
    };
    assert_eq!(with(LOG_ENTRIES), Ok(()));
    assert_eq!(with(LOG_ENTRIES + 1), Err(Reason::TooLarge));

    let mut signature = wheel.clone();
    signature["messageSignature"]["signature"] = "MEUCIQ==".into();
    assert_eq!(
        judge_value(&signature, &Subject::from(&digest), &accept).unwrap_err(),
        Reason::BadSignature
    );
}

#[test]
fn known_bad_bundles_are_refused() {
    for (name, issuer, subject, expected) in [
        // A log's entry of another signature (CVE-2022-36056).
        (
            "bundle_cve_2022_36056.txt",
            "https://github.com/login/oauth",
            "*@yossarian.net",
            Reason::BadLog,
        ),
        (
            "bundle_v3_no_signed_time.txt",
            "https://github.com/login/oauth",
            "*@yossarian.net",
            Reason::NoTime,
        ),
        (
            "bundle_no_checkpoint.txt",
            "https://github.com/login/oauth",
            "*@yossarian.net",
            Reason::BadLog,
        ),
        (
            "bundle_no_log_entry.txt",
            "https://github.com/login/oauth",
            "*@trailofbits.com",
            Reason::NoLog,
        ),
    ] {
        let value = load(name);
        let digest = named(&value);
        let refused = judge_value(&value, &Subject::from(&digest), &identity(issuer, subject));
        assert_eq!(refused.unwrap_err(), expected, "{name}");
    }
}

#[test]
fn nothing_is_trusted_without_a_root_and_nothing_is_signed_later_than_now() {
    let wheel = load("bundle_v3_github.whl");
    let digest = named(&wheel);
    let accept = identity(GITHUB, WHEEL);
    let bytes = wheel.to_string().into_bytes();
    let none = TrustRoots::none();
    assert_eq!(
        one(
            &Subject::from(&digest),
            bundle(bytes.clone()),
            &accept,
            &none
        )
        .unwrap_err(),
        Reason::NoRoot
    );
    let at = |now: jiff::Timestamp| {
        verify(
            &Subject::from(&digest),
            &[bundle(bytes.clone())],
            &accept,
            &public(),
            now,
        )
    };
    let signed = at(now()).signatures().next().unwrap().1.times[0];
    assert!(at(signed).holds);
    let early = at(signed - jiff::SignedDuration::from_secs(1));
    assert_eq!(early.refused().next().unwrap().1.reason, Reason::Future);
}

#[test]
fn a_key_in_the_log_is_proven_by_it() {
    let content = file("sigstore/managed-key.txt");
    let subject = Subject::of_content(&content);
    let accept = Accept::new(vec![key("sigstore/managed-key.pub", Log::Demanded)], vec![]).unwrap();
    let value = load("managed-key");
    let proof = judge_value(&value, &subject, &accept).unwrap();
    assert!(proof.log.is_some() && !proof.times.is_empty());

    let mut changed = value.clone();
    changed["verificationMaterial"]["tlogEntries"][0]["integratedTime"] = "1".into();
    assert_eq!(
        judge_value(&changed, &subject, &accept).unwrap_err(),
        Reason::BadLog
    );
    let none = one(
        &subject,
        bundle(value.to_string().into_bytes()),
        &accept,
        &TrustRoots::none(),
    );
    assert_eq!(none.unwrap_err(), Reason::NoRoot);
    let undemanded = keys(&["sigstore/managed-key.pub"]);
    assert!(
        judge_value(&changed, &subject, &undemanded)
            .unwrap()
            .log
            .is_none()
    );
}
