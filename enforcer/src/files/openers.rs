//! Programs that alone may open a secret: which files they are when a container starts. Each is that very file from then on, as what a
//! person's answer is about is: another one at its place, a copy, or the same one changed is not the program.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use enforcer_common::files::{Identity, layer};
use policy::Secrets;
use schema::config::secret::DIRECTORY;

use super::enter::Inside;
use super::{FilesError, allowed, io_error, shown, sys};
use crate::kernel::{KernelError, Look};

/// As the programs in the kernel take it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Openers {
    /// Of the file system that the secrets' files are on.
    pub device: u32,
    /// Every secret's name, with its number; 0: whoever may read it may open it.
    pub secrets: Vec<(String, u32)>,
    /// By a secret's number.
    pub programs: Vec<(u32, Identity)>,
    /// Where these are, without a link: nobody inside changes them.
    pub files: BTreeSet<PathBuf>,
    /// Programs of a secret that are nowhere, or in the layer that the container writes.
    nowhere: Vec<String>,
}

// === impl Openers ===

impl Openers {
    /// In the mount namespace of `pid`, where the secrets' files are already; none where every program may open all of them.
    pub fn find(
        pid: u32,
        network: (u64, u64),
        secrets: &Secrets,
        look: &Look,
    ) -> Result<Option<Self>, FilesError> {
        if !secrets.are_gated() {
            return Ok(None);
        }
        let inside = Inside::of(pid, network)?;
        let kernel = |error: KernelError| FilesError::Kernel(error.to_string());
        let there = Path::new(DIRECTORY.trim_start_matches('/'));
        let there = inside.list(there).map_err(io_error("open", DIRECTORY))?;
        let mut openers = Self {
            device: look.at(&there).map_err(kernel)?.identity.device,
            ..Self::default()
        };
        for (number, secret) in (1..).zip(&secrets.all) {
            let gated = !secret.programs.is_empty();
            let own = if gated { number } else { 0 };
            openers.secrets.push((secret.name.clone(), own));
            for program in &secret.programs {
                let program = program.as_str();
                match identity(&inside, program, look)? {
                    Some((file, found)) => {
                        openers.programs.push((number, found));
                        openers.files.insert(file);
                    }
                    None => openers.nowhere.push(format!("{program} ({})", secret.name)),
                }
            }
        }
        Ok(Some(openers))
    }
}

impl fmt::Display for Openers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gated = self.secrets.iter().filter(|(_, number)| *number != 0);
        let gated: Vec<&str> = gated.map(|(name, _)| name.as_str()).collect();
        let found = self.programs.len();
        write!(f, "{} for {found} programs alone", gated.join(" "))?;
        if !self.nowhere.is_empty() {
            let nowhere = self.nowhere.join(" ");
            write!(f, "; not in the image or the workspace: {nowhere}")?;
        }
        Ok(())
    }
}

/// The file that a path leads to, links followed, and where it is.
fn identity(
    inside: &Inside,
    program: &str,
    look: &Look,
) -> Result<Option<(PathBuf, Identity)>, FilesError> {
    let failed = |call| io_error(call, program);
    let below = Path::new(program.trim_start_matches('/'));
    let Ok(there) = inside.reach(below) else {
        return Ok(None);
    };
    // Opening what is no file may wait, or do something.
    if sys::kind(&there).map_err(failed("look at"))? != libc::S_IFREG {
        return Ok(None);
    }
    let file = inside.follow(below).map_err(failed("follow"))?;
    if let Some(interpreter) = allowed::first_line(inside, &file)?.last() {
        return Err(FilesError::Script {
            path: program.to_owned(),
            interpreter: String::from_utf8_lossy(interpreter).into_owned(),
        });
    }
    if !is_its_own(below, &file) {
        return Err(FilesError::OtherName {
            path: program.to_owned(),
            file: shown(&file),
        });
    }
    let open = File::open(format!("/proc/self/fd/{}", there.as_raw_fd()));
    let found = look.at(&open.map_err(failed("open"))?);
    let found = found.map_err(|error| FilesError::Kernel(error.to_string()))?;
    if !matches!(found.layer, layer::NONE | layer::IMAGE) {
        return Ok(None);
    }
    match found.identity.names {
        1 => Ok(Some((file, found.identity))),
        names => Err(FilesError::ManyNames {
            path: program.to_owned(),
            names,
        }),
    }
}

/// Whether what a path leads to is that program: `python3` may be a link to `python3.11`, and `wget` none to what has other names too (`busybox`).
fn is_its_own(asked: &Path, file: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().as_bytes().to_owned();
    name(file).starts_with(&name(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_another_version_is_that_program_and_one_to_another_name_is_not() {
        for (asked, file, expected) in [
            ("usr/bin/git", "usr/bin/git", true),
            ("usr/bin/python3", "usr/bin/python3.11", true),
            ("usr/bin/java", "usr/lib/jvm/java-17/bin/java", true),
            ("usr/bin/nc", "usr/bin/nc.openbsd", true),
            ("usr/bin/wget", "bin/busybox", false),
            ("usr/bin/cat", "usr/bin/coreutils", false),
            ("usr/bin/python3.11", "usr/bin/python3", false),
            ("root/.cargo/bin/cargo", "root/.cargo/bin/rustup", false),
        ] {
            let own = is_its_own(Path::new(asked), Path::new(file));
            assert_eq!(own, expected, "{asked}");
        }
    }
}
