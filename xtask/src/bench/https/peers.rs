//! The far side and the peers, in the session's network namespace and outside its cgroup; the far side once more where the
//! gateway dials. Each proxy has the gateway's two threads, keeps its connections to the far side and verifies it.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::super::rig::{NAME, Rig, Session, within};
use super::FAR;
use crate::{paths, sh};

/// The name of what stands in the session's namespace.
pub const BESIDE: &str = "beside.bench.test";
pub const NGINX: u16 = 7444;
pub const HAPROXY: u16 = 7445;
pub const MITMPROXY: u16 = 7446;
pub const HUDSUCKER: u16 = 7447;

/// A root and one leaf for both names, made for the run.
pub struct Certificates {
    directory: PathBuf,
    pub root_der: Vec<u8>,
}

impl Certificates {
    pub fn make(directory: &Path) -> Result<Self> {
        let directory = directory.join("tls");
        fs::create_dir_all(directory.join("sink"))?;
        let script = format!(
            "set -e; cd \"$0\"
            ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
            openssl req -x509 $ec -keyout root.key -out root.pem -days 2 -subj /CN=bench
            openssl req $ec -keyout leaf.key -out leaf.csr -subj /CN={NAME}
            printf 'subjectAltName=DNS:{NAME},DNS:{BESIDE}\\nbasicConstraints=CA:FALSE\\n' >leaf.ext
            openssl x509 -req -in leaf.csr -CA root.pem -CAkey root.key -CAcreateserial -days 2 -extfile leaf.ext -out leaf.pem
            cat leaf.pem leaf.key >both.pem
            openssl x509 -in root.pem -outform DER -out root.der
            truncate -s 1G long; chmod 777 sink"
        );
        let mut command = Command::new("sh");
        sh::output(
            command
                .args(["-c", &script])
                .arg(&directory)
                .stderr(Stdio::null()),
        )
        .context("openssl makes no certificates")?;
        let root_der = fs::read(directory.join("root.der"))?;
        Ok(Self {
            directory,
            root_der,
        })
    }
}

pub struct Peers {
    nginx: Child,
    haproxy: Child,
    mitmproxy: Option<Child>,
    hudsucker: Option<(Child, PathBuf)>,
    events: Child,
    _far: [Child; 2],
}

/// What the names stand for, in this mount namespace alone.
pub fn name(address: &str) -> Result<()> {
    let hosts =
        std::env::temp_dir().join(format!("agentcontainer-bench-hosts-{}", std::process::id()));
    fs::write(
        &hosts,
        format!("127.0.0.1 localhost {BESIDE}\n{address} {NAME}\n"),
    )?;
    sh::run(
        sh::command("mount", ["--bind"])
            .arg(&hosts)
            .arg("/etc/hosts"),
    )?;
    fs::remove_file(&hosts)?;
    Ok(())
}

