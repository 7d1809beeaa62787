//! What we sign, verified by cosign itself, from a registry that somebody else wrote. Both are there after `cargo xtask setup --dev`.
#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use registry::sign::{self, SigningKey};
use schema::digest::Digest;
use serde_json::{Value, json};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// A program from the path, or unpacked beside the build. Absent is a failure.
fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools");
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .chain([tools.join(format!("{name}/usr/bin/{name}"))])
        .find(|program| program.is_file())
        .unwrap_or_else(|| panic!("{name} is not there: cargo xtask setup --dev"))
}

/// Debian's registry on loopback, for the life of one test.
struct Registry {
    process: Child,
    address: String,
    folder: tempfile::TempDir,
    client: reqwest::Client,
}

impl Registry {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = folder.path().join("config.yml");
        let root = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            root.display()
        );
        std::fs::write(&config, text).unwrap();
        let process = Command::new(tool("docker-registry"))
            .arg("serve")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Self {
            process,
            address,
            folder,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        for _ in 0..200 {
            if registry.client.get(registry.url("")).send().await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the registry did not start");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address)
    }

    async fn blob(&self, content: &[u8], kind: &str) -> Value {
        let digest = Digest::of(content);
        let begun = self
            .client
            .post(self.url("app/blobs/uploads/"))
            .send()
            .await
            .unwrap();
        let place = begun.headers()["location"].to_str().unwrap();
        let answer = self
            .client
            .put(format!("{place}&digest={digest}"))
            .body(content.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status().as_u16(), 201);
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    }

    /// Pushes a manifest under a tag; what comes back describes it.
    async fn manifest(&self, tag: &str, manifest: &Value) -> Value {
        let bytes = manifest.to_string().into_bytes();
        let kind = manifest["mediaType"].as_str().unwrap();
        let answer = self
            .client
            .put(self.url(&format!("app/manifests/{tag}")))
            .header("content-type", kind)
            .body(bytes.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status().as_u16(),
            201,
            "{}",
            answer.text().await.unwrap()
        );
        json!({"mediaType": kind, "digest": Digest::of(&bytes), "size": bytes.len()})
    }

    async fn image(&self, tag: &str) -> Value {
        let layer = self
            .blob(tag.as_bytes(), "application/vnd.oci.image.layer.v1.tar")
            .await;
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config = self
            .blob(
                config.to_string().as_bytes(),
                "application/vnd.oci.image.config.v1+json",
            )
            .await;
        self.manifest(
            tag,
            &json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]}),
        )
        .await
    }

    /// Pushes what was signed in both forms: under cosign's tag, and as a referrer that the index under the other tag lists.
    async fn attach(&self, image: &Value, suffix: &str, signed: &sign::Signed) {
        let tag = image["digest"].as_str().unwrap().replace(':', "-");
        let mut layer = self.blob(&signed.layer, signed.layer_type).await;
        layer["annotations"] = json!(signed.layer_annotations);
        let config = self
            .blob(b"{}", "application/vnd.oci.image.config.v1+json")
            .await;
        let older =
            json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        self.manifest(&format!("{tag}.{suffix}"), &older).await;

        let config = self.blob(b"{}", EMPTY).await;
        let layer = self.blob(&signed.bundle, sign::BUNDLE_TYPE).await;
        let referrer = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": sign::BUNDLE_TYPE,
            "config": config,
            "layers": [layer],
            "subject": image,
            "annotations": signed.bundle_annotations,
        });
        let digest = Digest::of(referrer.to_string().as_bytes());
        let mut listed = self.manifest(&digest.to_string(), &referrer).await;
        listed["artifactType"] = sign::BUNDLE_TYPE.into();
        listed["annotations"] = json!(signed.bundle_annotations);
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
        self.manifest(&tag, &index).await;
    }

    /// Whether cosign is content; its home is the test's own, and it is told of no proxy.
    fn cosign(&self, words: &[&str]) -> bool {
        let output = Command::new(tool("cosign"))
            .args(words)
            .env_clear()
            .env("HOME", self.folder.path())
            .output()
            .unwrap();
        eprintln!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn key() -> SigningKey {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cosign/cosign.key");
    SigningKey::from_pem(&std::fs::read(path).unwrap(), Some(b"correct-horse")).unwrap()
}

fn other_key() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cosign/other.pub");
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn cosign_verifies_what_we_sign() {
    let registry = Registry::start().await;
    let key = key();
    let ours = registry.file("ours.pub", key.public_pem());
    let image = registry.image("signed").await;
    let digest = Digest::parse(image["digest"].as_str().unwrap()).unwrap();
    let name = format!("{}/app", registry.address);
    let signed = sign::image(&key, &digest, &name).unwrap();
    let reference = format!("{name}@{digest}");
    let verify = |key: &str, reference: &str| {
        registry.cosign(&["verify", "--insecure-ignore-tlog", "--key", key, reference])
    };
    assert!(!verify(&ours, &reference), "nothing is signed yet");
    registry.attach(&image, "sig", &signed).await;
    assert!(verify(&ours, &reference));
    assert!(!verify(&other_key(), &reference));

    // The same layer beside another image.
    let another = registry.image("another").await;
    registry.attach(&another, "sig", &signed).await;
    let another = format!("{name}@{}", another["digest"].as_str().unwrap());
    assert!(!verify(&ours, &another));
}

#[tokio::test]
async fn cosign_verifies_what_we_attest_in_both_forms() {
    let registry = Registry::start().await;
    let key = key();
    let ours = registry.file("ours.pub", key.public_pem());
    let root = registry.file(
        "trusted_root.json",
        sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT,
    );
    let image = registry.image("attested").await;
    let digest = Digest::parse(image["digest"].as_str().unwrap()).unwrap();
    let name = format!("{}/app", registry.address);
    let predicate = include_bytes!("../testdata/cosign/prov.json");
    let kind = "https://slsa.dev/provenance/v1";
    let attested = sign::attest(&key, &digest, &name, kind, predicate).unwrap();
    registry.attach(&image, "att", &attested).await;
    let reference = format!("{name}@{digest}");
    let verify = |key: &str, kind: &str, more: &[&str]| {
        let mut words = vec![
            "verify-attestation",
            "--insecure-ignore-tlog",
            "--type",
            kind,
            "--key",
            key,
        ];
        words.extend(more);
        words.push(&reference);
        registry.cosign(&words)
    };
    let bundle = ["--new-bundle-format", "--trusted-root", &root];
    for more in [&[][..], &bundle[..]] {
        assert!(verify(&ours, "slsaprovenance1", more), "{more:?}");
        assert!(!verify(&ours, "cyclonedx", more), "{more:?}");
        assert!(!verify(&other_key(), "slsaprovenance1", more), "{more:?}");
    }
}

#[tokio::test]
async fn cosign_verifies_our_signatures_of_content_and_their_bundles() {
    let registry = Registry::start().await;
    let key = key();
    let ours = registry.file("ours.pub", key.public_pem());
    let root = registry.file(
        "trusted_root.json",
        sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT,
    );
    let content = registry.file("content", "some content");
    let changed = registry.file("changed", "some content!");
    let bundle = registry.file("bundle", sign::content(&key, b"some content").unwrap());
    let verify = |file: &str| {
        registry.cosign(&[
            "verify-blob",
            "--insecure-ignore-tlog",
            "--new-bundle-format",
            "--trusted-root",
            &root,
            "--key",
            &ours,
            "--bundle",
            &bundle,
            file,
        ])
    };
    assert!(verify(&content));
    assert!(!verify(&changed));

    // An image's signature as a bundle is a statement about its digest.
    let digest = Digest::of(b"some content");
    let signed = sign::image(&key, &digest, "registry.test/app").unwrap();
    let bundle = registry.file("image-bundle", signed.bundle);
    let verify = |file: &str| {
        registry.cosign(&[
            "verify-blob-attestation",
            "--insecure-ignore-tlog",
            "--new-bundle-format",
            "--trusted-root",
            &root,
            "--type",
            "https://sigstore.dev/cosign/sign/v1",
            "--key",
            &ours,
            "--bundle",
            &bundle,
            file,
        ])
    };
    assert!(verify(&content));
    assert!(!verify(&changed));
}
