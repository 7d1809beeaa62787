//! Where the running kernel keeps what the programs about files read.

use std::path::Path;

use enforcer_common::files::Offsets;

use crate::btf::{Btf, BtfError};

/// From the BTF that it shows.
pub(super) fn of_the_running_kernel() -> Result<Offsets, String> {
    let path = Path::new("/sys/kernel/btf/vmlinux");
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let btf = Btf::parse(&bytes).map_err(|e| e.to_string())?;
    offsets(&btf).map_err(|e| e.to_string())
}

fn offsets(btf: &Btf<'_>) -> Result<Offsets, BtfError> {
    let of = |structure, member| btf.offset(structure, member);
    let name = of("dentry", "d_name")?;
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
        unix_path: of("unix_sock", "path")?,
        socket_sk: of("socket", "sk")?,
        bprm_file: of("linux_binprm", "file")?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_running_kernel_has_the_members() {
        let offsets = of_the_running_kernel().unwrap();
        assert!(
            offsets.file_path < 4096 && offsets.task_nsproxy < 65536,
            "{offsets:?}"
        );
    }
}
