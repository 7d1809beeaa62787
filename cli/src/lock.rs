//! What is pinned: the lockfile beside a config (in this user's state where a workspace has none), made by asking the engine
//! for what only it has and registries for the rest, and held to before anything is started. `lock` and `run` call it.

pub mod agents;
pub mod features;
mod shown;
mod spinner;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use engine::image::{Image, PullProgress};
use engine::{Engine, EngineError};
use futures_util::future::join_all;
use jiff::Timestamp;
use registry::client::{Client, Repository};
use registry::error::RegistryError;
use registry::resolve::Resolved;
use schema::config::discover;
use schema::config::tools::ToolKind;
use schema::digest::Digest;
use schema::image::ImageRef;
use schema::lockfile::{self, Drift, Lockfile, MAX_BYTES, Pin, Platform, Wanted};

use crate::drift;
use crate::files;
use crate::loaded::Loaded;
use crate::organisation;
use crate::places::make_private;
use crate::registries;
use crate::report::{self, Failure};
use crate::trust;
pub use spinner::Spinner;

/// What became of one pin.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase", tag = "change")]
pub enum Change {
    Kept {
        name: String,
        digest: Digest,
    },
    Added {
        name: String,
        reference: String,
        digest: Digest,
    },
    Moved {
        name: String,
        reference: String,
        from: Digest,
        to: Digest,
    },
    Removed {
        name: String,
        digest: Digest,
    },
}

/// How pins are made.
#[derive(Clone, Debug, Default)]
pub struct How {
    /// Names whose pins are made anew.
    pub update: Vec<String>,
    /// Every pin is made anew.
    pub update_all: bool,
    /// Platforms that every image has to have.
    pub platforms: Vec<Platform>,
    /// What a policy wants a person asked about is approved.
    pub yes: bool,
}

/// What `run` does where something is not locked.
#[derive(Clone, Copy, Debug)]
pub enum Unlocked {
    /// Says what, and stops.
    Stop,
    /// Says what, and goes on with what the engine has by that name: nothing is started.
    Plan,
    /// Locks it first, once that was reviewed; `yes` approves.
    Lock { yes: bool },
}

pub fn wanted(loaded: &Loaded) -> Wanted {
    Wanted::of(&loaded.config)
}

/// Where the lockfile is; a config that a profile brought has none beside it.
pub fn path(loaded: &Loaded, brought: bool) -> PathBuf {
    if brought {
        let agent = loaded
            .config
            .profile
            .as_ref()
            .map_or("", |p| p.profile.name);
        let mut key = loaded.workspace.as_os_str().as_encoded_bytes().to_vec();
        key.push(0);
        key.extend_from_slice(agent.as_bytes());
        return loaded
            .places
            .locks()
            .join(format!("{}.json", Digest::of(&key).hex()));
    }
    lockfile::beside(&loaded.workspace.join(&loaded.config.file))
}

/// The lockfile at a path, or `None`.
pub fn read(path: &Path) -> Result<Option<Lockfile>, Failure> {
    match discover::read_file(path, MAX_BYTES) {
        Ok(Some(bytes)) => Ok(Some(Lockfile::parse(&bytes, &path.to_string_lossy())?)),
        Ok(None) => Ok(None),
        Err(error) => Err(Failure::from(schema::diag::Diagnostic::from(error))),
    }
}

/// Writes it whole or not at all; what has not changed is not touched.
pub fn write(path: &Path, lockfile: &Lockfile) -> Result<bool, Failure> {
    let text = lockfile.to_text();
    if discover::read_file(path, MAX_BYTES).is_ok_and(|was| was.as_deref() == Some(text.as_bytes()))
    {
        return Ok(false);
    }
    files::write(path, &text, true)?;
    Ok(true)
}

/// Holds what is pinned to the workspace's own policy, and to everything that is required of it: registries are asked for that, so
/// only once the workspace was reviewed.
pub async fn hold(loaded: &mut Loaded, yes: bool) -> Result<(), Failure> {
    let Some(mut lock) = loaded.lock.clone() else {
        return Err(Failure::new(
            "not-locked",
            "nothing is run that is not locked",
        ));
    };
    let client = registries::client(&loaded.places, &loaded.host, loaded.offline)?;
    if let Some(document) = organisation::of_workspace(&client, &loaded.config, &lock).await? {
        loaded.hold_under(document)?;
    }
    organisation::require(loaded, &mut lock).await?;
    drift::hold(loaded, &client, None, &lock, yes).await
}

