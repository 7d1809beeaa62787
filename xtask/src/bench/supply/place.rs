//! A registry with an image and features in it, keys, and a workspace with its own state and cache.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{image, paths, sh};

pub struct Place {
    dir: PathBuf,
    host: String,
    registry: String,
    server: Child,
}

/// Runs it; nanoseconds.
pub fn elapsed(command: &mut Command) -> Result<f64> {
    let began = Instant::now();
    sh::output(command)?;
    Ok(began.elapsed().as_nanos() as f64)
}

impl Place {
    pub fn new(host: &str) -> Result<Self> {
        ensure!(
            sh::there("docker-registry"),
            "docker-registry is not installed: cargo xtask setup --dev"
        );
        let dir = std::env::temp_dir().join(format!("agentcontainer-bench-{}", std::process::id()));
        for name in ["ws", "home", "state", "config/agentcontainer"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let registry = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .to_string();
        let settings = dir.join("registry.yml");
        fs::write(
            &settings,
            format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {registry}\n",
                dir.join("data").display()
            ),
        )?;
        let server = Command::new("docker-registry")
            .arg("serve")
            .arg(&settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let place = Self {
            dir,
            host: host.to_owned(),
            registry,
            server,
        };
        let began = Instant::now();
        while std::net::TcpStream::connect(&place.registry).is_err() {
            ensure!(
                began.elapsed() < Duration::from_secs(20),
                "docker-registry does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        let full = place.image();
        // A layer of its own: what the engine keeps for another image need not be pulled.
        let made = sh::output(
            place
                .command("docker")
                .args(["create", image::DEMO, "true"]),
        )?;
        let flat = place.dir.join("image.tar").display().to_string();
        let exported =
            sh::output(
                place
                    .command("docker")
                    .args(["export", "-o", &flat, made.trim()]),
            );
        sh::output(place.command("docker").args(["rm", made.trim()]))?;
        exported?;
        sh::output(place.command("docker").args(["import", &flat, &full]))?;
        sh::output(place.command("docker").args(["push", "--quiet", &full]))?;
        let prefix = place.dir.join("key").display().to_string();
        sh::output(
            place
                .cosign()
                .args(["generate-key-pair", "--output-key-prefix", &prefix]),
        )?;
        Ok(place)
    }

    /// `127.0.0.1:PORT`
    pub fn registry(&self) -> &str {
        &self.registry
    }

    fn image(&self) -> String {
        format!("{}/app:1", self.registry)
    }

    /// Features that differ in their name alone.
    pub fn push_features(&self, count: usize) -> Result<()> {
        for n in 0..count {
            let source = self.dir.join("feature");
            fs::create_dir_all(&source)?;
            let about =
                json!({ "id": format!("f{n}"), "version": "1.0.0", "name": format!("f{n}") });
            fs::write(source.join("devcontainer-feature.json"), about.to_string())?;
            fs::write(source.join("install.sh"), "#!/bin/sh\ntrue\n")?;
            let archive = self.dir.join("feature.tar");
            sh::output(
                Command::new("tar")
                    .args(["--create", "--owner=0", "--group=0", "--mtime=@0", "--file"])
                    .arg(&archive)
                    .arg("--directory")
                    .arg(&source)
                    .args(["./devcontainer-feature.json", "./install.sh"]),
            )?;
            let repository = format!("features/f{n}");
            let config = self.put_blob(&repository, "application/vnd.devcontainers", b"{}")?;
            let layer = self.put_blob(
                &repository,
                "application/vnd.devcontainers.layer.v1+tar",
                &fs::read(&archive)?,
            )?;
            let kind = "application/vnd.oci.image.manifest.v1+json";
            let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer] });
            let url = format!("http://{}/v2/{repository}/manifests/1", self.registry);
            self.put(&url, kind, manifest.to_string().as_bytes())?;
        }
        Ok(())
    }

