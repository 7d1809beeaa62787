//! Wiring a network namespace: which one, and what is put into it. The rule: its process 1 is our init, it holds nothing
//! but loopback, nobody outside the session shares it, and that process is below the cgroup the programs are attached to.
//! A namespace that fails any of these stays as the engine made it: without a way out.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use enforcer_common::{DNS_ADDR, DNS_PORT, GATEWAY_ADDR, POOL_BASE, POOL_MASK};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, getsockopt, listen, setsockopt,
    socket, sockopt,
};
use schema::net::Cidr;

use crate::files::FilesError;
use crate::netns::{Netns, cookie_of, interfaces, loopback_up};
use crate::{cgroup, process, route};

/// Connections that wait for the gateway (also while it restarts).
const BACKLOG: i32 = 4096;
/// Bytes of queries that wait for the gateway, each counted with what the kernel adds to it: some thousands. The usual
/// 208 KiB hold fewer than three hundred, and a query that finds no room costs its asker seconds.
const DNS_WAITING: usize = 2 * 1024 * 1024;
/// Name of init's socket in the abstract namespace, which is the network namespace's own (unix(7)).
const INIT_SOCKET: &[u8] = b"agentcontainer-init";
/// A second address of `lo`: what asks getaddrinfo(3) with AI_ADDRCONFIG gets IPv4 answers only where an address other than 127.0.0.1
/// is configured (glibc, sysdeps/unix/sysv/linux/check_pf.c).
const ORDINARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How long init has to answer, its self-test included.
const CHALLENGE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("process {0} is gone")]
    Gone(u32),
    #[error("process {pid} does not run our init")]
    NotInit { pid: u32 },
    #[error("process {pid} is not the first of its pid namespace")]
    NotFirst { pid: u32 },
    #[error("process {pid} is in cgroup {cgroup}, not below {expected}")]
    OtherCgroup {
        pid: u32,
        cgroup: String,
        expected: String,
    },
    #[error("process {pid} is in the enforcer's or the host's network namespace")]
    HostNamespace { pid: u32 },
    #[error("the network namespace is not the one that asked")]
    OtherNamespace,
    #[error("process {pid}, outside the session, shares the network namespace")]
    Shared { pid: u32 },
    #[error("the network namespace has an interface besides loopback that is up: {0}")]
    Interface(String),
    #[error("cannot {call}: {source}")]
    Io {
        call: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("process {pid} is in the container before its files are held")]
    NotAlone { pid: u32 },
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("init refused to start: {0}")]
    Refused(String),
}

fn io_error(call: &'static str) -> impl FnOnce(io::Error) -> WireError {
    move |source| WireError::Io { call, source }
}

/// A wired namespace: what the enforcer keeps of it. The sockets stay with the enforcer, so that a gateway that starts
/// again finds the same ones, with the connections that wait in them.
#[derive(Debug)]
pub struct Wired {
    pub netns: Netns,
    pub cookie: u64,
    pub init: u32,
    /// Something was mounted for it: init has to walk to its directory again.
    pub mounted: bool,
    pub listener: TcpListener,
    pub dns_udp: UdpSocket,
    pub dns_tcp: TcpListener,
}

