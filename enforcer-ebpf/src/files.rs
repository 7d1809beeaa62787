//! Rules about files, at the kernel's own hooks (include/linux/lsm_hook_defs.h; security/security.c says where each is called): they hold for
//! files that come later, which mounts cannot. Attached to the whole system, as LSM programs are; what runs outside the session's mount
//! namespace is let through at the first comparison. Minimum kernel 6.1 (`userns_create`, beside them).

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::bpf_get_current_task,
    macros::{lsm, map},
    maps::HashMap,
    programs::LsmContext,
};
use core::hint::black_box;
use enforcer_common::files::{APPROVED_ENTRIES, Act, Approved, FileReason, Place, layer, listed, right};

use crate::{
    identity,
    members::{Pointer, offset, read},
    place::{At, DIRECTORY, LINK, Rules, changes, rules, socket},
    record::{deny_file, record_file},
    secrets,
};

/// What a person said may be executed, by the number that its place has.
#[map]
static APPROVED: HashMap<u32, Approved> =
    HashMap::with_max_entries(APPROVED_ENTRIES, BPF_F_NO_PREALLOC);

/// What a rule answers with, as the mounts that carry the others do: EACCES, EROFS. EXDEV makes `mv` copy instead, file by file.
pub const EACCES: i32 = -13;
pub const EROFS: i32 = -30;
const EXDEV: i32 = -18;

/// include/uapi/asm-generic/mman-common.h
const PROT_EXEC: u64 = 4;

/// What is in the way of a change, and of a link: that would lead elsewhere whoever goes by the name that a rule says.
const CHANGED: u32 = right::DENIED | right::READ_ONLY;
const LINKED: u32 = CHANGED | right::NAMED;

#[lsm(hook = "file_open")]
pub fn file_open(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    crate::maps::count(enforcer_common::counter::OPENS);
    opened(&rules, Act::Open, ctx.arg(0))
}

/// A descriptor that comes from another process: over a Unix socket, by pidfd_getfd(2), from a seccomp supervisor (fs/file.c).
#[lsm(hook = "file_receive")]
pub fn file_receive(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    opened(&rules, Act::Receive, ctx.arg(0))
}

#[lsm(hook = "path_mknod")]
pub fn path_mknod(ctx: LsmContext) -> i32 {
    child(&ctx, Act::Create)
}

#[lsm(hook = "path_mkdir")]
pub fn path_mkdir(ctx: LsmContext) -> i32 {
    child(&ctx, Act::Create)
}

#[lsm(hook = "path_symlink")]
pub fn path_symlink(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    let (directory, name): (Pointer, Pointer) = (ctx.arg(0), ctx.arg(1));
    let directory = At::path(directory);
    let at = directory.map(|directory| directory.beside(name));
    entry(&rules, Act::Create, directory, at, LINKED)
}

#[lsm(hook = "path_unlink")]
pub fn path_unlink(ctx: LsmContext) -> i32 {
    child(&ctx, Act::Remove)
}

#[lsm(hook = "path_rmdir")]
pub fn path_rmdir(ctx: LsmContext) -> i32 {
    child(&ctx, Act::Remove)
}

#[lsm(hook = "path_truncate")]
pub fn path_truncate(ctx: LsmContext) -> i32 {
    itself(&ctx)
}

#[lsm(hook = "path_chmod")]
pub fn path_chmod(ctx: LsmContext) -> i32 {
    itself(&ctx)
}

#[lsm(hook = "path_chown")]
pub fn path_chown(ctx: LsmContext) -> i32 {
    itself(&ctx)
}

#[lsm(hook = "inode_setxattr")]
pub fn inode_setxattr(ctx: LsmContext) -> i32 {
    attribute(ctx.arg(1))
}

#[lsm(hook = "inode_removexattr")]
pub fn inode_removexattr(ctx: LsmContext) -> i32 {
    attribute(ctx.arg(1))
}

/// Since Linux 6.2; before, an access control list was one of the extended attributes.
#[lsm(hook = "inode_set_acl")]
pub fn inode_set_acl(ctx: LsmContext) -> i32 {
    attribute(ctx.arg(1))
}

/// Since Linux 6.2.
#[lsm(hook = "inode_remove_acl")]
pub fn inode_remove_acl(ctx: LsmContext) -> i32 {
    attribute(ctx.arg(1))
}

