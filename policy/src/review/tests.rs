#![allow(clippy::unwrap_used)]
use super::*;

fn review(text: &str) -> Review {
    Review::of(&schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap())
}

fn egress(egress: &str) -> Review {
    review(&format!(
        r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "network": {{ "egress": {{ {egress} }} }} }} }} }}"#
    ))
}

const FULL: &str = r#"{
  "image": "ghcr.io/my-org/agent:1",
  "containerUser": "root",
  "containerEnv": { "TOKEN": "${localEnv:GH_TOKEN}" },
  "remoteEnv": { "PATH": "${containerEnv:PATH}:/x", "GONE": null },
  "workspaceFolder": "/w", "workspaceMount": "source=${localWorkspaceFolder},target=/w,type=bind",
  "mounts": ["type=volume,source=cache,target=/cache"],
  "overrideCommand": false,
  "postCreateCommand": { "a": "npm ci\u001b[2J", "b": ["echo", "${localEnv:HOME}"] },
  "agent": { "capabilities": {
    "resources": { "memory": "4g" },
    "network": { "egress": {
      "allowedDomains": ["api.example", "db.example:5432"],
      "deniedDomains": ["*.bad.example", "x.example:22"],
      "rules": [{ "host": "r.example", "ports": [443, 22] }, { "host": "n.example", "ports": [443], "action": "deny" }],
      "networks": ["10.0.0.0/8:22"] } } },
    "credentials": { "github": { "hosts": ["api.example", "ghe.example:8443"], "env": "GH_TOKEN" }, "model": {} },
    "secrets": { "NPM_TOKEN": { "source": "op://E/npm/token", "programs": ["/usr/bin/npm"], "ttl": "1h" }, "plain": {} } }
}"#;

#[test]
fn everything_that_is_asked_for_is_a_line() {
    let lines = review(FULL).to_string();
    assert_eq!(
        lines,
        r"agentcontainer.json
  credential github for api.example:443, as GH_TOKEN
  credential github for ghe.example:8443, as GH_TOKEN
  credential model for every host that it is granted for, in every request
  reach address 10.0.0.0/8:22 (tcp)
  reach api.example:443 (https)
  reach api.example:80 (http)
  reach db.example:5432 (tcp)
  read GH_TOKEN from this host's environment into containerEnv TOKEN
  read HOME from this host's environment into postCreateCommand
  secret NPM_TOKEN from op://E/npm/token, which the agent can read at /run/secrets/NPM_TOKEN, for /usr/bin/npm alone, for 3600 s
  secret plain, which the agent can read at /run/secrets/plain
  set containerEnv TOKEN
  set remoteEnv PATH
  unset remoteEnv GONE
  never reach *.bad.example at any port
  never reach n.example at port 443 (rule)
  never reach x.example at port 22
  image ghcr.io/my-org/agent:1
  limit cpus none of its own
  limit memory 4294967296 bytes
  limit pids none of its own
  mount type=volume,source=cache,target=/cache
  reach by rule r.example:22 (tcp)
  reach by rule r.example:443 (https)
  run postCreateCommand (a): npm ci\u{1b}[2J
  run postCreateCommand (b): ["
            .to_owned()
            + r#""echo", "${localEnv:HOME}"]
  run the image's own command
  user root
  workspace folder /w
  workspace mount type=bind,source=${localWorkspaceFolder},target=/w"#
    );
}

#[test]
fn an_approval_is_of_path_and_content() {
    let approved = review(FULL);
    assert_eq!(approved.hash(), review(FULL).hash());
    assert!(!review(FULL).since(&approved).asks_for_more());
    let moved = Review {
        path: ".devcontainer/agentcontainer.json".into(),
        ..approved.clone()
    };
    assert_ne!(moved.hash(), approved.hash());
    assert!(moved.since(&approved).asks_for_more());
    assert!(
        moved.since(&approved).to_string().starts_with(
            "found at .devcontainer/agentcontainer.json instead of agentcontainer.json"
        )
    );
    let stored = serde_json::to_string(&approved).unwrap();
    assert_eq!(serde_json::from_str::<Review>(&stored).unwrap(), approved);
    assert!(serde_json::from_str::<Review>(&stored.replacen("path", "pth", 1)).is_err());
}

#[test]
fn comments_names_and_other_tools_do_not_ask_again() {
    let a = review(r#"{ "image": "debian" }"#);
    let b = review(
        r#"{ /* c */ "name": "x", "image": "debian", "customizations": { "vscode": {} }, "hostRequirements": { "cpus": 2 } }"#,
    );
    assert_eq!(a.hash(), b.hash());
}

#[test]
fn fewer_rules_about_files_and_what_is_writable_again_ask_for_more() {
    let filesystem = |filesystem: &str| {
        review(&format!(
            r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "filesystem": {{ {filesystem} }} }} }} }}"#
        ))
    };
    let (none, base) = (
        filesystem(""),
        filesystem(r#""readOnlyPaths": ["src"], "deniedPaths": [".env"]"#),
    );
    assert!(!base.since(&none).asks_for_more());
    assert_eq!(none.since(&base).more, ["- deny .env", "- read-only src"]);
    let wider = filesystem(
        r#""readOnlyPaths": ["src"], "writablePaths": ["src/x"], "deniedPaths": [".env"]"#,
    );
    assert_eq!(
        wider.since(&base).more,
        ["+ writable within what is read-only: src/x"]
    );
    assert!(!base.since(&wider).asks_for_more());
}

