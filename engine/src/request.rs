//! The create request of a session's container as a closed value: what is not a field here cannot be asked of an engine,
//! whichever key of whichever file it came by. `check` holds it against an allow-list, and only a checked request becomes
//! the engine's model (`model`). Built by `plan`, printed by `run --plan`.

mod check;
mod model;

use std::collections::BTreeMap;
use std::fmt;

use schema::digest::Digest;
use schema::session::SessionId;
use serde::Serialize;

pub use check::{Checked, HostPlaces, Violation};

/// Where init lies in every session's container.
pub const INIT_DIR: &str = "/.agentcontainer";
pub const INIT: &str = "/.agentcontainer/agentcontainer-init";
/// Where names are answered; see enforcer_common::DNS_ADDR.
pub const DNS: &str = "198.18.0.2";

pub const LABEL_SESSION: &str = "dev.agentcontainer.session";
pub const LABEL_WORKSPACE: &str = "dev.agentcontainer.workspace";
pub const LABEL_VERSION: &str = "dev.agentcontainer.version";
/// The name a person gave with `--name`.
pub const LABEL_NAME: &str = "dev.agentcontainer.name";
/// On volumes of agents: which agent's.
pub const LABEL_AGENT: &str = "dev.agentcontainer.agent";
/// On everything the enforcer's sidecar is made of.
pub const LABEL_SIDECAR: &str = "dev.agentcontainer.sidecar";

/// Everything that a session's container is made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateRequest {
    pub session: SessionId,
    /// A friendly name; labels only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The workspace's path on the host; label only.
    pub workspace: String,
    pub image: PinnedImage,
    /// The session's cgroup, as the enforcer answered.
    pub cgroup_parent: String,
    /// The volume that holds init.
    pub init_volume: String,
    pub init: InitArguments,
    pub user: String,
    pub hostname: String,
    pub working_dir: String,
    /// `None` takes a variable of the image's away.
    pub env: BTreeMap<String, Option<String>>,
    pub mounts: Vec<Mount>,
    pub limits: Limits,
    pub tty: bool,
    pub stdin: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL.
    pub stop_timeout: u32,
}

/// An image that cannot change under its name: a repository and a digest, or the image's id where only the engine has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinnedImage {
    /// `None`: local, and `digest` is the image id.
    pub repository: Option<String>,
    pub digest: Digest,
}

impl PinnedImage {
    pub fn is_local(&self) -> bool {
        self.repository.is_none()
    }
}

impl fmt::Display for PinnedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repository {
            Some(repository) => write!(f, "{repository}@{}", self.digest),
            None => write!(f, "{}", self.digest),
        }
    }
}

impl Serialize for PinnedImage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What init does: wait for the enforcer, run the stages, then the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InitArguments {
    /// How long init waits for the enforcer's challenge, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Rows and columns that the terminal has before the program asks; the engine can be told only after the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminal: Option<(u16, u16)>,
    /// Empty: no program, wait until signalled.
    pub program: Vec<String>,
}

/// One lifecycle command of a devcontainer: its commands run side by side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    pub name: String,
    pub commands: Vec<Vec<String>>,
}

/// Where the repository of a workspace is that lies outside it: what its working trees have in common, and what is this one's.
pub const LENT_COMMON: &str = "/.agentcontainer-repository";
pub const LENT_OWN: &str = "/.agentcontainer-worktree";