    fn put_blob(&self, repository: &str, kind: &str, bytes: &[u8]) -> Result<Value> {
        let digest = format!("sha256:{:x}", Sha256::digest(bytes));
        let uploads = format!("http://{}/v2/{repository}/blobs/uploads/", self.registry);
        let begun = sh::output(&mut sh::command(
            "curl",
            ["-sSf", "-X", "POST", "-D", "-", "-o", "/dev/null", &uploads],
        ))?;
        let place = begun
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .context("the registry names no place to upload to")?
            .trim();
        let glue = if place.contains('?') { '&' } else { '?' };
        self.put(
            &format!("{place}{glue}digest={digest}"),
            "application/octet-stream",
            bytes,
        )?;
        Ok(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }))
    }

    fn put(&self, url: &str, kind: &str, bytes: &[u8]) -> Result<()> {
        let file = self.dir.join("upload");
        fs::write(&file, bytes)?;
        let (from, kind) = (
            format!("@{}", file.display()),
            format!("Content-Type: {kind}"),
        );
        sh::output(&mut sh::command(
            "curl",
            [
                "-sSf",
                "-X",
                "PUT",
                "-H",
                &kind,
                "--data-binary",
                &from,
                url,
            ],
        ))?;
        Ok(())
    }

    /// The workspace's config from here on: the image and so many features, by that name of the registry.
    pub fn config(&self, registry: &str, features: usize) -> Result<()> {
        let features: serde_json::Map<String, Value> = (0..features)
            .map(|n| (format!("{registry}/features/f{n}:1"), json!({})))
            .collect();
        let mut config = json!({ "image": format!("{registry}/app:1") });
        if !features.is_empty() {
            config["features"] = Value::Object(features);
        }
        fs::write(self.dir.join("ws/agentcontainer.json"), config.to_string())?;
        let tables = [self.registry(), registry]
            .map(|name| format!("[registries.{name:?}]\nplain_http = true\n"));
        let count = if registry == self.registry { 1 } else { 2 };
        fs::write(
            self.dir.join("config/agentcontainer/config.toml"),
            tables[..count].concat(),
        )?;
        Ok(())
    }

    /// What was looked up is to be looked up again.
    pub fn forget(&self) -> Result<()> {
        for gone in ["ws/agentcontainer-lock.json", "ws/devcontainer-lock.json"] {
            let _ = fs::remove_file(self.dir.join(gone));
        }
        let cache = self.dir.join("home/.cache");
        if cache.exists() {
            fs::remove_dir_all(cache)?;
        }
        Ok(())
    }

    /// Signs the image and the features with the key.
    pub fn sign(&self, features: usize) -> Result<()> {
        self.config(&self.registry, 0)?;
        let all = (0..features).map(|n| format!("{}/features/f{n}:1", self.registry));
        for reference in std::iter::once(self.image()).chain(all) {
            let key = self.dir.join("key.key").display().to_string();
            sh::output(&mut self.cli(&["sign", &reference, "--key", &key]))?;
        }
        Ok(())
    }

    pub fn cli(&self, words: &[&str]) -> Command {
        let mut command = self.command(paths::binary());
        command.args(words);
        command
    }

    pub fn verify(&self, words: &[&str]) -> Command {
        let mut command = self.cli(&["verify", "--yes", "--key"]);
        command.arg(self.dir.join("key.pub")).args(words);
        command
    }

    fn cosign(&self) -> Command {
        let ours = paths::target().join("tools/cosign/usr/bin/cosign");
        self.command(if ours.exists() { ours } else { "cosign".into() })
    }

    pub fn cosign_verify(&self) -> Command {
        let mut command = self.cosign();
        command
            .arg("verify")
            .arg("--key")
            .arg(self.dir.join("key.pub"));
        command.args(["--insecure-ignore-tlog", "--allow-insecure-registry"]);
        command.arg(self.image());
        command
    }

    pub fn docker_pull(&self) -> Command {
        let mut command = self.command("docker");
        command.args(["pull", "--quiet", &self.image()]);
        command
    }

    /// Has the engine forget the image and its layers, whatever names it has.
    pub fn remove_image(&self) -> Result<()> {
        let listed = sh::output(self.command("docker").args([
            "images",
            "--no-trunc",
            "--format",
            "{{.ID}}",
            &format!("{}/app", self.registry),
        ]))?;
        let mut ids: Vec<&str> = listed.lines().collect();
        ids.sort_unstable();
        ids.dedup();
        for id in ids {
            sh::output(self.command("docker").args(["rmi", "--force", id]))?;
        }
        Ok(())
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.join("home"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("XDG_CACHE_HOME", self.dir.join("home/.cache"))
            .env("COSIGN_PASSWORD", "bench")
            .env("DOCKER_HOST", &self.host)
            .current_dir(self.dir.join("ws"))
            .stdin(Stdio::null());
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.remove_image();
        let _ = sh::output(&mut self.cli(&["enforcer", "stop", "--force"]));
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}
