//! What a gateway said before it ended is on record, however it ended: by itself, in the middle of an answer to it, or with the session.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::v1::{self, FromGateway, from_gateway};
use enforcer::session::Session;
use prost::Message as _;

use crate::{Rig, allowing, open, open_up};

/// Events that are said, one a message: more than are received at once, so that what is answered is answered while others wait.
const SAID: usize = 40;

/// Stands for a gateway: decides by whatever it is told, says its last words when a file is there, and once. Without `stays` it ends.
const GATEWAY: &str = r#"#!/usr/bin/python3 -I
import os, socket, time
control, lane = (socket.socket(fileno=fd) for fd in (3, 4))
for one in (control, lane):
    one.setblocking(True)
here = "HERE"
def read(name):
    with open(f"{here}/{name}", "rb") as file:
        return file.read()
control.send(read("ready"))
while True:
    message = control.recv(65536)
    if message and message[0] == SNAPSHOT:
        break
control.send(read("applied"))
while not os.path.exists(here + "/said/go") or os.path.exists(here + "/said/once"):
    time.sleep(0.01)
open(here + "/said/once", "w")
for n in range(SAID):
    lane.send(read(f"word-{n}"))
if os.path.exists(here + "/said/broken"):
    control.send(b"\xff\xff\xff")
if os.path.exists(here + "/said/stays"):
    open(here + "/said/done", "w")
    time.sleep(60)
"#;

fn message(message: from_gateway::Message) -> Vec<u8> {
    let message = Some(message);
    FromGateway { message }.encode_to_vec()
}

/// The stand-in, and what it sends, in a directory that it may read; each of its words is waited for, or none.
fn gateway(directory: &Path, waits: bool) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let said = directory.join("said");
    std::fs::create_dir(&said).unwrap();
    let anyones = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(&said, anyones(0o777)).unwrap();
    let ready = v1::Ready {
        ca_certificate: vec![1],
    };
    let applied = v1::Applied { generation: 1 };
    let write = |name: &str, bytes: &[u8]| std::fs::write(directory.join(name), bytes).unwrap();
    write("ready", &message(from_gateway::Message::Ready(ready)));
    write("applied", &message(from_gateway::Message::Applied(applied)));
    for n in 0..SAID {
        let event = audit::Event::new(
            audit::Kind::Connect,
            audit::Verdict::Flag,
            format!("word-{n}"),
        );
        let record = v1::Record {
            id: if waits { n as u64 + 1 } else { 0 },
            event: serde_json::to_vec(&event).unwrap(),
            flow: None,
        };
        let records = v1::Records {
            records: vec![record],
        };
        let bytes = message(from_gateway::Message::Records(records));
        write(&format!("word-{n}"), &bytes);
    }
    let to = v1::ToGateway {
        message: Some(v1::to_gateway::Message::Snapshot(v1::Snapshot::default())),
    };
    let program = directory.join("gateway");
    let text = GATEWAY
        .replace("HERE", directory.to_str().unwrap())
        .replace("SAID", &SAID.to_string())
        .replace("SNAPSHOT", &to.encode_to_vec()[0].to_string());
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, anyones(0o755)).unwrap();
    program
}

struct Case {
    rig: Rig,
    id: String,
    session: Arc<Session>,
    said: PathBuf,
}

impl Case {
    async fn new(name: &str, index: u32, waits: bool, files: &[&str]) -> Self {
        let mut rig = Rig::new();
        let directory = rig.directory.path().join("stand-in");
        std::fs::create_dir(&directory).unwrap();
        open_up(&directory);
        Arc::get_mut(&mut rig.places).unwrap().gateway = gateway(&directory, waits);
        let said = directory.join("said");
        for file in files {
            std::fs::write(said.join(file), "").unwrap();
        }
        let id = format!("{name}{}", std::process::id());
        let session = open(&rig, &id, allowing(&["api.example.test"], 80), index).await;
        Self {
            rig,
            id,
            session,
            said,
        }
    }

    fn go(&self) {
        std::fs::write(self.said.join("go"), "").unwrap();
    }

    /// How many of the words are on record.
    fn words(&self) -> usize {
        let events = self.rig.events(&self.id);
        let words = events.iter().filter(|e| e.reason.starts_with("word-"));
        words.count()
    }

    /// Until another gateway has taken the place of the one that spoke.
    async fn replaced(&self) {
        for _ in 0..500 {
            let events = self.rig.events(&self.id);
            if events.iter().any(|e| e.reason == "gateway-restarted") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the gateway did not end");
    }

    async fn close(self) {
        self.session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_ended_said_what_it_said() {
    for (name, index, waits, files) in [
        ("lw", 60, false, &[][..]),
        // It is gone when its first words are answered.
        ("la", 61, true, &[][..]),
        // What is no message ends it; what came before is on record.
        ("lb", 62, true, &["broken", "stays"][..]),
    ] {
        let case = Case::new(name, index, waits, files).await;
        case.go();
        case.replaced().await;
        assert_eq!(case.words(), SAID, "{name}");
        case.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_gateway_said_when_its_session_closed_comes_before_the_end() {
    let case = Case::new("lc", 63, false, &["stays"]).await;
    case.go();
    // Said, and it may be received or not: the session is closed at once.
    while !case.said.join("done").exists() {
        tokio::task::yield_now().await;
    }
    case.session.close("test").await.unwrap();
    let events = case.rig.events(&case.id);
    assert_eq!(events.last().unwrap().reason, "session-closed");
    assert_eq!(case.words(), SAID);
}
