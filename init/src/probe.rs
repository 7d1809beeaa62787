//! `--probe HOST:PORT`: one attempt to connect, for `doctor`. HOST is an address, or a name that is asked of the session's
//! own name server, since a static program cannot use the C library's resolver; a name is also asked for its page, because a
//! listener's queue answers a connection that nobody takes.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 18, 0, 2), 53);
const LIMIT: Duration = Duration::from_secs(3);

/// The longest line that is read of an answer, in bytes.
const MAX_LINE: usize = 256;

/// Prints `connected`, `answered` with the first line of the page, or the error's number and words; exits 0 or 1.
pub fn run(target: &str) -> ExitCode {
    match attempt(target) {
        Ok(None) => {
            println!("connected");
            ExitCode::SUCCESS
        }
        Ok(Some(line)) => {
            println!("answered {}", line.escape_debug());
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("refused {} {error}", error.raw_os_error().unwrap_or(0));
            ExitCode::FAILURE
        }
    }
}

fn attempt(target: &str) -> io::Result<Option<String>> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not HOST:PORT");
    let (host, port) = target.rsplit_once(':').ok_or_else(invalid)?;
    let port: u16 = port.parse().map_err(|_| invalid())?;
    if let Ok(address) = host.parse::<IpAddr>() {
        return connect(address, port).map(|_| None);
    }
    let stream = connect(IpAddr::V4(resolve(host)?), port)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    ask(stream, host).map(Some)
}

fn connect(address: IpAddr, port: u16) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::new(address, port), LIMIT)
}

/// Asks for the page (RFC 9112), and gives the first line of the answer.
fn ask(mut stream: impl Read + Write, host: &str) -> io::Result<String> {
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_LINE {
        if stream.read(&mut byte)? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the connection was closed without an answer",
            ));
        }
        if byte == *b"\n" {
            return Ok(String::from_utf8_lossy(line.trim_ascii()).into_owned());
        }
        line.push(byte[0]);
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidData,
        "the answer's first line is too long",
    ))
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// What is written goes nowhere; what is read is given.
    struct Peer<'a>(&'a [u8]);

    impl Read for Peer<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }

    impl Write for Peer<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_page_counts_when_its_first_line_came() {
        let said = ask(Peer(b"HTTP/1.1 200 OK\r\nx"), "a.test").unwrap();
        assert_eq!(said, "HTTP/1.1 200 OK");
        assert!(ask(Peer(b""), "a.test").is_err());
        assert!(ask(Peer(b"HTTP/1.1 200"), "a.test").is_err());
    }

    #[test]
    fn the_first_line_is_bounded() {
        let line = |n: usize| ask(Peer(format!("{}\n", "x".repeat(n)).as_bytes()), "a.test");
        assert!(line(MAX_LINE - 1).is_ok());
        assert!(line(MAX_LINE).is_err());
    }
}
