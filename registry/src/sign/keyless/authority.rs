//! The authority (Fulcio): an identity token and a proof that the key is held, for a certificate.
//! <https://github.com/sigstore/fulcio/blob/main/fulcio.proto>

use reqwest::Client;
use serde::{Deserialize, Serialize};
use sigstore_crypto::{KeyPair, parse_certificate_info};
use sigstore_sign::oidc::IdentityToken;
use sigstore_types::{DerCertificate, SignatureBytes};

use super::{KeylessError, asked};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'t> {
    credentials: Credentials<'t>,
    public_key_request: PublicKeyRequest,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credentials<'t> {
    oidc_identity_token: &'t str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PublicKeyRequest {
    public_key: PublicKey,
    proof_of_possession: SignatureBytes,
}

#[derive(Serialize)]
struct PublicKey {
    content: String,
}

/// The two forms differ in where the log of certificates is heard; a bundle holds the certificate alone.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    signed_certificate_embedded_sct: Option<Signed>,
    signed_certificate_detached_sct: Option<Signed>,
}

#[derive(Deserialize)]
struct Signed {
    chain: Chain,
}

#[derive(Deserialize)]
struct Chain {
    certificates: Vec<String>,
}

/// The certificate of `key` for who the token is about.
pub(super) async fn certify(
    client: &Client,
    at: &str,
    token: &IdentityToken,
    key: &KeyPair,
) -> Result<DerCertificate, KeylessError> {
    let unsigned = |_| KeylessError::Sign(crate::sign::SignError::Refused);
    let public_key = key.public_key_der().map_err(unsigned)?;
    let question = Question {
        credentials: Credentials {
            oidc_identity_token: token.expose_secret(),
        },
        public_key_request: PublicKeyRequest {
            public_key: PublicKey {
                content: public_key.to_pem(),
            },
            proof_of_possession: key.sign(token.identity().as_bytes()).map_err(unsigned)?,
        },
    };
    let to = format!("{}/api/v2/signingCert", at.trim_end_matches('/'));
    let answer: Answer = asked::json(client, at, &to, &question).await?;
    let signed = answer
        .signed_certificate_embedded_sct
        .or(answer.signed_certificate_detached_sct);
    let first = signed.and_then(|signed| signed.chain.certificates.into_iter().next());
    let pem = first.ok_or_else(|| asked::failed(at, "answers without a certificate"))?;
    let none = |e: &dyn std::fmt::Display| {
        asked::failed(at, &format!("answers with a certificate that is none: {e}"))
    };
    let certificate = DerCertificate::from_pem(&pem).map_err(|e| none(&e))?;
    let info = parse_certificate_info(&certificate).map_err(|e| none(&e))?;
    if info.public_key != public_key {
        return Err(asked::failed(
            at,
            "answers with a certificate of another key than it was asked for",
        ));
    }
    Ok(certificate)
}
