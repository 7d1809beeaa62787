//! Registries that are down, slow, or say what is not so: each has its verdict, its code and its line.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::registry::Registry;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::lock::{cached, lockfile, workspace};

/// A registry with `app:1` behind a front, and a workspace that is locked through the front.
fn locked() -> (Registry, Workspace) {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let front = registry.front();
    registry.tell(&json!({}));
    let workspace = workspace(&front, &format!("{front}/app:1"));
    workspace.cli(&["lock", "--yes"]).status(0);
    (registry, workspace)
}

/// `lock --update image` in a mode of the front.
fn again(registry: &Registry, workspace: &Workspace, mode: Value) -> agentcontainer_tests::Outcome {
    let _ = std::fs::remove_dir_all(workspace.path().with_file_name("home").join(".cache"));
    registry.tell(&mode);
    workspace.cli(&["lock", "--update", "image"])
}

#[test]
fn what_a_registry_changes_is_not_believed() {
    let (registry, workspace) = locked();
    let before = lockfile(&workspace);
    let digest = before["image"]["digest"].as_str().unwrap().to_owned();
    // By digest, so that there is something to compare with.
    let front = registry.front();
    let by_digest = crate::lock::workspace(&front, &format!("{front}/app@{digest}"));
    let ask = |mode: Value| {
        let _ = std::fs::remove_dir_all(by_digest.path().with_file_name("home").join(".cache"));
        let _ = std::fs::remove_file(by_digest.path().join("agentcontainer-lock.json"));
        registry.tell(&mode);
        by_digest.cli(&["lock", "--yes"])
    };
    ask(json!({})).status(0);
    ask(json!({ "at": { "manifests/sha256": { "flip": true } } }))
        .status(125)
        .says("[digest-mismatch]");
    let config = json!({ "at": { "blobs/sha256": { "flip": true } } });
    ask(config.clone()).status(125).says("[digest-mismatch]");
    let other = STANDARD.encode(br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[]}"#);
    ask(json!({ "at": { "manifests/sha256": { "body": other, "type": "application/vnd.oci.image.manifest.v1+json" } } }))
        .status(125)
        .says("[digest-mismatch]");
    // By tag too: the configuration is named by digest in what the tag names.
    again(&registry, &workspace, config)
        .status(125)
        .says("[digest-mismatch]");
    assert_eq!(
        lockfile(&workspace),
        before,
        "a lock that fails leaves the old one"
    );
}

