//! Certificates in files of text (RFC 7468): taken out of what a stranger wrote as whole blocks, kept as opaque DER, and
//! written again in one form, so that nothing else of such a file ever goes further. Used for images' bundles and the host's.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The largest certificate that is taken, in bytes of DER.
pub const MAX_CERTIFICATE: usize = 64 * 1024;

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";
const END: &[u8] = b"-----END CERTIFICATE-----";
/// Base64 of the largest certificate, its last line's padding included.
const MAX_BODY: usize = MAX_CERTIFICATE.div_ceil(3) * 4;

/// What a file of certificates held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// DER, in the order of the file.
    pub certificates: Vec<Vec<u8>>,
    /// Blocks that begin like a certificate and are none.
    pub broken: usize,
}

/// Takes the certificates out of `text`; what lies between them is not looked at.
pub fn read(text: &[u8]) -> Read {
    let mut out = Read::default();
    let mut body: Option<Vec<u8>> = None;
    for line in text.split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line == BEGIN {
            out.broken += usize::from(body.is_some());
            body = Some(Vec::new());
        } else if line == END {
            match body.take().map(|body| decode(&body)) {
                Some(Some(der)) => out.certificates.push(der),
                Some(None) => out.broken += 1,
                None => {}
            }
        } else if let Some(open) = &mut body {
            // One byte more than can be is enough to be refused at its end.
            let room = (MAX_BODY + 1).saturating_sub(open.len());
            open.extend_from_slice(&line[..line.len().min(room)]);
        }
    }
    out.broken += usize::from(body.is_some());
    out
}

fn decode(body: &[u8]) -> Option<Vec<u8>> {
    if body.len() > MAX_BODY {
        return None;
    }
    let der = STANDARD.decode(body).ok()?;
    (der.len() <= MAX_CERTIFICATE && is_whole(&der)).then_some(der)
}

/// Whether these bytes are one DER sequence from the first to the last; what is in it is the verifier's to judge.
pub fn is_whole(der: &[u8]) -> bool {
    let [0x30, first, rest @ ..] = der else {
        return false;
    };
    let (length, content) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let bytes = usize::from(long & 0x7f);
            if !(1..=4).contains(&bytes) || rest.len() < bytes {
                return false;
            }
            let (length, content) = rest.split_at(bytes);
            let length = length.iter().fold(0, |n, &b| n << 8 | usize::from(b));
            (length, content)
        }
    };
    length > 0 && content.len() == length
}

/// One certificate as text.
pub fn write(out: &mut String, der: &[u8]) {
    let body = STANDARD.encode(der);
    out.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str("-----END CERTIFICATE-----\n");
}

/// Certificates from several files, each once, in the order they came, up to a number.
#[derive(Debug)]
pub struct Collected {
    certificates: Vec<Vec<u8>>,
    seen: HashSet<Vec<u8>>,
    most: usize,
}

impl Collected {
    pub fn at_most(most: usize) -> Self {
        Self {
            certificates: Vec::new(),
            seen: HashSet::new(),
            most,
        }
    }

    /// False when there is no room for it.
    pub fn add(&mut self, der: Vec<u8>) -> bool {
        if self.seen.contains(&der) {
            return true;
        }
        if self.certificates.len() == self.most {
            return false;
        }
        self.seen.insert(der.clone());
        self.certificates.push(der);
        true
    }

    pub fn is_empty(&self) -> bool {
        self.certificates.is_empty()
    }

    pub fn into_certificates(self) -> Vec<Vec<u8>> {
        self.certificates
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A DER sequence of `n` bytes in all; `n` from 256 to 65,539.
    fn der(n: usize) -> Vec<u8> {
        let length = n - 4;
        let mut der = vec![0x30, 0x82, (length >> 8) as u8, length as u8];
        der.resize(n, 7);
        der
    }

    fn block(der: &[u8]) -> String {
        let mut text = String::new();
        write(&mut text, der);
        text
    }

    #[test]
    fn whole_blocks_are_taken_and_everything_else_is_passed_over() {
        let (one, two) = (der(300), vec![0x30, 1, 9]);
        let text = format!(
            "# \u{1b}[2J a comment\n{}junk\n-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n\
             -----BEGIN TRUSTED CERTIFICATE-----\nMAEJ\n-----END TRUSTED CERTIFICATE-----\n{}-----END CERTIFICATE-----\n",
            block(&one),
            block(&two).replace('\n', "\r\n"),
        );
        let read = read(text.as_bytes());
        assert_eq!(read.certificates, [one, two]);
        assert_eq!(read.broken, 0);
    }

    #[test]
    fn what_is_no_certificate_or_not_whole_is_counted_and_left_out() {
        let whole = block(&der(300));
        for broken in [
            "-----BEGIN CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMAEJ\n",
            "-----BEGIN CERTIFICATE-----\nMA*J\n-----END CERTIFICATE-----\n",
            // A length that is not what follows, an indefinite one, one of five bytes, no sequence, an empty one.
            "-----BEGIN CERTIFICATE-----\nMAIJ\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMIAJ\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMIUAAAAAAQk=\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAgEJ\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n",
        ] {
            for text in [format!("{whole}{broken}"), format!("{broken}{whole}")] {
                let read = read(text.as_bytes());
                assert_eq!((read.certificates.len(), read.broken), (1, 1), "{broken}");
            }
        }
        assert_eq!(read(b""), Read::default());
        assert_eq!(read(&[0, 255, b'\n', 128]), Read::default());
    }

    #[test]
    fn the_largest_certificate_is_taken_and_one_byte_more_is_not() {
        let largest = read(block(&der(MAX_CERTIFICATE)).as_bytes());
        assert_eq!((largest.certificates.len(), largest.broken), (1, 0));
        for more in [1, 2, 3] {
            let read = read(block(&der(MAX_CERTIFICATE + more)).as_bytes());
            assert_eq!((read.certificates.len(), read.broken), (0, 1), "{more}");
        }
    }

    #[test]
    fn each_is_kept_once_and_only_so_many() {
        let mut all = Collected::at_most(2);
        assert!(all.add(der(300)) && all.add(der(301)) && all.add(der(300)));
        assert!(!all.add(der(302)));
        assert_eq!(all.into_certificates(), [der(300), der(301)]);
    }
}
