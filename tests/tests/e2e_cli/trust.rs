//! The session's certificate inside: in every file that programs look into, nobody's to change, another one in each session.

use std::collections::BTreeSet;

use agentcontainer_tests::Workspace;
use agentcontainer_tests::docker;
use agentcontainer_tests::place::token;
use agentcontainer_tests::rig;
use serde_json::json;

const TRUST: &str = "/run/agentcontainer/trust";
/// The image's own.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where OpenSSL looks for it in the image's directory of hashed names.
const HASHED: &str = "/etc/ssl/certs/06a0de29.0";
const VARIABLES: [(&str, &str); 11] = [
    ("SSL_CERT_FILE", "bundle.pem"),
    ("CURL_CA_BUNDLE", "bundle.pem"),
    ("GIT_SSL_CAINFO", "bundle.pem"),
    ("REQUESTS_CA_BUNDLE", "bundle.pem"),
    ("PIP_CERT", "bundle.pem"),
    ("CARGO_HTTP_CAINFO", "bundle.pem"),
    ("AWS_CA_BUNDLE", "bundle.pem"),
    ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "bundle.pem"),
    ("NIX_SSL_CERT_FILE", "bundle.pem"),
    ("NODE_EXTRA_CA_CERTS", "ca.pem"),
    ("DENO_CERT", "ca.pem"),
];

/// The certificates of a file's text, without what stands between them.
fn certificates(text: &str) -> BTreeSet<String> {
    let blocks = text.split("-----BEGIN CERTIFICATE-----").skip(1);
    let body = |block: &str| -> String {
        let (body, _) = block.split_once("-----END CERTIFICATE-----").unwrap();
        body.split_whitespace().collect()
    };
    blocks.map(body).collect()
}

#[test]
fn the_sessions_certificate_is_beside_the_images_own_wherever_they_are_looked_for() {
    let plain = docker::run(&[
        "run",
        "--rm",
        "--network",
        "none",
        &rig().image,
        "cat",
        BUNDLE,
    ]);
    let images = certificates(&plain);
    assert!(
        images.len() > 10,
        "the image has no certificates of its own"
    );

    let (workspace, name) = (Workspace::new(), token("c"));
    let session = workspace.session(&name);
    let file = |path: &str| certificates(session.exec(&["cat", path]).ok());
    let own = file(&format!("{TRUST}/ca.pem"));
    assert_eq!(own.len(), 1);
    assert!(own.is_disjoint(&images));
    let all: BTreeSet<String> = images.union(&own).cloned().collect();
    assert!(file(&format!("{TRUST}/bundle.pem")) == all);
    assert!(file(BUNDLE) == all);
    assert_eq!(file(HASHED), own);

    // As the JVM has it, told by name and by itself.
    for options in [
        format!("-keystore {TRUST}/cacerts.p12 -storetype PKCS12 -storepass changeit"),
        "-cacerts".to_owned(),
    ] {
        let listed = session.inside(&format!(
            "env -u JAVA_TOOL_OPTIONS keytool -list -rfc {options} </dev/null"
        ));
        assert!(
            certificates(listed.ok()) == all,
            "{options}: {}",
            listed.stderr
        );
    }
    // What it says of itself: an authority that may sign servers, and no other authorities.
    session
        .inside(&format!("openssl x509 -noout -text -in {TRUST}/ca.pem"))
        .prints("CA:TRUE, pathlen:0");
}

#[test]
fn nobody_inside_changes_what_is_trusted() {
    for user in ["agent", "root"] {
        let workspace = Workspace::new().key("containerUser", json!(user));
        let out = workspace.inside(&format!(
            "for file in {TRUST}/bundle.pem {TRUST}/ca.pem {TRUST}/cacerts.p12 {BUNDLE} {HASHED} /etc/ssl/certs/java/cacerts; do
               cat $file >/dev/null && echo read $file
               {{ echo x >>$file || rm -f $file || mv -f $file /tmp/moved || ln -sf /dev/null $file || chmod 666 $file; }} 2>/dev/null && echo CHANGED $file
             done
             {{ touch {TRUST}/more || mv {TRUST} /tmp/trust || rm -rf {TRUST} || mkdir {TRUST}/more; }} 2>/dev/null && echo CHANGED {TRUST}
             touch /tmp/control && echo x >>/tmp/control && rm /tmp/control && echo control"
        ));
        assert_eq!(
            out.stdout.matches("read ").count(),
            6,
            "{user}: {}{}",
            out.stdout,
            out.stderr
        );
        assert!(!out.stdout.contains("CHANGED"), "{user}: {}", out.stdout);
        out.prints("control");
    }
}

