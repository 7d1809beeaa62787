//! The load of `cargo xtask bench`: `serve` is the far side, `drive` the near one, which takes one order a line on its
//! standard input and answers each with one line of `key=value`. It stands alone and is static, so that the same program
//! loads the gate, its peers and nothing at all, in whichever namespace it is started. Loops are bounded by their orders.

use std::io::{self, BufRead as _, Read as _, Write as _};
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of one read or write of bulk data.
const BLOCK: usize = 256 * 1024;
/// Threads that answer short connections.
const ANSWERERS: usize = 16;
/// Longest wait for anything that is to happen at once.
const PATIENCE: Duration = Duration::from_secs(20);

// What a connection asks of `serve`, in its first byte after a ClientHello, if it sends one.
const DOWNLOAD: u8 = b'D';
const UPLOAD: u8 = b'U';
const ANSWER: u8 = b'A';
const HOLD: u8 = b'H';

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        // Ports of bulk and held connections, then of short ones.
        ["serve", address, many, short] => {
            for port in many.split(',') {
                let listener = TcpListener::bind(format!("{address}:{port}"))?;
                std::thread::spawn(move || serve_threads(&listener));
            }
            for port in short.split(',') {
                let listener = Arc::new(TcpListener::bind(format!("{address}:{port}"))?);
                for _ in 0..ANSWERERS {
                    let listener = Arc::clone(&listener);
                    std::thread::spawn(move || serve_short(&listener));
                }
            }
            say("ready")?;
            // Ends with whoever holds the other end of standard input.
            io::copy(&mut io::stdin(), &mut io::sink()).map(|_| ())
        }
        ["drive"] => drive(),
        _ => Err(other(
            "usage: bench-load serve ADDRESS PORT,… PORT,… | drive",
        )),
    }
}

fn other(text: impl Into<String>) -> io::Error {
    io::Error::other(text.into())
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{line}")?;
    out.flush()
}

// === serve ===

fn serve_threads(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let started = std::thread::Builder::new()
            .stack_size(64 * 1024 + BLOCK)
            .spawn(move || answer(stream));
        drop(started);
    }
}

fn serve_short(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        let _ = answer(stream);
    }
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = [0; 5];
    stream.read_exact(&mut head[..1])?;
    if head[0] == 0x16 {
        stream.read_exact(&mut head[1..])?;
        let mut record = vec![0; u16::from_be_bytes([head[3], head[4]]).into()];
        stream.read_exact(&mut record)?;
        stream.read_exact(&mut head[..1])?;
    }
    match head[0] {
        DOWNLOAD => {
            let block = vec![0x5a; BLOCK];
            loop {
                stream.write_all(&block)?;
            }
        }
        UPLOAD => discard(&stream, u64::MAX, None).map(|_| ()),
        ANSWER => stream.write_all(b"!"),
        HOLD => {
            stream.write_all(b"!")?;
            discard(&stream, u64::MAX, None).map(|_| ())
        }
        _ => Err(other("an unknown request")),
    }
}

// === drive ===

fn drive() -> io::Result<()> {
    let mut held = Vec::new();
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = order(&words, &mut held).unwrap_or_else(|error| format!("error={error}"));
        say(&answer)?;
    }
    Ok(())
}

fn order(words: &[&str], held: &mut Vec<TcpStream>) -> io::Result<String> {
    match *words {
        ["own-tcp", count] => own_tcp(number(count)?),
        ["far-tcp", target, count] => far_tcp(&target.parse()?, number(count)?),
        ["udp-connect", count] => udp_connect(number(count)?),
        ["udp-send", count] => udp_send(number(count)?),
        ["refused", address, count] => refused(address, number(count)?),
        ["download", target, flows, ms] => {
            bulk(DOWNLOAD, target.parse()?, number(flows)?, number(ms)?)
        }
        ["upload", target, flows, ms] => bulk(UPLOAD, target.parse()?, number(flows)?, number(ms)?),
        ["rate", target, threads, ms] => rate(&target.parse()?, number(threads)?, number(ms)?),
        ["hold", target, count] => {
            let target: Target = target.parse()?;
            for _ in 0..number(count)? {
                let mut stream = target.connect()?;
                target.ask(&mut stream, HOLD)?;
                stream.read_exact(&mut [0])?;
                held.push(stream);
            }
            Ok(format!("held={}", held.len()))
        }
        ["drop"] => {
            held.clear();
            Ok("held=0".to_owned())
        }
        ["resolve", name] => Ok(format!("address={}", resolve(name)?)),
        // NAME0 to NAMEn-1 under one domain.
        ["resolve-all", domain, count] => {
            for i in 0..number(count)? {
                resolve(&format!("n{i}.{domain}"))?;
            }
            Ok("ok=1".to_owned())
        }
        _ => Err(other("an unknown order")),
    }
}

