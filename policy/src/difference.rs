//! What changed between two effective policies, rule by rule, in the words of the rules: what `policy show --against`,
//! events of kind `policy` and a live change show.

use std::collections::BTreeMap;

use schema::inspection::Inspector;
use serde::Serialize;

use crate::effective::{EffectivePolicy, Origin};
use crate::text;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// `added` or `removed`.
    pub what: &'static str,
    pub rule: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
}

/// Changes from `old` to `new`, in order of the rules' words. A rule that only moved within its file is none.
pub fn difference(old: &EffectivePolicy, new: &EffectivePolicy) -> Vec<Change> {
    let (old, new) = (entries(old), entries(new));
    let missing_in = |here: &BTreeMap<String, Option<Origin>>,
                      there: &BTreeMap<String, Option<Origin>>,
                      what| {
        let only = here.iter().filter(|(rule, _)| !there.contains_key(*rule));
        only.map(|(rule, origin)| Change {
            what,
            rule: rule.clone(),
            origin: origin.clone(),
        })
        .collect::<Vec<_>>()
    };
    let mut changes = missing_in(&old, &new, "removed");
    changes.extend(missing_in(&new, &old, "added"));
    changes.sort_by(|a, b| (&a.rule, b.what).cmp(&(&b.rule, a.what)));
    changes
}

fn entries(policy: &EffectivePolicy) -> BTreeMap<String, Option<Origin>> {
    let mut out = BTreeMap::new();
    let many = policy.network.layers().len() > 1;
    for (i, layer) in policy.network.layers().iter().enumerate() {
        let allowed = layer
            .allowed
            .iter()
            .map(|rule| (text::allowed_domain(rule), &rule.origin));
        let denied = layer
            .denied
            .iter()
            .map(|rule| (text::denied_domain(rule), &rule.origin));
        let rules = layer
            .rules
            .iter()
            .map(|rule| (text::rule(rule), &rule.origin));
        let networks = layer
            .networks
            .iter()
            .map(|rule| (text::network(rule), &rule.origin));
        let unlisted = layer.ask_unlisted.iter();
        let unlisted = unlisted.map(|origin| (text::UNLISTED.to_owned(), origin));
        let all = allowed.chain(denied).chain(rules).chain(networks);
        for (words, origin) in all.chain(unlisted) {
            let words = if many {
                format!("layer {i}: {words}")
            } else {
                words
            };
            out.insert(words, Some(origin.clone()));
        }
    }
    for ceiling in policy.ceilings() {
        for (words, origin) in text::ceiling(ceiling) {
            out.insert(words, Some(origin.clone()));
        }
    }
    if let Some(origin) = &policy.unasked {
        out.insert(text::UNASKED.to_owned(), Some(origin.clone()));
    }
    for credential in &policy.credentials {
        out.insert(
            text::credential(credential),
            Some(credential.origin.clone()),
        );
    }
    for secret in &policy.secrets.all {
        out.insert(text::secret(secret), Some(secret.origin.clone()));
    }
    for inspector in Inspector::ALL {
        out.insert(
            text::inspection(inspector, &policy.inspection),
            policy.inspection.origin(inspector).cloned(),
        );
    }
    let gateway = &policy.gateway;
    let mut setting = |key: String, words: String| {
        out.insert(words, gateway.origins.get(&key).cloned());
    };
    setting("resolver".into(), format!("resolver {}", gateway.resolver));
    if let Some(proxy) = &gateway.upstream_proxy {
        setting("upstream_proxy".into(), format!("upstream_proxy {proxy}"));
    }
    if let Some(seconds) = gateway.approval_seconds {
        setting(
            "approval_seconds".into(),
            format!("approval_seconds {seconds}"),
        );
    }
    for network in &gateway.private_networks {
        setting(
            format!("private_networks.{network}"),
            format!("private_networks {network}"),
        );
    }
    for (name, addresses) in &gateway.hosts {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        setting(
            format!("hosts.{name}"),
            format!("hosts {name} = {}", list.join(", ")),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::merge::effective;

    fn policy(domains: &str, host: &str) -> EffectivePolicy {
        let config = format!(
            r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "network": {{ "egress": {domains} }} }} }} }}"#
        );
        let config = schema::config::parse(config.as_bytes(), "agentcontainer.json").unwrap();
        effective(
            &config,
            &schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn a_difference_names_what_came_and_what_went() {
        let old = policy(
            r#"{ "allowedDomains": ["a.example", "b.example"], "networks": ["10.0.0.1:22"] }"#,
            "",
        );
        let new = policy(
            r#"{ "allowedDomains": [ "b.example", "c.example:22"], "deniedDomains": ["x.example"] }"#,
            "[gateway]\nresolver = \"1.2.3.4:53\"",
        );
        let shown: Vec<String> = difference(&old, &new)
            .iter()
            .map(|change| format!("{} {}", change.what, change.rule))
            .collect();
        assert_eq!(
            shown,
            [
                r#"removed allowedDomains "a.example""#,
                r#"added allowedDomains "c.example:22""#,
                r#"added deniedDomains "x.example""#,
                r#"removed networks "10.0.0.1:22""#,
                "added resolver 1.2.3.4:53",
                "removed resolver system",
            ]
        );
        assert_eq!(difference(&old, &old), []);
        let added = difference(&old, &new)
            .into_iter()
            .find(|change| change.rule.starts_with("resolver 1"))
            .unwrap();
        assert_eq!(added.origin.unwrap().to_string(), "config.toml:2:12");
    }
}
