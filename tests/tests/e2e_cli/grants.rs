//! A person's word on the host: without it nothing is started, and it holds for the workspace, the name and the hosts it was said
//! for, and for no others.

use agentcontainer_tests::outcome::{DEADLINE, finish};
use agentcontainer_tests::{Outcome, Workspace};
use serde_json::{Value, json};

const VALUE: &str = "ghp_0123456789abcdefghijABCDEFGHIJ012345";

/// Asks for a credential that nobody granted.
fn asking() -> Workspace {
    Workspace::new()
        .allow(&["api.test", "other.test"])
        .credential(
            "github",
            json!({ "hosts": ["api.test"], "env": "GITHUB_TOKEN" }),
        )
}

/// With the variable that the grant names.
fn with_value(workspace: &Workspace, words: &[&str]) -> Outcome {
    let mut command = workspace.command(words);
    command.env("GITHUB_TOKEN", VALUE);
    finish(command, DEADLINE)
}

const RUN: [&str; 6] = ["run", "--yes", "--", "sh", "-c", "echo started"];

#[test]
fn what_nobody_granted_stops_the_start_and_the_command_that_is_named_lets_it_start() {
    let workspace = asking();
    workspace.write();
    let refused = with_value(&workspace, &RUN);
    refused
        .status(125)
        .says("this host grants no credential github");
    assert!(!refused.stdout.contains("started"));
    let named = refused.names_command();
    // Where the value comes from is the person's to say.
    assert_eq!(named, "grant github --source URI --hosts api.test");
    let named = named.replace("URI", "env://GITHUB_TOKEN");
    let words: Vec<&str> = named.split(' ').collect();

    workspace
        .cli(&words)
        .status(0)
        .prints("env://GITHUB_TOKEN for api.test");
    let started = with_value(&workspace, &RUN);
    started
        .status(0)
        .prints("started")
        .says("github for api.test (GITHUB_TOKEN holds a placeholder)");
    assert!(!format!("{started:?}").contains(VALUE));
    // Without the value it says which variable.
    workspace
        .cli(&RUN)
        .status(125)
        .says("the variable GITHUB_TOKEN is not set here");

    let listed: Vec<Value> =
        serde_json::from_str(workspace.cli(&["grant", "--list", "--json"]).ok()).unwrap();
    let here = workspace.path().canonicalize().unwrap();
    let ours: Vec<&Value> = listed
        .iter()
        .filter(|one| one["workspace"] == json!(here))
        .collect();
    assert_eq!(ours.len(), 1);
    assert_eq!(ours[0]["hosts"], json!(["api.test"]));

    workspace.cli(&["grant", "--revoke", "github"]).status(0);
    with_value(&workspace, &RUN)
        .status(125)
        .says("grants no credential github");
    workspace
        .cli(&["grant", "--revoke", "github"])
        .status(125)
        .says("was not granted");
}

#[test]
fn a_review_says_who_granted_what_is_asked() {
    let workspace = asking();
    workspace.write();
    workspace
        .cli(&[
            "grant",
            "github",
            "--source",
            "env://GITHUB_TOKEN",
            "--hosts",
            "api.test",
        ])
        .status(0);
    with_value(&workspace, &["run", "--", "true"])
        .status(125)
        .says("credential github for api.test:443, as GITHUB_TOKEN")
        .says("credential github is granted by `agentcontainer grant`: env://GITHUB_TOKEN for api.test");
}

#[test]
fn a_grant_to_one_workspace_is_not_anothers() {
    let (one, other) = (asking(), asking());
    one.write();
    other.write();
    let words = [
        "grant",
        "github",
        "--source",
        "env://GITHUB_TOKEN",
        "--hosts",
        "api.test",
    ];
    one.cli(&words).status(0);
    with_value(&one, &RUN).status(0).prints("started");
    with_value(&other, &RUN)
        .status(125)
        .says("grants no credential github");
    // From elsewhere it is granted by the workspace's path.
    let path = other.path().display().to_string();
    let mut from_elsewhere = words.to_vec();
    from_elsewhere.extend(["--workspace", &path]);
    one.cli(&from_elsewhere).status(0);
    with_value(&other, &RUN).status(0).prints("started");
}

