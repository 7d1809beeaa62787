//! Opaque connections: `tcp` rules, literal networks, what is not handed out, half-closes, revocation, the record.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use audit::{Kind, Verdict};
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

fn tcp(port: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .host("db.example.com")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowed_name_and_port_is_carried_both_ways_and_recorded() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let answer = exchange(door, b"select 1").await.unwrap();
    assert_eq!(answer, b"select 1");
    let allowed = session.event("allowed").await;
    assert_eq!(allowed.kind, Kind::Dns);
    let closed = session.event("closed").await;
    assert_eq!(closed.host.as_deref(), Some("db.example.com"));
    assert_eq!((closed.bytes_in, closed.bytes_out), (Some(8), Some(8)));
    let connect = session
        .events()
        .into_iter()
        .find(|e| e.kind == Kind::Connect && e.reason == "allowed")
        .unwrap();
    assert_eq!(connect.verdict, Verdict::Allow);
    assert_eq!(connect.protocol.as_deref(), Some("tcp"));
    assert!(connect.rule.unwrap().name.contains("db.example.com"));
    let flow = session.flows().into_iter().flatten().next().unwrap();
    assert_eq!(flow.local_port, u32::from(session.listener_port));
    assert_eq!(Ipv4Addr::from_bits(flow.peer_address), Ipv4Addr::LOCALHOST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_may_speak_first() {
    let port = upstream(|mut stream| async move {
        stream.write_all(b"220 hello\r\n").await.unwrap();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest).await;
    })
    .await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let mut greeting = [0; 11];
    stream.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_half_close_is_passed_on_and_the_answer_still_comes() {
    // Answers only after it has seen the end of the request.
    let port = upstream(|mut stream| async move {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        stream
            .write_all(format!("{} bytes", request.len()).as_bytes())
            .await
            .unwrap();
    })
    .await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    assert_eq!(
        exchange(door, &[7; 100_000]).await.unwrap(),
        b"100000 bytes"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_passes_whole_in_both_directions_at_once() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let data: Vec<u8> = (0..16u32 << 20)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let (mut read, mut write) = TcpStream::connect(door).await.unwrap().into_split();
    let sent = data.clone();
    let writer = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut back = Vec::new();
    read.read_to_end(&mut back).await.unwrap();
    writer.await.unwrap();
    assert!(back == data);
    let closed = session.event("closed").await;
    assert_eq!(closed.bytes_in, Some(16 << 20));
    assert_eq!(closed.bytes_out, Some(16 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_port_of_an_allowed_name_is_reset() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port + 1).await;
    assert!(exchange(door, b"x").await.is_err());
    let denied = session.event("port-not-listed").await;
    assert_eq!(denied.verdict, Verdict::Deny);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_nobody_was_given_is_reset() {
    let mut session = Session::start(PolicyBuilder::default().allow("example.com")).await;
    let door = session.door_to(SocketAddrV4::new(Ipv4Addr::new(198, 18, 9, 9), 443));
    assert!(exchange(door, b"x").await.is_err());
    let event = session.event("unknown-address").await;
    assert_eq!(event.address.as_deref(), Some("198.18.9.9"));
    // The gateway's own addresses are none either.
    for last in [1, 2] {
        let door = session.door_to(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, last), 443));
        assert!(exchange(door, b"x").await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_literal_address_needs_a_network() {
    let port = echo().await;
    // Documentation addresses are local nowhere: what matters here is that it gets as far as dialling.
    let policy = PolicyBuilder::default().network("192.0.2.0/24", port, Protocol::Tcp);
    let mut session = Session::start(policy).await;
    let outside = session.door_to(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), port));
    assert!(exchange(outside, b"x").await.is_err());
    session.event("address-not-listed").await;
    let other_port = session.door_to(SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), port ^ 1));
    assert!(exchange(other_port, b"x").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_carried_that_cannot_be_recorded() {
    let (heard_sender, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let port = upstream(move |mut stream| {
        let heard = heard_sender.clone();
        async move {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes).await;
            heard.send(bytes).unwrap();
        }
    })
    .await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    session.manners.lock().unwrap().refuse_record = true;
    assert!(exchange(door, b"secret").await.is_err());
    // The dial may have gone out beside the record, but no byte.
    while let Ok(Some(bytes)) = tokio::time::timeout(Duration::from_millis(300), heard.recv()).await
    {
        assert!(bytes.is_empty());
    }
    session.manners.lock().unwrap().refuse_record = false;
    assert!(exchange(door, b"secret").await.is_ok());
    // Why is said as soon as something can be.
    session.manners.lock().unwrap().refuse_asked = true;
    assert!(exchange(door, b"secret").await.is_err());
    assert_eq!(session.event("not-recorded").await.verdict, Verdict::Deny);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_the_agent_chose_is_not_even_dialled_before_it_is_on_record() {
    let (dialled_sender, mut dialled) = tokio::sync::mpsc::unbounded_channel();
    let port = upstream(move |_stream| {
        let dialled = dialled_sender.clone();
        async move { dialled.send(()).unwrap() }
    })
    .await;
    let policy = PolicyBuilder::default()
        .rule("*.example.com", port, Protocol::Tcp)
        .host("chosen.example.com");
    let mut session = Session::start(policy).await;
    let door = session.door("chosen.example.com", port).await;
    session.manners.lock().unwrap().refuse_asked = true;
    assert!(exchange(door, b"x").await.is_err());
    session.event("not-recorded").await;
    assert!(dialled.try_recv().is_err());
    session.manners.lock().unwrap().refuse_asked = false;
    let _ = exchange(door, b"x").await;
    dialled.recv().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_takes_long_is_waited_for_as_a_dial_is() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    session.manners.lock().unwrap().slow = Duration::from_secs(6);
    assert_eq!(exchange(door, b"patient").await.unwrap(), b"patient");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_takes_the_right_away_closes_open_connections_before_it_counts_as_applied() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(b"a").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'a');
    // A swap that changes nothing for it leaves it alone.
    session.apply(tcp(port).allow("other.example.com")).await;
    stream.write_all(b"b").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'b');
    session.apply(PolicyBuilder::default()).await;
    assert!(stream.read_u8().await.is_err());
    assert_eq!(session.event("revoked").await.bytes_in, Some(2));
    assert!(exchange(door, b"x").await.is_err());
    // So does one that asks for another wire.
    session.apply(tcp(port)).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(b"a").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'a');
    let tls = PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tls)
        .host("db.example.com");
    session.apply(tls).await;
    assert!(stream.read_u8().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_a_private_address_is_refused() {
    let port = echo().await;
    let mut policy = PolicyBuilder::default().rule("db.example.com", port, Protocol::Tcp);
    // Answers from a resolver of ours, so that `hosts` does not open the address.
    let resolver = resolver_that_says(Ipv4Addr::LOCALHOST).await;
    policy.gateway.resolver = schema::gateway::Resolver::Address(resolver);
    let mut session = Session::start(policy.clone()).await;
    let door = session.door("db.example.com", port).await;
    assert!(exchange(door, b"x").await.is_err());
    let refused = session.event("address-refused").await;
    assert!(refused.detail.unwrap().contains("127.0.0.1"));
    // The positive control: the same with the network opened by the host.
    policy.gateway.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    session.apply(policy).await;
    assert_eq!(exchange(door, b"x").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_resets_resets_the_agent() {
    let port = upstream(|mut stream| async move {
        let _ = stream.read_u8().await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    stream.write_all(b"x").await.unwrap();
    assert!(read_all(&mut stream).await.is_err());
    session.event("reset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_at_rest_is_given_up() {
    let port = echo().await;
    let mut session = Session::start_with(tcp(port), |options| {
        options.patience.idle = Duration::from_millis(400);
    })
    .await;
    let door = session.door("db.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    assert!(read_all(&mut stream).await.is_err());
    session.event("idle-timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_wait_for_a_place() {
    let port = echo().await;
    let mut session = Session::start_with(tcp(port), |options| options.connections = 2).await;
    let door = session.door("db.example.com", port).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        open.push(stream);
    }
    let mut third = TcpStream::connect(door).await.unwrap();
    third.write_all(b"y").await.unwrap();
    let waits = tokio::time::timeout(Duration::from_millis(300), third.read_u8()).await;
    assert!(waits.is_err());
    open.pop();
    assert_eq!(third.read_u8().await.unwrap(), b'y');
}

/// A name server on loopback with one answer to every A query.
pub async fn resolver_that_says(address: Ipv4Addr) -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((n, peer)) = socket.recv_from(&mut buffer).await {
            let Ok(query) = gateway::dns::message::parse(&buffer[..n]) else {
                continue;
            };
            let answer = match query.kind {
                1 => query.address(address),
                _ => query.empty(gateway::dns::message::Code::NoError),
            };
            let _ = socket.send_to(&answer, peer).await;
        }
    });
    at
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_slows_the_upstream_down() {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let port = {
        let sent = std::sync::Arc::clone(&sent);
        upstream(move |mut stream| {
            let sent = std::sync::Arc::clone(&sent);
            async move {
                let block = [5; 65536];
                for _ in 0..4096 {
                    if stream.write_all(&block).await.is_err() {
                        return;
                    }
                    sent.fetch_add(block.len(), std::sync::atomic::Ordering::Relaxed);
                }
            }
        })
        .await
    };
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut stream = TcpStream::connect(door).await.unwrap();
    let mut first = [0; 1024];
    stream.read_exact(&mut first).await.unwrap();
    // What is under way sits in four socket buffers and a pipe, not in the gateway. The kernel's buffers grow for a while.
    let mut stuck = 0;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        if now == stuck {
            break;
        }
        stuck = now;
    }
    assert!((1..64 << 20).contains(&stuck), "{stuck}");
    drop(stream);
    session.event("reset").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_connections_at_once_are_all_carried() {
    let port = echo().await;
    let mut session = Session::start(tcp(port)).await;
    let door = session.door("db.example.com", port).await;
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..500u32 {
        tasks.spawn(async move {
            let message = i.to_be_bytes().repeat(1000);
            assert!(exchange(door, &message).await.unwrap() == message);
        });
    }
    while let Some(result) = tasks.join_next().await {
        result.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_made_up_under_a_wildcard_stop_being_resolved_at_their_bound() {
    let port = echo().await;
    let mut policy = PolicyBuilder::default().rule("*.example.com", port, Protocol::Tcp);
    policy.gateway.resolver =
        schema::gateway::Resolver::Address(resolver_that_says(Ipv4Addr::LOCALHOST).await);
    policy.gateway.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut session = Session::start(policy).await;
    let long = format!(
        "{}.{}.{}.example.com",
        "a".repeat(60),
        "b".repeat(60),
        "c".repeat(8)
    );
    let door = session.door(&long, port).await;
    assert!(exchange(door, b"x").await.is_err());
    session.event("wildcard-name-too-long").await;
    let door = session.door("short.example.com", port).await;
    assert_eq!(exchange(door, b"x").await.unwrap(), b"x");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_ends_its_own_connection_only_and_is_recorded() {
    let port = echo().await;
    let mut session = Session::start_with(tcp(port), |options| {
        let destination = std::sync::Arc::clone(&options.destination);
        options.destination = std::sync::Arc::new(move |local| {
            assert_ne!(
                *local.ip(),
                Ipv4Addr::new(127, 99, 0, 1),
                "as the test wants"
            );
            destination(local)
        });
    })
    .await;
    let door = session.door("db.example.com", port).await;
    let mut open = TcpStream::connect(door).await.unwrap();
    open.write_all(b"a").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'a');
    let panicking = SocketAddrV4::new(Ipv4Addr::new(127, 99, 0, 1), session.listener_port);
    assert!(exchange(panicking.into(), b"x").await.is_err());
    assert_eq!(session.event("internal-error").await.verdict, Verdict::Deny);
    open.write_all(b"b").await.unwrap();
    assert_eq!(open.read_u8().await.unwrap(), b'b');
    assert_eq!(exchange(door, b"y").await.unwrap(), b"y");
}

// D05: an answer with a good and a bad address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_address_beside_a_good_one_is_left_out_and_recorded() {
    let port = echo().await;
    let addresses = [
        std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        std::net::IpAddr::V4(Ipv4Addr::new(10, 255, 255, 1)),
    ];
    // `hosts` opens what it names, so the answer has to come from a resolver.
    let mut policy = PolicyBuilder::default().rule("db.example.com", port, Protocol::Tcp);
    policy.gateway.resolver =
        schema::gateway::Resolver::Address(resolver_that_says_both(addresses).await);
    policy.gateway.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut session = Session::start(policy).await;
    let door = session.door("db.example.com", port).await;
    assert_eq!(exchange(door, b"x").await.unwrap(), b"x");
    let refused = session.event("address-refused").await;
    assert!(refused.detail.unwrap().contains("10.255.255.1"));
}

async fn resolver_that_says_both(addresses: [std::net::IpAddr; 2]) -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let at = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1024];
        while let Ok((n, peer)) = socket.recv_from(&mut buffer).await {
            let mut reply = hickory_proto::op::Message::from_vec(&buffer[..n]).unwrap();
            reply.metadata.message_type = hickory_proto::op::MessageType::Response;
            let query = reply.queries[0].clone();
            if query.query_type() == hickory_proto::rr::RecordType::A {
                for address in addresses {
                    let record = hickory_proto::rr::Record::from_rdata(
                        query.name().clone(),
                        60,
                        hickory_proto::rr::RData::from(address),
                    );
                    reply.answers.push(record);
                }
            }
            let _ = socket.send_to(&reply.to_vec().unwrap(), peer).await;
        }
    });
    at
}