/// Has `loaded` know its pins: those of the lockfile, if they are the config's.
pub async fn require(
    loaded: &mut Loaded,
    brought: bool,
    unlocked: Unlocked,
) -> Result<(), Failure> {
    let path = path(loaded, brought);
    let found = read(&path)?;
    let wanted = wanted(loaded);
    let drift = found.as_ref().map(|lockfile| lockfile.drift(&wanted));
    let again = matches!(unlocked, Unlocked::Lock { .. }) && brought;
    if let (Some(lockfile), Some([]), false) = (&found, drift.as_deref(), again) {
        loaded.lock = Some(lockfile.clone());
        return Ok(());
    }
    let yes = match unlocked {
        Unlocked::Lock { yes } => yes,
        Unlocked::Plan => {
            if !brought {
                let said = not_locked(&path, drift.as_deref());
                said.diagnostics.iter().for_each(|d| {
                    report::warning(format!("`run` would stop: {}", d.message));
                });
            }
            return Ok(());
        }
        Unlocked::Stop if brought => {
            return make_for_brought(loaded, &path, found, How::default()).await;
        }
        Unlocked::Stop => return Err(not_locked(&path, drift.as_deref())),
    };
    if brought {
        let how = How {
            update_all: true,
            ..How::default()
        };
        return make_for_brought(loaded, &path, found, how).await;
    }
    // Nothing is asked on a workspace's behalf before it was reviewed.
    trust::require(loaded, yes)?;
    let client = registries::client(&loaded.places, &loaded.host, false)?;
    let how = How {
        yes,
        ..How::default()
    };
    let (lockfile, changes) = make(loaded, &client, found, &how).await?;
    let one = agents::alone(loaded, &path)?;
    let lockfile = agents::with_agents_of(lockfile, &read(&path)?, &how);
    write(&path, &lockfile)?;
    drop(one);
    features::write_devcontainer(loaded, &lockfile)?;
    say(&changes);
    loaded.lock = Some(lockfile);
    Ok(())
}

/// A profile's own image is nobody's in the workspace: it is pinned in this user's state when it is first used.
async fn make_for_brought(
    loaded: &mut Loaded,
    path: &Path,
    found: Option<Lockfile>,
    how: How,
) -> Result<(), Failure> {
    let client = registries::client(&loaded.places, &loaded.host, loaded.offline)?;
    let (lockfile, changes) = make(loaded, &client, found, &how).await?;
    make_private(&loaded.places.locks())?;
    let one = agents::alone(loaded, path)?;
    let now = read(path)?;
    let lockfile = agents::with_agents_of(lockfile, &now, &how);
    agents::take_away(loaded, path, now.as_ref(), &lockfile)?;
    write(path, &lockfile)?;
    drop(one);
    say(&changes);
    loaded.lock = Some(lockfile);
    Ok(())
}

fn not_locked(path: &Path, drift: Option<&[Drift]>) -> Failure {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match drift {
        None => Failure::new(
            "not-locked",
            format!("there is no {name} beside the config, and nothing is run that is not locked"),
        )
        .help("`agentcontainer lock` makes it, `agentcontainer run --lock` makes it and goes on"),
        Some(drift) => {
            let all: Vec<String> = drift.iter().map(ToString::to_string).collect();
            Failure::new(
                "lock-drift",
                format!("{name} is not about this config: {}", all.join("; ")),
            )
            .help("`agentcontainer lock` locks what has no pin and leaves the others")
        }
    }
}

/// Nobody is asked about what a lockfile names and its config does not.
pub fn about(loaded: &Loaded, lockfile: &Lockfile, what: &str) -> Result<(), Failure> {
    let drift = lockfile.drift(&wanted(loaded));
    if drift.is_empty() {
        return Ok(());
    }
    let all: Vec<String> = drift.iter().map(ToString::to_string).collect();
    Err(Failure::new(
        "lock-drift",
        format!("{what} is not about this config: {}", all.join("; ")),
    )
    .help("`agentcontainer lock` locks what has no pin and leaves the others"))
}

