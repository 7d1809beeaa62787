//! Files and programs under documents.

use super::*;

fn words(policy: &EffectivePolicy) -> Vec<String> {
    let files = policy.files.all();
    let files = files.map(|(right, rule)| (crate::text::file(right, rule), &rule.origin));
    let programs = policy.programs.all();
    let programs = programs.map(|(right, rule)| (crate::text::program(right, rule), &rule.origin));
    let all = files.chain(programs);
    all.map(|(words, origin)| format!("{words} at {origin}"))
        .collect()
}

#[test]
fn denials_of_files_and_programs_and_trees_that_are_read_only_join_the_workspaces() {
    let own = config(
        r#""capabilities": { "filesystem": { "deniedPaths": [".env"] }, "tools": { "deniedBinaries": ["su"] } }"#,
    );
    let document = document(
        r#""denials": { "paths": ["/etc/ssl/private"], "binaries": ["sudo"] }, "ceilings": { "filesystem": { "readOnlyPaths": ["/opt/tools"] } }"#,
    );
    let result = held(&own, &document);
    assert_eq!(
        words(&result.policy),
        [
            "ceilings.filesystem.readOnlyPaths \"/opt/tools\" of the policy of acme (mounts, and BPF LSM where it is there) at policy.json:2:117",
            "deniedPaths \".env\" (mounts, and BPF LSM where it is there) at agentcontainer.json:3:51",
            "denials.paths \"/etc/ssl/private\" of the policy of acme (mounts, and BPF LSM where it is there) at policy.json:2:24",
            "deniedBinaries \"su\" (mounts, and BPF LSM where it is there) at agentcontainer.json:3:92",
            "denials.binaries \"sudo\" of the policy of acme (mounts, and BPF LSM where it is there) at policy.json:2:58",
        ]
    );
    assert!(result.policy.not_carried(&NEITHER).is_empty());
    // A pattern is more than mounts carry, whoever wrote it.
    let named = held(
        &own,
        &super::tests::document(r#""denials": { "paths": ["**/.key"] }"#),
    );
    let not_carried = named.policy.not_carried(&NEITHER);
    assert!(
        not_carried[0]
            .to_string()
            .starts_with("policy.json:2:24: `denials.paths` has"),
        "{not_carried:?}"
    );
}

#[test]
fn what_is_writable_has_a_ceiling_and_so_has_what_is_in_a_tree_that_is_read_only() {
    let asks = |paths: &str| {
        config(&format!(
            r#""capabilities": {{ "filesystem": {{ "readOnlyPaths": ["."], "writablePaths": [{paths}] }} }}"#
        ))
    };
    let document =
        ceilings(r#""filesystem": { "writablePaths": ["/workspaces/*/build", "/var/cache/**"] }"#);
    assert!(problems(&asks(r#""build/x", "/var/cache/apt""#), &document).is_empty());
    let said = problem(&asks(r#""src""#), &document);
    assert!(
        said.starts_with("agentcontainer.json:3:77: `writablePaths` \"src\" is beyond the policy of acme")
            && said.contains("`ceilings.filesystem.writablePaths` at policy.json:2:48 allows /workspaces/*/build, /var/cache/**"),
        "{said}"
    );
    let nothing = ceilings(r#""filesystem": { "writablePaths": [] }"#);
    assert!(problem(&asks(r#""build""#), &nothing).contains("allows nothing"));
    let read_only = ceilings(r#""filesystem": { "readOnlyPaths": ["/opt"] }"#);
    assert!(problems(&asks(r#""build""#), &read_only).is_empty());
    let said = problem(&asks(r#""/opt/x""#), &read_only);
    assert!(said.contains("in what is read-only by \"/opt\""), "{said}");
    let but =
        ceilings(r#""filesystem": { "readOnlyPaths": ["/opt"], "writablePaths": ["/opt/x"] }"#);
    assert!(problems(&asks(r#""/opt/x""#), &but).is_empty());
}

#[test]
fn names_in_the_workspace_are_held_where_the_workspace_is_mounted_once_at_its_folder() {
    let named = document(r#""denials": { "paths": ["**/.env"] }"#);
    let rooted = document(r#""denials": { "paths": ["/etc/x"] }"#);
    let mount = |target: &str| {
        format!(
            r#", "workspaceFolder": "/w", "workspaceMount": "type=bind,source=${{localWorkspaceFolder}},target={target}""#
        )
    };
    for (rest, words) in [
        (
            r#", "mounts": ["type=bind,source=${localWorkspaceFolder}/x,target=/v,readonly"]"#
                .to_owned(),
            "shows the workspace again",
        ),
        (
            mount("/other"),
            "`workspaceMount` puts the workspace at /other",
        ),
    ] {
        let said = problem(&config_with("", &rest), &named);
        assert!(
            said.contains(words) && said.contains("\"**/.env\" at policy.json:2:24"),
            "{said}"
        );
        assert!(problems(&config_with("", &rest), &rooted).is_empty());
    }
    assert!(problems(&config_with("", &mount("/w")), &named).is_empty());
}

#[test]
fn nobody_is_asked_about_a_program_beyond_a_ceiling_or_where_nobody_is_asked() {
    let document = ceilings(r#""tools": { "allowedBinaries": ["git", "/opt/x"] }"#);
    let own = config(
        r#""capabilities": { "tools": { "allowedBinaries": ["git"], "requireApproval": true } }"#,
    );
    let programs = held(&own, &document).policy.programs;
    let asks = |path: &str| programs.asks(&path.parse().unwrap()).is_ok();
    assert!(asks("/opt/x"));
    assert!(!asks("/usr/bin/id"));
    let nobody = ceilings(r#""escalation": "deny""#);
    let result = held(&own, &nobody);
    assert!(result.policy.unasked.is_some());
    assert!(
        result.remarks[0].contains("what `requireApproval` at agentcontainer.json:3:"),
        "{:?}",
        result.remarks
    );
}

#[test]
fn programs_that_may_be_started_are_the_workspaces_within_the_ceiling_and_the_ceilings_where_it_names_none()
 {
    let document = ceilings(r#""tools": { "allowedBinaries": ["git", "/opt/x"] }"#);
    let asks = |tools: &str| config(&format!(r#""capabilities": {{ "tools": {{ {tools} }} }}"#));
    let said = problem(&asks(r#""allowedBinaries": ["git", "npm"]"#), &document);
    assert!(
        said.starts_with(
            "agentcontainer.json:3:57: `allowedBinaries` \"npm\" is beyond the policy of acme"
        ) && said
            .contains("`ceilings.tools.allowedBinaries` at policy.json:2:45 allows git, /opt/x"),
        "{said}"
    );
    let names = |held: Held| -> Vec<String> {
        let allowed = held.policy.programs.allowed.unwrap();
        allowed.iter().map(|rule| rule.name.to_string()).collect()
    };
    let own = held(&asks(r#""allowedBinaries": ["/usr/bin/git"]"#), &document);
    assert_eq!(names(own), ["/usr/bin/git"]);
    let none = held(&config(""), &document);
    let said: Vec<String> = none
        .policy
        .not_carried(&NEITHER)
        .iter()
        .map(ToString::to_string)
        .collect();
    assert!(
        said.len() == 1
            && said[0].starts_with("policy.json:2:53: `ceilings.tools.allowedBinaries`"),
        "{said:?}"
    );
    assert_eq!(names(none), ["/opt/x", "git"]);
    // Of two what both allow is left; where that is nothing, nothing is started.
    let both = |other: &str| {
        let other = ceilings(&format!(r#""tools": {{ "allowedBinaries": [{other}] }}"#));
        hold(&config(""), &host(), &[document.clone(), other])
    };
    assert_eq!(
        names(both(r#""/usr/bin/git", "npm""#).unwrap()),
        ["/usr/bin/git"]
    );
    for other in ["", "\"npm\""] {
        let found = both(other).unwrap_err();
        assert!(
            found[0]
                .to_string()
                .contains("leaves no program that could be started"),
            "{found:?}"
        );
    }
}
