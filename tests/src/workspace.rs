//! A throwaway workspace with its config, its host configuration, and the CLI run in it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::docker;
use crate::outcome::{self, DEADLINE};
use crate::{Outcome, rig};

/// A directory that agentcontainer is run in; its sessions are stopped when it goes.
#[derive(Debug)]
pub struct Workspace {
    dir: TempDir,
    egress: Value,
    extra: Value,
    hosts: BTreeMap<String, IpAddr>,
    private_networks: Vec<String>,
    host_lines: Vec<String>,
    credentials: Value,
    grants: Vec<String>,
    inspection: Value,
    tools: Value,
    engine: String,
    state: PathBuf,
    locks: bool,
}

impl Workspace {
    /// Nothing is allowed in it.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("ac-ws-").tempdir().unwrap();
        fs::create_dir(dir.path().join("ws")).unwrap();
        // Where the tests run as root, the workspace still is a person's: of the user that programs inside are.
        let _ = std::os::unix::fs::chown(dir.path().join("ws"), Some(1000), Some(1000));
        fs::create_dir(dir.path().join("home")).unwrap();
        fs::create_dir_all(dir.path().join("config/agentcontainer")).unwrap();
        let bridge = rig().bridge.octets();
        Self {
            dir,
            egress: json!({}),
            extra: json!({}),
            hosts: BTreeMap::new(),
            private_networks: vec![format!("{}.{}.{}.0/24", bridge[0], bridge[1], bridge[2])],
            host_lines: Vec::new(),
            credentials: json!({}),
            grants: Vec::new(),
            inspection: json!({}),
            tools: json!({}),
            engine: rig().docker_host.clone(),
            state: rig().state.clone(),
            locks: true,
        }
    }

    /// Where `run` is not told to lock first, as it is everywhere else.
    pub fn without_locking(mut self) -> Self {
        self.locks = false;
        self
    }

    /// With an enforcer of its own, whose state goes with the workspace.
    pub fn with_own_state(mut self) -> Self {
        self.state = self.dir.path().join("state");
        self
    }

    /// On another engine, with an enforcer of its own there.
    pub fn on_engine(mut self, host: &str) -> Self {
        self.engine = host.to_owned();
        self.with_own_state()
    }

    /// The engine that it runs on.
    pub fn engine(&self) -> &str {
        &self.engine
    }

    /// What the CLI takes for the user's state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Adds to `allowedDomains`, and lets the name lead to the bridge, unless it is a pattern.
    pub fn allow(mut self, entries: &[&str]) -> Self {
        for entry in entries {
            push(&mut self.egress, "allowedDomains", json!(entry));
            let name = entry.split(':').next().unwrap();
            if !name.starts_with('*') {
                self.hosts
                    .entry(name.to_owned())
                    .or_insert(rig().bridge.into());
            }
        }
        self
    }

    /// Adds to `allowedDomains` a name that only the resolver can say the address of.
    pub fn allow_without_host(mut self, entry: &str) -> Self {
        push(&mut self.egress, "allowedDomains", json!(entry));
        self
    }

    /// Adds to `deniedDomains`.
    pub fn deny(mut self, entries: &[&str]) -> Self {
        entries
            .iter()
            .for_each(|entry| push(&mut self.egress, "deniedDomains", json!(entry)));
        self
    }

    /// Sets `deniedBinaries`.
    pub fn deny_programs(mut self, names: &[&str]) -> Self {
        self.tools["deniedBinaries"] = json!(names);
        self
    }

    /// Adds a rule for one port of a name.
    pub fn rule(mut self, host: &str, port: u16, protocol: &str) -> Self {
        push(
            &mut self.egress,
            "rules",
            json!({ "host": host, "ports": [port], "protocol": protocol }),
        );
        self.hosts
            .entry(host.to_owned())
            .or_insert(rig().bridge.into());
        self
    }

    /// Adds rules as they are written.
    pub fn rules(mut self, rules: &Value) -> Self {
        for rule in rules.as_array().unwrap() {
            push(&mut self.egress, "rules", rule.clone());
        }
        self
    }

    /// Adds to `networks`.
    pub fn network(mut self, entry: &str) -> Self {
        push(&mut self.egress, "networks", json!(entry));
        self
    }

    /// Where a name leads, allowed or not.
    pub fn host(mut self, name: &str, address: impl Into<IpAddr>) -> Self {
        self.hosts.insert(name.to_owned(), address.into());
        self
    }

    /// Takes the bridge's network out of `private_networks` again.
    pub fn without_private_networks(mut self) -> Self {
        self.private_networks.clear();
        self
    }

    /// Has the `[gateway]` table of the host's config.toml hold this line and these private networks, and no others.
    pub fn set_gateway(&mut self, line: &str, private_networks: &[&str]) {
        self.host_lines = vec![line.to_owned()];
        self.private_networks = private_networks.iter().map(|&n| n.to_owned()).collect();
    }

    /// Adds a line to the `[gateway]` table of the host's config.toml.
    pub fn gateway_line(mut self, line: &str) -> Self {
        self.host_lines.push(line.to_owned());
        self
    }

    /// Asks for a credential in agentcontainer.json.
    pub fn credential(mut self, name: &str, asked: Value) -> Self {
        self.credentials[name] = asked;
        self
    }

    /// Grants one in the host's config.toml: the lines of its table.
    pub fn grant(mut self, name: &str, lines: &str) -> Self {
        self.grants.push(format!("[credentials.{name}]\n{lines}\n"));
        self
    }

    /// Levels of inspectors in agentcontainer.json.
    pub fn inspection(mut self, levels: Value) -> Self {
        self.inspection = levels;
        self
    }

    /// A table of the host's config.toml, with its heading.
    pub fn host_table(mut self, lines: &str) -> Self {
        self.grants.push(format!("{lines}\n"));
        self
    }

    /// Puts a file beside the workspace, where nothing inside sees it, that its owner alone may write.
    pub fn put_outside(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join("home").join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// Sets a key beside `image` in agentcontainer.json.
    pub fn key(mut self, key: &str, value: Value) -> Self {
        self.extra[key] = value;
        self
    }

    /// The directory that is mounted into the container.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("ws")
    }

    /// What agentcontainer.json says; written anew before each run.
    pub fn config(&self) -> Value {
        let mut config = json!({
            "image": rig().image,
            "agent": { "capabilities": { "network": { "egress": self.egress } } },
        });
        if self.credentials != json!({}) {
            config["agent"]["credentials"] = self.credentials.clone();
        }
        if self.inspection != json!({}) {
            config["agent"]["inspection"] = self.inspection.clone();
        }
        if self.tools != json!({}) {
            config["agent"]["capabilities"]["tools"] = self.tools.clone();
        }
        for (key, value) in self.extra.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    /// Writes both configurations.
    pub fn write(&self) {
        fs::write(
            self.path().join("agentcontainer.json"),
            serde_json::to_vec_pretty(&self.config()).unwrap(),
        )
        .unwrap();
        self.write_host_config();
    }

    /// Writes the host's config.toml alone, for tests that bring an agentcontainer.json of their own.
    pub fn write_host_config(&self) {
        let hosts: Vec<String> = self
            .hosts
            .iter()
            .map(|(name, address)| format!("{name:?} = \"{address}\""))
            .collect();
        let networks: Vec<String> = self
            .private_networks
            .iter()
            .map(|network| format!("{network:?}"))
            .collect();
        let mut text = format!(
            "[gateway]\nhosts = {{ {} }}\nprivate_networks = [{}]\n",
            hosts.join(", "),
            networks.join(", ")
        );
        self.host_lines
            .iter()
            .for_each(|line| text.push_str(&format!("{line}\n")));
        self.grants.iter().for_each(|grant| text.push_str(grant));
        fs::write(
            self.dir.path().join("config/agentcontainer/config.toml"),
            text,
        )
        .unwrap();
    }

    /// The CLI with these words, in this workspace, with nothing of the test's own environment.
    pub fn command<S: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&rig().binary);
        self.environment(&mut command);
        let mut words: Vec<OsString> = words.into_iter().map(|w| w.as_ref().into()).collect();
        if self.locks && words.first().is_some_and(|word| word == "run") && self.is_to_lock(&words)
        {
            words.insert(1, "--lock".into());
        }
        command.args(words);
        command
    }

    /// A run that starts something in a workspace with a config; a profile's own image is locked without being asked to.
    fn is_to_lock(&self, words: &[OsString]) -> bool {
        const NOT: [&str; 5] = ["--plan", "--lock", "--help", "--config", "-h"];
        let ours = words.split(|word| word == "--").next().unwrap_or_default();
        let has_config = ["agentcontainer.json", ".devcontainer", ".devcontainer.json"]
            .iter()
            .any(|name| self.path().join(name).exists());
        has_config && !ours.iter().any(|word| NOT.iter().any(|not| word == not))
            || ours.iter().any(|word| word == "--config") && !ours.iter().any(|w| w == "--plan")
    }

    /// Gives a command the environment and the directory that the CLI is run with.
    pub fn environment(&self, command: &mut Command) {
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path().join("home"))
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("XDG_STATE_HOME", &self.state)
            .env("DOCKER_HOST", &self.engine)
            .current_dir(self.path());
    }

    /// Runs the CLI with these words.
    pub fn cli(&self, words: &[&str]) -> Outcome {
        outcome::finish(self.command(words), DEADLINE)
    }

    /// `agentcontainer run --yes -- WORDS`.
    pub fn run(&self, words: &[&str]) -> Outcome {
        self.run_within(words, DEADLINE)
    }

    /// The same with a deadline of its own.
    pub fn run_within(&self, words: &[&str], deadline: Duration) -> Outcome {
        self.write();
        outcome::finish(
            self.command(["run", "--yes", "--"].iter().chain(words)),
            deadline,
        )
    }

    /// `agentcontainer run --yes -- sh -c SCRIPT`.
    pub fn inside(&self, script: &str) -> Outcome {
        self.run(&["sh", "-c", script])
    }

    /// Starts a session in the background that lives until it is dropped, and waits until `exec` works in it.
    pub fn session(&self, name: &str) -> Session<'_> {
        self.write();
        let child = self.spawn(&["run", "--yes", "--name", name, "--", "sleep", "infinity"]);
        let session = Session {
            workspace: self,
            name: name.to_owned(),
            child: Some(child),
        };
        let began = Instant::now();
        loop {
            let tried = session.exec(&["true"]);
            if tried.status == 0 {
                return session;
            }
            assert!(
                began.elapsed() < DEADLINE,
                "session {name} does not come up: {}",
                tried.stderr
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A session that somebody else started, and ends.
    pub fn running(&self, name: &str) -> Session<'_> {
        Session {
            workspace: self,
            name: name.to_owned(),
            child: None,
        }
    }

    /// Starts the CLI and returns at once; it leads its own process group.
    pub fn spawn(&self, words: &[&str]) -> Child {
        let mut command = self.command(words);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command.spawn().unwrap()
    }

    /// The events of a session, oldest first.
    pub fn events(&self, session: &str) -> Vec<Value> {
        let said = self.cli(&["audit", "events", "--json", session]);
        said.ok()
            .lines()
            .map(|line| {
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
            })
            .collect()
    }

    /// Those of them by which a file or a program was denied.
    pub fn denials(&self, session: &str) -> Vec<Value> {
        let events = self.events(session).into_iter();
        let about = |event: &Value| matches!(event["kind"].as_str(), Some("exec" | "file"));
        events
            .filter(|event| about(event) && event["verdict"] == "deny")
            .collect()
    }

    /// Puts a file into the workspace.
    pub fn put(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workspace {
    /// An enforcer of its own goes with it.
    fn drop(&mut self) {
        if self.state != rig().state && self.state.exists() {
            self.cli(&["enforcer", "stop", "--force"]);
        }
    }
}

/// A session that other commands can `exec` in.
#[derive(Debug)]
pub struct Session<'a> {
    pub workspace: &'a Workspace,
    pub name: String,
    child: Option<Child>,
}

impl Session<'_> {
    /// `agentcontainer exec NAME -- WORDS`.
    pub fn exec(&self, words: &[&str]) -> Outcome {
        outcome::finish(
            self.workspace
                .command(["exec", &self.name, "--"].iter().chain(words)),
            DEADLINE,
        )
    }

    /// `agentcontainer exec NAME -- sh -c SCRIPT`.
    pub fn inside(&self, script: &str) -> Outcome {
        self.exec(&["sh", "-c", script])
    }

    /// The session's id, by its own word.
    pub fn id(&self) -> String {
        self.inside("echo $AGENTCONTAINER_SESSION").ok().to_owned()
    }

    /// The engine's own `exec`, which goes by nobody of ours, in the workspace's folder.
    pub fn by_engine(&self, words: &[&str]) -> Outcome {
        let label = format!("label=dev.agentcontainer.session={}", self.id());
        let container = docker::run(&["ps", "-q", "--filter", &label]);
        let above = self.workspace.path();
        let folder = format!("/workspaces/{}", above.file_name().unwrap().display());
        let before = ["exec", "-w", &folder, &container];
        docker::attempt(&[&before, words].concat())
    }

    /// The CLI that started it.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// Waits for the CLI that started it.
    pub fn wait(mut self) -> Outcome {
        outcome::wait(self.child.take().unwrap(), "agentcontainer run", DEADLINE)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        if let Some(child) = self.child.take() {
            self.workspace.cli(&["stop", &self.name]);
            signal_and_wait(child);
        }
    }
}

fn signal_and_wait(mut child: Child) {
    let began = Instant::now();
    while matches!(child.try_wait(), Ok(None)) {
        if began.elapsed() > Duration::from_secs(20) {
            outcome::signal(child.id(), "-KILL", true);
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn push(object: &mut Value, key: &str, item: Value) {
    if object[key].is_null() {
        object[key] = json!([]);
    }
    object[key].as_array_mut().unwrap().push(item);
}
