//! Makes the attempts of the list: all of one kind of control in one plain container, then all of them in one session of ours, each
//! attempt with a receiver and a token of its own.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::OnceLock;

use agentcontainer_tests::attempt::{Attempt, Line, Said, Verdict, layer};
use agentcontainer_tests::docker::Plain;
use agentcontainer_tests::peer::Raw;
use agentcontainer_tests::place::token;
use agentcontainer_tests::receiver::Receiver;
use agentcontainer_tests::{Outcome, Workspace, docker, rig};
use serde_json::{Value, json};

use crate::host::wait_for;
use crate::list::ATTEMPTS;

/// What an attempt is to reach, and who would hear it.
struct Target {
    receiver: Receiver,
    control: String,
    governed: String,
}

/// What came of everything.
struct Results {
    control: BTreeMap<String, Said>,
    governed: BTreeMap<String, Said>,
    targets: BTreeMap<&'static str, Target>,
    dns: Receiver,
    quic: Option<Receiver>,
    icmp: Raw,
    udp_lite: Raw,
    events: Vec<Value>,
}

const PROBE: &str = include_str!("../../probe/probe.py");
/// Starts a program with a socket among its descriptors.
const HANDS: &str = "#!/usr/bin/python3
import os, socket, sys
it = socket.socket()
it.set_inheritable(True)
os.execvp(sys.argv[1], sys.argv[1:])
";

/// The verdict about one attempt of the list.
pub fn judge(id: &str) {
    let results = results();
    let attempt = ATTEMPTS.iter().find(|attempt| attempt.id == id).unwrap();
    let plain = &results.control[id];
    let proves = works(attempt, plain, &results.targets[id].control, results);
    let said = &results.governed[id];
    let leaked = works(attempt, said, &results.targets[id].governed, results);
    let line = Line {
        id: id.to_owned(),
        title: attempt.title.to_owned(),
        control: match proves {
            true => "works".to_owned(),
            false => format!("does not work on this machine: {plain:?}"),
        },
        outcome: if leaked { "LEAKED" } else { "stopped" }.to_owned(),
        layer: if leaked {
            String::new()
        } else {
            layer(said, &results.events, results.targets[id].receiver.port())
        },
    };
    line.record();
    assert!(!leaked, "{id} got out: {said:?}");
    assert!(proves, "{id} proves nothing: its control is {plain:?}");
}

fn works(attempt: &Attempt, said: &Said, token: &str, results: &Results) -> bool {
    if attempt.verdict == Verdict::Gain {
        return !said.got.is_empty();
    }
    let token = token.as_bytes();
    match attempt.id {
        "N14" => results.icmp.hears(token),
        "N19" => results.udp_lite.hears(token),
        "N30" => results
            .quic
            .as_ref()
            .is_some_and(|receiver| receiver.heard_bytes(token)),
        "D01" | "D02" | "D04" => results.dns.heard_bytes(token),
        id => results.targets[id].receiver.heard_bytes(token),
    }
}

fn results() -> &'static Results {
    static RESULTS: OnceLock<Results> = OnceLock::new();
    RESULTS.get_or_init(make)
}