/// What may be mounted, and why it is there: the reason decides what is checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "kind")]
pub enum Mount {
    /// The workspace.
    Workspace {
        source: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// A control file or git directory of the workspace, bound over itself.
    Control {
        source: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// Of the repository outside that the workspace is a working tree of.
    Repository {
        source: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// A file that we made for this session, in our state directory.
    Session {
        source: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// The session's trust files, in its directory: read-only.
    Trust { source: String, target: String },
    /// Something of the workspace at another place, read-only: a second writable way in would go around the control files.
    Inside { source: String, target: String },
    /// A named volume of the engine's.
    Volume {
        name: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    /// A volume of ours that an agent's state or program is in.
    Agent {
        name: String,
        target: String,
        #[serde(rename = "readOnly")]
        read_only: bool,
    },
    Tmpfs {
        target: String,
        /// Bytes; `None`: half of the machine's memory, as the kernel has it.
        size: Option<u64>,
        /// Whose it is, and then nobody else's (mode 0700); `None`: everybody's, as /tmp is.
        owner: Option<(u32, u32)>,
    },
}

impl Mount {
    pub fn target(&self) -> &str {
        match self {
            Self::Workspace { target, .. }
            | Self::Control { target, .. }
            | Self::Repository { target, .. }
            | Self::Session { target, .. }
            | Self::Trust { target, .. }
            | Self::Inside { target, .. }
            | Self::Volume { target, .. }
            | Self::Agent { target, .. }
            | Self::Tmpfs { target, .. } => target,
        }
    }
}

/// What the container may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Bytes; swap is included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Thousandths of a processor.
    #[serde(rename = "milliCpus", skip_serializing_if = "Option::is_none")]
    pub milli_cpus: Option<u32>,
    pub pids: u32,
}

/// Processes and threads of a session unless the config says otherwise: enough for a parallel build, too few for a fork
/// bomb to take the machine along.
pub const DEFAULT_PIDS: u32 = 4096;

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory: None,
            milli_cpus: None,
            pids: DEFAULT_PIDS,
        }
    }
}

impl InitArguments {
    /// Init's argument list (`init/`, usage).
    pub fn to_args(&self) -> Vec<String> {
        let mut args = Vec::new();
        if let Some(ms) = self.wait_ms {
            args.push("--wait-ms".to_owned());
            args.push(ms.to_string());
        }
        if let Some((rows, columns)) = self.terminal {
            args.extend([
                "--terminal".to_owned(),
                rows.to_string(),
                columns.to_string(),
            ]);
        }
        for stage in &self.stages {
            args.push("--stage".to_owned());
            args.push(stage.name.clone());
            for command in &stage.commands {
                args.push("--cmd".to_owned());
                args.push(command.len().to_string());
                args.extend(command.iter().cloned());
            }
        }
        if self.program.is_empty() {
            args.push("--idle".to_owned());
        } else {
            args.push("--".to_owned());
            args.extend(self.program.iter().cloned());
        }
        args
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A request as `run` makes it.
    pub(crate) fn sample() -> CreateRequest {
        CreateRequest {
            session: SessionId::parse("k3v9x2").unwrap(),
            name: Some("demo".into()),
            workspace: "/home/ada/project".into(),
            image: PinnedImage {
                repository: Some("registry.test/app".into()),
                digest: Digest::of(b"image"),
            },
            cgroup_parent: "/agentcontainer/k3v9x2".into(),
            init_volume: "agentcontainer-init-0123456789ab".into(),
            init: InitArguments {
                wait_ms: None,
                terminal: None,
                stages: vec![],
                program: vec!["bash".into()],
            },
            user: "1000:1000".into(),
            hostname: "demo".into(),
            working_dir: "/workspaces/project".into(),
            env: BTreeMap::from([("AGENTCONTAINER_SESSION".into(), Some("k3v9x2".into()))]),
            mounts: vec![
                Mount::Workspace {
                    source: "/home/ada/project".into(),
                    target: "/workspaces/project".into(),
                    read_only: false,
                },
                Mount::Control {
                    source: "/home/ada/project/.git".into(),
                    target: "/workspaces/project/.git".into(),
                    read_only: false,
                },
                Mount::Tmpfs {
                    target: "/home/agent".into(),
                    size: None,
                    owner: Some((1000, 1000)),
                },
            ],
            limits: Limits::default(),
            tty: false,
            stdin: false,
            stop_signal: None,
            stop_timeout: 10,
        }
    }

    #[test]
    fn stages_and_program_reach_init_with_their_argument_counts() {
        let init = InitArguments {
            wait_ms: Some(500),
            terminal: Some((41, 97)),
            stages: vec![
                Stage {
                    name: "onCreateCommand".into(),
                    commands: vec![
                        vec!["/bin/sh".into(), "-c".into(), "make".into()],
                        vec!["true".into()],
                    ],
                },
                Stage {
                    name: "postStartCommand".into(),
                    commands: vec![vec!["--".into()]],
                },
            ],
            program: vec!["sleep".into(), "1".into()],
        };
        assert_eq!(
            init.to_args().join(" "),
            "--wait-ms 500 --terminal 41 97 --stage onCreateCommand --cmd 3 /bin/sh -c make --cmd 1 true \
             --stage postStartCommand --cmd 1 -- -- sleep 1"
        );
        assert_eq!(InitArguments::default().to_args(), ["--idle"]);
    }
}
