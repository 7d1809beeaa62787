//! A text that comes in pieces, looked at with an overlap: what is found whole is found however it is cut. What cannot be decided
//! about yet, and would be blocked, is held back until it can; nothing else is. Memory is one overlap a stream.

use std::cell::RefCell;
use std::sync::Arc;

use hyper::body::Bytes;
use hyper::header::HeaderMap;
use schema::inspection::{Inspector as Name, Level};

use super::{Chain, Destination, Field, Finding, Text, Told, media};
use crate::limits;
use crate::view::{Unread, View};

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Looks at one text.
pub struct Scanner {
    chain: Arc<Chain>,
    field: Field,
    to: Destination,
    media: Option<String>,
    /// The last of what was looked at.
    tail: Vec<u8>,
    /// Bytes so far.
    at: u64,
    pending: usize,
    told: Told,
}

/// A request's body on its way through.
pub struct Stream {
    scanner: Scanner,
    view: View,
    held: Vec<u8>,
    begun: bool,
    finished: bool,
}

// === impl Scanner ===

impl Scanner {
    pub fn new(chain: Arc<Chain>, field: Field, to: Destination) -> Self {
        Self {
            chain,
            field,
            to,
            media: None,
            tail: Vec::new(),
            at: 0,
            pending: 0,
            told: Told::default(),
        }
    }

    /// Takes the next piece. How many bytes at the end of all have to wait.
    ///
    /// # Errors
    /// What is blocked.
    pub fn push(&mut self, piece: &[u8], flags: &mut Vec<Finding>) -> Result<usize, Finding> {
        for slice in piece.chunks(limits::INSPECTED_AT_ONCE) {
            self.pending = self.look(slice, true, flags)?;
        }
        Ok(self.pending)
    }

    /// How many bytes at the end of all have to wait.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// What the text says that it is.
    pub fn set_media(&mut self, media: Option<&'static str>) {
        if self.media.as_deref() != media {
            self.media = media.map(str::to_owned);
        }
    }

    /// There is no more; another text may begin. What has flagged something does not do so again.
    ///
    /// # Errors
    /// What is blocked.
    pub fn finish(&mut self, flags: &mut Vec<Finding>) -> Result<(), Finding> {
        let looked = self.look(&[], false, flags).map(drop);
        self.tail = Vec::new();
        self.at = 0;
        self.pending = 0;
        looked
    }

    fn look(
        &mut self,
        slice: &[u8],
        more: bool,
        flags: &mut Vec<Finding>,
    ) -> Result<usize, Finding> {
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.extend_from_slice(&self.tail);
            scratch.extend_from_slice(slice);
            let text = Text {
                bytes: scratch,
                at: self.at - self.tail.len() as u64,
                more,
                field: &self.field,
                to: &self.to,
                media: self.media.as_deref(),
                known: &self.chain.known,
            };
            let pending = self.chain.look(&text, &mut self.told, flags)?;
            let pending = pending.min(limits::INSPECTED_OVERLAP);
            let kept = limits::INSPECTED_OVERLAP.min(scratch.len());
            self.tail.clear();
            self.tail
                .extend_from_slice(&scratch[scratch.len() - kept..]);
            self.at += slice.len() as u64;
            Ok(pending)
        })
    }
}

// === impl Stream ===

impl Stream {
    /// # Errors
    /// A body that cannot be looked through, where that is blocked.
    pub(super) fn new(
        chain: Arc<Chain>,
        headers: &HeaderMap,
        to: Destination,
        flags: &mut Vec<Finding>,
    ) -> Result<Self, Finding> {
        let media = media(headers);
        let view = View::of(headers, media.as_deref());
        let mut stream = Self {
            scanner: Scanner {
                media,
                ..Scanner::new(chain, Field::Body, to)
            },
            view: View::Plain,
            held: Vec::new(),
            begun: false,
            finished: false,
        };
        match view {
            Ok(view) => stream.view = view,
            Err(why) => stream.unread(why, flags)?,
        }
        Ok(stream)
    }

    /// Takes the next piece and gives what may pass.
    ///
    /// # Errors
    /// What is blocked: nothing of this piece passes.
    pub fn push(&mut self, piece: Bytes, flags: &mut Vec<Finding>) -> Result<Bytes, Finding> {
        self.begun = true;
        let pending = match &mut self.view {
            View::Plain => self.scanner.push(&piece, flags)?,
            View::Form(percent) => {
                let text = percent.push(&piece);
                // Each byte of it is at most three here, and one more may be open.
                match self.scanner.push(&text, flags)? {
                    0 => 0,
                    pending => pending * 3 + 2,
                }
            }
            View::Inflate(_) => {
                self.inflate(&piece, flags)?;
                // What the open text came of is among the last of the compressed bytes.
                match self.scanner.pending() {
                    0 => 0,
                    _ => limits::INSPECTED_HELD,
                }
            }
            View::Unread => 0,
        };
        if pending == 0 && self.held.is_empty() {
            return Ok(piece);
        }
        self.held.extend_from_slice(&piece);
        let rest = self.held.split_off(self.held.len().saturating_sub(pending));
        Ok(std::mem::replace(&mut self.held, rest).into())
    }

    fn inflate(&mut self, piece: &[u8], flags: &mut Vec<Finding>) -> Result<(), Finding> {
        for little in piece.chunks(limits::INFLATE) {
            let View::Inflate(inflate) = &mut self.view else {
                return Ok(());
            };
            match inflate.push(little) {
                Ok(text) => {
                    self.scanner.push(&text, flags)?;
                }
                Err(why) => self.unread(why, flags)?,
            }
        }
        Ok(())
    }

    /// The body has come to its end: what was held back.
    ///
    /// # Errors
    /// What is blocked.
    pub fn finish(&mut self, flags: &mut Vec<Finding>) -> Result<Bytes, Finding> {
        if !std::mem::replace(&mut self.finished, true) && self.begun {
            match &mut self.view {
                View::Form(percent) => {
                    let rest = percent.finish();
                    self.scanner.push(&rest, flags)?;
                }
                View::Inflate(inflate) => {
                    if let Err(why) = inflate.finish() {
                        self.unread(why, flags)?;
                    }
                }
                View::Plain | View::Unread => {}
            }
            self.scanner.finish(flags)?;
        }
        Ok(std::mem::take(&mut self.held).into())
    }

    /// Whether the end of the body is still to be told.
    pub fn is_open(&self) -> bool {
        self.begun && !self.finished
    }

    /// Bytes that are held back.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// From here on nobody looks. An encoding that is not known is the content type's inspector's; one that is not what its head
    /// says, or stands for too much, is blocked where any inspector blocks.
    fn unread(&mut self, why: Unread, flags: &mut Vec<Finding>) -> Result<(), Finding> {
        self.view = View::Unread;
        let links = &self.scanner.chain.links;
        let content_type = Some(Name::ContentType);
        let link = match why {
            Unread::Encoding => links.iter().find(|link| link.name == content_type),
            Unread::Broken | Unread::TooMuch => links.iter().max_by_key(|link| link.level),
        };
        let Some(link) = link else {
            return Ok(());
        };
        let finding = Finding {
            code: "inspection-encoding",
            inspector: link.name,
            level: link.level,
            kind: why.kind(),
            field: Field::Body,
            at: 0,
            length: 0,
        };
        if link.level == Level::Block {
            return Err(finding);
        }
        flags.push(finding);
        Ok(())
    }
}
