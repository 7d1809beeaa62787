//! When a namespace of the session's asks to be wired: checked, furnished, steered, served, and only then is its init
//! released. And when its last process has gone: closed again.

use std::sync::Arc;
use std::time::Duration;

use audit::{Event, Kind, Verdict};
use enforcer_common::{Settings, counter};
use policy::EffectivePolicy;
use schema::net::Cidr;

use super::Session;
use super::held_files::Programs;
use crate::files::owner::Mapping;
use crate::files::{Held, Masked, When};
use crate::kernel::{Kernel, KernelError};
use crate::process;
use crate::wire::{self, WireError, Wired};

/// Pauses between attempts to wire a namespace again.
const REWIRE: [Duration; 9] = {
    let seconds = [1, 2, 4, 8, 15, 30, 30, 60, 60];
    let mut pauses = [Duration::ZERO; 9];
    let mut n = 0;
    while n < pauses.len() {
        pauses[n] = Duration::from_secs(seconds[n]);
        n += 1;
    }
    pauses
};

/// What came of an attempt.
enum Rewired {
    Done,
    Nobody,
    Not(u32, WireError),
}

impl Session {
    pub(super) async fn wire(self: Arc<Self>, pid: u32, cookie: u64) {
        let _one = self.wiring.lock().await;
        {
            let mut state = self.state.lock().await;
            if let Some(wired) = &state.wired {
                if wired.cookie == cookie {
                    return;
                }
                if self.inhabited(wired) {
                    drop(state);
                    self.refused(
                        pid,
                        "second-namespace",
                        "the session has a namespace that is in use",
                    );
                    return;
                }
                state.wired = None;
                state.record.released = false;
                state.release_files();
                self.withdraw_starts();
            }
        }
        if self.is_held_for_another(pid).await {
            self.refused(
                pid,
                "second-namespace",
                "the session's rules hold for processes of another mount namespace",
            );
            return;
        }
        // Where it fails the rules hold on: init may have been told to go on. They end with the last process.
        let released = self.wire_and_release(pid, Some(cookie)).await;
        match released {
            Ok(held) => Arc::clone(&self).keep_files(pid, held),
            // Gone again before it was looked at, or the engine's own first process: nothing to report.
            Err(WireError::Gone(_)) => {}
            Err(error) => self.refused(pid, "not-wired", &error.to_string()),
        }
    }

    /// With the rules about files as they were put in place.
    async fn wire_and_release(
        &self,
        pid: u32,
        cookie: Option<u64>,
    ) -> Result<Option<Held>, WireError> {
        let (wired, networks) = self.furnish(pid, cookie).await?;
        let cookie = wired.cookie;
        let (wired, held) = self.hold_files(pid, wired).await?;
        self.serve(wired, networks).await?;
        let released = self.challenge().await;
        let mut state = self.state.lock().await;
        match released {
            Ok(()) => {
                state.record.released = true;
                let saved = state.save();
                drop(state);
                if let Err(error) = saved {
                    // The next enforcer would not take them up.
                    self.lose_secrets(&error.to_string()).await;
                }
                let mut event = Event::new(Kind::Lifecycle, Verdict::Allow, "released");
                event.layer = Some("init".into());
                event.detail = Some(format!(
                    "network namespace {cookie} wired, self-test refused"
                ));
                let _ = self.write(event);
                Ok(held)
            }
            Err(error) => {
                if let Ok(mut settings) = state.maps.settings() {
                    settings.netns_cookie = 0;
                    let _ = state.maps.set_settings(settings);
                }
                state.wired = None;
                Err(error)
            }
        }
    }

