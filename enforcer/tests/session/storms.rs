//! Very many at once: starts while policies change and processes storm, names in a tree, readers of a file that is replaced. No verdict is another
//! one, and no event is lost without being counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use policy::EffectivePolicy;
use serde_json::{Value, json};

use crate::files::{Case, about, rule, said, wait_for};
use crate::later::needs_lsm;
use crate::secrets::{file, inside, open};
use crate::{open as opened, policy as parsed};

fn listing(network: Value) -> EffectivePolicy {
    let origin = &rule("x")["origin"];
    let listed = ["bash", "python3", "true"].map(|name| json!({ "name": name, "origin": origin }));
    parsed(json!({
        "version": 1, "network": [network], "gateway": {}, "programs": { "allowed": listed }
    }))
}

/// Starts what is listed and what is not, in turns, in four processes, beside two that fork without end. Says how often each ended as it
/// should and as it should not.
const STARTS: &str = r#"
import os, sys, time
open("go", "w").close()
end = time.time() + 5
def start(program):
    try:
        child = os.posix_spawn(program, [program], {}, file_actions=[(os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0)])
    except PermissionError:
        return False
    return os.waitpid(child, 0)[1] == 0
def hammer():
    right, wrong, denied, through = 0, 0, 0, 0
    while time.time() < end:
        if start("/usr/bin/true"): right += 1
        else: wrong += 1
        if start("/usr/bin/id"): through += 1
        else: denied += 1
    return right, wrong, denied, through
def storm():
    made = 0
    while time.time() < end:
        children = []
        for _ in range(40):
            child = os.fork()
            if child == 0: os._exit(0)
            children.append(child)
        for child in children: os.waitpid(child, 0)
        made += len(children)
    return made, 0, 0, 0
pipes = []
for work in [hammer] * 4 + [storm] * 2:
    r, w = os.pipe()
    if os.fork() == 0:
        os.write(w, " ".join(map(str, work())).encode())
        os._exit(0)
    os.close(w)
    pipes.append(r)
for r in pipes:
    print(os.read(r, 100).decode())
"#;

