//! `lock` and what `run` does with it: a tag may move, the program that runs does not.

use std::path::PathBuf;

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Workspace, docker, outcome, rig};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// A workspace of one image, with a state, a cache and a `run` that locks nothing by itself.
pub fn workspace(registry: &str, image: &str) -> Workspace {
    let workspace = Workspace::new()
        .without_locking()
        .host_table(&Registry::host_table(registry));
    workspace.put("agentcontainer.json", json!({ "image": image }).to_string());
    workspace.write_host_config();
    workspace
}

pub fn lockfile(workspace: &Workspace) -> Value {
    let text = std::fs::read(workspace.path().join("agentcontainer-lock.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

/// The one file in the cache for a digest.
pub fn cached(workspace: &Workspace, digest: &str) -> PathBuf {
    let hex = digest.strip_prefix("sha256:").unwrap();
    workspace
        .path()
        .with_file_name("home")
        .join(".cache/agentcontainer/content/sha256")
        .join(hex)
}

#[test]
fn nothing_runs_that_is_not_locked_and_a_moved_tag_moves_nothing() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);

    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[not-locked]")
        .says("agentcontainer lock");
    let locked = workspace.cli(&["lock", "--yes"]);
    locked.status(0).says("locked image");
    let first = registry.digest("app", "1");
    assert!(locked.stdout.contains(&first), "{}", locked.stdout);
    let lock = lockfile(&workspace);
    assert_eq!(lock["image"]["digest"], first.as_str());
    assert_eq!(lock["image"]["reference"], image.as_str());
    assert_eq!(lock["image"]["platforms"]["linux/amd64"], first.as_str());
    registry.forget("app:1");
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "first");

    // Again: nothing is asked for, nothing is written.
    let before = std::fs::metadata(workspace.path().join("agentcontainer-lock.json"))
        .unwrap()
        .modified()
        .unwrap();
    workspace.cli(&["lock"]).status(0).says("is current");
    let after = std::fs::metadata(workspace.path().join("agentcontainer-lock.json")).unwrap();
    assert_eq!(after.modified().unwrap(), before);
    workspace.cli(&["lock", "--check"]).status(0);

    registry.push("app:1", "second\n");
    let second = registry.digest("app", "1");
    assert_ne!(first, second);
    assert_eq!(workspace.cli(&["run"]).ok(), "first");
    let moved = workspace.cli(&["lock", "--update", "image", "--json"]);
    let said: Value = serde_json::from_str(moved.ok()).unwrap();
    assert_eq!(said["changes"][0]["change"], "moved");
    assert_eq!(said["changes"][0]["from"], first.as_str());
    assert_eq!(said["changes"][0]["to"], second.as_str());
    assert_eq!(workspace.cli(&["run"]).ok(), "second");
}

#[test]
fn a_config_that_names_another_image_is_not_locked_by_the_old_one() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    registry.push("app:2", "second\n");
    let of = |tag: &str| format!("{}/app:{tag}", registry.name());
    let workspace = workspace(&registry.name(), &of("1"));
    workspace.cli(&["lock", "--yes"]).status(0);
    workspace.put(
        "agentcontainer.json",
        json!({ "image": of("2") }).to_string(),
    );
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[lock-drift]")
        .says(&format!(
            "image is {} now, and {} is locked",
            of("2"),
            of("1")
        ));
    let check = workspace.cli(&["lock", "--check"]);
    check.status(1);
    assert!(check.stdout.contains("app:1 is locked"), "{}", check.stdout);
    assert_eq!(workspace.cli(&["run", "--yes", "--lock"]).ok(), "second");
    workspace.cli(&["lock", "--check"]).status(0);
    // What was not looked up needs no registry; what changed in the config beside its names is said.
    workspace.put(
        "agentcontainer.json",
        json!({ "image": of("2"), "containerEnv": { "A": "b" } }).to_string(),
    );
    let check = workspace.cli(&["lock", "--check"]);
    check.status(1);
    assert!(
        check.stdout.contains("has changed since"),
        "{}",
        check.stdout
    );
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "second");
    workspace.put("agentcontainer-lock.json", "<<<<<<< HEAD\n{}\n");
    workspace
        .cli(&["lock", "--check"])
        .status(2)
        .says("conflict");
    workspace.cli(&["run"]).status(125).says("conflict");
}

