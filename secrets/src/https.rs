//! One request at a time to a service that holds secrets: TLS by the host's own roots, nothing of it bounded by the other side's
//! good will, no redirect followed, and answers in memory that is wiped. Used by the sources that are services.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// Longest answer in bytes.
pub const MAX_ANSWER_BYTES: usize = 256 << 10;
/// Longest head of an answer in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long one connection may take to come up, at one address.
const CONNECT: Duration = Duration::from_secs(10);
/// How long one request may take, from its name to the answer's end.
pub const REQUEST: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub enum HttpsError {
    #[error("the name cannot be resolved: {0}")]
    Resolve(String),
    #[error("it cannot be reached: {0}")]
    Connect(std::io::Error),
    #[error("TLS: {0}")]
    Tls(std::io::Error),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    #[error("it did not answer as a web server does: {0}")]
    Http(#[from] hyper::Error),
    #[error("its answer is longer than {MAX_ANSWER_BYTES} bytes")]
    Long,
    #[error("it did not answer within {} s", REQUEST.as_secs())]
    Deadline,
    #[error("what would be sent cannot stand in a request")]
    Unfit,
}

/// What came back.
pub struct Answer {
    pub status: u16,
    pub body: Zeroizing<Vec<u8>>,
}

/// One service.
pub struct Service {
    host: String,
    port: u16,
    tls: Arc<rustls::ClientConfig>,
}

/// A request, without what every one has.
pub struct Ask<'a> {
    pub method: Method,
    /// Path and query, encoded.
    pub target: &'a str,
    pub headers: &'a [(&'static str, &'a str)],
    pub body: Option<(&'static str, Zeroizing<Vec<u8>>)>,
}

impl Service {
    /// `roots` are DER; one that is no certificate verifies nothing.
    pub fn new(host: &str, port: u16, roots: &[Vec<u8>]) -> Result<Self, HttpsError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            let _ = store.add(CertificateDer::from(root.as_slice()));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(store)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            host: host.to_owned(),
            port,
            tls: Arc::new(tls),
        })
    }

    /// Asks, on a connection of its own.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<Answer, HttpsError> {
        tokio::time::timeout(REQUEST, self.exchange(ask))
            .await
            .map_err(|_| HttpsError::Deadline)?
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Answer, HttpsError> {
        let request = self.request(ask)?;
        let stream = self.connect().await?;
        let name = ServerName::try_from(self.host.clone()).map_err(|_| HttpsError::Unfit)?;
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(name, stream)
            .await
            .map_err(HttpsError::Tls)?;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        let work = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let mut body = response.into_body();
            // In place and once: a vector that grows leaves copies behind.
            let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
            while let Some(frame) = body.frame().await {
                if let Ok(data) = frame?.into_data() {
                    if bytes.len() + data.len() > MAX_ANSWER_BYTES {
                        return Err(HttpsError::Long);
                    }
                    bytes.extend_from_slice(&data);
                }
            }
            Ok(Answer {
                status,
                body: bytes,
            })
        };
        tokio::pin!(work, connection);
        tokio::select! {
            answer = &mut work => answer,
            // Its end may come before the answer is read out of it.
            ended = &mut connection => {
                ended?;
                work.await
            }
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, HttpsError> {
        let authority = match self.port {
            443 => self.host.clone(),
            port => format!("{}:{port}", self.host),
        };
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.target)
            .header("host", authority)
            .header("user-agent", "agentcontainer")
            .header("accept", "application/json");
        for (name, value) in ask.headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| HttpsError::Unfit)?;
            value.set_sensitive(true);
            request = request.header(HeaderName::from_static(name), value);
        }
        let body = match ask.body {
            Some((kind, bytes)) => {
                request = request.header("content-type", kind);
                Bytes::copy_from_slice(&bytes)
            }
            None => Bytes::new(),
        };
        request.body(Full::new(body)).map_err(|_| HttpsError::Unfit)
    }

    async fn connect(&self) -> Result<TcpStream, HttpsError> {
        let mut last = HttpsError::Resolve("it has no address".to_owned());
        for address in self.addresses().await? {
            let connecting = TcpStream::connect(SocketAddr::new(address, self.port));
            match tokio::time::timeout(CONNECT, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = HttpsError::Connect(error),
                Err(_) => last = HttpsError::Connect(std::io::ErrorKind::TimedOut.into()),
            }
        }
        Err(last)
    }

    /// A static glibc resolves no name: hickory does, `/etc/hosts` included.
    async fn addresses(&self) -> Result<Vec<IpAddr>, HttpsError> {
        if let Ok(address) = self.host.trim_matches(['[', ']']).parse() {
            return Ok(vec![address]);
        }
        let failed =
            |error: hickory_resolver::net::NetError| HttpsError::Resolve(error.to_string());
        let resolver = TokioResolver::builder_tokio()
            .and_then(|builder| builder.build())
            .map_err(failed)?;
        let found = resolver
            .lookup_ip(self.host.as_str())
            .await
            .map_err(failed)?;
        Ok(found.iter().collect())
    }
}
