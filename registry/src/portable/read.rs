//! The reader of an export: from beginning to end once, every blob hashed, before anything of it is used; then by digest, and
//! hashed again. Nothing is unpacked: a name in it is a digest or one of two words, and every header is the one that the writer
//! would have written.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Seek, SeekFrom};

use oci_spec::image::{Descriptor, ImageManifest};
use schema::digest::{Digest, Hasher};
use schema::lockfile::MAX_BYTES as MAX_LOCKFILE_BYTES;

use super::{
    BLOBS, BLOCK, Document, INDEX_NAME, LAYOUT, LAYOUT_NAME, LOCKFILE_TYPE, MAX_BLOB_BYTES,
    MAX_BLOBS, MAX_DOCUMENT_BYTES, MAX_SMALL_BYTES, PortableError, TYPE, VERSION, header, padding,
};
use crate::client::{Content, MAX_MANIFEST_BYTES, OCI_INDEX, Parsed, own_media_type};
use crate::resolve::{digest_of, is_image_config};

/// An export that was read through and holds.
#[derive(Debug)]
pub struct Portable<R> {
    from: R,
    places: BTreeMap<Digest, Place>,
    pub document: Document,
    /// As it was written.
    pub lockfile: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: u64,
    size: u64,
}

// === impl Portable ===

impl<R: Read + Seek> Portable<R> {
    /// Reads all of it. `progress` hears how many bytes of blobs were read.
    ///
    /// # Errors
    /// [`PortableError`], where anything in it is not as it has to be: then nothing of it may be used.
    pub fn open(mut from: R, progress: &mut dyn FnMut(u64)) -> Result<Self, PortableError> {
        let (index, places) = scan(&mut from, progress)?;
        let mut portable = Self {
            from,
            places,
            document: Document {
                version: VERSION,
                listed: Vec::new(),
                beside: Vec::new(),
                policies: Vec::new(),
            },
            lockfile: Vec::new(),
        };
        portable.understand(&index)?;
        Ok(portable)
    }

    /// What the index lists, and that everything in the file is named by it.
    fn understand(&mut self, index: &[u8]) -> Result<(), PortableError> {
        let form = |why: &str| PortableError::Form(why.to_owned());
        let content = Content {
            bytes: index.to_vec(),
            digest: Digest::of(index),
            media_type: OCI_INDEX.to_owned(),
        };
        let Parsed::Index(index) = content.parse()? else {
            return Err(form("its index is none"));
        };
        let mut named = BTreeSet::new();
        for (n, entry) in index.manifests().iter().enumerate() {
            let manifest = self.listed(entry, &mut named)?;
            if n > 0 {
                continue;
            }
            let Some(Parsed::Manifest(first)) = manifest else {
                return Err(form(
                    "its index begins with something else than its manifest",
                ));
            };
            self.own(&first)?;
            let own = self.blob(&of(entry)?, MAX_MANIFEST_BYTES)?;
            if super::index(&own, &self.document.listed)? != content.bytes {
                return Err(form("its index is another than it was written with"));
            }
        }
        if index.manifests().is_empty() {
            return Err(form("its index is empty"));
        }
        match self.places.keys().find(|digest| !named.contains(*digest)) {
            Some(digest) => Err(PortableError::Unnamed(*digest)),
            None => Ok(()),
        }
    }

    fn own(&mut self, manifest: &ImageManifest) -> Result<(), PortableError> {
        let form = |why: &str| PortableError::Form(why.to_owned());
        let is_ours = manifest
            .artifact_type()
            .as_ref()
            .is_some_and(|kind| kind.to_string() == TYPE);
        let [document, lockfile] = manifest.layers().as_slice() else {
            return Err(form("its manifest has more or less than two layers"));
        };
        if !is_ours
            || document.media_type().to_string() != TYPE
            || lockfile.media_type().to_string() != LOCKFILE_TYPE
        {
            return Err(form("its first manifest is no export's"));
        }
        let document = self.blob(&of(document)?, MAX_DOCUMENT_BYTES)?;
        crate::signature::json::bounded(&document, document.len())
            .map_err(|e| PortableError::Form(e.to_string()))?;
        self.document = serde_json::from_slice(&document)
            .map_err(|e| PortableError::Form(format!("its document: {e}")))?;
        if self.document.version != VERSION {
            return Err(PortableError::Form(format!(
                "its version is {}, and this program reads {VERSION}",
                self.document.version
            )));
        }
        self.lockfile = self.blob(&of(lockfile)?, MAX_LOCKFILE_BYTES as u64)?;
        Ok(())
    }

