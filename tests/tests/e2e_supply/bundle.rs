//! `bundle export` and `import`: what was locked, signed and attested is carried to a host that reaches no registry, verifies there and
//! runs; a file that was changed or cut brings nothing.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Outcome, Workspace, docker, outcome};
use serde_json::{Value, json};

use crate::lock::workspace;
use crate::organisation::{Acme, plain};
use crate::verify::{Keys, SBOM, with_password};

/// Runs the CLI as another host would: with nothing in its cache.
fn elsewhere(workspace: &Workspace, cache: &Path, words: &[&str]) -> Outcome {
    let mut command = workspace.command(words);
    command.env("XDG_CACHE_HOME", cache);
    outcome::finish(command, outcome::DEADLINE)
}

/// Has the engine forget an image, however it is called.
fn forget(id: &str) {
    docker::attempt(&["rmi", "--force", id]);
    assert!(
        docker::attempt(&["inspect", "--type", "image", id]).status != 0,
        "the engine still has {id}"
    );
}

fn same_but(workspace: &Workspace, registry: &str, config: &Value) -> Workspace {
    let other = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(registry));
    other.put("agentcontainer.json", config.to_string());
    other.write_host_config();
    let lockfile = std::fs::read(workspace.path().join("agentcontainer-lock.json")).unwrap();
    other.put("agentcontainer-lock.json", lockfile);
    other
}

#[test]
fn what_was_exported_verifies_and_runs_where_no_registry_answers() {
    let keys = Keys::new();
    let mut registry = Registry::start();
    registry.push("app:amd64", "carried\n");
    registry.push("app:other", "another\n");
    registry.put_index(
        "app",
        "1",
        &[("amd64", "linux/amd64"), ("other", "linux/s390x")],
    );
    let image = format!("{}/app:1", registry.name());
    let here = workspace(&registry.name(), &image);
    here.cli(&["lock", "--yes"]).status(0);
    let key = keys.private("ours");
    with_password(&here, &["sign", &image, "--key", &key]).status(0);
    let sbom = here.put_outside("sbom.json", SBOM).display().to_string();
    with_password(
        &here,
        &[
            "attest",
            &image,
            "--key",
            &key,
            "--type",
            "spdx",
            "--predicate",
            &sbom,
        ],
    )
    .status(0);
    let file = here.path().with_file_name("carried.tar");
    let name = file.display().to_string();
    here.cli(&["bundle", "export", &name]).status(0);
    // Neither over one that is there, nor for what the image is not made for; the same content is the same file.
    here.cli(&["bundle", "export", &name])
        .status(125)
        .says("[file-exists]");
    here.cli(&[
        "bundle",
        "export",
        &name,
        "--force",
        "--platform",
        "linux/arm64",
    ])
    .status(125)
    .says("[platform]")
    .says("linux/s390x");
    let again = here.path().with_file_name("again.tar");
    here.cli(&["bundle", "export", &again.display().to_string()])
        .status(0);
    assert_eq!(
        std::fs::read(&file).unwrap(),
        std::fs::read(&again).unwrap()
    );

    let (manifest, _) = registry.manifest("app", "amd64");
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    registry.stop();
    forget(&id);
    let there = same_but(&here, &registry.name(), &json!({ "image": image }));
    let cache = tempfile::tempdir().unwrap();
    let cli = |words: &[&str]| elsewhere(&there, cache.path(), words);
    let public = keys.public("ours");
    // Before: nothing of it is here.
    cli(&["verify", "--offline", "--key", &public]).status(2);
    cli(&["run", "--yes", "--offline"])
        .status(125)
        .says("[image-not-here]")
        .says("bundle import");

    let imported = cli(&["bundle", "import", &name]);
    imported.status(0);
    assert!(imported.stdout.contains(&id), "{}", imported.stdout);
    cli(&["verify", "--offline", "--key", &public]).status(0);
    cli(&["verify", "--offline", "--key", &keys.public("theirs")]).status(1);
    cli(&["lock", "--check", "--offline"]).status(0);
    assert_eq!(cli(&["run", "--yes"]).ok(), "carried");
    assert_eq!(cli(&["run", "--yes", "--offline"]).ok(), "carried");
    // Twice is once.
    cli(&["bundle", "import", &name]).status(0);

    // What the engine has is compared with what is locked as if it had been pulled.
    let mut lock: Value = serde_json::from_slice(
        &std::fs::read(there.path().join("agentcontainer-lock.json")).unwrap(),
    )
    .unwrap();
    lock["image"]["platforms"]["linux/amd64"] = lock["image"]["platforms"]["linux/s390x"].clone();
    there.put("agentcontainer-lock.json", lock.to_string());
    cli(&["run", "--yes", "--offline"])
        .status(125)
        .says("what it does not say itself");
    // A lockfile of another content stays; where there is none, the exported one is written.
    cli(&["bundle", "import", &name])
        .status(125)
        .says("[lock-differs]");
    std::fs::remove_file(there.path().join("agentcontainer-lock.json")).unwrap();
    cli(&["bundle", "import", &name])
        .status(0)
        .says("agentcontainer-lock.json");
    assert_eq!(cli(&["run", "--yes", "--offline"]).ok(), "carried");
    forget(&id);
}

