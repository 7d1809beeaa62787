//! Under a list of programs, what can be written and has nothing listed in it: nothing is started from there, nor mapped to be executed, by the
//! mount itself, whatever else this kernel has for the list.

use std::time::Duration;

use policy::EffectivePolicy;
use serde_json::{Value, json};

use crate::files::{Case, rule, said};
use crate::later::{happens, lsm, needs_lsm};
use crate::{open, policy as parsed};

const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// Tries a copy of a program in each place: started, by the loader, mapped.
const TRIED: &str = r#"
import mmap, os, shutil, subprocess, sys
LOADER = "/lib64/ld-linux-x86-64.so.2"
def started(*argv):
    try: ran = subprocess.run(argv, capture_output=True, text=True)
    except OSError as e: return e.strerror
    return ran.stdout or ("not mapped" if "failed to map" in ran.stderr else "ended")
def mapped(path):
    with open(path, "rb") as file:
        try: mmap.mmap(file.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
        except PermissionError: return "refused"
    return "mapped"
def tried(path): print(path, started(path, "ran"), started(LOADER, path, "ran"), mapped(path), sep=", ", flush=True)
for place in sys.argv[1:]:
    copy = place + "/copy"
    if not os.path.exists(copy): shutil.copy("/usr/bin/printf", copy)
    tried(copy)
"#;

/// As an engine mounts them, and one more upon the first; programs lie in the last two before anything is looked at.
const MOUNTS: &str = "export PATH=/usr/bin:/bin && mount -t tmpfs -o mode=0777 tmpfs plain && mkdir plain/below && mount -t tmpfs -o mode=0777 tmpfs plain/below \
     && mount -t tmpfs -o mode=1777 tmpfs /dev/shm && mount -t tmpfs -o mode=0777 tmpfs tools && cp /usr/bin/printf tools/own \
     && mount -t tmpfs -o mode=0777 tmpfs fixed && mkdir fixed/cache && cp /usr/bin/printf fixed/copy";

const PLACES: &str = "plain plain/below /dev/shm fixed/cache held/cache";

fn case(name: &str) -> Case {
    let case = Case::new(name);
    case.put("tried.py", TRIED);
    for name in ["plain", "tools", "fixed", "held/cache"] {
        case.put(&format!("{name}/x"), "");
    }
    case
}

/// With rules about files, so that some of it is read-only and some of that writable.
fn listing(names: &[&str], asked: bool) -> EffectivePolicy {
    let origin = &rule("x")["origin"];
    let listed: Vec<Value> = names
        .iter()
        .map(|name| json!({ "name": name, "origin": origin }))
        .collect();
    let mut programs = json!({ "allowed": listed });
    if asked {
        programs["requireApproval"] = origin.clone();
    }
    let mut policy = about_files();
    policy["programs"] = programs;
    parsed(policy)
}

fn about_files() -> Value {
    json!({
        "version": 1, "network": [{}], "gateway": {},
        "files": {
            "readOnly": [rule("fixed"), rule("held")],
            "writable": [rule("fixed/cache"), rule("held/cache")],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the loader is x86-64's")]
async fn nothing_is_started_or_mapped_from_what_can_be_written_and_has_nothing_listed() {
    let case = case("nox");
    let script = format!(
        "python3 tried.py {PLACES} fixed; python3 -c 'import sys; sys.argv[1:] = []; exec(open(\"tried.py\").read()); tried(\"tools/own\"); print(started(LOADER, \"/usr/bin/printf\", \"ran\"))'"
    );
    let free = |path: &str| format!("{path}, ran, ran, mapped\n");
    let all: Vec<String> = PLACES.split(' ').map(|at| format!("{at}/copy")).collect();
    // The control: without a list all of it is started and mapped.
    let session = open(
        &case.rig,
        &format!("{}c", case.id),
        parsed(about_files()),
        1,
    )
    .await;
    let text = said(&case.inside_after(&session, MOUNTS, "0", &script));
    let expected: String = all.iter().map(|path| free(path)).collect();
    let rest = format!("{}{}ran\n", free("fixed/copy"), free("tools/own"));
    assert_eq!(text, format!("{expected}{rest}"));
    session.close("test").await.unwrap();

    std::fs::remove_file(case.workspace.join("held/cache/copy")).unwrap();
    let own = case.at("tools/own");
    let list = listing(&["bash", "python3", LOADER, &own], false);
    let session = open(&case.rig, &case.id, list, 0).await;
    let text = said(&case.inside_after(&session, MOUNTS, "0", &script));
    let closed = |path: &String| format!("{path}, Permission denied, not mapped, refused\n");
    let expected: String = all.iter().map(closed).collect();
    // What nobody inside can write is mapped as before, and not started by itself; what is listed runs where it lies.
    let ended = match lsm() {
        Ok(()) => "Permission denied",
        Err(_) => "ended",
    };
    let rest = format!(
        "fixed/copy, {ended}, ran, mapped\n{}ran\n",
        free("tools/own")
    );
    assert_eq!(text, format!("{expected}{rest}"));
    let events = case.rig.events(&case.id);
    let mounts = events
        .iter()
        .find(|e| e.reason == "programs-held" && e.layer.as_deref() == Some("mounts"));
    let detail = mounts.unwrap().detail.clone().unwrap();
    // The last of them: where the tests lie may be mounts too.
    let (closed, left) = detail.split_once("; ").unwrap();
    assert!(
        closed.starts_with("nothing is started from ")
            && closed.ends_with(" mounts that can be written (noexec)"),
        "{detail}"
    );
    assert!(
        left.starts_with("something listed lies in: ") && left.ends_with(&case.at("tools")),
        "{detail}"
    );
    assert!(!left.contains(&case.at("plain")), "{detail}");
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the loader is x86-64's")]
async fn what_the_host_puts_in_a_writable_paths_place_starts_nothing_either() {
    let case = case("nox2");
    let held = case.workspace.join("held");
    let host = std::thread::spawn(move || {
        for _ in 0..400 {
            if held.join("cache/go").exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        std::fs::rename(held.join("cache"), held.join("before")).unwrap();
        std::fs::create_dir(held.join("cache")).unwrap();
        // Long enough for it to be held again.
        std::thread::sleep(Duration::from_millis(2500));
        std::fs::write(held.join("there"), "").unwrap();
    });
    let script = "python3 tried.py held/cache; > held/cache/go; while ! [ -e held/there ]; do sleep 0.05; done; python3 tried.py held/cache";
    let list = listing(&["bash", "python3", "sleep", LOADER], false);
    let session = open(&case.rig, &case.id, list, 0).await;
    let text = said(&case.inside_after(&session, MOUNTS, "0", script));
    host.join().unwrap();
    let once = "held/cache/copy, Permission denied, not mapped, refused\n";
    assert_eq!(text, format!("{once}{once}"));
    let events = case.rig.events(&case.id);
    assert!(events.iter().any(|e| e.reason == "files-held-again"));
    session.close("test").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_be_written_by_another_place_of_it_starts_nothing() {
    let read_only = "mkdir -p shown && mount --bind held shown && mount -o remount,bind,ro shown";
    let writable = "mkdir -p shown && mount --bind held shown";
    let in_its_place = "mount --bind held held && mount -o remount,bind,ro held";
    let of = |name: &str, mounts: &str, list: &[&str], rules: Value| {
        let case = case(name);
        let list: Vec<String> = list.iter().map(|at| case.at(at)).collect();
        let names: Vec<&str> = list.iter().map(String::as_str).collect();
        let mut policy = listing(&[&["bash"][..], &names].concat(), false);
        policy.files = parsed(json!({
            "version": 1, "network": [{}], "gateway": {}, "files": rules,
        }))
        .files;
        let mounts =
            format!("mount --bind $PWD $PWD && cd $PWD && cp /usr/bin/printf held/own && {mounts}");
        (case, policy, mounts)
    };
    for (n, mounts, list, rules, refused) in [
        ("twice1", read_only, &[][..], json!({}), true),
        ("twice2", writable, &["shown/own"], json!({}), true),
        ("twice3", writable, &["held/own"], json!({}), true),
        // The controls: nothing of the list, one place, and the other one held by a rule.
        ("twice4", writable, &[], json!({}), false),
        ("twice5", in_its_place, &["held/own"], json!({}), false),
        (
            "twice6",
            read_only,
            &["shown/own"],
            json!({ "readOnly": [rule("held")] }),
            false,
        ),
    ] {
        let (case, policy, mounts) = of(n, mounts, list, rules);
        let session = open(&case.rig, &case.id, policy, 0).await;
        let output = case.inside_after(&session, &mounts, "0", "echo started");
        let text = said(&output);
        let words = "which can be written, and what is started here is a list";
        assert_eq!(text.contains(words), refused, "{n}: {text}");
        assert_eq!(text.contains("started\n"), !refused, "{n}: {text}");
        session.close("test").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "the loader is x86-64's")]
async fn where_a_person_may_be_asked_mounts_stay_as_they_are() {
    if !needs_lsm() {
        return;
    }
    let case = case("nox3");
    let list = listing(&["bash", "python3", LOADER], true);
    let session = open(&case.rig, &case.id, list, 0).await;
    let text = said(&case.inside_after(&session, MOUNTS, "0", "python3 tried.py plain"));
    assert_eq!(text, "plain/copy, Permission denied, not mapped, refused\n");
    // By BPF LSM, which tells of it.
    let copy = case.at("plain/copy");
    happens(&case, |event| {
        event.reason == "not-listed"
            && event.detail.as_deref() != Some("map to be executed")
            && event.binary.as_ref() == Some(&copy)
    });
    session.close("test").await.unwrap();
}