/// Says what became of pins; those that stayed are not worth a line.
pub fn say(changes: &[Change]) {
    for change in changes {
        match change {
            Change::Kept { .. } => {}
            Change::Added {
                name,
                reference,
                digest,
            } => {
                report::note(format!("locked {name} {reference} {digest}"));
            }
            Change::Moved {
                name,
                reference,
                from,
                to,
            } => {
                report::note(format!("moved {name} {reference} from {from} to {to}"));
            }
            Change::Removed { name, .. } => report::note(format!("removed {name}")),
        }
    }
}

/// A lockfile for what is wanted now: pins that are still about the same reference stay, unless they are to be made anew.
pub async fn make(
    loaded: &Loaded,
    client: &Client,
    old: Option<Lockfile>,
    how: &How,
) -> Result<(Lockfile, Vec<Change>), Failure> {
    let wanted = wanted(loaded);
    let needed = old.iter().flat_map(|old| old.features.keys());
    let named = wanted.pins.iter().map(|(name, _)| name);
    let agents = old.iter().flat_map(|old| old.agents.keys());
    let agents: Vec<String> = agents.map(|name| lockfile::agent_pin(name)).collect();
    let names: BTreeSet<&str> = named
        .chain(&wanted.local)
        .chain(needed)
        .chain(&agents)
        .map(String::as_str)
        .collect();
    for name in &how.update {
        if !names.contains(name.as_str()) {
            let names: Vec<&str> = names.into_iter().collect();
            return Err(
                Failure::new("unknown-pin", format!("the config names no {name}"))
                    .help(format!("it names {}", names.join(", "))),
            );
        }
    }
    let pinned = |name: &str, reference: &ImageRef| {
        old.as_ref()?
            .pins()
            .find(|(of, pin)| *of == name && pin.reference == *reference)
            .map(|(_, pin)| pin.clone())
            .filter(|_| !how.update_all && !how.update.iter().any(|update| update == name))
    };
    // Nobody else knows of an image that only an engine has; what is pinned already is nothing to ask about.
    let mut images = wanted.pins.iter().filter(|(name, _)| name == "image");
    let engine = match images.any(|(name, reference)| pinned(name, reference).is_none()) {
        true => Some(reached(loaded).await),
        false => None,
    };
    let spinner = Spinner::new();
    let is_feature = |name: &str| {
        let mut ids = loaded.config.features.keys();
        ids.any(|id| id.as_str() == name)
    };
    let others = wanted.pins.iter().filter(|(name, _)| !is_feature(name));
    let jobs = others.map(|(name, reference)| {
        let (engine, kept) = (&engine, pinned(name, reference));
        let spinner = &spinner;
        spinner.wait_for_one();
        async move {
            let pin = match kept {
                Some(pin) => pin,
                None => {
                    let engine = engine.as_ref().map(Result::as_ref);
                    pin(engine, &client.lane().await, name, reference).await?
                }
            };
            spinner.had_one();
            Ok::<_, Failure>((name.clone(), pin))
        }
    });
    let jobs = join_all(jobs);
    let (done, of_features) = tokio::join!(
        jobs,
        features::make(loaded, client, old.as_ref(), how, &spinner)
    );
    drop(spinner);
    let (mut pins, mut failed) = (Vec::new(), Vec::new());
    for one in done {
        match one {
            Ok(pin) => pins.push(pin),
            Err(failure) => failed.extend(failure.diagnostics),
        }
    }
    let features = match of_features {
        Ok(features) if failed.is_empty() => features,
        Ok(_) => return Err(failed.into()),
        Err(failure) => {
            failed.extend(failure.diagnostics);
            return Err(failed.into());
        }
    };
    pins.extend(features.pins.clone());
    pins.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, pin) in &pins {
        for platform in &how.platforms {
            if !pin.local && !pin.platforms.is_empty() && !pin.platforms.contains_key(platform) {
                return Err(Failure::new(
                    "platform",
                    format!(
                        "{name} ({}) has nothing for {platform}",
                        pin.reference.as_str()
                    ),
                )
                .help(format!("it has {}", shown(pin))));
            }
        }
    }
    let changes = changes(old.as_ref(), &pins);
    let mut named: BTreeMap<String, Pin> = pins.into_iter().collect();
    let Some(image) = named.remove("image") else {
        return Err(Failure::new("internal", "a config names an image"));
    };
    let mut tools = |kind: ToolKind| {
        let of = loaded.config.agent.tools.all();
        of.filter(|(of, ..)| *of == kind)
            .filter_map(|(_, name, _)| {
                let pin = named.remove(&lockfile::tool_pin(kind, name.as_str()))?;
                Some((name.to_string(), pin))
            })
            .collect()
    };
    let mut lockfile = Lockfile {
        lockfile_version: lockfile::VERSION,
        config: loaded.config.digest(),
        image,
        mcp: tools(ToolKind::Mcp),
        components: tools(ToolKind::Component),
        skills: tools(ToolKind::Skill),
        features: features.pins,
        local_features: features.local,
        install_order: features.order,
        policy: named.remove("policy"),
        agents: agents::kept_agents(old.as_ref(), how),
    };
    let mut held = loaded.clone();
    if let Some(document) = organisation::of_workspace(client, &loaded.config, &lockfile).await? {
        if let (Some(old), Some(source)) = (&old, &loaded.config.agent.policy.source) {
            organisation::not_older(client, old, &source.value, &document).await?;
        }
        held.hold_under(document)?;
        features::hold(&held, client, &lockfile).await?;
    }
    // Offline too: what nobody can be asked about is not written where it is required.
    held.offline = client.is_offline();
    let mut verified = lockfile.clone();
    organisation::require(&held, &mut verified).await?;
    // Who vouched is noted with the pin, once: it depends on what this host requires, and the file is everybody's.
    for (name, pin) in lockfile.pins_mut() {
        let is_new = changes.iter().any(|change| match change {
            Change::Added { name: of, .. } | Change::Moved { name: of, .. } => *of == name,
            Change::Kept { .. } | Change::Removed { .. } => false,
        });
        if is_new {
            let found = verified.pins().find(|(of, _)| *of == name);
            pin.verified = found.and_then(|(_, pin)| pin.verified.clone());
        }
    }
    drift::hold(&held, client, old.as_ref(), &lockfile, how.yes).await?;
    Ok((lockfile, changes))
}

