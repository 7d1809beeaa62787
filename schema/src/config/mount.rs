//! Mounts in both forms of devcontainer.json: a `--mount` string or an object. The list of what can be spelt is closed:
//! named volumes, tmpfs, and read-only binds of something below the workspace. Engine sockets, host roots, volume
//! drivers and propagation cannot be spelt, before or after substitution. That a bind's source does not leave the
//! workspace through a symbolic link is the engine room's to check when it opens it.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

use super::template::{Scope, Template, TemplateError, Variables};
use super::units::{MemorySize, UnitError};

/// Longest path in bytes (PATH_MAX less the terminator).
pub const MAX_PATH_BYTES: usize = 4095;
/// Longest name of a volume.
pub const MAX_VOLUME_NAME_BYTES: usize = 128;

#[derive(Clone, Debug, PartialEq)]
pub struct Mount {
    pub source: Source,
    /// Where in the container.
    pub target: Template,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// `${localWorkspaceFolder}`, or something below it.
    Workspace {
        below: String,
    },
    Volume {
        name: Template,
    },
    Tmpfs {
        size: Option<MemorySize>,
    },
}

/// A mount whose variables have values: what the engine is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedMount {
    pub source: ResolvedSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResolvedSource {
    /// Path relative to the workspace, empty for the workspace itself: no `..`, no leading `/`.
    Workspace {
        below: String,
    },
    Volume {
        name: String,
    },
    Tmpfs {
        size: Option<MemorySize>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MountError {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is given twice")]
    Twice(String),
    #[error(
        "`{0}` is no option of a mount that can be asked for; there are type, source, target, readonly, tmpfs-size and consistency"
    )]
    Option(String),
    #[error("`{0}` is no mount type; there are volume, tmpfs and bind")]
    Type(String),
    #[error("`{0}` does not belong to this type of mount")]
    Unfitting(&'static str),
    #[error("`{0}` is neither true nor false")]
    Flag(String),
    #[error(
        "a bind starts at ${{localWorkspaceFolder}} and stays below it: the host's other files and sockets cannot be mounted"
    )]
    OutsideWorkspace,
    #[error(
        "a bind from the workspace has to be readonly: a second writable way in would go around the protection of control files; use a volume, or add `readonly`"
    )]
    WritableBind,
    #[error("the workspace is mounted as a bind of ${{localWorkspaceFolder}} and nothing else")]
    NotWorkspace,
    #[error(
        "a volume name is 1 to {MAX_VOLUME_NAME_BYTES} of letters, digits, `_`, `.` and `-`, starting with a letter or digit"
    )]
    VolumeName,
    #[error("volumes that begin with `agentcontainer-` belong to agentcontainer itself")]
    ReservedVolume,
    #[error(
        "a target is an absolute path of at most {MAX_PATH_BYTES} bytes, without `.`, `..`, empty parts, commas or control characters"
    )]
    TargetPath,
    #[error(
        "nothing can be mounted at {0}, or above or below what the container's own isolation is made of"
    )]
    ReservedTarget(String),
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Size(#[from] UnitError),
}

/// Targets that belong to the kernel's interfaces or to us, with everything below and above them.
const RESERVED_TARGETS: &[&str] = &[
    "/proc",
    "/sys",
    "/dev",
    "/.agentcontainer",
    "/run/agentcontainer",
    "/run/secrets",
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/hostname",
];

/// The fields of a mount as either form gives them.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    pub kind: Option<String>,
    pub source: Option<String>,
    pub target: Option<String>,
    pub read_only: Option<bool>,
    pub tmpfs_size: Option<String>,
}

// === impl Fields ===

