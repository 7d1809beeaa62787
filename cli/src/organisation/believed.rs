//! What this user's commands believed of each policy source, in the state directory: a policy never goes back, and what it was verified
//! with is at hand for as long as it holds.

use std::fs::{self, File};
use std::path::PathBuf;

use registry::trust_root::TrustRoots;
use schema::digest::Digest;
use schema::hostconfig::HostConfig;
use schema::image::OciSource;
use schema::organisation::{Organisation, Seen};
use serde::{Deserialize, Serialize};

use super::check;
use crate::files;
use crate::places::{Places, make_private, write_private};
use crate::report::Failure;
use crate::sigstore;

/// The largest note of what was believed, in bytes.
const MAX_NOTE: usize = 16 << 10;

/// The last policy of a source that this user's commands believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Believed {
    pub source: String,
    /// Whose it is: a document of somebody else's is another policy, however it is signed.
    pub organisation: String,
    /// Of the artifact's manifest.
    pub manifest: Digest,
    pub serial: u64,
    /// Of the document's meaning.
    pub document: Digest,
    /// Of the trusted root that an identity's signature of that manifest was verified with while TUF had it in force. It lies beside
    /// this: what it said of that one digest holds as long as the policy does, and its source is the host's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Digest>,
}

/// A trusted root, and where it came from.
pub struct Root {
    pub json: Vec<u8>,
    pub of: String,
}

// === impl Root ===

impl Root {
    fn digest(&self) -> Digest {
        Digest::of(&[self.of.as_bytes(), b"\0", &self.json].concat())
    }
}

// === impl Believed ===

impl Believed {
    pub fn of(
        source: &OciSource,
        document: &Organisation,
        manifest: Digest,
        root: Option<&Root>,
    ) -> Self {
        let seen = document.seen();
        Self {
            root: root.map(Root::digest),
            source: source.to_string(),
            organisation: document.organisation.value.to_string(),
            manifest,
            serial: seen.serial,
            document: seen.digest,
        }
    }

    fn path(places: &Places, source: &OciSource) -> PathBuf {
        let name = Digest::of(source.to_string().as_bytes()).hex();
        places.state.join("policies").join(format!("{name}.json"))
    }

    /// Its name is the root's, so that the note and its root change at once: with the note.
    fn root_path(places: &Places, source: &OciSource, root: &Digest) -> PathBuf {
        Self::path(places, source).with_extension(format!("{}.root", root.hex()))
    }

    pub fn load(places: &Places, source: &OciSource) -> Result<Option<Self>, Failure> {
        let path = Self::path(places, source);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = files::named(&path, MAX_NOTE)?;
        let believed: Self = serde_json::from_slice(&bytes).map_err(|_| damaged(&path))?;
        if believed.source != source.to_string() {
            return Err(damaged(&path));
        }
        Ok(Some(believed))
    }

    /// The root that lies beside it, if it is the one that was noted.
    pub fn kept_root(
        &self,
        places: &Places,
        host: &HostConfig,
        source: &OciSource,
    ) -> Option<TrustRoots> {
        let digest = self.root?;
        let path = Self::root_path(places, source, &digest);
        let root = Root {
            json: files::named(&path, registry::trust_root::BYTES).ok()?,
            of: sigstore::source(places, host).ok()?,
        };
        (root.digest() == digest).then_some(())?;
        let roots = TrustRoots::none().with_json("kept with the policy", &root.json);
        roots.ok()
    }

    /// Notes it, unless another command believed a later one meanwhile.
    pub fn save(
        &self,
        places: &Places,
        source: &OciSource,
        document: &Organisation,
        root: Option<&Root>,
    ) -> Result<(), Failure> {
        make_private(&places.state.join("policies"))?;
        let path = Self::path(places, source).with_extension("lock");
        let lock = File::create(&path).map_err(|e| Failure::io("create", &path, &e))?;
        lock.lock().map_err(|e| Failure::io("lock", &path, &e))?;
        let meanwhile = Self::load(places, source)?;
        check(document, source, None, meanwhile.as_ref())?;
        if meanwhile.as_ref() == Some(self) {
            return Ok(());
        }
        if let Some(root) = root {
            let path = Self::root_path(places, source, &root.digest());
            write_private(&path, &root.json)?;
        }
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        write_private(&Self::path(places, source), &bytes)?;
        if let Some(before) = meanwhile.and_then(|before| before.root)
            && self.root != Some(before)
        {
            let _ = fs::remove_file(Self::root_path(places, source, &before));
        }
        Ok(())
    }

    pub fn seen(&self) -> Seen {
        Seen {
            serial: self.serial,
            digest: self.document,
        }
    }
}

fn damaged(path: &std::path::Path) -> Failure {
    Failure::new(
        "policy-state",
        format!(
            "{} is damaged: which policy was last believed is not known",
            path.display()
        ),
    )
    .help("remove it, then run `agentcontainer policy pull`")
}
