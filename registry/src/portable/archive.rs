//! An image out of an export in the form that engines of every age load (docker-archive), written as it is read.

use std::io::{self, Read, Seek, Write};

use schema::digest::{Digest, Hasher};
use serde_json::json;

use super::{Portable, blob_name, header};

/// Hashes what goes by.
struct Hashed<R>(R, Hasher);

impl<R: Read + Seek> Portable<R> {
    /// Writes an image's configuration and layers, under the names that they have here, and that the engine is to call it so.
    ///
    /// # Errors
    /// A blob is not there or not any more what it was, or `out` takes no more. What was written is worth nothing then.
    pub fn archive(
        &mut self,
        id: &Digest,
        layers: &[Digest],
        called: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let described = json!([{
            "Config": blob_name(id),
            "RepoTags": [called],
            "Layers": layers.iter().map(blob_name).collect::<Vec<_>>(),
        }])
        .to_string();
        let mut blobs: Vec<&Digest> = layers.iter().chain([id]).collect();
        blobs.sort();
        blobs.dedup();
        let mut out = tar::Builder::new(out);
        for digest in blobs {
            let size = self.size(digest).unwrap_or_default();
            let reader = self.reader(digest).map_err(io::Error::other)?;
            let mut hashed = Hashed(reader, Hasher::default());
            out.append(&header(&blob_name(digest), size)?, &mut hashed)?;
            if hashed.1.finish() != *digest {
                return Err(io::Error::other("it changed while it was read"));
            }
        }
        let manifest = header("manifest.json", described.len() as u64)?;
        out.append(&manifest, described.as_bytes())?;
        out.finish()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(into)?;
        self.1.update(&into[..n]);
        Ok(n)
    }
}
