//! What the person is logged in to registries with, as the docker CLI keeps it: `config.json` and the programs it names
//! (docker-credential-helpers). Asked for the one registry that an image is pulled from, and given to the engine for that pull.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The largest `config.json`, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;
/// The longest answer of a program that keeps credentials, in bytes.
pub const MAX_ANSWER: u64 = 64 * 1024;
/// How long it has to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// How Docker's own registry is called in these files.
const DOCKER_IO: &str = "https://index.docker.io/v1/";
/// The user's name where the secret is a token.
const TOKEN: &str = "<token>";

#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("{} cannot be read: {why}", .path.display())]
    File { path: PathBuf, why: String },
    #[error("docker-credential-{name}: {why}")]
    Helper { name: String, why: String },
    #[error("the secret for {0} has characters that the engine's API cannot be sent")]
    Spelling(String),
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
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Kept {
    username: String,
    secret: String,
}

/// `DOCKER_CONFIG`, else `~/.docker`.
pub fn directory() -> Option<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    var("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&var("HOME")?).join(".docker")))
}

/// The credentials for a registry, written as in an image reference. Waits for the program that keeps them.
pub fn find(
    directory: &Path,
    registry: &str,
) -> Result<Option<DockerCredentials>, CredentialsError> {
    let found = look_up(directory, registry)?;
    // bollard writes the header in one alphabet of base64, and engines read it in the other; they differ in two digits.
    let sent = serde_json::to_string(&found).unwrap_or_default();
    if STANDARD.encode(sent).contains(['+', '/']) {
        return Err(CredentialsError::Spelling(registry.to_owned()));
    }
    Ok(found)
}

fn look_up(
    directory: &Path,
    registry: &str,
) -> Result<Option<DockerCredentials>, CredentialsError> {
    let Some(file) = read(&directory.join("config.json"))? else {
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
        .find(|(of, _)| is_same(of, registry))
        .map(|(_, name)| name)
        .or(file.creds_store.as_ref())
        .filter(|name| !name.is_empty());
    if let Some(name) = helper
        && let Some(kept) = ask(name, server)?
    {
        return Ok(Some(given(kept.username, kept.secret, server)));
    }
    let Some((_, auth)) = file.auths.iter().find(|(of, _)| is_same(of, registry)) else {
        return Ok(None);
    };
    if !auth.identitytoken.is_empty() {
        return Ok(Some(given(
            TOKEN.to_owned(),
            auth.identitytoken.clone(),
            server,
        )));
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
    Ok((!user.is_empty()).then(|| given(user.to_owned(), password.to_owned(), server)))
}

fn given(user: String, secret: String, server: &str) -> DockerCredentials {
    let mut credentials = DockerCredentials {
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    };
    if user == TOKEN {
        credentials.identitytoken = Some(secret);
    } else {
        credentials.username = Some(user);
        credentials.password = Some(secret);
    }
    credentials
}

/// Entries are written as hosts or as addresses with a scheme and a path.
fn is_same(entry: &str, registry: &str) -> bool {
    let bare = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let host = bare.split('/').next().unwrap_or(bare);
    host == registry || (registry == "docker.io" && host == "index.docker.io")
}

fn read(path: &Path) -> Result<Option<File>, CredentialsError> {
    let failed = |why: String| CredentialsError::File {
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
fn ask(name: &str, server: &str) -> Result<Option<Kept>, CredentialsError> {
    let failed = |why: String| CredentialsError::Helper {
        name: name.to_owned(),
        why,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.bytes().all(plain) {
        return Err(failed("is no name of a program".to_owned()));
    }
    let mut child = Command::new(format!("docker-credential-{name}"))
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
    let mut bytes = Vec::new();
    if let Some(output) = child.stdout.take() {
        let _ = output.take(MAX_ANSWER + 1).read_to_end(&mut bytes);
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

    fn found(config: &str, registry: &str) -> Option<(String, String)> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let found = find(dir.path(), registry).unwrap()?;
        Some(match found.identitytoken {
            Some(token) => (TOKEN.to_owned(), token),
            None => (found.username.unwrap(), found.password.unwrap()),
        })
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
        assert_eq!(found(&config, "ghcr.io"), pair("ada", "pa:ss"));
        assert_eq!(found(&config, "docker.io"), pair("hub", "secret"));
        assert_eq!(found(&config, "r.test"), pair(TOKEN, "t"));
        for other in ["evil.test", "ghcr.io:5000", "io", "empty.test"] {
            assert_eq!(found(&config, other), None, "{other}");
        }
    }

    #[test]
    fn what_an_engine_would_read_otherwise_is_not_sent() {
        let spelt = |secret: &str| {
            let dir = tempfile::tempdir().unwrap();
            let auth = STANDARD.encode(format!("ada:{secret}"));
            let config = format!(r#"{{ "auths": {{ "r.test": {{ "auth": "{auth}" }} }} }}"#);
            std::fs::write(dir.path().join("config.json"), config).unwrap();
            find(dir.path(), "r.test").map(|_| ())
        };
        assert!(spelt("plain-Secret_1.2!").is_ok());
        assert!(matches!(
            spelt("??????"),
            Err(CredentialsError::Spelling(_))
        ));
    }

    #[test]
    fn how_much_is_read_is_bounded() {
        let config = |size: usize| {
            let dir = tempfile::tempdir().unwrap();
            let text = format!("{{}}{}", " ".repeat(size - 2));
            std::fs::write(dir.path().join("config.json"), text).unwrap();
            find(dir.path(), "r.test").map(|_| ())
        };
        assert!(config(MAX_FILE as usize).is_ok());
        assert!(config(MAX_FILE as usize + 1).is_err());
        assert!(find(Path::new("/nowhere"), "r.test").unwrap().is_none());
    }

    #[test]
    fn a_helper_is_a_program_of_that_kind_and_nothing_else() {
        for name in ["../evil", "a b", "a/b", "x;y"] {
            assert!(matches!(
                ask(name, "r.test"),
                Err(CredentialsError::Helper { .. })
            ));
        }
        assert!(ask("surely-not-there", "r.test").is_err());
    }
}
