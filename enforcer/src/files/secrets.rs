//! The tmpfs with a session's secrets: mounted read-only in the container, and held here by a second mount of the same that is mounted
//! nowhere, through which files come, are replaced and go. With the namespace and our descriptor all of it is gone.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, ftruncate, unlinkat};
use schema::config::secret::DIRECTORY;

use super::enter::{Inside, Mount};
use super::{FilesError, io_error, sys};

/// What all files of a session may take, in bytes: the largest values twice, and what readers still hold of earlier ones.
const SIZE: usize = 8 << 20;
/// The same in files.
const INODES: usize = 1024;
/// A name that no secret has.
const NEW: &str = ".new";

/// Whose the files are.
pub type Owner = (u32, u32);

/// The secrets of one container.
#[derive(Debug)]
pub struct Mounted {
    /// The writable mount's root.
    root: OwnedFd,
    owner: Owner,
    /// Each with what it was before and somebody may have open.
    names: BTreeMap<String, Vec<OwnedFd>>,
}

fn failed(call: &'static str) -> impl FnOnce(io::Error) -> FilesError {
    io_error(call, DIRECTORY)
}

fn refused(call: &'static str) -> impl FnOnce(Errno) -> FilesError {
    move |errno| failed(call)(errno.into())
}

/// Below the container's root.
fn below() -> &'static Path {
    Path::new(DIRECTORY.trim_start_matches('/'))
}

impl Mounted {
    /// Puts files into the namespace of an init that waits, as it acts itself, and asks the kernel whether they are there.
    pub fn put_in_place<'a>(
        pid: u32,
        network: (u64, u64),
        owner: Owner,
        files: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<Self, FilesError> {
        let inside = Inside::of(pid, network)?;
        let mut mounted = Self::make(owner)?;
        for (name, value) in files {
            mounted.put(name, value)?;
        }
        sys::set_flags(&mounted.root, sys::RDONLY, false).map_err(failed("make read-only"))?;
        // The namespace's own /proc is another.
        let mounts = inside.mounts()?;
        let writable = inside.within(|| attach(&inside, &mounted.root, &mounts))?;
        let there = inside.open(below()).map_err(failed("open"))?;
        is_ours(&there)?;
        mounted.root = writable;
        Ok(mounted)
    }

    /// What an earlier run of this enforcer put there.
    pub fn take_up(pid: u32, network: (u64, u64), owner: Owner) -> Result<Self, FilesError> {
        let inside = Inside::of(pid, network)?;
        let there = inside.open(below()).map_err(failed("open"))?;
        is_ours(&there)?;
        let root = inside.within(|| writable(&there))?;
        let mut list = Dir::openat(
            &root,
            ".",
            OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
            Mode::empty(),
        )
        .map_err(refused("list"))?;
        let mut names = BTreeMap::new();
        for entry in list.iter() {
            let entry = entry.map_err(refused("list"))?;
            match entry.file_name().to_str() {
                Ok("." | "..") | Err(_) => {}
                Ok(name) => drop(names.insert(name.to_owned(), Vec::new())),
            }
        }
        Ok(Self { root, owner, names })
    }

    /// An empty one that is mounted nowhere.
    fn make(owner: Owner) -> Result<Self, FilesError> {
        let text = |value: String| {
            CString::new(value).map_err(|error| failed("describe")(io::Error::other(error)))
        };
        let (size, inodes) = (text(SIZE.to_string())?, text(INODES.to_string())?);
        let (uid, gid) = (text(owner.0.to_string())?, text(owner.1.to_string())?);
        let options = [
            (c"size", size.as_c_str()),
            (c"nr_inodes", &inodes),
            (c"mode", c"0500"),
            (c"uid", &uid),
            (c"gid", &gid),
        ];
        // Linux 6.4: never written to a disk.
        let wanted = [c"noswap"];
        let flags = sys::NOSUID | sys::NODEV | sys::NOEXEC;
        let root = sys::tmpfs(&options, &wanted, flags).map_err(failed("make"))?;
        Ok(Self {
            root,
            owner,
            names: BTreeMap::new(),
        })
    }

