//! The command line: exit codes, refusals in words, terminals, signals, and that nothing is left behind.
#![allow(clippy::unwrap_used)]

#[path = "e2e_cli/commands.rs"]
mod commands;
#[path = "e2e_cli/control_files.rs"]
mod control_files;
#[path = "e2e_cli/credentials.rs"]
mod credentials;
#[path = "e2e_cli/files.rs"]
mod files;
#[path = "e2e_cli/grants.rs"]
mod grants;
#[path = "e2e_cli/hardening.rs"]
mod hardening;
#[path = "e2e_cli/life.rs"]
mod life;
#[path = "e2e_cli/limits.rs"]
mod limits;
#[path = "e2e_cli/lines.rs"]
mod lines;
#[path = "e2e_cli/machines.rs"]
mod machines;
#[path = "e2e_cli/network_record.rs"]
mod network_record;
#[path = "e2e_cli/noexec.rs"]
mod noexec;
#[path = "e2e_cli/ordinary.rs"]
mod ordinary;
#[path = "e2e_cli/organisation.rs"]
mod organisation;
#[path = "e2e_cli/owner.rs"]
mod owner;
#[path = "e2e_cli/programs.rs"]
mod programs;
#[path = "e2e_cli/refusals.rs"]
mod refusals;
#[path = "e2e_cli/registry.rs"]
mod registry;
#[path = "e2e_cli/secrets.rs"]
mod secrets;
#[path = "e2e_cli/trust.rs"]
mod trust;
#[path = "e2e_cli/working_trees.rs"]
mod working_trees;
