//! The policies that a workspace is held to on this host. They are not fetched yet: where the host or the workspace names one, or
//! the workspace requires proof of what it runs, nothing is started, because to leave that out would be to ignore it.

use schema::config::Config;
use schema::diag::{Diagnostic, Position};
use schema::hostconfig::HostConfig;
use schema::organisation::Organisation;

use crate::report::Failure;

/// Every policy that holds, the host's and the workspace's own.
///
/// # Errors
/// What is asked for and not carried out by this version, at its place.
pub fn documents(config: &Config, host: &HostConfig) -> Result<Vec<Organisation>, Failure> {
    let mut found = of_host(host);
    let mut refuse = |at: Position, words: String| {
        found.push(config.diagnostic(at, "not-enforced", words));
    };
    if let Some(source) = &config.agent.policy.source {
        refuse(source.at, not_fetched("agent.policy.source", &source.value));
    }
    let require = &config.agent.provenance.require;
    let flags = [("signatures", &require.signatures), ("sbom", &require.sbom)];
    let flags = flags.into_iter().filter_map(|(key, flag)| {
        let flag = flag.as_ref().filter(|flag| flag.value)?;
        Some((key, flag.at))
    });
    let level = require
        .slsa_level
        .iter()
        .map(|level| ("slsaLevel", level.at));
    for (key, at) in flags.chain(level) {
        let words = format!(
            "`agent.provenance.require.{key}` is not enforced by this version: signatures and provenance are not verified when a session starts"
        );
        refuse(at, words);
    }
    if found.is_empty() {
        Ok(Vec::new())
    } else {
        Err(found.into())
    }
}

/// The same for commands that are about no config.
pub fn require_none(host: &HostConfig) -> Result<(), Failure> {
    let found = of_host(host);
    if found.is_empty() {
        Ok(())
    } else {
        Err(found.into())
    }
}

fn of_host(host: &HostConfig) -> Vec<Diagnostic> {
    let refuse = |policy: &schema::hostconfig::Setting<schema::hostconfig::PolicySource>| {
        let words = not_fetched("policy.source", &policy.value.source);
        Diagnostic::new("not-enforced", words).at(policy.file.clone(), policy.at)
    };
    host.policy.iter().map(refuse).collect()
}

fn not_fetched(key: &str, source: &schema::image::OciSource) -> String {
    format!(
        "`{key}` is not enforced by this version: {source} is not fetched, and without it nobody knows what is allowed here"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn codes(agent: &str, host: &str) -> Vec<String> {
        let config = format!("{{ \"image\": \"debian\", \"agent\": {{ {agent} }} }}");
        let config = schema::config::parse(config.as_bytes(), "agentcontainer.json").unwrap();
        let host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
        let found = documents(&config, &host).err();
        let found = found.map(|failure| failure.diagnostics).unwrap_or_default();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_named_and_not_fetched_is_never_left_out() {
        assert!(codes("", "").is_empty());
        assert!(codes(r#""policy": { "escalation": "deny" }, "provenance": { "require": { "sbom": false } }"#, "").is_empty());
        for (agent, host, place) in [
            (
                r#""policy": { "source": "oci://r.example/p:v1" }"#,
                "",
                "agentcontainer.json:1:",
            ),
            (
                r#""provenance": { "require": { "signatures": true } }"#,
                "",
                "agentcontainer.json:1:",
            ),
            (
                r#""provenance": { "require": { "sbom": true } }"#,
                "",
                "agentcontainer.json:1:",
            ),
            (
                r#""provenance": { "require": { "slsaLevel": 1 } }"#,
                "",
                "agentcontainer.json:1:",
            ),
            (
                "",
                "[policy]\nsource = \"oci://r.example/p:v1\"\nkeys = [\"/k\"]",
                "config.toml:1:",
            ),
        ] {
            let found = codes(agent, host);
            assert_eq!(found.len(), 1, "{agent} {host}: {found:#?}");
            assert!(
                found[0].starts_with(place) && found[0].ends_with("[not-enforced]"),
                "{found:#?}"
            );
        }
        let all = codes(
            r#""policy": { "source": "oci://r.example/p:v1" }, "provenance": { "require": { "signatures": true, "sbom": true, "slsaLevel": 1 } }"#,
            "[policy]\nsource = \"oci://r.example/p:v1\"\nkeys = [\"/k\"]",
        );
        assert_eq!(all.len(), 5, "{all:#?}");
    }
}
