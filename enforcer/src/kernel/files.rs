//! The programs about files of one session: loaded and attached where its policy has a rule that mounts do not carry, and asked after like every
//! other. LSM programs run for the whole system; the session's mount namespace, which they are told once its init waits, is where they decide.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray};
use aya::programs::Lsm;
use aya::programs::links::{FdLink, PinnedLink};
use aya::{Btf, Ebpf};

use enforcer_common::files::{
    Approved, Glob, HALVES, Identity, Inode, MAX_GLOBS, NEXT_ENTRIES, Name, Opener, Place,
    SECRET_NAME, STATE_ENTRIES, Settings,
};

use super::look::Look;
use super::query::missed;
use super::{HookState, KernelError, failed, from_pin, not_attached, offsets, pin_error, take};
use crate::files::table::Table;
use crate::files::{Begun, Openers};

/// The programs, each by its hook's name.
pub const HOOKS: [&str; 27] = [
    "file_open",
    "file_receive",
    "path_mknod",
    "path_mkdir",
    "path_symlink",
    "path_link",
    "path_rename",
    "path_unlink",
    "path_rmdir",
    "path_truncate",
    "path_chmod",
    "path_chown",
    "inode_setxattr",
    "inode_removexattr",
    "inode_setattr",
    "bprm_check_security",
    "unix_stream_connect",
    "unix_may_send",
    "mmap_file",
    "file_mprotect",
    "ptrace_access_check",
    "sb_mount",
    "sb_umount",
    "move_mount",
    "sb_pivotroot",
    "bpf",
    "userns_create",
];

/// Those that a kernel is without before Linux 6.2, where access lists are attributes.
pub const LATER_HOOKS: [&str; 2] = ["inode_set_acl", "inode_remove_acl"];

/// What counts as the image's where a container's root is no overlay, whose layers say it: what is on this device (as the kernel numbers it),
/// and was not changed since then, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub device: u32,
    pub until: i64,
}

/// How many tables there is room for, where the session has programs about files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    One,
    /// Another one comes to hold while the session runs.
    Two,
}

const COUNTERS: &str = "COUNTERS";
pub(super) const FILES: &str = "FILES";
const HALF: &str = "HALF";
const NAMES: &str = "NAMES";
const GLOBS: &str = "GLOBS";
const GLOB_CLASSES: &str = "GLOB_CLASSES";
const NEXT: &str = "NEXT";
const PLACES: &str = "PLACES";
const APPROVED: &str = "APPROVED";
const SECRETS: &str = "SECRETS";
const OPENERS: &str = "OPENERS";
const PROGRAMS: &str = "PROGRAMS";
/// Those of its maps that take much memory, with what one table takes.
const LARGE: [(&str, u32); 2] = [(NEXT, NEXT_ENTRIES), (PLACES, STATE_ENTRIES)];
const PINNED: [&str; 11] = [
    HALF,
    FILES,
    NAMES,
    GLOBS,
    GLOB_CLASSES,
    NEXT,
    PLACES,
    APPROVED,
    SECRETS,
    OPENERS,
    PROGRAMS,
];

/// What holds the programs, and their tables.
pub struct FilePrograms {
    links: Vec<(&'static str, FdLink)>,
    maps: FileMaps,
    look: Arc<Look>,
}

impl std::fmt::Debug for FilePrograms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FilePrograms")
    }
}

struct FileMaps {
    half: Array<MapData, u32>,
    settings: Array<MapData, Settings>,
    names: HashMap<MapData, Name, u32>,
    globs: Array<MapData, Glob>,
    glob_classes: Array<MapData, u32>,
    next: Array<MapData, u32>,
    places: Array<MapData, Place>,
    approved: HashMap<MapData, u32, Approved>,
    secrets: HashMap<MapData, [u8; SECRET_NAME], u32>,
    openers: HashMap<MapData, Opener, u32>,
    programs: HashMap<MapData, Inode, u32>,
}

// === impl Room ===

impl Room {
    /// The maps that take much memory, each with its entries.
    pub(super) fn maps(self) -> impl Iterator<Item = (&'static str, u32)> {
        LARGE.into_iter().map(move |(map, one)| match self {
            Self::One => (map, one),
            Self::Two => (map, HALVES * one),
        })
    }
}

