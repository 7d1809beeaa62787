//! A session without kernel: the test plays the enforcer over a socket pair, and a 'door' on loopback stands for each
//! synthetic address and port that an agent would dial.

use std::collections::HashMap;
use std::io::{IoSlice, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use api::v1::{self, FromGateway, SnapshotDocument, ToGateway, from_gateway, to_gateway};
use audit::Event;
use gateway::{Options, Patience, serve};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair,
};
use policy::{
    Action, DomainRule, EffectivePolicy, Gateway, Layer, Network, NetworkRule, Origin, Rule,
};
use prost::Message;
use schema::net::Protocol;
use schema::request::Requests;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;

/// What the fake enforcer does with what it is asked.
#[derive(Default)]
pub struct Manners {
    pub refuse_record: bool,
    pub silent: bool,
    pub refusal: Option<String>,
    /// What is asked to be recorded is refused; what is only told is taken.
    pub refuse_asked: bool,
    /// How long each record that is asked for takes.
    pub slow: Duration,
    /// The program that opened every connection, as far as it is known.
    pub program: Option<String>,
    /// How often that was asked.
    pub openers: usize,
}

type Doors = Arc<Mutex<HashMap<SocketAddrV4, SocketAddrV4>>>;
/// What was asked, and what was withdrawn.
type Asks = Arc<Mutex<(Vec<v1::Ask>, Vec<u64>)>>;
type Events = Arc<Mutex<Vec<(Event, Option<v1::Flow>)>>>;

pub struct Session {
    pub enforcer: Arc<OwnedFd>,
    pub manners: Arc<Mutex<Manners>>,
    events: Events,
    /// What came by them is among the session's events.
    pub lanes: Vec<Lane>,
    pub asks: Asks,
    applied: mpsc::UnboundedReceiver<u32>,
    doors: Doors,
    next_door: u32,
    pub listener_port: u16,
    pub dns_udp: SocketAddr,
    pub dns_tcp: SocketAddr,
    pub policy: PolicyBuilder,
    pub generation: u32,
    pub ended: Option<tokio::task::JoinHandle<String>>,
    /// The session's authority, as the gateway told it (DER).
    pub ca: Vec<u8>,
    names: Vec<v1::Name>,
}

#[derive(Clone, Default)]
pub struct PolicyBuilder {
    pub layer: Layer,
    pub gateway: Gateway,
    /// What upstreams are verified with (DER); told with the first snapshot.
    pub roots: Vec<Vec<u8>>,
    pub secrets: Vec<v1::Secret>,
    pub credentials: Vec<policy::Credential>,
    pub inspection: policy::Inspection,
    pub ceilings: Vec<policy::Ceiling>,
    pub files: policy::Files,
    pub programs: policy::Programs,
}

fn origin() -> Origin {
    Origin {
        file: "agentcontainer.json".into(),
        line: 3,
        column: 5,
    }
}

impl PolicyBuilder {
    pub fn allow(mut self, host: &str) -> Self {
        self.layer.allowed.push(DomainRule {
            host: host.parse().unwrap(),
            port: None,
            origin: origin(),
        });
        self
    }

    pub fn deny(mut self, host: &str) -> Self {
        self.layer.denied.push(DomainRule {
            host: host.parse().unwrap(),
            port: None,
            origin: origin(),
        });
        self
    }

    /// A name at a port of loopback.
    pub fn rule(mut self, host: &str, port: u16, protocol: Protocol) -> Self {
        self.layer.rules.push(Rule {
            host: host.parse().unwrap(),
            ports: vec![port],
            protocol: Some(protocol),
            action: Action::Allow,
            requests: Default::default(),
            origin: origin(),
        });
        self
    }

    /// A rule about some requests to a name.
    pub fn requests(mut self, host: &str, port: u16, action: Action, requests: Requests) -> Self {
        self.layer.rules.push(Rule {
            host: host.parse().unwrap(),
            ports: vec![port],
            protocol: Some(Protocol::Https),
            action,
            requests,
            origin: Origin {
                line: 10 + self.layer.rules.len() as u32,
                ..origin()
            },
        });
        self
    }

    pub fn network(mut self, cidr: &str, port: u16, protocol: Protocol) -> Self {
        self.layer.networks.push(NetworkRule {
            cidr: cidr.parse().unwrap(),
            port,
            protocol,
            origin: origin(),
        });
        self
    }

