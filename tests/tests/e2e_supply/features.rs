//! Features, MCP servers, components and skills: pinned with everything that they depend on, in the order of their installation,
//! and held to what can be had. The devcontainer CLI installs what we locked, and we lock what it did.

use agentcontainer_tests::Workspace;
use agentcontainer_tests::features::{archive, devcontainer, files};
use agentcontainer_tests::registry::Registry;
use serde_json::{Value, json};

use crate::lock::{cached, lockfile, workspace};
use crate::organisation::Acme;

const CONFIG: &str = ".devcontainer/devcontainer.json";

/// A workspace with a devcontainer.json of these features, on a host that knows the registry under both its names.
fn with(registry: &Registry, features: &Value) -> Workspace {
    registry.push("app:1", "it runs\n");
    let workspace = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(&registry.localhost()));
    put(&workspace, registry, features);
    workspace.write_host_config();
    workspace
}

fn put(workspace: &Workspace, registry: &Registry, features: &Value) {
    let image = format!("{}/app:1", registry.localhost());
    let config = json!({ "image": image, "features": features });
    workspace.put(CONFIG, config.to_string());
}

fn read(workspace: &Workspace, name: &str) -> Value {
    let text = std::fs::read(workspace.path().join(".devcontainer").join(name)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn ours(workspace: &Workspace) -> Value {
    read(workspace, "agentcontainer-lock.json")
}

/// `a` depends on `c`, `b` is installed after `a`; what they are called at this registry.
fn three(registry: &Registry) -> [String; 3] {
    let [a, b, c] = ["a", "b", "c"].map(|name| format!("{}/acme/{name}:1", registry.localhost()));
    let after = format!("{}/acme/a", registry.localhost());
    registry.push_feature("acme/c:1", &json!({ "id": "c", "version": "1.0.0" }));
    let metadata = json!({ "id": "a", "version": "1.2.0", "dependsOn": { &c: { "on": true } } });
    // Publishers push `latest` as well, which is where the devcontainer CLI looks for what something is installed after.
    for tag in ["acme/a:1", "acme/a:latest"] {
        registry.push_feature(tag, &metadata);
    }
    registry.push_feature(
        "acme/b:1",
        &json!({ "id": "b", "version": "1.0.3", "installsAfter": [after] }),
    );
    [a, b, c]
}

fn order(lock: &Value) -> Vec<&str> {
    let steps = lock["installOrder"].as_array().unwrap();
    steps
        .iter()
        .map(|step| step["feature"].as_str().unwrap())
        .collect()
}

#[test]
fn features_are_locked_with_what_they_depend_on_in_the_order_of_their_installation() {
    let registry = Registry::start();
    let [a, b, c] = three(&registry);
    let workspace = with(&registry, &json!({ &b: {}, &a: { "version": "20" } }));

    // Reviewed before anybody is asked.
    workspace
        .cli(&["lock"])
        .status(125)
        .says(&format!("install the feature {a} with version=20"));
    workspace.cli(&["config", "check"]).status(0);
    workspace
        .cli(&["lock", "--yes"])
        .status(0)
        .says(&format!("installs 1. {c} with on=true"));
    let lock = ours(&workspace);
    for (name, id) in [("a", &a), ("b", &b), ("c", &c)] {
        let pin = &lock["features"][id];
        assert_eq!(
            pin["digest"],
            registry.digest(&format!("acme/{name}"), "1"),
            "{lock:#}"
        );
        assert_eq!(pin["reference"], id.as_str());
    }
    assert_eq!(lock["features"][&a]["dependsOn"], json!([c]));
    assert_eq!(order(&lock), [&c, &a, &b]);
    assert_eq!(
        lock["installOrder"][1]["options"],
        json!({ "version": "20" })
    );
    workspace.cli(&["lock", "--check"]).status(0);
    workspace.cli(&["verify"]).status(0);
    let said = workspace.cli(&["verify", "--json"]);
    let said: Value = serde_json::from_str(said.ok()).unwrap();
    assert_eq!(said["pins"].as_array().unwrap().len(), 4, "{said:#}");

    // It is not installed yet, and nothing runs without it.
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[not-enforced]")
        .says("devcontainer.json:1:")
        .says("locked and verified by this version, and not installed");

    // A tag that moved moves nothing, until somebody says so of that one name.
    let first = registry.digest("acme/c", "1");
    registry.push_feature("acme/c:1", &json!({ "id": "c", "version": "1.0.1" }));
    workspace
        .cli(&["lock", "--yes"])
        .status(0)
        .says("is current");
    workspace
        .cli(&["lock", "--offline"])
        .status(0)
        .says("is current");
    workspace
        .cli(&["lock", "--update", &c])
        .status(0)
        .says(&format!("moved {c}"));
    let second = registry.digest("acme/c", "1");
    assert_ne!(first, second);
    assert_eq!(ours(&workspace)["features"][&c]["digest"], second);
    assert_eq!(
        read(&workspace, "devcontainer-lock.json")["features"][&c]["integrity"],
        second
    );
    workspace
        .cli(&["lock", "--update", "nobody"])
        .status(125)
        .says("[unknown-pin]");

    // What a feature needs goes with it.
    put(&workspace, &registry, &json!({ &b: {} }));
    workspace.cli(&["lock", "--check"]).status(1);
    workspace
        .cli(&["lock", "--yes"])
        .status(0)
        .says(&format!("removed {c}"));
    assert_eq!(order(&ours(&workspace)), [&b]);
}

#[test]
fn the_devcontainer_cli_installs_what_we_locked_in_our_order() {
    let registry = Registry::start();
    let [a, b, c] = three(&registry);
    let features = json!({ &b: {}, &a: { "version": "20" } });
    let workspace = with(&registry, &features);
    workspace.cli(&["lock", "--yes"]).status(0);
    let path = workspace
        .path()
        .join(".devcontainer/devcontainer-lock.json");
    let written = std::fs::read_to_string(&path).unwrap();

    // Byte for byte what it would write itself.
    std::fs::remove_file(&path).unwrap();
    let theirs = devcontainer(&workspace, &["upgrade", "--dry-run"]);
    assert_eq!(theirs.ok(), written.trim(), "{}", theirs.stderr);

    // A tag that moved moves what it installs, and with our lockfile it does not.
    let locked: Vec<String> = order(&ours(&workspace))
        .iter()
        .map(|id| {
            ours(&workspace)["features"][id]["digest"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    registry.push_feature("acme/c:1", &json!({ "id": "c", "version": "1.0.1" }));
    let installed = |workspace: &Workspace| {
        let out = devcontainer(
            workspace,
            &["features", "resolve-dependencies", "--log-level", "error"],
        );
        let from = out
            .ok()
            .find('{')
            .unwrap_or_else(|| panic!("{}", out.stdout));
        let said: Value =
            serde_json::from_str(&out.stdout[from..]).unwrap_or_else(|_| panic!("{}", out.stdout));
        let steps = said["installOrder"].as_array().unwrap().clone();
        let digest = |step: &Value| {
            step["id"]
                .as_str()
                .unwrap()
                .split_once('@')
                .unwrap()
                .1
                .to_owned()
        };
        steps.iter().map(digest).collect::<Vec<String>>()
    };
    let moved = installed(&workspace);
    assert_eq!(
        moved[0],
        registry.digest("acme/c", "1"),
        "{moved:?} {locked:?}"
    );
    assert_ne!(moved, locked);
    std::fs::write(&path, &written).unwrap();
    assert_eq!(installed(&workspace), locked);
    assert_eq!(locked.len(), 3, "{c}");
}

#[test]
fn what_the_devcontainer_cli_locked_is_what_we_lock() {
    let registry = Registry::start();
    let id = format!("{}/acme/a:1", registry.localhost());
    let first = registry.push_feature("acme/a:1", &json!({ "id": "a", "version": "1.0.0" }));
    let workspace = with(&registry, &json!({ &id: {} }));
    let theirs = devcontainer(&workspace, &["upgrade", "--dry-run"])
        .ok()
        .to_owned();
    let second = registry.push_feature("acme/a:1", &json!({ "id": "a", "version": "1.0.1" }));
    assert_ne!(first, second);
    workspace.put(".devcontainer/devcontainer-lock.json", &theirs);
    workspace.cli(&["lock", "--yes"]).status(0);
    assert_eq!(ours(&workspace)["features"][&id]["digest"], first);

    // Ours counts once there is one, and it says where the other differs.
    let changed = theirs.replace(&first, &second);
    workspace.put(".devcontainer/devcontainer-lock.json", &changed);
    workspace.cli(&["lock", "--check"]).status(1);
    workspace.cli(&["lock"]).status(0);
    assert_eq!(ours(&workspace)["features"][&id]["digest"], first);
    workspace.cli(&["lock", "--check"]).status(0);

    // One that does not hold together is not believed.
    std::fs::remove_file(
        workspace
            .path()
            .join(".devcontainer/agentcontainer-lock.json"),
    )
    .unwrap();
    let torn = theirs.replacen(&first, &second, 1);
    workspace.put(".devcontainer/devcontainer-lock.json", &torn);
    workspace
        .cli(&["lock"])
        .status(125)
        .says("[devcontainer-lock]");
    workspace.cli(&["lock", "--update", &id]).status(0);
    assert_eq!(ours(&workspace)["features"][&id]["digest"], second);

    // It says nothing of a feature that is no longer named.
    let config = workspace.path().join(".devcontainer/devcontainer.json");
    let mut named: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    named.as_object_mut().unwrap().remove("features").unwrap();
    std::fs::write(&config, named.to_string()).unwrap();
    workspace.cli(&["lock", "--check"]).status(1);
    workspace.cli(&["lock", "--yes"]).status(0);
    let left = std::fs::read(
        workspace
            .path()
            .join(".devcontainer/devcontainer-lock.json"),
    );
    let left: Value = serde_json::from_slice(&left.unwrap()).unwrap();
    assert_eq!(left["features"], json!({}));
    workspace.cli(&["lock", "--check"]).status(0);
}

#[test]
fn a_feature_that_leads_out_goes_in_a_circle_or_was_changed_is_refused() {
    let registry = Registry::start();
    let host = registry.localhost();
    let id = format!("{host}/acme/a:1");
    let workspace = with(&registry, &json!({ &id: {} }));
    let lock = || workspace.cli(&["lock", "--yes"]);
    let metadata = json!({ "id": "a" }).to_string();
    let layer = "application/vnd.devcontainers.layer.v1+tar";
    let config = "application/vnd.devcontainers";
    let push = |config: &str, layer: &str, bytes: &[u8]| {
        registry.push_layer("acme/a:1", config, layer, bytes)
    };

    let good = [
        ("devcontainer-feature.json", metadata.as_str()),
        ("install.sh", "true"),
    ];
    let slip = [good[0], good[1], ("../../etc/profile.d/x.sh", "true")];
    push(config, layer, &archive(&slip));
    lock()
        .status(125)
        .says("[feature-archive]")
        .says("leads out");
    push(config, layer, &archive(&good[..1]));
    lock().status(125).says("has no install.sh");
    push(config, layer, &archive(&good[1..]));
    lock().status(125).says("has no devcontainer-feature.json");
    push(
        "application/vnd.oci.image.config.v1+json",
        layer,
        &archive(&good),
    );
    lock().status(125);
    push(
        config,
        "application/vnd.oci.image.layer.v1.tar",
        &archive(&good),
    );
    lock().status(125).says("is no feature");

    // What the devcontainer CLI believes is not another thing than what is in the layer.
    push(config, layer, &archive(&good));
    let (mut manifest, kind) = registry.manifest("acme/a", "1");
    let said = json!({ "id": "a", "dependsOn": { (format!("{host}/evil/b:1")): {} } });
    manifest["annotations"] = json!({ "dev.containers.metadata": said.to_string() });
    registry.put_manifest("acme/a", "1", &kind, &manifest);
    lock().status(125).says("says one thing in its manifest");

    // In a circle, or with what only the config's own folder could have.
    let circle = json!({ "id": "a", "dependsOn": { (format!("{host}/acme/b:1")): {} } });
    registry.push_feature("acme/b:1", &json!({ "id": "b", "dependsOn": { &id: {} } }));
    registry.push_feature("acme/a:1", &circle);
    lock()
        .status(125)
        .says("[feature-order]")
        .says("in a circle");
    registry.push_feature(
        "acme/a:1",
        &json!({ "id": "a", "dependsOn": { "./own": {} } }),
    );
    lock()
        .status(125)
        .says("[feature-order]")
        .says("a config's own folder");

    // What would unmake the sandbox, of a dependency too.
    registry.push_feature(
        "acme/b:1",
        &json!({ "id": "b", "privileged": true, "capAdd": ["SYS_ADMIN"] }),
    );
    registry.push_feature("acme/a:1", &circle);
    lock()
        .status(125)
        .says("[refused-feature]")
        .says("not confined")
        .says("SYS_ADMIN");
    registry.push_feature(
        "acme/b:1",
        &json!({ "id": "b", "mounts": ["source=/var/run/docker.sock,target=/s,type=bind"] }),
    );
    lock().status(125).says("[invalid-mount]");
    assert!(
        !workspace
            .path()
            .join(".devcontainer/agentcontainer-lock.json")
            .exists()
    );

    // The same without any of it.
    registry.push_feature("acme/b:1", &json!({ "id": "b" }));
    lock().status(0);

    // A layer that was changed on the registry's disk is not read.
    let forget = || {
        for name in ["agentcontainer-lock.json", "devcontainer-lock.json"] {
            std::fs::remove_file(workspace.path().join(".devcontainer").join(name)).unwrap();
        }
    };
    forget();
    let bytes = files(&json!({ "id": "a", "version": "7.0.0" }));
    push(config, layer, &bytes);
    let digest = agentcontainer_tests::features::digest(&bytes);
    let hex = digest.strip_prefix("sha256:").unwrap();
    let blob = registry
        .files()
        .join("docker/registry/v2/blobs/sha256")
        .join(&hex[..2])
        .join(hex)
        .join("data");
    let was = std::fs::read(&blob).unwrap();
    let mut changed = was.clone();
    let at = changed
        .windows(5)
        .position(|part| part == b"7.0.0")
        .unwrap();
    changed[at] = b'8';
    std::fs::write(&blob, &changed).unwrap();
    lock().status(125).says("[digest-mismatch]");
    std::fs::write(&blob, &was).unwrap();
    lock().status(0);
    // Nor one that was changed in the cache.
    std::fs::write(cached(&workspace, &digest), &changed).unwrap();
    std::fs::write(&blob, &changed).unwrap();
    lock().status(125).says("[digest-mismatch]");
}

#[test]
fn a_feature_beside_the_config_is_locked_by_its_content() {
    let registry = Registry::start();
    let workspace = with(&registry, &json!({ "./own": {} }));
    let metadata = |version: &str| json!({ "id": "own", "version": version }).to_string();
    workspace.put(
        ".devcontainer/own/devcontainer-feature.json",
        metadata("1.0.0"),
    );
    workspace.put(".devcontainer/own/install.sh", "true\n");
    workspace.cli(&["lock", "--yes"]).status(0);
    let digest = ours(&workspace)["localFeatures"]["./own"]["digest"].clone();
    assert!(digest.is_string());
    workspace.cli(&["lock", "--check"]).status(0);
    workspace.cli(&["verify", "--offline"]).status(0);
    workspace.put(".devcontainer/own/install.sh", "echo changed\n");
    workspace.cli(&["lock", "--check"]).status(1);
    workspace
        .cli(&["lock"])
        .status(125)
        .says("[feature-changed]");
    let said = workspace.cli(&["verify"]);
    said.status(1);
    assert!(said.stdout.contains("./own is sha256:"), "{}", said.stdout);
    workspace.cli(&["lock", "--update", "./own"]).status(0);
    assert_ne!(ours(&workspace)["localFeatures"]["./own"]["digest"], digest);
    workspace.cli(&["lock", "--check"]).status(0);
}

#[test]
fn mcp_servers_components_and_skills_are_pinned_and_verified() {
    let registry = Registry::start();
    let host = registry.name();
    let push = |name: &str, text: &str| {
        let bytes = archive(&[("x", text)]);
        registry.push_layer(
            name,
            "application/vnd.oci.empty.v1+json",
            "application/vnd.oci.image.layer.v1.tar",
            &bytes,
        )
    };
    let first = push("acme/mcp:1", "one");
    let component = push("acme/component:1", "one");
    let skill = push("acme/skill:1", "one");
    registry.push("app:1", "it runs\n");
    let image = format!("{host}/app:1");
    let workspace = workspace(&host, &image);
    let config = json!({ "image": image, "agent": { "tools": {
        "mcp": { "db": format!("oci://{host}/acme/mcp:1") },
        "components": { "db": { "source": format!("oci://{host}/acme/component:1") } },
        "skills": { "db": format!("oci://{host}/acme/skill:1") },
    } } });
    workspace.put("agentcontainer.json", config.to_string());
    workspace
        .cli(&["lock"])
        .status(125)
        .says("use the MCP server db from oci://");
    workspace.cli(&["lock", "--yes"]).status(0);
    let lock = lockfile(&workspace);
    assert_eq!(lock["mcp"]["db"]["digest"], first);
    assert_eq!(lock["components"]["db"]["digest"], component);
    assert_eq!(lock["skills"]["db"]["digest"], skill);
    workspace.cli(&["lock", "--check"]).status(0);
    let said = workspace.cli(&["verify", "--json"]);
    let said: Value = serde_json::from_str(said.ok()).unwrap();
    let names: Vec<&str> = said["pins"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pin| pin["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["component:db", "image", "mcp:db", "skill:db"]);
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[not-enforced]")
        .says("MCP server db");

    let second = push("acme/mcp:1", "two");
    workspace.cli(&["lock"]).status(0).says("is current");
    workspace
        .cli(&["lock", "--update", "mcp:db"])
        .status(0)
        .says("moved mcp:db");
    let lock = lockfile(&workspace);
    assert_eq!(lock["mcp"]["db"]["digest"], second);
    assert_eq!(lock["skills"]["db"]["digest"], skill);

    // Another source under the same name is not what was locked.
    let other = config.to_string().replace("acme/skill:1", "acme/mcp:1");
    workspace.put("agentcontainer.json", other);
    workspace.cli(&["lock", "--check"]).status(1);
    workspace
        .cli(&["verify", "--yes"])
        .status(1)
        .says("[lock-drift]");
}

#[test]
fn a_policys_ceilings_hold_for_features_what_they_depend_on_and_what_they_demand() {
    let config = |front: &str| json!({ "image": format!("{front}/app:1"), "features": { format!("{front}/acme/a:1"): {} } });
    let acme = Acme::new(&config);
    let front = acme.front.clone();
    let needs = json!({ "id": "a", "dependsOn": { (format!("{front}/other/b:1")): {} } });
    acme.registry.push_feature("acme/a:1", &needs);
    let volume = json!({ "id": "b", "mounts": ["source=b,target=/var/lib/b,type=volume"], "containerEnv": { "U": "${localEnv:USER}" } });
    acme.registry.push_feature("other/b:1", &volume);
    let lock = || acme.workspace.cli(&["lock", "--yes"]);
    let ceilings = |serial: u64, ceilings: Value| {
        acme.publish(serial, &json!({ "ceilings": ceilings }), "ours")
    };

    let all = json!([format!("{front}/acme/*"), format!("{front}/other/*")]);
    let own = json!([format!("{front}/acme/*")]);
    ceilings(1, json!({ "features": [] }));
    lock()
        .status(125)
        .says("[beyond-ceiling]")
        .says("ceilings.features")
        .says("agentcontainer.json:1:");
    ceilings(2, json!({ "features": own }));
    acme.registry.tell(&json!({}));
    lock()
        .status(125)
        .says("[beyond-ceiling]")
        .says("other/b:1");
    let asked = acme.registry.asked();
    assert!(
        !asked.iter().any(|one| one.to_string().contains("other/b")),
        "{asked:?}"
    );
    ceilings(3, json!({ "features": all, "mounts": ["tmpfs"] }));
    lock()
        .status(125)
        .says("ceilings.mounts")
        .says("which is of kind volume");
    ceilings(4, json!({ "features": all, "hostVariables": [] }));
    lock()
        .status(125)
        .says("ceilings.hostVariables")
        .says("USER");
    ceilings(
        5,
        json!({ "features": all, "mounts": ["volume"], "hostVariables": ["USER"] }),
    );
    lock()
        .status(0)
        .says("demands mount ")
        .says("demands containerEnv U=${localEnv:USER}");
    let again = acme.workspace.cli(&["verify"]);
    again.status(0);
    assert!(!again.stderr.contains("demands"), "{}", again.stderr);
    // Whoever has somebody else's lockfile sees it too, once.
    let colleague = Workspace::new()
        .without_locking()
        .with_own_state()
        .host_table(&Registry::host_table(&front));
    for name in ["agentcontainer.json", "agentcontainer-lock.json"] {
        let text = std::fs::read(acme.workspace.path().join(name)).unwrap();
        colleague.put(name, text);
    }
    colleague.write_host_config();
    let first = colleague.cli(&["lock", "--yes"]);
    first.status(0).says("demands mount ");
    let second = colleague.cli(&["lock", "--yes"]);
    second.status(0);
    assert!(!second.stderr.contains("demands"), "{}", second.stderr);
    // What was locked before is held to what holds now.
    ceilings(6, json!({ "features": own }));
    let said = acme.workspace.cli(&["verify"]);
    said.status(1);
    assert!(said.stdout.contains("ceilings.features"), "{}", said.stdout);
}

#[test]
fn a_lockfile_that_says_something_else_of_features_does_not_hold() {
    let registry = Registry::start();
    let [a, b, _] = three(&registry);
    let workspace = with(&registry, &json!({ &b: {}, &a: {} }));
    workspace.cli(&["lock", "--yes"]).status(0);
    workspace.cli(&["verify"]).status(0);
    let good = ours(&workspace);
    let says = |change: &dyn Fn(&mut Value)| {
        let mut lock = good.clone();
        change(&mut lock);
        let path = ".devcontainer/agentcontainer-lock.json";
        workspace.put(path, lock.to_string());
        let out = workspace.cli(&["verify"]);
        out.status(1);
        let said = out.stdout.contains("fails") || out.stderr.contains("[lock-drift]");
        assert!(said, "{}{}", out.stdout, out.stderr);
        workspace.cli(&["drift"]).status(2).says("[lock-drift]");
    };
    says(&|lock| lock["features"][&a]["version"] = json!("999"));
    says(&|lock| lock["installOrder"].as_array_mut().unwrap().reverse());
    says(&|lock| drop(lock["installOrder"].as_array_mut().unwrap().pop()));
    says(&|lock| lock["features"][&a]["dependsOn"] = json!([]));
    // A host that the lockfile alone names is asked nothing: it would not answer, and that would be 2.
    let foreign = "127.0.0.1:9/never/asked:1";
    says(&|lock| {
        let mut pin = lock["features"][&a].clone();
        pin["reference"] = json!(foreign);
        pin["dependsOn"] = json!([]);
        lock["features"][foreign] = pin;
        lock["features"][&b]["dependsOn"] = json!([foreign]);
    });
}
