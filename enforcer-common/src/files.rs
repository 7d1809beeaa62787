//! The ABI of the programs about files: where the kernel keeps what they read, the table that a path is looked up in, and what they
//! report. The table is a deterministic automaton over a path's names that reads them as the kernel has them, from the file up to the root.

use crate::Process;

/// Longest name that a rule may spell out, in bytes.
pub const MAX_NAME: usize = 120;
/// Longest run of characters before or after a name's `*`, in bytes.
pub const MAX_PART: usize = 16;
/// Most different names with a `*` in them, over all rules.
pub const MAX_GLOBS: usize = 6;
/// Most names that rules spell out.
pub const NAME_ENTRIES: u32 = 16_384;
/// Most states.
pub const STATE_ENTRIES: u32 = 16_384;
/// Most transitions: states times classes of names.
pub const NEXT_ENTRIES: u32 = 1 << 20;
/// Most files that may be started, each on a mount of its own, where that is held without LSM programs.
pub const MOUNT_ENTRIES: u32 = 4096;
/// Most names and mounts from a file up to its root; what lies deeper is denied.
pub const MAX_STEPS: u32 = 512;
/// Most names and mounts where all places of a file are looked for, of each as many as of one; beyond, it is denied.
pub const MAX_SOUGHT: u32 = 1 << 16;

/// Offsets in bytes of what the programs read, from the running kernel's BTF.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub task_nsproxy: u32,
    pub task_real_parent: u32,
    pub task_tgid: u32,
    pub nsproxy_mnt_ns: u32,
    /// `mnt_namespace.ns` and `ns_common.inum` in one.
    pub mnt_ns_inum: u32,
    pub file_path: u32,
    pub file_mode: u32,
    pub file_flags: u32,
    pub path_mnt: u32,
    pub path_dentry: u32,
    pub dentry_parent: u32,
    pub dentry_inode: u32,
    pub dentry_sb: u32,
    /// Its sequence count, which is odd or moves on while it is renamed.
    pub dentry_seq: u32,
    /// `dentry.d_name` and `qstr.name` in one.
    pub dentry_name: u32,
    /// `dentry.d_name` and `qstr.len` in one.
    pub dentry_name_len: u32,
    /// `dentry.d_hash` and `hlist_bl_node.pprev` in one: null where its directory has it no more.
    pub dentry_hashed: u32,
    pub inode_mode: u32,
    pub vfsmount_root: u32,
    /// `mount.mnt`: what lies between a `struct vfsmount` and its `struct mount`.
    pub mount_mnt: u32,
    pub mount_parent: u32,
    pub mount_mountpoint: u32,
    pub mount_ns: u32,
    pub mount_id: u32,
    /// From one mount of a file system to the next one.
    pub mount_next: u32,
    /// Where in a mount such a link leads to.
    pub mount_linked: u32,
    /// Not 0: they are a ring, whose last one leads to the file system's own; else it leads nowhere (since Linux 6.18).
    pub mount_ring: u32,
    /// `unix_sock.path`: where a socket was bound.
    pub unix_path: u32,
    pub socket_sk: u32,
    pub bprm_file: u32,
    pub task_files: u32,
    pub files_fdt: u32,
    pub fdtable_fd: u32,
    pub file_inode: u32,
    pub inode_sb: u32,
    pub inode_ino: u32,
    pub inode_size: u32,
    pub inode_generation: u32,
    /// How many names it has.
    pub inode_names: u32,
    /// Seconds of its last change of any kind.
    pub inode_changed: u32,
    pub inode_changed_nanos: u32,
    /// From an inode of overlayfs to what says whether it is in the layer that is written; 0: the kernel does not say.
    pub inode_upper: u32,
    pub sb_dev: u32,
    pub sb_magic: u32,
    pub sb_flags: u32,
    /// The first of its mounts.
    pub sb_mounts: u32,
    pub vfsmount_flags: u32,
    pub task_mm: u32,
    pub mm_exe_file: u32,
    pub vma_file: u32,
    pub vma_flags: u32,
    /// From a file that lies under another one to that one's path; 0: its own path is that one's (before Linux 6.8).
    pub backing_path: u32,
    pub task_group_leader: u32,
    pub nsproxy_pid_ns: u32,
    pub pid_ns_reaper: u32,
    pub iattr_valid: u32,
    /// Not 0: what `inode_setattr` is about comes after whose numbers a mount shows (since Linux 6.9).
    pub setattr_mapped: u32,
}
const _: () = assert!(size_of::<Offsets>() == 228);

