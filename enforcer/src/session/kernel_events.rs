//! The session's ring buffer: denials into the log, requests to wire into action, losses counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use enforcer_common as abi;
use tokio::io::unix::AsyncFd;

use super::{Session, listed};
use crate::events::{self, Limiter, Record};

/// Records taken out of the ring buffer before they are handled.
const BATCH: usize = 256;

impl Session {
    pub(super) async fn read_kernel_events(self: Arc<Self>, events: RingBuf<MapData>) {
        let mut closing = self.closed();
        // SAFETY: the ring buffer owns its descriptor for as long as it lives, and the AsyncFd owns the ring buffer.
        let mut events = match unsafe { AsyncFd::register(events) } {
            Ok(events) => events,
            Err(error) => {
                tracing::error!(session = %self.id, %error, "cannot read kernel events");
                let _ = self.close("events-unreadable").await;
                return;
            }
        };
        let mut limiter = Limiter::default();
        let mut beyond = 0u64;
        let (mut lost_before, mut dropped_before) = (0u64, 0u64);
        loop {
            let (mut batch, mut unreadable) = (Vec::new(), None);
            tokio::select! {
                ready = events.readable_mut() => {
                    match ready {
                        Ok(mut ready) => {
                            let buffer = ready.get_inner_mut();
                            while batch.len() < BATCH
                                && let Some(item) = buffer.next()
                            {
                                batch.extend(events::decode(&item));
                            }
                            if batch.len() < BATCH {
                                ready.clear_ready();
                            }
                        }
                        Err(error) => unreadable = Some(error),
                    }
                }
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
            if let Some(error) = unreadable {
                tracing::error!(session = %self.id, %error, "cannot read kernel events");
                let _ = self.close("events-unreadable").await;
                return;
            }
            for record in batch {
                let event = match record {
                    Record::Socket(event) => event,
                    Record::File(_) if !limiter.admit(Instant::now()) => {
                        beyond += 1;
                        continue;
                    }
                    // Beside everything else, which is not to wait for it.
                    Record::File(event) if listed::asks(&event) => {
                        let session = Arc::clone(&self);
                        tokio::spawn(async move {
                            let record = session.decided(&event).await;
                            let _ = session.write(record);
                        });
                        continue;
                    }
                    Record::File(event) => {
                        // A denial stands whether or not it could be written; `write` has said so.
                        let record = self.decided(&event).await;
                        let _ = self.write(record);
                        continue;
                    }
                };
                if event.reason == abi::Reason::WireRequest as u8 {
                    let session = Arc::clone(&self);
                    tokio::spawn(async move {
                        session.wire(event.process.tgid, event.netns_cookie).await;
                    });
                } else if limiter.admit(Instant::now()) {
                    let (host, self_test) = self.context_of(&event).await;
                    let mut denial = events::denial(&event, host);
                    if self_test {
                        // Init tries what must be refused before it starts anything.
                        denial.reason = "self-test".into();
                    }
                    // A denial stands whether or not it could be written; `write` has said so.
                    let _ = self.write(denial);
                } else {
                    beyond += 1;
                }
            }
            let (lost, dropped) = {
                let state = self.state.lock().await;
                let lost = state.maps.counts().map_or(0, |(_, lost)| lost);
                (lost + beyond, state.maps.dropped().unwrap_or_default())
            };
            if dropped > dropped_before {
                let _ = self.write(events::dropped(dropped - dropped_before, dropped));
                dropped_before = dropped;
            }
            if lost > lost_before {
                let _ = self.write(events::loss(lost - lost_before, lost));
                lost_before = lost;
            }
        }
    }

    /// The name behind the event's address, and whether it was init itself that was denied.
    async fn context_of(&self, event: &abi::Event) -> (Option<String>, bool) {
        let state = self.state.lock().await;
        let host = events::address4(event)
            .and_then(|address| state.names.name(address))
            .map(ToString::to_string);
        let init = state.wired.as_ref().map(|wired| wired.init);
        (host, init == Some(event.process.tgid))
    }
}