/// Times that somebody sets; the rest of what comes here has hooks with a path.
#[lsm(hook = "inode_setattr")]
pub fn inode_setattr(ctx: LsmContext) -> i32 {
    /// include/linux/fs.h: ATTR_ATIME_SET, ATTR_MTIME_SET, ATTR_TIMES_SET, ATTR_TOUCH.
    const TIMES: u32 = 1 << 7 | 1 << 8 | 1 << 16 | 1 << 17;
    // Each read where it is said: the verifier takes no argument whose number is computed.
    let (entry, change): (Pointer, Pointer) = if offset!(setattr_mapped) == 0 {
        (black_box(ctx.arg(0)), black_box(ctx.arg(1)))
    } else {
        (black_box(ctx.arg(1)), black_box(ctx.arg(2)))
    };
    match read::<u32>(change, offset!(iattr_valid)) {
        Ok(valid) if valid & TIMES == 0 => 0,
        _ => attribute(entry),
    }
}

/// A second name for a file: neither may be one that rules are about.
#[lsm(hook = "path_link")]
pub fn path_link(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    let (old, directory, new): (Pointer, Pointer, Pointer) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    let directory = At::path(directory);
    // Both are on one mount: the kernel makes no link from one to another.
    let old = directory.map(|directory| directory.beside(old));
    let new = directory.map(|directory| directory.beside(new));
    let restricted = match old.and_then(At::kind) {
        Ok(LINK) => LINKED,
        Ok(_) => CHANGED,
        Err(()) => return EACCES,
    };
    match judge_here(&rules, Act::Link, old, CHANGED) {
        0 => entry(&rules, Act::Link, directory, new, restricted),
        refused => refused,
    }
}

/// Neither name may be one that rules are about, and a directory keeps the rules that hold below it.
#[lsm(hook = "path_rename")]
pub fn path_rename(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    let (from, old): (Pointer, Pointer) = (ctx.arg(0), ctx.arg(1));
    let (to, new): (Pointer, Pointer) = (ctx.arg(2), ctx.arg(3));
    let (Ok(from), Ok(to)) = (At::path(from), At::path(to)) else { return EACCES };
    let (old, new) = (from.beside(old), to.beside(new));
    for directory in [from, to] {
        let refused = judge_here(&rules, Act::Rename, Ok(directory), right::READ_ONLY);
        if refused != 0 {
            return refused;
        }
    }
    let Ok(old_place) = old.place(&rules) else {
        return refuse(Act::Rename, old, FileReason::Internal, EACCES);
    };
    let refused = weigh(Act::Rename, old, old_place, CHANGED);
    if refused != 0 {
        return refused;
    }
    let Ok(new_place) = new.place(&rules) else {
        return refuse(Act::Rename, new, FileReason::Internal, EACCES);
    };
    let refused = weigh(Act::Rename, new, new_place, CHANGED);
    if refused != 0 {
        return refused;
    }
    // An exchange moves what is at the new name as well.
    let (Ok(old_kind), Ok(new_kind)) = (old.kind(), new.kind()) else {
        return refuse(Act::Rename, old, FileReason::Internal, EACCES);
    };
    let link = (old_kind == LINK && new_place.rights & right::NAMED != 0)
        || (new_kind == LINK && old_place.rights & right::NAMED != 0);
    if link {
        return refuse(Act::Rename, new, FileReason::Linked, EACCES);
    }
    if old_place.class != new_place.class && (old_kind == DIRECTORY || new_kind == DIRECTORY) {
        return refuse(Act::Rename, old, FileReason::Moved, EXDEV);
    }
    0
}

/// Every stage of a `#!` chain comes here with the file of that stage (fs/exec.c, `search_binary_handler`).
#[lsm(hook = "bprm_check_security")]
pub fn bprm_check_security(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    let bprm: Pointer = ctx.arg(0);
    let Ok(at) = At::program(bprm) else { return EACCES };
    let Ok((at, place)) = at.placed(&rules) else {
        return refuse(Act::Execute, at, FileReason::Internal, EACCES);
    };
    let refused = weigh(Act::Execute, at, place, right::DENIED);
    if refused != 0 || rules.listed == listed::NOTHING {
        return refused;
    }
    let named = place.rights & (right::EXECUTE | right::APPROVED) == right::EXECUTE
        || at.is_named().unwrap_or(false);
    if !named {
        return refuse(Act::Execute, at, FileReason::Nameless, EACCES);
    }
    if place.rights & right::EXECUTE == 0 {
        // A person would be asked about what has the same path inside.
        let reason = match at.is_inside() {
            Ok(true) => FileReason::NotListed,
            _ => FileReason::NotInside,
        };
        return refuse(Act::Execute, at, reason, EACCES);
    }
    let startable = if place.rights & right::APPROVED == 0 {
        listed_file(bprm)
    } else {
        approved(bprm, place.rights >> right::NUMBER_SHIFT)
    };
    match startable {
        Ok(once) => {
            if once {
                record_file(Act::Execute, at, FileReason::Once);
            }
            0
        }
        Err(reason) => refuse(Act::Execute, at, reason, EACCES),
    }
}