fn number(word: &str) -> io::Result<u64> {
    word.parse().map_err(|_| other("not a number"))
}

/// `ADDRESS:PORT`, or `ADDRESS:PORT/NAME` for a connection that begins with a ClientHello for NAME.
#[derive(Clone)]
struct Target {
    address: SocketAddrV4,
    hello: Vec<u8>,
}

impl std::str::FromStr for Target {
    type Err = io::Error;

    fn from_str(text: &str) -> io::Result<Self> {
        let (address, name) = text.split_once('/').unwrap_or((text, ""));
        Ok(Self {
            address: address.parse().map_err(|_| other("not an address"))?,
            hello: if name.is_empty() {
                Vec::new()
            } else {
                client_hello(name)
            },
        })
    }
}

impl Target {
    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address.into(), PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn ask(&self, stream: &mut TcpStream, what: u8) -> io::Result<()> {
        let mut request = self.hello.clone();
        request.push(what);
        stream.write_all(&request)
    }
}

/// A ClientHello of 512 bytes, as browsers pad theirs, for `name` (RFC 8446, 4.1.2; RFC 6066, 3; RFC 7685).
fn client_hello(name: &str) -> Vec<u8> {
    let pair = |n: usize| (n as u16).to_be_bytes();
    let mut body = vec![3, 3];
    body.extend([0x42; 32]);
    body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
    let mut extensions = vec![0, 0];
    extensions.extend(pair(name.len() + 5));
    extensions.extend(pair(name.len() + 3));
    extensions.push(0);
    extensions.extend(pair(name.len()));
    extensions.extend(name.as_bytes());
    extensions.extend([0, 43, 0, 3, 2, 3, 4]);
    let padding = 508_usize.saturating_sub(body.len() + 2 + extensions.len() + 4);
    extensions.extend([0, 21]);
    extensions.extend(pair(padding));
    extensions.resize(extensions.len() + padding, 0);
    body.extend(pair(extensions.len()));
    body.extend(extensions);
    let mut record = vec![0x16, 3, 1];
    record.extend(pair(body.len() + 4));
    record.extend([1, 0]);
    record.extend(pair(body.len()));
    record.extend(body);
    record
}

// === one call at a time ===

/// Nanoseconds of single calls.
#[derive(Default)]
struct Times(Vec<u64>);

impl Times {
    fn push(&mut self, since: Instant) {
        self.0.push(since.elapsed().as_nanos() as u64);
    }

    fn summary(&mut self, name: &str) -> String {
        self.0.sort_unstable();
        let at = |permille: usize| {
            let index = self.0.len() * permille / 1000;
            self.0
                .get(index.min(self.0.len().saturating_sub(1)))
                .copied()
                .unwrap_or(0)
        };
        format!("{name}_p50={} {name}_p99={}", at(500), at(990))
    }
}

