//! Control files: what an editor, an agent or agentcontainer itself reads from a workspace and then runs or obeys on the
//! host. Those that exist are bound read-only over themselves; those that appear while a session runs are reported when it
//! ends. A control file that is a symbolic link cannot be held in place by a mount and is refused.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::EngineError;
use crate::request::Mount;

/// Paths below the workspace, files and directories alike.
pub const CONTROL_FILES: &[&str] = &[
    "agentcontainer.json",
    "agentcontainer-lock.json",
    ".devcontainer",
    ".devcontainer.json",
    ".vscode",
    ".idea",
    ".fleet",
    ".zed",
    ".envrc",
    ".mcp.json",
    ".claude",
    ".codex",
    ".cursor",
    ".gemini",
    ".opencode",
    ".windsurf",
    ".continue",
    ".aider.conf.yml",
];

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("{} is a symbolic link, and a control file that is one cannot be kept read-only", .0.display())]
    Symlink(PathBuf),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// The control files that are there, by name.
pub fn present(workspace: &Path) -> BTreeSet<&'static str> {
    CONTROL_FILES
        .iter()
        .copied()
        .filter(|name| workspace.join(name).symlink_metadata().is_ok())
        .collect()
}

/// A read-only mount over each control file that is there.
pub fn mounts(workspace: &Path, target: &str) -> Result<Vec<Mount>, ControlError> {
    let mut mounts = Vec::new();
    for name in present(workspace) {
        let source = workspace.join(name);
        let meta = source
            .symlink_metadata()
            .map_err(EngineError::io("inspect", &source))?;
        if meta.file_type().is_symlink() {
            return Err(ControlError::Symlink(source));
        }
        mounts.push(Mount::Control {
            source: source.display().to_string(),
            target: format!("{target}/{name}"),
            read_only: true,
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_there_is_bound_read_only_over_itself() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".vscode")).unwrap();
        std::fs::write(dir.path().join(".envrc"), "").unwrap();
        let found = mounts(dir.path(), "/workspaces/x").unwrap();
        assert_eq!(
            found,
            [".envrc", ".vscode"].map(|name| Mount::Control {
                source: dir.path().join(name).display().to_string(),
                target: format!("/workspaces/x/{name}"),
                read_only: true,
            })
        );
    }

    #[test]
    fn a_control_file_that_is_a_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join(".mcp.json")).unwrap();
        assert!(matches!(
            mounts(dir.path(), "/w"),
            Err(ControlError::Symlink(_))
        ));
    }
}
