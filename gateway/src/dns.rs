//! Name service inside the container: every well-formed name of two labels or more has an address, which stands for it
//! and leads to the gateway. No query is ever forwarded; what an answer costs is one question to the enforcer.

pub mod message;
mod serve;

pub use serve::{serve_tcp, serve_udp};
