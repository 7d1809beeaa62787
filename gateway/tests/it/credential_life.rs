//! Credentials that change while connections are open: taken away by a policy or a person, handed anew, ended.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api::v1::{self, to_gateway};
use prost::Message as _;
use schema::net::Protocol;

use crate::credentials::grant;
use crate::harness::*;
use crate::https::{NAME, Scene, World, origin};

const STAND_IN: &str = "ghp_Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3Fak3";

async fn scene() -> (Scene, PolicyBuilder) {
    let world = World::new();
    let (port, seen) = origin(world.certified(NAME, |_| {}), &["http/1.1"]).await;
    let mut policy = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    grant(&mut policy, port, Some("GITHUB_TOKEN"));
    let without = PolicyBuilder::default().rule(NAME, port, Protocol::Https);
    (Scene::of(&world, policy, port, seen).await, without)
}

/// A client whose connection stays open between its requests.
struct Client {
    child: std::process::Child,
}

impl Client {
    /// Asks twice on one connection: at once, and when it is told to.
    fn start(scene: &Scene, field: &str) -> Self {
        let script = "import http.client, socket, ssl, sys
name, port, door, ca, field = sys.argv[1:]
host, at = door.rsplit(':', 1)
context = ssl.create_default_context(cafile=ca)
raw = socket.create_connection((host, int(at)))
it = http.client.HTTPConnection(name, int(port))
it.sock = context.wrap_socket(raw, server_hostname=name)
headers = {'Authorization': field} if field else {}
it.request('GET', '/auth', headers=headers); answer = it.getresponse(); answer.read()
print(answer.status, flush=True)
it.sock.settimeout(5)
try:
    print('ended' if it.sock.recv(1) == b'' else 'bytes', flush=True)
except (ConnectionError, ssl.SSLError): print('ended', flush=True)
except TimeoutError: print('open', flush=True)";
        let mut command = std::process::Command::new("python3");
        command
            .args([
                "-c",
                script,
                NAME,
                &scene.port.to_string(),
                &scene.door.to_string(),
            ])
            .arg(scene.ca())
            .arg(field)
            .stdout(std::process::Stdio::piped());
        Self {
            child: command.spawn().unwrap(),
        }
    }

