//! From programs that are denied to the places that are masked, as they are when a container starts. A name is looked for where the
//! container's own `PATH` and the usual directories say. Its file is masked with the other names of it there; where these are other
//! programs (one file that is many, as busybox is, or what a distribution lets choose), the name's own place alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use policy::{FileRight, ProgramRight, ProgramRule};
use schema::program::{DIRECTORIES, ProgramName};
use serde::{Deserialize, Serialize};

use super::enter::Inside;
use super::find::{Found, PATIENCE};
use super::{FilesError, MAX_LOOKED_AT, MAX_MOUNTS, When, io_error, shown, sys};

/// Most directories that programs are looked for in.
pub const MAX_DIRECTORIES: usize = 256;
/// Names that an account of it writes out.
const FEW: usize = 12;

/// A place that is masked, or that may be started. The path is below the container's root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub(super) path: PathBuf,
    /// Where the rule was written.
    origin: String,
}

/// What became of the rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked {
    pub places: Vec<Place>,
    /// Programs that are nowhere.
    nowhere: BTreeSet<String>,
    /// Other names of a file that is masked at one name alone.
    left: BTreeSet<PathBuf>,
}

/// One entry of a directory that programs are in.
pub(super) struct Entry {
    place: PathBuf,
    /// Where it leads.
    pub(super) file: PathBuf,
    identity: sys::Identity,
    /// The mount that the file is on.
    mount: u64,
}

// === impl Place ===

impl Place {
    pub(super) fn new(path: PathBuf, origin: &str) -> Result<Self, FilesError> {
        let origin = origin.to_owned();
        let place = Self { path, origin };
        place.is_text().map(|()| place)
    }

    /// They are kept as text.
    fn is_text(&self) -> Result<(), FilesError> {
        match self.path.to_str() {
            Some(_) => Ok(()),
            None => Err(io_error("keep", shown(&self.path))(io::Error::other(
                "its name is no text",
            ))),
        }
    }

    /// Below the root, without a link.
    pub fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Whether it is where that program is.
    pub fn is_at(&self, program: &ProgramName) -> bool {
        program.path().map(Path::new) == Some(&self.path)
    }
}

// === impl Masked ===

impl Masked {
    /// The places of what `rules` deny in the mount namespace of `pid`, before anything of it is mounted.
    pub fn find(pid: u32, network: (u64, u64), rules: &[ProgramRule]) -> Result<Self, FilesError> {
        if rules.is_empty() {
            return Ok(Self::default());
        }
        let inside = Inside::of(pid, network)?;
        let directories = directories(&inside)?;
        let until = Instant::now() + PATIENCE;
        let mut masked = Self::default();
        let (mut entries, mut denied) = (Vec::new(), BTreeMap::new());
        for rule in rules {
            let before = entries.len();
            for place in places(&inside, rule, ProgramRight::Denied, &directories)? {
                if let Some(entry) = entry(&inside, place)? {
                    denied.insert(entry.place.clone(), rule);
                    entries.push(entry);
                }
            }
            if entries.len() == before {
                masked.nowhere.insert(rule.name.to_string());
            }
            if denied.len() > MAX_MOUNTS {
                return Err(FilesError::TooMany {
                    found: denied.len(),
                });
            }
        }
        let files: BTreeSet<sys::Identity> = entries.iter().map(|entry| entry.identity).collect();
        let others = named(&inside, &directories, &files, &denied, until)?;
        for own in &entries {
            let others: Vec<&Entry> = others
                .iter()
                .filter(|other| other.identity == own.identity)
                .collect();
            let Some(rule) = denied.get(&own.place) else {
                continue;
            };
            masked.mask(own, &others, rule);
        }
        masked.places.sort_by(|a, b| a.path.cmp(&b.path));
        masked.places.dedup_by(|a, b| a.path == b.path);
        masked.places.iter().try_for_each(Place::is_text)?;
        Ok(masked)
    }

    fn mask(&mut self, own: &Entry, others: &[&Entry], rule: &ProgramRule) {
        let mut add = |path: &Path| {
            self.places.push(Place {
                path: path.to_owned(),
                origin: rule.origin.to_string(),
            });
        };
        // What leads to the denied place itself goes with it.
        let apart = others.iter().filter(|other| other.file != own.place);
        let (apart, is_link): (Vec<_>, _) = (apart.collect(), own.file != own.place);
        if apart.iter().all(|other| is_akin(&own.place, &other.place)) {
            add(&own.file);
            apart.iter().for_each(|other| add(&other.file));
            return;
        }
        add(&own.place);
        let file = is_link.then(|| own.file.clone());
        self.left.extend(file);
        self.left
            .extend(apart.iter().map(|other| other.place.clone()));
    }
}

