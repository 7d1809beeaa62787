//! In which order features are installed: the devcontainers specification's rounds ('Feature dependencies', 'Dependency installation
//! order implementation'), with the ties broken as the devcontainer CLI breaks them, so that both install the same. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use schema::config::feature::{FeatureId, FeaturePlace, OptionValue, Options};
use schema::devcontainer_lock::collate;
use schema::image::ImageRef;
use thiserror::Error;

use super::Feature;

/// Most installations: features with different options, and what they depend on, each counted.
pub const MAX_STEPS: usize = 256;

/// Why there is no order.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OrderError {
    #[error("more than {MAX_STEPS} features would be installed")]
    TooMany,
    #[error("features depend on each other in a circle: {0}")]
    Circle(String),
    /// The caller did not resolve everything.
    #[error("{0} was not resolved")]
    Unresolved(String),
}

/// A feature with one set of options.
#[derive(Clone, Debug)]
struct Node<'a> {
    id: FeatureId,
    options: Options,
    feature: &'a Feature,
    priority: usize,
}

/// The order, from what a config names, what every name stands for, and what is to come first.
///
/// # Errors
/// [`OrderError`]
pub fn order(
    named: &[(FeatureId, Options)],
    known: &BTreeMap<FeatureId, Feature>,
    first: &[FeatureId],
) -> Result<Vec<(FeatureId, Options)>, OrderError> {
    let mut nodes: Vec<Node<'_>> = Vec::new();
    let mut waiting: Vec<(FeatureId, Options)> = named.to_vec();
    let mut at = 0;
    while let Some((id, options)) = waiting.get(at).cloned() {
        at += 1;
        let node = Node::of(id, options, known)?;
        if nodes.iter().any(|other| other.is(&node)) {
            continue;
        }
        if nodes.len() == MAX_STEPS {
            return Err(OrderError::TooMany);
        }
        waiting.extend(node.feature.metadata.depends_on.iter().cloned());
        nodes.push(node);
    }
    for (n, id) in first.iter().enumerate() {
        for node in nodes.iter_mut().filter(|node| node.satisfies(id)) {
            node.priority = node.priority.max(first.len() - n);
        }
    }
    rounds(nodes, known)
}

fn rounds(
    mut left: Vec<Node<'_>>,
    known: &BTreeMap<FeatureId, Feature>,
) -> Result<Vec<(FeatureId, Options)>, OrderError> {
    // What is not installed anyway is waited for by nobody.
    let after: BTreeMap<FeatureId, Vec<FeatureId>> = left
        .iter()
        .map(|node| {
            let after = node.feature.metadata.installs_after.iter();
            let there = after.filter(|id| left.iter().any(|other| other.satisfies(id)));
            (node.id.clone(), there.cloned().collect())
        })
        .collect();
    let mut done: Vec<Node<'_>> = Vec::new();
    while !left.is_empty() {
        let mut round = Vec::new();
        for node in &left {
            let mut needs = Vec::new();
            for (id, options) in &node.feature.metadata.depends_on {
                needs.push(Node::of(id.clone(), options.clone(), known)?);
            }
            let has = |wanted: &Node<'_>| done.iter().any(|other| other.is(wanted));
            let soft = |id: &FeatureId| done.iter().any(|other| other.satisfies(id));
            let waits_for = after.get(&node.id);
            if needs.iter().all(has) && waits_for.is_none_or(|all| all.iter().all(soft)) {
                round.push(node.clone());
            }
        }
        let Some(priority) = round.iter().map(|node| node.priority).max() else {
            let names: Vec<&str> = left.iter().map(|node| node.id.as_str()).collect();
            return Err(OrderError::Circle(names.join(", ")));
        };
        round.retain(|node| node.priority == priority);
        left.retain(|node| !round.iter().any(|other| other.is(node)));
        round.sort_by(Node::compare);
        done.extend(round);
    }
    Ok(done
        .into_iter()
        .map(|node| (node.id, node.options))
        .collect())
}

// === impl Node ===

impl<'a> Node<'a> {
    fn of(
        id: FeatureId,
        options: Options,
        known: &'a BTreeMap<FeatureId, Feature>,
    ) -> Result<Self, OrderError> {
        let feature = known
            .get(&id)
            .ok_or_else(|| OrderError::Unresolved(id.to_string()))?;
        Ok(Self {
            id,
            options,
            feature,
            priority: 0,
        })
    }

    /// Whether both are one installation.
    fn is(&self, other: &Self) -> bool {
        self.compare(other) == Ordering::Equal
    }

    /// Whether it is what somebody means who names it without version or options, by any of its names.
    fn satisfies(&self, id: &FeatureId) -> bool {
        match (self.id.place(), id.place()) {
            (FeaturePlace::Local(own), FeaturePlace::Local(other)) => own == other,
            (FeaturePlace::Registry(own), FeaturePlace::Registry(other)) => {
                let (namespace, name) = parts(own);
                let (of, wanted) = parts(other);
                own.registry() == other.registry()
                    && namespace == of
                    && (name == wanted || self.feature.metadata.aliases.contains(wanted))
            }
            _ => false,
        }
    }

