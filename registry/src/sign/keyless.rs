//! Signing without a key of one's own: an identity is proven to an authority, which certifies a key that lives as long as this
//! command, and a public log and a timestamp say when it signed. What comes back is a bundle that says all of it.

pub(super) mod asked;
mod authority;
mod log;
mod timestamp;

use std::time::Duration;

use schema::address::private_host;
use schema::digest::Digest;
use serde_json::json;
use sigstore_bundle::BundleV03;
use sigstore_crypto::KeyPair;
use sigstore_sign::oidc::IdentityToken;
use sigstore_sign::trust_root::SigningConfig;
use sigstore_sign::{SigningServices, SigstoreInstance};
use sigstore_types::{DsseEnvelope, DsseSignature, KeyId, PayloadBytes};
use thiserror::Error;
use zeroize::Zeroizing;

pub use asked::SERVICE_BYTES;

use super::{SignError, annotations, predicate, statement};
use crate::attestation::{PAYLOAD_TYPE, Statement};
use crate::signature::{COSIGN_SIGN, json as bounds};

/// The longest identity token, in bytes.
pub const TOKEN_BYTES: usize = 64 * 1024;
/// The longest signing configuration, in bytes.
pub const CONFIG_BYTES: usize = 1 << 20;
/// Where Sigstore's public services are.
const PUBLIC: &str = "sigstore.dev";
/// Who tokens have to be for, where they go to Sigstore's public authority.
pub const AUDIENCE: &str = "sigstore";
/// How long each of the services may take.
const LONGEST: Duration = Duration::from_secs(60);

#[derive(Debug, Error)]
pub enum KeylessError {
    #[error("the identity token is longer than {TOKEN_BYTES} bytes")]
    TokenLength,
    #[error("the identity token is none: {0}")]
    Token(String),
    #[error("the identity token ended at {0}")]
    Expired(jiff::Timestamp),
    #[error(
        "the identity token is for {0}, not for {AUDIENCE}: it is not sent to Sigstore's public authority"
    )]
    Audience(String),
    #[error("the identity token is for {0}, not for {1}")]
    OtherAudience(String, String),
    #[error(
        "the identity token is for {AUDIENCE}: whoever runs {0} could sign with it in public, as long as it lasts"
    )]
    PublicAudience(String),
    #[error("the signing configuration is none: {0}")]
    Config(String),
    #[error(
        "{0} is no https address, nor http on this machine: an identity token is not sent there"
    )]
    Address(String),
    #[error("HTTPS cannot be set up: {0}")]
    Setup(String),
    #[error("{0}")]
    Service(String),
    #[error(transparent)]
    Sign(#[from] SignError),
}

/// Where identities are certified and what was signed is noted.
#[derive(Clone, Debug)]
pub struct Services(SigningServices);

/// An identity, for as long as its token.
#[derive(Debug)]
pub struct Identity(IdentityToken);

/// Who signs, and where.
pub struct Keyless {
    services: Services,
    identity: Identity,
    client: reqwest::Client,
}

/// A bundle as a referrer's one layer, and that manifest's annotations.
#[derive(Clone, Debug)]
pub struct Made {
    pub bundle: Vec<u8>,
    pub annotations: std::collections::BTreeMap<String, String>,
}

// === impl Services ===

impl Services {
    /// Sigstore's public-good instance, as its signing configuration was when this program was built.
    ///
    /// # Errors
    /// [`KeylessError::Config`], which a test excludes.
    pub fn public_good() -> Result<Self, KeylessError> {
        SigningServices::from_embedded(SigstoreInstance::PublicGood)
            .map(Self)
            .map_err(|e| KeylessError::Config(e.to_string()))
    }

