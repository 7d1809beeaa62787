//! The calls of the newer mount interface (mount_setattr(2), Linux 5.12; open_tree(2), move_mount(2), fsopen(2) and fsmount(2), 5.2), and what statx(2) says of a
//! mount (STATX_MNT_ID, 5.8). nix has none of them.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;

/// The file a descriptor stands for, in one kernel: device, inode.
pub type Identity = (u32, u32, u64);

/// Of the mount that a descriptor is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MountOf {
    pub id: u64,
    /// Whether the descriptor is that mount's root.
    pub is_root: bool,
}

fn path(text: &Path) -> io::Result<CString> {
    CString::new(text.as_os_str().as_bytes()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn checked(status: libc::c_long) -> io::Result<libc::c_long> {
    if status < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(status)
    }
}

fn owned(status: libc::c_long) -> io::Result<OwnedFd> {
    let fd = checked(status)?;
    // SAFETY: the kernel just gave us this descriptor; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A descriptor that stands for a file and opens nothing (O_PATH).
pub fn open_path(at: &Path) -> io::Result<OwnedFd> {
    let at = path(at)?;
    // SAFETY: a path that ends in NUL, alive for the call.
    let fd = unsafe { libc::open(at.as_ptr(), libc::O_PATH | libc::O_CLOEXEC) };
    owned(fd.into())
}

/// openat2(2), Linux 5.6: below `root`, whatever the path says; `resolve` besides.
pub fn open_below(root: &OwnedFd, below: &Path, flags: i32, resolve: u64) -> io::Result<OwnedFd> {
    let below = path(below)?;
    // SAFETY: all zero is a valid open_how.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = (flags | libc::O_CLOEXEC) as u64;
    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS | resolve;
    // SAFETY: a path that ends in NUL and an open_how of the size that is said, alive for the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            root.as_raw_fd(),
            below.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        )
    };
    owned(fd)
}

/// A copy of what is mounted at and, where asked for, below a file: mounted nowhere yet.
pub fn clone_tree(of: &OwnedFd, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    if recursive {
        flags |= libc::AT_RECURSIVE as u32;
    }
    // SAFETY: an empty path that ends in NUL, alive for the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, of.as_raw_fd(), c"".as_ptr(), flags) };
    let clone = owned(fd)?;
    change(&clone, 0, 0, libc::MS_PRIVATE, recursive)?;
    Ok(clone)
}

/// Sets flags of a mount, where asked for also of those below it.
pub fn set_flags(mount: &OwnedFd, set: u64, recursive: bool) -> io::Result<()> {
    change(mount, set, 0, 0, recursive)
}

/// Takes the flag of a mount away by which nothing is written on it; those below keep theirs.
pub fn make_writable(mount: &OwnedFd) -> io::Result<()> {
    change(mount, 0, RDONLY, 0, false)
}

/// Has a mount that is mounted nowhere yet show another owner for each file, as a user namespace maps them; not those below it (EINVAL: the
/// filesystem cannot; EPERM: it is not ours to say).
pub fn map_owners(mount: &OwnedFd, userns: &OwnedFd) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(userns.as_raw_fd()).unwrap_or(u64::MAX),
    };
    set(mount, &attr, libc::AT_EMPTY_PATH)
}

fn change(
    mount: &OwnedFd,
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    recursive: bool,
) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set,
        attr_clr,
        propagation,
        userns_fd: 0,
    };
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    set(mount, &attr, flags)
}

fn set(mount: &OwnedFd, attr: &libc::mount_attr, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: an empty path that ends in NUL and a mount_attr of the size that is said, alive for the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    checked(status).map(drop)
}

