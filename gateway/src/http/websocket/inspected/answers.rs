//! Credentials' values in what a server sends over a WebSocket: what stands for one takes its place, in text, binary and control
//! frames, across the frames of one message. As long as what was there, so that no header changes. Holds back what may be the
//! beginning of one, and what follows it. Used by `inspected::carry`.

use std::sync::Arc;

use super::{Stop, endless};
use crate::credentials::window::{Patterns, Window};
use crate::inspect::frames::{Frames, Kind, Part, Side};
use crate::limits;

pub struct Answers {
    frames: Frames,
    patterns: Arc<Patterns>,
    message: Window,
    /// Not passed on yet.
    held: Vec<u8>,
    /// Payload of the open message among it that is not decided: where, how long.
    open: Vec<(usize, usize)>,
    /// Payload of a control frame that is not whole: it is short and waits.
    control: Vec<(usize, usize)>,
    /// It is no sequence of frames: from then on bytes are looked through as they come.
    opaque: bool,
}

impl Answers {
    pub fn new(patterns: Arc<Patterns>) -> Self {
        Self {
            frames: Frames::new(Side::Server),
            message: Window::new(Arc::clone(&patterns)),
            patterns,
            held: Vec::new(),
            open: Vec::new(),
            control: Vec::new(),
            opaque: false,
        }
    }

