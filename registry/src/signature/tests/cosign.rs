//! What cosign 2.5 signed with keys: tags, envelopes and bundles.

use serde_json::Value;

use super::*;

fn image() -> Digest {
    Digest::of(&file("cosign/image.json"))
}

/// The layers of one of cosign's tags with their annotations.
fn layers(manifest: &str) -> Vec<(Vec<u8>, Annotations, Digest)> {
    let manifest: Value = serde_json::from_slice(&file(manifest)).unwrap();
    let layers = manifest["layers"].as_array().unwrap();
    layers
        .iter()
        .map(|layer| {
            let digest = Digest::parse(layer["digest"].as_str().unwrap()).unwrap();
            let content = file(&format!("cosign/{}", digest.hex()));
            assert_eq!(Digest::of(&content), digest);
            let annotations: std::collections::BTreeMap<String, String> =
                serde_json::from_value(layer["annotations"].clone()).unwrap();
            (content, Annotations::from(&annotations), digest)
        })
        .collect()
}

fn signatures() -> Vec<Evidence> {
    layers("cosign/sig.json")
        .into_iter()
        .map(|(payload, annotations, from)| Evidence::Legacy {
            payload,
            annotations,
            from,
        })
        .collect()
}

fn attestations() -> Vec<Evidence> {
    layers("cosign/att.json")
        .into_iter()
        .map(
            |(envelope, annotations, from)| Evidence::LegacyAttestation {
                envelope,
                annotations,
                from,
            },
        )
        .collect()
}

fn bundles() -> Vec<Evidence> {
    (0..3)
        .map(|at| bundle(file(&format!("cosign/bundle-{at}.json"))))
        .collect()
}

fn check(evidence: &[Evidence], accept: &Accept) -> Report {
    let none = TrustRoots::none();
    verify(&Subject::from(&image()), evidence, accept, &none, now())
}

fn outcomes(report: &Report) -> Vec<Result<(), Reason>> {
    report
        .verdicts
        .iter()
        .map(|verdict| match &verdict.outcome {
            Outcome::Accepted(_) => Ok(()),
            Outcome::Refused(refusal) => Err(refusal.reason),
        })
        .collect()
}

#[test]
fn a_signature_of_an_accepted_key_holds_and_others_beside_it_are_reported() {
    let wrong = Err(Reason::WrongKey);
    // Signed by `cosign.key`, `other.key` and an Ed25519 key, in this order.
    for (accepted, expected) in [
        (vec!["cosign/cosign.pub"], [Ok(()), wrong, wrong]),
        (vec!["cosign/other.pub"], [wrong, Ok(()), wrong]),
        (vec!["cosign/ed25519.pub"], [wrong, wrong, Ok(())]),
        (
            vec!["cosign/other.pub", "cosign/cosign.pub"],
            [Ok(()), Ok(()), wrong],
        ),
    ] {
        let report = check(&signatures(), &keys(&accepted));
        assert_eq!(outcomes(&report), expected, "{accepted:?}");
        assert!(report.holds);
        assert_eq!(report.signatures().count(), accepted.len());
    }
    let report = check(&signatures(), &keys(&["sigstore/managed-key.pub"]));
    assert!(!report.holds);
    assert!(!check(&[], &keys(&["cosign/cosign.pub"])).holds);
}

#[test]
fn the_report_as_json_names_signer_and_reason() {
    let report = check(&signatures(), &keys(&["cosign/cosign.pub"]));
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["subject"], image().to_string());
    assert_eq!(json["holds"], true);
    let key = key("cosign/cosign.pub", Log::NotDemanded);
    let first = &json["verdicts"][0];
    assert_eq!(first["outcome"], "accepted");
    assert_eq!(first["form"], "legacy");
    assert_eq!(first["meaning"], "signature");
    assert_eq!(first["signer"]["kind"], "key");
    assert_eq!(first["signer"]["id"], key.id().to_string());
    assert_eq!(json["verdicts"][1]["outcome"], "refused");
    assert_eq!(json["verdicts"][1]["reason"], "wrong-key");
}

