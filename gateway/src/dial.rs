//! Dials out, after the decision and never before: resolves, drops every address whose class policy does not open, and
//! connects to the very addresses that were looked at. With an `upstream_proxy` the proxy resolves, and literal targets
//! are refused. Called by `connection` and `http::forward`.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;

use nix::sys::socket::{setsockopt, sockopt};
use policy::address_class::Class;
use schema::gateway::{HttpProxy, ProxyHost};
use schema::host::HostName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits;
use crate::resolve::ResolveError;
use crate::state::{Active, ChosenRefusal, Intent, Place, State};

/// Head of a proxy's answer to CONNECT.
const PROXY_HEAD: usize = 8 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum DialError {
    #[error("{0}")]
    Chosen(#[from] ChosenRefusal),
    #[error("cannot resolve the name: {0}")]
    Resolve(#[from] ResolveError),
    #[error("the name has no address")]
    NoAddress,
    #[error("{address} is {class}, which policy does not name")]
    AddressRefused { address: IpAddr, class: Class },
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no connection within {} s", limits::DIAL.as_secs())]
    Timeout,
    #[error("a literal address cannot be dialled through the upstream proxy")]
    LiteralBehindProxy,
    #[error("the upstream proxy answered {0}")]
    Proxy(String),
}

impl DialError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Chosen(refusal) => refusal.code(),
            Self::Resolve(_) | Self::NoAddress => "resolve-failed",
            Self::AddressRefused { .. } => "address-refused",
            Self::Connect(_) => "connect-failed",
            Self::Timeout => "connect-timeout",
            Self::LiteralBehindProxy => "address-refused",
            Self::Proxy(_) => "proxy-refused",
        }
    }

    /// It was refused by a rule of ours, not failed in the world.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Chosen(_) | Self::AddressRefused { .. } | Self::LiteralBehindProxy
        )
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }
}

/// A connection out, and an address of the same name that was dropped for its class, if there was one.
#[derive(Debug)]
pub struct Dialled {
    pub stream: TcpStream,
    pub dropped: Option<DialError>,
}

impl From<TcpStream> for Dialled {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream,
            dropped: None,
        }
    }
}

/// Connects to where a connection was allowed to go.
pub async fn dial(state: &State, active: &Active, intent: &Intent) -> Result<Dialled, DialError> {
    timeout(limits::DIAL, dial_unbounded(state, active, intent))
        .await
        .unwrap_or(Err(DialError::Timeout))
}

async fn dial_unbounded(
    state: &State,
    active: &Active,
    intent: &Intent,
) -> Result<Dialled, DialError> {
    let gateway = &active.policy.gateway;
    let dialled = match &intent.place {
        Place::Address(_) if gateway.upstream_proxy.is_some() => {
            return Err(DialError::LiteralBehindProxy);
        }
        // Policy has just decided for this very address.
        Place::Address(address) => connect_any(&[SocketAddr::from((*address, intent.port))])
            .await?
            .into(),
        Place::Name(name) => {
            state.choose(active, name)?;
            match (gateway.hosts.get(name), &gateway.upstream_proxy) {
                (Some(addresses), _) => {
                    connect_vetted(active, name, addresses, intent.port).await?
                }
                (None, Some(proxy)) => connect_through(active, proxy, name, intent.port)
                    .await?
                    .into(),
                (None, None) => {
                    let addresses = active.resolver.lookup(name).await?;
                    connect_vetted(active, name, &addresses, intent.port).await?
                }
            }
        }
    };
    Ok(dialled)
}

async fn connect_vetted(
    active: &Active,
    name: &HostName,
    addresses: &[IpAddr],
    port: u16,
) -> Result<Dialled, DialError> {
    let mut refused = None;
    let mut seen = HashSet::new();
    let mut vetted = Vec::new();
    for &address in addresses {
        match active.compiled().address_allowed(name, address, port) {
            Ok(()) if seen.insert(address) && vetted.len() < limits::ADDRESSES => {
                vetted.push(SocketAddr::new(address, port));
            }
            Ok(()) => {}
            Err(class) => refused = Some(DialError::AddressRefused { address, class }),
        }
    }
    if vetted.is_empty() {
        return Err(refused.unwrap_or(DialError::NoAddress));
    }
    Ok(Dialled {
        stream: connect_any(&vetted).await?,
        dropped: refused,
    })
}