    /// Takes what the server sent and gives what may pass.
    ///
    /// # Errors
    /// What would have to be held back without end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<u8>, Stop> {
        if self.opaque {
            return Ok(self.message.push(bytes).0);
        }
        let start = self.held.len();
        self.held.extend_from_slice(bytes);
        let mut parts = Vec::new();
        let read = self.frames.push(bytes, &mut |part| parts.push(part));
        for part in parts {
            self.part(part, start);
        }
        if read.is_err() {
            let rest = self.message.finish();
            self.decide(&rest);
            self.opaque = true;
            self.message = Window::new(Arc::clone(&self.patterns));
            let held = std::mem::take(&mut self.held);
            return Ok(self.message.push(&held).0);
        }
        let firsts = [self.open.first(), self.control.first()];
        let end = firsts.into_iter().flatten().map(|(at, _)| *at).min();
        let rest = self.held.split_off(end.unwrap_or(self.held.len()));
        let passed = std::mem::replace(&mut self.held, rest);
        for (at, _) in self.open.iter_mut().chain(&mut self.control) {
            *at -= passed.len();
        }
        if self.held.len() > limits::INSPECTED_FRAMES {
            return Err(Stop::Blocked(endless()));
        }
        Ok(passed)
    }

    /// What was held back, at the end of a stream that broke off.
    pub fn finish(&mut self) -> Vec<u8> {
        let rest = self.message.finish();
        if self.opaque {
            return rest;
        }
        self.decide(&rest);
        std::mem::take(&mut self.held)
    }

    fn part(&mut self, part: Part, start: usize) {
        match part {
            Part::Header => {}
            Part::Payload {
                kind: Kind::Control,
                at,
                length,
                ..
            } => self.control.push((start + at, length)),
            Part::Payload { at, length, .. } => {
                self.open.push((start + at, length));
                let piece = &self.held[start + at..start + at + length];
                let (decided, _) = self.message.push(piece);
                self.decide(&decided);
            }
            Part::End {
                kind: Kind::Control,
            } => {
                let places = std::mem::take(&mut self.control);
                let mut text: Vec<u8> = places
                    .iter()
                    .flat_map(|&(at, length)| self.held[at..at + length].to_vec())
                    .collect();
                if self.patterns.replace(&mut text) {
                    let mut from = text.as_slice();
                    for (at, length) in places {
                        let (piece, rest) = from.split_at(length);
                        self.held[at..at + length].copy_from_slice(piece);
                        from = rest;
                    }
                }
            }
            Part::End { .. } => {
                let rest = self.message.finish();
                self.decide(&rest);
                self.message = Window::new(Arc::clone(&self.patterns));
            }
        }
    }

    /// Puts the next of the message's payload where it belongs.
    fn decide(&mut self, mut decided: &[u8]) {
        let mut whole = 0;
        for (at, length) in &mut self.open {
            let count = decided.len().min(*length);
            let (piece, rest) = decided.split_at(count);
            self.held[*at..*at + count].copy_from_slice(piece);
            decided = rest;
            (*at, *length) = (*at + count, *length - count);
            if *length > 0 {
                break;
            }
            whole += 1;
        }
        self.open.drain(..whole);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::credentials::window::At;

    const VALUE: &[u8] = b"ghp_RealRealRealRealRealRealReal";
    const OTHER: &[u8] = b"ghp_FakeFakeFakeFakeFakeFakeFake";

    fn answers() -> Answers {
        let mut patterns = Patterns::default();
        patterns.add(VALUE, OTHER, At::Own);
        Answers::new(Arc::new(patterns))
    }

    /// A server's frame of up to 125 bytes.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
    }

    fn through(stream: &[u8], size: usize) -> Vec<u8> {
        let mut answers = answers();
        let mut out = Vec::new();
        for piece in stream.chunks(size) {
            out.extend(answers.push(piece).unwrap());
        }
        assert!(answers.held.is_empty(), "{size}");
        out
    }

    #[test]
    fn a_value_is_taken_out_however_it_is_cut_into_frames_and_pieces() {
        let (text, binary, rest, last) = (0x01, 0x02, 0x00, 0x80);
        let messages = |value: &[u8]| {
            let (one, two) = value.split_at(15);
            [
                frame(text | last, &[b"token ", value, b"."].concat()),
                // Over three frames, one of them empty, with a ping between that has one as well.
                frame(text, &[b"t ", one].concat()),
                frame(0x89, value),
                frame(rest, b""),
                frame(rest | last, &[two, b" end"].concat()),
                frame(binary | last, value),
                // A beginning alone is no value, nor is one over two messages.
                frame(text | last, &VALUE[..20]),
                frame(text | last, &VALUE[20..]),
                frame(0x88, &[&[3, 232], value].concat()),
            ]
            .concat()
        };
        let (stream, wanted) = (messages(VALUE), messages(OTHER));
        assert_eq!(through(&stream, stream.len()), wanted);
        for size in 1..stream.len() {
            let out = through(&stream, size);
            assert_eq!(out.len(), wanted.len());
            // In small pieces, its public beginning and a little more were passed on before it was whole.
            let most = &VALUE[..20];
            let open = out.windows(20).filter(|part| part == &most).count();
            assert_eq!(open, 1, "{size}");
        }
    }

    #[test]
    fn what_is_no_part_of_one_is_not_held_back() {
        let mut answers = answers();
        let open = frame(0x01, b"data: hello");
        assert_eq!(answers.push(&open).unwrap(), open);
        let begun = frame(0x00, &[b"x", &VALUE[..20]].concat());
        let passed = answers.push(&begun).unwrap();
        assert_eq!(passed, begun[..3]);
        // A stream that ends there was no value.
        assert_eq!(answers.finish(), begun[3..]);
    }

    #[test]
    fn frames_that_carry_nothing_wait_no_longer_than_may_be() {
        let ping = frame(0x89, b"");
        let behind = |count: usize| {
            let mut answers = answers();
            let begun = frame(0x01, &VALUE[..20]);
            answers.push(&begun).unwrap();
            answers.push(&ping.repeat(count)).map(|_| ())
        };
        let most = (limits::INSPECTED_FRAMES - 20) / ping.len();
        assert!(behind(most).is_ok());
        assert!(matches!(behind(most + 1), Err(Stop::Blocked(_))));
    }

    #[test]
    fn what_is_no_frame_is_looked_through_as_it_comes() {
        // Masked, which no server's frame is.
        let stream = |value: &[u8]| [&[0x81, 0xa0, 0, 0, 0, 0], value, b" and ", value].concat();
        for size in [1, 15, 200] {
            let mut answers = answers();
            let mut out = Vec::new();
            for piece in stream(VALUE).chunks(size) {
                out.extend(answers.push(piece).unwrap());
            }
            out.extend(answers.finish());
            assert_eq!(out.len(), stream(OTHER).len());
            assert!(!out.windows(20).any(|part| part == &VALUE[..20]), "{size}");
        }
    }
}
