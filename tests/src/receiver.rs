//! Listeners on the far side that write down every byte they hear. What they did not hear did not get out.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::rig;

/// One connection or datagram.
#[derive(Debug, Clone)]
pub struct Heard {
    pub from: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A listener for TCP and UDP on one port of the bridge: it answers what it is sent with the same bytes.
#[derive(Debug)]
pub struct Receiver {
    pub address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    over: Arc<AtomicBool>,
}

/// More than this of one connection is answered, but not kept.
const KEPT: usize = 64 * 1024;

impl Receiver {
    /// On a port that is free.
    pub fn start() -> Self {
        Self::on(rig().bridge, 0)
    }

    /// On that address and port (0: one that is free).
    pub fn on(address: impl Into<IpAddr>, port: u16) -> Self {
        let address = address.into();
        let (tcp, udp) = (0..100)
            .find_map(|_| bind(address, port))
            .expect("no port that is free for TCP and UDP");
        let receiver = Self {
            address: tcp.local_addr().unwrap(),
            heard: Arc::default(),
            over: Arc::default(),
        };
        let (heard, over) = (receiver.heard.clone(), receiver.over.clone());
        std::thread::spawn(move || accept(&tcp, &heard, &over));
        let (heard, over) = (receiver.heard.clone(), receiver.over.clone());
        std::thread::spawn(move || datagrams(&udp, &heard, &over));
        receiver
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }

    /// Whether anything that holds these bytes came in. A negative answer is final only once the sender is done.
    pub fn heard_bytes(&self, bytes: &[u8]) -> bool {
        self.heard()
            .iter()
            .any(|one| one.bytes.windows(bytes.len()).any(|part| part == bytes))
    }

    /// Waits a little for these bytes.
    pub fn hears(&self, bytes: &[u8]) -> bool {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if self.heard_bytes(bytes) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    /// Fails the test if anything at all came in, after giving it a moment.
    #[track_caller]
    pub fn silent(&self) {
        std::thread::sleep(Duration::from_millis(100));
        let heard = self.heard();
        assert!(heard.is_empty(), "the receiver heard {heard:?}");
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn bind(address: IpAddr, port: u16) -> Option<(TcpListener, UdpSocket)> {
    let tcp = TcpListener::bind((address, port)).ok()?;
    let udp = UdpSocket::bind(tcp.local_addr().ok()?).ok()?;
    tcp.set_nonblocking(true).ok()?;
    udp.set_read_timeout(Some(Duration::from_millis(50))).ok()?;
    Some((tcp, udp))
}

fn accept(listener: &TcpListener, heard: &Arc<Mutex<Vec<Heard>>>, over: &Arc<AtomicBool>) {
    while !over.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, from)) => {
                // The connection itself is something heard, before its first byte.
                let index = note(heard, from, &[]);
                let heard = heard.clone();
                std::thread::spawn(move || echo(stream, index, &heard));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                std::thread::sleep(Duration::from_millis(2))
            }
            Err(_) => return,
        }
    }
}

fn echo(mut stream: TcpStream, index: usize, heard: &Mutex<Vec<Heard>>) {
    let _ = stream.set_nonblocking(false);
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if let Some(one) = heard.lock().unwrap().get_mut(index) {
            let room = KEPT.saturating_sub(one.bytes.len());
            one.bytes.extend_from_slice(&buffer[..count.min(room)]);
        }
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn datagrams(socket: &UdpSocket, heard: &Mutex<Vec<Heard>>, over: &AtomicBool) {
    let mut buffer = [0; 64 * 1024];
    while !over.load(Ordering::Relaxed) {
        if let Ok((count, from)) = socket.recv_from(&mut buffer) {
            note(heard, from, &buffer[..count]);
            let _ = socket.send_to(&buffer[..count], from);
        }
    }
}

fn note(heard: &Mutex<Vec<Heard>>, from: SocketAddr, bytes: &[u8]) -> usize {
    let mut heard = heard.lock().unwrap();
    heard.push(Heard {
        from,
        bytes: bytes.to_vec(),
    });
    heard.len() - 1
}