fn socket(kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: socket(2) takes three numbers and returns a new descriptor or -1.
    let fd = unsafe { libc::socket(libc::AF_INET, kind | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave us this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn sockaddr(address: SocketAddrV4) -> libc::sockaddr_in {
    // SAFETY: all zero is a valid sockaddr_in.
    let mut raw: libc::sockaddr_in = unsafe { zeroed() };
    raw.sin_family = libc::AF_INET as libc::sa_family_t;
    raw.sin_port = address.port().to_be();
    raw.sin_addr.s_addr = u32::from(*address.ip()).to_be();
    raw
}

fn connect(fd: &OwnedFd, to: &libc::sockaddr_in) -> io::Result<()> {
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the address is a whole sockaddr_in, and the length says so.
    let status = unsafe { libc::connect(fd.as_raw_fd(), (&raw const *to).cast(), length) };
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The close will be a reset, which leaves no TIME_WAIT behind.
fn no_linger(fd: i32) {
    let linger = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    // SAFETY: the option's value is a whole linger, and the length says so.
    unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}

/// Connects to a listener of its own on loopback, so that nobody else has to run between two calls.
fn own_tcp(count: u64) -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let to = sockaddr(SocketAddrV4::new(
        Ipv4Addr::LOCALHOST,
        listener.local_addr()?.port(),
    ));
    let (mut create, mut dial) = (Times::default(), Times::default());
    for _ in 0..count {
        let since = Instant::now();
        let fd = socket(libc::SOCK_STREAM)?;
        create.push(since);
        let since = Instant::now();
        connect(&fd, &to)?;
        dial.push(since);
        let (accepted, _) = listener.accept()?;
        no_linger(accepted.as_raw_fd());
    }
    Ok(format!(
        "{} {}",
        create.summary("socket"),
        dial.summary("connect")
    ))
}

/// Connects to another process, then asks, and waits for its answer and its close.
fn far_tcp(target: &Target, count: u64) -> io::Result<String> {
    let to = sockaddr(target.address);
    let (mut dial, mut whole) = (Times::default(), Times::default());
    for _ in 0..count {
        let fd = socket(libc::SOCK_STREAM)?;
        let since = Instant::now();
        connect(&fd, &to)?;
        dial.push(since);
        let mut stream = TcpStream::from(fd);
        stream.set_read_timeout(Some(PATIENCE))?;
        target.ask(&mut stream, ANSWER)?;
        expect_answer(&mut stream)?;
        whole.push(since);
    }
    Ok(format!(
        "{} {}",
        dial.summary("connect"),
        whole.summary("whole")
    ))
}

fn expect_answer(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = [0; 16];
    if stream.read(&mut buffer)? != 1 || buffer[0] != b'!' || stream.read(&mut buffer)? != 0 {
        return Err(other("another answer than was expected"));
    }
    Ok(())
}

/// connect(2) on one datagram socket, over and over: no packet, so nothing but the call and its hooks.
fn udp_connect(count: u64) -> io::Result<String> {
    let (mut create, mut dial) = (Times::default(), Times::default());
    let to = sockaddr(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9));
    for _ in 0..count {
        let since = Instant::now();
        let fd = socket(libc::SOCK_DGRAM)?;
        create.push(since);
        let since = Instant::now();
        connect(&fd, &to)?;
        dial.push(since);
    }
    Ok(format!(
        "{} {}",
        create.summary("socket"),
        dial.summary("connect")
    ))
}

/// sendto(2) to a socket of its own, emptied after each datagram.
fn udp_send(count: u64) -> io::Result<String> {
    let receiver = UdpSocket::bind("127.0.0.1:0")?;
    let to = receiver.local_addr()?;
    let sender = UdpSocket::bind("127.0.0.1:0")?;
    let mut send = Times::default();
    for _ in 0..count {
        let since = Instant::now();
        sender.send_to(b"0123456789abcdef", to)?;
        send.push(since);
        receiver.recv_from(&mut [0; 64])?;
    }
    Ok(send.summary("send"))
}

/// connect(2) to what is denied: EPERM, with its event.
fn refused(address: &str, count: u64) -> io::Result<String> {
    let to = sockaddr(address.parse().map_err(|_| other("not an address"))?);
    let mut dial = Times::default();
    for _ in 0..count {
        let fd = socket(libc::SOCK_STREAM)?;
        let since = Instant::now();
        let answer = connect(&fd, &to);
        dial.push(since);
        match answer {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            answer => return Err(other(format!("not refused: {answer:?}"))),
        }
    }
    Ok(dial.summary("refused"))
}

// === many ===

/// Moves bytes over `flows` connections for a while; each flow counts from its first byte on.
fn bulk(what: u8, target: Target, flows: u64, ms: u64) -> io::Result<String> {
    let mut threads = Vec::new();
    for _ in 0..flows {
        let target = target.clone();
        threads.push(std::thread::spawn(move || -> io::Result<(u64, u64)> {
            let mut stream = target.connect()?;
            target.ask(&mut stream, what)?;
            let since = Instant::now();
            let until = since + Duration::from_millis(ms);
            let moved = if what == DOWNLOAD {
                discard(&stream, u64::MAX, Some(until))?
            } else {
                let block = vec![0x5a; BLOCK];
                let mut moved = 0;
                while Instant::now() < until {
                    moved += stream.write(&block)? as u64;
                }
                moved
            };
            let took = since.elapsed().as_nanos() as u64;
            no_linger(stream.as_raw_fd());
            Ok((moved, took))
        }));
    }
    let (mut bytes, mut longest) = (0, 1);
    for thread in threads {
        let (moved, took) = thread.join().map_err(|_| other("a thread panicked"))??;
        bytes += moved;
        longest = longest.max(took);
    }
    Ok(format!("bytes={bytes} ns={longest}"))
}

/// Takes bytes off a socket without copying them (MSG_TRUNC, tcp(7)): the load is not what is measured.
fn discard(stream: &TcpStream, limit: u64, until: Option<Instant>) -> io::Result<u64> {
    let mut total = 0;
    while total < limit && until.is_none_or(|until| Instant::now() < until) {
        // SAFETY: with MSG_TRUNC the kernel writes nothing to the buffer of a TCP socket, whatever the length.
        let n = unsafe {
            libc::recv(
                stream.as_raw_fd(),
                std::ptr::null_mut(),
                4 * BLOCK,
                libc::MSG_TRUNC,
            )
        };
        match n {
            0 if until.is_some() => return Err(other("the far side closed")),
            0 => break,
            n if n < 0 => return Err(io::Error::last_os_error()),
            n => total += n as u64,
        }
    }
    Ok(total)
}

/// New connections one after the other on each of `threads`, each with a question and an answer.
fn rate(target: &Target, threads: u64, ms: u64) -> io::Result<String> {
    let total = Arc::new(AtomicU64::new(0));
    let since = Instant::now();
    let until = since + Duration::from_millis(ms);
    let mut running = Vec::new();
    for _ in 0..threads {
        let (target, total) = (target.clone(), Arc::clone(&total));
        running.push(std::thread::spawn(move || -> io::Result<Times> {
            let mut times = Times::default();
            while Instant::now() < until {
                let since = Instant::now();
                let mut stream = target.connect()?;
                target.ask(&mut stream, ANSWER)?;
                expect_answer(&mut stream)?;
                times.push(since);
                total.fetch_add(1, Ordering::Relaxed);
            }
            Ok(times)
        }));
    }
    let mut all = Times::default();
    for thread in running {
        let times = thread.join().map_err(|_| other("a thread panicked"))??;
        all.0.extend(times.0);
    }
    let took = since.elapsed().as_nanos();
    Ok(format!(
        "connections={} ns={took} {}",
        total.load(Ordering::Relaxed),
        all.summary("whole")
    ))
}

// === names ===

/// Asks the session's DNS for an A record (RFC 1035): the last four bytes of the answer are the address.
fn resolve(name: &str) -> io::Result<Ipv4Addr> {
    let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send_to(&query, "198.18.0.2:53")?;
    let mut answer = [0; 1232];
    let length = socket.recv(&mut answer)?;
    match answer.get(..length) {
        Some([_, _, _, code, _, _, 0, 1, .., a, b, c, d]) if code & 15 == 0 => {
            Ok(Ipv4Addr::new(*a, *b, *c, *d))
        }
        _ => Err(other(format!("no address for {name}"))),
    }
}
