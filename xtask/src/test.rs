//! `cargo xtask test`: unit tests, then the end-to-end tests against the built binary with a real engine, then a summary that counts
//! what was skipped as skipped.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{agents, dist, engine, fuzz, image, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also what takes long: tests marked as such, every virtual machine
    #[arg(long)]
    all: bool,
    /// Only tests whose names hold one of these words, and only the end-to-end ones of them
    names: Vec<String>,
    /// Only the end-to-end tests of these files of tests/tests
    #[arg(long)]
    suite: Vec<String>,
    /// Build quicker, to run slower
    #[arg(long)]
    fast: bool,
    /// Do not build the binary: test the one that is there
    #[arg(long)]
    built: bool,
    /// Leave the engine and the enforcer running
    #[arg(long)]
    keep: bool,
}

impl Arguments {
    /// One file of tests/tests alone.
    pub fn suite(name: &str, built: bool) -> Self {
        Self {
            all: false,
            names: Vec::new(),
            suite: vec![name.to_owned()],
            fast: false,
            built,
            keep: false,
        }
    }
}

/// A file of tests/tests.
struct Suite {
    name: &'static str,
    threads: &'static str,
    /// Whether what failed beside its neighbours may pass alone. Where a failure may be a leak, never: one in fifty is one too many.
    second_try: bool,
}

const fn suite(name: &'static str, threads: &'static str, second_try: bool) -> Suite {
    Suite {
        name,
        threads,
        second_try,
    }
}

/// The end-to-end suites in the order they run: those that pull parts out from under the others come last, alone.
const SUITES: [Suite; 6] = [
    suite("e2e_cli", "3", true),
    suite("e2e_supply", "2", true),
    suite("e2e_network", "3", true),
    suite("e2e_agents", "1", false),
    suite("redteam", "2", false),
    suite("death", "1", false),
];

/// Tests of the other suites that look for races between sessions: no second try either.
const RACES: &str = "sessions::";

impl Suite {
    fn tries_again(&self, test: &str) -> bool {
        // A name with a space is cargo's own word that something was not built or went down.
        self.second_try && !test.starts_with(RACES) && !test.contains(' ')
    }
}

/// What ran and how it ended.
#[derive(Default)]
pub struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    failures: Vec<String>,
    /// Passed alone after they had failed beside others.
    unsteady: Vec<String>,
}

