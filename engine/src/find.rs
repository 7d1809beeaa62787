//! Finds the container engine without being told: the host's configuration, `DOCKER_HOST`, the docker context, the sockets
//! engines listen on by default, in that order. Only Unix sockets of this machine in this version; anything else is
//! refused in words, never passed over. `Surroundings` is the environment as a value, so that tests need none.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::EngineError;
use schema::hostconfig::Engine as Configured;

/// `sockaddr_un.sun_path` with its closing zero.
const SUN_PATH: usize = 108;
/// The largest docker configuration or context file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where an engine listens, and what named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub socket: PathBuf,
    /// For people: `DOCKER_HOST`, `docker context NAME`, `config.toml`, `default socket`.
    pub by: String,
}

/// What of the environment decides.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// `engine` in the host's config.toml.
    pub configured: Configured,
    pub docker_host: Option<String>,
    pub docker_context: Option<String>,
    /// `DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// `XDG_RUNTIME_DIR`.
    pub runtime_dir: Option<PathBuf>,
}

impl Surroundings {
    /// Reads the process's environment.
    pub fn from_env(configured: Configured) -> Self {
        let var = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        Self {
            configured,
            docker_host: var("DOCKER_HOST"),
            docker_context: var("DOCKER_CONTEXT"),
            docker_config: var("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| var("HOME").map(|h| Path::new(&h).join(".docker"))),
            runtime_dir: var("XDG_RUNTIME_DIR").map(PathBuf::from),
        }
    }

    fn docker_sockets(&self) -> Vec<PathBuf> {
        let mut sockets = vec![
            PathBuf::from("/var/run/docker.sock"),
            PathBuf::from("/run/docker.sock"),
        ];
        if let Some(dir) = &self.runtime_dir {
            sockets.push(dir.join("docker.sock"));
        }
        sockets
    }

    fn podman_sockets(&self) -> Vec<PathBuf> {
        let mut sockets = vec![PathBuf::from("/run/podman/podman.sock")];
        if let Some(dir) = &self.runtime_dir {
            sockets.push(dir.join("podman/podman.sock"));
        }
        sockets
    }
}

/// Finds the engine. `is_socket` says whether a path is a socket (the file system's answer in the program, a table in
/// tests).
pub fn find(
    around: &Surroundings,
    is_socket: &dyn Fn(&Path) -> bool,
) -> Result<Endpoint, EngineError> {
    let configured = "config.toml";
    match &around.configured {
        Configured::Auto => {}
        Configured::Docker => return first(around.docker_sockets(), configured, is_socket),
        Configured::Podman => return first(around.podman_sockets(), configured, is_socket),
        Configured::Unix(path) => return from_path(path, configured),
        Configured::Ssh(url) | Configured::Tcp(url) => return from_url(url, configured),
    }
    if let Some(url) = &around.docker_host {
        return from_url(url, "DOCKER_HOST");
    }
    if let Some(endpoint) = from_context(around)? {
        return Ok(endpoint);
    }
    let mut sockets = around.docker_sockets();
    sockets.extend(around.podman_sockets());
    first(sockets, "default socket", is_socket)
}

fn first(
    sockets: Vec<PathBuf>,
    by: &str,
    is_socket: &dyn Fn(&Path) -> bool,
) -> Result<Endpoint, EngineError> {
    match sockets.iter().find(|s| is_socket(s)) {
        Some(socket) => Ok(Endpoint {
            socket: socket.clone(),
            by: by.to_owned(),
        }),
        None => Err(EngineError::NotFound { tried: sockets }),
    }
}

fn from_url(url: &str, by: &str) -> Result<Endpoint, EngineError> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err(EngineError::Name {
            by: by.to_owned(),
            value: url.to_owned(),
        });
    };
    if scheme != "unix" {
        return Err(EngineError::Scheme {
            by: by.to_owned(),
            scheme: format!("{scheme}://"),
        });
    }
    if !rest.starts_with('/') {
        return Err(EngineError::Name {
            by: by.to_owned(),
            value: url.to_owned(),
        });
    }
    from_path(Path::new(rest), by)
}

