//! README's own configs and every example, locked and verified as they stand: in a network of their own, where the registries that they
//! name are one on loopback, with TLS and their names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::peer::Authority;
use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Workspace, rig};
use serde_json::{Value, json};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every sample with the path that its config has in a workspace.
fn samples() -> Vec<(String, PathBuf, String)> {
    let mut out = Vec::new();
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    for (n, block) in readme.split("```jsonc\n").skip(1).enumerate() {
        let text = block.split("\n```").next().unwrap();
        if text.contains("\"image\"") {
            out.push((
                format!("readme-{n}"),
                "agentcontainer.json".into(),
                text.to_owned(),
            ));
        }
    }
    for entry in fs::read_dir(root().join("examples")).unwrap() {
        let dir = entry.unwrap().path();
        for config in ["agentcontainer.json", ".devcontainer/devcontainer.json"] {
            if let Ok(text) = fs::read_to_string(dir.join(config)) {
                let name = dir.file_name().unwrap().to_string_lossy().into_owned();
                out.push((name, config.into(), text));
            }
        }
    }
    out
}

/// The image that a config names.
fn image(config: &str) -> String {
    let line = config
        .lines()
        .find(|line| line.trim_start().starts_with("\"image\""))
        .unwrap();
    line.split('"').nth(3).unwrap().to_owned()
}

/// Registry, repository and tag, as engines take a short name.
fn parts(image: &str) -> (String, String, String) {
    let (name, tag) = image.rsplit_once(':').unwrap();
    match name.split_once('/') {
        Some((host, rest)) if host.contains('.') => {
            (host.to_owned(), rest.to_owned(), tag.to_owned())
        }
        _ => (
            "registry-1.docker.io".to_owned(),
            format!("library/{name}"),
            tag.to_owned(),
        ),
    }
}

/// An image with nothing in it.
fn put(registry: &Registry, repository: &str, tag: &str) {
    let about = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [] } });
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = registry.put_blob(repository, kind, about.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({ "schemaVersion": 2, "mediaType": kind, "config": config, "layers": [] });
    registry.put_manifest(repository, tag, kind, &manifest);
}

#[test]
fn readmes_own_configs_and_every_example_are_locked_and_verified() {
    let samples = samples();
    assert!(samples.len() >= 6, "{samples:?}");
    let registry = Registry::start();
    let mut hosts = BTreeSet::new();
    for (_, _, config) in &samples {
        let (host, repository, tag) = parts(&image(config));
        put(&registry, &repository, &tag);
        hosts.insert(host);
    }
    let names: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let authority = Authority::for_names(&names);
    let workspace = Workspace::new()
        .without_locking()
        .with_own_state()
        .gateway_line(&format!("ca_bundles = [{:?}]", authority.root()));
    workspace.write_host_config();
    for (name, file, text) in &samples {
        let path = workspace.path().join(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    let outside =
        |name: &str, text: String| workspace.put_outside(name, text).display().to_string();
    let settings = outside(
        "far.yml",
        format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:443\n  tls:\n    certificate: {}\n    key: {}\n",
            registry.files().display(),
            authority.certificate().display(),
            authority.key().display()
        ),
    );
    let table = outside(
        "hosts",
        format!("127.0.0.1 localhost {}\n", names.join(" ")),
    );
    let each = "for config in */agentcontainer.json */.devcontainer/devcontainer.json; do
            dir=${config%%/*}; cd $dir
            if $BIN drift --yes 2>/dev/null; then exit 3; fi
            $BIN lock --yes >/dev/null && $BIN lock --check >/dev/null && $BIN verify --json && $BIN verify --offline >/dev/null && $BIN drift >/dev/null || exit 4
            cd ..
        done";
    let script = format!(
        "set -e; ip link set lo up; mount --bind {table} /etc/hosts
         docker-registry serve {settings} >/dev/null 2>&1 & server=$!
         trap 'kill $server' EXIT
         for n in $(seq 100); do curl -s -o /dev/null --cacert {ca} https://{host}/v2/ && break; sleep 0.1; done
         {each}",
        ca = authority.root().display(),
        host = names[0],
    );
    let run = |script: &str| {
        let mut command = Command::new("unshare");
        workspace.environment(&mut command);
        command.env("BIN", &rig().binary);
        command.args([
            "--mount",
            "--net",
            "--propagation",
            "private",
            "--",
            "bash",
            "-c",
            script,
        ]);
        outcome::finish(command, DEADLINE)
    };
    let out = run(&script);
    out.status(0);
    let verdicts: Vec<Value> = serde_json::Deserializer::from_str(&out.stdout)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    assert_eq!(verdicts.len(), samples.len(), "{}", out.stdout);
    for verdict in &verdicts {
        assert_eq!(verdict["verdict"], "holds", "{verdict}");
    }
    for (name, file, _) in &samples {
        let lock = workspace
            .path()
            .join(name)
            .join(file)
            .with_file_name("agentcontainer-lock.json");
        let lock: Value = serde_json::from_slice(&fs::read(lock).unwrap()).unwrap();
        assert!(lock["image"]["digest"].is_string(), "{name}: {lock}");
    }
    // The same without the certificate that they are trusted by: nothing of it is taken on trust.
    let config = workspace.path().with_file_name("config");
    fs::write(config.join("agentcontainer/config.toml"), "").unwrap();
    let dir = samples[0].0.as_str();
    let again = script.replace(
        each,
        &format!("rm -f {dir}/agentcontainer-lock.json; cd {dir}; $BIN lock --yes"),
    );
    let out = run(&again);
    assert_ne!(out.status, 0);
    assert!(out.stderr.contains("certificate"), "{}", out.stderr);
}
