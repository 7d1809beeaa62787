//! Bodies on their way through: streamed frame by frame, never collected. Counts the data, hands trailers on (gRPC ends with
//! them; hyper writes them where the protocol and the other side can take them) but for fields that would say again what the
//! head said, looks for what may not be in it or may not come back, and says at the end how it ended. Used by `http::forward`.

use std::io::Write as _;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{HeaderMap, HeaderValue};

use super::framer;
use super::inspected::{Blocked, Inspected};
use super::meaning::{Meaning, Misplaced};
use crate::credentials::window::{Patterns, Window};
use crate::limits;

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error(transparent)]
    Hyper(#[from] hyper::Error),
    #[error("what stands for a credential is in the body, where it does not belong")]
    Placeholder,
    #[error("the body has a parameter that is another method to the server")]
    OtherMethod,
    #[error("the body is longer than a rule allows")]
    TooLong,
    #[error("an inspector blocks the body")]
    Inspected,
    #[error("the stream was reset before the end of its body")]
    BrokenOff,
    #[error("the body is not the gzip that its head says: {0}")]
    Gzip(std::io::Error),
}

/// What of a body ended it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    Placeholder,
    OtherMethod,
    TooLong,
}

/// Why a body was broken off, for whoever answers.
#[derive(Debug, Default)]
pub struct Broken {
    why: OnceLock<Break>,
    answered: AtomicBool,
    told: AtomicBool,
    pub inspected: Arc<Blocked>,
}

impl Broken {
    fn off(&self, why: Break) {
        let _ = self.why.set(why);
    }

    pub fn why(&self) -> Option<Break> {
        self.why.get().copied()
    }

    /// There is an answer. Whatever comes later is not said in it.
    pub fn answered(&self) -> Option<Break> {
        self.answered.store(true, Ordering::SeqCst);
        self.told()
    }

    /// What came when there was an answer already.
    pub fn after_the_answer(&self) -> Option<Break> {
        self.answered.load(Ordering::SeqCst).then(|| self.told())?
    }

    /// Once.
    fn told(&self) -> Option<Break> {
        let why = self.why()?;
        (!self.told.swap(true, Ordering::SeqCst)).then_some(why)
    }
}

/// What is done about what is found.
enum Watch {
    Nothing,
    /// It breaks off before the first byte of it, and this is set.
    Refuse(Window),
    /// What stands for it takes its place.
    Exchange(Window),
}

/// How the end of a body is known.
pub enum Ends {
    /// It says so itself.
    Body,
    /// Of HTTP/2. hyper takes a reset that says NO_ERROR for an end, as it is where a server answers before it has been sent
    /// everything (RFC 9113, 8.1). Where this is true it has been, and an end is what ends the stream.
    Stream(Arc<AtomicBool>),
}

pub struct Counted {
    inner: Incoming,
    ends: Ends,
    /// Its trailers came.
    trailed: bool,
    count: Arc<AtomicU64>,
    inspected: Option<Inspected>,
    meaning: Option<Meaning>,
    watch: Watch,
    inflate: Option<Inflate>,
    /// Bytes that may still come.
    left: u64,
    broken: Arc<Broken>,
    /// The body itself has come to its end.
    ended: bool,
    /// It was broken off, here or before.
    failed: bool,
    /// Trailers that wait for the last of the data.
    owed: Option<HeaderMap>,
    /// Called once: true when the body came to its end, false when it broke off.
    on_end: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

impl Counted {
    pub fn new(inner: Incoming, ends: Ends, count: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            ends,
            trailed: false,
            count,
            inspected: None,
            meaning: None,
            watch: Watch::Nothing,
            inflate: None,
            left: u64::MAX,
            broken: Arc::default(),
            ended: false,
            failed: false,
            owed: None,
            on_end: None,
        }
    }

    /// Breaks off where one of them is found or it becomes too long, and says so.
    pub fn refuse(
        mut self,
        patterns: Option<Arc<Patterns>>,
        longest: Option<u64>,
        broken: Arc<Broken>,
    ) -> Self {
        if let Some(patterns) = patterns {
            self.watch = Watch::Refuse(Window::new(patterns));
        }
        self.left = longest.unwrap_or(u64::MAX);
        self.broken = broken;
        self
    }

