//! The ClientHello, read strictly and nothing more: who the client says it wants to speak to. Bytes are pushed as they
//! arrive, in whatever pieces (TCP segments, TLS records, handshake messages over several records); the outcome is the
//! one name in it, or a refusal with the alert that says so. Called by `connection`, and fuzzed as `client_hello`.
//! Layout: RFC 8446, 4.1.2 and 5.1; server_name: RFC 6066, 3.

use schema::host::HostName;

use crate::limits;

const CONTENT_HANDSHAKE: u8 = 22;
const HANDSHAKE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
/// The drafts' encrypted server name (ESNI), and the first drafts of ECH.
const EXTENSIONS_ENCRYPTED_OLD: [u16; 4] = [0xffce, 0xff02, 0xff03, 0xfe08];
const NAME_TYPE_HOST: u8 = 0;

/// What a whole ClientHello says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// The one server name in it.
    pub server_name: HostName,
}

/// Why a ClientHello is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the first bytes are not a TLS handshake")]
    NotTls,
    #[error("an SSL 2 hello")]
    Ssl2,
    #[error(
        "a TLS record of no bytes or of more than {} bytes",
        limits::TLS_RECORD
    )]
    Record,
    #[error("the first handshake message is not a ClientHello")]
    NotClientHello,
    #[error("a ClientHello of more than {} bytes", limits::CLIENT_HELLO)]
    TooLong,
    #[error("a malformed ClientHello")]
    Malformed,
    #[error("a protocol version before TLS 1.0")]
    Version,
    #[error("an extension that stands twice")]
    DuplicateExtension,
    #[error("no server name")]
    NoServerName,
    #[error("a server name that is not one canonical host name")]
    BadServerName,
    #[error("an encrypted ClientHello, whose real server name cannot be read")]
    Encrypted,
}

impl Refusal {
    /// The stable code of the event.
    pub fn code(self) -> &'static str {
        match self {
            Self::NotTls => "tls-not-tls",
            Self::Ssl2 => "tls-ssl2",
            Self::Record | Self::Malformed | Self::DuplicateExtension => "tls-malformed",
            Self::NotClientHello => "tls-not-client-hello",
            Self::TooLong => "tls-hello-too-long",
            Self::Version => "tls-version",
            Self::NoServerName => "tls-no-sni",
            Self::BadServerName => "tls-bad-sni",
            Self::Encrypted => "tls-encrypted-hello",
        }
    }

    /// The alert that tells the client, or `None` where the peer does not speak TLS.
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::NotTls | Self::Ssl2 => None,
            Self::Record | Self::TooLong | Self::Malformed => Some(Alert::DecodeError),
            Self::NotClientHello => Some(Alert::UnexpectedMessage),
            Self::Version => Some(Alert::ProtocolVersion),
            Self::DuplicateExtension => Some(Alert::IllegalParameter),
            Self::NoServerName | Self::BadServerName => Some(Alert::UnrecognizedName),
            Self::Encrypted => Some(Alert::HandshakeFailure),
        }
    }
}

/// The alerts that are sent (RFC 8446, 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    UnexpectedMessage = 10,
    HandshakeFailure = 40,
    IllegalParameter = 47,
    AccessDenied = 49,
    DecodeError = 50,
    ProtocolVersion = 70,
    InternalError = 80,
    UnrecognizedName = 112,
}

impl Alert {
    /// The alert as one fatal plaintext record. TLS 1.2 in the record's version is what every client accepts here.
    pub fn record(self) -> [u8; 7] {
        [21, 3, 3, 0, 2, 2, self as u8]
    }
}

/// Puts a ClientHello together from the bytes of a connection. The bytes themselves stay with the caller, who hands
/// them on unread once the hello was accepted.
#[derive(Debug, Default)]
pub struct Assembler {
    /// Of the current record: header bytes seen so far.
    header: [u8; 5],
    header_len: usize,
    /// Payload bytes of the current record that are still to come.
    record_left: usize,
    /// The handshake message so far, its header included.
    message: Vec<u8>,
}

