#![allow(clippy::unwrap_used)]
use schema::digest::Digest;
use serde_json::json;

use super::*;

fn statement(subjects: &serde_json::Value) -> String {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects,
        "predicateType": "https://example.test/p",
        "predicate": {"a": 1},
    })
    .to_string()
}

#[test]
fn a_statement_names_its_subjects_by_every_digest_it_has() {
    let digest = Digest::of(b"x");
    let content = b"x";
    let sha512 = Subject::of_content(content).sha512_hex().unwrap();
    let names = |subjects: serde_json::Value, subject: &Subject<'_>| {
        Statement::parse(statement(&subjects).as_bytes())
            .unwrap()
            .names(subject)
    };
    let by_digest = Subject::from(&digest);
    let by_content = Subject::of_content(content);
    let other = Digest::of(b"y").hex();
    for (subjects, digest_alone, whole) in [
        (json!([{"digest": {"sha256": digest.hex()}}]), true, true),
        (
            json!([{"digest": {"sha256": other}}, {"digest": {"sha256": digest.hex()}}]),
            true,
            true,
        ),
        (json!([{"digest": {"sha256": other}}]), false, false),
        (json!([{"digest": {"sha512": sha512}}]), false, true),
        (
            json!([{"digest": {"sha256": other, "sha512": sha512}}]),
            false,
            false,
        ),
        (json!([{"digest": {"sha1": "ab"}}]), false, false),
        (
            json!([{"digest": {"sha256": digest.hex().to_uppercase()}}]),
            false,
            false,
        ),
    ] {
        assert_eq!(
            names(subjects.clone(), &by_digest),
            digest_alone,
            "{subjects}"
        );
        assert_eq!(names(subjects.clone(), &by_content), whole, "{subjects}");
    }
}

#[test]
fn a_statement_with_two_readings_is_refused() {
    let good = statement(&json!([{"digest": {"sha256": "aa"}}]));
    assert!(Statement::parse(good.as_bytes()).is_ok());
    for bad in [
        good.replace("\"sha256\":\"aa\"", "\"sha256\":\"aa\",\"sha256\":\"bb\""),
        good.replace("\"subject\":", "\"subject\":[],\"subject\":"),
        good.replace("Statement/v1", "Statement/v2"),
        good.replace("\"_type\"", "\"type\""),
        statement(&json!([])),
        statement(&json!([{"name": "x"}])),
        format!("{good}{{}}"),
        good[..good.len() - 1].to_owned(),
    ] {
        assert!(Statement::parse(bad.as_bytes()).is_err(), "{bad}");
    }
    let two = good.replace("\"predicate\":", "\"predicate\":{},\"predicate\":");
    let statement = Statement::parse(two.as_bytes()).unwrap();
    assert!(matches!(
        statement.predicate::<serde_json::Value>(),
        Err(StatementError::Predicate(_))
    ));
}

#[test]
fn a_statement_is_bounded() {
    let with = |count: usize| statement(&vec![json!({"digest": {"sha256": "aa"}}); count].into());
    assert!(Statement::parse(with(SUBJECTS).as_bytes()).is_ok());
    assert!(matches!(
        Statement::parse(with(SUBJECTS + 1).as_bytes()),
        Err(StatementError::Subjects)
    ));
    let mut long = with(1).into_bytes();
    long.resize(BYTES, b' ');
    assert!(Statement::parse(&long).is_ok());
    long.push(b' ');
    assert!(matches!(
        Statement::parse(&long),
        Err(StatementError::Unbounded(_))
    ));
}