/// How long each fuzz target runs, in seconds.
const FUZZ: u32 = 20;

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut counts = Counts::default();
    let _ = fs::remove_file(skips());
    let chosen = !arguments.names.is_empty() || !arguments.suite.is_empty();
    if !chosen {
        // Some tests of rooms run the binaries of other rooms.
        sh::run(&mut cargo(&["build", "--workspace", "--bins", "--quiet"]))?;
        let mut cargo = cargo(&[
            "test",
            "--workspace",
            "--exclude",
            "agentcontainer-tests",
            "--no-fail-fast",
        ]);
        cargo.env("AGENTCONTAINER_TEST_SKIPS", skips());
        if arguments.all {
            cargo.env("AGENTCONTAINER_SWAPS", "1000");
        }
        counts.add(&mut cargo)?;
    }
    if !arguments.built {
        dist::run(&dist::Arguments {
            fast: arguments.fast,
        })?;
    }
    let (host, started) = engine::ensure_running_here()?;
    // End-to-end tests wait more than they compute.
    let ahead = if chosen { None } else { fuzz::ahead().ok() };
    let mut ran = end_to_end(arguments, &host, &mut counts);
    if !chosen && ran.is_ok() {
        // README's first command, with what is there.
        ran = counts.task(&["demo", "--only"]);
    }
    if !arguments.keep {
        let _ = environment(Command::new(paths::binary()), &host)?
            .args(["enforcer", "stop"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if started {
            engine::stop()?;
        }
    }
    if let Some(mut ahead) = ahead {
        // What it could not build is said where all of it is built.
        let _ = ahead.wait();
    }
    ran?;
    if !chosen {
        counts.fuzz(FUZZ);
    }
    if arguments.all && !chosen {
        counts.task(&["vm", "6.1"])?;
        counts.task(&["vm", "6.12"])?;
        counts.task(&["vm", "6.12", "e2e", "--systemd"])?;
    }
    counts.skips();
    counts.report()
}

fn end_to_end(arguments: &Arguments, host: &str, counts: &mut Counts) -> Result<()> {
    image::ensure(host, image::TEST)?;
    image::ensure(host, image::CLIENTS)?;
    for suite in &SUITES {
        if !arguments.suite.is_empty() && !arguments.suite.iter().any(|name| name == suite.name) {
            continue;
        }
        let mut cargo = environment(
            cargo(&[
                "test",
                "--package",
                "agentcontainer-tests",
                "--test",
                suite.name,
                "--",
            ]),
            host,
        )?;
        cargo
            .args(["--test-threads", suite.threads])
            .args(&arguments.names)
            .env("AGENTCONTAINER_TEST_SKIPS", skips());
        packages(suite, host, &mut cargo)?;
        let before = counts.failures.len();
        counts.add(&mut cargo)?;
        counts.again(suite, before, host)?;
    }
    Ok(())
}

/// Where tests say that they had nothing to say here.
fn skips() -> PathBuf {
    paths::target().join("test-skips")
}

/// Where the packages are that a suite needs beside the images.
fn packages(suite: &Suite, host: &str, cargo: &mut Command) -> Result<()> {
    match suite.name {
        "e2e_supply" => cargo.env("AGENTCONTAINER_TEST_SIGSTORE", agents::sigstore()?),
        "e2e_agents" => cargo.env("AGENTCONTAINER_TEST_PACKAGES", agents::ensure(host)?),
        _ => cargo,
    };
    Ok(())
}

/// What the rig in tests/ needs to find the binary and the engine.
pub fn environment(mut command: Command, host: &str) -> Result<Command> {
    let state = paths::target().join("test-state");
    fs::create_dir_all(&state)?;
    command
        .env("AGENTCONTAINER_BIN", paths::binary())
        .env("AGENTCONTAINER_TEST_STATE", &state)
        .env("AGENTCONTAINER_TEST_RESULTS", results()?)
        .env("XDG_STATE_HOME", &state)
        .env("DOCKER_HOST", host);
    Ok(command)
}

/// Where suites leave tables.
pub fn results() -> Result<PathBuf> {
    let dir = paths::target().join("test-results");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(words).current_dir(paths::root());
    cargo
}

// === impl Counts ===

impl Counts {
    /// Runs a `cargo test`, shows what it says and counts by its own closing lines.
    fn add(&mut self, cargo: &mut Command) -> Result<()> {
        let began = Instant::now();
        let mut child = cargo
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot run cargo")?;
        let stdout = child.stdout.take().context("no output")?;
        let (mut closed, before) = (false, self.failed);
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            println!("{line}");
            if let Some(name) = line
                .strip_prefix("test ")
                .and_then(|line| line.strip_suffix(" ... FAILED"))
            {
                self.failures.push(name.to_owned());
            }
            if let Some(counts) = line.strip_prefix("test result: ") {
                closed = true;
                let counts = closing(counts);
                let of = |word| counts.get(word).copied().unwrap_or_default();
                self.passed += of("passed");
                self.failed += of("failed");
                self.skipped += of("ignored");
            }
        }
        let status = child.wait()?;
        if !status.success() && self.failed == before {
            // It did not compile, or a test took its process down.
            self.failed += 1;
            self.failures.push(format!(
                "{:?} ended with {status}",
                cargo.get_args().collect::<Vec<_>>()
            ));
        } else if !closed {
            bail!("{:?} ran no test", cargo.get_args().collect::<Vec<_>>());
        }
        println!("({:.0} s)", began.elapsed().as_secs_f64());
        Ok(())
    }

    /// What failed of a suite beside its neighbours, once more and alone where that may be: on two cores a client's own deadline can
    /// pass while others move gibibytes. What passes then is named as unsteady and counts; what fails twice has failed.
    fn again(&mut self, suite: &Suite, before: usize, host: &str) -> Result<()> {
        for name in self.failures.split_off(before) {
            if !suite.tries_again(&name) {
                self.failures.push(name);
                continue;
            }
            let mut alone = environment(
                cargo(&["test", "--quiet", "--package", "agentcontainer-tests"]),
                host,
            )?;
            packages(suite, host, &mut alone)?;
            alone
                .args(["--test", suite.name, "--", "--exact", &name])
                .stdin(Stdio::null());
            if !alone.status().is_ok_and(|status| status.success()) {
                self.failures.push(name);
                continue;
            }
            println!("UNSTEADY {name}: failed beside others, passed alone");
            self.failed -= 1;
            self.passed += 1;
            self.unsteady.push(name);
        }
        Ok(())
    }

    /// What passed without a word, by its own account; each test once.
    fn skips(&mut self) {
        let said = fs::read_to_string(skips()).unwrap_or_default();
        let said = said
            .lines()
            .map(|line| line.split_once(": ").unwrap_or((line, "")));
        let said: BTreeMap<&str, &str> = said.collect();
        for (test, why) in said {
            println!("SKIPPED {test}: {why}");
            self.passed = self.passed.saturating_sub(1);
            self.skipped += 1;
        }
    }

    /// Runs every fuzz target for a while, each one test.
    fn fuzz(&mut self, seconds: u32) {
        match fuzz::every(seconds, &[]) {
            Ok(ran) => {
                for one in ran {
                    if one.crashed {
                        self.failed += 1;
                        self.failures.push(format!("fuzz target {}", one.target));
                    } else {
                        self.passed += 1;
                    }
                }
            }
            Err(error) => {
                self.failed += 1;
                self.failures.push(format!("fuzz: {error:#}"));
            }
        }
    }

    /// Runs another task as one test.
    fn task(&mut self, words: &[&str]) -> Result<()> {
        // By this process and not by its name: a test may have had cargo build another one there (proc_pid_exe(5)).
        match sh::run(Command::new("/proc/self/exe").args(words)) {
            Ok(()) => self.passed += 1,
            Err(error) => {
                self.failed += 1;
                self.failures
                    .push(format!("cargo xtask {}: {error}", words.join(" ")));
            }
        }
        Ok(())
    }

    fn report(&self) -> Result<()> {
        self.failures
            .iter()
            .for_each(|name| println!("FAILED {name}"));
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        );
        if !self.unsteady.is_empty() {
            println!(
                "{} passed, of them {} unsteady: {}",
                self.passed,
                self.unsteady.len(),
                self.unsteady.join(", ")
            );
        }
        if self.failed > 0 {
            bail!("{} of the tests failed", self.failed);
        }
        Ok(())
    }
}

