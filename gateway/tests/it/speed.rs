//! Measurements beside haproxy in TCP mode, one after the other in the same run; printed, not asserted. By hand:
//! `cargo test --release -p gateway --test it -- --ignored --nocapture speed`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use schema::net::Protocol;

use crate::harness::*;

const BULK: usize = 2 << 30;
const CLIENTS: usize = 8;
const SECONDS: u64 = 3;

/// Answers 'b' with bulk, anything else with itself.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
    let port = listener.local_addr().unwrap().port();
    for _ in 0..CLIENTS {
        let listener = listener.try_clone().unwrap();
        std::thread::spawn(move || {
            let block = vec![7; 256 * 1024];
            while let Ok((mut stream, _)) = listener.accept() {
                let mut word = [0];
                if stream.read_exact(&mut word).is_err() {
                    continue;
                }
                if word == *b"b" {
                    for _ in 0..BULK / block.len() {
                        if stream.write_all(&block).is_err() {
                            break;
                        }
                    }
                } else {
                    let _ = stream.write_all(&word);
                }
            }
        });
    }
    port
}

fn bulk(address: SocketAddr) -> f64 {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"b").unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => total += n,
        }
    }
    assert_eq!(total, BULK);
    total as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn connections(address: SocketAddr) -> f64 {
    let count = Arc::new(AtomicUsize::new(0));
    let end = Instant::now() + Duration::from_secs(SECONDS);
    let threads: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let count = Arc::clone(&count);
            std::thread::spawn(move || {
                while Instant::now() < end {
                    let mut stream = TcpStream::connect(address).unwrap();
                    stream.write_all(b"x").unwrap();
                    let mut answer = [0; 2];
                    assert_eq!(stream.read(&mut answer).unwrap(), 1);
                    // A reset instead of TIME_WAIT: ports would run out.
                    nix::sys::socket::setsockopt(
                        &stream,
                        nix::sys::socket::sockopt::Linger,
                        &libc::linger {
                            l_onoff: 1,
                            l_linger: 0,
                        },
                    )
                    .unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    count.load(Ordering::Relaxed) as f64 / SECONDS as f64
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
    }
}

fn haproxy(to: u16) -> (Killed, SocketAddr, tempfile::TempDir) {
    let port = {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap().port()
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("haproxy.cfg");
    let text = format!(
        "global\n nbthread 2\n maxconn 4096\ndefaults\n mode tcp\n option splice-auto\n option tcp-smart-connect\n timeout connect 5s\n timeout client 60s\n timeout server 60s\nlisten l\n bind 127.0.0.1:{port}\n server s 127.0.0.1:{to}\n"
    );
    std::fs::write(&file, text).unwrap();
    let child = Command::new("haproxy")
        .arg("-f")
        .arg(&file)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(20));
    }
    (Killed(child), address, directory)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn two_workers() {
    measure().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn one_worker() {
    measure().await;
}

async fn measure() {
    let port = server();
    let policy = PolicyBuilder::default()
        .rule("db.example.com", port, Protocol::Tcp)
        .host("db.example.com");
    let mut session = Session::start(policy).await;
    let door = session.door("db.example.com", port).await;
    let (_killed, peer, _directory) = haproxy(port);
    let direct = SocketAddr::from(([127, 0, 0, 1], port));
    tokio::task::spawn_blocking(move || {
        for round in 0..3 {
            for (name, address) in [("direct", direct), ("gateway", door), ("haproxy", peer)] {
                println!(
                    "round {round} {name:8} {:6.2} GB/s {:8.0} connections/s",
                    bulk(address),
                    connections(address)
                );
            }
        }
    })
    .await
    .unwrap();
}
