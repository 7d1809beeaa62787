#![allow(clippy::unwrap_used)]
use super::*;

const FULL: &str = r#"
engine = "auto"
[gateway]
resolver = "1.2.3.4:53"
hosts = { "API.corp" = "10.1.2.3", "db.corp" = ["10.1.2.4", "fd00::4"] }
private_networks = ["10.1.0.0/16", "fd00::/8", "10.9.9.9"]
upstream_proxy = "http://proxy.corp:3128"
ca_bundles = ["/etc/corp/ca.pem", "/etc/corp/ca.pem", "/srv/other ca.pem"]
"#;

fn errors(text: &str) -> Vec<String> {
    parse(text.as_bytes(), "c.toml")
        .err()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn a_whole_file_is_read() {
    let config = parse(FULL.as_bytes(), "c.toml").unwrap();
    assert_eq!(config.engine(), &Engine::Auto);
    assert_eq!(
        config.gateway.resolver.as_ref().unwrap().value.to_string(),
        "1.2.3.4:53"
    );
    assert_eq!(
        config.gateway.resolver.as_ref().unwrap().at,
        Position {
            line: 4,
            column: 12
        }
    );
    let hosts: Vec<_> = config
        .gateway
        .hosts
        .iter()
        .map(|(name, to)| (name.as_str(), to.value.len()))
        .collect();
    assert_eq!(hosts, [("api.corp", 1), ("db.corp", 2)]);
    let networks: Vec<_> = config
        .gateway
        .private_networks
        .iter()
        .map(|net| net.value.to_string())
        .collect();
    assert_eq!(networks, ["10.1.0.0/16", "fd00::/8", "10.9.9.9/32"]);
    let bundles: Vec<_> = config
        .gateway
        .ca_bundles
        .iter()
        .map(|bundle| (bundle.value.to_str().unwrap(), bundle.at.column))
        .collect();
    assert_eq!(
        bundles,
        [("/etc/corp/ca.pem", 15), ("/srv/other ca.pem", 55)]
    );
    assert_eq!(parse(b"", "c.toml").unwrap(), HostConfig::default());
}

#[test]
fn everything_that_is_wrong_is_said_at_once_with_its_place() {
    let found = errors(
        "engin = \"docker\"\nfiles = \"lax\"\n[gateway]\nresolvr = \"system\"\nhosts = { web = \"10.0.0.1\", \"a.b\" = [], \"c.d\" = \"x\" }\n\
         private_networks = [\"10.1.2.3/8\", 5]\nupstream_proxy = \"https://p:1\"\nca_bundles = [\"ca.pem\", 1, \"\"]\n[policy]\n[credentials.github]\nsourc = \"env://A\"\nhosts = []\nheader = \"Host\"\nformat = \"x\"\nquery = \"a=b\"\n[credentials.\"a b\"]\n[registries.\"a/b\"]\nplain_http = true\n[registries.\"a.b\"]\nplain_http = 1\n",
    );
    assert_eq!(
        found,
        [
            "c.toml:1:1: unknown key `engin` [unknown-key]\n  help: did you mean `engine`?",
            "c.toml:2:9: `files` is \"lax\", expected one of strict, mounts [invalid-value]",
            "c.toml:4:1: unknown key `resolvr` in `gateway` [unknown-key]\n  help: did you mean `resolver`?",
            "c.toml:5:11: `gateway.hosts.\"web\"` has a single label, which is never resolved [single-label-host]",
            "c.toml:5:37: `gateway.hosts.\"a.b\"` is empty [invalid-value]",
            "c.toml:5:49: `gateway.hosts.\"c.d\"` is \"x\": expected an IPv4 or IPv6 address [invalid-value]",
            "c.toml:6:21: `gateway.private_networks[0]` is \"10.1.2.3/8\": expected an IPv4 or IPv6 network whose host bits are zero, such as 10.1.0.0/16 [invalid-network]",
            "c.toml:6:35: `gateway.private_networks[1]` is a number, expected a string [wrong-type]",
            "c.toml:7:18: `gateway.upstream_proxy` is \"https://p:1\": a proxy is `http://HOST:PORT`, without user, path or query [invalid-value]",
            "c.toml:8:15: `gateway.ca_bundles[0]` is \"ca.pem\": expected the absolute path of a file [invalid-path]",
            "c.toml:8:25: `gateway.ca_bundles[1]` is a number, expected a string [wrong-type]",
            "c.toml:8:28: `gateway.ca_bundles[2]` is \"\": expected the absolute path of a file [invalid-path]",
            "c.toml:9:1: `policy.source` is missing [missing-key]",
            "c.toml:9:1: `policy` names no signer: `identities` or `keys` has at least one [missing-key]",
            "c.toml:10:1: `credentials.github.source` is missing [missing-key]",
            "c.toml:11:1: unknown key `sourc` in `credentials.github` [unknown-key]\n  help: did you mean `source`?",
            "c.toml:12:9: `credentials.github.hosts` is empty; a credential goes to at least one host [invalid-value]",
            "c.toml:13:10: `credentials.github.header`: this header belongs to the connection or frames the request, and cannot hold a credential [invalid-value]",
            "c.toml:14:10: `credentials.github.format`: expected visible ASCII around exactly one {}, where the value goes [invalid-value]",
            "c.toml:15:9: `credentials.github.query`: expected the name of a query parameter: letters, digits, -, _ and . [invalid-value]",
            "c.toml:16:14: `credentials` has the name \"a b\": expected 1 to 64 letters, digits, _ and - [invalid-value]",
            "c.toml:17:13: `registries.\"a/b\"`: expected a host with an optional port, such as 127.0.0.1:5000 [invalid-value]",
            "c.toml:20:14: `registries.\"a.b\".plain_http` is a number, expected true or false [wrong-type]",
        ]
    );
}

#[test]
fn a_secret_is_granted_by_its_source_alone() {
    let text = "[secrets.NPM_TOKEN]\nsource = \"env://NPM\"\n";
    let system = parse(
        b"[secrets.NPM_TOKEN]\nsource = \"file:///t\"\n[secrets.B]\nsource = \"stdin\"\n",
        "/etc/c.toml",
    );
    let both = parse(text.as_bytes(), "c.toml")
        .unwrap()
        .above(system.unwrap());
    let shown: Vec<String> = both
        .secrets
        .iter()
        .map(|(name, grant)| format!("{name} {} {}", grant.value.source, grant.file))
        .collect();
    assert_eq!(shown, ["B stdin /etc/c.toml", "NPM_TOKEN env://NPM c.toml"]);
    for (bad, code) in [
        ("[secrets.\"a b\"]\nsource = \"stdin\"\n", "invalid-value"),
        ("[secrets.a]\n", "missing-key"),
        (
            "[secrets.a]\nsource = \"stdin\"\nhosts = [\"a.b\"]\n",
            "unknown-key",
        ),
        ("[secrets.a]\nsource = \"ghp_value\"\n", "invalid-value"),
        ("secrets = 1\n", "wrong-type"),
    ] {
        let found = errors(bad);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].contains(&format!("[{code}]")) && !found[0].contains("ghp_"),
            "{found:?}"
        );
    }
    let names = |n: usize| -> String {
        let one = |i| format!("[secrets.s{i}]\nsource = \"stdin\"\n");
        (0..n).map(one).collect()
    };
    let most = crate::config::secret::MAX_SECRETS;
    assert!(parse(names(most).as_bytes(), "c.toml").is_ok());
    assert!(errors(&names(most + 1))[0].contains("[too-many]"));
}

