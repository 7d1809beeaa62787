//! What the gateway decided against what two servers that know nothing of it understood: many generated requests, half of them
//! out of order in some way, several on a connection, bodies that look like requests; over `http`, and over `https` from
//! clients of HTTP/1.1 and of HTTP/2 to servers of both. The seed is printed and can be given (AGENTCONTAINER_SEED), and how
//! many (AGENTCONTAINER_REQUESTS, for each server and way).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use audit::{Event, Kind, Verdict};
use policy::{Action, Origin, Rule};
use schema::net::Protocol;
use schema::request::Requests;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use self::dice::Dice;
use self::server::{Heard, LOGGED, Server, Speaks};
use crate::harness::*;
use crate::https::{NAME, World, trusting};
use crate::two::{Answers, End, PREFACE, SETTINGS, frame};

mod dice;
mod one;
mod server;
mod two;

const REQUESTS: u64 = 10_000;
/// For each of the three ways over `https` to a server.
const REQUESTS_OVER_TLS: u64 = 3_400;
/// Connections at once.
const AT_ONCE: usize = 16;
const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "PUT"];

/// A request as it was made.
pub struct Made {
    /// Its first piece begins it; of HTTP/2 other streams' may come between the others.
    pub bytes: Vec<Vec<u8>>,
    pub sent: Sent,
    /// The request that stands behind it, where what was meant as its body is one.
    pub behind: Option<Sent>,
}

/// What may be heard of a request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Nothing about it is out of order.
    pub plain: bool,
    /// What follows it on the connection is not answered.
    pub last: bool,
    pub method: String,
    pub target: String,
    pub fields: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Fields follow its body.
    pub trailers: bool,
}

impl Sent {
    fn new(method: &str, target: &str) -> Self {
        Self {
            plain: false,
            last: false,
            method: method.to_owned(),
            target: target.to_owned(),
            fields: Vec::new(),
            body: Vec::new(),
            trailers: false,
        }
    }

    fn field(&mut self, name: &str, value: &[u8]) {
        self.fields
            .push((name.to_ascii_lowercase(), value.to_vec()));
    }
}

