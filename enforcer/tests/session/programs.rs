//! Programs that are denied: masked at every name of theirs before init is released, and nothing else with them.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use policy::EffectivePolicy;
use serde_json::{Value, json};

use crate::files::{Case, rule, said, wait_for};
use crate::{open, policy as parsed};

fn about(denied: &[&str]) -> EffectivePolicy {
    let denied: Vec<Value> = denied
        .iter()
        .map(|name| {
            let origin = rule("x")["origin"].clone();
            json!({ "name": name, "origin": origin })
        })
        .collect();
    parsed(
        json!({ "version": 1, "network": [{}], "gateway": {}, "programs": { "denied": denied } }),
    )
}

/// Programs in the workspace, in a directory that the container's `PATH` has.
pub fn with_programs(name: &str) -> Case {
    let case = Case::new(name);
    let program = |name: &str| {
        case.put(name, "#!/bin/sh\necho \"ran ${0##*/}\"\n");
        let runs = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(case.workspace.join(name), runs).unwrap();
    };
    let link = |to: &str, name: &str| symlink(to, case.workspace.join(name)).unwrap();
    for name in [
        "bin/tool",
        "bin/many",
        "bin/twins",
        "lib/chosen-1",
        "opt/other",
    ] {
        program(name);
    }
    std::fs::copy("/usr/bin/printf", case.workspace.join("bin/elf")).unwrap();
    link("tool", "bin/toolbox");
    link("many", "bin/one");
    link("many", "bin/two");
    link("../etc/chosen", "bin/chosen");
    std::fs::create_dir(case.workspace.join("etc")).unwrap();
    link("../lib/chosen-1", "etc/chosen");
    link("nowhere", "bin/dangling");
    let hard = |of: &str, name: &str| {
        std::fs::hard_link(case.workspace.join(of), case.workspace.join(name)).unwrap();
    };
    hard("bin/tool", "bin/tool-2");
    hard("bin/twins", "bin/unlike");
    case
}

