//! Control files: what an editor, an agent or agentcontainer itself reads from a workspace and then runs or obeys on the
//! host. Those that exist are bound read-only over themselves. Those that do not are masked, and a mask needs a mount point:
//! a socket for a file, an empty directory with the sticky bit for a directory. Both are invisible to git, neither can be
//! taken for a config, and both say by their kind that they are ours, so that whoever ends a session can take them away.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Component, Path, PathBuf};

use crate::EngineError;
use crate::git::Doing;
use crate::request::Mount;

/// What stands in for a control file that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mask {
    /// A file with this content: what its readers take for 'nothing set'.
    File(&'static str),
    Directory,
}

/// Paths below the workspace.
const CONTROL_FILES: &[(&str, Mask)] = &[
    ("agentcontainer.json", Mask::File("{}\n")),
    ("agentcontainer-lock.json", Mask::File("{}\n")),
    (".devcontainer", Mask::Directory),
    (".devcontainer.json", Mask::File("{}\n")),
    (".vscode", Mask::Directory),
    (".idea", Mask::Directory),
    (".fleet", Mask::Directory),
    (".zed", Mask::Directory),
    (".envrc", Mask::File("")),
    (".mcp.json", Mask::File("{ \"mcpServers\": {} }\n")),
    (".claude", Mask::Directory),
    (".codex", Mask::Directory),
    (".cursor", Mask::Directory),
    (".gemini", Mask::Directory),
    (".opencode", Mask::Directory),
    (".windsurf", Mask::Directory),
    (".continue", Mask::Directory),
    (".aider.conf.yml", Mask::File("{}\n")),
    ("opencode.json", Mask::File("{}\n")),
    ("opencode.jsonc", Mask::File("{}\n")),
    ("crush.json", Mask::File("{}\n")),
    (".crush.json", Mask::File("{}\n")),
    (".amazonq", Mask::Directory),
    (".junie", Mask::Directory),
    (".kiro", Mask::Directory),
    (".qwen", Mask::Directory),
    (".roo", Mask::Directory),
    (".trae", Mask::Directory),
    (".helix", Mask::Directory),
    (".exrc", Mask::File("")),
    (".nvim.lua", Mask::File("")),
    (".dir-locals.el", Mask::File("()\n")),
    (".mise.toml", Mask::File("")),
    ("mise.toml", Mask::File("")),
];
/// What the name of an editor's workspace file ends with: it may have any, and cannot be held where it is not there.
const WORKSPACE_FILE: &str = ".code-workspace";

