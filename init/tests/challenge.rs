//! init before it is released, in a network namespace that nobody enforces: whoever answers in the enforcer's place, or wrongly, starts nothing, nor does
//! who answers rightly. That it starts its program where everything is in order is a test of whole sessions (enforcer::session). Root.
#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// With a pid namespace of its own, as in a container.
const OWN: &[&str] = &["--net", "--pid", "--fork"];
/// In ours, so that we are to it as somebody inside is.
const SHARED: &[&str] = &["--net"];

fn init(namespaces: &[&str], wait: u32) -> Child {
    let mut command = Command::new("unshare");
    command
        .args(namespaces)
        .arg("--")
        .arg(env!("CARGO_BIN_EXE_agentcontainer-init"))
        .args(["--wait-ms", &wait.to_string(), "--", "echo", "STARTED"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Fails the test unless nothing was started and init says that.
#[track_caller]
fn refused(output: &Output, why: &str) {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(why), "no {why:?} in {said:?}");
    assert_eq!(output.status.code(), Some(125), "{said}");
    assert_eq!(output.stdout, b"", "{said}");
}

/// Goes to init's socket as the enforcer does, and answers its nonce; what init says then.
fn answer(init: &Child, reply: impl FnOnce([u8; 16]) -> Vec<u8> + Send) -> String {
    let path = format!("/proc/{}/ns/net", init.id());
    let own = std::fs::metadata("/proc/self/ns/net").unwrap().ino();
    let until = Instant::now() + Duration::from_secs(30);
    while std::fs::metadata(&path).unwrap().ino() == own {
        assert!(Instant::now() < until, "there is no other namespace");
        std::thread::sleep(Duration::from_millis(5));
    }
    let namespace = File::open(&path).unwrap();
    let in_it = move || {
        // SAFETY: setns takes a descriptor, which is open, and moves this thread alone.
        let entered = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
        assert_eq!(entered, 0, "entering a namespace needs root");
        let address = SocketAddr::from_abstract_name(b"agentcontainer-init").unwrap();
        let mut stream = loop {
            match UnixStream::connect_addr(&address) {
                Err(_) if Instant::now() < until => std::thread::sleep(Duration::from_millis(5)),
                other => break other.unwrap(),
            }
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let mut nonce = [0; 16];
        let mut said = String::new();
        // Whom init does not believe gets no nonce.
        if stream.read_exact(&mut nonce).is_ok() {
            stream.write_all(&reply(nonce)).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let _ = stream.read_to_string(&mut said);
        }
        said
    };
    std::thread::scope(|scope| scope.spawn(in_it).join().unwrap())
}

fn greeted(greeting: &[u8], nonce: &[u8]) -> Vec<u8> {
    [greeting, nonce].concat()
}

#[test]
fn an_answer_that_does_not_match_the_challenge_starts_nothing() {
    let other = |mut nonce: [u8; 16]| {
        nonce[15] ^= 1;
        nonce
    };
    type Reply<'a> = &'a (dyn Fn([u8; 16]) -> Vec<u8> + Sync);
    let not_it = "the enforcer's answer does not match the challenge";
    let cut_off = "cannot read the enforcer's answer";
    let answers: [(Reply, &str); 6] = [
        (&|nonce| greeted(b"AC1:", &other(nonce)), not_it),
        (&|nonce| greeted(b"AC2:", &other(nonce)), not_it),
        (&|nonce| greeted(b"AC3:", &nonce), not_it),
        (&|_| greeted(b"AC1:", &[0; 16]), not_it),
        (&|nonce| greeted(b"AC1:", &nonce[..15]), cut_off),
        (&|_| Vec::new(), cut_off),
    ];
    for (reply, why) in answers {
        let init = init(OWN, 30_000);
        assert_eq!(answer(&init, reply), "");
        refused(&init.wait_with_output().unwrap(), why);
    }
}

#[test]
fn a_process_inside_is_not_the_enforcer_whatever_it_answers() {
    let init = init(SHARED, 30_000);
    let said = answer(&init, |nonce| greeted(b"AC1:", &nonce));
    assert_eq!(said, "");
    let why = "a process inside the container answered in the enforcer's place";
    refused(&init.wait_with_output().unwrap(), why);
}

#[test]
fn where_nothing_is_refused_the_right_answer_starts_nothing() {
    for greeting in [b"AC1:", b"AC2:"] {
        let init = init(OWN, 30_000);
        let said = answer(&init, |nonce| greeted(greeting, &nonce));
        let why = "a TCP connection to an unlisted address was not refused";
        assert!(said.contains(why), "{said}");
        refused(&init.wait_with_output().unwrap(), why);
    }
}

#[test]
fn the_enforcers_reason_is_shown_as_one_plain_line() {
    let init = init(OWN, 30_000);
    answer(&init, |_| b"NO1:no \x1b[2J\r\nrule".to_vec());
    let why = "the enforcer refused to start it: no ?[2J??rule\n";
    refused(&init.wait_with_output().unwrap(), why);
}

#[test]
fn without_an_answer_nothing_is_started() {
    let output = init(OWN, 50).wait_with_output().unwrap();
    refused(&output, "no enforcer answered within 50 ms");
}
