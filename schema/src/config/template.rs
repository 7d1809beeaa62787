//! `${localEnv:HOME}` and the other variables of devcontainer.json, taken apart when the file is read and put together
//! later by a pure function over a lookup: the CLI gives it the host's side, the engine the container's. What a template
//! reads from the host's environment is known before it is read, so that capability review can show it.

use std::collections::BTreeSet;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// Longest text in bytes, before and after substitution.
pub const MAX_TEMPLATE_BYTES: usize = 32 << 10;

/// A text with variables in it. Equality is that of the text.
#[derive(Clone, Debug)]
pub struct Template {
    text: Box<str>,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// Of the process that runs the CLI.
    LocalEnv {
        name: String,
        default: Option<String>,
    },
    /// Of the container, as its image and `containerEnv` set it.
    ContainerEnv {
        name: String,
        default: Option<String>,
    },
    LocalWorkspaceFolder,
    LocalWorkspaceFolderBasename,
    ContainerWorkspaceFolder,
    ContainerWorkspaceFolderBasename,
    DevcontainerId,
}

/// Which variables may stand in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All: `remoteEnv`.
    All,
    /// All but the container's own environment, which is only being made: `containerEnv`.
    ContainerEnv,
    /// Names of the workspace alone: paths and volume names.
    Paths,
    /// All, and what is no variable of ours is left to the shell as it stands: lifecycle commands.
    Command,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TemplateError {
    #[error("longer than {MAX_TEMPLATE_BYTES} bytes")]
    TooLong,
    #[error("`${{` is not closed")]
    Unclosed,
    #[error("`${{{0}}}` is no variable{hint}", hint = hint(.0))]
    Unknown(String),
    #[error("`${{{0}}}` cannot be used here")]
    NotHere(String),
}

/// Where the values come from.
#[derive(Clone, Copy)]
pub struct Variables<'a> {
    /// Absolute path of the workspace on the host.
    pub local_workspace_folder: &'a str,
    /// Absolute path of the workspace in the container.
    pub container_workspace_folder: &'a str,
    /// Stable and unique for the container among those of this host.
    pub devcontainer_id: &'a str,
    pub local_env: &'a dyn Fn(&str) -> Option<String>,
    pub container_env: &'a dyn Fn(&str) -> Option<String>,
}

const NAMES: [&str; 7] = [
    "localEnv",
    "containerEnv",
    "localWorkspaceFolder",
    "localWorkspaceFolderBasename",
    "containerWorkspaceFolder",
    "containerWorkspaceFolderBasename",
    "devcontainerId",
];

fn hint(name: &str) -> String {
    let name = name.split(':').next().unwrap_or("");
    let near = if name == "env" {
        Some("localEnv")
    } else {
        crate::read::nearest(name, &NAMES)
    };
    near.map(|near| format!("; did you mean `{near}`?"))
        .unwrap_or_default()
}

// === impl Variable ===

