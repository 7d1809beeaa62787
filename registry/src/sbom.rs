//! Inventories (SPDX 2 and CycloneDX, as JSON): which packages an image says it holds, and whether one of them is banned. From an
//! attestation whose signer was accepted, or a plain referrer's blob, which says as much and proves less.

mod versions;

use std::collections::BTreeMap;
use std::str::FromStr as _;

use packageurl::PackageUrl;
use schema::digest::Digest;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::attestation::{self, StatementError};
use crate::signature::{Attested, Report, json};

pub use versions::{BanError, CONSTRAINTS, RANGE_BYTES, Range};

/// The longest inventory.
pub const BYTES: usize = attestation::BYTES;
/// The most packages of one.
pub const PACKAGES: usize = 100_000;
/// The longest name, version or package URL that is looked at.
pub const TEXT_BYTES: usize = 4 << 10;
/// The most findings that are listed; the rest are counted.
pub const FINDINGS: usize = 256;

const SPDX: &str = "https://spdx.dev/Document";
const CYCLONE: &str = "https://cyclonedx.org/bom";

#[derive(Debug, Error)]
pub enum SbomError {
    #[error("the inventory is {0}")]
    Unbounded(#[from] json::Unbounded),
    #[error("the inventory lists more than {PACKAGES} packages")]
    Packages,
    #[error("the inventory holds a text of more than {TEXT_BYTES} bytes")]
    Text,
    #[error("neither SPDX 2 nor CycloneDX 1 in JSON: {0}")]
    Malformed(String),
    #[error(transparent)]
    Statement(#[from] StatementError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    Spdx,
    CycloneDx,
}

/// What one inventory lists.
#[derive(Clone, Debug, Serialize)]
pub struct Inventory {
    pub format: Format,
    pub version: String,
    /// The digest of what it came as.
    pub from: Digest,
    /// Whether its signer was accepted; a plain referrer is anybody's word.
    pub signed: bool,
    #[serde(serialize_with = "counted")]
    pub packages: Vec<Package>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    name: String,
    version: Option<String>,
    /// Ecosystem and the name within it, where a package URL says so.
    known: Option<(String, String)>,
}

/// A package that must not be in anything that runs, in some of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    ecosystem: String,
    name: String,
    range: Range,
}

/// What a search found; it holds where there is nothing in either list.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Searched {
    pub banned: Vec<Finding>,
    /// Where the inventory or the ecosystem's rules do not say: not proven to be clear.
    pub undecided: Vec<Finding>,
    /// How many more there are than are listed.
    pub more: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub package: String,
    pub ban: String,
    pub why: String,
}

/// Every inventory among a report's accepted statements.
#[derive(Debug, Default)]
pub struct Found {
    pub inventories: Vec<Inventory>,
    pub refused: Vec<(Digest, SbomError)>,
}

#[derive(Deserialize)]
struct Outline {
    #[serde(rename = "spdxVersion")]
    spdx: Option<String>,
    #[serde(default)]
    packages: Vec<SpdxPackage>,
    #[serde(rename = "bomFormat")]
    bom: Option<String>,
    #[serde(rename = "specVersion")]
    spec: Option<String>,
    #[serde(default)]
    components: Vec<Component>,
    metadata: Option<Metadata>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage {
    name: String,
    version_info: Option<String>,
    #[serde(default)]
    external_refs: Vec<Reference>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    reference_type: String,
    reference_locator: String,
}

#[derive(Deserialize)]
struct Metadata {
    component: Option<Component>,
}

#[derive(Deserialize)]
struct Component {
    name: String,
    group: Option<String>,
    version: Option<String>,
    purl: Option<String>,
    #[serde(default)]
    components: Vec<Component>,
}

/// The inventories that accepted signers attested.
pub fn inventories(report: &Report) -> Found {
    let mut found = Found::default();
    for attested in report.attestations() {
        match Inventory::attested(attested) {
            Some(Ok(inventory)) => found.inventories.push(inventory),
            Some(Err(error)) => found.refused.push((attested.from, error)),
            None => {}
        }
    }
    found
}

// === impl Inventory ===

impl Inventory {
    /// A plain referrer's blob. That it is about the subject is the manifest's word.
    ///
    /// # Errors
    /// [`SbomError`]: beyond a bound, or neither format.
    pub fn parse(bytes: &[u8], from: Digest) -> Result<Self, SbomError> {
        json::bounded(bytes, BYTES)?;
        let outline: Outline = serde_json::from_slice(bytes)
            .map_err(|error| SbomError::Malformed(error.to_string()))?;
        Self::of(outline, from, false)
    }

