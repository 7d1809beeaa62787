//! From the command line to the program's first instruction: `agentcontainer run` against `docker run --rm` of the same
//! image and command, by turns, with the sidecar running and without. The program is `date`, which says when it began;
//! the engine's own events and the session's log say where the time before that went.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use super::Effort;
use super::report::{self, Series};
use crate::{image, paths, sh};

const PROGRAM: [&str; 2] = ["date", "+%s%N"];

/// A workspace of its own, with its own state: no other session's enforcer is touched.
pub(super) struct Place {
    dir: PathBuf,
    host: String,
}

/// Moments of one start, in nanoseconds after the command line.
struct Start {
    first: f64,
    ended: f64,
    /// Before the first instruction, oldest first.
    steps: Vec<(String, f64)>,
}

pub fn run(host: &str, effort: Effort) -> Result<()> {
    image::ensure(host, image::DEMO)?;
    let place = Place::new(host, image::DEMO)?;
    let (mut cold, mut plain, mut bare, mut ours) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.cold {
        place.cli(&["enforcer", "stop", "--force"])?;
        cold.push(place.start(place.run())?);
    }
    for _ in 0..effort.starts {
        plain.push(place.start(place.docker(&[]))?);
        bare.push(place.start(place.docker(&["--network", "none"]))?);
        ours.push(place.start(place.run())?);
    }
    report::head(
        "From the command line to the program's first instruction, and to its end",
        &[
            "what",
            "first instruction",
            "ratio",
            "slowest",
            "end",
            "ratio",
        ],
    );
    let base = [first(&plain), ended(&plain)];
    for (name, starts) in [
        ("`docker run --rm`", &plain),
        ("`docker run --rm --network none`", &bare),
        ("`agentcontainer run`, sidecar running", &ours),
        ("`agentcontainer run`, no sidecar", &cold),
    ] {
        let (first, ended) = (first(starts), ended(starts));
        // The cold ones were not made by turns with the others: their ratio is one of medians.
        let ratio = |of: &Series, base: &Series| match of.0.len() == base.0.len() {
            true => of.ratio(base),
            false => format!("{:.2}", of.median() / base.median()),
        };
        report::row(&[
            name.to_owned(),
            report::time(first.median()),
            ratio(&first, &base[0]),
            report::time(first.quantile(1.0)),
            report::time(ended.median()),
            ratio(&ended, &base[1]),
        ]);
    }
    for (name, starts) in [
        ("`docker run --rm`", &plain),
        ("`agentcontainer run`, sidecar running", &ours),
    ] {
        steps(name, starts);
    }
    Ok(())
}

fn first(starts: &[Start]) -> Series {
    Series(starts.iter().map(|start| start.first).collect())
}

fn ended(starts: &[Start]) -> Series {
    Series(starts.iter().map(|start| start.ended).collect())
}

/// Where the time goes: the median moment of each step that every start had.
fn steps(name: &str, starts: &[Start]) {
    report::head(
        &format!("Where {name} spends it"),
        &["until", "after the command line", "step"],
    );
    let Some(one) = starts.first() else { return };
    let mut rows: Vec<(String, f64)> = one
        .steps
        .iter()
        .filter_map(|(step, _)| {
            let at = |start: &Start| {
                start
                    .steps
                    .iter()
                    .find(|(name, _)| name == step)
                    .map(|(_, at)| *at)
            };
            let all: Option<Vec<f64>> = starts.iter().map(at).collect();
            Some((step.clone(), Series(all?).median()))
        })
        .collect();
    rows.push((
        "the program's first instruction".to_owned(),
        first(starts).median(),
    ));
    rows.push(("the command has ended".to_owned(), ended(starts).median()));
    rows.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut before = 0.0;
    for (step, at) in rows {
        report::row(&[step, report::time(at), report::time(at - before)]);
        before = at;
    }
}

impl Place {
    pub(super) fn new(host: &str, image: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("agentcontainer-bench-{}", std::process::id()));
        for name in ["ws", "home", "state", "config/agentcontainer"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let config = serde_json::json!({
            "image": image,
            "agent": {"capabilities": {"network": {"egress": {"allowedDomains": ["api.bench.test"]}}}},
        });
        let made = Self {
            dir,
            host: host.to_owned(),
        };
        made.configure(&config)?;
        made.cli(&["lock", "--yes"])?;
        Ok(made)
    }

