//! Rules about requests, from a real session: the server hears what rules are about and nothing else.

use serde_json::json;

use crate::standard::{name, standard, workspace};

#[test]
fn a_server_hears_the_methods_and_paths_that_rules_are_about_and_nothing_else() {
    let host = name();
    let workspace = workspace().host(&host, agentcontainer_tests::rig().bridge).rules(&json!([
        { "host": host, "ports": [443, 80], "methods": ["GET"], "paths": ["/hello", "/bytes/*"] },
        { "host": host, "ports": [443, 80], "action": "deny", "paths": ["/bytes/7"] },
    ]));
    let ask = |scheme: &str, path: &str, how: &str| {
        format!(
            "curl -s --path-as-is -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 {how} {scheme}://{host}{path}"
        )
    };
    let mut script = Vec::new();
    for scheme in ["https", "http"] {
        for (path, how) in [
            ("/hello", ""),
            ("/hello?x=/../secret", ""),
            ("/bytes/5", ""),
            ("/bytes/7", ""),
            ("/hello", "-d x"),
            ("/secret", ""),
            ("/bytes/../secret", ""),
            ("/bytes/%2e%2e%2fsecret", ""),
        ] {
            script.push(ask(scheme, path, how));
        }
    }
    let out = workspace.inside(&script.join("\n"));
    let each = [
        "200",
        "200",
        "200",
        "403 request-denied",
        "403 request-not-listed",
        "403 request-not-listed",
        "400 path-not-canonical",
        "400 path-not-canonical",
    ];
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    assert_eq!(lines, [each, each].concat(), "{}", out.stderr);
    let heard: Vec<String> = standard()
        .requests(&host)
        .iter()
        .map(|one| one["path"].as_str().unwrap_or_default().to_owned())
        .collect();
    let fine = ["/hello", "/hello?x=/../secret", "/bytes/5"];
    for path in &heard {
        assert!(fine.contains(&path.as_str()), "the server heard {path}");
    }
    assert_eq!(heard.len(), 2 * fine.len(), "{heard:?}");
}

#[test]
fn bodies_and_rates_are_held_to_what_rules_say() {
    let host = name();
    let workspace = workspace()
        .host(&host, agentcontainer_tests::rig().bridge)
        .rules(&json!([
            { "host": host, "ports": [443], "maxBodyBytes": 1000, "rateLimit": { "perSecond": 1, "burst": 4 } }
        ]));
    let ask = |how: &str| {
        format!(
            "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 {how} https://{host}/up"
        )
    };
    let script = [
        "head -c 1000 /dev/zero >fits; head -c 1001 /dev/zero >long".to_owned(),
        ask("-T fits"),
        ask("-T long"),
        "for i in 1 2 3 4 5 6; do".to_owned(),
        ask("-T fits"),
        "done".to_owned(),
    ]
    .join("\n");
    let out = workspace.inside(&script);
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    assert_eq!(lines[..2], ["200", "413 body-too-long"], "{}", out.stdout);
    assert!(lines[2..].contains(&"429 rate-limited"), "{}", out.stdout);
    let through = lines.iter().filter(|line| **line == "200").count();
    assert_eq!(standard().requests(&host).len(), through, "{}", out.stdout);
}

#[test]
fn a_server_whose_certificate_the_host_does_not_trust_is_told_nothing() {
    let host = name();
    let ask = format!(
        "curl -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 https://{host}/hello"
    );
    let stranger = agentcontainer_tests::Workspace::new().allow(&[&host]);
    assert_eq!(
        stranger.inside(&ask).ok().trim(),
        "502 upstream-certificate"
    );
    assert!(standard().requests(&host).is_empty(), "it heard a request");
    let out = workspace().allow(&[&host]).inside(&ask);
    assert_eq!(out.ok().trim(), "200");
}

#[test]
fn a_program_that_no_rule_names_is_not_let_through_whatever_it_calls_itself() {
    let host = name();
    let workspace = workspace().host(&host, agentcontainer_tests::rig().bridge).rules(&json!([
        { "host": host, "ports": [443, 80], "programs": ["/usr/bin/curl"], "paths": ["/hello"] },
    ]));
    let ask = |curl: &str, url: &str| {
        format!(
            "{curl} -s -o /dev/null -w '%{{http_code}} %header{{x-agentcontainer-blocked}}\\n' --max-time 30 {url}"
        )
    };
    let (https, http) = (
        format!("https://{host}/hello"),
        format!("http://{host}/hello"),
    );
    let python = format!(
        "python3 -c \"import urllib.request as u; u.urlopen('{https}?python')\" 2>&1 | tail -1"
    );
    let script = [
        ask("curl", &https),
        ask("curl", &http),
        "cp /usr/bin/curl mycurl".to_owned(),
        ask("./mycurl", &format!("{https}?copy")),
        // Its first argument is a name that it gave itself.
        ask(
            "bash -c 'exec -a /usr/bin/curl ./mycurl \"$@\"' x",
            &format!("{http}?argv"),
        ),
        python,
        format!("./mycurl -s --max-time 30 {https}?page"),
    ]
    .join("\n");
    let out = workspace.inside(&script);
    let lines: Vec<&str> = out.ok().lines().map(str::trim).collect();
    assert_eq!(
        lines[..4],
        [
            "200",
            "200",
            "403 request-not-listed",
            "403 request-not-listed"
        ],
        "{}",
        out.stderr
    );
    assert!(lines[4].contains("403"), "{}", out.stdout);
    assert!(out.stdout.contains("/mycurl"), "{}", out.stdout);
    let heard: Vec<String> = standard()
        .requests(&host)
        .iter()
        .map(|one| one["path"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        heard,
        ["/hello", "/hello"],
        "the server heard another program"
    );
}