    /// The specification's `compareTo`, as the devcontainer CLI has it.
    fn compare(&self, other: &Self) -> Ordering {
        let (own, their) = match (self.id.place(), other.id.place()) {
            (FeaturePlace::Registry(own), FeaturePlace::Registry(their)) => (own, their),
            (FeaturePlace::Local(own), FeaturePlace::Local(their)) => {
                return collate(own, their)
                    .then_with(|| compare_options(&self.options, &other.options));
            }
            _ => return collate(self.id.as_str(), other.id.as_str()),
        };
        let options = compare_options(&self.options, &other.options);
        if self.feature.digest == other.feature.digest && options == Ordering::Equal {
            return Ordering::Equal;
        }
        let (aliases, others) = (
            &self.feature.metadata.aliases,
            &other.feature.metadata.aliases,
        );
        let name = || {
            if aliases.is_disjoint(others) {
                collate(parts(own).1, parts(their).1)
            } else {
                Ordering::Equal
            }
        };
        compare_places(own, their)
            .then_with(name)
            .then_with(|| match (tag(own), tag(their)) {
                (Some(own), Some(their)) => collate(own, their),
                _ => Ordering::Equal,
            })
            .then(options)
            .then_with(|| self.feature.digest.cmp(&other.feature.digest))
    }
}

/// By registry and namespace, as one text.
fn compare_places(own: &ImageRef, their: &ImageRef) -> Ordering {
    let place = |reference: &ImageRef| format!("{}/{}", reference.registry(), parts(reference).0);
    if own.registry() == their.registry() && parts(own).0 == parts(their).0 {
        return Ordering::Equal;
    }
    collate(&place(own), &place(their))
}

/// Namespace and name: what is before the last `/` of a repository, and what is behind it.
fn parts(reference: &ImageRef) -> (&str, &str) {
    let repository = reference.repository();
    repository.rsplit_once('/').unwrap_or(("", repository))
}

fn tag(reference: &ImageRef) -> Option<&str> {
    match (reference.tag(), reference.digest()) {
        (_, Some(_)) => None,
        (tag, None) => tag.or(Some("latest")),
    }
}

fn compare_options(a: &Options, b: &Options) -> Ordering {
    // JavaScript's words for the types, which is what it orders different ones by.
    let kind = |options: &Options| match options {
        Options::Defaults(_) => "boolean",
        Options::Named(_) => "object",
        Options::Version(_) => "string",
    };
    match (a, b) {
        (Options::Version(a), Options::Version(b)) => collate(a, b),
        (Options::Defaults(a), Options::Defaults(b)) => a.cmp(b),
        (Options::Named(a), Options::Named(b)) => a.len().cmp(&b.len()).then_with(|| {
            a.iter()
                .zip(b)
                .map(|((a_name, a), (b_name, b))| {
                    collate(a_name, b_name).then_with(|| compare_values(a, b))
                })
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        }),
        (a, b) => collate(kind(a), kind(b)),
    }
}

