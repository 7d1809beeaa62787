//! `cargo xtask bench`: speed and memory of a session, each as a ratio to a peer measured in the same run.

use anyhow::{Result, bail};

#[derive(clap::Args)]
pub struct Arguments {
    /// Fewer rounds: under two minutes
    #[arg(long)]
    quick: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let _ = arguments.quick;
    bail!("not measured yet")
}
