//! The built binary, inside its own sandbox, in a network namespace where 198.18.0.0/15 is local: names, a dial through
//! the resolver, bulk (splice), the page, and an end as soon as the channel ends.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::*;

/// Runs the test below in a network namespace of its own, where unprivileged (or root's) namespaces exist.
#[test]
fn the_binary_serves_from_inside_its_sandbox() {
    let script = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo src 127.0.0.1 && exec \"$0\" --ignored --exact --nocapture sandboxed::inside";
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .output()
        .expect("unshare and sh are there");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{said}");
    assert!(said.contains("1 passed"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by the test above, in a network namespace"]
async fn inside() {
    let port = echo().await;
    let mut policy = PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .rule("named.example.com", port, Protocol::Tcp)
        .host("db.example.com");
    policy.gateway.resolver = schema::gateway::Resolver::Address(
        crate::relay::resolver_that_says(Ipv4Addr::LOCALHOST).await,
    );
    policy.gateway.private_networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut child = None;
    let (lane, theirs) = Lane::new();
    let mut session = Session::start_by(policy, |channel| {
        let mut gateway = gateway_on(&[channel.as_raw_fd(), theirs.as_raw_fd()]);
        child = Some(gateway.spawn().unwrap());
    })
    .await;
    session.lanes.push(lane);
    let mut child = child.unwrap();

    // Without steering, the listener itself stands on the synthetic address.
    for name in ["db.example.com", "named.example.com"] {
        let address = session.ask(name).await;
        session.wire(SocketAddrV4::new(address, port));
        let data = vec![42; 8 << 20];
        let (mut read, mut write) = TcpStream::connect((address, port))
            .await
            .unwrap()
            .into_split();
        let sent = data.clone();
        let writer = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        writer.await.unwrap();
        assert!(back == data, "{name}");
    }
    let denied = session.ask("denied.example.com").await;
    session.wire(SocketAddrV4::new(denied, 80));
    let request = b"GET /x HTTP/1.1\r\nHost: denied.example.com\r\nConnection: close\r\n\r\n";
    let page = exchange(SocketAddrV4::new(denied, 80).into(), request)
        .await
        .unwrap();
    let page = String::from_utf8(page).unwrap();
    assert!(page.starts_with("HTTP/1.1 403 "), "{page}");

    hold_a_thousand(&mut session, port, child.id()).await;
    outlive_ten_thousand(&session, port, child.id()).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    let threads = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let threads: Vec<_> = threads.collect();
    assert_eq!(threads.len(), 2);
    for thread in threads {
        let path = thread.unwrap().path().join("status");
        assert!(
            std::fs::read_to_string(path)
                .unwrap()
                .contains("Seccomp_filters:\t2")
        );
    }
    // The end of the channel is the end of the process.
    nix::sys::socket::shutdown(
        session.enforcer.as_raw_fd(),
        nix::sys::socket::Shutdown::Both,
    )
    .unwrap();
    drop(session);
    let status = tokio::task::spawn_blocking(move || {
        let status = child.wait().unwrap();
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        (status, said)
    });
    let (status, said) = status.await.unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("closed the control channel"), "{said}");
}

#[test]
fn root_or_a_capability_is_refused_where_none_may_be() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (_ours, theirs) = nix::sys::socket::socketpair(
        nix::sys::socket::AddressFamily::Unix,
        nix::sys::socket::SockType::SeqPacket,
        None,
        nix::sys::socket::SockFlag::SOCK_CLOEXEC,
    )
    .unwrap();
    let mut command = gateway_on(&[theirs.as_raw_fd()]);
    let output = command.arg("--require-unprivileged").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("capabilities"), "{said}");
}