#[test]
fn a_key_whose_signatures_have_to_be_in_a_log_is_refused_without_one() {
    let demanded = Accept::new(vec![key("cosign/cosign.pub", Log::Demanded)], vec![]).unwrap();
    for evidence in [signatures(), attestations(), bundles()] {
        let roots = TrustRoots::public_good().unwrap();
        let report = verify(
            &Subject::from(&image()),
            &evidence[..1],
            &demanded,
            &roots,
            now(),
        );
        assert_eq!(outcomes(&report), [Err(Reason::NoLog)]);
    }
    let identities = identity("https://issuer.test", "ann@example.test");
    let report = check(&signatures(), &identities);
    assert_eq!(outcomes(&report), [Err(Reason::NotAccepted); 3]);
}

#[test]
fn a_signature_copied_from_another_image_is_about_that_one() {
    let other = Digest::of(b"another");
    let accept = keys(&["cosign/cosign.pub"]);
    for evidence in signatures()
        .into_iter()
        .chain(attestations())
        .chain(bundles())
    {
        let outcome = one(
            &Subject::from(&other),
            evidence,
            &accept,
            &TrustRoots::none(),
        );
        assert_eq!(outcome.unwrap_err(), Reason::WrongSubject);
    }
}

#[test]
fn a_payload_that_was_changed_or_cut_does_not_hold() {
    let accept = keys(&["cosign/cosign.pub"]);
    let Some(Evidence::Legacy {
        payload,
        annotations,
        from,
    }) = signatures().into_iter().next()
    else {
        panic!()
    };
    let with = |payload: Vec<u8>, annotations: &Annotations| {
        let evidence = Evidence::Legacy {
            payload,
            annotations: annotations.clone(),
            from,
        };
        one(
            &Subject::from(&image()),
            evidence,
            &accept,
            &TrustRoots::none(),
        )
        .map(|_| ())
    };
    let text = String::from_utf8(payload.clone()).unwrap();
    assert_eq!(with(payload.clone(), &annotations), Ok(()));
    for (changed, reason) in [
        (text.replace("127.0.0.1:15117/app", "registry.test/app"), Reason::WrongKey),
        (text.replace("\"optional\":null", "\"optional\":{}"), Reason::WrongKey),
        (format!("{text} "), Reason::WrongKey),
        (text.replace("cosign container", "another container"), Reason::Unsupported),
        (
            text.replace("\"type\"", "\"expires\":\"never\",\"type\""),
            Reason::Malformed,
        ),
        (
            // Two readings: the first names this image, the second another.
            text.replace(
                "\"critical\":",
                "\"critical\":{\"identity\":{},\"image\":{\"docker-manifest-digest\":\"sha256:00\"},\"type\":\"\"},\"critical\":",
            ),
            Reason::Malformed,
        ),
        (text[..text.len() - 1].to_owned(), Reason::Malformed),
        (String::new(), Reason::Malformed),
    ] {
        assert_ne!(changed, text);
        assert_eq!(with(changed.clone().into_bytes(), &annotations), Err(reason), "{changed}");
    }
    let signature = annotations.signature.clone().unwrap();
    let signed = |signature: Option<String>| Annotations {
        signature,
        ..annotations.clone()
    };
    for (changed, reason) in [
        (None, Reason::Malformed),
        (Some("?".to_owned()), Reason::Malformed),
        (
            Some(signature[..signature.len() - 8].to_owned()),
            Reason::WrongKey,
        ),
        (Some("AAAA".to_owned()), Reason::WrongKey),
    ] {
        assert_eq!(with(payload.clone(), &signed(changed)), Err(reason));
    }
    let nothing = Annotations {
        certificate: Some("no PEM".to_owned()),
        ..annotations.clone()
    };
    assert_eq!(with(payload.clone(), &nothing), Err(Reason::Malformed));
}

