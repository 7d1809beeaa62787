//! The gateway's life: sandbox, `Ready`, then whatever the enforcer sends until it closes the channel, which ends the
//! process at once. `run` is the binary; `serve` is the same without sandbox, for tests over a socket pair.

use std::convert::Infallible;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use api::v1::{self, SnapshotDocument, from_gateway};
use audit::{Event, Kind, Verdict};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use prost::Message;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::channel::{Channel, ChannelError, Incoming};
use crate::connection::{Destination, Shared, accept};
use crate::dial::tune;
use crate::dns;
use crate::http::pool::Pool;
use crate::limits;
use crate::relay::{Patience, Pipes};
use crate::resolve::System;
use crate::sandbox::{self, SandboxError};
use crate::state::{SnapshotError, State};
use crate::sys;
use crate::tls::authority::{Authority, AuthorityError, Lives};
use crate::worker::Worker;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(
        "the snapshot is not a sealed memory file of at most {} bytes",
        limits::SNAPSHOT
    )]
    NotSealed,
    #[error("a listener's task has ended")]
    Server,
    #[error("cannot {call}: {source}")]
    Io {
        call: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] rustls::Error),
}

fn io_error(call: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Io { call, source }
}

/// How `serve` differs between the binary and its tests.
pub struct Options {
    pub destination: Destination,
    pub patience: Patience,
    pub system: System,
    pub connections: usize,
    /// Whether the kernel enforces Landlock; if not, that is recorded.
    pub landlocked: bool,
    pub lives: Lives,
    /// Threads that carry connections beside the one that serves.
    pub workers: Vec<Worker>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            destination: Arc::new(|local| local),
            patience: Patience::default(),
            system: System::default(),
            connections: limits::CONNECTIONS,
            landlocked: true,
            lives: Lives::default(),
            workers: Vec::new(),
        }
    }
}

/// The whole process: gives up what it does not need, then serves until the channel ends, which is always an error. It has a
/// thread more than there are lanes.
///
/// # Errors
/// Why it ended. The caller has to exit at once.
pub fn run(
    channel: OwnedFd,
    lanes: Vec<OwnedFd>,
    require_unprivileged: bool,
) -> Result<Infallible, RunError> {
    sandbox::prepare(require_unprivileged)?;
    let system = System::read();
    // A static C library has no getrandom to find at run time: the crate opens a device instead, once, and keeps it open.
    getrandom::fill(&mut [0]).map_err(|e| io_error("get random bytes")(e.into()))?;
    let landlocked = sandbox::landlock()?;
    let connections = sandbox::connections().map_err(io_error("read the descriptor limit"))?;
    let start = || io_error("start a thread's runtime");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(start())?;
    let workers = lanes.into_iter().map(Worker::start);
    let workers = workers.collect::<Result<_, _>>().map_err(start())?;
    sandbox::seccomp()?;
    let options = Options {
        system,
        landlocked,
        connections,
        workers,
        ..Options::default()
    };
    let result = runtime.block_on(async {
        match tokio::spawn(serve(channel, options)).await {
            Ok(result) => result,
            Err(_) => Err(RunError::Channel(ChannelError::Closed)),
        }
    });
    runtime.shutdown_background();
    result
}

/// Serves one session over its channel.
///
/// # Errors
/// Why it ended; it never ends otherwise.
pub async fn serve(channel: OwnedFd, options: Options) -> Result<Infallible, RunError> {
    let channel = Arc::new(Channel::new(channel)?);
    let authority = Arc::new(Authority::new(options.lives)?);
    let ca_certificate = authority.certificate().to_vec();
    let extra = Arc::new(Semaphore::new(limits::EXTRA_UPSTREAMS));
    let mut workers = options.workers;
    let resting = limits::RESTING_UPSTREAMS / (workers.len() + 1);
    let pools: Vec<_> = (0..=workers.len())
        .map(|_| Arc::new(Pool::new(Arc::clone(&extra), resting)))
        .collect();
    let shared = Shared {
        state: State::new(options.system)?,
        channel: Arc::clone(&channel),
        lane: Arc::clone(&channel),
        destination: options.destination,
        pipes: Pipes::default(),
        patience: options.patience,
        slots: Arc::new(Semaphore::new(options.connections)),
        pool: Arc::clone(&pools[0]),
        extra,
        authority,
    };
    let mut tasks = JoinSet::new();
    for (worker, pool) in workers.iter_mut().zip(&pools[1..]) {
        let pool = Arc::clone(pool);
        worker.begin(Shared {
            pool,
            ..shared.clone()
        });
        let ended = worker.ended();
        tasks.spawn(async move { Err(ended.await.into()) });
    }
    let shared = Arc::new(shared);
    channel
        .tell(from_gateway::Message::Ready(v1::Ready { ca_certificate }))
        .await?;
    if !options.landlocked {
        let mut event = Event::new(Kind::Lifecycle, Verdict::Flag, "landlock-unavailable");
        event.layer = Some("gateway".to_owned());
        event.detail = Some("files are kept from the gateway by seccomp alone".to_owned());
        channel.post(&event, None);
    }
    let (sender, receiver) = mpsc::channel(16);
    // Whichever ends first ends the gateway. Each is a task of its own: answers and questions are every connection's.
    let reader = Arc::clone(&shared);
    tasks.spawn(async move { receive(&reader, sender).await });
    tasks.spawn(async move { channel.drain().await.map_err(RunError::from) });
    tasks.spawn(async move { obey(&shared, &pools, workers.into(), receiver).await });
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        Some(Err(_)) | None => Err(RunError::Server),
    }
}

