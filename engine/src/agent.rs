//! What a profile of an agent brings into a session beside its lines in the config: volumes of ours for the agent's state and for a
//! program that an image does not have, and its file of instructions.

use std::collections::BTreeMap;
use std::path::Path;

use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, UploadToContainerOptionsBuilder,
};
use schema::lockfile::agent::MAX_NPM_LOCK;
use schema::profile::{PROGRAM, PROGRAM_VOLUME, Profile, STATE, VOLUME};

use crate::contents::STANDARD_PATH;
use crate::error::is_missing;
use crate::git::Doing;
use crate::identity::Identity;
use crate::request::Mount;
use crate::{Engine, EngineError};

/// How the names of these volumes begin.
pub const VOLUME_PREFIX: &str = "agentcontainer-agent-";

/// An agent's parts in one session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentParts {
    pub state: Option<String>,
    pub program: Option<ProgramVolume>,
    /// The path below the state, and what it says.
    pub instructions: Option<(&'static str, &'static str)>,
    /// Without the workspace: a session that installs.
    pub alone: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramVolume {
    pub name: String,
    /// For the session that installs it, and no other.
    pub writable: bool,
    /// What that session finds in the directory that npm installs into.
    pub files: Vec<(&'static str, String)>,
}

/// A directory of the user's, or a file in one, that a volume has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry<'a> {
    path: String,
    /// `None`: a directory.
    content: Option<&'a str>,
}

// === impl AgentParts ===

impl AgentParts {
    /// The session's mounts; the instructions are written where `doing` says so.
    pub(crate) fn mounts(
        &self,
        session_dir: &Path,
        doing: Doing,
    ) -> Result<Vec<Mount>, EngineError> {
        let mut mounts = Vec::new();
        let volume = |name: &str, target: &str, read_only| Mount::Agent {
            name: name.to_owned(),
            target: target.to_owned(),
            read_only,
        };
        if let Some(name) = &self.state {
            mounts.push(volume(name, VOLUME, false));
        }
        if let Some(program) = &self.program {
            mounts.push(volume(&program.name, PROGRAM_VOLUME, !program.writable));
        }
        if let Some((file, text)) = self.instructions {
            let source = session_dir.join("instructions");
            doing.write_readable(&source, text)?;
            mounts.push(Mount::Session {
                source: source.display().to_string(),
                target: format!("{STATE}/{file}"),
                read_only: true,
            });
        }
        Ok(mounts)
    }

    /// An installed program is found by its name.
    pub(crate) fn environment(
        &self,
        image: &BTreeMap<String, String>,
    ) -> Option<(String, Option<String>)> {
        self.program.as_ref().filter(|program| !program.writable)?;
        let path = image.get("PATH").map_or(STANDARD_PATH, String::as_str);
        Some((
            "PATH".to_owned(),
            Some(format!("{path}:{PROGRAM}/node_modules/.bin")),
        ))
    }
}

impl Engine {
    /// Makes sure that the volumes of a container that was not started hold their user's directories, and a state its seeds.
    pub async fn furnish(
        &self,
        container: &str,
        parts: &AgentParts,
        seeds: &[(&str, String)],
        identity: &Identity,
    ) -> Result<(), EngineError> {
        let owner = (identity.uid, identity.gid);
        if parts.state.is_some() {
            // Whoever looks into the container makes the mount points, and they would be root's.
            let mut entries = vec![directory("state")];
            if let Some((file, _)) = parts.instructions {
                above(file, &mut entries);
            }
            for (file, content) in seeds {
                above(file, &mut entries);
                if !self.is_in(container, &format!("{STATE}/{file}")).await? {
                    entries.push(Entry {
                        path: format!("state/{file}"),
                        content: Some(content),
                    });
                }
            }
            self.put(container, VOLUME, &entries, owner).await?;
        }
        if let Some(program) = parts.program.as_ref().filter(|p| p.writable) {
            let mut entries = vec![directory("npm")];
            entries.extend(program.files.iter().map(|(name, text)| Entry {
                path: format!("npm/{name}"),
                content: Some(text.as_str()),
            }));
            self.put(container, PROGRAM_VOLUME, &entries, owner).await?;
        }
        Ok(())
    }

    /// What npm wrote down of what it installed in a container, cut after one byte too many; `None` where it wrote nothing.
    pub async fn npm_lock(&self, container: &str) -> Result<Option<Vec<u8>>, EngineError> {
        let path = format!("{PROGRAM}/package-lock.json");
        self.read_file(container, &path, MAX_NPM_LOCK + 1).await
    }

    async fn is_in(&self, container: &str, path: &str) -> Result<bool, EngineError> {
        let options = ContainerArchiveInfoOptionsBuilder::default()
            .path(path)
            .build();
        match self
            .docker
            .get_container_archive_info(container, Some(options))
            .await
        {
            Ok(_) => Ok(true),
            Err(e) if is_missing(&e) => Ok(false),
            Err(e) => Err(EngineError::api("look into an agent's volume")(e)),
        }
    }