    /// One entry of the index, with everything that it names; of an index, the manifests that are there.
    fn listed(
        &mut self,
        entry: &Descriptor,
        named: &mut BTreeSet<Digest>,
    ) -> Result<Option<Parsed>, PortableError> {
        let digest = of(entry)?;
        let parsed = self.manifest(&digest)?;
        named.insert(digest);
        match &parsed {
            Parsed::Manifest(manifest) => self.names(manifest, named)?,
            Parsed::Index(index) => {
                let mut any = false;
                for entry in index.manifests() {
                    let digest = of(entry)?;
                    if !self.places.contains_key(&digest) {
                        continue;
                    }
                    let Parsed::Manifest(manifest) = self.manifest(&digest)? else {
                        return Err(PortableError::Form("an index within an index".to_owned()));
                    };
                    any = true;
                    named.insert(digest);
                    self.names(&manifest, named)?;
                }
                if !any {
                    return Err(PortableError::Missing(digest));
                }
            }
        }
        Ok(Some(parsed))
    }

    fn names(
        &self,
        manifest: &ImageManifest,
        named: &mut BTreeSet<Digest>,
    ) -> Result<(), PortableError> {
        for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
            let digest = of(descriptor)?;
            let place = self
                .places
                .get(&digest)
                .ok_or(PortableError::Missing(digest))?;
            if place.size != descriptor.size() {
                return Err(PortableError::Form(format!(
                    "{digest} has another length than what names it says"
                )));
            }
            named.insert(digest);
        }
        Ok(())
    }

    pub fn digests(&self) -> impl Iterator<Item = &Digest> {
        self.places.keys()
    }

    pub fn holds(&self, digest: &Digest) -> bool {
        self.places.contains_key(digest)
    }

    /// How long a blob is.
    pub fn size(&self, digest: &Digest) -> Option<u64> {
        self.places.get(digest).map(|place| place.size)
    }

    /// A manifest or an index.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub fn manifest(&mut self, digest: &Digest) -> Result<Parsed, PortableError> {
        let bytes = self.blob(digest, MAX_MANIFEST_BYTES)?;
        let media_type = own_media_type(&bytes).unwrap_or_default();
        let content = Content {
            bytes,
            digest: *digest,
            media_type,
        };
        Ok(content.parse()?)
    }

    /// The layers of a manifest that an engine loads, behind its configuration; none where it is no image's.
    ///
    /// # Errors
    /// It is not there, or is none.
    pub fn image(
        &mut self,
        manifest: &Digest,
    ) -> Result<Option<(Digest, Vec<Digest>)>, PortableError> {
        let Parsed::Manifest(parsed) = self.manifest(manifest)? else {
            return Ok(None);
        };
        if !is_image_config(parsed.config().media_type().as_ref()) {
            return Ok(None);
        }
        let layers = parsed.layers().iter().map(of).collect::<Result<_, _>>()?;
        Ok(Some((of(parsed.config())?, layers)))
    }

    /// A blob whole, of at most `limit` bytes.
    ///
    /// # Errors
    /// It is not there, larger, or not any more what it was.
    pub fn blob(&mut self, digest: &Digest, limit: u64) -> Result<Vec<u8>, PortableError> {
        let size = self.size(digest).ok_or(PortableError::Missing(*digest))?;
        if size > limit {
            return Err(PortableError::TooLarge {
                what: digest.to_string(),
                limit,
            });
        }
        let mut bytes = Vec::new();
        self.reader(digest)?.read_to_end(&mut bytes)?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(PortableError::Digest {
                expected: *digest,
                found,
            });
        }
        Ok(bytes)
    }

    /// A blob to be read in pieces; whoever does hashes it.
    ///
    /// # Errors
    /// It is not there.
    pub fn reader(&mut self, digest: &Digest) -> Result<io::Take<&mut R>, PortableError> {
        let place = *self
            .places
            .get(digest)
            .ok_or(PortableError::Missing(*digest))?;
        self.from.seek(SeekFrom::Start(place.offset))?;
        Ok(self.from.by_ref().take(place.size))
    }
}