/// `ok. 3 passed; 0 failed; 1 ignored; …` as numbers by word.
fn closing(line: &str) -> BTreeMap<&str, usize> {
    let parts = line
        .split(['.', ';'])
        .filter_map(|part| part.trim().split_once(' '));
    parts
        .filter_map(|(number, word)| Some((word, number.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_leak_has_no_second_try() {
        let tries = |suite: &str, test: &str| {
            let suite = SUITES.iter().find(|one| one.name == suite);
            suite.is_some_and(|suite| suite.tries_again(test))
        };
        assert!(tries("e2e_network", "bulk::a_gibibyte"));
        assert!(tries("e2e_cli", "life::a_terminal"));
        assert!(!tries("e2e_network", "sessions::a_hundred_starts"));
        assert!(!tries("redteam", "list::n01_a_raw_address_over_tcp"));
        assert!(!tries("death", "points::a_sidecar_killed"));
        assert!(!tries("e2e_cli", "[\"test\"] ended with exit status: 101"));
    }

    #[test]
    fn the_closing_line_of_a_suite_is_counted() {
        let counts = closing(
            "FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; 4 filtered out; finished in 0.10s",
        );
        assert_eq!(
            (counts["passed"], counts["failed"], counts["ignored"]),
            (3, 2, 1)
        );
    }
}
