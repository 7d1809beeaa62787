//! The command line, which the engine's create request carries: written by our CLI, never by a person.

use std::ffi::OsString;
use std::time::Duration;

/// How long init waits for the enforcer unless told otherwise.
const WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    #[error("{0:?} wants a value")]
    Value(String),
    #[error("{0:?} is not a number")]
    Number(OsString),
    #[error("{0:?} is not an option")]
    Option(OsString),
    #[error("--cmd stands before any --stage")]
    Stage,
    #[error("there is no program to run")]
    Program,
}

/// Commands that run at the same time; the next stage waits for all of them.
#[derive(Debug)]
pub struct Stage {
    pub name: String,
    pub commands: Vec<Vec<OsString>>,
}

#[derive(Debug)]
pub struct Arguments {
    pub wait: Duration,
    pub stages: Vec<Stage>,
    /// `None`: idle until signalled.
    pub program: Option<Vec<OsString>>,
    pub probe: Option<String>,
    /// Rows and columns that our terminal starts with.
    pub terminal: Option<(u16, u16)>,
}

impl Arguments {
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, ArgumentError> {
        let mut parsed = Self {
            wait: WAIT,
            stages: Vec::new(),
            program: None,
            probe: None,
            terminal: None,
        };
        let mut idle = false;
        let mut rest = arguments;
        while let Some(argument) = rest.next() {
            match argument.to_str() {
                Some("--wait-ms") => {
                    parsed.wait = Duration::from_millis(number(&mut rest, "--wait-ms")?);
                }
                Some("--stage") => {
                    let name = value(&mut rest, "--stage")?.to_string_lossy().into_owned();
                    parsed.stages.push(Stage {
                        name,
                        commands: Vec::new(),
                    });
                }
                Some("--cmd") => {
                    let count: u64 = number(&mut rest, "--cmd")?;
                    let command = (0..count)
                        .map(|_| value(&mut rest, "--cmd"))
                        .collect::<Result<Vec<_>, _>>()?;
                    let stage = parsed.stages.last_mut().ok_or(ArgumentError::Stage)?;
                    stage.commands.push(command);
                }
                Some("--terminal") => {
                    let rows = number(&mut rest, "--terminal")?;
                    parsed.terminal = Some((rows, number(&mut rest, "--terminal")?));
                }
                Some("--probe") => {
                    parsed.probe =
                        Some(value(&mut rest, "--probe")?.to_string_lossy().into_owned());
                }
                Some("--idle") => idle = true,
                Some("--") => {
                    let program: Vec<OsString> = rest.by_ref().collect();
                    if !program.is_empty() {
                        parsed.program = Some(program);
                    }
                }
                _ => return Err(ArgumentError::Option(argument)),
            }
        }
        if parsed.program.is_none() && !idle && parsed.probe.is_none() {
            return Err(ArgumentError::Program);
        }
        Ok(parsed)
    }
}

fn value(
    rest: &mut impl Iterator<Item = OsString>,
    option: &str,
) -> Result<OsString, ArgumentError> {
    rest.next()
        .ok_or_else(|| ArgumentError::Value(option.to_owned()))
}

fn number<N: std::str::FromStr>(
    rest: &mut impl Iterator<Item = OsString>,
    option: &str,
) -> Result<N, ArgumentError> {
    let text = value(rest, option)?;
    text.to_str()
        .and_then(|text| text.parse().ok())
        .ok_or(ArgumentError::Number(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &[&str]) -> Result<Arguments, ArgumentError> {
        Arguments::parse(text.iter().map(OsString::from))
    }

    #[test]
    fn stages_keep_their_commands_whatever_these_look_like() {
        let parsed = parse(&[
            "--stage",
            "onCreateCommand",
            "--cmd",
            "3",
            "sh",
            "-c",
            "--stage",
            "--cmd",
            "1",
            "--idle",
            "--stage",
            "postCreateCommand",
            "--cmd",
            "1",
            "true",
            "--terminal",
            "24",
            "80",
            "--",
            "bash",
            "--",
            "-l",
        ])
        .unwrap();
        assert_eq!(parsed.stages.len(), 2);
        assert_eq!(parsed.terminal, Some((24, 80)));
        assert_eq!(parsed.stages[0].commands[0], ["sh", "-c", "--stage"]);
        assert_eq!(parsed.stages[0].commands[1], ["--idle"]);
        assert_eq!(parsed.program.unwrap(), ["bash", "--", "-l"]);
    }

    #[test]
    fn a_command_line_without_a_program_is_refused() {
        assert!(matches!(parse(&[]), Err(ArgumentError::Program)));
        assert!(matches!(parse(&["--"]), Err(ArgumentError::Program)));
        assert!(matches!(
            parse(&["--cmd", "1", "x", "--idle"]),
            Err(ArgumentError::Stage)
        ));
        assert!(matches!(
            parse(&["--stage", "s", "--cmd", "9", "x"]),
            Err(ArgumentError::Value(_))
        ));
        assert!(matches!(
            parse(&["--terminal", "65536", "80", "--idle"]),
            Err(ArgumentError::Number(_))
        ));
    }
}
