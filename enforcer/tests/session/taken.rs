//! A value that is taken away while its session is open.

use api::v1;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_away_is_gone_from_the_gateway_although_it_cannot_be_written_down() {
    let rig = Rig::new();
    let secret = |value: &[u8], revoked| v1::Secret {
        credential: "github".into(),
        value: value.to_vec(),
        placeholder: "stand-in-of-github-0123456789".into(),
        revoked,
        ..Default::default()
    };
    let id = SessionId::generate(*b"unwritte");
    let trusted = Trusted {
        roots: Vec::new(),
        secrets: vec![secret(b"the-value-of-it", false)],
        files: Default::default(),
        owner: None,
    };
    let session = Session::open(
        Arc::clone(&rig.places),
        id.clone(),
        "/test".into(),
        allowing(&["api.example.test"], 1),
        trusted,
        9,
        Arc::default(),
    )
    .await
    .unwrap();
    let before = session.status().await.generation;
    // What the record is written into is a directory: it cannot be written, root or not.
    let directory = rig.places.sessions.join(id.as_str());
    std::fs::create_dir(directory.join("session.json.new")).unwrap();
    let refused = session.set_secrets(vec![secret(b"", true)]).await;
    assert!(refused.is_err(), "it is said: {refused:?}");
    let told = session.status().await;
    assert!(told.generation > before, "the gateway has taken it up");
    assert_eq!(told.credentials[0].state, "revoked");
    let taken = |events: Vec<audit::Event>| {
        let mut events = events.into_iter();
        events.any(|event| event.reason == "credential-revoked")
    };
    assert!(taken(rig.events(id.as_str())));

    // Another try, with room again, writes it.
    std::fs::remove_dir(directory.join("session.json.new")).unwrap();
    let again = session.set_secrets(vec![secret(b"", true)]).await;
    assert_eq!(again.unwrap(), Vec::<String>::new());
    let record = std::fs::read_to_string(directory.join("session.json")).unwrap();
    assert!(record.contains("\"revoked\":true"), "{record}");
    session.close("test").await.unwrap();
}