    /// Breaks off where an inspector blocks.
    pub fn inspected(mut self, inspected: Option<Inspected>) -> Self {
        self.inspected = inspected;
        self
    }

    /// Breaks off where it stands for what may not be in it.
    pub fn meaning(mut self, meaning: Option<Meaning>) -> Self {
        self.meaning = meaning;
        self
    }

    /// Reads gzip (RFC 1952) on the way.
    pub fn inflated(mut self, gzip: bool) -> Self {
        self.inflate = gzip.then(Inflate::default);
        self
    }

    /// Exchanges every one of them.
    pub fn exchange(mut self, patterns: Option<Arc<Patterns>>) -> Self {
        if let Some(patterns) = patterns {
            self.watch = Watch::Exchange(Window::new(patterns));
        }
        self
    }

    pub fn on_end(mut self, on_end: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(on_end));
        self
    }

    fn data(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        match self.left.checked_sub(data.len() as u64) {
            Some(left) => self.left = left,
            None => {
                self.broken.off(Break::TooLong);
                return Err(BodyError::TooLong);
            }
        }
        match self.meaning.as_mut().map(|meaning| meaning.push(&data)) {
            None | Some(Ok(())) => {}
            Some(Err(Misplaced::Placeholder)) => {
                self.broken.off(Break::Placeholder);
                return Err(BodyError::Placeholder);
            }
            Some(Err(Misplaced::OtherMethod)) => {
                self.broken.off(Break::OtherMethod);
                return Err(BodyError::OtherMethod);
            }
        }
        let data = match &mut self.inspected {
            Some(inspected) => {
                let passed = inspected.push(data).ok_or(BodyError::Inspected)?;
                // Nobody asks again behind the last byte of a body whose length is known.
                let rest = if self.inner.is_end_stream() {
                    inspected.finish().ok_or(BodyError::Inspected)?
                } else {
                    Bytes::new()
                };
                if rest.is_empty() {
                    passed
                } else {
                    [passed, rest].concat().into()
                }
            }
            None => data,
        };
        self.watched(data)
    }

    fn watched(&mut self, data: Bytes) -> Result<Bytes, BodyError> {
        match &mut self.watch {
            Watch::Nothing => Ok(data),
            Watch::Refuse(window) => {
                let (bytes, found) = window.push(&data);
                if found {
                    self.broken.off(Break::Placeholder);
                    return Err(BodyError::Placeholder);
                }
                Ok(bytes.into())
            }
            Watch::Exchange(window) => Ok(window.push(&data).0.into()),
        }
    }

    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), BodyError> {
        for name in framer::NOT_IN_TRAILERS {
            trailers.remove(name);
        }
        if let Some(inspected) = &self.inspected {
            inspected.trailers(trailers).ok_or(BodyError::Inspected)?;
        }
        match &self.watch {
            Watch::Nothing => {}
            Watch::Refuse(window) => {
                if trailers
                    .values()
                    .any(|value| window.patterns().is_in(value.as_bytes()))
                {
                    self.broken.off(Break::Placeholder);
                    return Err(BodyError::Placeholder);
                }
            }
            Watch::Exchange(window) => exchange(trailers, window.patterns()),
        }
        Ok(())
    }

    /// Whether nothing more comes because nothing is missing.
    fn is_whole(&self) -> bool {
        let Ends::Stream(all) = &self.ends else {
            return true;
        };
        self.trailed
            || self.inner.is_end_stream()
            || self.inner.size_hint().exact() == Some(0)
            || !all.load(Ordering::Relaxed)
    }

    /// What was held back for what might have come.
    fn rest(&mut self) -> Result<Bytes, BodyError> {
        let held = match &mut self.inspected {
            Some(inspected) => inspected.finish().ok_or(BodyError::Inspected)?,
            None => Bytes::new(),
        };
        let mut rest = self.watched(held)?;
        if let Watch::Refuse(window) | Watch::Exchange(window) = &mut self.watch {
            rest = [&rest[..], &window.finish()].concat().into();
        }
        Ok(rest)
    }
}

/// gzip that is read a little at a time: a little of it may stand for much.
struct Inflate {
    decoder: flate2::write::MultiGzDecoder<Vec<u8>>,
    waiting: Bytes,
    begun: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self {
            decoder: flate2::write::MultiGzDecoder::new(Vec::new()),
            waiting: Bytes::new(),
            begun: false,
        }
    }
}

