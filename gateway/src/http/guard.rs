//! The client side of an HTTP connection as hyper sees it: only bytes that the framer accepted, and the end of the stream
//! from the first refusal, or the first request for WebSocket, on. Counts what passes. Used by `http::serve`.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framer::{Framer, Refused};
use crate::relay::Carried;
use crate::wire::Wire;

/// The first refusal on a connection, shared by those who answer it.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<Option<Refused>>>);

impl Refusals {
    /// The refusal, once: whoever takes it answers it.
    pub fn take(&self) -> Option<Refused> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, refused: Refused) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
    }
}

pub struct Guard<W> {
    stream: W,
    framer: Framer,
    /// Accepted and not yet taken, from `at` on.
    accepted: Vec<u8>,
    at: usize,
    ended: bool,
    refusals: Refusals,
    carried: Arc<Carried>,
}

thread_local! {
    static SCRATCH: RefCell<[u8; 16 * 1024]> = const { RefCell::new([0; 16 * 1024]) };
}

impl<W: Wire> Guard<W> {
    pub fn new(stream: W, framer: Framer, refusals: Refusals, carried: Arc<Carried>) -> Self {
        Self {
            stream,
            framer,
            accepted: Vec::new(),
            at: 0,
            ended: false,
            refusals,
            carried,
        }
    }

    /// The connection, and what was read from it behind a request for WebSocket.
    pub fn into_parts(self) -> (W, Vec<u8>) {
        (self.stream, self.framer.into_early())
    }

    /// Reads once and sorts what came. Ready when there is something to say.
    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            self.carried
                .bytes_out
                .fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if bytes.is_empty() {
                self.ended = true;
            } else if bytes.len() as u64 <= self.framer.passable() && bytes.len() <= buf.remaining()
            {
                self.framer.passed(bytes.len() as u64);
                buf.put_slice(bytes);
            } else if let Err(refused) = self.framer.push(bytes, &mut self.accepted) {
                // What was accepted before it is still handed on.
                self.refusals.set(refused);
                self.ended = true;
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl<W: Wire> AsyncRead for Guard<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            if this.at < this.accepted.len() {
                let n = buf.remaining().min(this.accepted.len() - this.at);
                buf.put_slice(&this.accepted[this.at..this.at + n]);
                this.at += n;
                if this.at == this.accepted.len() {
                    this.accepted = Vec::new();
                    this.at = 0;
                }
                return Poll::Ready(Ok(()));
            }
            // Nothing behind a request for WebSocket is a request: to hyper the stream ends there, and what is not read
            // waits in the socket for the answer.
            if this.ended || this.framer.is_switching() || buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_fill(cx, buf))?;
        }
    }
}

impl<W: Wire> AsyncWrite for Guard<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write(cx, buf))?;
        self.carried.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, bufs))?;
        self.carried.bytes_in.fetch_add(n as u64, Ordering::Relaxed);
        Poll::Ready(Ok(n))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
