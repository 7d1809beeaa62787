#![allow(clippy::unwrap_used)]
use super::*;
use std::sync::Arc;

fn request(session: &str, path: &str) -> Request {
    Request {
        session: session.into(),
        workspace: "/w".into(),
        generation: 1,
        rule: audit::Rule {
            name: "rules \"a.b\" ports 443 ask".into(),
            origin: "f:1:1".into(),
        },
        what: What::Reach(Reach {
            kind: audit::Kind::Request,
            host: "a.b".into(),
            port: 443,
            protocol: "https".into(),
            method: "GET".into(),
            target: path.into(),
        }),
        asker: None,
    }
}

fn reach(request: &mut Request) -> &mut Reach {
    match &mut request.what {
        What::Reach(reach) => reach,
        What::Start(_) => panic!("it is about a program"),
    }
}

type Told = Arc<Mutex<Vec<(String, Outcome)>>>;

fn ask(broker: &Broker, request: Request, told: &Told) -> Result<Question, Outcome> {
    let told = Arc::clone(told);
    let reply: Reply = Box::new(move |question, outcome| {
        let target = reach(&mut question.request.clone()).target.clone();
        told.lock().unwrap().push((target, outcome));
    });
    broker.ask(request, Duration::from_secs(60), |_| true, reply)
}

/// Time goes by for a session's questions.
fn rest(broker: &Broker) {
    for (tokens, _) in broker.lock().buckets.values_mut() {
        *tokens = BURST;
    }
}

#[test]
fn a_question_is_answered_once_by_its_id_and_in_any_order() {
    let (broker, told) = (Broker::default(), Told::default());
    let ids: Vec<String> = ["/a", "/b", "/c"]
        .map(|path| ask(&broker, request("s", path), &told).unwrap().id)
        .into();
    let (open, mut changes) = broker.listen(None);
    assert_eq!(open.iter().map(|q| q.id.clone()).collect::<Vec<_>>(), ids);
    for (at, outcome) in [
        (2, Outcome::Allowed),
        (0, Outcome::Denied),
        (1, Outcome::Timeout),
    ] {
        let taken = broker.take(&ids[at]).unwrap();
        broker.end(taken, outcome);
        assert!(matches!(changes.try_recv(), Ok(Change::Gone { id, .. }) if id == ids[at]));
    }
    let expected = [
        ("/c".to_owned(), Outcome::Allowed),
        ("/a".to_owned(), Outcome::Denied),
        ("/b".to_owned(), Outcome::Timeout),
    ];
    assert_eq!(*told.lock().unwrap(), expected);
    let over = broker.take(&ids[2]).err().unwrap();
    assert_eq!(
        over,
        NoQuestion::Over {
            id: ids[2].clone(),
            how: "approval-allowed"
        }
    );
    assert_eq!(broker.look(&ids[2]).unwrap_err(), over);
    let unknown = broker.take("zzzzz").err().unwrap();
    assert_eq!(unknown, NoQuestion::Unknown("zzzzz".into()));
    assert!(broker.listen(None).0.is_empty());
}

#[test]
fn as_many_wait_as_may_and_the_next_is_denied() {
    let (broker, told) = (Broker::default(), Told::default());
    let mut first = None;
    for n in 0..MAX_HELD {
        let question = ask(&broker, request("s", &format!("/{n}")), &told).unwrap();
        first.get_or_insert(question.id);
    }
    let next = || request("s", "/next");
    assert_eq!(ask(&broker, next(), &told), Err(Outcome::Limit));
    assert!(ask(&broker, request("other", "/"), &told).is_ok());
    let taken = broker.take(&first.unwrap()).unwrap();
    broker.end(taken, Outcome::Denied);
    assert!(ask(&broker, next(), &told).is_ok());
}

#[test]
fn a_session_asks_no_faster_than_a_person_reads() {
    let (broker, told) = (Broker::default(), Told::default());
    let ask_one = || {
        let asked = ask(&broker, request("s", "/"), &told)?;
        let taken = broker.take(&asked.id).unwrap();
        broker.end(taken, Outcome::Withdrawn);
        Ok::<_, Outcome>(())
    };
    let fine = (0..200).take_while(|_| ask_one().is_ok()).count();
    assert!(
        (BURST as usize..BURST as usize + 4).contains(&fine),
        "{fine}"
    );
    rest(&broker);
    assert!(ask_one().is_ok());
}

