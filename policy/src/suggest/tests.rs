#![allow(clippy::unwrap_used)]
use super::*;
use schema::config;
use schema::hostconfig::HostConfig;

const CONFIG: &str = r#"{ "image": "a", "agent": { "capabilities": { "network": { "egress": {
    "allowedDomains": ["open.example.com", "db.example.com:5432", "*.wild.example.com"],
    "deniedDomains": ["bad.example.com", "x.wild.example.com"],
    "rules": [
        { "host": "api.example.com", "ports": [443], "methods": ["GET"], "paths": ["/a/*"], "maxBodyBytes": 10 },
        { "host": "api.example.com", "ports": [443], "action": "deny", "paths": ["/secret/**"] },
        { "host": "api.example.com", "ports": [8080], "protocol": "http", "methods": ["GET"] }
    ] } } } } }"#;

fn policy(text: &str) -> Compiled {
    let config = config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
    crate::effective(&config, &HostConfig::default())
        .unwrap()
        .compile()
}

fn connection(host: &str, port: u16, reason: &str) -> Denied {
    Denied {
        host: host.into(),
        port: Some(port),
        reason: reason.into(),
        ..Denied::default()
    }
}

fn request(method: &str, port: u16, path: &str) -> Denied {
    Denied {
        request: Some((method.into(), path.into())),
        ..connection("api.example.com", port, "request-not-listed")
    }
}

fn suggest(denied: &[Denied]) -> Suggestions {
    let mut denials = Denials::default();
    for denied in denied {
        denials.add(denied.clone(), "/usr/bin/curl");
    }
    denials.suggest(&policy(CONFIG))
}

fn entries(denied: &[Denied]) -> Vec<Value> {
    let suggestions = suggest(denied).suggestions;
    suggestions.into_iter().map(|one| one.entry).collect()
}

fn why(denied: Denied) -> String {
    let said = suggest(&[denied]);
    assert_eq!(said.suggestions, []);
    said.without.first().unwrap().why.clone()
}

/// The config with what was suggested in it.
fn patched(said: &Suggestions) -> Compiled {
    let mut config: Value = serde_json::from_str(CONFIG).unwrap();
    let egress = &mut config["agent"]["capabilities"]["network"]["egress"];
    for one in &said.suggestions {
        let list = serde_json::to_value(one.list).unwrap();
        let list = egress[list.as_str().unwrap()].as_array_mut().unwrap();
        list.push(one.entry.clone());
    }
    policy(&config.to_string())
}

#[test]
fn a_name_is_suggested_as_it_was_asked_for_with_its_port_where_that_is_another() {
    let denied = [
        connection("new.example.com", 443, "not-listed"),
        connection("new.example.com", 80, "not-listed"),
        connection("db.example.com", 3306, "port-not-listed"),
    ];
    let said = suggest(&denied);
    let entries: Vec<&Value> = said.suggestions.iter().map(|one| &one.entry).collect();
    assert_eq!(entries, ["db.example.com:3306", "new.example.com"]);
    assert_eq!(said.suggestions[1].programs["/usr/bin/curl"], 2);
    let open = patched(&said);
    for (host, port) in [("new.example.com", 443), ("db.example.com", 3306)] {
        let name = HostName::parse(host).unwrap();
        assert!(open.decide(&name, port, Transport::Tcp).is_allow());
    }
    let beside = HostName::parse("a.new.example.com").unwrap();
    assert!(!open.decide(&beside, 443, Transport::Tcp).is_allow());
}