impl std::fmt::Display for Masked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let few = |all: Vec<String>| match all.len() {
            n if n > FEW => format!("{} and {} more", all[..FEW].join(" "), n - FEW),
            _ => all.join(" "),
        };
        let places = self.places.iter().map(|place| shown(&place.path));
        write!(f, "denied at {}", few(places.collect()))?;
        if !self.nowhere.is_empty() {
            write!(
                f,
                "; nowhere: {}",
                few(self.nowhere.iter().cloned().collect())
            )?;
        }
        if !self.left.is_empty() {
            let left = self.left.iter().map(|path| shown(path));
            write!(
                f,
                "; other names of the same files, which are not denied: {}",
                few(left.collect())
            )?;
        }
        Ok(())
    }
}

/// What there is at places that were found before, and how many are not there for now: of programs that are denied, or that may be started.
pub fn at(
    inside: &Inside,
    places: &[Place],
    right: ProgramRight,
    when: When,
) -> Result<(Vec<Found>, usize), FilesError> {
    let listed = right == ProgramRight::Allowed;
    let (mut found, mut missing) = (Vec::new(), 0);
    for place in places {
        let file = match inside.open(&place.path) {
            Ok(file) => file,
            Err(error) if is_gone(&error) && when == When::Again => {
                missing += 1;
                continue;
            }
            Err(error) => return Err(io_error("look at", shown(&place.path))(error)),
        };
        let failed = || io_error("look at", shown(&place.path));
        found.push(Found {
            path: place.path.clone(),
            right: match listed {
                true => FileRight::ReadOnly,
                false => FileRight::Denied,
            },
            origin: place.origin.clone(),
            identity: sys::identity(&file).map_err(failed())?,
            is_directory: is_directory(&file, &place.path)?,
            keep: !listed,
            listed,
        });
    }
    Ok((found, missing))
}

/// Where programs are looked for, below the root and without a link: the container's `PATH`, as the engine gave it to init, and the
/// directories that programs are in by custom.
pub(super) fn directories(inside: &Inside) -> Result<Vec<PathBuf>, FilesError> {
    let path = inside.variable(b"PATH")?;
    let own = path
        .iter()
        .flat_map(|path| path.split(|byte| *byte == b':'));
    let usual = DIRECTORIES.iter().map(|directory| directory.as_bytes());
    let mut out = Vec::new();
    for (n, directory) in own.chain(usual).enumerate() {
        if n >= MAX_DIRECTORIES + DIRECTORIES.len() {
            return Err(FilesError::LongPath);
        }
        let directory = Path::new(OsStr::from_bytes(directory));
        // An empty or relative one begins at the directory that a program is started in.
        let below = match directory.strip_prefix("/") {
            Ok(below) => below.to_owned(),
            Err(_) => inside.folder().join(directory),
        };
        match inside.follow(&below) {
            Ok(found) if !out.contains(&found) => out.push(found),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(io_error("look at", shown(&below))(error)),
        }
    }
    Ok(out)
}

/// Where a rule's program is: the directory without a link, and the name.
pub(super) fn places(
    inside: &Inside,
    rule: &ProgramRule,
    right: ProgramRight,
    directories: &[PathBuf],
) -> Result<Vec<PathBuf>, FilesError> {
    let candidates = match rule.name.path().map(Path::new) {
        None => directories
            .iter()
            .map(|directory| directory.join(rule.name.as_str()))
            .collect(),
        Some(path) => {
            let (above, name) = (path.parent(), path.file_name());
            match inside.follow(above.unwrap_or(Path::new(""))) {
                Ok(above) => vec![above.join(name.unwrap_or_default())],
                Err(error) if is_gone(&error) => Vec::new(),
                Err(error) => return Err(io_error("look at", shown(path))(error)),
            }
        }
    };
    let mut out = Vec::new();
    for place in candidates {
        match inside.open(&place) {
            Ok(file) if rule.name.path().is_some() && is_directory(&file, &place)? => {
                return Err(FilesError::NoProgram {
                    key: rule.key(right),
                    name: rule.name.to_string(),
                    origin: rule.origin.to_string(),
                });
            }
            Ok(_) => out.push(place),
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(io_error("look at", shown(&place))(error)),
        }
    }
    Ok(out)
}

