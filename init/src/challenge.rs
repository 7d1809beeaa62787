//! The wait for the enforcer. Our socket is in the network namespace's abstract names (unix(7)), which nobody outside can
//! reach without entering the namespace; whoever connects must be outside our pid namespace, by the kernel's credentials,
//! and must answer a nonce. Then the hooks are tried from inside: what must be refused is refused, or nothing starts.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

const SOCKET: &[u8] = b"agentcontainer-init";
const GREETING: &[u8; 4] = b"AC1:";
/// The same where the enforcer has mounted something: our directory may be another one by now.
const GREETING_MOUNTED: &[u8; 4] = b"AC2:";
/// What comes in its place when nothing is to start, with the reason behind it.
const REFUSAL: &[u8; 4] = b"NO1:";
/// Longest reason that is read, in bytes.
const REASON: u64 = 2048;
/// How often the enforcer is reminded that we wait.
const REMIND: Duration = Duration::from_millis(20);
/// TEST-NET-2 (RFC 5737) and the discard port: never allowed, never routed.
const CANARY: (Ipv4Addr, u16) = (Ipv4Addr::new(198, 51, 100, 1), 9);
/// The address DNS answers from: never ours to bind.
const RESERVED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

#[derive(Debug, thiserror::Error)]
pub enum ChallengeError {
    #[error("no enforcer answered within {} ms: nothing was started (is the session still open? `agentcontainer ps`)", .0.as_millis())]
    Silence(Duration),
    #[error("a process inside the container answered in the enforcer's place")]
    Inside,
    #[error("the enforcer's answer does not match the challenge")]
    Answer,
    #[error("the enforcer refused to start it: {0}")]
    Refused(String),
    #[error("cannot go to its directory under the rules about files, {0}: {1}")]
    Directory(String, #[source] io::Error),
    #[error("{0} was not refused: the container is not enforced, nothing was started")]
    Canary(&'static str),
    #[error("cannot {call}: {source}")]
    Io {
        call: &'static str,
        #[source]
        source: io::Error,
    },
}

fn io_error(call: &'static str) -> impl FnOnce(io::Error) -> ChallengeError {
    move |source| ChallengeError::Io { call, source }
}

/// Returns once the enforcer has answered and the canaries were refused.
pub fn wait(limit: Duration) -> Result<(), ChallengeError> {
    let deadline = Instant::now() + limit;
    let address = UnixAddr::from_abstract_name(SOCKET).map_err(io_error("name our socket"))?;
    let listener = UnixListener::bind_addr(&address).map_err(io_error("bind our socket"))?;
    loop {
        // The enforcer hears of a network namespace by its first internet socket.
        drop(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
        let remind = PollTimeout::try_from(REMIND).unwrap_or(PollTimeout::ZERO);
        if poll(&mut fds, remind).unwrap_or(0) > 0 {
            let (stream, _) = listener.accept().map_err(io_error("accept the enforcer"))?;
            return answer(stream);
        }
        if Instant::now() >= deadline {
            return Err(ChallengeError::Silence(limit));
        }
    }
}

fn answer(mut stream: UnixStream) -> Result<(), ChallengeError> {
    let limit = Some(Duration::from_secs(5));
    stream
        .set_read_timeout(limit)
        .map_err(io_error("set a deadline"))?;
    stream
        .set_write_timeout(limit)
        .map_err(io_error("set a deadline"))?;
    let peer = getsockopt(&stream, sockopt::PeerCredentials)
        .map_err(|e| io_error("read the peer's credentials")(e.into()))?;
    // The kernel shows a pid that has no number in our pid namespace as 0 (unix(7), user_namespaces(7)).
    if peer.pid() != 0 {
        return Err(ChallengeError::Inside);
    }
    let mut nonce = [0u8; 16];
    fill_random(&mut nonce).map_err(io_error("get random bytes"))?;
    stream
        .write_all(&nonce)
        .map_err(io_error("send the challenge"))?;
    let failed = || io_error("read the enforcer's answer");
    let mut greeting = [0u8; GREETING.len()];
    stream.read_exact(&mut greeting).map_err(failed())?;
    if greeting == *REFUSAL {
        let mut reason = Vec::new();
        let _ = stream.take(REASON).read_to_end(&mut reason);
        // What would turn a terminal's line around, or is no character, comes from a stranger's name.
        let plain = |c: char| {
            if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
                c
            } else {
                '?'
            }
        };
        let reason = String::from_utf8_lossy(&reason)
            .chars()
            .map(plain)
            .collect();
        return Err(ChallengeError::Refused(reason));
    }
    let mut reply = [0u8; 16];
    stream.read_exact(&mut reply).map_err(failed())?;
    let mounted = greeting == *GREETING_MOUNTED;
    if !(mounted || greeting == *GREETING) || reply != nonce {
        return Err(ChallengeError::Answer);
    }
    let entered = if mounted { enter_again() } else { Ok(()) };
    let tested = entered.and_then(|()| canaries());
    let word = match &tested {
        Ok(()) => "released".to_owned(),
        Err(error) => error.to_string(),
    };
    stream
        .write_all(word.as_bytes())
        .map_err(io_error("report to the enforcer"))?;
    tested
}

/// The enforcer may have mounted over the directory that we are in: only a walk from the root leads to what is there now.
fn enter_again() -> Result<(), ChallengeError> {
    let unknown = |e| ChallengeError::Directory("unknown".to_owned(), e);
    let directory = std::env::current_dir().map_err(unknown)?;
    std::env::set_current_dir(&directory)
        .map_err(|e| ChallengeError::Directory(directory.display().to_string(), e))
}

/// What must be refused here, tried.
fn canaries() -> Result<(), ChallengeError> {
    let target = SocketAddr::from(CANARY);
    let tcp = TcpStream::connect_timeout(&target, Duration::from_millis(200)).map(drop);
    refused("a TCP connection to an unlisted address", tcp)?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(io_error("make a socket"))?;
    refused(
        "a UDP connection to an unlisted address",
        socket.connect(target),
    )?;
    refused(
        "a datagram to an unlisted address",
        socket.send_to(b"canary", target).map(drop),
    )?;
    refused(
        "binding the name server's address",
        UdpSocket::bind((RESERVED, 5353)).map(drop),
    )
}

fn refused(what: &'static str, attempt: io::Result<()>) -> Result<(), ChallengeError> {
    match attempt {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        _ => Err(ChallengeError::Canary(what)),
    }
}

fn fill_random(buffer: &mut [u8]) -> io::Result<()> {
    // SAFETY: getrandom writes at most the buffer's length into it.
    let n = unsafe { libc::getrandom(buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    if n == buffer.len() as isize {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
