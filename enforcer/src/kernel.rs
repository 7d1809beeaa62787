//! The eBPF side of one session: the object loaded, its programs attached and pinned, its maps in hand. An enforcer that
//! starts again adopts what is pinned and asks the kernel whether it is still attached.

mod files;
mod look;
mod maps;
mod offsets;
mod query;
mod starts;
mod trial;

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aya::maps::{Map, MapData};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{
    CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, ProgramError,
    SkLookup,
};
use aya::{Ebpf, EbpfLoader};
use enforcer_common::files::Offsets;
use policy::{EffectivePolicy, Layers};

pub use files::{FilePrograms, Image, Room};
pub use look::Look;
pub use maps::{Maps, SessionMaps};
pub use query::{AttachType, attached_programs, steering_programs};
pub use starts::StartProgram;

/// The programs, built by `cargo xtask ebpf` and checked in.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../enforcer-ebpf/object/enforcer-ebpf.o");

#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    #[error("cannot load the eBPF object: {0}")]
    Object(#[from] aya::EbpfError),
    #[error("cannot load or attach {program}: {source}")]
    Program {
        program: &'static str,
        #[source]
        source: Box<ProgramError>,
    },
    #[error("the eBPF object has no {0}")]
    Missing(&'static str),
    #[error("cannot pin {}: {source}", path.display())]
    Pin {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("map {map}: {source}")]
    Map {
        map: &'static str,
        #[source]
        source: aya::maps::MapError,
    },
    #[error("cannot {call} {}: {source}", path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the kernel does not say what is attached at {hook}: {source}")]
    Query {
        hook: &'static str,
        #[source]
        source: io::Error,
    },
    #[error(
        "the kernel takes LSM programs and does not ask them: `bpf` is not in its list of LSMs (lsm=… on its command line)"
    )]
    NotAsked,
    #[error(
        "{hook}: the kernel takes {MAX_AT_A_HOOK} programs at a hook of its LSMs and has as many: each open session with rules about files or programs has one there, and whatever else of this host uses BPF LSM; end one of those sessions, and start again"
    )]
    Full { hook: &'static str },
    #[error("the kernel does not end a program that must not be started")]
    NotEnded,
    #[error("a real-time kernel (PREEMPT_RT) may end a program after it began")]
    Realtime,
    #[error("the kernel's BTF cannot be used: {0}")]
    Btf(String),
    #[error(
        "{hook}: this kernel left the program out {missed} times; it does so when it is interrupted there, which Linux 6.2 and later do not, nor an earlier one with `preempt=voluntary`"
    )]
    Missed { hook: &'static str, missed: u64 },
    #[error("{hook}: the program that was attached is not there any more")]
    Detached { hook: &'static str },
    #[error(
        "{hook}: a program of somebody else's (id {program}) runs at the session's cgroup or above it, and could change what ours decided"
    )]
    Foreign { hook: &'static str, program: u32 },
}

/// A hook at a cgroup: the program's name in the object, and where it attaches.
#[derive(Clone, Copy, Debug)]
pub struct HookPoint {
    pub name: &'static str,
    pub attach: AttachType,
}

const fn hook(name: &'static str, attach: AttachType) -> HookPoint {
    HookPoint { name, attach }
}

/// What is attached at the session's cgroup.
pub const SESSION_HOOKS: [HookPoint; 8] = [
    hook("connect4", AttachType::Connect4),
    hook("connect6", AttachType::Connect6),
    hook("sendmsg4", AttachType::Sendmsg4),
    hook("sendmsg6", AttachType::Sendmsg6),
    hook("bind4", AttachType::Bind4),
    hook("bind6", AttachType::Bind6),
    hook("sock_create", AttachType::SockCreate),
    hook("egress", AttachType::SkbEgress),
];

/// What is attached at the gateway's cgroup.
pub const GATEWAY_HOOKS: [HookPoint; 4] = [
    hook("dial_connect4", AttachType::Connect4),
    hook("dial_connect6", AttachType::Connect6),
    hook("dial_sendmsg4", AttachType::Sendmsg4),
    hook("dial_sendmsg6", AttachType::Sendmsg6),
];

/// Programs that the kernel takes at one hook, of all who attach there (BPF_MAX_TRAMP_LINKS, include/linux/bpf.h).
pub const MAX_AT_A_HOOK: usize = 38;

/// Name of the sk_lookup program's pin and of its link's.
const STEER: &str = "steer";
/// Name of a link's pin until it takes the place of the one before (a bpffs takes no dots in names).
const STEER_NEW: &str = "steer_new";

