//! What has to hold of everything that is run: the stricter of every document's word and the workspace's own, each with its place.
//! Lock, verify and run ask these; nothing is checked here.

use schema::config::Config;
use schema::diag::{Position, Spanned};
use schema::organisation::values::{Age, RegistryName};
use schema::organisation::{BannedPackage, Grade, Organisation, SignatureRule};

use super::{few, origin, shown};
use crate::effective::Origin;

/// A value, who says it, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct Said<T> {
    pub value: T,
    /// `None`: the workspace.
    pub organisation: Option<String>,
    pub origin: Origin,
}

/// Nothing is required where nothing is said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Requirements {
    /// A reference has to satisfy every rule that names it.
    pub signatures: Vec<Said<SignatureRule>>,
    /// Everything has to be signed by somebody whom a rule names, so that what no rule names does not hold.
    pub signed: Option<Said<()>>,
    pub slsa_level: Option<Said<u8>>,
    pub sbom: Option<Said<()>>,
    pub banned_packages: Vec<Said<BannedPackage>>,
    /// Each list has to name the registry.
    pub registries: Vec<Said<Vec<RegistryName>>>,
    /// A pin may not be older.
    pub lock_age: Option<Said<Age>>,
    /// From this grade on a person is asked.
    pub drift_ask: Option<Said<Grade>>,
    /// From this grade on it is refused.
    pub drift_refuse: Option<Said<Grade>>,
}

// === impl Requirements ===

impl Requirements {
    pub fn of(config: &Config, documents: &[Organisation]) -> Self {
        let mut out = Self::default();
        for document in documents {
            out.add(document);
        }
        let own = &config.agent.provenance.require;
        let said = |at: Position| Said {
            value: (),
            organisation: None,
            origin: origin(&config.file, at),
        };
        let is_set = |flag: &&Spanned<bool>| flag.value;
        out.signed = own.signatures.as_ref().filter(is_set).map(|f| said(f.at));
        let sbom = own.sbom.as_ref().filter(is_set).map(|f| said(f.at));
        keep(&mut out.sbom, sbom, |_, _| false);
        let level = own.slsa_level.as_ref().map(|level| Said {
            value: level.value,
            organisation: None,
            origin: origin(&config.file, level.at),
        });
        keep(&mut out.slsa_level, level, |new, old| new > old);
        out.canonical()
    }

    /// Whether anything has to be looked at before something is run.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Each in words, and where it stands.
    pub fn words(&self) -> Vec<(String, &Origin)> {
        let mut out = Vec::new();
        let mut say = |words: String, origin| out.push((words, origin));
        for rule in &self.signatures {
            let references = shown(&rule.value.references);
            let identities = rule
                .value
                .identities
                .iter()
                .map(|one| one.value.to_string());
            let keys = rule.value.keys.iter().map(|_| "a key".to_owned());
            let signers = few(identities.chain(keys));
            say(
                format!("require of {references} a signature by {signers}"),
                &rule.origin,
            );
        }
        if let Some(signed) = &self.signed {
            say(
                "require signatures of everything".to_owned(),
                &signed.origin,
            );
        }
        if let Some(level) = &self.slsa_level {
            say(
                format!("require at least SLSA level {}", level.value),
                &level.origin,
            );
        }
        if let Some(sbom) = &self.sbom {
            say("require an SBOM".to_owned(), &sbom.origin);
        }
        for list in &self.registries {
            let names = few(list.value.iter().map(ToString::to_string));
            say(format!("trust registries {names}"), &list.origin);
        }
        for banned in &self.banned_packages {
            let package = &banned.value;
            let words = format!("ban {} {} {}", package.kind, package.name, package.versions);
            say(words, &banned.origin);
        }
        if let Some(age) = &self.lock_age {
            say(format!("trust a pin for {}", age.value), &age.origin);
        }
        if let Some(grade) = &self.drift_ask {
            say(
                format!("ask about drift from {} on", grade.value),
                &grade.origin,
            );
        }
        if let Some(grade) = &self.drift_refuse {
            say(
                format!("refuse drift from {} on", grade.value),
                &grade.origin,
            );
        }
        out
    }

    fn add(&mut self, document: &Organisation) {
        let own = &document.requirements;
        fn said<T: Clone>(document: &Organisation, value: &Spanned<T>) -> Said<T> {
            Said {
                value: value.value.clone(),
                organisation: Some(document.organisation.to_string()),
                origin: origin(&document.file, value.at),
            }
        }
        let signatures = own.signatures.iter().map(|rule| said(document, rule));
        self.signatures.extend(signatures);
        let banned = own.banned_packages.iter().map(|one| said(document, one));
        self.banned_packages.extend(banned);
        if let Some(list) = &own.registries {
            let names = list.iter().map(|name| name.value.clone()).collect();
            self.registries
                .push(said(document, &Spanned::new(names, list.at)));
        }
        let sbom = own.sbom.as_ref().filter(|sbom| sbom.value);
        let sbom = sbom.map(|sbom| said(document, &Spanned::new((), sbom.at)));
        keep(&mut self.sbom, sbom, |_, _| false);
        let level = own.slsa_level.as_ref().map(|v| said(document, v));
        keep(&mut self.slsa_level, level, |new, old| new > old);
        let age = own.lock_age.as_ref().map(|v| said(document, v));
        keep(&mut self.lock_age, age, |new, old| new < old);
        let ask = own.drift.ask.as_ref().map(|v| said(document, v));
        keep(&mut self.drift_ask, ask, |new, old| new < old);
        let refuse = own.drift.refuse.as_ref().map(|v| said(document, v));
        keep(&mut self.drift_refuse, refuse, |new, old| new < old);
    }

    /// In order of their places, each once.
    fn canonical(mut self) -> Self {
        fn sorted<T: PartialEq>(list: &mut Vec<Said<T>>) {
            list.sort_by(|a, b| a.origin.cmp(&b.origin));
            list.dedup();
        }
        sorted(&mut self.signatures);
        sorted(&mut self.banned_packages);
        sorted(&mut self.registries);
        self
    }
}

/// The stricter of the two; of two that are as strict, the one whose place comes first.
pub(super) fn keep<T>(
    own: &mut Option<Said<T>>,
    new: Option<Said<T>>,
    stricter: impl Fn(&T, &T) -> bool,
) {
    let Some(new) = new else { return };
    let replace = own.as_ref().is_none_or(|own| {
        stricter(&new.value, &own.value)
            || (!stricter(&own.value, &new.value) && new.origin < own.origin)
    });
    if replace {
        *own = Some(new);
    }
}