    /// Those of a `signing_config.json`, which a trusted root's repository has beside it.
    ///
    /// # Errors
    /// [`KeylessError::Config`], or [`KeylessError::Address`].
    pub fn from_config(bytes: &[u8]) -> Result<Self, KeylessError> {
        bounds::bounded(bytes, CONFIG_BYTES).map_err(|e| KeylessError::Config(e.to_string()))?;
        let malformed = |e: &dyn std::fmt::Display| KeylessError::Config(e.to_string());
        let text = std::str::from_utf8(bytes).map_err(|e| malformed(&e))?;
        let config = SigningConfig::from_json(text).map_err(|e| malformed(&e))?;
        let services = SigningServices::from_signing_config(&config).map_err(|e| malformed(&e))?;
        Self(services).checked()
    }

    /// Chosen one by one: an authority, a log that speaks Rekor's API of version 1, and perhaps a timestamp authority.
    ///
    /// # Errors
    /// [`KeylessError::Address`]
    pub fn chosen(
        fulcio: &str,
        rekor: &str,
        timestamp: Option<&str>,
    ) -> Result<Self, KeylessError> {
        let mut services = SigningServices::new(fulcio, rekor);
        if let Some(url) = timestamp {
            services = services.with_tsa_url(url);
        }
        Self(services).checked()
    }

    fn checked(self) -> Result<Self, KeylessError> {
        let all = [Some(self.authority()), Some(self.log()), self.0.tsa_url()];
        all.into_iter().flatten().try_for_each(address)?;
        Ok(self)
    }

    pub fn authority(&self) -> &str {
        self.0.fulcio_url()
    }

    pub fn log(&self) -> &str {
        self.0.rekor_url()
    }

    /// Whether the authority, who sees the token, is Sigstore's public one: by its address, whoever named it.
    pub fn are_public(&self) -> bool {
        is_public(self.authority())
    }

    /// Who a token for these is asked for, where nobody says.
    pub fn audience(&self) -> &str {
        if self.are_public() {
            AUDIENCE
        } else {
            self.authority()
        }
    }

    /// Who gives people tokens, as far as the configuration says.
    pub fn issuer(&self) -> Option<&str> {
        self.0.oidc_url()
    }
}

/// Whether a secret may be sent there.
pub(super) fn address(text: &str) -> Result<(), KeylessError> {
    match private_host(text) {
        Some(_) => Ok(()),
        None => Err(KeylessError::Address(text.escape_debug().to_string())),
    }
}

fn is_public(text: &str) -> bool {
    private_host(text).is_some_and(|host| host == PUBLIC || host.ends_with(&format!(".{PUBLIC}")))
}

// === impl Identity ===

impl Identity {
    /// A token as its issuer wrote it. The authority is who verifies it; here it is only read.
    ///
    /// # Errors
    /// It is no token, or it has ended.
    pub fn from_token(token: &str, now: jiff::Timestamp) -> Result<Self, KeylessError> {
        let token = token.trim();
        if token.len() > TOKEN_BYTES {
            return Err(KeylessError::TokenLength);
        }
        // What is wrong with it is said without a word of it.
        let read = IdentityToken::from_jwt(token)
            .map_err(|_| KeylessError::Token("not three parts with claims in the second".into()))?;
        if read.expiration() <= now {
            return Err(KeylessError::Expired(read.expiration()));
        }
        Ok(Self(read))
    }

    /// What the certificate will say, as far as it is known here.
    pub fn subject(&self) -> &str {
        self.0.identity()
    }

    pub fn issuer(&self) -> &str {
        self.0.issuer()
    }
}

// === impl Keyless ===

