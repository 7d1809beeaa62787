//! `cargo xtask ebpf`: builds the eBPF programs and checks the object in beside a manifest that says what it was made from,
//! so that people who only build the tool need no eBPF toolchain. `--check` builds it again elsewhere and compares; CI runs that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{elf::Elf, paths, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Build again, elsewhere, and compare with what is checked in
    #[arg(long)]
    check: bool,
    /// Which compiler; without it Debian's where it is installed, else rustup's nightly
    #[arg(long)]
    toolchain: Option<Toolchain>,
}

impl Arguments {
    /// `cargo xtask ebpf --check`.
    pub fn check() -> Self {
        Self {
            check: true,
            toolchain: None,
        }
    }
}

/// A compiler that can build `core` for the BPF target, its LLVM matching bpf-linker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Toolchain {
    /// Debian's rustc-web, cargo-web, rust-web-src
    Debian,
    /// rustup's nightly with rust-src
    Nightly,
}

/// What stands beside the object.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Manifest {
    /// Of every source file, its path and its content, in the order of paths.
    sources_sha256: String,
    object_sha256: String,
    rustc: String,
    bpf_linker: String,
}

const NAME: &str = "enforcer-ebpf";
const TARGET: &str = "bpfel-unknown-none";

pub fn run(arguments: &Arguments) -> Result<()> {
    let toolchain = Toolchain::find(arguments.toolchain)?;
    let checked_in = paths::root().join("enforcer-ebpf/object");
    let object_file = checked_in.join("enforcer-ebpf.o");
    let manifest_file = checked_in.join("manifest.json");
    if !arguments.check {
        let (object, manifest) = build(toolchain, &paths::target().join("ebpf"), false)?;
        fs::create_dir_all(&checked_in)?;
        fs::write(&object_file, object)?;
        fs::write(
            &manifest_file,
            format!("{}\n", serde_json::to_string_pretty(&manifest)?),
        )?;
        println!("{}: {}", object_file.display(), manifest.object_sha256);
        return Ok(());
    }

    let kept = fs::read(&object_file)
        .with_context(|| format!("{} is not there: cargo xtask ebpf", object_file.display()))?;
    let said: Manifest = serde_json::from_slice(&fs::read(&manifest_file)?)
        .context("manifest.json cannot be read")?;
    ensure!(
        said.object_sha256 == sha256(&kept),
        "the object is not the one its manifest describes: cargo xtask ebpf"
    );
    ensure!(
        said.sources_sha256 == sources()?,
        "the sources changed after the object was built: cargo xtask ebpf"
    );
    let elsewhere = paths::target().join("ebpf-check");
    let (rebuilt, manifest) = build(toolchain, &elsewhere, true)?;
    if manifest.rustc == said.rustc && manifest.bpf_linker == said.bpf_linker {
        ensure!(
            rebuilt == kept,
            "the same compiler makes another object ({}): cargo xtask ebpf",
            manifest.object_sha256
        );
        println!(
            "object rebuilt, every byte the same ({})",
            manifest.object_sha256
        );
    } else {
        let (ours, theirs) = (
            Elf::parse(&rebuilt)?.globals()?,
            Elf::parse(&kept)?.globals()?,
        );
        ensure!(
            ours == theirs,
            "the rebuilt object has other programs or maps: {ours:?} instead of {theirs:?}"
        );
        println!(
            "object rebuilt with another toolchain than {} and {}: same sources, programs and maps",
            said.rustc, said.bpf_linker
        );
    }
    Ok(())
}

impl Toolchain {
    fn find(asked: Option<Self>) -> Result<Self> {
        let found = [Self::Debian, Self::Nightly]
            .into_iter()
            .find(|one| asked.is_none_or(|asked| asked == *one) && one.is_there());
        let Some(found) = found else {
            bail!(
                "no compiler for eBPF here (Debian's rustc-web with rust-web-src, or rustup's nightly with rust-src): cargo xtask setup --dev"
            );
        };
        ensure!(
            sh::there("bpf-linker"),
            "bpf-linker is not installed: cargo xtask setup --dev"
        );
        println!("toolchain: {found:?}, {}", found.version()?);
        Ok(found)
    }

    fn is_there(self) -> bool {
        let sysroot = sh::output(self.rustc().args(["--print", "sysroot"]));
        sysroot.is_ok_and(|dir| {
            Path::new(&dir)
                .join("lib/rustlib/src/rust/library/core/src/lib.rs")
                .is_file()
        })
    }

