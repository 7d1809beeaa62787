//! Byte streams to and from containers: attach, exec and logs, over a connection of their own to the engine's socket. bollard
//! guesses a stream's framing from its first byte, which is the agent's to choose on a terminal (and its length field would
//! make us buffer up to 4 GiB); here the caller says what the engine was asked for, and nothing is buffered beyond a chunk.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// The longest head of an answer that is read, in bytes.
pub const MAX_HEAD: usize = 16 * 1024;
/// The longest error message that is read from the engine, in bytes.
const MAX_ERROR: usize = 64 * 1024;
/// How much of a stream is read at once.
const CHUNK: usize = 32 * 1024;

/// How the engine sends a stream: a terminal's bytes as they are, anything else in frames with a header of eight bytes
/// (stream number, three zeroes, length).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Raw,
    Multiplexed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Stdout,
    Stderr,
}

/// What a container writes.
#[derive(Debug)]
pub struct Output {
    from: OwnedReadHalf,
    framing: Framing,
    buffer: Vec<u8>,
    start: usize,
    /// The frame that is being read, and what is left of it.
    frame: Option<(Channel, usize)>,
    /// What is kept open for as long as the stream is read.
    input: Option<Input>,
}

/// What a container reads.
#[derive(Debug)]
pub struct Input(OwnedWriteHalf);

/// Why a stream could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{message}")]
    Refused { status: u16, message: String },
    #[error("the engine's answer is not HTTP")]
    NotHttp,
}

/// A request whose answer is a stream.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub method: &'static str,
    /// With the API version and the query.
    pub path: String,
    pub body: Option<&'a str>,
    /// Ask for both directions (HTTP upgrade); otherwise only the answer's body is a stream.
    pub upgrade: bool,
}

impl Request<'_> {
    fn head(&self) -> String {
        // HTTP/1.0 where only the body is wanted: it comes as it is, not in chunks.
        let version = if self.upgrade { "1.1" } else { "1.0" };
        let mut head = format!(
            "{} {} HTTP/{version}\r\nHost: engine\r\n",
            self.method, self.path
        );
        if self.upgrade {
            head += "Connection: Upgrade\r\nUpgrade: tcp\r\n";
        }
        if let Some(body) = self.body {
            head += &format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n",
                body.len()
            );
        } else if self.method == "POST" {
            head += "Content-Length: 0\r\n";
        }
        head + "\r\n"
    }
}

/// Sends the request and reads the answer's head.
pub(crate) async fn open(
    socket: &Path,
    request: Request<'_>,
    framing: Framing,
) -> Result<(Input, Output), StreamError> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.head().as_bytes()).await?;
    if let Some(body) = request.body {
        stream.write_all(body.as_bytes()).await?;
    }
    let mut buffer = Vec::new();
    let (end, status) = loop {
        if let Some(end) = find_end(&buffer) {
            break (end, status(&buffer[..end]).ok_or(StreamError::NotHttp)?);
        }
        if buffer.len() >= MAX_HEAD || stream.read_buf(&mut buffer).await? == 0 {
            return Err(StreamError::NotHttp);
        }
    };
    if !matches!(status, 101 | 200) {
        let mut rest = buffer.split_off(end);
        // Bounded in size, and in time: an error that is kept alive has no end of its own.
        let read = async {
            while rest.len() < MAX_ERROR && !rest.ends_with(b"}\n") {
                if stream.read_buf(&mut rest).await? == 0 {
                    break;
                }
            }
            io::Result::Ok(())
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), read).await;
        return Err(StreamError::Refused {
            status,
            message: message(&rest),
        });
    }
    let (from, to) = stream.into_split();
    Ok((
        Input(to),
        Output {
            from,
            framing,
            buffer,
            start: end,
            frame: None,
            input: None,
        },
    ))
}

fn find_end(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| at + 4)
}

fn status(head: &[u8]) -> Option<u16> {
    let head = std::str::from_utf8(head).ok()?;
    let rest = head.strip_prefix("HTTP/1.")?;
    rest.split(' ').nth(1)?.trim().parse().ok()
}

fn message(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Body {
        message: String,
    }
    let text = String::from_utf8_lossy(body);
    // The body may be in chunks; the object is between the outermost braces.
    let object = match (text.find('{'), text.rfind('}')) {
        (Some(from), Some(to)) if from < to => &text[from..=to],
        _ => text.trim(),
    };
    serde_json::from_str::<Body>(object).map_or_else(|_| object.to_owned(), |b| b.message)
}

impl Output {
    /// Keeps the other direction open until this one ends. A request that has no input has to: its end would tell the engine
    /// (Go's `net/http` reads on in the background) that nobody waits for the answer, and what it had not sent would be lost.
    pub(crate) fn with_open(mut self, input: Input) -> Self {
        self.input = Some(input);
        self
    }

