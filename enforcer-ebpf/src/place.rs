//! Where a file is, as rules name it: its names are read from the kernel's own directory entries, from the file up to the root of its
//! mount namespace, and each takes the table one state further. No path that a process spelt is looked at: links, `/proc/PID/root`,
//! descriptors and races come to the same entries (kernel fs/d_path.c walks the same way).

use aya_ebpf::{
    helpers::{
        bpf_get_current_task,
        generated::{bpf_loop, bpf_probe_read_kernel as read_bytes},
    },
    macros::map,
    maps::{Array, HashMap},
};
use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use core::ffi::c_void;
use core::hint::black_box;
use core::mem::MaybeUninit;
use enforcer_common::files::{
    Glob, HALVES, MAX_GLOBS, MAX_NAME, MAX_SOUGHT, MAX_STEPS, NAME_ENTRIES, NEXT_ENTRIES, Name,
    Place, STATE_ENTRIES, START, Settings, right,
};

use crate::members::{Pointer, offset, read};

/// Element 0: the half that is looked up in. Of each of the following maps a half is one table's, the other the other's.
#[map]
static HALF: Array<u32> = Array::with_max_entries(1, 0);

/// Where the rules hold.
#[map]
static FILES: Array<Settings> = Array::with_max_entries(HALVES, 0);

/// Names that rules spell out in each half, with the class of each.
#[map]
static NAMES: HashMap<Name, u32> = HashMap::with_max_entries(NAME_ENTRIES, BPF_F_NO_PREALLOC);

#[map]
static GLOBS: Array<Glob> = Array::with_max_entries(HALVES * MAX_GLOBS as u32, 0);

/// Classes of names that no rule spells out, by which of the globs they match.
#[map]
static GLOB_CLASSES: Array<u32> = Array::with_max_entries(HALVES << MAX_GLOBS, 0);

/// By state and class of a name: the next state. The loader leaves the second half out where no table comes later.
#[map]
static NEXT: Array<u32> = Array::with_max_entries(HALVES * NEXT_ENTRIES, 0);

/// By state at the root. Also.
#[map]
static PLACES: Array<Place> = Array::with_max_entries(HALVES * STATE_ENTRIES, 0);

/// One table, and the half of the maps that it is in.
pub struct Rules {
    half: u32,
    classes: u32,
    globs: u32,
    /// Of [`enforcer_common::files::listed`].
    pub listed: u32,
    /// Of [`Settings`].
    pub image_device: u32,
    pub image_until: i64,
    /// Of [`Settings`].
    pub secrets_device: u32,
    /// Of [`Settings`].
    pub ruled: u32,
    namespace: u32,
}

/// The rules that the calling task is under, if it is in the namespace that they hold in.
#[inline(always)]
pub fn rules() -> Option<Rules> {
    let half = *HALF.get(0)?;
    let settings = *FILES.get(half)?;
    if settings.mount_namespace == 0 {
        return None;
    }
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let namespace = mount_namespace(task).unwrap_or(0);
    if namespace != settings.mount_namespace {
        return None;
    }
    Some(Rules {
        half,
        classes: settings.classes,
        globs: settings.globs,
        listed: settings.listed,
        image_device: settings.image_device,
        image_until: settings.image_until,
        secrets_device: settings.secrets_device,
        ruled: settings.ruled,
        namespace,
    })
}

impl Rules {
    /// Whether a task is in the namespace that they hold in.
    #[inline(always)]
    pub fn have(&self, task: Pointer) -> bool {
        mount_namespace(task) == Ok(self.namespace)
    }

    /// Whether the calling task only entered the namespace, as a thread of the enforcer's does: the first of the processes that its children
    /// would be among is not init, but one outside.
    #[inline(always)]
    pub fn are_entered(&self) -> Result<bool, ()> {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() } as Pointer;
        Ok(mount_namespace(first(task)?)? != self.namespace)
    }
}