/// Checks the namespace of `pid` and puts routes and sockets into it. `session` is the session's cgroup as
/// `/proc/PID/cgroup` spells it.
pub fn wire(
    pid: u32,
    cookie: Option<u64>,
    session: &str,
    init: &Path,
    networks: &[Cidr],
) -> Result<Wired, WireError> {
    let pinned = process::Pinned::open(pid).map_err(|_| WireError::Gone(pid))?;
    let ours = std::fs::metadata(init).map_err(io_error("stat our init"))?;
    let gone = |_| WireError::Gone(pid);
    if process::executable(pid).map_err(gone)? != (ours.dev(), ours.ino()) {
        return Err(WireError::NotInit { pid });
    }
    match process::namespace_pids(pid).as_deref() {
        Some([_, .., 1]) => {}
        _ => return Err(WireError::NotFirst { pid }),
    }
    let cgroup = cgroup::of_process(&process::directory(pid)).ok_or(WireError::Gone(pid))?;
    if !below(&cgroup, session) {
        return Err(WireError::OtherCgroup {
            pid,
            cgroup,
            expected: session.to_owned(),
        });
    }
    let netns = Netns::of(pid).map_err(gone)?;
    let identity = netns.identity().map_err(io_error("stat the namespace"))?;
    for host in ["/proc/self", "/proc/1"] {
        if process::network_namespace(Path::new(host)) == Some(identity) {
            return Err(WireError::HostNamespace { pid });
        }
    }
    for other in process::all().map_err(io_error("list processes"))? {
        let directory = process::directory(other);
        if process::network_namespace(&directory) == Some(identity)
            && !cgroup::of_process(&directory).is_some_and(|path| below(&path, session))
        {
            return Err(WireError::Shared { pid: other });
        }
    }
    if !pinned.alive() {
        return Err(WireError::Gone(pid));
    }
    let (cookie, listener, dns_udp, dns_tcp) = netns
        .within(|| Ok(furnish(cookie, networks)))
        .map_err(io_error("enter the network namespace"))??;
    Ok(Wired {
        netns,
        cookie,
        init: pid,
        mounted: false,
        listener,
        dns_udp,
        dns_tcp,
    })
}

fn below(cgroup: &str, session: &str) -> bool {
    cgroup
        .strip_prefix(session)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// Devices that the kernel itself puts into every new namespace where their modules are loaded (`net.core.fb_tunnels_only_for_init_net`):
/// down, and with nobody inside who could bring them up.
const FALLBACK: [&str; 10] = [
    "tunl0",
    "sit0",
    "gre0",
    "gretap0",
    "erspan0",
    "ip_vti0",
    "ip6_vti0",
    "ip6tnl0",
    "ip6gre0",
    "ip6gretap0",
];

/// Whether a device has no business in a namespace that is to be wired: it holds a loopback device and nothing else.
fn is_foreign(name: &str, up: bool) -> bool {
    name != "lo" && (up || !FALLBACK.contains(&name))
}

/// Runs inside the namespace.
fn furnish(
    cookie: Option<u64>,
    networks: &[Cidr],
) -> Result<(u64, TcpListener, UdpSocket, TcpListener), WireError> {
    for (name, up) in interfaces().map_err(io_error("list interfaces"))? {
        if is_foreign(&name, up) {
            return Err(WireError::Interface(name));
        }
    }
    loopback_up().map_err(io_error("bring loopback up"))?;
    route::add_address(ORDINARY).map_err(io_error("add a loopback address"))?;
    let probe = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map_err(io_error("bind to loopback"))?;
    let found = cookie_of(&probe).map_err(io_error("read the namespace's cookie"))?;
    if cookie.is_some_and(|asked| asked != found) {
        return Err(WireError::OtherNamespace);
    }
    let pool = Cidr::new(Ipv4Addr::from(POOL_BASE), POOL_MASK.count_ones() as u8);
    for network in pool.iter().chain(networks) {
        route::add_local(*network).map_err(io_error("route a network"))?;
    }
    let listener = tcp(GATEWAY_ADDR, 0).map_err(io_error("bind the gateway's listener"))?;
    let dns_tcp = tcp(DNS_ADDR, DNS_PORT).map_err(io_error("bind DNS (TCP)"))?;
    let dns_udp = UdpSocket::bind((Ipv4Addr::from(DNS_ADDR), DNS_PORT))
        .map_err(io_error("bind DNS (UDP)"))?;
    setsockopt(&dns_udp, sockopt::RcvBufForce, &DNS_WAITING)
        .map_err(|e| io_error("make room for DNS (UDP)")(e.into()))?;
    dns_udp
        .set_nonblocking(true)
        .map_err(io_error("set up DNS (UDP)"))?;
    Ok((found, listener, dns_udp, dns_tcp))
}

/// A listening socket without SO_REUSEADDR and SO_REUSEPORT: the address is ours alone.
fn tcp(addr: u32, port: u16) -> io::Result<TcpListener> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    let addr = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::from(addr), port));
    bind(fd.as_raw_fd(), &addr)?;
    listen(&fd, Backlog::new(BACKLOG)?)?;
    // SAFETY: the descriptor is a listening TCP socket that nothing else owns.
    Ok(unsafe { TcpListener::from_raw_fd(fd.into_raw_fd()) })
}

