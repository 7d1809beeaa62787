//! An organisation's policy from the command line: written, checked, compared, tried out under a workspace, and never left out
//! where one is named.

use agentcontainer_tests::Workspace;
use serde_json::{Value, json};

/// A document with these ceilings and denials.
fn policy(rest: &Value) -> String {
    let mut document = json!({
        "version": 1, "organisation": "acme", "serial": 1, "notAfter": "2099-01-01T00:00:00Z",
    });
    for (key, value) in rest.as_object().unwrap() {
        document[key] = value.clone();
    }
    format!("{document:#}\n")
}

fn workspace(egress: &Value) -> Workspace {
    let workspace = Workspace::new();
    workspace.write_host_config();
    let config = json!({
        "image": "agentcontainer-test",
        "agent": { "capabilities": { "network": { "egress": egress } } },
    });
    workspace.put("agentcontainer.json", format!("{config:#}\n"));
    workspace
}

#[test]
fn a_policy_that_init_writes_holds_and_is_not_written_over() {
    let workspace = Workspace::new();
    workspace
        .cli(&["policy", "init", "--organisation", "acme"])
        .status(0);
    let file = workspace.path().join("organisation-policy.json");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("\"organisation\": \"acme\""), "{written}");
    workspace
        .cli(&["policy", "check", "organisation-policy.json"])
        .status(0)
        .prints("the policy of acme, serial 1");
    workspace
        .cli(&["policy", "init"])
        .status(125)
        .says("already there");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written);
    workspace
        .cli(&["policy", "init", "--force", "--organisation", "b"])
        .status(0);
    assert!(
        std::fs::read_to_string(&file)
            .unwrap()
            .contains("\"organisation\": \"b\"")
    );
    workspace
        .cli(&["policy", "init", "--print", "--organisation", "a b"])
        .status(125)
        .says("a b");
}

#[test]
fn a_check_of_a_policy_says_what_is_wrong_by_its_status_and_place() {
    let workspace = Workspace::new();
    let check = |text: &str| {
        workspace.put("p.json", text);
        workspace.cli(&["policy", "check", "p.json"])
    };
    let good = policy(&json!({ "ceilings": { "network": { "ports": [443] } } }));
    check(&good).status(0);
    check(&good.replace("\"ports\"", "\"prots\""))
        .status(1)
        .says("p.json:");
    check(&good.replace("\"ports\"", "\"prots\""))
        .status(1)
        .says("did you mean `ports`?");
    check(&good.replace("2099", "2020"))
        .status(1)
        .says("policy-expired");
    let files = policy(&json!({
        "ceilings": { "filesystem": { "writablePaths": ["/x/**"] }, "tools": { "allowedBinaries": ["git"] } },
        "denials": { "paths": ["**/.env"], "binaries": ["sudo"] },
    }));
    check(&files).status(0);
    check(&files.replace("/x/**", "x/**"))
        .status(1)
        .says("expected an absolute path");
    check("{").status(1).says("p.json:1:");
    // A range that nobody can compare stops more than it says.
    let bans = |kind: &str, versions: &str| {
        let banned = json!([{ "type": kind, "name": "a/b", "versions": versions }]);
        policy(&json!({ "requirements": { "bannedPackages": banned } }))
    };
    check(&bans("maven", "<2.17.0"))
        .status(0)
        .says("versions of maven have no order here");
    for good in [bans("maven", "*"), bans("golang", "<2.17.0")] {
        let out = check(&good);
        assert!(!out.status(0).stderr.contains("no order"), "{}", out.stderr);
    }
    workspace
        .cli(&["policy", "check", "nowhere.json"])
        .status(2)
        .says("nowhere.json");
    let out = {
        workspace.put("p.json", good.replace("\"serial\": 1", "\"serial\": 0"));
        workspace.cli(&["policy", "check", "--json", "p.json"])
    };
    out.status(1);
    let said: Value = serde_json::from_str(out.stdout.trim()).unwrap();
    assert_eq!(said["ok"], false);
    assert_eq!(said["diagnostics"][0]["code"], "out-of-range");
    workspace.put("p.json", &good);
    let out = workspace.cli(&["policy", "check", "--json", "p.json"]);
    let said: Value = serde_json::from_str(out.status(0).stdout.trim()).unwrap();
    assert_eq!(
        (&said["ok"], &said["serial"], &said["organisation"]),
        (&json!(true), &json!(1), &json!("acme"))
    );
}

#[test]
fn a_difference_says_what_got_looser_by_its_status() {
    let workspace = Workspace::new();
    let of = |domains: Value, serial: u64| {
        policy(
            &json!({ "serial": serial, "ceilings": { "network": { "allowedDomains": domains } } }),
        )
    };
    workspace.put("old.json", of(json!(["*.acme.example"]), 1));
    workspace.put("narrow.json", of(json!(["api.acme.example"]), 2));
    workspace.put(
        "wide.json",
        of(json!(["*.acme.example", "*.evil.example"]), 1),
    );
    workspace
        .cli(&["policy", "diff", "old.json", "narrow.json"])
        .status(0)
        .prints("stricter");
    let out = workspace.cli(&["policy", "diff", "old.json", "wide.json"]);
    out.status(1)
        .prints("looser")
        .prints("*.evil.example")
        .says("the serial is 1");
    let out = workspace.cli(&["policy", "diff", "--json", "old.json", "wide.json"]);
    let said: Value = serde_json::from_str(out.status(1).stdout.trim()).unwrap();
    assert_eq!(
        (&said["looser"], &said["changes"][0]["grade"]),
        (&json!(true), &json!("high"))
    );
    workspace
        .cli(&["policy", "diff", "old.json", "old.json"])
        .status(0);
    workspace
        .cli(&["policy", "diff", "old.json", "nowhere.json"])
        .status(2);
}