/// The first process of the namespace that a task's children are in.
#[inline(always)]
pub fn first(task: Pointer) -> Result<Pointer, ()> {
    let proxy: Pointer = read(task, offset!(task_nsproxy))?;
    let namespace: Pointer = read(proxy, offset!(nsproxy_pid_ns))?;
    read(namespace, offset!(pid_ns_reaper))
}

/// Inode of a task's mount namespace. A task that is ending has none any more.
#[inline(always)]
fn mount_namespace(task: Pointer) -> Result<u32, ()> {
    read(own_namespace(task)?, offset!(mnt_ns_inum))
}

/// Thread group id of the calling task's parent; 0 where it cannot be read.
#[inline(always)]
pub fn parent() -> u32 {
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let parent: Result<Pointer, ()> = read(task, offset!(task_real_parent));
    parent.and_then(|parent| read(parent, offset!(task_tgid))).unwrap_or(0)
}

#[inline(always)]
fn own_namespace(task: Pointer) -> Result<Pointer, ()> {
    let proxy: Pointer = read(task, offset!(task_nsproxy))?;
    read(proxy, offset!(nsproxy_mnt_ns))
}

/// Whether a file that is being opened can be written by it, or is emptied.
#[inline(always)]
pub fn changes(file: Pointer) -> Result<bool, ()> {
    /// In `struct file`'s mode (include/linux/fs.h).
    const FMODE_WRITE: u32 = 2;
    const O_TRUNC: u32 = 0o1000;
    let mode: u32 = read(file, offset!(file_mode))?;
    let flags: u32 = read(file, offset!(file_flags))?;
    Ok(mode & FMODE_WRITE != 0 || flags & O_TRUNC != 0)
}

/// The `struct sock` of a `struct socket`.
#[inline(always)]
pub fn socket(of: Pointer) -> Result<Pointer, ()> {
    read(of, offset!(socket_sk))
}

/// A directory entry on a mount.
#[derive(Clone, Copy)]
pub struct At {
    /// Null: by which one is not known.
    pub mount: Pointer,
    pub entry: Pointer,
}

impl At {
    /// Of a `struct path`.
    #[inline(always)]
    pub fn path(path: Pointer) -> Result<Self, ()> {
        Ok(Self {
            mount: read(path, offset!(path_mnt))?,
            entry: read(path, offset!(path_dentry))?,
        })
    }

    /// Of a `struct file`.
    #[inline(always)]
    pub fn file(file: Pointer) -> Result<Self, ()> {
        Self::path(file.wrapping_add(offset!(file_path)))
    }

    /// Of a `struct file` by whoever opened it: one that lies under another, as overlayfs maps it, has a path of its own as well.
    #[inline(always)]
    pub fn opened(file: Pointer) -> Result<Self, ()> {
        /// Since Linux 6.5, in `struct file`'s mode.
        const FMODE_BACKING: u32 = 1 << 25;
        let path = offset!(backing_path);
        let mode: u32 = read(file, offset!(file_mode))?;
        if path != 0 && mode & FMODE_BACKING != 0 {
            return Self::path(file.wrapping_add(path));
        }
        Self::file(file)
    }

    /// Of a `struct dentry` alone.
    #[inline(always)]
    pub fn entry(entry: Pointer) -> Self {
        Self { mount: core::ptr::null(), entry }
    }

    /// The root of a `struct vfsmount`.
    #[inline(always)]
    pub fn root(mount: Pointer) -> Result<Self, ()> {
        Ok(Self { mount, entry: read(mount, offset!(vfsmount_root))? })
    }

    /// Of the program that a task runs; an error where it runs none.
    #[inline(always)]
    pub fn running(task: Pointer) -> Result<Self, ()> {
        let memory: Pointer = read(task, offset!(task_mm))?;
        Self::file(read(memory, offset!(mm_exe_file))?)
    }

    /// The inode of the entry.
    #[inline(always)]
    pub fn inode(self) -> Result<Pointer, ()> {
        read(self.entry, offset!(dentry_inode))
    }