/// The running kernel's types, which say where a hook is.
fn btf() -> Result<Btf, KernelError> {
    Btf::from_sys_fs().map_err(|e| KernelError::Btf(e.to_string()))
}

/// Has the kernel ask one of the programs about a file that this very process opens: a kernel without `bpf` in its list of LSMs attaches them
/// and never asks them.
pub(super) fn is_asked(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    use std::os::unix::fs::MetadataExt as _;
    let io = |call, path: &str| {
        let path = path.into();
        move |source| KernelError::Io { call, path, source }
    };
    let own = "/proc/self/ns/mnt";
    let there = std::fs::metadata(own).map_err(io("look at", own))?;
    let hook = HOOKS[0];
    let id = program(ebpf, hook)?.attach().map_err(not_attached(hook))?;
    let mut settings: Array<_, Settings> = ebpf
        .map_mut(FILES)
        .ok_or(KernelError::Missing(FILES))?
        .try_into()
        .map_err(map_error(FILES))?;
    // No rule at all, in our own namespace.
    let here = Settings {
        mount_namespace: there.ino() as u32,
        ..Settings::default()
    };
    settings.set(0, here, 0).map_err(map_error(FILES))?;
    let opened = std::fs::File::open("/");
    settings
        .set(0, Settings::default(), 0)
        .map_err(map_error(FILES))?;
    program(ebpf, hook)?.detach(id).map_err(failed(hook))?;
    opened.map_err(io("open", "/"))?;
    let counters: PerCpuArray<_, u64> = ebpf
        .map(COUNTERS)
        .ok_or(KernelError::Missing(COUNTERS))?
        .try_into()
        .map_err(map_error(COUNTERS))?;
    let asked = counters
        .get(&enforcer_common::counter::OPENS, 0)
        .map_err(map_error(COUNTERS))?;
    match asked.iter().sum::<u64>() {
        0 => Err(KernelError::NotAsked),
        _ => Ok(()),
    }
}

/// Those that the running kernel has.
fn hooks() -> Result<Vec<&'static str>, KernelError> {
    let later = offsets::access_lists(&LATER_HOOKS).map_err(KernelError::Btf)?;
    Ok(HOOKS.into_iter().chain(later).collect())
}

/// Has the kernel look at each of them: one that takes some and not others carries nothing.
pub(super) fn load_all(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    let btf = btf()?;
    let mut all = hooks()?.into_iter();
    all.try_for_each(|hook| load(ebpf, hook, &btf))
}

fn load(ebpf: &mut Ebpf, hook: &'static str, btf: &Btf) -> Result<(), KernelError> {
    program(ebpf, hook)?.load(hook, btf).map_err(failed(hook))
}

fn program<'a>(ebpf: &'a mut Ebpf, hook: &'static str) -> Result<&'a mut Lsm, KernelError> {
    let program = ebpf.program_mut(hook).ok_or(KernelError::Missing(hook))?;
    program.try_into().map_err(failed(hook))
}

pub(super) fn map_error(map: &'static str) -> impl FnOnce(MapError) -> KernelError {
    move |source| KernelError::Map { map, source }
}

// === impl FilePrograms ===

impl FilePrograms {
    /// Loads, attaches and pins. They hold nowhere until [`Self::hold`].
    pub(super) fn attach(ebpf: &mut Ebpf, pins: &Path) -> Result<Self, KernelError> {
        let btf = btf()?;
        let mut links = Vec::new();
        for hook in hooks()? {
            load(ebpf, hook, &btf)?;
            let program = program(ebpf, hook)?;
            let id = program.attach().map_err(not_attached(hook))?;
            let link = FdLink::from(program.take_link(id).map_err(failed(hook))?);
            let path = pins.join("links").join(hook);
            let pinned = link.pin(&path).map_err(pin_error(&path))?;
            links.push((hook, FdLink::from(pinned)));
        }
        for name in PINNED {
            let path = pins.join("maps").join(name);
            ebpf.map_mut(name)
                .ok_or(KernelError::Missing(name))?
                .pin(&path)
                .map_err(pin_error(&path))?;
        }
        let look = Arc::new(Look::load(ebpf, pins)?);
        let maps = FileMaps::from(|name| take(ebpf, name))?;
        Ok(Self { links, maps, look })
    }