    async fn line(&mut self) -> String {
        use std::io::Read as _;
        let mut stdout = self.child.stdout.take().unwrap();
        let (line, stdout) = tokio::task::spawn_blocking(move || {
            let (mut line, mut byte) = (String::new(), [0]);
            while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
                line.push(char::from(byte[0]));
            }
            (line, stdout)
        })
        .await
        .unwrap();
        self.child.stdout = Some(stdout);
        line
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn bearer() -> String {
    format!("Bearer {STAND_IN}")
}

/// Sends a snapshot of this generation with these values and the policy that the session has.
fn snapshot(scene: &Scene, policy: &PolicyBuilder, generation: u32, secrets: Vec<v1::Secret>) {
    let mut document = scene.session.document(policy.clone().build());
    document.generation = generation;
    document.secrets = secrets;
    let file = sealed(&document.encode_to_vec());
    scene.session.send(
        to_gateway::Message::Snapshot(v1::Snapshot { generation }),
        &[std::os::fd::AsRawFd::as_raw_fd(&file)],
    );
}

fn handed(value: &str) -> v1::Secret {
    v1::Secret {
        credential: "github".into(),
        value: value.into(),
        placeholder: STAND_IN.into(),
        ..Default::default()
    }
}

async fn ask(scene: &Scene) -> (u16, String) {
    let field = format!("Authorization: {}", bearer());
    let got = scene.curl("/auth", &["-H", &field]).await;
    let code = got
        .headers
        .lines()
        .find_map(|line| line.strip_prefix("x-agentcontainer-blocked: "))
        .unwrap_or_default()
        .trim()
        .to_owned();
    (got.status, code)
}

async fn until(scene: &Scene, status: u16, code: &str) {
    for _ in 0..100 {
        if ask(scene).await == (status, code.to_owned()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{:?} instead of {status} {code}", ask(scene).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_carried_it_ends_when_a_policy_or_a_person_takes_it_away() {
    for by_policy in [true, false] {
        let (scene, without) = scene().await;
        let mut carried = Client::start(&scene, &bearer());
        let mut plain = Client::start(&scene, "");
        assert_eq!(carried.line().await, "200");
        assert_eq!(plain.line().await, "200");
        assert!(
            scene
                .seen
                .lock()
                .unwrap()
                .iter()
                .any(|s| s.contains("R3al"))
        );
        if by_policy {
            snapshot(&scene, &without, 2, Vec::new());
        } else {
            let away = v1::Secret {
                revoked: true,
                ..handed("")
            };
            snapshot(&scene, &scene.session.policy, 2, vec![away]);
            until(&scene, 403, "credential-revoked").await;
        }
        assert_eq!(carried.line().await, "ended", "by policy: {by_policy}");
        assert_eq!(plain.line().await, "open", "by policy: {by_policy}");
        scene.seen.lock().unwrap().clear();
        ask(&scene).await;
        assert!(
            !scene
                .seen
                .lock()
                .unwrap()
                .iter()
                .any(|s| s.contains("R3al"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_that_was_overtaken_brings_no_value_back() {
    let (scene, _) = scene().await;
    let policy = &scene.session.policy;
    let new = "ghp_N3wN3wN3wN3wN3wN3wN3";
    snapshot(&scene, policy, 5, vec![handed(new)]);
    for _ in 0..100 {
        ask(&scene).await;
        if scene
            .seen
            .lock()
            .unwrap()
            .contains(&format!("Bearer {new}"))
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let away = v1::Secret {
        revoked: true,
        ..handed("")
    };
    snapshot(&scene, policy, 6, vec![away]);
    until(&scene, 403, "credential-revoked").await;
    // The first snapshot of a gateway that was just started, on its way since before.
    snapshot(&scene, policy, 4, vec![handed(new)]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(ask(&scene).await, (403, "credential-revoked".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_ended_and_was_not_renewed_is_not_sent() {
    let (scene, _) = scene().await;
    let policy = &scene.session.policy;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let until_then = |expires| v1::Secret {
        expires,
        ..handed("ghp_Sh0rtSh0rtSh0rtSh0rt")
    };
    snapshot(&scene, policy, 2, vec![until_then(now + 2)]);
    assert_eq!(ask(&scene).await.0, 200);
    until(&scene, 503, "credential-expired").await;
    let heard = scene.seen.lock().unwrap().len();
    assert_eq!(ask(&scene).await.0, 503);
    assert_eq!(scene.seen.lock().unwrap().len(), heard);
    snapshot(&scene, policy, 3, vec![until_then(now + 3600)]);
    until(&scene, 200, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_taken_away_is_still_taken_out_of_answers() {
    let (scene, _) = scene().await;
    let stored = "ghp_R3alR3alR3alR3alR3alR3alR3alR3alR3al";
    let comes_back = async || {
        let answered = scene.curl("/echo", &["-d", stored]).await;
        (answered.status, String::from_utf8(answered.body).unwrap())
    };
    let (status, body) = comes_back().await;
    assert_eq!(status, 200);
    assert!(!body.contains("R3al"), "{body}");
    let away = v1::Secret {
        revoked: true,
        ..handed("")
    };
    snapshot(&scene, &scene.session.policy, 2, vec![away.clone()]);
    until(&scene, 403, "credential-revoked").await;
    // Whatever is told of it afterwards.
    for generation in [2, 3] {
        snapshot(
            &scene,
            &scene.session.policy,
            generation,
            vec![away.clone()],
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (status, body) = comes_back().await;
        assert_eq!(status, 200);
        assert!(!body.contains("R3al"), "{body}");
    }
    assert_eq!(ask(&scene).await, (403, "credential-revoked".to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_was_lost_is_refused_in_words_and_what_stands_for_it_is_not_sent() {
    let (scene, _) = scene().await;
    snapshot(&scene, &scene.session.policy, 2, vec![handed("")]);
    until(&scene, 503, "credential-unavailable").await;
    scene.seen.lock().unwrap().clear();
    ask(&scene).await;
    assert!(scene.seen.lock().unwrap().is_empty());
    let other = scene.curl(&format!("/echo?{STAND_IN}"), &[]).await;
    assert_eq!(other.status, 403);
}