    /// Whether nothing is written by the way of its mount.
    #[inline(always)]
    pub fn is_read_only(self) -> Result<bool, ()> {
        /// include/linux/mount.h
        const MNT_READONLY: u32 = 0x40;
        let flags: u32 = read(self.mount, offset!(vfsmount_flags))?;
        Ok(flags & MNT_READONLY != 0)
    }

    /// Of the file that a `struct linux_binprm` is about.
    #[inline(always)]
    pub fn program(bprm: Pointer) -> Result<Self, ()> {
        Self::file(read(bprm, offset!(bprm_file))?)
    }

    /// Where a `struct unix_sock` was bound; none for one that is bound to no path.
    #[inline(always)]
    pub fn bound(socket: Pointer) -> Result<Option<Self>, ()> {
        let at = Self::path(socket.wrapping_add(offset!(unix_path)))?;
        Ok(if at.entry.is_null() { None } else { Some(at) })
    }

    /// Another entry on the same mount.
    #[inline(always)]
    pub fn beside(self, entry: Pointer) -> Self {
        Self { mount: self.mount, entry }
    }

    /// One step up: the entry above, through mounts. None at the root; an entry that leads to no root is an error.
    #[inline(always)]
    pub fn up(self) -> Result<Step, ()> {
        let root: Pointer = read(self.mount, offset!(vfsmount_root))?;
        if self.entry != root {
            let parent: Pointer = read(self.entry, offset!(dentry_parent))?;
            return Ok(if parent == self.entry {
                Step::Apart
            } else {
                Step::Name(self.beside(parent))
            });
        }
        let mount = self.mount.wrapping_sub(offset!(mount_mnt));
        let parent: Pointer = read(mount, offset!(mount_parent))?;
        if parent == mount {
            // A mount that was taken away has no namespace: what is in it has no path any more.
            return if self.namespace()?.is_null() { Err(()) } else { Ok(Step::Root) };
        }
        Ok(Step::Mount(Self {
            mount: parent.wrapping_add(offset!(mount_mnt)),
            entry: read(mount, offset!(mount_mountpoint))?,
        }))
    }

    /// Where the entry's name is and how long it is.
    #[inline(always)]
    pub fn name(self) -> Result<(Pointer, u32), ()> {
        Ok((
            read(self.entry, offset!(dentry_name))?,
            read(self.entry, offset!(dentry_name_len))?,
        ))
    }

    /// Whether its directory has it by its name: not what was removed, or never had one (kernel fs/dcache.c, `d_unhashed`).
    #[inline(always)]
    pub fn is_named(self) -> Result<bool, ()> {
        let hashed: Pointer = read(self.entry, offset!(dentry_hashed))?;
        Ok(!hashed.is_null())
    }

    /// The kind of file, of [`DIRECTORY`] and others; 0 where there is none.
    #[inline(always)]
    pub fn kind(self) -> Result<u16, ()> {
        const S_IFMT: u16 = 0o170000;
        let inode: Pointer = read(self.entry, offset!(dentry_inode))?;
        if inode.is_null() {
            return Ok(0);
        }
        let mode: u16 = read(inode, offset!(inode_mode))?;
        Ok(mode & S_IFMT)
    }