    /// None where nothing of them was pinned.
    pub(super) fn adopt(pins: &Path) -> Result<Option<Self>, KernelError> {
        let path = pins.join("links").join(HOOKS[0]);
        let there = path.try_exists().map_err(|source| KernelError::Io {
            call: "look for",
            path,
            source,
        })?;
        if !there {
            return Ok(None);
        }
        let links = hooks()?
            .into_iter()
            .map(|hook| {
                let path = pins.join("links").join(hook);
                let link = PinnedLink::from_pin(&path).map_err(pin_error(&path))?;
                Ok((hook, FdLink::from(link)))
            })
            .collect::<Result<_, KernelError>>()?;
        let maps = FileMaps::from(|name| {
            let data = from_pin(&pins.join("maps"), name)?;
            Map::from_map_data(data).map_err(map_error(name))
        })?;
        Ok(Some(Self {
            links,
            maps,
            look: Arc::new(Look::adopt(pins)?),
        }))
    }

    /// Fills the tables, and has them hold in a mount namespace whose programs have not begun. Until it is done they hold nowhere.
    pub fn hold(
        &mut self,
        table: &Table,
        begun: &Begun,
        image: Image,
        openers: Option<&Openers>,
        listed: &BTreeSet<Inode>,
    ) -> Result<(), KernelError> {
        self.release()?;
        let maps = &mut self.maps;
        maps.half.set(0, 0, 0).map_err(map_error(HALF))?;
        maps.fill(0, table)?;
        maps.list(listed)?;
        if let Some(openers) = openers {
            maps.gate(openers)?;
        }
        let besides = Settings {
            mount_namespace: begun.namespace,
            ruled: begun.ruled.into(),
            image_device: image.device,
            image_until: image.until,
            secrets_device: openers.map_or(0, |openers| openers.device),
            ..Settings::default()
        };
        maps.settings
            .set(0, table.settings(besides), 0)
            .map_err(map_error(FILES))
    }

    pub(super) fn settings(&self) -> Result<Settings, KernelError> {
        let half = self.maps.half.get(&0, 0).map_err(map_error(HALF))?;
        let settings = self.maps.settings.get(&half, 0);
        settings.map_err(map_error(FILES))
    }

    /// Has another table hold in the place of the one that does, from one look to the next. What was about to look keeps to the one before:
    /// nothing else may be put in its place before whatever runs now has ended.
    pub fn replace(&mut self, table: &Table) -> Result<(), KernelError> {
        let maps = &mut self.maps;
        let half = maps.half.get(&0, 0).map_err(map_error(HALF))?;
        let other = 1 - half.min(1);
        let now = maps.settings.get(&half, 0).map_err(map_error(FILES))?;
        maps.fill(other, table)?;
        maps.settings
            .set(other, table.settings(now), 0)
            .map_err(map_error(FILES))?;
        maps.half.set(0, other, 0).map_err(map_error(HALF))
    }

    /// What looks at files as the programs do.
    pub fn look(&self) -> Arc<Look> {
        Arc::clone(&self.look)
    }

    /// Lets what has this number in the table be executed, as long as it is this very file; `once`: by the first start.
    pub fn approve(
        &mut self,
        number: u16,
        identity: Identity,
        once: bool,
    ) -> Result<(), KernelError> {
        let approved = Approved {
            identity,
            once: once.into(),
            _pad: 0,
        };
        let all = &mut self.maps.approved;
        all.insert(u32::from(number), approved, 0)
            .map_err(map_error(APPROVED))
    }

    /// Takes back what was to be executed; it may have been, once.
    pub fn disapprove(&mut self, number: u16) {
        let _ = self.maps.approved.remove(&u32::from(number));
    }

    /// Has them hold nowhere: the number of a namespace that is gone will be another's. Nothing is left of what might be executed.
    pub fn release(&mut self) -> Result<(), KernelError> {
        for half in 0..HALVES {
            self.maps
                .settings
                .set(half, Settings::default(), 0)
                .map_err(map_error(FILES))?;
        }
        self.approve_only(&BTreeSet::new())
    }

