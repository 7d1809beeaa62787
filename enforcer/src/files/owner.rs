//! The workspace's files as the container's user's, where they are another's on the host: what was mounted by the engine is mounted once more over itself, so
//! that on these mounts the two change places. What is made inside is then the owner's on the host. Done before the rules about files, which are mounted
//! upon it; what was mounted within the workspace (covers of control files, the repository's hooks) comes back at its place as it was.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::enter::{self, Inside, Mount};
use super::ids::Swap;
use super::{FilesError, MAX_MOUNTS, io_error, shown, sys};
use crate::process;

/// How the names of mounts of ours begin, below the root: those with a session's copy of the repository's configuration and with a repository outside the workspace.
const OURS: &str = ".agentcontainer-";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Nothing differs, or root takes part.
    Needless,
    Mapped {
        owner: (u32, u32),
        user: (u32, u32),
        mounts: usize,
    },
    /// It is as it was, and why.
    Not {
        owner: (u32, u32),
        user: (u32, u32),
        why: String,
    },
}

impl std::fmt::Display for Mapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Needless => write!(f, "the workspace is the container's user's"),
            Self::Mapped {
                owner,
                user,
                mounts,
            } => write!(
                f,
                "what is {}:{}'s on the host is {}:{}'s inside, and the reverse, on {mounts} mounts",
                owner.0, owner.1, user.0, user.1
            ),
            Self::Not { owner, user, why } => write!(
                f,
                "the workspace is {}:{}'s, {}:{} writes in it only what its permissions let everybody write, and the one cannot be shown as the other: {why}",
                owner.0, owner.1, user.0, user.1
            ),
        }
    }
}

/// A mount that a walk from the root leads to.
struct There {
    path: PathBuf,
    file: OwnedFd,
    id: u64,
    read_only: bool,
    /// It shows files of the workspace's owner.
    theirs: bool,
}

/// Maps what init's directory is in, the workspace of `owner`, in the namespace of an init that waits.
///
/// # Errors
/// It was begun, and cannot be said to be whole: init is not to be released.
pub fn map(pid: u32, network: (u64, u64), owner: (u32, u32)) -> Result<Mapping, FilesError> {
    let user = process::owner(pid).ok_or_else(|| {
        io_error("read the user of", format!("process {pid}"))(io::ErrorKind::NotFound.into())
    })?;
    let Some(swap) = Swap::between(owner, user) else {
        return Ok(Mapping::Needless);
    };
    let not = |why: String| Ok(Mapping::Not { owner, user, why });
    let mapped = |mounts| {
        Ok(Mapping::Mapped {
            owner,
            user,
            mounts,
        })
    };
    let inside = Inside::of(pid, network)?;
    let before = inside.mounts()?;
    let places: Vec<PathBuf> = before.iter().map(|mount| enter::place(&mount.at)).collect();
    let Some(workspace) = workspace(&inside, &before, &places)? else {
        return not("the folder that it starts in is not the workspace's".to_owned());
    };
    if workspace.idmapped {
        // By an earlier attempt: whole, or this fails.
        let mounts = whole(&inside, &inside.mounts()?, &enter::place(&workspace.at))?;
        return mapped(mounts);
    }
    let at = enter::place(&workspace.at);
    let theirs = inside.open(&at).and_then(|file| sys::owner(&file));
    let theirs = theirs.map_err(io_error("look at", shown(&at)))?;
    if theirs != owner {
        return not(format!("for the engine it is {}:{}'s", theirs.0, theirs.1));
    }
    let namespace = match swap.namespace() {
        Ok(namespace) => namespace,
        Err(error) => return not(format!("no user namespace can be made: {error}")),
    };
    let there = there(&inside, &before, &places, workspace, owner)?;
    if there.len() > MAX_MOUNTS {
        return Err(FilesError::TooMany { found: there.len() });
    }
    let done = inside.within(|| {
        let (clones, mounts) = match clone_all(&there, &namespace, &at)? {
            Ok(clones) => clones,
            Err(why) => return Ok(Err(why)),
        };
        for (one, clone) in there.iter().zip(&clones) {
            attach(&inside, one, clone, &before)?;
        }
        Ok(Ok((clones, mounts)))
    })?;
    let (clones, mounts) = match done {
        Ok(done) => done,
        Err(why) => return not(why),
    };
    let now = inside.mounts()?;
    for (one, clone) in there.iter().zip(&clones) {
        check(&inside, one, clone, &now)?;
    }
    whole(&inside, &now, &at)?;
    mapped(mounts)
}

