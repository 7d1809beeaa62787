//! What a value is fetched by, and known again by, whichever it is: a credential, which the gateway puts on the wire, or a secret, which
//! is a file inside. A session has one of a name.

use schema::credential::Source;
use schema::diag::Position;
use schema::digest::Digest;
use schema::hostconfig::{Grant, HostConfig, SecretGrant};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Credential,
    Secret,
}

/// A grant as far as its value goes.
#[derive(Clone, Debug)]
pub struct Supply {
    pub kind: Kind,
    pub source: Source,
    /// What of it a session keeps that has its value.
    pub bound: String,
    /// Where it was written.
    pub file: String,
    pub at: Position,
}

// === impl Kind ===

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Credential => "credential",
            Self::Secret => "secret",
        }
    }

    /// Codes of errors are of the kind.
    pub fn code(self, of: &'static str) -> &'static str {
        match (self, of) {
            (Self::Secret, "credential-source") => "secret-source",
            (Self::Secret, "credential-not-granted") => "secret-not-granted",
            (Self::Secret, "credential-exposed") => "secret-exposed",
            (_, of) => of,
        }
    }
}

// === impl Supply ===

impl Supply {
    /// What the host has of that kind and name.
    pub fn of(host: &HostConfig, kind: Kind, name: &str) -> Option<Self> {
        match kind {
            Kind::Credential => host.credentials.get(name).map(|grant| Self {
                kind,
                source: grant.value.source.clone(),
                bound: bound(&grant.value),
                file: grant.file.clone(),
                at: grant.at,
            }),
            Kind::Secret => host.secrets.get(name).map(|grant| Self {
                kind,
                source: grant.value.source.clone(),
                bound: bound_file(&grant.value),
                file: grant.file.clone(),
                at: grant.at,
            }),
        }
    }

    /// Of either kind.
    pub fn named(host: &HostConfig, name: &str) -> Option<Self> {
        let kinds = [Kind::Credential, Kind::Secret].into_iter();
        { kinds }.find_map(|kind| Self::of(host, kind, name))
    }
}

/// By what a grant is known again: its source, its hosts in any order, paths, header, format and parameter.
pub fn bound(grant: &Grant) -> String {
    let mut hosts: Vec<String> = grant.hosts.iter().map(ToString::to_string).collect();
    hosts.sort();
    let mut parts = serde_json::json!([
        grant.source.to_string(),
        hosts,
        grant.header.to_string(),
        grant.format.to_string(),
    ]);
    // Grants without one are what they were.
    if let (Some(query), Some(parts)) = (&grant.query, parts.as_array_mut()) {
        parts.push(query.to_string().into());
    }
    if let (false, Some(parts)) = (grant.paths.is_empty(), parts.as_array_mut()) {
        parts.push(serde_json::json!({ "paths": grant.paths }));
    }
    if let (false, Some(parts)) = (grant.methods.is_empty(), parts.as_array_mut()) {
        parts.push(serde_json::json!({ "methods": grant.methods }));
    }
    Digest::of(parts.to_string().as_bytes()).hex()
}

fn bound_file(grant: &SecretGrant) -> String {
    let parts = serde_json::json!(["secret", grant.source.to_string()]);
    Digest::of(parts.to_string().as_bytes()).hex()
}
