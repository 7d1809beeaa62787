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

/// What one machine runs.
struct Load {
    jobs: Vec<suite::Job>,
    engine: bool,
    limit: Duration,
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
    let mut guests: Vec<Load> = Vec::new();
    for suite in suites {
        let job = suite.prepare(&request)?;
        let limit = suite.limit(arguments.all);
        match guests.last_mut() {
            // An engine and its disk are one suite's.
            Some(guest) if !guest.engine && !suite.needs_engine() => {
                guest.jobs.push(job);
                guest.limit += limit;
            }
            _ => guests.push(Load {
                jobs: vec![job],
                engine: suite.needs_engine(),
                limit,
            }),
        }
    }

    let tree = paths::root();
    let mut failed = Vec::new();
    for line in arguments.kernel.lines() {
        let kernel = line.fetch()?;
        println!("=== Linux {} ===", kernel.version);
        let began = Instant::now();
        let (mut passed, mut failures, mut skipped) = (0, 0, 0);
        for guest in &guests {
            let disk = match guest.engine {
                true => Some(disk::ensure(&tree, &kernel)?),
                false => None,
            };
            let machine = Machine {
                kernel: &kernel,
                tree: &tree,
                jobs: &guest.jobs,
                drive: disk.as_deref().map(|file| Drive { file, keep: false }),
                lsm: arguments.lsm.as_deref(),
                systemd: arguments.systemd,
                deadline: arguments.deadline.map_or(guest.limit, Duration::from_secs),
            };
            let counts = machine.run()?;
            for failure in &counts.failures {
                println!("FAILED {failure}");
            }
            passed += counts.passed;
            failures += counts.failed + usize::from(counts.passed == 0);
            skipped += counts.skipped;
        }
        println!(
            "Linux {}: {passed} passed, {failures} failed, {skipped} skipped ({:.0} s)",
            kernel.version,
            began.elapsed().as_secs_f64()
        );
        if failures > 0 {
            failed.push(kernel.version);
        }
    }
    if !failed.is_empty() {
        bail!("tests failed on Linux {}", failed.join(", "));
    }
    Ok(())
}
