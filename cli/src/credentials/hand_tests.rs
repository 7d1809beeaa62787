//! Against enforcers of the tests' own: revocations where a session or a sidecar fails, and grants that were changed.
#![allow(clippy::unwrap_used)]

use super::super::fake::{Fake, grant, places, record, serve};
use super::super::supply::bound;
use super::*;
use crate::grants;
use schema::hostconfig::Grant;

async fn revoked(places: &Places, workspace: &str) -> (Vec<String>, Vec<String>) {
    let revoked = revoke(places, "github", None, Some(Path::new(workspace))).await;
    let mut taken: Vec<String> = revoked.taken.into_iter().map(|h| h.session).collect();
    taken.sort();
    let failed = revoked.failed.iter().map(|failure| {
        assert_eq!(
            (failure.diagnostics[0].code, failure.status),
            ("credential-kept", 1)
        );
        failure.diagnostics[0].message.clone()
    });
    (taken, failed.collect())
}

#[tokio::test]
async fn a_revocation_asks_every_sidecar_and_goes_on_past_a_session_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let ours = Fake {
        sessions: vec![("aaa1", "held"), ("aaa2", "held"), ("aaa3", "revoked")],
        fails: Some("aaa1"),
        ..Default::default()
    };
    let earlier = Fake {
        sessions: vec![("bbb1", "held")],
        ..Default::default()
    };
    serve(&places, "ours", &ours);
    serve(&places, "earlier", &earlier);
    let (taken, failed) = revoked(&places, "/w").await;
    // One that is said to be revoked is told again: an earlier try may have come to nothing.
    assert_eq!(taken, ["aaa2", "aaa3", "bbb1"]);
    assert_eq!(ours.taken.lock().unwrap().as_slice(), ["aaa2", "aaa3"]);
    assert_eq!(earlier.taken.lock().unwrap().as_slice(), ["bbb1"]);
    assert_eq!(failed.len(), 1);
    assert!(
        failed[0].contains("aaa1") && failed[0].contains("no space left"),
        "{failed:?}"
    );
    assert_eq!(revoked(&places, "/elsewhere").await, (vec![], vec![]));
}

#[tokio::test]
async fn a_session_that_no_enforcer_answers_for_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let ours = Fake {
        sessions: vec![("aaa1", "held")],
        ..Default::default()
    };
    serve(&places, "ours", &ours);
    std::fs::create_dir_all(places.control("down")).unwrap();
    let ended = Record {
        ended: Some(2),
        ..record("ccc1", "down", "/w")
    };
    let beginning = Record {
        holder: record::Process::this(),
        ..record("ccc2", "ours", "/w")
    };
    for record in [
        record("aaa1", "ours", "/w"),
        record("aaa2", "ours", "/w"),
        record("bbb1", "down", "/w"),
        record("bbb2", "down", "/elsewhere"),
        ended,
        beginning,
    ] {
        record.save(&places).unwrap();
    }
    let (taken, mut failed) = revoked(&places, "/w").await;
    failed.sort();
    assert_eq!(taken, ["aaa1"]);
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed[0].contains("session bbb1") && failed[1].contains("session ccc2"));
}

#[tokio::test]
async fn a_grant_that_was_changed_is_not_handed_to_a_session_of_the_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let ours = Fake {
        sessions: vec![("aaa1", "held"), ("aaa2", "held")],
        ..Default::default()
    };
    serve(&places, "ours", &ours);
    let name = "github".parse().unwrap();
    let first = grant(dir.path(), "value-of-it", &["a.test", "b.test"]);
    grants::record(&places, Path::new("/w"), &name, &first).unwrap();
    let known = Record {
        granted: Some([("github".to_owned(), bound(&first))].into()),
        host_variables: None,
        left: Vec::new(),
        ..record("aaa1", "ours", "/w")
    };
    known.save(&places).unwrap();
    record("aaa2", "ours", "/w").save(&places).unwrap();
    let rotated = async || {
        let (_, mut enforcer) = channel::every(&places).await.pop().unwrap();
        let listed = enforcer.list_sessions(v1::ListSessionsRequest {}).await;
        let holders = meant(
            &places,
            listed.unwrap().into_inner().sessions,
            "github",
            None,
        );
        let results = renew(&places, &mut enforcer, holders, "github").await;
        let code = |result: Result<(), Failure>| result.err().map(|f| f.diagnostics[0].code);
        let results = results.into_iter().map(|(_, result)| code(result));
        results.collect::<Vec<_>>()
    };
    let changed = Some("credential-changed");
    // Of one that began before grants were on record nobody knows.
    assert_eq!(rotated().await, [None, changed]);
    let handed = [("aaa1".to_owned(), b"value-of-it".to_vec())];
    assert_eq!(ours.given.lock().unwrap().as_slice(), handed);

    for (hosts, source) in [
        (&["a.test"][..], "value-of-it"),
        (&["c.test"][..], "corp-token"),
    ] {
        let other = grant(dir.path(), source, hosts);
        grants::record(&places, Path::new("/w"), &name, &other).unwrap();
        assert_eq!(rotated().await, [changed, changed], "{hosts:?}");
    }
    for other in [
        Grant {
            source: "env://CORP".parse().unwrap(),
            ..first.clone()
        },
        Grant {
            query: Some("key".parse().unwrap()),
            ..first.clone()
        },
    ] {
        grants::record(&places, Path::new("/w"), &name, &other).unwrap();
        assert_eq!(rotated().await, [changed, changed]);
    }
    assert_eq!(ours.given.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_secret_is_handed_as_a_file_with_the_time_that_it_has_and_taken_away_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let places = places(dir.path());
    let ours = Fake {
        sessions: vec![("aaa1", "held")],
        secret: Some(3600),
        ..Default::default()
    };
    serve(&places, "ours", &ours);
    let (workspace, name) = (Path::new("/w"), "NPM_TOKEN".parse().unwrap());
    let source = grant(dir.path(), "value-of-it", &["a.test"]).source;
    let secret = schema::hostconfig::SecretGrant { source };
    grants::record_secret(&places, workspace, &name, &secret).unwrap();
    let host = loaded::host_for(&places, workspace).unwrap();
    let supply = Supply::of(&host, Kind::Secret, "NPM_TOKEN").unwrap();
    let known = Record {
        granted: Some([("NPM_TOKEN".to_owned(), supply.bound)].into()),
        ..record("aaa1", "ours", "/w")
    };
    known.save(&places).unwrap();

    let (_, mut enforcer) = channel::every(&places).await.pop().unwrap();
    let listed = enforcer.list_sessions(v1::ListSessionsRequest {}).await;
    let listed = listed.unwrap().into_inner().sessions;
    let holders = meant(&places, listed, "NPM_TOKEN", None);
    let rotated = renew(&places, &mut enforcer, holders, "NPM_TOKEN").await;
    assert!(rotated[0].1.is_ok(), "{rotated:?}");
    let revoked = revoke(&places, "NPM_TOKEN", None, None).await;
    assert_eq!(revoked.taken.len(), 1);

    let files = ours.files.lock().unwrap();
    let [handed, taken] = files.as_slice() else {
        panic!("{files:?}");
    };
    assert_eq!(handed.value, b"value-of-it");
    let left = handed.expires.saturating_sub(record::now());
    assert!((3590..=3600).contains(&left), "{left}");
    assert!(taken.revoked && taken.value.is_empty() && taken.name == "NPM_TOKEN");
    // Nothing of it was for the gateway.
    assert!(ours.given.lock().unwrap().is_empty() && ours.taken.lock().unwrap().is_empty());
}
