//! The threads beside the first one that carry connections. Each has a runtime of its own and a lane to the enforcer, so that
//! what a connection waits for comes to the thread that it is on, and no thread has to wake another. The first thread accepts,
//! and hands on what another has fewer of. Started by `run` ahead of the sandbox, which lets no thread begin.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::channel::ChannelError;
use crate::connection::{Guarded, Shared, connection};

/// A connection that was accepted, and its place among those that are served at once.
pub struct Accepted {
    pub stream: OwnedFd,
    pub peer: SocketAddrV4,
    pub slot: OwnedSemaphorePermit,
    pub counted: Counted,
}

impl Accepted {
    /// Carries it in a task of this thread's runtime.
    pub fn carry(self, shared: &Arc<Shared>) {
        let shared = Arc::clone(shared);
        let Self {
            stream,
            peer,
            slot,
            counted,
        } = self;
        // A socket that cannot be registered is closed.
        let Ok(stream) = TcpStream::from_std(stream.into()) else {
            return;
        };
        let stream = Guarded::new(stream);
        tokio::spawn(async move {
            let _held = (slot, counted);
            connection(shared, stream, peer).await;
        });
    }
}

/// How many connections a thread has.
#[derive(Clone, Debug, Default)]
pub struct Count(Arc<AtomicUsize>);

/// One of them.
#[derive(Debug)]
pub struct Counted(Count);

impl Count {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    pub fn one_more(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(self.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

enum Order {
    /// What its connections share, but for the lane.
    Begin(Box<Shared>),
    Carry(Accepted),
}

/// The first thread's end of another one.
pub struct Worker {
    orders: mpsc::UnboundedSender<Order>,
    ended: Option<oneshot::Receiver<ChannelError>>,
    count: Count,
}

impl Worker {
    /// Starts the thread.
    ///
    /// # Errors
    /// There is no runtime or thread to be had.
    pub fn start(lane: OwnedFd) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (orders, received) = mpsc::unbounded_channel();
        let (end, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name("gateway".to_owned())
            // What is built without optimisation takes more than half of it for one request over TLS.
            .stack_size(1024 * 1024)
            .spawn(move || {
                let Err(error) = runtime.block_on(work(lane, received));
                let _ = end.send(error);
            })?;
        Ok(Self {
            orders,
            ended: Some(ended),
            count: Count::default(),
        })
    }

    /// Lets it begin.
    pub fn begin(&self, shared: Shared) {
        // One that has ended says so in `ended`.
        let _ = self.orders.send(Order::Begin(Box::new(shared)));
    }

    /// When and why it ends; a panic is the end too. Asked for once.
    pub fn ended(&mut self) -> impl Future<Output = ChannelError> + use<> {
        let ended = self.ended.take();
        async move {
            match ended {
                Some(ended) => ended.await.unwrap_or(ChannelError::Closed),
                None => std::future::pending().await,
            }
        }
    }

    pub fn count(&self) -> &Count {
        &self.count
    }

    pub fn carry(&self, accepted: Accepted) {
        // One that has ended takes the connection with it, and the gateway.
        let _ = self.orders.send(Order::Carry(accepted));
    }
}

async fn work(
    lane: OwnedFd,
    mut orders: mpsc::UnboundedReceiver<Order>,
) -> Result<Infallible, ChannelError> {
    let Some(Order::Begin(mut shared)) = orders.recv().await else {
        return Err(ChannelError::Closed);
    };
    let lane = Arc::new(shared.channel.lane(lane)?);
    shared.lane = Arc::clone(&lane);
    let shared = Arc::new(*shared);
    let mut tasks = JoinSet::new();
    let answers = Arc::clone(&lane);
    tasks.spawn(async move { answers.receive_answers(&mut Vec::new()).await });
    tasks.spawn(async move { lane.drain().await });
    tasks.spawn(async move {
        while let Some(order) = orders.recv().await {
            if let Order::Carry(accepted) = order {
                accepted.carry(&shared);
            }
        }
        Err(ChannelError::Closed)
    });
    // Whichever ends first ends the gateway.
    match tasks.join_next().await {
        Some(Ok(ended)) => ended,
        Some(Err(_)) | None => Err(ChannelError::Closed),
    }
}
