//! Containers through the Docker API: finds the engine, resolves images, makes a session's container from a checked request,
//! carries its streams, and keeps the enforcer's sidecar running. Called by the CLI; the only room that knows an engine.
#![forbid(unsafe_code)]

pub mod agent;
pub mod client;
pub mod containers;
pub mod contents;
pub mod control;
mod error;
pub mod find;
pub mod git;
pub mod identity;
pub mod image;
pub mod look;
pub mod npm;
pub mod plan;
pub mod request;
pub mod seccomp;
pub mod sidecar;
pub mod stream;
pub mod terminal;
pub mod trust;
pub mod veil;

pub use client::{Engine, EngineInfo};
pub use error::EngineError;
