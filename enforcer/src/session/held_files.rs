//! Rules about files and masks of programs, for as long as a container runs: a mount goes with the file that it is on when the host replaces it, so whatever the
//! namespace's mounts do is looked at, and what went is put in place again.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use audit::{Event, Kind, Verdict};
use enforcer_common::counter;
use nix::poll::{PollFd, PollFlags, poll};
use policy::EffectivePolicy;

use super::listed::Listed;
use super::{Session, State};
use crate::files::owner::Mapping;
use crate::files::{
    self, Allowed, Aside, Begun, FilesError, Held, Later, Masked, Masks, Openers, Place, When,
};
use crate::kernel::{Carrier, Image, Kernel, KernelError, Look};
use crate::process;

/// How often, in milliseconds, it is asked where the kernel says nothing: a file that was removed and comes back is no change of mounts.
const AGAIN: u16 = 1000;

/// How often in a row it may fail to hold before the session is ended, and the pause between.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// The programs about files.
pub(super) enum Programs {
    /// The session has none.
    Nowhere,
    /// They hold; without what mounts alone hold, with what may be started, where that is listed, and what may open secrets, where that is said.
    Holding(Aside, Option<Allowed>, Option<Openers>),
    /// What is started and not of these is ended.
    Ending(Allowed),
}

fn failed(error: KernelError) -> FilesError {
    FilesError::Kernel(error.to_string())
}

impl Session {
    /// Holds the policy's rules in the namespaces of an init.
    pub(super) async fn put_in_place(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
        when: When,
    ) -> Result<Held, FilesError> {
        let places = Arc::clone(&self.places);
        let later = match self.has_lsm().await {
            true => Later::Lsm,
            false => Later::Nobody,
        };
        let programs = {
            let state = self.state.lock().await;
            let record = &state.record;
            files::Programs {
                masked: record.masked.clone(),
                listed: record.listed.clone(),
                alone: (document.programs.is_whole()).then(|| record.startable.clone()),
                startable: (document.programs.allowed.is_some()).then(|| record.startable.clone()),
            }
        };
        blocking(pid, move || {
            let base = places.sessions.parent().unwrap_or(&places.sessions);
            let masks = Masks::make(base)?;
            files::hold(
                pid,
                network,
                &document.files,
                &programs,
                &masks,
                when,
                later,
            )
        })
        .await
    }

    /// Has the workspace's files be the container's user's, where the CLI asked for that, before init is released.
    pub(super) async fn map_owner(
        &self,
        pid: u32,
        network: (u64, u64),
    ) -> Result<Mapping, FilesError> {
        let Some(owner) = self.state.lock().await.record.owner else {
            return Ok(Mapping::Needless);
        };
        blocking(pid, move || files::owner::map(pid, network, owner)).await
    }

    async fn carrier(&self) -> Carrier {
        let state = self.state.lock().await;
        let kernel = state.kernel.as_ref();
        kernel.map_or(Carrier::Nobody, Kernel::carrier)
    }

    async fn has_lsm(&self) -> bool {
        self.carrier().await == Carrier::Lsm
    }

    /// Whether the programs hold all of it that may come later.
    async fn holds_later(&self) -> bool {
        let all = {
            let state = self.state.lock().await;
            let begun = state.record.begun.as_ref();
            begun.is_some_and(|begun| begun.aside == Aside::Nothing)
        };
        all && self.has_lsm().await
    }

    /// Has the programs of the session hold in the namespace of an init that waits, where it has any.
    pub(super) async fn tell_programs(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
        allowed: Option<Allowed>,
        held: &Held,
    ) -> Result<Programs, FilesError> {
        match self.carrier().await {
            Carrier::Nobody => Ok(Programs::Nowhere),
            Carrier::Lsm => {
                self.keep_namespace(pid, network, When::Start).await?;
                self.tell_files(pid, network, document).await
            }
            Carrier::Starts => {
                self.keep_namespace(pid, network, When::Start).await?;
                let listed = held.listed.clone();
                let work = move || {
                    let pinned = files::pinned(pid, network, &listed)?;
                    Ok((pinned, files::namespace(pid, network)?))
                };
                let (pinned, namespace) = blocking(pid, work).await?;
                let mut state = self.state.lock().await;
                let starts = state.kernel.as_mut().and_then(Kernel::starts);
                let starts = starts.ok_or(FilesError::NotAsked)?;
                starts.hold(pinned, &namespace).map_err(failed)?;
                Ok(Programs::Ending(allowed.unwrap_or_default()))
            }
        }
    }

