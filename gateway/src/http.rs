//! HTTP/1 between agent and upstream. Every request is read strictly (`head`, `framer`), parsed by hyper from what that
//! let through, and written anew to the upstream; nothing is forwarded as raw bytes. `serve` is the way in, for what is
//! carried, what is denied in words, and `http://agentcontainer.internal/`.

mod body;
pub mod form;
mod forward;
pub mod framer;
mod guard;
pub mod h2;
pub mod head;
mod inspected;
mod meaning;
pub mod page;
pub mod pool;
mod response;
pub(crate) mod ruled;
mod serve;
mod tasks;
mod upstream;
mod websocket;

pub use forward::Failure;
pub use serve::{Site, Visit, serve};
