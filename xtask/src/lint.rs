//! `cargo xtask lint`: everything that can be said about the tree without an engine. CI runs it first.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{ebpf, paths, proto, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Leave out the eBPF object, whose toolchain not everybody has
    #[arg(long)]
    no_ebpf: bool,
}

/// Lines of a source file past which a second concept has moved in.
const LONGEST: usize = 800;

pub fn run(arguments: &Arguments) -> Result<()> {
    let mut failed = Vec::new();
    let mut check = |name: &'static str, check: &dyn Fn() -> Result<()>| {
        println!("lint: {name}");
        if let Err(error) = check() {
            println!("lint: {name}: {error:#}");
            failed.push(name);
        }
    };
    check("format", &|| cargo(&["fmt", "--all", "--check"]));
    check("clippy", &|| {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny",
            "warnings",
        ])
    });
    check("files", &files);
    check("promises", &promises);
    check("dependencies", &dependencies);
    if sh::there("protoc") {
        check("control channel", &proto::check);
    } else {
        println!(
            "lint: control channel: NOT CHECKED, protoc is not installed: cargo xtask setup --dev"
        );
    }
    if arguments.no_ebpf {
        println!("lint: eBPF object: NOT CHECKED, as asked");
    } else {
        check("eBPF object", &|| ebpf::run(&ebpf::Arguments::check()));
    }
    if !failed.is_empty() {
        bail!("lint: {}", failed.join(", "));
    }
    Ok(())
}

fn cargo(words: &[&str]) -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    sh::run(Command::new(cargo).args(words).current_dir(paths::root()))
}

/// Every test that SPEC.md names exists.
fn promises() -> Result<()> {
    let spec = fs::read_to_string(paths::root().join("SPEC.md"))?;
    let listed = sh::output(
        Command::new("git")
            .args(["ls-files", "*.rs"])
            .current_dir(paths::root()),
    )?;
    let sources: String = listed
        .lines()
        .filter_map(|name| fs::read_to_string(paths::root().join(name)).ok())
        .collect();
    let missing: Vec<&str> = spec
        .lines()
        .filter(|line| line.starts_with("| "))
        .flat_map(|line| line.split('`'))
        .filter(|word| word.contains("::") && !word.contains(' '))
        .filter(|word| {
            let test = word.rsplit("::").next().unwrap_or(word);
            !sources.contains(&format!("fn {test}(")) && !sources.contains(&format!("{test} \""))
        })
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        bail!(
            "SPEC.md names tests that do not exist: {}",
            missing.join(", ")
        )
    }
}

/// Every module says why it is here, and none has grown past one concept.
fn files() -> Result<()> {
    let listed = sh::output(
        Command::new("git")
            .args(["ls-files", "*.rs"])
            .current_dir(paths::root()),
    )?;
    let mut broken = Vec::new();
    for name in listed.lines().filter(|name| !name.contains("/generated/")) {
        let Ok(text) = fs::read_to_string(paths::root().join(name)) else {
            continue;
        };
        // `foo/tests.rs` is the test half of `foo.rs`, whose head speaks for both.
        let half = name.ends_with("/tests.rs");
        if !half && !text.lines().take(12).any(|line| line.starts_with("//!")) {
            broken.push(format!("{name} has no head that says why it is here"));
        }
        let lines = text.lines().count();
        if lines > LONGEST {
            broken.push(format!("{name} has {lines} lines"));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{}", broken.join("\n"))
    }
}

/// The part of deny.toml that is checked here, without cargo-deny.
#[derive(Deserialize)]
struct Deny {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// Crates that deny.toml bans, licences that it does not list, sources that are not the registry.
fn dependencies() -> Result<()> {
    let deny: Deny = toml::from_str(&fs::read_to_string(paths::root().join("deny.toml"))?)
        .context("deny.toml")?;
    let metadata = sh::output(
        Command::new("cargo")
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(paths::root()),
    )?;
    let metadata: Metadata = serde_json::from_str(&metadata)?;
    // The lockfile also names what optional features of dependencies would bring: a ban is about what is built.
    let built = sh::output(
        Command::new("cargo")
            .args(["tree", "--workspace", "--locked", "--edges", "all"])
            .args(["--prefix", "none", "--format", "{p}"])
            .current_dir(paths::root()),
    )?;
    let built: BTreeSet<&str> = built
        .lines()
        .filter_map(|line| line.split(' ').next())
        .collect();
    let mut broken = Vec::new();
    for package in &metadata.packages {
        if !built.contains(package.name.as_str()) {
            continue;
        }
        if let Some(ban) = deny.bans.deny.iter().find(|ban| ban.name == package.name) {
            broken.push(format!("{} is banned: {}", package.name, ban.reason));
        }
        let license = package.license.as_deref().unwrap_or("none");
        if !allowed(license, &deny.licenses.allow) {
            broken.push(format!(
                "{} {} has the licence {license:?}, which deny.toml does not list",
                package.name, package.version
            ));
        }
        if package
            .source
            .as_deref()
            .is_some_and(|source| !source.starts_with("registry+"))
        {
            broken.push(format!("{} does not come from the registry", package.name));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("{}", broken.join("\n"))
    }
}

/// Whether an SPDX expression can be met by the licences of the list alone.
fn allowed(expression: &str, list: &BTreeSet<String>) -> bool {
    let expression = expression.replace('/', " OR ");
    expression.split(" AND ").all(|part| {
        let part = part.trim_matches(['(', ')', ' ']);
        part.split(" OR ")
            .any(|license| list.contains(license.trim_matches(['(', ')', ' '])))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_met_by_one_of_its_alternatives_and_all_of_its_parts() {
        let list = BTreeSet::from(["MIT".to_owned(), "Unicode-3.0".to_owned()]);
        assert!(allowed("MIT OR GPL-3.0", &list));
        assert!(allowed("(MIT OR Apache-2.0) AND Unicode-3.0", &list));
        assert!(!allowed("MIT AND GPL-3.0", &list));
        assert!(!allowed("none", &list));
    }
}
