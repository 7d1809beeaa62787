//! `run AGENT`: a profile on top of the workspace's config, or in place of one. What it asks for becomes part of the config before
//! policy and review see it; where its program comes from is settled once the image is there.

use std::ffi::OsStr;
use std::io::Read;
use std::path::{Path, PathBuf};

use engine::Engine;
use engine::agent::{AgentParts, ProgramVolume, volume_name};
use engine::git::Doing;
use engine::identity;
use engine::image::Image;
use engine::npm::{MAX_NPMRC, registry_in};
use schema::config::agent::Domain;
use schema::config::{Config, DiscoverError, discover};
use schema::credential::Source;
use schema::diag::Position;
use schema::hostconfig::{Grant, HostConfig, Setting};
use schema::lockfile::{self, AgentPin};
use schema::organisation::Organisation;
use schema::profile::{
    Added, AddedCredential, INSTRUCTIONS, Install, Key, PROGRAM, Package, Profile,
};
use schema::provider::{self, Provider};
use serde::{Deserialize, Serialize};

use crate::grants;
use crate::loaded::Loaded;
use crate::lock;
use crate::places::{Places, make_private, write_private};
use crate::report::Failure;
use crate::trust;

/// A profile in one workspace, as it is known before its image is.
#[derive(Debug)]
pub struct Chosen {
    pub profile: &'static Profile,
    /// What is installed where the image does not have it and nothing is pinned.
    pub version: String,
    pub asked_version: bool,
    pub asked_image: bool,
    /// What runs where the workspace has no config.
    pub image: String,
    /// The workspace has none.
    pub brought: bool,
}

/// Where the program is, once the image is known.
#[derive(Debug)]
pub struct Settled {
    pub parts: AgentParts,
    pub command: Vec<String>,
    /// What is or has to be installed, and the volume that is for it; `None` where the image has it.
    pub install: Option<(Install, String)>,
}

/// What this host keeps of an installed program: the volume is the engine's, and nothing inside can write this.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Installed {
    volume: String,
    /// When the engine made the volume: one of the same name that was made later is empty.
    made: String,
    package: String,
    version: String,
    registry: String,
    pin: AgentPin,
}

/// The agent that was named, if one was.
pub fn chosen(
    name: Option<&str>,
    version: Option<String>,
    image: Option<String>,
) -> Result<Option<Chosen>, Failure> {
    let Some(name) = name else { return Ok(None) };
    let profile = schema::profile::named(name).map_err(|why| {
        Failure::new("unknown-agent", why).help(format!(
            "a program of the image goes behind `--`: agentcontainer run -- {name}"
        ))
    })?;
    Chosen::new(profile, version, image).map(Some)
}

impl Chosen {
    pub fn new(
        profile: &'static Profile,
        version: Option<String>,
        image: Option<String>,
    ) -> Result<Self, Failure> {
        let pinned = profile.package.as_ref().map(|package| package.version);
        let asked_version = version.is_some();
        let version = version.unwrap_or_else(|| pinned.unwrap_or_default().to_owned());
        let word = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let exact = version.split('.').count() == 3 && version.split('.').all(word);
        if (pinned.is_some() && !exact) || version.len() > 64 {
            return Err(Failure::new(
                "agent-version",
                format!("{version:?} is not an exact version, such as 1.2.3"),
            ));
        }
        Ok(Self {
            profile,
            version,
            asked_version,
            asked_image: image.is_some(),
            image: image.unwrap_or_else(|| profile.image.to_owned()),
            brought: false,
        })
    }
}

/// The workspace's config with the profile on top of it, or the profile's own where there is none.
pub fn load(chosen: &mut Chosen, explicit: Option<&Path>) -> Result<Loaded, Failure> {
    load_under(chosen, explicit, Vec::new())
}

/// The same under further policies, from files.
pub fn load_under(
    chosen: &mut Chosen,
    explicit: Option<&Path>,
    local: Vec<Organisation>,
) -> Result<Loaded, Failure> {
    let profile = chosen.profile;
    Loaded::read_with(explicit, local, |workspace, wanted, host| {
        let config = match discover::discover(workspace, wanted) {
            Ok(found) if chosen.asked_image => {
                return Err(Failure::new(
                    "conflicting-image",
                    format!(
                        "{} names the image; `--image` is for a workspace without a config",
                        found.name
                    ),
                ));
            }
            Ok(found) => schema::config::parse(&found.bytes, &found.name)?,
            Err(DiscoverError::None(_)) => {
                chosen.brought = true;
                brought(profile, &chosen.image)?
            }
            Err(error) => return Err(Failure::from(schema::diag::Diagnostic::from(error))),
        };
        add(profile, config, host, &|name| {
            is_key(std::env::var_os(name).as_deref())
        })
    })
}