fn make() -> Results {
    let bridge = rig().bridge;
    let (allowed, denied, wildcard) = (
        format!("{}.test", token("good")),
        format!("{}.test", token("bad")),
        format!("{}.test", token("wild")),
    );
    let dns = Receiver::on(bridge, 53);
    let quic = Some(Receiver::on(bridge, 443));
    let (icmp, udp_lite) = (Raw::protocol(1), Raw::protocol(136));
    let link_local = link_local();
    let targets: BTreeMap<&str, Target> = ATTEMPTS
        .iter()
        .map(|attempt| {
            // IPv6 receivers listen on every address (IPv4 included), the others on the bridge alone.
            let receiver = if attempt.id.starts_with("N02") || attempt.id == "N05" {
                Receiver::on(Ipv6Addr::UNSPECIFIED, 0)
            } else {
                Receiver::start()
            };
            (
                attempt.id,
                Target {
                    receiver,
                    control: token("c"),
                    governed: token("g"),
                },
            )
        })
        .collect();
    let batch = |chosen: &[&Attempt], governed: bool| -> String {
        let entries: Vec<Value> = chosen
            .iter()
            .map(|attempt| {
                let target = &targets[attempt.id];
                json!({
                    "id": attempt.id, "attempt": attempt.id, "port": target.receiver.port(), "address": bridge, "address6": link_local,
                    "token": if governed { &target.governed } else { &target.control },
                    "name": if governed { allowed.clone() } else { bridge.to_string() },
                    "denied": denied, "near": if governed { "127.0.0.1".to_owned() } else { bridge.to_string() }, "wildcard": wildcard,
                })
            })
            .collect();
        serde_json::to_string(&entries).unwrap()
    };

    // What some attempts reach for in another container, where here they must find nothing.
    let listens = "import socket, time; a = socket.socket(); a.bind(('127.0.0.1', 7777)); a.listen(); b = socket.socket(socket.AF_UNIX); b.bind('\\0neighbour'); b.listen(); time.sleep(600)";
    let neighbour = Plain::start(&[], &["python3", "-c", listens]);
    // Its socket is what one control finds.
    Workspace::new().cli(&["enforcer", "start"]);
    let world = world(&targets);
    let mut by_options: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in ATTEMPTS {
        by_options.entry(attempt.control).or_default().push(attempt);
    }
    let mut control = BTreeMap::new();
    for (options, attempts) in by_options {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("probe.py"), PROBE).unwrap();
        std::fs::write(dir.path().join("batch.json"), batch(&attempts, false)).unwrap();
        let hands = dir.path().join("hands");
        std::fs::write(&hands, HANDS).unwrap();
        std::fs::set_permissions(&hands, std::fs::Permissions::from_mode(0o755)).unwrap();
        let socket = rig().docker_host.trim_start_matches("unix://");
        let options = options
            .replace("BRIDGE", &bridge.to_string())
            .replace("DENIED", &denied);
        let options = options
            .replace("ENGINE_SOCKET", socket)
            .replace("STATE", &rig().state.display().to_string())
            .replace("NEIGHBOUR", &neighbour.id)
            .replace("WORLD", &world.id);
        let mount = format!("{}:/probe", dir.path().display());
        let mut words = vec!["run", "--rm", "--volume", &mount];
        let options: Vec<String> = options.split_whitespace_ascii();
        words.extend(options.iter().map(String::as_str));
        words.extend([
            rig().image.as_str(),
            "python3",
            "/probe/probe.py",
            "/probe/batch.json",
        ]);
        read(&docker::attempt(&words), &mut control);
    }
    for attempt in ATTEMPTS {
        let none = Said {
            id: attempt.id.into(),
            step: "start".into(),
            error: "the control did not run".into(),
            got: String::new(),
        };
        control.entry(attempt.id.to_owned()).or_insert(none);
    }

    let session = token("red");
    let workspace = Workspace::new()
        .allow(&[&allowed, &format!("*.{wildcard}")])
        .host(&denied, bridge)
        .deny_programs(&["factor"])
        .gateway_line(&format!("resolver = \"{bridge}:53\""));
    workspace.put("probe.py", PROBE);
    workspace.put(
        "batch.json",
        batch(&ATTEMPTS.iter().collect::<Vec<_>>(), true),
    );
    workspace.write();
    let out = workspace.cli(&[
        "run",
        "--yes",
        "--name",
        &session,
        "--",
        "python3",
        "probe.py",
        "batch.json",
    ]);
    let mut governed = BTreeMap::new();
    read(&out, &mut governed);
    let missing: Vec<&str> = ATTEMPTS
        .iter()
        .map(|attempt| attempt.id)
        .filter(|id| !governed.contains_key(*id))
        .collect();
    assert!(
        missing.is_empty(),
        "no word about {missing:?}: status {}\n{}\n{}",
        out.status,
        out.stdout,
        out.stderr
    );
    let events = workspace.events(&session);
    Results {
        control,
        governed,
        targets,
        dns,
        quic,
        icmp,
        udp_lite,
        events,
    }
}

/// A container whose network has the addresses that are nobody's here; what is said at one of these attempts' ports is their receiver's.
fn world(targets: &BTreeMap<&str, Target>) -> Plain {
    let port = |id: &str| targets[id].receiver.port().to_string();
    let (bridge, ports) = (rig().bridge.to_string(), ["N02g", "N04"].map(port));
    let options = "--cap-add NET_ADMIN --sysctl net.ipv6.conf.all.disable_ipv6=0 --sysctl net.ipv6.conf.default.disable_ipv6=0";
    let options: Vec<&str> = options.split(' ').collect();
    let world = include_str!("../../probe/world.py");
    let world = Plain::start(
        &options,
        &["python3", "-c", world, &bridge, &ports[0], &ports[1]],
    );
    wait_for(|| (docker::run(&["logs", &world.id]) == "up").then_some(()));
    world
}

/// Words of an option string; a no-break space stands for a space within a word.
trait Words {
    fn split_whitespace_ascii(&self) -> Vec<String>;
}

impl Words for String {
    fn split_whitespace_ascii(&self) -> Vec<String> {
        self.split_ascii_whitespace()
            .map(|word| word.replace('\u{a0}', " "))
            .collect()
    }
}

fn read(out: &Outcome, into: &mut BTreeMap<String, Said>) {
    for line in out.stdout.lines() {
        if let Ok(said) = serde_json::from_str::<Said>(line) {
            into.insert(said.id.clone(), said);
        }
    }
    if out.stdout.is_empty() {
        eprintln!("the probe said nothing: {}", out.stderr);
    }
}

/// The link-local address of the device that has the bridge's address.
fn link_local() -> String {
    let ip = |words: &[&str]| {
        let output = Command::new("ip").args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let bridge = format!("inet {}/", rig().bridge);
    let four = ip(&["-oneline", "-4", "address"]);
    let device = four
        .lines()
        .find(|line| line.contains(&bridge))
        .and_then(|line| line.split_whitespace().nth(1));
    let six = ip(&[
        "-oneline",
        "-6",
        "address",
        "show",
        "dev",
        device.unwrap_or("lo"),
        "scope",
        "link",
    ]);
    let address = six
        .split_whitespace()
        .find(|word| word.starts_with("fe80:"))
        .unwrap_or("fe80::1");
    address.split('/').next().unwrap().to_owned()
}