#[test]
fn two_sessions_trust_two_certificates_and_what_they_had_is_gone_with_them() {
    let (one, two) = (Workspace::new(), Workspace::new());
    let read = format!("cat {TRUST}/ca.pem");
    let both: BTreeSet<String> = [&one, &two, &one]
        .iter()
        .flat_map(|workspace| certificates(workspace.inside(&read).ok()))
        .collect();
    assert_eq!(both.len(), 3);

    let mine = Workspace::new().with_own_state();
    mine.inside("true").status(0);
    let left: Vec<_> = std::fs::read_dir(mine.state().join("agentcontainer/sessions"))
        .unwrap()
        .flatten()
        .filter(|session| session.path().join("trust").exists())
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn run_lifecycle_commands_and_exec_are_told_the_same() {
    let (workspace, name) = (
        Workspace::new().key("postCreateCommand", json!("env >created")),
        token("v"),
    );
    let session = workspace.session(&name);
    let created = std::fs::read_to_string(workspace.path().join("created")).unwrap();
    let main = session.inside("tr '\\0' '\\n' </proc/$(pgrep -x sleep)/environ");
    let exec = session.exec(&["env"]);
    for (whose, env) in [
        ("lifecycle", &*created),
        ("run", main.ok()),
        ("exec", exec.ok()),
    ] {
        let has = |line: &str| env.lines().any(|l| l == line);
        for (variable, file) in VARIABLES {
            let line = format!("{variable}={TRUST}/{file}");
            assert!(has(&line), "{whose}: no {line} in {env}");
        }
        let java = format!(
            "JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore={TRUST}/cacerts.p12 -Djavax.net.ssl.trustStorePassword=changeit -Djavax.net.ssl.trustStoreType=PKCS12"
        );
        assert!(has(&java), "{whose}: {env}");
    }
}

#[test]
fn what_a_person_set_stays_and_run_says_so() {
    let workspace = Workspace::new()
        .key(
            "containerEnv",
            json!({ "SSL_CERT_FILE": "/mine.pem", "JAVA_TOOL_OPTIONS": "-Xmx99m" }),
        )
        .key("remoteEnv", json!({ "DENO_CERT": null }));
    workspace.write();
    let out = workspace.cli(&["run", "--yes", "-e", "PIP_CERT=/also.pem", "--", "env"]);
    out.status(0)
        .prints("SSL_CERT_FILE=/mine.pem\n")
        .prints("PIP_CERT=/also.pem\n")
        .prints("CURL_CA_BUNDLE=/run/agentcontainer/trust/bundle.pem\n")
        .prints("JAVA_TOOL_OPTIONS=-Xmx99m -Djavax.net.ssl.trustStore=/run/")
        .says("SSL_CERT_FILE is yours")
        .says("PIP_CERT is yours");
    assert!(!out.stdout.contains("DENO_CERT"));
    assert!(!out.stderr.contains("CURL_CA_BUNDLE"), "{}", out.stderr);
}

#[test]
fn a_bundle_of_the_hosts_that_cannot_be_used_stops_the_start_at_its_place() {
    let workspace = Workspace::new();
    let empty = workspace.put("empty.pem", "# nothing\n");
    for (path, words) in [
        ("/no/such/bundle.pem", "cannot be read"),
        (empty.to_str().unwrap(), "has no certificate"),
    ] {
        let workspace = Workspace::new().gateway_line(&format!("ca_bundles = [{path:?}]"));
        let out = workspace.inside("touch started");
        out.status(125)
            .says("config.toml:4:15: ")
            .says(path)
            .says(words);
        assert!(!workspace.path().join("started").exists());
    }
    let workspace = Workspace::new().gateway_line("ca_bundles = [\"bundle.pem\"]");
    workspace
        .inside("true")
        .status(125)
        .says("config.toml:4:15: `gateway.ca_bundles[0]` is \"bundle.pem\": expected the absolute path of a file");
}
