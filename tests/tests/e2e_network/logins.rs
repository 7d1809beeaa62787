//! Sources that are logged in to first, by a person in a browser (GitHub's device flow) or with a token of another service's (Vault's
//! JWT): what comes of them arrives at the server in its field, and is nowhere inside.

use std::process::Command;

use agentcontainer_tests::outcome::{DEADLINE, finish};
use agentcontainer_tests::place::token;
use agentcontainer_tests::scripted::Scripted;
use agentcontainer_tests::{Outcome, Workspace, docker};
use serde_json::{Value, json};

use crate::sources::{arrived, curl, granted, value};
use crate::standard::{name, standard};

const SHOWN: &str = "credential github: open https://github.test/login/device and enter WDJB-MJHT";
const TOKEN: &str = "POST /login/oauth/access_token";

/// GitHub, as far as a device flow goes: what it answers each time that it is asked for the token.
fn github(answers: &[Value]) -> Scripted {
    let started = json!({
        "device_code": "dev1ce", "user_code": "WDJB-MJHT", "verification_uri": "https://github.test/login/device",
        "expires_in": 900, "interval": 1,
    });
    let answers: Vec<Value> = answers.iter().map(|body| json!([200, body])).collect();
    let answers = json!({ "POST /login/device/code": [[200, started]], (TOKEN): answers });
    Scripted::start(&standard().ca, &answers)
}

/// The request with what stands for the value, and a note of all that programs inside can see of each other's environment.
fn prepare(workspace: &Workspace, host: &str) {
    let look = "cat /proc/self/environ /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' >seen";
    workspace.put("ask.sh", format!("{look}\n{}", curl(host)));
}

/// What the program noted has the variable, and not the value.
#[track_caller]
fn is_nowhere_inside(workspace: &Workspace, value: &str) {
    let seen = std::fs::read_to_string(workspace.path().join("seen")).unwrap();
    assert!(seen.contains("GITHUB_TOKEN=") && !seen.contains(value));
}

/// The CLI with these words at a terminal; what was written there is its output.
fn at_a_terminal(workspace: &Workspace, words: &str) -> Outcome {
    let binary = workspace.command(["run"]).get_program().to_owned();
    let line = format!("{} {words}", binary.display());
    let mut script = Command::new("script");
    workspace.environment(&mut script);
    script
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env("NO_COLOR", "1");
    finish(script, DEADLINE)
}

fn lines(heard: &[Value]) -> Vec<&str> {
    heard
        .iter()
        .map(|one| one["line"].as_str().unwrap())
        .collect()
}

#[test]
fn a_person_is_shown_where_to_grant_a_token_and_it_arrives_in_its_field() {
    let (host, value) = (name(), value());
    let github = github(&[
        json!({ "error": "authorization_pending" }),
        json!({ "access_token": value, "token_type": "bearer" }),
    ]);
    let source = format!(
        "github-device://localhost:{}/Iv1.test?scope=repo",
        github.port
    );
    let workspace = granted(&host, &source);
    prepare(&workspace, &host);
    // Where nobody would see it, nobody is asked.
    let words = "a person has to grant it in a browser; run it on a terminal";
    workspace.run(&["sh", "ask.sh"]).status(125).says(words);
    workspace
        .cli(&["credential", "test", "github"])
        .status(1)
        .says(words);
    assert!(lines(&github.heard()).is_empty());

    let out = at_a_terminal(&workspace, "run --lock --yes -- sh ask.sh </dev/null");
    out.status(0).prints(SHOWN);
    assert_eq!(
        out.stdout.trim().lines().last(),
        Some("200"),
        "{}",
        out.stdout
    );
    assert!(!out.stdout.contains(&value));
    arrived(&host, &value);
    is_nowhere_inside(&workspace, &value);
    let heard = github.heard();
    assert_eq!(lines(&heard), ["POST /login/device/code", TOKEN, TOKEN]);
    assert_eq!(heard[0]["body"], "client_id=Iv1.test&scope=repo");
    let polled = heard[2]["body"].as_str().unwrap();
    assert!(polled.contains("device_code=dev1ce"), "{polled}");

    let out = at_a_terminal(&workspace, "credential test github");
    out.status(0).prints(SHOWN).prints("github: resolves");
    assert!(!out.stdout.contains(&value));
    assert_eq!(lines(&github.heard()), ["POST /login/device/code", TOKEN]);
    // A list asks nobody for anything.
    at_a_terminal(&workspace, "credential list")
        .status(0)
        .prints(words);
    assert!(lines(&github.heard()).is_empty());
}