impl Fields {
    /// Reads `type=volume,source=NAME,target=/x,readonly`.
    pub fn parse(text: &str) -> Result<Self, MountError> {
        let mut fields = Self::default();
        for option in text.split(',') {
            let (key, value) = match option.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (option, None),
            };
            let slot = match key {
                "type" => &mut fields.kind,
                "source" | "src" => &mut fields.source,
                "target" | "dst" | "destination" => &mut fields.target,
                "tmpfs-size" => &mut fields.tmpfs_size,
                "readonly" | "ro" => {
                    let flag = match value {
                        None | Some("true" | "1") => true,
                        Some("false" | "0") => false,
                        Some(other) => return Err(MountError::Flag(other.to_owned())),
                    };
                    if fields.read_only.replace(flag).is_some() {
                        return Err(MountError::Twice(key.to_owned()));
                    }
                    continue;
                }
                // Speed on engines in a virtual machine; without effect on what can be read or written.
                "consistency"
                    if matches!(
                        value,
                        Some("cached" | "delegated" | "consistent" | "default")
                    ) =>
                {
                    continue;
                }
                _ => return Err(MountError::Option(key.to_owned())),
            };
            let value = value.ok_or_else(|| MountError::Option(key.to_owned()))?;
            if slot.replace(value.to_owned()).is_some() {
                return Err(MountError::Twice(key.to_owned()));
            }
        }
        Ok(fields)
    }

    fn mount(self) -> Result<Mount, MountError> {
        let target = self.target.ok_or(MountError::Missing("target"))?;
        let kind = self.kind.ok_or(MountError::Missing("type"))?;
        let read_only = self.read_only.unwrap_or(false);
        if self.tmpfs_size.is_some() && kind != "tmpfs" {
            return Err(MountError::Unfitting("tmpfs-size"));
        }
        let source = match (kind.as_str(), self.source) {
            ("volume", Some(name)) => Source::Volume {
                name: Template::parse(&name, Scope::Paths)?,
            },
            ("volume", None) => return Err(MountError::Missing("source")),
            ("tmpfs", None) if read_only => return Err(MountError::Unfitting("readonly")),
            ("tmpfs", None) => Source::Tmpfs {
                size: self.tmpfs_size.map(|size| size.parse()).transpose()?,
            },
            ("tmpfs", Some(_)) => return Err(MountError::Unfitting("source")),
            ("bind", Some(source)) => Source::Workspace {
                below: below_workspace(&source)?,
            },
            ("bind", None) => return Err(MountError::Missing("source")),
            _ => return Err(MountError::Type(kind)),
        };
        Ok(Mount {
            source,
            target: Template::parse(&target, Scope::Paths)?,
            read_only,
        })
    }
}

/// What follows `${localWorkspaceFolder}/`, in plain words.
fn below_workspace(source: &str) -> Result<String, MountError> {
    let rest = source
        .strip_prefix("${localWorkspaceFolder}")
        .ok_or(MountError::OutsideWorkspace)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.is_empty() {
        return Ok(String::new());
    }
    let below = rest.strip_prefix('/').ok_or(MountError::OutsideWorkspace)?;
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..")
            && !part.contains(['\\', '$'])
            && !part.chars().any(char::is_control)
    };
    if below.len() <= MAX_PATH_BYTES && below.split('/').all(plain) {
        Ok(below.to_owned())
    } else {
        Err(MountError::OutsideWorkspace)
    }
}

/// An absolute path in plain words that nothing of ours or of the kernel's stands at.
///
/// # Errors
/// [`MountError::TargetPath`] or [`MountError::ReservedTarget`].
pub fn check_target(path: &str) -> Result<(), MountError> {
    let parts = path.strip_prefix('/').ok_or(MountError::TargetPath)?;
    let plain = |part: &str| {
        !matches!(part, "" | "." | "..") && !part.chars().any(|c| c.is_control() || c == ',')
    };
    if path.len() > MAX_PATH_BYTES || !parts.split('/').all(plain) {
        return Err(MountError::TargetPath);
    }
    let within = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    match RESERVED_TARGETS
        .iter()
        .find(|reserved| within(path, reserved) || within(reserved, path))
    {
        Some(_) => Err(MountError::ReservedTarget(path.to_owned())),
        None => Ok(()),
    }
}