#[test]
fn rules_about_files_and_programs_are_compared_and_tried_out() {
    let workspace = workspace(&json!({}));
    let of = |rest: &Value| {
        let mut rest = rest.clone();
        rest["serial"] = json!(2);
        policy(&rest)
    };
    let denials = json!({ "paths": ["/etc/ssl"], "binaries": ["sudo"] });
    let trees = json!({ "filesystem": { "readOnlyPaths": ["/opt"] } });
    workspace.put("old.json", policy(&json!({})));
    workspace.put(
        "new.json",
        of(&json!({ "denials": denials, "ceilings": trees })),
    );
    workspace
        .cli(&["policy", "diff", "old.json", "new.json"])
        .status(0)
        .prints("`denials.binaries` denies sudo")
        .prints("`ceilings.filesystem.readOnlyPaths` holds /opt");
    workspace
        .cli(&["policy", "diff", "new.json", "old.json"])
        .status(1)
        .prints("`denials.paths` does not deny /etc/ssl any more")
        .prints("`ceilings.filesystem.readOnlyPaths` does not hold /opt any more");
    let explain =
        |target: &str| workspace.cli(&["policy", "explain", target, "--organisation", "new.json"]);
    // The control is the workspace by itself.
    workspace
        .cli(&["policy", "explain", "/usr/bin/sudo"])
        .status(0);
    explain("/usr/bin/sudo")
        .status(1)
        .prints("denials.binaries \"sudo\" of the policy of acme")
        .prints("new.json:");
    explain("/etc/ssl/private").status(1).prints("denied");
    explain("/opt/x").status(0).prints("read-only");
    explain("./src").status(0).prints("src: as it is");
    explain("/a/*").status(2).says("a pattern is no path");
    workspace
        .cli(&["policy", "show", "--organisation", "new.json"])
        .status(0)
        .prints("denials.paths \"/etc/ssl\" of the policy of acme (mounts, and BPF LSM where it is there)");
}

#[test]
fn a_policy_is_tried_out_under_a_workspace_with_every_origin() {
    let workspace = workspace(
        &json!({ "allowedDomains": ["api.acme.example", "*.cdn.acme.example:443"], "unlisted": "ask" }),
    );
    workspace.put(
        "org.json",
        policy(&json!({
            "ceilings": { "network": { "allowedDomains": ["*.acme.example"], "ports": [443], "unlisted": "deny" }, "resources": { "pids": 100 } },
            "requirements": { "slsaLevel": 2 },
            "denials": { "domains": ["bad.cdn.acme.example"] },
        })),
    );
    // What it says without the policy is the control.
    workspace
        .cli(&["policy", "explain", "api.acme.example:80"])
        .status(0);
    workspace
        .cli(&["policy", "explain", "bad.cdn.acme.example"])
        .status(0);
    workspace
        .cli(&["policy", "explain", "other.example"])
        .status(0)
        .prints("ask");
    let explain =
        |target: &str| workspace.cli(&["policy", "explain", target, "--organisation", "org.json"]);
    explain("api.acme.example:443")
        .status(0)
        .prints("agentcontainer.json:");
    explain("api.acme.example:80").status(1).prints("org.json:");
    explain("bad.cdn.acme.example:443")
        .status(1)
        .prints("denials.domains");
    explain("other.example").status(1).prints("org.json:");
    workspace
        .cli(&["policy", "show", "--organisation", "org.json"])
        .status(0)
        .prints("ceilings.network.allowedDomains: *.acme.example of the policy of acme")
        .prints("org.json:")
        .prints("limit pids 100")
        .prints("require at least SLSA level 2")
        .says("is held to \"deny\" by org.json:");
    workspace.put("agentcontainer.json", workspace_text(&["*.evil.example"]));
    workspace
        .cli(&["policy", "show", "--organisation", "org.json"])
        .status(125)
        .says("agentcontainer.json:")
        .says("org.json:")
        .says("beyond-ceiling");
    workspace.cli(&["policy", "show"]).status(0);
}

fn workspace_text(domains: &[&str]) -> String {
    let egress = json!({ "allowedDomains": domains });
    let config = json!({
        "image": "agentcontainer-test",
        "agent": { "capabilities": { "network": { "egress": egress } } },
    });
    format!("{config:#}\n")
}

#[test]
fn a_policy_that_is_named_and_cannot_be_had_stops_what_works_from_it() {
    let workspace = Workspace::new().allow(&["named.test"]);
    workspace.write();
    workspace.cli(&["run", "--yes", "--", "true"]).status(0);
    let session = workspace.session("held");
    let named = "[policy]\nsource = \"oci://127.0.0.1:9/policy:prod\"\nkeys = [\"/etc/agentcontainer/policy.pub\"]\n";
    let config = workspace
        .path()
        .join("../config/agentcontainer/config.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{before}\n{named}")).unwrap();
    for words in [
        &["run", "--yes", "--", "true"][..],
        &["run", "--plan", "--", "true"],
        &["lock"],
        &["policy", "show"],
        &["policy", "suggest", "held"],
    ] {
        workspace
            .cli(words)
            .status(125)
            .says("127.0.0.1:9/policy:prod");
    }
    workspace
        .cli(&["config", "check"])
        .status(1)
        .says("policy-not-fetched");
    std::fs::write(&config, before).unwrap();
    session.exec(&["true"]).status(0);
    workspace.cli(&["run", "--yes", "--", "true"]).status(0);
}
