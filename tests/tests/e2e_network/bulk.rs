//! Much, many and slow.

use std::time::Duration;

use agentcontainer_tests::receiver::Receiver;

use crate::standard::{name, standard, workspace};

const LONG: Duration = Duration::from_secs(400);

/// Down and up with equal digests on both sides, through one kind of rule.
fn carries(gibibytes: u64, protocol: &str) {
    let host = name();
    let (scheme, port, trust) = match protocol {
        "http" => ("http", 80, ""),
        "tls" => ("https", 443, "--cacert ca.pem"),
        _ => ("https", 443, ""),
    };
    let bytes = gibibytes << 30;
    let script = format!(
        "curl -sS --max-time 300 {trust} {scheme}://{host}/bytes/{bytes} | sha256sum | cut -d' ' -f1
         head -c {bytes} /dev/zero | curl -sS --max-time 300 {trust} -T - -H 'Expect:' {scheme}://{host}/up
         head -c {bytes} /dev/zero | sha256sum | cut -d' ' -f1"
    );
    let out = workspace()
        .rule(&host, port, protocol)
        .run_within(&["sh", "-c", &script], LONG);
    let lines: Vec<&str> = out.ok().lines().collect();
    let server = if scheme == "http" {
        &standard().http
    } else {
        &standard().https
    };
    let sent = server
        .hears(|one| one["kind"] == "sent" && one["path"] == format!("/bytes/{bytes}"))
        .unwrap();
    assert_eq!(sent["sha256"], lines[0], "down");
    assert_eq!(lines[1], format!("{} {bytes}", lines[2]), "up");
}

#[test]
fn a_gibibyte_down_and_up_over_http() {
    carries(1, "http");
}

#[test]
fn a_gibibyte_down_and_up_over_tls() {
    carries(1, "tls");
}

#[test]
fn a_gibibyte_down_and_up_over_https() {
    carries(1, "https");
}

#[test]
fn five_hundred_connections_at_once() {
    let (host, receiver) = (name(), Receiver::start());
    let port = receiver.port();
    let workspace = workspace().allow(&[&format!("{host}:{port}")]);
    workspace.put(
        "many.py",
        format!(
            "import asyncio
async def one(number, opened, go):
    reader, writer = await asyncio.open_connection('{host}', {port})
    writer.write(b'first%d ' % number); await reader.readexactly(len(b'first%d ' % number))
    opened.append(number)
    if len(opened) == 500: go.set()
    await go.wait()
    said = b'second%d' % number
    writer.write(said); assert await reader.readexactly(len(said)) == said
    writer.close()
async def main():
    opened, go = [], asyncio.Event()
    await asyncio.wait_for(asyncio.gather(*(one(n, opened, go) for n in range(500))), 90)
    print('all', len(opened))
asyncio.run(main())
"
        ),
    );
    let out = workspace.run(&["python3", "many.py"]);
    assert_eq!(out.ok(), "all 500");
    let heard = receiver.heard();
    assert_eq!(heard.len(), 500);
    for number in 0..500 {
        assert!(
            heard
                .iter()
                .any(|one| one.bytes == format!("first{number} second{number}").as_bytes()),
            "{number}"
        );
    }
}

#[test]
fn slow_servers_and_slow_clients_are_not_cut_off() {
    let host = name();
    let out = workspace().allow(&[&host]).inside(&format!(
        "curl -sS --max-time 30 http://{host}/slow; echo
         (for i in 1 2 3 4 5 6; do echo line $i; sleep 0.5; done) | curl -sS --max-time 30 -T - -H 'Expect:' http://{host}/up
         python3 - <<'END'
import socket, time
it = socket.create_connection(('{host}', 80), 20)
for byte in b'GET /hello HTTP/1.1\\r\\nHost: {host}\\r\\nConnection: close\\r\\n\\r\\n':
    it.send(bytes([byte])); time.sleep(0.02)
print(it.recv(65536).split(b' ')[1].decode())
END"
    ));
    let lines: Vec<&str> = out.ok().lines().collect();
    assert_eq!(lines[0], "....................");
    assert!(lines[1].ends_with(" 42"), "{}", out.stdout);
    assert_eq!(lines[2], "200");
}