    /// The workspace's owner, the secrets, and the rules about files and programs, before anything else is opened to the container: where they do not hold, its init is told why and ends.
    async fn hold_files(&self, pid: u32, wired: Wired) -> Result<(Wired, Option<Held>), WireError> {
        let document = Arc::clone(&self.state.lock().await.current.document);
        let network = wired.netns.identity();
        let network = network.map_err(|source| WireError::Io {
            call: "stat the namespace",
            source,
        })?;
        let held = self.put_files(pid, network, document).await;
        let (mapping, held) = match held {
            Ok(held) => held,
            Err(error) => {
                let reason = error.to_string();
                // It ends in any case, when nobody has released it in time.
                let told = tokio::task::spawn_blocking(move || wire::refuse(&wired, &reason));
                let _ = told.await;
                return Err(error);
            }
        };
        let mounted = matches!(mapping, Mapping::Mapped { .. }) || held.is_some();
        let wired = Wired { mounted, ..wired };
        self.say_mapping(&mapping);
        let Some((masked, held, programs)) = held else {
            return Ok((wired, None));
        };
        let noexec = held.noexec.as_ref();
        let noexec = noexec.map(|noexec| ("programs-held", "mounts", noexec.to_string()));
        let mut said = vec![("files-held", "mounts", held.to_string())];
        if masked != Masked::default() {
            said.push(("programs-held", "mounts", masked.to_string()));
        }
        match programs {
            Programs::Nowhere => {}
            Programs::Holding(aside, allowed, openers) => {
                said.push(("files-held", "lsm", aside.to_string()));
                let allowed = allowed.map(|allowed| ("programs-held", "lsm", allowed.to_string()));
                said.extend(allowed);
                let openers = openers.map(|openers| ("secrets-held", "lsm", openers.to_string()));
                said.extend(openers);
            }
            Programs::Ending(allowed) => {
                said.push(("programs-held", "tracepoint", allowed.to_string()));
            }
        }
        said.extend(noexec);
        for (reason, layer, detail) in said {
            let mut event = Event::new(Kind::Lifecycle, Verdict::Allow, reason);
            event.layer = Some(layer.into());
            event.detail = Some(detail);
            let _ = self.write(event);
        }
        Ok((wired, Some(held)))
    }

    /// In this order: rules are mounted upon what is mapped, and what they say of the secrets' place holds for the secrets too.
    async fn put_files(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
    ) -> Result<(Mapping, Option<(Masked, Held, Programs)>), WireError> {
        let mapping = self.map_owner(pid, network).await?;
        if matches!(mapping, Mapping::Mapped { .. }) {
            self.alone(pid)?;
        }
        self.put_secrets(pid, network, &document).await?;
        let ruled = !document.files.is_empty() || !document.programs.is_empty();
        if !ruled && !document.secrets.are_gated() {
            return Ok((mapping, None));
        }
        let held = self.hold_rules(pid, network, document).await?;
        Ok((mapping, Some(held)))
    }

    fn say_mapping(&self, mapping: &Mapping) {
        let (verdict, reason) = match mapping {
            Mapping::Needless => return,
            Mapping::Mapped { .. } => (Verdict::Allow, "workspace-mapped"),
            Mapping::Not { .. } => (Verdict::Flag, "workspace-not-mapped"),
        };
        let mut event = Event::new(Kind::Lifecycle, verdict, reason);
        event.layer = Some("mounts".into());
        event.detail = Some(mapping.to_string());
        let _ = self.write(event);
    }

    /// By mounts, and by the programs in the kernel where the session has them.
    async fn hold_rules(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
    ) -> Result<(Masked, Held, Programs), WireError> {
        let masked = self
            .find_programs(pid, network, Arc::clone(&document))
            .await?;
        let allowed = self
            .find_listed(pid, network, Arc::clone(&document))
            .await?;
        let held = self
            .put_in_place(pid, network, Arc::clone(&document), When::Start)
            .await?;
        let programs = self
            .tell_programs(pid, network, document, allowed, &held)
            .await?;
        self.alone(pid)?;
        Ok((masked, held, programs))
    }

    /// Whether the kernel's programs hold for processes of this session in another mount namespace than this one's: an agent that an enforcer
    /// before this one released.
    async fn is_held_for_another(&self, pid: u32) -> bool {
        let held = {
            let state = self.state.lock().await;
            state.kernel.as_ref().and_then(Kernel::held_namespace)
        };
        let Some(held) = held else { return false };
        let is_there = |other: &u32| {
            *other != pid
                && process::mount_namespace(*other)
                    .is_some_and(|(_, inode)| inode == u64::from(held))
        };
        let own = process::mount_namespace(pid).is_some_and(|(_, inode)| inode == u64::from(held));
        !own && self
            .cgroup
            .processes()
            .unwrap_or_default()
            .iter()
            .any(is_there)
    }