impl Keyless {
    /// A token for Sigstore's public authority goes to no other, unless `audience` says that it is meant.
    ///
    /// # Errors
    /// The token is not for these services, or a root is no certificate.
    pub fn new(
        services: Services,
        identity: Identity,
        audience: Option<&str>,
        roots: &[Vec<u8>],
    ) -> Result<Self, KeylessError> {
        let own = &identity.0.claims().aud;
        if services.are_public() {
            if !own.contains(AUDIENCE) {
                return Err(KeylessError::Audience(format!("{own:?}")));
            }
        } else if let Some(named) = audience {
            if !own.contains(named) {
                let named = named.escape_debug().to_string();
                return Err(KeylessError::OtherAudience(format!("{own:?}"), named));
            }
        } else if own.contains(AUDIENCE) {
            let authority = services.authority().escape_debug().to_string();
            return Err(KeylessError::PublicAudience(authority));
        }
        Ok(Self {
            services,
            identity,
            client: client(roots)?,
        })
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A signature of an image, or of anything else that a registry knows by digest.
    ///
    /// # Errors
    /// One of the services does not do its part.
    pub async fn image(&self, subject: &Digest) -> Result<Made, KeylessError> {
        let statement = statement(subject, None, COSIGN_SIGN, &json!({}));
        self.statement(&statement, COSIGN_SIGN).await
    }

    /// An attestation, as [`super::attest`] makes it with a key.
    ///
    /// # Errors
    /// The predicate is no JSON or too long, or one of the services does not do its part.
    pub async fn attest(
        &self,
        subject: &Digest,
        name: &str,
        predicate_type: &str,
        bytes: &[u8],
    ) -> Result<Made, KeylessError> {
        let statement = statement(subject, Some(name), predicate_type, &predicate(bytes)?);
        self.statement(&statement, predicate_type).await
    }

    async fn statement(
        &self,
        statement: &[u8],
        predicate_type: &str,
    ) -> Result<Made, KeylessError> {
        // What we would not read we do not sign.
        Statement::parse(statement).map_err(SignError::from)?;
        let services = &self.services.0;
        services
            .validate()
            .map_err(|e| KeylessError::Config(e.to_string()))?;
        let unsigned = |_| SignError::Refused;
        let key = KeyPair::generate_ecdsa_p256().map_err(unsigned)?;
        let (client, token) = (&self.client, &self.identity.0);
        let certificate = authority::certify(client, services.fulcio_url(), token, &key).await?;
        let signed = sigstore_types::pae(PAYLOAD_TYPE, statement);
        let signature = key.sign(&signed).map_err(unsigned)?;
        let envelope = DsseEnvelope::new(
            PAYLOAD_TYPE,
            PayloadBytes::new(statement.to_vec()),
            DsseSignature::new(signature.clone(), KeyId::default()),
        );
        let (log, version) = (services.rekor_url(), services.rekor_api_version());
        let entry = log::note(client, log, version, &envelope, &certificate).await?;
        let mut bundle =
            BundleV03::with_certificate_and_dsse(certificate, envelope).with_tlog_entry(entry);
        if let Some(at) = services.tsa_url() {
            let stamp = timestamp::stamp(client, at, &signature).await?;
            bundle = bundle.with_rfc3161_timestamp(stamp);
        }
        let bundle = bundle
            .into_bundle()
            .to_json()
            .map_err(|e| SignError::Bundle(e.to_string()))?;
        Ok(Made {
            bundle: bundle.into_bytes(),
            annotations: annotations(predicate_type),
        })
    }
}

/// What talks to Sigstore's services and to issuers: it follows nothing, because what it sends holds a token.
pub(crate) fn client(roots: &[Vec<u8>]) -> Result<reqwest::Client, KeylessError> {
    let setup = |e: reqwest::Error| KeylessError::Setup(e.to_string());
    let roots = roots
        .iter()
        .map(|der| reqwest::Certificate::from_der(der))
        .collect::<Result<Vec<_>, _>>()
        .map_err(setup)?;
    reqwest::Client::builder()
        .user_agent(concat!("agentcontainer/", env!("CARGO_PKG_VERSION")))
        .tls_certs_only(roots)
        .timeout(LONGEST)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(setup)
}

/// A token that is wiped when it is gone.
pub type Token = Zeroizing<String>;

#[cfg(test)]
#[path = "keyless/tests.rs"]
mod tests;
