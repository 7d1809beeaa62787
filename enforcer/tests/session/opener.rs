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
    let events = rig.events(&id);
    let allowed: Vec<_> = events
        .iter()
        .filter(|e| e.reason == "allowed" && e.kind == audit::Kind::Connect)
        .map(|e| e.process.as_ref().map(|process| process.comm.as_str()))
        .collect();
    assert_eq!(allowed, ways.map(Some));
    session.close("test").await.unwrap();
}