/// A variable that is set to nothing holds no key.
fn is_key(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| !value.is_empty())
}

/// What stands in for a config where a workspace has none.
fn brought(profile: &Profile, image: &str) -> Result<Config, Failure> {
    let text = serde_json::json!({ "image": image }).to_string();
    Ok(schema::config::parse(
        text.as_bytes(),
        &format!("profile {}", profile.name),
    )?)
}

/// The config with what the profile asks for, and the host's grants with what approving that grants.
fn add(
    profile: &'static Profile,
    mut config: Config,
    host: &mut HostConfig,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<Config, Failure> {
    let mut added = Added {
        profile,
        domains: domains(profile.hosts),
        credential: None,
        env: profile.variables(),
        install: None,
    };
    if !profile.credentials.is_empty() {
        let (credential, grant) = credential(profile, &config, host, is_set)?;
        for domain in grant {
            if !added.domains.contains(&domain) {
                added.domains.push(domain);
            }
        }
        if let Some(offered) = credential.as_ref().and_then(|c| c.offered.as_ref())
            && let Some(credential) = &credential
        {
            let provider = provider::named(credential.name.as_str());
            let grant = Grant {
                paths: Vec::new(),
                methods: Vec::new(),
                source: offered.source.clone(),
                hosts: offered.hosts.clone(),
                header: provider.map_or_else(Default::default, Provider::field),
                format: provider.map_or_else(Default::default, Provider::form),
                query: provider.and_then(Provider::parameter),
                env: None,
            };
            let setting = Setting {
                value: grant,
                file: added.origin(),
                at: Position { line: 1, column: 1 },
            };
            host.credentials.insert(credential.name.clone(), setting);
        }
        added.credential = credential;
    }
    config.profile = Some(added);
    Ok(config)
}

/// The first credential that the agent works with and this host has, and the hosts it goes to.
fn credential(
    profile: &Profile,
    config: &Config,
    host: &HostConfig,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<(Option<AddedCredential>, Vec<Domain>), Failure> {
    let made = |key: &Key, offered| {
        Some(AddedCredential {
            name: key.name.parse().ok()?,
            env: key.env.parse().ok()?,
            offered,
        })
    };
    for key in profile.credentials {
        // The workspace has one of its own for that variable, which the host grants or not.
        let own = config
            .agent
            .credentials
            .values()
            .any(|c| c.env.as_ref().is_some_and(|env| env.as_str() == key.env));
        if own {
            return Ok((None, domains(provider_hosts(key))));
        }
    }
    for key in profile.credentials {
        if let Some(grant) = host.credentials.get(key.name) {
            return Ok((made(key, None), reached(&grant.value, key)));
        }
    }
    for key in profile.credentials {
        if is_set(key.env) {
            let hosts = domains(provider_hosts(key));
            let offer = schema::profile::Offer {
                source: Source::Env(key.env.to_owned()),
                hosts: hosts.clone(),
            };
            return Ok((made(key, Some(offer)), hosts));
        }
    }
    let variables: Vec<&str> = profile.credentials.iter().map(|key| key.env).collect();
    let tables: Vec<String> = profile
        .credentials
        .iter()
        .map(|key| format!("[credentials.{}]", key.name))
        .collect();
    Err(Failure::new(
        "no-credential",
        format!(
            "{} needs a credential, and this host has none for it",
            profile.title
        ),
    )
    .help(format!(
        "set {} here, or grant it in config.toml, under {}, with its `source`",
        variables.join(" or "),
        tables.join(" or ")
    )))
}

/// Records what approving the review granted, and has the approval be about the rest: a grant that is taken back is offered anew.
pub fn keep_grant(loaded: &mut Loaded) -> Result<(), Failure> {
    let added = loaded.config.profile.as_mut();
    let Some(credential) = added.and_then(|added| added.credential.as_mut()) else {
        return Ok(());
    };
    let granted = loaded.host.credentials.get(credential.name.as_str());
    if let (Some(_), Some(grant)) = (credential.offered.take(), granted) {
        grants::record(
            &loaded.places,
            &loaded.workspace,
            &credential.name,
            &grant.value,
        )?;
        trust::approve(loaded)?;
    }
    Ok(())
}

fn provider_hosts(key: &Key) -> &'static [&'static str] {
    provider::named(key.name).map_or(&[], |provider| provider.hosts)
}

/// Names, each at port 443.
fn domains(names: &[&str]) -> Vec<Domain> {
    let parsed = names.iter().filter_map(|name| name.parse::<Domain>().ok());
    parsed
        .map(|domain| Domain {
            port: domain.port.or(Some(443)),
            ..domain
        })
        .collect()
}

/// Where a grant's credential is needed: the names it says, and its provider's where it says a pattern that they are within.
fn reached(grant: &Grant, key: &Key) -> Vec<Domain> {
    use schema::host::HostPattern;
    let mut out = Vec::new();
    for host in &grant.hosts {
        let port = Some(host.https_port());
        match &host.host {
            HostPattern::Exact(_) => out.push(Domain {
                host: host.host.clone(),
                port,
            }),
            pattern => out.extend(
                domains(provider_hosts(key))
                    .into_iter()
                    .filter(|domain| pattern.matches(domain.host.name()) && domain.port == port),
            ),
        }
    }
    out
}

/// Finds the agent's program in the image, in what was installed before, or where to install it from. Nothing is run for that.
pub async fn settle(
    chosen: &Chosen,
    loaded: &Loaded,
    engine: &Engine,
    image: &Image,
    doing: Doing,
) -> Result<Settled, Failure> {
    let profile = chosen.profile;
    let program = profile.command.first().copied().unwrap_or_default();
    let contents = engine.contents(image, &loaded.places.images()).await?;
    let identity = identity::choose(
        loaded.config.user().map(|u| u.value.as_str()),
        &image.user,
        loaded.owner,
        &contents.accounts,
    )
    .map_err(|e| Failure::new("user", e.to_string()))?;
    let state_dir = loaded.places.state.display().to_string();
    let workspace = loaded.workspace.display().to_string();
    let uid = identity.uid.to_string();
    let mut settled = Settled {
        parts: AgentParts {
            state: Some(volume_name(
                profile,
                &[&state_dir, "state", &workspace, &uid],
            )),
            program: None,
            instructions: profile.instructions.map(|file| (file, INSTRUCTIONS)),
            alone: false,
        },
        command: profile
            .command
            .iter()
            .map(|&word| word.to_owned())
            .collect(),
        install: None,
    };
    let tools = engine.tools(image, program).await?;
    if tools.program {
        return Ok(settled);
    }
    let Some(package) = &profile.package else {
        return Err(Failure::new(
            "agent-not-found",
            format!("the image has no {program}"),
        ));
    };
    if !tools.npm {
        return Err(Failure::new(
            "agent-not-found",
            format!("the image has neither {program} nor npm to install it with"),
        )
        .about(loaded.config.image.as_str().to_owned())
        .help(format!(
            "use an image that has one of them: `npm install -g {}@{}` in its Dockerfile, or one such as {}",
            package.name, chosen.version, profile.image
        )));
    }
    let of_project = project_registry(&loaded.workspace)?;
    // What one workspace has installed from a registry of its own is no other's to run.
    let whose = of_project.as_ref().map_or("", |_| workspace.as_str());
    let url = of_project.or(tools.registry).ok_or_else(|| {
        Failure::new(
            "npm-registry",
            "npm in the image does not say which registry it installs from",
        )
        .help("say so in its /etc/npmrc or the project's .npmrc, `registry=https://…/`, or in the image's NPM_CONFIG_REGISTRY")
    })?;
    let pin = pinned(chosen, package, loaded)?;
    let version = pin.as_ref().map_or(&chosen.version, |pin| &pin.version);
    let mut install = install(package, version, &url)?;
    let id = image.id.to_string();
    let of = [state_dir.as_str(), &id, &uid, whose];
    let mut volume = program_volume(profile, &install, &of);
    let mut found = installed(&loaded.places, engine, &volume, &install).await?;
    if pin.is_none() && lock::agents::is_taken_away(loaded, chosen.brought, profile.name) {
        // What the pin was taken away from, or older; what is installed in its place is what the registry has now.
        found = None;
        if doing == Doing::Write {
            forget_installed(&loaded.places, &volume)?;
            lock::agents::give_back(loaded, chosen.brought, profile.name);
        }
    }
    if let Some(pin) = pin {
        // What another workspace's lockfile says is no word on what this one's does.
        if found.as_ref() != Some(&pin) {
            let digest = pin.digest().to_string();
            let of = [&of[..], &[&digest]].concat();
            volume = program_volume(profile, &install, &of);
            found = installed(&loaded.places, engine, &volume, &install).await?;
            found = found.filter(|found| *found == pin);
        }
        install.done = found.is_some();
        install.pin = Some(pin);
    } else {
        install.done = found.is_some();
        install.pin = found;
    }
    settled.parts.program = Some(ProgramVolume {
        name: volume.clone(),
        writable: false,
        files: Vec::new(),
    });
    settled.command[0] = format!("{PROGRAM}/node_modules/.bin/{program}");
    settled.install = Some((install, volume));
    Ok(settled)
}

/// What the lockfile says of it; another version can be had by moving the pin alone.
fn pinned(
    chosen: &Chosen,
    package: &Package,
    loaded: &Loaded,
) -> Result<Option<AgentPin>, Failure> {
    let name = chosen.profile.name;
    let lockfile = match &loaded.lock {
        Some(lockfile) => Some(lockfile.clone()),
        // A plan has none.
        None => lock::read(&lock::path(loaded, chosen.brought))?,
    };
    let Some(pin) = lockfile.and_then(|mut lockfile| lockfile.agents.remove(name)) else {
        return Ok(None);
    };
    let wrong = if pin.package != package.name {
        format!("{name} is {}, and {} is locked", package.name, pin.package)
    } else if chosen.asked_version && pin.version != chosen.version {
        format!(
            "{} {} is locked, and {} was asked for",
            pin.package, pin.version, chosen.version
        )
    } else {
        return Ok(Some(pin));
    };
    Err(Failure::new("agent-version", wrong).help(move_pin(name, chosen.brought)))
}

/// How a person has the next run pin an agent anew.
pub fn move_pin(name: &str, brought: bool) -> String {
    if brought {
        format!("`agentcontainer run --lock {name}` pins it anew")
    } else {
        format!(
            "`agentcontainer lock --update {}` has the next `agentcontainer run {name}` pin it anew",
            lockfile::agent_pin(name)
        )
    }
}

/// By what was installed and where from, beside what it is for.
fn program_volume(profile: &Profile, install: &Install, of: &[&str]) -> String {
    let what = [
        "program",
        &install.package,
        &install.version,
        &install.registry,
    ];
    volume_name(profile, &[&what, of].concat())
}

fn install(package: &Package, version: &str, url: &str) -> Result<Install, Failure> {
    let wrong = || {
        Failure::new(
            "npm-registry",
            format!("npm's registry {url} cannot be used: it has to be https://NAME/, without a user in it"),
        )
        .help("see `registry` in the project's .npmrc")
    };
    let rest = url.strip_prefix("https://").ok_or_else(wrong)?;
    let authority = rest.split('/').next().unwrap_or_default();
    let plain = url
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"'`$\\?#@".contains(&b));
    let host: Domain = authority.parse().map_err(|_| wrong())?;
    if !plain || url.len() > 2048 || !matches!(host.host, schema::host::HostPattern::Exact(_)) {
        return Err(wrong());
    }
    Ok(Install {
        package: package.name.to_owned(),
        version: version.to_owned(),
        registry: url.to_owned(),
        host: Domain {
            port: Some(host.https_port()),
            ..host
        },
        pin: None,
        done: false,
    })
}

