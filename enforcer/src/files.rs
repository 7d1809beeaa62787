//! Rules about files, carried by mounts: put into the mount namespace of a container before its init is released, so that they hold
//! for whatever runs in it, `exec` sessions included, on every kernel. What is found, opened and mounted is one descriptor from
//! beginning to end, and the kernel is asked at the end whether all of it is there.

mod allowed;
mod begun;
mod enter;
mod find;
mod ids;
mod mounted;
mod noexec;
mod openers;
pub mod owner;
mod plan;
mod programs;
mod root;
pub mod secrets;
mod seen;
mod sys;
pub mod table;
mod twice;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use policy::{EffectivePolicy, FileRight, Files, ProgramRight, ProgramRule};

pub use allowed::Allowed;
pub use begun::{Aside, Begun};
use enter::{Inside, Mount};
use find::Missing;
pub use noexec::NoExec;
use plan::{Kind, Step};

pub use openers::Openers;
pub use programs::{MAX_DIRECTORIES, Masked, Place, denies};
pub use seen::{Seen, Unfit, image};
use table::Table;

/// Most mounts that the rules of one policy may take.
pub const MAX_MOUNTS: usize = 4096;
/// Most directory entries that are looked at for all patterns of a policy.
pub const MAX_LOOKED_AT: usize = 1_000_000;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    #[error(
        "`{key}` has \"{path}\" ({origin}), which is not there: mounts hold only what is there when a session starts; create it, or take the rule out (one of an organisation's is left aside where the host says files = \"mounts\")"
    )]
    Missing {
        key: &'static str,
        path: String,
        origin: String,
    },
    #[error(
        "`{key}` has \"{path}\" ({origin}), which goes through a link to {found}: whoever may write beside the link could point it elsewhere; name what it leads to, or take the link away"
    )]
    Link {
        key: &'static str,
        path: String,
        origin: String,
        found: String,
    },
    #[error(
        "`writablePaths` has \"{path}\" ({origin}), which is on a mount that is read-only without us"
    )]
    NotWritable { path: String, origin: String },
    #[error(
        "`{key}` has \"{path}\" ({origin}), which is also about files that come later: no layer here carries that"
    )]
    NotCarried {
        key: &'static str,
        path: String,
        origin: String,
    },
    #[error("the rules about files take {found} mounts, the limit is {MAX_MOUNTS}")]
    TooMany { found: usize },
    #[error(
        "`{key}` has \"{path}\": too many directories are in the way of the pattern; begin it with the directory that it is about"
    )]
    TooMuch { key: &'static str, path: String },
    #[error(transparent)]
    Table(#[from] table::TableError),
    #[error("{path} has a name that is no text, or a `*` in one: the kernel's table takes neither")]
    Unspelt { path: String },
    #[error(
        "the programs about files are attached, and the kernel does not ask them: `bpf` is not in its list of LSMs (lsm=… on its command line)"
    )]
    NotAsked,
    #[error(
        "the kernel does not say which files of an overlay a container wrote (/sys/kernel/btf/overlay), so what a list of programs leaves to be loaded cannot be told"
    )]
    Layers,
    #[error(
        "the container that this is about is not there any more, or was started before the enforcer"
    )]
    NoContainer,
    #[error("{0}")]
    Kernel(String),
    #[error("`{key}` has \"{name}\" ({origin}), which is a directory: `deniedPaths` denies those")]
    NoProgram {
        key: &'static str,
        name: String,
        origin: String,
    },
    #[error(
        "the container's PATH has more than {MAX_DIRECTORIES} directories: programs that are denied are looked for in each"
    )]
    LongPath,
    #[error(
        "`allowedBinaries` has {path}, a file with {names} names on a mount of its own (hard links): by another one it could be written; list a copy"
    )]
    Names { path: String, names: u32 },
    #[error(
        "{path} could be changed by its other place {other}, which can be written, and what is started here is a list: take one of the two mounts away, or name {other} in `readOnlyPaths`"
    )]
    Twice { path: String, other: String },
    #[error(
        "too many programs are in the directories of the container's PATH: the other names of those that are denied are looked for there"
    )]
    ManyPrograms,
    #[error(
        "{path} ({origin}) is a link to a file that is other programs too, and nothing can be mounted over a link here: {source}; deny what it leads to, or take the link away"
    )]
    OverLink {
        path: String,
        origin: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "secrets are put at {path}, and {what} in the image or its mounts is in the way: take it away"
    )]
    InTheWay { path: String, what: &'static str },
    #[error(
        "the value of secret {0} is not here any more: `agentcontainer credential rotate {0}` hands it anew, or start the session again"
    )]
    NoValue(String),
    #[error(
        "`programs` of a secret has {path}, a script: what runs it is {interpreter}, as which every other script of that one would count too; name a program of its own"
    )]
    Script { path: String, interpreter: String },
    #[error(
        "`programs` of a secret has {path}, which leads to {file}: as that one every other name of it would count too; name a program of its own, or {file} with all that it does"
    )]
    OtherName { path: String, file: String },
    #[error(
        "`programs` of a secret has {path}, a file with {names} names (hard links): it would be for all of them; name a copy of its own"
    )]
    ManyNames { path: String, names: u32 },
    #[error("what the kernel is to hold cannot be kept for the next enforcer: {0}")]
    NotKept(#[from] crate::store::StoreError),
    #[error("the mount at {path} is shared with other namespaces")]
    Shared { path: String },
    #[error("{path} is not held as the rules say, by the kernel's word: {what}")]
    NotHeld { path: String, what: &'static str },
    #[error("cannot {call} {path}: {source}")]
    Io {
        call: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
}

// === impl FilesError ===

impl FilesError {
    /// It is what the kernel's table cannot take.
    fn is_the_tables(&self) -> bool {
        matches!(self, Self::Table(_) | Self::Unspelt { .. })
    }
}

fn io_error(call: &'static str, path: impl Into<String>) -> impl FnOnce(io::Error) -> FilesError {
    let path = path.into();
    move |source| FilesError::Io { call, path, source }
}

/// What stands in the place of what is denied: without any right, for files and for directories.
#[derive(Debug)]
pub struct Masks {
    file: OwnedFd,
    directory: OwnedFd,
}

/// When rules are put in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Before anything runs: all of them have to be.
    Start,
    /// While it runs, because the host replaced a file and its mount went with it: a path may be missing for a while.
    Again,
}

/// Programs as they were found when the container started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs {
    pub masked: Vec<Place>,
    /// What may be started, where mounts of their own say that. Of what the host puts in its place later nothing is, whatever is mounted there.
    pub listed: Vec<Place>,
    /// All that may be started, where that is listed and nobody is asked for more: what can be written and has none of it is noexec.
    pub alone: Option<BTreeSet<PathBuf>>,
    /// What may be started, where there is a list, whoever may be asked about more.
    pub startable: Option<BTreeSet<PathBuf>>,
}

