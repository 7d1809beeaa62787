//! How often inspectors find something in ordinary traffic of development: requests of real clients (git, npm, pip, cargo, curl,
//! python, node), recorded by a server of our own as they came, and this tree's files in the shapes in which agents send
//! them. At the default levels nothing of it may be blocked. The rates: `CORPUS_ALL=1 cargo test --release -p gateway --test it corpus -- --nocapture`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use gateway::inspect::{Chain, Destination, Finding};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use schema::inspection::Inspector;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::harness::*;

/// Who sent it, and what.
type Recorded = Arc<Mutex<Vec<(&'static str, Parts, Bytes)>>>;
type Client = Arc<Mutex<&'static str>>;

/// Who sends the tree's own test keys: the control.
const KEY: &str = "key";

struct Recorder {
    address: SocketAddr,
    recorded: Recorded,
    client: Client,
    root: tempfile::TempDir,
}

impl Recorder {
    async fn start() -> Self {
        let (recorded, client) = (Recorded::default(), Client::default());
        let root = tempfile::tempdir().unwrap();
        let port = {
            let (recorded, client) = (Arc::clone(&recorded), Arc::clone(&client));
            let root = root.path().to_owned();
            upstream(move |stream| {
                let (recorded, client) = (Arc::clone(&recorded), Arc::clone(&client));
                let root = root.clone();
                async move {
                    let service = service_fn(move |request: Request<Incoming>| {
                        let (recorded, client) = (Arc::clone(&recorded), Arc::clone(&client));
                        let root = root.clone();
                        async move {
                            let (parts, body) = request.into_parts();
                            let body = body.collect().await.unwrap().to_bytes();
                            let name = *client.lock().unwrap();
                            let kept = (name, parts.clone(), body.clone());
                            recorded.lock().unwrap().push(kept);
                            Ok::<_, Infallible>(answer(&root, &parts, &body).await)
                        }
                    });
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                }
            })
            .await
        };
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], port)),
            recorded,
            client,
            root,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs a client in a directory of its own; what it says when it fails is shown and the rest goes on.
    async fn run(&self, client: &'static str, script: &str) {
        *self.client.lock().unwrap() = client;
        let began = std::time::Instant::now();
        let before = self.recorded.lock().unwrap().len();
        let home = self.path("home");
        let work = self.path(client);
        for directory in [&home, &work] {
            std::fs::create_dir_all(directory).unwrap();
        }
        let output = Command::new("bash")
            .args(["-euc", script])
            .current_dir(&work)
            .env("URL", format!("http://{}", self.address))
            .env("HOST", self.address.to_string())
            .env("TREE", tree())
            .env("HOME", &home)
            .env("CARGO_HOME", home.join("cargo"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("npm_config_cache", home.join("npm"))
            .env("NO_UPDATE_NOTIFIER", "1")
            .env("CARGO", env!("CARGO"))
            .stdin(Stdio::null())
            .output();
        let output = tokio::time::timeout(std::time::Duration::from_secs(60), output);
        let output = output.await.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{client}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        println!("{client}: {:.1} s", began.elapsed().as_secs_f64());
        let after = self.recorded.lock().unwrap().len();
        assert!(after > before, "{client} sent nothing");
    }

    fn add(&self, client: &'static str, media: &str, body: impl Into<Bytes>) {
        let request = Request::post("/v1/messages")
            .header("host", "api.example.com")
            .header("content-type", media)
            .header("user-agent", "agent/1.0");
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let kept = (client, parts, body.into());
        self.recorded.lock().unwrap().push(kept);
    }
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Says what each client has to hear to go on.
async fn answer(root: &Path, parts: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let path = parts.uri.path();
    let respond = |status: u16, media: &str, body: Vec<u8>| {
        Response::builder()
            .status(status)
            .header("content-type", media)
            .body(Full::new(body.into()))
            .unwrap()
    };
    if path.starts_with("/git/") {
        return git(root, parts, body).await;
    }
    if parts.uri.path() == "/api/v1/crates/new" {
        // cargo asks the index until it is there.
        let line = format!(
            "{{\"name\":\"corpus\",\"vers\":\"1.0.0\",\"deps\":[],\"cksum\":\"{:064}\",\"features\":{{}},\"yanked\":false}}\n",
            0
        );
        let entry = root.join("served/index/co/rp/corpus");
        std::fs::create_dir_all(entry.parent().unwrap()).unwrap();
        std::fs::write(entry, line).unwrap();
    }
    if parts.method == "PUT" {
        return respond(
            200,
            "application/json",
            b"{\"ok\": true, \"warnings\": {}}".to_vec(),
        );
    }
    let file = root.join("served").join(path.trim_start_matches('/'));
    match std::fs::read(&file) {
        Ok(bytes) => respond(200, "application/octet-stream", bytes),
        Err(_) if parts.method == "POST" => respond(200, "application/json", b"{}".to_vec()),
        Err(_) => respond(404, "application/json", b"{}".to_vec()),
    }
}

/// git's own server, as a CGI program.
async fn git(root: &Path, parts: &Parts, body: &Bytes) -> Response<Full<Bytes>> {
    let field = |name: &str| {
        let value = parts.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap()).to_owned()
    };
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root.join("served"))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.uri.path())
        .env("QUERY_STRING", parts.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", parts.method.as_str())
        .env("CONTENT_TYPE", field("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", field("content-encoding"))
        .env("GIT_PROTOCOL", field("git-protocol"))
        .env("REMOTE_USER", "someone")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let body = body.clone();
    let writing = tokio::spawn(async move {
        let _ = input.write_all(&body).await;
    });
    let output = child.wait_with_output().await.unwrap();
    writing.await.unwrap();
    let text = output.stdout;
    let end = text
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&text[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            _ => response.header(name, value),
        };
    }
    let body = Bytes::copy_from_slice(&text[end + 4..]);
    response.body(Full::new(body)).unwrap()
}

