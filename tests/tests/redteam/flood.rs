//! So many denials that their records find no room: what was lost is counted, and what is carried is still on record.

use std::time::{Duration, Instant};

use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Workspace, rig};
use serde_json::Value;

use crate::singly::record;

const FEW: usize = 50;
/// Far more than the kernel's buffer and the log's rate take.
const MANY: usize = 300_000;

/// Denials of a port that were written.
fn denials(events: &[Value], port: u16) -> usize {
    events
        .iter()
        .filter(|event| event["port"] == port && event["verdict"] == "deny")
        .count()
}

fn lost(events: &[Value]) -> usize {
    let counts = events.iter().filter_map(|event| event["lost"].as_u64());
    usize::try_from(counts.sum::<u64>()).unwrap()
}

#[test]
fn k10_a_flood_of_denials_hides_nothing_that_is_carried() {
    let (allowed, few, many) = (Receiver::start(), Receiver::start(), Receiver::start());
    let (host, name) = (format!("{}.test", token("k10")), token("k10"));
    let workspace = Workspace::new().allow(&[&format!("{host}:{}", allowed.port())]);
    let session = workspace.session(&name);
    workspace.put(
        "flood.py",
        "import socket, sys
it, to = socket.socket(), (sys.argv[1], int(sys.argv[2]))
print(sum(it.connect_ex(to) == 1 for _ in range(int(sys.argv[3]))))",
    );
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    let flood = |receiver: &Receiver, count: usize| {
        let words = [
            rig().bridge.to_string(),
            receiver.port().to_string(),
            count.to_string(),
        ];
        let said = session.exec(&["python3", "flood.py", &words[0], &words[1], &words[2]]);
        assert_eq!(said.ok(), count.to_string(), "each is EPERM");
    };
    // Control: a few are all on record, and none is lost.
    flood(&few, FEW);
    let recorded = until(
        || workspace.events(&name),
        |all| denials(all, few.port()) >= FEW,
    );
    assert_eq!(denials(&recorded, few.port()), FEW);
    assert_eq!(lost(&recorded), 0);

    flood(&many, MANY);
    let port = allowed.port().to_string();
    let said = session.exec(&["python3", "dial.py", "tcp", &host, &port, "decisive"]);
    assert_eq!(said.ok(), "answer decisive");
    assert!(allowed.hears(b"decisive"));
    let recorded = until(
        || workspace.events(&name),
        |all| denials(all, many.port()) + lost(all) >= MANY,
    );
    assert!(lost(&recorded) > 0, "the flood was too small to lose any");
    assert_eq!(denials(&recorded, many.port()) + lost(&recorded), MANY);
    let carried = recorded.iter().find(|event| {
        event["host"] == host.as_str()
            && event["verdict"] == "allow"
            && event["port"] == allowed.port()
    });
    assert!(carried.is_some(), "{} events, none of it", recorded.len());
    few.silent();
    many.silent();
    record(
        "K10",
        "so many denials that the decisive record is lost",
        "a few are all on record",
        "losses counted; the gateway writes before it carries",
    );
}

/// Looks again until it is so, or the time is up: the records come after what they are about.
fn until(look: impl Fn() -> Vec<Value>, so: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let found = look();
        if so(&found) || began.elapsed() > Duration::from_secs(30) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