#[test]
fn fewer_rules_about_programs_and_more_that_may_be_started_ask_for_more() {
    let tools = |tools: &str| {
        review(&format!(
            r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "tools": {{ {tools} }} }} }} }}"#
        ))
    };
    let (none, base) = (
        tools(""),
        tools(r#""allowedBinaries": ["git"], "deniedBinaries": ["sudo"]"#),
    );
    assert_eq!(
        none.since(&base).more,
        [
            "- never start sudo",
            "- start no program that is not listed"
        ]
    );
    let wider = tools(
        r#""allowedBinaries": ["git", "/opt/x"], "deniedBinaries": ["sudo"], "requireApproval": true"#,
    );
    assert_eq!(
        wider.since(&base).more,
        [
            "+ start /opt/x",
            "+ start, once a person allows it, a program that is not listed"
        ]
    );
    assert!(!base.since(&wider).asks_for_more());
    let denied = tools(r#""deniedBinaries": ["sudo"]"#);
    assert!(!denied.since(&none).asks_for_more());
}

#[test]
fn only_what_asks_for_more_asks_again() {
    let more = |from: &Review, to: &Review| to.since(from);
    let base = egress(r#""allowedDomains": ["a.example"], "deniedDomains": ["d.example"]"#);
    let wider = egress(
        r#""allowedDomains": ["a.example", "b.example:22"], "deniedDomains": ["d.example"]"#,
    );
    assert_eq!(more(&base, &wider).more, ["+ reach b.example:22 (tcp)"]);
    let back = more(&wider, &base);
    assert!(!back.asks_for_more());
    assert_eq!(back.less, ["- reach b.example:22 (tcp)"]);
    let without_denial = egress(r#""allowedDomains": ["a.example"]"#);
    assert_eq!(
        more(&base, &without_denial).more,
        ["- never reach d.example at any port"]
    );
    assert!(!more(&without_denial, &base).asks_for_more());
    let ruled = egress(
        r#""allowedDomains": ["a.example"], "deniedDomains": ["d.example"], "rules": [{ "host": "a.example", "ports": [443], "protocol": "tls" }]"#,
    );
    assert!(
        more(&base, &ruled).asks_for_more() && more(&ruled, &base).asks_for_more(),
        "a rule may open or close"
    );
    for (from, to) in [
        (r#"{ "image": "debian" }"#, r#"{ "image": "debian:12" }"#),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "containerUser": "root" }"#,
        ),
        (
            r#"{ "image": "debian", "containerUser": "node" }"#,
            r#"{ "image": "debian" }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "onCreateCommand": "x" }"#,
        ),
        (
            r#"{ "image": "debian", "onCreateCommand": "x" }"#,
            r#"{ "image": "debian", "onCreateCommand": "y" }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "mounts": ["type=tmpfs,target=/x"] }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "overrideCommand": false }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "updateRemoteUserUID": false }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "workspaceFolder": "/x" }"#,
        ),
        (
            r#"{ "image": "debian" }"#,
            r#"{ "image": "debian", "remoteEnv": { "A": "1" } }"#,
        ),
        (
            r#"{ "image": "debian", "containerEnv": { "A": "1" } }"#,
            r#"{ "image": "debian", "containerEnv": { "A": "${localEnv:S}" } }"#,
        ),
        (
            r#"{ "image": "debian", "agent": { "capabilities": { "resources": { "pids": 5 } } } }"#,
            r#"{ "image": "debian" }"#,
        ),
    ] {
        assert!(
            more(&review(from), &review(to)).asks_for_more(),
            "{from} -> {to}"
        );
    }
}

#[test]
fn what_a_profile_adds_is_reviewed_with_where_it_is_from() {
    use schema::profile::{self, Added, AddedCredential, Install, Offer};
    let text = r#"{ "image": "debian" }"#;
    let mut config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
    let alone = Review::of(&config);
    let added = |offered: bool| Added {
        profile: profile::named("claude").unwrap(),
        domains: vec!["api.example:443".parse().unwrap()],
        credential: Some(AddedCredential {
            name: "anthropic".parse().unwrap(),
            env: "KEY".parse().unwrap(),
            offered: offered.then(|| Offer {
                source: "env://KEY".parse().unwrap(),
                hosts: vec!["api.example".parse().unwrap()],
            }),
        }),
        env: [("A".parse().unwrap(), "1\u{1b}".to_owned())].into(),
        install: Some(Install {
            package: "agent".to_owned(),
            version: "1.2.3".to_owned(),
            registry: "https://npm.example/".to_owned(),
            host: "npm.example:443".parse().unwrap(),
            pin: None,
            done: !offered,
        }),
    };
    config.profile = Some(added(true));
    let offered = Review::of(&config);
    let more = offered.since(&alone).more;
    for line in [
        "+ reach api.example:443 (https; profile claude)",
        "+ credential anthropic for every host that it is granted for, as KEY (profile claude)",
        "+ grant the credential anthropic, from env://KEY, to api.example:443 (profile claude)",
        "+ set A=1\\u{1b} (profile claude)",
        "+ keep a volume of this workspace's own at /var/lib/agentcontainer/agent (profile claude)",
        "+ run agent 1.2.3 installed from https://npm.example/ (profile claude)",
        "+ begin its state with .claude.json: { \"hasCompletedOnboarding\": true, \"projects\": {\"{folder}\": {\"hasTrustDialogAccepted\": true}}, \"customApiKeyResponses\": {\"approved\": [{key}]} } (profile claude)",
        "+ add /var/lib/agentcontainer/program/npm/node_modules/.bin to PATH, last (profile claude)",
        "+ install agent 1.2.3 from https://npm.example/ with the image's npm, in a session of its own that reaches npm.example:443 alone (profile claude)",
    ] {
        assert!(more.contains(&line.to_owned()), "{line} {more:#?}");
    }
    assert_eq!((more.len(), offered.agent.as_deref()), (10, Some("claude")));
    assert_ne!(offered.hash(), alone.hash());
    // What was granted and installed once is asked for no more; what was taken back is.
    config.profile = Some(added(false));
    let later = Review::of(&config);
    assert!(!later.since(&offered).asks_for_more());
    assert!(offered.since(&later).asks_for_more());
    // Nor is what another registry served the same, installed as it may be.
    let mut elsewhere = added(false);
    elsewhere.install.as_mut().unwrap().registry = "https://evil.example/".to_owned();
    config.profile = Some(elsewhere);
    assert_eq!(
        Review::of(&config).since(&offered).more,
        ["+ run agent 1.2.3 installed from https://evil.example/ (profile claude)"]
    );
    // Nor are other packages under the same version.
    let pinned = |package: &str| {
        let integrity = format!("sha512-{}==", "A".repeat(86));
        let packages =
            serde_json::json!({ package: { "version": "1.0.0", "integrity": integrity } });
        let pin =
            serde_json::json!({ "package": "agent", "version": "1.2.3", "packages": packages });
        let mut of = added(false);
        of.install.as_mut().unwrap().pin = serde_json::from_value(pin).unwrap();
        config.profile = Some(of);
        Review::of(&config)
    };
    let [of_a, of_b] = ["node_modules/a", "node_modules/b"].map(pinned);
    let more = of_b.since(&of_a).more;
    let digest = more[0].split(['(', ';']).nth(1).unwrap();
    assert!(digest.starts_with("sha256:"), "{more:?}");
    let line = "+ run agent 1.2.3 installed from https://npm.example/, of 1 packages as pinned";
    assert!(more.len() == 1 && more[0].starts_with(line), "{more:?}");
    assert!(of_a.since(&offered).asks_for_more() && !of_a.since(&of_a).asks_for_more());
}

#[test]
fn what_a_profile_adds_is_shown_before_its_image_is_known() {
    use schema::profile::{self, Added};
    let text = r#"{ "image": "debian" }"#;
    let mut config = schema::config::parse(text.as_bytes(), "profile codex").unwrap();
    assert!(Review::of_profile(&config).is_empty());
    let codex = profile::named("codex").unwrap();
    config.profile = Some(Added {
        profile: codex,
        domains: Vec::new(),
        credential: None,
        env: codex.variables(),
        install: None,
    });
    let shown = Review::of_profile(&config).join("\n");
    for part in [
        "image debian (profile codex)",
        "sandbox_mode = \"danger-full-access\"",
        "tell it in AGENTS.md of its state what limits it (sha256:",
        "set CODEX_HOME=",
        "keep a volume of this workspace's own",
        "where the image has no codex: install @openai/codex",
    ] {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
}

#[test]
fn a_policy_above_it_and_what_it_requires_are_reviewed_when_they_go() {
    let of = |agent: &str| {
        let text = format!(r#"{{ "image": "debian", "agent": {{ {agent} }} }}"#);
        Review::of(&schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap())
    };
    let none = of("");
    let required = |level: u8| {
        of(&format!(
            r#""provenance": {{ "require": {{ "signatures": true, "sbom": true, "slsaLevel": {level} }} }}"#
        ))
    };
    let asked = |to: &Review, from: &Review| to.since(from).more;
    assert!(asked(&required(2), &none).is_empty());
    assert_eq!(
        asked(&none, &required(2)),
        [
            "- require an SBOM",
            "- require at least SLSA level 1",
            "- require at least SLSA level 2",
            "- require signatures"
        ]
    );
    assert!(asked(&required(3), &required(2)).is_empty());
    assert_eq!(
        asked(&required(1), &required(2)),
        ["- require at least SLSA level 2"]
    );
    let deny = of(r#""policy": { "escalation": "deny" }"#);
    assert!(asked(&deny, &none).is_empty());
    assert_eq!(asked(&none, &deny).len(), 1);
    assert!(
        !of(r#""policy": { "escalation": "prompt" }"#)
            .since(&none)
            .asks_for_more()
    );
    let source = |tag: &str| {
        of(&format!(
            r#""policy": {{ "source": "oci://ghcr.io/acme/policy:{tag}" }}"#
        ))
    };
    assert_eq!(
        asked(&source("v1"), &none),
        ["+ fetch the policy oci://ghcr.io/acme/policy:v1 and be held to it"]
    );
    assert_eq!(asked(&source("v2"), &source("v1")).len(), 2);
    assert_eq!(asked(&none, &source("v1")).len(), 1);
}

#[test]
fn features_and_tools_are_lines_and_another_one_asks_again() {
    let with = |feature: &str, options: &str, tool: &str| {
        review(&format!(
            r#"{{ "image": "debian", "features": {{ "{feature}": {options} }}, "overrideFeatureInstallOrder": ["./own"],
                "agent": {{ "tools": {{ "skills": {{ "s": "oci://ghcr.io/a/{tool}:1" }} }} }} }}"#
        ))
    };
    let approved = with("ghcr.io/a/f:1", r#"{ "v": "1" }"#, "s");
    let shown = approved.to_string();
    for line in [
        "install the feature ghcr.io/a/f:1 with v=1",
        "install the feature ./own before others",
        "use the skill s from oci://ghcr.io/a/s:1",
    ] {
        assert!(shown.contains(line), "{shown}");
    }
    assert!(!approved.since(&approved).asks_for_more());
    for other in [
        with("ghcr.io/a/f:2", r#"{ "v": "1" }"#, "s"),
        with("ghcr.io/a/f:1", r#"{ "v": "2" }"#, "s"),
        with("ghcr.io/a/f:1", r#"{ "v": "1" }"#, "t"),
    ] {
        assert!(other.since(&approved).asks_for_more());
    }
}
