//! The features of a config, pinned: those that it names and what they depend on, the order in which they are installed, and what
//! they demand, held to the sandbox's own rules and to the organisation's ceilings. `devcontainer-lock.json` is written alongside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use policy::organisation::{self, Fetched};
use registry::client::{Client, Repository};
use registry::feature::gather::{GatherError, gather};
use registry::feature::order::order;
use registry::feature::{Feature, FeatureError, local};
use registry::verify::{Check, Checked, Verdict};
use schema::config::Config;
use schema::config::discover;
use schema::config::feature::{FeatureId, FeaturePlace};
use schema::devcontainer_lock::{self, DevcontainerLock, Entry};
use schema::diag::{Diagnostic, Place};
use schema::digest::Digest;
use schema::image::ImageRef;
use schema::lockfile::{Install, LocalPin, Lockfile, Pin};

use serde_json::json;

use super::shown::Shown;
use super::{How, Spinner};
use crate::files;
use crate::loaded::Loaded;
use crate::report::{self, Failure};

/// Everything about features that a lockfile has.
#[derive(Debug, Default)]
pub struct Locked {
    pub pins: BTreeMap<String, Pin>,
    pub local: BTreeMap<String, LocalPin>,
    pub order: Vec<Install>,
}

/// `run` does not install features nor start tools yet, and starts nothing without them.
pub fn refuse_run(config: &Config) -> Result<(), Failure> {
    let feature = config.features.iter().next().map(|(id, options)| {
        (
            options.at,
            format!("the feature {id} is locked and verified by this version, and not installed"),
        )
    });
    let tool = config.agent.tools.all().next().map(|(kind, name, tool)| {
        (
            tool.at,
            format!(
                "the {} {name} is locked and verified by this version, and not given to an agent",
                kind.words()
            ),
        )
    });
    match feature.or(tool) {
        None => Ok(()),
        Some((at, words)) => {
            let message = format!("not enforced by this version: {words}");
            Err(config
                .diagnostic(at, "not-enforced", message)
                .help("nothing is run without what the config names; `agentcontainer lock` and `agentcontainer verify` work with it")
                .into())
        }
    }
}

/// The folder that a config is in.
fn folder(loaded: &Loaded) -> PathBuf {
    let config = loaded.workspace.join(&loaded.config.file);
    config.parent().map_or(config.clone(), Path::to_owned)
}

/// Looks up what has no pin, and reads all of it: pins that are still about the same reference stay.
pub async fn make(
    loaded: &Loaded,
    client: &Client,
    old: Option<&Lockfile>,
    how: &How,
    spinner: &Spinner,
) -> Result<Locked, Failure> {
    let config = &loaded.config;
    if config.features.is_empty() {
        return Ok(Locked::default());
    }
    let theirs = read_devcontainer(loaded)?.unwrap_or_default();
    let one = One {
        loaded,
        client,
        old,
        how,
        theirs: &theirs,
        folder: folder(loaded),
        resolved: super::now(),
    };
    let known = gather(config.features.keys().cloned(), async |id, by| {
        spinner.wait_for_one();
        let found = one.look_up(id, by).await;
        spinner.had_one();
        found
    })
    .await
    .map_err(|failed| {
        let found = failed.into_iter().flat_map(|failure| failure.diagnostics);
        Failure::from(found.collect::<Vec<_>>())
    })?;
    let named: Vec<_> = config
        .features
        .iter()
        .map(|(id, options)| (id.clone(), options.value.clone()))
        .collect();
    let first = config.override_feature_install_order.iter();
    let first: Vec<FeatureId> = first.map(|id| id.value.clone()).collect();
    let order = order(&named, &known, &first)
        .map_err(|e| Failure::new("feature-order", e.to_string()).about("features"))?;
    let mut out = Locked::default();
    let mut shown = Shown::load(loaded);
    for (id, feature) in &known {
        if !one.is_kept(id) || !shown.has(&feature.digest) {
            for demand in feature.metadata.demands.shown() {
                report::note(format!("{id} demands {demand}"));
            }
        }
        shown.add(feature.digest);
        let needs = feature.metadata.depends_on.iter();
        let depends_on = needs.map(|(id, _)| id.to_string()).collect();
        match id.place() {
            FeaturePlace::Local(_) => {
                let digest = feature.digest;
                out.local
                    .insert(id.to_string(), LocalPin { digest, depends_on });
            }
            FeaturePlace::Registry(reference) => {
                let pin = one.pin(id, reference, feature, depends_on);
                out.pins.insert(id.to_string(), pin);
            }
        }
    }
    shown.save()?;
    out.order = order
        .into_iter()
        .map(|(feature, options)| Install { feature, options })
        .collect();
    Ok(out)
}

