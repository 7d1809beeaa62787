//! One session: its cgroups, kernel side, names, policy generations, gateway and log, from open to close. Everything that
//! changes it goes through here, under one lock; what is slow (wiring, waiting for the gateway) happens outside it.

mod asking;
mod credentials;
mod ending;
mod gateway_link;
mod generation;
mod held_files;
mod kernel_events;
mod listed;
mod secrets;
mod wiring;

use std::fs::File;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use api::v1;
use audit::{Event, Kind, Log, Verdict};
use policy::{EffectivePolicy, Layers};
use schema::host::HostName;
use schema::net::Cidr;
use schema::session::SessionId;
use tokio::sync::{Mutex, watch};

pub use asking::{Answer, AnswerError};
pub use ending::discard;
use generation::Generation;

use crate::approvals::Broker;
use crate::cgroup::{Cgroup, CgroupError};
use crate::files;
use crate::gateway;
use crate::kernel::{self, Carrier, HookState, Kernel, KernelError, Room, SessionMaps};
use crate::names::{Known, Names};
use crate::places::Places;
use crate::secrets::Secrets;
use crate::slice;
use crate::store::{Record, Store, StoreError};
use crate::trusted::Trusted;
use crate::wire::Wired;

/// Names that policy does not list exactly and that get an address, a second and at once.
const NAMES_PER_SECOND: f64 = 50.0;
const NAMES_BURST: f64 = 500.0;
/// How long a policy change waits for the gateway to decide by it.
const APPLY: Duration = Duration::from_secs(10);
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Slice(#[from] slice::SliceError),
    #[error(transparent)]
    Kernel(#[from] KernelError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Log(#[from] audit::LogError),
    #[error("the policy cannot be read: {0}")]
    Policy(String),
    #[error("{0}")]
    Gateway(String),
    #[error("the session is closed")]
    Closed,
    #[error("the work was not done to its end: {0}")]
    Task(String),
    #[error(
        "the rules about files and programs, and the secrets, are mounts of the running container: other ones hold from the next start on"
    )]
    Files,
    #[error("the file of a secret is not what was asked for: {0}")]
    Secret(String),
    #[error("cannot route a network in the agent's namespace: {0}")]
    Route(std::io::Error),
}

/// What changes under the lock.
#[derive(Debug)]
struct State {
    kernel: Option<Kernel>,
    maps: SessionMaps,
    current: Generation,
    /// The highest generation that was ever begun.
    last: u32,
    /// The generation that is being loaded: names allocated meanwhile go into both.
    pending: Option<Generation>,
    names: Names,
    bucket: Bucket,
    store: Option<Store>,
    record: Record,
    wired: Option<Arc<Wired>>,
    /// The mount namespace that the programs about files hold in: while it is open its number is no other's.
    namespace: Option<File>,
    /// Networks that have a route in the wired namespace.
    routed: Vec<Cidr>,
    /// What may be started in the wired namespace, where that is for programs in the kernel. Not known after a restart.
    listed: Option<listed::Listed>,
    /// The last number that something approved was given, in whichever container: what ends one's is not another's.
    numbered: u16,
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * NAMES_PER_SECOND).min(NAMES_BURST);
        self.at = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// One session.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub workspace: String,
    places: Arc<Places>,
    cgroup: Cgroup,
    gateway_cgroup: Cgroup,
    state: Mutex<State>,
    /// One policy change, one wiring at a time.
    change: Mutex<()>,
    wiring: Mutex<()>,
    /// One table of programs at a time.
    listing: Mutex<()>,
    /// One program at a time is looked at, to ask a person about it.
    asking: Mutex<()>,
    log: std::sync::Mutex<Log>,
    log_seq: watch::Sender<u64>,
    log_failed: AtomicBool,
    closing: watch::Sender<bool>,
    end: Mutex<ending::End>,
    over: AtomicBool,
    link: gateway_link::Link,
    restarts: AtomicU32,
    trusted: std::sync::Mutex<Trusted>,
    secrets: Mutex<secrets::Kept>,
    /// What waits for a person, of every session.
    broker: Arc<Broker>,
}

