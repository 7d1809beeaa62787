//! What the person is logged in to registries with, as docker and podman keep it: `config.json`, `auth.json` and the programs
//! they name (docker-credential-helpers). Asked for the one repository that is read or written, by the client of this room
//! and, through the CLI, for an engine's pull.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The largest `config.json`, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;
/// The longest answer of a program that keeps credentials, in bytes.
pub const MAX_ANSWER: u64 = 64 * 1024;
/// How long it has to answer.
const LIMIT: Duration = Duration::from_secs(10);
/// How long the rest of what it said is waited for once it has ended.
const REST: Duration = Duration::from_millis(500);

/// How Docker's own registry is called in these files.
const DOCKER_IO: &str = "https://index.docker.io/v1/";
/// The user's name where the secret is a token.
const TOKEN: &str = "<token>";

#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("{} cannot be read: {why}", .path.display())]
    File { path: PathBuf, why: String },
    #[error("docker-credential-{name}: {why}")]
    Helper { name: String, why: String },
}

/// What a registry is shown.
#[derive(Clone)]
pub enum Login {
    Password {
        user: String,
        password: Zeroizing<String>,
    },
    /// An OAuth 2 refresh token (distribution's token authentication).
    IdentityToken(Zeroizing<String>),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::IdentityToken(_) => "IdentityToken",
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// What a helper answers.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: Zeroizing<String>,
}

/// What helpers answered, for the life of a command: each is asked once about a registry, whoever wants to know at the same time.
#[derive(Default)]
pub struct Helpers {
    answers: Mutex<BTreeMap<(String, String), Option<Kept>>>,
}

// === impl Helpers ===

impl Helpers {
    fn ask(&self, name: &str, server: &str) -> Result<Option<Kept>, LoginError> {
        let known = self.answers.lock();
        let mut known = known.unwrap_or_else(|poisoned| poisoned.into_inner());
        let key = (name.to_owned(), server.to_owned());
        if let Some(answer) = known.get(&key) {
            return Ok(answer.clone());
        }
        let answer = ask(name, server)?;
        known.insert(key, answer.clone());
        Ok(answer)
    }
}

