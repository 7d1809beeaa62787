//! Installs an agent that an image does not have: npm of the same image, in a session of its own that sees neither the workspace
//! nor a credential and reaches the registry alone. What it leaves is a volume that later sessions can only read.

use std::fs::{File, TryLockError};
use std::time::Duration;

use engine::Engine;
use engine::agent::{AgentParts, ProgramVolume};
use engine::git::Doing;
use engine::image::Image;
use schema::config::agent::{Action, Domain, Rule};
use schema::diag::{Position, Spanned};
use schema::host::HostPattern;
use schema::lockfile::AgentPin;
use schema::profile::{Added, Install, PROGRAM};
use schema::session::SessionId;
use tokio::sync::watch;

use crate::agent::{self, Chosen, Settled};
use crate::channel::{self, Enforcer};
use crate::loaded::Loaded;
use crate::lock;
use crate::places::make_private;
use crate::relay::Signals;
use crate::report::{self, Failure};
use crate::start::{self, Asked};
use crate::{session, trust};

/// The last of what npm said that is shown where it fails, in bytes.
const SHOWN: usize = 4096;
/// How long a registry's files may take.
const DEADLINE: Duration = Duration::from_secs(30 * 60);

/// npm puts it where the volume is, from the registry that was reviewed: one that the image names for the package's scope would win
/// over `--registry` alone. What is pinned lies there as npm's own lockfile, which `npm ci` holds to; else npm writes one. Package
/// scripts are off, and what one of them would have done is done by node alone.
const SCRIPT: &str = r#"
set -eu
cd "$1"
case "$3" in @*/*) scope="--${3%%/*}:registry=$2" ;; *) scope=--no-audit ;; esac
if [ -e package-lock.json ]; then how=ci; set -- "$@" ci; else how=install; set -- "$@" install "$3@$4"; fi
package=$3 program=$5 finish=$6 whole=$7 into=$1 registry=$2
shift 7
npm "$@" --prefix "$into" --cache /tmp/.npm --registry "$registry" "$scope" --package-lock --ignore-scripts --no-audit --no-fund \
  --no-update-notifier --loglevel error --no-progress
node -e "$whole" "$how"
if [ -n "$finish" ]; then cd "node_modules/$package" && node "$finish" && cd "$into"; fi
test -x "node_modules/.bin/$program"
"#;

/// Of an optional package whose bytes are refused, or that is not served, npm says nothing: it leaves it out (arborist, `reify.js`). What is
/// pinned and made for this platform is there, or nothing counts as installed. What npm settled just now leaves out builds for another C
/// library, about which its lockfile need not say: of what one package could take, one is there. What only packages for another platform need
/// is left out with them (arborist, `build-ideal-tree.js`).
const WHOLE: &str = r#"
const read = (file) => {
  try { return JSON.parse(require("fs").readFileSync(file, "utf8")).packages || {}; } catch { return {}; }
};
const [wanted, there] = ["package-lock.json", "node_modules/.package-lock.json"].map(read);
const fits = (list, own) => {
  const all = [].concat(list || []);
  const named = all.filter((one) => one[0] !== "!");
  return !all.includes("!" + own) && (!named.length || named.includes(own) || named.includes("any"));
};
const libc = () => {
  process.report.excludeNetwork = true;
  const report = process.report.getReport();
  if (report.header.glibcVersionRuntime) return "glibc";
  return (report.sharedObjects || []).some((one) => /libc\.musl-|ld-musl-/.test(one)) ? "musl" : "";
};
const isOurs = (of) => fits(of.os, process.platform) && fits(of.cpu, process.arch)
  && (![].concat(of.libc || []).length || fits(of.libc, libc()));
const find = (from, name) => {
  for (let at = from; ; at = at.slice(0, Math.max(at.lastIndexOf("/node_modules/"), 0))) {
    const place = (at && at + "/") + "node_modules/" + name;
    if (wanted[place]) return place;
    if (!at) return;
  }
};
const needed = new Set([""]);
for (const place of needed) {
  const of = wanted[place] || {};
  for (const name of Object.keys({ ...of.dependencies, ...of.optionalDependencies, ...of.peerDependencies })) {
    const found = find(place, name);
    if (found && isOurs(wanted[found])) needed.add(found);
  }
}
const isWanted = (place) => place && isOurs(wanted[place]) && (!wanted[place].optional || needed.has(place));
const ours = Object.keys(wanted).filter(isWanted);
let absent = ours.filter((place) => !there[place]);
if (process.argv[1] !== "ci") {
  const places = (name) => ours.filter((place) => place.endsWith("node_modules/" + name));
  const choices = Object.values(wanted).map((of) => Object.keys(of.optionalDependencies || {}).flatMap(places));
  const without = choices.filter((all) => !all.some((place) => there[place])).flat();
  absent = absent.filter((place) => !wanted[place].optional || without.includes(place));
}
if (absent.length) {
  console.error("NOTWHOLE " + absent.join(", "));
  process.exit(1);
}
"#;

/// Whether anything may be done yet.
#[derive(Clone, Copy, Debug)]
pub enum How {
    Plan,
    Run { yes: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// What is there now, if it was npm that put it there.
    Installed(Option<AgentPin>),
    /// A signal ended it.
    Told(i32),
}

/// Settles where the agent's program is, and has what that asks for become part of the config. What is returned is the volume that
/// it has to be installed into first. A workspace's own image is reviewed before it is pulled, and nothing of an image is run.
pub async fn settle(
    chosen: &Chosen,
    loaded: &mut Loaded,
    asked: &mut Asked,
    how: How,
) -> Result<Option<String>, Failure> {
    let engine = Engine::connect(loaded.host.engine().clone()).await?;
    let doing = match how {
        How::Plan => Doing::Look,
        How::Run { .. } => Doing::Write,
    };
    let image = image(chosen, loaded, &engine, how).await?;
    let Settled {
        parts,
        mut command,
        install,
    } = agent::settle(chosen, loaded, &engine, &image, doing).await?;
    command.append(&mut asked.command);
    asked.command = command;
    asked.agent = Some(parts);
    let Some((install, volume)) = install else {
        return Ok(None);
    };
    let done = install.done;
    if let Some(added) = &mut loaded.config.profile {
        added.install = Some(install);
    }
    Ok((!done).then_some(volume))
}

async fn image(
    chosen: &Chosen,
    loaded: &Loaded,
    engine: &Engine,
    how: How,
) -> Result<Image, Failure> {
    let reference = &loaded.config.image.value;
    if let Some(image) = lock::present(engine, loaded).await? {
        return Ok(image);
    }
    let How::Run { yes } = how else {
        return Err(Failure::new(
            "image-not-found",
            format!(
                "{} is not on this machine, and a plan pulls nothing",
                reference.as_str()
            ),
        )
        .help("`agentcontainer run` pulls it, or `docker pull` does"));
    };
    // Nothing is fetched on a workspace's behalf before it was reviewed; a profile's own image is none of a workspace's.
    if !chosen.brought {
        trust::require(loaded, yes)?;
    }
    let (_stop, mut stopped) = watch::channel(false);
    start::resolve(engine, loaded, &mut stopped).await
}

/// Installs what the config's profile says into the volume.
pub async fn run(loaded: &Loaded, volume: &str, signals: &mut Signals) -> Result<Done, Failure> {
    let wanted = loaded
        .config
        .profile
        .as_ref()
        .and_then(|added| Some((added, added.install.as_ref()?)));
    let Some((added, install)) = wanted else {
        return Ok(Done::Installed(None));
    };
    let _one = one_at_a_time(loaded, volume)?;
    let engine = Engine::connect(loaded.host.engine().clone()).await?;
    // Another may have, since this one looked.
    let found = agent::installed(&loaded.places, &engine, volume, install).await?;
    if let Some(found) = found
        && install.pin.as_ref().is_none_or(|pin| *pin == found)
    {
        return Ok(Done::Installed(Some(found)));
    }
    if loaded.offline {
        return Err(Failure::new(
            "agent-install",
            format!(
                "{} {} is not installed here, and `--offline` asks no registry for it",
                install.package, install.version
            ),
        )
        .help("run it once without --offline, or use an image that has it"));
    }
    // What is there is not known to be whole.
    engine.remove_volume(volume).await?;
    let alone = alone(loaded, install)?;
    let asked = Asked {
        command: command(added, install),
        agent: Some(AgentParts {
            program: Some(ProgramVolume {
                name: volume.to_owned(),
                writable: true,
                files: install
                    .pin
                    .as_ref()
                    .map(|pin| pin.files().to_vec())
                    .unwrap_or_default(),
            }),
            alone: true,
            ..AgentParts::default()
        }),
        ..Asked::default()
    };
    report::note(format!(
        "installing {} {} from {}",
        install.package, install.version, install.registry
    ));
    let mut record = start::record_of(&alone, &asked)?;
    record.save(&loaded.places)?;
    let (stop, stopped) = watch::channel(false);
    let mut up = None;
    let ended = {
        let mut working = std::pin::pin!(work(&alone, &asked, &record, stopped, &mut up));
        tokio::select! {
            ended = &mut working => ended.map(Ok),
            number = signals.stop() => {
                let _ = stop.send(true);
                Ok(Err(number))
            }
            () = tokio::time::sleep(DEADLINE) => Err(Failure::new(
                "agent-install",
                format!("npm did not end within {} minutes", DEADLINE.as_secs() / 60),
            )),
        }
    };
    let mut enforcer = match up {
        Some(enforcer) => Some(enforcer),
        None => enforcer_of(loaded).await,
    };
    let closed = session::end(
        Some(&engine),
        enforcer.as_mut(),
        &loaded.places,
        &mut record,
        "ended",
    )
    .await;
    let ended = match ended? {
        Ok(ended) => ended,
        Err(number) => return Ok(Done::Told(number)),
    };
    closed?;
    if ended.status != 0 {
        return Err(failed(added, install, loaded, &ended, &record.session));
    }
    let pin = match &install.pin {
        Some(pin) => pin.clone(),
        None => {
            AgentPin::of_npm(&ended.lock, &install.package, &install.version).map_err(|why| {
                Failure::new(
                    "agent-install",
                    format!(
                        "{} {} cannot be pinned: {why}",
                        install.package, install.version
                    ),
                )
                .help(format!(
                    "use an image that has {}, or one with a later npm",
                    added.profile.name
                ))
            })?
        }
    };
    agent::note_installed(&loaded.places, &engine, volume, install, pin.clone()).await?;
    Ok(Done::Installed(Some(pin)))
}

/// What npm says where what a registry serves is not what is pinned.
fn failed(
    added: &Added,
    install: &Install,
    loaded: &Loaded,
    ended: &Ended,
    session: &SessionId,
) -> Failure {
    let (said, name) = (ended.said.trim(), added.profile.name);
    if let Some((_, absent)) = said.rsplit_once("NOTWHOLE ") {
        let brought = loaded.config.file == added.origin();
        let (code, why) = match install.pin {
            Some(_) => (
                "agent-pin",
                "other bytes than were pinned when it was first installed, or none",
            ),
            None => ("agent-install", "none, or other bytes than it says itself"),
        };
        return Failure::new(
            code,
            format!(
                "{} serves {why} for what {} {} needs, and npm left it out: {absent}",
                install.registry, install.package, install.version
            ),
        )
        .help(format!(
            "nothing was installed; try again where the registry could not be reached, else ask whoever runs it. If you know why: {}",
            agent::move_pin(name, brought)
        ));
    }
    if install.pin.is_some() && said.contains("EINTEGRITY") {
        let brought = loaded.config.file == added.origin();
        return Failure::new(
            "agent-pin",
            format!(
                "{} serves other bytes for {} {}, or for something it needs, than were pinned when it was first installed: {said}",
                install.registry, install.package, install.version
            ),
        )
        .help(format!(
            "nothing was installed; a published version does not change, so ask whoever runs the registry. If you know why: {}",
            agent::move_pin(name, brought)
        ));
    }
    Failure::new(
        "agent-install",
        format!(
            "npm could not install {} {}: {said}",
            install.package, install.version
        ),
    )
    .help(format!(
        "`agentcontainer logs --network {session}` shows what it reached and was refused"
    ))
}

fn one_at_a_time(loaded: &Loaded, volume: &str) -> Result<File, Failure> {
    let dir = loaded.places.state.join("agents");
    make_private(&dir)?;
    let path = dir.join(format!("{volume}.lock"));
    let file = File::create(&path).map_err(|e| Failure::io("open", &path, &e))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::new(
            "agent-install",
            "another `agentcontainer run` is installing this agent",
        )
        .help("run this again when that one has started")),
        Err(TryLockError::Error(e)) => Err(Failure::io("lock", &path, &e)),
    }
}

fn command(added: &Added, install: &Install) -> Vec<String> {
    let profile = added.profile;
    let finish = profile.package.as_ref().and_then(|package| package.finish);
    let program = profile.command.first().copied().unwrap_or_default();
    [
        "sh",
        "-c",
        SCRIPT,
        "install",
        PROGRAM,
        &install.registry,
        &install.package,
        &install.version,
        program,
        finish.unwrap_or_default(),
        WHOLE,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The same image and user, without anything else that the workspace or the profile asks for but its denials, its
/// rules about the registry and how strictly it is looked through.
fn alone(loaded: &Loaded, install: &Install) -> Result<Loaded, Failure> {
    let workspace = loaded.places.state.join("agents").join("nothing");
    make_private(&workspace)?;
    let text = serde_json::json!({ "image": loaded.config.image.as_str() }).to_string();
    let mut config = schema::config::parse(text.as_bytes(), &loaded.config.file)?;
    config.container_user = loaded.config.container_user.clone();
    config.remote_user = loaded.config.remote_user.clone();
    let egress = &mut config.agent.capabilities.network.egress;
    let at = Position { line: 1, column: 1 };
    egress.allowed_domains = vec![Spanned::new(
        Domain {
            host: install.host.host.clone(),
            port: install.host.port,
        },
        at,
    )];
    let asked = loaded.config.agent.egress();
    egress.denied_domains = asked.denied_domains.clone();
    egress.rules = kept(&asked.rules, &install.host.host);
    config.agent.inspection = loaded.config.agent.inspection.clone();
    let held = policy::organisation::hold(&config, &loaded.host, &loaded.organisations)?;
    held.limits.clone().apply(&mut config);
    Ok(Loaded {
        places: loaded.places.clone(),
        repository: Default::default(),
        workspace,
        owner: loaded.owner,
        config,
        host: loaded.host.clone(),
        organisations: loaded.organisations.clone(),
        policy: held.policy,
        requirements: held.requirements,
        limits: held.limits,
        remarks: held.remarks,
        lock: loaded.lock.clone(),
        ungranted: loaded.ungranted,
        offline: loaded.offline,
    })
}

/// Denials, and whatever the workspace rules about the registry's own name.
fn kept(rules: &[Spanned<Rule>], registry: &HostPattern) -> Vec<Spanned<Rule>> {
    let is_kept =
        |rule: &&Spanned<Rule>| rule.action == Action::Deny || rule.host.matches(registry.name());
    rules.iter().filter(is_kept).cloned().collect()
}

/// The enforcer that runs, if the session came no further.
async fn enforcer_of(loaded: &Loaded) -> Option<Enforcer> {
    let sidecar = channel::sidecar(&loaded.places).ok()?;
    let running = channel::running(&sidecar).await.ok()??;
    Some(running.0)
}

/// How npm ended.
struct Ended {
    status: i64,
    /// The end of what it said.
    said: String,
    /// What it wrote down of what it installed.
    lock: Vec<u8>,
}

async fn work(
    alone: &Loaded,
    asked: &Asked,
    record: &crate::record::Record,
    stopped: watch::Receiver<bool>,
    up: &mut Option<Enforcer>,
) -> Result<Ended, Failure> {
    let ready = start::prepare(alone, asked, &[], record, stopped).await?;
    *up = Some(ready.enforcer.clone());
    let engine = &ready.engine;
    let (_input, mut output) = engine.attach(&ready.container, false, true).await?;
    engine.start(&ready.container).await?;
    let mut said = Vec::new();
    // Output that breaks off is output that ended; how the program ended is asked for.
    while let Ok(Some((_, bytes))) = output.next().await {
        said.extend_from_slice(&bytes);
        let over = said.len().saturating_sub(SHOWN);
        said.drain(..over);
    }
    let status = engine.wait(&ready.container).await?;
    let lock = engine.npm_lock(&ready.container).await?;
    Ok(Ended {
        status,
        said: String::from_utf8_lossy(&said).into_owned(),
        lock: lock.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_workspace_rules_about_the_registry_is_kept() {
        let text = r#"{ "image": "x", "agent": { "capabilities": { "network": { "egress": { "rules": [
            { "host": "npm.acme.com", "ports": [443], "methods": ["GET"] },
            { "host": "*.acme.com", "ports": [443], "action": "ask" },
            { "host": "elsewhere.test", "ports": [443] },
            { "host": "denied.test", "ports": [443], "action": "deny" } ] } } } } }"#;
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        let registry: Domain = "npm.acme.com:443".parse().unwrap();
        let kept = kept(&config.agent.egress().rules, &registry.host);
        let hosts: Vec<String> = kept.iter().map(|rule| rule.host.to_string()).collect();
        assert_eq!(hosts, ["npm.acme.com", "*.acme.com", "denied.test"]);
    }

    #[test]
    fn the_registry_that_was_reviewed_is_the_one_of_the_packages_scope_too() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let npm = dir.path().join("npm");
        std::fs::write(&npm, "#!/bin/sh\nprintf '%s\\n' \"$@\"\n").unwrap();
        std::fs::set_permissions(&npm, std::fs::Permissions::from_mode(0o755)).unwrap();
        let said = |package: &str| {
            let path = format!("{}:/usr/bin:/bin", dir.path().display());
            let out = std::process::Command::new("/bin/sh")
                .env("PATH", path)
                .args(["-c", SCRIPT, "install"])
                .arg(dir.path())
                .args(["https://npm.corp/", package, "1.2.3", "x", "", ""])
                .output();
            String::from_utf8(out.unwrap().stdout).unwrap()
        };
        let scoped = said("@acme/agent");
        assert!(
            scoped.contains("--@acme:registry=https://npm.corp/\n"),
            "{scoped}"
        );
        assert!(said("agent").contains("agent@1.2.3") && !said("agent").contains(":registry="));
    }

    #[test]
    fn what_npm_left_out_is_no_whole_installation() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("node_modules")).unwrap();
        let there = |file: &str, packages: &serde_json::Value| {
            let whole = serde_json::json!({ "packages": packages }).to_string();
            std::fs::write(dir.path().join(file), whole).unwrap();
        };
        let wanted = serde_json::json!({
            "": { "dependencies": { "a": "1" } },
            "node_modules/a": { "optionalDependencies": { "b": "1", "c": "1", "d": "1" } },
            "node_modules/b": { "optional": true, "os": ["linux"] },
            "node_modules/c": { "optional": true, "os": "linux", "cpu": ["!none"], "dependencies": { "i": "1" } },
            "node_modules/d": { "optional": true, "os": ["darwin"], "dependencies": { "h": "1" } },
            "node_modules/e": { "optional": true, "os": ["!linux"] },
            "node_modules/f": { "optional": true, "cpu": ["none"] },
            "node_modules/g": { "optional": true, "libc": ["none"] },
            // Only for what is for another platform.
            "node_modules/h": { "optional": true },
            "node_modules/c/node_modules/i": { "optional": true },
        });
        there("package-lock.json", &wanted);
        let said = |how: &str, installed: &[&str]| {
            let all = installed.iter().map(|name| format!("node_modules/{name}"));
            let all: serde_json::Map<_, _> =
                all.map(|place| (place, serde_json::json!({}))).collect();
            there("node_modules/.package-lock.json", &all.into());
            let out = std::process::Command::new("node")
                .args(["-e", WHOLE, how])
                .current_dir(dir.path())
                .output()
                .unwrap();
            let said = String::from_utf8(out.stderr).unwrap();
            assert_eq!(out.status.success(), said.is_empty(), "{said}");
            said.trim().to_owned()
        };
        let inner = "c/node_modules/i";
        assert_eq!(said("ci", &["a", "b", "c", inner]), "");
        assert_eq!(
            said("ci", &["a", "b", "c"]),
            "NOTWHOLE node_modules/c/node_modules/i"
        );
        assert_eq!(said("ci", &["a", "b", inner]), "NOTWHOLE node_modules/c");
        assert_eq!(said("ci", &["b", "c", inner]), "NOTWHOLE node_modules/a");
        assert_eq!(said("install", &["a", "b"]), "");
        assert_eq!(
            said("install", &["a"]),
            "NOTWHOLE node_modules/b, node_modules/c"
        );
        assert_eq!(said("install", &["b"]), "NOTWHOLE node_modules/a");
    }
}
