//! The gateway's library over real sockets on loopback, with a fake enforcer at the other end of its channel.
#![allow(clippy::unwrap_used)]

mod asked;
mod bodies;
mod ceilings;
mod channel;
mod corpus;
mod cost;
mod credential_life;
mod credentials;
mod deadlines;
mod differential;
mod dns;
mod faults;
mod faults_two;
mod frames;
mod harness;
mod http;
mod https;
mod inspection;
mod pool;
mod proxy;
mod relay;
mod ruled;
mod sandboxed;
mod smuggling;
mod smuggling_two;
mod speed;
mod tls;
mod two;
mod websocket;
mod websocket_two;
mod workers;
