#![allow(clippy::unwrap_used)]
//! A repository of one key on loopback, whole, changed and expired.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sigstore_crypto::KeyPair;

use super::*;

const LATER: &str = "2999-01-01T00:00:00Z";
const ROOT: &str = sigstore_trust_root::SIGSTORE_PRODUCTION_TRUSTED_ROOT;

type Files = HashMap<String, Vec<u8>>;

/// As signatures of TUF's metadata are over it: keys sorted, and nothing escaped but quotes and backslashes.
fn canonical(value: &Value) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort();
            let parts: Vec<_> = keys
                .iter()
                .map(|key| format!("{}:{}", quoted(key), canonical(&map[*key])))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            let parts: Vec<_> = items.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        Value::String(text) => quoted(text),
        other => other.to_string(),
    }
}

/// The first root, and the files of a repository that holds this one.
fn repository(target: &[u8], expires: &str) -> (Vec<u8>, Files) {
    let pair = KeyPair::generate_ecdsa_p256().unwrap();
    let pem = pair.public_key_der().unwrap().to_pem();
    let key =
        json!({"keytype": "ecdsa", "scheme": "ecdsa-sha2-nistp256", "keyval": {"public": pem}});
    let id = sigstore_crypto::sha256(canonical(&key).as_bytes()).to_hex();
    let sealed = |signed: Value| {
        let signature = pair.sign(canonical(&signed).as_bytes()).unwrap();
        let hex: String = signature
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        json!({"signed": signed, "signatures": [{"keyid": id, "sig": hex}]})
            .to_string()
            .into_bytes()
    };
    let described = |bytes: &[u8]| {
        let hash = sigstore_crypto::sha256(bytes).to_hex();
        json!({"version": 1, "length": bytes.len(), "hashes": {"sha256": hash}})
    };
    let of = |kind: &str, expires: &str, more: Value| {
        let mut signed =
            json!({"_type": kind, "spec_version": "1.0.0", "version": 1, "expires": expires});
        for (name, value) in more.as_object().unwrap() {
            signed[name] = value.clone();
        }
        sealed(signed)
    };
    let name = "trusted_root.json";
    let mut described_target = described(target);
    described_target.as_object_mut().unwrap().remove("version");
    let targets = of(
        "targets",
        LATER,
        json!({"targets": {name: described_target}}),
    );
    let meta = json!({"meta": {"targets.json": described(&targets)}});
    let snapshot = of("snapshot", LATER, meta);
    let meta = json!({"meta": {"snapshot.json": described(&snapshot)}});
    let timestamp = of("timestamp", expires, meta);
    let role = json!({"keyids": [id], "threshold": 1});
    let roles = json!({"root": role, "timestamp": role, "snapshot": role, "targets": role});
    let root = of(
        "root",
        LATER,
        json!({"consistent_snapshot": false, "keys": {id.clone(): key}, "roles": roles}),
    );
    let files = Files::from([
        ("/timestamp.json".to_owned(), timestamp),
        ("/snapshot.json".to_owned(), snapshot),
        ("/targets.json".to_owned(), targets),
        (format!("/targets/{name}"), target.to_vec()),
    ]);
    (root, files)
}

struct Server {
    url: String,
    files: Arc<Mutex<Files>>,
    asked: Arc<AtomicUsize>,
    /// Bytes of bodies that were taken.
    taken: Arc<AtomicUsize>,
}

