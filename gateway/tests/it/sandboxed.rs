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
    let mut session = Session::start_by(policy, |channel| {
        child = Some(gateway_on(channel.as_raw_fd()).spawn().unwrap());
    })
    .await;
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

    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{status}");
    }
    for thread in std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap() {
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
    let mut command = gateway_on(theirs.as_raw_fd());
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
    }
}

/// The binary, with this descriptor as its channel.
fn gateway_on(fd: i32) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentcontainer-gateway"));
    command.args(["--channel", "250"]).stderr(Stdio::piped());
    // SAFETY: dup2 is async-signal-safe and touches nothing of the parent's.
    unsafe {
        command.pre_exec(move || {
            if libc::dup2(fd, 250) < 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}
