//! Attempts at files and programs that rules are about: each way first in a plain container, where every one of them has to work, then in a
//! session of ours, where none may. What is read-only is looked at by the host, before and after.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use agentcontainer_tests::attempt::{Line, Said};
use agentcontainer_tests::place::token;
use agentcontainer_tests::{Outcome, Workspace, docker, outcome, rig};
use serde_json::{Value, json};

use crate::singly::{container, record};

/// The options that every way works with in a plain container.
const OPTIONS: &str = "--cap-add SYS_ADMIN --cap-add SYS_PTRACE --cap-add SYS_RAWIO --cap-add DAC_READ_SEARCH --cap-add MKNOD --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined --tmpfs /dev/shm:exec";

const PROBES: [(&str, &str); 2] = [
    ("probe.py", include_str!("../../probe/probe.py")),
    ("held.py", include_str!("../../probe/held.py")),
];

/// What is told of a tree, by Python, which tells of attributes too.
const TREE: &str = r#"
import hashlib, json, os, stat, sys
tree = {}
for above, directories, files in os.walk(sys.argv[1]):
    for name in [".", *directories, *files]:
        path = os.path.join(above, name)
        s = os.lstat(path)
        content = hashlib.sha256(open(path, "rb").read()).hexdigest() if stat.S_ISREG(s.st_mode) else ""
        attributes = {a: os.getxattr(path, a, follow_symlinks=False).hex() for a in os.listxattr(path, follow_symlinks=False)}
        links = s.st_nlink if stat.S_ISREG(s.st_mode) else 0
        tree[path] = [s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_ino, s.st_mtime_ns, links, content, attributes]
print(json.dumps(tree, sort_keys=True))
"#;

