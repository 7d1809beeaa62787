//! The DNS sockets. A name that has its address is answered at once; a new one waits for the enforcer, which writes the
//! gate before it answers. Started by `run` for each pair of sockets that the enforcer hands over.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use audit::Verdict;
use schema::host::HostName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::message::{self, Code, Query, TYPE_A};
use crate::channel::Refused;
use crate::connection::Shared;
use crate::events;
use crate::limits;
use crate::plan;

/// What a question comes to.
enum Answer {
    Address(Ipv4Addr),
    Empty(Code),
    /// The name has no address yet.
    New(HostName),
}

/// Answers datagrams for as long as the task lives.
pub async fn serve_udp(shared: Arc<Shared>, socket: UdpSocket) {
    let socket = Arc::new(socket);
    // One byte more than a query may have, so that a longer one is seen to be.
    let mut buffer = [0; limits::DNS_MESSAGE + 1];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            }
        };
        let query = match message::parse(&buffer[..length]) {
            Ok(query) => query,
            Err(refusal) => {
                if let Some(answer) = refusal.answer() {
                    let _ = socket.send_to(&answer, peer).await;
                }
                continue;
            }
        };
        match look_up(&shared, &query) {
            Answer::Address(address) => {
                let _ = socket.send_to(&query.address(address), peer).await;
            }
            Answer::Empty(code) => {
                let _ = socket.send_to(&query.empty(code), peer).await;
            }
            Answer::New(name) => {
                // Bounded by the channel: beyond its bound the task answers SERVFAIL at once.
                let (shared, socket) = (Arc::clone(&shared), Arc::clone(&socket));
                tokio::spawn(async move {
                    let answer = allocate(&shared, &query, &name).await;
                    let _ = socket.send_to(&answer, peer).await;
                });
            }
        }
    }
}

/// Answers connections for as long as the task lives.
pub async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let slots = Arc::new(Semaphore::new(limits::DNS_TCP_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let _slot = slot;
                    // The end of a DNS connection concerns nobody.
                    let _ = tcp_connection(&shared, stream).await;
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn tcp_connection(shared: &Shared, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; limits::DNS_MESSAGE];
    for _ in 0..limits::DNS_TCP_QUERIES {
        let Ok(length) = timeout(limits::DNS_TCP_IDLE, stream.read_u16()).await else {
            break;
        };
        let length = usize::from(length?);
        if length > limits::DNS_MESSAGE {
            break;
        }
        let message = &mut buffer[..length];
        let Ok(read) = timeout(limits::DNS_TCP_IDLE, stream.read_exact(message)).await else {
            break;
        };
        read?;
        let answer = match message::parse(message) {
            Err(refusal) => refusal.answer(),
            Ok(query) => Some(match look_up(shared, &query) {
                Answer::Address(address) => query.address(address),
                Answer::Empty(code) => query.empty(code),
                Answer::New(name) => allocate(shared, &query, &name).await,
            }),
        };
        // Answers are a few hundred bytes.
        let Some((answer, length)) =
            answer.and_then(|a| u16::try_from(a.len()).ok().map(|n| (a, n)))
        else {
            break;
        };
        let mut framed = length.to_be_bytes().to_vec();
        framed.extend_from_slice(&answer);
        match timeout(limits::DNS_TCP_IDLE, stream.write_all(&framed)).await {
            Ok(written) => written?,
            Err(_) => break,
        }
    }
    Ok(())
}

/// What can be said without asking anybody.
fn look_up(shared: &Shared, query: &Query) -> Answer {
    if query.is_unknown_edns() {
        return Answer::Empty(Code::BadVers);
    }
    if !query.is_internet() {
        return Answer::Empty(Code::Refused);
    }
    let Some(name) = host(query) else {
        return Answer::Empty(Code::NxDomain);
    };
    // Every name exists; only its address is told.
    if query.kind != TYPE_A {
        return Answer::Empty(Code::NoError);
    }
    if name.as_str() == plan::INTERNAL_NAME {
        return Answer::Address(plan::INTERNAL);
    }
    match shared.state.address_of(&name) {
        Some(address) => Answer::Address(address),
        None => Answer::New(name),
    }
}

/// The name, if it is one that can be dialled: two labels or more, canonical, not a reverse name.
fn host(query: &Query) -> Option<HostName> {
    if query.labels().len() < 2 {
        return None;
    }
    let name = HostName::parse(&query.name()?).ok()?;
    let reverse = name.labels().next_back() == Some("arpa");
    (!reverse && name.label_count() >= 2).then_some(name)
}

async fn allocate(shared: &Shared, query: &Query, name: &HostName) -> Vec<u8> {
    match shared.channel.allocate(name).await {
        Ok(address) if shared.state.add_name(name, address) => {
            if shared.state.active().is_listed(name) {
                let event = events::dns(name, Verdict::Allow, "allowed");
                shared.channel.post(&event, None);
            } else if shared.state.active().may_ask(name) {
                let event = events::dns(name, Verdict::Ask, "not-listed");
                shared.channel.post_denial(&event, None);
            } else {
                let event = events::dns(name, Verdict::Deny, "not-listed");
                shared.channel.post_denial(&event, None);
            }
            query.address(address)
        }
        // An address that cannot be is an enforcer that cannot be trusted with this name.
        Ok(_) | Err(Refused::Busy | Refused::NoAnswer) => query.empty(Code::ServFail),
        Err(Refused::Enforcer(refusal)) => {
            let event = events::dns(name, Verdict::Deny, &events::bounded(&refusal, 64));
            shared.channel.post_denial(&event, None);
            query.empty(match refusal.as_str() {
                "pool_exhausted" | "log_full" => Code::ServFail,
                _ => Code::Refused,
            })
        }
    }
}
