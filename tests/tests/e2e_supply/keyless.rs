//! `sign` and `attest` by identity, against a stand-in for Sigstore's services: ours, Sigstore's own verifier and cosign accept what comes
//! of it for that identity, and for no other; nothing is sent before it was agreed to.

use std::process::Command;

use agentcontainer_tests::registry::Registry;
use agentcontainer_tests::sigstore::Sigstore;
use agentcontainer_tests::{Outcome, Workspace, outcome};
use serde_json::{Value, json};

use crate::lock::workspace;
use crate::verify::{Keys, SBOM, cosign, with_password};

const ISSUER: &str = "https://issuer.test";
const PERSON: &str = "https://example.com/person";

struct Bench {
    sigstore: Sigstore,
    registry: Registry,
    workspace: Workspace,
    image: String,
}

impl Bench {
    fn new() -> Self {
        Self::with(Sigstore::start())
    }

    fn with(sigstore: Sigstore) -> Self {
        let registry = Registry::start();
        registry.push("app:1", "first\n");
        let image = format!("{}/app:1", registry.name());
        let workspace = workspace(&registry.name(), &image);
        workspace.cli(&["lock", "--yes"]).status(0);
        Self {
            sigstore,
            registry,
            workspace,
            image,
        }
    }

    fn token(&self, name: &str) -> String {
        let file = self
            .workspace
            .put_outside("token", self.sigstore.said(name));
        file.display().to_string()
    }

    fn sign(&self, words: &[&str], set: &[(&str, &str)]) -> Outcome {
        self.sign_this(&self.image, words, set)
    }

    /// With the instance's addresses one by one.
    fn sign_this(&self, what: &str, words: &[&str], set: &[(&str, &str)]) -> Outcome {
        let (fulcio, rekor, stamp) = (
            self.sigstore.said("fulcio"),
            self.sigstore.said("rekor"),
            self.sigstore.said("timestamp"),
        );
        let mut all = vec!["sign", what];
        all.extend(["--fulcio-url", fulcio, "--rekor-url", rekor]);
        all.extend(["--timestamp-url", stamp]);
        all.extend(words);
        let mut command = self.workspace.command(&all);
        command.envs(set.iter().copied());
        outcome::finish(command, outcome::DEADLINE)
    }

    fn verify(&self, subject: &str) -> i32 {
        let root = self.sigstore.file("trusted_root.json");
        let words = ["verify", "--trusted-root", &root, "--identity", subject];
        let out = self
            .workspace
            .cli(&[&words[..], &["--issuer", ISSUER]].concat());
        assert_ne!(out.status, 2, "{}\n{}", out.stdout, out.stderr);
        out.status
    }

    /// The last bundle that refers to the image.
    fn bundle(&self) -> Value {
        let digest = self.registry.digest("app", "1").replace(':', "-");
        let (index, _) = self.registry.manifest("app", &digest);
        let last = index["manifests"].as_array().unwrap().last().unwrap();
        let (manifest, _) = self
            .registry
            .manifest("app", last["digest"].as_str().unwrap());
        assert_eq!(
            manifest["artifactType"],
            "application/vnd.dev.sigstore.bundle.v0.3+json"
        );
        let blob = self.kept(manifest["layers"][0]["digest"].as_str().unwrap());
        serde_json::from_slice(&std::fs::read(blob).unwrap()).unwrap()
    }

    /// Where the registry keeps a blob.
    fn kept(&self, digest: &str) -> std::path::PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.registry.files().join(format!(
            "docker/registry/v2/blobs/sha256/{}/{hex}/data",
            &hex[..2]
        ))
    }
}

