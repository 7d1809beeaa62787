//! Which features' demands were shown to this user in a workspace: whoever takes over somebody else's lockfile sees them once, as who
//! locked them did.

use std::path::PathBuf;

use schema::config::discover;
use schema::digest::Digest;

use crate::loaded::Loaded;
use crate::places::{make_private, write_private};
use crate::report::Failure;

/// The most digests that are remembered, the latest of them.
const MAX_SHOWN: usize = 4096;
/// The largest file of them, in bytes.
const MAX_BYTES: usize = 1 << 20;

pub struct Shown {
    path: PathBuf,
    known: Vec<Digest>,
    changed: bool,
}

// === impl Shown ===

impl Shown {
    /// What cannot be read was not shown.
    pub fn load(loaded: &Loaded) -> Self {
        let key = loaded.workspace.as_os_str().as_encoded_bytes();
        let name = format!("features-{}.json", Digest::of(key).hex());
        let path = loaded.places.seen().join(name);
        let found = discover::read_file(&path, MAX_BYTES).ok().flatten();
        Self {
            path,
            known: found
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .unwrap_or_default(),
            changed: false,
        }
    }

    pub fn has(&self, feature: &Digest) -> bool {
        self.known.contains(feature)
    }

    pub fn add(&mut self, feature: Digest) {
        if !self.has(&feature) {
            self.known.push(feature);
            self.changed = true;
        }
    }

    /// # Errors
    /// The state directory cannot be written.
    pub fn save(mut self) -> Result<(), Failure> {
        if !self.changed {
            return Ok(());
        }
        let beyond = self.known.len().saturating_sub(MAX_SHOWN);
        self.known.drain(..beyond);
        if let Some(dir) = self.path.parent() {
            make_private(dir)?;
        }
        write_private(
            &self.path,
            &serde_json::to_vec(&self.known).unwrap_or_default(),
        )
    }
}
