//! The end of a session: its processes first, and only when none is left what held them. What cannot be killed stays held, with the
//! gate shut, and is tried again for as long as it lives. Also the undoing of a session that was begun, or left, half-way.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use audit::{Event, Kind, Verdict};

use super::{Session, SessionError};
use crate::cgroup::Cgroup;
use crate::kernel;
use crate::places::Places;
use crate::slice;

/// Pauses between attempts to end what would not end; the last one again and again.
const AGAIN: [Duration; 4] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(15),
];

/// How far the end has come.
#[derive(Debug, Default)]
pub(super) struct End {
    /// Why it was called for first.
    reason: Option<String>,
    /// Whether it is on record that it could not be done.
    said: bool,
    over: bool,
}

impl Session {
    /// Ends the session: its processes, then gateway, links, maps, cgroup. Returns events written and lost. While a process of it
    /// lives this is an error, everything that holds the process stays, and it is tried again without being asked.
    pub async fn close(&self, reason: &str) -> Result<(u64, u64), SessionError> {
        let mut end = self.end.lock().await;
        if end.over {
            return Err(SessionError::Closed);
        }
        let reason = end.reason.get_or_insert_with(|| reason.to_owned()).clone();
        self.closing.send_replace(true);
        self.shut().await;
        self.withdraw_all();
        self.broker().forget(self.id.as_str());
        // First what the agent runs, while everything still stands between it and the world.
        let (places, id) = (Arc::clone(&self.places), self.id.clone());
        let killed = tokio::task::spawn_blocking(move || destroy(&places, id.as_str()));
        let killed = killed
            .await
            .unwrap_or_else(|error| Err(SessionError::Task(error.to_string())));
        if let Err(error) = killed {
            if !std::mem::replace(&mut end.said, true) {
                let mut event = Event::new(Kind::Lifecycle, Verdict::Flag, "not-closed");
                event.layer = Some("enforcer".into());
                event.detail = Some(format!("its gate stays, and is shut: {error}"));
                let _ = self.write(event);
            }
            return Err(error);
        }
        end.over = true;
        self.link.said_all().await;
        self.release_secrets().await;
        let (lost, removed, stored) = {
            let mut state = self.state.lock().await;
            let (_, lost) = state.maps.counts().unwrap_or_default();
            state.wired = None;
            // Whoever else still has the programs: they hold nowhere, and the namespace's number may be another's.
            state.release_files();
            state.kernel = None;
            let removed = kernel::remove_pins(&self.places.pins.join(self.id.as_str()));
            let stored = state
                .store
                .take()
                .map_or(Ok(()), crate::store::Store::remove);
            (lost, removed, stored)
        };
        let mut event = Event::new(Kind::Lifecycle, Verdict::Allow, "session-closed");
        event.layer = Some("enforcer".into());
        event.detail = Some(reason);
        let seq = self.write(event);
        let synced = self
            .log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .sync();
        self.over.store(true, Ordering::Release);
        let seq = seq?;
        synced?;
        removed?;
        stored?;
        Ok((seq, lost))
    }

    /// Whether nothing of it is left.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// From now on everything is refused, whoever still runs.
    async fn shut(&self) {
        let mut state = self.state.lock().await;
        if state.kernel.is_some()
            && let Err(error) = state
                .maps
                .set_settings(enforcer_common::Settings::default())
        {
            tracing::error!(session = %self.id, %error, "shut the gate");
        }
    }

    /// Goes on closing what could not be closed when it was asked for.
    pub(super) async fn finish(self: Arc<Self>) {
        let mut closing = self.closed();
        if closing.wait_for(|closing| *closing).await.is_err() {
            return;
        }
        let last = AGAIN[AGAIN.len() - 1];
        for pause in AGAIN.into_iter().chain(std::iter::repeat(last)) {
            tokio::time::sleep(pause).await;
            match self.close("").await {
                Err(error) if !self.is_over() => {
                    tracing::error!(session = %self.id, %error, "it cannot be closed yet");
                }
                _ => return,
            }
        }
    }
}

/// Kills what is in a session's cgroups and removes them; what is gone is no error.
fn destroy(places: &Places, id: &str) -> Result<(), SessionError> {
    let one = |path: &Path| -> Result<(), SessionError> {
        if path.try_exists().is_ok_and(|there| !there) {
            return Ok(());
        }
        Ok(Cgroup::open(path).and_then(Cgroup::destroy)?)
    };
    let agents = one(&places.session_cgroup(id));
    let gateway = one(&places.gateway_cgroup(id));
    agents.and(gateway)?;
    if places.slices {
        slice::let_go(id);
    }
    Ok(())
}

/// Takes away whatever there is of a session that is not, or cannot be, taken up: its processes first. While one lives, what holds it
/// and its record stay.
pub fn discard(places: &Places, id: &str) -> Result<(), SessionError> {
    destroy(places, id)?;
    kernel::remove_pins(&places.pins.join(id))?;
    // A log in which nothing was ever written is nobody's.
    let log = places.log(id);
    if std::fs::metadata(&log).is_ok_and(|metadata| metadata.len() == 0) {
        let _ = std::fs::remove_file(&log);
    }
    Ok(crate::store::remove(&places.sessions, id)?)
}
