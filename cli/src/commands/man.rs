//! `agentcontainer man [COMMAND]`: the manual page, in roff.

use clap::CommandFactory;

use crate::report::Failure;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The page of one command
    command: Option<String>,
}

pub fn run(args: &Args) -> Result<u8, Failure> {
    let whole = super::Cli::command();
    let command = match &args.command {
        None => whole,
        Some(name) => whole
            .get_subcommands()
            .find(|c| c.get_name() == name)
            .cloned()
            .ok_or_else(|| Failure::new("no-command", format!("there is no command {name}")))?
            .bin_name(format!("agentcontainer {name}"))
            .display_name(format!("agentcontainer-{name}")),
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|e| Failure::new("man", format!("the page cannot be made: {e}")))?;
    crate::report::out(String::from_utf8_lossy(&page).trim_end());
    Ok(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_every_command_has_a_page() {
        super::super::Cli::command().debug_assert();
        for command in super::super::Cli::command().get_subcommands() {
            let mut page = Vec::new();
            clap_mangen::Man::new(command.clone())
                .render(&mut page)
                .unwrap();
            assert!(!page.is_empty());
        }
    }
}
