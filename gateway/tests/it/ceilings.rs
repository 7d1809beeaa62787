//! An organisation's ceiling over what a workspace's rules allow: decided again where bytes pass, whatever let them come this far.
//! The servers' own count is the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use policy::Ceiling;
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::*;
use crate::http::OK;

/// A server that counts who comes.
async fn counting() -> (u16, Arc<AtomicU32>) {
    let heard = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&heard);
    let port = upstream(move |mut stream| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            let mut head = [0; 1024];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(OK.as_bytes()).await;
        }
    })
    .await;
    (port, heard)
}

fn rules(near: u16, far: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule("in.example.com", near, Protocol::Http)
        .rule("out.example.com", near, Protocol::Http)
        .rule("led.example.com", far, Protocol::Http)
        .host("in.example.com")
        .host("out.example.com")
        .host("led.example.com")
}

fn ceiling(far: u16) -> Ceiling {
    let text = format!(
        r#"{{ "version": 1, "organisation": "acme", "serial": 1, "notAfter": "2099-01-01T00:00:00Z",
            "ceilings": {{ "network": {{ "allowedDomains": ["in.example.com", "led.example.com"] }} }},
            "denials": {{ "networks": ["127.0.0.0/8:{far}"] }} }}"#
    );
    Ceiling::of(&schema::organisation::parse(text.as_bytes(), "policy.json").unwrap())
}

async fn answered(session: &mut Session, host: &str, port: u16) -> String {
    let door = session.door(host, port).await;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    let bytes = exchange(door, request.as_bytes()).await.unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_organisation_does_not_allow_is_heard_by_no_server() {
    let ((near, heard_near), (far, heard_far)) = (counting().await, counting().await);
    let count = |heard: &AtomicU32| heard.load(Ordering::SeqCst);
    // Without the ceiling each of them answers.
    let mut session = Session::start(rules(near, far)).await;
    for (host, port) in [
        ("in.example.com", near),
        ("out.example.com", near),
        ("led.example.com", far),
    ] {
        let got = answered(&mut session, host, port).await;
        assert!(got.starts_with("HTTP/1.1 200"), "{host}: {got}");
    }
    assert_eq!((count(&heard_near), count(&heard_far)), (2, 1));

    let mut under = rules(near, far);
    under.ceilings = vec![ceiling(far)];
    let mut session = Session::start(under).await;
    let got = answered(&mut session, "in.example.com", near).await;
    assert!(got.starts_with("HTTP/1.1 200"), "{got}");
    answered(&mut session, "out.example.com", near).await;
    let denied = session.event("beyond-ceiling").await;
    let rule = denied.rule.unwrap();
    assert!(rule.name.contains("policy of acme"), "{rule:?}");
    answered(&mut session, "led.example.com", far).await;
    session.event("address-refused").await;
    assert_eq!((count(&heard_near), count(&heard_far)), (3, 1));
}
