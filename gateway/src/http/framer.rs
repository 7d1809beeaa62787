//! Walks the bytes of a client connection request by request: heads are held back until they were checked whole, bodies
//! are followed to their exact end, and nothing past a refusal comes out. What comes out goes to hyper, which therefore
//! never meets bytes that it and we could read differently. Pure: bytes in, bytes out. Used by `http::guard`.

use super::head::{self, Authority, Framing, Refusal};
use crate::limits;

/// A refusal, with what could be read of the request for the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub refusal: Refusal,
    /// The request line, lossily, when there was one.
    pub request_line: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Collecting a head; `scanned` bytes of it are known to hold no end.
    Head {
        scanned: usize,
    },
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    /// CR LF behind a chunk's data; `seen`: CR was there.
    ChunkEnd {
        seen: bool,
    },
    Trailers {
        total: usize,
    },
    /// The last request was one for WebSocket: what follows is no request, whatever the answer will be.
    Switching,
    Refused,
}

/// The walk over one connection.
#[derive(Debug)]
pub struct Framer {
    authority: Authority,
    state: State,
    /// The head or line that is being collected; behind a request for WebSocket, what came too early.
    held: Vec<u8>,
}

impl Framer {
    pub fn new(authority: Authority) -> Self {
        Self {
            authority,
            state: State::Head { scanned: 0 },
            held: Vec::new(),
        }
    }

    /// Bytes of a body that may pass without being looked at, when that is all that comes next.
    pub fn passable(&self) -> u64 {
        match self.state {
            State::Body { left } | State::ChunkData { left } => left,
            _ => 0,
        }
    }

    /// Accounts for `n` bytes, at most [`Self::passable`], that passed.
    pub fn passed(&mut self, n: u64) {
        match &mut self.state {
            State::Body { left } => {
                *left -= n;
                if *left == 0 {
                    self.state = State::Head { scanned: 0 };
                }
            }
            State::ChunkData { left } => {
                *left -= n;
                if *left == 0 {
                    self.state = State::ChunkEnd { seen: false };
                }
            }
            _ => debug_assert!(false, "nothing was passable"),
        }
    }

    /// Whether a request has begun and is not whole yet.
    pub fn in_request(&self) -> bool {
        match self.state {
            State::Head { .. } => !self.held.is_empty(),
            State::Switching => false,
            _ => true,
        }
    }

    /// Whether the connection was asked to become a WebSocket, so that there is nothing more to frame.
    pub fn is_switching(&self) -> bool {
        self.state == State::Switching
    }

    /// What came behind a request for WebSocket, for whoever speaks that.
    pub fn into_early(self) -> Vec<u8> {
        if self.is_switching() {
            self.held
        } else {
            Vec::new()
        }
    }

    /// Takes the next bytes and appends to `out` what was accepted. After an error only errors follow.
    pub fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
        while !input.is_empty() {
            let passable = self.passable();
            let taken = if passable > 0 {
                let n = input
                    .len()
                    .min(usize::try_from(passable).unwrap_or(usize::MAX));
                out.extend_from_slice(&input[..n]);
                self.passed(n as u64);
                n
            } else {
                self.step(input, out)
                    .map_err(|refusal| self.refuse(refusal))?
            };
            input = &input[taken..];
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) -> Refused {
        let request_line = matches!(self.state, State::Head { .. }).then(|| {
            let line = self.held.split(|&b| b == b'\r' || b == b'\n').next();
            let line = line.unwrap_or_default();
            let end = line.len().min(limits::RECORDED_URL);
            String::from_utf8_lossy(&line[..end]).into_owned()
        });
        self.state = State::Refused;
        self.held = Vec::new();
        Refused {
            refusal,
            request_line: request_line.filter(|line| !line.is_empty()),
        }
    }