impl Peers {
    pub fn start(rig: &Rig, session: &Session<'_>, tls: &Certificates) -> Result<Self> {
        let beside = format!("--net=/proc/{}/ns/net", session.init()?);
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = tls.directory.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let log = |name: &str| fs::File::create(rig.dir.join(format!("{name}.log")));
        let start =
            |words: &[&str], config: Option<&Path>, name: &str, inside: bool| -> Result<Child> {
                let mut command = if inside {
                    sh::command(
                        "nsenter",
                        [beside.as_str(), "setpriv", "--pdeathsig", "KILL"],
                    )
                } else {
                    sh::command("setpriv", ["--pdeathsig", "KILL"])
                };
                command.args(words);
                if let Some(config) = config {
                    command.arg(config);
                }
                command
                    .stdin(Stdio::null())
                    .stdout(log(name)?)
                    .stderr(log(&format!("{name}-errors"))?);
                command
                    .spawn()
                    .with_context(|| format!("cannot start {name}"))
            };
        let script = write("events.py", include_str!("events/far.py").to_owned())?;
        let events = tls.directory.join("events.sock").display().to_string();
        let words = ["python3", &script.display().to_string(), &events];
        let events = start(&words, None, "events", false)?;
        let far_outside = write("far.conf", far(&tls.directory, "far"))?;
        let far_beside = write("far-beside.conf", far(&tls.directory, "far-beside"))?;
        let far = [
            start(&["nginx", "-c"], Some(&far_outside), "far", false)?,
            start(&["nginx", "-c"], Some(&far_beside), "far-beside", true)?,
        ];
        let config = write("nginx.conf", nginx(&tls.directory))?;
        let nginx = start(&["nginx", "-c"], Some(&config), "nginx", true)?;
        let config = write("haproxy.cfg", haproxy(&tls.directory))?;
        let haproxy = start(&["haproxy", "-db", "-f"], Some(&config), "haproxy", true)?;
        let mitmproxy = if sh::there("mitmdump") {
            let mode = format!("reverse:https://{BESIDE}:{FAR}");
            let port = MITMPROXY.to_string();
            let set =
                |key: &str, file: &str| format!("{key}={}", tls.directory.join(file).display());
            let words = [
                "mitmdump",
                "--mode",
                &mode,
                "--listen-host",
                "127.0.0.1",
                "--listen-port",
                &port,
                "--certs",
                &set("*", "both.pem"),
                "--set",
                &set("ssl_verify_upstream_trusted_ca", "root.pem"),
                "--set",
                &set("confdir", "mitmproxy"),
                "--set",
                "stream_large_bodies=1m",
            ];
            Some(start(&words, None, "mitmproxy", true)?)
        } else {
            None
        };
        let (program, connect) = hudsucker();
        let hudsucker = if program.exists() && connect.exists() {
            let at = |file: &str| tls.directory.join(file).display().to_string();
            let (port, root, key) = (HUDSUCKER.to_string(), at("root.pem"), at("root.key"));
            let program = program.display().to_string();
            let words = [program.as_str(), &port, &root, &key];
            Some((start(&words, None, "hudsucker", true)?, connect))
        } else {
            None
        };
        let mut ports = vec![FAR, NGINX, HAPROXY];
        ports.extend(hudsucker.as_ref().map(|_| HUDSUCKER));
        ports.extend(mitmproxy.as_ref().map(|_| MITMPROXY));
        for port in ports {
            let probe = || {
                let mut connect = sh::command("nsenter", [beside.as_str(), "bash", "-c"]);
                sh::succeeds(connect.arg(format!("echo >/dev/tcp/127.0.0.1/{port}")))
            };
            within(&format!("somebody listens at {port}"), probe)?;
        }
        TcpStream::connect(("127.0.0.1", FAR)).context("no far side")?;
        let socket = tls.directory.join("events.sock");
        within("somebody sends events", || socket.exists())?;
        Ok(Self {
            nginx,
            haproxy,
            mitmproxy,
            hudsucker,
            events,
            _far: far,
        })
    }

    /// The master and its workers.
    pub fn nginx(&self) -> Vec<u32> {
        let mut pids = children(self.nginx.id());
        pids.push(self.nginx.id());
        pids
    }

    pub fn haproxy(&self) -> Vec<u32> {
        vec![self.haproxy.id()]
    }

    /// With what has a load ask it for the far side.
    pub fn hudsucker(&self) -> Option<(Vec<u32>, Vec<String>)> {
        let (child, connect) = self.hudsucker.as_ref()?;
        let ahead = vec![
            "env".to_owned(),
            format!("LD_PRELOAD={}", connect.display()),
            format!("BENCH_FAR={BESIDE}:{FAR}"),
            format!("BENCH_PROXY={HUDSUCKER}"),
        ];
        Some((vec![child.id()], ahead))
    }

