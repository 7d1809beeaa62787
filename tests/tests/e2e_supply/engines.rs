//! Engines that an image is handed to out of a file, besides docker: podman by its own API, and one that keeps images as containerd
//! does, by a real containerd. Each has it by an id that the lockfile says, or it is refused.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Outcome, Workspace, outcome};
use serde_json::json;

use crate::lock::workspace;

/// A process and what it starts; gone with this value.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, socket: &Path) -> Self {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let program = command.get_program().to_owned();
        let child = child.unwrap_or_else(|e| panic!("{program:?}: {e}: cargo xtask setup --dev"));
        let until = Instant::now() + Duration::from_secs(30);
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            assert!(Instant::now() < until, "{program:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Self(child)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An image that was exported.
struct Carried {
    registry: Registry,
    file: PathBuf,
    /// Where it was locked.
    _here: Workspace,
}

impl Carried {
    fn new() -> Self {
        let registry = Registry::start();
        registry.push("app:1", "carried\n");
        let image = format!("{}/app:1", registry.name());
        let here = workspace(&registry.name(), &image);
        here.cli(&["lock", "--yes"]).status(0);
        let file = here.path().with_file_name("carried.tar");
        let name = file.display().to_string();
        here.cli(&["bundle", "export", &name]).status(0);
        Self {
            registry,
            file,
            _here: here,
        }
    }

    /// The image's configuration and manifest.
    fn digests(&self) -> (String, String) {
        let (manifest, _) = self.registry.manifest("app", "1");
        let config = manifest["config"]["digest"].as_str().unwrap().to_owned();
        (config, self.registry.digest("app", "1"))
    }

    /// By another host, whose engine is at `socket`.
    fn import(&self, socket: &Path, file: &Path) -> Outcome {
        let there = Workspace::new()
            .without_locking()
            .host_table(&Registry::host_table(&self.registry.name()));
        let image = format!("{}/app:1", self.registry.name());
        there.put("agentcontainer.json", json!({ "image": image }).to_string());
        there.write_host_config();
        let cache = tempfile::tempdir().unwrap();
        let mut command = there.command(["bundle", "import", &file.display().to_string()]);
        command
            .env("XDG_CACHE_HOME", cache.path())
            .env("DOCKER_HOST", format!("unix://{}", socket.display()));
        let out = outcome::finish(command, outcome::DEADLINE);
        let lockfile = there.path().join("agentcontainer-lock.json");
        assert_eq!(lockfile.exists(), out.status == 0);
        out
    }
}

#[test]
fn podman_has_what_is_imported_by_the_id_that_is_locked() {
    let carried = Carried::new();
    let (id, manifest) = carried.digests();
    let dir = tempfile::tempdir().unwrap();
    let podman = |words: &[&str]| {
        let mut podman = Command::new("podman");
        podman.args(["--storage-driver", "vfs", "--root"]);
        podman.arg(dir.path().join("graph")).arg("--runroot");
        podman.arg(dir.path().join("run")).args(words);
        podman
    };
    let socket = dir.path().join("podman.sock");
    let address = format!("unix://{}", socket.display());
    let service = ["system", "service", "--time", "0", &address];
    let _running = Running::start(&mut podman(&service), &socket);
    let imported = carried.import(&socket, &carried.file);
    imported.status(0);
    assert!(imported.stdout.contains(&id), "{}", imported.stdout);
    // As podman says it itself, without our word: its id, and the manifest that it came with.
    let asked = ["image", "inspect", "--format", "{{.Id}} {{.Digest}}"];
    let inspect = podman(&[&asked[..], &[id.trim_start_matches("sha256:")]].concat());
    let said = outcome::finish(inspect, outcome::DEADLINE);
    said.status(0);
    let expected = format!("{} {manifest}", id.trim_start_matches("sha256:"));
    assert_eq!(said.stdout.trim(), expected);
    // Twice is once.
    carried.import(&socket, &carried.file).status(0);
}

#[test]
fn a_store_that_is_containerds_has_it_by_its_manifest_or_it_is_refused() {
    let carried = Carried::new();
    let (_, manifest) = carried.digests();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let config = format!(
        "version = 2\nroot = {:?}\nstate = {:?}\n[grpc]\naddress = {:?}\n",
        at("root"),
        at("state"),
        at("containerd.sock")
    );
    std::fs::write(at("config.toml"), config).unwrap();
    let _containerd = Running::start(
        Command::new("containerd")
            .arg("--config")
            .arg(at("config.toml")),
        &at("containerd.sock"),
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/containerd_engine.py");
    let _engine = Running::start(
        Command::new("python3")
            .arg(script)
            .arg(at("engine.sock"))
            .arg(at("containerd.sock")),
        &at("engine.sock"),
    );
    carried.import(&at("engine.sock"), &carried.file).status(0);
    let mut ctr = Command::new("ctr");
    ctr.arg("--address").arg(at("containerd.sock"));
    ctr.args(["--namespace", "moby", "images", "ls"]);
    let said = outcome::finish(ctr, outcome::DEADLINE);
    assert!(said.stdout.contains(&manifest), "{}", said.stdout);

    // One that says it took it and has something else.
    let socket = at("liar.sock");
    let liar = r#"
import http.server, socketserver, sys
class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        found = self.path.endswith("/version")
        body = b'{"ApiVersion":"1.44"}' if found else b'{"message":"no such image"}'
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + 2)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def address_string(self):
        return ""
    def log_message(self, *words):
        pass
socketserver.ThreadingUnixStreamServer(sys.argv[1], Liar).serve_forever()
"#;
    let _liar = Running::start(
        Command::new("python3").arg("-c").arg(liar).arg(&socket),
        &socket,
    );
    carried
        .import(&socket, &carried.file)
        .status(125)
        .says("[image-differs]")
        .says("does not have it as");
}
