//! `run AGENT` with and without a config: what is reviewed, what is installed, what is inside, and what the model's API is told.

use agentcontainer_tests::{Outcome, docker};
use serde_json::{Value, json};

use crate::rig::{FAKE, IMAGE, desk, image_with_agent, key, shared};

/// What the agent said of its surroundings, and the lines behind it.
fn said(out: &Outcome) -> (Value, Vec<&str>) {
    let mut lines = out.ok().lines();
    let first = lines.next().unwrap_or_default();
    let of_agent = serde_json::from_str(first).unwrap_or_else(|_| panic!("{out:?}"));
    (of_agent, lines.collect())
}

/// The keys that the model's API was sent.
fn keys_heard() -> Vec<String> {
    let heard = shared().services.requests("api.anthropic.com");
    let key = |one: &Value| {
        one["headers"]["x-api-key"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    heard.iter().map(key).collect()
}

#[test]
fn an_agent_that_the_image_has_runs_with_the_config_and_what_its_profile_adds() {
    let (key, image) = (key(), image_with_agent());
    let desk = desk();
    let config = json!({ "image": image, "agent": { "capabilities": { "network": { "egress": { "allowedDomains": ["docs.test"] } } } } });
    desk.workspace
        .put("agentcontainer.json", config.to_string());

    // Nobody approved it: every line of the profile is named, with its origin.
    let asked = desk.cli(Some(&key), &["run", "claude", "--", "-p", "hello"]);
    asked
        .status(125)
        .says("reach docs.test:443 (https)")
        .says("reach api.anthropic.com:443 (https; profile claude)")
        .says("grant the credential anthropic, from env://ANTHROPIC_API_KEY, to api.anthropic.com:443 (profile claude)")
        .says("set DISABLE_AUTOUPDATER=1 (profile claude)")
        .says("volume");
    assert!(keys_heard().is_empty() && desk.volumes().is_empty());

    let plan = desk.cli(Some(&key), &["run", "--plan", "claude"]);
    plan.status(0)
        .prints("api.anthropic.com")
        .prints("agentcontainer-agent-claude-");
    let shown = desk.cli(Some(&key), &["policy", "show", "--agent", "claude"]);
    shown.status(0).prints("profile claude").prints("docs.test");

    let out = desk.cli(Some(&key), &["run", "--yes", "claude", "--", "-p", "hello"]);
    out.says("anthropic for api.anthropic.com (ANTHROPIC_API_KEY holds a placeholder)");
    let (agent, rest) = said(&out);
    assert_eq!(agent["arguments"], json!(["-p", "hello"]));
    let inside = agent["key"].as_str().unwrap();
    assert!(
        inside.starts_with("sk-ant-api03-") && inside.len() == key.len() && inside != key,
        "{inside}"
    );
    assert!(
        agent["instructions"]
            .as_str()
            .unwrap()
            .contains("http://agentcontainer.internal/")
    );
    assert_eq!(
        (&agent["updates"], &agent["before"]),
        (&json!("1"), &json!("ENOENT"))
    );
    assert!(
        agent["settings"]
            .as_str()
            .unwrap()
            .contains("hasCompletedOnboarding")
    );
    assert_eq!(rest, ["EACCES", "200 true", "registry 403"]);
    assert_eq!(keys_heard(), std::slice::from_ref(&key));
    assert!(!format!("{out:?}").contains(&key));

    // Approved once, and its state is there again.
    let again = desk.cli(Some(&key), &["run", "claude"]);
    assert_eq!(said(&again).0["before"], "here");
    // What was granted is on record, and is asked for again once it was taken back.
    desk.workspace
        .cli(&["grant", "--list"])
        .status(0)
        .prints("anthropic");
    desk.workspace
        .cli(&["grant", "--revoke", "anthropic"])
        .status(0);
    let revoked = desk.cli(Some(&key), &["run", "claude"]);
    revoked
        .status(125)
        .says("asks for more than was approved")
        .says("grant the credential anthropic");
    desk.cli(None, &["run", "claude"])
        .status(125)
        .says("needs a credential");
    // Without the agent nothing of it was approved, and nothing of it is there.
    desk.cli(Some(&key), &["run", "--", "true"])
        .status(125)
        .says("docs.test");
    let without = desk.cli(
        Some(&key),
        &[
            "run",
            "--yes",
            "--",
            "sh",
            "-c",
            "printenv ANTHROPIC_API_KEY CLAUDE_CONFIG_DIR",
        ],
    );
    assert_eq!((without.status, without.stdout.as_str()), (1, ""));
    drop(desk);
    docker::run(&["rmi", &image]);
}

#[test]
fn without_a_config_one_review_installs_the_agent_and_runs_it() {
    let key = key();
    let desk = desk();
    std::fs::write(desk.path().join("file"), "").unwrap();
    let run = |more: &[&str]| {
        let mut words = vec!["run"];
        words.extend(more);
        words.extend([
            "--image",
            IMAGE,
            "--agent-version",
            FAKE,
            "claude",
            "--",
            "-p",
            "hello",
        ]);
        desk.cli(Some(&key), &words)
    };
    run(&[])
        .status(125)
        .says("image agentcontainer-agents:latest")
        .says("install @anthropic-ai/claude-code 0.0.1 from https://npm.registry.test/")
        .says("reaches npm.registry.test:443 alone");
    run(&["--yes", "--offline"])
        .status(125)
        .says("`--offline` asks no registry for it");
    assert!(shared().services.requests("npm.registry.test").is_empty());

    let out = run(&["--yes"]);
    let (agent, rest) = said(&out);
    assert_eq!(agent["directory"], "/workspaces/ws");
    assert_ne!(agent["key"], json!(key));
    // The program cannot be written, and the registry is not reached from where the agent is.
    assert_eq!(rest, ["EROFS", "200 true", "registry 403"]);
    assert_eq!(keys_heard(), std::slice::from_ref(&key));
    let asked: Vec<String> = shared()
        .services
        .requests("npm.registry.test")
        .iter()
        .map(|one| format!("{} {}", one["path"], one["headers"]["x-api-key"]))
        .collect();
    assert_eq!(asked.len(), 2, "{asked:?}");

    // Nothing is asked and nothing installed a second time, and nothing was written into the repository.
    let again = run(&[]);
    assert_eq!(said(&again).0["before"], "here");
    assert_eq!(said(&run(&["--offline"])).0["before"], "here");
    assert_eq!(shared().services.requests("npm.registry.test").len(), 2);
    assert_eq!(desk.volumes().len(), 2);
    let left: Vec<_> = std::fs::read_dir(desk.path())
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    assert_eq!(left, ["file"]);

    // A volume that was taken away is not taken for the one that was filled.
    for volume in desk.volumes() {
        docker::run(&["volume", "rm", &volume]);
    }
    let anew = run(&[]);
    assert_eq!(said(&anew).0["before"], "ENOENT");
    assert_eq!(shared().services.requests("npm.registry.test").len(), 4);
}

#[test]
fn what_keeps_an_agent_from_running_is_said_before_anything_is_started() {
    let desk = desk();
    let run = |key: Option<&str>, words: &[&str]| {
        let mut all = vec!["run", "--yes"];
        all.extend(words);
        desk.cli(key, &all)
    };
    let key = key();
    run(None, &["cluade"])
        .status(125)
        .says("did you mean claude?")
        .says("shell");
    run(None, &["claude", "--image", IMAGE])
        .status(125)
        .says("ANTHROPIC_API_KEY")
        .says("[credentials.anthropic]");
    run(
        Some(&key),
        &["claude", "--image", IMAGE, "--agent-version", "latest"],
    )
    .status(125)
    .says("exact version");
    run(
        Some(&key),
        &["claude", "--image", "agentcontainer-test:latest"],
    )
    .status(125)
    .says("neither claude nor npm");
    run(
        Some(&key),
        &["claude", "--image", IMAGE, "--agent-version", "9.9.9"],
    )
    .status(125)
    .says("npm could not install @anthropic-ai/claude-code 9.9.9");
    desk.workspace.put(".npmrc", "registry=http://evil.test/\n");
    run(
        Some(&key),
        &["claude", "--image", IMAGE, "--agent-version", FAKE],
    )
    .status(125)
    .says("http://evil.test/ cannot be used");
    std::fs::remove_file(desk.path().join(".npmrc")).unwrap();
    // What the workspace denies stays denied.
    let config = json!({ "image": IMAGE, "agent": { "capabilities": { "network": { "egress": { "deniedDomains": ["api.anthropic.com"] } } } } });
    desk.workspace
        .put("agentcontainer.json", config.to_string());
    run(Some(&key), &["claude"])
        .status(125)
        .says("api.anthropic.com");
    assert!(keys_heard().is_empty());
}