#[test]
fn what_an_identity_signs_holds_for_it_by_three_verifiers_and_for_nobody_else() {
    let bench = Bench::new();
    let token = bench.token("token");
    // Nobody agreed: nothing is sent.
    bench
        .sign(&["--identity-token", &token], &[])
        .status(125)
        .says("[not-agreed]")
        .says(PERSON)
        .says("public");
    assert!(bench.sigstore.asked().is_empty());
    assert_eq!(bench.verify(PERSON), 1);

    let signed = bench.sign(&["--identity-token", &token, "--yes"], &[]);
    signed.status(0).says("nobody can take it back");
    assert!(signed.stdout.contains(PERSON), "{}", signed.stdout);
    assert_eq!(bench.sigstore.asked(), ["fulcio", "rekor", "timestamp"]);
    assert_eq!(bench.verify(PERSON), 0);
    assert_eq!(bench.verify("https://example.com/somebody"), 1);
    // Another root knows nothing of it.
    bench
        .workspace
        .cli(&[
            "verify",
            "--offline",
            "--identity",
            PERSON,
            "--issuer",
            ISSUER,
        ])
        .status(1);

    // Sigstore's own packages, and cosign.
    let bundle = bench.bundle();
    let file = |bundle: &Value| {
        bench
            .workspace
            .put_outside("bundle.json", bundle.to_string())
    };
    let theirs = |bundle: &Value, subject: &str| {
        bench.sigstore.verify(&file(bundle), subject, ISSUER).status
    };
    assert_eq!(theirs(&bundle, PERSON), 0);
    assert_ne!(theirs(&bundle, "https://example.com/somebody"), 0);
    // cosign asks its public repository for keys where it is given an image; for a bundle it takes the root that it is given.
    let manifest = bench.kept(&bench.registry.digest("app", "1"));
    let manifest = manifest.display().to_string();
    let root = bench.sigstore.file("trusted_root.json");
    let by_cosign = |bundle: &Value, subject: &str| {
        let bundle = file(bundle).display().to_string();
        let words = [
            "verify-blob-attestation",
            "--new-bundle-format",
            "--bundle",
            &bundle,
            "--trusted-root",
            &root,
            "--certificate-identity",
            subject,
            "--certificate-oidc-issuer",
            ISSUER,
            "--type",
            "https://sigstore.dev/cosign/sign/v1",
            &manifest,
        ];
        cosign(&bench.workspace.path(), &words)
    };
    by_cosign(&bundle, PERSON).status(0);
    assert_ne!(by_cosign(&bundle, "https://example.com/somebody").status, 0);

    // Each proof changed, alone: refused by all three.
    let front = bench.registry.front();
    bench
        .registry
        .tell(&json!({ "at": { "/manifests/sha256-": { "status": 404 }, "/referrers/": { "status": 404 } } }));
    let other = workspace(&front, &format!("{front}/app:1"));
    other.cli(&["lock", "--yes"]).status(0);
    for place in [
        "/dsseEnvelope/payload",
        "/dsseEnvelope/signatures/0/sig",
        "/verificationMaterial/tlogEntries/0/inclusionPromise/signedEntryTimestamp",
        "/verificationMaterial/timestampVerificationData/rfc3161Timestamps/0/signedTimestamp",
        "/verificationMaterial/certificate/rawBytes",
    ] {
        let mut changed = bundle.clone();
        let text = changed.pointer_mut(place).unwrap();
        *text = json!(flipped(text.as_str().unwrap()));
        assert_ne!(theirs(&changed, PERSON), 0, "{place}");
        // The log's time is enough for cosign.
        if !place.contains("rfc3161") {
            assert_ne!(by_cosign(&changed, PERSON).status, 0, "{place}");
        }
        let held = |bundle: &Value| {
            let root = bench.sigstore.file("trusted_root.json");
            let bundle = file(bundle).display().to_string();
            let words = ["verify", "--trusted-root", &root, "--bundle", &bundle];
            let who = ["--identity", PERSON, "--issuer", ISSUER];
            other.cli(&[&words[..], &who].concat()).status
        };
        assert_eq!(
            held(&bundle),
            0,
            "the control: the same image where nothing lies beside it"
        );
        assert_eq!(held(&changed), 1, "{place}");
    }
}

