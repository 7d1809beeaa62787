//! From a config, an image and a command line to the create request: devcontainer.json's meaning of users, folders, mounts,
//! environment and lifecycle commands, with the defaults that a session adds. `run` sends the result, `run --plan` prints it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schema::config::Config;
use schema::config::mount::{MountError, ResolvedSource};
use schema::config::template::{TemplateError, Variables};
use schema::diag::{Diagnostic, Position};
use schema::digest::Digest;
use schema::session::SessionId;

use crate::EngineError;
use crate::agent::AgentParts;
use crate::client::EngineInfo;
use crate::contents::Contents;
use crate::control::{self, ControlError, Hold};
use crate::git::{self, Doing, Repository};
use crate::identity::{self, Identity, IdentityError};
use crate::image::Image;
use crate::look;
use crate::request::{CreateRequest, DEFAULT_PIDS, InitArguments, Limits, Mount, Stage};
use crate::terminal;
use crate::trust;
use crate::veil::{self, VeilError};

/// How long a program has to end after its stop signal, in seconds.
const STOP_TIMEOUT: u32 = 10;

/// What a session is made from.
pub struct Plan<'a> {
    pub config: &'a Config,
    pub image: &'a Image,
    pub contents: &'a Contents,
    pub engine: &'a EngineInfo,
    /// Absolute, without symbolic links.
    pub workspace: &'a Path,
    /// The workspace's owner.
    pub owner: (u32, u32),
    /// Its repository, as it was approved.
    pub repository: &'a Repository,
    pub session: &'a SessionId,
    pub name: Option<&'a str>,
    /// Our directory for this session.
    pub session_dir: &'a Path,
    pub init_volume: String,
    pub cgroup_parent: String,
    /// After `--`.
    pub command: &'a [String],
    pub detached: bool,
    /// `-e`.
    pub env: &'a BTreeMap<String, String>,
    /// What stands for credentials inside, by variable.
    pub placeholders: &'a BTreeMap<String, String>,
    pub tty: bool,
    /// Rows and columns of the person's terminal.
    pub terminal: Option<(u16, u16)>,
    pub stdin: bool,
    pub local_env: &'a dyn Fn(&str) -> Option<String>,
    /// What a profile brings, beside what it adds to the config.
    pub agent: Option<&'a AgentParts>,
    pub doing: Doing,
}