/// The index, and where each blob is, once every one has the digest that it is called by.
fn scan(
    from: &mut impl Read,
    progress: &mut dyn FnMut(u64),
) -> Result<(Vec<u8>, BTreeMap<Digest, Place>), PortableError> {
    let mut at = 0;
    for (name, limit) in [
        (LAYOUT_NAME, LAYOUT.len() as u64),
        (INDEX_NAME, MAX_SMALL_BYTES),
    ] {
        let block = block(from)?;
        let size = said(&block, name)?;
        if size > limit {
            return Err(PortableError::TooLarge {
                what: name.to_owned(),
                limit,
            });
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        exactly(from, &mut bytes)?;
        pad(from, size)?;
        at += BLOCK as u64 + size + padding(size) as u64;
        if name == LAYOUT_NAME {
            if bytes != LAYOUT {
                return Err(PortableError::Form("its layout is another".to_owned()));
            }
            continue;
        }
        return Ok((bytes, blobs(from, at, progress)?));
    }
    Err(PortableError::Cut)
}

fn blobs(
    from: &mut impl Read,
    mut at: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<BTreeMap<Digest, Place>, PortableError> {
    let mut places: BTreeMap<Digest, Place> = BTreeMap::new();
    let mut read = 0;
    let mut piece = vec![0; 128 * 1024];
    loop {
        let head = block(from)?;
        at += BLOCK as u64;
        if head == [0; BLOCK] {
            break;
        }
        let digest = called(&head)?;
        let size = said(&head, &super::blob_name(&digest))?;
        if size > MAX_BLOB_BYTES {
            return Err(PortableError::TooLarge {
                what: digest.to_string(),
                limit: MAX_BLOB_BYTES,
            });
        }
        if places.len() == MAX_BLOBS {
            return Err(PortableError::TooMany);
        }
        if places
            .last_key_value()
            .is_some_and(|(last, _)| *last >= digest)
        {
            return Err(PortableError::Form(
                "its blobs are not in order, or twice there".to_owned(),
            ));
        }
        places.insert(digest, Place { offset: at, size });
        let (mut left, mut hasher) = (size, Hasher::default());
        while left > 0 {
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
            exactly(from, &mut piece[..n])?;
            hasher.update(&piece[..n]);
            left -= n as u64;
            read += n as u64;
            progress(read);
        }
        let found = hasher.finish();
        if found != digest {
            return Err(PortableError::Digest {
                expected: digest,
                found,
            });
        }
        pad(from, size)?;
        at += size + padding(size) as u64;
    }
    if block(from)? != [0; BLOCK] || from.read(&mut [0])? != 0 {
        return Err(PortableError::Form(
            "something comes behind its end".to_owned(),
        ));
    }
    Ok(places)
}

/// The digest that a file in the archive is called by.
fn called(block: &[u8; BLOCK]) -> Result<Digest, PortableError> {
    let name = block
        .strip_prefix(BLOBS.as_bytes())
        .and_then(|rest| std::str::from_utf8(rest.get(..64)?).ok())
        .and_then(|hex| Digest::parse(&format!("sha256:{hex}")).ok());
    name.ok_or_else(|| {
        PortableError::Form("a file in it is not called blobs/sha256/ and a digest".to_owned())
    })
}

/// The size that a header says, if the rest of it is what the writer would have written.
fn said(block: &[u8; BLOCK], name: &str) -> Result<u64, PortableError> {
    let form = || PortableError::Form(format!("the header of {name} is another"));
    let found = tar::Header::from_byte_slice(block);
    let size = found.entry_size().map_err(|_| form())?;
    if header(name, size)?.as_bytes() != block {
        return Err(form());
    }
    Ok(size)
}

fn block(from: &mut impl Read) -> Result<[u8; BLOCK], PortableError> {
    let mut block = [0; BLOCK];
    exactly(from, &mut block)?;
    Ok(block)
}

fn pad(from: &mut impl Read, size: u64) -> Result<(), PortableError> {
    let mut rest = [0; BLOCK];
    let rest = &mut rest[..padding(size)];
    exactly(from, rest)?;
    if rest.iter().any(|byte| *byte != 0) {
        return Err(PortableError::Form(
            "something lies between its files".to_owned(),
        ));
    }
    Ok(())
}

fn exactly(from: &mut impl Read, into: &mut [u8]) -> Result<(), PortableError> {
    from.read_exact(into).map_err(|e| match e.kind() {
        io::ErrorKind::UnexpectedEof => PortableError::Cut,
        _ => PortableError::Io(e),
    })
}

fn of(descriptor: &Descriptor) -> Result<Digest, PortableError> {
    digest_of(descriptor).map_err(PortableError::Form)
}