/// The same pins as they would be made now; only those of these names, without a name all. What is named by its digest cannot move,
/// and what only an engine has is looked up in no registry.
pub async fn as_of_now(
    loaded: &Loaded,
    client: &Client,
    locked: &Lockfile,
    names: &[String],
) -> Result<Lockfile, Failure> {
    let mut now = locked.clone();
    if let Some(unknown) = names
        .iter()
        .find(|wanted| !now.pins().any(|(name, _)| name == wanted.as_str()))
    {
        let all: Vec<_> = now.pins().map(|(name, _)| name).collect();
        return Err(
            Failure::new("unknown-pin", format!("the lockfile has no {unknown}"))
                .help(format!("it has {}", all.join(", "))),
        );
    }
    let engine = reached(loaded).await;
    let movable: Vec<(String, ImageRef)> = now
        .pins()
        .filter(|(name, pin)| {
            let asked = names.is_empty() || names.iter().any(|wanted| wanted == name);
            asked && !pin.local && pin.reference.digest().is_none()
        })
        .map(|(name, pin)| (name.into_owned(), pin.reference.clone()))
        .collect();
    let jobs = movable.iter().map(|(name, reference)| {
        let engine = Some(engine.as_ref());
        async move {
            let client = client.lane().await;
            Ok::<_, Failure>((name, pin(engine, &client, name, reference).await?))
        }
    });
    for one in join_all(jobs).await {
        let (name, moved) = one?;
        for (_, pin) in now.pins_mut().filter(|(of, _)| *of == *name) {
            *pin = moved.clone();
        }
    }
    Ok(now)
}

