//! `agentcontainer completions SHELL`.

use clap::CommandFactory;

use crate::report::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: clap_complete::Shell,
}

pub fn run(args: &Args) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(
        args.shell,
        &mut super::Cli::command(),
        "agentcontainer",
        &mut script,
    );
    crate::report::out(String::from_utf8_lossy(&script).trim_end());
    Ok(0)
}
