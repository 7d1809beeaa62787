//! The control channel's messages and services, generated from `proto/agentcontainer.proto` by `cargo xtask proto`, and
//! nothing else but a `Debug` that shows no credential.
#![allow(clippy::all, clippy::unwrap_used, missing_docs)]

#[path = "generated/agentcontainer.v1.rs"]
#[rustfmt::skip]
pub mod v1;

impl std::fmt::Debug for v1::Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secret")
            .field("credential", &self.credential)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for v1::SecretFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretFile")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_message_shows_a_credential() {
        let request = super::v1::OpenSessionRequest {
            secrets: vec![super::v1::Secret {
                credential: "github".into(),
                value: b"s3cret".to_vec(),
                placeholder: "stand-in".into(),
                ..Default::default()
            }],
            files: vec![super::v1::SecretFile {
                name: "NPM_TOKEN".into(),
                value: b"s3cret".to_vec(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let shown = format!("{request:?}");
        assert!(
            shown.contains("github") && shown.contains("NPM_TOKEN"),
            "{shown}"
        );
        assert!(
            !shown.contains("stand-in") && !shown.contains("115, 51"),
            "{shown}"
        );
    }
}
