//! The socket that the gateway takes connections with: its port is another one in each session, and /proc/net shows it to whoever looks.

use std::process::Command;

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Workspace, docker};
use serde_json::Value;

use crate::host::wait_for;
use crate::singly::{container, record};

const GATEWAY: &str = "198.18.0.1";

/// The ports that are listened at there, by the kernel's table inside (proc_net_tcp: the address's lowest byte first).
fn ports(session: &Session<'_>) -> Vec<u16> {
    let table = session.exec(&["cat", "/proc/net/tcp"]);
    let listening = table.ok().lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next()?, words.nth(1)?);
        let port = local.strip_prefix("010012C6:").filter(|_| state == "0A")?;
        u16::from_str_radix(port, 16).ok()
    });
    listening.collect()
}

#[test]
fn x03_the_gateways_own_port_takes_nothing_that_was_not_handed_out() {
    let receiver = Receiver::start();
    let (host, name) = (format!("{}.test", token("x3")), token("x3"));
    let port = receiver.port().to_string();
    let workspace = Workspace::new().allow(&[&format!("{host}:{port}")]);
    workspace.put("dial.py", include_str!("../../probe/dial.py"));
    let session = workspace.session(&name);
    let dial = |place: &str, port: &str, word: &str| {
        let words = ["python3", "dial.py", "tcp", place, port, word];
        session.exec(&words)
    };
    // Controls: the same words reach what was handed out, and whoever is in that network beside the gate reaches the listener.
    assert_eq!(dial(&host, &port, "by-name").ok(), "answer by-name");
    assert!(receiver.hears(b"by-name"));
    let own = ports(&session);
    assert!(!own.is_empty(), "the kernel shows no listener");
    let id = container(&name);
    let pid = docker::run(&["inspect", "--format", "{{.State.Pid}}", &id]);
    let beside = "import socket, sys
it = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
print('connected', flush=True)
it.sendall(f'GET / HTTP/1.1\\r\\nHost: {sys.argv[3]}\\r\\n\\r\\nbeside'.encode())
print('heard', it.recv(100))";
    for own in own.iter().map(u16::to_string) {
        let mut nsenter = Command::new("nsenter");
        let words = ["--net", "--target", &pid, "python3", "-c", beside, GATEWAY];
        nsenter.args(words).args([&own, &host]);
        let out = outcome::finish(nsenter, DEADLINE);
        out.prints("connected");
        // It takes the connection, and decides again.
        let lines: Vec<&str> = out.stdout.lines().skip(1).collect();
        assert!(lines.is_empty() || lines == ["heard b''"], "{out:?}");
        let out = dial(GATEWAY, &own, "governed");
        assert!(out.stdout.contains("EPERM"), "{out:?}");
    }
    for word in ["beside", "governed"] {
        assert!(!receiver.heard_bytes(word.as_bytes()), "{word} got out");
    }
    // By each of the two.
    wait_for(|| {
        let events = workspace.events(&name);
        let denied = |port: u16, by_gateway: bool| {
            let mut of = events.iter().filter(|event| event["verdict"] == "deny");
            let who = |event: &Value| (event["reason"] == "unknown-address") == by_gateway;
            of.any(|event| event["port"] == port && who(event))
        };
        let mut own = own.iter().copied();
        let both = own.all(|port| denied(port, true) && denied(port, false));
        both.then_some(())
    });
    record(
        "X03p",
        "the gateway's own port, as /proc/net shows it",
        "works beside the gate",
        "gate; gateway: an address handed to nobody",
    );
}