/// The engine, if it is one that sessions run on.
async fn reached(loaded: &Loaded) -> Result<Engine, EngineError> {
    let engine = Engine::connect(loaded.host.engine().clone()).await?;
    engine.info().await?.check()?;
    Ok(engine)
}

/// To the second.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

/// One reference, looked up: what only the engine has by its id there, anything else by the registry's digest.
async fn pin(
    engine: Option<Result<&Engine, &EngineError>>,
    client: &Client,
    name: &str,
    reference: &ImageRef,
) -> Result<Pin, Failure> {
    let resolved = now();
    if let (Some(Ok(engine)), "image", None) = (engine, name, reference.digest())
        && let Some(image) = engine.image(reference).await?
        && image.pinned.is_local()
    {
        return Ok(Pin {
            reference: reference.clone(),
            local: true,
            digest: image.id,
            media_type: String::new(),
            platforms: Default::default(),
            version: None,
            depends_on: Vec::new(),
            resolved,
            verified: None,
        });
    }
    let found: Resolved = client.resolve(reference).await.map_err(|e| {
        let failure = Failure::from(e).about(format!("{name} ({})", reference.as_str()));
        match engine {
            // It may be the engine's own, which the engine alone could have said.
            Some(Err(unreached)) if name == "image" => failure.after(unreached),
            _ => failure,
        }
    })?;
    if name == "image" && found.platforms.is_empty() {
        return Err(Failure::new(
            "no-image",
            format!("{} is not an image", reference.as_str()),
        ));
    }
    Ok(Pin {
        reference: reference.clone(),
        local: false,
        digest: found.digest,
        media_type: found.media_type,
        platforms: found.platforms,
        version: None,
        depends_on: Vec::new(),
        resolved,
        verified: None,
    })
}

fn changes(old: Option<&Lockfile>, pins: &[(String, Pin)]) -> Vec<Change> {
    let was = |name: &str| {
        old.and_then(|old| old.pins().find(|(of, _)| *of == name))
            .map(|(_, pin)| pin)
    };
    let mut out: Vec<Change> = pins
        .iter()
        .map(|(name, pin)| {
            let (name, reference) = (name.clone(), pin.reference.as_str().to_owned());
            match was(&name) {
                Some(old) if old.digest == pin.digest => Change::Kept {
                    name,
                    digest: pin.digest,
                },
                Some(old) => Change::Moved {
                    name,
                    reference,
                    from: old.digest,
                    to: pin.digest,
                },
                None => Change::Added {
                    name,
                    reference,
                    digest: pin.digest,
                },
            }
        })
        .collect();
    for (name, pin) in old.iter().flat_map(|old| old.pins()) {
        if !pins.iter().any(|(now, _)| *now == name) {
            out.push(Change::Removed {
                name: name.into_owned(),
                digest: pin.digest,
            });
        }
    }
    out
}

fn shown(pin: &Pin) -> String {
    let all: Vec<String> = pin.platforms.keys().map(ToString::to_string).collect();
    all.join(", ")
}

/// The locked image if the engine has it; where a plan looks at what is not locked yet, what the engine has by its name.
pub async fn present(engine: &Engine, loaded: &Loaded) -> Result<Option<Image>, Failure> {
    let Some(lock) = &loaded.lock else {
        return Ok(engine.image(&loaded.config.image.value).await?);
    };
    if lock.image.local {
        return local(engine, &lock.image).await.map(Some);
    }
    match engine.image(&pinned(&lock.image)?).await? {
        Some(image) => Ok(Some(image)),
        None => by_id(engine, loaded, &lock.image).await,
    }
}

/// The locked image under the id that its own manifest gives it: so it is where it came in a file, and no registry's digest with it.
async fn by_id(engine: &Engine, loaded: &Loaded, pin: &Pin) -> Result<Option<Image>, Failure> {
    let Some(manifest) = pin.manifest_for(&Platform::here()) else {
        return Ok(None);
    };
    let kept = registries::client(&loaded.places, &loaded.host, true)?;
    if kept.hold(pin).await.is_err() {
        return Ok(None);
    }
    // What is not in the cache was not brought along.
    let Ok(id) = kept
        .image_id(&Repository::of(&pin.reference), manifest)
        .await
    else {
        return Ok(None);
    };
    for id in [id, *manifest, pin.digest] {
        if let Some(image) = engine.image_by_id(&id).await? {
            return Ok(Some(image));
        }
    }
    Ok(None)
}

