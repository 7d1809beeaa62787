#![allow(clippy::unwrap_used)]
use api::v1;
use policy::{DomainRule, Gateway, Layer, Network, Origin};

use super::*;

fn policy(hosts: &[&str]) -> EffectivePolicy {
    let allowed = hosts.iter().map(|host| DomainRule {
        host: host.parse().unwrap(),
        port: None,
        origin: Origin {
            file: "agentcontainer.json".into(),
            line: 1,
            column: 1,
        },
    });
    let layer = Layer {
        allowed: allowed.collect(),
        ..Layer::default()
    };
    EffectivePolicy::new(Network::new([layer]).unwrap(), Gateway::default()).unwrap()
}

fn document(generation: u32, hosts: &[&str]) -> SnapshotDocument {
    SnapshotDocument {
        generation,
        policy: policy(hosts).to_json(),
        names: Vec::new(),
        session: "s".into(),
        roots: Vec::new(),
        secrets: Vec::new(),
    }
}

fn host(name: &str) -> HostName {
    HostName::parse(name).unwrap()
}

fn intent(name: &str) -> Intent {
    Intent {
        place: Place::Name(host(name)),
        port: 443,
    }
}

#[tokio::test]
async fn everything_is_denied_before_the_first_snapshot() {
    let state = State::new(System::default()).unwrap();
    assert!(state.admit(&intent("example.com")).is_err());
    state.apply(1, document(1, &["example.com"])).await.unwrap();
    assert!(state.admit(&intent("example.com")).is_ok());
}

#[tokio::test]
async fn a_snapshot_that_is_not_whole_changes_nothing() {
    let state = State::new(System::default()).unwrap();
    state.apply(1, document(1, &["example.com"])).await.unwrap();
    assert!(matches!(
        state.apply(3, document(2, &[])).await,
        Err(SnapshotError::Generation)
    ));
    let mut broken = document(2, &[]);
    broken.policy.pop();
    assert!(matches!(
        state.apply(2, broken).await,
        Err(SnapshotError::Policy(_))
    ));
    for (name, address) in [
        ("EXAMPLE.com", 0xc612_0100),
        ("a.example", 0x0102_0304),
        ("a.example", 0xc612_0003),
    ] {
        let mut bad = document(2, &[]);
        bad.names.push(v1::Name {
            name: name.into(),
            address,
        });
        assert!(matches!(
            state.apply(2, bad).await,
            Err(SnapshotError::Name)
        ));
    }
    assert_eq!(state.active().generation, 1);
    assert!(state.admit(&intent("example.com")).is_ok());
}

#[tokio::test]
async fn a_snapshot_that_was_overtaken_takes_nothing_back() {
    let state = State::new(System::default()).unwrap();
    state.apply(2, document(2, &["b.example"])).await.unwrap();
    state.apply(1, document(1, &["a.example"])).await.unwrap();
    assert_eq!(state.active().generation, 2);
    assert!(state.admit(&intent("b.example")).is_ok());
    assert!(state.admit(&intent("a.example")).is_err());
}

#[tokio::test]
async fn a_swap_waits_for_those_who_lost_their_right() {
    let state = State::new(System::default()).unwrap();
    state
        .apply(1, document(1, &["a.example", "b.example"]))
        .await
        .unwrap();
    let (_, stays) = state.admit(&intent("a.example")).unwrap();
    let (_, goes) = state.admit(&intent("b.example")).unwrap();
    let closed = tokio::spawn(async move {
        goes.revoked().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(goes);
    });
    state.apply(2, document(2, &["a.example"])).await.unwrap();
    assert_eq!(state.open_connections(), 1);
    closed.await.unwrap();
    drop(stays);
    assert_eq!(state.open_connections(), 0);
}

#[test]
fn an_address_is_one_names_for_the_life_of_the_session() {
    let state = State::new(System::default()).unwrap();
    let [first, second] = [Ipv4Addr::new(198, 18, 1, 0), Ipv4Addr::new(198, 18, 1, 1)];
    assert!(state.add_name(&host("a.example"), first));
    assert!(state.add_name(&host("a.example"), first));
    assert!(!state.add_name(&host("a.example"), second));
    assert!(!state.add_name(&host("b.example"), first));
    assert_eq!(state.name_of(first), Some(host("a.example")));
    assert_eq!(state.name_of(second), None);
    for not_ours in [
        Ipv4Addr::new(198, 18, 0, 255),
        Ipv4Addr::new(198, 20, 0, 0),
        Ipv4Addr::new(10, 0, 0, 1),
    ] {
        assert!(!state.add_name(&host("c.example"), not_ours));
    }
    assert!(state.add_name(&host("c.example"), Ipv4Addr::new(198, 19, 255, 255)));
}

