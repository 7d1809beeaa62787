//! Stand-ins for what an agent talks to: the API of its model, and the registry that its package comes from.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::peer::Authority;
use crate::rig;

/// The names they answer by, each with a certificate.
pub const NAMES: [&str; 4] = [
    "api.anthropic.com",
    "api.openai.com",
    "generativelanguage.googleapis.com",
    "npm.registry.test",
];
/// What each model says.
pub const ANSWER: &str = "the stand-in answers";

/// One server for all of them on port 443 of the bridge; gone when this value is.
#[derive(Debug)]
pub struct Services {
    pub ca: Authority,
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Services {
    /// With the tarballs in that directory.
    pub fn start(packages: &Path) -> Self {
        let ca = Authority::for_names(&NAMES);
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/services.py");
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(script)
            .args([&rig().bridge.to_string(), "443"])
            .arg(ca.certificate())
            .arg(ca.key())
            .arg(packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next();
        assert!(
            matches!(first, Some(Ok(_))),
            "the stand-ins do not start: {first:?}"
        );
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said = serde_json::from_str(&line).unwrap_or(Value::Null);
                into.lock().unwrap().push(said);
            }
        });
        Self { ca, child, heard }
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        self.heard.lock().unwrap().clear();
    }

    /// The requests to a name since then.
    pub fn requests(&self, host: &str) -> Vec<Value> {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let heard = self.heard.lock().unwrap();
        heard
            .iter()
            .filter(|one| one["host"] == host)
            .cloned()
            .collect()
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