/// Whether a hook of this name is one of the programs about files.
pub fn is_about_files(hook: &str) -> bool {
    files::HOOKS.contains(&hook) || files::LATER_HOOKS.contains(&hook)
}

/// Whether it is the one of the program that sees each start.
pub fn is_about_starts(hook: &str) -> bool {
    hook == starts::HOOK
}

/// Whether the running kernel says where it keeps what programs about files read.
pub fn btf() -> Result<(), String> {
    offsets::of_the_running_kernel().map(drop)
}

/// What the kernel says of one hook.
#[derive(Clone, Debug)]
pub struct HookState {
    pub name: &'static str,
    pub program: u32,
    pub attached: bool,
}

/// Loads every program once, attaching nothing, and says of each kind whether this kernel took it.
pub fn capabilities() -> Vec<(&'static str, Result<(), String>)> {
    let mut ebpf = match object(Carrier::Nobody, Room::One) {
        Ok(ebpf) => ebpf,
        Err(e) => return vec![("maps", Err(chain(&e)))],
    };
    let mut found = vec![("maps", Ok(()))];
    for (capability, program) in [
        ("cgroup_sock_addr", "connect4"),
        ("cgroup_sock", "sock_create"),
        ("cgroup_skb", "egress"),
        ("sk_lookup", STEER),
    ] {
        found.push((capability, load(&mut ebpf, program).map_err(|e| chain(&e))));
    }
    found
}

/// Whether this kernel takes programs about files and asks them; otherwise why not. Tried once, which takes a moment.
pub fn lsm() -> Result<(), &'static str> {
    static ASKED: OnceLock<Result<(), String>> = OnceLock::new();
    let asked = ASKED.get_or_init(|| takes_lsm().map_err(|e| chain(&e)));
    asked.as_ref().copied().map_err(String::as_str)
}

fn takes_lsm() -> Result<(), KernelError> {
    let mut ebpf = object(Carrier::Lsm, Room::One)?;
    files::load_all(&mut ebpf)?;
    match files::is_asked(&mut ebpf) {
        // It asks others there. Whoever begins a session finds out whether there is room by then.
        Err(KernelError::Full { .. }) => Ok(()),
        asked => asked,
    }
}

/// Whether this kernel has a program see each start, and end it there; otherwise why not. Tried once.
pub fn starts() -> Result<(), &'static str> {
    static ASKED: OnceLock<Result<(), String>> = OnceLock::new();
    let tried = || {
        // There a signal from a program of ours is sent by a thread of the kernel's (kernel/irq_work.c), which may come late.
        let version = std::fs::read_to_string("/proc/sys/kernel/version");
        if version.is_ok_and(|said| said.contains("PREEMPT_RT")) {
            return Err(KernelError::Realtime);
        }
        starts::is_ended(&mut object(Carrier::Starts, Room::One)?)
    };
    let asked = ASKED.get_or_init(|| tried().map_err(|e: KernelError| chain(&e)));
    asked.as_ref().copied().map_err(String::as_str)
}

/// Both.
pub fn layers() -> Layers<'static> {
    Layers {
        lsm: lsm(),
        starts: starts(),
    }
}

/// Which programs carry what mounts do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// There is nothing of that.
    Nobody,
    Lsm,
    /// What may be started is listed, and there is no LSM.
    Starts,
}

// === impl Carrier ===

impl Carrier {
    /// Of what a policy says, where it is carried.
    pub fn of(policy: &EffectivePolicy, layers: &Layers<'_>) -> Self {
        match layers.lsm {
            Ok(()) if policy.wants_lsm() => Self::Lsm,
            Err(_) if policy.programs.allowed.is_some() => Self::Starts,
            _ => Self::Nobody,
        }
    }

    /// What is there where these are the programs.
    pub fn layers(self) -> Layers<'static> {
        const NOT_ATTACHED: Result<(), &str> = Err("not attached");
        match self {
            Self::Lsm => Layers::ALL,
            Self::Starts => Layers {
                lsm: NOT_ATTACHED,
                starts: Ok(()),
            },
            Self::Nobody => Layers {
                lsm: NOT_ATTACHED,
                starts: NOT_ATTACHED,
            },
        }
    }
}

