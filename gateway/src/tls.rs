//! TLS of the connections that pass: the ClientHello of all of them, read strictly (`client_hello`), and for `https` both ends
//! of it: towards the agent with the session's own authority (`authority`, `accept`), towards the world with the host's
//! roots (`upstream`).

pub mod accept;
pub mod authority;
pub mod client_hello;
pub mod upstream;
