//! What the gateway decided against what two servers that know nothing of it understood: many generated requests, half of them
//! out of order in some way, several on a connection, bodies that look like requests. The seed is printed and can be given
//! (AGENTCONTAINER_SEED), and how many (AGENTCONTAINER_REQUESTS, for each server).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use audit::{Event, Kind, Verdict};
use policy::{Action, Origin, Rule};
use schema::net::Protocol;
use schema::request::Requests;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

const NAME: &str = "api.example.com";
const REQUESTS: usize = 10_000;
/// Connections at once.
const AT_ONCE: usize = 16;
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];

/// One line a request: method, target, bytes of its body.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Heard {
    method: String,
    path: String,
    body: Option<u64>,
}

/// xorshift64*: the same requests for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// A request with its number in the target; nearly in order, or out of it in one or two ways.
fn request(dice: &mut Dice, number: usize, port: u16) -> Vec<u8> {
    let wild = dice.one_in(2);
    let mut odd = |n: usize| wild && dice.one_in(n);
    let (odd_method, odd_target, odd_version, odd_host, odd_length) =
        (odd(6), odd(3), odd(12), odd(8), odd(3));
    let (odd_line, odd_end, odd_chunk) = (odd(4), odd(10), odd(3));
    let method = if odd_method {
        dice.pick(&[
            "get", "CONNECT", "TRACE", "FOO", "DELETE", "P\tOST", "", "GET GET", "OPTIONS",
        ])
    } else {
        dice.pick(&METHODS)
    };
    let authority = format!("{NAME}:{port}");
    let target = if odd_target {
        let forms = [
            "/t/N/../x",
            "//t/N",
            "/t/%2e%2e/N",
            "/t/N;x=1",
            "/t//N",
            "/t/./N",
            "/t/N%00",
            "/t/N%2fx",
            "/t/N#x",
            "/x/N",
            "/t/secret/N",
            "/t/%73ecret/N",
            "*",
            "t/N",
            "http://AUTHORITY/t/N",
            "http://evil.example/t/N",
            "http://AUTHORITY@evil/t/N",
            "/t/N\\x",
            "/t/N\u{1}",
            "/t/é/N",
            "/t/N?x= y",
            "/t/N?_method=DELETE",
            "https://AUTHORITY/t/N",
            "/t/%C3%A9/N",
        ];
        let form = dice.pick(&forms);
        form.replace("AUTHORITY", &authority)
            .replace('N', &number.to_string())
    } else {
        let query = dice.pick(&["", "", "?a=b", "?a=/../&b=%2e"]);
        format!("/t/{number}{query}")
    };
    let version = if odd_version {
        dice.pick(&[
            "HTTP/1.0",
            "HTTP/2.0",
            "http/1.1",
            "HTTP/1.1 ",
            "HTTP/1.2",
            "",
        ])
    } else {
        "HTTP/1.1"
    };
    let end = if odd_end {
        dice.pick(&["\n", "\r", "\r\r\n"])
    } else {
        "\r\n"
    };
    let mut head = format!("{method} {target} {version}{end}");
    if odd_host {
        let lines = [
            "",
            "Host: evil.example\r\n",
            "Host: AUTHORITY\r\nHost: AUTHORITY\r\n",
            "Host : AUTHORITY\r\n",
            " Host: AUTHORITY\r\n",
            "Host: AUTHORITY, evil\r\n",
            "Host: AUTHORITY\r\n x: y\r\n",
            "hOsT: AUTHORITY\r\n",
            "Host: AUTHORITY.\r\n",
        ];
        head += &dice.pick(&lines).replace("AUTHORITY", &authority);
    } else {
        head += &format!("Host: {authority}{end}");
    }
    // What would be seen if somebody took the body for the next request.
    let inner = format!("GET /t/smuggled{number} HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let size = dice.below(40);
    let body = match dice.below(4) {
        0 => String::new(),
        1 => "x".repeat(size),
        _ => inner,
    };
    let has_body = matches!(method, "POST" | "PUT") || dice.one_in(8);
    let mut sent = Vec::new();
    if has_body {
        let length = body.len();
        if odd_length {
            let lines = [
                format!("Content-Length: {length}\r\nContent-Length: {length}\r\n"),
                format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
                format!("Content-Length: +{length}\r\n"),
                format!("Content-Length: 0{length}\r\n"),
                format!("Content-Length: {length}, {length}\r\n"),
                format!("Content-Length : {length}\r\n"),
                format!("Content_Length: {length}\r\n"),
                "Content-Length: 0\r\n".to_owned(),
                format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
                "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n".to_owned(),
                "Transfer-Encoding: xchunked\r\n".to_owned(),
                "Transfer-Encoding: chunked, identity\r\n".to_owned(),
                "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
                "Transfer-Encoding: gzip, chunked\r\n".to_owned(),
                String::new(),
            ];
            head += &lines[dice.below(lines.len())];
            sent.extend(body.as_bytes());
        } else if dice.one_in(2) {
            head += "Transfer-Encoding: chunked\r\n";
            chunks(dice, &body, odd_chunk, &mut sent);
        } else {
            head += &format!("Content-Length: {length}\r\n");
            sent.extend(body.as_bytes());
        }
    }
    if dice.one_in(3) {
        let lines = [
            "X-A: b",
            "Connection: keep-alive",
            "Connection: close",
            "Accept: */*",
            "Cookie: a=b; c=d",
            "Expect: 100-continue",
            "X-Empty:",
            "TE: trailers",
        ];
        head += dice.pick(&lines);
        head += "\r\n";
    }
    if odd_line {
        let lines = [
            "X-A: b\r\n folded",
            "X A: b",
            ": b",
            "X-A",
            "X-A:\0b",
            "X-A: b\rContent-Length: 3",
            "X-A: b\nX: c",
            "Upgrade: h2c",
            "Upgrade: websocket",
            "Connection: content-length",
            "Connection: host",
            "X-HTTP-Method-Override: DELETE",
            "X_Http_Method: DELETE",
            "X-Original-URL: /x",
            "Expect: 200-ok",
            "Transfer_Encoding: chunked",
            "Trailer: content-length",
        ];
        head += dice.pick(&lines);
        head += "\r\n";
    }
    head += end;
    let mut bytes = head.into_bytes();
    bytes.extend(sent);
    bytes
}

fn chunks(dice: &mut Dice, body: &str, odd: bool, sent: &mut Vec<u8>) {
    let at = dice.below(body.len() + 1);
    for piece in [&body[..at], &body[at..]] {
        if piece.is_empty() {
            continue;
        }
        let size = format!("{:x}", piece.len());
        let line = if odd {
            let forms = [
                "0xN\r\n",
                "N \r\n",
                "+N\r\n",
                "N;a=b\r\n",
                "N;a=\"\r\n\"\r\n",
                "N\n",
                "00000000000000000N\r\n",
                "FFFFFFFFFFFFFFFFN\r\n",
            ];
            dice.pick(&forms).replace('N', &size)
        } else {
            format!("{size}\r\n")
        };
        sent.extend(line.as_bytes());
        sent.extend(piece.as_bytes());
        sent.extend(if odd && dice.one_in(4) {
            &b"\n"[..]
        } else {
            b"\r\n"
        });
    }
    sent.extend(
        if odd && dice.one_in(3) {
            dice.pick(&[
                "0\r\nX: y\r\n\r\n",
                "0\n\n",
                "0\r\nContent-Length: 3\r\n\r\n",
                "0;x\r\n\r\n",
            ])
        } else {
            "0\r\n\r\n"
        }
        .as_bytes(),
    );
}

/// A server of the world, with what it heard.
struct Server {
    child: Child,
    port: u16,
    directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Server {
    async fn start(program: &str, arguments: impl FnOnce(&Path, u16) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = free_port();
        let arguments = arguments(directory.path(), port);
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(directory.path().join("out")).unwrap())
            .stderr(std::fs::File::create(directory.path().join("errors")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let server = Self {
            child,
            port,
            directory,
        };
        for _ in 0..500 {
            if TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return server;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{program} does not listen: {}", server.read("errors"));
    }

    async fn node() -> Self {
        Self::start("node", |_, port| {
            let script = format!(
                "const fs = require('fs');
                 const server = require('http').createServer((request, response) => {{
                   let body = 0;
                   request.on('data', (part) => body += part.length);
                   const said = (whole) => fs.writeSync(1, request.method + ' ' + request.url + ' ' + (whole ? body : '-') + '\\n');
                   request.on('aborted', () => said(false));
                   request.on('end', () => {{ said(true); response.end('ok'); }});
                 }});
                 server.on('clientError', (error, socket) => {{
                   // Broken off: a body that turned out malformed is not sent to its end.
                   if (error.code !== 'ECONNRESET' && error.code !== 'HPE_INVALID_EOF_STATE') fs.writeSync(1, 'MALFORMED ' + error.code + ' -\\n');
                   socket.destroy();
                 }});
                 server.listen({port}, '127.0.0.1');"
            );
            vec!["-e".to_owned(), script]
        })
        .await
    }

    async fn nginx() -> Self {
        Self::start("nginx", |directory, port| {
            let at = directory.display();
            let config = format!(
                "daemon off; worker_processes 1; pid {at}/pid; error_log stderr; events {{ }}
                 http {{ log_format heard '$request_method $request_uri - $status'; access_log {at}/heard heard;
                 client_body_temp_path {at}/b; proxy_temp_path {at}/p; fastcgi_temp_path {at}/f; uwsgi_temp_path {at}/u; scgi_temp_path {at}/s;
                 server {{ listen 127.0.0.1:{port}; merge_slashes off; underscores_in_headers on; location / {{ return 200 'ok'; }} }} }}"
            );
            let path = directory.join("nginx.conf");
            std::fs::write(&path, config).unwrap();
            vec!["-c".to_owned(), path.display().to_string()]
        })
        .await
    }

    fn read(&self, name: &str) -> String {
        let bytes = std::fs::read(self.directory.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn without_query(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

fn count(of: impl IntoIterator<Item = Heard>) -> HashMap<Heard, usize> {
    let mut counted = HashMap::new();
    for heard in of {
        *counted.entry(heard).or_default() += 1;
    }
    counted
}

async fn session(port: u16) -> (Session, SocketAddr) {
    let rule = |line: u32, action: Action, methods: &[&str], path: &str| Rule {
        host: NAME.parse().unwrap(),
        ports: vec![port],
        protocol: Some(Protocol::Http),
        action,
        requests: Requests {
            methods: methods.iter().map(|m| m.parse().unwrap()).collect(),
            paths: vec![path.parse().unwrap()],
            ..Requests::default()
        },
        origin: Origin {
            file: "agentcontainer.json".into(),
            line,
            column: 1,
        },
    };
    let mut policy = PolicyBuilder::default().host(NAME);
    policy.layer.rules = vec![
        rule(1, Action::Allow, &METHODS, "/t/**"),
        rule(2, Action::Deny, &[], "/t/secret/**"),
    ];
    let mut session = Session::start(policy).await;
    let door = session.door(NAME, port).await;
    (session, door)
}

/// Sends one connection's requests and reads until the gateway has no more to say.
async fn connection(door: SocketAddr, bytes: Vec<u8>) {
    let Ok(mut stream) = TcpStream::connect(door).await else {
        return;
    };
    let exchange = async {
        // Refused in the middle: what was sent until then counts.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), exchange).await;
}

/// Has them all sent, and gives the events once no more come.
async fn send_all(session: &Session, door: SocketAddr, port: u16) -> Vec<Event> {
    let number = |name: &str, usual: u64| {
        let given = std::env::var(name).ok();
        given.map_or(usual, |text| text.parse().unwrap())
    };
    let seed = number("AGENTCONTAINER_SEED", 0x5eed);
    let many = number("AGENTCONTAINER_REQUESTS", REQUESTS as u64) as usize;
    println!("AGENTCONTAINER_SEED={seed} AGENTCONTAINER_REQUESTS={many}");
    let mut dice = Dice(seed.max(1));
    let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut tasks = tokio::task::JoinSet::new();
    let mut made = 0;
    while made < many {
        let mut bytes = Vec::new();
        for _ in 0..=dice.below(6) {
            bytes.extend(request(&mut dice, made, port));
            made += 1;
        }
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        tasks.spawn(async move {
            connection(door, bytes).await;
            drop(slot);
        });
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let events = session.events();
        if events.len() == before {
            return events;
        }
        before = events.len();
    }
}

/// Of the gateway: what it recorded before it sent it, and what was answered to the end, with its body's length.
fn decided(events: &[Event], bodies: bool) -> (HashMap<Heard, usize>, HashMap<Heard, usize>) {
    let heard = |event: &Event, body| {
        let url = event.url.clone().unwrap_or_default();
        let path = url.splitn(4, '/').nth(3).unwrap_or_default();
        Heard {
            method: event.method.clone().unwrap_or_default(),
            path: format!("/{}", without_query(path)),
            body,
        }
    };
    let sent = events
        .iter()
        .filter(|e| e.kind == Kind::Request && e.verdict == Verdict::Allow && e.reason == "allowed")
        .map(|event| heard(event, None));
    let answered = events
        .iter()
        .filter(|e| e.kind == Kind::Response && e.reason == "complete")
        .map(|event| heard(event, event.bytes_out.filter(|_| bodies)));
    (count(sent), count(answered))
}

/// What one heard, the other decided. `bodies`: the lines say how long they were.
fn compare(lines: &str, events: &[Event], bodies: bool) {
    let mut heard = Vec::new();
    for line in lines.lines() {
        let mut words = line.split(' ');
        let (Some(method), Some(target), Some(body)) = (words.next(), words.next(), words.next())
        else {
            panic!("a line that says nothing: {line:?}");
        };
        assert_ne!(
            method, "MALFORMED",
            "the gateway sent what is no request: {line}"
        );
        if let Some(status) = words.next() {
            assert!(
                status.starts_with('2'),
                "the gateway sent what is no request: {line}"
            );
        }
        let path = without_query(target).to_owned();
        assert!(METHODS.contains(&method), "not allowed: {line}");
        let number = path.strip_prefix("/t/").unwrap_or_default();
        let canonical = !number.is_empty()
            && !path.contains("//")
            && !path.contains("..")
            && !path.contains("secret");
        assert!(canonical, "not allowed: {line}");
        heard.push((
            Heard {
                method: method.to_owned(),
                path,
                body: None,
            },
            body.parse::<u64>().ok(),
        ));
    }
    let (sent, answered) = decided(events, bodies);
    let seen = count(heard.iter().map(|(heard, _)| heard.clone()));
    for (request, times) in &seen {
        let decided = sent.get(request).copied().unwrap_or(0);
        assert!(
            *times <= decided,
            "heard {times} times, decided {decided} times: {request:?}"
        );
    }
    let whole = count(heard.into_iter().map(|(heard, body)| Heard {
        body: body.filter(|_| bodies),
        ..heard
    }));
    for (request, times) in &answered {
        let heard = whole.get(request).copied().unwrap_or(0);
        assert!(
            heard >= *times,
            "answered {times} times, heard {heard} times: {request:?}"
        );
    }
    let answered: usize = answered.values().sum();
    println!(
        "sent {}, heard {}, answered {answered}",
        sent.values().sum::<usize>(),
        seen.values().sum::<usize>()
    );
    // Neither all nor nothing: the generator makes what passes and what does not.
    let refused = events.iter().filter(|e| e.verdict == Verdict::Deny).count();
    assert!(
        answered > 100 && refused > 100,
        "answered {answered}, refused {refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_what_node_heard() {
    let server = Server::node().await;
    let (session, door) = session(server.port).await;
    let events = send_all(&session, door, server.port).await;
    compare(&server.read("out"), &events, true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_what_nginx_heard() {
    let server = Server::nginx().await;
    let (session, door) = session(server.port).await;
    let events = send_all(&session, door, server.port).await;
    compare(&server.read("heard"), &events, false);
}