/// Where logins are kept, the first that knows the registry wins: `REGISTRY_AUTH_FILE`, docker's `config.json`, podman's
/// `auth.json` of this login and of this user.
pub fn files(env: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    // A relative one would be the workspace's.
    let dir = |name: &str| {
        env(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let home = dir("HOME");
    let docker = dir("DOCKER_CONFIG").or_else(|| Some(home.clone()?.join(".docker")));
    let config = dir("XDG_CONFIG_HOME").or_else(|| Some(home?.join(".config")));
    [
        dir("REGISTRY_AUTH_FILE"),
        docker.map(|d| d.join("config.json")),
        dir("XDG_RUNTIME_DIR").map(|d| d.join("containers/auth.json")),
        config.map(|d| d.join("containers/auth.json")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The login for a repository of a registry, both written as in an image reference. Waits for the program that keeps it.
///
/// # Errors
/// A file or a program that is there and cannot be read: going on as nobody would hide it.
pub fn find(
    files: &[PathBuf],
    helpers: &Helpers,
    registry: &str,
    repository: &str,
) -> Result<Option<Login>, LoginError> {
    for file in files {
        if let Some(found) = look_up(file, helpers, registry, repository)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn look_up(
    file: &Path,
    helpers: &Helpers,
    registry: &str,
    repository: &str,
) -> Result<Option<Login>, LoginError> {
    let Some(file) = read(file)? else {
        return Ok(None);
    };
    let server = if registry == "docker.io" {
        DOCKER_IO
    } else {
        registry
    };
    let helper = file
        .cred_helpers
        .iter()
        .find(|(of, _)| covers(of, registry, "") == Some(0))
        .map(|(_, name)| name)
        .or(file.creds_store.as_ref())
        .filter(|name| !name.is_empty());
    if let Some(name) = helper
        && let Some(kept) = helpers.ask(name, server)?
    {
        return Ok(Some(given(kept.username, kept.secret)));
    }
    let Some((_, auth)) = file
        .auths
        .iter()
        .filter_map(|(of, auth)| Some((covers(of, registry, repository)?, auth)))
        .max_by_key(|(specific, _)| *specific)
    else {
        return Ok(None);
    };
    if !auth.identitytoken.is_empty() {
        let token = Zeroizing::new(auth.identitytoken.clone());
        return Ok(Some(given(TOKEN.to_owned(), token)));
    }
    let decoded = STANDARD
        .decode(auth.auth.trim())
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .unwrap_or_default();
    let (user, password) = match decoded.split_once(':') {
        // The docker CLI pads it with zeros.
        Some((user, password)) => (user, password.trim_matches('\0')),
        None => (auth.username.as_str(), auth.password.as_str()),
    };
    Ok((!user.is_empty()).then(|| {
        let password = Zeroizing::new(password.to_owned());
        given(user.to_owned(), password)
    }))
}

fn given(user: String, secret: Zeroizing<String>) -> Login {
    if user == TOKEN {
        Login::IdentityToken(secret)
    } else {
        Login::Password {
            user,
            password: secret,
        }
    }
}

/// How specific an entry is for a repository, if it is for it: entries are hosts, addresses with a scheme and a version, or
/// (podman) a host and the beginning of repositories.
fn covers(entry: &str, registry: &str, repository: &str) -> Option<usize> {
    let bare = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    let same = host == registry || (registry == "docker.io" && host == "index.docker.io");
    let path = path.trim_end_matches('/');
    match path {
        _ if !same => None,
        "" | "v1" | "v2" => Some(0),
        path => repository
            .strip_prefix(path)
            .filter(|rest| rest.is_empty() || rest.starts_with('/'))
            .map(|_| path.len()),
    }
}

fn read(path: &Path) -> Result<Option<File>, LoginError> {
    let failed = |why: String| LoginError::File {
        path: path.to_owned(),
        why,
    };
    let mut bytes = Vec::new();
    match std::fs::File::open(path) {
        Ok(file) => file
            .take(MAX_FILE + 1)
            .read_to_end(&mut bytes)
            .map_err(|e| failed(e.to_string()))?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e.to_string())),
    };
    if bytes.len() as u64 > MAX_FILE {
        return Err(failed("it is too large".to_owned()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| failed(e.to_string()))
}

/// `docker-credential-NAME get`; `None` where it keeps nothing for the server.
fn ask(name: &str, server: &str) -> Result<Option<Kept>, LoginError> {
    let failed = |why: String| LoginError::Helper {
        name: name.to_owned(),
        why,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.bytes().all(plain) {
        return Err(failed("is no name of a program".to_owned()));
    }
    run(&format!("docker-credential-{name}"), server, failed)
}

fn run(
    program: &str,
    server: &str,
    failed: impl Fn(String) -> LoginError,
) -> Result<Option<Kept>, LoginError> {
    let mut child = Command::new(program)
        .arg("get")
        // Nothing of it is looked for in the workspace.
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(server.as_bytes());
    }
    let output = child.stdout.take();
    let (send, pieces) = channel();
    std::thread::spawn(move || {
        let mut output = output?.take(MAX_ANSWER + 1);
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut piece) {
            send.send(piece[..count].to_vec()).ok()?;
        }
        Some(())
    });
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if began.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(10)),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("does not answer".to_owned()));
            }
            Err(e) => return Err(failed(e.to_string())),
        }
    };
    // What it left behind may keep the pipe open for ever: what it said itself is there by now.
    let mut bytes = Vec::new();
    while let Ok(piece) = pieces.recv_timeout(REST) {
        bytes.extend(piece);
    }
    if !status.success() {
        let said = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        return if said.contains("not found") {
            Ok(None)
        } else {
            Err(failed(said.trim().to_owned()))
        };
    }
    if bytes.len() as u64 > MAX_ANSWER {
        return Err(failed("its answer is too long".to_owned()));
    }
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|_| failed("its answer is not understood".to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(config: &str, registry: &str, repository: &str) -> Option<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, config).unwrap();
        Some(
            match find(&[file], &Helpers::default(), registry, repository).unwrap()? {
                Login::IdentityToken(token) => (TOKEN.to_owned(), token.to_string()),
                Login::Password { user, password } => (user, password.to_string()),
            },
        )
    }

    fn pair(user: &str, secret: &str) -> Option<(String, String)> {
        Some((user.to_owned(), secret.to_owned()))
    }

    #[test]
    fn what_docker_login_wrote_is_found_for_its_registry_alone() {
        let config = format!(
            r#"{{ "auths": {{ "ghcr.io": {{ "auth": "{}" }}, "https://index.docker.io/v1/": {{ "auth": "{}" }},
                 "https://r.test/v2/": {{ "identitytoken": "t" }}, "empty.test": {{}} }}, "HttpHeaders": {{}} }}"#,
            STANDARD.encode("ada:pa:ss"),
            STANDARD.encode("hub:secret\0\0")
        );
        assert_eq!(found(&config, "ghcr.io", "a"), pair("ada", "pa:ss"));
        assert_eq!(found(&config, "docker.io", "a/b"), pair("hub", "secret"));
        assert_eq!(found(&config, "r.test", "a"), pair(TOKEN, "t"));
        for other in ["evil.test", "ghcr.io:5000", "io", "empty.test"] {
            assert_eq!(found(&config, other, "a"), None, "{other}");
        }
    }

    #[test]
    fn what_podman_wrote_for_a_part_of_a_registry_goes_to_that_part() {
        let entry = |user: &str| {
            format!(
                r#"{{ "auth": "{}" }}"#,
                STANDARD.encode(format!("{user}:s"))
            )
        };
        let config = format!(
            r#"{{ "auths": {{ "r.test/team": {}, "r.test/team/app": {}, "q.test/team": {} }} }}"#,
            entry("team"),
            entry("app"),
            entry("other")
        );
        assert_eq!(found(&config, "r.test", "team/x"), pair("team", "s"));
        assert_eq!(found(&config, "r.test", "team/app/y"), pair("app", "s"));
        for other in ["teams", "x", "teamx/app"] {
            assert_eq!(found(&config, "r.test", other), None, "{other}");
        }
    }

    #[test]
    fn the_first_file_that_knows_the_registry_wins_and_a_broken_one_is_an_error() {
        let env = |name: &str| match name {
            "HOME" => Some("/h".to_owned()),
            "REGISTRY_AUTH_FILE" => Some("/a.json".to_owned()),
            "XDG_RUNTIME_DIR" => Some("/run/u".to_owned()),
            _ => None,
        };
        let expected = [
            "/a.json",
            "/h/.docker/config.json",
            "/run/u/containers/auth.json",
            "/h/.config/containers/auth.json",
        ];
        assert_eq!(files(env), expected.map(PathBuf::from));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        std::fs::write(&file, "{ not json").unwrap();
        assert!(matches!(
            find(&[file], &Helpers::default(), "r.test", "a"),
            Err(LoginError::File { .. })
        ));
    }

    #[test]
    fn how_much_is_read_is_bounded() {
        let config = |size: usize| {
            let dir = tempfile::tempdir().unwrap();
            let text = format!("{{}}{}", " ".repeat(size - 2));
            let file = dir.path().join("config.json");
            std::fs::write(&file, text).unwrap();
            find(&[file], &Helpers::default(), "r.test", "a").map(|_| ())
        };
        assert!(config(MAX_FILE as usize).is_ok());
        assert!(config(MAX_FILE as usize + 1).is_err());
        let nowhere = [PathBuf::from("/nowhere")];
        assert!(
            find(&nowhere, &Helpers::default(), "r.test", "a")
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_helper_is_a_program_of_that_kind_and_nothing_else() {
        for name in ["../evil", "a b", "a/b", "x;y"] {
            assert!(matches!(
                ask(name, "r.test"),
                Err(LoginError::Helper { .. })
            ));
        }
        assert!(ask("surely-not-there", "r.test").is_err());
    }

    #[test]
    fn a_helper_that_leaves_a_daemon_is_not_waited_for_and_a_long_answer_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let helper = |script: &str| {
            let path = dir.path().join("helper");
            std::fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            let failed = |why| LoginError::Helper {
                name: "h".to_owned(),
                why,
            };
            run(&path.display().to_string(), "r.test", failed)
        };
        let answer = r#"{"Username":"u","Secret":"p"}"#;
        let began = Instant::now();
        let kept = helper(&format!("sleep 20 &\necho '{answer}'")).unwrap();
        assert_eq!(kept.unwrap().username, "u");
        assert!(began.elapsed() < Duration::from_secs(15));
        // More than a pipe holds, and within the bound; then beyond it.
        let padded = |n: u64| format!("head -c {n} /dev/zero | tr '\\0' ' '; echo '{answer}'");
        assert!(helper(&padded(MAX_ANSWER - 100)).unwrap().is_some());
        assert!(helper(&padded(MAX_ANSWER)).is_err());
    }
}
