//! Agents by their profiles: found in the image or installed under the gate, with a key that never comes inside; a real one of
//! them from its registry, and a search for its key everywhere.

#![allow(clippy::unwrap_used)]

#[path = "e2e_agents/packages.rs"]
mod packages;
#[path = "e2e_agents/pins.rs"]
mod pins;
#[path = "e2e_agents/profiles.rs"]
mod profiles;
#[path = "e2e_agents/real.rs"]
mod real;
#[path = "e2e_agents/rig.rs"]
mod rig;
