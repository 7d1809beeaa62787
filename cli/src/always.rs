//! The change of a config by which what waits for a person would not have waited: the rule that asks comes to allow, or, where
//! nothing lists the name or the program, an entry does. Nothing else of the file changes, and a person makes the change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api::v1;
use policy::suggest::{List, Programs, Suggestion};
use policy::{Action, EffectivePolicy, Origin, ProgramRight, ProgramRule, text};
use schema::config::discover::Flavour;
use schema::jsonc::MAX_FILE_BYTES;
use serde_json::Value;

use crate::loaded::Loaded;
use crate::patch::{self, Target};
use crate::places::Places;
use crate::record::Record;
use crate::{question, report::Failure};

/// A change that can be shown and made.
pub struct Always {
    file: String,
    allows: String,
    target: Target,
    after: String,
}

impl Always {
    /// # Errors
    /// The config is another session's, or is not what the session was started with, or says it in another way.
    pub fn of(
        question: &v1::Question,
        places: &Places,
        explicit: Option<&Path>,
    ) -> Result<Self, Failure> {
        let path = match explicit {
            Some(path) => crate::commands::absolute(path)?,
            None => of_session(question, places)?,
        };
        let loaded = Loaded::read(Some(&path))?;
        let file = loaded.config.file.clone();
        let cannot = |why: &str| {
            Failure::new("config-patch", format!("{file} cannot be changed: {why}"))
                .help("change it by hand")
        };
        let target = Target::open(&path, MAX_FILE_BYTES)?;
        let flavour = Flavour::of(&file);
        let (after, allows, expected) = if !question.program.is_empty() {
            let program = &question.program;
            let after = patch::list_program(&target.text, flavour, program);
            let rule = ProgramRule {
                name: program.parse().map_err(|_| cannot("its path is none"))?,
                origin: Origin {
                    file: file.clone(),
                    line: 0,
                    column: 0,
                },
                organisation: None,
            };
            let added = text::program(ProgramRight::Allowed, &rule);
            (after, question::scope(question), [added, String::new()])
        } else if question.rule == text::UNLISTED {
            let place = format!("{}:{}", question.host, question.port);
            let entry = Suggestion {
                list: List::AllowedDomains,
                entry: Value::String(place.clone()),
                programs: Programs::new(),
            };
            let after = patch::add(&target.text, flavour, &[entry]);
            let added = format!("allowedDomains \"{place}\"");
            (
                after,
                format!("everything at {place}"),
                [added, String::new()],
            )
        } else {
            let (index, allowing) = rule(&loaded, question)
                .ok_or_else(|| cannot("the rule that asks is not in it any more"))?;
            let after = patch::allow(&target.text, flavour, index);
            let allows = format!("everything that this is about: {allowing}");
            (after, allows, [allowing, question.rule.clone()])
        };
        let after = after.ok_or_else(|| cannot("it says this in another way"))?;
        let policy_of = |text: &str| {
            let config = schema::config::parse(text.as_bytes(), &file)?;
            loaded.held(&config)
        };
        let (before, then) = (policy_of(&target.text)?, policy_of(&after)?);
        if before.to_json() != loaded.policy.to_json() {
            return Err(cannot("it was changed meanwhile"));
        }
        let changes = policy::difference::difference(&before, &then);
        let changes = changes.into_iter().map(|change| change.rule);
        let changes: BTreeSet<String> = changes.chain(others(&before, &then)).collect();
        if changes.is_empty() || changes.iter().any(|change| !expected.contains(change)) {
            return Err(cannot("more than that would change"));
        }
        Ok(Self {
            file,
            allows,
            target,
            after,
        })
    }

    /// What goes and what comes.
    pub fn lines(&self) -> Vec<String> {
        patch::difference(&self.target.text, &self.after)
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    /// All that is allowed then.
    pub fn allows(&self) -> &str {
        &self.allows
    }

    /// Makes it.
    pub fn write(self) -> Result<Written, Failure> {
        let written = Written {
            path: self.target.path().to_owned(),
            before: self.target.text.clone(),
            after: self.after,
        };
        self.target.replace(&written.after)?;
        Ok(written)
    }
}

/// A change that was made.
#[derive(Debug)]
pub struct Written {
    path: PathBuf,
    before: String,
    after: String,
}

impl Written {
    /// What was there before it, unless somebody changed it since.
    pub fn take_back(self) -> Result<(), Failure> {
        let target = Target::open(&self.path, MAX_FILE_BYTES)?;
        if target.text != self.after {
            let what = format!("{} was changed meanwhile", self.path.display());
            return Err(Failure::new("config-changed", what));
        }
        target.replace(&self.before)
    }
}

/// Rules about files and programs that only one of the two has.
fn others(before: &EffectivePolicy, then: &EffectivePolicy) -> Vec<String> {
    let all = |policy: &EffectivePolicy| -> BTreeSet<String> {
        let files = policy.files.all();
        let files = files.map(|(right, rule)| text::file(right, rule));
        let programs = policy.programs.all();
        let programs = programs.map(|(right, rule)| text::program(right, rule));
        let asked = policy.programs.require_approval.iter();
        let asked = asked.map(|_| text::PROGRAMS_ASKED.to_owned());
        files.chain(programs).chain(asked).collect()
    };
    let (before, then) = (all(before), all(then));
    before.symmetric_difference(&then).cloned().collect()
}

fn of_session(question: &v1::Question, places: &Places) -> Result<std::path::PathBuf, Failure> {
    let record = Record::load(&places.session(&question.session)).ok_or_else(|| {
        Failure::new(
            "no-session",
            "nothing is remembered of the session that asks",
        )
        .help("name the config with --config")
    })?;
    if record.workspace != crate::loaded::workspace()? {
        return Err(Failure::new(
            "other-workspace",
            format!(
                "the session {} is one of {}",
                record.shown(),
                record.workspace.display()
            ),
        )
        .help("answer in that directory, or name the config with --config"));
    }
    Ok(record.workspace.join(&record.config))
}

/// Where in the list the rule is that asks, and what it would be if it allowed.
fn rule(loaded: &Loaded, question: &v1::Question) -> Option<(usize, String)> {
    let rules = &loaded.config.agent.egress().rules;
    let index = rules.iter().position(|rule| {
        let origin = Origin {
            file: loaded.config.file.clone(),
            line: rule.at.line,
            column: rule.at.column,
        };
        origin.to_string() == question.origin
    })?;
    let mut layers = loaded.policy.network.layers().iter();
    let mut rule = layers
        .find_map(|layer| {
            let mut rules = layer.rules.iter();
            rules.find(|rule| {
                rule.origin.to_string() == question.origin && text::rule(rule) == question.rule
            })
        })?
        .clone();
    rule.action = Action::Allow;
    Some((index, text::rule(&rule)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_was_written_is_taken_back_unless_somebody_changed_it_since() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().canonicalize().unwrap().join("config");
        let written = || {
            std::fs::write(&path, "before").unwrap();
            let change = Always {
                file: "config".into(),
                allows: String::new(),
                target: Target::open(&path, MAX_FILE_BYTES).unwrap(),
                after: "after".into(),
            };
            change.write().unwrap()
        };
        let read = || std::fs::read_to_string(&path).unwrap();
        let change = written();
        assert_eq!(read(), "after");
        change.take_back().unwrap();
        assert_eq!(read(), "before");
        let change = written();
        std::fs::write(&path, "somebody's").unwrap();
        assert!(change.take_back().is_err());
        assert_eq!(read(), "somebody's");
    }
}
