//! `cargo xtask demo`: set-up, build, then the main job end to end, with a server of its own as the only thing to reach: an allowed
//! name is answered, a denied one gets the page that says why, a raw address gets EPERM, and the events say so. It checks what it shows.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, bail};

use crate::{dist, engine, image, paths, setup, sh};

#[derive(clap::Args)]
pub struct Arguments {
    /// Do not set up and do not build: everything is there
    #[arg(long)]
    only: bool,
    /// Build quicker, to run slower
    #[arg(long)]
    fast: bool,
}

const SESSION: &str = "demo";

pub fn run(arguments: &Arguments) -> Result<()> {
    if !arguments.only {
        setup::run(&setup::Arguments {
            dev: false,
            yes: false,
        })?;
        dist::run(&dist::Arguments {
            fast: arguments.fast,
        })?;
    }
    let (host, started) = engine::ensure_running_here()?;
    let shown = image::ensure(&host, image::DEMO).and_then(|()| show(&host));
    let _ = Demo::sweep(&host);
    if started {
        engine::stop()?;
    }
    shown
}

/// A workspace, the host's word about it, and the server.
struct Demo {
    dir: PathBuf,
    docker_host: String,
    bridge: Ipv4Addr,
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    broken: Vec<&'static str>,
}

fn show(host: &str) -> Result<()> {
    let mut demo = Demo::new(host)?;
    let (bridge, port) = (demo.bridge, demo.port);

    let said = demo.inside(
        "an allowed name is answered",
        &format!("curl -sS --max-time 30 http://api.demo.test:{port}/hello"),
    )?;
    demo.promise("the allowed name answers", said.contains("hello, agent"));
    demo.promise(
        "the server heard that one request",
        demo.heard
            .lock()
            .is_ok_and(|heard| heard.as_slice() == ["GET /hello HTTP/1.1"]),
    );

    let said = demo.inside(
        "a name that nobody allowed gets a page that says so",
        "curl -sS --max-time 30 -i http://elsewhere.demo.test/",
    )?;
    demo.promise(
        "the denied name gets 403",
        said.contains(" 403 ") && said.to_lowercase().contains("x-agentcontainer-blocked:"),
    );

    let said = demo.inside(
        "a raw address does not even get a packet",
        &format!("exec 3<>/dev/tcp/{bridge}/{port}"),
    )?;
    demo.promise(
        "the raw address gets EPERM",
        said.contains("Operation not permitted"),
    );
    demo.promise(
        "the server heard nothing more",
        demo.heard.lock().is_ok_and(|heard| heard.len() == 1),
    );

    let said = demo.cli("what is on record", &["audit", "events", SESSION])?;
    demo.promise(
        "the events name what was allowed and what was denied",
        said.contains("api.demo.test") && said.contains(&bridge.to_string()),
    );

    demo.cli("the session is stopped", &["stop", SESSION])?;
    fs::remove_dir_all(&demo.dir)?;
    if !demo.broken.is_empty() {
        bail!("not as promised: {}", demo.broken.join("; "));
    }
    println!("\nEverything was as promised.");
    Ok(())
}

impl Demo {
    fn new(host: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("agentcontainer-demo-{}", std::process::id()));
        let bridge = sh::output(&mut sh::command(
            "docker",
            [
                "--host",
                host,
                "network",
                "inspect",
                "bridge",
                "--format",
                "{{(index .IPAM.Config 0).Gateway}}",
            ],
        ))?;
        let bridge: Ipv4Addr = bridge
            .parse()
            .context("the engine's bridge has no address")?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let port = serve(bridge, heard.clone())?;
        let demo = Self {
            dir,
            docker_host: host.to_owned(),
            bridge,
            port,
            heard,
            broken: Vec::new(),
        };
        let config = serde_json::json!({
            "image": format!("{}:latest", image::DEMO),
            "agent": { "capabilities": { "network": { "egress": {
                "rules": [{ "host": "api.demo.test", "ports": [port], "protocol": "http" }]
            } } } }
        });
        let config = serde_json::to_string_pretty(&config)?;
        let gateway = format!(
            "[gateway]\nhosts = {{ \"api.demo.test\" = \"{bridge}\" }}\nprivate_networks = [\"{bridge}/32\"]\n"
        );
        fs::create_dir_all(demo.dir.join("workspace"))?;
        fs::create_dir_all(demo.dir.join("config/agentcontainer"))?;
        fs::write(demo.dir.join("workspace/agentcontainer.json"), &config)?;
        fs::write(demo.dir.join("config/agentcontainer/config.toml"), &gateway)?;
        println!(
            "\n# agentcontainer.json: what the agent may do\n{config}\n\n# config.toml: the host's word on where the name leads\n{gateway}"
        );
        demo.start()?;
        Ok(demo)
    }

    fn start(&self) -> Result<()> {
        println!("# what the config names, looked up and written down by digest");
        println!("$ agentcontainer lock --yes");
        sh::run(self.command().args(["lock", "--yes"]))?;
        println!("# a session, started in the background");
        println!("$ agentcontainer run --name {SESSION} --yes --detach -- sleep infinity");
        sh::run(self.command().args([
            "run", "--name", SESSION, "--yes", "--detach", "--", "sleep", "infinity",
        ]))
    }

    /// Runs a script inside, shows it and what it said.
    fn inside(&self, title: &str, script: &str) -> Result<String> {
        println!("\n# {title}\n$ agentcontainer exec {SESSION} -- bash -c '{script}'");
        shown(
            self.command()
                .args(["exec", SESSION, "--", "bash", "-c", script]),
        )
    }

    fn cli(&self, title: &str, words: &[&str]) -> Result<String> {
        println!("\n# {title}\n$ agentcontainer {}", words.join(" "));
        shown(self.command().args(words))
    }

    fn promise(&mut self, what: &'static str, kept: bool) {
        println!("  [{}] {what}", if kept { "ok" } else { "BROKEN" });
        if !kept {
            self.broken.push(what);
        }
    }

    fn command(&self) -> Command {
        command(&self.docker_host, &self.dir)
    }

    /// Whatever happened: no session and no enforcer is left behind.
    fn sweep(host: &str) -> Result<()> {
        let dir = std::env::temp_dir();
        for words in [["stop", SESSION], ["enforcer", "stop"]] {
            let _ = command(host, &dir)
                .args(words)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .current_dir(&dir)
                .status()?;
        }
        Ok(())
    }
}

fn command(host: &str, dir: &Path) -> Command {
    let mut command = Command::new(paths::binary());
    let workspace = dir.join("workspace");
    command
        .env("DOCKER_HOST", host)
        .env("XDG_CONFIG_HOME", dir.join("config"))
        .env("XDG_STATE_HOME", paths::target().join("demo-state"))
        .current_dir(if workspace.is_dir() { &workspace } else { dir })
        .stdin(Stdio::null());
    command
}

fn shown(command: &mut Command) -> Result<String> {
    let output = command.output().context("cannot run agentcontainer")?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    said.lines().for_each(|line| println!("  {line}"));
    Ok(said)
}

/// The one thing to reach: answers every request with a greeting and remembers its first line.
fn serve(bridge: Ipv4Addr, heard: Arc<Mutex<Vec<String>>>) -> Result<u16> {
    let listener =
        TcpListener::bind((bridge, 0)).with_context(|| format!("cannot listen on {bridge}"))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let first = lines.next().unwrap_or_default();
            lines.take_while(|line| !line.is_empty()).for_each(drop);
            if let Ok(mut heard) = heard.lock() {
                heard.push(first);
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r\nhello, agent\n",
            );
        }
    });
    Ok(port)
}
