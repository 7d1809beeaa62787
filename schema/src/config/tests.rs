#![allow(clippy::unwrap_used)]
use super::keys::{Accepted, Parent, REFUSED};
use super::*;

fn errors(text: &str, file: &str) -> Vec<String> {
    parse(text.as_bytes(), file)
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn codes(text: &str) -> Vec<&'static str> {
    parse(text.as_bytes(), "agentcontainer.json")
        .err()
        .unwrap_or_default()
        .iter()
        .map(|d| d.code)
        .collect()
}

fn config(text: &str) -> Config {
    parse(text.as_bytes(), "agentcontainer.json").unwrap()
}

const FULL: &str = r#"{
  "$schema": "https://example.com/agentcontainer.schema.json", // comments
  "name": "web",
  "image": "ghcr.io/my-org/my-agent:latest",
  "containerEnv": { "CI": "1", "TOKEN": "${localEnv:TOKEN:none}" },
  "remoteEnv": { "PATH": "${containerEnv:PATH}:/x", "GONE": null },
  "containerUser": "node",
  "remoteUser": "node",
  "workspaceFolder": "/workspaces/${localWorkspaceFolderBasename}",
  "workspaceMount": "source=${localWorkspaceFolder},target=/workspaces/x,type=bind",
  "mounts": [
    "type=volume,source=cache-${devcontainerId},target=/home/node/.cache",
    { "type": "volume", "source": "data", "target": "/data" },
    "type=tmpfs,target=/scratch,tmpfs-size=64m",
  ],
  "overrideCommand": false,
  "onCreateCommand": "npm ci",
  "updateContentCommand": ["npm", "run", "build"],
  "postCreateCommand": { "a": "echo a", "b": ["echo", "b"] },
  "postStartCommand": "",
  "postAttachCommand": [],
  "waitFor": "postCreateCommand",
  "hostRequirements": { "cpus": 2, "memory": "4gb", "gpu": false },
  "init": true, "privileged": false, "capAdd": [], "securityOpt": [], "runArgs": [], "forwardPorts": [],
  "portsAttributes": {}, "features": {}, "userEnvProbe": "none", "updateRemoteUserUID": false,
  "shutdownAction": "stopContainer",
  "customizations": { "vscode": { "extensions": ["x.y"] } },
  "agent": {
    "capabilities": {
      "network": {
        "egress": {
          "allowedDomains": ["api.github.com", "*.example.com", "db.internal:5432"],
          "deniedDomains": ["gist.example.com"],
          "rules": [{ "host": "api.github.com", "ports": [443], "protocol": "https", "action": "allow" },
                    { "host": "*.bad.example", "ports": [443, 80], "action": "deny" }],
          "networks": ["10.20.0.0/16:5432"],
          "unlisted": "deny"
        },
        "ingress": {}
      },
      "filesystem": {}, "tools": {},
      "resources": { "memory": "4g", "cpus": 2.5, "pids": 512 }
    },
    "credentials": { "github": { "hosts": ["api.github.com"], "env": "GITHUB_TOKEN" } }, "secrets": {}, "inspection": { "secrets": "block", "contentType": "off" }, "policy": { "source": "oci://ghcr.io/my-org/policy:latest", "escalation": "prompt" }, "provenance": { "require": { "signatures": true, "slsaLevel": 2, "sbom": true } }, "tools": {}
  }
}"#;

