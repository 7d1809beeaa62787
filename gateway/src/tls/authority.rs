//! The session's own certificate authority: an ECDSA P-256 key made in this process's memory and kept there, and leaves for
//! the names that the session dials, minted when they are first needed and forgotten in order. Used by `tls::accept`;
//! `run` tells the enforcer the certificate, which is all that ever leaves.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SigningKey};
use schema::session::AUTHORITY;
use time::OffsetDateTime;

use crate::limits;
use crate::state::Place;

/// What an `https` connection may speak inside, in the order the gateway likes it.
pub const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("no random bytes: {0}")]
    Random(#[from] getrandom::Error),
    #[error("the clock says a time that no certificate can")]
    Clock,
}

/// The authority, with the leaves that are remembered.
pub struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// Every leaf has this key: it never leaves this process either.
    leaf_key: KeyPair,
    leaf_signer: Arc<dyn SigningKey>,
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn rustls::server::ProducesTickets>,
    leaves: Mutex<Leaves>,
    lives: Lives,
}

/// How long certificates are good for; constants in production, shorter in tests.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    pub authority: Duration,
    pub leaf: Duration,
    /// How far before now they begin, for clocks inside that are behind.
    pub skew: Duration,
}

impl Default for Lives {
    fn default() -> Self {
        Self {
            authority: limits::CA_LIFE,
            leaf: limits::LEAF_LIFE,
            skew: limits::CLOCK_SKEW,
        }
    }
}

#[derive(Default)]
struct Leaves {
    by_place: HashMap<Place, Leaf>,
    /// In the order they were minted.
    order: VecDeque<Place>,
}

struct Leaf {
    config: Arc<ServerConfig>,
    /// When another one is minted.
    until: SystemTime,
    /// When it was minted: a clock that was set back makes another one too.
    since: SystemTime,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    pub fn new(lives: Lives) -> Result<Self, AuthorityError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let now = SystemTime::now();
        (params.not_before, params.not_after) = validity(now, lives.skew, lives.authority)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let serial = serial()?;
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, AUTHORITY);
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.self_signed(&key)?.der().clone();
        let issuer = Issuer::new(params, key);
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let pkcs8 = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let leaf_signer = provider.key_provider.load_private_key(pkcs8)?;
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        Ok(Self {
            certificate,
            issuer,
            leaf_key,
            leaf_signer,
            provider,
            ticketer,
            leaves: Mutex::default(),
            lives,
        })
    }

    /// The certificate that clients have to trust.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// How a connection that was dialled to that place is answered. Only for places that the session's pool or policy knows.
    pub fn server(&self, place: &Place) -> Result<Arc<ServerConfig>, AuthorityError> {
        let now = SystemTime::now();
        let mut leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leaf) = leaves.by_place.get(place)
            && (leaf.since..leaf.until).contains(&now)
        {
            return Ok(Arc::clone(&leaf.config));
        }
        let config = Arc::new(self.mint(place, now)?);
        let leaf = Leaf {
            config: Arc::clone(&config),
            since: now,
            until: now + self.lives.leaf / 2,
        };
        if leaves.by_place.insert(place.clone(), leaf).is_none() {
            leaves.order.push_back(place.clone());
        }
        if leaves.order.len() > limits::LEAVES
            && let Some(oldest) = leaves.order.pop_front()
        {
            leaves.by_place.remove(&oldest);
        }
        Ok(config)
    }

    fn mint(&self, place: &Place, now: SystemTime) -> Result<ServerConfig, AuthorityError> {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = validity(now, self.lives.skew, self.lives.leaf)?;
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![match place {
            // A subject's name would be bounded at 64 characters: the alternative name says it all (RFC 6125, 6.4.4).
            Place::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Place::Address(address) => SanType::IpAddress((*address).into()),
        }];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        params.serial_number = Some(SerialNumber::from_slice(&serial()?));
        let leaf = params.signed_by(&self.leaf_key, &self.issuer)?;
        let certified = CertifiedKey::new(vec![leaf.der().clone()], Arc::clone(&self.leaf_signer));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(One(Arc::new(certified))));
        config.alpn_protocols = ALPN.iter().map(|name| name.to_vec()).collect();
        // Sessions are kept by the clients; rustls takes a ticket back for the same server name only.
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.ticketer = Arc::clone(&self.ticketer);
        config.send_tls13_tickets = 1;
        Ok(config)
    }
}

/// From `skew` before now for as long as `life`.
fn validity(
    now: SystemTime,
    skew: Duration,
    life: Duration,
) -> Result<(OffsetDateTime, OffsetDateTime), AuthorityError> {
    let from = now.checked_sub(skew).ok_or(AuthorityError::Clock)?;
    let to = now.checked_add(life).ok_or(AuthorityError::Clock)?;
    Ok((from.into(), to.into()))
}