fn compare_values(a: &OptionValue, b: &OptionValue) -> Ordering {
    match (a, b) {
        (OptionValue::Text(a), OptionValue::Text(b)) => collate(a, b),
        (OptionValue::Flag(a), OptionValue::Flag(b)) => a.cmp(b),
        (OptionValue::Flag(_), OptionValue::Text(_)) => Ordering::Less,
        (OptionValue::Text(_), OptionValue::Flag(_)) => Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use schema::digest::Digest;

    /// Features by id: what each depends on, what it is installed after, and its other names.
    fn known(all: &[(&str, &str)]) -> BTreeMap<FeatureId, Feature> {
        all.iter()
            .map(|(id, rest)| {
                let name = id.rsplit('/').next().unwrap().split(':').next().unwrap();
                let text = format!(r#"{{ "id": "{name}", "version": "1.0.0"{rest} }}"#);
                let feature = Feature {
                    digest: Digest::of(id.as_bytes()),
                    media_type: String::new(),
                    metadata: schema::feature::parse(text.as_bytes(), "x").unwrap(),
                };
                (id.parse().unwrap(), feature)
            })
            .collect()
    }

    fn needs(ids: &[&str]) -> String {
        let all: Vec<String> = ids.iter().map(|id| format!("\"{id}\": {{}}")).collect();
        format!(r#", "dependsOn": {{ {} }}"#, all.join(","))
    }

    fn ordered(
        named: &[&str],
        known: &BTreeMap<FeatureId, Feature>,
        first: &[&str],
    ) -> Result<Vec<String>, OrderError> {
        let named: Vec<_> = named
            .iter()
            .map(|id| (id.parse().unwrap(), Options::default()))
            .collect();
        let first: Vec<FeatureId> = first.iter().map(|id| id.parse().unwrap()).collect();
        let order = order(&named, known, &first)?;
        Ok(order.into_iter().map(|(id, _)| id.to_string()).collect())
    }

    #[test]
    fn what_is_depended_on_comes_first_at_any_remove_and_once() {
        let known = known(&[
            ("r.io/n/a:1", &needs(&["r.io/n/c:1"])),
            ("r.io/n/b:1", ""),
            ("r.io/n/c:1", &needs(&["r.io/n/d:1"])),
            ("r.io/n/d:1", ""),
        ]);
        assert_eq!(
            ordered(&["r.io/n/a:1", "r.io/n/b:1"], &known, &[]).unwrap(),
            ["r.io/n/b:1", "r.io/n/d:1", "r.io/n/c:1", "r.io/n/a:1"]
        );
    }

    #[test]
    fn what_is_installed_after_waits_for_what_is_installed_anyway_by_any_of_its_names() {
        let known = known(&[
            (
                "r.io/n/a:1",
                r#", "installsAfter": ["r.io/n/old", "r.io/n/nowhere", "r.io/m/old"]"#,
            ),
            ("r.io/n/z:1", r#", "legacyIds": ["old"]"#),
        ]);
        assert_eq!(
            ordered(&["r.io/n/a:1", "r.io/n/z:1"], &known, &[]).unwrap(),
            ["r.io/n/z:1", "r.io/n/a:1"]
        );
        assert_eq!(
            ordered(&["r.io/n/a:1"], &known, &[]).unwrap(),
            ["r.io/n/a:1"]
        );
    }

    #[test]
    fn what_the_config_puts_first_comes_first_as_far_as_dependencies_allow() {
        let known = known(&[
            ("r.io/n/a:1", ""),
            ("r.io/n/b:1", ""),
            ("r.io/n/c:1", &needs(&["r.io/n/b:1"])),
            ("./own", ""),
        ]);
        let all = ["r.io/n/a:1", "r.io/n/b:1", "r.io/n/c:1", "./own"];
        assert_eq!(
            ordered(&all, &known, &[]).unwrap(),
            ["./own", "r.io/n/a:1", "r.io/n/b:1", "r.io/n/c:1"]
        );
        // `c` has to wait for `b`, which nobody put first.
        assert_eq!(
            ordered(&all, &known, &["r.io/n/c", "r.io/n/b"]).unwrap(),
            ["r.io/n/b:1", "r.io/n/c:1", "./own", "r.io/n/a:1"]
        );
        assert_eq!(
            ordered(&all, &known, &["r.io/n/b", "./own"]).unwrap(),
            ["r.io/n/b:1", "./own", "r.io/n/a:1", "r.io/n/c:1"]
        );
    }

    #[test]
    fn a_circle_is_named() {
        let known = known(&[
            ("r.io/n/a:1", &needs(&["r.io/n/b:1"])),
            ("r.io/n/b:1", &needs(&["r.io/n/a:1"])),
            ("r.io/n/c:1", ""),
        ]);
        let Err(OrderError::Circle(names)) = ordered(&["r.io/n/a:1", "r.io/n/c:1"], &known, &[])
        else {
            panic!("a circle");
        };
        assert_eq!(names, "r.io/n/a:1, r.io/n/b:1");
        assert!(ordered(&["r.io/n/c:1"], &known, &[]).is_ok());
    }

    #[test]
    fn other_options_are_another_installation_and_the_same_are_not() {
        let known = known(&[
            (
                "r.io/n/a:1",
                r#", "dependsOn": { "r.io/n/c:1": { "v": "1" } }"#,
            ),
            (
                "r.io/n/b:1",
                r#", "dependsOn": { "r.io/n/c:1": { "v": "2" } }"#,
            ),
            ("r.io/n/c:1", ""),
            (
                "r.io/n/d:1",
                r#", "dependsOn": { "r.io/n/c:1": { "v": "1" } }"#,
            ),
        ]);
        assert_eq!(
            ordered(&["r.io/n/a:1", "r.io/n/b:1", "r.io/n/d:1"], &known, &[]).unwrap(),
            [
                "r.io/n/c:1",
                "r.io/n/c:1",
                "r.io/n/a:1",
                "r.io/n/b:1",
                "r.io/n/d:1"
            ]
        );
    }

    #[test]
    fn how_many_are_installed_is_bounded() {
        let chain = |n: usize| {
            let all: Vec<(String, String)> = (0..n)
                .map(|i| {
                    let rest = if i + 1 < n {
                        needs(&[&format!("r.io/n/f{}:1", i + 1)])
                    } else {
                        String::new()
                    };
                    (format!("r.io/n/f{i}:1"), rest)
                })
                .collect();
            let all: Vec<(&str, &str)> =
                all.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
            ordered(&["r.io/n/f0:1"], &known(&all), &[])
        };
        assert_eq!(chain(MAX_STEPS).unwrap().len(), MAX_STEPS);
        assert_eq!(chain(MAX_STEPS + 1), Err(OrderError::TooMany));
    }
}
