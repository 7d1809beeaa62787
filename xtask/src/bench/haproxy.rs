//! The peer: haproxy in TCP mode, doing the gateway's job on the gateway's path. It listens inside the session's network
//! namespace, dials from the rig's, routes TLS by server name, and has as many threads as the gateway.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};

use super::rig::{NAME, Rig, Session, TCP_BULK, TCP_SHORT, TLS_BULK, TLS_SHORT, within};
use crate::sh;

/// As many as the gateway's workers.
const THREADS: usize = 2;

pub struct Haproxy {
    child: Child,
}

/// One of its ways of working; each listens at its own ports: the far side's plus an offset.
#[derive(Clone, Copy)]
pub enum Mode {
    Plain,
    /// `option splice-auto`.
    Splice,
    /// A line in a file for each connection, as the gateway's events are.
    Logging,
}

impl Mode {
    pub fn port(self, far: u16) -> u16 {
        far + match self {
            Self::Plain => 1000,
            Self::Splice => 1100,
            Self::Logging => 1200,
        }
    }

    fn options(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Splice => "  option splice-auto\n",
            Self::Logging => "  option tcplog\n  log stdout format raw local0\n",
        }
    }
}

impl Haproxy {
    pub fn start(rig: &Rig, session: &Session<'_>) -> Result<Self> {
        sh::run(&mut sh::command(
            "ip",
            ["netns", "attach", "session", &session.init()?.to_string()],
        ))?;
        let config = rig.dir.join("haproxy.cfg");
        fs::write(&config, configuration())?;
        let log = fs::File::create(rig.dir.join("haproxy.log"))?;
        let child = sh::command("setpriv", ["--pdeathsig", "KILL", "haproxy", "-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start haproxy")?;
        let haproxy = Self { child };
        let port = Mode::Logging.port(TCP_SHORT);
        let probe = || {
            let mut connect = Command::new("ip");
            connect.args(["netns", "exec", "session", "bash", "-c"]);
            sh::succeeds(connect.arg(format!("echo >/dev/tcp/127.0.0.1/{port}")))
        };
        within("haproxy listens", probe)
            .with_context(|| fs::read_to_string(rig.dir.join("haproxy.log")).unwrap_or_default())?;
        // The far side is there too.
        TcpStream::connect(("127.0.0.1", TCP_SHORT))?;
        Ok(haproxy)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = sh::run(&mut sh::command("ip", ["netns", "delete", "session"]));
    }
}

fn configuration() -> String {
    let mut text = format!(
        "global\n  nbthread {THREADS}\n  maxconn 4096\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  \
         timeout server 60s\n"
    );
    for mode in [Mode::Plain, Mode::Splice, Mode::Logging] {
        for far in [TLS_BULK, TLS_SHORT, TCP_BULK, TCP_SHORT] {
            let port = mode.port(far);
            let options = mode.options();
            let routing = if far == TLS_BULK || far == TLS_SHORT {
                format!(
                    "  tcp-request inspect-delay 10s\n  tcp-request content accept if {{ req_ssl_hello_type 1 }}\n  \
                     use_backend b{port} if {{ req_ssl_sni -i {NAME} }}\n"
                )
            } else {
                format!("  default_backend b{port}\n")
            };
            // `option splice-auto` counts on both sides; logging belongs to the front.
            let back = if let Mode::Splice = mode { options } else { "" };
            text += &format!(
                "frontend f{port}\n  bind 127.0.0.1:{port} namespace session\n{options}{routing}\
                 backend b{port}\n{back}  server far 127.0.0.1:{far}\n"
            );
        }
    }
    text
}
