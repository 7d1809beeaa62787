//! What cosign puts beside an image under tags: a simple-signing payload or an envelope as a layer, the rest in its annotations. Both
//! are rewritten as the bundle that says the same, so that there is one place where signatures are verified.
//! <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use sigstore_types::{
    Artifact, Bundle, CanonicalizedBody, DerCertificate, DsseEnvelope, InclusionPromise,
    KindVersion, LogId, LogIndex, LogKeyId, MediaType, MessageSignature, PublicKeyIdentifier,
    Rfc3161Timestamp, SignatureBytes, SignatureContent, SignedTimestamp, TimestampToken,
    TimestampVerificationData, TransparencyLogEntry, VerificationMaterial,
    VerificationMaterialContent, X509Certificate,
};

use super::bundle::{AUTHORITIES, BUNDLE_BYTES, Signed, counted, signed};
use super::report::{Meaning, Reason, Refusal};
use super::{Subject, json};

/// The longest simple-signing payload.
pub const PAYLOAD_BYTES: usize = 64 << 10;
/// The longest annotation. A log's entry holds the signed statement once more.
pub const ANNOTATION_BYTES: usize = 1 << 20;

/// The annotations of a layer that are about its signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    pub signature: Option<String>,
    pub certificate: Option<String>,
    pub chain: Option<String>,
    pub bundle: Option<String>,
    pub timestamp: Option<String>,
}

/// The payload that says which image is signed. What is `critical` has to be understood, so there is nothing else in it.
#[derive(Deserialize)]
struct SimpleSigning {
    critical: Critical,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Critical {
    #[serde(rename = "identity")]
    _identity: serde::de::IgnoredAny,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

const KINDS: [&str; 2] = [
    "cosign container image signature",
    "atomic container signature",
];

/// Rekor's promise, as cosign writes it.
#[derive(Deserialize)]
struct RekorBundle {
    #[serde(rename = "SignedEntryTimestamp")]
    promise: String,
    #[serde(rename = "Payload")]
    payload: RekorPayload,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RekorPayload {
    body: String,
    integrated_time: i64,
    log_index: u64,
    #[serde(rename = "logID")]
    log_id: String,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
    #[serde(rename = "apiVersion")]
    version: String,
}

#[derive(Deserialize)]
struct Timestamped {
    #[serde(rename = "SignedRFC3161Timestamp")]
    token: String,
}

// === impl Annotations ===

impl Annotations {
    /// From a layer's annotations; others are passed over.
    pub fn of<'m>(get: impl Fn(&str) -> Option<&'m String>) -> Self {
        let of = |name: &str| get(name).filter(|text| !text.is_empty()).cloned();
        Self {
            signature: of("dev.cosignproject.cosign/signature"),
            certificate: of("dev.sigstore.cosign/certificate"),
            chain: of("dev.sigstore.cosign/chain"),
            bundle: of("dev.sigstore.cosign/bundle"),
            timestamp: of("dev.sigstore.cosign/rfc3161timestamp"),
        }
    }

    fn bounded(&self) -> Result<(), Refusal> {
        let all = [
            &self.signature,
            &self.certificate,
            &self.chain,
            &self.bundle,
            &self.timestamp,
        ];
        for annotation in all.into_iter().flatten() {
            json::bounded(annotation.as_bytes(), ANNOTATION_BYTES)?;
        }
        Ok(())
    }
}

impl From<&BTreeMap<String, String>> for Annotations {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self::of(|name| map.get(name))
    }
}

/// # Errors
/// [`Refusal`]: beyond a bound, malformed, about another image.
pub(super) fn signature<'a>(
    payload: &'a [u8],
    annotations: &Annotations,
    subject: &Subject<'_>,
) -> Result<Signed<'a>, Refusal> {
    json::bounded(payload, PAYLOAD_BYTES)?;
    annotations.bounded()?;
    let simple: SimpleSigning =
        serde_json::from_slice(payload).map_err(|error| malformed("payload", &error))?;
    if !KINDS.contains(&simple.critical.kind.as_str()) {
        return Err(Refusal::new(
            Reason::Unsupported,
            format!("a payload of type {:?}", simple.critical.kind),
        ));
    }
    let named = simple.critical.image.digest;
    if subject.sha256_hex().map(|hex| format!("sha256:{hex}")) != Some(named) {
        return Err(Refusal::new(
            Reason::WrongSubject,
            format!("the payload names another image than {subject}"),
        ));
    }
    let signature = annotations
        .signature
        .as_deref()
        .ok_or_else(|| Refusal::new(Reason::Malformed, "no signature beside the payload"))?;
    let signature = STANDARD
        .decode(signature)
        .map_err(|error| malformed("signature", &error))?;
    let content =
        SignatureContent::MessageSignature(MessageSignature::new(SignatureBytes::new(signature)));
    let bundle = bundle(content, annotations)?;
    counted(&bundle)?;
    // The message is the payload; that it is about the subject was seen above.
    Ok(Signed {
        bundle,
        over: Artifact::from_blob(payload),
        meaning: Meaning::Signature,
        statement: None,
    })
}