#[test]
fn a_grant_of_a_known_provider_says_what_is_different() {
    let config = parse(
        b"[credentials.anthropic]\nsource = \"env://KEY\"\n\
          [credentials.gemini]\nsource = \"env://KEY\"\nhosts = [\"llm.corp\"]\nheader = \"X-Key\"\n\
          [credentials.github]\nsource = \"env://KEY\"\nformat = \"token {}\"\n",
        "c.toml",
    )
    .unwrap();
    let shown = |name: &str| {
        let grant = &config.credentials[name].value;
        let hosts: Vec<String> = grant.hosts.iter().map(ToString::to_string).collect();
        format!("{} {}: {}", hosts.join(","), grant.header, grant.format)
    };
    let query = |name: &str| {
        let grant = &config.credentials[name].value;
        grant.query.as_ref().map(ToString::to_string)
    };
    assert_eq!(query("gemini").as_deref(), Some("key"));
    assert_eq!(query("github"), None);
    assert_eq!(shown("anthropic"), "api.anthropic.com x-api-key: {}");
    assert_eq!(shown("gemini"), "llm.corp x-key: {}");
    assert_eq!(
        shown("github"),
        "api.github.com,github.com,uploads.github.com authorization: token {}"
    );
    let error = parse(b"[credentials.other]\nsource = \"env://KEY\"\n", "c.toml").unwrap_err();
    assert!(
        error[0]
            .to_string()
            .contains("`credentials.other.hosts` is missing")
    );
}

