//! A credential's value stays on the host's side of everything: inside there is a placeholder, and whoever looks finds nothing else.

use std::fs;
use std::path::{Path, PathBuf};

use agentcontainer_tests::docker;
use agentcontainer_tests::place::token;
use agentcontainer_tests::workspace::Session;
use agentcontainer_tests::{Outcome, Workspace};
use serde_json::{Value, json};

/// Of the shape of a key, and found nowhere else.
fn value() -> String {
    let random = token("").replace(|c: char| !c.is_ascii_alphanumeric(), "");
    format!("ghp_{:Z<36}", format!("{random}AbCdEfGhIjKlMnOpQrStUvWx"))
}

/// One that is granted one credential from a file that holds `value`.
fn workspace(value: &str) -> Workspace {
    let workspace = Workspace::new().allow(&["api.test"]).credential(
        "github",
        json!({ "hosts": ["api.test"], "env": "GITHUB_TOKEN" }),
    );
    let path = workspace.put_outside("token", format!("{value}\n"));
    let lines = format!(
        "source = \"file://{}\"\nhosts = [\"*.corp.test\", \"api.test\"]",
        path.display()
    );
    workspace.grant("github", &lines)
}

/// Where inside these words are: files that can be read, environments and command lines. They travel in two halves, so that
/// nothing holds them but what they are found in.
pub fn places_inside(session: &Session<'_>, words: &str) -> Vec<String> {
    let (one, two) = words.split_at(words.len() / 2);
    let found = session.inside(&format!(
        "printf '%s%s\\n' '{one}' '{two}' | grep -slaF -f - /proc/[0-9]*/environ /proc/[0-9]*/cmdline
         printf '%s%s\\n' '{one}' '{two}' | grep -rslaF --exclude-dir=proc --exclude-dir=sys -f - /
         true"
    ));
    found.ok().lines().map(str::to_owned).collect()
}

/// Files below a directory that hold these words.
pub fn files_with(dir: &Path, words: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            out.extend(files_with(&path, words));
        } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let bytes = fs::read(&path).unwrap_or_default();
            if bytes
                .windows(words.len())
                .any(|part| part == words.as_bytes())
            {
                out.push(path);
            }
        }
    }
    out
}

#[test]
fn the_value_is_nowhere_inside_and_its_placeholder_is_where_it_belongs() {
    for user in ["agent", "root"] {
        let (value, name) = (value(), token("c"));
        let workspace = workspace(&value).key("containerUser", json!(user)).key(
            "postCreateCommand",
            json!("printenv GITHUB_TOKEN >/tmp/at-creation"),
        );
        let session = workspace.session(&name);
        let placeholder = session.exec(&["printenv", "GITHUB_TOKEN"]).ok().to_owned();
        assert_eq!(placeholder.len(), value.len());
        assert!(
            placeholder.starts_with("ghp_") && placeholder != value,
            "{placeholder}"
        );
        assert_eq!(session.exec(&["cat", "/tmp/at-creation"]).ok(), placeholder);

        assert_eq!(
            places_inside(&session, &value),
            Vec::<String>::new(),
            "{user}"
        );
        // The same search finds what there is.
        let there = places_inside(&session, &placeholder);
        assert!(
            there.iter().any(|place| place.ends_with("/environ")),
            "{there:?}"
        );
        assert!(
            there.iter().any(|place| place == "/tmp/at-creation"),
            "{there:?}"
        );
    }
}

/// Of every container that the engine has.
fn inspected() -> String {
    let containers = docker::run(&["ps", "--all", "--quiet"]);
    let mut words = vec!["inspect"];
    words.extend(containers.lines());
    // Those of other tests may have gone meanwhile.
    docker::attempt(&words).stdout
}

/// Fails where the engine, the session's events or a command shows a value while the session runs.
pub fn nothing_shows(workspace: &Workspace, session: &str, value: &str) {
    let events = workspace.events(session).into_iter();
    let events = events.map(|event| event.to_string()).collect();
    let commands: [&[&str]; 5] = [
        &["ps", "--json"],
        &["run", "--plan"],
        &["policy", "show", "--json"],
        &["config", "show", "--effective"],
        &["credential", "list", "--json"],
    ];
    let shown = commands.map(|words| (words.join(" "), workspace.cli(words).stdout));
    let others = [
        ("docker inspect".to_owned(), inspected()),
        ("events".to_owned(), events),
    ];
    for (what, text) in shown.into_iter().chain(others) {
        assert!(!text.is_empty(), "{what}");
        assert!(!text.contains(value), "{what} shows it");
    }
}