#[test]
fn what_is_kept_is_the_same_rule_host_port_method_and_path_and_no_more() {
    let (broker, told) = (Broker::default(), Told::default());
    let question = ask(&broker, request("s", "/a?x=1"), &told).unwrap();
    assert!(broker.keep(&question));
    let mut post = request("s", "/a");
    reach(&mut post).method = "POST".into();
    assert_eq!(broker.covers(&post), None);
    assert_eq!(broker.covers(&request("s", "/a?x=2")), Some(question.id));
    let mut others = [
        request("s", "/a/b"),
        request("t", "/a"),
        request("s", "/a"),
        request("s", "/a"),
        request("s", "/a"),
        request("s", "/a"),
        request("s", "/a"),
        request("s", "/a"),
    ];
    reach(&mut others[2]).method = "GET (WebSocket)".into();
    reach(&mut others[3]).host = "b.b".into();
    reach(&mut others[4]).port = 8443;
    reach(&mut others[5]).protocol = "http".into();
    others[6].rule.name = "another".into();
    others[7].rule.origin = "f:2:1".into();
    for other in others {
        assert_eq!(broker.covers(&other), None, "{other:?}");
    }
    broker.retain("s", |_, origin| origin == "f:1:1");
    assert!(broker.covers(&request("s", "/a")).is_some());
    broker.retain("s", |_, origin| origin != "f:1:1");
    assert!(broker.covers(&request("s", "/a")).is_none());
}

#[test]
fn what_is_kept_of_a_program_is_the_same_rule_and_path_and_no_more() {
    let broker = Broker::default();
    let start = |program: &str| Request {
        what: What::Start(Start {
            program: program.parse().unwrap(),
            seen: Seen::default(),
            line: Vec::new(),
            parents: Vec::new(),
        }),
        ..request("s", "/")
    };
    let tell: Reply = Box::new(|_, _| {});
    let asked = broker.ask(
        start("/usr/bin/id"),
        Duration::from_secs(60),
        |_| true,
        tell,
    );
    assert!(broker.keep(&asked.unwrap()));
    assert!(broker.covers(&start("/usr/bin/id")).is_some());
    let other = Request {
        session: "t".into(),
        ..start("/usr/bin/id")
    };
    for other in [start("/usr/bin/ids"), request("s", "/usr/bin/id"), other] {
        assert_eq!(broker.covers(&other), None, "{other:?}");
    }
}

#[test]
fn as_much_is_kept_as_may_be() {
    let (broker, told) = (Broker::default(), Told::default());
    let mut question = ask(&broker, request("s", "/"), &told).unwrap();
    for n in 0..=MAX_KEPT {
        reach(&mut question.request).target = format!("/{n}");
        assert_eq!(broker.may_keep(&question), n < MAX_KEPT, "{n}");
        assert_eq!(broker.keep(&question), n < MAX_KEPT, "{n}");
    }
    broker.forget("s");
    assert!(broker.keep(&question));
}

#[test]
fn what_is_not_recorded_is_not_asked() {
    let broker = Broker::default();
    let asked = broker.ask(
        request("s", "/"),
        Duration::from_secs(1),
        |_| false,
        Box::new(|_, _| {}),
    );
    assert_eq!(asked, Err(Outcome::NotRecorded));
    assert!(broker.listen(None).0.is_empty());
}

#[test]
fn an_answer_has_no_effect_before_it_is_on_record() {
    let (broker, told) = (Broker::default(), Told::default());
    for (path, written) in [("/a", true), ("/b", false)] {
        let id = ask(&broker, request("s", path), &told).unwrap().id;
        let record = |question: &Question| {
            assert_eq!(broker.covers(&question.request), None);
            assert!(told.lock().unwrap().iter().all(|(told, _)| told != path));
            written
        };
        let taken = broker.take(&id).unwrap();
        let settled = broker.settle(taken, Outcome::AllowedForSession, record);
        assert_eq!(settled, written);
        assert_eq!(broker.covers(&request("s", path)).is_some(), written);
    }
    let expected = [
        ("/a".to_owned(), Outcome::AllowedForSession),
        ("/b".to_owned(), Outcome::NotRecorded),
    ];
    assert_eq!(told.lock().unwrap().as_slice(), expected);
}

#[test]
fn an_id_that_was_drawn_and_is_not_open_yet_is_not_drawn_again() {
    let mut inner = Inner::default();
    let mut draws = ["aaaa", "aaaa", "bbbb"].into_iter();
    let mut next = || inner.new_id(|| draws.next().map(str::to_owned));
    assert_eq!(next().as_deref(), Some("aaaa"));
    assert_eq!(next().as_deref(), Some("bbbb"));
    // One that is always drawn again is not waited for.
    assert_eq!(inner.new_id(|| Some("aaaa".to_owned())), None);
}
