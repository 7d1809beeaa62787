//! A service on this machine's loopback that answers what a test tells it to, and what it was asked.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::peer::Authority;

/// Over TLS, with the authority's certificate; gone when this value is.
#[derive(Debug)]
pub struct Scripted {
    pub port: u16,
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Scripted {
    /// `{ "POST /path": [[status, body], …] }`: each once, the last one ever after.
    pub fn start(ca: &Authority, answers: &Value) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/scripted.py");
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(script)
            .arg(ca.certificate())
            .arg(ca.key())
            .arg(answers.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = match lines.next() {
            Some(Ok(line)) => serde_json::from_str(&line).unwrap(),
            other => panic!("the service does not start: {other:?}"),
        };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let said = serde_json::from_str(&line).unwrap_or(Value::Null);
                into.lock().unwrap().push(said);
            }
        });
        Self {
            port: u16::try_from(first["port"].as_u64().unwrap()).unwrap(),
            child,
            heard,
        }
    }

    /// What it was asked since it was asked that last: `line`, `headers` (their names in small letters) and `body`.
    pub fn heard(&self) -> Vec<Value> {
        std::thread::sleep(std::time::Duration::from_millis(100));
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
