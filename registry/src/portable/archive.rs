//! An image out of an export in both forms that engines load, in one file that is written as it is read: for those that know an image
//! by its configuration what `docker save` wrote from the beginning (docker-archive), for those that keep what registries send an image
//! layout, whose manifest keeps its digest.

use std::io::{self, Read, Seek, Write};

use schema::digest::{Digest, Hasher};
use serde_json::json;

use super::{INDEX_NAME, LAYOUT, LAYOUT_NAME, Portable, REF_NAME, blob_name, described, header};
use crate::client::{MAX_MANIFEST_BYTES, OCI_INDEX, own_media_type};

/// How engines that are made of containerd are told an image's whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Hashes what goes by.
struct Hashed<R>(R, Hasher);

impl<R: Read + Seek> Portable<R> {
    /// Writes an image's manifest, configuration and layers, and that the engine is to call it `name:tag`.
    ///
    /// # Errors
    /// A blob is not there or not any more what it was, or `out` takes no more. What was written is worth nothing then.
    pub fn archive(
        &mut self,
        manifest: &Digest,
        (name, tag): (&str, &str),
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let bytes = self
            .blob(manifest, MAX_MANIFEST_BYTES)
            .map_err(io::Error::other)?;
        let kind = own_media_type(&bytes).ok_or_else(|| io::Error::other("it has no type"))?;
        let image = self.image(manifest).map_err(io::Error::other)?;
        let (id, layers) = image.ok_or_else(|| io::Error::other("it is no image"))?;
        let mut listed = described(&kind, &bytes);
        listed["annotations"] = json!({
            CONTAINERD_NAME: format!("docker.io/library/{name}:{tag}"),
            REF_NAME: tag,
        });
        let index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [listed] })
            .to_string();
        let saved = json!([{
            "Config": blob_name(&id),
            "RepoTags": [format!("{name}:{tag}")],
            "Layers": layers.iter().map(blob_name).collect::<Vec<_>>(),
        }])
        .to_string();
        let mut blobs: Vec<&Digest> = layers.iter().chain([&id, manifest]).collect();
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
        for (name, text) in [
            (LAYOUT_NAME, LAYOUT),
            (INDEX_NAME, index.as_bytes()),
            ("manifest.json", saved.as_bytes()),
        ] {
            out.append(&header(name, text.len() as u64)?, text)?;
        }
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
