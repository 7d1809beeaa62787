//! The program that sees each start, of one session: attached where its policy lists what may be started and the kernel takes no LSM
//! programs. It runs for the whole system; the session's mount namespace is where it decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::RawTracePoint;
use aya::programs::links::{FdLink, PinnedLink};
use enforcer_common::counter;
use enforcer_common::files::{Settings, listed};

use super::files::{FILES, map_error};
use super::trial::Trial;
use super::{HookState, KernelError, failed, from_pin, pin_error, query, take};

/// The tracepoint, and the program by its name.
pub const HOOK: &str = "sched_process_exec";

const LISTED: &str = "LISTED";
const COUNTERS: &str = "COUNTERS";

/// What holds the program, and its tables.
pub struct StartProgram {
    link: FdLink,
    settings: Array<MapData, Settings>,
    listed: HashMap<MapData, u32, u32>,
    /// The mounts that are listed, by number: held, so that their numbers are no other mount's.
    pinned: BTreeMap<u64, OwnedFd>,
}

impl std::fmt::Debug for StartProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StartProgram")
    }
}

/// How often it is tried, so that a signal that comes late once is seen.
const TRIALS: usize = 16;

/// Has the kernel end programs that this process starts in namespaces of its own.
pub(super) fn is_ended(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let id = {
        let program = load(ebpf)?;
        program.attach(HOOK).map_err(failed(HOOK))?
    };
    let mut tried = Ok(true);
    for _ in 0..TRIALS {
        tried = try_one(ebpf);
        if !matches!(tried, Ok(true)) {
            break;
        }
    }
    program(ebpf)?.detach(id).map_err(failed(HOOK))?;
    let counters: PerCpuArray<_, u64> = ebpf
        .map(COUNTERS)
        .ok_or(KernelError::Missing(COUNTERS))?
        .try_into()
        .map_err(map_error(COUNTERS))?;
    let failures = counters.get(&counter::NOT_ENDED, 0);
    let failures: u64 = failures.map_err(map_error(COUNTERS))?.iter().sum();
    match tried? && failures == 0 {
        true => Ok(()),
        false => Err(KernelError::NotEnded),
    }
}

fn try_one(ebpf: &mut Ebpf) -> Result<bool, KernelError> {
    let trial = Trial::begin(None).map_err(trial_error)?;
    let there = settings(trial.namespace(), listed::TRIED);
    let mut map: Array<_, Settings> = ebpf
        .map_mut(FILES)
        .ok_or(KernelError::Missing(FILES))?
        .try_into()
        .map_err(map_error(FILES))?;
    map.set(0, there, 0).map_err(map_error(FILES))?;
    let outcome = trial.outcome().map_err(trial_error)?;
    Ok(outcome.is_ended_in_time())
}

