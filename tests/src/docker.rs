//! The engine's own client, for what stands outside agentcontainer: positive controls, peers, and looking at what was left behind.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Outcome, outcome, rig};

/// Runs the client and gives its standard output; a failure ends the test with what it said.
pub fn run(words: &[&str]) -> String {
    run_on(&rig().docker_host, words)
}

/// The same of another engine.
pub fn run_on(host: &str, words: &[&str]) -> String {
    let output = Command::new("docker")
        .args(["--host", host])
        .args(words)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("the docker client is not installed: cargo xtask setup");
    assert!(
        output.status.success(),
        "docker {words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Runs the client, whatever comes of it.
pub fn attempt(words: &[&str]) -> Outcome {
    let mut docker = Command::new("docker");
    docker.args(["--host", &rig().docker_host]).args(words);
    outcome::finish(docker, outcome::DEADLINE)
}

/// Makes a container by the request that another was made by, through the engine's API; its id.
pub fn copy(id: &str) -> String {
    let inspected: Value = serde_json::from_str(&run(&["inspect", id])).unwrap();
    let mut request = inspected[0]["Config"].clone();
    request["HostConfig"] = inspected[0]["HostConfig"].clone();
    let body = request.to_string();
    let socket = rig().docker_host.trim_start_matches("unix://");
    let mut engine = UnixStream::connect(socket).unwrap();
    write!(
        engine,
        "POST /containers/create HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    engine.read_to_string(&mut answer).unwrap();
    let made = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let made: Value = serde_json::from_str(made).unwrap_or_else(|_| panic!("{answer}"));
    made["Id"]
        .as_str()
        .unwrap_or_else(|| panic!("{answer}"))
        .to_owned()
}

/// Names of the containers, running or not, that carry our session label.
pub fn session_containers() -> Vec<String> {
    let listed = run(&[
        "ps",
        "--all",
        "--filter",
        "label=dev.agentcontainer.session",
        "--format",
        "{{.Names}}",
    ]);
    listed.lines().map(str::to_owned).collect()
}

/// A plain container, governed by nobody, that is gone when this value is.
#[derive(Debug)]
pub struct Plain {
    pub id: String,
}

impl Plain {
    /// Starts one of the test image on the default bridge.
    pub fn start(options: &[&str], command: &[&str]) -> Self {
        let mut words = vec!["run", "--detach", "--rm"];
        words.extend(options);
        words.push(&rig().image);
        words.extend(command);
        Self { id: run(&words) }
    }

    /// Its address on the bridge.
    pub fn address(&self) -> std::net::Ipv4Addr {
        run(&[
            "inspect",
            "--format",
            "{{.NetworkSettings.IPAddress}}",
            &self.id,
        ])
        .parse()
        .unwrap()
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        attempt(&["rm", "--force", "--volumes", &self.id]);
    }
}
