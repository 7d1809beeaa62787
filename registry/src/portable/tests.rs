#![allow(clippy::unwrap_used)]
//! What an export writes is read again; what is not written like that is refused, and bounds hold at n and break at n + 1.

use std::io::{Cursor, Read as _};

use serde_json::{Value, json};

use super::write::Which;
use super::*;
use crate::cache::Cache;
use crate::client::{Client, OCI_INDEX, OCI_MANIFEST, Repository, own_media_type};
use crate::http::Settings;
use crate::publish::{EMPTY, EMPTY_TYPE};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

struct Bench {
    _dir: tempfile::TempDir,
    client: Client,
    repository: Repository,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path());
        let client = Client::new(Settings::new(Vec::new()), cache, true).unwrap();
        let reference = schema::image::ImageRef::parse("r.test/app:1").unwrap();
        Self {
            _dir: dir,
            client,
            repository: Repository::of(&reference),
        }
    }

    /// An image of these layers, in the cache.
    fn image(&self, layers: &[&[u8]]) -> Digest {
        let cache = self.client.cache();
        let put = |kind: &str, bytes: &[u8]| named(kind, &cache.put(bytes).unwrap(), bytes.len());
        let config = put(CONFIG, br#"{"os":"linux","architecture":"amd64"}"#);
        let layers: Vec<Value> = layers
            .iter()
            .map(|layer| put("application/vnd.oci.image.layer.v1.tar", layer))
            .collect();
        let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers });
        cache.put(manifest.to_string().as_bytes()).unwrap()
    }

    async fn export(&self, image: &Digest) -> Vec<u8> {
        let mut export = Export::new(&self.client);
        export
            .tree(&self.repository, image, Which::All, Some("r.test/app:1"))
            .await
            .unwrap();
        export.finish("{}\n").unwrap();
        let mut out = Vec::new();
        export.write(&mut out, &mut |_| {}).await.unwrap();
        out
    }
}

fn named(kind: &str, digest: &Digest, size: usize) -> Value {
    json!({ "mediaType": kind, "digest": digest, "size": size })
}

fn open(bytes: &[u8]) -> Result<Portable<Cursor<Vec<u8>>>, PortableError> {
    Portable::open(Cursor::new(bytes.to_vec()), &mut |_| {})
}

/// A file of these blobs, whatever they are, with what our own manifest needs.
fn written(document: &[u8], lockfile: &[u8], more: &[Vec<u8>], listed: &[Value]) -> Vec<u8> {
    let layers = [
        named(TYPE, &Digest::of(document), document.len()),
        named(LOCKFILE_TYPE, &Digest::of(lockfile), lockfile.len()),
    ];
    let manifest = json!({
        "schemaVersion": 2, "mediaType": OCI_MANIFEST, "artifactType": TYPE,
        "config": named(EMPTY_TYPE, &Digest::of(EMPTY), EMPTY.len()), "layers": layers,
    })
    .to_string()
    .into_bytes();
    let index = index(&manifest, listed).unwrap();
    let mut blobs = vec![
        EMPTY.to_vec(),
        document.to_vec(),
        lockfile.to_vec(),
        manifest,
    ];
    blobs.extend(more.iter().cloned());
    blobs.sort_by_cached_key(|bytes| Digest::of(bytes));
    blobs.dedup();
    archived(&index, &blobs)
}

fn archived(index: &[u8], blobs: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |name: &str, bytes: &[u8]| {
        out.extend(header(name, bytes.len() as u64).unwrap().as_bytes());
        out.extend(bytes);
        out.extend(&[0; BLOCK][..padding(bytes.len() as u64)]);
    };
    put(LAYOUT_NAME, LAYOUT);
    put(INDEX_NAME, index);
    for bytes in blobs {
        put(&blob_name(&Digest::of(bytes)), bytes);
    }
    out.extend([0; 2 * BLOCK]);
    out
}

/// A document that says that this is listed.
fn listing(entry: &Value) -> Vec<u8> {
    let document = json!({ "version": 1, "listed": [entry], "beside": [], "policies": [] });
    document.to_string().into_bytes()
}

const DOCUMENT: &[u8] = br#"{"version":1,"listed":[],"beside":[],"policies":[]}"#;

