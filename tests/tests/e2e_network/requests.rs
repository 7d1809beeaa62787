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
