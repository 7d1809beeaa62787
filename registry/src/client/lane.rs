//! How many references are looked up at a time, and how much of what registries send is held meanwhile. Each is looked up in a lane
//! of its own, at its own pace; what a lane holds is little, or it is one of the few that may hold whatever its bounds allow. A lane
//! becomes one of those once and stays it, so that none waits for another that waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

use super::Client;

/// The most lanes at a time.
pub const LANES: usize = 64;
/// What each of them may have been sent, in bytes, before it has to be a wide one.
pub const NARROW_BYTES: u64 = 512 * 1024;
/// The most wide ones at a time.
pub const WIDE: usize = 4;

/// Shared by every client that was made of the same one.
#[derive(Debug)]
pub(super) struct Lanes {
    all: Arc<Semaphore>,
    wide: Arc<Semaphore>,
}

#[derive(Debug)]
pub(crate) struct Lane {
    had: AtomicU64,
    wide: OnceCell<Option<OwnedSemaphorePermit>>,
    lanes: Arc<Lanes>,
    _one: Option<OwnedSemaphorePermit>,
}

// === impl Lanes ===

impl Lanes {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            all: Arc::new(Semaphore::new(LANES)),
            wide: Arc::new(Semaphore::new(WIDE)),
        })
    }
}

// === impl Lane ===

impl Lane {
    fn new(lanes: &Arc<Lanes>, one: Option<OwnedSemaphorePermit>) -> Arc<Self> {
        Arc::new(Self {
            had: AtomicU64::new(0),
            wide: OnceCell::new(),
            lanes: lanes.clone(),
            _one: one,
        })
    }

    /// Waits until so many more bytes may be held; whoever knows their number before it asks waits before it asks.
    pub(crate) async fn expect(&self, bytes: u64) {
        if self.had.load(Ordering::Relaxed).saturating_add(bytes) > NARROW_BYTES {
            self.widen().await;
        }
    }

    /// The same, and counts them.
    pub(crate) async fn take(&self, bytes: u64) {
        let had = self.had.fetch_add(bytes, Ordering::Relaxed);
        if had.saturating_add(bytes) > NARROW_BYTES {
            self.widen().await;
        }
    }

    async fn widen(&self) {
        // The semaphore is never closed.
        let permit = async || self.lanes.wide.clone().acquire_owned().await.ok();
        self.wide.get_or_init(permit).await;
    }
}

// === impl Client ===

impl Client {
    /// The same client for one reference: what it is sent counts until this one is dropped. Whoever has one asks for no other.
    pub async fn lane(&self) -> Self {
        let one = self.lanes.all.clone().acquire_owned().await.ok();
        Self {
            lane: Some(Lane::new(&self.lanes, one)),
            ..self.clone()
        }
    }

    pub(crate) async fn expect(&self, bytes: u64) {
        if let Some(lane) = &self.lane {
            lane.expect(bytes).await;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn lane(lanes: &Arc<Lanes>) -> Arc<Lane> {
        Lane::new(lanes, None)
    }

    async fn waits(lane: &Lane, bytes: u64) -> bool {
        let taken = tokio::time::timeout(Duration::from_millis(20), lane.take(bytes));
        taken.await.is_err()
    }

    #[tokio::test]
    async fn few_hold_much_and_everybody_a_little() {
        let lanes = Lanes::new();
        let mut wide = Vec::new();
        for _ in 0..WIDE {
            let one = lane(&lanes);
            assert!(!waits(&one, NARROW_BYTES + 1).await);
            wide.push(one);
        }
        // As much as may be held without being one of those, and one byte more, in one piece or in many.
        let narrow = lane(&lanes);
        assert!(!waits(&narrow, NARROW_BYTES).await);
        assert!(waits(&narrow, 1).await);
        assert!(waits(&lane(&lanes), NARROW_BYTES + 1).await);
        // One that is wide goes on, whatever it is sent.
        assert!(!waits(&wide[0], 1 << 40).await);
        wide.pop();
        assert!(!waits(&narrow, 1).await);
        assert!(waits(&lane(&lanes), NARROW_BYTES + 1).await);
        drop(narrow);
        assert!(!waits(&lane(&lanes), NARROW_BYTES + 1).await);
    }

    #[tokio::test]
    async fn what_is_expected_is_waited_for_before_it_is_sent() {
        let lanes = Lanes::new();
        let wide: Vec<_> = (0..WIDE).map(|_| lane(&lanes)).collect();
        for one in &wide {
            one.expect(NARROW_BYTES + 1).await;
        }
        let other = lane(&lanes);
        other.expect(NARROW_BYTES).await;
        let more = tokio::time::timeout(Duration::from_millis(20), other.expect(NARROW_BYTES + 1));
        assert!(more.await.is_err());
    }
}
