//! `--probe HOST:PORT`: one attempt to connect, for `doctor`. HOST is an address, or a name that is asked of the session's
//! own name server, since a static program cannot use the C library's resolver.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 2), 53);
const LIMIT: Duration = Duration::from_secs(3);

/// Prints `connected`, or the error's number and words; exits 0 or 1.
pub fn run(target: &str) -> ExitCode {
    match attempt(target) {
        Ok(()) => {
            println!("connected");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("refused {} {error}", error.raw_os_error().unwrap_or(0));
            ExitCode::FAILURE
        }
    }
}

fn attempt(target: &str) -> io::Result<()> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT");
    let (host, port) = target.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    let address = match host.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => IpAddr::V4(resolve(host)?),
    };
    TcpStream::connect_timeout(&SocketAddr::new(address, port), LIMIT).map(drop)
}

/// One A query (RFC 1035, 4.1), and the first address of its answer.
fn resolve(name: &str) -> io::Result<Ipv4Addr> {
    let mut query = vec![0x41, 0x43, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(LIMIT))?;
    socket.connect(SERVER)?;
    socket.send(&query)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    // The question comes back as sent; the answer's name is a pointer of two bytes, then type, class, TTL and length.
    let record = answer.get(query.len()..length).ok_or_else(none)?;
    match record {
        [_, _, 0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d, ..] => Ok(Ipv4Addr::new(*a, *b, *c, *d)),
        _ => Err(none()),
    }
}
