//! Frames of a WebSocket (RFC 6455, 5.2), read as strictly as heads are: no extension is agreed on, so no reserved bit is; lengths
//! in their shortest form; control frames whole and short; client's frames masked. Holds one header and no payload.
//! Fuzzed as `websocket_frames`.

/// A header with the longest length and a mask.
const HEADER: usize = 14;
/// Longest payload of a control frame (RFC 6455, 5.5).
pub const CONTROL: u64 = 125;

/// Whose frames these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// Why a stream is no sequence of frames that is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("a frame with a reserved bit, and no extension was agreed on")]
    Reserved,
    #[error("a frame with an opcode that is not defined")]
    Opcode,
    #[error("a client's frame without a mask, or a server's with one")]
    Mask,
    #[error("a frame whose length is not in its shortest form, or has its highest bit set")]
    Length,
    #[error("a control frame that is fragmented or longer than {CONTROL} bytes")]
    Control,
    #[error("a message within a message, or a continuation of none")]
    Continuation,
    #[error("a frame behind the one that closes")]
    Closed,
}

/// What a frame's payload belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    Control,
}

/// A piece of a stream, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A frame begins there, maybe in what came before.
    Header,
    /// So many bytes of payload from `at` in what was pushed, masked with `mask`.
    Payload {
        kind: Kind,
        at: usize,
        length: usize,
        mask: [u8; 4],
    },
    /// The message, or the control frame, is whole.
    End { kind: Kind },
}

#[derive(Debug)]
pub struct Frames {
    side: Side,
    header: [u8; HEADER],
    have: usize,
    /// Of the frame whose header is whole.
    frame: Option<Frame>,
    /// What the open message is.
    message: Option<Kind>,
    closed: bool,
    /// Nothing can be said of what follows.
    failed: Option<Malformed>,
}

#[derive(Clone, Copy, Debug)]
struct Frame {
    kind: Kind,
    last: bool,
    left: u64,
    mask: [u8; 4],
}

impl Frames {
    pub fn new(side: Side) -> Self {
        Self {
            side,
            header: [0; HEADER],
            have: 0,
            frame: None,
            message: None,
            closed: false,
            failed: None,
        }
    }

    /// Whether what was pushed ended with a frame.
    pub fn is_between(&self) -> bool {
        self.have == 0 && self.frame.is_none()
    }

    /// Whether a frame that closes has come.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes the next bytes and tells their parts.
    ///
    /// # Errors
    /// What it is that is no frame; the same from then on.
    pub fn push(&mut self, bytes: &[u8], tell: &mut impl FnMut(Part)) -> Result<(), Malformed> {
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let read = self.read(bytes, tell);
        self.failed = read.err();
        read
    }

    fn read(&mut self, bytes: &[u8], tell: &mut impl FnMut(Part)) -> Result<(), Malformed> {
        let mut at = 0;
        while at < bytes.len() {
            match &mut self.frame {
                None => {
                    if self.closed {
                        return Err(Malformed::Closed);
                    }
                    if self.have == 0 {
                        tell(Part::Header);
                    }
                    self.header[self.have] = bytes[at];
                    self.have += 1;
                    at += 1;
                    if self.have >= 2 && self.have == self.header_length()? {
                        self.frame = Some(self.begin()?);
                        self.have = 0;
                        self.ended(tell);
                    }
                }
                Some(frame) => {
                    let rest = (bytes.len() - at) as u64;
                    let length = usize::try_from(frame.left.min(rest)).unwrap_or(usize::MAX);
                    tell(Part::Payload {
                        kind: frame.kind,
                        at,
                        length,
                        mask: frame.mask,
                    });
                    frame.left -= length as u64;
                    frame.mask.rotate_left(length % 4);
                    at += length;
                    self.ended(tell);
                }
            }
        }
        Ok(())
    }

    /// Tells the end of a frame that has no more payload.
    fn ended(&mut self, tell: &mut impl FnMut(Part)) {
        let Some(frame) = self.frame.filter(|frame| frame.left == 0) else {
            return;
        };
        self.frame = None;
        if frame.last {
            tell(Part::End { kind: frame.kind });
        }
    }

    /// Length of the header, as far as its first two bytes say.
    fn header_length(&self) -> Result<usize, Malformed> {
        let masked = self.header[1] & 0x80 != 0;
        if masked != (self.side == Side::Client) {
            return Err(Malformed::Mask);
        }
        let extended = match self.header[1] & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        Ok(2 + extended + if masked { 4 } else { 0 })
    }

