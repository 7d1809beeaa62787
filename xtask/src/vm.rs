//! `cargo xtask vm`: boots Debian's kernels in QEMU over the host's own root and runs tests there with the tree's binaries. The host's
//! kernel is one kernel; the promise is every kernel from 6.1 on.

use anyhow::{Result, bail};

#[derive(clap::Args)]
pub struct Arguments {
    /// 6.1, 6.12 or all
    kernel: String,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    bail!("no kernel {} yet", arguments.kernel)
}