/// Tables there is room for: one that is looked up in, and one that is made beside it. `HALF` says which is which.
pub const HALVES: u32 = 2;

/// An element of `FILES`, for each half.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Inode of the mount namespace that the rules hold in; 0: in none, before its init is released.
    pub mount_namespace: u32,
    /// Classes of names.
    pub classes: u32,
    /// Names with a `*`.
    pub globs: u32,
    /// Of [`listed`]: whether only what has [`right::EXECUTE`], or is on a mount of `LISTED`, is started.
    pub listed: u32,
    /// Where the root is no overlay: what is on this device (as the kernel has it) and was not changed since then, in seconds, is the image's.
    pub image_device: u32,
    /// Of the files of secrets, where only some programs may open one; 0: whoever may read them may.
    pub secrets_device: u32,
    pub image_until: i64,
    /// Not 0: times and attributes are asked about, because a rule denies something or makes it read-only.
    pub ruled: u32,
    pub _pad: u32,
}
const _: () = assert!(size_of::<Settings>() == 40);

/// Values of [`Settings::listed`].
pub mod listed {
    /// Whatever there is.
    pub const NOTHING: u32 = 0;
    pub const HELD: u32 = 1;
    /// The same, and a denial leaves no record: the enforcer tries one itself.
    pub const TRIED: u32 = 2;
}

/// Key of `NAMES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    /// The low half; the high one is which half of the tables the entry is of, so that writing one leaves the other's alone.
    pub length: u64,
    pub bytes: [u8; MAX_NAME],
}
const _: () = assert!(size_of::<Name>() == 128);

/// An element of `GLOBS`: a name with one `*`, as what stands before and after it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glob {
    /// The first bytes of a name, little-endian, and which of them count.
    pub head: [u64; 2],
    pub head_mask: [u64; 2],
    /// The last bytes of a name, the very last one the most significant, and which of them count.
    pub tail: [u64; 2],
    pub tail_mask: [u64; 2],
    /// Length of both together: no shorter name matches.
    pub shortest: u64,
}
const _: () = assert!(size_of::<Glob>() == 72);

/// An element of `PLACES`, by the state at the root: what the rules make of a path.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Two directories with the same class have the same rules below them.
    pub class: u32,
    /// Of [`right`].
    pub rights: u32,
}
const _: () = assert!(size_of::<Place>() == 8);

/// Bits of [`Place::rights`].
pub mod right {
    pub const DENIED: u32 = 1;
    pub const READ_ONLY: u32 = 2;
    pub const EXECUTE: u32 = 4;
    /// A rule is about a place of this very name or below it: no link may stand there.
    pub const NAMED: u32 = 8;
    /// A person said that it may be executed: only while its directory has it by this name.
    pub const APPROVED: u32 = 16;
    /// Read-only by what is mounted there, which the mount sees to where somebody comes by it.
    pub const CLOSED: u32 = 32;
    /// A file is mounted there: what lies under it is hidden.
    pub const COVERED: u32 = 64;
    /// How far up the number stands by which `APPROVED` has what it said that of.
    pub const NUMBER_SHIFT: u32 = 16;
}

/// Most programs at once that a person said may be executed.
pub const APPROVED_ENTRIES: u32 = 512;

/// Which file it is, and as it is: any change of it is another.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub inode: u64,
    pub size: u64,
    /// Seconds of its last change of any kind.
    pub changed: i64,
    pub changed_nanos: u32,
    /// As the kernel has it, `s_dev`.
    pub device: u32,
    pub generation: u32,
    /// How many names it has.
    pub names: u32,
}
const _: () = assert!(size_of::<Identity>() == 40);

/// What is known of an open file.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub identity: Identity,
    /// Of [`layer`].
    pub layer: u32,
    pub _pad: u32,
}
const _: () = assert!(size_of::<Looked>() == 48);

/// Values of [`Looked::layer`].
pub mod layer {
    /// Of no overlay.
    pub const NONE: u32 = 0;
    /// Of one that nothing writes.
    pub const IMAGE: u32 = 1;
    /// Of the one that the container writes.
    pub const OWN: u32 = 2;
    /// The kernel does not say.
    pub const UNKNOWN: u32 = 3;
}

/// An element of `APPROVED`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Approved {
    pub identity: Identity,
    /// Not 0: whoever takes it out is the one who may.
    pub once: u32,
    pub _pad: u32,
}
const _: () = assert!(size_of::<Approved>() == 48);

/// Most files that a list of programs may name, where LSM programs hold it.
pub const PROGRAM_ENTRIES: u32 = 16_384;