#[test]
fn what_a_registry_sends_is_bounded_and_whole() {
    let (registry, workspace) = locked();
    let at = |path: &str, what: Value| json!({ "at": { path: what } });
    again(
        &registry,
        &workspace,
        at("manifests/1$", json!({ "endless": 100_000 })),
    )
    .status(125)
    .says("[too-large]");
    again(
        &registry,
        &workspace,
        at("manifests/1$", json!({ "cut": 20 })),
    )
    .status(125)
    .says("[registry-unreachable]");
    again(
        &registry,
        &workspace,
        at("manifests/1$", json!({ "longer": 10 })),
    )
    .status(125)
    .says("[registry-unreachable]");
    for (body, says) in [
        ("{}", "[malformed]"),
        ("not json", "[malformed]"),
        (r#"{"schemaVersion":1,"name":"a"}"#, "schema version 1"),
        (
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","manifests":[]}"#,
            "[malformed]",
        ),
    ] {
        let body = STANDARD.encode(body);
        again(
            &registry,
            &workspace,
            at(
                "manifests/1$",
                json!({ "body": body, "type": "application/vnd.oci.image.index.v1+json" }),
            ),
        )
        .status(125)
        .says(says);
    }
    // A blob that breaks off is gone on with, and is whole in the end.
    again(
        &registry,
        &workspace,
        at("blobs/", json!({ "cut": 100, "times": 1 })),
    )
    .status(0);
    let asked = registry.asked();
    assert!(
        asked.iter().any(|a| a["range"] == "bytes=100-"),
        "{asked:?}"
    );
    again(&registry, &workspace, at("blobs/", json!({ "cut": 100 })))
        .status(125)
        .says("[registry-unreachable]");
}

#[test]
fn a_registry_that_is_busy_is_asked_again_and_one_that_is_down_is_said() {
    let (mut registry, workspace) = locked();
    let busy = |times: u32| json!({ "at": { "manifests/1$": { "status": 503, "times": times, "headers": [["Retry-After", "0"]] } } });
    again(&registry, &workspace, busy(2)).status(0);
    again(&registry, &workspace, busy(100))
        .status(125)
        .says("[registry-status]");
    again(&registry, &workspace, json!({ "at": { "manifests/1$": { "status": 429, "times": 1, "headers": [["Retry-After", "0"]] } } })).status(0);
    again(
        &registry,
        &workspace,
        json!({ "at": { "manifests/1$": { "status": 404 } } }),
    )
    .status(125)
    .says("[registry-not-found]");
    again(&registry, &workspace, json!({ "delay": 0.3 })).status(0);

    // What is locked and cached needs no registry but for the engine's pull.
    registry.tell(&json!({}));
    workspace.cli(&["lock", "--update", "image"]).status(0);
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "first");
    registry.stop();
    let front = registry.front();
    let down = crate::lock::workspace("127.0.0.1:9", "127.0.0.1:9/app:1");
    down.cli(&["lock", "--yes"])
        .status(125)
        .says("[registry-unreachable]")
        .says("127.0.0.1:9");
    workspace.cli(&["lock", "--offline"]).status(0);
    workspace
        .cli(&["lock", "--offline", "--update", "image"])
        .status(125)
        .says("[offline]");
    registry.tell(&json!({ "at": { "": { "status": 500 } } }));
    assert_eq!(
        workspace.cli(&["run"]).ok(),
        "first",
        "what is here is compared by what is cached"
    );
    // The cache's word is checked like a registry's.
    let digest = lockfile(&workspace)["image"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    let kept = cached(&workspace, &digest);
    let mut bytes = std::fs::read(&kept).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&kept, bytes).unwrap();
    workspace.cli(&["run"]).status(125).says(&front);
    assert!(!kept.exists(), "what was changed is not kept");
    registry.resume();
    registry.tell(&json!({}));
    assert_eq!(workspace.cli(&["run"]).ok(), "first");
}

#[test]
fn nothing_is_followed_out_of_tls_and_no_login_goes_along() {
    let (registry, workspace) = locked();
    let elsewhere = Registry::start();
    let stray = elsewhere.front();
    elsewhere.tell(&json!({}));
    for (to, says) in [
        (
            format!("http://{stray}/v2/app/manifests/1"),
            "[registry-redirect]",
        ),
        ("file:///etc/passwd".to_owned(), "[registry-status]"),
    ] {
        again(
            &registry,
            &workspace,
            json!({ "at": { "manifests/1$": { "status": 307, "headers": [["Location", to]] } } }),
        )
        .status(125)
        .says(says);
    }
    assert!(elsewhere.asked().is_empty(), "{:?}", elsewhere.asked());
    let to = format!("http://{}/v2/app/manifests/1", registry.front());
    again(
        &registry,
        &workspace,
        json!({ "at": { "manifests/1$": { "status": 307, "headers": [["Location", to]] } } }),
    )
    .status(125)
    .says("redirects too often");
    // Where a redirect leads may ask for a login, and does not get the registry's.
    let both = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(&registry.front()))
        .host_table(&Registry::host_table(&stray));
    let image = format!("{}/app:1", registry.front());
    both.put("agentcontainer.json", json!({ "image": image }).to_string());
    both.write_host_config();
    let secret = json!({ "auth": STANDARD.encode("ada:secret") });
    log_in(&both, &registry.front(), &secret);
    elsewhere.tell(&json!({ "login": { "kind": "bearer", "pair": "ada:secret" } }));
    let to = format!("http://{stray}/v2/app/manifests/1");
    let away =
        json!({ "at": { "manifests/1$": { "status": 307, "headers": [["Location", to]] } } });
    registry.tell(&away);
    both.cli(&["lock", "--yes"])
        .status(125)
        .says("[registry-redirect]");
    let asked = elsewhere.asked();
    assert!(!asked.is_empty());
    assert!(
        asked.iter().all(|one| one["authorization"].is_null()),
        "{asked:?}"
    );
    elsewhere.tell(&json!({}));
    // A token service elsewhere without TLS gets no password.
    log_in(
        &workspace,
        &registry.front(),
        &json!({ "auth": STANDARD.encode("ada:secret") }),
    );
    let realm = format!("http://{stray}/token");
    again(
        &registry,
        &workspace,
        json!({ "login": { "kind": "bearer", "pair": "ada:secret", "realm": realm } }),
    )
    .status(125);
    assert!(elsewhere.asked().is_empty(), "{:?}", elsewhere.asked());
}