    pub(super) fn configure(&self, config: &serde_json::Value) -> Result<()> {
        let path = self.dir.join("ws/agentcontainer.json");
        fs::write(path, config.to_string()).context("cannot write the config")
    }

    /// A file in the workspace.
    pub(super) fn put(&self, path: &str, content: &str) -> Result<()> {
        let path = self.dir.join("ws").join(path);
        if let Some(above) = path.parent() {
            fs::create_dir_all(above)?;
        }
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Makes the workspace a person's, so that whoever works inside is its owner.
    pub(super) fn give_away(&self) -> Result<()> {
        let ws = self.dir.join("ws");
        sh::run(sh::command("chown", ["-R", "1000:1000"]).arg(ws))
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.join("home"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("XDG_STATE_HOME", self.dir.join("state"))
            .env("DOCKER_HOST", &self.host)
            .current_dir(self.dir.join("ws"))
            .stdin(Stdio::null());
        command
    }

    fn run(&self) -> Command {
        let mut command = self.command(paths::binary());
        command.args(["run", "--yes", "--"]).args(PROGRAM);
        command
    }

    fn docker(&self, words: &[&str]) -> Command {
        let mut command = self.command("docker");
        command
            .args(["run", "--rm"])
            .args(words)
            .arg(image::DEMO)
            .args(PROGRAM);
        command
    }

    pub(super) fn cli(&self, words: &[&str]) -> Result<String> {
        sh::output(self.command(paths::binary()).args(words))
    }

    fn start(&self, mut command: Command) -> Result<Start> {
        let ours = command.get_program() == paths::binary();
        let begin = now()?;
        let said = sh::output(&mut command)?;
        let end = now()?;
        let first = said
            .lines()
            .last()
            .context("the program said nothing")?
            .trim()
            .parse::<u128>()?;
        let mut steps = self.engine_events(begin, end)?;
        if ours {
            steps.extend(self.session_events()?);
        }
        let after = |at: u128| at.saturating_sub(begin) as f64;
        Ok(Start {
            first: after(first),
            ended: after(end),
            steps: steps
                .into_iter()
                .map(|(step, at)| (step, after(at)))
                .collect(),
        })
    }

    /// What the engine says it did with containers meanwhile.
    fn engine_events(&self, begin: u128, end: u128) -> Result<Vec<(String, u128)>> {
        let moment = |at: u128| format!("{}.{:09}", at / 1_000_000_000, at % 1_000_000_000);
        let mut docker = self.command("docker");
        docker.args([
            "events",
            "--filter",
            "type=container",
            "--format",
            "{{json .}}",
        ]);
        docker.args(["--since", &moment(begin), "--until", &moment(end)]);
        let mut steps: Vec<(String, u128)> = Vec::new();
        for line in sh::output(&mut docker)?.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            let (Some(action), Some(at)) = (event["Action"].as_str(), event["timeNano"].as_u64())
            else {
                continue;
            };
            let image = event["Actor"]["Attributes"]["image"]
                .as_str()
                .unwrap_or_default();
            if ["create", "attach", "start"].contains(&action) && !image.contains("enforcer") {
                steps.push((format!("the engine reports `{action}`"), at.into()));
            }
        }
        Ok(steps)
    }

    /// What the session's log says.
    fn session_events(&self) -> Result<Vec<(String, u128)>> {
        let mut steps: Vec<(String, u128)> = Vec::new();
        for line in self.cli(&["audit", "events", "--json"])?.lines() {
            let event: serde_json::Value = serde_json::from_str(line)?;
            let (Some(reason), Some(time)) = (event["reason"].as_str(), event["time"].as_str())
            else {
                continue;
            };
            if event["kind"] == "lifecycle" && reason != "session-closed" {
                let at = sh::output(&mut sh::command("date", ["-d", time, "+%s%N"]))?.parse()?;
                steps.push((format!("the log has `{reason}`"), at));
            }
        }
        Ok(steps)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for words in [&["stop", "--all"][..], &["enforcer", "stop", "--force"]] {
            let _ = self.cli(words);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn now() -> Result<u128> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())
}
