#![allow(clippy::unwrap_used)]
use serde_json::json;

use super::*;
use crate::attestation::Statement;
use crate::signature::tests::{bundle, file, identity, keys, now, own};
use crate::signature::{Form, Meaning, Outcome, Proof, Subject, Verdict};
use crate::trust_root::TrustRoots;

const WORKFLOW: &str = "https://github.com/org/repo/.github/workflows/build.yml@refs/heads/main";
const GENERATED: &str = "https://github.com/slsa-framework/slsa-github-generator/.github/workflows/generator_container_slsa3.yml@refs/tags/v2.1.0";

fn sha512(hex: &str) -> Subject<'static> {
    let bytes: Vec<u8> = (0..64)
        .map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    Subject::of_sha512(bytes.try_into().unwrap())
}

/// A statement as if it had been accepted from this signer.
fn accepted(signer: Signer, predicate_type: &str, predicate: &Value) -> Report {
    let statement = json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": "aa"}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    });
    let proof = Proof {
        signer,
        log: None,
        times: Vec::new(),
        root: None,
    };
    let verdict = Verdict::new(
        Digest::of(b"bundle"),
        Form::Bundle,
        Some(Meaning::Attestation(predicate_type.to_owned())),
        Outcome::Accepted(proof),
        Some(Statement::parse(statement.to_string().as_bytes()).unwrap()),
    );
    Report::new("sha256:aa".to_owned(), vec![verdict])
}

fn on_github(subject: &str, change: impl FnOnce(&mut FulcioCiClaims)) -> Signer {
    let mut claims = FulcioCiClaims::default();
    claims.build_signer_uri = Some(subject.to_owned());
    claims.runner_environment = Some("github-hosted".to_owned());
    claims.source_repository_uri = Some("https://github.com/org/repo".to_owned());
    change(&mut claims);
    Signer::Identity {
        subject: subject.to_owned(),
        issuer: GITHUB.to_owned(),
        certificate: Digest::of(b"certificate"),
        claims: Box::new(claims),
    }
}

fn v1(builder: &str) -> Value {
    json!({
        "buildDefinition": {"buildType": "https://example.test/type", "externalParameters": {}},
        "runDetails": {"builder": {"id": builder}},
    })
}

fn level(signer: Signer, predicate: &Value) -> Result<u8, String> {
    let found = provenance(&accepted(signer, V1, predicate));
    found
        .best
        .map(|best| best.level)
        .ok_or_else(|| found.refused[0].why.clone())
}

#[test]
fn a_real_build_on_githubs_runners_is_of_level_two_with_its_source() {
    let accept = identity(GITHUB, "https://github.com/sigstore/sigstore-js/*");
    let report = crate::signature::verify(
        &sha512(
            "46d4e2f74c4877316640000a6fdf8a8b59f1e0847667973e9859f774dd31b8f1e0937813b777fb66a2ac67d50540fe34640966eee9fc2ccca387082b4c85cd3c",
        ),
        &[bundle(file("sigstore/provenance-v1.sigstore.json"))],
        &accept,
        &TrustRoots::public_good().unwrap(),
        now(),
    );
    assert!(report.holds);
    let found = provenance(&report);
    let best = found.best.clone().unwrap();
    assert_eq!(best.level, 2);
    assert_eq!(
        best.builder,
        "https://github.com/sigstore/sigstore-js/.github/workflows/release.yml@refs/heads/main"
    );
    assert_eq!(
        best.source,
        Some(Source {
            repository: "https://github.com/sigstore/sigstore-js".to_owned(),
            commit: Some("f0b49a04e5a62250e0f60fb128004a73110fe311".to_owned()),
            reference: Some("refs/heads/main".to_owned()),
            proven: true,
        })
    );
    assert!(found.reaches(2) && !found.reaches(3));
}

#[test]
fn what_a_person_signs_proves_no_builder_whatever_it_says() {
    let bytes = file("sigstore/provenance-v0.2.sigstore.json");
    let accept = own(
        "https://github.com/login/oauth",
        &serde_json::from_slice(&bytes).unwrap(),
    );
    let report = crate::signature::verify(
        &sha512(
            "bbfd372fc9beeb777fe35d05bb10c0c70a9733d366a75fed7dd18866c7391de3ee7e88ba74dd47abf3e15c845e547fcf0e5c3da80854c751554224d3a6d4e55f",
        ),
        &[bundle(bytes)],
        &accept,
        &TrustRoots::public_good().unwrap(),
        now(),
    );
    assert!(report.holds);
    let best = provenance(&report).best.unwrap();
    assert_eq!(best.level, 1);
    assert_eq!(
        best.builder_id,
        "https://github.com/npm/slsa-provenance@0.0.1"
    );
    assert!(best.builder.contains('@') && !best.builder.contains("://"));
    assert!(!best.source.unwrap().proven);
}