#[test]
fn a_workspace_that_widens_its_hosts_gets_no_more() {
    let narrow = asking();
    narrow.write();
    narrow
        .cli(&[
            "grant",
            "github",
            "--source",
            "env://GITHUB_TOKEN",
            "--hosts",
            "api.test",
        ])
        .status(0);
    with_value(&narrow, &RUN).status(0);
    let wide = narrow.credential(
        "github",
        json!({ "hosts": ["api.test", "other.test"], "env": "GITHUB_TOKEN" }),
    );
    wide.write();
    let refused = with_value(&wide, &RUN);
    refused
        .status(125)
        .says("credential github is asked for other.test:443")
        .says("agentcontainer grant github --hosts api.test:443,other.test:443");
    // Without hosts of its own it has those of the grant and no others.
    let open = wide.credential("github", json!({ "env": "GITHUB_TOKEN" }));
    open.write();
    with_value(&open, &RUN)
        .status(0)
        .says("github for api.test (GITHUB_TOKEN holds a placeholder)");
}

#[test]
fn what_is_no_grant_is_refused_and_what_may_be_the_value_is_not_repeated() {
    let workspace = asking();
    workspace.write();
    for (words, said) in [
        (
            vec!["grant", "github", "--hosts", "api.test", "--source", VALUE],
            "expected env://VARIABLE",
        ),
        (
            vec!["grant", "github", "--source", "env://X"],
            "which hosts may see github was not said",
        ),
        (
            vec!["grant", "github", "--hosts", "api.test"],
            "--source env://GITHUB_TOKEN",
        ),
        (
            vec!["grant", "github", "--source", "env://X", "--hosts", "*.com"],
            "*.com",
        ),
        (
            vec![
                "grant", "git hub", "--source", "env://X", "--hosts", "a.test",
            ],
            "letters, digits",
        ),
        (
            vec![
                "grant", "github", "--source", "env://X", "--hosts", "a.test", "--format", VALUE,
            ],
            "exactly one {}",
        ),
        (
            vec![
                "grant", "github", "--source", "env://X", "--hosts", "a.test", "--header", "Host",
            ],
            "frames the request",
        ),
    ] {
        let out = workspace.cli(&words);
        out.status(125).says(said);
        assert!(!format!("{out:?}").contains(VALUE), "{out:?}");
    }
    let listed = workspace.cli(&["credential", "list", "--json"]);
    assert_eq!(listed.ok(), "[]");
}

#[test]
fn grants_that_are_made_at_once_are_all_there() {
    let workspace = asking();
    workspace.write();
    let children: Vec<_> = (0..12)
        .map(|i| {
            let name = format!("n{i}");
            workspace.spawn(&[
                "grant",
                &name,
                "--source",
                "env://A_TOKEN",
                "--hosts",
                "api.test",
            ])
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let listed = workspace.cli(&["credential", "list", "--json"]);
    let all: Vec<Value> = serde_json::from_str(listed.ok()).unwrap();
    assert_eq!(all.len(), 12);
}

#[test]
fn the_paths_and_methods_of_a_grant_stay_until_they_are_taken_back() {
    let workspace = asking();
    workspace.write();
    let grant = |more: &[&str]| {
        let mut words = vec![
            "grant",
            "github",
            "--source",
            "env://GITHUB_TOKEN",
            "--hosts",
            "api.test",
        ];
        words.extend(more);
        workspace.cli(&words).status(0);
        let listed: Vec<Value> =
            serde_json::from_str(workspace.cli(&["grant", "--list", "--json"]).ok()).unwrap();
        let here = json!(workspace.path().canonicalize().unwrap());
        let ours = listed.iter().find(|one| one["workspace"] == here);
        let ours = ours.unwrap();
        json!([ours["paths"], ours["methods"]])
    };
    let both = json!([["/user", "/repos/**"], ["GET", "HEAD"]]);
    let first = ["--paths", "/user,/repos/**", "--methods", "GET,HEAD"];
    assert_eq!(grant(&first), both);
    assert_eq!(grant(&[]), both);
    let methods = json!([[], ["GET", "HEAD"]]);
    assert_eq!(grant(&["--own-repository"]), methods);
    assert_eq!(grant(&["--methods", "*"]), json!([[], []]));
    workspace
        .cli(&["grant", "github", "--methods", "get"])
        .status(125)
        .says("a word in upper case");
}
