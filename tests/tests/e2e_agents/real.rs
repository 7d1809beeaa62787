//! Real agents from their registry, run non-interactively and on a terminal against a stand-in for their model's API. What the API was sent proves
//! that the key arrived; the search proves that it was nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use agentcontainer_tests::place::token;
use agentcontainer_tests::services::ANSWER;
use agentcontainer_tests::{docker, outcome, rig};
use serde_json::Value;

use crate::rig::{Desk, IMAGE, desk, key, shared};

/// Installing and starting hundreds of megabytes, on a loaded machine with two cores.
const LONG: Duration = Duration::from_secs(400);

/// Runs a program with these words on its standard input, so that nothing holds them but what they are found in.
fn with_input(command: &mut Command, words: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(words.as_bytes())
        .unwrap();
    let out = child.wait_with_output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

/// Where in the memory, environment and command lines of these processes the words are.
fn in_processes(pids: &[String], words: &str) -> BTreeMap<String, Vec<String>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/memory.py");
    let said = with_input(Command::new("python3").arg(script).args(pids), words);
    let mut found: BTreeMap<String, Vec<String>> = serde_json::from_str(&said).unwrap();
    found.retain(|_, places| !places.is_empty());
    found
}

/// Files inside that hold the words, `/proc` included, as the session's user and as its root where that can be.
fn in_files(desk: &Desk, session: &str, words: &str) -> Vec<String> {
    let mut exec = desk.workspace.command([
        "exec",
        session,
        "--",
        "sh",
        "-c",
        "cat >/dev/shm/words
         grep -slaF -f /dev/shm/words /proc/[0-9]*/environ /proc/[0-9]*/cmdline
         grep -rslaF --exclude-dir=proc --exclude-dir=sys --exclude=words -f /dev/shm/words /
         rm /dev/shm/words",
    ]);
    let said = with_input(&mut exec, words);
    said.lines().map(str::to_owned).collect()
}

