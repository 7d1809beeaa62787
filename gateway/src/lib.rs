//! The gateway of one session: answers names with synthetic addresses, accepts what was dialled at them, decides name and
//! port again, holds the wire to what its rule says, and only then dials out. One unprivileged process a session, started
//! by the enforcer, which is its only source of knowledge (`run`); a library so that all of it is driven by tests over
//! a socket pair. Parsers of strangers' bytes: `dns::message`, `tls::client_hello`, `http::head`, `http::framer`.
#![deny(unsafe_code)]

mod approval;
mod bucket;
mod channel;
mod connection;
pub mod credentials;
mod dial;
pub mod dns;
mod events;
pub mod http;
pub mod inspect;
pub mod limits;
mod percent;
pub mod plan;
mod relay;
mod resolve;
mod run;
mod sandbox;
mod state;
#[allow(unsafe_code)]
mod sys;
pub mod tls;
mod view;
mod wire;
mod worker;

pub use connection::Destination;
pub use relay::Patience;
pub use resolve::System;
pub use run::{Options, RunError, run, serve};
pub use sys::take_fd;
pub use worker::Worker;
