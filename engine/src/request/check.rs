//! The allow-list a create request is held against before it is sent. It says no to what the closed type still lets one
//! spell with strings: where mounts come from and go to, which cgroup, which image, and how much of everything.

use super::{CreateRequest, INIT_DIR, LENT_COMMON, LENT_OWN, Mount};
use crate::trust;
use schema::profile;

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
const INSIDE_TREES: &[&str] = &["/proc", "/sys", "/dev", "/run/agentcontainer", INIT_DIR];
/// Files inside that the engine writes, or that say who is who: an image's links lead no trust file over them.
const INSIDE_FILES: &[&str] = &[
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/passwd",
    "/etc/group",
];

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
        let session = &self.session;
        let own = [
            format!("/agentcontainer/{session}"),
            format!("agentcontainer-{session}.slice"),
        ];
        if !own.contains(&self.cgroup_parent) {
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
            match mount {
                Mount::Trust { source, .. } => self.check_trust(source, mount)?,
                _ => check_target(target)?,
            }
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
                Mount::Repository {
                    source, read_only, ..
                } => {
                    check_host(source)?;
                    places.check(source)?;
                    self.check_repository(source, target, *read_only)?;
                }
                Mount::Session { source, .. } => {
                    check_session(source, self.session.to_string().as_str())?
                }
                Mount::Volume { name, .. } => {
                    if !is_volume_name(name) || name.starts_with("agentcontainer-") {
                        return Err(Violation::Volume(name.clone()));
                    }
                }
                Mount::Agent { name, .. } => {
                    let places = [profile::VOLUME, profile::PROGRAM_VOLUME];
                    if !is_volume_name(name) || !name.starts_with(crate::agent::VOLUME_PREFIX) {
                        return Err(Violation::Volume(name.clone()));
                    }
                    if !places.contains(&target) {
                        return Err(target_violation(
                            target,
                            "is no place for an agent's volume",
                        ));
                    }
                }
                Mount::Trust { .. } | Mount::Tmpfs { .. } => {}
            }
        }
        Ok(())
    }

    /// The directory of trust files at its one place, or a file of it over one of the image's, or where OpenSSL looks for it, which no
    /// other mount has to do with.
    fn check_trust(&self, source: &str, mount: &Mount) -> Result<(), Violation> {
        check_session(source, self.session.as_str())?;
        let target = mount.target();
        let file = source
            .rsplit_once(&format!("/{}/{}", self.session, trust::DIRECTORY))
            .map(|(_, file)| file);
        let good = match file {
            Some("") => target == trust::TARGET,
            Some(file) if file.strip_prefix('/') == Some(trust::CA) => {
                let name = trust::hashed::file();
                let named = target
                    .rsplit_once('/')
                    .is_some_and(|(_, last)| last == name);
                named && mount.is_apart(&self.mounts)
            }
            Some(file) => {
                let known = [trust::BUNDLE, trust::KEYSTORE];
                let known = known.into_iter().any(|k| file.strip_prefix('/') == Some(k));
                known && mount.is_apart(&self.mounts)
            }
            None => false,
        };
        if good {
            Ok(())
        } else {
            Err(target_violation(
                target,
                "is no place for the session's trust files",
            ))
        }
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

    /// A repository's two directories have one place each, and its hooks are in the one and read-only.
    fn check_repository(
        &self,
        source: &str,
        target: &str,
        read_only: bool,
    ) -> Result<(), Violation> {
        let common = self.mounts.iter().find_map(|mount| match mount {
            Mount::Repository { source, target, .. } if target == LENT_COMMON => Some(source),
            _ => None,
        });
        let rest = common.and_then(|common| below(source, common));
        let good = match (target.strip_prefix(LENT_COMMON), rest) {
            (Some(""), Some("")) => true,
            (Some("/hooks"), Some("hooks")) => read_only,
            (None, Some(rest)) if target == LENT_OWN => rest
                .strip_prefix("worktrees/")
                .is_some_and(|name| !name.is_empty() && !name.contains('/')),
            _ => false,
        };
        if good {
            Ok(())
        } else {
            Err(target_violation(
                target,
                "is no place for that of a repository",
            ))
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

impl Mount {
    /// Whether its target is a place that is the image's alone: neither below nor above what another mount puts there.
    pub(crate) fn is_apart(&self, others: &[Mount]) -> bool {
        let target = self.target();
        check_target(target).is_ok()
            && !INSIDE_FILES.contains(&target)
            && others
                .iter()
                .filter(|other| !matches!(other, Mount::Trust { .. }))
                .map(Mount::target)
                .all(|other| below(target, other).is_none() && below(other, target).is_none())
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
mod tests;