impl Programs {
    fn is_empty(&self) -> bool {
        self.masked.is_empty() && self.listed.is_empty() && self.startable.is_none()
    }

    /// Whether nothing is started from what can be written at a place.
    fn close(&self, place: &Path) -> bool {
        let listed = self.alone.as_ref();
        listed.is_some_and(|listed| noexec::is_empty_of(listed, place))
    }

    fn all(&self) -> [(ProgramRight, &[Place]); 2] {
        [
            (ProgramRight::Denied, &self.masked),
            (ProgramRight::Allowed, &self.listed),
        ]
    }
}

/// Who carries what is about files that come later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    Nobody,
    Lsm,
}

/// What is in place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The mounts that carry it and where each is, as the namespace lists them.
    pub mounts: BTreeMap<u64, Vec<u8>>,
    /// Paths that are not there for now.
    pub missing: usize,
    /// Paths of organisations' that this container may be without.
    pub absent: BTreeSet<PathBuf>,
    /// Put in place just now.
    pub new: usize,
    /// Of the mounts, those whose file may be started.
    pub listed: BTreeSet<u64>,
    pub read_only: usize,
    pub writable: usize,
    pub denied: usize,
    /// Directories that are held in their place, so that no rule is moved away with one of them.
    pub kept: usize,
    /// What can be written, where a list says what may be started.
    pub noexec: Option<NoExec>,
}

// === impl Held ===

impl std::fmt::Display for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} read-only, {} writable within, {} denied; {} directories kept in their place",
            self.read_only, self.writable, self.denied, self.kept
        )
    }
}