    fn begin(&mut self) -> Result<Frame, Malformed> {
        let [first, second, extended @ ..] = self.header;
        if first & 0x70 != 0 {
            return Err(Malformed::Reserved);
        }
        let (left, behind) = match second & 0x7f {
            126 => {
                let length = u64::from(u16::from_be_bytes([extended[0], extended[1]]));
                (
                    length,
                    if length > 125 {
                        2
                    } else {
                        return Err(Malformed::Length);
                    },
                )
            }
            127 => {
                let mut eight = [0; 8];
                eight.copy_from_slice(&extended[..8]);
                let length = u64::from_be_bytes(eight);
                if length <= u64::from(u16::MAX) || length >> 63 != 0 {
                    return Err(Malformed::Length);
                }
                (length, 8)
            }
            short => (u64::from(short), 0),
        };
        let mut mask = [0; 4];
        if self.side == Side::Client {
            mask.copy_from_slice(&extended[behind..behind + 4]);
        }
        let last = first & 0x80 != 0;
        let kind = match first & 0x0f {
            opcode @ 0x8..=0xa => {
                if !last || left > CONTROL {
                    return Err(Malformed::Control);
                }
                self.closed |= opcode == 0x8;
                return Ok(Frame {
                    kind: Kind::Control,
                    last,
                    left,
                    mask,
                });
            }
            0x0 => self.message.ok_or(Malformed::Continuation)?,
            opcode @ 0x1..=0x2 => {
                if self.message.is_some() {
                    return Err(Malformed::Continuation);
                }
                if opcode == 0x1 {
                    Kind::Text
                } else {
                    Kind::Binary
                }
            }
            _ => return Err(Malformed::Opcode),
        };
        self.message = (!last).then_some(kind);
        Ok(Frame {
            kind,
            last,
            left,
            mask,
        })
    }
}

/// Takes a mask off, or puts it on.
pub fn unmask(bytes: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let masked = bytes.chunks(4).flat_map(|four| four.iter().zip(mask));
    out.extend(masked.map(|(byte, mask)| byte ^ mask));
}

