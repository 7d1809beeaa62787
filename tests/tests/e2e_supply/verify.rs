//! `sign`, `attest` and `verify`, with cosign on the other side: each accepts what the other made, and neither what was tampered with.

use std::path::{Path, PathBuf};
use std::process::Command;

use agentcontainer_tests::outcome::{self, DEADLINE};
use agentcontainer_tests::place::skip;
use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::{Outcome, Workspace};
use serde_json::{Value, json};

use crate::lock::{lockfile, workspace};
use crate::organisation::{Acme, plain, roots, signed_by};

pub const PASSWORD: &str = "correct horse";

/// A directory with two key pairs that cosign made: `ours` and `theirs`.
pub struct Keys(tempfile::TempDir);

impl Keys {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ours", "theirs"] {
            let prefix = dir.path().join(name).display().to_string();
            cosign(
                dir.path(),
                &["generate-key-pair", "--output-key-prefix", &prefix],
            )
            .status(0);
        }
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn private(&self, name: &str) -> String {
        self.path()
            .join(format!("{name}.key"))
            .display()
            .to_string()
    }

    pub fn public(&self, name: &str) -> String {
        self.path()
            .join(format!("{name}.pub"))
            .display()
            .to_string()
    }
}

fn tool() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/tools/cosign/usr/bin/cosign");
    if ours.exists() { ours } else { "cosign".into() }
}

/// Runs cosign, which asks nobody but the registry.
pub fn cosign(dir: &Path, words: &[&str]) -> Outcome {
    let mut command = Command::new(tool());
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", dir)
        .env("COSIGN_PASSWORD", PASSWORD)
        .current_dir(dir)
        .args(words);
    outcome::finish(command, DEADLINE)
}

/// Runs the CLI with the keys' password.
pub fn with_password(workspace: &Workspace, words: &[&str]) -> Outcome {
    let mut command = workspace.command(words);
    command.env("COSIGN_PASSWORD", PASSWORD);
    outcome::finish(command, DEADLINE)
}

/// A registry with `app:1`, and a workspace in which it is locked.
fn locked() -> (Registry, Workspace, String) {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let image = format!("{}/app:1", registry.name());
    let workspace = workspace(&registry.name(), &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    (registry, workspace, image)
}

fn verify(workspace: &Workspace, key: &str) -> (i32, Value) {
    let out = workspace.cli(&["verify", "--json", "--key", key]);
    let said = serde_json::from_str(&out.stdout)
        .unwrap_or_else(|_| panic!("{}\n{}", out.stdout, out.stderr));
    (out.status, said)
}

/// The check of that kind.
fn check<'v>(said: &'v Value, kind: &str) -> &'v Value {
    let checks = said["pins"][0]["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|check| check["check"] == kind)
        .unwrap_or_else(|| panic!("no {kind} in {said}"))
}

