//! A GitHub credential is for the repository that the workspace's remote names, by paths at GitHub's hosts, unless the person says others.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::outcome::on_host;
use agentcontainer_tests::place::token;
use serde_json::{Value, json};

use crate::standard::{standard, workspace};

const VALUE: &str = "ghp_ThisIsNoTokenOfAnybodys0123456789AbC";

/// Of the requests for a path, those that had the value.
fn told(path: &str) -> Vec<bool> {
    let heard = ["github.com", "api.github.com"].map(|host| standard().requests(host));
    let of_path = |one: &&Value| {
        one["path"]
            .as_str()
            .is_some_and(|said| said.starts_with(path))
    };
    heard
        .iter()
        .flatten()
        .filter(of_path)
        .map(|one| one["headers"].to_string().contains(VALUE))
        .collect()
}

/// Two repositories of one owner where the servers find them, and a workspace whose remote is the first.
fn cloned(owner: &str) -> Workspace {
    let root = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(owner);
    std::fs::create_dir(&root).unwrap();
    on_host(
        &root,
        "git init -q -b main work; cd work; echo content >file; git add file; git -c user.name=t -c user.email=t@t commit -qm first
         for name in widget other; do git clone -q --bare . ../$name.git; git -C ../$name.git update-server-info; done",
    );
    let workspace = workspace()
        .allow(&["github.com", "api.github.com"])
        .credential("github", json!({ "env": "GITHUB_TOKEN" }));
    on_host(
        &workspace.path(),
        &format!(
            "git init -q; git remote add origin git@github.com:{owner}/widget.git; chown -R 1000:1000 ."
        ),
    );
    let file = workspace.put_outside("token", VALUE);
    workspace.grant("github", &format!("source = \"file://{}\"", file.display()))
}

fn ask(path: &str) -> String {
    format!(
        "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 -X PUT -d x -H \"Authorization: Bearer $GITHUB_TOKEN\" --path-as-is 'https://api.github.com{path}'\n"
    )
}

#[test]
fn a_github_credential_goes_to_the_workspaces_own_repository_alone() {
    let owner = token("o");
    let workspace = cloned(&owner);
    let clone = |name: &str| {
        format!(
            "git -c http.extraHeader=\"Authorization: Bearer $GITHUB_TOKEN\" clone -q https://github.com/{owner}/{name}.git /tmp/{name} 2>&1 && cat /tmp/{name}/file; "
        )
    };
    let api = [
        format!("/repos/{owner}/widget/pulls"),
        format!("/repos/{owner}/other/pulls"),
        format!("/repos/{owner}/widget/../other/pulls"),
        format!("/repos/{owner}/widget/%2e%2e/other/pulls"),
        "/user".to_owned(),
        format!("/graphql?{owner}"),
    ];
    let script = format!(
        "export GIT_TERMINAL_PROMPT=0; {}{}",
        clone("widget"),
        api.iter().map(|path| ask(path)).collect::<String>()
    );
    let out = workspace.inside(&script);
    let lines: Vec<&str> = out.stdout.lines().map(str::trim).collect();
    let refused = "403 credential-elsewhere";
    assert_eq!(
        lines,
        [
            "content", "200", refused, refused, refused, refused, refused
        ],
        "{}",
        out.stderr
    );
    let other = workspace.inside(&format!(
        "export GIT_TERMINAL_PROMPT=0; {} echo refused",
        clone("other")
    ));
    assert!(
        other.stdout.contains("refused") && !other.stdout.contains("content"),
        "{}",
        other.stdout
    );
    let own = told(&format!("/{owner}/widget.git/"));
    assert!(!own.is_empty() && own.iter().all(|told| *told));
    assert_eq!(told(&format!("/repos/{owner}/widget/pulls")), [true]);
    for path in [
        format!("/{owner}/other"),
        format!("/repos/{owner}/other"),
        format!("/graphql?{owner}"),
    ] {
        assert!(told(&path).is_empty(), "{path}");
    }
    let shown = format!("api.github.com:443 (/repos/{owner}/widget/**)");
    workspace.cli(&["policy", "show"]).status(0).prints(&shown);
    workspace
        .cli(&["credential", "list"])
        .status(0)
        .prints(&shown);
    // The control: the person says that it is for everything.
    workspace
        .cli(&["grant", "github", "--paths", "/**"])
        .status(0)
        .prints("api.github.com (/**)");
    let script = format!(
        "export GIT_TERMINAL_PROMPT=0; {}{}",
        clone("other"),
        ask(&api[5])
    );
    assert_eq!(workspace.inside(&script).ok(), "content\n200");
    assert!(told(&format!("/{owner}/other.git/")).contains(&true));
}

#[test]
fn without_a_remote_on_github_a_github_credential_is_for_nothing_until_the_person_says_what_for() {
    let owner = token("o");
    let workspace = cloned(&owner);
    let origin =
        |words: &str| on_host(&workspace.path(), &format!("{words}; chown -R 1000:1000 ."));
    for (words, what) in [
        // What a configuration includes or rewrites counts for nothing.
        (
            "git remote set-url origin https://git.test/a/b; git config url.https://github.com/.insteadOf https://git.test/",
            "is a/b on git.test",
        ),
        (
            "git remote remove origin; printf '[remote \"origin\"]\\n\\turl = https://github.com/a/b\\n' >.git/more; git config include.path more",
            "has no remote `origin`",
        ),
        (
            "git config --unset include.path; git config remote.origin.url https://github.com/a/b; git config --add remote.origin.url https://github.com/a/c",
            "has no remote `origin`",
        ),
    ] {
        origin(words);
        workspace
            .run(&["true"])
            .status(125)
            .says("[credential-scope]")
            .says(what)
            .says("--paths '/**'");
    }
    let paths = format!("/repos/{owner}/**,/{owner}/**");
    workspace
        .cli(&["grant", "github", "--paths", &paths])
        .status(0);
    let asked = ask(&format!("/repos/{owner}/other/pulls"));
    assert_eq!(workspace.inside(&asked).ok(), "200");
}

#[test]
fn another_remote_is_another_question() {
    let owner = token("o");
    let workspace = cloned(&owner);
    workspace.write();
    workspace
        .cli(&["run", "--", "true"])
        .status(125)
        .says(
            "credential github for the repository that the remote origin names: api.github.com:443",
        )
        .says(&format!("/repos/{owner}/widget/**"));
    workspace.run(&["true"]).status(0);
    workspace.cli(&["run", "--", "true"]).status(0);
    on_host(
        &workspace.path(),
        &format!(
            "git remote set-url origin https://github.com/{owner}/other; chown -R 1000:1000 ."
        ),
    );
    workspace
        .cli(&["run", "--", "true"])
        .status(125)
        .says("nobody approved this")
        .says(&format!("/repos/{owner}/other/**"));
}