#[test]
fn a_whole_file_is_read_with_the_place_of_everything() {
    let config = config(FULL);
    assert_eq!(config.image.as_str(), "ghcr.io/my-org/my-agent:latest");
    assert_eq!(
        config.image.at,
        Position {
            line: 4,
            column: 12
        }
    );
    assert_eq!(config.user().unwrap().as_str(), "node");
    assert_eq!(config.container_env.len(), 2);
    assert_eq!(
        config
            .remote_env
            .values()
            .filter(|value| value.value.is_none())
            .count(),
        1
    );
    assert_eq!(config.mounts.len(), 3);
    let stages: Vec<_> = config
        .lifecycle()
        .map(|(key, stage)| (key, stage.commands().len()))
        .collect();
    assert_eq!(
        stages,
        [
            ("onCreateCommand", 1),
            ("updateContentCommand", 1),
            ("postCreateCommand", 2)
        ]
    );
    let egress = config.agent.egress();
    let domains: Vec<_> = egress
        .allowed_domains
        .iter()
        .map(|d| (d.to_string(), d.at.line, d.at.column))
        .collect();
    assert_eq!(
        domains,
        [
            ("api.github.com".into(), 32, 30),
            ("*.example.com".into(), 32, 48),
            ("db.internal:5432".into(), 32, 65)
        ]
    );
    assert_eq!(egress.rules.len(), 2);
    assert_eq!(egress.networks[0].to_string(), "10.20.0.0/16:5432");
    let resources = config.agent.resources();
    assert_eq!(resources.memory.as_ref().unwrap().bytes(), 4 << 30);
    assert_eq!(resources.cpus.as_ref().unwrap().nano(), 2_500_000_000);
    assert_eq!(resources.pids.as_ref().unwrap().value, 512);
    assert_eq!(
        config
            .host_requirements
            .as_ref()
            .unwrap()
            .unmet(1, 8 << 30)
            .unwrap(),
        "2 processors are required, the engine has 1"
    );
    assert!(
        config
            .host_requirements
            .as_ref()
            .unwrap()
            .unmet(2, 1 << 30)
            .is_some()
    );
    assert!(
        config
            .host_requirements
            .as_ref()
            .unwrap()
            .unmet(2, 4 << 30)
            .is_none()
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = r#"{
  "image": "Debian",
  "privileged": true,
  "runArgs": ["--privileged"],
  "imgae": "x",
  "containerEnv": { "1A": "x", "B": "${PATH}" },
  "containerUser": "root", "remoteUser": "node",
  "agent": {
    "credentials": { "github": { "source": "env://A" } },
    "capabilities": { "network": { "egress": {
      "allowedDomain": [],
      "allowedDomains": ["*.com", 5],
      "unlisted": "ask",
      "rules": [{ "host": "a.b", "ports": [0], "protocol": "udp", "methods": ["GET"], "action": "ask" }]
    } } }
  }
}"#;
    let found = errors(text, "agentcontainer.json");
    let expected = [
        "2:12: `image` is \"Debian\": repository is lower-case words of a-z and 0-9, joined by `.`, `_`, `__` or `-`, in segments joined by `/` [invalid-image]",
        "3:3: `privileged` is refused: a privileged container is not confined [refused-key]",
        "4:3: `runArgs` is refused: arguments to the engine are not passed on; use `containerEnv`, `containerUser`, `mounts` and `agent.capabilities.resources` [refused-key]",
        "5:3: unknown key `imgae` [unknown-key]\n  help: did you mean `image`?",
        "6:21: `containerEnv` has the name \"1A\": expected letters, digits and _, not starting with a digit [invalid-value]",
        "6:37: `containerEnv.B` is \"${PATH}\": `${PATH}` is no variable [invalid-variable]",
        "7:42: not enforced by this version: `remoteUser` and `containerUser` differ [not-enforced]\n  help: the container and everything in it run as one user; keep one of the two keys",
        "9:44: `agent.credentials.github.source` is refused: where a value comes from and how it is sent is the host's word, never the workspace's [host-only]\n  help: put it under [credentials.github] in the host's config.toml; here a credential has `hosts` and `env`",
        "11:7: unknown key `allowedDomain` in `agent.capabilities.network.egress` [unknown-key]\n  help: did you mean `allowedDomains`?",
        "12:26: `allowedDomains[0]` is \"*.com\": anyone can register a name under this public suffix, so a wildcard over it allows everyone [public-suffix-wildcard]",
        "12:35: `allowedDomains[1]` is a number, expected a string [wrong-type]",
        "14:44: `rules[0].ports[0]` is 0, expected a whole number from 1 to 65535 [out-of-range]",
        "14:60: `rules[0].protocol` is not enforced by this version: udp is not relayed [not-enforced]",
    ];
    assert_eq!(
        found,
        expected.map(|line| format!("agentcontainer.json:{line}"))
    );
}

