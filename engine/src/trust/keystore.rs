//! A trust store that every JVM reads: PKCS#12 (RFC 7292) with certificates in the clear, as public as they are, so that it
//! opens with and without its password. The MAC is with SHA-1, which JVMs before 8u301 and 11.0.12 need; it protects nothing:
//! the file is ours, and read-only where it is read.

use sha1::{Digest as _, Sha1};

/// What the JVM is told; it asks for one.
pub const PASSWORD: &str = "changeit";

const ITERATIONS: u16 = 1000;
const SALT: [u8; 8] = *b"agentctr";
/// SHA-1's block (RFC 7292, B.2: v) in bytes.
const BLOCK: usize = 64;

// Object identifiers, encoded.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 1];
const CERT_BAG: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 12, 10, 1, 3];
const X509_CERTIFICATE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 22, 1];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 20];
/// 2.16.840.1.113894.746875.1.1: what the JVM knows a trusted certificate by (PKCS12KeyStore.java, TrustedKeyUsage_OID).
const TRUSTED_KEY_USAGE: &[u8] = &[
    0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 1, 1,
];
const ANY_USAGE: &[u8] = &[0x55, 0x1d, 0x25, 0];
const SHA1: &[u8] = &[0x2b, 0x0e, 3, 2, 0x1a];

/// The store of these certificates, each under its name; names are ASCII, without capitals, and none comes twice.
pub fn write<'a>(certificates: impl IntoIterator<Item = (String, &'a [u8])>) -> Vec<u8> {
    let bags: Vec<u8> = certificates
        .into_iter()
        .flat_map(|(name, der)| bag(&name, der))
        .collect();
    let contents = sequence(&[&content_info(&sequence(&[&bags]))]);
    let digest = mac(&contents);
    let algorithm = sequence(&[&tagged(0x06, SHA1), &[0x05, 0]]);
    let mac_data = sequence(&[
        &sequence(&[&algorithm, &tagged(0x04, &digest)]),
        &tagged(0x04, &SALT),
        &tagged(0x02, &ITERATIONS.to_be_bytes()),
    ]);
    sequence(&[&[0x02, 1, 3], &content_info(&contents), &mac_data])
}

fn bag(name: &str, der: &[u8]) -> Vec<u8> {
    let certificate = sequence(&[
        &tagged(0x06, X509_CERTIFICATE),
        &tagged(0xa0, &tagged(0x04, der)),
    ]);
    let mut attributes = [
        attribute(FRIENDLY_NAME, &tagged(0x1e, &utf16(name))),
        attribute(TRUSTED_KEY_USAGE, &tagged(0x06, ANY_USAGE)),
    ];
    // A set is written in the order of its elements' bytes.
    attributes.sort();
    sequence(&[
        &tagged(0x06, CERT_BAG),
        &tagged(0xa0, &certificate),
        &tagged(0x31, &attributes.concat()),
    ])
}

fn attribute(id: &[u8], value: &[u8]) -> Vec<u8> {
    sequence(&[&tagged(0x06, id), &tagged(0x31, value)])
}

fn content_info(data: &[u8]) -> Vec<u8> {
    sequence(&[&tagged(0x06, DATA), &tagged(0xa0, &tagged(0x04, data))])
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn sequence(parts: &[&[u8]]) -> Vec<u8> {
    tagged(0x30, &parts.concat())
}

/// DER's tag, length and content.
pub(super) fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ 0..0x80) => out.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let length = &length[length.iter().take_while(|&&b| b == 0).count()..];
            out.push(0x80 | length.len() as u8);
            out.extend_from_slice(length);
        }
    }
    out.extend_from_slice(content);
    out
}

/// HMAC-SHA-1 (RFC 2104) under the key that RFC 7292, B.2 makes of the password.
fn mac(message: &[u8]) -> [u8; 20] {
    let key = derive();
    let pad = |with: u8| {
        let mut block = [with; BLOCK];
        for (byte, key) in block.iter_mut().zip(key) {
            *byte ^= key;
        }
        block
    };
    let inner = Sha1::new()
        .chain_update(pad(0x36))
        .chain_update(message)
        .finalize();
    Sha1::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .into()
}

/// One hash's worth of key, which is all that a MAC with the same hash takes.
fn derive() -> [u8; 20] {
    /// The purpose: integrity (B.3).
    const ID: u8 = 3;
    let mut password = utf16(PASSWORD);
    password.extend([0, 0]);
    let filled = |bytes: &[u8]| -> Vec<u8> {
        let length = bytes.len().div_ceil(BLOCK) * BLOCK;
        bytes.iter().copied().cycle().take(length).collect()
    };
    let mut hash = Sha1::new()
        .chain_update([ID; BLOCK])
        .chain_update(filled(&SALT))
        .chain_update(filled(&password))
        .finalize();
    for _ in 1..ITERATIONS {
        hash = Sha1::digest(hash);
    }
    hash.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn lengths_are_written_in_their_shortest_form() {
        assert_eq!(tagged(4, &[])[..], [4, 0]);
        assert_eq!(tagged(4, &[1; 127])[..3], [4, 127, 1]);
        assert_eq!(tagged(4, &[1; 128])[..4], [4, 0x81, 128, 1]);
        assert_eq!(tagged(4, &[1; 256])[..5], [4, 0x82, 1, 0, 1]);
        assert_eq!(tagged(4, &vec![1; 65536])[..6], [4, 0x83, 1, 0, 0, 1]);
    }

    #[test]
    fn the_same_certificates_give_the_same_store() {
        let store = || write([("a".to_owned(), &[0x30, 1, 9][..])]);
        assert_eq!(store(), store());
        assert!(crate::trust::pem::is_whole(&store()));
        assert!(crate::trust::pem::is_whole(&write([])));
    }
}
