//! What can go wrong between us and a container engine, as one matchable type. Every variant says what failed and, where
//! there is one, what the person can do; the CLI turns it into a diagnostic with a stable code.

use std::path::PathBuf;

use crate::request::Violation;

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("no container engine was found: none of {} is a socket", list(.tried))]
    NotFound { tried: Vec<PathBuf> },
    #[error(
        "the container engine named by {by} cannot be used: {scheme} is not supported yet, only unix:// is"
    )]
    Scheme { by: String, scheme: String },
    #[error("the container engine named by {by} cannot be understood: {value}")]
    Name { by: String, value: String },
    #[error("the path of the container engine's socket is longer than a Unix socket's may be: {}", .0.display())]
    SocketPath(PathBuf),
    #[error("the docker context {name} cannot be read: {reason}")]
    Context { name: String, reason: String },
    #[error("the container engine at {} does not answer: {reason}", .socket.display())]
    Unreachable { socket: PathBuf, reason: String },
    #[error("this user may not talk to the container engine at {}", .0.display())]
    Forbidden(PathBuf),
    #[error("the container engine runs {0} containers, not linux ones")]
    NotLinux(String),
    #[error("the container engine works on cgroup v1; sessions are held by cgroup v2")]
    CgroupV1,
    #[error(
        "the container engine uses the cgroup driver {0}, which is not supported; systemd and cgroupfs are"
    )]
    CgroupDriver(String),
    #[error(
        "the container engine speaks API {found}, and {needed} is the oldest that this works with"
    )]
    TooOld { found: String, needed: &'static str },
    #[error("the image {reference} is neither on this machine nor can it be pulled: {reason}")]
    Image { reference: String, reason: String },
    #[error("the secret for {0} has characters that the engine's API cannot be sent")]
    LoginSpelling(String),
    #[error("the image {reference} is for {found}, and the engine runs linux")]
    ImagePlatform { reference: String, found: String },
    #[error("the create request would hand out more than a session may have: {0}")]
    Refused(#[from] Violation),
    #[error("no container has the id or name {0}")]
    NoContainer(String),
    #[error("the volume {0} is in use")]
    VolumeInUse(String),
    #[error("the loaded image's {file} is not the one built into this program")]
    SidecarContent { file: String },
    #[error("the engine did not take the enforcer's image: {0}")]
    SidecarLoad(String),
    #[error("the engine refused to {what}: {reason}")]
    Api { what: &'static str, reason: String },
    #[error("cannot {call} {}: {source}", .path.display())]
    Io {
        call: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the enforcer's answer holds no certificate of the session")]
    SessionCertificate,
    #[error("{} is a symbolic link; git's directory has to be the workspace's own", .0.display())]
    GitSymlink(PathBuf),
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|p| p.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

impl EngineError {
    /// An answer of the engine's that was not a success, with the engine's own words.
    pub(crate) fn api(what: &'static str) -> impl FnOnce(bollard::errors::Error) -> Self {
        move |error| Self::Api {
            what,
            reason: reason(&error),
        }
    }

    pub(crate) fn io(
        call: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { call, path, source }
    }

    /// A stable code for `--json`.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "engine-not-found",
            Self::Scheme { .. } => "engine-scheme",
            Self::Name { .. } | Self::SocketPath(_) => "engine-name",
            Self::Context { .. } => "engine-context",
            Self::Unreachable { .. } => "engine-unreachable",
            Self::Forbidden(_) => "engine-forbidden",
            Self::NotLinux(_) => "engine-not-linux",
            Self::CgroupV1 => "engine-cgroup-v1",
            Self::CgroupDriver(_) => "engine-cgroup-driver",
            Self::TooOld { .. } => "engine-too-old",
            Self::Image { .. } => "image-not-found",
            Self::LoginSpelling(_) => "login-spelling",
            Self::ImagePlatform { .. } => "image-platform",
            Self::Refused(_) => "create-request",
            Self::NoContainer(_) => "no-container",
            Self::VolumeInUse(_) => "volume-in-use",
            Self::SidecarContent { .. } => "enforcer-image-content",
            Self::SidecarLoad(_) => "enforcer-image-load",
            Self::Api { .. } => "engine-refused",
            Self::Io { .. } => "io",
            Self::SessionCertificate => "session-certificate",
            Self::GitSymlink(_) => "git-symlink",
        }
    }

    /// What to do next, where something can be done.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound { .. } => {
                "install Docker (Debian, Ubuntu: apt-get install docker.io), or name the engine's socket with DOCKER_HOST"
            }
            Self::Scheme { .. } => {
                "point DOCKER_HOST, the docker context or `engine` in config.toml at a unix:// socket on this machine"
            }
            Self::Unreachable { .. } => "start the engine: systemctl start docker",
            Self::Forbidden(_) => {
                "add yourself to the engine's group (usermod -aG docker NAME), or run as a user who may use it; it is root on this machine"
            }
            Self::CgroupV1 => {
                "boot with systemd.unified_cgroup_hierarchy=1, then restart the engine"
            }
            Self::CgroupDriver(_) => {
                "set \"exec-opts\": [\"native.cgroupdriver=systemd\"] in /etc/docker/daemon.json and restart the engine"
            }
            Self::TooOld { .. } => "install Docker 20.10 or newer",
            Self::Image { .. } => {
                "check the reference's spelling, that the registry can be reached, and `docker login` where it wants one"
            }
            Self::GitSymlink(_) => "move git's directory into the workspace",
            _ => return None,
        })
    }
}

/// The engine's own message, without bollard's frame around it.
pub(crate) fn reason(error: &bollard::errors::Error) -> String {
    match error {
        bollard::errors::Error::DockerResponseServerError { message, .. } => message.clone(),
        bollard::errors::Error::DockerStreamError { error } => error.clone(),
        other => {
            // hyper's messages say little; the cause below them says it.
            let mut text = other.to_string();
            let mut source = std::error::Error::source(other);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            text
        }
    }
}

/// True when the engine said that what was asked for is not there.
pub(crate) fn is_missing(error: &bollard::errors::Error) -> bool {
    matches!(
        error,
        bollard::errors::Error::DockerResponseServerError {
            status_code: 404,
            ..
        }
    )
}
