//! The organisation's word: pushed, signed, pulled, and held to by every `run`, whatever the registry or the laptop does then.

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Workspace, docker, outcome, rig};
use serde_json::{Value, json};

use crate::verify::{Keys, PASSWORD, SBOM, with_password};

/// A policy with these parts.
fn document(serial: u64, parts: &Value) -> String {
    let mut document = json!({
        "version": 1,
        "organisation": "acme",
        "serial": serial,
        "notAfter": "2099-01-01T00:00:00Z",
    });
    for (key, value) in parts.as_object().unwrap() {
        document[key] = value.clone();
    }
    document.to_string()
}

/// Roots of a stand-in: nobody outside this machine is asked for others.
pub fn roots() -> String {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/../registry/testdata");
    format!("{dir}/sigstore-js/trusted_root.json")
}

/// A registry, its front, keys, and a workspace on a host that names `acme/policy:prod` there.
pub struct Acme {
    pub registry: Registry,
    pub front: String,
    pub keys: Keys,
    pub workspace: Workspace,
}

impl Acme {
    pub fn new(config: &dyn Fn(&str) -> Value) -> Self {
        let registry = Registry::start();
        registry.push("app:1", "it runs\n");
        let front = registry.front();
        registry.tell(&json!({}));
        let keys = Keys::new();
        let workspace = Workspace::new()
            .without_locking()
            .with_own_state()
            .host_table(&Registry::host_table(&front))
            .host_table(&format!(
                "[policy]\nsource = \"oci://{front}/acme/policy:prod\"\nkeys = [{:?}]",
                keys.public("ours")
            ))
            .host_table(&format!("[sigstore]\ntrusted_root = {:?}", roots()));
        workspace.put("agentcontainer.json", config(&front).to_string());
        workspace.write_host_config();
        Self {
            registry,
            front,
            keys,
            workspace,
        }
    }

    pub fn source(&self) -> String {
        format!("oci://{}/acme/policy:prod", self.front)
    }

    /// Publishes a document, signed by one of the keys.
    pub fn publish(&self, serial: u64, parts: &Value, key: &str) -> agentcontainer_tests::Outcome {
        let file = self
            .workspace
            .put_outside("policy.json", document(serial, parts));
        let words = [
            "policy",
            "push",
            &file.display().to_string(),
            &self.source(),
            "--force",
            "--key",
            &self.keys.private(key),
        ];
        let out = with_password(&self.workspace, &words);
        out.status(0);
        out
    }

    pub fn run(&self) -> agentcontainer_tests::Outcome {
        self.workspace.cli(&["run", "--yes", "--lock"])
    }
}

pub fn plain(front: &str) -> Value {
    json!({ "image": format!("{front}/app:1") })
}