    /// Nobody but init is in its mount namespace: for whoever is in a directory already, it would stay what it was under the mounts, and whoever
    /// has been started is what it is. Asked when the rules hold: who comes later walks from the root, and is started under them.
    fn alone(&self, pid: u32) -> Result<(), WireError> {
        let theirs = process::mount_namespace(pid).ok_or(WireError::Gone(pid))?;
        let there = process::all().map_err(|source| WireError::Io {
            call: "list the processes",
            source,
        })?;
        let shares =
            |other: &u32| *other != pid && process::mount_namespace(*other) == Some(theirs);
        match there.into_iter().find(shares) {
            Some(pid) => Err(WireError::NotAlone { pid }),
            None => Ok(()),
        }
    }

    async fn furnish(
        &self,
        pid: u32,
        cookie: Option<u64>,
    ) -> Result<(Wired, Vec<Cidr>), WireError> {
        let networks = self.state.lock().await.current.networks();
        let session = self.places.proc_cgroup(self.id.as_str());
        let init = self.places.init.clone();
        let work = tokio::task::spawn_blocking(move || {
            let wired = wire::wire(pid, cookie, &session, &init, &networks)?;
            Ok((wired, networks))
        });
        work.await.map_err(|_| WireError::Gone(pid))?
    }

    /// Steers the namespace to our listener, hands the sockets to the gateway, and opens the gate for it.
    async fn serve(&self, wired: Wired, networks: Vec<Cidr>) -> Result<(), WireError> {
        let failed = |call: &'static str| {
            move |error: String| WireError::Io {
                call,
                source: std::io::Error::other(error),
            }
        };
        let mut state = self.state.lock().await;
        state
            .maps
            .listen(&wired.listener)
            .map_err(|e| failed("set the listener")(e.to_string()))?;
        let cookie = wired.cookie;
        if let Some(kernel) = &mut state.kernel {
            kernel
                .steer(&wired.netns.fd())
                .map_err(|e| failed("steer the namespace")(e.to_string()))?;
        }
        state.wired = Some(Arc::new(wired));
        state.routed = networks;
        drop(state);
        let handed = self
            .link
            .wired(self)
            .await
            .map_err(failed("hand the sockets to the gateway"));
        let mut state = self.state.lock().await;
        let opened = handed.and_then(|()| {
            let settings = state.maps.settings().map(|settings| Settings {
                netns_cookie: cookie,
                ..settings
            });
            settings
                .and_then(|settings| state.maps.set_settings(settings))
                .map_err(|e| failed("open the gate")(e.to_string()))
        });
        if opened.is_err() {
            // Nobody serves it: whoever tries again begins anew.
            state.wired = None;
        }
        opened
    }

    async fn challenge(&self) -> Result<(), WireError> {
        let Some(wired) = self.state.lock().await.wired.clone() else {
            return Err(WireError::Gone(0));
        };
        let pid = wired.init;
        tokio::task::spawn_blocking(move || wire::release(&wired))
            .await
            .map_err(|_| WireError::Gone(pid))?
    }

    /// After an enforcer's restart: tried until it is done, or nobody is left, or it has been tried often enough. What is in the way (an
    /// address that something inside took meanwhile, a gateway that is slow to come) mostly goes by itself.
    pub(super) async fn keep_rewiring(self: Arc<Self>) {
        let mut closing = self.closed();
        for pause in REWIRE.into_iter().map(Some).chain([None]) {
            let (pid, error) = match self.rewire().await {
                Rewired::Done => {
                    let wired = self.state.lock().await.wired.clone();
                    if let Some(wired) = wired {
                        self.take_up_secrets(wired.init).await;
                        Arc::clone(&self).keep_files(wired.init, None);
                    }
                    self.lose_what_is_not_held().await;
                    return;
                }
                Rewired::Nobody => {
                    self.lose_what_is_not_held().await;
                    return;
                }
                Rewired::Not(pid, error) => (pid, error),
            };
            let Some(pause) = pause else {
                let detail = format!("{error}; given up: its network stays shut");
                self.refused(pid, "not-rewired", &detail);
                self.lose_secrets("the container could not be wired again")
                    .await;
                return;
            };
            let detail = format!("{error}; tried again in {} s", pause.as_secs());
            self.refused(pid, "not-rewired", &detail);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    }

    /// New sockets in the namespace that was wired. Its init was released before and is not challenged again.
    async fn rewire(&self) -> Rewired {
        let _one = self.wiring.lock().await;
        let (released, cookie, wired) = {
            let state = self.state.lock().await;
            let cookie = state
                .maps
                .settings()
                .map_or(0, |settings| settings.netns_cookie);
            (state.record.released, cookie, state.wired.is_some())
        };
        if wired || !released || cookie == 0 {
            return Rewired::Done;
        }
        let ours = std::fs::metadata(&self.places.init).ok().map(|m| {
            use std::os::unix::fs::MetadataExt as _;
            (m.dev(), m.ino())
        });
        let inits: Vec<u32> = self
            .cgroup
            .processes()
            .unwrap_or_default()
            .into_iter()
            .filter(|pid| process::executable(*pid).ok() == ours)
            .collect();
        let mut failed = None;
        for pid in inits {
            let rewired = match self.furnish(pid, Some(cookie)).await {
                Ok((wired, networks)) => self.serve(wired, networks).await,
                Err(error) => Err(error),
            };
            match rewired {
                Ok(()) => return Rewired::Done,
                Err(error) => failed = Some(Rewired::Not(pid, error)),
            }
        }
        if let Some(failed) = failed {
            return failed;
        }
        // Nobody is left in it.
        let mut state = self.state.lock().await;
        state.record.released = false;
        state.release_files();
        self.withdraw_starts();
        let _ = state.save();
        Rewired::Nobody
    }

    /// Lets go of a namespace that nobody is in any more, and ends a session that the kernel no longer holds as it did.
    pub(super) async fn watch(self: Arc<Self>) {
        let mut closing = self.closed();
        loop {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
                _ = closing.wait_for(|closing| *closing) => return,
            }
            if let Err(error) = self.held().await {
                tracing::error!(session = %self.id, %error, "what the kernel runs for the session is not what was attached: closed");
                let mut event = Event::new(Kind::Lifecycle, Verdict::Deny, "gate-changed");
                event.layer = Some("enforcer".into());
                event.detail = Some(error.to_string());
                let _ = self.write(event);
                if let Err(error) = self.close("gate-changed").await {
                    tracing::error!(session = %self.id, %error, "close");
                }
                return;
            }
            self.expire_secrets().await;
            if self.cgroup.populated().unwrap_or(true) {
                continue;
            }
            let _one = self.wiring.lock().await;
            let mut state = self.state.lock().await;
            if state.wired.is_none() && !self.cgroup.populated().unwrap_or(true) {
                state.release_files();
                drop(state);
                self.withdraw_starts();
                self.release_secrets().await;
                state = self.state.lock().await;
            }
            if state.wired.is_some() && !self.cgroup.populated().unwrap_or(true) {
                if let Ok(mut settings) = state.maps.settings() {
                    settings.netns_cookie = 0;
                    let _ = state.maps.set_settings(settings);
                }
                state.wired = None;
                state.record.released = false;
                state.release_files();
                let _ = state.save();
                drop(state);
                self.release_secrets().await;
                self.withdraw_starts();
                let mut event = Event::new(Kind::Lifecycle, Verdict::Allow, "emptied");
                event.layer = Some("enforcer".into());
                let _ = self.write(event);
            }
        }
    }

    /// The kernel's word that every hook is attached and no program of somebody else's can change what ours decided: one may
    /// have come since the start.
    async fn held(&self) -> Result<(), KernelError> {
        let state = self.state.lock().await;
        let Some(kernel) = &state.kernel else {
            return Ok(());
        };
        kernel.verify(self.cgroup.directory(), self.gateway_cgroup.directory())?;
        if state.maps.counter(counter::NOT_ENDED)? > 0 {
            return Err(KernelError::NotEnded);
        }
        match &state.wired {
            Some(wired) => kernel.verify_steering(&wired.netns.fd()),
            None => Ok(()),
        }
    }

    fn inhabited(&self, wired: &Wired) -> bool {
        let Ok(identity) = wired.netns.identity() else {
            return true;
        };
        self.cgroup.processes().is_ok_and(|pids| {
            pids.iter()
                .any(|pid| process::network_namespace(&process::directory(*pid)) == Some(identity))
        })
    }

    fn refused(&self, pid: u32, reason: &str, detail: &str) {
        let mut event = Event::new(Kind::Lifecycle, Verdict::Deny, reason);
        event.layer = Some("enforcer".into());
        event.detail = Some(format!("process {pid}: {detail}"));
        let _ = self.write(event);
    }
}
