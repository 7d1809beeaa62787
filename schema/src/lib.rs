//! The files people write and the values that machines exchange, each with one canonical type that is made by parsing:
//! host names, networks, sessions, digests, image references, `agentcontainer.json` and the host's `config.toml`.
//! Everything here reads bytes of strangers: it has limits, keeps positions, and reports in one diagnostic form.
#![forbid(unsafe_code)]

pub mod address;
pub mod config;
pub mod credential;
pub mod devcontainer_lock;
pub mod diag;
pub mod digest;
pub mod feature;
pub mod gateway;
pub mod host;
pub mod hostconfig;
pub mod image;
pub mod inspection;
pub mod json_schema;
pub mod jsonc;
pub mod lockfile;
pub mod net;
pub mod node;
pub mod organisation;
pub mod profile;
pub mod program;
pub mod provider;
pub mod read;
pub mod remote;
pub mod request;
pub mod session;
pub mod signer;
pub mod toml_tree;