/// The mount that init's directory is in, and of several within each other the outermost that is not the root.
fn workspace<'a>(
    inside: &Inside,
    mounts: &'a [Mount],
    places: &[PathBuf],
) -> Result<Option<&'a Mount>, FilesError> {
    let mut around: Vec<_> = mounts
        .iter()
        .zip(places)
        .filter(|(_, place)| !place.as_os_str().is_empty() && inside.folder().starts_with(place))
        .collect();
    around.sort_by_key(|(_, place)| place.components().count());
    let Some((_, outermost)) = around.first() else {
        return Ok(None);
    };
    let failed = |call| io_error(call, shown(outermost));
    let there = inside.open(outermost).map_err(failed("open"))?;
    let on = sys::mount_of(&there).map_err(failed("look at the mount of"))?;
    Ok(mounts.iter().find(|mount| mount.id == on.id && on.is_root))
}

/// Everything that is mounted at or below what is to be mapped, in the order of paths: what is above comes first.
fn there(
    inside: &Inside,
    mounts: &[Mount],
    places: &[PathBuf],
    workspace: &Mount,
    owner: (u32, u32),
) -> Result<Vec<There>, FilesError> {
    let repository = enter::place(&workspace.at).join(".git");
    let mut all: BTreeMap<&Path, There> = BTreeMap::new();
    for (mount, place) in mounts.iter().zip(places) {
        let failed = |call| io_error(call, shown(place));
        let file = match inside.open(place) {
            Ok(file) => file,
            // Hidden by what is mounted above it.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                continue;
            }
            Err(error) => return Err(failed("open")(error)),
        };
        let on = sys::mount_of(&file).map_err(failed("look at the mount of"))?;
        if on.id != mount.id || !on.is_root {
            continue;
        }
        let of_the_session = is_ours(place) || place.starts_with(&repository);
        let theirs = mount.is_of(workspace)
            || of_the_session && sys::owner(&file).map_err(failed("look at"))?.0 == owner.0;
        let one = There {
            path: place.clone(),
            file,
            id: mount.id,
            read_only: mount.read_only,
            theirs,
        };
        all.insert(place, one);
    }
    let mut above: Option<PathBuf> = None;
    let within = |one: &There| {
        if above
            .as_ref()
            .is_some_and(|above| one.path.starts_with(above))
        {
            return true;
        }
        if one.theirs {
            above = Some(one.path.clone());
        }
        one.theirs
    };
    Ok(all.into_values().filter(within).collect())
}

fn is_ours(place: &Path) -> bool {
    let first = place.components().next();
    first.is_some_and(|first| {
        first
            .as_os_str()
            .as_encoded_bytes()
            .starts_with(OURS.as_bytes())
    })
}

/// A copy of each, with its owners mapped where it is the workspace's; or why the workspace itself cannot be.
#[allow(clippy::type_complexity)]
fn clone_all(
    there: &[There],
    namespace: &OwnedFd,
    workspace: &Path,
) -> Result<Result<(Vec<OwnedFd>, usize), String>, FilesError> {
    let mut mounts = 0;
    let mut clones = Vec::with_capacity(there.len());
    for one in there {
        let clone = sys::clone_tree(&one.file, false);
        let clone = clone.map_err(io_error("clone", shown(&one.path)))?;
        if one.theirs {
            match sys::map_owners(&clone, namespace) {
                Ok(()) => mounts += 1,
                Err(error) if one.path == workspace => return Ok(Err(said(&error))),
                // On another filesystem: it stays whose it is.
                Err(_) => {}
            }
        }
        clones.push(clone);
    }
    Ok(Ok((clones, mounts)))
}