/// Never only once; what is not the file that was listed may not be executed at all.
#[inline(always)]
fn listed_file(bprm: Pointer) -> Result<bool, FileReason> {
    let file: Result<Pointer, ()> = read(bprm, offset!(bprm_file));
    let inode = file.and_then(|file| read::<Pointer>(file, offset!(file_inode)));
    let Ok(inode) = inode else { return Err(FileReason::Internal) };
    match identity::is_listed(inode) {
        0 => Err(FileReason::Replaced),
        _ => Ok(false),
    }
}

/// Whether it may be executed this once; what is not the file that a person allowed, as it was, may not at all.
#[inline(always)]
fn approved(bprm: Pointer, number: u32) -> Result<bool, FileReason> {
    // SAFETY: the value is copied at once.
    let Some(approved) = unsafe { APPROVED.get(&number) }.copied() else {
        return Err(FileReason::NotListed);
    };
    let found = read(bprm, offset!(bprm_file)).and_then(identity::of_file);
    let Ok(found) = found else { return Err(FileReason::Internal) };
    let fit = matches!(found.layer, layer::NONE | layer::IMAGE);
    if !fit || !found.identity.is(&approved.identity) {
        return Err(FileReason::Changed);
    }
    if approved.once == 0 {
        return Ok(false);
    }
    APPROVED.remove(&number).map(|()| true).map_err(|_| FileReason::NotListed)
}

#[lsm(hook = "mmap_file")]
pub fn mmap_file(ctx: LsmContext) -> i32 {
    let (file, protection): (Pointer, u64) = (ctx.arg(0), ctx.arg(2));
    if protection & PROT_EXEC == 0 || file.is_null() {
        return 0;
    }
    map(file)
}

/// What is mapped already comes to be executable.
#[lsm(hook = "file_mprotect")]
pub fn file_mprotect(ctx: LsmContext) -> i32 {
    /// In a mapping's flags (include/linux/mm.h): it was judged when it was made.
    const VM_EXEC: u64 = 4;
    let (mapping, protection): (Pointer, u64) = (ctx.arg(0), ctx.arg(2));
    if protection & PROT_EXEC == 0 || rules().is_none() {
        return 0;
    }
    let file: Result<Pointer, ()> = read(mapping, offset!(vma_file));
    let flags: Result<u64, ()> = read(mapping, offset!(vma_flags));
    match (file, flags) {
        (Ok(file), Ok(flags)) if file.is_null() || flags & VM_EXEC != 0 => 0,
        (Ok(file), Ok(_)) => map(file),
        _ => EACCES,
    }
}

/// Where only what is listed is started, nothing else is mapped to be executed but what is the image's, and what was started. Memory of no
/// file is free: it is what compilers at run time work in.
#[inline(always)]
fn map(file: Pointer) -> i32 {
    let Some(rules) = rules() else { return 0 };
    if rules.listed == listed::NOTHING {
        return 0;
    }
    let Ok(at) = At::opened(file) else { return EACCES };
    // One place that records: the verifier goes through it from each place that it is called from.
    match may_map(&rules, at) {
        Ok(()) => 0,
        Err(reason) => refuse(Act::Map, at, reason, EACCES),
    }
}

#[inline(always)]
fn may_map(rules: &Rules, at: At) -> Result<(), FileReason> {
    let internal = |()| FileReason::Internal;
    if identity::is_the_images(at, rules).map_err(internal)? {
        return Ok(());
    }
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let runs = At::running(task).and_then(At::inode);
    if runs.is_ok() && runs == at.inode() {
        return Ok(());
    }
    let (_, place) = at.placed(rules).map_err(internal)?;
    if place.rights & (right::EXECUTE | right::APPROVED | right::DENIED) == right::EXECUTE {
        return match identity::is_listed(at.inode().map_err(internal)?) {
            0 => Err(FileReason::Replaced),
            _ => Ok(()),
        };
    }
    match at.is_named() {
        Ok(true) => Err(FileReason::NotListed),
        _ => Err(FileReason::Nameless),
    }
}