    /// A file, whole, in the place of one of that name: whoever has that open reads on in it.
    pub fn put(&mut self, name: &str, value: &[u8]) -> Result<(), FilesError> {
        let put = || -> Result<(), Errno> {
            match unlinkat(&self.root, NEW, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let file = openat(&self.root, NEW, flags, Mode::empty())?;
            let mut file = File::from(file);
            let written = file.write_all(value);
            written.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))?;
            let (uid, gid) = self.owner;
            fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            fchmod(&file, Mode::S_IRUSR)?;
            renameat(&self.root, NEW, &self.root, name)
        };
        let before = match self.names.contains_key(name) {
            true => Some(self.writes(name).map_err(io_error("open", name))?),
            false => None,
        };
        put().map_err(|errno| {
            io_error("write", format!("{DIRECTORY}/{name}"))(io::Error::from(errno))
        })?;
        let earlier = self.names.entry(name.to_owned()).or_default();
        earlier.extend(before);
        Ok(())
    }

    fn writes(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&self.root, name, flags, Mode::empty())?)
    }

    /// The files that are there, whoever put them.
    pub fn names(&self) -> Vec<String> {
        self.names.keys().cloned().collect()
    }

    /// Takes a file away, and its content, with what it was before, from whoever has it open; false where it is not there.
    pub fn remove(&mut self, name: &str) -> Result<bool, FilesError> {
        let Some(earlier) = self.names.get(name) else {
            return Ok(false);
        };
        let remove = || -> io::Result<()> {
            let file = self.writes(name)?;
            unlinkat(&self.root, name, UnlinkatFlags::NoRemoveDir)?;
            for version in earlier.iter().chain([&file]) {
                ftruncate(version.as_fd(), 0)?;
            }
            Ok(())
        };
        remove().map_err(io_error("remove", format!("{DIRECTORY}/{name}")))?;
        self.names.remove(name);
        Ok(true)
    }

    pub fn count(&self) -> usize {
        self.names.len()
    }
}

/// Mounts it in the namespace that the thread is in, and returns the mount that files are changed through.
fn attach(inside: &Inside, mount: &OwnedFd, mounts: &[Mount]) -> Result<OwnedFd, FilesError> {
    place(inside)?;
    keep(inside)?;
    let place = inside.list(below()).map_err(failed("open"))?;
    let on = sys::mount_of(&place).map_err(failed("look at the mount of"))?;
    if on.is_root {
        return Err(in_the_way("a mount"));
    }
    if mounts.iter().any(|mount| mount.id == on.id && mount.shared) {
        return Err(FilesError::Shared {
            path: DIRECTORY.to_owned(),
        });
    }
    sys::move_to(mount, &place).map_err(failed("mount at"))?;
    writable(mount)
}

/// The directory above is a mount, which nobody inside can move away.
fn keep(inside: &Inside) -> Result<(), FilesError> {
    let above = below().parent().unwrap_or(below());
    let directory = inside
        .list(above)
        .map_err(failed("open the directory of"))?;
    let on = sys::mount_of(&directory).map_err(failed("look at the mount of"))?;
    if on.is_root {
        return Ok(());
    }
    let clone = sys::clone_tree(&directory, true).map_err(failed("keep the directory of"))?;
    sys::move_to(&clone, &directory).map_err(failed("keep the directory of"))
}

/// A second mount of the same files, mounted nowhere; in the namespace that has the first.
fn writable(of: &OwnedFd) -> Result<OwnedFd, FilesError> {
    let clone = sys::clone_tree(of, false).map_err(failed("hold"))?;
    sys::make_writable(&clone).map_err(failed("hold"))?;
    Ok(clone)
}

/// An empty directory, made where there is none.
fn place(inside: &Inside) -> Result<OwnedFd, FilesError> {
    for path in [below().parent().unwrap_or(below()), below()] {
        match inside.list(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let above = inside.list(path.parent().unwrap_or(path));
                let above = above.map_err(failed("open the directory of"))?;
                let name = path.file_name().unwrap_or_default();
                let all = Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP | Mode::S_IROTH;
                mkdirat(&above, name, all | Mode::S_IXOTH).map_err(refused("create"))?;
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::ENOTDIR)) => {
                return Err(in_the_way("a link or a file"));
            }
            Err(error) => return Err(failed("open")(error)),
            Ok(_) => {}
        }
    }
    let directory = inside.list(below()).map_err(failed("open"))?;
    let entries = directory.try_clone().map_err(failed("list"))?;
    let mut entries = Dir::from_fd(entries).map_err(refused("list"))?;
    for entry in entries.iter() {
        let entry = entry.map_err(refused("list"))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            return Err(in_the_way("what is in that directory"));
        }
    }
    inside.open(below()).map_err(failed("open"))
}

fn in_the_way(what: &'static str) -> FilesError {
    FilesError::InTheWay {
        path: DIRECTORY.to_owned(),
        what,
    }
}

/// The kernel's word that it is a tmpfs, mounted there and read-only.
fn is_ours(there: &OwnedFd) -> Result<(), FilesError> {
    let not_held = |what| FilesError::NotHeld {
        path: DIRECTORY.to_owned(),
        what,
    };
    let mount = sys::mount_of(there).map_err(failed("look at the mount of"))?;
    let system = fstatfs(there).map_err(refused("look at"))?;
    if !mount.is_root || system.filesystem_type() != TMPFS_MAGIC {
        return Err(not_held("nothing of ours is mounted there"));
    }
    let flags = nix::sys::statvfs::fstatvfs(there).map_err(refused("look at"))?;
    let read_only = nix::sys::statvfs::FsFlags::ST_RDONLY;
    match flags.flags().contains(read_only) {
        true => Ok(()),
        false => Err(not_held("it can be written")),
    }
}
