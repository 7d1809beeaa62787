//! What is done about what each inspector finds: what the workspace asks for, never less than the host does. Where nobody says
//! anything, the defaults below hold. How often they are wrong is not measured yet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use schema::config::Config;
use schema::hostconfig::HostConfig;
use schema::inspection::{Inspector, Level};
use schema::organisation::Organisation;
use serde::{Deserialize, Serialize};

use crate::effective::Origin;

/// The levels of one policy. What is not in it is as by default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Inspection(BTreeMap<Inspector, Inspected>);

/// What somebody said about one inspector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inspected {
    pub level: Level,
    pub origin: Origin,
}

/// Where nobody says anything.
pub const fn default_level(inspector: Inspector) -> Level {
    match inspector {
        Inspector::Secrets | Inspector::Base64 => Level::Block,
        Inspector::ContentType => Level::Flag,
        Inspector::Entropy => Level::Off,
    }
}

impl Inspection {
    /// The workspace's levels, none below the host's.
    pub fn of(config: &Config, host: &HostConfig) -> Self {
        let level = |inspector| {
            let asked = config
                .agent
                .inspection
                .of(inspector)
                .map(|level| Inspected {
                    level: level.value,
                    origin: Origin {
                        file: config.file.clone(),
                        line: level.at.line,
                        column: level.at.column,
                    },
                });
            let floor = host.inspection.get(&inspector).map(|setting| Inspected {
                level: setting.value,
                origin: Origin {
                    file: setting.file.clone(),
                    line: setting.at.line,
                    column: setting.at.column,
                },
            });
            let said = match (asked, floor) {
                (Some(asked), Some(floor)) if asked.level < floor.level => Some(floor),
                (asked, floor) => asked.or(floor),
            };
            Some((inspector, said?))
        };
        Self(Inspector::ALL.into_iter().filter_map(level).collect())
    }

    /// The same with no level below what any of the documents asks for; of several that ask for the same, the one whose place comes
    /// first is named.
    #[must_use]
    pub fn raised(mut self, documents: &[Organisation]) -> Self {
        for inspector in Inspector::ALL {
            let floor = |document: &Organisation| {
                let floor = document.ceilings.inspection.of(inspector)?;
                let origin = Origin {
                    file: document.file.clone(),
                    line: floor.at.line,
                    column: floor.at.column,
                };
                let level = floor.value;
                Some(Inspected { level, origin })
            };
            let floors = documents.iter().filter_map(floor);
            let highest = floors.min_by_key(|said| (Reverse(said.level), said.origin.clone()));
            if let Some(floor) = highest
                && floor.level > self.level(inspector)
            {
                self.0.insert(inspector, floor);
            }
        }
        self
    }

    pub fn level(&self, inspector: Inspector) -> Level {
        self.0
            .get(&inspector)
            .map_or(default_level(inspector), |said| said.level)
    }

    /// Where it was said; `None` where it is as by default.
    pub fn origin(&self, inspector: Inspector) -> Option<&Origin> {
        self.0.get(&inspector).map(|said| &said.origin)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether more is asked for anywhere than there.
    pub fn is_stricter_than(&self, other: &Self) -> bool {
        let mut all = Inspector::ALL.into_iter();
        all.any(|inspector| self.level(inspector) > other.level(inspector))
    }

    /// Those that are not as by default.
    pub fn unusual(&self) -> impl Iterator<Item = (Inspector, Level)> {
        let all = Inspector::ALL.into_iter();
        all.map(|inspector| (inspector, self.level(inspector)))
            .filter(|(inspector, level)| *level != default_level(*inspector))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Review;

    fn config(inspection: &str) -> Config {
        let text = format!(
            "{{ \"image\": \"debian\",\n\"agent\": {{ \"inspection\": {{ {inspection} }} }} }}"
        );
        schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap()
    }

    fn merged(inspection: &str, host: &str) -> Inspection {
        let host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
        Inspection::of(&config(inspection), &host)
    }

    #[test]
    fn a_workspace_asks_for_more_than_the_host_and_never_for_less() {
        use Inspector::{Base64, ContentType, Entropy, Secrets};
        let none = merged("", "");
        assert!(none.is_empty() && none.unusual().next().is_none());
        assert_eq!(none.level(Secrets), Level::Block);
        let host = "[inspection]\nsecrets = \"flag\"\nentropy = \"flag\"\ncontent_type = \"block\"";
        let policy = merged(
            r#""secrets": "off", "entropy": "block", "base64": "off""#,
            host,
        );
        let said: Vec<_> = Inspector::ALL
            .map(|inspector| {
                let origin = policy.origin(inspector).map(ToString::to_string);
                (policy.level(inspector), origin.unwrap_or_default())
            })
            .to_vec();
        let at = |level, place: &str| (level, place.to_owned());
        assert_eq!(
            said,
            [
                at(Level::Flag, "config.toml:2:11"),
                at(Level::Block, "agentcontainer.json:2:57"),
                at(Level::Block, "config.toml:4:16"),
                at(Level::Off, "agentcontainer.json:2:76"),
            ]
        );
        assert_eq!(policy.unusual().count(), 4);
        assert!(policy.is_stricter_than(&none) && none.is_stricter_than(&policy));
        assert!(!none.is_stricter_than(&none));
        assert_eq!(none.level(Entropy), default_level(Entropy));
        assert_eq!(none.level(Base64), default_level(Base64));
        assert_eq!(none.level(ContentType), default_level(ContentType));
    }

    #[test]
    fn a_review_shows_what_is_lowered_and_asks_for_nothing_where_it_is_raised() {
        let review = |inspection: &str| Review::of(&config(inspection));
        let (none, flag, off) = (
            review(""),
            review(r#""secrets": "flag""#),
            review(r#""secrets": "off""#),
        );
        assert_eq!(
            flag.since(&none).more,
            ["+ carry what inspector secrets finds, which is otherwise refused"]
        );
        assert_eq!(off.since(&none).more.len(), 2);
        assert_eq!(off.since(&flag).more, ["+ no inspector secrets"]);
        for (less, more) in [(&flag, &off), (&none, &off), (&none, &flag)] {
            assert!(!less.since(more).asks_for_more());
        }
        let raised = review(r#""entropy": "block""#);
        assert!(!raised.since(&none).asks_for_more());
        assert_eq!(
            none.since(&raised).more,
            [
                "- inspector entropy at least records",
                "- inspector entropy refuses"
            ]
        );
    }
}