// === impl Masks ===

impl Masks {
    /// In a directory of the enforcer's own.
    pub fn make(under: &Path) -> Result<Self, FilesError> {
        let directory = under.join("denied");
        let file = directory.join("file");
        let failed = |call: &'static str, path: &Path| io_error(call, path.display().to_string());
        std::fs::create_dir_all(&directory).map_err(failed("create", &directory))?;
        let empty = directory.join("directory");
        std::fs::create_dir_all(&empty).map_err(failed("create", &empty))?;
        if !file.exists() {
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o000)
                .open(&file)
                .map_err(failed("create", &file))?;
        }
        let none = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o000);
        for path in [&file, &empty] {
            std::fs::set_permissions(path, none.clone()).map_err(failed("close", path))?;
        }
        let open = |path: &Path| sys::open_path(path).map_err(failed("open", path));
        Ok(Self {
            file: open(&file)?,
            directory: open(&empty)?,
        })
    }

    fn identities(&self) -> Result<[sys::Identity; 2], FilesError> {
        let of = |mask| {
            sys::identity(mask).map_err(io_error("look at", "what stands for what is denied"))
        };
        Ok([of(&self.file)?, of(&self.directory)?])
    }

    /// Whether a step's place is held by one of these already.
    fn is(&self, step: &Step) -> Result<bool, FilesError> {
        Ok(self.identities()?.contains(&step.identity))
    }

    fn of(&self, is_directory: bool) -> &OwnedFd {
        if is_directory {
            &self.directory
        } else {
            &self.file
        }
    }
}

/// Puts the rules, and what masks programs, into the mount namespace of `pid`, the session's init in the network namespace that is given by device and inode, where
/// they are not in place already, and asks the kernel whether they hold.
pub fn hold(
    pid: u32,
    network: (u64, u64),
    rules: &Files,
    programs: &Programs,
    masks: &Masks,
    when: When,
    later: Later,
) -> Result<Held, FilesError> {
    if rules.is_empty() && programs.is_empty() {
        return Ok(Held::default());
    }
    if let (Later::Nobody, Some((right, rule))) = (later, rules.beyond_mounts().next()) {
        return Err(FilesError::NotCarried {
            key: rule.key(right),
            path: rule.path.to_string(),
            origin: rule.origin.to_string(),
        });
    }
    let inside = Inside::of(pid, network)?;
    let missing = match (when, later) {
        (When::Again, _) => Missing::May,
        (When::Start, Later::Lsm) => Missing::WhereTold,
        (When::Start, Later::Nobody) => Missing::MayNot,
    };
    let mut all = find::all(&inside, rules, missing)?;
    let mut gone = 0;
    for (right, places) in programs.all() {
        let (found, missing) = programs::at(&inside, places, right, when)?;
        all.found.extend(found);
        gone += missing;
    }
    let steps = plan::steps(all.found, all.root, |above| way(&inside, above))?;
    if steps.len() > MAX_MOUNTS {
        return Err(FilesError::TooMany { found: steps.len() });
    }
    let before = inside.mounts()?;
    let (mut there, open) = sort(&inside, steps, &before, masks)?;
    let new = open.len();
    let mut now = before;
    if new > 0 {
        let covers = open
            .iter()
            .map(|step| cover(step, masks))
            .collect::<Result<Vec<_>, _>>()?;
        let mounted = inside.within(|| {
            let steps = clone_all(&inside, open, covers, programs, when)?;
            for (step, clone) in &steps {
                attach(&inside, step, clone, &now)?;
            }
            Ok(steps)
        })?;
        for (step, clone) in &mounted {
            let id = mount_of(step, clone)?.id;
            there.0.push((step.clone(), id));
        }
        now = inside.mounts()?;
    }
    let exempt = there.exempt();
    if all.root {
        root::close(&inside, &exempt)?;
        now = inside.mounts()?;
    }
    if let Some(listed) = &programs.startable {
        twice::none(&inside, listed)?;
    }
    let writable = |(step, _): &(Step, u64)| {
        let is = step.kind == Kind::Rule(FileRight::Writable);
        is.then(|| step.path.clone())
    };
    let writable: Vec<PathBuf> = there.0.iter().filter_map(writable).collect();
    let noexec = programs.alone.as_ref().map(|listed| {
        let rule = noexec::Rule {
            listed,
            writable: &writable,
        };
        noexec::close(&inside, &rule)
    });
    let mut held = Held {
        new,
        noexec: noexec.transpose()?,
        missing: all.missing + gone,
        absent: all.absent,
        read_only: usize::from(all.root),
        ..Held::default()
    };
    for (step, id) in &there.0 {
        check(&inside, step, *id, &exempt, &now, masks)?;
        let listed = now.iter().find(|mount| mount.id == *id);
        held.mounts
            .extend(listed.map(|mount| (*id, mount.at.clone())));
        if step.listed {
            held.listed.insert(*id);
        }
        match step.kind {
            Kind::Rule(FileRight::ReadOnly) if step.listed => {}
            Kind::Rule(FileRight::ReadOnly) => held.read_only += 1,
            Kind::Rule(FileRight::Writable) => held.writable += 1,
            Kind::Rule(FileRight::Denied) => held.denied += 1,
            Kind::Keep => held.kept += 1,
        }
    }
    Ok(held)
}

