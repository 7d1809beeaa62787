//! A program that a person is asked about: what is there when it is asked about is what an answer is about, unchanged and open to nobody
//! who could still write it.

use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use schema::program::ProgramName;

use super::enter::Inside;
use super::{FilesError, sys};

/// A file as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    identity: sys::Identity,
    /// When its content, its names or its rights changed last.
    changed: (i64, u32),
    size: u64,
}

/// Why it is not what a person could allow.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    #[error("there is no file by that name")]
    NoFile,
    #[error("it has another name, by which it could be changed")]
    Named,
    #[error("it is another file by now, or was changed")]
    Changed,
    #[error("something that could still write it has it open")]
    Written,
    #[error("{0}")]
    Files(#[from] FilesError),
    #[error("cannot look at it: {0}")]
    Io(#[from] io::Error),
}

// === impl Seen ===

impl Seen {
    /// What is at that place in the mount namespace of `pid`.
    pub fn of(pid: u32, network: (u64, u64), program: &ProgramName) -> Result<Self, Unfit> {
        let inside = Inside::of(pid, network)?;
        let below = Path::new(program.path().unwrap_or_default());
        let file = inside.open(below).map_err(|_| Unfit::NoFile)?;
        let now = sys::state(&file)?;
        if now.kind != libc::S_IFREG {
            return Err(Unfit::NoFile);
        }
        if now.links != 1 {
            return Err(Unfit::Named);
        }
        Ok(Self {
            identity: now.identity,
            changed: now.changed,
            size: now.size,
        })
    }

    /// Whether it is what it was, and nobody has it open to write it. Nobody may open it so any more when this is asked.
    pub fn is_still(
        &self,
        pid: u32,
        network: (u64, u64),
        program: &ProgramName,
    ) -> Result<(), Unfit> {
        let inside = Inside::of(pid, network)?;
        let below = Path::new(program.path().unwrap_or_default());
        let file = inside.read(below).map_err(|_| Unfit::NoFile)?;
        if sys::is_written(file.as_raw_fd())? {
            return Err(Unfit::Written);
        }
        match Self::of(pid, network, program)? == *self
            && sys::state(&file)?.identity == self.identity
        {
            true => Ok(()),
            false => Err(Unfit::Changed),
        }
    }
}
