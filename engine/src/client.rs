//! The connection to one engine, and what it says about itself. Everything else in this room goes through `Engine`; only
//! this room knows bollard.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use bollard::Docker;
use schema::session::SessionId;
use serde::Serialize;

use crate::error::reason;
use crate::find::{Endpoint, Surroundings, find};
use crate::{EngineError, error};

/// Seconds the engine has to begin an answer.
const TIMEOUT: u64 = 120;
/// The oldest API that has private cgroup namespaces: Docker 20.10.
const OLDEST_API: (usize, usize) = (1, 41);

/// One container engine.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) docker: Docker,
    endpoint: Endpoint,
}

/// What the engine says about itself, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EngineInfo {
    pub name: String,
    pub version: String,
    pub api: String,
    pub kernel: String,
    pub architecture: String,
    pub cgroup_driver: String,
    pub cgroup_version: String,
    pub os: String,
    /// Where the engine keeps its data.
    pub root: String,
    pub cpus: u32,
    /// Bytes.
    pub memory: u64,
    /// Limits that this engine discards.
    pub without: Vec<String>,
}

impl Engine {
    /// Finds the engine and opens a connection; asks it nothing but its version.
    pub async fn connect(configured: schema::hostconfig::Engine) -> Result<Self, EngineError> {
        let is_socket =
            |path: &Path| std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        Self::open(find(&Surroundings::from_env(configured), &is_socket)?).await
    }

    /// Opens a connection to the engine at `endpoint`.
    pub async fn open(endpoint: Endpoint) -> Result<Self, EngineError> {
        let socket = endpoint.socket.clone();
        let unreachable = |reason: String| EngineError::Unreachable {
            socket: socket.clone(),
            reason,
        };
        // bollard's error for a connection that was refused does not say why; the kernel does.
        if let Err(e) = tokio::net::UnixStream::connect(&socket).await {
            return Err(match e.kind() {
                std::io::ErrorKind::PermissionDenied => EngineError::Forbidden(socket.clone()),
                _ => unreachable(e.to_string()),
            });
        }
        let docker = Docker::connect_with_unix(
            &socket.to_string_lossy(),
            TIMEOUT,
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(|e| unreachable(reason(&e)))?
        .negotiate_version()
        .await
        .map_err(|e| unreachable(reason(&e)))?;
        let api = docker.client_version();
        if (api.major_version, api.minor_version) < OLDEST_API {
            return Err(EngineError::TooOld {
                found: format!("{}.{}", api.major_version, api.minor_version),
                needed: "1.41",
            });
        }
        Ok(Self { docker, endpoint })
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Asks the engine what it is.
    pub async fn info(&self) -> Result<EngineInfo, EngineError> {
        let info = self
            .docker
            .info()
            .await
            .map_err(error::EngineError::api("say what it is"))?;
        let lower = |value: Option<String>| value.unwrap_or_default();
        let without = [
            (info.memory_limit, "memory"),
            (info.pids_limit, "pids"),
            (info.cpu_cfs_quota, "cpus"),
        ]
        .into_iter()
        .filter(|(there, _)| *there == Some(false))
        .map(|(_, name)| name.to_owned())
        .collect();
        let api = self.docker.client_version();
        Ok(EngineInfo {
            name: lower(info.name),
            version: lower(info.server_version),
            api: format!("{}.{}", api.major_version, api.minor_version),
            kernel: lower(info.kernel_version),
            architecture: lower(info.architecture),
            cgroup_driver: info
                .cgroup_driver
                .map(|d| d.to_string())
                .unwrap_or_default(),
            cgroup_version: info
                .cgroup_version
                .map(|v| v.to_string())
                .unwrap_or_default(),
            os: lower(info.os_type),
            root: lower(info.docker_root_dir),
            cpus: info
                .ncpu
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or_default(),
            memory: info
                .mem_total
                .and_then(|n| u64::try_from(n).ok())
                .unwrap_or_default(),
            without,
        })
    }
}

impl EngineInfo {
    /// Whether a session can be held on this engine; the first thing that is missing.
    pub fn check(&self) -> Result<(), EngineError> {
        if self.os != "linux" {
            return Err(EngineError::NotLinux(self.os.clone()));
        }
        if self.cgroup_version != "2" {
            return Err(EngineError::CgroupV1);
        }
        if self.cgroup_driver != "cgroupfs" && !self.slices() {
            return Err(EngineError::CgroupDriver(self.cgroup_driver.clone()));
        }
        Ok(())
    }

    /// Whether systemd makes its cgroups.
    pub fn slices(&self) -> bool {
        self.cgroup_driver == "systemd"
    }

    /// The parent of a session's container, as it is told of it.
    pub fn cgroup_parent(&self, session: &SessionId) -> String {
        match self.slices() {
            true => format!("agentcontainer-{session}.slice"),
            false => format!("/agentcontainer/{session}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn info() -> EngineInfo {
        EngineInfo {
            name: "lab".into(),
            version: "20.10.24".into(),
            api: "1.41".into(),
            kernel: "6.12.0".into(),
            architecture: "x86_64".into(),
            cgroup_driver: "cgroupfs".into(),
            cgroup_version: "2".into(),
            os: "linux".into(),
            root: "/var/lib/docker".into(),
            cpus: 2,
            memory: 1 << 32,
            without: vec![],
        }
    }

    #[test]
    fn an_engine_that_cannot_hold_a_session_is_refused_in_words() {
        assert!(info().check().is_ok());
        let v1 = EngineInfo {
            cgroup_version: "1".into(),
            ..info()
        };
        assert!(matches!(v1.check(), Err(EngineError::CgroupV1)));
        let systemd = EngineInfo {
            cgroup_driver: "systemd".into(),
            ..info()
        };
        assert!(systemd.check().is_ok());
        let id = SessionId::parse("k3v9x2").unwrap();
        assert_eq!(systemd.cgroup_parent(&id), "agentcontainer-k3v9x2.slice");
        assert_eq!(info().cgroup_parent(&id), "/agentcontainer/k3v9x2");
        let none = EngineInfo {
            cgroup_driver: "none".into(),
            ..info()
        };
        let refused = none.check().unwrap_err();
        assert!(refused.to_string().contains("not supported"));
        assert!(
            refused
                .help()
                .unwrap()
                .contains("native.cgroupdriver=systemd")
        );
        let windows = EngineInfo {
            os: "windows".into(),
            ..info()
        };
        assert!(matches!(windows.check(), Err(EngineError::NotLinux(_))));
    }

    #[tokio::test]
    async fn a_missing_engine_is_one_clear_error() {
        let dir = tempfile::tempdir().unwrap();
        let refused = Engine::open(Endpoint {
            socket: dir.path().join("gone.sock"),
            by: "DOCKER_HOST".into(),
        })
        .await
        .unwrap_err();
        assert!(matches!(refused, EngineError::Unreachable { .. }));
        assert_eq!(refused.code(), "engine-unreachable");
    }
}
