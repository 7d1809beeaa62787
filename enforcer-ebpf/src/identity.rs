//! Which file it is, beside where it is: what an answer of a person's is about is told by the kernel's own numbers of its inode, the time of
//! its last change among them, which nobody inside can set back. The enforcer has them of a descriptor of its own (`look`), the hook of what is
//! being started.

use aya_ebpf::{
    EbpfContext as _,
    helpers::bpf_get_current_task,
    bindings::BPF_F_NO_PREALLOC,
    macros::{map, raw_tracepoint},
    maps::{Array, HashMap},
    programs::RawTracePointContext,
};
use enforcer_common::files::{Identity, Inode, Looked, PROGRAM_ENTRIES, layer};

use crate::{
    members::{Pointer, offset, read},
    place::{At, Rules},
};

/// Element 0: what was looked at last.
#[map]
static LOOKED: Array<Looked> = Array::with_max_entries(1, 0);

/// The files that a list of programs names, as they were found when the container began. Presence is what counts.
#[map]
static PROGRAMS: HashMap<Inode, u32> =
    HashMap::with_max_entries(PROGRAM_ENTRIES, BPF_F_NO_PREALLOC);

/// `s_magic` of overlayfs (include/uapi/linux/magic.h).
const OVERLAYFS: u64 = 0x794c_7630;

/// Looks at a descriptor of the calling process, by its number. Never attached: the enforcer has it run once (BPF_PROG_TEST_RUN, Linux
/// 5.10).
#[raw_tracepoint(tracepoint = "sys_enter")]
pub fn look(ctx: RawTracePointContext) -> i32 {
    // SAFETY: whoever has it run hands eight bytes, which the kernel checks.
    let descriptor = unsafe { *ctx.as_ptr().cast::<u64>() };
    match opened(descriptor).and_then(of_file) {
        Ok(looked) => match LOOKED.set(0, looked, 0) {
            Ok(()) => 0,
            Err(_) => -1,
        },
        Err(()) => -1,
    }
}

/// The `struct file` of a descriptor of the calling process.
#[inline(always)]
fn opened(descriptor: u64) -> Result<Pointer, ()> {
    // SAFETY: the helper takes no argument.
    let task = unsafe { bpf_get_current_task() } as Pointer;
    let files: Pointer = read(task, offset!(task_files))?;
    let table: Pointer = read(files, offset!(files_fdt))?;
    let all: Pointer = read(table, offset!(fdtable_fd))?;
    read(all, descriptor as usize * size_of::<Pointer>())
}

/// What is known of the file that a `struct file` is open on.
#[inline(always)]
pub fn of_file(file: Pointer) -> Result<Looked, ()> {
    of_inode(read(file, offset!(file_inode))?)
}

#[inline(always)]
pub fn of_inode(inode: Pointer) -> Result<Looked, ()> {
    /// From Linux 6.13 on a bit above the nanoseconds says that somebody asked for them.
    const NANOS: u32 = (1 << 30) - 1;
    let sb: Pointer = read(inode, offset!(inode_sb))?;
    let nanos: u32 = read(inode, offset!(inode_changed_nanos))?;
    let identity = Identity {
        inode: read(inode, offset!(inode_ino))?,
        size: read(inode, offset!(inode_size))?,
        changed: read(inode, offset!(inode_changed))?,
        changed_nanos: nanos & NANOS,
        device: read(sb, offset!(sb_dev))?,
        generation: read(inode, offset!(inode_generation))?,
        names: read(inode, offset!(inode_names))?,
    };
    Ok(Looked { identity, layer: layer_of(inode, sb)?, _pad: 0 })
}

/// Whether an inode is one that is listed: not 0. Not inlined, so that its stack is not there while a path is walked.
#[inline(never)]
pub fn is_listed(inode: Pointer) -> u32 {
    match file(inode) {
        // SAFETY: the value is not read.
        Ok(file) => u32::from(unsafe { PROGRAMS.get(&file) }.is_some()),
        Err(()) => 0,
    }
}

#[inline(always)]
fn file(inode: Pointer) -> Result<Inode, ()> {
    let sb: Pointer = read(inode, offset!(inode_sb))?;
    Ok(Inode {
        number: read(inode, offset!(inode_ino))?,
        device: read(sb, offset!(sb_dev))?,
        generation: read(inode, offset!(inode_generation))?,
    })
}

/// In which layer of an overlay it is, of [`layer`]. A mapping of a file that a container wrote is one of another inode: neither leases nor times
/// tell of one that could write it still (fs/overlayfs/file.c, `ovl_mmap`).
#[inline(always)]
fn layer_of(inode: Pointer, sb: Pointer) -> Result<u32, ()> {
    let magic: u64 = read(sb, offset!(sb_magic))?;
    if magic != OVERLAYFS {
        return Ok(layer::NONE);
    }
    if offset!(inode_upper) == 0 {
        return Ok(layer::UNKNOWN);
    }
    let upper: Pointer = read(inode, offset!(inode_upper))?;
    Ok(if upper.is_null() { layer::IMAGE } else { layer::OWN })
}

/// Whether nobody inside wrote it: in a layer of the image's, on what nobody here writes, or not changed since before anything began.
#[inline(always)]
pub fn is_the_images(at: At, rules: &Rules) -> Result<bool, ()> {
    /// include/linux/fs.h
    const SB_RDONLY: u64 = 1;
    if at.is_read_only()? {
        return Ok(true);
    }
    let inode = at.inode()?;
    let found = of_inode(inode)?;
    let sb: Pointer = read(inode, offset!(inode_sb))?;
    let flags: u64 = read(sb, offset!(sb_flags))?;
    let before = rules.image_device != 0
        && found.identity.device == rules.image_device
        && found.identity.changed < rules.image_until;
    Ok(found.layer == layer::IMAGE || flags & SB_RDONLY != 0 || before)
}
