//! `devcontainer-lock.json`, the lockfile of the devcontainer CLI: which digest each feature of a config was resolved to. Written
//! beside ours so that editors install the same features, byte for byte as that CLI writes it, and honoured where ours has no pin.
//! A stranger's file.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::feature::FeatureId;
use crate::diag::Diagnostic;
use crate::digest::Digest;

/// The largest file, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most features in it.
pub const MAX_FEATURES: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DevcontainerLock {
    #[serde(default)]
    pub features: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `REGISTRY/REPOSITORY@DIGEST`
    pub resolved: String,
    /// Of the feature's manifest.
    pub integrity: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<String>,
}

/// Where it is: beside the config, hidden where that is.
pub fn beside(config: &Path) -> PathBuf {
    let is_hidden = config
        .file_name()
        .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    config.with_file_name(if is_hidden {
        ".devcontainer-lock.json"
    } else {
        "devcontainer-lock.json"
    })
}

// === impl DevcontainerLock ===

impl DevcontainerLock {
    /// An empty file, which tools make to ask for one, holds nothing.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, Diagnostic> {
        let refused = |message: String| {
            Diagnostic::new("devcontainer-lock", message)
                .in_file(file.to_owned())
                .help("remove it: `agentcontainer lock` writes it anew")
        };
        if bytes.len() > MAX_BYTES {
            return Err(refused(format!("it is larger than {MAX_BYTES} bytes")));
        }
        if bytes.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        if !bytes.trim_ascii_start().starts_with(b"{") {
            return Err(refused("it is no object".to_owned()));
        }
        let found: Self = serde_json::from_slice(bytes).map_err(|e| refused(e.to_string()))?;
        if found.features.len() > MAX_FEATURES {
            return Err(refused(format!("it has more than {MAX_FEATURES} features")));
        }
        Ok(found)
    }

    /// The digest that a feature was resolved to; `None` where it does not say.
    ///
    /// # Errors
    /// Its entry does not hold together, or is about another repository.
    pub fn digest(&self, feature: &FeatureId) -> Result<Option<Digest>, String> {
        let Some(entry) = self.features.get(feature.as_str()) else {
            return Ok(None);
        };
        let digest = Digest::parse(&entry.integrity)
            .map_err(|e| format!("its integrity in devcontainer-lock.json: {e}"))?;
        let resolved = resolved(feature, &digest);
        if entry.resolved != resolved {
            return Err(format!(
                "devcontainer-lock.json says that it was resolved to {}, and its integrity is that of {resolved}",
                entry.resolved
            ));
        }
        Ok(Some(digest))
    }

    /// As the devcontainer CLI writes it: by its order of keys, two spaces, a newline at the end.
    pub fn to_text(&self) -> String {
        let mut names: Vec<&String> = self.features.keys().collect();
        names.sort_by(|a, b| collate(a, b));
        let mut features = Vec::new();
        for name in names {
            // Own types with string keys, which have no way to fail.
            let entry = serde_json::to_string_pretty(&self.features[name]).unwrap_or_default();
            let name = serde_json::to_string(name).unwrap_or_default();
            features.push(format!("    {name}: {}", entry.replace('\n', "\n    ")));
        }
        if features.is_empty() {
            return "{\n  \"features\": {}\n}\n".to_owned();
        }
        format!(
            "{{\n  \"features\": {{\n{}\n  }}\n}}\n",
            features.join(",\n")
        )
    }
}

/// `REGISTRY/REPOSITORY@DIGEST`, as that CLI spells it.
pub fn resolved(feature: &FeatureId, digest: &Digest) -> String {
    let written = feature.as_str().to_ascii_lowercase();
    let end = written.rfind('/').map_or(0, |at| at + 1);
    let bare = written[end..]
        .find([':', '@'])
        .map_or(written.as_str(), |at| &written[..end + at]);
    format!("{bare}@{digest}")
}