    async fn put(
        &self,
        container: &str,
        at: &str,
        entries: &[Entry<'_>],
        owner: (u32, u32),
    ) -> Result<(), EngineError> {
        let archive = archive(entries, owner).map_err(EngineError::io("pack", at))?;
        let options = UploadToContainerOptionsBuilder::default().path(at).build();
        self.docker
            .upload_to_container(container, Some(options), bollard::body_full(archive.into()))
            .await
            .map_err(EngineError::api("write into an agent's volume"))
    }

    /// When a volume was made, as the engine writes it; `None` where there is none.
    pub async fn volume_made(&self, name: &str) -> Result<Option<String>, EngineError> {
        match self.docker.inspect_volume(name).await {
            Ok(volume) => Ok(Some(
                volume
                    .created_at
                    .map(|at| at.to_string())
                    .unwrap_or_default(),
            )),
            Err(e) if is_missing(&e) => Ok(None),
            Err(e) => Err(EngineError::api("look at a volume")(e)),
        }
    }
}

fn directory(path: &str) -> Entry<'static> {
    Entry {
        path: path.to_owned(),
        content: None,
    }
}

/// The directories that a file below the state lies in.
fn above(file: &str, entries: &mut Vec<Entry<'_>>) {
    for (end, _) in file.match_indices('/') {
        let entry = directory(&format!("state/{}", &file[..end]));
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
}

fn archive(entries: &[Entry<'_>], owner: (u32, u32)) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        let bytes = entry.content.unwrap_or_default().as_bytes();
        match entry.content {
            Some(_) => {
                header.set_entry_type(tar::EntryType::Regular);
                header.set_mode(0o600);
            }
            None => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_mode(0o700);
            }
        }
        header.set_size(bytes.len() as u64);
        header.set_uid(u64::from(owner.0));
        header.set_gid(u64::from(owner.1));
        archive.append_data(&mut header, &entry.path, bytes)?;
    }
    archive.into_inner()
}

/// The name of an agent's volume; whatever tells two apart is in `of`.
pub fn volume_name(profile: &Profile, of: &[&str]) -> String {
    let digest = schema::digest::Digest::of(of.join("\0").as_bytes()).hex();
    let short = digest.get(..16).unwrap_or_default();
    format!("{VOLUME_PREFIX}{}-{short}", profile.name)
}

/// Whose a volume of such a name is.
pub(crate) fn agent_of(name: &str) -> &str {
    let name = name.strip_prefix(VOLUME_PREFIX).unwrap_or(name);
    name.rsplit_once('-').map_or(name, |(agent, _)| agent)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn claude() -> &'static Profile {
        schema::profile::named("claude").unwrap()
    }

    #[test]
    fn a_volumes_name_says_whose_it_is_and_differs_with_all_it_is_of() {
        let name = volume_name(claude(), &["/state", "/work", "1000"]);
        assert!(name.starts_with("agentcontainer-agent-claude-"), "{name}");
        assert_eq!(agent_of(&name), "claude");
        for other in [["/state", "/work", "1001"], ["/state/", "work", "1000"]] {
            assert_ne!(volume_name(claude(), &other), name);
        }
    }

    #[test]
    fn what_a_volume_is_furnished_with_belongs_to_the_user_alone() {
        let entries = [
            directory("state"),
            Entry {
                path: "state/a.json".to_owned(),
                content: Some("{}"),
            },
        ];
        let bytes = archive(&entries, (1000, 1001)).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let seen: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let header = entry.unwrap().header().clone();
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mode().unwrap(),
                )
            })
            .collect();
        assert_eq!(seen, [(1000, 1001, 0o700), (1000, 1001, 0o600)]);
    }

    #[test]
    fn only_the_session_that_installs_may_write_a_program() {
        let dir = tempfile::tempdir().unwrap();
        let parts = |writable| AgentParts {
            state: Some("agentcontainer-agent-claude-1".to_owned()),
            program: Some(ProgramVolume {
                name: "agentcontainer-agent-claude-2".to_owned(),
                writable,
                files: Vec::new(),
            }),
            instructions: Some(("CLAUDE.md", "words")),
            alone: false,
        };
        let mounts = parts(false).mounts(dir.path(), Doing::Write).unwrap();
        let read_only: Vec<bool> = mounts
            .iter()
            .map(|mount| match mount {
                Mount::Agent { read_only, .. } | Mount::Session { read_only, .. } => *read_only,
                _ => false,
            })
            .collect();
        assert_eq!(read_only, [false, true, true]);
        let written = std::fs::read_to_string(dir.path().join("instructions")).unwrap();
        assert_eq!(written, "words");
        let image = BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]);
        assert_eq!(
            parts(false).environment(&image).unwrap().1.unwrap(),
            "/bin:/var/lib/agentcontainer/program/npm/node_modules/.bin"
        );
        assert_eq!(parts(true).environment(&image), None);
    }
}