#[test]
fn what_only_the_engine_has_is_locked_by_its_id() {
    let registry = Registry::start();
    let workspace = workspace(&registry.name(), &rig().image);
    let locked = workspace.cli(&["lock", "--yes"]);
    locked.status(0);
    assert!(locked.stdout.contains("engine alone"), "{}", locked.stdout);
    let lock = lockfile(&workspace);
    let id = docker::run(&["inspect", "--format", "{{.Id}}", &rig().image]);
    assert_eq!(lock["image"]["local"], true);
    assert_eq!(lock["image"]["digest"], id.as_str());
    assert_eq!(
        workspace
            .cli(&["run", "--yes", "--", "echo", "it runs"])
            .ok(),
        "it runs"
    );

    // The same name on another engine, or built anew, is another image.
    let other = json!(format!("sha256:{}", "0".repeat(64)));
    let mut changed = lock.clone();
    changed["image"]["digest"] = other;
    workspace.put("agentcontainer-lock.json", changed.to_string());
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[image-moved]")
        .says("--update image");
    // Nor does the id of an image that is here make it one of another name.
    changed["image"]["digest"] = json!(id);
    changed["image"]["reference"] = json!("surely/not-here:1");
    workspace.put("agentcontainer-lock.json", changed.to_string());
    workspace.put("agentcontainer.json", r#"{ "image": "surely/not-here:1" }"#);
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("[image-not-here]");
}

#[test]
fn an_index_is_locked_with_every_platform_and_another_manifest_in_it_is_not_run() {
    let registry = Registry::start();
    registry.push("app:amd64", "ours\n");
    registry.push("app:other", "another\n");
    let index = registry.put_index(
        "app",
        "1",
        &[("amd64", "linux/amd64"), ("other", "linux/s390x")],
    );
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let lock = lockfile(&workspace);
    assert_eq!(lock["image"]["digest"], index.as_str());
    let ours = registry.digest("app", "amd64");
    let another = registry.digest("app", "other");
    assert_eq!(
        lock["image"]["platforms"],
        json!({ "linux/amd64": ours, "linux/s390x": another })
    );
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "ours");
    workspace
        .cli(&["lock", "--platform", "linux/arm64"])
        .status(125)
        .says("has nothing for linux/arm64")
        .says("linux/amd64, linux/s390x");

    // The lockfile says another manifest for this platform than what the engine made of the index.
    let mut swapped = lock.clone();
    swapped["image"]["platforms"]["linux/amd64"] = json!(another);
    workspace.put("agentcontainer-lock.json", swapped.to_string());
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("what it does not say itself");
    let mut without = lock.clone();
    without["image"]["platforms"] = json!({ "linux/s390x": another });
    workspace.put("agentcontainer-lock.json", without.to_string());
    workspace
        .cli(&["run", "--yes"])
        .status(125)
        .says("what it does not say itself");
    workspace.put("agentcontainer-lock.json", lock.to_string());
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "ours");
}

#[test]
fn nothing_is_asked_of_a_registry_before_the_workspace_was_reviewed() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    registry.tell(&json!({}));
    let front = registry.front();
    let workspace = workspace(&front, &format!("{front}/app:1"));
    workspace.cli(&["lock"]).status(125).says("--yes");
    workspace.cli(&["run", "--lock"]).status(125).says("--yes");
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    workspace.cli(&["lock", "--yes"]).status(0);
    assert!(!registry.asked().is_empty());
}

#[test]
fn many_locks_and_runs_at_once_share_one_cache() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let image = format!("{}/app:1", registry.name());
    let workspaces: Vec<Workspace> = (0..10)
        .map(|_| workspace(&registry.name(), &image))
        .collect();
    let shared = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for workspace in &workspaces {
            let cache = shared.path();
            scope.spawn(move || {
                for words in [
                    &["lock", "--yes"][..],
                    &["run", "--yes"],
                    &["lock", "--update", "image"],
                ] {
                    let mut command = workspace.command(words);
                    command.env("XDG_CACHE_HOME", cache);
                    let out = agentcontainer_tests::outcome::finish(
                        command,
                        agentcontainer_tests::outcome::DEADLINE,
                    );
                    out.status(0);
                }
            });
        }
    });
    let digests: Vec<Value> = workspaces
        .iter()
        .map(|w| lockfile(w)["image"]["digest"].clone())
        .collect();
    assert!(digests.iter().all(|d| *d == digests[0]));
    let kept = std::fs::read_dir(shared.path().join("agentcontainer/content/sha256")).unwrap();
    for file in kept.flatten() {
        let name = file.file_name().into_string().unwrap();
        assert!(!name.starts_with('.'), "{name} was left half-written");
    }
}

