//! What has to be known of the files in an image before a container of it is made: who lives there (`identity`) and which
//! certificates it trusts (`trust`). Read through the archive API of a container that is never started, once an image: an
//! image id never changes its content.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, CreateContainerOptionsBuilder,
    DownloadFromContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt;
use schema::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::is_missing;
use crate::identity::Accounts;
use crate::image::Image;
use crate::npm;
use crate::request::LABEL_VERSION;
use crate::trust::places::{self, BUNDLES, Found, KEYSTORES};
use crate::trust::{self, InImage, hashed, pem};
use crate::{Engine, EngineError};

/// The largest passwd or group file that is read, in bytes; a longer one is cut there.
pub const MAX_ACCOUNTS: usize = 256 * 1024;

/// Where programs are looked for in an image that does not say.
pub const STANDARD_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Directories of a `PATH` that are looked into.
pub const MAX_PATH_DIRECTORIES: usize = 32;

/// What was read of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    pub accounts: Accounts,
    pub trust: InImage,
}

/// What an image has of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    pub program: bool,
    pub npm: bool,
    /// What its npm is set to ask, as far as its files say.
    pub registry: Option<String>,
}

/// A container that looks into its image.
struct Look<'a> {
    engine: &'a Engine,
    container: String,
    /// What was asked before: most paths share their beginnings.
    known: BTreeMap<String, Found>,
    /// Those of them that have an x bit.
    runnable: BTreeSet<String>,
}