/// The request, and what a person should know of how it came about.
#[derive(Debug)]
pub struct Planned {
    pub request: CreateRequest,
    pub identity: Identity,
    pub notes: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// About a value of the config, at its place.
    #[error(transparent)]
    Config(#[from] Diagnostic),
    #[error("the image names no program to run")]
    NoProgram,
    #[error("{0}")]
    Identity(#[from] IdentityError),
    #[error("the path of the workspace is not UTF-8: {}", .0.display())]
    Path(PathBuf),
    #[error(transparent)]
    Control(#[from] ControlError),
    #[error(transparent)]
    Veil(#[from] VeilError),
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<PlanError> for Diagnostic {
    fn from(error: PlanError) -> Self {
        let message = error.to_string();
        match error {
            PlanError::Config(diagnostic) => diagnostic,
            PlanError::NoProgram => {
                Self::new("no-program", message).help("name one: agentcontainer run -- PROGRAM")
            }
            PlanError::Identity(_) => Self::new("user", message)
                .help("set containerUser to a user of the image, or to uid:gid"),
            PlanError::Path(_) => Self::new("workspace-path", message),
            PlanError::Control(ControlError::Symlink(_)) => Self::new("control-file-link", message)
                .help("replace the link with the file itself"),
            PlanError::Control(ControlError::Place { .. }) => {
                Self::new("control-file-place", message).help(
                    "the workspace has to be writable for you, on a file system that has sockets",
                )
            }
            PlanError::Veil(VeilError::TooMany { .. }) => Self::new("workspace-sockets", message)
                .help("remove those that nobody needs, or work in a smaller directory"),
            PlanError::Veil(VeilError::Closed(_) | VeilError::Path(_)) => {
                Self::new("workspace-path", message)
            }
            PlanError::Control(ControlError::Engine(error))
            | PlanError::Veil(VeilError::Engine(error))
            | PlanError::Engine(error) => {
                let diagnostic = Self::new(error.code(), message);
                match error.help() {
                    Some(help) => diagnostic.help(help),
                    None => diagnostic,
                }
            }
        }
    }
}

/// The workspace's owner, where its files are to be the container's user's inside: never root, for whom a program could be left there.
pub fn mapped_owner(config: &Config, owner: (u32, u32)) -> Option<(u32, u32)> {
    (config.maps_owner() && owner.0 != 0).then_some(owner)
}

fn text(path: &Path) -> Result<&str, PlanError> {
    path.to_str()
        .ok_or_else(|| PlanError::Path(path.to_owned()))
}

impl Plan<'_> {
    /// Works the request out. With [`Doing::Write`] it also writes what its mounts need into the session's directory and
    /// `.git`.
    pub fn make(&self) -> Result<Planned, PlanError> {
        let config = self.config;
        self.check_host()?;
        let workspace = text(self.workspace)?;
        let id = Digest::of(format!("{workspace}\0{}", config.file).as_bytes()).hex();
        let base = self
            .workspace
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or("workspace");
        let default_target = match self.is_alone() {
            true => schema::profile::PROGRAM_VOLUME.to_owned(),
            false => format!("/workspaces/{base}"),
        };

        // Folders first: the other variables may name them.
        let paths = Variables {
            local_workspace_folder: workspace,
            container_workspace_folder: &default_target,
            devcontainer_id: &id[..32],
            local_env: self.local_env,
            container_env: &|_| None,
        };
        let folder = match &config.workspace_folder {
            Some(folder) => Some(self.template(folder.at, folder.substitute(&paths))?),
            None => None,
        };
        let (target, read_only) = match &config.workspace_mount {
            Some(mount) => {
                let resolved = self.mount(mount.at, mount.resolve(&paths))?;
                (resolved.target, resolved.read_only)
            }
            None => (
                folder.clone().unwrap_or_else(|| default_target.clone()),
                false,
            ),
        };
        let working_dir = folder.unwrap_or_else(|| target.clone());
        let first = Variables {
            container_workspace_folder: &working_dir,
            ..paths
        };

        let identity = identity::choose(
            config.user().map(|u| u.value.as_str()),
            &self.image.user,
            self.owner,
            &self.contents.accounts,
        )?;
        let whose = self.whose(&identity);
        let env = self.environment(&first, &identity)?;
        let container_env = |name: &str| {
            env.get(name)
                .cloned()
                .flatten()
                .or_else(|| self.image.env.get(name).cloned())
        };
        let variables = Variables {
            container_env: &container_env,
            ..first
        };

        let mut notes: Vec<String> = whose.into_iter().collect();
        let (mut mounts, excludes) =
            self.mounts(&variables, &target, read_only, &identity, &mut notes)?;
        let in_image = &self.contents.trust;
        let told = trust::prepare(self.session_dir, in_image, &mounts, self.doing)?;
        mounts.extend(told.mounts);
        notes.extend(told.notes);
        let program = self.program()?;
        let stages = config
            .lifecycle()
            .map(|(name, lifecycle)| {
                let commands = lifecycle
                    .commands()
                    .into_iter()
                    .map(|(_, command)| self.template(lifecycle.at, command.argv(&variables)))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(Stage {
                    name: name.to_owned(),
                    commands,
                })
            })
            .collect::<Result<Vec<_>, PlanError>>()?;

        let mut env = env;
        if let Some(path) = excludes {
            ignore_masks(&mut env, &self.image.env, path);
        }
        notes.extend(trust::variables(
            &mut env,
            &self.image.env,
            in_image,
            &mounts,
        ));

        let resources = config.agent.resources();
        let request = CreateRequest {
            session: self.session.clone(),
            name: self.name.map(str::to_owned),
            workspace: workspace.to_owned(),
            image: self.image.pinned.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            init_volume: self.init_volume.clone(),
            init: InitArguments {
                wait_ms: None,
                terminal: self.terminal,
                stages,
                program,
            },
            user: identity.spec.clone(),
            hostname: hostname(self.name.unwrap_or(self.session.as_str())),
            working_dir,
            env,
            mounts,
            limits: Limits {
                memory: resources.memory.as_ref().map(|m| m.value.bytes()),
                milli_cpus: resources.cpus.as_ref().map(|c| c.value.milli()),
                pids: resources.pids.as_ref().map_or(DEFAULT_PIDS, |p| p.value),
            },
            tty: self.tty,
            stdin: self.stdin,
            stop_signal: self.image.stop_signal.clone(),
            stop_timeout: STOP_TIMEOUT,
        };
        Ok(Planned {
            request,
            identity,
            notes,
        })
    }

    /// Where the workspace is somebody else's than the container's user, what becomes of that.
    fn whose(&self, identity: &Identity) -> Option<String> {
        let (uid, gid) = self.owner;
        let user = (identity.uid, identity.gid);
        if self.is_alone() || user.0 == 0 || user == self.owner {
            return None;
        }
        let inside = format!("{}:{}", user.0, user.1);
        match mapped_owner(self.config, self.owner) {
            // The group alone, which is root's.
            Some(_) if user.0 == uid && gid == 0 => None,
            Some(_) => Some(format!(
                "the workspace is {uid}:{gid}'s on this machine and {inside}'s inside: what is made there belongs to {uid}:{gid} here"
            )),
            None if uid == 0 => Some(format!(
                "the workspace is root's, for whom nobody inside stands: {inside} writes in it only what its permissions let everybody write"
            )),
            None => Some(format!(
                "the workspace is {uid}:{gid}'s, inside too, as `updateRemoteUserUID` says: {inside} writes in it only what its permissions let everybody write"
            )),
        }
    }

    fn is_alone(&self) -> bool {
        self.agent.is_some_and(|agent| agent.alone)
    }

    fn template<T>(&self, at: Position, result: Result<T, TemplateError>) -> Result<T, PlanError> {
        result.map_err(|e| {
            self.config
                .diagnostic(at, "substitution", e.to_string())
                .into()
        })
    }

    fn mount<T>(&self, at: Position, result: Result<T, MountError>) -> Result<T, PlanError> {
        result.map_err(|e| self.config.diagnostic(at, "mount", e.to_string()).into())
    }

    fn check_host(&self) -> Result<(), PlanError> {
        let Some(required) = &self.config.host_requirements else {
            return Ok(());
        };
        match required.unmet(self.engine.cpus, self.engine.memory) {
            Some(missing) => Err(self
                .config
                .diagnostic(required.at, "host-requirements", missing)
                .into()),
            None => Ok(()),
        }
    }

    /// The terminal's, then containerEnv, then remoteEnv, then `-e`, then placeholders, then ours.
    fn environment(
        &self,
        variables: &Variables<'_>,
        identity: &Identity,
    ) -> Result<BTreeMap<String, Option<String>>, PlanError> {
        let mut env: BTreeMap<String, Option<String>> = BTreeMap::new();
        if self.tty {
            let terminal = terminal::environment(self.local_env).into_iter();
            let unset = terminal.filter(|(name, _)| !self.image.env.contains_key(name));
            env.extend(unset.map(|(name, value)| (name, Some(value))));
        }
        if let Some(agent) = self.agent {
            env.extend(agent.environment(&self.image.env));
        }
        let profile = self.config.profile.iter().flat_map(|added| &added.env);
        for (name, value) in profile {
            env.insert(name.as_str().to_owned(), Some(value.clone()));
        }
        if identity.made_up {
            env.insert("HOME".to_owned(), Some(identity.home.clone()));
        }
        for (name, value) in &self.config.container_env {
            let text = self.template(value.at, value.substitute(variables))?;
            env.insert(name.as_str().to_owned(), Some(text));
        }
        let before = env.clone();
        let container_env = |name: &str| {
            before
                .get(name)
                .cloned()
                .flatten()
                .or_else(|| self.image.env.get(name).cloned())
        };
        let variables = Variables {
            container_env: &container_env,
            ..*variables
        };
        for (name, value) in &self.config.remote_env {
            let text = match &value.value {
                Some(template) => Some(self.template(value.at, template.substitute(&variables))?),
                None => None,
            };
            env.insert(name.as_str().to_owned(), text);
        }
        for (name, value) in self.env.iter().chain(self.placeholders) {
            env.insert(name.clone(), Some(value.clone()));
        }
        env.insert(
            "AGENTCONTAINER_SESSION".to_owned(),
            Some(self.session.to_string()),
        );
        Ok(env)
    }

    fn mounts(
        &self,
        variables: &Variables<'_>,
        target: &str,
        read_only: bool,
        identity: &Identity,
        notes: &mut Vec<String>,
    ) -> Result<(Vec<Mount>, Option<&'static str>), PlanError> {
        let mut excludes = None;
        let mut mounts = Vec::new();
        if !self.is_alone() {
            mounts.push(Mount::Workspace {
                source: text(self.workspace)?.to_owned(),
                target: target.to_owned(),
                read_only,
            });
        }
        if let Some(agent) = self.agent {
            mounts.extend(agent.mounts(self.session_dir, self.doing)?);
        }
        let owner = (identity.uid, identity.gid);
        let mut seen = look::through(self.workspace, look::MAX_ENTRIES);
        if !read_only && !self.is_alone() {
            let _hold = match self.doing {
                Doing::Write => Some(Hold::take(self.session_dir)?),
                Doing::Look => None,
            };
            let controls = control::mounts(
                self.workspace,
                target,
                self.session_dir,
                self.owner,
                &self.workspace.join(&self.config.file),
                self.doing,
            )?;
            let git = git::prepare(
                self.workspace,
                self.repository,
                target,
                self.session_dir,
                owner,
                &controls.masks,
                &seen,
                self.doing,
            )?;
            // Two may want the same directory above what they bind.
            for mount in git.mounts.into_iter().chain(controls.mounts) {
                add(&mut mounts, mount);
            }
            notes.extend(git.notes);
            excludes = git.excludes;
            seen.doors.extend(git.doors);
            seen.closed.extend(git.closed);
        } else if self.repository.outside().is_some() {
            notes.push(
                "the repository lies outside the workspace, which is read-only: git does not work inside"
                    .to_owned(),
            );
        }
        if identity.made_up {
            let accounts = self.contents.accounts.with(identity);
            for (name, content) in [("passwd", &accounts.passwd), ("group", &accounts.group)] {
                let path = self.session_dir.join(name);
                self.doing.write_readable(&path, content)?;
                mounts.push(Mount::Session {
                    source: text(&path)?.to_owned(),
                    target: format!("/etc/{name}"),
                    read_only: true,
                });
            }
            mounts.push(Mount::Tmpfs {
                target: identity.home.clone(),
                size: None,
                owner: Some(owner),
            });
        }
        for mount in &self.config.mounts {
            let resolved = self.mount(mount.at, mount.resolve(variables))?;
            let mount = match resolved.source {
                ResolvedSource::Workspace { below } => {
                    let source = self.inside(mount.at, &below)?;
                    if !read_only {
                        // The engine follows the path again: no session may put a link in its place meanwhile.
                        let path = Path::new(&source);
                        control::keep_in_place(&mut mounts, self.workspace, target, path);
                    }
                    Mount::Inside {
                        source,
                        target: resolved.target,
                    }
                }
                ResolvedSource::Volume { name } => Mount::Volume {
                    name,
                    target: resolved.target,
                    read_only: resolved.read_only,
                },
                ResolvedSource::Tmpfs { size } => Mount::Tmpfs {
                    target: resolved.target,
                    size: size.map(|s| s.bytes()),
                    owner: None,
                },
            };
            mounts.push(mount);
        }
        notes.extend(veil::cover(
            &mut mounts,
            self.workspace,
            &seen,
            self.session_dir,
            self.doing,
        )?);
        if seen.cut_off {
            notes.push(
                "there are more files in the workspace than are looked through for sockets"
                    .to_owned(),
            );
        }
        Ok((mounts, excludes))
    }

    /// A path below the workspace, after its links were followed.
    fn inside(&self, at: Position, below: &str) -> Result<String, PlanError> {
        let wrong = |why: String| self.config.diagnostic(at, "mount", why);
        let path = self
            .workspace
            .join(below)
            .canonicalize()
            .map_err(|e| wrong(format!("{below} in the workspace cannot be mounted: {e}")))?;
        if !path.starts_with(self.workspace) {
            return Err(wrong(format!("{below} leads out of the workspace")).into());
        }
        Ok(text(&path)?.to_owned())
    }

    /// What was asked for, else what the image runs; a detached session that overrides the image's command idles.
    fn program(&self) -> Result<Vec<String>, PlanError> {
        if !self.command.is_empty() {
            return Ok(self.command.to_vec());
        }
        if self.detached && self.config.override_command != Some(false) {
            return Ok(Vec::new());
        }
        let program: Vec<String> = self
            .image
            .entrypoint
            .iter()
            .chain(&self.image.cmd)
            .cloned()
            .collect();
        if program.is_empty() {
            return Err(PlanError::NoProgram);
        }
        Ok(program)
    }
}

/// A name that a host may have: what is given, or what of it can stand.
fn hostname(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .take(63)
        .collect();
    let name = name.trim_matches('-');
    if name.is_empty() {
        "agent".to_owned()
    } else {
        name.to_owned()
    }
}

/// Tells git by its environment which files are only masks (git-config(1), GIT_CONFIG_COUNT), unless it is told something else.
fn ignore_masks(
    env: &mut BTreeMap<String, Option<String>>,
    image: &BTreeMap<String, String>,
    path: &str,
) {
    const COUNT: &str = "GIT_CONFIG_COUNT";
    if env.contains_key(COUNT) || image.contains_key(COUNT) {
        return;
    }
    for (name, value) in [
        (COUNT, "1"),
        ("GIT_CONFIG_KEY_0", "core.excludesFile"),
        ("GIT_CONFIG_VALUE_0", path),
    ] {
        env.insert(name.to_owned(), Some(value.to_owned()));
    }
}

/// Adds a mount, or tightens the one that is there.
fn add(mounts: &mut Vec<Mount>, mount: Mount) {
    let same = mounts.iter_mut().find(|m| m.target() == mount.target());
    match (same, &mount) {
        (
            Some(Mount::Control { read_only, .. }),
            Mount::Control {
                read_only: also, ..
            },
        ) => *read_only |= also,
        (Some(_), _) => {}
        (None, _) => mounts.push(mount),
    }
}

#[cfg(test)]
mod tests;