const ALL: &str = "tool toolbox tool-2 many one two twins unlike chosen";

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_is_not_started_by_any_name_and_what_is_another_program_is() {
    let case = with_programs("prog");
    let script = format!(
        r#"export PATH="$PWD/bin:$PATH"; for p in {ALL}; do $p 2>/dev/null; done; opt/other 2>/dev/null; elf 'ran elf\n' 2>/dev/null"#
    );
    // The control: without rules all of it runs.
    let id = format!("{}c", case.id);
    let session = open(&case.rig, &id, about(&[]), 1).await;
    let text = said(&case.inside_with(&session, &script, &[("PATH", case.path())]));
    let all: Vec<String> = ALL.split(' ').map(|name| format!("ran {name}")).collect();
    let all = format!("{}\nran other\nran elf\n", all.join("\n"));
    assert_eq!(text, all);
    session.close("test").await.unwrap();

    let other = case.at("opt/other");
    let denied = [
        "tool", "one", "twins", "chosen", "elf", "dangling", "no-such", &other,
    ];
    let session = open(&case.rig, &case.id, about(&denied), 0).await;
    let tries = r#"
        for p in tool toolbox tool-2 one twins chosen ../lib/chosen-1 elf; do
            for way in "$PWD/bin/$p" "/proc/self/root$PWD/bin/$p" "/proc/$$/cwd/bin/$p"; do "$way" x 2>/dev/null; sh "$way" 2>/dev/null; done
            (exec "bin/$p" x) 2>/dev/null; cp "bin/$p" copy 2>/dev/null; sh ./copy 2>/dev/null; mv "bin/$p" bin/moved 2>/dev/null; ln "bin/$p" hard 2>/dev/null
            rm -f "bin/$p" 2>/dev/null; cat "bin/$p" 2>/dev/null
        done
        mv bin away 2>/dev/null; /lib64/ld-linux-x86-64.so.2 "$PWD/bin/elf" LOADED 2>/dev/null
    "#;
    let output = case.inside_with(
        &session,
        &format!("{script}; {tries} echo done"),
        &[("PATH", case.path())],
    );
    assert_eq!(said(&output), "ran many\nran two\nran unlike\ndone\n");
    let events = case.rig.events(&case.id);
    let held = events.iter().find(|e| e.reason == "programs-held").unwrap();
    let detail = held.detail.as_ref().unwrap();
    for words in [
        format!("denied at {} ", case.at("bin/elf")),
        case.at("bin/tool-2"),
        case.at("lib/chosen-1"),
        "; nowhere: dangling no-such;".to_owned(),
        format!(
            "which are not denied: {} {} {}",
            case.at("bin/many"),
            case.at("bin/two"),
            case.at("bin/unlike")
        ),
    ] {
        assert!(detail.contains(&words), "{words}: {detail}");
    }
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_volume_has_makes_no_other_program_of_what_is_denied() {
    let case = with_programs("pvol");
    let volume = case.at("volume");
    std::fs::create_dir(&volume).unwrap();
    let on = |command: &str, words: &[&str]| {
        let status = std::process::Command::new(command).args(words).status();
        assert!(status.unwrap().success());
    };
    on("mount", &["-t", "tmpfs", "tmpfs", &volume]);
    symlink(
        case.at("lib/chosen-1"),
        case.workspace.join("volume/planted"),
    )
    .unwrap();
    let session = open(&case.rig, &case.id, about(&["chosen"]), 0).await;
    let script = "chosen 2>/dev/null; planted 2>/dev/null; lib/chosen-1 2>/dev/null; tool";
    let path = format!("{volume}:{}", case.path());
    let text = said(&case.inside_with(&session, script, &[("PATH", path)]));
    on("umount", &[&volume]);
    assert_eq!(text, "ran tool\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_masked_where_the_usual_directories_have_it_whatever_the_path_says() {
    let case = Case::new("usual");
    let session = open(&case.rig, &case.id, about(&["printf", "/bin/mv"]), 0).await;
    let script = "/usr/bin/printf OPEN 2>/dev/null; env printf OPEN 2>/dev/null; /usr/bin/mv --version 2>/dev/null; /usr/bin/echo done";
    let output = case.inside_with(&session, script, &[("PATH", "/nowhere:.".into())]);
    assert_eq!(said(&output), "done\n");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_the_host_replaces_is_masked_again() {
    let case = with_programs("pagain");
    let session = open(&case.rig, &case.id, about(&["tool"]), 0).await;
    let bin = case.workspace.join("bin");
    let host = std::thread::spawn(move || {
        wait_for(&bin.join("begun"));
        std::fs::copy(bin.join("many"), bin.join("new")).unwrap();
        std::fs::rename(bin.join("new"), bin.join("tool")).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(1500));
        std::fs::write(bin.join("go"), "go\n").unwrap();
    });
    let script = "touch bin/begun; for n in $(seq 100); do sleep 0.05; cat bin/go 2>/dev/null && break; done; sleep 1; bin/tool 2>/dev/null; bin/many";
    let text = said(&case.inside_with(&session, script, &[("PATH", case.path())]));
    host.join().unwrap();
    assert_eq!(text, "go\nran many\n");
    let events = case.rig.events(&case.id);
    assert!(events.iter().any(|e| e.reason == "files-held-again"));
    // Whoever takes the session up holds the same places.
    let store = enforcer::store::Store::open(&case.rig.places.sessions, &case.id).unwrap();
    let masked = serde_json::to_value(store.load().unwrap().masked).unwrap();
    assert!(masked.to_string().contains("/bin/tool-2"), "{masked}");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_cannot_be_masked_let_nothing_start_and_say_why() {
    let case = with_programs("pwhy");
    let many: Vec<String> = (0..=enforcer::files::MAX_DIRECTORIES)
        .map(|n| format!("/d{n}"))
        .collect();
    let directory = case.at("bin");
    for (n, (denied, path, words)) in [
        (
            directory.as_str(),
            case.path(),
            Some("which is a directory"),
        ),
        ("tool", many.join(":"), Some("more than 256 directories")),
        ("tool", many[1..].join(":"), None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("{}x{n}", case.id);
        let session = open(&case.rig, &id, about(&[denied]), n as u32).await;
        let output = case.inside_with(&session, "/usr/bin/echo started", &[("PATH", path)]);
        let text = said(&output);
        match words {
            Some(words) => {
                assert_eq!(output.status.code(), Some(125), "{denied}: {text}");
                assert!(text.contains(words) && !text.contains("started"), "{text}");
            }
            None => assert_eq!(text, "started\n"),
        }
        session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_about_programs_do_not_change_while_a_session_runs() {
    let case = Case::new("psame");
    let session = open(&case.rig, &case.id, about(&["sudo"]), 0).await;
    let error = session.set_policy(about(&[])).await.unwrap_err();
    assert!(
        error.to_string().contains("from the next start on"),
        "{error}"
    );
    session.set_policy(about(&["sudo"])).await.unwrap();
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_of_the_image_with_two_names_is_listed_beside_one_that_a_rule_is_about() {
    use std::os::unix::fs::MetadataExt as _;
    let case = Case::new("twon");
    // On the root's own file system, as an image's programs are.
    let image = tempfile::tempdir_in("/opt").unwrap();
    let device = |path: &std::path::Path| std::fs::metadata(path).unwrap().dev();
    assert_eq!(device(image.path()), device("/".as_ref()));
    for name in ["tool", "other"] {
        std::fs::copy("/usr/bin/printf", image.path().join(name)).unwrap();
    }
    std::fs::hard_link(image.path().join("tool"), image.path().join("tool-2")).unwrap();
    std::fs::set_permissions(image.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let listed =
        ["bash", "tool"].map(|name| json!({ "name": name, "origin": rule("x")["origin"] }));
    // Its directory is kept in its place by that, as by a denial: a mount of its own.
    let other = image.path().join("other");
    let read_only = rule(other.to_str().unwrap());
    let policy = parsed(json!({
        "version": 1, "network": [{}], "gateway": {},
        "files": { "readOnly": [read_only] },
        "programs": { "allowed": listed },
    }));
    let session = open(&case.rig, &case.id, policy, 0).await;
    let path = format!("{}:/usr/bin:/bin", image.path().display());
    let script = r"exec 2>/dev/null; tool 'ran\n'; other 'OPEN\n'; id; true";
    let text = said(&case.inside_with(&session, script, &[("PATH", path)]));
    assert_eq!(text, "ran\n");
    session.close("test").await.unwrap();
}
