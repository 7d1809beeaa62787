//! Connections to upstreams that rest between two client connections of a thread, HTTP/1 only. One is taken again for the
//! same place, under the same policy and with the same credential, or none, and for nothing else. They rest for less
//! time than servers keep them, and a new policy closes them all. Filled and asked by `http::upstream`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::upstream::One;
use crate::limits;
use crate::state::Intent;

/// What a connection may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub intent: Intent,
    /// Of the policy that it was dialled under.
    pub generation: u32,
    /// The credentials that its requests carried, by name.
    pub credentials: Vec<String>,
}

struct Resting {
    what: Use,
    one: One,
    since: Instant,
}

pub struct Pool {
    resting: Mutex<Vec<Resting>>,
    /// Of the policy that is in force.
    generation: AtomicU32,
    /// Descriptors beyond the one that every client connection has for its upstream.
    extra: Arc<Semaphore>,
    /// How many may rest.
    room: usize,
}

impl Pool {
    pub fn new(extra: Arc<Semaphore>, room: usize) -> Self {
        Self {
            room,
            resting: Mutex::default(),
            generation: AtomicU32::new(0),
            extra,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Resting>> {
        // Every change under this lock is a single insertion or removal.
        self.resting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that has rested shortest, whose server has had the least time to close it.
    pub fn take(&self, what: &Use) -> Option<One> {
        let mut resting = self.lock();
        resting.retain(Resting::is_usable);
        let at = resting
            .iter()
            .rposition(|resting| resting.what == *what && resting.one.is_ready())?;
        Some(resting.remove(at).one)
    }

    /// Lets it rest, where there is room: its descriptor no longer counts as its client connection's.
    pub fn put(self: &Arc<Self>, what: Use, mut one: One) {
        // One whose last response was not read to its end is nobody's any more.
        if !one.is_ready() {
            return;
        }
        if !one.holds_permit() {
            let Ok(permit) = Arc::clone(&self.extra).try_acquire_owned() else {
                return;
            };
            one.hold(permit);
        }
        let mut resting = self.lock();
        // Asked under the lock that `clear` takes: what comes after it is of its policy.
        if what.generation < self.generation.load(Ordering::Relaxed) {
            return;
        }
        if resting.len() >= self.room {
            resting.remove(0);
        }
        if resting.is_empty() {
            tokio::spawn(Arc::clone(self).tidy());
        }
        resting.push(Resting {
            what,
            one,
            since: Instant::now(),
        });
    }

    /// Closes all that rest, for a policy that took the place of theirs.
    pub fn clear(&self, generation: u32) {
        let mut resting = self.lock();
        self.generation.store(generation, Ordering::Relaxed);
        resting.clear();
    }

    /// Closes those that have rested long enough, until none is left.
    async fn tidy(self: Arc<Self>) {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut resting = self.lock();
            resting.retain(Resting::is_usable);
            if resting.is_empty() {
                return;
            }
        }
    }
}

impl Resting {
    fn is_usable(&self) -> bool {
        !self.one.is_closed() && self.since.elapsed() < limits::RESTING_UPSTREAM
    }
}
