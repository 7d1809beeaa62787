//! The enforcer's sidecar: its image is loaded from our own bytes, its container made, started and looked at. The image is run
//! by id and never by its tag, which anybody who may build images can move. What runs is asked again over the control
//! channel by the caller (`Status.binary_sha256`).

pub mod archive;

use std::collections::HashMap;
use std::path::PathBuf;

use bollard::models;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ImportImageOptionsBuilder, InspectContainerOptions,
    ListContainersOptionsBuilder, ListVolumesOptionsBuilder, LogsOptionsBuilder,
    RemoveVolumeOptionsBuilder,
};
use futures_util::StreamExt;

use crate::error::{is_missing, reason};
use crate::request::{LABEL_SIDECAR, LABEL_VERSION, PinnedImage};
use crate::{Engine, EngineError};
use schema::digest::Digest;

/// What is built into this program: the image, and the digests of what is in it.
#[derive(Clone, Copy, Debug)]
pub struct Embedded {
    pub archive: &'static [u8],
    /// The image's id on engines that name images by their configuration's digest.
    pub id: Digest,
    pub enforcer: Digest,
    pub gateway: Digest,
    pub init: Digest,
}

impl Embedded {
    /// The first twelve digits: what everything that belongs to this version is named by.
    pub fn short(&self) -> String {
        self.id.hex()[..12].to_owned()
    }

    /// The volume that holds init.
    pub fn init_volume(&self) -> String {
        format!("agentcontainer-init-{}", self.short())
    }
}

/// One user's sidecar of one version.
#[derive(Clone, Debug)]
pub struct Sidecar {
    pub embedded: Embedded,
    /// The user's id: each user has an enforcer of their own.
    pub uid: u32,
    /// The host directory that the control socket appears in.
    pub control: PathBuf,
}

/// What was found, or made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Running,
    Stopped,
    Absent,
}

/// A sidecar's container as the engine lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: String,
    pub name: String,
    pub state: String,
}

/// What the enforcer needs and nothing else: BPF and cgroups (SYS_ADMIN, NET_ADMIN), other processes' namespaces
/// (SYS_PTRACE, SYS_CHROOT for those of mounts), port 53 inside the session (NET_BIND_SERVICE), a gateway that runs as nobody (SETUID, SETGID, SETPCAP,
/// CHOWN, KILL), the control socket in the user's directory (DAC_OVERRIDE, FOWNER), whether anything has a file open to write it (LEASE),
/// a user namespace that has all ids of this one, root among them (SETFCAP, user_namespaces(7)).
const CAPABILITIES: &[&str] = &[
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "KILL",
    "LEASE",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_CHROOT",
    "SYS_PTRACE",
];

/// The kernel's out-of-memory killer passes by.
const OOM_NEVER: i64 = -1000;

impl Sidecar {
    pub fn container_name(&self) -> String {
        format!(
            "{}-{}-{}",
            archive::REPOSITORY,
            self.embedded.short(),
            self.owner()
        )
    }

    pub fn state_volume(&self) -> String {
        format!("agentcontainer-state-{}", self.owner())
    }

    /// Whose it is: the user, and the state directory, since one user may have several (tests do) and a control socket is
    /// in exactly one.
    fn owner(&self) -> String {
        let state = self.control.parent().unwrap_or(&self.control);
        let digest = Digest::of(state.as_os_str().as_encoded_bytes());
        format!("{}-{}", self.uid, &digest.hex()[..8])
    }