#[test]
fn the_value_is_in_nothing_that_is_kept_or_shown_outside() {
    let (value, name) = (value(), token("c"));
    let workspace = workspace(&value);
    let session = workspace.session(&name);
    let placeholder = session.exec(&["printenv", "GITHUB_TOKEN"]).ok().to_owned();
    assert!(
        inspected().contains(&placeholder),
        "the container has no placeholder"
    );
    let plan = workspace.cli(&["run", "--plan"]);
    plan.status(0)
        .prints("a placeholder of github, made at the start");
    nothing_shows(&workspace, &name, &value);
    assert_eq!(files_with(workspace.state(), &value), Vec::<PathBuf>::new());
    assert!(
        !files_with(workspace.state(), &name).is_empty(),
        "the session left no record at all"
    );

    let said = workspace.inside("echo inside: $GITHUB_TOKEN");
    said.status(0)
        .says("github for api.test (GITHUB_TOKEN holds a placeholder)");
    said.prints("inside: ghp_");
    assert!(!format!("{said:?}").contains(&value));
}

fn refused(out: &Outcome, value: &str, words: &[&str]) {
    out.status(125);
    words.iter().for_each(|word| {
        out.says(word);
    });
    assert!(!format!("{out:?}").contains(value), "the value is shown");
    assert!(!out.stdout.contains("started"), "something was run");
}

#[test]
fn without_a_value_or_with_one_on_its_way_inside_nothing_is_started() {
    let value = value();
    let ungranted = Workspace::new()
        .allow(&["api.test"])
        .credential("github", json!({ "env": "GITHUB_TOKEN" }));
    refused(
        &ungranted.inside("echo started"),
        &value,
        &[
            "agentcontainer.json:",
            "grants no credential github",
            "[credentials.github]",
        ],
    );
    // The control: what the others differ from.
    workspace(&value).inside("echo started").prints("started");

    let narrow = workspace(&value).credential("github", json!({ "hosts": ["other.example"] }));
    refused(
        &narrow.inside("echo started"),
        &value,
        &["is asked for other.example:443"],
    );

    let open = workspace(&value);
    open.write();
    let path = open.put_outside("token", &value);
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o622)).unwrap();
    refused(
        &open.inside("echo started"),
        &value,
        &["config.toml:", "chmod go-w"],
    );

    let set = workspace(&value);
    set.write();
    let out = set.cli(&[
        "run",
        "--yes",
        "-e",
        "GITHUB_TOKEN=x",
        "--",
        "echo",
        "started",
    ]);
    refused(
        &out,
        &value,
        &["GITHUB_TOKEN holds the placeholder of credential github"],
    );

    for (key, template) in [
        (
            "containerEnv",
            json!({ "ANOTHER": "token: ${localEnv:THE_VALUE}" }),
        ),
        (
            "postCreateCommand",
            json!("echo ${localEnv:THE_VALUE} >/tmp/x"),
        ),
    ] {
        let exposed = workspace(&value).key(key, template);
        exposed.write();
        let mut command = exposed.command(["run", "--yes", "--", "echo", "started"]);
        command.env("THE_VALUE", &value);
        let out =
            agentcontainer_tests::outcome::finish(command, agentcontainer_tests::outcome::DEADLINE);
        refused(
            &out,
            &value,
            &["the value of credential github would be inside the container"],
        );
    }
}

#[test]
fn credentials_are_listed_and_tried_and_never_shown() {
    let value = value();
    let workspace = workspace(&value)
        .grant(
            "missing",
            "source = \"env://SURELY_NOT_SET\"\nhosts = [\"a.test:8443\"]",
        )
        .grant(
            "program",
            &format!("source = \"exec:///bin/echo {value}\"\nhosts = [\"b.test\"]"),
        );
    workspace.write();
    let listed = workspace.cli(&["credential", "list", "--json"]);
    let all: Vec<Value> = serde_json::from_str(listed.ok()).unwrap();
    let shown: Vec<(&str, &str, bool)> = all
        .iter()
        .map(|one| {
            let text = |key: &str| one[key].as_str().unwrap();
            (
                text("name"),
                text("source"),
                one["resolves"].as_bool().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            ("github", "file", true),
            ("missing", "env", false),
            ("program", "exec", true)
        ]
    );
    assert_eq!(all[1]["hosts"], json!(["a.test:8443"]));
    let table = workspace.cli(&["credential", "list"]);
    table
        .prints("SURELY_NOT_SET is not set here")
        .prints("exec:///bin/echo ");
    workspace
        .cli(&["credential", "test", "github"])
        .status(0)
        .prints("github: resolves");
    workspace
        .cli(&["credential", "test", "missing"])
        .status(1)
        .says("is not set here");
    workspace
        .cli(&["credential", "test", "other"])
        .status(2)
        .says("grants no credential other");
    for out in [
        listed,
        table,
        workspace.cli(&["credential", "test", "program"]),
    ] {
        assert!(!format!("{out:?}").contains(&value), "the value is shown");
    }
}
