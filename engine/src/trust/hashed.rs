//! OpenSSL's directories of hashed names: what reads one looks for an authority in a file that is called by a hash of the authority's
//! own name (X509_NAME_hash(3), openssl-rehash(1)). Ours is the same in every session, so the file's is known before the certificate.

use schema::session::AUTHORITY;
use sha1::{Digest as _, Sha1};

use super::keystore::tagged;

/// Debian, Ubuntu, Alpine, and by a link SUSE; Fedora and RHEL.
pub const DIRECTORIES: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// commonName (2.5.4.3), encoded.
const COMMON_NAME: &[u8] = &[0x55, 4, 3];

/// The file's name: the first four bytes of a SHA-1 of the name in its canonical form, the lowest first (OpenSSL,
/// crypto/x509/x_name.c, x509_name_canon), and a number for those that have the same.
pub fn file() -> String {
    let name = tagged(0x0c, AUTHORITY.as_bytes());
    let attribute = tagged(0x30, &[tagged(0x06, COMMON_NAME), name].concat());
    let digest = Sha1::digest(tagged(0x31, &attribute));
    let first = [digest[0], digest[1], digest[2], digest[3]];
    format!("{:08x}.0", u32::from_le_bytes(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_called_as_openssl_calls_it() {
        // openssl x509 -noout -subject_hash, of a certificate of that name.
        assert_eq!(file(), "06a0de29.0");
        let plain = |c: char| c.is_ascii_lowercase() || c == ' ';
        assert!(AUTHORITY.chars().all(plain) && !AUTHORITY.contains("  "));
    }
}
