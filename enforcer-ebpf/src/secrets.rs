//! Files of secrets that only some programs may open: by which file the calling task runs, as the kernel has its inode, not by any path. The
//! enforcer alone puts files there, each under its secret's name, so that what is replaced is held as what was there before.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    helpers::{bpf_get_current_task, generated::bpf_probe_read_kernel_str},
    macros::map,
    maps::HashMap,
};
use enforcer_common::files::{
    Act, FileReason, Identity, OPENER_ENTRIES, Opener, SECRET_ENTRIES, SECRET_NAME, layer,
};

use crate::{
    files::{EACCES, EROFS, refuse},
    identity,
    members::{Pointer, offset, read},
    place::{At, DIRECTORY, Rules, changes},
};

const WORDS: usize = SECRET_NAME / size_of::<u64>();

/// Every secret's name, with zeroes behind it, and its number: 0, whoever may read it may open it.
#[map]
static SECRETS: HashMap<[u64; WORDS], u32> =
    HashMap::with_max_entries(SECRET_ENTRIES, BPF_F_NO_PREALLOC);

/// Presence is the permission.
#[map]
static OPENERS: HashMap<Opener, u32> =
    HashMap::with_max_entries(OPENER_ENTRIES, BPF_F_NO_PREALLOC);

/// What a file is, besides a secret by its number. As wide as a register: of half of one the verifier does not learn what it was compared with.
const FREE: u64 = 0;
const NOT_READABLE: u64 = u64::MAX;
const WRITTEN: u64 = u64::MAX - 1;
/// On its way to its name.
const NO_NAME: u64 = u64::MAX - 2;

/// 0, or the refusal of what is opened or received.
#[inline(always)]
pub fn opened(rules: &Rules, act: Act, file: Pointer) -> i32 {
    if rules.secrets_device == 0 {
        return 0;
    }
    let (reason, errno) = match number(rules.secrets_device, file) {
        FREE => return 0,
        WRITTEN => (FileReason::ReadOnly, EROFS),
        NO_NAME => (FileReason::NotItsProgram, EACCES),
        NOT_READABLE => (FileReason::Internal, EACCES),
        number if runs(number as u32) != 0 => return 0,
        _ => (FileReason::NotItsProgram, EACCES),
    };
    match At::file(file) {
        Ok(at) => refuse(act, at, reason, errno),
        Err(()) => errno,
    }
}

/// Of the secret that a file is. Not inlined, as what follows: their stacks are not there while a path is walked.
#[inline(never)]
fn number(device: u32, file: Pointer) -> u64 {
    secret(device, file).unwrap_or(NOT_READABLE)
}

#[inline(always)]
fn secret(device: u32, file: Pointer) -> Result<u64, ()> {
    const S_IFMT: u16 = 0o170000;
    let inode: Pointer = read(file, offset!(file_inode))?;
    let sb: Pointer = read(inode, offset!(inode_sb))?;
    if read::<u32>(sb, offset!(sb_dev))? != device {
        return Ok(FREE);
    }
    if changes(file)? {
        return Ok(WRITTEN);
    }
    let mode: u16 = read(inode, offset!(inode_mode))?;
    if mode & S_IFMT == DIRECTORY {
        return Ok(FREE);
    }
    let (name, _) = At::file(file)?.name()?;
    let mut key = MaybeUninit::<[u64; WORDS]>::uninit();
    let words = key.as_mut_ptr().cast::<u64>();
    // Word by word, as a name in `place`.
    macro_rules! clear {
        ($($word:literal)*) => {
            // SAFETY: nine words are the array.
            unsafe { $(words.add($word).write_volatile(0);)* }
        };
    }
    const { assert!(WORDS == 9) };
    clear!(0 1 2 3 4 5 6 7 8);
    // SAFETY: as many bytes as there are; the helper checks the address it reads from, and ends the string with 0.
    let length = unsafe {
        bpf_probe_read_kernel_str(words.cast(), SECRET_NAME as u32, name.cast())
    };
    if length <= 0 {
        return Err(());
    }
    // SAFETY: all of it is written above, and the value is copied at once.
    Ok(unsafe { SECRETS.get(key.assume_init_ref()) }.map_or(NO_NAME, |number| u64::from(*number)))
}

/// Whether the calling task runs a program that this secret is for.
#[inline(never)]
fn runs(secret: u32) -> u32 {
    match program() {
        Ok(program) => {
            let opener = Opener { program, secret, _pad: 0 };
            // SAFETY: the value is not read.
            u32::from(unsafe { OPENERS.get(&opener) }.is_some())
        }
        Err(()) => 0,
    }
}

/// Of the image, or of no overlay: what a container writes may be written while it runs.
#[inline(always)]
fn program() -> Result<Identity, ()> {
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let memory: Pointer = read(task, offset!(task_mm))?;
    let found = identity::of_file(read(memory, offset!(mm_exe_file))?)?;
    match found.layer {
        layer::NONE | layer::IMAGE => Ok(found.identity),
        _ => Err(()),
    }
}