    async fn tell_files(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
    ) -> Result<Programs, FilesError> {
        let (look, masked) = {
            let mut state = self.state.lock().await;
            (state.look(), state.record.masked.clone())
        };
        let look = look.ok_or(FilesError::NotAsked)?;
        let (found, image, openers) = blocking(pid, move || {
            let openers = Openers::find(pid, network, &document.secrets, &look)?;
            let found = Begun::find(pid, network, &document, &masked, openers.as_ref(), &look)?;
            let image = match found.begun.listed {
                true => files::image(pid, network, &look)?,
                false => Image::default(),
            };
            Ok((found, image, openers))
        })
        .await?;
        let (begun, table, listed) = (found.begun, found.table, found.programs);
        let before = {
            let mut state = self.state.lock().await;
            // Before it holds: what the next enforcer finds there is of this container.
            state.record.begun = Some(begun.clone());
            state.record.approved = Vec::new();
            state.save()?;
            let programs = state.kernel.as_mut().and_then(Kernel::files);
            let programs = programs.ok_or(FilesError::NotAsked)?;
            programs
                .hold(&table, &begun, image, openers.as_ref(), &listed)
                .map_err(failed)?;
            state.maps.counter(counter::OPENS).map_err(failed)?
        };
        blocking(pid, move || files::open_one(pid, network)).await?;
        let mut state = self.state.lock().await;
        match state.maps.counter(counter::OPENS).map_err(failed)? {
            after if after > before => {
                let aside = begun.aside.clone();
                state.listed = Some(Listed::new(pid, network, begun));
                Ok(Programs::Holding(aside, found.allowed, openers))
            }
            _ => Err(FilesError::NotAsked),
        }
    }

    /// What may be started, before anything is mounted.
    pub(super) async fn find_listed(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
    ) -> Result<Option<Allowed>, FilesError> {
        let carrier = self.carrier().await;
        let find = move || match &document.programs.allowed {
            Some(rules) => files::allowed(pid, network, rules).map(Some),
            None => Ok(None),
        };
        let allowed = blocking(pid, find).await?;
        let listed = allowed.as_ref().map(Allowed::places).transpose()?;
        let listed = listed.unwrap_or_default();
        let record = &mut self.state.lock().await.record;
        record.startable = listed.iter().map(Place::path).collect();
        // Else the table of the programs says it.
        if carrier == Carrier::Starts {
            record.listed = listed;
        }
        Ok(allowed)
    }

    /// Keeps the number of a mount namespace from being another's, for as long as the kernel's programs go by it; `Again`: where they do still, and
    /// no other container has come meanwhile.
    async fn keep_namespace(
        &self,
        pid: u32,
        network: (u64, u64),
        when: When,
    ) -> Result<(), FilesError> {
        let (namespace, number) = blocking(pid, move || {
            let number = files::number(pid, network)?;
            Ok((files::namespace(pid, network)?, number))
        })
        .await?;
        let mut state = self.state.lock().await;
        let held = state.kernel.as_ref().and_then(Kernel::held_namespace);
        if when == When::Start || held == Some(number) {
            state.namespace = Some(namespace);
        }
        Ok(())
    }

    /// After an enforcer's restart: the mounts whose numbers the kernel has are held again, and what went meanwhile is not started any more.
    pub(super) async fn list_again(&self, pid: u32, network: (u64, u64)) -> Result<(), FilesError> {
        let listed = {
            let mut state = self.state.lock().await;
            match state.kernel.as_mut().and_then(Kernel::starts) {
                Some(starts) => starts.listed().map_err(failed)?,
                None => return Ok(()),
            }
        };
        let pinned = blocking(pid, move || files::pinned(pid, network, &listed)).await?;
        let mut state = self.state.lock().await;
        let starts = state.kernel.as_mut().and_then(Kernel::starts);
        starts.map_or(Ok(()), |starts| starts.list(pinned).map_err(failed))
    }

    /// Finds what the policy denies of programs, and keeps where that is.
    pub(super) async fn find_programs(
        &self,
        pid: u32,
        network: (u64, u64),
        document: Arc<EffectivePolicy>,
    ) -> Result<Masked, FilesError> {
        let find = move || Masked::find(pid, network, &document.programs.denied);
        let masked = blocking(pid, find).await?;
        self.state.lock().await.record.masked = masked.places.clone();
        Ok(masked)
    }

    /// Sees to it, in the background, that the rules stay in place for as long as that init lives; `held`: as they were put there before it was
    /// released, where that was just now.
    pub(super) fn keep_files(self: Arc<Self>, pid: u32, held: Option<Held>) {
        tokio::spawn(async move {
            let document = Arc::clone(&self.state.lock().await.current.document);
            let restarted = held.is_none() && self.carrier().await != Carrier::Nobody;
            if document.files.is_empty() && document.programs.denied.is_empty() && !restarted {
                return;
            }
            if let Err(error) = self.kept(pid, document, held).await {
                tracing::error!(session = %self.id, %error, "rules about files and programs do not hold any more: closed");
                let mut event = Event::new(Kind::File, Verdict::Deny, "files-lost");
                event.layer = Some("mounts".into());
                event.detail = Some(error.to_string());
                let _ = self.write(event);
                if let Err(error) = self.close("files-lost").await {
                    tracing::error!(session = %self.id, %error, "close");
                }
            }
        });
    }

