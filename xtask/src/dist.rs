//! `cargo xtask dist`: init, gateway and enforcer as static binaries, then the CLI with all three inside, as
//! target/dist/agentcontainer. Demo, tests and people run that file and nothing else.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{elf::Elf, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Quicker to build and slower to run: no link-time optimisation. For trying things.
    #[arg(long)]
    pub fast: bool,
}

/// The binaries that travel inside the CLI; the enforcer embeds the eBPF object itself.
const PARTS: [(&str, &str); 3] = [
    ("init", "agentcontainer-init"),
    ("gateway", "agentcontainer-gateway"),
    ("enforcer", "agentcontainer-enforcer"),
];

pub fn run(arguments: &Arguments) -> Result<()> {
    let (profile, of_cli) = if arguments.fast {
        ("dist-fast", "dist-fast")
    } else {
        ("dist", "dist-cli")
    };
    let host = sh::output(Command::new("rustc").arg("-vV"))?;
    let host = host
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc does not say its host")?
        .to_owned();
    let built = |profile| paths::target().join(&host).join(profile);
    let parts = paths::target().join("dist/parts");
    fs::create_dir_all(&parts)?;

    let packages: Vec<&str> = PARTS
        .iter()
        .flat_map(|(package, _)| ["--package", package])
        .collect();
    cargo(profile, &host, &packages, None)?;
    for (_, name) in PARTS {
        place(&built(profile).join(name), &parts.join(name))?;
    }
    cargo(of_cli, &host, &["--package", "cli"], Some(&parts))?;
    place(&built(of_cli).join("agentcontainer"), &paths::binary())
}

fn cargo(profile: &str, host: &str, packages: &[&str], parts: Option<&Path>) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args([
            "build",
            "--locked",
            "--profile",
            profile,
            "--target",
            host,
            "--bins",
        ])
        .args(packages)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("AGENTCONTAINER_PARTS")
        .current_dir(paths::root());
    if let Some(parts) = parts {
        cargo.env("AGENTCONTAINER_PARTS", parts);
    }
    sh::run(&mut cargo)
}

/// Checks that a binary needs nothing of the machine it will run on, and puts it in its place whole, also while the old one runs.
fn place(from: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(from).with_context(|| format!("the build left no {}", from.display()))?;
    let elf = Elf::parse(&bytes)?;
    ensure!(!elf.has_interpreter()?, "{} is not static", from.display());
    ensure!(elf.is_stripped()?, "{} is not stripped", from.display());
    let same = fs::read(to).is_ok_and(|old| old == bytes);
    if !same {
        let beside = to.with_extension("new");
        fs::copy(from, &beside)?;
        fs::rename(&beside, to)?;
    }
    let Some(name) = to.file_name() else {
        bail!("{} has no name", to.display())
    };
    println!(
        "{:>9.1} KiB  {}",
        bytes.len() as f64 / 1024.0,
        name.to_string_lossy()
    );
    Ok(())
}