/// With what the programs about files have to know of the running kernel; without them, without their tables.
fn object(carrier: Carrier, room: Room) -> Result<Ebpf, KernelError> {
    let offsets = match carrier {
        Carrier::Nobody => Offsets::default(),
        Carrier::Lsm | Carrier::Starts => {
            offsets::of_the_running_kernel().map_err(KernelError::Btf)?
        }
    };
    let mut loader = EbpfLoader::new();
    loader.btf(None).override_global("OFFSETS", &offsets, true);
    for (map, entries) in room.maps() {
        let used = if carrier == Carrier::Lsm { entries } else { 1 };
        loader.map_max_entries(map, used);
    }
    Ok(loader.load(OBJECT)?)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), KernelError> {
    use aya::programs::Program;
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    let loaded = match program {
        Program::CgroupSockAddr(p) => p.load(),
        Program::CgroupSock(p) => p.load(),
        Program::CgroupSkb(p) => p.load(),
        Program::SkLookup(p) => p.load(),
        _ => return Err(KernelError::Missing(name)),
    };
    loaded.map_err(failed(name))
}

/// Of a program that is attached at a hook of that name.
fn not_attached(hook: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| match &source {
        ProgramError::SyscallError(refused)
            if refused.io_error.raw_os_error() == Some(libc::E2BIG) =>
        {
            KernelError::Full { hook }
        }
        _ => failed(hook)(source),
    }
}

fn failed(program: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |source| KernelError::Program {
        program,
        source: Box::new(source),
    }
}

/// The kernel side of one session. Dropping it leaves everything attached: links and maps are pinned.
#[derive(Debug)]
pub struct Kernel {
    pins: PathBuf,
    links: Vec<(HookPoint, FdLink)>,
    gateway_links: Vec<(HookPoint, FdLink)>,
    steering: Option<FdLink>,
    /// Where the policy has rules that mounts do not carry.
    files: Option<FilePrograms>,
    /// Where the policy lists what may be started, and the kernel takes no LSM programs.
    starts: Option<StartProgram>,
}

impl Kernel {
    /// Loads, attaches and pins under `pins`, which must not exist. With empty maps everything is denied; `carrier`: whose
    /// programs are attached besides, which hold nowhere yet.
    pub fn attach(
        pins: &Path,
        session: &File,
        gateway: &File,
        carrier: Carrier,
        room: Room,
    ) -> Result<(Self, Maps), KernelError> {
        let made = Self::attach_into(pins, session, gateway, carrier, room);
        if made.is_err() {
            // Nothing half made stays. A failure here leaves pins that `gc` finds.
            let _ = std::fs::remove_dir_all(pins);
        }
        made
    }

    fn attach_into(
        pins: &Path,
        session: &File,
        gateway: &File,
        carrier: Carrier,
        room: Room,
    ) -> Result<(Self, Maps), KernelError> {
        std::fs::create_dir_all(pins.join("maps")).map_err(io_error("create", pins))?;
        std::fs::create_dir_all(pins.join("links")).map_err(io_error("create", pins))?;
        let mut ebpf = object(carrier, room)?;
        let mut links = Vec::new();
        for point in SESSION_HOOKS {
            links.push((point, attach_cgroup(&mut ebpf, point, session, pins)?));
        }
        let mut gateway_links = Vec::new();
        for point in GATEWAY_HOOKS {
            gateway_links.push((point, attach_cgroup(&mut ebpf, point, gateway, pins)?));
        }
        load(&mut ebpf, STEER)?;
        let steer = pins.join(STEER);
        ebpf.program_mut(STEER)
            .ok_or(KernelError::Missing(STEER))?
            .pin(&steer)
            .map_err(pin_error(&steer))?;
        let files = match carrier {
            Carrier::Lsm => Some(FilePrograms::attach(&mut ebpf, pins)?),
            Carrier::Nobody | Carrier::Starts => None,
        };
        let starts = match carrier {
            Carrier::Starts => Some(StartProgram::attach(&mut ebpf, pins)?),
            Carrier::Nobody | Carrier::Lsm => None,
        };
        let maps = Maps::pin(&mut ebpf, &pins.join("maps"))?;
        let kernel = Self {
            pins: pins.to_path_buf(),
            links,
            gateway_links,
            steering: None,
            files,
            starts,
        };
        kernel.verify(session, gateway)?;
        Ok((kernel, maps))
    }

