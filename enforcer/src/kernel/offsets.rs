//! Where the running kernel keeps what the programs about files read.

use std::path::Path;

use enforcer_common::files::Offsets;

use crate::btf::{Btf, BtfError};

fn shown() -> Result<Vec<u8>, String> {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// The hooks about access lists that LSM programs have there: all of them, or none where the kernel keeps access lists among the attributes.
pub(super) fn access_lists(names: &[&'static str]) -> Result<Vec<&'static str>, String> {
    let bytes = shown()?;
    let btf = Btf::parse(&bytes).map_err(|e| e.to_string())?;
    let apart = btf.offset("inode_operations", "get_inode_acl").is_ok();
    all_or_none(names, apart, |hook| {
        btf.parameters(&format!("bpf_lsm_{hook}")).is_some()
    })
}

/// `apart`: they are no attributes, and nobody else is asked about them.
fn all_or_none(
    names: &[&'static str],
    apart: bool,
    has: impl Fn(&str) -> bool,
) -> Result<Vec<&'static str>, String> {
    match names.iter().find(|hook| !has(hook)) {
        None => Ok(names.to_vec()),
        Some(hook) if apart => Err(format!("it has no LSM hook {hook}")),
        Some(_) => Ok(Vec::new()),
    }
}

/// From the BTF that it shows.
pub(super) fn of_the_running_kernel() -> Result<Offsets, String> {
    let bytes = shown()?;
    let btf = Btf::parse(&bytes).map_err(|e| e.to_string())?;
    let upper = overlay_upper(&btf);
    let found = offsets(&btf).map_err(|e| e.to_string())?;
    Ok(Offsets {
        inode_upper: upper.unwrap_or(0),
        ..found
    })
}

/// From an inode of overlayfs to its file in the layer that is written (fs/overlayfs/ovl_entry.h), where the kernel or its module says where
/// that is. Where neither does, nobody is asked about what an overlay has.
fn overlay_upper(kernel: &Btf<'_>) -> Option<u32> {
    let between = |btf: &Btf<'_>| {
        let inode = btf.offset("ovl_inode", "vfs_inode").ok()?;
        let upper = btf.offset("ovl_inode", "__upperdentry").ok()?;
        upper.checked_sub(inode)
    };
    between(kernel).or_else(|| {
        let bytes = std::fs::read("/sys/kernel/btf/overlay").ok()?;
        between(&Btf::of_module(kernel, &bytes).ok()?)
    })
}

/// Seconds and nanoseconds of an inode's last change: in one member before Linux 6.11, which was called otherwise before 6.6.
fn changed(btf: &Btf<'_>) -> Result<(u32, u32), BtfError> {
    let of = |member| btf.offset("inode", member);
    if let Ok(seconds) = of("i_ctime_sec") {
        return Ok((seconds, of("i_ctime_nsec")?));
    }
    let time = of("__i_ctime").or_else(|_| of("i_ctime"))?;
    let of = |member| btf.offset("timespec64", member);
    Ok((time + of("tv_sec")?, time + of("tv_nsec")?))
}

/// From a mount to the next of the same file system, where such a link leads to, and whether they are a ring (until Linux 6.18).
fn mounts(btf: &Btf<'_>) -> Result<(u32, u32, u32), BtfError> {
    match btf.offset("mount", "mnt_next_for_sb") {
        Ok(next) => Ok((next, 0, 0)),
        Err(_) => {
            let ring = btf.offset("mount", "mnt_instance")?;
            Ok((ring + btf.offset("list_head", "next")?, ring, 1))
        }
    }
}

fn offsets(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    let of = |structure, member| btf.offset(structure, member);
    let name = of("dentry", "d_name")?;
    let (inode_changed, inode_changed_nanos) = changed(btf)?;
    let (mount_next, mount_linked, mount_ring) = mounts(btf)?;
    Ok(Offsets {
        task_nsproxy: of("task_struct", "nsproxy")?,
        task_real_parent: of("task_struct", "real_parent")?,
        task_tgid: of("task_struct", "tgid")?,
        nsproxy_mnt_ns: of("nsproxy", "mnt_ns")?,
        mnt_ns_inum: of("mnt_namespace", "ns")? + of("ns_common", "inum")?,
        file_path: of("file", "f_path")?,
        file_mode: of("file", "f_mode")?,
        file_flags: of("file", "f_flags")?,
        path_mnt: of("path", "mnt")?,
        path_dentry: of("path", "dentry")?,
        dentry_parent: of("dentry", "d_parent")?,
        dentry_inode: of("dentry", "d_inode")?,
        dentry_sb: of("dentry", "d_sb")?,
        dentry_seq: of("dentry", "d_seq")?,
        dentry_name: name + of("qstr", "name")?,
        dentry_name_len: name + of("qstr", "len")?,
        dentry_hashed: of("dentry", "d_hash")? + of("hlist_bl_node", "pprev")?,
        inode_mode: of("inode", "i_mode")?,
        vfsmount_root: of("vfsmount", "mnt_root")?,
        mount_mnt: of("mount", "mnt")?,
        mount_parent: of("mount", "mnt_parent")?,
        mount_mountpoint: of("mount", "mnt_mountpoint")?,
        mount_ns: of("mount", "mnt_ns")?,
        mount_id: of("mount", "mnt_id")?,
        mount_next,
        mount_linked,
        mount_ring,
        unix_path: of("unix_sock", "path")?,
        socket_sk: of("socket", "sk")?,
        bprm_file: of("linux_binprm", "file")?,
        task_files: of("task_struct", "files")?,
        files_fdt: of("files_struct", "fdt")?,
        fdtable_fd: of("fdtable", "fd")?,
        file_inode: of("file", "f_inode")?,
        inode_sb: of("inode", "i_sb")?,
        inode_ino: of("inode", "i_ino")?,
        inode_size: of("inode", "i_size")?,
        inode_generation: of("inode", "i_generation")?,
        inode_names: of("inode", "i_nlink")?,
        inode_changed,
        inode_changed_nanos,
        inode_upper: 0,
        sb_dev: of("super_block", "s_dev")?,
        sb_magic: of("super_block", "s_magic")?,
        sb_flags: of("super_block", "s_flags")?,
        sb_mounts: of("super_block", "s_mounts")?,
        vfsmount_flags: of("vfsmount", "mnt_flags")?,
        task_mm: of("task_struct", "mm")?,
        mm_exe_file: of("mm_struct", "exe_file")?,
        vma_file: of("vm_area_struct", "vm_file")?,
        vma_flags: of("vm_area_struct", "vm_flags")?,
        backing_path: of("backing_file", "user_path").unwrap_or(0),
        task_group_leader: of("task_struct", "group_leader")?,
        nsproxy_pid_ns: of("nsproxy", "pid_ns_for_children")?,
        pid_ns_reaper: of("pid_namespace", "child_reaper")?,
        iattr_valid: of("iattr", "ia_valid")?,
        // A kernel without LSM programs may not have it.
        setattr_mapped: u32::from(btf.parameters("bpf_lsm_inode_setattr") == Some(3)),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_kernel_that_keeps_access_lists_apart_has_their_hooks_or_is_refused() {
        let names = ["inode_set_acl", "inode_remove_acl"];
        let found = |apart, has: &[&str]| all_or_none(&names, apart, |hook| has.contains(&hook));
        assert_eq!(found(true, &names).unwrap(), names);
        assert_eq!(found(false, &[]).unwrap(), [""; 0]);
        assert_eq!(
            found(true, &names[..1]).unwrap_err(),
            "it has no LSM hook inode_remove_acl"
        );
        assert!(found(true, &[]).is_err());
    }

    #[test]
    fn the_running_kernel_has_the_members() {
        let offsets = of_the_running_kernel().unwrap();
        assert!(
            offsets.file_path < 4096 && offsets.task_nsproxy < 65536,
            "{offsets:?}"
        );
    }
}