#[test]
fn a_lock_that_is_killed_leaves_a_whole_lockfile_or_the_old_one() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let mut killed = 0;
    for n in 0..40u64 {
        registry_tag(&registry, n);
        let mut child = workspace.spawn(&["lock", "--update", "image"]);
        std::thread::sleep(std::time::Duration::from_millis(2 + n));
        if child.try_wait().unwrap().is_none() {
            killed += 1;
            let _ = child.kill();
        }
        let _ = child.wait();
        // Whatever became of it: it reads, and what it names is in the registry.
        let digest = lockfile(&workspace)["image"]["digest"]
            .as_str()
            .unwrap()
            .to_owned();
        registry.manifest("app", &digest);
        workspace.cli(&["lock", "--check"]).status(0);
    }
    assert!(killed > 5, "only {killed} of 40 were killed");
    workspace.cli(&["lock", "--update", "image"]).status(0);
    assert_eq!(
        lockfile(&workspace)["image"]["digest"],
        registry.digest("app", "1").as_str()
    );
    let mut left: Vec<_> = std::fs::read_dir(workspace.path())
        .unwrap()
        .flatten()
        .map(|e| e.file_name().into_string().unwrap())
        .filter(|name| name.contains("lock.json."))
        .collect();
    assert!(left.len() <= killed, "{left:?}");
    // What is left of them goes with the next one that writes; of something else's it takes nothing.
    left.push(".agentcontainer-lock.json.4194304".to_owned());
    workspace.put(&left[left.len() - 1], "{");
    workspace.put(".agentcontainer-lock.json.kept", "{");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    registry_tag(&registry, 99);
    workspace.cli(&["lock", "--update", "image"]).status(0);
    for name in &left {
        assert!(!workspace.path().join(name).exists(), "{name}");
    }
    let other = workspace.path().join(".agentcontainer-lock.json.kept");
    assert!(other.exists());
}

#[test]
fn a_lock_that_keeps_every_pin_asks_no_engine() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let place = workspace.path().with_file_name("engine.sock");
    let engine = std::os::unix::net::UnixListener::bind(&place).unwrap();
    engine.set_nonblocking(true).unwrap();
    let lock = |more: &[&str]| {
        let mut command = workspace.command([&["lock", "--offline"], more].concat());
        command.env("DOCKER_HOST", format!("unix://{}", place.display()));
        outcome::finish(command, std::time::Duration::from_secs(5))
    };
    lock(&[]).status(0);
    assert!(engine.accept().is_err(), "the engine was asked");
    // The control: what is pinned anew may be the engine's own. Nobody answers here.
    let asked = std::thread::spawn(move || {
        for _ in 0..100 {
            if engine.accept().is_ok() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        false
    });
    lock(&["--update", "image"]).status(125);
    assert!(asked.join().unwrap());
}

/// Runs a script where a file system of its own, of 64 KiB, may be mounted.
pub fn on_its_own_mounts(workspace: &Workspace, script: &str) -> agentcontainer_tests::Outcome {
    let mut command = std::process::Command::new("unshare");
    workspace.environment(&mut command);
    command.env("BIN", &rig().binary);
    command.args(["--mount", "--propagation", "private", "--"]);
    command.args(["bash", "-c", script]);
    outcome::finish(command, outcome::DEADLINE)
}

#[test]
fn on_a_full_disk_nothing_is_half_there() {
    let registry = Registry::start();
    // A configuration that is larger than what is left of the disk.
    let long = format!("ENV LONG={}", "x".repeat(30_000));
    registry.push_with("app:1", "first\n", &[&long]);
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    let cache = workspace.path().with_file_name("full");
    std::fs::create_dir(&cache).unwrap();
    let script = format!(
        "mount -t tmpfs -o size=64k none {cache} && head -c 40000 /dev/zero >{cache}/filler || exit 9
         export XDG_CACHE_HOME={cache}
         $BIN lock --yes >/dev/null || exit 3
         find {cache}/agentcontainer -type f -exec sha256sum {{}} +
         $BIN verify --offline >/dev/null; echo verified $?",
        cache = cache.display()
    );
    let out = on_its_own_mounts(&workspace, &script);
    let said: Vec<&str> = out.ok().lines().collect();
    let (last, files) = said.split_last().unwrap();
    assert_eq!(
        *last, "verified 2",
        "what was not kept was asked for: {said:?}"
    );
    assert!(!files.is_empty(), "nothing was kept: {said:?}");
    for line in files
        .iter()
        .filter(|line| line.contains("/content/sha256/"))
    {
        let (digest, file) = line.split_once("  ").unwrap();
        assert!(file.ends_with(digest), "{line}");
    }

    // The workspace's own disk: the old lockfile is there, whole, and nothing beside it.
    workspace.cli(&["lock", "--yes"]).status(0);
    let before = lockfile(&workspace);
    registry_tag(&registry, 1);
    let script = format!(
        "cp -a {ws}/. {copy} && mount -t tmpfs -o size=64k none {ws} && cp -a {copy}/. {ws}/ && cd {ws} || exit 9
         head -c 100000 /dev/zero >filler 2>/dev/null
         $BIN lock --update image; echo locked $?
         ls -A; cat agentcontainer-lock.json",
        ws = workspace.path().display(),
        copy = workspace.path().with_file_name("copy").display()
    );
    std::fs::create_dir(workspace.path().with_file_name("copy")).unwrap();
    let out = on_its_own_mounts(&workspace, &script);
    let (listed, kept) = out.ok().split_once("\n{").unwrap();
    let kept: Value = serde_json::from_str(&format!("{{{kept}")).unwrap();
    assert_eq!(kept, before);
    let expected = "locked 125\nagentcontainer-lock.json\nagentcontainer.json\nfiller";
    assert_eq!(listed, expected, "{}", out.stderr);
    out.says("No space left");
}