    /// Whether it is on a mount of the calling task's own namespace.
    #[inline(always)]
    pub fn is_inside(self) -> Result<bool, ()> {
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() } as Pointer;
        Ok(self.namespace()? == own_namespace(task)?)
    }

    /// The namespace that its mount is in: none of one that was taken away, an error number for the kernel's own.
    #[inline(always)]
    fn namespace(self) -> Result<Pointer, ()> {
        read(self.mount.wrapping_sub(offset!(mount_mnt)), offset!(mount_ns))
    }

    /// The number of its mount, as statx(2) and mountinfo have it.
    #[inline(always)]
    pub fn mount_number(self) -> Result<u32, ()> {
        read(self.mount.wrapping_sub(offset!(mount_mnt)), offset!(mount_id))
    }

    /// What the rules make of it, where it is on a mount of the session's namespace.
    #[inline(always)]
    pub fn place(self, rules: &Rules) -> Result<Place, ()> {
        self.found(rules, self.walk(rules, false)).map(|(_, place)| place)
    }

    /// The same, with a mount by which it is there where none was known. Of a file that is on no mount of the session's namespace, or whose
    /// mount is not known, what is taken away at any of its places there is; what such a place would allow to be started is not. What is hidden or
    /// read-only by mounts alone is so where it is at all of them.
    #[inline(always)]
    pub fn placed(self, rules: &Rules) -> Result<(Self, Place), ()> {
        self.found(rules, self.walk(rules, true))
    }

    #[inline(always)]
    fn found(self, rules: &Rules, walk: Walked) -> Result<(Self, Place), ()> {
        const TAKEN: u32 = right::DENIED | right::READ_ONLY | right::NAMED;
        match walk.end {
            AT_ROOT => {
                let place = PLACES.get(rules.half * STATE_ENTRIES + walk.state).copied().ok_or(())?;
                Ok((self, place))
            }
            SOUGHT => {
                let mount = if self.mount.is_null() { walk.found } else { self.mount };
                let shown = match walk.rights & (HIDDEN | right::CLOSED | OPEN) {
                    HIDDEN => right::DENIED,
                    shown if shown & OPEN == 0 && shown != 0 => right::READ_ONLY,
                    _ => 0,
                };
                let place = Place { class: 0, rights: walk.rights & TAKEN | shown };
                Ok((Self { mount, entry: self.entry }, place))
            }
            NOWHERE => Ok((self, Place { class: 0, rights: 0 })),
            _ => Err(()),
        }
    }

    #[inline(always)]
    fn walk(self, rules: &Rules, seek: bool) -> Walked {
        let mut walk = Walk {
            from: self,
            at: self,
            half: rules.half,
            classes: rules.classes,
            globs: rules.globs,
            state: start(),
            end: 0,
            rights: nothing() as u32,
            taken: nothing() as u32,
            namespace: core::ptr::null(),
            link: core::ptr::null(),
            found: nothing(),
            name: MaybeUninit::uninit(),
            _room: MaybeUninit::uninit(),
        };
        // SAFETY: the helper takes no argument.
        let task = unsafe { bpf_get_current_task() } as Pointer;
        let Ok(own) = own_namespace(task) else { return walk.over() };
        let namespace = if self.mount.is_null() { Ok(self.mount) } else { self.namespace() };
        match namespace {
            // Pipes, memory, what overlayfs opens for itself: on the kernel's own mounts, to which no path leads.
            Ok(namespace) if (namespace as u64) > MAX_ERROR => {
                walk.end = NOWHERE;
                return walk.over();
            }
            // What was taken away leads to no root.
            Ok(namespace) if namespace == own || namespace.is_null() && !self.mount.is_null() => {
                walk.run(MAX_STEPS, step);
            }
            Ok(_) if seek => {
                walk.namespace = own;
                if walk.seek().is_err() {
                    return walk.over();
                }
                walk.run(MAX_SOUGHT, sought);
            }
            Ok(_) | Err(()) => {}
        }
        walk.over()
    }

    /// Moves on while the entry is renamed (kernel fs/dcache.c, `__d_move`).
    #[inline(always)]
    fn sequence(self) -> Result<u32, ()> {
        read(self.entry, offset!(dentry_seq))
    }
}

/// What is above an entry.
pub enum Step {
    /// The entry has a name; this is its directory.
    Name(At),
    /// The entry is a mount's root, which has no name of its own; this is where it is mounted.
    Mount(At),
    Root,
    /// The entry is its file system's root, and the mount does not reach that far.
    Apart,
}

