#![allow(clippy::unwrap_used)]
use super::*;
use crate::effective::{EffectivePolicy, Gateway, Network, PolicyError};
use crate::text;

fn asked(tools: &str) -> Programs {
    let text = format!(
        "{{ \"image\": \"debian\",\n \"agent\": {{ \"capabilities\": {{ \"tools\": {{\n {tools} }} }} }} }}"
    );
    let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
    Programs::of(&config)
}

#[test]
fn each_entry_knows_where_it_was_written() {
    let programs = asked(
        "\"allowedBinaries\": [\"git\"],\n \"deniedBinaries\": [\"sudo\", \"/opt/x\"],\n \"requireApproval\": true",
    );
    let shown: Vec<String> = programs
        .all()
        .map(|(right, rule)| format!("{} at {}", text::program(right, rule), rule.origin))
        .collect();
    assert_eq!(
        shown,
        [
            "allowedBinaries \"git\" (BPF LSM or tracepoint) at agentcontainer.json:3:22",
            "deniedBinaries \"sudo\" (mounts, and BPF LSM where it is there) at agentcontainer.json:4:21",
            "deniedBinaries \"/opt/x\" (mounts, and BPF LSM where it is there) at agentcontainer.json:4:29"
        ]
    );
    let by = programs.require_approval.as_ref().unwrap();
    assert_eq!(by.to_string(), "agentcontainer.json:5:21");
    assert!(asked("\"requireApproval\": false").is_empty());
}

#[test]
fn a_list_is_all_that_is_started_unless_a_person_is_asked_for_more() {
    for (tools, expected) in [
        ("\"allowedBinaries\": [\"git\"]", true),
        (
            "\"allowedBinaries\": [\"git\"], \"requireApproval\": false",
            true,
        ),
        (
            "\"allowedBinaries\": [\"git\"], \"requireApproval\": true",
            false,
        ),
        ("\"deniedBinaries\": [\"git\"]", false),
        ("", false),
    ] {
        assert_eq!(asked(tools).is_whole(), expected, "{tools}");
    }
}

#[test]
fn what_is_denied_is_carried_by_mounts_what_is_allowed_alone_by_whoever_sees_each_start_and_what_is_asked_about_by_lsm()
 {
    let none = Layers {
        lsm: Err("no BPF LSM"),
        starts: Err("no BTF"),
    };
    assert_eq!(
        asked("\"deniedBinaries\": [\"sudo\"]").not_carried(&none),
        []
    );
    let both = asked("\"allowedBinaries\": [\"git\", \"npm\"], \"requireApproval\": true");
    let alone = asked("\"requireApproval\": true").not_carried(&Layers::ALL);
    // Without a list there is nothing to ask about.
    assert!(
        alone.len() == 1 && alone[0].message.contains("there is no such list"),
        "{alone:?}"
    );
    let starts = Layers {
        lsm: none.lsm,
        ..Layers::ALL
    };
    assert_eq!(both.not_carried(&starts).len(), 1);
    for one in [
        Layers::ALL,
        Layers {
            starts: none.starts,
            ..Layers::ALL
        },
    ] {
        assert_eq!(both.not_carried(&one), [], "{one:?}");
    }
    let found = both.not_carried(&none);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(
        found[0].contains("agentcontainer.json:3:22") && found[0].contains("`allowedBinaries`"),
        "{found:?}"
    );
    assert!(
        found[0].contains("(no BPF LSM)") && found[0].contains("(no BTF)"),
        "{found:?}"
    );
    assert!(found[1].contains("`requireApproval`"), "{found:?}");
}

#[test]
fn nobody_is_asked_about_what_is_denied_or_beyond_a_ceiling() {
    let program = |text: &str| text.parse::<ProgramName>().unwrap();
    let mut programs = asked(
        "\"allowedBinaries\": [\"git\"],\n \"deniedBinaries\": [\"sudo\", \"/opt/x\"],\n \"requireApproval\": true",
    );
    for (path, expected) in [
        ("/usr/bin/id", None),
        ("/work/tool", None),
        ("/usr/bin/sudo", Some(NotAsked::Denied)),
        ("/work/sudo", Some(NotAsked::Denied)),
        ("/opt/x", Some(NotAsked::Denied)),
        ("/opt/x/x", None),
    ] {
        assert_eq!(programs.asks(&program(path)).err(), expected, "{path}");
    }
    let rule = |name: &str| ProgramRule {
        name: program(name),
        ..programs.denied[0].clone()
    };
    programs.ceilings = vec![vec![rule("id"), rule("/work/tool")], vec![rule("id")]];
    for (path, expected) in [
        ("/usr/bin/id", None),
        ("/work/id", Some(NotAsked::Ceiling)),
        ("/work/tool", Some(NotAsked::Ceiling)),
        ("/usr/bin/sudo", Some(NotAsked::Denied)),
    ] {
        assert_eq!(programs.asks(&program(path)).err(), expected, "{path}");
    }
    programs.require_approval = None;
    assert_eq!(
        programs.asks(&program("/usr/bin/id")).err(),
        Some(NotAsked::NoRule)
    );
}

#[test]
fn as_many_rules_as_there_may_be_are_held_and_one_more_is_not() {
    let rule = ProgramRule {
        name: "sudo".parse().unwrap(),
        origin: Origin {
            file: "f".into(),
            line: 1,
            column: 1,
        },
        organisation: None,
    };
    let with = |count: usize| {
        let policy = EffectivePolicy::new(Network::deny_all(), Gateway::default()).unwrap();
        policy.with_programs(Programs {
            denied: vec![rule.clone(); count],
            ..Programs::default()
        })
    };
    let most = with(MAX_PROGRAM_RULES).unwrap();
    assert_eq!(EffectivePolicy::from_json(&most.to_json()).unwrap(), most);
    assert!(matches!(
        with(MAX_PROGRAM_RULES + 1),
        Err(PolicyError::TooMany { .. })
    ));
}

#[test]
fn any_rule_about_files_or_programs_is_for_lsm_programs_and_only_what_mounts_do_not_carry_needs_them()
 {
    use crate::files::Files;
    let of = |capabilities: &str| {
        let text = format!(
            "{{ \"image\": \"debian\", \"agent\": {{ \"capabilities\": {{ {capabilities} }} }} }}"
        );
        let config = schema::config::parse(text.as_bytes(), "agentcontainer.json").unwrap();
        let host = schema::hostconfig::HostConfig::default();
        EffectivePolicy::deny_all()
            .with_files(Files::of(&config, &host))
            .and_then(|policy| policy.with_programs(Programs::of(&config)))
            .unwrap()
    };
    for (capabilities, wants, beyond) in [
        ("", false, false),
        (r#""filesystem": { "deniedPaths": [".env"] }"#, true, false),
        (r#""filesystem": { "readOnlyPaths": ["/"] }"#, true, false),
        (
            r#""filesystem": { "deniedPaths": ["**/.env"] }"#,
            true,
            true,
        ),
        (r#""tools": { "deniedBinaries": ["curl"] }"#, true, false),
        (r#""tools": { "allowedBinaries": ["git"] }"#, true, true),
    ] {
        let policy = of(capabilities);
        assert_eq!(policy.wants_lsm(), wants, "{capabilities}");
        assert_eq!(policy.is_beyond_mounts(), beyond, "{capabilities}");
    }
}
