//! JSON that engines read as well: theirs takes a key in any case (Go, encoding/json: 'preferring exact matches but also accepting
//! case-insensitive matches', the last one winning), ours does not. What the two would read differently is refused.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::de::SliceRead;

/// Which keys mean something, and under which ones every key is somebody's own.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    pub known: &'static [&'static str],
    pub free: &'static [&'static str],
}

/// Of manifests and indexes.
pub const MANIFEST: Keys = Keys {
    known: &[
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
        "digest",
        "size",
        "platform",
        "architecture",
        "os",
        "variant",
    ],
    free: &["annotations"],
};

/// Of images' configurations.
pub const CONFIGURATION: Keys = Keys {
    known: &[
        "architecture",
        "os",
        "variant",
        "config",
        "rootfs",
        "diff_ids",
        "history",
        "created_by",
        "User",
        "Env",
        "Entrypoint",
        "Cmd",
        "Shell",
        "OnBuild",
        "WorkingDir",
        "ExposedPorts",
        "Volumes",
        "Labels",
        "Healthcheck",
        "Test",
        "StopSignal",
    ],
    free: &["ExposedPorts", "Volumes", "Labels"],
};

/// # Errors
/// In words: it is no JSON, or an object in it has a key twice, in whatever case, or a known one in another case than its own.
pub fn check(bytes: &[u8], keys: Keys) -> Result<(), String> {
    let mut reader = serde_json::Deserializer::new(SliceRead::new(bytes));
    let whole = Walk { keys, free: false };
    whole
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|e| e.to_string())
}

#[derive(Clone, Copy)]
struct Walk {
    keys: Keys,
    free: bool,
}

/// As Go folds: without case, and two letters outside ASCII that fold to ones in it.
fn folded(key: &str) -> String {
    key.chars()
        .map(|letter| match letter {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            let fold = if self.free { key.clone() } else { folded(&key) };
            let known = self.keys.known.iter().find(|known| folded(known) == fold);
            if let Some(known) = known
                && !self.free
                && key != **known
            {
                let message = format!("the key {} is {known} in another case", key.escape_debug());
                return Err(A::Error::custom(message));
            }
            if !seen.insert(fold) {
                let message = format!("the key {} stands there twice", key.escape_debug());
                return Err(A::Error::custom(message));
            }
            let free = self.free || self.keys.free.contains(&key.as_str());
            map.next_value_seed(Self { free, ..self })?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_engine_would_read_differently_is_refused() {
        let of = |text: &str| check(text.as_bytes(), CONFIGURATION);
        for text in [
            r#"{ "config": { "Entrypoint": ["/a"], "Env": ["A=1"], "Labels": { "a": "", "A": "", "env": "" }, "Image": 1.5 }, "x": [null, true, -1] }"#,
            "[]",
        ] {
            assert_eq!(of(text), Ok(()), "{text}");
        }
        for text in [
            r#"{ "config": { "Entrypoint": ["/a"], "entrypoint": ["/b"] } }"#,
            r#"{ "config": { "env": ["A=1"] } }"#,
            r#"{ "Config": {} }"#,
            "{ \"config\": { \"U\u{17f}er\": \"0\" } }",
            r#"{ "config": {}, "config": {} }"#,
            r#"{ "x": { "a": 1, "A": 2 } }"#,
            r#"{ "config": { "Labels": { "a": "", "a": "" } } }"#,
            r#"{} {}"#,
            r#"{ "a" }"#,
        ] {
            assert!(of(text).is_err(), "{text}");
        }
        let manifest = r#"{ "schemaVersion": 2, "layers": [], "Layers": [] }"#;
        assert!(check(manifest.as_bytes(), MANIFEST).is_err());
    }
}