#[test]
fn cosign_verifies_what_we_sign_and_we_verify_what_cosign_signs() {
    let keys = Keys::new();
    let (registry, workspace, image) = locked();
    let digest = registry.digest("app", "1");
    let named = format!("{}/app@{digest}", registry.name());

    // Nobody signed it yet.
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_eq!(status, 1, "{said}");
    assert!(
        check(&said, "signature")["detail"]
            .as_str()
            .unwrap()
            .contains("no signature was found")
    );
    assert_eq!(check(&said, "digest")["verdict"], "holds");
    let theirs = [
        "verify",
        "--key",
        &keys.public("ours"),
        "--insecure-ignore-tlog",
        "--allow-insecure-registry",
        &named,
    ];
    assert_ne!(cosign(keys.path(), &theirs).status, 0);

    with_password(
        &workspace,
        &["sign", &image, "--key", &keys.private("ours")],
    )
    .status(0);
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_eq!(status, 0, "{said}");
    assert_eq!(check(&said, "signature")["verdict"], "holds");
    cosign(keys.path(), &theirs).status(0);
    // Where a log is demanded, a key alone is not enough.
    let key = keys.public("ours");
    workspace
        .cli(&[
            "verify",
            "--key",
            &key,
            "--require-log",
            "--trusted-root",
            &roots(),
        ])
        .status(1)
        .prints("transparency log");
    let bundle = [
        "verify",
        "--key",
        &keys.public("ours"),
        "--insecure-ignore-tlog",
        "--allow-insecure-registry",
        "--new-bundle-format",
        &named,
    ];
    cosign(keys.path(), &bundle).status(0);
    // Another key vouches for nothing.
    let (status, said) = verify(&workspace, &keys.public("theirs"));
    assert_eq!(status, 1, "{said}");
    assert_ne!(
        cosign(
            keys.path(),
            &[
                "verify",
                "--key",
                &keys.public("theirs"),
                "--insecure-ignore-tlog",
                "--allow-insecure-registry",
                &named
            ]
        )
        .status,
        0
    );

    // The other way round, in both forms, each alone.
    let mut forms = 0;
    for form in [
        &["--new-bundle-format=false"][..],
        &["--new-bundle-format=true"],
    ] {
        let (registry, workspace, _) = locked();
        let named = format!("{}/app@{}", registry.name(), registry.digest("app", "1"));
        let key = keys.private("theirs");
        let mut words = vec![
            "sign",
            "--key",
            &key,
            "--tlog-upload=false",
            "--allow-insecure-registry",
            "--yes",
        ];
        words.extend(form);
        words.push(&named);
        let signed = cosign(keys.path(), &words);
        if signed.stderr.contains("unknown flag") {
            // This cosign signs images in one form alone, below.
            continue;
        }
        forms += 1;
        signed.status(0);
        assert_eq!(verify(&workspace, &keys.public("theirs")).0, 0, "{form:?}");
        assert_eq!(verify(&workspace, &keys.public("ours")).0, 1, "{form:?}");
    }
    if forms == 0 {
        let why = "this cosign signs images under its tag alone";
        skip("a bundle that cosign made of an image", why);
        let (registry, workspace, _) = locked();
        let named = format!("{}/app@{}", registry.name(), registry.digest("app", "1"));
        let key = keys.private("theirs");
        let words = [
            "sign",
            "--key",
            &key,
            "--tlog-upload=false",
            "--allow-insecure-registry",
            "--yes",
            &named,
        ];
        cosign(keys.path(), &words).status(0);
        assert_eq!(verify(&workspace, &keys.public("theirs")).0, 0);
        assert_eq!(verify(&workspace, &keys.public("ours")).0, 1);
    }
}

#[test]
fn a_signature_of_something_else_is_none_of_this() {
    let keys = Keys::new();
    let (registry, workspace, image) = locked();
    registry.push("app:2", "second\n");
    let (one, two) = (registry.digest("app", "1"), registry.digest("app", "2"));
    let other = format!("{}/app:2", registry.name());
    with_password(
        &workspace,
        &["sign", &other, "--key", &keys.private("ours")],
    )
    .status(0);
    let (manifest, kind) = registry.manifest("app", &format!("{}.sig", two.replace(':', "-")));
    registry.put_manifest(
        "app",
        &format!("{}.sig", one.replace(':', "-")),
        &kind,
        &manifest,
    );
    let (index, kind) = registry.manifest("app", &two.replace(':', "-"));
    registry.put_manifest("app", &one.replace(':', "-"), &kind, &index);
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_eq!(status, 1, "{said}");
    let verdicts = &check(&said, "signature")["evidence"]["report"]["verdicts"];
    assert_eq!(verdicts[0]["reason"], "wrong-subject", "{said}");

    // A bad one beside a good one is said, and the good one holds.
    with_password(
        &workspace,
        &["sign", &image, "--key", &keys.private("ours")],
    )
    .status(0);
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_eq!(status, 0, "{said}");
    assert!(
        check(&said, "signature")["detail"]
            .as_str()
            .unwrap()
            .contains("refused"),
        "{said}"
    );
}