#[test]
fn a_policy_is_believed_when_it_is_signed_and_never_goes_back() {
    let acme = Acme::new(&plain);
    let pull = || acme.workspace.cli(&["policy", "pull"]);
    // Not there, not signed, signed by somebody else: nothing starts.
    acme.run().status(125).says("[policy-not-found]");
    let file = acme
        .workspace
        .put_outside("policy.json", document(5, &json!({})));
    let file = file.display().to_string();
    acme.workspace
        .cli(&["policy", "push", &file, &acme.source()])
        .status(0)
        .says("policy sign");
    acme.run().status(125).says("[policy-signature]");
    with_password(
        &acme.workspace,
        &[
            "policy",
            "sign",
            &acme.source(),
            "--key",
            &acme.keys.private("theirs"),
        ],
    )
    .status(0);
    acme.run().status(125).says("[policy-signature]");
    with_password(
        &acme.workspace,
        &[
            "policy",
            "sign",
            &acme.source(),
            "--key",
            &acme.keys.private("ours"),
        ],
    )
    .status(0);
    let pulled = pull();
    pulled.status(0);
    assert!(pulled.stdout.contains("serial 5"), "{}", pulled.stdout);
    assert_eq!(acme.run().ok(), "it runs");

    // A lower serial, or another document of the same one: refused, at push and at the host.
    acme.workspace
        .cli(&["policy", "push", &file, &acme.source()])
        .status(125)
        .says("[policy-serial]");
    acme.publish(4, &json!({}), "ours");
    pull().status(125).says("[policy-older]");
    acme.run().status(125).says("[policy-older]");
    acme.publish(
        5,
        &json!({ "denials": { "domains": ["a.example.com"] } }),
        "ours",
    );
    acme.run().status(125).says("[policy-serial-reused]");
    acme.publish(6, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    // Another organisation's, by the same signer, whatever its serial.
    acme.publish(900, &json!({ "organisation": "sandbox" }), "ours");
    acme.run().status(125).says("[policy-organisation]");
    acme.publish(7, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    // The same where config.toml names whose it has to be, before any was believed.
    let config = acme
        .workspace
        .path()
        .with_file_name("config")
        .join("agentcontainer/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let named =
        |name: &str| text.replace("[policy]", &format!("[policy]\norganisation = {name:?}"));
    std::fs::write(&config, named("sandbox")).unwrap();
    acme.run()
        .status(125)
        .says("[policy-organisation]")
        .says("config.toml wants that of sandbox");
    std::fs::write(&config, named("acme")).unwrap();
    assert_eq!(acme.run().ok(), "it runs");
    // Its end.
    let over = json!({ "notAfter": "2020-01-01T00:00:00Z" });
    let file = acme.workspace.put_outside("over.json", document(8, &over));
    acme.workspace
        .cli(&[
            "policy",
            "push",
            &file.display().to_string(),
            &acme.source(),
        ])
        .status(125)
        .says("[policy-expired]");
    // Something else under its tag.
    let (manifest, kind) = acme.registry.manifest("app", "1");
    acme.registry.put_manifest("app", "1", &kind, &manifest);
    let image = format!("oci://{}/app:1", acme.front);
    with_password(
        &acme.workspace,
        &[
            "policy",
            "sign",
            &image,
            "--key",
            &acme.keys.private("ours"),
        ],
    )
    .status(125)
    .says("[malformed]");
}

#[test]
fn the_last_policy_holds_while_its_registry_cannot_be_asked_and_no_other_does() {
    let config = |front: &str| json!({ "image": format!("{front}/app:1"), "agent": { "capabilities": { "network": { "egress": { "allowedDomains": ["api.example.com"] } } } } });
    let acme = Acme::new(&config);
    let ceiling =
        |domains: Value| json!({ "ceilings": { "network": { "allowedDomains": domains } } });
    acme.publish(1, &ceiling(json!(["*.example.com"])), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    acme.registry
        .tell(&json!({ "at": { "acme/policy": { "status": 500 } } }));
    let out = acme.run();
    assert_eq!(out.ok(), "it runs");
    out.says("the last one that was fetched");
    // What was fetched is verified each time: a cache that was changed is no policy.
    let cache = acme
        .workspace
        .path()
        .with_file_name("home")
        .join(".cache/agentcontainer");
    std::fs::rename(&cache, cache.with_extension("away")).unwrap();
    acme.run().status(125);
    std::fs::rename(cache.with_extension("away"), &cache).unwrap();

    acme.registry.tell(&json!({}));
    acme.publish(2, &ceiling(json!(["registry.example.org"])), "ours");
    acme.run()
        .status(125)
        .says("api.example.com")
        .says("agentcontainer.json:")
        .says("acme/policy:prod");
    // A source by digest holds as well as one by tag.
    let digest = acme.registry.digest("acme/policy", "prod");
    let config = acme
        .workspace
        .path()
        .with_file_name("config")
        .join("agentcontainer/config.toml");
    let by_tag = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        by_tag.replace("policy:prod", &format!("policy@{digest}")),
    )
    .unwrap();
    acme.run().status(125).says("api.example.com");
    acme.registry
        .tell(&json!({ "at": { "acme/policy": { "status": 500 } } }));
    acme.run().status(125).says("api.example.com");
    std::fs::write(&config, by_tag).unwrap();
    // Nor is it gone because the registry is.
    acme.registry
        .tell(&json!({ "at": { "acme/policy": { "status": 500 } } }));
    acme.run().status(125).says("api.example.com");
    acme.workspace
        .cli(&["policy", "explain", "api.example.com"])
        .status(2);
}

/// A rule that this key has to have signed everything of the front, in a log or not.
pub fn signed_by(acme: &Acme, key: &str) -> Value {
    let pem = std::fs::read_to_string(acme.keys.public(key)).unwrap();
    json!([{ "references": [format!("{}/**", acme.front)], "keys": [pem], "log": false }])
}

#[test]
fn what_a_policy_requires_of_an_image_holds_before_it_runs() {
    let acme = Acme::new(&plain);
    let image = format!("{}/app:1", acme.front);
    let rule = signed_by(&acme, "theirs");
    // Who says nothing of a log demands one, and a key's signature here is in none.
    let signed = json!({ "requirements": { "signatures": rule } });
    let mut logged = signed.clone();
    let one = logged["requirements"]["signatures"][0].as_object_mut();
    one.unwrap().remove("log");
    acme.publish(1, &logged, "ours");
    acme.run()
        .status(125)
        .says("[not-verified]")
        .says("signature");
    with_password(
        &acme.workspace,
        &["sign", &image, "--key", &acme.keys.private("ours")],
    )
    .status(0);
    acme.run().status(125).says("[not-verified]");
    with_password(
        &acme.workspace,
        &["sign", &image, "--key", &acme.keys.private("theirs")],
    )
    .status(0);
    acme.run().status(125).says("[not-verified]");
    acme.publish(2, &signed, "ours");
    assert_eq!(acme.run().ok(), "it runs");
    acme.workspace.cli(&["verify"]).status(0);
    let kept = crate::lock::lockfile(&acme.workspace)["image"]["verified"].clone();
    assert!(
        kept["signer"]["key"].is_string() && kept["bundle"].is_string(),
        "{kept}"
    );

    // What was gathered is enough while the registry is away: a signature does not end with it.
    acme.registry
        .tell(&json!({ "at": { "": { "status": 500 } } }));
    assert_eq!(acme.run().ok(), "it runs");
    acme.registry.tell(&json!({}));

    // An inventory, by the one who may sign, without what is banned.
    let banned = |range: &str| json!({ "requirements": { "signatures": rule, "sbom": true, "bannedPackages": [{ "type": "npm", "name": "left-pad", "versions": range }] } });
    acme.publish(3, &banned("<1.0.0"), "ours");
    acme.run().status(125).says("inventory");
    let sbom = acme
        .workspace
        .put_outside("sbom.json", SBOM)
        .display()
        .to_string();
    let attest = |key: &str, kind: &str, predicate: &str| {
        let key = acme.keys.private(key);
        let words = ["attest", &image, "--key", &key, "--type", kind];
        let words = [&words[..], &["--predicate", predicate]].concat();
        with_password(&acme.workspace, &words).status(0);
    };
    attest("ours", "spdx", &sbom);
    acme.run().status(125).says("inventory");
    attest("theirs", "spdx", &sbom);
    assert_eq!(acme.run().ok(), "it runs");
    acme.publish(4, &banned(">=1.2.0 <1.4.0"), "ours");
    acme.run()
        .status(125)
        .says("left-pad")
        .says("[not-verified]");

    // How it was built, by the word of one who may sign, which proves no more than that.
    let built = |level: u8| json!({ "requirements": { "signatures": rule, "slsaLevel": level } });
    acme.publish(5, &built(1), "ours");
    acme.run()
        .status(125)
        .says("[not-verified]")
        .says("provenance");
    let predicate = json!({
        "buildDefinition": { "buildType": "https://ci.test/build", "externalParameters": {} },
        "runDetails": { "builder": { "id": "https://ci.test" } },
    });
    let predicate = acme
        .workspace
        .put_outside("provenance.json", predicate.to_string())
        .display()
        .to_string();
    attest("ours", "slsaprovenance1", &predicate);
    acme.run().status(125).says("provenance");
    attest("theirs", "slsaprovenance1", &predicate);
    assert_eq!(acme.run().ok(), "it runs");
    acme.publish(6, &built(2), "ours");
    acme.run()
        .status(125)
        .says("[not-verified]")
        .says("is of level 1");

    // Where it comes from.
    let trusted = |names: Value| json!({ "requirements": { "registries": names } });
    acme.publish(7, &trusted(json!(["registry.example.org"])), "ours");
    acme.run().status(125).says("registry");
    acme.publish(8, &trusted(json!([acme.front])), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    // How old the pin is.
    let all = json!({ "requirements": {
        "lockAge": "12h", "signatures": rule, "sbom": true, "slsaLevel": 1, "registries": [acme.front],
    } });
    acme.publish(9, &all, "ours");
    assert_eq!(acme.run().ok(), "it runs");
    // Each check says what it was made with.
    let said: Value = serde_json::from_str(acme.workspace.cli(&["verify", "--json"]).ok()).unwrap();
    let checks = said["pins"][0]["checks"].as_array().unwrap();
    let kinds: Vec<&str> = checks.iter().filter_map(|c| c["check"].as_str()).collect();
    let expected = ["digest", "signature", "provenance", "inventory", "age"];
    assert_eq!(kinds, expected, "{said}");
    for check in checks {
        assert!(check["evidence"].is_object(), "{check}");
    }
    let path = acme.workspace.path().join("agentcontainer-lock.json");
    let mut lock: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    lock["image"]["resolved"] = json!("2026-01-01T00:00:00Z");
    std::fs::write(&path, lock.to_string()).unwrap();
    acme.run().status(125).says("age");
    acme.workspace.cli(&["verify"]).status(1);
    acme.workspace.cli(&["lock", "--update", "image"]).status(0);
    assert_eq!(acme.run().ok(), "it runs");
}

#[test]
fn a_workspace_adds_a_policy_of_its_own_which_is_locked_and_takes_nothing_away() {
    let registry = Registry::start();
    registry.push("app:1", "it runs\n");
    let name = registry.name();
    let workspace = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(&name));
    let config = |domains: Value| {
        json!({ "image": format!("{name}/app:1"), "agent": {
            "policy": { "source": format!("oci://{name}/team/policy:v1") },
            "capabilities": { "network": { "egress": { "allowedDomains": domains } } },
        } })
        .to_string()
    };
    workspace.put("agentcontainer.json", config(json!(["api.example.com"])));
    workspace.write_host_config();
    let publish = |serial, domains: Value| {
        let parts = json!({ "ceilings": { "network": { "allowedDomains": domains } } });
        let file = workspace.put_outside("team.json", document(serial, &parts));
        let source = format!("oci://{name}/team/policy:v1");
        workspace
            .cli(&["policy", "push", &file.display().to_string(), &source])
            .status(0);
    };
    publish(1, json!(["*.example.com"]));
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[not-locked]");
    workspace
        .cli(&["lock", "--yes"])
        .status(0)
        .says("locked policy");
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "it runs");
    workspace.put(
        "agentcontainer.json",
        config(json!(["api.example.com", "api.example.org"])),
    );
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("api.example.org");
    // A new one takes effect where it is locked.
    publish(2, json!(["*.example.com", "*.example.org"]));
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("api.example.org");
    workspace
        .cli(&["lock", "--update", "policy"])
        .status(0)
        .says("moved policy");
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "it runs");
    // Nor does it go back, whoever can write its tag.
    let locked = crate::lock::lockfile(&workspace)["policy"].clone();
    let source = format!("oci://{name}/team/policy:v1");
    let file = workspace.put_outside("team.json", document(1, &json!({})));
    let file = file.display().to_string();
    workspace
        .cli(&["policy", "push", &file, &source, "--force"])
        .status(0)
        .says("agentcontainer sign");
    workspace
        .cli(&["lock", "--update", "policy"])
        .status(125)
        .says("[policy-older]");
    assert_eq!(crate::lock::lockfile(&workspace)["policy"], locked);
    // Required and nobody named: nothing can hold.
    let mut required: Value = serde_json::from_str(&config(json!(["api.example.com"]))).unwrap();
    required["agent"]["provenance"] = json!({ "require": { "signatures": true } });
    workspace.put("agentcontainer.json", required.to_string());
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("no policy names who may sign");
}

#[test]
fn what_is_required_is_not_locked_without_asking_where_nobody_knows_that_it_holds() {
    let acme = Acme::new(&plain);
    acme.publish(1, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    let offline = || acme.workspace.cli(&["lock", "--offline", "--yes"]);
    offline().status(0);
    let pem = std::fs::read_to_string(acme.keys.public("ours")).unwrap();
    let image = format!("{}/app:1", acme.front);
    let rule =
        json!([{ "references": [format!("{}/**", acme.front)], "keys": [pem], "log": false }]);
    acme.publish(
        2,
        &json!({ "requirements": { "signatures": rule } }),
        "ours",
    );
    acme.workspace.cli(&["policy", "pull"]).status(0);
    // Signed, which nobody here was told.
    let sign = ["sign", &image, "--key", &acme.keys.private("ours")];
    with_password(&acme.workspace, &sign).status(0);
    let lockfile = acme.workspace.path().join("agentcontainer-lock.json");
    std::fs::remove_file(&lockfile).unwrap();
    let digest = acme.registry.digest("app", "1");
    let by_digest = json!({ "image": format!("{}/app@{digest}", acme.front) });
    acme.workspace
        .put("agentcontainer.json", by_digest.to_string());
    offline().status(125).says("[verify-unasked]");
    assert!(!lockfile.exists());
    acme.workspace.cli(&["lock", "--yes"]).status(0);
    std::fs::remove_file(&lockfile).unwrap();
    offline().status(0);
}

#[test]
fn a_note_that_nobody_can_read_is_no_answer() {
    let acme = Acme::new(&plain);
    acme.publish(1, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    acme.workspace.cli(&["verify"]).status(0);
    let policies = acme.workspace.state().join("agentcontainer/policies");
    let mut notes = 0;
    for one in std::fs::read_dir(policies).unwrap().flatten() {
        if one.path().extension().is_some_and(|e| e == "json") {
            std::fs::write(one.path(), "{").unwrap();
            notes += 1;
        }
    }
    assert_eq!(notes, 1);
    for words in [&["verify"][..], &["verify", "--offline"]] {
        acme.workspace.cli(words).status(2).says("[policy-state]");
    }
}

#[test]
fn denied_files_and_programs_hold_for_every_workspace_and_ceilings_are_said_with_both_places() {
    let acme = Acme::new(&plain);
    let script = "echo begun; /bin/cat /words; while read line; do echo \"$line\"; done </etc/group; sleep 0 && echo slept";
    let run = || {
        let words = ["run", "--yes", "--lock", "--", "sh", "-c", script];
        acme.workspace.cli(&words)
    };
    // The control: a policy that says nothing.
    acme.publish(1, &json!({}), "ours");
    let all = "begun\nit runs\nroot:x:0:\nuser:x:1000:\nslept\n";
    assert_eq!(run().stdout, all);

    // The image is one file by many names: one of them is denied.
    let denials = json!({ "binaries": ["cat", "sudo"], "paths": ["/etc/group"] });
    acme.publish(2, &json!({ "denials": denials }), "ours");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    let out = run();
    assert_eq!(out.stdout, "begun\nslept\n", "{}", out.stderr);
    out.says("denied: cat sudo").says("denied: /etc/group");
    acme.workspace
        .cli(&["policy", "show"])
        .status(0)
        .prints("denials.binaries \"cat\" of the policy of acme (mounts, and BPF LSM where it is there)")
        .prints("denials.paths \"/etc/group\" of the policy of acme (mounts, and BPF LSM where it is there)");
    acme.workspace
        .cli(&["policy", "explain", "/bin/cat"])
        .status(1)
        .prints("as a program denied")
        .prints("denials.binaries \"cat\"");

    // What an image is without stops the start, unless the host says that mounts are enough.
    // Its name is too long for the kernel's table: mounts alone would hold it, with BPF LSM too.
    let missing = format!("/etc/{}", "n".repeat(121));
    let denials = json!({ "paths": ["/etc/group", missing] });
    acme.publish(3, &json!({ "denials": denials }), "ours");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    run()
        .status(125)
        .says(&format!("`denials.paths` has \"{missing}\""))
        .says("which is not there");

    let ceilings = json!({
        "filesystem": { "writablePaths": ["/var/cache/**"] }, "tools": { "allowedBinaries": ["sh"] },
    });
    acme.publish(4, &json!({ "ceilings": ceilings }), "ours");
    acme.workspace.cli(&["policy", "pull"]).status(0);
    // The image's one file is sh by another name: a list that has sh has all of it.
    let out = run();
    assert_eq!(out.stdout, all, "{}", out.stderr);
    out.says("no other than: sh");
    let mut config = plain(&acme.front);
    config["agent"]["capabilities"] = json!({
        "filesystem": { "readOnlyPaths": ["."], "writablePaths": ["src"] }, "tools": { "allowedBinaries": ["git"] },
    });
    acme.workspace
        .put("agentcontainer.json", config.to_string());
    run()
        .status(125)
        .says("beyond-ceiling")
        .says("`writablePaths` \"src\" is beyond the policy of acme: `ceilings.filesystem.writablePaths` at ")
        .says("`allowedBinaries` \"git\" is beyond the policy of acme");
}

#[test]
fn an_inventory_that_came_later_is_seen_where_packages_are_banned() {
    let acme = Acme::new(&plain);
    let image = format!("{}/app:1", acme.front);
    let key = acme.keys.private("theirs");
    with_password(&acme.workspace, &["sign", &image, "--key", &key]).status(0);
    let elsewhere = tempfile::tempdir().unwrap();
    let attest = |name: &str, sbom: &str| {
        let file = acme.workspace.put_outside(name, sbom).display().to_string();
        let words = ["attest", &image, "--key", &key, "--type", "spdx"];
        let words = [&words[..], &["--predicate", &file]].concat();
        let mut command = acme.workspace.command(&words);
        command
            .env("COSIGN_PASSWORD", PASSWORD)
            .env("XDG_CACHE_HOME", elsewhere.path());
        outcome::finish(command, outcome::DEADLINE).status(0);
    };
    attest("clean.json", SBOM);
    let banned = json!([{ "type": "npm", "name": "right-pad", "versions": "<2.0.0" }]);
    let parts = json!({ "requirements": { "signatures": signed_by(&acme, "theirs"), "bannedPackages": banned } });
    acme.publish(1, &parts, "ours");
    assert_eq!(acme.run().ok(), "it runs");
    // By somebody else, on another machine: what was gathered here does not know of it.
    attest("later.json", &SBOM.replace("left-pad", "right-pad"));
    acme.run()
        .status(125)
        .says("[not-verified]")
        .says("right-pad");
}

#[test]
fn an_image_of_only_this_engine_is_none_that_a_policy_names_whatever_it_is_called() {
    let own = |front: &str| json!({ "image": format!("{front}/own:1") });
    let acme = Acme::new(&own);
    let name = format!("{}/own:1", acme.front);
    docker::run(&["tag", &rig().image, &name]);
    acme.publish(1, &json!({}), "ours");
    let run = || {
        let words = ["run", "--yes", "--lock", "--", "echo", "it runs"];
        acme.workspace.cli(&words)
    };
    assert_eq!(run().ok(), "it runs");
    let all = format!("{}/**", acme.front);
    let held = [
        (
            json!({ "ceilings": { "images": [all] } }),
            "an image of only this machine's engine",
        ),
        (
            json!({ "requirements": { "registries": [acme.front] } }),
            "comes from only this machine's engine",
        ),
        (
            json!({ "requirements": { "signatures": signed_by(&acme, "ours") } }),
            "nobody can have signed it",
        ),
    ];
    let file = acme.workspace.path().join("agentcontainer-lock.json");
    let locked = std::fs::read(&file).unwrap();
    for (serial, (parts, words)) in (2..).zip(&held) {
        acme.publish(serial, parts, "ours");
        run().status(125).says("[not-verified]").says(words);
        std::fs::remove_file(&file).unwrap();
        acme.workspace
            .cli(&["lock", "--yes"])
            .status(125)
            .says("[not-verified]")
            .says(words);
        std::fs::write(&file, &locked).unwrap();
    }
    acme.publish(9, &json!({}), "ours");
    assert_eq!(run().ok(), "it runs");
    docker::attempt(&["rmi", &name]);
}

#[test]
fn a_variable_of_the_host_comes_inside_by_no_command_past_the_ceiling() {
    let acme = Acme::new(&plain);
    let cli = |words: &[&str]| {
        let mut command = acme.workspace.command(words);
        command.env("SECRET", "of the host").env("LANG", "C.UTF-8");
        outcome::finish(command, outcome::DEADLINE)
    };
    let run = |set: &str| {
        let show = ["--", "sh", "-c", "echo $SECRET$LANG"];
        cli(&[&["run", "--yes", "--lock", "-e", set], &show[..]].concat())
    };
    acme.publish(1, &json!({}), "ours");
    assert_eq!(run("SECRET").ok(), "of the host");
    let ceilings = json!({ "hostVariables": ["LANG"] });
    acme.publish(2, &json!({ "ceilings": ceilings }), "ours");
    run("SECRET")
        .status(125)
        .says("[beyond-ceiling]")
        .says("reading SECRET from this host's environment")
        .says("`ceilings.hostVariables`");
    cli(&["run", "--plan", "-e", "SECRET"])
        .status(125)
        .says("[beyond-ceiling]");
    assert_eq!(run("SECRET=said").ok(), "said");
    assert_eq!(run("LANG").ok(), "C.UTF-8");
    // Nor into a session that runs.
    let detached = cli(&["run", "--yes", "--lock", "--detach", "--", "sleep", "600"]);
    let session = detached.ok();
    let exec = |set: &str| {
        let show = ["--", "sh", "-c", "echo $SECRET$LANG"];
        cli(&[&["exec", session, "-e", set], &show[..]].concat())
    };
    exec("SECRET").status(125).says("[beyond-ceiling]");
    assert_eq!(exec("SECRET=said").ok(), "said");
    assert_eq!(exec("LANG").ok(), "C.UTF-8");
    cli(&["stop", session]).status(0);
}

#[test]
fn a_policys_registry_that_says_nothing_is_not_waited_for_long() {
    let acme = Acme::new(&plain);
    acme.publish(1, &json!({}), "ours");
    assert_eq!(acme.run().ok(), "it runs");
    acme.registry
        .tell(&json!({ "at": { "acme/policy": { "hang": 100 } } }));
    let began = std::time::Instant::now();
    acme.workspace
        .cli(&["lock"])
        .status(0)
        .says("does not answer within 10 s");
    let took = began.elapsed().as_secs();
    assert!((10..25).contains(&took), "{took} s");
}
