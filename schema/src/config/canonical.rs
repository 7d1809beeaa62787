//! What a config means, as bytes: comments, order of keys, order and repetition in lists that are sets, positions and
//! other tools' customizations do not matter. Approvals and the lockfile hold its hash. The bytes are themselves an
//! agentcontainer.json with the same meaning, which a test and a fuzz target hold it to.

use serde_json::Value;

use super::Config;
use crate::digest::Digest;

/// Lists in which order and repetition say nothing.
const SETS: [&str; 4] = ["allowedDomains", "deniedDomains", "rules", "networks"];

impl Config {
    /// The canonical form: JSON with sorted keys and without spaces.
    pub fn meaning(&self) -> Vec<u8> {
        // Config's own types only: strings, numbers and string-keyed maps, which have no way to fail.
        let mut value = serde_json::to_value(self).unwrap_or_default();
        if let Some(Value::Object(egress)) = value.pointer_mut("/agent/capabilities/network/egress")
        {
            if let Some(Value::Array(rules)) = egress.get_mut("rules") {
                rules
                    .iter_mut()
                    .filter_map(|rule| rule.get_mut("ports"))
                    .for_each(sort);
            }
            egress
                .iter_mut()
                .filter(|(key, _)| SETS.contains(&key.as_str()))
                .for_each(|(_, list)| sort(list));
        }
        if let Some(Value::Object(credentials)) = value.pointer_mut("/agent/credentials") {
            credentials
                .values_mut()
                .filter_map(|credential| credential.get_mut("hosts"))
                .for_each(sort);
        }
        serde_json::to_vec(&value).unwrap_or_default()
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.meaning())
    }
}

fn sort(list: &mut Value) {
    if let Value::Array(list) = list {
        list.sort_by_cached_key(|value| match value {
            Value::Number(number) => format!("{:0>8}", number.to_string()),
            other => other.to_string(),
        });
        list.dedup();
    }
}