const AT_ROOT: u32 = 1;
/// On a mount of the kernel's own.
const NOWHERE: u32 = 2;
/// By all mounts of its file system in the namespace.
const SOUGHT: u32 = 3;
/// Beside the rights of all places of a file, by what is mounted there: one shows it writable.
const OPEN: u32 = right::COVERED << 1;
/// One hides it.
const HIDDEN: u32 = right::COVERED << 2;
/// Pointers above it are error numbers (include/linux/err.h, `IS_ERR`); the kernel's own mounts have one for a namespace (MNT_NS_INTERNAL).
const MAX_ERROR: u64 = -4096_i64 as u64;

/// Kinds of files (include/uapi/linux/stat.h).
pub const DIRECTORY: u16 = 0o040000;
pub const LINK: u16 = 0o120000;

#[repr(C)]
struct Walk {
    from: At,
    at: At,
    half: u32,
    classes: u32,
    globs: u32,
    state: u32,
    end: u32,
    /// All that was found, where all places are looked for.
    rights: u32,
    /// The step that the mount in hand was taken at.
    taken: u32,
    /// Where all places are looked for: in this namespace, over the mounts of this file system, from this link on.
    namespace: Pointer,
    link: Pointer,
    /// A mount by which it is there: the first by which a rule is about it, where one is.
    found: Pointer,
    /// Written for each one.
    name: MaybeUninit<Name>,
    /// What the verifier sees a read of 127 bytes reach into.
    _room: MaybeUninit<u64>,
}

/// What is found.
struct Walked {
    end: u32,
    state: u32,
    rights: u32,
    found: Pointer,
}

impl Walk {
    #[inline(always)]
    fn over(&self) -> Walked {
        Walked { end: self.end, state: self.state, rights: self.rights, found: self.found }
    }

    #[inline(always)]
    fn run(&mut self, steps: u32, callback: unsafe extern "C" fn(u32, *mut c_void) -> i64) {
        // SAFETY: the callback has the signature that the helper asks for, and the context outlives the call.
        unsafe { bpf_loop(steps, callback as *const () as *mut c_void, (&raw mut *self).cast(), 0) };
    }

    /// The file system, which is read each time: the stacks of all that call each other have 512 bytes, and this one's caller is at its end.
    #[inline(always)]
    fn system(&self) -> Result<Pointer, ()> {
        read(self.from.entry, offset!(dentry_sb))
    }

    /// From the first of the file system's mounts on, with nothing in hand.
    #[inline(always)]
    fn seek(&mut self) -> Result<(), ()> {
        self.link = read(self.system()?, offset!(sb_mounts))?;
        self.at.mount = nothing();
        Ok(())
    }

    /// The next mount, to be gone up from where it is the namespace's. Mounts come and go meanwhile: where a link is one of a mount that went,
    /// from the first one again, as often as there are steps.
    #[inline(always)]
    fn next(&mut self, index: u32) -> i64 {
        let end = if offset!(mount_ring) == 0 {
            core::ptr::null()
        } else {
            let Ok(system) = self.system() else { return 1 };
            system.wrapping_add(offset!(sb_mounts))
        };
        if self.link == end {
            self.end = SOUGHT;
            return 1;
        }
        let mount = self.link.wrapping_sub(offset!(mount_linked));
        let link: Result<Pointer, ()> = read(mount, offset!(mount_next));
        let namespace: Result<Pointer, ()> = read(mount, offset!(mount_ns));
        let (Ok(link), Ok(namespace)) = (link, namespace) else {
            return i64::from(self.seek().is_err());
        };
        self.link = link;
        if namespace == self.namespace {
            self.from.mount = mount.wrapping_add(offset!(mount_mnt));
            self.at = self.from;
            self.taken = index;
            self.state = start();
        }
        0
    }

    #[inline(always)]
    fn below(&mut self, at: At) -> i64 {
        self.at = at;
        0
    }