const GIT: &str = r#"
git init -q --bare -b main ../served/git/it.git; git -C ../served/git/it.git config http.receivepack true
git config --global user.name n; git config --global user.email n@example.com; git config --global protocol.version 2
mkdir work && cd work && git init -q -b main && cp -r "$TREE/gateway/src" "$TREE/schema" "$TREE/Cargo.lock" . && git add . && git commit -qm first
git remote add origin "$URL/git/it.git" && git push -q origin main
git clone -q "$URL/git/it.git" ../clone
for n in 1 2 3 4 5 6; do echo "$n" >>more; git add more; git commit -qm "change $n"; git push -q origin main; (cd ../clone && git pull -q); done
git tag -a v1 -m release && git push -q --tags origin
"#;

const NPM: &str = r#"
npm config set registry "$URL/" >/dev/null; npm config set "//$HOST/:_authToken" not-a-token
mkdir -p lib && cp "$TREE"/docs/*.md . && cp "$TREE"/schema/json/*.json lib/
printf '{"name":"corpus","version":"1.0.0","description":"files","license":"MIT","files":["*.md","lib"]}' >package.json
npm publish --silent
npm pack --silent >/dev/null
mkdir -p ../served/-; cp corpus-1.0.0.tgz ../served/-/
I="sha512-$(openssl dgst -sha512 -binary corpus-1.0.0.tgz | base64 -w0)"
printf '{"name":"corpus","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"corpus","version":"1.0.0","dist":{"integrity":"%s","tarball":"%s/-/corpus-1.0.0.tgz"}}}}' "$I" "$URL" >../served/corpus
mkdir user && cd user && echo '{"name":"user","version":"1.0.0"}' >package.json && npm install --silent corpus && npm audit --silent || true
"#;

const PIP: &str = r#"
mkdir -p pkg ../served/simple/corpus && echo "x = 1" >pkg/corpus.py
python3 - <<'E'
import zipfile
with zipfile.ZipFile("corpus-1.0-py3-none-any.whl", "w") as z:
    z.write("pkg/corpus.py", "corpus.py")
    z.writestr("corpus-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: corpus\nVersion: 1.0\n")
    z.writestr("corpus-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    z.writestr("corpus-1.0.dist-info/RECORD", "")
E
cp *.whl ../served/; S=$(sha256sum *.whl | cut -c1-64)
echo "<html><body><a href=\"$URL/corpus-1.0-py3-none-any.whl#sha256=$S\">corpus-1.0-py3-none-any.whl</a></body></html>" >page
curl -s -o /dev/null "$URL/simple/corpus/"
cp page ../served/simple/corpus/index.html
python3 -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check -d out "$URL/corpus-1.0-py3-none-any.whl#sha256=$S"
# As twine uploads it.
curl -sS -o /dev/null -u user:word -F :action=file_upload -F protocol_version=1 -F filetype=bdist_wheel -F "sha256_digest=$S" -F "blake2_256_digest=$S" -F name=corpus -F version=1.0 -F "content=@corpus-1.0-py3-none-any.whl;type=application/octet-stream" "$URL/legacy/"
"#;

const CARGO: &str = r#"
mkdir -p ../served/index c/src && echo 'pub fn f() {}' >c/src/lib.rs && cp "$TREE/README.md" c/
printf '{"dl":"%s/dl","api":"%s"}' "$URL" "$URL" >../served/index/config.json
printf '[package]\nname = "corpus"\nversion = "1.0.0"\nedition = "2021"\ndescription = "d"\nlicense = "MIT"\nreadme = "README.md"\n' >c/Cargo.toml
mkdir -p "$CARGO_HOME" && printf '[registries.local]\nindex = "sparse+%s/index/"\n[registry]\nglobal-credential-providers = ["cargo:token"]\n' "$URL" >"$CARGO_HOME/config.toml"
cd c && CARGO_REGISTRIES_LOCAL_TOKEN=not-a-token timeout 40 "$CARGO" publish -q --no-verify --allow-dirty --registry local
"#;

const CURL: &str = r#"
python3 - <<'E'
import struct, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\0" + bytes((x * y * 7 + x * x) % 256 for x in range(300)) for y in range(300))
open("p.png", "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 300, 300, 8, 0, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
E
s() { curl -sS -o /dev/null "$@"; }
s "$URL/repos/o/r/issues?state=open&per_page=100&since=2030-01-01T00:00:00Z" -H "Accept: application/vnd.github+json" -H "X-GitHub-Api-Version: 2022-11-28"
s "$URL/repos/o/r/git/commits/0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"
s -d 'name=Ada+Lovelace&email=ada%40example.com&text=a+long+text%2C+with+some+words' "$URL/form"
s -F "note=words" -F "file=@$TREE/Cargo.lock" -F "image=@p.png" "$URL/upload"
s -H "Content-Type: image/png" --data-binary @p.png "$URL/image"
s -H "Content-Type: application/octet-stream" -T "$(command -v bash)" "$URL/blob"
tar czf t.tgz -C "$TREE" docs && s -H "Content-Type: application/gzip" --data-binary @t.tgz "$URL/blob"
gzip -k9c "$TREE/SPEC.md" >spec.gz && s -H "Content-Type: text/plain" -H "Content-Encoding: gzip" --data-binary @spec.gz "$URL/log"
s -H "If-None-Match: \"W/5f3a9c0d1e2b4a68\"" -H "X-Request-Id: 6f1d3a2c-9b7e-4c55-8a21-0d4f6e8b9c13" -H "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01" "$URL/a"
s -H "Content-Type: application/dns-message" --data-binary "$(head -c 40 /etc/hostname | tr '\0' x)" "$URL/dns-query"
printf 'message:%s' "$(base64 -w0 p.png)" | s -H "Content-Type: text/plain" --data-binary @- "$URL/picture"
"#;

const SCRIPTS: &str = r#"
python3 - <<'E'
import json, os, urllib.request, uuid
url = os.environ["URL"]
def post(body, kind="application/json"): urllib.request.urlopen(urllib.request.Request(url + "/api", body, {"Content-Type": kind})).read()
post(json.dumps({"id": str(uuid.UUID(int=0x12345678901234567890)), "items": [{"n": n, "sha": "%040x" % (n ** 17)} for n in range(200)]}).encode())
post(json.dumps({"query": "query($o: String!) { repository(owner: $o) { id issues(first: 10) { nodes { id title } } } }", "variables": {"o": "x"}}).encode())
E
node -e '
const u = process.env.URL, f = (b, t) => fetch(u + "/rpc", { method: "POST", body: b, headers: { "content-type": t } });
(async () => { await f(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params: { name: "read", arguments: { path: "/src/index.ts" } } }), "application/json");
const d = new FormData(); d.append("a", "b"); d.append("f", new Blob(["text"]), "f.txt"); await fetch(u + "/f", { method: "POST", body: d }); })()'
"#;

/// Every file of the tree that a person wrote, as an agent would send it to a model, and to a code host. The tree's own test
/// keys are no ordinary traffic: a key is what is to be blocked, so they come under a name of their own.
fn add_files(recorder: &Recorder) {
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(tree())
        .output()
        .unwrap();
    // All of them take a while in a build that is not optimised.
    let every = if std::env::var_os("CORPUS_ALL").is_some() {
        1
    } else {
        5
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let keys = listed.lines().filter(|name| name.ends_with(".key"));
    let others = listed.lines().filter(|name| !name.ends_with(".key"));
    for name in others.step_by(every).chain(keys) {
        let Ok(bytes) = std::fs::read(tree().join(name)) else {
            continue;
        };
        let Ok(text) = String::from_utf8(bytes.clone()) else {
            recorder.add("grpc", "application/grpc", [&[0; 5], &bytes[..]].concat());
            continue;
        };
        let (model, host) = if name.ends_with(".key") {
            (KEY, KEY)
        } else {
            ("model", "blob")
        };
        let message = serde_json::json!({
            "model": "some-model", "max_tokens": 1024, "stream": true,
            "messages": [
                { "role": "user", "content": [{ "type": "text", "text": format!("Look at {name}") }] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "call_17", "content": text }] }
            ]
        });
        recorder.add(model, "application/json", message.to_string());
        use base64::Engine as _;
        let content = base64::engine::general_purpose::STANDARD.encode(&bytes);
        let blob = serde_json::json!({ "content": content, "encoding": "base64" });
        recorder.add(host, "application/json", blob.to_string());
    }
}

/// What a chain says of one request.
fn replay(chain: &Arc<Chain>, parts: &Parts, body: &Bytes) -> (Vec<Finding>, Option<Finding>) {
    let to = Destination {
        name: Some("api.example.com".parse().unwrap()),
        tls: true,
    };
    let mut flags = Vec::new();
    let looked = chain.head(parts, &to, &mut flags).and_then(|()| {
        let mut stream = chain.body(&parts.headers, &to, &mut flags)?;
        for piece in body.chunks(16 * 1024) {
            stream.push(Bytes::copy_from_slice(piece), &mut flags)?;
        }
        stream.finish(&mut flags).map(drop)
    });
    (flags, looked.err())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn corpus_of_ordinary_traffic_is_not_blocked_at_the_default_levels() {
    let recorder = Recorder::start().await;
    std::fs::create_dir_all(recorder.path("served/git")).unwrap();
    recorder.run("git", GIT).await;
    recorder.run("npm", NPM).await;
    recorder.run("pip", PIP).await;
    recorder.run("cargo", CARGO).await;
    recorder.run("curl", CURL).await;
    recorder.run("scripts", SCRIPTS).await;
    add_files(&recorder);

    let defaults = Arc::new(Chain::new(&policy::Inspection::default(), Vec::new()));
    let flagging = PolicyBuilder::default()
        .inspect(&Inspector::ALL.map(|inspector| (inspector.as_str(), "flag")))
        .inspection;
    let flagging = Arc::new(Chain::new(&flagging, Vec::new()));
    let (mut blocked, mut bytes) = (Vec::new(), 0);
    let mut requests: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    let recorded = recorder.recorded.lock().unwrap();
    for (client, parts, body) in recorded.iter() {
        *requests.entry(client).or_default() += 1;
        bytes += body.len();
        let (_, finding) = replay(&defaults, parts, body);
        if *client == KEY {
            let finding = finding.expect("a key is blocked");
            assert_eq!(finding.kind, "private-key");
            continue;
        }
        if let Some(finding) = finding {
            blocked.push(format!("{client} {}: {finding}", parts.uri));
        }
        let (flags, failed) = replay(&flagging, parts, body);
        assert_eq!(failed, None);
        let mut codes: Vec<_> = flags.iter().map(|flag| flag.code).collect();
        codes.sort_unstable();
        codes.dedup();
        for code in codes {
            *found.entry(code).or_default().entry(client).or_default() += 1;
        }
    }
    println!(
        "{} requests, {} KiB: {requests:?}",
        recorded.len(),
        bytes / 1024
    );
    for (code, clients) in &found {
        let all: usize = clients.values().sum();
        println!("{code}: {all} of {} requests: {clients:?}", recorded.len());
    }
    assert!(recorded.len() > 150, "{requests:?}");
    assert!(requests.len() >= 8, "{requests:?}");
    assert!(blocked.is_empty(), "{blocked:#?}");
    // The controls: the tree's own keys were (above), and so is an ordinary request with a key in it.
    assert!(requests.contains_key(KEY), "{requests:?}");
    let ordinary = recorded.iter().rfind(|(client, ..)| *client == "model");
    let (_, parts, body) = ordinary.unwrap();
    let planted = [body, &b" "[..], crate::inspection::key_id().as_bytes()].concat();
    assert!(replay(&defaults, parts, &planted.into()).1.is_some());
}