    fn version(self) -> Result<String> {
        sh::output(self.rustc().arg("--version"))
    }

    fn rustc(self) -> Command {
        match self {
            Self::Debian => Command::new("/usr/bin/rustc"),
            Self::Nightly => sh::command("rustup", ["run", "nightly", "rustc"]),
        }
    }

    fn cargo(self) -> Result<Command> {
        let mut cargo = match self {
            Self::Debian => Command::new("/usr/bin/cargo"),
            Self::Nightly => sh::command("rustup", ["run", "nightly", "cargo"]),
        };
        if self == Self::Debian {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let path =
                std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path));
            cargo
                .env("PATH", std::env::join_paths(path)?)
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
        }
        // What the surrounding `cargo xtask` says about its own toolchain must not reach this one.
        for variable in [
            "RUSTUP_TOOLCHAIN",
            "RUSTFLAGS",
            "CARGO",
            "RUSTDOC",
            "CARGO_BUILD_TARGET",
        ] {
            cargo.env_remove(variable);
        }
        Ok(cargo)
    }
}

/// Builds the object under `dir` and describes it. The path of the tree, of cargo's home and of the compiler are in neither.
fn build(toolchain: Toolchain, dir: &Path, locked: bool) -> Result<(Vec<u8>, Manifest)> {
    let root = paths::root();
    let sysroot = sh::output(toolchain.rustc().args(["--print", "sysroot"]))?;
    let cargo_home = std::env::var("CARGO_HOME")
        .unwrap_or_else(|_| format!("{}/.cargo", std::env::var("HOME").unwrap_or_default()));
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=/agentcontainer", root.display()),
        format!("--remap-path-prefix={}=/target", dir.display()),
        format!("--remap-path-prefix={cargo_home}=/cargo"),
        format!("--remap-path-prefix={sysroot}=/sysroot"),
    ];
    let mut cargo = toolchain.cargo()?;
    cargo
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .args(locked.then_some("--locked"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env("CARGO_TARGET_DIR", dir)
        .env("RUSTC_WRAPPER", std::env::current_exe()?)
        .env(WRAPPER, "1")
        .current_dir(root.join(NAME));
    sh::run(&mut cargo)?;
    let object = fs::read(dir.join(TARGET).join("release").join(NAME))
        .context("the build left no object")?;
    let manifest = Manifest {
        sources_sha256: sources()?,
        object_sha256: sha256(&object),
        rustc: toolchain.version()?,
        bpf_linker: sh::output(Command::new("bpf-linker").arg("--version"))?,
    };
    Ok((object, manifest))
}

/// Whether some compiler for eBPF is installed.
pub fn compiler_is_there() -> bool {
    Toolchain::Debian.is_there() || Toolchain::Nightly.is_there()
}

/// Set in the environment when cargo calls this program in rustc's place.
pub const WRAPPER: &str = "AGENTCONTAINER_EBPF_RUSTC";

/// Calls the compiler with a `-C metadata` of our own: cargo's is a hash over absolute paths, ends up in the name of every function and
/// so in the object, and two clones would build two objects.
pub fn wrap_rustc() -> Result<()> {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let mut words = std::env::args_os().skip(1);
    let mut rustc = Command::new(words.next().context("no compiler named")?);
    for word in words {
        if word
            .to_str()
            .is_some_and(|word| word.starts_with("metadata="))
        {
            let package = format!(
                "metadata={}-{}",
                variable("CARGO_PKG_NAME"),
                variable("CARGO_PKG_VERSION")
            );
            rustc.arg(format!("{package}-{}", variable("CARGO_CRATE_NAME")));
        } else {
            rustc.arg(word);
        }
    }
    sh::run(&mut rustc)
}

/// One digest over every file that the object is made from.
fn sources() -> Result<String> {
    let root = paths::root();
    let mut files = vec![
        root.join("enforcer-ebpf/Cargo.toml"),
        root.join("enforcer-ebpf/Cargo.lock"),
    ];
    collect(&root.join("enforcer-ebpf/src"), &mut files)?;
    collect(&root.join("enforcer-common/src"), &mut files)?;
    files.sort();
    let mut all = Sha256::new();
    for file in files {
        let content = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.strip_prefix(&root)?;
        all.update(format!("{}  {}\n", sha256(&content), name.display()));
    }
    Ok(hex(&all.finalize()))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

pub fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