    /// The next piece, or `None` at the end. Safe to drop half-way: nothing that was read is lost.
    pub async fn next(&mut self) -> io::Result<Option<(Channel, Vec<u8>)>> {
        loop {
            if let Some(piece) = self.take()? {
                return Ok(Some(piece));
            }
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            self.buffer.reserve(CHUNK);
            if self.from.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }

    fn take(&mut self) -> io::Result<Option<(Channel, Vec<u8>)>> {
        loop {
            let have = &self.buffer[self.start..];
            if have.is_empty() {
                return Ok(None);
            }
            let (channel, left) = match (self.framing, self.frame) {
                (Framing::Raw, _) => (Channel::Stdout, have.len()),
                (Framing::Multiplexed, Some(frame)) => frame,
                (Framing::Multiplexed, None) => {
                    let Some((header, _)) = have.split_first_chunk::<8>() else {
                        return Ok(None);
                    };
                    let channel = match header[0] {
                        0 | 1 => Channel::Stdout,
                        2 => Channel::Stderr,
                        _ => return Err(io::Error::other("the engine's stream is not in frames")),
                    };
                    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                    self.start += 8;
                    if length > 0 {
                        self.frame = Some((channel, length as usize));
                    }
                    continue;
                }
            };
            let taken = left.min(have.len());
            let piece = have[..taken].to_vec();
            self.start += taken;
            self.frame = match self.framing {
                Framing::Multiplexed if left > taken => Some((channel, left - taken)),
                _ => None,
            };
            return Ok(Some((channel, piece)));
        }
    }
}

impl Input {
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }

    /// No more input: the program reads end of file.
    pub async fn close(&mut self) -> io::Result<()> {
        self.0.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn served(
        answer: Vec<u8>,
        framing: Framing,
    ) -> Result<Vec<(Channel, Vec<u8>)>, StreamError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        let server = async {
            let (mut peer, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let _ = peer.read(&mut head).await.unwrap();
            // In small pieces, so that no boundary is where a frame's is.
            for piece in answer.chunks(3) {
                if peer.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let request = Request {
            method: "POST",
            path: "/v1.41/x".into(),
            body: Some("{}"),
            upgrade: true,
        };
        let client = async {
            let (_input, mut output) = open(&path, request, framing).await?;
            let mut all = Vec::new();
            while let Some(piece) = output.next().await.map_err(StreamError::Io)? {
                all.push(piece);
            }
            Ok(all)
        };
        let (answer, ()) = tokio::join!(client, server);
        answer
    }

    fn joined(pieces: &[(Channel, Vec<u8>)], channel: Channel) -> Vec<u8> {
        pieces
            .iter()
            .filter(|(c, _)| *c == channel)
            .flat_map(|(_, b)| b.clone())
            .collect()
    }

    const HEAD: &[u8] = b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\n";

    #[tokio::test]
    async fn frames_come_apart_whatever_the_packets_are() {
        let mut answer = HEAD.to_vec();
        answer.extend(b"\x01\0\0\0\0\0\0\x05hello\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!");
        let pieces = served(answer, Framing::Multiplexed).await.unwrap();
        assert_eq!(joined(&pieces, Channel::Stdout), b"hello!");
        assert_eq!(joined(&pieces, Channel::Stderr), b"err");
    }

    #[tokio::test]
    async fn a_terminals_bytes_are_never_taken_for_a_frame() {
        let mut answer = HEAD.to_vec();
        let bytes = b"\x01\0\0\0\xff\xff\xff\xff forged";
        answer.extend(bytes);
        let pieces = served(answer, Framing::Raw).await.unwrap();
        assert_eq!(joined(&pieces, Channel::Stdout), bytes);
    }

    #[tokio::test]
    async fn a_frame_that_claims_four_gibibytes_is_passed_on_as_it_comes() {
        let mut answer = HEAD.to_vec();
        answer.extend(b"\x01\0\0\0\xff\xff\xff\xffabc");
        let pieces = served(answer, Framing::Multiplexed).await.unwrap();
        assert_eq!(joined(&pieces, Channel::Stdout), b"abc");
    }

    #[tokio::test]
    async fn an_error_is_the_engines_own_words_and_a_head_has_an_end() {
        let refused = served(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 30\r\n\r\n{\"message\":\"No such container\"}\n".to_vec(),
            Framing::Raw,
        )
        .await
        .unwrap_err();
        assert!(
            matches!(refused, StreamError::Refused { status: 404, ref message } if message == "No such container")
        );
        let mut endless = b"HTTP/1.1 101 X\r\n".to_vec();
        endless.resize(MAX_HEAD + 4096, b'a');
        assert!(matches!(
            served(endless, Framing::Raw).await,
            Err(StreamError::NotHttp)
        ));
        assert!(matches!(
            served(b"SSH-2.0-x\r\n\r\n".to_vec(), Framing::Raw).await,
            Err(StreamError::NotHttp)
        ));
    }
}