    fn model(&self, image: &str, slices: bool, oom_score_adj: i64) -> models::ContainerCreateBody {
        let words = |words: &[&str]| words.iter().map(|&w| w.to_owned()).collect::<Vec<_>>();
        let bind = |source: String, target: &str| models::Mount {
            typ: Some(models::MountType::BIND),
            source: Some(source),
            target: Some(target.to_owned()),
            read_only: Some(false),
            ..Default::default()
        };
        let volume = |name: String, target: &str| models::Mount {
            typ: Some(models::MountType::VOLUME),
            source: Some(name),
            target: Some(target.to_owned()),
            read_only: Some(false),
            volume_options: Some(models::MountVolumeOptions {
                labels: Some(self.labels()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let mut env = vec![format!("AGENTCONTAINER_UID={}", self.uid)];
        let mut mounts = vec![
            bind("/sys/fs/cgroup".to_owned(), "/sys/fs/cgroup"),
            bind("/sys/fs/bpf".to_owned(), "/sys/fs/bpf"),
            bind(self.control.display().to_string(), "/run/agentcontainer"),
            volume(self.state_volume(), "/var/lib/agentcontainer"),
            volume(self.embedded.init_volume(), "/agentcontainer/bin"),
        ];
        if slices {
            env.push("AGENTCONTAINER_CGROUPS=systemd".to_owned());
            // The manager's own socket, which another takes the place of when the manager is replaced.
            mounts.push(bind("/run/systemd".to_owned(), "/run/systemd"));
        }
        models::ContainerCreateBody {
            image: Some(image.to_owned()),
            labels: Some(self.labels()),
            env: Some(env),
            host_config: Some(models::HostConfig {
                network_mode: Some("bridge".to_owned()),
                pid_mode: Some("host".to_owned()),
                cgroupns_mode: Some(models::HostConfigCgroupnsModeEnum::HOST),
                userns_mode: Some("host".to_owned()),
                cap_drop: Some(words(&["ALL"])),
                cap_add: Some(words(CAPABILITIES)),
                security_opt: Some(words(&[
                    "seccomp=unconfined",
                    "apparmor=unconfined",
                    "label=disable",
                ])),
                // Nothing of /proc and /sys is hidden from it: it writes cgroups and reads other processes.
                masked_paths: Some(vec![]),
                readonly_paths: Some(vec![]),
                readonly_rootfs: Some(true),
                oom_score_adj: Some(oom_score_adj),
                restart_policy: Some(models::RestartPolicy {
                    name: Some(models::RestartPolicyNameEnum::UNLESS_STOPPED),
                    maximum_retry_count: None,
                }),
                tmpfs: Some(HashMap::from([(
                    "/tmp".to_owned(),
                    "rw,noexec,nosuid,nodev,size=16m".to_owned(),
                )])),
                mounts: Some(mounts),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn labels(&self) -> HashMap<String, String> {
        HashMap::from([
            (LABEL_SIDECAR.to_owned(), self.embedded.short()),
            (
                LABEL_VERSION.to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
        ])
    }
}

/// Waits for the lock beside the control socket; it is held as long as the file is open (flock(2)).
async fn starting(sidecar: &Sidecar) -> Result<std::fs::File, EngineError> {
    let path = sidecar.control.join("starting.lock");
    let lock = move || {
        let file = std::fs::File::create(&path)?;
        file.lock()?;
        Ok(file)
    };
    tokio::task::spawn_blocking(lock)
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
        .map_err(|e| EngineError::Api {
            what: "wait for another start of the enforcer",
            reason: e.to_string(),
        })
}

impl Engine {
    /// The sidecar's state; nothing is changed.
    pub async fn sidecar_state(&self, sidecar: &Sidecar) -> Result<State, EngineError> {
        match self
            .docker
            .inspect_container(&sidecar.container_name(), None::<InspectContainerOptions>)
            .await
        {
            Ok(answer) => {
                let running = answer.state.and_then(|s| s.running).unwrap_or_default();
                Ok(if running {
                    State::Running
                } else {
                    State::Stopped
                })
            }
            Err(e) if is_missing(&e) => Ok(State::Absent),
            Err(e) => Err(EngineError::api("inspect the enforcer's container")(e)),
        }
    }

    /// Loads, makes and starts what is not there yet. Returns true when it had to start it.
    pub async fn sidecar_start(&self, sidecar: &Sidecar) -> Result<bool, EngineError> {
        let name = sidecar.container_name();
        if self.sidecar_state(sidecar).await? == State::Running {
            return Ok(false);
        }
        // One start at a time: a second one could find a container that the first is about to replace.
        let _alone = starting(sidecar).await?;
        match self.sidecar_state(sidecar).await? {
            State::Running => return Ok(false),
            State::Stopped => {
                self.start(&name).await?;
                return Ok(true);
            }
            State::Absent => {}
        }
        let image = self.sidecar_image(&sidecar.embedded).await?.to_string();
        // Where the engine itself may not lower a score (it runs without CAP_SYS_RESOURCE), the enforcer can be killed for
        // memory like anything else; what it pinned stays in force.
        let slices = self.info().await?.slices();
        match self
            .sidecar_create(sidecar, &image, slices, OOM_NEVER)
            .await
        {
            Ok(()) => return Ok(true),
            Err(EngineError::Api { reason, .. }) => {
                tracing::debug!(reason, "the sidecar did not start with a lowered score");
            }
            Err(e) => return Err(e),
        }
        if self.sidecar_state(sidecar).await? == State::Running {
            return Ok(true);
        }
        self.remove(&name).await?;
        self.sidecar_create(sidecar, &image, slices, 0).await?;
        Ok(true)
    }

    async fn sidecar_create(
        &self,
        sidecar: &Sidecar,
        image: &str,
        slices: bool,
        oom_score_adj: i64,
    ) -> Result<(), EngineError> {
        let name = sidecar.container_name();
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        match self
            .docker
            .create_container(Some(options), sidecar.model(image, slices, oom_score_adj))
            .await
        {
            Ok(_) => {}
            // Another of our own was quicker.
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 409, ..
            }) => {}
            Err(e) => return Err(EngineError::api("create the enforcer's container")(e)),
        }
        self.start(&name).await
    }

    /// The enforcer's image: loaded if the engine does not have it, and known to hold our bytes.
    pub async fn sidecar_image(&self, embedded: &Embedded) -> Result<PinnedImage, EngineError> {
        let by_id = PinnedImage {
            repository: None,
            digest: embedded.id,
        };
        if self.has_image(&by_id.to_string()).await?.is_some() {
            return Ok(by_id);
        }
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let body = bollard::body_full(embedded.archive.into());
        let mut load = std::pin::pin!(self.docker.import_image(options, body, None));
        while let Some(step) = load.next().await {
            step.map_err(|e| EngineError::SidecarLoad(reason(&e)))?;
        }
        if self.has_image(&by_id.to_string()).await?.is_some() {
            return Ok(by_id);
        }
        // An image store that names images by their manifest: the id is another, so the content is compared.
        let tag = format!("{}:{}", archive::REPOSITORY, embedded.short());
        let Some(id) = self.has_image(&tag).await? else {
            return Err(EngineError::SidecarLoad(
                "it took the archive and has no such image".to_owned(),
            ));
        };
        self.compare_content(&id, embedded).await?;
        Ok(PinnedImage {
            repository: None,
            digest: id,
        })
    }

    async fn has_image(&self, name: &str) -> Result<Option<Digest>, EngineError> {
        match self.docker.inspect_image(name).await {
            Ok(answer) => Ok(answer.id.and_then(|id| Digest::parse(&id).ok())),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(EngineError::api("inspect the enforcer's image")(e)),
        }
    }

    /// Reads the binaries back out of the loaded image and compares them with ours.
    async fn compare_content(&self, id: &Digest, embedded: &Embedded) -> Result<(), EngineError> {
        let body = models::ContainerCreateBody {
            image: Some(id.to_string()),
            labels: Some(HashMap::from([(
                LABEL_VERSION.to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            )])),
            host_config: Some(models::HostConfig {
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options = CreateContainerOptionsBuilder::default().build();
        let made = self
            .docker
            .create_container(Some(options), body)
            .await
            .map_err(EngineError::api("look into the enforcer's image"))?;
        let mut result = Ok(());
        for (file, expected) in [
            (archive::ENFORCER, embedded.enforcer),
            (archive::GATEWAY, embedded.gateway),
            (archive::INIT, embedded.init),
        ] {
            // One more byte than ours would show; none of the binaries is larger than the archive.
            let read = self
                .read_file(&made.id, &format!("/{file}"), embedded.archive.len())
                .await;
            match read {
                Ok(Some(bytes)) if Digest::of(&bytes) == expected => {}
                Ok(_) => {
                    result = Err(EngineError::SidecarContent {
                        file: file.to_owned(),
                    });
                }
                Err(e) => result = Err(e),
            }
        }
        self.remove(&made.id).await?;
        result
    }

    pub async fn sidecar_stop(&self, sidecar: &Sidecar) -> Result<(), EngineError> {
        let name = sidecar.container_name();
        match self.stop(&name, Some(10)).await {
            Ok(()) | Err(EngineError::NoContainer(_)) => {}
            Err(e) => return Err(e),
        }
        self.remove(&name).await
    }

    /// The sidecar's last words.
    pub async fn sidecar_log(&self, sidecar: &Sidecar, lines: u32) -> Vec<String> {
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .tail(&lines.to_string())
            .build();
        let name = sidecar.container_name();
        let mut stream = self.docker.logs(&name, Some(options));
        let mut text = String::new();
        while let Some(Ok(piece)) = stream.next().await {
            text.push_str(&String::from_utf8_lossy(piece.as_ref()));
        }
        text.lines().map(str::to_owned).collect()
    }

    /// Every container of any version of the sidecar.
    pub async fn sidecars(&self) -> Result<Vec<Listed>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_SIDECAR.to_owned()])]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self
            .docker
            .list_containers(Some(options))
            .await
            .map_err(EngineError::api("list the containers"))?;
        Ok(listed
            .into_iter()
            .filter_map(|summary| {
                let name = summary.names?.into_iter().next()?;
                Some(Listed {
                    id: summary.id?,
                    name: name.trim_start_matches('/').to_owned(),
                    state: summary.state.map(|s| s.to_string()).unwrap_or_default(),
                })
            })
            .collect())
    }

    /// The volumes of any version of the sidecar.
    pub async fn sidecar_volumes(&self) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![LABEL_SIDECAR.to_owned()])]);
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filters)
            .build();
        let listed = self
            .docker
            .list_volumes(Some(options))
            .await
            .map_err(EngineError::api("list the volumes"))?;
        Ok(listed
            .volumes
            .unwrap_or_default()
            .into_iter()
            .map(|v| v.name)
            .collect())
    }

    pub async fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveVolumeOptionsBuilder::default().build();
        match self.docker.remove_volume(name, Some(options)).await {
            Ok(()) => Ok(()),
            Err(e) if is_missing(&e) => Ok(()),
            Err(bollard::errors::Error::DockerResponseServerError {
                status_code: 409, ..
            }) => Err(EngineError::VolumeInUse(name.to_owned())),
            Err(e) => Err(EngineError::api("remove the volume")(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_sidecar_has_the_rights_it_names_and_never_the_engines_socket() {
        let sidecar = Sidecar {
            embedded: Embedded {
                archive: b"",
                id: Digest::of(b"id"),
                enforcer: Digest::of(b""),
                gateway: Digest::of(b""),
                init: Digest::of(b""),
            },
            uid: 1000,
            control: "/home/ada/.local/state/agentcontainer/control/x".into(),
        };
        let model = serde_json::to_value(sidecar.model("sha256:x", false, OOM_NEVER)).unwrap();
        let host = &model["HostConfig"];
        assert_eq!(host["CapDrop"], serde_json::json!(["ALL"]));
        assert!(host["Privileged"].is_null());
        assert!(!model.to_string().contains("docker.sock"));
        let targets: Vec<_> = host["Mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| m["Target"].as_str().unwrap())
            .collect();
        assert_eq!(
            targets,
            [
                "/sys/fs/cgroup",
                "/sys/fs/bpf",
                "/run/agentcontainer",
                "/var/lib/agentcontainer",
                "/agentcontainer/bin"
            ]
        );
        assert_eq!(model["Env"], serde_json::json!(["AGENTCONTAINER_UID=1000"]));
        // Where systemd makes cgroups, it is asked for them.
        let model = serde_json::to_value(sidecar.model("sha256:x", true, OOM_NEVER)).unwrap();
        assert_eq!(model["Env"][1], "AGENTCONTAINER_CGROUPS=systemd");
        assert_eq!(model["HostConfig"]["Mounts"][5]["Source"], "/run/systemd");
        assert!(
            sidecar
                .container_name()
                .starts_with("agentcontainer-enforcer-")
        );
        assert!(sidecar.container_name().contains("-1000-"));
        let elsewhere = Sidecar {
            control: "/home/agent/other/control/abc".into(),
            ..sidecar.clone()
        };
        assert_ne!(sidecar.container_name(), elsewhere.container_name());
        assert_ne!(sidecar.state_volume(), elsewhere.state_volume());
    }
}
