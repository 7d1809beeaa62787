//! The supply chain: what is locked, verified and run, against a real registry and one that lies.
#![allow(clippy::unwrap_used)]

#[path = "e2e_supply/bundle.rs"]
mod bundle;
#[path = "e2e_supply/drift.rs"]
mod drift;
#[path = "e2e_supply/engines.rs"]
mod engines;
#[path = "e2e_supply/features.rs"]
mod features;
#[path = "e2e_supply/keyless.rs"]
mod keyless;
#[path = "e2e_supply/killed.rs"]
mod killed;
#[path = "e2e_supply/lock.rs"]
mod lock;
#[path = "e2e_supply/organisation.rs"]
mod organisation;
#[path = "e2e_supply/others.rs"]
mod others;
#[path = "e2e_supply/registries.rs"]
mod registries;
#[path = "e2e_supply/samples.rs"]
mod samples;
#[path = "e2e_supply/verify.rs"]
mod verify;