/// # Errors
/// [`Refusal`]: beyond a bound, malformed, about other subjects.
pub(super) fn attestation<'a>(
    envelope: &[u8],
    annotations: &Annotations,
    subject: &Subject<'a>,
) -> Result<Signed<'a>, Refusal> {
    json::bounded(envelope, BUNDLE_BYTES)?;
    annotations.bounded()?;
    let envelope: DsseEnvelope =
        serde_json::from_slice(envelope).map_err(|error| malformed("envelope", &error))?;
    let content = SignatureContent::DsseEnvelope(envelope);
    signed(bundle(content, annotations)?, subject)
}

fn bundle(content: SignatureContent, annotations: &Annotations) -> Result<Bundle, Refusal> {
    let signer = match &annotations.certificate {
        None => VerificationMaterialContent::PublicKey(PublicKeyIdentifier::new("")),
        Some(certificate) => {
            let mut certificates = pem("certificate", certificate)?;
            if certificates.len() != 1 {
                return Err(Refusal::new(
                    Reason::Malformed,
                    "not one certificate beside the payload",
                ));
            }
            if let Some(chain) = &annotations.chain {
                certificates.extend(pem("chain", chain)?);
            }
            VerificationMaterialContent::X509CertificateChain { certificates }
        }
    };
    let mut material = VerificationMaterial::new(signer);
    // A promise alone is what v0.1 asks for; later ones ask for a proof, which cosign's tags do not carry.
    let mut version = MediaType::Bundle0_2;
    if let Some(text) = &annotations.bundle {
        version = MediaType::Bundle0_1;
        material = material.with_tlog_entries(vec![entry(text)?]);
    }
    if let Some(text) = &annotations.timestamp {
        let stamped: Timestamped =
            serde_json::from_str(text).map_err(|error| malformed("timestamp", &error))?;
        let token = TimestampToken::from_base64(&stamped.token)
            .map_err(|error| malformed("timestamp", &error))?;
        material = material.with_timestamp_verification_data(TimestampVerificationData::new(vec![
            Rfc3161Timestamp::new(token),
        ]));
    }
    Ok(Bundle::new(version, material, content))
}

fn entry(text: &str) -> Result<TransparencyLogEntry, Refusal> {
    let bad = |error: &dyn std::fmt::Display| malformed("log entry", error);
    let rekor: RekorBundle = serde_json::from_str(text).map_err(|error| bad(&error))?;
    let body = STANDARD
        .decode(&rekor.payload.body)
        .map_err(|error| bad(&error))?;
    json::bounded(&body, ANNOTATION_BYTES)?;
    let kind: Kind = serde_json::from_slice(&body).map_err(|error| bad(&error))?;
    let kind = match (kind.kind.as_str(), kind.version.as_str()) {
        ("hashedrekord", "0.0.1") => KindVersion::HashedRekordV001,
        ("dsse", "0.0.1") => KindVersion::DsseV001,
        ("intoto", "0.0.2") => KindVersion::IntotoV002,
        (kind, version) => {
            return Err(Refusal::new(
                Reason::Unsupported,
                format!("a log entry of kind {kind:?} {version:?}"),
            ));
        }
    };
    let promise = SignedTimestamp::from_base64(&rekor.promise).map_err(|error| bad(&error))?;
    let log =
        sigstore_types::Sha256Hash::from_hex(&rekor.payload.log_id).map_err(|error| bad(&error))?;
    let index = LogIndex::new(rekor.payload.log_index).map_err(|error| bad(&error))?;
    let time =
        jiff::Timestamp::from_second(rekor.payload.integrated_time).map_err(|error| bad(&error))?;
    let log = LogId::new(LogKeyId::from_bytes(log.as_bytes()));
    Ok(
        TransparencyLogEntry::new(index, log, kind, CanonicalizedBody::from_bytes(&body))
            .with_integrated_time(time)
            .with_inclusion_promise(InclusionPromise::new(promise)),
    )
}

fn pem(what: &str, text: &str) -> Result<Vec<X509Certificate>, Refusal> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
        let der = certificate.map_err(|_| malformed(what, &"damaged PEM"))?;
        if certificates.len() == AUTHORITIES {
            return Err(Refusal::new(
                Reason::TooLarge,
                format!("more than {AUTHORITIES} certificates"),
            ));
        }
        certificates.push(X509Certificate::new(DerCertificate::from_bytes(&der)));
    }
    Ok(certificates)
}

fn malformed(what: &str, error: &dyn std::fmt::Display) -> Refusal {
    Refusal::new(Reason::Malformed, format!("{what}: {error}"))
}
