//! `cargo xtask vm`: boots Debian's kernels in QEMU over this machine's own root and runs tests there with the tree's binaries. This
//! machine's kernel is one kernel; the promise is every kernel from 6.1 on. Called by people, by `test --all` and by CI.

mod disk;
mod initramfs;
mod kernel;
mod machine;
mod suite;
mod verdict;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::{paths, sh};
use kernel::Line;
use machine::{Drive, Machine};
use suite::Suite;

#[derive(clap::Args)]
pub struct Arguments {
    /// Which of Debian's kernels, its newest build; `all` for each in turn
    kernel: Kernels,
    /// What to run there; without a name everything
    suites: Vec<Suite>,
    /// Only tests whose names hold one of these words
    #[arg(long)]
    only: Vec<String>,
    /// Every end-to-end test, not only those that fit into a few minutes of an emulated machine
    #[arg(long)]
    all: bool,
    /// Seconds that one machine may take from power-on to its last word; without it what its suites may take
    #[arg(long)]
    deadline: Option<u64>,
    /// Do not build: run the binaries that are there
    #[arg(long)]
    built: bool,
    /// The security modules that the kernel starts with (lsm=… on its command line); without it its own choice but AppArmor
    #[arg(long, value_parser = modules)]
    lsm: Option<String>,
    /// With systemd as process 1, which makes the engine's cgroups
    #[arg(long)]
    systemd: bool,
}

fn modules(list: &str) -> Result<String, String> {
    match list
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b',')
    {
        true => Ok(list.to_owned()),
        false => Err("names with commas between them".to_owned()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kernels {
    #[value(name = "6.1")]
    V6_1,
    #[value(name = "6.12")]
    V6_12,
    All,
}

impl Kernels {
    fn lines(self) -> &'static [Line] {
        match self {
            Self::V6_1 => &[Line::V6_1],
            Self::V6_12 => &[Line::V6_12],
            Self::All => &[Line::V6_1, Line::V6_12],
        }
    }
}

pub fn run(arguments: &Arguments) -> Result<()> {
    for (program, package) in [
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("busybox", "busybox-static"),
        ("cpio", "cpio"),
        ("xz", "xz-utils"),
        ("setpriv", "util-linux"),
    ] {
        if !sh::there(program) {
            bail!("{program} is not installed (package {package}): cargo xtask setup --dev");
        }
    }
    let suites = match &arguments.suites[..] {
        [] => Suite::EVERY.to_vec(),
        chosen => chosen.to_vec(),
    };
    let request = suite::Request {
        only: &arguments.only,
        all: arguments.all,
        built: arguments.built,
    };
    let jobs = suites
        .iter()
        .map(|suite| suite.prepare(&request))
        .collect::<Result<Vec<_>>>()?;

    let engine = suites.iter().any(|suite| suite.needs_engine());
    let usual = suites.iter().map(|suite| suite.limit(arguments.all)).sum();
    let deadline = arguments.deadline.map_or(usual, Duration::from_secs);
    let tree = paths::root();
    let mut failed = Vec::new();
    for line in arguments.kernel.lines() {
        let kernel = line.fetch()?;
        let disk = if engine {
            Some(disk::ensure(&tree, &kernel)?)
        } else {
            None
        };
        println!("=== Linux {} ===", kernel.version);
        let began = Instant::now();
        let machine = Machine {
            kernel: &kernel,
            tree: &tree,
            jobs: &jobs,
            drive: disk.as_deref().map(|file| Drive { file, keep: false }),
            lsm: arguments.lsm.as_deref(),
            systemd: arguments.systemd,
            deadline,
        };
        let counts = machine.run()?;
        for failure in &counts.failures {
            println!("FAILED {failure}");
        }
        println!(
            "Linux {}: {} passed, {} failed, {} skipped ({:.0} s)",
            kernel.version,
            counts.passed,
            counts.failed,
            counts.skipped,
            began.elapsed().as_secs_f64()
        );
        if counts.failed > 0 || counts.passed == 0 {
            failed.push(kernel.version);
        }
    }
    if !failed.is_empty() {
        bail!("tests failed on Linux {}", failed.join(", "));
    }
    Ok(())
}
