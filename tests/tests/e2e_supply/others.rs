//! Tools that are not ours read what we push: skopeo and crane see the policy, the signed image and what refers to it, copy them whole
//! and give the bytes back by the digests that we said.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Outcome, outcome};
use serde_json::{Value, json};

use crate::lock::workspace;
use crate::verify::{Keys, SBOM, with_password};

fn run(program: impl AsRef<std::ffi::OsStr>, words: &[&str]) -> Outcome {
    let mut command = Command::new(program);
    command.args(words);
    outcome::finish(command, outcome::DEADLINE)
}

fn skopeo(words: &[&str]) -> Outcome {
    run("skopeo", words)
}

fn crane(words: &[&str]) -> Outcome {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/crane/usr/bin/crane");
    let tool: PathBuf = if ours.exists() { ours } else { "crane".into() };
    run(tool, &[words, &["--insecure"]].concat())
}

fn parsed(out: &Outcome) -> Value {
    serde_json::from_str(out.ok()).unwrap()
}

#[test]
fn skopeo_and_crane_read_and_copy_what_we_push() {
    let keys = Keys::new();
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let (name, image) = (registry.name(), format!("{}/app:1", registry.name()));
    let workspace = workspace(&name, &image);
    let key = keys.private("ours");
    with_password(&workspace, &["sign", &image, "--key", &key]).status(0);
    let sbom = workspace
        .put_outside("sbom.json", SBOM)
        .display()
        .to_string();
    with_password(
        &workspace,
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
    let document = json!({ "version": 1, "organisation": "acme", "serial": 1, "notAfter": "2099-01-01T00:00:00Z" });
    let file = workspace.put_outside("policy.json", document.to_string());
    let source = format!("oci://{name}/acme/policy:prod");
    with_password(
        &workspace,
        &[
            "policy",
            "push",
            &file.display().to_string(),
            &source,
            "--key",
            &key,
        ],
    )
    .status(0);

    // What lies beside both, as each tool sees it.
    let digest = registry.digest("app", "1");
    let policy = registry.digest("acme/policy", "prod");
    let index = |repository: &str, digest: &str| {
        format!("{name}/{repository}:{}", digest.replace(':', "-"))
    };
    for (repository, digest, number) in [("app", &digest, 2), ("acme/policy", &policy, 1)] {
        let beside = index(repository, digest);
        let at = format!("docker://{beside}");
        let seen = parsed(&skopeo(&["inspect", "--raw", "--tls-verify=false", &at]));
        assert_eq!(seen, parsed(&crane(&["manifest", &beside])));
        let listed = seen["manifests"].as_array().unwrap();
        assert_eq!(listed.len(), number, "{seen}");
        for one in listed {
            let by = format!("{name}/{repository}@{}", one["digest"].as_str().unwrap());
            let manifest = parsed(&crane(&["manifest", &by]));
            assert_eq!(manifest["subject"]["digest"], digest.as_str());
            assert_eq!(manifest["artifactType"], one["artifactType"]);
            let blob = format!(
                "{name}/{repository}@{}",
                manifest["layers"][0]["digest"].as_str().unwrap()
            );
            let bundle = parsed(&crane(&["blob", &blob]));
            assert_eq!(
                bundle["mediaType"],
                "application/vnd.dev.sigstore.bundle.v0.3+json"
            );
        }
    }
    let at = format!("docker://{name}/acme/policy:prod");
    let seen = parsed(&skopeo(&["inspect", "--raw", "--tls-verify=false", &at]));
    assert_eq!(
        seen["artifactType"],
        "application/vnd.agentcontainer.policy.v1+json"
    );
    let blob = format!(
        "{name}/acme/policy@{}",
        seen["layers"][0]["digest"].as_str().unwrap()
    );
    assert_eq!(parsed(&crane(&["blob", &blob])), document);

    // Copied to another registry by skopeo, and within one by crane: the same digests, and what refers along with them.
    let other = Registry::start();
    let there = other.name();
    let copies = [
        ("app:1".to_owned(), &digest),
        ("acme/policy:prod".to_owned(), &policy),
    ];
    for (what, expected) in &copies {
        let repository = what.split(':').next().unwrap();
        let beside = format!("{repository}:{}", expected.replace(':', "-"));
        for what in [what, &beside] {
            skopeo(&[
                "copy",
                "--all",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
                &format!("docker://{name}/{what}"),
                &format!("docker://{there}/{what}"),
            ])
            .status(0);
        }
        let tag = what.split(':').nth(1).unwrap();
        assert_eq!(other.digest(repository, tag), **expected);
        crane(&[
            "copy",
            &format!("{name}/{what}"),
            &format!("{there}/by-crane/{what}"),
        ])
        .status(0);
        assert_eq!(
            other.digest(&format!("by-crane/{repository}"), tag),
            **expected
        );
    }
    // There, ours verifies what was copied, by the same key and no other.
    let copied = crate::lock::workspace(&there, &format!("{there}/app:1"));
    copied.cli(&["lock", "--yes"]).status(0);
    copied
        .cli(&["verify", "--key", &keys.public("ours")])
        .status(0);
    copied
        .cli(&["verify", "--key", &keys.public("theirs")])
        .status(1);
}

#[test]
fn skopeo_reads_the_file_that_we_export() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    // What this skopeo finds by name in a layout is of OCI's own types alone.
    skopeo(&[
        "copy",
        "--format=oci",
        "--src-tls-verify=false",
        "--dest-tls-verify=false",
        &format!("docker://{}/app:1", registry.name()),
        &format!("docker://{}/app:oci", registry.name()),
    ])
    .status(0);
    let image = format!("{}/app:oci", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let file = workspace.path().with_file_name("exported.tar");
    let name = file.display().to_string();
    workspace.cli(&["bundle", "export", &name]).status(0);
    let layout = tempfile::tempdir().unwrap();
    let into = layout.path().display().to_string();
    run("tar", &["--extract", "--file", &name, "--directory", &into]).status(0);
    let at = format!("oci:{into}:{image}");
    let raw = skopeo(&["inspect", "--raw", &at]);
    raw.status(0);
    let found = sha256(raw.stdout.as_bytes());
    assert_eq!(found, registry.digest("app", "oci"));
    assert_ne!(skopeo(&["inspect", &format!("oci:{into}:other")]).status, 0);
}

fn sha256(bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("raw");
    std::fs::write(&file, bytes).unwrap();
    let out = run("sha256sum", &[&file.display().to_string()]);
    format!("sha256:{}", out.ok().split(' ').next().unwrap())
}