/// What the project's own `.npmrc` says. It is the workspace's word, and shown in review as such.
fn project_registry(workspace: &Path) -> Result<Option<String>, Failure> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = workspace.join(".npmrc");
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(&path);
    let Ok(file) = file else { return Ok(None) };
    let io = |e: std::io::Error| Failure::io("read", &path, &e);
    if !file.metadata().map_err(io)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_NPMRC as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() > MAX_NPMRC {
        return Err(Failure::new(
            "too-large",
            format!("{} has more than {MAX_NPMRC} bytes", path.display()),
        ));
    }
    Ok(registry_in(&String::from_utf8_lossy(&bytes)))
}

// === what is installed ===

fn record_of(places: &Places, volume: &str) -> PathBuf {
    places.state.join("agents").join(format!("{volume}.json"))
}

/// What that volume holds of that very program, whole; `None` where it does not.
pub async fn installed(
    places: &Places,
    engine: &Engine,
    volume: &str,
    install: &Install,
) -> Result<Option<AgentPin>, Failure> {
    let Ok(bytes) = std::fs::read(record_of(places, volume)) else {
        return Ok(None);
    };
    let Ok(known) = serde_json::from_slice::<Installed>(&bytes) else {
        return Ok(None);
    };
    let made = engine.volume_made(volume).await?;
    let whole =
        made.is_some_and(|made| known == Installed::new(volume, made, install, known.pin.clone()));
    Ok(whole.then_some(known.pin))
}

