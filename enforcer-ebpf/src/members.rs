//! Members of the kernel's own structures: read at offsets that the loader takes from the running kernel's BTF. No pointer is followed.

use aya_ebpf::helpers::bpf_probe_read_kernel;
use enforcer_common::files::Offsets;

/// Filled in when the object is loaded. Volatile reads: the compiler must not take the zeroes for granted.
#[unsafe(no_mangle)]
pub static OFFSETS: Offsets = Offsets {
    task_nsproxy: 0,
    task_real_parent: 0,
    task_tgid: 0,
    nsproxy_mnt_ns: 0,
    mnt_ns_inum: 0,
    file_path: 0,
    file_mode: 0,
    file_flags: 0,
    path_mnt: 0,
    path_dentry: 0,
    dentry_parent: 0,
    dentry_inode: 0,
    dentry_sb: 0,
    dentry_seq: 0,
    dentry_name: 0,
    dentry_name_len: 0,
    dentry_hashed: 0,
    inode_mode: 0,
    vfsmount_root: 0,
    mount_mnt: 0,
    mount_parent: 0,
    mount_mountpoint: 0,
    mount_ns: 0,
    mount_id: 0,
    mount_next: 0,
    mount_linked: 0,
    mount_ring: 0,
    unix_path: 0,
    socket_sk: 0,
    bprm_file: 0,
    task_files: 0,
    files_fdt: 0,
    fdtable_fd: 0,
    file_inode: 0,
    inode_sb: 0,
    inode_ino: 0,
    inode_size: 0,
    inode_generation: 0,
    inode_names: 0,
    inode_changed: 0,
    inode_changed_nanos: 0,
    inode_upper: 0,
    sb_dev: 0,
    sb_magic: 0,
    sb_flags: 0,
    sb_mounts: 0,
    vfsmount_flags: 0,
    task_mm: 0,
    mm_exe_file: 0,
    vma_file: 0,
    vma_flags: 0,
    backing_path: 0,
    task_group_leader: 0,
    nsproxy_pid_ns: 0,
    pid_ns_reaper: 0,
    iattr_valid: 0,
    setattr_mapped: 0,
};

/// A pointer into the kernel. Never followed but by [`read`].
pub type Pointer = *const u8;

macro_rules! offset {
    ($member:ident) => {
        // SAFETY: a static of this object; volatile, because the loader writes it.
        unsafe { core::ptr::read_volatile(&raw const $crate::members::OFFSETS.$member) as usize }
    };
}
pub(crate) use offset;

/// A member of a kernel structure.
#[inline(always)]
pub fn read<T: Copy>(base: Pointer, offset: usize) -> Result<T, ()> {
    // SAFETY: the helper checks the address and fails where nothing can be read.
    unsafe { bpf_probe_read_kernel(base.wrapping_add(offset).cast::<T>()) }.map_err(|_| ())
}