impl Variable {
    fn parse(text: &str) -> Option<Self> {
        let with_name = |rest: &str| {
            let (name, default) = match rest.split_once(':') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (rest, None),
            };
            (!name.is_empty()).then(|| (name.to_owned(), default))
        };
        if let Some(rest) = text.strip_prefix("localEnv:") {
            return with_name(rest).map(|(name, default)| Self::LocalEnv { name, default });
        }
        if let Some(rest) = text.strip_prefix("containerEnv:") {
            return with_name(rest).map(|(name, default)| Self::ContainerEnv { name, default });
        }
        Some(match text {
            "localWorkspaceFolder" => Self::LocalWorkspaceFolder,
            "localWorkspaceFolderBasename" => Self::LocalWorkspaceFolderBasename,
            "containerWorkspaceFolder" => Self::ContainerWorkspaceFolder,
            "containerWorkspaceFolderBasename" => Self::ContainerWorkspaceFolderBasename,
            "devcontainerId" => Self::DevcontainerId,
            _ => return None,
        })
    }

    fn fits(&self, scope: Scope) -> bool {
        match (scope, self) {
            (Scope::All | Scope::Command, _) => true,
            (Scope::ContainerEnv, variable) => !matches!(variable, Self::ContainerEnv { .. }),
            (Scope::Paths, variable) => {
                !matches!(variable, Self::ContainerEnv { .. } | Self::LocalEnv { .. })
            }
        }
    }

    fn value(&self, variables: &Variables<'_>) -> String {
        match self {
            Self::LocalEnv { name, default } => (variables.local_env)(name)
                .or_else(|| default.clone())
                .unwrap_or_default(),
            Self::ContainerEnv { name, default } => (variables.container_env)(name)
                .or_else(|| default.clone())
                .unwrap_or_default(),
            Self::LocalWorkspaceFolder => variables.local_workspace_folder.to_owned(),
            Self::LocalWorkspaceFolderBasename => basename(variables.local_workspace_folder),
            Self::ContainerWorkspaceFolder => variables.container_workspace_folder.to_owned(),
            Self::ContainerWorkspaceFolderBasename => {
                basename(variables.container_workspace_folder)
            }
            Self::DevcontainerId => variables.devcontainer_id.to_owned(),
        }
    }
}

fn basename(path: &str) -> String {
    path.trim_end_matches(['/', '\\'])
        .rsplit(['/', '\\'])
        .next()
        .unwrap_or("")
        .to_owned()
}

// === impl Template ===

