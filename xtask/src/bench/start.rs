//! From the command line to the program's first instruction.

use anyhow::Result;

use super::Effort;

pub fn run(_effort: Effort) -> Result<()> {
    Ok(())
}
