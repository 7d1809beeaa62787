//! The gateway's library over real sockets on loopback, with a fake enforcer at the other end of its channel.
#![allow(clippy::unwrap_used)]

mod channel;
mod corpus;
mod cost;
mod credentials;
mod dns;
mod frames;
mod harness;
mod http;
mod https;
mod inspection;
mod proxy;
mod relay;
mod ruled;
mod sandboxed;
mod smuggling;
mod speed;
mod tls;
mod websocket;