/// The mode of a directory that holds a place.
const PLACE: u32 = 0o1755;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{} is a symbolic link, and a control file that is one cannot be kept read-only", .0.display())]
    Symlink(PathBuf),
    #[error("the place of {}, which is not there, cannot be held: {source}", .path.display())]
    Place {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The control files of a workspace, as a container gets them.
#[derive(Debug, Default)]
pub struct Controls {
    pub mounts: Vec<Mount>,
    /// Files inside that are masks of nothing: git must not add them.
    pub masks: Vec<&'static str>,
}

/// Held while places are taken or given up: another session may want the same ones.
#[derive(Debug)]
pub struct Hold(#[allow(dead_code)] File);

impl Hold {
    /// `session_dir` is any session's; the lock is beside it.
    pub fn take(session_dir: &Path) -> Result<Self, EngineError> {
        let path = session_dir.with_file_name("places.lock");
        File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .and_then(|file| file.lock().map(|()| Self(file)))
            .map_err(EngineError::io("lock", path))
    }
}

fn inspect(path: &Path) -> Result<Option<Metadata>, EngineError> {
    match path.symlink_metadata() {
        Ok(meta) => Ok(Some(meta)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(EngineError::io("inspect", path)(e)),
    }
}

/// Whether this is ours and only holds a place.
fn holds_place(path: &Path, meta: &Metadata, mask: Mask) -> bool {
    match mask {
        Mask::File(_) => meta.file_type().is_socket(),
        Mask::Directory => {
            is_marked(meta) && fs::read_dir(path).is_ok_and(|mut all| all.next().is_none())
        }
    }
}

fn is_marked(meta: &Metadata) -> bool {
    meta.is_dir() && meta.permissions().mode() & 0o7777 == PLACE
}

/// Whether something of this name is a control file.
pub fn is_control(name: &OsStr) -> bool {
    CONTROL_FILES.iter().any(|(control, _)| name == *control)
}

/// A control file of any name: one that is there is not held, and said when it changed.
pub fn is_workspace_file(name: &OsStr) -> bool {
    name.as_encoded_bytes().ends_with(WORKSPACE_FILE.as_bytes())
}

/// Whether a socket of this name at the root holds a control file's place.
pub fn has_file_place(name: &OsStr) -> bool {
    CONTROL_FILES
        .iter()
        .any(|(control, mask)| name == *control && matches!(mask, Mask::File(_)))
}

/// The control files that are there, by name.
pub fn present(workspace: &Path) -> BTreeSet<&'static str> {
    CONTROL_FILES
        .iter()
        .filter(|(name, mask)| {
            let path = workspace.join(name);
            path.symlink_metadata()
                .is_ok_and(|meta| !holds_place(&path, &meta, *mask))
        })
        .map(|(name, _)| *name)
        .collect()
}

/// Whether a config of this name is there, and not only its place.
pub fn is_there(workspace: &Path, name: &str) -> bool {
    workspace
        .join(name)
        .symlink_metadata()
        .is_ok_and(|meta| !meta.file_type().is_socket())
}

/// A read-only mount over each control file, there or not. `owner` is whose workspace it is; `config` is the session's own,
/// wherever in the workspace it lies.
pub fn mounts(
    workspace: &Path,
    target: &str,
    session_dir: &Path,
    owner: (u32, u32),
    config: &Path,
    doing: Doing,
) -> Result<Controls, ControlError> {
    let mut controls = Controls::default();
    for (name, mask) in CONTROL_FILES {
        let source = workspace.join(name);
        let bound = |source: &Path| Mount::Control {
            source: source.display().to_string(),
            target: format!("{target}/{name}"),
            read_only: true,
        };
        match inspect(&source)? {
            Some(meta) if meta.file_type().is_symlink() => {
                return Err(ControlError::Symlink(source));
            }
            Some(meta) if !holds_place(&source, &meta, *mask) => {
                controls.mounts.push(bound(&source));
                continue;
            }
            Some(_) => {}
            None if doing == Doing::Look => {}
            None => {
                hold(workspace, name, *mask, owner).map_err(|e| ControlError::Place {
                    path: source.clone(),
                    source: e,
                })?;
            }
        }
        match mask {
            Mask::Directory => controls.mounts.push(bound(&source)),
            Mask::File(content) => {
                let shown = session_dir.join(format!("mask{name}"));
                doing.write_readable(&shown, content)?;
                controls.masks.push(name);
                controls.mounts.push(Mount::Session {
                    source: shown.display().to_string(),
                    target: format!("{target}/{name}"),
                    read_only: true,
                });
            }
        }
    }
    let mut own = vec![config.to_owned()];
    own.push(config.with_file_name("agentcontainer-lock.json"));
    for path in own {
        if is_covered(&controls.mounts, workspace, target, &path) || inspect(&path)?.is_none() {
            continue;
        }
        pin(&mut controls.mounts, workspace, target, &path);
    }
    Ok(controls)
}

fn is_covered(mounts: &[Mount], workspace: &Path, target: &str, path: &Path) -> bool {
    let Ok(rest) = path.strip_prefix(workspace) else {
        return true;
    };
    let inside = Path::new(target).join(rest);
    mounts.iter().any(|m| inside.starts_with(m.target()))
}

/// Binds a path of the workspace read-only over itself, and each directory above it too: one that is no mount point could be
/// renamed away with everything in it.
pub fn pin(mounts: &mut Vec<Mount>, workspace: &Path, target: &str, path: &Path) {
    bind_over_itself(mounts, workspace, target, path, true);
}

/// The same for what may be written: it cannot be replaced by something else, such as a link.
pub fn keep_in_place(mounts: &mut Vec<Mount>, workspace: &Path, target: &str, path: &Path) {
    let closed: Vec<Mount> = mounts
        .iter()
        .filter(|mount| {
            matches!(
                mount,
                Mount::Control {
                    read_only: true,
                    ..
                } | Mount::Session { .. }
            )
        })
        .cloned()
        .collect();
    // What is read-only already stays so.
    if is_covered(&closed, workspace, target, path) {
        return;
    }
    bind_over_itself(mounts, workspace, target, path, false);
}

fn bind_over_itself(
    mounts: &mut Vec<Mount>,
    workspace: &Path,
    target: &str,
    path: &Path,
    last_read_only: bool,
) {
    let Ok(rest) = path.strip_prefix(workspace) else {
        return;
    };
    let mut at = PathBuf::new();
    let mut parts = rest.components().peekable();
    while let Some(Component::Normal(part)) = parts.next() {
        at.push(part);
        let bound = format!("{target}/{}", at.display());
        let last = parts.peek().is_none();
        if let Some(Mount::Control { read_only, .. }) =
            mounts.iter_mut().find(|m| m.target() == bound)
        {
            *read_only |= last && last_read_only;
            continue;
        }
        mounts.push(Mount::Control {
            source: workspace.join(&at).display().to_string(),
            target: bound,
            read_only: last && last_read_only,
        });
    }
}

fn hold(workspace: &Path, name: &str, mask: Mask, owner: (u32, u32)) -> std::io::Result<()> {
    let path = workspace.join(name);
    match mask {
        Mask::Directory => fs::create_dir(&path)?,
        Mask::File(_) => {
            // By the directory's descriptor: a socket's address holds 107 bytes, a path may be longer.
            let directory = File::open(workspace)?;
            UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?;
        }
    }
    // Fails where we are not root, and then the workspace is our own.
    // Another session may have put a link there meanwhile: none is followed.
    let _ = std::os::unix::fs::lchown(&path, Some(owner.0), Some(owner.1));
    if mask == Mask::Directory {
        File::options()
            .read(true)
            .custom_flags(crate::git::NOFOLLOW)
            .open(&path)?
            .set_permissions(Permissions::from_mode(PLACE))?;
    }
    Ok(())
}

/// Gives the places up, when no session of the workspace is left. A directory that the person put something into meanwhile
/// becomes an ordinary one.
pub fn release(workspace: &Path) -> Result<(), EngineError> {
    for (name, mask) in CONTROL_FILES {
        let path = workspace.join(name);
        let Some(meta) = inspect(&path)? else {
            continue;
        };
        let done = match mask {
            Mask::File(_) if holds_place(&path, &meta, *mask) => fs::remove_file(&path),
            Mask::Directory if holds_place(&path, &meta, *mask) => fs::remove_dir(&path),
            Mask::Directory if is_marked(&meta) => {
                fs::set_permissions(&path, Permissions::from_mode(0o755))
            }
            _ => continue,
        };
        done.map_err(EngineError::io("give up the place", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