    /// Past a name, whose directory this was said to be after `before`.
    #[inline(always)]
    fn named(&mut self, before: u32, above: At) -> i64 {
        let Ok(class) = class(self) else { return 1 };
        // Name and directory belong together only where nothing moved.
        match self.at.sequence() {
            Ok(after) if after == before && before & 1 == 0 => {}
            // From the beginning, as often as there are steps. It is not counted: the verifier would go through every count.
            Ok(_) => {
                self.at = self.from;
                self.state = start();
                return 0;
            }
            Err(()) => return 1,
        }
        let first = self.half.wrapping_mul(NEXT_ENTRIES);
        let index = self.state.wrapping_mul(self.classes).wrapping_add(class);
        let Some(next) = NEXT.get(first.wrapping_add(index)) else { return 1 };
        self.state = *next;
        self.at = above;
        0
    }

    /// Whether a file lies under what is mounted at its place, rather than being that.
    #[inline(always)]
    fn is_under(&self) -> bool {
        At::root(self.from.mount).map(|root| root.entry) != Ok(self.from.entry)
    }

    /// At the root, where there may be more places: what the rules say there.
    #[inline(always)]
    fn arrive(&mut self) -> i64 {
        let place = PLACES.get(self.half.wrapping_mul(STATE_ENTRIES).wrapping_add(self.state));
        let Some(place) = place else { return 1 };
        const RULED: u32 = right::DENIED | right::READ_ONLY;
        if self.rights & RULED == 0 && place.rights & RULED != 0 || self.found.is_null() {
            self.found = self.from.mount;
        }
        let seen = if place.rights & right::COVERED != 0 && self.is_under() {
            HIDDEN
        } else if place.rights & right::CLOSED != 0 {
            right::CLOSED
        } else {
            OPEN
        };
        self.rights |= place.rights & !right::CLOSED | seen;
        self.at.mount = nothing();
        0
    }
}

/// A null pointer that the verifier does not know to be one. Before Linux 6.7 it goes through a `bpf_loop` callback once, and takes whatever branch
/// a number that it knows then does not take out of the program, for the rounds after it too. Since then it goes through it again for each number
/// that it knows.
#[inline(always)]
pub fn nothing() -> Pointer {
    let mut nothing: Pointer = core::ptr::null();
    // SAFETY: as many bytes as there are. Nothing is readable there, and the helper fills what it could not read with zeroes.
    unsafe { read_bytes((&raw mut nothing).cast(), size_of::<Pointer>() as u32, core::ptr::null()) };
    nothing
}

/// Where tables are begun in, without the verifier's knowledge either.
#[inline(always)]
fn start() -> u32 {
    const { assert!(START == 0) };
    nothing() as u32
}

/// One step up, to the root. 0 goes on, 1 ends.
unsafe extern "C" fn step(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: `walk` hands its own.
    let walk = unsafe { &mut *context.cast::<Walk>() };
    let Ok(before) = walk.at.sequence() else { return 1 };
    match walk.at.up() {
        Ok(Step::Root) => {
            walk.end = AT_ROOT;
            1
        }
        Ok(Step::Apart) | Err(()) => 1,
        Ok(Step::Mount(at)) => walk.below(at),
        Ok(Step::Name(above)) => walk.named(before, above),
    }
}

/// The same, from each mount. A callback of its own: the verifier goes through all of one for every way in which it is begun.
unsafe extern "C" fn sought(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: as in `step`.
    let walk = unsafe { &mut *context.cast::<Walk>() };
    if walk.at.mount.is_null() {
        return walk.next(index);
    }
    // No counter: what the verifier does not know it does not go through number by number.
    if index.wrapping_sub(walk.taken) > MAX_STEPS {
        return 1;
    }
    let Ok(before) = walk.at.sequence() else { return 1 };
    match walk.at.up() {
        Ok(Step::Root) => walk.arrive(),
        Ok(Step::Apart) => {
            walk.at.mount = nothing();
            0
        }
        Err(()) => 1,
        Ok(Step::Mount(at)) => walk.below(at),
        Ok(Step::Name(above)) => walk.named(before, above),
    }
}

