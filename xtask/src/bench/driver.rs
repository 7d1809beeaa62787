//! A process of `bench-load`, in whichever namespaces and cgroup it was put: orders in, figures out.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::sh;

/// Killed, with its whole tree, when it is dropped: its programs end with their standard input.
pub struct Driver {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What one order measured.
pub type Figures = HashMap<String, String>;

impl Driver {
    /// Starts it and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the load")?;
        let orders = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().context("no output")?);
        let mut driver = Self {
            child,
            orders,
            answers,
        };
        let line = driver.line()?;
        ensure!(line == "ready", "the load says {line:?}");
        Ok(driver)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn ask(&mut self, order: &str) -> Result<Figures> {
        let orders = self.orders.as_mut().context("the load has ended")?;
        writeln!(orders, "{order}")?;
        let line = self.line()?;
        if let Some(error) = line.strip_prefix("error=") {
            bail!("{order}: {error}");
        }
        Ok(line
            .split(' ')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect())
    }

    /// One figure of an order.
    pub fn figure(figures: &Figures, key: &str) -> Result<f64> {
        Ok(figures
            .get(key)
            .with_context(|| format!("the load says no {key}"))?
            .parse()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.answers.read_line(&mut line)? > 0, "the load has ended");
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.child.wait();
    }
}

/// The load in a network namespace of its own, without any program of ours.
pub fn alone(words: &[&str], load: &std::path::Path) -> Command {
    let mut command = sh::command("unshare", ["--net", "sh", "-c"]);
    command
        .arg("ip link set lo up && exec \"$@\"")
        .arg("sh")
        .args(["taskset", "-c"])
        .arg(words[0])
        .arg(load)
        .args(&words[1..]);
    command
}
