//! Lifecycle commands in the three shapes of devcontainer.json: a line for the shell, an argument vector, or several of
//! either by name, which run at the same time. All of them run inside the container, under the session's policy.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::template::{Template, TemplateError, Variables};

/// Most commands that run at the same time.
pub const MAX_PARALLEL: usize = 32;
/// Most arguments of one command.
pub const MAX_ARGUMENTS: usize = 256;

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Lifecycle {
    One(Command),
    /// By name, for messages.
    Parallel(#[schemars(extend("maxProperties" = MAX_PARALLEL))] BTreeMap<String, Command>),
}

#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Command {
    /// One line for `/bin/sh -c`.
    Shell(Template),
    /// Program and arguments, without a shell.
    Exec(#[schemars(length(max = MAX_ARGUMENTS))] Vec<Template>),
}

// === impl Lifecycle ===

impl Lifecycle {
    /// The commands of this stage; a lone one has no name.
    pub fn commands(&self) -> Vec<(Option<&str>, &Command)> {
        match self {
            Self::One(command) => vec![(None, command)],
            Self::Parallel(commands) => commands
                .iter()
                .map(|(name, command)| (Some(name.as_str()), command))
                .collect(),
        }
    }

    /// Names that its commands read from the host's environment.
    pub fn local_env(&self) -> BTreeSet<&str> {
        self.commands()
            .into_iter()
            .flat_map(|(_, command)| command.templates())
            .flat_map(Template::local_env)
            .collect()
    }
}

// === impl Command ===

impl Command {
    fn templates(&self) -> &[Template] {
        match self {
            Self::Shell(line) => std::slice::from_ref(line),
            Self::Exec(arguments) => arguments,
        }
    }

    /// What is executed.
    ///
    /// # Errors
    /// [`TemplateError`] when a substituted argument is too long.
    pub fn argv(&self, variables: &Variables<'_>) -> Result<Vec<String>, TemplateError> {
        match self {
            Self::Shell(line) => Ok(vec![
                "/bin/sh".to_owned(),
                "-c".to_owned(),
                line.substitute(variables)?,
            ]),
            Self::Exec(arguments) => arguments
                .iter()
                .map(|argument| argument.substitute(variables))
                .collect(),
        }
    }

    /// One line for people: the shell's line, or the arguments as a JSON array.
    pub fn shown(&self) -> String {
        match self {
            Self::Shell(line) => line.as_str().to_owned(),
            Self::Exec(arguments) => {
                let quoted: Vec<String> = arguments
                    .iter()
                    .map(|argument| format!("{:?}", argument.as_str()))
                    .collect();
                format!("[{}]", quoted.join(", "))
            }
        }
    }
}