/// `workspaceFolder`, checked before there is a container; the engine's own value is checked again as a target.
pub(crate) fn check_workspace_folder(folder: &Template) -> Result<(), MountError> {
    check_target(&folder.substitute(&SAMPLE)?)
}

fn check_volume_name(name: &str) -> Result<(), MountError> {
    let fits = (1..=MAX_VOLUME_NAME_BYTES).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric());
    match fits {
        true if name.starts_with("agentcontainer-") => Err(MountError::ReservedVolume),
        true => Ok(()),
        false => Err(MountError::VolumeName),
    }
}

// === impl Mount ===

/// Values that stand in for the real ones when a file is checked before there is a container.
const SAMPLE: Variables<'static> = Variables {
    local_workspace_folder: "/workspace",
    container_workspace_folder: "/workspaces/workspace",
    devcontainer_id: "0",
    local_env: &|_| None,
    container_env: &|_| None,
};

impl Mount {
    /// One entry of `mounts`.
    pub(crate) fn from_fields(fields: Fields) -> Result<Self, MountError> {
        let mount = fields.mount()?;
        if matches!(mount.source, Source::Workspace { .. }) && !mount.read_only {
            return Err(MountError::WritableBind);
        }
        mount.resolve(&SAMPLE).map(|_| mount)
    }

    /// `workspaceMount`.
    pub(crate) fn workspace(text: &str) -> Result<Self, MountError> {
        let mount = Fields::parse(text)?.mount()?;
        if mount.source
            != (Source::Workspace {
                below: String::new(),
            })
        {
            return Err(MountError::NotWorkspace);
        }
        mount.resolve(&SAMPLE).map(|_| mount)
    }

    /// Puts values in the variables' places and checks the result again.
    ///
    /// # Errors
    /// [`MountError`] when with these values it is no mount that can be asked for.
    pub fn resolve(&self, variables: &Variables<'_>) -> Result<ResolvedMount, MountError> {
        let target = self.target.substitute(variables)?;
        check_target(&target)?;
        let source = match &self.source {
            Source::Workspace { below } => ResolvedSource::Workspace {
                below: below.clone(),
            },
            Source::Tmpfs { size } => ResolvedSource::Tmpfs { size: *size },
            Source::Volume { name } => {
                let name = name.substitute(variables)?;
                check_volume_name(&name)?;
                ResolvedSource::Volume { name }
            }
        };
        Ok(ResolvedMount {
            source,
            target,
            read_only: self.read_only,
        })
    }
}

/// The `--mount` string: the canonical form, and what people are shown.
impl fmt::Display for Mount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.as_str();
        match &self.source {
            Source::Workspace { below } if below.is_empty() => {
                write!(
                    f,
                    "type=bind,source=${{localWorkspaceFolder}},target={target}"
                )?;
            }
            Source::Workspace { below } => write!(
                f,
                "type=bind,source=${{localWorkspaceFolder}}/{below},target={target}"
            )?,
            Source::Volume { name } => {
                write!(f, "type=volume,source={},target={target}", name.as_str())?
            }
            Source::Tmpfs { size: None } => write!(f, "type=tmpfs,target={target}")?,
            Source::Tmpfs { size: Some(size) } => {
                write!(f, "type=tmpfs,target={target},tmpfs-size={size}")?
            }
        }
        if self.read_only {
            f.write_str(",readonly")
        } else {
            Ok(())
        }
    }
}

impl Serialize for Mount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

super::units::inline_schema!(Mount, "Mount", {
    "anyOf": [
        { "type": "string" },
        {
            "type": "object",
            "properties": {
                "type": { "enum": ["volume", "tmpfs", "bind"] },
                "source": { "type": "string" },
                "target": { "type": "string" }
            },
            "required": ["type", "target"],
            "additionalProperties": false
        }
    ]
});

#[cfg(test)]
mod tests;
