//! The event as people and machines read it (config.md, "Events"). Absent fields are left out of the JSON.

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Connect,
    Send,
    Dns,
    Request,
    Response,
    Exec,
    File,
    Secret,
    Credential,
    Approval,
    Policy,
    Lifecycle,
    /// Kernel events that were lost, counted.
    Loss,
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Allow,
    Deny,
    Ask,
    Flag,
}

/// The rule that decided: its name as people write it, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    pub name: String,
    /// `file:line:column`.
    pub origin: String,
}

/// Who did it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// In the container's pid namespace; absent when the process was gone before it could be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pid: Option<u32>,
    pub host_pid: u32,
    pub uid: u32,
    /// The executable's path, from the kernel; absent when the process was gone.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub program: Option<String>,
    /// The name a thread gave itself: for people, never for decisions.
    pub comm: String,
}

/// One event. `time` and `seq` are the log's to give.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// RFC 3339 with nanoseconds, UTC.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub time: String,
    /// Counts from 1 within a session, without a gap.
    #[serde(default)]
    pub seq: u64,
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub session: String,
    pub kind: Kind,
    pub verdict: Verdict,
    /// A stable code.
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rule: Option<Rule>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub process: Option<Process>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub host: Option<String>,
    /// The literal address, where no name was involved.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub protocol: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// Query values redacted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_out: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub duration_ms: Option<u64>,
    /// The name of the credential that was put in; never its value.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub credential: Option<String>,
    /// The path of what was opened, changed or made, as the container has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<String>,
    /// The path of what was to be executed, as the container has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub binary: Option<String>,
    /// The question that a person was asked, by the id that it was answered by.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub approval: Option<String>,
    /// How long it waited for a person.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub held_ms: Option<u64>,
    /// The user id of whoever answered, as the kernel says it of the peer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<u32>,
    /// Which layer decided: gate, gateway, dns, init, enforcer, mounts, lsm.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer: Option<String>,
    /// How many kernel events were lost (kind `loss`).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<u64>,
    /// Words for people; never parsed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

impl Event {
    /// An event with nothing but what every event has.
    pub fn new(kind: Kind, verdict: Verdict, reason: impl Into<String>) -> Self {
        Self {
            time: String::new(),
            seq: 0,
            session: String::new(),
            kind,
            verdict,
            reason: reason.into(),
            rule: None,
            process: None,
            host: None,
            address: None,
            port: None,
            protocol: None,
            method: None,
            url: None,
            status: None,
            bytes_in: None,
            bytes_out: None,
            duration_ms: None,
            credential: None,
            file: None,
            binary: None,
            approval: None,
            held_ms: None,
            by: None,
            layer: None,
            lost: None,
            detail: None,
        }
    }
}
