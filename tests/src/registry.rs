//! A real registry (Debian's docker-registry) on a loopback port, a front of it that answers as a test tells it to, and images that
//! the engine itself pushes there.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{docker, outcome, rig};

/// A registry with its files; gone when this value is.
#[derive(Debug)]
pub struct Registry {
    dir: TempDir,
    port: u16,
    server: Child,
    front: Mutex<Option<Front>>,
    tags: Mutex<Vec<String>>,
}

#[derive(Debug)]
struct Front {
    port: u16,
    child: Child,
    input: ChildStdin,
    told: Receiver<()>,
    asked: Arc<Mutex<Vec<Value>>>,
}

// === impl Registry ===

impl Registry {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("ac-reg-")
            .tempdir()
            .unwrap();
        let port = free_port();
        let server = serve(dir.path(), port);
        let registry = Self {
            dir,
            port,
            server,
            front: Mutex::new(None),
            tags: Mutex::new(Vec::new()),
        };
        registry.wait();
        registry
    }

    /// `127.0.0.1:PORT`
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where it keeps its files.
    pub fn files(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The lines of the host's config.toml that a registry without TLS needs.
    pub fn host_table(name: &str) -> String {
        format!("[registries.{name:?}]\nplain_http = true")
    }

    fn wait(&self) {
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "docker-registry does not come up"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it; [`Self::resume`] has it back on the same port.
    pub fn stop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }

    pub fn resume(&mut self) {
        self.server = serve(self.dir.path(), self.port);
        self.wait();
    }

    /// Pushes an image of busybox that says `words` under `tag`, such as `app:1`; its id on the engine.
    pub fn push(&self, tag: &str, words: &str) -> String {
        self.push_with(tag, words, &[])
    }

    /// The same with further instructions of a Dockerfile, such as `ENV A=1`.
    pub fn push_with(&self, tag: &str, words: &str, changes: &[&str]) -> String {
        let full = format!("{}/{tag}", self.name());
        let id = busybox(words, changes);
        docker::run(&["tag", &id, &full]);
        docker::run(&["push", "--quiet", &full]);
        self.tags.lock().unwrap().push(full);
        id
    }

    /// Has the engine forget what it was pushed from, so that it has to pull.
    pub fn forget(&self, tag: &str) {
        let full = format!("{}/{tag}", self.name());
        docker::attempt(&["rmi", "--force", &full]);
    }

    /// What the registry has under a tag or digest, with its media type.
    pub fn manifest(&self, repository: &str, reference: &str) -> (Value, String) {
        let url = format!(
            "http://{}/v2/{repository}/manifests/{reference}",
            self.name()
        );
        let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
        let out = curl(&["-H", accept, "-D", "-", &url], None);
        let (head, body) = out.split_once("\r\n\r\n").unwrap();
        let kind = head
            .lines()
            .find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("content-type: ")
                    .map(str::to_owned)
            })
            .unwrap_or_default();
        (
            serde_json::from_str(body).unwrap_or_else(|_| panic!("{out}")),
            kind,
        )
    }

    /// The digest that a tag names.
    pub fn digest(&self, repository: &str, tag: &str) -> String {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.name());
        let accept = "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
        let out = curl(&["-I", "-H", accept, &url], None);
        out.lines()
            .find_map(|l| {
                l.to_ascii_lowercase()
                    .strip_prefix("docker-content-digest: ")
                    .map(|d| d.trim().to_owned())
            })
            .unwrap_or_else(|| panic!("{out}"))
    }

    /// Puts a manifest or an index; its digest.
    pub fn put_manifest(
        &self,
        repository: &str,
        tag: &str,
        kind: &str,
        manifest: &Value,
    ) -> String {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.name());
        let header = format!("Content-Type: {kind}");
        let text = serde_json::to_string(manifest).unwrap();
        curl(
            &[
                "-f",
                "-X",
                "PUT",
                "-H",
                &header,
                "--data-binary",
                "@-",
                &url,
            ],
            Some(&text),
        );
        self.digest(repository, tag)
    }

    /// Puts a blob; its descriptor.
    pub fn put_blob(&self, repository: &str, kind: &str, bytes: &[u8]) -> Value {
        let digest = self.push_blob(repository, bytes);
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    }

    /// Puts an index of the manifests that these tags name, each for its platform.
    pub fn put_index(&self, repository: &str, tag: &str, parts: &[(&str, &str)]) -> String {
        let entries: Vec<Value> = parts
            .iter()
            .map(|(part, platform)| {
                let (manifest, kind) = self.manifest(repository, part);
                let (os, architecture) = platform.split_once('/').unwrap();
                json!({
                    "mediaType": kind,
                    "digest": self.digest(repository, part),
                    "size": self.size(repository, part, &manifest),
                    "platform": { "os": os, "architecture": architecture },
                })
            })
            .collect();
        let kind = "application/vnd.docker.distribution.manifest.list.v2+json";
        let index = json!({ "schemaVersion": 2, "mediaType": kind, "manifests": entries });
        self.put_manifest(repository, tag, kind, &index)
    }

    fn size(&self, repository: &str, tag: &str, _: &Value) -> usize {
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.name());
        curl(
            &[
                "-H",
                "Accept: application/vnd.docker.distribution.manifest.v2+json",
                &url,
            ],
            None,
        )
        .len()
    }

    /// A front of it, once; its name, `127.0.0.1:PORT`.
    pub fn front(&self) -> String {
        let mut front = self.front.lock().unwrap();
        let front = front.get_or_insert_with(|| Front::start(self.port));
        format!("127.0.0.1:{}", front.port)
    }

    /// How the front answers from now on; forgets what it was asked.
    pub fn tell(&self, mode: &Value) {
        self.front();
        let mut front = self.front.lock().unwrap();
        let front = front.as_mut().unwrap();
        writeln!(front.input, "{mode}").unwrap();
        front.told.recv_timeout(Duration::from_secs(10)).unwrap();
        front.asked.lock().unwrap().clear();
    }

    /// What the front was asked since it was told something.
    pub fn asked(&self) -> Vec<Value> {
        let front = self.front.lock().unwrap();
        let asked = front.as_ref().unwrap().asked.lock().unwrap();
        asked.clone()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
        for tag in self.tags.lock().unwrap().iter() {
            docker::attempt(&["rmi", "--force", tag]);
        }
    }
}