#[test]
fn what_is_verified_offline_is_what_was_gathered_and_nothing_is_asked() {
    let keys = Keys::new();
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let front = registry.front();
    registry.tell(&json!({ "referrers": true }));
    let image = format!("{front}/app:1");
    let workspace = workspace(&front, &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    with_password(
        &workspace,
        &["sign", &image, "--key", &keys.private("ours")],
    )
    .status(0);
    let key = keys.public("ours");
    registry.tell(&json!({ "referrers": true }));
    workspace
        .cli(&["verify", "--offline", "--key", &key])
        .status(2);
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    let (status, said) = verify(&workspace, &key);
    assert_eq!(status, 0, "{said}");
    assert_eq!(check(&said, "signature")["evidence"]["referrers"], "by-api");
    registry.tell(&json!({ "at": { "": { "status": 500 } } }));
    workspace
        .cli(&["verify", "--offline", "--key", &key])
        .status(0);
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    // Asked, and no answer: neither held nor refuted.
    let out = workspace.cli(&["verify", "--key", &key]);
    out.status(2);
    assert!(out.stdout.contains("unasked"), "{}", out.stdout);
    // No answer about who refers to it is not the same as nobody.
    registry.tell(&json!({ "at": { "/referrers/": { "status": 500 } } }));
    workspace.cli(&["verify", "--key", &key]).status(0);
    workspace
        .cli(&["verify", "--key", &keys.public("theirs")])
        .status(2);
}

#[test]
fn a_lockfile_that_says_what_its_digest_does_not_is_found_out() {
    let (registry, workspace, _) = locked();
    workspace
        .cli(&["verify"])
        .status(0)
        .says("no signature was judged");
    registry.push("app:2", "second\n");
    let mut lock = lockfile(&workspace);
    lock["image"]["platforms"]["linux/amd64"] = json!(registry.digest("app", "2"));
    workspace.put("agentcontainer-lock.json", lock.to_string());
    let out = workspace.cli(&["verify"]);
    out.status(1);
    assert!(out.stdout.contains("does not say itself"), "{}", out.stdout);
    workspace.put("agentcontainer-lock.json", "{}");
    workspace.cli(&["verify"]).status(2);
}

#[test]
fn a_strangers_lockfile_is_asked_about_after_the_review_and_only_where_it_is_about_the_config() {
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let front = registry.front();
    registry.tell(&json!({}));
    let image = format!("{front}/app:1");
    let known = workspace(&front, &image);
    known.cli(&["lock", "--yes"]).status(0);
    let stranger = workspace(&front, &image);
    stranger.put("agentcontainer-lock.json", lockfile(&known).to_string());
    registry.tell(&json!({}));
    stranger.cli(&["verify"]).status(2).says("--yes");
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    stranger.put(
        "agentcontainer.json",
        r#"{ "image": "totally.example/else:9" }"#,
    );
    stranger
        .cli(&["verify", "--yes"])
        .status(1)
        .says("[lock-drift]");
    assert!(registry.asked().is_empty(), "{:?}", registry.asked());
    stranger.put("agentcontainer.json", json!({ "image": image }).to_string());
    stranger.cli(&["verify", "--yes"]).status(0);
    // What only an engine has was not verified by anybody.
    let local = workspace(&front, &agentcontainer_tests::rig().image);
    local.cli(&["lock", "--yes"]).status(0);
    local.cli(&["verify"]).status(2);
}

#[test]
fn attestations_are_read_by_both_sides() {
    let keys = Keys::new();
    let (registry, workspace, image) = locked();
    let named = format!("{}/app@{}", registry.name(), registry.digest("app", "1"));
    let sbom = workspace.put_outside("sbom.json", SBOM);
    with_password(
        &workspace,
        &[
            "attest",
            &image,
            "--key",
            &keys.private("ours"),
            "--type",
            "spdx",
            "--predicate",
            &sbom.display().to_string(),
        ],
    )
    .status(0);
    let theirs = |key: &str| {
        let key = keys.public(key);
        cosign(
            keys.path(),
            &[
                "verify-attestation",
                "--key",
                &key,
                "--type",
                "spdxjson",
                "--insecure-ignore-tlog",
                "--allow-insecure-registry",
                &named,
            ],
        )
    };
    theirs("ours").status(0);
    assert_ne!(theirs("theirs").status, 0);
    // An inventory is no signature.
    assert_eq!(verify(&workspace, &keys.public("ours")).0, 1);
}

#[test]
fn what_cosign_attests_is_what_a_policy_requires_in_both_forms() {
    for form in ["--new-bundle-format=false", "--new-bundle-format=true"] {
        let acme = Acme::new(&plain);
        let digest = acme.registry.digest("app", "1");
        let named = format!("{}/app@{digest}", acme.registry.name());
        let rule = signed_by(&acme, "theirs");
        let parts = json!({ "requirements": { "signatures": rule, "sbom": true } });
        acme.publish(1, &parts, "ours");
        let sbom = acme.workspace.put_outside("sbom.json", SBOM);
        let sbom = sbom.display().to_string();
        let by = |command: &str, more: &[&str]| {
            let key = acme.keys.private("theirs");
            let words = [command, "--key", &key, "--tlog-upload=false"];
            let words = [&words[..], &["--allow-insecure-registry", "--yes"], more].concat();
            cosign(acme.keys.path(), &[&words[..], &[&named]].concat()).status(0);
        };
        by("sign", &[]);
        acme.run().status(125).says("inventory");
        by(
            "attest",
            &["--type", "spdxjson", "--predicate", &sbom, form],
        );
        assert_eq!(acme.run().ok(), "it runs", "{form}");
    }
}

#[test]
fn a_signature_on_a_later_page_is_found_and_none_at_all_is_said() {
    let keys = Keys::new();
    let registry = Registry::start();
    registry.push("app:1", "first\n");
    let front = registry.front();
    // Pages of one, and no signature under cosign's tag.
    let pages = json!({ "referrers": true, "page": 1, "at": { "[.]sig$": { "status": 404 } } });
    registry.tell(&pages);
    let image = format!("{front}/app:1");
    let workspace = workspace(&front, &image);
    workspace.cli(&["lock", "--yes"]).status(0);
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_eq!(status, 1, "{said}");
    let why = check(&said, "signature")["detail"].as_str().unwrap();
    assert!(why.contains("it is not signed"), "{said}");
    registry.tell(&json!({ "referrers": true }));
    for name in ["theirs", "ours"] {
        let key = keys.private(name);
        with_password(&workspace, &["sign", &image, "--key", &key]).status(0);
    }
    registry.tell(&pages);
    for name in ["theirs", "ours"] {
        let (status, said) = verify(&workspace, &keys.public(name));
        assert_eq!(status, 0, "{name}: {said}");
    }
    // Pages without end: what else there is is not known.
    let mut endless = pages;
    endless["endless"] = json!(true);
    registry.tell(&endless);
    let (status, said) = verify(&workspace, &keys.public("ours"));
    assert_ne!(status, 0, "{said}");
    assert_eq!(check(&said, "signature")["evidence"]["code"], "malformed");
}

/// An inventory of two packages.
pub const SBOM: &str = r#"{ "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": "app", "documentNamespace": "https://example.com/app",
  "creationInfo": { "created": "2026-01-01T00:00:00Z", "creators": ["Tool: test"] },
  "packages": [
    { "SPDXID": "SPDXRef-a", "name": "left-pad", "versionInfo": "1.3.0", "downloadLocation": "NOASSERTION",
      "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:npm/left-pad@1.3.0" }] },
    { "SPDXID": "SPDXRef-b", "name": "openssl", "versionInfo": "3.0.11-1~deb12u2", "downloadLocation": "NOASSERTION",
      "externalRefs": [{ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": "pkg:deb/debian/openssl@3.0.11-1~deb12u2" }] } ] }"#;