    /// Takes everything back that was to be executed once.
    pub fn deny_all_once(&mut self) -> Result<(), KernelError> {
        let all = self.maps.approved.iter();
        let all: Vec<(u32, Approved)> =
            all.collect::<Result<_, _>>().map_err(map_error(APPROVED))?;
        for (number, _) in all.iter().filter(|(_, approved)| approved.once != 0) {
            // It may be executed just now.
            let _ = self.maps.approved.remove(number);
        }
        Ok(())
    }

    /// The numbers of all that may be executed now.
    pub fn approved(&self) -> Result<BTreeSet<u16>, KernelError> {
        let numbers = self.maps.approved.keys().map(|number| {
            let number = number.map_err(map_error(APPROVED))?;
            Ok(u16::try_from(number).unwrap_or_default())
        });
        numbers.collect()
    }

    /// Takes everything back that was to be executed, but what has these numbers.
    pub fn approve_only(&mut self, numbers: &BTreeSet<u16>) -> Result<(), KernelError> {
        let all = &mut self.maps.approved;
        let known: Vec<u32> = all
            .keys()
            .collect::<Result<_, _>>()
            .map_err(map_error(APPROVED))?;
        let stays = |number: u32| u16::try_from(number).is_ok_and(|n| numbers.contains(&n));
        for number in known.into_iter().filter(|number| !stays(*number)) {
            // It may be executed just now.
            let _ = all.remove(&number);
        }
        Ok(())
    }

    /// What the kernel says of each.
    pub(super) fn hooks(&self) -> Result<Vec<HookState>, KernelError> {
        self.links
            .iter()
            .map(|(hook, link)| {
                let info = link.info().map_err(|e| KernelError::Query {
                    hook,
                    source: io::Error::other(e),
                })?;
                Ok(HookState {
                    name: hook,
                    program: info.program_id(),
                    attached: info.program_id() != 0,
                })
            })
            .collect()
    }

    /// Each is attached, and was asked every time: a kernel that lets itself be interrupted in a program leaves it out for whoever interrupts
    /// (before Linux 6.2, kernel/bpf/trampoline.c).
    pub(super) fn verify(&self) -> Result<(), KernelError> {
        for state in self.hooks()? {
            if !state.attached {
                return Err(KernelError::Detached { hook: state.name });
            }
            let missed = missed(state.program).map_err(|source| KernelError::Query {
                hook: state.name,
                source,
            })?;
            if missed > 0 {
                return Err(KernelError::Missed {
                    hook: state.name,
                    missed,
                });
            }
        }
        Ok(())
    }
}

