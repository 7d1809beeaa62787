//! A wire that takes its time: every piece of either direction arrives a while after it was sent, in order, however many are under
//! way, as over a long line.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// Listens for as long as this program runs; its name, `127.0.0.1:PORT`. `half` in milliseconds.
pub fn start(to: &str, half: u64) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let name = listener.local_addr()?.to_string();
    let (to, half) = (to.to_owned(), Duration::from_millis(half));
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // The handshake of a connection takes a round trip as well.
            let to = to.clone();
            thread::spawn(move || {
                thread::sleep(2 * half);
                let _ = join(client, &to, half);
            });
        }
    });
    Ok(name)
}

fn join(client: TcpStream, to: &str, half: Duration) -> std::io::Result<()> {
    let server = TcpStream::connect(to)?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
    }
    let back = (server.try_clone()?, client.try_clone()?);
    let there = thread::spawn(move || carry(client, server, half));
    carry(back.0, back.1, half);
    let _ = there.join();
    Ok(())
}

fn carry(mut from: TcpStream, mut to: TcpStream, late: Duration) {
    let (send, receive) = channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (at, bytes) in receive {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if send
            .send((Instant::now() + late, buffer[..count].to_vec()))
            .is_err()
        {
            break;
        }
    }
    drop(send);
    let _ = writer.join();
}