/// Has what lies in the volume be no more than what is to be replaced.
fn forget_installed(places: &Places, volume: &str) -> Result<(), Failure> {
    let path = record_of(places, volume);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::io("remove", &path, &e)),
        _ => Ok(()),
    }
}

/// Notes that what lies in the volume is whole, and what it is.
pub async fn note_installed(
    places: &Places,
    engine: &Engine,
    volume: &str,
    install: &Install,
    pin: AgentPin,
) -> Result<(), Failure> {
    let Some(made) = engine.volume_made(volume).await? else {
        return Err(Failure::new(
            "agent-install",
            format!("the volume {volume} is gone"),
        ));
    };
    make_private(&places.state.join("agents"))?;
    let installed = Installed::new(volume, made, install, pin);
    let bytes = serde_json::to_vec(&installed).unwrap_or_default();
    write_private(&record_of(places, volume), &bytes)
}

/// Has the config know what was installed.
pub fn know_pin(loaded: &mut Loaded, pin: Option<AgentPin>) {
    let added = loaded.config.profile.as_mut();
    if let Some(install) = added.and_then(|added| added.install.as_mut()) {
        install.pin = pin;
    }
}

impl Installed {
    fn new(volume: &str, made: String, install: &Install, pin: AgentPin) -> Self {
        Self {
            volume: volume.to_owned(),
            made,
            package: install.package.clone(),
            version: install.version.clone(),
            registry: install.registry.clone(),
            pin,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claude() -> &'static Profile {
        schema::profile::named("claude").unwrap()
    }

    fn added(config: &str, host: &str, set: &[&str]) -> Result<(Added, HostConfig), Failure> {
        let config = schema::config::parse(config.as_bytes(), "agentcontainer.json").unwrap();
        let mut host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
        let config = add(claude(), config, &mut host, &|name| set.contains(&name))?;
        Ok((config.profile.unwrap(), host))
    }

    fn hosts(added: &Added) -> Vec<String> {
        added.domains.iter().map(ToString::to_string).collect()
    }

    const NONE: &str = r#"{ "image": "x" }"#;

    #[test]
    fn a_grant_comes_before_a_variable_and_the_first_of_either_is_taken() {
        let token = "[credentials.claude]\nsource = \"file:///t\"\n";
        let (of_grant, _) = added(NONE, token, &["ANTHROPIC_API_KEY"]).unwrap();
        let credential = of_grant.credential.as_ref().unwrap();
        assert_eq!(
            (credential.name.as_str(), credential.env.as_str()),
            ("claude", "CLAUDE_CODE_OAUTH_TOKEN")
        );
        assert!(credential.offered.is_none());
        assert_eq!(hosts(&of_grant), ["api.anthropic.com:443"]);

        let both = ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN"];
        let (offered, host) = added(NONE, "", &both).unwrap();
        let credential = offered.credential.unwrap();
        let offer = credential.offered.unwrap();
        assert_eq!(offer.source.to_string(), "env://ANTHROPIC_API_KEY");
        let grant = &host.credentials["anthropic"].value;
        assert_eq!(
            (grant.header.as_str(), grant.format.prefix()),
            ("x-api-key", "")
        );

        let none = added(NONE, "", &[]).unwrap_err();
        assert_eq!(none.diagnostics[0].code, "no-credential");
        // The workspace has its own for that variable.
        let own = r#"{ "image": "x", "agent": { "credentials": { "mine": { "env": "ANTHROPIC_API_KEY" } } } }"#;
        assert!(added(own, "", &both).unwrap().0.credential.is_none());
    }

    #[test]
    fn a_grant_says_where_its_agent_goes_and_a_pattern_opens_its_provider_alone() {
        let grant = |names: &str| {
            let host = format!("[credentials.anthropic]\nsource = \"env://K\"\nhosts = {names}\n");
            hosts(&added(NONE, &host, &[]).unwrap().0)
        };
        assert_eq!(grant("[\"llm.corp:8443\"]"), ["llm.corp:8443"]);
        assert_eq!(grant("[\"*.anthropic.com\"]"), ["api.anthropic.com:443"]);
        assert_eq!(grant("[\"*.llm.corp\"]"), [""; 0]);
    }

    #[test]
    fn a_registry_is_a_name_reached_by_https_and_nothing_a_shell_would_read() {
        let package = claude().package.as_ref().unwrap();
        let of = |url: &str| install(package, "1.2.3", url).map(|i| i.host.to_string());
        assert_eq!(of("https://npm.corp/").unwrap(), "npm.corp:443");
        assert_eq!(of("https://npm.corp:8443/a/b/").unwrap(), "npm.corp:8443");
        for url in [
            "",
            "http://npm.corp/",
            "https://",
            "https://10.0.0.1/",
            "https://*.corp/",
            "https://user:pw@npm.corp/",
            "https://npm.corp/$(x)",
            "https://npm.corp/a b",
            "https://npm.corp/?x",
            "undefined",
        ] {
            assert!(of(url).is_err(), "{url}");
        }
        let long = format!("https://npm.corp/{}", "x".repeat(2048));
        assert!(of(&long).is_err());
    }

    #[test]
    fn a_program_is_another_by_its_registry_and_by_the_workspace_that_named_it() {
        let package = claude().package.as_ref().unwrap();
        let from = |url: &str, whose: &str| {
            let install = install(package, "1.2.3", url).unwrap();
            let name = program_volume(claude(), &install, &["/state", "sha256:1", "1000", whose]);
            (name, install)
        };
        let (ours, install) = from("https://npm.corp/", "");
        assert_eq!(from("https://npm.corp/", "").0, ours);
        let others = [
            from("https://evil.example/", "").0,
            from("https://npm.corp/", "/work/a").0,
            from("https://npm.corp/", "/work/b").0,
        ];
        let all: std::collections::BTreeSet<_> = others.iter().chain([&ours]).collect();
        assert_eq!(all.len(), 4);
        // Nor is a record of another program, by whatever name, one of this.
        let pin = AgentPin {
            package: install.package.clone(),
            version: install.version.clone(),
            packages: Default::default(),
        };
        let known =
            |install: &Install| Installed::new(&ours, "then".to_owned(), install, pin.clone());
        let evil = from("https://evil.example/", "").1;
        assert_ne!(known(&evil), known(&install));
    }

    #[test]
    fn a_projects_npmrc_is_read_for_its_registry_alone() {
        let text = "; registry=https://no/\n@scope:registry=https://scope/\nregistry = \"https://npm.corp/\"\n//npm.corp/:_authToken=t\n";
        assert_eq!(registry_in(text).as_deref(), Some("https://npm.corp/"));
        assert_eq!(registry_in("audit=false\n"), None);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(project_registry(dir.path()).unwrap(), None);
        let path = dir.path().join(".npmrc");
        std::fs::write(&path, "x".repeat(MAX_NPMRC)).unwrap();
        assert_eq!(project_registry(dir.path()).unwrap(), None);
        std::fs::write(&path, "x".repeat(MAX_NPMRC + 1)).unwrap();
        assert!(project_registry(dir.path()).is_err());
    }

    #[test]
    fn a_variable_set_to_nothing_is_no_key() {
        assert!(is_key(Some(OsStr::new("k"))));
        assert!(!is_key(Some(OsStr::new(""))) && !is_key(None));
    }

    #[test]
    fn a_version_is_exact() {
        let of = |version: &str| Chosen::new(claude(), Some(version.to_owned()), None).is_ok();
        assert!(of("1.2.3") && of("0.169.0-beta"));
        for version in ["", "latest", "1.2", "^1.2.3", "1.2.3 x", "1..3", "1.2.3.4"] {
            assert!(!of(version), "{version}");
        }
    }
}