#[test]
fn what_no_entry_should_open_is_said_and_not_suggested() {
    for (host, port, reason, words) in [
        ("10.0.0.1", 443, "not-listed", "private"),
        ("169.254.169.254", 80, "not-listed", "metadata"),
        ("::1", 80, "ipv6", "loopback"),
        ("1.1.1.1", 443, "not-listed", "literal address"),
        ("metadata.google.internal", 80, "not-listed", "metadata"),
        ("a.agentcontainer.internal", 80, "not-listed", "itself"),
        ("localhost", 80, "not-listed", "single label"),
        ("bad.example.com", 443, "denied-by-rule", "deniedDomains"),
        // Refused as not listed at the time; denied by a rule now.
        ("bad.example.com", 443, "not-listed", "deniedDomains"),
        ("x.wild.example.com", 8443, "not-listed", "deniedDomains"),
        ("open.example.com", 443, "address-refused", "not public"),
        ("open.example.com", 443, "tls-ech", "no entry"),
        ("open.example.com", 0, "not-listed", "no entry"),
    ] {
        let said = why(connection(host, port, reason));
        assert!(said.contains(words), "{host}:{port} {reason}: {said}");
    }
    let udp = Denied {
        protocol: Some("udp".into()),
        ..connection("new.example.com", 53, "not-listed")
    };
    assert!(why(udp).contains("udp"));
}

#[test]
fn what_is_allowed_by_now_needs_nothing() {
    let denied = [
        connection("open.example.com", 443, "not-listed"),
        request("GET", 443, "/a/b"),
    ];
    let said = suggest(&denied);
    assert_eq!((said.allowed_meanwhile, said.suggestions.len()), (2, 0));
}

#[test]
fn requests_become_rules_that_allow_them_and_no_others() {
    let denied = [
        request("POST", 443, "/a/b"),
        request("GET", 443, "/c"),
        request("POST", 443, "/d"),
        request("GET", 443, "/e"),
        request("POST", 443, "/e"),
        request("PUT", 8080, "/f"),
    ];
    let said = suggest(&denied);
    let open = patched(&said);
    let name = HostName::parse("api.example.com").unwrap();
    for port in [443, 8080] {
        let rules = open.requests(&name, port).unwrap();
        for method in ["GET", "POST", "PUT"] {
            for path in ["/a/b", "/c", "/d", "/e", "/f", "/e/x", "/g", "/secret/x"] {
                let asked = denied.contains(&request(method, port, path));
                let before = match port {
                    443 => (method, path) == ("GET", "/a/b"),
                    _ => method == "GET",
                };
                let now = rules.decide(method, path, None).is_ok();
                assert_eq!(now, asked || before, "{method} {port} {path}");
            }
        }
    }
    assert!(
        said.suggestions
            .iter()
            .all(|one| { one.entry["maxBodyBytes"] == 10 || one.entry["ports"][0] == 8080 })
    );
    let last: Vec<_> = said
        .suggestions
        .iter()
        .map(|one| &one.entry["protocol"])
        .collect();
    assert!(last.contains(&&json!("http")), "{last:?}");
}

#[test]
fn a_request_is_never_widened_nor_set_against_a_denial() {
    for (path, words) in [
        ("/x/*", "`*`"),
        ("/secret/x", "denied by"),
        ("/a/../b", "spelling"),
    ] {
        let said = why(request("GET", 443, path));
        assert!(said.contains(words), "{path}: {said}");
    }
    assert!(why(request("get", 443, "/x")).contains("no rule can be"));
    let long = format!("/{}", "x".repeat(schema::request::MAX_GLOB_BYTES));
    assert!(why(request("GET", 443, &long)).contains("no rule can be"));
}

#[test]
fn a_rule_holds_as_many_paths_as_it_may_and_the_next_has_the_rest() {
    let denied: Vec<Denied> = (0..=MAX_IN_RULE)
        .map(|n| request("PUT", 443, &format!("/p/{n}")))
        .collect();
    assert_eq!(entries(&denied[..MAX_IN_RULE]).len(), 1);
    assert_eq!(entries(&denied).len(), 2);
    patched(&suggest(&denied));
}

#[test]
fn different_denials_are_bounded_and_the_rest_are_counted() {
    let mut denials = Denials::default();
    let one = |n: usize| connection(&format!("h{n}.example.com"), 443, "not-listed");
    (0..MAX_DENIALS).for_each(|n| denials.add(one(n), "p"));
    let policy = policy(CONFIG);
    assert_eq!(denials.suggest(&policy).beyond, 0);
    denials.add(one(0), "q");
    denials.add(one(MAX_DENIALS), "p");
    let said = denials.suggest(&policy);
    assert_eq!((said.beyond, said.suggestions.len()), (1, MAX_DENIALS));
}
