//! A stand-in for Sigstore's services on loopback: authority, log, timestamps, an issuer of identities; and Sigstore's own verifier.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tempfile::TempDir;

use crate::{Outcome, outcome};

/// The services; gone when this value is.
#[derive(Debug)]
pub struct Sigstore {
    dir: TempDir,
    child: Child,
    said: Value,
    asked: Arc<Mutex<Vec<Value>>>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/sigstore.mjs")
}

fn packages() -> PathBuf {
    std::env::var_os("AGENTCONTAINER_TEST_SIGSTORE")
        .expect("run this with `cargo xtask test`")
        .into()
}

impl Sigstore {
    pub fn start() -> Self {
        Self::holding(86400)
    }

    /// One whose trusted root's repository says that it is in force for so many seconds.
    pub fn holding(seconds: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("node")
            .arg(script())
            .arg(packages())
            .arg(dir.path())
            .arg(seconds.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is not installed: cargo xtask setup --dev");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let into = asked.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap_or_default());
            }
        });
        Self {
            dir,
            child,
            said,
            asked,
        }
    }

    /// `fulcio`, `rekor`, `timestamp`, `issuer`, `tuf`, or a `token`.
    pub fn said(&self, what: &str) -> &str {
        self.said[what].as_str().unwrap()
    }

    /// A file of the instance's.
    pub fn file(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Names of the services that were asked since the last time.
    pub fn asked(&self) -> Vec<String> {
        let asked: Vec<Value> = std::mem::take(&mut self.asked.lock().unwrap());
        asked
            .iter()
            .map(|one| one["asked"].as_str().unwrap_or_default().to_owned())
            .collect()
    }

    /// Ends it; its files stay.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether Sigstore's own verifier accepts a bundle.
    pub fn verify(&self, bundle: &Path, subject: &str, issuer: &str) -> Outcome {
        let mut node = Command::new("node");
        node.arg(script())
            .arg(packages())
            .arg("verify")
            .arg(self.file("trusted_root.json"))
            .arg(bundle)
            .args([subject, issuer]);
        outcome::finish(node, outcome::DEADLINE)
    }
}

impl Drop for Sigstore {
    fn drop(&mut self) {
        self.stop();
    }
}