fn credentials(text: &str) -> Result<Config, Vec<String>> {
    let text = format!(
        r#"{{ "image": "x", "containerEnv": {{ "IN_CONTAINER": "1" }}, "remoteEnv": {{ "IN_REMOTE": null }},
"agent": {{ "credentials": {text} }} }}"#
    );
    parse(text.as_bytes(), "a.json")
        .map_err(|found| found.iter().map(ToString::to_string).collect())
}

#[test]
fn a_credential_has_a_name_hosts_and_a_variable() {
    let config = credentials(
        r#"{ "github": { "hosts": ["API.github.com", "*.corp.example", "ghe.corp:8443"], "env": "GITHUB_TOKEN" }, "x-1_Y": {} }"#,
    )
    .unwrap();
    let github = &config.agent.credentials["github"];
    let hosts: Vec<_> = github
        .hosts
        .iter()
        .map(|host| (host.host.to_string(), host.https_port()))
        .collect();
    let expected = [
        ("api.github.com", 443),
        ("*.corp.example", 443),
        ("ghe.corp", 8443),
    ];
    assert_eq!(hosts, expected.map(|(host, port)| (host.to_owned(), port)));
    assert_eq!(github.env.as_ref().unwrap().as_str(), "GITHUB_TOKEN");
    assert_eq!(github.at.line, 2);
    let bare = &config.agent.credentials["x-1_Y"];
    assert!(bare.hosts.is_empty() && bare.env.is_none());
}

#[test]
fn a_workspace_cannot_say_where_a_value_comes_from_and_its_words_are_not_repeated() {
    for text in [
        r#"{ "x": "vault://vault.corp/secret#token" }"#,
        r#"{ "x": "ghp_abcdefghijklmnop" }"#,
        r#"{ "x": { "source": "env://GITHUB_TOKEN" } }"#,
        r#"{ "x": { "source": { "exec": ["x"] } } }"#,
        r#"{ "x": { "header": "X-Key" } }"#,
        r#"{ "x": { "format": "{}" } }"#,
    ] {
        let found = credentials(text).unwrap_err();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains("[host-only]"), "{found:?}");
        assert!(found[0].contains("[credentials.x]"), "{found:?}");
        assert!(
            !found[0].contains("ghp_") && !found[0].contains("://"),
            "{found:?}"
        );
    }
}

