//! What names resolve to and who vouches for it: an OCI distribution client that believes nothing but digests, a
//! content-addressed cache, and the verdict on signatures, provenance and inventories. `cli` calls it for `lock`, `verify`,
//! `sign` and `run`; nothing here talks to a container engine or knows what a policy allows.
#![forbid(unsafe_code)]

pub mod archive;
pub mod attestation;
pub mod cache;
pub mod client;
pub mod drift;
pub mod error;
pub mod evidence;
pub mod feature;
pub mod http;
pub mod login;
mod names;
pub mod portable;
pub mod publish;
pub mod resolve;
pub mod sbom;
pub mod sign;
pub mod signature;
pub mod strict;
pub mod token;
pub mod trust_root;
pub mod verify;