/// A filesystem in memory, mounted nowhere yet; `options` as in tmpfs(5), those of `wanted` where the kernel knows them.
pub fn tmpfs(options: &[(&CStr, &CStr)], wanted: &[&CStr], flags: u64) -> io::Result<OwnedFd> {
    // fsopen(2), fsconfig(2), fsmount(2): include/uapi/linux/mount.h
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const FSCONFIG_SET_FLAG: u32 = 0;
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    // SAFETY: a text that ends in NUL, alive for the call.
    let context =
        owned(unsafe { libc::syscall(libc::SYS_fsopen, c"tmpfs".as_ptr(), FSOPEN_CLOEXEC) })?;
    let configure = |command: u32, key: Option<&CStr>, value: Option<&CStr>| {
        let pointer = |text: Option<&CStr>| text.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: texts that end in NUL, alive for the call, or null where the command takes none.
        checked(unsafe {
            libc::syscall(
                libc::SYS_fsconfig,
                context.as_raw_fd(),
                command,
                pointer(key),
                pointer(value),
                0,
            )
        })
    };
    for (key, value) in options {
        configure(FSCONFIG_SET_STRING, Some(key), Some(value))?;
    }
    for key in wanted {
        let _ = configure(FSCONFIG_SET_FLAG, Some(key), None);
    }
    configure(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: fsmount takes three numbers, and returns a new descriptor or -1.
    owned(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            context.as_raw_fd(),
            FSMOUNT_CLOEXEC,
            flags,
        )
    })
}

/// Mounts a clone over a file.
pub fn move_to(clone: &OwnedFd, over: &OwnedFd) -> io::Result<()> {
    // SAFETY: two empty paths that end in NUL, alive for the call.
    let status = unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            clone.as_raw_fd(),
            c"".as_ptr(),
            over.as_raw_fd(),
            c"".as_ptr(),
            libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH,
        )
    };
    checked(status).map(drop)
}

pub fn identity(of: &OwnedFd) -> io::Result<Identity> {
    let stat = stat(of)?;
    Ok((stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino))
}

/// `S_IFMT` of a file.
pub fn kind(of: &OwnedFd) -> io::Result<u32> {
    Ok(u32::from(stat(of)?.stx_mode) & libc::S_IFMT)
}

/// Whose a file is: user, group.
pub fn owner(of: &OwnedFd) -> io::Result<(u32, u32)> {
    let stat = stat(of)?;
    Ok((stat.stx_uid, stat.stx_gid))
}

/// How many names a file has.
pub fn names(of: &OwnedFd) -> io::Result<u32> {
    Ok(stat(of)?.stx_nlink)
}

/// Whether anything has a file open, or mapped, that could write it: the kernel gives no read lease then (fcntl(2), F_SETLEASE; CAP_LEASE
/// for another user's file).
pub fn is_written(file: RawFd) -> io::Result<bool> {
    /// fcntl(2); libc has no name for it.
    const F_SETSIG: libc::c_int = 10;
    // Whoever breaks it meanwhile sends a signal that does nothing, instead of one that ends us.
    // SAFETY: fcntl with a descriptor and a number, three times; none touches memory of ours.
    unsafe {
        checked(libc::fcntl(file, F_SETSIG, libc::SIGURG).into())?;
        match checked(libc::fcntl(file, libc::F_SETLEASE, libc::F_RDLCK).into()) {
            Ok(_) => {
                checked(libc::fcntl(file, libc::F_SETLEASE, libc::F_UNLCK).into()).map(|_| false)
            }
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => Ok(true),
            Err(error) => Err(error),
        }
    }
}

pub fn mount_of(of: &OwnedFd) -> io::Result<MountOf> {
    let stat = stat(of)?;
    if stat.stx_mask & libc::STATX_MNT_ID == 0 {
        return Err(io::Error::other(
            "the kernel does not say which mount it is on",
        ));
    }
    Ok(MountOf {
        id: stat.stx_mnt_id,
        is_root: stat.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0,
    })
}

fn stat(of: &OwnedFd) -> io::Result<libc::statx> {
    // SAFETY: all zero is a valid statx.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path that ends in NUL and a statx, alive for the call.
    let status = unsafe {
        libc::statx(
            of.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT,
            libc::STATX_BASIC_STATS | libc::STATX_MNT_ID,
            &raw mut stat,
        )
    };
    checked(status.into())?;
    Ok(stat)
}