#[test]
fn a_person_at_a_terminal_is_shown_an_address_and_a_code() {
    let bench = Bench::new();
    let (config, issuer) = (
        bench.sigstore.file("signing_config.json"),
        bench.sigstore.said("issuer"),
    );
    let ada = "https://example.com/ada";
    assert_eq!(bench.verify(ada), 1);
    let line = format!(
        "{} sign {} --signing-config {config} --oidc-issuer {issuer} --oidc-client-id stand-in --yes",
        agentcontainer_tests::rig().binary.display(),
        bench.image
    );
    let mut script = Command::new("script");
    bench.workspace.environment(&mut script);
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    let shown = outcome::finish(script, outcome::DEADLINE);
    shown
        .status(0)
        .prints(&format!("open {issuer}/open and type WDJB-MJHT"))
        .prints("nobody can take it back")
        .prints(ada);
    assert_eq!(
        bench.sigstore.asked(),
        [&["issuer"; 4][..], &["fulcio", "rekor", "timestamp"]].concat()
    );
    assert_eq!(bench.verify(ada), 0);
}

/// The same Base64 with another byte near its end.
fn flipped(text: &str) -> String {
    let mut bytes = text.as_bytes().to_vec();
    let at = bytes.len() - 12;
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

#[test]
fn an_identity_comes_from_a_file_a_variable_or_a_workflow() {
    let bench = Bench::new();
    let variable = [("SIGSTORE_ID_TOKEN", bench.sigstore.said("token"))];
    bench.sign(&["--yes"], &variable).status(0);
    assert_eq!(bench.verify(PERSON), 0);

    let url = format!("{}/workflow?x=1", bench.sigstore.said("issuer"));
    let runner = |token: &'static str| {
        [
            ("ACTIONS_ID_TOKEN_REQUEST_URL", url.as_str()),
            ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", token),
        ]
    };
    bench
        .sign(&["--yes"], &runner("another"))
        .status(125)
        .says("[signing-service]");
    let workflow = "https://example.com/org/repo/build.yml@refs/heads/main";
    assert_eq!(bench.verify(workflow), 1);
    bench.sign(&["--yes"], &runner("a-runners-token")).status(0);
    assert_eq!(bench.verify(workflow), 0);

    // A token that ended goes nowhere; without any and without a person there is nothing to sign with.
    bench.sigstore.asked();
    let ended = bench.token("other");
    bench
        .sign(&["--identity-token", &ended, "--yes"], &[])
        .status(125)
        .says("[identity-token]");
    bench
        .sign(&["--yes"], &[])
        .status(125)
        .says("[identity-token]")
        .says("--key");
    assert!(bench.sigstore.asked().is_empty());
    // One that is for Sigstore's public authority goes to no other, unless that is said.
    let theirs = bench.token("forPublic");
    let sent = ["--identity-token", &theirs, "--yes"];
    bench
        .sign(&sent, &[])
        .status(125)
        .says("[identity-token]")
        .says("--token-audience");
    assert!(bench.sigstore.asked().is_empty());
    bench
        .sign(
            &[&sent[..], &["--token-audience", "sigstore"]].concat(),
            &[],
        )
        .status(0);
}

#[test]
fn an_inventory_is_attested_by_identity_with_the_services_of_a_file() {
    let bench = Bench::new();
    let sbom = bench.workspace.put_outside("sbom.json", SBOM);
    let config = bench.sigstore.file("signing_config.json");
    let words = [
        "attest",
        &bench.image,
        "--signing-config",
        &config,
        "--identity-token",
        &bench.token("token"),
        "--type",
        "spdx",
        "--predicate",
        &sbom.display().to_string(),
        "--yes",
    ];
    bench.workspace.cli(&words).status(0);
    let statement = bench.bundle();
    let theirs = bench
        .workspace
        .put_outside("bundle.json", statement.to_string());
    bench.sigstore.verify(&theirs, PERSON, ISSUER).status(0);
    // An inventory is no signature.
    assert_eq!(bench.verify(PERSON), 1);
}

