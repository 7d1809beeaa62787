#![allow(clippy::unwrap_used)]
use super::*;

fn read(text: &str) -> Result<Metadata, Vec<Diagnostic>> {
    parse(text.as_bytes(), FILE)
}

fn said(text: &str) -> String {
    let found = read(text).unwrap_err();
    found.iter().map(|d| format!("{d}\n")).collect()
}

#[test]
fn what_a_feature_depends_on_and_demands_is_read_and_the_rest_left_aside() {
    let feature = read(
        r#"{ // as published
          "id": "node", "version": "1.6.3", "name": "Node", "options": { "version": { "type": "string" } },
          "dependsOn": { "ghcr.io/a/c": "latest", "ghcr.io/a/b:1": { "x": "y", "on": true } },
          "installsAfter": ["ghcr.io/devcontainers/features/common-utils"],
          "legacyIds": ["nodejs"], "currentId": "node2", "customizations": { "vscode": {} },
          "containerEnv": { "PATH": "/opt/bin:${PATH}", "HOME_OF": "${localEnv:HOME}" },
          "mounts": ["source=x-${devcontainerId},target=/var/lib/x,type=volume"],
          "init": true, "entrypoint": "/init.sh", "postCreateCommand": { "a": "echo ${localEnv:USER}" } }"#,
    )
    .unwrap();
    assert_eq!(feature.id, "node");
    assert_eq!(feature.version.as_deref(), Some("1.6.3"));
    let needs: Vec<&str> = feature
        .depends_on
        .iter()
        .map(|(id, _)| id.as_str())
        .collect();
    assert_eq!(needs, ["ghcr.io/a/c", "ghcr.io/a/b:1"]);
    assert_eq!(feature.installs_after.len(), 1);
    assert_eq!(
        feature.aliases.iter().collect::<Vec<_>>(),
        ["node", "node2", "nodejs"]
    );
    let demands = &feature.demands;
    assert_eq!(demands.refused(), [""; 0]);
    assert_eq!(
        demands.local_env().into_iter().collect::<Vec<_>>(),
        ["HOME", "USER"]
    );
    let shown = demands.shown().join("\n");
    for part in [
        "mount ",
        "entrypoint /init.sh",
        "PATH=/opt/bin:${PATH}",
        "postCreateCommand echo",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn what_would_unmake_the_sandbox_is_refused_in_words() {
    let feature = read(
        r#"{ "id": "dind", "privileged": true, "capAdd": ["SYS_ADMIN"], "securityOpt": ["seccomp=unconfined"] }"#,
    )
    .unwrap();
    let refused = feature.demands.refused();
    assert_eq!(refused.len(), 3, "{refused:?}");
    for (words, part) in refused
        .iter()
        .zip(["not confined", "SYS_ADMIN", "unconfined"])
    {
        assert!(words.contains(part), "{words}");
    }
    // A bind of the host's cannot even be read.
    for source in ["/var/run/docker.sock", "/"] {
        let text = format!(
            r#"{{ "id": "x", "mounts": [{{ "source": "{source}", "target": "/x", "type": "bind" }}] }}"#
        );
        assert!(said(&text).contains("cannot be mounted"));
    }
}

#[test]
fn what_is_malformed_or_too_much_is_an_error() {
    for bad in [
        "",
        "[]",
        "{}",
        r#"{ "id": "" }"#,
        r#"{ "id": 1 }"#,
        r#"{ "id": "a\u001b" }"#,
        r#"{ "id": "a", "privileged": "yes" }"#,
        r#"{ "id": "a", "dependsOn": ["ghcr.io/a/b"] }"#,
        r#"{ "id": "a", "dependsOn": { "https://x.example/devcontainer-feature-a.tgz": {} } }"#,
        r#"{ "id": "a", "dependsOn": { "node": {} } }"#,
        r#"{ "id": "a", "installsAfter": ["../x"] }"#,
        r#"{ "id": "a", "id": "b" }"#,
    ] {
        assert!(read(bad).is_err(), "{bad}");
    }
    let padded = |n: usize| {
        let text = r#"{ "id": "a" }"#;
        read(&format!("{text}{}", " ".repeat(n - text.len())))
    };
    assert!(padded(MAX_BYTES).is_ok());
    assert!(padded(MAX_BYTES + 1).is_err());
    let id = |n: usize| read(&format!(r#"{{ "id": "{}" }}"#, "a".repeat(n)));
    assert!(id(MAX_ID_BYTES).is_ok());
    assert!(id(MAX_ID_BYTES + 1).is_err());
    let list = |n: usize| {
        read(&format!(
            r#"{{ "id": "a", "capAdd": [{}] }}"#,
            vec!["\"X\""; n].join(",")
        ))
    };
    assert!(list(MAX_LIST).is_ok());
    assert!(list(MAX_LIST + 1).is_err());
    let needs = |n: usize| {
        let all: Vec<String> = (0..n)
            .map(|n| format!("\"ghcr.io/a/b{n}\": {{}}"))
            .collect();
        read(&format!(
            r#"{{ "id": "a", "dependsOn": {{ {} }} }}"#,
            all.join(",")
        ))
    };
    assert!(needs(MAX_FEATURES).is_ok());
    assert!(needs(MAX_FEATURES + 1).is_err());
}
