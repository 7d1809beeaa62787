//! Every allowed connection's record says which process opened it, whatever its socket looks like: the first packet is where
//! the two are joined.

use crate::{Rig, allowing, open, upstream};

/// Connects in ways whose first packets differ, and says its pid: plain, as IPv4 in IPv6, with IP options (which lengthen the
/// header), with data in the first packet, and from a port of its own.
const CLIENT: &str = r#"
import os, socket, sys
port = int(sys.argv[1])
NOPS = b"\x01" * 4
def plain():
    return socket.create_connection(("api.example.test", port), 5)
def mapped():
    s = socket.socket(socket.AF_INET6)
    s.connect(("::ffff:" + socket.gethostbyname("api.example.test"), port))
    return s
def options():
    s = socket.socket()
    s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, NOPS)
    s.connect(("api.example.test", port))
    return s
def fast_open():
    s = socket.socket()
    s.sendto(b"GET / HTTP/1.0\r\nHost: api.example.test:%d\r\n\r\n" % port, socket.MSG_FASTOPEN, (socket.gethostbyname("api.example.test"), port))
    return s
def bound():
    s = socket.socket()
    s.bind(("127.0.0.9", 0))
    s.connect(("api.example.test", port))
    return s
for way in plain, mapped, options, fast_open, bound:
    if os.fork() == 0:
        open("/proc/self/comm", "w").write(way.__name__)
        with way() as s:
            if way is not fast_open:
                s.sendall(b"GET / HTTP/1.0\r\nHost: api.example.test:%d\r\n\r\n" % port)
            said = b""
            while more := s.recv(4096):
                said += more
            print(way.__name__, said.endswith(b"hello\n"), flush=True)
        os._exit(0)
    os.wait()
"#;

/// Who opened each allowed connection, by the record.
fn openers(rig: &Rig, id: &str) -> Vec<Option<String>> {
    rig.events(id)
        .into_iter()
        .filter(|e| e.reason == "allowed" && e.kind == audit::Kind::Connect)
        .map(|e| e.process.map(|process| process.comm))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_opener_of_every_kind_of_connection_is_known() {
    let rig = Rig::new();
    let (port, _) = upstream();
    let id = format!("o{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 0).await;
    let client = rig.directory.path().join("client.py");
    std::fs::write(&client, CLIENT).unwrap();
    let script = format!("python3 {} {port}", client.display());
    let output = rig.inside(&session, &script);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let ways = ["plain", "mapped", "options", "fast_open", "bound"];
    for way in ways {
        let line = format!("{way} True");
        assert!(
            text.lines().any(|said| said == line),
            "{way}: {text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(openers(&rig, &id), ways.map(|way| Some(way.to_owned())));
    session.close("test").await.unwrap();
}

/// A connection from a port that another process used before, whose opener the kernel's map has forgotten: many other sockets were
/// connected between its `connect`, which sends nothing yet (TCP_FASTOPEN_CONNECT), and its first packet. All on one CPU: what a
/// CPU put into such a map last waits in a list of that CPU's own, where what other CPUs put in pushes nothing out
/// (kernel/bpf/bpf_lru_list.c).
const FORGOTTEN: &str = r#"
import os, socket, sys, time
port = int(sys.argv[1])
def request(s):
    s.sendall(b"GET / HTTP/1.0\r\nHost: api.example.test:%d\r\n\r\n" % port)
    said = b""
    while more := s.recv(4096):
        said += more
    return said.endswith(b"hello\n")
def bound(later):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if later:
        s.setsockopt(socket.IPPROTO_TCP, 34, 1)
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)
    s.bind(("127.0.0.1", 23456))
    s.connect((address, port))
    return s
address = socket.gethostbyname("api.example.test")
child = os.fork()
if child == 0:
    open("/proc/self/comm", "w").write("first")
    s = bound(False)
    assert request(s)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    s.close()
    time.sleep(60)
time.sleep(1)
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
open("/proc/self/comm", "w").write("second")
s = bound(True)
for _ in range(20000):
    other = socket.socket()
    other.setsockopt(socket.IPPROTO_TCP, 34, 1)
    other.setsockopt(socket.IPPROTO_TCP, 30, 1)
    other.connect((address, port))
    other.close()
print("second", request(s), flush=True)
os.kill(child, 9)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_whose_opener_was_forgotten_is_not_its_ports_last_openers() {
    let rig = Rig::new();
    let (port, _) = upstream();
    let id = format!("g{}", std::process::id());
    let session = open(&rig, &id, allowing(&["api.example.test"], port), 0).await;
    let client = rig.directory.path().join("client.py");
    std::fs::write(&client, FORGOTTEN).unwrap();
    let output = rig.inside(&session, &format!("python3 {} {port}", client.display()));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(text, "second True\n", "{output:?}");
    assert_eq!(openers(&rig, &id), [Some("first".to_owned()), None]);
    session.close("test").await.unwrap();
}
