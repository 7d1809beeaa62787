//! Bodies on their way through: streamed frame by frame, never collected. Counts the data, hands trailers on (gRPC ends with
//! them; hyper writes them where the protocol and the other side can take them) but for fields that would say again what the
//! head said, and says at the end how it ended. Used by `http::forward`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::framer;

pub struct Counted {
    inner: Incoming,
    count: Arc<AtomicU64>,
    /// Called once: true when the body came to its end, false when it broke off.
    on_end: Option<Box<dyn FnOnce(bool) + Send + Sync>>,
}

impl Counted {
    pub fn new(inner: Incoming, count: Arc<AtomicU64>) -> Self {
        Self {
            inner,
            count,
            on_end: None,
        }
    }

    pub fn on_end(mut self, on_end: impl FnOnce(bool) + Send + Sync + 'static) -> Self {
        self.on_end = Some(Box::new(on_end));
        self
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.count.fetch_add(data.len() as u64, Ordering::Relaxed);
                }
                if let Some(trailers) = frame.trailers_mut() {
                    for name in framer::NOT_IN_TRAILERS {
                        trailers.remove(name);
                    }
                }
            }
            Some(Err(_)) => {}
            None => {
                if let Some(on_end) = self.on_end.take() {
                    on_end(true);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Some(on_end) = self.on_end.take() {
            on_end(self.inner.is_end_stream());
        }
    }
}
