//! Agents in a lockfile: each is pinned by the run that first installed it, and stays until somebody takes the pin away. `lock` and `run` call it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use schema::digest::Digest;
use schema::lockfile::{self, AgentPin, Lockfile};

use super::{How, not_locked, path, read, write};
use crate::agent;
use crate::loaded::Loaded;
use crate::places::{make_private, write_private};
use crate::report::{self, Failure};

/// Writes down what the agent that is run was installed as, where nothing says it yet.
pub fn keep(loaded: &mut Loaded, brought: bool) -> Result<(), Failure> {
    let added = loaded.config.profile.as_ref();
    let installed = added.and_then(|added| Some((added.profile.name, added.install.as_ref()?)));
    let Some((name, Some(pin))) = installed.map(|(name, install)| (name, &install.pin)) else {
        return Ok(());
    };
    let path = path(loaded, brought);
    let _one = alone(loaded, &path)?;
    // It may have been written since it was read.
    let Some(mut lockfile) = read(&path)? else {
        return Err(not_locked(&path, None));
    };
    if !keep_pin(&mut lockfile, name, pin, &agent::move_pin(name, brought))? {
        return Ok(());
    }
    report::note(format!(
        "locked {} {} {} {}",
        lockfile::agent_pin(name),
        pin.package,
        pin.version,
        pin.integrity()
    ));
    write(&path, &lockfile)?;
    loaded.lock = Some(lockfile);
    Ok(())
}

/// Whether it is new. Another one, which came while this was installed, is somebody's word, and stays.
fn keep_pin(
    lockfile: &mut Lockfile,
    name: &str,
    pin: &AgentPin,
    help: &str,
) -> Result<bool, Failure> {
    match lockfile.agents.get(name) {
        Some(known) if known == pin => Ok(false),
        Some(known) => Err(Failure::new(
            "agent-pin",
            format!(
                "{} was pinned by somebody else meanwhile: {} {}, and {} {} was installed here",
                lockfile::agent_pin(name),
                known.version,
                known.integrity(),
                pin.version,
                pin.integrity()
            ),
        )
        .help(format!(
            "run it again to have what is pinned; if you want another: {help}"
        ))),
        None => {
            lockfile.agents.insert(name.to_owned(), pin.clone());
            Ok(true)
        }
    }
}

/// One at a time reads a lockfile and writes what came of that; it is let go with what is returned.
pub fn alone(loaded: &Loaded, path: &Path) -> Result<File, Failure> {
    let dir = loaded.places.state.join("agents");
    make_private(&dir)?;
    let of = Digest::of(path.as_os_str().as_encoded_bytes()).hex();
    let held = dir.join(format!("{of}.lock"));
    let file = File::create(&held).map_err(|e| Failure::io("open", &held, &e))?;
    file.lock().map_err(|e| Failure::io("lock", &held, &e))?;
    Ok(file)
}

/// What says that an agent's pin was taken away: what is installed here is not pinned again then.
fn taken_away(loaded: &Loaded, path: &Path, name: &str) -> PathBuf {
    let mut key = path.as_os_str().as_encoded_bytes().to_vec();
    key.push(0);
    key.extend_from_slice(name.as_bytes());
    let file = format!("{}.anew", Digest::of(&key).hex());
    loaded.places.state.join("agents").join(file)
}

/// Notes which agents' pins are in the first of two lockfiles and not in the second.
pub fn take_away(
    loaded: &Loaded,
    path: &Path,
    old: Option<&Lockfile>,
    new: &Lockfile,
) -> Result<(), Failure> {
    let names = old.iter().flat_map(|old| old.agents.keys());
    for name in names.filter(|name| !new.agents.contains_key(*name)) {
        make_private(&loaded.places.state.join("agents"))?;
        write_private(&taken_away(loaded, path, name), b"")?;
    }
    Ok(())
}

/// Whether an agent's pin was taken away, so that it is installed anew.
pub fn is_taken_away(loaded: &Loaded, brought: bool, name: &str) -> bool {
    let note = taken_away(loaded, &path(loaded, brought), name);
    note.symlink_metadata().is_ok()
}

/// It is installed anew from here on.
pub fn give_back(loaded: &Loaded, brought: bool, name: &str) {
    let _ = fs::remove_file(taken_away(loaded, &path(loaded, brought), name));
}

/// With the pins of agents as they are by now, where they are not to be moved.
pub fn with_agents_of(mut lockfile: Lockfile, now: &Option<Lockfile>, how: &How) -> Lockfile {
    lockfile.agents = kept_agents(now.as_ref(), how);
    lockfile
}

/// What the next run of an agent pins anew is not kept.
pub(super) fn kept_agents(old: Option<&Lockfile>, how: &How) -> BTreeMap<String, AgentPin> {
    let mut agents = old.map(|old| old.agents.clone()).unwrap_or_default();
    let is_moved = |name: &str| how.update.contains(&lockfile::agent_pin(name));
    agents.retain(|name, _| !how.update_all && !is_moved(name));
    agents
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn pin(version: &str) -> AgentPin {
        let integrity = format!("sha512-{}==", "A".repeat(86));
        serde_json::from_value(serde_json::json!({
            "package": "agent",
            "version": version,
            "packages": { "node_modules/agent": { "version": version, "integrity": integrity } },
        }))
        .unwrap()
    }

    fn lockfile() -> Lockfile {
        let digest = Digest::of(b"");
        let image = serde_json::json!({ "reference": "x", "digest": digest.to_string(), "resolved": "2026-11-21T10:00:00Z" });
        let whole = serde_json::json!({ "lockfileVersion": 1, "config": digest.to_string(), "image": image });
        Lockfile::parse(whole.to_string().as_bytes(), "x").unwrap()
    }

    #[test]
    fn a_pin_that_came_meanwhile_stays() {
        let mut lockfile = lockfile();
        let mut keep = |version| keep_pin(&mut lockfile, "a", &pin(version), "so");
        assert!(keep("1.0.0").unwrap());
        assert!(!keep("1.0.0").unwrap());
        let refused = keep("1.0.1").unwrap_err().diagnostics;
        assert!(refused[0].message.contains("1.0.0 sha512-"), "{refused:?}");
        assert_eq!(lockfile.agents["a"], pin("1.0.0"));
    }

    #[test]
    fn looking_up_other_pins_takes_what_was_pinned_meanwhile_along() {
        let old = lockfile();
        let mut now = lockfile();
        now.agents.insert("a".to_owned(), pin("1.0.0"));
        let how = |update: &[&str]| How {
            update: update.iter().map(|&name| name.to_owned()).collect(),
            ..How::default()
        };
        let now = Some(now);
        let kept = with_agents_of(old.clone(), &now, &how(&[]));
        assert_eq!(kept.agents["a"], pin("1.0.0"));
        assert!(
            with_agents_of(old, &now, &how(&["agent:a"]))
                .agents
                .is_empty()
        );
    }
}