// === impl Front ===

impl Front {
    fn start(real: u16) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/registry.py");
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(script)
            .args(["0", &real.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let input = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (tell, told) = channel();
        let into = asked.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said: Value = serde_json::from_str(&line).unwrap_or_default();
                if said["told"] == true {
                    let _ = tell.send(());
                } else {
                    into.lock().unwrap().push(said);
                }
            }
        });
        Self {
            port: u16::try_from(first["port"].as_u64().unwrap()).unwrap(),
            child,
            input,
            told,
            asked,
        }
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn serve(dir: &Path, port: u16) -> Child {
    let config = dir.join("config.yml");
    let text = format!(
        "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n",
        dir.join("data").display()
    );
    std::fs::write(&config, text).unwrap();
    Command::new("docker-registry")
        .arg("serve")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("docker-registry is not installed: cargo xtask setup --dev")
}

/// Runs curl; what it printed.
pub fn curl(words: &[&str], input: Option<&str>) -> String {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--max-time", "60"])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .expect("curl is not installed: cargo xtask setup --dev");
    if let Some(input) = input {
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
    } else {
        drop(child.stdin.take());
    }
    let out = outcome::wait(child, &format!("curl {words:?}"), outcome::DEADLINE);
    out.ok();
    out.stdout
}

/// An image of one program, made by the engine itself; its id.
fn busybox(words: &str, changes: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for made in ["bin", "etc", "tmp"] {
        std::fs::create_dir(root.join(made)).unwrap();
    }
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))
        .expect("busybox-static is not installed: cargo xtask setup --dev");
    for name in ["sh", "cat", "true", "sleep", "echo"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    std::fs::write(
        root.join("etc/passwd"),
        "root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
    )
    .unwrap();
    std::fs::write(root.join("etc/group"), "root:x:0:\nuser:x:1000:\n").unwrap();
    std::fs::write(root.join("words"), words).unwrap();
    let tar = dir.path().with_extension("tar");
    let status = Command::new("tar")
        .args(["--create", "--owner=0", "--group=0", "--file"])
        .arg(&tar)
        .arg("--directory")
        .arg(root)
        .arg(".")
        .status();
    assert!(status.is_ok_and(|s| s.success()));
    let tarball = tar.display().to_string();
    let mut command = vec!["import"];
    let own = ["USER 1000", "CMD [\"/bin/cat\", \"/words\"]"];
    for change in own.iter().chain(changes) {
        command.extend(["--change", change]);
    }
    command.push(&tarball);
    let id = docker::run(&command);
    let _ = std::fs::remove_file(tar);
    // Kept from being the same on two calls, the id is the engine's own.
    assert!(!rig().docker_host.is_empty());
    id
}