#[test]
fn a_file_that_was_changed_or_cut_brings_nothing() {
    let registry = Registry::start();
    registry.push("app:1", "whole\n");
    let image = format!("{}/app:1", registry.name());
    let here = workspace(&registry.name(), &image);
    here.cli(&["lock", "--yes"]).status(0);
    let file = here.path().with_file_name("whole.tar");
    let name = file.display().to_string();
    here.cli(&["bundle", "export", &name]).status(0);
    let (manifest, _) = registry.manifest("app", "1");
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    forget(&id);

    let whole = std::fs::read(&file).unwrap();
    let attempt = |bytes: &[u8]| {
        let there = same_but(&here, &registry.name(), &json!({ "image": image }));
        let cache = tempfile::tempdir().unwrap();
        let file: PathBuf = cache.path().join("file.tar");
        std::fs::write(&file, bytes).unwrap();
        let out = elsewhere(
            &there,
            cache.path(),
            &["bundle", "import", &file.display().to_string()],
        );
        let kept = cache.path().join("agentcontainer").exists();
        let has = docker::attempt(&["inspect", "--type", "image", &id]).status == 0;
        (out, kept, has)
    };
    // In the middle, in a layer's last byte but the end, in a name, at the beginning.
    let last = whole.len() - 1024 - 513;
    for place in [whole.len() / 2, last, 3 * 512 + 20, 0] {
        let mut changed = whole.clone();
        changed[place] ^= 1;
        let (out, kept, has) = attempt(&changed);
        out.status(125).says("nothing of it was taken");
        assert!(!kept && !has, "{place}: {}", out.stderr);
    }
    for length in [0, 1000, whole.len() / 2, whole.len() - 1] {
        let (out, kept, has) = attempt(&whole[..length]);
        out.status(125).says("ends before it is whole");
        assert!(!kept && !has, "{length}: {}", out.stderr);
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert_eq!(attempt(&longer).0.status, 125);
    // The control: the same, unchanged, is taken.
    let (out, kept, has) = attempt(&whole);
    out.status(0);
    assert!(kept && has);
    forget(&id);
}

#[test]
fn a_policy_that_came_in_a_file_is_believed_only_where_it_holds() {
    let acme = Acme::new(&plain);
    let pem = std::fs::read_to_string(acme.keys.public("ours")).unwrap();
    let rule =
        json!([{ "references": [format!("{}/**", acme.front)], "keys": [pem], "log": false }]);
    acme.publish(
        5,
        &json!({ "requirements": { "signatures": rule } }),
        "ours",
    );
    let image = format!("{}/app:1", acme.front);
    let sign = ["sign", &image, "--key", &acme.keys.private("ours")];
    with_password(&acme.workspace, &sign).status(0);
    assert_eq!(acme.run().ok(), "it runs");
    let file = acme.workspace.path().with_file_name("with-policy.tar");
    let name = file.display().to_string();
    acme.workspace.cli(&["bundle", "export", &name]).status(0);
    let (manifest, _) = acme.registry.manifest("app", "1");
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    acme.registry
        .tell(&json!({ "at": { "": { "status": 500 } } }));
    forget(&id);

    let there = |key: &str| {
        let other = Workspace::new()
            .without_locking()
            .with_own_state()
            .host_table(&Registry::host_table(&acme.front))
            .host_table(&format!(
                "[policy]\nsource = {:?}\nkeys = [{:?}]",
                acme.source(),
                acme.keys.public(key)
            ));
        other.put("agentcontainer.json", plain(&acme.front).to_string());
        other.write_host_config();
        other
    };
    // A host that expects another signer believes nothing that came in a file.
    let theirs = there("theirs");
    theirs
        .cli(&["bundle", "import", &name])
        .status(125)
        .says("[policy-signature]");
    assert!(!theirs.path().join("agentcontainer-lock.json").exists());
    let ours = there("ours");
    ours.cli(&["run", "--yes", "--offline"])
        .status(125)
        .says("[policy-not-fetched]");
    let imported = ours.cli(&["bundle", "import", &name]);
    imported.status(0);
    assert!(
        imported.stdout.contains("believed oci://"),
        "{}",
        imported.stdout
    );
    ours.cli(&["verify", "--offline"]).status(0);
    assert_eq!(ours.cli(&["run", "--yes", "--offline"]).ok(), "it runs");
    // What came is enough for what is required, asked or not: the registry does not answer.
    let run = ours.cli(&["run", "--yes"]);
    assert_eq!(run.ok(), "it runs");
    run.says("the last one that was fetched");
    // Without it that stays unasked.
    fs::remove_dir_all(ours.path().with_file_name("home").join(".cache")).unwrap();
    ours.cli(&["run", "--yes"]).status(125);
    forget(&id);
}

#[test]
fn what_a_policy_here_refuses_is_not_handed_to_the_engine() {
    let acme = Acme::new(&plain);
    let image = format!("{}/app:1", acme.front);
    let free = workspace(&acme.front, &image);
    free.cli(&["lock", "--yes"]).status(0);
    let export = |name: &str| {
        let file = free.path().with_file_name(name).display().to_string();
        free.cli(&["bundle", "export", &file]).status(0);
        file
    };
    let bare = export("bare.tar");
    let pem = std::fs::read_to_string(acme.keys.public("ours")).unwrap();
    let rule =
        json!([{ "references": [format!("{}/**", acme.front)], "keys": [pem], "log": false }]);
    acme.publish(
        1,
        &json!({ "requirements": { "signatures": rule } }),
        "ours",
    );
    let strict = &acme.workspace;
    strict.cli(&["policy", "pull"]).status(0);
    let sign = ["sign", &image, "--key", &acme.keys.private("ours")];
    with_password(&free, &sign).status(0);
    let signed = export("signed.tar");
    let (manifest, _) = acme.registry.manifest("app", "1");
    let id = manifest["config"]["digest"].as_str().unwrap().to_owned();
    acme.registry
        .tell(&json!({ "at": { "": { "status": 500 } } }));
    forget(&id);

    let lockfile = strict.path().join("agentcontainer-lock.json");
    strict
        .cli(&["bundle", "import", &bare])
        .status(125)
        .says("[not-verified]");
    assert!(!lockfile.exists());
    assert!(docker::attempt(&["inspect", "--type", "image", &id]).status != 0);
    // The control: the same with what the policy wants.
    strict.cli(&["bundle", "import", &signed]).status(0);
    assert!(lockfile.exists());
    docker::run(&["inspect", "--type", "image", &id]);
    // One that leaves it out hides nothing of what is known.
    strict.cli(&["bundle", "import", &bare]).status(0);
    strict.cli(&["verify", "--offline"]).status(0);
    forget(&id);
}

#[test]
fn a_blob_that_is_waited_for_is_drawn_on_a_terminal_and_nowhere_else() {
    let registry = Registry::start();
    registry.push("app:1", "it runs\n");
    // Three more mebibytes, of which nobody makes fewer.
    let (mut manifest, kind) = registry.manifest("app", "1");
    let layer = manifest["layers"][0]["mediaType"]
        .as_str()
        .unwrap()
        .to_owned();
    let mut bytes = vec![0; 3 << 20];
    let mut random = fs::File::open("/dev/urandom").unwrap();
    random.read_exact(&mut bytes).unwrap();
    let long = registry.put_blob("app", &layer, &bytes);
    manifest["layers"]
        .as_array_mut()
        .unwrap()
        .push(long.clone());
    registry.put_manifest("app", "long", &kind, &manifest);
    let front = registry.front();
    let long = long["digest"].as_str().unwrap();
    registry.tell(&json!({ "at": { (format!("/blobs/{long}")): { "pieces": 12 } } }));
    let here = workspace(&front, &format!("{front}/app:long"));
    here.cli(&["lock", "--yes"]).status(0);

    let file = here.path().with_file_name("long.tar").display().to_string();
    let export = ["bundle", "export", &file, "--force"];
    let on_a_terminal = |more: &str| {
        let binary = agentcontainer_tests::rig().binary.display();
        let line = format!("{binary} {} {more}", export.join(" "));
        let mut script = Command::new("script");
        here.environment(&mut script);
        script.env("TERM", "xterm");
        script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        let out = outcome::finish(script, outcome::DEADLINE);
        out.status(0);
        out.stdout
    };
    let drawn = on_a_terminal("");
    let name = format!("{front}/app@{}", &long["sha256:".len()..][..12]);
    for word in [name.as_str(), "exporting", "MiB/3.00 MiB"] {
        assert!(drawn.contains(word), "{word}: {drawn:?}");
    }
    // Nothing of it stays behind what the command says.
    assert!(drawn.trim_end().ends_with(" bytes"), "{drawn:?}");
    let told = on_a_terminal("--json");
    assert!(
        !told.contains("MiB") && !told.contains('\u{1b}'),
        "{told:?}"
    );
    let piped = here.cli(&export);
    piped.status(0);
    assert!(!piped.stderr.contains("MiB"), "{}", piped.stderr);
}

#[test]
fn an_agent_that_is_run_offline_asks_no_registry_for_its_image() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let front = registry.front();
    registry.tell(&json!({}));
    let image = format!("{front}/app:1");
    let workspace = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(&front));
    workspace.write_host_config();
    let run = |more: &[&str]| {
        let words = ["run", "shell", "--yes", "--image", &image];
        workspace.cli(&[&words[..], more, &["--", "-c", "cat /words"]].concat())
    };
    run(&["--offline"]).status(125).says("[offline]");
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    // What was locked when it was first used is here.
    assert_eq!(run(&[]).ok(), "first");
    registry.tell(&json!({ "at": { "": { "status": 500 } } }));
    assert_eq!(run(&["--offline"]).ok(), "first");
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
}
