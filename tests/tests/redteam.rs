//! Every attempt to get out that is written down: first as a positive control in a plain container, then under agentcontainer. The
//! receivers outside give the verdict; `cargo xtask redteam` prints the table.
#![allow(clippy::unwrap_used)]

#[path = "redteam/around.rs"]
mod around;
#[path = "redteam/batch.rs"]
mod batch;
#[path = "redteam/doors.rs"]
mod doors;
#[path = "redteam/flood.rs"]
mod flood;
#[path = "redteam/held.rs"]
mod held;
#[path = "redteam/host.rs"]
mod host;
#[path = "redteam/list.rs"]
mod list;
#[path = "redteam/listener.rs"]
mod listener;
#[path = "redteam/singly.rs"]
mod singly;
