//! Features and everything they depend on, at any remove: each is looked up once, and those of one step all at a time.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use schema::config::feature::{FeatureId, FeaturePlace};
use thiserror::Error;

use super::Feature;
use super::order::MAX_STEPS;

/// How far a dependency may be from what a config names.
pub const MAX_DEPTH: usize = 16;

/// What is not looked up.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GatherError {
    #[error("features depend on each other over more than {MAX_DEPTH} steps: {0} is beyond")]
    TooDeep(FeatureId),
    #[error("more than {MAX_STEPS} features would be installed")]
    TooMany,
    #[error(
        "{by} is a registry's and depends on {id}, which only a config's own folder could have"
    )]
    Local { id: FeatureId, by: FeatureId },
}

/// Looks up what is named, and what that depends on; `fetch` is told who depends on it.
///
/// # Errors
/// Everything that `fetch` says of one step.
pub async fn gather<E: From<GatherError>>(
    named: impl IntoIterator<Item = FeatureId>,
    fetch: impl AsyncFn(&FeatureId, Option<&FeatureId>) -> Result<Feature, E>,
) -> Result<BTreeMap<FeatureId, Feature>, Vec<E>> {
    let mut known: BTreeMap<FeatureId, Feature> = BTreeMap::new();
    let mut step: BTreeMap<FeatureId, Option<FeatureId>> =
        named.into_iter().map(|id| (id, None)).collect();
    let mut depth = 0;
    while let Some((one, _)) = step.first_key_value() {
        if depth > MAX_DEPTH {
            return Err(vec![GatherError::TooDeep(one.clone()).into()]);
        }
        if known.len() + step.len() > MAX_STEPS {
            return Err(vec![GatherError::TooMany.into()]);
        }
        depth += 1;
        let fetch = &fetch;
        let jobs = step.iter().map(|(id, by)| async move {
            fetch(id, by.as_ref())
                .await
                .map(|feature| (id.clone(), feature))
        });
        let found: Vec<Result<_, E>> = join_all(jobs).await;
        let (mut failed, mut new) = (Vec::new(), BTreeSet::new());
        for one in found {
            match one {
                Ok((id, feature)) => {
                    new.insert(id.clone());
                    known.insert(id, feature);
                }
                Err(error) => failed.push(error),
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        step = BTreeMap::new();
        for by in &new {
            for (id, _) in &known[by].metadata.depends_on {
                let is_local = |id: &FeatureId| matches!(id.place(), FeaturePlace::Local(_));
                if is_local(id) && !is_local(by) {
                    let (id, by) = (id.clone(), by.clone());
                    return Err(vec![GatherError::Local { id, by }.into()]);
                }
                if !known.contains_key(id) {
                    step.insert(id.clone(), Some(by.clone()));
                }
            }
        }
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use schema::digest::Digest;

    fn feature(needs: Option<&str>) -> Feature {
        let needs = needs.map_or(String::new(), |id| {
            format!(r#", "dependsOn": {{ "{id}": {{}} }}"#)
        });
        let text = format!(r#"{{ "id": "f"{needs} }}"#);
        Feature {
            digest: Digest::of(text.as_bytes()),
            media_type: String::new(),
            metadata: schema::feature::parse(text.as_bytes(), "x").unwrap(),
        }
    }

    /// `f0` depends on `f1`, and so on, as far as `last`.
    async fn chain(last: usize) -> Result<usize, Vec<GatherError>> {
        let fetch = async |id: &FeatureId, _: Option<&FeatureId>| {
            let n: usize = id
                .as_str()
                .strip_prefix("r.io/n/f")
                .unwrap()
                .parse()
                .unwrap();
            let next = (n < last).then(|| format!("r.io/n/f{}", n + 1));
            Ok(feature(next.as_deref()))
        };
        let found = gather(["r.io/n/f0".parse().unwrap()], fetch).await?;
        Ok(found.len())
    }

    #[tokio::test]
    async fn dependencies_are_followed_within_bounds() {
        assert_eq!(chain(0).await, Ok(1));
        assert_eq!(chain(MAX_DEPTH).await, Ok(MAX_DEPTH + 1));
        assert!(matches!(
            chain(MAX_DEPTH + 1).await.unwrap_err().as_slice(),
            [GatherError::TooDeep(_)]
        ));
        let wide = async |n: usize| {
            let named = (0..n).map(|n| format!("r.io/n/f{n}").parse().unwrap());
            gather(named, async |_: &FeatureId, _: Option<&FeatureId>| {
                Ok::<_, GatherError>(feature(None))
            })
            .await
            .map(|found| found.len())
        };
        assert_eq!(wide(MAX_STEPS).await, Ok(MAX_STEPS));
        assert_eq!(wide(MAX_STEPS + 1).await, Err(vec![GatherError::TooMany]));
    }

    #[tokio::test]
    async fn a_circle_ends_and_a_registrys_feature_names_no_folder_of_a_config() {
        let circle = async |_: &FeatureId, _: Option<&FeatureId>| {
            Ok::<_, GatherError>(feature(Some("r.io/n/a")))
        };
        let found = gather(["r.io/n/a".parse().unwrap()], circle).await.unwrap();
        assert_eq!(found.len(), 1);
        let local = async |_: &FeatureId, _: Option<&FeatureId>| {
            Ok::<_, GatherError>(feature(Some("./own")))
        };
        let refused = gather(["r.io/n/a".parse().unwrap()], local)
            .await
            .unwrap_err();
        assert!(matches!(refused.as_slice(), [GatherError::Local { .. }]));
        // One beside the config may depend on another there.
        let found = gather(["./first".parse().unwrap()], local).await.unwrap();
        assert_eq!(found.len(), 2);
    }
}
