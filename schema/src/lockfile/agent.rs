//! An agent that npm installed: each package of it with its version and the digest of its bytes, as npm wrote them down when it was
//! first installed. Written as npm's own lockfile, npm installs the same again or refuses.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::each_once;
use crate::digest::Digest;

/// The most packages of one agent.
pub const MAX_PACKAGES: usize = 512;
/// The largest lockfile of npm's that is read, in bytes.
pub const MAX_NPM_LOCK: usize = 1024 * 1024;
/// The longest name, version or place of a package, in bytes.
const MAX_WORD: usize = 512;

/// What `run AGENT` installs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentPin {
    #[schemars(length(max = MAX_WORD))]
    pub package: String,
    #[schemars(length(max = MAX_WORD))]
    pub version: String,
    /// The package and what it needs, by their places below the directory that npm installs into.
    #[serde(deserialize_with = "each_once")]
    #[schemars(extend("maxProperties" = MAX_PACKAGES))]
    pub packages: BTreeMap<String, PackagePin>,
}

/// One package of npm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackagePin {
    /// The agent's own package under another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[schemars(length(max = MAX_WORD))]
    pub version: String,
    /// Of the tarball, as registries say it.
    #[schemars(extend("pattern" = "^sha512-[A-Za-z0-9+/]{86}==$"))]
    pub integrity: String,
    /// Its absence, on another platform for one, is no failure.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Programs; of the agent alone.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    pub bin: BTreeMap<String, String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    pub dependencies: BTreeMap<String, String>,
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_once"
    )]
    pub optional_dependencies: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libc: Vec<String>,
}

// === impl AgentPin ===

impl AgentPin {
    /// Out of what npm wrote beside what it installed.
    ///
    /// # Errors
    /// Words on what cannot be pinned.
    pub fn of_npm(bytes: &[u8], package: &str, version: &str) -> Result<Self, String> {
        if bytes.len() > MAX_NPM_LOCK {
            return Err(format!("npm's lockfile has more than {MAX_NPM_LOCK} bytes"));
        }
        let whole: Value = serde_json::from_slice(bytes)
            .map_err(|_| "npm left no lockfile that can be read".to_owned())?;
        let all = whole["packages"]
            .as_object()
            .ok_or("npm of the image is older than 7, whose lockfile pins too little")?;
        let mut pin = Self {
            package: package.to_owned(),
            version: version.to_owned(),
            packages: BTreeMap::new(),
        };
        for (place, entry) in all {
            // Its root, and what lies in the tarball of another.
            if place.is_empty() || entry["inBundle"] == true {
                continue;
            }
            let of = PackagePin::of_npm(entry, *place == pin.place())
                .map_err(|why| format!("{place}: {why}"))?;
            pin.packages.insert(place.clone(), of);
        }
        // What the registry did not have then is not asked for again.
        let there: BTreeSet<String> = pin.packages.keys().map(|p| name_in(p).into()).collect();
        for of in pin.packages.values_mut() {
            of.dependencies.retain(|name, _| there.contains(name));
            of.optional_dependencies
                .retain(|name, _| there.contains(name));
        }
        pin.check()?;
        Ok(pin)
    }

    /// The digest of the agent's own tarball.
    pub fn integrity(&self) -> &str {
        let own = self.packages.get(&self.place());
        own.map_or("", |own| own.integrity.as_str())
    }

    /// Of all of it: what another choice of packages or bytes changes.
    pub fn digest(&self) -> Digest {
        Digest::of(&serde_json::to_vec(self).unwrap_or_default())
    }

    /// What npm is to be given: `package.json` and `package-lock.json`.
    pub fn files(&self) -> [(&'static str, String); 2] {
        let root = json!({ "dependencies": { self.package.as_str(): self.version } });
        let mut packages = json!(self.packages);
        packages[""] = root.clone();
        let lock = json!({ "lockfileVersion": 3, "requires": true, "packages": packages });
        [
            ("package.json", root.to_string()),
            ("package-lock.json", lock.to_string()),
        ]
    }

    fn place(&self) -> String {
        format!("node_modules/{}", self.package)
    }

    /// # Errors
    /// Words on what is no pin of that agent.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.packages.len() > MAX_PACKAGES {
            return Err(format!("it has more than {MAX_PACKAGES} packages"));
        }
        let own = self.packages.get(&self.place());
        if !own.is_some_and(|own| own.version == self.version && own.name.is_none()) {
            return Err(format!(
                "{} {} is not among its packages",
                self.package, self.version
            ));
        }
        for (place, of) in &self.packages {
            of.check(self, place)
                .map_err(|why| format!("{place}: {why}"))?;
        }
        Ok(())
    }
}

