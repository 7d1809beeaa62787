#![allow(clippy::unwrap_used)]
use super::*;
use crate::credential::Asked;
use crate::merge::effective;

const GRANT: &str = "[credentials.github]\nsource = \"env://GITHUB_TOKEN\"\nhosts = [\"api.github.com\", \"*.corp.example\", \"ghe.corp.example:8443\"]\n";

fn egress_config(egress: &str, credentials: &str) -> Config {
    let text = format!(
        r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "network": {{ "egress": {egress} }} }},
"credentials": {credentials} }} }}"#
    );
    schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap()
}

fn merged(egress: &str, credentials: &str, host: &str) -> Result<EffectivePolicy, Vec<String>> {
    merged_at(
        egress_config(egress, credentials),
        host,
        "git@github.com:acme/widget.git",
    )
}

fn merged_at(config: Config, host: &str, origin: &str) -> Result<EffectivePolicy, Vec<String>> {
    let mut host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
    host.remote = Remote::parse(origin);
    effective(&config, &host).map_err(|found| found.iter().map(ToString::to_string).collect())
}

fn places(policy: &EffectivePolicy, name: &str) -> Vec<String> {
    let credential = policy.credentials.iter().find(|c| c.name == name).unwrap();
    credential.places.iter().map(ToString::to_string).collect()
}

const EVERYWHERE: &str = r#"{ "allowedDomains": ["api.github.com", "*.corp.example", "other.example"],
    "rules": [{ "host": "ghe.corp.example", "ports": [8443], "protocol": "https" }] }"#;

#[test]
fn a_credential_carries_the_hosts_field_and_the_workspaces_place() {
    let policy = merged(
        EVERYWHERE,
        r#"{ "github": { "hosts": ["api.github.com"], "env": "GITHUB_TOKEN" } }"#,
        &format!("{GRANT}header = \"X-Token\"\nformat = \"t={{}};\"\n"),
    )
    .unwrap();
    assert_eq!(places(&policy, "github"), ["api.github.com:443"]);
    let [github] = policy.credentials.as_slice() else {
        panic!("{:?}", policy.credentials);
    };
    assert_eq!(github.header, "x-token");
    assert_eq!(
        (github.prefix.as_str(), github.suffix.as_str()),
        ("t=", ";")
    );
    assert_eq!(github.env.as_deref(), Some("GITHUB_TOKEN"));
    assert_eq!(github.origin.to_string(), "agentcontainer.json:3:18");
    let again = EffectivePolicy::from_json(&policy.to_json()).unwrap();
    assert_eq!(again, policy);
}