    /// Takes up what an earlier enforcer pinned, and has the kernel confirm it.
    pub fn adopt(pins: &Path, session: &File, gateway: &File) -> Result<(Self, Maps), KernelError> {
        let open = |point: HookPoint| {
            let path = pins.join("links").join(point.name);
            PinnedLink::from_pin(&path)
                .map(|link| (point, FdLink::from(link)))
                .map_err(pin_error(&path))
        };
        let links = SESSION_HOOKS
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        let gateway_links = GATEWAY_HOOKS
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        let path = pins.join("links").join(STEER);
        let pinned = path
            .try_exists()
            .map_err(io_error("look for", &path))?
            .then(|| PinnedLink::from_pin(&path));
        let steering = pinned
            .transpose()
            .map_err(pin_error(&path))?
            .map(FdLink::from);
        let maps = Maps::adopt(&pins.join("maps"))?;
        // A namespace is steered before the gate opens for it.
        if maps.session.settings()?.netns_cookie != 0 && steering.is_none() {
            return Err(KernelError::Detached { hook: STEER });
        }
        let kernel = Self {
            pins: pins.to_path_buf(),
            links,
            gateway_links,
            steering,
            files: FilePrograms::adopt(pins)?,
            starts: StartProgram::adopt(pins)?,
        };
        kernel.verify(session, gateway)?;
        Ok((kernel, maps))
    }

    /// Attaches the steering program to a network namespace. Where it is attached to that very one it stays as it is, and an earlier
    /// attachment elsewhere goes only once the new one stands: no connection ever finds nobody who steers it.
    pub fn steer(&mut self, netns: &impl AsFd) -> Result<(), KernelError> {
        if self.verify_steering(netns).is_ok() {
            return Ok(());
        }
        let links = self.pins.join("links");
        let (path, new) = (links.join(STEER), links.join(STEER_NEW));
        // Left by a run that ended between the two steps.
        match std::fs::remove_file(&new) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                return Err(io_error("unpin", &new)(e));
            }
            _ => {}
        }
        let pin = self.pins.join(STEER);
        let mut program = SkLookup::from_pin(&pin).map_err(failed(STEER))?;
        let id = program.attach(netns.as_fd()).map_err(failed(STEER))?;
        let link = program.take_link(id).map_err(failed(STEER))?;
        let pinned = FdLink::from(link).pin(&new).map_err(pin_error(&new))?;
        std::fs::rename(&new, &path).map_err(io_error("rename", &new))?;
        self.steering = Some(pinned.into());
        self.verify_steering(netns)
    }

    /// The kernel's word that our program, and nobody else's, steers that namespace.
    pub fn verify_steering(&self, netns: &impl AsFd) -> Result<(), KernelError> {
        let state = self.steering(netns)?;
        if state.attached {
            Ok(())
        } else {
            Err(KernelError::Detached { hook: STEER })
        }
    }

    /// What the kernel says of the steering of that namespace; a program of somebody else's there is an error.
    pub fn steering(&self, netns: &impl AsFd) -> Result<HookState, KernelError> {
        let query = |source| KernelError::Query {
            hook: STEER,
            source,
        };
        let program = match &self.steering {
            Some(link) => link
                .info()
                .map_err(|e| query(io::Error::other(e)))?
                .program_id(),
            None => 0,
        };
        let there = steering_programs(netns).map_err(query)?;
        match there.iter().find(|id| **id != program) {
            Some(foreign) if self.steering.is_some() => Err(KernelError::Foreign {
                hook: STEER,
                program: *foreign,
            }),
            _ => Ok(HookState {
                name: STEER,
                program,
                attached: there.contains(&program),
            }),
        }
    }

    /// What the kernel says of every hook now.
    pub fn hooks(&self, session: &File, gateway: &File) -> Result<Vec<HookState>, KernelError> {
        let mut states = Vec::new();
        for (links, cgroup) in [(&self.links, session), (&self.gateway_links, gateway)] {
            for (point, link) in links {
                let (program, effective) = inspect(*point, link, cgroup)?;
                states.push(HookState {
                    name: point.name,
                    program,
                    attached: effective.contains(&program),
                });
            }
        }
        if let Some(files) = &self.files {
            states.extend(files.hooks()?);
        }
        if let Some(starts) = &self.starts {
            states.push(starts.hook()?);
        }
        Ok(states)
    }

    /// The programs about files, where the session has them.
    pub fn files(&mut self) -> Option<&mut FilePrograms> {
        self.files.as_mut()
    }

    /// The program that sees each start, where the session has it.
    pub fn starts(&mut self) -> Option<&mut StartProgram> {
        self.starts.as_mut()
    }

    /// The mount namespace that they hold in, by its inode; none where they hold nowhere, or that cannot be read.
    pub fn held_namespace(&self) -> Option<u32> {
        let settings = match (&self.files, &self.starts) {
            (Some(files), _) => files.settings(),
            (None, Some(starts)) => starts.settings(),
            (None, None) => return None,
        };
        let namespace = settings.ok()?.mount_namespace;
        (namespace != 0).then_some(namespace)
    }

    /// Whose programs the session has.
    pub fn carrier(&self) -> Carrier {
        match (&self.files, &self.starts) {
            (Some(_), _) => Carrier::Lsm,
            (None, Some(_)) => Carrier::Starts,
            (None, None) => Carrier::Nobody,
        }
    }

    /// Every hook is attached, and no other program stands between ours and the verdict.
    pub fn verify(&self, session: &File, gateway: &File) -> Result<(), KernelError> {
        for (links, cgroup) in [(&self.links, session), (&self.gateway_links, gateway)] {
            for (point, link) in links {
                let (program, effective) = inspect(*point, link, cgroup)?;
                if !effective.contains(&program) {
                    return Err(KernelError::Detached { hook: point.name });
                }
                let foreign = effective.iter().find(|id| **id != program);
                if let (true, Some(foreign)) = (point.attach.rewrites(), foreign) {
                    return Err(KernelError::Foreign {
                        hook: point.name,
                        program: *foreign,
                    });
                }
            }
        }
        if let Some(files) = &self.files {
            files.verify()?;
        }
        match &self.starts {
            Some(starts) => starts.verify(),
            None => Ok(()),
        }
    }

    /// Detaches everything and removes the pins.
    pub fn remove(self) -> Result<(), KernelError> {
        let pins = self.pins.clone();
        drop(self);
        remove_pins(&pins)
    }
}