#[test]
fn a_grant_says_where_a_value_comes_from_and_where_it_goes() {
    let config = parse(
        b"[credentials.github]\nsource = \"env://GITHUB_TOKEN\"\nhosts = [\"api.github.com\", \"ghe.corp:8443\"]\n\
          [credentials.model]\nsource = \"exec:///usr/bin/pass show model\"\nhosts = [\"*.example.com\"]\nheader = \"X-API-Key\"\nformat = \"{}\"\n",
        "c.toml",
    )
    .unwrap();
    let github = &config.credentials["github"];
    assert_eq!((github.file.as_str(), github.at.line), ("c.toml", 1));
    assert_eq!(github.value.source.kind(), "env");
    assert_eq!(github.value.hosts[1].https_port(), 8443);
    assert_eq!(github.value.header.as_str(), "authorization");
    assert_eq!(github.value.format.prefix(), "Bearer ");
    let model = &config.credentials["model"].value;
    assert_eq!(model.source.to_string(), "exec:///usr/bin/pass show model");
    assert_eq!(
        (model.header.as_str(), model.format.prefix()),
        ("x-api-key", "")
    );
}

#[test]
fn strict_in_either_file_wins() {
    let read = |text: &str| parse(text.as_bytes(), "c.toml").unwrap();
    let (strict, mounts) = (read("files = \"strict\""), read("files = \"mounts\""));
    let nothing = HostConfig::default();
    for (above, below, expected) in [
        (&strict, &mounts, Some(Files::Strict)),
        (&mounts, &strict, Some(Files::Strict)),
        (&mounts, &nothing, Some(Files::Mounts)),
        (&nothing, &mounts, Some(Files::Mounts)),
        (&nothing, &nothing, None),
    ] {
        let merged = above.clone().above(below.clone());
        assert_eq!(merged.files.map(|files| files.value), expected);
    }
    // What a policy of the system's says of files is held as the system says, or as nobody does: strictly.
    let policy = |files: &str| {
        read(&format!(
            "{files}\n[policy]\nsource = \"oci://r.test/acme/policy:prod\"\nkeys = [\"/etc/policy.pub\"]\n"
        ))
    };
    for (above, below, expected) in [
        (&mounts, policy(""), None),
        (&strict, policy(""), Some(Files::Strict)),
        (&nothing, policy(""), None),
        (&nothing, policy("files = \"mounts\""), Some(Files::Mounts)),
        (&strict, policy("files = \"mounts\""), Some(Files::Strict)),
        (&mounts, policy("files = \"strict\""), Some(Files::Strict)),
    ] {
        let merged = above.clone().above(below);
        assert_eq!(merged.files.map(|files| files.value), expected);
    }
    // A policy that the user alone names is the user's to hold.
    let own = policy("files = \"mounts\"").above(nothing);
    assert_eq!(own.files.map(|files| files.value), Some(Files::Mounts));
}