#[test]
fn a_descriptor_that_is_not_there_is_refused() {
    for fd in ["0", "2", "999", "-1", "x"] {
        let output = Command::new(env!("CARGO_BIN_EXE_agentcontainer-gateway"))
            .args(["--channel", fd])
            .output()
            .unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{fd}");
        let output = Command::new(env!("CARGO_BIN_EXE_agentcontainer-gateway"))
            .args(["--channel", "999", "--lane", fd])
            .output()
            .unwrap();
        assert!(matches!(output.status.code(), Some(1 | 2)), "{fd}");
    }
}

/// The binary, with these descriptors as its channel and its lanes.
pub fn gateway_on(fds: &[i32]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentcontainer-gateway"));
    command.stderr(Stdio::piped());
    for at in 0..fds.len() {
        let word = if at == 0 { "--channel" } else { "--lane" };
        command.args([word, &(250 + at).to_string()]);
    }
    let fds = fds.to_vec();
    // SAFETY: dup2 is async-signal-safe and touches nothing of the parent's.
    unsafe {
        command.pre_exec(move || {
            for (fd, to) in fds.iter().zip(250..) {
                if libc::dup2(*fd, to) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    command
}

pub fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// Ten thousand connections that say nothing: more than it serves at once, so that some wait and the last ones get no answer. What
/// it holds stays small, and once they are gone the next one is served.
async fn outlive_ten_thousand(session: &Session, port: u16, pid: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // Both ends of the far side are this process's too.
    let many = usize::try_from(hard)
        .unwrap_or(usize::MAX)
        .saturating_sub(5_000)
        .min(10_000);
    let address = session.ask("db.example.com").await;
    let mut dialling = tokio::task::JoinSet::new();
    for _ in 0..many {
        let dial = TcpStream::connect((address, port));
        dialling.spawn(tokio::time::timeout(
            std::time::Duration::from_secs(3),
            dial,
        ));
    }
    let mut open = Vec::new();
    while let Some(dialled) = dialling.join_next().await {
        if let Ok(Ok(Ok(stream))) = dialled {
            open.push(stream);
        }
    }
    let held = resident(pid);
    println!(
        "resident: {held} KiB with {} of {many} connections open",
        open.len()
    );
    assert!(open.len() > 4096, "{} of {many}", open.len());
    assert!(held < 128 * 1024, "{held} KiB");
    drop(open);
    let again = async {
        let mut stream = TcpStream::connect((address, port)).await.unwrap();
        stream.write_all(b"still there").await.unwrap();
        stream.read_exact(&mut [0; 11]).await.unwrap();
    };
    let served = tokio::time::timeout(std::time::Duration::from_secs(30), again).await;
    assert!(served.is_ok(), "nobody is served any more");
    let mut before = 0;
    while before != session.events().len() {
        before = session.events().len();
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
}

/// Memory with a thousand connections that have carried something and rest now.
async fn hold_a_thousand(session: &mut Session, port: u16, pid: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(8192), hard).unwrap();
    let address = session.ask("db.example.com").await;
    session.wire(SocketAddrV4::new(address, port));
    let before = resident(pid);
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect((address, port)).await.unwrap();
        stream.write_all(&[1; 1024]).await.unwrap();
        stream.read_exact(&mut [0; 1024]).await.unwrap();
        open.push(stream);
    }
    let after = resident(pid);
    println!("resident: {before} KiB before, {after} KiB with 1000 connections at rest");
    assert!(after - before < 32 * 1024, "{before} KiB, then {after} KiB");
    // Every one of them is accounted for, as an event of its own or in the count of those that found no room.
    let ended = session
        .events()
        .iter()
        .filter(|e| e.bytes_in == Some(1024))
        .count();
    assert_eq!(ended, 0);
    drop(open);
    let mut accounted = 0;
    for _ in 0..1000 {
        let events = session.events();
        let ended = events.iter().filter(|e| e.bytes_in == Some(1024)).count() as u64;
        accounted = ended + events.iter().filter_map(|e| e.lost).sum::<u64>();
        if accounted == 1000 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{accounted} of 1000 ends are accounted for");
}