/// Moves `app:1` back and forth without a push by the engine: the same manifest with another annotation.
fn registry_tag(registry: &Registry, n: u64) {
    let (mut manifest, kind) = registry.manifest("app", "1");
    manifest["annotations"] = json!({ "n": n.to_string() });
    registry.put_manifest("app", "1", &kind, &manifest);
}

#[test]
fn a_lockfile_that_gives_a_digest_another_images_platforms_runs_nothing() {
    let registry = Registry::start();
    registry.push("other:1", "another\n");
    registry.push("app:1", "it runs\n");
    let name = |image: &str| format!("{}/{image}", registry.name());
    let workspace = workspace(&registry.name(), &name("other:1"));
    workspace.cli(&["lock", "--yes"]).status(0);
    // It is here, and its manifests are in the cache.
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "another");
    let other = lockfile(&workspace)["image"].clone();
    workspace.put(
        "agentcontainer.json",
        json!({ "image": name("app:1") }).to_string(),
    );
    workspace.cli(&["lock", "--yes"]).status(0);
    assert_eq!(workspace.cli(&["run", "--yes"]).ok(), "it runs");

    let mut lock = lockfile(&workspace);
    lock["image"]["platforms"] = other["platforms"].clone();
    let path = workspace.path().join("agentcontainer-lock.json");
    std::fs::write(&path, lock.to_string()).unwrap();
    let refused = || {
        let out = workspace.cli(&["run", "--yes"]);
        out.status(125).says("what it does not say itself");
        assert!(!out.stdout.contains("another"), "{}", out.stdout);
    };
    refused();
    registry.forget("app:1");
    refused();
    let file = workspace.path().with_file_name("forged.tar");
    let export = ["bundle", "export", &file.display().to_string()];
    assert_ne!(workspace.cli(&export).status, 0);
}

#[test]
fn fifty_references_are_asked_about_at_once_and_what_is_the_same_for_all_is_asked_once() {
    const FEATURES: usize = 49;
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    for n in 0..FEATURES {
        registry.push_feature(
            &format!("features/f{n}:1"),
            &json!({ "id": format!("f{n}"), "version": "1.0.0" }),
        );
    }
    let front = registry.front();
    let workspace = workspace(&front, &format!("{front}/app:1"));
    let features: serde_json::Map<String, Value> = (0..FEATURES)
        .map(|n| (format!("{front}/features/f{n}:1"), json!({})))
        .collect();
    let config = json!({ "image": format!("{front}/app:1"), "features": features });
    workspace.put("agentcontainer.json", config.to_string());
    // One more than there are is never together: the front would see that they are not.
    for (together, status) in [(FEATURES + 2, 125), (FEATURES + 1, 0)] {
        registry.tell(&json!({
            "login": { "kind": "token", "pair": "a:b" },
            "at": { "/manifests/1$": { "together": together } },
        }));
        login(&workspace, &front);
        workspace.cli(&["lock", "--yes"]).status(status);
    }
    let asked = registry.asked();
    let mut tokens: Vec<&str> = asked
        .iter()
        .filter_map(|asked| {
            asked["path"]
                .as_str()
                .filter(|path| path.starts_with("/token"))
        })
        .collect();
    assert_eq!(tokens.len(), FEATURES + 1);
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), FEATURES + 1, "one for each repository");
}

/// What `docker login` would leave for a registry.
fn login(workspace: &Workspace, registry: &str) {
    let dir = workspace.path().with_file_name("home").join(".docker");
    std::fs::create_dir_all(&dir).unwrap();
    let auth = STANDARD.encode("a:b");
    let text = json!({ "auths": { registry: { "auth": auth } } }).to_string();
    std::fs::write(dir.join("config.json"), text).unwrap();
}