/// Holds what a lockfile says of features to what they are: each is read by its digest, what it demands is held to every ceiling, and
/// what it depends on, its version and the order have to be what `lock` would write. A lockfile is a stranger's: nothing is asked about
/// but what a feature that was read names.
pub async fn hold(loaded: &Loaded, client: &Client, lock: &Lockfile) -> Result<(), Failure> {
    let changed: Vec<Diagnostic> = changed(loaded, lock)
        .into_iter()
        .filter_map(|(_, held)| held.err())
        .flat_map(|failure| failure.diagnostics)
        .collect();
    if !changed.is_empty() {
        return Err(changed.into());
    }
    let found = make(loaded, client, Some(lock), &How::default(), &Spinner::new()).await?;
    let same = found.pins == lock.features
        && found.local == lock.local_features
        && found.order == lock.install_order;
    if same {
        return Ok(());
    }
    let named =
        |(id, pin): (&String, &Pin)| (lock.features.get(id) != Some(pin)).then(|| id.clone());
    let differs: Vec<String> = found.pins.iter().filter_map(named).collect();
    let what = if differs.is_empty() {
        "the order of features, or which there are".to_owned()
    } else {
        differs.join(", ")
    };
    Err(Failure::new(
        "lock-drift",
        format!("what the lockfile says of {what} is not what is there"),
    )
    .help("`agentcontainer lock` writes what is"))
}

/// What one feature is looked up with.
struct One<'a> {
    loaded: &'a Loaded,
    client: &'a Client,
    old: Option<&'a Lockfile>,
    how: &'a How,
    theirs: &'a DevcontainerLock,
    folder: PathBuf,
    resolved: Timestamp,
}

// === impl One ===