#[test]
fn payloads_and_annotations_are_bounded() {
    let Some(Evidence::Legacy {
        payload,
        annotations,
        from,
    }) = signatures().into_iter().next()
    else {
        panic!()
    };
    let reason = |payload: Vec<u8>, annotations: Annotations| {
        let evidence = Evidence::Legacy {
            payload,
            annotations,
            from,
        };
        let accept = keys(&["cosign/cosign.pub"]);
        one(
            &Subject::from(&image()),
            evidence,
            &accept,
            &TrustRoots::none(),
        )
        .unwrap_err()
    };
    let padded = |length: usize| {
        let mut payload = payload.clone();
        payload.resize(length, b' ');
        payload
    };
    assert_eq!(
        reason(padded(PAYLOAD_BYTES), annotations.clone()),
        Reason::WrongKey
    );
    assert_eq!(
        reason(padded(PAYLOAD_BYTES + 1), annotations.clone()),
        Reason::TooLarge
    );
    let long = |length: usize| Annotations {
        bundle: Some("x".repeat(length)),
        ..annotations.clone()
    };
    assert_eq!(
        reason(payload.clone(), long(ANNOTATION_BYTES)),
        Reason::Malformed
    );
    assert_eq!(
        reason(payload.clone(), long(ANNOTATION_BYTES + 1)),
        Reason::TooLarge
    );
}

#[test]
fn attestations_hold_in_both_forms_and_are_no_signatures_unless_a_builder_made_them() {
    let accept = keys(&["cosign/cosign.pub"]);
    for evidence in [attestations(), bundles()] {
        let report = check(&evidence, &accept);
        assert_eq!(outcomes(&report), [Ok(()); 3]);
        let mut types: Vec<_> = report
            .attestations()
            .map(|attested| attested.statement.predicate_type().to_owned())
            .collect();
        types.sort_unstable();
        assert_eq!(
            types,
            [
                "https://cyclonedx.org/bom",
                "https://slsa.dev/provenance/v1",
                "https://spdx.dev/Document",
            ]
        );
        assert_eq!(report.signatures().count(), 1, "the provenance alone");
        let inventories: Vec<Evidence> = evidence
            .into_iter()
            .zip(&report.verdicts)
            .filter(|(_, verdict)| !verdict.counts())
            .map(|(evidence, _)| evidence)
            .collect();
        assert_eq!(inventories.len(), 2);
        assert!(!check(&inventories, &accept).holds);
        assert!(!check(&inventories, &keys(&["cosign/other.pub"])).holds);
    }
}