fn serve(files: Files) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let files = Arc::new(Mutex::new(files));
    let asked = Arc::new(AtomicUsize::new(0));
    let taken = Arc::new(AtomicUsize::new(0));
    let (shared, counter, bytes) = (Arc::clone(&files), Arc::clone(&asked), Arc::clone(&taken));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let first = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| !line.unwrap().is_empty()) {}
            counter.fetch_add(1, Ordering::SeqCst);
            let path = first.split(' ').nth(1).unwrap();
            let file = shared.lock().unwrap().get(path).cloned();
            let (status, body) =
                file.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
            // What is long does not say so.
            let length = match body.len() {
                length @ ..1_000_000 => format!("content-length: {length}\r\n"),
                _ => String::new(),
            };
            let head = format!("HTTP/1.1 {status}\r\n{length}connection: close\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            for piece in body.chunks(64 * 1024) {
                if stream.write_all(piece).is_err() {
                    break;
                }
                bytes.fetch_add(piece.len(), Ordering::SeqCst);
            }
        }
    });
    Server {
        url,
        files,
        asked,
        taken,
    }
}

async fn load(server: &Server, root: &[u8], kept: &Path, offline: bool) -> Result<(), String> {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let mut repository = Repository::private(&server.url, root, kept).with_client(client);
    if offline {
        repository = repository.offline();
    }
    TrustRoots::none()
        .with_tuf("private", repository, jiff::Timestamp::now())
        .await
        .map(|roots| assert_eq!(roots.names().collect::<Vec<_>>(), ["private"]))
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_root_is_fetched_by_tuf_and_served_without_a_network_afterwards() {
    let kept = tempfile::tempdir().unwrap();
    let (root, files) = repository(ROOT.as_bytes(), LATER);
    let server = serve(files);
    load(&server, &root, kept.path(), true).await.unwrap_err();
    assert_eq!(
        server.asked.load(Ordering::SeqCst),
        0,
        "offline asks nobody"
    );
    load(&server, &root, kept.path(), false).await.unwrap();
    let asked = server.asked.load(Ordering::SeqCst);
    assert!(asked > 0);
    load(&server, &root, kept.path(), true).await.unwrap();
    assert_eq!(server.asked.load(Ordering::SeqCst), asked);
}

#[tokio::test]
async fn what_tuf_does_not_vouch_for_is_not_believed() {
    let (root, files) = repository(ROOT.as_bytes(), LATER);
    let server = serve(files.clone());
    let attempt = async |root: &[u8]| {
        let kept = tempfile::tempdir().unwrap();
        load(&server, root, kept.path(), false).await
    };
    attempt(&root).await.unwrap();
    let (other, _) = repository(ROOT.as_bytes(), LATER);
    attempt(&other).await.unwrap_err();
    let changed = ROOT.replacen("2021", "2020", 1);
    assert_ne!(changed, ROOT);
    let put = |name: &str, content: Vec<u8>| {
        server
            .files
            .lock()
            .unwrap()
            .insert(name.to_owned(), content);
    };
    put("/targets/trusted_root.json", changed.into_bytes());
    attempt(&root).await.unwrap_err();
    put("/targets/trusted_root.json", ROOT.as_bytes().to_vec());
    attempt(&root).await.unwrap();
    put("/timestamp.json", b"{}".to_vec());
    attempt(&root).await.unwrap_err();

    let (root, files) = repository(ROOT.as_bytes(), "2001-01-01T00:00:00Z");
    *server.files.lock().unwrap() = files;
    let expired = attempt(&root).await.unwrap_err();
    assert!(expired.contains("expired"), "{expired}");
    server.files.lock().unwrap().clear();
    attempt(&root).await.unwrap_err();
}

#[tokio::test]
async fn a_repository_that_never_stops_answering_is_left_at_a_bound() {
    let (root, files) = repository(ROOT.as_bytes(), LATER);
    let names: Vec<_> = files.keys().cloned().collect();
    for name in names {
        let server = serve(files.clone());
        let long = vec![b' '; 64 << 20];
        server.files.lock().unwrap().insert(name.clone(), long);
        let kept = tempfile::tempdir().unwrap();
        let refused = load(&server, &root, kept.path(), false).await.unwrap_err();
        assert!(refused.contains("max length"), "{name}: {refused}");
        // What was taken and not read is in the sockets' buffers.
        let taken = server.taken.load(Ordering::SeqCst);
        assert!(taken < 24 << 20, "{name}: {taken}");
    }
}