impl One<'_> {
    fn is_updated(&self, id: &FeatureId) -> bool {
        self.how.update_all || self.how.update.iter().any(|name| name == id.as_str())
    }

    /// Whether it was looked at before, by whoever locked it.
    fn is_kept(&self, id: &FeatureId) -> bool {
        match id.place() {
            FeaturePlace::Registry(reference) => self.kept(id, reference).is_some(),
            FeaturePlace::Local(_) => {
                let was = self.old.map(|old| &old.local_features);
                was.is_some_and(|was| was.contains_key(id.as_str())) && !self.is_updated(id)
            }
        }
    }

    /// The pin that stays.
    fn kept(&self, id: &FeatureId, reference: &ImageRef) -> Option<&Pin> {
        let pin = self.old?.features.get(id.as_str())?;
        (pin.reference == *reference && !self.is_updated(id)).then_some(pin)
    }

    async fn look_up(&self, id: &FeatureId, by: Option<&FeatureId>) -> Result<Feature, Failure> {
        let about = match by {
            None => format!("the feature {id}"),
            Some(by) => format!("the feature {id}, which {by} depends on"),
        };
        let feature = match id.place() {
            FeaturePlace::Local(below) => self.beside(id, below)?,
            FeaturePlace::Registry(reference) => self.of_registry(id, reference, &about).await?,
        };
        let place = Place::Object(about);
        let demands = &feature.metadata.demands;
        let mut found: Vec<Diagnostic> = demands
            .refused()
            .into_iter()
            .map(|words| Diagnostic {
                place: Some(place.clone()),
                ..Diagnostic::new("refused-feature", format!("it demands {words}"))
            })
            .collect();
        found.extend(organisation::check_demands(
            &self.loaded.organisations,
            demands,
            &place,
        ));
        if found.is_empty() {
            Ok(feature)
        } else {
            Err(found.into())
        }
    }

    fn beside(&self, id: &FeatureId, below: &str) -> Result<Feature, Failure> {
        let feature = local::read(&self.folder, below, id.as_str())?;
        let pinned = self.old.and_then(|old| old.local_features.get(id.as_str()));
        match pinned {
            Some(pin) if pin.digest != feature.digest && !self.is_updated(id) => Err(Failure::new(
                "feature-changed",
                format!("{id} has changed since it was locked"),
            )
            .help(format!(
                "`agentcontainer lock --update {id}` locks what it is now"
            ))),
            _ => Ok(feature),
        }
    }

    async fn of_registry(
        &self,
        id: &FeatureId,
        reference: &ImageRef,
        about: &str,
    ) -> Result<Feature, Failure> {
        // No registry is asked about what no policy allows.
        let place = Place::Object(about.to_owned());
        let documents = &self.loaded.organisations;
        let found = organisation::check_reference(documents, Fetched::Feature, reference, &place);
        if !found.is_empty() {
            return Err(found.into());
        }
        let client = self.client.lane().await;
        let repository = Repository::of(reference);
        let digest = match self.kept(id, reference) {
            Some(pin) => pin.digest,
            None => match self.theirs(id)? {
                Some(digest) => digest,
                None => {
                    let found = client.resolve(reference).await;
                    found.map_err(|e| Failure::from(e).about(about))?.digest
                }
            },
        };
        if reference.digest().is_some_and(|own| *own != digest) {
            let message = format!("its name has another digest than {digest}");
            return Err(Failure::new("digest-mismatch", message).about(about));
        }
        let found = client.feature(&repository, &digest).await;
        found.map_err(|e| Failure::from(e).about(about))
    }

    /// What the devcontainer CLI's lockfile says, where it counts.
    fn theirs(&self, id: &FeatureId) -> Result<Option<Digest>, Failure> {
        if self.is_updated(id) {
            return Ok(None);
        }
        self.theirs.digest(id).map_err(|why| {
            Failure::new("devcontainer-lock", why)
                .about(id.as_str())
                .help(format!(
                    "`agentcontainer lock --update {id}` asks the registry and writes it anew"
                ))
        })
    }

    fn pin(
        &self,
        id: &FeatureId,
        reference: &ImageRef,
        feature: &Feature,
        depends_on: Vec<String>,
    ) -> Pin {
        let kept = self.kept(id, reference);
        Pin {
            reference: reference.clone(),
            local: false,
            digest: feature.digest,
            media_type: feature.media_type.clone(),
            platforms: BTreeMap::new(),
            version: feature.metadata.version.clone(),
            depends_on,
            resolved: kept.map_or(self.resolved, |pin| pin.resolved),
            verified: kept.and_then(|pin| pin.verified.clone()),
        }
    }
}

/// Features beside the config that are not what was locked.
pub fn changed(loaded: &Loaded, lock: &Lockfile) -> Vec<(String, Result<(), Failure>)> {
    let folder = folder(loaded);
    let check = |name: &str, pin: &LocalPin| {
        let below = name.strip_prefix("./").unwrap_or(name);
        let found = local::read(&folder, below, name)?.digest;
        if found == pin.digest {
            return Ok(());
        }
        let message = format!("{name} is {found} now, and {} is locked", pin.digest);
        Err(Failure::new("feature-changed", message))
    };
    lock.local_features
        .iter()
        .map(|(name, pin)| (name.clone(), check(name, pin)))
        .collect()
}

/// The same as checks of `verify`.
pub fn checked(loaded: &Loaded, lock: &Lockfile) -> Vec<Checked> {
    let one = |(name, held): (String, Result<(), Failure>)| {
        let pin = lock.local_features.get(&name)?;
        let check = match held {
            Ok(()) => Check {
                check: "digest",
                verdict: Verdict::Holds,
                detail: "the files beside the config are those that were locked".to_owned(),
                evidence: json!({ "digest": pin.digest }),
            },
            Err(failure) => Check {
                check: "digest",
                verdict: Verdict::Fails,
                detail: failure.diagnostics.first()?.message.clone(),
                evidence: json!({ "code": failure.diagnostics.first()?.code }),
            },
        };
        Some(Checked {
            reference: name.clone(),
            name,
            digest: pin.digest,
            checks: vec![check],
            verified: None,
        })
    };
    let all = changed(loaded, lock).into_iter();
    all.filter_map(one).collect()
}