    pub fn root(mut self, der: &[u8]) -> Self {
        self.roots.push(der.to_vec());
        self
    }

    pub fn host(self, name: &str) -> Self {
        self.host_at(name, &[IpAddr::V4(Ipv4Addr::LOCALHOST)])
    }

    pub fn host_at(mut self, name: &str, addresses: &[IpAddr]) -> Self {
        self.gateway
            .hosts
            .insert(name.parse().unwrap(), addresses.to_vec());
        self
    }

    pub fn build(self) -> EffectivePolicy {
        EffectivePolicy::new(Network::new([self.layer]).unwrap(), self.gateway)
            .unwrap()
            .with_credentials(self.credentials)
            .unwrap()
            .with_inspection(self.inspection)
            .with_files(self.files)
            .unwrap()
            .with_programs(self.programs)
            .unwrap()
            .under(self.ceilings)
            .unwrap()
    }

    pub fn deny_file(mut self, path: &str) -> Self {
        self.files.denied.push(policy::FileRule {
            organisation: None,
            path: path.parse().unwrap(),
            origin: origin(),
        });
        self
    }

    pub fn deny_program(mut self, name: &str) -> Self {
        self.programs.denied.push(policy::ProgramRule {
            name: name.parse().unwrap(),
            origin: origin(),
            organisation: None,
        });
        self
    }

    /// Levels of inspectors, by their names in the config.
    pub fn inspect(mut self, levels: &[(&str, &str)]) -> Self {
        let level = |&(name, level): &(&str, &str)| {
            let said = serde_json::json!({ "level": level, "origin": origin() });
            (name.to_owned(), said)
        };
        let levels: serde_json::Map<_, _> = levels.iter().map(level).collect();
        self.inspection = serde_json::from_value(levels.into()).unwrap();
        self
    }
}

/// The enforcer's end of a lane, played as the channel's is.
pub struct Lane {
    pub fd: Arc<OwnedFd>,
    pub manners: Arc<Mutex<Manners>>,
    events: Events,
}

impl Lane {
    /// It, and the gateway's end.
    pub fn new() -> (Self, OwnedFd) {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        let lane = Self {
            fd: Arc::new(ours),
            manners: Arc::default(),
            events: Arc::default(),
        };
        let (fd, manners, events) = (lane.fd.clone(), lane.manners.clone(), lane.events.clone());
        std::thread::spawn(move || {
            // Nothing else comes by a lane than events: whoever waits for these waits in vain.
            let (ready, _) = mpsc::unbounded_channel();
            let (applied, _) = mpsc::unbounded_channel();
            play(&fd, &manners, &events, &Mutex::default(), &ready, &applied);
        });
        (lane, theirs)
    }

    pub fn events(&self) -> Vec<Event> {
        let events = self.events.lock().unwrap();
        events.iter().map(|(event, _)| event.clone()).collect()
    }
}

impl Session {
    pub async fn start(policy: PolicyBuilder) -> Self {
        Self::start_with(policy, |_| {}).await
    }

    pub async fn start_with(policy: PolicyBuilder, change: impl FnOnce(&mut Options)) -> Self {
        let doors: Doors = Arc::default();
        let destination = {
            let doors = Arc::clone(&doors);
            Arc::new(move |local: SocketAddrV4| {
                *doors.lock().unwrap().get(&local).unwrap_or(&local)
            })
        };
        let mut options = Options {
            destination,
            patience: Patience {
                idle: Duration::from_secs(20),
                half_closed: Duration::from_secs(20),
                tick: Duration::from_millis(100),
            },
            ..Options::default()
        };
        change(&mut options);
        let mut ended = None;
        let mut session = Self::start_by(policy, |theirs| {
            ended = Some(tokio::spawn(async move {
                match serve(theirs, options).await {
                    Err(error) => error.to_string(),
                    Ok(never) => match never {},
                }
            }));
        })
        .await;
        session.doors = doors;
        session.ended = ended;
        session
    }

