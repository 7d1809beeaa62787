#![allow(clippy::unwrap_used)]
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use super::*;
use crate::value::MAX_VALUE_BYTES;

const VALUE: &str = "sesame-0123456789";

fn host<'a>(env: &'a (dyn Fn(&str) -> Option<OsString> + Sync), deadline: Duration) -> Host<'a> {
    Host {
        env,
        roots: &[],
        person: None,
        input: Input::Taken("it is the test's"),
        deadline,
        second: Duration::from_millis(10),
    }
}

async fn get(source: &str) -> Result<String, String> {
    let env = |name: &str| (name == "SESAME").then(|| VALUE.into());
    let source = source.parse().unwrap();
    match fetch(&source, None, &host(&env, Duration::from_secs(5))).await {
        Ok(fetched) => Ok(String::from_utf8(fetched.value.expose().to_vec()).unwrap()),
        Err(error) => Err(format!("{error} {error:?}")),
    }
}

/// Read by the shell and not by the kernel, which refuses a file that another test's child still has open.
fn script(dir: &Path, text: &str) -> String {
    let path = dir.join("script");
    fs::write(&path, text).unwrap();
    format!("exec:///bin/sh {}", path.display())
}

#[tokio::test]
async fn a_variable_is_read_or_named() {
    assert_eq!(get("env://SESAME").await.unwrap(), VALUE);
    let error = get("env://OTHER").await.unwrap_err();
    assert!(error.contains("variable OTHER is not set"), "{error}");
}

#[tokio::test]
async fn a_file_is_read_if_nobody_else_could_have_written_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let source = format!("file://{}", path.display());
    let error = get(&source).await.unwrap_err();
    assert!(error.contains("cannot read"), "{error}");
    fs::write(&path, format!("{VALUE}\n")).unwrap();
    for (mode, fits) in [(0o600, true), (0o644, true), (0o620, false), (0o602, false)] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let got = get(&source).await;
        assert_eq!(got.is_ok(), fits, "{mode:o} {got:?}");
        if let Err(error) = got {
            assert!(
                error.contains("chmod go-w") && !error.contains("sesame"),
                "{error}"
            );
        }
    }
    let error = get(&format!("file://{}", dir.path().display()))
        .await
        .unwrap_err();
    assert!(error.contains("not a regular file"), "{error}");
    let pipe = dir.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    let error = get(&format!("file://{}", pipe.display()))
        .await
        .unwrap_err();
    assert!(error.contains("not a regular file"), "{error}");
}

#[tokio::test]
async fn what_is_too_long_or_no_value_is_said_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let source = format!("file://{}", path.display());
    let write = |text: &str| {
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    write(&format!("{}\r\n", "x".repeat(MAX_VALUE_BYTES)));
    assert_eq!(get(&source).await.unwrap().len(), MAX_VALUE_BYTES);
    for text in ["x".repeat(MAX_VALUE_BYTES + 1), "x".repeat(1 << 20)] {
        write(&text);
        let error = get(&source).await.unwrap_err();
        assert!(
            error.contains("longer than") && error.len() < 300,
            "{error}"
        );
    }
    write("two words-sesame");
    let error = get(&source).await.unwrap_err();
    assert!(
        error.contains("visible ASCII") && !error.contains("sesame"),
        "{error}"
    );
}

#[tokio::test]
async fn a_program_prints_the_value_and_gets_its_arguments_and_our_environment() {
    let dir = tempfile::tempdir().unwrap();
    let source = script(
        dir.path(),
        r#"test -n "$PATH" && echo "$1-$2-0123456789"; echo noise >&2"#,
    );
    assert_eq!(
        get(&format!("{source} a b")).await.unwrap(),
        "a-b-0123456789"
    );
}

#[tokio::test]
async fn a_program_that_fails_is_heard_on_stderr_and_never_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let source = script(
        dir.path(),
        &format!("echo {VALUE}; printf 'locked\\033[2J' >&2; exit 3"),
    );
    let error = get(&source).await.unwrap_err();
    assert!(error.contains("exit status: 3"), "{error}");
    assert!(error.contains("locked\\u{1b}[2J"), "{error}");
    assert!(!error.contains("sesame"), "{error}");
    let source = script(
        dir.path(),
        &format!("echo {VALUE}; echo oops {VALUE} >&2; exit 1"),
    );
    let error = get(&source).await.unwrap_err();
    assert!(
        !error.contains("sesame") && error.contains("are not shown"),
        "{error}"
    );
    let source = script(
        dir.path(),
        "head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1",
    );
    let error = get(&source).await.unwrap_err();
    assert!(
        error.matches('x').count() < 3 * MAX_STDERR_BYTES,
        "{}",
        error.len()
    );
    let error = get("exec:///no/such/program").await.unwrap_err();
    assert!(error.contains("cannot run /no/such/program"), "{error}");
}

#[tokio::test]
async fn a_program_is_bounded_in_bytes_and_time() {
    let dir = tempfile::tempdir().unwrap();
    let source = script(dir.path(), "head -c 10000000 /dev/zero | tr '\\0' x");
    let error = get(&source).await.unwrap_err();
    assert!(error.contains("longer than"), "{error}");
    let source = script(dir.path(), "exec sleep 60").parse().unwrap();
    let began = Instant::now();
    let error = fetch(&source, None, &host(&|_| None, Duration::from_millis(200)))
        .await
        .unwrap_err();
    assert!(matches!(error, SourceError::Deadline { .. }), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_program_may_say_when_its_value_ends_as_kubernetes_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let printed = |what: &str| script(dir.path(), &format!("cat <<'END'\n{what}\nEND\n"));
    let text = format!(
        r#"{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"{VALUE}","expirationTimestamp":"2030-01-02T03:04:05Z"}}}}"#
    );
    let source = printed(&text).parse().unwrap();
    let env = |_: &str| None;
    let got = fetch(&source, None, &host(&env, Duration::from_secs(5)))
        .await
        .unwrap();
    assert_eq!(got.value.expose(), VALUE.as_bytes());
    assert_eq!(got.expires, Some(1_893_553_445));
    let error = get(&printed(r#"{"kind":"ExecCredential","status":{}}"#))
        .await
        .unwrap_err();
    assert!(error.contains("it has no status.token"), "{error}");
    // What only looks like it is a value like any other.
    let other = r#"{"kind":"Other","token":"sesame"}"#;
    assert_eq!(get(&printed(other)).await.unwrap(), other);
}

#[tokio::test]
async fn op_is_run_from_path_with_the_reference_alone() {
    let dir = tempfile::tempdir().unwrap();
    let op = dir.path().join("op");
    fs::write(
        &op,
        format!("#!/bin/sh\n[ \"$*\" = 'read --no-newline op://Engineering/npm token/password' ] && printf %s {VALUE}\n"),
    )
    .unwrap();
    fs::set_permissions(&op, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("relative:{}:/nowhere", dir.path().display());
    let env = |name: &str| (name == "PATH").then(|| path.clone().into());
    let source = "op://Engineering/npm token/password".parse().unwrap();
    let got = fetch(&source, None, &host(&env, Duration::from_secs(5)))
        .await
        .unwrap();
    assert_eq!(got.value.expose(), VALUE.as_bytes());
    let error = get("op://Engineering/npm/password").await.unwrap_err();
    assert!(
        error.contains("op is not on PATH; install the 1Password"),
        "{error}"
    );
}

#[tokio::test]
async fn standard_input_that_is_somebody_elses_is_left_alone() {
    let error = get("stdin").await.unwrap_err();
    assert!(error.contains("it is the test's"), "{error}");
}