impl Inflate {
    /// What the next of it stands for, maybe nothing yet; `None` when more has to be read first.
    fn next(&mut self) -> Option<std::io::Result<Bytes>> {
        if self.waiting.is_empty() {
            return None;
        }
        self.begun = true;
        let piece = self
            .waiting
            .split_to(self.waiting.len().min(limits::INFLATE));
        let written = self.decoder.write_all(&piece);
        let written = written.and_then(|()| self.decoder.flush());
        Some(written.map(|()| std::mem::take(self.decoder.get_mut()).into()))
    }

    /// What was read is whole: it was flushed after each piece, so nothing more comes of this. No body at all (HEAD, 304) is whole.
    fn finish(mut self) -> std::io::Result<()> {
        if self.begun {
            self.decoder.try_finish()
        } else {
            Ok(())
        }
    }
}

/// The same for the values of fields.
pub fn exchange(headers: &mut HeaderMap, patterns: &Patterns) {
    for value in headers.values_mut() {
        let mut text = value.as_bytes().to_vec();
        if patterns.replace(&mut text)
            && let Ok(exchanged) = HeaderValue::from_bytes(&text)
        {
            *value = exchanged;
        }
    }
}

impl Counted {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(trailers) = self.owed.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        loop {
            if let Some(data) = self.inflate.as_mut().and_then(Inflate::next) {
                let data = data.map_err(BodyError::Gzip)?;
                let data = self.data(data)?;
                if !data.is_empty() {
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                continue;
            }
            let frame = if self.ended {
                None
            } else {
                ready!(Pin::new(&mut self.inner).poll_frame(cx))
            };
            match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        self.count.fetch_add(data.len() as u64, Ordering::Relaxed);
                        if let Some(inflate) = &mut self.inflate {
                            inflate.waiting = data;
                            continue;
                        }
                        let data = self.data(data)?;
                        if !data.is_empty() {
                            return Poll::Ready(Some(Ok(Frame::data(data))));
                        }
                    }
                    Err(frame) => {
                        if let Ok(mut trailers) = frame.into_trailers() {
                            // They follow the last of the data: nothing of it waits here.
                            if let Some(inflate) = self.inflate.take() {
                                inflate.finish().map_err(BodyError::Gzip)?;
                            }
                            self.trailed = true;
                            self.trailers(&mut trailers)?;
                            let rest = self.rest()?;
                            if trailers.is_empty() {
                                // Some servers take a head without a field for none at all.
                                self.ended = true;
                            } else if rest.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                            } else {
                                // What the end of the data owes comes first.
                                self.owed = Some(trailers);
                            }
                            if !rest.is_empty() {
                                return Poll::Ready(Some(Ok(Frame::data(rest))));
                            }
                        }
                    }
                },
                None if !self.ended && !self.is_whole() => {
                    return Poll::Ready(Some(Err(BodyError::BrokenOff)));
                }
                None => {
                    self.ended = true;
                    if let Some(inflate) = self.inflate.take() {
                        inflate.finish().map_err(BodyError::Gzip)?;
                    }
                    let rest = self.rest()?;
                    if !rest.is_empty() {
                        return Poll::Ready(Some(Ok(Frame::data(rest))));
                    }
                    if let Some(on_end) = self.on_end.take() {
                        on_end(true);
                    }
                    return Poll::Ready(None);
                }
            }
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(self.poll_next(cx));
        self.failed |= matches!(frame, Some(Err(_)));
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let holds = match &self.watch {
            Watch::Nothing => false,
            Watch::Refuse(window) | Watch::Exchange(window) => !window.is_empty(),
        };
        let inspecting = self.inspected.as_ref().is_some_and(Inspected::is_open);
        self.inner.is_end_stream()
            && !inspecting
            && !holds
            && self.owed.is_none()
            && self.inflate.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.inflate.is_some() {
            return SizeHint::default();
        }
        // What takes a place is as long as what was there; what is held back is owed.
        let held = match &self.watch {
            Watch::Nothing => 0,
            Watch::Refuse(window) | Watch::Exchange(window) => window.len() as u64,
        };
        let held = held + self.inspected.as_ref().map_or(0, Inspected::held) as u64;
        let mut hint = self.inner.size_hint();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.is_end_stream() && !self.failed);
        }
    }
}
