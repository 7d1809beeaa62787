//! Package managers, gRPC and WebSocket clients through `https`, each with nothing said to it about certificates: registries
//! that are static files on the far side, with one package in each.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use agentcontainer_tests::place::token;
use agentcontainer_tests::{Workspace, docker, rig};
use serde_json::json;

use crate::standard::{name, standard, workspace};

const IMAGE: &str = "agentcontainer-clients:latest";

/// Makes the registries' files. `$0`: the directory, `$1`: the URL it is served at.
const REGISTRIES: &str = r#"
set -e; mkdir -p "$0" && cd "$0"
mkdir -p simple/hello packages index/he/ll crates go/example.test/hello/@v
python3 - <<'PY'
import zipfile
with zipfile.ZipFile('packages/hello-1.0-py3-none-any.whl', 'w') as wheel:
    wheel.writestr('hello.py', 'def greet(): return "hello from a wheel"\n')
    wheel.writestr('hello-1.0.dist-info/METADATA', 'Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n')
    wheel.writestr('hello-1.0.dist-info/WHEEL', 'Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n')
    wheel.writestr('hello-1.0.dist-info/RECORD', 'hello.py,,\nhello-1.0.dist-info/METADATA,,\nhello-1.0.dist-info/WHEEL,,\nhello-1.0.dist-info/RECORD,,\n')
with zipfile.ZipFile('go/example.test/hello/@v/v1.0.0.zip', 'w') as module:
    module.writestr('example.test/hello@v1.0.0/go.mod', 'module example.test/hello\n')
    module.writestr('example.test/hello@v1.0.0/main.go', 'package main\nfunc main() { println("hello from a module") }\n')
PY
printf '<!DOCTYPE html><a href="../../packages/hello-1.0-py3-none-any.whl">hello-1.0-py3-none-any.whl</a>' >simple/hello/index.html
echo v1.0.0 >go/example.test/hello/@v/list
echo '{"Version":"v1.0.0","Time":"2026-01-01T00:00:00Z"}' >go/example.test/hello/@v/v1.0.0.info
echo 'module example.test/hello' >go/example.test/hello/@v/v1.0.0.mod
mkdir -p hello-1.0.0/src
printf '[package]\nname = "hello"\nversion = "1.0.0"\nedition = "2021"\n' >hello-1.0.0/Cargo.toml
echo 'pub fn greet() -> &'"'"'static str { "hello from a crate" }' >hello-1.0.0/src/lib.rs
tar -czf crates/hello-1.0.0.crate hello-1.0.0
sum=$(sha256sum crates/hello-1.0.0.crate | cut -d' ' -f1)
echo '{"name":"hello","vers":"1.0.0","deps":[],"cksum":"'$sum'","features":{},"yanked":false}' >index/he/ll/hello
echo '{"dl":"'$1'/crates/{crate}-{version}.crate"}' >index/config.json
"#;

/// The registries' path on the shared server.
fn registries(host: &str) -> (PathBuf, String) {
    let directory = token("r");
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&directory);
    let url = format!("https://{host}/{directory}");
    let status = Command::new("bash")
        .args(["-c", REGISTRIES])
        .arg(&path)
        .arg(&url)
        .stdin(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    (path, url)
}

fn clients() -> Workspace {
    workspace().key("image", json!(IMAGE))
}

