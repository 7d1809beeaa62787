//! The world's side of an `https` connection: TLS with the server that the name leads to, verified with the host's roots for
//! that name and nothing else. Used by `http::upstream`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::authority::ALPN;
use crate::limits;
use crate::state::Place;

/// How upstreams are verified in this session.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Offers HTTP/1.1 alone, for a client that speaks it: what it asks for (WebSocket) is then sure to be carried.
    one: Arc<ClientConfig>,
    both: Arc<ClientConfig>,
}

/// Why there is no TLS with the upstream.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the server's certificate does not hold: {0}")]
    Certificate(String),
    #[error("the TLS handshake with the server failed: {0}")]
    Handshake(String),
    #[error("no TLS handshake with the server within {} s", limits::TLS_HANDSHAKE.as_secs())]
    Timeout,
}

impl UpstreamError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Certificate(_) => "upstream-certificate",
            Self::Handshake(_) | Self::Timeout => "upstream-tls",
        }
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }
}

impl Roots {
    /// Takes certificates as DER. One that cannot be read vouches for nobody: it is left out, as every other client does.
    pub fn new<'a>(roots: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, rustls::Error> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.into_iter().map(CertificateDer::from));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        let mut both = config.clone();
        both.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        let mut one = config;
        one.alpn_protocols = vec![ALPN[1].to_vec()];
        Ok(Self {
            one: Arc::new(one),
            both: Arc::new(both),
        })
    }

    /// Speaks TLS with whom the place names.
    pub async fn connect(
        &self,
        stream: TcpStream,
        place: &Place,
        h2: bool,
    ) -> Result<TlsStream<TcpStream>, UpstreamError> {
        let config = if h2 { &self.both } else { &self.one };
        let name = match place {
            Place::Name(name) => ServerName::try_from(name.as_str().to_owned())
                .map_err(|error| UpstreamError::Handshake(error.to_string()))?,
            Place::Address(address) => ServerName::from(std::net::IpAddr::from(*address)),
        };
        let handshake = TlsConnector::from(Arc::clone(config)).connect(name, stream);
        match timeout(limits::TLS_HANDSHAKE, handshake).await {
            Err(_) => Err(UpstreamError::Timeout),
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(refusal(&error)),
        }
    }
}

fn refusal(error: &io::Error) -> UpstreamError {
    let inner = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match inner {
        Some(error @ rustls::Error::InvalidCertificate(_)) => {
            UpstreamError::Certificate(error.to_string())
        }
        Some(error) => UpstreamError::Handshake(error.to_string()),
        None => UpstreamError::Handshake(error.to_string()),
    }
}

/// A connection out: as it is for `http`, with TLS for `https`.
pub enum Leg {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Leg {
    /// Whether both agreed on HTTP/2.
    pub fn is_h2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Leg {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
