//! The rig that the end-to-end tests stand on: the built binary, a real engine, throwaway workspaces, and receivers that write down
//! everything they hear. The verdict about a connection is always taken at the receiver, never from what the program inside saw.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

pub mod attempt;
pub mod docker;
pub mod features;
pub mod outcome;
pub mod own_engine;
pub mod peer;
pub mod place;
pub mod receiver;
pub mod registry;
pub mod scripted;
pub mod services;
pub mod sigstore;
pub mod workspace;

pub use outcome::Outcome;
pub use place::{Rig, rig, skip};
pub use workspace::Workspace;