fn from_path(socket: &Path, by: &str) -> Result<Endpoint, EngineError> {
    if socket.as_os_str().len() >= SUN_PATH {
        return Err(EngineError::SocketPath(socket.to_owned()));
    }
    Ok(Endpoint {
        socket: socket.to_owned(),
        by: by.to_owned(),
    })
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints", default)]
    endpoints: std::collections::BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
struct ContextEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// The docker CLI's context: `DOCKER_CONTEXT`, or `currentContext` of its configuration. `default` means none.
fn from_context(around: &Surroundings) -> Result<Option<Endpoint>, EngineError> {
    let Some(dir) = &around.docker_config else {
        return Ok(None);
    };
    let name = match &around.docker_context {
        Some(name) => Some(name.clone()),
        None => match read(&dir.join("config.json")) {
            Ok(bytes) => {
                serde_json::from_slice::<DockerConfig>(&bytes)
                    .map_err(|e| EngineError::Context {
                        name: dir.join("config.json").display().to_string(),
                        reason: e.to_string(),
                    })?
                    .current_context
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => {
                return Err(EngineError::Io {
                    call: "read",
                    path: dir.join("config.json"),
                    source,
                });
            }
        },
    };
    let Some(name) = name.filter(|n| !n.is_empty() && n != "default") else {
        return Ok(None);
    };
    // The directory's name is the digest of the context's.
    let digest = schema::digest::Digest::of(name.as_bytes()).to_string();
    let hex = digest.strip_prefix("sha256:").unwrap_or(&digest);
    let path = dir.join("contexts/meta").join(hex).join("meta.json");
    let context = |reason: String| EngineError::Context {
        name: name.clone(),
        reason,
    };
    let bytes = read(&path).map_err(|e| context(e.to_string()))?;
    let meta: ContextMeta = serde_json::from_slice(&bytes).map_err(|e| context(e.to_string()))?;
    let Some(endpoint) = meta.endpoints.get("docker") else {
        return Err(context("it has no docker endpoint".to_owned()));
    };
    from_url(&endpoint.host, &format!("docker context {name}")).map(Some)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_FILE)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn around() -> Surroundings {
        Surroundings {
            configured: Configured::Auto,
            docker_host: None,
            docker_context: None,
            docker_config: None,
            runtime_dir: None,
        }
    }

    fn only(path: &'static str) -> impl Fn(&Path) -> bool {
        move |p| p == Path::new(path)
    }

    #[test]
    fn docker_host_wins_over_the_default_socket_and_the_configuration_over_both() {
        let mut at = Surroundings {
            docker_host: Some("unix:///a.sock".into()),
            ..around()
        };
        let all = |_: &Path| true;
        assert_eq!(find(&at, &all).unwrap().socket, Path::new("/a.sock"));
        at.configured = Configured::Unix("/b.sock".into());
        assert_eq!(find(&at, &all).unwrap().socket, Path::new("/b.sock"));
        at.configured = Configured::Podman;
        assert_eq!(
            find(&at, &all).unwrap().socket,
            Path::new("/run/podman/podman.sock")
        );
    }

    #[test]
    fn a_remote_engine_is_refused_in_words_and_never_passed_over() {
        for url in [
            "tcp://10.0.0.1:2376",
            "ssh://host",
            "npipe:////./pipe/x",
            "http://x",
        ] {
            let at = Surroundings {
                docker_host: Some(url.into()),
                ..around()
            };
            let refused = find(&at, &|_| true).unwrap_err();
            assert!(matches!(refused, EngineError::Scheme { .. }), "{url}");
            assert!(refused.help().is_some());
        }
        let at = Surroundings {
            configured: Configured::Ssh("ssh://host".into()),
            ..around()
        };
        assert!(matches!(
            find(&at, &|_| true),
            Err(EngineError::Scheme { .. })
        ));
        for url in ["/var/run/docker.sock", "unix://relative", "unix://", "x"] {
            let at = Surroundings {
                docker_host: Some(url.into()),
                ..around()
            };
            assert!(matches!(
                find(&at, &|_| true),
                Err(EngineError::Name { .. })
            ));
        }
    }

    #[test]
    fn a_socket_path_longer_than_the_kernel_takes_is_an_error() {
        let fits = format!("unix:///{}", "a".repeat(SUN_PATH - 2));
        let long = format!("unix:///{}", "a".repeat(SUN_PATH - 1));
        assert!(from_url(&fits, "DOCKER_HOST").is_ok());
        assert!(matches!(
            from_url(&long, "DOCKER_HOST"),
            Err(EngineError::SocketPath(_))
        ));
    }

    #[test]
    fn without_any_socket_the_error_names_what_was_tried() {
        let refused = find(&around(), &|_| false).unwrap_err();
        assert!(refused.to_string().contains("/var/run/docker.sock"));
        assert_eq!(refused.code(), "engine-not-found");
        let at = Surroundings {
            runtime_dir: Some("/run/user/7".into()),
            ..around()
        };
        assert_eq!(
            find(&at, &only("/run/user/7/podman/podman.sock"))
                .unwrap()
                .by,
            "default socket"
        );
    }

    #[test]
    fn the_current_docker_context_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(
            dir.path().join("config.json"),
            br#"{"currentContext":"lab","auths":{}}"#,
        )
        .unwrap();
        let hex = schema::digest::Digest::of(b"lab").to_string()[7..].to_owned();
        let meta = dir.path().join("contexts/meta").join(hex);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            br#"{"Name":"lab","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///lab.sock","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        let mut at = Surroundings {
            docker_config: Some(dir.path().to_owned()),
            ..around()
        };
        let found = find(&at, &|_| true).unwrap();
        assert_eq!(found.socket, Path::new("/lab.sock"));
        assert_eq!(found.by, "docker context lab");
        // A context that is named but not there is an error, not a reason to take another engine.
        at.docker_context = Some("gone".into());
        assert!(matches!(
            find(&at, &|_| true),
            Err(EngineError::Context { .. })
        ));
        at.docker_context = Some("default".into());
        assert_eq!(find(&at, &|_| true).unwrap().by, "default socket");
    }
}