/// What may be started, as it is now.
pub fn allowed(
    pid: u32,
    network: (u64, u64),
    rules: &[ProgramRule],
) -> Result<Allowed, FilesError> {
    Allowed::find(&Inside::of(pid, network)?, rules)
}

/// Holds mounts by their numbers, which are then no other mount's: without those that are not there any more.
pub fn pinned(
    pid: u32,
    network: (u64, u64),
    numbers: &BTreeSet<u64>,
) -> Result<BTreeMap<u64, OwnedFd>, FilesError> {
    let inside = Inside::of(pid, network)?;
    let mut pinned = BTreeMap::new();
    for mount in inside.mounts()? {
        if !numbers.contains(&mount.id) {
            continue;
        }
        let at = enter::place(&mount.at);
        // What cannot be looked at, went, or has another over it is not started any more.
        let Ok(file) = inside.open(&at) else { continue };
        let (Ok(on), Ok(kind)) = (sys::mount_of(&file), sys::kind(&file)) else {
            continue;
        };
        if on.id == mount.id && on.is_root && mount.read_only && kind == libc::S_IFREG {
            pinned.insert(on.id, file);
        }
    }
    Ok(pinned)
}

/// The inode of the mount namespace that it is in.
pub fn number(pid: u32, network: (u64, u64)) -> Result<u32, FilesError> {
    Inside::of(pid, network)?.namespace()
}

/// The mount namespace that it is in.
pub fn namespace(pid: u32, network: (u64, u64)) -> Result<File, FilesError> {
    Ok(Inside::of(pid, network)?.into_namespace())
}

/// Whether the programs' table can say what a policy says of files and mounts do not carry, before there is a container to say it in.
pub fn fits(policy: &EffectivePolicy) -> Result<(), table::TableError> {
    if !policy.is_beyond_mounts() {
        return Ok(());
    }
    let folder = ["workspaces", "workspace"].map(str::to_owned);
    let (rules, _) = begun::named(policy, &folder);
    Table::new(&rules, false).map(drop)
}

/// Opens a directory in there, for the kernel to be asked whether it asked the programs about it.
pub fn open_one(pid: u32, network: (u64, u64)) -> Result<(), FilesError> {
    let inside = Inside::of(pid, network)?;
    inside.within(|| {
        std::fs::File::open("/")
            .map(drop)
            .map_err(io_error("open", "/"))
    })
}

/// Whether all of it is still where it was put, by the kernel's word.
pub fn is_there(pid: u32, held: &Held) -> io::Result<bool> {
    let listed: BTreeMap<u64, Vec<u8>> = enter::listed(pid)?
        .into_iter()
        .map(|mount| (mount.id, mount.at))
        .collect();
    let is = |(id, at)| listed.get(id) == Some(at);
    Ok(held.mounts.iter().all(is))
}

