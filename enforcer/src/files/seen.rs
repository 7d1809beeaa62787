//! A program that a person is asked about: what is there when it is asked about is what an answer is about, byte for byte, and open to nobody
//! who could still write it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use enforcer_common::files::{Identity, layer};
use schema::program::ProgramName;
use sha2::{Digest as _, Sha256};

use super::enter::Inside;
use super::{FilesError, io_error, sys};
use crate::kernel::{Image, KernelError, Look};

/// Longest program that a person is asked about, in bytes: all of it is read.
pub const MAX_SEEN: u64 = 256 << 20;

/// A file as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// As the kernel's programs know it again.
    pub identity: Identity,
    /// Of its content: a page that somebody may write already changes without its times.
    digest: [u8; 32],
}

/// Why it is not what a person could allow.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("there is no file by that name")]
    NoFile,
    #[error("it has another name, by which it could be changed")]
    Named,
    #[error(
        "it is in the layer that the container itself writes, where nothing tells who could still write it: put it into the image or the workspace"
    )]
    OwnLayer,
    #[error("it has more than {MAX_SEEN} bytes")]
    Large,
    #[error("it is another file by now, or was changed")]
    Changed,
    #[error("something that could still write it has it open")]
    Written,
    #[error("{0}")]
    Files(#[from] FilesError),
    #[error("{0}")]
    Kernel(#[from] KernelError),
    #[error("cannot look at it: {0}")]
    Io(#[from] io::Error),
}

// === impl Seen ===

impl Seen {
    /// What is at that place in the mount namespace of `pid`.
    pub fn of(
        pid: u32,
        network: (u64, u64),
        program: &ProgramName,
        look: &Look,
    ) -> Result<Self, Unfit> {
        Self::in_file(&open(pid, network, program)?, look)
    }

    /// Whether it is what it was, and nobody has it open to write it. Nobody may open it so any more when this is asked.
    pub fn is_still(
        &self,
        pid: u32,
        network: (u64, u64),
        program: &ProgramName,
        look: &Look,
    ) -> Result<(), Unfit> {
        let file = open(pid, network, program)?;
        if sys::is_written(file.as_raw_fd())? {
            return Err(Unfit::Written);
        }
        match Self::in_file(&file, look)? == *self {
            true => Ok(()),
            false => Err(Unfit::Changed),
        }
    }

    fn in_file(file: &File, look: &Look) -> Result<Self, Unfit> {
        let found = look.at(file)?;
        if found.identity.names != 1 {
            return Err(Unfit::Named);
        }
        if !matches!(found.layer, layer::NONE | layer::IMAGE) {
            return Err(Unfit::OwnLayer);
        }
        let digest = digest(file, found.identity.size, MAX_SEEN)?;
        if look.at(file)? != found {
            return Err(Unfit::Changed);
        }
        Ok(Self {
            identity: found.identity,
            digest,
        })
    }
}

/// What the image is, in the mount namespace of `pid`, as long as nothing inside has begun.
pub fn image(pid: u32, network: (u64, u64), look: &Look) -> Result<Image, FilesError> {
    let root = Inside::of(pid, network)?.list(Path::new(""));
    let root = root.map_err(io_error("open", "the container's root"))?;
    let kernel = |error: KernelError| FilesError::Kernel(error.to_string());
    let found = look.at(&root).map_err(kernel)?;
    match found.layer {
        layer::NONE => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            let seconds = now.unwrap_or_default().as_secs();
            Ok(Image {
                device: found.identity.device,
                until: i64::try_from(seconds).unwrap_or_default(),
            })
        }
        layer::UNKNOWN => Err(FilesError::Layers),
        _ => Ok(Image::default()),
    }
}

fn open(pid: u32, network: (u64, u64), program: &ProgramName) -> Result<File, Unfit> {
    let inside = Inside::of(pid, network)?;
    let below = Path::new(program.path().unwrap_or_default());
    let there = inside.open(below).map_err(|_| Unfit::NoFile)?;
    // Opening what is no file may wait, or do something.
    if sys::kind(&there)? != libc::S_IFREG {
        return Err(Unfit::NoFile);
    }
    Ok(File::open(format!("/proc/self/fd/{}", there.as_raw_fd()))?)
}

/// Of so many bytes, and not more than `most`.
fn digest(file: &File, size: u64, most: u64) -> Result<[u8; 32], Unfit> {
    if size > most {
        return Err(Unfit::Large);
    }
    let mut hash = Sha256::new();
    let mut bytes = vec![0; 1 << 16];
    let mut rest = file.take(size.saturating_add(1));
    let mut length = 0;
    loop {
        match rest.read(&mut bytes)? {
            0 => break,
            n => {
                hash.update(&bytes[..n]);
                length += n as u64;
            }
        }
    }
    match length == size {
        true => Ok(hash.finalize().into()),
        false => Err(Unfit::Changed),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn all_of_a_program_is_read_and_of_a_longer_one_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        std::fs::write(&path, vec![7; 100_000]).unwrap();
        let read = |size, most| digest(&File::open(&path).unwrap(), size, most);
        let whole: [u8; 32] = Sha256::digest(vec![7; 100_000]).into();
        assert_eq!(read(100_000, 100_000).unwrap(), whole);
        assert!(matches!(read(100_000, 99_999), Err(Unfit::Large)));
        // It grew, or shrank, since its size was asked.
        assert!(matches!(read(99_999, 100_000), Err(Unfit::Changed)));
        assert!(matches!(read(100_001, 100_001), Err(Unfit::Changed)));
    }
}