macro_rules! held {
    ($($test:ident $id:literal $title:literal;)*) => {
        const HELD: &[(&str, &str)] = &[$(($id, $title)),*];
        $(#[test] fn $test() { judge($id); })*
    };
}

held! {
    f01_links "F01" "links to a denied file";
    f02_hard_links "F02" "hard links to a denied file";
    f03_mounts "F03" "bind mounts, overlays, unmounting";
    f04_other_views "F04" "/proc/self/root, descriptors, chroot";
    f05_opened_anew "F05" "O_PATH opened anew, openat2, handles";
    f06_renamed "F06" "renames, exchanges, of parents, a race of both";
    f08_written "F08" "each way of writing a read-only file";
    f08_what_a_descriptor_lets_through "F08d" "ftruncate, mprotect, fchmod of a descriptor";
    f10_names_and_modes "F10" "modes, owners, times, names of a read-only tree";
    f10_attributes "F10x" "extended attributes of a read-only tree";
    f12_devices "F12" "a device by mknod";
    f13_processes "F13" "environ, mem, maps of pid 1";
    f13_the_kernels_memory "F13k" "what /proc tells of the whole machine";
    f18_disguised "F18" "another name of its own for the program";
    e01_copies_of_what_is_unlisted "E01l" "copies and links of an unlisted program";
    e02_what_is_unlisted_by_the_loader "E02l" "the loader on an unlisted program";
    e03_what_is_unlisted_by_descriptors "E03l" "descriptors, memory, files without a name";
    e05_interpreters "E05" "an unlisted interpreter of a script";
    e05_registered_formats "E05b" "an interpreter registered by binfmt_misc";
    e07_what_is_unlisted_by_other_paths "E07l" "other paths to an unlisted program";
    e10_words_that_change "E10" "a path that changes while it is read";
    x08_what_is_listed_replaced "X08" "something else in a listed program's place";
}

/// What came of everything.
struct Results {
    control: BTreeMap<String, Said>,
    governed: BTreeMap<String, Said>,
    /// Of trees that are read-only, those that changed: of plain containers, and of ours.
    changed: [Vec<&'static str>; 2],
    events: Vec<Value>,
}

/// Those whose verdict is the host's, by what became of the tree.
fn is_about_kept(id: &str) -> bool {
    matches!(id, "F08" | "F08d" | "F10" | "F10x")
}

fn judge(id: &str) {
    let results = results();
    let (_, title) = HELD.iter().find(|held| held.0 == id).unwrap();
    let got = |said: &Said, changed: &[&str]| match is_about_kept(id) {
        true => changed.contains(&id),
        false => !said.got.is_empty(),
    };
    let (control, governed) = (&results.control[id], &results.governed[id]);
    let leaked = got(governed, &results.changed[1]) || !governed.got.is_empty();
    let line = Line {
        id: id.to_owned(),
        title: (*title).to_owned(),
        control: "works".into(),
        outcome: if leaked { "LEAKED" } else { "stopped" }.to_owned(),
        layer: layer(id, governed, &results.events),
    };
    line.record();
    assert!(!leaked, "{id} got out: {governed:?}");
    // Each of its ways, not any one.
    assert!(
        control.error.is_empty() && got(control, &results.changed[0]),
        "{id} proves nothing: {control:?}"
    );
    let tried = governed.error.split("; ").count();
    assert!(
        governed.error.starts_with("Told: ") && tried == control.got.split(' ').count(),
        "{id} did not try what the control did: {governed:?} {control:?}"
    );
}

/// What stopped it: the layer of the records that name it, or mounts and the like, with what it was told.
fn layer(id: &str, said: &Said, events: &[Value]) -> String {
    let about = |event: &&Value| {
        let of =
            |key: &str, part: &str| event[key].as_str().is_some_and(|text| text.contains(part));
        let program = said.error.contains("nothing") && event["kind"] == "exec";
        event["verdict"] == "deny" && (program || of("file", &format!("/{id}/")))
    };
    let layers: std::collections::BTreeSet<&str> = events
        .iter()
        .filter(about)
        .filter_map(|event| event["layer"].as_str())
        .collect();
    let told: std::collections::BTreeSet<&str> = said
        .error
        .split("; ")
        .filter_map(|way| way.rsplit_once(": "))
        .map(|(_, told)| told)
        .collect();
    let told = Vec::from_iter(told).join(" ");
    match layers.is_empty() {
        true => format!("mounts, seccomp, capabilities ({told})"),
        false => format!("{} ({told})", Vec::from_iter(layers).join(", ")),
    }
}

/// What each attempt finds, and the batch of them.
fn furnish(at: &Path, tokens: &BTreeMap<&str, String>) {
    let put = |name: String, text: &str| {
        let path = at.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (name, text) in PROBES {
        put(name.to_owned(), text);
    }
    for (id, token) in tokens {
        put(format!("{id}/secret/file"), token);
        put(format!("{id}/key"), token);
        put(format!("{id}/kept/file"), "as it was");
        put(format!("{id}/kept/other"), "as it was");
    }
    let batch: Vec<Value> = tokens
        .iter()
        .map(|(id, token)| json!({ "id": id, "attempt": id, "token": token }))
        .collect();
    put("batch.json".to_owned(), &json!(batch).to_string());
}

fn tree(at: &Path, id: &str) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", TREE]).arg(at.join(id).join("kept"));
    outcome::finish(command, outcome::DEADLINE).ok().to_owned()
}

/// The trees that `makes` leaves otherwise than they were.
fn changed<T>(at: &Path, makes: impl FnOnce() -> T) -> (Vec<&'static str>, T) {
    let look = || HELD.iter().map(|(id, _)| tree(at, id)).collect::<Vec<_>>();
    let before = look();
    let made = makes();
    let after = look();
    let pairs = before.iter().zip(&after).zip(HELD);
    let changed = pairs.filter(|((before, after), _)| before != after);
    (changed.map(|(_, (id, _))| *id).collect(), made)
}

fn told(out: &Outcome) -> BTreeMap<String, Said> {
    let lines = out.stdout.lines();
    let said = lines.filter_map(|line| serde_json::from_str::<Said>(line).ok());
    let told: BTreeMap<String, Said> = said.map(|said| (said.id.clone(), said)).collect();
    assert_eq!(told.len(), HELD.len(), "{}\n{}", out.stdout, out.stderr);
    told
}

fn results() -> &'static Results {
    static RESULTS: OnceLock<Option<Results>> = OnceLock::new();
    let made = RESULTS.get_or_init(|| std::panic::catch_unwind(make).ok());
    made.as_ref().expect("the attempts were not made")
}

fn make() -> Results {
    let tokens: BTreeMap<&str, String> = HELD.iter().map(|(id, _)| (*id, token("held"))).collect();
    let plain = tempfile::tempdir().unwrap();
    furnish(plain.path(), &tokens);
    let mount = format!("{0}:{0}", plain.path().display());
    let directory = plain.path().display().to_string();
    let mut words = vec![
        "run",
        "--rm",
        "--user",
        "root",
        "--volume",
        &mount,
        "--workdir",
        &directory,
    ];
    words.extend(OPTIONS.split(' '));
    words.extend(["--device-cgroup-rule", "c *:* rwm"]);
    words.extend([rig().image.as_str(), "python3", "held.py", "batch.json"]);
    let (plainly, control) = changed(plain.path(), || told(&docker::attempt(&words)));

    let of = |names: &[&str]| -> Vec<String> {
        let each = |id: &&str| {
            names
                .iter()
                .map(|name| format!("{id}/{name}"))
                .collect::<Vec<_>>()
        };
        tokens.keys().flat_map(each).collect()
    };
    let workspace = Workspace::new()
        .key("containerUser", json!("root"))
        .key(
            "agent",
            json!({ "capabilities": {
                "network": { "egress": {} },
                "filesystem": { "deniedPaths": of(&["secret", "key"]), "readOnlyPaths": of(&["kept"]) },
                "tools": { "allowedBinaries": ["python3", "sh"] },
            } }),
        );
    furnish(&workspace.path(), &tokens);
    workspace.write();
    let name = token("held");
    let (under_rules, governed) = changed(&workspace.path(), || {
        let words = [
            "run",
            "--yes",
            "--name",
            &name,
            "--",
            "python3",
            "held.py",
            "batch.json",
        ];
        told(&workspace.cli(&words))
    });
    Results {
        control,
        governed,
        changed: [plainly, under_rules],
        events: workspace.events(&name),
    }
}

#[test]
fn e09_a_file_that_gives_its_owners_rights_gives_none() {
    // A copy of its own, which gives root's rights to whoever starts it, where that is heeded.
    let copy = "cp /usr/bin/python3 /tmp/owner && chmod 4755 /tmp/owner";
    let who = ["/tmp/owner", "-c", "import os; print(os.geteuid())"];
    let as_another = |container: &str| {
        let words = [&["exec", "--user", "65534:65534", container][..], &who].concat();
        docker::attempt(&words)
    };
    let plain = docker::Plain::start(&["--user", "root"], &["sleep", "300"]);
    docker::run(&["exec", &plain.id, "sh", "-c", copy]);
    assert_eq!(as_another(&plain.id).ok(), "0");
    let workspace = Workspace::new().key("containerUser", json!("root"));
    let name = token("owner");
    let session = workspace.session(&name);
    session.inside(copy).status(0);
    assert_eq!(as_another(&container(&name)).ok(), "65534");
    record(
        "E09",
        "a set-user-id file",
        "works",
        "no_new_privs (the file's bit is inert)",
    );
}

#[test]
fn f17_a_rule_about_what_is_not_there_yet_holds_or_stops_the_start() {
    let late = "mkdir -p app/deep && echo late >app/deep/.env; cat app/deep/.env; mv app moved; cat moved/deep/.env; echo over";
    let plain = docker::attempt(&[
        "run",
        "--rm",
        "--workdir",
        "/tmp",
        &rig().image,
        "sh",
        "-c",
        late,
    ]);
    assert_eq!(plain.stdout, "late\nlate\nover\n");
    let workspace = Workspace::new().key(
        "agent",
        json!({ "capabilities": { "filesystem": { "deniedPaths": ["**/.env"] } } }),
    );
    let out = workspace.inside(late);
    assert!(!out.stdout.contains("late"), "{out:?}");
    let layer = match out.status {
        // No layer here carries it whole.
        125 => {
            out.says("files = \"mounts\"");
            "nothing starts: no layer here carries the rule"
        }
        _ => {
            out.prints("over");
            "lsm"
        }
    };
    record(
        "F17",
        "a file that a pattern is about, made later",
        "works",
        layer,
    );
}