/// Key of `PROGRAMS`: a file that is listed, whatever is written into it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inode {
    pub number: u64,
    /// As the kernel has it, `s_dev`.
    pub device: u32,
    pub generation: u32,
}
const _: () = assert!(size_of::<Inode>() == 16);

/// Bytes of a key of `SECRETS`: a secret's name, with zeroes behind it.
pub const SECRET_NAME: usize = 72;
/// Most secrets.
pub const SECRET_ENTRIES: u32 = 64;
/// Most programs of all secrets.
pub const OPENER_ENTRIES: u32 = 4096;

/// Key of `OPENERS`: a program that may open a secret.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    pub program: Identity,
    pub secret: u32,
    pub _pad: u32,
}
const _: () = assert!(size_of::<Opener>() == 48);

/// The state in which a path's last name is read.
pub const START: u32 = 0;

/// Which hook a [`FileEvent`] comes from. Not one of [`crate::Hook`]'s numbers.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Open = 64,
    Create = 65,
    Link = 66,
    Rename = 67,
    Remove = 68,
    Change = 69,
    Execute = 70,
    Connect = 71,
    /// Executed, and ended before its first instruction.
    Start = 72,
    /// Mapped so that it could be executed.
    Map = 73,
    /// Another process's memory, and what else the kernel shows of it to whoever could trace it.
    Trace = 74,
    Mount = 75,
    /// A program or map of the kernel's own.
    Bpf = 76,
    UserNamespace = 77,
    /// A descriptor that another process opened.
    Receive = 78,
}

/// Why.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReason {
    Denied = 1,
    ReadOnly = 2,
    /// A directory that rules are about would come to be somewhere else.
    Moved = 3,
    NotListed = 4,
    /// The path could not be read.
    Internal = 5,
    /// A Unix socket that was bound outside of the session's mount namespace.
    Outside = 6,
    /// A link where a rule names something.
    Linked = 7,
    /// What is not listed and is in no directory any more, or never was.
    Nameless = 8,
    /// No denial: it may be started, as it may be once.
    Once = 9,
    /// It has the place of what a person allowed, and is another file, or was changed.
    Changed = 10,
    /// Nobody inside does that, whatever the rules are.
    Never = 11,
    /// A secret, which is for other programs.
    NotItsProgram = 12,
    /// A program on a mount of somebody outside, which nobody is asked about.
    NotInside = 13,
    /// It has the place of what is listed, and is another file.
    Replaced = 14,
}

/// Bytes of a path that an event carries, its last name first, each ended by 0.
pub const EVENT_PATH: usize = 1024;
/// Longest name in an event; of a longer one the beginning.
pub const EVENT_NAME: usize = 256;

/// One record of `EVENTS` about a file; longer than every other kind.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileEvent {
    pub process: Process,
    /// An [`Act`].
    pub act: u8,
    /// A [`FileReason`].
    pub reason: u8,
    /// Not 0: names are missing at the path's beginning.
    pub cut: u8,
    pub _pad: u8,
    /// Bytes of `path` that are in use.
    pub length: u32,
    /// Thread group id of the process's parent; 0: not known.
    pub parent: u32,
    pub _pad2: u32,
    pub path: [u8; EVENT_PATH + EVENT_NAME],
}
const _: () = assert!(size_of::<FileEvent>() == 56 + EVENT_PATH + EVENT_NAME);

// === impl Identity ===

impl Identity {
    /// The file that it is, changed or not.
    #[inline(always)]
    pub fn file(&self) -> Inode {
        Inode {
            number: self.inode,
            device: self.device,
            generation: self.generation,
        }
    }

    /// Word by word, as the programs compare it.
    #[inline(always)]
    pub fn is(&self, other: &Self) -> bool {
        self.inode == other.inode
            && self.size == other.size
            && self.changed == other.changed
            && self.changed_nanos == other.changed_nanos
            && self.device == other.device
            && self.generation == other.generation
            && self.names == other.names
    }
}

// === impl Name ===

impl Name {
    /// None for a longer one than rules may spell out.
    pub fn new(name: &[u8]) -> Option<Self> {
        let mut bytes = [0; MAX_NAME];
        bytes.get_mut(..name.len())?.copy_from_slice(name);
        Some(Self {
            length: name.len() as u64,
            bytes,
        })
    }

    /// The same as an entry of one half of the tables.
    pub fn in_half(self, half: u32) -> Self {
        Self {
            length: self.length & u64::from(u32::MAX) | u64::from(half) << 32,
            ..self
        }
    }

    pub fn half(&self) -> u32 {
        (self.length >> 32) as u32
    }
}
