//! TLS as far as it is read without ending it: the ClientHello.

pub mod client_hello;