/// The first of the addresses that answers; a slow one is joined by the next (RFC 8305, 5).
async fn connect_any(addresses: &[SocketAddr]) -> Result<TcpStream, DialError> {
    if let [address] = addresses {
        return connect(*address).await;
    }
    let mut attempts = JoinSet::new();
    let mut rest = addresses.iter().copied();
    let mut last = DialError::NoAddress;
    let mut next = Instant::now();
    let mut more = true;
    while more || !attempts.is_empty() {
        tokio::select! {
            biased;
            Some(result) = attempts.join_next(), if !attempts.is_empty() => match result {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    last = error;
                    next = Instant::now();
                }
                Err(_) => {}
            },
            () = sleep_until(next), if more => match rest.next() {
                Some(address) => {
                    attempts.spawn(connect(address));
                    next = Instant::now() + limits::CONNECT_STAGGER;
                }
                None => more = false,
            },
        }
    }
    Err(last)
}

async fn connect(address: SocketAddr) -> Result<TcpStream, DialError> {
    let stream = timeout(limits::CONNECT, TcpStream::connect(address))
        .await
        .map_err(|_| DialError::Timeout)?
        .map_err(DialError::Connect)?;
    tune(&stream).map_err(DialError::Connect)?;
    Ok(stream)
}

/// What both sides of every connection get: a dialled socket by itself, an accepted one from its listener (kernel
/// `tcp_create_openreq_child` copies the listening socket).
pub fn tune(socket: &impl AsFd) -> io::Result<()> {
    setsockopt(socket, sockopt::TcpNoDelay, &true)?;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(
        socket,
        sockopt::TcpKeepIdle,
        &(limits::KEEPALIVE.as_secs() as u32),
    )?;
    Ok(())
}

async fn connect_through(
    active: &Active,
    proxy: &HttpProxy,
    name: &HostName,
    port: u16,
) -> Result<TcpStream, DialError> {
    let mut stream = connect_proxy(active, proxy).await?;
    let request = format!("CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(DialError::Connect)?;
    // Peeked, then taken to the byte: what follows the head is already the target's.
    let mut head = vec![0; PROXY_HEAD];
    let mut seen = 0;
    let length = loop {
        stream.readable().await.map_err(DialError::Connect)?;
        let n = stream.peek(&mut head).await.map_err(DialError::Connect)?;
        if let Some(end) = head[..n].windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        if n == 0 || n == PROXY_HEAD {
            return Err(DialError::Proxy("without an end of its head".to_owned()));
        }
        if n == seen {
            // Nothing new yet, and what is there keeps the socket readable.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        seen = n;
    };
    stream
        .read_exact(&mut head[..length])
        .await
        .map_err(DialError::Connect)?;
    let line = head.split(|&b| b == b'\r').next().unwrap_or_default();
    match line {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0' | b'1',
            b' ',
            b'2',
            b'0'..=b'9',
            b'0'..=b'9',
            b' ',
            ..,
        ]
        | [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0' | b'1',
            b' ',
            b'2',
            b'0'..=b'9',
            b'0'..=b'9',
        ] => Ok(stream),
        line => Err(DialError::Proxy(crate::events::bounded(
            &String::from_utf8_lossy(line),
            limits::DETAIL,
        ))),
    }
}

/// The proxy is the host's own word: its address may be of any class that can be dialled at all.
async fn connect_proxy(active: &Active, proxy: &HttpProxy) -> Result<TcpStream, DialError> {
    let addresses = match &proxy.host {
        ProxyHost::Address(address) => vec![*address],
        ProxyHost::Name(name) => match active.policy.gateway.hosts.get(name) {
            Some(addresses) => addresses.clone(),
            None => active.resolver.lookup(name).await?,
        },
    };
    let vetted: Vec<SocketAddr> = addresses
        .into_iter()
        .filter(|address| !policy::address_class::classify(*address).never_allowed())
        .take(limits::ADDRESSES)
        .map(|address| SocketAddr::new(address, proxy.port))
        .collect();
    if vetted.is_empty() {
        return Err(DialError::NoAddress);
    }
    connect_any(&vetted).await
}