#[test]
fn a_level_is_what_the_certificate_proves() {
    let none = |_: &mut FulcioCiClaims| {};
    assert_eq!(level(on_github(WORKFLOW, none), &v1(WORKFLOW)), Ok(2));
    assert_eq!(level(on_github(GENERATED, none), &v1(GENERATED)), Ok(3));
    let runner = "https://github.com/actions/runner/github-hosted";
    assert_eq!(level(on_github(WORKFLOW, none), &v1(runner)), Ok(2));
    let own = |claims: &mut FulcioCiClaims| claims.runner_environment = Some("self-hosted".into());
    assert_eq!(level(on_github(GENERATED, own), &v1(GENERATED)), Ok(1));
    let unsaid = |claims: &mut FulcioCiClaims| claims.runner_environment = None;
    assert_eq!(level(on_github(GENERATED, unsaid), &v1(GENERATED)), Ok(1));
    // It says the generator built it, and an ordinary workflow signed it.
    assert!(level(on_github(WORKFLOW, none), &v1(GENERATED)).is_err());
    assert!(level(on_github(WORKFLOW, own), &v1(runner)).is_err());
    for near in [
        GENERATED.replace("@refs/tags/v2", "@refs/heads/v2"),
        GENERATED.replace("slsa-framework/", "slsa-framework-x/"),
        GENERATED.replace("_slsa3.yml", ".yml"),
        GENERATED.replace("@refs/tags/v2.1.0", "@refs/tags/vx"),
        GENERATED.replace("https://github.com/", "https://github.com.evil.test/"),
    ] {
        assert_eq!(level(on_github(&near, none), &v1(&near)), Ok(2), "{near}");
    }
    // Another issuer says the same of itself.
    let Signer::Identity {
        subject,
        certificate,
        claims,
        ..
    } = on_github(GENERATED, none)
    else {
        panic!()
    };
    let elsewhere = Signer::Identity {
        subject,
        issuer: "https://issuer.test".to_owned(),
        certificate,
        claims,
    };
    assert_eq!(level(elsewhere, &v1(GENERATED)), Ok(1));
}

#[test]
fn a_source_that_the_certificate_contradicts_is_refused() {
    let with = |repository: &str| {
        let mut predicate = v1(WORKFLOW);
        predicate["buildDefinition"]["externalParameters"]["workflow"]["repository"] =
            repository.into();
        level(on_github(WORKFLOW, |_| {}), &predicate)
    };
    assert_eq!(with("https://github.com/org/repo"), Ok(2));
    assert_eq!(
        with("git+https://github.com/Org/Repo.git@refs/heads/x"),
        Ok(2)
    );
    assert!(with("https://github.com/org/other").is_err());
    let predicate = json!({
        "builder": {"id": WORKFLOW},
        "buildType": "x",
        "invocation": {"configSource": {"uri": "git+https://github.com/org/other@refs/heads/main"}},
    });
    let report = accepted(on_github(WORKFLOW, |_| {}), V0_2, &predicate);
    let found = provenance(&report);
    assert!(found.best.is_none());
    assert!(found.refused[0].why.contains("org/other"));
}

#[test]
fn what_a_key_signs_proves_no_builder_whatever_it_says() {
    let id = Digest::of(b"key");
    let report = accepted(Signer::Key { id }, V1, &v1(WORKFLOW));
    assert_eq!(provenance(&report).best.unwrap().level, 1);

    let accept = keys(&["cosign/cosign.pub"]);
    let image = Digest::of(&file("cosign/image.json"));
    let report = crate::signature::verify(
        &Subject::from(&image),
        &[bundle(file("cosign/bundle-2.json"))],
        &accept,
        &TrustRoots::none(),
        now(),
    );
    let found = provenance(&report);
    assert!(found.reaches(1) && !found.reaches(2));
    assert_eq!(
        found.best.unwrap().builder,
        accept.keys()[0].id().to_string()
    );
}

#[test]
fn a_predicate_that_is_not_what_its_type_says_proves_nothing() {
    let signer = || Signer::Key {
        id: Digest::of(b"key"),
    };
    for (kind, predicate) in [
        (V1, json!({})),
        (V1, json!({"builder": {"id": "x"}, "buildType": "x"})),
        (V0_2, v1("x")),
        (V1, json!("text")),
    ] {
        let found = provenance(&accepted(signer(), kind, &predicate));
        assert!(found.best.is_none() && found.refused.len() == 1);
    }
    let other = accepted(signer(), "https://slsa.dev/provenance/v2", &v1("x"));
    let found = provenance(&other);
    assert!(found.best.is_none() && found.refused.is_empty());
}