/// Which steps are in place, and which are to be mounted: also what is in place below one of those, because it will be covered with it.
fn sort(
    inside: &Inside,
    steps: Vec<Step>,
    mounts: &[Mount],
    masks: &Masks,
) -> Result<(Placed, Vec<Step>), FilesError> {
    let mut placed = Vec::with_capacity(steps.len());
    for step in steps {
        let at = self::placed(inside, &step)?;
        let done = in_place(inside, &step, at, masks)?;
        placed.push((step, at.id, done));
    }
    let writable: BTreeSet<u64> = placed
        .iter()
        .filter(|(step, _, done)| *done && step.kind == Kind::Rule(FileRight::Writable))
        .map(|(_, id, _)| *id)
        .collect();
    let (mut there, mut open) = (Placed::default(), Vec::new());
    // Steps are in the order of their paths: what is below one of them follows it.
    let mut covering: Option<PathBuf> = None;
    for (step, id, done) in placed {
        // A tree that is read-only already is in place only where nothing in it is writable but what the rules leave so.
        let whole = step.kind != Kind::Rule(FileRight::ReadOnly)
            || enter::below(mounts, id, &writable).all(|mount| mount.read_only);
        let covered = covering
            .as_ref()
            .is_some_and(|above| step.path.starts_with(above));
        if done && whole && !covered {
            there.0.push((step, id));
            continue;
        }
        if !covered {
            covering = Some(step.path.clone());
        }
        open.push(step);
    }
    Ok((there, open))
}

/// Steps that are in place, with the mount that carries each.
#[derive(Default)]
struct Placed(Vec<(Step, u64)>);

impl Placed {
    /// What may be writable within what is read-only.
    fn exempt(&self) -> BTreeSet<u64> {
        let writable = |(step, _): &&(Step, u64)| step.kind == Kind::Rule(FileRight::Writable);
        self.0.iter().filter(writable).map(|(_, id)| *id).collect()
    }
}

fn mount_of(step: &Step, file: &OwnedFd) -> Result<sys::MountOf, FilesError> {
    sys::mount_of(file).map_err(io_error("look at the mount of", step.shown()))
}

/// What is mounted at a step's place now.
fn placed(inside: &Inside, step: &Step) -> Result<sys::MountOf, FilesError> {
    let there = inside
        .open(&step.path)
        .map_err(io_error("open", step.shown()))?;
    mount_of(step, &there)
}

/// Whether a step needs nothing any more.
fn in_place(
    inside: &Inside,
    step: &Step,
    placed: sys::MountOf,
    masks: &Masks,
) -> Result<bool, FilesError> {
    if !placed.is_root {
        return Ok(false);
    }
    match step.kind {
        Kind::Keep => Ok(true),
        Kind::Rule(FileRight::Denied) => masks.is(step),
        Kind::Rule(FileRight::ReadOnly) => is_read_only(inside, step),
        Kind::Rule(FileRight::Writable) => Ok(!is_read_only(inside, step)?),
    }
}