/// What is at a place: nothing where it is a link to nothing, or a directory that only has a program's name.
pub(super) fn entry(inside: &Inside, place: PathBuf) -> Result<Option<Entry>, FilesError> {
    let failed = |call: &'static str| io_error(call, shown(&place));
    let file: OwnedFd = match inside.reach(&place) {
        Ok(file) => file,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => return Err(failed("look at")(error)),
    };
    if is_directory(&file, &place)? {
        return Ok(None);
    }
    Ok(Some(Entry {
        identity: sys::identity(&file).map_err(failed("look at"))?,
        mount: sys::mount_of(&file)
            .map_err(failed("look at the mount of"))?
            .id,
        file: inside.follow(&place).map_err(failed("follow"))?,
        place,
    }))
}

/// Every other name that one of these files has where programs are. A link from another mount is none: a workspace or volume that an
/// earlier session wrote must not make another program of what is denied.
fn named(
    inside: &Inside,
    directories: &[PathBuf],
    files: &BTreeSet<sys::Identity>,
    denied: &BTreeMap<PathBuf, &ProgramRule>,
    until: Instant,
) -> Result<Vec<Entry>, FilesError> {
    let (mut out, mut looked_at) = (Vec::new(), 0);
    if files.is_empty() {
        return Ok(out);
    }
    for directory in directories {
        let failed = || io_error("list", shown(directory));
        let listed = inside.list(directory).map_err(failed())?;
        let mount = sys::mount_of(&listed).map_err(failed())?.id;
        let mut listed = nix::dir::Dir::from_fd(listed).map_err(|e| failed()(e.into()))?;
        for name in listed.iter() {
            let name = name.map_err(|e| failed()(e.into()))?;
            looked_at += 1;
            if looked_at > MAX_LOOKED_AT || Instant::now() > until {
                return Err(FilesError::ManyPrograms);
            }
            let name = name.file_name().to_bytes();
            let place = directory.join(OsStr::from_bytes(name));
            if matches!(name, b"." | b"..") || denied.contains_key(&place) {
                continue;
            }
            // One that leads nowhere is no name of any file.
            let Ok(file) = inside.reach(&place) else {
                continue;
            };
            if sys::identity(&file).is_ok_and(|identity| files.contains(&identity)) {
                let entry = entry(inside, place)?;
                out.extend(entry.filter(|one| one.file == one.place || one.mount == mount));
            }
        }
    }
    Ok(out)
}

fn is_directory(file: &OwnedFd, place: &Path) -> Result<bool, FilesError> {
    let kind = sys::kind(file).map_err(io_error("look at", shown(place)))?;
    Ok(kind == libc::S_IFDIR)
}

/// Whether one name begins with the other: `python3` and `python3.12`, `sudo` and `sudoedit`.
fn is_akin(one: &Path, other: &Path) -> bool {
    let name = |path: &Path| path.file_name().unwrap_or_default().as_bytes().to_owned();
    let (one, other) = (name(one), name(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// Whether a rule that denies has this very place by its path, the links on the way there followed: also where nothing was there when the
/// container started.
pub fn denies(
    pid: u32,
    network: (u64, u64),
    rules: &[ProgramRule],
    program: &ProgramName,
) -> Result<bool, FilesError> {
    let paths = || {
        rules
            .iter()
            .filter_map(|rule| rule.name.path().map(Path::new))
    };
    let (Some(place), true) = (program.path().map(Path::new), paths().next().is_some()) else {
        return Ok(false);
    };
    let inside = Inside::of(pid, network)?;
    for path in paths().filter(|path| path.file_name() == place.file_name()) {
        match inside.follow(path.parent().unwrap_or(Path::new(""))) {
            Ok(above) if Some(above.as_path()) == place.parent() => return Ok(true),
            Ok(_) => {}
            Err(error) if is_gone(&error) => {}
            Err(error) => return Err(io_error("look at", shown(path))(error)),
        }
    }
    Ok(false)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::ENAMETOOLONG)
    )
}
