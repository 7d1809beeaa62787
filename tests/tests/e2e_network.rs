//! What a program inside can reach, and what it cannot, by real clients against real servers. The server's own record is the verdict.
#![allow(clippy::unwrap_used)]

#[path = "e2e_network/asked.rs"]
mod asked;
#[path = "e2e_network/bulk.rs"]
mod bulk;
#[path = "e2e_network/clients.rs"]
mod clients;
#[path = "e2e_network/clock.rs"]
mod clock;
#[path = "e2e_network/credential_life.rs"]
mod credential_life;
#[path = "e2e_network/credentials.rs"]
mod credentials;
#[path = "e2e_network/github.rs"]
mod github;
#[path = "e2e_network/inspection.rs"]
mod inspection;
#[path = "e2e_network/layouts.rs"]
mod layouts;
#[path = "e2e_network/logins.rs"]
mod logins;
#[path = "e2e_network/packages.rs"]
mod packages;
#[path = "e2e_network/proxied.rs"]
mod proxied;
#[path = "e2e_network/requests.rs"]
mod requests;
#[path = "e2e_network/rules.rs"]
mod rules;
#[path = "e2e_network/sessions.rs"]
mod sessions;
#[path = "e2e_network/sources.rs"]
mod sources;
#[path = "e2e_network/standard.rs"]
mod standard;
