//! The one switch of protocols that is carried: WebSocket (RFC 6455, 4). What a request has to say is checked by `head`,
//! what the upstream has to answer here; behind the switch the bytes are opaque and counted. Called by `http::forward`
//! on the way there, and by `http::serve` once the client has its 101, or by `http::h2` its 200.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

pub mod inspected;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::body::Bytes;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper::{Response, Version};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::upstream::Lease;
use crate::connection::Guarded;
use crate::relay::{Carried, End, Patience, Pipes, exchange, relay, rested};
use crate::tls::upstream::Leg;
use crate::wire::Wire;
use inspected::Watch;

/// RFC 6455, 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const PROTOCOL: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
/// The one version there is.
pub const VERSION: &[u8] = b"13";

/// A Sec-WebSocket-Key: 16 bytes in base64, as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(HeaderValue);

/// Why an upstream's 101 is not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("the upstream switched to a protocol that nobody asked for")]
    Unasked,
    #[error("the upstream's 101 is not for WebSocket alone")]
    Protocol,
    #[error("the upstream uses an extension that was not offered")]
    Extension,
    #[error("the upstream's Sec-WebSocket-Accept does not belong to the key that was sent")]
    Accept,
    #[error("the upstream answered a request for WebSocket with an ordinary answer")]
    Ordinary,
}

/// An upstream connection behind its 101.
pub struct Switched {
    upstream: Leg,
    /// What came in one read with the 101.
    first: Bytes,
    /// What looks at the frames that the agent sends.
    watch: Option<Box<Watch>>,
    /// Its place among the upstream connections that there may be.
    _lease: Lease,
}

impl Key {
    pub fn parse(value: &[u8]) -> Option<Self> {
        let decoded = STANDARD.decode(value).ok()?;
        if decoded.len() != 16 {
            return None;
        }
        HeaderValue::from_bytes(value).ok().map(Self)
    }

    /// One for a request that a client of HTTP/2 made without (RFC 6455, 4.1: 16 random bytes). `None`: the kernel gives none.
    pub fn random() -> Option<Self> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok()?;
        HeaderValue::try_from(STANDARD.encode(nonce)).ok().map(Self)
    }

    /// The key of a request that `head` let through; `None` where it asks for no switch, or for one that is not carried.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        only(headers, &header::UPGRADE)
            .filter(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))?;
        Self::parse(only(headers, &header::SEC_WEBSOCKET_KEY)?.as_bytes())
    }

    /// What the upstream has to answer.
    fn accept(&self) -> String {
        let digest = Sha1::new()
            .chain_update(self.0.as_bytes())
            .chain_update(GUID)
            .finalize();
        STANDARD.encode(digest)
    }

    /// Puts the fields of the request back that were taken out with what is between neighbours.
    pub fn ask(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, PROTOCOL);
        headers.insert(header::SEC_WEBSOCKET_KEY, self.0.clone());
        headers.insert(
            header::SEC_WEBSOCKET_VERSION,
            HeaderValue::from_static("13"),
        );
    }

    /// Checks the fields of a 101 (RFC 6455, 4.1, 2 to 4 of the response).
    pub fn check(&self, version: Version, headers: &HeaderMap) -> Result<(), Mismatch> {
        let websocket = only(headers, &header::UPGRADE)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
        let upgrade = headers
            .get_all(header::CONNECTION)
            .iter()
            .any(|value| lists_upgrade(value.as_bytes()));
        if version != Version::HTTP_11 || !websocket || !upgrade {
            return Err(Mismatch::Protocol);
        }
        let accept = only(headers, &header::SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != self.accept().as_bytes()) {
            return Err(Mismatch::Accept);
        }
        Ok(())
    }

    /// Puts the checked fields into the 101 that the client gets.
    pub fn answer(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, PROTOCOL);
        if let Ok(accept) = HeaderValue::try_from(self.accept()) {
            headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        }
        // A 101 has no body to be long.
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Whether a Connection field lists `upgrade`.
pub fn lists_upgrade(value: &[u8]) -> bool {
    value
        .split(|&b| b == b',')
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
}

/// The value of a field that stands once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// What a response of 101 brings along for whoever has the client's side of it.
#[derive(Clone)]
pub struct Handover(Arc<Mutex<Option<Switched>>>);

impl Handover {
    pub fn new(switched: Switched) -> Self {
        Self(Arc::new(Mutex::new(Some(switched))))
    }

    pub fn take<B>(response: &mut Response<B>) -> Option<Switched> {
        let Self(switched) = response.extensions_mut().remove()?;
        switched
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

/// A stream of HTTP/2 that became a WebSocket.
pub struct Stream(TokioIo<Upgraded>);

impl Stream {
    pub fn new(stream: Upgraded) -> Self {
        Self(TokioIo::new(stream))
    }
}

impl Wire for Stream {
    /// Nothing to be told apart: its end is the stream's, and WebSocket has a word of its own for a good one.
    fn disarm(&mut self) {}

    fn plain(self) -> Result<Guarded, Self> {
        Err(self)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl Switched {
    /// Takes the socket back from hyper. `None`: it is not the socket that was given.
    pub fn new(upgraded: Upgraded, watch: Option<Box<Watch>>, lease: Lease) -> Option<Self> {
        let parts = upgraded.downcast::<TokioIo<Leg>>().ok()?;
        Some(Self {
            upstream: parts.io.into_inner(),
            first: parts.read_buf,
            watch,
            _lease: lease,
        })
    }

    /// Carries bytes until both sides have finished. `early`: what the client sent before it had its 101, which was
    /// counted when it was read.
    pub async fn carry(
        self,
        mut agent: impl Wire,
        early: Vec<u8>,
        carried: &Carried,
        pipes: &Pipes,
        patience: Patience,
    ) -> &'static str {
        carried
            .bytes_out
            .fetch_sub(early.len() as u64, Ordering::Relaxed);
        if let Some(watch) = self.watch {
            let first = (early, self.first);
            return inspected::carry(agent, self.upstream, first, *watch, carried, patience).await;
        }
        let written = tokio::select! {
            biased;
            written = agent.write_all(&self.first) => written,
            () = rested(carried, patience) => return End::Idle.code(),
        };
        if written.is_err() {
            return End::Failed.code();
        }
        carried
            .bytes_in
            .fetch_add(self.first.len() as u64, Ordering::Relaxed);
        match (agent.plain(), self.upstream) {
            (Ok(mut agent), Leg::Plain(upstream)) => {
                let mut upstream = Guarded::new(upstream);
                let end = relay(&mut agent, &mut upstream, early, carried, pipes, patience).await;
                if let End::Finished = end {
                    agent.disarm();
                    upstream.disarm();
                }
                end.code()
            }
            // One end of it is TLS: nothing that could be spliced.
            (Ok(agent), upstream) => over_tls(agent, upstream, early, carried, patience).await,
            (Err(agent), upstream) => over_tls(agent, upstream, early, carried, patience).await,
        }
    }
}

async fn over_tls(
    mut agent: impl Wire,
    mut upstream: Leg,
    early: Vec<u8>,
    carried: &Carried,
    patience: Patience,
) -> &'static str {
    let end = exchange(&mut agent, &mut upstream, early, carried, patience).await;
    if let End::Finished = end {
        agent.disarm();
    } else {
        crate::relay::reset(upstream.socket());
    }
    end.code()
}

#[cfg(test)]
mod tests;
