//! What is attached, asked of the kernel: BPF_PROG_QUERY on a cgroup or a network namespace (bpf(2), kernel include/uapi/linux/bpf.h). aya has no
//! public call for it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _};

/// Attach types of cgroup programs (`enum bpf_attach_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    SkbEgress = 1,
    SockCreate = 2,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
}

impl AttachType {
    /// Whether programs here may rewrite the address they are asked about.
    pub fn rewrites(self) -> bool {
        !matches!(self, Self::SkbEgress | Self::SockCreate)
    }
}

const BPF_PROG_QUERY: libc::c_long = 16;
/// Programs that run for the cgroup, its ancestors' included.
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
/// More programs at one hook than the kernel admits (BPF_CGROUP_MAX_PROGS).
const MAX_PROGRAMS: usize = 64;

#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    _pad: u32,
}

/// Ids of the programs that run at this hook of this cgroup, in order.
pub fn attached_programs(cgroup: &File, attach: AttachType) -> io::Result<Vec<u32>> {
    programs(cgroup, attach as u32, BPF_F_QUERY_EFFECTIVE)
}

/// Ids of the sk_lookup programs of this network namespace, in order (kernel `netns_bpf_prog_query`).
pub fn steering_programs(netns: &impl AsFd) -> io::Result<Vec<u32>> {
    const BPF_SK_LOOKUP: u32 = 36;
    programs(netns, BPF_SK_LOOKUP, 0)
}

fn programs(target: &impl AsFd, attach_type: u32, query_flags: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0u32; MAX_PROGRAMS];
    let mut attr = QueryAttr {
        target_fd: target.as_fd().as_raw_fd() as u32,
        attach_type,
        query_flags,
        attach_flags: 0,
        prog_ids: (&raw mut ids) as u64,
        prog_cnt: MAX_PROGRAMS as u32,
        _pad: 0,
    };
    // SAFETY: the attribute and the array it points to live across the call; the count bounds what is written.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_QUERY,
            &raw mut attr,
            size_of::<QueryAttr>(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ids[..(attr.prog_cnt as usize).min(MAX_PROGRAMS)].to_vec())
}

/// How often the kernel left a program out because it was running already on that processor (`bpf_prog_info.recursion_misses`).
pub fn missed(program: u32) -> io::Result<u64> {
    const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
    /// Up to and with `recursion_misses`, the 27th of eight bytes (include/uapi/linux/bpf.h).
    const INFO_WORDS: usize = 27;
    #[repr(C)]
    struct IdAttr {
        id: u32,
        _next_id: u32,
        _open_flags: u32,
    }
    #[repr(C)]
    struct InfoAttr {
        fd: u32,
        length: u32,
        info: u64,
    }
    let mut attr = IdAttr {
        id: program,
        _next_id: 0,
        _open_flags: 0,
    };
    // SAFETY: the attribute lives across the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_GET_FD_BY_ID,
            &raw mut attr,
            size_of::<IdAttr>(),
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just given us and nobody else knows.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) };
    let mut info = [0u64; INFO_WORDS];
    let mut attr = InfoAttr {
        fd: fd.as_raw_fd() as u32,
        length: size_of_val(&info) as u32,
        info: (&raw mut info) as u64,
    };
    // SAFETY: the attribute and what it points to live across the call; the length bounds what is written.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            &raw mut attr,
            size_of::<InfoAttr>(),
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(info[INFO_WORDS - 1])
}