#[test]
fn the_workspaces_hosts_narrow_the_grants_label_by_label_and_port_by_port() {
    for (hosts, expected) in [
        (r#"["a.b.corp.example"]"#, vec!["a.b.corp.example:443"]),
        (r#"["*.b.corp.example"]"#, vec!["*.b.corp.example:443"]),
        (r#"["*.corp.example"]"#, vec!["*.corp.example:443"]),
        (
            r#"["ghe.corp.example:8443"]"#,
            vec!["ghe.corp.example:8443"],
        ),
        (
            r#"["api.github.com", "API.github.com.", "ghe.corp.example"]"#,
            vec!["api.github.com:443", "ghe.corp.example:443"],
        ),
    ] {
        let policy = merged(
            EVERYWHERE,
            &format!(r#"{{ "github": {{ "hosts": {hosts} }} }}"#),
            GRANT,
        );
        assert_eq!(places(&policy.unwrap(), "github"), expected, "{hosts}");
    }
    let all = merged(EVERYWHERE, r#"{ "github": {} }"#, GRANT).unwrap();
    assert_eq!(
        places(&all, "github"),
        [
            "api.github.com:443",
            "ghe.corp.example:8443",
            "*.corp.example:443"
        ]
    );
    // Of what the grant names, that which traffic may go to.
    let some = merged(
        r#"{ "allowedDomains": ["api.github.com"] }"#,
        r#"{ "github": {} }"#,
        GRANT,
    );
    assert_eq!(places(&some.unwrap(), "github"), ["api.github.com:443"]);
}

#[test]
fn what_would_not_happen_is_an_error_at_its_place() {
    let refused = |egress: &str, credentials: &str, code: &str| {
        let found = merged(egress, credentials, GRANT).unwrap_err();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(&format!("[{code}]")), "{found:?}");
        assert!(found[0].starts_with("agentcontainer.json:"), "{found:?}");
        found.concat()
    };
    let words = refused("{}", r#"{ "npm": {} }"#, "credential-not-granted");
    assert!(
        words.contains("grants no credential npm") && words.contains("[credentials.npm]"),
        "{words}"
    );
    for host in [
        "other.example",
        "corp.example",
        "api.github.com:8443",
        "evilcorp.example",
        "*.api.github.com",
    ] {
        let asked = format!(r#"{{ "github": {{ "hosts": ["{host}"] }} }}"#);
        let words = refused(EVERYWHERE, &asked, "credential-host");
        assert!(
            words.contains("grants it to api.github.com:443, *.corp.example:443"),
            "{words}"
        );
    }
    // Allowed by name and not as https, or not at all.
    for egress in [
        "{}",
        r#"{ "allowedDomains": ["api.github.com:80"] }"#,
        r#"{ "rules": [{ "host": "api.github.com", "ports": [443], "protocol": "tls" }] }"#,
        r#"{ "allowedDomains": ["api.github.com"], "deniedDomains": ["api.github.com"] }"#,
        r#"{ "allowedDomains": ["x.corp.example:8443"] }"#,
    ] {
        for credentials in [
            r#"{ "github": { "hosts": ["api.github.com"] } }"#,
            r#"{ "github": {} }"#,
        ] {
            let words = refused(egress, credentials, "credential-unreachable");
            assert!(words.contains("add \"api.github.com\" to"), "{words}");
        }
    }
    refused(
        r#"{ "allowedDomains": ["ghe.corp.example:8443"] }"#,
        r#"{ "github": { "hosts": ["ghe.corp.example:8443"] } }"#,
        "credential-unreachable",
    );
}

#[test]
fn a_wildcard_is_reached_where_any_name_of_it_is() {
    for (egress, fits) in [
        (r#"["a.corp.example"]"#, true),
        (r#"["*.b.corp.example"]"#, true),
        (r#"["corp.example"]"#, false),
        (r#"["a.corp.example:80"]"#, false),
        (r#"["evilcorp.example"]"#, false),
    ] {
        let policy = merged(
            &format!(r#"{{ "allowedDomains": {egress} }}"#),
            r#"{ "github": { "hosts": ["*.corp.example"] } }"#,
            GRANT,
        );
        assert_eq!(policy.is_ok(), fits, "{egress}: {policy:?}");
    }
}

#[test]
fn two_values_for_one_field_are_refused_unless_placeholders_tell_them_apart() {
    let host = format!(
        "{GRANT}[credentials.second]\nsource = \"file:///x\"\nhosts = [\"api.github.com\"]\n"
    );
    let both = |first: &str, second: &str| {
        let asked = format!(r#"{{ "github": {{ {first} }}, "second": {{ {second} }} }}"#);
        merged(EVERYWHERE, &asked, &host)
    };
    assert!(both(r#""env": "A""#, r#""env": "B""#).is_ok());
    for (first, second) in [("", ""), (r#""env": "A""#, ""), ("", r#""env": "B""#)] {
        let found = both(first, second).unwrap_err();
        assert!(found[0].contains("[conflicting-credentials]"), "{found:?}");
    }
    assert!(both(r#""hosts": ["*.corp.example"]"#, "").is_ok());
    // Nor where no request is for both.
    for (first, second, fits) in [
        (r#"paths = ["/a/**"]"#, r#"paths = ["/b/**"]"#, true),
        (r#"paths = ["/a/**"]"#, r#"paths = ["/*/b"]"#, false),
        (r#"paths = ["/a/**"]"#, "", false),
        (r#"methods = ["GET"]"#, r#"methods = ["POST", "PUT"]"#, true),
        (
            r#"methods = ["GET"]"#,
            r#"methods = ["POST", "GET"]"#,
            false,
        ),
    ] {
        let grant = |name: &str, limits: &str| {
            format!(
                "[credentials.{name}]\nsource = \"env://{name}\"\nhosts = [\"api.github.com\"]\n{limits}\n"
            )
        };
        let host = format!("{}{}", grant("one", first), grant("two", second));
        let merged = merged(EVERYWHERE, r#"{ "one": {}, "two": {} }"#, &host);
        assert_eq!(merged.is_ok(), fits, "{first} {second}: {merged:?}");
    }
}

#[test]
fn explain_and_difference_name_a_credential() {
    let with = merged(EVERYWHERE, r#"{ "github": { "env": "T" } }"#, GRANT).unwrap();
    let without = merged(EVERYWHERE, "{}", GRANT).unwrap();
    let explain = |target: &str| {
        let target = target.parse().unwrap();
        crate::explain(&with.compile(), &target, "agentcontainer.json")
            .with_credentials(&with.credentials)
            .to_string()
    };
    let words = explain("api.github.com");
    assert_eq!(
        words.matches("credentials \"github\"").count(),
        1,
        "{words}"
    );
    assert!(
        words.ends_with("in authorization: Bearer {}, by the placeholder in T"),
        "{words}"
    );
    assert!(!explain("other.example").contains("credentials \""));
    assert!(!explain("api.github.com:80").contains("credentials \""));
    let changes = crate::difference::difference(&without, &with);
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].what, "added");
    assert!(changes[0].rule.starts_with("credentials \"github\""));
}

/// With the profile's credential `anthropic` for KEY, and its host.
fn with_profile(
    egress: &str,
    credentials: &str,
    host: &str,
) -> Result<EffectivePolicy, Vec<String>> {
    use schema::profile::{self, Added, AddedCredential};
    let text = format!(
        r#"{{ "image": "debian", "agent": {{ "capabilities": {{ "network": {{ "egress": {egress} }} }},
"credentials": {credentials} }} }}"#
    );
    let mut config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
    config.profile = Some(Added {
        profile: profile::named("claude").unwrap(),
        domains: vec!["api.anthropic.com:443".parse().unwrap()],
        credential: Some(AddedCredential {
            name: "anthropic".parse().unwrap(),
            env: "KEY".parse().unwrap(),
            offered: None,
        }),
        env: [].into(),
        install: None,
    });
    let host = schema::hostconfig::parse(host.as_bytes(), "config.toml").unwrap();
    effective(&config, &host).map_err(|found| found.iter().map(ToString::to_string).collect())
}

const PROVIDER: &str = "[credentials.anthropic]\nsource = \"env://KEY\"\n";

#[test]
fn a_profile_opens_nothing_that_the_workspace_denies_or_rules() {
    let name = HostName::parse("api.anthropic.com").unwrap();
    let policy = with_profile("{}", "{}", PROVIDER).unwrap();
    let compiled = policy.compile();
    let decided = compiled.decide(&name, 443, Transport::Tcp);
    assert!(matches!(decided, Decision::Allow(grant) if grant.protocol == Protocol::Https));
    let origin = &policy.network.layers()[0].allowed[0].origin;
    assert_eq!(origin.to_string(), "profile claude");
    let credential = &policy.credentials[0];
    assert_eq!(credential.origin.to_string(), "profile claude");
    assert_eq!(
        (credential.header.as_str(), credential.env.as_deref()),
        ("x-api-key", Some("KEY"))
    );

    for egress in [
        r#"{ "deniedDomains": ["*.anthropic.com"] }"#,
        r#"{ "rules": [{ "host": "api.anthropic.com", "ports": [443], "action": "deny" }] }"#,
        r#"{ "rules": [{ "host": "api.anthropic.com", "ports": [443], "protocol": "tls" }] }"#,
    ] {
        let errors = with_profile(egress, "{}", PROVIDER).unwrap_err();
        assert!(errors[0].contains("api.anthropic.com:443"), "{errors:?}");
    }
}

#[test]
fn what_the_workspace_says_of_a_profiles_credential_stands() {
    let asked = r#"{ "anthropic": { "hosts": ["api.anthropic.com"], "env": "OTHER" } }"#;
    let policy = with_profile("{}", asked, PROVIDER).unwrap();
    assert_eq!(policy.credentials.len(), 1);
    assert_eq!(policy.credentials[0].env.as_deref(), Some("OTHER"));
    assert!(
        policy.credentials[0]
            .origin
            .to_string()
            .starts_with("agentcontainer.json:")
    );
    let policy = with_profile("{}", r#"{ "anthropic": {} }"#, PROVIDER).unwrap();
    assert_eq!(policy.credentials[0].env.as_deref(), Some("KEY"));
}

#[test]
fn github_is_for_the_workspaces_own_repository_unless_the_person_says_which_paths() {
    const ASKED: &str = r#"{ "github": { "env": "GITHUB_TOKEN" } }"#;
    const GITHUB: &str = r#"{ "allowedDomains": ["api.github.com", "github.com"] }"#;
    const KNOWN: &str = "[credentials.github]\nsource = \"env://GITHUB_TOKEN\"\n";
    let at = |host: &str, origin: &str| merged_at(egress_config(GITHUB, ASKED), host, origin);
    let github = |policy: EffectivePolicy| policy.credentials[0].clone();
    let ours = github(at(KNOWN, "https://github.com/acme/widget").unwrap());
    let fits = |credential: &Credential, host: &str, path: &str| {
        let asked = Asked {
            method: "GET",
            path,
            other_method: false,
            other_path: false,
        };
        credential.fits_request(&HostName::parse(host).unwrap(), 443, asked)
    };
    for (host, path, yes) in [
        ("api.github.com", "/repos/acme/widget", true),
        ("api.github.com", "/repos/acme/widget/pulls/1", true),
        ("api.github.com", "/repos/acme/widgets", false),
        ("api.github.com", "/repos/acme/widget/../other", false),
        ("api.github.com", "/repos/acme/widget/%2e%2e/other", false),
        ("api.github.com", "/repos/acme//widget", false),
        ("api.github.com", "/user", false),
        ("api.github.com", "/graphql", false),
        ("api.github.com", "/acme/widget.git/info/refs", false),
        ("github.com", "/acme/widget.git/info/refs", true),
        ("github.com", "/acme/widget/git-upload-pack", true),
        ("github.com", "/acme/other.git/info/refs", false),
        (
            "uploads.github.com",
            "/repos/acme/widget/releases/1/assets",
            false,
        ),
    ] {
        assert_eq!(fits(&ours, host, path), yes, "{host} {path}");
    }
    let said = format!("{KNOWN}paths = [\"/user\", \"/repos/acme/**\"]\n");
    let said = github(at(&said, "nothing").unwrap());
    assert!(fits(&said, "api.github.com", "/user") && fits(&said, "github.com", "/repos/acme/x"));
    assert!(!fits(&said, "api.github.com", "/graphql"));
    let again = EffectivePolicy::from_json(&at(KNOWN, "github.com:a/b").unwrap().to_json());
    assert!(!again.unwrap().credentials[0].places[0].paths.is_empty());
    for origin in ["nothing", "https://git.test/acme/widget"] {
        let found = at(KNOWN, origin).unwrap_err().concat();
        assert!(
            found.contains("[credential-scope]") && found.contains("--paths '/**'"),
            "{found}"
        );
    }
    // A wildcard would go around it; another host is the person's word alone.
    let wild = format!("{KNOWN}hosts = [\"*.github.com\"]\n");
    assert!(
        at(&wild, "github.com:acme/widget")
            .unwrap_err()
            .concat()
            .contains("credential-scope")
    );
    let other = merged_at(
        egress_config(
            EVERYWHERE,
            r#"{ "github": { "hosts": ["ghe.corp.example"] } }"#,
        ),
        GRANT,
        "nothing",
    );
    assert!(other.unwrap().credentials[0].places[0].paths.is_empty());
}