#[tokio::test]
async fn what_is_written_is_read_again_and_is_the_same_file_each_time() {
    let bench = Bench::new();
    let image = bench.image(&[b"one", &[7; 1024], b""]);
    let file = bench.export(&image).await;
    assert_eq!(file, bench.export(&image).await);
    let mut opened = open(&file).unwrap();
    assert_eq!(opened.lockfile, b"{}\n");
    let (id, layers) = opened.image(&image).unwrap().unwrap();
    assert_eq!(layers.len(), 3);
    assert_eq!(opened.blob(&layers[1], 1024).unwrap(), [7; 1024]);
    assert!(matches!(
        opened.blob(&layers[1], 1023),
        Err(PortableError::TooLarge { .. })
    ));
    let mut archive = Vec::new();
    opened
        .archive(&image, ("imported", "1"), &mut archive)
        .unwrap();
    let mut archive = tar::Archive::new(&archive[..]);
    let files: std::collections::BTreeMap<String, Vec<u8>> = archive
        .entries()
        .unwrap()
        .map(|entry| {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path().unwrap().display().to_string(), bytes)
        })
        .collect();
    // Three layers, configuration and manifest; and what each kind of engine begins with.
    assert_eq!(files.len(), 8);
    let parsed = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
    let saved = parsed("manifest.json");
    assert_eq!(saved[0]["Config"], blob_name(&id));
    assert_eq!(saved[0]["RepoTags"], json!(["imported:1"]));
    assert_eq!(saved[0]["Layers"][1], blob_name(&layers[1]));
    let listed = &parsed("index.json")["manifests"];
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["digest"], image.to_string());
    let manifest = &files[&blob_name(&image)];
    assert_eq!(listed[0]["size"], manifest.len());
    assert_eq!(
        listed[0]["mediaType"],
        own_media_type(manifest).unwrap().as_str()
    );
}

#[tokio::test]
async fn no_byte_of_it_can_be_another_and_none_may_be_missing() {
    let bench = Bench::new();
    let file = bench.export(&bench.image(&[b"layer"])).await;
    assert!(open(&file).is_ok());
    for place in 0..file.len() {
        let mut changed = file.clone();
        changed[place] ^= 1;
        assert!(open(&changed).is_err(), "byte {place}");
    }
    for length in (0..file.len()).step_by(97).chain([file.len() - 1]) {
        assert!(
            matches!(open(&file[..length]), Err(PortableError::Cut)),
            "{length}"
        );
    }
    let longer = [&file[..], &[0]].concat();
    assert!(matches!(open(&longer), Err(PortableError::Form(_))));
}

#[test]
fn what_is_called_otherwise_or_is_no_plain_file_is_refused() {
    let whole = written(DOCUMENT, b"lock", &[], &[]);
    assert!(open(&whole).is_ok());
    let layout = BLOCK * 2;
    let index_at = layout;
    let index_size = tar::Header::from_byte_slice(&whole[index_at..index_at + BLOCK])
        .entry_size()
        .unwrap();
    let first = index_at + BLOCK + index_size as usize + padding(index_size);
    let change = |change: &dyn Fn(&mut tar::Header)| {
        let mut bytes = whole.clone();
        let mut head = tar::Header::from_byte_slice(&bytes[first..first + BLOCK]).clone();
        change(&mut head);
        head.set_cksum();
        bytes[first..first + BLOCK].copy_from_slice(head.as_bytes());
        open(&bytes)
    };
    assert!(change(&|_| {}).is_ok());
    for kind in [
        tar::EntryType::Symlink,
        tar::EntryType::Link,
        tar::EntryType::Char,
        tar::EntryType::Fifo,
        tar::EntryType::Directory,
        tar::EntryType::GNULongName,
        tar::EntryType::XHeader,
        tar::EntryType::GNUSparse,
    ] {
        assert!(change(&|head| head.set_entry_type(kind)).is_err());
    }
    for name in [
        "blobs/sha256/../../../etc/passwd",
        "etc/passwd",
        "blobs/sha512/00",
        "./blobs/sha256/00",
    ] {
        assert!(
            change(&|head| {
                let field = &mut head.as_mut_bytes()[..100];
                field.fill(0);
                field[..name.len()].copy_from_slice(name.as_bytes());
            })
            .is_err()
        );
    }
    assert!(change(&|head| head.set_mode(0o4755)).is_err());
    assert!(change(&|head| head.set_uid(7)).is_err());
}

