//! The allow-list a create request is held against before it is sent. It says no to what the closed type still lets one
//! spell with strings: where mounts come from and go to, which cgroup, which image, and how much of everything.

use super::{CreateRequest, INIT_DIR, Mount};

/// Bounds of a create request (SPEC, bounds table).
pub const MAX_MOUNTS: usize = 128;
pub const MAX_ENV: usize = 512;
pub const MAX_ENV_BYTES: usize = 256 * 1024;
pub const MAX_ARGS: usize = 4096;
pub const MAX_ARG_BYTES: usize = 512 * 1024;
pub const MIN_MEMORY: u64 = 6 << 20;
pub const MAX_MILLI_CPUS: u32 = 4_096_000;
pub const MAX_PIDS: u32 = 4_194_304;
pub const MAX_STOP_TIMEOUT: u32 = 3600;

/// Host trees of which nothing is ever mounted, and whose parents are not either: kernel interfaces, engines and their
/// sockets, the machine's own configuration and programs' runtime state.
const HOST_TREES: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/etc",
    "/boot",
    "/lib/modules",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/kubelet",
    "/var/lib/agentcontainer",
    "/var/spool/cron",
    "/var/log",
];
/// Host directories that are not mounted themselves, though something below them may be.
const HOST_ROOTS: &[&str] = &[
    "/", "/home", "/root", "/var", "/var/lib", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt",
    "/srv", "/mnt", "/media", "/tmp", "/var/tmp",
];
/// Places inside that belong to the kernel, the engine or to us.
const INSIDE_TREES: &[&str] = &["/proc", "/sys", "/dev", INIT_DIR];