#[tokio::test]
async fn names_that_an_agent_makes_up_under_a_wildcard_are_bounded() {
    let state = State::new(System::default()).unwrap();
    let apply = state.apply(1, document(1, &["*.example.com", "exact.example.com"]));
    apply.await.unwrap();
    let active = state.active();
    let chosen = |n: usize| {
        // Labels of 59 bytes and dots.
        let mut text: String = "a".repeat(n);
        for dot in (59..n - 1).step_by(60) {
            text.replace_range(dot..=dot, ".");
        }
        host(&format!("{text}.example.com"))
    };
    // The dot before the base counts too.
    assert_eq!(
        state.choose(&active, &chosen(limits::WILDCARD_CHOSEN_BYTES - 1)),
        Ok(())
    );
    assert_eq!(
        state.choose(&active, &chosen(limits::WILDCARD_CHOSEN_BYTES)),
        Err(ChosenRefusal::Long)
    );
    let mut taken = 1;
    loop {
        match state.choose(&active, &host(&format!("n{taken}.example.com"))) {
            Ok(()) => taken += 1,
            Err(refusal) => {
                assert_eq!(refusal, ChosenRefusal::Fast);
                break;
            }
        }
    }
    assert!((limits::WILDCARD_BURST..limits::WILDCARD_BURST + 10).contains(&taken));
    // What was used before, and what a rule spells out, is free.
    for _ in 0..1000 {
        assert_eq!(state.choose(&active, &host("n1.example.com")), Ok(()));
        assert_eq!(state.choose(&active, &host("exact.example.com")), Ok(()));
    }
}

#[test]
fn the_denials_that_are_shown_are_the_last() {
    let state = State::new(System::default()).unwrap();
    for i in 0..=limits::SHOWN_DENIALS {
        state.denied(format!("h{i}"), None, "not-listed");
    }
    let shown = state.denials();
    assert_eq!(shown.len(), limits::SHOWN_DENIALS);
    assert_eq!(shown[0].host, "h1");
}

#[test]
fn a_program_that_a_person_is_asked_about_is_on_the_page_with_its_question() {
    use crate::http::page::{Form, internal};
    let state = State::new(System::default()).unwrap();
    let refused = |question: &str, seconds| v1::Refused {
        program: "/usr/bin/<id>".into(),
        question: question.into(),
        seconds,
        rule: "requireApproval".into(),
        origin: "agentcontainer.json:5:21".into(),
    };
    state.refused(refused("k7d3f", 60));
    let page = |form| {
        let (denials, waiting) = (state.denials(), state.waiting());
        internal(&state.active(), &denials, &waiting, form).body
    };
    for (form, words) in [
        (Form::Text, "  k7d3f start /usr/bin/<id> (5"),
        (
            Form::Text,
            "  /usr/bin/<id> not-listed, a person is asked as k7d3f (0 s ago)",
        ),
        (Form::Html, "  k7d3f start /usr/bin/&lt;id&gt; (5"),
        (
            Form::Json,
            "\"question\":\"k7d3f\",\"rule\":{\"name\":\"requireApproval\"",
        ),
        (
            Form::Json,
            "\"question\":\"k7d3f\",\"reason\":\"not-listed\"",
        ),
    ] {
        assert!(page(form).contains(words), "{words}: {}", page(form));
    }
    state.over("k7d3f");
    assert!(state.waiting().is_empty() && state.denials().len() == 1);
    // One whose end nobody told is gone with the next.
    state.refused(refused("a", 0));
    state.refused(refused("b", 60));
    let waiting: Vec<String> = state.waiting().into_iter().map(|w| w.question).collect();
    assert_eq!(waiting, ["b"]);
}

#[tokio::test]
async fn names_under_wildcards_are_counted_over_the_session() {
    let state = State::new(System::default()).unwrap();
    state
        .apply(1, document(1, &["*.example.com"]))
        .await
        .unwrap();
    let active = state.active();
    // All but one of them, without waiting for the rate.
    for i in 1..limits::WILDCARD_NAMES {
        state
            .lock()
            .chosen
            .insert(host(&format!("n{i}.example.com")));
    }
    assert_eq!(state.choose(&active, &host("last.example.com")), Ok(()));
    assert_eq!(
        state.choose(&active, &host("more.example.com")),
        Err(ChosenRefusal::Many)
    );
    assert_eq!(state.choose(&active, &host("last.example.com")), Ok(()));
}