    /// The inventory in a statement; nothing where the statement is about something else.
    pub fn attested(attested: Attested<'_>) -> Option<Result<Self, SbomError>> {
        let kind = attested.statement.predicate_type();
        let of_kind = |base: &str| {
            kind.strip_prefix(base)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !of_kind(SPDX) && !of_kind(CYCLONE) {
            return None;
        }
        let outline = attested.statement.predicate::<Outline>();
        Some(
            outline
                .map_err(SbomError::from)
                .and_then(|outline| Self::of(outline, attested.from, true)),
        )
    }

    fn of(outline: Outline, from: Digest, signed: bool) -> Result<Self, SbomError> {
        let malformed = |why: &str| SbomError::Malformed(why.to_owned());
        let mut packages = Vec::new();
        let (format, version) = match (outline.spdx, outline.bom) {
            (Some(version), None) => {
                if !version.starts_with("SPDX-2.") {
                    return Err(malformed("another version of SPDX"));
                }
                for package in outline.packages {
                    let mut urls = package
                        .external_refs
                        .into_iter()
                        .filter(|reference| reference.reference_type == "purl")
                        .map(|reference| reference.reference_locator)
                        .peekable();
                    let (name, version) = (package.name, package.version_info);
                    if urls.peek().is_none() {
                        push(&mut packages, name, version, None)?;
                        continue;
                    }
                    for url in urls {
                        push(&mut packages, name.clone(), version.clone(), Some(&url))?;
                    }
                }
                (Format::Spdx, version)
            }
            (None, Some(name)) => {
                let version = outline.spec.unwrap_or_default();
                if name != "CycloneDX" || !version.starts_with("1.") {
                    return Err(malformed("another version of CycloneDX"));
                }
                let mut left = outline.components;
                // What the inventory is about is not what it lists.
                let whole = outline.metadata.and_then(|metadata| metadata.component);
                left.extend(whole.into_iter().flat_map(|whole| whole.components));
                while let Some(component) = left.pop() {
                    let name = match component.group.filter(|group| !group.is_empty()) {
                        Some(group) => format!("{group}/{}", component.name),
                        None => component.name,
                    };
                    push(
                        &mut packages,
                        name,
                        component.version,
                        component.purl.as_deref(),
                    )?;
                    left.extend(component.components);
                }
                (Format::CycloneDx, version)
            }
            (Some(_), Some(_)) => return Err(malformed("it says that it is both")),
            (None, None) => return Err(malformed("it says that it is neither")),
        };
        Ok(Self {
            format,
            version,
            from,
            signed,
            packages,
        })
    }

    /// Looks for banned packages, each by the rules of its own ecosystem.
    pub fn search(&self, bans: &[Ban]) -> Searched {
        let mut searched = Searched::default();
        if bans.is_empty() {
            return searched;
        }
        if self.packages.iter().all(Package::is_image) {
            let ban = format!("{} bans", bans.len());
            searched.undecided("the whole", &ban, "the inventory lists no package");
            return searched;
        }
        let mut by_name: BTreeMap<String, Vec<&Ban>> = BTreeMap::new();
        for ban in bans {
            by_name.entry(ban.last()).or_default().push(ban);
        }
        for package in &self.packages {
            let candidates = by_name.get(&package.last());
            for ban in candidates.into_iter().flatten() {
                ban.judge(package, &mut searched);
            }
        }
        searched
    }
}

fn push(
    packages: &mut Vec<Package>,
    name: String,
    version: Option<String>,
    url: Option<&str>,
) -> Result<(), SbomError> {
    if packages.len() == PACKAGES {
        return Err(SbomError::Packages);
    }
    let texts = [Some(name.as_str()), version.as_deref(), url];
    if texts.iter().flatten().any(|text| text.len() > TEXT_BYTES) {
        return Err(SbomError::Text);
    }
    let mut package = Package {
        name,
        version: version.filter(|version| !version.is_empty()),
        known: None,
    };
    if let Some(url) = url.and_then(|url| PackageUrl::from_str(url).ok()) {
        let ecosystem = url.ty().to_ascii_lowercase();
        let full = match url.namespace().filter(|namespace| !namespace.is_empty()) {
            Some(namespace) => format!("{namespace}/{}", url.name()),
            None => url.name().to_owned(),
        };
        if let Some(version) = url.version() {
            let epoch = url
                .qualifiers()
                .get("epoch")
                .filter(|_| ecosystem == "rpm" && !version.contains(':'));
            package.version = Some(match epoch {
                Some(epoch) => format!("{epoch}:{version}"),
                None => version.to_owned(),
            });
        }
        let full = canonical(&ecosystem, &full);
        package.known = Some((ecosystem, full));
    }
    packages.push(package);
    Ok(())
}

/// One spelling of a name: as the ecosystem's registry does it, and without case everywhere.
fn canonical(ecosystem: &str, name: &str) -> String {
    let name = name.to_ascii_lowercase();
    match ecosystem {
        "pypi" => {
            let mut out = String::with_capacity(name.len());
            for part in name.split(['-', '_', '.']).filter(|part| !part.is_empty()) {
                if !out.is_empty() {
                    out.push('-');
                }
                out.push_str(part);
            }
            out
        }
        "cargo" => name.replace('_', "-"),
        _ => name,
    }
}

/// The name without its namespace.
fn last(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, last)| last)
}

