//! HTTP/2 by hand (RFC 9113, 4; RFC 7541, 5 and 6): frames and heads that no library would write, for clients and servers
//! that misbehave.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const PRIORITY: u8 = 0x20;

pub type Fields<'a> = [(&'a [u8], &'a [u8])];

/// A frame as it came.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Whole,
    Reset(u32),
}

/// What came on one stream.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: Option<u16>,
    pub body: Vec<u8>,
    pub end: Option<End>,
}

/// What came on a connection until its streams had ended, or it had.
#[derive(Debug, Default)]
pub struct Answers {
    pub streams: BTreeMap<u32, Answer>,
    /// The code of a GOAWAY.
    pub farewell: Option<u32>,
    pub closed: bool,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// Fields as literals without indexing and without Huffman, whatever is in them.
pub fn block(fields: &Fields) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        literal(0, name, value, &mut out);
    }
    out
}

/// One literal with a new name; `form`: 0 without indexing, 0x10 never indexed, 0x40 with.
pub fn literal(form: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.push(form);
    string(name, out);
    string(value, out);
}

fn string(text: &[u8], out: &mut Vec<u8>) {
    match text.len().checked_sub(127) {
        None => out.push(text.len() as u8),
        Some(mut rest) => {
            out.push(127);
            while rest >= 128 {
                out.push(0x80 | (rest & 0x7f) as u8);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend(text);
}

/// A head in frames of at most so many bytes: HEADERS, then CONTINUATION.
pub fn head(stream: u32, end: bool, block: &[u8], most: usize) -> Vec<u8> {
    let end = if end { END_STREAM } else { 0 };
    let mut pieces = block.chunks(most).peekable();
    let mut out = Vec::new();
    let mut kind = (HEADERS, end);
    while let Some(piece) = pieces.next() {
        let last = if pieces.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        out.extend(frame(kind.0, kind.1 | last, stream, piece));
        kind = (CONTINUATION, 0);
    }
    out
}

/// The status in a head that a library wrote: its first field (RFC 7541, A and B).
pub fn status(mut block: &[u8]) -> Option<u16> {
    // Updates of the table's size.
    while let [0x20..=0x3f, rest @ ..] = block {
        let more = block[0] == 0x3f;
        block = rest;
        while more && block.first().is_some_and(|byte| byte & 0x80 != 0) {
            block = &block[1..];
        }
        if more {
            block = block.get(1..)?;
        }
    }
    const INDEXED: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    match block {
        [0x88..=0x8e, ..] => Some(INDEXED[usize::from(block[0] - 0x88)]),
        [0x48 | 0x08 | 0x18, length, rest @ ..] => {
            let text = rest.get(..usize::from(length & 0x7f))?;
            if length & 0x80 == 0 {
                return std::str::from_utf8(text).ok()?.parse().ok();
            }
            digits(text)
        }
        _ => None,
    }
}

/// Three digits in Huffman's code: five bits for 0, 1 and 2, six for the others.
fn digits(text: &[u8]) -> Option<u16> {
    let mut bits = text
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut take = |n: usize, from: u16| -> Option<u16> {
        (0..n).try_fold(from, |code, _| Some(code << 1 | bits.next()?))
    };
    let mut number = 0;
    for _ in 0..3 {
        let short = take(5, 0)?;
        let digit = match short {
            0..=2 => short,
            _ => take(1, short)?.checked_sub(0b011001 - 3)?,
        };
        number = number * 10 + digit;
    }
    Some(number)
}

/// The next frame; `None` at the end of them, however it comes.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: u32::from_be_bytes([head[5], head[6], head[7], head[8]]),
        payload,
    })
}

impl Answers {
    /// Reads until each of these streams has ended or the connection has, ten seconds at most.
    pub async fn read<S>(connection: &mut S, streams: impl IntoIterator<Item = u32>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut answers = Self::default();
        for stream in streams {
            answers.streams.insert(stream, Answer::default());
        }
        let reading = answers.fill(connection);
        let _ = tokio::time::timeout(Duration::from_secs(10), reading).await;
        answers
    }

    async fn fill(&mut self, connection: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
        while self.streams.values().any(|answer| answer.end.is_none()) {
            let Some(frame) = read_frame(connection).await else {
                self.closed = true;
                return;
            };
            if (frame.kind, frame.flags) == (SETTINGS, 0) {
                let _ = connection
                    .write_all(&self::frame(SETTINGS, ACK, 0, &[]))
                    .await;
                let _ = connection.flush().await;
            }
            self.take(&frame);
        }
    }

    fn take(&mut self, frame: &Frame) {
        let number = |at: usize| {
            let bytes = frame.payload.get(at..at + 4);
            bytes.map_or(0, |b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
        };
        if frame.kind == GOAWAY {
            self.farewell = Some(number(4));
        }
        let Some(answer) = self.streams.get_mut(&frame.stream) else {
            return;
        };
        match frame.kind {
            HEADERS if answer.status.is_none() => answer.status = status(&frame.payload),
            DATA => answer.body.extend(&frame.payload),
            RST_STREAM => answer.end = Some(answer.end.unwrap_or(End::Reset(number(0)))),
            _ => {}
        }
        if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
            answer.end = Some(End::Whole);
        }
    }
}

#[test]
fn a_status_is_read_as_libraries_write_it() {
    // RFC 7541, C.6.1 and C.6.2: "302" and "307".
    for (block, said) in [
        (&[0x88][..], Some(200)),
        (&[0x20, 0x8c], Some(400)),
        (&[0x3f, 0xe1, 0x1f, 0x8e], Some(500)),
        (&[0x48, 0x82, 0x64, 0x02], Some(302)),
        (&[0x48, 0x83, 0x64, 0x0e, 0xff], Some(307)),
        (&[0x08, 0x03, b'4', b'2', b'1'], Some(421)),
        (&[0x00], None),
        (&[], None),
    ] {
        assert_eq!(status(block), said, "{block:?}");
    }
}