/// Reads the channel and nothing else, so that answers are never behind a snapshot that is being applied.
async fn receive(shared: &Shared, sender: mpsc::Sender<Incoming>) -> Result<Infallible, RunError> {
    let mut buffer = Vec::new();
    loop {
        let incoming = match shared.channel.receive(&mut buffer).await? {
            Incoming::Refused(refused) => {
                shared.state.refused(refused);
                continue;
            }
            Incoming::Over(over) => {
                shared.state.over(&over.question);
                continue;
            }
            incoming => incoming,
        };
        if sender.try_send(incoming).is_err() {
            return Err(ChannelError::Malformed("more orders than can be carried out").into());
        }
    }
}

async fn obey(
    shared: &Arc<Shared>,
    pools: &[Arc<Pool>],
    workers: Arc<[Worker]>,
    mut receiver: mpsc::Receiver<Incoming>,
) -> Result<Infallible, RunError> {
    // Stopped when other sockets come.
    let mut servers = JoinSet::new();
    loop {
        let incoming = tokio::select! {
            incoming = receiver.recv() => incoming,
            // They never end by themselves: one that did has panicked, and a session half served is not to go on.
            Some(_) = servers.join_next() => return Err(RunError::Server),
        };
        match incoming {
            None => return Err(ChannelError::Closed.into()),
            Some(Incoming::Snapshot {
                generation,
                document,
            }) => {
                let document = read_snapshot(document)?;
                shared.state.apply(generation, document).await?;
                let generation = shared.state.active().generation;
                for pool in pools {
                    pool.clear(generation);
                }
                let applied = from_gateway::Message::Applied(v1::Applied { generation });
                shared.channel.tell(applied).await?;
            }
            Some(Incoming::Wired {
                listener,
                dns_udp,
                dns_tcp,
            }) => {
                let listener = listening(listener)?;
                let dns_tcp = tcp_listener(dns_tcp)?;
                let dns_udp = udp_socket(dns_udp)?;
                servers.shutdown().await;
                servers.spawn(accept(Arc::clone(shared), Arc::clone(&workers), listener));
                servers.spawn(dns::serve_udp(Arc::clone(shared), dns_udp));
                servers.spawn(dns::serve_tcp(Arc::clone(shared), dns_tcp));
            }
            // They go to the page at once.
            Some(Incoming::Refused(_) | Incoming::Over(_)) => {}
        }
    }
}

/// Reads a document that nobody can change any more.
fn read_snapshot(document: OwnedFd) -> Result<SnapshotDocument, RunError> {
    let seals = fcntl(&document, FcntlArg::F_GET_SEALS).map_err(|_| RunError::NotSealed)?;
    let wanted = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    if !SealFlag::from_bits_retain(seals).contains(wanted) {
        return Err(RunError::NotSealed);
    }
    let file = File::from(document);
    let mut bytes = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    loop {
        match file
            .read_at(&mut chunk, bytes.len() as u64)
            .map_err(io_error("read the snapshot"))?
        {
            0 => break,
            n => bytes.extend_from_slice(&chunk[..n]),
        }
        if bytes.len() > limits::SNAPSHOT {
            return Err(RunError::NotSealed);
        }
    }
    SnapshotDocument::decode(bytes.as_slice()).map_err(|_| SnapshotError::Decode.into())
}

/// The listener whose connections any thread may get.
fn listening(fd: OwnedFd) -> Result<AsyncFd<OwnedFd>, RunError> {
    sys::set_nonblocking(&fd).map_err(io_error("configure a listener"))?;
    tune(&fd).map_err(io_error("configure a listener"))?;
    sys::register(fd).map_err(io_error("register a listener"))
}

fn tcp_listener(fd: OwnedFd) -> Result<TcpListener, RunError> {
    sys::set_nonblocking(&fd).map_err(io_error("configure a listener"))?;
    tune(&fd).map_err(io_error("configure a listener"))?;
    TcpListener::from_std(fd.into()).map_err(io_error("register a listener"))
}

fn udp_socket(fd: OwnedFd) -> Result<UdpSocket, RunError> {
    sys::set_nonblocking(&fd).map_err(io_error("configure a socket"))?;
    UdpSocket::from_std(fd.into()).map_err(io_error("register a socket"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use nix::sys::socket::{getsockopt, sockopt};
    use std::net::SocketAddr;
    use tokio::io::Interest;

    #[tokio::test]
    async fn an_accepted_socket_has_what_its_listener_was_given() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plain = getsockopt(&listener, sockopt::TcpNoDelay).unwrap();
        assert!(!plain, "the kernel's default is what is asked for");
        let address = listener.local_addr().unwrap();
        let listener = listening(listener.into()).unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let accepted = listener.async_io(Interest::READABLE, sys::accept);
        let (accepted, peer) = accepted.await.unwrap();
        assert_eq!(peer.map(SocketAddr::V4), Some(client.local_addr().unwrap()));
        assert!(getsockopt(&accepted, sockopt::TcpNoDelay).unwrap());
        assert!(getsockopt(&accepted, sockopt::KeepAlive).unwrap());
        assert_eq!(
            getsockopt(&accepted, sockopt::TcpKeepIdle).unwrap(),
            limits::KEEPALIVE.as_secs() as u32
        );
    }
}