/// The class of an entry's name.
#[inline(always)]
fn class(walk: &mut Walk) -> Result<u32, ()> {
    let (name, length) = walk.at.name()?;
    let words = walk.name.as_mut_ptr().cast::<u64>();
    // SAFETY: as many bytes as there are. Nothing is readable there, and the helper fills what it could not read with zeroes: at once, where the
    // compiler makes a loop over bytes, and so that the verifier sees the same afterwards whether or not the name is read over it.
    unsafe { read_bytes(words.add(1).cast(), MAX_NAME as u32, core::ptr::null()) };
    // SAFETY: the word before the array.
    unsafe { words.write_volatile(u64::from(length) | (u64::from(walk.half) << 32)) };
    if length as usize <= MAX_NAME {
        // The same number: a verifier before Linux 6.3 forgets its bound where the compiler keeps it on the stack.
        let bytes = black_box(length) & 127;
        // SAFETY: as many bytes as compared above, with room for 127; the helper checks the address it reads from.
        let done = unsafe { read_bytes(words.add(1).cast(), bytes, name.cast()) };
        if done != 0 {
            return Err(());
        }
        // SAFETY: all of it is written above, and the value is copied at once.
        if let Some(class) = unsafe { NAMES.get(walk.name.assume_init_ref()) } {
            return Ok(*class);
        }
    }
    let matched = if walk.globs == 0 { 0 } else { globs(name, length, walk.half, walk.globs)? };
    GLOB_CLASSES.get((walk.half << MAX_GLOBS) + matched).copied().ok_or(())
}

/// Which of the globs a name matches, a bit each.
#[inline(always)]
fn globs(name: Pointer, length: u32, half: u32, count: u32) -> Result<u32, ()> {
    let (head, tail) = (ends(name, length, false)?, ends(name, length, true)?);
    let mut matched = 0;
    let mut index = 0;
    while index < MAX_GLOBS as u32 {
        if index >= count {
            break;
        }
        let glob = GLOBS.get(half * MAX_GLOBS as u32 + index).ok_or(())?;
        let differs = (head[0] & glob.head_mask[0]) ^ glob.head[0]
            | (head[1] & glob.head_mask[1]) ^ glob.head[1]
            | (tail[0] & glob.tail_mask[0]) ^ glob.tail[0]
            | (tail[1] & glob.tail_mask[1]) ^ glob.tail[1];
        // By arithmetic: with a branch for each comparison the verifier goes through what follows for every set of globs that there could be.
        // The topmost bit of a number or its negative says whether it is other than 0; that of a difference, whether it is below 0.
        let differs = black_box(differs | differs.wrapping_neg());
        let shorter = black_box(u64::from(length).wrapping_sub(glob.shortest));
        matched |= (((differs | shorter) >> 63) as u32 ^ 1) << index;
        index += 1;
    }
    Ok(matched)
}

/// The first sixteen bytes of a name, or the last sixteen: of a shorter one what there is, at the beginning or at the end.
#[inline(always)]
fn ends(name: Pointer, length: u32, last: bool) -> Result<[u64; 2], ()> {
    // Twice as long as is read, so that the verifier sees any place within the first half as good.
    let mut bytes = [0u64; 4];
    let to = (&raw mut bytes).cast::<u8>();
    let done = if length >= 16 {
        let from = if last { name.wrapping_add(length as usize - 16) } else { name };
        // SAFETY: sixteen bytes into more; the helper checks the address it reads from.
        unsafe { read_bytes(to.cast(), 16, from.cast()) }
    } else {
        let before = if last { (16 - length as usize) & 15 } else { 0 };
        // SAFETY: at most fifteen bytes after at most fifteen; as above.
        unsafe { read_bytes(to.add(before).cast(), length & 15, name.cast()) }
    };
    if done == 0 { Ok([bytes[0], bytes[1]]) } else { Err(()) }
}