// === impl PackagePin ===

impl PackagePin {
    fn of_npm(entry: &Value, is_agent: bool) -> Result<Self, String> {
        let word = |key: &str| entry[key].as_str().map(str::to_owned);
        let map = |key: &str| {
            let entries = entry[key].as_object().into_iter().flatten();
            entries.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        };
        let list = |key: &str| match &entry[key] {
            Value::String(one) => vec![one.clone()],
            all => {
                let all = all.as_array().into_iter().flatten();
                all.filter_map(|one| one.as_str().map(str::to_owned))
                    .collect()
            }
        };
        Ok(Self {
            name: word("name"),
            version: word("version").ok_or("it has no version")?,
            integrity: word("integrity").ok_or("no registry says its digest")?,
            optional: entry["optional"] == true,
            bin: map("bin").filter(|_| is_agent).collect(),
            dependencies: map("peerDependencies").chain(map("dependencies")).collect(),
            optional_dependencies: map("optionalDependencies").collect(),
            os: list("os"),
            cpu: list("cpu"),
            libc: list("libc"),
        })
    }

    fn check(&self, of: &AgentPin, place: &str) -> Result<(), String> {
        let Some(names) = place.strip_prefix("node_modules/") else {
            return Err("it is not below node_modules".to_owned());
        };
        if place.len() > MAX_WORD || !names.split("/node_modules/").all(is_name) {
            return Err("that is no place of a package".to_owned());
        }
        if self.name.as_ref().is_some_and(|name| *name != of.package) {
            return Err("another package stands under its name".to_owned());
        }
        if !self.bin.is_empty() && place != of.place() {
            return Err("programs are the agent's alone".to_owned());
        }
        if !is_version(&self.version) {
            return Err("its version is not one".to_owned());
        }
        let needed = self.dependencies.values();
        let mut needed = needed.chain(self.optional_dependencies.values());
        if let Some(other) = needed.find(|range| !is_range(range, &of.package)) {
            return Err(format!("it needs what is no version: {other:?}"));
        }
        let digest = self.integrity.strip_prefix("sha512-");
        let digest = digest.and_then(|text| {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text);
            decoded.ok()
        });
        if digest.is_none_or(|bytes| bytes.len() != 64) {
            return Err("its digest is no SHA-512".to_owned());
        }
        let maps = [&self.bin, &self.dependencies, &self.optional_dependencies];
        let said = maps.into_iter().flatten();
        let mut words = said
            .flat_map(|(name, value)| [name, value])
            .chain([&self.version])
            .chain(&self.os)
            .chain(&self.cpu)
            .chain(&self.libc);
        let plain =
            |word: &String| word.len() <= MAX_WORD && !word.bytes().any(|b| b.is_ascii_control());
        if !words.all(plain) {
            return Err(format!(
                "something in it is longer than {MAX_WORD} bytes, or not printable"
            ));
        }
        Ok(())
    }
}

/// One version and no range, tag, other package or address (semver.org): npm is told nothing else of what it fetches.
fn is_version(text: &str) -> bool {
    let numbers = text.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-+.".contains(&b);
    numbers.split('.').count() == 3 && numbers.split('.').all(number) && text.bytes().all(plain)
}

/// Versions of the package that is named, or of the agent's own under another name, as its builds for one platform are.
fn is_range(text: &str, own: &str) -> bool {
    let alias = text
        .strip_prefix("npm:")
        .map(|of| of.strip_prefix(own).and_then(|of| of.strip_prefix('@')));
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" .-+*^~<>=|".contains(&b);
    match alias {
        Some(version) => version.is_some_and(is_version),
        None => text.bytes().all(plain),
    }
}

/// The name that a package is needed by, which ends its place.
fn name_in(place: &str) -> &str {
    let end = place.rfind("node_modules/");
    end.map_or(place, |at| &place[at + "node_modules/".len()..])
}

/// As npm has names: `name`, `@scope/name`.
fn is_name(name: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b))
    };
    match name.strip_prefix('@') {
        Some(scoped) => scoped.split('/').count() == 2 && scoped.split('/').all(word),
        None => word(name),
    }
}

#[cfg(test)]
mod tests;
