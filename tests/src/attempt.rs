//! One attempt of the red team, how it is made and judged, and the table of what came of all of them. The positive control comes
//! first: what does not work in a plain container proves nothing when it fails under us.

use std::io::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A way out that is tried, first in a plain container, then in one of ours.
#[derive(Debug, Clone, Copy)]
pub struct Attempt {
    /// As in the list of attempts; a suffix tells variants apart.
    pub id: &'static str,
    pub title: &'static str,
    /// How it is shown to work without us: in a container of the test image with these further options of the engine.
    pub control: &'static str,
    pub verdict: Verdict,
}

/// Who says whether it worked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver outside: did it hear the attempt's token?
    Receiver,
    /// The probe: did it get hold of something that it must not have?
    Gain,
}

/// What the probe says about one attempt.
#[derive(Debug, Clone, Deserialize)]
pub struct Said {
    pub id: String,
    pub step: String,
    pub error: String,
    pub got: String,
}

/// A line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub id: String,
    pub title: String,
    /// `works`, or how it is shown to.
    pub control: String,
    /// `stopped`, `LEAKED` or `works` (for what must go on working).
    pub outcome: String,
    /// What stopped it.
    pub layer: String,
}

impl Line {
    /// Adds the line to the table that `cargo xtask redteam` prints.
    pub fn record(&self) {
        let Some(dir) = std::env::var_os("AGENTCONTAINER_TEST_RESULTS") else {
            return;
        };
        let path = std::path::Path::new(&dir).join("redteam.jsonl");
        let mut file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        // One write, so that lines of tests that run at once do not mix.
        file.write_all(format!("{}\n", serde_json::to_string(self).unwrap()).as_bytes())
            .unwrap();
    }
}

/// The layer that stopped an attempt, by how far it got, what it was told, and what is on record about its port.
pub fn layer(said: &Said, events: &[Value], port: u16) -> String {
    let recorded = events
        .iter()
        .find(|event| event["port"] == port && event["verdict"] == "deny");
    if let Some(event) = recorded {
        let kind = event["kind"].as_str().unwrap_or("?");
        let who = if kind == "connect" || kind == "send" {
            "gate"
        } else {
            "gateway"
        };
        return format!(
            "{who}: {kind} {} ({})",
            event["reason"].as_str().unwrap_or("?"),
            said.error
        );
    }
    let what = match (said.step.as_str(), said.error.as_str()) {
        (_, "") => "gateway: carried to nobody",
        ("socket", _) => "sock_create or seccomp",
        ("program", _) => "mounts",
        ("device" | "route" | "link", _) => "empty network namespace, no capabilities",
        ("connect" | "send" | "bind" | "scan", "EPERM") => "gate",
        ("connect" | "send" | "scan", _) => "empty network namespace",
        ("look" | "search" | "resolve" | "done", _) => "nothing there",
        (
            "mount" | "unshare" | "clone3" | "setns" | "bpf" | "io_uring_setup" | "ptrace"
            | "ioctl",
            _,
        ) => "seccomp, no capabilities",
        _ => "refused",
    };
    format!("{what} ({}: {})", said.step, said.error)
}