impl Session {
    /// Makes a session: everything denied first, then policy, then the gateway.
    pub async fn open(
        places: Arc<Places>,
        id: SessionId,
        workspace: String,
        policy: EffectivePolicy,
        trusted: Trusted,
        gateway_index: u32,
        broker: Arc<Broker>,
    ) -> Result<Arc<Self>, SessionError> {
        let layers = match policy.wants_lsm() {
            // It takes a moment the first time.
            true => tokio::task::spawn_blocking(kernel::layers).await,
            false => Ok(Layers::ALL),
        };
        let layers = layers.map_err(|error| SessionError::Task(error.to_string()))?;
        if let Some(diagnostic) = policy.not_carried(&layers).first() {
            return Err(SessionError::Policy(diagnostic.message.clone()));
        }
        let carrier = Carrier::of(&policy, &layers);
        if carrier == Carrier::Lsm
            && let Err(error) = files::fits(&policy)
        {
            return Err(SessionError::Policy(format!("`filesystem`: {error}")));
        }
        let store = Store::create(&places.sessions, id.as_str())?;
        let begun = store
            .save_roots(&trusted.roots)
            .map_err(SessionError::from)
            .and_then(|()| {
                Self::begin(
                    &places,
                    &id,
                    &workspace,
                    &policy,
                    &trusted,
                    gateway_index,
                    carrier,
                )
            });
        let (cgroup, gateway_cgroup, programs, maps, log, record) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                drop(store);
                if let Err(error) = discard(&places, id.as_str()) {
                    tracing::error!(session = %id, %error, "what was begun is left");
                }
                return Err(error);
            }
        };
        let session = Self::assemble(
            places,
            broker,
            id,
            workspace,
            trusted,
            cgroup,
            gateway_cgroup,
            log,
            State {
                kernel: Some(programs),
                maps: maps.session,
                current: Generation::new(0, EffectivePolicy::deny_all()),
                last: 0,
                pending: None,
                names: Names::default(),
                bucket: Bucket {
                    tokens: NAMES_BURST,
                    at: Instant::now(),
                },
                store: Some(store),
                record,
                wired: None,
                namespace: None,
                routed: Vec::new(),
                listed: None,
                numbered: 0,
            },
        );
        session.start(maps.events);
        if let Err(error) = session.set_policy(policy).await {
            if let Err(error) = session.close("open-failed").await {
                tracing::error!(session = %session.id, %error, "close");
            }
            return Err(error);
        }
        Ok(session)
    }

    /// Everything that may fail before the session is one. The caller takes away what a failure leaves.
    fn begin(
        places: &Places,
        id: &SessionId,
        workspace: &str,
        policy: &EffectivePolicy,
        trusted: &Trusted,
        gateway_index: u32,
        carrier: Carrier,
    ) -> Result<(Cgroup, Cgroup, Kernel, crate::kernel::Maps, Log, Record), SessionError> {
        let name = id.as_str();
        let mut log = Log::open(&places.log(name), name)?;
        let cgroup = match places.slices {
            true => {
                slice::start(name)?;
                Cgroup::made(&places.session_cgroup(name))?
            }
            false => Cgroup::create(&places.session_cgroup(name), true)?,
        };
        cgroup.hold()?;
        let gateway_cgroup = Cgroup::create(&places.gateway_cgroup(name), false)?;
        let pins = places.pins.join(name);
        let room = match policy.programs.require_approval {
            Some(_) => Room::Two,
            None => Room::One,
        };
        let (cgroups, gateways) = (cgroup.directory(), gateway_cgroup.directory());
        let (kernel, maps) = Kernel::attach(&pins, cgroups, gateways, carrier, room)?;
        let policy = serde_json::from_slice(&policy.to_json())
            .map_err(|e| SessionError::Policy(e.to_string()))?;
        let record = Record {
            session: name.to_owned(),
            workspace: workspace.to_owned(),
            policy,
            generation: 0,
            gateway_uid: gateway::FIRST_UID + gateway_index,
            released: false,
            credentials: trusted.kept(),
            secrets: trusted.files.kept(),
            owner: trusted.owner,
            masked: Vec::new(),
            listed: Vec::new(),
            startable: Default::default(),
            begun: None,
            approved: Vec::new(),
        };
        let mut opened = Event::new(Kind::Lifecycle, Verdict::Allow, "session-opened");
        opened.layer = Some("enforcer".into());
        log.append(&mut opened)?;
        Ok((cgroup, gateway_cgroup, kernel, maps, log, record))
    }

    /// Takes up a session that an earlier run of this enforcer left. A mismatch is an error, by which the caller ends it.
    pub async fn adopt(
        places: Arc<Places>,
        id: SessionId,
        broker: Arc<Broker>,
    ) -> Result<Arc<Self>, SessionError> {
        let store = Store::open(&places.sessions, id.as_str())?;
        let record = store.load()?;
        let cgroup = Cgroup::open(&places.session_cgroup(id.as_str()))?;
        cgroup.hold()?;
        let gateway_cgroup = Cgroup::open(&places.gateway_cgroup(id.as_str()))?;
        let pins = places.pins.join(id.as_str());
        let (mut kernel, mut maps) =
            Kernel::adopt(&pins, cgroup.directory(), gateway_cgroup.directory())?;
        let bytes = record.policy.to_string();
        let document = EffectivePolicy::from_json(bytes.as_bytes())
            .map_err(|e| SessionError::Policy(e.to_string()))?;
        if !document.not_carried(&kernel.carrier().layers()).is_empty() {
            return Err(KernelError::Detached { hook: "file_open" }.into());
        }
        if let Some(programs) = kernel.files() {
            programs.deny_all_once()?;
        }
        // Values of credentials are nowhere but in memory: what needs one is refused until it is handed anew.
        let mut trusted = Trusted::restored(store.roots()?, &record.credentials);
        trusted.files = Secrets::restored(&record.secrets);
        let settings = maps.session.settings()?;
        // The kernel's word, in case the enforcer died between the flip and the record.
        let current = Generation::new(settings.generation, document);
        let mut names = Names::default();
        for (name, address) in store.names()? {
            let known = current.known(&name);
            current.admit(&mut maps.session, &name, address)?;
            names.insert(name, address, known);
        }
        maps.session.sweep(current.number)?;
        let log = Log::open(&places.log(id.as_str()), id.as_str())?;
        let workspace = record.workspace.clone();
        let session = Self::assemble(
            places,
            broker,
            id,
            workspace,
            trusted,
            cgroup,
            gateway_cgroup,
            log,
            State {
                kernel: Some(kernel),
                maps: maps.session,
                last: current.number,
                current,
                pending: None,
                names,
                bucket: Bucket {
                    tokens: NAMES_BURST,
                    at: Instant::now(),
                },
                store: Some(store),
                record,
                wired: None,
                namespace: None,
                routed: Vec::new(),
                listed: None,
                numbered: 0,
            },
        );
        // A full disk refuses what is dialled; it does not end what runs.
        let mut adopted = Event::new(Kind::Lifecycle, Verdict::Allow, "session-adopted");
        adopted.layer = Some("enforcer".into());
        let _ = session.write(adopted);
        session.start(maps.events);
        tokio::spawn(Arc::clone(&session).keep_rewiring());
        Ok(session)
    }

    #[allow(clippy::too_many_arguments)]
    fn assemble(
        places: Arc<Places>,
        broker: Arc<Broker>,
        id: SessionId,
        workspace: String,
        mut trusted: Trusted,
        cgroup: Cgroup,
        gateway_cgroup: Cgroup,
        log: Log,
        state: State,
    ) -> Arc<Self> {
        let seq = log.last_seq();
        let secrets = secrets::Kept::of(std::mem::take(&mut trusted.files));
        Arc::new(Self {
            id,
            workspace,
            places,
            cgroup,
            gateway_cgroup,
            state: Mutex::new(state),
            change: Mutex::new(()),
            wiring: Mutex::new(()),
            listing: Mutex::new(()),
            asking: Mutex::new(()),
            log: std::sync::Mutex::new(log),
            log_seq: watch::Sender::new(seq),
            log_failed: AtomicBool::new(false),
            closing: watch::Sender::new(false),
            end: Mutex::default(),
            over: AtomicBool::new(false),
            link: gateway_link::Link::default(),
            restarts: AtomicU32::new(0),
            trusted: std::sync::Mutex::new(trusted),
            secrets: Mutex::new(secrets),
            broker,
        })
    }

    fn start(self: &Arc<Self>, events: aya::maps::RingBuf<aya::maps::MapData>) {
        tokio::spawn(Arc::clone(self).read_kernel_events(events));
        self.link.attend();
        tokio::spawn(Arc::clone(self).supervise_gateway());
        tokio::spawn(Arc::clone(self).watch());
        tokio::spawn(Arc::clone(self).finish());
    }

    /// Writes one event. What cannot be written is an error for whoever wanted something carried on the strength of it.
    pub fn write(&self, mut event: Event) -> Result<u64, audit::LogError> {
        let mut log = self
            .log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = log.append(&mut event);
        match &written {
            Ok(seq) => {
                self.log_failed.store(false, Ordering::Relaxed);
                self.log_seq.send_replace(*seq);
            }
            Err(error) => {
                if !self.log_failed.swap(true, Ordering::Relaxed) {
                    tracing::error!(session = %self.id, %error, "the event log cannot be written");
                }
            }
        }
        written
    }

    /// [`Self::write`] for several, in one write to the file: which of them are in it.
    fn write_all(&self, events: &mut [Event]) -> Vec<bool> {
        let mut log = self
            .log
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let written = log.append_all(events);
        let failed = written.iter().find_map(|result| result.as_ref().err());
        match failed {
            None => self.log_failed.store(false, Ordering::Relaxed),
            Some(error) => {
                if !self.log_failed.swap(true, Ordering::Relaxed) {
                    tracing::error!(session = %self.id, %error, "the event log cannot be written");
                }
            }
        }
        self.log_seq.send_replace(log.last_seq());
        written.iter().map(Result::is_ok).collect()
    }

    /// Which of the gateways' user ids this session's has.
    pub async fn gateway_index(&self) -> u32 {
        self.state
            .lock()
            .await
            .record
            .gateway_uid
            .saturating_sub(gateway::FIRST_UID)
    }

    /// Number of the last event, and word of each new one.
    pub fn log_position(&self) -> watch::Receiver<u64> {
        self.log_seq.subscribe()
    }

    pub fn closed(&self) -> watch::Receiver<bool> {
        self.closing.subscribe()
    }

    /// The cgroup as the engine's CgroupParent spells it.
    pub fn cgroup_parent(&self) -> String {
        self.places.cgroup_parent(self.id.as_str())
    }

    /// Loads a policy as a new generation and flips to it. When this returns, gate and gateway both decide by it; until
    /// then each decides by the old one or the new one, never by a mixture.
    pub async fn set_policy(&self, document: EffectivePolicy) -> Result<u32, SessionError> {
        let _one = self.change.lock().await;
        self.next_generation(document, &Trusted::default()).await
    }

    /// The same under the lock of changes, with what else the gateway is to be told.
    async fn next_generation(
        &self,
        document: EffectivePolicy,
        told: &Trusted,
    ) -> Result<u32, SessionError> {
        let next = {
            let mut state = self.state.lock().await;
            let current = &state.current;
            let held = |policy: &EffectivePolicy| {
                let EffectivePolicy {
                    files,
                    programs,
                    secrets,
                    ..
                } = policy.clone();
                (files, programs, secrets)
            };
            if current.number > 0 && held(&current.document) != held(&document) {
                return Err(SessionError::Files);
            }
            // A number is used once: the gateway may have heard of one whose change came to nothing.
            let number = state.last.checked_add(1).ok_or(SessionError::Closed)?;
            state.last = number;
            let next = Generation::new(number, document);
            state.pending = Some(next.clone());
            next
        };
        let result = match self.prepare(&next).await {
            Ok(()) => self.flip(&next, told).await,
            Err(error) => Err(error),
        };
        let mut state = self.state.lock().await;
        state.pending = None;
        let current = state.current.clone();
        if current.number != next.number {
            // Whatever the gateway has come to know of it meanwhile, it is not what is decided by.
            self.link.give_up();
            state.maps.dial_only(&current.dial)?;
            state.remove_routes(&current.networks())?;
        }
        state.maps.sweep(current.number)?;
        result.map(|()| current.number)
    }

    /// Loads a generation beside the current one.
    async fn prepare(&self, next: &Generation) -> Result<(), SessionError> {
        let mut state = self.state.lock().await;
        let State { maps, names, .. } = &mut *state;
        next.fill(maps, names)?;
        state.add_routes(&next.networks())?;
        state.maps.dial_also(&next.dial)?;
        Ok(())
    }

    async fn flip(&self, next: &Generation, told: &Trusted) -> Result<(), SessionError> {
        self.link
            .apply(next, self, told, APPLY)
            .await
            .map_err(SessionError::Gateway)?;
        {
            let mut state = self.state.lock().await;
            let mut settings = state.maps.settings()?;
            settings.generation = next.number;
            state.maps.set_settings(settings)?;
            state.current = next.clone();
            state.maps.dial_only(&next.dial)?;
            state.remove_routes(&next.networks())?;
            state.record.generation = next.number;
            state.record.policy = serde_json::from_slice(&next.document.to_json())
                .map_err(|e| SessionError::Policy(e.to_string()))?;
            state.save()?;
        }
        self.ask_by(next);
        // A program that read the old generation before the flip may still be looking its entries up.
        tokio::task::spawn_blocking(wait_for_running_programs)
            .await
            .map_err(|_| SessionError::Closed)?;
        let mut event = Event::new(Kind::Policy, Verdict::Allow, "policy-loaded");
        event.layer = Some("enforcer".into());
        event.detail = Some(format!("generation {}", next.number));
        self.write(event)?;
        Ok(())
    }

    /// The synthetic address of a name, given now if it has none. The gate's maps are written before this returns.
    async fn allocate(&self, name: &HostName) -> Result<Ipv4Addr, &'static str> {
        if self.log_failed.load(Ordering::Relaxed) {
            return Err("log_full");
        }
        let mut state = self.state.lock().await;
        if let Some(address) = state.names.address(name) {
            return Ok(address);
        }
        let known = state.current.known(name);
        if known != Known::Exactly && !state.bucket.take(Instant::now()) {
            return Err("rate_limited");
        }
        let address = state.names.free(known).map_err(|_| "pool_exhausted")?;
        let State {
            maps,
            current,
            pending,
            store,
            names,
            ..
        } = &mut *state;
        let store = store.as_mut().ok_or("closed")?;
        store.add_name(name, address).map_err(|_| "log_full")?;
        current
            .admit(maps, name, address)
            .map_err(|_| "gate_full")?;
        if let Some(pending) = pending {
            pending
                .admit(maps, name, address)
                .map_err(|_| "gate_full")?;
        }
        names.insert(name.clone(), address, known);
        Ok(address)
    }

    /// The session as the kernel and this enforcer see it now.
    pub async fn status(&self) -> v1::Session {
        let secrets = self.secrets.lock().await;
        let state = self.state.lock().await;
        let hooks = self.hooks(&state).unwrap_or_default();
        let (denied, lost) = state.maps.counts().unwrap_or_default();
        v1::Session {
            session: self.id.to_string(),
            workspace: self.workspace.clone(),
            generation: state.current.number,
            wired: state.wired.is_some() && state.record.released,
            gateway_pid: self.link.pid(),
            gateway_restarts: self.restarts.load(Ordering::Relaxed),
            hooks: hooks
                .into_iter()
                .map(|hook| v1::Hook {
                    name: hook.name.to_owned(),
                    program_id: hook.program,
                    attached: hook.attached,
                    lsm: kernel::is_about_files(hook.name),
                    starts: kernel::is_about_starts(hook.name),
                })
                .collect(),
            denied,
            lost,
            names: state.names.len() as u32,
            state: if *self.closing.borrow() {
                "closing"
            } else {
                "open"
            }
            .to_owned(),
            ca_certificate: self.link.ca_certificate(),
            credentials: self.trusted().held(),
            secrets: secrets.values.held(&state.current.document.secrets),
        }
    }

    /// What the kernel says of every hook now, of the steering too where a namespace is wired.
    fn hooks(&self, state: &State) -> Result<Vec<HookState>, KernelError> {
        let Some(kernel) = &state.kernel else {
            return Ok(Vec::new());
        };
        let mut hooks = kernel.hooks(self.cgroup.directory(), self.gateway_cgroup.directory())?;
        if let Some(wired) = &state.wired {
            hooks.push(kernel.steering(&wired.netns.fd())?);
        }
        Ok(hooks)
    }
}

