//! What lies in a workspace and leads out of it: sockets and named pipes, behind which programs of the host may wait, and that
//! a network namespace does not hold back. Each is covered by an empty file, in every mount that shows it; a directory that we
//! may not list by an empty one. What comes after the start is not covered.

use std::path::{Path, PathBuf};

use crate::EngineError;
use crate::git::Doing;
use crate::look::Seen;
use crate::request::Mount;

/// The most that is covered.
pub const MAX_COVERED: usize = 64;
/// How many of too many are named.
const NAMED: usize = 3;

const FILE: &str = "veil";
const DIRECTORY: &str = "veil.d";

#[derive(Debug, thiserror::Error)]
pub enum VeilError {
    #[error(
        "the workspace holds {count} sockets, pipes and closed directories, and at most {MAX_COVERED} can be kept from a session: {named}, …"
    )]
    TooMany { count: usize, named: String },
    #[error("{} may not be listed", .0.display())]
    Closed(PathBuf),
    #[error("the path of {} is not UTF-8, and what lies there cannot be covered", .0.display())]
    Path(PathBuf),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Adds to the mounts what covers them; gives what is covered, for people.
pub fn cover(
    mounts: &mut Vec<Mount>,
    workspace: &Path,
    seen: &Seen,
    session_dir: &Path,
    doing: Doing,
) -> Result<Vec<String>, VeilError> {
    if seen.closed.iter().any(|path| path == workspace) {
        return Err(VeilError::Closed(workspace.to_owned()));
    }
    let doors = seen.doors.iter().map(|path| (path, FILE));
    let found: Vec<_> = doors
        .chain(seen.closed.iter().map(|path| (path, DIRECTORY)))
        .collect();
    let shown = |path: &Path| {
        let path = path.strip_prefix(workspace).unwrap_or(path);
        path.display().to_string()
    };
    if found.len() > MAX_COVERED {
        let named: Vec<_> = found
            .iter()
            .take(NAMED)
            .map(|(path, _)| shown(path))
            .collect();
        return Err(VeilError::TooMany {
            count: found.len(),
            named: named.join(", "),
        });
    }
    let covers = [FILE, DIRECTORY].map(|name| session_dir.join(name));
    if found.iter().any(|(_, with)| *with == FILE) {
        doing.write_readable(&covers[0], "")?;
    }
    if found.iter().any(|(_, with)| *with == DIRECTORY) {
        doing.make_readable(&covers[1])?;
    }
    let mut said = Vec::new();
    for (path, with) in found {
        let cover = &covers[usize::from(with == DIRECTORY)];
        let spelt = |path: &Path| path.to_str().map(str::to_owned);
        let (Some(source), Some(at)) = (spelt(cover), spelt(path)) else {
            return Err(VeilError::Path(path.clone()));
        };
        for target in places(mounts, &at) {
            mounts.retain(|mount| mount.target() != target);
            mounts.push(Mount::Session {
                source: source.clone(),
                target,
                read_only: true,
            });
        }
        said.push(match with {
            FILE => format!(
                "{} leads to this machine, and is an empty file inside",
                shown(path)
            ),
            _ => format!(
                "{} cannot be looked through, and is empty inside",
                shown(path)
            ),
        });
    }
    Ok(said)
}

/// Where a path of the workspace is inside.
fn places(mounts: &[Mount], path: &str) -> Vec<String> {
    let mut places: Vec<String> = mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Workspace { source, target, .. }
            | Mount::Control { source, target, .. }
            | Mount::Repository { source, target, .. }
            | Mount::Inside { source, target } => {
                let rest = path.strip_prefix(source.as_str())?;
                (rest.is_empty() || rest.starts_with('/')).then(|| format!("{target}{rest}"))
            }
            Mount::Session { .. }
            | Mount::Trust { .. }
            | Mount::Volume { .. }
            | Mount::Agent { .. }
            | Mount::Tmpfs { .. } => None,
        })
        .collect();
    places.sort();
    places.dedup();
    places
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::look;
    use std::fs;
    use std::os::unix::net::UnixListener;

    fn bound(workspace: &Path) -> Vec<Mount> {
        let source = workspace.display().to_string();
        vec![
            Mount::Workspace {
                source: source.clone(),
                target: "/w".to_owned(),
                read_only: true,
            },
            Mount::Control {
                source: format!("{source}/.git"),
                target: "/w/.git".to_owned(),
                read_only: false,
            },
            Mount::Inside {
                source: format!("{source}/run"),
                target: "/also".to_owned(),
            },
        ]
    }

    fn covered(workspace: &Path) -> Result<(Vec<String>, Vec<String>), VeilError> {
        let mut mounts = bound(workspace);
        let seen = look::through(workspace, look::MAX_ENTRIES);
        let dir = tempfile::tempdir().unwrap();
        let said = cover(&mut mounts, workspace, &seen, dir.path(), Doing::Write)?;
        let mut targets: Vec<_> = mounts
            .iter()
            .filter(|mount| matches!(mount, Mount::Session { .. }))
            .map(|mount| mount.target().to_owned())
            .collect();
        targets.sort();
        Ok((targets, said))
    }

    #[test]
    fn a_socket_is_covered_in_every_mount_that_shows_it() {
        let dir = tempfile::tempdir().unwrap();
        for path in [".git/ipc", "run/db/s", ".envrc"] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            UnixListener::bind(path).unwrap();
        }
        fs::create_dir(dir.path().join("running")).unwrap();
        let (targets, said) = covered(dir.path()).unwrap();
        // A socket at the root that holds a control file's place is covered as one.
        assert_eq!(targets, ["/also/db/s", "/w/.git/ipc", "/w/run/db/s"]);
        assert_eq!(said.len(), 2);
    }

    #[test]
    fn how_many_are_covered_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        for n in 0..MAX_COVERED {
            UnixListener::bind(dir.path().join(n.to_string())).unwrap();
        }
        assert_eq!(covered(dir.path()).unwrap().0.len(), MAX_COVERED);
        UnixListener::bind(dir.path().join("more")).unwrap();
        assert!(matches!(
            covered(dir.path()),
            Err(VeilError::TooMany { count, .. }) if count == MAX_COVERED + 1
        ));
    }
}