fn is_read_only(inside: &Inside, step: &Step) -> Result<bool, FilesError> {
    let failed = |call| io_error(call, step.shown());
    let there = inside.open(&step.path).map_err(failed("open"))?;
    let flags = nix::sys::statvfs::fstatvfs(&there)
        .map_err(|e| failed("look at")(e.into()))?
        .flags();
    Ok(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn way(inside: &Inside, above: &Path) -> Result<plan::Way, FilesError> {
    let failed = |call| io_error(call, shown(above));
    let there = inside.open(above).map_err(failed("open"))?;
    Ok(plan::Way {
        identity: sys::identity(&there).map_err(failed("look at"))?,
        is_mount: sys::mount_of(&there)
            .map_err(failed("look at the mount of"))?
            .is_root,
    })
}

/// What is mounted over a denied path comes from our own namespace, and can only be cloned there.
fn cover(step: &Step, masks: &Masks) -> Result<Option<OwnedFd>, FilesError> {
    if step.kind != Kind::Rule(FileRight::Denied) {
        return Ok(None);
    }
    let failed = |call| io_error(call, step.shown());
    let clone =
        sys::clone_tree(masks.of(step.is_directory), false).map_err(failed("clone a mask for"))?;
    let flags = sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC;
    sys::set_flags(&clone, flags, false).map_err(failed("close the mask of"))?;
    Ok(Some(clone))
}

/// All of what will be mounted, as it is before anything is: a rule within another's tree keeps the rights it has by itself.
fn clone_all(
    inside: &Inside,
    steps: Vec<Step>,
    covers: Vec<Option<OwnedFd>>,
    programs: &Programs,
    when: When,
) -> Result<Vec<(Step, OwnedFd)>, FilesError> {
    let mut cloned = Vec::with_capacity(steps.len());
    for (step, cover) in steps.into_iter().zip(covers) {
        let clone = match cover {
            Some(clone) => clone,
            None => {
                let failed = |call| io_error(call, step.shown());
                let target = inside.open(&step.path).map_err(failed("open"))?;
                if sys::identity(&target).map_err(failed("look at"))? != step.identity {
                    return Err(FilesError::NotHeld {
                        path: step.shown(),
                        what: "it changed while it was looked at",
                    });
                }
                let clone = sys::clone_tree(&target, true).map_err(failed("clone"))?;
                if step.kind == Kind::Rule(FileRight::ReadOnly) {
                    sys::set_flags(&clone, sys::RDONLY, true).map_err(failed("make read-only"))?;
                }
                // It was writable at the start; what the host made anew lies on our own read-only mount.
                if step.kind == Kind::Rule(FileRight::Writable) && when == When::Again {
                    sys::make_writable(&clone).map_err(failed("make writable"))?;
                }
                if step.kind == Kind::Rule(FileRight::Writable) && programs.close(&step.path) {
                    sys::set_flags(&clone, sys::NOEXEC, false)
                        .map_err(failed("let nothing be started from"))?;
                }
                clone
            }
        };
        cloned.push((step, clone));
    }
    Ok(cloned)
}

/// Mounts one over its place, as it is by now: what holds the directories above it is there already.
fn attach(
    inside: &Inside,
    step: &Step,
    clone: &OwnedFd,
    before: &[Mount],
) -> Result<(), FilesError> {
    let failed = |call| io_error(call, step.shown());
    let place = inside.open(&step.path).map_err(failed("open"))?;
    if sys::identity(&place).map_err(failed("look at"))? != step.identity {
        return Err(FilesError::NotHeld {
            path: step.shown(),
            what: "it changed while it was looked at",
        });
    }
    // What we mounted ourselves is not listed, and private.
    let on = sys::mount_of(&place)
        .map_err(failed("look at the mount of"))?
        .id;
    if before.iter().any(|mount| mount.id == on && mount.shared) {
        return Err(FilesError::Shared { path: step.shown() });
    }
    let is_link = sys::kind(&place).map_err(failed("look at"))? == libc::S_IFLNK;
    sys::move_to(clone, &place).map_err(|source| match is_link {
        true => FilesError::OverLink {
            path: step.shown(),
            origin: step.origin.clone(),
            source,
        },
        false => failed("mount over")(source),
    })
}

/// The kernel's word about one step, from outside the namespace.
fn check(
    inside: &Inside,
    step: &Step,
    id: u64,
    exempt: &BTreeSet<u64>,
    mounts: &[Mount],
    masks: &Masks,
) -> Result<(), FilesError> {
    let not_held = |what| {
        Err(FilesError::NotHeld {
            path: step.shown(),
            what,
        })
    };
    let now = placed(inside, step)?;
    if !now.is_root {
        return not_held("nothing is mounted there");
    }
    if now.id != id {
        return not_held("something else is mounted over it");
    }
    match step.kind {
        Kind::Keep => Ok(()),
        Kind::Rule(FileRight::ReadOnly) => {
            if enter::below(mounts, id, exempt).any(|mount| !mount.read_only) {
                return not_held("a mount below it is writable");
            }
            Ok(())
        }
        Kind::Rule(FileRight::Writable) if is_read_only(inside, step)? => {
            Err(FilesError::NotWritable {
                path: step.shown(),
                origin: step.origin.clone(),
            })
        }
        Kind::Rule(FileRight::Writable) => Ok(()),
        Kind::Rule(FileRight::Denied) => {
            let there = inside.open(&step.path);
            let there = there.and_then(|there| sys::identity(&there));
            let there = there.map_err(io_error("look at", step.shown()))?;
            if masks.identities()?.contains(&there) {
                Ok(())
            } else {
                not_held("it is not what stands for what is denied")
            }
        }
    }
}

/// A path of the container, below its root.
fn shown(path: &Path) -> String {
    PathBuf::from("/").join(path).display().to_string()
}
