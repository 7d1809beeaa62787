//! Who hears how far blobs are, while they come: what shows it to a person is none of this room's.

use std::sync::Arc;

use schema::digest::Digest;

use super::{Client, Repository};

/// A display, or whatever else wants to know.
pub trait Watch: Send + Sync {
    /// So many bytes of a blob are here, of `size` if the registry says how many there are.
    fn had(&self, blob: &Digest, from: &Repository, had: u64, size: Option<u64>);
    /// The blob is here, or is not going to be.
    fn ended(&self, blob: &Digest);
}

/// One blob that is on its way; whoever hears of it hears of its end when this is dropped.
pub(super) struct Watched<'c> {
    watch: Option<&'c dyn Watch>,
    blob: &'c Digest,
    from: &'c Repository,
}

// === impl Watched ===

impl Watched<'_> {
    pub fn had(&self, had: u64, size: Option<u64>) {
        if let Some(watch) = self.watch {
            watch.had(self.blob, self.from, had, size);
        }
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if let Some(watch) = self.watch {
            watch.ended(self.blob);
        }
    }
}

// === impl Client ===

impl Client {
    /// The same client, of whose blobs `watch` hears.
    #[must_use]
    pub fn watched(self, watch: Arc<dyn Watch>) -> Self {
        Self {
            watch: Some(watch),
            ..self
        }
    }

    pub(super) fn watching<'c>(&'c self, blob: &'c Digest, from: &'c Repository) -> Watched<'c> {
        Watched {
            watch: self.watch.as_deref(),
            blob,
            from,
        }
    }
}
