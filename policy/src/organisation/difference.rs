//! What a new document allows that the one before did not, and the other way round, graded: what `policy diff` says before a policy
//! is published. Entries are compared by what they name: one that another covers is no change. Where that cannot be told
//! entry by entry it counts as looser.

use schema::config::agent::{Domain, Escalation, Unlisted};
use schema::diag::{Position, Spanned};
use schema::host::HostPattern;
use schema::inspection::Inspector;
use schema::organisation::values::NetworkBound;
use schema::organisation::{Grade, List, Organisation, SignatureRule};
use serde::Serialize;

use super::origin;
use crate::effective::Origin;
use crate::inspection::default_level;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Change {
    /// Whether more is allowed than before, or less required.
    pub looser: bool,
    pub grade: Grade,
    pub what: String,
    /// In the new document where it is there, else in the old one.
    pub origin: Origin,
}

/// What changed, the looser first and in either the weightier.
pub fn difference(old: &Organisation, new: &Organisation) -> Vec<Change> {
    let mut comparison = Comparison {
        old,
        new,
        out: Vec::new(),
    };
    comparison.network();
    comparison.ceilings();
    comparison.requirements();
    comparison.denials();
    let mut out = comparison.out;
    let order = |change: &Change| {
        (
            !change.looser,
            std::cmp::Reverse(change.grade),
            change.origin.clone(),
            change.what.clone(),
        )
    };
    out.sort_by_key(order);
    out.dedup();
    out
}

struct Comparison<'a> {
    old: &'a Organisation,
    new: &'a Organisation,
    out: Vec<Change>,
}

fn covers_domain(wide: &Domain, narrow: &Domain) -> bool {
    (wide.port.is_none() || wide.port == narrow.port)
        && wide.host.intersect(&narrow.host).as_ref() == Some(&narrow.host)
}

fn covers_network(wide: &NetworkBound, narrow: &NetworkBound) -> bool {
    (wide.port.is_none() || wide.port == narrow.port)
        && wide.cidr.prefix() <= narrow.cidr.prefix()
        && wide.cidr.contains(narrow.cidr.addr())
}

/// A pattern opens more than a name does.
fn grade_domain(domain: &Domain) -> Grade {
    match domain.host {
        HostPattern::Wildcard(_) => Grade::High,
        HostPattern::Exact(_) => Grade::Medium,
    }
}

fn same<T: PartialEq>(a: &T, b: &T) -> bool {
    a == b
}

fn medium<T>(_: &T) -> Grade {
    Grade::Medium
}

// === impl Comparison ===