    /// Starts whatever serves the other end of the channel.
    pub async fn start_by(policy: PolicyBuilder, start: impl FnOnce(OwnedFd)) -> Self {
        let (ours, theirs) = socketpair(
            AddressFamily::Unix,
            SockType::SeqPacket,
            None,
            SockFlag::SOCK_CLOEXEC,
        )
        .unwrap();
        start(theirs);
        let manners: Arc<Mutex<Manners>> = Arc::default();
        let events: Events = Arc::default();
        let asks: Asks = Arc::default();
        let (ready_sender, mut ready) = mpsc::unbounded_channel();
        let (applied_sender, applied) = mpsc::unbounded_channel();
        let enforcer = Arc::new(ours);
        {
            let (enforcer, manners, events, asks) = (
                Arc::clone(&enforcer),
                Arc::clone(&manners),
                Arc::clone(&events),
                Arc::clone(&asks),
            );
            std::thread::spawn(move || {
                play(
                    &enforcer,
                    &manners,
                    &events,
                    &asks,
                    &ready_sender,
                    &applied_sender,
                );
            });
        }
        let ca = tokio::time::timeout(Duration::from_secs(5), ready.recv())
            .await
            .unwrap()
            .unwrap();

        let listener = listening("0.0.0.0:0".parse().unwrap());
        let dns_tcp = listening("127.0.0.1:0".parse().unwrap());
        let dns_udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut session = Self {
            enforcer,
            manners,
            events,
            lanes: Vec::new(),
            asks,
            applied,
            doors: Arc::default(),
            next_door: u32::from(Ipv4Addr::new(127, 77, 0, 1)),
            listener_port: listener.local_addr().unwrap().port(),
            dns_udp: dns_udp.local_addr().unwrap(),
            dns_tcp: dns_tcp.local_addr().unwrap(),
            policy,
            generation: 0,
            ended: None,
            ca,
            names: Vec::new(),
        };
        session.apply(session.policy.clone()).await;
        session.send(
            to_gateway::Message::Wired(v1::Wired { netns_cookie: 1 }),
            &[
                listener.as_raw_fd(),
                dns_udp.as_raw_fd(),
                dns_tcp.as_raw_fd(),
            ],
        );
        session
    }

    pub fn send(&self, message: to_gateway::Message, fds: &[i32]) {
        let bytes = ToGateway {
            message: Some(message),
        }
        .encode_to_vec();
        send_to_gateway(&self.enforcer, &bytes, fds);
    }

    /// Hands over other sockets: a listener at this address, fresh DNS sockets.
    pub fn wire(&mut self, listen: SocketAddrV4) {
        let listener = listening(listen);
        let dns_tcp = listening("127.0.0.1:0".parse().unwrap());
        let dns_udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        self.dns_udp = dns_udp.local_addr().unwrap();
        self.dns_tcp = dns_tcp.local_addr().unwrap();
        self.send(
            to_gateway::Message::Wired(v1::Wired { netns_cookie: 2 }),
            &[
                listener.as_raw_fd(),
                dns_udp.as_raw_fd(),
                dns_tcp.as_raw_fd(),
            ],
        );
    }

    pub fn document(&self, policy: EffectivePolicy) -> SnapshotDocument {
        SnapshotDocument {
            generation: self.generation,
            policy: policy.to_json(),
            names: self.names.clone(),
            session: "test".to_owned(),
            roots: self.policy.roots.clone(),
            secrets: self.policy.secrets.clone(),
        }
    }

    pub async fn apply(&mut self, policy: PolicyBuilder) {
        self.generation += 1;
        let document = self.document(policy.build());
        let file = sealed(&document.encode_to_vec());
        self.send(
            to_gateway::Message::Snapshot(v1::Snapshot {
                generation: self.generation,
            }),
            &[file.as_raw_fd()],
        );
        let applied = tokio::time::timeout(Duration::from_secs(5), self.applied.recv()).await;
        assert_eq!(applied.unwrap(), Some(self.generation));
    }

    /// An address on loopback that stands for a destination.
    pub fn door_to(&mut self, destination: SocketAddrV4) -> SocketAddr {
        let door = SocketAddrV4::new(Ipv4Addr::from_bits(self.next_door), self.listener_port);
        self.next_door += 1;
        self.doors.lock().unwrap().insert(door, destination);
        SocketAddr::V4(door)
    }

