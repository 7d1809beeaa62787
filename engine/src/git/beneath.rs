//! Reading in a directory that others may change meanwhile: no link is followed, nothing leads out of it, and no more is read than is
//! asked for (openat2(2), Linux 5.6).

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};

/// A directory that is open.
#[derive(Debug)]
pub struct Dir(OwnedFd);

impl Dir {
    /// By its absolute path, no part of which is a link.
    pub fn open(path: &Path) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        Ok(Self(openat2(AT_FDCWD, path, how)?))
    }

    /// Of what lies below it: a link is refused like one on the way.
    pub fn metadata(&self, path: &str) -> io::Result<Metadata> {
        File::from(self.at(path, OFlag::O_PATH)?).metadata()
    }

    pub fn is_dir(&self, path: &str) -> bool {
        self.metadata(path).is_ok_and(|meta| meta.is_dir())
    }

    /// Its own.
    pub fn own_metadata(&self) -> io::Result<Metadata> {
        self.metadata(".")
    }

    /// A file below it, whole: `None` where there is none.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.at(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK) {
            Ok(file) => File::from(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("it is larger than {limit} bytes")));
        }
        Ok(Some(bytes))
    }

    /// The same as text.
    pub fn text(&self, path: &str, limit: u64) -> io::Result<Option<String>> {
        let bytes = self.read(path, limit)?;
        let text = bytes.map(String::from_utf8).transpose();
        text.map_err(|_| io::Error::other("it is not UTF-8"))
    }

    fn at(&self, path: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        Ok(openat2(&self.0, path, how)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn nothing_is_read_through_a_link_nor_out_of_the_directory_nor_beyond_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/f"), "1234").unwrap();
        symlink("b", root.join("a/to")).unwrap();
        symlink("f", root.join("a/b/link")).unwrap();
        symlink("a", root.join("way")).unwrap();
        let a = Dir::open(&root.join("a")).unwrap();
        assert_eq!(a.text("b/f", 4).unwrap().as_deref(), Some("1234"));
        assert!(a.read("b/f", 3).is_err());
        assert!(a.read("none", 3).unwrap().is_none());
        for path in ["to/f", "b/link", "../a/b/f", "/etc/passwd", "b"] {
            assert!(a.read(path, 4).is_err(), "{path}");
        }
        assert!(a.metadata("b/link").is_err());
        assert!(Dir::open(&root.join("way")).is_err());
        assert!(Dir::open(&root.join("way/b")).is_err());
        let fifo = root.join("a/fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(a.read("fifo", 4).is_err());
    }
}