#[test]
fn what_a_person_refuses_in_the_browser_is_one_error_and_nothing_is_started() {
    let host = name();
    for (answer, words) in [
        ("access_denied", "the person refused it"),
        ("device_flow_disabled", "has no device flow"),
    ] {
        let github = github(&[json!({ "error": answer })]);
        let workspace = granted(
            &host,
            &format!("github-device://localhost:{}/Iv1.test", github.port),
        );
        prepare(&workspace, &host);
        let session = token("d");
        let run = format!("run --lock --yes --name {session} -- sh ask.sh </dev/null");
        for (line, status) in [(&*run, 125), ("credential test github", 1)] {
            let out = at_a_terminal(&workspace, line);
            out.status(status)
                .prints(SHOWN)
                .prints(words)
                .prints("credential github cannot be had");
            assert_eq!(out.stdout.matches("error:").count(), 1, "{}", out.stdout);
        }
        let made = docker::run(&["ps", "--all", "--format", "{{.Names}} {{.Labels}}"]);
        assert!(!made.contains(&session), "{made}");
        assert!(!workspace.path().join("seen").exists());
    }
    assert!(standard().requests(&host).is_empty());
}

#[test]
fn vault_takes_a_jwt_for_a_token_of_its_own_and_what_it_holds_arrives() {
    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJjaSJ9.c2lnbmF0dXJl";
    let value = value();
    let mount =
        json!({ "data": { "path": "secret/", "type": "kv", "options": { "version": "2" } } });
    let logged_in = json!([[200, { "auth": { "client_token": "t0ken" } }]]);
    let vault = Scripted::start(
        &standard().ca,
        &json!({
            "POST /v1/auth/jwt/login": logged_in,
            "POST /v1/auth/ci/login": logged_in,
            "POST /v1/auth/other/login": [[400, { "errors": ["invalid role name"] }]],
            "GET /v1/sys/internal/ui/mounts/secret/team/github": [[200, mount]],
            "GET /v1/secret/data/team/github": [[200, { "data": { "data": { "token": value } } }]],
        }),
    );
    let source = format!("vault://localhost:{}/secret/team/github#token", vault.port);
    let run = |workspace: &Workspace, words: &[&str], env: &[(&str, &str)]| {
        let mut command = workspace.command(words);
        command.envs(env.iter().copied());
        finish(command, DEADLINE)
    };
    let ask = ["run", "--yes", "--", "sh", "ask.sh"];
    let test = ["credential", "test", "github"];
    for mount in ["jwt", "ci"] {
        let host = name();
        let workspace = granted(&host, &source);
        prepare(&workspace, &host);
        let file = workspace.put_outside("jwt", format!("{JWT}\n"));
        let file = file.display().to_string();
        let env = match mount {
            "jwt" => [
                ("VAULT_ROLE", "builds"),
                ("VAULT_JWT_FILE", &*file),
                ("VAULT_AUTH_MOUNT", mount),
            ],
            _ => [
                ("VAULT_ROLE", "builds"),
                ("VAULT_JWT", JWT),
                ("VAULT_AUTH_MOUNT", mount),
            ],
        };
        for words in [&test[..], &ask] {
            let out = run(&workspace, words, &env);
            out.status(0);
            assert!(!format!("{out:?}").contains(&value), "{words:?}");
            let heard = vault.heard();
            let login = format!("POST /v1/auth/{mount}/login");
            assert_eq!(lines(&heard)[0], login);
            let said: Value = serde_json::from_str(heard[0]["body"].as_str().unwrap()).unwrap();
            assert_eq!(said, json!({ "jwt": JWT, "role": "builds" }));
            assert_eq!(
                lines(&heard).last(),
                Some(&"GET /v1/secret/data/team/github")
            );
            assert!(
                heard[1..]
                    .iter()
                    .all(|one| one["headers"]["x-vault-token"] == "t0ken")
            );
        }
        arrived(&host, &value);
        is_nowhere_inside(&workspace, &value);
        is_nowhere_inside(&workspace, JWT);
    }
    let host = name();
    let workspace = granted(&host, &source);
    prepare(&workspace, &host);
    let env = [
        ("VAULT_ROLE", "none"),
        ("VAULT_JWT", JWT),
        ("VAULT_AUTH_MOUNT", "other"),
    ];
    for (words, status) in [(&ask[..], 125), (&test, 1)] {
        let out = run(&workspace, words, &env);
        out.status(status).says(
            "it refused the login (400: invalid role name); look at VAULT_JWT and VAULT_ROLE",
        );
        assert_eq!(out.stderr.matches("error:").count(), 1, "{}", out.stderr);
        assert!(!format!("{out:?}").contains(JWT));
    }
    assert!(!workspace.path().join("seen").exists());
    assert!(standard().requests(&host).is_empty());
}
