//! The control channel's messages and services, generated from `proto/agentcontainer.proto` by `cargo xtask proto`, and
//! nothing else.
#![allow(clippy::all, clippy::unwrap_used, missing_docs)]

#[path = "generated/agentcontainer.v1.rs"]
#[rustfmt::skip]
pub mod v1;