#[lsm(hook = "unix_stream_connect")]
pub fn unix_stream_connect(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    // The socket that listens.
    reach(&rules, Ok(ctx.arg(1)))
}

/// A datagram on its way, or a socket that is told where its datagrams go.
#[lsm(hook = "unix_may_send")]
pub fn unix_may_send(ctx: LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    reach(&rules, socket(ctx.arg(1)))
}

/// A Unix socket is reached by its place without being opened. What it knows of that is the place where whoever bound it saw it: of one from
/// outside that says nothing here.
#[inline(always)]
fn reach(rules: &Rules, other: Result<Pointer, ()>) -> i32 {
    match other.and_then(At::bound) {
        Ok(Some(at)) => match at.is_inside() {
            Ok(true) => judge_here(rules, Act::Connect, Ok(at), right::DENIED),
            Ok(false) => refuse(Act::Connect, at, FileReason::Outside, EACCES),
            Err(()) => EACCES,
        },
        Ok(None) => 0,
        Err(()) => EACCES,
    }
}

/// Hooks with a `struct path` of the directory and the entry in it.
#[inline(always)]
fn child(ctx: &LsmContext, act: Act) -> i32 {
    let Some(rules) = rules() else { return 0 };
    let (directory, name): (Pointer, Pointer) = (ctx.arg(0), ctx.arg(1));
    let directory = At::path(directory);
    let at = directory.map(|directory| directory.beside(name));
    entry(&rules, act, directory, at, CHANGED)
}

/// An entry that comes or goes: its directory changes with it.
#[inline(always)]
fn entry(
    rules: &Rules,
    act: Act,
    directory: Result<At, ()>,
    at: Result<At, ()>,
    restricted: u32,
) -> i32 {
    match judge_here(rules, act, at, restricted) {
        0 => judge_here(rules, act, directory, right::READ_ONLY),
        refused => refused,
    }
}

/// Hooks with a `struct path` of what is changed.
#[inline(always)]
fn itself(ctx: &LsmContext) -> i32 {
    let Some(rules) = rules() else { return 0 };
    judge(&rules, Act::Change, At::path(ctx.arg(0)), CHANGED)
}

/// Hooks with an entry alone: by which mount somebody came to it they do not say, and any may be it. All of them are looked for at each call,
/// which whoever has no such rule is spared.
#[inline(always)]
fn attribute(entry: Pointer) -> i32 {
    let Some(rules) = rules() else { return 0 };
    if rules.ruled == 0 {
        return 0;
    }
    judge(&rules, Act::Change, Ok(At::entry(entry)), CHANGED)
}

/// Hooks with a `struct file`, to be read or written as it was opened.
#[inline(always)]
fn opened(rules: &Rules, act: Act, file: Pointer) -> i32 {
    let restricted = match changes(file) {
        Ok(false) => right::DENIED,
        Ok(true) => CHANGED,
        Err(()) => return EACCES,
    };
    match judge(rules, act, At::file(file), restricted) {
        0 => secrets::opened(rules, act, file),
        refused => refused,
    }
}

/// 0, or the refusal where the place has one of these rights taken away.
#[inline(always)]
fn judge(rules: &Rules, act: Act, at: Result<At, ()>, restricted: u32) -> i32 {
    let Ok(at) = at else { return EACCES };
    match at.placed(rules) {
        Ok((at, place)) => weigh(act, at, place, restricted),
        Err(()) => refuse(act, at, FileReason::Internal, EACCES),
    }
}

/// The same of what is come to by a path or by a directory's descriptor: by one from outside nothing comes or goes.
#[inline(always)]
fn judge_here(rules: &Rules, act: Act, at: Result<At, ()>, restricted: u32) -> i32 {
    let Ok(at) = at else { return EACCES };
    match at.place(rules) {
        Ok(place) => weigh(act, at, place, restricted),
        Err(()) => refuse(act, at, FileReason::Internal, EACCES),
    }
}

#[inline(always)]
fn weigh(act: Act, at: At, place: Place, restricted: u32) -> i32 {
    let taken = place.rights & restricted;
    if taken & right::DENIED != 0 {
        return refuse(act, at, FileReason::Denied, EACCES);
    }
    if taken & right::READ_ONLY != 0 {
        return refuse(act, at, FileReason::ReadOnly, EROFS);
    }
    if taken & right::NAMED != 0 {
        return refuse(act, at, FileReason::Linked, EACCES);
    }
    0
}

#[inline(always)]
pub fn refuse(act: Act, at: At, reason: FileReason, errno: i32) -> i32 {
    deny_file(act, at, reason);
    errno
}