/// The one thing that was wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    #[error("{0} is not the session's cgroup")]
    CgroupParent(String),
    #[error("the mount source {path} {why}")]
    Source { path: String, why: &'static str },
    #[error("the mount target {path} {why}")]
    Target { path: String, why: &'static str },
    #[error("{0} is not a volume name")]
    Volume(String),
    #[error("{0} is not a user that can be named")]
    User(String),
    #[error("{what} has {found}; the most is {most}")]
    TooMany {
        what: &'static str,
        found: usize,
        most: usize,
    },
    #[error("{0} is not a name for an environment variable")]
    EnvName(String),
    #[error("{0} contains a zero byte")]
    Zero(&'static str),
    #[error("{what} cannot be {value}")]
    Limit { what: &'static str, value: String },
}

/// Directories of the person's that a session never gets whole.
#[derive(Clone, Debug, Default)]
pub struct HostPlaces {
    /// Not mounted itself, nor what contains it; what lies below may be.
    pub home: Option<String>,
    /// Our own state and configuration, keys and other agents' credentials: neither they, nor what contains them, nor
    /// what lies in them.
    pub private: Vec<String>,
}

impl HostPlaces {
    /// Names below the home directory that hold credentials, keys or what is run at login.
    pub const PRIVATE_IN_HOME: &[&str] = &[
        ".ssh",
        ".gnupg",
        ".aws",
        ".azure",
        ".kube",
        ".docker",
        ".netrc",
        ".config/gcloud",
        ".config/agentcontainer",
        ".config/systemd",
        ".local/state/agentcontainer",
        ".local/share/keyrings",
    ];

    fn check(&self, source: &str) -> Result<(), Violation> {
        if let Some(home) = &self.home
            && below(home, source).is_some()
        {
            return Err(source_violation(
                source,
                "is, or contains, your home directory",
            ));
        }
        for tree in &self.private {
            if below(source, tree).is_some() || below(tree, source).is_some() {
                return Err(source_violation(
                    source,
                    "holds keys, credentials or agentcontainer's own state",
                ));
            }
        }
        Ok(())
    }
}

/// A request that passed. The only thing that `model` takes.
#[derive(Debug)]
pub struct Checked<'a>(pub(super) &'a CreateRequest);

impl CreateRequest {
    /// Holds the request against the allow-list.
    pub fn check(&self, places: &HostPlaces) -> Result<Checked<'_>, Violation> {
        if self.cgroup_parent != format!("/agentcontainer/{}", self.session) {
            return Err(Violation::CgroupParent(self.cgroup_parent.clone()));
        }
        if !is_volume_name(&self.init_volume)
            || !self.init_volume.starts_with("agentcontainer-init-")
        {
            return Err(Violation::Volume(self.init_volume.clone()));
        }
        self.check_user()?;
        self.check_mounts(places)?;
        self.check_env()?;
        self.check_words()?;
        self.check_limits()?;
        Ok(Checked(self))
    }

    /// `name`, `uid`, each with an optional `:group`.
    fn check_user(&self) -> Result<(), Violation> {
        let part = |s: &str| {
            !s.is_empty()
                && s.len() <= 64
                && !s.starts_with('-')
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        let good = match self.user.split_once(':') {
            Some((user, group)) => part(user) && part(group),
            None => part(&self.user),
        };
        if good {
            Ok(())
        } else {
            Err(Violation::User(self.user.clone()))
        }
    }

    fn check_mounts(&self, places: &HostPlaces) -> Result<(), Violation> {
        at_most("mounts", self.mounts.len(), MAX_MOUNTS)?;
        check_target(&self.working_dir)?;
        let mut targets = std::collections::BTreeSet::new();
        for mount in &self.mounts {
            let target = mount.target();
            check_target(target)?;
            if !targets.insert(target) {
                return Err(target_violation(target, "is mounted twice"));
            }
            match mount {
                Mount::Workspace { source, .. } => {
                    check_host(source)?;
                    places.check(source)?;
                }
                Mount::Control { source, target, .. } => {
                    check_host(source)?;
                    self.check_control(source, target)?;
                }
                Mount::Inside { source, .. } => {
                    check_host(source)?;
                    self.check_inside(source)?;
                }
                Mount::Session { source, .. } => {
                    check_session(source, self.session.to_string().as_str())?
                }
                Mount::Volume { name, .. } => {
                    if !is_volume_name(name) || name.starts_with("agentcontainer-") {
                        return Err(Violation::Volume(name.clone()));
                    }
                }
                Mount::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    /// A control file is bound over itself: the same path below the workspace on both sides.
    fn check_control(&self, source: &str, target: &str) -> Result<(), Violation> {
        let holds = self.mounts.iter().any(|mount| match mount {
            Mount::Workspace {
                source: from,
                target: to,
                ..
            } => match (below(source, from), below(target, to)) {
                (Some(a), Some(b)) => a == b && !a.is_empty(),
                _ => false,
            },
            _ => false,
        });
        if holds {
            Ok(())
        } else {
            Err(source_violation(source, "is not the workspace's own file"))
        }
    }

    /// A second mount of the workspace shows something that lies in it.
    fn check_inside(&self, source: &str) -> Result<(), Violation> {
        let holds = self.mounts.iter().any(|mount| {
            matches!(mount, Mount::Workspace { source: from, .. } if below(source, from).is_some())
        });
        if holds {
            Ok(())
        } else {
            Err(source_violation(source, "lies outside the workspace"))
        }
    }

    fn check_env(&self) -> Result<(), Violation> {
        at_most("the environment", self.env.len(), MAX_ENV)?;
        let bytes: usize = self
            .env
            .iter()
            .map(|(k, v)| k.len() + v.as_ref().map_or(0, String::len) + 2)
            .sum();
        at_most("the environment's size in bytes", bytes, MAX_ENV_BYTES)?;
        for (name, value) in &self.env {
            if name.is_empty() || name.contains('=') || name.contains(char::is_control) {
                return Err(Violation::EnvName(name.clone()));
            }
            if value.as_ref().is_some_and(|v| v.contains('\0')) {
                return Err(Violation::Zero("a value of the environment"));
            }
        }
        Ok(())
    }

    fn check_words(&self) -> Result<(), Violation> {
        let args = self.init.to_args();
        at_most("the command line", args.len(), MAX_ARGS)?;
        at_most(
            "the command line's size in bytes",
            args.iter().map(|a| a.len() + 1).sum(),
            MAX_ARG_BYTES,
        )?;
        if args.iter().any(|a| a.contains('\0')) {
            return Err(Violation::Zero("the command line"));
        }
        let label = |s: &str| s.len() <= 4096 && !s.contains('\0');
        if !label(&self.workspace) || !self.name.as_deref().is_none_or(label) {
            return Err(Violation::Limit {
                what: "a label",
                value: "longer than 4096 bytes".to_owned(),
            });
        }
        let host = |s: &str| {
            !s.is_empty()
                && s.len() <= 63
                && !s.starts_with('-')
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        if !host(&self.hostname) {
            return Err(Violation::Limit {
                what: "the host name",
                value: self.hostname.clone(),
            });
        }
        if let Some(signal) = &self.stop_signal
            && (signal.is_empty()
                || signal.len() > 16
                || !signal
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-')))
        {
            return Err(Violation::Limit {
                what: "the stop signal",
                value: signal.clone(),
            });
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Violation> {
        let limit = |what, value: String| Err(Violation::Limit { what, value });
        if let Some(memory) = self.limits.memory
            && !(MIN_MEMORY..=i64::MAX as u64).contains(&memory)
        {
            return limit("memory", format!("{memory} bytes"));
        }
        if let Some(cpus) = self.limits.milli_cpus
            && !(10..=MAX_MILLI_CPUS).contains(&cpus)
        {
            return limit("cpus", format!("{cpus} thousandths"));
        }
        if !(1..=MAX_PIDS).contains(&self.limits.pids) {
            return limit("pids", self.limits.pids.to_string());
        }
        if self.stop_timeout > MAX_STOP_TIMEOUT {
            return limit("the stop timeout", self.stop_timeout.to_string());
        }
        Ok(())
    }
}

fn at_most(what: &'static str, found: usize, most: usize) -> Result<(), Violation> {
    if found > most {
        Err(Violation::TooMany { what, found, most })
    } else {
        Ok(())
    }
}

fn source_violation(path: &str, why: &'static str) -> Violation {
    Violation::Source {
        path: path.to_owned(),
        why,
    }
}

fn target_violation(path: &str, why: &'static str) -> Violation {
    Violation::Target {
        path: path.to_owned(),
        why,
    }
}

/// Absolute, and written in the one way: no `.`, `..`, empty part, closing slash or control character.
fn is_normal(path: &str) -> bool {
    path == "/"
        || (path.len() <= 4096
            && path.strip_prefix('/').is_some_and(|rest| {
                rest.split('/').all(|part| !matches!(part, "" | "." | ".."))
                    && !rest.contains(char::is_control)
            }))
}

/// What of `path` lies below `tree`: empty when they are the same, `None` when it lies elsewhere.
fn below<'a>(path: &'a str, tree: &str) -> Option<&'a str> {
    if tree == "/" {
        return path.strip_prefix('/');
    }
    let rest = path.strip_prefix(tree)?;
    if rest.is_empty() {
        Some(rest)
    } else {
        rest.strip_prefix('/')
    }
}

/// A host path that may be bound into a session.
fn check_host(source: &str) -> Result<(), Violation> {
    if !is_normal(source) {
        return Err(source_violation(
            source,
            "is not an absolute path in its plain form",
        ));
    }
    if HOST_ROOTS.contains(&source) {
        return Err(source_violation(
            source,
            "is a directory of the host itself",
        ));
    }
    for tree in HOST_TREES {
        if below(source, tree).is_some() {
            return Err(source_violation(
                source,
                "is part of the host that no session sees",
            ));
        }
        if below(tree, source).is_some() {
            return Err(source_violation(
                source,
                "contains a part of the host that no session sees",
            ));
        }
    }
    let last = source.rsplit('/').next().unwrap_or_default();
    if last.ends_with(".sock") || last.ends_with(".socket") {
        return Err(source_violation(
            source,
            "is a socket; sockets lead past the gate",
        ));
    }
    Ok(())
}

/// A file of ours: in this session's own directory, whatever lies above it.
fn check_session(source: &str, session: &str) -> Result<(), Violation> {
    let ours = is_normal(source)
        && source
            .split_once(&format!("/agentcontainer/sessions/{session}/"))
            .is_some_and(|(_, rest)| !rest.is_empty());
    if ours {
        Ok(())
    } else {
        Err(source_violation(
            source,
            "is not in the session's own directory",
        ))
    }
}

fn check_target(target: &str) -> Result<(), Violation> {
    if !is_normal(target) {
        return Err(target_violation(
            target,
            "is not an absolute path in its plain form",
        ));
    }
    if target == "/" {
        return Err(target_violation(target, "is the container's root"));
    }
    for tree in INSIDE_TREES {
        if below(target, tree).is_some() {
            return Err(target_violation(
                target,
                "belongs to the kernel, the engine or agentcontainer",
            ));
        }
    }
    Ok(())
}

fn is_volume_name(name: &str) -> bool {
    name.len() >= 2
        && name.len() <= 255
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::tests::sample;
    use super::*;

    fn with(change: impl FnOnce(&mut CreateRequest)) -> Result<(), Violation> {
        let mut request = sample();
        change(&mut request);
        request.check(&places()).map(|_| ())
    }

    fn places() -> HostPlaces {
        HostPlaces {
            home: Some("/home/ada".into()),
            private: vec!["/home/ada/.ssh".into()],
        }
    }

    fn extra(source: &str) -> Result<(), Violation> {
        with(|r| {
            r.mounts[0] = Mount::Workspace {
                source: source.into(),
                target: "/workspaces/project".into(),
                read_only: false,
            };
            r.mounts.remove(1);
        })
    }

    #[test]
    fn the_request_of_an_ordinary_run_passes() {
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(extra("/home/ada/.cache/pip"), Ok(()));
        assert_eq!(extra("/srv/data"), Ok(()));
    }

    #[test]
    fn host_roots_and_engine_sockets_cannot_be_mounted() {
        for source in [
            "/",
            "/etc",
            "/etc/shadow",
            "/proc",
            "/proc/1/root",
            "/sys",
            "/sys/fs/cgroup",
            "/sys/fs/bpf",
            "/dev",
            "/dev/kmsg",
            "/run",
            "/run/docker.sock",
            "/var/run/docker.sock",
            "/var",
            "/var/lib",
            "/var/lib/docker",
            "/var/lib/docker/overlay2",
            "/root",
            "/home",
            "/usr",
            "/run/user/1000",
            "/run/podman/podman.sock",
            "/run/containerd/containerd.sock",
            "/home/ada/docker.sock",
            "/var/lib/agentcontainer",
            "/boot",
            "/var/lib/kubelet/pods",
            "relative",
            "",
            "/a/../etc",
            "/a//b",
            "/a/./b",
            "/a/",
            "/a\nb",
            "~/.ssh",
            "/home/ada",
            "/home/ada/.ssh",
            "/home/ada/.ssh/id_ed25519",
        ] {
            assert!(
                matches!(extra(source), Err(Violation::Source { .. })),
                "{source}"
            );
        }
    }

    #[test]
    fn a_control_mount_is_the_workspaces_own_file_over_itself() {
        for (source, target) in [
            ("/home/ada/other/.git", "/workspaces/project/.git"),
            ("/home/ada/project/.git", "/workspaces/project/.vscode"),
            ("/home/ada/project", "/workspaces/project"),
            (
                "/home/ada/project-evil/.git",
                "/workspaces/project-evil/.git",
            ),
        ] {
            let refused = with(|r| {
                r.mounts[1] = Mount::Control {
                    source: source.into(),
                    target: target.into(),
                    read_only: true,
                };
            });
            assert!(refused.is_err(), "{source}");
        }
    }

    #[test]
    fn a_second_mount_shows_what_lies_in_the_workspace() {
        let inside = |source: &str| {
            with(|r| {
                r.mounts.push(Mount::Inside {
                    source: source.into(),
                    target: "/data".into(),
                });
            })
        };
        assert_eq!(inside("/home/ada/project/data"), Ok(()));
        for source in [
            "/home/ada/other",
            "/home/ada/project2",
            "/home/ada/project/../other",
            "/etc/shadow",
        ] {
            assert!(inside(source).is_err(), "{source}");
        }
    }

    #[test]
    fn a_session_file_is_in_the_sessions_own_directory() {
        let session = |source: &str| {
            with(|r| {
                r.mounts.push(Mount::Session {
                    source: source.into(),
                    target: "/etc/passwd".into(),
                    read_only: true,
                });
            })
        };
        assert_eq!(
            session("/home/ada/.local/state/agentcontainer/sessions/k3v9x2/passwd"),
            Ok(())
        );
        for source in [
            "/home/ada/.local/state/agentcontainer/sessions/other/passwd",
            "/home/ada/.local/state/agentcontainer/sessions/k3v9x2",
            "/home/ada/.local/state/agentcontainer/sessions/k3v9x2/../other/passwd",
            "/etc/passwd",
        ] {
            assert!(session(source).is_err(), "{source}");
        }
    }

    #[test]
    fn targets_of_the_kernel_and_ours_are_refused() {
        for target in [
            "/",
            "/proc/sys",
            "/sys",
            "/dev/shm",
            "/.agentcontainer",
            "/.agentcontainer/agentcontainer-init",
            "rel",
            "/a/../b",
            "/workspaces/project",
        ] {
            let refused = with(|r| {
                r.mounts.push(Mount::Tmpfs {
                    target: target.into(),
                    size: None,
                    owner: None,
                });
            });
            assert!(matches!(refused, Err(Violation::Target { .. })), "{target}");
        }
    }

    #[test]
    fn a_foreign_cgroup_is_refused() {
        for parent in [
            "",
            "/",
            "/agentcontainer",
            "/agentcontainer/other",
            "/agentcontainer/k3v9x2/../other",
            "/system.slice",
            "agentcontainer/k3v9x2",
        ] {
            assert_eq!(
                with(|r| r.cgroup_parent = parent.into()),
                Err(Violation::CgroupParent(parent.into()))
            );
        }
    }

    #[test]
    fn foreign_volumes_of_ours_and_odd_users_are_refused() {
        for name in [
            "agentcontainer-state-0",
            "agentcontainer-init-0123456789ab",
            "/host",
            "a",
            "../x",
        ] {
            let refused = with(|r| {
                r.mounts.push(Mount::Volume {
                    name: name.into(),
                    target: "/v".into(),
                    read_only: false,
                });
            });
            assert!(matches!(refused, Err(Violation::Volume(_))), "{name}");
        }
        for user in ["", ":", "a:", ":0", "a b", "-x", "a:b:c"] {
            assert!(
                matches!(with(|r| r.user = user.into()), Err(Violation::User(_))),
                "{user}"
            );
        }
    }

    #[test]
    fn bounds_hold_at_n_and_break_at_n_plus_one() {
        let args = |n: usize| with(|r| r.init.program = vec![String::new(); n - 1]);
        assert_eq!(args(MAX_ARGS), Ok(()));
        assert!(matches!(args(MAX_ARGS + 1), Err(Violation::TooMany { .. })));
        let env = |n: usize| with(|r| r.env = (0..n).map(|i| (format!("V{i}"), None)).collect());
        assert_eq!(env(MAX_ENV), Ok(()));
        assert!(env(MAX_ENV + 1).is_err());
        let env_bytes =
            |n: usize| with(|r| r.env = [("V".to_owned(), Some("x".repeat(n - 3)))].into());
        assert_eq!(env_bytes(MAX_ENV_BYTES), Ok(()));
        assert!(env_bytes(MAX_ENV_BYTES + 1).is_err());
        let arg_bytes = |n: usize| with(|r| r.init.program = vec!["x".repeat(n - 4)]);
        assert_eq!(arg_bytes(MAX_ARG_BYTES), Ok(()));
        assert!(arg_bytes(MAX_ARG_BYTES + 1).is_err());
        let mounts = |n: usize| {
            with(|r| {
                let have = r.mounts.len();
                r.mounts.extend((have..n).map(|i| Mount::Tmpfs {
                    target: format!("/t{i}"),
                    size: None,
                    owner: None,
                }));
            })
        };
        assert_eq!(mounts(MAX_MOUNTS), Ok(()));
        assert!(mounts(MAX_MOUNTS + 1).is_err());
        assert_eq!(with(|r| r.limits.pids = MAX_PIDS), Ok(()));
        assert!(with(|r| r.limits.pids = MAX_PIDS + 1).is_err());
        assert!(with(|r| r.limits.pids = 0).is_err());
        assert_eq!(with(|r| r.limits.memory = Some(MIN_MEMORY)), Ok(()));
        assert!(with(|r| r.limits.memory = Some(MIN_MEMORY - 1)).is_err());
        assert_eq!(with(|r| r.stop_timeout = MAX_STOP_TIMEOUT), Ok(()));
        assert!(with(|r| r.stop_timeout = MAX_STOP_TIMEOUT + 1).is_err());
        assert_eq!(with(|r| r.limits.milli_cpus = Some(MAX_MILLI_CPUS)), Ok(()));
        assert!(with(|r| r.limits.milli_cpus = Some(MAX_MILLI_CPUS + 1)).is_err());
        assert!(with(|r| r.limits.milli_cpus = Some(9)).is_err());
    }

    #[test]
    fn zero_bytes_and_broken_names_are_refused() {
        assert!(with(|r| r.init.program.push("a\0b".into())).is_err());
        assert!(
            with(|r| {
                r.env.insert("A=B".into(), None);
            })
            .is_err()
        );
        assert!(
            with(|r| {
                r.env.insert(String::new(), None);
            })
            .is_err()
        );
        assert!(
            with(|r| {
                r.env.insert("A".into(), Some("\0".into()));
            })
            .is_err()
        );
        assert!(with(|r| r.hostname = "a b".into()).is_err());
        assert!(with(|r| r.stop_signal = Some("SIG TERM".into())).is_err());
    }
}