    /// Asks DNS for a name, as an agent would, and opens a door to what it answers.
    pub async fn door(&mut self, name: &str, port: u16) -> SocketAddr {
        let address = self.ask(name).await;
        self.door_to(SocketAddrV4::new(address, port))
    }

    pub async fn ask(&self, name: &str) -> Ipv4Addr {
        let answer = self.query(&query(7, name, 1)).await.unwrap();
        let n = answer.len();
        assert_eq!(answer[3] & 0xf, 0, "{name}: {answer:?}");
        Ipv4Addr::new(answer[n - 4], answer[n - 3], answer[n - 2], answer[n - 1])
    }

    pub async fn query(&self, message: &[u8]) -> Option<Vec<u8>> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(message, self.dns_udp).await.unwrap();
        let mut answer = vec![0; 2048];
        let received = socket.recv(&mut answer);
        let n = tokio::time::timeout(Duration::from_millis(6000), received).await;
        answer.truncate(n.ok()?.unwrap());
        Some(answer)
    }

    pub fn events(&self) -> Vec<Event> {
        let events = self.events.lock().unwrap();
        let own = events.iter().map(|(event, _)| event.clone());
        own.chain(self.lanes.iter().flat_map(Lane::events))
            .collect()
    }

    pub fn flows(&self) -> Vec<Option<v1::Flow>> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|(_, f)| *f)
            .collect()
    }

    /// Waits until so many questions were asked in all, and gives the last.
    pub async fn asked(&self, count: usize) -> v1::Ask {
        for _ in 0..1000 {
            let asks = self.asks.lock().unwrap().0.clone();
            assert!(asks.len() <= count, "{asks:#?}");
            if let (true, Some(last)) = (asks.len() == count, asks.last()) {
                return last.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing was asked");
    }

    /// Ends a question: `allowed`, or the code of a denial.
    pub fn answer(&self, ask: &v1::Ask, outcome: &str) {
        let answered = v1::Answered {
            id: ask.id,
            question: format!("q{}", ask.id),
            outcome: outcome.to_owned(),
            seconds: 0,
        };
        self.send(to_gateway::Message::Answered(answered), &[]);
    }

    /// Waits until that question is withdrawn.
    pub async fn withdrawn(&self, ask: &v1::Ask) {
        for _ in 0..1000 {
            if self.asks.lock().unwrap().1.contains(&ask.id) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it is still asked");
    }

    /// Waits for an event with this reason.
    pub async fn event(&self, reason: &str) -> Event {
        self.event_where(reason, |event| event.reason == reason)
            .await
    }

    pub async fn event_where(&self, what: &str, is: impl Fn(&Event) -> bool) -> Event {
        for _ in 0..1000 {
            if let Some(event) = self.events().into_iter().find(&is) {
                return event;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no event {what:?} in {:#?}", self.events());
    }
}

/// A frame of a WebSocket as a client sends it (RFC 6455, 5.2).
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x0f, 0xc3, 0x99];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | n as u8),
        n @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(n as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    let masked = payload.iter().zip(mask.iter().cycle());
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
    out
}

/// With the backlog that the enforcer's listeners have: the library's default of 128 overflows into SYN cookies, which
/// end in resets when many connect at once.
fn listening(address: SocketAddrV4) -> std::net::TcpListener {
    let listener = std::net::TcpListener::bind(address).unwrap();
    let backlog = nix::sys::socket::Backlog::new(4096).unwrap();
    nix::sys::socket::listen(&listener, backlog).unwrap();
    listener
}

pub fn send_to_gateway(enforcer: &OwnedFd, bytes: &[u8], fds: &[i32]) {
    let rights = [ControlMessage::ScmRights(fds)];
    sendmsg::<()>(
        enforcer.as_raw_fd(),
        &[IoSlice::new(bytes)],
        if fds.is_empty() { &[] } else { &rights },
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
    .unwrap();
}

pub fn memory_file(bytes: &[u8]) -> std::fs::File {
    let fd =
        nix::sys::memfd::memfd_create(c"snapshot", nix::sys::memfd::MFdFlags::MFD_ALLOW_SEALING)
            .unwrap();
    let mut file = std::fs::File::from(fd);
    file.write_all(bytes).unwrap();
    file
}

pub fn sealed(bytes: &[u8]) -> std::fs::File {
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    let file = memory_file(bytes);
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::all())).unwrap();
    file
}

fn play(
    fd: &OwnedFd,
    manners: &Mutex<Manners>,
    events: &Mutex<Vec<(Event, Option<v1::Flow>)>>,
    asks: &Mutex<(Vec<v1::Ask>, Vec<u64>)>,
    ready: &mpsc::UnboundedSender<Vec<u8>>,
    applied: &mpsc::UnboundedSender<u32>,
) {
    let mut buffer = vec![0; 65536];
    let mut names: HashMap<String, u32> = HashMap::new();
    while let Ok(n) = nix::unistd::read(fd, &mut buffer) {
        if n == 0 {
            return;
        }
        let message = FromGateway::decode(&buffer[..n]).unwrap().message.unwrap();
        let answer = match message {
            from_gateway::Message::Ready(r) => {
                ready.send(r.ca_certificate).unwrap();
                continue;
            }
            from_gateway::Message::Applied(a) => {
                let _ = applied.send(a.generation);
                continue;
            }
            from_gateway::Message::Allocate(allocate) => {
                let manners = manners.lock().unwrap();
                if manners.silent {
                    continue;
                }
                let next = 0xc612_0100 + names.len() as u32;
                to_gateway::Message::Allocated(match &manners.refusal {
                    Some(refusal) => v1::Allocated {
                        id: allocate.id,
                        address: 0,
                        refusal: refusal.clone(),
                    },
                    None => v1::Allocated {
                        id: allocate.id,
                        address: *names.entry(allocate.name).or_insert(next),
                        refusal: String::new(),
                    },
                })
            }
            from_gateway::Message::Ask(ask) => {
                if manners.lock().unwrap().silent {
                    continue;
                }
                let id = ask.id;
                asks.lock().unwrap().0.push(ask);
                to_gateway::Message::Answered(v1::Answered {
                    id,
                    question: format!("q{id}"),
                    outcome: "held".to_owned(),
                    seconds: 60,
                })
            }
            from_gateway::Message::Opener(opener) => {
                assert!(opener.flow.is_some());
                let mut manners = manners.lock().unwrap();
                manners.openers += 1;
                to_gateway::Message::Opened(v1::Opened {
                    id: opener.id,
                    program: manners.program.clone().unwrap_or_default(),
                })
            }
            from_gateway::Message::Withdraw(withdraw) => {
                asks.lock().unwrap().1.push(withdraw.id);
                continue;
            }
            from_gateway::Message::Records(records) => {
                let mut recorded = v1::Recorded::default();
                for record in records.records {
                    let asked = record.id != 0;
                    if asked {
                        let slow = manners.lock().unwrap().slow;
                        std::thread::sleep(slow);
                    }
                    let event: Event = serde_json::from_slice(&record.event).unwrap();
                    let manners = manners.lock().unwrap();
                    let ok = !(manners.refuse_record || manners.refuse_asked && asked);
                    if ok {
                        events.lock().unwrap().push((event, record.flow));
                    }
                    match (asked && !manners.silent, ok) {
                        (true, true) => recorded.written.push(record.id),
                        (true, false) => recorded.refused.push(record.id),
                        (false, _) => {}
                    }
                }
                if recorded == v1::Recorded::default() {
                    continue;
                }
                to_gateway::Message::Recorded(recorded)
            }
        };
        let bytes = ToGateway {
            message: Some(answer),
        }
        .encode_to_vec();
        send_to_gateway(fd, &bytes, &[]);
    }
}

/// A DNS query with one question.
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
    message.extend_from_slice(&kind.to_be_bytes());
    message.extend_from_slice(&[0, 1]);
    message
}

/// A TCP server whose connections are given to a closure; returns its port.
pub async fn upstream<F, R>(serve: F) -> u16
where
    F: Fn(TcpStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let listener = listening("127.0.0.1:0".parse().unwrap());
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// An upstream that sends back what it gets, and closes when its peer does.
pub async fn echo() -> u16 {
    upstream(|mut stream| async move {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

/// Reads to the end; `Err` for a reset.
pub async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes))
        .await
        .expect("an end within 10 s")?;
    Ok(bytes)
}

/// Sends, finishes, reads to the end.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    read_all(&mut stream).await
}