#[test]
fn everything_in_it_is_named_and_everything_named_is_in_it() {
    let extra = b"nobody names this".to_vec();
    let of_extra = Digest::of(&extra);
    assert!(matches!(
        open(&written(DOCUMENT, b"lock", &[extra], &[])),
        Err(PortableError::Unnamed(digest)) if digest == of_extra
    ));
    let gone = named(OCI_MANIFEST, &Digest::of(b"gone"), 4);
    let document = listing(&gone);
    assert!(matches!(
        open(&written(&document, b"lock", &[], &[gone])),
        Err(PortableError::Missing(_))
    ));
    let layer = named("application/octet-stream", &Digest::of(b"gone"), 4);
    let manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": named(EMPTY_TYPE, &Digest::of(EMPTY), EMPTY.len()), "layers": [layer] })
    .to_string()
    .into_bytes();
    let listed = named(OCI_MANIFEST, &Digest::of(&manifest), manifest.len());
    let document = listing(&listed);
    assert!(matches!(
        open(&written(
            &document,
            b"lock",
            std::slice::from_ref(&manifest),
            std::slice::from_ref(&listed)
        )),
        Err(PortableError::Missing(_))
    ));
    assert!(matches!(
        open(&written(DOCUMENT, b"lock", &[manifest], &[listed])),
        Err(PortableError::Form(_))
    ));
    for document in [
        &br#"{"version":2,"listed":[],"beside":[],"policies":[]}"#[..],
        br#"{"version":1,"listed":[],"beside":[],"policies":[],"more":1}"#,
        b"[]",
    ] {
        assert!(matches!(
            open(&written(document, b"lock", &[], &[])),
            Err(PortableError::Form(_))
        ));
    }
}

#[test]
fn bounds_hold_at_n_and_break_at_n_plus_one() {
    // Blobs in one file: what nothing names is found after they were counted.
    let many = |n: usize| {
        let blobs: Vec<Vec<u8>> = (0..n - 4).map(|i| i.to_be_bytes().to_vec()).collect();
        open(&written(DOCUMENT, b"lock", &blobs, &[]))
    };
    assert!(matches!(many(MAX_BLOBS), Err(PortableError::Unnamed(_))));
    assert!(matches!(many(MAX_BLOBS + 1), Err(PortableError::TooMany)));

    let padded = |length: u64| {
        let mut document = DOCUMENT.to_vec();
        document.resize(usize::try_from(length).unwrap(), b' ');
        open(&written(&document, b"lock", &[], &[]))
    };
    assert!(padded(MAX_DOCUMENT_BYTES).is_ok());
    assert!(matches!(
        padded(MAX_DOCUMENT_BYTES + 1),
        Err(PortableError::TooLarge { .. })
    ));
    let locked = |length: usize| open(&written(DOCUMENT, &vec![b' '; length], &[], &[]));
    assert!(locked(schema::lockfile::MAX_BYTES).is_ok());
    assert!(matches!(
        locked(schema::lockfile::MAX_BYTES + 1),
        Err(PortableError::TooLarge { .. })
    ));
    let index = |length: u64| {
        let mut index = json!({ "schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [] })
            .to_string()
            .into_bytes();
        index.resize(usize::try_from(length).unwrap(), b' ');
        open(&archived(&index, &[]))
    };
    assert!(matches!(
        index(MAX_SMALL_BYTES),
        Err(PortableError::Form(_))
    ));
    assert!(matches!(
        index(MAX_SMALL_BYTES + 1),
        Err(PortableError::TooLarge { .. })
    ));
    // One blob: by what its header says, before any of it is read.
    let blob = |size: u64| {
        let mut file = archived(b"{}", &[]);
        file.truncate(file.len() - 2 * BLOCK);
        let name = blob_name(&Digest::of(b""));
        file.extend(header(&name, size).unwrap().as_bytes());
        open(&file)
    };
    assert!(matches!(blob(MAX_BLOB_BYTES), Err(PortableError::Cut)));
    assert!(matches!(
        blob(MAX_BLOB_BYTES + 1),
        Err(PortableError::TooLarge { .. })
    ));
}
