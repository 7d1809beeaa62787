//! Programs that print a value: the person's own, and `op`. Bounded in bytes and time; no shell reads their words, and the value is
//! never among them. One may print a Kubernetes `ExecCredential` in its place, and so say when the value ends.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use super::{Host, MAX_STDERR_BYTES, SourceError};
use crate::value::{Fetched, READ_BYTES, Secret};

/// A program of that name on this host's PATH; directories that depend on where we are do not count.
pub fn find(name: &'static str, host: &Host<'_>) -> Result<PathBuf, SourceError> {
    use std::os::unix::fs::PermissionsExt;
    let path = (host.env)("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name))
        .find(|file| {
            std::fs::metadata(file)
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
        .ok_or(SourceError::NoProgram(name, "the 1Password command line"))
}

/// client.authentication.k8s.io, v1 and v1beta1.
#[derive(Deserialize)]
struct ExecCredential {
    kind: String,
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    #[serde(default)]
    token: Option<Zeroizing<String>>,
    #[serde(default)]
    expiration_timestamp: Option<jiff::Timestamp>,
}

/// The value of an `ExecCredential`; `None`: it is none.
pub fn credential(program: &Path, printed: &[u8]) -> Option<Result<Fetched, SourceError>> {
    if printed.trim_ascii_start().first() != Some(&b'{') {
        return None;
    }
    let found: ExecCredential = serde_json::from_slice(printed).ok()?;
    if found.kind != "ExecCredential" {
        return None;
    }
    let unusable = |why| SourceError::ExecCredential {
        program: program.to_owned(),
        why,
    };
    let status = found.status.unwrap_or(Status {
        token: None,
        expiration_timestamp: None,
    });
    let Some(token) = status.token else {
        return Some(Err(unusable("it has no status.token")));
    };
    let expires = match status
        .expiration_timestamp
        .map(|at| u64::try_from(at.as_second()))
    {
        Some(Err(_)) => return Some(Err(unusable("it ended before 1970"))),
        Some(Ok(at)) => Some(at),
        None => None,
    };
    Some(
        Secret::new(token.as_bytes().to_vec())
            .map(|value| Fetched::until(value, expires))
            .map_err(|error| SourceError::Value {
                from: schema::diag::escape(&program.to_string_lossy()),
                error,
            }),
    )
}

/// What it prints, if it ends well and in time.
pub async fn run(
    program: &Path,
    arguments: &[String],
    deadline: Duration,
) -> Result<Vec<u8>, SourceError> {
    let spawn = |error| SourceError::Spawn {
        program: program.to_owned(),
        error,
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(spawn)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (value, words) = tokio::join!(
            first_bytes(stdout, READ_BYTES),
            first_bytes(stderr, MAX_STDERR_BYTES)
        );
        Ok::<_, std::io::Error>((value?, words?, child.wait().await?))
    };
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok((mut value, _, status))) if status.success() => Ok(std::mem::take(&mut value)),
        Ok(Ok((value, words, status))) => Err(SourceError::Failed {
            program: program.to_owned(),
            status,
            stderr: without(&words, &value),
        }),
        Ok(Err(error)) => Err(spawn(error)),
        // Dropping the child kills it.
        Err(_) => Err(SourceError::Deadline {
            program: program.to_owned(),
            after: deadline,
        }),
    }
}

/// The first bytes of a stream, which is read to its end so that its writer is not held up.
async fn first_bytes(
    stream: Option<impl AsyncRead + Unpin>,
    limit: usize,
) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut kept = Zeroizing::new(Vec::with_capacity(limit));
    let Some(mut stream) = stream else {
        return Ok(kept);
    };
    let mut chunk = Zeroizing::new([0; 4096]);
    loop {
        let n = stream.read(&mut *chunk).await?;
        if n == 0 {
            return Ok(kept);
        }
        let room = (limit - kept.len()).min(n);
        kept.extend_from_slice(&chunk[..room]);
    }
}

/// A program's words, unless they repeat what it printed as the value.
fn without(words: &[u8], value: &[u8]) -> String {
    let value = value.trim_ascii();
    let repeated = !value.is_empty()
        && words
            .windows(value.len().min(words.len()).max(1))
            .any(|part| part == value);
    if repeated {
        return "its words are not shown because they hold what it printed".to_owned();
    }
    String::from_utf8_lossy(words).into_owned()
}
