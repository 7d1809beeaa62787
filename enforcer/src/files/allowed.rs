//! From programs that may be started to their files, as they are when a container starts: a script brings what its first line names, which
//! the kernel starts in its place (fs/binfmt_script.c), and what `env` is told to look for there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use policy::{ProgramRight, ProgramRule};

use super::enter::{Inside, Mount};
use super::programs::{Place, directories, entry, places};
use super::{FilesError, io_error, shown, sys};

/// Bytes of a script's first line that the kernel reads (BINPRM_BUF_SIZE).
const FIRST_LINE: u64 = 256;
/// Most scripts behind one another that the kernel starts (fs/exec.c, `exec_binprm`).
const MAX_CHAIN: usize = 5;
/// Names that an account of it writes out.
const FEW: usize = 12;

/// What may be started, without a link and below the root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    pub files: BTreeSet<PathBuf>,
    /// What scripts among them bring, each with its script.
    brought: BTreeMap<PathBuf, PathBuf>,
    /// Names that are nowhere.
    nowhere: BTreeSet<String>,
    /// Names that are only where a session may have put them, and so are not meant.
    written: BTreeMap<String, PathBuf>,
}

// === impl Allowed ===

impl Allowed {
    pub(super) fn find(inside: &Inside, rules: &[ProgramRule]) -> Result<Self, FilesError> {
        let (directories, written) = unwritten(inside, directories(inside)?)?;
        let mut allowed = Self::default();
        for rule in rules {
            let find = |directories: &[PathBuf]| -> Result<Vec<PathBuf>, FilesError> {
                let places = places(inside, rule, ProgramRight::Allowed, directories)?;
                let files = places.into_iter().map(|place| entry(inside, place));
                let files: Vec<_> = files.collect::<Result<_, _>>()?;
                Ok(files.into_iter().flatten().map(|it| it.file).collect())
            };
            let found = find(&directories)?;
            if found.is_empty() {
                match find(&written)?.into_iter().next() {
                    Some(file) => drop(allowed.written.insert(rule.name.to_string(), file)),
                    None => drop(allowed.nowhere.insert(rule.name.to_string())),
                }
            }
            for file in found {
                allowed.add(inside, &directories, file, 0)?;
            }
        }
        Ok(allowed)
    }

    /// Its files, as they are kept.
    pub fn places(&self) -> Result<Vec<Place>, FilesError> {
        let files = self.files.iter();
        let places = files.map(|file| Place::new(file.clone(), "allowedBinaries"));
        places.collect()
    }

    fn add(
        &mut self,
        inside: &Inside,
        directories: &[PathBuf],
        file: PathBuf,
        depth: usize,
    ) -> Result<(), FilesError> {
        if !self.files.insert(file.clone()) || depth == MAX_CHAIN {
            return Ok(());
        }
        one_name(inside, &file)?;
        for name in first_line(inside, &file)? {
            let name = Path::new(OsStr::from_bytes(&name)).to_owned();
            let candidates = match name.strip_prefix("/") {
                Ok(below) => vec![below.to_owned()],
                // Of a relative one the kernel looks in the directory that it is started from, which is anybody's choice.
                Err(_) if name.components().count() > 1 => continue,
                Err(_) => directories.iter().map(|dir| dir.join(&name)).collect(),
            };
            for place in candidates {
                if let Some(found) = entry(inside, place)? {
                    if !self.files.contains(&found.file) {
                        self.brought.insert(found.file.clone(), file.clone());
                    }
                    self.add(inside, directories, found.file, depth + 1)?;
                    break;
                }
            }
        }
        Ok(())
    }
}

impl std::fmt::Display for Allowed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let few = |all: Vec<String>| match all.len() {
            n if n > FEW => format!("{} and {} more", all[..FEW].join(" "), n - FEW),
            _ => all.join(" "),
        };
        let files = self.files.iter().map(|file| shown(file)).collect();
        write!(f, "nothing is started but {}", few(files))?;
        if !self.brought.is_empty() {
            let brought = self.brought.iter();
            let brought = brought.map(|(file, by)| format!("{} by {}", shown(file), shown(by)));
            write!(f, "; brought by scripts: {}", few(brought.collect()))?;
        }
        if !self.nowhere.is_empty() {
            let nowhere = self.nowhere.iter().cloned().collect();
            write!(f, "; nowhere: {}", few(nowhere))?;
        }
        if !self.written.is_empty() {
            let written = self.written.iter();
            let written = written.map(|(name, file)| format!("{name} ({})", shown(file)));
            write!(
                f,
                "; not listed, because what runs inside could have put it there, unless its path is: {}",
                few(written.collect())
            )?;
        }
        Ok(())
    }
}

