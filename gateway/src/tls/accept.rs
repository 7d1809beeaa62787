//! The agent's side of an `https` connection: the ClientHello that was read and checked is played back to rustls, which ends
//! TLS with a leaf of the session's authority. Used by `connection`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::authority::AuthorityError;
use crate::connection::Guarded;
use crate::limits;
use crate::wire::Wire;

/// A socket, with what was read of it before.
pub struct Replayed {
    stream: Guarded,
    first: Vec<u8>,
    at: usize,
}

/// An agent's connection with TLS ended on it.
pub struct Ended {
    stream: Box<TlsStream<Replayed>>,
}

/// Why there is no TLS with the agent.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error(
        "the client does not accept the session's certificate ({0}): does it trust /run/agentcontainer/trust/ca.pem?"
    )]
    NotTrusted(String),
    #[error("the handshake failed: {0}")]
    Handshake(String),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error("the client went away during the handshake")]
    Gone,
    #[error("no handshake within {} s", limits::TLS_HANDSHAKE.as_secs())]
    Timeout,
}

impl AcceptError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotTrusted(_) => "tls-not-trusted",
            Self::Authority(_) => "tls-authority",
            Self::Handshake(_) | Self::Gone | Self::Timeout => "tls-handshake",
        }
    }
}

/// Makes TLS on a connection whose ClientHello, in `first`, was read already.
pub async fn accept(
    stream: Guarded,
    first: Vec<u8>,
    config: Arc<ServerConfig>,
) -> Result<Ended, AcceptError> {
    let replayed = Replayed {
        stream,
        first,
        at: 0,
    };
    let handshake = TlsAcceptor::from(config).accept(replayed);
    match timeout(limits::TLS_HANDSHAKE, handshake).await {
        Err(_) => Err(AcceptError::Timeout),
        Ok(Ok(stream)) => Ok(Ended {
            stream: Box::new(stream),
        }),
        Ok(Err(error)) => Err(refusal(&error)),
    }
}

fn refusal(error: &io::Error) -> AcceptError {
    use rustls::AlertDescription as Alert;
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::AlertReceived(
            alert @ (Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::UnsupportedCertificate
            | Alert::DecryptError),
        )) => AcceptError::NotTrusted(format!("{alert:?}")),
        Some(error) => AcceptError::Handshake(error.to_string()),
        None => AcceptError::Gone,
    }
}

impl Ended {
    /// What both agreed to speak inside; HTTP/1.1 where the client offered nothing.
    pub fn is_h2(&self) -> bool {
        self.stream.get_ref().1.alpn_protocol() == Some(b"h2")
    }
}

impl Wire for Ended {
    fn disarm(&mut self) {
        self.stream.get_mut().0.stream.disarm();
    }

    fn plain(self) -> Result<Guarded, Self> {
        Err(self)
    }
}

impl AsyncRead for Ended {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.stream).poll_read(cx, buf)) {
            // Requests and frames say themselves where they end: a client that only closes has cut nothing off.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

impl AsyncWrite for Ended {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.at < this.first.len() {
            let n = buf.remaining().min(this.first.len() - this.at);
            buf.put_slice(&this.first[this.at..this.at + n]);
            this.at += n;
            if this.at == this.first.len() {
                this.first = Vec::new();
                this.at = 0;
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}