fn pinned(pin: &Pin) -> Result<ImageRef, Failure> {
    ImageRef::parse(&Repository::of(&pin.reference).at(&pin.digest))
        .map_err(|e| Failure::new("image", e.to_string()))
}

/// The locked image as the engine has it, pulled by its digest if it has to be, and compared with what was locked.
pub async fn image(
    engine: &Engine,
    loaded: &Loaded,
    progress: &mut (dyn FnMut(PullProgress) + Send),
) -> Result<Image, Failure> {
    let Some(lock) = &loaded.lock else {
        return Err(Failure::new(
            "not-locked",
            "nothing is run that is not locked",
        ));
    };
    let pin = &lock.image;
    if pin.local {
        return local(engine, pin).await;
    }
    let repository = Repository::of(&pin.reference);
    let pinned = pinned(pin)?;
    let client = registries::client(&loaded.places, &loaded.host, loaded.offline)?;
    match client.hold(pin).await {
        Err(RegistryError::Offline { .. }) => return Err(not_here(&pinned)),
        held => held?,
    };
    let image = match engine.image(&pinned).await? {
        Some(image) => image,
        None => {
            if let Some(image) = by_id(engine, loaded, pin).await? {
                return Ok(image);
            }
            if loaded.offline {
                return Err(not_here(&pinned));
            }
            let login = registries::login_for_engine(&pinned).await?;
            engine.pulled(&pinned, login, progress).await?
        }
    };
    compare(&image, pin, &repository, &client).await?;
    Ok(image)
}

fn not_here(pinned: &ImageRef) -> Failure {
    Failure::new(
        "image-not-here",
        format!("the engine does not have {pinned}, and the network is not to be used"),
    )
    .help(
        "`agentcontainer bundle import FILE` brings it from a file; without --offline it is pulled",
    )
}

/// By its name and its id: an id alone could be that of any image here.
async fn local(engine: &Engine, pin: &Pin) -> Result<Image, Failure> {
    let written = pin.reference.as_str();
    match engine.image(&pin.reference).await? {
        Some(image) if image.id == pin.digest => Ok(image),
        Some(image) => Err(Failure::new(
            "image-moved",
            format!(
                "{written} is {} on this engine now, and {} is locked",
                image.id, pin.digest
            ),
        )
        .help("`agentcontainer lock --update image` locks what it is now")),
        None => Err(Failure::new(
            "image-not-here",
            format!("{written} was locked as an image of one engine's own, and this engine has none by that name"),
        )
        .help("build it here and run `agentcontainer lock --update image`, or push it to a registry and lock that")),
    }
}

/// What an engine has under a digest is what the registry's manifest of that digest names.
async fn compare(
    image: &Image,
    pin: &Pin,
    repository: &Repository,
    client: &Client,
) -> Result<(), Failure> {
    let (os, architecture, variant) = &image.platform;
    let platform = Platform::new(os, architecture, Some(variant));
    let Some(manifest) = platform.as_ref().and_then(|p| pin.manifest_for(p)) else {
        return Err(Failure::new(
            "image-platform",
            format!(
                "{} was locked for {}, and the engine has it for {os}/{architecture}",
                pin.reference.as_str(),
                shown(pin)
            ),
        ));
    };
    let differs = |found: &Digest| {
        Failure::new(
            "image-differs",
            format!(
                "the engine's image {found} is not the one that was locked for {}",
                pin.reference.as_str()
            ),
        )
        .help("remove it from the engine (`docker image rm`) and run this again")
    };
    if image.pinned.digest != pin.digest {
        return Err(differs(&image.pinned.digest));
    }
    // Engines that keep what registries send know an image by its manifest or index, others by its configuration.
    if image.id == *manifest || image.id == pin.digest {
        return Ok(());
    }
    let expected = client
        .image_id(repository, manifest)
        .await
        .map_err(|e| Failure::from(e).about(pin.reference.as_str()))?;
    if image.id != expected {
        return Err(differs(&image.id));
    }
    Ok(())
}