/// Files of a volume that hold them, as root.
fn in_volume(volume: &str, words: &str) -> Vec<String> {
    let mount = format!("{volume}:/volume:ro");
    let mut grep = Command::new("docker");
    grep.args(["--host", &rig().docker_host])
        .args([
            "run",
            "--rm",
            "-i",
            "--network",
            "none",
            "--user",
            "0",
            "-v",
            &mount,
            &rig().image,
        ])
        .args(["grep", "-rslaF", "-f", "-", "/volume"]);
    with_input(&mut grep, words)
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Whether a container's own files, its image's among them, hold the words, which go to grep and nowhere else.
fn is_in_container(container: &str, words: &str) -> bool {
    let mut export = Command::new("bash");
    export.args([
        "-c",
        "exec 3<&0; docker --host \"$0\" export \"$1\" </dev/null | grep -caF -f /dev/fd/3",
        &rig().docker_host,
        container,
    ]);
    with_input(&mut export, words).trim() != "0"
}

/// Files below a directory of the host's that hold them.
fn below(dir: &Path, words: &str) -> Vec<String> {
    let mut grep = Command::new("grep");
    grep.args(["-rslaF", "-f", "-"]).arg(dir);
    with_input(&mut grep, words)
        .lines()
        .map(str::to_owned)
        .collect()
}

fn pids(container: &str) -> Vec<String> {
    let said = docker::run(&["top", container, "-eo", "pid,args"]);
    said.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

/// The gateways that run, by the host's own list.
fn gateways() -> Vec<String> {
    let is_gateway = |dir: &PathBuf| {
        fs::read_link(dir.join("exe"))
            .is_ok_and(|exe| exe.to_string_lossy().contains("agentcontainer-gateway"))
    };
    let dirs = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    dirs.filter(is_gateway)
        .filter_map(|dir| dir.file_name()?.to_str().map(str::to_owned))
        .collect()
}

/// Waits until the model's API was asked with these words.
fn asked_with(host: &str, words: &str) -> Value {
    let began = Instant::now();
    loop {
        let heard = shared().services.requests(host);
        if let Some(found) = heard.iter().find(|one| {
            one["body"]
                .as_str()
                .is_some_and(|body| body.contains(words))
        }) {
            return found.clone();
        }
        assert!(began.elapsed() < LONG, "{host} heard only {heard:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What a session was refused, but for what init tries itself.
fn refused(desk: &Desk, session: &str) -> Vec<Value> {
    let events = desk.workspace.events(session).into_iter();
    events
        .filter(|event| event["verdict"] == "deny" && event["reason"] != "self-test")
        .collect()
}

#[test]
fn claude_code_answers_with_a_key_that_is_nowhere_inside() {
    let (key, name) = (key(), token("real"));
    let desk = desk();
    let hold = desk.workspace.put_outside("hold", "");
    let prompt = format!("hold:{}: say {name}", hold.display());
    let mut command = desk.command(
        Some(&key),
        &[
            "run", "--yes", "--name", &name, "--image", IMAGE, "claude", "--", "-p", &prompt,
        ],
    );
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let child = command.spawn().unwrap();

    // The right key in the right field, while the agent waits for its answer.
    let heard = asked_with("api.anthropic.com", &name);
    assert_eq!(heard["headers"]["x-api-key"], key.as_str());
    let client = heard["headers"]["user-agent"].to_string();
    assert!(client.contains("claude-cli/2.1.330"), "{client}");
    assert!(
        heard["body"]
            .as_str()
            .unwrap()
            .contains("agentcontainer.internal"),
        "it was not told where it is"
    );

    let container = docker::run(&[
        "ps",
        "--quiet",
        "--filter",
        &format!("label=dev.agentcontainer.name={name}"),
    ]);
    let placeholder = desk
        .workspace
        .cli(&["exec", &name, "--", "printenv", "ANTHROPIC_API_KEY"]);
    let placeholder = placeholder.ok().to_owned();
    assert!(placeholder.len() == key.len() && placeholder != key);

    // Memory. That the same search finds the key is shown where it has to be; that it finds things in there, by the placeholder.
    let processes = pids(&container);
    assert_eq!(in_processes(&processes, &key), BTreeMap::new());
    let there = in_processes(&processes, &placeholder);
    let in_memory = |places: &Vec<String>| {
        places
            .iter()
            .any(|place| !["environ", "cmdline"].contains(&place.as_str()))
    };
    assert!(there.values().any(in_memory), "{there:?}");
    assert!(
        there.values().flatten().any(|place| place == "environ"),
        "{there:?}"
    );
    assert!(
        !in_processes(&gateways(), &key).is_empty(),
        "the search does not find what is there"
    );

    // Files and /proc, from inside; the container and its image, from outside.
    desk.workspace
        .cli(&[
            "exec",
            &name,
            "--",
            "sh",
            "-c",
            &format!("echo canary-{name} >/tmp/canary"),
        ])
        .ok();
    assert_eq!(in_files(&desk, &name, &key), Vec::<String>::new());
    let found = in_files(&desk, &name, &placeholder);
    assert!(
        found.iter().any(|file| file.ends_with("/environ")),
        "{found:?}"
    );
    assert!(in_files(&desk, &name, &format!("canary-{name}")).contains(&"/tmp/canary".to_owned()));
    assert!(!is_in_container(&container, &key));
    assert!(is_in_container(&container, &format!("canary-{name}")));
    let inspected = docker::run(&["inspect", &container]);
    assert!(inspected.contains(&placeholder) && !inspected.contains(&key));

    fs::remove_file(&hold).unwrap();
    let out = outcome::wait(child, "agentcontainer run claude", LONG);
    out.status(0).prints(ANSWER);
    assert!(!format!("{out:?}").contains(&key));

    // What is left of it: volumes, state, events, the log.
    let volumes = desk.volumes();
    assert_eq!(volumes.len(), 2);
    for volume in &volumes {
        assert_eq!(in_volume(volume, &key), Vec::<String>::new());
    }
    assert!(
        volumes
            .iter()
            .any(|volume| !in_volume(volume, &name).is_empty()),
        "its transcript has no prompt"
    );
    assert_eq!(below(desk.workspace.state(), &key), Vec::<String>::new());
    assert!(!below(desk.workspace.state(), &name).is_empty());
    let events: String = desk
        .workspace
        .events(&name)
        .iter()
        .map(Value::to_string)
        .collect();
    assert!(events.contains("api.anthropic.com") && !events.contains(&key));
    assert_eq!(refused(&desk, &name), Vec::<Value>::new());
    let log = desk.workspace.cli(&["logs", "--network", &name]);
    log.prints("POST https://api.anthropic.com/v1/messages");
    assert!(!log.stdout.contains(&key));
}

/// One that is run to its end: what its API was sent in which field, and that ordinary work was refused nothing.
/// An agent on a terminal, and everything that its screen was sent.
struct OnTerminal {
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl OnTerminal {
    fn start(desk: &Desk, key: &str, words: &[&str]) -> Self {
        let run = desk.command(Some(key), words);
        let quoted = |word: &OsStr| format!("'{}'", word.to_str().unwrap());
        let all = [run.get_program()].into_iter().chain(run.get_args());
        let line: Vec<String> = all.map(quoted).collect();
        let mut script = Command::new("script");
        desk.workspace.environment(&mut script);
        let line = format!("stty rows 40 cols 120; exec {}", line.join(" "));
        script
            .args(["-qefc", &line, "/dev/null"])
            .env("TERM", "xterm-256color")
            .env("ANTHROPIC_API_KEY", key)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = script.spawn().unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let mut from = child.stdout.take().unwrap();
        let into = screen.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(read @ 1..) = from.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..read]);
                into.lock().unwrap().push_str(&text);
            }
        });
        Self { child, screen }
    }

    /// Waits for words, wherever the terminal was told to put them.
    fn shows(&self, words: &str) -> String {
        let began = Instant::now();
        loop {
            let screen = self.screen.lock().unwrap().clone();
            if screen.contains(words) {
                return screen;
            }
            assert!(began.elapsed() < LONG, "no {words:?} in {screen:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn types(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).unwrap();
        input.flush().unwrap();
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn claude_code_is_at_its_prompt_without_a_question() {
    let (key, desk) = (key(), desk());
    // The second time with the state that the first one left, and what stands for the key has to be the same.
    for run in ["first", "second"] {
        let name = token(run);
        let words = ["run", "--yes", "--name", &name, "--image", IMAGE, "claude"];
        let mut agent = OnTerminal::start(&desk, &key, &words);
        let screen = agent.shows("← for agents");
        for question in ["trust this folder", "custom API key"] {
            assert!(!screen.contains(question), "{screen:?}");
        }
        agent.types(&format!("say {name}"));
        agent.shows(&name);
        agent.types("\r");
        let heard = asked_with("api.anthropic.com", &name);
        assert_eq!(heard["headers"]["x-api-key"], key.as_str());
        // A screen is drawn word by word.
        agent.shows("stand-in");
        desk.workspace.cli(&["stop", &name]).status(0);
        desk.workspace.cli(&["rm", &name]);
    }
}

struct Real {
    agent: &'static str,
    variable: &'static str,
    /// What goes before its random part.
    beginning: &'static str,
    api: &'static str,
    field: &'static str,
    /// Around the key in the field.
    before: &'static str,
    arguments: &'static [&'static str],
    /// The end of the one address that it asks in vain, and no variable of its own keeps it from.
    in_vain: Option<&'static str>,
}

impl Real {
    fn answers(&self) {
        let key = key().replace("sk-ant-api03-", self.beginning);
        let (desk, name) = (desk(), token("real"));
        let mut words = vec![
            "run", "--yes", "--name", &name, "--image", IMAGE, self.agent, "--",
        ];
        let prompt = format!("say {name}");
        words.extend(self.arguments);
        words.push(&prompt);
        let mut command = desk.command(None, &words);
        command.env(self.variable, &key);
        let out = outcome::finish(command, LONG);
        out.status(0).prints(ANSWER);

        let heard = asked_with(self.api, &name);
        assert_eq!(
            heard["headers"][self.field],
            format!("{}{key}", self.before)
        );
        // Some have another question asked first.
        let all = shared().services.requests(self.api);
        let told = |one: &Value| one["body"].to_string().contains("agentcontainer.internal");
        assert!(all.iter().any(told), "it was not told where it is: {all:?}");
        assert!(!format!("{out:?}").contains(&key));
        assert_eq!(below(desk.workspace.state(), &key), Vec::<String>::new());
        for volume in desk.volumes() {
            assert_eq!(in_volume(&volume, &key), Vec::<String>::new());
        }
        assert!(
            desk.volumes()
                .iter()
                .any(|volume| !in_volume(volume, &name).is_empty())
        );
        let refused = refused(&desk, &name);
        let asked: Vec<&str> = refused
            .iter()
            .filter_map(|event| event["url"].as_str())
            .collect();
        match self.in_vain {
            Some(end) => assert!(asked.iter().all(|url| url.ends_with(end)), "{refused:?}"),
            None => assert_eq!(refused, Vec::<Value>::new()),
        }
        let hosts: BTreeSet<&str> = refused
            .iter()
            .filter_map(|event| event["host"].as_str())
            .collect();
        assert!(hosts.len() <= asked.len().min(1), "{refused:?}");
    }
}

#[test]
fn codex_answers_by_its_profile() {
    Real {
        agent: "codex",
        variable: "OPENAI_API_KEY",
        beginning: "sk-proj-",
        api: "api.openai.com",
        field: "authorization",
        before: "Bearer ",
        arguments: &["exec", "--skip-git-repo-check"],
        in_vain: None,
    }
    .answers();
}

#[test]
fn gemini_cli_answers_by_its_profile() {
    Real {
        agent: "gemini",
        variable: "GEMINI_API_KEY",
        beginning: "AIza",
        api: "generativelanguage.googleapis.com",
        field: "x-goog-api-key",
        before: "",
        arguments: &["-p"],
        in_vain: None,
    }
    .answers();
}

#[test]
fn opencode_answers_by_its_profile() {
    Real {
        agent: "opencode",
        variable: "ANTHROPIC_API_KEY",
        beginning: "sk-ant-api03-",
        api: "api.anthropic.com",
        field: "x-api-key",
        before: "",
        arguments: &["run"],
        in_vain: Some("/@opencode-ai%2fplugin"),
    }
    .answers();
}
