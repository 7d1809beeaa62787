//! Where things lie on the host: the user's state, one directory a session, the enforcer's control sockets. Everything of ours
//! is 0700 and outside any workspace.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use engine::request::HostPlaces;

use crate::report::Failure;

/// The user's own directories.
#[derive(Clone, Debug)]
pub struct Places {
    pub home: Option<PathBuf>,
    /// `$XDG_STATE_HOME/agentcontainer`.
    pub state: PathBuf,
    /// `$XDG_CONFIG_HOME/agentcontainer`.
    pub config: PathBuf,
    /// `$XDG_CACHE_HOME/agentcontainer`.
    pub cache: PathBuf,
}

impl Places {
    pub fn from_env() -> Result<Self, Failure> {
        let var = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = var("HOME");
        let under_home = |rest: &str| home.as_ref().map(|home| home.join(rest));
        let unknown = || {
            Failure::new("no-home", "neither HOME nor XDG_STATE_HOME, XDG_CONFIG_HOME and XDG_CACHE_HOME say where this user's files are")
                .help("set HOME")
        };
        Ok(Self {
            state: var("XDG_STATE_HOME")
                .or_else(|| under_home(".local/state"))
                .ok_or_else(unknown)?
                .join("agentcontainer"),
            config: var("XDG_CONFIG_HOME")
                .or_else(|| under_home(".config"))
                .ok_or_else(unknown)?
                .join("agentcontainer"),
            cache: var("XDG_CACHE_HOME")
                .or_else(|| under_home(".cache"))
                .ok_or_else(unknown)?
                .join("agentcontainer"),
            home,
        })
    }

    /// What placeholders of credentials are derived with.
    pub fn placeholder_key(&self) -> PathBuf {
        self.state.join("placeholder.key")
    }

    pub fn sessions(&self) -> PathBuf {
        self.state.join("sessions")
    }

    pub fn session(&self, id: &str) -> PathBuf {
        self.sessions().join(id)
    }

    pub fn trust(&self) -> PathBuf {
        self.state.join("trust")
    }

    /// What a person granted to workspaces.
    pub fn grants(&self) -> PathBuf {
        self.state.join("grants")
    }

    /// What is known of images, by image id.
    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// Lockfiles of workspaces that have no config, by workspace and agent.
    pub fn locks(&self) -> PathBuf {
        self.state.join("locks")
    }

    /// What each workspace was last let run, by digest.
    pub fn seen(&self) -> PathBuf {
        self.state.join("seen")
    }

    pub fn controls(&self) -> PathBuf {
        self.state.join("control")
    }

    pub fn control(&self, short: &str) -> PathBuf {
        self.controls().join(short)
    }

    /// What no session ever gets to see.
    pub fn private(&self) -> HostPlaces {
        let shown = |path: &Path| path.display().to_string();
        let mut private = vec![shown(&self.state), shown(&self.config)];
        if let Some(home) = &self.home {
            private.extend(
                HostPlaces::PRIVATE_IN_HOME
                    .iter()
                    .map(|name| shown(&home.join(name))),
            );
        }
        HostPlaces {
            home: self.home.as_deref().map(shown),
            private,
        }
    }
}

/// Makes a directory of ours, closed to others; one that somebody else owns is refused.
pub fn make_private(path: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|e| Failure::io("create", path, &e))?;
    let meta = fs::metadata(path).map_err(|e| Failure::io("inspect", path, &e))?;
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Failure::new(
            "state-owner",
            format!("{} belongs to another user", path.display()),
        )
        .help("set XDG_STATE_HOME to a directory of your own"));
    }
    if meta.mode() & 0o077 != 0 {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|e| Failure::io("close", path, &e))?;
    }
    Ok(())
}

/// Writes a file of ours whole or not at all.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let _ = fs::remove_file(&temporary);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&temporary);
        Failure::io("write", path, &e)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn our_directories_are_closed_to_others_and_files_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("a/b");
        make_private(&ours).unwrap();
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&ours, fs::Permissions::from_mode(0o755)).unwrap();
        make_private(&ours).unwrap();
        assert_eq!(fs::metadata(&ours).unwrap().mode() & 0o777, 0o700);
        write_private(&ours.join("x.json"), b"1").unwrap();
        write_private(&ours.join("x.json"), b"2").unwrap();
        assert_eq!(fs::read(ours.join("x.json")).unwrap(), b"2");
        assert_eq!(fs::read_dir(&ours).unwrap().count(), 1);
    }
}
