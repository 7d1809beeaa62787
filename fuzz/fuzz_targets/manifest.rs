//! What a registry sends: manifests and indexes of every media type, and challenges, are read without a panic and within bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use registry::client::{
    Content, DOCKER_LIST, DOCKER_MANIFEST, MAX_INDEX_ENTRIES, OCI_INDEX, OCI_MANIFEST, Parsed,
};
use registry::token::Challenge;
use schema::digest::Digest;

fuzz_target!(|data: &[u8]| {
    for media_type in [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST] {
        let content = Content {
            bytes: data.to_vec(),
            digest: Digest::of(data),
            media_type: media_type.to_owned(),
        };
        match content.parse() {
            Ok(Parsed::Index(index)) => assert!(index.manifests().len() <= MAX_INDEX_ENTRIES),
            Ok(Parsed::Manifest(manifest)) => assert!(manifest.layers().len() <= MAX_INDEX_ENTRIES),
            Err(error) => assert!(!error.is_unasked()),
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Challenge::read(&[text.to_owned()]);
    }
});
