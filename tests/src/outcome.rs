//! Runs a program with a deadline and keeps all it said. Every program that a test starts goes through here.

use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything but the bulk transfers takes, on a loaded machine with two cores.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// What came of a program.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit status; 128 + n where signal n ended it.
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// Runs a shell on the host, as the person whose workspace it is would.
#[track_caller]
pub fn on_host(path: &Path, words: &str) -> String {
    let mut shell = Command::new("sh");
    shell
        .args(["-ec", words])
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .current_dir(path);
    finish(shell, DEADLINE).ok().to_owned()
}

/// Runs to the end. Past the deadline its process group is killed and the test fails with what it had said by then.
pub fn finish(mut command: Command, deadline: Duration) -> Outcome {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let shown = format!("{command:?}");
    let child = command
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {shown}: {error}"));
    wait(child, &shown, deadline)
}

/// Waits for a child whose outputs are pipes and that leads its own process group.
pub fn wait(mut child: Child, shown: &str, deadline: Duration) -> Outcome {
    let began = Instant::now();
    let stdout = reader(child.stdout.take());
    let stderr = reader(child.stderr.take());
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break Some(status);
        }
        if began.elapsed() > deadline {
            signal(child.id(), "-KILL", true);
            child.wait().unwrap();
            break None;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let took = began.elapsed();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!("{shown} was not done after {deadline:?}\nstdout: {stdout}\nstderr: {stderr}")
    };
    let status = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Outcome {
        status,
        stdout,
        stderr,
        took,
    }
}

/// Sends a signal, by name as `kill` spells it, to a process or to the group that it leads.
pub fn signal(pid: u32, signal: &str, group: bool) {
    let target = if group {
        format!("-{pid}")
    } else {
        pid.to_string()
    };
    let _ = Command::new("kill")
        .args([signal, "--", &target])
        .stderr(Stdio::null())
        .status();
}

fn reader(from: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            let _ = from.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

// === impl Outcome ===

impl Outcome {
    /// Fails the test unless the status is 0; gives standard output.
    #[track_caller]
    pub fn ok(&self) -> &str {
        self.status(0).stdout.trim()
    }

    /// Fails the test unless the status is that one.
    #[track_caller]
    pub fn status(&self, expected: i32) -> &Self {
        assert_eq!(
            self.status, expected,
            "\nstdout: {}\nstderr: {}",
            self.stdout, self.stderr
        );
        self
    }

    /// Fails the test unless standard error holds these words.
    #[track_caller]
    pub fn says(&self, words: &str) -> &Self {
        assert!(
            self.stderr.contains(words),
            "no {words:?} in\nstderr: {}\nstdout: {}",
            self.stderr,
            self.stdout
        );
        self
    }

    /// The command that standard error says to run, without the program's name.
    #[track_caller]
    pub fn names_command(&self) -> &str {
        let rest = self.stderr.split_once("`agentcontainer ");
        let named = rest.and_then(|(_, rest)| rest.split_once('`'));
        named
            .unwrap_or_else(|| panic!("no command is named in {}", self.stderr))
            .0
    }

    /// Fails the test unless standard output holds these words.
    #[track_caller]
    pub fn prints(&self, words: &str) -> &Self {
        assert!(
            self.stdout.contains(words),
            "no {words:?} in\nstdout: {}\nstderr: {}",
            self.stdout,
            self.stderr
        );
        self
    }
}
