//! Private keys as people have them: PKCS#8 as openssl writes it, and cosign's own files, encrypted with a password (scrypt, then
//! NaCl's secretbox). Of every kind that is verified: ECDSA P-256 and P-384, Ed25519, RSA.

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use schema::digest::Digest;
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use super::SignError;
use crate::signature::json;

/// The longest private key's file.
pub const PRIVATE_KEY_BYTES: usize = 64 << 10;
/// The longest password.
pub const PASSWORD_BYTES: usize = 1 << 10;
/// What scrypt may be asked to spend: 2¹⁸ blocks of 16 × 128 bytes are half a GiB.
const LOG_N: u32 = 18;
const R: u32 = 16;
const P: u32 = 4;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("the private key's file is longer than {PRIVATE_KEY_BYTES} bytes")]
    TooLong,
    #[error("no PEM: {0}")]
    Pem(String),
    #[error(
        "a PEM block `{0}`; known are `PRIVATE KEY` (`openssl pkcs8 -topk8 -nocrypt` makes it) and cosign's `ENCRYPTED SIGSTORE PRIVATE KEY`"
    )]
    Label(String),
    #[error("the key is encrypted, and there is no password")]
    NoPassword,
    #[error("the password is longer than {PASSWORD_BYTES} bytes")]
    PasswordTooLong,
    #[error("the password does not open the key")]
    WrongPassword,
    #[error("the key is not encrypted as cosign does it: {0}")]
    Encryption(String),
    #[error(
        "not a private key of a kind that is known: ECDSA P-256 or P-384, Ed25519, RSA of 2048 bits or more"
    )]
    Kind,
}

/// A private key that signs. Its value is shown nowhere.
pub struct SigningKey {
    pair: Pair,
    public: PublicKeyX509Der<'static>,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

#[derive(Deserialize)]
struct Encrypted {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: Params,
    salt: String,
}

#[derive(Deserialize)]
struct Params {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

// === impl SigningKey ===

impl SigningKey {
    /// # Errors
    /// [`KeyError`]: what is wrong with file or password.
    pub fn from_pem(file: &[u8], password: Option<&[u8]>) -> Result<Self, KeyError> {
        if file.len() > PRIVATE_KEY_BYTES {
            return Err(KeyError::TooLong);
        }
        let block = pem::parse(file).map_err(|error| KeyError::Pem(error.to_string()))?;
        let pkcs8 = match block.tag() {
            "PRIVATE KEY" => Zeroizing::new(block.into_contents()),
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let password = password.ok_or(KeyError::NoPassword)?;
                decrypted(block.contents(), password)?
            }
            other => return Err(KeyError::Label(other.to_owned())),
        };
        Self::from_pkcs8(&pkcs8)
    }

    fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, KeyError> {
        let ecdsa = [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
        ];
        let pair = ecdsa
            .iter()
            .find_map(|algorithm| EcdsaKeyPair::from_pkcs8(algorithm, pkcs8).ok())
            .map(Pair::Ecdsa)
            .or_else(|| {
                // openssl and Go write the first version of the format, which has no public key to compare with.
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok();
                pair.map(Pair::Ed25519)
            })
            .or_else(|| RsaKeyPair::from_pkcs8(pkcs8).ok().map(Pair::Rsa))
            .ok_or(KeyError::Kind)?;
        let public = match &pair {
            Pair::Ecdsa(pair) => pair.public_key().as_der(),
            Pair::Ed25519(pair) => pair.public_key().as_der(),
            Pair::Rsa(pair) => pair.public_key().as_der(),
        }
        .map_err(|_| KeyError::Kind)?;
        Ok(Self { pair, public })
    }

    /// The digest of the public key's SubjectPublicKeyInfo: the same as [`crate::signature::Key::id`].
    pub fn id(&self) -> Digest {
        Digest::of(self.public.as_ref())
    }

    /// The public key, for who verifies.
    pub fn public_pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("PUBLIC KEY", self.public.as_ref()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ecdsa(pair) => pair
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError::Refused),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| SignError::Refused)?;
                Ok(signature)
            }
        }
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SigningKey").field(&self.id()).finish()
    }
}

fn decrypted(contents: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    if password.len() > PASSWORD_BYTES {
        return Err(KeyError::PasswordTooLong);
    }
    let wrong = |what: &str| KeyError::Encryption(what.to_owned());
    json::bounded(contents, PRIVATE_KEY_BYTES).map_err(|error| wrong(&error.to_string()))?;
    let file: Encrypted =
        serde_json::from_slice(contents).map_err(|error| wrong(&error.to_string()))?;
    if file.kdf.name != "scrypt" || file.cipher.name != "nacl/secretbox" {
        return Err(wrong("another cipher"));
    }
    let Params { n, r, p } = file.kdf.params;
    let cost = n.is_power_of_two().then(|| n.ilog2());
    let params = cost
        .filter(|cost| (1..=LOG_N).contains(cost) && r <= R && p <= P)
        .and_then(|cost| u8::try_from(cost).ok())
        .and_then(|cost| scrypt::Params::new(cost, r, p, 32).ok())
        .ok_or_else(|| wrong("its cost is out of bounds"))?;
    let decode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|error| wrong(&error.to_string()))
    };
    let nonce: [u8; 24] = decode(&file.cipher.nonce)?
        .try_into()
        .map_err(|_| wrong("its nonce is not 24 bytes"))?;
    let mut key = Zeroizing::new([0; 32]);
    scrypt::scrypt(password, &decode(&file.kdf.salt)?, &params, key.as_mut())
        .map_err(|error| wrong(&error.to_string()))?;
    XSalsa20Poly1305::new(key.as_ref().into())
        .decrypt(&nonce.into(), decode(&file.ciphertext)?.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| KeyError::WrongPassword)
}
