//! Many references at once: how many are asked about at a time, and what is asked once for all of them.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use registry::cache::Cache;
use registry::client::Client;
use registry::client::lane::LANES;
use registry::http::Settings;
use schema::image::ImageRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Names the directory of the run with the helper.
const OWN: &str = "ASKING_DIRECTORY";

/// A registry that wants a token for each repository and answers no manifest before so many are asked for at a time.
struct Stand {
    together: usize,
    waiting: tokio::sync::watch::Sender<usize>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    tokens: BTreeMap<String, usize>,
    at_once: usize,
    most: usize,
}

async fn start(together: usize) -> (String, Arc<Stand>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let name = listener.local_addr().unwrap().to_string();
    let stand = Arc::new(Stand {
        together,
        waiting: tokio::sync::watch::channel(0).0,
        seen: Mutex::default(),
    });
    let (own, serving) = (name.clone(), stand.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(serve(client, own.clone(), serving.clone()));
        }
    });
    (name, stand)
}

async fn serve(mut client: TcpStream, own: String, stand: Arc<Stand>) {
    let (mut buffer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        while !buffer.ends_with(b"\r\n\r\n") {
            match client.read(&mut piece).await {
                Ok(count @ 1..) => buffer.extend_from_slice(&piece[..count]),
                _ => return,
            }
        }
        let head = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
        let answer = stand.answer(&head, &own).await;
        if client.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl Stand {
    async fn answer(&self, head: &str, own: &str) -> String {
        let path = head.split(' ').nth(1).unwrap();
        let whole = |status: &str, extra: &str, body: &str| {
            let length = body.len();
            format!("HTTP/1.1 {status}\r\n{extra}Content-Length: {length}\r\n\r\n{body}")
        };
        if path.starts_with("/token") {
            let scope = path.split("scope=").nth(1).unwrap().to_owned();
            *self
                .seen
                .lock()
                .unwrap()
                .tokens
                .entry(scope.clone())
                .or_default() += 1;
            // Long enough for everybody else to come too.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return whole("200 OK", "", &format!(r#"{{"token":"{}"}}"#, scope.len()));
        }
        if !head.to_ascii_lowercase().contains("authorization: bearer") {
            let challenge = format!("WWW-Authenticate: Bearer realm=\"http://{own}/token\"\r\n");
            return whole("401 Unauthorized", &challenge, "");
        }
        {
            let mut seen = self.seen.lock().unwrap();
            seen.at_once += 1;
            seen.most = seen.most.max(seen.at_once);
            self.waiting.send_modify(|n| *n += 1);
        }
        let mut waiting = self.waiting.subscribe();
        let all = waiting.wait_for(|n| *n >= self.together);
        let all = tokio::time::timeout(Duration::from_secs(5), all)
            .await
            .is_ok();
        // A little longer, so that one too many would be seen.
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.seen.lock().unwrap().at_once -= 1;
        if !all {
            return whole("404 Not Found", "", "");
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let empty = r#"{"mediaType":"application/vnd.test","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#;
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{empty},"layers":[{empty}]}}"#
        );
        whole("200 OK", &format!("Content-Type: {kind}\r\n"), &manifest)
    }
}

/// The registry's own client, with a helper that notes each time it is asked.
fn client(dir: &Path, registry: &str) -> Client {
    let helper = dir.join("docker-credential-counting");
    let script = format!(
        "#!/bin/sh\necho asked >> {}\necho '{{\"Username\":\"u\",\"Secret\":\"p\"}}'\n",
        dir.join("asked").display()
    );
    std::fs::write(&helper, script).unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o700)).unwrap();
    let config = dir.join("config.json");
    let text = format!(r#"{{ "credHelpers": {{ "{registry}": "counting" }} }}"#);
    std::fs::write(&config, text).unwrap();
    let mut settings = Settings::new(Vec::new());
    settings.plain_http = [registry.to_owned()].into();
    settings.logins = vec![config];
    Client::new(settings, Cache::at(dir.join("cache")), false).unwrap()
}

/// Asks about so many references of one registry at once; how many of them were had.
async fn ask(client: &Client, registry: &str, repositories: usize, tags: usize) -> usize {
    let mut jobs = tokio::task::JoinSet::new();
    for n in 0..repositories {
        for tag in 0..tags {
            let (client, written) = (client.clone(), format!("{registry}/r{n}:{tag}"));
            jobs.spawn(async move {
                let client = client.lane().await;
                client.resolve(&ImageRef::parse(&written).unwrap()).await
            });
        }
    }
    let all = jobs.join_all().await;
    all.iter().filter(|found| found.is_ok()).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_are_asked_about_at_once_and_what_is_the_same_for_all_is_asked_once() {
    // Helpers are looked for in PATH: once more, with one that has ours in it.
    let Some(dir) = std::env::var_os(OWN).map(PathBuf::from) else {
        let dir = tempfile::tempdir().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .env(OWN, dir.path())
            .env("PATH", format!("{}:{path}", dir.path().display()))
            .status();
        assert!(again.unwrap().success());
        return;
    };
    let dir = dir.as_path();
    let (registry, stand) = start(LANES).await;
    let client = client(dir, &registry);
    // Each repository with two tags: more than may be asked about at a time.
    assert_eq!(ask(&client, &registry, LANES, 2).await, 2 * LANES);
    let seen = stand.seen.lock().unwrap();
    assert_eq!(seen.most, LANES);
    assert_eq!(seen.tokens.len(), LANES, "a token is for one repository");
    assert!(seen.tokens.values().all(|n| *n == 1), "{:?}", seen.tokens);
    let asked = std::fs::read_to_string(dir.join("asked")).unwrap();
    assert_eq!(asked.lines().count(), 1, "the helper is asked once");
}