impl FileMaps {
    fn from(
        mut map: impl FnMut(&'static str) -> Result<Map, KernelError>,
    ) -> Result<Self, KernelError> {
        Ok(Self {
            half: map(HALF)?.try_into().map_err(map_error(HALF))?,
            settings: map(FILES)?.try_into().map_err(map_error(FILES))?,
            names: map(NAMES)?.try_into().map_err(map_error(NAMES))?,
            globs: map(GLOBS)?.try_into().map_err(map_error(GLOBS))?,
            glob_classes: map(GLOB_CLASSES)?
                .try_into()
                .map_err(map_error(GLOB_CLASSES))?,
            next: map(NEXT)?.try_into().map_err(map_error(NEXT))?,
            places: map(PLACES)?.try_into().map_err(map_error(PLACES))?,
            approved: map(APPROVED)?.try_into().map_err(map_error(APPROVED))?,
            secrets: map(SECRETS)?.try_into().map_err(map_error(SECRETS))?,
            openers: map(OPENERS)?.try_into().map_err(map_error(OPENERS))?,
            programs: map(PROGRAMS)?.try_into().map_err(map_error(PROGRAMS))?,
        })
    }

    /// Writes which programs may open which secret, while nobody looks.
    fn gate(&mut self, openers: &Openers) -> Result<(), KernelError> {
        empty(&mut self.secrets, SECRETS)?;
        empty(&mut self.openers, OPENERS)?;
        for (name, number) in &openers.secrets {
            let mut key = [0; SECRET_NAME];
            for (to, byte) in key.iter_mut().zip(name.bytes()) {
                *to = byte;
            }
            let known = self.secrets.insert(key, number, 0);
            known.map_err(map_error(SECRETS))?;
        }
        for (secret, program) in &openers.programs {
            let opener = Opener {
                program: *program,
                secret: *secret,
                _pad: 0,
            };
            self.openers
                .insert(opener, 1, 0)
                .map_err(map_error(OPENERS))?;
        }
        Ok(())
    }

    /// Writes which files may be started where the table says so of their places, while nobody looks.
    fn list(&mut self, listed: &BTreeSet<Inode>) -> Result<(), KernelError> {
        empty(&mut self.programs, PROGRAMS)?;
        let all = &mut self.programs;
        let mut listed = listed.iter();
        listed.try_for_each(|file| all.insert(file, 1, 0).map_err(map_error(PROGRAMS)))
    }

    /// Writes a table into a half that nobody looks up in.
    fn fill(&mut self, half: u32, table: &Table) -> Result<(), KernelError> {
        let names = table.names.iter();
        let spelt: std::collections::HashMap<Name, u32> = names
            .map(|(name, class)| (name.in_half(half), *class))
            .collect();
        let known: Vec<Name> = self
            .names
            .keys()
            .collect::<Result<_, _>>()
            .map_err(map_error(NAMES))?;
        // Entries of the other half are looked at meanwhile, and stay as they are.
        for name in known {
            if name.half() == half && !spelt.contains_key(&name) {
                self.names.remove(&name).map_err(map_error(NAMES))?;
            }
        }
        for (name, class) in spelt {
            self.names
                .insert(name, class, 0)
                .map_err(map_error(NAMES))?;
        }
        let first = |entries: u32| half * entries;
        let globs = MAX_GLOBS as u32;
        fill(&mut self.globs, first(globs), &table.globs, GLOBS)?;
        let classes = &table.glob_classes;
        fill(
            &mut self.glob_classes,
            first(1 << globs),
            classes,
            GLOB_CLASSES,
        )?;
        fill(&mut self.next, first(NEXT_ENTRIES), &table.next, NEXT)?;
        fill(
            &mut self.places,
            first(STATE_ENTRIES),
            &table.places,
            PLACES,
        )
    }
}

fn empty<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<(), KernelError> {
    let known: Vec<K> = map
        .keys()
        .collect::<Result<_, _>>()
        .map_err(map_error(name))?;
    let mut known = known.iter();
    known.try_for_each(|key| map.remove(key).map_err(map_error(name)))
}

fn fill<T: aya::Pod>(
    map: &mut Array<MapData, T>,
    first: u32,
    values: &[T],
    name: &'static str,
) -> Result<(), KernelError> {
    for (at, value) in (first..).zip(values) {
        map.set(at, value, 0).map_err(map_error(name))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Carrier, object};
    use super::*;

    #[test]
    fn what_another_container_listed_is_listed_no_more() {
        let mut ebpf = object(Carrier::Lsm, Room::One).unwrap();
        let mut maps = FileMaps::from(|name| take(&mut ebpf, name)).unwrap();
        let file = |number| Inode {
            number,
            ..Inode::default()
        };
        for listed in [vec![file(1), file(2)], vec![file(2)], vec![]] {
            let listed = BTreeSet::from_iter(listed);
            maps.list(&listed).unwrap();
            let there: Result<BTreeSet<Inode>, _> = maps.programs.keys().collect();
            assert_eq!(there.unwrap(), listed);
        }
    }

    #[test]
    fn secrets_that_another_policy_had_have_no_number_any_more() {
        let mut ebpf = object(Carrier::Lsm, Room::One).unwrap();
        let mut maps = FileMaps::from(|name| take(&mut ebpf, name)).unwrap();
        let mut gate = |names: &[&str]| {
            let mut openers = Openers::default();
            let numbered = (1..).zip(names);
            openers.secrets = numbered.map(|(n, name)| ((*name).to_owned(), n)).collect();
            openers.programs = vec![(1, Identity::default())];
            maps.gate(&openers).unwrap();
            (maps.secrets.keys().count(), maps.openers.keys().count())
        };
        assert_eq!(gate(&["A", "B"]), (2, 1));
        assert_eq!(gate(&["B"]), (1, 1));
    }
}