/// Longest reason that init is told, in bytes.
const REASON: usize = 2048;

/// Tells init that it will not be released, and why.
pub fn refuse(wired: &Wired, reason: &str) -> Result<(), WireError> {
    let told = wired.netns.within(|| {
        let mut stream = connect(Instant::now() + CHALLENGE)?;
        if getsockopt(&stream, sockopt::PeerCredentials)?.pid() != wired.init as i32 {
            return Err(io::Error::other(
                "the peer is not the init that was checked",
            ));
        }
        stream.set_read_timeout(Some(CHALLENGE))?;
        stream.set_write_timeout(Some(CHALLENGE))?;
        stream.read_exact(&mut [0; 16])?;
        let reason = reason
            .get(..reason.floor_char_boundary(REASON))
            .unwrap_or_default();
        stream.write_all(format!("NO1:{reason}").as_bytes())
    });
    told.map_err(io_error("tell init why"))
}

/// Answers init's nonce over its socket, waits for its self-test, and so releases it. Init believes us because the
/// kernel says that the peer is outside its pid namespace; we believe it because the kernel says which process it is.
pub fn release(wired: &Wired) -> Result<(), WireError> {
    let answer = wired
        .netns
        .within(|| {
            let deadline = Instant::now() + CHALLENGE;
            let mut stream = connect(deadline)?;
            let peer = getsockopt(&stream, sockopt::PeerCredentials)?;
            if peer.pid() != wired.init as i32 {
                return Err(io::Error::other(
                    "the peer is not the init that was checked",
                ));
            }
            stream.set_read_timeout(Some(CHALLENGE))?;
            stream.set_write_timeout(Some(CHALLENGE))?;
            let mut nonce = [0; 16];
            stream.read_exact(&mut nonce)?;
            let mut reply = match wired.mounted {
                true => b"AC2:".to_vec(),
                false => b"AC1:".to_vec(),
            };
            reply.extend(nonce);
            stream.write_all(&reply)?;
            let mut answer = String::new();
            stream.take(512).read_to_string(&mut answer)?;
            Ok(answer)
        })
        .map_err(io_error("challenge init"))?;
    match answer.trim() {
        "released" => Ok(()),
        other => Err(WireError::Refused(other.escape_default().to_string())),
    }
}

fn connect(deadline: Instant) -> io::Result<UnixStream> {
    let address = UnixAddr::from_abstract_name(INIT_SOCKET)?;
    loop {
        match UnixStream::connect_addr(&address) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn a_namespace_holds_a_loopback_device_and_what_the_kernel_puts_there() {
        for (name, up, foreign) in [
            ("lo", true, false),
            ("tunl0", false, false),
            ("tunl0", true, true),
            ("eth0", false, true),
            ("eth0", true, true),
        ] {
            assert_eq!(super::is_foreign(name, up), foreign, "{name} {up}");
        }
    }

    #[test]
    fn a_cgroup_whose_name_only_starts_like_the_sessions_is_not_below_it() {
        assert!(below("/agentcontainer/s1/c1", "/agentcontainer/s1"));
        assert!(!below("/agentcontainer/s10/c1", "/agentcontainer/s1"));
        assert!(!below("/agentcontainer/s1", "/agentcontainer/s1"));
        assert!(!below("/", "/agentcontainer/s1"));
    }
}
