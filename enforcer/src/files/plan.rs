//! Which mounts carry what was found, and in which order. A mount can be renamed by nobody, but a directory above it can: so every
//! directory from the root down to a rule's place is a mount too, unless it lies in a tree that is read-only anyway.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use policy::FileRight;

use super::find::Found;
use super::{FilesError, shown, sys};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Rule(FileRight),
    /// A directory that stays where it is.
    Keep,
}

/// One mount. Paths are below the container's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub path: PathBuf,
    pub kind: Kind,
    /// Where the rule was written; empty for what is kept.
    pub origin: String,
    pub identity: sys::Identity,
    pub is_directory: bool,
    /// What is on it may be started, where that is held by mounts.
    pub listed: bool,
}

/// What is known of a directory on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub identity: sys::Identity,
    /// Something is mounted there already.
    pub is_mount: bool,
}

// === impl Step ===

impl Step {
    pub fn shown(&self) -> String {
        shown(&self.path)
    }
}

/// In the order in which they are mounted: what is above comes first. `root`: everything else will be read-only.
pub fn steps(
    found: Vec<Found>,
    root: bool,
    mut way: impl FnMut(&Path) -> Result<Way, FilesError>,
) -> Result<Vec<Step>, FilesError> {
    let rules = rules(found, root);
    let mut steps: BTreeMap<PathBuf, Step> = BTreeMap::new();
    for (path, _) in rules.iter().filter(|(_, found)| found.keep) {
        for above in path.ancestors().skip(1) {
            let is_root = above.as_os_str().is_empty();
            let fixed = right_at(&rules, above) == Some(FileRight::ReadOnly);
            if is_root || fixed || rules.contains_key(above) || steps.contains_key(above) {
                continue;
            }
            let there = way(above)?;
            if there.is_mount {
                continue;
            }
            let step = Step {
                path: above.to_owned(),
                kind: Kind::Keep,
                origin: String::new(),
                identity: there.identity,
                is_directory: true,
                listed: false,
            };
            steps.insert(above.to_owned(), step);
        }
    }
    for (path, found) in rules {
        let step = Step {
            kind: Kind::Rule(found.right),
            origin: found.origin,
            identity: found.identity,
            is_directory: found.is_directory,
            listed: found.listed,
            path: path.clone(),
        };
        steps.insert(path, step);
    }
    Ok(steps.into_values().collect())
}

/// One rule a path, and none that changes nothing: below what is denied, or writable in what is writable.
fn rules(found: Vec<Found>, root: bool) -> BTreeMap<PathBuf, Found> {
    let mut all: BTreeMap<PathBuf, Found> = BTreeMap::new();
    for mut one in found {
        match all.get_mut(&one.path) {
            Some(known) if strictness(one.right) <= strictness(known.right) => {
                known.keep |= one.keep;
                known.listed |= one.listed && known.right != FileRight::Denied;
            }
            known => {
                if let Some(known) = known {
                    one.keep |= known.keep;
                    one.listed |= known.listed && one.right != FileRight::Denied;
                }
                all.insert(one.path.clone(), one);
            }
        }
    }
    let mut kept: BTreeMap<PathBuf, Found> = BTreeMap::new();
    for (path, one) in all {
        let above = path.parent().and_then(|above| right_at(&kept, above));
        let needless = match above {
            Some(FileRight::Denied) => true,
            Some(right) => right == one.right && !one.listed,
            None => one.right == FileRight::Writable && !root,
        };
        if !needless {
            kept.insert(path, one);
        }
    }
    kept
}

fn strictness(right: FileRight) -> u8 {
    match right {
        FileRight::Writable => 0,
        FileRight::ReadOnly => 1,
        FileRight::Denied => 2,
    }
}

