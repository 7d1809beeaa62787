//! The timestamp authority, who says when a signature was there (RFC 3161). Whether it may be believed is who verifies it to say; that
//! it answers this question and no other is seen here.

mod answer;

use answer::{Algorithm, Imprint, Told, told};
use der::asn1::{Any, ObjectIdentifier, OctetString, Uint};
use der::{Encode, Sequence};
use reqwest::Client;
use sigstore_crypto::sha256;
use sigstore_types::{SignatureBytes, TimestampToken};
use zeroize::Zeroizing;

use super::{KeylessError, asked};

const SHA_256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// RFC 3161, 2.4.1.
#[derive(Sequence)]
struct Question {
    version: u8,
    imprint: Imprint,
    nonce: Uint,
    certificates: bool,
}

/// The authority's word about a signature.
pub(super) async fn stamp(
    client: &Client,
    at: &str,
    signature: &SignatureBytes,
) -> Result<TimestampToken, KeylessError> {
    let question = Question::about(signature)?;
    let unwritten = |e: der::Error| KeylessError::Setup(e.to_string());
    let body = Zeroizing::new(question.to_der().map_err(unwritten)?);
    let answer = asked::bytes(client, at, at, "application/timestamp-query", body).await?;
    match question.is_answered_by(&answer) {
        Ok(true) => Ok(TimestampToken::new(answer.to_vec())),
        Ok(false) => Err(asked::failed(at, "answers another question")),
        Err(e) => Err(asked::failed(
            at,
            &format!("answers without a timestamp: {e}"),
        )),
    }
}

// === impl Question ===

impl Question {
    fn about(signature: &SignatureBytes) -> Result<Self, KeylessError> {
        let unwritten = |e: der::Error| KeylessError::Setup(e.to_string());
        let mut nonce = [0; 8];
        aws_lc_rs::rand::fill(&mut nonce)
            .map_err(|_| KeylessError::Setup("no randomness".into()))?;
        let hash = sha256(signature.as_bytes());
        Ok(Self {
            version: 1,
            imprint: Imprint {
                algorithm: Algorithm {
                    oid: SHA_256,
                    parameters: None,
                },
                hash: OctetString::new(hash.as_bytes()).map_err(unwritten)?,
            },
            nonce: Uint::new(&nonce).map_err(unwritten)?,
            certificates: true,
        })
    }

    /// Whether it is about the same hash, with the same number (RFC 3161, 2.4.2).
    fn is_answered_by(&self, answer: &[u8]) -> der::Result<bool> {
        let Some(Told { imprint, nonce }) = told(answer)? else {
            return Ok(false);
        };
        Ok(imprint.algorithm.oid == SHA_256
            && imprint.hash == self.imprint.hash
            && nonce == Some(Any::encode_from(&self.nonce)?))
    }
}

#[cfg(test)]
#[path = "timestamp/tests.rs"]
mod tests;