/// Sixteen random bytes, positive as DER has it (RFC 5280, 4.1.2.2).
fn serial() -> Result<[u8; 16], AuthorityError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)?;
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use schema::host::HostName;

    fn place(name: &str) -> Place {
        Place::Name(HostName::parse(name).unwrap())
    }

    #[test]
    fn a_leaf_is_minted_once_and_the_oldest_makes_room() {
        let authority = Authority::new(Lives::default()).unwrap();
        let first = authority.server(&place("a.example.com")).unwrap();
        for n in 1..limits::LEAVES {
            authority
                .server(&place(&format!("n{n}.example.com")))
                .unwrap();
        }
        let again = authority.server(&place("a.example.com")).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "{} are kept", limits::LEAVES);
        authority.server(&place("one.more.example.com")).unwrap();
        assert_eq!(
            authority.leaves.lock().unwrap().by_place.len(),
            limits::LEAVES
        );
        let anew = authority.server(&place("a.example.com")).unwrap();
        assert!(!Arc::ptr_eq(&first, &anew), "one more is too many");
    }

    #[test]
    fn a_leaf_whose_life_is_half_over_is_minted_anew() {
        let lives = Lives {
            leaf: Duration::from_millis(20),
            ..Lives::default()
        };
        let authority = Authority::new(lives).unwrap();
        let first = authority.server(&place("a.example.com")).unwrap();
        std::thread::sleep(Duration::from_millis(15));
        let anew = authority.server(&place("a.example.com")).unwrap();
        assert!(!Arc::ptr_eq(&first, &anew));
    }

    #[derive(Debug)]
    struct Clock(SystemTime);

    impl rustls::time_provider::TimeProvider for Clock {
        fn current_time(&self) -> Option<rustls::pki_types::UnixTime> {
            let since = self.0.duration_since(SystemTime::UNIX_EPOCH).ok()?;
            Some(rustls::pki_types::UnixTime::since_unix_epoch(since))
        }
    }

    /// Whether a client whose clock says that trusts what it is shown.
    fn is_trusted(authority: &Authority, at: SystemTime) -> bool {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.certificate().clone()).unwrap();
        let provider = Arc::clone(&authority.provider);
        let client = rustls::ClientConfig::builder_with_details(provider, Arc::new(Clock(at)))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = "a.example.com".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(Arc::new(client), name).unwrap();
        let server = authority.server(&place("a.example.com")).unwrap();
        let mut server = rustls::ServerConnection::new(server).unwrap();
        for _ in 0..4 {
            let mut flight = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut flight).unwrap();
            }
            server.read_tls(&mut flight.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            client.read_tls(&mut flight.as_slice()).unwrap();
            if client.process_new_packets().is_err() {
                return false;
            }
        }
        assert!(!client.is_handshaking());
        true
    }

    #[test]
    fn a_client_whose_clock_is_a_day_behind_trusts_what_it_is_shown() {
        let authority = Authority::new(Lives::default()).unwrap();
        let (now, minute) = (SystemTime::now(), Duration::from_secs(60));
        assert!(is_trusted(&authority, now));
        assert!(is_trusted(&authority, now - limits::CLOCK_SKEW + minute));
        assert!(!is_trusted(&authority, now - limits::CLOCK_SKEW - minute));
        assert!(is_trusted(
            &authority,
            now + limits::LEAF_LIFE - limits::CLOCK_SKEW
        ));
        assert!(!is_trusted(&authority, now + limits::LEAF_LIFE + minute));
    }

    #[test]
    fn every_authority_has_the_one_name_that_it_is_looked_for_by() {
        // A sequence of one set of one attribute: commonName, UTF8String (RFC 5280, 4.1.2.4), as OpenSSL hashes it.
        let text = AUTHORITY.as_bytes();
        let length = u8::try_from(text.len()).unwrap();
        let mut name = vec![0x30, length + 11, 0x31, length + 9, 0x30, length + 7];
        name.extend([0x06, 3, 0x55, 4, 3, 0x0c, length]);
        name.extend(text);
        let authority = Authority::new(Lives::default()).unwrap();
        let der = authority.certificate();
        // As issuer and as subject.
        let named = der.windows(name.len()).filter(|part| *part == name);
        assert_eq!(named.count(), 2);
    }

    #[test]
    fn authorities_have_nothing_but_their_name_in_common_and_show_no_key() {
        let (one, other) = (
            Authority::new(Lives::default()).unwrap(),
            Authority::new(Lives::default()).unwrap(),
        );
        assert_ne!(one.certificate(), other.certificate());
        assert_eq!(format!("{one:?}"), "Authority { .. }");
    }
}