fn said(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EINVAL) => "neither its filesystem nor the kernel lets it".to_owned(),
        _ => error.to_string(),
    }
}

/// Mounts one over itself.
fn attach(
    inside: &Inside,
    one: &There,
    clone: &OwnedFd,
    before: &[Mount],
) -> Result<(), FilesError> {
    let failed = |call| io_error(call, shown(&one.path));
    let place = inside.open(&one.path).map_err(failed("open"))?;
    let on = sys::mount_of(&place).map_err(failed("look at the mount of"))?;
    // What we mounted ourselves is not listed, and private.
    if before.iter().any(|mount| mount.id == on.id && mount.shared) {
        return Err(FilesError::Shared {
            path: shown(&one.path),
        });
    }
    let kinds = sys::kind(&place).and_then(|kind| Ok((kind, sys::kind(&one.file)?)));
    let (kind, was) = kinds.map_err(failed("look at"))?;
    if (kind == libc::S_IFDIR) != (was == libc::S_IFDIR) {
        return Err(changed(one));
    }
    sys::move_to(clone, &place).map_err(failed("mount over"))
}

fn changed(one: &There) -> FilesError {
    FilesError::NotHeld {
        path: shown(&one.path),
        what: "it changed while it was looked at",
    }
}

/// The kernel's word that it is there, as writable as it was.
fn check(inside: &Inside, one: &There, clone: &OwnedFd, now: &[Mount]) -> Result<(), FilesError> {
    let failed = |call| io_error(call, shown(&one.path));
    let place = inside.open(&one.path).map_err(failed("open"))?;
    let on = sys::mount_of(&place).map_err(failed("look at the mount of"))?;
    let new = sys::mount_of(clone).map_err(failed("look at the mount of"))?;
    let listed = now.iter().find(|mount| mount.id == on.id);
    let same = listed.is_some_and(|mount| mount.read_only == one.read_only);
    match on.is_root && on.id == new.id && on.id != one.id && same {
        true => Ok(()),
        false => Err(changed(one)),
    }
}

/// The kernel's word that everything which was mounted within a directory is: a walk to each place ends at a mount. With how many are mapped.
fn whole(inside: &Inside, now: &[Mount], at: &Path) -> Result<usize, FilesError> {
    let mut mapped = 0;
    for mount in now {
        let place = enter::place(&mount.at);
        mapped += usize::from(mount.idmapped);
        if !place.starts_with(at) {
            continue;
        }
        let failed = |call| io_error(call, shown(&place));
        let there = match inside.open(&place) {
            Ok(there) => there,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                continue;
            }
            Err(error) => return Err(failed("open")(error)),
        };
        let on = sys::mount_of(&there).map_err(failed("look at the mount of"))?;
        if !on.is_root {
            return Err(FilesError::NotHeld {
                path: shown(&place),
                what: "nothing is mounted there any more",
            });
        }
    }
    Ok(mapped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(device: &str, root: &str) -> Mount {
        Mount {
            id: 0,
            parent: 0,
            device: device.into(),
            root: root.into(),
            at: b"/w".to_vec(),
            read_only: false,
            noexec: false,
            shared: false,
            idmapped: false,
        }
    }

    #[test]
    fn what_is_of_the_workspace_is_known_by_its_filesystem_and_directory() {
        let workspace = mount("8:1", "/home/a/ws");
        for (device, root, expected) in [
            ("8:1", "/home/a/ws", true),
            ("8:1", "/home/a/ws/.git/hooks", true),
            ("8:1", "/home/a/ws2", false),
            ("8:1", "/home/a", false),
            ("8:2", "/home/a/ws", false),
        ] {
            assert_eq!(mount(device, root).is_of(&workspace), expected, "{root}");
        }
        assert!(is_ours(Path::new(".agentcontainer-git")));
        assert!(is_ours(Path::new(".agentcontainer-repository/hooks")));
        assert!(!is_ours(Path::new(".agentcontainer/agentcontainer-init")));
        assert!(!is_ours(Path::new("w/.agentcontainer-git")));
    }
}