impl Template {
    /// # Errors
    /// [`TemplateError`] for what is too long, not closed, unknown, or not for this scope.
    pub fn parse(text: &str, scope: Scope) -> Result<Self, TemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(TemplateError::TooLong);
        }
        let (mut parts, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(start) = rest.find("${") {
            let (before, tail) = rest.split_at(start);
            literal.push_str(before);
            let Some(end) = tail.find('}') else {
                if scope == Scope::Command {
                    rest = tail;
                    break;
                }
                return Err(TemplateError::Unclosed);
            };
            let name = &tail[2..end];
            match Variable::parse(name) {
                Some(variable) if variable.fits(scope) => {
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Variable(variable));
                }
                Some(_) => return Err(TemplateError::NotHere(name.to_owned())),
                None if scope == Scope::Command => {
                    literal.push_str("${");
                    rest = &tail[2..];
                    continue;
                }
                None => return Err(TemplateError::Unknown(name.to_owned())),
            }
            rest = &tail[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self {
            text: text.into(),
            parts,
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text with values in the variables' places; values are not looked at again.
    ///
    /// # Errors
    /// [`TemplateError::TooLong`] when the result is.
    pub fn substitute(&self, variables: &Variables<'_>) -> Result<String, TemplateError> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.push_str(literal),
                Part::Variable(variable) => out.push_str(&variable.value(variables)),
            }
            if out.len() > MAX_TEMPLATE_BYTES {
                return Err(TemplateError::TooLong);
            }
        }
        Ok(out)
    }

    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable),
            Part::Literal(_) => None,
        })
    }

    /// Names that it reads from the host's environment.
    pub fn local_env<'t>(&'t self) -> BTreeSet<&'t str> {
        let name = |variable: &'t Variable| match variable {
            Variable::LocalEnv { name, .. } => Some(name.as_str()),
            _ => None,
        };
        self.variables().filter_map(name).collect()
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Serialize for Template {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

super::units::inline_schema!(Template, "Template", { "type": "string", "maxLength": MAX_TEMPLATE_BYTES });

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expand(text: &str, scope: Scope) -> Result<String, TemplateError> {
        let variables = Variables {
            local_workspace_folder: "/home/me/my project",
            container_workspace_folder: "/workspaces/p/",
            devcontainer_id: "abc123",
            local_env: &|name| (name == "HOME").then(|| "/home/${localEnv:SECRET}".to_owned()),
            container_env: &|name| (name == "PATH").then(|| "/bin".to_owned()),
        };
        Template::parse(text, scope)?.substitute(&variables)
    }

    #[test]
    fn every_variable_of_devcontainer_json_is_substituted_once() {
        for (text, expected) in [
            ("plain $HOME {x}", "plain $HOME {x}"),
            (
                "${localWorkspaceFolder}|${localWorkspaceFolderBasename}",
                "/home/me/my project|my project",
            ),
            (
                "${containerWorkspaceFolder}|${containerWorkspaceFolderBasename}",
                "/workspaces/p/|p",
            ),
            ("${devcontainerId}", "abc123"),
            ("${localEnv:HOME}", "/home/${localEnv:SECRET}"),
            ("<${localEnv:NONE}>", "<>"),
            ("${localEnv:NONE:a:b}", "a:b"),
            ("${localEnv:NONE:}", ""),
            ("${localEnv:HOME:x}", "/home/${localEnv:SECRET}"),
            ("${containerEnv:PATH}:/x", "/bin:/x"),
        ] {
            assert_eq!(expand(text, Scope::All).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_variable_is_refused_with_the_nearest_one() {
        let error = |text, scope| expand(text, scope).unwrap_err().to_string();
        assert_eq!(error("${PATH}", Scope::All), "`${PATH}` is no variable");
        assert_eq!(
            error("${env:X}", Scope::All),
            "`${env:X}` is no variable; did you mean `localEnv`?"
        );
        assert!(
            error("${localWorkspaceFoldr}", Scope::All)
                .ends_with("did you mean `localWorkspaceFolder`?")
        );
        assert_eq!(
            error("${localEnv:}", Scope::All),
            "`${localEnv:}` is no variable; did you mean `localEnv`?"
        );
        assert_eq!(error("a ${b", Scope::All), "`${` is not closed");
        assert_eq!(
            error("${containerEnv:A}", Scope::ContainerEnv),
            "`${containerEnv:A}` cannot be used here"
        );
        assert_eq!(
            error("${localEnv:A}", Scope::Paths),
            "`${localEnv:A}` cannot be used here"
        );
    }

    #[test]
    fn a_command_leaves_the_shell_its_own_variables() {
        for (text, expected) in [
            (
                "echo ${PATH:-x} ${localEnv:HOME}",
                "echo ${PATH:-x} /home/${localEnv:SECRET}",
            ),
            ("echo ${X:-${devcontainerId}}", "echo ${X:-abc123}"),
            ("echo ${", "echo ${"),
            ("${a ${devcontainerId}", "${a abc123"),
        ] {
            assert_eq!(expand(text, Scope::Command).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn texts_are_bounded_before_and_after_substitution() {
        assert!(expand(&"x".repeat(MAX_TEMPLATE_BYTES), Scope::All).is_ok());
        assert_eq!(
            expand(&"x".repeat(MAX_TEMPLATE_BYTES + 1), Scope::All),
            Err(TemplateError::TooLong)
        );
        let many = "${localWorkspaceFolder}".repeat(MAX_TEMPLATE_BYTES / 23);
        assert!(expand(&many, Scope::All).is_ok());
        let variables = Variables {
            local_workspace_folder: &"y".repeat(MAX_TEMPLATE_BYTES),
            container_workspace_folder: "",
            devcontainer_id: "",
            local_env: &|_| None,
            container_env: &|_| None,
        };
        let fits = Template::parse("${localWorkspaceFolder}", Scope::All).unwrap();
        assert!(fits.substitute(&variables).is_ok());
        let over = Template::parse("${localWorkspaceFolder}z", Scope::All).unwrap();
        assert_eq!(over.substitute(&variables), Err(TemplateError::TooLong));
    }

    #[test]
    fn what_is_read_from_the_host_is_known_beforehand() {
        let template =
            Template::parse("${localEnv:B}${localEnv:A:x}${containerEnv:C}", Scope::All).unwrap();
        assert_eq!(
            template.local_env().into_iter().collect::<Vec<_>>(),
            ["A", "B"]
        );
    }
}