impl Bench {
    /// The same workspace on a host whose roots come from the instance's repository.
    fn refreshing(&self) -> Workspace {
        self.refreshing_with("")
    }

    /// With a further table of the host's.
    fn refreshing_with(&self, table: &str) -> Workspace {
        let other = Workspace::new()
            .without_locking()
            .with_own_state()
            .host_table(&Registry::host_table(&self.registry.name()))
            .host_table(&format!(
                "[sigstore]\ntuf = \"{}/\"\nroot = {:?}",
                self.sigstore.said("tuf"),
                self.sigstore.file("root.json")
            ))
            .host_table(table);
        other.put(
            "agentcontainer.json",
            json!({ "image": self.image }).to_string(),
        );
        other.write_host_config();
        other.cli(&["lock", "--yes"]).status(0);
        other
    }
}

fn by_person(workspace: &Workspace, more: &[&str]) -> Outcome {
    let words = ["verify", "--identity", PERSON, "--issuer", ISSUER];
    workspace.cli(&[&words[..], more].concat())
}

/// Has the roots have been fetched two days ago.
fn age(workspace: &Workspace) {
    let kept = workspace.state().join("agentcontainer/sigstore");
    let mut number = 0;
    for one in std::fs::read_dir(kept).unwrap().flatten() {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(2 * 86400);
        let seconds = then
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let text = Command::new("date")
            .args(["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
            .output()
            .unwrap();
        std::fs::write(one.path().join("fetched"), text.stdout).unwrap();
        number += 1;
    }
    assert_eq!(number, 1);
}

#[test]
fn roots_are_refreshed_once_a_day_and_used_for_as_long_as_they_hold() {
    let mut bench = Bench::new();
    bench
        .sign(&["--identity-token", &bench.token("token"), "--yes"], &[])
        .status(0);
    let host = bench.refreshing();
    bench.sigstore.asked();
    // Nobody is asked offline, nor where no certificate is judged; without any root nothing was verified.
    by_person(&host, &["--offline"])
        .status(2)
        .says("[trusted-root]");
    host.cli(&["verify"]).status(0);
    assert!(bench.sigstore.asked().is_empty());
    by_person(&host, &[]).status(0);
    assert!(bench.sigstore.asked().iter().any(|one| one == "tuf"));
    by_person(&host, &[]).status(0);
    by_person(&host, &["--offline"]).status(0);
    assert!(bench.sigstore.asked().is_empty(), "asked twice in a day");
    age(&host);
    by_person(&host, &["--offline"]).status(0);
    assert!(bench.sigstore.asked().is_empty());
    by_person(&host, &[]).status(0);
    assert!(!bench.sigstore.asked().is_empty(), "not asked after a day");
    // Its repository is gone: said, and the last one holds.
    age(&host);
    bench.sigstore.stop();
    by_person(&host, &[]).status(0).says("the last ones");
}

#[test]
fn roots_that_do_not_hold_any_more_are_not_used() {
    let bench = Bench::with(Sigstore::holding(6));
    bench
        .sign(&["--identity-token", &bench.token("token"), "--yes"], &[])
        .status(0);
    let host = bench.refreshing();
    by_person(&host, &[]).status(0);
    std::thread::sleep(std::time::Duration::from_secs(7));
    by_person(&host, &["--offline"])
        .status(2)
        .says("[trusted-root]")
        .says("expired");
    by_person(&host, &[]).status(2).says("[trusted-root]");
}

#[test]
fn a_policy_that_an_identity_signed_holds_until_its_own_end_without_roots_in_force() {
    let bench = Bench::with(Sigstore::holding(15));
    let name = bench.registry.name();
    let source = format!("oci://{name}/acme/policy:prod");
    let document = json!({ "version": 1, "organisation": "acme", "serial": 1, "notAfter": "2099-01-01T00:00:00Z" });
    let file = bench
        .workspace
        .put_outside("policy.json", document.to_string())
        .display()
        .to_string();
    bench
        .workspace
        .cli(&["policy", "push", &file, &source])
        .status(0);
    let token = bench.token("token");
    let policy = format!("{name}/acme/policy:prod");
    bench
        .sign_this(&policy, &["--identity-token", &token, "--yes"], &[])
        .status(0);
    let host = bench.refreshing_with(&format!(
        "[policy]\nsource = {source:?}\nidentities = [{{ issuer = {ISSUER:?}, subject = {PERSON:?} }}]"
    ));
    by_person(&host, &["--offline"]).status(2);
    host.cli(&["verify", "--offline"]).status(0);
    std::thread::sleep(std::time::Duration::from_secs(15));
    // The roots have ended, for whatever was not believed under them.
    by_person(&host, &["--offline"])
        .status(2)
        .says("[trusted-root]");
    host.cli(&["verify", "--offline"]).status(0);
    // Where the policy's registry answers and nobody has newer roots, too.
    host.cli(&["policy", "show"]).status(0);
    host.cli(&["lock", "--yes"]).status(0).says("the last one");
    // By the very root and nothing else.
    let policies = host.state().join("agentcontainer/policies");
    for one in std::fs::read_dir(policies).unwrap().flatten() {
        if one.path().extension().is_some_and(|e| e == "root") {
            std::fs::remove_file(one.path()).unwrap();
        }
    }
    host.cli(&["verify", "--offline"])
        .status(2)
        .says("[trusted-root]");
}

#[test]
fn a_repository_that_is_silent_is_not_waited_for_each_time() {
    let mut bench = Bench::new();
    bench
        .sign(&["--identity-token", &bench.token("token"), "--yes"], &[])
        .status(0);
    let host = bench.refreshing();
    by_person(&host, &[]).status(0);
    let place = bench.sigstore.said("tuf").to_owned();
    let place = place.trim_start_matches("http://").trim_end_matches('/');
    bench.sigstore.stop();
    // Takes connections and says nothing.
    let _silent = std::net::TcpListener::bind(place).unwrap();
    age(&host);
    let took = || {
        let began = std::time::Instant::now();
        by_person(&host, &[]).status(0).says("the last ones");
        began.elapsed()
    };
    let first = took();
    assert!((10..20).contains(&first.as_secs()), "{first:?}");
    let second = took();
    assert!(second.as_secs() < 5, "{second:?}");
}

#[test]
fn a_refresh_that_ends_in_the_middle_leaves_the_roots_that_were_here() {
    let bench = Bench::new();
    bench
        .sign(&["--identity-token", &bench.token("token"), "--yes"], &[])
        .status(0);
    let host = bench.refreshing();
    by_person(&host, &[]).status(0);
    // The repository has a new version, of which it answers the beginning.
    std::fs::write(bench.sigstore.file("half"), "").unwrap();
    age(&host);
    by_person(&host, &[]).status(0).says("the last ones");
    by_person(&host, &["--offline"]).status(0);
    // All of it.
    std::fs::rename(bench.sigstore.file("half"), bench.sigstore.file("next")).unwrap();
    age(&host);
    bench.sigstore.asked();
    let verified = by_person(&host, &[]);
    verified.status(0);
    assert!(
        !verified.stderr.contains("the last ones"),
        "{}",
        verified.stderr
    );
    assert!(!bench.sigstore.asked().is_empty());
    by_person(&host, &["--offline"]).status(0);
    // And what it has now is not left again.
    std::fs::remove_file(bench.sigstore.file("next")).unwrap();
    age(&host);
    by_person(&host, &[]).status(0).says("the last ones");
}

/// Publishes a policy that says who has to have signed everything, signed by a key.
fn publish(bench: &Bench, keys: &Keys, serial: u32, subject: &str) {
    let who = json!([{ "issuer": ISSUER, "subject": subject }]);
    let rule =
        json!([{ "references": [format!("{}/app", bench.registry.name())], "identities": who }]);
    let document = json!({
        "version": 1, "organisation": "acme", "serial": serial, "notAfter": "2099-01-01T00:00:00Z",
        "requirements": { "signatures": rule },
    });
    let file = bench
        .workspace
        .put_outside("policy.json", document.to_string());
    let file = file.display().to_string();
    let source = format!("oci://{}/acme/policy:prod", bench.registry.name());
    let key = keys.private("ours");
    let words = ["policy", "push", &file, &source, "--force", "--key", &key];
    with_password(&bench.workspace, &words).status(0);
}

#[test]
fn what_identities_have_to_have_signed_holds_before_it_runs_by_roots_that_are_refreshed() {
    let bench = Bench::new();
    bench
        .sign(&["--identity-token", &bench.token("token"), "--yes"], &[])
        .status(0);
    let keys = Keys::new();
    publish(&bench, &keys, 1, PERSON);
    let named = format!(
        "[policy]\nsource = \"oci://{}/acme/policy:prod\"\nkeys = [{:?}]",
        bench.registry.name(),
        keys.public("ours")
    );
    let host = bench.refreshing_with(&named);
    let signer = crate::lock::lockfile(&host)["image"]["verified"]["signer"].clone();
    assert!(signer.to_string().contains(PERSON), "{signer}");
    let run = || host.cli(&["run", "--yes"]);
    assert_eq!(run().ok(), "first");
    bench.sigstore.asked();
    assert_eq!(run().ok(), "first");
    assert!(bench.sigstore.asked().is_empty(), "asked twice in a day");
    age(&host);
    assert_eq!(run().ok(), "first");
    assert!(bench.sigstore.asked().iter().any(|one| one == "tuf"));
    publish(&bench, &keys, 2, "https://example.com/else");
    run().status(125).says("[not-verified]").says("signature");
    host.cli(&["lock", "--update", "image"])
        .status(125)
        .says("[not-verified]");
    publish(&bench, &keys, 3, PERSON);
    assert_eq!(run().ok(), "first");
}

#[test]
fn an_instance_without_a_repository_is_believed_by_the_file_that_the_host_names() {
    let bench = Bench::new();
    let token = bench.token("token");
    bench
        .sign(&["--identity-token", &token, "--yes"], &[])
        .status(0);
    publish(&bench, &Keys::new(), 1, PERSON);
    let policy = format!("{}/acme/policy:prod", bench.registry.name());
    bench
        .sign_this(&policy, &["--identity-token", &token, "--yes"], &[])
        .status(0);
    let with = |trusted_root: &str| {
        let host = Workspace::new()
            .without_locking()
            .with_own_state()
            .host_table(&Registry::host_table(&bench.registry.name()))
            .host_table(&format!("[sigstore]\ntrusted_root = {trusted_root:?}"))
            .host_table(&format!(
                "[policy]\nsource = \"oci://{policy}\"\nidentities = [{{ issuer = {ISSUER:?}, subject = {PERSON:?} }}]"
            ));
        host.put(
            "agentcontainer.json",
            json!({ "image": bench.image }).to_string(),
        );
        host.write_host_config();
        host
    };
    bench.sigstore.asked();
    let host = with(&bench.sigstore.file("trusted_root.json"));
    host.cli(&["lock", "--yes"]).status(0);
    assert_eq!(host.cli(&["run", "--yes"]).ok(), "first");
    by_person(&host, &["--offline"]).status(0);
    assert!(bench.sigstore.asked().is_empty(), "a file is all there is");
    // Another instance vouches for nothing of it.
    let other = Sigstore::start();
    with(&other.file("trusted_root.json"))
        .cli(&["lock", "--yes"])
        .status(125)
        .says("[policy-signature]");
}