#[test]
fn a_credential_that_says_too_much_or_nothing_is_an_error_at_its_place() {
    for (text, code) in [
        ("[]", "wrong-type"),
        (r#"{ "a b": {} }"#, "invalid-value"),
        (r#"{ "x": 1 }"#, "wrong-type"),
        (r#"{ "x": { "host": [] } }"#, "unknown-key"),
        (r#"{ "x": { "hosts": [] } }"#, "invalid-value"),
        (r#"{ "x": { "hosts": ["https://a.b/"] } }"#, "invalid-host"),
        (r#"{ "x": { "hosts": ["10.0.0.1"] } }"#, "address-as-host"),
        (r#"{ "x": { "hosts": ["a.b:0"] } }"#, "invalid-port"),
        (
            r#"{ "x": { "hosts": ["*.com"] } }"#,
            "public-suffix-wildcard",
        ),
        (r#"{ "x": { "env": "1A" } }"#, "invalid-value"),
        (r#"{ "x": { "env": "AGENTCONTAINER_X" } }"#, "invalid-value"),
        (
            r#"{ "x": { "env": "IN_CONTAINER" } }"#,
            "conflicting-variables",
        ),
        (
            r#"{ "x": { "env": "IN_REMOTE" } }"#,
            "conflicting-variables",
        ),
        (
            r#"{ "x": { "env": "A" }, "y": { "env": "A" } }"#,
            "conflicting-variables",
        ),
    ] {
        let found = credentials(text).unwrap_err();
        assert_eq!(found.len(), 1, "{text}: {found:?}");
        assert!(found[0].contains(&format!("[{code}]")), "{text}: {found:?}");
        assert!(found[0].starts_with("a.json:2:"), "{text}: {found:?}");
    }
    let names = |n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!("\"c{i}\": {{}}")).collect();
        format!("{{ {} }}", all.join(","))
    };
    assert!(credentials(&names(crate::credential::MAX_CREDENTIALS)).is_ok());
    assert!(credentials(&names(crate::credential::MAX_CREDENTIALS + 1)).is_err());
    let hosts = |n: usize| {
        let all: Vec<_> = (0..n).map(|i| format!("\"h{i}.example\"")).collect();
        format!("{{ \"x\": {{ \"hosts\": [{}] }} }}", all.join(","))
    };
    assert!(credentials(&hosts(crate::credential::MAX_HOSTS)).is_ok());
    assert!(credentials(&hosts(crate::credential::MAX_HOSTS + 1)).is_err());
}

/// The keys of the published schema (devcontainers/spec, devContainer.base.schema.json).
const DEVCONTAINER_KEYS: &str = "$schema name features overrideFeatureInstallOrder secrets forwardPorts portsAttributes \
     otherPortsAttributes updateRemoteUserUID containerEnv containerUser mounts init privileged capAdd securityOpt \
     remoteEnv remoteUser initializeCommand onCreateCommand updateContentCommand postCreateCommand postStartCommand \
     postAttachCommand waitFor userEnvProbe hostRequirements customizations additionalProperties appPort runArgs \
     shutdownAction overrideCommand workspaceFolder workspaceMount build dockerFile context image dockerComposeFile \
     service runServices";

#[test]
fn no_key_of_devcontainer_json_is_unknown_or_dropped() {
    for key in DEVCONTAINER_KEYS.split_whitespace() {
        // No key of devcontainer.json takes a date's place: a number in an array in an object is wrong for all of them.
        let text = format!(r#"{{ "image": "debian", "{key}": {{ "x": [1] }} }}"#)
            .replace(r#""image": "debian", "image""#, r#""image""#);
        let found = codes(&text);
        let honoured = matches!(key, "customizations");
        assert_eq!(found.is_empty(), honoured, "{key}: {found:?}");
        if key != "hostRequirements" && key != "containerEnv" {
            assert!(!found.contains(&"unknown-key"), "{key}");
        }
    }
}

#[test]
fn every_key_of_the_table_is_refused_in_its_words_and_accepted_when_it_asks_for_nothing() {
    for key in REFUSED {
        let wrap = |value: &str| {
            let inner = format!("\"{}\": {value}", key.name);
            let inside = match key.parent {
                Parent::Root => inner,
                Parent::HostRequirements => format!("\"hostRequirements\": {{ {inner} }}"),
                Parent::Network => {
                    format!("\"agent\": {{ \"capabilities\": {{ \"network\": {{ {inner} }} }} }}")
                }
                Parent::Rule => format!(
                    "\"agent\": {{ \"capabilities\": {{ \"network\": {{ \"egress\": {{ \"rules\": [{{ \"host\": \"a.b\", \"ports\": [443], {inner} }}] }} }} }} }}"
                ),
            };
            format!("{{ \"image\": \"debian\", {inside} }}")
        };
        for asks in ["\"?\"", "[\"?\"]", "{ \"?\": 1 }", "null", "17"] {
            let found = errors(&wrap(asks), "agentcontainer.json");
            assert_eq!(found.len(), 1, "{}: {asks}: {found:?}", key.name);
            assert!(
                found[0].contains(key.words)
                    && found[0].ends_with(&format!("[{}]", key.why.code())),
                "{found:?}"
            );
        }
        let nothing = match key.accepted {
            Accepted::Nothing => continue,
            Accepted::EmptyArray => "[]".to_owned(),
            Accepted::EmptyObject => "{}".to_owned(),
            Accepted::Bool(value) => value.to_string(),
            Accepted::Words(words) => format!("\"{}\"", words[0]),
        };
        assert_eq!(
            errors(&wrap(&nothing), "agentcontainer.json"),
            [""; 0],
            "{}",
            key.name
        );
        assert_eq!(
            config(&wrap(&nothing)),
            config(r#"{ "image": "debian" }"#),
            "{}",
            key.name
        );
    }
}

#[test]
fn the_agent_object_is_read_only_where_the_file_has_it() {
    let agent =
        r#"{ "capabilities": { "network": { "egress": { "allowedDomains": ["a.example"] } } } }"#;
    let direct = format!(r#"{{ "image": "debian", "agent": {agent} }}"#);
    let customized = format!(
        r#"{{ "image": "debian", "customizations": {{ "agentcontainer": {agent}, "vscode": 1 }} }}"#
    );
    for (file, right, wrong) in [
        ("agentcontainer.json", &direct, &customized),
        (".devcontainer/agentcontainer.json", &direct, &customized),
        ("my-config.json", &direct, &customized),
        (".devcontainer/devcontainer.json", &customized, &direct),
        (".devcontainer.json", &customized, &direct),
        (".devcontainer/x/devcontainer.json", &customized, &direct),
    ] {
        let config = parse(right.as_bytes(), file).unwrap();
        assert_eq!(config.agent.egress().allowed_domains.len(), 1, "{file}");
        let found = errors(wrong, file);
        assert!(
            found.len() == 1 && found[0].contains("[misplaced-key]"),
            "{file}: {found:?}"
        );
    }
}

#[test]
fn the_canonical_form_says_the_same_and_nothing_but_meaning_changes_it() {
    let full = config(FULL);
    let again = parse(&full.meaning(), "agentcontainer.json").unwrap();
    assert_eq!(again.meaning(), full.meaning());
    let base = config(
        r#"{ "image": "debian", "agent": { "capabilities": { "network": { "egress": { "allowedDomains": ["a.example", "b.example"] } } } } }"#,
    );
    let same = parse(
        br#"// the same
        { "customizations": { "agentcontainer": { "capabilities": { "network": { "egress": {
            "unlisted": "deny", "allowedDomains": ["B.example.", "a.example", "a.example"] } }, "resources": {} } }, "vscode": {} },
          "image": "debian", "runArgs": [], "$schema": "x" }"#,
        "devcontainer.json",
    )
    .unwrap();
    assert_eq!(base.digest(), same.digest());
    for other in [
        r#"{ "image": "debian" }"#,
        r#"{ "image": "debian", "name": "x" }"#,
        r#"{ "image": "debian:12" }"#,
        r#"{ "image": "debian", "remoteEnv": { "A": null } }"#,
        r#"{ "image": "debian", "remoteEnv": { "A": "" } }"#,
        r#"{ "image": "debian", "containerEnv": { "A": "" } }"#,
        r#"{ "image": "debian", "overrideCommand": true }"#,
        r#"{ "image": "debian", "containerUser": "node" }"#,
        r#"{ "image": "debian", "onCreateCommand": "a" }"#,
        r#"{ "image": "debian", "postCreateCommand": "a" }"#,
        r#"{ "image": "debian", "postCreateCommand": ["a"] }"#,
        r#"{ "image": "debian", "postCreateCommand": { "": "a" } }"#,
        r#"{ "image": "debian", "agent": { "capabilities": { "resources": { "pids": 5 } } } }"#,
    ] {
        assert_ne!(config(other).digest(), base.digest(), "{other}");
    }
    let shapes: std::collections::BTreeSet<_> = [r#""a""#, r#"["a"]"#, r#"{ "": "a" }"#]
        .iter()
        .map(|c| config(&format!("{{ \"image\": \"d\", \"onCreateCommand\": {c} }}")).digest())
        .collect();
    assert_eq!(shapes.len(), 3);
}

#[test]
fn hostile_files_get_one_clear_error() {
    for (bytes, code) in [
        (&b""[..], "syntax"),
        (b"null", "wrong-type"),
        (b"[]", "wrong-type"),
        (b"\"x\"", "wrong-type"),
        (b"{", "syntax"),
        (b"{}", "missing-key"),
        (b"\x00", "syntax"),
        (b"\xff\xff", "not-utf8"),
        (b"{\"image\": \"a\\u0000b\"}", "invalid-value"),
        (
            b"{\"image\": \"debian\", \"image\": \"evil\"}",
            "duplicate-key",
        ),
        (b"{\"image\": \"${localEnv:IMAGE}\"}", "invalid-image"),
    ] {
        let found = parse(bytes, "f").unwrap_err();
        assert_eq!(
            found.iter().map(|d| d.code).collect::<Vec<_>>(),
            [code],
            "{bytes:?}"
        );
    }
    for cut in 0..FULL.len() {
        if let Some(text) = FULL.get(..cut) {
            assert_eq!(codes(text), ["syntax"], "cut at {cut}");
        }
    }
}

#[test]
fn counts_are_bounded() {
    let bounded = |limit: usize, make: &dyn Fn(usize) -> String| {
        assert_eq!(codes(&make(limit)), [""; 0]);
        let over = codes(&make(limit + 1));
        assert!(
            over == ["too-many"] || over == ["too-large"] || over == ["out-of-range"],
            "{over:?}"
        );
    };
    let list =
        |n: usize, each: &dyn Fn(usize) -> String| (0..n).map(each).collect::<Vec<_>>().join(",");
    let egress = |key: &str, values: String| {
        format!(
            r#"{{"image":"d","agent":{{"capabilities":{{"network":{{"egress":{{"{key}":[{values}]}}}}}}}}}}"#
        )
    };
    bounded(MAX_VARIABLES, &|n| {
        format!(
            r#"{{"image":"d","containerEnv":{{{}}}}}"#,
            list(n, &|i| format!("\"A{i}\":\"\""))
        )
    });
    bounded(MAX_VARIABLES, &|n| {
        format!(
            r#"{{"image":"d","remoteEnv":{{{}}}}}"#,
            list(n, &|i| format!("\"A{i}\":null"))
        )
    });
    bounded(MAX_MOUNTS, &|n| {
        format!(
            r#"{{"image":"d","mounts":[{}]}}"#,
            list(n, &|i| format!("\"type=tmpfs,target=/t{i}\""))
        )
    });
    bounded(lifecycle::MAX_PARALLEL, &|n| {
        format!(
            r#"{{"image":"d","onCreateCommand":{{{}}}}}"#,
            list(n, &|i| format!("\"{i}\":\"x\""))
        )
    });
    bounded(lifecycle::MAX_ARGUMENTS, &|n| {
        format!(
            r#"{{"image":"d","onCreateCommand":[{}]}}"#,
            list(n, &|_| "\"x\"".into())
        )
    });
    bounded(agent::MAX_DOMAINS, &|n| {
        egress("allowedDomains", list(n, &|i| format!("\"h{i}.example\"")))
    });
    bounded(agent::MAX_DOMAINS, &|n| {
        egress("deniedDomains", list(n, &|i| format!("\"*.h{i}.example\"")))
    });
    bounded(agent::MAX_DOMAINS, &|n| {
        egress(
            "rules",
            list(n, &|i| {
                format!(r#"{{"host":"h{i}.example","ports":[443]}}"#)
            }),
        )
    });
    bounded(agent::MAX_NETWORKS, &|n| {
        egress(
            "networks",
            list(n, &|i| format!("\"10.{}.{}.1:80\"", i / 256, i % 256)),
        )
    });
    bounded(agent::MAX_PORTS_PER_RULE, &|n| {
        egress(
            "rules",
            format!(
                r#"{{"host":"h.example","ports":[{}]}}"#,
                list(n, &|i| (i + 1).to_string())
            ),
        )
    });
    bounded(256, &|n| {
        format!(r#"{{"image":"d","name":"{}"}}"#, "n".repeat(n))
    });
    bounded(256, &|n| {
        let tools = list(n, &|i| format!("\"t{i}\":1"));
        format!(r#"{{"image":"d","customizations":{{{tools}}}}}"#)
    });
    let resources = |what: String| {
        format!(r#"{{"image":"d","agent":{{"capabilities":{{"resources":{{{what}}}}}}}}}"#)
    };
    bounded(usize::try_from(agent::MAX_PIDS).unwrap(), &|n| {
        resources(format!("\"pids\":{n}"))
    });
    bounded(usize::try_from(units::MAX_CPUS).unwrap(), &|n| {
        resources(format!("\"cpus\":{n}"))
    });
    assert_eq!(codes(&resources("\"memory\":\"6m\"".into())), [""; 0]);
    assert_eq!(
        codes(&resources("\"memory\":\"6291455\"".into())),
        ["out-of-range"]
    );
}

#[test]
fn a_file_full_of_errors_gets_a_bounded_list() {
    let keys: Vec<String> = (0..2000).map(|i| format!("\"k{i}\": 1")).collect();
    let found = parse(
        format!("{{ \"image\": \"d\", {} }}", keys.join(",")).as_bytes(),
        "f",
    )
    .unwrap_err();
    assert_eq!(found.len(), crate::read::MAX_DIAGNOSTICS + 1);
    assert_eq!(
        found.last().unwrap().to_string(),
        "f: 1950 more problems are not shown [more]"
    );
}

#[test]
fn the_devcontainers_own_mistakes_are_explained() {
    let found = errors(
        r#"{ "image": "d", "workspaceMount": "source=${localWorkspaceFolder},target=/w,type=bind" }"#,
        "f",
    );
    assert_eq!(
        found,
        ["f:1:35: `workspaceMount` needs `workspaceFolder` beside it [missing-key]"]
    );
    let found = errors(
        r#"{ "image": "d", "mounts": [{ "type": "bind", "source": "/var/run/docker.sock", "target": "/x", "extra": 1 }] }"#,
        "f",
    );
    assert_eq!(found.len(), 2, "{found:?}");
    let found = codes(
        r#"{ "image": "d", "mounts": ["type=tmpfs,target=/a", "type=volume,source=v,target=/a"] }"#,
    );
    assert_eq!(found, ["invalid-mount"]);
    assert_eq!(
        codes(r#"{ "image": "d", "workspaceFolder": "relative" }"#),
        ["invalid-value"]
    );
    assert_eq!(
        codes(r#"{ "image": "d", "workspaceFolder": "/" }"#),
        ["invalid-value"]
    );
    assert_eq!(
        codes(r#"{ "image": "d", "workspaceFolder": "/proc/x" }"#),
        ["invalid-value"]
    );
    assert_eq!(
        codes(r#"{ "build": { "dockerfile": "Dockerfile" } }"#),
        ["not-enforced"]
    );
    assert_eq!(
        codes(r#"{ "dockerComposeFile": "c.yml", "service": "x" }"#),
        ["not-enforced", "not-enforced"]
    );
}

#[test]
fn levels_of_inspectors_are_read_with_their_places_and_nothing_else_is() {
    use crate::inspection::{Inspector, Level};
    let read = |levels: &str| {
        let text =
            format!("{{ \"image\": \"x\", \"agent\": {{ \"inspection\": {{ {levels} }} }} }}");
        super::parse(text.as_bytes(), "c")
    };
    let config =
        read(r#""secrets": "block", "entropy": "flag", "contentType": "off", "base64": "flag""#)
            .unwrap();
    let level = |inspector| config.agent.inspection.of(inspector).unwrap();
    assert_eq!(level(Inspector::Secrets).value, Level::Block);
    assert_eq!(level(Inspector::Entropy).value, Level::Flag);
    assert_eq!(level(Inspector::ContentType).value, Level::Off);
    assert_eq!(level(Inspector::Base64).at.column, 115);
    for (levels, code, help) in [
        (
            r#""secret": "block""#,
            "unknown-key",
            "did you mean `secrets`?",
        ),
        (
            r#""secrets": "blok""#,
            "invalid-value",
            "did you mean `block`?",
        ),
        (r#""secrets": true"#, "wrong-type", ""),
        (
            r#""content_type": "off""#,
            "unknown-key",
            "did you mean `contentType`?",
        ),
    ] {
        let found = read(levels).unwrap_err();
        assert_eq!(found[0].code, code, "{levels}");
        assert!(found[0].to_string().contains(help), "{}", found[0]);
    }
}

#[test]
fn a_policy_of_its_own_and_what_it_requires_are_part_of_what_a_config_means() {
    let of = |agent: &str| {
        let text = format!(r#"{{ "image": "debian", "agent": {{ {agent} }} }}"#);
        parse(text.as_bytes(), "agentcontainer.json")
    };
    let plain = of("").unwrap();
    // What asks for nothing means nothing.
    for same in [
        r#""policy": {}"#,
        r#""policy": { "escalation": "prompt" }"#,
        r#""provenance": {}"#,
        r#""provenance": { "require": { "signatures": false, "sbom": false } }"#,
    ] {
        assert_eq!(of(same).unwrap().digest(), plain.digest(), "{same}");
    }
    let mut seen = std::collections::BTreeSet::from([plain.digest()]);
    for other in [
        r#""policy": { "escalation": "deny" }"#,
        r#""policy": { "source": "oci://ghcr.io/acme/policy:v1" }"#,
        r#""policy": { "source": "oci://ghcr.io/acme/policy:v2" }"#,
        r#""provenance": { "require": { "signatures": true } }"#,
        r#""provenance": { "require": { "slsaLevel": 2 } }"#,
        r#""provenance": { "require": { "slsaLevel": 3 } }"#,
        r#""provenance": { "require": { "sbom": true } }"#,
    ] {
        let config = of(other).unwrap();
        assert!(seen.insert(config.digest()), "{other}");
        let again = parse(&config.meaning(), "agentcontainer.json").unwrap();
        assert_eq!(again.meaning(), config.meaning(), "{other}");
    }
    for (agent, code) in [
        (
            r#""policy": { "source": "ghcr.io/acme/policy:v1" }"#,
            "invalid-value",
        ),
        (r#""policy": { "keys": ["/k"] }"#, "unknown-key"),
        (r#""policy": { "escalation": "allow" }"#, "invalid-value"),
        (
            r#""provenance": { "require": { "slsaLevel": 0 } }"#,
            "out-of-range",
        ),
        (
            r#""provenance": { "require": { "slsaLevel": 5 } }"#,
            "out-of-range",
        ),
        (
            r#""provenance": { "require": { "identities": [] } }"#,
            "unknown-key",
        ),
    ] {
        assert_eq!(of(agent).unwrap_err()[0].code, code, "{agent}");
    }
}

#[test]
fn a_list_of_paths_has_so_many_entries_and_no_more() {
    use super::filesystem::MAX_PATHS;
    let with = |count: usize| {
        let paths: Vec<String> = (0..count).map(|n| format!("\"p{n}\"")).collect();
        let text = format!(
            r#"{{ "image": "a", "agent": {{ "capabilities": {{ "filesystem": {{ "deniedPaths": [{}] }} }} }} }}"#,
            paths.join(",")
        );
        super::parse(text.as_bytes(), "agentcontainer.json")
    };
    let most = with(MAX_PATHS).unwrap();
    assert_eq!(most.agent.filesystem().denied_paths.len(), MAX_PATHS);
    assert!(with(MAX_PATHS + 1).is_err());
}

#[test]
fn a_list_of_programs_has_so_many_entries_and_no_more_and_says_where_it_is_wrong() {
    use super::programs::MAX_PROGRAMS;
    let with = |tools: &str| {
        let text = format!(
            "{{ \"image\": \"a\", \"agent\": {{ \"capabilities\": {{ \"tools\": {{\n{tools} }} }} }} }}"
        );
        super::parse(text.as_bytes(), "agentcontainer.json")
    };
    for key in ["allowedBinaries", "deniedBinaries"] {
        let list = |count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("\"p{n}\"")).collect();
            with(&format!("\"{key}\": [{}]", names.join(",")))
        };
        assert!(list(MAX_PROGRAMS).is_ok(), "{key}");
        assert!(list(MAX_PROGRAMS + 1).is_err(), "{key}");
    }
    let config =
        with(r#""deniedBinaries": ["sudo", "/usr/bin/su"], "requireApproval": false"#).unwrap();
    let programs = config.agent.programs();
    assert_eq!(programs.denied_binaries[1].as_str(), "/usr/bin/su");
    assert_eq!(
        (
            programs.denied_binaries[1].at.line,
            programs.denied_binaries[1].at.column
        ),
        (2, 28)
    );
    for (tools, code) in [
        (r#""allowedBinaries": []"#, "invalid-value"),
        (r#""allowedBinaries": ["a/b"]"#, "invalid-program"),
        (r#""deniedBinaries": ["/usr/../x"]"#, "invalid-program"),
        (r#""requireApproval": "yes""#, "wrong-type"),
        (r#""deniedBinary": []"#, "unknown-key"),
    ] {
        let found = with(tools).unwrap_err();
        assert_eq!(found[0].code, code, "{tools}: {found:?}");
    }
    // What asks for nothing means nothing.
    let empty = with(r#""deniedBinaries": [], "requireApproval": false"#).unwrap();
    assert_eq!(
        empty.digest(),
        super::parse(br#"{ "image": "a" }"#, "agentcontainer.json")
            .unwrap()
            .digest()
    );
}