/// A frame that closes, with a code (RFC 6455, 7.4) and a reason of at most 123 bytes.
pub fn close(side: Side, code: u16, reason: &str, mask: [u8; 4]) -> Vec<u8> {
    let reason = &reason.as_bytes()[..reason.len().min(123)];
    let length = 2 + reason.len() as u8;
    let payload = [&code.to_be_bytes(), reason].concat();
    match side {
        Side::Server => [&[0x88, length], &payload[..]].concat(),
        Side::Client => {
            let mut frame = vec![0x88, 0x80 | length];
            frame.extend_from_slice(&mask);
            unmask(&payload, mask, &mut frame);
            frame
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A frame as a client sends it.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x5a, 0x0f, 0xc3, 0x99];
        let mut out = vec![first];
        match payload.len() {
            n @ 0..126 => out.push(0x80 | n as u8),
            n @ 126..65_536 => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(n as u16).to_be_bytes());
            }
            n => {
                out.push(0x80 | 127);
                out.extend_from_slice(&(n as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&mask);
        unmask(payload, mask, &mut out);
        out
    }

    /// Messages and control frames in order, however the stream is cut.
    fn read(stream: &[u8], size: usize) -> Result<Vec<(Kind, Vec<u8>)>, Malformed> {
        let mut frames = Frames::new(Side::Client);
        let (mut message, mut control, mut out) = (Vec::new(), Vec::new(), Vec::new());
        for piece in stream.chunks(size) {
            frames.push(piece, &mut |part| match part {
                Part::Header => {}
                Part::Payload {
                    kind,
                    at,
                    length,
                    mask,
                } => {
                    let into = if kind == Kind::Control {
                        &mut control
                    } else {
                        &mut message
                    };
                    unmask(&piece[at..at + length], mask, into);
                }
                Part::End { kind } => {
                    let whole = if kind == Kind::Control {
                        &mut control
                    } else {
                        &mut message
                    };
                    out.push((kind, std::mem::take(whole)));
                }
            })?;
        }
        assert!(frames.is_between());
        Ok(out)
    }

    #[test]
    fn messages_are_read_of_any_length_fragmented_and_with_control_frames_between() {
        let long = vec![b'l'; 70_000];
        let stream = [
            frame(0x81, b""),
            frame(0x81, &[b'a'; 125]),
            frame(0x82, &[b'b'; 126]),
            frame(0x82, &long),
            frame(0x01, b"in "),
            frame(0x89, b"ping"),
            frame(0x00, b"three "),
            frame(0x80, b"pieces"),
            frame(0x8a, b""),
            frame(0x88, &[3, 232]),
        ]
        .concat();
        let whole = read(&stream, stream.len()).unwrap();
        let kinds: Vec<_> = whole
            .iter()
            .map(|(kind, text)| (*kind, text.len()))
            .collect();
        let (text, binary, control) = (Kind::Text, Kind::Binary, Kind::Control);
        assert_eq!(
            kinds,
            [
                (text, 0),
                (text, 125),
                (binary, 126),
                (binary, 70_000),
                (control, 4),
                (text, 15),
                (control, 0),
                (control, 2)
            ]
        );
        assert_eq!(whole[5].1, b"in three pieces");
        for size in [1, 2, 3, 7, 4096] {
            assert_eq!(read(&stream, size).unwrap(), whole, "{size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let one = |first: u8| frame(first, b"x");
        let long = |n: usize, length: &[u8]| {
            let mark = if length.len() == 2 { 126 } else { 127 };
            [&[0x82, 0x80 | mark], length, &[0; 4], &vec![0; n]].concat()
        };
        for (stream, why) in [
            (one(0xc1), Malformed::Reserved),
            (one(0xa1), Malformed::Reserved),
            (one(0x91), Malformed::Reserved),
            (one(0x83), Malformed::Opcode),
            (one(0x8b), Malformed::Opcode),
            (vec![0x81, 0x01, b'x'], Malformed::Mask),
            (one(0x09), Malformed::Control),
            (frame(0x89, &[0; 126]), Malformed::Control),
            (one(0x80), Malformed::Continuation),
            ([one(0x01), one(0x81)].concat(), Malformed::Continuation),
            (long(125, &[0, 125]), Malformed::Length),
            (long(65_535, &65_535u64.to_be_bytes()), Malformed::Length),
            (long(0, &(1u64 << 63).to_be_bytes()), Malformed::Length),
            ([one(0x88), one(0x81)].concat(), Malformed::Closed),
        ] {
            for size in [1, 1000] {
                assert_eq!(read(&stream, size), Err(why), "{:?}", &stream[..2]);
            }
            let mut frames = Frames::new(Side::Client);
            for _ in 0..20 {
                let again = frames.push(&stream, &mut |_| {});
                assert_eq!(again, Err(why));
            }
        }
        assert!(read(&long(126, &[0, 126]), 1000).is_ok());
        assert!(read(&long(65_536, &65_536u64.to_be_bytes()), 1000).is_ok());
        assert!(read(&frame(0x89, &[0; 125]), 1000).is_ok());
    }

    #[test]
    fn streams_with_chance_in_them_are_read_the_same_however_they_are_cut() {
        let mut state = 11u64;
        let mut draw = |most: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % most
        };
        let parts = |stream: &[u8], size: usize| {
            let mut frames = Frames::new(Side::Client);
            let (mut text, mut ends) = (Vec::new(), Vec::new());
            let outcome = stream.chunks(size).try_for_each(|piece| {
                frames.push(piece, &mut |part| match part {
                    Part::Header => {}
                    Part::Payload {
                        at, length, mask, ..
                    } => unmask(&piece[at..at + length], mask, &mut text),
                    Part::End { kind } => ends.push((text.len(), kind)),
                })
            });
            (text, ends, outcome)
        };
        for _ in 0..20_000 {
            let mut stream = Vec::new();
            for _ in 0..draw(6) {
                let first = [0x01, 0x00, 0x80, 0x81, 0x82, 0x89, 0x8a][draw(7) as usize];
                stream.extend(frame(first, &vec![b'p'; draw(140) as usize]));
            }
            for _ in 0..draw(3) {
                if let Some(at) = draw(stream.len() as u64 + 1).checked_sub(1) {
                    stream[at as usize] ^= 1 << draw(8);
                }
            }
            let whole = parts(&stream, stream.len().max(1));
            assert!(whole.0.len() <= stream.len());
            assert_eq!(parts(&stream, 1 + draw(9) as usize), whole, "{stream:?}");
        }
    }

    #[test]
    fn a_close_is_a_frame_that_closes() {
        let stream = close(Side::Client, 1008, "policy", [1, 2, 3, 4]);
        let read = read(&stream, 3).unwrap();
        assert_eq!(
            read,
            [(Kind::Control, [&[3, 240], &b"policy"[..]].concat())]
        );
        let mut server = Frames::new(Side::Server);
        let stream = close(Side::Server, 1008, &"x".repeat(200), [0; 4]);
        server.push(&stream, &mut |_| {}).unwrap();
        assert!(server.is_closed() && server.is_between());
    }
}