impl State {
    fn save(&self) -> Result<(), StoreError> {
        self.store
            .as_ref()
            .map_or(Ok(()), |store| store.save(&self.record))
    }

    fn add_routes(&mut self, networks: &[Cidr]) -> Result<(), SessionError> {
        let Some(wired) = &self.wired else {
            return Ok(());
        };
        let new: Vec<Cidr> = networks
            .iter()
            .copied()
            .filter(|cidr| !self.routed.contains(cidr))
            .collect();
        if !new.is_empty() {
            let add = || {
                new.iter()
                    .try_for_each(|cidr| crate::route::add_local(*cidr))
            };
            wired.netns.within(add).map_err(SessionError::Route)?;
            self.routed.extend(new);
        }
        Ok(())
    }

    fn remove_routes(&mut self, keep: &[Cidr]) -> Result<(), SessionError> {
        let Some(wired) = &self.wired else {
            return Ok(());
        };
        let old: Vec<Cidr> = self
            .routed
            .iter()
            .copied()
            .filter(|cidr| !keep.contains(cidr))
            .collect();
        if !old.is_empty() {
            let remove = || {
                old.iter()
                    .try_for_each(|cidr| crate::route::remove_local(*cidr))
            };
            wired.netns.within(remove).map_err(SessionError::Route)?;
            self.routed.retain(|cidr| keep.contains(cidr));
        }
        Ok(())
    }
}

/// Waits until no program runs that started before this call: MEMBARRIER_CMD_GLOBAL waits for an RCU grace period, and
/// cgroup programs run inside RCU read sections (membarrier(2); kernel kernel/bpf/cgroup.c, bpf_prog_run_array_cg).
fn wait_for_running_programs() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: membarrier takes a command and flags, and touches no memory of ours.
    let status = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if status != 0 {
        // Not there (nohz_full): a wait far longer than any program runs.
        std::thread::sleep(Duration::from_millis(200));
    }
}
