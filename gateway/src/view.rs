//! What a body stands for: read through gzip and deflate (RFC 9110, 8.4.1) and percent-encoding while it passes as it is. What is
//! encoded in another way, or not in the way its head says, cannot be looked through, and that is said. Used by `inspect::stream` and
//! `http::meaning`.

use std::io::{self, Write};

use flate2::write::{MultiGzDecoder, ZlibDecoder};
use hyper::header::{self, HeaderMap};

use crate::inspect;
use crate::limits;
use crate::percent;

pub enum View {
    Plain,
    Form(Percent),
    Inflate(Box<Inflate>),
    /// Nobody looks.
    Unread,
}

/// Why a body is not looked through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    Encoding,
    Broken,
    TooMuch,
}

impl Unread {
    pub fn kind(self) -> &'static str {
        match self {
            Self::Encoding => "a content-encoding that is not read",
            Self::Broken => "a body that is not encoded as its head says",
            Self::TooMuch => "a body that stands for more than is read",
        }
    }
}

/// What IANA's registry of content codings has, but `identity`.
const CODINGS: [&[u8]; 12] = [
    b"gzip",
    b"x-gzip",
    b"deflate",
    b"br",
    b"zstd",
    b"compress",
    b"x-compress",
    b"dcb",
    b"dcz",
    b"exi",
    b"aes128gcm",
    b"pack200-gzip",
];

impl View {
    pub fn of(headers: &HeaderMap, media: Option<&str>) -> Result<Self, Unread> {
        let values = headers.get_all(header::CONTENT_ENCODING).iter();
        let encodings: Vec<Vec<u8>> = values
            .flat_map(|value| value.as_bytes().split(|&b| b == b','))
            .map(|one| one.trim_ascii().to_ascii_lowercase())
            // Any other word is a framing or nothing at all (`aws-chunked`, `utf-8`), and the body is there to be read.
            .filter(|one| CODINGS.contains(&one.as_slice()))
            .collect();
        match encodings.as_slice() {
            [] if media == Some(inspect::FORM) => Ok(Self::Form(Percent::default())),
            [] => Ok(Self::Plain),
            [one] if one == b"gzip" || one == b"x-gzip" => Ok(Self::inflate(Decoder::Gzip(
                MultiGzDecoder::new(Vec::new()),
            ))),
            [one] if one == b"deflate" => {
                Ok(Self::inflate(Decoder::Zlib(ZlibDecoder::new(Vec::new()))))
            }
            _ => Err(Unread::Encoding),
        }
    }

    fn inflate(decoder: Decoder) -> Self {
        Self::Inflate(Box::new(Inflate {
            decoder,
            left: limits::INSPECTED_INFLATED,
            begun: false,
        }))
    }
}

enum Decoder {
    Gzip(MultiGzDecoder<Vec<u8>>),
    Zlib(ZlibDecoder<Vec<u8>>),
}

pub struct Inflate {
    decoder: Decoder,
    /// Bytes that may still come of it.
    left: u64,
    begun: bool,
}

impl Inflate {
    /// What a piece, a small one, stands for.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<u8>, Unread> {
        self.begun = true;
        let out = match &mut self.decoder {
            Decoder::Gzip(decoder) => write(decoder, piece, MultiGzDecoder::get_mut),
            Decoder::Zlib(decoder) => write(decoder, piece, ZlibDecoder::get_mut),
        };
        let out = out.map_err(|_| Unread::Broken)?;
        let left = self.left.checked_sub(out.len() as u64);
        self.left = left.ok_or(Unread::TooMuch)?;
        Ok(out)
    }

    pub fn finish(&mut self) -> Result<(), Unread> {
        if !std::mem::take(&mut self.begun) {
            return Ok(());
        }
        match &mut self.decoder {
            Decoder::Gzip(decoder) => decoder.try_finish(),
            Decoder::Zlib(decoder) => decoder.try_finish(),
        }
        .map_err(|_| Unread::Broken)
    }

    #[cfg(test)]
    pub fn bounded(mut self, left: u64) -> Self {
        self.left = left;
        self
    }
}

fn write<W: Write>(
    decoder: &mut W,
    piece: &[u8],
    out: fn(&mut W) -> &mut Vec<u8>,
) -> io::Result<Vec<u8>> {
    decoder.write_all(piece)?;
    decoder.flush()?;
    Ok(std::mem::take(out(decoder)))
}

/// Percent-encoding, however it is cut.
#[derive(Default)]
pub struct Percent {
    open: Vec<u8>,
}

impl Percent {
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        let mut text = std::mem::take(&mut self.open);
        text.extend_from_slice(piece);
        let tail = text.len().saturating_sub(2);
        if let Some(percent) = text[tail..].iter().position(|&b| b == b'%') {
            self.open = text.split_off(tail + percent);
        }
        percent::decoded(&text)
    }

    pub fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.open)
    }
}