impl Comparison<'_> {
    fn push(&mut self, looser: bool, grade: Grade, what: String, in_new: bool, at: Position) {
        let file = if in_new {
            &self.new.file
        } else {
            &self.old.file
        };
        self.out.push(Change {
            looser,
            grade,
            what,
            origin: origin(file, at),
        });
    }

    /// A list that allows what it names, and everything where it is absent.
    fn allows<T: std::fmt::Display>(
        &mut self,
        key: &str,
        old: Option<&List<T>>,
        new: Option<&List<T>>,
        covers: impl Fn(&T, &T) -> bool,
        grade: impl Fn(&T) -> Grade,
    ) {
        match (old, new) {
            (None, None) => {}
            (Some(old), None) => {
                let what = format!("`{key}` is not restricted any more");
                self.push(true, Grade::High, what, false, old.at);
            }
            (None, Some(new)) => {
                let what = format!("`{key}` is restricted, to {}", few(new));
                self.push(false, Grade::High, what, true, new.at);
            }
            (Some(old), Some(new)) => {
                for entry in beyond(new, old, &covers) {
                    let what = format!("`{key}` allows {}", entry.value);
                    self.push(true, grade(&entry.value), what, true, entry.at);
                }
                for entry in beyond(old, new, &covers) {
                    let what = format!("`{key}` does not allow {} any more", entry.value);
                    self.push(false, grade(&entry.value), what, false, entry.at);
                }
            }
        }
    }

    /// A list that denies what it names.
    fn denies<T: std::fmt::Display>(
        &mut self,
        key: &str,
        old: &[Spanned<T>],
        new: &[Spanned<T>],
        covers: impl Fn(&T, &T) -> bool,
    ) {
        self.closes(key, ["does not deny", "denies"], [old, new], covers);
    }

    /// A list that takes away what it names; the words for an entry that went, and for one that came.
    fn closes<T: std::fmt::Display>(
        &mut self,
        key: &str,
        [went, came]: [&str; 2],
        [old, new]: [&[Spanned<T>]; 2],
        covers: impl Fn(&T, &T) -> bool,
    ) {
        for entry in beyond(old, new, &covers) {
            let what = format!("`{key}` {went} {} any more", entry.value);
            self.push(true, Grade::High, what, false, entry.at);
        }
        for entry in beyond(new, old, &covers) {
            let what = format!("`{key}` {came} {}", entry.value);
            self.push(false, Grade::High, what, true, entry.at);
        }
    }

    /// A bound, where a greater one is looser if `greater` says so, and an absent one is the loosest.
    fn bound<T: PartialOrd>(
        &mut self,
        key: &str,
        grade: Grade,
        [old, new]: [Option<&Spanned<T>>; 2],
        greater: bool,
        shown: impl Fn(&T) -> String,
    ) {
        match (old, new) {
            (Some(old), None) => {
                let what = format!(
                    "`{key}` is not bounded any more, it was {}",
                    shown(&old.value)
                );
                self.push(true, grade, what, false, old.at);
            }
            (None, Some(new)) => {
                let what = format!("`{key}` is {}", shown(&new.value));
                self.push(false, grade, what, true, new.at);
            }
            (Some(old), Some(new)) if old.value != new.value => {
                let looser = (new.value > old.value) == greater;
                let what = format!(
                    "`{key}` is {}, it was {}",
                    shown(&new.value),
                    shown(&old.value)
                );
                self.push(looser, grade, what, true, new.at);
            }
            _ => {}
        }
    }

    fn network(&mut self) {
        let (old, new) = (&self.old.ceilings.network, &self.new.ceilings.network);
        let key = |key| format!("ceilings.network.{key}");
        self.allows(
            &key("allowedDomains"),
            old.allowed_domains.as_ref(),
            new.allowed_domains.as_ref(),
            covers_domain,
            grade_domain,
        );
        self.allows(
            &key("ports"),
            old.ports.as_ref(),
            new.ports.as_ref(),
            same,
            medium,
        );
        self.allows(
            &key("protocols"),
            old.protocols.as_ref(),
            new.protocols.as_ref(),
            same,
            medium,
        );
        self.allows(
            &key("networks"),
            old.networks.as_ref(),
            new.networks.as_ref(),
            covers_network,
            medium,
        );
        // What is absent may be asked about.
        let asked = |mode: &Option<Spanned<Unlisted>>| {
            let deny = mode.as_ref().filter(|mode| mode.value == Unlisted::Deny);
            deny.map(|mode| Spanned::new(0, mode.at))
        };
        let modes = [asked(&old.unlisted), asked(&new.unlisted)];
        self.bound(
            &key("unlisted"),
            Grade::High,
            modes.each_ref().map(Option::as_ref),
            true,
            |_| "\"deny\"".to_owned(),
        );
    }

    fn ceilings(&mut self) {
        let (old, new) = (&self.old.ceilings, &self.new.ceilings);
        let lists = [(
            "ceilings.filesystem.writablePaths",
            &old.filesystem.writable_paths,
            &new.filesystem.writable_paths,
        )];
        for (key, old, new) in lists {
            self.allows(key, old.as_ref(), new.as_ref(), same, medium);
        }
        fn entries<T>(list: &Option<List<T>>) -> &[Spanned<T>] {
            list.as_ref().map_or(&[], |list| &list.value)
        }
        let trees = [
            entries(&old.filesystem.read_only_paths),
            entries(&new.filesystem.read_only_paths),
        ];
        self.closes(
            "ceilings.filesystem.readOnlyPaths",
            ["does not hold", "holds"],
            trees,
            same,
        );
        self.allows(
            "ceilings.tools.allowedBinaries",
            old.tools.allowed_binaries.as_ref(),
            new.tools.allowed_binaries.as_ref(),
            same,
            medium,
        );
        self.allows(
            "ceilings.capabilities",
            old.capabilities.as_ref(),
            new.capabilities.as_ref(),
            same,
            medium,
        );
        self.credentials();
        let within = |wide: &schema::organisation::values::SourcePattern, narrow: &_| {
            schema::organisation::values::SourcePattern::is_within(narrow, wide)
        };
        self.allows(
            "ceilings.secretSources",
            old.secret_sources.as_ref(),
            new.secret_sources.as_ref(),
            within,
            medium,
        );
        self.allows(
            "ceilings.hostVariables",
            old.host_variables.as_ref(),
            new.host_variables.as_ref(),
            same,
            medium,
        );
        self.allows(
            "ceilings.mounts",
            old.mounts.as_ref(),
            new.mounts.as_ref(),
            same,
            medium,
        );
        self.allows(
            "ceilings.engines",
            old.engines.as_ref(),
            new.engines.as_ref(),
            same,
            medium,
        );
        let within = |wide: &schema::organisation::values::ImagePattern, narrow: &_| {
            schema::organisation::values::ImagePattern::is_within(narrow, wide)
        };
        self.allows(
            "ceilings.images",
            old.images.as_ref(),
            new.images.as_ref(),
            within,
            medium,
        );
        self.allows(
            "ceilings.features",
            old.features.as_ref(),
            new.features.as_ref(),
            within,
            medium,
        );
        let (a, b) = (&old.resources, &new.resources);
        let memory = [a.memory.as_ref(), b.memory.as_ref()];
        self.bound("ceilings.resources.memory", Grade::Low, memory, true, |v| {
            format!("{v} bytes")
        });
        let cpus = [a.cpus.as_ref(), b.cpus.as_ref()];
        self.bound(
            "ceilings.resources.cpus",
            Grade::Low,
            cpus,
            true,
            ToString::to_string,
        );
        let pids = [a.pids.as_ref(), b.pids.as_ref()];
        self.bound(
            "ceilings.resources.pids",
            Grade::Low,
            pids,
            true,
            ToString::to_string,
        );
        for inspector in Inspector::ALL {
            // Below the default a floor holds nobody up.
            let floor = |inspection: &schema::config::agent::Inspection| {
                let level = inspection.of(inspector)?.clone();
                (level.value > schema::inspection::Level::Off).then_some(level)
            };
            let levels = [floor(&old.inspection), floor(&new.inspection)];
            let key = format!("ceilings.inspection.{}", inspector.as_str());
            let levels = levels.each_ref().map(Option::as_ref);
            let usual = default_level(inspector);
            self.bound(&key, Grade::High, levels, false, |level| {
                format!("\"{}\" (by default \"{}\")", level.as_str(), usual.as_str())
            });
        }
        let asked = |mode: &Option<Spanned<Escalation>>| {
            let deny = mode.as_ref().filter(|mode| mode.value == Escalation::Deny);
            deny.map(|mode| Spanned::new(0, mode.at))
        };
        let modes = [asked(&old.escalation), asked(&new.escalation)];
        let modes = modes.each_ref().map(Option::as_ref);
        self.bound("ceilings.escalation", Grade::High, modes, true, |_| {
            "\"deny\"".to_owned()
        });
    }

    fn credentials(&mut self) {
        let key = "ceilings.credentials";
        let names = |document: &Organisation| {
            let all = document.ceilings.credentials.as_ref()?;
            let names = all
                .iter()
                .map(|(name, one)| Spanned::new(name.clone(), one.at));
            Some(Spanned::new(names.collect::<Vec<_>>(), all.at))
        };
        let (old, new) = (names(self.old), names(self.new));
        self.allows(key, old.as_ref(), new.as_ref(), same, medium);
        let (Some(old), Some(new)) = (
            &self.old.ceilings.credentials,
            &self.new.ceilings.credentials,
        ) else {
            return;
        };
        for (name, new) in &new.value {
            let Some(old) = old.get(name.as_str()) else {
                continue;
            };
            // Without a port, 443 is meant here.
            let covers = |wide: &Domain, narrow: &Domain| {
                wide.https_port() == narrow.https_port()
                    && wide.host.intersect(&narrow.host).as_ref() == Some(&narrow.host)
            };
            let hosts = format!("{key}.{name}.hosts");
            self.allows(
                &hosts,
                old.hosts.as_ref(),
                new.hosts.as_ref(),
                covers,
                grade_domain,
            );
            let within = |wide: &schema::organisation::values::SourcePattern, narrow: &_| {
                schema::organisation::values::SourcePattern::is_within(narrow, wide)
            };
            let sources = format!("{key}.{name}.sources");
            self.allows(
                &sources,
                old.sources.as_ref(),
                new.sources.as_ref(),
                within,
                medium,
            );
        }
    }

    fn requirements(&mut self) {
        let (old, new) = (&self.old.requirements, &self.new.requirements);
        for rule in &old.signatures {
            if !new.signatures.iter().any(|other| as_strict(other, rule)) {
                let what = format!(
                    "signatures of {} are not required as they were",
                    few(&rule.references)
                );
                self.push(true, Grade::High, what, false, rule.at);
            }
        }
        for rule in &new.signatures {
            if !old.signatures.iter().any(|other| as_strict(other, rule)) {
                let what = format!(
                    "signatures of {} are required by a new rule",
                    few(&rule.references)
                );
                self.push(false, Grade::High, what, true, rule.at);
            }
        }
        let levels = [old.slsa_level.as_ref(), new.slsa_level.as_ref()];
        self.bound(
            "requirements.slsaLevel",
            Grade::High,
            levels,
            false,
            ToString::to_string,
        );
        let is_set = |sbom: &Option<Spanned<bool>>| {
            let set = sbom.as_ref().filter(|sbom| sbom.value);
            set.map(|sbom| Spanned::new(true, sbom.at))
        };
        let sboms = [is_set(&old.sbom), is_set(&new.sbom)];
        let sboms = sboms.each_ref().map(Option::as_ref);
        self.bound(
            "requirements.sbom",
            Grade::High,
            sboms,
            false,
            ToString::to_string,
        );
        for (from, to, looser) in [(old, new, true), (new, old, false)] {
            for banned in &from.banned_packages {
                let same = |other: &Spanned<schema::organisation::BannedPackage>| {
                    (&other.kind, &other.name, &other.versions)
                        == (&banned.kind, &banned.name, &banned.versions)
                };
                if !to.banned_packages.iter().any(same) {
                    let package = format!("{} {} {}", banned.kind, banned.name, banned.versions);
                    let what = match looser {
                        true => format!("{package} is not banned any more"),
                        false => format!("{package} is banned"),
                    };
                    self.push(looser, Grade::High, what, !looser, banned.at);
                }
            }
        }
        self.allows(
            "requirements.registries",
            old.registries.as_ref(),
            new.registries.as_ref(),
            same,
            |_| Grade::High,
        );
        let ages = [old.lock_age.as_ref(), new.lock_age.as_ref()];
        self.bound(
            "requirements.lockAge",
            Grade::Low,
            ages,
            true,
            ToString::to_string,
        );
        let asks = [old.drift.ask.as_ref(), new.drift.ask.as_ref()];
        self.bound(
            "requirements.drift.ask",
            Grade::Medium,
            asks,
            true,
            ToString::to_string,
        );
        let refuses = [old.drift.refuse.as_ref(), new.drift.refuse.as_ref()];
        self.bound(
            "requirements.drift.refuse",
            Grade::Medium,
            refuses,
            true,
            ToString::to_string,
        );
    }

    fn denials(&mut self) {
        let (old, new) = (&self.old.denials, &self.new.denials);
        self.denies("denials.domains", &old.domains, &new.domains, covers_domain);
        self.denies(
            "denials.networks",
            &old.networks,
            &new.networks,
            covers_network,
        );
        self.denies("denials.paths", &old.paths, &new.paths, same);
        self.denies("denials.binaries", &old.binaries, &new.binaries, same);
        self.denies(
            "denials.credentials",
            &old.credentials,
            &new.credentials,
            same,
        );
        self.denies(
            "denials.secretSources",
            &old.secret_sources,
            &new.secret_sources,
            |w, n| n.is_within(w),
        );
        self.denies("denials.images", &old.images, &new.images, |w, n| {
            n.is_within(w)
        });
    }
}

/// Entries of one list that no entry of the other covers.
fn beyond<'l, T>(
    list: &'l [Spanned<T>],
    other: &'l [Spanned<T>],
    covers: &impl Fn(&T, &T) -> bool,
) -> Vec<&'l Spanned<T>> {
    let covered = |entry: &&Spanned<T>| !other.iter().any(|wide| covers(&wide.value, &entry.value));
    list.iter().filter(covered).collect()
}

/// Whether a rule asks for at least what another one asks for.
fn as_strict(rule: &SignatureRule, than: &SignatureRule) -> bool {
    let named = |reference: &Spanned<schema::organisation::values::ImagePattern>| {
        rule.references
            .iter()
            .any(|wide| reference.is_within(&wide.value))
    };
    than.references.iter().all(named)
        && rule
            .identities
            .iter()
            .all(|own| than.identities.contains(own))
        && rule.keys.iter().all(|own| than.keys.contains(own))
        && (rule.needs_log() || !than.needs_log())
}

fn few<T: std::fmt::Display>(list: &[Spanned<T>]) -> String {
    super::few(list.iter().map(|entry| entry.value.to_string()))
}

#[cfg(test)]
mod tests;