/// The directories in which a name means a program, the image's, and those in which an earlier session may have made one of that name. Whether they can
/// be written now says nothing: rules may have made them read-only.
fn unwritten(
    inside: &Inside,
    directories: Vec<PathBuf>,
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), FilesError> {
    let mounts = inside.mounts()?;
    let on = |path: &Path| {
        let on = inside.open(path).and_then(|file| sys::mount_of(&file));
        let id = on
            .map_err(io_error("look at the mount of", shown(path)))?
            .id;
        Ok::<_, FilesError>(mounts.iter().find(|mount| mount.id == id))
    };
    let root = on(Path::new(""))?;
    let (mut fine, mut written) = (Vec::new(), Vec::new());
    for directory in directories {
        let mount = on(&directory)?.zip(root);
        match mount.is_some_and(|(mount, root)| mount.is_of(root)) {
            true => fine.push(directory),
            false => written.push(directory),
        }
    }
    Ok((fine, written))
}

/// What is on a mount besides the image is written by whoever may write there, also by a second name of the same file. In the image a write by
/// one name makes a file of its own (overlayfs copies up), also where a directory of it was made a mount to stay in its place.
fn one_name(inside: &Inside, file: &Path) -> Result<(), FilesError> {
    let failed = || io_error("look at", shown(file));
    let open = |path: &Path| inside.open(path).map_err(failed());
    let found = open(file)?;
    let names = sys::names(&found).map_err(failed())?;
    if names < 2 {
        return Ok(());
    }
    let mount = |of| sys::mount_of(of).map_err(failed());
    let (on, root) = (mount(&found)?.id, mount(&open(Path::new(""))?)?.id);
    match on == root || shows_the_images(&inside.mounts()?, on, root) {
        true => Ok(()),
        false => Err(FilesError::Names {
            path: shown(file),
            names,
        }),
    }
}

/// Whether a mount, by its number, is of the image's own file system.
fn shows_the_images(mounts: &[Mount], on: u64, root: u64) -> bool {
    let listed = |id| mounts.iter().find(|mount| mount.id == id);
    listed(on)
        .zip(listed(root))
        .is_some_and(|(on, root)| on.is_of(root))
}

/// What the kernel starts in place of a script, and what `env` does then; nothing for what is no script.
pub(super) fn first_line(inside: &Inside, file: &Path) -> Result<Vec<Vec<u8>>, FilesError> {
    let failed = || io_error("read", shown(file));
    let found = inside.open(file).map_err(failed())?;
    if sys::kind(&found).map_err(failed())? != libc::S_IFREG {
        return Ok(Vec::new());
    }
    let mut text = Vec::new();
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
        .and_then(|file| file.take(FIRST_LINE).read_to_end(&mut text))
        .map_err(failed())?;
    Ok(interpreters(&text))
}

fn interpreters(text: &[u8]) -> Vec<Vec<u8>> {
    let Some(line) = text.strip_prefix(b"#!") else {
        return Vec::new();
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    let Some(first) = words.next() else {
        return Vec::new();
    };
    let mut found = vec![first.to_owned()];
    if Path::new(OsStr::from_bytes(first)).file_name() == Some(OsStr::new("env")) {
        let asked = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='));
        found.extend(asked.map(<[u8]>::to_vec));
    }
    found
}

/// The names of a path that is no pattern: the kernel's table is made of text, in which a `*` stands for others.
pub(super) fn text(file: &Path) -> Result<Vec<String>, FilesError> {
    file.components()
        .map(|name| {
            let name = name.as_os_str().to_str().filter(|name| !name.contains('*'));
            let name = name.ok_or_else(|| FilesError::Unspelt { path: shown(file) })?;
            Ok(name.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_the_image_that_is_a_mount_is_the_images_and_another_file_system_is_not() {
        let mount = |id, device: &str, root: &str| Mount {
            id,
            parent: 0,
            device: device.into(),
            root: root.into(),
            at: Vec::new(),
            read_only: false,
            noexec: false,
            shared: false,
            idmapped: false,
        };
        let mounts = [
            mount(1, "0:50", "/"),
            mount(2, "0:50", "/usr/bin"),
            mount(3, "8:1", "/home/a/ws"),
            mount(4, "0:51", "/usr/bin"),
            // A root that is a directory on the disk of the workspace.
            mount(5, "8:1", "/var/lib/engine/1"),
        ];
        for (on, root, expected) in [
            (2, 1, true),
            (3, 1, false),
            (4, 1, false),
            (3, 5, false),
            (9, 1, false),
            (2, 9, false),
        ] {
            let found = shows_the_images(&mounts, on, root);
            assert_eq!(found, expected, "{on} in {root}");
        }
    }

    #[test]
    fn a_script_names_what_is_started_in_its_place_and_what_env_looks_for() {
        for (text, expected) in [
            ("#!/bin/sh\nx", &["/bin/sh"][..]),
            ("#! /bin/sh -e\n", &["/bin/sh"]),
            ("#!/usr/bin/env node\n", &["/usr/bin/env", "node"]),
            (
                "#!/usr/bin/env -S A=1 node --x\n",
                &["/usr/bin/env", "node"],
            ),
            ("#!/usr/bin/env", &["/usr/bin/env"]),
            ("#!", &[]),
            ("#!\n/bin/sh", &[]),
            ("\u{7f}ELF", &[]),
            ("", &[]),
        ] {
            let found = interpreters(text.as_bytes());
            let expected: Vec<Vec<u8>> = expected
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }
}