/// How that CLI orders texts, which is JavaScript's `localeCompare`: by the root collation of Unicode, here for ASCII, and by code
/// point beyond it.
pub fn collate(a: &str, b: &str) -> Ordering {
    const ORDER: &[u8] = b" _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$";
    let primary = |c: char| match c {
        'a'..='z' | 'A'..='Z' => 1000 + u32::from(c.to_ascii_lowercase()),
        '0'..='9' => 500 + u32::from(c),
        _ => u8::try_from(c)
            .ok()
            .and_then(|c| ORDER.iter().position(|own| *own == c))
            .and_then(|at| u32::try_from(at).ok())
            .unwrap_or(2000 + u32::from(c)),
    };
    let case = |c: char| c.is_ascii_uppercase();
    a.chars()
        .map(primary)
        .cmp(b.chars().map(primary))
        .then_with(|| a.chars().map(case).cmp(b.chars().map(case)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn digest(c: char) -> Digest {
        Digest::parse(&format!("sha256:{}", c.to_string().repeat(64))).unwrap()
    }

    /// Written by the devcontainer CLI 0.89.0.
    fn text() -> String {
        format!(
            r#"{{
  "features": {{
    "localhost:5000/x/a-b:1": {{
      "version": "1.0.4",
      "resolved": "localhost:5000/x/a-b@{a}",
      "integrity": "{a}",
      "dependsOn": [
        "localhost:5000/x/a:1"
      ]
    }},
    "localhost:5000/x/a:1": {{
      "version": "1.2.0",
      "resolved": "localhost:5000/x/a@{b}",
      "integrity": "{b}"
    }}
  }}
}}
"#,
            a = digest('a'),
            b = digest('b')
        )
    }

    #[test]
    fn what_the_devcontainer_cli_writes_is_read_and_written_the_same() {
        let lock = DevcontainerLock::parse(text().as_bytes(), "x").unwrap();
        assert_eq!(lock.to_text(), text());
        let id: FeatureId = "localhost:5000/x/a-b:1".parse().unwrap();
        assert_eq!(lock.digest(&id).unwrap(), Some(digest('a')));
        let other: FeatureId = "localhost:5000/x/c:1".parse().unwrap();
        assert_eq!(lock.digest(&other).unwrap(), None);
        assert_eq!(
            DevcontainerLock::parse(b" \n", "x").unwrap(),
            DevcontainerLock::default()
        );
        let empty = DevcontainerLock::default().to_text();
        assert_eq!(empty, "{\n  \"features\": {}\n}\n");
    }

    #[test]
    fn an_entry_that_does_not_hold_together_is_refused() {
        let id: FeatureId = "localhost:5000/x/a-b:1".parse().unwrap();
        for (from, to) in [
            ("a-b@sha256:aaaa", "a-b@sha256:baaa"),
            (
                "\"resolved\": \"localhost:5000/x/a-b@",
                "\"resolved\": \"localhost:5000/evil/a-b@",
            ),
            (
                "\"integrity\": \"sha256:aaaa",
                "\"integrity\": \"sha512:aaaa",
            ),
        ] {
            let changed = text().replacen(from, to, 1);
            assert_ne!(changed, text());
            let lock = DevcontainerLock::parse(changed.as_bytes(), "x").unwrap();
            assert!(lock.digest(&id).is_err(), "{to}");
        }
        for bad in ["[]", "{", "{\"features\":{\"a\":{}}}"] {
            assert!(DevcontainerLock::parse(bad.as_bytes(), "x").is_err());
        }
    }

    #[test]
    fn how_large_it_is_is_bounded() {
        let padded = |n: usize| {
            let text = text();
            let pad = " ".repeat(n - text.len());
            DevcontainerLock::parse(format!("{text}{pad}").as_bytes(), "x")
        };
        assert!(padded(MAX_BYTES).is_ok());
        assert!(padded(MAX_BYTES + 1).is_err());
        let many = |n: usize| {
            let lock = DevcontainerLock {
                features: (0..n)
                    .map(|n| {
                        let entry = Entry {
                            version: None,
                            resolved: String::new(),
                            integrity: String::new(),
                            depends_on: Vec::new(),
                        };
                        (n.to_string(), entry)
                    })
                    .collect(),
            };
            DevcontainerLock::parse(lock.to_text().as_bytes(), "x")
        };
        assert!(many(MAX_FEATURES).is_ok());
        assert!(many(MAX_FEATURES + 1).is_err());
    }

    #[test]
    fn texts_are_in_the_order_of_localecompare() {
        // Sorted by node.
        let sorted = "_-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$0123456789aAbBzZ";
        let mut all: Vec<String> = sorted.chars().rev().map(String::from).collect();
        all.sort_by(|a, b| collate(a, b));
        assert_eq!(all.concat(), sorted);
        let mut words = ["aB", "Ab", "ab", "A", "a"];
        words.sort_by(|a, b| collate(a, b));
        assert_eq!(words, ["a", "A", "ab", "aB", "Ab"]);
        assert_eq!(collate("x/a-b:1", "x/a:1"), Ordering::Less);
    }

    #[test]
    fn it_lies_beside_the_config_and_is_hidden_where_that_is() {
        for (config, lock) in [
            (
                "/w/.devcontainer/devcontainer.json",
                "/w/.devcontainer/devcontainer-lock.json",
            ),
            ("/w/.devcontainer.json", "/w/.devcontainer-lock.json"),
            ("/w/agentcontainer.json", "/w/devcontainer-lock.json"),
        ] {
            assert_eq!(beside(Path::new(config)), Path::new(lock));
        }
    }
}