// === devcontainer-lock.json ===

fn devcontainer_path(loaded: &Loaded) -> PathBuf {
    devcontainer_lock::beside(&loaded.workspace.join(&loaded.config.file))
}

fn read_devcontainer(loaded: &Loaded) -> Result<Option<DevcontainerLock>, Failure> {
    let path = devcontainer_path(loaded);
    match discover::read_file(&path, devcontainer_lock::MAX_BYTES) {
        Ok(Some(bytes)) => {
            let parsed = DevcontainerLock::parse(&bytes, &path.to_string_lossy())?;
            Ok(Some(parsed))
        }
        Ok(None) => Ok(None),
        Err(error) => Err(Failure::from(Diagnostic::from(error))),
    }
}

/// What the devcontainer CLI would write for the same features.
fn devcontainer(lock: &Lockfile) -> DevcontainerLock {
    let entry = |name: &String, pin: &Pin| {
        let id: FeatureId = name.parse().ok()?;
        let entry = Entry {
            version: pin.version.clone(),
            resolved: devcontainer_lock::resolved(&id, &pin.digest),
            integrity: pin.digest.to_string(),
            depends_on: pin.depends_on.clone(),
        };
        Some((name.clone(), entry))
    };
    DevcontainerLock {
        features: lock
            .features
            .iter()
            .filter_map(|(name, pin)| entry(name, pin))
            .collect(),
    }
}

/// Writes it beside ours. Where there are no features of registries none is made, and of one that is there nothing is left to hold.
pub fn write_devcontainer(loaded: &Loaded, lock: &Lockfile) -> Result<bool, Failure> {
    if lock.features.is_empty() && read_devcontainer(loaded)?.is_none() {
        return Ok(false);
    }
    let path = devcontainer_path(loaded);
    let text = devcontainer(lock).to_text();
    let was = discover::read_file(&path, devcontainer_lock::MAX_BYTES);
    if was.is_ok_and(|was| was.as_deref() == Some(text.as_bytes())) {
        return Ok(false);
    }
    files::write(&path, &text, true)?;
    Ok(true)
}

/// What it says of a feature that ours says otherwise.
pub fn devcontainer_drift(loaded: &Loaded, lock: &Lockfile) -> Result<Vec<String>, Failure> {
    let path = devcontainer_path(loaded);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let Some(theirs) = read_devcontainer(loaded)? else {
        let wanted = !lock.features.is_empty();
        return Ok(wanted
            .then(|| format!("{name} is not there"))
            .into_iter()
            .collect());
    };
    let ours = devcontainer(lock);
    let differs = |id: &&String| ours.features.get(*id) != theirs.features.get(*id);
    let all: std::collections::BTreeSet<&String> =
        ours.features.keys().chain(theirs.features.keys()).collect();
    let said = all.into_iter().filter(differs);
    Ok(said
        .map(|id| format!("{name} says something else of {id} than the lockfile"))
        .collect())
}

impl From<FeatureError> for Failure {
    fn from(error: FeatureError) -> Self {
        match error {
            FeatureError::Registry(error) => error.into(),
            FeatureError::Metadata { what, found } => {
                let said = found.into_iter().map(|d| Diagnostic {
                    message: format!("{what}: {}", d.message),
                    ..d
                });
                said.collect::<Vec<_>>().into()
            }
            other => Failure::new(other.code(), other.to_string()),
        }
    }
}

impl From<GatherError> for Failure {
    fn from(error: GatherError) -> Self {
        Failure::new("feature-order", error.to_string()).about("features")
    }
}

/// For people: every step of the installation, and what it makes of the container.
pub fn say(lock: &Lockfile) {
    for (n, step) in lock.install_order.iter().enumerate() {
        let words = format!("{}. {}{}", n + 1, step.feature, step.options.shown());
        report::note(format!("installs {words}"));
    }
}
