//! The one place where a checked request becomes the engine's own model. Pure: the same request, the same bytes. What is
//! not set here is not asked for, and the hardening that no config can lower is written out here.

use std::collections::HashMap;

use bollard::models;

use super::{
    Checked, DNS, INIT, INIT_DIR, LABEL_AGENT, LABEL_NAME, LABEL_SESSION, LABEL_VERSION,
    LABEL_WORKSPACE, Mount,
};
use crate::seccomp;

/// The one limit of core dumps that the kernel takes for none at all where they go to a program of the host's (core(5); kernel
/// `fs/coredump.c`). It is less than any file of one.
const CORE: i64 = 1;

/// Kernel interfaces that show or change the host: what engines mask by default, and more of the same kind.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/pagetypeinfo",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];
const READ_ONLY: &[&str] = &[
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&w| w.to_owned()).collect()
}

impl Checked<'_> {
    /// The container's name in the engine.
    pub fn container_name(&self) -> String {
        format!("agentcontainer-{}", self.0.session)
    }

    pub fn to_model(&self) -> models::ContainerCreateBody {
        let request = self.0;
        let mut labels = HashMap::from([
            (LABEL_SESSION.to_owned(), request.session.to_string()),
            (LABEL_WORKSPACE.to_owned(), request.workspace.clone()),
            (
                LABEL_VERSION.to_owned(),
                env!("CARGO_PKG_VERSION").to_owned(),
            ),
        ]);
        if let Some(name) = &request.name {
            labels.insert(LABEL_NAME.to_owned(), name.clone());
        }
        models::ContainerCreateBody {
            hostname: Some(request.hostname.clone()),
            user: Some(request.user.clone()),
            attach_stdin: Some(request.stdin),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(request.tty),
            open_stdin: Some(request.stdin),
            stdin_once: Some(request.stdin),
            env: Some(
                request
                    .env
                    .iter()
                    .map(|(name, value)| match value {
                        Some(value) => format!("{name}={value}"),
                        None => name.clone(),
                    })
                    .collect(),
            ),
            cmd: Some(request.init.to_args()),
            // An image's own health check would be one more program that nobody asked for.
            healthcheck: Some(models::HealthConfig {
                test: Some(strings(&["NONE"])),
                ..Default::default()
            }),
            image: Some(request.image.to_string()),
            working_dir: Some(request.working_dir.clone()),
            entrypoint: Some(strings(&[INIT])),
            labels: Some(labels),
            stop_signal: request.stop_signal.clone(),
            stop_timeout: Some(i64::from(request.stop_timeout)),
            host_config: Some(self.host_config()),
            ..Default::default()
        }
    }

    fn host_config(&self) -> models::HostConfig {
        let request = self.0;
        let limits = &request.limits;
        let memory = limits.memory.and_then(|m| i64::try_from(m).ok());
        let (mut mounts, mut tmpfs) = (vec![init_mount(&request.init_volume)], HashMap::new());
        for mount in &request.mounts {
            match to_mount(mount) {
                Either::Mount(m) => mounts.push(*m),
                Either::Tmpfs(target, options) => {
                    tmpfs.insert(target, options);
                }
            }
        }
        models::HostConfig {
            network_mode: Some("none".to_owned()),
            cgroup_parent: Some(request.cgroup_parent.clone()),
            cgroupns_mode: Some(models::HostConfigCgroupnsModeEnum::PRIVATE),
            ipc_mode: Some("private".to_owned()),
            cap_drop: Some(strings(&["ALL"])),
            privileged: Some(false),
            security_opt: Some(vec![
                "no-new-privileges".to_owned(),
                format!("seccomp={}", seccomp::profile().to_json()),
            ]),
            masked_paths: Some(strings(MASKED)),
            readonly_paths: Some(strings(READ_ONLY)),
            sysctls: Some(HashMap::from([
                ("net.ipv6.conf.lo.disable_ipv6".to_owned(), "0".to_owned()),
                ("net.ipv4.ping_group_range".to_owned(), "1 0".to_owned()),
            ])),
            dns: Some(strings(&[DNS])),
            // A dot: no search list.
            dns_search: Some(strings(&["."])),
            // The container's own name, so that programs that look it up need no resolver.
            extra_hosts: Some(vec![format!("{}:127.0.0.1", request.hostname)]),
            memory,
            // The same number: no swap besides.
            memory_swap: memory,
            nano_cpus: limits.milli_cpus.map(|c| i64::from(c) * 1_000_000),
            pids_limit: Some(i64::from(limits.pids)),
            ulimits: Some(vec![models::ResourcesUlimits {
                name: Some("core".to_owned()),
                soft: Some(CORE),
                hard: Some(CORE),
            }]),
            restart_policy: Some(models::RestartPolicy {
                name: Some(models::RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            // An agent that writes without end fills these, not the disk.
            log_config: Some(models::HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(HashMap::from([
                    ("max-size".to_owned(), "32m".to_owned()),
                    ("max-file".to_owned(), "3".to_owned()),
                ])),
            }),
            mounts: Some(mounts),
            tmpfs: Some(tmpfs),
            ..Default::default()
        }
    }
}

fn init_mount(volume: &str) -> models::Mount {
    models::Mount {
        typ: Some(models::MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(INIT_DIR.to_owned()),
        read_only: Some(true),
        volume_options: Some(models::MountVolumeOptions {
            // Never filled from the agent's image.
            no_copy: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

enum Either {
    Mount(Box<models::Mount>),
    Tmpfs(String, String),
}

fn to_mount(mount: &Mount) -> Either {
    let bind = |source: &str, target: &str, read_only: bool| {
        Either::Mount(Box::new(models::Mount {
            typ: Some(models::MountType::BIND),
            source: Some(source.to_owned()),
            target: Some(target.to_owned()),
            read_only: Some(read_only),
            bind_options: Some(models::MountBindOptions {
                propagation: Some(models::MountBindOptionsPropagationEnum::RPRIVATE),
                ..Default::default()
            }),
            ..Default::default()
        }))
    };
    match mount {
        Mount::Workspace {
            source,
            target,
            read_only,
        }
        | Mount::Control {
            source,
            target,
            read_only,
        }
        | Mount::Repository {
            source,
            target,
            read_only,
        }
        | Mount::Session {
            source,
            target,
            read_only,
        } => bind(source, target, *read_only),
        Mount::Inside { source, target } | Mount::Trust { source, target } => {
            bind(source, target, true)
        }
        Mount::Volume {
            name,
            target,
            read_only,
        } => Either::Mount(Box::new(models::Mount {
            typ: Some(models::MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(target.clone()),
            read_only: Some(*read_only),
            ..Default::default()
        })),
        Mount::Agent {
            name,
            target,
            read_only,
        } => Either::Mount(Box::new(models::Mount {
            typ: Some(models::MountType::VOLUME),
            source: Some(name.clone()),
            target: Some(target.clone()),
            read_only: Some(*read_only),
            volume_options: Some(models::MountVolumeOptions {
                no_copy: Some(true),
                labels: Some(HashMap::from([(
                    LABEL_AGENT.to_owned(),
                    crate::agent::agent_of(name).to_owned(),
                )])),
                ..Default::default()
            }),
            ..Default::default()
        })),
        Mount::Tmpfs {
            target,
            size,
            owner,
        } => {
            let mut options = "rw,exec,nosuid,nodev".to_owned();
            match owner {
                Some((uid, gid)) => options += &format!(",mode=0700,uid={uid},gid={gid}"),
                None => options += ",mode=1777",
            }
            if let Some(size) = size {
                options += &format!(",size={size}");
            }
            Either::Tmpfs(target.clone(), options)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::CreateRequest;
    use super::super::tests::sample;
    use serde_json::{Value, json};

    fn model(request: &CreateRequest) -> Value {
        serde_json::to_value(request.check(&Default::default()).unwrap().to_model()).unwrap()
    }

    #[test]
    fn the_hardening_stands_in_the_request_itself() {
        let sent = model(&sample());
        let host = &sent["HostConfig"];
        assert_eq!(host["NetworkMode"], "none");
        assert_eq!(host["CgroupParent"], "/agentcontainer/k3v9x2");
        assert_eq!(host["CgroupnsMode"], "private");
        assert_eq!(host["CapDrop"], json!(["ALL"]));
        assert_eq!(host["Privileged"], false);
        assert_eq!(host["SecurityOpt"][0], "no-new-privileges");
        assert!(
            host["SecurityOpt"][1]
                .as_str()
                .unwrap()
                .starts_with("seccomp={\"defaultAction\":\"SCMP_ACT_ERRNO\"")
        );
        assert_eq!(host["SecurityOpt"].as_array().unwrap().len(), 2);
        assert_eq!(host["Dns"], json!(["198.18.0.2"]));
        assert_eq!(host["DnsSearch"], json!(["."]));
        assert_eq!(host["Sysctls"]["net.ipv4.ping_group_range"], "1 0");
        assert_eq!(host["Sysctls"]["net.ipv6.conf.lo.disable_ipv6"], "0");
        assert_eq!(host["PidsLimit"], 4096);
        assert_eq!(host["RestartPolicy"]["Name"], "no");
        assert_eq!(
            host["Ulimits"],
            json!([{"Name": "core", "Soft": 1, "Hard": 1}])
        );
        assert_eq!(
            sent["Entrypoint"],
            json!(["/.agentcontainer/agentcontainer-init"])
        );
        assert_eq!(sent["Cmd"], json!(["--", "bash"]));
        assert_eq!(host["Mounts"][0]["Target"], "/.agentcontainer");
        assert_eq!(host["Mounts"][0]["ReadOnly"], true);
        assert_eq!(host["Mounts"][0]["VolumeOptions"]["NoCopy"], true);
    }

    #[test]
    fn keys_that_would_unmake_the_sandbox_are_never_in_it() {
        let sent = model(&sample());
        let host = sent["HostConfig"].as_object().unwrap();
        for key in [
            "CapAdd",
            "PidMode",
            "UTSMode",
            "UsernsMode",
            "Devices",
            "DeviceCgroupRules",
            "DeviceRequests",
            "VolumesFrom",
            "Binds",
            "Links",
            "PortBindings",
            "GroupAdd",
            "Runtime",
            "OomScoreAdj",
            "OomKillDisable",
            "Annotations",
            "Cgroup",
        ] {
            assert!(host.get(key).is_none_or(Value::is_null), "{key}");
        }
        assert!(host.get("PublishAllPorts").is_none_or(Value::is_null));
    }

    #[test]
    fn the_same_request_gives_the_same_bytes() {
        assert_eq!(model(&sample()), model(&sample()));
    }
}
