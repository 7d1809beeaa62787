//! A workspace under the policies of organisations: the host's, and those it puts above itself. What it asks for beyond a ceiling is
//! an error that names both places, so that nobody wonders later why something is refused; of modes the stricter one holds, and
//! is said. Called before anything is started, with documents that were verified.

mod asked;
mod demands;
pub mod difference;
mod files;
mod limits;
mod requirements;

use std::collections::BTreeSet;

use schema::config::Config;
use schema::config::agent::{Escalation, Unlisted};
use schema::diag::{Diagnostic, Place, Position, Spanned};
use schema::feature::Demands;
use schema::hostconfig::HostConfig;
use schema::image::ImageRef;
use schema::organisation::values::ImagePattern;
use schema::organisation::{EngineKind, Organisation};

use crate::ceiling::Ceiling;
use crate::effective::{EffectivePolicy, Origin};
use crate::merge;

pub use limits::Limits;
pub use requirements::{Requirements, Said};

/// Most problems that are shown; a last one says how many more there are.
pub const MAX_DIAGNOSTICS: usize = 50;

/// What a workspace may do here, and what has to hold of what it runs.
#[derive(Clone, Debug)]
pub struct Held {
    pub policy: EffectivePolicy,
    pub requirements: Requirements,
    /// The limits of the container: the workspace's, or the ceiling where it names none.
    pub limits: Limits,
    /// What a person should know: modes that are stricter than was asked for, and what falls away of an entry.
    pub remarks: Vec<String>,
}

/// What a reference is fetched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    Image,
    Feature,
    /// A tool, a component, a skill.
    Other,
}

/// The policy of a workspace on this host under these documents, which are the host's and the workspace's own in any order.
///
/// # Errors
/// Everything that is asked for and cannot be had, with the place that asks and the one that does not allow it.
pub fn hold(
    config: &Config,
    host: &HostConfig,
    documents: &[Organisation],
) -> Result<Held, Vec<Diagnostic>> {
    let mut found = Found::default();
    let ceilings: Vec<Ceiling> = documents.iter().map(Ceiling::of).collect();
    for document in documents {
        files::asked(config, document, &mut found);
        asked::of_config(config, host, document, &mut found);
    }
    asked::network(config, &ceilings, &mut found);
    if !found.is_empty() {
        return Err(found.finish());
    }
    let modes = modes(config, documents, &mut found);
    let mut policy = merge::effective_under(config, host, ceilings, &modes)?;
    for document in documents {
        asked::credentials(&policy, host, document, &mut found);
        asked::secrets(&policy, host, document, &mut found);
    }
    policy.inspection = policy.inspection.raised(documents);
    let files = files::files(policy.files.clone(), documents).on(host);
    let programs = files::programs(policy.programs.clone(), documents, &mut found);
    let policy = policy
        .with_files(files)
        .and_then(|policy| policy.with_programs(programs))
        .map_err(|error| vec![Diagnostic::new("policy", error.to_string())])?;
    remark_on_inspection(config, &policy, &mut found);
    let limits = Limits::of(config, documents);
    let remarks = std::mem::take(&mut found.remarks);
    if !found.is_empty() {
        return Err(found.finish());
    }
    Ok(Held {
        policy,
        requirements: Requirements::of(config, documents),
        limits,
        remarks: remarks.into_iter().collect(),
    })
}

/// Whether a reference may be fetched: for what becomes known after [`hold`], with what it is from.
pub fn check_reference(
    documents: &[Organisation],
    what: Fetched,
    reference: &ImageRef,
    place: &Place,
) -> Vec<Diagnostic> {
    let mut found = Found::default();
    for document in documents {
        asked::reference(document, what, reference, place, &mut found);
    }
    found.finish()
}

/// Whether the container may be made as a feature demands.
pub fn check_demands(
    documents: &[Organisation],
    demands: &Demands,
    place: &Place,
) -> Vec<Diagnostic> {
    demands::check(documents, demands, place)
}

/// Whether variables of this host may come inside: for what a person names at a command, and no config does.
pub fn check_host_variables<'n>(
    documents: &[Organisation],
    names: impl IntoIterator<Item = &'n str>,
    place: &Place,
) -> Vec<Diagnostic> {
    let mut found = Found::default();
    for name in names {
        for document in documents {
            asked::host_variable(document, name, "", place, &mut found);
        }
    }
    found.finish()
}

/// The variables of this host that every document lets come inside; `None` where none of them restricts any.
pub fn host_variables(documents: &[Organisation]) -> Option<BTreeSet<String>> {
    let lists = documents
        .iter()
        .filter_map(|document| document.ceilings.host_variables.as_ref());
    let sets = lists.map(|list| list.iter().map(|own| own.value.to_string()).collect());
    sets.reduce(|left: BTreeSet<String>, right| left.intersection(&right).cloned().collect())
}

/// Whether sessions may run on an engine, once it is known which one it is.
pub fn check_engine(documents: &[Organisation], engine: EngineKind) -> Vec<Diagnostic> {
    let mut found = Found::default();
    for document in documents {
        let place = Place::Object(format!("engine {engine}"));
        asked::engine(document, engine, &place, &mut found);
    }
    found.finish()
}

/// What the stricter of all modes are, and who says so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modes {
    /// Nobody is asked at all.
    pub unasked: Option<Origin>,
    /// Nobody is asked about what nothing lists.
    pub listed_only: Option<Origin>,
}