/// A body that is a request.
fn inner(number: usize, authority: &str) -> String {
    let target = smuggled(number).target;
    format!("GET {target} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

fn smuggled(number: usize) -> Sent {
    Sent::new("GET", &format!("/t/smuggled{number}"))
}

/// How a client comes to the gateway.
enum Client {
    Plain,
    One(TlsConnector),
    Two(TlsConnector),
}

async fn session(world: &World, port: u16, protocol: Protocol) -> (Session, SocketAddr) {
    let rule = |line: u32, action: Action, methods: &[&str], path: &str| Rule {
        host: NAME.parse().unwrap(),
        ports: vec![port],
        protocol: Some(protocol),
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
    let mut policy = PolicyBuilder::default().host(NAME).root(&world.root);
    policy.layer.rules = vec![
        rule(1, Action::Allow, &METHODS, "/t/**"),
        rule(2, Action::Deny, &[], "/t/secret/**"),
    ];
    let mut session = Session::start(policy).await;
    let door = session.door(NAME, port).await;
    (session, door)
}

impl Client {
    /// A connection's requests, in the order in which they were made.
    fn make(&self, dice: &mut Dice, first: usize, authority: &str) -> Vec<Made> {
        let many = 1 + dice.below(6);
        (0..many)
            .map(|n| match self {
                Self::Two(_) => two::request(dice, first + n, authority, 2 * n as u32 + 1),
                _ => one::request(dice, first + n, authority),
            })
            .collect()
    }

    /// Sends one connection's requests and reads until there is no more to say.
    async fn send(&self, door: SocketAddr, bytes: Vec<u8>, streams: u32) -> Option<Answers> {
        let stream = TcpStream::connect(door).await.ok()?;
        let name = || NAME.to_owned().try_into().unwrap();
        match self {
            Self::Plain => exchange(stream, &bytes).await,
            Self::One(tls) => exchange(tls.connect(name(), stream).await.ok()?, &bytes).await,
            Self::Two(tls) => {
                let mut stream = tls.connect(name(), stream).await.ok()?;
                // Refused in the middle: what was sent until then counts.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.flush().await;
                let streams = (0..streams).map(|n| 2 * n + 1);
                return Some(Answers::read(&mut stream, streams).await);
            }
        }
        None
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) {
    let exchange = async {
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let mut sink = Vec::new();
        let _ = stream.read_to_end(&mut sink).await;
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), exchange).await;
}

/// What goes over one connection: of HTTP/1 one request after the other, of HTTP/2 the pieces of all as they come.
fn mixed(dice: &mut Dice, made: &[Made], two: bool) -> Vec<u8> {
    if !two {
        return made.iter().flat_map(|made| made.bytes.concat()).collect();
    }
    let mut out = PREFACE.to_vec();
    out.extend(frame(SETTINGS, 0, 0, &[]));
    let mut at = vec![0; made.len()];
    loop {
        // A stream is opened after those before it.
        let ready = |&n: &usize| at[n] < made[n].bytes.len() && (n == 0 || at[n - 1] > 0);
        let ready: Vec<usize> = (0..made.len()).filter(ready).collect();
        if ready.is_empty() {
            return out;
        }
        let n = dice.pick(&ready);
        out.extend(&made[n].bytes[at[n]]);
        at[n] += 1;
    }
}

/// What was made, by its target as it may be heard; those that have to be heard are counted.
#[derive(Default)]
struct All {
    sent: HashMap<String, Sent>,
    whole: Vec<String>,
    /// Of HTTP/2: those that were answered.
    answered: usize,
}

/// Has them all sent, and gives the events once no more come.
async fn send_all(
    session: &Session,
    door: SocketAddr,
    client: Client,
    (authority, trailers): (&str, bool),
) -> (All, Vec<Event>) {
    let number = |name: &str, usual: u64| {
        let given = std::env::var(name).ok();
        given.map_or(usual, |text| text.parse().unwrap())
    };
    let seed = number("AGENTCONTAINER_SEED", 0x5eed);
    let usual = match client {
        Client::Plain => REQUESTS,
        Client::One(_) | Client::Two(_) => REQUESTS_OVER_TLS,
    };
    let many = number("AGENTCONTAINER_REQUESTS", usual) as usize;
    println!("AGENTCONTAINER_SEED={seed} AGENTCONTAINER_REQUESTS={many}");
    let mut dice = Dice::new(seed);
    let client = Arc::new(client);
    let slots = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut tasks = tokio::task::JoinSet::new();
    let mut all = All::default();
    let mut made = 0;
    let answered = |done: Result<Option<Answers>, _>| {
        let streams = done.unwrap().map(|answers: Answers| answers.streams);
        let answers = streams.iter().flat_map(|streams| streams.values());
        let fine = |a: &&crate::two::Answer| (a.status, a.end) == (Some(200), Some(End::Whole));
        answers.filter(fine).count()
    };
    while made < many {
        let requests = client.make(&mut dice, made, authority);
        let two = matches!(*client, Client::Two(_));
        let bytes = mixed(&mut dice, &requests, two);
        made += requests.len();
        let streams = requests.len() as u32;
        all.note(requests, trailers);
        let slot = Arc::clone(&slots).acquire_owned().await.unwrap();
        let client = Arc::clone(&client);
        tasks.spawn(async move {
            let answers = client.send(door, bytes, streams).await;
            drop(slot);
            answers
        });
        while let Some(done) = tasks.try_join_next() {
            all.answered += answered(done);
        }
    }
    while let Some(done) = tasks.join_next().await {
        all.answered += answered(done);
    }
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let events = session.events();
        if events.len() == before {
            return (all, events);
        }
        before = events.len();
    }
}

impl All {
    /// The requests of one connection; `trailers`: the server takes them for what they are.
    fn note(&mut self, made: Vec<Made>, trailers: bool) {
        let in_order = |made: &Made| made.sent.plain && (trailers || !made.sent.trailers);
        let in_order = made.iter().all(in_order);
        let mut open = in_order;
        for made in made {
            if open {
                self.whole.push(made.sent.target.clone());
            }
            open &= !made.sent.last;
            for sent in made.behind.into_iter().chain([made.sent]) {
                self.sent.insert(sent.target.clone(), sent);
            }
        }
    }
}

/// A URL as it is recorded: of the query names alone.
fn recorded(scheme: &str, authority: &str, target: &str) -> String {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let hidden = |parameter: &str| match parameter.split_once('=') {
        Some((name, _)) => format!("{name}=***"),
        None if parameter.is_empty() => String::new(),
        None => "***".to_owned(),
    };
    let query = query.map(|query| {
        let parameters: Vec<String> = query.split('&').map(hidden).collect();
        format!("?{}", parameters.join("&"))
    });
    format!("{scheme}://{authority}{path}{}", query.unwrap_or_default())
}

type Line = (String, String, Option<u64>);

fn count(of: impl IntoIterator<Item = Line>) -> HashMap<Line, usize> {
    let mut counted = HashMap::new();
    for line in of {
        *counted.entry(line).or_default() += 1;
    }
    counted
}

/// Of the gateway: what it recorded before it sent it, and what was answered to the end, with its body's length.
fn decided(events: &[Event], bodies: bool) -> (HashMap<Line, usize>, HashMap<Line, usize>) {
    let line = |event: &Event, body| {
        let (method, url) = (event.method.clone(), event.url.clone());
        (method.unwrap_or_default(), url.unwrap_or_default(), body)
    };
    let sent = events
        .iter()
        .filter(|e| e.kind == Kind::Request && e.verdict == Verdict::Allow && e.reason == "allowed")
        .map(|event| line(event, None));
    let answered = events
        .iter()
        .filter(|e| e.kind == Kind::Response && e.reason == "complete")
        .map(|event| line(event, event.bytes_out.filter(|_| bodies)));
    (count(sent), count(answered))
}

/// The fields of a request that went on, apart from those that say who is meant and where the body ends.
fn carried(fields: &[(String, Vec<u8>)], told: &dyn Fn(&str) -> bool) -> Vec<(String, Vec<u8>)> {
    let crumbs: Vec<&[u8]> = fields
        .iter()
        .filter(|(name, _)| name == "cookie")
        .map(|(_, crumb)| crumb.as_slice())
        .collect();
    let own = [
        "host",
        "content-length",
        "transfer-encoding",
        "te",
        "connection",
        "cookie",
    ];
    let other = |(name, _): &&(String, Vec<u8>)| {
        !name.starts_with(':') && !own.contains(&name.as_str()) && told(name)
    };
    let mut out: Vec<_> = fields.iter().filter(other).cloned().collect();
    if !crumbs.is_empty() {
        out.push(("cookie".to_owned(), crumbs.join(&b"; "[..])));
    }
    out.sort();
    out
}

/// What a server says it heard is what the client sent, and nothing besides.
fn same(heard: &Heard, sent: &Sent, authority: &str, all: bool) {
    let told = |name: &str| all || LOGGED.contains(&name);
    assert_eq!(heard.method, sent.method, "{heard:?} of {sent:?}");
    let fields: Vec<(String, Vec<u8>)> = heard
        .fields
        .iter()
        .filter(|(_, value)| all || !value.is_empty())
        .map(|(name, value)| (name.clone(), value.chars().map(|c| c as u8).collect()))
        .collect();
    let values = |name: &str| -> Vec<&[u8]> {
        let named = fields.iter().filter(|field| field.0 == name);
        named.map(|(_, value)| value.as_slice()).collect()
    };
    let two = heard.version.contains('2');
    let hosts = [values("host"), values(":authority")].concat();
    assert_eq!(hosts, [authority.as_bytes()], "{heard:?}");
    for between in ["connection", "keep-alive", "upgrade", "expect", "trailer"] {
        assert!(
            values(between).iter().all(|value| *value == b"keep-alive"),
            "{between} is for neighbours: {heard:?}"
        );
    }
    assert!(two || values("cookie").len() <= 1, "{heard:?}");
    assert!(values("te").iter().all(|te| two && *te == b"trailers"));
    let (lengths, encodings) = (values("content-length"), values("transfer-encoding"));
    match (&lengths[..], &encodings[..]) {
        ([], []) => assert!(two || sent.body.is_empty(), "{heard:?} of {sent:?}"),
        ([length], []) if heard.body.is_some() => {
            assert_eq!(*length, sent.body.len().to_string().as_bytes(), "{heard:?}");
        }
        // It has not come to its end, or nothing is said of that.
        ([_], []) => {}
        ([], [encoding]) => assert!(!two && *encoding == b"chunked", "{heard:?}"),
        _ => panic!("two ways to read it: {heard:?}"),
    }
    let (got, mut wanted) = (carried(&fields, &told), carried(&sent.fields, &told));
    if !sent.plain {
        // What is between neighbours, or out of order, has not gone on.
        wanted.retain(|field| got.contains(field));
    }
    if !all {
        wanted.retain(|(_, value)| !value.is_empty());
    }
    assert_eq!(got, wanted, "{heard:?} of {sent:?}");
    if let Some((length, sum)) = &heard.body {
        let digest = Sha1::digest(&sent.body);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            (*length, sum.as_str()),
            (sent.body.len() as u64, digest.as_str()),
            "{heard:?} of {sent:?}"
        );
    }
}

/// What one heard, the other decided, and the client sent.
fn compare(server: &Server, (scheme, authority): (&str, &str), all: &All, events: &[Event]) {
    let bodies = server.tells_all();
    let mut lines = Vec::new();
    let mut whole = HashMap::new();
    for heard in server.heard() {
        assert_eq!(
            heard.status / 100,
            2,
            "the gateway sent what is no request: {heard:?}"
        );
        let path = heard.target.split('?').next().unwrap_or_default();
        let number = path.strip_prefix("/t/").unwrap_or_default();
        let canonical = !number.is_empty()
            && !path.contains("//")
            && !path.contains("..")
            && !path.contains("secret");
        let allowed = METHODS.contains(&heard.method.as_str()) && canonical;
        assert!(allowed, "not allowed: {heard:?}");
        let sent = all.sent.get(&heard.target);
        let sent = sent.unwrap_or_else(|| panic!("nobody sent it: {heard:?}"));
        same(&heard, sent, authority, bodies);
        let line = (
            heard.method.clone(),
            recorded(scheme, authority, &heard.target),
        );
        let body = heard.body.map(|(length, _)| length);
        if body.is_some() || !bodies {
            *whole.entry(heard.target).or_insert(0) += 1;
        }
        lines.push((line.0, line.1, body));
    }
    let (sent, answered) = decided(events, bodies);
    let seen = count(lines.iter().map(|(m, u, _)| (m.clone(), u.clone(), None)));
    for (request, times) in &seen {
        let decided = sent.get(request).copied().unwrap_or(0);
        assert!(
            *times <= decided,
            "heard {times} times, decided {decided} times: {request:?}"
        );
    }
    let ended = count(lines);
    for (request, times) in &answered {
        let heard = ended.get(request).copied().unwrap_or(0);
        assert!(
            heard >= *times,
            "answered {times} times, heard {heard} times: {request:?}"
        );
    }
    for target in &all.whole {
        let times = whole.get(target).copied().unwrap_or(0);
        let url = recorded(scheme, authority, target);
        let said = || events.iter().filter(|e| e.url.as_deref() == Some(&*url));
        assert_eq!(
            times,
            1,
            "in order, and not heard as such: {:?} {:#?}",
            all.sent[target],
            said().collect::<Vec<_>>()
        );
    }
    let answered: usize = answered.values().sum();
    // Neither all nor nothing: the generator makes what passes and what does not.
    let refused = events.iter().filter(|e| e.verdict == Verdict::Deny).count();
    println!(
        "sent {}, heard {}, answered {answered}, in order {}, refused {refused}",
        sent.values().sum::<usize>(),
        seen.values().sum::<usize>(),
        all.whole.len(),
    );
    let many = all.sent.len() / 100;
    assert!(
        answered > many && refused > many && all.whole.len() > many,
        "answered {answered}, refused {refused}"
    );
    assert!(all.answered <= answered, "{} of {answered}", all.answered);
}

/// `of_two`: the client speaks HTTP/2.
async fn differ(world: World, server: Server, speaks: Speaks, of_two: bool) {
    let (protocol, scheme) = match speaks {
        Speaks::Plain => (Protocol::Http, "http"),
        _ => (Protocol::Https, "https"),
    };
    let (session, door) = session(&world, server.port, protocol).await;
    let client = match (speaks, of_two) {
        (Speaks::Plain, _) => Client::Plain,
        (_, false) => Client::One(trusting(&session.ca, b"http/1.1")),
        (_, true) => Client::Two(trusting(&session.ca, b"h2")),
    };
    let authority = format!("{NAME}:{}", server.port);
    // Debian's nginx ends a connection of HTTP/2 over them.
    let trailers = server.tells_all() || speaks != Speaks::Two;
    let (all, events) = send_all(&session, door, client, (&authority, trailers)).await;
    compare(&server, (scheme, &authority), &all, &events);
    // A server is spoken to in what both know, and a client of HTTP/1.1 in nothing newer.
    let two = speaks == Speaks::Two && of_two;
    let versions = server.heard().into_iter().map(|heard| heard.version);
    assert!(
        versions
            .into_iter()
            .all(|version| version.contains('2') == two)
    );
}

async fn with_node(speaks: Speaks, of_two: bool) {
    let world = World::new();
    let server = Server::node(&world, speaks).await;
    differ(world, server, speaks, of_two).await;
}

async fn with_nginx(speaks: Speaks, of_two: bool) {
    let world = World::new();
    let server = Server::nginx(&world, speaks).await;
    differ(world, server, speaks, of_two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_what_node_heard() {
    with_node(Speaks::Plain, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_is_what_nginx_heard() {
    with_nginx(Speaks::Plain, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_1_over_tls_is_what_node_heard() {
    with_node(Speaks::Two, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_1_over_tls_is_what_nginx_heard() {
    with_nginx(Speaks::Two, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_2_is_what_node_heard_of_http_2() {
    with_node(Speaks::Two, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_2_is_what_nginx_heard_of_http_2() {
    with_nginx(Speaks::Two, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_2_is_what_node_heard_of_http_1() {
    with_node(Speaks::One, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_of_http_2_is_what_nginx_heard_of_http_1() {
    with_nginx(Speaks::One, true).await;
}
