//! Work on a project with packages of npm's, under rules about files and programs: nothing of it is denied.

use agentcontainer_tests::place::token;
use serde_json::json;

use crate::rig::{IMAGE, desk};

const WORK: &str = r#"
set -eu
export HOME=/tmp/home; mkdir -p $HOME
npm install --silent --no-audit --no-fund --package-lock-only greets@1.0.0
npm ci --silent --no-audit --no-fund
npm test --silent
"#;

#[test]
fn npm_ci_and_npm_test_go_on_under_a_strict_policy() {
    let desk = desk();
    let workspace = &desk.workspace;
    let manifest = json!({
        "name": "project", "version": "1.0.0",
        "scripts": { "test": "node test.js && node node_modules/greets/greets.js" },
    });
    workspace.put("package.json", manifest.to_string());
    workspace.put("test.js", "console.log('tested')");
    workspace.put(".env", "SECRET=1");
    let owned = std::process::Command::new("chown")
        .args(["-R", "1000:1000"])
        .arg(workspace.path())
        .status();
    assert!(owned.unwrap().success());
    let config = json!({
        "image": IMAGE,
        "agent": { "capabilities": {
            "network": { "egress": { "allowedDomains": ["npm.registry.test"] } },
            "filesystem": { "readOnlyPaths": ["/etc", "/usr", "test.js"], "deniedPaths": [".env"] },
            "tools": { "allowedBinaries": ["sh", "env", "mkdir", "node", "npm", "sleep"] },
        } },
    });
    workspace.put("agentcontainer.json", config.to_string());
    let name = token("npm");
    let words = ["run", "--yes", "--name", &name, "--", "sh", "-c", WORK];
    let out = desk.cli(None, &words);
    let denied = workspace.denials(&name);
    assert_eq!(
        out.stdout, "tested\nhello from a package\n",
        "{}\n{denied:#?}",
        out.stderr
    );
    assert_eq!(denied, [] as [serde_json::Value; 0]);
    // The control: what the policy is about is refused in the same project.
    for tried in [
        "cat .env",
        "echo >test.js",
        "id",
        "node -e 'require(`child_process`).execFileSync(`id`)'",
    ] {
        let out = desk.cli(None, &["run", "--yes", "--", "sh", "-c", tried]);
        assert!(out.status != 0 && out.stdout.is_empty(), "{tried}: {out:?}");
    }
}
