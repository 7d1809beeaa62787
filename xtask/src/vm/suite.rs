//! What runs in a guest: each suite is a script tests/vm/NAME, and here is what it needs from outside, as variables. Called by `vm`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::paths;

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// The enforcer's integration tests: every program loaded, attached, pinned, adopted
    Kernel,
}

/// What was asked for on the command line.
pub struct Request<'a> {
    pub only: &'a [String],
    pub all: bool,
    pub built: bool,
}

/// A suite ready to run.
pub struct Job {
    pub name: &'static str,
    /// Variables of its script.
    pub environment: Vec<(&'static str, String)>,
}

impl Suite {
    pub const EVERY: [Self; 1] = [Self::Kernel];

    /// Builds what the suite runs.
    pub fn prepare(self, request: &Request<'_>) -> Result<Job> {
        match self {
            Self::Kernel => Ok(Job {
                name: "kernel",
                environment: vec![
                    ("kernel_test", utf8(test_binary("enforcer", "kernel")?)?),
                    ("only", request.only.join(" ")),
                ],
            }),
        }
    }
}

fn utf8(path: PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// Builds a package's integration test and says where cargo put it.
fn test_binary(package: &str, test: &str) -> Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "test",
            "--package",
            package,
            "--test",
            test,
            "--no-run",
            "--quiet",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(paths::root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "the test {test} of {package} does not build"
    );
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if message["reason"] == "compiler-artifact"
            && message["target"]["name"] == test
            && message["profile"]["test"] == true
            && let Some(executable) = message["executable"].as_str()
        {
            return Ok(executable.into());
        }
    }
    bail!("cargo names no executable for the test {test} of {package}")
}