/// Runs a script that installs from `$URL` and prints a greeting; from a name that nobody allowed it must not.
fn installs(script: &str, greeting: &str) {
    let (good, bad) = (name(), name());
    let workspace = clients().allow(&[&good]).host(&bad, rig().bridge);
    let (directory, url) = registries(&good);
    let out = workspace.inside(&format!("export HOME=/tmp URL={url}; {script}"));
    assert!(
        out.stdout.contains(greeting) || out.stderr.contains(greeting),
        "status {}\n{}\n{}",
        out.status,
        out.stdout,
        out.stderr
    );
    assert!(!standard().requests(&good).is_empty());
    let other = url.replace(&good, &bad);
    let out = workspace.inside(&format!("export HOME=/tmp URL={other}; {script}"));
    assert!(!out.stdout.contains(greeting) && !out.stderr.contains(greeting));
    assert!(standard().requests(&bad).is_empty());
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn pip() {
    installs(
        "pip install --quiet --target /tmp/py --index-url $URL/simple hello && PYTHONPATH=/tmp/py python3 -c 'import hello; print(hello.greet())'",
        "hello from a wheel",
    );
}

#[test]
fn uv() {
    installs(
        "uv pip install --quiet --python /usr/bin/python3 --target /tmp/py --index-url $URL/simple hello && PYTHONPATH=/tmp/py python3 -c 'import hello; print(hello.greet())'",
        "hello from a wheel",
    );
}

#[test]
fn cargo() {
    installs(
        "mkdir -p /tmp/c/.cargo /tmp/c/src && cd /tmp/c && printf '[registries.far]\\nindex = \"sparse+%s/index/\"\\n' $URL >.cargo/config.toml
         printf '[package]\\nname = \"c\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n[dependencies]\\nhello = { version = \"1\", registry = \"far\" }\\n' >Cargo.toml
         echo 'fn main() {}' >src/main.rs; cargo fetch --quiet && cat $HOME/.cargo/registry/src/*/hello-1.0.0/src/lib.rs",
        "hello from a crate",
    );
}

/// An environment with a package in it, and a program that is built of another.
const WORK: &str = r#"
set -eu
export HOME=/tmp/home; mkdir -p $HOME/.cargo $HOME/c/src; cd $HOME
python3 -m venv --without-pip env
pip --python env/bin/python install --quiet --no-cache-dir --index-url $URL/simple hello
env/bin/python -c 'import hello; print(hello.greet())'
printf '[registries.far]\nindex = "sparse+%s/index/"\n' $URL >.cargo/config.toml; cd c
printf '[package]\nname = "c"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\nhello = { version = "1", registry = "far" }\n' >Cargo.toml
echo 'fn main() { println!("{}", hello::greet()) }' >src/main.rs
cargo build --quiet; grep -ac 'hello from a crate' target/debug/c
"#;

#[test]
fn package_managers_go_about_their_work_under_a_strict_policy() {
    let good = name();
    let (directory, url) = registries(&good);
    // What `cc` links by; its place has the compiler's version in it.
    let linker = docker::run(&[
        "run",
        "--rm",
        "--network",
        "none",
        IMAGE,
        "cc",
        "-print-prog-name=collect2",
    ]);
    let tools = [
        "sh", "env", "mkdir", "grep", "sleep", "true", "uname", "python3", "pip", "cargo", "rustc",
        "cc", "ld", &linker,
    ];
    let workspace = clients().allow(&[&good]).key(
        "agent",
        json!({ "capabilities": {
            "network": { "egress": { "allowedDomains": [good] } },
            "filesystem": { "readOnlyPaths": ["/etc", "/usr", "."], "deniedPaths": [".env"] },
            "tools": { "allowedBinaries": tools },
        } }),
    );
    workspace.put(".env", "SECRET=1\n");
    let session = workspace.session(&token("pack"));
    let denied = || workspace.denials(&session.id());
    let out = session.inside(&format!("URL={url}\n{WORK}"));
    assert!(
        out.stdout.starts_with("hello from a wheel\n") && out.stdout.len() > 20,
        "{out:?}\n{:#?}",
        denied()
    );
    assert_eq!(denied(), [] as [serde_json::Value; 0]);
    // The control: what was built is not listed, and what the policy is about is refused.
    for tried in ["/tmp/home/c/target/debug/c", "cat .env", "echo >new", "id"] {
        let out = session.inside(tried);
        assert!(out.status != 0 && out.stdout.is_empty(), "{tried}: {out:?}");
    }
    drop(session);
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn go() {
    installs(
        "export GOPROXY=$URL/go GONOSUMDB='*' GOFLAGS=-mod=mod GOPATH=/tmp/go GOCACHE=/tmp/gocache; go mod download -x example.test/hello@v1.0.0 && cat /tmp/go/pkg/mod/example.test/hello@v1.0.0/main.go",
        "hello from a module",
    );
}

/// A server of HTTP/2 over TLS on the bridge, in node; gone when this value is.
struct Two(Child);

impl Two {
    fn start(port: u16, script: &str) -> Self {
        let ca = &standard().ca;
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let script = format!(
            "process.stdin.on('end', () => process.exit()).resume();
             const server = require('http2').createSecureServer({{ cert: {:?}, key: {:?} }});
             {script}
             server.listen({port}, '{}', () => console.log('ready'));",
            read(ca.certificate()),
            read(ca.key()),
            rig().bridge
        );
        let mut child = Command::new("node")
            .args(["-e", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is not installed: cargo xtask setup --dev");
        let mut ready = [0; 6];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
        Self(child)
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn grpc_of_python() {
    let (host, port) = (name(), 8443);
    // Length-prefixed messages there and back, and the status in trailers (gRPC over HTTP/2).
    let _server = Two::start(
        port,
        "server.on('stream', (stream, headers) => {
           const parts = [];
           stream.on('data', (part) => parts.push(part));
           stream.on('end', () => {
             const message = Buffer.concat([Buffer.concat(parts).subarray(5), Buffer.from(' from ' + headers[':path'])]);
             const head = Buffer.alloc(5);
             head.writeUInt32BE(message.length, 1);
             stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
             stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: true });
             stream.end(Buffer.concat([head, message]));
           });
         });",
    );
    let workspace = clients().rule(&host, port, "https");
    workspace.put(
        "call.py",
        "import grpc, sys
same = dict(request_serializer=lambda b: b, response_deserializer=lambda b: b)
with grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials()) as channel:
    print(channel.unary_unary('/test.Greeter/Greet', **same)(b'hello', timeout=30).decode())
",
    );
    let out = workspace.inside(&format!("/usr/bin/python3 call.py {host}:{port}"));
    assert_eq!(out.ok(), "hello from /test.Greeter/Greet", "{}", out.stderr);
}

#[test]
fn a_websocket_of_python() {
    let (good, bad) = (name(), name());
    let workspace = clients().allow(&[&good]).host(&bad, rig().bridge);
    workspace.put(
        "ws.py",
        "import asyncio, sys, websockets
async def ask(host):
    async with websockets.connect(f'wss://{host}/ws') as socket:
        await socket.send('x' * 100000)
        return f'heard {len(await socket.recv())}'
for host in sys.argv[1:]:
    try: print(asyncio.run(ask(host)))
    except websockets.InvalidStatusCode as refused: print('refused', refused.status_code)
",
    );
    let out = workspace.inside(&format!("/usr/bin/python3 ws.py {good} {bad}"));
    assert_eq!(out.ok(), "heard 100000\nrefused 403", "{}", out.stderr);
    assert!(standard().requests(&bad).is_empty());
}