fn load(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, KernelError> {
    let program = program(ebpf)?;
    program.load().map_err(failed(HOOK))?;
    Ok(program)
}

fn program(ebpf: &mut Ebpf) -> Result<&mut RawTracePoint, KernelError> {
    let program = ebpf.program_mut(HOOK).ok_or(KernelError::Missing(HOOK))?;
    program.try_into().map_err(failed(HOOK))
}

fn settings(mount_namespace: u32, listed: u32) -> Settings {
    Settings {
        mount_namespace,
        listed,
        ..Settings::default()
    }
}

/// As the kernel's `mount.mnt_id` has it.
fn number(mount: u64) -> Result<u32, KernelError> {
    u32::try_from(mount).map_err(|e| trial_error(io::Error::other(e)))
}

fn trial_error(source: io::Error) -> KernelError {
    KernelError::Query { hook: HOOK, source }
}

// === impl StartProgram ===

impl StartProgram {
    /// Loads, attaches and pins. It holds nowhere until [`Self::hold`].
    pub(super) fn attach(ebpf: &mut Ebpf, pins: &Path) -> Result<Self, KernelError> {
        let program = load(ebpf)?;
        let id = program.attach(HOOK).map_err(failed(HOOK))?;
        let link = FdLink::from(program.take_link(id).map_err(failed(HOOK))?);
        let path = pins.join("links").join(HOOK);
        let link = FdLink::from(link.pin(&path).map_err(pin_error(&path))?);
        for name in [FILES, LISTED] {
            let path = pins.join("maps").join(name);
            ebpf.map_mut(name)
                .ok_or(KernelError::Missing(name))?
                .pin(&path)
                .map_err(pin_error(&path))?;
        }
        Self::with(link, |name| take(ebpf, name))
    }

    /// None where nothing of it was pinned.
    pub(super) fn adopt(pins: &Path) -> Result<Option<Self>, KernelError> {
        let path = pins.join("links").join(HOOK);
        let there = path.try_exists().map_err(|source| KernelError::Io {
            call: "look for",
            path: path.clone(),
            source,
        })?;
        if !there {
            return Ok(None);
        }
        let link = PinnedLink::from_pin(&path).map_err(pin_error(&path))?;
        let own = Self::with(FdLink::from(link), |name| {
            let data = from_pin(&pins.join("maps"), name)?;
            Map::from_map_data(data).map_err(map_error(name))
        });
        own.map(Some)
    }

    fn with(
        link: FdLink,
        mut map: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            link,
            settings: map(FILES)?.try_into().map_err(map_error(FILES))?,
            listed: map(LISTED)?.try_into().map_err(map_error(LISTED))?,
            pinned: BTreeMap::new(),
        })
    }

    /// Has it hold in a mount namespace whose programs have not begun, and sees it end one that is not listed.
    pub fn hold(
        &mut self,
        mounts: BTreeMap<u64, OwnedFd>,
        namespace: &File,
    ) -> Result<(), KernelError> {
        self.release()?;
        self.list(mounts)?;
        let trial = Trial::begin(Some(namespace)).map_err(trial_error)?;
        let number = trial.namespace();
        self.set(settings(number, listed::TRIED))?;
        let outcome = trial.outcome().map_err(trial_error)?;
        if !outcome.is_ended_in_time() {
            return Err(KernelError::NotEnded);
        }
        self.set(settings(number, listed::HELD))
    }

    /// What may be started from now on: what is on these mounts.
    pub fn list(&mut self, mounts: BTreeMap<u64, OwnedFd>) -> Result<(), KernelError> {
        let wanted: BTreeSet<u64> = mounts.keys().copied().collect();
        let known = self.listed()?;
        for gone in known.difference(&wanted) {
            let gone = number(*gone)?;
            self.listed.remove(&gone).map_err(map_error(LISTED))?;
        }
        for new in wanted.difference(&known) {
            let new = number(*new)?;
            self.listed.insert(new, 1, 0).map_err(map_error(LISTED))?;
        }
        self.pinned = mounts;
        Ok(())
    }

    /// The numbers that the kernel has.
    pub fn listed(&self) -> Result<BTreeSet<u64>, KernelError> {
        let known = self.listed.keys().map(|number| number.map(u64::from));
        known.collect::<Result<_, _>>().map_err(map_error(LISTED))
    }

    pub(super) fn settings(&self) -> Result<Settings, KernelError> {
        self.settings.get(&0, 0).map_err(map_error(FILES))
    }

    /// Has it hold nowhere: the number of a namespace that is gone will be another's.
    pub fn release(&mut self) -> Result<(), KernelError> {
        self.set(Settings::default())
    }

    fn set(&mut self, settings: Settings) -> Result<(), KernelError> {
        self.settings.set(0, settings, 0).map_err(map_error(FILES))
    }

    /// What the kernel says of it.
    pub(super) fn hook(&self) -> Result<HookState, KernelError> {
        let info = self.link.info().map_err(|e| KernelError::Query {
            hook: HOOK,
            source: io::Error::other(e),
        })?;
        Ok(HookState {
            name: HOOK,
            program: info.program_id(),
            attached: info.program_id() != 0,
        })
    }

    /// It is attached, and ran every time.
    pub(super) fn verify(&self) -> Result<(), KernelError> {
        let state = self.hook()?;
        if !state.attached {
            return Err(KernelError::Detached { hook: HOOK });
        }
        let missed = query::missed(state.program)
            .map_err(|source| KernelError::Query { hook: HOOK, source })?;
        match missed {
            0 => Ok(()),
            missed => Err(KernelError::Missed { hook: HOOK, missed }),
        }
    }
}
