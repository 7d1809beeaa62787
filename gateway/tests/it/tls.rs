//! `tls` rules and the alert for what is not listed (D09 to D11), with openssl as client and server.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use audit::Verdict;
use schema::net::Protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::*;

fn rule(port: u16) -> PolicyBuilder {
    PolicyBuilder::default()
        .rule("secure.example.com", port, Protocol::Tls)
        .host("secure.example.com")
}

/// A ClientHello as openssl sends it, caught on loopback.
pub async fn hello(name: Option<&str>) -> Vec<u8> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-connect",
        &listener.local_addr().unwrap().to_string(),
    ]);
    match name {
        Some(name) => command.args(["-servername", name]),
        None => command.arg("-noservername"),
    };
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut bytes = Vec::new();
    let mut assembler = gateway::tls::client_hello::Assembler::new();
    loop {
        let before = bytes.len();
        stream.read_buf(&mut bytes).await.unwrap();
        match assembler.push(&bytes[before..]) {
            Ok(None) => {}
            _ => break,
        }
    }
    child.kill().await.unwrap();
    bytes
}

/// Sends and returns the alert that comes back, if one does.
async fn alert(door: SocketAddr, bytes: &[u8]) -> Option<u8> {
    // A reset may even overtake the end of connect.
    let Ok(mut stream) = TcpStream::connect(door).await else {
        return None;
    };
    // A reset may come before all is written; what counts is what comes back.
    let _ = stream.write_all(bytes).await;
    match read_all(&mut stream).await {
        Ok(answer) if answer.is_empty() => None,
        Ok(answer) => {
            assert_eq!(answer[..6], [21, 3, 3, 0, 2, 2], "{answer:?}");
            Some(answer[6])
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn openssl_speaks_through_to_openssl() {
    let directory = tempfile::tempdir().unwrap();
    let (key, certificate) = (
        directory.path().join("key"),
        directory.path().join("certificate"),
    );
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
        ])
        .args(["-subj", "/CN=secure.example.com", "-days", "2", "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .await
        .unwrap();
    assert!(made.status.success());
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let mut server = Command::new("openssl")
        .args([
            "s_server",
            "-quiet",
            "-rev",
            "-accept",
            &format!("127.0.0.1:{port}"),
            "-key",
        ])
        .arg(&key)
        .arg("-cert")
        .arg(&certificate)
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut session = Session::start(rule(port)).await;
    let door = session.door("secure.example.com", port).await;
    for version in ["-tls1_2", "-tls1_3"] {
        let mut client = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                version,
                "-servername",
                "SECURE.example.com",
                "-connect",
            ])
            .arg(door.to_string())
            .args([
                "-verify_return_error",
                "-verify_hostname",
                "secure.example.com",
                "-CAfile",
            ])
            .arg(&certificate)
            .kill_on_drop(true)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        client
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"hello\n")
            .await
            .unwrap();
        let mut line = [0; 6];
        let stdout = client.stdout.as_mut().unwrap();
        let read = tokio::time::timeout(Duration::from_secs(10), stdout.read_exact(&mut line));
        read.await.unwrap().unwrap();
        assert_eq!(&line, b"olleh\n", "{version}");
        client.kill().await.unwrap();
    }
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hello_cut_in_any_way_arrives_whole_and_unchanged() {
    let bytes = hello(Some("secure.example.com")).await;
    let port = echo().await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("secure.example.com", port).await;
    assert!(exchange(door, &bytes).await.unwrap() == bytes);
    for size in [1, 7, 100] {
        let mut stream = TcpStream::connect(door).await.unwrap();
        stream.set_nodelay(true).unwrap();
        for piece in bytes.chunks(size) {
            stream.write_all(piece).await.unwrap();
        }
        stream.shutdown().await.unwrap();
        assert!(
            read_all(&mut stream).await.unwrap() == bytes,
            "pieces of {size}"
        );
    }
    // One handshake message over many records.
    let mut records = Vec::new();
    for piece in bytes[5..].chunks(11) {
        records.extend([22, 3, 1, 0, piece.len() as u8]);
        records.extend(piece);
    }
    assert!(exchange(door, &records).await.unwrap() == records);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wire_that_does_not_say_the_name_is_refused_with_an_alert() {
    let other = hello(Some("evil.example")).await;
    let none = hello(None).await;
    let mut encrypted = hello(Some("secure.example.com")).await;
    // Turn an extension of openssl's into one for an encrypted hello: session_ticket (35).
    let ticket = [0, 35, 0, 0];
    let at = encrypted.windows(4).position(|w| w == ticket).unwrap();
    encrypted[at] = 0xfe;
    encrypted[at + 1] = 0x0d;
    let port = echo().await;
    let mut session = Session::start(rule(port)).await;
    let door = session.door("secure.example.com", port).await;
    for (bytes, expected, reason) in [
        (&other[..], Some(112), "sni-mismatch"),
        (&none[..], Some(112), "tls-no-sni"),
        (&encrypted[..], Some(40), "tls-encrypted-hello"),
        (b"GET / HTTP/1.1\r\n\r\n", None, "tls-not-tls"),
        (b"SSH-2.0-x\r\n", None, "tls-not-tls"),
        (&[0x80, 46, 1, 3, 1], None, "tls-ssl2"),
        (&[22, 3, 1, 0, 0], Some(50), "tls-malformed"),
        (
            &[22, 3, 1, 0, 4, 1, 1, 0, 0],
            Some(50),
            "tls-hello-too-long",
        ),
    ] {
        assert_eq!(alert(door, bytes).await, expected, "{reason}");
        let event = session.event(reason).await;
        assert_eq!(event.verdict, Verdict::Deny);
        assert_eq!(event.host.as_deref(), Some("secure.example.com"));
    }
    assert!(!session.events().iter().any(|e| e.reason == "closed"));
    // The positive control.
    let good = hello(Some("secure.example.com")).await;
    assert!(exchange(door, &good).await.unwrap() == good);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unlisted_name_gets_an_alert_where_it_shows_another_and_a_reset_at_other_ports() {
    let bytes = hello(Some("worse.example")).await;
    let mut session = Session::start(PolicyBuilder::default().allow("good.example")).await;
    let door = session.door("evil.example", 443).await;
    assert_eq!(alert(door, &bytes).await, Some(49));
    let denied = session.event_where("at 443", |e| e.port == Some(443)).await;
    assert_eq!(
        (denied.reason.as_str(), denied.verdict),
        ("not-listed", Verdict::Deny)
    );
    let door = session.door("evil.example", 8443).await;
    assert_eq!(alert(door, &bytes).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_is_not_there_is_told_as_an_alert() {
    let bytes = hello(Some("secure.example.com")).await;
    // Bound and not listening: nobody else gets the port meanwhile.
    let gone = tokio::net::TcpSocket::new_v4().unwrap();
    gone.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = gone.local_addr().unwrap().port();
    let mut session = Session::start(rule(port)).await;
    let door = session.door("secure.example.com", port).await;
    assert_eq!(alert(door, &bytes).await, Some(80));
    session.event("connect-failed").await;
}
