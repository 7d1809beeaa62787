#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn image(config: serde_json::Value) -> Facts {
    let mut facts = Facts::default();
    let whole = json!({ "architecture": "amd64", "os": "linux", "config": config, "rootfs": { "type": "layers", "diff_ids": ["sha256:1"] } });
    image::facts(whole.to_string().as_bytes(), &mut facts).unwrap();
    facts
}

/// `aspect name change grade` of each.
fn said(before: &Facts, after: &Facts) -> Vec<String> {
    let all = before.compare(after);
    all.iter()
        .map(|d| format!("{:?} {} {:?} {:?}", d.aspect, d.name, d.change, d.grade).to_lowercase())
        .collect()
}

#[test]
fn what_runs_comes_before_what_is_asked_for_and_the_rest_after() {
    let before =
        image(json!({ "User": "1000", "Entrypoint": ["/a"], "Env": ["A=1", "PATH=/bin"] }));
    let after = image(json!({
        "Entrypoint": ["/a", "-x"], "Env": ["A=2", "PATH=/evil:/bin", "B=1"], "ExposedPorts": { "80/tcp": {} },
        "Labels": { "x": "y", "devcontainer.metadata": "[{\"postStartCommand\":\"curl x\",\"capAdd\":[\"SYS_ADMIN\"],\"containerEnv\":{\"LD_PRELOAD\":\"/x\"}}]" },
    }));
    assert_eq!(
        said(&before, &after),
        [
            "script entrypoint changed high",
            "script poststartcommand added high",
            "capability capadd sys_admin added high",
            "capability port 80/tcp added high",
            "capability user changed high",
            "environment ld_preload added high",
            "environment path changed high",
            "environment a changed medium",
            "environment b added medium",
            "content label x added low",
        ]
    );
    assert_eq!(worst(&before.compare(&after)), Some(Grade::High));
    // Nothing differs from itself, and what is taken away matters less than what comes.
    assert!(after.compare(&after).is_empty());
    let back = said(&after, &before);
    assert!(
        back.contains(&"capability capadd sys_admin removed low".to_owned()),
        "{back:?}"
    );
    assert!(
        back.contains(&"script poststartcommand removed medium".to_owned()),
        "{back:?}"
    );
}

#[test]
fn content_that_nothing_lists_matters_more() {
    let of = |layer: &str, unlisted: bool| {
        let mut facts = Facts::default();
        facts.add(Aspect::Content, "layers", layer).unwrap();
        if unlisted {
            facts.nothing_listed();
        }
        facts
    };
    let grade = |a: bool, b: bool| worst(&of("1", a).compare(&of("2", b)));
    assert_eq!(grade(false, false), Some(Grade::Low));
    for (a, b) in [(true, false), (false, true), (true, true)] {
        assert_eq!(grade(a, b), Some(Grade::Medium));
    }
}

#[test]
fn texts_of_one_name_keep_their_places_versions_do_not_and_long_ones_are_a_digest() {
    let of = |texts: &[&str], united: bool| {
        let mut facts = Facts::default();
        for text in texts {
            match united {
                true => facts.unite(Aspect::Package, "x".to_owned(), text).unwrap(),
                false => facts.add(Aspect::Content, "x", *text).unwrap(),
            }
        }
        facts.known
    };
    assert_eq!(of(&["b", "a", "b"], true), of(&["a", "b"], true));
    // The same layer once more on top undoes the one between.
    assert_ne!(of(&["a", "b", "a"], false), of(&["a", "b"], false));
    let of = |n: usize| {
        let mut facts = Facts::default();
        facts.add(Aspect::Script, "s", "x".repeat(n)).unwrap();
        facts.known.into_values().next().unwrap()
    };
    assert_eq!(of(MAX_TEXT_BYTES).len(), MAX_TEXT_BYTES);
    assert!(of(MAX_TEXT_BYTES + 1).starts_with("sha256:"));
    // Of all of them so much is kept, and of the rest enough to see that they differ.
    let mut facts = Facts::default();
    for n in 0..MAX_TEXTS_BYTES / MAX_TEXT_BYTES {
        facts
            .add(Aspect::Script, n.to_string(), "x".repeat(MAX_TEXT_BYTES))
            .unwrap();
    }
    assert!(
        facts
            .known
            .values()
            .all(|text| text.len() == MAX_TEXT_BYTES)
    );
    facts.add(Aspect::Script, "more", "y").unwrap();
    assert!(facts.known[&(Aspect::Script, "more".to_owned())].starts_with("sha256:"));
}

#[test]
fn of_two_files_of_one_name_the_later_counts() {
    let mut facts = Facts::default();
    let text = "evil\nkind".to_owned();
    facts
        .replace(Aspect::Instruction, "SKILL.md", text)
        .unwrap();
    facts
        .replace(Aspect::Script, "SKILL.md", "evil".to_owned())
        .unwrap();
    assert_eq!(facts.known.len(), 1);
    assert_eq!(
        facts.known[&(Aspect::Script, "SKILL.md".to_owned())],
        "evil"
    );
}

#[test]
fn keys_that_only_an_engine_would_obey_are_refused() {
    for text in [
        r#"{ "config": { "Entrypoint": ["/good"], "entrypoint": ["/evil"] } }"#,
        r#"{ "config": { "env": ["PATH=/evil"] } }"#,
        r#"{ "Config": { "User": "0" } }"#,
    ] {
        assert!(
            image::facts(text.as_bytes(), &mut Facts::default()).is_err(),
            "{text}"
        );
    }
}

#[test]
fn how_many_facts_are_kept_is_bounded() {
    let mut facts = Facts::default();
    for n in 0..MAX_FACTS {
        facts.add(Aspect::Package, n.to_string(), "1").unwrap();
    }
    facts.add(Aspect::Package, "0", "2").unwrap();
    assert_eq!(facts.add(Aspect::Package, "one more", "1"), Err(TooMany));
}

#[test]
fn what_is_no_configuration_is_said() {
    for text in ["", "{\"config\": 1}", "{\"config\": {\"Env\": {}}}"] {
        assert!(
            image::facts(text.as_bytes(), &mut Facts::default()).is_err(),
            "{text}"
        );
    }
    image::facts(b"{}", &mut Facts::default()).unwrap();
}