    /// Consumes at least one byte of `input`, in a state where not everything passes.
    fn step(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        match self.state {
            State::Head { scanned } => self.head(scanned, input, out),
            State::ChunkSize => {
                let Some(taken) = self.line(input, limits::HTTP_CHUNK_LINE, Refusal::Chunk)? else {
                    return Ok(input.len());
                };
                let size = chunk_size(&self.held).ok_or(Refusal::Chunk)?;
                self.release(out);
                self.state = match size {
                    0 => State::Trailers { total: 0 },
                    left => State::ChunkData { left },
                };
                Ok(taken)
            }
            State::ChunkEnd { seen } => {
                let expected = if seen { b'\n' } else { b'\r' };
                if input[0] != expected {
                    return Err(Refusal::Chunk);
                }
                out.push(expected);
                self.state = if seen {
                    State::ChunkSize
                } else {
                    State::ChunkEnd { seen: true }
                };
                Ok(1)
            }
            State::Trailers { total } => {
                let Some(taken) =
                    self.line(input, limits::HTTP_TRAILERS - total, Refusal::Trailers)?
                else {
                    return Ok(input.len());
                };
                let total = total + self.held.len();
                self.state = match self.held.strip_suffix(b"\r\n") {
                    Some(b"") => State::Head { scanned: 0 },
                    Some(line) => {
                        check_trailer(line)?;
                        State::Trailers { total }
                    }
                    None => return Err(Refusal::Trailers),
                };
                self.release(out);
                Ok(taken)
            }
            State::Switching => {
                if self.held.len() + input.len() > limits::HTTP_EARLY {
                    return Err(Refusal::Early);
                }
                self.held.extend_from_slice(input);
                Ok(input.len())
            }
            State::Body { .. } | State::ChunkData { .. } | State::Refused => {
                Err(Refusal::RequestLine)
            }
        }
    }

    fn head(&mut self, scanned: usize, input: &[u8], out: &mut Vec<u8>) -> Result<usize, Refusal> {
        let before = self.held.len();
        let room = limits::HTTP_HEAD - before;
        self.held.extend_from_slice(&input[..input.len().min(room)]);
        // The first byte of a request is a letter of its method: what cannot become a head is refused at once.
        if self.held.first().is_some_and(|b| !b.is_ascii_alphabetic()) {
            return Err(Refusal::RequestLine);
        }
        match find_head_end(&self.held, scanned)? {
            Some(end) => {
                self.held.truncate(end);
                let head = head::check(&self.held, &self.authority)?;
                self.release(out);
                self.state = match head.framing {
                    _ if head.websocket => State::Switching,
                    Framing::Length(0) => State::Head { scanned: 0 },
                    Framing::Length(left) => State::Body { left },
                    Framing::Chunked => State::ChunkSize,
                };
                Ok(end - before)
            }
            None if self.held.len() == limits::HTTP_HEAD => Err(Refusal::HeadTooLong),
            None => {
                self.state = State::Head {
                    scanned: self.held.len().saturating_sub(3),
                };
                Ok(input.len())
            }
        }
    }

    /// Collects one line, with its LF, into `held`. `None`: not whole yet.
    fn line(
        &mut self,
        input: &[u8],
        bound: usize,
        refusal: Refusal,
    ) -> Result<Option<usize>, Refusal> {
        let end = input.iter().position(|&b| b == b'\n').map(|i| i + 1);
        let taken = end.unwrap_or(input.len());
        if self.held.len() + taken > bound {
            return Err(refusal);
        }
        self.held.extend_from_slice(&input[..taken]);
        Ok(end)
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.held);
        if self.held.capacity() > 4096 {
            self.held = Vec::new();
        } else {
            self.held.clear();
        }
    }
}

/// The length of the head in `held`, its empty line included. A line that ends in LF alone is refused here, so that a
/// head which never ends in CR LF CR LF is not waited for.
fn find_head_end(held: &[u8], from: usize) -> Result<Option<usize>, Refusal> {
    let mut at = from;
    while let Some(i) = held[at..].iter().position(|&b| b == b'\n') {
        let lf = at + i;
        if lf == 0 || held[lf - 1] != b'\r' {
            return Err(Refusal::LineEnd);
        }
        if held[..=lf].ends_with(b"\r\n\r\n") {
            return Ok(Some(lf + 1));
        }
        at = lf + 1;
    }
    Ok(None)
}

/// Hexadecimal digits and CR LF, nothing else: extensions are refused, at most 2^60 bytes.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.strip_suffix(b"\r\n")?;
    if digits.is_empty() || digits.len() > 15 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// Fields that are the head's to say.
pub const NOT_IN_TRAILERS: [&str; 8] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "expect",
    "te",
    "trailer",
];

/// A trailer may not say again what the head said.
fn check_trailer(line: &[u8]) -> Result<(), Refusal> {
    let (name, _) = head::header_line(line).map_err(|_| Refusal::Trailers)?;
    if NOT_IN_TRAILERS
        .iter()
        .any(|field| name.eq_ignore_ascii_case(field.as_bytes()))
    {
        return Err(Refusal::Trailers);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
