//! Sockets and pipes of the host's that lie in the workspace: a program of the host waits behind each, and no network
//! namespace holds them back.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use agentcontainer_tests::Workspace;
use agentcontainer_tests::docker::{self, Plain};
use serde_json::json;

use super::singly::record;

/// Where they lie in the workspace.
const SOCKETS: &[&str] = &["run/db.sock", ".git/ipc", "socket"];
const PIPE: &str = "run/pipe";

/// Puts a program of the host behind each; what they are sent is heard here.
fn wait_behind(workspace: &Path) -> Receiver<String> {
    let (heard, hear) = channel();
    for name in SOCKETS {
        let path = workspace.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        open_up(&path);
        let heard = heard.clone();
        std::thread::spawn(move || {
            for mut client in listener.incoming().map_while(Result::ok) {
                let mut text = String::new();
                let _ = client.read_to_string(&mut text);
                let _ = heard.send(text);
            }
        });
    }
    let pipe = workspace.join(PIPE);
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    open_up(&pipe);
    std::thread::spawn(move || {
        while let Ok(text) = std::fs::read_to_string(&pipe) {
            let _ = heard.send(text);
        }
    });
    hear
}

fn open_up(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

/// A program that says a word at each, under two names for the directory.
const SAYS: &str = r#"
import os, socket, sys, time
for path in sys.argv[2:]:
    try:
        if path.endswith("pipe"):
            time.sleep(0.5)
            it = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
            os.write(it, sys.argv[1].encode())
            os.close(it)
        else:
            it = socket.socket(socket.AF_UNIX)
            it.settimeout(5)
            it.connect(path)
            it.sendall(sys.argv[1].encode())
        print("said at", path)
    except OSError as e:
        print(path, e)
"#;

fn says(word: &str, root: &str) -> Vec<String> {
    let paths = SOCKETS.iter().chain([&PIPE]);
    ["python3", "-c", SAYS, word]
        .into_iter()
        .map(str::to_owned)
        .chain(paths.map(|path| format!("{root}/{path}")))
        .chain(["db.sock", "pipe"].map(|name| format!("/also/{name}")))
        .collect()
}

fn words(heard: &Receiver<String>) -> usize {
    std::iter::from_fn(|| heard.recv_timeout(Duration::from_secs(2)).ok())
        .filter(|text| !text.is_empty())
        .count()
}

#[test]
fn c17_sockets_and_pipes_of_the_host_in_the_workspace() {
    let control = Workspace::new();
    let heard = wait_behind(&control.path());
    let bind = |from: &str, to: &str| {
        let from = control.path().join(from);
        format!("type=bind,source={},target={to},readonly", from.display())
    };
    let (all, some) = (bind("", "/w"), bind("run", "/also"));
    let plain = Plain::start(
        &["--user", "1000:1000", "--mount", &all, "--mount", &some],
        &["sleep", "300"],
    );
    let command = says("control", "/w");
    let out = docker::attempt(
        &["exec", &plain.id]
            .into_iter()
            .chain(command.iter().map(String::as_str))
            .collect::<Vec<_>>(),
    );
    assert_eq!(words(&heard), 6, "{}", out.stdout);

    for read_only in [false, true] {
        let mut workspace = Workspace::new().key(
            "mounts",
            json!(["type=bind,source=${localWorkspaceFolder}/run,target=/also,readonly"]),
        );
        if read_only {
            workspace = workspace.key(
                "workspaceMount",
                json!("type=bind,source=${localWorkspaceFolder},target=/w,readonly"),
            );
            workspace = workspace.key("workspaceFolder", json!("/w"));
        }
        let heard = wait_behind(&workspace.path());
        let command = says("governed", if read_only { "/w" } else { "." });
        let out = workspace.run(&command.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(words(&heard), 0, "{}", out.stdout);
        out.status(0)
            .says("run/db.sock leads to this machine, and is an empty file inside");
        assert_eq!(out.stdout.lines().count(), 6, "{}", out.stdout);
        assert!(!out.stdout.contains("said at"), "{}", out.stdout);
        // They are still the host's.
        std::os::unix::net::UnixStream::connect(workspace.path().join("socket")).unwrap();
    }
    record(
        "C17w",
        "sockets and pipes of the host in the workspace",
        "each is heard on the host",
        "covered by an empty file",
    );
}