#[test]
fn a_registry_that_wants_a_login_gets_the_persons_and_nobody_elses() {
    let (registry, workspace) = locked();
    let front = registry.front();
    let basic = json!({ "login": { "kind": "basic", "pair": "ada:secret" } });
    let bearer =
        json!({ "login": { "kind": "bearer", "pair": "ada:secret", "identity": "refresh-1" } });
    for mode in [&basic, &bearer] {
        again(&registry, &workspace, mode.clone())
            .status(125)
            .says("[registry-refused]")
            .says("docker login");
    }
    log_in(
        &workspace,
        "other.test",
        &json!({ "auth": STANDARD.encode("ada:secret") }),
    );
    again(&registry, &workspace, basic.clone())
        .status(125)
        .says("not logged in");
    log_in(
        &workspace,
        &front,
        &json!({ "auth": STANDARD.encode("ada:wrong") }),
    );
    for mode in [&basic, &bearer] {
        again(&registry, &workspace, mode.clone())
            .status(125)
            .says("[registry-refused]");
    }
    log_in(
        &workspace,
        &front,
        &json!({ "auth": STANDARD.encode("ada:secret") }),
    );
    for mode in [&basic, &bearer] {
        again(&registry, &workspace, mode.clone()).status(0);
    }
    log_in(&workspace, &front, &json!({ "identitytoken": "refresh-1" }));
    again(&registry, &workspace, bearer).status(0);
}

fn log_in(workspace: &Workspace, registry: &str, auth: &Value) {
    let docker = workspace.path().with_file_name("home").join(".docker");
    std::fs::create_dir_all(&docker).unwrap();
    let config = json!({ "auths": { registry: auth } });
    std::fs::write(docker.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn a_layer_that_was_changed_on_the_registrys_disk_is_not_run_and_not_exported() {
    let registry = Registry::start();
    let words = format!("{}\n", std::process::id());
    let id = registry.push("app:1", &words);
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let (manifest, _) = registry.manifest("app", "1");
    let layers = manifest["layers"].as_array().unwrap();
    let layer = layers.last().unwrap()["digest"].as_str().unwrap();
    let hex = layer.trim_start_matches("sha256:");
    let file = registry.files().join(format!(
        "docker/registry/v2/blobs/sha256/{}/{hex}/data",
        &hex[..2]
    ));
    let good = std::fs::read(&file).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    std::fs::write(&file, &bad).unwrap();
    agentcontainer_tests::docker::attempt(&["rmi", "--force", &id]);
    registry.forget("app:1");
    let export = workspace.path().with_file_name("out.tar");
    let export = export.display().to_string();
    workspace
        .cli(&["bundle", "export", &export])
        .status(125)
        .says("[digest-mismatch]")
        .says(layer);
    assert!(!std::path::Path::new(&export).exists());
    // The engine hashes what it pulls.
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[image-not-found]")
        .says(layer);
    // The control: as it was, it is.
    std::fs::write(&file, &good).unwrap();
    workspace.cli(&["bundle", "export", &export]).status(0);
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), words.trim());
}
