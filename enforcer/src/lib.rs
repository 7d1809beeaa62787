//! The privileged daemon of a host: makes session cgroups, loads, attaches and pins the eBPF programs, wires network
//! namespaces, spawns a gateway for each session, attributes and records what happens. Small, root, and without any
//! network of its own: it speaks to the CLI over a Unix socket and to its gateways over socket pairs.

pub mod approvals;
pub mod attribution;
pub mod btf;
pub mod cgroup;
pub mod channel;
pub mod dial;
pub mod events;
pub mod files;
pub mod gateway;
pub mod kernel;
pub mod leftover;
pub mod memory;
pub mod names;
pub mod netns;
pub mod places;
pub mod process;
pub mod retention;
pub mod route;
pub mod secrets;
pub mod service;
pub mod session;
pub mod slice;
pub mod store;
pub mod trusted;
pub mod wire;