#[test]
fn a_bundle_that_was_changed_or_cut_does_not_hold() {
    let accept = keys(&["cosign/cosign.pub"]);
    let whole = file("cosign/bundle-2.json");
    let good: Value = serde_json::from_slice(&whole).unwrap();
    let subject = Subject::from(&image());
    let reason =
        |bytes: Vec<u8>| one(&subject, bundle(bytes), &accept, &TrustRoots::none()).map(|_| ());
    assert_eq!(reason(whole.clone()), Ok(()));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = good.clone();
        change(&mut value);
        reason(value.to_string().into_bytes())
    };
    let payload = |change: &dyn Fn(&str) -> String| {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        changed(&|value| {
            let payload = value["dsseEnvelope"]["payload"].as_str().unwrap();
            let payload = String::from_utf8(STANDARD.decode(payload).unwrap()).unwrap();
            value["dsseEnvelope"]["payload"] = STANDARD.encode(change(&payload)).into();
        })
    };
    assert_eq!(payload(&str::to_owned), Ok(()));
    assert_eq!(
        payload(&|text| text.replace("example.test/builder", "trusted.test/builder")),
        Err(Reason::WrongKey)
    );
    assert_eq!(payload(&|text| format!("{text}x")), Err(Reason::Malformed));
    for (change, expected) in [
        (
            (&|value: &mut Value| value["mediaType"] = "application/x".into())
                as &dyn Fn(&mut Value),
            Reason::Malformed,
        ),
        (
            &|value| value["dsseEnvelope"]["payloadType"] = "text/plain".into(),
            Reason::Unsupported,
        ),
        (
            &|value| value["dsseEnvelope"]["signatures"][0]["sig"] = "AAAA".into(),
            Reason::WrongKey,
        ),
        (
            &|value| {
                let first = value["dsseEnvelope"]["signatures"][0].clone();
                value["dsseEnvelope"]["signatures"] = vec![first.clone(), first].into();
            },
            Reason::Malformed,
        ),
        (
            &|value| {
                value.as_object_mut().unwrap().remove("dsseEnvelope");
            },
            Reason::Malformed,
        ),
    ] {
        assert_eq!(changed(change), Err(expected));
    }
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        assert_eq!(reason(whole[..end].to_vec()), Err(Reason::Malformed));
    }
    assert_eq!(reason(vec![0xff; 10]), Err(Reason::Malformed));
    let mut long = whole;
    long.resize(BUNDLE_BYTES, b' ');
    assert_eq!(reason(long.clone()), Ok(()));
    long.push(b' ');
    assert_eq!(reason(long), Err(Reason::TooLarge));
}

#[test]
fn a_bundle_of_a_signed_blob_holds_for_its_digest_and_its_content() {
    let blob = file("cosign/prov.json");
    let accept = keys(&["cosign/cosign.pub"]);
    let none = TrustRoots::none();
    let evidence = || bundle(file("cosign/blob.bundle.json"));
    let digest = Digest::of(&blob);
    assert!(one(&Subject::from(&digest), evidence(), &accept, &none).is_ok());
    assert!(one(&Subject::of_content(&blob), evidence(), &accept, &none).is_ok());
    let other = Subject::of_content(b"other");
    assert_eq!(
        one(&other, evidence(), &accept, &none).unwrap_err(),
        Reason::WrongSubject
    );
    let mut unnamed: Value = serde_json::from_slice(&file("cosign/blob.bundle.json")).unwrap();
    unnamed["messageSignature"]
        .as_object_mut()
        .unwrap()
        .remove("messageDigest");
    let unnamed = || bundle(unnamed.to_string().into_bytes());
    assert!(one(&Subject::from(&digest), unnamed(), &accept, &none).is_ok());
    assert_eq!(
        one(&other, unnamed(), &accept, &none).unwrap_err(),
        Reason::WrongKey
    );
}

#[test]
fn what_a_stranger_wrote_does_not_steer_a_terminal() {
    let mut hostile: Value = serde_json::from_slice(&file("cosign/bundle-2.json")).unwrap();
    hostile["mediaType"] = "\u{1b}[2J\u{202e}".into();
    let evidence = bundle(hostile.to_string().into_bytes());
    let report = check(&[evidence], &keys(&["cosign/cosign.pub"]));
    let (_, refusal) = report.refused().next().unwrap();
    assert!(refusal.detail.contains("[2J"), "{}", refusal.detail);
    let steers = |c: char| c.is_control() || c == '\u{202e}';
    assert!(!refusal.detail.contains(steers), "{}", refusal.detail);
}

#[test]
fn evidence_beyond_the_bound_is_refused_unread() {
    let accept = keys(&["cosign/cosign.pub"]);
    let good = signatures().remove(0);
    let bad = signatures().remove(1);
    let at = |bads: usize| {
        let mut all = vec![bad.clone(); bads];
        all.push(good.clone());
        check(&all, &accept)
    };
    assert!(at(EVIDENCE - 1).holds);
    let report = at(EVIDENCE);
    assert!(!report.holds);
    assert_eq!(outcomes(&report)[EVIDENCE], Err(Reason::TooMany));
}