impl Assembler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes. `Ok(None)`: more are needed. Bytes behind the hello are not looked at.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<Option<ClientHello>, Refusal> {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.record_left == 0 {
                self.header[self.header_len] = first;
                self.header_len += 1;
                bytes = rest;
                self.check_header()?;
                continue;
            }
            // The message is bounded below, so a record cannot make this grow past one record beyond the bound.
            let take = bytes.len().min(self.record_left);
            self.message.extend_from_slice(&bytes[..take]);
            self.record_left -= take;
            bytes = &bytes[take..];
            if let Some(hello) = self.check_message()? {
                return Ok(Some(hello));
            }
        }
        Ok(None)
    }

    fn check_header(&mut self) -> Result<(), Refusal> {
        let header = self.header;
        match self.header_len {
            // SSL 2: a two-byte length with the high bit set, then CLIENT-HELLO (1).
            1 if header[0] & 0x80 != 0 && self.message.is_empty() => Ok(()),
            1 if header[0] == CONTENT_HANDSHAKE => Ok(()),
            // An alert or anything else between the fragments of one handshake message is forbidden.
            1 if !self.message.is_empty() => Err(Refusal::Malformed),
            1 => Err(Refusal::NotTls),
            2 if header[0] & 0x80 != 0 => Ok(()),
            2 if header[1] == 3 => Ok(()),
            2 => Err(Refusal::NotTls),
            3 if header[0] & 0x80 != 0 => Err(if header[2] == 1 {
                Refusal::Ssl2
            } else {
                Refusal::NotTls
            }),
            // 3.0 is SSL 3; 3.1 to 3.4 are what TLS 1.0 to 1.3 put or may put here.
            3 if header[2] == 0 => Err(Refusal::Version),
            3 if header[2] <= 4 => Ok(()),
            3 => Err(Refusal::NotTls),
            5 => {
                let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
                if length == 0 || length > limits::TLS_RECORD {
                    return Err(Refusal::Record);
                }
                self.record_left = length;
                self.header_len = 0;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check_message(&self) -> Result<Option<ClientHello>, Refusal> {
        let message = self.message.as_slice();
        match message.first() {
            Some(&HANDSHAKE_CLIENT_HELLO) | None => {}
            Some(_) => return Err(Refusal::NotClientHello),
        }
        let [_, a, b, c, body @ ..] = message else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        if length + 4 > limits::CLIENT_HELLO {
            return Err(Refusal::TooLong);
        }
        match body.len().cmp(&length) {
            std::cmp::Ordering::Less => Ok(None),
            // The hello must end where its record does: the client may send nothing more before it was answered
            // (0-RTT data comes in records of another type).
            std::cmp::Ordering::Greater => Err(Refusal::Malformed),
            std::cmp::Ordering::Equal if self.record_left > 0 => Err(Refusal::Malformed),
            std::cmp::Ordering::Equal => parse(body).map(Some),
        }
    }
}

/// Parses the body of a ClientHello (behind the handshake header), to the last byte.
pub fn parse(body: &[u8]) -> Result<ClientHello, Refusal> {
    let mut hello = Bytes(body);
    let version = hello.u16()?;
    if !(0x0301..=0x0303).contains(&version) {
        return Err(Refusal::Version);
    }
    hello.take(32)?; // random
    if hello.vector8()?.0.len() > 32 {
        return Err(Refusal::Malformed); // legacy_session_id
    }
    let ciphers = hello.vector16()?.0.len();
    if ciphers == 0 || !ciphers.is_multiple_of(2) {
        return Err(Refusal::Malformed);
    }
    if hello.vector8()?.0.is_empty() {
        return Err(Refusal::Malformed); // legacy_compression_methods
    }
    if hello.0.is_empty() {
        return Err(Refusal::NoServerName); // TLS 1.0 without extensions
    }
    let mut extensions = hello.vector16()?;
    if !hello.0.is_empty() {
        return Err(Refusal::Malformed);
    }
    let mut seen: Vec<u16> = Vec::with_capacity(32);
    let mut server_name = None;
    let mut encrypted = false;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let data = extensions.vector16()?;
        if seen.contains(&kind) {
            return Err(Refusal::DuplicateExtension);
        }
        if seen.len() == limits::TLS_EXTENSIONS {
            return Err(Refusal::Malformed);
        }
        seen.push(kind);
        if kind == EXTENSION_SERVER_NAME {
            server_name = Some(parse_server_name(data)?);
        }
        encrypted |=
            kind == EXTENSION_ENCRYPTED_CLIENT_HELLO || EXTENSIONS_ENCRYPTED_OLD.contains(&kind);
    }
    // A GREASE extension (RFC 9849, 6.2) cannot be told from a real one, by design: both are refused.
    if encrypted {
        return Err(Refusal::Encrypted);
    }
    server_name
        .map(|server_name| ClientHello { server_name })
        .ok_or(Refusal::NoServerName)
}

/// A list with exactly one entry, which is a host name in canonical spelling, case aside.
fn parse_server_name(mut data: Bytes<'_>) -> Result<HostName, Refusal> {
    let mut list = data.vector16()?;
    if !data.0.is_empty() {
        return Err(Refusal::Malformed);
    }
    if list.u8()? != NAME_TYPE_HOST {
        return Err(Refusal::BadServerName);
    }
    let name = list.vector16()?.0;
    if !list.0.is_empty() {
        return Err(Refusal::BadServerName);
    }
    // RFC 6066: ASCII (A-labels), no trailing dot.
    if !name.is_ascii() || name.last() == Some(&b'.') {
        return Err(Refusal::BadServerName);
    }
    std::str::from_utf8(name)
        .ok()
        .and_then(|name| HostName::parse(name).ok())
        .ok_or(Refusal::BadServerName)
}

/// A cursor that cannot run past its end.
#[derive(Clone, Copy, Debug)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Refusal> {
        let (head, tail) = self.0.split_at_checked(n).ok_or(Refusal::Malformed)?;
        self.0 = tail;
        Ok(head)
    }

    fn u8(&mut self) -> Result<u8, Refusal> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16, Refusal> {
        let bytes = self.take(2)?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Result<Self, Refusal> {
        let length = usize::from(self.u8()?);
        self.take(length).map(Bytes)
    }

    fn vector16(&mut self) -> Result<Self, Refusal> {
        let length = usize::from(self.u16()?);
        self.take(length).map(Bytes)
    }
}

#[cfg(test)]
mod tests;
