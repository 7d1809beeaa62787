//! What npm installed of an agent is written down with its digests, and every later install is held to that.

use std::fs;

use agentcontainer_tests::{Outcome, docker};
use serde_json::{Value, json};

use crate::rig::{Desk, IMAGE, Published, desk, key, shared};

const VERSION: &str = "0.0.2";

/// The agent's pin in a lockfile.
fn pin(lockfile: &str) -> Value {
    let whole: Value = serde_json::from_str(lockfile).unwrap();
    whole["agents"]["claude"].clone()
}

fn digest(pin: &Value, package: &str) -> String {
    let digest = &pin["packages"][format!("node_modules/{package}")]["integrity"];
    digest.as_str().unwrap().to_owned()
}

/// Takes the programs' volumes away, as on a machine that never had them.
fn forget_programs(desk: &Desk) {
    for volume in desk.volumes() {
        docker::run(&["volume", "rm", &volume]);
    }
}

/// The tarballs that the registry was asked for since the last time.
fn tarballs() -> Vec<String> {
    let asked = shared().services.requests("npm.registry.test");
    shared().services.forget();
    let paths = asked.iter().filter_map(|one| one["path"].as_str());
    let tarballs = paths.filter_map(|path| path.strip_prefix("/-/tarball/"));
    let mut all: Vec<String> = tarballs.map(str::to_owned).collect();
    all.sort();
    all
}

const AGENT: &str = "@anthropic-ai/claude-code";

fn is_first_install(out: &Outcome) {
    out.says(&format!("locked agent:claude {AGENT} {VERSION} sha512-"));
}

#[test]
fn an_agent_is_installed_again_as_the_lockfile_pins_it_or_not_at_all() {
    let key = key();
    let published = Published::new(VERSION);
    let config = json!({ "image": IMAGE }).to_string();
    let first = desk();
    first.workspace.put("agentcontainer.json", &config);
    let run = |desk: &Desk, more: &[&str]| {
        let mut words = vec!["run", "--yes", "claude"];
        words.extend(more);
        desk.cli(Some(&key), &words)
    };
    let out = run(&first, &["--agent-version", VERSION]);
    out.status(0);
    is_first_install(&out);
    let file = first.path().join("agentcontainer-lock.json");
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(
        pin(&written)["packages"]["node_modules/greets"]["version"],
        "1.0.0"
    );
    assert_eq!(
        tarballs(),
        [format!("{AGENT}@{VERSION}"), "greets@1.0.0".to_owned()]
    );
    // Looking up what the config names leaves it.
    first
        .workspace
        .cli(&["lock", "--yes"])
        .status(0)
        .prints(&format!("agent:claude  {AGENT} {VERSION}  sha512-"));
    assert_eq!(fs::read_to_string(&file).unwrap(), written);
    run(&first, &["--agent-version", "0.0.1"])
        .status(125)
        .says(&format!(
            "{AGENT} {VERSION} is locked, and 0.0.1 was asked for"
        ));

    // Another machine takes the same, without being told the version, whatever was published since.
    published.with_later();
    let second = desk();
    second.workspace.put("agentcontainer.json", &config);
    second.workspace.put("agentcontainer-lock.json", &written);
    run(&second, &[]).status(0);
    assert_eq!(
        tarballs(),
        [format!("{AGENT}@{VERSION}"), "greets@1.0.0".to_owned()]
    );
    let again = second.path().join("agentcontainer-lock.json");
    assert_eq!(fs::read_to_string(&again).unwrap(), written);

    // Other bytes under the same version are refused, each time, and nothing of them is run.
    published.with_bytes("// other bytes\n");
    forget_programs(&second);
    for _ in 0..2 {
        let out = run(&second, &[]);
        out.status(125)
            .says(&format!("serves other bytes for {AGENT} {VERSION}"))
            .says("lock --update agent:claude");
        assert_eq!(out.stdout, "");
    }
    assert_eq!(fs::read_to_string(&again).unwrap(), written);
    // What is installed already goes on.
    run(&first, &[]).status(0);
    tarballs();
    // Without its pin it is installed anew, though it is here.
    first
        .workspace
        .cli(&["lock", "--yes", "--update", "agent:claude"])
        .status(0);
    let out = run(&first, &["--agent-version", VERSION]);
    out.status(0);
    is_first_install(&out);
    assert_eq!(
        tarballs(),
        [format!("{AGENT}@{VERSION}"), "greets@1.1.0".to_owned()]
    );
    // What was just installed as it was asked for is asked about no more; another choice of packages is.
    let key_alone = |words: &[&str]| first.cli(Some(&key), words);
    key_alone(&["run", "claude"]).status(0);
    first.workspace.put("agentcontainer-lock.json", &written);
    key_alone(&["run", "claude"])
        .status(125)
        .says(&format!("+ run {AGENT} {VERSION} installed from"))
        .says("of 2 packages as pinned (sha256:");

    second
        .workspace
        .cli(&["lock", "--yes", "--update", "agent:claude"])
        .status(0)
        .says("the next `agentcontainer run claude` installs and pins it");
    assert_eq!(pin(&fs::read_to_string(&again).unwrap()), Value::Null);
    let out = run(&second, &["--agent-version", VERSION]);
    out.status(0);
    is_first_install(&out);
    assert_eq!(
        tarballs(),
        [format!("{AGENT}@{VERSION}"), "greets@1.1.0".to_owned()]
    );
    let moved = pin(&fs::read_to_string(&again).unwrap());
    assert_ne!(digest(&moved, AGENT), digest(&pin(&written), AGENT));
}

#[test]
fn an_optional_package_of_other_bytes_is_not_left_out() {
    let key = key();
    let published = Published::new("0.0.3");
    published.with_builds();
    let desk = desk();
    desk.workspace
        .put("agentcontainer.json", json!({ "image": IMAGE }).to_string());
    let run = || {
        desk.cli(
            Some(&key),
            &["run", "--yes", "claude", "--agent-version", "0.0.3"],
        )
    };
    run().status(0);
    forget_programs(&desk);
    run().status(0);
    published.with_bytes_of_builds("other bytes");
    forget_programs(&desk);
    for _ in 0..2 {
        run()
            .status(125)
            .says("npm left it out: node_modules/builds")
            .says("lock --update agent:claude");
    }
}

#[test]
fn without_a_config_an_agents_pin_is_in_this_users_state() {
    let key = key();
    let published = Published::new(VERSION);
    let desk = desk();
    let run = |more: &[&str]| {
        let mut words = vec!["run", "--yes"];
        words.extend(more);
        words.extend(["--image", IMAGE, "--agent-version", VERSION, "claude"]);
        desk.cli(Some(&key), &words)
    };
    let out = run(&[]);
    out.status(0);
    is_first_install(&out);
    // Unchanged bytes are installed again, and nothing is said of a pin.
    forget_programs(&desk);
    let again = run(&[]);
    again.status(0);
    assert!(!again.stderr.contains("locked agent:claude"), "{again:?}");
    published.with_bytes("// other bytes\n");
    forget_programs(&desk);
    run(&[])
        .status(125)
        .says(&format!("serves other bytes for {AGENT} {VERSION}"))
        .says("`agentcontainer run --lock claude` pins it anew");
    let anew = run(&["--lock"]);
    anew.status(0);
    is_first_install(&anew);
    assert_eq!(fs::read_dir(desk.path()).unwrap().count(), 0);
}