/// Removes a session's pins, if there are any. What nobody has open is detached by it.
pub fn remove_pins(pins: &Path) -> Result<(), KernelError> {
    match std::fs::remove_dir_all(pins) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io_error("remove", pins)(e)),
        _ => Ok(()),
    }
}

fn inspect(point: HookPoint, link: &FdLink, cgroup: &File) -> Result<(u32, Vec<u32>), KernelError> {
    let query = |source| KernelError::Query {
        hook: point.name,
        source,
    };
    let info = link.info().map_err(|e| query(io::Error::other(e)))?;
    Ok((
        info.program_id(),
        attached_programs(cgroup, point.attach).map_err(query)?,
    ))
}

fn attach_cgroup(
    ebpf: &mut Ebpf,
    point: HookPoint,
    cgroup: &File,
    pins: &Path,
) -> Result<FdLink, KernelError> {
    let name = point.name;
    load(ebpf, name)?;
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing(name))?;
    let mode = CgroupAttachMode::Single;
    let link: FdLink = match point.attach {
        AttachType::SockCreate => {
            let program: &mut CgroupSock = program.try_into().map_err(failed(name))?;
            let id = program.attach(cgroup, mode).map_err(failed(name))?;
            program.take_link(id).map_err(failed(name))?.try_into()
        }
        AttachType::SkbEgress => {
            let program: &mut CgroupSkb = program.try_into().map_err(failed(name))?;
            let id = program
                .attach(cgroup, CgroupSkbAttachType::Egress, mode)
                .map_err(failed(name))?;
            program.take_link(id).map_err(failed(name))?.try_into()
        }
        _ => {
            let program: &mut CgroupSockAddr = program.try_into().map_err(failed(name))?;
            let id = program.attach(cgroup, mode).map_err(failed(name))?;
            program.take_link(id).map_err(failed(name))?.try_into()
        }
    }
    .map_err(|_| KernelError::Missing("bpf_link for cgroups (Linux 5.7)"))?;
    let path = pins.join("links").join(name);
    link.pin(&path).map(FdLink::from).map_err(pin_error(&path))
}

fn io_error(call: &'static str, path: &Path) -> impl FnOnce(io::Error) -> KernelError {
    let path = path.to_path_buf();
    move |source| KernelError::Io { call, path, source }
}

fn pin_error<E>(path: &Path) -> impl FnOnce(E) -> KernelError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let path = path.to_path_buf();
    move |source| KernelError::Pin {
        path,
        source: Box::new(source),
    }
}

/// A map of the object by name, taken out of it.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, KernelError> {
    ebpf.take_map(name).ok_or(KernelError::Missing(name))
}

fn from_pin(directory: &Path, name: &'static str) -> Result<MapData, KernelError> {
    MapData::from_pin(directory.join(name)).map_err(|source| KernelError::Map { map: name, source })
}
