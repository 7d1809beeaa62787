//! hudsucker as a proxy that reads TLS: mints leaves by the bench's root, verifies the far side by it, changes nothing, with the
//! gateway's two threads. `bench-hudsucker PORT ROOT.pem ROOT.key`.

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};

use hudsucker::Proxy;
use hudsucker::certificate_authority::RcgenAuthority;
use hudsucker::rcgen::{Issuer, KeyPair};
use hudsucker::rustls::crypto::aws_lc_rs;
use hudsucker::rustls::pki_types::CertificateDer;
use hudsucker::rustls::pki_types::pem::PemObject;
use hudsucker::rustls::{ClientConfig, RootCertStore};
use hyper_rustls::HttpsConnectorBuilder;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [port, root, key] = words.as_slice() else {
        return Err("bench-hudsucker PORT ROOT.pem ROOT.key".into());
    };
    let pair = KeyPair::from_pem(&std::fs::read_to_string(key)?)?;
    let issuer = Issuer::from_ca_cert_pem(&std::fs::read_to_string(root)?, pair)?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(root)?)?;
    let config = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .enable_http2()
        .build();
    Proxy::builder()
        .with_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port.parse()?)))
        .with_ca(RcgenAuthority::new(
            issuer,
            1_000,
            aws_lc_rs::default_provider(),
        ))
        .with_http_connector(connector)
        .build()?
        .start()
        .await?;
    Ok(())
}