fn modes(config: &Config, documents: &[Organisation], found: &mut Found) -> Modes {
    let mut modes = Modes::default();
    let stricter = |mode: &mut Option<Origin>, origin: Origin| {
        let first = mode
            .take()
            .map_or(origin.clone(), |before| before.min(origin));
        *mode = Some(first);
    };
    for document in documents {
        let ceilings = &document.ceilings;
        if let Some(mode) = &ceilings.escalation
            && mode.value == Escalation::Deny
        {
            stricter(&mut modes.unasked, origin(&document.file, mode.at));
        }
        if let Some(mode) = &ceilings.network.unlisted
            && mode.value == Unlisted::Deny
        {
            stricter(&mut modes.listed_only, origin(&document.file, mode.at));
        }
    }
    let egress = config.agent.egress();
    if let (Some(ceiling), Some(asked)) = (&modes.listed_only, &egress.unlisted)
        && asked.value == Unlisted::Ask
    {
        found.remark(format!(
            "`unlisted` at {} is held to \"deny\" by {ceiling}: nobody is asked about names that nothing lists",
            origin(&config.file, asked.at)
        ));
    }
    let asks = |rule: &&Spanned<schema::config::agent::Rule>| {
        rule.action == schema::config::agent::Action::Ask
    };
    if let (Some(ceiling), Some(rule)) = (&modes.unasked, egress.rules.iter().find(asks)) {
        found.remark(format!(
            "`escalation` is held to \"deny\" by {ceiling}: what the rule at {} asks about is denied",
            origin(&config.file, rule.at)
        ));
    }
    let programs = config.agent.programs().require_approval.as_ref();
    if let (Some(ceiling), Some(asked)) = (&modes.unasked, programs.filter(|asked| asked.value)) {
        found.remark(format!(
            "`escalation` is held to \"deny\" by {ceiling}: what `requireApproval` at {} asks about is denied",
            origin(&config.file, asked.at)
        ));
    }
    modes
}

fn remark_on_inspection(config: &Config, policy: &EffectivePolicy, found: &mut Found) {
    for inspector in schema::inspection::Inspector::ALL {
        let Some(asked) = config.agent.inspection.of(inspector) else {
            continue;
        };
        let level = policy.inspection.level(inspector);
        if let Some(by) = policy.inspection.origin(inspector)
            && level > asked.value
        {
            found.remark(format!(
                "inspector {} at {} is held to \"{}\" by {by}",
                inspector.as_str(),
                origin(&config.file, asked.at),
                level.as_str()
            ));
        }
    }
}

fn origin(file: &str, at: Position) -> Origin {
    Origin {
        file: file.to_owned(),
        line: at.line,
        column: at.column,
    }
}

/// Where an origin is, for a diagnostic.
fn place(origin: &Origin) -> Place {
    match origin.line {
        0 => Place::Object(origin.file.clone()),
        line => Place::File {
            file: origin.file.clone(),
            position: Some(Position {
                line,
                column: origin.column,
            }),
        },
    }
}

/// Which patterns of images a list has, for messages.
fn shown(patterns: &[Spanned<ImagePattern>]) -> String {
    few(patterns.iter().map(|pattern| pattern.value.to_string()))
}

/// The first few of a list, in words.
fn few(all: impl IntoIterator<Item = String>) -> String {
    const FEW: usize = 8;
    let all: Vec<String> = all.into_iter().collect();
    match all.len() {
        0 => "nothing".to_owned(),
        n if n > FEW => format!("{} and {} more", all[..FEW].join(", "), n - FEW),
        _ => all.join(", "),
    }
}

/// Problems and remarks, in no order that depends on the order of documents.
#[derive(Debug, Default)]
struct Found {
    problems: Vec<Diagnostic>,
    remarks: BTreeSet<String>,
}

// === impl Found ===

impl Found {
    fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    fn push(&mut self, place: &Place, diagnostic: Diagnostic) {
        let diagnostic = Diagnostic {
            place: Some(place.clone()),
            ..diagnostic
        };
        if !self.problems.contains(&diagnostic) {
            self.problems.push(diagnostic);
        }
    }

    /// Something that one entry of a document does not allow.
    fn beyond(
        &mut self,
        place: &Place,
        what: &str,
        document: &Organisation,
        key: &str,
        at: Position,
        allowed: &str,
    ) {
        let by = origin(&document.file, at);
        let message = format!(
            "{what} is beyond the policy of {}: `{key}` at {by} allows {allowed}",
            document.organisation.value
        );
        self.push(place, Diagnostic::new("beyond-ceiling", message));
    }

    /// Something that one entry of a document denies.
    fn denied(
        &mut self,
        place: &Place,
        what: &str,
        document: &Organisation,
        key: &str,
        at: Position,
    ) {
        let by = origin(&document.file, at);
        let message = format!(
            "{what} is denied by the policy of {}: `{key}` at {by}",
            document.organisation.value
        );
        self.push(place, Diagnostic::new("organisation-denies", message));
    }

    fn remark(&mut self, words: String) {
        self.remarks.insert(words);
    }

    fn finish(mut self) -> Vec<Diagnostic> {
        let at = |diagnostic: &Diagnostic| match &diagnostic.place {
            Some(Place::File { file, position }) => (file.clone(), *position),
            Some(Place::Object(object)) => (object.clone(), None),
            None => (String::new(), None),
        };
        self.problems
            .sort_by(|a, b| (at(a), &a.message).cmp(&(at(b), &b.message)));
        let more = self.problems.len().saturating_sub(MAX_DIAGNOSTICS);
        if more > 0 {
            self.problems.truncate(MAX_DIAGNOSTICS);
            self.problems.push(Diagnostic::new(
                "more",
                format!("{more} more problems are not shown"),
            ));
        }
        self.problems
    }
}

#[cfg(test)]
pub(crate) mod properties;
#[cfg(test)]
mod tests;