    /// Returns when the init is gone, or the session.
    async fn kept(
        &self,
        pid: u32,
        document: Arc<EffectivePolicy>,
        mut held: Option<Held>,
    ) -> Result<(), FilesError> {
        let mut closing = self.closed();
        let directory = process::directory(pid);
        let (Some(network), Ok(mounts)) = (
            process::network_namespace(&directory),
            File::open(directory.join("mountinfo")),
        ) else {
            return Ok(());
        };
        let mounts = Arc::new(mounts);
        if held.is_none() && self.carrier().await != Carrier::Nobody {
            self.keep_namespace(pid, network, When::Again).await?;
            self.list_again(pid, network).await?;
            if let Err(error) = self.ask_again(pid, network).await {
                // What the kernel holds it holds: nobody is asked about anything else.
                tracing::error!(session = %self.id, %error, "nobody is asked about programs any more");
            }
        }
        // Not there from the beginning; what was, and went, is waited for.
        let mut never: Option<BTreeSet<PathBuf>> = held.as_ref().map(|held| held.absent.clone());
        let mut failed = 0;
        loop {
            let later = self.holds_later().await;
            let complete = |held: &Held| {
                let never = never.as_ref();
                later || held.missing == 0 && never.is_none_or(|never| held.absent.is_subset(never))
            };
            let same = |held: &Held| complete(held) && files::is_there(pid, held).unwrap_or(false);
            if !held.as_ref().is_some_and(same) {
                match self
                    .put_in_place(pid, network, Arc::clone(&document), When::Again)
                    .await
                {
                    Ok(now) => {
                        if now.new > 0 {
                            self.held_again(&now);
                        }
                        never.get_or_insert_with(|| now.absent.clone());
                        held = Some(now);
                        failed = 0;
                    }
                    Err(_) if process::network_namespace(&directory) != Some(network) => {
                        return Ok(());
                    }
                    // The host may be in the middle of it.
                    Err(error) => {
                        failed += 1;
                        if failed > ATTEMPTS {
                            return Err(error);
                        }
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                () = changed(&mounts) => {}
                _ = closing.wait_for(|closing| *closing) => return Ok(()),
            }
        }
    }

    fn held_again(&self, held: &Held) {
        let mut event = Event::new(Kind::File, Verdict::Flag, "files-held-again");
        event.layer = Some("mounts".into());
        event.detail = Some(format!(
            "the host replaced a file that a rule is about, {} mounts are new: {held}",
            held.new
        ));
        let _ = self.write(event);
    }
}

impl State {
    /// What looks at files as the programs about them do.
    pub(super) fn look(&mut self) -> Option<Arc<Look>> {
        let programs = self.kernel.as_mut().and_then(Kernel::files);
        programs.map(|programs| programs.look())
    }

    /// The programs about files hold nowhere any more. A failure leaves them holding in a namespace that nobody is in.
    pub(super) fn release_files(&mut self) {
        self.listed = None;
        if self.record.begun.take().is_some() {
            self.record.approved = Vec::new();
            // Where it cannot be kept, the next enforcer finds it of a namespace that is not held.
            let _ = self.save();
        }
        let Some(kernel) = &mut self.kernel else {
            return;
        };
        let files = kernel.files().map(|programs| programs.release());
        let starts = kernel.starts().map(|program| program.release());
        for released in [files, starts].into_iter().flatten() {
            if let Err(error) = released {
                tracing::error!(%error, "the programs about files still hold in a namespace that is gone");
                return;
            }
        }
        self.namespace = None;
    }
}

/// Work about a process that is not for the runtime's own threads.
pub(super) async fn blocking<T: Send + 'static>(
    pid: u32,
    work: impl FnOnce() -> Result<T, FilesError> + Send + 'static,
) -> Result<T, FilesError> {
    let work = tokio::task::spawn_blocking(work);
    work.await.map_err(|error| FilesError::Io {
        call: "hold the files of",
        path: format!("process {pid}"),
        source: std::io::Error::other(error),
    })?
}

/// Until the namespace's mounts change, or a while has passed. `mountinfo` has something urgent to read then (proc_pid_mounts(5)).
async fn changed(mountinfo: &Arc<File>) {
    let mountinfo = Arc::clone(mountinfo);
    let waited = tokio::task::spawn_blocking(move || {
        let mut fds = [PollFd::new(mountinfo.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, AGAIN).map(drop)
    });
    // A failure is waited out as well: it must not make a loop of this.
    if !matches!(waited.await, Ok(Ok(()))) {
        tokio::time::sleep(Duration::from_millis(AGAIN.into())).await;
    }
}
