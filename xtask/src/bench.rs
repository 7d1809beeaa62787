//! `cargo xtask bench`: speed and memory of a session, each as a ratio to a peer measured in the same run, in rounds that
//! alternate between the two. Everything but `start` runs in mount and network namespaces of its own, with the enforcer,
//! the gateway and init as `dist` builds them and no engine: what is left behind goes with the namespaces.

mod builds;
mod carry;
mod driver;
mod gate;
mod haproxy;
mod https;
mod memory;
mod report;
mod rig;
mod rpc;
mod rules;
mod start;
mod supply;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{dist, engine, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer and shorter rounds: under two minutes
    #[arg(long)]
    quick: bool,
    /// Measure this only; may be given more than once
    #[arg(long, value_enum)]
    only: Vec<Section>,
    /// Measure what is built already
    #[arg(long)]
    no_build: bool,
    /// Set by `bench` itself, in the namespaces it made
    #[arg(long, hide = true)]
    inside: bool,
    /// Set by `vm`: the engine is the one of `DOCKER_HOST`, and has the test image alone
    #[arg(long, hide = true)]
    guest: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Section {
    /// connect() and sendmsg() through the gate, with 1, 1,000 and 10,000 rules
    Gate,
    /// Bytes and connections through the gateway, against none and against haproxy
    Carry,
    /// Requests through `https`, against none and against nginx, haproxy, hudsucker and mitmproxy
    Https,
    /// Enforcer and gateway, idle and with 1,000 connections
    Memory,
    /// From the command line to the program's first instruction, against `docker run`
    Start,
    /// Starts of sessions and programs, and opens, under rules about files and programs, against none
    Rules,
    /// git, npm and cargo under rules about files and programs, against none
    Builds,
    /// `lock`, `verify` and pulling, against cosign and docker
    Supply,
    /// What the gateway's inspectors cost, each alone and on requests
    Inspect,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Effort {
    rounds: usize,
    /// Length of one bulk or rate measurement.
    ms: u64,
    /// Calls in one measurement of single calls.
    calls: u64,
    starts: usize,
    cold: usize,
}

impl Effort {
    fn of(arguments: &Arguments) -> Self {
        if arguments.quick {
            Self {
                rounds: 3,
                ms: 200,
                calls: 2000,
                starts: 5,
                cold: 1,
            }
        } else {
            Self {
                rounds: 9,
                ms: 500,
                calls: 5000,
                starts: 15,
                cold: 3,
            }
        }
    }
}

/// Our binaries, and the load.
fn parts() -> PathBuf {
    paths::target().join("dist/parts")
}

fn load() -> PathBuf {
    paths::target().join("dist/bench-load")
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let wanted = |section| arguments.only.is_empty() || arguments.only.contains(&section);
    let effort = Effort::of(arguments);
    if arguments.inside {
        return inside(&wanted, effort);
    }
    if arguments.only == [Section::Inspect] {
        return inspect();
    }
    if !arguments.no_build {
        build()?;
        if wanted(Section::Https) {
            https::build();
        }
    }
    for program in ["curl", "haproxy", "ip", "setpriv", "taskset", "unshare"] {
        ensure!(
            sh::there(program),
            "{program} is not installed: cargo xtask setup"
        );
    }
    report::machine()?;
    if wanted(Section::Https) {
        for program in ["nginx", "openssl", "wrk"] {
            ensure!(
                sh::there(program),
                "{program} is not installed: cargo xtask setup"
            );
        }
    }
    if [
        Section::Gate,
        Section::Carry,
        Section::Https,
        Section::Memory,
    ]
    .into_iter()
    .any(wanted)
    {
        let mut words = vec!["--mount", "--net", "--propagation", "private", "--", "env"]
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        for name in ["PATH", "CARGO_MANIFEST_DIR", "CARGO_TARGET_DIR"] {
            if let Ok(value) = std::env::var(name) {
                words.push(format!("{name}={value}"));
            }
        }
        // Ahead of whatever else the machine does: the figures are then of what is measured.
        words.splice(0..0, ["-n", "-20", "unshare"].map(str::to_owned));
        let mut again = sh::root("nice", words);
        again
            .arg(std::env::current_exe()?)
            .args(std::env::args_os().skip(1))
            .arg("--inside");
        sh::run(&mut again)?;
    }
    if wanted(Section::Start) {
        with_engine(arguments.guest, &|host| start::run(host, effort))?;
    }
    if wanted(Section::Rules) {
        with_engine(arguments.guest, &|host| {
            rules::run(host, arguments.guest, effort)
        })?;
    }
    if wanted(Section::Builds) {
        with_engine(arguments.guest, &|host| {
            builds::run(host, arguments.guest, effort)
        })?;
    }
    if wanted(Section::Supply) {
        with_engine(arguments.guest, &|host| supply::run(host, effort))?;
    }
    if wanted(Section::Inspect) {
        inspect()?;
    }
    println!("\nload average at the end: {}", report::load_average()?);
    Ok(())
}

/// Measures with the engine of tests, which is stopped again where it was started here.
fn with_engine(guest: bool, measured: &dyn Fn(&str) -> Result<()>) -> Result<()> {
    if guest {
        return measured(&std::env::var("DOCKER_HOST").context("no DOCKER_HOST")?);
    }
    let (host, started) = engine::ensure_running_here()?;
    let measured = measured(&host);
    if started {
        engine::stop()?;
    }
    measured
}

/// The gateway as a library, over sockets on loopback: no session is needed for it.
fn inspect() -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["test", "--quiet", "--locked", "--release"])
        .args(["--package", "gateway", "--test", "it", "--"])
        .args(["--ignored", "--nocapture", "cost_of_inspectors"])
        .current_dir(paths::root());
    sh::run(&mut cargo)
}

fn inside(wanted: &dyn Fn(Section) -> bool, effort: Effort) -> Result<()> {
    let _ahead = Ahead::of_the_others();
    let rig = rig::Rig::start()?;
    if wanted(Section::Memory) {
        memory::run(&rig)?;
    }
    if wanted(Section::Gate) {
        gate::run(&rig, effort)?;
    }
    if wanted(Section::Carry) {
        carry::run(&rig, effort)?;
    }
    if wanted(Section::Https) {
        https::run(&rig, effort)?;
    }
    rig.show_opened();
    Ok(())
}

/// This session's place in the scheduler's groups (sched(7), autogroup): without it niceness counts among siblings only.
struct Ahead;

impl Ahead {
    fn of_the_others() -> Self {
        // A kernel without the feature has no file, and no groups either.
        let _ = fs::write("/proc/self/autogroup", "-20");
        Self
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let _ = fs::write("/proc/self/autogroup", "0");
    }
}

fn build() -> Result<()> {
    dist::run(&dist::Arguments { fast: false })?;
    let host = sh::output(Command::new("rustc").arg("-vV"))?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say its host")?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--profile", "dist", "--target", host])
        .args(["--package", "agentcontainer-tests", "--bin", "bench-load"])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(paths::root());
    sh::run(&mut cargo)?;
    fs::copy(paths::target().join(host).join("dist/bench-load"), load())?;
    Ok(())
}
