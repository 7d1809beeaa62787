//! Carries bytes between the agent and the upstream until both have finished: half-closes are passed on, a reset on one
//! side resets the other, whoever is slow slows the other down. Small flows share one scratch buffer a thread and own no
//! memory while they rest; a flow that has proved bulky is spliced through a pipe. Used by `connection` for `tls`, `tcp`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits;

/// When a relay is given up; constants in production, shorter in tests.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub idle: Duration,
    pub half_closed: Duration,
    /// How often is looked.
    pub tick: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: limits::IDLE,
            half_closed: limits::IDLE_HALF_CLOSED,
            tick: Duration::from_secs(30),
        }
    }
}

/// What was carried, live: readable while the relay runs and after it was cancelled.
#[derive(Debug, Default)]
pub struct Carried {
    /// From the upstream to the agent.
    pub bytes_in: AtomicU64,
    /// From the agent to the upstream.
    pub bytes_out: AtomicU64,
    half_closed: AtomicBool,
}

impl Carried {
    /// One side has finished sending.
    pub fn half_close(&self) {
        self.half_closed.store(true, Ordering::Relaxed);
    }

    fn total(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed) + self.bytes_out.load(Ordering::Relaxed)
    }
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides finished in good order.
    Finished,
    Idle,
    /// One side reset; both are now.
    Failed,
}

impl End {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Finished => "closed",
            Self::Idle => "idle-timeout",
            Self::Failed => "reset",
        }
    }
}

/// Pipes for bulky flows, counted over the whole process.
#[derive(Clone, Debug)]
pub struct Pipes(Arc<Semaphore>);

impl Default for Pipes {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(limits::PIPES)))
    }
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    _permit: OwnedSemaphorePermit,
}

impl Pipes {
    /// A pipe, or none when there are enough already: the flow is then copied on.
    fn get(&self) -> Option<Pipe> {
        let permit = Arc::clone(&self.0).try_acquire_owned().ok()?;
        let (read, write) = nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).ok()?;
        // A smaller pipe serves too: unprivileged users may be limited in pipe pages.
        let _ = fcntl(&write, FcntlArg::F_SETPIPE_SZ(limits::PIPE_BYTES as i32));
        Some(Pipe {
            read,
            write,
            _permit: permit,
        })
    }
}

/// Runs until both directions are finished, one has failed or nothing has moved for too long. `first` has been read from
/// the agent already and is carried before anything else.
pub async fn relay(
    agent: &mut TcpStream,
    upstream: &mut TcpStream,
    first: Vec<u8>,
    carried: &Carried,
    pipes: &Pipes,
    patience: Patience,
) -> End {
    let result = {
        let (agent_read, agent_write) = agent.split();
        let (upstream_read, upstream_write) = upstream.split();
        let out = Direction {
            from: agent_read,
            to: upstream_write,
            left: first,
            at: 0,
            moved: &carried.bytes_out,
        };
        let back = Direction {
            from: upstream_read,
            to: agent_write,
            left: Vec::new(),
            at: 0,
            moved: &carried.bytes_in,
        };
        let finished = AtomicBool::new(false);
        let both = async {
            tokio::try_join!(
                out.run(pipes, &carried.half_closed, &finished),
                back.run(pipes, &carried.half_closed, &finished)
            )
        };
        tokio::select! {
            biased;
            result = both => Some(result),
            () = rested(carried, patience) => None,
        }
    };
    let end = match result {
        Some(Ok(_)) => return End::Finished,
        Some(Err(_)) => End::Failed,
        None => End::Idle,
    };
    reset(agent);
    reset(upstream);
    end
}

/// [`relay`] where one side, or both, is TLS: bytes are copied, and both ends are closed as TLS closes.
pub async fn exchange<A, U>(
    agent: &mut A,
    upstream: &mut U,
    first: Vec<u8>,
    carried: &Carried,
    patience: Patience,
) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut agent_read, mut agent_write) = tokio::io::split(agent);
    let (mut upstream_read, mut upstream_write) = tokio::io::split(upstream);
    let both = async {
        tokio::try_join!(
            pump(
                &mut agent_read,
                &mut upstream_write,
                first,
                &carried.bytes_out,
                &carried.half_closed
            ),
            pump(
                &mut upstream_read,
                &mut agent_write,
                Vec::new(),
                &carried.bytes_in,
                &carried.half_closed
            )
        )
    };
    tokio::select! {
        biased;
        result = both => if result.is_ok() { End::Finished } else { End::Failed },
        () = rested(carried, patience) => End::Idle,
    }
}