#[tokio::test(flavor = "multi_thread")]
async fn starts_are_judged_alike_while_policies_change_and_processes_storm() {
    let case = Case::new("storm");
    case.put("starts.py", STARTS);
    let origin = &rule("x")["origin"];
    let policies = [
        listing(json!({})),
        listing(json!({ "allowed": [{ "host": "one.example.test", "origin": origin }] })),
    ];
    let session = opened(&case.rig, &case.id, policies[0].clone(), 0).await;
    let over = Arc::new(AtomicBool::new(false));
    let swapping = {
        let (session, over) = (Arc::clone(&session), Arc::clone(&over));
        let go = case.workspace.join("go");
        tokio::spawn(async move {
            let begun = tokio::task::spawn_blocking(move || wait_for(&go));
            begun.await.unwrap();
            let mut swaps = 0;
            while !over.load(Ordering::SeqCst) {
                swaps += 1;
                let next = policies[swaps % 2].clone();
                session.set_policy(next).await.unwrap();
            }
            swaps
        })
    };
    let usual = [("PATH", "/usr/bin:/bin".to_owned())];
    let output =
        tokio::task::block_in_place(|| case.inside_with(&session, "python3 starts.py", &usual));
    over.store(true, Ordering::SeqCst);
    let swaps = swapping.await.unwrap();
    let text = said(&output);
    let rows: Vec<Vec<usize>> = text
        .lines()
        .map(|line| line.split(' ').map(|n| n.parse().unwrap()).collect())
        .collect();
    assert_eq!(rows.len(), 6, "{text}");
    let sum = |column: usize| rows[..4].iter().map(|row| row[column]).sum::<usize>();
    let (right, wrong, denied, through) = (sum(0), sum(1), sum(2), sum(3));
    println!(
        "{swaps} changes, {right} starts, {denied} refused, {} forks",
        rows[4][0] + rows[5][0]
    );
    assert_eq!((wrong, through), (0, 0), "{text}");
    assert!(
        right > 20 && denied > 20 && swaps > 3 && rows[4][0] > 100,
        "{swaps}: {text}"
    );
    // Every refusal is on record, or counted.
    let counted = || {
        let events = case.rig.events(&case.id);
        let of_it = |event: &&audit::Event| {
            event.reason == "not-listed" && event.binary.as_deref() == Some("/usr/bin/id")
        };
        let lost: u64 = events.iter().filter_map(|event| event.lost).sum();
        events.iter().filter(of_it).count() + lost as usize
    };
    for _ in 0..100 {
        if counted() >= denied {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(counted() >= denied, "{} of {denied}", counted());
    session.close("test").await.unwrap();
}

/// The host fills a tree that is denied while it is looked at; inside a tree that is read-only as many names are tried.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_names_in_a_tree_that_is_held_change_nothing_of_it() {
    let case = Case::new("many");
    let files = json!({ "denied": [rule("secret")], "readOnly": [rule("src")] });
    let session = case.open(files).await;
    let workspace = case.workspace.clone();
    let host = std::thread::spawn(move || {
        wait_for(&workspace.join("go"));
        for n in 0..10_000 {
            std::fs::write(workspace.join(format!("secret/{n}")), "hidden\n").unwrap();
        }
        std::fs::write(workspace.join("over"), "").unwrap();
    });
    let script = r#"python3 - <<'P'
import os
open("go", "w").close()
looks = made = seen = 0
for n in range(10000):
    try:
        open("src/%d" % n, "w").close(); made += 1
    except OSError: pass
while True:
    over = os.path.exists("over")
    try: seen += len(os.listdir("secret"))
    except OSError: pass
    for n in (0, 5000, 9999):
        try: open("secret/%d" % n).close(); seen += 1
        except OSError: pass
    looks += 1
    if over: break
print(made, seen, looks > 0)
P"#;
    let text = said(&case.inside(&session, script));
    host.join().unwrap();
    assert_eq!(text, "0 0 True\n");
    session.close("test").await.unwrap();
}

/// Ten thousand of a name that a pattern is about, each beside one that is free.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_names_of_a_pattern_are_judged_one_by_one() {
    if !needs_lsm() {
        return;
    }
    let case = Case::new("names");
    let files = about(json!({ "denied": [rule("**/*.key")] }));
    let session = opened(&case.rig, &case.id, files, 0).await;
    let script = r#"python3 - <<'P'
import os
os.mkdir("deep")
counts = {"key": 0, "free": 0}
for n in range(10000):
    for kind in counts:
        try:
            open("deep/%d.%s" % (n, kind), "w").close(); counts[kind] += 1
        except PermissionError: pass
print(counts["key"], counts["free"], len(os.listdir("deep")))
P"#;
    let text = said(&case.inside(&session, script));
    assert_eq!(text, "0 10000 10000\n");
    session.close("test").await.unwrap();
}

/// Readers without pause, while the value is put anew: each reads the one before or the one after, whole.
#[tokio::test(flavor = "multi_thread")]
async fn readers_of_a_secret_read_one_value_or_the_other() {
    const TIMES: u32 = 60;
    let value = |n: u32| format!("value-{n:04}-{}", "x".repeat(3000));
    let case = Case::new("turn");
    let files = vec![file("A", &value(0), 0), file("B", "another", 0)];
    let session = open(&case, files, json!({})).await;
    let (told, workspace) = (Arc::clone(&session), case.workspace.clone());
    let changes = tokio::spawn(async move {
        let go = workspace.join("go");
        let begun = tokio::task::spawn_blocking(move || wait_for(&go));
        begun.await.unwrap();
        for n in 1..=TIMES {
            let again = vec![file("A", &value(n), 0)];
            assert!(told.set_secret_files(again).await.unwrap().is_empty());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::write(workspace.join("over"), "").unwrap();
    });
    let script = r#"python3 - <<'P'
import os
open("go", "w").close()
reads, last, odd = 0, -1, []
while True:
    over = os.path.exists("over")
    try: text = open("/run/secrets/A").read()
    except OSError as error: odd.append(str(error)); text = ""
    parts = text.split("-")
    if len(parts) != 3 or parts[2] != "x" * 3000 or int(parts[1]) < last: odd.append(text[:20])
    else: last = int(parts[1])
    reads += 1
    if over: break
print(odd[:3], last, reads > 60)
P"#;
    let output = tokio::task::block_in_place(|| inside(&case, &session, "0", script));
    assert_eq!(said(&output), format!("[] {TIMES} True\n"));
    changes.await.unwrap();
    session.close("test").await.unwrap();
}