impl Engine {
    /// What the image holds. `cache` is a directory of ours; what is in it is by image id and never stale.
    pub async fn contents(&self, image: &Image, cache: &Path) -> Result<Contents, EngineError> {
        let path: PathBuf = cache.join(format!("{}.json", image.id.hex()));
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(contents) = serde_json::from_slice(&bytes)
        {
            return Ok(contents);
        }
        let contents = self.look_into(image).await?;
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(cache)
            .map_err(EngineError::io("create", cache))?;
        let temporary = cache.join(format!(".{}.{}", image.id.hex(), std::process::id()));
        let bytes = serde_json::to_vec(&contents).unwrap_or_default();
        std::fs::write(&temporary, bytes).map_err(EngineError::io("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(EngineError::io("write", &path))?;
        Ok(contents)
    }

    /// Whether the image has an agent's program, or npm to install it with.
    pub async fn tools(&self, image: &Image, program: &str) -> Result<Tools, EngineError> {
        let mut look = Look {
            engine: self,
            container: self.never_started(&image.id).await?,
            known: BTreeMap::new(),
            runnable: BTreeSet::new(),
        };
        let found = look.tools(&image.env, program).await;
        self.forget(&look.container).await?;
        found
    }

    async fn look_into(&self, image: &Image) -> Result<Contents, EngineError> {
        let mut look = Look {
            engine: self,
            container: self.never_started(&image.id).await?,
            known: BTreeMap::new(),
            runnable: BTreeSet::new(),
        };
        let contents = look.contents(image).await;
        self.forget(&look.container).await?;
        contents
    }

    async fn forget(&self, container: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptionsBuilder::default()
            .force(true)
            .v(true)
            .build();
        self.docker
            .remove_container(container, Some(options))
            .await
            .map_err(EngineError::api(
                "remove the container it looked into the image with",
            ))
    }

    async fn never_started(&self, image: &Digest) -> Result<String, EngineError> {
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: Some(vec!["/.agentcontainer/never-started".to_owned()]),
            labels: Some(
                [(
                    LABEL_VERSION.to_owned(),
                    env!("CARGO_PKG_VERSION").to_owned(),
                )]
                .into(),
            ),
            host_config: Some(HostConfig {
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        self.docker
            .create_container(Some(CreateContainerOptionsBuilder::default().build()), body)
            .await
            .map(|made| made.id)
            .map_err(EngineError::api("look into the image"))
    }

    /// One regular file out of a container, cut at `most` bytes; `None` when it is not there.
    pub(crate) async fn read_file(
        &self,
        container: &str,
        path: &str,
        most: usize,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(path)
            .build();
        let mut archive = Vec::new();
        let mut stream = self
            .docker
            .download_from_container(container, Some(options));
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => archive.extend_from_slice(&chunk),
                Err(e) if is_missing(&e) => return Ok(None),
                Err(e) => return Err(EngineError::api("read a file of the image")(e)),
            }
            if archive.len() > most + 4096 {
                break;
            }
        }
        Ok(first_file(&archive, most))
    }
}

// === impl Look ===

impl Look<'_> {
    async fn tools(
        &mut self,
        env: &BTreeMap<String, String>,
        program: &str,
    ) -> Result<Tools, EngineError> {
        if self.program(env, program).await?.is_some() {
            return Ok(Tools {
                program: true,
                ..Tools::default()
            });
        }
        let Some(npm) = self.program(env, "npm").await? else {
            return Ok(Tools::default());
        };
        let registry = npm::registry(env, &npm, async |path: &str, most| {
            match self.follow(path).await? {
                Some(lies_at) => self.read(&lies_at, most).await,
                None => Ok(None),
            }
        });
        Ok(Tools {
            program: false,
            npm: true,
            registry: registry.await?,
        })
    }

    /// Where the links of the first program of that name on the image's `PATH` end.
    async fn program(
        &mut self,
        env: &BTreeMap<String, String>,
        name: &str,
    ) -> Result<Option<String>, EngineError> {
        let path = env.get("PATH").map_or(STANDARD_PATH, String::as_str);
        for at in candidates(path, name) {
            if let Some(lies_at) = self.follow(&at).await?
                && self.runnable.contains(&lies_at)
            {
                return Ok(Some(lies_at));
            }
        }
        Ok(None)
    }

    async fn contents(&mut self, image: &Image) -> Result<Contents, EngineError> {
        let passwd = self.read("/etc/passwd", MAX_ACCOUNTS).await?;
        let group = self.read("/etc/group", MAX_ACCOUNTS).await?;
        let text = |bytes: Option<Vec<u8>>| {
            String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
        };
        Ok(Contents {
            accounts: Accounts {
                passwd: text(passwd),
                group: text(group),
            },
            trust: self.trust(&image.env).await?,
        })
    }

    /// The certificates of every bundle that is there, which are then those of all of them.
    async fn trust(&mut self, env: &BTreeMap<String, String>) -> Result<InImage, EngineError> {
        let mut found = InImage::default();
        let mut certificates = pem::Collected::at_most(trust::MAX_CERTIFICATES);
        let mut read: BTreeMap<String, bool> = BTreeMap::new();
        for path in BUNDLES
            .iter()
            .copied()
            .chain(trust::variables::named_by(env))
        {
            let Some(lies_at) = self.follow(path).await? else {
                continue;
            };
            let is_bundle = match read.get(&lies_at) {
                Some(known) => *known,
                None => {
                    let bytes = self.read(&lies_at, trust::MAX_BUNDLE).await?;
                    let taken = pem::read(&bytes.unwrap_or_default()).certificates;
                    let is_bundle = !taken.is_empty();
                    for der in taken {
                        certificates.add(der);
                    }
                    read.insert(lies_at.clone(), is_bundle);
                    is_bundle
                }
            };
            if is_bundle {
                found.bundles.insert(path.to_owned(), lies_at);
            }
        }
        for path in KEYSTORES {
            if let Some(lies_at) = self.follow(path).await?
                && let Some(bytes) = self.read(&lies_at, 4).await?
                && is_keystore(&bytes)
            {
                found.keystores.insert((*path).to_owned(), lies_at);
            }
        }
        for path in hashed::DIRECTORIES {
            let Some(lies_at) = self.follow_to(path, Found::Directory).await? else {
                continue;
            };
            // What is a link or a directory there is somebody's, and leads somewhere else.
            let file = format!("{lies_at}/{}", hashed::file());
            if matches!(self.look(&file).await?, Found::File | Found::Other) {
                found.directories.insert(lies_at);
            }
        }
        for der in certificates.into_certificates() {
            pem::write(&mut found.pem, &der);
        }
        Ok(found)
    }

    async fn read(&self, path: &str, most: usize) -> Result<Option<Vec<u8>>, EngineError> {
        self.engine.read_file(&self.container, path, most).await
    }

    async fn follow(&mut self, path: &str) -> Result<Option<String>, EngineError> {
        self.follow_to(path, Found::File).await
    }

    async fn follow_to(
        &mut self,
        path: &str,
        wanted: Found,
    ) -> Result<Option<String>, EngineError> {
        places::follow(path, wanted, async |path: &str| self.look(path).await).await
    }

    async fn look(&mut self, path: &str) -> Result<Found, EngineError> {
        if let Some(found) = self.known.get(path) {
            return Ok(found.clone());
        }
        let options = ContainerArchiveInfoOptionsBuilder::default()
            .path(path)
            .build();
        let docker = &self.engine.docker;
        let asked = docker.get_container_archive_info(&self.container, Some(options));
        let found = match asked.await {
            Ok(stat) => {
                if stat.file_mode & 0o111 != 0 {
                    self.runnable.insert(path.to_owned());
                }
                kind(stat.file_mode, stat.link_target)
            }
            Err(e) if is_missing(&e) => Found::Other,
            Err(e) => return Err(EngineError::api("look at a file of the image")(e)),
        };
        self.known.insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

/// Where a program may be; a part of a `PATH` that depends on where one stands is none of an image's.
fn candidates(path: &str, name: &str) -> Vec<String> {
    if name.starts_with('/') {
        return vec![name.to_owned()];
    }
    let parts = path.split(':').take(MAX_PATH_DIRECTORIES);
    parts
        .filter(|part| part.starts_with('/'))
        .map(|part| format!("{part}/{name}"))
        .collect()
}

/// The engine's word on a file: its mode as Go has it (io/fs, FileMode).
fn kind(mode: u32, target: String) -> Found {
    const DIRECTORY: u32 = 1 << 31;
    const LINK: u32 = 1 << 27;
    /// Devices, pipes, sockets and what Go has no word for.
    const ODD: u32 = 1 << 26 | 1 << 25 | 1 << 24 | 1 << 21 | 1 << 19;
    match mode {
        m if m & LINK != 0 => Found::Link(target),
        m if m & DIRECTORY != 0 => Found::Directory,
        m if m & ODD != 0 => Found::Other,
        _ => Found::File,
    }
}

/// How a JVM tells its stores apart: JKS, JCEKS, or a DER sequence.
fn is_keystore(beginning: &[u8]) -> bool {
    matches!(
        beginning,
        [0xfe, 0xed, 0xfe, 0xed] | [0xce, 0xce, 0xce, 0xce] | [0x30, 0x80..=0x84, ..]
    )
}

/// The first regular file of a tar archive that may be cut short.
fn first_file(archive: &[u8], most: usize) -> Option<Vec<u8>> {
    use std::io::Read;
    let mut tar = tar::Archive::new(archive);
    for entry in tar.entries().ok()? {
        let entry = entry.ok()?;
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            // A cut archive ends in an error; what came before it is the file's beginning.
            let _ = entry.take(most as u64).read_to_end(&mut bytes);
            return Some(bytes);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_the_engine_says_of_a_file_is_understood() {
        let kind = |mode| kind(mode, "/x".to_owned());
        assert_eq!(kind(0o644), Found::File);
        assert_eq!(kind(0x8000_01ed), Found::Directory);
        assert_eq!(kind(0x0800_01ff), Found::Link("/x".into()));
        // A device, a character device, a pipe, a socket.
        for odd in [0x0400_01b4, 0x0420_01b6, 0x0200_01a4, 0x0100_01ed] {
            assert_eq!(kind(odd), Found::Other, "{odd:x}");
        }
    }

    #[test]
    fn a_program_is_looked_for_in_absolute_directories_alone() {
        assert_eq!(candidates(":/a:b:.:/c", "x"), ["/a/x", "/c/x"]);
        assert_eq!(candidates("/a:/b", "/bin/sh"), ["/bin/sh"]);
        let path = |parts: usize| vec!["/d"; parts].join(":");
        let most = MAX_PATH_DIRECTORIES;
        assert_eq!(candidates(&path(most), "x").len(), most);
        assert_eq!(candidates(&path(most + 1), "x").len(), most);
    }

    #[test]
    fn a_file_is_cut_at_its_bound() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(10);
        header.set_mode(0o644);
        header.set_cksum();
        builder
            .append_data(&mut header, "passwd", &b"0123456789"[..])
            .unwrap();
        let archive = builder.into_inner().unwrap();
        assert_eq!(first_file(&archive, 10).unwrap(), b"0123456789");
        assert_eq!(first_file(&archive, 9).unwrap(), b"012345678");
        assert_eq!(first_file(&archive[..515], 10).unwrap(), b"012");
        assert_eq!(first_file(b"", 10), None);
    }
}
