//! `cargo xtask fuzz`: every target of fuzz/ for a while each; a crash leaves its input in fuzz/artifacts and fails the task.

use std::process::Command;

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

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        sh::there("cargo-fuzz"),
        "cargo-fuzz is not installed: cargo xtask setup --dev"
    );
    let targets = sh::output(fuzz("list").current_dir(paths::root()))?;
    let mut crashed = Vec::new();
    let mut ran = 0;
    for target in targets.lines() {
        if !arguments.names.is_empty() && !arguments.names.iter().any(|name| name == target) {
            continue;
        }
        ran += 1;
        println!("fuzz: {target} for {} s", arguments.seconds);
        let limits = [
            format!("-max_total_time={}", arguments.seconds),
            format!("-rss_limit_mb={MEMORY}"),
            "-timeout=5".into(),
            "-print_final_stats=1".into(),
        ];
        let mut command = fuzz("run");
        command
            .arg(target)
            .arg("--")
            .args(limits)
            .current_dir(paths::root());
        if sh::run(&mut command).is_err() {
            crashed.push(target);
        }
    }
    ensure!(ran > 0, "no fuzz target of that name");
    if !crashed.is_empty() {
        bail!("crashed: {}", crashed.join(", "));
    }
    println!("fuzz: {ran} targets, none crashed");
    Ok(())
}

/// cargo-fuzz wants a compiler that takes the sanitizers' flags: nightly's, or the stable one told to.
fn fuzz(word: &str) -> Command {
    let mut cargo = Command::new("cargo");
    cargo
        .args(["fuzz", word])
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTUP_TOOLCHAIN")
        .env_remove("CARGO");
    cargo
}
