//! Features as their publishers push them (devcontainers specification, 'Features distribution'), and any other artifact of one
//! layer, put into a registry by its own API; and the devcontainer CLI, which reads them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::outcome::{self, DEADLINE};
use crate::registry::{Registry, curl};
use crate::{Outcome, Workspace};

const CONFIG: &str = "application/vnd.devcontainers";
const LAYER: &str = "application/vnd.devcontainers.layer.v1+tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// A tar of these files; a path is written as it is, wherever it leads.
pub fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_size(text.len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        builder.append(&header, text.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What a feature is made of, at the least.
pub fn files(metadata: &Value) -> Vec<u8> {
    archive(&[
        ("./devcontainer-feature.json", &metadata.to_string()),
        ("./install.sh", "#!/bin/sh\ntrue\n"),
    ])
}

// === impl Registry ===

impl Registry {
    /// `localhost:PORT`: the one host that the devcontainer CLI speaks to without TLS.
    pub fn localhost(&self) -> String {
        self.name().replace("127.0.0.1", "localhost")
    }

    /// Pushes a feature with this metadata to `REPOSITORY:TAG`; the digest of its manifest.
    pub fn push_feature(&self, tag: &str, metadata: &Value) -> String {
        self.push_layer(tag, CONFIG, LAYER, &files(metadata))
    }

    /// Pushes an artifact of one layer; the digest of its manifest.
    pub fn push_layer(&self, tag: &str, config: &str, layer: &str, bytes: &[u8]) -> String {
        let (repository, tag) = tag.split_once(':').unwrap();
        let empty = self.push_blob(repository, b"{}");
        let blob = self.push_blob(repository, bytes);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": config, "digest": empty, "size": 2 },
            "layers": [{ "mediaType": layer, "digest": blob, "size": bytes.len() }],
        });
        self.put_manifest(repository, tag, MANIFEST, &manifest)
    }

    /// Puts a blob (OCI distribution specification, 'POST then PUT'); its digest.
    pub fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.name());
        let began = curl(&["-f", "-i", "-X", "POST", &url], None);
        let place = began
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap_or_else(|| panic!("{began}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let joint = if place.contains('?') { '&' } else { '?' };
        let url = format!("{}{joint}digest={digest}", place.trim());
        let data = format!("@{}", file.path().display());
        let kind = "Content-Type: application/octet-stream";
        curl(
            &["-f", "-X", "PUT", "-H", kind, "--data-binary", &data, &url],
            None,
        );
        digest
    }
}

/// Runs the devcontainer CLI in a workspace, with no engine.
pub fn devcontainer(workspace: &Workspace, words: &[&str]) -> Outcome {
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/tools/devcontainer/package/devcontainer.js");
    assert!(
        script.is_file(),
        "the devcontainer CLI is not installed: cargo xtask setup --dev"
    );
    let home: PathBuf = workspace.path().with_file_name("home");
    let mut command = Command::new("node");
    command
        .arg(script)
        .args(words)
        .args([
            "--workspace-folder",
            &workspace.path().display().to_string(),
        ])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", &home)
        .env("TMPDIR", &home)
        .current_dir(workspace.path())
        .stdin(Stdio::null());
    outcome::finish(command, DEADLINE)
}