    pub fn mitmproxy(&self) -> Option<Vec<u32>> {
        let pid = self.mitmproxy.as_ref()?.id();
        Some(std::iter::once(pid).chain(children(pid)).collect())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        let nginx = [&mut self.nginx].into_iter().chain(&mut self._far);
        let hudsucker = self.hudsucker.as_mut().map(|(child, _)| child);
        let others = [&mut self.haproxy, &mut self.events]
            .into_iter()
            .chain(&mut self.mitmproxy)
            .chain(hudsucker);
        for child in nginx {
            // Its workers end with the master's own orderly end alone.
            let _ = sh::run(&mut sh::command("kill", ["-TERM", &child.id().to_string()]));
            let _ = child.wait();
        }
        for child in others {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn target() -> PathBuf {
    paths::target().join("hudsucker")
}

/// The proxy, and what asks it in the name of a load that knows no proxies.
fn hudsucker() -> (PathBuf, PathBuf) {
    let target = target();
    (
        target.join("release/bench-hudsucker"),
        target.join("connect.so"),
    )
}

/// Builds hudsucker, from a workspace of its own.
pub fn build() -> Result<()> {
    let here = paths::root().join("xtask/hudsucker");
    sh::run(
        Command::new("cargo")
            .args([
                "build",
                "--release",
                "--locked",
                "--quiet",
                "--manifest-path",
            ])
            .arg(here.join("Cargo.toml"))
            .arg("--target-dir")
            .arg(target()),
    )?;
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"])
        .arg(hudsucker().1);
    sh::run(cc.arg(here.join("connect.c")))
}

fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn nginx_head(directory: &Path, name: &str, workers: usize) -> String {
    let at = directory.display();
    format!(
        "daemon off; user root; worker_processes {workers}; pid {at}/{name}.pid; error_log stderr;
        worker_rlimit_nofile 20000; events {{ worker_connections 8192; }}
        http {{
        client_body_temp_path {at}/sink/{name}-body; proxy_temp_path {at}/{name}-proxy; fastcgi_temp_path {at}/{name}-f;
        uwsgi_temp_path {at}/{name}-u; scgi_temp_path {at}/{name}-s;
        keepalive_requests 100000000; client_max_body_size 0; client_body_buffer_size 256k;
        ssl_certificate {at}/leaf.pem; ssl_certificate_key {at}/leaf.key; ssl_protocols TLSv1.3;
        "
    )
}

fn far(directory: &Path, name: &str) -> String {
    let at = directory.display();
    nginx_head(directory, name, 2)
        + &format!(
            "access_log off; sendfile on;
            server {{ listen 0.0.0.0:{FAR} ssl http2 backlog=4096;
              location = / {{ return 200 '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'; }}
              location = /long {{ root {at}; }}
              location = /events {{ proxy_pass http://unix:{at}/events.sock; proxy_http_version 1.1; proxy_buffering off; }}
              location = /up {{ root {at}/sink; dav_methods PUT; }} }} }}"
        )
}

fn nginx(directory: &Path) -> String {
    let at = directory.display();
    nginx_head(directory, "nginx", 2)
        + &format!(
            "access_log {at}/access.log combined;
            upstream far {{ server 127.0.0.1:{FAR}; keepalive 512; keepalive_requests 100000000; }}
            server {{ listen 127.0.0.1:{NGINX} ssl http2 backlog=4096;
              location / {{ proxy_pass https://far; proxy_http_version 1.1; proxy_set_header Connection '';
                proxy_set_header Host {BESIDE}; proxy_ssl_name {BESIDE}; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;
                proxy_ssl_verify on; proxy_ssl_trusted_certificate {at}/root.pem;
                proxy_buffering off; proxy_request_buffering off; }} }} }}"
        )
}

fn haproxy(directory: &Path) -> String {
    let at = directory.display();
    format!(
        "global\n  nbthread 2\n  maxconn 8192\n  ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
         frontend f\n  bind 127.0.0.1:{HAPROXY} ssl crt {at}/both.pem alpn h2,http/1.1\n  option httplog\n  log stdout format raw local0\n  \
         default_backend b\n\
         backend b\n  http-request set-header Host {BESIDE}\n  \
         server far 127.0.0.1:{FAR} ssl verify required ca-file {at}/root.pem sni str({BESIDE}) alpn h2,http/1.1\n"
    )
}