#[test]
fn a_source_that_is_none_is_not_repeated_and_a_later_one_is_refused_in_words() {
    let grant = |source: &str| {
        let found = errors(&format!(
            "[credentials.x]\nsource = \"{source}\"\nhosts = [\"a.b\"]\n"
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        found.concat()
    };
    let pasted = grant("ghp_abcdefghijklmnopqrstuvwxyz");
    assert!(
        pasted.starts_with("c.toml:2:10: `credentials.x.source`: expected env://"),
        "{pasted}"
    );
    assert!(!pasted.contains("ghp_"), "{pasted}");
    for later in ["infisical://a/b", "oidc://x", "github-app"] {
        let words = grant(later);
        assert!(
            words.contains("not fetched from there by this version"),
            "{words}"
        );
        assert!(words.ends_with("[not-enforced]"), "{words}");
    }
}

#[test]
fn two_spellings_of_one_host_are_one_key_too_many() {
    assert!(
        errors("[gateway.hosts]\n\"a.b\" = \"10.0.0.1\"\n\"A.b.\" = \"10.0.0.2\"\n")[0]
            .ends_with("[duplicate-key]")
    );
}

#[test]
fn the_users_file_lies_above_the_systems() {
    let user = parse(b"engine = \"podman\"\n[gateway]\nhosts = { \"a.b\" = \"10.0.0.1\" }\nprivate_networks = [\"10.0.0.0/8\"]\nca_bundles = [\"/b.pem\"]", "u");
    let system = parse(
        b"engine = \"docker\"\n[gateway]\nhosts = { \"a.b\" = \"10.0.0.2\", \"c.d\" = \"10.0.0.3\" }\nprivate_networks = [\"10.0.0.0/8\", \"192.168.0.0/16\"]\nca_bundles = [\"/a.pem\", \"/b.pem\"]",
        "s",
    );
    let merged = user.unwrap().above(system.unwrap());
    assert_eq!(merged.engine(), &Engine::Podman);
    let hosts: Vec<_> = merged
        .gateway
        .hosts
        .values()
        .map(|to| (to.value[0].to_string(), to.file.as_str()))
        .collect();
    assert_eq!(
        hosts,
        [("10.0.0.1".to_owned(), "u"), ("10.0.0.3".to_owned(), "s")]
    );
    assert_eq!(merged.gateway.private_networks.len(), 2);
    let bundles = merged.gateway.ca_bundles.iter();
    let bundles: Vec<_> = bundles
        .map(|b| (b.value.to_str().unwrap(), b.file.as_str()))
        .collect();
    assert_eq!(bundles, [("/b.pem", "u"), ("/a.pem", "s")]);
}

#[test]
fn engines_are_words_or_addresses() {
    for text in [
        "auto",
        "docker",
        "podman",
        "unix:///run/podman.sock",
        "ssh://me@host",
        "tcp://10.0.0.1:2376",
    ] {
        assert_eq!(text.parse::<Engine>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "Docker",
        "unix://relative",
        "unix:///",
        "http://x",
        "ssh://",
        "ssh://-oProxyCommand=x",
        "tcp:// x",
    ] {
        assert!(text.parse::<Engine>().is_err(), "{text}");
    }
}

#[test]
fn the_path_follows_xdg() {
    let at = |xdg: Option<&str>, home: Option<&str>| -> Vec<String> {
        let env = |name: &str| match name {
            "XDG_CONFIG_HOME" => xdg.map(str::to_owned),
            _ => home.map(str::to_owned),
        };
        paths(env)
            .iter()
            .map(|path| path.display().to_string())
            .collect()
    };
    assert_eq!(
        at(Some("/x"), Some("/h")),
        ["/x/agentcontainer/config.toml", SYSTEM_FILE]
    );
    assert_eq!(
        at(None, Some("/h")),
        ["/h/.config/agentcontainer/config.toml", SYSTEM_FILE]
    );
    assert_eq!(
        at(Some("rel"), Some("/h")),
        ["/h/.config/agentcontainer/config.toml", SYSTEM_FILE]
    );
    assert_eq!(at(None, None), [SYSTEM_FILE]);
}

#[test]
fn lists_are_bounded() {
    let networks = |n: usize| {
        let list: Vec<String> = (0..n)
            .map(|i| format!("\"10.{}.{}.0/24\"", i / 256, i % 256))
            .collect();
        format!("[gateway]\nprivate_networks = [{}]", list.join(","))
    };
    assert!(errors(&networks(MAX_ENTRIES)).is_empty());
    assert!(errors(&networks(MAX_ENTRIES + 1))[0].ends_with("[too-many]"));
    let bundles = |n: usize| {
        let list: Vec<String> = (0..n).map(|i| format!("\"/{i}.pem\"")).collect();
        format!("[gateway]\nca_bundles = [{}]", list.join(","))
    };
    assert!(errors(&bundles(MAX_ENTRIES)).is_empty());
    assert!(errors(&bundles(MAX_ENTRIES + 1))[0].ends_with("[too-many]"));
}

#[test]
fn files_are_loaded_strongest_first_and_need_not_exist() {
    let dir = tempfile::tempdir().unwrap();
    let (user, system) = (dir.path().join("u"), dir.path().join("s"));
    assert_eq!(
        load(&[user.clone(), system.clone()]).unwrap(),
        HostConfig::default()
    );
    std::fs::write(&system, "engine = \"docker\"").unwrap();
    std::fs::write(&user, "engine = \"podman\"").unwrap();
    assert_eq!(
        load(&[user.clone(), system.clone()]).unwrap().engine(),
        &Engine::Podman
    );
    std::fs::write(&system, "x = 1").unwrap();
    std::fs::write(&user, "y = 1").unwrap();
    assert_eq!(load(&[user, system]).unwrap_err().len(), 2);
    assert_eq!(
        load(&[dir.path().to_owned()]).unwrap_err()[0].code,
        "not-a-file"
    );
}

#[test]
fn the_hosts_levels_of_inspectors_are_read_and_the_users_win() {
    use crate::inspection::{Inspector, Level};
    let user = parse(b"[inspection]\nsecrets = \"flag\"\n", "u.toml").unwrap();
    let system = parse(
        b"[inspection]\nsecrets = \"block\"\ncontent_type = \"block\"\n",
        "s.toml",
    )
    .unwrap();
    let both = user.above(system);
    let level = |inspector| {
        let setting = both.inspection.get(&inspector)?;
        Some((setting.value, setting.file.as_str()))
    };
    assert_eq!(level(Inspector::Secrets), Some((Level::Flag, "u.toml")));
    assert_eq!(
        level(Inspector::ContentType),
        Some((Level::Block, "s.toml"))
    );
    assert_eq!(level(Inspector::Entropy), None);
    for (text, code) in [
        (&b"[inspection]\ncontentType = \"off\""[..], "unknown-key"),
        (b"[inspection]\nsecrets = \"on\"", "invalid-value"),
        (b"inspection = \"off\"", "wrong-type"),
    ] {
        let found = parse(text, "c.toml").unwrap_err();
        assert_eq!(found[0].code, code);
    }
}

#[test]
fn a_policy_has_a_source_and_signers_and_any_signer_cannot_be_spelt() {
    let signed = |lines: &str| {
        let text = format!("[policy]\nsource = \"oci://registry.corp/policy:prod\"\n{lines}");
        parse(text.as_bytes(), "c.toml")
    };
    let code = |lines: &str| {
        let found = signed(lines).unwrap_err();
        assert_eq!(found.len(), 1, "{lines}: {found:#?}");
        found[0].code
    };
    let identity = r#"{ issuer = "https://a.example", subject = "https://github.com/acme/*" }"#;
    let read = signed(&format!("identities = [{identity}]")).unwrap();
    let policy = &read.policy[0];
    assert_eq!(
        policy.value.source.to_string(),
        "oci://registry.corp/policy:prod"
    );
    assert_eq!((policy.file.as_str(), policy.at.line), ("c.toml", 1));
    assert!(matches!(&policy.value.signers, Signers::Identities(all) if all.len() == 1));
    let read = signed("keys = [\"/etc/agentcontainer/policy.pub\"]").unwrap();
    assert!(matches!(&read.policy[0].value.signers, Signers::Keys(all) if all[0].at.line == 3));
    assert_eq!(read.policy[0].value.organisation, None);
    let read = signed("organisation = \"acme\"\nkeys = [\"/k\"]").unwrap();
    let organisation = read.policy[0].value.organisation.as_ref();
    assert_eq!(organisation.unwrap().to_string(), "acme");
    for (lines, expected) in [
        ("", "missing-key"),
        ("organisation = \"a b\"\nkeys = [\"/k\"]", "invalid-value"),
        ("keys = []", "invalid-value"),
        ("identities = []", "invalid-value"),
        ("keys = [\"policy.pub\"]", "invalid-path"),
        ("unknown = 1\nkeys = [\"/k\"]", "unknown-key"),
        (
            r#"identities = [{ issuer = "https://a.example", subject = "*" }]"#,
            "invalid-value",
        ),
        (
            r#"identities = [{ issuer = "https://a.example" }]"#,
            "missing-key",
        ),
    ] {
        assert_eq!(code(lines), expected, "{lines}");
    }
    assert_eq!(
        code(&format!("identities = [{identity}]\nkeys = [\"/k\"]")),
        "conflicting-signers"
    );
    let many = |n: usize| signed(&format!("keys = [{}]", vec!["\"/k\""; n].join(", ")));
    assert!(many(MAX_SIGNERS).is_ok() && many(MAX_SIGNERS + 1).is_err());
    let many = |n: usize| signed(&format!("identities = [{}]", vec![identity; n].join(", ")));
    assert!(many(MAX_SIGNERS).is_ok() && many(MAX_SIGNERS + 1).is_err());
    for source in [
        "registry.corp/policy:prod",
        "https://registry.corp/policy:prod",
        "oci://policy:prod",
        "oci://registry.corp/policy",
        "oci://acme/policy:prod",
    ] {
        let text = format!("[policy]\nsource = \"{source}\"\nkeys = [\"/k\"]");
        assert_eq!(
            parse(text.as_bytes(), "c.toml").unwrap_err()[0].code,
            "invalid-value",
            "{source}"
        );
    }
}

#[test]
fn a_user_adds_a_policy_to_the_systems_and_cannot_take_its_place() {
    let of = |tag: &str, file: &str| {
        let text =
            format!("[policy]\nsource = \"oci://registry.corp/policy:{tag}\"\nkeys = [\"/k\"]");
        parse(text.as_bytes(), file).unwrap()
    };
    let both = of("own", "user.toml").above(of("prod", SYSTEM_FILE));
    let sources: Vec<String> = both
        .policy
        .iter()
        .map(|p| p.value.source.to_string())
        .collect();
    assert_eq!(
        sources,
        [
            "oci://registry.corp/policy:own",
            "oci://registry.corp/policy:prod"
        ]
    );
    let none = HostConfig::default().above(of("prod", SYSTEM_FILE));
    assert_eq!(none.policy.len(), 1);
}

#[test]
fn where_roots_are_refreshed_from_is_an_address_and_a_file_or_neither() {
    let good = "[sigstore]\ntuf = \"https://tuf.corp/\"\nroot = \"/etc/root.json\"\n";
    let config = parse(good.as_bytes(), "c.toml").unwrap();
    let setting = config.sigstore.unwrap();
    let expected = SigstoreConfig::Repository {
        tuf: "https://tuf.corp/".to_owned(),
        root: "/etc/root.json".into(),
    };
    assert_eq!(setting.value, expected);
    let file = "[sigstore]\ntrusted_root = \"/etc/trusted_root.json\"\n";
    let setting = parse(file.as_bytes(), "c.toml").unwrap().sigstore.unwrap();
    let trusted_root = "/etc/trusted_root.json".into();
    assert_eq!(setting.value, SigstoreConfig::File { trusted_root });
    for here in [
        "http://127.0.0.1:8080/",
        "http://localhost",
        "http://[::1]/x",
    ] {
        let text = good.replace("https://tuf.corp/", here);
        assert!(parse(text.as_bytes(), "c.toml").is_ok(), "{here}");
    }
    for bad in [
        "[sigstore]\ntuf = \"https://tuf.corp/\"\n",
        "[sigstore]\nroot = \"/etc/root.json\"\n",
        "[sigstore]\n",
        &good.replace("https", "http"),
        &good.replace("https://tuf.corp/", "http://localhost.corp/"),
        &good.replace("https://tuf.corp/", "https://"),
        &good.replace("https://tuf.corp/", "http://localhost:1@tuf.corp/"),
        &good.replace("/etc/root.json", "root.json"),
        &format!("{good}more = 1\n"),
        &format!("{good}trusted_root = \"/etc/trusted_root.json\"\n"),
        &format!("{file}root = \"/etc/root.json\"\n"),
        &file.replace("/etc/", ""),
    ] {
        assert!(parse(bad.as_bytes(), "c.toml").is_err(), "{bad}");
    }
}

#[test]
fn a_user_names_no_other_roots_for_the_systems_policy() {
    let roots =
        |name: &str| format!("[sigstore]\ntuf = \"https://{name}/\"\nroot = \"/etc/root.json\"\n");
    let policy = "[policy]\nsource = \"oci://registry.corp/policy:prod\"\nkeys = [\"/k\"]\n";
    let above = |user: &str, system: &str| {
        let of = |text: &str, file: &str| parse(text.as_bytes(), file).unwrap();
        let both = of(user, "u.toml").above(of(system, SYSTEM_FILE));
        both.sigstore.map(|setting| match setting.value {
            SigstoreConfig::Repository { tuf, .. } => tuf,
            SigstoreConfig::File { trusted_root } => trusted_root.display().to_string(),
        })
    };
    let (own, corp) = (roots("own"), roots("corp"));
    let tuf = |name: &str| Some(format!("https://{name}/"));
    assert_eq!(above(&own, ""), tuf("own"));
    assert_eq!(above(&own, &corp), tuf("own"));
    assert_eq!(above("", &corp), tuf("corp"));
    assert_eq!(above(&own, &format!("{policy}{corp}")), tuf("corp"));
    assert_eq!(above(&own, policy), None);
    // A policy of the user's own changes nothing for the system's.
    assert_eq!(above(&format!("{policy}{own}"), policy), None);
}
