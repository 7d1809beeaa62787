//! `cargo xtask fuzz`: every target of fuzz/ for a while each; a crash leaves its input in fuzz/artifacts and fails the task.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use crate::{paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// How long each target runs
    #[arg(long, default_value_t = 30)]
    seconds: u32,
    /// Which; without a name all of them
    names: Vec<String>,
}

/// libFuzzer's own limit, in MiB: a parser that needs more than this for a small input has no bounds.
const MEMORY: u32 = 1024;

/// How one target ended.
pub struct Ran {
    pub target: String,
    pub crashed: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let ran = every(arguments.seconds, &arguments.names)?;
    ensure!(!ran.is_empty(), "no fuzz target of that name");
    let crashed: Vec<&str> = ran
        .iter()
        .filter(|one| one.crashed)
        .map(|one| one.target.as_str())
        .collect();
    if !crashed.is_empty() {
        bail!("crashed: {}", crashed.join(", "));
    }
    println!("fuzz: {} targets, none crashed", ran.len());
    Ok(())
}

/// Begins to build all targets, in time that nothing else wants; [`every`] goes on from there.
///
/// # Errors
/// Where chrt(1) cannot be run, or the file for what cargo says cannot be made.
pub fn ahead() -> Result<Child> {
    let said = File::create(paths::target().join("fuzz-build.log"))?;
    let build = fuzz("build");
    let mut command = Command::new("chrt");
    command
        .args(["--idle", "0"])
        .arg(build.get_program())
        .args(build.get_args());
    prepare(&mut command);
    Ok(command
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .spawn()?)
}

/// Builds all targets in one go, then runs those of these names (without a name all of them), as many at a time as there are cores.
pub fn every(seconds: u32, names: &[String]) -> Result<Vec<Ran>> {
    ensure!(
        sh::there("cargo-fuzz"),
        "cargo-fuzz is not installed: cargo xtask setup --dev"
    );
    let began = Instant::now();
    sh::run(&mut fuzz("build"))?;
    println!("fuzz: built in {:.0} s", began.elapsed().as_secs_f64());
    let targets = sh::output(
        Command::new("cargo")
            .args(["fuzz", "list"])
            .current_dir(paths::root()),
    )?;
    let mut waiting: Vec<String> = targets
        .lines()
        .filter(|target| names.is_empty() || names.iter().any(|name| name == target))
        .map(str::to_owned)
        .collect();
    waiting.reverse();
    let waiting = Mutex::new(waiting);
    let ran = Mutex::new(Vec::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                while let Some(target) = waiting.lock().ok().and_then(|mut all| all.pop()) {
                    let crashed = !one(&target, seconds);
                    if let Ok(mut ran) = ran.lock() {
                        ran.push(Ran { target, crashed });
                    }
                }
            });
        }
    });
    ran.into_inner()
        .map_err(|_| anyhow::anyhow!("a fuzz target's thread panicked"))
}

/// Runs one; what it says is shown where it crashed, else its last count.
fn one(target: &str, seconds: u32) -> bool {
    let mut command = fuzz("run");
    command
        .arg(target)
        .arg("--")
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-rss_limit_mb={MEMORY}"))
        .args(["-timeout=5", "-print_final_stats=1"])
        .stdin(Stdio::null());
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            println!("fuzz: {target}: {error}");
            return false;
        }
    };
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        println!("fuzz: {target} crashed:\n{said}");
        return false;
    }
    let runs = said
        .lines()
        .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
        .unwrap_or("?");
    println!(
        "fuzz: {target} ... ok ({} inputs in {seconds} s)",
        runs.trim()
    );
    true
}

/// cargo-fuzz wants a compiler that takes the coverage's flags: nightly's, or the stable one told to. All targets share one
/// folder of their own: their dependencies are built with coverage. Without a sanitizer: what is fuzzed has no unsafe code of ours,
/// and twice as many inputs are tried.
fn fuzz(word: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["fuzz", word, "--sanitizer", "none", "--target-dir"])
        .arg(paths::target().join("fuzz"));
    prepare(&mut cargo);
    cargo
}

fn prepare(cargo: &mut Command) {
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO")
        .current_dir(paths::root());
}