async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    first: Vec<u8>,
    moved: &AtomicU64,
    half_closed: &AtomicBool,
) -> io::Result<()> {
    to.write_all(&first).await?;
    moved.fetch_add(first.len() as u64, Ordering::Relaxed);
    let mut buffer = first;
    buffer.resize(limits::EXCHANGE_BUFFER, 0);
    loop {
        to.flush().await?;
        match from.read(&mut buffer).await? {
            0 => break,
            n => {
                to.write_all(&buffer[..n]).await?;
                moved.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    }
    half_closed.store(true, Ordering::Relaxed);
    to.shutdown().await
}

/// Makes the close that follows a reset.
pub fn reset(stream: &TcpStream) {
    // It fails only on a socket that is gone already.
    let _ = stream.set_zero_linger();
}

/// Returns once nothing has moved for as long as patience lasts.
pub async fn rested(carried: &Carried, patience: Patience) {
    let mut total = carried.total();
    let mut resting = Duration::ZERO;
    loop {
        tokio::time::sleep(patience.tick).await;
        let now = carried.total();
        resting = if now == total {
            resting + patience.tick
        } else {
            Duration::ZERO
        };
        total = now;
        let bound = if carried.half_closed.load(Ordering::Relaxed) {
            patience.half_closed
        } else {
            patience.idle
        };
        if resting >= bound {
            return;
        }
    }
}

thread_local! {
    /// What one read brings; empty again before the next poll, so that connections at rest hold no buffer.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; limits::RELAY_BUFFER].into_boxed_slice());
}

struct Direction<'a> {
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    /// Read but not yet taken by `to`, from `at` on.
    left: Vec<u8>,
    at: usize,
    moved: &'a AtomicU64,
}

enum Copied {
    Eof,
    Bulky,
}

impl Direction<'_> {
    /// `finished`: whether the other direction has.
    async fn run(
        mut self,
        pipes: &Pipes,
        half_closed: &AtomicBool,
        finished: &AtomicBool,
    ) -> io::Result<()> {
        let mut bound = limits::SPLICE_AFTER;
        while let Copied::Bulky = poll_fn(|cx| self.poll_copy(cx, bound)).await? {
            match pipes.get() {
                Some(pipe) => {
                    self.splice(&pipe).await?;
                    break;
                }
                // All pipes are taken: ask again later.
                None => bound += limits::SPLICE_AFTER * 64,
            }
        }
        half_closed.store(true, Ordering::Relaxed);
        if finished.swap(true, Ordering::Relaxed) {
            // The other direction has finished too: nothing is unread on either side, and both are closed next.
            return Ok(());
        }
        match shutdown(self.to.as_ref().as_raw_fd(), Shutdown::Write) {
            // The other side has closed for good, which its own direction reports.
            Ok(()) | Err(Errno::ENOTCONN) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Copies through the scratch buffer until the end, or until `bound` bytes were moved.
    fn poll_copy(&mut self, cx: &mut Context<'_>, bound: u64) -> Poll<io::Result<Copied>> {
        loop {
            while self.at < self.left.len() {
                let n = ready!(Pin::new(&mut self.to).poll_write(cx, &self.left[self.at..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.at += n;
                self.moved.fetch_add(n as u64, Ordering::Relaxed);
            }
            if !self.left.is_empty() {
                self.left = Vec::new();
                self.at = 0;
            }
            if self.moved.load(Ordering::Relaxed) >= bound {
                return Poll::Ready(Ok(Copied::Bulky));
            }
            let eof = ready!(SCRATCH.with_borrow_mut(|scratch| self.poll_once(cx, scratch)))?;
            if eof {
                return Poll::Ready(Ok(Copied::Eof));
            }
        }
    }

    /// One read and one write. True at the end of `from`.
    fn poll_once(&mut self, cx: &mut Context<'_>, scratch: &mut [u8]) -> Poll<io::Result<bool>> {
        let mut buffer = ReadBuf::new(scratch);
        ready!(Pin::new(&mut self.from).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        if read.is_empty() {
            return Poll::Ready(Ok(true));
        }
        let written = match Pin::new(&mut self.to).poll_write(cx, read) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => 0,
        };
        self.moved.fetch_add(written as u64, Ordering::Relaxed);
        if written < read.len() {
            self.left = read[written..].to_vec();
        }
        Poll::Ready(Ok(false))
    }

    /// Moves pages from socket to socket until the end of `from`. The pipe is empty between two rounds, so EAGAIN can
    /// only come from the sockets.
    async fn splice(&self, pipe: &Pipe) -> io::Result<()> {
        let flags = SpliceFFlags::SPLICE_F_MOVE | SpliceFFlags::SPLICE_F_NONBLOCK;
        let (from, to) = (self.from.as_ref(), self.to.as_ref());
        loop {
            let mut left = from
                .async_io(Interest::READABLE, || {
                    Ok(splice(
                        from,
                        None,
                        &pipe.write,
                        None,
                        limits::PIPE_BYTES,
                        flags,
                    )?)
                })
                .await?;
            if left == 0 {
                return Ok(());
            }
            while left > 0 {
                let n = to
                    .async_io(Interest::WRITABLE, || {
                        Ok(splice(&pipe.read, None, to, None, left, flags)?)
                    })
                    .await?;
                if n == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
                left -= n;
                self.moved.fetch_add(n as u64, Ordering::Relaxed);
            }
        }
    }
}
