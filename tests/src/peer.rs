//! Web servers on the far side, plain and over TLS with a CA of the tests' own, and what they heard. Real HTTP, so that real clients
//! can be run against them.

use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::{docker, rig};

/// A web server on the bridge; gone when this value is.
#[derive(Debug)]
pub struct Web {
    pub port: u16,
    child: Child,
    heard: Arc<Mutex<Vec<Value>>>,
}

impl Web {
    /// Plain HTTP on a port that is free.
    pub fn http() -> Self {
        Self::start(rig().bridge, 0, None, None)
    }

    /// TLS with the CA's certificate, on a port that is free.
    pub fn https(ca: &Authority) -> Self {
        Self::start(rig().bridge, 0, Some(ca), None)
    }

    /// Anything: an address, a port (0: a free one), TLS, a directory whose files it serves.
    pub fn start(
        address: Ipv4Addr,
        port: u16,
        ca: Option<&Authority>,
        root: Option<&Path>,
    ) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/web.py");
        let mut command = Command::new("python3");
        command
            .arg("-u")
            .arg(script)
            .arg(address.to_string())
            .arg(port.to_string());
        if let Some(ca) = ca {
            command.arg(ca.certificate()).arg(ca.key());
        }
        if let Some(root) = root {
            command.arg("--root").arg(root);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first: Value = match lines.next() {
            Some(Ok(line)) => serde_json::from_str(&line).unwrap(),
            other => panic!("the web server on {address}:{port} does not start: {other:?}"),
        };
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap_or(Value::Null));
            }
        });
        Self {
            port: u16::try_from(first["port"].as_u64().unwrap()).unwrap(),
            child,
            heard,
        }
    }

    /// Everything so far, one object for each connection and each request.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// The requests alone.
    pub fn requests(&self) -> Vec<Value> {
        self.heard()
            .into_iter()
            .filter(|one| one["kind"] == "request")
            .collect()
    }

    /// Waits a little until one of the things heard is like this.
    pub fn hears(&self, like: impl Fn(&Value) -> bool) -> Option<Value> {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if let Some(found) = self.heard().into_iter().find(&like) {
                return Some(found);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }

    /// Fails the test if it heard anything at all, be it a connection without a byte.
    #[track_caller]
    pub fn silent(&self) {
        std::thread::sleep(Duration::from_millis(150));
        let heard = self.heard();
        assert!(heard.is_empty(), "the server heard {heard:?}");
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Listens to one IP protocol on all addresses, as ping sockets and raw sockets speak it.
#[derive(Debug)]
pub struct Raw {
    child: Child,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Raw {
    pub fn protocol(number: u8) -> Self {
        let script = "import socket, sys, threading, os
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
it = socket.socket(socket.AF_INET, socket.SOCK_RAW, int(sys.argv[1]))
os.write(1, b'!')
while True: os.write(1, it.recv(65536))";
        let mut command = Command::new("python3");
        command
            .args(["-c", script, &number.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut stdout = child.stdout.take().unwrap();
        stdout
            .read_exact(&mut [0])
            .expect("no raw socket: run the tests as root");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                into.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Self { child, heard }
    }

    /// Whether these bytes came in, after giving them a moment.
    pub fn hears(&self, bytes: &[u8]) -> bool {
        std::thread::sleep(Duration::from_millis(300));
        self.heard
            .lock()
            .unwrap()
            .windows(bytes.len())
            .any(|part| part == bytes)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A certificate authority and one certificate for the given names.
#[derive(Debug)]
pub struct Authority {
    dir: TempDir,
}

impl Authority {
    pub fn for_names(names: &[&str]) -> Self {
        let this = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let script = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 20 -subj '/CN=agentcontainer tests' -keyout ca.key -out ca.pem
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server -keyout server.key -out server.csr
             printf 'subjectAltName={}\\nextendedKeyUsage=serverAuth\\n' >server.ext
             openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 20 -extfile server.ext -out server.pem",
            names.join(",")
        );
        let made = Command::new("bash")
            .args(["-ec", &script])
            .current_dir(this.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "no certificates: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        this
    }

    /// The authority itself: what clients have to trust.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    pub fn certificate(&self) -> PathBuf {
        self.dir.path().join("server.pem")
    }

    pub fn key(&self) -> PathBuf {
        self.dir.path().join("server.key")
    }
}

/// A forward proxy on the bridge that leads every name there; gone when this value is.
#[derive(Debug)]
pub struct Proxy {
    pub port: u16,
    child: Child,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    pub fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/proxy.py");
        let bridge = rig().bridge.to_string();
        let mut child = Command::new("python3")
            .arg(script)
            .args([&bridge, "0", &bridge])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is not installed: cargo xtask setup --dev");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.next().unwrap().unwrap().parse().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        Self { port, child, heard }
    }

    /// What it was asked for, one line a request.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A name server that answers every A query with one address.
#[derive(Debug)]
pub struct NameServer {
    pub port: u16,
}

impl NameServer {
    pub fn start(address: Ipv4Addr) -> Self {
        let socket = std::net::UdpSocket::bind((rig().bridge, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, from)) = socket.recv_from(&mut buffer) {
                let Some(answer) = Self::answer(&buffer[..count], address) else {
                    continue;
                };
                let _ = socket.send_to(&answer, from);
            }
        });
        Self { port }
    }

    /// The question back, with one A record (or none, for other types), a second to live.
    fn answer(query: &[u8], address: Ipv4Addr) -> Option<Vec<u8>> {
        let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 5;
        let question = query.get(12..end)?;
        let found = question.ends_with(&[0, 1, 0, 1]);
        let mut answer = query.get(..2)?.to_vec();
        answer.extend([0x81, 0x80, 0, 1, 0, u8::from(found), 0, 0, 0, 0]);
        answer.extend(question);
        if found {
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]);
            answer.extend(address.octets());
        }
        Some(answer)
    }
}

/// Addresses that are the sidecar's own, and what was said to them: networks that only the gateway can reach. Gone with this value.
#[derive(Debug)]
pub struct Inner {
    pid: String,
    child: Child,
    heard: Arc<Mutex<Vec<String>>>,
}

/// The port that [`Inner`] listens at.
pub const INNER_PORT: u16 = 7001;

impl Inner {
    /// Gives the sidecar's namespace these addresses, with a listener at each that says everything back.
    pub fn start(sidecar: &str, addresses: &[&str]) -> Self {
        let pid = docker::run(&["inspect", "--format", "{{.State.Pid}}", sidecar]);
        let script = "import os, socket, subprocess, sys, threading
def serve(address):
    it = socket.create_server((address, int(sys.argv[1])))
    up.release()
    while True:
        client, _ = it.accept()
        data = client.recv(1000)
        print(address, data.decode(), flush=True)
        client.sendall(data); client.close()
up = threading.Semaphore(0)
for address in sys.argv[2:]:
    subprocess.run(['ip', 'address', 'add', address + '/32', 'dev', 'lo'], check=True)
    threading.Thread(target=serve, args=(address,), daemon=True).start()
    up.acquire()
print('up', flush=True)
sys.stdin.read()";
        let mut child = Command::new("nsenter")
            .args(["--net", "--target", &pid, "python3", "-c", script])
            .arg(INNER_PORT.to_string())
            .args(addresses)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter is not installed: cargo xtask setup");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                into.lock().unwrap().push(line);
            }
        });
        let inner = Self { pid, child, heard };
        // Control: each of them answers whoever may dial.
        for address in addresses {
            let dial = format!(
                "exec 3<>/dev/tcp/{address}/{INNER_PORT} && echo control >&3 && head -1 <&3"
            );
            let words = [
                "--net", "--target", &inner.pid, "timeout", "5", "bash", "-c", &dial,
            ];
            let output = Command::new("nsenter").args(words).output().unwrap();
            assert_eq!(output.stdout, b"control\n", "{address}");
        }
        inner
    }

    /// What was said to an address, the control aside.
    pub fn heard(&self, address: &str) -> Vec<String> {
        std::thread::sleep(Duration::from_millis(100));
        let heard = self.heard.lock().unwrap();
        let said = heard
            .iter()
            .filter_map(|line| line.strip_prefix(&format!("{address} ")));
        said.filter(|said| *said != "control" && !said.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
