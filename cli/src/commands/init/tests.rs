#![allow(clippy::unwrap_used)]
use super::*;

fn project(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

fn hosts(files: &[(&str, &str)]) -> Vec<String> {
    derive::derive(project(files).path())
        .hosts
        .into_keys()
        .collect()
}

#[test]
fn hosts_are_those_that_the_projects_files_fetch_from() {
    assert_eq!(
        hosts(&[
            (
                "package-lock.json",
                r#"{"packages":{"a":{"resolved":"https://npm.test/a.tgz","funding":{"url":"https://money.test"}},
                    "b":{"resolved": "git+ssh://git@code.test/b.git#1"}}}"#
            ),
            (
                ".npmrc",
                "# registry=https://old.test\n@x:registry=https://user:secret@scoped.test:8443/npm/\n//scoped.test/:_authToken=${T}\n"
            ),
            (
                "yarn.lock",
                "a@1:\n  version \"1\"\n  resolved \"https://yarn.test/a.tgz#abc\"\n"
            ),
        ]),
        [
            "code.test:22",
            "npm.test:443",
            "scoped.test:8443",
            "yarn.test:443"
        ]
    );
    assert_eq!(
        hosts(&[
            (
                "requirements.txt",
                "--index-url https://pip.test/simple\n-i http://plain.test/\nx @ https://files.test/x.whl\nrequests==2 # https://no.test\n"
            ),
            (
                "pip.conf",
                "[global]\nextra-index-url = https://extra.test/simple\n"
            ),
            (
                "uv.lock",
                "source = { registry = \"https://uv.test/simple\" }\nsdist = { url = \"https://sdist.test/a\", hash = \"x\" }\n"
            ),
        ]),
        [
            "extra.test:443",
            "files.test:443",
            "pip.test:443",
            "plain.test:80",
            "sdist.test:443",
            "uv.test:443"
        ]
    );
    assert_eq!(
        hosts(&[
            (
                "Cargo.toml",
                "homepage = \"https://no.test\"\na = { git = \"https://dep.test/a\" }\n"
            ),
            (
                ".cargo/config.toml",
                "[source.m]\nregistry = \"sparse+https://index.test/\"\n"
            ),
            (
                "go.mod",
                "module me.test/x\n\ngo 1.22\n\nrequire (\n\tmod.test/a/b v1.2.3\n\tother.test/c v0.1.0 // indirect\n)\n"
            ),
            (
                ".git/config",
                "[remote \"origin\"]\n\turl = git@forge.test:me/x.git\n[remote \"up\"]\n\turl = https://up.test/x\n[remote \"local\"]\n\turl = /srv/x\n"
            ),
        ]),
        [
            "dep.test:443",
            "forge.test:22",
            "index.test:443",
            "mod.test:443",
            "other.test:443",
            "up.test:443"
        ]
    );
}

#[test]
fn a_project_that_names_nothing_allows_nothing_and_addresses_are_no_names() {
    assert!(hosts(&[("README.md", "https://no.test")]).is_empty());
    let dir = project(&[(
        ".npmrc",
        "registry=http://127.0.0.1:4873/\nregistry=http://localhost/\n",
    )]);
    let derived = derive::derive(dir.path());
    assert!(derived.hosts.keys().all(|h| !h.starts_with("127.")));
    assert!(!derived.notes.is_empty());
}

#[test]
fn the_number_of_hosts_is_bounded() {
    let lock = |n: usize| -> String {
        (0..n)
            .map(|i| format!("  resolved \"https://h{i}.test/a\"\n"))
            .collect()
    };
    assert_eq!(
        hosts(&[("yarn.lock", &lock(derive::MAX_HOSTS))]).len(),
        derive::MAX_HOSTS
    );
    assert_eq!(
        hosts(&[("yarn.lock", &lock(derive::MAX_HOSTS + 1))]).len(),
        derive::MAX_HOSTS
    );
}

#[test]
fn a_devcontainers_comments_and_keys_stay_where_they_were() {
    let dir = project(&[("yarn.lock", "  resolved \"https://y.test/a\"\n")]);
    let derived = derive::derive(dir.path());
    let text = "// top\n{\n  \"image\": \"x\", // the image\n  \"customizations\": {\n    \"vscode\": {},\n    \"agentcontainer\": { \"capabilities\": { \"network\": { \"egress\": { \"allowedDomains\": [\"own.test\"] } } } }\n  }\n}\n";
    let made = convert(text, None, &derived).unwrap();
    assert!(made.starts_with("// top\n{\n  \"image\": \"x\", // the image\n"));
    let config = schema::config::parse(made.as_bytes(), TARGET).unwrap();
    let domains: Vec<String> = config
        .agent
        .egress()
        .allowed_domains
        .iter()
        .map(|d| d.host.to_string())
        .collect();
    assert_eq!(domains, ["own.test", "y.test"]);
    assert!(made.contains("\"vscode\"") && !made.contains("\"agentcontainer\""));
    let other = convert("{}", Some("debian:12"), &derived).unwrap();
    assert_eq!(
        schema::config::parse(other.as_bytes(), TARGET)
            .unwrap()
            .image
            .as_str(),
        "debian:12"
    );
    assert!(convert("[]", None, &derived).is_none());
}

#[test]
fn a_fresh_config_is_one_that_is_read() {
    let dir = project(&[("yarn.lock", "  resolved \"https://y.test/a\"\n")]);
    for derived in [derive::derive(dir.path()), Derived::default()] {
        let config =
            schema::config::parse(fresh("debian:12", &derived).as_bytes(), TARGET).unwrap();
        assert_eq!(
            config.agent.egress().allowed_domains.len(),
            derived.hosts.len()
        );
    }
}

#[test]
fn what_is_there_is_only_replaced_when_told() {
    let dir = project(&[(TARGET, "old")]);
    let path = dir.path().join(TARGET);
    assert!(files::write(&path, "new", false).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    files::write(&path, "new", true).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}
