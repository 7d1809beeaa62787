//! What runs in a guest: each suite is a script tests/vm/NAME, and here is what it needs from outside, as variables. Called by `vm`.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{dist, paths, sh};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// The enforcer's eBPF programs: every one loaded, attached, pinned, adopted
    Kernel,
    /// A whole session without an engine: gate, steering, gateway, init
    Session,
    /// The end-to-end tests of the network: the built binary, an engine, real clients
    E2e,
    /// Those of rules about files and programs, which these kernels carry by BPF LSM
    Files,
    /// The red team's rows on files and programs
    Redteam,
    /// What rules about files and programs cost there: `cargo xtask bench --quick --only rules --only builds`
    Bench,
}

/// The end-to-end tests that run without `--all`: each way that a connection can be decided, once. An emulated machine takes
/// fifteen seconds for a session.
const E2E: &[&str] = &[
    "an_allowed_name_is_answered_on_80_and_on_443",
    "a_name_that_nobody_allowed_gets_the_page_on_80_and_443_and_eperm_elsewhere",
    "a_raw_address_is_eperm_although_an_allowed_name_leads_there",
    "what_exec_starts_is_held_by_the_same_policy",
    "two_sessions_with_opposite_policies_do_not_lend_each_other_anything",
    // What needs a machine of its own is no part of other runs.
    "what_is_open_goes_on_and_what_is_new_is_trusted_when_the_clock_is_set",
    "--include-ignored",
];

/// Sessions without an engine lie in a guest's memory, on a mount of their own: what takes the outermost mount for the workspace's, as an engine
/// makes it, is asked in `files` instead, on a disk.
const ENGINES: &str = "--skip owner:: --skip a_root_that_is_read_only_leaves";

/// The tests of rules about files and programs, of the workspace's owner, and of limits.
const FILES: &[&str] = &["files::", "noexec::", "programs::", "owner::", "limits::"];

/// The red team's rows on files and programs, but for attributes, which a guest's disk in memory does not take.
const HELD: &[&str] = &["held::", "--skip", "f10_attributes"];

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
    /// All that can pass or fail.
    pub const EVERY: [Self; 5] = [
        Self::Kernel,
        Self::Session,
        Self::E2e,
        Self::Files,
        Self::Redteam,
    ];

    /// Whether it runs containers.
    pub fn needs_engine(self) -> bool {
        matches!(self, Self::E2e | Self::Files | Self::Redteam | Self::Bench)
    }

    /// How long a machine may take for it, its start included: about four times what it takes on two cores without acceleration.
    pub fn limit(self, all: bool) -> Duration {
        Duration::from_secs(match self {
            _ if all => 3600,
            Self::Kernel => 300,
            Self::Session | Self::E2e => 900,
            Self::Files => 1200,
            Self::Redteam | Self::Bench => 1500,
        })
    }

    /// Builds what the suite runs.
    pub fn prepare(self, request: &Request<'_>) -> Result<Job> {
        let (name, mut environment) = match self {
            Self::Kernel => {
                let test = test_binary("enforcer", "kernel")?;
                ("kernel", vec![("kernel_test", utf8(test)?)])
            }
            Self::Session => {
                // The test finds both beside itself.
                sh::run(cargo(&["build", "--quiet"]).args([
                    "--package",
                    "gateway",
                    "--package",
                    "init",
                ]))?;
                let test = test_binary("enforcer", "session")?;
                let variables = vec![
                    ("session_test", utf8(test)?),
                    ("session_skips", ENGINES.to_owned()),
                ];
                ("session", variables)
            }
            Self::E2e => ("e2e", end_to_end("e2e_network", E2E, request)?),
            Self::Files => ("e2e", end_to_end("e2e_cli", FILES, request)?),
            Self::Redteam => ("e2e", end_to_end("redteam", HELD, request)?),
            Self::Bench => {
                if !request.built {
                    dist::run(&dist::Arguments { fast: false })?;
                }
                ("bench", vec![("xtask", utf8(std::env::current_exe()?)?)])
            }
        };
        environment.push(("only", request.only.join(" ")));
        Ok(Job { name, environment })
    }
}

/// What the script `e2e` runs: a suite's tests against the built binary, these of them where nothing else was asked for.
fn end_to_end(
    suite: &str,
    usual: &[&str],
    request: &Request<'_>,
) -> Result<Vec<(&'static str, String)>> {
    if !request.built {
        dist::run(&dist::Arguments { fast: true })?;
    }
    let chosen = match (request.only, request.all) {
        ([], false) => usual.join(" "),
        ([], true) => "--include-ignored".to_owned(),
        (words, _) => words.join(" ") + " --include-ignored",
    };
    Ok(vec![
        (
            "e2e_test",
            utf8(test_binary("agentcontainer-tests", suite)?)?,
        ),
        ("binary", utf8(paths::binary())?),
        ("e2e_only", chosen),
    ])
}

fn utf8(path: PathBuf) -> Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("{} is not UTF-8", path.display()))
}

/// Builds a package's integration test and says where cargo put it.
fn test_binary(package: &str, test: &str) -> Result<PathBuf> {
    let output = cargo(&[
        "test",
        "--no-run",
        "--quiet",
        "--package",
        package,
        "--test",
        test,
    ])
    .args(["--message-format", "json-render-diagnostics"])
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

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(words)
        .current_dir(paths::root())
        .stdin(Stdio::null());
    cargo
}