fn counted<S: serde::Serializer>(packages: &[Package], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(packages.len() as u64)
}

// === impl Package ===

impl Package {
    /// `ecosystem/name` where a package URL says so, else its name.
    pub fn called(&self) -> String {
        match &self.known {
            Some((ecosystem, name)) => format!("{ecosystem}/{name}"),
            None => self.name.clone(),
        }
    }

    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// An image, which inventories of images list as their first package.
    fn is_image(&self) -> bool {
        self.known
            .as_ref()
            .is_some_and(|(ecosystem, _)| ["oci", "docker"].contains(&ecosystem.as_str()))
    }

    /// The last part of its name, spelt as a ban's is.
    fn last(&self) -> String {
        let name = self.known.as_ref().map_or(&self.name, |(_, name)| name);
        last(&loose(name)).to_owned()
    }
}

/// The spelling by which bans and packages are brought together before they are compared: the loosest of any ecosystem.
fn loose(name: &str) -> String {
    let (namespace, last) = name.rsplit_once('/').unwrap_or(("", name));
    let last = canonical("pypi", last);
    if namespace.is_empty() {
        last
    } else {
        format!("{}/{last}", namespace.to_ascii_lowercase())
    }
}

impl std::fmt::Display for Package {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.known {
            Some((ecosystem, name)) => write!(f, "{ecosystem}/{name}")?,
            None => f.write_str(&self.name)?,
        }
        match &self.version {
            Some(version) => write!(f, "@{version}"),
            None => Ok(()),
        }
    }
}

// === impl Ban ===

impl Ban {
    /// `ecosystem` as package URLs call it (`npm`, `pypi`, `cargo`, `golang`, `deb`, `rpm`, …); `name` with its namespace (`@scope/name`,
    /// `group/artifact`, a module's path; for `deb`, `rpm` and `apk` the distribution's may be left out); `range`: see [`Range`].
    ///
    /// # Errors
    /// [`BanError`] where a part is empty or too long, or the range is not one by the ecosystem's rules.
    pub fn new(ecosystem: &str, name: &str, range: &str) -> Result<Self, BanError> {
        let ecosystem = ecosystem.to_ascii_lowercase();
        let plain = |text: &str| {
            !text.is_empty()
                && text.len() <= 256
                && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if !plain(&ecosystem) || ecosystem.contains('/') {
            return Err(BanError::Ecosystem);
        }
        if !plain(name) || last(name).is_empty() || canonical(&ecosystem, name).is_empty() {
            return Err(BanError::Name);
        }
        Ok(Self {
            name: canonical(&ecosystem, name),
            range: Range::parse(&ecosystem, range)?,
            ecosystem,
        })
    }

    /// Whether there are versions that it lets be: where nobody knows the ecosystem's order, a range refuses every one.
    pub fn is_decidable(&self) -> bool {
        self.range.is_decidable(&self.ecosystem)
    }

    fn last(&self) -> String {
        last(&loose(&self.name)).to_owned()
    }

    fn judge(&self, package: &Package, searched: &mut Searched) {
        let shown = self.to_string();
        let Some((ecosystem, name)) = &package.known else {
            let listed = loose(&package.name);
            let ours = loose(&self.name);
            if listed == ours || !listed.contains('/') || !ours.contains('/') {
                searched.undecided(
                    &package.to_string(),
                    &shown,
                    "it is listed without a package URL: whose it is is not known",
                );
            }
            return;
        };
        let distribution = ["deb", "rpm", "apk"].contains(&ecosystem.as_str());
        let same = *name == self.name
            || (distribution && !self.name.contains('/') && last(name) == self.name);
        if *ecosystem != self.ecosystem || !same {
            return;
        }
        match self.range.contains(ecosystem, package.version.as_deref()) {
            Some(true) => searched.banned(&package.to_string(), &shown),
            Some(false) => {}
            None => searched.undecided(
                &package.to_string(),
                &shown,
                "its version cannot be compared by rules that are known",
            ),
        }
    }
}

impl std::fmt::Display for Ban {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} {}", self.ecosystem, self.name, self.range)
    }
}

// === impl Searched ===

impl Searched {
    pub fn holds(&self) -> bool {
        self.banned.is_empty() && self.undecided.is_empty() && self.more == 0
    }

    fn banned(&mut self, package: &str, ban: &str) {
        self.add(package, ban, "the version is in the banned range", true);
    }

    fn undecided(&mut self, package: &str, ban: &str, why: &str) {
        self.add(package, ban, why, false);
    }

    fn add(&mut self, package: &str, ban: &str, why: &str, banned: bool) {
        let list = if banned {
            &mut self.banned
        } else {
            &mut self.undecided
        };
        if list.len() == FINDINGS {
            self.more += 1;
            return;
        }
        list.push(Finding {
            package: schema::diag::escape(package),
            ban: ban.to_owned(),
            why: why.to_owned(),
        });
    }
}

#[cfg(test)]
mod tests;