/// What the nearest rule at or above a path makes of it.
fn right_at(rules: &BTreeMap<PathBuf, Found>, path: &Path) -> Option<FileRight> {
    path.ancestors()
        .find_map(|above| rules.get(above))
        .map(|found| found.right)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn planned(rules: &[(&str, FileRight)], mounts: &[&str]) -> Vec<(String, Kind)> {
        let found = rules
            .iter()
            .map(|(path, right)| Found {
                path: path.into(),
                right: *right,
                origin: String::new(),
                identity: (0, 0, 0),
                is_directory: true,
                keep: true,
                listed: false,
            })
            .collect();
        steps(found, false, |path| {
            Ok(Way {
                identity: (0, 0, 0),
                is_mount: mounts.iter().any(|mount| path == Path::new(mount)),
            })
        })
        .unwrap()
        .into_iter()
        .map(|step| (step.path.display().to_string(), step.kind))
        .collect()
    }

    use FileRight::{Denied, ReadOnly, Writable};
    use Kind::{Keep, Rule};

    fn steps_are(rules: &[(&str, FileRight)], mounts: &[&str], expected: &[(&str, Kind)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(path, kind)| ((*path).to_owned(), *kind))
            .collect();
        assert_eq!(planned(rules, mounts), expected, "{rules:?}");
    }

    #[test]
    fn directories_above_a_rule_are_kept_unless_they_are_mounts() {
        steps_are(
            &[("w/p/a/b/.env", Denied)],
            &["w/p"],
            &[
                ("w", Keep),
                ("w/p/a", Keep),
                ("w/p/a/b", Keep),
                ("w/p/a/b/.env", Rule(Denied)),
            ],
        );
    }

    #[test]
    fn what_is_above_comes_first_and_is_kept_once() {
        steps_are(
            &[("w/a/z", Denied), ("w/a/b", ReadOnly), ("w/a-b", Denied)],
            &["w"],
            &[
                ("w/a", Keep),
                ("w/a/b", Rule(ReadOnly)),
                ("w/a/z", Rule(Denied)),
                ("w/a-b", Rule(Denied)),
            ],
        );
    }

    #[test]
    fn nothing_is_kept_in_what_is_read_only_but_in_what_is_writable_there() {
        steps_are(
            &[
                ("w", ReadOnly),
                ("w/a/cache", Writable),
                ("w/a/cache/x/y", Denied),
            ],
            &["w"],
            &[
                ("w", Rule(ReadOnly)),
                ("w/a/cache", Rule(Writable)),
                ("w/a/cache/x", Keep),
                ("w/a/cache/x/y", Rule(Denied)),
            ],
        );
    }

    #[test]
    fn what_may_be_started_has_a_mount_of_its_own_unless_it_is_denied() {
        let found = |path: &str, right, listed: bool| Found {
            path: path.into(),
            right,
            origin: String::new(),
            identity: (0, 0, 0),
            is_directory: false,
            keep: !listed,
            listed,
        };
        let listed = [
            found("usr", ReadOnly, false),
            found("usr/bin/sh", ReadOnly, true),
            found("usr/bin/id", ReadOnly, true),
            found("usr/bin/id", Denied, false),
            found("usr/bin/git", ReadOnly, false),
            found("opt", Denied, false),
            found("opt/tool", ReadOnly, true),
            found("w/own", Writable, false),
            found("w/own", ReadOnly, true),
            found("x/alone", ReadOnly, true),
        ];
        for order in [listed.to_vec(), listed.iter().rev().cloned().collect()] {
            let steps = steps(order, false, |_| {
                Ok(Way {
                    identity: (0, 0, 0),
                    is_mount: false,
                })
            });
            let steps = steps.unwrap();
            let said: Vec<_> = steps
                .iter()
                .map(|step| (step.path.to_str().unwrap(), step.kind, step.listed))
                .collect();
            assert_eq!(
                said,
                [
                    ("opt", Rule(Denied), false),
                    ("usr", Rule(ReadOnly), false),
                    ("usr/bin/id", Rule(Denied), false),
                    ("usr/bin/sh", Rule(ReadOnly), true),
                    ("w", Keep, false),
                    ("w/own", Rule(ReadOnly), true),
                    ("x/alone", Rule(ReadOnly), true),
                ]
            );
        }
    }

    #[test]
    fn rules_that_change_nothing_take_no_mount_and_the_stricter_wins() {
        steps_are(
            &[
                ("w/a", Denied),
                ("w/a/b", Writable),
                ("w/a/c", ReadOnly),
                ("w/d", Writable),
                ("w/e", ReadOnly),
                ("w/e", Writable),
                ("w/e/f", ReadOnly),
            ],
            &["w"],
            &[("w/a", Rule(Denied)), ("w/e", Rule(ReadOnly))],
        );
    }
}
